//! The rate of a receiver: a token bucket of records, and the thread `rxN-rate` that wakes held handlers by a deadline.
//!
//! ```text
//!  handler: ready? ─▶ tokens ≥ 1 ─▶ read tokens × mean record length ─▶ take: reads beyond the tokens are debt
//!                 └ else held ─▶ rxN-rate waits until half a burst is there ─▶ wakes the handlers
//! ```
//! A burst is [`BURST`] worth of records, so an idle second does not become a second's worth at once. Io threads ask
//! and take; the job loop may change the rate. Nothing here knows the reason for a rate.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::settings::units::as_f64;
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mutex, Poison, Signal, StopToken};
use crate::time::{Clock, Moment, tighten_timer_slack};

/// The time for which an idle receiver saves up tokens.
const BURST: Duration = Duration::from_millis(20);

/// The least bytes of one read: smaller ones cost more than they gain.
const READ_BYTES_MIN: f64 = 4096.0;

/// The weight of one read in the mean length of records; earlier reads have the rest.
const MEAN_DECAY: f64 = 0.125;

/// Records per second, as tokens. Pure: the caller passes the time in.
#[derive(Debug)]
struct TokenBucket {
    rate: f64,
    /// Below zero: debt.
    tokens: f64,
    refilled: Moment,
}

impl TokenBucket {
    fn new(rate: u64, now: Moment) -> Self {
        let mut bucket = TokenBucket { rate: as_f64(rate), tokens: 0.0, refilled: now };
        bucket.tokens = bucket.burst();
        bucket
    }

    fn burst(&self) -> f64 {
        (self.rate * BURST.as_secs_f64()).max(1.0)
    }

    fn refill(&mut self, now: Moment) {
        let grown = self.rate * now.since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + grown).min(self.burst());
        self.refilled = now;
    }

    fn set_rate(&mut self, rate: u64, now: Moment) {
        self.refill(now);
        self.rate = as_f64(rate);
        self.tokens = self.tokens.min(self.burst());
    }

    /// Returns true if something may be read now.
    fn is_ready(&mut self, now: Moment) -> bool {
        self.refill(now);
        self.tokens >= 1.0
    }

    fn take(&mut self, records: u64) {
        self.tokens -= as_f64(records);
    }

    /// The time when half a burst is there: a held reader is not woken for every single token.
    fn wake_at(&self) -> Moment {
        let missing = (self.burst() / 2.0).max(1.0) - self.tokens;
        let wait = Duration::try_from_secs_f64((missing / self.rate).max(0.0));
        // One nanosecond more: rounding must not wake a reader just before its token.
        self.refilled.plus(wait.unwrap_or(Duration::MAX).saturating_add(Duration::from_nanos(1)))
    }
}

/// The limit of one receiver. Any thread may call it.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Raised when a handler is held or the rate changes: the deadline is another one.
    changed: Signal,
}

#[derive(Debug)]
struct State {
    bucket: TokenBucket,
    rate: u64,
    /// The lowest and the highest rate, if it follows what batches can process.
    bounds: Option<(u64, u64)>,
    /// A handler has had to wait since the last wake-up.
    held: bool,
    mean: MeanLength,
    records: u64,
    /// The time that handlers were held in all, and the time since which one is held.
    held_for: Duration,
    held_since: Option<Moment>,
}

/// Amounts that a receiver has read under its limit since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Records.
    pub(crate) records: u64,
    /// The time for which the limit held it.
    pub(crate) held: Duration,
}

impl Usage {
    /// The usage since `before`.
    pub(crate) fn since(&self, before: &Usage) -> Usage {
        Usage {
            records: self.records - before.records,
            held: self.held.saturating_sub(before.held),
        }
    }
}

/// The mean length of records: sums that decay with each read, so that it follows a stream that changes.
#[derive(Debug, Default)]
struct MeanLength {
    bytes: f64,
    records: f64,
}

impl MeanLength {
    fn add(&mut self, records: u64, bytes: u64) {
        self.bytes += MEAN_DECAY * (as_f64(bytes) - self.bytes);
        self.records += MEAN_DECAY * (as_f64(records) - self.records);
    }

    /// The bytes that this many records are likely to take, at least [`READ_BYTES_MIN`]; that much if their length is unknown.
    fn bytes_of(&self, records: f64) -> usize {
        let mean = if self.records > 0.0 { self.bytes / self.records } else { 0.0 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float beyond the integers becomes the largest"
        )]
        let bytes = (records * mean).max(READ_BYTES_MIN) as usize;
        bytes
    }
}

