//! Files as a source: through the library on a clock that the test moves, and with the program as people run it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidemill::config::{OnFailure, Then};
use tidemill::internals::sync::{Mailbox, Signal};
use tidemill::testing::ManualClock;
use tidemill::{Config, Event, FilesSource, ReceiverHandle, StreamingContext};

/// A stream over a directory, driven batch by batch.
struct Stream {
    directory: TempDir,
    ctx: StreamingContext,
    rows: tidemill::testing::Collected<String>,
}

impl Stream {
    fn new() -> Stream {
        let directory = tempfile::tempdir().expect("a directory");
        let ctx =
            StreamingContext::with_clock(Config::new("files"), ManualClock::new()).expect("good");
        let lines = ctx.files_lines(directory.path()).expect("a source");
        let rows = lines.map(str::to_owned).collect();
        Stream { directory, ctx, rows }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The lines of the next batch.
    fn batch(&self) -> Vec<String> {
        self.ctx.run_batches(1).expect("a batch");
        self.rows.rows().pop().expect("it is committed").1
    }
}

#[test]
fn a_batch_takes_what_is_there_at_its_tick() {
    let stream = Stream::new();
    assert_eq!(stream.batch(), [""; 0]);
    fs::write(stream.path(".a"), "1\n2\n").expect("written");
    assert_eq!(stream.batch(), [""; 0], "its name is hidden");
    fs::rename(stream.path(".a"), stream.path("a")).expect("renamed");
    assert_eq!(stream.batch(), ["1", "2"]);
    append(&stream.path("a"), "3\n4");
    assert_eq!(stream.batch(), ["3"]);
    fs::rename(stream.path("a"), stream.path("a.1")).expect("rotated");
    append(&stream.path("a.1"), "4\n");
    fs::write(stream.path("a"), "5\n").expect("written");
    let mut rows = stream.batch();
    rows.sort();
    assert_eq!(rows, ["44", "5"]);
    fs::remove_file(stream.path("a")).expect("removed");
    fs::create_dir(stream.path("sub")).expect("made");
    std::os::unix::fs::symlink("nowhere", stream.path("link")).expect("made");
    assert_eq!(stream.batch(), [""; 0]);
}

fn append(path: &Path, text: &str) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().append(true).open(path).expect("it is there");
    file.write_all(text.as_bytes()).expect("written");
}

#[test]
fn a_directory_that_cannot_be_read_fails_a_union_by_name_and_comes_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let ctx = StreamingContext::with_clock(Config::new("files"), ManualClock::new()).expect("good");
    let source = FilesSource::new(directory.path()).named("logs");
    let counts = ctx.files(source).expect("a source").count().collect();
    let events = Mailbox::new(100);
    let told = events.clone();
    ctx.add_listener(move |event: &Event| {
        match event {
            Event::ConditionBegan { condition } => told.send(condition.text()),
            Event::ConditionEnded { condition, .. } => told.send(condition.over_text()),
            _ => Ok(()),
        }
        .expect("the test listens");
    });
    fs::write(directory.path().join("a"), "1\n").expect("written");
    ctx.run_batches(1).expect("a batch");
    let aside = directory.path().with_extension("aside");
    fs::rename(directory.path(), &aside).expect("moved away");
    ctx.run_batches(2).expect("no batch of this source, and nothing else needs it");
    fs::rename(&aside, directory.path()).expect("moved back");
    fs::write(directory.path().join("b"), "1\n2\n").expect("written");
    ctx.run_batches(1).expect("a batch");
    let rows: Vec<_> =
        counts.rows().into_iter().map(|(time, rows)| (time.as_millis(), rows[0])).collect();
    assert_eq!(rows, [(1_000, 1), (4_000, 2)]);
    // Reported once, although two batches could not ask it; the end comes after it has lasted for the time of a batch.
    let told = events.recv().expect("told");
    assert!(told.starts_with("source `logs`: cannot list") && told.contains("make it"), "{told}");
    ctx.run_batches(2).expect("it is still there");
    assert_eq!(events.recv().expect("told"), "source `logs` is there again");

    let ctx = StreamingContext::with_clock(Config::new("union"), ManualClock::new()).expect("good");
    let files = ctx.files(FilesSource::new(directory.path()).named("logs")).expect("a source");
    let queue = ctx.queue_stream(vec![Some(vec![1])], 1).map(|_| 0);
    files.map(|record| record.len()).union(&queue).count().collect();
    ctx.run_batches(1).expect("it is there");
    fs::remove_dir_all(directory.path()).expect("removed");
    let err = ctx.run_batches(1).expect_err("no batch is not an empty one").to_string();
    assert!(err.contains("union: source `logs` has no batch at 2000 ms"), "{err}");
    let err = ctx.start().expect_err("it is gone").to_string();
    assert!(err.contains("cannot list the directory"), "{err}");
}

