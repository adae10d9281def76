//! `Feed`: what the io threads, the cutter and the thread `rxN-push` of one source share. It owns the queues between them
//! and counts the blocks in flight; it makes no blocks and knows no log.

use crate::blocks::Block;
use crate::framing::Framing;
use crate::memory::budget::MemoryBudget;
use crate::source::ingest::handover::{Cut, Push};
use crate::source::ingest::range_queue::RangeQueue;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mailbox, Ordering, SendError, Signal, StopToken};
use crate::time::{Clock, Moment, Time};

/// See the module.
pub(crate) struct Feed {
    /// The number of the source, part of each block's name.
    pub(crate) source: u32,
    pub(crate) framing: Framing,
    pub(crate) block_bytes_max: u64,
    pub(crate) clock: Arc<dyn Clock>,
    /// Counts the bytes that are copied into ranges.
    pub(crate) account: Arc<MemoryBudget>,
    pub(crate) queue: RangeQueue,
    pub(crate) first_read: FirstRead,
    /// To the push thread.
    pub(crate) pushes: Mailbox<Push>,
    /// Not zero while something was taken from the range queue and is not stored.
    pub(crate) in_flight: AtomicUsize,
    /// Makes the push thread give up what it holds.
    pub(crate) stop: StopToken,
    /// Raised after each push, for a stop that waits for room.
    pub(crate) progress: Signal,
}

impl Feed {
    /// Lets the mark of a tick follow the blocks that are on their way.
    pub(crate) fn mark(&self, time: Time) -> Cut {
        match self.pushes.try_send(Push::Tick(time)) {
            Ok(()) => Cut::Pending,
            Err(SendError::Full(_)) => Cut::Held,
            Err(SendError::Closed(_)) => Cut::Settled,
        }
    }

    /// True if the push queue has room for one more block, and for a tick's mark behind it.
    pub(crate) fn has_room_for_a_block(&self) -> bool {
        self.pushes.len() + 1 < self.pushes.capacity()
    }

    /// Queues a block for the push. The caller has asked for room, under the lock that every sender of blocks holds.
    pub(crate) fn send(&self, block: Arc<Block>) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let sent = self.pushes.try_send(Push::Block(block));
        assert!(sent.is_ok(), "room was checked under the lock that every sender of blocks holds");
    }
}

/// The time when the first range since the last cut was queued. Set before the range is queued, so a block may lack it but
/// never has a later one.
pub(crate) struct FirstRead(AtomicU64);

/// No range was queued since the last cut.
const NOTHING_READ: u64 = u64::MAX;

impl Default for FirstRead {
    fn default() -> Self {
        FirstRead(AtomicU64::new(NOTHING_READ))
    }
}

impl FirstRead {
    /// Notes that the next block's oldest record is read now, unless one is noted already.
    pub(crate) fn note(&self, clock: &dyn Clock) {
        if self.0.load(Ordering::SeqCst) == NOTHING_READ {
            let now = clock.now().as_nanos();
            // If the exchange fails, another io thread came first, with an earlier moment.
            let (set, order) = (&self.0, Ordering::SeqCst);
            let _ = set.compare_exchange(NOTHING_READ, now, order, order);
        }
    }

    /// Takes the time for a block or chunk that begins.
    pub(crate) fn take(&self) -> Option<Moment> {
        let nanos = self.0.swap(NOTHING_READ, Ordering::SeqCst);
        (nanos != NOTHING_READ).then(|| Moment::from_nanos(nanos))
    }
}
