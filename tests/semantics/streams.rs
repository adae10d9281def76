//! Streams beside each other and in batches: shared streams, joins, unions, and batches that are empty or missing.

use tidemill::testing::ManualClock;
use tidemill::{Config, DStream, StreamingContext, Time};

use crate::{SECOND, check, context, queue, seconds};

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
fn a_stream_that_remembers_is_sliced_itself() {
    let ctx = context();
    let numbers = queue(&ctx, &[&[1], &[2, 3], &[], &[4]]);
    let (long, short) = (numbers.remember(seconds(3)), numbers.remember(SECOND));
    let squares = numbers.map(|n| n * n);
    squares.remember(seconds(2));
    let time = |seconds: u64| Time::from_millis(seconds * 1_000);
    assert_eq!(numbers.slice(time(0), time(9)), [], "no batch has run");
    ctx.run_batches(4).unwrap();
    let last = (time(4), vec![4]);
    let all = [(time(2), vec![2, 3]), (time(3), vec![]), last.clone()];
    assert_eq!(numbers.slice(time(0), time(9)), all);
    assert_eq!(numbers.clone().named("renamed").slice(time(0), time(9)), all);
    assert_eq!(numbers.slice(time(2), time(3)), all[..2]);
    assert_eq!(
        (long.slice(time(0), time(9)), short.slice(time(0), time(9))),
        (all.to_vec(), vec![last])
    );
    assert_eq!(squares.slice(time(0), time(9)), [(time(3), vec![]), (time(4), vec![16])]);
}

#[test]
#[should_panic(expected = "call `remember` on it first")]
fn a_slice_of_a_stream_that_remembers_nothing_is_a_mistake() {
    let ctx = context();
    let numbers = queue(&ctx, &[&[1]]);
    numbers.remember(SECOND);
    numbers.map(|n| n + 1).slice(Time::from_millis(0), Time::from_millis(1));
}

#[test]
fn joins_of_empty_batches_and_empty_keys() {
    let (left, right): (&[&[&str]], &[&[&str]]) =
        (&[&["a", "b"], &["a", ""], &[""], &[]], &[&["a", "b"], &["b", ""], &[], &[""]]);
    let (one, x) = (Some(1), Some('x'));
    // For each batch: inner, left, right, full; a missing side is `None`.
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

/// The error if the second stream has no batch at all.
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
    let told = tidemill::internals::sync::Signal::new();
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

type Pairs = DStream<(u32, u32)>;

/// The error of both starts where `operate` combines streams of the contexts `left` and `right`.
fn check_mixed<U>(
    [left, right]: [&str; 2],
    operate: impl FnOnce(Pairs, Pairs) -> DStream<U>,
    expected: &str,
) where
    U: Clone + Send + Sync + 'static,
{
    let context = |name| StreamingContext::with_clock(Config::new(name), ManualClock::new());
    let contexts = [left, right].map(context).map(|ctx| ctx.expect("a context"));
    let [one, two] = contexts.each_ref().map(|ctx| {
        let stream = ctx.queue_stream(vec![Some(vec![(1, 1)])], 1);
        stream.collect();
        stream
    });
    operate(one, two).collect();
    for ctx in &contexts {
        let err = ctx.start().map(drop).expect_err("the program makes no sense").to_string();
        assert_eq!(err, format!("{expected}: make both streams from one `StreamingContext`"));
    }
}

#[test]
fn streams_of_two_contexts_are_an_error_of_the_start() {
    let two = ["a", "b"];
    let unnamed = "one stream belongs to the context `a`, the other to `b`";
    check_mixed(two, |a, b| a.union(&b), &format!("union: {unnamed}"));
    check_mixed(two, |a, b| a.cogroup(&b), &format!("cogroup: {unnamed}"));
    check_mixed(two, |a, b| a.join(&b), &format!("join: {unnamed}"));
    check_mixed(two, |a, b| a.left_outer_join(&b), &format!("left_outer_join: {unnamed}"));
    check_mixed(two, |a, b| a.right_outer_join(&b), &format!("right_outer_join: {unnamed}"));
    check_mixed(two, |a, b| a.full_outer_join(&b), &format!("full_outer_join: {unnamed}"));
    check_mixed(
        two,
        |a, b| a.transform_with(&b, |_, left, right| left.union(&right)),
        &format!("transform_with: {unnamed}"),
    );
    check_mixed(
        two,
        |a, b| a.named("sent").union(&b.named("received")),
        "union: `sent` belongs to the context `a`, `received` to `b`",
    );
    check_mixed(
        ["a", "a"],
        |a, b| a.union(&b.named("more")),
        "union: one stream belongs to the context `a`, `more` to a second `a`",
    );
}
