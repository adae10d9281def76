//! The owner of each output: orders of steps with state directories and output directories that are new, copied, restored
//! and swapped. After each run with exit code 0, every line that was ever acknowledged and not given up is in an output.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::program::Program;
use crate::program::peers::send;
use crate::verdicts::{Verdict, inspect};

/// A step of a story, in a directory of its own.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Runs with this state and this output, sends these lines, waits until they are in the log, stops in order: exit 0.
    Run(&'static str, &'static str, &'static [&'static str]),
    /// The same, but kills the run once the lines are acknowledged.
    Kill(&'static str, &'static str, &'static [&'static str]),
    /// The start is refused with exit code 1 and all of these words.
    Refused(&'static str, &'static str, &'static [&'static str]),
    /// Copies a directory over another one, whose content is gone.
    CopyAll(&'static str, &'static str),
    /// Removes a directory or a file.
    Remove(&'static str),
    /// Moves the data files of an output to another directory, as consumers of finished files do.
    Take(&'static str, &'static str),
    /// Removes the hidden files of a directory whose names end like this.
    RemoveHidden(&'static str, &'static str),
    /// The data files of these directories hold these lines, sorted.
    Expect(&'static [&'static str], &'static [&'static str]),
    /// From now on the configuration has this line in the section of the sink; one with a table makes it an SQLite sink.
    Sink(&'static str),
    /// Renames a file or directory.
    Move(&'static str, &'static str),
    /// Copies a file.
    #[cfg(feature = "sqlite")]
    Copy(&'static str, &'static str),
    /// Creates an empty directory, or empties an existing file.
    MakeEmpty(&'static str),
    /// Removes the files of a directory whose names begin like this.
    Lose(&'static str, &'static str),
    /// Cuts the file of a directory whose name ends like this to five bytes.
    Cut(&'static str, &'static str),
    /// Runs the `mv ONE OTHER` that the refused start named.
    MoveAsSaid,
    /// From now on these keys are at the head of the pipeline.
    Keys(&'static str),
    /// From now on the sink has this name.
    Name(&'static str),
    /// `inspect` with these options prints these words.
    Inspect(&'static [&'static str], &'static [&'static str]),
    /// Nothing has this name: a refused start created nothing.
    Absent(&'static str),
    /// The last run printed these words, each in a line.
    Said(&'static [&'static str]),
    /// The table `rows` of a database has these texts.
    #[cfg(feature = "sqlite")]
    Rows(&'static str, &'static [&'static str]),
}

use Step::{CopyAll, Expect, Kill, Refused, Remove, RemoveHidden, Run, Sink, Take};

struct World {
    directory: TempDir,
    sink: &'static str,
    keys: &'static str,
    name: &'static str,
    /// A planted defect, if the program has some.
    planted: Option<&'static str>,
    /// The messages of the last run.
    said: Vec<String>,
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The verdict of `inspect` on such a start, if there is a state that is not new: a new identity differs each time.
    fn verdict(&self, state: &str, out: &str) -> Option<Verdict> {
        self.write(state, out);
        let is_there = self.path(state).exists() && self.planted.is_none();
        is_there.then(|| inspect(self.directory.path(), state, "pipeline.toml", &[]))
    }

    /// `tidemill run` in the directory.
    fn start(&self, state: &str, out: &str) -> Program {
        self.write(state, out);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.current_dir(self.directory.path()).args(["run", "pipeline.toml"]);
        if let Some(defect) = self.planted {
            command.env("TIDEMILL_PLANTED", defect);
        }
        Program::of(&mut command)
    }

    fn write(&self, state: &str, out: &str) {
        let kind = if self.sink.contains("table = ") { "sqlite" } else { "file" };
        let name = self.name;
        let text = format!(
            "name = 'owners'\nbatch_interval = '1h'\nhttp = 'off'\nstate_dir = '{state}'\n{}\n\
             [source.in.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\n\
             [job.lines]\nfrom = ['in']\nlines = {{}}\nto = ['{name}']\n\
             [sink.{name}.{kind}]\npath = '{out}'\n{}\n",
            self.keys, self.sink
        );
        fs::write(self.path("pipeline.toml"), text).expect("written");
    }

    /// The lines of all data files of these directories, sorted.
    fn lines(&self, outs: &[&str]) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for out in outs {
            for path in data(&self.path(out)) {
                let text = fs::read_to_string(path).expect("text");
                lines.extend(text.lines().map(str::to_owned));
            }
        }
        lines.sort();
        lines
    }

    fn step(&mut self, step: Step) {
        match step {
            Run(state, out, lines) => {
                let verdict = self.verdict(state, out);
                verdict.into_iter().for_each(|it| it.expect(Some(0), ""));
                let program = self.start(state, out);
                self.said = send(&program, lines);
                program.signal(Signal::TERM);
                let (code, _, said) = program.finish();
                assert_eq!(code, Some(0), "{}", said.join("\n"));
                self.said.extend(said);
            }
            Kill(state, out, lines) => {
                let mut program = self.start(state, out);
                send(&program, lines);
                program.process.kill();
            }
            Refused(state, out, words) => {
                let verdict = self.verdict(state, out);
                let (code, _, said) = self.start(state, out).finish();
                self.said = said;
                let said = self.said.join("\n");
                assert_eq!(code, Some(1), "{said}");
                verdict.into_iter().for_each(|it| it.expect(code, &said));
                words.iter().for_each(|word| assert!(said.contains(word), "no `{word}` in {said}"));
            }
            CopyAll(from, to) => {
                remove(&self.path(to));
                copy(&self.path(from), &self.path(to));
            }
            Remove(name) => remove(&self.path(name)),
            Take(from, to) => {
                fs::create_dir_all(self.path(to)).expect("made");
                for path in data(&self.path(from)) {
                    let name = path.file_name().expect("a name").to_owned();
                    fs::rename(&path, self.path(to).join(name)).expect("moved");
                }
            }
            RemoveHidden(name, end) => {
                let hidden = |path: &PathBuf| {
                    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                    name.starts_with('.') && name.ends_with(end)
                };
                let all = listed(&self.path(name)).into_iter().filter(hidden);
                let removed = all.map(|path| fs::remove_file(path).expect("removed")).count();
                assert!(removed > 0, "no hidden file ends in {end}");
            }
            Expect(outs, lines) => assert_eq!(self.lines(outs), lines, "in {outs:?}"),
            Sink(line) => self.sink = line,
            Step::Move(from, to) => fs::rename(self.path(from), self.path(to)).expect("moved"),
            #[cfg(feature = "sqlite")]
            Step::Copy(from, to) => drop(fs::copy(self.path(from), self.path(to)).expect("copied")),
            Step::MakeEmpty(name) => match self.path(name).is_file() {
                true => fs::write(self.path(name), "").expect("written"),
                false => fs::create_dir(self.path(name)).expect("made"),
            },
            Step::Lose(directory, begin) => {
                let is_lost = |path: &PathBuf| {
                    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin))
                };
                let all = listed(&self.path(directory)).into_iter().filter(is_lost);
                let removed = all.map(|path| fs::remove_file(path).expect("removed")).count();
                assert!(removed > 0, "nothing begins with {begin}");
            }
            Step::Cut(directory, end) => {
                let is_meant = |path: &PathBuf| path.to_string_lossy().ends_with(end);
                let found = listed(&self.path(directory)).into_iter().find(is_meant);
                let bytes = fs::read(found.as_ref().expect("there")).expect("read");
                fs::write(found.expect("there"), &bytes[..5]).expect("written");
            }
            Step::MoveAsSaid => {
                let said = self.said.join("\n");
                let (_, words) = said.split_once(": mv ").expect("it names what to move");
                let (from, rest) = words.split_once(' ').expect("two paths");
                let to = rest.split([',', '\n']).next().expect("the other path");
                fs::rename(self.path(from), self.path(to)).expect("moved");
            }
            Step::Keys(keys) => self.keys = keys,
            Step::Name(name) => self.name = name,
            Step::Inspect(options, words) => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
                command.current_dir(self.directory.path()).arg("inspect").args(options);
                let output = command.output().expect("it runs");
                let shown = String::from_utf8_lossy(&output.stdout);
                words.iter().for_each(|it| assert!(shown.contains(it), "no `{it}` in {shown}"));
            }
            Step::Absent(name) => assert!(!self.path(name).exists(), "{name} is there"),
            Step::Said(words) => {
                let said = self.said.join("\n");
                words.iter().for_each(|word| assert!(said.contains(word), "no `{word}` in {said}"));
            }
            #[cfg(feature = "sqlite")]
            Step::Rows(name, expected) => {
                let database = rusqlite::Connection::open(self.path(name)).expect("a database");
                let mut all = database.prepare("SELECT c1 FROM rows ORDER BY c1").expect("a table");
                let rows = all.query_map([], |row| row.get::<_, String>(0)).expect("rows");
                let rows: Vec<String> = rows.map(|row| row.expect("a text")).collect();
                assert_eq!(rows, expected, "in {name}");
            }
        }
    }
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.expect("listed").path()).collect()
}

