//! The job generator: decides which ticks become batches, and when a batch may take its blocks. Pure: no threads, no
//! clock, no channel; the job loop asks and obeys.

use crate::time::{Moment, Schedule, Time};

/// Batches that may wait for their turn; beyond that a tick is skipped and its records join the next batch.
pub(super) const BATCHES_WAITING_MAX: usize = 1_000;

/// What the loop is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Cut the sources for this tick.
    Cut,
    /// Give the batch its blocks now.
    Allocate,
    /// Wait for more messages.
    Wait,
    /// No batch at this tick; its records join the next one.
    Skip,
}

/// See the module.
#[derive(Debug)]
pub(super) struct JobGenerator {
    schedule: Schedule,
    batches_max: Option<u64>,
    generated: u64,
    last: Option<Time>,
    waiting: Option<Waiting>,
}

/// A tick whose blocks are on their way to the store.
#[derive(Debug)]
struct Waiting {
    time: Time,
    sources: Vec<u32>,
    deadline: Moment,
}

impl JobGenerator {
    pub(super) fn new(schedule: Schedule, batches_max: Option<u64>) -> Self {
        JobGenerator { schedule, batches_max, generated: 0, last: None, waiting: None }
    }

    /// A tick was taken at the moment `now`, with `batches` waiting or running.
    ///
    /// An outage is seen when a later tick is already due: the missed ticks are coalesced into one batch at the last.
    pub(super) fn tick(&mut self, time: Time, now: Moment, batches: usize) -> Step {
        let next_is_due = self.schedule.due_at_label(time.plus(self.schedule.period(), 1)) <= now;
        let enough = self.batches_max.is_some_and(|max| self.generated >= max);
        let used = self.last.is_some_and(|last| last >= time);
        if enough || used || next_is_due || batches >= BATCHES_WAITING_MAX {
            Step::Skip
        } else {
            Step::Cut
        }
    }

    /// The sources were cut for the tick `time`; those in `sources` are still storing blocks.
    pub(super) fn wait_for(&mut self, time: Time, sources: Vec<u32>, deadline: Moment) -> Step {
        let settled = sources.is_empty();
        self.waiting = Some(Waiting { time, sources, deadline });
        if settled { Step::Allocate } else { Step::Wait }
    }

    /// A source has stored everything that it read before the tick `time`.
    pub(super) fn reached(&mut self, source: u32, time: Time) -> Step {
        match &mut self.waiting {
            Some(waiting) if waiting.time == time => {
                waiting.sources.retain(|other| *other != source);
                if waiting.sources.is_empty() { Step::Allocate } else { Step::Wait }
            }
            _ => Step::Wait,
        }
    }

    /// Whether a tick waits for its blocks.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// When the wait for blocks is over.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.waiting.as_ref().map(|waiting| waiting.deadline)
    }

    /// The waiting tick gets its blocks: its time is used now.
    pub(super) fn allocated(&mut self) -> Option<Time> {
        let time = self.waiting.take()?.time;
        self.last = Some(time);
        self.generated += 1;
        Some(time)
    }

    /// The time of the last batch of a run: the tick after the last used one; none if no more batches were asked for.
    pub(super) fn last_time(&mut self) -> Option<Time> {
        if self.batches_max.is_some_and(|max| self.generated >= max) {
            return None;
        }
        let time =
            self.last.map_or(self.schedule.label(0), |last| last.plus(self.schedule.period(), 1));
        self.last = Some(time);
        self.generated += 1;
        Some(time)
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::time::Interval;

    const PERIOD: Interval = Interval::millis(100);

    fn generator(batches_max: Option<u64>) -> JobGenerator {
        let schedule =
            Schedule::starting(Moment::default(), Duration::ZERO, Time::from_millis(100), PERIOD);
        JobGenerator::new(schedule, batches_max)
    }

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn time(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn a_tick_becomes_a_batch_unless_a_later_one_is_due() {
        let mut generator = generator(None);
        assert_eq!(generator.tick(time(100), at(100), 0), Step::Cut);
        assert_eq!(generator.tick(time(100), at(199), 0), Step::Cut);
        assert_eq!(generator.tick(time(100), at(200), 0), Step::Skip);
        assert_eq!(generator.tick(time(200), at(200), BATCHES_WAITING_MAX), Step::Skip);
    }

    #[test]
    fn a_batch_waits_for_every_source_or_the_deadline() {
        let mut generator = generator(None);
        assert_eq!(generator.wait_for(time(100), vec![0, 2], at(150)), Step::Wait);
        assert_eq!(generator.deadline(), Some(at(150)));
        assert_eq!(generator.reached(0, time(100)), Step::Wait);
        assert_eq!(generator.reached(2, time(0)), Step::Wait, "a mark of an older tick");
        assert_eq!(generator.reached(2, time(100)), Step::Allocate);
        assert_eq!(generator.allocated(), Some(time(100)));
        assert_eq!(generator.allocated(), None);
        assert_eq!(generator.wait_for(time(200), vec![], at(250)), Step::Allocate);
    }

    #[test]
    fn the_last_batch_carries_the_next_ticks_time() {
        let mut early = generator(None);
        assert_eq!(early.last_time(), Some(time(100)));
        let mut later = generator(Some(2));
        later.wait_for(time(300), vec![], at(300));
        later.allocated();
        assert_eq!(later.last_time(), Some(time(400)));
        assert_eq!(later.last_time(), None, "two batches were asked for");
    }

    proptest! {
        /// Over arbitrary overruns: times rise, none is used twice, and the last tick due is never left out.
        #[test]
        fn batch_times_rise_and_the_last_tick_is_never_left_out(delays in prop::collection::vec(0u64..450, 1..60)) {
            let mut generator = generator(None);
            let (mut now, mut next, mut used) = (0, 1, Vec::new());
            for delay in delays {
                now += delay;
                while next * 100 <= now {
                    if generator.tick(time(next * 100), at(now), 0) == Step::Cut {
                        generator.wait_for(time(next * 100), vec![], at(now));
                        used.extend(generator.allocated());
                    }
                    next += 1;
                }
                if next > 1 {
                    prop_assert_eq!(used.last().copied(), Some(time((next - 1) * 100)));
                }
            }
            used.extend(generator.last_time());
            prop_assert!(used.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
