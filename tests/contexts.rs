//! The life of a context: a call that comes after its start is an error by name, and a start after an earlier run counts
//! anew.

use std::sync::mpsc;
use std::time::Duration;

use tidemill::config::{OnFailure, Then};
use tidemill::internals::storage::{MemoryStorage, Storage};
use tidemill::internals::sync::{Arc, Mutex};
use tidemill::metrics::BatchState;
use tidemill::sink::{BatchMeta, CommitKey, Rows, Sink};
use tidemill::testing::ManualClock;
use tidemill::{
    Config, Error, Event, FilesSource, Interval, ReceiverHandle, Recovered, Result, RunLimits,
    StreamingContext,
};

/// The longest time that anything may take before the test gives up.
const WATCHDOG: Duration = Duration::from_secs(60);

fn context() -> (StreamingContext, ManualClock) {
    let clock = ManualClock::new();
    let ctx = StreamingContext::with_clock(Config::new("life").workers(2), clock.clone());
    (ctx.expect("good"), clock)
}

#[test]
fn a_second_start_is_refused_while_the_first_runs() {
    let (ctx, _clock) = context();
    ctx.queue_stream(vec![Some(vec![1])], 1).foreach_batch(|_, _| Ok(()));
    let first = ctx.start().expect("started");
    let err = ctx.start().expect_err("it runs already");
    let expected =
        "the pipeline `life` runs already: a context runs one stream at a time; stop that first";
    assert!(matches!(&err, Error::Usage(text) if text == expected), "{err}");
    let err = ctx.run_batches(1).expect_err("it runs already");
    assert_eq!(err.to_string(), expected);
    first.stop().expect("an orderly end");
    ctx.start().expect("the first is over").stop().expect("an orderly end");
}

/// The end of a run in which `late` was called after the start.
fn ends(late: impl FnOnce(&StreamingContext)) -> String {
    let (ctx, _clock) = context();
    ctx.queue_stream(vec![Some(vec![1])], 1).named("first").foreach_batch(|_, _| Ok(()));
    let running = ctx.start().expect("started");
    late(&ctx);
    running.await_termination().expect_err("it misses something").to_string()
}

#[test]
fn what_comes_after_the_start_is_an_error_by_name() {
    let output = "comes after the start and would never run: register it before `start`";
    let numbers = |ctx: &StreamingContext| ctx.queue_stream(vec![Some(vec![1])], 1);
    let found = ends(|ctx| numbers(ctx).named("late").print(10));
    assert_eq!(found, format!("the output `late` {output}"));
    let found = ends(|ctx| numbers(ctx).foreach_batch(|_, _| Ok(())));
    assert_eq!(found, format!("the output `foreach_batch#1` {output}"));
    let found = ends(|ctx| ctx.add_listener(|_: &Event| {}));
    assert!(found.starts_with("a listener comes after the start"), "{found}");
    let found = ends(|ctx| ctx.limits(RunLimits::default()));
    assert!(found.starts_with("limits come after the start"), "{found}");
}

#[test]
fn a_source_after_the_start_is_refused_by_name() {
    let (ctx, _clock) = context();
    ctx.queue_stream(vec![Some(vec![1])], 1).foreach_batch(|_, _| Ok(()));
    ctx.run_batches(1).expect("a batch");
    let err = ctx.files(FilesSource::new("/tmp").named("more")).expect_err("it is late");
    let expected =
        "the source `more` comes after the start and would never be read: add it before `start`";
    assert_eq!(err.to_string(), expected);
    ctx.run_batches(1).expect("the stream goes on");
}

#[test]
fn an_output_between_driven_batches_is_an_error_of_the_next() {
    let (ctx, _clock) = context();
    let numbers = ctx.queue_stream(vec![Some(vec![1])], 1);
    numbers.foreach_batch(|_, _| Ok(()));
    ctx.run_batches(1).expect("a batch");
    numbers.named("late").print(10);
    let err = ctx.run_batches(1).expect_err("it would never run").to_string();
    assert!(err.starts_with("the output `late` comes after the start"), "{err}");
}

