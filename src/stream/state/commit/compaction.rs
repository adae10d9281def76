//! `Compactor`: decides when a compaction begins and how fast it goes, so that the log of states is bounded, in batches and in
//! bytes. It knows no key: the states write the slices. Runs on the scheduler's thread.

use super::buffer::ChangelogBuffer;
use super::changelog::{Changelog, Changes};
use crate::sync::Arc;
use crate::time::Time;

/// Batches that a compaction takes at most: what a start reads, and the log keeps, goes back to the beginning of one. Where
/// batches are large it takes fewer, but not below [`COMPACTION_BATCHES_MIN`]: no batch is to write a large part of the keys.
pub(crate) const COMPACTION_BATCHES: u64 = if cfg!(test) { 20 } else { 100 };
pub(crate) const COMPACTION_BATCHES_MIN: u64 = 10;

/// A compaction begins when this many keys, or as many as there are, were written since the last one began,
const COMPACTION_AFTER: u64 = if cfg!(test) { 5 } else { 10_000 };
/// or after this many batches,
pub(crate) const COMPACTION_AFTER_BATCHES: u64 = if cfg!(test) { 30 } else { 200 };
/// or when this many bytes went to the log: changes lie between the records of batches that are long done, which stay as long,
pub(crate) const COMPACTION_AFTER_BYTES: u64 = 256 << 20;
/// or this many times the bytes of the last compaction if that is more: compactions are a fifth of the log at most.
pub(crate) const COMPACTION_PART: u64 = 4;

/// The current compaction, and the measures that decide when the next one is due.
#[derive(Debug, Default)]
pub(crate) struct Compactor {
    running: bool,
    /// The compaction begins with the next batch.
    begins: bool,
    /// Since the last compaction began: keys written, batches, and bytes that went to the log with them.
    written: u64,
    batches: u64,
    logged: u64,
    /// Bytes of that compaction so far, and of the one before it.
    compacted: u64,
    compacted_before: u64,
    /// The log has no room: only a compaction frees what is kept for states.
    hurries: bool,
}

/// A committed batch.
pub(crate) struct Committed {
    pub(crate) time: Time,
    /// Bytes of the log that its input takes.
    pub(crate) input_bytes: u64,
    pub(crate) buffer: ChangelogBuffer,
}

impl Compactor {
    /// The changes of a committed batch, for the log; the batch's input took `input_bytes` of the log.
    pub(crate) fn changes(
        &mut self,
        committed: Committed,
        states: &[Arc<dyn Changelog>],
    ) -> Changes {
        let Committed { time, input_bytes, buffer } = committed;
        self.written += buffer.keys;
        self.batches += 1;
        self.compacted += buffer.compacted;
        let changed: u64 = buffer.parts.iter().map(|(_, part)| part.len() as u64).sum();
        self.logged = self.logged.saturating_add(input_bytes).saturating_add(changed);
        let mut changes = Changes { time, parts: buffer.parts, ..Changes::default() };
        changes.compaction_begins = std::mem::take(&mut self.begins);
        let compacted = || states.iter().all(|state| state.is_compacted());
        if self.running && compacted() {
            self.running = false;
            changes.compaction_ends = true;
        }
        let known: u64 = states.iter().map(|state| state.len()).sum();
        let due = self.written > known.max(COMPACTION_AFTER)
            || self.batches >= COMPACTION_AFTER_BATCHES
            || self.logged >= self.bytes_max()
            || self.hurries && self.logged > self.compacted;
        let within = if self.hurries { 1 } else { self.compaction_batches() };
        states.iter().for_each(|state| state.compact_within(within));
        if !self.running && due {
            self.begin(states);
        }
        changes
    }

    /// When this many bytes went to the log, the next compaction begins; the one before must have ended.
    fn bytes_max(&self) -> u64 {
        self.compaction_bytes().saturating_mul(COMPACTION_PART).max(COMPACTION_AFTER_BYTES)
    }

    /// Batches that a compaction takes, if batches stay as large as they are.
    fn compaction_batches(&self) -> u64 {
        let batch = (self.logged / self.batches.max(1)).max(1);
        (self.bytes_max() / batch).clamp(COMPACTION_BATCHES_MIN, COMPACTION_BATCHES)
    }

    /// `hurries`: the log has no room. Then a compaction is due if it is smaller than what it frees, and takes one batch.
    pub(crate) fn hurry(&mut self, hurries: bool) {
        self.hurries = hurries;
    }

    /// The size of a compaction, about, in bytes; 0 before the first one.
    pub(crate) fn compaction_bytes(&self) -> u64 {
        self.compacted.max(self.compacted_before)
    }

    /// A compaction begins with the next batch.
    pub(crate) fn begin(&mut self, states: &[Arc<dyn Changelog>]) {
        states.iter().for_each(|state| state.begin_compaction());
        let (compacted_before, hurries) = (self.compacted, self.hurries);
        *self = Compactor {
            running: true,
            begins: true,
            compacted_before,
            hurries,
            ..Compactor::default()
        };
    }
}
