//! What a log and its newest checkpoint say at a start: which batches run again, and what no batch was given.
//!
//! ```text
//! checkpoint ─▶ covered: batches below `next_index`, chunks below `covered[source]`
//! log ────────▶ chunks by number, plans by index, what was committed        all that is covered is passed over
//!               └▶ planned: run again with the same input     └▶ the rest: the first blocks of the first live batch
//! ```
//! The same record may be there twice (a group that was refused and written again) and out of its order: chunks and
//! plans go by their numbers. Runs on the thread that starts the engine; changes nothing.

use std::collections::BTreeMap;

use super::record::{ChunkHead, Committed, Entry, Plan, decode};
use super::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::wal::Position;

/// A chunk that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoggedChunk {
    pub(crate) at: Position,
    pub(crate) framing: Framing,
    pub(crate) records: u64,
    /// Bytes of the records.
    pub(crate) bytes: u64,
}

/// Why a batch of an earlier run runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// It was committed: windows take in what it brought, states know it.
    ForWindows,
    /// It was committed: windows and states take in what it brought.
    ForStates,
    /// Nobody knows that it was committed: all of it, and the sinks know what they have.
    Again,
}

/// A batch that runs again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replay {
    pub(crate) plan: Plan,
    pub(crate) run: Run,
}

/// What is known of a batch that was committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) record: Committed,
    /// Where its changes of states lie, in order.
    pub(crate) changed: Vec<Position>,
}

/// How far back a program needs batches, to make what it keeps what it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Nothing is kept from batch to batch.
    pub(crate) stateless: bool,
    /// The windows, in milliseconds.
    pub(crate) windows: u64,
    /// The windows below states, in milliseconds.
    pub(crate) below_states: u64,
}

/// How an earlier run is gone on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resume {
    /// States are restored as they were after this batch; none: from nothing.
    pub(crate) state: Option<u64>,
    /// The batches that run again, in order.
    pub(crate) replays: Vec<Replay>,
}

/// The batch whose states are to be restored, and the first one that windows need, when `done` (index and time, in
/// order) are the batches that were committed. None if the windows below states reach back before all of them: then
/// every batch is needed.
pub(crate) fn base(done: &[(u64, u64)], reach: Reach) -> Option<(u64, u64)> {
    let (_, last) = done.last()?;
    let known = last.checked_sub(reach.below_states)?;
    let (state, time) = done.iter().rfind(|(_, time)| *time <= known)?;
    if reach.windows == 0 {
        return Some((*state, state + 1));
    }
    let from = time.saturating_sub(reach.windows);
    let first = done.iter().find(|(_, time)| *time >= from).map_or(*state, |(index, _)| *index);
    Some((*state, first))
}

/// What the log and the checkpoint say, together.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) base: Snapshot,
    /// The chunks that are not covered, by the source's number in the log and their own.
    pub(crate) chunks: BTreeMap<(u32, u64), LoggedChunk>,
    /// The plans that are not covered, by index.
    pub(crate) plans: BTreeMap<u64, Plan>,
    /// The segment of each of them.
    pub(crate) plan_segments: BTreeMap<u64, u64>,
    /// What was committed, by index; also what a checkpoint covers, as long as its changes are needed.
    pub(crate) commits: BTreeMap<u64, Commit>,
    /// Where changes lie, by batch and place.
    changed: BTreeMap<(u64, u32), Position>,
    /// The oldest segment of each commit and its changes.
    pub(crate) commit_segments: BTreeMap<u64, u64>,
    /// Of each source the number behind its last chunk.
    ends: BTreeMap<u32, u64>,
    /// Whether anything was started here before.
    pub(crate) started: bool,
}

