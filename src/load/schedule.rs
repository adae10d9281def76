//! `Pace`: when each line of an open loop is due. Pure integer arithmetic; nothing here waits.
//!
//! Line i is due i ÷ rate after the start, whatever happened to the lines before it: when a peer pushes back, the
//! schedule does not move, and the load reports how far it fell behind.

use std::time::Duration;

/// Lines are gathered for so long: a compromise between wake-ups and how late a line may leave.
const TICK_NANOS: u64 = 250_000;

const SECOND_NANOS: u128 = 1_000_000_000;

/// Lines per second, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace(u64);

impl Pace {
    /// # Panics
    /// If `rate` is zero: the options were checked before.
    pub(super) fn new(rate: u64) -> Self {
        assert!(rate > 0, "a rate is at least one line per second");
        Pace(rate)
    }

    /// The time from the start until line `line` is due, in nanoseconds.
    pub(super) fn due_nanos(self, line: u64) -> u64 {
        u64::try_from(u128::from(line) * SECOND_NANOS / u128::from(self.0)).unwrap_or(u64::MAX)
    }

    /// Number of lines that were due at the last tick, `elapsed` nanoseconds after the start. Those due since then wait for
    /// the next one: sending them at once would keep a fast load writing a few lines at a time without a pause.
    pub(super) fn due_lines(self, elapsed: u64) -> u64 {
        let tick = elapsed - elapsed % TICK_NANOS;
        // Line i is due when i × second ÷ rate, rounded down, is at most `tick`.
        let lines = ((u128::from(tick) + 1) * u128::from(self.0)).div_ceil(SECOND_NANOS);
        u64::try_from(lines).unwrap_or(u64::MAX)
    }

    /// The lines that are due before `duration` has passed.
    pub(super) fn lines_within(self, duration: Duration) -> u64 {
        let lines = (duration.as_nanos().saturating_mul(u128::from(self.0))).div_ceil(SECOND_NANOS);
        u64::try_from(lines).unwrap_or(u64::MAX)
    }

    /// When to wake for line `line`: at the first tick at which it is due, in nanoseconds after the start.
    pub(super) fn wake_nanos(self, line: u64) -> u64 {
        self.due_nanos(line).div_ceil(TICK_NANOS).saturating_mul(TICK_NANOS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_within(rate: u64, duration: Duration, expected: u64) {
        assert_eq!(Pace::new(rate).lines_within(duration), expected, "{rate}/s for {duration:?}");
    }

    #[test]
    fn a_duration_holds_the_lines_due_before_its_end() {
        check_within(1_000, Duration::from_secs(2), 2_000);
        check_within(3, Duration::from_millis(1_001), 4);
        check_within(1, Duration::from_nanos(1), 1);
        check_within(7, Duration::ZERO, 0);
    }

    proptest! {
        #[test]
        fn due_lines_and_due_times_agree(rate in 1u64..5_000_000_000, line in 0u64..1 << 40, elapsed in 0u64..1 << 50) {
            let pace = Pace::new(rate);
            let due = pace.due_lines(elapsed);
            prop_assert!(due == 0 || pace.due_nanos(due - 1) <= elapsed);
            prop_assert!(pace.wake_nanos(due) > elapsed);
            prop_assert!(pace.due_lines(pace.wake_nanos(line)) > line);
            prop_assert!(pace.wake_nanos(line) >= pace.due_nanos(line));
            prop_assert!(pace.wake_nanos(line) - pace.due_nanos(line) < TICK_NANOS);
        }
    }
}
