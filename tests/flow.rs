//! Flow control and time, through the public interface: ticks, triggers, rates, dead letters, memory, the stop.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tidemill::config::{BatchTimer, CatchUp, OnFailure, RateLimits, Then};
use tidemill::sync::thread::{self, Thread};
use tidemill::sync::{Arc, AtomicBool, AtomicU64, Mailbox, Ordering, Poison};
use tidemill::testing::ManualClock;
use tidemill::time::Clock;
use tidemill::{
    Config, Error, Event, Interval, RunLimits, SocketSource, StreamHandle, StreamingContext, Time,
};

const SECOND: Duration = Duration::from_secs(1);

/// The times and the records of the batches of a context, as they complete.
fn completed(ctx: &StreamingContext) -> Mailbox<(u64, u64)> {
    let done = Mailbox::new(1_000_000);
    let out = done.clone();
    ctx.add_listener(move |event: &Event| {
        if let Event::BatchCompleted { time, records, .. } = event {
            out.send((time.as_millis(), *records)).expect("the test listens");
        }
    });
    done
}

fn next(done: &Mailbox<(u64, u64)>) -> (u64, u64) {
    done.recv().expect("the stream runs")
}

/// A context on a manual clock, and the records of its one socket source, which listens.
fn listening(config: Config, source: impl Fn(SocketSource) -> SocketSource) -> Listening {
    let clock = ManualClock::new();
    let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good options");
    let lines = ctx.socket_text(source(SocketSource::listen("127.0.0.1:0"))).expect("a source");
    lines.foreach_batch(|_, _| Ok(()));
    let done = completed(&ctx);
    let running = ctx.start().expect("started");
    let peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    Listening { clock, running, peer, done }
}

struct Listening {
    clock: ManualClock,
    running: StreamHandle,
    peer: TcpStream,
    done: Mailbox<(u64, u64)>,
}

#[test]
fn a_jump_of_the_wall_clock_changes_no_batch() {
    const HOUR: u64 = 3_600_000;
    let clock = ManualClock::new();
    clock.jump_wall_to(Time::from_millis(10 * HOUR + 1));
    let config = Config::new("jumps").batch_interval(Interval::secs(1));
    let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good options");
    let numbers = ctx.queue_stream((1..=30).map(|n| Some(vec![n])).collect(), 1);
    let rows = numbers.collect();
    for jump in [None, Some(11 * HOUR), Some(9 * HOUR), Some(10 * HOUR), Some(0), None] {
        if let Some(wall) = jump {
            clock.jump_wall_to(Time::from_millis(wall));
        }
        ctx.run_batches(5).expect("batches run");
    }
    let expected: Vec<_> =
        (1..=30).map(|n| (Time::from_millis(10 * HOUR + n * 1_000), vec![n])).collect();
    assert_eq!(rows.rows(), expected);
}

#[test]
fn missed_ticks_are_replayed_or_coalesced() {
    let check_with = |timer, catch_up, expected: &[u64]| {
        let clock = ManualClock::new();
        let config = Config::new("outage").batch_interval(Interval::secs(1)).catch_up(catch_up);
        let config = config.batch_timer(timer);
        let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good options");
        ctx.queue_stream::<u64>(vec![], 1).foreach_batch(|_, _| Ok(()));
        let done = completed(&ctx);
        let running = ctx.start().expect("started");
        clock.wait_for_sleepers(1);
        clock.advance(5 * SECOND);
        let times: Vec<u64> = expected.iter().map(|_| next(&done).0).collect();
        assert_eq!(times, expected, "{catch_up:?}");
        running.stop().expect("in order");
        assert!(done.is_empty(), "{catch_up:?}: {:?}", done.try_recv());
    };
    let check = |catch_up, expected: &[u64]| {
        check_with(BatchTimer::Thread, catch_up, expected);
        check_with(BatchTimer::Loop, catch_up, expected);
    };
    check(CatchUp::Replay, &[1_000, 2_000, 3_000, 4_000, 5_000]);
    check(CatchUp::Coalesce, &[5_000]);
}

