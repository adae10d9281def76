//! `Steering`: derives the rates of the receivers from the batches. Called by the job loop; [`Controller`] and [`shares`] are
//! pure.
//!
//! ```text
//!  batch done ────────────────────▶ sample ─▶ RateEstimator ─▶ total rate ─shares─▶ limiter of each receiver
//!  batch allocated, one overdue ──▶ sample ┘  (only if lower)      by what each would read if nothing held it
//! ```
//! A batch's own scheduling delay tells the length of the queue when it was made; since then the rate has changed. So the
//! delay of a sample is the one that the newest waiting batch will have: the effect of the rate in force on the queue shows
//! at once, and the rate recovers as soon as the queue is gone. A batch that still runs after an interval has processed at
//! most its records in that time: that much is known before it ends.

pub(crate) mod pid;

use std::collections::VecDeque;
use std::time::Duration;

use crate::settings::units::as_f64;
use crate::source::{Steered, Usage};
use crate::stream::BatchInput;
use crate::time::Moment;

use crate::scheduler::rates::pid::{Bounds, RateEstimator, Sample};

/// Records of a batch: all, and those of steered receivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) all: u64,
    pub(super) steered: u64,
}

/// A batch that is not done.
#[derive(Debug)]
struct Unfinished {
    due: Moment,
    records: Records,
    started: Option<Moment>,
}

/// Computes the rate from the batches that are not done.
#[derive(Debug)]
struct Controller {
    estimator: RateEstimator,
    interval: Duration,
    batches: VecDeque<Unfinished>,
    /// In force, in records per second.
    rate: u64,
}

impl Controller {
    fn new(interval: Duration, bounds: Bounds, initial: u64) -> Self {
        let estimator = RateEstimator::new(interval, bounds);
        Controller { estimator, interval, batches: VecDeque::new(), rate: initial }
    }

    /// A batch joins the queue at the moment `now`. Returns a lower rate if the batch that runs is overdue.
    fn allocated(&mut self, now: Moment, due: Moment, records: Records) -> Option<u64> {
        self.batches.push_back(Unfinished { due, records, started: None });
        let running = self.batches.front()?;
        let taken = now.since(running.started?);
        if taken < self.interval || self.batches.len() < 2 {
            return None;
        }
        let (records, processed) = (running.records, per_second(running.records.all, taken)?);
        let ahead = self.ahead() - records.all;
        let delay = self.expected_delay(now, ahead, processed);
        let sample = Sample { at: now, records: records.steered, processing: taken, delay };
        let rate = self.estimator.lower(sample, self.rate)?;
        self.rate = rate;
        Some(rate)
    }

    /// The first job of the oldest batch starts.
    fn started(&mut self, now: Moment) {
        if let Some(batch) = self.batches.front_mut() {
            batch.started.get_or_insert(now);
        }
    }

    /// The oldest batch is done. Returns the rate from now on, if the batch told anything.
    fn done(&mut self, now: Moment) -> Option<u64> {
        let Unfinished { records, started, .. } = self.batches.pop_front()?;
        let processing = now.since(started?);
        let processed = per_second(records.all, processing)?;
        let delay = self.expected_delay(now, self.ahead(), processed);
        let sample = Sample { at: now, records: records.steered, processing, delay };
        let rate = self.estimator.update(sample)?;
        self.rate = rate;
        Some(rate)
    }

    /// Records of unfinished batches other than the newest.
    fn ahead(&self) -> u64 {
        let newest = self.batches.len().saturating_sub(1);
        self.batches.iter().take(newest).map(|batch| batch.records.all).sum()
    }

    /// The scheduling delay that the newest batch will have, at least.
    fn expected_delay(&self, now: Moment, ahead: u64, processed: f64) -> Duration {
        let Some(newest) = self.batches.back() else { return Duration::ZERO };
        let wait = Duration::try_from_secs_f64(as_f64(ahead) / processed).unwrap_or(Duration::MAX);
        now.since(newest.due).saturating_add(wait)
    }
}

fn per_second(records: u64, time: Duration) -> Option<f64> {
    (records > 0 && !time.is_zero()).then(|| as_f64(records) / time.as_secs_f64())
}

