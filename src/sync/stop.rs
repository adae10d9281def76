//! `StopToken`: tells threads to stop, and wakes them from whatever they wait for.

use super::planted::{Planted, planted};
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
    /// Creates a token that is not stopped.
    pub fn new() -> Self {
        StopToken::default()
    }

    /// True if [`stop`](StopToken::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Stops: raises every registered signal, and from now on each one as it is registered.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        for signal in self.0.waiters.lock().iter() {
            signal.raise();
        }
    }

    /// Registers a signal that a stop raises. If the stop has already happened, raises it at once.
    pub fn wakes(&self, signal: &Signal) {
        let stopped_before = planted(Planted::StopCheckedFirst).then(|| self.is_stopped());
        self.0.waiters.lock().push(signal.clone());
        if stopped_before.unwrap_or_else(|| self.is_stopped()) {
            signal.raise();
        }
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::sync::explore::{check, thread};

    #[test]
    fn a_stop_wakes_whoever_registers_before_or_after_it() {
        check(4_000, &[Planted::StopCheckedFirst, Planted::SignalForgetsRaise], || {
            let token = StopToken::new();
            let _waiters = [0, 1].map(|_| {
                let token = token.clone();
                thread("waiter", move || {
                    let signal = Signal::new();
                    token.wakes(&signal);
                    signal.wait();
                    assert!(token.is_stopped());
                })
            });
            token.stop();
        });
    }
}
