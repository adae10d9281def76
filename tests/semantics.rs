//! Every rule of the streams that has an input and an output, as a case: queues in, batch by batch on the manual clock,
//! collected rows out. Uses the public API only.

use std::fmt::Debug;

use tidemill::testing::ManualClock;
use tidemill::{Config, DStream, Interval, Result, StreamingContext, Time};

const SECOND: Interval = Interval::secs(1);

/// What comes out of a batch: the second it belongs to, and its rows in rising order.
type Batches<U> = Vec<(u64, Vec<U>)>;

fn context() -> StreamingContext {
    let config = Config::new("semantics").batch_interval(SECOND);
    StreamingContext::with_clock(config, ManualClock::new()).expect("the options make sense")
}

fn queue<T: Clone + Send + Sync + 'static>(ctx: &StreamingContext, input: &[&[T]]) -> DStream<T> {
    ctx.queue_stream(input.iter().map(|batch| Some(batch.to_vec())).collect(), 2)
}

fn seconds(seconds: u64) -> Interval {
    Interval::secs(seconds)
}

/// Runs `batches` batches, at 1 s, 2 s ..., over `input`; past its end the batches are empty.
fn run<T, U>(
    input: &[&[T]],
    batches: u64,
    operate: impl FnOnce(&StreamingContext, DStream<T>) -> DStream<U>,
) -> Batches<U>
where
    T: Clone + Send + Sync + 'static,
    U: Clone + Ord + Send + Sync + 'static,
{
    let ctx = context();
    let collected = operate(&ctx, queue(&ctx, input)).collect();
    ctx.run_batches(batches).expect("the batches succeed");
    let rows = collected.rows().into_iter().map(|(time, mut rows)| {
        rows.sort();
        (time.as_millis() / 1_000, rows)
    });
    rows.collect()
}

/// `expected`: for each batch from 1 s on, its rows in any order; none where the stream has no batch.
fn check<T, U>(
    input: &[&[T]],
    operate: impl FnOnce(&StreamingContext, DStream<T>) -> DStream<U>,
    expected: &[Option<&[U]>],
) where
    T: Clone + Send + Sync + 'static,
    U: Clone + Ord + Debug + Send + Sync + 'static,
{
    let found = run(input, expected.len() as u64, operate);
    let rows = |(second, rows): (u64, &Option<&[U]>)| {
        rows.map(|rows| {
            let mut rows = rows.to_vec();
            rows.sort();
            (second, rows)
        })
    };
    let expected: Batches<U> = (1..).zip(expected).filter_map(rows).collect();
    assert_eq!(found, expected);
}

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
    // A key that the filter hides is still in the window: it comes back with all its values.
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

/// What the start says of a graph.
fn start_error<U>(operate: impl FnOnce(DStream<(u32, u32)>) -> DStream<U>) -> String
where
    U: Clone + Send + Sync + 'static,
{
    let config = Config::new("semantics").batch_interval(seconds(2));
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).unwrap();
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
    // Two ticks are due at once: the batch of the first is left out, and its window is computed at the second.
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
