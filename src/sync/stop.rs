//! `StopToken`: tells threads to stop, and wakes them out of whatever they wait for.

use super::{Arc, AtomicBool, Mutex, Ordering, Signal};

/// Shared by the owner that stops and the threads that obey. Clones are handles of the same token.
#[derive(Clone, Debug, Default)]
pub struct StopToken(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stopped: AtomicBool,
    waiters: Mutex<Vec<Signal>>,
}

impl StopToken {
    /// A token that has not been stopped.
    pub fn new() -> Self {
        StopToken::default()
    }

    /// Whether [`stop`](StopToken::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Stops: every registered signal is raised, now and for those registered later.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        for signal in self.0.waiters.lock().iter() {
            signal.raise();
        }
    }

    /// Registers a signal that a stop raises; raised at once if the stop already happened.
    pub fn wakes(&self, signal: &Signal) {
        self.0.waiters.lock().push(signal.clone());
        if self.is_stopped() {
            signal.raise();
        }
    }
}
