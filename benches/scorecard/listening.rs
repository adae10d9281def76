//! The receiver in the rows with many peers: an engine (`tidemill run`) or the bare poller. Figures of an engine come from
//! `/proc` and from its own HTTP server. Main thread.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tidemill::internals::lab::process::{Lines, Process};
use tidemill::internals::lab::sample::{cpu_of, figure};
use tidemill::internals::settings::units::as_f64;
use tidemill::time::Moment;

use crate::Outcome;
use crate::kind::Kind;
use crate::load::{Load, Peers};
use crate::process::{TIDEMILL, child, line, start};
use crate::wait::{LIMIT, deadline, now, pause, seconds_since};

/// The name of the baseline in tables: a poller that accepts, reads and counts line feeds.
pub const BARE: &str = "bare";

/// Threads of `pool` where all peers are to be read.
pub const POOL_THREADS: &str = "128";

/// A receiver in a process of its own.
pub struct Listening {
    process: Process,
    pub address: String,
    /// The address of the engine's HTTP server; the bare poller has none.
    http: Option<String>,
    /// The lines that it writes, kept so that they have somewhere to go.
    said: Lines,
}

/// Bytes and processor seconds so far.
#[derive(Clone, Copy)]
struct Taken {
    at: Moment,
    bytes: f64,
    cpu: f64,
}

/// The rates in the middle of a load.
#[derive(Clone, Copy)]
pub struct Steady {
    pub per_second: f64,
    pub per_cpu_second: f64,
}

impl Listening {
    /// By the name of an io model, or [`BARE`].
    pub fn start(model: &str) -> Outcome<Self> {
        if model == BARE { Listening::bare() } else { Listening::engine(model, None) }
    }

    /// An engine with this many descriptors, or as many as there may be.
    pub fn engine(model: &str, descriptors: Option<u64>) -> Outcome<Self> {
        Listening::engine_with(model, descriptors, &[])
    }

    /// The same with these options besides.
    pub fn engine_with(model: &str, descriptors: Option<u64>, more: &[&str]) -> Outcome<Self> {
        let from = ["run", "--from", "tcp-listen://127.0.0.1:0", "--io", model];
        let to =
            ["--job", "count", "--to", "null", "--log-format", "json", "--http", "127.0.0.1:0"];
        let threads = format!("source.in.pool_threads={POOL_THREADS}");
        let set = ["--set", "source.in.connections_max=10100", "--set", &threads];
        let mut command = match descriptors {
            None => Command::new(TIDEMILL),
            // Both limits, since it raises the soft one.
            Some(descriptors) => {
                let mut shell = Command::new("sh");
                let limited = format!("ulimit -n {descriptors}; exec \"$@\"");
                shell.args(["-c", &limited, "sh", TIDEMILL]);
                shell
            }
        };
        command
            .args(from)
            .args(to)
            .args(set)
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Listening::of(start(&mut command)?)
    }

    /// An engine that listens with `nio`, with these options besides, and its standard output.
    pub fn printing(options: &[&str]) -> Outcome<(Self, ChildStdout)> {
        let mut command = Command::new(TIDEMILL);
        command.args(["run", "--from", "tcp-listen://127.0.0.1:0", "--to", "json"]);
        command.args(["--log-format", "json", "--http", "127.0.0.1:0"]).args(options);
        let mut process = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let output = process.output();
        Ok((Listening::of(process)?, output))
    }

    fn of(mut process: Process) -> Outcome<Self> {
        let said = process.error_lines()?;
        let [address, http] = addresses(&said, ["listening", "http"])?;
        Ok(Listening { process, address, http: Some(http), said })
    }

    /// A page of the engine's HTTP server.
    pub fn page(&self, path: &str) -> Outcome<Value> {
        let http = self.http.as_ref().ok_or("not an engine")?;
        Ok(serde_json::from_str(&fetch(http, path)?)?)
    }

    /// The bare poller.
    pub fn bare() -> Outcome<Self> {
        let mut process = start(&mut child(Kind::Poller)?)?;
        let said = process.output_lines()?;
        Ok(Listening { process, address: line(&said)?, http: None, said })
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.process.id())
    }

    /// A figure of the process's status, in KiB.
    pub fn kib(&self, field: &str) -> f64 {
        as_f64(figure(&self.proc("status"), field))
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).map_or(0, Iterator::count)
    }

    fn cpu(&self) -> f64 {
        cpu_of(self.process.id()).as_secs_f64()
    }

    fn taken(&self) -> Outcome<Taken> {
        let bytes = match self.http {
            Some(_) => self.page("/api/v1/receivers")?[0]["bytes"].as_f64().ok_or("no bytes")?,
            // The bare poller reads with readv(2), which the kernel counts.
            None => as_f64(figure(&self.proc("io"), "rchar:")),
        };
        Ok(Taken { at: now(), bytes, cpu: self.cpu() })
    }

    /// Bytes per second and per CPU-second, from when all connections were made and a third of a second had gone by.
    pub fn steady(&self, peers: Peers, seconds: f64) -> Outcome<Steady> {
        let warm_up = seconds.min(1.0) / 3.0;
        let sending = (seconds + 2.0 * warm_up).to_string();
        let load = Load::connect(&self.address, peers, &["--seconds", &sending])?;
        pause(warm_up);
        let first = self.taken()?;
        pause(seconds);
        let last = self.taken()?;
        let sent = load.finish()?;
        assert!(sent.lines > 0, "something was sent");
        let (bytes, cpu) = (last.bytes - first.bytes, last.cpu - first.cpu);
        let seconds = last.at.since(first.at).as_secs_f64();
        Ok(Steady { per_second: bytes / seconds, per_cpu_second: bytes / cpu.max(0.01) })
    }

    /// The share of a core that is taken meanwhile.
    pub fn share_of_core(&self, seconds: f64) -> f64 {
        let (start, before) = (now(), self.cpu());
        pause(seconds);
        (self.cpu() - before) / seconds_since(start)
    }

    /// Stops an engine and returns the counters of its source.
    pub fn stop(mut self) -> Outcome<Value> {
        self.process.terminate()?;
        let said = self.said.rest(deadline())?;
        self.process.wait(LIMIT)?;
        let mut report = said.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let counters = report.rfind(|line| line["event"] == "source_report");
        Ok(counters.ok_or("no report")?["counters"].clone())
    }
}

/// The addresses in the lines of these events, which come in any order.
fn addresses<const N: usize>(said: &Lines, events: [&str; N]) -> Outcome<[String; N]> {
    let mut found = [const { String::new() }; N];
    while found.iter().any(String::is_empty) {
        let line: Value = serde_json::from_str(&line(said)?)?;
        if let Some(at) = events.iter().position(|event| line["event"] == *event) {
            line["address"].as_str().ok_or("no address")?.clone_into(&mut found[at]);
        }
    }
    Ok(found)
}

/// The body of an answer.
fn fetch(address: &str, path: &str) -> Outcome<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.split_once("\r\n\r\n").ok_or("no body")?.1.to_owned())
}
