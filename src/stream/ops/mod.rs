//! The operators of any stream. Narrow ones wrap partitions; wide ones add stages to the plan.

pub(crate) mod pairs;
pub(crate) mod value_list;

use std::hash::Hash;

use super::{Compute, DStream, Missing, Node, Planner, StreamLineage};
use crate::blocks::manager::StoredBlock;
use crate::exec::shuffle::{Hashed, ShardLease, Shuffle, ShuffleTables, Table, hash_of, shard_of};
use crate::exec::{Batch, Fold, Out, Partition};
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::time::Time;

impl<T: ?Sized + 'static> DStream<T> {
    /// Names the stream. The job of its output has this name in messages, figures and commit keys, and a state is found by it
    /// after a restart. A job without a name is called `kind#n`, by its place among the outputs; names of states must differ,
    /// or the start fails.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let named = numbers.count().named("how many");
    /// named.foreach_batch(|_, _| Err(tidemill::Error::Failed("no".to_owned())));
    /// let err = ctx.run_batches(1).expect_err("the job fails");
    /// assert!(err.to_string().contains("job `how many`"));
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    #[must_use]
    pub fn named(&self, name: &str) -> DStream<T> {
        let name = Arc::from(name);
        if let Some(node) = self.lineage.state {
            self.graph.rename_state(node, &name);
        }
        DStream { name: Some(name), ..self.clone() }
    }

    /// Maps each element to one other, by `f`. For results that borrow from the element see [`flat_map`](DStream::flat_map).
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let found = numbers.map(|n| n * 10).collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [30, 10, 20]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn map<U: 'static>(&self, f: impl Fn(&T) -> U + Send + Sync + 'static) -> DStream<U> {
        self.each(move |element, out| out.emit(f(element)))
    }

    /// Keeps the elements for which `keep` holds. Copies nothing.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let found = numbers.filter(|n| *n > 1).collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [3, 2]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> DStream<T> {
        self.each(move |element, out| {
            if keep(element) {
                out.push(element);
            }
        })
    }

    /// Maps each element to any number of others: those that `f` pushes into its [`Out`]. They may borrow from the element.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let lines = ctx.queue_stream(vec![Some(vec!["to be", "or"])], 1);
    /// let words = lines.flat_map(|line, out| out.extend(line.split(' '))).collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(words.rows()[0].1, ["to", "be", "or"]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn flat_map<U: ?Sized + 'static>(
        &self,
        f: impl Fn(&T, &mut Out<'_, U>) + Send + Sync + 'static,
    ) -> DStream<U> {
        self.each(f)
    }

    /// Maps each partition as a whole: `f` goes through its elements, as often as it likes, and pushes into its [`Out`].
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let sums = numbers.map_partitions(|partition, out| {
    ///     let mut sum = 0;
    ///     partition.for_each(|n| sum += n);
    ///     out.emit(sum);
    /// });
    /// let sums = sums.collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(sums.rows()[0].1, [6]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn map_partitions<U: ?Sized + 'static>(
        &self,
        f: impl Fn(&Partition<T>, &mut Out<'_, U>) + Send + Sync + 'static,
    ) -> DStream<U> {
        let (node, f) = (Arc::clone(&self.node), Arc::new(f));
        self.derive(move |cx| {
            let f = Arc::clone(&f);
            Ok(node.compute(cx)?.map_partitions(move |partition, out| f(partition, out)))
        })
    }

    /// Gathers each partition in one vector. Copies every element.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let found = numbers.glom().collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [vec![3, 1, 2]]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn glom(&self) -> DStream<Vec<T::Owned>>
    where
        T: ToOwned,
    {
        self.map_partitions(|partition, out| {
            let mut all = Vec::new();
            partition.for_each(|element| all.push(element.to_owned()));
            out.emit(all);
        })
    }

    /// Puts the elements of `other` behind those of this stream. The batch fails if one of the sources has no batch at all,
    /// as a `None` of a [`queue_stream`](crate::StreamingContext::queue_stream); the start fails if the streams slide
    /// differently.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let found = numbers.union(&numbers.map(|n| -n)).collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [3, 1, 2, -3, -1, -2]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn union(&self, other: &DStream<T>) -> DStream<T> {
        let lineage = self.lineage_with("union", other);
        let (left, right) = (Arc::clone(&self.node), Arc::clone(&other.node));
        self.graph.stream(lineage, Union { left, right })
    }

    /// Deals the elements out to `partitions` partitions, at least one. Copies every element.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let found = numbers.repartition(2).glom().collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [vec![3, 2], vec![1]]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn repartition(&self, partitions: usize) -> DStream<T>
    where
        T: ToOwned,
        T::Owned: Send + Sync + 'static,
    {
        let (node, partitions) = (Arc::clone(&self.node), partitions.max(1));
        self.wide(move |cx| {
            let batch = node.compute(cx)?;
            let begin = move || Dealer {
                hands: Vec::from_iter((0..partitions).map(|_| Vec::new())),
                next: 0,
            };
            let deal = |dealer: &mut Dealer<T::Owned>, element: &T| dealer.deal(element.to_owned());
            let dealt = cx.materialize("deal", &batch, begin, deal, |dealer| dealer.hands);
            let part = |number: usize| {
                let dealt = dealt.clone();
                Partition::new(move |each: &mut dyn FnMut(&T)| {
                    for slot in 0..dealt.len() {
                        let hands = dealt.at(slot);
                        hands[number].iter().for_each(|element: &T::Owned| {
                            each(std::borrow::Borrow::borrow(element))
                        });
                    }
                })
            };
            Ok((0..partitions).map(part).collect())
        })
    }

    /// Counts the elements: one row, 0 for an empty batch. The records of a source are not looked at: their number is known.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let found = numbers.count().collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [3]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn count(&self) -> DStream<u64> {
        let node = Arc::clone(&self.node);
        self.wide(move |cx| {
            let total = Arc::new(AtomicU64::new(0));
            if let Some(blocks) = node.blocks(cx) {
                total.store(blocks.iter().map(|block| block.info.records).sum(), Ordering::Relaxed);
            } else {
                let (batch, sum) = (node.compute(cx)?, Arc::clone(&total));
                let add = move |count| {
                    sum.fetch_add(count, Ordering::Relaxed);
                    Vec::<()>::new()
                };
                cx.materialize("count", &batch, || 0, |count, _| *count += 1, add);
            }
            let one = Partition::new(move |each: &mut dyn FnMut(&u64)| {
                each(&total.load(Ordering::Relaxed))
            });
            Ok(Batch::from_iter([one]))
        })
    }

    /// Counts the occurrences of each element. Elements are looked up in place and copied when first seen, so that memory
    /// follows the different ones.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let found = numbers.map(|n| n % 2).count_by_value().collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [(1, 2), (0, 1)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn count_by_value(&self) -> DStream<(T::Owned, u64)>
    where
        T: ToOwned + Hash + Eq,
        T::Owned: Eq + Send + Sync + 'static,
    {
        let (node, memory) = (Arc::clone(&self.node), Shuffle::<T::Owned, Counted>::default());
        self.wide(move |cx| {
            let (batch, seed) = (node.compute(cx)?, cx.settings.seed);
            let shape = cx.shape_by_worker(batch.partitions().len());
            let tables = memory.begin(&cx.scope.account(), shape, Counted::merge);
            let inputs = cx.folds(&batch, 0, counter(&tables, seed));
            Ok(tables.plan(&mut cx.stages, inputs, in_order))
        })
    }

    /// Joins all elements by `f`, which must be associative; nothing for an empty batch. Partitions are joined in order.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let found = numbers.reduce(|a, b| a + b).collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [6]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn reduce(&self, f: impl Fn(&T, &T) -> T + Send + Sync + 'static) -> DStream<T>
    where
        T: Clone + Send + Sync,
    {
        let (node, f) = (Arc::clone(&self.node), Arc::new(f));
        self.wide(move |cx| {
            let (batch, part_f, f) = (node.compute(cx)?, Arc::clone(&f), Arc::clone(&f));
            let add = move |sum: &mut Option<T>, element: &T| {
                *sum = Some(join(&*part_f, sum.as_ref(), element));
            };
            let parts = cx.materialize("fold", &batch, || None, add, Vec::from_iter);
            let all = Partition::new(move |each: &mut dyn FnMut(&T)| {
                let mut sum: Option<T> = None;
                for slot in 0..parts.len() {
                    parts
                        .at(slot)
                        .iter()
                        .for_each(|part| sum = Some(join(&*f, sum.as_ref(), part)));
                }
                sum.iter().for_each(each);
            });
            Ok(Batch::from_iter([all]))
        })
    }

    /// Maps each batch as a whole, with its time. `f` only describes the new [`Batch`]: it runs on the job loop's thread each
    /// time a job of the batch is planned, and must not compute there. The batch fails if the source has none.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let found = numbers.transform(|time, batch| batch.map(move |n| (time.as_millis(), *n))).collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [(1_000, 3), (1_000, 1), (1_000, 2)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn transform<U: ?Sized + 'static>(
        &self,
        f: impl Fn(Time, Batch<T>) -> Batch<U> + Send + Sync + 'static,
    ) -> DStream<U> {
        let node = Arc::clone(&self.node);
        self.derive(move |cx| {
            let batch = present("transform", cx, &*node)?;
            Ok(f(cx.input.time, batch.untapped()).reading_anything())
        })
    }

    /// Maps the batches of two streams as a whole; otherwise as [`transform`](DStream::transform).
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let both = numbers.transform_with(&numbers, |_time, left, right| left.union(&right).filter(|n| *n == 2));
    /// let found = both.collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [2, 2]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn transform_with<U: ?Sized + 'static, V: ?Sized + 'static>(
        &self,
        other: &DStream<U>,
        f: impl Fn(Time, Batch<T>, Batch<U>) -> Batch<V> + Send + Sync + 'static,
    ) -> DStream<V> {
        let lineage = self.lineage_with("transform_with", other);
        let (left, right) = (Arc::clone(&self.node), Arc::clone(&other.node));
        let compute = move |cx: &mut Planner<'_>| {
            let (left, right) = both("transform", cx, &*left, &*right)?;
            Ok(f(cx.input.time, left.untapped(), right.untapped()).reading_anything())
        };
        self.graph.stream(lineage, Compute(compute))
    }

    /// The lineage of a stream below two others. They belong to one context, because a batch holds the blocks of one: its
    /// number of a source would mean another source in a second one. And they slide by the same time. Else the start refuses.
    pub(super) fn lineage_with<U: ?Sized>(
        &self,
        operator: &str,
        other: &DStream<U>,
    ) -> StreamLineage {
        if !Arc::ptr_eq(&self.graph, &other.graph) {
            self.mixes_contexts(operator, other);
            return self.lineage.below();
        }
        let (left, right) = (&self.lineage, &other.lineage);
        if left.slide != right.slide {
            let (left, right) = (left.slide, right.slide);
            self.graph
                .problem(format!("{operator}: one stream slides by {left}, the other by {right}"));
        }
        let both = |left: &[u32], right: &[u32]| {
            let mut both = [left, right].concat();
            both.sort_unstable();
            both.dedup();
            Arc::<[u32]>::from(both)
        };
        let above = both(&left.above, &right.above);
        let sources = both(&left.sources, &right.sources);
        let reach = (left.reach.0.max(right.reach.0), left.reach.1.max(right.reach.1));
        StreamLineage {
            slide: left.slide,
            above,
            sources,
            state: None,
            reach,
            below_state: left.below_state || right.below_state,
            line_feeds: left.line_feeds || right.line_feeds,
            queue: left.queue.clone().or_else(|| right.queue.clone()),
        }
    }

    /// A stream computed by a closure.
    pub(super) fn derive<U: ?Sized + 'static>(
        &self,
        compute: impl Fn(&mut Planner<'_>) -> Result<Batch<U>, Missing> + Send + Sync + 'static,
    ) -> DStream<U> {
        self.graph.stream(self.lineage.below(), Compute(compute))
    }

    /// A stream whose computation adds stages: it is planned once, also when several streams of a job use it, and
    /// computed once if several jobs do.
    pub(super) fn wide<U: ?Sized + 'static>(
        &self,
        compute: impl Fn(&mut Planner<'_>) -> Result<Batch<U>, Missing> + Send + Sync + 'static,
    ) -> DStream<U> {
        self.wide_below(&self.lineage, compute)
    }

    /// [`wide`](DStream::wide), below several streams.
    pub(super) fn wide_below<U: ?Sized + 'static>(
        &self,
        lineage: &StreamLineage,
        compute: impl Fn(&mut Planner<'_>) -> Result<Batch<U>, Missing> + Send + Sync + 'static,
    ) -> DStream<U> {
        let id = self.graph.next_node();
        let compute = Compute(move |cx: &mut Planner<'_>| cx.memoize(id, &compute));
        self.graph.stream(lineage.node(id), compute)
    }

    /// Maps each element with `f`: a stream that is computed in one pass for all jobs that use it.
    fn each<U: ?Sized + 'static>(
        &self,
        f: impl Fn(&T, &mut Out<'_, U>) + Send + Sync + 'static,
    ) -> DStream<U> {
        let (id, node, f) = (self.graph.next_node(), Arc::clone(&self.node), Arc::new(f));
        let compute = move |cx: &mut Planner<'_>| {
            cx.fuse(id, |cx| {
                let f = Arc::clone(&f);
                Ok(node.compute(cx)?.flat_map(move |element, out| f(element, out)))
            })
        };
        self.graph.wire(|wiring| wiring.add_fork(id));
        self.graph.stream(self.lineage.node(id), Compute(compute))
    }
}

