//! Shuffles: aggregate by key on the way, then merge by hash partition.
//!
//! ```text
//! partition 0 ─▶ shards [h0 h1 .. hR] ─┐   stage 1: one task for each partition, no merging
//! partition 1 ─▶ shards [h0 h1 .. hR] ─┼▶ stage 2: task r merges shard r of all, in partition order ─▶ rows r
//! ```
//! Shards belong to a partition, so that any merge function sees the partitions in order and the result does not depend
//! on which worker was faster; where merging is exactly commutative (counts) they belong to a worker. Their memory is
//! kept from batch to batch. Runs on the workers; knows nothing of time or streams.

mod growing;
mod table;
pub mod words;

use crate::batch::{Batch, Partition, Stage, Work};
use crate::slab::{Account, ResultsCharge};
use crate::sync::{Arc, Mutex};

pub use growing::Growing;
pub use table::{Entry, Table, hash_of, shard_of};

/// Sets of shards that are kept for the next batch; those beyond are given back to the system.
const KEPT_MAX: usize = 64;

/// One table for each hash partition.
pub type Shards<K, C> = Vec<Table<K, C>>;

/// Goes through a partition and aggregates into the shards it is given.
pub type Mapper<K, C> = Box<dyn FnOnce(&mut Shards<K, C>) + Send>;

/// Where a shuffle puts its stages, and who counts what they make.
#[derive(Debug)]
pub struct Into<'a> {
    /// The stages of the plan.
    pub stages: &'a mut Vec<Stage>,
    /// Counts the memory of shards and rows.
    pub account: &'a Arc<Account>,
}

/// Whose shards a mapper fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
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
    /// Adds the two stages to a plan, none if there is nothing to map, and returns the merged rows as a batch of `shards`
    /// partitions: `merge` joins what two mappers made of one key, `rows` takes the entries out of a merged shard.
    pub fn plan<U: Send + Sync + 'static>(
        &self,
        into: Into<'_>,
        mappers: Vec<Mapper<K, C>>,
        shape: (Gather, usize),
        merge: impl Fn(&mut C, C) + Send + Sync + 'static,
        rows: impl Fn(&mut Table<K, C>) -> Vec<U> + Send + Sync + 'static,
    ) -> Batch<U> {
        self.plan_slots(into, mappers, shape, merge, rows).batch()
    }

    /// Like [`plan`](Shuffle::plan); the rows of each shard are left in its slot. No slots if there is nothing to map.
    pub fn plan_slots<U: Send + Sync + 'static>(
        &self,
        into: Into<'_>,
        mappers: Vec<Mapper<K, C>>,
        shape: (Gather, usize),
        merge: impl Fn(&mut C, C) + Send + Sync + 'static,
        rows: impl Fn(&mut Table<K, C>) -> Vec<U> + Send + Sync + 'static,
    ) -> Slots<U> {
        if mappers.is_empty() {
            return Slots::new(0);
        }
        let (gather, shards) = (shape.0, shape.1.max(1));
        let slots = match gather {
            Gather::ByPartition => mappers.len(),
            Gather::ByWorker(workers) => workers.max(1),
        };
        let flight = Arc::new(InFlight {
            slots: (0..slots).map(|_| Mutex::new(Vec::new())).collect(),
            shards,
            memory: Arc::clone(&self.0),
            charge: into.account.results_charge(),
        });
        into.stages.push(Stage {
            tasks: mappers
                .into_iter()
                .enumerate()
                .map(|task| map_task(&flight, gather, task))
                .collect(),
        });
        let results: Slots<U> = Slots::counted(shards, into.account);
        let reduce = Arc::new((merge, rows));
        let merge_task = |shard: usize| -> Work {
            let (flight, reduce, results) =
                (Arc::clone(&flight), Arc::clone(&reduce), results.clone());
            Box::new(move |_| {
                results.put(shard, flight.merge(shard, &reduce.0, &reduce.1));
                Ok(())
            })
        };
        into.stages.push(Stage { tasks: (0..shards).map(merge_task).collect() });
        results
    }
}

fn map_task<K, C>(
    flight: &Arc<InFlight<K, C>>,
    gather: Gather,
    (number, mapper): (usize, Mapper<K, C>),
) -> Work
where
    K: Eq + Send + 'static,
    C: Send + 'static,
{
    let flight = Arc::clone(flight);
    Box::new(move |worker| {
        let slot = match gather {
            Gather::ByPartition => number,
            Gather::ByWorker(workers) => worker % workers.max(1),
        };
        let mut shards = flight.slots[slot].lock();
        let mut before = 0;
        if shards.is_empty() {
            *shards = flight.lease();
        } else {
            before = bytes(&shards);
        }
        mapper(&mut shards);
        flight.charge.add(bytes(&shards).saturating_sub(before));
        Ok(())
    })
}

fn bytes<K, C>(shards: &Shards<K, C>) -> usize {
    shards.iter().map(Table::bytes).sum()
}

/// The shards of one run of one plan; they go back to the operator's memory when the last task is gone.
struct InFlight<K, C> {
    /// Empty until a mapper needs them.
    slots: Vec<Mutex<Shards<K, C>>>,
    shards: usize,
    memory: Arc<Mutex<Vec<Shards<K, C>>>>,
    charge: ResultsCharge,
}

impl<K, C> InFlight<K, C> {
    fn lease(&self) -> Shards<K, C> {
        let mut shards = self.memory.lock().pop().unwrap_or_default();
        shards.resize_with(self.shards, Table::default);
        shards
    }
}

impl<K: Eq, C> InFlight<K, C> {
    /// Merges one shard of every slot, in slot order, and leaves their tables empty behind.
    fn merge<U>(
        &self,
        shard: usize,
        merge: &impl Fn(&mut C, C),
        rows: &impl Fn(&mut Table<K, C>) -> Vec<U>,
    ) -> Vec<U> {
        let take = |slot: &Mutex<Shards<K, C>>| slot.lock().get_mut(shard).map(std::mem::take);
        let mut merged: Option<(usize, Table<K, C>)> = None;
        for (number, slot) in self.slots.iter().enumerate() {
            let Some(mut table) = take(slot) else { continue };
            match &mut merged {
                None => merged = Some((number, table)),
                Some((_, merged)) => {
                    merged.absorb(&mut table, merge);
                    self.slots[number].lock()[shard] = table;
                }
            }
        }
        let Some((number, mut table)) = merged else { return Vec::new() };
        let rows = rows(&mut table);
        self.slots[number].lock()[shard] = table;
        rows
    }
}

impl<K, C> Drop for InFlight<K, C> {
    fn drop(&mut self) {
        let mut memory = self.memory.lock();
        // The first slot's tables, into which the others are merged, are the largest: they go last, to be its own again.
        for slot in self.slots.iter().rev() {
            let mut shards = std::mem::take(&mut *slot.lock());
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
    charge: Option<ResultsCharge>,
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
    pub fn counted(len: usize, account: &Arc<Account>) -> Self {
        Slots::with(len, Some(account.results_charge()))
    }

    fn with(len: usize, charge: Option<ResultsCharge>) -> Self {
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
        self.0.charge.as_ref().map_or(0, ResultsCharge::clear)
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
