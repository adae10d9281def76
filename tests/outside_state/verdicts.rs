//! `tidemill inspect DIR --pipeline FILE` reports what `tidemill run FILE` would report, with the same exit code, and
//! changes nothing. The situations of the other subjects run it before each of their starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::program::Program;
use crate::program::peers::send;

/// Files of this size or less are compared byte by byte, larger ones by length and time.
const COMPARED_MAX: u64 = 1 << 20;

const FILE: &str = "pipeline.toml";

/// The verdict of `inspect`.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub code: Option<i32>,
    /// Its standard output.
    pub shown: String,
    /// The error; empty if there was none.
    pub error: String,
}

/// Everything below a directory: paths, lengths, times, and the bytes of small files.
pub fn snapshot(directory: &Path) -> Vec<(PathBuf, u64, SystemTime, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("listed") {
        let path = entry.expect("listed").path();
        let about = path.symlink_metadata().expect("there");
        if about.is_dir() {
            all.extend(snapshot(&path));
        }
        let is_small = about.is_file() && about.len() <= COMPARED_MAX;
        let bytes = if is_small { fs::read(&path).expect("read") } else { Vec::new() };
        let length = if about.is_dir() { 0 } else { about.len() };
        all.push((path, length, about.modified().expect("a time"), bytes));
    }
    all.sort();
    all
}

