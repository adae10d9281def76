//! The size of a log's segments: a part of its disk, so that a small disk holds several.
//!
//! ```text
//! disk ÷ 16, at most 64 MiB, at least twice the longest record and 2 MiB     smallest disk: 8 segments
//! ```
//! A log releases whole segments, and input leaves some of them alone: with fewer than eight no input would come in. A later
//! start keeps the size of the existing segments, unless the disk has become too small for it or much larger. Others who
//! fill the disk do not change it. Runs on the main thread; pure, but for [`Disk::of`].

use std::io::ErrorKind;

use super::format::{SEGMENT_HEADER, SegmentHeader, segment_name};
use super::names::Names;
use super::{SEGMENT_BYTES, mebibytes};
use crate::error::{Error, Result};
use crate::storage::{Storage, read_full};

/// The smallest segment on a small disk, in bytes.
const LEAST_BYTES: u64 = 2 << 20;

/// A segment is this part of the disk, if that is neither too large nor too small.
const PART: u64 = 16;

/// The smallest disk has room for this many segments.
const SEGMENTS_MIN: u64 = 8;

/// The disk of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes of the disk, free or not.
    pub bytes: u64,
    /// Bytes that are free or taken by the log itself.
    pub available: u64,
    /// The size of the existing segments; `None` before the first start.
    pub segment_bytes: Option<u64>,
}

/// The reason why a disk is too small for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooSmall {
    /// It holds fewer bytes than this.
    Disk(u64),
    /// Fewer bytes than this are free.
    Free(u64),
}

impl Disk {
    /// Measures the disk and the files of a log.
    ///
    /// # Errors
    /// If the directory or a file cannot be read.
    pub fn of(storage: &dyn Storage) -> Result<Disk> {
        let fail = |err| Error::io(format!("cannot look at {}", storage.name()), err);
        let volume = storage.volume().map_err(fail)?;
        let mut own = 0;
        for name in storage.list().map_err(fail)? {
            own += match storage.open(&name).and_then(|file| file.size()) {
                // Another process uses the directory, which the lock tells.
                Err(err) if err.kind() == ErrorKind::NotFound => 0,
                size => size.map_err(fail)?,
            };
        }
        let available = volume.free.saturating_add(own).min(volume.bytes);
        let newest = Names::list(storage)?.segments.last().copied();
        let segment_bytes = newest.map(|id| size_of(storage, id)).transpose()?.flatten();
        Ok(Disk { bytes: volume.bytes, available, segment_bytes })
    }

    /// The size of a segment for records of up to this many bytes.
    ///
    /// # Errors
    /// If the disk is too small.
    pub fn segment_bytes_for(&self, record_bytes_max: u64) -> Result<u64, TooSmall> {
        let least = (2 * record_bytes_max).next_power_of_two().clamp(LEAST_BYTES, SEGMENT_BYTES);
        let needed = SEGMENTS_MIN * least;
        let part_of = |bytes: u64| {
            let part = (bytes / PART).max(1);
            (1 << part.ilog2()).clamp(least, SEGMENT_BYTES)
        };
        if self.bytes < needed {
            return Err(TooSmall::Disk(needed));
        }
        let (most, now) = (part_of(self.bytes), part_of(self.available));
        match self.segment_bytes {
            None if self.available < needed => Err(TooSmall::Free(needed)),
            None => Ok(now),
            Some(before) => Ok(before.clamp(now, most)),
        }
    }

    /// The error for a disk that is too small for a log in `name` whose longest records are those of `source`.
    pub fn refuse(&self, why: TooSmall, name: &str, source: Option<(&str, u64)>) -> Error {
        let shorter = match source {
            Some((source, bytes)) if 2 * bytes > LEAST_BYTES => {
                format!(", or a smaller `record_bytes_max` for the source `{source}`")
            }
            _ => String::new(),
        };
        Error::Failed(match why {
            TooSmall::Disk(needed) => format!(
                "the log needs a disk of at least {}, and {name} lies on one of {}: give `state_dir` on a larger disk{shorter}",
                mebibytes(needed),
                whole_mebibytes(self.bytes),
            ),
            TooSmall::Free(needed) => format!(
                "the log needs {} to begin with, and {} are free in {name}: make room, or give another `state_dir`{shorter}",
                mebibytes(needed),
                whole_mebibytes(self.available),
            ),
        })
    }
}