#[test]
fn dead_letters_are_read_back_as_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let (letters, input) = (directory.path().join("letters"), directory.path().join("in"));
    fs::create_dir(&input).expect("made");
    fs::write(input.join("a"), "1\n2\r\n\nx").expect("written");
    let config = Config::new("first")
        .on_failure(OnFailure { retries: 0, then: Then::DeadLetter })
        .dead_letter_directory(&letters);
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("good");
    let records = ctx.files(FilesSource::new(&input).named("logs")).expect("a source");
    records.map(|record| assert!(record.is_empty(), "a bug")).collect();
    let receiver = |handle: &ReceiverHandle| handle.store_all(["a\nb", ""]);
    let mine = ctx.receiver_stream("mine", receiver).expect("a source");
    mine.map(|record| assert!(record.len() > 100, "a bug")).collect();
    let told = Signal::new();
    let ended = told.clone();
    ctx.add_listener(move |event: &Event| {
        if matches!(event, Event::SourceEnded { .. }) {
            ended.raise();
        }
    });
    ctx.run_batches(0).expect("it starts");
    told.wait();
    ctx.run_batches(1).expect("a dead letter is no failure of the stream");

    let names: Vec<String> = fs::read_dir(&letters)
        .expect("made")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("plain"))
        .collect();
    assert!(names.iter().all(|name| name.ends_with(".records")), "{names:?}");
    for (name, framing, expected) in [
        ("logs", tidemill::internals::framing::Framing::Lines, vec!["1", "2", ""]),
        ("mine", tidemill::internals::framing::Framing::U32, vec!["a\nb", ""]),
    ] {
        let only = directory.path().join(name);
        fs::create_dir(&only).expect("made");
        for letter in names.iter().filter(|letter| letter.ends_with(&format!("-{name}.records"))) {
            fs::rename(letters.join(letter), only.join(letter)).expect("moved");
        }
        let ctx =
            StreamingContext::with_clock(Config::new("again"), ManualClock::new()).expect("good");
        let source = FilesSource::new(&only).framing(framing);
        let rows = ctx.files_text(source).expect("a source").map(str::to_owned).collect();
        ctx.run_batches(1).expect("a batch");
        assert_eq!(rows.rows()[0].1, expected, "{name}");
    }
}

/// A file is removed between the last tick and the stop.
#[test]
fn a_stop_takes_what_removed_files_have() {
    let check = |before: &str, more: &str, expected: &[&str]| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.log");
        fs::write(&path, before).expect("written");
        let clock = ManualClock::new();
        let ctx = StreamingContext::with_clock(Config::new("stop"), clock.clone()).expect("good");
        let source = FilesSource::new(directory.path()).named("logs");
        let rows = ctx.files_text(source).expect("a source").map(str::to_owned).collect();
        let done = Mailbox::new(100);
        let told = done.clone();
        ctx.add_listener(move |event: &Event| {
            if matches!(event, Event::BatchCompleted { .. }) {
                told.send(()).expect("the test listens");
            }
        });
        let running = ctx.start().expect("started");
        clock.advance(Duration::from_secs(1));
        done.recv().expect("the first batch");
        append(&path, more);
        fs::remove_file(&path).expect("removed");
        let report = running.stop().expect("nothing is left");
        let found: Vec<String> = rows.rows().into_iter().flat_map(|(_, rows)| rows).collect();
        assert_eq!(found, expected, "{report:?}");
        assert_eq!(report.sources[0].counter("lost_bytes"), 0);
    };
    check("one\n", "two\nthree\n", &["one", "two", "three"]);
    check("one\nTAIL", "", &["one", "TAIL"]);
    check("one\n", "", &["one"]);
}

