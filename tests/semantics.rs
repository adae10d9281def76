//! Every rule of the streams that has an input and an output, as a case: queues in, batch by batch on the manual clock,
//! collected rows out. Uses the public API only.

use std::fmt::Debug;

use tidemill::stream::{State, StateCounts, StateSpec, WhenFull};
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

/// A running sum, in the two ways to keep it.
fn update_sum(_: &String, values: &[i32], sum: Option<&i32>) -> Option<i32> {
    let sum = sum.unwrap_or(&0) + values.iter().sum::<i32>();
    (sum != 0).then_some(sum)
}

fn pair(key: &str, value: i32) -> (String, i32) {
    (key.to_owned(), value)
}

#[test]
fn every_known_key_is_updated_in_each_batch() {
    let input: &[&[(String, i32)]] =
        &[&[pair("a", 1), pair("b", 2)], &[], &[pair("a", -1), pair("c", 5), pair("c", 1)]];
    check(
        input,
        |_, s| s.update_state_by_key(update_sum),
        &[
            Some(&[pair("a", 1), pair("b", 2)]),
            Some(&[pair("a", 1), pair("b", 2)]),
            Some(&[pair("b", 2), pair("c", 6)]),
        ],
    );
    let calls = |_: &StreamingContext, s: DStream<(String, i32)>| {
        s.update_state_by_key(|_, values: &[i32], calls: Option<&Vec<i32>>| {
            let mut calls = calls.cloned().unwrap_or_default();
            calls.push(values.iter().sum());
            (values != [9]).then_some(calls)
        })
    };
    let row = |calls: &[i32]| ("k".to_owned(), calls.to_vec());
    check(
        &[&[pair("k", 1), pair("k", 2)], &[], &[pair("k", 9)], &[], &[pair("k", 4)]],
        calls,
        &[Some(&[row(&[3])]), Some(&[row(&[3, 0])]), Some(&[]), Some(&[]), Some(&[row(&[4])])],
    );
}

/// What a state says of itself in a call: the value, whether the key exists and times out, and the sum.
type Call = (String, Option<i32>, bool, bool);

fn calls(
    spec: StateSpec<String, i32>,
) -> impl Fn(&StreamingContext, DStream<(String, i32)>) -> DStream<Call> {
    move |_, s| {
        let f = |_: Time, key: &String, value: Option<&i32>, state: &mut State<'_, i32>| {
            let call = (key.clone(), value.copied(), state.exists(), state.is_timing_out());
            match value {
                Some(0) => state.remove(),
                Some(value) => state.update(state.get().unwrap_or(&0) + value),
                None => assert!(state.get().is_some(), "a key that times out is known"),
            }
            Some(call)
        };
        (*s.map_with_state(spec.clone(), f)).clone()
    }
}

fn call(key: &str, value: Option<i32>, exists: bool) -> Call {
    (key.to_owned(), value, exists, value.is_none())
}

#[test]
fn touched_keys_are_mapped_record_by_record() {
    check(
        &[&[pair("a", 1), pair("a", 2)], &[], &[pair("a", 0), pair("a", 3), pair("b", 1)]],
        calls(StateSpec::new()),
        &[
            Some(&[call("a", Some(1), false), call("a", Some(2), true)]),
            Some(&[]),
            Some(&[call("a", Some(0), true), call("a", Some(3), false), call("b", Some(1), false)]),
        ],
    );
    let initial = StateSpec::new().initial([pair("a", 7), pair("z", 1), pair("z", 2)]);
    check(
        &[&[pair("a", 1)]],
        |_, s| {
            let f = |_: Time, _: &String, value: Option<&i32>, state: &mut State<'_, i32>| {
                state.update(state.get()? + value?);
                None::<()>
            };
            s.map_with_state(initial, f).snapshots()
        },
        &[Some(&[pair("a", 8), pair("z", 2)])],
    );
}

