//! Rows, keys and owners for the tests of the sinks.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{CommitKey, Row, Rows};
use crate::blocks::{Block, BlockId, Range};
use crate::framing::Framing;
use crate::owner::{BatchId, Lineage, Output, Owner, PlanDigest, StartMark, StateId};
use crate::sync::Arc;
use crate::time::Time;

pub(super) fn key(job: &str, ms: u64) -> CommitKey {
    CommitKey::new("p", job, Time::from_millis(ms), 0)
}

pub(super) fn rows<R: Row>(elements: &[R]) -> Rows {
    let mut rows = Rows::new();
    elements.iter().for_each(|element| rows.push(element));
    rows
}
/// Lines as they were received, with their terminators.
pub(super) fn lines(ranges: &[&str]) -> Rows {
    let range = |text: &&str| {
        let records = text.bytes().filter(|byte| *byte == b'\n').count() as u64;
        Range::new(Bytes::copy_from_slice(text.as_bytes()), records)
    };
    let id = BlockId { source: 0, number: 0 };
    let block = Block::new(id, Framing::Lines, ranges.iter().map(range).collect());
    Rows::of_lines(Arc::new(block)).expect("lines")
}

/// The knowledge of a state directory, as far as it matters to a sink.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) identity: StateId,
    pub(super) starts: Vec<StartMark>,
    /// The start that planned each batch.
    pub(super) planned: BTreeMap<u64, u64>,
    pub(super) outputs: Vec<Output>,
}

impl State {
    pub(super) fn new(identity: u8) -> State {
        State { identity: StateId([identity; 16]), ..State::default() }
    }

    /// The next start; `mark` tells it from one on a copy.
    pub(super) fn start(&mut self, mark: u64) -> Owner {
        let (run, after) = (self.starts.len() as u64 + 1, self.planned.keys().next_back().copied());
        self.starts.push(StartMark { run, mark, after });
        Owner {
            pipeline: "p".to_owned(),
            place: Some("state".to_owned()),
            identity: self.identity,
            lineage: Lineage::new(self.starts.clone()),
            adoption: None,
            is_new: false,
            outputs: self.outputs.clone(),
            expected: Vec::new(),
        }
    }

    /// Plans a batch, unless that was done; its key.
    pub(super) fn plan(&mut self, job: &str, ms: u64) -> CommitKey {
        let run = *self.planned.entry(ms).or_insert(self.starts.len() as u64);
        let digest = PlanDigest([u8::try_from(ms % 251).expect("small"); 16]);
        key(job, ms).with_id(BatchId { state: self.identity, run, digest })
    }
}
