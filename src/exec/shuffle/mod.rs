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
mod table;
pub mod word_table;

use std::borrow::Borrow;

use crate::exec::{Batch, Partition, Stage, Work};
use crate::memory::budget::{MemoryBudget, ResultsReservation};
use crate::sync::{Arc, Mutex};

pub use incremental_table::IncrementalTable;
pub use table::{Entry, Table, hash_of, shard_of};

/// Sets of shards that are kept for the next batch; those beyond are given back to the system.
const KEPT_MAX: usize = 64;

/// One table for each hash partition.
pub type Shards<K, C> = Vec<Table<K, C>>;

/// Whose shards a mapper fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardOwner {
    /// Those of its partition: the merge sees the partitions in order.
    ByPartition,
    /// Those of the worker that runs it, of so many: for merging that is exactly commutative.
    ByWorker(usize),
}

/// A keyed operator's memory, kept across batches.
pub struct Shuffle<K, C>(Arc<Mutex<Vec<Shards<K, C>>>>);

impl<K, C> Default for Shuffle<K, C> {
    fn default() -> Self {
        Shuffle(Arc::new(Mutex::new(Vec::new())))
    }
}

impl<K, C> std::fmt::Debug for Shuffle<K, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shuffle").field("kept", &self.0.lock().len()).finish()
    }
}

impl<K, C> Shuffle<K, C>
where
    K: Eq + Send + 'static,
    C: Send + 'static,
{
    /// Begins with so many inputs, each of which is a fold of one partition; `merge` joins what two of them made of one
    /// key, and there are that many hash partitions. `account` counts tables and rows.
    pub fn begin<M>(
        &self,
        account: &Arc<MemoryBudget>,
        inputs: usize,
        shape: (ShardOwner, usize),
        merge: M,
    ) -> ShuffleTables<K, C, M>
    where
        M: Fn(&mut C, C) + Send + Sync + 'static,
    {
        let slots = match shape.0 {
            ShardOwner::ByPartition => inputs,
            ShardOwner::ByWorker(workers) => workers.max(1),
        };
        ShuffleTables(Arc::new(InFlight {
            slots: (0..slots).map(|_| Mutex::default()).collect(),
            inputs,
            gather: shape.0,
            shards: shape.1.max(1),
            memory: Arc::clone(&self.0),
            merge,
            charge: account.results_charge(),
            account: Arc::clone(account),
        }))
    }
}

/// One run of a shuffle, on its way through the stages of a plan.
pub struct ShuffleTables<K, C, M>(Arc<InFlight<K, C, M>>);

impl<K, C, M> Clone for ShuffleTables<K, C, M> {
    fn clone(&self) -> Self {
        ShuffleTables(Arc::clone(&self.0))
    }
}

impl<K, C, M> std::fmt::Debug for ShuffleTables<K, C, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShuffleTables").field("inputs", &self.0.inputs).finish_non_exhaustive()
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
        let slot = match self.0.gather {
            ShardOwner::ByPartition => input,
            ShardOwner::ByWorker(workers) => worker % workers.max(1),
        };
        let mut held = self.0.slots[slot].lock();
        // Inputs that share shards come in their order, so that a key is in the place of its first sight. One that comes
        // late, because another job made the pass, has shards of its own.
        let in_order = held.next <= input;
        held.next = held.next.max(input + 1);
        let known = if in_order { std::mem::take(&mut held.shards) } else { Vec::new() };
        drop(held);
        let was_known = !known.is_empty();
        let shards = if known.is_empty() { self.0.lease() } else { known };
        let before = if was_known { bytes(&shards) } else { 0 };
        ShardLease { shards, slot, before, flight: Arc::clone(&self.0) }
    }

    /// Adds two stages to a plan, that of the inputs' tasks and that of merging, none if there are no inputs, and returns
    /// the merged rows as a batch of a partition for each shard: `rows` takes the entries out of a merged shard.
    pub fn plan<U: Send + Sync + 'static>(
        &self,
        stages: &mut Vec<Stage>,
        inputs: Vec<Work>,
        rows: impl Fn(&mut Table<K, C>) -> Vec<U> + Send + Sync + 'static,
    ) -> Batch<U> {
        self.plan_slots(stages, inputs, rows).batch()
    }

    /// Like [`plan`](ShuffleTables::plan); the rows of each shard are left in its slot. No slots if there are no inputs.
    pub fn plan_slots<U: Send + Sync + 'static>(
        &self,
        stages: &mut Vec<Stage>,
        inputs: Vec<Work>,
        rows: impl Fn(&mut Table<K, C>) -> Vec<U> + Send + Sync + 'static,
    ) -> Slots<U> {
        if self.0.inputs == 0 {
            return Slots::new(0);
        }
        stages.push(Stage { tasks: inputs });
        let results: Slots<U> = Slots::counted(self.0.shards, &self.0.account);
        let rows = Arc::new(rows);
        let merge_task = |shard: usize| -> Work {
            let (flight, rows, results) = (Arc::clone(&self.0), Arc::clone(&rows), results.clone());
            Box::new(move |_| {
                results.put(shard, flight.merge(shard, &*rows));
                Ok(())
            })
        };
        stages.push(Stage { tasks: (0..self.0.shards).map(merge_task).collect() });
        results
    }
}

