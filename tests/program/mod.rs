//! Programs as child processes of a test: killed when the test is over, their output read line by line, no endless wait.
//! Used by the tests that run `tidemill` as people do; it does not know the subjects of these tests.

#![allow(dead_code, reason = "each of the tests that share this uses a part of it")]

pub mod disk;
pub mod http;
pub mod peers;
pub mod pipeline;

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT};
use tidemill::time::{Clock, SystemClock};

/// The longest silence of a program before it counts as hung.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// A child process, killed when the test is over.
pub struct Process(pub Child);

impl Process {
    pub fn start(command: &mut Command) -> Process {
        let_signals_through();
        Process(command.stdin(Stdio::null()).spawn().expect("the program starts"))
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.0), signal);
    }

    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        self.0.wait().expect("it can be waited for");
    }
}

/// Under `nohup` this process ignores SIGHUP, and in the background of a shell script SIGINT; so would every program that
/// it starts. A signal with a handler is back at its default in a started program.
fn let_signals_through() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        for signal in [SIGHUP, SIGINT] {
            if mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1) {
                // The handler has the same effect as ignoring.
                signal_hook::flag::register(signal, Arc::default()).expect("a handler");
            }
        }
    });
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A running `tidemill`.
pub struct Program {
    pub process: Process,
    pub out: Receiver<String>,
    pub err: Receiver<String>,
}

impl Program {
    /// `tidemill` with these arguments.
    pub fn start(args: &[&str]) -> Program {
        Program::of(Command::new(env!("CARGO_BIN_EXE_tidemill")).args(args))
    }

    /// A command whose standard output and standard error are read.
    pub fn of(command: &mut Command) -> Program {
        let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let out = read_lines(process.0.stdout.take().expect("piped"));
        let err = read_lines(process.0.stderr.take().expect("piped"));
        Program { process, out, err }
    }

    /// The next line on standard error that holds `words`.
    pub fn wait_for(&self, words: &str) -> String {
        self.find(words, |line| line.contains(words).then(|| line.to_owned()))
    }

    /// The result of `find` for the first matching line on standard error. A program that continues to print other lines
    /// counts as hung, just as a silent one does.
    fn find<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let (clock, mut seen) = (SystemClock::new(), Vec::new());
        let until = clock.now().plus(WATCHDOG);
        while let Ok(line) = self.err.recv_timeout(until.since(clock.now())) {
            if let Some(found) = find(&line) {
                return found;
            }
            seen.push(line);
        }
        panic!("nothing of `{what}` in:\n{}", seen.join("\n"));
    }

    /// The address after `words` on standard error.
    pub fn address_after(&self, words: &str) -> SocketAddr {
        address_in(&self.wait_for(words))
    }

    /// The same, and the lines up to it.
    pub fn address_and_lines(&self, words: &str) -> (SocketAddr, Vec<String>) {
        let seen = RefCell::new(Vec::new());
        let line = self.find(words, |line| {
            seen.borrow_mut().push(line.to_owned());
            line.contains(words).then(|| line.to_owned())
        });
        (address_in(&line), seen.into_inner())
    }

    /// The next event of this name, of a run with `--log-format json`.
    pub fn event(&self, name: &str) -> Value {
        self.find(name, |line| {
            serde_json::from_str::<Value>(line).ok().filter(|said| said["event"] == name)
        })
    }

    /// The address that it listens at, in a run with `--log-format json`.
    pub fn listening(&self) -> SocketAddr {
        self.addresses_of(["listening"])[0]
    }

    /// The addresses in the next events of these names, in any order, in a run with `--log-format json`.
    pub fn addresses_of<const N: usize>(&self, names: [&str; N]) -> [SocketAddr; N] {
        let mut found = [None; N];
        let mut seen = Vec::new();
        while found.iter().any(Option::is_none) {
            let Ok(line) = self.err.recv_timeout(WATCHDOG) else {
                panic!("it did not say all of {names:?}:\n{}", seen.join("\n"));
            };
            let said: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(at) = names.iter().position(|name| said["event"] == *name) {
                found[at] = said["address"].as_str().and_then(|address| address.parse().ok());
            }
            seen.push(line);
        }
        found.map(|address| address.expect("each was found"))
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops it in order, and waits for the end.
    pub fn stop(self) {
        self.signal(Signal::TERM);
        self.until_stopped();
    }

    /// Waits for the end of an orderly stop.
    pub fn until_stopped(self) {
        let (code, _, said) = self.finish();
        assert_eq!(code, Some(0), "{}", said.join("\n"));
    }

    /// Waits for the end: exit code, and the rest of standard output and of standard error.
    pub fn finish(mut self) -> (Option<i32>, Vec<String>, Vec<String>) {
        let (out, err) = (drain(&self.out), drain(&self.err));
        let status: ExitStatus = self.process.0.wait().expect("it has ended");
        (status.code(), out, err)
    }
}

/// The address at the end of a line.
fn address_in(line: &str) -> SocketAddr {
    let address = line.rsplit(' ').next().and_then(|word| word.parse().ok());
    address.unwrap_or_else(|| panic!("no address in {line}"))
}

/// The lines of a pipe, read by a thread of the test.
pub fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// All lines until the pipe closes.
fn drain(lines: &Receiver<String>) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match lines.recv_timeout(WATCHDOG) {
            Ok(line) => all.push(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => return all,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("hung; so far:\n{}", all.join("\n")),
        }
    }
}

/// A number that an environment variable may set, for longer runs and for other seeds.
pub fn number_from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A linear congruential generator: a seed is a run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Compares `found` with `tests/golden/NAME`, or writes the file when `TIDEMILL_UPDATE_GOLDEN` is set.
pub fn check_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("TIDEMILL_UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).expect("written");
    }
    let golden = fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(
        found, golden,
        "tests/golden/{name} differs. If it is meant: run the test with TIDEMILL_UPDATE_GOLDEN=1, and add a line to CHANGELOG.md"
    );
}
