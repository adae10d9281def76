//! Windows: of elements, of windows, counts and sums over them, and the lengths that fit.

use tidemill::stream::StateSpec;
use tidemill::testing::ManualClock;
use tidemill::{Config, DStream, Result, StreamingContext, Time};

use crate::{SECOND, check, context, queue, seconds};

const DIGITS: [&[u32]; 6] = [&[0], &[1], &[2], &[3], &[4], &[5]];

#[test]
fn windows_of_elements() {
    let window = |length, slide| {
        move |_: &StreamingContext, s: DStream<u32>| s.window(seconds(length), seconds(slide))
    };
    check(
        &DIGITS[..3],
        window(2, 1),
        &[Some(&[0]), Some(&[0, 1]), Some(&[1, 2]), Some(&[2]), Some(&[])],
    );
    check(
        &DIGITS,
        window(4, 2),
        &[None, Some(&[0, 1]), None, Some(&[0, 1, 2, 3]), None, Some(&[2, 3, 4, 5])],
    );
    check(&DIGITS, window(2, 3), &[None, None, Some(&[1, 2]), None, None, Some(&[4, 5])]);
    check(&DIGITS[..2], window(1, 1), &[Some(&[0]), Some(&[1]), Some(&[])]);
}

#[test]
fn a_window_keeps_the_order_of_time() {
    let ctx = context();
    let window = queue(&ctx, &[&[3, 1], &[2, 0], &[9]]).window(seconds(2), SECOND).collect();
    ctx.run_batches(3).unwrap();
    let rows: Vec<_> = window.rows().into_iter().map(|(_, rows)| rows).collect();
    assert_eq!(rows, [vec![3, 1], vec![3, 1, 2, 0], vec![2, 0, 9]]);
}

#[test]
fn windows_of_windows_and_of_sums() {
    let sums = |_: &StreamingContext, s: DStream<u32>| {
        s.reduce_by_window(seconds(2), seconds(2), |a, b| a + b).window(seconds(4), seconds(2))
    };
    check(
        &DIGITS,
        sums,
        &[None, Some(&[1]), None, Some(&[1, 5]), None, Some(&[5, 9]), None, Some(&[9])],
    );
    let joined = |_: &StreamingContext, s: DStream<u32>| {
        let (left, right) = (s.window(seconds(2), seconds(2)), s.window(seconds(4), seconds(2)));
        left.map(|n| (*n, 'l')).join(&right.map(|n| (*n, 'r'))).map(|(n, _)| *n)
    };
    check(&DIGITS, joined, &[None, Some(&[0, 1]), None, Some(&[2, 3]), None, Some(&[4, 5])]);
}

#[test]
fn counts_and_sums_over_windows() {
    let two = seconds(2);
    check(
        &DIGITS[..2],
        |_, s| s.count_by_window(two, SECOND),
        &[Some(&[1]), Some(&[2]), Some(&[1]), Some(&[0])],
    );
    check(
        &[&[1], &[1, 1, 1], &[1, 2]],
        |_, s| s.count_by_value_and_window(two, SECOND),
        &[
            Some(&[(1, 1)]),
            Some(&[(1, 4)]),
            Some(&[(1, 4), (2, 1)]),
            Some(&[(1, 1), (2, 1)]),
            Some(&[]),
        ],
    );
    check(
        &[&[1, 2], &[], &[5]],
        |_, s| s.reduce_by_window(two, SECOND, |a, b| a + b),
        &[Some(&[3]), Some(&[3]), Some(&[5]), Some(&[5]), Some(&[])],
    );
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let input: &[&[(String, i32)]] = &[&[(a.clone(), 1)], &[(a.clone(), 2), (b.clone(), 3)], &[]];
    let row = |key: &String, value: i32| (key.clone(), value);
    check(
        input,
        |_, s| s.reduce_by_key_and_window(two, SECOND, |a, b| a + b),
        &[
            Some(&[row(&a, 1)]),
            Some(&[row(&a, 3), row(&b, 3)]),
            Some(&[row(&a, 2), row(&b, 3)]),
            Some(&[]),
        ],
    );
    let inverse = |keep: fn(&(String, i32)) -> bool| {
        move |_: &StreamingContext, s: DStream<(String, i32)>| {
            s.reduce_by_key_and_window_with_inverse(two, SECOND, |a, b| a + b, |a, b| a - b, keep)
        }
    };
    let first = [row(&a, 1)];
    let second = [row(&a, 3), row(&b, 3)];
    let third = [row(&a, 2), row(&b, 3)];
    let zeros = [row(&a, 0), row(&b, 0)];
    let shown = [Some(&first[..]), Some(&second[..]), Some(&third[..])];
    check(input, inverse(|_| true), &[&shown[..], &[Some(&zeros[..]), Some(&zeros[..])]].concat());
    check(input, inverse(|row| row.1 > 0), &[&shown[..], &[Some(&[]), Some(&[])]].concat());
    // A key that the filter hides remains in the window: it comes back with all its values.
    check(
        &[&[("k", 2)], &[("k", 4)], &[]],
        |_, s| {
            s.reduce_by_key_and_window_with_inverse(
                two,
                SECOND,
                |a, b| a + b,
                |a, b| a - b,
                |row| row.1 > 3,
            )
        },
        &[Some(&[]), Some(&[("k", 6)]), Some(&[("k", 4)]), Some(&[])],
    );
    check(
        input,
        |_, s| s.group_by_key_and_window(two, SECOND),
        &[
            Some(&[(a.clone(), vec![1])]),
            Some(&[(a.clone(), vec![1, 2]), (b.clone(), vec![3])]),
            Some(&[(a.clone(), vec![2]), (b.clone(), vec![3])]),
            Some(&[]),
        ],
    );
}

