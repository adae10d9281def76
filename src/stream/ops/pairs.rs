//! The operators of pairs: by key, within one batch. Keys meet by hash partition; partitions are merged in order.

use std::hash::Hash;

use super::both;
use crate::exec::shuffle::{Hashed, ShardLease, Shuffle, ShuffleTables, Table, hash_of};
use crate::exec::{Fold, Out};
use crate::stream::DStream;
use crate::sync::Arc;

impl<K, V> DStream<(K, V)>
where
    K: Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Maps the value of each pair by `f` and keeps its key.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![("a", 1), ("b", 2), ("a", 3)])], 1);
    /// let found = pairs.map_values(|n| n * 10).collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [("a", 10), ("b", 20), ("a", 30)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn map_values<U: 'static>(
        &self,
        f: impl Fn(&V) -> U + Send + Sync + 'static,
    ) -> DStream<(K, U)> {
        self.map(move |(key, value)| (key.clone(), f(value)))
    }

    /// Maps the value of each pair to any number of others, which `f` pushes into its [`Out`], each with the key.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![("a", 1), ("b", 2), ("a", 3)])], 1);
    /// let found = pairs.flat_map_values(|n, out| out.emit_all(1..*n)).collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(found.rows()[0].1, [("b", 1), ("a", 1), ("a", 2)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn flat_map_values<U: Clone + 'static>(
        &self,
        f: impl Fn(&V, &mut Out<'_, U>) + Send + Sync + 'static,
    ) -> DStream<(K, U)> {
        self.flat_map(move |(key, value), out| {
            let mut each = |part: &U| out.emit((key.clone(), part.clone()));
            f(value, &mut Out::new(&mut each));
        })
    }

    /// Aggregates the values of each key: `create` makes the aggregate of a first value, `add` adds a further one and `merge`
    /// joins two aggregates, in the order of their values. Aggregates of two partitions are merged, and those of one where it
    /// has very many keys that hardly come twice. Memory follows the different keys.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![("a", 1), ("b", 2), ("a", 3)])], 1);
    /// // Sum and number of the values, for a mean.
    /// let add = |mean: &mut (i32, u32), n: &i32| *mean = (mean.0 + n, mean.1 + 1);
    /// let merge = |mean: &mut (i32, u32), other: (i32, u32)| *mean = (mean.0 + other.0, mean.1 + other.1);
    /// let found = pairs.combine_by_key(|n| (*n, 1), add, merge).collect();
    /// ctx.run_batches(1)?;
    /// let mut rows = found.rows().remove(0).1;
    /// rows.sort();
    /// assert_eq!(rows, [("a", (4, 2)), ("b", (2, 1))]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn combine_by_key<C: Send + Sync + 'static>(
        &self,
        create: impl Fn(&V) -> C + Send + Sync + 'static,
        add: impl Fn(&mut C, &V) + Send + Sync + 'static,
        merge: impl Fn(&mut C, C) + Send + Sync + 'static,
    ) -> DStream<(K, C)>
    where
        K: Hash + Eq,
    {
        let (node, memory) = (Arc::clone(&self.node), Shuffle::<K, C>::default());
        let (aggregate, merge) = (Arc::new((create, add)), Arc::new(merge));
        self.wide(move |cx| {
            let batch = node.compute(cx)?;
            let (shape, merge) = (cx.shape(batch.partitions().len()), Arc::clone(&merge));
            let join = move |left: &mut C, right| merge(left, right);
            let tables = memory.begin(&cx.scope.account(), shape, join);
            let inputs = cx.folds(&batch, 0, by_key(&tables, cx.settings.seed, &aggregate));
            Ok(tables.plan(&mut cx.stages, inputs, drained))
        })
    }

    /// Joins the values of each key by `f`, which must be associative.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![("a", 1), ("b", 2), ("a", 3)])], 1);
    /// let found = pairs.reduce_by_key(|a, b| a + b).collect();
    /// ctx.run_batches(1)?;
    /// let mut rows = found.rows().remove(0).1;
    /// rows.sort();
    /// assert_eq!(rows, [("a", 4), ("b", 2)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn reduce_by_key(&self, f: impl Fn(&V, &V) -> V + Send + Sync + 'static) -> DStream<(K, V)>
    where
        K: Hash + Eq,
    {
        let f = Arc::new(f);
        let g = Arc::clone(&f);
        self.combine_by_key(
            V::clone,
            move |sum, value| *sum = f(sum, value),
            move |sum, part| *sum = g(sum, &part),
        )
    }

    /// Gathers all values of each key, in order. Copies every value: [`reduce_by_key`](DStream::reduce_by_key) keeps one for
    /// each key.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![("a", 1), ("b", 2), ("a", 3)])], 1);
    /// let found = pairs.group_by_key().collect();
    /// ctx.run_batches(1)?;
    /// let mut rows = found.rows().remove(0).1;
    /// rows.sort();
    /// assert_eq!(rows, [("a", vec![1, 3]), ("b", vec![2])]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn group_by_key(&self) -> DStream<(K, Vec<V>)>
    where
        K: Hash + Eq,
    {
        self.combine_by_key(
            |value| vec![value.clone()],
            |all, value| all.push(value.clone()),
            Vec::extend,
        )
    }

    /// Gathers for each key of either stream all its values in both. It copies every value, as do the joins, which are made
    /// of it. The batch fails if one of the sources has none; the start fails if the streams slide differently.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![("a", 1), ("b", 2), ("a", 3)])], 1);
    /// let names = ctx.queue_stream(vec![Some(vec![("a", "x"), ("c", "y")])], 1);
    /// let found = pairs.cogroup(&names).collect();
    /// ctx.run_batches(1)?;
    /// let mut rows = found.rows().remove(0).1;
    /// rows.sort();
    /// assert_eq!(rows, [("a", (vec![1, 3], vec!["x"])), ("b", (vec![2], vec![])), ("c", (vec![], vec!["y"]))]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    #[expect(
        clippy::type_complexity,
        reason = "the shape of the pairs is what the reader wants to see"
    )]
    pub fn cogroup<W>(&self, other: &DStream<(K, W)>) -> DStream<(K, (Vec<V>, Vec<W>))>
    where
        K: Hash + Eq,
        W: Clone + Send + Sync + 'static,
    {
        self.cogroup_as("cogroup", other)
    }

    /// [`cogroup`](DStream::cogroup) for another operator, whose name is in its errors.
    #[expect(clippy::type_complexity, reason = "the same as of `cogroup`")]
    fn cogroup_as<W>(
        &self,
        operator: &str,
        other: &DStream<(K, W)>,
    ) -> DStream<(K, (Vec<V>, Vec<W>))>
    where
        K: Hash + Eq,
        W: Clone + Send + Sync + 'static,
    {
        let lineage = self.lineage_with(operator, other);
        let (left, right) = (Arc::clone(&self.node), Arc::clone(&other.node));
        let memory = Shuffle::<K, (Vec<V>, Vec<W>)>::default();
        let of_left = Arc::new((
            |value: &V| (vec![value.clone()], Vec::new()),
            |both: &mut (Vec<V>, Vec<W>), value: &V| both.0.push(value.clone()),
        ));
        let of_right = Arc::new((
            |value: &W| (Vec::new(), vec![value.clone()]),
            |both: &mut (Vec<V>, Vec<W>), value: &W| both.1.push(value.clone()),
        ));
        self.wide_below(&lineage, move |cx| {
            let (left, right) = both("join", cx, &*left, &*right)?;
            let (first, seed) = (left.partitions().len(), cx.settings.seed);
            let shape = cx.shape(first + right.partitions().len());
            let tables =
                memory.begin(&cx.scope.account(), shape, |both: &mut (Vec<V>, Vec<W>), more| {
                    both.0.extend(more.0);
                    both.1.extend(more.1);
                });
            let mut inputs = cx.folds(&left, 0, by_key(&tables, seed, &of_left));
            inputs.extend(cx.folds(&right, first, by_key(&tables, seed, &of_right)));
            Ok(tables.plan(&mut cx.stages, inputs, drained))
        })
    }

    /// Pairs each value of a key with each value of the same key in the other stream; fails as [`cogroup`](DStream::cogroup)
    /// does.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![("a", 1), ("b", 2), ("a", 3)])], 1);
    /// let names = ctx.queue_stream(vec![Some(vec![("a", "x"), ("c", "y")])], 1);
    /// let found = pairs.join(&names).collect();
    /// ctx.run_batches(1)?;
    /// let mut rows = found.rows().remove(0).1;
    /// rows.sort();
    /// assert_eq!(rows, [("a", (1, "x")), ("a", (3, "x"))]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn join<W>(&self, other: &DStream<(K, W)>) -> DStream<(K, (V, W))>
    where
        K: Hash + Eq,
        W: Clone + Send + Sync + 'static,
    {
        self.cogroup_as("join", other).flat_map(|(key, (left, right)), out| {
            pairs(left, right, |one, two| out.emit((key.clone(), (one.clone(), two.clone()))));
        })
    }

    /// Joins like [`join`](DStream::join), and keeps values without a partner on the right.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![("a", 1), ("b", 2), ("a", 3)])], 1);
    /// let names = ctx.queue_stream(vec![Some(vec![("a", "x"), ("c", "y")])], 1);
    /// let found = pairs.left_outer_join(&names).collect();
    /// ctx.run_batches(1)?;
    /// let mut rows = found.rows().remove(0).1;
    /// rows.sort();
    /// assert_eq!(rows, [("a", (1, Some("x"))), ("a", (3, Some("x"))), ("b", (2, None))]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn left_outer_join<W>(&self, other: &DStream<(K, W)>) -> DStream<(K, (V, Option<W>))>
    where
        K: Hash + Eq,
        W: Clone + Send + Sync + 'static,
    {
        self.cogroup_as("left_outer_join", other).flat_map(|(key, (left, right)), out| {
            pairs(left, &or_none(right), |one, two| {
                out.emit((key.clone(), (one.clone(), two.clone())))
            });
        })
    }

    /// Joins like [`join`](DStream::join), and keeps values without a partner on the left.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![("a", 1), ("b", 2), ("a", 3)])], 1);
    /// let names = ctx.queue_stream(vec![Some(vec![("a", "x"), ("c", "y")])], 1);
    /// let found = pairs.right_outer_join(&names).collect();
    /// ctx.run_batches(1)?;
    /// let mut rows = found.rows().remove(0).1;
    /// rows.sort();
    /// assert_eq!(rows, [("a", (Some(1), "x")), ("a", (Some(3), "x")), ("c", (None, "y"))]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn right_outer_join<W>(&self, other: &DStream<(K, W)>) -> DStream<(K, (Option<V>, W))>
    where
        K: Hash + Eq,
        W: Clone + Send + Sync + 'static,
    {
        self.cogroup_as("right_outer_join", other).flat_map(|(key, (left, right)), out| {
            pairs(&or_none(left), right, |one, two| {
                out.emit((key.clone(), (one.clone(), two.clone())))
            });
        })
    }

    /// Joins like [`join`](DStream::join), and keeps values without a partner on either side.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![("a", 1), ("b", 2), ("a", 3)])], 1);
    /// let names = ctx.queue_stream(vec![Some(vec![("a", "x"), ("c", "y")])], 1);
    /// let found = pairs.full_outer_join(&names).collect();
    /// ctx.run_batches(1)?;
    /// let mut rows = found.rows().remove(0).1;
    /// rows.sort();
    /// assert_eq!(rows, [
    ///     ("a", (Some(1), Some("x"))),
    ///     ("a", (Some(3), Some("x"))),
    ///     ("b", (Some(2), None)),
    ///     ("c", (None, Some("y"))),
    /// ]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    #[expect(
        clippy::type_complexity,
        reason = "the shape of the pairs is what the reader wants to see"
    )]
    pub fn full_outer_join<W>(
        &self,
        other: &DStream<(K, W)>,
    ) -> DStream<(K, (Option<V>, Option<W>))>
    where
        K: Hash + Eq,
        W: Clone + Send + Sync + 'static,
    {
        self.cogroup_as("full_outer_join", other).flat_map(|(key, (left, right)), out| {
            let (left, right) = (or_none(left), or_none(right));
            pairs(&left, &right, |one, two| out.emit((key.clone(), (one.clone(), two.clone()))));
        })
    }
}

