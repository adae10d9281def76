//! The control: a bare timer thread on each core, in the process that is measured, which does nothing but wake up and note
//! how late. What these threads suffer is the machine's; only what comes on top of it is the engine's.

use std::collections::VecDeque;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::error::{Error, Result};
use crate::metrics::{Latency, Times};
use crate::sync::{Arc, Mutex, Poison};
use crate::time::{Clock, Interval, Moment, RecurringTimer, Schedule, SystemClock};

/// A wake-up that comes later than this is kept with its moment.
const LATE: Duration = Duration::from_micros(200);

/// Late wake-ups that are kept; older ones are forgotten, for the engine's slow batches are looked at as they end.
const LATE_MAX: usize = 4_096;

/// The running timers; dropping them ends their threads.
#[derive(Debug)]
pub(super) struct Control {
    clock: Arc<SystemClock>,
    lateness: Arc<Latency>,
    late: Late,
    _timers: Vec<RecurringTimer>,
}

/// The moments of late wake-ups, with their lateness.
type Late = Arc<Mutex<VecDeque<(Moment, Duration)>>>;

impl Control {
    /// A timer of this period for each core.
    ///
    /// # Errors
    /// If the operating system gives no more threads.
    pub(super) fn start(period: Interval, cores: usize) -> Result<Control> {
        let (clock, lateness, late) = (SystemClock::new(), Arc::default(), Late::default());
        let timers = (0..cores).map(|core| timer(core, period, &clock, &lateness, &late));
        let timers = timers.collect::<Result<Vec<_>>>()?;
        Ok(Control { clock, lateness, late, _timers: timers })
    }

    /// The lateness of the wake-ups so far.
    pub(super) fn lateness(&self) -> Times {
        self.lateness.merged()
    }

    /// The lateness of the worst wake-up within the last `span`; zero if none was late.
    pub(super) fn worst_within(&self, span: Duration) -> Duration {
        let now = self.clock.now();
        let late = self.late.lock();
        let recent = late.iter().rev().take_while(|(at, _)| now.since(*at) <= span);
        recent.map(|(_, late)| *late).max().unwrap_or_default()
    }
}

fn timer(
    core: usize,
    period: Interval,
    clock: &Arc<SystemClock>,
    lateness: &Arc<Latency>,
    late: &Late,
) -> Result<RecurringTimer> {
    // Not in step with the batches: what wakes up for those must not be in the way of what is compared with it.
    let (now, wall) = (clock.now().plus(period.as_duration().mul_f64(0.37)), clock.wall());
    let schedule = Schedule::starting(now, wall, clock.wall_time().next_multiple(period), period);
    let (own, recorder, late) = (Arc::clone(clock), lateness.recorder(), Arc::clone(late));
    let mut pinned = false;
    let tick = move |label| {
        if !std::mem::replace(&mut pinned, true) {
            pin_to(core);
        }
        let now = own.now();
        let by = now.since(schedule.due_at_label(label));
        recorder.record(by);
        if by > LATE {
            let mut late = late.lock();
            if late.len() == LATE_MAX {
                late.pop_front();
            }
            late.push_back((now, by));
        }
    };
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    RecurringTimer::start(&format!("control-{core}"), clock, schedule, &Poison::new(), tick)
        .map_err(|err| Error::io("cannot start a thread", err))
}

/// Keeps this thread on one core, if the system lets it.
fn pin_to(core: usize) {
    let mut only = CpuSet::new();
    only.set(core);
    let _ = sched_setaffinity(None, &only);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Signal;

    #[test]
    fn every_core_is_watched() {
        let control = Control::start(Interval::millis(1), 2).expect("two threads");
        let clock = SystemClock::new();
        while control.lateness().count() < 4 {
            clock.wait(&Signal::new(), Some(clock.now().plus(Duration::from_millis(1))));
        }
        assert!(control.worst_within(Duration::ZERO) <= control.lateness().longest().mul_f64(1.02));
    }
}
