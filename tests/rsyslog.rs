//! Acknowledged input against real peers, through kill -9 (R1 of the scorecard): rsyslog feeds numbered lines from a file
//! over RELP, `tidemill` is killed at random moments and started again, and every line is in the output. The same with a
//! sender of our own, which is stricter: it kills right behind an acknowledgement and repeats nothing that was answered.
//!
//! rsyslogd runs privately: its own configuration, pid file and working directory. `TIDEMILL_KILLS` sets how often
//! `tidemill` is killed, `TIDEMILL_SEED` when. Built with `--cfg tidemill_planted`, a `tidemill` that acknowledges before
//! the log has the record must be found out.
//! What a peer sends again is known by its number (`identity`), so that every line is there once.

#![cfg(not(tidemill_model))]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tidemill::sync::Mutex;

/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(60);

/// After so long without a line nothing more comes; more than rsyslog waits before it tries again.
const SILENCE: Duration = Duration::from_secs(20);

/// Frames that rsyslog's sender leaves unanswered at most, by default.
const WINDOW: usize = 128;

/// The tests run one at a time: each keeps the machine busy.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The machine's programs that a test needs; false, and said so, if one is missing.
fn are_there(programs: &[&str], install: &str) -> bool {
    let missing = programs.iter().find(|program| {
        let mut paths = std::env::split_paths("/usr/sbin:/usr/bin:/sbin:/bin");
        !paths.any(|directory| directory.join(program).exists())
    });
    let Some(missing) = missing else { return true };
    assert!(
        std::env::var("TIDEMILL_REQUIRE_PEERS").as_deref() != Ok("1"),
        "{missing} is required and not installed ({install})"
    );
    let _ = writeln!(io::stdout(), "not run: {missing} ({install})");
    false
}