/// The node's batch, for an operator that cannot do without.
pub(super) fn present<T: ?Sized>(
    operator: &str,
    cx: &mut Planner<'_>,
    node: &dyn Node<T>,
) -> Result<Batch<T>, Missing> {
    let time = cx.input.time;
    node.compute(cx).map_err(|missing| match missing {
        Missing::NoBatch(source) => {
            Missing::Failed(format!("{operator}: source `{source}` has no batch at {time}"))
        }
        other => other,
    })
}

/// The batches of both nodes. Both are planned before one of them may be missed: windows take in every batch.
pub(super) fn both<T: ?Sized, U: ?Sized>(
    operator: &str,
    cx: &mut Planner<'_>,
    left: &dyn Node<T>,
    right: &dyn Node<U>,
) -> Result<(Batch<T>, Batch<U>), Missing> {
    match (present(operator, cx, left), present(operator, cx, right)) {
        (Ok(left), Ok(right)) => Ok((left, right)),
        (Err(Missing::NotDue), Err(missing)) | (Err(missing), _) | (_, Err(missing)) => {
            Err(missing)
        }
    }
}

struct Union<T: ?Sized> {
    left: Arc<dyn Node<T>>,
    right: Arc<dyn Node<T>>,
}

impl<T: ?Sized + 'static> Node<T> for Union<T> {
    fn compute(&self, cx: &mut Planner<'_>) -> Result<Batch<T>, Missing> {
        let (left, right) = both("union", cx, &*self.left, &*self.right)?;
        Ok(left.union(&right))
    }

    fn blocks(&self, cx: &Planner<'_>) -> Option<Vec<Arc<StoredBlock>>> {
        let mut blocks = self.left.blocks(cx)?;
        blocks.extend(self.right.blocks(cx)?);
        Some(blocks)
    }
}

