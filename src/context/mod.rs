//! `StreamingContext`: builds a stream, starts it, waits for its end, stops it in order. Runs on the caller's thread.
//!
//! Nothing below holds the context; notices come up as values on its mailbox.

mod adjust;
mod connections;
mod inspect;
pub(crate) mod internals;
mod lost;
#[cfg(all(test, tidemill_model))]
mod model;
mod names;
mod outputs;
mod places;
mod recover;
mod sources;
mod stream_handle;
mod streams;

use std::time::Duration;

use crate::config::{Config, Resolved};
use crate::error::{Error, Result};
use crate::journal::{Look, Wanted};
use crate::metrics::{EventBus, Listener};
use crate::sink::Writer;
use crate::storage::{Access, Storage};
use crate::stream::{Graph, GraphOptions};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, ManualClock, SystemClock};

pub use crate::source::SocketSource;
pub use adjust::Adjuster;
pub use inspect::{Done, Inspector, Memory, ReceiverStatus};
pub use sources::ReceiverSource;
pub use stream_handle::{Recovered, Report, SourceReport, Stopper, StreamHandle};

use sources::{Added, Start};
use stream_handle::Driver;

/// The limits at which a run ends by itself, and what this run alone allows. By default a run has no limit.
///
/// Limits may be combined: the first that is reached ends the run, in order, as [`Stopper::stop`] does.
///
/// ```
/// use tidemill::{Config, RunLimits, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// ctx.limits(RunLimits { batches: Some(100), ..RunLimits::default() });
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// The run ends after this many batches; by default it has no such limit. Zero is an error of the start. Records that were
    /// read and belong to no batch by then are counted in [`Report::beyond_limit`].
    pub batches: Option<u64>,
    /// The run ends this long after its start; by default it has no such limit. With zero it ends at once, after a last batch
    /// with what was read. The stop itself takes up to [`stop_deadline`](Config::stop_deadline) more.
    pub duration: Option<std::time::Duration>,
    /// The run ends when every source has ended and everything was processed; false by default. A dialled server ends with its
    /// close, a listening source when at least one peer came and none is left, a receiver when it returns, files with what they
    /// hold at the start.
    ///
    /// Without a state directory the windows that are not due then are emitted once, in batches with the times of their ends, as
    /// if the stream had continued to there without input.
    pub until_eof: bool,
    /// Batches that an earlier run planned continue without input that was lost before they were processed, in this run only;
    /// false by default, and then such a start is refused.
    pub give_up_lost: bool,
}

/// A stream while it is built: its options, sources, operators and outputs. A context is started once it is whole.
///
/// The order of calls is: make the context, add sources, derive streams from them, register at least one output, add listeners
/// and limits, [start](StreamingContext::start). A source, an output, a listener or a limit that comes after the start would
/// have no effect, so the call or the stream fails with [`Error::Usage`]. A context runs one stream at a time; after its end the
/// same context may be started again. With a state directory such a start continues as that of a new program would. Without one
/// states and windows continue with what they had in memory, and queues begin anew.
///
/// Any thread may build and start a context. The calls do not block, except [`start`](StreamingContext::start), and
/// [`run_batches`](StreamingContext::run_batches) in tests: while that runs, other calls about the run wait for it, so a
/// closure of the stream must not make them.
///
/// ```
/// use tidemill::testing::ManualClock;
/// use tidemill::{Config, StreamingContext};
///
/// let ctx = StreamingContext::with_clock(Config::new("words"), ManualClock::new())?;
/// let lines = ctx.queue_stream(vec![Some(vec!["to be", "or not", "to be"])], 1);
/// let counts = lines.count().collect();
/// ctx.run_batches(1)?;
/// assert_eq!(counts.rows()[0].1, [3]);
/// # Ok::<(), tidemill::Error>(())
/// ```
pub struct StreamingContext {
    config: Resolved,
    clock: Arc<dyn Clock>,
    manual: Option<ManualClock>,
    graph: Arc<Graph>,
    sources: Mutex<Vec<Added>>,
    listeners: Mutex<Vec<Box<dyn Listener>>>,
    limits: Mutex<RunLimits>,
    /// The storage of the log instead of `state_dir`, and the size of its segments in bytes: for tests.
    storage: Mutex<Option<(Arc<dyn Storage>, u64)>>,
    /// The run that `run_batches` drives.
    driven: Mutex<Option<StreamHandle>>,
}

impl std::fmt::Debug for StreamingContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamingContext").field("config", &self.config).finish_non_exhaustive()
    }
}

