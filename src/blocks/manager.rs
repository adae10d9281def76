//! `BlockManager`: keeps the blocks of unfinished batches, by name. Knows nothing of batches.
//!
//! ```text
//!  put ─▶ StoredBlock { Location::Memory } ──evict, newest first──▶ { Location::Evicted } ─▶ release
//!                        │ for_each_range: from memory            │ for_each_range: read back, a piece at a time
//! ```
//! A block is pinned from its put to its release. The memory budget of its buffers counts its bytes, so the bound
//! `store_bytes_max` holds from the socket to the end of the batch: a full store stops the sockets, never a batch. With a
//! [`Spill`] (there is one with a log, or a directory for files) the newest blocks leave memory when the budget is nearly
//! used up: they are processed last. Any thread may call it.

#[cfg(all(test, tidemill_model))]
mod model;
#[cfg(all(test, not(tidemill_model)))]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;

use crate::blocks::{Block, BlockId, BlockInfo, Receipt};
use crate::error::Result;
use crate::memory::budget::MemoryBudget;
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, Mutex};

pub use crate::blocks::spill::Spill;

/// The records of a block that has left memory.
pub trait EvictedBlock: Send + Sync + fmt::Debug {
    /// Calls `each` with ranges of whole records, which together are the block's, in order.
    ///
    /// # Errors
    /// If they cannot be read back as they were written; `each` may have seen some of them by then.
    fn for_each_range(&self, each: &mut dyn FnMut(&[u8])) -> Result<()>;
}

/// The place of blocks that were durable before they were stored: they leave memory without being written.
pub trait Durable: Send + Sync + fmt::Debug {
    /// The name of the place, for messages.
    fn name(&self) -> String;

    /// Checks that this many bytes, and the ends of the batches that wait, can still be made durable.
    ///
    /// # Errors
    /// If they cannot: the backlog must not grow.
    fn has_room(&self, bytes: u64) -> io::Result<()>;

    /// The records of a block, if all of them stay there until its batch is committed, and the most bytes that reading
    /// them holds in memory.
    fn find(&self, block: &Block) -> Option<(Arc<dyn EvictedBlock>, usize)>;
}

/// The place of a block's records.
#[derive(Clone, Debug)]
enum Location {
    Memory(Arc<Block>),
    Evicted(Arc<dyn EvictedBlock>),
}

/// A block that is kept: its facts, and its records, wherever they are.
#[derive(Debug)]
pub struct StoredBlock {
    /// The facts of the block.
    pub info: BlockInfo,
    receipts: Vec<Receipt>,
    held: Mutex<Location>,
}

impl StoredBlock {
    /// A block whose records are in memory.
    pub fn new(block: Arc<Block>) -> Arc<Self> {
        Arc::new(StoredBlock {
            info: block.info.clone(),
            receipts: block.receipts().cloned().collect(),
            held: Mutex::new(Location::Memory(block)),
        })
    }

    /// A block whose records are not in memory.
    pub fn elsewhere(info: BlockInfo, stowed: Arc<dyn EvictedBlock>) -> Arc<Self> {
        let held = Mutex::new(Location::Evicted(stowed));
        Arc::new(StoredBlock { info, receipts: Vec::new(), held })
    }

    /// Its batch is committed: acknowledges the receipts that wait for that.
    fn committed(&self) {
        for receipt in &self.receipts {
            receipt.to.acknowledge(receipt.upto);
        }
    }

    /// Calls `each` with the ranges, in the order in which they were received. Reads back what is not in memory, a piece at
    /// a time, so a task holds no more of it than that.
    ///
    /// # Errors
    /// If it is not in memory and cannot be read back; `each` may have seen a part of it.
    pub fn for_each_range(&self, mut each: impl FnMut(&[u8])) -> Result<()> {
        // Cloned, so that the block can leave memory while it is read.
        let held = self.held.lock().clone();
        match held {
            Location::Memory(block) => {
                block.ranges().for_each(|range| each(range));
                Ok(())
            }
            Location::Evicted(stowed) => stowed.for_each_range(&mut each),
        }
    }

    /// The block, if it is in memory; it stays there for as long as this is held.
    pub fn in_memory(&self) -> Option<Arc<Block>> {
        match &*self.held.lock() {
            Location::Memory(block) => Some(Arc::clone(block)),
            Location::Evicted(_) => None,
        }
    }

    /// The block, if it is in memory and nobody reads it: evicting it frees its memory then.
    pub(crate) fn idle(&self) -> Option<Arc<Block>> {
        match &*self.held.lock() {
            Location::Memory(block) if Arc::strong_count(block) == 1 => Some(Arc::clone(block)),
            _ => None,
        }
    }

