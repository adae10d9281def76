//! The start of a stream: the threads, lowest first, so that everything a thread talks to is there. Runs on the thread that
//! starts the stream.

use std::time::Duration;

use super::{CONTROL_MAX, Control, Driver, StreamHandle};
use crate::blocks::manager::BlockManager;
use crate::blocks::spill::{Spill, SpillFiles, SpillOptions, SpillThread};
use crate::blocks::tracker::BlockTracker;
use crate::config::{Resolved, Then};
use crate::context::inspect::{Inspected, Inspector, Received};
use crate::context::recover::{StartFacts, Streams};
use crate::context::sources::{DirectOptions, Start};
use crate::context::{RunLimits, connections, lost, places, recover};
use crate::error::{Error, Result};
use crate::exec::worker_pool::WorkerPool;
use crate::journal::Wanted;
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::Pool;
use crate::metrics::{EngineTimes, Event, EventBus, History, Listener, ReceiverCounters, Reloads};
use crate::scheduler::{
    Batches, Direct, KeptBound, Message, Options, Parts, Reader, Recovery, Retries, Scheduler,
    Stored, Trigger, count_lost,
};
use crate::sink::{DeadLetterFiles, DeadLetters};
use crate::source::{
    BacklogTrigger, CustomReceiver, Engine, RunningSource, SocketReceiver, Unfinished,
    UnfinishedOf, When,
};
use crate::storage::{Directory, Storage};
use crate::stream::{Graph, RunLease};
use crate::sync::{Arc, AtomicBool, Mailbox, Poison};
use crate::time::{Clock, Schedule};

/// The options of a start.
pub(in crate::context) struct Setup {
    pub(in crate::context) config: Resolved,
    pub(in crate::context) clock: Arc<dyn Clock>,
    pub(in crate::context) graph: Arc<Graph>,
    pub(in crate::context) sources: Vec<Start>,
    /// The names of the sources for a log.
    pub(in crate::context) source_names: Vec<Wanted>,
    pub(in crate::context) listeners: Vec<Box<dyn Listener>>,
    pub(in crate::context) limits: RunLimits,
    /// For a run that is driven batch by batch: then the end of each batch is reported.
    pub(in crate::context) driver: Option<Driver>,
    /// The storage of the log instead of `state_dir`, and the size of its segments in bytes.
    pub(in crate::context) storage: Option<(Arc<dyn Storage>, u64)>,
}

/// The parts of a handle that exist before the engine reads anything.
struct Core {
    lease: RunLease,
    control: Mailbox<Control>,
    scheduler: Scheduler,
    workers: Arc<WorkerPool>,
    spill: Option<Arc<Spill>>,
    tracker: Arc<BlockTracker>,
}

/// The parts of the engine that sources are started with.
struct SourceParts<'a> {
    engine: &'a Engine,
    recovery: Option<&'a Recovery>,
    store: &'a Arc<BlockManager>,
}

/// The parts that the inspector alone shares with the job loop.
struct Views {
    history: Arc<History>,
    graph: Arc<Graph>,
}

impl StreamHandle {
    /// Starts the threads, lowest first, so that everything a thread talks to is there.
    pub(in crate::context) fn start(setup: Setup) -> Result<StreamHandle> {
        let (core, mut engine) = core(&setup)?;
        let mut running = StreamHandle::new(&setup, &engine, core);
        running.driver = setup.driver;
        let Setup { config, clock, graph, sources, listeners, limits, .. } = setup;
        let poison = engine.poison.clone();
        running.events_thread = Some(engine.events.start(listeners, &poison)?);
        let spill = running.spill.clone();
        let store = Arc::new(BlockManager::new(Arc::clone(&engine.account), spill));
        let policy = lost::Policy::of(&config, limits);
        let told = StartFacts { config: &config, clock: &clock, events: &engine.events, policy };
        let streams =
            Streams { graph: &graph, sources: &sources, source_names: setup.source_names };
        let recovery = recover::open(setup.storage, streams, told, &poison)?;
        let own = recovery.as_ref().map(|recovery| recovery.journal.identity());
        let none = || recover::without_state(&config.name, &graph, &engine.events);
        let identity = own.map_or_else(none, Ok)?;
        engine.log = recovery.as_ref().map(Recovery::log);
        running.recovered = recovery.as_ref().and_then(|it| recover::recovered(&it.found));
        running.journal = recovery.as_ref().map(|recovery| Arc::clone(&recovery.journal));
        let schedule = recover::schedule(clock.as_ref(), config.batch_interval, recovery.as_ref());
        running.schedule = config.trigger.is_none().then_some(schedule);
        running.start_spill(&store, &engine)?;
        let recovered = recovery.as_ref();
        let parts = SourceParts { engine: &engine, recovery: recovered, store: &store };
        let direct = running.start_sources(sources, parts)?;
        for receiver in &running.receivers {
            graph.count_repeats(receiver.number, &receiver.counters);
        }
        let history = Arc::new(History::default());
        let views = Views { history: Arc::clone(&history), graph: Arc::clone(&graph) };
        running.inspector = Some(running.inspect(&config, &engine, views));
        let parts = Parts {
            clock: Arc::clone(&clock),
            graph,
            workers: Arc::clone(&running.workers),
            store,
            tracker: Arc::clone(&running.tracker),
            pool: engine.pool,
            cutters: running.cutters(),
            direct,
            steered: running.receivers.iter().filter_map(|receiver| receiver.steered()).collect(),
            arrivals: engine.arrivals,
            dead_letters: dead_letters(&config, &engine.events),
            recovery,
            identity,
            times: Arc::clone(&engine.times),
            history,
            events: engine.events,
            tell: Arc::new(poster(&running.control, Control::Notice)),
            tell_batches: running.driver.is_some(),
        };
        let options = job_options(&config, schedule, limits);
        let job_loop = running.scheduler.start(options, parts, &poison)?;
        running.job_loop = Some(job_loop);
        Ok(running)
    }

