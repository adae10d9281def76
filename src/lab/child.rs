//! The two processes of a run: a receiver that counts or times what comes, and a sender. Each is this program again; it
//! reads what to do from the first line of its standard input and answers with lines of JSON.
//!
//! ```text
//! parent ── Role ──▶ receiver ── Ready(address) ──▶ parent ── Role ──▶ sender ── Started ──▶ parent ── BEGIN ──▶ receiver
//!                        ◀════════════ TCP over loopback ═══════════════╝
//!                    receiver ── Received ──▶ parent ◀── Sent ── sender
//! ```
//! The end of standard input stops a child: nothing outlives a parent that was killed. Main thread of the child; the
//! thread `compare-stdin` waits for that end. The baseline reads on the main thread.

use std::io::{self, BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use hdrhistogram::Histogram;
use mio::net::TcpStream as Polled;
use mio::{Events, Interest, Poll, Token};

use super::models::plan::{BARE, Kind, Shape};
use super::protocol::{
    ChildMessage, LATENCY_MAX, Pour, Received, Role, Sent, histogram, listen_to_parent, nanos, say,
};
use super::sample::own_cpu;
use super::soak;
use super::syscalls::Calls;
use crate::config::Config;
use crate::context::{RunLimits, SocketSource, StreamHandle, StreamingContext};
use crate::error::{Error, Result};
use crate::load::{self, LINE_LEN, Limit, LoadOptions, Target, WORDS};
use crate::metrics::Event;
use crate::net::descriptors;
use crate::sink::{Null, SharedSink};
use crate::source::io::IoModel;
use crate::stream::jobs::{Count, JobOptions, JobOutput};
use crate::stream::{DStream, stamp};
use crate::sync::{Arc, Mutex, Poison};
use crate::time::{Clock, Interval, SystemClock};

/// What the baseline reads at once, in bytes.
const BARE_BYTES: usize = 256 * 1024;

/// Connections beyond those of the shape that are let in.
const SPARE_CONNECTIONS: u64 = 16;

/// The longest record that is let through if the shape's are short, in bytes.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// The body of a child: one role from standard input, then its answers on `out`.
///
/// # Errors
/// If the role cannot be read or `out` is gone; what goes wrong in the role is an answer.
pub(crate) fn run(out: &mut dyn Write) -> Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|err| Error::io("no role", err))?;
    let role: Role = serde_json::from_str(&line)
        .map_err(|err| Error::Usage(format!("`compare` starts this command: {err}")))?;
    // A refusal shows later, as a connection that cannot be made.
    let _ = descriptors::raise_limit();
    let done = match role {
        Role::Receive { model: None, shape, .. } => bare(&shape, out).map(ChildMessage::Received),
        Role::Receive { model: Some(model), shape, pool_threads } => {
            receive(&model, &shape, pool_threads, out).map(ChildMessage::Received)
        }
        Role::Send { address, shape, millis, rate } => {
            send(sends(address, &shape, millis, rate), out).map(ChildMessage::Sent)
        }
        Role::Time(timing) => {
            super::latency::receive(&timing, out).map(|timed| ChildMessage::Timed(Box::new(timed)))
        }
        Role::Soak(soaking) => {
            soak::receive(&soaking, out).map(|soaked| ChildMessage::Soaked(Box::new(soaked)))
        }
        Role::Pour(pour) => send(pours(&pour), out).map(ChildMessage::Sent),
    };
    say(out, &done.unwrap_or_else(|err| ChildMessage::Failed(err.to_string())))
}

fn listening_at(address: &impl ToString) -> ChildMessage {
    ChildMessage::Ready { address: address.to_string() }
}

/// What this process took, from being told to begin.
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

    /// What opening the connections took is left out.
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

/// What is learnt while a receiver runs.
#[derive(Debug)]
struct Noted {
    fallback: Option<String>,
    end_nanos: u64,
    latencies: Histogram<u64>,
}

type Notes = Arc<Mutex<Noted>>;

fn receive(
    model: &str,
    shape: &Shape,
    pool_threads: usize,
    out: &mut dyn Write,
) -> Result<Received> {
    let wanted = IoModel::by_name(model)
        .ok_or_else(|| Error::Usage(format!("no io model is called `{model}`")))?;
    let notes =
        Arc::new(Mutex::new(Noted { fallback: None, end_nanos: 0, latencies: histogram() }));
    let meter = Meter::start();
    let running = start(wanted, shape, pool_threads, &notes)?;
    let address = running
        .local_addrs()
        .first()
        .copied()
        .ok_or_else(|| Error::Failed("the receiver has no address".to_owned()))?;
    let stopper = running.stopper();
    let metered = Arc::clone(&meter);
    listen_to_parent(move || metered.lock().begin(), move || stopper.stop())?;
    say(out, &listening_at(&address))?;
    let (report, outcome) = running.finish();
    outcome?;
    let source = report
        .sources
        .first()
        .ok_or_else(|| Error::Failed("the receiver has no source".to_owned()))?;
    let noted = notes.lock();
    let recorded = noted.latencies.iter_recorded();
    let mut received = Received {
        model: source.io_model.map_or("none", IoModel::name).to_owned(),
        fallback: noted.fallback.clone(),
        records: report.records,
        bytes: source.counter("bytes"),
        end_nanos: noted.end_nanos,
        latencies: recorded.map(|step| (step.value_iterated_to(), step.count_at_value())).collect(),
        ..Received::default()
    };
    meter.lock().stop(&mut received);
    Ok(received)
}

