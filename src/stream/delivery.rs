//! `Delivery`: the key of a batch and the times for people, for the output that hands it over. Knows no operator.

use super::BatchInput;
use super::plan::committed::CommittedBatches;
use super::plan::lacks::Reads;
use crate::sink::{BatchMeta, CommitKey};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Moment};

/// The facts that an output needs to hand over a batch.
pub(super) struct Delivery {
    pub(super) pipeline: Arc<str>,
    pub(super) job: Arc<str>,
    pub(super) input: Arc<BatchInput>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) committed: Arc<CommittedBatches>,
    pub(super) reads: Reads,
    /// Set when the job begins, which may be after it was planned together with another one.
    pub(super) started: Arc<Mutex<Moment>>,
}

impl Delivery {
    pub(super) fn key(&self) -> CommitKey {
        CommitKey {
            pipeline: Arc::clone(&self.pipeline),
            job: Arc::clone(&self.job),
            time: self.input.time,
            partition: 0,
            id: self.input.id,
        }
    }

    pub(super) fn meta(&self) -> BatchMeta {
        let (started, now) = (*self.started.lock(), self.clock.now());
        BatchMeta {
            records: self.input.all_records(),
            scheduling_delay_us: micros(self.input.due, started),
            processing_us: micros(started, now),
            total_us: micros(self.input.due, now),
            incomplete: self.committed.lacks.are_in(&self.reads, &self.input),
        }
    }
}

fn micros(from: Moment, to: Moment) -> u64 {
    u64::try_from(to.since(from).as_micros()).unwrap_or(u64::MAX)
}