/// Shards while one input aggregates into them.
pub struct ShardLease<K, C, M> {
    /// One table for each hash partition.
    pub shards: Shards<K, C>,
    slot: usize,
    /// Bytes of them that were counted before.
    before: usize,
    flight: Arc<InFlight<K, C, M>>,
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
        (hash, key): (u64, &Q),
        own: impl FnOnce(&Q) -> K,
        create: impl FnOnce() -> C,
        update: impl FnOnce(&mut C),
    ) where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let shard = shard_of(hash, self.shards.len());
        self.shards[shard].append((hash, key), own, create, update, &self.flight.merge);
    }

    /// The input is over.
    pub fn give_back(mut self) {
        self.flight.charge.add(bytes(&self.shards).saturating_sub(self.before));
        let mut held = self.flight.slots[self.slot].lock();
        if held.shards.is_empty() {
            held.shards = self.shards;
            return;
        }
        for (into, mut shard) in held.shards.iter_mut().zip(self.shards.drain(..)) {
            into.absorb(&mut shard, &self.flight.merge);
        }
    }
}

/// The shards of one run of one plan; they go back to the operator's memory when the last task is gone.
struct InFlight<K, C, M> {
    slots: Vec<Mutex<Held<K, C>>>,
    inputs: usize,
    gather: ShardOwner,
    shards: usize,
    memory: Arc<Mutex<Vec<Shards<K, C>>>>,
    merge: M,
    charge: ResultsReservation,
    account: Arc<MemoryBudget>,
}

fn bytes<K, C>(shards: &Shards<K, C>) -> usize {
    shards.iter().map(Table::bytes).sum()
}

struct Held<K, C> {
    /// Empty until an input needs them, and while they are lent.
    shards: Shards<K, C>,
    /// One more than the highest number of an input that had them.
    next: usize,
}

impl<K, C> Default for Held<K, C> {
    fn default() -> Self {
        Held { shards: Vec::new(), next: 0 }
    }
}

impl<K, C, M> InFlight<K, C, M> {
    fn lease(&self) -> Shards<K, C> {
        let mut shards = self.memory.lock().pop().unwrap_or_default();
        shards.resize_with(self.shards, Table::default);
        shards
    }
}

impl<K: Eq, C, M: Fn(&mut C, C)> InFlight<K, C, M> {
    /// Merges one shard of every slot, in slot order, and leaves their tables empty behind.
    fn merge<U>(&self, shard: usize, rows: &impl Fn(&mut Table<K, C>) -> Vec<U>) -> Vec<U> {
        let take = |slot: &Mutex<Held<K, C>>| slot.lock().shards.get_mut(shard).map(std::mem::take);
        let mut merged: Option<(usize, Table<K, C>)> = None;
        for (number, slot) in self.slots.iter().enumerate() {
            let Some(mut table) = take(slot) else { continue };
            match &mut merged {
                None => merged = Some((number, table)),
                Some((_, merged)) => {
                    merged.absorb(&mut table, &self.merge);
                    self.slots[number].lock().shards[shard] = table;
                }
            }
        }
        let Some((number, mut table)) = merged else { return Vec::new() };
        table.settle(&self.merge);
        let rows = rows(&mut table);
        self.slots[number].lock().shards[shard] = table;
        rows
    }
}

impl<K, C, M> Drop for InFlight<K, C, M> {
    fn drop(&mut self) {
        let mut memory = self.memory.lock();
        // The first slot's tables, into which the others are merged, are the largest: they go last, to be its own again.
        for slot in self.slots.iter().rev() {
            let mut shards = std::mem::take(&mut slot.lock().shards);
            if !shards.is_empty() && memory.len() < KEPT_MAX {
                shards.iter_mut().for_each(Table::clear);
                memory.push(shards);
            }
        }
    }
}

/// Where the tasks of a stage leave their results and later partitions find them.
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
    /// So many empty slots, for what needs no counting.
    pub fn new(len: usize) -> Self {
        Slots::with(len, None)
    }

    /// So many empty slots, whose results this account counts until the slots are dropped.
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

    /// Leaves the result of a task whose elements own so many bytes beside themselves.
    pub fn put_owning(&self, slot: usize, rows: Vec<U>, bytes: usize) {
        if let Some(charge) = &self.0.charge {
            charge.add(size_of::<U>() * rows.capacity() + bytes);
        }
        *self.0.slots[slot].lock() = Arc::new(rows);
    }

    /// The results stay for longer than their batch: they are not counted any more. Returns what was counted.
    pub fn keep(&self) -> usize {
        self.0.charge.as_ref().map_or(0, ResultsReservation::clear)
    }

    /// What a task left.
    pub fn at(&self, slot: usize) -> Arc<Vec<U>> {
        Arc::clone(&self.0.slots[slot].lock())
    }

    /// Takes the result of a task out, for its only reader; nothing if there is no such slot.
    pub fn take(&self, slot: usize) -> Vec<U> {
        let Some(slot) = self.0.slots.get(slot) else { return Vec::new() };
        let taken = Arc::into_inner(std::mem::take(&mut *slot.lock()));
        taken.expect("nobody else reads this slot")
    }

    /// Takes the result of a task out, whoever else reads it.
    pub fn take_arc(&self, slot: usize) -> Arc<Vec<U>> {
        std::mem::take(&mut *self.0.slots[slot].lock())
    }

    /// Takes all results out, for their only reader.
    pub fn take_all(&self) -> Vec<Vec<U>> {
        let take = |slot: &Mutex<Arc<Vec<U>>>| Arc::into_inner(std::mem::take(&mut *slot.lock()));
        self.0.slots.iter().map(|slot| take(slot).expect("nobody else reads these slots")).collect()
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.0.slots.len()
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.0.slots.is_empty()
    }

    /// A batch with one partition for each slot.
    pub fn batch(&self) -> Batch<U>
    where
        U: Send + Sync + 'static,
    {
        let partition = |slot| {
            let slots = self.clone();
            Partition::new(move |each: &mut dyn FnMut(&U)| {
                slots.at(slot).iter().for_each(&mut *each)
            })
        };
        (0..self.len()).map(partition).collect()
    }
}
