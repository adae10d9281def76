//! `BatchLog`: the batches of a stream with a log. Plans and commits go to the journal and checkpoints are asked for as
//! [`Durability`] decides; this file reports events and obeys. A receipt of the journal only posts. Runs on the thread
//! `job-loop`.

use std::collections::BTreeMap;

use super::coverage::{Coverage, Done};
use super::direct_sources::Reader;
use super::durability::{Action, Durability, Event, LogState};
use super::recovery::{EarlierBatches, Recovery, reach};
use super::{JobLoop, Message, Parts, Scheduler};
use crate::error::Result;
use crate::journal::{self, CommitOutcome, CommitRecords, Committed, Journal, Plan, Run};
use crate::owner::{BatchId, Output};
use crate::stream::{BatchInput, Graph, Replay};
use crate::sync::{Arc, Mutex};
use crate::time::{Moment, Time};
use crate::wal::NotLogged;

/// See the module.
pub(super) struct BatchLog {
    journal: Arc<Journal>,
    durability: Durability<Arc<BatchInput>>,
    coverage: Coverage,
    earlier: EarlierBatches,
    receipts: Receipts,
    /// The records of commits that must be appended: for the first time, or again after they were refused.
    commits: BTreeMap<u64, CommitRecords>,
    /// For each state of the program, its number in the log.
    states: Vec<u32>,
    /// The positions of the outputs when the last batch was committed.
    outputs: Vec<Output>,
    /// The seed of every hash.
    seed: u64,
}

/// Receipts of the journal that the loop has not taken, and the way to wake it.
#[derive(Clone)]
struct Receipts {
    arrived: Arc<Mutex<Vec<Receipt>>>,
    scheduler: Scheduler,
}

/// The fate of records that were appended.
enum Receipt {
    Plans(std::result::Result<(), NotLogged>),
    /// The commit of this batch.
    Commit(u64, CommitOutcome),
}

/// A batch that may run.
enum Ready {
    /// Planned in this run.
    Live(Arc<BatchInput>),
    /// Planned in an earlier one.
    Again(Arc<BatchInput>),
    /// Done in an earlier one: it only rebuilds what operators keep of it.
    Rebuild(Arc<BatchInput>),
}

impl Receipts {
    fn post(&self, receipt: Receipt) {
        self.arrived.lock().push(receipt);
        // A loop with a full mailbox looks after each message anyway.
        self.scheduler.nudge(Message::Planned);
    }
}

impl BatchLog {
    /// The log that the stream was started with; `None` without one.
    pub(super) fn start(parts: &mut Parts, scheduler: &Scheduler, now: Moment) -> Option<BatchLog> {
        let recovery = parts.recovery.as_mut()?;
        let (reach, journal) = (reach(&parts.graph), Arc::clone(&recovery.journal));
        let coverage = Coverage::new(&recovery.found, reach);
        let Recovery { found, lost, .. } = recovery;
        let replays = std::mem::take(&mut found.resume.replays);
        let waker = scheduler.clone();
        // A loop with a full mailbox looks after each message anyway.
        journal.on_shortage(move || waker.nudge(Message::Planned));
        Some(BatchLog {
            durability: Durability::new(replays, reach.stateless, now),
            coverage,
            earlier: EarlierBatches {
                journal: Arc::clone(&journal),
                direct: parts.direct.iter().map(|direct| direct.reader.clone()).collect(),
                lost: std::mem::take(lost),
                sources: parts.cutters.len() + parts.direct.len(),
                workers: parts.workers.workers(),
            },
            receipts: Receipts { arrived: Arc::default(), scheduler: scheduler.clone() },
            commits: BTreeMap::new(),
            states: found.continued.names.numbers.states.clone(),
            outputs: Vec::new(),
            seed: found.seed,
            journal,
        })
    }

    /// The identity of a batch of this start.
    pub(super) fn id(&self, input: &BatchInput) -> BatchId {
        let digest = self.plan(input).digest();
        BatchId { state: self.journal.identity(), run: self.journal.run(), digest }
    }

    /// A batch has its blocks: it runs once its plan is in the log.
    pub(super) fn allocated(&mut self, input: Arc<BatchInput>) {
        self.note(Moment::default(), Event::Allocated(input));
    }

