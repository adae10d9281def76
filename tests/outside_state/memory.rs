//! Memory that peers and keys take beyond their bounds: records that do not end, and the contents of windows and states.
//! The tests check which records are given up, the messages, and that no acknowledged record is lost.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tidemill::internals::io::{IO_MODELS, probe};

use crate::program::http::{api, get};
use crate::program::{Program, WATCHDOG};

/// The longest record; peers stop a byte before its end.
const RECORD: usize = 128 << 10;

/// The bound of unfinished records: a quarter of the smallest possible store, with room for two of them.
const STORE: &str = "1MiB";
const BOUND: u64 = 256 << 10;

/// Number of peers that begin a record at the same time.
const PEERS: usize = 12;

/// The fate of a record that is given up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Dropped,
    Closed,
    PutAside,
}

/// A peer that sends one record in two parts.
struct Peer {
    stream: TcpStream,
}

fn record(framing: &str) -> Vec<u8> {
    let body = vec![b'x'; RECORD];
    match framing {
        "lines" => [&body[..], b"\n"].concat(),
        "u32" => [&u32::try_from(RECORD).expect("small").to_be_bytes(), &body[..]].concat(),
        "relp" => [format!("2 syslog {RECORD} ").as_bytes(), &body, b"\n"].concat(),
        _ => [format!("{RECORD} ").as_bytes(), &body].concat(),
    }
}

impl Peer {
    fn connect(address: SocketAddr, framing: &str) -> Peer {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a socket");
        stream.set_write_timeout(Some(WATCHDOG)).expect("a socket");
        if framing == "relp" {
            stream.write_all(b"1 open 30 relp_version=0\ncommands=syslog\n").expect("it is read");
            let mut answer = Vec::new();
            while !answer.ends_with(b"commands=syslog\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("an answer");
                answer.push(byte[0]);
            }
        }
        Peer { stream }
    }

    /// Sends the end of its record; true if the record was answered, in a framing that answers.
    fn end(&mut self, end: &[u8]) -> bool {
        // A closed peer learns it here, or when it reads.
        let sent = self.stream.write_all(end).and_then(|()| self.stream.shutdown(Shutdown::Write));
        let mut answer = String::new();
        let read = self.stream.read_to_string(&mut answer);
        let broken = [sent, read.map(drop)].into_iter().find_map(Result::err);
        assert!(
            broken.as_ref().is_none_or(|err| {
                matches!(
                    err.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected
                )
            }),
            "{broken:?}"
        );
        answer.contains("2 rsp 6 200 OK")
    }
}

/// Number of records in the dead letters, each exactly as it was sent.
fn put_aside(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let entries = entries.map(|entry| entry.expect("readable"));
    let entries = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    let files = entries.map(|entry| std::fs::read(entry.path()).expect("a file"));
    files.inspect(|bytes| assert!(*bytes == record("relp"), "it is whole")).count()
}

/// Peers that together begin more than fits.
struct Situation {
    model: &'static str,
    framing: &'static str,
    fate: Fate,
}

/// The program's counts so far.
struct Counted<'a> {
    program: &'a Program,
    pages: SocketAddr,
    lines: u64,
}

impl Counted<'_> {
    fn receiver(&self, name: &str) -> u64 {
        api(self.pages, "receivers")[0][name].as_u64().expect("a number")
    }

    /// Waits until this many records are in the output.
    fn until(&mut self, records: u64) {
        while self.lines < records {
            let line = self.program.out.recv_timeout(WATCHDOG).expect("a batch");
            let batch: Value = serde_json::from_str(&line).expect("JSON");
            self.lines += batch["rows"][0][0].as_u64().expect("a count");
        }
        assert_eq!(self.lines, records);
    }
}

