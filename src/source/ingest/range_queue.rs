//! The bounded queue of ranges between io threads and the block cutter, with its wake-up when it has room again.
//!
//! Io threads push without a lock; the cutter or the chunk logger drains. A [`Gate`] wakes a reader that found the queue full
//! after the next drain.

use crate::blocks::Range;
use crate::sync::{AtomicU64, Gate, Ordering, Queue, Waker};

/// Ranges that may wait for the next cut. At three quarters a block is cut at once.
/// A few under the schedule explorer, so that it meets a full queue.
pub(crate) const RANGES_MAX: usize = if cfg!(tidemill_model) { 4 } else { 4096 };

/// The most full blocks that wait for the next cut: if a log is slower than the sockets, a longer lead gains nothing, and a tick
/// would have to wait for it.
pub(crate) const QUEUED_BLOCKS_MAX: u64 = 4;

/// See the module.
pub(crate) struct RangeQueue {
    ranges: Queue<Range>,
    /// The number of bytes at which readers wait.
    bytes_max: u64,
    /// Bytes that are queued now, and those that were taken and are not gone.
    bytes: AtomicU64,
    gate: Gate,
}

impl RangeQueue {
    /// An empty queue for `capacity` ranges, in which readers find no room at `bytes_max` bytes.
    pub(crate) fn new(capacity: usize, bytes_max: u64) -> Self {
        RangeQueue {
            ranges: Queue::new(capacity),
            bytes_max,
            bytes: AtomicU64::new(0),
            gate: Gate::default(),
        }
    }

    /// Registers an io thread; the number is for [`forget`](RangeQueue::forget).
    pub(crate) fn register(&self, waker: Waker) -> u64 {
        self.gate.register(waker)
    }

    pub(crate) fn forget(&self, number: u64) {
        self.gate.forget(number);
    }

    /// Appends a range, or gives it back when the queue is full.
    pub(crate) fn push(&self, range: Range) -> Result<(), Range> {
        let bytes = range.bytes.len() as u64;
        // Counted before it can be popped, so that the count never goes below zero.
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        self.ranges.push(range).inspect_err(|_| {
            self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        })
    }

    /// Takes the oldest range; the caller calls [`drained`](RangeQueue::drained) when it has finished.
    pub(crate) fn pop(&self) -> Option<Range> {
        let range = self.take()?;
        self.gone(range.bytes.len() as u64);
        Some(range)
    }

    /// The same for a caller that keeps it: its bytes count until they are [gone](RangeQueue::gone).
    pub(crate) fn take(&self) -> Option<Range> {
        self.ranges.pop()
    }

    /// Stops counting this many bytes that were taken.
    pub(crate) fn gone(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Wakes the readers that found the queue full.
    pub(crate) fn drained(&self) {
        self.gate.opened(|| true);
    }

    /// Wakes every reader, for a reason of the caller's: room in the store.
    pub(crate) fn wake(&self) {
        self.gate.wake();
    }

    /// Returns true if more may be read now; if not, the readers are woken after the next drain.
    pub(crate) fn has_room(&self) -> bool {
        self.gate.has_room(|| self.is_full())
    }

    /// True if there is no room; marks nobody as starved.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.capacity() || self.bytes() >= self.bytes_max
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.ranges.capacity()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// True if a block should be cut now rather than at the next tick.
    pub(crate) fn is_filling(&self, block_bytes_max: u64) -> bool {
        self.len() >= self.capacity() / 4 * 3 || self.bytes() >= block_bytes_max
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use bytes::Bytes;

    use super::*;
    use crate::sync::explore::{check, thread};
    use crate::sync::planted::Planted;
    use crate::sync::{Arc, Signal};

    const READERS: u8 = 2;
    const EACH: u8 = 3;

    fn range(reader: u8, number: u8) -> Range {
        Range::new(Bytes::copy_from_slice(&[reader, number]), 1)
    }

    /// An io thread: pushes its ranges, and waits for its waker when the queue is full.
    fn read(queue: &RangeQueue, reader: u8, pushed: &Signal) {
        let woken = Signal::new();
        let raise = woken.clone();
        let number = queue.register(Arc::new(move || raise.raise()));
        for at in 0..EACH {
            let mut left = Some(range(reader, at));
            while let Some(range) = left.take() {
                left = queue.push(range).err();
                if left.is_some() && !queue.has_room() {
                    woken.wait();
                }
            }
            pushed.raise();
        }
        queue.forget(number);
    }

    /// A cutter drains what is queued, as often as something was pushed.
    #[test]
    fn ranges_arrive_once_in_order_and_no_wake_up_is_lost() {
        check(2_000, &[Planted::GateSkipsRecheck, Planted::GateClearsLate], || {
            let (queue, pushed) = (Arc::new(RangeQueue::new(1, u64::MAX)), Signal::new());
            let readers = [0, 1].map(|reader| {
                let (queue, pushed) = (Arc::clone(&queue), pushed.clone());
                thread("reader", move || read(&queue, reader, &pushed))
            });
            let mut next = [0; READERS as usize];
            while next.iter().any(|count| *count < EACH) {
                while let Some(range) = queue.pop() {
                    let (reader, number) = (usize::from(range.bytes[0]), range.bytes[1]);
                    assert_eq!(number, next[reader], "reader {reader}");
                    next[reader] += 1;
                }
                queue.drained();
                if next.iter().any(|count| *count < EACH) {
                    pushed.wait();
                }
            }
            drop(readers);
            assert_eq!((queue.len(), queue.bytes()), (0, 0));
        });
    }
}
