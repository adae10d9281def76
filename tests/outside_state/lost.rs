//! Input that is gone: files that were removed or cut before a start would read them again.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tidemill::internals::sync::{Arc, Mutex};
use tidemill::sink::{BatchMeta, CommitKey, Rows};
use tidemill::stream::StateSpec;
use tidemill::testing::{Collected, ManualClock};
use tidemill::{Config, FilesSource, Interval, Sink, StreamingContext};

use crate::program::{Process, Program};
use crate::verdicts::inspect;

/// More than a pipe holds.
const MUCH: usize = 20_000;

/// A pipeline over the directory `in`, whose rows go to standard output as JSON.
struct Lines {
    directory: TempDir,
}

impl Lines {
    /// `rest` has keys of the pipeline, `source` of the source, `job` of the job.
    fn new(rest: &str, source: &str, job: &str) -> Lines {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display();
        fs::create_dir(directory.path().join("in")).expect("made");
        let text = format!(
            "name = 'lost'\nbatch_interval = '50ms'\nstate_dir = '{path}/state'\nhttp = 'off'\n{rest}\n\
             [source.logs.files]\ndirectory = '{path}/in'\n{source}\n\
             [job.j]\nfrom = ['logs']\nto = ['screen']\n{job}\n[sink.screen.console]\nformat = 'json'\n"
        );
        fs::write(directory.path().join("pipeline.toml"), text).expect("written");
        Lines { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        // Renamed into the directory, so that no batch sees half of it.
        fs::write(self.path("aside"), text).expect("written");
        fs::rename(self.path("aside"), self.path("in").join(name)).expect("renamed");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path("in").join(name)).expect("removed");
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg("run").arg(self.path("pipeline.toml")).args(options);
        command
    }

    fn start(&self, options: &[&str]) -> Program {
        Program::of(&mut self.command(options))
    }

    /// Runs to the end of the existing files: exit code, the printed batches, the messages.
    fn run(&self, options: &[&str]) -> (Option<i32>, Vec<Value>, String) {
        let place = self.directory.path();
        let look = || inspect(place, "state", "pipeline.toml", options);
        let verdict = self.path("state").exists().then(look);
        let (code, out, said) = self.start(&[&["--until-eof"], options].concat()).finish();
        verdict.into_iter().for_each(|it| it.expect(code, &said.join("\n")));
        let batches = out.iter().map(|line| serde_json::from_str(line).expect("JSON"));
        (code, batches.collect(), said.join("\n"))
    }

    /// Starts `tidemill` and kills it while the rows of its first batch with rows are stuck in a full pipe: that batch is
    /// planned and not committed.
    fn kill_in_a_batch(&self) {
        let mut command = self.command(&["--quiet"]);
        let mut process = Process::start(command.stdout(Stdio::piped()));
        let mut out = process.0.stdout.take().expect("piped");
        let (mut seen, mut piece) = (Vec::new(), [0; 64]);
        // A batch without rows is a short line.
        while !String::from_utf8_lossy(&seen).contains("[\"") {
            let length = out.read(&mut piece).expect("it writes");
            assert!(length > 0, "it ended early");
            seen.extend_from_slice(&piece[..length]);
        }
        process.kill();
    }
}

/// The first cells of all rows.
fn cells(batches: &[Value]) -> Vec<String> {
    let rows = batches.iter().flat_map(|batch| batch["rows"].as_array().expect("rows"));
    rows.map(|row| row[0].to_string()).collect()
}

fn many(word: &str) -> String {
    (0..MUCH).map(|n| format!("{word}{n}\n")).collect()
}

/// The next batch with a row that `wanted` accepts.
fn batch(program: &Program, wanted: impl Fn(&Value) -> bool) -> Value {
    while let Ok(line) = program.out.recv_timeout(crate::program::WATCHDOG) {
        let batch: Value = serde_json::from_str(&line).expect("JSON");
        if wanted(&batch) {
            return batch;
        }
    }
    panic!("no such batch");
}

fn count(batch: &Value) -> u64 {
    batch["rows"][0][0].as_u64().expect("a count")
}

