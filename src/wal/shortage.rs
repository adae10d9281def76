//! `Shortage`: whether the disk has no room for the log's reserve, why, and who is told when that begins.
//!
//! Written by the thread `wal-sync`, read by any. It does not know what follows from it.

use crate::sync::{Arc, Mutex};

/// Told that the log has become short of room; it must only post.
type Listener = Box<dyn Fn() + Send>;

/// See the module.
#[derive(Default)]
pub(crate) struct Shortage(Mutex<State>);

#[derive(Default)]
struct State {
    reason: Option<Arc<str>>,
    listener: Option<Listener>,
}

impl Shortage {
    /// The reserve is not there.
    pub(crate) fn begin(&self, reason: Arc<str>) {
        let mut state = self.0.lock();
        if state.reason.replace(reason).is_none()
            && let Some(tell) = &state.listener
        {
            tell();
        }
    }

    /// The reserve is there.
    pub(crate) fn end(&self) {
        self.0.lock().reason = None;
    }

    /// Why the reserve is not there, if it is not.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.0.lock().reason.clone()
    }

    /// Calls this each time that a shortage begins, and now if there is one.
    pub(crate) fn on_begin(&self, listener: Listener) {
        let mut state = self.0.lock();
        if state.reason.is_some() {
            listener();
        }
        state.listener = Some(listener);
    }
}
