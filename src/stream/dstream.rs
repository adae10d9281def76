//! `DStream`: a node of the graph with what its operators must know of the streams above it.
//!
//! Handles only: made and combined on the thread that builds the program. Knows no operator.

use std::fmt;
use std::time::Duration;

use super::{Graph, Node, NodePlanner};
use crate::sync::Arc;
use crate::time::Interval;

/// A stream: a sequence of batches of elements. An operator makes a stream of a stream, an output registers a job that runs
/// for each batch; [`print`](DStream::print), [`save`](DStream::save), [`foreach_batch`](DStream::foreach_batch) and
/// [`collect`](DStream::collect) are the outputs. Clones are handles of the same stream. The type has its name from Spark
/// Streaming, and so have the operators; the [first page](crate#operators) has both names of each.
///
/// ```
/// use tidemill::testing::ManualClock;
/// use tidemill::{Config, StreamingContext};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let lines = ctx.queue_stream(vec![Some(vec!["to be", "or not"]), Some(vec!["to be"])], 1);
/// let words = lines.flat_map(|line, out| out.extend(line.split(' ')));
/// let short = words.filter(|word| word.len() == 2).count().collect();
/// ctx.run_batches(2)?;
/// let short: Vec<u64> = short.rows().into_iter().flat_map(|(_, rows)| rows).collect();
/// assert_eq!(short, [3, 2]);
/// # Ok::<(), tidemill::Error>(())
/// ```
///
/// # Elements and partitions
/// Closures take elements by reference, and `T` may be unsized, such as the `str` of a line: nothing is copied before an
/// operator has to keep it. Operators that keep elements need `T: ToOwned`, and give the owned form.
///
/// A batch has its elements in partitions; a task on one worker computes one of them. A partition of a source is a block, or
/// a range of a file. Operators that look at each element alone keep the partitions and the order. Operators by key hash the
/// keys to as many partitions as there are workers, and their rows are in no order that means anything.
///
/// # Threads
/// A stream is built before the start, on any thread: an output that comes later ends the running stream with an error.
/// Closures are called by the workers, at the same time for several partitions, so they are `Fn + Send + Sync`. Only those of
/// [`transform`](DStream::transform) and [`transform_with`](DStream::transform_with) run on the job loop's thread.
///
/// # Closures run again
/// A closure must depend on its arguments alone, for the same elements may come again: when a job is repeated after a
/// failure, when a restart repeats a batch, and where an operator computes its input anew (below). The time of the batch
/// serves as the clock.
///
/// # Failures
/// A closure that panics fails its job in that batch, with the panic's text, the stage and the partition. The job is repeated
/// as [`on_failure`](crate::Config::on_failure) says, and a failed attempt leaves no trace in states and windows. Mistakes in
/// the program are errors of the start ([`Error::Usage`](crate::Error::Usage)), all of them at once: lengths of windows that
/// do not fit or are zero, two states of one name, two streams in one operator that slide by different times or belong to
/// two contexts.
///
/// # Streams with several outputs
/// Several outputs of one stream compute it once: a batch's elements are handed to all of them in one pass, each closure of
/// `map`, `filter` and `flat_map` is called once for each of its elements, and nothing is copied. The pass is made when the
/// first of those jobs begins. Operators on a whole partition or batch are not part of it (`map_partitions`, `glom`,
/// `transform`, `foreach_batch`) and compute their elements again, as do a second attempt of a job and all jobs where
/// [`concurrent_jobs`](crate::Config::concurrent_jobs) is more than one: [`persist`](DStream::persist) keeps the elements for
/// those. The records of a source are not copied; each job that uses them directly finds them by itself.
pub struct DStream<T: ?Sized> {
    pub(super) node: Arc<dyn Node<T>>,
    pub(super) graph: Arc<Graph>,
    pub(super) name: Option<Arc<str>>,
    pub(super) lineage: StreamLineage,
}

/// The origin of a stream.
#[derive(Clone)]
pub(super) struct StreamLineage {
    /// From one batch of the stream to the next.
    pub(super) slide: Interval,
    /// The nodes above, and the stream's own, that may be shared between outputs.
    pub(super) above: Arc<[u32]>,
    /// The sources above, by number.
    pub(super) sources: Arc<[u32]>,
    /// The node whose state the stream shows, so that its name is the state's.
    pub(super) state: Option<u32>,
    /// The reach of the windows above, and of those of them that are below a state.
    pub(super) reach: (Duration, Duration),
    /// True if a state lies above, or is the stream's own.
    pub(super) below_state: bool,
    /// True if the records of the sources above may hold line feeds.
    pub(super) line_feeds: bool,
    /// A queue above.
    pub(super) queue: Option<Arc<str>>,
}

