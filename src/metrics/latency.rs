//! Times in HDR histograms, kept for each thread and merged by the reader.
//!
//! A thread records into its own histogram, under a lock that only a reader ever contends for. Nothing allocates after
//! [`Latency::recorder`], so a histogram costs the same after a year as on the first day.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::sync::{Arc, Mutex};

/// The shortest time that is distinguished, in nanoseconds.
const SHORTEST: u64 = 100;

/// The longest time, in nanoseconds: an hour. Longer ones count as this.
const LONGEST: u64 = 3_600_000_000_000;

/// Significant decimal digits: a value is correct to one per cent.
const DIGITS: u8 = 2;

/// The durations of an operation, over all threads that run it, since the start. Reading merges the records of all threads; it
/// holds none of them up for longer than a copy takes.
///
/// ```
/// use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
/// ctx.run_batches(3)?;
/// let inspector = ctx.inspector().expect("it runs");
/// let ticks = inspector.times().job_ticks.merged();
/// println!("{} ticks, the slowest {:?} late", ticks.count(), ticks.longest());
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Latency {
    parts: Mutex<Vec<Arc<Mutex<Part>>>>,
}

#[derive(Debug)]
struct Part {
    times: Histogram<u64>,
    total: u128,
}

/// The recorder of one thread. Dropping it keeps its records.
#[derive(Debug)]
pub struct Recorder(Arc<Mutex<Part>>);

/// The durations that were recorded up to one moment: their number, sum and distribution. Times from 100 ns to an hour are told
/// apart, correct to one per cent; longer ones count as an hour.
///
/// ```
/// use std::time::Duration;
/// use tidemill::metrics::EngineTimes;
///
/// let times = EngineTimes::default();
/// let (before, after) = (times.job_ticks.merged(), times.job_ticks.merged());
/// let between = after.since(&before);
/// assert_eq!((between.count(), between.total), (0, Duration::ZERO));
/// assert_eq!(between.quantile(0.99), between.longest());
/// assert_eq!(between.at_most(Duration::from_secs(1)), 0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    histogram: Histogram<u64>,
    /// The sum of all times.
    pub total: Duration,
}

impl Latency {
    /// Creates a recorder for one more thread.
    #[doc(hidden)]
    pub fn recorder(&self) -> Recorder {
        let part = Arc::new(Mutex::new(Part { times: histogram(), total: 0 }));
        self.parts.lock().push(Arc::clone(&part));
        Recorder(part)
    }

    /// Merges the records of all threads so far.
    ///
    /// ```
    /// let times = tidemill::metrics::EngineTimes::default().job_ticks.merged();
    /// assert_eq!(times.count(), 0);
    /// ```
    pub fn merged(&self) -> Times {
        let (mut merged, mut total) = (histogram(), 0);
        for part in self.parts.lock().iter() {
            let part = part.lock();
            merged.add(&part.times).expect("all histograms have the same bounds");
            total += part.total;
        }
        let total = Duration::from_nanos(u64::try_from(total).unwrap_or(u64::MAX));
        Times { histogram: merged, total }
    }
}

impl Recorder {
    /// Records one time.
    pub fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut part = self.0.lock();
        part.times.saturating_record(nanos.min(LONGEST));
        part.total += u128::from(nanos);
    }
}

impl Times {
    /// Returns the records after `earlier`, which must be an earlier state of the same [`Latency`].
    ///
    /// # Panics
    /// If it is not: that is a programming mistake.
    pub fn since(&self, earlier: &Times) -> Times {
        let mut later = self.clone();
        later.histogram.subtract(&earlier.histogram).expect("an earlier state holds less of each");
        later.total = self.total.saturating_sub(earlier.total);
        later
    }

    /// The number of recorded times.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The time that this part, 0 to 1, of all times does not exceed; zero if there are none.
    pub fn quantile(&self, part: f64) -> Duration {
        Duration::from_nanos(self.histogram.value_at_quantile(part))
    }

    /// The longest time, correct to one per cent.
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.histogram.max())
    }

    /// The number of times that were at most `bound` long, correct to one per cent.
    pub fn at_most(&self, bound: Duration) -> u64 {
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.count_between(0, nanos.min(LONGEST))
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS).expect("the bounds are constants")
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn threads_are_merged_by_the_reader() {
        let latency = Latency::default();
        let (one, two) = (latency.recorder(), latency.recorder());
        one.record(Duration::from_micros(10));
        two.record(Duration::from_millis(1));
        two.record(Duration::from_secs(1_000_000));
        drop(one);
        let times = latency.merged();
        assert_eq!(times.count(), 3);
        assert_eq!(times.at_most(Duration::from_micros(20)), 1);
        assert_eq!(times.at_most(Duration::from_millis(2)), 2);
        assert!(times.quantile(0.5) >= Duration::from_micros(990), "{:?}", times.quantile(0.5));
        assert!(times.longest() >= Duration::from_secs(3_500), "longer ones count as an hour");
        assert_eq!(times.total, Duration::from_micros(1_010) + Duration::from_secs(1_000_000));
        two.record(Duration::from_micros(20));
        let later = latency.merged().since(&times);
        assert_eq!((later.count(), later.total), (1, Duration::from_micros(20)));
        assert!(later.longest() < Duration::from_micros(21), "{:?}", later.longest());
    }
}
