//! What listens in the rows with many peers, an engine (`tidemill run`) or the bare poller, and the loads that are put on
//! it (`tidemill load`). Figures of an engine come from `/proc` and from its own HTTP server. Main thread.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal as Kill, kill_process};
use serde_json::Value;
use tidemill::sync::Signal;
use tidemill::time::{Clock, Moment, SystemClock};

use crate::Outcome;
use crate::measure::{as_f64, proc_figure};
use crate::process::{LIMIT, Owned, TIDEMILL, run_bare, ticks, wait};

/// The name of the baseline in tables: a poller that accepts, reads and counts line feeds.
pub const BARE: &str = "bare";

/// Threads of `pool` where all peers are to be read.
pub const POOL_THREADS: &str = "128";

/// A receiver in a process of its own.
pub struct Listening {
    process: Owned,
    pub address: String,
    /// The engine's HTTP server, and what it says, kept so that it has somewhere to go.
    engine: Option<(String, BufReader<ChildStderr>)>,
}

/// Bytes and processor seconds so far.
#[derive(Clone, Copy)]
struct Taken {
    at: Moment,
    bytes: f64,
    cpu: f64,
}

/// What was received in the middle of a load.
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

    /// An engine with so many descriptors, or as many as there may be.
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
        Listening::of(Owned(command.spawn()?))
    }

    /// An engine that listens with `nio`, with these options besides, and its standard output.
    pub fn printing(options: &[&str]) -> Outcome<(Self, ChildStdout)> {
        let mut command = Command::new(TIDEMILL);
        command.args(["run", "--from", "tcp-listen://127.0.0.1:0", "--to", "json"]);
        command.args(["--log-format", "json", "--http", "127.0.0.1:0"]).args(options);
        let mut process = Owned(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        let output = process.0.stdout.take().ok_or("no standard output")?;
        Ok((Listening::of(process)?, output))
    }

    fn of(mut process: Owned) -> Outcome<Self> {
        let mut said = BufReader::new(process.0.stderr.take().ok_or("no standard error")?);
        let [address, http] = addresses(&mut said, ["listening", "http"])?;
        Ok(Listening { process, address, engine: Some((http, said)) })
    }

    /// A page of the engine's HTTP server.
    pub fn page(&self, path: &str) -> Outcome<Value> {
        let (http, _) = self.engine.as_ref().ok_or("not an engine")?;
        Ok(serde_json::from_str(&fetch(http, path)?)?)
    }

    /// The bare poller.
    pub fn bare() -> Outcome<Self> {
        let (process, address) = run_bare()?;
        Ok(Listening { process, address, engine: None })
    }

    pub fn kib(&self, field: &str) -> f64 {
        let file = format!("/proc/{}/status", self.process.0.id());
        as_f64(proc_figure(&file, field))
    }

    pub fn descriptors(&self) -> usize {
        let dir = format!("/proc/{}/fd", self.process.0.id());
        std::fs::read_dir(dir).map_or(0, Iterator::count)
    }

    pub fn cpu(&self) -> f64 {
        ticks(&format!("/proc/{}/stat", self.process.0.id())).unwrap_or(0.0) / 100.0
    }

    fn taken(&self, clock: &SystemClock) -> Outcome<Taken> {
        let bytes = match &self.engine {
            Some(_) => self.page("/api/v1/receivers")?[0]["bytes"].as_f64().ok_or("no bytes")?,
            // The bare poller reads with readv(2), which the kernel counts.
            None => as_f64(proc_figure(&format!("/proc/{}/io", self.process.0.id()), "rchar:")),
        };
        Ok(Taken { at: clock.now(), bytes, cpu: self.cpu() })
    }

    /// Bytes per second and per CPU-second, from when all connections were made and a third of a second had gone by.
    pub fn steady(&self, (busy, idle): (u64, u64), seconds: f64) -> Outcome<Steady> {
        let clock = SystemClock::new();
        let warm_up = seconds.min(1.0) / 3.0;
        let sending = (seconds + 2.0 * warm_up).to_string();
        let load = Load::start(self, (busy, idle), &["--seconds", &sending])?;
        pause(&clock, warm_up);
        let first = self.taken(&clock)?;
        pause(&clock, seconds);
        let last = self.taken(&clock)?;
        let sent = load.finish()?;
        assert!(sent.lines > 0, "something was sent");
        let (bytes, cpu) = (last.bytes - first.bytes, last.cpu - first.cpu);
        let seconds = last.at.since(first.at).as_secs_f64();
        Ok(Steady { per_second: bytes / seconds, per_cpu_second: bytes / cpu.max(0.01) })
    }

    /// The share of a core that is taken meanwhile.
    pub fn share_of_core(&self, seconds: f64) -> f64 {
        let clock = SystemClock::new();
        let (start, before) = (clock.now(), self.cpu());
        pause(&clock, seconds);
        (self.cpu() - before) / clock.now().since(start).as_secs_f64()
    }

    /// Stops an engine; what its source counted.
    pub fn stop(mut self) -> Outcome<Value> {
        kill_process(Pid::from_child(&self.process.0), Kill::TERM)?;
        let mut text = String::new();
        let (_, mut said) = self.engine.take().ok_or("not an engine")?;
        said.read_to_string(&mut text)?;
        wait(&mut self.process, LIMIT)?;
        let mut report = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let counters = report.rfind(|line| line["event"] == "source_report");
        Ok(counters.ok_or("no report")?["counters"].clone())
    }
}

/// The addresses in the lines of these events, which come in any order.
fn addresses<const N: usize>(
    said: &mut BufReader<ChildStderr>,
    events: [&str; N],
) -> Outcome<[String; N]> {
    let mut found = [const { String::new() }; N];
    while found.iter().any(String::is_empty) {
        let mut line = String::new();
        if said.read_line(&mut line)? == 0 {
            return Err("the engine ended".into());
        }
        let line: Value = serde_json::from_str(&line)?;
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

pub fn pause(clock: &SystemClock, seconds: f64) {
    clock.wait(&Signal::new(), Some(clock.now().plus(Duration::from_secs_f64(seconds))));
}

/// A `tidemill load` whose connections are made.
pub struct Load {
    process: Owned,
    _said: BufReader<ChildStderr>,
}

/// What it says that it sent.
pub struct Loaded {
    pub lines: u64,
    /// With RELP.
    pub acknowledged: u64,
}

impl Load {
    pub fn start(to: &Listening, (busy, idle): (u64, u64), limits: &[&str]) -> Outcome<Load> {
        let mut command = Command::new(TIDEMILL);
        command.args(["load", "--json", "--connect", &to.address]).args(limits);
        command.args(["--connections", &busy.to_string(), "--idle", &idle.to_string()]);
        let mut process = Owned(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        let mut said = BufReader::new(process.0.stderr.take().ok_or("no standard error")?);
        let mut line = String::new();
        while !line.contains("sending to") {
            line.clear();
            if said.read_line(&mut line)? == 0 {
                return Err("the sender could not connect".into());
            }
        }
        Ok(Load { process, _said: said })
    }

    pub fn finish(mut self) -> Outcome<Loaded> {
        let mut text = String::new();
        self.process.0.stdout.take().ok_or("no output")?.read_to_string(&mut text)?;
        wait(&mut self.process, LIMIT)?;
        let report: Value = serde_json::from_str(&text)?;
        let acknowledged = report["acknowledged"].as_u64().unwrap_or(0);
        Ok(Loaded { lines: report["lines"].as_u64().ok_or("no lines")?, acknowledged })
    }
}