#[test]
fn a_key_times_out_in_the_first_batch_in_which_it_was_idle_for_too_long() {
    let spec = StateSpec::new().timeout(seconds(2));
    let last = call("a", None, true);
    check(
        &[&[pair("a", 1)], &[], &[], &[], &[], &[pair("a", 1)]],
        calls(spec.clone()),
        &[
            Some(&[call("a", Some(1), false)]),
            Some(&[]),
            Some(&[]),
            Some(std::slice::from_ref(&last)),
            Some(&[]),
            Some(&[call("a", Some(1), false)]),
        ],
    );
    // A record in the very batch keeps it alive; so does one that changes nothing of the state.
    check(
        &[&[pair("a", 1)], &[], &[], &[pair("a", 1)], &[], &[], &[]],
        calls(spec.clone().initial([pair("i", 1)])),
        &[
            Some(&[call("a", Some(1), false)]),
            Some(&[]),
            Some(&[call("i", None, true)]),
            Some(&[call("a", Some(1), true)]),
            Some(&[]),
            Some(&[]),
            Some(&[last]),
        ],
    );
}

/// The failure of the first batch.
fn failure(
    spec: StateSpec<String, i32>,
    input: &[(String, i32)],
    f: impl Fn(&mut State<'_, i32>) + Send + Sync + 'static,
) -> String {
    let ctx = context();
    let f = move |_: Time, _: &String, _: Option<&i32>, state: &mut State<'_, i32>| {
        f(state);
        None::<()>
    };
    queue(&ctx, &[input]).map_with_state(spec, f).collect();
    ctx.run_batches(5).expect_err("the batch fails").to_string()
}

#[test]
fn a_state_that_is_misused_fails_the_batch() {
    let first =
        "batch 1000 ms of job `collect#0` failed after 4 attempts: map_with_state: a state was ";
    let new = || StateSpec::new();
    let one = [pair("a", 1)];
    let update_after_remove = |state: &mut State<'_, i32>| {
        state.remove();
        state.update(1);
    };
    assert_eq!(
        failure(new(), &one, update_after_remove),
        format!("{first}updated after it was removed")
    );
    let remove_twice = |state: &mut State<'_, i32>| {
        state.remove();
        state.remove();
    };
    assert_eq!(failure(new(), &one, remove_twice), format!("{first}removed twice"));
    let old = || StateSpec::new().initial([pair("a", 1)]).timeout(SECOND);
    let late =
        "batch 2000 ms of job `collect#0` failed after 4 attempts: map_with_state: a state was ";
    assert_eq!(
        failure(old(), &[], |state| state.update(1)),
        format!("{late}updated while it timed out")
    );
    assert_eq!(
        failure(old(), &[], |state| state.remove()),
        format!("{late}removed while it timed out")
    );
}

#[test]
fn the_highest_limit_of_keys_is_none() {
    for policy in [WhenFull::Fail, WhenFull::DropNew, WhenFull::ExpireOldest] {
        let ctx = context();
        let stream = queue(&ctx, &[&[pair("a", 1), pair("b", 1)], &[pair("a", 0), pair("c", 1)]]);
        let spec = StateSpec::new().keys_max(u64::MAX, policy);
        let f = |_: Time, _: &String, value: Option<&i32>, state: &mut State<'_, i32>| {
            match value {
                Some(0) => state.remove(),
                Some(value) => state.update(*value),
                None => {}
            }
            None::<()>
        };
        let mapped = stream.map_with_state(spec, f);
        let _out = mapped.collect();
        ctx.run_batches(2).expect("no key is too many");
        assert_eq!(mapped.counts(), StateCounts { keys: 2, ..StateCounts::default() });
    }
}

