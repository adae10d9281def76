//! The clock seam: the system's clocks, and a manual one that tests drive. Any thread may use any clock.
//!
//! A wait with a deadline waits on a [`Signal`] through the clock: the system clock uses a timed wait, the manual clock
//! wakes its sleepers when it advances past their deadlines.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::{Arc, Condvar, Mutex, Signal};

use super::Time;

/// A point on a clock's monotonic scale: nanoseconds since the clock was created. Moments of two clocks have nothing in common.
///
/// ```
/// use std::time::Duration;
/// use tidemill::time::Moment;
///
/// let start = Moment::from_nanos(500);
/// let later = start.plus(Duration::from_micros(1));
/// assert_eq!((later.as_nanos(), later.since(start)), (1_500, Duration::from_micros(1)));
/// assert_eq!(start.since(later), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` nanoseconds after the clock's origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Moment(nanos)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This moment plus a duration, capped at the last moment that can be represented.
    pub fn plus(self, duration: Duration) -> Self {
        Moment(self.0.saturating_add(nanos(duration)))
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub const fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Nanoseconds of a duration; saturates after 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The reason why a wait returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The signal was raised, and is taken.
    Raised,
    /// The deadline came first.
    Deadline,
}

/// A source of time: the system's clocks, or a [`ManualClock`]. A source of your own gets one, so that its tests need no
/// waiting. Any thread may ask; only the hidden waits block.
///
/// ```
/// use std::time::Duration;
/// use tidemill::Time;
/// use tidemill::time::{Clock, ManualClock, Moment};
///
/// fn is_late(clock: &dyn Clock, since: Moment) -> bool {
///     clock.now().since(since) > Duration::from_secs(1)
/// }
///
/// let clock = ManualClock::new();
/// let start = clock.now();
/// clock.advance(Duration::from_secs(2));
/// assert!(is_late(&clock, start));
/// assert_eq!(clock.wall_time(), Time::from_millis(2_000));
/// ```
pub trait Clock: Send + Sync + fmt::Debug {
    /// The monotonic time now: for durations and deadlines.
    fn now(&self) -> Moment;

    /// The wall clock now, since the Unix epoch: for labels and reports, never for a schedule, because somebody may set it.
    fn wall(&self) -> Duration;

    /// Waits until `signal` is raised or `deadline` has come, whichever is first. A raised signal wins.
    #[doc(hidden)]
    fn wait(&self, signal: &Signal, deadline: Option<Moment>) -> Wake;

    /// The wall clock in whole milliseconds.
    fn wall_time(&self) -> Time {
        Time::from_millis(u64::try_from(self.wall().as_millis()).unwrap_or(u64::MAX))
    }
}

/// The operating system's monotonic and wall clocks.
///
/// ```
/// use tidemill::time::{Clock, SystemClock};
///
/// let clock = SystemClock::new();
/// let start = clock.now();
/// assert!(clock.now() >= start);
/// ```
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// Creates a clock whose origin is now.
    pub fn new() -> Arc<Self> {
        Arc::new(SystemClock { origin: instant_now() })
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the seam")]
fn instant_now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the seam")]
fn system_now() -> SystemTime {
    SystemTime::now()
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment(nanos(instant_now().saturating_duration_since(self.origin)))
    }

    fn wall(&self) -> Duration {
        system_now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn wait(&self, signal: &Signal, deadline: Option<Moment>) -> Wake {
        let Some(deadline) = deadline else {
            signal.wait();
            return Wake::Raised;
        };
        loop {
            let left = deadline.since(self.now());
            if left.is_zero() {
                return if signal.take() { Wake::Raised } else { Wake::Deadline };
            }
            if signal.wait_at_most(left) {
                return Wake::Raised;
            }
        }
    }
}

/// A clock that moves only when a test moves it. It starts at zero, on both scales. Clones are handles of the same clock, and
/// any thread may move it.
///
/// ```
/// use std::time::Duration;
/// use tidemill::Time;
/// use tidemill::testing::ManualClock;
/// use tidemill::time::Clock;
///
/// let clock = ManualClock::new();
/// clock.advance(Duration::from_millis(5));
/// clock.jump_wall_to(Time::from_millis(3_600_000));
/// assert_eq!(clock.wall_time(), Time::from_millis(3_600_000));
/// assert_eq!(clock.now().as_nanos(), 5_000_000);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<Manual>,
    /// Notified when a sleeper registers.
    slept: Condvar,
}

