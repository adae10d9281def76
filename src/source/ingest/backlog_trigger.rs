//! `BacklogTrigger`: counts the records that can be cut, over all receivers, and notifies when there are enough for a batch.
//!
//! Io threads add records, the job loop takes those that a batch was given. It is notified only when the count passes the goal,
//! so a fast stream does not flood the loop; after each batch the loop looks at the level itself.

use crate::sync::{AtomicU64, Ordering};

/// See the module.
pub(crate) struct BacklogTrigger {
    /// Records queued for the next cut or cut, and not given to a batch.
    count: AtomicU64,
    goal: u64,
    tell: Box<dyn Fn() + Send + Sync>,
}

impl BacklogTrigger {
    /// Calls `tell`, which must only post, whenever the count reaches `goal`.
    pub(crate) fn new(goal: u64, tell: impl Fn() + Send + Sync + 'static) -> Self {
        BacklogTrigger { count: AtomicU64::new(0), goal, tell: Box::new(tell) }
    }

    /// Adds records that can be cut.
    pub(crate) fn add(&self, records: u64) {
        let before = self.count.fetch_add(records, Ordering::SeqCst);
        if before < self.goal && before.saturating_add(records) >= self.goal {
            (self.tell)();
        }
    }

    /// Subtracts records that a batch was given.
    pub(crate) fn take(&self, records: u64) {
        self.count.fetch_sub(records, Ordering::SeqCst);
    }

    /// Returns true if there are enough records for a batch.
    pub(crate) fn is_enough(&self) -> bool {
        self.count.load(Ordering::SeqCst) >= self.goal
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::sync::{Arc, AtomicUsize};

    #[test]
    fn each_passing_of_the_goal_is_told_once() {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let arrivals = BacklogTrigger::new(10, move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let check =
            |expected| assert_eq!((told.load(Ordering::SeqCst), arrivals.is_enough()), expected);
        arrivals.add(9);
        check((0, false));
        arrivals.add(1);
        check((1, true));
        arrivals.add(25);
        check((1, true));
        arrivals.take(20);
        check((1, true));
        arrivals.take(10);
        check((1, false));
        arrivals.add(100);
        check((2, true));
    }
}
