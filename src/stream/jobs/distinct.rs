//! The job `distinct`: the records of a batch or of a window, each once, sorted by bytes.
//!
//! ```text
//! records ─▶ shards of the worker ─▶ one task for each hash partition: merged (and sorted) ─▶ one partition of rows
//!                                                                      └▶ pane of a keyed window ─▶ sorted when read
//! ```
//! A record is copied when it is first seen, so memory follows the distinct records, not all of them. Runs on the workers.

use super::ordered::ordered;
use super::{JobKind, JobOptions, JobOutput, JobRow, Window};
use crate::exec::shuffle::{Hashed, Shuffle, ShuffleShape, Slots, Table, hash_of};
use crate::exec::{Batch, Partition, folding};
use crate::stream::window::Rule;
use crate::stream::{DStream, Missing, Planner};
use crate::sync::Arc;

pub(super) const ROW: JobRow = JobRow {
    name: "distinct",
    about: "The records of the batch or the window, each once, sorted by bytes.",
    keys: &[],
    example: "distinct = {}",
    value: None,
    read: |_| Some(JobKind::from(Distinct)),
};

/// The options of `distinct`: it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distinct;

impl JobOptions for Distinct {
    fn row(&self) -> &'static JobRow {
        &ROW
    }

    fn attach(&self, records: &DStream<[u8]>, output: JobOutput<'_>) {
        let rows = match output.window {
            None => records.distinct(),
            Some(window) => distinct_by_window(records, window),
        };
        output.save(&rows);
    }
}

impl DStream<[u8]> {
    /// The records of each batch, each once, sorted by bytes. A record is copied when it is first seen, so that memory
    /// follows the different ones. It is the job `distinct` of a pipeline file; in Spark Streaming `transform(_.distinct)`.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let lines = ctx.queue_stream(vec![Some(vec!["to be", "or not", "to be"])], 1);
    /// let records = lines.flat_map(|line, out| out.push(line.as_bytes()));
    /// let found = records.distinct().collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [b"or not".to_vec(), b"to be".to_vec()]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn distinct(&self) -> DStream<[u8]> {
        let each_once = each_once(self, |table| {
            let mut records: Vec<Vec<u8>> = table.drain().map(|entry| entry.key).collect();
            records.sort_unstable();
            records
        });
        self.wide(move |cx| {
            let shards = cx.shards();
            let sorted = each_once(cx, shards)?;
            let merged = move |each: &mut dyn FnMut(&[u8])| {
                let shards: Vec<_> = (0..sorted.len()).map(|shard| sorted.at(shard)).collect();
                let mut records: Vec<&[u8]> =
                    shards.iter().flat_map(|shard| shard.iter().map(Vec::as_slice)).collect();
                // The sort finds the shards' runs and merges them.
                records.sort();
                records.into_iter().for_each(each);
            };
            Ok(Batch::from_iter([Partition::new(merged)]))
        })
    }
}

/// The records of a window, each once, sorted by bytes.
fn distinct_by_window(records: &DStream<[u8]>, window: Window) -> DStream<[u8]> {
    let pane = each_once(records, |table| table.drain().collect());
    // A record has no value: the window itself counts the batches that it is in, and drops it with the last of them.
    let rule = Rule { join: Box::new(|(), ()| ()), inverse: None, keep: None };
    let views = records.window_views("distinct", window, pane, rule);
    let sorted = ordered(&views, usize::MAX, |(left, ()), (right, ())| left.cmp(right));
    views.showing(sorted.flat_map(|(record, ()), out| out.push(record.as_slice())))
}

/// Plans a shuffle of the records; `rows` takes those of a hash partition out of its table.
fn each_once<U: Send + Sync + 'static>(
    records: &DStream<[u8]>,
    rows: impl Fn(&mut Table<Vec<u8>, ()>) -> Vec<U> + Copy + Send + Sync + 'static,
) -> impl Fn(&mut Planner<'_>, usize) -> Result<Slots<U>, Missing> + Send + Sync + 'static {
    let (node, memory) = (Arc::clone(&records.node), Shuffle::<Vec<u8>, ()>::default());
    move |cx, shards| {
        let (batch, seed) = (node.compute(cx)?, cx.settings.seed);
        let shape = ShuffleShape { shards, ..cx.shape_by_worker(batch.partitions().len()) };
        let tables = memory.begin(&cx.scope.account(), shape, |&mut (), ()| ());
        let lent = tables.clone();
        let start = move |partition, worker| {
            folding(
                lent.lend(partition, worker),
                move |shards, record: &[u8]| {
                    let found = Hashed { hash: hash_of(seed, record), key: record };
                    shards.append(found, <[u8]>::to_vec, || (), |()| ());
                },
                |shards| {
                    shards.give_back();
                    Ok(())
                },
            )
        };
        let inputs = cx.folds(&batch, 0, start);
        Ok(tables.plan_slots(&mut cx.stages, inputs, rows))
    }
}