fn number_from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A linear congruential generator: a seed is a run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A child process, killed when the test is over.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Process {
        Process(command.stdin(Stdio::null()).spawn().expect("the program starts"))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a pid");
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.0.wait().expect("it can be waited for");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A place for one run of the checks: a pipeline file, a directory of state, one of output.
struct Bench {
    directory: TempDir,
    address: SocketAddr,
    planted: Option<&'static str>,
}

impl Bench {
    fn new(ack: &str, planted: Option<&'static str>) -> Bench {
        let directory = tempfile::tempdir().expect("a directory");
        // Free a moment ago, and bound again and again by the runs.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let path = directory.path().display();
        let text = format!(
            "name = 'r1'\nbatch_interval = '50ms'\nblock_interval = '10ms'\nstate_dir = '{path}/state'\nhttp = 'off'\n\
             [source.in.socket]\nlisten = '{address}'\nframing = 'relp'\nack = '{ack}'\n\
             identity = '^(?<number>\\d+) (?<sender>a line)'\n\
             [job.all]\nfrom = ['in']\nto = ['files']\nlines = {{}}\n\
             [job.seen]\nfrom = ['in']\nto = ['screen']\nlines = {{}}\n\
             [sink.files.file]\npath = '{path}/out'\nformat = 'text'\n[sink.screen.console]\nformat = 'json'\n"
        );
        fs::write(directory.path().join("pipeline.toml"), text).expect("written");
        Bench { directory, address, planted }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts `tidemill`, and waits until it listens.
    fn start(&self) -> Engine {
        let engine = self.start_only();
        engine.until_said("listening");
        engine
    }

    fn start_only(&self) -> Engine {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg("run").arg(self.path("pipeline.toml")).args(["--log-format", "json"]);
        if let Some(defect) = self.planted {
            command.env("TIDEMILL_PLANTED", defect);
        }
        let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let out = read_lines(process.0.stdout.take().expect("piped"));
        let err = read_lines(process.0.stderr.take().expect("piped"));
        Engine { process, out, err }
    }

    /// How often each number is in the committed output. A line is `N` and anything behind it.
    fn output(&self) -> BTreeMap<u64, u64> {
        let mut numbers = BTreeMap::new();
        let files = fs::read_dir(self.path("out")).into_iter().flatten();
        let paths = files.map(|file| file.expect("listed").path());
        let committed = |path: &PathBuf| {
            !path.file_name().and_then(|name| name.to_str()).expect("text").starts_with('.')
        };
        for path in paths.filter(committed) {
            for line in BufReader::new(File::open(path).expect("there")).split(b'\n') {
                let line = String::from_utf8(line.expect("read")).expect("text");
                *numbers.entry(number_of(&line).expect("a numbered line")).or_default() += 1;
            }
        }
        numbers
    }
}

/// A running `tidemill`.
struct Engine {
    process: Process,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Engine {
    /// Waits until it says that this happened.
    fn until_said(&self, event: &str) {
        let mut said = Vec::new();
        loop {
            match self.err.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let value: Value = serde_json::from_str(&line).unwrap_or_default();
                    if value["event"] == event {
                        return;
                    }
                    said.push(line);
                }
                Err(err) => panic!("it did not say `{event}` ({err}):\n{}", said.join("\n")),
            }
        }
    }

    /// Waits for an event, or for so long; whichever comes first.
    fn wait(&self, event: &str, most: Duration) {
        while let Ok(line) = self.err.recv_timeout(most) {
            let value: Value = serde_json::from_str(&line).unwrap_or_default();
            if value["event"] == event {
                return;
            }
        }
    }

    /// Takes what it had printed when it was killed out of `unseen`.
    fn see(&self, unseen: &mut BTreeSet<u64>) {
        self.out.iter().for_each(|line| take_seen(&line, unseen));
    }

    /// Waits until it has printed all that is unseen, or nothing more for a long time.
    fn see_all(&self, unseen: &mut BTreeSet<u64>) {
        while let Some(line) = (!unseen.is_empty()).then(|| self.out.recv_timeout(SILENCE)) {
            match line {
                Ok(line) => take_seen(&line, unseen),
                Err(_) => return,
            }
        }
    }

    /// Stops it in order.
    fn stop(self) {
        self.process.signal(Signal::TERM);
        self.until_stopped();
    }

    /// Waits for the end of an orderly stop.
    fn until_stopped(mut self) {
        let status = self.process.0.wait().expect("it can be waited for");
        let said: Vec<String> = self.err.try_iter().collect();
        assert!(status.success(), "{status}:\n{}", said.join("\n"));
    }
}

/// Takes the numbers of the lines of a batch out of `unseen`.
fn take_seen(batch: &str, unseen: &mut BTreeSet<u64>) {
    let batch: Value = serde_json::from_str(batch).unwrap_or_default();
    for row in batch["rows"].as_array().into_iter().flatten() {
        if let Some(number) = row[0].as_str().and_then(number_of) {
            unseen.remove(&number);
        }
    }
}

/// The number that a line begins with.
fn number_of(line: &str) -> Option<u64> {
    line.trim_start().split(' ').next()?.parse().ok()
}

fn read_lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// A sender of RELP as it should be: it keeps what is not answered, in order, and sends it again on the next connection.
struct Sender {
    unanswered: VecDeque<u64>,
    next: u64,
    answered: u64,
}

/// Its connection.
struct Link {
    stream: TcpStream,
    /// Transaction numbers of the unanswered, in order.
    txnr: u32,
    received: Vec<u8>,
}

impl Sender {
    fn new() -> Sender {
        Sender { unanswered: VecDeque::new(), next: 0, answered: 0 }
    }

    /// Connects, makes its offers and sends what was not answered before.
    fn connect(&mut self, address: SocketAddr) -> std::io::Result<Link> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut link = Link { stream, txnr: 1, received: Vec::new() };
        link.stream.write_all(b"1 open 30 relp_version=0\ncommands=syslog\n")?;
        let answer = link.answer()?.ok_or(ErrorKind::UnexpectedEof)?;
        assert!(answer.starts_with("1 rsp "), "{answer}");
        let again: Vec<u64> = self.unanswered.iter().copied().collect();
        link.send(&again)?;
        Ok(link)
    }

    /// Fills the window.
    fn fill(&mut self, link: &mut Link, end: u64) -> std::io::Result<()> {
        let room = (WINDOW - self.unanswered.len()) as u64;
        let fresh: Vec<u64> = (self.next..end.min(self.next + room)).collect();
        self.next += fresh.len() as u64;
        self.unanswered.extend(&fresh);
        link.send(&fresh)
    }

    /// Takes one answer; false at the end of the connection.
    fn take_answer(&mut self, link: &mut Link) -> std::io::Result<bool> {
        let Some(answer) = link.answer()? else { return Ok(false) };
        if answer.starts_with("0 serverclose") {
            return Ok(true);
        }
        let expected = link.txnr - u32::try_from(self.unanswered.len()).expect("few") + 1;
        assert_eq!(answer, format!("{expected} rsp 6 200 OK"), "answers come in order");
        self.unanswered.pop_front().expect("an answer to something");
        self.answered += 1;
        Ok(true)
    }
}

