//! The clock of this program, and waits that end. Any thread.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tidemill::internals::sync::Signal;
use tidemill::time::{Clock, Moment, SystemClock};

use crate::Outcome;

/// No process of a measurement runs longer, and nothing is waited for longer.
pub const LIMIT: Duration = Duration::from_secs(60);

static CLOCK: LazyLock<Arc<SystemClock>> = LazyLock::new(SystemClock::new);

pub fn clock() -> Arc<dyn Clock> {
    Arc::clone(&CLOCK) as Arc<dyn Clock>
}

pub fn now() -> Moment {
    CLOCK.now()
}

/// The end of a wait that begins now.
pub fn deadline() -> Moment {
    now().plus(LIMIT)
}

/// Seconds since a moment.
pub fn seconds_since(moment: Moment) -> f64 {
    now().since(moment).as_secs_f64()
}

pub fn pause_until(moment: Moment) {
    CLOCK.wait(&Signal::new(), Some(moment));
}

pub fn pause(seconds: f64) {
    pause_until(now().plus(Duration::from_secs_f64(seconds)));
}

/// Looks, and looks again after each `apart`, until `what` is so.
pub fn until(what: &str, apart: Duration, mut so: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let end = deadline();
    while !so()? {
        if now() > end {
            return Err(format!("waited in vain until {what}").into());
        }
        pause_until(now().plus(apart));
    }
    Ok(())
}
