//! `Durability`: what a batch with a log waits for, and what the log is asked for next. A state machine: events in, actions
//! out. Pure: no threads, no clock, no journal; [`super::batch_log`] reports and obeys.
//!
//! ```text
//!  allocated ─▶ waiting ─AppendPlans─▶ under way ─▶ ready ─────────────┐
//!                  ▲──────── refused, after a pause ◀┘                 ├─▶ Run ─▶ committed ─AppendCommit─▶ durable
//!  start: planned and not covered ─▶ replays, before all others ───────┘                ▲── refused ◀┘
//! ```
//! One record of plans is under way at a time and takes every batch that waits, so that a batch is never durable before an
//! earlier one.

use std::collections::VecDeque;
use std::time::Duration;

use super::checkpoints::Checkpoints;
use crate::journal::{Replay, Run};
use crate::stream;
use crate::sync::planted::{Planted, planted};
use crate::time::{Moment, Time};

/// Pause after records that found no room on the disk, before they are appended again.
const RETRY: Duration = Duration::from_millis(200);

/// The log as the loop sees it now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogState {
    /// It refuses input because the disk has no room.
    pub(super) is_short: bool,
    /// A checkpoint is being written.
    pub(super) is_checkpointing: bool,
}

/// An event that the machine acts on: the closed set. `B` is a batch that has its blocks.
#[derive(Clone, Debug)]
pub(super) enum Event<B> {
    /// A batch has its blocks.
    Allocated(B),
    /// [`Action::AppendPlans`] was obeyed: one record took the plans of this many batches.
    PlansAppended(usize),
    /// The plans under way are durable.
    PlansDurable,
    /// The plans under way found no room.
    PlansRefused,
    /// The log has ended, which the engine learns elsewhere; the next start knows the fate of the plans.
    PlansFailed,
    /// A batch of this number is done.
    Committed { index: u64, log: LogState },
    /// The commit of this batch is durable.
    CommitDurable(u64),
    /// Records of the commit of this batch found no room.
    CommitRefused(u64),
    /// The batch that ran again for windows and states is done.
    Rebuilt,
    /// [`Action::Checkpoint`] was obeyed: the checkpoint will be written.
    CheckpointAsked,
    /// Something may have become due. `running`: batches that may run and are not done; `None` if the stream has failed,
    /// and then nothing more is planned or run.
    Look { running: Option<usize>, log: LogState },
    /// The stream stops in order.
    Stopped,
}

/// An action that the machine asks for; actions are obeyed in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action<B> {
    /// Cover what may be covered and ask for a checkpoint. Report [`Event::CheckpointAsked`] unless one is being written.
    Checkpoint,
    /// The same at the stop, behind the checkpoint that may be under way.
    LastCheckpoint,
    /// Let the log look whether somebody else has made room.
    LookForRoom,
    /// Append the records of this batch's commit that are not in the log. Only if `is_awaited` is their fate reported.
    AppendCommit { index: u64, is_awaited: bool },
    /// Append the plans of these batches, or of as many of the first as one record takes; report
    /// [`Event::PlansAppended`], and then their fate.
    AppendPlans(Vec<B>),
    /// Run a batch of this run.
    Run(B),
    /// Run a batch of an earlier run again.
    Replay(Replay),
}

