//! Durability through kill -9 of the real program. `tidemill` is killed at moments that a seed chooses and started again on
//! the same `state_dir`. The output is exactly that of one run without a kill over the same batches: each record once, each
//! window with the records of its batches.
//!
//! The input is numbered. It comes over RELP from a sender of our own, which is stricter than real ones: it kills right
//! after an acknowledgement, and repeats nothing that was answered. Or it lies in files. `TIDEMILL_KILLS` sets the number
//! of kills, `TIDEMILL_SEED` their moments. Built with `--cfg tidemill_planted`, the tests must find a `tidemill` that
//! acknowledges before the log has the record, one that forgets records without a batch, and one whose checkpoints cover
//! too much.

#![cfg(not(tidemill_model))]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

mod program;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tidemill::internals::sync::Mutex;

use program::pipeline::Pipeline;
use program::{Program, Random, WATCHDOG, number_from_env};

/// The most frames that the sender leaves unanswered; rsyslog's default.
const WINDOW: usize = 128;

/// The tests run one at a time: each keeps the machine busy.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// All received records.
const ALL: &str = "[job.all]\nfrom = ['in']\nto = ['files']\nlines = {}\n";

/// And their words, in one batch and in several.
const WINDOWS: &str = "[job.words]\nfrom = ['in']\nto = ['files']\nwordcount = {}\n\
    [job.window]\nfrom = ['in']\nto = ['files']\nwordcount = {}\nwindow = '200ms'\nslide = '50ms'\n\
    [job.slid]\nfrom = ['in']\nto = ['files']\ncount = {}\nwindow = '300ms'\nslide = '100ms'\n";

/// A line of this job, printed after the others, shows that a batch is committed.
const SEEN: &str = "[job.seen]\nfrom = ['in']\nto = ['screen']\ncount = {}\n[sink.screen.console]\nformat = 'json'\n";

/// The record with this number.
fn record(number: u64) -> String {
    format!("{number} a line of the file number {} that is fed", number % 7)
}

