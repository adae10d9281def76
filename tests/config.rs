//! Pipeline files as data: what is typed, and the text that is shown for it.

use std::time::Duration;

use proptest::prelude::*;

use tidemill::Error;
use tidemill::internals::config::{Given, Pipeline, Setting, Source};
use tidemill::internals::framing::FRAMINGS;
use tidemill::internals::io::IO_MODELS;
use tidemill::internals::stream::jobs::{JOBS as JOB_ROWS, JobKind, WordCount};
use tidemill::source::Direction as Peers;

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

const PIPELINE_KEYS: &[Case] = &[
    (
        pipeline_key,
        r#"batch_intervall = "1s""#,
        r#"
error: unknown key `batch_intervall` of a pipeline
 --> p.toml:1:1
  |
1 | batch_intervall = "1s"
  | ^^^^^^^^^^^^^^^
  |
  = help: did you mean `batch_interval`?
"#,
    ),
    (
        pipeline_key,
        r#"name = """#,
        r#"
error: `` is no name: it is empty
 --> p.toml:1:8
  |
1 | name = ""
  |        ^^
"#,
    ),
    (
        pipeline_key,
        r#"name = "a/b""#,
        r#"
error: `a/b` is no name: '/' is not a letter, a digit, `-` or `_`
 --> p.toml:1:8
  |
1 | name = "a/b"
  |        ^^^^^
"#,
    ),
    (
        pipeline_key,
        "name = 7",
        "
error: `name` must be a string, not a number
 --> p.toml:1:8
  |
1 | name = 7
  |        ^
",
    ),
    (
        pipeline_key,
        "batch_interval = 1",
        r#"
error: `batch_interval` needs a unit of time
 --> p.toml:1:18
  |
1 | batch_interval = 1
  |                  ^ a bare number
  |
  = help: units of time are ms, s, m, h and d: write `"1ms"` or `"1s"`
"#,
    ),
    (
        pipeline_key,
        r#"batch_interval = "200""#,
        r#"
error: `batch_interval` needs a unit of time
 --> p.toml:1:18
  |
1 | batch_interval = "200"
  |                  ^^^^^ no unit
  |
  = help: units of time are ms, s, m, h and d: write `"200ms"` or `"200s"`
"#,
    ),
    (
        pipeline_key,
        r#"batch_interval = "1sec""#,
        r#"
error: unknown unit of time `sec`
 --> p.toml:1:18
  |
1 | batch_interval = "1sec"
  |                  ^^^^^^
  |
  = help: units of time are ms, s, m, h and d
"#,
    ),
    (
        pipeline_key,
        r#"batch_interval = "s""#,
        r#"
error: `batch_interval` must be a whole number with a unit of time
 --> p.toml:1:18
  |
1 | batch_interval = "s"
  |                  ^^^ no number
  |
  = help: units of time are ms, s, m, h and d: write `"1ms"` or `"1s"`
"#,
    ),
    (
        pipeline_key,
        r#"batch_interval = "0s""#,
        r#"
error: `batch_interval` must be at least 1ms
 --> p.toml:1:18
  |
1 | batch_interval = "0s"
  |                  ^^^^
"#,
    ),
    (
        pipeline_key,
        r#"batch_interval = "400d""#,
        r#"
error: `batch_interval` is too large
 --> p.toml:1:18
  |
1 | batch_interval = "400d"
  |                  ^^^^^^
"#,
    ),
    (
        pipeline_key,
        "batch_interval = true",
        r#"
error: `batch_interval` must be a string with a unit of time, not a truth value
 --> p.toml:1:18
  |
1 | batch_interval = true
  |                  ^^^^
  |
  = help: units of time are ms, s, m, h and d: write `"1ms"` or `"1s"`
"#,
    ),
    (
        pipeline_key,
        "store_bytes_max = 64",
        r#"
error: `store_bytes_max` needs a unit of size
 --> p.toml:1:19
  |
1 | store_bytes_max = 64
  |                   ^^ a bare number
  |
  = help: units of size are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB: write `"64B"` or `"64MiB"`
"#,
    ),
    (
        pipeline_key,
        r#"store_bytes_max = "64mb""#,
        r#"
error: unknown unit of size `mb`
 --> p.toml:1:19
  |
1 | store_bytes_max = "64mb"
  |                   ^^^^^^
  |
  = help: units of size are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB
"#,
    ),
    (
        pipeline_key,
        r#"store_bytes_max = "1KiB""#,
        r#"
error: `store_bytes_max` is 1KiB, but must be at least 1MiB
 --> p.toml:1:19
  |
1 | store_bytes_max = "1KiB"
  |                   ^^^^^^
"#,
    ),
    (
        pipeline_key,
        r#"store_bytes_max = "1MiB"
block_bytes_max = "2MiB""#,
        r#"
error: `block_bytes_max` is 2MiB, more than `store_bytes_max`, 1MiB
 --> p.toml:2:19
  |
2 | block_bytes_max = "2MiB"
  |                   ^^^^^^
"#,
    ),
    (
        pipeline_key,
        r#"unfinished_bytes_max = "1KiB""#,
        r#"
error: `record_bytes_max` of `lines` is 1MiB, more than `unfinished_bytes_max`, 1KiB
 --> p.toml:2:9
  |
2 | [source.lines.socket]
  |         ^^^^^
"#,
    ),
    (
        pipeline_key,
        r#"unfinished_bytes_max = "0B""#,
        r#"
error: `unfinished_bytes_max` must be at least 1B
 --> p.toml:1:24
  |
1 | unfinished_bytes_max = "0B"
  |                        ^^^^

"#,
    ),
    (
        pipeline_key,
        r#"unfinished_byte_max = "1GiB""#,
        r#"
error: unknown key `unfinished_byte_max` of a pipeline
 --> p.toml:1:1
  |
1 | unfinished_byte_max = "1GiB"
  | ^^^^^^^^^^^^^^^^^^^
  |
  = help: did you mean `unfinished_bytes_max`?
"#,
    ),
    (
        pipeline_key,
        "kept_bytes_max = 5",
        r#"
error: `kept_bytes_max` needs a unit of size
 --> p.toml:1:18
  |
1 | kept_bytes_max = 5
  |                  ^ a bare number
  |
  = help: units of size are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB: write `"5B"` or `"5MiB"`
"#,
    ),
    (
        pipeline_key,
        r#"kept_bytes_max = "0B""#,
        r#"
error: `kept_bytes_max` must be at least 1B
 --> p.toml:1:18
  |
1 | kept_bytes_max = "0B"
  |                  ^^^^
"#,
    ),
    (
        pipeline_key,
        "workers = 0",
        "
error: `workers` must be 1 to 1024
 --> p.toml:1:11
  |
1 | workers = 0
  |           ^ out of range
",
    ),
    (
        pipeline_key,
        "workers = -1",
        "
error: `workers` must be 1 to 1024
 --> p.toml:1:11
  |
1 | workers = -1
  |           ^^ out of range
",
    ),
    (
        pipeline_key,
        r#"workers = "two""#,
        r#"
error: `workers` must be a whole number, not a string
 --> p.toml:1:11
  |
1 | workers = "two"
  |           ^^^^^
"#,
    ),
    (
        pipeline_key,
        "workers = 99999999999999999999999999999999999999999999",
        "
error: `workers` must be 1 to 1024
 --> p.toml:1:11
  |
1 | workers = 99999999999999999999999999999999999999999999
  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ out of range
",
    ),
    (
        pipeline_key,
        "concurrent_jobs = 1.5",
        "
error: `concurrent_jobs` must be a whole number, not a number with a fraction
 --> p.toml:1:19
  |
1 | concurrent_jobs = 1.5
  |                   ^^^
",
    ),
    (
        pipeline_key,
        r#"skip_empty = "yes""#,
        r#"
error: `skip_empty` must be `true` or `false`, not a string
 --> p.toml:1:14
  |
1 | skip_empty = "yes"
  |              ^^^^^
"#,
    ),
    (
        pipeline_key,
        r#"batch_timer = "lopp""#,
        r#"
error: unknown batch timer `lopp`
 --> p.toml:1:15
  |
1 | batch_timer = "lopp"
  |               ^^^^^^
  |
  = help: did you mean `loop`?
"#,
    ),
    (
        pipeline_key,
        "batch_timer = 'loop'\ntrigger = { records = 5, timeout = '1s' }",
        "
warning: `batch_timer` has no effect with `trigger`: no batch waits for a tick
 --> p.toml:1:1
  |
1 | batch_timer = 'loop'
  | ^^^^^^^^^^^
",
    ),
    (
        pipeline_key,
        "sink_retry = 'soon'",
        r#"
error: `sink_retry` must be a whole number with a unit of time
 --> p.toml:1:14
  |
1 | sink_retry = 'soon'
  |              ^^^^^^ no number
  |
  = help: units of time are ms, s, m, h and d: write `"1ms"` or `"1s"`
"#,
    ),
    (
        pipeline_key,
        "sink_retrys = '30s'",
        "
error: unknown key `sink_retrys` of a pipeline
 --> p.toml:1:1
  |
1 | sink_retrys = '30s'
  | ^^^^^^^^^^^
  |
  = help: did you mean `sink_retry`?
",
    ),
    (
        pipeline_key,
        "on_failure = { retries = 2 }",
        "
error: unknown key `retries` of `on_failure`
 --> p.toml:1:16
  |
1 | on_failure = { retries = 2 }
  |                ^^^^^^^
  |
  = help: known keys: `retry`, `then`, `directory`
",
    ),
    (
        pipeline_key,
        r#"on_failure = "stop""#,
        r#"
error: `on_failure` must be a table, not a string
 --> p.toml:1:14
  |
1 | on_failure = "stop"
  |              ^^^^^^
"#,
    ),
    (
        pipeline_key,
        r#"on_failure = { retry = 2, then = "stopp" }"#,
        r#"
error: unknown choice `stopp`
 --> p.toml:1:34
  |
1 | on_failure = { retry = 2, then = "stopp" }
  |                                  ^^^^^^^
  |
  = help: did you mean `stop`?
"#,
    ),
];

