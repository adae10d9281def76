//! One run: a receiver, a sender, samples in between, and the figures that come of it. Main thread.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::plan::Cell;
use crate::error::{Error, Result};
use crate::lab::pair::{Pair, Start, unexpected};
use crate::lab::protocol::{ChildMessage, Receive, Received, Role, Sending, Sent, histogram_of};
use crate::lab::sample::Sample;
use crate::lab::shape::Kind;
use crate::lab::stats::millis_at;
use crate::settings::units::as_f64;
use crate::sync::{Arc, Signal};
use crate::time::Clock;

/// The longest time until the connections of a run are made, and from its end until everything is read.
const GRACE: Duration = Duration::from_secs(30);

/// The length of a run that only holds connections, beside a part for each connection.
const HOLD: Duration = Duration::from_millis(500);
const HOLD_EACH: Duration = Duration::from_micros(100);

/// Lines per second meanwhile: the sender ends with the last line that is due, so they must come often.
const HOLD_RATE: u64 = 100;

/// The length of runs, and their rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// A throughput run.
    pub(crate) throughput: Duration,
    /// A latency run.
    pub(crate) latency: Duration,
    /// Lines per second of latency runs.
    pub(crate) rate: u64,
    /// Threads of the io model that has a pool of them.
    pub(crate) pool_threads: usize,
}

/// The figures of one run.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) received: Received,
    pub(crate) sent: Sent,
    /// From the first to the last byte.
    pub(crate) seconds: f64,
    /// Before the first connection.
    pub(crate) before: Sample,
    /// Early and late while it ran, and the time between the two.
    pub(crate) early: Sample,
    pub(crate) late: Sample,
    pub(crate) between: Duration,
}

/// A figure of a run: its name in files, and its value; `None` where it says nothing.
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&Cell, &Figures) -> Option<f64>,
}

/// Every figure, in the order of the columns of the CSV file.
pub(crate) const METRICS: &[Metric] = &[
    Metric {
        name: "bytes_per_second",
        of: |cell, f| throughput(cell, as_f64(f.received.bytes) / f.seconds),
    },
    Metric {
        name: "records_per_second",
        of: |cell, f| throughput(cell, as_f64(f.received.records) / f.seconds),
    },
    Metric {
        name: "cpu_seconds_per_gb",
        of: |cell, f| throughput(cell, f.received.cpu / (as_f64(f.received.bytes) / 1e9)),
    },
    Metric { name: "cpu_share_percent", of: |_, f| Some(f.received.cpu / f.seconds * 100.0) },
    Metric {
        name: "sender_cpu_share_percent",
        of: |_, f| Some(f.sent.cpu / f.sent.seconds * 100.0),
    },
    Metric {
        name: "context_switches_per_second",
        of: |_, f| {
            let switches = f.late.switches.saturating_sub(f.early.switches);
            (f.late.threads > 0).then(|| as_f64(switches) / f.between.as_secs_f64())
        },
    },
    Metric {
        name: "system_calls_per_second",
        of: |_, f| f.received.calls.map(|calls| as_f64(calls) / f.seconds),
    },
    Metric {
        name: "bytes_per_connection",
        of: |cell, f| {
            let grown = f.late.anonymous_bytes.saturating_sub(f.before.anonymous_bytes);
            let many = cell.shape.kind == Kind::Memory && cell.shape.connections > 1;
            (many && f.late.threads > 0).then(|| as_f64(grown) / as_f64(cell.shape.connections))
        },
    },
    Metric { name: "anonymous_bytes", of: |_, f| Some(as_f64(f.late.anonymous_bytes)) },
    Metric { name: "peak_bytes", of: |_, f| Some(as_f64(f.late.peak_bytes)) },
    Metric { name: "threads", of: |_, f| Some(as_f64(f.late.threads)) },
    Metric { name: "p50_ms", of: |_, f| f.latency(0.5) },
    Metric { name: "p99_ms", of: |_, f| f.latency(0.99) },
    Metric { name: "p99.9_ms", of: |_, f| f.latency(0.999) },
    Metric { name: "p99.99_ms", of: |_, f| f.latency(0.999_9) },
    Metric { name: "max_ms", of: |_, f| f.latency(1.0) },
    Metric {
        name: "sender_behind_ms",
        of: |cell, f| cell.shape.kind.is_timed().then(|| as_f64(f.sent.behind_micros) / 1e3),
    },
];

fn throughput(cell: &Cell, value: f64) -> Option<f64> {
    (cell.shape.kind == Kind::Throughput).then_some(value)
}

impl Figures {
    /// The latencies in nanoseconds.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        histogram_of(&self.received.latencies)
    }

    fn latency(&self, quantile: f64) -> Option<f64> {
        (!self.received.latencies.is_empty()).then(|| millis_at(&self.histogram(), quantile))
    }
}

/// Runs one cell once with `program` as both children.
///
/// # Errors
/// An error of a child, a missed deadline, or lines that were sent and not counted.
pub(crate) fn measure(
    program: &Path,
    cell: &Cell,
    pace: &Pace,
    clock: &Arc<dyn Clock>,
) -> Result<Figures> {
    let model = cell.io_model().map(|model| model.name().to_owned());
    let (shape, (length, rate)) = (cell.shape, length(cell, pace));
    let receive = Role::Receive(Receive { model, shape, pool_threads: pace.pool_threads });
    let mut before = Sample::default();
    let pair =
        Pair::start(&Start { program, grace: GRACE, clock }, &receive, |address, process| {
            before = Sample::of(process);
            Role::Send(Sending {
                address,
                rate,
                millis: u64::try_from(length.as_millis()).unwrap_or(u64::MAX),
                line_bytes: shape.record_bytes,
                busy: shape.busy,
                idle: shape.connections.saturating_sub(shape.busy),
                stamp_every: shape.kind.is_timed().then_some(1),
            })
        })?;
    let wall_nanos = pair.wall_nanos;
    let early = sample_at(&pair, length.mul_f64(0.3), clock);
    let first = clock.now();
    let late = sample_at(&pair, length.mul_f64(0.9), clock);
    let between = clock.now().since(first);
    let end = clock.now().plus(length.saturating_add(GRACE));
    let (sent, ChildMessage::Received(received)) = pair.finish(end)? else {
        return Err(unexpected("receiver"));
    };
    let seconds = as_f64(received.end_nanos.saturating_sub(wall_nanos)) / 1e9;
    if seconds <= 0.0 || received.bytes == 0 {
        return Err(Error::Failed("nothing was received".to_owned()));
    }
    Ok(Figures { received, sent, seconds, before, early, late, between })
}

fn length(cell: &Cell, pace: &Pace) -> (Duration, Option<u64>) {
    match cell.shape.kind {
        Kind::Throughput | Kind::Storm => (pace.throughput, None),
        Kind::Latency | Kind::Crowd | Kind::Slow => (pace.latency, Some(pace.rate)),
        Kind::Memory => {
            let connections = u32::try_from(cell.shape.connections).unwrap_or(u32::MAX);
            (HOLD.saturating_add(HOLD_EACH.saturating_mul(connections)), Some(HOLD_RATE))
        }
    }
}

fn sample_at(pair: &Pair, elapsed: Duration, clock: &Arc<dyn Clock>) -> Sample {
    clock.wait(&Signal::new(), Some(pair.started.plus(elapsed)));
    Sample::of(pair.receiver())
}
