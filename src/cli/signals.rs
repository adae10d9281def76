//! Ctrl-C and SIGTERM, on the thread `signals`: the first one asks for a stop in order, a second one ends the process.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::error::{Error, Result};
use crate::sync::Poison;
use crate::sync::thread::{self, Thread};

/// The thread that waits for signals; dropping it ends it.
pub(super) struct SignalWatch {
    handle: Handle,
    thread: Option<Thread>,
}

impl SignalWatch {
    /// Calls `stop` at the first signal, and `at_once` at the second, before it ends the process.
    pub(super) fn start(
        stop: impl Fn() + Send + 'static,
        at_once: impl Fn() + Send + 'static,
        poison: &Poison,
    ) -> Result<Self> {
        let system = |err| Error::io("cannot watch signals", err);
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(system)?;
        let handle = signals.handle();
        let body = move || {
            for (count, _) in signals.forever().enumerate() {
                if count > 0 {
                    at_once();
                    signal_hook::low_level::exit(1);
                }
                stop();
            }
        };
        let thread = thread::spawn("signals", poison, body).map_err(system)?;
        Ok(SignalWatch { handle, thread: Some(thread) })
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
        self.thread.take().into_iter().for_each(Thread::join);
    }
}
