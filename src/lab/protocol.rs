//! The messages between a run's two processes and their parent, a line of JSON each, and what both sides of it use. Plain
//! data; it starts nothing but the thread that waits for the parent.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::shape::Shape;
use crate::context::StreamHandle;
use crate::error::{Error, Result};
use crate::metrics::{STAGES, Times};
use crate::source::io::IoModel;
use crate::sync::Poison;
use crate::sync::thread::{self, Thread};

/// A longer latency is a wrong stamp or clock: a day in nanoseconds.
pub(super) const LATENCY_MAX: u64 = 24 * 3_600 * 1_000_000_000;

/// Significant digits of latencies.
const DIGITS: u8 = 3;

/// The line that tells a receiver that all connections are made.
pub(super) const BEGIN: &str = "begin";

/// The task of a child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Listen and read until every peer has closed.
    Receive(Receive),
    /// Listen, and time what comes until every peer has closed.
    Time(Timing),
    /// Listen and count words until every peer has closed.
    Soak(Soaking),
    /// Dial and send.
    Send(Sending),
}

/// The settings of a counting receiver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Receive {
    /// The name of an io model; `None` for the baseline.
    pub(crate) model: Option<String>,
    pub(crate) shape: Shape,
    pub(crate) pool_threads: usize,
}

/// The settings of a sender of lines of words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sending {
    pub(crate) address: String,
    /// True if the peer dials this address; otherwise the sender does.
    #[serde(default)]
    pub(crate) listens: bool,
    /// Lines per second; without it the sender is as fast as its lines are read.
    pub(crate) rate: Option<u64>,
    pub(crate) millis: u64,
    pub(crate) line_bytes: u64,
    /// Connections that are sent to.
    pub(crate) busy: u64,
    /// Connections that are held open.
    pub(crate) idle: u64,
    /// Further connections that get a line a second each, without a stamp.
    pub(crate) thin: u64,
    /// Each connection sends one line and closes, and another one takes its place.
    pub(crate) storm: bool,
    /// The distance of lines with a stamp, in lines; `None`: no line has one.
    pub(crate) stamp_every: Option<u64>,
}

/// A message of a child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ChildMessage {
    /// The receiver listens here.
    Ready { address: String },
    /// All connections are made, at this wall time.
    Started { wall_nanos: u64 },
    /// The report of the receiver.
    Received(Received),
    /// The report of a timing receiver.
    Timed(Box<Timed>),
    /// The report of a soaking receiver.
    Soaked(Box<Soaked>),
    /// The report of the sender.
    Sent(Sent),
    /// It cannot continue.
    Failed(String),
}

/// The report of a receiver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Received {
    /// The io model that was used.
    pub(crate) model: String,
    /// The reason why it was not the one that was asked for.
    pub(crate) fallback: Option<String>,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// When the last connection had ended, by the wall clock.
    pub(crate) end_nanos: u64,
    /// CPU seconds from the moment when all connections were made to having stopped.
    pub(crate) cpu: f64,
    /// System calls meanwhile, where the kernel counts them.
    pub(crate) calls: Option<u64>,
    /// The reason why it does not.
    pub(crate) uncounted: Option<String>,
    /// Latencies in nanoseconds and how often each came.
    pub(crate) latencies: Vec<(u64, u64)>,
}

/// The report of a sender.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sent {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu: f64,
    pub(crate) behind_micros: u64,
    /// Connections that were made and closed, of a storm.
    pub(crate) closed: u64,
}

/// The work on a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// The stamps are found.
    Stamps,
    /// The words are counted and ranked; a stamp is a word like any other.
    Words,
}

/// The settings of a receiver that times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Timing {
    pub(crate) model: String,
    pub(crate) batch_ms: u64,
    pub(crate) workers: Option<usize>,
    pub(crate) work: Work,
    /// Lines count that are due this long after the first one, or later.
    pub(crate) warm_up: Duration,
    /// From there on lines count for this long: whole batches, none of them the last one, which the end of the stream cuts short.
    pub(crate) window: Duration,
    /// The period of the control's timers; `None`: there are none.
    pub(crate) control_ms: Option<u64>,
}

/// Quantiles of times, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    /// At [`QUANTILES`].
    pub(crate) at: [u64; QUANTILES.len()],
    pub(crate) max: u64,
}

