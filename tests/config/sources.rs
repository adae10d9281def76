//! The keys of sources, of sockets, the data server and files, and what an acknowledging framing needs.

use crate::{Case, JOB, SINK, check, check_all, files_key, pipeline_key, socket_key, source};

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
