//! A batch at every thousand records, the second model of the article: from the first byte of the thousand to the batch's
//! commit, over a real socket, with blocks (cut each millisecond) and without (the trigger alone cuts), with the job
//! `wordcount`. Beside it a plain loop that reads the same lines from the same kind of socket and counts their words.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

use tidemill::internals::stream::jobs::{JobOptions, JobOutput, WordCount};
use tidemill::internals::sync::Mailbox;
use tidemill::sink::{Null, SharedSink};
use tidemill::{Config, Event, Interval, Running, SocketSource, StreamingContext};

const RECORDS: u64 = 1_000;

/// A thousand lines of 100 bytes.
fn lines() -> Vec<u8> {
    let line = |n: u64| {
        format!("{:099}\n", n * 7_919).replace('0', if n.is_multiple_of(2) { "a" } else { " " })
    };
    (0..RECORDS).flat_map(|n| line(n).into_bytes()).collect()
}

/// A stream whose batches are of a thousand records each; the records of each batch, as it is done.
fn stream(block: Interval) -> (StreamingContext, Running, Mailbox<u64>) {
    let config = Config::new("trigger")
        .trigger(RECORDS, Interval::secs(3_600))
        .block_interval(block)
        .workers(2);
    let ctx = StreamingContext::new(config).expect("good options");
    let stream = ctx.socket(SocketSource::listen("127.0.0.1:0")).expect("a source");
    let sinks = vec![SharedSink::new(Null)];
    WordCount.attach(&stream, JobOutput::of_batches("words", sinks));
    let done = Mailbox::new(1_024);
    let told = done.clone();
    ctx.add_listener(move |event: &Event| {
        if let Event::BatchCompleted { records, .. } = event {
            told.send(*records).expect("the bench listens");
        }
    });
    let running = ctx.start().expect("started");
    (ctx, running, done)
}

fn words(text: &[u8]) -> HashMap<Vec<u8>, u64> {
    let mut counts = HashMap::new();
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_vec()).or_default() += 1;
    }
    counts
}

fn trigger(c: &mut Criterion) {
    let lines = lines();
    let mut group = c.benchmark_group("trigger");
    group.measurement_time(Duration::from_secs(3));
    for (name, block) in
        [("with blocks", Interval::millis(1)), ("without blocks", Interval::secs(3_600))]
    {
        let (_ctx, running, done) = stream(block);
        let mut peer = TcpStream::connect(running.local_addrs()[0]).expect("connected");
        peer.set_nodelay(true).expect("an option");
        group.bench_function(name, |bench| {
            bench.iter(|| {
                peer.write_all(&lines).expect("taken");
                assert_eq!(done.recv(), Some(RECORDS));
            });
        });
        drop(peer);
        running.stop().expect("in order");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (mut stream, _) = listener.accept().expect("the peer");
    let mut buffer = vec![0; lines.len()];
    group.bench_function("plain loop", |bench| {
        bench.iter(|| {
            peer.write_all(&lines).expect("taken");
            stream.read_exact(&mut buffer).expect("all of it");
            words(&buffer)
        });
    });
    group.finish();
}

criterion_group!(benches, trigger);
criterion_main!(benches);
