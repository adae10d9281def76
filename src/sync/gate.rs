//! `Gate`: readers that found no room are woken once there is room again.
//!
//! A reader that finds no room marks the gate, then looks for room again. Whoever makes room makes it, then looks at the
//! mark. All accesses are sequentially consistent, so one of the two sees the other and no wake-up is lost. The gate does
//! not know what the room is: its owner passes that as a closure. Any thread may call it; the explorer's models lie with
//! its owners, the range queue and the memory budget.

use super::planted::{Planted, planted};
use super::{Arc, AtomicBool, Mutex, Ordering};

/// Wakes one reader; it must only post.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// See the module.
#[derive(Default)]
pub struct Gate {
    /// A reader found no room since the last wake-up.
    marked: AtomicBool,
    wakers: Mutex<Wakers>,
}

#[derive(Default)]
struct Wakers {
    next: u64,
    list: Vec<(u64, Waker)>,
}

impl Gate {
    /// Registers a reader; the number is for [`forget`](Gate::forget).
    pub fn register(&self, waker: Waker) -> u64 {
        let mut wakers = self.wakers.lock();
        wakers.next += 1;
        let number = wakers.next;
        wakers.list.push((number, waker));
        number
    }

    /// Removes a reader.
    pub fn forget(&self, number: u64) {
        self.wakers.lock().list.retain(|(other, _)| *other != number);
    }

    /// Returns true if there is room; if not, the readers are woken once [`opened`](Gate::opened) finds some.
    pub fn has_room(&self, is_full: impl Fn() -> bool) -> bool {
        if !is_full() {
            return true;
        }
        self.marked.store(true, Ordering::SeqCst);
        !is_full() && !planted(Planted::GateSkipsRecheck)
    }

    /// Room was made: wakes the readers if one of them found none, and `is_enough`.
    pub fn opened(&self, is_enough: impl Fn() -> bool) {
        if planted(Planted::GateClearsLate) && self.marked.load(Ordering::SeqCst) && is_enough() {
            self.wake();
            self.marked.store(false, Ordering::SeqCst);
        }
        if self.marked.load(Ordering::SeqCst)
            && is_enough()
            && self.marked.swap(false, Ordering::SeqCst)
        {
            self.wake();
        }
    }

    /// Wakes every reader, whether or not it found no room.
    pub fn wake(&self) {
        for (_, waker) in &self.wakers.lock().list {
            waker();
        }
    }
}