impl Link {
    fn send(&mut self, numbers: &[u64]) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        for number in numbers {
            self.txnr += 1;
            let record = format!("{number} a line of the file that is fed");
            bytes.extend(format!("{} syslog {} {record}\n", self.txnr, record.len()).bytes());
        }
        self.stream.write_all(&bytes)
    }

    /// The next line of the answers; the one to the offers has more behind it, which is passed over.
    fn answer(&mut self) -> std::io::Result<Option<String>> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).take(end).collect();
                let line = String::from_utf8(line).expect("text");
                if line.split(' ').nth(1).is_some_and(|word| word == "rsp" || word == "serverclose")
                {
                    return Ok(Some(line));
                }
                continue;
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece)? {
                0 => return Ok(None),
                len => self.received.extend_from_slice(&piece[..len]),
            }
        }
    }
}

/// Kills `tidemill` so often, each time right behind an answer, and starts it again. Returns how many lines were sent and
/// which of those that were answered are missing in the output.
fn kills_behind_answers(bench: &Bench, kills: u64, seed: u64) -> (u64, Vec<u64>) {
    let (mut random, mut sender) = (Random(seed), Sender::new());
    for _ in 0..kills {
        let mut engine = bench.start();
        let mut link = sender.connect(bench.address).expect("it listens");
        let until = sender.answered + 1 + random.below(3_000);
        while sender.answered < until {
            sender.fill(&mut link, u64::MAX).expect("it reads");
            assert!(sender.take_answer(&mut link).expect("it answers"), "it closed");
        }
        engine.process.kill();
        // What was on its way is an answer all the same.
        while matches!(sender.take_answer(&mut link), Ok(true)) {}
    }
    let engine = bench.start();
    let mut link = sender.connect(bench.address).expect("it listens");
    let end = sender.next;
    while !sender.unanswered.is_empty() {
        assert!(sender.take_answer(&mut link).expect("it answers"), "it closed");
    }
    drop(link);
    engine.stop();
    let output = bench.output();
    (end, (0..end).filter(|number| !output.contains_key(number)).collect())
}

#[test]
fn nothing_that_was_answered_is_lost_by_kills() {
    let _one = ONE_AT_A_TIME.lock();
    let bench = Bench::new("log", None);
    let (kills, seed) =
        (number_from_env("TIDEMILL_KILLS", 30), number_from_env("TIDEMILL_SEED", 1));
    let (sent, lost) = kills_behind_answers(&bench, kills, seed);
    let written: u64 = bench.output().values().sum();
    println!(
        "{kills} kills, seed {seed}: {sent} lines, {} lost, {} repeated",
        lost.len(),
        written - sent
    );
    assert_eq!(lost, Vec::<u64>::new(), "seed {seed}");
    // Lines that were sent again, because no answer to them came, are known by their numbers.
    assert_eq!(written, sent, "seed {seed}");
}

#[test]
fn a_batch_that_is_committed_is_what_is_answered() {
    let _one = ONE_AT_A_TIME.lock();
    let bench = Bench::new("batch", None);
    let (_, lost) = kills_behind_answers(&bench, 5, number_from_env("TIDEMILL_SEED", 1));
    assert_eq!(lost, Vec::<u64>::new());
}

#[cfg(tidemill_planted)]
#[test]
fn a_program_that_answers_before_the_log_has_it_is_found_out() {
    let _one = ONE_AT_A_TIME.lock();
    let bench = Bench::new("log", Some("AcknowledgesBeforeLog"));
    let (_, lost) = kills_behind_answers(&bench, 30, number_from_env("TIDEMILL_SEED", 1));
    assert_ne!(lost, Vec::<u64>::new(), "the planted defect was not found");
}

