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

use tempfile::TempDir;

use super::results::{Subject, SubjectKind};
use super::shape::{Kind, Shape};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::time::Clock;

pub(crate) use measure::measure;

use running::Running;

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
    pub(crate) fn subject(&self) -> Subject {
        Subject {
            kind: SubjectKind::Peer,
            name: self.row.name.to_owned(),
            version: self.found.as_ref().map(|found| found.version.clone()),
            command: self.found.as_ref().map(|found| found.command.clone()),
            ..Subject::default()
        }
    }

    /// The reason why it cannot carry this shape, if it cannot.
    pub(crate) fn refused(&self, shape: &Shape) -> Option<String> {
        let many = shape.connections > 1;
        if self.found.is_none() {
            Some(format!("not installed ({})", self.row.install))
        } else if shape.kind != Kind::Throughput {
            Some("peers are only measured for throughput".to_owned())
        } else if many && self.row.dials {
            Some(format!("{} reads one connection", self.row.name))
        } else {
            None
        }
    }
}

/// The words that say how to install what is missing of these peers; `None` if nothing is.
pub(crate) fn missing(peers: &[Peer]) -> Option<String> {
    let absent = peers.iter().filter(|peer| peer.found.is_none());
    let lines = absent.map(|peer| format!("{}: {}", peer.row.name, peer.row.install));
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
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
    fn a_peer_is_refused_for_what_it_cannot_carry() {
        let check = |peer: &Peer, kind, connections, expected: Option<&str>| {
            let shape = Shape { kind, connections, ..Shape::default() };
            assert_eq!(peer.refused(&shape).as_deref(), expected, "{shape:?}");
        };
        let (nc, rsyslog) = (peer(0, true), peer(3, true));
        check(&nc, Kind::Throughput, 1, None);
        check(&nc, Kind::Throughput, 2, Some("nc | wc -l reads one connection"));
        check(&nc, Kind::Memory, 1, Some("peers are only measured for throughput"));
        check(&rsyslog, Kind::Throughput, 100, None);
        let absent = "not installed (apt install netcat-openbsd)";
        check(&peer(0, false), Kind::Throughput, 1, Some(absent));
        assert_eq!(peer(0, false).subject().version, None);
        assert_eq!(nc.subject().command.as_deref(), Some("x PORT"));
        assert_eq!(nc.subject().kind, SubjectKind::Peer);
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        assert_eq!(missing(&[peer(0, true), peer(3, true)]), None);
        let said = missing(&[peer(0, true), peer(3, false)]);
        assert_eq!(said.as_deref(), Some("rsyslog: apt install rsyslog"));
        let names: std::collections::BTreeSet<&str> = PEERS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), PEERS.len(), "each name once");
    }
}
