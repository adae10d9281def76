//! The receive path over loopback for every io model: bytes of one connection into sealed blocks with their record
//! counts, beside a plain loop that reads and counts line feeds. A thread of this process sends.
//!
//! The lane and the block generator cannot be reached without a socket, so this is also the bench of block building.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidemill::receiver::io::{IO_MODELS, IoModel};
use tidemill::sync::Poison;
use tidemill::sync::thread::{Thread, spawn};
use tidemill::{Config, Interval, RunLimits, SocketSource, StreamingContext};

const LINE_BYTES: usize = 100;
const LINES: u64 = 400_000;

/// Sends all lines to the first peer that comes, then closes.
fn sender() -> (SocketAddr, Thread) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let body = move || {
        let (mut peer, _) = listener.accept().expect("the bench dials");
        let line = [&[b'x'; LINE_BYTES - 1][..], b"\n"].concat();
        let piece = line.repeat(2_000);
        for _ in 0..LINES / 2_000 {
            peer.write_all(&piece).expect("the bench reads");
        }
    };
    (address, spawn("sender", &Poison::new(), body).expect("a thread"))
}

/// The plain loop.
fn count_lines() -> u64 {
    let (address, sending) = sender();
    let mut peer = TcpStream::connect(address).expect("the sender listens");
    let (mut buffer, mut lines) = (vec![0; 256 * 1024], 0);
    loop {
        match peer.read(&mut buffer).expect("the sender sends") {
            0 => break,
            len => lines += memchr::memchr_iter(b'\n', &buffer[..len]).count() as u64,
        }
    }
    sending.join();
    lines
}

/// The engine with an output that does not look at its batches.
fn seal(model: IoModel) -> u64 {
    let (address, sending) = sender();
    let config = Config::new("bench").workers(1).batch_interval(Interval::millis(20));
    let context = StreamingContext::new(config).expect("the options are good");
    context.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    let source = SocketSource::connect([address.to_string()]).io_model(model);
    context.socket(source).expect("one source").foreach_batch(|_, _| Ok(()));
    let (report, outcome) = context.start().expect("threads").finish();
    outcome.expect("everything is drained");
    sending.join();
    report.records
}

fn receive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("receive");
    group.throughput(Throughput::Bytes(LINES * LINE_BYTES as u64)).sample_size(10);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    assert_eq!(count_lines(), LINES);
    group.bench_function("baseline_plain_loop", |bencher| bencher.iter(count_lines));
    for row in IO_MODELS {
        assert_eq!(seal(row.model), LINES, "{}", row.name);
        group.bench_function(row.name, |bencher| bencher.iter(|| seal(row.model)));
    }
    group.finish();
}

criterion_group!(benches, receive);
criterion_main!(benches);
