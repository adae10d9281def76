//! The write-ahead log: whatever must survive is here before anyone acts on it.
//!
//! ```text
//!  any thread ─ append(record, receipt) ─▶ pending ─(wal-sync)─▶ group ─ write ─ fdatasync ─▶ receipts
//!                                                                  │
//!   state_dir/  .lock  wal-000000000007.seg   wal-000000000008.seg   spare-000000000003.seg   checkpoint-...
//! ```
//! - The log is a row of segments, and a segment a row of groups. One sync makes a group durable; one append brings a
//!   record (`format` draws the bytes). A group only begins once the one before it was synced.
//! - Damage in the newest group with no valid later group is the torn tail: it is cut, counted and reported. Any other
//!   damage is an error that names segment and offset. Stale bytes of a reused segment never validate.
//! - A write that found no room can be retried. A failed sync ends the log and poisons the engine.
//!
//! The log does not know what a record means.

pub mod checkpoint_file;
mod examine;
mod format;
mod hangs;
mod lane_order;
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
pub use lane_order::Lane;
pub use layout::Disk;
pub use log::WriteAheadLog;
pub use recovery::{Recovered, replay};
pub use repair::{
    GivenUp, SegmentReport, Survey, give_up, read, survey, survey_with, would_give_up,
};
pub(crate) use room::{expect_room, mebibytes};
pub use segment_list::Synced;
pub(crate) use segment_reader::shell_word;
pub use segment_writer::Record;
pub use stats::LogStats;
pub(crate) use stats::LogWatch;

/// Returns true if this is the name of a segment.
pub(crate) fn is_segment(name: &str) -> bool {
    format::segment_of(name).is_some()
}

/// A segment's size on a disk that is large enough, in bytes.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// The smallest segment, in bytes: a few records for a test.
pub const SEGMENT_BYTES_MIN: u64 = 256;

/// The layout and the bounds of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment's size in bytes; a record is smaller. At least `SEGMENT_BYTES_MIN`, less than 4 GiB.
    pub segment_bytes: u64,
    /// The most bytes of records that one sync makes durable, unless a single record is larger.
    pub group_bytes_max: usize,
    /// The most bytes of records that wait for their group, unless a single record is larger.
    pub pending_bytes_max: usize,
    /// Whole segments that input leaves for everything else: the log takes [input](WriteAheadLog::append_input) only with
    /// these beside it.
    pub reserve: usize,
    /// The most released segments beyond those that are kept for reuse.
    pub spares_max: usize,
    /// Drawn at random for each start; a fixed one makes the bytes of a test repeatable.
    pub salt: u64,
}

impl LogOptions {
    /// The options of the engine, with a random salt.
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

/// The reason why a record is not durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLogged {
    /// It was not written, for want of room perhaps: the caller may append it again. After a crash it may be there.
    Retry(Arc<str>),
    /// The log has ended; the next start finds out what is durable.
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
