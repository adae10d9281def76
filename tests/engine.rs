//! The engine through its public API, on a clock that the test moves: batches, failures, the stop.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tidemill::internals::sync::{Arc, Mailbox};
use tidemill::metrics::{Condition, ConditionKind};
use tidemill::sink::{
    BatchMeta, CommitKey, Console, Format, Memory, Rows, SharedSink, Sink, Writer,
};
use tidemill::testing::ManualClock;
use tidemill::time::{Clock, Moment};
use tidemill::{Config, Error, Event, Interval, StreamHandle, StreamingContext, Time};

fn config() -> Config {
    Config::new("test").batch_interval(Interval::millis(100)).workers(2)
}

fn context() -> StreamingContext {
    StreamingContext::with_clock(config(), ManualClock::new()).expect("a good configuration")
}

/// All events, in order.
fn events(ctx: &StreamingContext) -> Mailbox<Event> {
    let events = Mailbox::new(100_000);
    let all = events.clone();
    ctx.add_listener(move |event: &Event| all.send(event.clone()).expect("the test listens"));
    events
}

/// Waits until the batch `time` is done; returns the times of the batches on the way.
fn completed_up_to(events: &Mailbox<Event>, time: u64) -> Vec<u64> {
    let mut times = Vec::new();
    while times.last() != Some(&time) {
        if let Some(Event::BatchCompleted { time, .. }) = events.recv() {
            times.push(time.as_millis());
        }
    }
    times
}

#[test]
fn empty_batches_run() {
    let ctx = context();
    let numbers = ctx.queue_stream(vec![Some(vec![1, 2, 3]), Some(vec![])], 2);
    let (counts, sums) = (numbers.count().collect(), numbers.reduce(|a, b| a + b).collect());
    ctx.run_batches(3).expect("three batches");
    let times = [100, 200, 300].map(Time::from_millis);
    assert_eq!(
        counts.rows(),
        times.into_iter().zip([vec![3], vec![0], vec![0]]).collect::<Vec<_>>()
    );
    assert_eq!(sums.rows(), times.into_iter().zip([vec![6], vec![], vec![]]).collect::<Vec<_>>());
}

/// The end of a run, the rows it committed, and the number of attempts.
type Outcome = (Result<(), Error>, Vec<(Time, Vec<i32>)>, u32);

/// Runs a stream whose closure fails its first `failures` times.
fn check_failures(failures: u32, retries: u32) -> Outcome {
    let policy = tidemill::config::OnFailure { retries, then: tidemill::config::Then::Stop };
    let ctx = StreamingContext::with_clock(config().on_failure(policy), ManualClock::new())
        .expect("good");
    let attempts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&attempts);
    let stream = ctx.queue_stream(vec![Some(vec![7])], 1).map(move |number| {
        assert!(count.fetch_add(1, Ordering::SeqCst) >= failures, "not yet");
        *number
    });
    let rows = stream.collect();
    let outcome = ctx.run_batches(1);
    (outcome, rows.rows(), attempts.load(Ordering::SeqCst))
}

#[test]
fn a_panic_is_the_batchs_error_and_is_retried() {
    let (outcome, rows, attempts) = check_failures(3, 3);
    outcome.expect("the fourth attempt is good");
    assert_eq!((rows, attempts), (vec![(Time::from_millis(100), vec![7])], 4));
}

