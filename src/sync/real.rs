//! The primitives of a normal build: parking_lot locks, std atomics, crossbeam's bounded lock-free queue.

use crossbeam::queue::ArrayQueue;

pub use parking_lot::{Condvar, Mutex, MutexGuard};
pub use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// A bounded lock-free queue for several producers and consumers.
#[derive(Debug)]
pub struct Queue<T>(ArrayQueue<T>);

impl<T> Queue<T> {
    /// Creates a queue that holds at most `capacity` elements.
    ///
    /// # Panics
    /// If `capacity` is zero.
    pub fn new(capacity: usize) -> Self {
        Queue(ArrayQueue::new(capacity))
    }

    /// Appends, or gives the element back when the queue is full.
    pub fn push(&self, value: T) -> Result<(), T> {
        self.0.push(value)
    }

    /// Takes the oldest element.
    pub fn pop(&self) -> Option<T> {
        self.0.pop()
    }

    /// Number of elements now; other threads may change it at once.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The most elements that fit.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

/// Waits until `cond` is notified or `timeout` has passed; true if it timed out.
pub(super) fn wait_for<T>(
    cond: &Condvar,
    guard: &mut MutexGuard<'_, T>,
    timeout: std::time::Duration,
) -> bool {
    cond.wait_for(guard, timeout).timed_out()
}