/// The rate that a receiver would read at, and its bounds.
#[derive(Clone, Copy, Debug)]
struct Want {
    /// Records per second that it would read if nothing held it, an estimate.
    rate: f64,
    min: f64,
    max: f64,
}

/// The least share of the time that a receiver is taken to read: its lag is a hundred times what it read at most.
const READING_MIN: f64 = 0.01;

impl Want {
    /// A receiver that was held half of the time lags behind by as much again as it read.
    fn new(steered: &Steered, used: Usage, time: Duration) -> Want {
        let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
        let reading = (1.0 - used.held.as_secs_f64() / seconds).max(READING_MIN);
        let rate = as_f64(used.records) / seconds / reading;
        Want { rate, min: as_f64(steered.min()), max: as_f64(steered.max()) }
    }
}

/// Shares `total` so that no receiver gets more than it wants before all have that: those with a lag share what the others
/// leave. The rest is shared as well, for a receiver may have more to read in the next batch.
fn shares(total: f64, wants: &[Want]) -> Vec<f64> {
    let mut rates: Vec<f64> = wants.iter().map(|want| want.min).collect();
    let mut left = total - rates.iter().sum::<f64>();
    let caps: [Vec<f64>; 2] = [
        wants.iter().map(|want| want.rate.clamp(want.min, want.max)).collect(),
        wants.iter().map(|want| want.max).collect(),
    ];
    for caps in &caps {
        // Each round fills a receiver up or shares out all that is left.
        for _ in 0..wants.len() {
            let open: Vec<usize> = (0..wants.len()).filter(|at| rates[*at] < caps[*at]).collect();
            if open.is_empty() || left <= 0.0 {
                break;
            }
            let level = level(&open, &rates, caps, left);
            for at in open {
                let more = (level.min(caps[at]) - rates[at]).max(0.0);
                rates[at] += more;
                left -= more;
            }
        }
    }
    rates
}

/// The level to which the lowest of `open` rise together, until `left` is used up or the first cap or the next rate is reached.
fn level(open: &[usize], rates: &[f64], caps: &[f64], left: f64) -> f64 {
    let lowest = open.iter().map(|at| rates[*at]).fold(f64::INFINITY, f64::min);
    let rising: Vec<usize> = open.iter().copied().filter(|at| rates[*at] <= lowest).collect();
    let next = open.iter().map(|at| rates[*at]).filter(|rate| *rate > lowest);
    let cap = rising.iter().map(|at| caps[*at]);
    let bound = next.chain(cap).fold(f64::INFINITY, f64::min);
    bound.min(lowest + left / as_f64(rising.len() as u64))
}

/// The steered receivers of a stream.
pub(super) struct Steering {
    receivers: Vec<Steered>,
    controller: Controller,
    /// The moment of the last sharing, and the usage of each receiver by then.
    shared: (Moment, Vec<Usage>),
}

impl Steering {
    /// For batches of this interval.
    pub(super) fn new(interval: Duration, receivers: Vec<Steered>, now: Moment) -> Self {
        let initial = sum(&receivers, |it| it.limiter.rate());
        let used = receivers.iter().map(|it| it.limiter.usage()).collect();
        let controller = Controller::new(interval, bounds(&receivers), initial);
        Steering { receivers, controller, shared: (now, used) }
    }

    /// A batch joins the queue.
    pub(super) fn allocated(&mut self, now: Moment, input: &BatchInput) {
        if !self.receivers.is_empty() {
            self.follow_bounds();
            let of_source = |receiver: &Steered| input.block_records(receiver.source);
            let steered = self.receivers.iter().map(of_source).sum();
            let records = Records { all: input.records, steered };
            let rate = self.controller.allocated(now, input.due, records);
            self.share(now, rate);
        }
    }

    /// A job of the oldest batch starts.
    pub(super) fn started(&mut self, now: Moment) {
        if !self.receivers.is_empty() {
            self.controller.started(now);
        }
    }

