//! A running `tidemill` that listens, and the honest sender beside its hostile peers.

use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use rustix::process::Signal as Kill;
use serde_json::Value;
use tidemill::time::{Clock, SystemClock};

use crate::program::Program;
use crate::{Case, Found, PATIENCE, expect};

/// A running `tidemill run` that listens; killed when the case is over.
pub struct Engine {
    program: Program,
    pub address: SocketAddr,
    /// The address of its pages.
    pub pages: SocketAddr,
    /// The rows of all batches so far.
    pub rows: Vec<Value>,
    /// The peers that it reported as connected.
    pub connected: HashSet<String>,
    /// The counters of its source, reported at the end.
    pub counters: Value,
    pub patience: Duration,
}

/// The numbers of a program's descriptors and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    descriptors: usize,
    threads: usize,
}

impl Engine {
    /// Starts it with a job, settings of the source, and this many descriptors.
    pub fn start(case: Case, job: &str, options: &[&str], descriptors: Option<u64>) -> Engine {
        let tidemill = env!("CARGO_BIN_EXE_tidemill");
        let mut command = match descriptors {
            None => Command::new(tidemill),
            // Both limits, since the program raises the soft one.
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

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the kernel takes it");
        stream.set_write_timeout(Some(self.patience)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        stream
    }

    /// Reads the next message on standard error; false if none comes in time.
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

    /// Collects the rows of finished batches; false once the output has ended.
    pub fn collect(&mut self, wait: Duration) -> bool {
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

    /// The sum of the rows of a `count`.
    pub fn counted(&self) -> u64 {
        self.rows.iter().filter_map(|row| row[0].as_u64()).sum()
    }

    /// Waits until `so` returns true, checking after every batch.
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&Engine) -> bool) -> Found {
        let clock = SystemClock::new();
        let deadline = clock.now().plus(self.patience);
        while !so(self) {
            let more = self.collect(Duration::from_millis(5));
            expect(more, || format!("{what}: the program ended"))?;
            expect(clock.now() < deadline || so(self), || format!("{what}: never"))?;
        }
        Ok(())
    }

    pub fn until_counted(&mut self, lines: u64) -> Found {
        self.until("honest lines counted", |engine| engine.counted() >= lines)
    }

    fn proc_path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.program.process.0.id())
    }

    fn entries(&self, dir: &str) -> usize {
        std::fs::read_dir(self.proc_path(dir)).map_or(0, Iterator::count)
    }

    pub fn holds(&self) -> Holds {
        Holds { descriptors: self.entries("fd"), threads: self.entries("task") }
    }

    /// The most memory that was resident, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc_path("status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("the kernel says it") << 10
    }

    /// Stops it; returns its source's counters and all rows.
    pub fn finish(mut self) -> Result<(Value, Vec<Value>), String> {
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

/// True if the other side has closed.
pub fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let closed = match stream.peek(&mut [0]) {
        Ok(len) => len == 0,
        Err(err) => err.kind() != ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).expect("a socket");
    closed
}

/// The sender that must not suffer, and the number of lines that it has sent.
pub struct Honest {
    pub stream: TcpStream,
    pub lines: u64,
}

impl Honest {
    /// Sends lines; an error if they are not accepted.
    pub fn send(&mut self, lines: u64) -> Found {
        let text: String =
            (self.lines..self.lines + lines).map(|n| format!("honest {n}\n")).collect();
        self.lines += lines;
        let sent = self.stream.write_all(text.as_bytes());
        sent.map_err(|err| format!("the honest sender is not read: {err}"))
    }
}
