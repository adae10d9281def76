//! The cost of windows and keyed state: a slide of a window of many lengths, a batch of a state while it grows, and a batch
//! that touches few of many keys. Prints one line for each figure; `cargo bench --bench state`.

use std::time::Duration;

use tidemill::stream::StateSpec;
use tidemill::testing::ManualClock;
use tidemill::time::{Clock, SystemClock};
use tidemill::{Config, DStream, Interval, StreamingContext};

const SECOND: Interval = Interval::secs(1);

fn context() -> StreamingContext {
    let config = Config::new("bench").batch_interval(SECOND).workers(2);
    StreamingContext::with_clock(config, ManualClock::new()).expect("the options make sense")
}

/// Runs all batches and returns what each took.
fn timed(ctx: &StreamingContext, batches: usize) -> Vec<Duration> {
    let clock = SystemClock::new();
    let one = |_| {
        let start = clock.now();
        ctx.run_batches(1).expect("the batch succeeds");
        clock.now().since(start)
    };
    (0..batches).map(one).collect()
}

#[expect(clippy::print_stdout, reason = "a bench prints its figures")]
fn say(what: &str, batches: &[Duration]) {
    let mut sorted = batches.to_vec();
    sorted.sort_unstable();
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let (median, worst) = (ms(sorted[sorted.len() / 2]), ms(sorted[sorted.len() - 1]));
    let mean = batches.iter().map(|one| ms(*one)).sum::<f64>() / batches.len() as f64;
    println!("{what:<58} median {median:8.2} ms  mean {mean:8.2} ms  slowest {worst:8.2} ms");
}

/// Batches of 20,000 pairs over 50,000 keys, seen through windows of `length` seconds that slide by one.
fn window(length: u64, inverse: bool) {
    const PAIRS: u64 = 20_000;
    let batches = usize::try_from(length).expect("small") * 2 + 20;
    let ctx = context();
    let batch =
        |number: u64| (0..PAIRS).map(move |n| ((number * PAIRS + n) * 7_919 % 50_000, 1_u64));
    let input = (0..batches as u64).map(|number| Some(batch(number).collect())).collect();
    let stream: DStream<(u64, u64)> = ctx.queue_stream(input, 4);
    let span = Interval::secs(length);
    let sums = if inverse {
        stream.reduce_by_key_and_window_with_inverse(
            span,
            SECOND,
            |a, b| a + b,
            |a, b| a - b,
            |row| row.1 > 0,
        )
    } else {
        stream.reduce_by_key_and_window(span, SECOND, |a, b| a + b)
    };
    sums.count().foreach_batch(|_, _| Ok(()));
    let times = timed(&ctx, batches);
    let how = if inverse { "with an inverse" } else { "without one" };
    say(&format!("window of {length} s, slide 1 s, {how}"), &times[batches / 2..]);
}

/// A state that grows by `step` new keys a batch, then batches that touch 1,000 of them.
fn state(step: u64, growing: u64) {
    let ctx = context();
    let grow =
        (0..growing).map(|batch| Some((0..step).map(|n| (batch * step + n, 1_u64)).collect()));
    let touch = (0..20_u64).map(|batch| {
        Some((0..1_000).map(|n| ((n * 7_919 + batch) % (step * growing), 1_u64)).collect())
    });
    let stream: DStream<(u64, u64)> = ctx.queue_stream(grow.chain(touch).collect(), 4);
    let sums = stream.map_with_state(
        StateSpec::new().timeout(Interval::secs(10_000)),
        |_, key, value, state| {
            state.update(state.get().unwrap_or(&0) + value?);
            Some(*key)
        },
    );
    sums.count().foreach_batch(|_, _| Ok(()));
    let growing = usize::try_from(growing).expect("small");
    say(&format!("state grows by {step} keys a batch, {growing} batches"), &timed(&ctx, growing));
    let known = sums.counts().keys;
    say(&format!("1,000 keys touched of {known}"), &timed(&ctx, 20)[1..]);
}

fn main() {
    for length in [10, 60, 240] {
        window(length, true);
        window(length, false);
    }
    state(10_000, 10);
    state(20_000, 100);
}
