//! The files of earlier versions are read, or refused by name. `tests/fixtures/README.md` describes each fixture.
//!
//! Each test works on a copy. Nothing here knows the formats: only the program's results count.

#![cfg(not(tidemill_model))]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

mod program;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use tempfile::TempDir;
use tidemill::stream::StateSpec;
use tidemill::testing::{Collected, ManualClock};
use tidemill::{Config, Interval, StreamingContext};

use program::Program;

/// The time at which the input of the fixture `files` was changed: 2026-11-01, in seconds since the epoch.
const FILES_CHANGED: u64 = 1_793_491_200;

/// The time at which the input of the fixture `states` was changed.
const STATES_CHANGED: u64 = 1_790_000_000;

/// A copy of one fixture of the first version, with the sizes that its files had.
struct Fixture(TempDir);

impl Fixture {
    fn new(name: &str) -> Fixture {
        let copy = tempfile::tempdir().expect("a directory");
        let first = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/first");
        copy_all(&first.join(name), copy.path());
        let sizes = fs::read_to_string(first.join("sizes.txt")).expect("the list of sizes");
        for (file, size) in sizes.lines().filter_map(|line| line.split_once(' ')) {
            if let Some(file) = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('/')) {
                let file = File::options().write(true).open(copy.path().join(file)).expect("there");
                file.set_len(size.parse().expect("a number")).expect("as long as it was");
            }
        }
        Fixture(copy)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Sets the time of the last change of the files in `directory`.
    fn changed_at(&self, directory: &str, second: u64) {
        for path in listed(&self.path(directory)) {
            changed_at(&path, UNIX_EPOCH + Duration::from_secs(second));
        }
    }

    /// `tidemill run` of the fixture's pipeline file, in its directory.
    fn run(&self, file: &str, options: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.current_dir(self.0.path()).args(["run", file, "--http", "off"]).args(options);
        Program::of(&mut command)
    }

    /// The lines of all data files of a directory, sorted.
    fn lines(&self, directory: &str) -> Vec<String> {
        let is_hidden = |path: &PathBuf| {
            path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'))
        };
        let files = listed(&self.path(directory)).into_iter().filter(|path| !is_hidden(path));
        let mut lines: Vec<String> = files
            .flat_map(|path| {
                let text = fs::read_to_string(path).expect("text");
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        lines.sort();
        lines
    }
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).expect("there").map(|entry| entry.expect("listed").path()).collect()
}

fn copy_all(from: &Path, to: &Path) {
    for path in listed(from) {
        let copy = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir(&copy).expect("made");
            copy_all(&path, &copy);
        } else {
            fs::copy(&path, &copy).expect("copied");
        }
    }
}

fn changed_at(path: &Path, time: SystemTime) {
    let file = File::options().append(true).open(path).expect("there");
    file.set_modified(time).expect("set");
}

