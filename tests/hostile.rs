//! Hostile peers against the real program: floods of connections with few descriptors (R7 of the scorecard), streams that
//! never end a record, bytes that drip, frames that lie (R8). The bounds hold, and an honest sender loses nothing.
//!
//! A case is a process of its own, so that its descriptors, threads and memory can be read from the system, and its limit
//! of descriptors is its own. It runs over real sockets on the loopback device, waits for events, and says what it found
//! broken; nothing is asserted on elapsed time. Built with `--cfg tidemill_planted` each row also runs with defects in
//! the program, and must find each.

#![cfg(not(tidemill_model))]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

mod program;

use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use rustix::process::Signal as Kill;
use serde_json::Value;
use tidemill::source::io::{IO_MODELS, Row, probe};
use tidemill::sync::Mutex;
use tidemill::time::{Clock, SystemClock};

use program::Program;
use program::http::api;

/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(40);

/// The same where a planted defect makes something never happen: long enough for what does happen.
#[cfg(tidemill_planted)]
const SHORT: Duration = Duration::from_secs(4);

/// The cases open many descriptors, and look at what a process holds.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a case found broken, in the words of its row.
type Found = Result<(), String>;

/// Fails with `what` unless it is so.
fn expect(so: bool, what: impl FnOnce() -> String) -> Found {
    if so { Ok(()) } else { Err(what()) }
}

/// How a case runs.
#[derive(Clone, Copy)]
struct Case {
    model: &'static str,
    /// The defect that is planted.
    planted: Option<&'static str>,
    patience: Duration,
}

/// A running `tidemill run` that listens; killed when the case is over.
struct Engine {
    program: Program,
    address: SocketAddr,
    /// Where its pages are.
    pages: SocketAddr,
    /// The rows of all batches so far.
    rows: Vec<Value>,
    /// The peers that it said it is connected to.
    connected: HashSet<String>,
    /// What its source counted, said at the end.
    counters: Value,
    patience: Duration,
}

