//! `RecurringTimer`: a thread that calls back at each tick of a [`Schedule`]. It knows nothing of the purpose of a tick.
//!
//! ```text
//! wall   ──┬────────┬────────┬────────┬──▶   labels: multiples of the period, fixed when the schedule starts
//!       5000     10000    15000    20000
//! mono   ──┴────────┴────────┴────────┴──▶   deadlines: first deadline + k × period, whatever the wall clock does
//! ```
//! The timer skips no tick: after an overrun it fires the missed ones with their nominal times, one after the other, never
//! two at once (they share one thread).

use std::io;
use std::time::Duration;

use crate::sync::planted::{Planted, planted};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicU64, Ordering, Poison, Signal, StopToken};

use super::{Clock, Interval, Moment, Time};

/// The ticks of a period: pure arithmetic, the same for every clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    first: Time,
    start: Moment,
    period: Interval,
}

impl Schedule {
    /// Ticks at the multiples of `period`, the first strictly after now.
    pub fn aligned(clock: &dyn Clock, period: Interval) -> Self {
        let wall = clock.wall();
        Schedule::starting(clock.now(), wall, clock.wall_time().next_multiple(period), period)
    }

    /// Ticks from `first` on, a label later than `wall`, the wall time that the clock showed at the moment `now`. A period of
    /// zero counts as one millisecond: time must pass between two ticks.
    pub fn starting(now: Moment, wall: Duration, first: Time, period: Interval) -> Self {
        let until_first = Duration::from_millis(first.as_millis()).saturating_sub(wall);
        Schedule { first, start: now.plus(until_first), period: period.or_shortest() }
    }

    /// The label of tick number `index`, counted from 0.
    pub fn label(&self, index: u64) -> Time {
        self.first.plus(self.period, index)
    }

    /// The moment at which tick number `index` is due.
    pub fn due(&self, index: u64) -> Moment {
        let nanos = self.period.as_millis().saturating_mul(1_000_000).saturating_mul(index);
        self.start.plus(Duration::from_nanos(nanos))
    }

    /// Number of ticks that are due at or before `now`.
    pub fn due_at(&self, now: Moment) -> u64 {
        if now < self.start {
            return 0;
        }
        let period = self.period.as_duration().as_nanos();
        u64::try_from(now.since(self.start).as_nanos() / period).map_or(u64::MAX, |ticks| ticks + 1)
    }

    /// The time between two ticks.
    pub fn period(&self) -> Interval {
        self.period
    }

    /// The moment at which the tick labelled `label` is due.
    pub fn due_at_label(&self, label: Time) -> Moment {
        let millis = label.as_millis().saturating_sub(self.first.as_millis());
        self.start.plus(Duration::from_millis(millis))
    }
}

/// The ticks of a schedule for a thread that waits for them itself, beside other things. Each tick is taken once, in order,
/// with its nominal time, however late.
#[derive(Debug)]
pub struct Ticks {
    schedule: Schedule,
    taken: u64,
}

impl Ticks {
    /// All ticks of the schedule, from the first on.
    pub fn new(schedule: Schedule) -> Self {
        Ticks { schedule, taken: 0 }
    }

    /// The moment at which the next tick is due.
    pub fn due(&self) -> Moment {
        self.schedule.due(self.taken)
    }

    /// Takes the next tick if it is due at the moment `now`, and returns its label.
    pub fn take(&mut self, now: Moment) -> Option<Time> {
        if now < self.due() {
            return None;
        }
        self.taken += 1;
        Some(self.schedule.label(self.taken - 1))
    }
}

/// A running timer; stopping or dropping it wakes and joins its thread.
#[derive(Debug)]
pub struct RecurringTimer {
    stop: StopToken,
    /// Number of ticks fired so far; the label of the last one follows from the schedule.
    fired: Arc<AtomicU64>,
    schedule: Schedule,
    thread: Option<Thread>,
}

