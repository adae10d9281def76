//! Arbitrary text and mutated pipelines: an error with a place, or a pipeline.

use proptest::prelude::*;

use tidemill::internals::config::{Given, Pipeline, Setting};

use crate::{env, pipeline_key};

const GOOD: &str = include_str!("../../examples/wordcount.toml");

/// Pieces that a mutation puts in: those that mean something to the grammar, to units, variables and patterns.
const PIECES: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "=",
    "\"",
    "'",
    "\n",
    "\r\n",
    "#",
    ".",
    ",",
    "${",
    "${A:-",
    "\\",
    "-1",
    "99999999999999999999",
    "1e9",
    "true",
    "\"1s\"",
    "\"64MiB\"",
    "\u{0}",
    "\u{feff}",
    "ä",
    "\t",
    "[source.lines.socket]\n",
    "[job.x]\n",
    "connect = [\"a:1\"]\n",
    "grep = { pattern = \"(\" }\n",
    "topk = {}\n",
    "1979-05-27",
    "trigger = {}\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}|[\\[\\]{}=\"'a-z.\n\r\t#$0-9é-]{0,200}") {
        let _ = Pipeline::parse(&text, "p.toml", &env);
    }

    /// A few places of a good file cut or overwritten: an error with a position, or a pipeline that resolves.
    #[test]
    fn mutated_pipelines_never_panic(
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0usize..12, prop::sample::select(PIECES)),
            1..6,
        ),
    ) {
        let lines = GOOD.lines().filter(|line| !line.starts_with('#'));
        let mut text: Vec<char> = lines.flat_map(|line| line.chars().chain(['\n'])).collect();
        for (at, cut, piece) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + cut).min(text.len());
            text.splice(start..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        match Pipeline::parse(&text, "p.toml", &env) {
            Ok(pipeline) => prop_assert!(!pipeline.summary().is_empty()),
            Err(err) => prop_assert!(err.to_string().contains("--> p.toml:"), "{}", err),
        }
    }

    #[test]
    fn arbitrary_settings_never_panic(
        path in prop::collection::vec("source|lines|socket|job|words|name|[a-z]{0,3}", 0..4),
        value in "\\PC{0,20}",
    ) {
        let setting = Setting { flag: "--set".to_owned(), path, value: Given::Toml(value), makes: false };
        let _ = Pipeline::parse_with(&pipeline_key(""), "p.toml", &env, &[setting]);
    }
}
