//! `Changelog`: the states of one operator as the log sees them, and the changes of a batch in them. Knows no types of keys.

use bytes::Bytes;
use serde::Serialize;

use crate::time::Time;

/// An operator with keyed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct StateInfo {
    /// Its name, by which it is found again.
    pub name: String,
    /// The types of its keys and states, without their paths, for people and to be compared.
    pub holds: String,
}

/// The changes of a batch in the states. Earlier changes and these give the states after the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The batch.
    pub time: Time,
    /// The operator, as its place in [`Graph::states`](crate::stream::Graph::states), and bytes that
    /// `Restore::apply` takes. In order.
    pub parts: Vec<(u32, Bytes)>,
    /// True if a compaction begins with this batch: once it has ended, nothing before this batch is needed.
    pub compaction_begins: bool,
    /// True if the compaction ends with this batch.
    pub compaction_ends: bool,
}

/// The states of one operator, as the log saves and restores them.
pub(crate) trait Changelog: Send + Sync {
    /// The next batch begins to go through all keys.
    fn begin_compaction(&self);

    /// Sets the most batches of a compaction.
    fn compact_within(&self, batches: u64);

    /// True if the compaction has visited all keys.
    fn is_compacted(&self) -> bool;

    /// Number of known keys.
    fn len(&self) -> u64;

    /// The number of the first batch that it took in; 0 unless this is called.
    fn begins_with(&self, batch: u64);

    /// Forgets everything, the initial states too; `apply` follows.
    fn begin_restore(&self, partitions: usize);

    /// Takes a part in.
    fn apply(&self, part: &[u8], seed: u64) -> Result<(), String>;

    /// All parts were taken in.
    fn end_restore(&self);
}
