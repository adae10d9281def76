//! `Alarm`: wakes a thread that waits for sockets when a moment has come, so that such a wait obeys the clock, also one
//! that a test drives. Runs on the thread `load-alarm`.

use std::io;

use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mutex, Poison, Signal, StopToken};
use crate::time::{Clock, Moment, Wake};

/// One deadline at a time; dropping it ends its thread.
#[derive(Debug)]
pub(super) struct Alarm {
    /// None while there is nothing to wake for.
    deadline: Arc<Mutex<Option<Moment>>>,
    signal: Signal,
    stop: StopToken,
    thread: Option<Thread>,
}

impl Alarm {
    /// An alarm that is not set; `wake` must not wait.
    pub(super) fn start(
        clock: Arc<dyn Clock>,
        poison: &Poison,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let deadline = Arc::new(Mutex::new(None));
        let (signal, stop) = (Signal::new(), StopToken::new());
        stop.wakes(&signal);
        let (slot, raised, stopped) = (Arc::clone(&deadline), signal.clone(), stop.clone());
        let body = move || {
            while !stopped.is_stopped() {
                let at = *slot.lock();
                if clock.wait(&raised, at) == Wake::Deadline {
                    let mut slot = slot.lock();
                    if *slot == at {
                        *slot = None;
                        wake();
                    }
                }
            }
        };
        let thread = thread::spawn("load-alarm", poison, body)?;
        Ok(Alarm { deadline, signal, stop, thread: Some(thread) })
    }

    /// Replaces the deadline; none means never.
    pub(super) fn set(&self, at: Option<Moment>) {
        let mut deadline = self.deadline.lock();
        if *deadline != at {
            *deadline = at;
            drop(deadline);
            self.signal.raise();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}