impl RateLimiter {
    /// A limit of `rate` records per second, at least one.
    pub(crate) fn new(rate: u64, clock: Arc<dyn Clock>) -> Arc<Self> {
        let rate = rate.max(1);
        let bucket = TokenBucket::new(rate, clock.now());
        let state = State {
            bucket,
            rate,
            bounds: None,
            held: false,
            mean: MeanLength::default(),
            records: 0,
            held_for: Duration::ZERO,
            held_since: None,
        };
        Arc::new(RateLimiter { clock, state: Mutex::new(state), changed: Signal::new() })
    }

    /// The rate in force, in records per second.
    pub(crate) fn rate(&self) -> u64 {
        self.state.lock().rate
    }

    /// Changes the rate; a debt of earlier reads stays.
    pub(crate) fn set_rate(&self, rate: u64) {
        let rate = rate.max(1);
        let mut state = self.state.lock();
        state.rate = rate;
        state.bucket.set_rate(rate, self.clock.now());
        drop(state);
        self.changed.raise();
    }

    /// Lets the rate follow what batches can process, between these bounds; it is moved between them at once.
    pub(crate) fn set_bounds(&self, min: u64, max: u64) {
        self.state.lock().bounds = Some((min, max));
        self.set_rate(self.rate().clamp(min, max.max(min)));
    }

    /// The lowest and the highest rate, if it follows what batches can process.
    pub(crate) fn bounds(&self) -> Option<(u64, u64)> {
        self.state.lock().bounds
    }

    /// True if handlers wait for it; changes nothing.
    pub(crate) fn holds(&self) -> bool {
        self.state.lock().held
    }

    /// Returns true if something may be read now; if not, the handlers are woken once that changes.
    pub(crate) fn is_ready(&self) -> bool {
        let mut state = self.state.lock();
        let now = self.clock.now();
        let ready = state.bucket.is_ready(now);
        if ready {
            let since = state.held_since.take();
            state.held_for += since.map_or(Duration::ZERO, |since| now.since(since));
        } else {
            state.held_since.get_or_insert(now);
        }
        let first = !ready && !std::mem::replace(&mut state.held, !ready);
        drop(state);
        if first {
            self.changed.raise();
        }
        ready
    }

    /// Takes tokens for a read.
    pub(crate) fn take(&self, records: u64, bytes: u64) {
        let mut state = self.state.lock();
        state.bucket.take(records);
        state.mean.add(records, bytes);
        state.records += records;
    }

    /// The most bytes that a read may bring now: as many as the tokens are likely to cover.
    pub(crate) fn read_max(&self) -> usize {
        let state = self.state.lock();
        state.mean.bytes_of(state.bucket.tokens.max(0.0))
    }

    /// The amounts read so far, and the time for which the limit held the receiver.
    pub(crate) fn usage(&self) -> Usage {
        let state = self.state.lock();
        let now = self.clock.now();
        let held = state.held_since.map_or(Duration::ZERO, |since| now.since(since));
        Usage { records: state.records, held: state.held_for + held }
    }

    /// Starts the thread that calls `wake` when held handlers may read again.
    pub(crate) fn start(
        self: &Arc<Self>,
        name: &str,
        stop: &StopToken,
        poison: &Poison,
        wake: impl Fn() + Send + 'static,
    ) -> Result<Thread> {
        stop.wakes(&self.changed);
        let (limiter, stop) = (Arc::clone(self), stop.clone());
        let body = move || {
            tighten_timer_slack();
            while !stop.is_stopped() {
                let due = limiter.due();
                if due.is_some_and(|at| limiter.clock.now() >= at) {
                    limiter.state.lock().held = false;
                    wake();
                } else {
                    limiter.clock.wait(&limiter.changed, due);
                }
            }
        };
        thread::spawn(name, poison, body)
            .map_err(|err| Error::io(format!("cannot start the thread `{name}`"), err))
    }

