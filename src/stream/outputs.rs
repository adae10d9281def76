//! Outputs: they print, save or hand over each batch. The last stage encodes the rows in parallel; one worker hands them over.
//! Lines that a job passes on as they were received are not encoded: their rows are the blocks.

use std::any::TypeId;

use super::delivery::Delivery;
use super::plan::Job;
use super::plan::lacks::Reads;
use super::{DStream, Missing, Node, Output, Planner};
use crate::blocks::manager::StoredBlock;
use crate::error::Result;
use crate::exec::shuffle::Slots;
use crate::exec::{Batch, Failure, Finish, Needs, Work};
use crate::framing::lines_of;
use crate::memory::buffer_pool::Pool;
use crate::sink::{BatchMeta, CommitKey, Console, Format, Row, Rows, SharedSink, Sink};
use crate::sync::{Arc, Mutex};
use crate::time::Time;

/// The rows that [`collect`](DStream::collect) gathers, for tests: it grows without bound. Clones are handles of the same
/// rows, on any thread.
#[derive(Debug)]
pub struct Collected<T>(Arc<Mutex<Batches<T>>>);

type Batches<T> = Vec<(Time, Vec<T>)>;

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        Collected(Arc::clone(&self.0))
    }
}

impl<T: Clone> Collected<T> {
    /// Copies the elements of each committed batch, in partition order, the oldest batch first. A batch without elements has
    /// an entry too; one in which the stream is not due, between two slides of a window, has none.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let found = numbers.collect();
    /// ctx.run_batches(2)?;
    /// let rows: Vec<_> = found.rows().into_iter().map(|(time, rows)| (time.as_millis(), rows)).collect();
    /// assert_eq!(rows, [(1_000, vec![3, 1, 2]), (2_000, vec![])]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn rows(&self) -> Vec<(Time, Vec<T>)> {
        self.0.lock().clone()
    }
}

