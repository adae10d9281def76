//! Several outputs of one stream compute it once: closures are counted, and every output gives what it gives alone.

use tidemill::internals::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering};
use tidemill::sink::{BatchMeta, CommitKey, Memory, Rows, SharedSink};
use tidemill::testing::ManualClock;
use tidemill::{Config, DStream, Error, Event, Interval, Sink, StreamingContext};

const SECOND: Interval = Interval::secs(1);

/// The results of an output, batch by batch.
type Given = Box<dyn Fn() -> Vec<String>>;

/// Adds an output to a stream of numbers.
type Attach = fn(&DStream<i64>) -> Given;

fn collected<T>(stream: &DStream<T>) -> Given
where
    T: Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let rows = stream.collect();
    Box::new(move || rows.rows().iter().map(|(_, rows)| format!("{rows:?}")).collect())
}

fn sorted<T>(stream: &DStream<T>) -> Given
where
    T: Clone + Ord + std::fmt::Debug + Send + Sync + 'static,
{
    let rows = stream.collect();
    let sorted = |mut rows: Vec<T>| {
        rows.sort();
        format!("{rows:?}")
    };
    Box::new(move || rows.rows().into_iter().map(|(_, rows)| sorted(rows)).collect())
}

fn pairs(stream: &DStream<i64>) -> DStream<(i64, i64)> {
    stream.map(|n| (n % 3, *n))
}

/// Outputs of one stream, and the expected number of calls of its closure in all batches.
struct Case<'a> {
    source: fn(&StreamingContext) -> DStream<i64>,
    outputs: &'a [Attach],
    calls: u64,
}

fn numbers(ctx: &StreamingContext) -> DStream<i64> {
    let batches =
        vec![Some((1..10).collect()), Some(vec![5, 3, 5, 1, 5, 9, 2, 2, 7]), Some(vec![])];
    ctx.queue_stream(batches, 3)
}

fn run(case: &Case<'_>, outputs: &[Attach]) -> (Vec<Vec<String>>, u64) {
    let ctx = StreamingContext::with_clock(Config::new("test").workers(2), ManualClock::new())
        .expect("a good configuration");
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let shared = (case.source)(&ctx).map(move |n| {
        counted.fetch_add(1, Ordering::SeqCst);
        n + 1
    });
    let given: Vec<Given> = outputs.iter().map(|attach| attach(&shared)).collect();
    ctx.run_batches(4).expect("the batches succeed");
    (given.iter().map(|given| given()).collect(), calls.load(Ordering::SeqCst))
}

fn check(case: &Case<'_>) {
    let (together, calls) = run(case, case.outputs);
    assert_eq!(calls, case.calls, "calls");
    for (number, output) in case.outputs.iter().enumerate() {
        let (alone, _) = run(case, &[*output]);
        assert_eq!(together[number], alone[0], "output {number}");
    }
}

#[test]
fn a_shared_stream_is_computed_once() {
    let all: Attach = |stream| collected(stream);
    let count: Attach = |stream| collected(&stream.count());
    let values: Attach = |stream| sorted(&stream.count_by_value());
    let reduced: Attach = |stream| collected(&stream.reduce(|a, b| a + b));
    let by_key: Attach = |stream| sorted(&pairs(stream).reduce_by_key(|a, b| a + b));
    let groups: Attach = |stream| sorted(&pairs(stream).group_by_key());
    let even: Attach = |stream| collected(&stream.filter(|n| n % 2 == 0));
    let twice: Attach = |stream| sorted(&stream.union(stream).count_by_value());
    let joined: Attach = |stream| sorted(&pairs(stream).join(&pairs(&stream.map(|n| n * 2))));
    let dealt: Attach = |stream| collected(&stream.repartition(2));
    let window: Attach = |stream| collected(&stream.window(Interval::secs(2), SECOND));
    let slow: Attach =
        |stream| collected(&stream.count_by_window(Interval::secs(2), Interval::secs(2)));
    let sums: Attach = |stream| {
        let sums = pairs(stream).update_state_by_key(|_, new, old: Option<&i64>| {
            Some(old.unwrap_or(&0) + new.iter().sum::<i64>())
        });
        sorted(&sums)
    };
    let persisted: Attach = |stream| collected(&stream.persist().map(|n| -n));
    let check = |outputs: &[Attach]| check(&Case { source: numbers, outputs, calls: 18 });
    check(&[all]);
    check(&[all, all]);
    check(&[all, count, values, reduced]);
    check(&[by_key, groups, even, twice]);
    check(&[twice, joined, all]);
    check(&[even, dealt, window, slow, sums]);
    check(&[sums, window, slow, count]);
    check(&[persisted, all, even]);
}

