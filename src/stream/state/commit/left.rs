//! `Left`: the changes in states that the commit of a batch leaves. Plain data.

use bytes::Bytes;

/// The changes that a commit leaves for [`Graph::changes`](crate::stream::Graph::changes).
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) parts: Vec<(u32, Bytes)>,
    pub(crate) keys: u64,
    /// Bytes of the walk among the parts.
    pub(crate) walked: u64,
}