    /// The number of batches that do not run yet.
    pub(super) fn batches(&self) -> usize {
        self.durability.batches()
    }

    /// The time of the next [`advance`](JobLoop::advance) that is due without a message.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.durability.deadline(self.is_short())
    }

    /// True if the log refuses input because the disk has no room.
    pub(super) fn is_short(&self) -> bool {
        self.journal.shortage().is_some()
    }

    /// The operators that the batch `time` runs again for, if it only does that.
    pub(super) fn rebuilds(&self, time: Time) -> Option<Replay> {
        self.durability.rebuilds(time)
    }

    /// Such a batch is done.
    pub(super) fn was_rebuilt(&mut self) {
        self.note(Moment::default(), Event::Rebuilt);
    }

    /// A batch is done: appends its commit, and asks for a checkpoint if one is due.
    ///
    /// # Errors
    /// If its changes of states are more than the log takes at once.
    pub(super) fn committed(
        &mut self,
        input: &BatchInput,
        graph: &Graph,
        now: Moment,
    ) -> Result<()> {
        graph.hurry_compaction(self.is_short());
        let changes = graph.changes(input.time, input.block_bytes()).unwrap_or_default();
        let number = |state: u32| {
            let at = usize::try_from(state).ok().and_then(|at| self.states.get(at));
            at.copied().unwrap_or(u32::MAX)
        };
        let parts: journal::Parts =
            changes.parts.into_iter().map(|(state, part)| (number(state), part)).collect();
        let record = Committed {
            index: input.index,
            time: input.time.as_millis(),
            changed: 0,
            compaction_begins: changes.compaction_begins,
            compaction_ends: changes.compaction_ends,
        };
        self.journal.keep_room_for_states(graph.compaction_bytes());
        self.log_outputs(graph);
        self.coverage.batch_done(Done::new(record, self.plan(input)));
        self.commits.insert(record.index, self.journal.commit(record, &parts)?);
        let committed = Event::Committed { index: record.index, log: self.log_state() };
        let actions = self.durability.step(now, committed);
        self.obey(actions, now).map(|_| ())
    }

    /// The stop: the last checkpoint.
    pub(super) fn finish(&mut self, now: Moment) {
        let actions = self.durability.step(now, Event::Stopped);
        self.obey(actions, now).expect("a checkpoint that fails poisons the engine");
    }

    /// Takes the receipts that have arrived, appends what waits, and returns the next batch that may run. `running`: see
    /// [`Event::Look`].
    fn advance(&mut self, now: Moment, running: Option<usize>) -> Result<Option<Ready>> {
        let receipts = std::mem::take(&mut *self.receipts.arrived.lock());
        for receipt in receipts {
            if let Some(event) = self.event_of(receipt) {
                self.note(now, event);
            }
        }
        let actions = self.durability.step(now, Event::Look { running, log: self.log_state() });
        self.obey(actions, now)
    }

    fn event_of(&mut self, receipt: Receipt) -> Option<Event<Arc<BatchInput>>> {
        match receipt {
            Receipt::Plans(Ok(())) => Some(Event::PlansDurable),
            Receipt::Plans(Err(NotLogged::Retry(_))) => Some(Event::PlansRefused),
            Receipt::Plans(Err(NotLogged::Failed(_))) => Some(Event::PlansFailed),
            Receipt::Commit(index, Ok(())) => Some(Event::CommitDurable(index)),
            Receipt::Commit(index, Err((records, NotLogged::Retry(_)))) => {
                self.commits.insert(index, records);
                Some(Event::CommitRefused(index))
            }
            // The log has ended and poisoned the engine.
            Receipt::Commit(_, Err((_, NotLogged::Failed(_)))) => None,
        }
    }

    fn log_state(&self) -> LogState {
        LogState { is_short: self.is_short(), is_checkpointing: self.journal.is_checkpointing() }
    }

    /// Reports an event that nothing follows from at once.
    fn note(&mut self, now: Moment, event: Event<Arc<BatchInput>>) {
        let actions = self.durability.step(now, event);
        debug_assert!(actions.is_empty(), "actions that nobody obeys");
    }

    /// Carries out actions; returns the batch that may run, if it is one of them.
    fn obey(
        &mut self,
        actions: Vec<Action<Arc<BatchInput>>>,
        now: Moment,
    ) -> Result<Option<Ready>> {
        let mut ready = None;
        for action in actions {
            match action {
                Action::Checkpoint => {
                    self.cover();
                    if self.journal.checkpoint(self.coverage.covered()) {
                        self.note(now, Event::CheckpointAsked);
                    }
                }
                Action::LastCheckpoint => {
                    self.cover();
                    self.journal.last_checkpoint(self.coverage.covered());
                }
                Action::LookForRoom => self.journal.look_for_room(),
                Action::AppendCommit { index, is_awaited } => self.append_commit(index, is_awaited),
                Action::AppendPlans(batches) => self.append_plans(&batches, now)?,
                Action::Run(input) => ready = Some(Ready::Live(input)),
                Action::Replay(replay) => {
                    let input = self.earlier.input(&replay, now)?;
                    ready = Some(match replay.run {
                        Run::Again => Ready::Again(input),
                        Run::ForWindows | Run::ForStates => Ready::Rebuild(input),
                    });
                }
            }
        }
        Ok(ready)
    }

    fn append_commit(&mut self, index: u64, is_awaited: bool) {
        let records =
            self.commits.remove(&index).expect("a commit is appended once, or was refused");
        let receipts = self.receipts.clone();
        let receipt: journal::CommitReceipt = match is_awaited {
            true => Box::new(move |outcome| receipts.post(Receipt::Commit(index, outcome))),
            false => Box::new(|_| ()),
        };
        self.journal.append_commit(records, receipt);
    }

    fn append_plans(&mut self, batches: &[Arc<BatchInput>], now: Moment) -> Result<()> {
        let plans: Vec<Plan> = batches.iter().map(|input| self.plan(input)).collect();
        let receipts = self.receipts.clone();
        let receipt = Box::new(move |outcome| receipts.post(Receipt::Plans(outcome)));
        let count = self.journal.plan(&plans, receipt)?;
        self.note(now, Event::PlansAppended(count));
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

    /// Logs the positions of the outputs that have moved.
    fn log_outputs(&mut self, graph: &Graph) {
        let mut outputs: Vec<Output> =
            graph.sinks().iter().filter_map(|sink| sink.output()).collect();
        outputs.retain(|output| !self.outputs.contains(output));
        if !outputs.is_empty() {
            self.journal.reached(&outputs);
            Output::merge(&mut self.outputs, &outputs);
        }
    }

    /// Covers what may be covered: direct sources may forget it, and the checkpoint has their positions behind it.
    fn cover(&mut self) {
        let first_not_durable = self.durability.first_not_durable();
        let Some(released) = self.coverage.advance(first_not_durable) else { return };
        let direct = &self.earlier.direct;
        for (number, range) in released {
            let own = self.journal.source_of(number);
            let of = direct.iter().find(|direct| Some(direct.number) == own);
            of.into_iter().for_each(|direct| direct.commit(&range));
        }
        let position =
            |direct: &Reader| (self.journal.number_of(direct.number), direct.source.snapshot());
        self.coverage.set_positions(direct.iter().map(position).collect());
    }
}

impl JobLoop {
    /// The number of batches that are not done, those that wait for the log included.
    pub(super) fn batches(&self) -> usize {
        self.jobs.set.batches() + self.log.as_ref().map_or(0, BatchLog::batches)
    }

    /// With a log: lets plans become durable, and batches run whose plans are.
    pub(super) fn advance(&mut self) {
        let now = self.parts.clock.now();
        while let Some(log) = &mut self.log {
            let running = (!self.jobs.set.is_aborted()).then(|| self.jobs.set.batches());
            match log.advance(now, running) {
                Ok(Some(Ready::Live(input))) => self.admit(input, |_| true),
                Ok(Some(Ready::Rebuild(input))) => self.jobs.set.admit_one(input.time, input),
                Ok(Some(Ready::Again(input))) => {
                    self.count_waiting(&input);
                    self.admit(input, |_| true);
                }
                Ok(None) => return,
                Err(err) => return self.stop_for(err),
            }
        }
    }
}