/// The stop has no time for the batch that it plans.
#[test]
fn what_a_stop_does_not_read_of_removed_files_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.log");
    fs::write(&path, "one\n").expect("written");
    let (clock, stop_deadline) = (ManualClock::new(), Duration::from_secs(8));
    let config = Config::new("stop").stop_deadline(stop_deadline);
    let ctx = StreamingContext::with_clock(config, clock.clone()).expect("good");
    let source = FilesSource::new(directory.path()).named("logs");
    let (events, told) = (Mailbox::new(100), Mailbox::new(100));
    let (batch, read) = (events.clone(), told.clone());
    ctx.add_listener(move |event: &Event| {
        if matches!(event, Event::BatchCompleted { .. }) {
            batch.send(()).expect("the test listens");
        }
    });
    let late = clock.clone();
    ctx.files_text(source)
        .expect("a source")
        .map(move |line| {
            if line == "two" {
                // All of the stop's time passes while a task runs.
                late.advance(stop_deadline);
                read.recv();
            }
        })
        .count()
        .collect();
    let running = ctx.start().expect("started");
    clock.advance(Duration::from_secs(1));
    events.recv().expect("the first batch");
    append(&path, "two\nthree\n");
    fs::remove_file(&path).expect("removed");
    running.stopper().stop();
    let (report, outcome) = running.finish();
    told.send(()).expect("the task waits");
    let said = "10 bytes of removed files were not read";
    assert!(report.left.iter().any(|left| left == said), "{report:?}");
    assert_eq!(report.sources[0].counter("lost_bytes"), 10);
    assert!(outcome.expect_err("something is left").to_string().contains(said));
}

/// A run that takes longer counts as hung.
const WATCHDOG: &str = "60s";

fn program(args: &[&str]) -> Output {
    let mut all = vec!["run", "--http", "off", "--duration", WATCHDOG];
    all.extend(args);
    Command::new(env!("CARGO_BIN_EXE_tidemill")).args(all).output().expect("the program runs")
}

/// The rows of all batches of a run with JSON output.
fn rows(output: &Output) -> Vec<Value> {
    let out = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    let batch = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
    out.lines()
        .map(batch)
        .flat_map(|batch| batch["rows"].as_array().expect("rows").clone())
        .collect()
}