impl StreamingContext {
    /// Creates a context that runs on the system's clocks.
    ///
    /// # Errors
    /// [`Error::Config`] if a value of the configuration makes no sense; the text names each such value and its bounds.
    ///
    /// ```
    /// use tidemill::{Config, Error, StreamingContext};
    ///
    /// let ctx = StreamingContext::new(Config::new("words").workers(2))?;
    /// assert_eq!(ctx.config().workers, 2);
    /// let refused = StreamingContext::new(Config::new("words").workers(0));
    /// assert!(matches!(refused, Err(Error::Config(text)) if text.contains("1 to 1024")));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(config: Config) -> Result<Self> {
        let resolved = config.resolve()?;
        Ok(Self::assemble(resolved, SystemClock::new(), None))
    }

    /// Creates a context for a test, on a clock that the test moves; see [`run_batches`](StreamingContext::run_batches). The
    /// clock may be shared with other code: clones of it are handles of the same clock.
    ///
    /// # Errors
    /// [`Error::Config`] if a value of the configuration makes no sense.
    ///
    /// ```
    /// use tidemill::{Config, StreamingContext, testing::ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let ctx = StreamingContext::with_clock(Config::new("test"), clock.clone())?;
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn with_clock(config: Config, clock: ManualClock) -> Result<Self> {
        let resolved = config.resolve()?;
        Ok(Self::assemble(resolved, Arc::new(clock.clone()), Some(clock)))
    }

    /// The earlier way to build a context with a state directory, for programs that were written with it. It recovers nothing by
    /// itself: `build` and the start do, as those of any context with a `state_dir`.
    ///
    /// # Errors
    /// What `build` returns, and [`Error::Usage`] if its context has no `state_dir`.
    #[doc(hidden)]
    pub fn recover_or(build: impl FnOnce() -> Result<Self>) -> Result<Self> {
        let context = build()?;
        if !context.logs() {
            let text = "nothing can be recovered without a `state_dir`: give `Config::state_dir`";
            return Err(Error::Usage(text.to_owned()));
        }
        Ok(context)
    }

    /// Keeps the log, in segments of this many bytes, and the checkpoints in `storage` instead of a directory.
    pub(crate) fn keep_state_in(&self, storage: Arc<dyn Storage>, segment_bytes: u64) {
        *self.storage.lock() = Some((storage, segment_bytes));
    }

    fn assemble(config: Resolved, clock: Arc<dyn Clock>, manual: Option<ManualClock>) -> Self {
        let graph = Graph::new(GraphOptions {
            pipeline: config.name.clone(),
            workers: config.workers,
            seed: random_seed(),
            batch_interval: config.batch_interval,
            console: Writer::stdout(),
        });
        if config.concurrent_jobs > 1 {
            graph.run_jobs_at_once();
        }
        StreamingContext {
            config,
            clock,
            manual,
            graph,
            sources: Mutex::default(),
            listeners: Mutex::default(),
            limits: Mutex::default(),
            storage: Mutex::default(),
            driven: Mutex::default(),
        }
    }

    /// The options in force, with every default decided.
    pub fn config(&self) -> &Resolved {
        &self.config
    }

    /// True if there is a log.
    fn logs(&self) -> bool {
        self.config.state_dir.is_some() || self.storage.lock().is_some()
    }

    /// The graph that streams of this context are nodes of.
    pub(crate) fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Sends every event of the next run to `listener`. Several listeners are called one after the other, in the order in which
    /// they were added, on the thread `events`. A listener may block: the stream does not wait for it, but events beyond 4096
    /// that wait are dropped and counted ([`Inspector::events_dropped`]). The run takes its listeners with it; add them again
    /// before another start.
    ///
    /// A listener that is added after the start would hear nothing, so the stream fails with [`Error::Usage`].
    ///
    /// ```
    /// use tidemill::{Config, Event, StreamingContext, testing::ManualClock};
    ///
    /// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// ctx.add_listener(|event: &Event| {
    ///     if let Event::ConditionBegan { condition } = event {
    ///         eprintln!("{}", condition.text());
    ///     }
    /// });
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn add_listener(&self, listener: impl Listener + 'static) {
        let late =
            "a listener comes after the start and would be told nothing: add it before `start`";
        if self.graph.tell_late(|| late.to_owned()) {
            return;
        }
        self.listeners.lock().push(Box::new(listener));
    }

    /// Sets the limits at which the run ends by itself. They replace those that were set before. Limits that come after the
    /// start would not count, so the stream fails with [`Error::Usage`].
    ///
    /// ```
    /// # use tidemill::{Config, RunLimits, StreamingContext, testing::ManualClock};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// use std::time::Duration;
    ///
    /// let hour = Duration::from_secs(3_600);
    /// ctx.limits(RunLimits { duration: Some(hour), ..RunLimits::default() });
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn limits(&self, limits: RunLimits) {
        let late = "limits come after the start and would not count: give them before `start`";
        if self.graph.tell_late(|| late.to_owned()) {
            return;
        }
        *self.limits.lock() = limits;
    }

    /// Starts receiving and running batches. The first batch is due at the next multiple of the batch interval, by the wall
    /// clock.
    ///
    /// The call returns once every thread runs and every listening address is bound. With a state directory it first reads the
    /// log of the earlier run, which may take as long as that log is. Servers that are dialled need not be there yet.
    ///
    /// Dropping the handle stops the stream in order, which may block for [`stop_deadline`](Config::stop_deadline) and a second.
    ///
    /// With a [`state_dir`](Config::state_dir) the start continues where the last run ended, in whatever way it ended: batches
    /// that were planned and not finished run again with the same input, then the input that no batch was given, then new input.
    /// A state directory holds data and never code, so a program builds its context anew for each start.
    /// [`StreamHandle::recovered`] has what was continued.
    ///
    /// # Errors
    /// - [`Error::Usage`] if no output was registered, a stream makes no sense (the text says which and why), or an earlier
    ///   start of this context still runs.
    /// - [`Error::Io`] if an address cannot be bound, a file cannot be opened, or the operating system gives no thread.
    /// - [`Error::Failed`] if the state directory or an output does not go with this stream, or the state directory is damaged;
    ///   the text has the remedy.
    ///
    /// ```
    /// use tidemill::{Config, Error, Interval, StreamingContext};
    ///
    /// let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
    /// assert!(matches!(ctx.start(), Err(Error::Usage(text)) if text.contains("no output")));
    /// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
    /// let running = ctx.start()?;
    /// assert!(ctx.start().is_err(), "it runs already");
    /// running.stop()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn start(&self) -> Result<StreamHandle> {
        self.start_as(self.config.clone(), None)
    }

    fn start_as(&self, config: Resolved, driver: Option<Driver>) -> Result<StreamHandle> {
        self.check()?;
        let (sources, source_names) = self.starts();
        places::expect(&config, &sources)?;
        let listeners = std::mem::take(&mut *self.listeners.lock());
        StreamHandle::start(stream_handle::Setup {
            config,
            clock: Arc::clone(&self.clock),
            graph: Arc::clone(&self.graph),
            sources,
            source_names,
            listeners,
            limits: *self.limits.lock(),
            driver,
            storage: self.storage.lock().clone(),
        })
    }

    /// Refuses a stream that makes no sense, on whatever machine.
    fn check(&self) -> Result<()> {
        if self.graph.outputs().is_empty() {
            let hint = "register one, such as `stream.print(10)`, before the start";
            return Err(Error::Usage(format!("nothing to do: the stream has no output; {hint}")));
        }
        if self.limits.lock().batches == Some(0) {
            let why = "the limit of batches is 0: a run has at least one batch";
            return Err(Error::Usage(why.to_owned()));
        }
        if let Some(window) = self.graph.window().filter(|_| self.config.trigger.is_some()) {
            let why =
                "a stream with a trigger has no batch interval that lengths could be multiples of";
            return Err(Error::Usage(format!("{window}: {why}")));
        }
        if let Some((queue, operator)) = self.graph.queue_window().filter(|_| self.logs()) {
            return Err(Error::Usage(format!(
                "`{queue}` lies above `{operator}`, whose input a start would read again: with a state directory a window needs \
                 a source that is in the log or can be read again, and a queue is neither"
            )));
        }
        self.graph.check()
    }

    /// The options that each source is started with, and its name for a log.
    fn starts(&self) -> (Vec<Start>, Vec<Wanted>) {
        let (limits, sources) = (*self.limits.lock(), self.sources.lock());
        let starts = (0..).zip(&*sources);
        let starts = starts.map(|(number, source)| source.start(number, &self.config, limits));
        (starts.collect(), sources.iter().map(Added::wanted).collect())
    }

    /// Looks at a state directory as a start of this stream would, and returns what it finds and the refusal, if any. Changes
    /// nothing in the directory. Call it on a context that is not started: the context keeps what was found. `looked`
    /// receives the number of segments that were looked at, and of all segments.
    ///
    /// # Errors
    /// If the stream makes no sense, or something cannot be read; a refusal is part of the look.
    pub(crate) fn look(
        &self,
        storage: &Arc<dyn Storage>,
        looked: &mut dyn FnMut(usize, usize),
    ) -> Result<Look> {
        self.check()?;
        let (sources, source_names) = self.starts();
        places::expect(&self.config, &sources)?;
        let streams = recover::Streams { graph: &self.graph, sources: &sources, source_names };
        let events = EventBus::with_clock(Arc::clone(&self.clock));
        let policy = lost::Policy::of(&self.config, *self.limits.lock());
        let (config, clock) = (&self.config, &self.clock);
        let told = recover::StartFacts { config, clock, events: &events, policy };
        let segment_bytes = self.storage.lock().as_ref().map(|(_, bytes)| *bytes);
        recover::look(recover::StateAt { storage, segment_bytes }, &streams, told, looked)
    }

    /// The same for a stream without a state directory.
    ///
    /// # Errors
    /// The reason for which a start would be refused.
    pub(crate) fn look_without_state(&self) -> Result<()> {
        self.check()?;
        places::expect(&self.config, &self.starts().0)?;
        recover::agree_without_state(&self.config.name, &self.graph, Access::Look).map(drop)
    }

    /// Starts the stream for a test that runs it batch by batch with [`StreamHandle::run_batches`]. The handle has, beside
    /// and after the batches, what every started stream has: an inspector, rates, and the report at the end.
    ///
    /// ```
    /// use tidemill::{Config, StreamingContext, testing::ManualClock};
    ///
    /// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![1, 2]), Some(vec![3])], 1);
    /// let sums = numbers.reduce(|a, b| a + b).collect();
    /// let mut running = ctx.start_driven()?;
    /// running.run_batches(1)?;
    /// assert_eq!(running.inspector().progress().batches, 1);
    /// running.run_batches(1)?;
    /// let report = running.stop()?;
    /// assert_eq!((report.batches, report.left.len()), (2, 0));
    /// assert_eq!(sums.rows().len(), 2);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`start`](StreamingContext::start), and [`Error::Usage`] if the context was not made by
    /// [`with_clock`](StreamingContext::with_clock).
    pub fn start_driven(&self) -> Result<StreamHandle> {
        let Some(clock) = self.manual.clone() else {
            let why = "a test drives a stream on a manual clock: make the context by `with_clock`";
            return Err(Error::Usage(why.to_owned()));
        };
        // No time passes while a batch runs, so there is none to wait for a sink.
        let config = Resolved { sink_retry: Duration::ZERO, ..self.config.clone() };
        self.start_as(config, Some(Driver::new(clock, self.config.batch_interval.as_duration())))
    }

    /// Runs `count` batches of a stream that the context keeps: starts it [driven](StreamingContext::start_driven) at the first
    /// call, and ends it with the context, or with a batch that fails. Then does what [`StreamHandle::run_batches`] does: it
    /// moves the clock by one batch interval and blocks until the batch is done, for each.
    ///
    /// # Errors
    /// The first batch's failure, and what [`start_driven`](StreamingContext::start_driven) returns.
    ///
    /// ```
    /// # use tidemill::{Config, StreamingContext, testing::ManualClock};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let sums = ctx.queue_stream(vec![Some(vec![1, 2]), Some(vec![3])], 1).reduce(|a, b| a + b).collect();
    /// ctx.run_batches(2)?;
    /// let rows: Vec<_> = sums.rows().into_iter().map(|(time, rows)| (time.as_millis(), rows)).collect();
    /// assert_eq!(rows, [(1_000, vec![3]), (2_000, vec![3])]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn run_batches(&self, count: u64) -> Result<()> {
        let mut driven = self.driven.lock();
        let mut running = driven.take().map_or_else(|| self.start_driven(), Ok)?;
        running.run_batches(count)?;
        *driven = Some(running);
        Ok(())
    }

    /// Returns a view of the stream that [`run_batches`](StreamingContext::run_batches) drives; `None` before its first batch.
    ///
    /// ```
    /// # use tidemill::{Config, StreamingContext, testing::ManualClock};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
    /// ctx.run_batches(1)?;
    /// assert_eq!(ctx.inspector().expect("it runs").progress().batches, 1);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn inspector(&self) -> Option<inspect::Inspector> {
        self.driven.lock().as_ref().map(StreamHandle::inspector)
    }
}

/// A seed that a peer cannot guess, so that it cannot choose keys that collide.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("tidemill")
}