#[derive(Debug, Default)]
struct Manual {
    now: Moment,
    /// Wall clock minus monotonic clock, in nanoseconds; [`ManualClock::jump_wall_to`] changes it.
    wall_offset: i128,
    sleepers: Vec<(Moment, Signal)>,
}

impl ManualClock {
    /// Creates a clock at zero.
    pub fn new() -> Self {
        ManualClock::default()
    }

    /// Moves both clocks forward and wakes every thread whose deadline has come. It does not wait for what they do then.
    pub fn advance(&self, by: Duration) {
        let mut state = self.0.state.lock();
        state.now = state.now.plus(by);
        let now = state.now;
        let (due, rest) =
            std::mem::take(&mut state.sleepers).into_iter().partition(|(at, _)| *at <= now);
        state.sleepers = rest;
        drop(state);
        let due: Vec<(Moment, Signal)> = due;
        for (_, signal) in due {
            signal.raise();
        }
    }

    /// Sets the wall clock without moving the monotonic one, as an operator or a time server does.
    pub fn jump_wall_to(&self, time: Time) {
        let mut state = self.0.state.lock();
        state.wall_offset =
            i128::from(time.as_millis()) * 1_000_000 - i128::from(state.now.as_nanos());
    }

    /// Number of threads that wait for a deadline now.
    #[doc(hidden)]
    pub fn sleepers(&self) -> usize {
        self.0.state.lock().sleepers.len()
    }

    /// Waits until `count` threads wait for a deadline: a test's subject must sleep before the test moves the clock past
    /// it.
    #[doc(hidden)]
    pub fn wait_for_sleepers(&self, count: usize) {
        let mut state = self.0.state.lock();
        while state.sleepers.len() < count {
            self.0.slept.wait(&mut state);
        }
    }

    fn register(&self, signal: &Signal, deadline: Moment) -> bool {
        let mut state = self.0.state.lock();
        if state.now >= deadline {
            return false;
        }
        state.sleepers.push((deadline, signal.clone()));
        drop(state);
        self.0.slept.notify_all();
        true
    }

    fn unregister(&self, signal: &Signal) {
        self.0.state.lock().sleepers.retain(|(_, sleeper)| !sleeper.same(signal));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        self.0.state.lock().now
    }

    fn wall(&self) -> Duration {
        let state = self.0.state.lock();
        let wall = i128::from(state.now.as_nanos()) + state.wall_offset;
        Duration::from_nanos(u64::try_from(wall.max(0)).unwrap_or(u64::MAX))
    }

    /// A sleeper is woken by its raised signal, so only the clock can tell a deadline from a raise at the same moment. It
    /// returns `Deadline` if the deadline has come; the caller checks its own state either way.
    fn wait(&self, signal: &Signal, deadline: Option<Moment>) -> Wake {
        let Some(deadline) = deadline else {
            signal.wait();
            return Wake::Raised;
        };
        if !self.register(signal, deadline) {
            return if signal.take() { Wake::Raised } else { Wake::Deadline };
        }
        signal.wait();
        self.unregister(signal);
        if self.now() >= deadline { Wake::Deadline } else { Wake::Raised }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raise_before_the_wait_is_not_lost() {
        let clock = SystemClock::new();
        let signal = Signal::new();
        signal.raise();
        assert_eq!(clock.wait(&signal, None), Wake::Raised);
        assert_eq!(clock.wait(&signal, Some(clock.now())), Wake::Deadline);
    }

    #[test]
    fn a_manual_clock_wakes_those_that_are_due() {
        let clock = ManualClock::new();
        let signal = Signal::new();
        assert_eq!(clock.wait(&signal, Some(Moment::default())), Wake::Deadline);
        clock.register(&signal, Moment::from_nanos(10));
        clock.advance(Duration::from_nanos(9));
        assert!(!signal.take());
        clock.advance(Duration::from_nanos(1));
        assert!(signal.take());
        assert_eq!(clock.sleepers(), 0);
    }

    #[test]
    fn a_jump_of_the_wall_clock_leaves_the_monotonic_one() {
        let clock = ManualClock::new();
        clock.jump_wall_to(Time::from_millis(3_600_000));
        assert_eq!(clock.wall_time(), Time::from_millis(3_600_000));
        assert_eq!(clock.now(), Moment::default());
        clock.advance(Duration::from_secs(1));
        clock.jump_wall_to(Time::from_millis(5));
        assert_eq!(clock.wall_time(), Time::from_millis(5));
        assert_eq!(clock.now(), Moment::from_nanos(1_000_000_000));
    }
}
