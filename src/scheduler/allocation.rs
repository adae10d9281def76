//! The first third of the loop's work: from the moment of a batch to the batch that has its input. Sources are cut, what they
//! stored is allocated, and the batch may run when it is its turn. Which moments become batches is decided in
//! [`super::ticks`]. Runs on the thread `job-loop`; it knows nothing of jobs that run.

use crate::metrics::{BatchRecord, BatchState, Moments};
use crate::owner::BatchId;
use crate::source::ingest::handover::Cut;
use crate::stream::BatchInput;
use crate::sync::Arc;
use crate::time::{Moment, Time};

use super::ticks::Step;
use super::{JobLoop, SchedulerNotice, direct_sources};

impl JobLoop {
    /// Cuts every source for the batch `time`.
    pub(super) fn begin(&mut self, time: Time, due: Moment, now: Moment) {
        // A tick while an older one still waits for its blocks: they are all cut, so the older batch takes what is here.
        if self.generator.is_waiting() {
            self.allocate_current();
        }
        let mut pending = Vec::new();
        for (source, cutter) in &self.parts.cutters {
            match cutter.cut_for(time) {
                Cut::Pending => pending.push(*source),
                Cut::Settled | Cut::Held => {}
            }
        }
        self.cut = self.parts.clock.now();
        self.stored = self.cut;
        let deadline = now.plus(self.options.allocate_wait);
        if self.generator.wait_for(time, due, pending, deadline) == Step::Allocate {
            self.allocate_current();
        }
    }

    pub(super) fn allocate_if_due(&mut self) {
        let now = self.parts.clock.now();
        if self.generator.allocate_deadline().is_some_and(|at| now >= at) {
            self.stored = now;
            self.allocate_current();
        }
    }

    pub(super) fn allocate_current(&mut self) {
        if let Some((time, due)) = self.generator.allocated() {
            self.allocate(time, due);
        }
    }

    pub(super) fn allocate(&mut self, time: Time, due: Moment) {
        self.allocate_for(time, due, |_| true);
    }

    /// The same, with jobs for these outputs alone.
    pub(super) fn allocate_for(&mut self, time: Time, due: Moment, runs: impl Fn(usize) -> bool) {
        let blocks = self.parts.tracker.allocate(time, self.fit.input_max());
        let records: u64 = blocks.iter().flatten().map(|block| block.info.records).sum();
        if let Some(arrivals) = &self.parts.arrivals {
            arrivals.take(records);
        }
        let direct = direct_sources::plan(&mut self.parts.direct, time, self.draining);
        let must_run = || self.parts.graph.must_run(self.last, time);
        let is_empty = records == 0 && direct.values().all(|planned| planned.plan.is_empty());
        if self.options.skip_empty && is_empty && !must_run() {
            self.parts.tracker.commit(time);
            let mut progress = self.scheduler.progress.lock();
            progress.left_out += 1;
            progress.is_over(time, true);
            drop(progress);
            if self.parts.tell_batches {
                (self.parts.tell)(SchedulerNotice::BatchDone);
            }
            return;
        }
        let mut input = BatchInput {
            time,
            index: self.index,
            blocks,
            direct,
            records,
            due,
            partitions: self.parts.workers.workers(),
            id: BatchId { state: self.parts.identity, ..BatchId::default() },
        };
        if let Some(log) = &self.log {
            input.id = log.id(&input);
        }
        self.index += 1;
        self.last = Some(time);
        self.count_waiting(&input);
        let input = Arc::new(input);
        match &mut self.log {
            Some(log) => log.allocated(input),
            None => self.admit(input, runs),
        }
    }

    /// A batch has its blocks.
    pub(super) fn count_waiting(&mut self, input: &BatchInput) {
        self.remember(input);
        let mut progress = self.scheduler.progress.lock();
        progress.batches_waiting += 1;
        progress.records_waiting += input.records;
    }

    /// A batch may run when it is its turn: the jobs of these outputs.
    pub(super) fn admit(&mut self, input: Arc<BatchInput>, runs: impl Fn(usize) -> bool) {
        let (time, due, records) = (input.time, input.due, input.records);
        let of_source = |source: u32| input.block_records(source);
        self.steering.allocated(self.parts.clock.now(), due, of_source, records);
        self.jobs.admit(time, input, runs);
        if self.jobs.is_without_jobs() {
            self.batch_done(time, BatchState::Done);
        }
    }

    /// Adds a batch that has its blocks to the history.
    fn remember(&self, input: &BatchInput) {
        let blocks = || input.blocks.iter().flatten();
        let moments = Moments {
            read: blocks().filter_map(|block| block.info.first_read).min(),
            due: input.due,
            cut: self.cut.max(input.due),
            stored: self.stored.max(input.due),
            allocated: self.parts.clock.now(),
            ..Moments::default()
        };
        self.parts.history.add(BatchRecord {
            time: input.time,
            records: input.records,
            bytes: input.block_bytes() + direct_sources::bytes(input),
            blocks: blocks().count(),
            state: BatchState::Waiting,
            failures: 0,
            error: None,
            moments,
        });
    }

    /// Begins the batches of missed ticks that had to wait because too many batches did.
    pub(super) fn replay_deferred(&mut self) {
        while !self.draining
            && let Some(time) = self.generator.deferred(self.batches())
        {
            let now = self.parts.clock.now();
            self.begin(time, self.due(time), now);
            if self.generator.is_waiting() {
                return;
            }
        }
    }
}
