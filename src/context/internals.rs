//! Doors for the tests below `tests/`, which `tidemill::internals` hands on: what a test of the whole engine needs and no
//! program does. Nothing in the engine calls them.

use super::{StreamHandle, StreamingContext};
use crate::blocks::Range;
use crate::error::{Error, Result};
use crate::journal::{self, Entry};
use crate::memory::budget::MemoryBudget;
use crate::storage::Storage;
use crate::sync::{Arc, Signal};
use crate::wal::{Position, Survey};

/// The content of a state directory, as a start finds it.
#[derive(Debug)]
pub struct Looked {
    /// The state of the log.
    pub log: Survey,
    /// The meaning of the log's records, line by line.
    pub words: String,
    /// The reason for which a start would be refused.
    pub refusal: Option<Error>,
}

/// Keeps the log in segments of this many bytes, so that a short life fills several.
pub fn keep_state_in(context: &StreamingContext, storage: Arc<dyn Storage>, segment_bytes: u64) {
    context.keep_state_in(storage, segment_bytes);
}

/// Looks at a state directory as a start of `context` does; without one, as a start of the program that wrote it. Changes
/// nothing.
///
/// # Errors
/// If something cannot be read; damage is part of the look.
pub fn look(storage: &Arc<dyn Storage>, context: Option<&StreamingContext>) -> Result<Looked> {
    let look = match context {
        Some(context) => context.look(storage, &mut |_, _| ())?,
        None => journal::look(storage.as_ref(), None, &mut |_, _| ())?,
    };
    Ok(Looked { log: look.log, words: look.words, refusal: look.refusal })
}

/// The records of a chunk, in the framing `u32`; `None` if the log's record is no chunk.
pub fn chunk_records(at: Position, record: &[u8]) -> Option<&[u8]> {
    match journal::decode(at, record) {
        Ok(Entry::Chunk(_, records)) => Some(records),
        _ => None,
    }
}

/// The number of sources that have a receiver.
pub fn receivers(running: &StreamHandle) -> usize {
    running.receivers.len()
}

/// Hands records to a source as a connection does, with their receipts.
///
/// # Errors
/// The range itself if the queue of the source is full.
pub fn offer(
    running: &StreamHandle,
    source: usize,
    range: Range,
) -> std::result::Result<(), Range> {
    running.receivers[source].cutter.0.offer(range)
}

/// The budget that records in memory are charged to.
pub fn memory_budget(running: &StreamHandle) -> Arc<MemoryBudget> {
    Arc::clone(&running.inspector().0.account)
}

/// Waits until all that was appended to the log so far is durable.
///
/// # Panics
/// If the stream has no log.
pub fn sync_log(running: &StreamHandle) {
    let durable = Signal::new();
    let told = durable.clone();
    let journal = running.journal.as_ref().expect("the stream has a log");
    journal.plan(&[], Box::new(move |_| told.raise())).expect("no plans fit into any log");
    durable.wait();
}
