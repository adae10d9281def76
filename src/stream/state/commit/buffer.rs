//! `ChangelogBuffer`: the changes in states that a commit hands to the log. Plain data.

use bytes::Bytes;

/// The parts of all states, from their commit until [`Graph::changes`](crate::stream::Graph::changes).
#[derive(Debug, Default)]
pub(crate) struct ChangelogBuffer {
    pub(crate) parts: Vec<(u32, Bytes)>,
    pub(crate) keys: u64,
    /// Bytes of the compaction among the parts.
    pub(crate) compacted: u64,
}
