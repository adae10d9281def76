//! Starts in good and bad places: the report of `inspect --pipeline`, the messages of `run`, and that a refused start
//! leaves everything as it was. A row for each situation.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::program::Program;
use crate::program::disk::Disk;
use crate::program::peers::send;
use crate::verdicts::{inspect, snapshot};

const FILE: &str = "pipeline.toml";

const MADE: &str = "state does not exist: a first start would make it\n";
const REFUSED: &str = "state does not exist: a first start would be refused\n";
const ANEW: &str = "nothing is here: a start of pipeline.toml begins anew\n";

/// Prepares the situation before the start.
type Deed = fn(&Path);

/// A pipeline: its keys, the keys of its source, and its sink `out`. A place that begins with `DISK` is on the row's disk.
#[derive(Clone, Copy)]
struct Pipeline<'a> {
    state: &'a str,
    keys: &'a str,
    source: &'a str,
    sink: &'a str,
}

const GOOD: Pipeline<'_> =
    Pipeline { state: "state", keys: "", source: "", sink: "[sink.out.file]\npath = 'out'\n" };

impl Pipeline<'_> {
    fn write(&self, world: &Path, disk: Option<&Disk>) {
        let Pipeline { state, keys, source, sink } = self;
        let text = format!(
            "name = 'starts'\nbatch_interval = '1h'\nhttp = 'off'\nstate_dir = '{state}'\n{keys}\n\
             [source.in.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\n{source}\n\
             [job.j]\nfrom = ['in']\nto = ['out']\nlines = {{}}\n{sink}"
        );
        fs::write(world.join(FILE), on_disk(&text, disk)).expect("written");
    }
}

fn on_disk(text: &str, disk: Option<&Disk>) -> String {
    let place = disk.map(|disk| disk.path("").display().to_string()).unwrap_or_default();
    text.replace("DISK/", &place)
}

fn start(world: &Path) -> Program {
    Program::of(Command::new(env!("CARGO_BIN_EXE_tidemill")).current_dir(world).args(["run", FILE]))
}

/// Applies `deed`, asks both, and expects this exit code; `inspect` shows `shown`, and a refused start says `words`.
fn check(deed: Deed, pipeline: Pipeline<'_>, code: i32, shown: &str, words: &[&str]) {
    let world = tempfile::tempdir().expect("a directory");
    deed(world.path());
    judge(world.path(), None, pipeline, code, shown, words);
}

fn judge(
    world: &Path,
    disk: Option<&Disk>,
    pipeline: Pipeline<'_>,
    code: i32,
    shown: &str,
    words: &[&str],
) {
    pipeline.write(world, disk);
    let all = || {
        let on_disk = disk.map(|disk| snapshot(&disk.path(""))).unwrap_or_default();
        [snapshot(world), on_disk].concat()
    };
    let before = all();
    let verdict = inspect(world, &on_disk(pipeline.state, disk), FILE, &[]);
    assert!(verdict.shown.ends_with(shown), "{shown} in {verdict:?}");
    let program = start(world);
    let said = if code == 0 {
        let _ = program.address_after("listening on");
        // A run that waits for room gets it, and the stop ends with it.
        disk.into_iter().for_each(Disk::empty);
        program.stop();
        String::new()
    } else {
        let (ended, _, said) = program.finish();
        assert_eq!(ended, Some(code), "{}", said.join("\n"));
        let is_first = !before.iter().any(|(path, ..)| path.to_string_lossy().contains("/wal-"));
        // Each start that reads an existing log settles it.
        assert!(!is_first || all() == before, "a refused start changed something: {said:?}");
        said.join("\n")
    };
    verdict.expect(Some(code), &said);
    words.iter().for_each(|words| assert!(said.contains(words), "no `{words}` in {said}"));
}

fn nothing(_: &Path) {}

/// A file, a directory, a link to nowhere, and one to a place in a directory that is not there.
fn some(world: &Path) {
    fs::write(world.join("file"), "text").expect("written");
    fs::create_dir(world.join("dir")).expect("made");
    symlink("nowhere", world.join("link")).expect("linked");
    symlink("no/where", world.join("far-link")).expect("linked");
}

