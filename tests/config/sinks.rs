//! The keys of sinks.

use std::time::Duration;

use crate::{Case, check_all, good, pipeline_key, sink};

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
