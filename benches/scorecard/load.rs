//! The sender of every row: `tidemill load` in a process of its own, and its report. Main thread.

use std::process::{Command, Stdio};

use serde_json::Value;
use tidemill::internals::lab::process::{Lines, Process};
use tidemill::time::Moment;

use crate::Outcome;
use crate::process::{TIDEMILL, line, start};
use crate::wait::{LIMIT, deadline, now};

/// A running sender.
pub struct Load {
    process: Process,
    output: Lines,
    /// Kept open: the sender may have more to say.
    messages: Lines,
    /// The address that it listens on, or that it was sent to.
    pub address: String,
}

/// The connections of a sender that dials.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peers {
    /// Connections that send.
    pub busy: u64,
    /// Connections that are open and never send.
    pub idle: u64,
}

impl Peers {
    /// One connection, which sends.
    pub const ONE: Peers = Peers { busy: 1, idle: 0 };

    pub fn all(self) -> u64 {
        self.busy + self.idle
    }
}

/// The report of a sender that has ended.
pub struct Loaded {
    report: Value,
    pub lines: u64,
    pub bytes: u64,
    /// Records that were acknowledged; zero without RELP.
    pub acknowledged: u64,
    /// Processor time of the sender.
    pub cpu_seconds: f64,
    /// The end of its output.
    pub ended: Moment,
}

impl Load {
    fn start(command: &mut Command) -> Outcome<Load> {
        let mut process = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let (output, messages) = (process.output_lines()?, process.error_lines()?);
        Ok(Load { process, output, messages, address: String::new() })
    }

    /// Listens, and sends to the first peer that comes, with these limits, such as `--records N`.
    pub fn listen(limits: &[&str]) -> Outcome<Load> {
        let mut command = Command::new(TIDEMILL);
        command.args(["load", "--listen", "127.0.0.1:0", "--json"]).args(limits);
        let mut load = Load::start(&mut command)?;
        line(&load.messages)?.rsplit(' ').next().unwrap_or_default().clone_into(&mut load.address);
        Ok(load)
    }

    /// Dials; returns when all connections are made.
    pub fn connect(address: &str, peers: Peers, limits: &[&str]) -> Outcome<Load> {
        let mut command = Command::new(TIDEMILL);
        command.args(["load", "--json", "--connect", address]).args(limits);
        command.args(["--connections", &peers.busy.to_string(), "--idle", &peers.idle.to_string()]);
        let load = Load { address: address.to_owned(), ..Load::start(&mut command)? };
        while !line(&load.messages)?.contains("sending to") {}
        Ok(load)
    }

    /// The options of a child that reads from this sender.
    pub fn reader(&self) -> [String; 2] {
        ["--address".to_owned(), self.address.clone()]
    }

    /// Waits for its end and its report.
    pub fn finish(mut self) -> Outcome<Loaded> {
        let text = self.output.rest(deadline())?.concat();
        let ended = now();
        let cpu_seconds = self.process.wait(LIMIT)?.as_secs_f64();
        let report: Value = serde_json::from_str(&text)?;
        let figure = |name: &str| report[name].as_u64().ok_or(format!("no {name} in {text}"));
        let (lines, bytes) = (figure("lines")?, figure("bytes")?);
        let acknowledged = figure("acknowledged").unwrap_or(0);
        Ok(Loaded { lines, bytes, acknowledged, cpu_seconds, ended, report })
    }
}

impl Loaded {
    /// A figure of the report.
    pub fn figure(&self, name: &str) -> Outcome<f64> {
        Ok(self.report[name].as_f64().ok_or(format!("no {name} in {}", self.report))?)
    }
}
