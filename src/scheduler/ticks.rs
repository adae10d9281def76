//! `JobGenerator`: decides which ticks become batches, and when a batch may take its blocks. Pure: no threads, no clock, no
//! channel; the job loop asks and obeys.

use crate::time::{Interval, Moment, Schedule, Time};

/// The most batches that wait for their turn; beyond that a tick makes none and its records join the next batch.
pub(super) const BATCHES_WAITING_MAX: usize = 1_000;

/// The batches that are made up after an outage: when the job loop takes a tick and a later one is due already, or after a
/// restart. None of these drops a record; see [`Config::catch_up`](crate::Config::catch_up).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// A batch for each missed interval, one after the other, with its nominal time. The first takes what was read.
    Replay,
    /// One batch, at the last missed tick; windows that fell due in between are computed once, there.
    #[default]
    Coalesce,
    /// No batch; the records wait for the next regular one.
    Skip,
}

/// The count and the time-out at which batches are cut, in place of an interval; see
/// [`Config::trigger`](crate::Config::trigger).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The number of records that make a batch, at least 1.
    pub records: u64,
    /// The time after the last batch at which the next one takes what is there.
    pub timeout: Interval,
}

/// The next step of the loop.
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

/// The trigger of batches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// At the ticks of a schedule.
    Every(Schedule, CatchUp),
    /// After a number of records, or this long after the last one.
    OnRecords(Trigger),
}

/// See the module.
#[derive(Debug)]
pub(super) struct JobGenerator {
    pace: Pace,
    batches_max: Option<u64>,
    generated: u64,
    last: Option<Time>,
    waiting: Option<Waiting>,
    /// A tick was missed, and the last missed one has not been taken yet.
    outage: bool,
    /// Ticks to be replayed once fewer batches wait: the first and the last.
    deferred: Option<(Time, Time)>,
    /// The last tick that was missed before the start, if a batch is made up for it.
    missed: Option<Time>,
    /// The end of the trigger's time-out.
    timeout: Moment,
}

/// A tick whose blocks are on their way to the store.
#[derive(Debug)]
struct Waiting {
    time: Time,
    due: Moment,
    sources: Vec<u32>,
    deadline: Moment,
}

impl JobGenerator {
    /// A generator that starts at the moment `now`.
    pub(super) fn new(pace: Pace, batches_max: Option<u64>, now: Moment) -> Self {
        let mut generator = JobGenerator {
            pace,
            batches_max,
            generated: 0,
            last: None,
            waiting: None,
            outage: false,
            deferred: None,
            missed: None,
            timeout: now,
        };
        generator.restart_timeout(now);
        generator
    }

    /// An earlier run planned batches up to `last`: ticks between it and the first of this run were missed.
    pub(super) fn resume(&mut self, last: Time) {
        self.last = Some(last);
        let Pace::Every(schedule, catch_up) = self.pace else { return };
        let first = last.plus(schedule.period(), 1);
        let missed = schedule.label(0).as_millis().saturating_sub(schedule.period().as_millis());
        let missed = Time::from_millis(missed);
        if missed >= first {
            match catch_up {
                CatchUp::Replay => self.deferred = Some((first, missed)),
                CatchUp::Coalesce => self.missed = Some(missed),
                CatchUp::Skip => {}
            }
        }
    }

    /// Takes the tick before this run that one batch stands for.
    pub(super) fn missed_before_start(&mut self) -> Option<Time> {
        self.missed.take()
    }

    /// A tick was taken at the moment `now`, with `batches` waiting or running.
    ///
    /// An outage is seen when a later tick is already due; it lasts until a tick is taken with none due after it.
    pub(super) fn tick(&mut self, time: Time, now: Moment, batches: usize) -> Step {
        let Pace::Every(schedule, catch_up) = self.pace else { return Step::Skip };
        let next_is_due = schedule.due_at_label(time.plus(schedule.period(), 1)) <= now;
        let missed = std::mem::replace(&mut self.outage, next_is_due) || next_is_due;
        let used = self.last.is_some_and(|last| last >= time);
        if self.is_enough() || used {
            return Step::Skip;
        }
        let full = batches >= BATCHES_WAITING_MAX || self.deferred.is_some();
        match catch_up {
            CatchUp::Replay if full => {
                let first = self.deferred.map_or(time, |(first, _)| first);
                self.deferred = Some((first, time));
                Step::Skip
            }
            CatchUp::Replay => Step::Cut,
            CatchUp::Coalesce if full || next_is_due => Step::Skip,
            CatchUp::Coalesce => Step::Cut,
            CatchUp::Skip if full || missed => Step::Skip,
            CatchUp::Skip => Step::Cut,
        }
    }