/// A stop answers what became durable, and says that it closes.
#[test]
fn a_stop_answers_what_it_read_and_says_goodbye() {
    let _one = ONE_AT_A_TIME.lock();
    for ack in ["received", "log", "batch"] {
        let bench = Bench::new(ack, None);
        let engine = bench.start();
        let mut sender = Sender::new();
        let mut link = sender.connect(bench.address).expect("it listens");
        for _ in 0..20 {
            sender.fill(&mut link, u64::MAX).expect("it reads");
            assert!(sender.take_answer(&mut link).expect("it answers"), "it closed");
        }
        engine.process.signal(Signal::TERM);
        let mut goodbye = false;
        while let Ok(Some(answer)) = link.answer() {
            goodbye = answer.starts_with("0 serverclose");
            sender.answered += u64::from(!goodbye);
        }
        assert!(goodbye, "{ack}: the last word is a goodbye");
        engine.until_stopped();
        let output = bench.output();
        for number in 0..sender.answered {
            assert_eq!(output.get(&number), Some(&1), "{ack}: line {number}");
        }
        // What was read before the stop is answered: all that is in the output.
        assert_eq!(output.len() as u64, sender.answered, "{ack}");
    }
}

#[test]
fn an_over_long_record_is_put_aside_whole_and_answered() {
    let _one = ONE_AT_A_TIME.lock();
    let directory = tempfile::tempdir().expect("a directory");
    let aside = format!("source.in.dead_letter={}", directory.path().join("dead").display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args([
        "run",
        "--from",
        "tcp-listen://127.0.0.1:0",
        "--framing",
        "relp",
        "--job",
        "lines",
    ]);
    command.args(["--set", "source.in.ack=received", "--set", &aside, "--every", "50ms"]);
    command.args(["--set", "source.in.record_bytes_max=64B", "--to", "json", "--http", "off"]);
    let mut process = Process::start(
        command.arg("--log-format").arg("json").stdout(Stdio::piped()).stderr(Stdio::piped()),
    );
    let out = read_lines(process.0.stdout.take().expect("piped"));
    let err = read_lines(process.0.stderr.take().expect("piped"));
    let address = listening(&err);
    let mut link = Sender::new().connect(address).expect("it listens");
    let long = "x".repeat(200_000);
    let frame = format!("2 syslog {} {long}\n", long.len());
    link.stream.write_all(format!("{frame}3 syslog 5 short\n").as_bytes()).expect("it reads");
    for expected in ["2 rsp 6 200 OK", "3 rsp 6 200 OK"] {
        assert_eq!(link.answer().expect("answered").as_deref(), Some(expected));
    }
    let kept = fs::read(directory.path().join("dead/in-0.records")).expect("it is there, durable");
    assert!(kept == frame.as_bytes(), "it is the frame as it was sent");
    let rows = loop {
        let batch: Value =
            serde_json::from_str(&out.recv_timeout(PATIENCE).expect("a batch")).expect("JSON");
        if batch["records"] != 0 {
            break batch["rows"].clone();
        }
    };
    assert_eq!(rows, serde_json::json!([["short"]]));
}

/// Where a program says that it listens.
fn listening(err: &Receiver<String>) -> SocketAddr {
    loop {
        let line = err.recv_timeout(PATIENCE).expect("it says where it listens");
        let said: Value = serde_json::from_str(&line).unwrap_or_default();
        if said["event"] == "listening" {
            break said["address"].as_str().and_then(|it| it.parse().ok()).expect("an address");
        }
    }
}

/// A private rsyslogd that follows a file and sends its lines.
fn rsyslog(bench: &Bench) -> Process {
    let directory = bench.path("rsyslog");
    fs::create_dir_all(&directory).expect("a directory");
    let (path, work) = (bench.path("in.log"), directory.display());
    let text = format!(
        "global(workDirectory=\"{work}\" maxMessageSize=\"8k\")\n\
         module(load=\"imfile\")\nmodule(load=\"omrelp\")\n\
         template(name=\"raw\" type=\"string\" string=\"%msg%\")\n\
         input(type=\"imfile\" File=\"{}\" Tag=\"fed\" ruleset=\"out\")\n\
         ruleset(name=\"out\") {{\n\
         action(type=\"omrelp\" target=\"127.0.0.1\" port=\"{}\" template=\"raw\" timeout=\"10\"\n\
         action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\")\n}}\n",
        path.display(),
        bench.address.port()
    );
    let config = directory.join("rsyslog.conf");
    fs::write(&config, text).expect("written");
    let log = File::create(directory.join("said")).expect("a file");
    let mut command = Command::new("rsyslogd");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.arg("-n").arg("-f").arg(&config).arg("-i").arg(directory.join("pid"));
    Process::start(command.stdout(log.try_clone().expect("a descriptor")).stderr(log))
}

fn append_lines(path: &Path, numbers: std::ops::Range<u64>) {
    let text: String =
        numbers.map(|number| format!("{number} a line of the file that is fed\n")).collect();
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    file.write_all(text.as_bytes()).expect("written");
}

/// Lines that are appended before each kill.
const LINES_PER_KILL: u64 = 2_000;

#[test]
fn rsyslog_feeds_through_kills_and_no_line_is_lost() {
    if !are_there(&["rsyslogd"], "apt install rsyslog rsyslog-relp") {
        return;
    }
    let _one = ONE_AT_A_TIME.lock();
    let (kills, seed) =
        (number_from_env("TIDEMILL_KILLS", 50), number_from_env("TIDEMILL_SEED", 1));
    let (bench, mut random) = (Bench::new("log", None), Random(seed));
    let input = bench.path("in.log");
    append_lines(&input, 0..1);
    let mut unseen = BTreeSet::from([0]);
    let rsyslog = rsyslog(&bench);
    let mut end = 1;
    for _ in 0..kills {
        append_lines(&input, end..end + LINES_PER_KILL);
        end += LINES_PER_KILL;
        let mut engine = bench.start_only();
        // One of five dies while it starts; the others some time after rsyslog is back.
        if random.below(5) > 0 {
            engine.until_said("connected");
        }
        engine.wait("nothing", Duration::from_millis(random.below(120)));
        engine.process.kill();
        unseen.extend(end - LINES_PER_KILL..end);
        engine.see(&mut unseen);
    }
    append_lines(&input, end..end + LINES_PER_KILL);
    unseen.extend(end..end + LINES_PER_KILL);
    end += LINES_PER_KILL;
    // What was written is not always printed before a kill.
    bench.output().keys().for_each(|number| {
        unseen.remove(number);
    });
    let engine = bench.start();
    // rsyslog may send with several workers, so no line is the last one.
    engine.see_all(&mut unseen);
    engine.stop();
    drop(rsyslog);
    let output = bench.output();
    let lost: Vec<u64> = (0..end).filter(|number| !output.contains_key(number)).collect();
    let repeated = output.values().filter(|times| **times > 1).count();
    println!("{kills} kills, seed {seed}: {end} lines, {} lost, {repeated} repeated", lost.len());
    assert_eq!(lost, Vec::<u64>::new(), "seed {seed}");
    // Lines that were on their way when the link broke come twice, and are known by their numbers.
    assert_eq!(repeated, 0, "seed {seed}");
}

/// What `tidemill` prints of the lines that these commands send, in the framing `syslog`.
fn check_syslog(command: &mut Command, fed: &str, expected: &[&str]) {
    let mut tidemill = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    tidemill.args([
        "run",
        "--from",
        "tcp-listen://127.0.0.1:0",
        "--framing",
        "syslog",
        "--job",
        "lines",
    ]);
    tidemill.args(["--every", "50ms", "--to", "json", "--log-format", "json", "--http", "off"]);
    let mut process = Process::start(tidemill.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let out = read_lines(process.0.stdout.take().expect("piped"));
    let err = read_lines(process.0.stderr.take().expect("piped"));
    let port = listening(&err).port().to_string();
    let mut sender = command.arg(&port).stdin(Stdio::piped()).spawn().expect("it starts");
    sender.stdin.take().expect("piped").write_all(fed.as_bytes()).expect("it reads");
    assert!(sender.wait().expect("it ends").success());
    let mut got = Vec::new();
    while got.len() < expected.len() {
        match out.recv_timeout(PATIENCE) {
            Ok(line) => {
                let batch: Value = serde_json::from_str(&line).expect("JSON");
                let rows = batch["rows"].as_array().expect("rows").clone();
                got.extend(rows.iter().map(|row| row[0].as_str().expect("text").to_owned()));
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    assert_eq!(got.len(), expected.len(), "{got:?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with('<') && got.ends_with(expected), "{got}");
    }
}

#[test]
fn logger_and_nc_send_syslog() {
    if !are_there(&["logger", "nc"], "apt install bsdutils netcat-openbsd") {
        return;
    }
    let mut counted = Command::new("logger");
    counted.args(["-T", "--octet-count", "-n", "127.0.0.1", "-P"]);
    check_syslog(&mut counted, "one\ntwo words\n", &["one", "two words"]);
    let mut nc = Command::new("nc");
    nc.args(["-N", "127.0.0.1"]);
    check_syslog(&mut nc, "<13>a: one\n<13>a: two words\n", &["one", "two words"]);
}
