//! The scheduler: one event loop, on the thread `job-loop`, that turns ticks into batches and batches into jobs.
//!
//! ```text
//!  job-timer ─Tick─▶ ┌──────────┐ ─cut_for─▶ generators ─Reached─▶ ┐
//!  stop ─────Final─▶ │ job-loop │ ◀──────────────────────────────── ┘
//!  workers ─JobDone▶ └──────────┘ ─plan─▶ worker pool
//! ```
//! Everyone else only posts. What to do is decided by [`generator::JobGenerator`] and [`jobs::JobSet`], which are pure;
//! this file carries it out. It knows nothing of the command line or of who waits for the end; they are told by
//! [`Told`].

mod generator;
mod jobs;
#[cfg(all(test, tidemill_model))]
mod model;

use std::time::Duration;

use crate::batch;
use crate::block::Block;
use crate::dstream::{BatchInput, Graph, Output};
use crate::error::{Error, Result};
use crate::metrics::{Event, EventBus};
use crate::receiver::Cutter;
use crate::receiver::generator::{BlockTarget, Cut};
use crate::slab::Pool;
use crate::store::BlockManager;
use crate::sync::planted::{Planted, planted};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mailbox, Mutex, Poison};
use crate::time::{Clock, Moment, Schedule, Time};
use crate::tracker::{BlockTracker, ReceivedBlock};
use crate::workers::WorkerPool;

use generator::{JobGenerator, Step};
use jobs::{JobRef, JobSet, Verdict};

/// Messages that may wait for the loop; the timer and the workers wait for room beyond that.
const MESSAGES_MAX: usize = 65_536;

/// What the loop acts on: the closed set.
#[derive(Debug)]
pub(crate) enum Message {
    /// The job timer's tick.
    Tick(Time),
    /// Everything that a source read before the tick is stored.
    Reached { source: u32, time: Time },
    /// An attempt at a job has ended.
    JobDone { job: JobRef, outcome: Result<(), String> },
    /// Nothing more is received: the last batch takes what is left and runs at once.
    Final,
    /// Give up what has not started.
    Abort,
}

/// What the loop tells whoever waits for the stream.
#[derive(Debug)]
pub(crate) enum Told {
    /// A batch is done; told only to those who drive batches one by one.
    BatchDone,
    /// The asked number of batches is done.
    BatchesReached,
    /// After `Final`: every batch is done.
    Drained,
    /// A batch failed for good.
    Fatal(Error),
}

/// What to do when a job fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retries(pub(crate) u32);

pub(crate) struct Options {
    pub(crate) schedule: Schedule,
    pub(crate) allocate_wait: Duration,
    pub(crate) concurrent_jobs: usize,
    pub(crate) retries: Retries,
    pub(crate) batches_max: Option<u64>,
    pub(crate) skip_empty: bool,
}

/// What the loop works with.
pub(crate) struct Parts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) workers: Arc<WorkerPool>,
    pub(crate) store: Arc<BlockManager>,
    pub(crate) tracker: Arc<BlockTracker>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) cutters: Vec<(u32, Cutter)>,
    pub(crate) events: EventBus,
    pub(crate) tell: Arc<dyn Fn(Told) + Send + Sync>,
    pub(crate) tell_batches: bool,
}

/// What was done so far; any thread may look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Batches whose jobs all succeeded.
    pub(crate) batches: u64,
    /// Records of those batches.
    pub(crate) records: u64,
    /// Records of batches that were planned and are not done.
    pub(crate) records_waiting: u64,
    /// Batches that were planned and are not done.
    pub(crate) batches_waiting: u64,
}

/// The loop's address, and what it has done.
#[derive(Clone)]
pub(crate) struct Scheduler {
    inbox: Mailbox<Message>,
    progress: Arc<Mutex<Progress>>,
}

impl Scheduler {
    pub(crate) fn new() -> Self {
        Scheduler { inbox: Mailbox::new(MESSAGES_MAX), progress: Arc::default() }
    }

