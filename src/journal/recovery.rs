//! What a log and its newest checkpoint say at a start: which batches run again, and what no batch was given.
//!
//! ```text
//! checkpoint ─▶ covered: batches below `next_index`, chunks below `covered[source]`
//! log ────────▶ chunks by number, plans by index, what was committed        all that is covered is passed over
//!               └▶ planned: run again with the same input     └▶ the rest: the first blocks of the first live batch
//! ```
//! The same record may be there twice (a group that was refused and written again) and out of its order: chunks and
//! plans go by their numbers. Runs on the thread that starts the engine; changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{ChunkHead, Entry, Plan, decode};
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

/// A batch that runs again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replay {
    pub(crate) plan: Plan,
    /// The log says that it was committed: it only runs for what operators keep of it.
    pub(crate) committed: bool,
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
    committed: BTreeSet<u64>,
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
                self.committed.insert(done.index);
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

    /// The batches that run again, in order.
    ///
    /// # Errors
    /// If one of them names a chunk that is not there: the log was cut by hand, or is damaged in a way that its
    /// checksums do not show.
    pub(crate) fn replays(&self) -> Result<Vec<Replay>> {
        let replay = |plan: &Plan| {
            for (source, number) in chunks_of(plan) {
                if !self.chunks.contains_key(&(source, number)) {
                    let time = plan.time;
                    return Err(Error::Failed(format!(
                        "batch {time} ms was made of chunk {number} of source {source}, which is not in the log"
                    )));
                }
            }
            Ok(Replay { plan: plan.clone(), committed: self.committed.contains(&plan.index) })
        };
        self.plans.values().map(replay).collect()
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
