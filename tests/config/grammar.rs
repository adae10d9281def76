//! Grammar, whole files and variables: what is shown, where, and in which order.

use crate::{Case, check_all, pipeline_key, whole};

const GRAMMAR_ERRORS_HAVE_A_POSITION: &[Case] = &[
    (
        whole,
        "name = words
",
        "
error: string values must be quoted, expected literal string
 --> p.toml:1:8
  |
1 | name = words
  |        ^^^^^
",
    ),
    (
        whole,
        r#"name = "words
"#,
        r#"
error: invalid basic string, expected `"`
 --> p.toml:1:14
  |
1 | name = "words
  |              ^
"#,
    ),
    (
        whole,
        "a = 1
a = 2
",
        "
error: duplicate key
 --> p.toml:2:1
  |
2 | a = 2
  | ^
",
    ),
    (
        whole,
        "[source.lines
",
        "
error: unclosed table, expected `]`
 --> p.toml:1:14
  |
1 | [source.lines
  |              ^
",
    ),
];

#[test]
fn grammar_errors_have_a_position() {
    check_all(GRAMMAR_ERRORS_HAVE_A_POSITION);
}

const WHOLE_FILES: &[Case] = &[
    (
        whole,
        "",
        "
error: the pipeline has no job
 --> p.toml:1:1
  |
1 |
  | ^
  |
  = help: write `[job.NAME]` with `from`, `to` and one of `wordcount = {}`, `count = {}`, ...
",
    ),
    (
        whole,
        "workers = 1.5
name = 1979-05-27
",
        "
error: the pipeline has no job
 --> p.toml:1:1
  |
1 | workers = 1.5
  | ^
  |
  = help: write `[job.NAME]` with `from`, `to` and one of `wordcount = {}`, `count = {}`, ...

error: `workers` must be a whole number, not a number with a fraction
 --> p.toml:1:11
  |
1 | workers = 1.5
  |           ^^^

error: `name` must be a string, not a date
 --> p.toml:2:8
  |
2 | name = 1979-05-27
  |        ^^^^^^^^^^
",
    ),
];

#[test]
fn whole_files() {
    check_all(WHOLE_FILES);
}

const VARIABLES: &[Case] = &[
    (
        pipeline_key,
        r#"name = "${NAME}""#,
        r#"
error: the variable `NAME` is not set
 --> p.toml:1:8
  |
1 | name = "${NAME}"
  |        ^^^^^^^^^ needs it
  |
  = help: set it, or give a default: `${NAME:-default}`
"#,
    ),
    (
        pipeline_key,
        r#"name = "${NAME""#,
        r#"
error: `${` does not begin a variable
 --> p.toml:1:8
  |
1 | name = "${NAME"
  |        ^^^^^^^^
  |
  = help: write `${NAME}`, `${NAME:-default}`, or `$${` for `${` itself
"#,
    ),
    (
        pipeline_key,
        r#"name = "${NAME:-a b}""#,
        r#"
error: `a b` is no name: ' ' is not a letter, a digit, `-` or `_`
 --> p.toml:1:8
  |
1 | name = "${NAME:-a b}"
  |        ^^^^^^^^^^^^^^
"#,
    ),
];

#[test]
fn variables() {
    check_all(VARIABLES);
}

const EVERY_PROBLEM_IS_SHOWN_IN_ORDER: &[Case] = &[(
    whole,
    r#"nme = "a"
batch_interval = 1
[source.lines.socket]
connect = ["h"]
[job.words]
from = ["lines"]
to = ["screen"]
wordcunt = {}
[sink.screen.consol]
"#,
    r#"
error: unknown key `nme` of a pipeline
 --> p.toml:1:1
  |
1 | nme = "a"
  | ^^^
  |
  = help: did you mean `name`?

error: `batch_interval` needs a unit of time
 --> p.toml:2:18
  |
2 | batch_interval = 1
  |                  ^ a bare number
  |
  = help: units of time are ms, s, m, h and d: write `"1ms"` or `"1s"`

error: `connect` takes HOST:PORT
 --> p.toml:4:12
  |
4 | connect = ["h"]
  |            ^^^ the port is missing

error: unknown key `wordcunt` of job `words`
 --> p.toml:8:1
  |
8 | wordcunt = {}
  | ^^^^^^^^
  |
  = help: did you mean `wordcount`?

error: unknown kind `consol` of sink `screen`
 --> p.toml:9:14
  |
9 | [sink.screen.consol]
  |              ^^^^^^
  |
  = help: did you mean `console`?
"#,
)];

#[test]
fn every_problem_is_shown_in_order() {
    check_all(EVERY_PROBLEM_IS_SHOWN_IN_ORDER);
}
