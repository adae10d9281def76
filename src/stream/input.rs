//! `BatchInput`: the input of a batch; `Replay`: the way to run it again. Plain data; knows no graph.

use std::collections::BTreeMap;

use crate::blocks::manager::StoredBlock;
use crate::owner::BatchId;
use crate::source::direct::Planned;
use crate::sync::Arc;
use crate::time::{Moment, Time};

/// The input of a batch; a second attempt and a replay use the same.
#[derive(Debug)]
pub struct BatchInput {
    /// The batch's time.
    pub time: Time,
    /// The number of the batch in this run, from 0.
    pub index: u64,
    /// The blocks of each source, by the number of the source, in the order in which they were received.
    pub blocks: Vec<Vec<Arc<StoredBlock>>>,
    /// The portions of each direct source, by the number of the source; no entry if the source has no batch at this time.
    pub direct: BTreeMap<u32, Planned>,
    /// Records in the blocks.
    pub records: u64,
    /// The moment at which the batch was due.
    pub due: Moment,
    /// Number of hash partitions of keyed operators; at least one.
    pub partitions: usize,
    /// The identity of its plan.
    pub id: BatchId,
}

impl BatchInput {
    /// Records in the blocks, and in the portions of direct sources as far as they were read.
    pub fn all_records(&self) -> u64 {
        let portions = self.direct.values().flat_map(|planned| &planned.portions);
        self.records + portions.map(|portion| portion.records()).sum::<u64>()
    }

    /// Records in the blocks of a source.
    pub(crate) fn block_records(&self, source: u32) -> u64 {
        let blocks = usize::try_from(source).ok().and_then(|at| self.blocks.get(at));
        blocks.map_or(0, |blocks| blocks.iter().map(|block| block.info.records).sum())
    }

    /// Bytes in the blocks.
    pub(crate) fn block_bytes(&self) -> u64 {
        self.blocks.iter().flatten().map(|block| block.info.bytes).sum()
    }
}

/// The way to run a batch again that was done before a restart. Its outputs do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Windows take in what the batch brought; states stay as they are, and show nothing.
    Windows,
    /// Windows and states take in what the batch brought.
    States,
}
