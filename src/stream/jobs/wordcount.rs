//! The job `wordcount`: the words of the records with their counts, the most frequent first; `topk` counts with it, too.
//!
//! Without a filter it is one fused node: a line feed is white space, so it counts words over whole ranges and never looks for
//! records. Word tables belong to workers and are kept from batch to batch. Runs on the workers.

use super::ordered::ordered;
use super::{JobKind, JobOptions, JobOutput, JobRow, Window};
use crate::blocks::manager::StoredBlock;
use crate::exec::shuffle::word_table::WordTable;
use crate::exec::shuffle::{Tally, WordPool, WordShuffle};
use crate::exec::{Batch, Inputs, Needs, Partition, StageReads, Work, folding};
use crate::stream::window::counting;
use crate::stream::{DStream, Missing, Node, Planner};
use crate::sync::Arc;

pub(super) const ROW: JobRow = JobRow {
    name: "wordcount",
    about: "Words with their counts, the most frequent first. Words are split at ASCII white space.",
    keys: &[],
    example: "wordcount = {}",
    value: None,
    read: |_| Some(JobKind::from(WordCount)),
};

/// The options of `wordcount`: it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordCount;

impl JobOptions for WordCount {
    fn row(&self) -> &'static JobRow {
        &ROW
    }

    fn attach(&self, records: &DStream<[u8]>, output: JobOutput<'_>) {
        let n = output.rows_max();
        let rows = match output.window {
            None => records.wordcount_top(n),
            Some(window) => ranked(&records.counted_words(), window, n),
        };
        output.save(&rows);
    }
}

/// The first `n` rows of the counts of a window: highest count first, then by bytes.
pub(super) fn ranked(counts: &DStream<Tally>, window: Window, n: usize) -> DStream<Tally> {
    let pane = counts.pane(|sum, more| sum + more);
    let views = counts.window_views("wordcount", window, pane, counting());
    ordered(&views, n, |left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)))
}

impl DStream<[u8]> {
    /// The words of the records, at ASCII white space, with their counts: highest count first, then by bytes. It is the job
    /// `wordcount` of a pipeline file, and faster than the operators that it could be made of: words are counted where they
    /// lie.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let lines = ctx.queue_stream(vec![Some(vec!["to be", "or not", "to be"])], 1);
    /// let records = lines.flat_map(|line, out| out.push(line.as_bytes()));
    /// let found = records.wordcount().collect();
    /// ctx.run_batches(1)?;
    /// let row = |word: &str, count| (word.as_bytes().to_vec(), count);
    /// assert_eq!(found.rows()[0].1, [row("be", 2), row("to", 2), row("not", 1), row("or", 1)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn wordcount(&self) -> DStream<(Vec<u8>, u64)> {
        self.wordcount_top(usize::MAX)
    }

    /// The first `n` rows of [`wordcount`](DStream::wordcount); the others are not sorted.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let lines = ctx.queue_stream(vec![Some(vec!["to be", "or not", "to be"])], 1);
    /// let records = lines.flat_map(|line, out| out.push(line.as_bytes()));
    /// let found = records.wordcount_top(1).collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [(b"be".to_vec(), 2)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn wordcount_top(&self, n: usize) -> DStream<(Vec<u8>, u64)> {
        self.words(Some(n), |table, record| table.count_words(record), Fused::Yes)
    }

    /// The rows of [`wordcount`](DStream::wordcount) in no order that means anything, for an operator that does not need
    /// one.
    pub(super) fn counted_words(&self) -> DStream<Tally> {
        self.words(None, |table, record| table.count_words(record), Fused::Yes)
    }

    /// The first `n` in the order of the result, in one partition; all of them, in no order, if there is no `n`.
    pub(super) fn words(
        &self,
        n: Option<usize>,
        count: impl Fn(&mut WordTable, &[u8]) + Send + Sync + 'static,
        fused: Fused,
    ) -> DStream<(Vec<u8>, u64)> {
        let (node, count, pool) = (Arc::clone(&self.node), Arc::new(count), WordPool::default());
        self.wide(move |cx| {
            let (account, shards) = (cx.scope.account(), cx.shards());
            let tables =
                WordShuffle::begin(&pool, &account, cx.shape_by_worker(0), cx.settings.seed);
            let Some(inputs) =
                feeds(cx, &*node, &tables, Counting { count: Arc::clone(&count), fused })?
            else {
                return Ok(Batch::from_iter([]));
            };
            let (needs, tasks) = inputs.into_parts();
            cx.stages.push("fold", needs, tasks);
            let tasks = (0..shards).map(|shard| merge_task(&tables, shard, n)).collect();
            cx.stages.push("merge", Needs::AllPartitions, tasks);
            let unordered = |shard| {
                let tables = Arc::clone(&tables);
                let rows = move |each: &mut dyn FnMut(&Tally)| tables.rows_of(shard, each);
                Partition::new(rows).reading(StageReads::Slot(shard))
            };
            Ok(match n {
                None => (0..shards).map(unordered).collect(),
                Some(n) => Batch::from_iter([Partition::new(move |each| tables.rows(n, each))]),
            })
        })
    }
}

/// `Yes` if whole ranges may be counted at once, because white space ends a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fused {
    Yes,
    No,
}

/// The way in which a job counts a record.
struct Counting<F> {
    count: Arc<F>,
    fused: Fused,
}

/// The tasks of the first stage, which feed a block or a partition of records to their worker's table; none if there is
/// nothing to count.
fn feeds(
    cx: &mut Planner<'_>,
    node: &dyn Node<[u8]>,
    tables: &Arc<WordShuffle>,
    counting: Counting<impl Fn(&mut WordTable, &[u8]) + Send + Sync + 'static>,
) -> Result<Option<Inputs>, Missing> {
    let Counting { count, fused } = counting;
    let whole = |block: &Arc<StoredBlock>| fused == Fused::Yes && block.info.framing.is_lines();
    if let Some(blocks) = node.blocks(cx).filter(|blocks| blocks.iter().all(whole)) {
        let feed = |block: Arc<StoredBlock>| -> Work {
            let tables = Arc::clone(tables);
            Box::new(move |worker| {
                let mut table = tables.lend(worker);
                let fed = block.for_each_range(|range| table.count_words(range));
                tables.give_back(worker, table);
                fed.map_err(|err| err.to_string())
            })
        };
        let mut inputs = Inputs::with_capacity(blocks.len());
        let any = !blocks.is_empty();
        blocks.into_iter().for_each(|block| inputs.push(StageReads::Nothing, feed(block)));
        return Ok(any.then_some(inputs));
    }
    let (batch, tables) = (node.compute(cx)?, Arc::clone(tables));
    let start = move |_, worker| {
        let (tables, count) = (Arc::clone(&tables), Arc::clone(&count));
        let push = move |table: &mut WordTable, record: &[u8]| count(table, record);
        folding(tables.lend(worker), push, move |table| {
            tables.give_back(worker, table);
            Ok(())
        })
    };
    let any = !batch.partitions().is_empty();
    Ok(any.then(|| cx.folds(&batch, 0, start)))
}

fn merge_task(tables: &Arc<WordShuffle>, shard: usize, n: Option<usize>) -> Work {
    let tables = Arc::clone(tables);
    Box::new(move |_| {
        tables.merge(shard, n);
        Ok(())
    })
}
