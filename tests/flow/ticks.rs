//! Ticks and triggers: a wall clock that jumps, missed ticks, batches by number of records.

use std::io::Write;

use tidemill::config::{BatchTimer, CatchUp};
use tidemill::testing::ManualClock;
use tidemill::{Config, Interval, StreamingContext, Time};

use crate::{Listening, SECOND, completed, listening, next};

#[test]
fn a_jump_of_the_wall_clock_changes_no_batch() {
    const HOUR: u64 = 3_600_000;
    let clock = ManualClock::new();
    clock.jump_wall_to(Time::from_millis(10 * HOUR + 1));
    let config = Config::new("jumps").batch_interval(Interval::secs(1));
    let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good options");
    let numbers = ctx.queue_stream((1..=30).map(|n| Some(vec![n])).collect(), 1);
    let rows = numbers.collect();
    for jump in [None, Some(11 * HOUR), Some(9 * HOUR), Some(10 * HOUR), Some(0), None] {
        if let Some(wall) = jump {
            clock.jump_wall_to(Time::from_millis(wall));
        }
        ctx.run_batches(5).expect("batches run");
    }
    let expected: Vec<_> =
        (1..=30).map(|n| (Time::from_millis(10 * HOUR + n * 1_000), vec![n])).collect();
    assert_eq!(rows.rows(), expected);
}

#[test]
fn missed_ticks_are_replayed_or_coalesced() {
    let check_with = |timer, catch_up, expected: &[u64]| {
        let clock = ManualClock::new();
        let config = Config::new("outage").batch_interval(Interval::secs(1)).catch_up(catch_up);
        let config = config.batch_timer(timer);
        let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good options");
        ctx.queue_stream::<u64>(vec![], 1).foreach_batch(|_, _| Ok(()));
        let done = completed(&ctx);
        let running = ctx.start().expect("started");
        clock.wait_for_sleepers(1);
        clock.advance(5 * SECOND);
        let times: Vec<u64> = expected.iter().map(|_| next(&done).0).collect();
        assert_eq!(times, expected, "{catch_up:?}");
        running.stop().expect("in order");
        assert!(done.is_empty(), "{catch_up:?}: {:?}", done.try_recv());
    };
    let check = |catch_up, expected: &[u64]| {
        check_with(BatchTimer::Thread, catch_up, expected);
        check_with(BatchTimer::Loop, catch_up, expected);
    };
    check(CatchUp::Replay, &[1_000, 2_000, 3_000, 4_000, 5_000]);
    check(CatchUp::Coalesce, &[5_000]);
}

#[test]
fn a_trigger_makes_batches_of_records_or_at_the_time_out() {
    let config = Config::new("trigger").trigger(3, Interval::secs(1));
    let Listening { clock, running, mut peer, done } = listening(config, |source| source);
    peer.write_all(b"a\nb\n").expect("sent");
    peer.write_all(b"c\n").expect("sent");
    assert_eq!(next(&done).1, 3, "as soon as three were read");
    peer.write_all(b"d\n").expect("sent");
    let mut times = Vec::new();
    loop {
        clock.advance(SECOND);
        let (time, records) = next(&done);
        times.push(time);
        if records == 1 {
            break;
        }
        assert_eq!(records, 0, "the time-out makes empty batches, too");
    }
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    peer.write_all(b"e\nf\n").expect("sent");
    drop(peer);
    let report = running.stop().expect("in order");
    let rest: u64 = std::iter::from_fn(|| done.try_recv()).map(|(_, records)| records).sum();
    assert_eq!(report.records, 4 + rest);
}

#[test]
fn a_trigger_takes_no_window() {
    let config = Config::new("trigger").trigger(10, Interval::secs(1));
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("good options");
    let numbers = ctx.queue_stream(vec![Some(vec![1])], 1);
    numbers.count_by_window(Interval::secs(2), Interval::secs(1)).foreach_batch(|_, _| Ok(()));
    let err = ctx.start().expect_err("refused").to_string();
    assert!(
        err.starts_with("count_by_window: a stream with a trigger has no batch interval"),
        "{err}"
    );
}

#[test]
fn a_trigger_counts_to_its_number_of_batches_and_keeps_their_order() {
    let config = Config::new("trigger").trigger(10, Interval::secs(3_600));
    let Listening { running, mut peer, done, .. } = listening(config, |source| source);
    for _ in 0..50 {
        peer.write_all(b"1\n2\n3\n4\n5\n6\n7\n8\n9\n0\n").expect("sent");
    }
    let (mut all, mut last) = (0, None);
    while all < 500 {
        let (time, records) = next(&done);
        assert!(records >= 10 && last < Some(time), "{records} records at {time} after {last:?}");
        (all, last) = (all + records, Some(time));
    }
    running.stop().expect("in order");
}
