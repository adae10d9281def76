//! Typed options, in two stages: [`Config`] as given, [`Resolved`] after one look at all of it, so that later code
//! cannot see a bad value. [`Pipeline`] is the same read from a file or from the command line's flags.
//!
//! ```text
//! FILE ──▶ tree ──▶ sections ──▶ Pipeline { Config, sources, jobs, sinks } ──▶ Resolved
//! flags ─▶ settings ──▲             every error with its position
//! ```
//! Plain data, read once at the start on the main thread. Knows neither the engine nor the command line.

mod given;
mod jobs;
mod kinds;
pub(crate) mod log_level;
mod memory;
pub(crate) mod pipeline;
mod policies;
mod resolved;
mod sinks;
mod sources;
#[cfg(test)]
mod tests;

pub(crate) use crate::journal::{NameChanges, NameKind, Renamed, StateName};
pub use crate::scheduler::{BatchTimer, CatchUp, Trigger};
pub use crate::settings::pattern::Pattern;
pub(crate) use crate::settings::tree::{Given, Setting};
pub(crate) use crate::source::{Ack, GenerateSource, RateLimits, Source};
pub(crate) use jobs::Job;
pub(crate) use log_level::{LOG_LEVELS, LogLevel};
pub(crate) use pipeline::{Http, Pipeline};
pub use policies::{OnFailure, Spill, Then};
pub use resolved::Resolved;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::time::Interval;

use crate::settings::section::check_name;
use crate::settings::units::show_bytes;

/// The least memory for received data, in bytes.
pub const STORE_BYTES_MIN: u64 = 1 << 20;
/// The least size at which a block is cut early, in bytes.
pub const BLOCK_BYTES_MIN: u64 = 1 << 10;
/// The most worker threads.
pub const WORKERS_MAX: usize = 1_024;
/// The most jobs at a time.
pub const CONCURRENT_JOBS_MAX: usize = 1_024;

/// The directory of dead letters by default, from the current directory.
pub const DEAD_LETTER_DIRECTORY: &str = "dead-letter";

const BLOCK_BYTES_DEFAULT: u64 = 8 << 20;

/// A full store has at least this many blocks, unless their size was given: blocks that tasks work on cannot leave memory, and
/// the others must be enough to make room.
const BLOCKS_MIN: u64 = 16;

/// The options of a stream as given; each setter replaces a default. The values are checked together by
/// [`resolve`](Config::resolve), which [`StreamingContext::new`](crate::StreamingContext::new) calls: a setter never fails.
///
/// | option | unit, bounds | default | at the ends |
/// |---|---|---|---|
/// | `batch_interval` | ms, at least 1 | 1 s | zero is refused |
/// | `block_interval` | ms, at least 1 | 200 ms | more counts as the batch interval |
/// | `workers` | threads, 1 to 1024 | one for each core | zero is refused |
/// | `store_bytes_max` | bytes, at least 1 MiB | a quarter of the memory | reading stops when it is full |
/// | `block_bytes_max` | bytes, 1 KiB to `store_bytes_max` | 8 MiB | more than the store is refused |
/// | `stop_deadline` | time | 10 s | zero leaves what no batch has yet |
/// | `on_failure` | retries | 3, then stop | zero: the first failure counts |
/// | `sink_retry` | time | 30 s | zero: a sink that is away counts as a failure at once |
/// | `concurrent_jobs` | jobs, 1 to 1024 | 1 | zero is refused |
/// | `unfinished_bytes_max` | bytes, at least 1 | a quarter of the store | zero is refused |
/// | `kept_bytes_max` | bytes, at least 1 | none | beyond it the stream stops |
/// | `spill_bytes_max` | bytes | as many as fit | zero: nothing is written there |
///
/// ```
/// use std::time::Duration;
/// use tidemill::Interval;
/// use tidemill::config::{CatchUp, Config, OnFailure, Then};
///
/// let config = Config::new("words")
///     .batch_interval(Interval::millis(100))
///     .workers(2)
///     .store_bytes_max(64 << 20)
///     .block_bytes_max(1 << 20)
///     .unfinished_bytes_max(8 << 20)
///     .kept_bytes_max(1 << 30)
///     .concurrent_jobs(2)
///     .on_failure(OnFailure { retries: 1, then: Then::DeadLetter })
///     .dead_letter_directory("/var/lib/words/dead-letter")
///     .sink_retry(Duration::from_secs(60))
///     .stop_deadline(Duration::from_secs(5))
///     .catch_up(CatchUp::Replay)
///     .skip_empty(true)
///     .state_dir("/var/lib/words/state")
///     .spill_dir("/var/tmp/words")
///     .spill_bytes_max(10 << 30);
/// let resolved = config.resolve()?;
/// assert_eq!(resolved.block_interval, Interval::millis(100));
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    name: String,
    batch_interval: Interval,
    block_interval: Interval,
    workers: Option<usize>,
    store_bytes_max: Option<u64>,
    block_bytes_max: Option<u64>,
    stop_deadline: Duration,
    on_failure: OnFailure,
    sink_retry: Duration,
    dead_letter_directory: PathBuf,
    concurrent_jobs: usize,
    skip_empty: bool,
    catch_up: CatchUp,
    batch_timer: BatchTimer,
    trigger: Option<Trigger>,
    state_dir: Option<PathBuf>,
    spill_directory: Option<PathBuf>,
    spill_bytes_max: Option<u64>,
    unfinished_bytes_max: Option<u64>,
    kept_bytes_max: Option<u64>,
    retired: Vec<String>,
    renamed: Vec<RenamedText>,
}

