//! The last third of the loop's work: the stop. No tick comes any more; the last batch takes the input that was read and not
//! planned, and what nobody could read later; and the end is reported once every batch is done. Runs on the thread `job-loop`.

use crate::sync::planted::{Planted, planted};
use crate::time::Time;

use super::batch_log::BatchLog;
use super::direct_sources::Direct;
use super::last_windows::Closing;
use super::{Ends, JobLoop, SchedulerNotice};

/// The most batches until all states are written once more while the log has no room.
const COMPACTION_BATCHES: u32 = 3;

/// The progress of the stop.
#[derive(Debug)]
pub(super) struct Stop {
    phase: Phase,
    /// Batches without input that may still follow, for states to be written once more.
    compactions_left: u32,
    pub(super) closing: Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Ticks make batches.
    Running,
    /// No tick comes any more: the stop was asked for, and what was read is handed over.
    Ending,
    /// Nothing more is received; the end is reported when the last batch is done.
    Draining,
}

impl Stop {
    pub(super) fn new() -> Self {
        Stop {
            phase: Phase::Running,
            compactions_left: COMPACTION_BATCHES,
            closing: Closing::default(),
        }
    }

    /// Nothing more is received from here on.
    pub(super) fn drain(&mut self) {
        self.phase = Phase::Draining;
    }

    /// True once nothing more is received.
    pub(super) fn is_draining(&self) -> bool {
        self.phase == Phase::Draining
    }
}

impl JobLoop {
    /// Takes the ticks that came before the stop, and no more.
    pub(super) fn end_ticks(&mut self) {
        self.stop.phase = self.stop.phase.max(Phase::Ending);
        let (mut ticks, now) = (self.ticks.take(), self.parts.clock.now());
        self.jobs.set.end_pauses(now);
        while let Some(time) = ticks.as_mut().and_then(|ticks| ticks.take(now)) {
            self.tick(time, now);
        }
    }

    /// The stop: the last batch takes the input that was received and not planned, under the next tick's time; several batches
    /// if it is too much for one.
    pub(super) fn last_batch(&mut self, ends: Ends) {
        self.stop.drain();
        if ends == Ends::Input {
            self.stop.closing.begin();
        }
        if !planted(Planted::FinalForgetsWaitingTick) {
            self.allocate_current();
        }
        let (blocks, _) = self.parts.tracker.unallocated();
        let mut is_left = blocks > 0 || self.sources_have_more() || self.allocator.last.is_none();
        while is_left && self.allocate_rest() {
            is_left = self.parts.tracker.unallocated().0 > 0 || self.sources_have_more();
        }
        self.advance();
        self.tell_if_drained();
    }

    fn sources_have_more(&self) -> bool {
        self.parts.direct.iter().any(Direct::has_more_for_the_stop)
    }

    /// Counts the bytes of direct sources that nobody can read after this run.
    pub(super) fn count_perished(&self) {
        let bytes = self.parts.direct.iter().map(Direct::count_perished).sum();
        self.scheduler.progress.lock().perished_bytes = bytes;
    }

    /// Gives the stored blocks to a batch under the next tick's time; true if one more batch may follow.
    fn allocate_rest(&mut self) -> bool {
        let time = self.generator.last_time(self.parts.clock.wall_time());
        if let Some(time) = time {
            self.allocate_now(time, |_| true);
        }
        time.is_some()
    }

    /// Allocates a batch for which nothing must be cut any more, with jobs for these outputs alone.
    pub(super) fn allocate_now(&mut self, time: Time, runs: impl Fn(usize) -> bool) {
        let now = self.parts.clock.now();
        self.allocator.cut_at(now);
        self.allocate_for(time, now, runs);
    }

    /// Begins a batch while the stop waits until all that was read is in the log, and the log has no room: only a batch makes
    /// room there, and no tick comes for one.
    pub(super) fn relieve_log(&mut self) {
        let is_short = || self.log.as_ref().is_some_and(BatchLog::is_short);
        if self.stop.phase != Phase::Ending || !is_short() {
            return;
        }
        self.allocate_current();
        let has_blocks = self.parts.tracker.unallocated().0 > 0;
        let frees =
            has_blocks || !self.parts.graph.is_stateless() && self.stop.compactions_left > 0;
        if self.batches() == 0 && frees {
            // A compaction begins with one batch and ends with the next.
            self.stop.compactions_left =
                if has_blocks { COMPACTION_BATCHES } else { self.stop.compactions_left - 1 };
            self.allocate_rest();
        }
    }

    pub(super) fn tell_if_drained(&mut self) {
        // After a failure nothing more is started, so what waits would never end.
        let ended = self.batches() == 0 || self.jobs.set.is_aborted();
        let is_over = ended || planted(Planted::DrainedTooEarly);
        if self.stop.is_draining() && is_over && !self.close_windows() {
            (self.parts.tell)(SchedulerNotice::Drained);
        }
    }
}
