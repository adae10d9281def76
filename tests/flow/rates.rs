//! Rates: a limit that holds the peer, and backpressure.

use std::time::Duration;

use tidemill::internals::sync::{Arc, AtomicBool, Ordering};
use tidemill::source::RateLimits;
use tidemill::testing::ManualClock;
use tidemill::time::Clock;
use tidemill::{Config, Interval, SocketSource, StreamingContext};

use crate::{Listening, SECOND, completed, flood, listening, thread_yield};

#[test]
fn a_rate_limit_holds_the_peer() {
    let config = Config::new("rate").batch_interval(Interval::secs(1));
    let Listening { clock, running, peer, done } =
        listening(config, |source| source.rate_max(1_000));
    let stop = Arc::new(AtomicBool::new(false));
    let (flood, _) =
        flood(running.local_addrs()[0], [b"x".repeat(999), b"\n".to_vec()].concat(), &stop);
    let mut all = 0;
    while all < 3_000 {
        clock.advance(Duration::from_millis(100));
        // A read may bring more than the tokens allow: the overshoot is one read of each lane.
        while let Some((_, records)) = done.try_recv() {
            all += records;
            let allowed = clock.now().as_nanos() / 1_000_000 + 20 + 2 * 263;
            assert!(all <= allowed, "{all} of {allowed}");
        }
    }
    stop.store(true, Ordering::SeqCst);
    flood.join();
    drop(peer);
    running.stop().expect("in order");
}

#[test]
fn backpressure_follows_what_batches_can_process() {
    // Each record takes a fixed time on the manual clock, so the capacity is exactly 2,000 records a second.
    let clock = ManualClock::new();
    let config = Config::new("pressure").batch_interval(Interval::secs(1)).workers(1);
    let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good options");
    let limits = RateLimits { max: None, backpressure: true, initial: 500, min: 100 };
    let source = SocketSource::listen("127.0.0.1:0").rate(limits);
    let lines = ctx.socket_text(source).expect("a source");
    let work = clock.clone();
    lines.foreach_batch(move |_, batch| {
        let mut records = 0_u32;
        batch.for_each(|_| records += 1);
        work.advance(records * Duration::from_micros(500));
        Ok(())
    });
    let done = completed(&ctx);
    let running = ctx.start().expect("started");
    let stop = Arc::new(AtomicBool::new(false));
    let (flood, _) =
        flood(running.local_addrs()[0], [b"x".repeat(999), b"\n".to_vec()].concat(), &stop);
    // The work moves the clock as well, and two ticks may become one batch: check, and continue.
    let mut batches = 0;
    while batches < 20 {
        clock.advance(SECOND);
        for _ in 0..1_000 {
            batches += done.try_recv().map_or(0, |(_, records)| u64::from(records > 0));
            thread_yield();
        }
    }
    let receivers = running.inspector().receivers();
    let rate = receivers[0].rate.expect("a rate is in force");
    // The test's own steps may count as processing time: the rate may be below the capacity, never above it.
    assert!((100..=2_000).contains(&rate) && rate != 500, "{rate}");
    stop.store(true, Ordering::SeqCst);
    flood.join();
    running.stop().expect("in order");
}
