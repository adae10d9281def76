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

use super::checkpoints::Checkpoints;
use super::direct_sources::Reader;
use super::{Message, Scheduler};
use crate::blocks::manager::StoredBlock;
use crate::error::{Error, Result};
use crate::journal::{
    self, ChunkRange, CommitOutcome, CommitRecords, Committed, Covered, Found, Journal,
    LoggedCommit, Parts, Plan, Reach, Run, base,
};
use crate::owner::{BatchId, Output};
use crate::source::direct::{Losses, Lost, OnLost, Planned, Purpose};
use crate::source::ingest::chunk_log::{CHUNK_BYTES_MAX, EngineLog};
use crate::stream::{BatchInput, Graph, Replay};
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, Mutex};
use crate::time::{Moment, Time};
use crate::wal::NotLogged;

/// Wait after plans that found no room on the disk, before they are appended again.
const PLAN_RETRY: Duration = Duration::from_millis(200);

/// What the job loop is given of a start with a log.
pub(crate) struct Recovery {
    pub(crate) journal: Arc<Journal>,
    pub(crate) found: Found,
    /// The first tick of the first start: slides are counted from there.
    pub(crate) anchor: Time,
    /// What direct sources no longer have of the batches that run again.
    pub(crate) lost: LostInput,
}

/// What direct sources no longer have of the batches that run again.
#[derive(Debug, Default)]
pub(crate) struct LostInput {
    /// By the batch's index and the source's number in the program. What is here was reported.
    pub(crate) known: BTreeMap<(u64, u32), Vec<Lost>>,
    /// What was reported and is to be counted: the source's number, bytes, whether they were processed before.
    pub(crate) bytes: Vec<(u32, u64, bool)>,
    /// The batches of earlier runs go on without what is lost, whatever the source says.
    pub(crate) given_up: bool,
}

/// What became of the records that are on their way, and who tells it.
type Outcome<T> = Arc<Mutex<Option<T>>>;
type Receipt<T> = Box<dyn FnOnce(T) + Send>;

/// What became of plans.
type PlansOutcome = Result<(), NotLogged>;

/// See the module.
pub(super) struct Durable {
    journal: Arc<Journal>,
    replays: VecDeque<journal::Replay>,
    /// Have their blocks; not in the log.
    waiting: VecDeque<Arc<BatchInput>>,
    /// How many of those are on their way to the log.
    on_the_way: Option<(usize, Outcome<PlansOutcome>)>,
    /// In the log; wait for the batches that run again.
    ready: VecDeque<Arc<BatchInput>>,
    retry_at: Option<Moment>,
    /// The batch that runs again now for what operators keep of it.
    rebuilding: Option<(Time, Replay)>,
    /// What the newest checkpoint covers.
    base: Covered,
    /// The direct sources.
    direct: Vec<Reader>,
    lost: LostInput,
    /// The batches that are committed and not covered, in order.
    done: VecDeque<Done>,
    /// Commits with changes of states that are on their way to the log, in order.
    commits: VecDeque<Commit>,
    /// Of each state of the program its number in the log.
    places: Vec<u32>,
    /// How far outputs had come when the last batch was committed.
    outputs: Vec<Output>,
    checkpoints: Checkpoints,
    reach: Reach,
    /// The seed of every hash.
    seed: u64,
    /// How many workers there are: for a planted defect.
    workers: usize,
}

/// A batch that is committed.
#[derive(Debug)]
struct Done {
    commit: Committed,
    /// Of each source of the log the number behind its last chunk.
    ends: Vec<(u32, u64)>,
    /// What it took of each direct source of the log; empty once that is covered.
    ranges: Vec<(u32, Vec<u8>)>,
}

/// A commit on its way to the log.
struct Commit {
    index: u64,
    /// Those that are to be appended: for the first time, or again after they were refused for want of room.
    records: Option<CommitRecords>,
    outcome: Outcome<CommitOutcome>,
}

impl Commit {
    fn is_durable(&self) -> bool {
        matches!(*self.outcome.lock(), Some(Ok(())))
    }
}