    /// The oldest batch is done.
    pub(super) fn done(&mut self, now: Moment) {
        if !self.receivers.is_empty() {
            self.follow_bounds();
            let rate = self.controller.done(now);
            self.share(now, rate);
        }
    }

    /// The bounds may have changed since the last batch.
    fn follow_bounds(&mut self) {
        self.controller.estimator.set_bounds(bounds(&self.receivers));
    }

    fn share(&mut self, now: Moment, rate: Option<u64>) {
        let Some(rate) = rate else { return };
        let time = now.since(self.shared.0);
        let used: Vec<Usage> = self.receivers.iter().map(|it| it.limiter.usage()).collect();
        let want = |((steered, used), before): ((&Steered, &Usage), &Usage)| {
            Want::new(steered, used.since(before), time)
        };
        let wants: Vec<Want> =
            self.receivers.iter().zip(&used).zip(&self.shared.1).map(want).collect();
        for (receiver, share) in self.receivers.iter().zip(shares(as_f64(rate), &wants)) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between bounds that are u64"
            )]
            receiver.limiter.set_rate(share as u64);
        }
        self.shared = (now, used);
    }
}

/// The bounds of the total.
fn bounds(receivers: &[Steered]) -> Bounds {
    Bounds { min: sum(receivers, Steered::min), max: sum(receivers, Steered::max) }
}