#[test]
fn the_number_of_keys_is_limited() {
    let keys =
        |names: &str| names.chars().map(|name| pair(&name.to_string(), 1)).collect::<Vec<_>>();
    let limited = |policy, input: &[&str]| {
        let ctx = context();
        let input: Vec<Vec<_>> = input.iter().map(|names| keys(names)).collect();
        let spec = StateSpec::new().keys_max(3, policy);
        let f = |_: Time, key: &String, value: Option<&i32>, state: &mut State<'_, i32>| {
            value.into_iter().for_each(|value| state.update(state.get().unwrap_or(&0) + value));
            Some((key.clone(), state.is_timing_out()))
        };
        let stream = queue(&ctx, &input.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let mapped = stream.map_with_state(spec, f);
        let (out, all) = (mapped.collect(), mapped.snapshots().collect());
        let ran = ctx.run_batches(input.len() as u64).map_err(|err| err.to_string());
        let last = |rows: Vec<(Time, Vec<(String, i32)>)>| {
            let mut keys: Vec<String> =
                rows.last().cloned().unwrap_or_default().1.into_iter().map(|row| row.0).collect();
            keys.sort();
            keys.concat()
        };
        let out = out.rows().last().cloned().unwrap_or_default().1;
        ran.map(|()| (last(all.rows()), out, mapped.counts()))
    };
    let counts =
        |keys, dropped, expired| StateCounts { keys, dropped, expired, ..StateCounts::default() };
    assert_eq!(limited(WhenFull::Fail, &["abc", "ab"]).unwrap().2, counts(3, 0, 0));
    let error = limited(WhenFull::Fail, &["abc", "d"]).unwrap_err();
    assert!(error.ends_with("map_with_state: more keys than keys_max = 3 allows"), "{error}");

    let (known, out, counted) = limited(WhenFull::DropNew, &["ab", "cde", "axy"]).unwrap();
    assert!(known.starts_with("ab") && known.len() == 3, "{known}");
    assert_eq!((out, counted), (vec![("a".to_owned(), false)], counts(3, 4, 0)));

    let (known, out, counted) = limited(WhenFull::ExpireOldest, &["ab", "c", "a", "d"]).unwrap();
    assert_eq!((known.as_str(), counted), ("acd", counts(3, 0, 1)));
    let mut out = out;
    out.sort();
    assert_eq!(out, [("b".to_owned(), true), ("d".to_owned(), false)]);
    let error = limited(WhenFull::ExpireOldest, &["abcd"]).unwrap_err();
    assert!(error.ends_with("more keys in one batch than keys_max = 3 allows"), "{error}");
}

#[test]
fn states_have_names() {
    let ctx = context();
    let stream = queue::<(u32, u32)>(&ctx, &[]);
    let spec = StateSpec::<u32, u32>::new;
    let _first = stream.map_with_state(spec(), |_, _, _, _| None::<()>).named("counts");
    stream.map_with_state(spec(), |_, _, _, _| None::<()>).named("counts").collect();
    let error = ctx.start().map(drop).unwrap_err().to_string();
    assert_eq!(error, "two operators with state are called `counts`");
}

#[test]
fn a_stream_that_several_jobs_use_is_computed_once() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (ctx, calls) = (context(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&calls);
    let stream = queue(&ctx, &[&[1, 2, 3], &[4]]).map(move |n| {
        counted.fetch_add(1, Ordering::SeqCst);
        *n
    });
    let (counts, window, kept) =
        (stream.count_by_value(), stream.window(seconds(2), SECOND), stream.persist());
    let all =
        [counts.collect(), counts.map(|row| *row).collect(), counts.filter(|_| true).collect()];
    let (one, two) = (window.collect(), window.map(|n| *n).collect());
    let (three, four) = (kept.collect(), kept.map(|n| *n).collect());
    ctx.run_batches(2).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 4, "once for three operators and seven outputs");
    assert!(all.iter().all(|rows| rows.rows() == all[0].rows()));
    assert_eq!((one.rows(), three.rows()), (two.rows(), four.rows()));
    assert_eq!(
        (one.rows()[1].1.as_slice(), three.rows()[1].1.as_slice()),
        (&[1, 2, 3, 4][..], &[4][..])
    );
}

#[test]
fn batches_can_be_looked_back_at() {
    let ctx = context();
    let kept = queue(&ctx, &[&[1], &[2, 3], &[4]]).remember(seconds(2));
    ctx.run_batches(3).unwrap();
    let time = |seconds: u64| Time::from_millis(seconds * 1_000);
    assert_eq!(kept.slice(time(0), time(9)), [(time(2), vec![2, 3]), (time(3), vec![4])]);
    assert_eq!(kept.slice(time(3), time(3)), [(time(3), vec![4])]);
    assert_eq!(kept.slice(time(4), time(3)), []);
}

