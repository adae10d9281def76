//! `Stored`: the last step of the receive path. A block goes to the store and the tracker; the loop learns only the progress of
//! a source. Runs on the threads that hand blocks over; it knows nothing of batches.

use crate::blocks::Block;
use crate::blocks::manager::{BlockManager, StoredBlock};
use crate::blocks::tracker::BlockTracker;
use crate::error::Result;
use crate::source::ingest::handover::BlockTarget;
use crate::sync::Arc;
use crate::time::{Clock, Time};

use super::{Message, Scheduler};

/// See the module.
pub(crate) struct Stored {
    pub(crate) store: Arc<BlockManager>,
    pub(crate) tracker: Arc<BlockTracker>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) scheduler: Scheduler,
}

impl Stored {
    /// Stores a block whose records are in the log.
    pub(crate) fn store_elsewhere(&self, block: Arc<StoredBlock>) {
        self.store.put_elsewhere(Arc::clone(&block));
        self.tracker.add(block);
    }
}

impl BlockTarget for Stored {
    fn push(&self, block: &Arc<Block>) -> Result<()> {
        self.tracker.add(self.store.put(Arc::clone(block)));
        Ok(())
    }

    fn push_now(&self, block: &Arc<Block>) -> bool {
        self.push(block).is_ok()
    }

    fn reached(&self, source: u32, time: Time) {
        let at = self.clock.now();
        self.scheduler.post(Message::Reached { source, time, at });
    }
}
