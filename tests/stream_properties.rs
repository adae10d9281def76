//! Windows and states against naive models: random streams, partitions and workers, and attempts that fail at random. Uses
//! only the public API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tidemill::stream::{State, StateSpec};
use tidemill::testing::{Collected, ManualClock};
use tidemill::{Config, DStream, Interval, StreamingContext, Time};

type Row = (u8, i32);

/// A stream that fails at the n-th element of all attempts, for each given n.
fn flaky(stream: &DStream<Row>, failures: Vec<usize>) -> DStream<Row> {
    let seen = Arc::new(AtomicUsize::new(0));
    stream.map(move |row| {
        let seen = seen.fetch_add(1, Ordering::SeqCst);
        assert!(!failures.contains(&seen), "planned");
        *row
    })
}

fn context(workers: usize) -> StreamingContext {
    let config = Config::new("properties")
        .batch_interval(Interval::secs(1))
        .workers(workers)
        .concurrent_jobs(workers);
    StreamingContext::with_clock(config, ManualClock::new()).expect("the options make sense")
}

/// The rows of each batch, by its second, in rising order.
fn sorted<U: Clone + Ord>(collected: &Collected<U>) -> BTreeMap<u64, Vec<U>> {
    let rows = collected.rows().into_iter().map(|(time, mut rows)| {
        rows.sort();
        (time.as_millis() / 1_000, rows)
    });
    rows.collect()
}

/// The length of a window, and the time from one to the next, in seconds.
#[derive(Clone, Copy)]
struct Spans {
    length: u64,
    slide: u64,
}

/// The expected windows of a stream: for each second in which a slide ends, the result of `make` for the batches in it.
fn windows<U: Ord>(
    batches: &[Vec<Row>],
    spans: Spans,
    make: impl Fn(Vec<Row>) -> Vec<U>,
) -> BTreeMap<u64, Vec<U>> {
    let Spans { length, slide } = spans;
    let due = (1..=batches.len() as u64).filter(|second| second % slide == 0);
    let window = |second: u64| {
        let from = usize::try_from(second.saturating_sub(length)).expect("small");
        let mut rows = make(batches[from..usize::try_from(second).expect("small")].concat());
        rows.sort();
        (second, rows)
    };
    due.map(window).collect()
}

fn by_key<U: Clone>(rows: Vec<Row>, join: impl Fn(Option<U>, i32) -> U) -> Vec<(u8, U)> {
    let mut all: BTreeMap<u8, U> = BTreeMap::new();
    for (key, value) in rows {
        let joined = join(all.get(&key).cloned(), value);
        all.insert(key, joined);
    }
    all.into_iter().collect()
}

/// Joins in an order that shows in the result.
fn text(sum: Option<String>, value: i32) -> String {
    sum.unwrap_or_default() + &value.to_string() + ","
}

/// The last value and the sum of each key, a call for each record and each time-out.
struct Model {
    timeout: u64,
    known: BTreeMap<u8, (i32, u64)>,
}

