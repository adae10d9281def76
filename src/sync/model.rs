//! The primitives under `--cfg tidemill_model`: the same interface on shuttle, which runs one schedule at a time.
//!
//! Time-outs never fire here: a timed wait waits for its signal, and a lost wake-up is reported as a deadlock.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

pub use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// parking_lot's `Mutex`, on the explorer.
#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

/// The guard of a [`Mutex`]; the option lets [`Condvar::wait`] borrow it.
pub struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    /// Creates a mutex.
    pub fn new(value: T) -> Self {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    /// Locks. A poisoned lock needs no handling: its schedule has failed already.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())))
    }

    /// Locks if nobody else holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok().map(|guard| MutexGuard(Some(guard)))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().expect("a guard is only empty inside `wait`")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("a guard is only empty inside `wait`")
    }
}

/// parking_lot's `Condvar`, on the explorer.
#[derive(Debug, Default)]
pub struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    /// Creates a condition variable.
    pub fn new() -> Self {
        Condvar(shuttle::sync::Condvar::new())
    }

    /// Waits for a notification.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let inner = guard.0.take().expect("a guard is only empty inside `wait`");
        guard.0 = Some(self.0.wait(inner).unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A bounded queue with the interface of the lock-free one.
#[derive(Debug)]
pub struct Queue<T> {
    items: shuttle::sync::Mutex<VecDeque<T>>,
    capacity: usize,
}

impl<T> Queue<T> {
    /// Creates a queue that holds at most `capacity` elements.
    pub fn new(capacity: usize) -> Self {
        Queue { items: shuttle::sync::Mutex::new(VecDeque::new()), capacity }
    }

    fn items(&self) -> shuttle::sync::MutexGuard<'_, VecDeque<T>> {
        self.items.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Appends, or gives the element back when the queue is full.
    pub fn push(&self, value: T) -> Result<(), T> {
        let mut items = self.items();
        if items.len() == self.capacity {
            return Err(value);
        }
        items.push_back(value);
        Ok(())
    }

    /// Takes the oldest element.
    pub fn pop(&self) -> Option<T> {
        self.items().pop_front()
    }

    /// Number of elements now.
    pub fn len(&self) -> usize {
        self.items().len()
    }

    /// The most elements that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

pub(super) fn wait_for<T>(
    cond: &Condvar,
    guard: &mut MutexGuard<'_, T>,
    _timeout: std::time::Duration,
) -> bool {
    cond.wait(guard);
    false
}