#[test]
fn a_trigger_makes_batches_of_records_or_at_the_time_out() {
    let config = Config::new("trigger").trigger(3, Interval::secs(1));
    let Listening { clock, running, mut peer, done } = listening(config, |source| source);
    peer.write_all(b"a\nb\n").expect("sent");
    peer.write_all(b"c\n").expect("sent");
    assert_eq!(next(&done).1, 3, "as soon as three were read");
    peer.write_all(b"d\n").expect("sent");
    let mut times = Vec::new();
    loop {
        clock.advance(SECOND);
        let (time, records) = next(&done);
        times.push(time);
        if records == 1 {
            break;
        }
        assert_eq!(records, 0, "the time-out makes empty batches, too");
    }
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    peer.write_all(b"e\nf\n").expect("sent");
    drop(peer);
    let report = running.stop().expect("in order");
    let rest: u64 = std::iter::from_fn(|| done.try_recv()).map(|(_, records)| records).sum();
    assert_eq!(report.records, 4 + rest);
}

#[test]
fn a_trigger_takes_no_window() {
    let config = Config::new("trigger").trigger(10, Interval::secs(1));
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("good options");
    let numbers = ctx.queue_stream(vec![Some(vec![1])], 1);
    numbers.count_by_window(Interval::secs(2), Interval::secs(1)).foreach_batch(|_, _| Ok(()));
    let err = ctx.start().expect_err("refused").to_string();
    assert!(
        err.starts_with("count_by_window: a stream with a trigger has no batch interval"),
        "{err}"
    );
}

#[test]
fn a_trigger_counts_to_its_number_of_batches_and_keeps_their_order() {
    let config = Config::new("trigger").trigger(10, Interval::secs(3_600));
    let Listening { running, mut peer, done, .. } = listening(config, |source| source);
    for _ in 0..50 {
        peer.write_all(b"1\n2\n3\n4\n5\n6\n7\n8\n9\n0\n").expect("sent");
    }
    let (mut all, mut last) = (0, None);
    while all < 500 {
        let (time, records) = next(&done);
        assert!(records >= 10 && last < Some(time), "{records} records at {time} after {last:?}");
        (all, last) = (all + records, Some(time));
    }
    running.stop().expect("in order");
}

/// Listens, and fails every batch that has a line `bad`, as often as it is tried.
fn failing(
    directory: &std::path::Path,
) -> (StreamingContext, StreamHandle, Mailbox<(u64, u64)>, Arc<AtomicU64>) {
    let config = Config::new("dead")
        .trigger(1, Interval::secs(3_600))
        .on_failure(OnFailure { retries: 2, then: Then::DeadLetter })
        .dead_letter_directory(directory);
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("good options");
    let source = SocketSource::listen("127.0.0.1:0").named("in");
    let lines = ctx.socket_text(source).expect("a source");
    let (good, tries) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (count, tried) = (Arc::clone(&good), Arc::clone(&tries));
    lines.foreach_batch(move |_, batch| {
        batch.for_each(|_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        Ok(())
    });
    lines.foreach_batch(move |_, batch| {
        let mut bad = false;
        batch.for_each(|line| bad |= line == "bad");
        tried.fetch_add(u64::from(bad), Ordering::SeqCst);
        if bad { Err(Error::Failed("no".to_owned())) } else { Ok(()) }
    });
    let done = completed(&ctx);
    let running = ctx.start().expect("started");
    (ctx, running, done, tries)
}

#[test]
fn the_input_of_a_failed_batch_is_kept_and_the_stream_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let letters = dir.path().join("letters");
    let (_ctx, running, done, tries) = failing(&letters);
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    for line in ["one\n", "bad\n", "two\n"] {
        peer.write_all(line.as_bytes()).expect("sent");
        assert_eq!(next(&done).1, 1, "{line}");
    }
    let report = running.stop().expect("a dead letter is no failure of the stream");
    assert_eq!((report.records, report.dead_letters), (3, 1));
    assert_eq!(tries.load(Ordering::SeqCst), 3, "one try and two more");
    let files: Vec<_> =
        std::fs::read_dir(&letters).expect("made").map(|f| f.expect("read").path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(std::fs::read(&files[0]).expect("readable"), b"bad\n");
    let name = files[0].file_name().expect("named").to_string_lossy().into_owned();
    assert!(name.starts_with("dead-") && name.ends_with("-in.records"), "{name}");
}

#[test]
fn a_dead_letter_that_cannot_be_kept_stops_the_stream() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = dir.path().join("taken");
    let (_ctx, running, _done, _tries) = failing(&taken);
    // The start asked whether letters can be kept there. Now they no longer can.
    if taken.exists() {
        std::fs::remove_dir_all(&taken).expect("removed");
    }
    std::fs::write(&taken, "a file, not a directory").expect("written");
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    peer.write_all(b"bad\n").expect("sent");
    let err = running.await_termination().expect_err("the records would be lost");
    assert!(err.to_string().contains("dead letter"), "{err}");
}

