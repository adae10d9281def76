//! `Left`: what the commit of a batch leaves of the changes in states. Plain data.

use bytes::Bytes;

/// What a commit leaves for [`Graph::changes`](crate::stream::Graph::changes).
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) parts: Vec<(u32, Bytes)>,
    pub(crate) keys: u64,
    /// Bytes of the walk among the parts.
    pub(crate) walked: u64,
}