#[test]
fn a_first_start_makes_its_places() {
    check(nothing, GOOD, 0, MADE, &[]);
    check(|world| fs::create_dir(world.join("state")).expect("made"), GOOD, 0, ANEW, &[]);
    let deep = "a/b/c does not exist: a first start would make it\n";
    check(nothing, Pipeline { state: "a/b/c", ..GOOD }, 0, deep, &[]);
    let sink = "[sink.out.file]\npath = 'a/b/out'\n";
    check(nothing, Pipeline { sink, ..GOOD }, 0, MADE, &[]);
    let keys = "spill_dir = 'a/spill'\non_failure = { then = 'dead_letter', directory = 'b/dead' }";
    let source = "dead_letter = 'c/long'";
    check(nothing, Pipeline { keys, source, ..GOOD }, 0, MADE, &[]);
}

/// The obstacles, as they are reported about the last part of a path.
const WAYS: [(&str, &str); 5] = [
    ("file", "file is no directory: move it away, or give another place"),
    ("file/new", "file is no directory: move it away, or give another place"),
    ("link", "link is a link to nowhere, which is not there: make that, or remove the link"),
    ("/dev/full", "/dev/full is no directory: move it away, or give another place"),
    (
        "/proc/new",
        "/proc takes no files of this user: let the user write there, or give another place",
    ),
];

#[test]
fn directories_that_cannot_be() {
    let long = "n".repeat(256);
    let why = "a name in it needs 256 bytes, and 255 are the most there: give a shorter path";
    let (below, above) = (format!("new/{long}"), format!("{long}/new"));
    let long = [long, below, above].map(|place| (place, why));
    let ways = WAYS.map(|(place, why)| (place.to_owned(), why));
    for (place, why) in ways.iter().chain(&long) {
        // There is nothing to show of a state that cannot exist.
        check(some, Pipeline { state: place, ..GOOD }, 1, "", &[why]);
        let sink = format!("[sink.out.file]\npath = '{place}'\n");
        check(some, Pipeline { sink: &sink, ..GOOD }, 1, REFUSED, &[why]);
        let keys = format!("on_failure = {{ then = 'dead_letter', directory = '{place}' }}");
        check(
            some,
            Pipeline { keys: &keys, ..GOOD },
            1,
            REFUSED,
            &["dead letters (`on_failure`)", why],
        );
        let source = format!("dead_letter = '{place}'");
        check(
            some,
            Pipeline { source: &source, ..GOOD },
            1,
            REFUSED,
            &["`dead_letter` of the source `in`", why],
        );
        let keys = format!("spill_dir = '{place}'");
        check(some, Pipeline { keys: &keys, ..GOOD }, 1, REFUSED, &["`spill_dir`", why]);
    }
}

/// A row on a disk of 64 MiB, which a first run may have used. Skipped, with a message, if mounting is not allowed.
fn check_disk(
    first: Option<Pipeline<'_>>,
    deed: fn(&Disk),
    pipeline: Pipeline<'_>,
    code: i32,
    words: &[&str],
) {
    let Some(disk) = Disk::in_memory(64) else { return };
    let world = tempfile::tempdir().expect("a directory");
    if let Some(first) = first {
        first.write(world.path(), Some(&disk));
        let program = start(world.path());
        send(&program, &["a line"]);
        program.stop();
    }
    deed(&disk);
    judge(world.path(), Some(&disk), pipeline, code, "", words);
}

const STATE_THERE: Pipeline<'_> = Pipeline { state: "DISK/state", ..GOOD };
const OUT_THERE: Pipeline<'_> = Pipeline { sink: "[sink.out.file]\npath = 'DISK/out'\n", ..GOOD };

