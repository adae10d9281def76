//! `Poison`: the first fatal fault of the engine, reported to everyone who must stop for it.

use std::fmt;

use super::planted::{Planted, planted};
use super::{Arc, Mutex};

type Listener = Box<dyn Fn(&str) + Send>;

/// Set once, by the first thread that finds that the engine cannot continue. So work never stops silently.
#[derive(Clone, Default)]
pub struct Poison(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    reason: Option<String>,
    listeners: Vec<Listener>,
}

impl fmt::Debug for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Poison").field(&self.reason()).finish()
    }
}

impl Poison {
    /// Creates an engine's poison, not set.
    pub fn new() -> Self {
        Poison::default()
    }

    /// Records the fault if it is the first, and notifies every listener. Listeners only post; they must not call back.
    pub fn set(&self, reason: impl Into<String>) {
        let mut state = self.0.lock();
        if state.reason.is_none() {
            let reason = reason.into();
            for listener in &state.listeners {
                listener(&reason);
            }
            state.reason = Some(reason);
        }
    }

    /// The first fault, if there was one.
    pub fn reason(&self) -> Option<String> {
        self.0.lock().reason.clone()
    }

    /// Calls `listener` at the first fault; at once if it has already happened.
    pub fn on_set(&self, listener: impl Fn(&str) + Send + 'static) {
        let mut state = self.0.lock();
        if let Some(reason) = &state.reason {
            listener(reason);
        }
        if planted(Planted::PoisonCheckedFirst) {
            drop(state);
            state = self.0.lock();
        }
        state.listeners.push(Box::new(listener));
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::sync::explore::{check, thread};

    #[test]
    fn every_listener_is_told_the_first_fault_once() {
        check(4_000, &[Planted::PoisonCheckedFirst], || {
            let (poison, told) = (Poison::new(), Arc::new(Mutex::new(Vec::new())));
            let faults = ["a", "b"].map(|reason| {
                let poison = poison.clone();
                thread("fault", move || poison.set(reason))
            });
            for _ in 0..2 {
                let told = Arc::clone(&told);
                poison.on_set(move |reason| told.lock().push(reason.to_owned()));
            }
            faults.into_iter().for_each(crate::sync::thread::Thread::join);
            let reason = poison.reason().expect("set twice");
            assert_eq!(*told.lock(), [reason.as_str(), reason.as_str()]);
        });
    }
}