/// Deals elements out to new partitions, one by one.
struct Dealer<E> {
    hands: Vec<Vec<E>>,
    next: usize,
}

impl<E> Dealer<E> {
    fn deal(&mut self, element: E) {
        self.hands[self.next].push(element);
        self.next = (self.next + 1) % self.hands.len();
    }
}

fn join<T: Clone>(f: &impl Fn(&T, &T) -> T, sum: Option<&T>, element: &T) -> T {
    sum.map_or_else(|| element.clone(), |sum| f(sum, element))
}

/// A count, and where the element was first seen: the partition, and the running number in the shard. Tasks start in
/// partition order and one worker runs them one by one, so the first insertion into a worker's table is its first sight.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) count: u64,
    first: (u32, u32),
}

impl Counted {
    pub(super) fn merge(&mut self, other: Counted) {
        self.count += other.count;
        self.first = self.first.min(other.first);
    }
}

/// Counts the elements of a partition in the shards that it is lent.
pub(super) fn counter<T, M>(
    tables: &ShuffleTables<T::Owned, Counted, M>,
    seed: u64,
) -> impl Fn(usize, usize) -> CounterFold<T, M> + Send + Sync + 'static + use<T, M>
where
    T: ?Sized + ToOwned + Hash + Eq + 'static,
    T::Owned: Eq + Send + 'static,
    M: Fn(&mut Counted, Counted) + Send + Sync + 'static,
{
    let tables = tables.clone();
    move |partition, worker| {
        let lease = tables.lend(partition, worker);
        let number = u32::try_from(partition).expect("a batch has fewer than 2^32 partitions");
        let known = lease.shards.iter().map(Table::len).collect();
        CounterFold { lease, known, number, seed }
    }
}

