//! `Resolved`: the options of a stream once every default is decided. Plain data, which the thread that builds the stream makes
//! with [`Config::resolve`](super::Config::resolve) and any thread reads. It opens nothing.

use std::path::PathBuf;
use std::time::Duration;

use crate::journal::NameChanges;
use crate::scheduler::{BatchTimer, CatchUp, Trigger};
use crate::time::Interval;

use super::{OnFailure, Spill};

/// The options of a stream, all good and all decided. [`Config::resolve`](super::Config::resolve) alone makes it.
///
/// ```
/// use tidemill::{Config, Interval};
///
/// let config = Config::new("words").store_bytes_max(1 << 20).batch_interval(Interval::millis(50));
/// let options = config.resolve()?;
/// assert_eq!((options.block_bytes_max, options.highest_input_rate()), (64 << 10, 20 << 20));
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// The name of the stream: letters, digits, `-` and `_`.
    pub name: String,
    /// The time between two batches; with a trigger its time-out.
    pub batch_interval: Interval,
    /// The time between two cuts of a receiver's blocks; at most the batch interval.
    pub block_interval: Interval,
    /// Worker threads, at least one.
    pub workers: usize,
    /// The most bytes of received data in memory; at least [`STORE_BYTES_MIN`](super::STORE_BYTES_MIN).
    pub store_bytes_max: u64,
    /// A block is cut early at this many bytes; at most `store_bytes_max`.
    pub block_bytes_max: u64,
    /// The most time that a stop may take.
    pub stop_deadline: Duration,
    /// The policy for a batch that failed.
    pub on_failure: OnFailure,
    /// The time that a batch waits for sinks that are away before that counts as a failure.
    pub sink_retry: Duration,
    /// The directory of the input of batches that failed for good, if the policy keeps it.
    pub dead_letter_directory: PathBuf,
    /// Jobs that may run at a time, at least one.
    pub concurrent_jobs: usize,
    /// The batches that are made up after an outage.
    pub catch_up: CatchUp,
    /// The timer that wakes the job loop at a tick; without effect with a trigger.
    pub batch_timer: BatchTimer,
    /// Batches by record count instead of by the clock.
    pub trigger: Option<Trigger>,
    /// True if a batch is left out that has no records and no window or time-out due.
    pub skip_empty: bool,
    /// The directory of the log and the checkpoints; none: nothing survives the process.
    pub state_dir: Option<PathBuf>,
    /// The files of blocks that do not fit into memory; without them reading stops then.
    pub spill: Option<Spill>,
    /// The most bytes of records that have begun and not ended; at the start at least one record of the longest kind.
    pub unfinished_bytes_max: u64,
    /// The most bytes that windows and states may keep, about; none: as many as there is memory for.
    pub kept_bytes_max: Option<u64>,
    /// The memory that this process can count on: the machine's, or less if a control group limits it.
    pub memory_bytes: u64,
    /// The changes of names that the state directory knows and the stream no longer has.
    pub(crate) names: NameChanges,
}

impl Resolved {
    /// The highest input rate that the memory bound allows, in bytes per second: `store_bytes_max` each batch interval.
    pub fn highest_input_rate(&self) -> u64 {
        let per_second = u128::from(self.store_bytes_max) * 1_000;
        let interval = u128::from(self.batch_interval.or_shortest().as_millis());
        u64::try_from(per_second / interval).unwrap_or(u64::MAX)
    }
}
