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