impl RecurringTimer {
    /// Starts a thread named `name` that calls `tick` with each label of `schedule`.
    ///
    /// # Errors
    /// If the operating system gives no more threads.
    pub fn start(
        name: &str,
        clock: Arc<dyn Clock>,
        schedule: Schedule,
        poison: &Poison,
        mut tick: impl FnMut(Time) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = StopToken::new();
        let signal = Signal::new();
        if !planted(Planted::TimerSleepsThroughStop) {
            stop.wakes(&signal);
        }
        let fired = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (stop.clone(), Arc::clone(&fired));
        let body = move || {
            super::tighten_timer_slack();
            let mut index = 0;
            while wait_until_due(clock.as_ref(), &signal, &stopped, schedule.due(index)) {
                tick(schedule.label(index));
                index += 1;
                count.store(index, Ordering::SeqCst);
            }
        };
        let thread = thread::spawn(name, poison, body)?;
        Ok(RecurringTimer { stop, fired, schedule, thread: Some(thread) })
    }

    /// The label of the last tick that fired, if any.
    pub fn last_tick(&self) -> Option<Time> {
        self.fired.load(Ordering::SeqCst).checked_sub(1).map(|index| self.schedule.label(index))
    }

    /// Tells the thread to end, and returns it for the caller to join: a callback may still run.
    pub fn halt(mut self) -> Option<Thread> {
        self.stop.stop();
        self.thread.take()
    }

    /// Stops: wakes the thread at once, waits for a running callback, and returns the last tick.
    pub fn stop(mut self) -> Option<Time> {
        self.end();
        self.last_tick()
    }