/// Batches that took more than a millisecond longer than the median one, by what took it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Slow {
    /// By stage, in the order of [`STAGES`].
    pub(crate) by_stage: [u64; STAGES.len()],
    /// Number of them that began or ran while a bare timer, too, was late.
    pub(crate) machine: u64,
    /// From the tick to the commit: the longest one.
    pub(crate) longest: u64,
}

/// The report of a receiver that times.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Timed {
    pub(crate) records: u64,
    pub(crate) end_nanos: u64,
    pub(crate) cpu: f64,
    /// The most memory that it had.
    pub(crate) peak_bytes: u64,
    /// Latencies in nanoseconds and how often each came.
    pub(crate) latencies: Vec<(u64, u64)>,
    /// By stage, in the order of [`STAGES`].
    pub(crate) stages: Vec<Spread>,
    /// The lateness of the job timer's ticks.
    pub(crate) ticks: Spread,
    /// The lateness of the bare timers.
    pub(crate) control: Spread,
    pub(crate) batches: u64,
    /// Ticks that had no batch of their own.
    pub(crate) ticks_lost: u64,
    pub(crate) slow: Slow,
}

/// The settings of a receiver that soaks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Soaking {
    pub(crate) model: String,
    pub(crate) batch_ms: u64,
}

/// The batches that were done in one second, with their mean times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Second {
    pub(crate) batches: u64,
    pub(crate) processing_us: f64,
    pub(crate) delay_us: f64,
}

/// The report of a receiver that soaks, second by second from its start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Soaked {
    pub(crate) records: u64,
    pub(crate) seconds: Vec<Second>,
}

impl ChildMessage {
    /// The records that a receiver counted; `None` of any other message.
    pub(super) fn records(&self) -> Option<u64> {
        match self {
            ChildMessage::Received(received) => Some(received.records),
            ChildMessage::Timed(timed) => Some(timed.records),
            ChildMessage::Soaked(soaked) => Some(soaked.records),
            _ => None,
        }
    }
}

/// Writes a message to the parent.
///
/// # Errors
/// If the parent is gone.
pub(super) fn say(out: &mut dyn Write, said: &ChildMessage) -> Result<()> {
    let line = serde_json::to_string(said).expect("plain data");
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|err| Error::io("parent gone", err))
}

/// Tells the parent where the engine listens.
///
/// # Errors
/// If the engine has no address, or the parent is gone.
pub(super) fn say_ready(out: &mut dyn Write, running: &StreamHandle) -> Result<()> {
    let no_address = || Error::Failed("the receiver has no address".to_owned());
    let address = running.local_addrs().first().copied().ok_or_else(no_address)?;
    say(out, &ChildMessage::Ready { address: address.to_string() })
}

/// The io model of this name.
///
/// # Errors
/// If there is none.
pub(super) fn io_model(name: &str) -> Result<IoModel> {
    IoModel::by_name(name).ok_or_else(|| Error::Usage(format!("no io model is called `{name}`")))
}

/// Calls `begin` when the parent says so and `stop` when standard input ends; the thread is abandoned, for nothing wakes
/// a read of standard input.
pub(super) fn listen_to_parent(
    begin: impl Fn() + Send + 'static,
    stop: impl FnOnce() + Send + 'static,
) -> Result<()> {
    let body = move || {
        for line in io::stdin().lock().lines().map_while(io::Result::ok) {
            if line == BEGIN {
                begin();
            }
        }
        stop();
    };
    thread::spawn("compare-stdin", &Poison::new(), body)
        .map(Thread::abandon)
        .map_err(|err| Error::io("cannot start a thread", err))
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// An empty histogram of latencies in nanoseconds, which grows to any of them.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("three digits are allowed")
}

/// The histogram of latencies in nanoseconds, each with its count.
pub(super) fn histogram_of(latencies: &[(u64, u64)]) -> Histogram<u64> {
    let mut all = histogram();
    for (value, count) in latencies {
        all.record_n((*value).min(LATENCY_MAX), *count).expect("it grows");
    }
    all
}

/// The latencies of a histogram, each with its count.
pub(super) fn latencies(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    let recorded = histogram.iter_recorded();
    recorded.map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
}

/// The quantiles that are reported, with their names.
pub(crate) const QUANTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.999_9)];

impl Spread {
    /// The quantiles of `times`.
    pub(super) fn of(times: &Times) -> Spread {
        Spread {
            count: times.count(),
            at: QUANTILES.map(|(_, part)| nanos(times.quantile(part))),
            max: nanos(times.longest()),
        }
    }
}