#[test]
fn a_queue_above_a_window_has_no_state_directory() {
    let start = |logs: bool, window: bool| {
        let (ctx, _clock) = context();
        if logs {
            ctx.state_storage(Arc::new(MemoryStorage::new(1)));
        }
        let numbers = ctx.queue_stream(vec![Some(vec![1])], 1).map(|number| *number);
        match window {
            true => numbers.window(Interval::secs(2), Interval::secs(1)).print(1),
            false => numbers.print(1),
        }
        ctx.start().map(drop).map_err(|err| err.to_string())
    };
    start(false, true).expect("nothing is read again");
    start(true, false).expect("nothing is read again");
    let err = start(true, true).expect_err("a window would read the queue again");
    assert!(err.starts_with("`queue#1` lies above `window`, whose input"), "{err}");
    // The same wherever the window is.
    let (ctx, _clock) = context();
    ctx.state_storage(Arc::new(MemoryStorage::new(1)));
    let words = ctx.queue_stream(vec![Some(vec!["a"])], 1).map(|word| (*word).to_owned());
    let other = ctx.receiver_stream("in", |_: &ReceiverHandle| Ok(())).expect("a source");
    let other = other.map(|record| String::from_utf8_lossy(record).into_owned());
    other.union(&words).count_by_value_and_window(Interval::secs(2), Interval::secs(1)).print(1);
    let err = ctx.start().expect_err("a queue is above").to_string();
    assert!(err.starts_with("`queue#1` lies above `count_by_value_and_window`"), "{err}");
}

/// A program that keeps its state, and fails its first batch in its first life.
struct Program {
    state: Arc<MemoryStorage>,
    clock: ManualClock,
    /// The completed batches, by their times in milliseconds.
    done: Arc<Mutex<Vec<u64>>>,
}

impl Program {
    /// The state after the first life: a batch is planned and not done.
    fn with_a_planned_batch() -> Program {
        let program = Program {
            state: Arc::new(MemoryStorage::new(1)),
            clock: ManualClock::new(),
            done: Arc::default(),
        };
        let err = program.context(true).run_batches(1).expect_err("its batch fails");
        assert!(err.to_string().contains("not in this life"), "{err}");
        program
    }

    fn context(&self, fails: bool) -> StreamingContext {
        let on_failure = OnFailure { retries: 0, then: Then::Stop };
        let config = Config::new("life").workers(2).on_failure(on_failure);
        let ctx = StreamingContext::with_clock(config, self.clock.clone()).expect("good");
        ctx.state_storage(Arc::clone(&self.state) as Arc<dyn Storage>);
        let idle = |handle: &ReceiverHandle| {
            while handle.wait(Duration::from_secs(3_600)) {}
            Ok(())
        };
        let records = ctx.receiver_stream("in", idle).expect("a source");
        let done = Arc::clone(&self.done);
        records.named("job").foreach_batch(move |time, _| {
            if fails {
                return Err(Error::Failed("not in this life".to_owned()));
            }
            done.lock().push(time.as_millis());
            Ok(())
        });
        ctx
    }
}

#[test]
fn driven_batches_of_a_restart_are_its_own() {
    let program = Program::with_a_planned_batch();
    let ctx = program.context(false);
    ctx.run_batches(1).expect("a batch of its own");
    let done = program.done.lock().clone();
    assert_eq!(done.first(), Some(&1_000), "the planned one ran again");
    let own = *done.last().expect("more than one");
    assert!(own > 1_000 && own == program.clock_ms(), "{done:?}");
    ctx.run_batches(2).expect("two more");
    assert_eq!(program.done.lock().last(), Some(&(own + 2_000)));
}

impl Program {
    fn clock_ms(&self) -> u64 {
        use tidemill::time::Clock;
        self.clock.wall_time().as_millis()
    }
}

#[test]
fn a_batch_of_an_earlier_run_is_done_for_who_looks() {
    let program = Program::with_a_planned_batch();
    // Ticks pass meanwhile, so that their batch begins before the planned one runs again.
    program.clock.advance(Duration::from_secs(5));
    let ctx = program.context(false);
    let (tell, told) = mpsc::channel();
    ctx.add_listener(move |event: &Event| {
        if let Event::BatchCompleted { time, .. } = event {
            // The test may be over.
            let _ = tell.send(time.as_millis());
        }
    });
    let running = ctx.start().expect("started");
    let mut times = Vec::new();
    while times.len() < 2 {
        times.push(told.recv_timeout(WATCHDOG).expect("it goes on"));
    }
    assert_eq!(times[0], 1_000);
    let batches = running.inspector().batches(10);
    let found: Vec<_> = batches.iter().map(|batch| (batch.time.as_millis(), batch.state)).collect();
    assert_eq!(found, [(times[1], BatchState::Done), (1_000, BatchState::Done)]);
    running.stop().expect("an orderly end");
}

