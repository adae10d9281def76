//! Checks the room that a log needs to continue, without taking it. The need of a first start follows from the disk
//! (`layout`). Runs on the main thread.

use super::format::spare_name;
use super::names::Names;
use super::repair::Survey;
use super::segment_reader::unreadable;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Checks that a start with this log has a segment to write, or room for one: a whole spare, a segment that nothing needs, or
/// free bytes together with the bytes of spares that are not whole.
///
/// # Errors
/// The bytes that are needed, and where; as the start says it.
pub(crate) fn expect_room(storage: &dyn Storage, log: &Survey, segment_bytes: u64) -> Result<()> {
    let fail = |err| unreadable(storage, "a spare segment", err);
    if log.segments.is_empty() || !log.old.is_empty() {
        return Ok(());
    }
    let mut free = storage.volume().map_err(fail)?.free;
    for number in Names::list(storage)?.spares {
        let size = storage.size_of(&spare_name(number)).map_err(fail)?.unwrap_or(0);
        if size >= segment_bytes {
            return Ok(());
        }
        free = free.saturating_add(size);
    }
    if free >= segment_bytes {
        return Ok(());
    }
    let err = fail(std::io::ErrorKind::StorageFull.into());
    Err(no_room(segment_bytes, &storage.name(), &err))
}

/// The error for a start without room for this many bytes of the log.
pub(crate) fn no_room(bytes: u64, name: &str, err: &Error) -> Error {
    let needed = mebibytes(bytes);
    Error::Failed(format!(
        "there is no room to start the log: {needed} more must be free in {name}: {err}; make room, or give another `state_dir`"
    ))
}

/// A number of bytes for people, never too few.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
