//! The scheduler: one event loop, on the thread `job-loop`, that turns ticks into batches and batches into jobs.
//!
//! ```text
//!  clock ─────tick─▶ ┌──────────┐ ─cut_for─▶ generators ─Reached─▶ ┐
//!  stop ─────Final─▶ │ job-loop │ ◀──────────────────────────────── ┘
//!  workers ─JobDone▶ └──────────┘ ─plan─▶ worker pool
//! ```
//! The loop takes the ticks, whatever wakes it for them: the thread `batch-timer`, which only signals, or its own wait
//! ([`BatchTimer`]). All other threads only post. Pure machines decide: [`ticks::JobGenerator`], [`job_set::JobSet`] and
//! [`durability::Durability`]. This file has the loop and its messages; `allocation`, `job_runs`, `batch_log` and `stopping`
//! obey. It knows nothing of the command line or of who waits for the end; they receive a [`SchedulerNotice`].

mod admission;
mod aging;
mod allocation;
mod away_sinks;
mod batch_log;
mod checkpoints;
mod closed_sinks;
mod coverage;
mod dead_letters;
mod direct_sources;
mod durability;
mod job_runs;
mod job_set;
mod kept_bound;
mod last_windows;
#[cfg(all(test, tidemill_model))]
mod model;
mod rates;
mod recovery;
mod stopping;
mod stored;
mod ticks;
mod wakeups;

use std::time::Duration;

use crate::blocks::manager::BlockManager;
use crate::blocks::tracker::BlockTracker;
use crate::error::{Error, Result};
use crate::exec::Failure;
use crate::exec::worker_pool::WorkerPool;
use crate::memory::buffer_pool::Pool;
use crate::metrics::{EngineTimes, EventBus, History};
use crate::owner::StateId;
use crate::sink::{DeadLetters, SharedSink};
use crate::source::{BacklogTrigger, Cutter, Steered};
use crate::stream::Graph;
use crate::sync::planted::{Planted, planted};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mailbox, Mutex, Poison};
use crate::time::{Clock, Moment, Schedule, Time, tighten_timer_slack};

pub(crate) use direct_sources::{Direct, Reader, count_lost};
pub(crate) use kept_bound::KeptBound;
use kept_bound::KeptWatch;
pub(crate) use recovery::{LostInput, Recovery, reach};
pub(crate) use stored::Stored;
pub use ticks::{CatchUp, Trigger};
pub use wakeups::BatchTimer;

use admission::Admission;
use aging::Aging;
use allocation::Allocator;
use away_sinks::AwaySinks;
use batch_log::BatchLog;
use dead_letters::Kept;
use job_runs::{DoneBatches, Jobs};
use job_set::{JobRef, JobSet};
use rates::Steering;
use stopping::Stop;
use ticks::{JobGenerator, Pace, Step};
use wakeups::{LoopTicks, TickOptions};

/// The most messages that wait for the loop; beyond that the timer and the workers wait for room.
const MESSAGES_MAX: usize = 65_536;

/// Pause after a job whose sink found no room on its disk, before it is tried again.
const ROOM_RETRY: Duration = Duration::from_millis(200);

/// A message that the loop acts on: the closed set.
#[derive(Debug)]
pub(crate) enum Message {
    /// Everything that a source read before the tick is stored.
    Reached { source: u32, time: Time, at: Moment },
    /// There may be enough records for a batch.
    Enough,
    /// The fate of records that were appended to the log is known.
    Planned,
    /// An attempt at a job has ended.
    JobDone { job: JobRef, outcome: Result<(), Failure>, at: Moment },
    /// The input of a batch that failed for good was put aside, or that failed.
    PutAside { time: Time, outcome: Result<()>, kept: Kept },
    /// Sinks have acted at their time, or failed to.
    SinksLooked(Vec<(SharedSink, Option<Error>)>),
    /// The stop has begun: no tick that comes later makes a batch.
    EndTicks,
    /// Nothing more is received: the last batch takes all that is left and runs at once.
    Final(Ends),
    /// Give up the jobs that have not started.
    Abort,
}

/// The reason for which nothing more is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The stop was asked for.
    Asked,
    /// The sources have ended.
    Input,
}