/// A correct RELP sender: it keeps every unanswered frame, in order, and sends it again on the next connection.
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

    /// Connects, makes its offers and sends every frame that was not answered before.
    fn connect(&mut self, address: SocketAddr) -> io::Result<Link> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(WATCHDOG))?;
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
    fn fill(&mut self, link: &mut Link, end: u64) -> io::Result<()> {
        let room = (WINDOW - self.unanswered.len()) as u64;
        let fresh: Vec<u64> = (self.next..end.min(self.next + room)).collect();
        self.next += fresh.len() as u64;
        self.unanswered.extend(&fresh);
        link.send(&fresh)
    }

    /// Sends until this many more records are answered.
    fn send(&mut self, link: &mut Link, records: u64) {
        let until = self.answered + records;
        while self.answered < until {
            self.fill(link, until).expect("it reads");
            assert!(self.take_answer(link).expect("it answers"), "it closed");
        }
    }

    /// Takes one answer; false at the end of the connection.
    fn take_answer(&mut self, link: &mut Link) -> io::Result<bool> {
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
    fn send(&mut self, numbers: &[u64]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for number in numbers {
            self.txnr += 1;
            let record = record(*number);
            bytes.extend(format!("{} syslog {} {record}\n", self.txnr, record.len()).bytes());
        }
        self.stream.write_all(&bytes)
    }

    /// The next line of the answers. The answer to the offers has more lines, which are skipped.
    fn answer(&mut self) -> io::Result<Option<String>> {
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

/// Kills `tidemill` this many times, each time right after an answer, and starts it again. Returns the number of sent
/// lines, and the answered ones that are missing in the output.
fn kills_behind_answers(pipeline: &Pipeline, kills: u64, seed: u64) -> (u64, Vec<u64>) {
    let (mut random, mut sender) = (Random(seed), Sender::new());
    for _ in 0..kills {
        let mut run = pipeline.start();
        let mut link = sender.connect(pipeline.address).expect("it listens");
        let until = sender.answered + 1 + random.below(3_000);
        while sender.answered < until {
            sender.fill(&mut link, u64::MAX).expect("it reads");
            assert!(sender.take_answer(&mut link).expect("it answers"), "it closed");
        }
        run.process.kill();
        // Answers that were on their way count all the same.
        while matches!(sender.take_answer(&mut link), Ok(true)) {}
    }
    let run = pipeline.start();
    let mut link = sender.connect(pipeline.address).expect("it listens");
    let end = sender.next;
    while !sender.unanswered.is_empty() {
        assert!(sender.take_answer(&mut link).expect("it answers"), "it closed");
    }
    drop(link);
    run.stop();
    let output = pipeline.numbers("all");
    (end, (0..end).filter(|number| !output.contains_key(number)).collect())
}

#[test]
fn nothing_that_was_answered_is_lost_by_kills() {
    let _one = ONE_AT_A_TIME.lock();
    let pipeline = Pipeline::relp("log", ALL);
    let (kills, seed) =
        (number_from_env("TIDEMILL_KILLS", 30), number_from_env("TIDEMILL_SEED", 1));
    let (sent, lost) = kills_behind_answers(&pipeline, kills, seed);
    let written: u64 = pipeline.numbers("all").values().sum();
    println!(
        "{kills} kills, seed {seed}: {sent} lines, {} lost, {} repeated",
        lost.len(),
        written - sent
    );
    assert_eq!(lost, Vec::<u64>::new(), "seed {seed}");
    // Lines that were repeated because their answer did not arrive are recognised by their numbers.
    assert_eq!(written, sent, "seed {seed}");
}

/// With `ack = "batch"` an answered record needs no recovery: it is in the output when the process dies.
#[test]
fn a_batch_that_is_committed_is_what_is_answered() {
    let _one = ONE_AT_A_TIME.lock();
    let (pipeline, seed) =
        (Pipeline::relp("batch", &format!("{ALL}{SEEN}")), number_from_env("TIDEMILL_SEED", 1));
    let (mut random, mut sender) = (Random(seed), Sender::new());
    for _ in 0..5 {
        live_and_die(&pipeline, &mut random, &mut sender);
        let numbers = pipeline.numbers("all");
        let answered = |number: &u64| *number < sender.answered;
        let once: BTreeMap<u64, u64> = (0..sender.answered).map(|number| (number, 1)).collect();
        let found = numbers.into_iter().filter(|(number, _)| answered(number)).collect();
        assert!(found == once, "seed {seed}: {}", difference(&found, &once));
    }
    end_in_peace(&pipeline, &mut sender);
    check_once(&pipeline, sender.next, seed);
}

/// One answers before the log has the record, one forgets records without a batch.
#[cfg(tidemill_planted)]
#[test]
fn programs_that_lose_what_they_answered_are_found_out() {
    let _one = ONE_AT_A_TIME.lock();
    for defect in ["AcknowledgesBeforeLog", "ForgetsUnplanned"] {
        let pipeline = Pipeline::relp("log", ALL).planted(defect);
        let (_, lost) = kills_behind_answers(&pipeline, 30, number_from_env("TIDEMILL_SEED", 1));
        assert_ne!(lost, Vec::<u64>::new(), "the planted defect {defect} was not found");
    }
}

/// A job that needs more time for a batch than there is between two, so that one is always running.
const SLOW: &str = "[job.a]\nfrom = ['in']\nto = ['files']\n\
    grep = { pattern = '(?:\\w{1,9}\\W+){5,12}\\w*[aeiou]\\w*[A-Z]' }\n";

/// Kills `tidemill` at its first checkpoint: the running batch is not done, and so is not covered.
fn dies_at_its_checkpoint(pipeline: &Pipeline, sender: &mut Sender) {
    use rustix::fs::inotify;
    use rustix::process::{Pid, kill_process};
    fs::create_dir_all(pipeline.path("state")).expect("a directory");
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).expect("a descriptor");
    inotify::add_watch(&watch, pipeline.path("state"), inotify::WatchFlags::MOVED_TO)
        .expect("it is watched");
    let mut run = pipeline.start();
    let process = Pid::from_child(&run.process.0);
    let killer = std::thread::spawn(move || {
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        let is_checkpoint = |event: inotify::Event<'_>| {
            event.file_name().is_some_and(|name| name.to_bytes().ends_with(b".ckpt"))
        };
        while !is_checkpoint(events.next().expect("something happens")) {}
        let _ = kill_process(process, Signal::KILL);
    });
    let mut link = sender.connect(pipeline.address).expect("it listens");
    while sender.fill(&mut link, u64::MAX).is_ok()
        && matches!(sender.take_answer(&mut link), Ok(true))
    {}
    killer.join().expect("it was killed");
    run.process.kill();
}

/// Number of answered lines that are missing in the output after kills at checkpoints. No state is kept between batches, so
/// that a checkpoint covers every batch that is done.
fn lost_at_checkpoints(pipeline: &Pipeline) -> usize {
    let mut sender = Sender::new();
    for _ in 0..2 {
        dies_at_its_checkpoint(pipeline, &mut sender);
    }
    let run = pipeline.start_with(&["--set", "stop_deadline=60s"]);
    run.event("listening");
    run.stop();
    let output = pipeline.numbers("all");
    (0..sender.answered).filter(|number| !output.contains_key(number)).count()
}

