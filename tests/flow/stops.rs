//! The stop and the end of input: records that were read are processed, and stuck tasks are named.

use std::io::Write;
use std::net::TcpStream;

use tidemill::internals::sync::{Arc, AtomicBool, Mailbox, Ordering, Poison, thread};
use tidemill::testing::ManualClock;
use tidemill::{Config, Interval, RunLimits, SocketSource, StreamingContext};

use crate::{SECOND, flood, small, thread_yield};

#[test]
fn a_stop_under_full_load_processes_what_was_read() {
    let (ctx, records) = small(|| (), 60 * SECOND, RunLimits::default());
    let running = ctx.start().expect("started");
    let stop = Arc::new(AtomicBool::new(false));
    // This peer continues to send until the engine closes its connection.
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
fn an_end_of_input_is_processed_however_long_that_takes() {
    let clock = ManualClock::new();
    // Too few records for a batch: the stop makes one, after the receivers have ended.
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