#[test]
fn the_program_reads_a_directory_to_its_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fs::write(path.join("a"), "to be\nor not").expect("written");
    fs::write(path.join("b.tmp"), "no\n").expect("written");
    let from = format!("files://{}", path.display());
    let args =
        ["--from", &from, "--job", "wordcount", "--to", "json", "--until-eof", "--every", "1h"];
    let output = program(&args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let found: Vec<String> = rows(&output).iter().map(Value::to_string).collect();
    assert_eq!(found, [r#"["be",1]"#, r#"["not",1]"#, r#"["or",1]"#, r#"["to",1]"#]);
    assert!(
        said.contains("file `b.tmp`: its name is like `*.tmp` (to read it, name it in `include`)"),
        "{said}"
    );
    assert!(said.contains("2 records, 12 B, 1 note about files"), "{said}");
}

#[test]
fn more_than_a_batch_is_read_in_several() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("a"), "x".repeat(99) + "\n").expect("written");
    let line = "x".repeat(99) + "\n";
    fs::write(directory.path().join("a"), line.repeat(200_000)).expect("written");
    let from = format!("files://{}", directory.path().display());
    let set = "source.in.files.batch_bytes_max=4MiB";
    let args = [
        "--from",
        &from,
        "--job",
        "count",
        "--to",
        "json",
        "--until-eof",
        "--every",
        "20ms",
        "--set",
        set,
    ];
    let output = program(&args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let counts: Vec<u64> =
        rows(&output).iter().map(|row| row[0].as_u64().expect("a count")).collect();
    assert_eq!(counts.iter().sum::<u64>(), 200_000);
    assert!(counts.iter().filter(|count| **count > 0).count() >= 4, "{counts:?}");
}

#[test]
fn what_is_wrong_with_a_directory_is_said_with_a_remedy() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("written");
    let check = |path: &Path, hint: &str| {
        let from = format!("files://{}", path.display());
        let output = program(&["--from", &from, "--job", "count"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot list the directory") && said.contains(hint), "{said}");
    };
    check(&directory.path().join("none"), "make it");
    check(&file, "must name a directory");
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).expect("made");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("set");
    // The superuser may read anything.
    if fs::read_dir(&closed).is_err() {
        check(&closed, "chmod");
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("set");
}

/// A file is truncated in the middle of a run whose closures are slow to read it.
#[test]
fn a_file_that_is_cut_under_a_batch_fails_it_with_its_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a");
    fs::write(&path, "1\n".repeat(300_000)).expect("written");
    let policy = OnFailure { retries: 1, then: Then::Stop };
    let config = Config::new("files").on_failure(policy).stop_deadline(Duration::from_secs(20));
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("good");
    let lines = ctx.files(FilesSource::new(directory.path()).named("logs")).expect("a source");
    let uncut = std::sync::atomic::AtomicBool::new(true);
    lines
        .map(move |_| {
            if uncut.swap(false, std::sync::atomic::Ordering::SeqCst) {
                let file = fs::OpenOptions::new().write(true).open(&path).expect("there");
                file.set_len(100).expect("cut");
            }
        })
        .count()
        .collect();
    let err = ctx.run_batches(1).expect_err("it cannot be read").to_string();
    assert!(err.contains("of file `a` cannot be read: it ends at byte 100 now"), "{err}");
}

/// A run with a log is killed in the middle; after the next run every line is in the sink once.
#[test]
fn after_a_kill_the_rest_is_read_and_nothing_twice() {
    const LINES: usize = 60_000;
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::create_dir(path("in")).expect("made");
    for file in 0..3 {
        let lines: String = (0..LINES / 3).map(|n| format!("{file}-{n:020}\n")).collect();
        fs::write(format!("{}/{file}", path("in")), lines).expect("written");
    }
    let (from, to) = (format!("files://{}", path("in")), format!("file://{}", path("out")));
    let state = path("state");
    // A batch takes at least one piece: a record of the longest kind.
    let sets = ["source.in.files.batch_bytes_max=1KiB", "source.in.files.record_bytes_max=1KiB"];
    let start = || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        program.args(["run", "--http", "off", "--from", &from, "--to", &to, "--job", "lines"]);
        program.args(["--state-dir", &state, "--every", "2ms", "--duration", WATCHDOG]);
        sets.iter().for_each(|set| {
            program.args(["--set", set]);
        });
        program
    };
    let mut first = start().spawn().expect("it runs");
    // The event to kill it at: some batches are in the sink.
    let committed = || {
        let names = fs::read_dir(path("out")).into_iter().flatten().flatten();
        names.filter(|name| !name.file_name().to_string_lossy().starts_with('.')).count()
    };
    while committed() < 20 {
        assert!(first.try_wait().expect("asked").is_none(), "it ended early");
        std::thread::yield_now();
    }
    first.kill().expect("it runs");
    first.wait().expect("it has ended");
    // The rest fits one batch by now, so that the second run need not tick a thousand times.
    let second =
        start().args(["--until-eof", "--set", "source.in.files.batch_bytes_max=1MiB"]).output();
    let second = second.expect("it runs");
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(0), "{said}");
    let mut lines = Vec::new();
    for entry in fs::read_dir(path("out")).expect("made").flatten() {
        if !entry.file_name().to_string_lossy().starts_with('.') {
            let text = fs::read_to_string(entry.path()).expect("UTF-8");
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    lines.sort();
    let count = lines.len();
    lines.dedup();
    assert_eq!((count, lines.len()), (LINES, LINES), "{said}");
}
