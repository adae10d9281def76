//! Pipeline files as data: what is typed, and the text that is shown for it.

mod good;
mod grammar;
mod jobs;
mod names;
mod never_panics;
mod pipeline;
mod places;
mod settings;
mod sinks;
mod sources;

use tidemill::internals::config::Pipeline;
use tidemill::internals::framing::FRAMINGS;
use tidemill::internals::io::IO_MODELS;

const SOURCE: &str = "[source.lines.socket]\nconnect = [\"127.0.0.1:9999\"]\n";
const JOB: &str = "[job.words]\nfrom = [\"lines\"]\nto = [\"screen\"]\nwordcount = {}\n";
const SINK: &str = "[sink.screen.console]\n";

// Good pipelines around one piece that is tried; the piece comes first, so that its lines are the file's.

fn whole(piece: &str) -> String {
    piece.to_owned()
}

fn pipeline_key(piece: &str) -> String {
    format!("{piece}\n{SOURCE}{JOB}{SINK}")
}

fn source(piece: &str) -> String {
    format!("{piece}\n{JOB}{SINK}")
}

fn socket_key(piece: &str) -> String {
    source(&format!("[source.lines.socket]\n{piece}"))
}

fn files_key(piece: &str) -> String {
    source(&format!("[source.lines.files]\ndirectory = \"in\"\n{piece}"))
}

fn job_key(piece: &str) -> String {
    format!("[job.words]\n{piece}\n{SOURCE}{SINK}")
}

fn sink(piece: &str) -> String {
    format!("{piece}\n{SOURCE}{JOB}")
}

fn env(name: &str) -> Option<String> {
    (name == "PORT").then(|| "9999".to_owned())
}

/// What is shown for a pipeline: its errors, otherwise its warnings.
fn shown(text: &str) -> String {
    match Pipeline::parse(text, "p.toml", &env) {
        Ok(pipeline) => pipeline.warnings.join("\n\n"),
        Err(err) => {
            assert_eq!(err.exit_code(), 78);
            err.to_string()
        }
    }
}

/// What is expected is written with the tables' names left out, so that a new row changes no case.
fn check(text: &str, expected: &str) {
    let names = |names: Vec<&str>| {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let expected = expected
        .replace("IO_MODELS", &names(IO_MODELS.iter().map(|row| row.name).collect()))
        .replace("FRAMINGS", &names(FRAMINGS.iter().map(|row| row.name).collect()));
    assert_eq!(shown(text).trim(), expected.trim(), "\nof:\n{text}\n");
}

/// How a piece becomes a file, the piece, and what is shown.
type Case = (fn(&str) -> String, &'static str, &'static str);

fn check_all(cases: &[Case]) {
    for (around, piece, expected) in cases {
        check(&around(piece), expected);
    }
}

fn good(text: &str) -> Pipeline {
    Pipeline::parse(text, "p.toml", &env).unwrap_or_else(|err| panic!("{err}\nof:\n{text}"))
}