    /// A stream of which no thread runs yet but the workers.
    fn new(setup: &Setup, engine: &Engine, core: Core) -> StreamHandle {
        let Setup { config, graph, sources, .. } = setup;
        StreamHandle {
            block_bytes_max: config.block_bytes_max,
            outputs: graph.outputs().len(),
            started: engine.clock.now(),
            stop_deadline: config.stop_deadline,
            limits: setup.limits,
            control: core.control,
            scheduler: core.scheduler,
            tracker: core.tracker,
            events: engine.events.clone(),
            workers: core.workers,
            receivers: Vec::new(),
            direct: Vec::new(),
            job_loop: None,
            events_thread: None,
            spill: core.spill,
            spill_thread: None,
            sources_left: sources.iter().filter(|source| source.ends() == When::Eof).count(),
            ended: false,
            output_closed: false,
            inspector: None,
            schedule: None,
            _lease: core.lease,
            journal: None,
            recovered: None,
            driver: None,
            keeps: config.state_dir.is_some(),
            sinks: graph.sinks(),
            clock: Arc::clone(&engine.clock),
        }
    }

    /// Starts the thread `spill`, if blocks may leave memory.
    fn start_spill(&mut self, store: &Arc<BlockManager>, engine: &Engine) -> Result<()> {
        if let Some(spill) = &self.spill {
            let log = self.journal.as_ref().map(|journal| journal.blocks());
            let (events, poison) = (&engine.events, &engine.poison);
            let with = SpillThread { clock: &self.clock, events, poison };
            let thread = spill.start(store, log, with)?;
            self.spill_thread = Some(thread);
        }
        Ok(())
    }

    fn inspect(&self, config: &Resolved, engine: &Engine, views: Views) -> Inspector {
        let received = |receiver: &RunningSource| Received {
            number: receiver.number,
            source: receiver.source.clone(),
            io_model: receiver.io_model,
            local: receiver.local_addrs.clone(),
            counters: Arc::clone(&receiver.counters),
            limiter: receiver.limiter.clone(),
            cutter: Some(receiver.cutter.clone()),
        };
        let direct = |(number, source, counters): &(u32, String, Arc<ReceiverCounters>)| Received {
            number: *number,
            source: source.clone(),
            io_model: None,
            local: Vec::new(),
            counters: Arc::clone(counters),
            limiter: None,
            cutter: None,
        };
        let receivers = self.receivers.iter().map(received);
        let mut receivers: Vec<Received> =
            receivers.chain(self.direct.iter().map(direct)).collect();
        receivers.sort_by_key(|receiver| receiver.number);
        Inspector(Arc::new(Inspected {
            config: config.clone(),
            clock: Arc::clone(&self.clock),
            started: self.started,
            started_at: self.clock.wall_time(),
            scheduler: self.scheduler.clone(),
            account: Arc::clone(&engine.account),
            pool: Arc::clone(&engine.pool),
            unfinished: Arc::clone(&engine.unfinished),
            graph: views.graph,
            spill: self.spill.clone(),
            events: engine.events.clone(),
            times: Arc::clone(&engine.times),
            history: views.history,
            receivers,
            stopping: AtomicBool::new(false),
            reloads: Reloads::default(),
            journal: self.journal.as_ref().map(|journal| journal.watch()),
        }))
    }

