//! The operators of pairs: by key, within one batch. Keys meet by hash partition; partitions are merged in order.

use std::hash::Hash;

use super::operators::both;
use super::{DStream, Planner};
use crate::batch::{Batch, Out, Partition};
use crate::shuffle::{Gather, Mapper, Shuffle, Table, hash_of, shard_of};
use crate::sync::Arc;

impl<K, V> DStream<(K, V)>
where
    K: Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The same keys with what `f` makes of each value.
    pub fn map_values<U: 'static>(
        &self,
        f: impl Fn(&V) -> U + Send + Sync + 'static,
    ) -> DStream<(K, U)> {
        self.map(move |(key, value)| (key.clone(), f(value)))
    }

    /// Each key with everything that `f` hands out for its value.
    pub fn flat_map_values<U: Clone + 'static>(
        &self,
        f: impl Fn(&V, &mut Out<'_, U>) + Send + Sync + 'static,
    ) -> DStream<(K, U)> {
        self.flat_map(move |(key, value), out| {
            let mut each = |part: &U| out.push(&(key.clone(), part.clone()));
            f(value, &mut Out::new(&mut each));
        })
    }

    /// The values of each key, aggregated: `create` makes the aggregate of a first value, `add` adds a further one and
    /// `merge` joins the aggregates of two partitions, in partition order.
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
            let mappers = mappers(cx, &batch, &aggregate);
            let (shape, merge) = ((Gather::ByPartition, cx.shards()), Arc::clone(&merge));
            Ok(memory.plan(
                &mut cx.stages,
                mappers,
                shape,
                move |left, right| merge(left, right),
                drained,
            ))
        })
    }

    /// The values of each key joined by `f`, which must be associative.
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

    /// All values of each key, in order.
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

    /// For each key of either stream, all its values in both. If one stream has no batch, the batch fails.
    ///
    /// # Panics
    /// If the streams belong to two contexts.
    #[expect(
        clippy::type_complexity,
        reason = "the shape of the pairs is what the reader wants to see"
    )]
    pub fn cogroup<W>(&self, other: &DStream<(K, W)>) -> DStream<(K, (Vec<V>, Vec<W>))>
    where
        K: Hash + Eq,
        W: Clone + Send + Sync + 'static,
    {
        let line = self.line_with("cogroup", other);
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
        self.wide_below(&line, move |cx| {
            let (left, right) = both("join", cx, &*left, &*right)?;
            let mut all = mappers(cx, &left, &of_left);
            all.extend(mappers(cx, &right, &of_right));
            let shape = (Gather::ByPartition, cx.shards());
            Ok(memory.plan(&mut cx.stages, all, shape, merge_both, drained))
        })
    }

    /// Each value of a key paired with each value of the same key in the other stream.
    pub fn join<W>(&self, other: &DStream<(K, W)>) -> DStream<(K, (V, W))>
    where
        K: Hash + Eq,
        W: Clone + Send + Sync + 'static,
    {
        self.cogroup(other).flat_map(|(key, (left, right)), out| {
            pairs(left, right, |one, two| out.push(&(key.clone(), (one.clone(), two.clone()))));
        })
    }

    /// Like [`join`](DStream::join), and values without a partner on the right are kept with none.
    pub fn left_outer_join<W>(&self, other: &DStream<(K, W)>) -> DStream<(K, (V, Option<W>))>
    where
        K: Hash + Eq,
        W: Clone + Send + Sync + 'static,
    {
        self.cogroup(other).flat_map(|(key, (left, right)), out| {
            pairs(left, &or_none(right), |one, two| {
                out.push(&(key.clone(), (one.clone(), two.clone())))
            });
        })
    }

    /// Like [`join`](DStream::join), and values without a partner on the left are kept with none.
    pub fn right_outer_join<W>(&self, other: &DStream<(K, W)>) -> DStream<(K, (Option<V>, W))>
    where
        K: Hash + Eq,
        W: Clone + Send + Sync + 'static,
    {
        self.cogroup(other).flat_map(|(key, (left, right)), out| {
            pairs(&or_none(left), right, |one, two| {
                out.push(&(key.clone(), (one.clone(), two.clone())))
            });
        })
    }

    /// Like [`join`](DStream::join), and values without a partner are kept with none.
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
        self.cogroup(other).flat_map(|(key, (left, right)), out| {
            let (left, right) = (or_none(left), or_none(right));
            pairs(&left, &right, |one, two| out.push(&(key.clone(), (one.clone(), two.clone()))));
        })
    }
}

pub(super) fn mappers<K, V, C>(
    cx: &Planner<'_>,
    batch: &Batch<(K, V)>,
    aggregate: &Arc<(
        impl Fn(&V) -> C + Send + Sync + 'static,
        impl Fn(&mut C, &V) + Send + Sync + 'static,
    )>,
) -> Vec<Mapper<K, C>>
where
    K: Clone + Hash + Eq + 'static,
    V: 'static,
{
    let seed = cx.settings.seed;
    let mapper = |partition: &Partition<(K, V)>| -> Mapper<K, C> {
        let (partition, aggregate) = (partition.clone(), Arc::clone(aggregate));
        Box::new(move |shards| {
            let (create, add) = &*aggregate;
            partition.for_each(|(key, value)| {
                let hash = hash_of(seed, key);
                let shard = shard_of(hash, shards.len());
                shards[shard].upsert(
                    (hash, key),
                    K::clone,
                    || create(value),
                    |sum| add(sum, value),
                );
            });
        })
    };
    batch.partitions().iter().map(mapper).collect()
}

fn drained<K, C>(table: &mut Table<K, C>) -> Vec<(K, C)> {
    table.drain().map(|entry| (entry.key, entry.value)).collect()
}

fn merge_both<V, W>(left: &mut (Vec<V>, Vec<W>), right: (Vec<V>, Vec<W>)) {
    left.0.extend(right.0);
    left.1.extend(right.1);
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
