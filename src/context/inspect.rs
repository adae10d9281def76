//! `Inspector`: a view of a stream for readers outside of it. Reads only; any thread may ask, also after the end.

use std::net::SocketAddr;
use std::time::Duration;

use crate::blocks::spill::{Spill, Spilled};
use crate::config::Resolved;
use crate::journal::{JournalWatch, LogFigures};
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::Pool;
use crate::metrics::{
    BatchRecord, Condition, ConditionKind, EngineTimes, EventBus, History, ReceiverCounters,
    Reloaded, Reloads,
};
use crate::scheduler::Scheduler;
use crate::source::io::IoModel;
use crate::source::{Cutter, PausedBy, RateLimiter, Unfinished};
use crate::stream::{Graph, KeptPart};
use crate::sync::{Arc, AtomicBool, Ordering};
use crate::time::{Clock, Moment, Time};

/// A view of a stream: its progress, memory, receivers, batches and problems. Clones look at the same stream. Any thread may use
/// one, also after the end of the stream; no call waits for a batch, and each returns the figures of its own moment.
///
/// ```
/// use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// ctx.queue_stream(vec![Some(vec!["to be", "or not"])], 1).count().print(1);
/// ctx.run_batches(2)?;
/// let stream = ctx.inspector().expect("it runs");
/// assert_eq!((stream.progress().batches, stream.progress().batches_waiting), (2, 0));
/// assert!(stream.conditions().is_empty() && !stream.is_stopping());
/// let newest = &stream.batches(1)[0];
/// assert_eq!((newest.time.as_millis(), newest.error.is_none()), (2_000, true));
/// assert_eq!(stream.batch(newest.time).as_ref(), Some(newest));
/// assert!(stream.conditions_begun().iter().all(|(_, times)| *times == 0));
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone)]
pub struct Inspector(pub(super) Arc<Inspected>);

/// The parts of a stream that an inspector looks at.
pub(super) struct Inspected {
    pub(super) config: Resolved,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started: Moment,
    pub(super) started_at: Time,
    pub(super) scheduler: Scheduler,
    pub(super) account: Arc<MemoryBudget>,
    pub(super) pool: Arc<Pool>,
    pub(super) unfinished: Arc<Unfinished>,
    pub(super) graph: Arc<Graph>,
    pub(super) spill: Option<Arc<Spill>>,
    pub(super) events: EventBus,
    pub(super) times: Arc<EngineTimes>,
    pub(super) history: Arc<History>,
    pub(super) receivers: Vec<Received>,
    pub(super) stopping: AtomicBool,
    pub(super) reloads: Reloads,
    pub(super) journal: Option<JournalWatch>,
}

/// The parts of a receiver that an inspector looks at.
pub(super) struct Received {
    pub(super) number: u32,
    pub(super) source: String,
    pub(super) io_model: Option<IoModel>,
    pub(super) local: Vec<SocketAddr>,
    pub(super) counters: Arc<ReceiverCounters>,
    pub(super) limiter: Option<Arc<RateLimiter>>,
    /// None for a direct source.
    pub(super) cutter: Option<Cutter>,
}

impl Received {
    fn paused_by(&self, account: &MemoryBudget) -> Option<PausedBy> {
        let cutter = self.cutter.as_ref().and_then(|cutter| cutter.paused_by(account));
        let held = || self.limiter.as_ref().is_some_and(|limiter| limiter.holds());
        cutter.or_else(|| held().then_some(PausedBy::Rate))
    }
}

/// The progress of a stream since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The number of batches that are done: their jobs succeeded, or their input was put aside.
    pub batches: u64,
    /// The number of records of those batches.
    pub records: u64,
    /// The number of batches that were planned and are not done.
    pub batches_waiting: u64,
    /// The number of records of those batches.
    pub records_waiting: u64,
    /// The number of batches whose input was put aside as a dead letter.
    pub dead_letters: u64,
    /// The number of records of those batches.
    pub dead_records: u64,
}

/// The memory between the sockets and the end of a batch, in bytes, at the moment of the question; [`Inspector::memory`] has it.
///
/// ```
/// use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc").store_bytes_max(64 << 20), ManualClock::new())?;
/// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
/// ctx.run_batches(1)?;
/// let memory = ctx.inspector().expect("it runs").memory();
/// assert_eq!((memory.bound, memory.unfinished_bound), (64 << 20, 16 << 20));
/// assert!(memory.used <= memory.bound);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The bytes that are held now: blocks, results of unfinished batches, and buffers that are read into.
    pub used: usize,
    /// The part of it that is results of unfinished batches, which the sinks do not have yet; an estimate.
    pub results: usize,
    /// The results that are expected of the next batch. When the part of them that is not there yet would have no room, blocks
    /// leave memory, and then reading stops.
    pub expected: usize,
    /// The bytes that windows and states keep from batch to batch, an estimate; not part of `used`.
    pub kept: u64,
    /// Records that have begun and not ended, with the memory that is allocated for them; not part of `used`.
    pub unfinished: usize,
    /// The bound at which one of those is given up, `unfinished_bytes_max`.
    pub unfinished_bound: usize,
    /// Free buffers that are kept for reuse; not part of `used`.
    pub free: usize,
    /// The bound at which reading stops, `store_bytes_max`; before, blocks leave memory if they can.
    pub bound: usize,
    /// The blocks that left memory for the log or for files; all zero without a log and a `spill_dir`.
    pub spilled: Spilled,
}

