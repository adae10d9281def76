//! Logs on small disks: what a start refuses, input many times the size of the disk, and the end or the continuation of a
//! run that a full log holds up.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::Program;
use crate::program::disk::Disk;

const TIDEMILL: &str = env!("CARGO_BIN_EXE_tidemill");

/// A disk for a state directory, and a directory for the output.
struct Place {
    disk: Disk,
    directory: TempDir,
}

impl Place {
    /// Returns `None`, and says so, if mounting is not allowed.
    fn new(mebibytes: u64) -> Option<Place> {
        let disk = Disk::in_memory(mebibytes)?;
        Some(Place { disk, directory: TempDir::new().expect("a directory") })
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    fn start(&self, every: &str) -> Program {
        self.start_with(every, &[])
    }

    fn start_with(&self, every: &str, more: &[&str]) -> Program {
        let (state, to) = (self.disk.path("state"), format!("file://{}", text(&self.out())));
        let from = ["run", "--from", "tcp-listen://127.0.0.1:0", "--framing", "relp"];
        let job = ["--job", "lines", "--to", &to, "--every", every, "--log-format", "json"];
        Program::start(&[&from[..], &job, &["--state-dir", text(&state)], more].concat())
    }

    /// Number of lines in the output; checks that each is there once.
    fn lines(&self) -> u64 {
        let files = fs::read_dir(self.out()).into_iter().flatten();
        let files = files.map(|entry| entry.expect("listed").path());
        let files = files.filter(|path| path.extension().is_some_and(|end| end == "txt"));
        let lines = files.map(|path| fs::read(path).expect("read"));
        lines.map(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count() as u64).sum()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A RELP sender of this many records of about a thousand bytes.
struct Sender(Child);

impl Sender {
    fn start(program: &Program, records: u64) -> Sender {
        let records = records.to_string();
        let what = ["--connections", "2", "--line-len", "1000", "--records", &records];
        Sender::start_with(program, &what)
    }

    fn start_with(program: &Program, what: &[&str]) -> Sender {
        let said = program.event("listening");
        let address = said["address"].as_str().expect("an address");
        address.parse::<SocketAddr>().expect("an address");
        let mut command = Command::new(TIDEMILL);
        command.args(["load", "--connect", address, "--framing", "relp"]);
        command.args(["--window", "1024", "--json"]).args(what);
        Sender(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts"))
    }

    /// Waits for its end; returns the number of acknowledged records.
    fn acknowledged(self) -> u64 {
        let output = self.0.wait_with_output().expect("it ends");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report["acknowledged"].as_u64().expect("a number")
    }
}

#[test]
fn a_disk_that_is_too_small_is_refused_with_what_is_needed() {
    let Some(place) = Place::new(8) else { return };
    let (code, _, said) = place.start("50ms").finish();
    let said = said.join("\n");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the log needs a disk of at least 16 MiB"), "{said}");
}

/// The long form is the row `volumes` of the scorecard.
#[test]
fn several_times_its_size_passes_through_a_small_disk() {
    let Some(place) = Place::new(24) else { return };
    const RECORDS: u64 = 72_000;
    let program = place.start("50ms");
    assert_eq!(Sender::start(&program, RECORDS).acknowledged(), RECORDS);
    program.stop();
    assert_eq!(place.lines(), RECORDS);
}

/// The contents of states are written once more where the log has no room otherwise, even at the stop.
#[test]
fn several_times_its_size_passes_through_a_small_disk_with_states() {
    const RECORDS: u64 = 72_000;
    const NUMBERED: &str = "source.in.identity=^(?<sender>[a-z]+) (?<number>[0-9]+) ";
    for (every, records) in [("100ms", RECORDS), ("1h", RECORDS / 6)] {
        let Some(place) = Place::new(24) else { return };
        let lines = place.directory.path().join("lines");
        let filler = "x".repeat(980);
        let text_of: String = (0..records).map(|number| format!("h {number} {filler}\n")).collect();
        fs::write(&lines, text_of).expect("written");
        let program = place.start_with(every, &["--set", NUMBERED]);
        let sender = Sender::start_with(&program, &["--file", text(&lines)]);
        assert_eq!(sender.acknowledged(), records);
        program.stop();
        assert_eq!(place.lines(), records);
    }
}

/// Batches of an hour: nothing frees the log until the stop, and then its own last batches do.
#[test]
fn a_stop_while_the_log_is_full_processes_all_that_was_acknowledged() {
    let Some(place) = Place::new(24) else { return };
    let program = place.start("1h");
    let sender = Sender::start(&program, 1_000_000);
    let began = program.event("condition_began");
    assert_eq!(began["kind"], "log_refuses_writes", "{began}");
    program.signal(Signal::TERM);
    program.until_stopped();
    let (acknowledged, lines) = (sender.acknowledged(), place.lines());
    assert!(acknowledged > 0 && lines >= acknowledged, "{lines} of {acknowledged}");
}

#[test]
fn a_kill_while_the_log_is_full_leaves_what_the_next_start_can_process() {
    let Some(place) = Place::new(24) else { return };
    let mut program = place.start("1h");
    let sender = Sender::start(&program, 1_000_000);
    program.event("condition_began");
    program.process.kill();
    let acknowledged = sender.acknowledged();
    let program = place.start("1h");
    program.event("listening");
    program.stop();
    let lines = place.lines();
    assert!(acknowledged > 0 && lines >= acknowledged, "{lines} of {acknowledged}");
}