    fn start_receivers(
        &mut self,
        sources: Vec<Start>,
        engine: &Engine,
        stored: Arc<Stored>,
    ) -> Result<()> {
        for source in sources {
            let ends = poster(&self.control, Control::SourceEnded);
            let on_end = Arc::new(move |_number, error| ends(error));
            let target = Arc::clone(&stored);
            self.receivers.push(match source {
                Start::Socket(options) => SocketReceiver::start(options, engine, target, on_end)?,
                Start::Receiver(options) => CustomReceiver::start(options, engine, target, on_end)?,
                Start::Direct(_) => unreachable!("they have no receiver and were started before"),
            });
        }
        Ok(())
    }

    /// Gets the direct sources ready, then starts the receivers.
    fn start_sources(
        &mut self,
        sources: Vec<Start>,
        SourceParts { engine, recovery, store }: SourceParts<'_>,
    ) -> Result<Vec<Direct>> {
        let (direct, mut received): (Vec<Start>, Vec<Start>) =
            sources.into_iter().partition(|source| source.is_direct());
        let stored = Stored {
            store: Arc::clone(store),
            tracker: Arc::clone(&self.tracker),
            clock: Arc::clone(&self.clock),
            scheduler: self.scheduler.clone(),
        };
        if let Some(recovery) = recovery {
            let records = recover::restore(recovery, self.block_bytes_max, &stored)?;
            engine.arrivals.iter().for_each(|arrivals| arrivals.add(records));
        }
        let direct = self.start_direct(direct, engine, recovery)?;
        connections::fit(&mut received, self.outputs, &engine.events);
        self.start_receivers(received, engine, Arc::new(stored))?;
        Ok(direct)
    }

    /// Gets the direct sources ready.
    fn start_direct(
        &mut self,
        sources: Vec<Start>,
        engine: &Engine,
        recovery: Option<&Recovery>,
    ) -> Result<Vec<Direct>> {
        let mut started = Vec::new();
        for source in sources {
            let Start::Direct(options) = source else {
                unreachable!("the others have receivers");
            };
            let start = options.direct_start(&engine.events, &engine.clock);
            let found = recovery.map(|recovery| (&recovery.found, recovery.lost.given_up));
            recover::start_direct(&options, &start, found)?;
            let (DirectOptions { name, number, source, .. }, counters) = (options, start.counters);
            // It is always there to be asked.
            counters.open.add(1);
            self.direct.push((number, name.clone(), Arc::clone(&counters)));
            let ends = poster(&self.control, Control::SourceEnded);
            let lost = recovery.iter().flat_map(|recovery| &recovery.lost.bytes);
            for (_, bytes, processed) in lost.filter(|(of, ..)| *of == number) {
                count_lost(&counters, *bytes, *processed);
            }
            let reader = Reader { number, name: name.into(), source, counters };
            let mut direct =
                Direct::new(reader, engine.events.clone(), Box::new(move || ends(None)));
            direct.end_if_last();
            started.push(direct);
        }
        Ok(started)
    }
}

/// Makes sure that no other run of the graph is there, and starts the workers.
fn core(setup: &Setup) -> Result<(Core, Engine)> {
    let Setup { config, graph, sources, .. } = setup;
    let control = Mailbox::new(CONTROL_MAX);
    let lease = lease(graph, &control, &config.name)?;
    let (poison, scheduler) = (poison_that_tells(&control), Scheduler::new());
    let engine = engine(setup, &poison, &scheduler);
    let workers = Arc::new(WorkerPool::start(config.workers, &poison)?);
    graph.make_results_in(&engine.pool);
    let spill = spill(config, &engine.account)?;
    let tracker = Arc::new(BlockTracker::new(sources.len()));
    Ok((Core { lease, control, scheduler, workers, spill, tracker }, engine))
}

/// Keeps other runs of the graph from beginning.
fn lease(graph: &Graph, control: &Mailbox<Control>, pipeline: &str) -> Result<RunLease> {
    graph.begin_run(Arc::new(poster(control, Control::Late))).ok_or_else(|| {
        let why = "runs already: a context runs one stream at a time; stop that first";
        Error::Usage(format!("the pipeline `{pipeline}` {why}"))
    })
}

