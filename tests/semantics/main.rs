//! Every rule of the streams that has an input and an output, as a case: queues in, batch by batch on the manual clock,
//! collected rows out. Uses only the public API.

mod states;
mod streams;
mod windows;

use std::fmt::Debug;

use tidemill::testing::ManualClock;
use tidemill::{Config, DStream, Interval, StreamingContext};

const SECOND: Interval = Interval::secs(1);

/// The output of each batch: its second, and its rows in rising order.
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

/// `expected`: for each batch from 1 s on, its rows in any order; `None` if the stream has no batch.
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