#[test]
fn so_is_one_below_a_shuffle_a_union_or_another_shared_stream() {
    let count: Attach = |stream| collected(&stream.count());
    let all: Attach = |stream| sorted(stream);
    let values: Attach = |stream| sorted(&stream.count_by_value());
    let outputs: &[Attach] = &[count, all, values];
    // Nine and six different numbers.
    let shuffled = |ctx: &StreamingContext| numbers(ctx).count_by_value().map(|row| row.0);
    check(&Case { source: shuffled, outputs, calls: 15 });
    let union = |ctx: &StreamingContext| numbers(ctx).union(&numbers(ctx));
    check(&Case { source: union, outputs, calls: 36 });
    let filtered = |ctx: &StreamingContext| numbers(ctx).filter(|n| n % 2 == 1);
    check(&Case { source: filtered, outputs, calls: 12 });
}

#[test]
fn a_tree_of_shared_streams_calls_every_closure_once() {
    let ctx = StreamingContext::with_clock(Config::new("test").workers(1), ManualClock::new())
        .expect("a good configuration");
    let calls: Vec<Arc<AtomicU64>> = (0..3).map(|_| Arc::default()).collect();
    let tapped = |stream: &DStream<i64>, number: usize| {
        let calls = Arc::clone(&calls[number]);
        stream.map(move |n| {
            calls.fetch_add(1, Ordering::SeqCst);
            n * 10
        })
    };
    let top = tapped(&numbers(&ctx), 0);
    let (left, right) = (tapped(&top, 1), tapped(&top.filter(|n| n % 20 == 0), 2));
    let rows = [left.count(), left.reduce(|a, b| a + b).map(|n| n.unsigned_abs())];
    let rows = rows.map(|stream| stream.collect());
    let more = [right.collect(), right.union(&left).collect(), top.collect()];
    ctx.run_batches(1).expect("the batch succeeds");
    assert_eq!(rows.map(|rows| rows.rows()[0].1.clone()), [vec![9], vec![4500]]);
    assert_eq!(more.map(|rows| rows.rows()[0].1.len()), [4, 13, 9]);
    let calls: Vec<u64> = calls.iter().map(|calls| calls.load(Ordering::SeqCst)).collect();
    assert_eq!(calls, [9, 9, 4]);
}

#[test]
fn what_pulls_goes_through_the_stream_by_itself_unless_it_is_persisted() {
    let check = |persist: bool, expected: u64| {
        let ctx = StreamingContext::with_clock(Config::new("test").workers(1), ManualClock::new())
            .expect("a good configuration");
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let shared = numbers(&ctx).map(move |n| {
            counted.fetch_add(1, Ordering::SeqCst);
            *n
        });
        let shared = if persist { shared.persist() } else { shared };
        let (count, sums) = (shared.count().collect(), Arc::new(Mutex::new(Vec::new())));
        let into = Arc::clone(&sums);
        shared.foreach_batch(move |_, batch| {
            into.lock().push(batch.collect().iter().sum::<i64>());
            Ok(())
        });
        let firsts = shared.map_partitions(|part, out| {
            let mut first = None;
            part.for_each(|n| first = first.or(Some(*n)));
            out.emit_all(first);
        });
        let (firsts, transformed) =
            (firsts.collect(), shared.transform(|_, batch| batch.filter(|n| *n > 8)));
        let transformed = transformed.collect();
        ctx.run_batches(1).expect("the batch succeeds");
        assert_eq!((count.rows()[0].1.as_slice(), sums.lock().as_slice()), (&[9][..], &[45][..]));
        assert_eq!(firsts.rows()[0].1, [1, 4, 7]);
        assert_eq!(transformed.rows()[0].1, [9]);
        assert_eq!(calls.load(Ordering::SeqCst), expected);
    };
    check(false, 36);
    check(true, 9);
}

