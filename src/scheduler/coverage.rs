//! `Coverage`: the batches that the next checkpoint may cover, so that a start does without their chunks and plans. Pure;
//! [`super::batch_log`] reports each batch that is done, and asks.
//!
//! ```text
//!  done batches: ─── covered ───│── kept for windows ──│── kept below states ──│── commit not durable ──▶
//!                               └─ next_index          └─ the state that a start restores
//! ```
//! A batch that windows and states are made of is not covered, nor is one whose commit is not durable.

use std::collections::VecDeque;

use crate::journal::{Committed, Covered, Found, LoggedCommit, Plan, Reach, Run, base};
use crate::sync::planted::{Planted, planted};

/// A batch that is committed and not covered, or whose changes of states are needed.
#[derive(Debug)]
pub(super) struct Done {
    commit: Committed,
    /// For each source of the log, the number behind its last chunk.
    ends: Vec<(u32, u64)>,
    /// The ranges that it took of the direct sources of the log; empty once they are covered.
    ranges: Vec<(u32, Vec<u8>)>,
}

impl Done {
    pub(super) fn new(commit: Committed, plan: Plan) -> Self {
        let ends = plan.blocks.iter().map(|(source, blocks)| {
            (*source, blocks.iter().map(|chunks| chunks.end).max().unwrap_or(0))
        });
        Done { commit, ends: ends.collect(), ranges: plan.ranges }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Coverage {
    /// The content of the newest checkpoint.
    base: Covered,
    /// In the order of the batches.
    done: VecDeque<Done>,
    reach: Reach,
    has_states: bool,
}

impl Coverage {
    /// The coverage that a start found: the batches before the first one that runs again are done.
    pub(super) fn new(found: &Found, reach: Reach) -> Self {
        let first_again = found.resume.replays.iter().find(|replay| replay.run == Run::Again);
        let live = first_again.map_or(found.next_index, |replay| replay.plan.index);
        let done = |(index, commit): (&u64, &LoggedCommit)| {
            Done::new(commit.record, found.plans.get(index).cloned().unwrap_or_default())
        };
        Coverage {
            base: found.covered.clone(),
            done: found.commits.range(..live).map(done).collect(),
            reach,
            has_states: !found.continued.names.numbers.states.is_empty(),
        }
    }

    /// A batch is done; the next in order.
    pub(super) fn batch_done(&mut self, done: Done) {
        self.done.push_back(done);
    }

    /// Covers as many batches as it may, of those below `first_not_durable`. Returns the ranges of direct sources that
    /// nobody needs again; `None` if no batch may be covered.
    pub(super) fn advance(&mut self, first_not_durable: u64) -> Option<Vec<(u32, Vec<u8>)>> {
        let done: Vec<(u64, u64)> = self
            .done
            .iter()
            .map(|done| (done.commit.index, done.commit.time))
            .take_while(|(index, _)| *index < first_not_durable)
            .collect();
        let (state, first) = match self.reach.stateless {
            true => done.last().map(|(index, _)| (*index, index + 1))?,
            false => base(&done, self.reach)?,
        };
        let mut released = Vec::new();
        for done in self.done.iter_mut().filter(|done| done.commit.index < first) {
            released.append(&mut done.ranges);
            for (source, end) in &done.ends {
                match self.base.chunks.iter_mut().find(|(of, _)| of == source) {
                    Some((_, covered)) => *covered = (*covered).max(*end),
                    None => self.base.chunks.push((*source, *end)),
                }
            }
            self.base.last_time = self.base.last_time.max(Some(done.commit.time));
        }
        let first = first + u64::from(planted(Planted::CoversTooMuch));
        self.base.next_index = self.base.next_index.max(first);
        self.base.state_from = self.state_from(state).max(self.base.state_from);
        let needed = self.base.next_index.min(self.base.state_from);
        self.done.retain(|done| done.commit.index >= needed);
        Some(released)
    }

    /// Sets the position of each direct source of the log, behind the covered batches.
    pub(super) fn set_positions(&mut self, positions: Vec<(u32, Vec<u8>)>) {
        self.base.ranges = positions;
    }

    /// The content of the next checkpoint.
    pub(super) fn covered(&self) -> Covered {
        self.base.clone()
    }

    /// The first batch of the changes that make the states as they were after the batch `state`.
    fn state_from(&self, state: u64) -> u64 {
        if !self.has_states {
            return self.base.next_index;
        }
        let done = || self.done.iter().map(|done| &done.commit).rev();
        let end = done().find(|commit| commit.index <= state && commit.compaction_ends);
        let begin = end.and_then(|end| {
            done().find(|commit| commit.index <= end.index && commit.compaction_begins)
        });
        begin.map_or(self.base.state_from, |commit| commit.index)
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    const STATELESS: Reach = Reach { stateless: true, windows: 0, below_states: 0 };

    /// Five batches, 100 ms apart, of one source; each takes ten chunks, and a range of a direct source. A compaction
    /// begins with the second and ends with the third.
    fn five(reach: Reach, has_states: bool) -> Coverage {
        let mut coverage = Coverage { has_states, ..Coverage::new(&Found::default(), reach) };
        for index in 0..5_u64 {
            let plan = Plan {
                blocks: vec![(
                    0,
                    vec![index * 10..index * 10 + 4, index * 10 + 4..index * 10 + 10],
                )],
                ranges: vec![(1, vec![u8::try_from(index).expect("small")])],
                ..Plan::default()
            };
            let commit = Committed {
                index,
                time: 1_000 + index * 100,
                compaction_begins: index == 1,
                compaction_ends: index == 2,
                ..Committed::default()
            };
            coverage.batch_done(Done::new(commit, plan));
        }
        coverage
    }

    /// The first batch that is not covered, the first whose changes of states are needed, and the batches that are kept.
    fn check(
        reach: Reach,
        has_states: bool,
        first_not_durable: u64,
        expected: Option<(u64, u64, &[u64])>,
    ) {
        let mut coverage = five(reach, has_states);
        let released = coverage.advance(first_not_durable);
        let covered = coverage.covered();
        let kept: Vec<u64> = coverage.done.iter().map(|done| done.commit.index).collect();
        let found = released.as_ref().map(|_| (covered.next_index, covered.state_from, &*kept));
        assert_eq!(found, expected, "{reach:?} {first_not_durable}");
        let Some(released) = released else { return };
        let bytes: Vec<u64> = released.iter().map(|(_, range)| u64::from(range[0])).collect();
        assert_eq!(bytes, (0..covered.next_index).collect::<Vec<_>>(), "{reach:?}");
        let chunks = covered.chunks.iter().map(|(_, end)| *end).max();
        let ends = (covered.next_index > 0).then_some(covered.next_index * 10);
        assert_eq!(chunks, ends, "{reach:?}");
        let time = (covered.next_index > 0).then(|| 900 + covered.next_index * 100);
        assert_eq!(covered.last_time, time, "{reach:?}");
        assert_eq!(coverage.advance(first_not_durable).unwrap_or_default(), Vec::new());
    }

    #[test]
    fn a_checkpoint_covers_batches_that_nothing_kept_is_made_of_and_whose_commits_are_durable() {
        let windows = |windows: u64| Reach { windows, ..Reach::default() };
        let below = |below_states: u64| Reach { below_states, ..Reach::default() };
        check(STATELESS, false, u64::MAX, Some((5, 5, &[])));
        check(STATELESS, false, 3, Some((3, 3, &[3, 4])));
        check(STATELESS, false, 0, None);
        check(windows(0), false, u64::MAX, Some((5, 5, &[])));
        check(windows(200), false, u64::MAX, Some((2, 2, &[2, 3, 4])));
        check(windows(200), false, 4, Some((1, 1, &[1, 2, 3, 4])));
        check(below(200), false, u64::MAX, Some((3, 3, &[3, 4])));
        check(below(2_000), false, u64::MAX, None);
        // Changes are needed from the beginning of the last compaction that has ended; before the first one, all of them.
        check(windows(0), true, u64::MAX, Some((5, 1, &[1, 2, 3, 4])));
        check(windows(0), true, 2, Some((2, 0, &[0, 1, 2, 3, 4])));
        check(below(300), true, u64::MAX, Some((2, 0, &[0, 1, 2, 3, 4])));
    }
}
