//! `WordShuffle`: the shuffle of a word count. Each worker fills a table of all words; tasks then merge hash partitions.
//!
//! A [`WordTable`] is not split into shards, so merging only reads the workers' tables, several tasks at once. Each hash
//! partition has one more slot, for its merged table, and rows are read from there. Runs on the workers; knows no streams.

use super::leases::{Leases, TablePool, TableSet};
use super::word_table::{Ranked, RankedWord, WordTable};
use super::{ShuffleShape, Slots};
use crate::memory::budget::MemoryBudget;
use crate::sync::Arc;

/// A word and its count.
pub(crate) type Tally = (Vec<u8>, u64);

/// The tables that a word count keeps from batch to batch.
pub(crate) type WordPool = TablePool<Arc<WordTable>>;

impl TableSet for Arc<WordTable> {
    fn bytes(&self) -> usize {
        WordTable::bytes(self)
    }

    fn cleared(self) -> Option<Self> {
        let mut table = Arc::into_inner(self)?;
        table.clear();
        Some(Arc::new(table))
    }
}

/// One run of a word count.
pub(crate) struct WordShuffle {
    /// One slot for each worker, then one for each hash partition.
    leases: Leases<Arc<WordTable>>,
    /// The words of each hash partition in the order of the result, where it has one.
    order: Slots<Ranked>,
    shape: ShuffleShape,
    seed: u64,
}

impl WordShuffle {
    /// Begins a run with the tables in `pool`; `account` counts them.
    pub(crate) fn begin(
        pool: &WordPool,
        account: &Arc<MemoryBudget>,
        shape: ShuffleShape,
        seed: u64,
    ) -> Arc<Self> {
        let leases = Leases::new(shape.slots() + shape.shards, pool, account);
        Arc::new(WordShuffle { leases, order: Slots::counted(shape.shards, account), shape, seed })
    }

    /// The worker's table, for one of its tasks.
    pub(crate) fn lend(&self, worker: usize) -> WordTable {
        self.lend_slot(self.shape.slot(0, worker))
    }

    /// Takes the worker's table back at the end of the task.
    pub(crate) fn give_back(&self, worker: usize, table: WordTable) {
        self.give_back_slot(self.shape.slot(0, worker), table);
    }

    fn lend_slot(&self, slot: usize) -> WordTable {
        // The order of the inputs does not matter: counts have no order.
        let table = self.leases.lend(slot, 0, || Arc::new(WordTable::new(self.seed)));
        Arc::into_inner(table).expect("a table is shared only after its last task")
    }

    fn give_back_slot(&self, slot: usize, table: WordTable) {
        self.leases.give_back(slot, Arc::new(table), |known, more| {
            // A pass that several counts share has lent a table to each.
            let known = Arc::get_mut(known).expect("a table is shared only after its last task");
            known.absorb(&more, 0, 1);
        });
    }

    /// Merges the words of one hash partition; puts the first `n` in order, if there is an `n`. Called once all tasks
    /// have given their tables back.
    pub(crate) fn merge(&self, shard: usize, n: Option<usize>) {
        let tables: Vec<_> = (0..self.shape.slots()).filter_map(|slot| self.read(slot)).collect();
        if tables.iter().all(|table| table.is_empty()) {
            return;
        }
        let slot = self.shape.slots() + shard;
        let mut merged = self.lend_slot(slot);
        tables.iter().for_each(|table| merged.absorb(table, shard, self.shape.shards));
        if let Some(n) = n {
            self.order.put(shard, merged.sorted(n));
        }
        self.give_back_slot(slot, merged);
    }

    fn read(&self, slot: usize) -> Option<Arc<WordTable>> {
        self.leases.with(slot, |table| Arc::clone(table))
    }

    /// Calls `each` with the words of one hash partition, in no particular order; one row is reused for all.
    pub(crate) fn rows_of(&self, shard: usize, each: &mut dyn FnMut(&Tally)) {
        let Some(table) = self.read(self.shape.slots() + shard) else { return };
        let mut row = (Vec::new(), 0);
        for place in table.places() {
            table.at(place, |word, count| show(word, count, &mut row, each));
        }
    }

    /// Calls `each` with the first `n` words of all hash partitions, in order; one row is reused for all.
    pub(crate) fn rows(&self, n: usize, each: &mut dyn FnMut(&Tally)) {
        let merged = |shard| Some((self.read(self.shape.slots() + shard)?, self.order.at(shard)));
        let merged: Vec<_> = (0..self.shape.shards).filter_map(merged).collect();
        let mut all: Vec<RankedWord<'_>> =
            Vec::with_capacity(merged.iter().map(|(_, order)| order.len()).sum());
        for (table, order) in &merged {
            all.extend(order.iter().map(|word| RankedWord { table, word }));
        }
        // The sort finds the partitions' runs and merges them.
        all.sort_by(|left, right| left.order(*right));
        let mut row = (Vec::new(), 0);
        for RankedWord { table, word } in all.into_iter().take(n) {
            table.read(word, |word, count| show(word, count, &mut row, each));
        }
    }
}

/// Calls `each` with a word and its count, in a row that is used again.
fn show(word: &[u8], count: u64, row: &mut Tally, each: &mut dyn FnMut(&Tally)) {
    row.0.clear();
    row.0.extend_from_slice(word);
    row.1 = count;
    each(row);
}