impl Engine {
    /// Starts it with a job and settings of the source, and so many descriptors.
    fn start(case: Case, job: &str, options: &[&str], descriptors: Option<u64>) -> Engine {
        let tidemill = env!("CARGO_BIN_EXE_tidemill");
        let mut command = match descriptors {
            None => Command::new(tidemill),
            // Both limits, since it raises the soft one.
            Some(descriptors) => {
                let mut shell = Command::new("sh");
                let limited = format!("ulimit -n {descriptors}; exec \"$@\"");
                shell.args(["-c", &limited, "sh", tidemill]);
                shell
            }
        };
        command
            .args(["run", "--from", "tcp-listen://127.0.0.1:0", "--io", case.model, "--job", job])
            .args(["--every", "50ms", "--set", "block_interval=10ms", "--to", "json"])
            .args(["--log-format", "json", "--log-level", "debug", "--http", "127.0.0.1:0"])
            .args(options);
        if let Some(defect) = case.planted {
            command.env("TIDEMILL_PLANTED", defect);
        }
        let program = Program::of(&mut command);
        let [address, pages] = program.addresses_of(["listening", "http"]);
        Engine {
            program,
            address,
            pages,
            rows: Vec::new(),
            connected: HashSet::new(),
            counters: Value::Null,
            patience: case.patience,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the kernel takes it");
        stream.set_write_timeout(Some(self.patience)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        stream
    }

    /// Looks at what it said on standard error meanwhile.
    fn listen(&mut self, wait: Duration) -> bool {
        let Ok(line) = self.program.err.recv_timeout(wait) else { return false };
        let mut said: Value = serde_json::from_str(&line).expect("JSON");
        match said["event"].as_str() {
            Some("connected") => {
                self.connected.extend(said["peer"].as_str().map(str::to_owned));
            }
            Some("source_report") => self.counters = said["counters"].take(),
            _ => {}
        }
        true
    }

    /// Looks at what the batches brought; false once there is nothing more to come.
    fn collect(&mut self, wait: Duration) -> bool {
        while self.listen(Duration::ZERO) {}
        let mut next = self.program.out.recv_timeout(wait);
        loop {
            match next {
                Ok(line) => {
                    let batch: Value = serde_json::from_str(&line).expect("JSON");
                    self.rows.extend(batch["rows"].as_array().expect("rows").iter().cloned());
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            next = self.program.out.recv_timeout(Duration::ZERO);
        }
    }

    /// What the rows of a `count` add up to.
    fn counted(&self) -> u64 {
        self.rows.iter().filter_map(|row| row[0].as_u64()).sum()
    }

    /// Waits until `so`, looking again with every batch.
    fn until(&mut self, what: &str, mut so: impl FnMut(&Engine) -> bool) -> Found {
        let clock = SystemClock::new();
        let deadline = clock.now().plus(self.patience);
        while !so(self) {
            let more = self.collect(Duration::from_millis(5));
            expect(more, || format!("{what}: the program ended"))?;
            expect(clock.now() < deadline || so(self), || format!("{what}: never"))?;
        }
        Ok(())
    }

    fn until_counted(&mut self, lines: u64) -> Found {
        self.until("honest lines counted", |engine| engine.counted() >= lines)
    }

    fn proc_path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.program.process.0.id())
    }

    fn entries(&self, dir: &str) -> usize {
        std::fs::read_dir(self.proc_path(dir)).map_or(0, Iterator::count)
    }

    /// Descriptors and threads.
    fn holds(&self) -> (usize, usize) {
        (self.entries("fd"), self.entries("task"))
    }

    /// The most memory that was resident, in bytes.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc_path("status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("the kernel says it") << 10
    }

    /// Stops it; what its source counted.
    fn finish(mut self) -> Result<(Value, Vec<Value>), String> {
        self.program.signal(Kill::TERM);
        let clock = SystemClock::new();
        let deadline = clock.now().plus(PATIENCE);
        while self.collect(Duration::from_millis(50)) {
            expect(clock.now() < deadline, || "the stop: never".to_owned())?;
        }
        while self.listen(PATIENCE) {}
        let status = self.program.process.0.wait().expect("it has ended");
        expect(status.success(), || format!("the program ended with {status}"))?;
        Ok((self.counters.take(), std::mem::take(&mut self.rows)))
    }
}

/// Whether the other side has closed.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let closed = match stream.peek(&mut [0]) {
        Ok(len) => len == 0,
        Err(err) => err.kind() != ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).expect("a socket");
    closed
}

/// The sender that must not suffer, and how many lines it sent.
struct Honest {
    stream: TcpStream,
    lines: u64,
}

impl Honest {
    /// Sends lines and learns whether they were taken.
    fn send(&mut self, lines: u64) -> Found {
        let text: String =
            (self.lines..self.lines + lines).map(|n| format!("honest {n}\n")).collect();
        self.lines += lines;
        let sent = self.stream.write_all(text.as_bytes());
        sent.map_err(|err| format!("the honest sender is not read: {err}"))
    }
}

/// The most connections of the cases with a limit of them.
const SEATS: usize = 40;

/// Descriptors of the cases with few, and the threads that a pool then has.
const FEW: u64 = 70;

/// How many peers come and go.
const CHURN: u64 = 300;

/// Peers that stay and say `idle` once; each is counted or closed.
fn idle_peers(engine: &Engine, count: usize) -> Vec<TcpStream> {
    let peer = |_| {
        let mut stream = engine.connect();
        // One that was turned away already does not take it.
        let _ = stream.write_all(b"idle\n");
        stream
    };
    (0..count).map(peer).collect()
}

/// Peers that connect and close at once, some with half a line, while the honest one sends. Returns how many came.
fn churn(engine: &Engine, honest: &mut Honest) -> Result<u64, String> {
    for round in 0..CHURN {
        let mut peer = engine.connect();
        if round % 3 == 0 {
            let _ = peer.write_all(b"junk without an end");
        }
        drop(peer);
        honest.send(50)?;
    }
    Ok(CHURN)
}

