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

use std::time::Duration;

use crate::config::{Ack, Config, Resolved};
use crate::error::{Error, Result};
use crate::journal::{Look, Wanted};
use crate::metrics::{EventBus, Listener};
use crate::sink::Writer;
use crate::source::direct::DirectSource;
use crate::source::direct::files::FilesSource;
use crate::source::io::IoModel;
use crate::source::{Direction, Receiver};
use crate::storage::{Access, Storage};
use crate::stream::{DStream, Graph, GraphOptions, Identity, SourceInfo};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, ManualClock, SystemClock};

pub use crate::source::SocketSource;
pub use adjust::Adjuster;
pub use inspect::{Done, Inspector, Memory, ReceiverStatus};
pub use sources::ReceiverSource;
pub use stream_handle::{Recovered, Report, SourceReport, Stopper, StreamHandle};

use sources::{Added, Kind, Start};
use stream_handle::Driver;

/// The limits at which a run ends by itself, none by default, and what this run alone allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// After this many batches.
    pub batches: Option<u64>,
    /// After this time.
    pub duration: Option<std::time::Duration>,
    /// When every source has ended and everything was processed. Without a state directory the windows that are not due then
    /// are emitted once, in batches with the times of their ends, as if the stream had continued to there without input.
    pub until_eof: bool,
    /// Batches that an earlier run planned continue without input that was lost before they were processed, in this run only.
    pub give_up_lost: bool,
}

