//! The ticks of the job loop, and what wakes it for them. [`Ticks`] alone decides which ticks are taken: a timer only says
//! that it is worth a look, so that catching up and the stop are the same in both ways.

use crate::error::{Error, Result};
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, Poison, Signal};
use crate::time::{Clock, Moment, RecurringTimer, Schedule, Ticks, Time};

/// What wakes the job loop at a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchTimer {
    /// A thread of its own, `batch-timer`.
    #[default]
    Thread,
    /// The job loop itself, which waits for the tick beside its messages: one wake-up of a core less for each batch.
    Loop,
}

/// See the module.
#[derive(Debug)]
pub(super) struct LoopTicks {
    ticks: Ticks,
    /// With [`BatchTimer::Thread`]; it ends with the ticks.
    timer: Option<RecurringTimer>,
}

impl LoopTicks {
    /// The ticks of `schedule`, for a loop that waits on `signal`.
    pub(super) fn start(
        schedule: Schedule,
        timer: BatchTimer,
        clock: &Arc<dyn Clock>,
        signal: &Signal,
        poison: &Poison,
    ) -> Result<Self> {
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
        Ok(LoopTicks { ticks: Ticks::new(schedule), timer })
    }

    /// Takes the next tick if it is due at the moment `now`.
    pub(super) fn take(&mut self, now: Moment) -> Option<Time> {
        self.ticks.take(now)
    }

    /// When a wait that begins at `now` has to end for the next tick. With a timer only a tick that is due ends it: the
    /// timer may have signalled already, once for several ticks.
    pub(super) fn wait_until(&self, now: Moment) -> Option<Moment> {
        let due = self.ticks.due();
        let is_due = now >= due && !planted(Planted::DueTickWaitsForTimer);
        (self.timer.is_none() || is_due).then_some(due)
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::time::{Interval, ManualClock};

    /// At what moment a wait ends that begins before, at or after the first tick's, in seconds.
    fn check(timer: BatchTimer, expected: [Option<u64>; 3]) {
        let (clock, signal) = (ManualClock::new(), Signal::new());
        let schedule = Schedule::aligned(&clock, Interval::secs(1));
        let own: Arc<dyn Clock> = Arc::new(clock.clone());
        let mut ticks = LoopTicks::start(schedule, timer, &own, &signal, &Poison::new())
            .expect("a thread where there is one");
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