/// Waits until everybody who came was taken or turned away, then until descriptors and threads are what they were.
/// Returns how many peers that took.
fn settle(engine: &mut Engine, before: (usize, usize)) -> Result<u64, String> {
    // Peers are accepted in the order in which they came, so one more comes last.
    let last = engine.connect();
    let address = last.local_addr().expect("connected").to_string();
    engine.until("the last one is taken or turned away", |engine| {
        engine.connected.contains(&address) || is_closed(&last)
    })?;
    drop(last);
    let returned = engine.until("returned", |engine| engine.holds() == before);
    returned
        .map_err(|_| format!("descriptors and threads: {before:?} became {:?}", engine.holds()))?;
    Ok(1)
}

fn is_count(value: &Value, expected: u64, what: &str) -> Found {
    expect(value.as_u64() == Some(expected), || format!("{what}: {value} instead of {expected}"))
}

/// More peers than places.
fn r7_connection_limit(case: Case) -> Found {
    let limit = format!("source.in.connections_max={SEATS}");
    let options = ["--where", "^(honest|idle)", "--set", &limit];
    let mut engine = Engine::start(case, "count", &options, None);
    let mut honest = Honest { stream: engine.connect(), lines: 0 };
    honest.send(1)?;
    engine.until_counted(1)?;
    let before = engine.holds();
    let peers = idle_peers(&engine, SEATS + 20);
    let answered = |engine: &Engine| {
        let closed = peers.iter().filter(|peer| is_closed(peer)).count() as u64;
        engine.counted() - 1 + closed >= peers.len() as u64
    };
    engine.until("each peer is taken or turned away", answered)?;
    let taken = engine.counted() - 1;
    expect(taken == SEATS as u64 - 1, || format!("connection limit: {taken} were taken"))?;
    let mut came = 1 + peers.len() as u64;
    let kept: Vec<TcpStream> = peers.into_iter().filter(|peer| !is_closed(peer)).collect();
    came += churn(&engine, &mut honest)?;
    engine.until_counted(honest.lines + taken)?;
    drop(kept);
    came += settle(&mut engine, before)?;
    came += churn(&engine, &mut honest)?;
    came += settle(&mut engine, before)?;
    // Not as many as there are places: a socket is closed a moment before its place is free.
    let late = idle_peers(&engine, SEATS / 2);
    came += late.len() as u64;
    let expected = honest.lines + taken + late.len() as u64;
    let again = engine.until("places can be had again", |engine| engine.counted() >= expected);
    again.map_err(|_| {
        let closed = late.iter().filter(|peer| is_closed(peer)).count();
        format!("places cannot be had again: {closed} of {} turned away", late.len())
    })?;
    drop(late);
    came += settle(&mut engine, before)?;
    let (counters, rows) = engine.finish()?;
    check_counts(&counters, &rows, expected, came)
}

/// More peers than descriptors.
fn r7_few_descriptors(case: Case) -> Found {
    let options = ["--where", "^(honest|idle)", "--set"];
    // A thread of a pool has a descriptor too.
    let pool = if case.model == "pool" { "source.in.pool_threads=8" } else { "workers=2" };
    let mut engine = Engine::start(case, "count", &[&options[..], &[pool]].concat(), Some(FEW));
    let mut honest = Honest { stream: engine.connect(), lines: 0 };
    honest.send(1)?;
    engine.until_counted(1)?;
    let before = engine.holds();
    let peers = idle_peers(&engine, 120);
    engine.until("one is turned away", |_| peers.iter().any(is_closed))?;
    let mut came = 1 + peers.len() as u64;
    came += churn(&engine, &mut honest)?;
    drop(peers);
    came += settle(&mut engine, before)?;
    let sent = honest.lines;
    engine.until_counted(sent)?;
    let (counters, rows) = engine.finish()?;
    let opened = counters["opened"].as_u64().unwrap_or(0);
    let refused = counters["refused"].as_u64().unwrap_or(0);
    expect(refused > 0, || "refused peers are not counted".to_owned())?;
    expect(opened + refused == came, || format!("{opened} taken, {refused} refused, {came} came"))?;
    let counted: u64 = rows.iter().filter_map(|row| row[0].as_u64()).sum();
    expect((sent..sent + opened).contains(&counted), || format!("{counted} of {sent} lines"))
}

