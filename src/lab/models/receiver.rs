//! The receiver of a comparison's run, in a process of its own: the engine as users run it, or the baseline. It counts or
//! times what comes. Main thread of the child; times are noted on the workers and on the thread `events`.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::config::Config;
use crate::context::{RunLimits, SocketSource, StreamHandle, StreamingContext};
use crate::error::{Error, Result};
use crate::lab::baseline::LineCount;
use crate::lab::protocol::{
    ChildMessage, LATENCY_MAX, Receive, Received, histogram, io_model, latencies, listen_to_parent,
    nanos, say, say_ready,
};
use crate::lab::sample::own_cpu;
use crate::lab::shape::{BARE, Kind, Shape};
use crate::lab::syscalls::Calls;
use crate::metrics::Event;
use crate::sink::{Null, SharedSink};
use crate::source::io::IoModel;
use crate::stream::jobs::{Count, JobOptions, JobOutput};
use crate::stream::{DStream, stamp};
use crate::sync::{Arc, Mutex, Signal};
use crate::time::{Clock, Interval, SystemClock};

/// Connections beyond those of the shape that are let in. In a storm the receiver may still hold some that the sender has seen
/// closed.
const SPARE_CONNECTIONS: u64 = 16;
const SPARE_IN_STORM: u64 = 1_000;

/// Where a slow batch is measured: one in this many takes this many intervals longer.
const SLOW_EVERY: u64 = 10;
const SLOW_INTERVALS: u32 = 3;

/// The longest record that is let through if the shape's are short, in bytes.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// The processor time and system calls of this process since it was told to begin.
struct Meter {
    calls: Result<Calls, String>,
    begin: Taken,
}

#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    cpu: Duration,
    calls: Option<u64>,
}

type SharedMeter = Arc<Mutex<Meter>>;

impl Meter {
    /// Before the threads are started whose calls are to be counted.
    fn start() -> SharedMeter {
        let meter = Meter { calls: Calls::start(), begin: Taken::default() };
        Arc::new(Mutex::new(meter))
    }

    fn now(&mut self) -> Taken {
        let calls = self.calls.as_mut().ok().and_then(Calls::so_far);
        Taken { cpu: own_cpu(), calls }
    }

    /// Leaves out the cost of opening the connections.
    fn begin(&mut self) {
        self.begin = self.now();
    }

    fn stop(&mut self, received: &mut Received) {
        let (now, begin) = (self.now(), self.begin);
        received.cpu = now.cpu.saturating_sub(begin.cpu).as_secs_f64();
        received.calls = now.calls.zip(begin.calls).map(|(now, begin)| now.saturating_sub(begin));
        received.uncounted = self.calls.as_ref().err().cloned();
    }
}

/// Notes that are taken while a receiver runs.
#[derive(Debug)]
struct Noted {
    fallback: Option<String>,
    end_nanos: u64,
    latencies: Histogram<u64>,
    /// Batches so far.
    batches: u64,
}

impl Noted {
    fn new() -> Noted {
        Noted { fallback: None, end_nanos: 0, latencies: histogram(), batches: 0 }
    }

    /// Counts a batch; true if it is one that may take longer.
    fn is_slow_turn(&mut self) -> bool {
        self.batches += 1;
        self.batches.is_multiple_of(SLOW_EVERY)
    }
}

type Notes = Arc<Mutex<Noted>>;

/// Receives with an io model, or with the baseline, until every peer has closed.
///
/// # Errors
/// What the engine or the system refuses.
pub(in crate::lab) fn receive(receive: &Receive, out: &mut dyn Write) -> Result<Received> {
    let Some(model) = &receive.model else { return bare(&receive.shape, out) };
    let model = io_model(model)?;
    let notes = Arc::new(Mutex::new(Noted::new()));
    let meter = Meter::start();
    let running = start(model, receive, &notes)?;
    let stopper = running.stopper();
    let metered = Arc::clone(&meter);
    listen_to_parent(move || metered.lock().begin(), move || stopper.stop())?;
    say_ready(out, &running)?;
    let (report, outcome) = running.finish();
    outcome?;
    let source = report
        .sources
        .first()
        .ok_or_else(|| Error::Failed("the receiver has no source".to_owned()))?;
    let noted = notes.lock();
    let mut received = Received {
        model: source.io_model.map_or("none", IoModel::name).to_owned(),
        fallback: noted.fallback.clone(),
        records: report.records,
        bytes: source.counter("bytes"),
        end_nanos: noted.end_nanos,
        latencies: latencies(&noted.latencies),
        ..Received::default()
    };
    meter.lock().stop(&mut received);
    Ok(received)
}

