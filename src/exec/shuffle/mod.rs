//! Shuffles: aggregate by key on the way, then merge by hash partition.
//!
//! ```text
//! partition 0 ─▶ shards [h0 h1 .. hR] ─┐   stage 1: one task for each partition, no merging
//! partition 1 ─▶ shards [h0 h1 .. hR] ─┼▶ stage 2: task r merges shard r of all, in partition order ─▶ rows r
//! ```
//! Shards belong to a partition, so that any merge function sees the partitions in order and the result does not depend
//! on which worker was faster; where merging is exactly commutative (counts) they belong to a worker. Their memory is
//! kept from batch to batch. Runs on the workers; knows nothing of time or streams.

mod incremental_table;
mod leases;
mod table;
mod word_shuffle;
pub mod word_table;

use std::borrow::Borrow;

use crate::exec::{Batch, Inputs, Needs, Partition, StageReads, Stages, Work};
use crate::memory::budget::{MemoryBudget, ResultsReservation};
use crate::sync::{Arc, Mutex};

pub use incremental_table::IncrementalTable;
pub use leases::TablePool;
use leases::{Leases, TableSet};
pub use table::{Entry, Hashed, Table, hash_of, shard_of};
pub(crate) use word_shuffle::{Tally, WordPool, WordShuffle};

/// One table for each hash partition.
pub type Shards<K, C> = Vec<Table<K, C>>;

impl<K, C> TableSet for Shards<K, C> {
    fn bytes(&self) -> usize {
        self.iter().map(Table::bytes).sum()
    }

    fn cleared(mut self) -> Option<Self> {
        self.iter_mut().for_each(Table::clear);
        Some(self)
    }
}

/// Whose shards a mapper fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardOwner {
    /// Those of its partition: the merge sees the partitions in order.
    ByPartition,
    /// Those of the worker that runs it, of this many: for merging that is exactly commutative.
    ByWorker(usize),
}

/// The dimensions of one run of a shuffle.
#[derive(Clone, Copy, Debug)]
pub struct ShuffleShape {
    /// Number of inputs, each of which is a fold of one partition.
    pub inputs: usize,
    /// Whose shards an input fills.
    pub owner: ShardOwner,
    /// Number of hash partitions, at least 1.
    pub shards: usize,
}

impl ShuffleShape {
    fn slots(&self) -> usize {
        match self.owner {
            ShardOwner::ByPartition => self.inputs,
            ShardOwner::ByWorker(workers) => workers.max(1),
        }
    }

    fn slot(&self, input: usize, worker: usize) -> usize {
        match self.owner {
            ShardOwner::ByPartition => input,
            ShardOwner::ByWorker(workers) => worker % workers.max(1),
        }
    }
}

/// A keyed operator's memory, kept across batches.
pub type Shuffle<K, C> = TablePool<Shards<K, C>>;

impl<K, C> Shuffle<K, C>
where
    K: Eq + Send + 'static,
    C: Send + 'static,
{
    /// Begins a run; `merge` joins the aggregates that two inputs made of one key. `account` counts tables and rows.
    pub fn begin<M>(
        &self,
        account: &Arc<MemoryBudget>,
        shape: ShuffleShape,
        merge: M,
    ) -> ShuffleTables<K, C, M>
    where
        M: Fn(&mut C, C) + Send + Sync + 'static,
    {
        let leases = Leases::new(shape.slots(), self, account);
        ShuffleTables(Arc::new(Run { leases, shape, merge, account: Arc::clone(account) }))
    }
}

/// One run of a shuffle, on its way through the stages of a plan.
pub struct ShuffleTables<K, C, M>(Arc<Run<K, C, M>>);

impl<K, C, M> Clone for ShuffleTables<K, C, M> {
    fn clone(&self) -> Self {
        ShuffleTables(Arc::clone(&self.0))
    }
}

impl<K, C, M> std::fmt::Debug for ShuffleTables<K, C, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShuffleTables")
            .field("inputs", &self.0.shape.inputs)
            .finish_non_exhaustive()
    }
}

