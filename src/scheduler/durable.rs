//! What the job loop does with a log: plans are durable before their batches run, batches of an earlier run come first.
//!
//! ```text
//!  allocate ─▶ waiting ─(one record, one sync)─▶ ready ─┐
//!  start: planned and not covered ─▶ replays ───────────┴─▶ jobs, in order ─▶ committed ─▶ checkpoint now and then
//! ```
//! One record of plans is on its way at a time and takes every batch that waits, so that a batch is never durable before
//! an earlier one. The receipt only posts. Runs on the thread `job-loop`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Direct, JobLoop, Message, Scheduler, direct};
use crate::dstream::BatchInput;
use crate::error::{Error, Result};
use crate::journal::{ChunkRange, Covered, Found, Journal, Plan, Replay};
use crate::receiver::chunks::EngineLog;
use crate::store::StoredBlock;
use crate::sync::{Arc, Mutex};
use crate::time::{Moment, Time};
use crate::wal::NotLogged;

/// A checkpoint is due after so many batches,
const CHECKPOINT_BATCHES: u64 = 10;

/// and this long after the last one.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(1);

/// Wait after plans that found no room on the disk, before they are appended again.
const PLAN_RETRY: Duration = Duration::from_millis(200);

/// What the job loop is given of a start with a log.
pub(crate) struct Recovery {
    pub(crate) journal: Arc<Journal>,
    pub(crate) found: Found,
    /// The first tick of the first start: slides are counted from there.
    pub(crate) anchor: Time,
}

/// What became of the plans that are on their way.
type Outcome = Arc<Mutex<Option<Result<(), NotLogged>>>>;

/// See the module.
pub(super) struct Durable {
    journal: Arc<Journal>,
    replays: VecDeque<Replay>,
    /// Have their blocks; not in the log.
    waiting: VecDeque<Arc<BatchInput>>,
    /// How many of those are on their way to the log.
    on_the_way: Option<(usize, Outcome)>,
    /// In the log; wait for the batches that run again.
    ready: VecDeque<Arc<BatchInput>>,
    retry_at: Option<Moment>,
    /// What a checkpoint would cover now.
    covered: Covered,
    chunks: BTreeMap<u32, u64>,
    /// Batches done since the last checkpoint.
    since: u64,
    checkpoint_at: Moment,
    /// Whether a batch leaves nothing behind that the next one needs.
    stateless: bool,
    /// The seed of every hash.
    seed: u64,
}

impl Durable {
    pub(super) fn new(recovery: &mut Recovery, now: Moment, stateless: bool) -> Self {
        let covered = recovery.found.covered.clone();
        Durable {
            journal: Arc::clone(&recovery.journal),
            replays: std::mem::take(&mut recovery.found.replays).into(),
            waiting: VecDeque::new(),
            on_the_way: None,
            ready: VecDeque::new(),
            retry_at: None,
            chunks: covered.chunks.iter().copied().collect(),
            covered,
            since: 0,
            checkpoint_at: now.plus(CHECKPOINT_PAUSE),
            stateless,
            seed: recovery.found.seed,
        }
    }

    /// A batch has its blocks: it runs once its plan is in the log.
    pub(super) fn allocated(&mut self, input: Arc<BatchInput>) {
        self.waiting.push_back(input);
    }

    /// Batches that do not run yet.
    pub(super) fn batches(&self) -> usize {
        self.replays.len() + self.waiting.len() + self.ready.len()
    }

