//! Pipes whose reader goes away: `tidemill … | head -1`, and a log that nobody reads any more.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Process, WATCHDOG, read_lines};

fn tidemill(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(args);
    command
}

/// A pipe without a reader.
fn closed() -> Stdio {
    let (_, writer) = std::io::pipe().expect("a pipe");
    writer.into()
}

/// A run whose standard output is read up to one line, as by `head -1`: that line, the exit code and standard error.
fn head(args: &[&str]) -> (String, Option<i32>, String) {
    let mut process = Process::start(tidemill(args).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut out = BufReader::new(process.0.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    drop(out);
    let mut said = String::new();
    process.0.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    (line, process.0.wait().expect("it ends").code(), said)
}

const FROM: &[&str] = &["run", "--from", "generate:rate=1000", "--every", "50ms", "--http", "off"];

#[test]
fn a_run_of_consoles_ends_with_its_reader() {
    let check = |more: &[&str]| {
        let (_, code, said) = head(&[FROM, more].concat());
        assert_eq!(code, Some(0), "{more:?}: {said}");
        assert!(said.contains("broken pipe") && said.contains("so the run ends"), "{said}");
        assert_eq!(said.matches("is closed").count(), 1, "{said}");
        assert!(!said.contains("attempt") && !said.contains("ERROR"), "{said}");
    };
    check(&["--job", "count"]);
    check(&["--job", "count", "--to", "json"]);
    check(&["--job", "lines", "--job", "count", "--to", "json"]);
    check(&["--job", "lines", "--to", "json", "--set", "concurrent_jobs=2", "--job", "count"]);
    check(&["--job", "count", "--set", "on_failure.then=dead_letter"]);
}

#[test]
fn the_batch_that_met_a_closed_pipe_runs_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("UTF-8").to_owned();
    fs::create_dir(path("in")).expect("made");
    fs::write(path("in/lines"), "line\n".repeat(1000)).expect("written");
    let (from, state) = (format!("files://{}", path("in")), path("state"));
    let run = ["run", "--from", &from, "--until-eof", "--every", "50ms", "--http", "off"];
    let run = [&run[..], &["--job", "count", "--to", "json", "--state-dir", &state]].concat();
    let check = |out: Stdio, said: &str| {
        let mut process = Process::start(tidemill(&run).stdout(out).stderr(Stdio::piped()));
        let rows = process.0.stdout.take().map(read_lines);
        let mut words = String::new();
        process.0.stderr.take().expect("piped").read_to_string(&mut words).expect("UTF-8");
        assert_eq!(process.0.wait().expect("it ends").code(), Some(0), "{words}");
        assert!(words.contains(said), "{words}");
        let count = |line: String| {
            let batch: Value = serde_json::from_str(&line).expect("JSON");
            batch["rows"][0][0].as_u64().expect("a count")
        };
        rows.map_or(0, |rows| rows.iter().map(count).sum::<u64>())
    };
    check(closed(), "so the run ends");
    assert_eq!(check(Stdio::piped(), "nothing was left"), 1000);
    assert_eq!(check(Stdio::piped(), "nothing was left"), 0);
}

#[test]
fn other_sinks_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let check = |jobs: &str| {
        let _ = fs::remove_dir_all(path("rows"));
        let (file, rows) = (path("p.toml"), path("rows"));
        let text = format!(
            "batch_interval = '50ms'\nhttp = 'off'\n[source.in.generate]\nrate = 1000\n{jobs}\n\
             [sink.screen.console]\nformat = 'json'\n[sink.files.file]\npath = '{}'\nformat = 'json'\n",
            rows.display()
        );
        fs::write(&file, text).expect("written");
        let args = ["run", file.to_str().expect("UTF-8"), "--batches", "8"];
        let (_, code, said) = head(&args);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.matches("is closed").count(), 1, "{said}");
        assert!(
            said.contains("sink `screen` is closed") && said.contains("the other sinks continue"),
            "{said}"
        );
        assert_eq!(files(&rows), 8, "{said}");
    };
    check("[job.a]\nfrom = ['in']\nto = ['screen', 'files']\ncount = {}");
    check("[job.a]\nfrom = ['in']\nto = ['files', 'screen']\ncount = {}");
    let apart = "[job.a]\nfrom = ['in']\nto = ['screen']\ncount = {}\n";
    check(&format!("{apart}[job.b]\nfrom = ['in']\nto = ['files']\ncount = {{}}"));
}