fn check_counts(counters: &Value, rows: &[Value], lines: u64, came: u64) -> Found {
    let counted: u64 = rows.iter().filter_map(|row| row[0].as_u64()).sum();
    expect(counted == lines, || format!("{counted} lines counted, {lines} sent"))?;
    let refused = counters["refused"].as_u64().unwrap_or(0);
    expect(refused >= 20, || "refused peers are not counted".to_owned())?;
    is_count(&counters["opened"], came - refused, "peers that were taken")?;
    is_count(&counters["open"], 0, "connections at the end")
}

/// The longest record of R8.
const RECORD_MAX: usize = 16 << 10;

/// The connections that never end a record, and what each sends: together more than the bound, were it kept.
const FLOODS: usize = 20;
const FLOOD_ROUNDS: usize = 40;
const FLOOD_BYTES: usize = 128 << 10;

/// The connections that send a byte in each round.
const DRIPS: usize = 20;

/// What the program may take besides its connections' records.
const MEMORY_BESIDES: u64 = 64 << 20;

/// The honest sender's records in each round.
const HONEST: u64 = 50;

/// The longest record of the peers that stop one byte before they must end it, and how many there are.
const ALMOST_MAX: usize = 256 << 10;
const ALMOST: usize = 400;

/// The same with a pool: its threads serve so many, and one more.
const ALMOST_OF_POOL: usize = 127;

/// `store_bytes_max` beside them, a quarter of which unfinished records may take.
const ALMOST_STORE: u64 = 8 << 20;

/// Peers of which each has almost sent a whole record: more than memory has room for. Then all end theirs.
fn r8_almost_whole(case: Case) -> Found {
    let (store, record) = (
        format!("store_bytes_max={}MiB", ALMOST_STORE >> 20),
        format!("source.in.record_bytes_max={}KiB", ALMOST_MAX >> 10),
    );
    // A connection without a thread is not read, and takes no memory.
    let threads = format!("source.in.pool_threads={}", ALMOST_OF_POOL + 1);
    let options = ["--set", &store, "--set", &record, "--set", &threads];
    let count = if case.model == "pool" { ALMOST_OF_POOL } else { ALMOST };
    let mut engine = Engine::start(case, "count", &options, None);
    let pages = engine.pages;
    let receiver = |name: &str| api(pages, "receivers")[0][name].as_u64().unwrap_or(0);
    let mut honest = Honest { stream: engine.connect(), lines: 0 };
    let mut peers: Vec<TcpStream> = (0..count).map(|_| engine.connect()).collect();
    let almost = vec![b'x'; ALMOST_MAX - 1];
    for peer in &mut peers {
        honest.send(10)?;
        let sent = peer.write_all(&almost);
        sent.map_err(|err| format!("a peer is not read: {err}"))?;
    }
    let all = (count * almost.len()) as u64;
    engine.until("all of it is read", |_| receiver("bytes") >= all)?;
    let sent = honest.lines;
    engine.until_counted(sent)?;
    let memory = engine.memory();
    let bound = ALMOST_STORE + MEMORY_BESIDES;
    expect(memory <= bound, || format!("memory: {memory} bytes, {bound} allowed"))?;
    let status = api(pages, "status");
    let (unfinished, most) = (&status["unfinished_bytes"], &status["unfinished_bytes_max"]);
    is_count(most, ALMOST_STORE / 4, "unfinished_bytes_max")?;
    let kept = unfinished.as_u64().unwrap_or(0);
    let short = ALMOST_MAX as u64;
    expect((short..=ALMOST_STORE / 4).contains(&kept), || format!("{kept} unfinished bytes"))?;
    let given_up = receiver("given_up");
    for peer in &mut peers {
        let sent = peer.write_all(b"\n").and_then(|()| peer.shutdown(Shutdown::Write));
        sent.map_err(|err| format!("a peer is not read: {err}"))?;
    }
    engine.until("the peers are gone", |_| peers.iter().all(is_closed))?;
    let whole = count as u64 - given_up;
    engine.until_counted(sent + whole)?;
    let left = api(pages, "status")["unfinished_bytes"].as_u64().unwrap_or(u64::MAX);
    expect(left <= 4096, || format!("{left} unfinished bytes are left"))?;
    let (counters, rows) = engine.finish()?;
    is_count(&counters["given_up"], given_up, "records given up")?;
    is_count(&counters["overlong"], given_up, "records dropped")?;
    let counted: u64 = rows.iter().filter_map(|row| row[0].as_u64()).sum();
    expect(counted == sent + whole, || format!("{counted} records instead of {}", sent + whole))
}

