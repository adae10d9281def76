//! Signals as shells, supervisors and operators send them.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::program::Program;

/// A pipeline file in a directory of its own.
const FILE: &str = "batch_interval = '50ms'\nworkers = 2\nlog_level = 'info'\nhttp = 'off'\n\
    [source.in.socket]\nlisten = '127.0.0.1:0'\nrate_max = 5000\n\
    [job.lines]\nfrom = ['in']\nto = ['out']\nlines = {}\n[sink.out.console]\nformat = 'json'\n";

struct Run {
    directory: TempDir,
    program: Program,
}

impl Run {
    /// Runs the pipeline file, after the words of `before`.
    fn start(before: &[&str]) -> Run {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("p.toml");
        fs::write(&file, FILE).expect("written");
        let program = [env!("CARGO_BIN_EXE_tidemill"), "run", file.to_str().expect("UTF-8")];
        let words = [before, &program].concat();
        let program = Program::of(Command::new(words[0]).args(&words[1..]));
        Run { directory, program }
    }

    fn change(&self, text: &str) {
        fs::write(self.directory.path().join("p.toml"), text).expect("written");
    }
}

#[test]
fn a_hangup_reads_the_file_again() {
    let run = Run::start(&[]);
    let address = run.program.address_after("listening on");
    let check = |from: &str, to: &str, expected: &str| {
        run.change(&FILE.replace(from, to));
        run.program.signal(Signal::HUP);
        let line = run.program.wait_for("reloaded");
        assert!(line.contains(expected), "{from} → {to}: {line}");
    };
    check("workers = 2", "workers = 2 ", "reloaded: nothing has changed");
    check("workers = 2", "workers = 3", "reloaded: workers is 3");
    check("5000", "7000", "workers is 2; source `in`: its rates follow the file");
    check("'50ms'", "'60ms'", "its rates follow the file; needs a restart: batch_interval");
    check("[sink", "[sonk", "not reloaded, nothing was changed: error: unknown sink `out`");
    check("\n", " \n", "reloaded: nothing has changed");
    check("'info'", "'warn'", "reloaded: log_level is warn");
    check("'info'", "'info' ", "reloaded: log_level is info");
    // The stream continued all the time, with the current workers and rate.
    let mut peer = TcpStream::connect(address).expect("it listens");
    peer.write_all(b"still here\n").expect("taken");
    while !run.program.out.recv_timeout(crate::program::WATCHDOG).expect("rows").contains("still") {
    }
    run.program.stop();
}

/// The stream continues after these signals; `said` is its message about the last one, if any.
fn check_goes_on(before: &[&str], signals: &[Signal], said: Option<&str>) {
    let run = Run::start(before);
    run.program.wait_for("listening on");
    signals.iter().for_each(|signal| run.program.signal(*signal));
    if let Some(said) = said {
        run.program.wait_for(said);
    }
    run.program.signal(Signal::TERM);
    let (code, _, err) = run.program.finish();
    assert_eq!(code, Some(0), "{signals:?}: {err:?}");
    assert!(said.is_some() || !err.join("\n").contains("reload"), "{err:?}");
}

#[test]
fn signals_that_end_nothing() {
    check_goes_on(&[], &[Signal::USR1, Signal::USR2], None);
    check_goes_on(&[], &[Signal::HUP], Some("reloaded: nothing has changed"));
    // As nohup starts a program.
    check_goes_on(&["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"], &[Signal::HUP], None);
}

/// A path that is not a regular file any more is not read again, and no signal waits for it.
#[test]
fn a_hangup_waits_for_no_pipe() {
    let check = |make: &[&str]| {
        let run = Run::start(&[]);
        run.program.wait_for("listening on");
        let file = run.directory.path().join("p.toml");
        fs::remove_file(&file).expect("removed");
        let made = Command::new(make[0]).args(&make[1..]).arg(&file).status();
        assert!(made.expect("it runs").success());
        for _ in 0..2 {
            run.program.signal(Signal::HUP);
            let line = run.program.wait_for("not reloaded");
            assert!(line.contains("is no regular file") && line.contains("restart"), "{line}");
        }
        run.program.stop();
    };
    check(&["mkfifo"]);
    check(&["mkdir"]);
    check(&["ln", "-s", "/dev/tty"]);
    check(&["ln", "-s", "/dev/zero"]);
}

/// A pipeline from a pipe, such as a shell's `<(…)`.
#[test]
fn a_pipeline_from_a_pipe() {
    let run = Run::start(&["sh", "-c", "cat \"$3\" | exec \"$1\" \"$2\" /dev/stdin", "sh"]);
    run.program.wait_for("listening on");
}

#[test]
fn a_hangup_without_a_file_is_ignored_and_said() {
    let args = ["run", "--from", "tcp-listen://127.0.0.1:0", "--job", "count", "--http", "off"];
    let run = Program::start(&args);
    run.wait_for("listening on");
    run.signal(Signal::HUP);
    run.wait_for("SIGHUP is ignored: this run has no pipeline file");
    run.stop();
}

#[test]
fn a_signal_to_the_process_and_then_to_its_group_is_one() {
    let run = Run::start(&[]);
    run.program.wait_for("listening on");
    (0..5).for_each(|_| run.program.signal(Signal::TERM));
    run.program.wait_for("a second signal after 1 s stops at once");
    run.program.until_stopped();
    // GNU timeout signals its child, and then the group that it made for both.
    let run = Run::start(&["timeout", "--preserve-status", "1"]);
    run.program.until_stopped();
}
