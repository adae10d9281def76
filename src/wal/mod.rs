//! The write-ahead log, and the seam to durable files: what must survive is here before it is acted on.
//!
//! ```text
//!  any thread ─ append(record, receipt) ─▶ pending ─(wal-sync)─▶ group ─ write ─ fdatasync ─▶ receipts
//!                                                                  │
//!   state_dir/  .lock  wal-000000000007.seg   wal-000000000008.seg   spare-000000000003.seg   checkpoint-...
//! ```
//! - The log is a row of segments, a segment a row of groups, a group what one sync made durable, a record what one
//!   append brought (`format` draws the bytes). A group is only begun once the one before it was synced.
//! - Damage in the newest group with no valid later group is the torn tail: cut, counted, said. Any other damage is an
//!   error that names segment and offset. Stale bytes of a reused segment never validate.
//! - A write that found no room can be tried again. A failed sync ends the log, and poisons the engine.
//!
//! The log does not know what a record means.

pub mod checkpoint_file;
mod examine;
mod format;
mod gate;
mod hangs;
mod layout;
mod log;
mod names;
mod present;
mod recovery;
mod repair;
mod room;
mod segment_list;
mod segment_reader;
mod segment_writer;
mod shortage;
mod spares;
mod stats;

#[cfg(all(test, not(tidemill_model)))]
pub(crate) mod tests;

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use crate::error::Error;
use crate::sync::Arc;

pub use examine::Known;
pub(crate) use format::matches as format_matches;
pub use format::{Place, Position};
pub use gate::Lane;
pub use layout::{Disk, TooSmall};
pub use log::{Receipt, WriteAheadLog};
pub use recovery::{Recovered, Torn, replay};
pub use repair::{
    GivenUp, SegmentReport, Survey, give_up, read, survey, survey_with, would_give_up,
};
pub(crate) use room::{expect_room, mebibytes};
pub use segment_list::Synced;
pub use segment_reader::Visit;
pub(crate) use segment_reader::shell_word;
pub use segment_writer::Record;
pub use stats::LogStats;
pub(crate) use stats::LogWatch;

/// Whether a file of a log's directory is a segment, by its name.
pub(crate) fn is_segment(name: &str) -> bool {
    format::segment_of(name).is_some()
}

/// A segment's size on a disk that is large enough, in bytes.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// The smallest segment, in bytes: a few records for a test.
pub const SEGMENT_BYTES_MIN: u64 = 256;

/// How a log is laid out and bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment's size in bytes; a record is smaller. At least [`SEGMENT_BYTES_MIN`], less than 4 GiB.
    pub segment_bytes: u64,
    /// The most bytes of records that one sync makes durable, unless a single record is larger.
    pub group_bytes_max: usize,
    /// The most bytes of records that wait for their group, unless a single record is larger.
    pub pending_bytes_max: usize,
    /// How many whole segments input leaves for everything else: only with these beside it the log takes
    /// [input](WriteAheadLog::append_input).
    pub reserve: usize,
    /// How many released segments are kept beyond those, to be used again.
    pub spares_max: usize,
    /// Drawn at random for each start; a fixed one makes the bytes of a test repeatable.
    pub salt: u64,
}

impl LogOptions {
    /// What the engine uses, with a salt of this start's own.
    pub fn with_fresh_salt() -> Self {
        LogOptions {
            segment_bytes: SEGMENT_BYTES,
            group_bytes_max: 8 << 20,
            pending_bytes_max: 16 << 20,
            reserve: 2,
            spares_max: 1,
            // The standard library seeds each of these from the operating system.
            salt: RandomState::new().hash_one(std::process::id()),
        }
    }

    /// # Panics
    /// If the segment's size is out of bounds: a programmer's mistake.
    fn check(&self) {
        let sizes = SEGMENT_BYTES_MIN..=u64::from(u32::MAX);
        assert!(sizes.contains(&self.segment_bytes), "segments of 256 bytes to 4 GiB");
    }
}

/// Why a record is not durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLogged {
    /// It could not be written, for want of room perhaps: it may be appended again. After a crash it may be there.
    Retry(Arc<str>),
    /// The log has ended; what is durable is known at the next start.
    Failed(Arc<str>),
}

impl fmt::Display for NotLogged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (NotLogged::Retry(text) | NotLogged::Failed(text)) = self;
        f.write_str(text)
    }
}

impl From<NotLogged> for Error {
    fn from(reason: NotLogged) -> Self {
        Error::Failed(reason.to_string())
    }
}
