//! `LoopTicks`: the ticks of the job loop, and the timer that wakes it for them. [`Ticks`] alone decides which ticks are taken:
//! a timer only signals that a look is worthwhile, so catching up and the stop are the same with both timers.

use crate::error::{Error, Result};
use crate::metrics::Recorder;
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, Poison, Signal};
use crate::time::{Clock, Moment, RecurringTimer, Schedule, Ticks, Time};

/// The timer that wakes the job loop at a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchTimer {
    /// A thread of its own, `batch-timer`.
    #[default]
    Thread,
    /// The job loop itself, which waits for the tick beside its messages: one wake-up of a core less for each batch.
    Loop,
}

/// Parameters of [`LoopTicks::start`].
pub(super) struct TickOptions<'a> {
    pub(super) schedule: Schedule,
    pub(super) timer: BatchTimer,
    pub(super) clock: &'a Arc<dyn Clock>,
    /// The loop waits on it.
    pub(super) signal: &'a Signal,
    /// Takes the lateness of each tick.
    pub(super) late: Recorder,
}

/// See the module.
pub(super) struct LoopTicks {
    ticks: Ticks,
    /// With [`BatchTimer::Thread`]; it ends with the ticks.
    timer: Option<RecurringTimer>,
    /// The loop's last step was a tick.
    ticked: bool,
    late: Recorder,
}

impl LoopTicks {
    /// Starts the ticks of a schedule.
    ///
    /// # Errors
    /// If the operating system gives no thread for the timer.
    pub(super) fn start(options: TickOptions<'_>, poison: &Poison) -> Result<Self> {
        let TickOptions { schedule, timer, clock, signal, late } = options;
        let start = || {
            let signal = signal.clone();
            let wake = move |_| signal.raise();
            RecurringTimer::start("batch-timer", Arc::clone(clock), schedule, poison, wake)
                .map_err(|err| Error::io("cannot start the thread `batch-timer`", err))
        };
        let timer = match timer {
            BatchTimer::Thread => Some(start()?),
            BatchTimer::Loop => None,
        };
        Ok(LoopTicks { ticks: Ticks::new(schedule), timer, ticked: false, late })
    }

    /// Takes the next tick if it is due at the moment `now`.
    pub(super) fn take(&mut self, now: Moment) -> Option<Time> {
        let due = self.ticks.due();
        let time = self.ticks.take(now)?;
        self.late.record(now.since(due));
        Some(time)
    }

    /// The same, but not twice in a row: after a tick a message has its turn, so that many missed ticks do not keep the loop
    /// from the batches that run.
    pub(super) fn take_in_turn(&mut self, now: Moment) -> Option<Time> {
        if std::mem::take(&mut self.ticked) {
            return None;
        }
        let time = self.take(now);
        self.ticked = time.is_some();
        time
    }

    /// The time at which a wait that begins at `now` must end for the next tick. With a timer only a tick that is due ends it:
    /// the timer may have signalled already, once for several ticks.
    pub(super) fn wait_until(&self, now: Moment) -> Option<Moment> {
        let due = self.ticks.due();
        let is_due = now >= due && !planted(Planted::DueTickWaitsForTimer);
        (self.timer.is_none() || is_due).then_some(due)
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::metrics::EngineTimes;
    use crate::time::{Interval, ManualClock};

    /// The moment at which a wait ends that begins before, at or after the first tick's, in seconds.
    fn check(timer: BatchTimer, expected: [Option<u64>; 3]) {
        let (clock, signal) = (ManualClock::new(), Signal::new());
        let schedule = Schedule::aligned(&clock, Interval::secs(1));
        let own: Arc<dyn Clock> = Arc::new(clock.clone());
        let late = EngineTimes::new().job_ticks.recorder();
        let options = TickOptions { schedule, timer, clock: &own, signal: &signal, late };
        let mut ticks =
            LoopTicks::start(options, &Poison::new()).expect("a thread where there is one");
        let seconds = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000);
        let found = [0, 1, 2].map(|now| ticks.wait_until(seconds(now)));
        assert_eq!(found, expected.map(|at| at.map(seconds)), "{timer:?}");
        clock.advance(std::time::Duration::from_secs(2));
        if timer == BatchTimer::Thread {
            signal.wait();
        }
        let taken: Vec<_> = std::iter::from_fn(|| ticks.take(clock.now())).collect();
        assert_eq!(taken, [1_000, 2_000].map(Time::from_millis), "{timer:?}");
    }

    #[test]
    fn with_a_timer_only_a_tick_that_is_due_ends_a_wait() {
        check(BatchTimer::Thread, [None, Some(1), Some(1)]);
        check(BatchTimer::Loop, [Some(1); 3]);
    }
}