/// A number of bytes for people, never too many.
fn whole_mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// The size in a segment's header; `None` if that cannot be read, which the start reports.
fn size_of(storage: &dyn Storage, id: u64) -> Result<Option<u64>> {
    let mut header = [0; SEGMENT_HEADER];
    let read = storage
        .open(&segment_name(id))
        .and_then(|file| read_full(file.as_ref(), 0, &mut header))
        .map_err(|err| Error::io(format!("cannot look at {}", storage.name()), err))?;
    Ok(SegmentHeader::decode(&header[..read]).ok().map(|header| header.size))
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::TooSmall::{Disk as Whole, Free};
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A disk of `bytes` MiB. `available` of them are free or the log's own, and its segments take `before` MiB.
    fn disk(bytes: u64, available: u64, before: Option<u64>) -> Disk {
        Disk {
            bytes: bytes * MIB,
            available: available * MIB,
            segment_bytes: before.map(|size| size * MIB),
        }
    }

    /// The size of a segment in MiB on such a disk, for records of `record_kib` KiB.
    fn check(disk: Disk, record_kib: u64, expected: Result<u64, TooSmall>) {
        let found = disk.segment_bytes_for(record_kib << 10);
        assert_eq!(found, expected.map(|size| size * MIB), "{disk:?} {record_kib}");
    }

    #[test]
    fn a_first_start_takes_a_part_of_what_is_free() {
        for (size, expected) in [
            (16, 2),
            (24, 2),
            (32, 2),
            (63, 2),
            (64, 4),
            (100, 4),
            (155, 8),
            (224, 8),
            (400, 16),
            (1_023, 32),
            (1_024, 64),
            (1 << 30, 64),
        ] {
            check(disk(size, size, None), 1_024, Ok(expected));
        }
        check(disk(1_000_000, 300, None), 1_024, Ok(16));
        check(disk(1_000_000, 16, None), 1, Ok(2));
    }

    #[test]
    fn records_fit_and_a_disk_that_is_too_small_is_refused() {
        check(disk(100, 100, None), 1, Ok(4));
        check(disk(100, 100, None), 2_048, Ok(4));
        check(disk(100, 100, None), 2_049, Ok(8));
        check(disk(100, 100, None), 4_096, Ok(8));
        check(disk(100, 100, None), 8_192, Err(Whole(128 * MIB)));
        check(disk(511, 511, None), 32 << 10, Err(Whole(512 * MIB)));
        check(disk(15, 15, None), 1_024, Err(Whole(16 * MIB)));
        check(disk(15, 15, Some(2)), 1, Err(Whole(16 * MIB)));
        check(disk(100, 15, None), 1_024, Err(Free(16 * MIB)));
    }

    #[test]
    fn a_later_start_keeps_the_size_if_the_disk_still_has_it() {
        check(disk(400, 400, Some(16)), 1_024, Ok(16));
        // Others have filled it: the available bytes are the log's own.
        check(disk(400, 20, Some(16)), 1_024, Ok(16));
        check(disk(100, 100, Some(64)), 1_024, Ok(4));
        check(disk(4_000, 4_000, Some(2)), 1_024, Ok(64));
        check(disk(4_000, 100, Some(2)), 1_024, Ok(4));
        // Longer records than before.
        check(disk(400, 20, Some(16)), 16 << 10, Ok(32));
    }

    #[test]
    fn the_error_says_how_much_is_needed_and_what_to_do() {
        let disk = disk(20, 12, None);
        let text = |why, source| disk.refuse(why, "/d", source).to_string();
        assert_eq!(
            text(Whole(32 * MIB), Some(("in", 2 * MIB))),
            "the log needs a disk of at least 32 MiB, and /d lies on one of 20 MiB: give `state_dir` on a larger disk, or a \
             smaller `record_bytes_max` for the source `in`"
        );
        assert_eq!(
            text(Free(16 * MIB), Some(("in", MIB))),
            "the log needs 16 MiB to begin with, and 12 MiB are free in /d: make room, or give another `state_dir`"
        );
    }
}
