//! `BlockManager`: keeps the blocks of unfinished batches, by name. Knows nothing of batches.
//!
//! A block is pinned from its put to its release; its bytes are counted by the account of the slabs it lies in, so the
//! bound `store_bytes_max` holds from the socket to the end of the batch: a full store stops the sockets, never a batch.

use std::collections::HashMap;

use crate::block::{Block, BlockId};
use crate::slab::Account;
use crate::sync::{Arc, Mutex};

/// See the module. Any thread may call it.
#[derive(Debug)]
pub struct BlockManager {
    blocks: Mutex<HashMap<BlockId, Arc<Block>>>,
    account: Arc<Account>,
}

impl BlockManager {
    /// An empty store whose bytes `account` counts.
    pub fn new(account: Arc<Account>) -> Self {
        BlockManager { blocks: Mutex::new(HashMap::new()), account }
    }

    /// Keeps a block until it is released.
    ///
    /// # Panics
    /// If a block of that name is kept already: names are used once.
    pub fn put(&self, block: Arc<Block>) {
        let id = block.id();
        let replaced = self.blocks.lock().insert(id, block);
        assert!(replaced.is_none(), "block {id} was put twice");
    }

    /// The block of that name, if it is kept.
    pub fn get(&self, id: BlockId) -> Option<Arc<Block>> {
        self.blocks.lock().get(&id).cloned()
    }

    /// Lets the blocks of committed batches go, and tells those who wait for that; their memory is free once the last
    /// task has dropped them.
    pub fn release(&self, ids: impl IntoIterator<Item = BlockId>) {
        let released: Vec<Arc<Block>> = {
            let mut blocks = self.blocks.lock();
            ids.into_iter().filter_map(|id| blocks.remove(&id)).collect()
        };
        released.iter().for_each(|block| block.committed());
        // Dropped outside the lock: it may give thousands of buffers back and wake the sockets.
        drop(released);
    }

    /// How many blocks are kept.
    pub fn len(&self) -> usize {
        self.blocks.lock().len()
    }

    /// Whether no block is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The account that bounds the store.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }
}
