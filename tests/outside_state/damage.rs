//! Damage to a `state_dir` from outside the program: files are deleted, lost in a copy, cut, swapped, or restored from an
//! older copy. A start reports the missing parts and is refused, `inspect` reports the same and changes nothing, and the
//! command that the message names fixes it.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::program::peers::send;
use crate::program::{Program, WATCHDOG};

/// The end of a run. Received records wait for the first batch, which is an hour away; a stop processes them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kill,
    Stop,
}

use End::{Kill, Stop};

/// A change of the files.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// These files are lost.
    Lose(&'static [&'static str]),
    /// A file ends at this length.
    Cut(&'static str, u64),
    /// A file ends this many bytes before its last byte that is not zero.
    CutTail(&'static str, u64),
    /// The byte at this offset differs.
    Flip(&'static str, u64),
    /// A file has its content from after this run, counted from 1.
    Older(&'static str, usize),
    /// A file is that of another pipeline with the same history.
    Foreign(&'static str),
    /// Every file whose name begins like this is lost.
    LoseAll(&'static str),
}

use Harm::{Cut, CutTail, Flip, Foreign, Lose, LoseAll, Older};

/// The reaction of a start.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// It is refused with these words. Afterwards at least the lines of this many lives are in the output, and perhaps a
    /// part of the next one's.
    Refused(&'static [&'static str], usize),
    /// It continues with these words; the lines of this many lives are in the output.
    Starts(&'static [&'static str], usize),
}

use Outcome::{Refused, Starts};

/// Number of lines that each run receives.
const LINES: u64 = 20;

struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().expect("a directory"));
        let text = "name = 'damage'\nbatch_interval = '1h'\nhttp = 'off'\nstate_dir = 'state'\n\
            [source.in.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\n\
            [job.lines]\nfrom = ['in']\nlines = {}\nto = ['out']\n[sink.out.file]\npath = 'out'\n";
        fs::write(place.path("pipeline.toml"), text).expect("written");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn state(&self, name: &str) -> PathBuf {
        self.path("state").join(name)
    }

    fn start(&self, options: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.current_dir(self.0.path()).args(["run", "pipeline.toml"]).args(options);
        Program::of(&mut command)
    }

    /// Runs with these ends, each with lines of its own; keeps the state after each in `after-N`.
    fn live(&self, ends: &[End]) {
        for (life, end) in (0..).zip(ends) {
            let mut program = self.start(&[]);
            let numbers = life * LINES..(life + 1) * LINES;
            send(&program, &numbers.map(|number| format!("{number} line")).collect::<Vec<_>>());
            match end {
                Kill => program.process.kill(),
                Stop => program.stop(),
            }
            copy(&self.path("state"), &self.path(&format!("after-{}", life + 1)));
        }
    }

    fn tidemill(&self, words: &str) -> Output {
        // As a shell parses them: the messages name commands that people copy.
        let mut shell = Command::new("sh");
        let tidemill = Path::new(env!("CARGO_BIN_EXE_tidemill"));
        let path = format!("{}:/usr/bin:/bin", tidemill.parent().expect("a directory").display());
        shell.current_dir(self.0.path()).env("PATH", path).args(["-c", words]);
        shell.output().expect("it runs")
    }

    /// Runs `inspect` on the state: exit code, and all its messages. It changes nothing.
    fn inspect(&self) -> (Option<i32>, String) {
        let before = snapshot(&self.path("state"));
        let output = self.tidemill("tidemill inspect state");
        assert!(snapshot(&self.path("state")) == before, "inspect changed something");
        (output.status.code(), text(&output))
    }

    /// The numbers of the lines in the output.
    fn numbers(&self) -> BTreeSet<u64> {
        let files = listed(&self.path("out")).into_iter().filter(|path| {
            !path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'))
        });
        let lines = files.flat_map(|path| {
            let text = fs::read_to_string(path).expect("text");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        lines
            .map(|line| line.split(' ').next().and_then(|it| it.parse().ok()).expect("N"))
            .collect()
    }

    fn harm(&self, harm: Harm, other: &Place) {
        match harm {
            Lose(names) => names.iter().for_each(|name| {
                fs::remove_file(self.state(name)).expect("it was there");
            }),
            LoseAll(start) => {
                let is_meant = |path: &&PathBuf| {
                    path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(start))
                };
                let all = listed(&self.path("state"));
                let lost = all.iter().filter(is_meant).map(fs::remove_file);
                assert!(
                    lost.map(|it| it.expect("removed")).count() > 0,
                    "no file begins with {start}"
                );
            }
            Cut(name, length) => {
                let file = OpenOptions::new().write(true).open(self.state(name)).expect("there");
                file.set_len(length).expect("cut");
            }
            CutTail(name, bytes) => {
                let held = fs::read(self.state(name)).expect("there");
                let last = held.iter().rposition(|byte| *byte != 0).expect("not empty") as u64;
                self.harm(Cut(name, last + 1 - bytes), other);
            }
            Flip(name, at) => {
                let mut held = fs::read(self.state(name)).expect("there");
                held[usize::try_from(at).expect("small")] ^= 1;
                fs::write(self.state(name), held).expect("written");
            }
            Older(name, life) => {
                let copy = self.path(&format!("after-{life}")).join(name);
                fs::copy(copy, self.state(name)).expect("copied");
            }
            Foreign(name) => {
                fs::copy(other.state(name), self.state(name)).expect("copied");
            }
        }
    }

    /// A start that stops at once in order: its messages.
    fn start_and_stop(&self, options: &[&str]) -> String {
        let program = self.start(options);
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.contains("listening on")) {
            said.push(program.err.recv_timeout(WATCHDOG).expect("it listens"));
        }
        program.signal(Signal::TERM);
        let (code, _, rest) = program.finish();
        said.extend(rest);
        assert_eq!(code, Some(0), "{}", said.join("\n"));
        said.join("\n")
    }
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.expect("listed").path()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    // Unwritten parts of a segment are not copied: a spare is 64 MiB of nothing.
    let is_used = |path: &PathBuf| {
        path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with("spare"))
    };
    for path in listed(from).into_iter().filter(is_used) {
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
}

