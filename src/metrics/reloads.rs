//! `Reloads`: how often the options of a running stream were read again, and how that ended. Written by the thread that
//! reads them, read by any.

use crate::sync::Mutex;
use crate::time::Time;

/// See the module.
#[derive(Debug, Default)]
pub struct Reloads(Mutex<Reloaded>);

/// How the last reload ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// How often options were read again and applied; 0 at the start.
    pub generation: u64,
    /// When the last reload was tried, if there was one.
    pub at: Option<Time>,
    /// Whether a reload failed, and none was good since.
    pub failed: bool,
    /// What was applied, what needs a restart, or what is wrong.
    pub said: String,
}

impl Reloads {
    /// A reload was tried.
    pub fn record(&self, at: Time, good: bool, said: &str) {
        let mut last = self.0.lock();
        let generation = last.generation + u64::from(good);
        *last = Reloaded { generation, at: Some(at), failed: !good, said: said.to_owned() };
    }

    /// The last one.
    pub fn last(&self) -> Reloaded {
        self.0.lock().clone()
    }
}
