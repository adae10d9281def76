//! The reported memory of windows and states is the memory that they take: compared with the process's allocations, by a
//! counting allocator.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidemill::internals::sync::Mutex;
use tidemill::stream::{DStream, State, StateSpec};
use tidemill::testing::ManualClock;
use tidemill::{Config, Interval, StreamingContext};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The allocator counts all threads.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Keys of a batch, batches after which the tables of a batch have reached their size, and batches that are measured.
const KEYS: usize = 10_000;
const WARM: usize = 3;
const MEASURED: usize = 8;

/// The average overhead of an allocation, in bytes.
const OVERHEAD: usize = 12;

/// The number of a record, twice in each batch.
fn numbers(batch: usize) -> Vec<u64> {
    let all = (batch * KEYS) as u64..((batch + 1) * KEYS) as u64;
    all.clone().chain(all).collect()
}

/// Runs an operator over batches of numbers and then over empty ones, so that nothing is under way; then compares.
fn check(name: &str, operate: impl FnOnce(&DStream<u64>)) {
    let config = Config::new("kept").batch_interval(Interval::secs(1)).workers(2);
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("a context");
    let (warm, measured) = ((0..WARM).map(numbers), (WARM..WARM + MEASURED).map(numbers));
    let empty = || (0..3).map(|_| Vec::new());
    let all = warm.chain(empty()).chain(measured).chain(empty());
    operate(&ctx.queue_stream(all.map(Some).collect(), 2));
    ctx.run_batches(WARM as u64 + 3).expect("the batches succeed");
    let before = ctx.inspector().expect("it runs").memory().kept;
    let region = Region::new(ALLOCATOR);
    ctx.run_batches(MEASURED as u64 + 3).expect("the batches succeed");
    let change = region.change();
    let count = change.allocations.saturating_sub(change.deallocations);
    let bytes = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    let taken = (bytes + count * OVERHEAD) as f64;
    let kept = (ctx.inspector().expect("it runs").memory().kept - before) as f64;
    let ratio = kept / taken;
    eprintln!("{name}: {kept} of {taken}: {ratio:.2}");
    assert!(taken > 1e6 && (0.7..1.3).contains(&ratio), "{name}: {kept} of {taken}: {ratio:.2}");
}

#[test]
fn what_is_said_to_be_kept_is_what_is_allocated() {
    let _alone = ONE_AT_A_TIME.lock();
    let (long, second) = (Interval::secs(100), Interval::secs(1));
    let count = |_, _: &_, value: Option<&u64>, state: &mut State<'_, u64>| {
        state.update(state.get().unwrap_or(&0) + u64::from(value.is_some()));
        None::<()>
    };
    check("numbers", |stream| {
        let pairs = stream.map(|n| (*n, *n));
        pairs.map_with_state(StateSpec::new(), count).foreach_batch(|_, _| Ok(()));
    });
    check("texts", |stream| {
        let pairs = stream.map(|n| (format!("the key of the number {n}"), *n));
        let count = |_, _: &String, value: Option<&u64>, state: &mut State<'_, u64>| {
            state.update(state.get().unwrap_or(&0) + u64::from(value.is_some()));
            None::<()>
        };
        pairs.map_with_state(StateSpec::new(), count).foreach_batch(|_, _| Ok(()));
    });
    check("lists", |stream| {
        let pairs = stream.map(|n| (*n, *n));
        let all = |_: &u64, new: &[u64], old: Option<&Vec<(u64, u64)>>| {
            let mut all = old.cloned().unwrap_or_default();
            all.extend(new.iter().map(|n| (*n, *n)));
            all.truncate(9);
            Some(all)
        };
        pairs.update_state_by_key(all).foreach_batch(|_, _| Ok(()));
    });
    check("a window of texts", |stream| {
        let lines = stream.map(|n| format!("the line with the number {n}"));
        lines
            .flat_map(|line, out| out.push(line.as_str()))
            .window(long, second)
            .foreach_batch(|_, _| Ok(()));
    });
    check("a window of keys", |stream| {
        let words = stream.map(|n| format!("the word with the number {n}"));
        words.count_by_value_and_window(long, second).foreach_batch(|_, _| Ok(()));
    });
}

#[test]
fn a_stream_whose_states_keep_more_than_they_may_stops_and_names_the_largest() {
    let _alone = ONE_AT_A_TIME.lock();
    let config = Config::new("bounded").batch_interval(Interval::secs(1)).kept_bytes_max(1 << 20);
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("a context");
    let queue = (0..9).map(|batch| Some(numbers(batch))).collect();
    let pairs = ctx.queue_stream(queue, 2).map(|n| (*n, *n));
    let sum = |_: &u64, new: &[u64], old: Option<&u64>| Some(new.len() as u64 + old.unwrap_or(&0));
    pairs.update_state_by_key(sum).named("sums").foreach_batch(|_, _| Ok(()));
    let few = pairs.filter(|(n, _)| *n == 0);
    few.update_state_by_key(sum).named("few").foreach_batch(|_, _| Ok(()));
    let failed = ctx.run_batches(9).expect_err("it stops").to_string();
    let expected = "the state `sums`: more than kept_bytes_max = 1.00 MiB; let keys time out";
    assert!(failed.contains(expected), "{failed}");
}