/// An entry of `renamed` as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RenamedText {
    new: String,
    old: String,
}

/// A name of `retired` or `renamed` that is none.
struct WrongName {
    key: &'static str,
    text: String,
}

/// A value that is refused: the key in a pipeline file, and why.
pub(crate) type Refused = (&'static str, String);

impl Config {
    /// Creates the options of a stream called `name`, everything else at its default. The name has 1 to 64 bytes: letters,
    /// digits, `-` and `_`. It is the one by which sinks, dead letters and spilled files know the stream, so a stream keeps it
    /// for life.
    pub fn new(name: impl Into<String>) -> Self {
        Config {
            name: name.into(),
            batch_interval: Interval::secs(1),
            block_interval: Interval::millis(200),
            workers: None,
            store_bytes_max: None,
            block_bytes_max: None,
            stop_deadline: Duration::from_secs(10),
            on_failure: OnFailure::default(),
            sink_retry: Duration::from_secs(30),
            dead_letter_directory: PathBuf::from(DEAD_LETTER_DIRECTORY),
            concurrent_jobs: 1,
            skip_empty: false,
            catch_up: CatchUp::default(),
            batch_timer: BatchTimer::default(),
            trigger: None,
            state_dir: None,
            spill_directory: None,
            spill_bytes_max: None,
            unfinished_bytes_max: None,
            kept_bytes_max: None,
            retired: Vec::new(),
            renamed: Vec::new(),
        }
    }

    /// Sets the time between two batches, in whole milliseconds; 1 s by default. Windows, slides and time-outs are multiples of
    /// it. A short one costs processor time for each batch, a long one memory: a batch's input waits in memory until it is due.
    pub fn batch_interval(mut self, interval: Interval) -> Self {
        self.batch_interval = interval;
        self
    }

    /// Sets the time between two cuts of a receiver's blocks; 200 ms by default, clamped to the batch interval. A batch has a
    /// partition for each block, so this decides how many tasks share its work. It adds no latency: at a tick everything is cut.
    pub fn block_interval(mut self, interval: Interval) -> Self {
        self.block_interval = interval;
        self
    }

    /// Sets the number of worker threads, 1 to 1024; by default one for each core.
    /// [`Adjuster::set_workers`](crate::Adjuster::set_workers) changes it while the stream runs.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = Some(count);
        self
    }

    /// Sets the most bytes of received data in memory, at least 1 MiB; by default a quarter of the memory that the process may
    /// use. Beyond it blocks go to [`spill_dir`](Config::spill_dir), if there is one; otherwise sockets are not read, and
    /// [`ReceiverHandle::store`](crate::ReceiverHandle::store) waits, until a batch is done. No record is dropped.
    pub fn store_bytes_max(mut self, bytes: u64) -> Self {
        self.store_bytes_max = Some(bytes);
        self
    }

    /// Sets the size at which a block is cut early, in bytes, 1 KiB to [`store_bytes_max`](Config::store_bytes_max); by default
    /// 8 MiB, or a sixteenth of the store if that is less.
    pub fn block_bytes_max(mut self, bytes: u64) -> Self {
        self.block_bytes_max = Some(bytes);
        self
    }

    /// Sets the most time that a stop may take before it gives up and says what was left; 10 s by default. Up to three eighths
    /// of it, 1.5 s at most, are kept for the closing after the last batches. With zero a stop waits for no batch. A run to the
    /// end of its sources ([`until_eof`](crate::RunLimits::until_eof)) processes all of its input, however long that takes.
    pub fn stop_deadline(mut self, deadline: Duration) -> Self {
        self.stop_deadline = deadline;
        self
    }

    /// Sets the policy for a batch that failed; by default three retries, then the stream stops. See [`OnFailure`].
    pub fn on_failure(mut self, policy: OnFailure) -> Self {
        self.on_failure = policy;
        self
    }

    /// Sets the time that a batch waits, once and in all, for sinks whose failure can pass: a lost connection, a busy database,
    /// a missing directory, a disk's error ([`awaited`](crate::error::awaited)); 30 s by default. The batch tries them again
    /// after 100 ms and after longer and longer pauses, up to 10 s; then that counts as one failure for
    /// [`on_failure`](Config::on_failure).
    ///
    /// With zero such a failure counts at once, as every other does. The batch waits for a full disk as long as it takes. The
    /// stop does not wait beyond [`stop_deadline`](Config::stop_deadline).
    pub fn sink_retry(mut self, most: Duration) -> Self {
        self.sink_retry = most;
        self
    }

    /// Sets the directory for the input of batches that failed for good, which [`Then::DeadLetter`] needs; `dead-letter`, below
    /// the current directory, by default. It is made when it is needed, and several processes may share it.
    pub fn dead_letter_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.dead_letter_directory = directory.into();
        self
    }

    /// Sets the batches that are made up after an outage; by default one, at the last missed tick. See [`CatchUp`].
    pub fn catch_up(mut self, catch_up: CatchUp) -> Self {
        self.catch_up = catch_up;
        self
    }

    /// Sets the timer that wakes the job loop at a tick; a thread of its own by default. Without effect with a
    /// [`trigger`](Config::trigger).
    ///
    /// ```
    /// use tidemill::config::{BatchTimer, Config};
    /// let config = Config::new("fast").batch_timer(BatchTimer::Loop);
    /// assert_eq!(config.resolve()?.batch_timer, BatchTimer::Loop);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn batch_timer(mut self, timer: BatchTimer) -> Self {
        self.batch_timer = timer;
        self
    }

    /// Cuts a batch as soon as `records` records were read, or `timeout` after the last one, with what is there by then; in
    /// place of the batch interval. By default batches come by the clock. A batch may hold up to one read more than `records`.
    /// Zero records are refused, and so is a stream with windows, which have no interval to be multiples of.
    ///
    /// ```
    /// # use tidemill::{Config, Interval};
    /// let config = Config::new("orders").trigger(1_000, Interval::millis(200));
    /// assert_eq!(config.resolve()?.batch_interval, Interval::millis(200));
    /// assert!(Config::new("orders").trigger(0, Interval::secs(1)).resolve().is_err());
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn trigger(mut self, records: u64, timeout: Interval) -> Self {
        self.trigger = Some(Trigger { records, timeout });
        self
    }

    /// Lets blocks of unfinished batches leave memory for files below this directory when `store_bytes_max` is nearly reached;
    /// by default there is none, and reading stops then. Blocks that are in the log of a state directory are read back from
    /// there and not written again.
    ///
    /// The files are in a subdirectory named for the stream, which one process uses at a time. They are removed as their batches
    /// are done, at the end, and by the next start: they make nothing durable.
    pub fn spill_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spill_directory = Some(directory.into());
        self
    }

    /// Sets the most bytes of those files; by default as many as fit. Beyond it reading stops. It needs a
    /// [`spill_dir`](Config::spill_dir).
    pub fn spill_bytes_max(mut self, bytes: u64) -> Self {
        self.spill_bytes_max = Some(bytes);
        self
    }

    /// Sets the most bytes of records that have begun and not ended, over all connections, at least 1; by default a quarter of
    /// `store_bytes_max`, and always room for one record of the longest kind. Beyond it one record is treated as over-long: the
    /// oldest of those of at least the mean size. So a peer that begins records and never ends them holds up nobody.
    pub fn unfinished_bytes_max(mut self, bytes: u64) -> Self {
        self.unfinished_bytes_max = Some(bytes);
        self
    }

    /// Sets the most bytes that windows and states may keep, about, at least 1. By default there is no such bound, and a warning
    /// says so once they take a quarter of the memory. Beyond it the stream stops with [`Error::Failed`], and so does a start
    /// that restores more.
    pub fn kept_bytes_max(mut self, bytes: u64) -> Self {
        self.kept_bytes_max = Some(bytes);
        self
    }

    /// Sets the number of jobs of one batch that may run at a time, 1 to 1024; 1 by default, in the order in which they were
    /// registered. Batches never run at the same time, so the outputs of a sink stay in order.
    pub fn concurrent_jobs(mut self, count: usize) -> Self {
        self.concurrent_jobs = count;
        self
    }

    /// Sets the directory of the log and the checkpoints; none by default, and then nothing survives the process. With it
    /// nothing that was logged is lost, and each record is in the output of a sink that remembers its commits once, whatever
    /// crashes. A stream that starts with the directory of an earlier one continues where that ended.
    ///
    /// The directory is made when it is needed; one process at a time uses it. What is logged costs a sync of the disk for each
    /// group of records.
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(directory.into());
        self
    }

    /// Gives up what the state directory holds under a name that the stream no longer has: `source:NAME` (a position, records
    /// that no batch was given), `state:NAME`, `sink:NAME` (its open file is finished first) or `job:NAME`. Without it such a
    /// start is refused by name. A name that is gone already is passed over; one that the stream still has is an error.
    ///
    /// ```
    /// # use tidemill::Config;
    /// let config = Config::new("words").state_dir("state").retire("source:old").retire("state:counts");
    /// assert!(config.resolve().is_ok());
    /// assert!(Config::new("words").retire("old").resolve().is_err());
    /// ```
    pub fn retire(mut self, name: impl Into<String>) -> Self {
        self.retired.push(name.into());
        self
    }

    /// Carries over what the state directory holds under the name `old`, as `KIND:NAME`, to the name `new` that the stream
    /// has instead. A name that is gone already is passed over.
    ///
    /// ```
    /// # use tidemill::Config;
    /// let config = Config::new("words").state_dir("state").rename("source:new", "source:old");
    /// assert!(config.resolve().is_ok());
    /// ```
    pub fn rename(mut self, new: impl Into<String>, old: impl Into<String>) -> Self {
        self.renamed.push(RenamedText { new: new.into(), old: old.into() });
        self
    }

    /// Leaves out a batch if no record came, no window is due and no state has a time-out; false by default, and then such a
    /// batch runs: a count gives 0, a reduction nothing. The entries of a queue are no records.
    pub fn skip_empty(mut self, skip: bool) -> Self {
        self.skip_empty = skip;
        self
    }

    /// Decides every default that depends on the machine and refuses what cannot work. It opens nothing.
    ///
    /// # Errors
    /// [`Error::Config`] with every value that is refused and its bounds, a line each.
    ///
    /// ```
    /// use tidemill::{Config, Error};
    ///
    /// let refused = Config::new("two words").workers(0).resolve();
    /// assert!(matches!(refused, Err(Error::Config(text)) if text.lines().count() == 2));
    /// ```
    pub fn resolve(&self) -> Result<Resolved> {
        let refused: Vec<String> = self.refused().into_iter().map(|(_, why)| why).collect();
        if refused.is_empty() { Ok(self.decide()) } else { Err(Error::Config(refused.join("\n"))) }
    }

    /// The values that cannot work. The bounds of the numbers are here and nowhere else.
    pub(crate) fn refused(&self) -> Vec<Refused> {
        let mut refused = Vec::new();
        let mut check = |good: bool, key: &'static str, why: String| {
            if !good {
                refused.push((key, why));
            }
        };
        if let Err(why) = check_name(&self.name) {
            check(false, "name", format!("`{}` is no name: {why}", self.name));
        }
        let workers = self.workers.unwrap_or(1);
        let why = format!("`workers` is {workers}, but must be 1 to {WORKERS_MAX}");
        check((1..=WORKERS_MAX).contains(&workers), "workers", why);
        let jobs = self.concurrent_jobs;
        let why = format!("`concurrent_jobs` is {jobs}, but must be 1 to {CONCURRENT_JOBS_MAX}");
        check((1..=CONCURRENT_JOBS_MAX).contains(&jobs), "concurrent_jobs", why);
        let short = |key| format!("`{key}` must be at least 1ms");
        check(!self.batch_interval.is_zero(), "batch_interval", short("batch_interval"));
        check(!self.block_interval.is_zero(), "block_interval", short("block_interval"));
        if let Some(Trigger { records, timeout }) = self.trigger {
            check(records > 0, "trigger", "`trigger` needs at least one record".to_owned());
            let why = "`trigger` needs a time-out of at least 1ms".to_owned();
            check(!timeout.is_zero(), "trigger", why);
        }
        if self.spill_bytes_max.is_some() && self.spill_directory.is_none() {
            let why = "`spill_bytes_max` needs a `spill_dir`".to_owned();
            check(false, "spill_bytes_max", why);
        }
        if let Err(why) = self.names() {
            check(false, why.key, why.text);
        }
        let store = self.decide().store_bytes_max;
        let (shown, least) = (show_bytes(store), show_bytes(STORE_BYTES_MIN));
        let why = format!("`store_bytes_max` is {shown}, but must be at least {least}");
        check(store >= STORE_BYTES_MIN, "store_bytes_max", why);
        for (key, given) in [
            ("unfinished_bytes_max", self.unfinished_bytes_max),
            ("kept_bytes_max", self.kept_bytes_max),
        ] {
            let why = format!("`{key}` must be at least 1B");
            check(given.is_none_or(|bytes| bytes > 0), key, why);
        }
        if let Some(block) = self.block_bytes_max {
            let (given, least) = (show_bytes(block), show_bytes(BLOCK_BYTES_MIN));
            let why = format!("`block_bytes_max` is {given}, but must be at least {least}");
            check(block >= BLOCK_BYTES_MIN, "block_bytes_max", why);
            let why = format!("`block_bytes_max` is {given}, more than `store_bytes_max`, {shown}");
            check(block <= store, "block_bytes_max", why);
        }
        refused
    }

    /// Parses the changes of names.
    fn names(&self) -> Result<NameChanges, WrongName> {
        let read = |key, text: &String| {
            StateName::parse(text)
                .map_err(|why| WrongName { key, text: format!("`{text}` in `{key}`: {why}") })
        };
        let renamed = |entry: &RenamedText| {
            let (new, old) = (read("renamed", &entry.new)?, read("renamed", &entry.old)?);
            Ok(Renamed { new, old })
        };
        Ok(NameChanges {
            retired: self
                .retired
                .iter()
                .map(|text| read("retired", text))
                .collect::<Result<_, _>>()?,
            renamed: self.renamed.iter().map(renamed).collect::<Result<_, _>>()?,
        })
    }

    fn decide(&self) -> Resolved {
        let memory_bytes = memory::total_bytes();
        let quarter = (memory_bytes / 4).max(STORE_BYTES_MIN);
        let store_bytes_max = self.store_bytes_max.unwrap_or(quarter);
        let cores = || thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        let batch_interval = self.trigger.map_or(self.batch_interval, |trigger| trigger.timeout);
        Resolved {
            name: self.name.clone(),
            batch_interval,
            block_interval: self.block_interval.min(batch_interval),
            workers: self.workers.unwrap_or_else(cores),
            store_bytes_max,
            block_bytes_max: self
                .block_bytes_max
                .unwrap_or(BLOCK_BYTES_DEFAULT.min(store_bytes_max / BLOCKS_MIN)),
            stop_deadline: self.stop_deadline,
            on_failure: self.on_failure,
            sink_retry: self.sink_retry,
            dead_letter_directory: self.dead_letter_directory.clone(),
            concurrent_jobs: self.concurrent_jobs,
            skip_empty: self.skip_empty,
            catch_up: self.catch_up,
            batch_timer: self.batch_timer,
            trigger: self.trigger,
            state_dir: self.state_dir.clone(),
            spill: self.spill_directory.clone().map(|directory| Spill {
                directory,
                bytes_max: self.spill_bytes_max.unwrap_or(u64::MAX),
            }),
            unfinished_bytes_max: self.unfinished_bytes_max.unwrap_or(store_bytes_max / 4),
            kept_bytes_max: self.kept_bytes_max,
            memory_bytes,
            names: self.names().unwrap_or_default(),
        }
    }
}
