//! `DStream`: a node of the graph with what its operators must know of the streams above it.
//!
//! Handles only: made and combined on the thread that builds the program. Knows no operator.

use std::fmt;
use std::time::Duration;

use super::{Graph, Node, NodePlanner};
use crate::sync::Arc;
use crate::time::Interval;

/// A stream: what its operators make of each batch. Clones are handles of the same stream.
///
/// Several outputs of one stream compute it once: a batch's elements are handed to all of them in one pass, each closure of
/// `map`, `filter` and `flat_map` is called once for each of its elements, and nothing is copied. The pass is made when the
/// first of those jobs begins. What is done with a whole partition or batch is not part of it (`map_partitions`, `glom`,
/// `transform`, `foreach_batch`) and computes its elements again, as do a second attempt of a job and all jobs where
/// `concurrent_jobs` is more than one: [`persist`](DStream::persist) keeps the elements for those. The records of a source
/// are not copied; each job that uses them directly finds them by itself.
///
/// ```
/// # use tidemill::{testing::ManualClock, Config, StreamingContext};
/// # let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
/// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2, 1])], 1);
/// let results = [
///     numbers.map(|n| n * 10),
///     numbers.filter(|n| *n > 1),
///     numbers.flat_map(|n, out| (0..*n).for_each(|i| out.push(&i))),
///     numbers.map_partitions(|part, out| part.for_each(|n| out.push(n))),
///     numbers.glom().map(Vec::len).map(|n| *n as i32),
///     numbers.union(&numbers).count().map(|n| *n as i32),
///     numbers.repartition(2).reduce(|a, b| a + b),
///     numbers.transform(|_time, batch| batch.filter(|n| *n == 3)),
///     numbers.transform_with(&numbers, |_time, left, right| left.union(&right).filter(|n| *n == 2)),
///     numbers.count_by_value().filter(|(_, count)| *count > 1).map(|(n, _)| *n),
/// ]
/// .map(|stream| stream.collect());
/// let pairs = numbers.map(|n| (n % 2, *n));
/// let names = ctx.queue_stream(vec![Some(vec![(0, "even"), (1, "odd")])], 1);
/// let odd = |pairs: tidemill::DStream<(i32, i32)>| pairs.filter(|(odd, _)| *odd == 1).map(|row| row.1).collect();
/// let keyed = [
///     odd(pairs.reduce_by_key(|a, b| a + b)),
///     odd(pairs.map_values(|n| n + 1)),
///     odd(pairs.flat_map_values(|n, out| out.extend(&[*n, 0]))),
///     odd(pairs.group_by_key().map_values(|all| all[0])),
///     odd(pairs.combine_by_key(|n| *n, |sum, n| *sum -= n, |sum, part| *sum += part)),
///     odd(pairs.join(&names).map_values(|(n, name)| n + name.len() as i32)),
///     odd(pairs.cogroup(&names).map_values(|(left, right)| (left.len() * 10 + right.len()) as i32)),
///     odd(pairs.left_outer_join(&names).map_values(|(n, name)| n + i32::from(name.is_some()))),
///     odd(pairs.right_outer_join(&names).map_values(|(n, _)| n.unwrap_or(0))),
///     odd(pairs.full_outer_join(&names).map_values(|(n, _)| n.unwrap_or(0))),
/// ];
/// ctx.run_batches(1)?;
/// let rows = results.map(|collected| collected.rows()[0].1.clone());
/// assert_eq!(rows[..5], [vec![30, 10, 20, 10], vec![3, 2], vec![0, 1, 2, 0, 0, 1, 0], vec![3, 1, 2, 1], vec![4]]);
/// assert_eq!(rows[5..], [vec![8], vec![7], vec![3], vec![2, 2], vec![1]]);
/// let rows = keyed.map(|collected| collected.rows()[0].1.clone());
/// assert_eq!(rows[..5], [vec![5], vec![4, 2, 2], vec![3, 0, 1, 0, 1, 0], vec![3], vec![1]]);
/// assert_eq!(rows[5..], [vec![6, 4, 4], vec![31], vec![4, 2, 2], vec![3, 1, 1], vec![3, 1, 1]]);
/// # Ok::<(), tidemill::Error>(())
/// ```
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
