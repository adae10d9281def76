//! Time: batch labels, durations, clocks and the recurring timer. Knows nothing of the purpose of a tick.
//!
//! There are two kinds of time. A [`Moment`] is a point on the monotonic clock: schedules and deadlines are moments. A
//! [`Time`] is a label in wall-clock milliseconds: it names a batch and is fixed when a schedule starts, so that a jump of
//! the wall clock neither bunches, stalls, repeats nor skips batches.

mod clock;
mod join;
pub(crate) mod timer;

pub use clock::{Clock, ManualClock, Moment, SystemClock, Wake};
pub(crate) use join::{Joined, join_until, wait_until};
pub(crate) use timer::{RecurringTimer, Schedule, Ticks};

use std::fmt;
use std::time::Duration;

/// Asks the kernel to end this thread's timed waits on time: by default it may add 50 µs to coalesce wake-ups. Best effort:
/// on a system without this setting, or one that refuses it, the thread only wakes later.
pub fn tighten_timer_slack() {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// A batch's nominal time: milliseconds since the Unix epoch, by the wall clock as it was when the stream started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The time `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Time(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This time plus `count` intervals, capped at the last time that can be represented.
    pub const fn plus(self, interval: Interval, count: u64) -> Self {
        Time(self.0.saturating_add(interval.0.saturating_mul(count)))
    }

    /// The first multiple of `period` strictly after this time: 0 and 4999 → 5000, 5000 → 10000 for 5 s.
    ///
    /// ```
    /// use tidemill::{Interval, Time};
    /// let five = Interval::secs(5);
    /// assert_eq!(Time::from_millis(4_999).next_multiple(five), Time::from_millis(5_000));
    /// assert_eq!(Time::from_millis(5_000).next_multiple(five), Time::from_millis(10_000));
    /// ```
    pub const fn next_multiple(self, period: Interval) -> Self {
        Time((self.0 / period.0).saturating_add(1).saturating_mul(period.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A length of time in whole milliseconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u64);

impl Interval {
    /// An interval of `millis` milliseconds.
    ///
    /// # Panics
    /// If `millis` is zero: a period of no length is a programming mistake.
    pub const fn millis(millis: u64) -> Self {
        assert!(millis > 0, "an interval is at least one millisecond");
        Interval(millis)
    }

    /// An interval of `secs` seconds.
    ///
    /// # Panics
    /// If `secs` is zero.
    pub const fn secs(secs: u64) -> Self {
        Interval::millis(secs.saturating_mul(1_000))
    }

    /// The length in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The length as a `std` duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// True if this is a whole number of `unit`s.
    pub const fn is_multiple_of(self, unit: Interval) -> bool {
        self.0.is_multiple_of(unit.0)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            millis if millis.is_multiple_of(1_000) => write!(f, "{}s", millis / 1_000),
            millis => write!(f, "{millis}ms"),
        }
    }
}