fn files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("there").flatten();
    entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
}

#[test]
fn no_command_minds_a_closed_pipe() {
    let directory = tempfile::tempdir().expect("a directory");
    let (state, file) = (directory.path().join("state"), directory.path().join("p.toml"));
    let [state, file] = [&state, &file].map(|path| path.to_str().expect("UTF-8"));
    fs::write(file, "[source.in.generate]\nrecords = 9\n[job.a]\nfrom = ['in']\nto = ['out']\ncount = {}\n[sink.out.console]\n")
        .expect("written");
    let made = [FROM, &["--job", "count", "--batches", "1", "--state-dir", state]].concat();
    assert!(tidemill(&made).output().expect("it runs").status.success());
    // Without standard output, and without standard error.
    let check = |args: &[&str], expected: i32| {
        let mut quiet = tidemill(args);
        let shown = quiet.stdout(closed()).output().expect("it runs");
        let said = String::from_utf8_lossy(&shown.stderr);
        assert_eq!(shown.status.code(), Some(expected), "{args:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("roken pipe"), "{args:?}: {said}");
        let mut dumb = tidemill(args);
        let shown = dumb.stdout(Stdio::null()).stderr(closed()).status().expect("it runs");
        assert_eq!(shown.code(), Some(expected), "{args:?} without standard error");
    };
    check(&["--help"], 0);
    check(&["--version"], 0);
    check(&["run", "--help"], 0);
    check(&["run"], 2);
    check(&["inspect", state], 0);
    check(&["inspect", "no-such-directory"], 1);
    check(&["doctor"], 0);
    check(&["doctor", "--json"], 0);
    check(&["validate", file], 0);
    check(&["validate", "no-such-file.toml"], 78);
    check(&["load", "--help"], 0);
}

/// Output that cannot be written to standard output is an error, whatever else was done.
#[test]
fn no_command_hides_that_its_output_failed() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state").display().to_string();
    let made = [FROM, &["--job", "count", "--batches", "1", "--state-dir", &state]].concat();
    assert!(tidemill(&made).output().expect("it runs").status.success());
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let check = |args: &[&str]| {
        let shown = tidemill(args).stdout(full()).output().expect("it runs");
        let said = String::from_utf8_lossy(&shown.stderr);
        assert_eq!(shown.status.code(), Some(1), "{args:?}: {said}");
        let expected = "cannot write to standard output: No space left";
        assert!(said.contains(expected) && said.lines().count() < 3, "{args:?}: {said}");
    };
    check(&["--help"]);
    check(&["--version"]);
    check(&["run", "--help"]);
    check(&["help", "inspect"]);
    check(&["inspect", &state]);
    check(&["doctor"]);
    check(&["doctor", "--json"]);
    // Nothing goes to standard output.
    let code =
        |args: &[&str]| tidemill(args).stdout(full()).output().expect("it runs").status.code();
    assert_eq!(code(&["run"]), Some(2));
    assert_eq!(code(&["validate", "no-such-file.toml"]), Some(78));
}

/// The result of a shell command, with `TIDEMILL` in place of the program: the exit code and standard error.
fn shell(words: &str) -> (Option<i32>, String) {
    let words = words.replace("TIDEMILL", env!("CARGO_BIN_EXE_tidemill"));
    let shown = Command::new("sh").args(["-c", &words]).output().expect("it runs");
    (shown.status.code(), String::from_utf8_lossy(&shown.stderr).into_owned())
}

