//! Recovery: reads a log and its newest checkpoint at a start, and decides which batches run again.
//!
//! ```text
//! checkpoint ─▶ covered: batches below `next_index`, chunks below `covered[source]`
//! log ────────▶ chunks by number, plans by index, commits                   all that is covered is skipped
//!               └▶ planned: run again with the same input     └▶ the rest: the first blocks of the first live batch
//! ```
//! The same record may be there twice (a group that was refused and written again) and out of order: chunks and plans go by
//! their numbers. A batch that ran again under a later start may have written other changes of states than before, since a
//! compaction begins with each start: a commit belongs to the changes of its own start. Runs on the thread that starts the
//! engine; changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpointer::Snapshot;
use super::record::{ChunkHead, Committed, Entry, Plan, decode};
use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::owner::Output;
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

/// The reason why a batch of an earlier run runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// It was committed: windows take in its input, states know it.
    ForWindows,
    /// It was committed: windows and states take in its input.
    ForStates,
    /// It is not known to be committed: all of it runs, and the sinks know what they have.
    Again,
}

/// A batch that runs again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replay {
    pub(crate) plan: Plan,
    pub(crate) run: Run,
}

/// A batch that was committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) record: Committed,
    /// The places of its changes of states, in order.
    pub(crate) changed: Vec<Position>,
}

/// The oldest batches that a program needs to rebuild what it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Nothing is kept from batch to batch.
    pub(crate) stateless: bool,
    /// The windows, in milliseconds.
    pub(crate) windows: u64,
    /// The windows below states, in milliseconds.
    pub(crate) below_states: u64,
}

/// The way in which an earlier run is continued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resume {
    /// States are restored as they were after this batch; `None`: from nothing.
    pub(crate) state: Option<u64>,
    /// The batches that run again, in order.
    pub(crate) replays: Vec<Replay>,
}

impl Resume {
    /// Skips batches whose input is `lost`, by index, and that windows and states would take in again: states are restored as
    /// they were after the last of those instead, so they are unchanged. Returns the times of the batches that windows below
    /// states lack for it.
    pub(crate) fn skip_for_states(&mut self, lost: &BTreeSet<u64>) -> Vec<u64> {
        let for_states = |replay: &&mut Replay| replay.run == Run::ForStates;
        let indexes = self.replays.iter_mut().filter(for_states).map(|replay| replay.plan.index);
        let Some(last) = indexes.filter(|index| lost.contains(index)).max() else {
            return Vec::new();
        };
        self.state = self.state.max(Some(last));
        let before = self.replays.iter_mut().filter(for_states);
        let skipped = before.filter(|replay| replay.plan.index <= last).map(|replay| {
            replay.run = Run::ForWindows;
            replay.plan.time
        });
        skipped.collect()
    }
}

/// The batch whose states are restored, and the first one that windows need, when `done` (index and time, in order) are the
/// batches that were committed. `None` if the windows below states reach back before all of them: every batch is needed then.
pub(crate) fn base(done: &[(u64, u64)], reach: Reach) -> Option<(u64, u64)> {
    let (_, last) = done.last()?;
    let known = last.checked_sub(reach.below_states)?;
    let state = done.iter().rfind(|(_, time)| *time <= known)?;
    Some((state.0, first_needed(done, state, reach)))
}

/// The first batch that windows need when states are as they were after `state`.
fn first_needed(done: &[(u64, u64)], state: &(u64, u64), reach: Reach) -> u64 {
    let (state, time) = *state;
    if reach.windows == 0 {
        return state + 1;
    }
    let from = time.saturating_sub(reach.windows);
    done.iter().find(|(_, time)| *time >= from).map_or(state, |(index, _)| *index)
}