/// Runs `inspect` on a state directory and a pipeline file in `world`, with these options of `run`; nothing there may
/// change.
pub fn inspect(world: &Path, state: &str, file: &str, options: &[&str]) -> Verdict {
    let before = snapshot(world);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.current_dir(world).args(["inspect", state, "--pipeline", file]).args(options);
    let output = command.output().expect("it runs");
    let verdict = Verdict {
        code: output.status.code(),
        shown: String::from_utf8_lossy(&output.stdout).into_owned(),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    let after = snapshot(world);
    let unlike = before.iter().zip(&after).find(|(before, after)| before != after);
    let unlike = unlike.map(|(before, after)| (&before.0, &after.0));
    assert!(unlike.is_none() && before.len() == after.len(), "inspect changed {unlike:?}");
    verdict
}

impl Verdict {
    /// Checks the verdict against a start that ended with this code and these messages.
    pub fn expect(&self, code: Option<i32>, said: &str) {
        assert_eq!(self.code, code, "inspect: {self:?}\nrun: {said}");
        let error = self.error.strip_prefix("error: ").unwrap_or(&self.error);
        let missing = error.lines().find(|line| !said.contains(line.trim()));
        assert_eq!(missing, None, "of inspect, in:\n{said}");
        assert_eq!(error.is_empty(), code == Some(0), "{self:?}");
    }
}

/// A directory with a RELP pipeline, whose state is `state`.
struct World(tempfile::TempDir);

/// Prepares the situation before the verdict.
type Deed = fn(&World);

impl World {
    fn new(rest: &str) -> World {
        let world = World(tempfile::tempdir().expect("a directory"));
        world.write(rest);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the pipeline: keys of the pipeline, a line, and the tables of its job and sinks.
    fn write(&self, rest: &str) {
        let text = format!(
            "name = 'verdict'\nbatch_interval = '1h'\nhttp = 'off'\nstate_dir = 'state'\n{rest}"
        );
        fs::write(self.path(FILE), text).expect("written");
    }

    fn start(&self, options: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        Program::of(command.current_dir(self.0.path()).args(["run", FILE]).args(options))
    }

    fn inspect(&self, options: &[&str]) -> Verdict {
        inspect(self.0.path(), "state", FILE, options)
    }

    fn run(&self, lines: &[&str]) {
        let program = self.start(&[]);
        send(&program, lines);
        program.stop();
    }

    /// Reports the words of a refused start, or no error at all.
    fn check(&self, options: &[&str], code: i32, words: &[&str]) {
        let verdict = self.inspect(options);
        let program = self.start(options);
        let said = match code {
            0 => {
                let _ = program.address_after("listening on");
                program.stop();
                String::new()
            }
            _ => {
                let (ended, _, said) = program.finish();
                assert_eq!(ended, Some(code), "{}", said.join("\n"));
                said.join("\n")
            }
        };
        verdict.expect(Some(code), &said);
        words.iter().for_each(|words| assert!(said.contains(words), "no `{words}` in {said}"));
    }
}

const SOURCE: &str = "[source.in.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\n";

/// A source with an identity, and so with a keyed state.
const KEYED: &str = "[source.in.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\n\
    identity = '^(?<sender>\\S+) (?<number>\\d+)'\n";

/// A job and its sink of files.
fn to_files(sink: &str, path: &str) -> String {
    format!(
        "[job.j]\nfrom = ['in']\nto = ['{sink}']\nlines = {{}}\n[sink.{sink}.file]\npath = '{path}'\n"
    )
}

/// A first pipeline that receives a line, a deed, a second pipeline; and the result of a start of the second one.
fn check(first: &str, deed: Deed, second: &str, code: i32, words: &[&str]) {
    let world = World::new(first);
    world.run(&["sender 1 line"]);
    deed(&world);
    world.write(second);
    world.check(&[], code, words);
}

fn nothing(_: &World) {}

#[test]
fn names_and_places() {
    let files = format!("{SOURCE}{}", to_files("out", "out"));
    check(&files, nothing, &files, 0, &[]);
    let moved = format!("{SOURCE}{}", to_files("out", "more"));
    check(&files, nothing, &moved, 0, &[]);
    check(&files, nothing, &format!("retired = ['source:in']\n{files}"), 78, &["still uses it"]);
    // A keyed state that the pipeline no longer has.
    let keyed = format!("{KEYED}{}", to_files("out", "out"));
    let retired = "retired = [\"state:identity of in\"]";
    check(&keyed, nothing, &files, 1, &["state `identity of in`: 1 key", retired]);
    check(&keyed, nothing, &format!("{retired}\n{files}"), 0, &[]);
    check(&files, nothing, "[source.in.socket]\n", 78, &["pipeline.toml:"]);
    // Two sinks that have changed places.
    let two = |one: &str, other: &str| {
        let jobs = "[job.a]\nfrom = ['in']\nto = ['one']\nlines = {}\n\
            [job.b]\nfrom = ['in']\nto = ['two']\nlines = {}\n";
        format!(
            "{SOURCE}{jobs}[sink.one.file]\npath = '{one}'\n[sink.two.file]\npath = '{other}'\n"
        )
    };
    check(&two("a", "b"), nothing, &two("b", "a"), 0, &[]);
}

#[test]
fn outputs_of_others_and_of_other_moments() {
    let files = format!("{SOURCE}{}", to_files("out", "out"));
    let begin_anew: Deed = |world| {
        fs::rename(world.path("state"), world.path("state.old")).expect("moved");
        fs::create_dir(world.path("state")).expect("made");
    };
    // The start that writes the identity of a new state down also draws it, so nobody can know it before.
    let is_new =
        "out holds output of the pipeline `verdict` with the state directory state (identity ";
    let another = "), and the new state directory state is another one.";
    check(&files, begin_anew, &files, 1, &[is_new, another, "JOB-TIME-PART.IDENTITY.EXT"]);
    let restored: Deed = |world| {
        let copy = |from: &str, to: &str| {
            let _ = fs::remove_dir_all(world.path(to));
            fs::create_dir(world.path(to)).expect("made");
            for entry in fs::read_dir(world.path(from)).expect("listed") {
                let entry = entry.expect("listed");
                fs::copy(entry.path(), world.path(to).join(entry.file_name())).expect("copied");
            }
        };
        copy("state", "copy");
        world.run(&["2 lines"]);
        copy("copy", "state");
    };
    check(&files, restored, &files, 1, &["knows nothing of", "restored from an older copy"]);
    let removed: Deed = |world| fs::remove_dir_all(world.path("out")).expect("removed");
    check(&files, removed, &files, 1, &["out holds nothing of", "which made 1 commit there"]);
    let in_the_way: Deed = |world| {
        fs::remove_dir_all(world.path("out")).expect("removed");
        fs::write(world.path("out"), "").expect("written");
    };
    check(&files, in_the_way, &files, 1, &["cannot open the directory out"]);
}

#[test]
fn states_that_are_larger_than_the_bound() {
    let world = World::new(&format!("{KEYED}{}", to_files("out", "out")));
    let senders: Vec<String> = (0..6_000).map(|at| format!("{at:0>200} 1 line")).collect();
    world.run(&senders.iter().map(String::as_str).collect::<Vec<_>>());
    let bound = ["--set", "kept_bytes_max='1MiB'"];
    world.check(&bound, 1, &["more than kept_bytes_max", "raise kept_bytes_max"]);
    world.check(&[], 0, &[]);
}

#[test]
fn a_directory_in_use_is_judged_and_said_to_be_in_use() {
    let world = World::new(&format!("{SOURCE}{}", to_files("out", "out")));
    world.run(&["1 line"]);
    let program = world.start(&[]);
    let _ = program.address_after("listening on");
    let verdict = world.inspect(&[]);
    let pid = program.process.0.id();
    for place in ["state", "out"] {
        let in_use =
            format!("{place} is in use by process {pid}: this is what it was a moment ago\n");
        assert!(verdict.shown.contains(&in_use), "{verdict:?}");
    }
    assert_eq!((verdict.code, verdict.error.as_str()), (Some(0), ""), "{verdict:?}");
    program.stop();
    let verdict = world.inspect(&[]);
    assert!(!verdict.shown.contains("in use") && verdict.code == Some(0), "{verdict:?}");
    let expected = [
        "state: pipeline `verdict`, identity ",
        ", start 2\n",
        "  source:in: received records\n",
        "  job:j\n",
    ];
    expected.iter().for_each(|words| assert!(verdict.shown.contains(words), "{verdict:?}"));
}

#[cfg(feature = "sqlite")]
#[test]
fn tables_are_asked_without_a_trace() {
    let to_table = |path: &str, table: &str| {
        format!(
            "{SOURCE}[job.j]\nfrom = ['in']\nto = ['out']\nlines = {{}}\n[sink.out.sqlite]\npath = '{path}'\n\
             table = '{table}'\n"
        )
    };
    let first = to_table("a #1?.db", "rows");
    check(&first, nothing, &first, 0, &[]);
    check(&first, nothing, &to_table("a #1?.db", "others"), 0, &[]);
    check(&first, nothing, &to_table("b.db", "rows"), 0, &[]);
    check(&first, nothing, &to_table("no/b.db", "rows"), 1, &["cannot open the database no/b.db"]);
    let no_database: Deed = |world| {
        fs::write(world.path("b.db"), "this is no database, however long one looks at it")
            .expect("written");
    };
    check(&first, no_database, &to_table("b.db", "rows"), 1, &["cannot open the database b.db"]);
}