fn start(
    wanted: IoModel,
    shape: &Shape,
    pool_threads: usize,
    notes: &Notes,
) -> Result<StreamHandle> {
    let config = Config::new("compare")
        .batch_interval(Interval::millis(shape.batch_ms.max(1)))
        .block_interval(Interval::millis(shape.block_ms.max(1)));
    let ctx = StreamingContext::new(config)?;
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let source = SocketSource::listen("127.0.0.1:0")
        .io_model(wanted)
        .connections_max(size(shape.connections.saturating_add(SPARE_CONNECTIONS)))
        .pool_threads(pool_threads)
        .record_bytes_max(size(shape.record_bytes.saturating_mul(4).max(RECORD_BYTES_MAX)));
    let stream = ctx.socket(source)?;
    match shape.kind {
        Kind::Latency => time(&stream, notes),
        Kind::Throughput | Kind::Memory => {
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

/// Notes for each stamped record the time from its stamp to the moment at which its whole batch was read.
fn time(stream: &DStream<[u8]>, notes: &Notes) {
    let (clock, notes) = (SystemClock::new(), Arc::clone(notes));
    stream.foreach_batch(move |_, batch| {
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
    say(out, &listening_at(&listener.local_addr().map_err(system)?))?;
    let mut streams = Vec::new();
    for _ in 0..shape.connections {
        streams.push(listener.accept().map_err(system)?.0);
    }
    let mut counted = Counted { buffer: vec![0; BARE_BYTES], records: 0, bytes: 0 };
    if let [stream] = &mut streams[..] {
        while counted.read(stream).map_err(system)? > 0 {}
    } else {
        counted.poll(streams).map_err(system)?;
    }
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

struct Counted {
    buffer: Vec<u8>,
    records: u64,
    bytes: u64,
}

impl Counted {
    fn read(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        let len = stream.read(&mut self.buffer)?;
        self.bytes += len as u64;
        self.records += memchr::memchr_iter(b'\n', &self.buffer[..len]).count() as u64;
        Ok(len)
    }

    /// Reads many connections, each as far as it goes, until all have closed.
    fn poll(&mut self, streams: Vec<TcpStream>) -> io::Result<()> {
        let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
        let mut open = streams.len();
        let mut polled = Vec::with_capacity(open);
        for (number, stream) in streams.into_iter().enumerate() {
            stream.set_nonblocking(true)?;
            let mut stream = Polled::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            polled.push(Some(stream));
        }
        while open > 0 {
            poll.poll(&mut events, None)?;
            for Token(number) in events.iter().map(mio::event::Event::token) {
                while let Some(stream) = &mut polled[number] {
                    match self.read(stream) {
                        Ok(0) => {
                            polled[number] = None;
                            open -= 1;
                        }
                        Ok(_) => {}
                        Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                        Err(err) => return Err(err),
                    }
                }
            }
        }
        Ok(())
    }
}

fn sends(address: String, shape: &Shape, millis: u64, rate: Option<u64>) -> LoadOptions {
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    LoadOptions {
        target: Target::Connect(address),
        framing: load::Framing::Lines,
        rate,
        limit: Limit { duration: Some(Duration::from_millis(millis)), ..Limit::default() },
        line_len: size(shape.record_bytes),
        words: WORDS,
        connections: size(shape.busy),
        idle: size(shape.connections.saturating_sub(shape.busy)),
        file: None,
        stamp: (shape.kind == Kind::Latency).then_some(1),
        seed: 1,
    }
}

fn pours(pour: &Pour) -> LoadOptions {
    LoadOptions {
        target: Target::Connect(pour.address.clone()),
        framing: load::Framing::Lines,
        rate: pour.rate,
        limit: Limit { duration: Some(Duration::from_millis(pour.millis)), ..Limit::default() },
        line_len: LINE_LEN,
        words: WORDS,
        connections: 1,
        idle: 0,
        file: None,
        stamp: Some(pour.stamp_every.max(1)),
        seed: 1,
    }
}

fn send(options: LoadOptions, out: &mut dyn Write) -> Result<Sent> {
    let (clock, poison) = (SystemClock::new(), Poison::new());
    let mut cpu = own_cpu();
    let load = load::start(options, Arc::clone(&clock) as Arc<dyn Clock>, &poison)?;
    let stopper = load.stopper();
    listen_to_parent(|| (), move || stopper.stop())?;
    while let Some(event) = load.events().recv() {
        if let load::Event::Started { .. } = event {
            cpu = own_cpu();
            say(out, &ChildMessage::Started { wall_nanos: nanos(clock.wall()) })?;
        }
    }
    let report = load.join()?;
    report.end?;
    Ok(Sent {
        lines: report.lines,
        seconds: report.seconds,
        cpu: own_cpu().saturating_sub(cpu).as_secs_f64(),
        behind_micros: u64::try_from(report.behind.as_micros()).unwrap_or(u64::MAX),
    })
}