#[test]
fn a_file_that_was_processed_may_go_although_a_window_would_read_it_again() {
    let lines = Lines::new("", "", "count = {}\nwindow = '1h'");
    lines.write("a.log", "1\n2\n3\n");
    lines.write("b.log", "4\n");
    let first = lines.start(&[]);
    batch(&first, |batch| count(batch) == 4);
    first.stop();
    lines.remove("a.log");
    for round in 0..2 {
        let second = lines.start(&[]);
        let said = second.wait_for("bytes 0 to 6 of file `a.log`");
        assert!(said.contains("it is gone; it was processed before; windows"), "{said}");
        lines.write(&format!("new{round}.log"), "5\n");
        let window = batch(&second, |batch| batch["records"] == 1);
        assert_eq!((count(&window), &window["incomplete"]), (2 + round, &Value::Bool(true)));
        second.stop();
    }
}

#[test]
fn rows_are_whole_again_when_no_window_reaches_back_to_what_is_lost() {
    let lines = Lines::new("catch_up = 'skip'", "", "count = {}\nwindow = '500ms'");
    lines.write("a.log", "1\n2\n3\n");
    let first = lines.start(&[]);
    batch(&first, |batch| count(batch) == 3);
    first.stop();
    lines.remove("a.log");
    lines.write("b.log", "4\n");
    let second = lines.start(&[]);
    // The duration of the start decides if the first windows still reach back.
    batch(&second, |batch| count(batch) == 0 && batch["incomplete"].is_null());
    second.stop();
}

#[test]
fn what_was_never_processed_stops_a_start_until_somebody_gives_it_up() {
    let lines = Lines::new("", "", "lines = {}");
    lines.write("a.log", &many("a"));
    lines.write("b.log", "b\n");
    lines.kill_in_a_batch();
    lines.remove("a.log");
    for _ in 0..2 {
        let (code, batches, said) = lines.run(&[]);
        assert_eq!((code, batches.len()), (Some(1), 0), "{said}");
        let why = "of file `a.log` cannot be read: it is gone; it was never processed: start once with `--give-up-lost`";
        assert!(said.contains("source `logs`: bytes 0 to ") && said.contains(why), "{said}");
    }
    let (code, batches, said) = lines.run(&["--give-up-lost"]);
    assert_eq!((code, cells(&batches)), (Some(0), vec!["\"b\"".to_owned()]), "{said}");
    assert!(said.contains("it was never processed and is given up"), "{said}");
    let incomplete: Vec<bool> =
        batches.iter().map(|batch| batch["incomplete"] == true).filter(|it| *it).collect();
    assert_eq!(incomplete.len(), 1, "the batch that lacks it, and no other: {batches:?}");
    lines.write("c.log", "c\n");
    let (code, batches, said) = lines.run(&[]);
    assert_eq!((code, cells(&batches)), (Some(0), vec!["\"c\"".to_owned()]), "{said}");
    assert!(!said.contains("input is lost"), "{said}");
}

#[test]
fn a_source_that_skips_what_is_lost_goes_on_and_says_so() {
    let lines = Lines::new("", "on_lost = 'skip'", "lines = {}");
    lines.write("a.log", &many("a"));
    lines.write("b.log", "b\n");
    lines.kill_in_a_batch();
    let file = fs::OpenOptions::new().write(true).open(lines.path("in").join("a.log"));
    file.and_then(|file| file.set_len(5)).expect("cut");
    let (code, batches, said) = lines.run(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("of file `a.log` cannot be read: it ends at byte 5 now"), "{said}");
    assert!(cells(&batches).contains(&"\"b\"".to_owned()), "{batches:?}");
}