/// The files of a directory: names, bytes and times.
fn snapshot(directory: &Path) -> Vec<(PathBuf, u64, SystemTime, Vec<u8>)> {
    let mut files: Vec<_> = listed(directory)
        .into_iter()
        .map(|path| {
            let about = path.metadata().expect("there");
            let modified = about.modified().expect("a time");
            let is_spare = path.to_string_lossy().contains("spare");
            let bytes = if is_spare { Vec::new() } else { fs::read(&path).expect("read") };
            (path, about.len(), modified, bytes)
        })
        .collect();
    files.sort();
    files
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// The command that a message names, between backticks.
fn named_command<'a>(said: &'a str, option: &str) -> &'a str {
    let commands = said.split('`').filter(|words| words.starts_with("tidemill inspect "));
    let mut commands = commands.filter(|words| words.contains(option));
    commands.next().unwrap_or_else(|| panic!("no command with {option} in {said}"))
}

/// Checks standard error of a loss if standard output goes there, and the exit code.
fn check_told(output: &str, code: i32) {
    let place = Place::new();
    place.live(&[Kill, Kill]);
    place.harm(Lose(&[TWO]), &place);
    let accepted = place.tidemill(&format!("tidemill inspect state --accept-loss {output}"));
    let said = String::from_utf8_lossy(&accepted.stderr);
    expect_all(&said, &["given up: ", "; the log ends at "]);
    assert_eq!(accepted.status.code(), Some(code), "{output}: {said}");
}

#[test]
fn a_loss_is_told_where_standard_output_takes_nothing() {
    check_told(">&-", 0);
    check_told(">/dev/full", 1);
    check_told("<>/dev/null >&0", 0);
}

fn expect_all(said: &str, words: &[&str]) {
    words.iter().for_each(|word| assert!(said.contains(word), "no `{word}` in:\n{said}"));
}

fn check(ends: &[End], harms: &[Harm], outcome: Outcome) {
    let (place, other) = (Place::new(), Place::new());
    place.live(ends);
    if harms.iter().any(|harm| matches!(harm, Foreign(_))) {
        other.live(ends);
    }
    harms.iter().for_each(|harm| place.harm(*harm, &other));
    let (code, looked) = place.inspect();
    let (words, lives) = match outcome {
        Refused(words, lives) => {
            assert_eq!(code, Some(1), "{looked}");
            expect_all(&looked, words);
            let (code, _, said) = place.start(&[]).finish();
            let said = said.join("\n");
            assert_eq!(code, Some(1), "{said}");
            expect_all(&said, words);
            let command = named_command(&said, "--accept-loss");
            let accepted = place.tidemill(command);
            assert!(accepted.status.success(), "{command}: {}", text(&accepted));
            expect_all(&text(&accepted), &["given up: ", "a start would succeed"]);
            (&[][..], lives)
        }
        Starts(words, lives) => (words, lives),
    };
    let (code, looked) = place.inspect();
    assert_eq!(code, Some(0), "{looked}");
    let said = place.start_and_stop(&["--set", "sink.out.existing=append"]);
    expect_all(&said, words);
    let numbers = place.numbers();
    let all = 0..lives as u64 * LINES;
    assert!(all.clone().all(|number| numbers.contains(&number)), "{lives} lives, {numbers:?}");
    // A prefix of the sent lines, and nothing else.
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{numbers:?}");
    // Of a life whose end is lost some lines may be left: they come in one group or in several.
    let is_cut = harms.iter().any(|harm| matches!(harm, CutTail(..)));
    let most = if matches!(outcome, Starts(..)) && !is_cut { lives } else { lives + 1 };
    assert!(numbers.len() as u64 <= most as u64 * LINES, "{numbers:?}");
    let (code, looked) = place.inspect();
    assert_eq!(code, Some(0), "{looked}");
}

