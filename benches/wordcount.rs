//! Words per second of the word table beside a plain tuned loop, and the fixed cost of a batch.
//!
//! The text is Zipf(1.0) over 10,000 words, as the embedded data server sends it. The baseline is what a careful
//! programmer writes with a hash map and the same hash function; both results are compared before anything is timed.

use std::collections::HashMap;
use std::hint::black_box;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use foldhash::fast::FixedState;

use tidemill::batch::run;
use tidemill::block::{Block, BlockId, Range};
use tidemill::dstream::{BatchInput, Graph, GraphOptions};
use tidemill::framing::Framing;
use tidemill::shuffle::words::WordTable;
use tidemill::sink::{Null, Writer};
use tidemill::sync::{Mailbox, Poison};
use tidemill::time::{Clock, Moment, SystemClock};
use tidemill::workers::WorkerPool;
use tidemill::{Interval, Time};

const VOCABULARY: usize = 10_000;
const WORDS: usize = 2_000_000;

/// A small generator with a fixed seed: the same text on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Words by rank: short ones and long ones, as in a language.
fn vocabulary(random: &mut Random) -> Vec<String> {
    let word = |_| {
        (0..3 + random.next() % 8).map(|_| char::from(b'a' + (random.next() % 26) as u8)).collect()
    };
    (0..VOCABULARY).map(word).collect()
}

fn zipf_text(words: usize) -> Vec<u8> {
    let mut random = Random(42);
    let vocabulary = vocabulary(&mut random);
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=VOCABULARY)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let mut text = Vec::new();
    for number in 1..=words {
        let point = random.unit() * sum;
        let rank = cumulative.partition_point(|bound| *bound < point).min(VOCABULARY - 1);
        text.extend_from_slice(vocabulary[rank].as_bytes());
        text.push(if number % 12 == 0 { b'\n' } else { b' ' });
    }
    text
}

fn plain<'a>(text: &'a [u8], counts: &mut HashMap<&'a [u8], u64, FixedState>) {
    let mut start = 0;
    for (at, byte) in text.iter().enumerate() {
        if byte.is_ascii_whitespace() {
            if start < at {
                *counts.entry(&text[start..at]).or_default() += 1;
            }
            start = at + 1;
        }
    }
}

fn table(c: &mut Criterion) {
    let text = zipf_text(WORDS);
    let (mut words, mut counts) =
        (WordTable::new(1), HashMap::with_hasher(FixedState::with_seed(1)));
    words.count_words(&text);
    plain(&text, &mut counts);
    assert_eq!(words.len(), counts.len());
    let same = |place| words.at(place, |word, count| counts[word] == count);
    assert!(words.sorted(usize::MAX).into_iter().all(same));

    let mut group = c.benchmark_group("zipf words");
    group.throughput(Throughput::Elements(WORDS as u64)).sample_size(20);
    group.bench_function("table", |b| {
        b.iter(|| {
            words.clear();
            words.count_words(black_box(&text));
            words.len()
        });
    });
    group.bench_function("plain loop", |b| {
        b.iter(|| {
            counts.clear();
            plain(black_box(&text), &mut counts);
            counts.len()
        });
    });
    group.finish();
}

fn input(blocks: Vec<Arc<Block>>) -> Arc<BatchInput> {
    let records = blocks.iter().map(|block| block.records()).sum();
    let (time, due) = (Time::from_millis(1_000), Moment::default());
    Arc::new(BatchInput { time, index: 0, blocks: vec![blocks], records, due, partitions: 2 })
}

fn lines(text: Vec<u8>) -> Arc<Block> {
    let records = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    let range = Range { bytes: Bytes::from(text), records, charge: None };
    Arc::new(Block::new(BlockId { source: 0, number: 0 }, Framing::Lines, vec![range]))
}

/// From the plan to the commit, on two workers: what a batch costs before its records count.
fn batch(c: &mut Criterion) {
    let pool = Arc::new(WorkerPool::start(2, &Poison::new()).expect("threads"));
    let clock: Arc<dyn Clock> = SystemClock::new();
    let console = Writer::new(Box::new(io::sink()));
    let graph = Graph::new(GraphOptions {
        pipeline: "bench".to_owned(),
        workers: 2,
        seed: 1,
        console,
        batch_interval: Interval::secs(1),
    });
    let stream = graph.blocks(0, "in");
    stream.wordcount().save(Null);
    stream.count().save(Null);
    let text = graph.text_blocks(0, "in");
    text.flat_map(|line, out| out.extend(line.split_ascii_whitespace()))
        .count_by_value()
        .save(Null);
    let jobs = HashMap::from([("save#0", "wordcount"), ("save#1", "count"), ("save#2", "library")]);
    let answers = Mailbox::new(1);
    let mut group = c.benchmark_group("batch");
    let big = zipf_text(WORDS / 10);
    for (name, blocks) in [
        ("empty", Vec::new()),
        ("10 blocks of one word", (0..10).map(|_| lines(b"word\n".to_vec())).collect()),
        ("10 blocks of 200,000 words", (0..10).map(|_| lines(big.clone())).collect()),
    ] {
        let input = input(blocks);
        for output in graph.outputs() {
            group.bench_function(format!("{name}, {}", jobs[output.name()]), |b| {
                b.iter(|| {
                    let plan = output.plan(&input, &clock, clock.now()).expect("a plan");
                    let answer = answers.clone();
                    run(
                        plan,
                        &pool,
                        Box::new(move |result| answer.send(result).expect("the bench listens")),
                    );
                    answers.recv().expect("an answer").expect("the batch succeeds");
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, table, batch);
criterion_main!(benches);
