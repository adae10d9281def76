//! A changed pipeline: sources, states, sinks and jobs that an earlier file had and this one does not, or the other way
//! round. Real files, sockets and processes; checks the messages and the output.

mod sinks;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::program::Program;
use crate::verdicts::{Verdict, inspect};

/// A directory with the input `in`, the output `out` and the state `state` of a pipeline.
struct Place(TempDir);

/// A start: the input before it, the file, its keys and options, and the expected result.
#[derive(Clone, Copy)]
struct Start {
    /// Lines that are added to a file of `in`.
    input: &'static str,
    file: &'static str,
    /// `retired` and `renamed`.
    said: &'static str,
    options: &'static [&'static str],
    code: i32,
    /// The expected messages, in this order.
    says: &'static [&'static str],
}

const GOOD: Start = Start { input: "", file: "", said: "", options: &[], code: 0, says: &[] };
const REFUSED: Start = Start { code: 1, ..GOOD };
const WRONG: Start = Start { code: 78, ..GOOD };

/// One source of files, one job, one sink.
const A: &str = "[source.a.files]\ndirectory = 'DIR/in'\n[job.all]\nfrom = ['a']\nto = ['files']\nlines = {}\n\
    [sink.files.file]\npath = 'DIR/out'\n";
/// The same under another name.
const B: &str = "[source.b.files]\ndirectory = 'DIR/in'\n[job.all]\nfrom = ['b']\nto = ['files']\nlines = {}\n\
    [sink.files.file]\npath = 'DIR/out'\n";
/// A second source beside it, in a union.
const AB: &str = "[source.a.files]\ndirectory = 'DIR/in'\n[source.b.files]\ndirectory = 'DIR/more'\n[job.all]\n\
    from = ['a', 'b']\nto = ['files']\nlines = {}\n[sink.files.file]\npath = 'DIR/out'\n";

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().expect("a directory"));
        for directory in ["in", "more"] {
            fs::create_dir(place.path(directory)).expect("made");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the pipeline's file.
    fn write(&self, said: &str, file: &str) {
        let text = format!(
            "name = 'names'\nstate_dir = 'DIR/state'\nhttp = 'off'\n{said}\n{}{file}",
            if said.contains("batch_interval") { "" } else { "batch_interval = '20ms'\n" }
        );
        let text = text.replace("DIR", self.0.path().to_str().expect("UTF-8"));
        fs::write(self.path("pipeline.toml"), text).expect("written");
    }

    fn program(&self, options: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        Program::of(command.arg("run").arg(self.path("pipeline.toml")).args(options))
    }

    /// The verdict of `inspect` on a start.
    fn verdict(&self, options: &[&str]) -> Option<Verdict> {
        let (state, file) = (self.path("state"), self.path("pipeline.toml"));
        let text = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
        let look = || inspect(self.0.path(), &text(&state), &text(&file), options);
        state.exists().then(look)
    }

    /// Runs one start, to the end of the files.
    fn start(&self, start: &Start) {
        let input = fs::OpenOptions::new().create(true).append(true).open(self.path("in/file"));
        input.expect("opened").write_all(start.input.as_bytes()).expect("written");
        self.write(start.said, start.file);
        let options = [&["--until-eof"], start.options].concat();
        let verdict = self.verdict(start.options);
        let (code, _, said) = self.program(&options).finish();
        let said = said.join("\n");
        verdict.into_iter().for_each(|it| it.expect(code, &said));
        assert_eq!(code, Some(start.code), "{} {}\n{said}", start.said, start.file);
        let mut rest = said.as_str();
        for words in start.says {
            let at = rest.find(words);
            let at = at.unwrap_or_else(|| panic!("no `{words}` in its place in:\n{said}"));
            rest = &rest[at + words.len()..];
        }
    }

    /// The committed lines.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for entry in fs::read_dir(self.path("out")).into_iter().flatten() {
            let path = entry.expect("listed").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("text");
            if !name.starts_with('.') {
                let text = fs::read_to_string(&path).expect("UTF-8");
                lines.extend(text.lines().map(str::to_owned));
            }
        }
        lines.sort();
        lines
    }
}

fn check(starts: &[Start], lines: &[&str]) {
    let place = Place::new();
    starts.iter().for_each(|start| place.start(start));
    assert_eq!(place.lines(), lines);
}

#[test]
fn a_renamed_source_reads_each_line_once() {
    let refused = Start {
        file: B,
        says: &[
            "holds what this pipeline does not name:",
            "source `a`: a position in 1 file, 4 bytes read",
            "retired = [\"source:a\"]",
            "renamed = { \"source:b\" = \"source:a\" }",
        ],
        ..REFUSED
    };
    let said = "renamed = { 'source:b' = 'source:a' }";
    let renamed = Start { input: "3\n", file: B, said, ..GOOD };
    check(
        &[
            Start { input: "1\n2\n", file: A, ..GOOD },
            refused,
            refused,
            Start { says: &["state: source `a` is now called source `b`"], ..renamed },
            // The entry may stay for as long as people like.
            Start { input: "4\n", ..renamed },
            Start { file: B, ..GOOD },
            // And back again.
            Start { input: "5\n", file: A, said: "renamed = { 'source:a' = 'source:b' }", ..GOOD },
            Start { input: "6\n", file: A, ..GOOD },
        ],
        &["1", "2", "3", "4", "5", "6"],
    );
}

