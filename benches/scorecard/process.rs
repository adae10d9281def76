//! Processes: the sender, the children, and the machine they run on. Every wait has an end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::Value;
use tidemill::sync::Signal;
use tidemill::time::{Clock, SystemClock};

use crate::Outcome;
use crate::kind::Kind;
use crate::measure::Figures;

/// The program whose `load` sends and whose `run` is P15's subject.
pub const TIDEMILL: &str = env!("CARGO_BIN_EXE_tidemill");

/// No process of a measurement runs longer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A process that does not outlive its owner.
pub struct Owned(pub Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `tidemill load`, which listens and sends to the first peer that comes.
pub struct Sender {
    process: Owned,
    pub address: String,
}

/// What the sender says it sent, and what that cost it.
pub struct Sent {
    pub lines: u64,
    pub bytes: u64,
    pub cpu_seconds: f64,
}

impl Sender {
    /// Starts it with these limits, such as `--records N`.
    pub fn start(limits: &[String]) -> Outcome<Sender> {
        let mut command = Command::new(TIDEMILL);
        command.args(["load", "--listen", "127.0.0.1:0", "--json"]).args(limits);
        let mut process = Owned(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        let stderr = process.0.stderr.take().ok_or("the sender has no standard error")?;
        let mut line = String::new();
        BufReader::with_capacity(1, stderr).read_line(&mut line)?;
        let address = line.rsplit(' ').next().unwrap_or_default().trim().to_owned();
        Ok(Sender { process, address })
    }

    /// Waits for its end and its report.
    pub fn finish(mut self) -> Outcome<Sent> {
        let cpu_seconds = wait(&mut self.process, LIMIT)?;
        let mut text = String::new();
        self.process
            .0
            .stdout
            .take()
            .ok_or("the sender has no output")?
            .read_to_string(&mut text)?;
        let report: Value = serde_json::from_str(&text)?;
        let figure = |name: &str| report[name].as_u64().ok_or(format!("no {name} in {text}"));
        Ok(Sent { lines: figure("lines")?, bytes: figure("bytes")?, cpu_seconds })
    }
}

/// Runs this program as a child and returns what it measured.
pub fn run(kind: Kind, options: &[String]) -> Outcome<Figures> {
    let name = clap::ValueEnum::to_possible_value(&kind).ok_or("every kind has a name")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", name.get_name()]).args(options);
    let mut process = Owned(command.stdout(Stdio::piped()).spawn()?);
    wait(&mut process, LIMIT)?;
    let mut text = String::new();
    process.0.stdout.take().ok_or("a child has no output")?.read_to_string(&mut text)?;
    if text.is_empty() {
        return Err(format!("the child {name:?} failed").into());
    }
    Ok(serde_json::from_str(&text)?)
}

/// Starts the bare poller and returns where it listens.
pub fn run_bare() -> Outcome<(Owned, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut process = Owned(command.args(["child", "poller"]).stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    Ok((process, line.trim().to_owned()))
}

/// Waits for a process to end; returns the processor time that it took, as the kernel counts it, before it is reaped.
pub fn wait(process: &mut Owned, limit: Duration) -> Outcome<f64> {
    let clock = SystemClock::new();
    let (signal, until) = (Signal::new(), clock.now().plus(limit));
    let pid = Pid::from_child(&process.0);
    let ask = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(pid), ask)?.is_none() {
        if clock.now() >= until {
            return Err(format!("process {pid:?} took longer than {limit:?}").into());
        }
        clock.wait(&signal, Some(clock.now().plus(Duration::from_millis(2))));
    }
    let cpu_seconds = ticks(&format!("/proc/{}/stat", process.0.id()))? / 100.0;
    process.0.wait()?;
    Ok(cpu_seconds)
}

/// User and system time of a process, in ticks of 10 ms.
pub fn ticks(stat: &str) -> Outcome<f64> {
    let text = std::fs::read_to_string(stat)?;
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    Ok(fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum())
}

/// Machine, kernel, compiler and commit, in a few lines.
pub fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |line| line.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let memory = crate::measure::status_kib("self", "VmHWM:");
    debug_assert!(memory > 0, "this process has memory");
    format!(
        "machine: {model}, {cores} cores; load average {}\nkernel: {}\ncompiler: {}\ncommit: {}{}",
        load.split(' ').next().unwrap_or_default(),
        said("uname", &["-sr"]),
        said("rustc", &["--version"]),
        said("git", &["rev-parse", "--short", "HEAD"]),
        if said("git", &["status", "--porcelain", "-uno"]).is_empty() { "" } else { " (changed)" },
    )
}

/// What a command prints, trimmed; nothing if it cannot be run.
pub fn said(command: &str, args: &[&str]) -> String {
    let output = Command::new(command).args(args).stderr(Stdio::null()).output();
    output.map_or_else(
        |_| String::new(),
        |said| String::from_utf8_lossy(&said.stdout).trim().to_owned(),
    )
}
