//! The fixed cost of a batch, from its plan to its commit on two workers, beside a bare hand-over to the same workers:
//! empty, of ten blocks of one word, and of ten blocks of 200,000 words beside a plain loop over the same text.

mod zipf;

use std::collections::HashMap;
use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};

use tidemill::internals::blocks::manager::StoredBlock;
use tidemill::internals::blocks::{Block, BlockId, Range};
use tidemill::internals::exec::run;
use tidemill::internals::exec::shuffle::word_table::WordTable;
use tidemill::internals::exec::worker_pool::WorkerPool;
use tidemill::internals::framing::Framing;
use tidemill::internals::stream::{BatchInput, Graph, GraphOptions};
use tidemill::internals::sync::{Mailbox, Poison};
use tidemill::sink::{Memory, Null, OwnedCell, Writer};
use tidemill::time::{Clock, Moment, SystemClock};
use tidemill::{Interval, Time};

use crate::zipf::zipf_text;

const WORDS: usize = 200_000;

fn input(blocks: Vec<Arc<Block>>) -> Arc<BatchInput> {
    let records = blocks.iter().map(|block| block.info.records).sum();
    let (time, due) = (Time::from_millis(1_000), Moment::default());
    Arc::new(BatchInput {
        time,
        index: 0,
        blocks: vec![blocks.into_iter().map(StoredBlock::new).collect()],
        direct: Default::default(),
        records,
        due,
        partitions: 2,
        id: Default::default(),
    })
}

fn lines(text: Vec<u8>) -> Arc<Block> {
    let records = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    let range = Range::new(Bytes::from(text), records);
    Arc::new(Block::new(BlockId { source: 0, number: 0 }, Framing::Lines, vec![range]))
}

/// The least that any batch costs: to a worker and back.
fn bare(pool: &WorkerPool, answers: &Mailbox<usize>) -> usize {
    let answer = answers.clone();
    let task = Box::new(move |worker| answer.send(worker).expect("the bench listens"));
    assert!(pool.submit(vec![task]), "the workers run");
    answers.recv().expect("an answer")
}

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
    let go = |output: usize, input: &Arc<BatchInput>| {
        let mut batch = graph.open_batch(input);
        let plan = batch.plan(output, &clock, clock.now()).expect("a plan");
        let answer = answers.clone();
        let done = move |result| answer.send(result).expect("the bench listens");
        run(plan, &pool, Box::new(done));
        answers.recv().expect("an answer").expect("the batch succeeds");
    };
    check(&go, &graph);
    let mut group = c.benchmark_group("batch");
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500));
    let hand_overs = Mailbox::new(1);
    group.bench_function("baseline_hand_over", |b| b.iter(|| bare(&pool, &hand_overs)));
    let big = zipf_text(WORDS);
    for (name, blocks) in [
        ("empty", Vec::new()),
        ("10 blocks of one word", (0..10).map(|_| lines(b"word\n".to_vec())).collect()),
        ("10 blocks of 200,000 words", (0..10).map(|_| lines(big.clone())).collect()),
    ] {
        let input = input(blocks);
        for (number, output) in graph.outputs().iter().enumerate() {
            let Some(job) = jobs.get(output.name()) else { continue };
            group.bench_function(format!("{name}, {job}"), |b| b.iter(|| go(number, &input)));
        }
    }
    let mut table = WordTable::new(1);
    group.bench_function("baseline_one_thread, 10 x 200,000 words", |b| {
        b.iter(|| {
            table.clear();
            (0..10).for_each(|_| table.count_words(black_box(&big)));
            table.sorted(usize::MAX).len()
        });
    });
    group.finish();
}

/// Ten blocks of one word come to one row, whose count is ten.
fn check(go: &impl Fn(usize, &Arc<BatchInput>), graph: &Arc<Graph>) {
    let memory = Memory::new();
    let rows = memory.handle();
    graph.blocks(0, "in").wordcount().named("checked").save(memory);
    go(graph.outputs().len() - 1, &input((0..10).map(|_| lines(b"word\n".to_vec())).collect()));
    let rows = rows.rows();
    let expected = vec![OwnedCell::Text("word".to_owned()), OwnedCell::U64(10)];
    assert_eq!(rows, [(Time::from_millis(1_000), vec![expected])]);
}

criterion_group!(benches, batch);
criterion_main!(benches);