    fn end(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

impl Drop for RecurringTimer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for `due`; false if the stop came first.
fn wait_until_due(clock: &dyn Clock, signal: &Signal, stop: &StopToken, due: Moment) -> bool {
    while !stop.is_stopped() && clock.now() < due {
        clock.wait(signal, Some(due));
    }
    !stop.is_stopped()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sync::Mailbox;
    use crate::time::ManualClock;

    fn check_first_tick(period: u64, now: u64, expected: u64) {
        let clock = ManualClock::new();
        clock.jump_wall_to(Time::from_millis(now));
        let schedule = Schedule::aligned(&clock, Interval::millis(period));
        assert_eq!(schedule.label(0).as_millis(), expected, "period {period}, now {now}");
        assert_eq!(schedule.due(0).as_nanos(), (expected - now) * 1_000_000);
    }

    #[test]
    fn a_period_of_zero_counts_as_a_millisecond() {
        let clock = ManualClock::new();
        let schedule = Schedule::aligned(&clock, Interval::millis(0));
        assert_eq!(schedule, Schedule::aligned(&clock, Interval::millis(1)));
        clock.advance(Duration::from_millis(3));
        assert_eq!(schedule.due_at(clock.now()), 3);
        let mut ticks = Ticks::new(schedule);
        let taken = std::iter::from_fn(|| ticks.take(clock.now())).map(Time::as_millis);
        assert_eq!(taken.collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn first_tick_is_the_next_multiple_strictly_after_now() {
        check_first_tick(5_000, 0, 5_000);
        check_first_tick(5_000, 4_999, 5_000);
        check_first_tick(5_000, 5_000, 10_000);
        check_first_tick(5_000, 12_345, 15_000);
        check_first_tick(1, 7, 8);
    }

    #[test]
    fn late_ticks_are_taken_one_after_the_other() {
        let mut ticks = Ticks::new(Schedule::aligned(&ManualClock::new(), Interval::secs(1)));
        let mut labels = |seconds: u64| {
            let now = Moment::from_nanos(seconds * 1_000_000_000);
            std::iter::from_fn(|| ticks.take(now)).map(Time::as_millis).collect::<Vec<_>>()
        };
        let found = [0, 1, 4, 4, 5].map(&mut labels);
        assert_eq!(found, [vec![], vec![1_000], vec![2_000, 3_000, 4_000], vec![], vec![5_000]]);
        assert_eq!(ticks.due(), Moment::from_nanos(6_000_000_000));
    }

    /// A timer on a manual clock, and the ticks that it fired.
    fn timer(clock: &ManualClock, period: u64) -> (RecurringTimer, Mailbox<Time>) {
        let ticks = Mailbox::new(100_000);
        let out = ticks.clone();
        let schedule = Schedule::aligned(clock, Interval::millis(period));
        let clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let send = move |time| out.send(time).expect("the mailbox stays open");
        (
            RecurringTimer::start("timer-test", clock, schedule, &Poison::new(), send)
                .expect("a thread"),
            ticks,
        )
    }

    #[test]
    fn stop_wakes_at_once_and_returns_the_last_tick() {
        let clock = ManualClock::new();
        let (timer, ticks) = timer(&clock, 1_000);
        assert_eq!(timer.last_tick(), None);
        clock.advance(Duration::from_millis(2_500));
        assert_eq!(ticks.recv(), Some(Time::from_millis(1_000)));
        assert_eq!(ticks.recv(), Some(Time::from_millis(2_000)));
        assert_eq!(timer.stop(), Some(Time::from_millis(2_000)));
        assert_eq!(ticks.len(), 0);
    }

    #[test]
    fn a_panic_in_a_tick_poisons() {
        let clock = ManualClock::new();
        let poison = Poison::new();
        let told = Mailbox::new(1);
        let out = told.clone();
        poison.on_set(move |reason| out.send(reason.to_owned()).expect("open"));
        let schedule = Schedule::aligned(&clock, Interval::millis(1));
        clock.advance(Duration::from_millis(1));
        let timer =
            RecurringTimer::start("boom", Arc::new(clock), schedule, &poison, |_| panic!("no"))
                .expect("a thread");
        assert_eq!(told.recv().expect("told"), "thread `boom` panicked: no");
        drop(timer);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Over arbitrary overruns and wall-clock jumps: every tick once, in order, with its nominal time.
        #[test]
        fn every_tick_fires_once_with_its_nominal_time(
            period in 1u64..50,
            start in 0u64..1_000_000,
            steps in prop::collection::vec((0u64..200, prop::option::of(0u64..10_000_000)), 1..20),
        ) {
            let clock = ManualClock::new();
            clock.jump_wall_to(Time::from_millis(start));
            let first = Time::from_millis(start).next_multiple(Interval::millis(period));
            let (timer, ticks) = timer(&clock, period);
            let mut elapsed = 0;
            let mut next = 0;
            for (advance, jump) in steps {
                clock.advance(Duration::from_millis(advance));
                if let Some(wall) = jump {
                    clock.jump_wall_to(Time::from_millis(wall));
                }
                elapsed += advance;
                while first.as_millis() + next * period <= start + elapsed {
                    prop_assert_eq!(ticks.recv(), Some(first.plus(Interval::millis(period), next)));
                    next += 1;
                }
                prop_assert!(ticks.is_empty());
            }
            let last = next.checked_sub(1).map(|index| first.plus(Interval::millis(period), index));
            prop_assert_eq!(timer.stop(), last);
            prop_assert!(ticks.is_empty());
        }
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::sync::Mailbox;
    use crate::sync::explore::{check, thread};
    use crate::time::ManualClock;

    /// The clock moves while the timer stops: the ticks that fired are the first ones, each once, and none comes after the
    /// stop.
    #[test]
    fn a_stop_between_ticks_wakes_the_timer_and_names_the_last_one() {
        check(4_000, &[Planted::TimerSleepsThroughStop], || {
            let (clock, ticks) = (ManualClock::new(), Mailbox::new(8));
            let (out, period) = (ticks.clone(), Interval::millis(10));
            let schedule = Schedule::aligned(&clock, period);
            let send = move |time| out.send(time).expect("the mailbox stays open");
            let own: Arc<dyn Clock> = Arc::new(clock.clone());
            let timer = RecurringTimer::start("timer", own, schedule, &Poison::new(), send)
                .expect("a thread");
            let driver = thread("driver", move || {
                for millis in [10, 5, 15] {
                    clock.advance(Duration::from_millis(millis));
                }
            });
            let last = timer.stop();
            let fired = ticks.len();
            driver.join();
            let all: Vec<Time> = std::iter::from_fn(|| ticks.try_recv()).collect();
            let expected: Vec<Time> =
                (0..).map(|index| schedule.label(index)).take(fired).collect();
            assert_eq!((all, last), (expected.clone(), expected.last().copied()));
        });
    }
}
