//! The keys of jobs.

use tidemill::internals::stream::jobs::JOBS as JOB_ROWS;

use crate::{Case, check_all, good, job_key, shown, whole};

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
