//! The first third of the loop's work: from the time of a batch to the batch with its input. Sources are cut, the blocks that
//! they stored are allocated, and the batch may run when it is its turn. [`super::ticks`] decides which ticks become
//! batches. Runs on the thread `job-loop`; it knows nothing of jobs that run.

use crate::metrics::{BatchRecord, BatchState, Moments};
use crate::owner::BatchId;
use crate::source::ingest::handover::Cut;
use crate::stream::BatchInput;
use crate::sync::Arc;
use crate::time::{Moment, Time};

use super::admission::Admission;
use super::ticks::Step;
use super::{JobLoop, SchedulerNotice, direct_sources};

/// The numbers and moments of the batch that gets its blocks next.
pub(super) struct Allocator {
    pub(super) admission: Admission,
    /// The moment at which the waiting tick was cut.
    cut: Moment,
    /// The moment at which the last source that the tick waits for had stored what was cut.
    pub(super) stored: Moment,
    /// The number of the next batch; with a log it counts on over all starts.
    next_index: u64,
    /// The last batch that was allocated.
    pub(super) last: Option<Time>,
}

impl Allocator {
    /// `next_index` and `last`: the first batch of this run, and the last one of an earlier run.
    pub(super) fn new(admission: Admission, next_index: u64, last: Option<Time>) -> Self {
        let (cut, stored) = (Moment::default(), Moment::default());
        Allocator { admission, cut, stored, next_index, last }
    }

    /// The sources were cut at this moment; nothing is awaited yet.
    pub(super) fn cut_at(&mut self, now: Moment) {
        (self.cut, self.stored) = (now, now);
    }
}

impl JobLoop {
    /// Cuts every source for the batch `time`.
    pub(super) fn begin(&mut self, time: Time, due: Moment, now: Moment) {
        // A tick while an older one still waits for its blocks: everything is cut, so the older batch takes what is stored.
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
        self.allocator.cut_at(self.parts.clock.now());
        let deadline = now.plus(self.options.allocate_wait);
        if self.generator.wait_for(time, due, pending, deadline) == Step::Allocate {
            self.allocate_current();
        }
    }

    pub(super) fn allocate_if_due(&mut self) {
        let now = self.parts.clock.now();
        if self.generator.allocate_deadline().is_some_and(|at| now >= at) {
            self.allocator.stored = now;
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
        let blocks = self.parts.tracker.allocate(time, self.allocator.admission.input_max());
        let records: u64 = blocks.iter().flatten().map(|block| block.info.records).sum();
        if let Some(arrivals) = &self.parts.arrivals {
            arrivals.take(records);
        }
        let direct = direct_sources::plan(&mut self.parts.direct, time, self.stop.is_draining());
        let must_run = || self.parts.graph.must_run(self.allocator.last, time);
        let is_empty = records == 0 && direct.values().all(|planned| planned.plan.is_empty());
        if self.options.skip_empty && is_empty && !must_run() {
            return self.leave_out(time);
        }
        let mut input = BatchInput {
            time,
            index: self.allocator.next_index,
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
        self.allocator.next_index += 1;
        self.allocator.last = Some(time);
        self.count_waiting(&input);
        let input = Arc::new(input);
        match &mut self.log {
            Some(log) => log.allocated(input),
            None => self.admit(input, runs),
        }
    }

    /// An empty batch is done without a job.
    fn leave_out(&self, time: Time) {
        self.parts.tracker.commit(time);
        let mut progress = self.scheduler.progress.lock();
        progress.left_out += 1;
        progress.is_over(time, true);
        drop(progress);
        if self.parts.tell_batches {
            (self.parts.tell)(SchedulerNotice::BatchDone);
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
        let time = input.time;
        self.steering.allocated(self.parts.clock.now(), &input);
        self.jobs.set.admit(time, input, runs);
        if self.jobs.set.is_without_jobs() {
            self.batch_done(time, BatchState::Done);
        }
    }

    /// Adds a batch that has its blocks to the history.
    fn remember(&self, input: &BatchInput) {
        let blocks = || input.blocks.iter().flatten();
        let moments = Moments {
            read: blocks().filter_map(|block| block.info.first_read).min(),
            due: input.due,
            cut: self.allocator.cut.max(input.due),
            stored: self.allocator.stored.max(input.due),
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
        while !self.stop.is_draining()
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