    fn due(&self) -> Option<Moment> {
        let mut state = self.state.lock();
        state.bucket.refill(self.clock.now());
        state.held.then(|| {
            if state.bucket.tokens >= 1.0 { state.bucket.refilled } else { state.bucket.wake_at() }
        })
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sync::Mailbox;
    use crate::time::ManualClock;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    /// Reads of `read` records whenever the bucket is ready, looked at each millisecond for this many after `idle`.
    struct Reads {
        rate: u64,
        read: u64,
        idle: u64,
        millis: u64,
        /// The records read in the first millisecond.
        first: u64,
        /// The bounds of all records read.
        all: std::ops::RangeInclusive<u64>,
    }

    fn check(reads: Reads) {
        let Reads { rate, read, idle, millis, .. } = reads;
        let mut bucket = TokenBucket::new(rate, at(0));
        let (mut first, mut all) = (0, 0);
        for now in idle..idle + millis {
            while bucket.is_ready(at(now)) {
                bucket.take(read);
                all += read;
                first += if now == idle { read } else { 0 };
            }
        }
        assert_eq!(first, reads.first, "{rate}/s, reads of {read}");
        assert!(reads.all.contains(&all), "{rate}/s, reads of {read}: {all} in {millis} ms");
    }

    #[test]
    fn the_rate_is_kept_without_a_one_second_burst() {
        let one = || Reads {
            rate: 1_000,
            read: 1,
            idle: 0,
            millis: 10_000,
            first: 20,
            all: 9_950..=10_050,
        };
        check(one());
        check(Reads { idle: 3_600_000, ..one() });
        check(Reads { read: 7, first: 21, ..one() });
        // A read far beyond the tokens is paid back before the next one.
        check(Reads { read: 2_600, first: 2_600, all: 7_800..=12_600, ..one() });
        check(Reads { rate: 1, first: 1, all: 10..=11, ..one() });
        let (rate, read, all) = (10_000_000, 100_000, 9_900_000..=10_300_000);
        check(Reads { rate, read, millis: 1_000, first: 200_000, all, ..one() });
    }

    #[test]
    fn held_handlers_are_woken_by_the_clock_and_by_a_higher_rate() {
        let clock = ManualClock::new();
        let limiter = RateLimiter::new(100, Arc::new(clock.clone()));
        let (woken, stop, poison) = (Mailbox::new(10), StopToken::new(), Poison::new());
        let told = woken.clone();
        let wake = move || told.send(()).expect("the test listens");
        let thread = limiter.start("rx0-rate", &stop, &poison, wake).expect("a thread");
        assert!(limiter.is_ready());
        limiter.take(12, 120);
        assert!(!limiter.is_ready());
        clock.wait_for_sleepers(1);
        clock.advance(Duration::from_millis(99));
        assert!(!limiter.is_ready(), "the debt is ten records and one more is needed");
        assert!(woken.is_empty());
        clock.advance(Duration::from_millis(12));
        assert_eq!(woken.recv(), Some(()));
        assert!(limiter.is_ready());
        limiter.take(1_000, 10_000);
        assert!(!limiter.is_ready());
        clock.wait_for_sleepers(1);
        limiter.set_rate(1_000_000);
        clock.advance(Duration::from_millis(20));
        assert_eq!(woken.recv(), Some(()));
        assert_eq!(limiter.rate(), 1_000_000);
        stop.stop();
        thread.join();
    }

    #[test]
    fn a_read_is_sized_to_the_tokens() {
        let clock = ManualClock::new();
        let limiter = RateLimiter::new(10_000, Arc::new(clock.clone()));
        assert_eq!(limiter.read_max(), 4_096, "nothing is known of the records");
        (0..100).for_each(|_| limiter.take(10, 10_000));
        assert_eq!(limiter.read_max(), 4_096, "in debt");
        clock.advance(Duration::from_secs(1));
        assert!(limiter.is_ready());
        let near = |expected: usize| {
            let found = limiter.read_max();
            assert!(found.abs_diff(expected) <= expected / 100, "{found}, not {expected}");
        };
        near(200 * 1_000);
        (0..100).for_each(|_| limiter.take(1, 100));
        near(100 * 100);
        assert_eq!(limiter.usage().records, 1_100);
    }

    #[test]
    fn the_time_of_being_held_is_counted() {
        let clock = ManualClock::new();
        let limiter = RateLimiter::new(1_000, Arc::new(clock.clone()));
        limiter.take(120, 1_200);
        assert!(!limiter.is_ready());
        clock.advance(Duration::from_millis(50));
        assert!(!limiter.is_ready());
        assert_eq!(limiter.usage().held, Duration::from_millis(50));
        clock.advance(Duration::from_millis(100));
        assert!(limiter.is_ready());
        clock.advance(Duration::from_millis(100));
        assert_eq!(limiter.usage().held, Duration::from_millis(150));
    }

    proptest! {
        /// Whatever is read when, over any time the records read stay within rate × time, a burst and one read.
        #[test]
        fn never_more_than_the_rate_a_burst_and_one_read(
            rate in 1u64..100_000,
            steps in prop::collection::vec((0u64..500, 1u64..5_000), 1..100),
        ) {
            let mut bucket = TokenBucket::new(rate, at(0));
            let (mut now, mut all) = (0, 0);
            for (wait, read) in steps {
                now += wait;
                if bucket.is_ready(at(now)) {
                    let allowed = rate as f64 * (now as f64 / 1_000.0) + (rate as f64 / 50.0).max(1.0);
                    prop_assert!(all as f64 <= allowed + 0.001);
                    bucket.take(read);
                    all += read;
                } else {
                    prop_assert!(bucket.wake_at() > at(now));
                }
            }
        }
    }
}