#[test]
fn pipeline_keys() {
    check_all(PIPELINE_KEYS);
}

const FILES_KEYS: &[Case] = &[
    (
        files_key,
        "include = ['*.log', 'app-[0-9]*']\nexclude = []\nfollow_links = false\nunescape = true\nopen_files_max = 0\non_lost = 'skip'",
        "",
    ),
    (
        files_key,
        r#"include = "*.log""#,
        r#"
error: `include` must be a list of strings, not a string
 --> p.toml:3:11
  |
3 | include = "*.log"
  |           ^^^^^^^
  |
  = help: write `["*.log"]`
"#,
    ),
    (
        files_key,
        r#"include = []"#,
        r#"
error: `include` is empty
 --> p.toml:3:11
  |
3 | include = []
  |           ^^
"#,
    ),
    (
        files_key,
        r#"exclude = ["*.tmp", "old/*"]"#,
        r#"
error: `old/*` is no glob
 --> p.toml:3:21
  |
3 | exclude = ["*.tmp", "old/*"]
  |                     ^^^^^^^ a glob is for names in the directory, without `/`
"#,
    ),
    (
        files_key,
        r#"exclude = ["[a"]"#,
        r#"
error: `[a` is no glob
 --> p.toml:3:12
  |
3 | exclude = ["[a"]
  |            ^^^^ unclosed character class; missing ']'
"#,
    ),
    (
        files_key,
        "framing = \"u32\"\nunescape = true",
        r#"
error: `unescape` is for lines: `u32` needs none
 --> p.toml:4:12
  |
4 | unescape = true
  |            ^^^^
"#,
    ),
    (
        files_key,
        "follow_link = true",
        r#"
error: unknown key `follow_link` of a `files` source
 --> p.toml:3:1
  |
3 | follow_link = true
  | ^^^^^^^^^^^
  |
  = help: did you mean `follow_links`?
"#,
    ),
    (
        files_key,
        "on_lost = \"skipp\"",
        r#"
error: unknown way to lose input `skipp`
 --> p.toml:3:11
  |
3 | on_lost = "skipp"
  |           ^^^^^^^
  |
  = help: did you mean `skip`?
"#,
    ),
];

#[test]
fn files_keys() {
    check_all(FILES_KEYS);
}

/// Two files sources, two jobs and a sink of each, and keys of the pipeline before them.
fn places(piece: &str) -> String {
    let (top, rest) = piece.split_once("---\n").unwrap_or(("", piece));
    format!(
        "{top}{rest}[job.a]\nfrom = [\"x\"]\nto = [\"o\"]\nlines = {{}}\n[job.b]\nfrom = [\"y\"]\nto = [\"p\"]\nlines = {{}}\n"
    )
}