#[test]
fn a_place_that_takes_no_dead_letters_refuses_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = dir.path().join("taken");
    std::fs::write(&taken, "a file, not a directory").expect("written");
    let config = Config::new("letters")
        .on_failure(OnFailure { retries: 0, then: Then::DeadLetter })
        .dead_letter_directory(&taken);
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("good options");
    let lines = ctx.socket_text(SocketSource::listen("127.0.0.1:0")).expect("a source");
    lines.foreach_batch(|_, _| Ok(()));
    let err = ctx.start().expect_err("no letter can be kept").to_string();
    assert!(err.contains("dead letters") && err.contains("move it away"), "{err}");
}

/// Sends as much as is taken until told to stop; how many bytes were taken.
fn flood(address: SocketAddr, line: Vec<u8>, stop: &Arc<AtomicBool>) -> (Thread, Arc<AtomicU64>) {
    let (stop, sent) = (Arc::clone(stop), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&sent);
    let body = move || {
        let mut peer = TcpStream::connect(address).expect("connected");
        peer.set_write_timeout(Some(Duration::from_millis(50))).expect("a time-out");
        let lines = line.repeat(65_536 / line.len() + 1);
        let mut at = 0;
        while !stop.load(Ordering::SeqCst) {
            match peer.write(&lines[at..]) {
                Ok(taken) => {
                    at = (at + taken) % lines.len();
                    count.fetch_add(taken as u64, Ordering::SeqCst);
                }
                Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
        }
    };
    (thread::spawn("flood", &Poison::new(), body).expect("a thread"), sent)
}

#[test]
fn a_rate_limit_holds_the_peer() {
    let config = Config::new("rate").batch_interval(Interval::secs(1));
    let Listening { clock, running, peer, done } =
        listening(config, |source| source.rate_max(1_000));
    let stop = Arc::new(AtomicBool::new(false));
    let (flood, _) =
        flood(running.local_addrs()[0], [b"x".repeat(999), b"\n".to_vec()].concat(), &stop);
    let mut all = 0;
    while all < 3_000 {
        clock.advance(Duration::from_millis(100));
        // A read may bring more than the tokens: one read of each lane is the overshoot.
        while let Some((_, records)) = done.try_recv() {
            all += records;
            let allowed = clock.now().as_nanos() / 1_000_000 + 20 + 2 * 263;
            assert!(all <= allowed, "{all} of {allowed}");
        }
    }
    stop.store(true, Ordering::SeqCst);
    flood.join();
    drop(peer);
    running.stop().expect("in order");
}

#[test]
fn backpressure_follows_what_batches_can_process() {
    // Each record takes a fixed time on the manual clock, so the capacity is exactly 2,000 records a second.
    let clock = ManualClock::new();
    let config = Config::new("pressure").batch_interval(Interval::secs(1)).workers(1);
    let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good options");
    let limits = RateLimits { max: None, backpressure: true, initial: 500, min: 100 };
    let source = SocketSource::listen("127.0.0.1:0").rate(limits);
    let lines = ctx.socket_text(source).expect("a source");
    let work = clock.clone();
    lines.foreach_batch(move |_, batch| {
        let mut records = 0_u32;
        batch.for_each(|_| records += 1);
        work.advance(records * Duration::from_micros(500));
        Ok(())
    });
    let done = completed(&ctx);
    let running = ctx.start().expect("started");
    let stop = Arc::new(AtomicBool::new(false));
    let (flood, _) =
        flood(running.local_addrs()[0], [b"x".repeat(999), b"\n".to_vec()].concat(), &stop);
    // The work moves the clock as well, and two ticks may become one batch: look, and go on.
    let mut batches = 0;
    while batches < 20 {
        clock.advance(SECOND);
        for _ in 0..1_000 {
            batches += done.try_recv().map_or(0, |(_, records)| u64::from(records > 0));
            thread_yield();
        }
    }
    let receivers = running.inspector().receivers();
    let rate = receivers[0].rate.expect("a rate is in force");
    // The test's own steps count as processing time now and then: the rate may be below the capacity, never above.
    assert!((100..=2_000).contains(&rate) && rate != 500, "{rate}");
    stop.store(true, Ordering::SeqCst);
    flood.join();
    running.stop().expect("in order");
}

/// A context on the system's clock with a small store and an output that `work` does.
fn small(
    work: impl Fn() + Send + Sync + 'static,
    stop_deadline: Duration,
    limits: RunLimits,
) -> (StreamingContext, Arc<AtomicU64>) {
    let config = Config::new("small").store_bytes_max(2 << 20).stop_deadline(stop_deadline);
    slow(config, work, limits)
}

/// A context on the system's clock with short batches and an output that `work` does.
fn slow(
    config: Config,
    work: impl Fn() + Send + Sync + 'static,
    limits: RunLimits,
) -> (StreamingContext, Arc<AtomicU64>) {
    let config = config.batch_interval(Interval::millis(20)).workers(2);
    let ctx = StreamingContext::new(config).expect("good options");
    ctx.limits(limits);
    let lines = ctx.socket(SocketSource::listen("127.0.0.1:0")).expect("a source");
    let records = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&records);
    lines.foreach_batch(move |_, batch| {
        work();
        let mut records = 0;
        batch.for_each(|_| records += 1);
        count.fetch_add(records, Ordering::SeqCst);
        Ok(())
    });
    (ctx, records)
}