#[test]
fn joins_of_empty_batches_and_empty_keys() {
    let (left, right): (&[&[&str]], &[&[&str]]) =
        (&[&["a", "b"], &["a", ""], &[""], &[]], &[&["a", "b"], &["b", ""], &[], &[""]]);
    let (one, x) = (Some(1), Some('x'));
    // For each batch: inner, left, right, full; what is missing is none.
    type Row = (&'static str, (Option<i32>, Option<char>));
    let both =
        |keys: &[&'static str]| keys.iter().map(|key| (*key, (one, x))).collect::<Vec<Row>>();
    let expected: [[Vec<Row>; 4]; 4] = [
        [both(&["a", "b"]), both(&["a", "b"]), both(&["a", "b"]), both(&["a", "b"])],
        [
            both(&[""]),
            vec![("", (one, x)), ("a", (one, None))],
            vec![("", (one, x)), ("b", (None, x))],
            vec![("", (one, x)), ("a", (one, None)), ("b", (None, x))],
        ],
        [vec![], vec![("", (one, None))], vec![], vec![("", (one, None))]],
        [vec![], vec![], vec![("", (None, x))], vec![("", (None, x))]],
    ];
    let ctx = context();
    let (left, right) =
        (queue(&ctx, left).map(|key| (*key, 1)), queue(&ctx, right).map(|key| (*key, 'x')));
    let found = [
        left.join(&right).map_values(|(l, r)| (Some(*l), Some(*r))).collect(),
        left.left_outer_join(&right).map_values(|(l, r)| (Some(*l), *r)).collect(),
        left.right_outer_join(&right).map_values(|(l, r)| (*l, Some(*r))).collect(),
        left.full_outer_join(&right).collect(),
    ];
    ctx.run_batches(4).unwrap();
    for (kind, found) in found.iter().enumerate() {
        for (batch, (_, mut rows)) in found.rows().into_iter().enumerate() {
            rows.sort();
            assert_eq!(rows, expected[batch][kind], "join {kind} of batch {batch}");
        }
    }
}

#[test]
fn counts_and_sums_of_empty_batches() {
    let input: &[&[u32]] = &[&[1], &[1, 1, 1], &[1, 2], &[]];
    check(
        input,
        |_, s| s.count_by_value(),
        &[Some(&[(1, 1)]), Some(&[(1, 3)]), Some(&[(1, 1), (2, 1)]), Some(&[])],
    );
    check(input, |_, s| s.count(), &[Some(&[1]), Some(&[3]), Some(&[2]), Some(&[0])]);
    check(input, |_, s| s.reduce(|a, b| a + b), &[Some(&[1]), Some(&[3]), Some(&[3]), Some(&[])]);
}

#[test]
fn a_union_keeps_left_before_right() {
    let ctx = context();
    let (left, right) = (queue(&ctx, &[&[3, 4]]), queue(&ctx, &[&[1, 2]]));
    let all = left.union(&right).collect();
    ctx.run_batches(1).unwrap();
    assert_eq!(all.rows()[0].1, [3, 4, 1, 2]);
}

/// What fails when the second stream has no batch at all.
fn missing<U>(operate: impl FnOnce(DStream<u32>, DStream<u32>) -> DStream<U>) -> String
where
    U: Clone + Send + Sync + 'static,
{
    let ctx = context();
    let (here, gone) = (queue(&ctx, &[&[1]]), ctx.queue_stream(vec![None], 1));
    operate(here, gone).collect();
    ctx.run_batches(1).expect_err("no batch is not an empty one").to_string()
}

#[test]
fn a_source_without_a_batch_fails_what_needs_it_by_name() {
    let check = |said: String, operator: &str| {
        let words = format!("{operator}: source `queue#2` has no batch at 1000 ms");
        assert!(said.ends_with(&words), "{said}");
    };
    check(missing(|here, gone| here.union(&gone)), "union");
    check(missing(|_, gone| gone.transform(|_, batch| batch)), "transform");
    check(missing(|here, gone| here.transform_with(&gone, |_, left, _| left)), "transform");
    let pair = |stream: DStream<u32>| stream.map(|n| (*n, ()));
    check(missing(move |here, gone| pair(here).join(&pair(gone))), "join");
}

#[test]
fn an_empty_batch_that_is_left_out_is_not_waited_for() {
    let config = Config::new("semantics").batch_interval(SECOND).skip_empty(true);
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("good");
    let received = ctx
        .receiver_stream("mine", |handle: &tidemill::ReceiverHandle| handle.store(b"x"))
        .expect("a source");
    let told = tidemill::sync::Signal::new();
    let raise = told.clone();
    ctx.add_listener(move |event: &tidemill::Event| {
        if matches!(event, tidemill::Event::SourceEnded { .. }) {
            raise.raise();
        }
    });
    let counts = received.count().collect();
    ctx.run_batches(0).unwrap();
    told.wait();
    ctx.run_batches(3).unwrap();
    let rows: Vec<_> =
        counts.rows().into_iter().map(|(time, rows)| (time.as_millis(), rows)).collect();
    assert_eq!(rows, [(1_000, vec![1])]);
}
