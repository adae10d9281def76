//! Sources of every kind in one context: their records meet in one job, and records from before a tick are in its batch.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use tidemill::internals::sync::{Mailbox, Signal};
use tidemill::testing::ManualClock;
use tidemill::{
    Config, Event, FilesSource, Interval, ReceiverHandle, RunLimits, SocketSource, StreamingContext,
};

#[test]
fn what_came_of_all_sources_before_a_tick_is_in_one_batch() {
    let directory = tempfile::tempdir().expect("a directory");
    let ctx = StreamingContext::with_clock(Config::new("many"), ManualClock::new()).expect("good");
    let (orders, stored) = (Mailbox::new(9), Signal::new());
    let (from, told) = (orders.clone(), stored.clone());
    let receiver = move |handle: &ReceiverHandle| {
        while let Some(record) = from.recv() {
            handle.store(record)?;
            told.raise();
        }
        Ok(())
    };
    let received = ctx.receiver_stream("mine", receiver).expect("a source");
    let files = ctx.files(FilesSource::new(directory.path()).named("logs")).expect("a source");
    let text = |record: &[u8]| String::from_utf8_lossy(record).into_owned();
    let queue = ctx.queue_stream((1..4).map(|n| Some(vec![format!("queue {n}")])).collect(), 1);
    let all = queue.union(&files.map(text)).union(&received.map(text));
    let (rows, counts) = (all.collect(), all.count().collect());
    ctx.run_batches(0).expect("it starts");
    for batch in 1..4 {
        let name = directory.path().join(batch.to_string());
        std::fs::write(name, format!("file {batch}\n")).expect("written");
        orders.send(if batch == 2 { &b"mine 2"[..] } else { b"mine" }).expect("it listens");
        stored.wait();
        ctx.run_batches(1).expect("a batch");
    }
    orders.close();
    let rows: Vec<Vec<String>> = rows.rows().into_iter().map(|(_, rows)| rows).collect();
    assert_eq!(
        rows,
        [
            ["queue 1", "file 1", "mine"],
            ["queue 2", "file 2", "mine 2"],
            ["queue 3", "file 3", "mine"]
        ]
    );
    assert!(counts.rows().iter().all(|(_, rows)| *rows == [3]));
}

#[test]
fn a_run_to_the_end_of_sockets_files_and_a_receiver_has_all_their_records() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("a"), "file\n".repeat(1_000)).expect("written");
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = server.local_addr().expect("bound").to_string();
    let config = Config::new("many").batch_interval(Interval::millis(20));
    let ctx = StreamingContext::new(config).expect("good");
    ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    let socket = ctx.socket(SocketSource::connect([address]).named("peer")).expect("a source");
    let files = ctx.files(FilesSource::new(directory.path())).expect("a source");
    let receiver = |handle: &ReceiverHandle| handle.store_all(vec!["mine"; 500]);
    let received = ctx.receiver_stream("mine", receiver).expect("a source");
    let counts = socket.union(&files).union(&received).count_by_value().collect();
    let ends = Mailbox::new(9);
    let told = ends.clone();
    ctx.add_listener(move |event: &Event| {
        if let Event::SourceEnded { source, .. } = event {
            told.send(source.clone()).expect("the test listens");
        }
    });
    let running = ctx.start().expect("started");
    let (mut peer, _) = server.accept().expect("it dials");
    peer.write_all("peer\n".repeat(2_000).as_bytes()).expect("read");
    drop(peer);
    let (report, outcome) = running.finish();
    outcome.expect("an orderly end");
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for (record, count) in counts.rows().into_iter().flat_map(|(_, rows)| rows) {
        *all.entry(String::from_utf8(record).expect("UTF-8")).or_default() += count;
    }
    let expected = [("file", 1_000), ("mine", 500), ("peer", 2_000)];
    assert_eq!(all, expected.map(|(name, count)| (name.to_owned(), count)).into());
    let sources: Vec<_> = report
        .sources
        .iter()
        .map(|source| (source.name.as_str(), source.io_model.is_some(), source.counter("records")))
        .collect();
    assert_eq!(sources, [("peer", true, 2_000), ("source1", false, 1_000), ("mine", false, 500)]);
    let mut ended: Vec<String> = (0..3).map(|_| ends.recv().expect("told")).collect();
    ended.sort();
    assert_eq!(ended, ["mine", "peer", "source1"]);
}

#[test]
fn a_pipeline_file_joins_generated_lines_with_files_and_a_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let (logs, pipeline) = (directory.path().join("logs"), directory.path().join("many.toml"));
    std::fs::create_dir(&logs).expect("made");
    std::fs::write(logs.join("a"), "file\n".repeat(1_000)).expect("written");
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let text = format!(
        r#"
name = "many"
batch_interval = "20ms"
http = "off"
[source.made.generate]
records = 3000
line_len = 40
[source.logs.files]
directory = {logs:?}
[source.peer.socket]
connect = ["{}"]
[job.lines]
from = ["made", "logs", "peer"]
lines = {{}}
to = ["screen"]
[sink.screen.console]
format = "json"
"#,
        server.local_addr().expect("bound")
    );
    std::fs::write(&pipeline, text).expect("written");
    let program = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["run", "--until-eof", "--quiet"])
        .arg(&pipeline)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let (mut peer, _) = server.accept().expect("it dials");
    peer.write_all("peer\n".repeat(2_000).as_bytes()).expect("read");
    drop(peer);
    let output = program.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut all, mut records) = (BTreeMap::new(), 0);
    for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
        let batch: serde_json::Value = serde_json::from_str(line).expect("a batch in JSON");
        records += batch["records"].as_u64().expect("a number");
        for row in batch["rows"].as_array().expect("rows") {
            let kind = match row[0].as_str().expect("a record") {
                known @ ("file" | "peer") => known.to_owned(),
                _ => "made".to_owned(),
            };
            *all.entry(kind).or_insert(0_u64) += 1;
        }
    }
    let expected = [("file", 1_000), ("made", 3_000), ("peer", 2_000)];
    assert_eq!(all, expected.map(|(name, count)| (name.to_owned(), count)).into());
    assert_eq!(records, 6_000, "each is the input of one batch");
}
