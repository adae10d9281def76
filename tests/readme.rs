//! Every command of README works, in a short form: it prints the output that README shows, up to numbers. For a command
//! that takes minutes, the test only checks that the things it names exist. README stays a first screen.

#![expect(
    clippy::disallowed_methods,
    reason = "a test's readers are threads of the test, not of the engine"
)]

mod program;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use self::program::Program;

const README: &str = include_str!("../README.md");

/// The most lines of README.
const LINES_MAX: usize = 250;

/// A substitute for a command.
enum Short {
    /// `tidemill` runs with these arguments, from the root of the repository.
    Run(&'static [&'static str]),
    /// The named thing is in this file.
    Names(&'static str, &'static str),
    /// [`the_pipeline_of_readme_makes_the_rows_of_readme`] runs it.
    Pipeline,
}

use Short::{Names, Pipeline, Run};

/// A command of README, its short form, and the last line of its output in README, if the short form prints it.
const COMMANDS: &[(&str, Short, &str)] = &[
    (
        "cargo run --release -- run examples/wordcount.toml",
        Run(&[
            "run",
            "examples/wordcount.toml",
            "--set",
            "batch_interval=100ms",
            "--set",
            "source.lines.records=200",
            "--until-eof",
            "--http",
            "off",
        ]),
        " over # connection, io model nio",
    ),
    ("cargo test", Names("Cargo.toml", "[lib]"), ""),
    ("cargo install --path .", Names("Cargo.toml", "default-run = \"tidemill\""), ""),
    ("cargo build --release --features sqlite", Names("Cargo.toml", "\nsqlite = ["), ""),
    ("tidemill doctor", Run(&["doctor"]), "ok       clock resolution                   # ns"),
    ("tidemill validate words.toml", Pipeline, ""),
    ("tidemill run words.toml", Pipeline, ""),
    ("printf 'to be or not to be\\n' | nc -N 127.0.0.1 5514", Pipeline, ""),
    ("tidemill compare --quick", Run(&["compare", "--quick", "--help"]), ""),
    (
        "cargo bench --bench receive -- connections-1/",
        Names("benches/receive.rs", "connections-"),
        "",
    ),
    ("cargo bench --bench scorecard -- p15", Names("benches/scorecard/rows.rs", "P15,"), ""),
    (
        "cargo test --lib any_chopping_gives_what_the_reference_finds",
        Names("src/framing/mod.rs", "fn any_chopping_gives_what_the_reference_finds("),
        "",
    ),
    (
        "cargo test --lib a_record_that_is_given_up_is_passed_over_and_nothing_else_is",
        Names(
            "src/framing/mod.rs",
            "fn a_record_that_is_given_up_is_passed_over_and_nothing_else_is(",
        ),
        "",
    ),
    (
        "cargo test --lib blocks_hold_the_records_of_the_reference",
        Names("src/source/tests.rs", "fn blocks_hold_the_records_of_the_reference("),
        "",
    ),
    (
        "cargo +nightly fuzz run lines -- -max_total_time=10",
        Names("fuzz/Cargo.toml", "name = \"lines\""),
        "",
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The blocks of README in this language, `toml` or `sh`.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("\n```{language}\n");
    README.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

/// A line with `#` for each number.
fn without_numbers(line: &str) -> String {
    let mut shown = String::new();
    for c in line.chars() {
        let of_number = c.is_ascii_digit() || (shown.ends_with('#') && matches!(c, '.' | ','));
        match of_number {
            true if shown.ends_with('#') => {}
            true => shown.push('#'),
            false => shown.push(c),
        }
    }
    shown
}

fn has_line(text: &str, ending: &str) -> bool {
    text.lines().any(|line| without_numbers(line).ends_with(ending))
}

#[test]
fn numbers_are_left_out() {
    let check = |line: &str, expected: &str| assert_eq!(without_numbers(line), expected);
    check("stopped after 4.0 s: 19,797 records", "stopped after # s: # records");
    check("1.52 MiB", "# MiB");
    check("no number", "no number");
}

#[test]
fn every_command_of_readme_has_a_short_form() {
    let commands = blocks("sh").into_iter().flat_map(str::lines);
    let commands = commands.map(|line| line.split(" # ").next().unwrap_or_default().trim_end());
    let known: Vec<_> = COMMANDS.iter().map(|(command, ..)| *command).collect();
    assert_eq!(commands.collect::<Vec<_>>(), known);
}

#[test]
fn every_command_of_readme_works() {
    for (command, short, ending) in COMMANDS {
        match short {
            Run(args) => {
                let run = Command::new(env!("CARGO_BIN_EXE_tidemill"))
                    .args(*args)
                    .current_dir(root())
                    .output()
                    .expect("it runs");
                let said = [run.stdout, run.stderr].concat();
                let said = String::from_utf8_lossy(&said);
                assert!(run.status.success(), "{command}: {said}");
                assert!(has_line(&said, ending), "{command}: no {ending:?} in\n{said}");
                assert!(has_line(README, ending), "README does not show {ending:?}");
            }
            // A package of cargo has no other package in it.
            Names("fuzz/Cargo.toml", _) if root().join(".cargo_vcs_info.json").exists() => {}
            Names(file, text) => {
                let found = fs::read_to_string(root().join(file)).expect("UTF-8");
                assert!(found.contains(text), "{command}: no {text:?} in {file}");
            }
            Pipeline => {}
        }
    }
}

/// With a second sink, because a line on the screen is an event to wait for.
#[test]
fn the_pipeline_of_readme_makes_the_rows_of_readme() {
    let directory = tempfile::tempdir().expect("a directory");
    let pipeline = blocks("toml")[0];
    let more = "\n[sink.screen.console]\nformat = 'json'\n";
    fs::write(directory.path().join("words.toml"), format!("{pipeline}{more}")).expect("written");
    let sets = [
        "source.lines.listen=127.0.0.1:0",
        "batch_interval=50ms",
        "job.words.window=500ms",
        "job.words.slide=100ms",
        "job.words.to=[\"screen\",\"files\"]",
    ];
    let tidemill = |command: &str| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        run.current_dir(directory.path()).args([command, "words.toml"]);
        run.args(sets.iter().flat_map(|set| ["--set", set]));
        run
    };
    let checked = tidemill("validate").output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let program = Program::of(tidemill("run").args(["--http", "off", "--log-format", "json"]));
    let mut peer = TcpStream::connect(program.listening()).expect("connected");
    peer.write_all(b"to be or not to be\n").expect("sent");
    while !program.out.recv_timeout(program::WATCHDOG).expect("a batch").contains("be") {}
    program.stop();
    let files = fs::read_dir(directory.path().join("counts")).expect("made");
    let files = files.map(|entry| entry.expect("listed").path());
    let texts = files.map(|path| fs::read_to_string(path).unwrap_or_default());
    let shown: Vec<String> =
        README.lines().filter(|line| line.starts_with("{\"batch")).map(without_numbers).collect();
    let same = |text: String| text.lines().map(without_numbers).eq(shown.iter().cloned());
    assert!(shown.len() == 4 && texts.into_iter().any(same), "no file has {shown:?}");
}

#[test]
fn readme_is_a_first_screen() {
    let lines = README.lines().count();
    assert!(lines <= LINES_MAX, "README has {lines} lines, {LINES_MAX} at most");
    let long = README.lines().filter(|line| line.chars().count() > 130 && !line.starts_with('|'));
    assert_eq!(long.collect::<Vec<_>>(), Vec::<&str>::new());
}