/// Aggregates the pairs of a partition by key, in the shards of its lease: `aggregate` makes the aggregate of a first
/// value and adds a further one.
pub(crate) fn by_key<K, V, C, M, A, B>(
    tables: &ShuffleTables<K, C, M>,
    seed: u64,
    aggregate: &Arc<(A, B)>,
) -> impl Fn(usize, usize) -> ByKey<K, C, M, A, B> + Send + Sync + 'static + use<K, V, C, M, A, B>
where
    K: Clone + Hash + Eq + Send + 'static,
    V: 'static,
    C: Send + 'static,
    M: Fn(&mut C, C) + Send + Sync + 'static,
    A: Fn(&V) -> C + Send + Sync + 'static,
    B: Fn(&mut C, &V) + Send + Sync + 'static,
{
    let (tables, aggregate) = (tables.clone(), Arc::clone(aggregate));
    move |partition, worker| ByKey {
        lease: tables.lend(partition, worker),
        seed,
        aggregate: Arc::clone(&aggregate),
    }
}

pub(crate) struct ByKey<K, C, M, A, B> {
    lease: ShardLease<K, C, M>,
    seed: u64,
    aggregate: Arc<(A, B)>,
}

impl<K, V, C, M, A, B> Fold<(K, V)> for ByKey<K, C, M, A, B>
where
    K: Clone + Hash + Eq,
    M: Fn(&mut C, C),
    A: Fn(&V) -> C,
    B: Fn(&mut C, &V),
{
    #[inline]
    fn push(&mut self, (key, value): &(K, V)) {
        let (create, add) = &*self.aggregate;
        let found = Hashed { hash: hash_of(self.seed, key), key };
        self.lease.append(found, K::clone, || create(value), |sum| add(sum, value));
    }

    fn end(self: Box<Self>) -> Result<(), String> {
        self.lease.give_back();
        Ok(())
    }
}

fn drained<K, C>(table: &mut Table<K, C>) -> Vec<(K, C)> {
    table.drain().map(|entry| (entry.key, entry.value)).collect()
}

fn pairs<V, W>(left: &[V], right: &[W], mut each: impl FnMut(&V, &W)) {
    for one in left {
        for two in right {
            each(one, two);
        }
    }
}

fn or_none<V: Clone>(values: &[V]) -> Vec<Option<V>> {
    if values.is_empty() { vec![None] } else { values.iter().cloned().map(Some).collect() }
}