fn sum(receivers: &[Steered], of: impl Fn(&Steered) -> u64) -> u64 {
    receivers.iter().map(of).fold(0, u64::saturating_add)
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The rate that each receiver wants, and its bounds; the share of each.
    fn check_shares(total: u64, wants: &[(u64, u64, u64)], expected: &[u64]) {
        let want = |(rate, min, max): &(u64, u64, u64)| Want {
            rate: as_f64(*rate),
            min: as_f64(*min),
            max: as_f64(*max),
        };
        let found = shares(as_f64(total), &wants.iter().map(want).collect::<Vec<_>>());
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - as_f64(*expected)).abs() < 1.0,
                "{total} for {wants:?}: {found}, not {expected}"
            );
        }
    }

    #[test]
    fn a_total_is_shared_by_what_each_would_read() {
        const ANY: u64 = 1 << 40;
        // One gets all of it, whatever it wants.
        check_shares(10_000, &[(1, 100, ANY)], &[10_000]);
        check_shares(10_000, &[(99_999, 100, ANY)], &[10_000]);
        // Who lags behind gets what the others leave.
        check_shares(10_000, &[(2_000, 100, ANY), (160_000, 100, ANY)], &[2_000, 8_000]);
        check_shares(10_000, &[(90_000, 100, ANY), (160_000, 100, ANY)], &[5_000, 5_000]);
        check_shares(
            9_000,
            &[(1_000, 100, ANY), (90_000, 100, ANY), (90_000, 100, ANY)],
            &[1_000, 4_000, 4_000],
        );
        // What nobody wants is shared from below.
        check_shares(10_000, &[(1_000, 100, ANY), (3_000, 100, ANY)], &[5_000, 5_000]);
        // Bounds hold.
        check_shares(10_000, &[(9_000, 100, 500), (9_000, 100, ANY)], &[500, 9_500]);
        check_shares(10_000, &[(9_000, 100, 500), (9_000, 100, 600)], &[500, 600]);
        check_shares(100, &[(9_000, 100, ANY), (9_000, 100, ANY)], &[100, 100]);
        check_shares(1_000, &[(0, 800, ANY), (9_000, 100, ANY)], &[800, 200]);
    }

    /// The fate of a batch: its wait in intervals, and the rate in force at its tick.
    type Shown = (f64, u64);

    /// One receiver and one queue of batches, a second each: records offered and records that can be processed per second,
    /// for the interval before each tick and for each batch.
    struct Simulation {
        controller: Controller,
        now: f64,
        read: f64,
        waiting: VecDeque<(usize, u64)>,
        /// The number of the running batch, and its end.
        running: Option<(usize, f64)>,
        shown: Vec<Shown>,
    }

    impl Simulation {
        fn run(
            initial: u64,
            batches: usize,
            offered: impl Fn(usize) -> u64,
            capacity: impl Fn(usize) -> u64,
        ) -> Vec<Shown> {
            let bounds = Bounds { min: 100, max: u64::MAX };
            let controller = Controller::new(SECOND, bounds, initial);
            let mut it = Simulation {
                controller,
                now: 0.0,
                read: 0.0,
                waiting: VecDeque::new(),
                running: None,
                shown: Vec::new(),
            };
            for number in 1..=batches {
                let (tick, offered) = (number as f64, as_f64(offered(number)));
                it.finish_until(tick, offered, &capacity);
                it.read_until(tick, offered);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a small simulated number"
                )]
                let records = it.read as u64;
                it.read -= as_f64(records);
                let all = Records { all: records, steered: records };
                it.controller.allocated(moment(tick), moment(tick), all);
                it.waiting.push_back((number, records));
                it.shown.push((0.0, it.controller.rate));
                it.start(&capacity);
            }
            it.finish_until(f64::INFINITY, 0.0, &capacity);
            it.shown
        }

        fn read_until(&mut self, to: f64, offered: f64) {
            self.read += (to - self.now) * offered.min(as_f64(self.controller.rate));
            self.now = to;
        }

        fn finish_until(&mut self, tick: f64, offered: f64, capacity: &impl Fn(usize) -> u64) {
            while let Some((_, end)) = self.running.filter(|(_, end)| *end <= tick) {
                self.read_until(end, offered);
                self.controller.done(moment(end));
                self.running = None;
                self.start(capacity);
            }
        }

        fn start(&mut self, capacity: &impl Fn(usize) -> u64) {
            if self.running.is_none()
                && let Some((number, records)) = self.waiting.pop_front()
            {
                self.controller.started(moment(self.now));
                self.shown[number - 1].0 = self.now - number as f64;
                let processing = as_f64(records) / as_f64(capacity(number));
                self.running = Some((number, self.now + processing.max(0.001)));
            }
        }
    }

    fn moment(seconds: f64) -> Moment {
        Moment::default().plus(Duration::from_secs_f64(seconds))
    }

    /// From the batch `settled` on the delay stays under one batch and no rate differs from the one before by a fifth.
    fn check_settles(what: &str, shown: &[Shown], settled: usize) {
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
            let shown = Simulation::run(initial, 100, |_| 3 * capacity, |_| capacity);
            check_settles(&format!("capacity {capacity}"), &shown, 10);
            let last = shown[99].1;
            assert!(
                last > capacity / 10 * 8 && last <= capacity,
                "{last} of {capacity}: {shown:?}"
            );
        }
    }

    #[test]
    fn a_start_at_three_times_the_capacity_settles() {
        let shown = Simulation::run(10_000, 100, |_| 10_000, |_| 3_333);
        assert!(shown[10..].iter().all(|(delay, _)| *delay < 1.0), "{shown:?}");
        check_settles("the rate is back two batches later", &shown, 12);
    }

    #[test]
    fn an_overload_after_a_quiet_time_settles_and_recovers() {
        // Quiet, then three times what can be processed from batch 30 to 60, then quiet again.
        let offered = |number| if (30..60).contains(&number) { 30_000 } else { 5_000 };
        let shown = Simulation::run(10_000, 100, offered, |_| 10_000);
        check_settles("a burst", &shown, 40);
        assert!(
            shown[69..].iter().all(|(_, rate)| *rate >= 9_000),
            "recovers within ten: {shown:?}"
        );
    }

    #[test]
    fn batches_that_become_three_times_as_slow_settle_within_ten_and_recover_within_ten() {
        // From batch 30 to 90. The batches that were read before the first slow one ended are three intervals of work each.
        let capacity = |number| if (30..90).contains(&number) { 3_333 } else { 10_000 };
        let shown = Simulation::run(10_000, 150, |_| 30_000, capacity);
        check_settles("slow", &shown[..89], 40);
        check_settles("fast again", &shown, 99);
        assert!(
            shown[99..].iter().all(|(_, rate)| *rate >= 8_000),
            "recovers within ten: {shown:?}"
        );
    }
}
