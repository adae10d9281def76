//! The body of a run's child process, which is this program again. It reads its role from the first line of its standard
//! input and answers with lines of JSON; see `pair` for their order.
//!
//! The end of standard input stops a child: nothing outlives a parent that was killed. Main thread of the child; the
//! thread `compare-stdin` waits for that end.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use super::models::receiver;
use super::protocol::{ChildMessage, Role, Sending, Sent, listen_to_parent, nanos, say};
use super::sample::own_cpu;
use super::{latency, soak, storm};
use crate::error::{Error, Result};
use crate::load::{self, Limit, Load, LoadOptions, Stopper, Target, WORDS};
use crate::net::descriptors;
use crate::sync::{Arc, Poison};
use crate::time::{Clock, SystemClock};

/// Plays one role from standard input and writes its answers to `out`.
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
        Role::Receive(receive) => receiver::receive(&receive, out).map(ChildMessage::Received),
        Role::Time(timing) => {
            latency::receive(&timing, out).map(|timed| ChildMessage::Timed(Box::new(timed)))
        }
        Role::Soak(soaking) => {
            soak::receive(&soaking, out).map(|soaked| ChildMessage::Soaked(Box::new(soaked)))
        }
        Role::Send(order) => send(&order, out).map(ChildMessage::Sent),
    };
    say(out, &done.unwrap_or_else(|err| ChildMessage::Failed(err.to_string())))
}

fn send(order: &Sending, out: &mut dyn Write) -> Result<Sent> {
    if order.storm {
        return storm::send(order, out);
    }
    let (clock, poison) = (SystemClock::new(), Poison::new());
    let mut cpu = own_cpu();
    let thin = (order.thin > 0).then(|| start(thin_options(order), &clock, &poison));
    let thin = thin.transpose()?;
    // They must be there before the first line that is timed.
    thin.iter().for_each(until_started);
    let load = start(options(order), &clock, &poison)?;
    let (stopper, thin_stopper) = (load.stopper(), thin.as_ref().map(Load::stopper));
    let stop_thin = thin_stopper.clone();
    listen_to_parent(
        || (),
        move || {
            stopper.stop();
            stop_thin.iter().for_each(Stopper::stop);
        },
    )?;
    while let Some(event) = load.events().recv() {
        if let load::Event::Started { .. } = event {
            cpu = own_cpu();
            say(out, &ChildMessage::Started { wall_nanos: nanos(clock.wall()) })?;
        }
    }
    let report = load.join()?;
    report.end?;
    thin_stopper.iter().for_each(Stopper::stop);
    let thin = thin.map(Load::join).transpose()?;
    let thin_lines = thin.map_or(Ok(0), |thin| thin.end.map(|_| thin.lines))?;
    Ok(Sent {
        lines: report.lines.saturating_add(thin_lines),
        bytes: report.bytes,
        seconds: report.seconds,
        cpu: own_cpu().saturating_sub(cpu).as_secs_f64(),
        behind_micros: u64::try_from(report.behind.as_micros()).unwrap_or(u64::MAX),
        closed: 0,
    })
}

fn start(options: LoadOptions, clock: &Arc<SystemClock>, poison: &Poison) -> Result<Load> {
    load::start(options, Arc::clone(clock) as Arc<dyn Clock>, poison)
}

/// The lines that are asked for.
fn options(order: &Sending) -> LoadOptions {
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let address = order.address.clone();
    LoadOptions {
        target: if order.listens { Target::Listen(address) } else { Target::Connect(address) },
        framing: load::Framing::Lines,
        rate: order.rate,
        limit: Limit { duration: Some(Duration::from_millis(order.millis)), ..Limit::default() },
        line_len: size(order.line_bytes),
        words: WORDS,
        connections: size(order.busy),
        idle: size(order.idle),
        file: None,
        stamp: order.stamp_every,
        seed: 1,
    }
}

/// The thin connections beside them: a line a second each, until the sender stops them.
fn thin_options(order: &Sending) -> LoadOptions {
    let connections = usize::try_from(order.thin).unwrap_or(usize::MAX);
    LoadOptions {
        rate: Some(order.thin),
        limit: Limit::default(),
        connections,
        idle: 0,
        stamp: None,
        ..options(order)
    }
}

/// Waits until all connections of a load are made, or it has ended.
fn until_started(load: &Load) {
    while let Some(event) = load.events().recv() {
        if let load::Event::Started { .. } = event {
            return;
        }
    }
}
