//! The programs of a measurement, this one as a child among them, and the machine that they run on. Every wait has an end.

use std::path::Path;
use std::process::{Command, Stdio};

use clap::ValueEnum;
use tempfile::TempDir;
use tidemill::internals::lab::machine::{fact, facts};
use tidemill::internals::lab::process::{Heard, Lines, Process};

use crate::Outcome;
use crate::kind::Kind;
use crate::measure::Figures;
use crate::wait::{LIMIT, clock, deadline};

/// The program whose `load` sends and whose `run` is P15's subject.
pub const TIDEMILL: &str = env!("CARGO_BIN_EXE_tidemill");

pub fn start(command: &mut Command) -> Outcome<Process> {
    Ok(Process::start(command, &clock())?)
}

/// The next line of a process.
pub fn line(lines: &Lines) -> Outcome<String> {
    match lines.next(deadline()) {
        Heard::Line(line) => Ok(line),
        Heard::End => Err("a process ended before its time".into()),
        Heard::Silence => Err("a process said nothing".into()),
    }
}

/// This program as a child of this kind.
pub fn child(kind: Kind) -> Outcome<Command> {
    let name = kind.to_possible_value().ok_or("every kind has a name")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", name.get_name()]).stdout(Stdio::piped());
    Ok(command)
}

/// Runs this program as a child and returns what it measured.
pub fn run(kind: Kind, options: &[String]) -> Outcome<Figures> {
    let mut process = start(child(kind)?.args(options))?;
    let text = process.output_lines()?.rest(deadline())?.concat();
    process.wait(LIMIT)?;
    if text.is_empty() {
        return Err(format!("the child {kind:?} failed").into());
    }
    Ok(serde_json::from_str(&text)?)
}

/// A directory beside the program: a disk like that of a user, where temporary files may lie in memory.
pub fn directory() -> Outcome<TempDir> {
    let parent = Path::new(TIDEMILL).parent().ok_or("the program lies in a directory")?;
    Ok(tempfile::tempdir_in(parent)?)
}

/// Machine, kernel, compiler and commit, in a few lines.
pub fn machine() -> String {
    let facts = facts(clock().wall(), "");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "machine: {}, {} cores; load average {}\nkernel: {}\ncompiler: {}\ncommit: {}",
        fact(&facts, "processor"),
        fact(&facts, "cores"),
        load.split(' ').next().unwrap_or_default(),
        fact(&facts, "kernel"),
        fact(&facts, "compiler"),
        fact(&facts, "commit"),
    )
}

/// The output of a command, trimmed; empty if it cannot be run.
pub fn said(command: &str, args: &[&str]) -> String {
    let output = Command::new(command).args(args).stderr(Stdio::null()).output();
    output.map_or_else(
        |_| String::new(),
        |said| String::from_utf8_lossy(&said.stdout).trim().to_owned(),
    )
}
