//! The room that a log needs to go on, asked without taking it. What a first start needs follows from the disk (`layout`).

use super::format::spare_name;
use super::names::Names;
use super::repair::Survey;
use super::segment_reader::unreadable;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Whether a start that goes on with this log has a segment to write, or room for one: a whole spare, a segment that nothing
/// needs, or what is free and what spares hold that are not whole.
///
/// # Errors
/// How much is needed, where; as the start says it.
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

/// The error for a start without room for so many bytes of the log.
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