#[test]
fn disks_that_are_read_only_or_full() {
    let read_only = "is on a file system that is mounted for reading only: mount it for writing, or give another place";
    for there in [STATE_THERE, OUT_THERE] {
        check_disk(None, Disk::read_only, there, 1, &["cannot make the directory", read_only]);
        check_disk(
            Some(there),
            Disk::read_only,
            there,
            1,
            &["cannot open the directory", read_only],
        );
    }
    let room = "64.00 KiB must be free on the disk of";
    check_disk(
        None,
        Disk::fill,
        OUT_THERE,
        1,
        &["cannot make the directory", room, "make room, or give another place"],
    );
    let no_inodes = ["more files (inodes), and 8 are needed: remove files there"];
    check_disk(None, Disk::few_files, STATE_THERE, 1, &no_inodes);
    check_disk(None, Disk::few_files, OUT_THERE, 1, &no_inodes);
    // Output waits for room.
    check_disk(Some(OUT_THERE), Disk::fill, OUT_THERE, 0, &[]);
    check_disk(Some(STATE_THERE), Disk::fill, STATE_THERE, 0, &[]);
    let without_spares: fn(&Disk) = |disk| {
        for entry in fs::read_dir(disk.path("state")).expect("listed") {
            let path = entry.expect("listed").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("spare-")) {
                fs::remove_file(path).expect("removed");
            }
        }
        disk.fill();
    };
    let words = [
        "there is no room to start the log: 4 MiB more must be free in",
        "make room, or give another `state_dir`",
    ];
    check_disk(Some(STATE_THERE), without_spares, STATE_THERE, 1, &words);
}

#[cfg(feature = "sqlite")]
#[test]
fn databases_in_good_and_bad_places() {
    let sink = |path: &str| format!("[sink.out.sqlite]\npath = '{path}'\n");
    for place in ["new.db", "dir/new.db", "link"] {
        check(some, Pipeline { sink: &sink(place), ..GOOD }, 0, MADE, &[]);
    }
    for (place, why) in [
        ("no/new.db", "no is not there: make it, or give another place"),
        ("far-link", "no is not there: make it, or give another place"),
        ("file/new.db", "file is no directory: move it away, or give another place"),
        ("dir", "dir is a directory: give the path of a file"),
        ("/dev/full", "/dev/full is no file that keeps bytes: give the path of a file"),
        (
            "/proc/new.db",
            "/proc takes no files of this user: let the user write there, or give another place",
        ),
    ] {
        let words = ["cannot open the database", why];
        check(some, Pipeline { sink: &sink(place), ..GOOD }, 1, REFUSED, &words);
    }
    let reserved = format!("{}table = 'tidemill_commits'\n", sink("new.db"));
    let words = [
        "the table `tidemill_commits` is reserved",
        "pipeline.toml:",
        "give the table another name",
    ];
    check(nothing, Pipeline { sink: &reserved, ..GOOD }, 78, "", &words);
    let there = sink("DISK/rows.db");
    let there = Pipeline { sink: &there, ..GOOD };
    let read_only = "is on a file system that is mounted for reading only: mount it for writing, or give another place";
    for first in [None, Some(there)] {
        check_disk(first, Disk::read_only, there, 1, &["cannot open the database", read_only]);
        // Output waits for room.
        check_disk(first, Disk::fill, there, 0, &[]);
    }
}

/// A start whose port is in use says so and creates nothing; the same start succeeds once the port is free.
fn check_taken(pipeline: Pipeline<'_>, keys: &str) {
    let world = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    pipeline.write(world.path(), None);
    let text = fs::read_to_string(world.path().join(FILE)).expect("written");
    let text = text.replace("127.0.0.1:0", &address).replace("state_dir = 'state'", keys);
    fs::write(world.path().join(FILE), text).expect("written");
    let before = snapshot(world.path());
    let (code, _, said) = start(world.path()).finish();
    let words = format!("source `in` cannot listen on {address} (another program listens there: ");
    assert!(code == Some(1) && said.join("\n").contains(&words), "{code:?} {said:?}");
    assert!(snapshot(world.path()) == before, "a refused start changed something");
    drop(taken);
    let program = start(world.path());
    assert_eq!(program.address_after("listening on").to_string(), address);
    program.stop();
}

#[test]
fn a_port_that_is_taken() {
    check_taken(GOOD, "state_dir = 'state'");
    check_taken(Pipeline { source: "ack = 'received'", ..GOOD }, "");
    let keys = "spill_dir = 'spill'";
    check_taken(Pipeline { keys, ..GOOD }, "state_dir = 'state'");
}
