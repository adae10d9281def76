//! Recovery: what a start with a log hands to the job loop, and the input of the batches of earlier runs, which run again.
//! Their records stay in the log until a task reads them. Called by the job loop.

use std::collections::BTreeMap;
use std::time::Duration;

use super::direct_sources::Reader;
use crate::blocks::manager::StoredBlock;
use crate::error::{Error, Result};
use crate::journal::{ChunkRange, Found, Journal, Reach, Replay, Run};
use crate::owner::BatchId;
use crate::source::direct::{Losses, Lost, OnLost, Planned, Purpose};
use crate::source::ingest::chunk_log::{CHUNK_BYTES_MAX, EngineLog};
use crate::stream::{BatchInput, Graph};
use crate::sync::Arc;
use crate::sync::planted::{Planted, planted};
use crate::time::{Moment, Time};

/// The result of reading the log at a start, for the job loop.
pub(crate) struct Recovery {
    pub(crate) journal: Arc<Journal>,
    pub(crate) found: Found,
    /// The first tick of the first start: slides are counted from there.
    pub(crate) anchor: Time,
    pub(crate) lost: LostInput,
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

/// Input of the batches that run again that direct sources no longer have.
#[derive(Debug, Default)]
pub(crate) struct LostInput {
    /// By the batch's index and the source's number in the program. Everything here was reported.
    pub(crate) known: BTreeMap<(u64, u32), Vec<Lost>>,
    /// Reported losses that must still be counted: the source's number, bytes, true if they were processed before.
    pub(crate) bytes: Vec<(u32, u64, bool)>,
    /// The batches of earlier runs continue without what is lost, whatever the source says.
    pub(crate) given_up: bool,
}

/// Builds the input of the batches of earlier runs.
pub(super) struct EarlierBatches {
    pub(super) journal: Arc<Journal>,
    pub(super) direct: Vec<Reader>,
    pub(super) lost: LostInput,
    /// The number of sources of the program.
    pub(super) sources: usize,
    /// The number of workers: for a planted defect.
    pub(super) workers: usize,
}

impl EarlierBatches {
    /// The input of a batch.
    pub(super) fn input(&mut self, replay: &Replay, now: Moment) -> Result<Arc<BatchInput>> {
        let plan = &replay.plan;
        let blocks = self.blocks(replay)?;
        let direct = self.direct(replay)?;
        let records = blocks.iter().flatten().map(|block| block.info.records).sum();
        let partitions = match planted(Planted::ReplayTakesWorkers) {
            true => self.workers,
            false => usize::try_from(plan.partitions).unwrap_or(1),
        };
        Ok(Arc::new(BatchInput {
            time: plan.time(),
            index: plan.index,
            blocks,
            direct,
            records,
            due: now,
            partitions,
            id: BatchId { state: self.journal.identity(), run: plan.run, digest: plan.digest() },
        }))
    }

    fn blocks(&self, replay: &Replay) -> Result<Vec<Vec<Arc<StoredBlock>>>> {
        let mut blocks: Vec<Vec<Arc<StoredBlock>>> = vec![Vec::new(); self.sources];
        for (number, chunks) in &replay.plan.blocks {
            let Some(source) = self.source_of(*number)? else { continue };
            let read = |chunks: &ChunkRange| self.journal.block(source, chunks.clone());
            let of = usize::try_from(source).ok().and_then(|source| blocks.get_mut(source));
            *of.ok_or_else(|| gone(*number))? = chunks.iter().map(read).collect::<Result<_>>()?;
        }
        Ok(blocks)
    }

    fn direct(&mut self, Replay { plan, run }: &Replay) -> Result<BTreeMap<u32, Planned>> {
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
        Ok(ranges)
    }

    /// The source of the program that has this number in the log. `None` if the program no longer has it: then the input
    /// that a batch took of it is passed over.
    fn source_of(&self, number: u32) -> Result<Option<u32>> {
        match self.journal.source_of(number) {
            None if self.journal.knows_source(number) => Ok(None),
            None => Err(gone(number)),
            source => Ok(source),
        }
    }
}

fn gone(number: u32) -> Error {
    Error::Failed(format!("the log knows no source with the number {number}"))
}

/// Computes how far back the program needs batches.
pub(crate) fn reach(graph: &Graph) -> Reach {
    let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    Reach {
        stateless: graph.is_stateless(),
        windows: millis(graph.longest_window()),
        below_states: millis(graph.longest_window_below_state()),
    }
}