#[test]
fn a_dead_letter_does_not_need_what_is_lost() {
    let lines = Lines::new("on_failure = { retry = 1, then = 'dead_letter' }", "", "lines = {}");
    lines.write("a.log", &many("a"));
    lines.write("b.log", "b\n");
    lines.kill_in_a_batch();
    lines.remove("a.log");
    lines.write("c.log", "c\n");
    let mut command = lines.command(&["--until-eof"]);
    let (code, out, said) = Program::of(command.current_dir(lines.directory.path())).finish();
    let said = said.join("\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("cannot be read: it is gone"), "{said}");
    assert!(out.iter().any(|line| line.contains("[\"c\"]")), "{out:?}");
    let letters = fs::read_dir(lines.path("dead-letter")).expect("made");
    let texts: Vec<String> = letters
        .map(|letter| fs::read_to_string(letter.expect("listed").path()).expect("text"))
        .collect();
    assert_eq!(texts, ["b\n"], "what is left of the batch's input");
}

/// For each batch: its time in seconds, its number of rows, and true if they were incomplete.
type Marks = Arc<Mutex<Vec<(u64, usize, bool)>>>;

/// A sink that keeps the marks of its batches.
struct Marked(Marks, Option<(u64, usize, bool)>);

impl Sink for Marked {
    fn committed(&mut self, _key: &CommitKey) -> tidemill::Result<bool> {
        Ok(false)
    }

    fn write(&mut self, key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> tidemill::Result<()> {
        self.1 = Some((key.time.as_millis() / 1_000, rows.len(), meta.incomplete));
        Ok(())
    }

    fn commit(&mut self, _key: &CommitKey) -> tidemill::Result<()> {
        self.0.lock().extend(self.1.take());
        Ok(())
    }
}

/// A count of each word over all time, the last three seconds of those counts, and the same without states in between. The
/// second source has nothing to do with the first one.
fn states_and_windows(directory: &TempDir) -> (StreamingContext, Collected<u64>, [Marks; 3]) {
    let config = Config::new("lost").batch_interval(Interval::secs(1)).workers(2);
    let config = config.state_dir(directory.path().join("state"));
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("good");
    let source = |name: &str| FilesSource::new(directory.path().join(name)).named(name);
    let pairs =
        ctx.files_text(source("in")).expect("a source").map(|word: &str| (word.to_owned(), 1_u64));
    let counts = pairs.map_with_state(StateSpec::new(), |_, _, one, state| {
        let count = state.get().unwrap_or(&0) + one?;
        state.update(count);
        Some(count)
    });
    let counts = counts.named("counts");
    let (length, slide) = (Interval::secs(3), Interval::secs(1));
    let (marks, totals) = (<[Marks; 3]>::default(), counts.collect());
    let sink = |at: usize| Marked(Arc::clone(&marks[at]), None);
    counts.window(length, slide).named("below").save(sink(0));
    pairs.count_by_window(length, slide).named("beside").save(sink(1));
    let other = ctx.files_text(source("other")).expect("a source");
    other.count_by_window(length, slide).named("other").save(sink(2));
    (ctx, totals, marks)
}

#[test]
fn states_are_what_they_were_although_a_window_below_them_lacks_input() {
    let directory = tempfile::tempdir().expect("a directory");
    let put =
        |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
    for name in ["in", "other"] {
        fs::create_dir(directory.path().join(name)).expect("made");
    }
    let (first, ..) = states_and_windows(&directory);
    for batch in 1..=5 {
        put(&format!("in/{batch}"), "a\na\n");
        put(&format!("other/{batch}"), "x\n");
        first.run_batches(1).expect("a batch");
    }
    drop(first);
    fs::remove_file(directory.path().join("in/4")).expect("removed");
    let (second, totals, [below, beside, other]) = states_and_windows(&directory);
    put("in/6", "a\n");
    second.run_batches(4).expect("it starts");
    let totals: Vec<u64> = totals.rows().into_iter().flat_map(|(_, rows)| rows).collect();
    assert_eq!(totals, [11], "the ten of before are known, also those whose file is gone");
    let marked = |marks: &Marks| marks.lock().iter().map(|mark| mark.2).collect::<Vec<_>>();
    let rows = |marks: &Marks| marks.lock().iter().map(|mark| mark.1).collect::<Vec<_>>();
    assert_eq!(marked(&beside)[..], [true, false, false, false], "6 s reaches back to 4 s");
    assert!(marked(&below)[0]);
    assert!(!marked(&below)[3]);
    assert_eq!(rows(&below)[3], 0, "9 s is beyond the last record");
    assert_eq!(marked(&other), [false; 4], "another source lacks nothing");
}