    /// When refused plans are appended again.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.retry_at
    }

    /// Takes the fate of the plans on their way, and appends those that wait.
    pub(super) fn advance(&mut self, now: Moment, scheduler: &Scheduler) {
        let outcome = self.on_the_way.as_ref().and_then(|(_, outcome)| outcome.lock().take());
        if let (Some(outcome), Some((count, _))) = (outcome, &self.on_the_way) {
            match outcome {
                Ok(()) => self.ready.extend(self.waiting.drain(..count)),
                Err(NotLogged::Retry(_)) => self.retry_at = Some(now.plus(PLAN_RETRY)),
                // The log has poisoned the engine.
                Err(NotLogged::Failed(_)) => {}
            }
            self.on_the_way = None;
        }
        let resting = self.retry_at.is_some_and(|at| now < at);
        if self.on_the_way.is_none() && !self.waiting.is_empty() && !resting {
            self.retry_at = None;
            self.append(scheduler);
        }
    }

    fn append(&mut self, scheduler: &Scheduler) {
        let plans: Vec<Plan> = self.waiting.iter().map(|input| self.plan(input)).collect();
        let outcome = Outcome::default();
        let (told, scheduler) = (Arc::clone(&outcome), scheduler.clone());
        let receipt = move |result| {
            *told.lock() = Some(result);
            // A loop with a full mailbox looks after each message anyway.
            scheduler.nudge(Message::Planned);
        };
        self.on_the_way = Some((plans.len(), outcome));
        // A log that has ended has poisoned the engine: the batches wait until the stop gives them up.
        let _ = self.journal.plan(&plans, Box::new(receipt));
    }

    fn plan(&self, input: &BatchInput) -> Plan {
        let blocks = (0..).zip(&input.blocks).filter(|(_, blocks)| !blocks.is_empty());
        let blocks = blocks.map(|(source, blocks)| {
            let chunks = blocks.iter().map(|block| block.chunks()).collect();
            (self.journal.number_of(source), chunks)
        });
        let ranges = input
            .direct
            .iter()
            .map(|(source, planned)| (self.journal.number_of(*source), planned.plan.clone()));
        Plan {
            index: input.index,
            time: input.time.as_millis(),
            partitions: input.partitions as u64,
            seed: self.seed,
            blocks: blocks.collect(),
            ranges: ranges.collect(),
        }
    }

    /// The next batch that may run, if `running` do.
    pub(super) fn next(
        &mut self,
        running: usize,
        (sources, direct): (usize, &mut [Direct]),
        now: Moment,
    ) -> Result<Option<Ready>> {
        while running == 0
            && let Some(replay) = self.replays.pop_front()
        {
            // What such a batch made is with the sinks, and nobody else needs it.
            let input = self.input(&replay.plan, (sources, direct), now)?;
            if replay.committed && self.stateless {
                direct::committed(direct, &input);
                self.cover(&replay.plan);
                continue;
            }
            return Ok(Some(Ready::Again(input)));
        }
        match self.replays.is_empty() {
            true => Ok(self.ready.pop_front().map(Ready::Live)),
            false => Ok(None),
        }
    }

    /// What a batch of an earlier run is made of; its records stay in the log until a task reads them.
    fn input(
        &self,
        plan: &Plan,
        (sources, direct): (usize, &[Direct]),
        now: Moment,
    ) -> Result<Arc<BatchInput>> {
        let mut blocks: Vec<Vec<Arc<StoredBlock>>> = vec![Vec::new(); sources];
        for (number, chunks) in &plan.blocks {
            let source = self.journal.source_of(*number).ok_or_else(|| gone(*number))?;
            let read = |chunks: &ChunkRange| self.journal.block(source, chunks.clone());
            let of = usize::try_from(source).ok().and_then(|source| blocks.get_mut(source));
            *of.ok_or_else(|| gone(*number))? = chunks.iter().map(read).collect::<Result<_>>()?;
        }
        let mut ranges = BTreeMap::new();
        for (number, bytes) in &plan.ranges {
            let source = self.journal.source_of(*number);
            let of = direct.iter().find(|direct| Some(direct.number) == source);
            let of = of.ok_or_else(|| gone(*number))?;
            ranges.insert(of.number, of.read(bytes.clone())?);
        }
        let records = blocks.iter().flatten().map(|block| block.records()).sum();
        Ok(Arc::new(BatchInput {
            time: plan.time(),
            index: plan.index,
            blocks,
            direct: ranges,
            records,
            due: now,
            partitions: usize::try_from(plan.partitions).unwrap_or(1),
        }))
    }

    /// A batch is done.
    pub(super) fn committed(&mut self, input: &BatchInput) {
        let plan = self.plan(input);
        self.journal.committed(plan.index, plan.time);
        self.cover(&plan);
        self.since += 1;
    }

    fn cover(&mut self, plan: &Plan) {
        for (source, blocks) in &plan.blocks {
            let end = blocks.iter().map(|chunks| chunks.end).max().unwrap_or(0);
            let covered = self.chunks.entry(*source).or_default();
            *covered = (*covered).max(end);
        }
        self.covered.next_index = self.covered.next_index.max(plan.index.saturating_add(1));
        self.covered.last_time = self.covered.last_time.max(Some(plan.time));
    }

    /// Asks for a checkpoint if one is due.
    pub(super) fn checkpoint_if_due(&mut self, now: Moment, direct: &[Direct]) {
        let due = self.since >= CHECKPOINT_BATCHES && now >= self.checkpoint_at;
        if due
            && self.stateless
            && !self.journal.is_checkpointing()
            && self.journal.checkpoint(self.snapshot(direct))
        {
            self.since = 0;
            self.checkpoint_at = now.plus(CHECKPOINT_PAUSE);
        }
    }

    /// The stop: the last checkpoint, behind the one that may be on its way.
    pub(super) fn finish(&mut self, direct: &[Direct]) {
        if self.since > 0 && self.stateless {
            self.journal.last_checkpoint(self.snapshot(direct));
        }
    }

    fn snapshot(&self, direct: &[Direct]) -> Covered {
        let position =
            |direct: &Direct| (self.journal.number_of(direct.number), direct.source.snapshot());
        Covered {
            ranges: direct.iter().map(position).collect(),
            chunks: self.chunks.iter().map(|(source, end)| (*source, *end)).collect(),
            ..self.covered.clone()
        }
    }
}

/// A batch that may run.
pub(super) enum Ready {
    /// Planned in this run.
    Live(Arc<BatchInput>),
    /// Planned in an earlier one.
    Again(Arc<BatchInput>),
}

fn gone(number: u32) -> Error {
    Error::Failed(format!("source {number} of the log is not a source of this program"))
}

impl Recovery {
    /// The log, for the receivers.
    pub(crate) fn log(&self) -> EngineLog {
        EngineLog {
            journal: Arc::clone(&self.journal),
            next_chunks: self.found.next_chunks.clone().into(),
        }
    }
}

impl JobLoop {
    /// Batches that are not done, those that wait for the log included.
    pub(super) fn batches(&self) -> usize {
        self.jobs.batches() + self.durable.as_ref().map_or(0, Durable::batches)
    }

    /// With a log: lets plans become durable, and batches run whose plans are.
    pub(super) fn advance(&mut self) {
        let now = self.parts.clock.now();
        while let Some(durable) = &mut self.durable {
            durable.advance(now, &self.scheduler);
            if self.jobs.is_aborted() {
                return;
            }
            let sources = self.parts.cutters.len() + self.parts.direct.len();
            let direct = self.parts.direct.as_mut_slice();
            match durable.next(self.jobs.batches(), (sources, direct), now) {
                Ok(Some(Ready::Live(input))) => self.admit(input),
                Ok(Some(Ready::Again(input))) => {
                    self.count_waiting(&input);
                    self.admit(input);
                }
                Ok(None) => return,
                Err(err) => return self.stop_for(err),
            }
        }
    }
}