fn start(model: IoModel, receive: &Receive, notes: &Notes) -> Result<StreamHandle> {
    let shape = &receive.shape;
    let config = Config::new("compare")
        .batch_interval(Interval::millis(shape.batch_ms.max(1)))
        .block_interval(Interval::millis(shape.block_ms.max(1)));
    let ctx = StreamingContext::new(config)?;
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let spare = if shape.kind == Kind::Storm { SPARE_IN_STORM } else { SPARE_CONNECTIONS };
    let source = SocketSource::listen("127.0.0.1:0")
        .io_model(model)
        .connections_max(size(shape.connections.saturating_add(spare)))
        .pool_threads(receive.pool_threads)
        .record_bytes_max(size(shape.record_bytes.saturating_mul(4).max(RECORD_BYTES_MAX)));
    let stream = ctx.socket(source)?;
    match shape.kind {
        Kind::Latency | Kind::Crowd => time(&stream, notes, Duration::ZERO),
        Kind::Slow => {
            let interval = Duration::from_millis(shape.batch_ms);
            time(&stream, notes, interval.saturating_mul(SLOW_INTERVALS));
        }
        Kind::Throughput | Kind::Memory | Kind::Storm => {
            let sinks = vec![SharedSink::new(Null)];
            Count.attach(&stream, JobOutput::of_batches("count", sinks));
        }
    }
    ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    let (clock, noting) = (SystemClock::new(), Arc::clone(notes));
    ctx.add_listener(move |event: &Event| match event {
        Event::IoModelFallback { why, .. } => noting.lock().fallback = Some(why.clone()),
        Event::SourceEnded { .. } => noting.lock().end_nanos = nanos(clock.wall()),
        _ => {}
    });
    ctx.start()
}

/// Notes for each stamped record the time from its stamp to the moment at which its whole batch was read. Now and then a batch
/// takes `slow` longer.
fn time(stream: &DStream<[u8]>, notes: &Notes, slow: Duration) {
    let (clock, notes) = (SystemClock::new(), Arc::clone(notes));
    stream.foreach_batch(move |_, batch| {
        if notes.lock().is_slow_turn() {
            clock.wait(&Signal::new(), Some(clock.now().plus(slow)));
        }
        let mut stamps: Vec<u64> = Vec::new();
        batch.for_each(|record| stamps.extend(stamp(record)));
        let completed = nanos(clock.wall());
        let mut noted = notes.lock();
        for sent in stamps {
            let latency = completed.saturating_sub(sent).min(LATENCY_MAX);
            noted.latencies.record(latency).expect("the histogram grows to any latency");
        }
        Ok(())
    });
}

/// The baseline: reads everything and counts line feeds.
fn bare(shape: &Shape, out: &mut dyn Write) -> Result<Received> {
    let system = |err| Error::io("the baseline cannot read", err);
    let meter = Meter::start();
    let metered = Arc::clone(&meter);
    listen_to_parent(move || metered.lock().begin(), || std::process::exit(1))?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(system)?;
    let address = listener.local_addr().map_err(system)?.to_string();
    say(out, &ChildMessage::Ready { address })?;
    let mut counted = LineCount::default();
    let read = match shape.connections {
        1 => listener.accept().and_then(|(mut stream, _)| counted.read_all(&mut stream)),
        many => counted.poll(listener, Some(usize::try_from(many).unwrap_or(usize::MAX))),
    };
    read.map_err(system)?;
    let mut received = Received {
        model: BARE.to_owned(),
        records: counted.records,
        bytes: counted.bytes,
        end_nanos: nanos(SystemClock::new().wall()),
        ..Received::default()
    };
    meter.lock().stop(&mut received);
    Ok(received)
}