fn check_unfinished(situation: &Situation) {
    let Situation { model, framing, fate } = *situation;
    let dir = tempfile::tempdir().expect("a directory");
    let letters = dir.path().join("letters");
    let store = format!("store_bytes_max={STORE}");
    let longest = format!("source.in.record_bytes_max={}KiB", RECORD >> 10);
    let mut args =
        vec!["run", "--from", "tcp-listen://127.0.0.1:0", "--framing", framing, "--io", model];
    args.extend(["--job", "count", "--every", "50ms", "--to", "json", "--log-format", "json"]);
    args.extend(["--http", "127.0.0.1:0", "--set", &store, "--set", &longest]);
    let aside = format!("source.in.dead_letter={}", letters.display());
    if framing == "relp" {
        args.extend(["--set", "source.in.ack=received"]);
    }
    if fate == Fate::PutAside {
        args.extend(["--set", &aside]);
    }
    let program = Program::start(&args);
    let [address, pages] = program.addresses_of(["listening", "http"]);
    let mut counted = Counted { program: &program, pages, lines: 0 };
    let record = record(framing);
    let (begin, end) = record.split_at(record.len() - 1);
    let mut peers: Vec<Peer> = (0..PEERS).map(|_| Peer::connect(address, framing)).collect();
    let greetings = counted.receiver("bytes");
    for peer in &mut peers {
        // A peer that is closed meanwhile need not accept all of it.
        let _ = peer.stream.write_all(begin);
    }
    let given_up = program.event("record_given_up");
    let newest = given_up["newest"].as_str().expect("a text");
    let mut names = peers.iter().map(|peer| peer.stream.local_addr().expect("connected"));
    assert!(names.any(|name| newest.contains(&format!("from {name}, which sent"))), "{given_up}");
    // A peer that is not closed is read to the end of its bytes.
    let all = greetings + (PEERS * begin.len()) as u64;
    while fate == Fate::Dropped && counted.receiver("bytes") < all {
        std::thread::yield_now();
    }
    let status = api(pages, "status");
    let unfinished = status["unfinished_bytes"].as_u64().expect("a number");
    // Beyond the bound there are the records that wait for a disk: a quarter, and the record that exceeded it.
    let leaving = if fate == Fate::PutAside { BOUND / 4 + RECORD as u64 } else { 0 };
    assert!(unfinished <= BOUND + leaving + 1024, "{unfinished} unfinished bytes");
    assert_eq!(status["unfinished_bytes_max"], BOUND);
    let metrics = get(pages, "/metrics").1;
    assert!(metrics.contains(&format!("tidemill_unfinished_bytes_max {BOUND}")), "{metrics}");
    assert!(status["conditions"].to_string().contains("unfinished_full"), "{status}");
    let answered = peers.iter_mut().map(|peer| peer.end(end)).filter(|answered| *answered).count();
    let gone = counted.receiver("given_up");
    assert!((1..PEERS as u64).contains(&gone), "{gone} were given up");
    let whole = PEERS as u64 - gone;
    counted.until(whole);
    match fate {
        Fate::Dropped => assert_eq!((counted.receiver("overlong"), answered), (gone, 0)),
        Fate::PutAside => {
            // If the disk is slower than the peers, some connections are closed instead.
            let closed = (PEERS - answered) as u64;
            assert!(closed < gone, "{closed} of {gone} were closed");
            assert_eq!(put_aside(&letters) as u64, gone - closed);
        }
        Fate::Closed => {
            assert_eq!(answered as u64, whole, "who was closed got no answer");
            // Such a peer sends again.
            for _ in 0..gone {
                let mut peer = Peer::connect(address, framing);
                peer.stream.write_all(begin).expect("it is read");
                assert!(peer.end(end), "now it is answered");
            }
            counted.until(PEERS as u64);
        }
    }
    let left = api(pages, "status")["unfinished_bytes"].as_u64().expect("a number");
    assert!(left <= 1024, "{left} unfinished bytes are left");
    program.stop();
}

/// The io models that this machine has.
fn models() -> impl Iterator<Item = &'static str> {
    IO_MODELS.iter().filter(|row| probe(row.model).is_ok()).map(|row| row.name)
}

#[test]
fn unfinished_records_beyond_their_bound_are_given_up_and_nothing_acknowledged_is_lost() {
    for model in models() {
        check_unfinished(&Situation { model, framing: "lines", fate: Fate::Dropped });
        check_unfinished(&Situation { model, framing: "relp", fate: Fate::PutAside });
        check_unfinished(&Situation { model, framing: "relp", fate: Fate::Closed });
    }
    for framing in ["u32", "octet_counted", "syslog"] {
        check_unfinished(&Situation { model: "nio", framing, fate: Fate::Dropped });
    }
}

/// The arguments of a run that keeps its state in `dir`, and writes its lines there.
fn keeping(dir: &Path, kept_bytes_max: &str, more: &[&str]) -> Vec<String> {
    let (state, out) = (dir.join("state"), dir.join("out"));
    let fixed = ["run", "--from", "tcp-listen://127.0.0.1:0", "--job", "lines", "--every", "50ms"];
    let mut args: Vec<String> = fixed.iter().chain(more).map(|arg| (*arg).to_owned()).collect();
    args.extend(["--state-dir".to_owned(), state.display().to_string()]);
    args.extend(["--to".to_owned(), format!("file://{}", out.display())]);
    args.extend(["--log-format", "json", "--http", "127.0.0.1:0", "--set"].map(str::to_owned));
    args.push(format!("kept_bytes_max={kept_bytes_max}"));
    args
}

fn start(args: &[String]) -> Program {
    Program::start(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The end of a run that stopped because its windows and states keep too much: its message.
fn stopped(program: Program) -> String {
    let (code, _, said) = program.finish();
    assert_eq!(code, Some(1), "{}", said.join("\n"));
    let why = said.into_iter().rev().find(|line| line.contains("kept_bytes_max"));
    why.expect("it says why")
}

/// The words that a stop and a refused start have in common.
fn check_words(said: &str, names: &str) {
    for part in [
        names,
        "more than kept_bytes_max = 1.00 MiB",
        "let keys time out, have fewer of them, or shorten the window, or raise kept_bytes_max",
    ] {
        assert!(said.contains(part), "no `{part}` in: {said}");
    }
}

/// The log's knowledge of batches, in words.
fn batches_of(dir: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let output = command.arg("inspect").arg(dir.join("state")).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let line = text.lines().find(|line| line.contains(" planned, "));
    line.unwrap_or_else(|| panic!("no batches in {text}")).to_owned()
}

/// The lines of all files of the output.
fn lines(dir: &Path) -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("out"))
        .expect("there is output")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.file_name().is_none_or(|name| name.as_encoded_bytes()[0] != b'.'))
        .collect();
    files.sort();
    let text = files.iter().map(|file| std::fs::read_to_string(file).expect("text"));
    text.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Sends records over RELP until the connection ends; returns the number that was answered.
