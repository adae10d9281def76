//! The rate estimator: a PID controller that follows what batches can process. Pure; asked after each batch, and when one
//! is overdue.
//!
//! `rate = clamp(latest − P·(latest − processed/s) − I·(scheduling delay × processed/s ÷ batch interval) − D·Δerror/Δt)`

use std::time::Duration;

use crate::settings::units::as_f64;
use crate::time::Moment;

/// The weight of the difference to the processed rate.
const PROPORTIONAL: f64 = 1.0;
/// The weight of the records that wait.
const INTEGRAL: f64 = 0.2;
/// The weight of the change of the difference.
const DERIVATIVE: f64 = 0.0;

/// The measurement of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// The moment at which the batch was done.
    pub(crate) at: Moment,
    /// The receivers' records in it.
    pub(crate) records: u64,
    /// From the start of its first job to its end.
    pub(crate) processing: Duration,
    /// The scheduling delay of the newest batch, as far as that is known.
    pub(crate) delay: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RateEstimator {
    interval: Duration,
    bounds: Bounds,
    latest: Option<Latest>,
}

/// The lowest and the highest rate, in records per second; the lowest one counts if they are the wrong way round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    at: Moment,
    rate: f64,
    error: f64,
}

impl RateEstimator {
    /// For batches of this interval and rates within these bounds.
    pub(crate) fn new(interval: Duration, bounds: Bounds) -> Self {
        let mut estimator = RateEstimator { interval, bounds, latest: None };
        estimator.set_bounds(bounds);
        estimator
    }

    /// Other bounds from here on.
    pub(crate) fn set_bounds(&mut self, Bounds { min, max }: Bounds) {
        self.bounds = Bounds { min, max: max.max(min) };
    }

    /// The rate after a batch that still runs, with `sample.processing` as the time so far; `None` unless that is lower than the
    /// rate in force.
    pub(crate) fn lower(&mut self, sample: Sample, in_force: u64) -> Option<u64> {
        let before = self.latest;
        let rate = self.update(sample)?;
        if rate < in_force {
            return Some(rate);
        }
        self.latest = before;
        None
    }

    /// The rate after one more batch; `None` after the first one, which sets the base, and after one that tells nothing.
    pub(crate) fn update(&mut self, sample: Sample) -> Option<u64> {
        let Sample { at, records, processing, delay } = sample;
        if records == 0 || processing.is_zero() {
            return None;
        }
        let processed = as_f64(records) / processing.as_secs_f64();
        let Some(latest) = self.latest else {
            self.latest = Some(Latest { at, rate: processed, error: 0.0 });
            return None;
        };
        let elapsed = at.since(latest.at).as_secs_f64();
        if elapsed <= 0.0 {
            return None;
        }
        let error = latest.rate - processed;
        let waiting = delay.as_secs_f64() * processed / self.interval.as_secs_f64();
        let change = (error - latest.error) / elapsed;
        let rate = latest.rate - PROPORTIONAL * error - INTEGRAL * waiting - DERIVATIVE * change;
        let rate = rate.clamp(as_f64(self.bounds.min), as_f64(self.bounds.max));
        self.latest = Some(Latest { at, rate, error });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to bounds that are u64"
        )]
        let rate = rate as u64;
        Some(rate)
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Records, processing in ms and delay in ms of a batch, and the rate after it.
    type Case = ((u64, u64, u64), Option<u64>);

    /// The samples are a second apart.
    fn check(bounds: Bounds, samples: &[Case]) {
        let mut estimator = RateEstimator::new(SECOND, bounds);
        for (number, ((records, processing, delay), expected)) in samples.iter().enumerate() {
            let found = estimator.update(Sample {
                at: Moment::from_nanos((number as u64 + 1) * 1_000_000_000),
                records: *records,
                processing: Duration::from_millis(*processing),
                delay: Duration::from_millis(*delay),
            });
            assert_eq!(found, *expected, "sample {number} of {samples:?}");
        }
    }

    #[test]
    fn rates_follow_the_formula() {
        let free = Bounds { min: 100, max: u64::MAX };
        // The first sample sets the base; empty and timeless ones are skipped.
        check(free, &[((1_000, 1_000, 0), None), ((1_000, 1_000, 0), Some(1_000))]);
        check(
            free,
            &[
                ((0, 1_000, 0), None),
                ((5, 0, 0), None),
                ((2_000, 1_000, 0), None),
                ((500, 1_000, 0), Some(500)),
            ],
        );
        // With P = 1 the rate is what was processed, less a fifth of what waits.
        check(
            free,
            &[
                ((1_000, 1_000, 0), None),
                ((3_000, 1_000, 1_000), Some(2_400)),
                ((3_000, 1_000, 500), Some(2_700)),
            ],
        );
        check(
            free,
            &[
                ((1_000, 1_000, 0), None),
                ((1_000, 1_000, 9_000), Some(100)),
                ((1_000, 1_000, 0), Some(1_000)),
            ],
        );
        let check_last = |max: u64, expected: u64| {
            let samples = [((1_000, 1_000, 0), None), ((5_000, 1_000, 0), Some(expected))];
            check(Bounds { min: 100, max }, &samples);
        };
        check_last(700, 700);
        check_last(50, 100);
    }
}
