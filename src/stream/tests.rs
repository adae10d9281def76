//! Graphs driven by hand: inputs are built here, planned and run on two workers, batch after batch.

mod jobs;
mod plans;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::blocks::manager::StoredBlock;
use crate::blocks::{Block, BlockId, Range};
use crate::error::Error;
use crate::exec::worker_pool::WorkerPool;
use crate::exec::{Plan, run};
use crate::framing::Framing;
use crate::sink::{BatchMeta, CommitKey, Memory, OwnedCell, Rows, SharedSink, Sink, Writer};
use crate::sync::{Arc, AtomicUsize, Mailbox, Mutex, Ordering, Poison};
use crate::time::{Clock, Interval, ManualClock, Moment, Time};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A graph with what it takes to run it.
pub(super) struct Rig {
    pub(super) graph: Arc<Graph>,
    pool: Arc<WorkerPool>,
    clock: Arc<dyn Clock>,
    console: Captured,
    pub(super) partitions: usize,
    /// The batch that runs, with its input.
    open: Mutex<Option<(Arc<BatchInput>, OpenBatch)>>,
}

impl Rig {
    pub(super) fn new(workers: usize) -> Rig {
        let console = Captured::default();
        let graph = Graph::new(GraphOptions {
            pipeline: "test".to_owned(),
            workers,
            seed: 7,
            batch_interval: Interval::secs(1),
            console: Writer::new(Box::new(console.clone())),
        });
        let pool = Arc::new(WorkerPool::start(workers, &Poison::new()).expect("threads"));
        let clock = Arc::new(ManualClock::new());
        Rig { graph, pool, clock, console, partitions: 2, open: Mutex::default() }
    }

    /// Batch number `index`, at (index + 1) seconds, with these blocks of one source.
    pub(super) fn input(&self, index: u64, blocks: Vec<Arc<Block>>) -> Arc<BatchInput> {
        let records = blocks.iter().map(|block| block.info.records).sum();
        let time = Time::from_millis((index + 1) * 1_000);
        let due = Moment::default();
        Arc::new(BatchInput {
            time,
            index,
            blocks: vec![blocks.into_iter().map(StoredBlock::new).collect()],
            direct: Default::default(),
            records,
            due,
            partitions: self.partitions,
            id: Default::default(),
        })
    }

    /// Runs every output of one batch; the first failure is the answer. The batch stays open until another one runs.
    pub(super) fn run(&self, input: &Arc<BatchInput>) -> Result<(), String> {
        (0..self.graph.outputs().len()).try_for_each(|output| self.run_output(output, input))
    }

    fn run_output(&self, output: usize, input: &Arc<BatchInput>) -> Result<(), String> {
        self.run_plan(self.plan(output, input)?)
    }

    fn plan(&self, output: usize, input: &Arc<BatchInput>) -> Result<Plan, String> {
        self.opened(input, |batch| batch.plan(output, &self.clock, self.clock.now()))
    }

    /// Calls `with` with the open batch of this input; one of another input is abandoned.
    fn opened<T>(&self, input: &Arc<BatchInput>, with: impl FnOnce(&mut OpenBatch) -> T) -> T {
        let mut open = self.open.lock();
        if !open.as_ref().is_some_and(|(of, _)| Arc::ptr_eq(of, input)) {
            *open = Some((Arc::clone(input), self.graph.open_batch(input)));
        }
        let (_, batch) = open.as_mut().expect("just opened");
        with(batch)
    }

    /// Commits the batch that has run.
    pub(super) fn commit(&self) {
        let (_, batch) = self.open.lock().take().expect("a batch has run");
        batch.commit();
    }

    /// Runs a batch of before again.
    pub(super) fn replay(&self, index: u64, replay: Replay) -> Result<(), String> {
        let input = self.input(index, Vec::new());
        self.run_plan(self.opened(&input, |batch| batch.replay(&self.clock, replay))?)?;
        self.commit();
        Ok(())
    }

    fn run_plan(&self, plan: Plan) -> Result<(), String> {
        let answers = Mailbox::new(1);
        let answer = answers.clone();
        run(
            plan,
            &self.pool,
            Box::new(move |result| answer.send(result).expect("the test listens")),
        );
        let answer = answers.recv().expect("the plan answers");
        answer.map_err(|failure| failure.cause().to_owned())
    }

    fn run_batches(&self, count: u64) -> Result<(), String> {
        (0..count).try_for_each(|index| self.run(&self.input(index, Vec::new())))
    }