impl Durable {
    pub(super) fn new(
        recovery: &mut Recovery,
        now: Moment,
        graph: &Graph,
        direct: Vec<Reader>,
        workers: usize,
    ) -> Self {
        let found = &mut recovery.found;
        let places = found.continued.names.numbers.states.clone();
        let first_again = found.resume.replays.iter().find(|replay| replay.run == Run::Again);
        let live = first_again.map_or(found.next_index, |replay| replay.plan.index);
        let done = |(index, commit): (&u64, &LoggedCommit)| Done {
            commit: commit.record,
            ends: found.plans.get(index).map(ends).unwrap_or_default(),
            ranges: found.plans.get(index).map(|plan| plan.ranges.clone()).unwrap_or_default(),
        };
        Durable {
            journal: Arc::clone(&recovery.journal),
            direct,
            lost: std::mem::take(&mut recovery.lost),
            done: found.commits.range(..live).map(done).collect(),
            replays: std::mem::take(&mut found.resume.replays).into(),
            waiting: VecDeque::new(),
            on_the_way: None,
            ready: VecDeque::new(),
            retry_at: None,
            rebuilding: None,
            base: found.covered.clone(),
            commits: VecDeque::new(),
            outputs: Vec::new(),
            places,
            checkpoints: Checkpoints::new(now),
            reach: reach(graph),
            seed: found.seed,
            workers,
        }
    }

    /// What makes a batch of this start the one that it is.
    pub(super) fn id(&self, input: &BatchInput) -> BatchId {
        let digest = self.plan(input).digest();
        BatchId { state: self.journal.identity(), run: self.journal.run(), digest }
    }

    /// A batch has its blocks: it runs once its plan is in the log.
    pub(super) fn allocated(&mut self, input: Arc<BatchInput>) {
        if planted(Planted::RunsBeforePlan) {
            self.ready.push_back(Arc::clone(&input));
        }
        self.waiting.push_back(input);
    }

    /// Batches that do not run yet.
    pub(super) fn batches(&self) -> usize {
        self.replays.len() + self.waiting.len() + self.ready.len()
    }