#[test]
fn nothing_that_was_answered_is_lost_by_a_kill_at_a_checkpoint() {
    let _one = ONE_AT_A_TIME.lock();
    let pipeline = Pipeline::relp("log", &format!("{SLOW}{ALL}")).without_identity();
    assert_eq!(lost_at_checkpoints(&pipeline), 0);
}

#[cfg(tidemill_planted)]
#[test]
fn a_program_whose_checkpoints_cover_too_much_is_found_out() {
    let _one = ONE_AT_A_TIME.lock();
    let pipeline = Pipeline::relp("log", &format!("{SLOW}{ALL}")).without_identity();
    assert_ne!(lost_at_checkpoints(&pipeline.planted("CoversTooMuch")), 0, "it was not found");
}

/// A stop answers every durable record, and announces that it closes.
#[test]
fn a_stop_answers_what_it_read_and_says_goodbye() {
    let _one = ONE_AT_A_TIME.lock();
    for ack in ["received", "log", "batch"] {
        let pipeline = Pipeline::relp(ack, ALL);
        let run = pipeline.start();
        let mut sender = Sender::new();
        let mut link = sender.connect(pipeline.address).expect("it listens");
        for _ in 0..20 {
            sender.fill(&mut link, u64::MAX).expect("it reads");
            assert!(sender.take_answer(&mut link).expect("it answers"), "it closed");
        }
        run.signal(Signal::TERM);
        let mut goodbye = false;
        while let Ok(Some(answer)) = link.answer() {
            goodbye = answer.starts_with("0 serverclose");
            sender.answered += u64::from(!goodbye);
        }
        assert!(goodbye, "{ack}: the last word is a goodbye");
        run.until_stopped();
        let output = pipeline.numbers("all");
        for number in 0..sender.answered {
            assert_eq!(output.get(&number), Some(&1), "{ack}: line {number}");
        }
        // Records that were read before the stop are answered: everything in the output.
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
    let run = Program::of(command.args(["--log-format", "json"]));
    let address = run.listening();
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
            serde_json::from_str(&run.out.recv_timeout(WATCHDOG).expect("a batch")).expect("JSON");
        if batch["records"] != 0 {
            break batch["rows"].clone();
        }
    };
    assert_eq!(rows, serde_json::json!([["short"]]));
}

/// Starts `tidemill` and kills it at a moment that `random` chooses; `sender` continues meanwhile. Records received by then
/// may be in no batch, in a running one, or in a committed one.
fn live_and_die(pipeline: &Pipeline, random: &mut Random, sender: &mut Sender) {
    let mut run = pipeline.start_only();
    let moment = random.below(8);
    if moment == 0 {
        // During the start: after one of its first lines, or before.
        (0..random.below(3)).for_each(|_| drop(run.err.recv_timeout(WATCHDOG)));
        return run.process.kill();
    }
    run.event("listening");
    let mut link = sender.connect(pipeline.address).expect("it listens");
    // Several batches with some records each; a batch prints a line once its other outputs are written.
    for _ in 0..2 + random.below(6) {
        next_batch(&run);
        sender.send(&mut link, 1 + random.below(80));
    }
    match moment {
        // In the middle of a stop: it has announced that it reads no more, and the last batch is before it.
        1 => {
            run.signal(Signal::TERM);
            while let Ok(Some(answer)) = link.answer() {
                if answer.starts_with("0 serverclose") {
                    break;
                }
                sender.unanswered.pop_front().expect("an answer to something");
                sender.answered += 1;
            }
        }
        // After the output of a batch, while its end is on the way to the log.
        2 | 3 => next_batch(&run),
        // After an answer.
        _ => sender.send(&mut link, 1 + random.below(300)),
    }
    run.process.kill();
    // Answers that were on their way count all the same.
    while matches!(sender.take_answer(&mut link), Ok(true)) {}
}

/// Waits until one more batch has printed its line.
fn next_batch(run: &Program) {
    while run.out.try_recv().is_ok() {}
    run.out.recv_timeout(WATCHDOG).expect("batches go on");
}

/// `tidemill inspect` accepts the directory between a kill and the next start.
fn inspect(pipeline: &Pipeline) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let output = command.arg("inspect").arg(pipeline.path("state")).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&said));
}