#[test]
fn a_start_says_what_it_continues() {
    let program = Program {
        state: Arc::new(MemoryStorage::new(1)),
        clock: ManualClock::new(),
        done: Arc::default(),
    };
    let first = program.context(false).start().expect("a first start");
    assert_eq!(first.recovered(), None);
    first.stop().expect("an orderly end");
    let second = program.context(false).start().expect("a restart");
    assert_eq!(second.recovered(), Some(Recovered { batches: 0, records: 0 }));
    second.stop().expect("an orderly end");

    let program = Program::with_a_planned_batch();
    let restart = program.context(false).start().expect("a restart");
    assert_eq!(restart.recovered(), Some(Recovered { batches: 1, records: 0 }));
    restart.stop().expect("an orderly end");
    let (ctx, _clock) = context();
    ctx.queue_stream(vec![Some(vec![1])], 1).foreach_batch(|_, _| Ok(()));
    assert_eq!(ctx.start().expect("it keeps nothing").recovered(), None);
}

#[test]
fn the_earlier_way_to_recover_still_builds() {
    let program = Program::with_a_planned_batch();
    let ctx = StreamingContext::recover_or(|| Ok(program.context(false))).expect("it has a state");
    ctx.run_batches(1).expect("a batch of its own");
    assert_eq!(program.done.lock().first(), Some(&1_000), "the planned one ran again");
    let err = StreamingContext::recover_or(|| StreamingContext::new(Config::new("life")));
    let err = err.expect_err("it keeps nothing").to_string();
    assert!(err.contains("give `Config::state_dir`"), "{err}");
}

#[test]
fn a_state_that_cannot_be_continued_is_an_error_of_the_start() {
    let program = Program::with_a_planned_batch();
    let other = StreamingContext::with_clock(Config::new("other"), program.clock.clone());
    let other = other.expect("good");
    other.state_storage(Arc::clone(&program.state) as Arc<dyn Storage>);
    other.queue_stream(vec![Some(vec![1])], 1).foreach_batch(|_, _| Ok(()));
    let err = other.start().expect_err("it is another pipeline's").to_string();
    let expected = "the state directory belongs to the pipeline `life`, not to `other`";
    assert!(err.starts_with(expected), "{err}");

    let names = program.state.list().expect("readable");
    let segment = names.iter().find(|name| name.starts_with("wal-")).expect("a segment");
    let mut bytes = program.state.bytes(segment).expect("readable");
    bytes[0] ^= 1;
    program.state.set_bytes(segment, &bytes);
    let err = program.context(false).start().expect_err("it is damaged").to_string();
    assert!(err.contains(segment.as_str()), "{err}");
}

#[test]
fn a_driven_stream_shows_its_progress_and_reports() {
    let (ctx, _clock) = context();
    ctx.queue_stream(vec![Some(vec![1]), Some(vec![2])], 1).foreach_batch(|_, _| Ok(()));
    let mut running = ctx.start_driven().expect("started");
    let inspector = running.inspector();
    assert_eq!(inspector.progress().batches, 0);
    running.run_batches(2).expect("two batches");
    assert_eq!(inspector.progress().batches, 2);
    running.adjuster().set_workers(1).expect("one is enough");
    running.run_batches(1).expect("a third");
    let err = ctx.run_batches(1).expect_err("it runs already").to_string();
    assert!(err.starts_with("the pipeline `life` runs already"), "{err}");
    let report = running.stop().expect("an orderly end");
    assert_eq!((report.batches, report.left), (3, Vec::new()));
    assert!(inspector.is_stopping());
}

#[test]
fn a_driven_stream_that_fails_has_its_report() {
    let on_failure = OnFailure { retries: 0, then: Then::Stop };
    let config = Config::new("life").workers(1).on_failure(on_failure);
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("good");
    let numbers = ctx.queue_stream(vec![Some(vec![1]), Some(vec![2])], 1).named("job");
    numbers.foreach_batch(|time, _| match time.as_millis() {
        1_000 => Ok(()),
        _ => Err(Error::Failed("no more".to_owned())),
    });
    let mut running = ctx.start_driven().expect("started");
    let err = running.run_batches(3).expect_err("the second fails").to_string();
    assert_eq!(err, "batch 2000 ms of job `job` failed after 1 attempt: no more");
    let again = running.run_batches(1).expect_err("it is over").to_string();
    assert_eq!(again, format!("no batch comes any more: {err}"));
    let (report, outcome) = running.finish();
    assert_eq!((report.batches, outcome.expect_err("the same").to_string()), (1, err));
}