fn send_numbered(address: SocketAddr, from: usize, most: usize) -> usize {
    let mut stream = Peer::connect(address, "relp").stream;
    let mut answered = 0;
    for window in (from..from + most).collect::<Vec<_>>().chunks(100) {
        let frame = |(at, number): (usize, &usize)| {
            let record = format!("sender-{number:08} 1 text");
            format!("{} syslog {} {record}\n", window[0] - from + at + 2, record.len())
        };
        let frames: String = window.iter().enumerate().map(frame).collect();
        if stream.write_all(frames.as_bytes()).is_err() {
            break;
        }
        let (mut answers, mut buffer) = (0, [0; 4096]);
        while answers < window.len() {
            match stream.read(&mut buffer) {
                Ok(len) if len > 0 => {
                    let ends = buffer[..len].iter().filter(|byte| **byte == b'\n').count();
                    let farewell = String::from_utf8_lossy(&buffer[..len]).contains("serverclose");
                    answers += ends - usize::from(farewell);
                }
                _ => break,
            }
        }
        answered += answers;
        if answers < window.len() {
            break;
        }
    }
    answered
}

#[test]
fn a_state_beyond_its_bound_stops_the_stream_and_a_larger_bound_goes_on_without_a_loss() {
    let dir = tempfile::tempdir().expect("a directory");
    let identity = r#"source.in.identity='^(?<sender>\S+) (?<number>\d+) '"#;
    let more = ["--framing", "relp", "--set", identity];
    let args = keeping(dir.path(), "1MiB", &more);
    let program = start(&args);
    let [address, _pages] = program.addresses_of(["listening", "http"]);
    let answered = send_numbered(address, 0, 100_000);
    assert!((1_000..100_000).contains(&answered), "{answered} were answered");
    let names = "the state `identity of in`";
    check_words(&stopped(program), names);
    check_words(&stopped(start(&args)), names);
    let program = start(&keeping(dir.path(), "1GiB", &more));
    let [address, pages] = program.addresses_of(["listening", "http"]);
    // A record that was answered before is a repeat now; the next one is new.
    assert_eq!(send_numbered(address, 0, 1), 1);
    assert_eq!(send_numbered(address, 200_000, 1), 1);
    while api(pages, "receivers")[0]["repeats"] == 0 {
        std::thread::yield_now();
    }
    let kept = api(pages, "status")["kept"].clone();
    assert_eq!((&kept[0]["kind"], &kept[0]["name"]), (&"state".into(), &"identity of in".into()));
    assert!(kept[0]["bytes"].as_u64().expect("a number") > 1 << 20, "{kept}");
    let metrics = get(pages, "/metrics").1;
    assert!(metrics.contains("tidemill_kept_part_bytes{kind=\"state\",name=\"identity of in\"}"));
    program.stop();
    let mut lines = lines(dir.path());
    lines.sort();
    let before = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), before, "no line is there twice");
    let whole = (0..answered)
        .all(|number| lines.binary_search(&format!("sender-{number:08} 1 text")).is_ok());
    assert!(whole, "each of the {answered} that were answered is there");
}

#[test]
fn a_window_beyond_its_bound_stops_the_stream_and_a_larger_bound_goes_on_without_a_loss() {
    let dir = tempfile::tempdir().expect("a directory");
    let more = ["--window", "1h", "--slide", "1h"];
    let args = keeping(dir.path(), "1MiB", &more);
    let program = start(&args);
    let [address, _pages] = program.addresses_of(["listening", "http"]);
    let mut peer = TcpStream::connect(address).expect("it listens");
    let mut sent = 0;
    while peer.write_all(format!("line {sent:08}\n").repeat(100).as_bytes()).is_ok() {
        sent += 1;
    }
    let names = "the window `lines`";
    check_words(&stopped(program), names);
    let planned = batches_of(dir.path());
    for _ in 0..2 {
        check_words(&stopped(start(&args)), names);
        assert_eq!(batches_of(dir.path()), planned, "a refused start changes nothing");
    }
    let program = start(&keeping(dir.path(), "1GiB", &more));
    let [_, pages] = program.addresses_of(["listening", "http"]);
    while api(pages, "status")["kept"][0]["bytes"].as_u64().unwrap_or(0) <= 1 << 20 {
        std::thread::yield_now();
    }
    program.stop();
}
