//! Settings of the command line, laid over a good file.

use tidemill::Error;
use tidemill::internals::config::{Given, Pipeline, Setting};

use crate::{env, pipeline_key};

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