#[test]
fn batches_beyond_what_drives_them_are_refused() {
    let (ctx, _clock) = context();
    ctx.queue_stream(vec![Some(vec![1])], 1).foreach_batch(|_, _| Ok(()));
    let mut running = ctx.start().expect("started");
    let err = running.run_batches(1).expect_err("it runs by itself").to_string();
    assert_eq!(err, "`run_batches` moves the clock of a stream that `start_driven` started");
    running.stop().expect("an orderly end");

    ctx.limits(RunLimits { batches: Some(2), ..RunLimits::default() });
    let mut running = ctx.start_driven().expect("started");
    let err = running.run_batches(3).expect_err("one too many").to_string();
    assert!(err.starts_with("no batch comes any more: the run"), "{err}");
    let (report, outcome) = running.finish();
    assert_eq!((report.batches, outcome.is_ok()), (2, true));

    let mut running = ctx.start_driven().expect("started");
    running.stopper().stop();
    running.run_batches(1).expect_err("the stop was asked for");
    running.await_termination().expect("an orderly end");

    let ctx = StreamingContext::new(Config::new("life")).expect("good");
    let err = ctx.run_batches(1).expect_err("it has no such clock").to_string();
    let expected = "a test drives a stream on a manual clock: make the context by `with_clock`";
    assert_eq!(err, expected);
}

/// Runs one batch of one record in each of three runs of one context, and returns what its windows showed.
fn three_runs_of_one_context() -> Vec<Vec<String>> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a.log"), "one\n").expect("written");
    let (ctx, _clock) = context();
    ctx.state_storage(Arc::new(MemoryStorage::new(1)));
    let lines = ctx.files_lines(directory.path()).expect("a source");
    let (length, slide) = (Interval::secs(9), Interval::secs(1));
    let elements = lines.window(length, slide).map(|line| line.to_owned());
    let count = lines.count_by_window(length, slide).map(|count| format!("{count} in all"));
    let shown = elements.union(&count).collect();
    for _ in 0..3 {
        let mut running = ctx.start_driven().expect("started");
        running.run_batches(1).expect("a batch");
        running.stop().expect("an orderly end");
    }
    shown.rows().into_iter().map(|(_, rows)| rows).collect()
}

#[test]
fn a_window_has_each_record_once_in_every_run_of_its_context() {
    let expected = vec![vec!["one".to_owned(), "1 in all".to_owned()]; 3];
    assert_eq!(three_runs_of_one_context(), expected);
}

#[test]
fn a_limit_of_no_batch_is_an_error_of_the_start() {
    let (ctx, _clock) = context();
    ctx.queue_stream(vec![Some(vec![1])], 1).foreach_batch(|_, _| Ok(()));
    ctx.limits(RunLimits { batches: Some(0), ..RunLimits::default() });
    let expected = "the limit of batches is 0: a run has at least one batch";
    for err in [ctx.start().map(drop), ctx.start_driven().map(drop), ctx.run_batches(1)] {
        assert_eq!(err.expect_err("no batch can run").to_string(), expected);
    }
}

/// A sink that cannot be closed.
struct Unclosed;

impl Sink for Unclosed {
    fn committed(&mut self, _: &CommitKey) -> Result<bool> {
        Ok(false)
    }

    fn write(&mut self, _: &CommitKey, _: &BatchMeta, _: &Rows) -> Result<()> {
        Ok(())
    }

    fn commit(&mut self, _: &CommitKey) -> Result<()> {
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        panic!("no way out");
    }
}

#[test]
fn a_panic_in_the_close_of_a_sink_is_an_error_of_the_stop() {
    let (ctx, _clock) = context();
    ctx.queue_stream(vec![Some(vec![1_u64])], 1).save(Unclosed);
    let mut running = ctx.start_driven().expect("started");
    running.run_batches(1).expect("a batch");
    let err = running.stop().expect_err("the sink is not closed");
    assert!(err.to_string().contains("no way out"), "{err}");
}
