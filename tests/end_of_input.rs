//! Windows that are not due when a stream ends: at the end of the input they are output once, with their end as the time; a
//! state directory keeps them; every report has the number of records in them.

use std::path::Path;
use std::time::Duration;

use tidemill::internals::sync::Mailbox;
use tidemill::stream::{Collected, DStream, State, StateSpec};
use tidemill::testing::ManualClock;
use tidemill::{Config, Event, Interval, ReceiverHandle, Report, RunLimits, StreamingContext};

/// The batches of a stream: the second of each, and its rows.
type Found = Vec<(u64, Vec<u64>)>;

const fn secs(seconds: u64) -> Interval {
    Interval::secs(seconds)
}

fn sum(records: &DStream<[u8]>) -> DStream<u64> {
    records.map(|record| record.len() as u64).reduce(|a, b| a + b)
}

/// A stream with batches of one second. Its source brings nothing for `quiet` seconds, then one record each of 1, 2 and 3
/// bytes, and the end.
fn run(
    quiet: u64,
    until_eof: bool,
    state_dir: Option<&Path>,
    build: impl FnOnce(&DStream<[u8]>) -> Vec<Collected<u64>>,
) -> (Vec<Found>, Report) {
    let clock = ManualClock::new();
    let config = Config::new("ends").batch_interval(secs(1)).skip_empty(false).workers(2);
    let config = state_dir.into_iter().fold(config, |config, path| config.state_dir(path));
    let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good");
    ctx.limits(RunLimits { until_eof, ..RunLimits::default() });
    let (begin, stored) = (Mailbox::new(1), Mailbox::new(1));
    let (begins, tell) = (begin.clone(), stored.clone());
    let receiver = move |handle: &ReceiverHandle| {
        if begins.recv().is_some() {
            handle.store_all(vec!["a", "bb", "ccc"])?;
            let _ = tell.send(());
        }
        Ok(())
    };
    let found = build(&ctx.receiver_stream("in", receiver).expect("a source"));
    let done = Mailbox::new(100);
    let tell = done.clone();
    ctx.add_listener(move |event: &Event| {
        if matches!(event, Event::BatchCompleted { .. }) {
            let _ = tell.try_send(());
        }
    });
    let running = ctx.start().expect("it starts");
    for _ in 0..quiet {
        clock.advance(Duration::from_secs(1));
        done.recv().expect("a batch");
    }
    begin.send(()).expect("the receiver waits");
    stored.recv().expect("it stores");
    if !until_eof {
        running.stopper().stop();
    }
    let (report, outcome) = running.finish();
    outcome.expect("an orderly end");
    let seconds = |rows: Found| rows.into_iter().map(|(time, rows)| (time / 1_000, rows)).collect();
    let rows = |found: &Collected<u64>| {
        found.rows().into_iter().map(|(time, rows)| (time.as_millis(), rows)).collect()
    };
    (found.iter().map(rows).map(seconds).collect(), report)
}

/// Checks each stream's batches with rows, and the report's number of records in windows that are not due.
fn check(
    quiet: u64,
    build: impl Fn(&DStream<[u8]>) -> Vec<Collected<u64>>,
    at_the_end: &[&[(u64, &[u64])]],
    not_due: u64,
) {
    let with_rows = |found: Vec<Found>| -> Vec<Found> {
        let kept = |rows: Found| rows.into_iter().filter(|(_, rows)| !rows.is_empty()).collect();
        found.into_iter().map(kept).collect()
    };
    let (found, report) = run(quiet, true, None, &build);
    let expected: Vec<Found> = at_the_end
        .iter()
        .map(|rows| rows.iter().map(|(time, rows)| (*time, rows.to_vec())).collect())
        .collect();
    assert_eq!(with_rows(found), expected);
    assert_eq!((report.not_due, report.records), (0, 3), "the end of the input puts them out");
    let (_, report) = run(quiet, false, None, &build);
    assert_eq!((report.not_due, report.windows_kept), (not_due, false), "a stop does not");
}

#[test]
fn the_end_of_the_input_puts_out_each_window_that_waits_once() {
    let tumbling = |s: &DStream<[u8]>| vec![sum(&s.window(secs(10), secs(10))).collect()];
    check(0, tumbling, &[&[(10, &[6])]], 3);
    check(4, tumbling, &[&[(10, &[6])]], 3);
    // The last batch is the end of the window.
    check(9, tumbling, &[&[(10, &[6])]], 0);
    let sliding = |s: &DStream<[u8]>| vec![sum(&s.window(secs(10), secs(1))).collect()];
    check(2, sliding, &[&[(3, &[6])]], 0);
    // Each of two windows has its own end, and an output without one is not asked again.
    let two = |s: &DStream<[u8]>| {
        let counts = s.count_by_window(secs(4), secs(4));
        vec![sum(s).collect(), counts.collect(), sum(&s.window(secs(10), secs(10))).collect()]
    };
    check(0, two, &[&[(1, &[6])], &[(4, &[3])], &[(10, &[6])]], 3);
    check(3, two, &[&[(4, &[6])], &[(4, &[3])], &[(10, &[6])]], 3);
}

#[test]
fn windows_of_windows_and_states_below_windows_see_every_end_on_the_way() {
    let nested = |s: &DStream<[u8]>| {
        let inner = s.count_by_window(secs(4), secs(2));
        let all = inner.window(secs(8), secs(8)).reduce(|a, b| a + b);
        vec![all.collect(), inner.collect()]
    };
    // At 2 and 4 the inner window holds the records, at 6 and 8 no longer.
    check(0, nested, &[&[(8, &[6])], &[(2, &[3])]], 3);
    let state = |s: &DStream<[u8]>| {
        let keep = |_, _: &u64, value: Option<&u64>, state: &mut State<'_, u64>| {
            state.update(state.get().unwrap_or(&0) + value.unwrap_or(&0));
            state.get().copied()
        };
        let pairs = s.map(|_| (7u64, 1u64));
        let sums = pairs.reduce_by_key_and_window(secs(5), secs(5), |a, b| a + b);
        vec![sums.map_with_state(StateSpec::new(), keep).collect()]
    };
    check(1, state, &[&[(5, &[3])]], 3);
}

#[test]
fn a_state_directory_keeps_windows_that_are_not_due() {
    let directory = tempfile::tempdir().expect("a directory");
    let (found, report) = run(0, true, Some(directory.path()), |s| {
        vec![sum(&s.window(secs(10), secs(10))).collect()]
    });
    assert!(found[0].iter().all(|(_, rows)| rows.is_empty()), "{found:?}");
    assert_eq!((report.not_due, report.windows_kept), (3, true));
}