impl StreamLineage {
    /// The lineage of a stream below this one.
    pub(super) fn below(&self) -> StreamLineage {
        StreamLineage { state: None, ..self.clone() }
    }

    /// The lineage of a new node below this one.
    pub(super) fn node(&self, node: u32) -> StreamLineage {
        let above = self.above.iter().copied().chain([node]).collect();
        StreamLineage { above, ..self.below() }
    }

    /// The lineage of a state below this one.
    pub(super) fn below_state(&self) -> StreamLineage {
        StreamLineage { below_state: true, ..self.below() }
    }
}

impl<T: ?Sized> DStream<T> {
    /// Records that `operator` was given streams of two contexts: neither of them can start.
    pub(super) fn mixes_contexts<U: ?Sized>(&self, operator: &str, other: &DStream<U>) {
        let shown = |name: Option<&Arc<str>>, unnamed: &str| {
            name.map_or_else(|| unnamed.to_owned(), |name| format!("`{name}`"))
        };
        let left = shown(self.name.as_ref(), "one stream");
        let right = shown(other.name.as_ref(), "the other");
        let contexts = [self.graph.pipeline(), other.graph.pipeline()];
        let [context, second] = contexts.map(|pipeline| format!("`{pipeline}`"));
        let second = if context == second { format!("a second {second}") } else { second };
        let text = format!(
            "{operator}: {left} belongs to the context {context}, {right} to {second}: make both streams from one \
             `StreamingContext`"
        );
        other.graph.problem(text.clone());
        self.graph.problem(text);
    }
}

impl<T: ?Sized> Clone for DStream<T> {
    fn clone(&self) -> Self {
        DStream {
            node: Arc::clone(&self.node),
            graph: Arc::clone(&self.graph),
            name: self.name.clone(),
            lineage: self.lineage.clone(),
        }
    }
}

/// So that a function with a parameter `impl Into<DStream<T>>` takes `&stream`.
impl<T: ?Sized> From<&DStream<T>> for DStream<T> {
    fn from(stream: &DStream<T>) -> Self {
        stream.clone()
    }
}

impl<T: ?Sized> fmt::Debug for DStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DStream").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Graph {
    /// A stream whose node keeps something from batch to batch.
    pub(super) fn keep<T: ?Sized + 'static>(&self, node: u32, stream: DStream<T>) -> DStream<T> {
        let compute = Arc::clone(&stream.node);
        let keeper: NodePlanner = Arc::new(move |cx| compute.compute(cx).map(drop));
        self.registered.lock().keepers.push((node, keeper));
        stream
    }

    /// A window of this length below `lineage`; returns how far back both look.
    pub(super) fn reach(&self, lineage: &StreamLineage, length: Interval) -> (Duration, Duration) {
        let add = |reach: Duration| reach.saturating_add(length.as_duration());
        let below = if lineage.below_state { add(lineage.reach.1) } else { lineage.reach.1 };
        let reach = (add(lineage.reach.0), below);
        let mut registered = self.registered.lock();
        let known = registered.reach;
        registered.reach = (known.0.max(reach.0), known.1.max(reach.1));
        reach
    }

    pub(super) fn source<T: ?Sized>(
        self: &Arc<Self>,
        number: Option<u32>,
        node: impl Node<T> + 'static,
    ) -> DStream<T> {
        let lineage = StreamLineage {
            slide: self.settings.batch_interval,
            above: Arc::default(),
            sources: number.into_iter().collect(),
            state: None,
            reach: (Duration::ZERO, Duration::ZERO),
            below_state: false,
            line_feeds: true,
            queue: None,
        };
        self.stream(lineage, node)
    }

    pub(super) fn stream<T: ?Sized>(
        self: &Arc<Self>,
        lineage: StreamLineage,
        node: impl Node<T> + 'static,
    ) -> DStream<T> {
        DStream { node: Arc::new(node), graph: Arc::clone(self), name: None, lineage }
    }
}
