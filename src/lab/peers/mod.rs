//! The programs that a user would take instead, where they are installed: pipes of small tools, syslog daemons that write a
//! file, Spark Streaming and Flink. Each is measured with the sender that the io models have, as a subject of the same shape.
//!
//! ```text
//! PEERS ─▶ find: version, command, or how to install it
//!            ╰─▶ measure: sender ── TCP ──▶ the peer's processes ── what it counted or wrote ──▶ figures
//! ```
//! A kind of peer is a file here and its rows in [`PEERS`]. Main thread. Knows neither reports nor the command line.

mod java;
mod measure;
mod pipes;
mod running;
mod syslog;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::results::{Cell, Figures, Subject, SubjectKind};
use super::shape::{Kind, Shape};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::time::Clock;

pub(crate) use measure::Bench;

use running::Running;

/// The time that starting and ending a peer takes, about: some of them are Java virtual machines that warm up.
pub(crate) const START: Duration = Duration::from_secs(5);

/// A row of the table of peers.
#[derive(Debug)]
pub(crate) struct PeerRow {
    /// The name on the page.
    pub(crate) name: &'static str,
    /// The way to install it on Debian.
    pub(crate) install: &'static str,
    /// True if the peer dials the sender; otherwise it listens.
    dials: bool,
    /// True if it needs some seconds of load before it is as fast as it gets.
    warms_up: bool,
    /// Looks for the programs.
    find: fn() -> Option<Found>,
}

/// Every peer there is.
pub(crate) const PEERS: [PeerRow; 7] = [
    pipes::NC_WC,
    pipes::NC_MAWK,
    pipes::SOCAT_WC,
    syslog::RSYSLOG,
    syslog::SYSLOG_NG,
    java::SPARK,
    java::FLINK,
];

/// A peer that is installed.
struct Found {
    version: String,
    /// The command line, with `PORT` for its port.
    command: String,
    start: Starter,
}

/// Starts the processes of a peer.
type Starter = Box<dyn Fn(&Setting<'_>, &Arc<dyn Clock>) -> Result<Running>>;

/// What a peer is started with.
struct Setting<'a> {
    /// Where it listens, or whom it dials, on 127.0.0.1.
    port: u16,
    shape: &'a Shape,
    /// A fresh directory for its files.
    directory: &'a Path,
}

/// A peer of this machine, ready to be measured or not installed.
pub(crate) struct Peer {
    row: &'static PeerRow,
    found: Option<Found>,
}

/// Looks for every peer. Spark's and Flink's programs are compiled, which takes some seconds where they are installed.
pub(crate) fn all() -> Vec<Peer> {
    PEERS.iter().map(|row| Peer { row, found: (row.find)() }).collect()
}

impl Peer {
    /// The peer as a subject of results.
    fn subject(&self) -> Subject {
        Subject {
            kind: SubjectKind::Peer,
            name: self.row.name.to_owned(),
            version: self.found.as_ref().map(|found| found.version.clone()),
            command: self.found.as_ref().map(|found| found.command.clone()),
            ..Subject::default()
        }
    }

    /// Its cell of this shape; `None` if it cannot carry it. One that is not installed has a cell where `is_named`.
    pub(crate) fn cell(&self, shape: &Shape, is_named: bool) -> Option<Cell> {
        let carries = shape.kind == Kind::Throughput && (shape.connections == 1 || !self.row.dials);
        let not_run = match self.found {
            _ if !carries => return None,
            Some(_) => None,
            None if is_named => Some(format!("not installed ({})", self.row.install)),
            None => return None,
        };
        Some(Cell { subject: self.subject(), shape: *shape, not_run, ..Cell::default() })
    }
}

/// Runs the peer of a cell once.
///
/// # Errors
/// If it is none of these, cannot be started, is not ready or done in time, or counts something else than was sent.
pub(crate) fn measure(peers: &[Peer], cell: &Cell, bench: &Bench<'_>) -> Result<Figures> {
    let name = &cell.subject.name;
    let peer = peers.iter().find(|peer| peer.row.name == *name);
    let (peer, found) = peer
        .and_then(|peer| Some((peer, peer.found.as_ref()?)))
        .ok_or_else(|| Error::Failed(format!("{name} is not installed")))?;
    measure::measure(peer.row, found, &cell.shape, bench)
}

/// The first line with `marker` of what a program says of itself; `None` if the program is not there.
fn version(program: &str, words: &[&str], marker: &str) -> Option<String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    Some(marked(&String::from_utf8_lossy(&said), marker).unwrap_or_else(|| program.to_owned()))
}

/// The first line that holds `marker`, with single spaces.
fn marked(said: &str, marker: &str) -> Option<String> {
    let line = said.lines().find(|line| line.contains(marker))?;
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn scratch() -> Result<TempDir> {
    tempfile::tempdir().map_err(|err| Error::io("cannot make a directory for a peer", err))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(row: usize, is_found: bool) -> Peer {
        let start: Starter = Box::new(|_, _| Err(Error::Failed("not started".to_owned())));
        let found = Found { version: "x 1".to_owned(), command: "x PORT".to_owned(), start };
        Peer { row: &PEERS[row], found: is_found.then_some(found) }
    }

    #[test]
    fn versions_are_lines_of_what_a_program_says() {
        let check = |said: &str, marker: &str, expected: Option<&str>| {
            assert_eq!(marked(said, marker).as_deref(), expected, "{said}");
        };
        check(
            "socat by X\nsocat version 1.7 on  a day\n",
            "version",
            Some("socat version 1.7 on a day"),
        );
        check("socat by X", "version", None);
        check("", "", None);
        assert_eq!(version("a-program-that-is-not-there", &[], "x"), None);
    }

    #[test]
    fn a_peer_has_a_cell_where_it_can_carry_the_shape() {
        let check = |peer: &Peer, kind, connections, expected: Option<Option<&str>>| {
            let shape = Shape { kind, connections, ..Shape::default() };
            let cell = peer.cell(&shape, true);
            let found = cell.as_ref().map(|cell| cell.not_run.as_deref());
            assert_eq!(found, expected, "{shape:?}");
            assert_eq!(cell.map_or(kind, |cell| cell.shape.kind), kind);
        };
        let (nc, rsyslog) = (peer(0, true), peer(3, true));
        check(&nc, Kind::Throughput, 1, Some(None));
        check(&nc, Kind::Throughput, 2, None);
        check(&nc, Kind::Memory, 1, None);
        check(&rsyslog, Kind::Throughput, 100, Some(None));
        let absent = "not installed (apt install netcat-openbsd)";
        check(&peer(0, false), Kind::Throughput, 1, Some(Some(absent)));
        assert_eq!(peer(0, false).cell(&Shape { connections: 1, ..Shape::default() }, false), None);
        assert_eq!(peer(0, false).subject().version, None);
        assert_eq!(nc.subject().command.as_deref(), Some("x PORT"));
        assert_eq!(nc.subject().kind, SubjectKind::Peer);
        let names: std::collections::BTreeSet<&str> = PEERS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), PEERS.len(), "each name once");
    }
}
