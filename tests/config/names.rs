//! Names of parts: those that are gone, unused or out of order.

use crate::{Case, check_all, good, pipeline_key, source};

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