#[test]
fn a_stop_under_full_load_processes_what_was_read() {
    let (ctx, records) = small(|| (), 60 * SECOND, RunLimits::default());
    let running = ctx.start().expect("started");
    let stop = Arc::new(AtomicBool::new(false));
    // This peer goes on sending until the engine closes its connection.
    let (flood, sent) = flood(running.local_addrs()[0], b"hello world\n".to_vec(), &stop);
    while sent.load(Ordering::SeqCst) < 8 << 20 {
        thread_yield();
    }
    let report = running.stop().expect("nothing is left");
    assert_eq!(report.left, Vec::<String>::new());
    assert_eq!(report.records, records.load(Ordering::SeqCst));
    assert_eq!(report.records, report.sources[0].counter("records"));
    stop.store(true, Ordering::SeqCst);
    flood.join();
}

fn thread_yield() {
    std::thread::yield_now();
}

#[test]
fn a_stuck_closure_is_named_and_abandoned() {
    let release = Mailbox::<()>::new(1);
    let waits = release.clone();
    let (ctx, _) = small(
        move || {
            waits.recv();
        },
        2 * SECOND,
        RunLimits::default(),
    );
    let running = ctx.start().expect("started");
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    peer.write_all(b"one\n").expect("sent");
    while running.inspector().progress().batches_waiting == 0 {
        thread_yield();
    }
    let err = running.stop().expect_err("something was left");
    assert_eq!(err.exit_code(), 1);
    let text = err.to_string();
    assert!(text.contains("thread `worker-") && text.contains("is stuck in a task"), "{text}");
    assert_eq!(text.matches("abandoned").count(), 1, "the other threads are not stuck: {text}");
    release.close();
}