#[test]
fn a_source_that_is_left_out_for_a_single_run_is_not_forgotten() {
    let without = "[source.b.files]\ndirectory = 'DIR/more'\n[job.all]\nfrom = ['b']\nto = ['files']\nlines = {}\n\
        [sink.files.file]\npath = 'DIR/out'\n";
    check(
        &[
            Start { input: "1\n", file: AB, ..GOOD },
            Start { file: without, says: &["source `a`: a position"], ..REFUSED },
            Start { input: "2\n", file: AB, ..GOOD },
        ],
        &["1", "2"],
    );
}

#[test]
fn a_retired_source_is_given_up_and_its_name_is_free() {
    let said = "retired = ['source:a']";
    check(
        &[
            Start { input: "1\n", file: A, ..GOOD },
            Start {
                file: B,
                said,
                says: &[
                    "WARN state: source `a` is retired, given up: a position",
                    "state: source `b` is new",
                ],
                ..GOOD
            },
            Start { input: "2\n", file: B, said, ..GOOD },
            // The source comes back as a new one, and reads everything; `b` must be retired first.
            Start { file: A, says: &["source `b`: a position"], ..REFUSED },
            Start { file: A, said: "retired = ['source:b']", says: &["source `a` is new"], ..GOOD },
        ],
        &["1", "1", "1", "2", "2"],
    );
}

#[test]
fn a_mistake_in_what_is_said_of_names_is_one_of_the_file() {
    let wrong = |said, file, says| Start { said, file, says, ..WRONG };
    check(
        &[
            Start { input: "1\n", file: AB, ..GOOD },
            wrong(
                "retired = ['source:a']",
                A,
                &[
                    "`source:a` is in `retired`, and the pipeline still uses it",
                    "pipeline.toml:4:12",
                ],
            ),
            wrong(
                "renamed = { 'source:a' = 'source:b', 'source:b' = 'source:a' }",
                AB,
                &["the pipeline still uses `source:b`", "the pipeline still uses `source:a`"],
            ),
            wrong(
                "renamed = { 'source:b' = 'source:a', 'source:c' = 'source:b' }",
                B,
                &["the pipeline has no source `c`"],
            ),
            wrong(
                "renamed = { 'source:a' = 'source:b' }",
                A,
                &[
                    "the state directory knows `source:a` as well, with a position in 1 file, 2 bytes read",
                    "retired = [\"source:b\"]",
                ],
            ),
            wrong("renamed = { 'source:a' = 'state:b' }", A, &["a state cannot become a source"]),
            Start {
                said: "retired = ['source:b', 'source:x', 'state:y', 'sink:z', 'job:w']",
                file: A,
                input: "2\n",
                ..GOOD
            },
        ],
        &["1", "2"],
    );
}

