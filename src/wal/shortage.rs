//! `Shortage`: the reason why the disk has no room for the log's reserve, and the listeners for the begin of that.
//!
//! The thread `wal-sync` writes it, any thread reads it. It does not know what follows from a shortage.

use crate::sync::{Arc, Mutex};

/// Called when the log has become short of room; it must only post.
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
    /// Begins a shortage: the log lacks the reserve.
    pub(crate) fn begin(&self, reason: Arc<str>) {
        let mut state = self.0.lock();
        if state.reason.replace(reason).is_none()
            && let Some(tell) = &state.listener
        {
            tell();
        }
    }

    /// Ends a shortage: the log has the reserve.
    pub(crate) fn end(&self) {
        self.0.lock().reason = None;
    }

    /// The reason why the log lacks the reserve, if it does.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.0.lock().reason.clone()
    }

    /// Calls the listener each time that a shortage begins, and now if there is one.
    pub(crate) fn on_begin(&self, listener: Listener) {
        let mut state = self.0.lock();
        if state.reason.is_some() {
            listener();
        }
        state.listener = Some(listener);
    }
}