    /// Replaces the records in memory by their place elsewhere.
    pub(crate) fn evict(&self, stowed: Arc<dyn EvictedBlock>) {
        let left = std::mem::replace(&mut *self.held.lock(), Location::Evicted(stowed));
        // Dropped outside the lock: it may give many buffers back and wake the sockets.
        drop(left);
    }
}

/// See the module. Any thread may call it.
#[derive(Debug)]
pub struct BlockManager {
    blocks: Mutex<Blocks>,
    account: Arc<MemoryBudget>,
    spill: Option<Arc<Spill>>,
}

#[derive(Debug, Default)]
struct Blocks {
    kept: HashMap<BlockId, Kept>,
    /// The blocks that can still leave memory, by the number of their put; empty without a spill.
    movable: BTreeMap<u64, Arc<StoredBlock>>,
    puts: u64,
}

#[derive(Debug)]
struct Kept {
    put: u64,
    block: Arc<StoredBlock>,
}

impl BlockManager {
    /// An empty store whose bytes `account` counts; with a `spill`, blocks leave memory before the budget is used up.
    pub fn new(account: Arc<MemoryBudget>, spill: Option<Arc<Spill>>) -> Self {
        BlockManager { blocks: Mutex::default(), account, spill }
    }

    /// Keeps a block until it is released. Returns it as it is kept.
    ///
    /// # Panics
    /// If a block of that name is kept already: names are used once.
    pub fn put(&self, block: Arc<Block>) -> Arc<StoredBlock> {
        if planted(Planted::PutLooksFirst) {
            self.look();
        }
        let stored = StoredBlock::new(block);
        self.keep(Arc::clone(&stored), self.spill.is_some());
        // Not before it is kept: the spill would look for what can leave memory, and miss it.
        if !planted(Planted::PutLooksFirst) {
            self.look();
        }
        stored
    }

    fn look(&self) {
        if let Some(spill) = &self.spill {
            spill.look();
        }
    }

    /// Keeps a block whose records are not in memory, until it is released.
    ///
    /// # Panics
    /// If a block of that name is kept already: names are used once.
    pub fn put_elsewhere(&self, block: Arc<StoredBlock>) {
        self.keep(block, false);
    }

    fn keep(&self, block: Arc<StoredBlock>, movable: bool) {
        let mut blocks = self.blocks.lock();
        blocks.puts += 1;
        let put = blocks.puts;
        if movable {
            blocks.movable.insert(put, Arc::clone(&block));
        }
        let id = block.info.id;
        let replaced = blocks.kept.insert(id, Kept { put, block });
        drop(blocks);
        assert!(replaced.is_none(), "block {id} was put twice");
    }

    /// The block of that name, if it is kept.
    #[cfg(test)]
    pub(crate) fn get(&self, id: BlockId) -> Option<Arc<StoredBlock>> {
        self.blocks.lock().kept.get(&id).map(|kept| Arc::clone(&kept.block))
    }

    /// Lets the blocks of a committed batch go and acknowledges them; their memory is free once the last task has dropped
    /// them.
    pub fn release(&self, ids: impl IntoIterator<Item = BlockId>) {
        let released: Vec<Kept> = {
            let mut blocks = self.blocks.lock();
            let take = |id| {
                let kept = blocks.kept.remove(&id)?;
                blocks.movable.remove(&kept.put);
                Some(kept)
            };
            ids.into_iter().filter_map(take).collect()
        };
        released.iter().for_each(|kept| kept.block.committed());
        // Dropped outside the lock: it may give thousands of buffers back and wake the sockets.
        drop(released);
    }

    /// Takes out the newest blocks that can leave memory: at least `bytes` in all, if there are as many.
    pub(crate) fn take_movable(&self, bytes: u64) -> Vec<Movable> {
        let (mut taken, mut sum) = (Vec::new(), 0);
        let mut blocks = self.blocks.lock();
        while sum < bytes
            && let Some((put, block)) = blocks.movable.pop_last()
        {
            sum += block.info.bytes;
            taken.push(Movable { put, block });
        }
        taken
    }

    /// Puts back the blocks that stayed in memory after all, unless they were released meanwhile.
    pub(crate) fn put_back(&self, movable: impl IntoIterator<Item = Movable>) {
        let mut blocks = self.blocks.lock();
        for Movable { put, block } in movable {
            let is_kept = blocks.kept.get(&block.info.id).is_some_and(|kept| kept.put == put);
            if is_kept || planted(Planted::SpillPutsBackReleased) {
                blocks.movable.insert(put, block);
            }
        }
    }

    /// The memory budget that bounds the store.
    pub fn account(&self) -> &Arc<MemoryBudget> {
        &self.account
    }
}

/// A block that may leave memory, and the number of its put.
#[derive(Debug)]
pub(crate) struct Movable {
    put: u64,
    pub(crate) block: Arc<StoredBlock>,
}