/// A notice of the loop to the thread that waits for the stream.
#[derive(Debug)]
pub(crate) enum SchedulerNotice {
    /// A batch is done or left out; sent only to a caller that drives batches one by one.
    BatchDone,
    /// The asked number of batches is done.
    BatchesReached,
    /// After `Final`: every batch is done.
    Drained,
    /// A batch failed for good.
    Fatal(Error),
    /// Nobody takes the rows of any output any more, and the reason.
    OutputClosed(String),
}

/// The reaction to a job that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retries {
    /// The number of times that a job is tried again.
    pub(crate) failures: u32,
    /// The time that a batch waits for sinks that are away before that counts as a failure.
    pub(crate) away: Duration,
}

/// The trigger of batches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Batches {
    /// At the ticks of a schedule.
    Every(Schedule, CatchUp),
    /// After a number of records or a time-out.
    OnRecords(Trigger),
}

pub(crate) struct Options {
    pub(crate) batches: Batches,
    /// The timer that wakes the loop at a tick.
    pub(crate) timer: BatchTimer,
    /// The time in which a batch must be processed to keep up; the rate estimator's measure.
    pub(crate) interval: Duration,
    pub(crate) allocate_wait: Duration,
    pub(crate) concurrent_jobs: usize,
    pub(crate) retries: Retries,
    pub(crate) batches_max: Option<u64>,
    pub(crate) skip_empty: bool,
    /// The bounds of what windows and states keep.
    pub(crate) kept: KeptBound,
}

/// The parts of the engine that the loop works with.
pub(crate) struct Parts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) workers: Arc<WorkerPool>,
    pub(crate) store: Arc<BlockManager>,
    pub(crate) tracker: Arc<BlockTracker>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) cutters: Vec<(u32, Cutter)>,
    pub(crate) direct: Vec<Direct>,
    pub(crate) steered: Vec<Steered>,
    pub(crate) arrivals: Option<Arc<BacklogTrigger>>,
    /// Keeps the input of a batch that failed for good; none: the stream stops.
    pub(crate) dead_letters: Option<Arc<dyn DeadLetters>>,
    /// With a log: the result of reading it at the start.
    pub(crate) recovery: Option<Recovery>,
    /// The identity of the state that the batches belong to.
    pub(crate) identity: StateId,
    pub(crate) times: Arc<EngineTimes>,
    pub(crate) history: Arc<History>,
    pub(crate) events: EventBus,
    pub(crate) tell: Arc<dyn Fn(SchedulerNotice) + Send + Sync>,
    pub(crate) tell_batches: bool,
}

/// The progress so far; any thread may look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Batches that are done: their jobs succeeded, or their input was put aside.
    pub(crate) batches: u64,
    /// Records of those batches.
    pub(crate) records: u64,
    /// Records of batches that were planned and are not done.
    pub(crate) records_waiting: u64,
    /// Batches that were planned and are not done.
    pub(crate) batches_waiting: u64,
    /// Batches that were left out because they were empty.
    pub(crate) left_out: u64,
    /// Batches of this run that are done or were left out; not those of an earlier one that ran again.
    pub(crate) own: u64,
    /// The newest batch that is done or was left out.
    pub(crate) newest: Option<Time>,
    /// Batches whose input was put aside.
    pub(crate) dead_letters: u64,
    /// Records of those batches.
    pub(crate) dead_records: u64,
    /// Records of done batches in windows that were not due since.
    pub(crate) not_due: u64,
    /// Bytes of direct sources that were not processed and that nobody can read after this run; known once the loop has ended.
    pub(crate) perished_bytes: u64,
}

impl Progress {
    /// A batch is done or was left out; of this run, or of an earlier one.
    pub(super) fn is_over(&mut self, time: Time, is_own: bool) {
        self.own += u64::from(is_own);
        self.newest = self.newest.max(Some(time));
    }
}

/// The loop's address and its progress.
#[derive(Clone)]
pub(crate) struct Scheduler {
    inbox: Mailbox<Message>,
    progress: Arc<Mutex<Progress>>,
}

impl Scheduler {
    pub(crate) fn new() -> Self {
        Scheduler { inbox: Mailbox::new(MESSAGES_MAX), progress: Arc::default() }
    }