pub(super) struct CounterFold<T: ?Sized + ToOwned, M> {
    lease: ShardLease<T::Owned, Counted, M>,
    /// The number of keys that each shard had before.
    known: Vec<usize>,
    number: u32,
    seed: u64,
}

impl<T, M> Fold<T> for CounterFold<T, M>
where
    T: ?Sized + ToOwned + Hash + Eq + 'static,
    T::Owned: Eq,
    M: Fn(&mut Counted, Counted),
{
    #[inline]
    fn push(&mut self, element: &T) {
        let hash = hash_of(self.seed, element);
        let shard = shard_of(hash, self.known.len());
        let (table, number) = (&mut self.lease.shards[shard], self.number);
        let seen = table.len() - self.known[shard];
        let create = || {
            let seen = u32::try_from(seen).expect("a table holds fewer than 2^32 keys");
            Counted { count: 1, first: (number, seen) }
        };
        let found = Hashed { hash, key: element };
        table.upsert(found, T::to_owned, create, |counted| counted.count += 1);
    }

    fn end(self: Box<Self>) -> Result<(), String> {
        self.lease.give_back();
        Ok(())
    }
}

/// The rows in the order in which their keys were first seen. The keys of a partition are numbered without gaps, so each
/// has its place, and nothing is compared or sorted.
fn in_order<K>(table: &mut Table<K, Counted>) -> Vec<(K, u64)> {
    let mut starts: Vec<usize> = Vec::new();
    for (partition, seen) in table.iter().map(|entry| entry.value.first) {
        let (partition, seen) = (partition as usize, seen as usize);
        if starts.len() <= partition {
            starts.resize(partition + 1, 0);
        }
        starts[partition] = starts[partition].max(seen + 1);
    }
    let mut total = 0;
    for start in &mut starts {
        total += std::mem::replace(start, total);
    }
    let mut rows: Vec<Option<(K, u64)>> = Vec::new();
    rows.resize_with(total, || None);
    for entry in table.drain() {
        let (partition, seen) = entry.value.first;
        rows[starts[partition as usize] + seen as usize] = Some((entry.key, entry.value.count));
    }
    rows.into_iter().flatten().collect()
}