impl Replayed {
    pub(crate) fn new(base: Option<Snapshot>) -> Self {
        let started = base.is_some();
        Replayed { base: base.unwrap_or_default(), started, ..Replayed::default() }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// If it is not one that this program writes, or another pipeline wrote it.
    pub(crate) fn take(&mut self, at: Position, bytes: &[u8]) -> Result<()> {
        match decode(at, bytes)? {
            Entry::Started(started) => {
                let base = &mut self.base;
                if !self.started {
                    (base.seed, base.anchor) = (started.seed, started.anchor);
                    base.pipeline = started.pipeline;
                }
                // A later start knows all that an earlier one knew.
                if started.sources.len() >= base.sources.len() {
                    base.sources = started.sources;
                }
                base.states = started.states;
                self.started = true;
            }
            Entry::Chunk(head, bytes) => self.take_chunk(at, &head, bytes.len() as u64)?,
            Entry::Planned(plans) => {
                for plan in plans.into_iter().filter(|plan| plan.index >= self.base.next_index) {
                    self.plan_segments.insert(plan.index, at.segment);
                    self.plans.insert(plan.index, plan);
                }
            }
            Entry::Committed(done) => {
                self.commits.insert(done.index, Commit { record: done, changed: Vec::new() });
                self.needed_from(done.index, at.segment);
            }
            Entry::Changed(head, _) => {
                self.changed.insert((head.index, head.place), at);
                self.needed_from(head.index, at.segment);
            }
        }
        Ok(())
    }

    fn take_chunk(&mut self, at: Position, head: &ChunkHead, bytes: u64) -> Result<()> {
        let end = self.ends.entry(head.source).or_default();
        *end = (*end).max(head.number.saturating_add(1));
        if head.number >= self.base.covered(head.source) {
            let framing = head.framing()?;
            let chunk = LoggedChunk { at, framing, records: head.records, bytes };
            self.chunks.insert((head.source, head.number), chunk);
        }
        Ok(())
    }

    /// The number that the next chunk of a source gets.
    pub(crate) fn next_chunk(&self, source: u32) -> u64 {
        self.ends.get(&source).copied().unwrap_or(0).max(self.base.covered(source))
    }

    /// The number that the next batch gets.
    pub(crate) fn next_index(&self) -> u64 {
        let behind = self.plans.keys().next_back().map_or(0, |last| last.saturating_add(1));
        behind.max(self.base.next_index)
    }

    /// The greatest time that was planned, in milliseconds.
    pub(crate) fn last_time(&self) -> Option<u64> {
        self.plans.values().map(|plan| plan.time).max().max(self.base.last_time)
    }

    fn needed_from(&mut self, index: u64, segment: u64) {
        let oldest = self.commit_segments.entry(index).or_insert(segment);
        *oldest = (*oldest).min(segment);
    }

    /// The log was read: drops commits that are not needed, or lack changes (a full disk refused them).
    pub(crate) fn finish(&mut self) {
        let from = self.base.state_from.min(self.base.next_index);
        self.commits = self.commits.split_off(&from);
        self.commit_segments = self.commit_segments.split_off(&from);
        let changed = &self.changed;
        self.commits.retain(|index, commit| {
            let found = changed.range((*index, 0)..=(*index, u32::MAX)).map(|(_, at)| *at);
            commit.changed = found.collect();
            u32::try_from(commit.changed.len()) == Ok(commit.record.changed)
        });
    }

    /// How to go on.
    ///
    /// # Errors
    /// If a batch that is needed names a chunk that is not there: the log was cut by hand, or is damaged in a way that
    /// its checksums do not show.
    pub(crate) fn resume(&self, reach: Reach) -> Result<Resume> {
        let known = |plan: &Plan| self.commits.contains_key(&plan.index);
        let mut resume = Resume::default();
        if reach.stateless {
            for plan in self.plans.values().filter(|plan| !known(plan)) {
                resume.replays.push(self.replay(plan, Run::Again)?);
            }
            return Ok(resume);
        }
        // What follows a batch that is not known to be committed runs again, so that states see the batches in order.
        let live =
            self.plans.values().find(|plan| !known(plan)).map_or(u64::MAX, |plan| plan.index);
        let done: Vec<(u64, u64)> = self
            .commits
            .range(..live)
            .map(|(index, commit)| (*index, commit.record.time))
            .collect();
        let (state, first) = base(&done, reach).unzip();
        resume.state = state;
        for plan in self.plans.range(first.unwrap_or(0)..).map(|(_, plan)| plan) {
            let run = match plan.index {
                index if index >= live => Run::Again,
                index if state.is_some_and(|state| index <= state) => Run::ForWindows,
                _ => Run::ForStates,
            };
            resume.replays.push(self.replay(plan, run)?);
        }
        Ok(resume)
    }

    fn replay(&self, plan: &Plan, run: Run) -> Result<Replay> {
        for (source, number) in chunks_of(plan) {
            if !self.chunks.contains_key(&(source, number)) {
                let time = plan.time;
                return Err(Error::Failed(format!(
                    "batch {time} ms was made of chunk {number} of source {source}, which is not in the log"
                )));
            }
        }
        Ok(Replay { plan: plan.clone(), run })
    }

    /// The chunks of a source that no plan names, in order.
    pub(crate) fn unplanned(&self, source: u32) -> Vec<(u64, LoggedChunk)> {
        let ends = self.plans.values().flat_map(chunks_of).filter(|(of, _)| *of == source);
        let first = ends.map(|(_, number)| number + 1).max().unwrap_or(0);
        let rest = self.chunks.range((source, first)..=(source, u64::MAX));
        rest.map(|((_, number), chunk)| (*number, *chunk)).collect()
    }
}

/// The chunks of a plan: the source's number in the log, and the chunk's.
fn chunks_of(plan: &Plan) -> impl Iterator<Item = (u32, u64)> {
    plan.blocks.iter().flat_map(|(source, blocks)| {
        blocks.iter().flat_map(|block| block.clone()).map(|number| (*source, number))
    })
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    /// Batches 10 to 19 at 1000 to 1900 ms; which state is restored, and which batch windows need first.
    fn check(windows: u64, below_states: u64, expected: Option<(u64, u64)>) {
        let done: Vec<(u64, u64)> = (10..20).map(|index| (index, index * 100)).collect();
        let reach = Reach { stateless: false, windows, below_states };
        assert_eq!(base(&done, reach), expected);
    }

    #[test]
    fn how_far_back_batches_are_needed() {
        check(0, 0, Some((19, 20)));
        check(300, 0, Some((19, 16)));
        check(300, 200, Some((17, 14)));
        check(5_000, 0, Some((19, 10)));
        check(300, 900, Some((10, 10)));
        check(1_000, 1_000, None);
        assert_eq!(base(&[], Reach::default()), None);
    }
}
