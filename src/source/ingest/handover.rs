//! `BlockTarget` and the messages on the way to it: blocks, ticks and the outcome of a cut. The cutter and the thread `rxN-push`
//! share them. It knows nothing of queues and logs.

use std::time::Duration;

use crate::blocks::Block;
use crate::error::Result;
use crate::sync::Arc;
use crate::time::Time;

/// Wait after a push that failed, before the same block is pushed again.
pub(crate) const PUSH_RETRY: Duration = Duration::from_millis(50);

/// The destination of blocks. Called on the push thread.
pub(crate) trait BlockTarget: Send + Sync {
    /// Stores a block and makes it known; on an error the same block is pushed again.
    fn push(&self, block: &Arc<Block>) -> Result<()>;

    /// Stores a block and makes it known if that need not wait for anything, not even a disk; otherwise returns false, and the
    /// block is pushed. Called by the cutter, with its lock held.
    fn push_now(&self, _block: &Arc<Block>) -> bool {
        false
    }

    /// Everything cut at the tick `time` has been pushed.
    fn reached(&self, source: u32, time: Time);
}

/// The outcome of a tick's cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Everything that was read before the tick is stored already.
    Settled,
    /// [`BlockTarget::reached`] follows once it is.
    Pending,
    /// The push queue is full: the queued ranges join a later batch.
    Held,
}

pub(crate) enum Push {
    Block(Arc<Block>),
    Tick(Time),
    /// To the chunk logger: the durable chunks become a block.
    Cut,
}
