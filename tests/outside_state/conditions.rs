//! Disks that are full, gone or that hang: the messages of `tidemill`, how it continues, and how it ends.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::disk::Disk;
use crate::program::{Program, WATCHDOG};

/// A running `tidemill` with a RELP source, and the directory of its pipeline file.
struct Run {
    program: Program,
    relp: SocketAddr,
    http: SocketAddr,
    _directory: TempDir,
}

/// Starts a run; `rest` has the keys of the pipeline, `source` those of the source, `sinks` the jobs and sinks.
fn start(rest: &str, source: &str, sinks: &str) -> Run {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("pipeline.toml");
    let text = format!(
        "name = 'held'\nhttp = '127.0.0.1:0'\nstop_deadline = '2s'\n{rest}\n\
         [source.in.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\n{source}\n{sinks}\n"
    );
    fs::write(&file, text).expect("written");
    let program = Program::start(&["run", file.to_str().expect("UTF-8"), "--log-format", "json"]);
    // HTTP starts before the sources.
    let http = address(&program.event("http"));
    let relp = address(&program.event("listening"));
    Run { program, relp, http, _directory: directory }
}

/// A disk that a log has room on.
const LOG_MEBIBYTES: u64 = 330;

/// More than one segment of the log and the records that are read while it refuses; in records of 60,000 bytes.
const RECORDS: u32 = 3_000;

fn address(said: &Value) -> SocketAddr {
    said["address"].as_str().and_then(|it| it.parse().ok()).expect("an address")
}

const COUNT: &str = "[job.j]\nfrom = ['in']\nto = ['out']\ncount = {}\n[sink.out.null]\n";

impl Run {
    /// The next event of this name about a condition of this kind.
    fn condition(&self, event: &str, kind: &str) -> Value {
        loop {
            let said = self.program.event(event);
            if said["kind"] == kind {
                let level = if event == "condition_ended" { "info" } else { "warn" };
                assert_eq!(said["level"], level, "{said}");
                return said;
            }
        }
    }

    /// The answer to a path: status and body.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).expect("connected");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a time-out");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status.expect("a status"), body.to_owned())
    }

    /// Waits until `is_so` accepts the answer to `path`.
    fn until(&self, path: &str, is_so: impl Fn(u16, &str) -> bool) {
        for _ in 0..100_000 {
            let (status, body) = self.get(path);
            if is_so(status, &body) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("{path} never answers so: {:?}", self.get(path));
    }

    /// Number of bytes that its source has read.
    fn received(&self) -> u64 {
        received(&self.get("/api/v1/receivers").1)
    }

    fn peer(&self) -> Peer {
        let stream = TcpStream::connect(self.relp).expect("connected");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a time-out");
        let mut peer = Peer { stream, txnr: 1, received: Vec::new() };
        peer.stream.write_all(b"1 open 30 relp_version=0\ncommands=syslog\n").expect("sent");
        peer.read_until("1 rsp ");
        peer
    }
}

/// Number of bytes that the first source has read, according to `/api/v1/receivers`.
fn received(body: &str) -> u64 {
    let sources: Value = serde_json::from_str(body).expect("JSON");
    sources[0]["bytes"].as_u64().expect("a count")
}

/// A sender of RELP.
struct Peer {
    stream: TcpStream,
    txnr: u32,
    received: Vec<u8>,
}

impl Peer {
    /// Sends a record of this many bytes.
    fn send(&mut self, bytes: usize) {
        self.txnr += 1;
        let frame = format!("{} syslog {bytes} {}\n", self.txnr, "x".repeat(bytes));
        self.stream.write_all(frame.as_bytes()).expect("sent");
    }

    /// Waits for the answer to the last record.
    fn answered(&mut self) {
        self.read_until(&format!("{} rsp 6 200 OK\n", self.txnr));
    }

