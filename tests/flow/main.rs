//! Flow control and time, through the public interface: ticks, triggers, rates, dead letters, memory, the stop.

mod failures;
mod memory;
mod rates;
mod stops;
mod ticks;

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tidemill::internals::sync::thread::{self, Thread};
use tidemill::internals::sync::{Arc, AtomicBool, AtomicU64, Mailbox, Ordering, Poison};
use tidemill::testing::ManualClock;
use tidemill::{Config, Event, Interval, RunLimits, SocketSource, StreamHandle, StreamingContext};

const SECOND: Duration = Duration::from_secs(1);

/// The times and the record counts of a context's batches, as they complete.
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

/// A context on a manual clock whose only source, a socket, listens.
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

/// Sends as much as the peer accepts until `stop`; also returns the number of bytes sent.
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

/// A context on the system's clock with a small store and an output that runs `work`.
fn small(
    work: impl Fn() + Send + Sync + 'static,
    stop_deadline: Duration,
    limits: RunLimits,
) -> (StreamingContext, Arc<AtomicU64>) {
    let config = Config::new("small").store_bytes_max(2 << 20).stop_deadline(stop_deadline);
    slow(config, work, limits)
}

/// A context on the system's clock with short batches and an output that runs `work`.
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

fn thread_yield() {
    std::thread::yield_now();
}
