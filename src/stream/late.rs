//! `Late`: lets one stream at a time run a graph, and reports what is registered after its start. Any thread.
//!
//! A run reads the graph once, at its start. An output that is registered later would never run, without a word. Its method
//! returns nothing, so the run that misses it fails.

use std::fmt;

use crate::sync::{Arc, Mutex};

/// Called with a description of what came too late.
pub type OnLate = Arc<dyn Fn(String) + Send + Sync>;

/// See the module. Clones are of the same graph.
#[derive(Clone, Default)]
pub(super) struct Late(Arc<Mutex<Option<OnLate>>>);

/// A run of the graph; it ends when this is dropped.
pub struct RunLease(Late);

impl fmt::Debug for RunLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunLease")
    }
}

impl Late {
    /// Begins a run; `None` if one lasts already.
    pub(super) fn begin(&self, on_late: OnLate) -> Option<RunLease> {
        let mut lasting = self.0.lock();
        if lasting.is_some() {
            return None;
        }
        *lasting = Some(on_late);
        Some(RunLease(self.clone()))
    }

    /// Notifies the run of something that came too late; false if there is no run.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) -> bool {
        // Called without the lock: it may end the run.
        let lasting = self.0.lock().clone();
        lasting.as_ref().is_some_and(|on_late| {
            on_late(what());
            true
        })
    }

    /// True while a run lasts.
    pub(super) fn is_running(&self) -> bool {
        self.0.lock().is_some()
    }
}

impl Drop for RunLease {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}
