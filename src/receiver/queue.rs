//! The bounded queue of ranges between io threads and the block generator, with its wake-up when it has room again.
//!
//! Io threads push without a lock; whoever cuts a block drains. A reader that found the queue full is marked and woken
//! after the next drain. The order that makes this safe is that of `slab::Account`: the reader sets `starved`, then
//! looks at the queue again; a drain takes from the queue, then looks at `starved`.

use crate::block::Range;
use crate::receiver::io::Waker;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, Queue};

/// Ranges that may wait for the next cut. At three quarters a block is cut at once.
pub(crate) const RANGES_MAX: usize = 4096;

/// See the module.
pub(crate) struct RangeQueue {
    ranges: Queue<Range>,
    /// Bytes queued now, as ranges count them.
    bytes: AtomicU64,
    starved: AtomicBool,
    wakers: Mutex<Wakers>,
}

#[derive(Default)]
struct Wakers {
    next: u64,
    list: Vec<(u64, Waker)>,
}

impl RangeQueue {
    pub(crate) fn new(capacity: usize) -> Self {
        RangeQueue {
            ranges: Queue::new(capacity),
            bytes: AtomicU64::new(0),
            starved: AtomicBool::new(false),
            wakers: Mutex::new(Wakers::default()),
        }
    }

    /// Registers an io thread; the number is for [`forget`](RangeQueue::forget).
    pub(crate) fn register(&self, waker: Waker) -> u64 {
        let mut wakers = self.wakers.lock();
        wakers.next += 1;
        let number = wakers.next;
        wakers.list.push((number, waker));
        number
    }

    pub(crate) fn forget(&self, number: u64) {
        self.wakers.lock().list.retain(|(other, _)| *other != number);
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

    /// Takes the oldest range; the caller tells by [`drained`](RangeQueue::drained) when it is through.
    pub(crate) fn pop(&self) -> Option<Range> {
        let range = self.ranges.pop()?;
        self.bytes.fetch_sub(range.bytes.len() as u64, Ordering::SeqCst);
        Some(range)
    }

    /// Wakes the readers that found the queue full.
    pub(crate) fn drained(&self) {
        if self.starved.load(Ordering::SeqCst) && self.starved.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Wakes every reader, for a reason of the caller's: room in the store.
    pub(crate) fn wake(&self) {
        for (_, waker) in &self.wakers.lock().list {
            waker();
        }
    }

    /// Whether a range fits now; if not, the readers are woken after the next drain.
    pub(crate) fn has_room(&self) -> bool {
        if self.len() < self.capacity() {
            return true;
        }
        self.starved.store(true, Ordering::SeqCst);
        self.len() < self.capacity()
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

    /// Whether a block should be cut now rather than at the next tick.
    pub(crate) fn is_filling(&self, block_bytes_max: u64) -> bool {
        self.len() >= self.capacity() / 4 * 3 || self.bytes() >= block_bytes_max
    }
}
