//! `Signal`: one thread waits, any thread raises; a raise before the wait is not lost.

use std::time::Duration;

use super::Arc;
use super::planted::{Planted, planted};
use super::primitives::{self, Condvar, Mutex};

/// A latched wake-up. [`raise`](Signal::raise) sets it, a wait takes it; several raises before a wait count once.
///
/// Clones are handles of the same signal. Everything in the engine that waits with a deadline waits on a signal, so that a
/// manual clock can wake every sleeper (see `time::Clock::wait`).
#[derive(Clone, Debug, Default)]
pub struct Signal(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    raised: Mutex<bool>,
    cond: Condvar,
}

impl Signal {
    /// Creates a signal that is not raised.
    pub fn new() -> Self {
        Signal::default()
    }

    /// Wakes the waiting thread, or lets the next wait return at once.
    pub fn raise(&self) {
        let mut raised = self.0.raised.lock();
        if !*raised {
            *raised = true;
            drop(raised);
            self.0.cond.notify_all();
        }
    }

    /// Takes the signal if it is raised.
    pub fn take(&self) -> bool {
        std::mem::take(&mut *self.0.raised.lock())
    }

    /// Waits until the signal is raised, and takes it.
    pub fn wait(&self) {
        let mut raised = self.0.raised.lock();
        if planted(Planted::SignalForgetsRaise) {
            *raised = false;
        }
        while !*raised {
            self.0.cond.wait(&mut raised);
        }
        *raised = false;
    }

    /// Waits at most `timeout` of real time. True if the signal was raised, which takes it. For `time`'s system clock.
    pub(crate) fn wait_at_most(&self, timeout: Duration) -> bool {
        let mut raised = self.0.raised.lock();
        if !*raised {
            primitives::wait_for(&self.0.cond, &mut raised, timeout);
        }
        std::mem::take(&mut *raised)
    }

    /// True if both are handles of one signal.
    pub fn same(&self, other: &Signal) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::sync::explore::{check, thread};
    use crate::sync::{AtomicUsize, Ordering};

    #[test]
    fn no_raise_is_lost() {
        check(4_000, &[Planted::SignalForgetsRaise], || {
            let (signal, count) = (Signal::new(), Arc::new(AtomicUsize::new(0)));
            let raisers = [0, 1].map(|_| {
                let (signal, count) = (signal.clone(), Arc::clone(&count));
                thread("raiser", move || {
                    count.fetch_add(1, Ordering::SeqCst);
                    signal.raise();
                })
            });
            while count.load(Ordering::SeqCst) < raisers.len() {
                signal.wait();
            }
        });
    }
}