impl<T: ?Sized + 'static> DStream<T> {
    /// Prints the first `rows` elements of each batch to standard output, in Spark's format, and `...` if there are more.
    ///
    /// A reader that is gone, of a closed pipe, closes the output: a stream that only prints ends then, any other goes on.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// numbers.print(2);
    /// ctx.run_batches(1)?; // prints `Time: 1000 ms`, 3, 1 and `...`
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn print(&self, rows: usize)
    where
        T: Row,
    {
        let console = Console::new(self.graph.console.clone(), Format::Spark(rows));
        self.save_to("print", vec![SharedSink::new(console)]);
    }

    /// Writes the rows of each batch to `sink`, as a job. Workers encode the rows of each partition; one of them then calls
    /// the sink. A [`Sink`] says which of its errors are tried again. Spark Streaming has `saveAsTextFiles` and its kin here:
    /// [`sink::File`](crate::sink::File).
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3_u64, 1, 2])], 1);
    /// let memory = tidemill::sink::Memory::new();
    /// let saved = memory.handle();
    /// numbers.save(memory);
    /// ctx.run_batches(1)?;
    /// assert_eq!(saved.rows()[0].1.len(), 3);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn save(&self, sink: impl Sink + 'static)
    where
        T: Row,
    {
        self.save_to("save", vec![SharedSink::new(sink)]);
    }

    /// Writes the rows of each batch to every one of `sinks`, as one job: the batch counts as done when all of them committed
    /// it. Without a [name](DStream::named) the job is called `kind#n`.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// use tidemill::sink::{Memory, SharedSink};
    ///
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let (one, two) = (Memory::new(), Memory::new());
    /// let saved = [one.handle(), two.handle()];
    /// numbers.count().save_to("save", vec![SharedSink::new(one), SharedSink::new(two)]);
    /// ctx.run_batches(1)?;
    /// assert_eq!(saved[0].rows(), saved[1].rows());
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn save_to(&self, kind: &str, sinks: Vec<SharedSink>)
    where
        T: Row,
    {
        let (node, sinks) = (Arc::clone(&self.node), Arc::<[SharedSink]>::from(sinks));
        self.graph.add_sinks(&sinks);
        if self.lineage.line_feeds {
            sinks.iter().for_each(SharedSink::expect_line_feeds);
        }
        let to = Arc::clone(&sinks);
        self.output(kind, to, move |cx, delivery| {
            let pool = cx.scope.pool();
            let parts = match lines_behind(&*node, cx) {
                Some(blocks) => rows_of_blocks(cx, blocks, &pool),
                None => {
                    let batch = node.compute(cx)?;
                    let begin = move || Rows::in_pool(&pool);
                    cx.materialize_owning("write", &batch, begin, Rows::push, encoded)
                }
            };
            let sinks = Arc::clone(&sinks);
            Ok(Box::new(move |_| {
                let (mut rows, key, meta) = (Rows::new(), delivery.key(), delivery.meta());
                parts.take_all().into_iter().flatten().for_each(|part| rows.append(part));
                deliver(&sinks, &key, &meta, &rows)
            }))
        });
    }

    /// Calls `f` with each batch and its time, on one worker; the elements are computed there, as `f` goes through them. An
    /// error that it returns fails the job. What `f` does is not committed with the batch: it may happen again for the same
    /// time. In Spark Streaming this is `foreachRDD`.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// use std::sync::{Arc, Mutex};
    ///
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let sums = Arc::new(Mutex::new(Vec::new()));
    /// let all = Arc::clone(&sums);
    /// numbers.foreach_batch(move |time, batch| {
    ///     let mut sum = 0;
    ///     batch.for_each(|n| sum += n);
    ///     all.lock().unwrap().push((time.as_millis(), sum));
    ///     Ok(())
    /// });
    /// ctx.run_batches(1)?;
    /// assert_eq!(*sums.lock().unwrap(), [(1_000, 6)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn foreach_batch(&self, f: impl Fn(Time, &Batch<T>) -> Result<()> + Send + Sync + 'static) {
        let (node, f) = (Arc::clone(&self.node), Arc::new(f));
        self.output("foreach_batch", Arc::default(), move |cx, delivery| {
            let (batch, f) = (node.compute(cx)?, Arc::clone(&f));
            Ok(Box::new(move |_| {
                f(delivery.input.time, &batch).map_err(|err| err.to_string().into())
            }))
        });
    }

    /// Keeps every committed batch in memory, where a test can read it. An output like the others; Spark Streaming has none
    /// such.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let found = numbers.collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [3, 1, 2]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn collect(&self) -> Collected<T::Owned>
    where
        T: ToOwned,
        T::Owned: Send + Sync + 'static,
    {
        let collected = Collected(Arc::new(Mutex::new(Vec::new())));
        let (node, all) = (Arc::clone(&self.node), collected.clone());
        self.output("collect", Arc::default(), move |cx, delivery| {
            let batch = node.compute(cx)?;
            let parts = cx.owned(&batch);
            let all = all.clone();
            Ok(Box::new(move |_| {
                let rows = parts.take_all().into_iter().flatten().collect();
                all.0.lock().push((delivery.input.time, rows));
                Ok(())
            }))
        });
        collected
    }

    fn output(
        &self,
        kind: &str,
        sinks: Arc<[SharedSink]>,
        build: impl Fn(&mut Planner<'_>, Delivery) -> std::result::Result<Finish, Missing>
        + Send
        + Sync
        + 'static,
    ) {
        let mut registered = self.graph.registered.lock();
        let number = registered.outputs.len();
        let mut name = self.name.clone().unwrap_or_else(|| format!("{kind}#{number}").into());
        let late = || {
            format!(
                "the output `{name}` comes after the start and would never run: register it before `start`"
            )
        };
        if self.graph.tell_late(late) {
            return;
        }
        if registered.outputs.iter().any(|output| output.job.name == name) {
            // Two jobs of one name would have the same commit keys: the second one's rows would count as written.
            name = format!("{name}#{number}").into();
        }
        let reads = Reads {
            sources: Arc::clone(&self.lineage.sources),
            reach: self.lineage.reach.0,
            below_states: self.lineage.reach.1,
        };
        if self.lineage.slide > self.graph.settings.batch_interval {
            self.graph.undue.lock().add(number, self.lineage.slide, reads.clone());
        }
        let output = Arc::new(Output {
            sinks,
            job: Arc::new(Job {
                name,
                pipeline: Arc::clone(&self.graph.pipeline),
                reads,
                build: Box::new(build),
                past: Mutex::default(),
            }),
        });
        registered.outputs.push(output);
        self.graph.wire(|wiring| wiring.add_output(number, &self.lineage.above));
    }
}