    /// Posts a message; refused ones are of no use to a loop that has ended.
    pub(crate) fn post(&self, message: Message) {
        let _ = self.inbox.send(message);
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// Ends the loop once it has taken what was posted.
    pub(crate) fn close(&self) {
        self.inbox.close();
    }

    /// Starts the thread `job-loop`.
    pub(crate) fn start(&self, options: Options, parts: Parts, poison: &Poison) -> Result<Thread> {
        parts.graph.begin(options.schedule.label(0));
        let scheduler = self.clone();
        let generator = JobGenerator::new(options.schedule, options.batches_max);
        let jobs =
            JobSet::new(parts.graph.outputs().len(), options.concurrent_jobs, options.retries);
        let outputs = parts.graph.outputs();
        let job_loop = JobLoop {
            scheduler,
            options,
            parts,
            outputs,
            generator,
            jobs,
            draining: false,
            index: 0,
            last: None,
        };
        let started = thread::spawn("job-loop", poison, move || job_loop.run());
        started.map_err(|err| Error::io("cannot start the thread `job-loop`", err))
    }
}

/// Stores blocks and tells the tracker; the last step of the receive path.
pub(crate) struct Stored {
    pub(crate) store: Arc<BlockManager>,
    pub(crate) tracker: Arc<BlockTracker>,
    pub(crate) scheduler: Scheduler,
}

impl BlockTarget for Stored {
    fn push(&self, block: &Arc<Block>) -> Result<()> {
        self.store.put(Arc::clone(block));
        self.tracker.add(ReceivedBlock {
            id: block.id(),
            records: block.records(),
            bytes: block.bytes(),
        });
        Ok(())
    }

    fn push_now(&self, block: &Arc<Block>) -> bool {
        self.push(block).is_ok()
    }

    fn reached(&self, source: u32, time: Time) {
        self.scheduler.post(Message::Reached { source, time });
    }
}

struct JobLoop {
    scheduler: Scheduler,
    options: Options,
    parts: Parts,
    outputs: Vec<Arc<Output>>,
    generator: JobGenerator,
    jobs: JobSet<Arc<BatchInput>>,
    /// Nothing more is received; the end is told when the last batch is done.
    draining: bool,
    /// Batches allocated so far.
    index: u64,
    /// The last of them.
    last: Option<Time>,
}

impl JobLoop {
    fn run(mut self) {
        while let Some(message) = self.next() {
            match message {
                Some(message) => self.take(message),
                None => self.allocate_current(),
            }
            self.start_jobs();
        }
    }

    /// The next message, or none when the wait for an allocation is over; nothing at all when the mailbox is closed.
    fn next(&self) -> Option<Option<Message>> {
        let inbox = &self.scheduler.inbox;
        loop {
            if let Some(message) = inbox.try_recv() {
                return Some(Some(message));
            }
            if inbox.is_closed_and_empty() {
                return None;
            }
            let deadline = self.generator.deadline();
            if deadline.is_some_and(|at| self.parts.clock.now() >= at) {
                return Some(None);
            }
            self.parts.clock.wait(inbox.signal(), deadline);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Tick(time) => self.tick(time),
            Message::Reached { source, time } => {
                if self.generator.reached(source, time) == Step::Allocate {
                    self.allocate_current();
                }
            }
            Message::JobDone { job, outcome } => self.job_done(job, outcome),
            Message::Final => self.last_batch(),
            Message::Abort => {
                self.jobs.abort();
                self.draining = true;
            }
        }
    }

    fn tick(&mut self, time: Time) {
        let now = self.parts.clock.now();
        let draining = self.draining && !planted(Planted::TickAfterFinal);
        if draining || self.generator.tick(time, now, self.jobs.batches()) == Step::Skip {
            return;
        }
        // A tick while an older one still waits for its blocks: they are all cut, so the older batch takes what is here.
        if self.generator.is_waiting() {
            self.allocate_current();
        }
        let mut pending = Vec::new();
        for (source, cutter) in &self.parts.cutters {
            match cutter.cut_for(time) {
                Cut::Pending => pending.push(*source),
                Cut::Settled | Cut::Held => {}
            }
        }
        let deadline = now.plus(self.options.allocate_wait);
        if self.generator.wait_for(time, pending, deadline) == Step::Allocate {
            self.allocate_current();
        }
    }

    fn allocate_current(&mut self) {
        if let Some(time) = self.generator.allocated() {
            let due = self.options.schedule.due_at_label(time);
            self.allocate(time, due);
        }
    }

