//! Tests of the options of a stream: defaults, bounds, and what is refused. They open nothing.

use super::*;

fn check(config: Config, expected: &str) {
    let found = match config.resolve() {
        Ok(_) => String::new(),
        Err(err) => err.to_string(),
    };
    assert_eq!(found, expected);
}

#[test]
fn defaults() {
    let resolved = Config::new("words").resolve().expect("good");
    assert_eq!(resolved.batch_interval, Interval::secs(1));
    assert_eq!(resolved.block_interval, Interval::millis(200));
    assert!(resolved.workers >= 1);
    assert!(resolved.store_bytes_max >= STORE_BYTES_MIN);
    assert_eq!(resolved.stop_deadline, Duration::from_secs(10));
    assert_eq!(resolved.on_failure, OnFailure { retries: 3, then: Then::Stop });
    assert_eq!(resolved.sink_retry, Duration::from_secs(30));
    assert_eq!(resolved.concurrent_jobs, 1);
    assert!(!resolved.skip_empty);
    assert_eq!(resolved.unfinished_bytes_max, resolved.store_bytes_max / 4);
    assert_eq!(resolved.kept_bytes_max, None);
}

#[test]
fn the_shortest_intervals_are_legal() {
    let (batch, block) = (Interval::millis(5), Interval::millis(1));
    let config = Config::new("fast").batch_interval(batch).block_interval(block);
    let resolved = config.resolve().expect("good");
    assert_eq!((resolved.batch_interval, resolved.block_interval), (batch, block));
    check(Config::new("a").trigger(0, batch), "`trigger` needs at least one record");
    let zero = Interval::millis(0);
    check(
        Config::new("a").batch_interval(zero).block_interval(zero).trigger(1, zero),
        "`batch_interval` must be at least 1ms\n`block_interval` must be at least 1ms\n\
         `trigger` needs a time-out of at least 1ms",
    );
}

#[test]
fn defaults_give_way_to_what_was_given() {
    let given = Config::new("a").batch_interval(Interval::millis(50)).store_bytes_max(1 << 20);
    let resolved = given.resolve().expect("good");
    assert_eq!(resolved.block_interval, Interval::millis(50));
    assert_eq!(resolved.block_bytes_max, 64 << 10);
    assert_eq!(resolved.highest_input_rate(), 20 << 20);
}

#[test]
fn what_cannot_work_is_refused() {
    let c = || Config::new("a").store_bytes_max(1 << 20);
    check(c(), "");
    check(Config::new(""), "`` is no name: it is empty");
    check(Config::new("a/b"), "`a/b` is no name: '/' is not a letter, a digit, `-` or `_`");
    check(
        Config::new("x".repeat(65)),
        &format!("`{}` is no name: it is longer than 64 bytes", "x".repeat(65)),
    );
    check(c().unfinished_bytes_max(0), "`unfinished_bytes_max` must be at least 1B");
    check(c().kept_bytes_max(0), "`kept_bytes_max` must be at least 1B");
    check(c().workers(0), "`workers` is 0, but must be 1 to 1024");
    check(c().workers(1_025), "`workers` is 1025, but must be 1 to 1024");
    check(c().concurrent_jobs(0), "`concurrent_jobs` is 0, but must be 1 to 1024");
    check(c().store_bytes_max(1023), "`store_bytes_max` is 1023B, but must be at least 1MiB");
    check(c().block_bytes_max(1), "`block_bytes_max` is 1B, but must be at least 1KiB");
    check(
        c().block_bytes_max(2 << 20),
        "`block_bytes_max` is 2MiB, more than `store_bytes_max`, 1MiB",
    );
    check(
        c().workers(0).concurrent_jobs(0),
        "`workers` is 0, but must be 1 to 1024\n`concurrent_jobs` is 0, but must be 1 to 1024",
    );
}
