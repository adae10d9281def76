//! Batches that fail: dead letters, and attempts that lose nothing.

use std::io::Write;
use std::net::TcpStream;

use tidemill::config::{OnFailure, Then};
use tidemill::internals::sync::{Arc, AtomicU64, Mailbox, Ordering};
use tidemill::testing::ManualClock;
use tidemill::{
    Config, Error, Event, Interval, RunLimits, SocketSource, StreamHandle, StreamingContext,
};

use crate::{completed, next};

/// Listens, and fails every batch with a line `bad` at each attempt.
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
    // The start checked that letters can be kept there. Now they no longer can.
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