/// A receiver, or another source, at the moment of the question.
///
///
/// ```
/// use tidemill::{Config, Interval, StreamingContext};
///
/// let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
/// ctx.socket(tidemill::SocketSource::listen("127.0.0.1:0").named("in"))?.count().print(1);
/// let running = ctx.start()?;
/// let status = &running.inspector().receivers()[0];
/// assert_eq!((status.source.as_str(), status.local), ("in", Some(running.local_addrs()[0])));
/// assert_eq!((status.counter("records"), status.paused_by), (0, None));
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverStatus {
    /// The source's name.
    pub source: String,
    /// The io model in use, if it reads sockets.
    pub io_model: Option<IoModel>,
    /// The first address that it listens on, if it does.
    pub local: Option<SocketAddr>,
    /// All addresses that it listens on.
    pub addresses: Vec<SocketAddr>,
    /// The rate in force in records per second, if there is one.
    pub rate: Option<u64>,
    /// The reason for which it is not read now, if it is not.
    pub paused_by: Option<PausedBy>,
    /// Its counters, by name.
    pub counters: Vec<(&'static str, u64)>,
}

impl ReceiverStatus {
    /// The counter of that name; zero if there is none.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.iter().find(|(other, _)| *other == name).map_or(0, |(_, count)| *count)
    }
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspector").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl Inspector {
    /// The options in force.
    pub fn config(&self) -> &Resolved {
        &self.0.config
    }

    /// The time of the start, by the wall clock.
    pub fn started_at(&self) -> Time {
        self.0.started_at
    }

    /// The time since the start.
    pub fn uptime(&self) -> Duration {
        self.0.clock.now().since(self.0.started)
    }

    /// True once the stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst)
    }

    /// Returns true if the stream works: the sources run, every source that dials is connected, no stop has begun, and no
    /// condition lasts that makes it unready.
    pub fn is_ready(&self) -> bool {
        self.unready().is_empty()
    }

    /// The reasons for which the stream is not ready, a sentence each; empty if it [is](Inspector::is_ready).
    pub fn unready(&self) -> Vec<String> {
        let connected =
            |receiver: &Received| !receiver.local.is_empty() || receiver.counters.open.value() > 0;
        let connected = self.0.receivers.iter().all(connected);
        let states = [
            (self.is_stopping(), "the stream is stopping"),
            (!connected, "a source is not connected"),
        ];
        let states = states.iter().filter(|(is_so, _)| *is_so).map(|(_, text)| (*text).to_owned());
        let lasting = self.conditions().into_iter().filter(|it| it.kind.row().unready);
        states.chain(lasting.map(|condition| condition.text())).collect()
    }

    /// The conditions that hold the stream up now, the oldest first.
    pub fn conditions(&self) -> Vec<Condition> {
        self.0.events.conditions().lasting()
    }

    /// The number of times that each kind of condition began.
    pub fn conditions_begun(&self) -> Vec<(ConditionKind, u64)> {
        self.0.events.conditions().begun()
    }

    /// The progress so far.
    pub fn progress(&self) -> Done {
        let progress = self.0.scheduler.progress();
        Done {
            batches: progress.batches,
            records: progress.records,
            batches_waiting: progress.batches_waiting,
            records_waiting: progress.records_waiting,
            dead_letters: progress.dead_letters,
            dead_records: progress.dead_records,
        }
    }

    /// The memory between the sockets and the end of a batch.
    pub fn memory(&self) -> Memory {
        let spilled = self.0.spill.as_ref().map(|spill| spill.counts()).unwrap_or_default();
        let account = &self.0.account;
        Memory {
            used: account.used(),
            results: account.results(),
            expected: account.expected(),
            kept: self.0.graph.kept_bytes().value(),
            unfinished: account.unfinished(),
            unfinished_bound: self.0.unfinished.bytes_max(),
            free: self.0.pool.free_bytes(),
            bound: account.max(),
            spilled,
        }
    }

    /// The bytes that each window and state keeps, the largest first.
    pub fn kept(&self) -> Vec<KeptPart> {
        self.0.graph.kept_parts()
    }

    /// Every receiver, in the order of the sources.
    pub fn receivers(&self) -> Vec<ReceiverStatus> {
        let status = |receiver: &Received| ReceiverStatus {
            source: receiver.source.clone(),
            io_model: receiver.io_model,
            local: receiver.local.first().copied(),
            addresses: receiver.local.clone(),
            rate: receiver.limiter.as_ref().map(|limiter| limiter.rate()),
            paused_by: receiver.paused_by(&self.0.account),
            counters: receiver.counters.all(),
        };
        self.0.receivers.iter().map(status).collect()
    }

    /// The last batches, at most `limit`, the newest first. The stream remembers 2048, those that wait included.
    pub fn batches(&self, limit: usize) -> Vec<BatchRecord> {
        self.0.history.last(limit)
    }

    /// The batch of that time; `None` if there was none, or it is forgotten.
    pub fn batch(&self, time: Time) -> Option<BatchRecord> {
        self.0.history.get(time)
    }

    /// The times that the engine measures of itself, since the start.
    pub fn times(&self) -> &EngineTimes {
        &self.0.times
    }

    /// The outcome of the last reload of the options.
    #[doc(hidden)]
    pub fn reloaded(&self) -> Reloaded {
        self.0.reloads.last()
    }

    /// The figures of the log and the checkpoints; `None` without a state directory.
    pub fn log(&self) -> Option<LogFigures> {
        self.0.journal.as_ref().map(JournalWatch::figures)
    }

    /// The number of events that were dropped because the listeners were too slow. Conditions and tallies are never dropped.
    pub fn events_dropped(&self) -> u64 {
        self.0.events.dropped()
    }
}