/// The errors in the output of the windows: each must be the result of its batches' records, as they were written.
fn wrong_windows(pipeline: &Pipeline) -> Vec<String> {
    let all = pipeline.batches("all");
    let within = |time: u64, length: u64| {
        let from = time.saturating_sub(length) + 1;
        all.range(from..=time).flat_map(|(_, lines)| lines)
    };
    let words = |time: u64, length: u64| {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        within(time, length)
            .flat_map(|line| line.split_ascii_whitespace())
            .for_each(|word| *counts.entry(word).or_default() += 1);
        let mut rows: Vec<(&str, u64)> = counts.into_iter().collect();
        rows.sort_by_key(|(word, count)| (std::cmp::Reverse(*count), *word));
        rows.iter().map(|(word, count)| format!("({word},{count})")).collect::<Vec<_>>()
    };
    let mut wrong = Vec::new();
    for (job, length) in [("words", 1), ("window", 200)] {
        let found = pipeline.batches(job);
        // Every batch with records has a window.
        let times = all.keys().chain(found.keys());
        let differs =
            |time: &&u64| found.get(*time).unwrap_or(&Vec::new()) != &words(**time, length);
        wrong.extend(times.filter(differs).map(|time| format!("{job} at {time}")));
    }
    for (time, found) in pipeline.batches("slid") {
        let expected = within(time, 300).count();
        if found != [expected.to_string()] {
            wrong.push(format!("slid at {time}: {found:?}, expected {expected}"));
        }
    }
    wrong
}

#[test]
fn windows_are_after_kills_what_they_are_without() {
    let _one = ONE_AT_A_TIME.lock();
    let (kills, seed) =
        (number_from_env("TIDEMILL_KILLS", 15), number_from_env("TIDEMILL_SEED", 1));
    let pipeline = Pipeline::relp("log", &format!("{ALL}{WINDOWS}{SEEN}"));
    let (mut random, mut sender) = (Random(seed), Sender::new());
    for life in 0..kills {
        live_and_die(&pipeline, &mut random, &mut sender);
        // It takes a while to search the log.
        if life % 5 == 0 {
            inspect(&pipeline);
        }
    }
    end_in_peace(&pipeline, &mut sender);
    inspect(&pipeline);
    let batches = pipeline.batches("all").len();
    println!("{kills} kills, seed {seed}: {} lines in {batches} batches", sender.next);
    check_once(&pipeline, sender.next, seed);
    assert_eq!(wrong_windows(&pipeline), Vec::<String>::new(), "seed {seed}");
}

#[test]
fn files_are_read_once_through_kills() {
    let _one = ONE_AT_A_TIME.lock();
    let (kills, seed) =
        (number_from_env("TIDEMILL_KILLS", 10), number_from_env("TIDEMILL_SEED", 1));
    let pipeline = Pipeline::files(&format!("{ALL}{WINDOWS}{SEEN}"));
    let (mut random, mut end) = (Random(seed), 0);
    let mut append = |random: &mut Random| {
        let numbers = end..end + 1 + random.below(200);
        let path = pipeline.path("in").join(random.below(3).to_string());
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
        let lines: String = numbers.clone().map(|number| record(number) + "\n").collect();
        file.write_all(lines.as_bytes()).expect("written");
        end = numbers.end;
    };
    for _ in 0..kills {
        append(&mut random);
        let mut run = pipeline.start_only();
        for _ in 0..random.below(5) {
            next_batch(&run);
            append(&mut random);
        }
        run.process.kill();
    }
    // The run ends at the end of the existing files.
    pipeline.start_with(&["--until-eof"]).until_stopped();
    inspect(&pipeline);
    let batches = pipeline.batches("all").len();
    println!("{kills} kills, seed {seed}: {end} lines in {batches} batches");
    check_once(&pipeline, end, seed);
    assert_eq!(wrong_windows(&pipeline), Vec::<String>::new(), "seed {seed}");
}

/// A last run, in which every sent record is answered, and which stops in order.
fn end_in_peace(pipeline: &Pipeline, sender: &mut Sender) {
    let run = pipeline.start();
    let mut link = sender.connect(pipeline.address).expect("it listens");
    while !sender.unanswered.is_empty() {
        assert!(sender.take_answer(&mut link).expect("it answers"), "it closed");
    }
    drop(link);
    run.stop();
}

/// Every number below `end` is in the output once, and no other.
fn check_once(pipeline: &Pipeline, end: u64, seed: u64) {
    let numbers = pipeline.numbers("all");
    let once: BTreeMap<u64, u64> = (0..end).map(|number| (number, 1)).collect();
    assert!(numbers == once, "seed {seed}: {}", difference(&numbers, &once));
}

/// The numbers whose counts differ.
fn difference(found: &BTreeMap<u64, u64>, expected: &BTreeMap<u64, u64>) -> String {
    let numbers = found.keys().chain(expected.keys());
    let differ = numbers.filter(|number| found.get(number) != expected.get(number));
    let of = |number: &u64| (*number, found.get(number).copied().unwrap_or(0));
    format!("(number, times): {:?}", differ.map(of).take(20).collect::<Vec<_>>())
}