    /// When there is something to do without a message: refused records are appended again, or the log is short of room.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let short = self.is_short().then(|| self.checkpoints.due_while_short());
        self.retry_at.into_iter().chain(short).min()
    }

    /// Whether the log refuses input for want of room.
    pub(super) fn is_short(&self) -> bool {
        self.journal.shortage().is_some()
    }

    /// Takes the fate of the plans on their way, and appends those that wait. `running`: batches whose plans are durable
    /// and that are not done; none if the stream has failed. Then nothing more is planned, and nothing while windows and states
    /// are made again: a start that ends there, because they are too large, leaves to the next one what it found.
    pub(super) fn advance(
        &mut self,
        now: Moment,
        running: Option<usize>,
        scheduler: &Scheduler,
    ) -> Result<()> {
        self.settle_commits(now);
        let outcome = self.on_the_way.as_ref().and_then(|(_, outcome)| outcome.lock().take());
        if let (Some(outcome), Some((count, _))) = (outcome, &self.on_the_way) {
            match outcome {
                Ok(()) if planted(Planted::RunsBeforePlan) => drop(self.waiting.drain(..count)),
                Ok(()) => self.ready.extend(self.waiting.drain(..count)),
                Err(NotLogged::Retry(_)) => self.retry_at = Some(now.plus(PLAN_RETRY)),
                // The log has poisoned the engine.
                Err(NotLogged::Failed(_)) => {}
            }
            self.on_the_way = None;
        }
        self.checkpoint_while_short(now);
        if self.retry_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.retry_at = None;
        self.append_commits(scheduler);
        if let Some(running) = running
            && self.on_the_way.is_none()
            && !self.waiting.is_empty()
            && !self.is_rebuilding()
        {
            self.append(running, scheduler)?;
        }
        Ok(())
    }

    /// Whether batches run again for what operators keep of them, or are about to.
    fn is_rebuilding(&self) -> bool {
        let rebuilds = |replay: &journal::Replay| replay.run != Run::Again;
        self.rebuilding.is_some() || self.replays.iter().any(rebuilds)
    }

    /// Appends the plans that wait. Without room for more than what ends batches it is one, once none runs: what is planned
    /// must not take the room that its end needs.
    fn append(&mut self, running: usize, scheduler: &Scheduler) -> Result<()> {
        let is_busy = running > 0 || !self.ready.is_empty() || !self.replays.is_empty();
        let most = match self.is_short() {
            true if is_busy => return Ok(()),
            true => 1,
            false => self.waiting.len(),
        };
        let plans: Vec<Plan> =
            self.waiting.iter().take(most).map(|input| self.plan(input)).collect();
        let (outcome, receipt) = told(scheduler);
        self.on_the_way = Some((self.journal.plan(&plans, receipt)?, outcome));
        Ok(())
    }

    fn plan(&self, input: &BatchInput) -> Plan {
        let blocks = (0..).zip(&input.blocks).filter(|(_, blocks)| !blocks.is_empty());
        let blocks = blocks.map(|(source, blocks)| {
            let chunks = blocks.iter().map(|block| block.info.chunks.clone()).collect();
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
            run: input.id.run,
        }
    }

    /// The next batch that may run, if `running` do.
    pub(super) fn next(
        &mut self,
        running: usize,
        sources: usize,
        now: Moment,
    ) -> Result<Option<Ready>> {
        if running == 0
            && let Some(replay) = self.replays.pop_front()
        {
            let input = self.input(&replay, sources, now)?;
            let how = match replay.run {
                Run::Again => return Ok(Some(Ready::Again(input))),
                Run::ForWindows => Replay::Windows,
                Run::ForStates => Replay::States,
            };
            self.rebuilding = Some((input.time, how));
            return Ok(Some(Ready::Rebuild(input)));
        }
        match self.replays.is_empty() {
            true => Ok(self.ready.pop_front().map(Ready::Live)),
            false => Ok(None),
        }
    }

    /// How the batch `time` runs again, if it only runs for what operators keep of it.
    pub(super) fn rebuilds(&self, time: Time) -> Option<Replay> {
        self.rebuilding.filter(|(rebuilding, _)| *rebuilding == time).map(|(_, how)| how)
    }

    /// Such a batch is done.
    pub(super) fn was_rebuilt(&mut self) {
        self.rebuilding = None;
    }

    /// What a batch of an earlier run is made of; its records stay in the log until a task reads them.
    fn input(
        &mut self,
        journal::Replay { plan, run }: &journal::Replay,
        sources: usize,
        now: Moment,
    ) -> Result<Arc<BatchInput>> {
        let mut blocks: Vec<Vec<Arc<StoredBlock>>> = vec![Vec::new(); sources];
        for (number, chunks) in &plan.blocks {
            let Some(source) = self.source_of(*number)? else { continue };
            let read = |chunks: &ChunkRange| self.journal.block(source, chunks.clone());
            let of = usize::try_from(source).ok().and_then(|source| blocks.get_mut(source));
            *of.ok_or_else(|| gone(*number))? = chunks.iter().map(read).collect::<Result<_>>()?;
        }
        // A source that is new had nothing in it, which is not the same as no batch.
        let new =
            self.direct.iter().filter(|direct| self.journal.begins(direct.number) > plan.index);
        let mut ranges: BTreeMap<u32, Planned> =
            new.map(|direct| (direct.number, Planned::default())).collect();
        for (number, bytes) in &plan.ranges {
            let Some(source) = self.source_of(*number)? else { continue };
            let of = self.direct.iter().find(|direct| direct.number == source);
            let of = of.ok_or_else(|| gone(*number))?;
            let known = self.lost.known.remove(&(plan.index, of.number)).unwrap_or_default();
            let (purpose, on_lost) = match run {
                Run::Again if self.lost.given_up => (Purpose::Process, OnLost::Skip),
                Run::Again => (Purpose::Process, of.source.on_lost()),
                Run::ForWindows | Run::ForStates => (Purpose::Rebuild, OnLost::Skip),
            };
            let losses = Losses::new(&of.name, purpose, on_lost, known);
            ranges.insert(of.number, of.read(bytes.clone(), losses)?);
        }
        let records = blocks.iter().flatten().map(|block| block.info.records).sum();
        let partitions = match planted(Planted::ReplayTakesWorkers) {
            true => self.workers,
            false => usize::try_from(plan.partitions).unwrap_or(1),
        };
        Ok(Arc::new(BatchInput {
            time: plan.time(),
            index: plan.index,
            blocks,
            direct: ranges,
            records,
            due: now,
            partitions,
            id: BatchId { state: self.journal.identity(), run: plan.run, digest: plan.digest() },
        }))
    }

    /// The source of the program that has this number in the log; none if the program does not go on with it: what a batch
    /// took of it is passed over.
    fn source_of(&self, number: u32) -> Result<Option<u32>> {
        match self.journal.source_of(number) {
            None if self.journal.knows_source(number) => Ok(None),
            None => Err(gone(number)),
            source => Ok(source),
        }
    }

    /// A batch is done.
    ///
    /// # Errors
    /// If what it changed in states is more than the log takes at once.
    pub(super) fn committed(
        &mut self,
        input: &BatchInput,
        graph: &Graph,
        scheduler: &Scheduler,
    ) -> Result<()> {
        graph.hurry_walks(self.is_short());
        let changes = graph.changes(input.time, input.block_bytes()).unwrap_or_default();
        let place = |state: u32| {
            let at = usize::try_from(state).ok().and_then(|at| self.places.get(at));
            at.copied().unwrap_or(u32::MAX)
        };
        let parts: Parts =
            changes.parts.into_iter().map(|(state, part)| (place(state), part)).collect();
        let record = Committed {
            index: input.index,
            time: input.time.as_millis(),
            changed: 0,
            walk_begins: changes.walk_begins,
            walk_ends: changes.walk_ends,
        };
        self.journal.keep_room_for_states(graph.walk_bytes());
        self.reached(graph);
        let plan = self.plan(input);
        self.done.push_back(Done { commit: record, ends: ends(&plan), ranges: plan.ranges });
        self.checkpoints.batch_done();
        let records = self.journal.commit(record, &parts)?;
        if self.reach.stateless {
            self.journal.append_commit(records, Box::new(|_| ()));
            return Ok(());
        }
        let (index, outcome) = (record.index, Outcome::default());
        self.commits.push_back(Commit { index, records: Some(records), outcome });
        self.append_commits(scheduler);
        Ok(())
    }

    /// Says how far outputs have come, where that is news.
    fn reached(&mut self, graph: &Graph) {
        let mut outputs: Vec<Output> =
            graph.sinks().iter().filter_map(|sink| sink.output()).collect();
        outputs.retain(|output| !self.outputs.contains(output));
        if !outputs.is_empty() {
            self.journal.reached(&outputs);
            Output::merge(&mut self.outputs, &outputs);
        }
    }

    /// Appends the commits that are not on their way.
    fn append_commits(&mut self, scheduler: &Scheduler) {
        for commit in &mut self.commits {
            if let Some(records) = commit.records.take() {
                let (outcome, receipt) = told(scheduler);
                commit.outcome = outcome;
                self.journal.append_commit(records, receipt);
            }
        }
    }

    /// Takes the fate of the commits on their way.
    fn settle_commits(&mut self, now: Moment) {
        for commit in &mut self.commits {
            let refused = commit.outcome.lock().take_if(|outcome| outcome.is_err());
            // Of a log that has ended the engine is told.
            if let Some(Err((records, NotLogged::Retry(_)))) = refused {
                commit.records = Some(records);
                self.retry_at.get_or_insert(now.plus(PLAN_RETRY));
            }
        }
        while self.commits.front().is_some_and(Commit::is_durable) {
            self.commits.pop_front();
        }
    }

    /// Asks for a checkpoint if one is due.
    pub(super) fn checkpoint_if_due(&mut self, now: Moment) {
        if !self.checkpoints.is_due(now, self.is_short()) {
            return;
        }
        if self.journal.is_checkpointing() {
            return self.checkpoints.put_off(now);
        }
        self.cover();
        if self.journal.checkpoint(self.base.clone()) {
            self.checkpoints.asked(now);
        }
    }

    /// Without room for input: lets go what can be let go, and looks whether somebody else has made room.
    fn checkpoint_while_short(&mut self, now: Moment) {
        if self.is_short() && now >= self.checkpoints.due_while_short() {
            self.checkpoint_if_due(now);
            self.journal.look_for_room();
        }
    }

    /// The stop: the last checkpoint, behind the one that may be on its way.
    pub(super) fn finish(&mut self) {
        if self.checkpoints.is_behind() {
            self.cover();
            self.journal.last_checkpoint(self.base.clone());
        }
    }

    /// Moves what a checkpoint covers as far as it may go: what windows and states are made of is not covered.
    fn cover(&mut self) {
        let durable = self.commits.front().map_or(u64::MAX, |commit| commit.index);
        let done: Vec<(u64, u64)> = self
            .done
            .iter()
            .map(|done| (done.commit.index, done.commit.time))
            .take_while(|(index, _)| *index < durable)
            .collect();
        let all = done.last().map(|(index, _)| (*index, index + 1));
        let Some((state, first)) =
            (if self.reach.stateless { all } else { base(&done, self.reach) })
        else {
            return;
        };
        for done in self.done.iter_mut().filter(|done| done.commit.index < first) {
            for (source, plan) in std::mem::take(&mut done.ranges) {
                let own = self.journal.source_of(source);
                let of = self.direct.iter().find(|direct| Some(direct.number) == own);
                of.into_iter().for_each(|direct| direct.commit(&plan));
            }
            for (source, end) in &done.ends {
                match self.base.chunks.iter_mut().find(|(of, _)| of == source) {
                    Some((_, covered)) => *covered = (*covered).max(*end),
                    None => self.base.chunks.push((*source, *end)),
                }
            }
            self.base.last_time = self.base.last_time.max(Some(done.commit.time));
        }
        let first = first + u64::from(planted(Planted::CoversTooMuch));
        let position =
            |direct: &Reader| (self.journal.number_of(direct.number), direct.source.snapshot());
        self.base.ranges = self.direct.iter().map(position).collect();
        self.base.next_index = self.base.next_index.max(first);
        self.base.state_from = self.state_from(state).max(self.base.state_from);
        let needed = self.base.next_index.min(self.base.state_from);
        self.done.retain(|done| done.commit.index >= needed);
    }

    /// From where on changes make the states as they were after the batch `state`.
    fn state_from(&self, state: u64) -> u64 {
        if self.places.is_empty() {
            return self.base.next_index;
        }
        let done = || self.done.iter().map(|done| &done.commit).rev();
        let end = done().find(|commit| commit.index <= state && commit.walk_ends);
        let walk = end
            .and_then(|end| done().find(|commit| commit.index <= end.index && commit.walk_begins));
        walk.map_or(self.base.state_from, |commit| commit.index)
    }
}

