//! One run of a peer: a sender, the peer's processes, samples in between, and the figures that come of it. Main thread. Must
//! not know which peer it is.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use super::running::{Amount, Running};
use super::{Found, PeerRow, Setting, scratch};
use crate::error::{Error, Result};
use crate::lab::pair::{ChildProcess, Start, unexpected};
use crate::lab::protocol::{ChildMessage, Role, Sending, Sent, nanos};
use crate::lab::results::Figures;
use crate::lab::sample::Sample;
use crate::lab::shape::Shape;
use crate::settings::units::as_f64;
use crate::sync::{Arc, Signal, StopToken};
use crate::time::{Clock, Moment};

/// The longest time until a side listens or dials, and from the last byte until everything is taken. A Java virtual machine
/// takes most of it.
const GRACE: Duration = Duration::from_secs(90);

/// The time for which a peer that warms up is sent to before it is measured.
const WARM_UP: Duration = Duration::from_secs(10);

/// The time between two looks at the listening sockets.
const LOOK: Duration = Duration::from_millis(5);

/// A listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// What every run of a peer has in common.
pub(crate) struct Bench<'a> {
    /// This program, which is the sender.
    pub(crate) program: &'a Path,
    pub(crate) clock: &'a Arc<dyn Clock>,
    /// How long is sent.
    pub(crate) length: Duration,
    /// Ends a run at once.
    pub(crate) stop: &'a StopToken,
}

/// A peer at work.
struct Session<'a> {
    bench: &'a Bench<'a>,
    row: &'a PeerRow,
    found: &'a Found,
    setting: Setting<'a>,
    running: Option<Running>,
    /// Everything that was sent to it.
    sent: Amount,
}

/// What one sender did, and the peer meanwhile.
struct Round {
    sent: Sent,
    /// From the first byte to everything being taken.
    seconds: f64,
    cpu: Duration,
    early: Sample,
    late: Sample,
    between: Duration,
}

/// Runs a peer once under this load.
///
/// # Errors
/// If it cannot be started, is not ready or done in time, or counts something else than was sent.
pub(super) fn measure(
    row: &PeerRow,
    found: &Found,
    shape: &Shape,
    bench: &Bench<'_>,
) -> Result<Figures> {
    let directory = scratch()?;
    let setting = Setting { port: free_port()?, shape, directory: directory.path() };
    let mut session =
        Session { bench, row, found, setting, running: None, sent: Amount::default() };
    if !row.dials {
        session.start()?;
        session.wait_for_listener()?;
    }
    if row.warms_up {
        session.round(WARM_UP)?;
    }
    let before = session.running.as_ref().map(Running::sample).unwrap_or_default();
    let round = session.round(bench.length)?;
    session.running.as_ref().map_or(Ok(()), |running| running.check(session.sent))?;
    Ok(Figures {
        used: row.name.to_owned(),
        seconds: round.seconds,
        records: round.sent.lines,
        bytes: round.sent.bytes,
        cpu: round.cpu.as_secs_f64(),
        before,
        early: round.early,
        late: round.late,
        between: round.between.as_secs_f64(),
        sent: round.sent,
        ..Figures::default()
    })
}

impl Session<'_> {
    fn start(&mut self) -> Result<()> {
        if self.running.is_none() {
            let mut running = (self.found.start)(&self.setting, self.bench.clock)?;
            running.end_with(self.bench.stop);
            self.running = Some(running);
        }
        Ok(())
    }

    /// Sends for this long and waits until the peer has taken everything.
    fn round(&mut self, length: Duration) -> Result<Round> {
        let Bench { program, clock, stop, .. } = *self.bench;
        let start = Start { program, grace: GRACE, clock, stop };
        let sender = ChildProcess::start(&start, &self.order(length))?;
        if self.row.dials {
            self.wait_for_listener()?;
            self.start()?;
        }
        let ChildMessage::Started { wall_nanos } = sender.hear(clock.now().plus(GRACE))? else {
            return Err(unexpected("sender"));
        };
        let started = clock.now();
        let running = self.running.as_mut().expect("it was started");
        let cpu = running.cpu();
        let early = sample_at(running, started.plus(length.mul_f64(0.3)), self.bench);
        let first = clock.now();
        let late = sample_at(running, started.plus(length.mul_f64(0.9)), self.bench);
        // A peer that has ended by now shows nothing more: what it needed most is no less than what it needed before.
        let late = if late.peak_bytes < early.peak_bytes { early } else { late };
        let between = clock.now().since(first);
        let end = started.plus(length.saturating_add(GRACE));
        let ChildMessage::Sent(sent) = sender.hear(end)? else {
            return Err(unexpected("sender"));
        };
        self.sent.lines += sent.lines;
        self.sent.bytes += sent.bytes;
        running.wait_for(self.sent, end)?;
        let seconds = as_f64(nanos(clock.wall()).saturating_sub(wall_nanos)) / 1e9;
        let cpu = running.cpu().saturating_sub(cpu);
        Ok(Round { sent, seconds, cpu, early, late, between })
    }

    fn order(&self, length: Duration) -> Role {
        let shape = self.setting.shape;
        Role::Send(Sending {
            address: format!("127.0.0.1:{}", self.setting.port),
            listens: self.row.dials,
            rate: None,
            millis: u64::try_from(length.as_millis()).unwrap_or(u64::MAX),
            line_bytes: shape.record_bytes,
            busy: shape.busy,
            idle: shape.connections.saturating_sub(shape.busy),
            thin: 0,
            storm: false,
            stamp_every: None,
        })
    }

    /// Waits until somebody listens at the port. A connection would show it, too, but some peers take only one.
    fn wait_for_listener(&self) -> Result<()> {
        let (clock, never) = (self.bench.clock, Signal::new());
        let deadline = clock.now().plus(GRACE);
        let is_there = || {
            let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
            tables.into_iter().flatten().any(|table| listens(&table, self.setting.port))
        };
        while !is_there() {
            if clock.now() >= deadline || self.bench.stop.is_stopped() {
                let who = if self.row.dials { "the sender" } else { self.row.name };
                return Err(Error::Failed(format!("{who} does not listen after {GRACE:?}")));
            }
            clock.wait(&never, Some(clock.now().plus(LOOK)));
        }
        Ok(())
    }
}

fn sample_at(running: &Running, at: Moment, bench: &Bench<'_>) -> Sample {
    let stopped = Signal::new();
    bench.stop.wakes(&stopped);
    bench.clock.wait(&stopped, Some(at));
    running.sample()
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr());
    Ok(address.map_err(|err| Error::io("no free port", err))?.port())
}

/// True if a table as `/proc/net/tcp` has a listening socket with this local port.
fn listens(table: &str, port: u16) -> bool {
    let end = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next(), fields.nth(1));
        local.is_some_and(|local| local.ends_with(&end)) && state == Some(LISTENING)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:1F91 0100007F:0A0A 01 00000000:00000000\n";
        let check = |port, expected| assert_eq!(listens(table, port), expected, "{port}");
        check(0x1F90, true);
        check(0x1F91, false);
        check(0x0A0A, false);
        check(0x90, false);
        assert!(!listens("", 1));
    }
}