/// A closed standard output accepts rows and keeps none.
#[test]
fn rows_are_not_written_to_a_closed_standard_output() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let check = |jobs: &str, redirect: &str, expected: i32, said: Option<&str>| {
        let text = format!(
            "batch_interval = '50ms'\nhttp = 'off'\n[source.in.generate]\nrate = 1000\n\
             [job.a]\nfrom = ['in']\nto = {jobs}\ncount = {{}}\n[sink.screen.console]\n\
             [sink.files.file]\npath = '{}'\n",
            path("rows")
        );
        fs::write(path("p.toml"), text).expect("written");
        let words = format!("exec TIDEMILL run {} --batches 2 {redirect}", path("p.toml"));
        let (code, words) = shell(&words);
        assert_eq!(code, Some(expected), "{jobs} {redirect}: {words}");
        let closed = words.lines().find(|line| line.contains("standard output is closed"));
        match said {
            Some(said) => {
                let line = closed.unwrap_or_else(|| panic!("{jobs} {redirect}: {words}"));
                assert!(line.contains(said) && line.contains("another sink"), "{line}");
            }
            None => assert_eq!(closed, None, "{jobs} {redirect}"),
        }
    };
    check("['screen']", ">&-", 1, Some("the rows of sink `screen` would be lost"));
    check("['screen', 'files']", ">&-", 0, Some("the rows of sink `screen` are lost"));
    check("['files']", ">&-", 0, None);
    check("['screen']", ">/dev/null", 0, None);
    check("['screen']", ">&2", 0, None);
    // Nobody reads the messages, and the exit code still tells the outcome.
    check("['screen']", "2>&-", 0, None);
}

/// A pipe that is full, and that nobody reads as long as its reader is kept.
fn stalled() -> (PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let room = rustix::pipe::fcntl_getpipe_size(&writer).expect("its size");
    writer.write_all(&vec![b'\n'; room]).expect("it fits");
    (reader, writer.into())
}

/// A log that stalls: the run continues, a signal ends it within its deadline, and the messages come once somebody reads.
#[test]
fn a_stalled_log_holds_nothing_up() {
    let check = |more: &[&str], signal: Option<Signal>, expected: i32| {
        let (_log, full) = stalled();
        let args = [&["run", "--http", "off", "--set", "stop_deadline=2s"], more].concat();
        let mut process = Process::start(tidemill(&args).stdout(Stdio::piped()).stderr(full));
        let rows = read_lines(process.0.stdout.take().expect("piped"));
        if let Some(signal) = signal {
            rows.recv_timeout(WATCHDOG).expect("a row");
            process.signal(signal);
        }
        // Standard output closes with the process.
        while match rows.recv_timeout(WATCHDOG) {
            Ok(_) => true,
            Err(RecvTimeoutError::Disconnected) => false,
            Err(RecvTimeoutError::Timeout) => panic!("{more:?} {signal:?}: it hangs"),
        } {}
        assert_eq!(process.0.wait().expect("it ends").code(), Some(expected), "{more:?}");
    };
    let rows =
        ["--from", "generate:rate=1000", "--every", "50ms", "--job", "count", "--to", "json"];
    let debug = [&rows[..], &["--log-level", "debug", "--log-format", "json"]].concat();
    check(&rows, Some(Signal::TERM), 0);
    check(&rows, Some(Signal::INT), 0);
    check(&debug, Some(Signal::TERM), 0);
    check(&[&rows[..], &["--batches", "2"]].concat(), None, 0);
    check(&["no-such-file.toml"], None, 78);
}

/// The last lines of a run are not lost if they are read late.
#[test]
fn a_log_that_is_read_late_is_whole() {
    let (mut log, full) = stalled();
    let args = [FROM, &["--job", "count", "--to", "json", "--batches", "2"]].concat();
    let mut process = Process::start(tidemill(&args).stdout(Stdio::piped()).stderr(full));
    let rows = read_lines(process.0.stdout.take().expect("piped"));
    (0..2).for_each(|_| drop(rows.recv_timeout(WATCHDOG).expect("a row")));
    let mut said = String::new();
    log.read_to_string(&mut said).expect("UTF-8");
    assert_eq!(process.0.wait().expect("it ends").code(), Some(0), "{said}");
    assert!(said.contains("INFO tidemill") && said.contains("2 batches"), "{said}");
}

#[test]
fn a_run_goes_on_when_nobody_reads_its_log() {
    let args = [FROM, &["--job", "count", "--to", "json", "--log-level", "debug"]].concat();
    let args = [&args[..], &["--batches", "5"]].concat();
    let mut process = Process::start(tidemill(&args).stdout(Stdio::piped()).stderr(closed()));
    let rows = read_lines(process.0.stdout.take().expect("piped"));
    assert_eq!(rows.iter().count(), 5);
    assert_eq!(process.0.wait().expect("it ends").code(), Some(0));
}