/// The records of the log and the checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) base: Snapshot,
    /// The chunks that are not covered, by the source's number in the log and their own.
    pub(crate) chunks: BTreeMap<(u32, u64), LoggedChunk>,
    /// The plans that are not covered, by index.
    pub(crate) plans: BTreeMap<u64, Plan>,
    /// The segment of each plan.
    pub(crate) plan_segments: BTreeMap<u64, u64>,
    /// The commits, by index; those that a checkpoint covers too, as long as their changes are needed.
    pub(crate) commits: BTreeMap<u64, Commit>,
    /// The start that wrote each commit.
    commit_starts: BTreeMap<u64, u64>,
    /// The start that wrote changes, and their position, by batch and place.
    changed: BTreeMap<(u64, u32), (u64, Position)>,
    /// Number of starts in the log up to now.
    starts: u64,
    /// The oldest segment of each commit and its changes.
    pub(crate) commit_segments: BTreeMap<u64, u64>,
    /// The number after the last chunk of each source.
    ends: BTreeMap<u32, u64>,
    /// True if anything was started here before.
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
    /// If this program does not write such a record, or another pipeline wrote it.
    pub(crate) fn take(&mut self, at: Position, bytes: &[u8]) -> Result<()> {
        match decode(at, bytes)? {
            Entry::Started(started) => {
                let base = &mut self.base;
                if !self.started {
                    (base.seed, base.anchor) = (started.seed, started.anchor);
                    base.pipeline = started.pipeline;
                }
                // The checkpoint may be of a later start than the begin of the log.
                let known = (base.run, base.names.sources.len());
                if known <= (started.run, started.names.sources.len()) {
                    base.names = started.names;
                }
                if let (Some(of), Some(other)) = (base.identity, started.identity)
                    && of != other
                {
                    return Err(Error::Failed(format!(
                        "the record at {at} of the log belongs to the state {}, and what came before it to the state {}: \
                         files of two state directories lie in this one",
                        other.short(),
                        of.short()
                    )));
                }
                // A start never forgets the identity of the state; one of version 1 did not know it.
                base.identity = started.identity.or(base.identity);
                if started.run >= base.run {
                    base.starts = started.starts;
                }
                base.run = base.run.max(started.run);
                self.started = true;
                self.starts += 1;
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
                self.commit_starts.insert(done.index, self.starts);
                self.needed_from(done.index, at.segment);
            }
            Entry::Reached(marks) => Output::merge_marks(&mut self.base.outputs, &marks),
            Entry::Outputs(outputs) => Output::merge(&mut self.base.outputs, &outputs),
            Entry::Changed(head, _) => {
                self.changed.insert((head.index, head.place), (self.starts, at));
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

    /// Ends the reading: drops commits that are not needed, that lack changes (a full disk refused them), or, where something
    /// is kept from batch to batch, that follow a batch that a later start committed: that start ran them again.
    pub(crate) fn finish(&mut self, reach: Reach) {
        let from = self.base.state_from.min(self.base.next_index);
        self.commits = self.commits.split_off(&from);
        self.commit_segments = self.commit_segments.split_off(&from);
        let (changed, starts, mut latest) = (&self.changed, &self.commit_starts, 0);
        self.commits.retain(|index, commit| {
            let start = starts.get(index).copied().unwrap_or(0);
            let found = changed.range((*index, 0)..(*index, commit.record.changed));
            commit.changed =
                found.filter(|(_, (of, _))| *of == start).map(|(_, (_, at))| *at).collect();
            let is_whole = u32::try_from(commit.changed.len()) == Ok(commit.record.changed);
            let is_known = is_whole && (start >= latest || reach.stateless);
            latest = latest.max(start);
            is_known
        });
    }

    /// The number of the first batch that is not known to be committed, or of the next one.
    pub(crate) fn first_open(&self) -> u64 {
        let open = self.plans.keys().find(|index| !self.commits.contains_key(index));
        open.copied().unwrap_or_else(|| self.next_index())
    }

    /// The batches that are planned and not known to be committed.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Plan> {
        self.plans.values().filter(|plan| !self.commits.contains_key(&plan.index))
    }

    /// The way to resume in a program that has these sources of the log.
    ///
    /// # Errors
    /// If a batch that is needed names a chunk that is not there: the log was cut by hand, or is damaged in a way that
    /// its checksums do not show.
    pub(crate) fn resume(&self, reach: Reach, sources: &[u32]) -> Result<Resume> {
        let known = |plan: &Plan| self.commits.contains_key(&plan.index);
        let mut resume = Resume::default();
        if reach.stateless {
            for plan in self.plans.values().filter(|plan| !known(plan)) {
                resume.replays.push(self.replay(plan, Run::Again, sources)?);
            }
            return Ok(resume);
        }
        // Batches after one that is not known to be committed run again, so that states see the batches in order.
        let live =
            self.plans.values().find(|plan| !known(plan)).map_or(u64::MAX, |plan| plan.index);
        let done: Vec<(u64, u64)> = self
            .commits
            .range(..live)
            .map(|(index, commit)| (*index, commit.record.time))
            .collect();
        let mut from = base(&done, reach);
        // A program whose windows have become longer may need states that no record tells any more. Such windows are partial,
        // as at a first start; the states are not.
        if let Some(oldest) = self.oldest_states(&done)
            && from.is_none_or(|(state, _)| state < oldest.0)
        {
            from = Some((oldest.0, first_needed(&done, &oldest, reach)));
        }
        // States cannot take in a source again that is gone: they are restored as they were after it.
        if let Some(last) = self.last_without(&done, sources)
            && from.is_none_or(|(state, _)| state < last.0)
        {
            from = Some((last.0, first_needed(&done, &last, reach)));
        }
        let (state, first) = from.unzip();
        resume.state = state;
        for plan in self.plans.range(first.unwrap_or(0)..).map(|(_, plan)| plan) {
            let run = match plan.index {
                index if index >= live => Run::Again,
                index if state.is_some_and(|state| index <= state) => Run::ForWindows,
                _ => Run::ForStates,
            };
            resume.replays.push(self.replay(plan, run, sources)?);
        }
        Ok(resume)
    }

    /// The oldest of these batches after which the states are known and every batch can run again: the end of the first
    /// compaction whose changes are all there. `None` if all changes are there.
    fn oldest_states(&self, done: &[(u64, u64)]) -> Option<(u64, u64)> {
        let Snapshot { names, state_from, next_index, .. } = &self.base;
        let any = names.states.iter().any(|state| !state.retired);
        if !any || (*state_from, *next_index) == (0, 0) {
            return None;
        }
        let ends = |index: u64| index >= *state_from && self.commits[&index].record.compaction_ends;
        let compacted = match *state_from {
            0 => 0,
            _ => done.iter().find(|(index, _)| ends(*index))?.0,
        };
        let oldest = compacted.max(next_index.saturating_sub(1));
        done.iter().find(|(index, _)| *index >= oldest).copied()
    }

    /// The last of these batches that took input of a source that is not among these.
    fn last_without(&self, done: &[(u64, u64)], sources: &[u32]) -> Option<(u64, u64)> {
        let gone = |index: &u64| {
            self.plans
                .get(index)
                .is_some_and(|plan| sources_of(plan).any(|it| !sources.contains(&it)))
        };
        done.iter().rfind(|(index, _)| gone(index)).copied()
    }

    fn replay(&self, plan: &Plan, run: Run, sources: &[u32]) -> Result<Replay> {
        for (source, number) in chunks_of(plan).filter(|(source, _)| sources.contains(source)) {
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

/// The sources of the log that a plan takes input of.
pub(crate) fn sources_of(plan: &Plan) -> impl Iterator<Item = u32> {
    let blocks = plan.blocks.iter().filter(|(_, blocks)| !blocks.is_empty());
    let ranges = plan.ranges.iter().filter(|(_, range)| !range.is_empty());
    blocks.map(|(source, _)| *source).chain(ranges.map(|(source, _)| *source))
}

/// The chunks of a plan: the source's number in the log, and the chunk's.
fn chunks_of(plan: &Plan) -> impl Iterator<Item = (u32, u64)> {
    plan.blocks.iter().flat_map(|(source, blocks)| {
        blocks.iter().flat_map(|block| block.clone()).map(|number| (*source, number))
    })
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use bytes::Bytes;

    use super::super::names::{Inventory, Known};
    use super::super::record::{self, Started, VERSION};
    use super::*;
    use crate::wal::Record;

    /// Batches 10 to 19 at 1000 to 1900 ms: expects this state to be restored, and this batch to be the first for windows.
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

    /// Batches 10 and 11 for windows, 12 to 14 for windows and states, 15 again. With the input of `lost` gone, expects this
    /// state to be restored, and windows below states to lack these batches.
    fn check_lost(lost: &[u64], state: u64, without: &[u64]) {
        let replay = |index: u64| {
            let run = match index {
                10 | 11 => Run::ForWindows,
                12..=14 => Run::ForStates,
                _ => Run::Again,
            };
            let plan = Plan { index, time: index * 100, ..Plan::default() };
            Replay { plan, run }
        };
        let mut resume = Resume { state: Some(11), replays: (10..16).map(replay).collect() };
        let times = resume.skip_for_states(&lost.iter().copied().collect());
        assert_eq!((resume.state, times.as_slice()), (Some(state), without), "{lost:?}");
        for replay in &resume.replays {
            let expected = match replay.plan.index {
                15 => Run::Again,
                index if index <= state => Run::ForWindows,
                _ => Run::ForStates,
            };
            assert_eq!(replay.run, expected, "{lost:?}: batch {}", replay.plan.index);
        }
    }

    #[test]
    fn states_are_never_made_of_batches_whose_input_is_lost() {
        check_lost(&[], 11, &[]);
        check_lost(&[10, 11], 11, &[]);
        check_lost(&[15], 11, &[]);
        check_lost(&[12], 12, &[1_200]);
        check_lost(&[10, 13], 13, &[1_200, 1_300]);
        check_lost(&[12, 14, 15], 14, &[1_200, 1_300, 1_400]);
    }

    /// Batches 10 to 19, and a compaction from 13 to 16, with batches below `next_index` covered: expects the state that
    /// a program with windows of `below_states` milliseconds resumes from. It runs every batch after the states again, and
    /// earlier ones only for the windows.
    fn check_resume(next_index: u64, below_states: u64, state: u64) {
        let base = Snapshot {
            next_index,
            state_from: 13,
            names: Inventory { states: vec![Known::default()], ..Inventory::default() },
            ..Snapshot::default()
        };
        let mut replayed = Replayed::new(Some(base));
        for index in 10..20 {
            let time = index * 100;
            let (compaction_begins, compaction_ends) = (index == 13, index == 16);
            let record = Committed { index, time, changed: 0, compaction_begins, compaction_ends };
            let at = Position { segment: 1, offset: index, length: 0, seed: 0 };
            let plan = Plan { index, time, ..Plan::default() };
            replayed.take(at, &record::planned(&[plan]).bytes()).expect("good");
            replayed.take(at, &record::committed(record).bytes()).expect("good");
        }
        let reach = Reach { stateless: false, windows: below_states, below_states };
        replayed.finish(reach);
        let resume = replayed.resume(reach, &[]).expect("good");
        let ran = |run: Run| {
            let of = resume.replays.iter().filter(move |replay| replay.run == run);
            of.map(|replay| replay.plan.index).collect::<Vec<_>>()
        };
        assert_eq!(resume.state, Some(state), "{below_states}");
        assert_eq!(ran(Run::ForStates), (state + 1..20).collect::<Vec<_>>(), "{below_states}");
        assert_eq!(ran(Run::Again), Vec::<u64>::new(), "{below_states}");
    }

    #[test]
    fn states_are_whole_also_where_windows_became_longer() {
        check_resume(12, 100, 18);
        check_resume(12, 300, 16);
        // From here on the compaction has not ended or not begun, or the batch is unknown.
        for below_states in [400, 700, 5_000] {
            check_resume(12, below_states, 16);
            // The batches after the states must be there to run again.
            check_resume(18, below_states, 17);
        }
    }

    /// Expects the last of these lives to find these commits. `(index, changes, durable)`: a batch with this many records of
    /// changes, and true if its commit became durable.
    fn check_lives(lives: &[&[(u64, u8, bool)]], expected: &[(u64, usize)]) {
        let mut replayed = Replayed::new(None);
        let mut at = Position { segment: 1, offset: 0, length: 0, seed: 0 };
        let mut take = |record: Record| {
            at.offset += 1;
            replayed.take(at, &record.bytes()).expect("good");
        };
        let started = Started {
            version: VERSION,
            pipeline: "p".to_owned(),
            seed: 1,
            anchor: 1,
            ..Started::default()
        };
        for life in lives {
            take(record::started(&started));
            for (index, changes, told) in *life {
                let part = |number: u8| (0, Bytes::from(vec![number; 3 << 20]));
                let records =
                    record::changed(*index, &(0..*changes).map(part).collect(), usize::MAX);
                let changed = u32::try_from(records.len()).expect("few");
                records.into_iter().for_each(&mut take);
                if *told {
                    take(record::committed(Committed {
                        index: *index,
                        changed,
                        ..Committed::default()
                    }));
                }
            }
        }
        replayed.finish(Reach::default());
        let found: Vec<(u64, usize)> =
            replayed.commits.iter().map(|(index, commit)| (*index, commit.changed.len())).collect();
        assert_eq!(found, expected, "{lives:?}");
    }

    #[test]
    fn changes_of_a_life_that_ended_before_their_commit_are_not_those_of_the_next() {
        check_lives(&[&[(0, 1, true), (1, 2, true)]], &[(0, 1), (1, 2)]);
        check_lives(&[&[(0, 1, true), (1, 2, false)]], &[(0, 1)]);
        // It ran again, and its compaction wrote less.
        check_lives(&[&[(0, 1, true), (1, 3, false)], &[(1, 2, true)]], &[(0, 1), (1, 2)]);
        check_lives(&[&[(0, 3, false)], &[(0, 0, true), (1, 1, true)]], &[(0, 0), (1, 1)]);
        check_lives(&[&[(0, 2, false)], &[(0, 3, true)]], &[(0, 3)]);
        // A second life that got as far as the changes: the commit is that of the first.
        check_lives(&[&[(0, 2, true)], &[(0, 1, false)]], &[]);
        // Batch 0 was refused for want of room, and ran again: so did all batches after it.
        check_lives(&[&[(0, 1, false), (1, 1, true)], &[(0, 1, true)]], &[(0, 1)]);
        check_lives(
            &[&[(0, 1, false), (1, 2, true)], &[(0, 1, true), (1, 1, true)]],
            &[(0, 1), (1, 1)],
        );
    }
}