/// A poison whose reason goes to the thread that waits for the stream.
fn poison_that_tells(control: &Mailbox<Control>) -> Poison {
    let poison = Poison::new();
    let poisoned = poster(control, Control::Poisoned);
    poison.on_set(move |reason| poisoned(reason.to_owned()));
    poison
}

/// Makes the parts that the receivers share.
fn engine(setup: &Setup, poison: &Poison, scheduler: &Scheduler) -> Engine {
    let Setup { config, clock, sources, .. } = setup;
    let store_bytes_max = usize::try_from(config.store_bytes_max).unwrap_or(usize::MAX);
    let (account, events) =
        (MemoryBudget::new(store_bytes_max), EventBus::with_clock(Arc::clone(clock)));
    Engine {
        clock: Arc::clone(clock),
        poison: poison.clone(),
        pool: Pool::new(Arc::clone(&account)),
        unfinished: unfinished(config, sources, &account, &events),
        account,
        events,
        times: EngineTimes::new(),
        arrivals: config.trigger.map(|trigger| arrivals(trigger, scheduler)),
        log: None,
    }
}

/// The unfinished records of all sockets, with room for one of the longest kind at least.
fn unfinished(
    config: &Resolved,
    sources: &[Start],
    account: &Arc<MemoryBudget>,
    events: &EventBus,
) -> Arc<Unfinished> {
    let sockets = || sources.iter().filter_map(Start::socket);
    let longest = sockets().map(|socket| socket.record_bytes_max).max().unwrap_or(0);
    let of = UnfinishedOf {
        record_bytes_max: longest,
        connections_max: sockets().map(|socket| socket.connections_max).sum(),
    };
    let bytes_max = usize::try_from(config.unfinished_bytes_max).unwrap_or(usize::MAX);
    Unfinished::new(bytes_max.max(longest), of, account, events)
}

/// Takes blocks when memory runs short, if there is a log or the configuration names a place.
fn spill(config: &Resolved, account: &Arc<MemoryBudget>) -> Result<Option<Arc<Spill>>> {
    let Some(spill) = &config.spill else { return Ok(None) };
    let directory = spill.directory.join(places::spill_name(config));
    let files = Some(SpillFiles {
        storage: Arc::new(Directory::open(&directory)?),
        directory: Some(directory),
        bytes_max: spill.bytes_max,
    });
    Spill::open(SpillOptions { files, account: Arc::clone(account) }).map(Some)
}

fn job_options(config: &Resolved, schedule: Schedule, limits: RunLimits) -> Options {
    let half = config.batch_interval.as_duration() / 2;
    let batches = match config.trigger {
        Some(trigger) => Batches::OnRecords(trigger),
        None => Batches::Every(schedule, config.catch_up),
    };
    Options {
        batches,
        timer: config.batch_timer,
        interval: config.batch_interval.as_duration(),
        allocate_wait: half.min(Duration::from_millis(100)),
        concurrent_jobs: config.concurrent_jobs,
        retries: Retries { failures: config.on_failure.retries, away: config.sink_retry },
        batches_max: limits.batches,
        skip_empty: config.skip_empty,
        kept: KeptBound { memory_bytes: config.memory_bytes, bytes_max: config.kept_bytes_max },
    }
}

/// Counts records for the trigger and notifies the job loop; a full mailbox wakes it as well.
fn arrivals(trigger: Trigger, scheduler: &Scheduler) -> Arc<BacklogTrigger> {
    let scheduler = scheduler.clone();
    Arc::new(BacklogTrigger::new(trigger.records, move || scheduler.nudge(Message::Enough)))
}

/// Keeps dead letters, if batches become some. Reports letters that an earlier run left unfinished.
fn dead_letters(config: &Resolved, events: &EventBus) -> Option<Arc<dyn DeadLetters>> {
    let letters: Arc<dyn DeadLetters> = match config.on_failure.then {
        Then::Stop => return None,
        Then::DeadLetter => Arc::new(DeadLetterFiles::new(&config.dead_letter_directory)),
    };
    for (file, bytes) in letters.unfinished(&config.name) {
        events.post(Event::DeadLetterUnfinished { file, bytes });
    }
    Some(letters)
}

/// A closure that posts to the control mailbox. It never waits: a full mailbox holds a reason to end already.
fn poster<T, W>(control: &Mailbox<Control>, wrap: W) -> impl Fn(T) + Send + Sync + use<T, W>
where
    W: Fn(T) -> Control + Send + Sync,
{
    let control = control.clone();
    move |value| {
        let _ = control.try_send(wrap(value));
    }
}