/// What is sent in a framing.
struct Attack {
    framing: &'static str,
    /// How a stream begins that never ends its record.
    endless: &'static [u8],
    /// What drips.
    drip: &'static [u8],
    /// Records of NULs and bad UTF-8, which are none of the program's business.
    junk: &'static [u8],
    /// Streams that cannot be understood.
    malformed: &'static [&'static [u8]],
    honest: fn(u64) -> Vec<u8>,
}

const ATTACKS: [Attack; 4] = [
    Attack {
        framing: "lines",
        endless: b"x",
        drip: b"x",
        junk: b"\0\0\0\n\xff\xfe\xc3(\n\xed\xa0\x80\r\n\0honest\n\n",
        malformed: &[],
        honest: |number| format!("honest {number}\n").into_bytes(),
    },
    Attack {
        framing: "octet_counted",
        endless: b"999999999 ",
        drip: b"9999 xxxxx",
        junk: b"3 \x00\x00\x0010 \xff\xfe\xc3(honest1 \n",
        malformed: &[b"1234567890 x", b"\0", b"0 ", b"99999999x", b"\xff\xff", b"-1 x"],
        honest: |number| counted(&format!("honest {number}")),
    },
    Attack {
        framing: "syslog",
        endless: b"999999999 ",
        drip: b"<13>xxxxxx",
        junk: b"\0\0\0\n3 \0\0\0\xff\xfe\xc3(\n0 honest\n",
        malformed: &[b"1234567890 x", b"2026-01-01 x\n", b"1\0"],
        honest: |number| match number % 2 {
            0 => counted(&format!("honest {number}")),
            _ => format!("honest {number}\n").into_bytes(),
        },
    },
    Attack {
        framing: "u32",
        endless: b"\xff\xff\xff\xff",
        drip: b"\0\0\x10\0xxxxx",
        junk: b"\0\0\0\x03\0\0\0\0\0\0\x04\xff\xfe\xc3(\0\0\0\0",
        malformed: &[],
        honest: |number| {
            let record = format!("honest {number}");
            let len = u32::try_from(record.len()).expect("short");
            [&len.to_be_bytes(), record.as_bytes()].concat()
        },
    },
];

fn counted(record: &str) -> Vec<u8> {
    format!("{} {record}", record.len()).into_bytes()
}

/// The peers that mean harm.
struct Hostile {
    floods: Vec<TcpStream>,
    drips: Vec<TcpStream>,
}

