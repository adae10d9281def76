//! The clock of this program: the kernel's, asked without the engine. Any thread.

use std::time::Duration;

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The time of day.
pub fn wall() -> Duration {
    of(clock_gettime(ClockId::Realtime))
}

/// The time of day in nanoseconds.
pub fn nanos() -> u64 {
    u64::try_from(wall().as_nanos()).unwrap_or(u64::MAX)
}

/// Waits until the time of day is `at`, in nanoseconds.
pub fn wait_until(at: u64) {
    let seconds = i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = i64::try_from(at % 1_000_000_000).unwrap_or(0);
    let at = Timespec { tv_sec: seconds, tv_nsec: nanos };
    // A signal ends it early; who waits looks at the clock again.
    let _ = clock_nanosleep_absolute(ClockId::Realtime, &at);
}

fn of(time: Timespec) -> Duration {
    Duration::try_from(time).unwrap_or_default()
}
