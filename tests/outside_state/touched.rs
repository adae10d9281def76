//! What somebody does to the files of a `state_dir` while `tidemill` has them open: the run must not end as if nothing was
//! lost, and what is put back is whole.

use std::fs;
use std::path::Path;

use crate::program::Program;
use crate::program::peers::send;

const SEGMENT: &str = "wal-000000000001.seg";

/// Does this to the state directory between two batches of acknowledged lines; the run then stops, exits 1 and says this.
/// `mend` puts things right again, and the next start has what was acknowledged before.
fn check(harm: impl Fn(&Path), mend: impl Fn(&Path), expected: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let (state, file) = (directory.path().join("state"), directory.path().join("p.toml"));
    let place = directory.path().display();
    let text = format!(
        "name = 'touched'\nbatch_interval = '1h'\nhttp = 'off'\nstate_dir = '{place}/state'\n\
         [source.in.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\n\
         [job.lines]\nfrom = ['in']\nlines = {{}}\nto = ['out']\n[sink.out.file]\npath = '{place}/out'\n"
    );
    fs::write(&file, text).expect("written");
    let start = || Program::start(&["run", file.to_str().expect("UTF-8")]);
    let program = start();
    send(&program, &["one"]);
    harm(&state);
    program.signal(rustix::process::Signal::TERM);
    let (code, _, said) = program.finish();
    let said = said.join("\n");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(expected), "{said}");
    mend(&state);
    start_again(start());
}

/// A run that goes on.
fn start_again(program: Program) {
    send(&program, &["two"]);
    program.stop();
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
    // A copy took its place: what is written goes to the old one.
    check(
        |state| {
            rename(&state.join(SEGMENT), &aside(state));
            fs::copy(aside(state), state.join(SEGMENT)).expect("copied");
        },
        |state| rename(&aside(state), &state.join(SEGMENT)),
        "another file has its name",
    );
}

/// Does this to the state directory of a run that has nothing to write but what a stop writes; the stop then ends in order
/// and says this.
fn check_mended(harm: impl Fn(&Path), expected: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let (state, file) = (directory.path().join("state"), directory.path().join("p.toml"));
    let place = directory.path().display();
    let text = format!(
        "name = 'touched'\nbatch_interval = '1h'\nhttp = 'off'\nstate_dir = '{place}/state'\n\
         [source.in.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\n\
         [job.lines]\nfrom = ['in']\nlines = {{}}\nto = ['out']\n[sink.out.file]\npath = '{place}/out'\n"
    );
    fs::write(&file, text).expect("written");
    let start = || Program::start(&["run", file.to_str().expect("UTF-8")]);
    start_again(start());
    let program = start();
    send(&program, &["one"]);
    harm(&state);
    program.signal(rustix::process::Signal::TERM);
    let (code, _, said) = program.finish();
    let said = said.join("\n");
    assert_eq!(code, Some(0), "{said}");
    let warning = said.lines().find(|line| line.contains("WARN") && line.contains(expected));
    assert!(warning.is_some(), "{said}");
    start_again(start());
}

#[test]
fn what_a_stop_writes_anew_is_told() {
    let remove = |path: &Path| fs::remove_file(path).expect("it is there");
    check_mended(|state| remove(&state.join("segments")), "segments in");
    check_mended(
        |state| {
            let entries =
                fs::read_dir(state).expect("there").map(|entry| entry.expect("listed").path());
            let is_checkpoint =
                |path: &std::path::PathBuf| path.extension().is_some_and(|it| it == "ckpt");
            entries.filter(is_checkpoint).for_each(|path| remove(&path));
        },
        "a new one is written in its place",
    );
}
