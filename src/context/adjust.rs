//! `Adjuster`: changes a running stream: rates of sources, and the number of workers. Any thread may ask. It does not know
//! where the new values come from.

use super::inspect::Inspector;
use super::sources::rate_options;
use crate::config::{RateLimits, WORKERS_MAX};
use crate::error::Result;
use crate::exec::worker_pool::WorkerPool;
use crate::source::{RateLimiter, RateOptions};
use crate::sync::Arc;

/// A rate that holds nobody, in records per second.
const UNLIMITED: u64 = 1 << 40;

/// Changes a running stream: the rates of its sources and the number of its workers. Clones change the same stream. Any thread
/// may use one; the calls do not wait for a batch.
///
/// ```
/// use tidemill::source::{RateLimits, SocketSource};
/// use tidemill::{Config, Interval, StreamingContext};
///
/// let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)).workers(1))?;
/// let source = SocketSource::listen("127.0.0.1:0").named("in").rate_max(10_000);
/// ctx.socket(source)?.count().print(1);
/// let running = ctx.start()?;
/// let adjuster = running.adjuster();
/// adjuster.set_workers(2)?;
/// let slower = RateLimits { max: Some(500), ..RateLimits::default() };
/// assert_eq!(adjuster.set_rate("in", slower), Ok(()));
/// assert_eq!(running.inspector().receivers()[0].rate, Some(500));
/// assert_eq!(adjuster.set_rate("out", slower), Err("there is no such source"));
/// running.stop()?;
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Adjuster {
    pub(super) stream: Inspector,
    pub(super) workers: Arc<WorkerPool>,
}

impl Adjuster {
    /// Changes the rate limits of a source, in records per second, from its next read on. They hold until the stop.
    ///
    /// # Errors
    /// The reason for which the change takes a restart: there is no such source, it had no limit at its start, or `backpressure`
    /// would be switched.
    pub fn set_rate(&self, source: &str, limits: RateLimits) -> Result<(), &'static str> {
        let found = self.stream.0.receivers.iter().find(|receiver| receiver.source == source);
        let limiter = found.ok_or("there is no such source")?.limiter.as_ref();
        adjust(limiter, rate_options(limits))
    }

    /// Changes the number of worker threads, 1 to 1024; other numbers are taken as the nearest of these. Batches that are
    /// planned from here on are split for it. A worker that is too many ends after its task.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the operating system gives no more threads; the number stays as it was reached.
    pub fn set_workers(&self, workers: usize) -> Result<()> {
        self.workers.resize(workers.clamp(1, WORKERS_MAX))
    }

    /// Remembers the end of a reload of the options for the status: true if all of it was good, and its message.
    #[doc(hidden)]
    pub fn reloaded(&self, good: bool, said: &str) {
        let reloads = &self.stream.0.reloads;
        reloads.record(self.stream.0.clock.wall_time(), good, said);
    }
}

fn adjust(
    limiter: Option<&Arc<RateLimiter>>,
    wanted: Option<RateOptions>,
) -> Result<(), &'static str> {
    match (limiter, wanted) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err("the source had no limit at its start"),
        (Some(limiter), wanted) => {
            let follows = wanted.and_then(|wanted| wanted.follows);
            match (limiter.bounds(), follows) {
                (Some(_), Some((min, max))) => limiter.set_bounds(min, max),
                (None, None) => {
                    limiter.set_rate(wanted.map_or(UNLIMITED, |wanted| wanted.initial));
                }
                _ => return Err("`backpressure` is switched at a start only"),
            }
            Ok(())
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    const FIXED: RateLimits =
        RateLimits { max: Some(500), backpressure: false, initial: 10_000, min: 100 };

    /// The rate in force after the change, or the reason for none.
    fn check(before: Option<RateLimits>, after: RateLimits, expected: Result<u64, &str>) {
        let limiter = before.and_then(rate_options).map(|options| {
            let limiter = RateLimiter::new(options.initial, Arc::new(ManualClock::new()));
            if let Some((min, max)) = options.follows {
                limiter.set_bounds(min, max);
            }
            limiter
        });
        let found = adjust(limiter.as_ref(), rate_options(after));
        assert_eq!(found.map(|()| limiter.map_or(0, |limiter| limiter.rate())), expected);
    }

    #[test]
    fn rates_change_where_there_was_one() {
        let none = RateLimits { max: None, ..FIXED };
        let steered = RateLimits { backpressure: true, ..FIXED };
        check(Some(FIXED), RateLimits { max: Some(70), ..FIXED }, Ok(70));
        check(Some(FIXED), none, Ok(UNLIMITED));
        check(None, none, Ok(0));
        check(None, FIXED, Err("the source had no limit at its start"));
        check(Some(steered), RateLimits { max: Some(300), ..steered }, Ok(300));
        check(Some(steered), RateLimits { max: Some(900), min: 600, ..steered }, Ok(600));
        check(Some(steered), FIXED, Err("`backpressure` is switched at a start only"));
        check(Some(FIXED), steered, Err("`backpressure` is switched at a start only"));
    }
}