impl<K, C, M> ShuffleTables<K, C, M>
where
    K: Eq + Send + 'static,
    C: Send + 'static,
    M: Fn(&mut C, C) + Send + Sync + 'static,
{
    /// The shards that input number `input` aggregates into, on this worker.
    pub fn lend(&self, input: usize, worker: usize) -> ShardLease<K, C, M> {
        let slot = self.0.shape.slot(input, worker);
        let mut shards = self.0.leases.lend(slot, input, Vec::new);
        shards.resize_with(self.0.shape.shards, Table::default);
        ShardLease { shards, slot, run: Arc::clone(&self.0) }
    }

    /// Adds two stages to a plan, that of the inputs' tasks and that of merging, none if there are no inputs, and returns
    /// the merged rows as a batch of a partition for each shard: `rows` takes the entries out of a merged shard.
    pub fn plan<U: Send + Sync + 'static>(
        &self,
        stages: &mut Stages,
        inputs: Inputs,
        rows: impl Fn(&mut Table<K, C>) -> Vec<U> + Send + Sync + 'static,
    ) -> Batch<U> {
        self.plan_slots(stages, inputs, rows).batch()
    }

    /// Like [`plan`](ShuffleTables::plan); the rows of each shard are left in its slot. No slots if there are no inputs.
    pub fn plan_slots<U: Send + Sync + 'static>(
        &self,
        stages: &mut Stages,
        inputs: Inputs,
        rows: impl Fn(&mut Table<K, C>) -> Vec<U> + Send + Sync + 'static,
    ) -> Slots<U> {
        if self.0.shape.inputs == 0 {
            return Slots::new(0);
        }
        let (needs, tasks) = inputs.into_parts();
        stages.push("fold", needs, tasks);
        let results: Slots<U> = Slots::counted(self.0.shape.shards, &self.0.account);
        let rows = Arc::new(rows);
        let merge_task = |shard: usize| -> Work {
            let (run, rows, results) = (Arc::clone(&self.0), Arc::clone(&rows), results.clone());
            Box::new(move |_| {
                results.put(shard, run.merge(shard, &*rows));
                Ok(())
            })
        };
        let tasks = (0..self.0.shape.shards).map(merge_task).collect();
        stages.push("merge", Needs::AllPartitions, tasks);
        results
    }
}

/// Shards while one input aggregates into them.
pub struct ShardLease<K, C, M> {
    /// One table for each hash partition.
    pub shards: Shards<K, C>,
    slot: usize,
    run: Arc<Run<K, C, M>>,
}

impl<K, C, M> std::fmt::Debug for ShardLease<K, C, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardLease").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl<K: Eq, C, M: Fn(&mut C, C)> ShardLease<K, C, M> {
    /// Updates the aggregate of a key in its shard, or makes one; see [`Table::append`].
    #[inline]
    pub fn append<Q>(
        &mut self,
        found: Hashed<'_, Q>,
        own: impl FnOnce(&Q) -> K,
        create: impl FnOnce() -> C,
        update: impl FnOnce(&mut C),
    ) where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let shard = shard_of(found.hash, self.shards.len());
        self.shards[shard].append(found, own, create, update, &self.run.merge);
    }

    /// The input is over.
    pub fn give_back(self) {
        self.run.leases.give_back(self.slot, self.shards, |known, more| {
            for (into, mut shard) in known.iter_mut().zip(more) {
                into.absorb(&mut shard, &self.run.merge);
            }
        });
    }
}

/// The shards of one run of one plan, and how they are filled and merged.
struct Run<K, C, M> {
    leases: Leases<Shards<K, C>>,
    shape: ShuffleShape,
    merge: M,
    account: Arc<MemoryBudget>,
}

