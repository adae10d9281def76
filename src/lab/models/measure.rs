//! One run: a receiver, a sender, samples in between, and the figures that come of it. Main thread.

use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::lab::pair::{Pair, Start, unexpected};
use crate::lab::peers::{self, Bench, Peer};
use crate::lab::protocol::{ChildMessage, Receive, Role, Sending};
use crate::lab::results::{Cell, Figures, SubjectKind};
use crate::lab::sample::Sample;
use crate::lab::shape::Kind;
use crate::settings::units::as_f64;
use crate::sync::{Arc, Signal, StopToken};
use crate::time::{Clock, Moment};

/// The longest time until the connections of a run are made, and from its end until everything is read.
const GRACE: Duration = Duration::from_secs(30);

/// The length of a run that only holds connections, beside a part for each connection.
const HOLD: Duration = Duration::from_millis(500);
const HOLD_EACH: Duration = Duration::from_micros(100);

/// Lines per second meanwhile: the sender ends with the last line that is due, so they must come often.
const HOLD_RATE: u64 = 100;

/// The time that starting and ending the two processes of a run usually takes.
const START: Duration = Duration::from_millis(400);

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

/// The surroundings of runs.
pub(crate) struct Lab<'a> {
    /// This program, which is both children.
    pub(crate) program: &'a Path,
    pub(crate) pace: &'a Pace,
    /// The programs that cells may name.
    pub(crate) peers: &'a [Peer],
    pub(crate) clock: &'a Arc<dyn Clock>,
    /// Ends a run at once.
    pub(crate) stop: &'a StopToken,
}

/// The time that a run of this cell takes, from its start to the next one's.
pub(crate) fn duration(cell: &Cell, pace: &Pace) -> Duration {
    let start = if cell.subject.kind == SubjectKind::Peer { peers::START } else { START };
    length(cell, pace).saturating_add(start)
}

/// Runs one cell once.
///
/// # Errors
/// An error of a child, a missed deadline, lines that were sent and not counted, or that it was stopped.
pub(crate) fn measure(cell: &Cell, lab: &Lab<'_>) -> Result<Figures> {
    let Lab { program, pace, clock, stop, peers } = *lab;
    if cell.subject.kind == SubjectKind::Peer {
        let bench = Bench { program, clock, stop, length: length(cell, pace) };
        return peers::measure(peers, cell, &bench);
    }
    let model = (cell.subject.kind == SubjectKind::Model).then(|| cell.subject.name.clone());
    let (shape, length) = (cell.shape, length(cell, pace));
    let receive = Role::Receive(Receive { model, shape, pool_threads: pace.pool_threads });
    // One stream is honest; the others get a line now and then.
    let thin = if shape.kind == Kind::Crowd { shape.connections.saturating_sub(1) } else { 0 };
    let mut before = Sample::default();
    let start = Start { program, grace: GRACE, clock, stop };
    let pair = Pair::start(&start, &receive, |address, process| {
        before = Sample::of(process);
        Role::Send(Sending {
            address,
            listens: false,
            rate: rate(cell, pace),
            millis: u64::try_from(length.as_millis()).unwrap_or(u64::MAX),
            line_bytes: shape.record_bytes,
            busy: shape.busy.saturating_sub(thin),
            idle: shape.connections.saturating_sub(shape.busy),
            thin,
            storm: shape.kind == Kind::Storm,
            stamp_every: shape.kind.is_timed().then_some(1),
        })
    })?;
    let wall_nanos = pair.wall_nanos;
    let early = sample_at(&pair, pair.started.plus(length.mul_f64(0.3)), lab);
    let first = clock.now();
    let late = sample_at(&pair, pair.started.plus(length.mul_f64(0.9)), lab);
    let between = clock.now().since(first).as_secs_f64();
    let end = clock.now().plus(length.saturating_add(GRACE));
    let (sent, ChildMessage::Received(received)) = pair.finish(end)? else {
        return Err(unexpected("receiver"));
    };
    let seconds = as_f64(received.end_nanos.saturating_sub(wall_nanos)) / 1e9;
    if seconds <= 0.0 || received.bytes == 0 {
        return Err(Error::Failed("nothing was received".to_owned()));
    }
    Ok(Figures {
        used: received.model,
        fallback: received.fallback,
        uncounted: received.uncounted,
        seconds,
        records: received.records,
        bytes: received.bytes,
        cpu: received.cpu,
        calls: received.calls,
        before,
        early,
        late,
        between,
        closed: sent.closed,
        sent,
        latencies: received.latencies,
        ..Figures::default()
    })
}

fn length(cell: &Cell, pace: &Pace) -> Duration {
    match cell.shape.kind {
        Kind::Throughput | Kind::Storm => pace.throughput,
        Kind::Latency | Kind::Crowd | Kind::Slow => pace.latency,
        Kind::Memory => {
            let connections = u32::try_from(cell.shape.connections).unwrap_or(u32::MAX);
            HOLD.saturating_add(HOLD_EACH.saturating_mul(connections))
        }
    }
}

/// Lines per second; `None`: as fast as they are read.
fn rate(cell: &Cell, pace: &Pace) -> Option<u64> {
    match cell.shape.kind {
        Kind::Throughput | Kind::Storm => None,
        Kind::Latency | Kind::Crowd | Kind::Slow => Some(pace.rate),
        Kind::Memory => Some(HOLD_RATE),
    }
}

fn sample_at(pair: &Pair, moment: Moment, lab: &Lab<'_>) -> Sample {
    let stopped = Signal::new();
    lab.stop.wakes(&stopped);
    lab.clock.wait(&stopped, Some(moment));
    Sample::of(pair.receiver())
}
