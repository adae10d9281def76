//! From ranges of whole records to blocks in the store: the queue between io threads and the cutter, the cutter, and the two
//! machines that make blocks: the block builder with its pusher, or with a log the chunk logger. Knows no sockets and no batches.

pub(crate) mod backlog_trigger;
mod block_builder;
pub(crate) mod block_cutter;
pub(crate) mod chunk_log;
pub(crate) mod feed;
pub(crate) mod handover;
mod pusher;
pub(crate) mod range_queue;
pub(crate) mod rate_limit;
pub(crate) mod record_buffer;