/// Where the fate of records is told, and who tells it.
fn told<T: Send + 'static>(scheduler: &Scheduler) -> (Outcome<T>, Receipt<T>) {
    let outcome: Outcome<T> = Arc::default();
    let (told, scheduler) = (Arc::clone(&outcome), scheduler.clone());
    let receipt = move |result| {
        *told.lock() = Some(result);
        // A loop with a full mailbox looks after each message anyway.
        scheduler.nudge(Message::Planned);
    };
    (outcome, Box::new(receipt))
}

/// Of each source the number behind the last chunk of a batch.
fn ends(plan: &Plan) -> Vec<(u32, u64)> {
    let end = |(source, blocks): &(u32, Vec<ChunkRange>)| {
        (*source, blocks.iter().map(|chunks| chunks.end).max().unwrap_or(0))
    };
    plan.blocks.iter().map(end).collect()
}

/// How far back the program needs batches.
pub(crate) fn reach(graph: &Graph) -> Reach {
    let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    Reach {
        stateless: graph.is_stateless(),
        windows: millis(graph.longest_window()),
        below_states: millis(graph.longest_window_below_state()),
    }
}

/// A batch that may run.
pub(super) enum Ready {
    /// Planned in this run.
    Live(Arc<BatchInput>),
    /// Planned in an earlier one.
    Again(Arc<BatchInput>),
    /// Done in an earlier one: only for what operators keep of it.
    Rebuild(Arc<BatchInput>),
}

fn gone(number: u32) -> Error {
    Error::Failed(format!("the log knows no source with the number {number}"))
}

impl Recovery {
    /// The log, for the receivers.
    pub(crate) fn log(&self) -> EngineLog {
        EngineLog {
            journal: Arc::clone(&self.journal),
            next_chunks: self.found.next_chunks.clone().into(),
            chunk_bytes_max: CHUNK_BYTES_MAX.min(self.journal.segment_bytes() / 4),
        }
    }
}