impl<K: Eq, C, M: Fn(&mut C, C)> Run<K, C, M> {
    /// Merges one shard of every slot, in slot order, and leaves their tables empty behind.
    fn merge<U>(&self, shard: usize, rows: &impl Fn(&mut Table<K, C>) -> Vec<U>) -> Vec<U> {
        let put = |slot, table| self.leases.with(slot, |shards| shards[shard] = table);
        let mut merged: Option<(usize, Table<K, C>)> = None;
        for slot in 0..self.shape.slots() {
            let taken = self.leases.with(slot, |shards| std::mem::take(&mut shards[shard]));
            let Some(mut table) = taken else { continue };
            match &mut merged {
                None => merged = Some((slot, table)),
                Some((_, merged)) => {
                    merged.absorb(&mut table, &self.merge);
                    put(slot, table);
                }
            }
        }
        let Some((slot, mut table)) = merged else { return Vec::new() };
        table.settle(&self.merge);
        let rows = rows(&mut table);
        put(slot, table);
        rows
    }
}

/// The results of a stage's tasks, which later partitions read.
pub struct Slots<U>(Arc<Inner<U>>);

struct Inner<U> {
    slots: Vec<Mutex<Arc<Vec<U>>>>,
    /// Counts the results, as long as anybody has the slots.
    charge: Option<ResultsReservation>,
}

impl<U> Clone for Slots<U> {
    fn clone(&self) -> Self {
        Slots(Arc::clone(&self.0))
    }
}

impl<U> std::fmt::Debug for Slots<U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("len", &self.len()).finish()
    }
}

impl<U> Slots<U> {
    /// This many empty slots, for results that need no counting.
    pub fn new(len: usize) -> Self {
        Slots::with(len, None)
    }

    /// This many empty slots; `account` counts their results until the slots are dropped.
    pub fn counted(len: usize, account: &Arc<MemoryBudget>) -> Self {
        Slots::with(len, Some(account.results_charge()))
    }

    fn with(len: usize, charge: Option<ResultsReservation>) -> Self {
        let slots = (0..len).map(|_| Mutex::new(Arc::default())).collect();
        Slots(Arc::new(Inner { slots, charge }))
    }

    /// Leaves the result of a task.
    pub fn put(&self, slot: usize, rows: Vec<U>) {
        self.put_owning(slot, rows, 0);
    }

    /// Leaves the result of a task; its elements own `bytes` beside themselves.
    pub fn put_owning(&self, slot: usize, rows: Vec<U>, bytes: usize) {
        if let Some(charge) = &self.0.charge {
            charge.add(size_of::<U>() * rows.capacity() + bytes);
        }
        *self.0.slots[slot].lock() = Arc::new(rows);
    }

    /// Stops counting the results, because they outlive their batch. Returns the counted bytes.
    pub fn keep(&self) -> usize {
        self.0.charge.as_ref().map_or(0, ResultsReservation::clear)
    }

    /// The result of a task.
    pub fn at(&self, slot: usize) -> Arc<Vec<U>> {
        Arc::clone(&self.0.slots[slot].lock())
    }

    /// Takes the result of a task out, for its only reader; nothing if there is no such slot.
    pub fn take(&self, slot: usize) -> Vec<U> {
        let Some(slot) = self.0.slots.get(slot) else { return Vec::new() };
        let taken = Arc::into_inner(std::mem::take(&mut *slot.lock()));
        taken.expect("nobody else reads this slot")
    }

    /// Takes the result of a task out; others may still read it.
    pub fn take_arc(&self, slot: usize) -> Arc<Vec<U>> {
        std::mem::take(&mut *self.0.slots[slot].lock())
    }

    /// Takes all results out, for their only reader.
    pub fn take_all(&self) -> Vec<Vec<U>> {
        let take = |slot: &Mutex<Arc<Vec<U>>>| Arc::into_inner(std::mem::take(&mut *slot.lock()));
        self.0.slots.iter().map(|slot| take(slot).expect("nobody else reads these slots")).collect()
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.0.slots.len()
    }

    /// A batch with one partition for each slot, where task number `n` of a stage fills slot `n`.
    pub fn batch(&self) -> Batch<U>
    where
        U: Send + Sync + 'static,
    {
        let partition = |slot| {
            let slots = self.clone();
            let elements = move |each: &mut dyn FnMut(&U)| {
                slots.at(slot).iter().for_each(&mut *each);
            };
            Partition::new(elements).reading(StageReads::Slot(slot))
        };
        (0..self.len()).map(partition).collect()
    }
}