    fn read_until(&mut self, words: &str) {
        let mut piece = [0; 4096];
        while !String::from_utf8_lossy(&self.received).contains(words) {
            let read = self.stream.read(&mut piece).expect("an answer in time");
            assert!(read > 0, "closed, and no `{words}`");
            self.received.extend_from_slice(&piece[..read]);
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_full_dead_letter_disk_holds_the_connection_and_no_other() {
    let (Some(letters), state) = (Disk::in_memory(2), TempDir::new().expect("a directory")) else {
        return;
    };
    let (state, dead) = (text(state.path()).to_owned(), letters.path("letters"));
    let run = start(
        &format!("state_dir = '{state}'\nbatch_interval = '50ms'"),
        &format!("record_bytes_max = '64KiB'\ndead_letter = '{}'", text(&dead)),
        COUNT,
    );
    let (mut long, mut short) = (run.peer(), run.peer());
    letters.fill();
    long.send(300 << 10);
    let said = run.condition("condition_began", "dead_letter_fails");
    assert_eq!(said["subject"], text(&dead));
    assert!(said["needs"].as_str().is_some_and(|needs| needs.contains("free")), "{said}");
    // Other jobs continue, over more than one batch.
    for _ in 0..3 {
        short.send(10);
        short.answered();
    }
    let unready = |status: u16, body: &str| status == 503 && body.contains("dead letters");
    run.until("/readyz", unready);
    let (_, metrics) = run.get("/metrics");
    assert!(metrics.contains("tidemill_condition{kind=\"dead_letter_fails\""), "{metrics}");
    letters.empty();
    long.answered();
    run.condition("condition_ended", "dead_letter_fails");
    run.until("/readyz", |status, _| status == 200);
    long.send(300 << 10);
    long.answered();
    run.program.signal(Signal::TERM);
    let report = run.program.event("source_report");
    let counter = |name: &str| report["counters"][name].as_u64().expect("a counter");
    assert_eq!((counter("malformed"), counter("opened"), counter("put_aside")), (0, 2, 2));
    run.program.until_stopped();
    let kept = fs::read_dir(&dead).expect("there").map(|entry| entry.expect("listed"));
    let kept = kept.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    let kept = kept.map(|entry| entry.metadata().expect("there").len()).collect::<Vec<u64>>();
    assert!(kept.len() == 2 && kept.iter().all(|len| *len > 300 << 10), "{kept:?}");
}

#[test]
fn a_dead_letter_directory_that_is_removed_is_made_again() {
    let (state, dead) = (TempDir::new().expect("a directory"), TempDir::new().expect("another"));
    let letters = dead.path().join("letters");
    let run = start(
        &format!("state_dir = '{}'\nbatch_interval = '50ms'", text(state.path())),
        &format!("record_bytes_max = '1KiB'\ndead_letter = '{}'", text(&letters)),
        COUNT,
    );
    let mut peer = run.peer();
    peer.send(2_000);
    peer.answered();
    fs::remove_dir_all(&letters).expect("removed");
    peer.send(3_000);
    peer.answered();
    assert_eq!(fs::read_dir(&letters).expect("made again").count(), 1);
    run.program.stop();
}

#[test]
fn two_processes_do_not_share_the_over_long_records_of_one_source_name() {
    let dead = TempDir::new().expect("a directory");
    let keys = format!(
        "ack = 'received'\nrecord_bytes_max = '1KiB'\ndead_letter = '{}'",
        text(dead.path())
    );
    let first = start("", &keys, COUNT);
    let mut peer = first.peer();
    peer.send(2_000);
    peer.answered();
    let file = first._directory.path().join("pipeline.toml");
    let second = Program::start(&["run", file.to_str().expect("UTF-8")]);
    let (code, _, said) = second.finish();
    let said = said.join("\n");
    let holder =
        format!("{} is in use by process {}", text(dead.path()), first.program.process.0.id());
    let words = ["source `in` keeps over-long records", holder.as_str(), "`dead_letter`"];
    assert!(code == Some(1) && words.iter().all(|words| said.contains(words)), "{said}");
    peer.send(3_000);
    peer.answered();
    first.program.stop();
    let names =
        fs::read_dir(dead.path()).expect("listed").map(|entry| entry.expect("listed").file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, [".in.lock", "in-0.records", "in-1.records"]);
}

#[test]
fn a_log_that_is_full_says_so_and_goes_on_when_there_is_room() {
    let Some(disk) = Disk::in_memory(LOG_MEBIBYTES) else { return };
    let state = disk.path("state");
    // Nothing is processed meanwhile, so nothing is freed.
    let run = start(&format!("state_dir = '{}'\nbatch_interval = '1h'", text(&state)), "", COUNT);
    let mut peer = run.peer();
    disk.fill();
    let stream = peer.stream.try_clone().expect("one more handle");
    let sender = std::thread::spawn(move || {
        let mut sending = Peer { stream, txnr: peer.txnr, received: Vec::new() };
        (0..RECORDS).for_each(|_| sending.send(60_000));
        sending.txnr
    });
    let said = run.condition("condition_began", "log_refuses_writes");
    assert_eq!(said["subject"], text(&state));
    assert!(
        said["needs"].as_str().is_some_and(|needs| needs.contains("MiB must become free")),
        "{said}"
    );
    let lasts = run.condition("condition_lasts", "log_refuses_writes");
    assert!(lasts["seconds"].as_f64().is_some_and(|seconds| seconds >= 10.0), "{lasts}");
    run.until("/readyz", |status, body| status == 503 && body.contains("log `"));
    run.until("/api/v1/receivers", |_, body| body.contains("\"paused_by\":\"log\""));
    disk.empty();
    run.condition("condition_ended", "log_refuses_writes");
    peer.txnr = sender.join().expect("all is sent");
    peer.answered();
    // The stop processes a batch that was never cut.
    run.program.stop();
}

#[test]
fn a_state_directory_that_is_removed_ends_the_run() {
    let Some(disk) = Disk::in_memory(LOG_MEBIBYTES) else { return };
    let state = disk.path("state");
    let run = start(&format!("state_dir = '{}'\nbatch_interval = '1s'", text(&state)), "", COUNT);
    let mut peer = run.peer();
    fs::remove_dir_all(&state).expect("removed");
    // The log continues in its open segment, and finds no other.
    let sender = std::thread::spawn(move || {
        let frame = format!("syslog 60000 {}\n", "x".repeat(60_000));
        let mut sent =
            |txnr: u32| peer.stream.write_all(format!("{txnr} {frame}").as_bytes()).is_ok();
        (2..10_000).take_while(|txnr| sent(*txnr)).count()
    });
    let said = run.program.event("error");
    assert!(said["message"].as_str().is_some_and(|it| it.contains(text(&state))), "{said}");
    let (code, _, said) = run.program.finish();
    assert_eq!(code, Some(1), "{}", said.join("\n"));
    sender.join().expect("the peer ends with the connection");
}

/// The part of the run on the disk that hangs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hung {
    State,
    Output,
    Letters,
}

/// A stop while a disk hangs: the report is out before the disk works again. Asked twice, it is even sooner.
fn check_hung(hung: Hung, twice: bool) {
    let (Some(disk), rest) = (Disk::freezable(LOG_MEBIBYTES), TempDir::new().expect("a directory"))
    else {
        return;
    };
    let place = |what: Hung, name: &str| {
        if what == hung { disk.path(name) } else { rest.path().join(name) }
    };
    let (state, out) = (place(Hung::State, "state"), place(Hung::Output, "out"));
    let letters = place(Hung::Letters, "letters");
    let run = start(
        &format!("state_dir = '{}'\nbatch_interval = '50ms'", text(&state)),
        &format!("record_bytes_max = '1KiB'\ndead_letter = '{}'", text(&letters)),
        &format!(
            "[job.j]\nfrom = ['in']\nto = ['out']\nlines = {{}}\n\
             [sink.out.file]\npath = '{}'\nroll = {{ age = '1h' }}\n",
            text(&out)
        ),
    );
    let (mut peer, mut other) = (run.peer(), run.peer());
    for bytes in [10, 2_000] {
        peer.send(bytes);
        peer.answered();
    }
    run.until("/api/v1/status", |_, body| body.contains("\"records\":1"));
    let before = run.received();
    disk.freeze();
    peer.send(10);
    other.send(2_000);
    // A record that was not read yet does not count as left by a stop.
    run.until("/api/v1/receivers", |_, body| received(body) >= before + 2_010);
    run.program.signal(Signal::TERM);
    if twice {
        run.program.event("stopping");
        // A second signal within a second counts as the first.
        let at_once = |line: String| line.contains("stopped at once");
        let said = (0..600).any(|_| {
            run.program.signal(Signal::TERM);
            run.program.err.recv_timeout(Duration::from_millis(100)).is_ok_and(at_once)
        });
        assert!(said, "a second signal did not stop it at once");
    } else {
        let report = run.program.event("report");
        assert!(report["left"].as_array().is_some_and(|left| !left.is_empty()), "{report}");
    }
    // The process has asked to end; the kernel lets it go when the disk works again.
    disk.thaw();
    let (code, _, said) = run.program.finish();
    assert_eq!(code, Some(1), "{hung:?}: {}", said.join("\n"));
}

#[test]
fn a_stop_reports_within_its_deadline_although_a_disk_hangs() {
    check_hung(Hung::State, false);
    check_hung(Hung::Output, false);
    check_hung(Hung::Letters, false);
    check_hung(Hung::State, true);
}
