//! The keys of the pipeline itself.

use crate::{Case, check_all, pipeline_key};

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
