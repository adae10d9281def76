//! From ranges of whole records to blocks in the store: the queue between io threads and whoever cuts, the cutter, and with a
//! log the chunk logger before it. Knows no sockets and no batches.

pub(crate) mod backlog_trigger;
pub(crate) mod block_cutter;
pub(crate) mod chunk_log;
pub(crate) mod handover;
pub(crate) mod range_queue;
pub(crate) mod rate_limit;
pub(crate) mod record_buffer;
