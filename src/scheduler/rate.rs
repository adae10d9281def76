//! The rate estimator: a PID controller that follows what batches can process. Pure; asked by the job loop after each
//! batch, once for each receiver.
//!
//! `rate = clamp(latest − P·(latest − processed/s) − I·(scheduling delay × processed/s ÷ batch interval) − D·Δerror/Δt)`

use std::time::Duration;

use crate::time::Moment;

/// How strongly the rate follows the difference to what was processed.
const PROPORTIONAL: f64 = 1.0;
/// How strongly it makes up for what waits.
const INTEGRAL: f64 = 0.2;
/// How strongly it follows the change of the difference.
const DERIVATIVE: f64 = 0.0;

/// What a batch tells of a receiver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// When the batch was done.
    pub(super) at: Moment,
    /// The receiver's records in it.
    pub(super) records: u64,
    /// From the start of its first job to its end.
    pub(super) processing: Duration,
    /// From its tick to the start of its first job.
    pub(super) delay: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct RateEstimator {
    interval: Duration,
    min: u64,
    max: u64,
    latest: Option<Latest>,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    at: Moment,
    rate: f64,
    error: f64,
}

impl RateEstimator {
    /// For batches of this interval and rates within these bounds, in records per second.
    pub(super) fn new(interval: Duration, min: u64, max: u64) -> Self {
        RateEstimator { interval, min, max: max.max(min), latest: None }
    }

    /// The rate after one more batch; none after the first one, which sets the base, and after one that tells nothing.
    pub(super) fn update(&mut self, sample: Sample) -> Option<u64> {
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
        let rate = rate.clamp(as_f64(self.min), as_f64(self.max));
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

#[expect(clippy::cast_precision_loss, reason = "a rate or a count far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Records, processing in ms and delay in ms of a batch, and the rate after it.
    type Case = ((u64, u64, u64), Option<u64>);

    /// The samples are a second apart.
    fn check(bounds: (u64, u64), samples: &[Case]) {
        let mut estimator = RateEstimator::new(SECOND, bounds.0, bounds.1);
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
        let free = (100, u64::MAX);
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
        check((100, 700), &[((1_000, 1_000, 0), None), ((5_000, 1_000, 0), Some(700))]);
        check((100, 50), &[((1_000, 1_000, 0), None), ((5_000, 1_000, 0), Some(100))]);
    }

    /// One receiver, one queue of batches, a second each: offered and processed records per second for each batch.
    /// The scheduling delay of each batch and the rate in force at its tick.
    fn simulate(
        initial: u64,
        batches: u64,
        offered: impl Fn(u64) -> u64,
        capacity: impl Fn(u64) -> u64,
    ) -> Vec<(f64, u64)> {
        let mut estimator = RateEstimator::new(SECOND, 100, u64::MAX);
        let (mut rate, mut free_at, mut ends) = (initial, 0.0_f64, Vec::<(f64, Sample)>::new());
        let mut shown = Vec::new();
        for number in 1..=batches {
            let tick = number as f64;
            ends.retain(|(end, sample)| {
                let over = *end <= tick - 1.0;
                if over && let Some(new) = estimator.update(*sample) {
                    rate = new;
                }
                !over
            });
            let records = offered(number).min(rate);
            let start = free_at.max(tick);
            let processing = records as f64 / capacity(number) as f64;
            free_at = start + processing;
            let sample = Sample {
                at: Moment::default().plus(Duration::from_secs_f64(free_at)),
                records,
                processing: Duration::from_secs_f64(processing),
                delay: Duration::from_secs_f64(start - tick),
            };
            ends.push((free_at, sample));
            shown.push((start - tick, rate));
        }
        shown
    }

    /// From the batch `settled` on the delay stays under one batch and no rate differs from the one before by a fifth.
    fn check_settles(what: &str, shown: &[(f64, u64)], settled: usize) {
        for pair in shown[settled..].windows(2) {
            let [(_, before), (delay, rate)] = [pair[0], pair[1]];
            assert!(delay < 1.0, "{what}: {shown:?}");
            assert!(rate.abs_diff(before) <= before / 5, "{what} oscillates: {shown:?}");
        }
    }

    #[test]
    fn a_threefold_overload_settles_within_ten_batches() {
        for (initial, capacity) in
            [(10_000, 10_000), (10_000, 100_000), (10_000, 12_345), (1_000, 1_000_000)]
        {
            let shown = simulate(initial, 100, |_| 3 * capacity, |_| capacity);
            check_settles(&format!("capacity {capacity}"), &shown, 10);
            let last = shown[99].1;
            assert!(
                last > capacity / 10 * 8 && last <= capacity,
                "{last} of {capacity}: {shown:?}"
            );
        }
    }

    #[test]
    fn an_overload_after_a_quiet_time_settles_and_recovers() {
        // Quiet, then three times what can be processed from batch 30 to 60, then quiet again.
        let offered = |number| if (30..60).contains(&number) { 30_000 } else { 5_000 };
        let shown = simulate(10_000, 100, offered, |_| 10_000);
        check_settles("a burst", &shown, 40);
        assert!(
            shown[69..].iter().all(|(_, rate)| *rate >= 9_000),
            "recovers within ten: {shown:?}"
        );
    }

    #[test]
    fn slower_batches_lower_the_rate_and_faster_ones_raise_it() {
        // Processing takes three times as long from batch 30 to 90: the batches that were read before are three
        // intervals of work each, so the queue needs longer than the rate.
        let capacity = |number| if (30..90).contains(&number) { 3_333 } else { 10_000 };
        let shown = simulate(10_000, 150, |_| 30_000, capacity);
        check_settles("slow", &shown[..90], 55);
        assert!(
            shown[100..].iter().all(|(_, rate)| *rate >= 8_000),
            "recovers within ten: {shown:?}"
        );
    }
}