    fn allocate(&mut self, time: Time, due: Moment) {
        let allocation = self.parts.tracker.allocate(time);
        let records: u64 = allocation.iter().flatten().map(|block| block.records).sum();
        let must_run = || self.parts.graph.must_run(self.last, time);
        if self.options.skip_empty && records == 0 && !must_run() {
            self.parts.tracker.commit(time);
            return;
        }
        let blocks = allocation.iter().map(|blocks| {
            let held = |id| {
                self.parts.store.get(id).expect("a block is kept until its batch is committed")
            };
            blocks.iter().map(|block| held(block.id)).collect()
        });
        let input = BatchInput {
            time,
            index: self.index,
            blocks: blocks.collect(),
            records,
            due,
            partitions: self.parts.workers.workers(),
        };
        self.index += 1;
        self.last = Some(time);
        let mut progress = self.scheduler.progress.lock();
        progress.batches_waiting += 1;
        progress.records_waiting += records;
        drop(progress);
        self.jobs.admit(time, Arc::new(input));
        if self.jobs.is_without_jobs() {
            self.batch_done(time);
        }
    }

    /// The stop: what was received and not planned is the last batch, under the next tick's time.
    fn last_batch(&mut self) {
        self.draining = true;
        if !planted(Planted::FinalForgetsWaitingTick) {
            self.allocate_current();
        }
        let (blocks, _) = self.parts.tracker.unallocated();
        if (blocks > 0 || self.index == 0)
            && let Some(time) = self.generator.last_time()
        {
            self.allocate(time, self.parts.clock.now());
        }
        self.tell_if_drained();
    }

    fn start_jobs(&mut self) {
        while let Some((job, input)) = self.jobs.next() {
            let started = self.parts.clock.now();
            self.jobs.started(job, started);
            let scheduler = self.scheduler.clone();
            let done = move |outcome| scheduler.post(Message::JobDone { job, outcome });
            match self.outputs[job.output].plan(&input, &self.parts.clock, started) {
                Ok(plan) => batch::run(plan, &self.parts.workers, Box::new(done)),
                Err(cause) => done(Err(cause)),
            }
        }
    }

    fn job_done(&mut self, job: JobRef, outcome: Result<(), String>) {
        match self.jobs.ended(job, outcome) {
            Verdict::BatchDone => self.batch_done(job.time),
            Verdict::MoreJobs => {}
            Verdict::Retry { attempt, cause } => {
                let name = self.outputs[job.output].name().to_owned();
                self.parts.events.post(Event::JobRetried {
                    time: job.time,
                    job: name,
                    attempt,
                    cause,
                });
            }
            Verdict::Failed { attempts, cause } => {
                let name = self.outputs[job.output].name().to_owned();
                self.parts.graph.abandon(job.time);
                self.jobs.abort();
                self.draining = true;
                let time_ms = job.time.as_millis();
                (self.parts.tell)(Told::Fatal(Error::Batch {
                    time_ms,
                    job: name,
                    attempts,
                    cause,
                }));
            }
        }
    }

    fn batch_done(&mut self, time: Time) {
        let Some((input, first_start)) = self.jobs.finish(time) else { return };
        self.parts.graph.commit(time);
        self.parts.store.release(self.parts.tracker.commit(time));
        let (records, due) = (input.records, input.due);
        drop(input);
        self.parts.pool.trim();
        let now = self.parts.clock.now();
        let mut progress = self.scheduler.progress.lock();
        progress.batches += 1;
        progress.records += records;
        progress.batches_waiting -= 1;
        progress.records_waiting -= records;
        let done = progress.batches;
        drop(progress);
        let start = first_start.unwrap_or(now);
        self.parts.events.post(Event::BatchCompleted {
            time,
            records,
            scheduling_delay: start.since(due),
            processing: now.since(start),
        });
        if self.parts.tell_batches {
            (self.parts.tell)(Told::BatchDone);
        }
        if self.options.batches_max == Some(done) {
            (self.parts.tell)(Told::BatchesReached);
        }
        self.tell_if_drained();
    }

    fn tell_if_drained(&self) {
        // After a failure nothing more is started, so what waits would never end.
        let ended = self.jobs.batches() == 0 || self.jobs.is_aborted();
        if self.draining && (ended || planted(Planted::DrainedTooEarly)) {
            (self.parts.tell)(Told::Drained);
        }
    }
}