const ONE: &str = "wal-000000000001.seg";
const TWO: &str = "wal-000000000002.seg";
const THREE: &str = "wal-000000000003.seg";
const LIST: &str = "segments";

const KILLS: &[End] = &[Kill, Kill, Kill];

#[test]
fn segments_that_are_missing() {
    const FIRST: &str = "segment 1 (wal-000000000001.seg) at offset 0: the file is missing: group";
    const SECOND: &str = "segment 2 (wal-000000000002.seg) at offset 0: the file is missing: group";
    const THIRD: &str = "segment 3 (wal-000000000003.seg) at offset 0: the file is missing: group";
    check(KILLS, &[Lose(&[THREE])], Refused(&[THIRD, "lost at least"], 2));
    check(KILLS, &[Lose(&[TWO, THREE])], Refused(&[SECOND], 1));
    check(KILLS, &[Lose(&[TWO])], Refused(&[SECOND], 1));
    check(KILLS, &[LoseAll("wal-")], Refused(&[FIRST], 0));
    // After an orderly stop: the output stays, and has nothing twice.
    check(&[Kill, Stop], &[Lose(&[TWO])], Refused(&[SECOND], 2));
    check(&[Stop, Stop], &[LoseAll("wal-")], Refused(&["the file is missing: group"], 2));
}

#[test]
fn segments_that_are_cut() {
    const SECOND: &str = "segment 2 (wal-000000000002.seg) at offset ";
    const SYNCED: &str = ": the list `segments` says that it is synced up to ";
    check(KILLS, &[Cut(TWO, 400)], Refused(&[SECOND, SYNCED], 1));
    check(KILLS, &[Cut(TWO, 10)], Refused(&[SECOND, "the file ends after 10 bytes"], 1));
    // The newest segment, inside its first group; after a stop, inside the last one.
    check(KILLS, &[Cut(THREE, 100)], Refused(&["segment 3 ", SYNCED], 2));
    check(&[Kill, Stop], &[CutTail(TWO, 1)], Refused(&[SECOND, "the list `segments` says"], 2));
    // The end of the newest segment after a kill: a crash leaves the same. Nobody can tell these apart.
    check(KILLS, &[CutTail(THREE, 1)], Starts(&["the unfinished end of segment 3 was cut off"], 2));
}

#[test]
fn segments_that_are_damaged_or_another_log_s() {
    check(KILLS, &[Flip(ONE, 20)], Refused(&["the checksum of the header does not match"], 0));
    check(KILLS, &[Flip(TWO, 70)], Refused(&["segment 2 ", "there is no whole group header"], 1));
    check(KILLS, &[Foreign(THREE)], Refused(&["segment 3 ", "a segment of another log"], 2));
    check(KILLS, &[Foreign(TWO)], Refused(&["segment 2 ", "a segment of another log"], 1));
    check(KILLS, &[Older(TWO, 2)], Starts(&["recovered 3 segments"], 3));
}

#[test]
fn a_list_that_is_missing_damaged_or_another_one() {
    const MISSING: &str = "the list `segments` is missing: the newest segment that is there is 3";
    check(KILLS, &[Lose(&[LIST])], Refused(&[MISSING], 3));
    check(&[Stop, Stop, Stop], &[Lose(&[LIST])], Refused(&[MISSING], 3));
    check(
        KILLS,
        &[Flip(LIST, 30)],
        Refused(&["the list `segments`: the checksum does not match"], 3),
    );
    check(KILLS, &[Cut(LIST, 0)], Refused(&["the list `segments`: the header is cut off"], 3));
    check(
        KILLS,
        &[Older(LIST, 1)],
        Refused(&["the list `segments` ends before segment 2", "older list"], 3),
    );
    check(KILLS, &[Older(LIST, 2)], Refused(&["segment 3 ", "an older list"], 3));
    check(KILLS, &[Foreign(LIST)], Refused(&["the list `segments` is that of another log"], 3));
    check(KILLS, &[LoseAll("wal-"), Lose(&[LIST])], Starts(&[], 0));
}

#[test]
fn checkpoints_that_are_missing_or_damaged() {
    const STOPS: &[End] = &[Stop, Stop, Stop, Stop];
    const OLDER: &str = "checkpoint-000000000004.ckpt is damaged (the file is missing); an older checkpoint is used";
    const NONE: &str = "no checkpoint can be read, and there was number 4; the segments up to ";
    const NEWEST: &str = "checkpoint-000000000004.ckpt";
    check(STOPS, &[Lose(&[NEWEST])], Starts(&[OLDER], 4));
    check(STOPS, &[Flip(NEWEST, 40)], Starts(&[NEWEST, "is damaged ("], 4));
    check(STOPS, &[Older("checkpoint-000000000003.ckpt", 3)], Starts(&["recovered"], 4));
    check(STOPS, &[LoseAll("checkpoint-")], Refused(&[NONE], 4));
    // Checkpoints, and nothing else.
    let refused = Refused(&["the list `segments` is missing", "checkpoint 4 needs it"], 4);
    check(STOPS, &[LoseAll("wal-"), Lose(&[LIST])], refused);
}