impl Hostile {
    fn new(engine: &Engine, attack: &Attack) -> Hostile {
        let peers = |count, start: &[u8]| -> Vec<TcpStream> {
            let peer = |_| {
                let mut stream = engine.connect();
                stream.write_all(start).expect("it is read");
                stream
            };
            (0..count).map(peer).collect()
        };
        for start in attack.malformed {
            drop(peers(1, start));
        }
        Hostile { floods: peers(FLOODS, attack.endless), drips: peers(DRIPS, b"") }
    }

    fn send(&mut self, engine: &Engine, attack: &Attack, round: usize) -> Found {
        let failed = |err| format!("a hostile peer is not read: {err}");
        let flood = vec![b'x'; FLOOD_BYTES];
        for peer in &mut self.floods {
            peer.write_all(&flood).map_err(failed)?;
        }
        let drip = attack.drip[round % attack.drip.len().max(1)];
        let drip = if round < attack.drip.len() { drip } else { b'x' };
        for peer in &mut self.drips {
            peer.write_all(&[drip]).map_err(failed)?;
        }
        engine.connect().write_all(attack.junk).map_err(failed)
    }
}

/// The honest sender's records, as they came out, with hostile peers beside it or without.
fn honest_output(case: Case, attack: &Attack, hostile: bool) -> Result<Vec<Value>, String> {
    let limit = format!("source.in.record_bytes_max={}KiB", RECORD_MAX >> 10);
    let options = ["--framing", attack.framing, "--set", &limit];
    let mut engine = Engine::start(case, "grep=^honest ", &options, None);
    let mut honest = engine.connect();
    let mut enemies = hostile.then(|| Hostile::new(&engine, attack));
    for round in 0..FLOOD_ROUNDS {
        let numbers = HONEST * round as u64..HONEST * (round as u64 + 1);
        let bytes: Vec<u8> = numbers.flat_map(attack.honest).collect();
        let sent = honest.write_all(&bytes);
        sent.map_err(|err| format!("the honest sender is not read: {err}"))?;
        if let Some(enemies) = &mut enemies {
            enemies.send(&engine, attack, round)?;
        }
    }
    let all = usize::try_from(HONEST).expect("small") * FLOOD_ROUNDS;
    engine.until("honest records counted", |engine| engine.rows.len() >= all)?;
    if let Some(enemies) = &enemies {
        // What is still on its way would count too late.
        for peer in &enemies.floods {
            peer.shutdown(Shutdown::Write).expect("connected");
        }
        engine.until("the floods were read", |_| enemies.floods.iter().all(is_closed))?;
    }
    let memory = engine.memory();
    let bound = ((2 + FLOODS + DRIPS) * RECORD_MAX) as u64 + MEMORY_BESIDES;
    expect(memory <= bound, || format!("memory: {memory} bytes, {bound} allowed"))?;
    let (counters, rows) = engine.finish()?;
    if hostile {
        is_count(&counters["malformed"], attack.malformed.len() as u64, "malformed peers")?;
        let overlong = counters["overlong"].as_u64().unwrap_or(0);
        expect(overlong >= FLOODS as u64, || format!("{overlong} over-long records"))?;
    }
    Ok(rows)
}

fn r8(case: Case, attack: &Attack) -> Found {
    let expected: Vec<Value> = (0..HONEST * FLOOD_ROUNDS as u64)
        .map(|number| Value::from(vec![format!("honest {number}")]))
        .collect();
    let calm = honest_output(Case { planted: None, ..case }, attack, false)?;
    expect(calm == expected, || "the honest output alone is not what was sent".to_owned())?;
    let rows = honest_output(case, attack, true)?;
    expect(rows == calm, || "the honest output differs".to_owned())
}

/// A case of each model that this machine has.
fn cases() -> impl Iterator<Item = Case> {
    let offered = |row: &&Row| {
        probe(row.model).inspect_err(|why| eprintln!("{} is not checked: {why}", row.name)).is_ok()
    };
    let case = |row: &'static Row| Case { model: row.name, planted: None, patience: PATIENCE };
    IO_MODELS.iter().filter(offered).map(case)
}