#[test]
fn a_sink_that_blocks_holds_the_sender_within_the_memory_bound() {
    const BYTES: u64 = 64 << 20;
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    let release = Mailbox::<()>::new(1);
    let waits = release.clone();
    let limits = RunLimits { until_eof: true, ..RunLimits::default() };
    let (ctx, records) = small(
        move || {
            waits.recv();
        },
        60 * SECOND,
        limits,
    );
    let running = ctx.start().expect("started");
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    peer.set_write_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    let inspector = running.inspector();
    let (lines, mut sent, mut held) = (line.repeat(655), 0_u64, 0);
    while sent < BYTES {
        if !send_some(&mut peer, &lines, &mut sent, BYTES) {
            held += 1;
            // TCP holds the sender: the store is full, and stays within its bound.
            assert!(sent < BYTES / 2, "{sent} bytes were taken while nothing was processed");
            release.close();
        }
        let memory = inspector.memory();
        let bound = memory.bound + memory.bound / 10;
        assert!(memory.used <= bound, "{memory:?}");
    }
    assert!(held > 0, "the sender was never held");
    drop(peer);
    let (report, outcome) = running.finish();
    outcome.expect("drained");
    // The last line is cut off by the number of bytes only if it does not divide them.
    assert_eq!(report.records, BYTES.div_ceil(100));
    assert_eq!(records.load(Ordering::SeqCst), BYTES.div_ceil(100));
    assert_eq!(inspector.memory().used, 0, "everything was given back");
}

#[test]
fn a_panic_in_every_hundredth_task_loses_nothing() {
    let lines = b"a line of text\n".repeat(400);
    let config = Config::new("panics")
        .batch_interval(Interval::millis(5))
        .block_interval(Interval::millis(1))
        .store_bytes_max(2 << 20)
        .on_failure(OnFailure { retries: 100, then: Then::Stop });
    let ctx = StreamingContext::new(config).expect("good options");
    ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    let (tasks, counted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (task, count) = (Arc::clone(&tasks), Arc::clone(&counted));
    let source = ctx.socket(SocketSource::listen("127.0.0.1:0")).expect("a source");
    let counts = source.map_partitions(move |lines, out| {
        let number = task.fetch_add(1, Ordering::SeqCst) + 1;
        lines.for_each(|line| out.push(line));
        assert!(number % 100 != 0, "the hundredth task fails when it has done everything");
    });
    counts.count().foreach_batch(move |_, batch| {
        batch.for_each(|records| {
            count.fetch_add(*records, Ordering::SeqCst);
        });
        Ok(())
    });
    let retried = Arc::new(AtomicU64::new(0));
    let retries = Arc::clone(&retried);
    ctx.add_listener(move |event: &Event| {
        if let Event::JobRetried { cause, .. } = event {
            assert!(cause.contains("the hundredth task"), "{cause}");
            retries.fetch_add(1, Ordering::SeqCst);
        }
    });
    let running = ctx.start().expect("started");
    let inspector = running.inspector();
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    let mut sent = 0;
    while tasks.load(Ordering::SeqCst) < 300 {
        peer.write_all(&lines).expect("taken");
        sent += 400;
        let memory = inspector.memory();
        assert!(memory.used <= memory.bound + memory.bound / 10, "{memory:?}");
    }
    drop(peer);
    let (report, outcome) = running.finish();
    outcome.expect("drained");
    assert_eq!((report.records, counted.load(Ordering::SeqCst)), (sent, sent));
    assert!(retried.load(Ordering::SeqCst) >= 3, "each of three hundred tasks counts");
}

/// Sends more of the lines, which begin again after the last one, up to `end` bytes in all; false if the peer takes nothing.
fn send_some(peer: &mut TcpStream, lines: &[u8], sent: &mut u64, end: u64) -> bool {
    let at = usize::try_from(*sent).expect("small") % lines.len();
    let rest = lines.len().min(at + usize::try_from(end - *sent).expect("small"));
    match peer.write(&lines[at..rest]) {
        Ok(taken) => *sent += taken as u64,
        Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            return false;
        }
        Err(err) => panic!("{err}"),
    }
    true
}

