//! Pipelines that are good, and the values that arrive.

use tidemill::internals::config::Source;
use tidemill::internals::stream::jobs::{JobKind, WordCount};
use tidemill::source::Direction as Peers;

use crate::{check, good, job_key, pipeline_key, sink, socket_key, source};

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
    let text = include_str!("../../examples/wordcount.toml");
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