/// The data files of a directory.
fn data(directory: &Path) -> Vec<PathBuf> {
    let is_data = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        !name.starts_with('.') && path.is_file()
    };
    listed(directory).into_iter().filter(is_data).collect()
}

fn remove(directory: &Path) {
    if directory.is_file() {
        fs::remove_file(directory).expect("removed");
    } else if directory.exists() {
        fs::remove_dir_all(directory).expect("removed");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for path in listed(from) {
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
}

pub fn check(sink: &'static str, steps: &[Step]) {
    check_with(sink, steps, None);
}

/// With this planted defect in the program.
fn check_with(sink: &'static str, steps: &[Step], planted: Option<&'static str>) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut world = World { directory, sink, keys: "", name: "out", planted, said: Vec::new() };
    for (at, step) in steps.iter().enumerate() {
        eprintln!("step {at}: {step:?}");
        world.step(*step);
    }
}

pub const ROLL: &str = "roll = { bytes = '1MiB' }";
pub const APPEND: &str = "existing = 'append'";

#[test]
fn a_new_state_does_not_count_what_another_one_wrote() {
    for sink in ["", ROLL] {
        check(
            sink,
            &[
                Run("s1", "out", &["one"]),
                Refused(
                    "s2",
                    "out",
                    &[
                        "out holds output of",
                        "s1",
                        "s2",
                        "another directory",
                        "existing = \"append\"",
                    ],
                ),
                Expect(&["out"], &["one"]),
                Run("s2", "other", &["two"]),
                Run("s1", "out", &["three"]),
                Expect(&["out", "other"], &["one", "three", "two"]),
            ],
        );
    }
}

#[test]
fn what_is_appended_lies_beside_and_nothing_is_lost() {
    for sink in [APPEND, "existing = 'append'\nroll = { bytes = '1MiB' }"] {
        check(
            "",
            &[
                Run("s1", "out", &["one"]),
                Sink(sink),
                Run("s2", "out", &["two"]),
                Kill("s2", "out", &["three"]),
                Run("s2", "out", &["four"]),
                Expect(&["out"], &["four", "one", "three", "two"]),
                Sink(""),
                Refused("s1", "out", &["holds output of"]),
            ],
        );
    }
}

#[test]
fn a_state_may_go_on_with_a_new_output_and_with_the_old_one() {
    for sink in ["", ROLL] {
        check(
            sink,
            &[
                Run("s", "out1", &["one"]),
                Run("s", "out2", &["two"]),
                Run("s", "out1", &["three"]),
                Kill("s", "out1", &["four"]),
                Run("s", "out2", &["five"]),
                Expect(&["out1", "out2"], &["five", "four", "one", "three", "two"]),
            ],
        );
    }
}

#[test]
fn finished_files_may_be_taken_away() {
    for sink in ["", ROLL] {
        check(
            sink,
            &[
                Run("s", "out", &["one"]),
                Take("out", "taken"),
                Run("s", "out", &["two"]),
                Kill("s", "out", &["three"]),
                Run("s", "out", &[]),
                Take("out", "taken"),
                Run("s", "out", &["four"]),
                Expect(&["out"], &["four"]),
                Expect(&["out", "taken"], &["four", "one", "three", "two"]),
                Remove("taken"),
                Run("s", "out", &["five"]),
                Expect(&["out"], &["five", "four"]),
            ],
        );
    }
}

#[test]
fn a_restored_state_does_not_go_on_with_newer_output() {
    for sink in ["", ROLL] {
        check(
            sink,
            &[
                Run("s", "out", &["one"]),
                CopyAll("s", "s.copy"),
                Run("s", "out", &["two"]),
                CopyAll("s.copy", "s"),
                Refused(
                    "s",
                    "out",
                    &["out holds output", "knows nothing of", "restored from an older copy"],
                ),
                Run("s", "out2", &["three"]),
                Run("s", "out2", &["four"]),
                // It has counted on, and still differs from the one that wrote there.
                Refused("s", "out", &["knows nothing of"]),
                Sink(APPEND),
                Run("s", "out", &["five"]),
                Expect(&["out", "out2"], &["five", "four", "one", "three", "two"]),
            ],
        );
    }
}

#[test]
fn restored_output_does_not_pass_for_what_was_written() {
    for sink in ["", ROLL] {
        check(
            sink,
            &[
                Run("s", "out", &["one"]),
                CopyAll("out", "out.copy"),
                Run("s", "out", &["two"]),
                CopyAll("out.copy", "out"),
                Refused(
                    "s",
                    "out",
                    &["out holds 1 commit of", "made 2 there", "of the same moment"],
                ),
                Run("s", "out2", &["three"]),
                Expect(&["out2"], &["three"]),
            ],
        );
    }
}

#[test]
fn both_restored_to_one_moment_go_on() {
    for sink in ["", ROLL] {
        check(
            sink,
            &[
                Run("s", "out", &["one"]),
                Kill("s", "out", &["two"]),
                CopyAll("s", "s.copy"),
                CopyAll("out", "out.copy"),
                Run("s", "out", &["three"]),
                CopyAll("s.copy", "s"),
                CopyAll("out.copy", "out"),
                Run("s", "out", &["four"]),
                Expect(&["out"], &["four", "one", "two"]),
            ],
        );
    }
}

#[test]
fn output_without_its_ledger_is_not_taken_for_anything() {
    check(
        "",
        &[
            Run("s", "out", &["one"]),
            RemoveHidden("out", ".ledger"),
            Refused("s", "out", &["lines-", "did not write", "or its ledger", "hidden files too"]),
            // Then no committed file is there.
            Take("out", "taken"),
            Refused("s", "out", &["out holds nothing of", "made 1 commit there"]),
            Sink(APPEND),
            Run("s", "out", &["two"]),
            Sink(""),
            Run("s", "out", &["three"]),
            Expect(&["out", "taken"], &["one", "three", "two"]),
        ],
    );
}

/// Without a state directory nothing is remembered, and the output of others is not touched.
#[test]
fn a_run_without_a_state_leaves_the_output_of_others_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let world =
        World { directory, sink: "", keys: "", name: "out", planted: None, said: Vec::new() };
    let send_to = |program: Program| {
        let mut peer =
            TcpStream::connect(program.address_after("listening on")).expect("it listens");
        peer.write_all(b"a line\n").expect("it reads");
        drop(peer);
        program.finish()
    };
    let run = |out: &str, more: &[&str]| {
        let to = format!("file://{out}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let from = ["run", "--from", "tcp-listen://127.0.0.1:0", "--job", "lines", "--to", &to];
        command.current_dir(world.directory.path()).args(from).args(more);
        Program::of(command.args(["--every", "1s", "--until-eof", "--http", "off"]))
    };
    assert_eq!(send_to(run("out", &["--state-dir", "s"])).0, Some(0));
    let (code, _, said) = run("out", &[]).finish();
    let said = said.join("\n");
    assert!(code == Some(1) && said.contains("out holds output of the pipeline"), "{said}");
    assert_eq!(send_to(run("out", &["--set", "sink.out.existing=append"])).0, Some(0));
    assert_eq!(send_to(run("other", &[])).0, Some(0));
    let (code, _, said) = run("other", &["--state-dir", "s"]).finish();
    let said = said.join("\n");
    assert!(code == Some(1) && said.contains("without a `state_dir`"), "{said}");
    assert_eq!(world.lines(&["out"]).len() + world.lines(&["other"]).len(), 3);
}

/// The case from a report: plain TCP, a batch of an hour, and a new state directory for the same output.
#[test]
fn the_reported_case() {
    let directory = tempfile::tempdir().expect("a directory");
    let world =
        World { directory, sink: "", keys: "", name: "out", planted: None, said: Vec::new() };
    let start = |state: &str, out: &str| {
        let to = format!("file://{out}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let from = ["run", "--from", "tcp-listen://127.0.0.1:0", "--job", "lines", "--to", &to];
        let rest = ["--every", "1h", "--state-dir", state, "--http", "off", "--until-eof"];
        command.current_dir(world.directory.path()).args(from).args(rest);
        Program::of(&mut command)
    };
    let run = |state: &str, out: &str, line: &str| {
        let program = start(state, out);
        let mut peer =
            TcpStream::connect(program.address_after("listening on")).expect("it listens");
        peer.write_all(line.as_bytes()).expect("it reads");
        drop(peer);
        program.finish()
    };
    assert_eq!(run("s1", "out", "one\n").0, Some(0));
    let (code, _, said) = start("s2", "out").finish();
    assert_eq!(code, Some(1), "{}", said.join("\n"));
    assert!(said.join("\n").contains("out holds output of the pipeline"), "{}", said.join("\n"));
    assert_eq!(world.lines(&["out"]), ["one"]);
}

/// A program that takes a batch for committed by its label loses a record, and the test finds it.
#[cfg(tidemill_planted)]
#[test]
fn planted_a_commit_by_label_is_found() {
    let steps =
        [Run("s1", "out", &["one"]), Run("s2", "out", &["two"]), Expect(&["out"], &["one", "two"])];
    let outcome = std::panic::catch_unwind(|| check_with("", &steps, Some("CommitByLabel")));
    let found = outcome.expect_err("the second line is in no file");
    let said = found.downcast_ref::<String>().map(String::as_str).unwrap_or_default();
    assert!(said.contains("in [\"out\"]"), "{said}");
}