/// The error of the start with this graph.
fn start_error<U>(operate: impl FnOnce(DStream<(u32, u32)>) -> DStream<U>) -> String
where
    U: Clone + Send + Sync + 'static,
{
    let config = Config::new("semantics").batch_interval(seconds(2));
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("a context");
    operate(ctx.queue_stream(Vec::new(), 1)).collect();
    ctx.start().map(drop).expect_err("the graph cannot run").to_string()
}

#[test]
fn lengths_that_do_not_fit_are_an_error_of_the_start() {
    let (two, three, four) = (seconds(2), seconds(3), seconds(4));
    assert_eq!(
        start_error(|s| s.window(three, two)),
        "window: the length 3s is not a multiple of the batch interval 2s"
    );
    assert_eq!(
        start_error(|s| s.reduce_by_key_and_window(four, three, |a, b| a + b)),
        "reduce_by_key_and_window: the slide 3s is not a multiple of the batch interval 2s"
    );
    assert_eq!(
        start_error(|s| s.window(four, four).count_by_window(two, four)),
        "count_by_window: the length 2s is not a multiple of 4s, by which the stream slides"
    );
    assert_eq!(
        start_error(|s| s.window(four, four).union(&s)),
        "union: one stream slides by 4s, the other by 2s"
    );
}

#[test]
fn an_interval_of_zero_is_an_error_of_the_start() {
    let (zero, two) = (seconds(0), seconds(2));
    assert_eq!(start_error(|s| s.window(zero, two)), "window: the length must be at least 1ms");
    assert_eq!(
        start_error(|s| s.count_by_window(two, zero)),
        "count_by_window: the slide must be at least 1ms"
    );
    assert_eq!(
        start_error(|s| s.group_by_key_and_window(zero, zero)),
        "group_by_key_and_window: the length must be at least 1ms\n\
         group_by_key_and_window: the slide must be at least 1ms"
    );
    assert_eq!(
        start_error(|s| s.window(two, zero).count_by_value_and_window(two, two)),
        "window: the slide must be at least 1ms"
    );
    assert_eq!(
        start_error(|s| {
            s.remember(zero);
            s
        }),
        "remember: the length must be at least 1ms"
    );
    assert_eq!(
        start_error(|s| {
            let spec = StateSpec::<u32, u32>::new().timeout(zero);
            s.map_with_state(spec, |_, _, value, _| value.copied()).snapshots()
        }),
        "map_with_state: the time-out must be at least 1ms"
    );
}

#[test]
fn a_source_without_a_batch_brings_nothing_to_a_window() {
    let ctx = context();
    let absent = ctx.queue_stream(vec![Some(vec![1]), None, Some(vec![3])], 1);
    let (window, sum) = (
        absent.window(seconds(2), SECOND).collect(),
        absent.reduce_by_window(seconds(2), SECOND, |a, b| a + b).collect(),
    );
    ctx.run_batches(3).unwrap();
    let rows =
        |rows: Vec<(Time, Vec<i32>)>| rows.into_iter().map(|(_, rows)| rows).collect::<Vec<_>>();
    assert_eq!(rows(window.rows()), [vec![1], vec![1], vec![3]]);
    assert_eq!(rows(sum.rows()), [[1], [1], [3]]);
}

#[test]
fn a_missed_tick_makes_a_window_of_time_not_of_batches() -> Result<()> {
    use std::time::Duration;
    let clock = ManualClock::new();
    let config = Config::new("semantics").batch_interval(SECOND);
    let ctx = StreamingContext::with_clock(config, clock.clone())?;
    let (window, counts) = {
        let stream = queue(&ctx, &[&[0], &[1], &[2], &[3], &[4]]);
        (
            stream.window(seconds(2), seconds(2)).collect(),
            stream.count_by_window(seconds(2), seconds(2)).collect(),
        )
    };
    ctx.run_batches(1)?;
    // Two ticks are due at once: the batch of the first is skipped, and its window is computed at the second.
    clock.advance(Duration::from_secs(1));
    ctx.run_batches(1)?;
    ctx.run_batches(2)?;
    let times: Vec<_> =
        window.rows().into_iter().map(|(time, rows)| (time.as_millis(), rows)).collect();
    let sums: Vec<_> =
        counts.rows().into_iter().map(|(time, rows)| (time.as_millis(), rows[0])).collect();
    assert!(times.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for ((time, rows), (other, sum)) in times.iter().zip(&sums) {
        assert_eq!((time, rows.len() as u64), (other, *sum));
        assert!(rows.len() <= 2, "a window of two seconds holds two batches at most: {times:?}");
    }
    Ok(())
}