/// Builds a stream out of sources, operators and outputs, and starts it.
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
    /// A context on the system's clocks.
    ///
    /// # Errors
    /// If the configuration has a value that makes no sense.
    pub fn new(config: Config) -> Result<Self> {
        let resolved = config.resolve()?;
        Ok(Self::assemble(resolved, SystemClock::new(), None))
    }

    /// A context on a clock that a test moves; see [`run_batches`](StreamingContext::run_batches).
    ///
    /// # Errors
    /// If the configuration has a value that makes no sense.
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

    /// The options in force.
    pub fn config(&self) -> &Resolved {
        &self.config
    }

    /// The lines of a TCP data server at `address` (`HOST:PORT`), as text; bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// If there are too many sources. The server need not be there yet.
    pub fn socket_lines(&self, address: &str, model: IoModel) -> Result<DStream<str>> {
        self.socket_text(SocketSource::connect([address]).io_model(model))
    }

    /// The lines of a TCP data server at `address` (`HOST:PORT`), as bytes.
    ///
    /// # Errors
    /// If there are too many sources.
    pub fn socket_records(&self, address: &str, model: IoModel) -> Result<DStream<[u8]>> {
        self.socket(SocketSource::connect([address]).io_model(model))
    }

    /// The records of a socket source.
    ///
    /// # Errors
    /// If there are too many sources, or the source promises what it cannot keep: see [`SocketSource::ack()`].
    pub fn socket(&self, source: SocketSource) -> Result<DStream<[u8]>> {
        let identity = source.identity.as_ref();
        let identity = identity.and_then(|found| Identity::new(found.regex().clone()));
        let line_feeds = source.framing.holds_line_feeds();
        let (number, name) = self.add_source(Kind::Socket(source))?;
        let records = self.graph.blocks(number, &name).may_hold_line_feeds(line_feeds);
        Ok(match identity {
            Some(identity) => {
                let source = SourceInfo { source: number, name: name.into() };
                self.graph.without_repeats(&records, &source, identity)
            }
            None => records,
        })
    }

    /// The records of a socket source as text; bytes that are not UTF-8 are replaced and counted.
    ///
    /// # Errors
    /// If there are too many sources.
    pub fn socket_text(&self, source: SocketSource) -> Result<DStream<str>> {
        if source.identity.is_some() {
            return Ok(self.graph.as_text(&self.socket(source)?));
        }
        let line_feeds = source.framing.holds_line_feeds();
        let (number, name) = self.add_source(Kind::Socket(source))?;
        Ok(self.graph.text_blocks(number, &name).may_hold_line_feeds(line_feeds))
    }

    /// The records that a receiver of your own stores, under this name; see [`Receiver`].
    ///
    /// # Errors
    /// If there are too many sources.
    pub fn receiver_stream(
        &self,
        name: &str,
        receiver: impl Receiver + 'static,
    ) -> Result<DStream<[u8]>> {
        self.receiver(ReceiverSource::new(receiver).named(name))
    }

    /// The records of a source with a receiver of your own, with limits.
    ///
    /// # Errors
    /// If there are too many sources.
    pub fn receiver(&self, source: ReceiverSource) -> Result<DStream<[u8]>> {
        let (number, name) = self.add_source(Kind::Receiver(source))?;
        Ok(self.graph.blocks(number, &name))
    }

    /// The records of the files of a directory; see [`FilesSource`].
    ///
    /// # Errors
    /// If there are too many sources. The directory is looked at when the stream starts.
    pub fn files(&self, source: FilesSource) -> Result<DStream<[u8]>> {
        let line_feeds = source.may_hold_line_feeds();
        let (number, name) = self.add_files(source)?;
        Ok(self.graph.direct(number, &name).may_hold_line_feeds(line_feeds))
    }

    /// The records of the files of a directory as text; bytes that are not UTF-8 are replaced and counted.
    ///
    /// # Errors
    /// If there are too many sources. The directory is looked at when the stream starts.
    pub fn files_text(&self, source: FilesSource) -> Result<DStream<str>> {
        let line_feeds = source.may_hold_line_feeds();
        let (number, name) = self.add_files(source)?;
        Ok(self.graph.text_direct(number, &name).may_hold_line_feeds(line_feeds))
    }

    /// The lines of the files of a directory as text; see [`FilesSource`].
    ///
    /// # Errors
    /// If there are too many sources. The directory is looked at when the stream starts.
    pub fn files_lines(&self, directory: impl Into<std::path::PathBuf>) -> Result<DStream<str>> {
        self.files_text(FilesSource::new(directory))
    }

    /// The records of a replayable source of your own, under this name.
    ///
    /// # Errors
    /// If there are too many sources.
    pub fn direct_stream(
        &self,
        name: &str,
        source: impl DirectSource + 'static,
    ) -> Result<DStream<[u8]>> {
        let kind = Kind::Direct { name: Some(name.to_owned()), source: Arc::new(source) };
        let (number, name) = self.add_source(kind)?;
        Ok(self.graph.direct(number, &name))
    }

    fn add_files(&self, source: FilesSource) -> Result<(u32, String)> {
        let name = source.name().map(str::to_owned);
        self.add_source(Kind::Direct { name, source: Arc::new(source) })
    }

    fn add_source(&self, kind: Kind) -> Result<(u32, String)> {
        if let Kind::Socket(source) = &kind
            && source.framing.acknowledges()
        {
            self.check_acknowledging(source)?;
        }
        let mut sources = self.sources.lock();
        let number = u32::try_from(sources.len())
            .map_err(|_| Error::Usage("too many sources".to_owned()))?;
        let name = kind.name().map_or_else(|| format!("source{number}"), str::to_owned);
        if self.graph.is_running() {
            let why = "comes after the start and would never be read: add it before `start`";
            return Err(Error::Usage(format!("the source `{name}` {why}")));
        }
        sources.push(Added { name: name.clone(), kind });
        Ok((number, name))
    }

    fn check_acknowledging(&self, source: &SocketSource) -> Result<()> {
        let framing = source.framing.name();
        if matches!(source.direction, Direction::Connect(_)) {
            let why = "its peers dial in, so it needs an address to listen on";
            return Err(Error::Usage(format!("framing `{framing}` cannot connect: {why}")));
        }
        if source.ack == Ack::Log && !self.logs() {
            let why = "records are acknowledged after the sync of the log, and there is none";
            let hint =
                "give `Config::state_dir`, or acknowledge when `received` or after the `batch`";
            return Err(Error::Usage(format!("framing `{framing}`: {why}: {hint}")));
        }
        Ok(())
    }

    /// True if there is a log.
    fn logs(&self) -> bool {
        self.config.state_dir.is_some() || self.storage.lock().is_some()
    }

    /// The graph that streams of this context are nodes of.
    pub(crate) fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Sends every event to `listener`, on a thread of its own. A listener that is added after the start would hear nothing, so
    /// the stream fails.
    pub fn add_listener(&self, listener: impl Listener + 'static) {
        let late =
            "a listener comes after the start and would be told nothing: add it before `start`";
        if self.graph.tell_late(|| late.to_owned()) {
            return;
        }
        self.listeners.lock().push(Box::new(listener));
    }

    /// Sets the limits at which the run ends by itself. Limits that come after the start would not count, so the stream fails.
    pub fn limits(&self, limits: RunLimits) {
        let late = "limits come after the start and would not count: give them before `start`";
        if self.graph.tell_late(|| late.to_owned()) {
            return;
        }
        *self.limits.lock() = limits;
    }

    /// Starts receiving and running batches. The guard stops everything in order when it is dropped.
    ///
    /// With a [`state_dir`](Config::state_dir) the start continues where the last run ended, in whatever way it ended: batches
    /// that were planned and not finished run again with the same input, then the input that no batch was given, then new input.
    /// A state directory holds data and never code, so a program builds its context anew for each start.
    /// [`StreamHandle::recovered`] has what was continued.
    ///
    /// # Errors
    /// If no output was registered, an address cannot be bound, or the operating system refuses a thread; while an earlier
    /// start of this context runs, for both would work on one state; and if the state directory is another pipeline's, is
    /// damaged, or holds what the program no longer names.
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

    /// Drives `count` batches of a stream that the context keeps: starts it [driven](StreamingContext::start_driven) at the
    /// first call, and ends it with the context, or with a batch that fails. Then does what [`StreamHandle::run_batches`] does.
    ///
    /// # Errors
    /// The first batch's failure, and what [`start_driven`](StreamingContext::start_driven) returns.
    pub fn run_batches(&self, count: u64) -> Result<()> {
        let mut driven = self.driven.lock();
        let mut running = driven.take().map_or_else(|| self.start_driven(), Ok)?;
        running.run_batches(count)?;
        *driven = Some(running);
        Ok(())
    }

    /// Looks at the stream that [`run_batches`](StreamingContext::run_batches) drives; `None` before its first batch.
    pub fn inspector(&self) -> Option<inspect::Inspector> {
        self.driven.lock().as_ref().map(StreamHandle::inspector)
    }
}

/// A seed that a peer cannot guess, so that it cannot choose keys that collide.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("tidemill")
}
