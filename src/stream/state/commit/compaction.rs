//! `Compactor`: decides when a walk through the keys begins and how fast it goes, so that the log of states is bounded, in
//! batches and in bytes. The states walk. Runs on the scheduler's thread.

use super::changelog::{Changelog, Changes};
use super::left::Left;
use crate::sync::Arc;
use crate::time::Time;

/// Batches that a walk takes at most: what a start reads, and the log keeps, goes back to the beginning of a walk. Where
/// batches are large it takes fewer, but not below [`WALK_BATCHES_MIN`]: no batch is to write a large part of the keys.
pub(crate) const WALK_BATCHES: u64 = if cfg!(test) { 20 } else { 100 };
pub(crate) const WALK_BATCHES_MIN: u64 = 10;

/// A walk begins when this many keys, or as many as there are, were written since the last one began,
const WALK_AFTER: u64 = if cfg!(test) { 5 } else { 10_000 };
/// or after this many batches,
pub(crate) const WALK_AFTER_BATCHES: u64 = if cfg!(test) { 30 } else { 200 };
/// or when this many bytes went to the log: changes lie between the records of batches that are long done, which stay as long,
pub(crate) const WALK_AFTER_BYTES: u64 = 256 << 20;
/// or this many times the bytes of the last walk if that is more: walks are a fifth of the log at most.
pub(crate) const WALK_PART: u64 = 4;

/// The current walk, and the measures that decide when the next one is due.
#[derive(Debug, Default)]
pub(crate) struct Compactor {
    walking: bool,
    /// The walk begins with the next batch.
    begins: bool,
    /// Since the last walk began: keys written, batches, and bytes that went to the log with them.
    written: u64,
    batches: u64,
    logged: u64,
    /// Bytes of that walk so far, and of the one before it.
    walked: u64,
    walked_before: u64,
    /// The log has no room: only a walk frees what is kept for states.
    hurries: bool,
}

/// A committed batch.
pub(crate) struct Committed {
    pub(crate) time: Time,
    /// Bytes of the log that its input takes.
    pub(crate) input_bytes: u64,
    pub(crate) left: Left,
}

impl Compactor {
    /// The changes of a committed batch, for the log; the batch's input took `input_bytes` of the log.
    pub(crate) fn changes(
        &mut self,
        committed: Committed,
        states: &[Arc<dyn Changelog>],
    ) -> Changes {
        let Committed { time, input_bytes, left } = committed;
        self.written += left.keys;
        self.batches += 1;
        self.walked += left.walked;
        let changed: u64 = left.parts.iter().map(|(_, part)| part.len() as u64).sum();
        self.logged = self.logged.saturating_add(input_bytes).saturating_add(changed);
        let mut changes = Changes { time, parts: left.parts, ..Changes::default() };
        changes.walk_begins = std::mem::take(&mut self.begins);
        let walked = || states.iter().all(|state| state.is_walked());
        if self.walking && walked() {
            self.walking = false;
            changes.walk_ends = true;
        }
        let known: u64 = states.iter().map(|state| state.len()).sum();
        let due = self.written > known.max(WALK_AFTER)
            || self.batches >= WALK_AFTER_BATCHES
            || self.logged >= self.bytes_max()
            || self.hurries && self.logged > self.walked;
        let within = if self.hurries { 1 } else { self.walk_batches() };
        states.iter().for_each(|state| state.walk_within(within));
        if !self.walking && due {
            self.begin(states);
        }
        changes
    }

    /// When this many bytes went to the log, the next walk begins; the one before must have ended.
    fn bytes_max(&self) -> u64 {
        self.walk_bytes().saturating_mul(WALK_PART).max(WALK_AFTER_BYTES)
    }

    /// Batches that a walk takes, if batches stay as large as they are.
    fn walk_batches(&self) -> u64 {
        let batch = (self.logged / self.batches.max(1)).max(1);
        (self.bytes_max() / batch).clamp(WALK_BATCHES_MIN, WALK_BATCHES)
    }

    /// `hurries`: the log has no room. Then a walk is due if it is smaller than what it frees, and takes one batch.
    pub(crate) fn hurry(&mut self, hurries: bool) {
        self.hurries = hurries;
    }

    /// The size of a walk, about, in bytes; 0 before the first one.
    pub(crate) fn walk_bytes(&self) -> u64 {
        self.walked.max(self.walked_before)
    }

    /// A walk begins with the next batch.
    pub(crate) fn begin(&mut self, states: &[Arc<dyn Changelog>]) {
        states.iter().for_each(|state| state.begin_walk());
        let (walked_before, hurries) = (self.walked, self.hurries);
        *self = Compactor {
            walking: true,
            begins: true,
            walked_before,
            hurries,
            ..Compactor::default()
        };
    }
}
