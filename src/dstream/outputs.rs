//! Outputs: what is done with each batch. The last stage encodes the rows in parallel; one worker hands them over.

use super::{BatchInput, DStream, Missing, Output, Planner};
use crate::batch::{Batch, Partition, Work};
use crate::error::Result;
use crate::sink::{BatchMeta, CommitKey, Console, Format, Row, Rows, SharedSink, Sink};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Moment, Time};

/// What an output needs to know to hand over a batch.
pub(super) struct Delivery {
    pub(super) pipeline: Arc<str>,
    pub(super) job: Arc<str>,
    pub(super) input: Arc<BatchInput>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started: Moment,
}

impl Delivery {
    fn key(&self) -> CommitKey {
        CommitKey {
            pipeline: Arc::clone(&self.pipeline),
            job: Arc::clone(&self.job),
            time: self.input.time,
            partition: 0,
        }
    }

    fn meta(&self) -> BatchMeta {
        let now = self.clock.now();
        BatchMeta {
            records: self.input.all_records(),
            scheduling_delay_us: micros(self.input.due, self.started),
            processing_us: micros(self.started, now),
            total_us: micros(self.input.due, now),
        }
    }
}

fn micros(from: Moment, to: Moment) -> u64 {
    u64::try_from(to.since(from).as_micros()).unwrap_or(u64::MAX)
}

/// What a stream's batches held, as far as they are committed. For tests: it grows without bound.
#[derive(Debug)]
pub struct Collected<T>(Arc<Mutex<Batches<T>>>);

type Batches<T> = Vec<(Time, Vec<T>)>;

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        Collected(Arc::clone(&self.0))
    }
}

impl<T: Clone> Collected<T> {
    /// The elements of each committed batch, in partition order.
    pub fn rows(&self) -> Vec<(Time, Vec<T>)> {
        self.0.lock().clone()
    }
}

impl<T: ?Sized + 'static> DStream<T> {
    /// Prints the first `rows` elements of each batch.
    pub fn print(&self, rows: usize)
    where
        T: Row,
    {
        let console = Console::new(self.graph.console.clone(), Format::Spark(rows));
        self.save_to("print", vec![SharedSink::new(console)]);
    }

    /// Writes each batch to a sink.
    pub fn save(&self, sink: impl Sink + 'static)
    where
        T: Row,
    {
        self.save_to("save", vec![SharedSink::new(sink)]);
    }

    /// Writes each batch to every one of these sinks, as one job. The job is called `kind#n` unless the stream has a
    /// [name](DStream::named).
    pub fn save_to(&self, kind: &str, sinks: Vec<SharedSink>)
    where
        T: Row,
    {
        let (node, sinks) = (Arc::clone(&self.node), Arc::new(sinks));
        self.output(kind, move |cx, delivery| {
            let batch = node.compute(cx)?;
            let parts = cx.materialize(&batch, |partition| vec![encoded(partition)]);
            let sinks = Arc::clone(&sinks);
            Ok(Box::new(move |_| {
                let (mut rows, key, meta) = (Rows::new(), delivery.key(), delivery.meta());
                parts.take_all().into_iter().flatten().for_each(|part| rows.append(part));
                sinks
                    .iter()
                    .try_for_each(|sink| sink.deliver(&key, &meta, &rows))
                    .map_err(|err| err.to_string())
            }))
        });
    }

    /// Calls `f` with each batch, on one worker: there its elements are computed as they are iterated.
    pub fn foreach_batch(&self, f: impl Fn(Time, &Batch<T>) -> Result<()> + Send + Sync + 'static) {
        let (node, f) = (Arc::clone(&self.node), Arc::new(f));
        self.output("foreach_batch", move |cx, delivery| {
            let (batch, f) = (node.compute(cx)?, Arc::clone(&f));
            Ok(Box::new(move |_| f(delivery.input.time, &batch).map_err(|err| err.to_string())))
        });
    }

    /// Keeps every committed batch where a test can see it.
    pub fn collect(&self) -> Collected<T::Owned>
    where
        T: ToOwned,
        T::Owned: Send + Sync + 'static,
    {
        let collected = Collected(Arc::new(Mutex::new(Vec::new())));
        let (node, all) = (Arc::clone(&self.node), collected.clone());
        self.output("collect", move |cx, delivery| {
            let batch = node.compute(cx)?;
            let parts = cx.materialize(&batch, |partition| {
                let mut owned = Vec::new();
                partition.for_each(|element| owned.push(element.to_owned()));
                owned
            });
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
        build: impl Fn(&mut Planner<'_>, Delivery) -> std::result::Result<Work, Missing>
        + Send
        + Sync
        + 'static,
    ) {
        let mut registered = self.graph.registered.lock();
        let number = registered.outputs.len();
        let mut name = self.name.clone().unwrap_or_else(|| format!("{kind}#{number}").into());
        if registered.outputs.iter().any(|output| output.name == name) {
            // Two jobs of one name would have the same commit keys: the second one's rows would count as written.
            name = format!("{name}#{number}").into();
        }
        registered.outputs.push(Arc::new(Output {
            name,
            pipeline: Arc::clone(&self.graph.pipeline),
            settings: self.graph.settings,
            epoch: Arc::clone(&self.graph.epoch),
            build: Box::new(build),
        }));
        drop(registered);
        self.graph.epoch.add_output(&self.line.above);
    }
}

fn encoded<T: Row + ?Sized>(partition: &Partition<T>) -> Rows {
    let mut rows = Rows::new();
    partition.for_each(|element| rows.push(element));
    rows
}
