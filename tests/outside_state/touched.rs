//! Changes to the files of a `state_dir` while `tidemill` has them open: the run must not end as if nothing was lost, and
//! restored files are whole.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::program::Program;
use crate::program::peers::send;

const SEGMENT: &str = "wal-000000000001.seg";

/// A directory with a RELP pipeline that a test works on.
struct Given {
    directory: TempDir,
    state: PathBuf,
}

impl Given {
    fn new() -> Given {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().display();
        let text = format!(
            "name = 'touched'\nbatch_interval = '1h'\nhttp = 'off'\nstate_dir = '{place}/state'\n\
             [source.in.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\n\
             [job.lines]\nfrom = ['in']\nlines = {{}}\nto = ['out']\n[sink.out.file]\npath = '{place}/out'\n"
        );
        fs::write(directory.path().join("p.toml"), text).expect("written");
        Given { state: directory.path().join("state"), directory }
    }

    fn start(&self) -> Program {
        let file = self.directory.path().join("p.toml");
        Program::start(&["run", file.to_str().expect("UTF-8")])
    }

    /// Runs, applies `harm` to the state directory once a line is acknowledged, and stops: exit code and messages.
    fn harmed(&self, harm: impl Fn(&Path)) -> (Option<i32>, String) {
        let program = self.start();
        send(&program, &["one"]);
        harm(&self.state);
        program.signal(rustix::process::Signal::TERM);
        let (code, _, said) = program.finish();
        (code, said.join("\n"))
    }

    /// A later run succeeds.
    fn goes_on(&self) {
        let program = self.start();
        send(&program, &["two"]);
        program.stop();
    }
}

/// Applies `harm` to the state directory between two batches of acknowledged lines; the run then stops with exit code 1 and
/// these words. `mend` repairs the damage, and the next start has the lines that were acknowledged before.
fn check(harm: impl Fn(&Path), mend: impl Fn(&Path), expected: &str) {
    let given = Given::new();
    let (code, said) = given.harmed(harm);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(expected), "{said}");
    mend(&given.state);
    given.goes_on();
}

fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("it is there");
}

#[test]
fn a_stop_finds_what_was_done_to_the_log() {
    let aside = |state: &Path| state.with_file_name("aside");
    check(
        |state| rename(&state.join(SEGMENT), &aside(state)),
        |state| rename(&aside(state), &state.join(SEGMENT)),
        "it is not there any more",
    );
    check(
        |state| rename(state, &aside(state)),
        |state| rename(&aside(state), state),
        "(the directory itself, if it was moved)",
    );
    // A copy takes its place: writes go to the old file.
    check(
        |state| {
            rename(&state.join(SEGMENT), &aside(state));
            fs::copy(aside(state), state.join(SEGMENT)).expect("copied");
        },
        |state| rename(&aside(state), &state.join(SEGMENT)),
        "another file has its name",
    );
}

/// Applies `harm` to the state directory of a run that writes nothing except at its stop; the stop then ends in order with
/// these words.
fn check_mended(harm: impl Fn(&Path), expected: &str) {
    let given = Given::new();
    given.goes_on();
    let (code, said) = given.harmed(harm);
    assert_eq!(code, Some(0), "{said}");
    let warning = said.lines().find(|line| line.contains("WARN") && line.contains(expected));
    assert!(warning.is_some(), "{said}");
    given.goes_on();
}

#[test]
fn what_a_stop_writes_anew_is_told() {
    let remove = |path: &Path| fs::remove_file(path).expect("it is there");
    check_mended(|state| remove(&state.join("segments")), "segments in");
    check_mended(
        |state| {
            let entries =
                fs::read_dir(state).expect("there").map(|entry| entry.expect("listed").path());
            let is_checkpoint = |path: &PathBuf| path.extension().is_some_and(|it| it == "ckpt");
            entries.filter(is_checkpoint).for_each(|path| remove(&path));
        },
        "a new one is written in its place",
    );
}