    /// Posts a message; a loop that has ended drops it.
    pub(crate) fn post(&self, message: Message) {
        let _ = self.inbox.send(message);
    }

    /// Posts a message unless the mailbox is full, without waiting: for io threads.
    pub(crate) fn nudge(&self, message: Message) {
        let _ = self.inbox.try_send(message);
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// Ends the loop once it has taken all that was posted.
    pub(crate) fn close(&self) {
        self.inbox.close();
    }

    /// Starts the thread `job-loop`.
    pub(crate) fn start(
        &self,
        options: Options,
        mut parts: Parts,
        poison: &Poison,
    ) -> Result<Thread> {
        let (pace, first) = match options.batches {
            Batches::Every(schedule, catch_up) => {
                (Pace::Every(schedule, catch_up), schedule.label(0))
            }
            Batches::OnRecords(trigger) => (Pace::OnRecords(trigger), parts.clock.wall_time()),
        };
        let (now, mut index, mut last) = (parts.clock.now(), 0, None);
        let mut generator = JobGenerator::new(pace, options.batches_max, now);
        let account = parts.store.account();
        let admission = Admission::new(account.max());
        // Before anything is read: the loop may be late to begin.
        account.expect_results(admission.reserve());
        parts.graph.begin(parts.recovery.as_ref().map_or(first, |recovery| recovery.anchor));
        if let Some(recovery) = &parts.recovery {
            (index, last) =
                (recovery.found.next_index, recovery.found.last_time.map(Time::from_millis));
            last.into_iter().for_each(|last| generator.resume(last));
        }
        let log = BatchLog::start(&mut parts, self, now);
        let steering = Steering::new(options.interval, std::mem::take(&mut parts.steered), now);
        let kept = KeptWatch::new(options.kept, parts.graph.pipeline(), &parts.events);
        let outputs = parts.graph.outputs();
        let job_loop = JobLoop {
            scheduler: self.clone(),
            generator,
            ticks: self.ticks(&options, &parts, poison)?,
            allocator: Allocator::new(admission, index, last),
            log,
            sinks: Sinks {
                away: AwaySinks::new(parts.graph.sinks(), &outputs, parts.events.conditions()),
                closed: Vec::new(),
                aging: Aging::default(),
            },
            jobs: Jobs {
                set: JobSet::new(outputs.len(), options.concurrent_jobs, options.retries),
                outputs,
                open: None,
                room_at: None,
                letters: None,
            },
            steering,
            done: DoneBatches::new(parts.times.stage_recorders(), kept, index, now),
            stop: Stop::new(),
            options,
            parts,
        };
        let started = thread::spawn("job-loop", poison, move || job_loop.run());
        started.map_err(|err| Error::io("cannot start the thread `job-loop`", err))
    }

    /// The ticks to come, where batches have a schedule.
    fn ticks(
        &self,
        options: &Options,
        parts: &Parts,
        poison: &Poison,
    ) -> Result<Option<LoopTicks>> {
        let Batches::Every(schedule, _) = options.batches else { return Ok(None) };
        let options = TickOptions {
            schedule,
            timer: options.timer,
            clock: &parts.clock,
            signal: self.inbox.signal(),
            late: parts.times.job_ticks.recorder(),
        };
        LoopTicks::start(options, poison).map(Some)
    }
}

/// The next step of the loop.
enum Next {
    /// A tick is due, and taken at this moment.
    Tick(Time, Moment),
    Message(Message),
    /// The wait for an allocation, the trigger's time-out, room or a pause is over.
    Deadline,
}

/// The state of the loop, in parts that each belong to one of its files.
struct JobLoop {
    scheduler: Scheduler,
    options: Options,
    parts: Parts,
    /// Decides which ticks become batches.
    generator: JobGenerator,
    /// The ticks to come; none with a trigger, and none once the stop has begun.
    ticks: Option<LoopTicks>,
    allocator: Allocator,
    /// With a log.
    log: Option<BatchLog>,
    jobs: Jobs,
    sinks: Sinks,
    steering: Steering,
    done: DoneBatches,
    stop: Stop,
}

/// The sinks that need more than their jobs.
struct Sinks {
    /// Those that were away at the last attempts.
    away: AwaySinks,
    /// Those whose reader is gone, which was told.
    closed: Vec<SharedSink>,
    aging: Aging,
}

impl JobLoop {
    fn run(mut self) {
        tighten_timer_slack();
        self.catch_up_after_restart();
        self.advance();
        self.start_jobs();
        while let Some(next) = self.next() {
            match next {
                Next::Tick(time, now) => self.tick(time, now),
                Next::Message(message) => self.take(message),
                Next::Deadline => self.allocate_if_due(),
            }
            self.fire();
            self.relieve_log();
            self.advance();
            self.start_jobs();
            self.look_at_sinks();
        }
        if let Some(log) = self.log.as_mut().filter(|_| !self.jobs.set.is_aborted()) {
            log.finish(self.parts.clock.now());
        }
        self.count_perished();
    }