/// The numbers of the records `host N xxxx`, sorted.
fn numbers(lines: &[String]) -> Vec<u64> {
    let number = |line: &String| line.split(' ').nth(1)?.parse().ok();
    let mut numbers: Vec<u64> = lines.iter().map(|line| number(line).expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_backlog_with_states_windows_and_an_open_file() {
    let fixture = Fixture::new("relp");
    let program = fixture.run("relp.toml", &[]);
    program.wait_for("4 batches run again, 2 records wait");
    program.wait_for("listening");
    // The last record of the backlog is printed when its batch is nearly done; the stop waits for the rest.
    while !program.out.recv_timeout(program::WATCHDOG).expect("rows").contains("host 48 ") {}
    program.stop();
    let all: Vec<u64> = (1..=48).collect();
    assert_eq!(numbers(&fixture.lines("single")), all);
    assert_eq!(numbers(&fixture.lines("rolled")), all);
    let window = |time: u64| {
        fs::read_to_string(fixture.path(&format!("wins/win-{time}-0.json"))).expect("committed")
    };
    // One was there; one is over batches that ran again; one reaches back to batches that were committed.
    assert_eq!(window(1_796_002_144_000), "[8]\n");
    assert_eq!(window(1_796_002_146_000), "[21]\n");
    assert_eq!(window(1_796_002_148_000), "[20]\n");
}

/// The first version kept no list of its segments; the first start of a later one writes it.
#[test]
fn a_directory_that_was_adopted_and_loses_a_segment_is_refused() {
    let fixture = Fixture::new("relp");
    let mut program = fixture.run("relp.toml", &[]);
    program.wait_for("listening");
    program.process.kill();
    let inspect = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.current_dir(fixture.0.path()).args(["inspect", "state", "--pipeline", "relp.toml"]);
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, shown) = inspect();
    assert_eq!(code, Some(0), "{shown}");
    let segment = |line: &str| {
        let rest = line.strip_prefix("  segment ")?.split_once('(')?.1;
        rest.split_once(')').map(|(file, _)| file.to_owned())
    };
    let needed: Vec<String> = shown.lines().filter_map(segment).collect();
    assert!(!needed.is_empty(), "{shown}");
    for lost in needed {
        let (file, away) = (fixture.path("state").join(&lost), fixture.path("away"));
        fs::rename(&file, &away).expect("moved");
        assert_eq!(inspect().0, Some(1), "{lost}");
        let (code, _, said) = fixture.run("relp.toml", &[]).finish();
        let said = said.join("\n");
        let expected = [lost.as_str(), "the file is missing", "--accept-loss"];
        assert!(code == Some(1) && expected.iter().all(|words| said.contains(words)), "{said}");
        fs::rename(&away, &file).expect("moved");
    }
    let program = fixture.run("relp.toml", &[]);
    program.wait_for("listening");
    program.stop();
}

#[test]
fn positions_of_files() {
    let fixture = Fixture::new("files");
    fixture.changed_at("in", FILES_CHANGED);
    fs::write(fixture.path("in/d.log"), "d1\n").expect("written");
    fixture.run("files.toml", &["--until-eof"]).until_stopped();
    assert_eq!(fixture.lines("out"), ["a1", "a2", "a3", "b1", "b2", "c1", "c2", "d1"]);
}

/// The stream of the fixture `states`; its totals and its counts.
fn states(directory: &Path) -> (StreamingContext, Collected<(String, u64)>, Collected<String>) {
    let config = Config::new("fixture").batch_interval(Interval::secs(1)).workers(2);
    let config = config.state_dir(directory.join("state"));
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("good");
    let lines = ctx.files_lines(directory.join("in")).expect("a source");
    let words = lines.flat_map(|line, out| out.extend(line.split_whitespace()));
    let pairs = words.map(|word: &str| (word.to_owned(), 1_u64));
    let totals = pairs.update_state_by_key(|_, ones, total: Option<&u64>| {
        Some(total.unwrap_or(&0) + ones.iter().sum::<u64>())
    });
    let counts = pairs.map_with_state(StateSpec::new(), |_, word, one, state| {
        let count = state.get().unwrap_or(&0) + one?;
        state.update(count);
        Some(format!("{word} {count}"))
    });
    let totals = totals.named("totals").collect();
    let counts = counts.named("counts").collect();
    let window = pairs.reduce_by_key_and_window(Interval::secs(3), Interval::secs(1), |a, b| a + b);
    window.named("window").collect();
    (ctx, totals, counts)
}

#[test]
fn states_of_a_program_that_uses_the_library() {
    let fixture = Fixture::new("states");
    fixture.changed_at("in", STATES_CHANGED);
    fs::write(fixture.path("in/3.log"), "a d e\n").expect("written");
    let (ctx, totals, counts) = states(fixture.0.path());
    ctx.run_batches(1).expect("the states are restored");
    let of = |name: &str, total: u64| (name.to_owned(), total);
    let mut last = totals.rows().pop().expect("a batch").1;
    last.sort();
    assert_eq!(last, [of("a", 4), of("b", 2), of("c", 2), of("d", 2), of("e", 1)]);
    let mut last: Vec<String> = counts.rows().pop().expect("a batch").1;
    last.sort();
    assert_eq!(last, ["a 4", "d 2", "e 1"]);
}

#[test]
fn what_a_spill_left_is_removed() {
    let fixture = Fixture::new("spill");
    let program = fixture.run("spill.toml", &[]);
    program.wait_for("listening");
    program.signal(Signal::TERM);
    program.until_stopped();
    let left = fs::read_dir(fixture.path("spill/tidemill-fixture"));
    let spilled = left.into_iter().flatten().filter(|entry| {
        let name = entry.as_ref().expect("listed").file_name();
        name.to_string_lossy().ends_with(".blocks")
    });
    assert_eq!(spilled.count(), 0);
}