const PLACES: &[Case] = &[
    (
        places,
        "[source.x.files]\ndirectory = \"in\"\n[source.y.files]\ndirectory = \"in\"\n\
         [sink.o.file]\npath = \"out\"\n[sink.p.file]\npath = \"out/sub\"\n",
        "",
    ),
    (
        places,
        "[source.x.files]\ndirectory = \"d\"\n[source.y.files]\ndirectory = \"in\"\n\
         [sink.o.file]\npath = \"./d/\"\n[sink.p.file]\npath = \"out\"\n",
        r#"
error: source `x` reads what sink `o` writes: an endless loop
 --> p.toml:2:13
  |
2 | directory = "d"
  |             ^^^
...
6 | path = "./d/"
  |        ------ written here
  |
  = help: give them two directories, or keep the source from these files with `include` or `exclude`
"#,
    ),
    (
        places,
        "[source.x.files]\ndirectory = \"d\"\ninclude = [\"*.log\"]\n[source.y.files]\ndirectory = \"in\"\n\
         [sink.o.file]\npath = \"d\"\n[sink.p.file]\npath = \"out\"\n",
        "",
    ),
    (
        places,
        "[source.x.files]\ndirectory = \"in\"\n[source.y.files]\ndirectory = \"d\"\n\
         [sink.o.file]\npath = \"d\"\n[sink.p.file]\npath = \"out\"\n",
        r#"
warning: source `y` reads what sink `o` writes
 --> p.toml:4:13
  |
4 | directory = "d"
  |             ^^^
"#,
    ),
    (
        places,
        "state_dir = \"s\"\nspill_dir = \"spill\"\non_failure = { then = \"dead_letter\" }\n---\n\
         [source.x.files]\ndirectory = \"s\"\n[source.y.files]\ndirectory = \"dead-letter\"\n\
         [sink.o.file]\npath = \"spill/tidemill-tidemill\"\n[sink.p.file]\npath = \"x/../s\"\n",
        r#"
error: source `x` reads the files of `state_dir` as records
 --> p.toml:5:13
  |
1 | state_dir = "s"
  |             --- here
...
5 | directory = "s"
  |             ^^^
  |
  = help: give it another directory

error: source `y` reads the dead letters of this pipeline: an endless loop
 --> p.toml:7:13
  |
3 | on_failure = { then = "dead_letter" }
  |              ------------------------ written here
...
7 | directory = "dead-letter"
  |             ^^^^^^^^^^^^^
  |
  = help: give them two directories, or keep the source from these files with `include` or `exclude`

error: `spill_dir` and sink `o` use one directory
 --> p.toml:9:8
  |
2 | spill_dir = "spill"
  |             ------- the first
...
9 | path = "spill/tidemill-tidemill"
  |        ^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: give each its own directory

error: `state_dir` and sink `p` use one directory
  --> p.toml:11:8
   |
 1 | state_dir = "s"
   |             --- the first
...
11 | path = "x/../s"
   |        ^^^^^^^^
   |
   = help: give each its own directory
"#,
    ),
    (
        places,
        "[source.x.files]\ndirectory = \"in\"\n[source.y.files]\ndirectory = \"in\"\n\
         [sink.o.file]\npath = \"out\"\n[sink.p.file]\npath = \"out\"\n",
        r#"
error: sink `o` and sink `p` use one directory
 --> p.toml:8:8
  |
6 | path = "out"
  |        ----- the first
7 | [sink.p.file]
8 | path = "out"
  |        ^^^^^
  |
  = help: let both jobs write to one sink, or give each its own
"#,
    ),
    (
        places,
        "on_failure = { then = \"dead_letter\", directory = \"out\" }\n---\n\
         [source.x.files]\ndirectory = \"in\"\n[source.y.files]\ndirectory = \"in\"\n\
         [sink.o.file]\npath = \"out\"\n[sink.p.null]\n",
        r#"
warning: the dead letters and sink `o` use one directory
 --> p.toml:7:8
  |
7 | path = "out"
  |        ^^^^^
"#,
    ),
    (
        places,
        "http = \"127.0.0.1:5514\"\n---\n[source.x.socket]\nlisten = \"0.0.0.0:5514\"\n\
         [source.y.socket]\nlisten = \"127.0.0.1:5515\"\n[sink.o.null]\n[sink.p.null]\n",
        r#"
error: `http` and source `x` listen on one port, 5514
 --> p.toml:3:10
  |
1 | http = "127.0.0.1:5514"
  |        ---------------- the first
2 | [source.x.socket]
3 | listen = "0.0.0.0:5514"
  |          ^^^^^^^^^^^^^^
"#,
    ),
];

#[test]
fn places_that_parts_share() {
    check_all(PLACES);
}

const NAMES: &[Case] = &[
    (pipeline_key, "state_dir = 's'\nretired = []\nrenamed = {}", ""),
    (
        pipeline_key,
        "state_dir = 's'\nretired = ['source:old', 'state:identity of old', 'sink:o', 'job:j#1']\n\
         renamed = { 'source:lines' = 'source:older', 'job:words' = 'job:word' }",
        "",
    ),
    (
        pipeline_key,
        "retird = ['source:old']",
        "
error: unknown key `retird` of a pipeline
 --> p.toml:1:1
  |
1 | retird = ['source:old']
  | ^^^^^^
  |
  = help: did you mean `retired`?
",
    ),
    (
        pipeline_key,
        "retired = 'source:old'",
        r#"
error: `retired` must be a list of strings, not a string
 --> p.toml:1:11
  |
1 | retired = 'source:old'
  |           ^^^^^^^^^^^^
  |
  = help: write `["source:old"]`
"#,
    ),
    (
        pipeline_key,
        "state_dir = 's'\nretired = ['old', 'sources:old']",
        "
error: `old` in `retired` is no name
 --> p.toml:2:12
  |
2 | retired = ['old', 'sources:old']
  |            ^^^^^ the kind is missing
  |
  = help: write `source:NAME`, `state:NAME`, `sink:NAME` or `job:NAME`

error: `sources:old` in `retired` is no name
 --> p.toml:2:19
  |
2 | retired = ['old', 'sources:old']
  |                   ^^^^^^^^^^^^^ `sources` is no kind of name
  |
  = help: write `source:NAME`, `state:NAME`, `sink:NAME` or `job:NAME`
",
    ),
    (
        pipeline_key,
        "state_dir = 's'\nretired = ['sink:screen']",
        r#"
error: `sink:screen` is in `retired`, and the pipeline still uses it
 --> p.toml:2:12
  |
2 | retired = ['sink:screen']
  |            ^^^^^^^^^^^^^
  |
  = help: take `"sink:screen"` out of `retired`; a sink that starts afresh needs another name
"#,
    ),
    (
        pipeline_key,
        "state_dir = 's'\nrenamed = { 'source:line' = 'source:old' }",
        r#"
error: `"source:line" = "source:old"`: the pipeline has no source `line`
 --> p.toml:2:13
  |
2 | renamed = { 'source:line' = 'source:old' }
  |             ^^^^^^^^^^^^^
  |
  = help: did you mean `lines`?
"#,
    ),
    (
        pipeline_key,
        "state_dir = 's'\nrenamed = { 'job:word' = 'job:words' }",
        r#"
error: `"job:word" = "job:words"`: the pipeline has no job `word`
 --> p.toml:2:13
  |
2 | renamed = { 'job:word' = 'job:words' }
  |             ^^^^^^^^^^
  |
  = help: did you mean `words`?
"#,
    ),
    (
        pipeline_key,
        "state_dir = 's'\n[renamed]\n'source:lines' = 'job:old'\n'sink:screen' = 4",
        r#"
error: `"source:lines" = "job:old"`: a job cannot become a source
 --> p.toml:3:1
  |
3 | 'source:lines' = 'job:old'
  | ^^^^^^^^^^^^^^
  |
  = help: both names are of one kind

error: `sink:screen` of `renamed` must be a string, not a number
 --> p.toml:4:17
  |
4 | 'sink:screen' = 4
  |                 ^
"#,
    ),
    (
        source,
        "state_dir = 's'\nretired = ['state:identity of lines']\n[source.lines.socket]\nlisten = '127.0.0.1:1'\n\
         framing = 'relp'\nidentity = '(?<sender>a) (?<number>.)'",
        r#"
error: `state:identity of lines` is in `retired`, and the pipeline still uses it
 --> p.toml:2:12
  |
2 | retired = ['state:identity of lines']
  |            ^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: take `"state:identity of lines"` out of `retired`; a state that starts afresh needs another name
"#,
    ),
    (
        pipeline_key,
        "retired = ['source:old']\nrenamed = { 'job:words' = 'job:old' }",
        "
warning: `retired` has no effect without `state_dir`
 --> p.toml:1:1
  |
1 | retired = ['source:old']
  | ^^^^^^^

warning: `renamed` has no effect without `state_dir`
 --> p.toml:2:1
  |
2 | renamed = { 'job:words' = 'job:old' }
  | ^^^^^^^
",
    ),
];