#[test]
fn without_a_file_names_are_retired_by_an_option() {
    let place = Place::new();
    fs::write(place.path("in/file"), "1\n").expect("written");
    let (from, to) = (place.path("in"), place.path("out"));
    let state = place.path("state");
    let run = |from: String, rest: &[&str]| {
        let to = format!("file://{}", to.display());
        let mut args = vec![
            "run", "--from", &from, "--job", "lines", "--to", &to, "--every", "20ms", "--http",
            "off",
        ];
        args.extend(["--until-eof", "--state-dir", state.to_str().expect("UTF-8")]);
        args.extend(rest);
        let (code, _, said) = Program::start(&args).finish();
        (code, said.join("\n"))
    };
    let files = format!("files://{}", from.display());
    let (code, said) = run(files.clone(), &[]);
    assert_eq!(code, Some(0), "{said}");
    // The implied name is the same, but the source is not.
    let (code, said) = run("generate:records=1".to_owned(), &[]);
    let words =
        "source `in` was found with positions of `files`, and the program wants received records";
    assert!(code == Some(1) && said.contains(words), "{said}");
    let (code, said) = run(files.clone(), &["--set", "retired=[\"source:in\"]"]);
    assert!(code == Some(2) && said.contains("the pipeline still uses it"), "{said}");
    let (code, said) =
        run(files, &["--set", "retired=[\"source:old\"]", "--set", "renamed.job:lines=job:old"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(place.lines(), ["1"]);
}

/// A RELP source of this name that acknowledges once a record is in the log.
fn relp(name: &str, rest: &str) -> String {
    format!(
        "[source.{name}.socket]\nlisten = '127.0.0.1:0'\nframing = 'relp'\n{rest}\n[job.all]\nfrom = ['{name}']\n\
         to = ['files']\nlines = {{}}\n[sink.files.file]\npath = 'DIR/out'\n"
    )
}

const HOUR: &str = "batch_interval = '1h'\n";

impl Place {
    /// Sends lines, waits until they are acknowledged, and kills the program.
    fn send_and_kill(&self, file: &str, said: &str, lines: &str) {
        let mut program = self.listen(file, said, lines, &[]);
        program.process.kill();
    }

    /// Waits until these words are printed and it listens, sends lines, waits until they are acknowledged.
    fn listen(&self, file: &str, said: &str, lines: &str, says: &[&str]) -> Program {
        self.write(said, file);
        self.verdict(&[]).into_iter().for_each(|it| it.expect(Some(0), ""));
        let program = self.program(&[]);
        says.iter().for_each(|words| drop(program.wait_for(words)));
        let address = program.address_after("listening on").to_string();
        if !lines.is_empty() {
            self.load(&address, lines);
        }
        program
    }

    /// Sends lines, and waits until they are acknowledged.
    fn load(&self, address: &str, lines: &str) {
        fs::write(self.path("lines"), lines).expect("written");
        let lines = self.path("lines");
        let args = [
            "load",
            "--connect",
            address,
            "--framing",
            "relp",
            "--file",
            lines.to_str().expect("UTF-8"),
        ];
        let (code, _, said) = Program::start(&args).finish();
        assert_eq!(code, Some(0), "{}", said.join("\n"));
    }

    /// Stops a program in order, and returns its messages.
    fn stop(&self, program: Program) -> String {
        program.signal(Signal::TERM);
        let (code, _, said) = program.finish();
        let said = said.join("\n");
        assert_eq!(code, Some(0), "{said}");
        said
    }

    /// Runs a start that is refused, and returns its messages.
    fn refused(&self, file: &str, said: &str) -> String {
        self.write(said, file);
        let verdict = self.verdict(&[]);
        let (code, _, said) = self.program(&[]).finish();
        let said = said.join("\n");
        assert_eq!(code, Some(1), "{said}");
        verdict.into_iter().for_each(|it| it.expect(code, &said));
        said
    }
}

#[test]
fn acknowledged_records_are_never_given_up_in_silence() {
    let place = Place::new();
    place.send_and_kill(&relp("a", ""), HOUR, "1\n2\n3\n");
    let said = place.refused(&relp("b", ""), HOUR);
    assert!(said.contains("source `a`: 3 records that no batch was given"), "{said}");
    // Carried over, even through a second kill before they were processed.
    let renamed = format!("{HOUR}renamed = {{ 'source:b' = 'source:a' }}");
    place.send_and_kill(&relp("b", ""), &renamed, "4\n");
    place.stop(place.listen(&relp("b", ""), &renamed, "", &[]));
    assert_eq!(place.lines(), ["1", "2", "3", "4"]);
}

#[test]
fn records_that_are_given_up_are_counted() {
    let place = Place::new();
    place.send_and_kill(&relp("a", ""), HOUR, "1\n2\n3\n");
    let retired = format!("{HOUR}retired = ['source:a']");
    let says = ["WARN state: source `a` is retired, given up: 3 records that no batch was given"];
    place.stop(place.listen(&relp("b", ""), &retired, "4\n", &says));
    assert_eq!(place.lines(), ["4"]);
    place.stop(place.listen(&relp("b", ""), &retired, "", &[]));
    assert_eq!(place.lines(), ["4"]);
}

/// The pattern that reads the numbers of a sender.
const IDENTITY: &str = "identity = '^(?<sender>\\w+) (?<number>\\d+)'";

#[test]
fn what_was_seen_of_a_sender_goes_with_its_source() {
    let place = Place::new();
    let run = |name: &str, said: &str, lines: &str| {
        let said = format!("batch_interval = '20ms'\n{said}");
        let program = place.listen(&relp(name, IDENTITY), &said, lines, &[]);
        place.stop(program)
    };
    run("a", "", "s 1\ns 2\n");
    let said = place.refused(&relp("b", IDENTITY), "");
    assert!(said.contains("state `identity of a`: 1 key, "), "{said}");
    run("b", "renamed = { 'source:b' = 'source:a' }", "s 2\ns 3\n");
    run("b", "", "s 1\ns 3\ns 4\n");
    assert_eq!(place.lines(), ["s 1", "s 2", "s 3", "s 4"]);
    // The key is removed, and the start asks about the state.
    let said = place.refused(&relp("b", ""), "");
    assert!(said.contains("retired = [\"state:identity of b\"]"), "{said}");
    let program = place.listen(&relp("b", ""), "retired = ['state:identity of b']", "s 1\n", &[]);
    place.stop(program);
    assert_eq!(place.lines(), ["s 1", "s 1", "s 2", "s 3", "s 4"]);
    // The key is added again: its state is new.
    run("b", "", "s 1\ns 1\n");
    assert_eq!(place.lines().len(), 6);
}