    /// After a restart: begins the batches of the ticks that passed while nothing ran, as the policy says.
    fn catch_up_after_restart(&mut self) {
        let now = self.parts.clock.now();
        if let Some(time) = self.generator.missed_before_start() {
            self.begin(time, now, now);
        }
        self.replay_deferred();
    }

    /// Waits for the next step; `None` once the mailbox is closed and empty.
    ///
    /// A tick that is due goes before the messages, so that a busy loop cuts in time; after it a message has its turn.
    fn next(&mut self) -> Option<Next> {
        let inbox = &self.scheduler.inbox;
        loop {
            let now = self.parts.clock.now();
            if let Some(time) = self.ticks.as_mut().and_then(|ticks| ticks.take_in_turn(now)) {
                return Some(Next::Tick(time, now));
            }
            if let Some(message) = inbox.try_recv() {
                return Some(Next::Message(message));
            }
            if inbox.is_closed_and_empty() {
                return None;
            }
            let plans = self.log.as_ref().and_then(BatchLog::deadline);
            let own = if self.stop.is_draining() { None } else { self.generator.deadline() };
            let jobs = self.jobs_at().into_iter().chain(self.sinks_due());
            let deadline = own.into_iter().chain(plans).chain(jobs).min();
            if deadline.is_some_and(|at| now >= at) {
                return Some(Next::Deadline);
            }
            let tick = self.ticks.as_ref().and_then(|ticks| ticks.wait_until(now));
            let first = deadline.into_iter().chain(tick).min();
            self.parts.clock.wait(inbox.signal(), first);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Reached { source, time, at } => {
                if self.generator.reached(source, time) == Step::Allocate {
                    self.allocator.stored = at;
                    self.allocate_current();
                }
            }
            // The loop looks at the level after each message.
            Message::Enough | Message::Planned => {}
            Message::JobDone { job, outcome, at } => self.job_done(job, outcome, at),
            Message::PutAside { time, outcome, kept } => self.was_put_aside(time, outcome, kept),
            Message::SinksLooked(outcomes) => self.sinks_looked(outcomes),
            Message::EndTicks => self.end_ticks(),
            Message::Final(ends) => self.last_batch(ends),
            Message::Abort => {
                self.jobs.set.abort();
                self.stop.drain();
            }
        }
    }

    fn tick(&mut self, time: Time, now: Moment) {
        let draining = self.stop.is_draining() && !planted(Planted::TickAfterFinal);
        if draining || self.generator.tick(time, now, self.batches()) != Step::Cut {
            return;
        }
        self.begin(time, self.due(time), now);
    }

    /// The moment at which a tick was due; now if there is no schedule.
    fn due(&self, time: Time) -> Moment {
        match self.options.batches {
            Batches::Every(schedule, _) => schedule.due_at_label(time),
            Batches::OnRecords(_) => self.parts.clock.now(),
        }
    }

    /// With a trigger: begins a batch if there are enough records or the time-out is over.
    fn fire(&mut self) {
        let Some(arrivals) = &self.parts.arrivals else { return };
        let (enough, now) = (arrivals.is_enough(), self.parts.clock.now());
        let wall = self.parts.clock.wall_time();
        if !self.stop.is_draining()
            && let Some(time) = self.generator.fires(enough, wall, now, self.batches())
        {
            self.begin(time, now, now);
        }
    }
}
