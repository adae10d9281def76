//! A day on the manual clock: every batch once, and nothing grows with time. Alone in its process, because it measures the
//! process's memory, descriptors and threads.

use std::fs;

use tidemill::internals::sync::{Arc, AtomicU64, Ordering};
use tidemill::testing::ManualClock;
use tidemill::{Config, Interval, StreamingContext};

/// The batch interval, in seconds.
const SECONDS: u64 = 2;

/// One batch in each interval of a day.
const BATCHES: u64 = 86_400 / SECONDS;

/// Resident pages, open descriptors and threads of this process.
fn usage() -> (u64, usize, usize) {
    let statm = fs::read_to_string("/proc/self/statm").expect("readable");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    let count = |dir: &str| fs::read_dir(dir).expect("readable").count();
    (pages, count("/proc/self/fd"), count("/proc/self/task"))
}

#[test]
fn a_day_of_batches() {
    let config = Config::new("day").batch_interval(Interval::secs(SECONDS)).workers(2);
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("good options");
    let numbers = ctx.queue_stream((0..BATCHES).map(|n| Some(vec![n, n])).collect(), 2);
    let (last, sum) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen, total) = (Arc::clone(&last), Arc::clone(&sum));
    let per_key = numbers.map(|n| n % 7).count_by_value();
    per_key.foreach_batch(move |time, batch| {
        let before = seen.swap(time.as_millis(), Ordering::SeqCst);
        assert_eq!(time.as_millis(), before + SECONDS * 1_000, "no batch is missing or repeated");
        batch.for_each(|(_, count)| {
            total.fetch_add(*count, Ordering::SeqCst);
        });
        Ok(())
    });
    // The history fills during the first quarter; after that nothing may grow.
    ctx.run_batches(BATCHES / 3).expect("batches run");
    let (pages, descriptors, threads) = usage();
    ctx.run_batches(BATCHES - BATCHES / 3).expect("batches run");
    let (pages_after, descriptors_after, threads_after) = usage();
    assert_eq!(last.load(Ordering::SeqCst), 86_400_000);
    assert_eq!(sum.load(Ordering::SeqCst), BATCHES * 2);
    assert_eq!((descriptors_after, threads_after), (descriptors, threads));
    let grown = pages_after.saturating_sub(pages) * 4_096;
    assert!(grown < 1 << 20, "{grown} bytes more after two thirds of the day");
}