#[test]
fn r7_the_connection_limit_holds_in_a_flood() {
    let _alone = ONE_AT_A_TIME.lock();
    for case in cases() {
        assert_eq!(r7_connection_limit(case), Ok(()), "{}", case.model);
    }
}

#[test]
fn r7_a_flood_with_few_descriptors_harms_nobody() {
    let _alone = ONE_AT_A_TIME.lock();
    for case in cases() {
        assert_eq!(r7_few_descriptors(case), Ok(()), "{}", case.model);
    }
}

#[test]
fn r8_hostile_bytes_take_neither_memory_nor_records() {
    let _alone = ONE_AT_A_TIME.lock();
    for case in cases() {
        assert_eq!(r8(case, &ATTACKS[0]), Ok(()), "{}", case.model);
    }
}

#[test]
fn r8_records_that_never_end_take_no_more_memory_than_they_may() {
    let _alone = ONE_AT_A_TIME.lock();
    for case in cases() {
        assert_eq!(r8_almost_whole(case), Ok(()), "{}", case.model);
    }
}

#[test]
fn r8_hostile_frames_take_neither_memory_nor_records() {
    let _alone = ONE_AT_A_TIME.lock();
    let case = Case { model: "nio", planted: None, patience: PATIENCE };
    for attack in &ATTACKS[1..] {
        assert_eq!(r8(case, attack), Ok(()), "{}", attack.framing);
    }
}

#[cfg(tidemill_planted)]
mod planted {
    //! The negative controls: each defect is found, and found as what it is.

    use super::*;

    /// A defect, in which model it is planted, which row looks for it, and a part of what that must say.
    struct Control(&'static str, &'static str, fn(Case) -> Found, &'static str);

    fn r8_lines(case: Case) -> Found {
        r8(case, &ATTACKS[0])
    }

    fn r8_counted(case: Case) -> Found {
        r8(case, &ATTACKS[1])
    }

    fn check(controls: &[Control]) {
        let _alone = ONE_AT_A_TIME.lock();
        let offered: Vec<&str> = cases().map(|case| case.model).collect();
        for Control(defect, model, row, says) in controls {
            if offered.contains(model) {
                let case = Case { model, planted: Some(defect), patience: SHORT };
                let found = row(case).err().unwrap_or_default();
                assert!(found.contains(says), "{defect} in {model} was taken for: `{found}`");
            }
        }
    }

    #[test]
    fn r7_finds_what_is_planted() {
        let (limit, few) = (r7_connection_limit, r7_few_descriptors);
        check(&[
            Control("ConnectionLimitOff", "nio", limit, "connection limit: 60 were taken"),
            Control("ConnectionLimitOff", "aio", limit, "connection limit: 60 were taken"),
            Control("SeatIsLost", "reactors", limit, "places cannot be had again"),
            Control("DescriptorLeak", "bio", limit, "descriptors and threads"),
            Control("DescriptorLeak", "pool", limit, "descriptors and threads"),
            Control("DescriptorLeak", "nio", few, "descriptors and threads"),
            Control("DescriptorLeak", "aio", limit, "descriptors and threads"),
            Control("ThreadLingers", "bio", limit, "descriptors and threads"),
            Control("RefusedUncounted", "nio", few, "refused"),
            Control("HonestStarved", "nio", limit, "never"),
            Control("HonestStarved", "pool", limit, "never"),
        ]);
    }

    #[test]
    fn r8_finds_what_is_planted() {
        check(&[
            Control("RecordLimitOff", "nio", r8_lines, "memory: "),
            Control("RecordLimitOff", "bio", r8_lines, "memory: "),
            Control("RecordLimitOff", "nio", r8_counted, "memory: "),
            Control("UnfinishedUncounted", "nio", r8_almost_whole, "memory: "),
            Control("UnfinishedUncounted", "bio", r8_almost_whole, "memory: "),
            Control("HonestStarved", "nio", r8_counted, "not read"),
        ]);
    }
}