impl Model {
    fn batch(&mut self, second: u64, rows: &[Row]) -> Vec<(u8, Option<i32>, i32)> {
        let mut calls = Vec::new();
        for (key, value) in rows {
            let sum = self.known.get(key).map_or(0, |known| known.0) + value;
            calls.push((*key, Some(*value), sum));
            if sum % 5 == 0 {
                self.known.remove(key);
            } else {
                self.known.insert(*key, (sum, second));
            }
        }
        let old: Vec<u8> = self
            .known
            .iter()
            .filter(|(_, known)| second - known.1 > self.timeout)
            .map(|(key, _)| *key)
            .collect();
        for key in old {
            let (sum, _) = self.known.remove(&key).expect("just seen");
            calls.push((key, None, sum));
        }
        calls.sort_unstable();
        calls
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape of the operator's function")]
fn keep_sum(
    _: Time,
    key: &u8,
    value: Option<&i32>,
    state: &mut State<'_, i32>,
) -> Option<(u8, Option<i32>, i32)> {
    let sum = state.get().unwrap_or(&0) + value.unwrap_or(&0);
    match value {
        None => {}
        Some(_) if sum % 5 == 0 => state.remove(),
        Some(_) => state.update(sum),
    }
    Some((*key, value.copied(), sum))
}

fn batches() -> impl Strategy<Value = Vec<Vec<Row>>> {
    prop::collection::vec(prop::collection::vec((0_u8..6, -4_i32..8), 0..10), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn windows_are_what_a_naive_recomputation_gives(
        batches in batches(),
        length in 1_u64..6,
        slide in 1_u64..5,
        workers in 1_usize..4,
        partitions in 1_usize..4,
        failures in prop::collection::vec(0_usize..60, 0..3),
    ) {
        let ctx = context(workers);
        let queue = ctx.queue_stream(batches.iter().cloned().map(Some).collect(), partitions);
        let stream = flaky(&queue, failures);
        let (l, s) = (Interval::secs(length), Interval::secs(slide));
        let add = |a: &i32, b: &i32| a + b;
        let texts = stream.map(|(key, value)| (*key, text(None, *value)));
        let elements = stream.window(l, s).collect();
        let counts = stream.count_by_window(l, s).collect();
        let values = stream.count_by_value_and_window(l, s).collect();
        let joined = texts.map(|row| row.1.clone()).reduce_by_window(l, s, |a, b| a.clone() + b).collect();
        let keyed = texts.reduce_by_key_and_window(l, s, |a, b| a.clone() + b).collect();
        let sums = stream.reduce_by_key_and_window(l, s, add).collect();
        let both = stream.map(|(key, value)| (*key, (*value, 1)));
        let inverse = both.reduce_by_key_and_window_with_inverse(
            l, s, |a, b| (a.0 + b.0, a.1 + b.1), |a, b| (a.0 - b.0, a.1 - b.1), |row| row.1.1 > 0,
        ).map(|(key, (sum, _))| (*key, *sum)).collect();
        let groups = stream.group_by_key_and_window(l, s).collect();
        ctx.run_batches(batches.len() as u64).unwrap();

        let spans = Spans { length, slide };
        let expected = |make: fn(Vec<Row>) -> Vec<Row>| windows(&batches, spans, make);
        prop_assert_eq!(sorted(&elements), expected(|rows| rows));
        let sum = |rows| by_key(rows, |sum: Option<i32>, value| sum.unwrap_or(0) + value);
        prop_assert_eq!(sorted(&sums), expected(sum));
        prop_assert_eq!(sorted(&inverse), expected(sum));
        prop_assert_eq!(sorted(&counts), windows(&batches, spans, |rows| vec![rows.len() as u64]));
        prop_assert_eq!(sorted(&values), windows(&batches, spans, |rows| {
            let mut counts: BTreeMap<Row, u64> = BTreeMap::new();
            rows.into_iter().for_each(|row| *counts.entry(row).or_default() += 1);
            counts.into_iter().collect()
        }));
        prop_assert_eq!(sorted(&joined), windows(&batches, spans, |rows| {
            let all = rows.into_iter().fold(None, |sum, row| Some(text(sum, row.1)));
            Vec::from_iter(all)
        }));
        prop_assert_eq!(sorted(&keyed), windows(&batches, spans, |rows| by_key(rows, text)));
        prop_assert_eq!(sorted(&groups), windows(&batches, spans, |rows| by_key(rows, |all: Option<Vec<i32>>, value| {
            let mut all = all.unwrap_or_default();
            all.push(value);
            all
        })));
    }

    #[test]
    fn states_are_what_a_map_gives(
        batches in batches(),
        timeout in 1_u64..5,
        workers in 1_usize..4,
        partitions in 1_usize..4,
        failures in prop::collection::vec(0_usize..40, 0..3),
    ) {
        let ctx = context(workers);
        let queue = ctx.queue_stream(batches.iter().cloned().map(Some).collect(), partitions);
        let stream = flaky(&queue, failures);
        let mapped = stream.map_with_state(StateSpec::new().timeout(Interval::secs(timeout)), keep_sum);
        let (calls, all) = (mapped.collect(), mapped.snapshots().collect());
        let updated = stream.update_state_by_key(|_, values, sum: Option<&i32>| {
            let sum = sum.unwrap_or(&0) + values.iter().sum::<i32>();
            (sum % 5 != 0).then_some(sum)
        }).collect();
        ctx.run_batches(batches.len() as u64).unwrap();

        let (mut model, mut sums) = (Model { timeout, known: BTreeMap::new() }, BTreeMap::<u8, i32>::new());
        let (calls, all, updated) = (sorted(&calls), sorted(&all), sorted(&updated));
        for (second, rows) in (1..).zip(&batches) {
            prop_assert_eq!(&calls[&second], &model.batch(second, rows));
            let known: Vec<Row> = model.known.iter().map(|(key, known)| (*key, known.0)).collect();
            prop_assert_eq!(&all[&second], &known);
            rows.iter().for_each(|(key, value)| *sums.entry(*key).or_default() += value);
            sums.retain(|_, sum| *sum % 5 != 0);
            prop_assert_eq!(&updated[&second], &sums.clone().into_iter().collect::<Vec<_>>());
        }
        prop_assert_eq!(mapped.counts().keys, model.known.len() as u64);
    }
}