/// A commit with changes of states that is not known to be durable.
#[derive(Debug)]
struct Commit {
    index: u64,
    progress: CommitProgress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommitProgress {
    /// To be appended: for the first time, or again after it was refused.
    Pending,
    UnderWay,
    /// Durable; it waits for an earlier one that is not.
    Durable,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Durability<B> {
    /// Batches of earlier runs that run again.
    replays: VecDeque<Replay>,
    /// Batches that have their blocks and whose plans are not in the log.
    waiting: VecDeque<B>,
    /// The number of those whose plans are under way.
    under_way: Option<usize>,
    /// Batches whose plans are in the log; they wait for the replays.
    ready: VecDeque<B>,
    /// The batch that runs again now for what operators keep of it.
    rebuilding: Option<(Time, stream::Replay)>,
    /// In the order of the batches.
    commits: VecDeque<Commit>,
    /// The end of the pause after refused records.
    retry_at: Option<Moment>,
    checkpoints: Checkpoints,
    /// Nothing is kept from batch to batch: no commit is awaited, for losing one repeats a batch and no more.
    is_stateless: bool,
}

impl<B: Clone> Durability<B> {
    pub(super) fn new(replays: Vec<Replay>, is_stateless: bool, now: Moment) -> Self {
        Durability {
            replays: replays.into(),
            waiting: VecDeque::new(),
            under_way: None,
            ready: VecDeque::new(),
            rebuilding: None,
            commits: VecDeque::new(),
            retry_at: None,
            checkpoints: Checkpoints::new(now),
            is_stateless,
        }
    }

    /// Takes an event at the moment `now`; returns the actions that follow from it, in order.
    pub(super) fn step(&mut self, now: Moment, event: Event<B>) -> Vec<Action<B>> {
        match event {
            Event::Committed { index, log } => return self.committed(index, log, now),
            Event::Look { running, log } => return self.look(running, log, now),
            Event::Stopped if self.checkpoints.is_behind() => return vec![Action::LastCheckpoint],
            Event::Stopped => {}
            Event::Allocated(batch) => {
                if planted(Planted::RunsBeforePlan) {
                    self.ready.push_back(batch.clone());
                }
                self.waiting.push_back(batch);
            }
            Event::PlansAppended(count) => self.under_way = Some(count),
            Event::PlansDurable => self.plans_durable(),
            Event::PlansRefused => {
                self.under_way = None;
                self.retry_at = Some(now.plus(RETRY));
            }
            Event::PlansFailed => self.under_way = None,
            Event::CommitDurable(index) => self.commit_durable(index),
            Event::CommitRefused(index) => {
                self.set_commit(index, CommitProgress::Pending);
                self.retry_at.get_or_insert(now.plus(RETRY));
            }
            Event::Rebuilt => self.rebuilding = None,
            Event::CheckpointAsked => self.checkpoints.asked(now),
        }
        Vec::new()
    }

    /// The number of batches that do not run yet.
    pub(super) fn batches(&self) -> usize {
        self.replays.len() + self.waiting.len() + self.ready.len()
    }

    /// The time of the next [`Event::Look`] that something may follow from without another event.
    pub(super) fn deadline(&self, is_short: bool) -> Option<Moment> {
        let short = is_short.then(|| self.checkpoints.due_while_short());
        self.retry_at.into_iter().chain(short).min()
    }

    /// The number of the first batch whose awaited commit is not durable: a checkpoint covers none from there on.
    pub(super) fn first_not_durable(&self) -> u64 {
        self.commits.front().map_or(u64::MAX, |commit| commit.index)
    }

    /// The operators that the batch `time` runs again for, if it only does that.
    pub(super) fn rebuilds(&self, time: Time) -> Option<stream::Replay> {
        self.rebuilding.filter(|(rebuilding, _)| *rebuilding == time).map(|(_, how)| how)
    }

    fn plans_durable(&mut self) {
        let durable = self.waiting.drain(..self.under_way.take().unwrap_or(0));
        match planted(Planted::RunsBeforePlan) {
            true => drop(durable),
            false => self.ready.extend(durable),
        }
    }

    /// Appends the commit at once, with those that were refused before, and asks for a checkpoint if one is due.
    fn committed(&mut self, index: u64, log: LogState, now: Moment) -> Vec<Action<B>> {
        self.checkpoints.batch_done();
        let mut actions = match self.is_stateless {
            true => vec![Action::AppendCommit { index, is_awaited: false }],
            false => {
                self.commits.push_back(Commit { index, progress: CommitProgress::Pending });
                self.append_commits().collect()
            }
        };
        actions.extend(self.checkpoint_if_due(log, now));
        actions
    }

    fn append_commits(&mut self) -> impl Iterator<Item = Action<B>> {
        let is_pending = |commit: &&mut Commit| commit.progress == CommitProgress::Pending;
        self.commits.iter_mut().filter(is_pending).map(|commit| {
            commit.progress = CommitProgress::UnderWay;
            Action::AppendCommit { index: commit.index, is_awaited: true }
        })
    }

    fn commit_durable(&mut self, index: u64) {
        self.set_commit(index, CommitProgress::Durable);
        let is_durable = |commit: &Commit| commit.progress == CommitProgress::Durable;
        while self.commits.front().is_some_and(is_durable) {
            self.commits.pop_front();
        }
    }

    fn set_commit(&mut self, index: u64, progress: CommitProgress) {
        let of = self.commits.iter_mut().find(|commit| commit.index == index);
        of.into_iter().for_each(|commit| commit.progress = progress);
    }

    fn checkpoint_if_due(&mut self, log: LogState, now: Moment) -> Option<Action<B>> {
        if !self.checkpoints.is_due(now, log.is_short) {
            return None;
        }
        if log.is_checkpointing {
            self.checkpoints.put_off(now);
            return None;
        }
        Some(Action::Checkpoint)
    }

    fn look(&mut self, running: Option<usize>, log: LogState, now: Moment) -> Vec<Action<B>> {
        let mut actions = Vec::new();
        // Without room for input: let go what can be let go.
        if log.is_short && now >= self.checkpoints.due_while_short() {
            actions.extend(self.checkpoint_if_due(log, now));
            actions.push(Action::LookForRoom);
        }
        if self.retry_at.is_none_or(|at| now >= at) {
            self.retry_at = None;
            actions.extend(self.append_commits());
            actions.extend(running.and_then(|running| self.append_plans(running, log)));
        }
        actions.extend(running.and_then(|running| self.next(running)));
        actions
    }

    /// Appends the plans that wait, unless some are under way. While the log has room for no more than the end of the batches,
    /// it is one plan, once none runs: a plan must not take the room that the end of a batch needs. Nothing is planned while
    /// windows and states are made again: a start that ends there, because they are too large, leaves everything as it was.
    fn append_plans(&self, running: usize, log: LogState) -> Option<Action<B>> {
        let rebuilds = |replay: &Replay| replay.run != Run::Again;
        let is_rebuilding = self.rebuilding.is_some() || self.replays.iter().any(rebuilds);
        if self.under_way.is_some() || self.waiting.is_empty() || is_rebuilding {
            return None;
        }
        let is_busy = running > 0 || !self.ready.is_empty() || !self.replays.is_empty();
        let most = match log.is_short {
            true if is_busy => return None,
            true => 1,
            false => self.waiting.len(),
        };
        Some(Action::AppendPlans(self.waiting.iter().take(most).cloned().collect()))
    }

    /// The next batch that may run. Those of earlier runs come first, one at a time.
    fn next(&mut self, running: usize) -> Option<Action<B>> {
        if self.replays.is_empty() {
            return self.ready.pop_front().map(Action::Run);
        }
        if running > 0 {
            return None;
        }
        let replay = self.replays.pop_front()?;
        self.rebuilding = match replay.run {
            Run::Again => None,
            Run::ForWindows => Some((replay.plan.time(), stream::Replay::Windows)),
            Run::ForStates => Some((replay.plan.time(), stream::Replay::States)),
        };
        Some(Action::Replay(replay))
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::journal::Plan;

    const ROOM: LogState = LogState { is_short: false, is_checkpointing: false };
    const SHORT: LogState = LogState { is_short: true, is_checkpointing: false };

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn look(running: usize, log: LogState) -> Event<u64> {
        Event::Look { running: Some(running), log }
    }

    fn committed(index: u64) -> Event<u64> {
        Event::Committed { index, log: ROOM }
    }

    fn commit(index: u64) -> Action<u64> {
        Action::AppendCommit { index, is_awaited: true }
    }

    fn replay(index: u64, run: Run) -> Replay {
        Replay { plan: Plan { index, time: index * 100, ..Plan::default() }, run }
    }

    fn stateful(replays: Vec<Replay>) -> Durability<u64> {
        Durability::new(replays, false, at(0))
    }

    /// Events at moments in milliseconds, each with the actions that follow.
    /// The time in milliseconds, what happens then, and what must be done about it.
    type Step<'a> = (u64, Event<u64>, &'a [Action<u64>]);

    fn check(durability: &mut Durability<u64>, steps: &[Step<'_>]) {
        for (number, (now, event, expected)) in steps.iter().enumerate() {
            let actions = durability.step(at(*now), event.clone());
            assert_eq!(actions, *expected, "step {number}: {event:?}");
        }
    }

    #[test]
    fn a_batch_runs_once_its_plan_is_durable_and_one_record_of_plans_is_under_way() {
        check(
            &mut stateful(Vec::new()),
            &[
                (0, look(0, ROOM), &[]),
                (0, Event::Allocated(0), &[]),
                (0, Event::Allocated(1), &[]),
                (0, look(0, ROOM), &[Action::AppendPlans(vec![0, 1])]),
                // One record takes no more than the first.
                (0, Event::PlansAppended(1), &[]),
                (0, Event::Allocated(2), &[]),
                (0, look(0, ROOM), &[]),
                (1, Event::PlansDurable, &[]),
                (1, look(0, ROOM), &[Action::AppendPlans(vec![1, 2]), Action::Run(0)]),
                (1, Event::PlansAppended(2), &[]),
                (1, look(1, ROOM), &[]),
                (2, Event::PlansDurable, &[]),
                (2, look(1, ROOM), &[Action::Run(1)]),
                (2, look(2, ROOM), &[Action::Run(2)]),
                (2, look(3, ROOM), &[]),
            ],
        );
    }

    #[test]
    fn plans_that_found_no_room_are_appended_again_after_a_pause() {
        let mut durability = stateful(Vec::new());
        check(
            &mut durability,
            &[
                (0, Event::Allocated(0), &[]),
                (0, look(0, ROOM), &[Action::AppendPlans(vec![0])]),
                (0, Event::PlansAppended(1), &[]),
                (10, Event::PlansRefused, &[]),
                (209, look(0, ROOM), &[]),
            ],
        );
        assert_eq!(durability.deadline(false), Some(at(210)));
        check(&mut durability, &[(210, look(0, ROOM), &[Action::AppendPlans(vec![0])])]);
        assert_eq!((durability.deadline(false), durability.batches()), (None, 1));
    }

    #[test]
    fn a_log_without_room_takes_one_plan_and_only_while_nothing_else_needs_the_room() {
        check(
            &mut stateful(Vec::new()),
            &[
                (0, Event::Allocated(0), &[]),
                (0, Event::Allocated(1), &[]),
                (0, look(1, SHORT), &[]),
                (0, look(0, SHORT), &[Action::AppendPlans(vec![0])]),
                (0, Event::PlansAppended(1), &[]),
                (1, Event::PlansDurable, &[]),
                // The first is ready, so the second waits.
                (1, look(0, SHORT), &[Action::Run(0)]),
                (1, look(1, SHORT), &[]),
                (1, committed(0), &[commit(0)]),
                (1, look(0, SHORT), &[Action::AppendPlans(vec![1])]),
            ],
        );
    }

    #[test]
    fn a_refused_commit_is_appended_again_after_a_pause_or_before_a_later_one() {
        check(
            &mut stateful(Vec::new()),
            &[
                (0, committed(0), &[commit(0)]),
                (0, Event::CommitRefused(0), &[]),
                (199, look(0, ROOM), &[]),
                (200, look(0, ROOM), &[commit(0)]),
                (200, Event::CommitRefused(0), &[]),
                (250, committed(1), &[commit(0), commit(1)]),
                (250, look(0, ROOM), &[]),
            ],
        );
    }

    #[test]
    fn receipts_out_of_order_leave_the_first_commit_that_is_not_durable() {
        let mut durability = stateful(Vec::new());
        let mut check_first = |event: Event<u64>, expected: u64| {
            durability.step(at(0), event.clone());
            assert_eq!(durability.first_not_durable(), expected, "{event:?}");
        };
        check_first(Event::CommitDurable(9), u64::MAX);
        check_first(committed(4), 4);
        check_first(committed(5), 4);
        check_first(committed(6), 4);
        check_first(Event::CommitDurable(5), 4);
        check_first(Event::CommitRefused(4), 4);
        check_first(Event::CommitDurable(6), 4);
        check_first(look(0, ROOM), 4);
        check_first(Event::CommitDurable(4), u64::MAX);
    }

    #[test]
    fn without_states_nobody_waits_for_a_commit() {
        let mut durability = Durability::new(Vec::new(), true, at(0));
        let appended = Action::AppendCommit { index: 3, is_awaited: false };
        check(&mut durability, &[(0, committed(3), &[appended]), (0, look(0, ROOM), &[])]);
        assert_eq!(durability.first_not_durable(), u64::MAX);
    }

    #[test]
    fn batches_of_earlier_runs_come_first_one_at_a_time_and_nothing_is_planned_while_some_rebuild()
    {
        let replays = [(4, Run::ForStates), (5, Run::ForWindows), (6, Run::Again), (7, Run::Again)]
            .map(|(index, run)| replay(index, run));
        let mut durability = stateful(replays.to_vec());
        let [states, windows, again, last] = replays.map(Action::Replay);
        let time = |index: u64| Time::from_millis(index * 100);
        check(
            &mut durability,
            &[
                (0, Event::Allocated(8), &[]),
                (0, look(0, ROOM), &[states]),
                (0, look(1, ROOM), &[]),
            ],
        );
        assert_eq!(durability.rebuilds(time(4)), Some(stream::Replay::States));
        assert_eq!((durability.rebuilds(time(5)), durability.batches()), (None, 4));
        check(
            &mut durability,
            &[(0, Event::Rebuilt, &[]), (0, look(0, ROOM), &[windows]), (0, look(1, ROOM), &[])],
        );
        assert_eq!(durability.rebuilds(time(5)), Some(stream::Replay::Windows));
        check(
            &mut durability,
            &[
                (0, Event::Rebuilt, &[]),
                (0, look(0, ROOM), &[Action::AppendPlans(vec![8]), again]),
                (0, Event::PlansAppended(1), &[]),
                (0, Event::PlansDurable, &[]),
                (0, look(1, ROOM), &[]),
                (0, committed(6), &[commit(6)]),
                (0, look(0, ROOM), &[last]),
                // The last of them runs, and what is ready queues behind it.
                (0, look(1, ROOM), &[Action::Run(8)]),
            ],
        );
    }

    #[test]
    fn after_a_failure_nothing_is_planned_or_run_and_commits_still_become_durable() {
        let failed = Event::Look { running: None, log: ROOM };
        check(
            &mut stateful(vec![replay(0, Run::Again)]),
            &[
                (0, Event::Allocated(1), &[]),
                (0, committed(9), &[commit(9)]),
                (0, Event::CommitRefused(9), &[]),
                (200, failed, &[commit(9)]),
            ],
        );
    }

    #[test]
    fn a_stop_with_plans_under_way_writes_the_last_checkpoint_of_what_is_done() {
        let mut durability = stateful(Vec::new());
        check(
            &mut durability,
            &[
                (0, Event::Allocated(0), &[]),
                (0, look(0, ROOM), &[Action::AppendPlans(vec![0])]),
                (0, Event::PlansAppended(1), &[]),
                (0, Event::Stopped, &[]),
                (0, committed(0), &[commit(0)]),
                (0, Event::Stopped, &[Action::LastCheckpoint]),
                (0, Event::PlansFailed, &[]),
            ],
        );
        assert_eq!((durability.batches(), durability.first_not_durable()), (1, 0));
    }

    #[test]
    fn a_checkpoint_follows_ten_batches_unless_one_is_being_written() {
        let mut durability = Durability::new(Vec::new(), true, at(0));
        let writes = LogState { is_checkpointing: true, ..ROOM };
        let commit = |index| Action::AppendCommit { index, is_awaited: false };
        for index in 0..9 {
            check(&mut durability, &[(1_000, committed(index), &[commit(index)])]);
        }
        check(
            &mut durability,
            &[
                (1_000, Event::Committed { index: 9, log: writes }, &[commit(9)]),
                (1_999, committed(10), &[commit(10)]),
                (2_000, committed(11), &[commit(11), Action::Checkpoint]),
                // The journal has refused it: it stays due.
                (2_000, committed(12), &[commit(12), Action::Checkpoint]),
                (2_000, Event::CheckpointAsked, &[]),
                (2_000, Event::Stopped, &[]),
                (2_000, committed(13), &[commit(13)]),
            ],
        );
    }

    #[test]
    fn without_room_checkpoints_let_go_what_can_be_let_go_and_room_is_looked_for() {
        let mut durability = stateful(Vec::new());
        assert_eq!(durability.deadline(true), Some(at(50)));
        let writes = LogState { is_checkpointing: true, ..SHORT };
        check(
            &mut durability,
            &[
                (49, look(0, SHORT), &[]),
                (50, look(0, ROOM), &[]),
                (50, look(0, SHORT), &[Action::Checkpoint, Action::LookForRoom]),
                (50, Event::CheckpointAsked, &[]),
                (99, look(0, SHORT), &[]),
                (100, look(0, writes), &[Action::LookForRoom]),
                (149, look(0, SHORT), &[]),
                (150, look(0, SHORT), &[Action::Checkpoint, Action::LookForRoom]),
            ],
        );
    }
}
