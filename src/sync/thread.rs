//! Named threads, each with an owner that joins it. A panic in one poisons the engine.

use std::io;

use super::planted::{Planted, planted};
use super::{Arc, AtomicBool, Ordering, Poison, Signal};

#[cfg(tidemill_model)]
use shuttle::thread as spawner;
#[cfg(not(tidemill_model))]
use std::thread as spawner;

/// A running thread. Dropping it waits for its end, unless it was [abandoned](Thread::abandon) or drops itself.
#[derive(Debug)]
pub struct Thread {
    name: String,
    handle: Option<spawner::JoinHandle<()>>,
    done: Done,
}

/// Raised when a thread has run its body.
#[derive(Clone, Debug, Default)]
struct Done {
    flag: Arc<AtomicBool>,
    signal: Signal,
}

/// Starts a named thread. A panic in `body` sets `poison` with the thread's name and the panic's text.
///
/// # Errors
/// If the operating system gives no more threads.
pub fn spawn(
    name: impl Into<String>,
    poison: &Poison,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<Thread> {
    let name = name.into();
    let done = Done::default();
    let (finished, poison, label) = (done.clone(), poison.clone(), name.clone());
    let run = move || {
        run_body(&label, &poison, body);
        finished.flag.store(true, Ordering::SeqCst);
        finished.signal.raise();
    };
    #[cfg(not(tidemill_model))]
    let handle = spawner::Builder::new().name(name.clone()).spawn(run)?;
    #[cfg(tidemill_model)]
    let handle = spawner::spawn(run);
    Ok(Thread { name, handle: Some(handle), done })
}

#[cfg(not(tidemill_model))]
fn run_body(name: &str, poison: &Poison, body: impl FnOnce()) {
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        poison.set(format!("thread `{name}` panicked: {}", panic_text(panic.as_ref())));
    }
}

/// The explorer needs the panic itself: it reports a failed schedule by it.
#[cfg(tidemill_model)]
fn run_body(_name: &str, _poison: &Poison, body: impl FnOnce()) {
    body();
}

/// The text of a caught panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

impl Thread {
    /// The name of the thread.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True if the thread's body has ended.
    pub fn is_done(&self) -> bool {
        self.done.flag.load(Ordering::SeqCst)
    }

    /// Raised when the body ends; for a wait with a deadline.
    pub fn done(&self) -> &Signal {
        &self.done.signal
    }

    /// Waits for the thread's end.
    pub fn join(mut self) {
        self.join_now();
    }

    /// Lets a stuck thread go: it is no longer waited for and ends with the process.
    pub fn abandon(mut self) {
        self.handle = None;
    }

    fn join_now(&mut self) {
        if let Some(handle) = self.handle.take() {
            // A callback may drop the owner of its own thread, which then ends with that callback.
            let own = handle.thread().id() == spawner::current().id();
            if own && !planted(Planted::ThreadJoinsItself) {
                return;
            }
            // The thread itself has already turned a panic into poison.
            let _ = handle.join();
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.join_now();
    }
}
