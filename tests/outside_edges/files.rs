//! Operations of other programs on files while a `files` source reads them. Each situation is a list of steps, and the rows
//! that must result, each once and in order.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Program, WATCHDOG};

/// An operation on the directory, or an expected result.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Appends to a file; creates it if necessary.
    Append(&'static str, &'static str),
    /// Creates a file elsewhere and renames it into the directory.
    Put(&'static str, &'static [u8]),
    Rename(&'static str, &'static str),
    Remove(&'static str),
    HardLink(&'static str, &'static str),
    SymbolicLink(&'static str, &'static str),
    /// Copies a file, truncates it, and writes more, as `copytruncate` of `logrotate` does.
    CopyTruncate(&'static str, &'static str, &'static str),
    /// Opens a file as a program that writes to it and continues whatever happens to its name.
    Open(&'static str),
    /// That program writes.
    Write(&'static str, &'static str),
    /// Renames the whole directory, or renames it back.
    MoveDirectory,
    BringDirectory,
    /// Stops the program in order and starts it again.
    Stop,
    Start,
    /// These rows come next, and no others before them.
    Rows(&'static [&'static str]),
    /// A message with these words comes next.
    Says(&'static str),
}

use Step::{
    Append, BringDirectory, CopyTruncate, HardLink, MoveDirectory, Open, Put, Remove, Rename, Rows,
    Says, Start, Stop, SymbolicLink,
};

/// A directory, and the program that reads it.
struct Situation {
    directory: TempDir,
    program: Option<Program>,
    rows: Vec<String>,
    writers: HashMap<&'static str, File>,
}

impl Situation {
    fn new(keys: &str) -> Situation {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display();
        fs::create_dir(directory.path().join("in")).expect("made");
        let text = format!(
            "batch_interval = '20ms'\nskip_empty = true\nstate_dir = '{path}/state'\nhttp = 'off'\n\
             [source.logs.files]\ndirectory = '{path}/in'\n{keys}\n\
             [job.j]\nfrom = ['logs']\nto = ['screen']\nlines = {{}}\n[sink.screen.console]\nformat = 'json'\n"
        );
        fs::write(directory.path().join("pipeline.toml"), text).expect("written");
        Situation { directory, program: None, rows: Vec::new(), writers: HashMap::new() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("in").join(name)
    }

    fn take(&mut self, step: Step) {
        match step {
            Append(name, text) => append(&self.file(name), text),
            Put(name, bytes) => {
                let aside = self.directory.path().join("aside");
                fs::write(&aside, bytes).expect("written");
                fs::rename(aside, self.file(name)).expect("renamed");
            }
            Rename(from, to) => fs::rename(self.file(from), self.file(to)).expect("renamed"),
            Remove(name) => fs::remove_file(self.file(name)).expect("removed"),
            HardLink(name, to) => fs::hard_link(self.file(name), self.file(to)).expect("linked"),
            SymbolicLink(name, to) => symlink(name, self.file(to)).expect("linked"),
            CopyTruncate(name, to, text) => {
                fs::copy(self.file(name), self.file(to)).expect("copied");
                let file = OpenOptions::new().append(true).open(self.file(name)).expect("there");
                file.set_len(0).expect("cut");
                append(&self.file(name), text);
            }
            Open(name) => {
                let file = OpenOptions::new().append(true).create(true).open(self.file(name));
                self.writers.insert(name, file.expect("opened"));
            }
            Step::Write(name, text) => {
                let writer = self.writers.get_mut(name).expect("it was opened");
                writer.write_all(text.as_bytes()).expect("written");
            }
            MoveDirectory => {
                fs::rename(self.file(""), self.directory.path().join("away")).expect("moved")
            }
            BringDirectory => {
                fs::rename(self.directory.path().join("away"), self.file("")).expect("moved")
            }
            Start => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
                command.arg("run").arg(self.directory.path().join("pipeline.toml"));
                self.program = Some(Program::of(&mut command));
            }
            Stop => self.stop(),
            Rows(expected) => self.expect_rows(expected),
            Says(words) => {
                self.program().wait_for(words);
            }
        }
    }

    fn program(&self) -> &Program {
        self.program.as_ref().expect("it runs")
    }

    fn expect_rows(&mut self, expected: &[&str]) {
        while self.rows.len() < expected.len() {
            let line = self.program().out.recv_timeout(WATCHDOG);
            let line =
                line.unwrap_or_else(|_| panic!("{expected:?}, and there were {:?}", self.rows));
            self.rows.extend(rows(&line));
        }
        assert_eq!(self.rows, expected);
        self.rows.clear();
    }

    /// Stops; no rows may come beyond the expected ones.
    fn stop(&mut self) {
        let program = self.program.take().expect("it runs");
        program.signal(rustix::process::Signal::TERM);
        let (code, out, said) = program.finish();
        self.rows.extend(out.iter().flat_map(|line| rows(line)));
        assert_eq!((code, self.rows.as_slice()), (Some(0), &[][..]), "{}", said.join("\n"));
    }
}

fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
}

/// The first cell of each row of a batch.
fn rows(line: &str) -> Vec<String> {
    let batch: Value = serde_json::from_str(line).expect("JSON");
    let rows = batch["rows"].as_array().expect("rows");
    rows.iter().map(|row| row[0].as_str().expect("text").to_owned()).collect()
}

/// Runs the steps between a start and a stop.
fn check(keys: &str, steps: &[Step]) {
    let mut situation = Situation::new(keys);
    for step in [&[Start][..], steps, &[Stop]].concat() {
        situation.take(step);
    }
}

#[test]
fn a_link_beside_its_file_is_read_once() {
    let steps = [
        Append("a", "1\n"),
        Rows(&["1"]),
        HardLink("a", "b"),
        SymbolicLink("a", "c"),
        Append("b", "2\n"),
        Rows(&["2"]),
        Remove("a"),
        Append("b", "3\n"),
        Rows(&["3"]),
        Append("equal", "1\n2\n3\n"),
        Rows(&["1", "2", "3"]),
    ];
    check("", &steps);
    check("follow_links = true", &steps);
    check(
        "follow_links = false",
        &[
            SymbolicLink("/etc/hostname", "l"),
            Says("file `l`: it is a link"),
            Append("a", "1\n"),
            Rows(&["1"]),
        ],
    );
}

#[test]
fn rotation_by_renaming_loses_and_repeats_nothing() {
    let rotate = [
        Open("log"),
        Step::Write("log", "1\n2\n"),
        Rows(&["1", "2"]),
        Rename("log", "log.1"),
        Step::Write("log", "3\n"),
        Rows(&["3"]),
        Append("log", "4\n"),
        Rows(&["4"]),
        Rename("log.1", "log.2"),
        Rename("log", "log.1"),
        Step::Write("log", "5\n"),
        Rows(&["5"]),
        // Outside the directory, while its program still writes.
        Remove("log.2"),
        Step::Write("log", "6\n"),
        Rows(&["6"]),
    ];
    check("", &rotate);
    check("include = ['log']", &rotate);
    check("exclude = ['log.*']", &rotate);
}

#[test]
fn a_file_that_is_cut_and_grows_again_is_read_from_its_start() {
    check(
        "exclude = ['*.1']",
        &[
            Append("log", "1\n2\n3\n"),
            Rows(&["1", "2", "3"]),
            CopyTruncate("log", "log.1", "4\n"),
            Says("file `log`: it was cut to "),
            Rows(&["4"]),
            // The same length as before, and longer.
            CopyTruncate("log", "log.1", "5\n"),
            Rows(&["5"]),
            CopyTruncate("log", "log.1", "6 and more than was there\n7\n"),
            Rows(&["6 and more than was there", "7"]),
        ],
    );
}

#[test]
fn a_copy_is_a_file_of_its_own() {
    check(
        "",
        &[
            Append("log", "1\n"),
            Rows(&["1"]),
            CopyTruncate("log", "log.1", ""),
            Rows(&["1"]),
            Append("log", "2\n"),
            Rows(&["2"]),
        ],
    );
}

#[test]
fn a_file_of_the_same_name_is_another_one() {
    check(
        "",
        &[
            Append("log", "1\n"),
            Rows(&["1"]),
            Remove("log"),
            Append("log", "1\n"),
            Rows(&["1"]),
            Put("log", b"1\n"),
            Rows(&["1"]),
        ],
    );
}

#[test]
fn compressed_files_are_passed_over_and_said() {
    check(
        "",
        &[
            Append("log", "1\n"),
            Rows(&["1"]),
            Put("log.1.gz", b"\x1F\x8B\x08\0\0\0\0\0\0\x03junk\njunk\n"),
            Says("file `log.1.gz`: its name is like `*.gz`"),
            Put("old", b"\x1F\x8B\x08\0\0\0\0\0\0\x03junk\njunk\n"),
            Says("file `old`: it is compressed (gzip), and is not read"),
            Put("zst", b"\x28\xB5\x2F\xFD\x04\x00junk\n"),
            Says("file `zst`: it is compressed (zstd)"),
            Append("log", "2\n"),
            Rows(&["2"]),
        ],
    );
}

#[test]
fn what_happens_between_two_runs_is_no_reason_to_lose_or_repeat() {
    check(
        "",
        &[
            Append("a", "1\n2\n"),
            Rows(&["1", "2"]),
            Append("b", "3\n"),
            Rows(&["3"]),
            Stop,
            Rename("a", "a.1"),
            Append("a.1", "4\n"),
            HardLink("a.1", "z"),
            Start,
            Rows(&["4"]),
            Stop,
            // Another file under the old name, perhaps with the old inode; and one that was truncated and has grown.
            Remove("b"),
            Append("b", "5 is longer than what was there\n"),
            Start,
            Rows(&["5 is longer than what was there"]),
            Stop,
            CopyTruncate("a.1", "c.tmp", "6 is longer than what was there\n"),
            Start,
            Rows(&["6 is longer than what was there"]),
        ],
    );
}

#[test]
fn a_directory_that_is_gone_comes_back() {
    let mut situation = Situation::new("");
    let steps = [
        Start,
        Append("a", "1\n"),
        Rows(&["1"]),
        MoveDirectory,
        Says("source `logs`: cannot list the directory"),
    ];
    steps.into_iter().for_each(|step| situation.take(step));
    // Another directory of that name: the positions in the first one stay known.
    fs::create_dir(situation.file("")).expect("made");
    fs::write(situation.file("b"), "2\n").expect("written");
    situation.take(Rows(&["2"]));
    fs::remove_file(situation.file("b")).expect("removed");
    fs::remove_dir(situation.file("")).expect("removed");
    for step in [
        BringDirectory,
        Append("a", "3\n"),
        Rows(&["3"]),
        Says("source `logs` is there again"),
        Stop,
    ] {
        situation.take(step);
    }
}

/// Records that hold line feeds go through a text file and back.
#[test]
fn escaped_records_are_read_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let records = ["one\ntwo", "C:\\temp", "C:\\new", "end\\\n", "\r", "", "a\r\nb\r"];
    let framed = |record: &&str| {
        [&u32::try_from(record.len()).expect("short").to_be_bytes()[..], record.as_bytes()].concat()
    };
    for name in ["in", "text"] {
        fs::create_dir(path(name)).expect("made");
    }
    fs::write(path("in/a"), records.iter().flat_map(framed).collect::<Vec<u8>>()).expect("written");
    let run = |from: &str, to: &str, set: &str| {
        let from = format!("files://{}", path(from));
        let args = [
            "run",
            "--http",
            "off",
            "--from",
            &from,
            "--job",
            "lines",
            "--to",
            to,
            "--until-eof",
            "--set",
            set,
        ];
        let (code, out, said) = Program::start(&args).finish();
        assert_eq!(code, Some(0), "{}", said.join("\n"));
        out.iter().flat_map(|line| rows(line)).collect::<Vec<_>>()
    };
    run("in", &format!("file://{}", path("text")), "source.in.files.framing=u32");
    assert_eq!(run("text", "json", "source.in.files.unescape=true"), records);
}