#[test]
fn after_its_retries_a_batch_stops_the_stream() {
    let (outcome, rows, attempts) = check_failures(9, 2);
    match outcome {
        Err(Error::Batch { time_ms: 100, attempts: 3, cause, .. }) => {
            assert!(cause.contains("not yet"), "{cause}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((rows, attempts), (vec![], 3));
}

#[test]
fn a_failing_output_does_not_repeat_the_others_work() {
    let ctx = context();
    let stream = ctx.queue_stream(vec![Some(vec![1])], 1);
    let good = stream.collect();
    let attempts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&attempts);
    stream.foreach_batch(move |_, _| match count.fetch_add(1, Ordering::SeqCst) {
        0..2 => Err(Error::Failed("later".to_owned())),
        _ => Ok(()),
    });
    let events = events(&ctx);
    ctx.run_batches(1).expect("the third attempt is good");
    assert_eq!(good.rows(), [(Time::from_millis(100), vec![1])]);
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    let mut retries = 0;
    loop {
        match events.recv() {
            Some(Event::JobRetried { attempt, cause, .. }) => {
                retries += 1;
                assert_eq!((attempt, cause.as_str()), (retries, "later"));
            }
            Some(Event::BatchCompleted { .. }) => break,
            _ => {}
        }
    }
    assert_eq!(retries, 2);
}

/// A sink whose disk is full at first.
struct Full(Arc<AtomicU32>);

impl Sink for Full {
    fn committed(&mut self, _key: &CommitKey) -> tidemill::Result<bool> {
        Ok(false)
    }

    fn write(&mut self, _: &CommitKey, _: &BatchMeta, _: &Rows) -> tidemill::Result<()> {
        Ok(())
    }

    fn commit(&mut self, _key: &CommitKey) -> tidemill::Result<()> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Error::io("cannot write", std::io::ErrorKind::StorageFull.into())),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_full_disk_under_a_sink_is_waited_for_and_is_no_failure() {
    let clock = ManualClock::new();
    let policy = tidemill::config::OnFailure { retries: 0, then: tidemill::config::Then::Stop };
    let ctx =
        StreamingContext::with_clock(config().on_failure(policy), clock.clone()).expect("good");
    let commits = Arc::new(AtomicU32::new(0));
    ctx.queue_stream(vec![Some(vec![1])], 1)
        .map(|number: &i32| u64::from(number.unsigned_abs()))
        .save(Full(Arc::clone(&commits)));
    let events = events(&ctx);
    let running = ctx.start().expect("started");
    clock.advance(Duration::from_millis(100));
    while !matches!(events.recv().expect("it runs"), Event::JobWaitsForRoom { .. }) {}
    assert_eq!(commits.load(Ordering::SeqCst), 1);
    let inspector = running.inspector();
    let waits = "job `save#0`: batch 100 ms waits for room: cannot write";
    assert_eq!(inspector.conditions()[0].kind, ConditionKind::SinkFails);
    assert!(inspector.unready().iter().any(|why| why.starts_with(waits)), "{inspector:?}");
    clock.advance(Duration::from_millis(200));
    completed_up_to(&events, 100);
    clock.advance(Duration::from_secs(1));
    assert_eq!(inspector.conditions(), []);
    assert!(commits.load(Ordering::SeqCst) >= 2, "tried again");
    running.stop().expect("nothing is left");
}

/// A sink with work to do ten seconds after its first commit, for which its disk is full the first time.
struct Aged {
    due: Option<Time>,
    is_full: bool,
    told: Mailbox<Time>,
}

impl Sink for Aged {
    fn committed(&mut self, _key: &CommitKey) -> tidemill::Result<bool> {
        Ok(false)
    }

    fn write(&mut self, _: &CommitKey, _: &BatchMeta, _: &Rows) -> tidemill::Result<()> {
        Ok(())
    }

    fn commit(&mut self, key: &CommitKey) -> tidemill::Result<()> {
        self.due.get_or_insert(key.time.plus(Interval::secs(10), 1));
        Ok(())
    }

    fn due(&self) -> Option<Time> {
        self.due
    }

    fn on_time(&mut self, now: Time) -> tidemill::Result<()> {
        self.told.send(now).expect("the test listens");
        if std::mem::take(&mut self.is_full) {
            return Err(Error::io("cannot rename", std::io::ErrorKind::StorageFull.into()));
        }
        self.due = None;
        Ok(())
    }
}

#[test]
fn a_sink_does_what_is_due_though_no_batch_comes() {
    let (clock, told, sent) = (ManualClock::new(), Mailbox::new(9), Mailbox::new(9));
    let ctx = StreamingContext::with_clock(config().skip_empty(true), clock.clone()).expect("good");
    let (begin, tell) = (Mailbox::<()>::new(1), sent.clone());
    let begins = begin.clone();
    let receiver = move |handle: &tidemill::ReceiverHandle| {
        handle.store(b"a record")?;
        tell.send(()).expect("the test listens");
        begins.recv();
        Ok(())
    };
    let records = ctx.receiver_stream("in", receiver).expect("a source");
    records.count().save(Aged { due: None, is_full: true, told: told.clone() });
    let events = events(&ctx);
    let running = ctx.start().expect("started");
    sent.recv().expect("it stores");
    clock.advance(Duration::from_millis(100));
    completed_up_to(&events, 100);
    // All in one step: the ticks on the way bring nothing.
    clock.advance(Duration::from_secs(10));
    assert_eq!(told.recv(), Some(Time::from_millis(10_100)));
    while !matches!(events.recv().expect("it runs"), Event::ConditionBegan { .. }) {}
    let inspector = running.inspector();
    let unready = inspector.unready();
    assert!(unready[0].starts_with("sink `output`: cannot rename: "), "{unready:?}");
    clock.advance(Duration::from_secs(10));
    assert_eq!(told.recv(), Some(Time::from_millis(20_100)));
    begin.close();
    running.stop().expect("nothing is left");
    assert!(told.try_recv().is_none(), "done once");
    assert_eq!(inspector.conditions().iter().filter(|it| it.subject == "output").count(), 0);
}

/// The end of an attempt to commit.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Well,
    Io(std::io::ErrorKind),
    Failed,
    Panic,
}

use Ends::{Failed, Io, Panic, Well};

const REFUSED: Ends = Io(std::io::ErrorKind::ConnectionRefused);
const DENIED: Ends = Io(std::io::ErrorKind::PermissionDenied);

/// A sink whose attempts end like this, the last one again and again; it reports each attempt at its begin.
struct Away {
    ends: Vec<Ends>,
    attempts: Mailbox<Duration>,
    clock: ManualClock,
}

impl Sink for Away {
    fn committed(&mut self, _key: &CommitKey) -> tidemill::Result<bool> {
        Ok(false)
    }

    fn write(&mut self, _: &CommitKey, _: &BatchMeta, _: &Rows) -> tidemill::Result<()> {
        Ok(())
    }

    fn commit(&mut self, _key: &CommitKey) -> tidemill::Result<()> {
        self.attempts.send(self.clock.now().since(Moment::default())).expect("the test listens");
        let ends = if self.ends.len() > 1 { self.ends.remove(0) } else { self.ends[0] };
        match ends {
            Well => Ok(()),
            Io(kind) => Err(Error::io("cannot send to 192.0.2.1:1", kind.into())),
            Failed => Err(Error::Failed("a column is missing".to_owned())),
            Panic => panic!("the sink fell"),
        }
    }
}

/// A stream with one batch, which is due, and a sink whose attempts end like this.
struct Rig {
    clock: ManualClock,
    running: StreamHandle,
    events: Mailbox<Event>,
    attempts: Mailbox<Duration>,
}

const HOUR: Duration = Duration::from_secs(3_600);

fn rig(ends: &[Ends], retries: u32, sink_retry: Duration) -> Rig {
    let clock = ManualClock::new();
    let config = Config::new("away")
        .batch_interval(Interval::secs(3_600))
        .workers(1)
        .sink_retry(sink_retry)
        .on_failure(tidemill::config::OnFailure { retries, then: tidemill::config::Then::Stop });
    let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good");
    let attempts = Mailbox::new(100);
    let sink = Away { ends: ends.to_vec(), attempts: attempts.clone(), clock: clock.clone() };
    let sinks = vec![SharedSink::new(sink).named("remote")];
    ctx.queue_stream(vec![Some(vec![1_u64])], 1).save_to("save", sinks);
    let events = events(&ctx);
    let running = ctx.start().expect("started");
    clock.advance(HOUR);
    Rig { clock, running, events, attempts }
}

impl Rig {
    /// Waits for as many attempts as there are pauses, and moves the clock to the end of each; then for one more.
    fn attempts(&self, pauses: &[u64]) {
        let mut at = HOUR;
        for pause in pauses {
            assert_eq!(self.attempts.recv(), Some(at), "{pauses:?}");
            // The sleepers: the timer of the batches, the thread `events` with a condition to report, and the pause.
            self.clock.wait_for_sleepers(3);
            let pause = Duration::from_millis(*pause);
            self.clock.advance(pause);
            at += pause;
        }
        assert_eq!(self.attempts.recv(), Some(at), "{pauses:?}");
    }
}

#[test]
fn a_sink_that_is_away_for_a_while_is_no_failure() {
    let rig = rig(&[REFUSED, REFUSED, Well], 0, 30 * Duration::from_secs(1));
    rig.attempts(&[100, 200]);
    completed_up_to(&rig.events, 3_600_000);
    let inspector = rig.running.inspector();
    let conditions = inspector.conditions();
    assert_eq!(conditions.len(), 1, "it is over for good after a second");
    assert_eq!(
        (conditions[0].kind, conditions[0].subject.as_str()),
        (ConditionKind::SinkAway, "remote")
    );
    assert_eq!(
        conditions[0].text(),
        "sink `remote`: batch 3600000 ms waits for it, 30s more at most: cannot send to 192.0.2.1:1: connection refused; \
         its server must be there"
    );
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(inspector.conditions(), []);
    rig.running.stop().expect("nothing is left");
}

/// A batch fails for good: after these pauses, and then after this many attempts that count.
fn check_fails(ends: &[Ends], retries: u32, sink_retry_ms: u64, pauses: &[u64], why: &str) {
    let rig = rig(ends, retries, Duration::from_millis(sink_retry_ms));
    rig.attempts(pauses);
    let (_, outcome) = rig.running.finish();
    match outcome {
        Err(Error::Batch { attempts, cause, .. }) => {
            assert!(cause.contains(why), "{cause}");
            assert_eq!(attempts, retries + 1, "{ends:?}");
        }
        other => panic!("{ends:?}: {other:?}"),
    }
    assert_eq!(rig.attempts.len(), usize::try_from(retries).expect("few"), "{ends:?}");
}

#[test]
fn a_sink_that_stays_away_counts_as_one_failure_and_others_count_at_once() {
    check_fails(&[REFUSED], 0, 500, &[100, 200, 200], "refused");
    // The batch has waited once, so the retries follow at once.
    check_fails(&[REFUSED], 2, 500, &[100, 200, 200], "refused");
    check_fails(&[REFUSED], 1, 0, &[], "refused");
    check_fails(&[DENIED], 0, 30_000, &[], "permission denied");
    check_fails(&[DENIED], 1, 30_000, &[], "permission denied");
    check_fails(&[Failed], 1, 30_000, &[], "a column is missing");
    check_fails(&[Panic], 1, 30_000, &[], "the sink fell");
    check_fails(&[REFUSED, REFUSED, Panic], 0, 30_000, &[100, 200], "the sink fell");
}

#[test]
fn a_stop_does_not_wait_for_a_sink_beyond_its_deadline() {
    let Rig { clock, running, attempts, .. } = rig(&[REFUSED], 0, HOUR);
    assert_eq!(attempts.recv(), Some(HOUR));
    clock.wait_for_sleepers(3);
    let (stopped, outcome) = (Mailbox::new(1), Mailbox::new(1));
    let (asked, answer) = (stopped.clone(), outcome.clone());
    let poison = tidemill::internals::sync::Poison::new();
    let thread = tidemill::internals::sync::thread::spawn("stop", &poison, move || {
        asked.send(()).expect("the test listens");
        answer.send(running.stop()).expect("the test listens");
    });
    stopped.recv();
    // The stop ends the pause; the next one is short.
    assert_eq!(attempts.recv(), Some(HOUR));
    clock.wait_for_sleepers(3);
    // The rest of the ten seconds is for the closing.
    clock.advance(Duration::from_millis(8_500));
    match outcome.recv() {
        Some(Err(Error::Undrained(left))) => {
            assert_eq!(left, "1 planned batch was not processed")
        }
        other => panic!("{other:?}"),
    }
    thread.expect("a thread").join();
}

#[test]
fn a_driven_stream_does_not_wait_for_a_clock_that_stands_still() {
    let ctx = context();
    let sink =
        Away { ends: vec![REFUSED, Well], attempts: Mailbox::new(9), clock: ManualClock::new() };
    ctx.queue_stream(vec![Some(vec![1_u64])], 1).save(sink);
    ctx.run_batches(1).expect("the second attempt is good");
}

#[test]
fn a_source_without_a_batch_fails_a_union_by_name() {
    let ctx = context();
    let here = ctx.queue_stream(vec![Some(vec![1])], 1);
    let gone = ctx.queue_stream(vec![None::<Vec<i32>>], 1);
    let _rows = here.union(&gone).collect();
    let err = ctx.run_batches(1).expect_err("no batch is not an empty one");
    assert!(err.to_string().contains("queue"), "{err}");
}

#[test]
fn a_stream_without_an_output_does_not_start() {
    let ctx = context();
    let _stream = ctx.queue_stream(vec![Some(vec![1])], 1);
    let err = ctx.start().expect_err("nothing to do");
    assert!(err.to_string().contains("no output"), "{err}");
}

#[test]
fn a_stop_reports_and_a_drop_stops() {
    let clock = ManualClock::new();
    let ctx = StreamingContext::with_clock(config(), clock.clone()).expect("good");
    let _rows = ctx.queue_stream(vec![Some(vec![1, 2])], 1).collect();
    let events = events(&ctx);
    let running = ctx.start().expect("started");
    clock.advance(Duration::from_millis(100));
    completed_up_to(&events, 100);
    let report = running.stop().expect("nothing is left");
    assert_eq!((report.batches, report.left), (1, vec![]));
    drop(ctx.start().expect("a stopped stream can be started again"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Over arbitrary overruns and jumps of the wall clock: batch times are ticks, rise, are used once, and the last due
    /// tick always has its batch.
    #[test]
    fn batch_times_over_overruns_and_jumps(
        start in 0u64..100_000,
        steps in prop::collection::vec((1u64..450, prop::option::of(0u64..10_000_000)), 1..12),
    ) {
        let clock = ManualClock::new();
        clock.jump_wall_to(Time::from_millis(start));
        let ctx = StreamingContext::with_clock(config(), clock.clone()).expect("good");
        let counts = ctx.queue_stream(vec![Some(vec![1])], 1).count().collect();
        let events = events(&ctx);
        let running = ctx.start().expect("started");
        let first = Time::from_millis(start).next_multiple(Interval::millis(100)).as_millis();
        let (mut elapsed, mut times) = (0, Vec::new());
        for (advance, jump) in steps {
            clock.advance(Duration::from_millis(advance));
            if let Some(wall) = jump {
                clock.jump_wall_to(Time::from_millis(wall));
            }
            let before = (start + elapsed).max(first - 1);
            elapsed += advance;
            let last_due = (start + elapsed) / 100 * 100;
            if last_due > before {
                times.extend(completed_up_to(&events, last_due));
            }
        }
        prop_assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(times.iter().all(|time| time % 100 == 0));
        let collected: Vec<u64> = counts.rows().iter().map(|(time, _)| time.as_millis()).collect();
        prop_assert_eq!(&collected, &times);
        drop(running);
    }
}

/// A sink that reports each call, and returns once it is released.
struct Held {
    called: Mailbox<()>,
    let_go: Mailbox<()>,
}

impl Held {
    fn call(&self) {
        self.called.send(()).expect("the test listens");
        self.let_go.recv();
    }
}

impl std::io::Write for Held {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.call();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink for Held {
    fn committed(&mut self, _key: &CommitKey) -> tidemill::Result<bool> {
        Ok(false)
    }

    fn write(&mut self, _: &CommitKey, _: &BatchMeta, _: &Rows) -> tidemill::Result<()> {
        Ok(())
    }

    fn commit(&mut self, _key: &CommitKey) -> tidemill::Result<()> {
        self.call();
        Ok(())
    }
}

/// Checks the condition while a sink holds the first batch for half a minute, and the seconds of its messages.
fn check_held(sink: impl FnOnce(Held) -> SharedSink, subject: &str, needs: &str) {
    let (clock, called, let_go) = (ManualClock::new(), Mailbox::new(9), Mailbox::new(9));
    let config = Config::new("held").batch_interval(Interval::secs(1)).workers(2);
    let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good");
    let held = sink(Held { called: called.clone(), let_go: let_go.clone() });
    let numbers = ctx.queue_stream(vec![Some(vec![1_u64])], 1);
    numbers.save_to("save", vec![held, SharedSink::new(Memory::new()).named("other")]);
    let events = events(&ctx);
    let running = ctx.start().expect("started");
    let inspector = running.inspector();
    clock.advance(Duration::from_secs(1));
    assert_eq!(called.recv(), Some(()), "{subject}");
    clock.advance(Duration::from_secs(9));
    assert_eq!(inspector.conditions(), [], "{subject}: nobody knows yet");
    let text =
        format!("sink `{subject}`: has not taken the rows of batch 1000 ms for 10 s; {needs}");
    let mut told = Vec::new();
    let mut next = || loop {
        let (what, condition, lasted) = match events.recv().expect("it runs") {
            Event::ConditionBegan { condition } => ("began", condition, Duration::ZERO),
            Event::ConditionLasts { condition, lasted } => ("lasts", condition, lasted),
            Event::ConditionEnded { condition, lasted } => ("ended", condition, lasted),
            _ => continue,
        };
        if condition.kind == ConditionKind::SinkHangs {
            assert_eq!(condition.text(), text);
            told.push((what, lasted.as_secs()));
            break;
        }
    };
    clock.advance(Duration::from_secs(1));
    next();
    assert!(inspector.unready().contains(&text), "{:?}", inspector.unready());
    clock.advance(Duration::from_secs(10));
    next();
    let_go.close();
    completed_up_to(&events, 1_000);
    clock.advance(Duration::from_secs(1));
    next();
    assert_eq!(told, [("began", 0), ("lasts", 10), ("ended", 10)], "{subject}");
    running.stop().expect("nothing is left");
    assert!(inspector.conditions().iter().map(Condition::text).all(|said| said != text));
}

#[test]
fn a_sink_whose_call_does_not_return_is_a_condition() {
    check_held(|held| SharedSink::new(held).named("out"), "out", "its call must return");
    check_held(SharedSink::new, "save#0", "its call must return");
    let console = |held| Console::new(Writer::new(Box::new(held)), Format::Spark(10));
    check_held(|held| SharedSink::new(console(held)).named("out"), "out", "its reader must read");
}
