//! `Leases`: the tables of one run of a shuffle, lent to its tasks and kept from batch to batch.
//!
//! ```text
//! pool ─▶ slot ─lend─▶ task ─give_back─▶ slot ─▶ merging, readers ─drop─▶ pool
//! ```
//! A lock is taken once for each task, never for a record. Runs on the workers; knows no keys and no stages.

use crate::memory::budget::{MemoryBudget, ResultsReservation};
use crate::sync::{Arc, Mutex};

/// The most table sets that are kept for the next batch; those beyond are given back to the system.
const KEPT_MAX: usize = 64;

/// Tables that one task at a time fills.
pub(super) trait TableSet: Sized {
    /// Their memory, in bytes.
    fn bytes(&self) -> usize;

    /// The tables without their keys, for another run; `None` if somebody still reads them.
    fn cleared(self) -> Option<Self>;
}

/// Tables that an operator keeps from batch to batch.
pub struct TablePool<S>(Arc<Mutex<Vec<S>>>);

impl<S> Default for TablePool<S> {
    fn default() -> Self {
        TablePool(Arc::default())
    }
}

impl<S> std::fmt::Debug for TablePool<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TablePool").field("kept", &self.0.lock().len()).finish()
    }
}

/// The tables of one run; they return to the pool when the last task or reader is gone.
pub(super) struct Leases<S: TableSet> {
    slots: Vec<Mutex<Slot<S>>>,
    pool: TablePool<S>,
    reservation: ResultsReservation,
}

struct Slot<S> {
    /// None until a task needs them, and while they are lent.
    tables: Option<S>,
    /// The highest number of an input that borrowed them.
    last: usize,
    /// Their bytes, as far as they are counted.
    counted: usize,
}

impl<S: TableSet> Leases<S> {
    /// Empty slots; `account` counts the tables.
    pub(super) fn new(slots: usize, pool: &TablePool<S>, account: &Arc<MemoryBudget>) -> Self {
        let slot = |_| Mutex::new(Slot { tables: None, last: 0, counted: 0 });
        Leases {
            slots: (0..slots).map(slot).collect(),
            pool: TablePool(Arc::clone(&pool.0)),
            reservation: account.results_charge(),
        }
    }

    /// Lends a slot's tables to input number `input`; those of the pool or new ones if the slot has none.
    pub(super) fn lend(&self, slot: usize, input: usize, new: impl FnOnce() -> S) -> S {
        let mut slot = self.slots[slot].lock();
        // Inputs that share tables come in their order, so that a key is in the place of its first sight. One that comes
        // late, because another job made the pass, has tables of its own.
        let known = if slot.last <= input { slot.tables.take() } else { None };
        slot.last = slot.last.max(input);
        drop(slot);
        known.or_else(|| self.pool.0.lock().pop()).unwrap_or_else(new)
    }

    /// Takes an input's tables back; `absorb` joins them with those that the slot has got meanwhile.
    pub(super) fn give_back(&self, slot: usize, tables: S, absorb: impl FnOnce(&mut S, S)) {
        let mut slot = self.slots[slot].lock();
        match &mut slot.tables {
            Some(known) => absorb(known, tables),
            none => *none = Some(tables),
        }
        let bytes = slot.tables.as_ref().map_or(0, S::bytes);
        self.reservation.add(bytes.saturating_sub(slot.counted));
        slot.counted = slot.counted.max(bytes);
    }

    /// Calls `work` with the tables of a slot, if it has any.
    pub(super) fn with<R>(&self, slot: usize, work: impl FnOnce(&mut S) -> R) -> Option<R> {
        self.slots[slot].lock().tables.as_mut().map(work)
    }
}

impl<S: TableSet> Drop for Leases<S> {
    fn drop(&mut self) {
        let mut pool = self.pool.0.lock();
        // The first slot's tables, into which the others are merged, are the largest: they go last, to be its own again.
        for slot in self.slots.iter().rev() {
            if pool.len() < KEPT_MAX {
                pool.extend(slot.lock().tables.take().and_then(S::cleared));
            }
        }
    }
}
