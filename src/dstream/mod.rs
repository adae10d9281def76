//! `DStream` and the graph: sources, operators and outputs, and the plan that they make of each batch.
//!
//! ```text
//! source ─▶ operator ─▶ operator ─▶ output        one output is one job; the graph lists them in order
//!   compute() ◀── compute() ◀── compute() ◀── Output::plan(input)      stages gather in the planner on the way back
//! ```
//! Nodes are built once and asked for each batch and attempt; what they return is lazy. Planning runs on the scheduler's
//! thread and costs nothing per record; the plan runs on the workers. Nothing here knows receivers or the context.

pub mod builtin;
mod latency;
mod operators;
mod outputs;
mod pairs;
mod sources;
#[cfg(all(test, not(tidemill_model)))]
mod tests;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::batch::{Batch, Partition, Plan, Stage, Work};
use crate::block::Block;
use crate::shuffle::Slots;
use crate::sink::Writer;
use crate::sync::thread::panic_text;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::time::{Clock, Moment, Time};

pub use outputs::Collected;

use outputs::Delivery;

/// What a batch is made from; a second attempt and a replay use the same.
#[derive(Debug)]
pub struct BatchInput {
    /// The batch's time.
    pub time: Time,
    /// The number of the batch in this run, from 0.
    pub index: u64,
    /// The blocks of each source, by the number of the source, in the order in which they were received.
    pub blocks: Vec<Vec<Arc<Block>>>,
    /// Records in the blocks.
    pub records: u64,
    /// The moment at which the batch was due.
    pub due: Moment,
    /// Into how many hash partitions keyed operators split; at least one.
    pub partitions: usize,
}

/// What the graph is told when it is made.
#[derive(Clone, Debug)]
pub struct GraphOptions {
    /// The pipeline's name.
    pub pipeline: String,
    /// How many workers run the plans.
    pub workers: usize,
    /// The seed of every hash.
    pub seed: u64,
    /// Where `print` prints.
    pub console: Writer,
}

/// A source of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Its number: the index into [`BatchInput::blocks`].
    pub source: u32,
    /// Its name.
    pub name: Arc<str>,
}

/// The streams of one context: sources and outputs, and the nodes between them.
pub struct Graph {
    pipeline: Arc<str>,
    console: Writer,
    settings: Settings,
    bad_utf8: Arc<AtomicU64>,
    registered: Mutex<Registered>,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    workers: usize,
    seed: u64,
}

#[derive(Default)]
struct Registered {
    sources: Vec<SourceInfo>,
    outputs: Vec<Arc<Output>>,
    nodes: u32,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}

impl Graph {
    /// An empty graph.
    pub fn new(options: GraphOptions) -> Arc<Graph> {
        Arc::new(Graph {
            pipeline: options.pipeline.into(),
            console: options.console,
            settings: Settings { workers: options.workers.max(1), seed: options.seed },
            bad_utf8: Arc::new(AtomicU64::new(0)),
            registered: Mutex::new(Registered::default()),
        })
    }

    /// The pipeline's name.
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }

    /// The sources of blocks, in the order in which they were made.
    pub fn sources(&self) -> Vec<SourceInfo> {
        self.registered.lock().sources.clone()
    }

    /// The outputs, in the order in which they were registered: each is a job of every batch.
    pub fn outputs(&self) -> Vec<Arc<Output>> {
        self.registered.lock().outputs.clone()
    }

    /// How many records of text streams were not UTF-8 and were mended, counted each time one is read.
    pub fn bad_utf8(&self) -> u64 {
        self.bad_utf8.load(Ordering::Relaxed)
    }

    fn next_node(&self) -> u32 {
        let mut registered = self.registered.lock();
        registered.nodes += 1;
        registered.nodes
    }

    fn stream<T: ?Sized>(self: &Arc<Self>, node: impl Node<T> + 'static) -> DStream<T> {
        DStream { node: Arc::new(node), graph: Arc::clone(self), name: None }
    }
}

/// A stream: what its operators make of each batch. Clones are handles of the same stream.
pub struct DStream<T: ?Sized> {
    node: Arc<dyn Node<T>>,
    graph: Arc<Graph>,
    name: Option<Arc<str>>,
}

impl<T: ?Sized> Clone for DStream<T> {
    fn clone(&self) -> Self {
        DStream {
            node: Arc::clone(&self.node),
            graph: Arc::clone(&self.graph),
            name: self.name.clone(),
        }
    }
}

