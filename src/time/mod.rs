//! Time: batch labels, durations, clocks and the recurring timer. Knows nothing of the purpose of a tick.
//!
//! There are two kinds of time. A [`Moment`] is a point on the monotonic clock: schedules and deadlines are moments. A
//! [`Time`] is a label in wall-clock milliseconds: it names a batch and is fixed when a schedule starts, so that a jump of
//! the wall clock neither bunches, stalls, repeats nor skips batches.

mod clock;
mod join;
pub(crate) mod timer;

pub use clock::{Clock, ManualClock, Moment};
#[doc(hidden)]
pub use clock::{SystemClock, Wake};
pub(crate) use join::{Joined, join_until, wait_until};
pub(crate) use timer::{RecurringTimer, Schedule, Ticks};

use std::fmt;
use std::time::Duration;

/// Asks the kernel to end this thread's timed waits on time: by default it may add 50 µs to coalesce wake-ups. Best effort:
/// on a system without this setting, or one that refuses it, the thread only wakes later.
#[doc(hidden)]
pub fn tighten_timer_slack() {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// The nominal time of a batch: milliseconds since the Unix epoch, by the wall clock as it was when the stream started. It names
/// the batch and is used once.
///
/// ```
/// use tidemill::{Interval, Time};
///
/// let time = Time::from_millis(1_500);
/// assert_eq!(time.plus(Interval::secs(1), 2).as_millis(), 3_500);
/// assert_eq!(time.to_string(), "1500 ms");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// Creates the time `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Time(millis)
    }

    /// The time in milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns this time plus `count` intervals, capped at the last time that can be represented.
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
    ///
    /// A period of zero counts as one millisecond.
    pub const fn next_multiple(self, period: Interval) -> Self {
        let period = period.or_shortest().0;
        Time((self.0 / period).saturating_add(1).saturating_mul(period))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A length of time in whole milliseconds. A stream needs at least one: an interval of zero is an error of the start, which
/// names the option or the operator that was given it.
///
/// ```
/// use std::time::Duration;
/// use tidemill::{Config, Interval, StreamingContext};
///
/// let config = Config::new("words").batch_interval(Duration::from_millis(250).into());
/// assert_eq!(config.resolve()?.batch_interval, Interval::millis(250));
/// let config = Config::new("words").batch_interval(Interval::secs(0));
/// let err = StreamingContext::new(config).expect_err("a batch takes time");
/// assert_eq!(err.to_string(), "`batch_interval` must be at least 1ms");
/// let half_a_minute = Interval::secs(30);
/// assert_eq!((half_a_minute.as_millis(), half_a_minute.as_duration()), (30_000, Duration::from_secs(30)));
/// assert!(half_a_minute.is_multiple_of(Interval::millis(250)) && !half_a_minute.is_zero());
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u64);

impl Interval {
    /// An interval of `millis` milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Interval(millis)
    }

    /// An interval of `secs` seconds.
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

    /// True if this has no length, which no stream can use.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// This interval, or a millisecond if it is zero: a period that ends.
    pub(crate) const fn or_shortest(self) -> Interval {
        if self.is_zero() { Interval(1) } else { self }
    }

    /// True if this is a whole number of `unit`s.
    pub const fn is_multiple_of(self, unit: Interval) -> bool {
        self.0.is_multiple_of(unit.0)
    }
}

/// Rounds to the nearest millisecond, up to the longest interval. What is shorter than a millisecond becomes zero.
///
/// ```
/// use std::time::Duration;
/// use tidemill::Interval;
///
/// assert_eq!(Interval::from(Duration::from_secs_f32(0.7)), Interval::millis(700));
/// assert!(Interval::from(Duration::from_micros(999)).is_zero());
/// ```
impl From<Duration> for Interval {
    fn from(length: Duration) -> Self {
        if length < Duration::from_millis(1) {
            return Interval(0);
        }
        let nearest = length.saturating_add(Duration::from_micros(500)).as_millis();
        Interval(u64::try_from(nearest).unwrap_or(u64::MAX))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The interval of a duration, in milliseconds.
    fn check(length: Duration, expected: u64) {
        assert_eq!(Interval::from(length).as_millis(), expected, "{length:?}");
    }

    #[test]
    fn a_duration_is_rounded_to_the_nearest_millisecond() {
        check(Duration::ZERO, 0);
        check(Duration::from_nanos(1), 0);
        check(Duration::from_nanos(999_999), 0);
        check(Duration::from_millis(1), 1);
        check(Duration::from_nanos(1_499_999), 1);
        check(Duration::from_nanos(1_500_000), 2);
        check(Duration::from_secs_f32(0.7), 700);
        check(Duration::from_secs(30), 30_000);
        check(Duration::from_millis(u64::MAX), u64::MAX);
        check(Duration::from_secs(u64::MAX), u64::MAX);
        check(Duration::MAX, u64::MAX);
    }

    #[test]
    fn an_interval_of_zero_is_constant_and_ends_no_time() {
        const ZERO: Interval = Interval::secs(0);
        assert!(ZERO.is_zero() && Interval::millis(0).is_zero() && !Interval::millis(1).is_zero());
        assert_eq!(ZERO.to_string(), "0s");
        let time = Time::from_millis(7);
        assert_eq!((time.next_multiple(ZERO), time.plus(ZERO, 3)), (Time::from_millis(8), time));
        assert!(!Interval::millis(1).is_multiple_of(ZERO));
    }
}