#[test]
fn names_that_become_of_others() {
    check_all(NAMES);
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

const SOURCES: &[Case] = &[
    (
        source,
        r#"[source.lines.sokcet]
connect = ["127.0.0.1:9999"]"#,
        "
error: unknown kind `sokcet` of source `lines`
 --> p.toml:1:15
  |
1 | [source.lines.sokcet]
  |               ^^^^^^
  |
  = help: did you mean `socket`?
",
    ),
    (
        source,
        "[source.lines]",
        "
error: a source needs a kind
 --> p.toml:1:9
  |
1 | [source.lines]
  |         ^^^^^ no kind
  |
  = help: write `[source.NAME.socket]`, `.generate` or `.files`
",
    ),
    (
        source,
        r#"[source.lines.socket]
connect = ["127.0.0.1:9999"]
[source.lines.generate]"#,
        "
error: a source has one kind
 --> p.toml:1:9
  |
1 | [source.lines.socket]
  |         ^^^^^ more than one kind
",
    ),
    (
        source,
        r#"[source."a b".socket]
connect = ["127.0.0.1:9999"]
[source.lines.generate]
[job.other]
from=["a b"]
to=["screen"]
count={}"#,
        r#"
error: "a b" is no name for a source: ' ' is not a letter, a digit, `-` or `_`
 --> p.toml:1:9
  |
1 | [source."a b".socket]
  |         ^^^^^
"#,
    ),
    (
        source,
        "source.lines = 1",
        "
error: `lines` must be a table, not a number
 --> p.toml:1:16
  |
1 | source.lines = 1
  |                ^
",
    ),
    (
        socket_key,
        "",
        r#"
error: a `socket` source needs `connect` or `listen`
 --> p.toml:1:15
  |
1 | [source.lines.socket]
  |               ^^^^^^
  |
  = help: write `connect = ["127.0.0.1:9999"]` or `listen = "127.0.0.1:5514"`
"#,
    ),
    (
        socket_key,
        r#"connect = ["127.0.0.1:9999"]
listen = "0.0.0.0:5514""#,
        r#"
error: a `socket` source takes `connect` or `listen`, not both
 --> p.toml:3:1
  |
2 | connect = ["127.0.0.1:9999"]
  | ------- the first
3 | listen = "0.0.0.0:5514"
  | ^^^^^^ the second
"#,
    ),
    (
        socket_key,
        r#"connect = "127.0.0.1:9999""#,
        r#"
error: `connect` must be a list of strings, not a string
 --> p.toml:2:11
  |
2 | connect = "127.0.0.1:9999"
  |           ^^^^^^^^^^^^^^^^
  |
  = help: write `["127.0.0.1:9999"]`
"#,
    ),
    (
        socket_key,
        "connect = []",
        "
error: `connect` is empty
 --> p.toml:2:11
  |
2 | connect = []
  |           ^^
",
    ),
    (
        socket_key,
        r#"connect = ["127.0.0.1", "h:0", 5]"#,
        r#"
error: `connect` takes HOST:PORT
 --> p.toml:2:12
  |
2 | connect = ["127.0.0.1", "h:0", 5]
  |            ^^^^^^^^^^^ the port is missing

error: port 0 cannot be dialled
 --> p.toml:2:25
  |
2 | connect = ["127.0.0.1", "h:0", 5]
  |                         ^^^^^

error: `connect` must be a list of strings, not a number
 --> p.toml:2:32
  |
2 | connect = ["127.0.0.1", "h:0", 5]
  |                                ^
"#,
    ),
    (
        socket_key,
        r#"connect = ["h:1", "h:1"]"#,
        r#"
error: `h:1` is in `connect` twice
 --> p.toml:2:19
  |
2 | connect = ["h:1", "h:1"]
  |                   ^^^^^
"#,
    ),
    (
        socket_key,
        r#"listen = "::1:5514""#,
        r#"
error: `listen` takes HOST:PORT
 --> p.toml:2:10
  |
2 | listen = "::1:5514"
  |          ^^^^^^^^^^ an IPv6 address stands in brackets
"#,
    ),
    (
        socket_key,
        r#"connect = ["127.0.0.1:9999"]
io_model = "noi""#,
        r#"
error: unknown io model `noi`
 --> p.toml:3:12
  |
3 | io_model = "noi"
  |            ^^^^^
  |
  = help: did you mean `nio`?
"#,
    ),
    (
        socket_key,
        r#"connect = ["127.0.0.1:9999"]
framing = "xml""#,
        r#"
error: unknown framing `xml`
 --> p.toml:3:11
  |
3 | framing = "xml"
  |           ^^^^^
  |
  = help: known framings: FRAMINGS
"#,
    ),
    (
        socket_key,
        r#"listen = "127.0.0.1:2514"
framing = "relp"
ack = "never mind""#,
        r#"
error: unknown time to acknowledge `never mind`
 --> p.toml:4:7
  |
4 | ack = "never mind"
  |       ^^^^^^^^^^^^
  |
  = help: known times to acknowledge: `log`, `received`, `batch`
"#,
    ),
    (
        socket_key,
        r#"connect = ["127.0.0.1:9999"]
record_bytes_max = 1000"#,
        r#"
error: `record_bytes_max` needs a unit of size
 --> p.toml:3:20
  |
3 | record_bytes_max = 1000
  |                    ^^^^ a bare number
  |
  = help: units of size are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB: write `"1000B"` or `"1000MiB"`
"#,
    ),
    (
        socket_key,
        r#"connect = ["127.0.0.1:9999"]
record_bytes_max = "0B""#,
        r#"
error: `record_bytes_max` must be 1B to 1GiB
 --> p.toml:3:20
  |
3 | record_bytes_max = "0B"
  |                    ^^^^ out of range
"#,
    ),
    (
        socket_key,
        r#"connect = ["127.0.0.1:9999"]
connections_max = 0"#,
        "
error: `connections_max` must be 1 to 1000000
 --> p.toml:3:19
  |
3 | connections_max = 0
  |                   ^ out of range
",
    ),
    (
        socket_key,
        r#"connect = ["127.0.0.1:9999"]
iomodel = "nio""#,
        r#"
error: unknown key `iomodel` of a `socket` source
 --> p.toml:3:1
  |
3 | iomodel = "nio"
  | ^^^^^^^
  |
  = help: did you mean `io_model`?
"#,
    ),
    (
        source,
        r#"[source.lines.generate]
rate = "fast"
record = 5"#,
        r#"
error: `rate` must be a whole number, not a string
 --> p.toml:2:8
  |
2 | rate = "fast"
  |        ^^^^^^

error: unknown key `record` of a `generate` source
 --> p.toml:3:1
  |
3 | record = 5
  | ^^^^^^
  |
  = help: did you mean `records`?
"#,
    ),
    (
        source,
        r#"[source.lines.generate]
file = "a"
words = 5"#,
        "
warning: `words` has no effect: the lines come from `file`
 --> p.toml:3:1
  |
3 | words = 5
  | ^^^^^
",
    ),
    (
        pipeline_key,
        r#"store_bytes_max = "1MiB"
source.big.socket = { listen = "h:1", record_bytes_max = "2MiB" }"#,
        r#"
error: `record_bytes_max` of `big` is 2MiB, more than `store_bytes_max`, 1MiB
 --> p.toml:2:8
  |
2 | source.big.socket = { listen = "h:1", record_bytes_max = "2MiB" }
  |        ^^^
"#,
    ),
];

#[test]
fn sources() {
    check_all(SOURCES);
}

const JOBS: &[Case] = &[
    (
        job_key,
        r#"from = ["lines"]
to = ["screen"]
"#,
        "
error: a job needs something to do
 --> p.toml:1:6
  |
1 | [job.words]
  |      ^^^^^ does nothing
  |
  = help: give one of `count`, `lines`, `grep`, `wordcount`, `topk`, `latency`, `distinct`
",
    ),
    (
        job_key,
        r#"from = ["lines"]
to = ["screen"]
wordcunt = {}"#,
        "
error: unknown key `wordcunt` of job `words`
 --> p.toml:4:1
  |
4 | wordcunt = {}
  | ^^^^^^^^
  |
  = help: did you mean `wordcount`?
",
    ),
    (
        job_key,
        r#"from = ["lines"]
to = ["screen"]
count = {}
lines = {}"#,
        "
error: a job does one thing, not `count` and `lines`
 --> p.toml:5:1
  |
4 | count = {}
  | ----- the first
5 | lines = {}
  | ^^^^^ the second
",
    ),
    (
        job_key,
        r#"from = ["lines"]
to = ["screen"]
count = 1"#,
        "
error: `count` must be a table, not a number
 --> p.toml:4:9
  |
4 | count = 1
  |         ^
",
    ),
    (
        job_key,
        r#"to = ["screen"]
count = {}"#,
        "
error: a job needs `from`, a list of sources
 --> p.toml:1:6
  |
1 | [job.words]
  |      ^^^^^
",
    ),
    (
        job_key,
        r#"from = ["lines"]
count = {}"#,
        "
error: a job needs `to`, a list of sinks
 --> p.toml:1:6
  |
1 | [job.words]
  |      ^^^^^
",
    ),
    (
        job_key,
        r#"from = ["linse"]
to = ["screen"]
count = {}"#,
        r#"
error: unknown source `linse`
 --> p.toml:2:9
  |
2 | from = ["linse"]
  |         ^^^^^^^
  |
  = help: did you mean `lines`?
"#,
    ),
    (
        job_key,
        r#"from = ["lines"]
to = ["scren"]
count = {}"#,
        r#"
error: unknown sink `scren`
 --> p.toml:3:7
  |
3 | to = ["scren"]
  |       ^^^^^^^
  |
  = help: did you mean `screen`?
"#,
    ),
    (
        job_key,
        r#"from = "lines"
to = ["screen"]
count = {}"#,
        r#"
error: `from` must be a list of strings, not a string
 --> p.toml:2:8
  |
2 | from = "lines"
  |        ^^^^^^^
  |
  = help: write `["lines"]`
"#,
    ),
    (
        job_key,
        r#"from = ["lines"]
to = ["screen"]
grep = {}"#,
        r#"
error: `grep` needs a `pattern`
 --> p.toml:4:1
  |
4 | grep = {}
  | ^^^^
  |
  = help: write `grep = { pattern = "error" }`
"#,
    ),
    (
        job_key,
        r#"from = ["lines"]
to = ["screen"]
grep = { pattern = "a(" }"#,
        r#"
error: `pattern` is not a regular expression
 --> p.toml:4:20
  |
4 | grep = { pattern = "a(" }
  |                    ^^^^ unclosed group
"#,
    ),
    (
        job_key,
        r#"from = ["lines"]
to = ["screen"]
where = "[z-a]"
count = {}"#,
        r#"
error: `where` is not a regular expression
 --> p.toml:4:9
  |
4 | where = "[z-a]"
  |         ^^^^^^^ invalid character class range, the start must be <= the end
"#,
    ),
    (
        job_key,
        r#"from = ["lines"]
to = ["screen"]
topk = { n = 0 }"#,
        "
error: `n` must be 1 to 1000000
 --> p.toml:4:14
  |
4 | topk = { n = 0 }
  |              ^ out of range
",
    ),
    (
        job_key,
        r#"from = ["lines"]
to = ["screen"]
topk = { separator = ";" }"#,
        r#"
error: `separator` needs a `field`
 --> p.toml:4:10
  |
4 | topk = { separator = ";" }
  |          ^^^^^^^^^
  |
  = help: fields are counted from 1: `field = 1`
"#,
    ),
    (
        job_key,
        r#"from = ["lines"]
to = ["screen"]
topk = { field = 0, separator = "" }"#,
        r#"
error: `field` must be 1 to 1000000
 --> p.toml:4:18
  |
4 | topk = { field = 0, separator = "" }
  |                  ^ out of range

error: `separator` is empty
 --> p.toml:4:33
  |
4 | topk = { field = 0, separator = "" }
  |                                 ^^
"#,
    ),
    (
        whole,
        r#"[source.lines.socket]
connect = ["127.0.0.1:9999"]
[sink.screen.console]
"#,
        "
error: the pipeline has no job
 --> p.toml:1:1
  |
1 | [source.lines.socket]
  | ^
  |
  = help: write `[job.NAME]` with `from`, `to` and one of `wordcount = {}`, `count = {}`, ...
",
    ),
];

#[test]
fn jobs() {
    check_all(JOBS);
}

/// The example of each row is read as its kind, and the row lists the keys that its reader asks for, in that order.
#[test]
fn the_rows_of_jobs_say_what_is_read() {
    let ends = "from = [\"lines\"]\nto = [\"screen\"]\n";
    for row in JOB_ROWS {
        let pipeline = good(&job_key(&format!("{ends}{}", row.example)));
        assert_eq!(pipeline.jobs[0].1.kind.row().name, row.name);
        let keys: Vec<_> = row.keys.iter().map(|key| format!("`{}`", key.name)).collect();
        let known = match keys.as_slice() {
            [] => "there are no keys here".to_owned(),
            keys => format!("known keys: {}", keys.join(", ")),
        };
        let shown = shown(&job_key(&format!("{ends}{} = {{ of_no_job = 1 }}", row.name)));
        let (_, hint) = shown.rsplit_once("unknown key `of_no_job`").expect("an unknown key");
        assert!(hint.contains(&format!("= help: {known}\n")) || hint.ends_with(&known), "{shown}");
        let unset = row.keys.iter().filter(|key| key.default.is_empty());
        let needed = unset.map(|key| format!("`{}` needs a `{}`", row.name, key.name));
        for title in needed {
            assert!(shown.contains(&title), "{shown}");
        }
    }
}

const SINKS: &[Case] = &[
    (
        sink,
        "[sink.screen.consle]",
        "
error: unknown kind `consle` of sink `screen`
 --> p.toml:1:14
  |
1 | [sink.screen.consle]
  |              ^^^^^^
  |
  = help: did you mean `console`?
",
    ),
    (
        sink,
        "[sink.screen]",
        "
error: a sink needs a kind
 --> p.toml:1:7
  |
1 | [sink.screen]
  |       ^^^^^^ no kind
  |
  = help: write `[sink.NAME.console]`, `.file`, `.sqlite`, `.unix`, `.memory` or `.null`
",
    ),
    (
        sink,
        "[sink.screen]
memory = {}
null = {}",
        "
error: a sink has one kind
 --> p.toml:1:7
  |
1 | [sink.screen]
  |       ^^^^^^ more than one kind
",
    ),
    (
        sink,
        r#"[sink.screen.console]
format = "xml""#,
        r#"
error: unknown format `xml`
 --> p.toml:2:10
  |
2 | format = "xml"
  |          ^^^^^
  |
  = help: known formats: `spark`, `json`
"#,
    ),
    (
        sink,
        r#"[sink.screen.file]
path = "a"
existing = "appendd""#,
        r#"
error: unknown way with existing output `appendd`
 --> p.toml:3:12
  |
3 | existing = "appendd"
  |            ^^^^^^^^^
  |
  = help: did you mean `append`?
"#,
    ),
    (
        sink,
        r#"[sink.screen.file]
path = "a"
line_feeds = "escaped""#,
        r#"
error: unknown way with line feeds `escaped`
 --> p.toml:3:14
  |
3 | line_feeds = "escaped"
  |              ^^^^^^^^^
  |
  = help: did you mean `escape`?
"#,
    ),
    (
        sink,
        r#"[sink.screen.file]
path = "a"
format = "csv"
line_feeds = "keep""#,
        r#"
error: `line_feeds` is for `format = "text"`: the others escape or quote by themselves
 --> p.toml:4:1
  |
4 | line_feeds = "keep"
  | ^^^^^^^^^^
  |
  = help: leave it out
"#,
    ),
    (
        sink,
        r#"[sink.screen.file]
path = "a"
time = true"#,
        r#"
error: `time` is for `format = "json"`: rows of the others have no place for it
 --> p.toml:3:1
  |
3 | time = true
  | ^^^^
  |
  = help: leave it out
"#,
    ),
    (
        sink,
        r#"[sink.screen.console]
time = true"#,
        r#"
error: `time` is for `format = "json"`: rows of the others have no place for it
 --> p.toml:2:1
  |
2 | time = true
  | ^^^^
  |
  = help: leave it out
"#,
    ),
    (
        sink,
        "[sink.screen.unix]",
        "
error: a `unix` sink needs a `path`
 --> p.toml:1:14
  |
1 | [sink.screen.unix]
  |              ^^^^
  |
  = help: the path of a socket that another program listens on
",
    ),
    (
        sink,
        r#"[sink.screen.unix]
path = "/run/a-directory-with-a-name-that-is-much-too-long-for-a-socket/and-another-one-below-it/that-is-long-too.sock""#,
        r#"
error: `path` has 110 bytes: a socket's has at most 107
 --> p.toml:2:8
  |
2 | path = "/run/a-directory-with-a-name-that-is-much-too-long-for-a-socket/and-another-one-below-it/that-is-long-too.sock"
  |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ too long
  |
  = help: put the socket, or a link to it, in another directory
"#,
    ),
    (
        sink,
        r#"[sink.screen.unix]
path = "a"
format = "json""#,
        r#"
error: unknown key `format` of a `unix` sink
 --> p.toml:3:1
  |
3 | format = "json"
  | ^^^^^^
  |
  = help: known keys: `path`, `line_feeds`
"#,
    ),
    (sink, "[sink.screen.unix]\npath = 'a'\nline_feeds = 'keep'", ""),
    (sink, "[sink.screen.console]\nformat = 'json'\ntime = true", ""),
    (sink, "[sink.screen.file]\npath = 'a'\nformat = 'json'\ntime = true", ""),
    (sink, "[sink.screen.file]\npath = 'a'\ntime = false", ""),
    (
        sink,
        r#"[sink.screen.null]
path = "a""#,
        r#"
error: unknown key `path` of a `null` sink
 --> p.toml:2:1
  |
2 | path = "a"
  | ^^^^
  |
  = help: there are no keys here
"#,
    ),
];

#[test]
fn sinks() {
    check_all(SINKS);
}

#[cfg(not(feature = "sqlite"))]
#[test]
fn a_sink_that_was_not_built_in_says_how_to_get_it() {
    check_all(&[(
        sink,
        "[sink.screen.sqlite]
path = \"words.db\"",
        "
error: this program has no sink `sqlite`
 --> p.toml:1:14
  |
1 | [sink.screen.sqlite]
  |              ^^^^^^
  |
  = help: build it with `--features sqlite`
",
    )]);
}

#[cfg(feature = "sqlite")]
#[test]
fn tables_that_are_reserved() {
    check_all(&[
        (
            sink,
            "[sink.screen.sqlite]
path = \"a.db\"
table = \"tidemill_commits\"",
            "
error: the table `tidemill_commits` is reserved: names that begin with `tidemill_` or `sqlite_` are those of tables that the sink or \
             SQLite keeps for itself
 --> p.toml:3:9
  |
3 | table = \"tidemill_commits\"
  |         ^^^^^^^^^^^^^^^^^^ reserved
  |
  = help: give the table another name
",
        ),
        (
            sink,
            "[sink.screen.sqlite]
path = \"a.db\"
table = \"Tidemill_New\"",
            "
error: the table `Tidemill_New` is reserved: names that begin with `tidemill_` or `sqlite_` are those of tables that the sink or \
             SQLite keeps for itself
 --> p.toml:3:9
  |
3 | table = \"Tidemill_New\"
  |         ^^^^^^^^^^^^^^ reserved
  |
  = help: give the table another name
",
        ),
        (
            sink,
            "[sink.screen.sqlite]
path = \"a.db\"
table = \"SQLITE_x\"",
            "
error: the table `SQLITE_x` is reserved: names that begin with `tidemill_` or `sqlite_` are those of tables that the sink or \
             SQLite keeps for itself
 --> p.toml:3:9
  |
3 | table = \"SQLITE_x\"
  |         ^^^^^^^^^^ reserved
  |
  = help: give the table another name
",
        ),
    ]);
}

#[test]
fn how_long_a_sink_is_waited_for() {
    let resolved = |text: &str| good(&pipeline_key(text)).resolved().sink_retry;
    assert_eq!(resolved("sink_retry = '90s'"), Duration::from_secs(90));
    assert_eq!(resolved(""), Duration::from_secs(30));
}

const UNUSED_NAMES_ARE_WARNINGS: &[Case] = &[(
    pipeline_key,
    "source.other.generate = {}
sink.other.null = {}",
    "
warning: no job uses the source `other`
 --> p.toml:1:8
  |
1 | source.other.generate = {}
  |        ^^^^^

warning: no job uses the sink `other`
 --> p.toml:2:6
  |
2 | sink.other.null = {}
  |      ^^^^^
",
)];

#[test]
fn unused_names_are_warnings() {
    check_all(UNUSED_NAMES_ARE_WARNINGS);
}

const ACKNOWLEDGING_NEEDS_WHAT_IT_PROMISES: &[Case] = &[
    (
        source,
        r#"[source.lines.socket]
listen = "127.0.0.1:2514"
framing = "relp""#,
        r#"
error: `lines` acknowledges records after the sync of the log, and without `state_dir` there is none
 --> p.toml:1:9
  |
1 | [source.lines.socket]
  |         ^^^^^
  |
  = help: write `state_dir = "DIRECTORY"` for the pipeline, or `ack = "received"` or `ack = "batch"` for this source
"#,
    ),
    (
        socket_key,
        r#"connect = ["127.0.0.1:2514"]
framing = "relp"
ack = "received""#,
        r#"
error: peers that speak `relp` dial in
 --> p.toml:2:1
  |
2 | connect = ["127.0.0.1:2514"]
  | ^^^^^^^
  |
  = help: write `listen = "127.0.0.1:2514"`
"#,
    ),
    (
        socket_key,
        r#"listen = "127.0.0.1:5514"
ack = "log""#,
        r#"
error: `ack` needs a framing that acknowledges: `lines` does not
 --> p.toml:3:1
  |
3 | ack = "log"
  | ^^^
  |
  = help: write `framing = "relp"`, or leave it out
"#,
    ),
    (
        source,
        r#"[source.lines.socket]
listen = "127.0.0.1:2514"
framing = "relp"
ack = "batch""#,
        "",
    ),
];

#[test]
fn acknowledging_needs_what_it_promises() {
    check_all(ACKNOWLEDGING_NEEDS_WHAT_IT_PROMISES);
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

fn good(text: &str) -> Pipeline {
    Pipeline::parse(text, "p.toml", &env).unwrap_or_else(|err| panic!("{err}\nof:\n{text}"))
}

#[test]
fn good_pipelines() {
    check(&pipeline_key(""), "");
    check(&pipeline_key(r#"name = "words""#), "");
    check(&pipeline_key(r#"http = "off""#), "");
    check(&pipeline_key(r#"batch_timer = "loop""#), "");
    check(&pipeline_key(r#"batch_timer = "thread""#), "");
    check(&pipeline_key("on_failure = { retry = 0, then = \"stop\" }\nskip_empty = true"), "");
    check(&pipeline_key("sink_retry = '5m'"), "");
    check(&pipeline_key("sink_retry = '0s'"), "");
    check(&socket_key("connect = [\"a.example:1\", \"[::1]:2\"]\nbackpressure = false"), "");
    check(
        &source(
            "[source.lines]\ngenerate = { rate = 5, records = 10, line_len = 20, words = 3, seed = 9 }",
        ),
        "",
    );
    check(&sink("sink.screen.null = {}"), "");
    check(
        &job_key(
            "from = ['lines']\nto = ['screen']\nwhere = '^\\d'\n\
        topk = { n = 3, field = 2, separator = ';' }",
        ),
        "",
    );
}

#[test]
fn the_example_is_good() {
    let text = include_str!("../examples/wordcount.toml");
    let pipeline = good(text);
    assert_eq!(pipeline.warnings, Vec::<String>::new());
    assert_eq!(pipeline.endless(), ["lines"]);
    let summary = pipeline.summary();
    assert!(
        summary
            .ends_with("highest input rate: 256MiB/s (store_bytes_max 256MiB ÷ batch_interval 1s)")
    );
}

#[test]
fn values_arrive() {
    let text = "batch_interval = '${EVERY:-500ms}'\nworkers = 3\n[source.lines.socket]\n\
        listen = '127.0.0.1:${PORT}'\nio_model = 'bio'\nrecord_bytes_max = '64KiB'";
    let pipeline = good(&source(text));
    let resolved = pipeline.resolved();
    assert_eq!((resolved.name.as_str(), resolved.workers), ("tidemill", 3));
    assert_eq!(resolved.batch_interval.as_millis(), 500);
    let [(name, Source::Socket(socket))] = pipeline.sources.as_slice() else {
        panic!("{pipeline:?}")
    };
    assert_eq!((name.as_str(), socket.io_model.name()), ("lines", "bio"));
    let connections = socket.connections_max.unwrap_or(socket.io_model.row().connections_max);
    assert_eq!((connections, socket.record_bytes_max), (1_000, 64 << 10));
    assert_eq!(socket.direction, Peers::Listen("127.0.0.1:9999".to_owned()));
    let [(_, job)] = pipeline.jobs.as_slice() else { panic!("{pipeline:?}") };
    assert_eq!(
        (&job.from, &job.to, &job.kind),
        (&vec!["lines".to_owned()], &vec!["screen".to_owned()], &JobKind::from(WordCount))
    );
}

/// A source that acknowledges after a batch of this pipeline.
fn acknowledging(piece: &str) -> String {
    let relp =
        "[source.lines.socket]\nlisten = \"127.0.0.1:2514\"\nframing = \"relp\"\nack = \"batch\"\n";
    format!("{piece}\n{relp}{JOB}{SINK}")
}

#[test]
fn answers_that_come_late_are_warned_of() {
    let warning = |wait: &str| {
        format!(
            "
warning: `lines` acknowledges a record when its batch is committed, {wait} and more after it came; rsyslog's omrelp breaks \
the connection after 90s without an answer, and sends again
 --> p.toml:2:9
  |
2 | [source.lines.socket]
  |         ^^^^^
  |
  = help: a shorter `batch_interval`, `ack = \"log\"`, or more than that as omrelp's `timeout`
"
        )
    };
    check(&acknowledging("batch_interval = \"60s\""), &warning("60s"));
    check(&acknowledging("batch_interval = \"30s\""), &warning("30s"));
    check(&acknowledging("batch_interval = \"29s\""), "");
    let trigger = "trigger = { records = 9, timeout = \"45s\" }";
    check(&acknowledging(trigger), &warning("45s"));
    let at_once = acknowledging("batch_interval = \"60s\"").replace("\"batch\"", "\"received\"");
    check(&at_once, "");
}

#[test]
fn jobs_and_sinks_keep_the_order_of_the_file() {
    let text = "[sink.z.memory]\n[job.z]\nfrom = ['lines']\nto = ['z', 'screen']\ncount = {}\n\
        [job.a]\nfrom = ['lines']\nto = ['z']\nlines = {}";
    let pipeline = good(&pipeline_key(text));
    let names: Vec<_> = pipeline.jobs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["z", "a", "words"]);
    let sinks: Vec<_> = pipeline.sinks.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(sinks, ["z", "screen"]);
    assert_eq!(pipeline.sinks[0].1.row().name, "memory");
}

fn set(typed: &str) -> Setting {
    let (key, value) = typed.split_once('=').expect("a test's setting");
    let path = key.split('.').map(str::to_owned).collect();
    Setting {
        flag: format!("--set {typed}"),
        path,
        value: Given::Toml(value.to_owned()),
        makes: false,
    }
}

/// What is shown when settings are laid over a good file.
fn check_set(typed: &[&str], expected: &str) {
    let settings: Vec<_> = typed.iter().map(|typed| set(typed)).collect();
    let shown = match Pipeline::parse_with(&pipeline_key(""), "p.toml", &env, &settings) {
        Ok(pipeline) => pipeline.warnings.join("\n\n"),
        Err(err) => {
            assert!(matches!(err, Error::Usage(_)), "{err:?}");
            err.to_string()
        }
    };
    assert_eq!(shown.trim(), expected.trim(), "{typed:?}");
}

#[test]
fn settings_change_any_key() {
    check_set(&["source.lines.io_model=bio", "source.lines.socket.connections_max=5"], "");
    check_set(&["workers=2", "batch_interval=2s", "skip_empty=true", "on_failure.retry=1"], "");
    check_set(&["batch_timer=loop"], "");
    check_set(
        &["job.words.where=${x}|a"],
        "
error: `where` is not a regular expression: repetition quantifier expects a valid decimal
 --> command line: --set job.words.where=${x}|a",
    );
    check_set(
        &["batch_interval=2"],
        "
error: `batch_interval` needs a unit of time: a bare number
 --> command line: --set batch_interval=2
  = help: units of time are ms, s, m, h and d: write `\"2ms\"` or `\"2s\"`",
    );
    check_set(
        &["source.linse.io_model=bio"],
        "
error: there is no source `linse`
 --> command line: --set source.linse.io_model=bio
  = help: did you mean `lines`?",
    );
    check_set(
        &["source.lines.listen=127.0.0.1:1"],
        "
error: a `socket` source takes `connect` or `listen`, not both: the second
 --> command line: --set source.lines.listen=127.0.0.1:1",
    );
    check_set(
        &["workers.x=2"],
        "
error: `workers` must be a whole number, not a table
 --> command line: --set workers.x=2",
    );
    check_set(&["name.x=2", "name=a"], "");
    check_set(
        &["state_dir=s", r#"retired=["source:old"]"#, r#"renamed={"source:lines"="source:older"}"#],
        "",
    );
    check_set(&["state_dir=s", "renamed.source:lines=source:older"], "");
    check_set(
        &["state_dir=s", r#"retired=["source:lines"]"#],
        "
error: `source:lines` is in `retired`, and the pipeline still uses it
 --> command line: --set retired=[\"source:lines\"]
  = help: take `\"source:lines\"` out of `retired`; a source that starts afresh needs another name",
    );
    check_set(
        &["workers=2", "workers.x=2"],
        "
error: `workers` is not a table
 --> command line: --set workers.x=2",
    );
    check_set(
        &["=2"],
        "
error: the key is empty
 --> command line: --set =2
  = help: write KEY=VALUE, as in `source.lines.io_model=bio`",
    );
}

const GOOD: &str = include_str!("../examples/wordcount.toml");

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
