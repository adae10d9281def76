//! The receive path over loopback for every io model: bytes of many connections into sealed blocks with their record
//! counts, beside a plain loop that reads and counts line feeds. The data server is a thread of this process.
//!
//! ```text
//! connections-1, -100, -1000/MODEL    lines of 100 bytes on this many connections
//! record-10, -1024, -65536/MODEL      one connection, records of this many bytes
//! idle-90, -99/MODEL                  lines of 100 bytes on 100 connections, this percentage of them idle
//! ```
//! A group compares the models, and the plain loop as `bare`, at one shape, in one plot:
//! `target/criterion/GROUP/report/index.html`. Criterion says what has changed since the last time. `cargo bench --bench
//! receive -- record` takes the groups of that name. A time goes from the moment when all connections are made until
//! everything is in blocks and the engine has stopped. The handler and the block generator
//! cannot be reached without a socket, so this is also the bench of block building.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidemill::internals::io::{IO_MODELS, IoModel, probe};
use tidemill::internals::lab::baseline::LineCount;
use tidemill::internals::load::{self, Limit, Load, LoadOptions, Target, WORDS};
use tidemill::internals::sync::{Arc, Poison};
use tidemill::time::{Clock, Moment, SystemClock};
use tidemill::{Config, Interval, RunLimits, SocketSource, StreamingContext};

/// Bytes that a run sends, and that it sends where nothing is measured.
const BYTES: u64 = 40_000_000;
const BYTES_OF_A_TEST: u64 = 400_000;

/// One load, the same for every model.
#[derive(Clone, Copy)]
struct Shape {
    busy: usize,
    idle: usize,
    record_bytes: usize,
    bytes: u64,
}

impl Shape {
    fn connections(&self) -> usize {
        self.busy + self.idle
    }

    /// Makes the connections, and begins to send.
    fn send(&self, to: SocketAddr, clock: &Arc<SystemClock>) -> (Load, Moment) {
        let options = LoadOptions {
            target: Target::Connect(to.to_string()),
            framing: load::Framing::Lines,
            rate: None,
            limit: Limit { bytes: Some(self.bytes), ..Limit::default() },
            line_len: self.record_bytes,
            words: WORDS,
            connections: self.busy,
            idle: self.idle,
            file: None,
            stamp: None,
            seed: 1,
        };
        let load = load::start(options, Arc::clone(clock) as Arc<dyn Clock>, &Poison::new());
        let load = load.expect("a thread");
        while !matches!(load.events().recv().expect("it starts"), load::Event::Started { .. }) {}
        (load, clock.now())
    }
}

/// The time to receive everything that is sent; asserts that it was everything.
fn timed(shape: &Shape, to: SocketAddr, receive: impl FnOnce() -> u64 + Send) -> Duration {
    let clock = SystemClock::new();
    std::thread::scope(|scope| {
        let receiving = scope.spawn(receive);
        let (load, start) = shape.send(to, &clock);
        let records = receiving.join().expect("it counts");
        let took = clock.now().since(start);
        assert_eq!(records, load.join().expect("it ends").lines, "every record");
        took
    })
}

/// The plain loop.
fn plain(shape: &Shape) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let connections = shape.connections();
    timed(shape, address, move || {
        let mut count = LineCount::default();
        count.poll(listener, Some(connections)).expect("the load sends");
        count.records
    })
}

/// The engine with an output that does not look at its batches.
fn seal(model: IoModel, shape: &Shape) -> Duration {
    let config = Config::new("bench").workers(1).batch_interval(Interval::millis(20));
    let context = StreamingContext::new(config).expect("the options are good");
    context.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    let source = SocketSource::listen("127.0.0.1:0").io_model(model);
    let source = source.connections_max(shape.connections() + 1);
    context.socket(source).expect("one source").foreach_batch(|_, _| Ok(()));
    let running = context.start().expect("threads");
    let address = running.local_addrs()[0];
    timed(shape, address, move || {
        let (report, outcome) = running.finish();
        outcome.expect("everything is drained");
        report.records
    })
}

fn receive(criterion: &mut Criterion) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .expect("it may be raised");
    // What `cargo test --benches` says.
    let test = std::env::args().any(|word| word == "--test");
    let (bytes, many) = if test { (BYTES_OF_A_TEST, 10) } else { (BYTES, 1_000) };
    let shape = |busy, idle, record_bytes| Shape { busy, idle, record_bytes, bytes };
    let groups = [
        ("connections-1", shape(1, 0, 100)),
        ("connections-100", shape(100, 0, 100)),
        ("connections-1000", shape(many, 0, 100)),
        ("record-10", shape(1, 0, 10)),
        ("record-1024", shape(1, 0, 1_024)),
        ("record-65536", shape(1, 0, 65_536)),
        ("idle-90", shape(10, 90, 100)),
        ("idle-99", shape(1, 99, 100)),
    ];
    for (name, shape) in groups {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes)).sample_size(10);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
        group.bench_function("bare", |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| plain(&shape)).sum());
        });
        for row in IO_MODELS.iter().filter(|row| probe(row.model).is_ok()) {
            group.bench_function(row.name, |bencher| {
                bencher.iter_custom(|times| (0..times).map(|_| seal(row.model, &shape)).sum());
            });
        }
        group.finish();
    }
}

criterion_group!(benches, receive);
criterion_main!(benches);
