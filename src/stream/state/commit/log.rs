//! The methods of `Graph` by which the log gets the changes of each batch. Run on the scheduler's thread.

use super::changelog::Changes;
use super::compaction::Committed;
use crate::stream::Graph;
use crate::stream::plan::wiring::Wiring;
use crate::time::Time;

impl Graph {
    /// From now on, which is before the first batch, [`changes`](Graph::changes) has what each batch changed in states.
    pub fn keep_changes(&self) {
        self.wire(Wiring::keep_changes);
    }

    /// The changes in states of the batch that was committed last. Called once after each commit. `None` unless changes
    /// are [kept](Graph::keep_changes), and for a batch that was [run again](crate::stream::OpenBatch::replay).
    /// `input_bytes`: the size of the batch's input in the log, where it stays as long as the changes.
    pub fn changes(&self, time: Time, input_bytes: u64) -> Option<Changes> {
        if *self.replayed.lock() == Some(time) {
            return None;
        }
        let buffer = std::mem::take(&mut *self.wiring().changelog.as_ref()?.lock());
        let states: Vec<_> = self.changelogs().into_iter().map(|(_, state)| state).collect();
        Some(self.compactor.lock().changes(Committed { time, input_bytes, buffer }, &states))
    }

    /// `hurries`: the log has no room, so that compactions must free soon what it keeps for states.
    pub fn hurry_compaction(&self, hurries: bool) {
        self.compactor.lock().hurry(hurries);
    }

    /// The size of all states when written once, about, in bytes.
    pub fn compaction_bytes(&self) -> u64 {
        self.compactor.lock().compaction_bytes()
    }
}