#[test]
fn a_job_that_fails_does_so_by_itself_and_the_others_have_their_rows() {
    let ctx = StreamingContext::with_clock(Config::new("test").workers(2), ManualClock::new())
        .expect("a good configuration");
    let shared = numbers(&ctx).map(|n| n + 1);
    let first = shared.collect();
    let bad = shared.map(|n| if *n == 4 { panic!("four") } else { *n }).named("bad");
    bad.count().named("bad").foreach_batch(|_, _| Ok(()));
    let last = shared.count().collect();
    let err = ctx.run_batches(1).expect_err("a job fails");
    let text = err.to_string();
    assert!(text.contains("job `bad`") && text.contains("four"), "{text}");
    assert_eq!(first.rows().len(), 1);
    assert!(last.rows().is_empty(), "the stream stopped before it");
}

#[test]
fn a_failed_attempt_is_repeated_by_itself() {
    let ctx = StreamingContext::with_clock(Config::new("test").workers(2), ManualClock::new())
        .expect("a good configuration");
    let (calls, failures) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&calls);
    let shared = numbers(&ctx).map(move |n| {
        counted.fetch_add(1, Ordering::SeqCst);
        *n
    });
    let first = shared.collect();
    let fails = Arc::clone(&failures);
    shared.count().foreach_batch(move |_, _| match fails.fetch_add(1, Ordering::SeqCst) {
        0 => Err(Error::Failed("once".to_owned())),
        _ => Ok(()),
    });
    let last = shared.count_by_value().collect();
    ctx.run_batches(1).expect("the second attempt succeeds");
    assert_eq!(first.rows()[0].1.len(), 9);
    assert_eq!(last.rows()[0].1.len(), 9);
    // The pass of the first job, and the second attempt of the second one.
    assert_eq!(calls.load(Ordering::SeqCst), 18);
}

/// A sink that accepts this many batches; then its reader is gone.
struct Until(u64, Arc<AtomicBool>);

impl Sink for Until {
    fn closed(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&self.1))
    }

    fn committed(&mut self, _key: &CommitKey) -> tidemill::Result<bool> {
        Ok(false)
    }

    fn write(&mut self, key: &CommitKey, _meta: &BatchMeta, _rows: &Rows) -> tidemill::Result<()> {
        if key.time.as_millis() <= self.0 * 1000 {
            return Ok(());
        }
        self.1.store(true, Ordering::SeqCst);
        Err(Error::Failed("the reader is gone".to_owned()))
    }

    fn commit(&mut self, _key: &CommitKey) -> tidemill::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_whose_reader_is_gone_holds_no_other_up() {
    // The number of done batches of three, and of reports of the close.
    let check = |attach: fn(&DStream<i64>, Until), expected: (u64, u64)| {
        let ctx = StreamingContext::with_clock(Config::new("test").workers(1), ManualClock::new())
            .expect("a good configuration");
        let told = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&told);
        ctx.add_listener(move |event: &Event| {
            count.fetch_add(u64::from(matches!(event, Event::SinkClosed { .. })), Ordering::SeqCst);
        });
        attach(&numbers(&ctx), Until(1, Arc::default()));
        let done = (1..=3).take_while(|_| ctx.run_batches(1).is_ok()).count() as u64;
        drop(ctx);
        assert_eq!((done, told.load(Ordering::SeqCst)), expected);
    };
    check(|stream, until| stream.save(until), (1, 1));
    check(
        |stream, until| {
            stream.save(until);
            drop(stream.collect());
        },
        (3, 1),
    );
    check(
        |stream, until| {
            stream.save_to("both", vec![SharedSink::new(until), SharedSink::new(Memory::new())]);
        },
        (3, 1),
    );
    check(
        |stream, until| {
            let other = Until(until.0, Arc::clone(&until.1));
            stream.save(until);
            stream.save(other);
        },
        (1, 1),
    );
}