    pub(super) fn queue<T: Clone + Send + Sync + 'static>(&self, batches: &[Vec<T>]) -> DStream<T> {
        self.graph.queue_stream(batches.iter().cloned().map(Some).collect(), 2)
    }
}

/// A block of lines; each range is one text.
fn block(ranges: &[&[u8]]) -> Arc<Block> {
    let range = |text: &&[u8]| {
        let records = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        Range::new(Bytes::copy_from_slice(text), records)
    };
    Arc::new(Block::new(
        BlockId { source: 0, number: 0 },
        Framing::Lines,
        ranges.iter().map(range).collect(),
    ))
}

/// Runs one batch for each entry of `input` and compares what comes out, in any order within a batch.
fn check<T, U>(
    input: &[Vec<T>],
    operate: impl FnOnce(DStream<T>) -> DStream<U>,
    expected: &[Vec<U>],
) where
    T: Clone + Send + Sync + 'static,
    U: Clone + Ord + Debug + Send + Sync + 'static,
{
    let rig = Rig::new(2);
    let collected = operate(rig.queue(input)).collect();
    rig.run_batches(input.len() as u64).expect("the batches succeed");
    let sorted = |mut rows: Vec<U>| {
        rows.sort();
        rows
    };
    let found: Vec<Vec<U>> = collected.rows().into_iter().map(|(_, rows)| sorted(rows)).collect();
    assert_eq!(found, expected.iter().cloned().map(sorted).collect::<Vec<_>>());
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn pairs<V: Clone>(keys: &[&str], value: V) -> Vec<(String, V)> {
    keys.iter().map(|key| ((*key).to_owned(), value.clone())).collect()
}

#[test]
fn narrow_operators() {
    check(&[vec![1, 2, 3], vec![]], |s| s.map(|n| n * 10), &[vec![10, 20, 30], vec![]]);
    check(&[vec![1, 2, 3, 4]], |s| s.filter(|n| n % 2 == 0), &[vec![2, 4]]);
    check(
        &[vec![2, 0, 1]],
        |s| s.flat_map(|n, out| out.emit_all((0..*n).map(|i| (*n, i)))),
        &[vec![(2, 0), (2, 1), (1, 0)]],
    );
    check(&[vec![1, 2, 3]], |s| s.glom(), &[vec![vec![1], vec![2, 3]]]);
    let sums = |s: DStream<u32>| {
        s.map_partitions(|partition, out| {
            let mut sum = 0;
            partition.for_each(|n| sum += n);
            out.emit(sum);
        })
    };
    check(&[vec![1, 2, 3, 4]], sums, &[vec![3, 7]]);
    check(
        &[vec![1, 2]],
        |s| s.transform(|time, batch| batch.map(move |n| (time.as_millis(), *n))),
        &[vec![(1000, 1), (1000, 2)]],
    );
    check(
        &[vec![1, 2]],
        |s| s.transform_with(&s.map(|n| n * 10), |_, a, b| b.union(&a)),
        &[vec![1, 2, 10, 20]],
    );
}

#[test]
fn wide_operators() {
    check(&[vec!['a', 'b', 'c'], vec![]], |s| s.count(), &[vec![3], vec![0]]);
    check(&[vec![1, 2, 3, 4], vec![]], |s| s.reduce(|a, b| a + b), &[vec![10], vec![]]);
    check(
        &[vec![1], vec![1, 1, 1], vec![1, 2]],
        |s| s.count_by_value(),
        &[vec![(1, 1)], vec![(1, 3)], vec![(1, 1), (2, 1)]],
    );
    check(
        &[vec![1, 2, 3, 4, 5]],
        |s| s.repartition(3).glom(),
        &[vec![vec![1, 3], vec![2, 4], vec![5]]],
    );
    let input = [pairs(&["a", "b", "a"], 1), vec![]];
    check(
        &input,
        |s| s.reduce_by_key(|a, b| a + b),
        &[vec![("a".into(), 2), ("b".into(), 1)], vec![]],
    );
    check(
        &input,
        |s| s.group_by_key(),
        &[vec![("a".into(), vec![1, 1]), ("b".into(), vec![1])], vec![]],
    );
    check(&input[..1], |s| s.map_values(|n| n + 1), &[pairs(&["a", "b", "a"], 2)]);
    check(
        &input[..1],
        |s| s.flat_map_values(|n, out| out.emit_all([*n, 5])),
        &[[pairs(&["a", "b", "a"], 1), pairs(&["a", "b", "a"], 5)].concat()],
    );
    let mean = |s: DStream<(String, i32)>| {
        s.combine_by_key(
            |n| (*n, 1),
            |sum, n| (sum.0, sum.1) = (sum.0 + n, sum.1 + 1),
            |sum, part| (sum.0, sum.1) = (sum.0 + part.0, sum.1 + part.1),
        )
    };
    check(&input[..1], mean, &[vec![("a".into(), (2, 2)), ("b".into(), (1, 1))]]);
}

#[test]
fn joins() {
    let left: Vec<Vec<(String, i32)>> =
        [&["a", "b"][..], &["a", ""], &[""], &[]].map(|keys| pairs(keys, 1)).to_vec();
    let right: Vec<Vec<(String, char)>> =
        [&["a", "b"][..], &["b", ""], &[], &[""]].map(|keys| pairs(keys, 'x')).to_vec();
    let with = |s: &DStream<(String, i32)>| {
        s.graph.queue_stream(right.iter().cloned().map(Some).collect(), 3)
    };
    let row = |key: &str| key.to_owned();
    check(
        &left,
        |s| s.join(&with(&s)),
        &[pairs(&["a", "b"], (1, 'x')), pairs(&[""], (1, 'x')), vec![], vec![]],
    );
    check(
        &left,
        |s| s.left_outer_join(&with(&s)),
        &[
            pairs(&["a", "b"], (1, Some('x'))),
            vec![(row(""), (1, Some('x'))), (row("a"), (1, None))],
            pairs(&[""], (1, None)),
            vec![],
        ],
    );
    check(
        &left,
        |s| s.right_outer_join(&with(&s)),
        &[
            pairs(&["a", "b"], (Some(1), 'x')),
            vec![(row(""), (Some(1), 'x')), (row("b"), (None, 'x'))],
            vec![],
            pairs(&[""], (None, 'x')),
        ],
    );
    check(
        &left,
        |s| s.full_outer_join(&with(&s)),
        &[
            pairs(&["a", "b"], (Some(1), Some('x'))),
            vec![
                (row(""), (Some(1), Some('x'))),
                (row("a"), (Some(1), None)),
                (row("b"), (None, Some('x'))),
            ],
            pairs(&[""], (Some(1), None)),
            pairs(&[""], (None, Some('x'))),
        ],
    );
    check(
        &left[1..2],
        |s| s.cogroup(&s.map_values(|n| n + 1)),
        &[vec![(row(""), (vec![1], vec![2])), (row("a"), (vec![1], vec![2]))]],
    );
    check(&[pairs(&["k", "k"], 1)], |s| s.join(&s), &[pairs(&["k"; 4], (1, 1))]);
}

#[test]
fn union_keeps_left_before_right() {
    let rig = Rig::new(2);
    let collected = rig.queue(&[vec![3, 4]]).union(&rig.queue(&[vec![1, 2]])).collect();
    rig.run_batches(1).unwrap();
    assert_eq!(collected.rows(), [(Time::from_millis(1_000), vec![3, 4, 1, 2])]);
}

#[test]
fn a_source_without_a_batch() {
    let rig = Rig::new(2);
    let absent = rig.graph.queue_stream(vec![Some(vec![1]), None], 1);
    let alone = absent.map(|n| n + 1).count().collect();
    rig.run_batches(3).unwrap();
    let time = Time::from_millis;
    assert_eq!(
        alone.rows(),
        [(time(1_000), vec![1]), (time(3_000), vec![0])],
        "no batch is not an empty batch"
    );

    let here = rig.queue(&[vec![5], vec![6]]);
    let fails = |stream: DStream<i32>, expected: &str| {
        stream.collect();
        let output = rig.graph.outputs().len() - 1;
        assert_eq!(rig.run_output(output, &rig.input(1, Vec::new())).unwrap_err(), expected);
    };
    fails(here.union(&absent), "union: source `queue#1` has no batch at 2000 ms");
    fails(absent.union(&here).map(|n| *n), "union: source `queue#1` has no batch at 2000 ms");
    fails(
        absent.transform(|_, batch| batch),
        "transform: source `queue#1` has no batch at 2000 ms",
    );
}

#[test]
fn a_panic_or_an_error_fails_the_batch_and_a_retry_gives_the_same_rows() {
    let rig = Rig::new(2);
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let fickle = rig.queue(&[words("b a b c d e f g")]).map(move |word| {
        assert!(count.fetch_add(1, Ordering::SeqCst) != 3, "bad luck");
        word.clone()
    });
    let collected = fickle.count_by_value().collect();
    let input = rig.input(0, Vec::new());
    let said = rig.run(&input).unwrap_err();
    let of = |partition| format!("panicked in `fold` of partition {partition}: bad luck");
    assert!([of(0), of(1)].contains(&said), "{said}");
    assert!(collected.rows().is_empty());
    rig.run(&input).unwrap();
    let first = collected.rows()[0].1.clone();
    assert_eq!(first.iter().map(|row| row.1).sum::<u64>(), 8);
    for _ in 0..20 {
        rig.run(&input).unwrap();
        assert_eq!(
            collected.rows().last().unwrap().1,
            first,
            "the order is a function of the input"
        );
    }

    rig.queue(&[vec![1]]).foreach_batch(|_, _| Err(Error::Failed("the table is gone".to_owned())));
    assert_eq!(rig.run(&input).unwrap_err(), "the table is gone");
    let planned = Rig::new(1);
    planned.queue(&[vec![1]]).transform::<i32>(|_, _| panic!("in the plan")).print(1);
    assert_eq!(planned.run(&input).unwrap_err(), "panicked: in the plan");
}

#[test]
fn foreach_batch_sees_time_and_elements() {
    let (rig, seen) = (Rig::new(2), Mailbox::new(10));
    let to = seen.clone();
    rig.queue(&[vec![2, 1], vec![]]).foreach_batch(move |time, batch| {
        to.send((time.as_millis(), batch.collect())).expect("the test listens");
        Ok(())
    });
    rig.run_batches(2).unwrap();
    assert_eq!((seen.recv(), seen.recv()), (Some((1_000, vec![2, 1])), Some((2_000, vec![]))));
}

#[test]
fn text_flows_as_in_the_readme() {
    let rig = Rig::new(2);
    let lines = rig.graph.text_blocks(0, "lines");
    lines.flat_map(|line, out| out.extend(line.split_whitespace())).count_by_value().print(10);
    lines.count().print(10);
    rig.run(&rig.input(0, vec![block(&[b"hello world\n", b"hello\r\n"])])).unwrap();
    rig.run(&rig.input(1, Vec::new())).unwrap();
    let rule = "-".repeat(43);
    let header = |ms: u32| format!("{rule}\nTime: {ms} ms\n{rule}\n");
    let printed = String::from_utf8(rig.console.0.lock().clone()).unwrap();
    let rows = ["(hello,2)\n(world,1)\n\n", "(world,1)\n(hello,2)\n\n"];
    let rest =
        [header(1_000), "2\n\n".into(), header(2_000), "\n".into(), header(2_000), "0\n\n".into()]
            .concat();
    assert!(
        rows.map(|rows| [header(1_000), rows.into(), rest.clone()].concat()).contains(&printed),
        "{printed}"
    );
    assert_eq!(
        rig.graph.outputs().iter().map(|output| output.name().to_owned()).collect::<Vec<_>>(),
        ["print#0", "print#1"]
    );
}

#[test]
fn text_that_is_not_utf_8_is_mended_and_counted() {
    let rig = Rig::new(1);
    let collected = rig.graph.text_blocks(0, "lines").collect();
    rig.run(&rig.input(0, vec![block(&["aé\n\n".as_bytes(), b"b\xFF\nc\xC3\xA9\n"])])).unwrap();
    assert_eq!(collected.rows()[0].1, ["aé", "", "b\u{FFFD}", "cé"]);
    assert_eq!(rig.graph.bad_utf8(), 1);
}

#[test]
fn a_stream_that_is_used_twice_is_shuffled_once() {
    let rig = Rig::new(2);
    let counts = rig.queue(&[words("a b a")]).count_by_value();
    counts.join(&counts).collect();
    let plan = rig.plan(0, &rig.input(0, Vec::new())).unwrap();
    assert_eq!(plan.stages.len(), 2 + 2 + 1);
}

#[test]
fn an_empty_batch_needs_no_task() {
    let rig = Rig::new(2);
    let text = rig.graph.text_blocks(0, "in");
    text.flat_map(|line, out| out.extend(line.split(' '))).count_by_value().print(1);
    rig.graph.blocks(0, "in").wordcount().print(1);
    for output in 0..2 {
        let plan = rig.plan(output, &rig.input(0, Vec::new())).unwrap();
        assert_eq!(plan.stages.iter().map(|stage| stage.tasks.len()).sum::<usize>(), 0);
    }
}

#[test]
fn jobs_have_names_of_their_own() {
    let rig = Rig::new(1);
    let stream = rig.queue(&[vec![1]]).named("counts");
    stream.print(1);
    stream.print(1);
    stream.map(|n| *n).print(1);
    let names: Vec<String> =
        rig.graph.outputs().iter().map(|output| output.name().to_owned()).collect();
    assert_eq!(names, ["counts", "counts#1", "print#2"]);
}

/// A sink that fails at its first commit.
#[derive(Default)]
struct Fickle(bool);

impl Sink for Fickle {
    fn committed(&mut self, _key: &CommitKey) -> crate::error::Result<bool> {
        Ok(false)
    }

    fn write(
        &mut self,
        _: &CommitKey,
        _: &crate::sink::BatchMeta,
        _: &Rows,
    ) -> crate::error::Result<()> {
        Ok(())
    }

    fn commit(&mut self, _key: &CommitKey) -> crate::error::Result<()> {
        if std::mem::replace(&mut self.0, true) {
            Ok(())
        } else {
            Err(Error::Failed("disk full".to_owned()))
        }
    }
}

#[test]
fn what_one_sink_committed_is_not_written_again_when_another_failed() {
    let (rig, memory) = (Rig::new(2), Memory::new());
    let handle = memory.handle();
    rig.queue(&[vec![1_u64]])
        .save_to("both", vec![SharedSink::new(memory), SharedSink::new(Fickle::default())]);
    let input = rig.input(0, Vec::new());
    assert_eq!(rig.run(&input).unwrap_err(), "disk full");
    rig.run(&input).unwrap();
    assert_eq!(handle.rows(), [(Time::from_millis(1_000), vec![vec![OwnedCell::U64(1)]])]);
}

#[test]
fn a_stopped_pool_answers_once_with_an_error() {
    let rig = Rig::new(1);
    rig.queue(&[vec![1]]).print(1);
    rig.pool.stop(rig.clock.as_ref(), Moment::from_nanos(u64::MAX));
    let error = rig.run(&rig.input(0, Vec::new())).unwrap_err();
    assert_eq!(error, "the workers were stopped before the batch was done");
}

fn reference(lines: &[String]) -> Vec<(Vec<u8>, u64)> {
    let mut counts: BTreeMap<&[u8], u64> = BTreeMap::new();
    for line in lines {
        for word in line.as_bytes().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            *counts.entry(word).or_default() += 1;
        }
    }
    let mut rows: Vec<(Vec<u8>, u64)> =
        counts.into_iter().map(|(word, count)| (word.to_vec(), count)).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.1));
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_partitioning_gives_the_same_result(
        lines in prop::collection::vec("[a-d \u{e9}]{0,40}", 0..60),
        per_block in 1_usize..20,
        workers in 1_usize..4,
        partitions in 1_usize..5,
    ) {
        let mut rig = Rig::new(workers);
        rig.partitions = partitions;
        let (bytes, text) = (rig.graph.blocks(0, "in"), rig.graph.text_blocks(0, "in"));
        let fused = bytes.wordcount().collect();
        let filtered = bytes.filter(|_| true).wordcount().collect();
        let generic = text
            .flat_map(|line, out| out.extend(line.split_ascii_whitespace()))
            .map(|word: &str| (word.to_owned(), 1_u64));
        let reduced = generic.reduce_by_key(|a, b| a + b).collect();
        let counted = generic.map(|(word, _)| word.clone()).count_by_value().collect();
        let joined = text.map(|line: &str| line.to_owned()).reduce(|a, b| format!("{a}|{b}")).collect();

        let expected = reference(&lines);
        let joined_lines: Vec<String> = if lines.is_empty() { vec![] } else { vec![lines.join("|")] };
        let lines: Vec<Vec<u8>> = lines.iter().map(|line| format!("{line}\n").into_bytes()).collect();
        let in_block = |lines: &[Vec<u8>]| block(&lines.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let blocks: Vec<Arc<Block>> = lines.chunks(per_block).map(in_block).collect();
        for index in 0..2 {
            rig.run(&rig.input(index, blocks.clone())).unwrap();
        }
        for batch in 0..2 {
            prop_assert_eq!(&fused.rows()[batch].1, &expected);
            prop_assert_eq!(&filtered.rows()[batch].1, &expected);
            let generic = |mut rows: Vec<(String, u64)>| {
                rows.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
                rows.into_iter().map(|(word, count)| (word.into_bytes(), count)).collect::<Vec<_>>()
            };
            prop_assert_eq!(&generic(reduced.rows()[batch].1.clone()), &expected);
            prop_assert_eq!(&generic(counted.rows()[batch].1.clone()), &expected);
            prop_assert_eq!(&joined.rows()[batch].1, &joined_lines);
        }
    }
}
