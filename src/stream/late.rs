//! `Late`: that a graph is run by one stream at a time, and what is told of what comes after its start. Any thread.
//!
//! What a run is made of is read once, at its start. An output that is registered later would never run, and nobody would say
//! so; its method returns nothing, so the run that misses it fails.

use std::fmt;

use crate::sync::{Arc, Mutex};

/// Called with what came too late, in words.
pub type OnLate = Arc<dyn Fn(String) + Send + Sync>;

/// See the module. Clones are of the same graph.
#[derive(Clone, Default)]
pub(super) struct Late(Arc<Mutex<Option<OnLate>>>);

/// While it is there, a run lasts.
pub struct RunLease(Late);

impl fmt::Debug for RunLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunLease")
    }
}

impl Late {
    /// A run begins; none if one lasts.
    pub(super) fn begin(&self, on_late: OnLate) -> Option<RunLease> {
        let mut lasting = self.0.lock();
        if lasting.is_some() {
            return None;
        }
        *lasting = Some(on_late);
        Some(RunLease(self.clone()))
    }

    /// Whether a run lasts, which is told what comes too late.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) -> bool {
        // Called without the lock: it may end the run.
        let lasting = self.0.lock().clone();
        lasting.as_ref().is_some_and(|on_late| {
            on_late(what());
            true
        })
    }

    /// Whether a run lasts.
    pub(super) fn is_running(&self) -> bool {
        self.0.lock().is_some()
    }
}

impl Drop for RunLease {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}