#[test]
fn a_sink_that_blocks_does_not_hold_the_sender_while_blocks_can_leave_memory() {
    const BYTES: u64 = 64 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let line = [b"x".repeat(99), b"\n".to_vec()].concat();
    let release = Mailbox::<()>::new(1);
    let waits = release.clone();
    let limits = RunLimits { until_eof: true, ..RunLimits::default() };
    let config = Config::new("spills")
        .store_bytes_max(8 << 20)
        .spill_dir(dir.path().join("spill"))
        .stop_deadline(60 * SECOND);
    let work = move || {
        waits.recv();
    };
    let (ctx, records) = slow(config, work, limits);
    let running = ctx.start().expect("started");
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    let inspector = running.inspector();
    let within = || {
        let memory = inspector.memory();
        assert!(memory.used <= memory.bound + memory.bound / 10, "{memory:?}");
        memory
    };
    let (lines, mut sent) = (line.repeat(655), 0);
    while sent < BYTES {
        let rest = lines.len().min(usize::try_from(BYTES - sent).expect("small"));
        peer.write_all(&lines[..rest]).expect("taken, although nothing is processed");
        sent += rest as u64;
        within();
    }
    drop(peer);
    let spilled = within().spilled;
    assert!(spilled.bytes > BYTES / 2 && spilled.file_bytes > 0, "{spilled:?}");
    assert!(spilled.file_bytes < spilled.bytes / 10, "the same line again and again: {spilled:?}");
    release.close();
    while inspector.progress().records < sent.div_ceil(100) {
        within();
        thread_yield();
    }
    let (report, outcome) = running.finish();
    outcome.expect("drained");
    assert_eq!(
        (report.records, records.load(Ordering::SeqCst)),
        (sent.div_ceil(100), sent.div_ceil(100))
    );
    let memory = inspector.memory();
    assert_eq!((memory.used, memory.spilled.bytes, memory.spilled.file_bytes), (0, 0, 0));
    let left = std::fs::read_dir(dir.path().join("spill")).expect("there").count();
    assert_eq!(left, 0, "every file is removed, and the stream's own directory");
}

#[test]
fn a_disk_without_room_holds_the_sender_and_loses_nothing() {
    const BYTES: u64 = 48 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let release = Mailbox::<()>::new(1);
    let waits = release.clone();
    let limits = RunLimits { until_eof: true, ..RunLimits::default() };
    let config = Config::new("spills")
        .store_bytes_max(2 << 20)
        .spill_dir(dir.path())
        .spill_bytes_max(256 << 10)
        .stop_deadline(60 * SECOND);
    let work = move || {
        waits.recv();
    };
    let (ctx, _) = slow(config, work, limits);
    let running = ctx.start().expect("started");
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    peer.set_write_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    let inspector = running.inspector();
    // Numbers do not compress to a hundredth, as one line again and again does.
    let mut lines = Vec::new();
    (0..1_000_000_u64).for_each(|n| {
        writeln!(lines, "{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("memory")
    });
    let (mut sent, mut held) = (0, 0);
    while sent < BYTES {
        if !send_some(&mut peer, &lines, &mut sent, BYTES) {
            held += 1;
            assert!(sent < BYTES / 2, "{sent} bytes were taken while nothing was processed");
            release.close();
        }
        let memory = inspector.memory();
        assert!(memory.spilled.file_bytes <= 256 << 10, "{memory:?}");
    }
    drop(peer);
    let (report, outcome) = running.finish();
    outcome.expect("drained");
    assert!(held > 0 && inspector.memory().spilled.failures > 0);
    assert_eq!(report.records, BYTES.div_ceil(17));
}

#[test]
fn an_end_of_input_is_processed_however_long_that_takes() {
    let clock = ManualClock::new();
    // Too few records for a batch: the stop makes it, after the receivers have ended.
    let config = Config::new("eof").trigger(1_000, Interval::secs(360_000));
    let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good options");
    ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    let lines = ctx.socket(SocketSource::listen("127.0.0.1:0")).expect("a source");
    let (entered, release) = (Mailbox::new(1), Mailbox::<()>::new(1));
    let (enters, waits) = (entered.clone(), release.clone());
    lines.foreach_batch(move |_, _| {
        enters.send(()).expect("the test listens");
        waits.recv();
        Ok(())
    });
    let running = ctx.start().expect("started");
    let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
    peer.write_all(b"one\n").expect("sent");
    drop(peer);
    let ended = Mailbox::new(1);
    let told = ended.clone();
    let body = move || told.send(running.finish()).expect("the test listens");
    let thread = thread::spawn("finish", &Poison::new(), body).expect("a thread");
    entered.recv().expect("the last batch runs");
    // Far beyond the stop deadline, which nobody has asked for.
    clock.advance(3_600 * SECOND);
    release.close();
    let (report, outcome) = ended.recv().expect("it ends");
    outcome.expect("nothing is left");
    assert_eq!(report.records, 1);
    thread.join();
}
