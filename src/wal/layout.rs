//! How large the segments of a log are: a part of the disk that it lies on, so that a small disk holds several.
//!
//! ```text
//! disk ÷ 16, at most 64 MiB, at least twice the longest record and 2 MiB     smallest disk: 8 segments
//! ```
//! A log is let go by whole segments, and some are left alone by input: with fewer than eight nothing would come in. A later
//! start keeps the size of the segments that are there, unless the disk has become too small for it or much larger. Others
//! who fill the disk do not change it. Pure, but for [`Disk::of`].

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
    /// How many bytes it holds, taken or not.
    pub bytes: u64,
    /// How many are free or taken by the log itself.
    pub available: u64,
    /// The size of the segments that are there; none before the first start.
    pub segment_bytes: Option<u64>,
}

/// Why a disk is too small for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooSmall {
    /// It holds fewer bytes than this.
    Disk(u64),
    /// Of its bytes fewer than this are free.
    Free(u64),
}

impl Disk {
    /// Looks at the disk and the files of a log.
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

    /// The size of a segment for records of up to so many bytes.
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

/// The size that a segment says it has; none if its header cannot be read, which the start tells.
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
    fn check(
        sizes: (u64, u64),
        record_kib: u64,
        before: Option<u64>,
        expected: Result<u64, TooSmall>,
    ) {
        let (bytes, available) = sizes;
        let found = disk(bytes, available, before).segment_bytes_for(record_kib << 10);
        assert_eq!(found, expected.map(|size| size * MIB), "{sizes:?} {record_kib} {before:?}");
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
            check((size, size), 1_024, None, Ok(expected));
        }
        check((1_000_000, 300), 1_024, None, Ok(16));
        check((1_000_000, 16), 1, None, Ok(2));
    }

    #[test]
    fn records_fit_and_a_disk_that_is_too_small_is_refused() {
        check((100, 100), 1, None, Ok(4));
        check((100, 100), 2_048, None, Ok(4));
        check((100, 100), 2_049, None, Ok(8));
        check((100, 100), 4_096, None, Ok(8));
        check((100, 100), 8_192, None, Err(Whole(128 * MIB)));
        check((511, 511), 32 << 10, None, Err(Whole(512 * MIB)));
        check((15, 15), 1_024, None, Err(Whole(16 * MIB)));
        check((15, 15), 1, Some(2), Err(Whole(16 * MIB)));
        check((100, 15), 1_024, None, Err(Free(16 * MIB)));
    }

    #[test]
    fn a_later_start_keeps_the_size_if_the_disk_still_has_it() {
        check((400, 400), 1_024, Some(16), Ok(16));
        // Others have filled it: what is there is the log's own.
        check((400, 20), 1_024, Some(16), Ok(16));
        check((100, 100), 1_024, Some(64), Ok(4));
        check((4_000, 4_000), 1_024, Some(2), Ok(64));
        check((4_000, 100), 1_024, Some(2), Ok(4));
        // Longer records than before.
        check((400, 20), 16 << 10, Some(16), Ok(32));
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