    /// The next tick to be replayed, if `batches` waiting or running leave room for it.
    pub(super) fn deferred(&mut self, batches: usize) -> Option<Time> {
        let Pace::Every(schedule, _) = self.pace else { return None };
        let (first, last) = self.deferred?;
        if batches >= BATCHES_WAITING_MAX || self.is_enough() {
            return None;
        }
        self.deferred = (first < last).then(|| (first.plus(schedule.period(), 1), last));
        Some(first)
    }

    /// With a trigger: the time of a batch that must be cut now, because `enough` records are there or the time-out is over.
    /// `wall` is the wall clock's label; a batch is at least a millisecond after the last.
    pub(super) fn fires(
        &mut self,
        enough: bool,
        wall: Time,
        now: Moment,
        batches: usize,
    ) -> Option<Time> {
        let Pace::OnRecords(_) = self.pace else { return None };
        let over = now >= self.timeout;
        if self.waiting.is_some() || !(enough || over) {
            return None;
        }
        if over {
            self.restart_timeout(now);
        }
        if batches >= BATCHES_WAITING_MAX || self.is_enough() {
            return None;
        }
        self.restart_timeout(now);
        Some(self.label_after_last(wall))
    }

    /// The sources were cut for the tick `time`, which was due at `due`; those in `sources` are still storing blocks.
    pub(super) fn wait_for(
        &mut self,
        time: Time,
        due: Moment,
        sources: Vec<u32>,
        deadline: Moment,
    ) -> Step {
        let settled = sources.is_empty();
        self.waiting = Some(Waiting { time, due, sources, deadline });
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

    /// True if a tick waits for its blocks.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The end of the wait for blocks.
    pub(super) fn allocate_deadline(&self) -> Option<Moment> {
        self.waiting.as_ref().map(|waiting| waiting.deadline)
    }

    /// The time of the next step without a message: the end of a wait for blocks, or the trigger's time-out.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match (self.allocate_deadline(), self.pace) {
            (None, Pace::OnRecords(_)) => Some(self.timeout),
            (deadline, _) => deadline,
        }
    }

    /// The waiting tick gets its blocks, and its time is used now. Returns its time, and the moment at which it was due.
    pub(super) fn allocated(&mut self) -> Option<(Time, Moment)> {
        let Waiting { time, due, .. } = self.waiting.take()?;
        self.last = Some(time);
        self.generated += 1;
        Some((time, due))
    }

    /// The time of the last batch of a run: the tick after the last used one; `None` if no more batches were asked for.
    pub(super) fn last_time(&mut self, wall: Time) -> Option<Time> {
        if self.is_enough() {
            return None;
        }
        let time = match self.pace {
            Pace::Every(schedule, _) => {
                self.last.map_or(schedule.label(0), |last| last.plus(schedule.period(), 1))
            }
            Pace::OnRecords(_) => self.label_after_last(wall),
        };
        self.last = Some(time);
        self.generated += 1;
        Some(time)
    }

    fn is_enough(&self) -> bool {
        self.batches_max.is_some_and(|max| self.generated >= max)
    }

    fn label_after_last(&self, wall: Time) -> Time {
        self.last.map_or(wall, |last| wall.max(last.plus(Interval::millis(1), 1)))
    }

    fn restart_timeout(&mut self, now: Moment) {
        if let Pace::OnRecords(trigger) = self.pace {
            self.timeout = now.plus(trigger.timeout.as_duration());
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PERIOD: Interval = Interval::millis(100);

    fn generator(catch_up: CatchUp, batches_max: Option<u64>) -> JobGenerator {
        let schedule =
            Schedule::starting(Moment::default(), Duration::ZERO, Time::from_millis(100), PERIOD);
        JobGenerator::new(Pace::Every(schedule, catch_up), batches_max, Moment::default())
    }

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn time(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// Takes the tick `label` at the moment `now` with no batch waiting; the batch gets its blocks at once.
    fn take(generator: &mut JobGenerator, label: u64, now: u64) -> bool {
        let cut = generator.tick(time(label), at(now), 0) == Step::Cut;
        if cut {
            generator.wait_for(time(label), at(label), vec![], at(now));
            generator.allocated();
        }
        cut
    }

    /// Ticks as (label, moment at which it is taken), and the labels of the batches.
    fn check(catch_up: CatchUp, ticks: &[(u64, u64)], expected: &[u64]) {
        let mut generator = generator(catch_up, None);
        let made = |(label, now): &(u64, u64)| take(&mut generator, *label, *now).then_some(*label);
        let batches: Vec<u64> = ticks.iter().filter_map(made).collect();
        assert_eq!(batches, expected, "{catch_up:?} {ticks:?}");
    }

    #[test]
    fn a_tick_becomes_a_batch_unless_a_later_one_is_due() {
        let mut generator = generator(CatchUp::Coalesce, None);
        assert_eq!(generator.tick(time(100), at(100), 0), Step::Cut);
        assert_eq!(generator.tick(time(100), at(199), 0), Step::Cut);
        assert_eq!(generator.tick(time(100), at(200), 0), Step::Skip);
        assert_eq!(generator.tick(time(200), at(200), BATCHES_WAITING_MAX), Step::Skip);
    }

    #[test]
    fn ways_to_catch_up() {
        use CatchUp::{Coalesce, Replay, Skip};
        let on_time = [(100, 100), (200, 201), (300, 399)];
        let outage = [(100, 100), (200, 455), (300, 455), (400, 456), (500, 500)];
        let twice = [(100, 250), (200, 250), (300, 399), (400, 650), (500, 650), (600, 650)];
        for catch_up in [Replay, Coalesce, Skip] {
            check(catch_up, &on_time, &[100, 200, 300]);
        }
        check(Replay, &outage, &[100, 200, 300, 400, 500]);
        check(Coalesce, &outage, &[100, 400, 500]);
        check(Skip, &outage, &[100, 500]);
        check(Replay, &twice, &[100, 200, 300, 400, 500, 600]);
        check(Coalesce, &twice, &[200, 300, 600]);
        check(Skip, &twice, &[300]);
    }

    #[test]
    fn replayed_ticks_wait_while_too_many_batches_do() {
        let mut generator = generator(CatchUp::Replay, None);
        assert_eq!(generator.tick(time(100), at(400), BATCHES_WAITING_MAX), Step::Skip);
        assert_eq!(generator.tick(time(200), at(400), 0), Step::Skip, "not before the first");
        assert_eq!(generator.deferred(BATCHES_WAITING_MAX), None);
        assert_eq!(generator.deferred(BATCHES_WAITING_MAX - 1), Some(time(100)));
        assert_eq!(generator.tick(time(300), at(400), 0), Step::Skip);
        assert_eq!(
            (generator.deferred(0), generator.deferred(0)),
            (Some(time(200)), Some(time(300)))
        );
        assert_eq!(generator.deferred(0), None);
        assert_eq!(generator.tick(time(400), at(400), 0), Step::Cut);
    }

    #[test]
    fn a_batch_waits_for_every_source_or_the_deadline() {
        let mut generator = generator(CatchUp::Coalesce, None);
        assert_eq!(generator.wait_for(time(100), at(100), vec![0, 2], at(150)), Step::Wait);
        assert_eq!(generator.deadline(), Some(at(150)));
        assert_eq!(generator.reached(0, time(100)), Step::Wait);
        assert_eq!(generator.reached(2, time(0)), Step::Wait, "a mark of an older tick");
        assert_eq!(generator.reached(2, time(100)), Step::Allocate);
        assert_eq!(generator.allocated(), Some((time(100), at(100))));
        assert_eq!(generator.allocated(), None);
        assert_eq!(generator.wait_for(time(200), at(200), vec![], at(250)), Step::Allocate);
    }

    #[test]
    fn the_last_batch_carries_the_next_ticks_time() {
        let mut early = generator(CatchUp::Coalesce, None);
        assert_eq!(early.last_time(time(7)), Some(time(100)));
        let mut later = generator(CatchUp::Coalesce, Some(2));
        later.wait_for(time(300), at(300), vec![], at(300));
        later.allocated();
        assert_eq!(later.last_time(time(7)), Some(time(400)));
        assert_eq!(later.last_time(time(7)), None, "two batches were asked for");
    }

    #[test]
    fn a_trigger_fires_at_enough_records_or_at_the_time_out() {
        let trigger = Trigger { records: 10, timeout: Interval::millis(200) };
        let mut generator = JobGenerator::new(Pace::OnRecords(trigger), None, at(0));
        assert_eq!(generator.deadline(), Some(at(200)));
        assert_eq!(generator.fires(false, time(1_000), at(199), 0), None);
        assert_eq!(generator.fires(true, time(1_000), at(50), 0), Some(time(1_000)));
        generator.wait_for(time(1_000), at(50), vec![0], at(60));
        assert_eq!(generator.fires(true, time(1_001), at(55), 0), None, "one at a time");
        assert_eq!(generator.deadline(), Some(at(60)));
        generator.allocated();
        assert_eq!(generator.deadline(), Some(at(250)), "the time-out begins at the last batch");
        assert_eq!(
            generator.fires(false, time(1), at(250), 0),
            Some(time(1_001)),
            "a clock set back"
        );
        assert_eq!(generator.fires(true, time(2_000), at(251), BATCHES_WAITING_MAX), None);
        assert_eq!(generator.last_time(time(3_000)), Some(time(3_000)));
        assert_eq!(generator.last_time(time(3_000)), Some(time(3_001)));
        assert_eq!(generator.tick(time(4_000), at(300), 0), Step::Skip, "there are no ticks");
    }

    /// The batches of a run whose ticks are taken with these delays, each as (label, moment at which it was taken).
    fn run(catch_up: CatchUp, delays: &[u64]) -> (Vec<(u64, u64)>, u64) {
        let mut generator = generator(catch_up, None);
        let (mut now, mut next, mut used) = (0, 1, Vec::new());
        for delay in delays {
            now += delay;
            while next * 100 <= now {
                if take(&mut generator, next * 100, now) {
                    used.push((next * 100, now));
                }
                next += 1;
            }
        }
        if let Some(last) = generator.last_time(time(0)) {
            used.push((last.as_millis(), now));
        }
        (used, (next - 1) * 100)
    }

    proptest! {
        /// Over arbitrary overruns: times rise, none is used twice; replay leaves out none, coalesce never the last one
        /// due, skip only missed ones.
        #[test]
        fn batch_times_rise_and_missed_ticks_follow_the_policy(delays in prop::collection::vec(0u64..450, 1..60)) {
            for catch_up in [CatchUp::Replay, CatchUp::Coalesce, CatchUp::Skip] {
                let (used, ticks) = run(catch_up, &delays);
                prop_assert!(used.windows(2).all(|pair| pair[0].0 < pair[1].0));
                let batches: Vec<u64> = used[..used.len() - 1].iter().map(|(label, _)| *label).collect();
                match catch_up {
                    CatchUp::Replay => prop_assert_eq!(batches, (1..=ticks / 100).map(|n| n * 100).collect::<Vec<_>>()),
                    CatchUp::Coalesce => {
                        prop_assert_eq!(batches.last().copied(), (ticks > 0).then_some(ticks));
                        prop_assert!(used.iter().all(|(label, now)| now.saturating_sub(*label) < 100));
                    }
                    CatchUp::Skip => {
                        let mut moments: Vec<u64> = used[..used.len() - 1].iter().map(|(_, now)| *now).collect();
                        moments.dedup();
                        prop_assert_eq!(moments.len(), batches.len(), "never two batches at one moment");
                    }
                }
            }
        }
    }
}
