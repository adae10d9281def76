//! `Left`: what the commit of a batch leaves of the changes in states. Plain data.

use bytes::Bytes;

/// What a commit leaves for [`Graph::changes`](super::Graph::changes).
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) parts: Vec<(u32, Bytes)>,
    pub(super) keys: u64,
    /// Bytes of the walk among the parts.
    pub(super) walked: u64,
}
