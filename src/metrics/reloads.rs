//! `Reloads`: the number of reloads of a running stream's options, and the outcome of the last. The thread that reads the
//! options writes it; any thread reads it.

use crate::sync::Mutex;
use crate::time::Time;

/// See the module.
#[derive(Debug, Default)]
pub struct Reloads(Mutex<Reloaded>);

/// The outcome of the last reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Number of times that options were read again and applied; 0 at the start.
    pub generation: u64,
    /// The time of the last attempt to reload, if there was one.
    pub at: Option<Time>,
    /// True if a reload failed and none has succeeded since.
    pub failed: bool,
    /// The text about it: what was applied, what needs a restart, or what is wrong.
    pub said: String,
}

impl Reloads {
    /// Records an attempt to reload.
    pub fn record(&self, at: Time, good: bool, said: &str) {
        let mut last = self.0.lock();
        let generation = last.generation + u64::from(good);
        *last = Reloaded { generation, at: Some(at), failed: !good, said: said.to_owned() };
    }

    /// The last attempt.
    pub fn last(&self) -> Reloaded {
        self.0.lock().clone()
    }
}
