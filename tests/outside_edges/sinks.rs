//! Outputs that change while they are written to: a directory that is removed, a database that another process holds, a socket
//! without a listener.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tidemill::time::{Clock, SystemClock};

use crate::program::peers::are_there;
use crate::program::{Process, Program, WATCHDOG, read_lines};

/// A pipeline that reads the files of `in` and writes their lines to `sink`. A console shows them once they are written.
struct Case(TempDir);

impl Case {
    fn new(sink: &str) -> Case {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display().to_string();
        fs::create_dir(directory.path().join("in")).expect("made");
        let text = format!(
            "name = 'away'\nbatch_interval = '50ms'\nskip_empty = true\nstate_dir = 'DIR/state'\nhttp = 'off'\n\
             sink_retry = '1h'\non_failure = {{ retry = 0, then = 'stop' }}\n\
             [source.in.files]\ndirectory = 'DIR/in'\n[job.j]\nfrom = ['in']\nto = ['out', 'screen']\nlines = {{}}\n\
             [sink.screen.console]\nformat = 'json'\n[sink.out.{sink}\n"
        );
        fs::write(directory.path().join("p.toml"), text.replace("DIR", &path)).expect("written");
        Case(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn start(&self) -> Program {
        self.start_with(&[])
    }

    fn start_with(&self, options: &[&str]) -> Program {
        let file = self.path("p.toml").display().to_string();
        Program::start(&[&["run", &file, "--log-format", "json"], options].concat())
    }

    /// A start after which these lines are in committed files, each once; with `two`, if that was given and not written.
    fn start_until_listed(&self, lines: &[&str], has_two: bool) {
        let program = self.start();
        if has_two {
            until_written(&program, "two");
        }
        self.put("last");
        until_written(&program, "last");
        program.stop();
        let two: &[&str] = if has_two { &["two", "last"] } else { &["last"] };
        check_lines(&self.path("out"), &[lines, two].concat());
    }

    /// Adds a file with one line.
    fn put(&self, line: &str) {
        fs::write(self.path("aside"), format!("{line}\n")).expect("written");
        fs::rename(self.path("aside"), self.path("in").join(line)).expect("renamed");
    }
}

/// Waits until this line is at its destination.
fn until_written(program: &Program, line: &str) {
    let shown = format!("[\"{line}\"]");
    while !program.out.recv_timeout(WATCHDOG).expect("a batch in time").contains(&shown) {}
}

/// Checks the lines of committed files, each once.
fn check_lines(path: &Path, expected: &[&str]) {
    let mut lines = Vec::new();
    for entry in fs::read_dir(path).expect("there") {
        let path = entry.expect("listed").path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if !is_hidden {
            let text = fs::read_to_string(&path).expect("UTF-8");
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    lines.sort();
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    assert!(lines.iter().eq(&expected), "{lines:?} {expected:?}");
}

#[test]
fn an_output_directory_that_is_removed_is_made_again() {
    let case = Case::new("file]\npath = 'DIR/out'");
    let (out, old) = (case.path("out"), case.path("old"));
    let program = case.start();
    case.put("one");
    until_written(&program, "one");
    fs::remove_dir_all(&out).expect("removed");
    case.put("two");
    let said = program.event("sink_warning");
    assert_eq!(said["sink"], "out");
    let text = said["text"].as_str().expect("text");
    assert!(text.contains("is made again; 1 committed file is not there any more"), "{text}");
    until_written(&program, "two");
    check_lines(&out, &["two"]);
    // Moved away, and created again by somebody else.
    fs::rename(&out, &old).expect("moved");
    fs::create_dir(&out).expect("made");
    case.put("three");
    until_written(&program, "three");
    program.stop();
    let program = case.start();
    case.put("four");
    until_written(&program, "four");
    program.stop();
    check_lines(&out, &["three", "four"]);
    check_lines(&old, &["two"]);
}

#[test]
fn rows_of_an_open_file_that_is_removed_end_the_run_and_are_missed_until_they_are_given_up() {
    let case = Case::new("file]\npath = 'DIR/out'\nroll = { age = '1h' }");
    let out = case.path("out");
    let program = case.start();
    case.put("one");
    until_written(&program, "one");
    fs::remove_dir_all(&out).expect("removed");
    case.put("two");
    let (code, _, said) = program.finish();
    let said = said.join("\n");
    assert_eq!(code, Some(1), "{said}");
    let error = "was removed while it was written to: 4 bytes are missing of the rows of 1 batch ";
    assert!(said.contains(error), "{said}");
    let (code, _, said) = case.start().finish();
    let said = said.join("\n");
    assert!(code == Some(1) && said.contains("which made 1 commit there"), "{said}");
    assert!(!out.exists());
    let program = case.start_with(&["--set", "sink.out.existing=append"]);
    case.put("three");
    until_written(&program, "three");
    program.stop();
    let program = case.start();
    case.put("four");
    until_written(&program, "four");
    program.stop();
    check_lines(&out, &["two", "three", "four"]);
}

/// The path of the open file.
fn open_file(out: &Path) -> PathBuf {
    let mut all = fs::read_dir(out).expect("there").map(|entry| entry.expect("listed").path());
    all.find(|path| path.extension().is_some_and(|end| end == "open")).expect("an open file")
}

/// Applies `deed` to the open file after the first batch. The run ends with exit code 1 and says `error`: at the next
/// batch, or at the stop if none comes (`when`: true if one comes). The next start is refused with these words, unless
/// nothing is lost.
fn check_open_file(deed: impl Fn(&Path), when: &[bool], error: &str, refused: Option<&str>) {
    for has_next in when.iter().copied() {
        let case = Case::new("file]\npath = 'DIR/out'\nroll = { age = '1h' }");
        let out = case.path("out");
        let program = case.start();
        case.put("one");
        until_written(&program, "one");
        deed(&open_file(&out));
        match has_next {
            true => case.put("two"),
            false => program.signal(rustix::process::Signal::TERM),
        }
        let (code, _, said) = program.finish();
        let said = said.join("\n");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(error) && said.contains("put back what was there"), "{said}");
        let Some(words) = refused else {
            case.start_until_listed(&["one"], has_next);
            continue;
        };
        let (code, _, said) = case.start().finish();
        let said = said.join("\n");
        assert!(
            code == Some(1) && said.contains(words) && said.contains(".manifest.lost"),
            "{said}"
        );
    }
}

#[test]
fn an_open_file_that_is_replaced_or_cut_ends_the_run() {
    const BOTH: &[bool] = &[true, false];
    const SHORT: &str = ".open is too short: 4 bytes are missing";
    const CUT: &str =
        ".open was cut while it was written to: 4 bytes are missing of the rows of 1 batch ";
    const REPLACED: &str = ".open was replaced by another file while it was written to: ";
    let moved = |path: &Path| {
        fs::rename(path, path.with_extension("rot")).expect("moved");
        fs::write(path, "").expect("made");
    };
    check_open_file(moved, BOTH, REPLACED, Some(SHORT));
    let copied = |path: &Path| {
        fs::copy(path, path.with_extension("copy")).expect("copied");
        fs::rename(path.with_extension("copy"), path).expect("moved");
    };
    check_open_file(copied, BOTH, REPLACED, None);
    check_open_file(|path| fs::write(path, "").expect("emptied"), BOTH, CUT, Some(SHORT));
    let gone = |path: &Path| fs::remove_file(path).expect("removed");
    const REMOVED: &str = ".open was removed while it was written to: 4 bytes are missing";
    check_open_file(gone, BOTH, REMOVED, Some(".open is gone: 4 bytes are missing"));
}

/// Kills the run after two batches and applies `deed` to the path of the open file: the start is refused with these words.
fn check_after_kill(deed: impl Fn(&Path), words: &[&str]) {
    let case = Case::new("file]\npath = 'DIR/out'\nroll = { age = '1h' }");
    let mut program = case.start();
    for line in ["one", "two"] {
        case.put(line);
        until_written(&program, line);
    }
    program.process.kill();
    let open = open_file(&case.path("out"));
    deed(&open);
    let (code, _, said) = case.start().finish();
    let said = said.join("\n");
    assert_eq!(code, Some(1), "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "no `{word}` in {said}"));
    assert!(open.exists(), "it is kept");
}

#[test]
fn a_manifest_that_is_cut_is_named_and_its_open_file_kept() {
    for length in [0, 20, 63, 100] {
        let cut = |open: &Path| {
            let file = fs::OpenOptions::new().write(true).open(open.with_extension("manifest"));
            file.expect("there").set_len(length).expect("cut");
        };
        let words = [
            "out holds 0 commits of",
            "The manifest ",
            ".manifest lists no batch, so it is damaged",
            "committed. Put a good copy of it back; that file is kept",
            "`existing = \\\"append",
        ];
        check_after_kill(cut, &words);
    }
}

#[test]
fn rows_of_an_open_file_that_are_others_are_missed() {
    const CHANGED_ONE: &str = ".open is not what was written: 4 bytes are missing";
    const CHANGED: &str = ".open is not what was written: 8 bytes are missing";
    let zeros = |open: &Path| fs::write(open, [0; 8]).expect("written");
    check_after_kill(zeros, &[CHANGED, ".manifest.lost"]);
    let longer = |open: &Path| fs::write(open, "onX\ntwo\nmore\n").expect("written");
    check_after_kill(longer, &[CHANGED]);
    let second = |open: &Path| fs::write(open, "one\ntwX\n").expect("written");
    check_after_kill(second, &[".open is not what was written: 4 bytes are missing"]);
    // While it runs: the same length as before.
    let same = |path: &Path| fs::write(path, [0; 4]).expect("written");
    let error = ".open was overwritten, or emptied, while it was written to: 4 bytes are missing";
    check_open_file(same, &[false], error, Some(CHANGED_ONE));
}

#[cfg(feature = "sqlite")]
#[test]
fn a_database_that_somebody_holds_is_waited_for() {
    let case = Case::new("sqlite]\npath = 'DIR/out.db'\ntable = 't'");
    let program = case.start();
    case.put("one");
    until_written(&program, "one");
    let other = rusqlite::Connection::open(case.path("out.db")).expect("a database");
    other.execute_batch("BEGIN IMMEDIATE").expect("held");
    case.put("two");
    let said = program.event("condition_began");
    assert_eq!((&said["kind"], &said["subject"]), (&"sink_away".into(), &"out".into()), "{said}");
    let cause = said["cause"].as_str().expect("text");
    assert!(cause.contains("out.db: ") && cause.contains("locked"), "{cause}");
    assert_eq!(said["needs"], "whoever holds it must let it go");
    other.execute_batch("ROLLBACK").expect("let go");
    until_written(&program, "two");
    program.stop();
    let count = other.query_row("SELECT count(*), count(DISTINCT c1) FROM t", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    });
    assert_eq!(count.expect("rows"), (2, 2));
}

/// `socat` as the peer of the sink `unix`: what comes to the socket `x.sock` goes to `to`.
fn socat(case: &Case, options: &str, to: &str) -> Process {
    let listen = format!("UNIX-LISTEN:{}{options}", case.path("x.sock").display());
    Process::start(Command::new("socat").args(["-u", &listen, to]).stdout(Stdio::piped()))
}

#[test]
fn a_unix_socket_whose_listener_comes_late_and_goes_gets_each_batch() {
    if !are_there(&["socat"], "apt-get install socat") {
        return;
    }
    let case = Case::new("unix]\npath = 'DIR/x.sock'");
    let program = case.start();
    case.put("one");
    let said = program.event("condition_began");
    assert_eq!((&said["kind"], &said["subject"]), (&"sink_away".into(), &"out".into()), "{said}");
    let cause = said["cause"].as_str().expect("text");
    assert!(cause.contains("x.sock: nobody listens there yet"), "{cause}");
    assert_eq!(said["needs"], "its server must be there");
    let mut peer = socat(&case, "", "STDOUT");
    let lines = read_lines(peer.0.stdout.take().expect("piped"));
    assert_eq!(lines.recv_timeout(WATCHDOG).as_deref(), Ok("one"));
    program.event("condition_ended");
    until_written(&program, "one");
    peer.kill();
    case.put("two");
    let said = program.event("condition_began");
    assert_eq!(said["kind"], "sink_away", "{said}");
    // As in the guide: each connection appends to a file.
    let out = case.path("out");
    let append = format!("OPEN:{},creat,append", out.display());
    let _peer = socat(&case, ",fork,unlink-early", &append);
    until_written(&program, "two");
    program.stop();
    let (clock, is_there) = (SystemClock::new(), || fs::read_to_string(&out).ok());
    let until = clock.now().plus(WATCHDOG);
    while is_there().as_deref() != Some("two\n") {
        assert!(clock.now() < until, "{:?}", is_there());
        std::thread::yield_now();
    }
}

#[test]
fn a_socket_without_a_directory_refuses_the_start() {
    let case = Case::new("unix]\npath = 'DIR/no/x.sock'");
    let (code, _, said) = case.start().finish();
    let said = said.join("\n");
    assert!(code == Some(1) && said.contains("/no; make it"), "{said}");
    let file = case.path("p.toml").display().to_string();
    let (code, _, said) = Program::start(&["validate", &file]).finish();
    let said = said.join("\n");
    assert!(code == Some(0) && said.contains("warning: sink `out`: "), "{said}");
    assert!(said.contains("there is no directory "), "{said}");
}