impl<T: ?Sized> fmt::Debug for DStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DStream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A node of the graph. Nodes never hold the graph, which holds them.
trait Node<T: ?Sized>: Send + Sync {
    /// The node's elements of a batch; its stages go to the planner.
    fn compute(&self, cx: &mut Planner<'_>) -> Result<Batch<T>, Missing>;

    /// The blocks behind the node, if its elements are exactly their records, in order.
    fn blocks(&self, _cx: &Planner<'_>) -> Option<Vec<Arc<Block>>> {
        None
    }
}

/// Why a node has no elements.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Missing {
    /// This source has no batch at this time, which is not the same as an empty one.
    NoBatch(Arc<str>),
    /// The batch fails.
    Failed(String),
}

/// A node made of a closure.
struct Compute<F>(F);

impl<T, F> Node<T> for Compute<F>
where
    T: ?Sized,
    F: Fn(&mut Planner<'_>) -> Result<Batch<T>, Missing> + Send + Sync,
{
    fn compute(&self, cx: &mut Planner<'_>) -> Result<Batch<T>, Missing> {
        (self.0)(cx)
    }
}

/// Gathers the stages of one plan.
struct Planner<'a> {
    input: &'a Arc<BatchInput>,
    clock: &'a Arc<dyn Clock>,
    settings: Settings,
    stages: Vec<Stage>,
    /// What nodes with stages returned before: a stream that is used twice is shuffled once.
    shared: Vec<(u32, Box<dyn Any>)>,
}

impl Planner<'_> {
    fn shards(&self) -> usize {
        self.input.partitions.max(1)
    }

    /// Adds a stage with a task for each partition, which leaves what `work` makes of it in a slot.
    fn materialize<T: ?Sized + 'static, U: Send + Sync + 'static>(
        &mut self,
        batch: &Batch<T>,
        work: impl Fn(&Partition<T>) -> Vec<U> + Send + Sync + 'static,
    ) -> Slots<U> {
        let (slots, work) = (Slots::new(batch.partitions().len()), Arc::new(work));
        let task = |(slot, partition): (usize, &Partition<T>)| -> Work {
            let (slots, work, partition) = (slots.clone(), Arc::clone(&work), partition.clone());
            Box::new(move |_| {
                slots.put(slot, work(&partition));
                Ok(())
            })
        };
        let tasks = batch.partitions().iter().enumerate().map(task).collect();
        self.stages.push(Stage { tasks });
        slots
    }

    fn shared<T: ?Sized + 'static>(
        &mut self,
        node: u32,
        compute: impl FnOnce(&mut Self) -> Result<Batch<T>, Missing>,
    ) -> Result<Batch<T>, Missing> {
        let known = self.shared.iter().find(|(known, _)| *known == node);
        if let Some(batch) = known.and_then(|(_, batch)| batch.downcast_ref::<Batch<T>>()) {
            return Ok(batch.clone());
        }
        let batch = compute(self)?;
        self.shared.push((node, Box::new(batch.clone())));
        Ok(batch)
    }
}

type Build = Box<dyn Fn(&mut Planner<'_>, Delivery) -> Result<Work, Missing> + Send + Sync>;

/// An output operation: one job of every batch.
pub struct Output {
    name: Arc<str>,
    pipeline: Arc<str>,
    settings: Settings,
    build: Build,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Output {
    /// The job's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is to be done for this batch, of which the first attempt or this one started at `started`. Asked for each
    /// attempt.
    ///
    /// # Errors
    /// If the batch cannot be computed, or a closure of `transform` panicked; the text says why.
    pub fn plan(
        &self,
        input: &Arc<BatchInput>,
        clock: &Arc<dyn Clock>,
        started: Moment,
    ) -> Result<Plan, String> {
        let delivery = Delivery {
            pipeline: Arc::clone(&self.pipeline),
            job: Arc::clone(&self.name),
            input: Arc::clone(input),
            clock: Arc::clone(clock),
            started,
        };
        let mut planner = Planner {
            input,
            clock,
            settings: self.settings,
            stages: Vec::new(),
            shared: Vec::new(),
        };
        let built = catch_unwind(AssertUnwindSafe(|| (self.build)(&mut planner, delivery)));
        match built {
            Ok(Ok(finish)) => Ok(Plan { stages: planner.stages, finish }),
            // A source without a batch, alone: there is nothing to do for it.
            Ok(Err(Missing::NoBatch(_))) => {
                Ok(Plan { stages: Vec::new(), finish: Box::new(|_| Ok(())) })
            }
            Ok(Err(Missing::Failed(text))) => Err(text),
            Err(panic) => Err(format!("panicked: {}", panic_text(panic.as_ref()))),
        }
    }
}