/// Hands the rows to every sink of a job. One whose reader is gone holds no other up.
fn deliver(
    sinks: &[SharedSink],
    key: &CommitKey,
    meta: &BatchMeta,
    rows: &Rows,
) -> std::result::Result<(), Failure> {
    let mut closed = None;
    for sink in sinks {
        match sink.deliver(key, meta, rows) {
            Ok(()) => {}
            Err(err) if sink.is_closed() => closed = Some(Failure::Closed(err.to_string())),
            Err(err) => return Err(Failure::of_sink(&err).at(sink.name(), sink.place())),
        }
    }
    closed.map_or(Ok(()), Err)
}

/// The blocks whose lines are the rows of a batch, as they were received: nothing needs to be made of them.
fn lines_behind<T: ?Sized + 'static>(
    node: &dyn Node<T>,
    cx: &Planner<'_>,
) -> Option<Vec<Arc<StoredBlock>>> {
    let is_bytes = TypeId::of::<T>() == TypeId::of::<[u8]>();
    let blocks = is_bytes.then(|| node.blocks(cx)).flatten()?;
    blocks.iter().all(|block| block.info.framing.is_lines()).then_some(blocks)
}

/// Adds a stage that leaves the lines of each block in a slot, as rows.
fn rows_of_blocks(
    cx: &mut Planner<'_>,
    blocks: Vec<Arc<StoredBlock>>,
    pool: &Arc<Pool>,
) -> Slots<Rows> {
    let slots = Slots::counted(blocks.len(), pool.account());
    let task = |(slot, block): (usize, Arc<StoredBlock>)| -> Work {
        let (results, pool) = (slots.clone(), Arc::clone(pool));
        Box::new(move |_| {
            let (rows, bytes) = rows_of_block(&block, &pool).map_err(|err| err.to_string())?;
            results.put_owning(slot, rows, bytes);
            Ok(())
        })
    };
    let tasks = blocks.into_iter().enumerate().map(task).collect();
    cx.stages.push("write", Needs::SamePartition, tasks);
    slots
}

/// The lines of a block as rows: in place if the block is in memory, otherwise it is read back and they are copied.
fn rows_of_block(block: &StoredBlock, pool: &Arc<Pool>) -> Result<(Vec<Rows>, usize)> {
    if let Some(rows) = block.in_memory().and_then(Rows::of_lines) {
        pool.account().spare(rows.bytes_of_copy());
        return Ok((vec![rows], 0));
    }
    let mut rows = Rows::in_pool(pool);
    block.for_each_range(|range| lines_of(range).for_each(|line| rows.push(line)))?;
    Ok(encoded(rows))
}

/// The rows of a partition, and their bytes.
fn encoded(mut rows: Rows) -> (Vec<Rows>, usize) {
    rows.trim();
    let bytes = rows.bytes();
    (vec![rows], bytes)
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::sink::Memory;
    use crate::stream::tests::Rig;

    /// Notes that it must expect line feeds.
    struct Told(Memory, Arc<Mutex<bool>>);

    impl Sink for Told {
        fn expect_line_feeds(&mut self) {
            *self.1.lock() = true;
        }

        fn committed(&mut self, key: &CommitKey) -> Result<bool> {
            self.0.committed(key)
        }

        fn write(&mut self, key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> Result<()> {
            self.0.write(key, meta, rows)
        }

        fn commit(&mut self, key: &CommitKey) -> Result<()> {
            self.0.commit(key)
        }
    }

    /// A stream made of lines and of frames.
    type Derive = fn(&DStream<[u8]>, &DStream<[u8]>) -> DStream<[u8]>;

    #[test]
    fn sinks_know_whether_the_sources_of_their_jobs_may_send_line_feeds() {
        let check = |of: Derive, expected: bool| {
            let (rig, told) = (Rig::new(1), Arc::<Mutex<bool>>::default());
            let lines = rig.graph.blocks(0, "lines").may_hold_line_feeds(false);
            let frames = rig.graph.blocks(1, "frames");
            of(&lines, &frames).save(Told(Memory::new(), Arc::clone(&told)));
            assert_eq!(*told.lock(), expected);
        };
        check(|lines, _| lines.clone(), false);
        check(|lines, _| lines.filter(|line| !line.is_empty()).union(lines), false);
        check(|_, frames| frames.clone(), true);
        check(|_, frames| frames.filter(|frame| !frame.is_empty()), true);
        check(|lines, frames| lines.union(frames), true);
        check(|lines, frames| frames.union(lines), true);
    }
}
