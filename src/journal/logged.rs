//! Blocks whose records are in the log: the log is the store of durable blocks. Read back on the workers, chunk by chunk.

use std::fmt;

use super::{ChunkRange, Entry, Journal, LoggedChunk, Shared, decode};
use crate::block::BlockId;
use crate::error::{Error, Result};
use crate::store::{StoredBlock, Stowed};
use crate::sync::Arc;

/// The records of a block, in the log.
struct Logged {
    shared: Arc<Shared>,
    /// Where its chunks lie, in order.
    chunks: Vec<LoggedChunk>,
}

impl fmt::Debug for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logged").field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

impl Stowed for Logged {
    fn for_each_range(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        for chunk in &self.chunks {
            let record = self.shared.log.read(chunk.at)?;
            let Entry::Chunk(_, bytes) = decode(chunk.at, &record)? else {
                let at = chunk.at;
                return Err(Error::Failed(format!("the record at {at} of the log is no chunk")));
            };
            each(bytes);
        }
        Ok(())
    }
}

impl Journal {
    /// A block of a source of the program, made of chunks that are in the log.
    ///
    /// # Errors
    /// If one of them is not in the log, or there are none.
    pub(crate) fn block(&self, source: u32, chunks: ChunkRange) -> Result<Arc<StoredBlock>> {
        let number = self.number_of(source);
        let live = self.shared.live.lock();
        let find = |chunk| {
            live.chunks.get(&(number, chunk)).copied().ok_or_else(|| {
                Error::Failed(format!("chunk {chunk} of source {number} is not in the log"))
            })
        };
        let found: Vec<LoggedChunk> = chunks.clone().map(find).collect::<Result<_>>()?;
        drop(live);
        let id = BlockId { source, number: chunks.start };
        let framing = found.first().map(|chunk| chunk.framing);
        let framing = framing.ok_or_else(|| Error::Failed(format!("block {id} has no chunks")))?;
        let records = found.iter().map(|chunk| chunk.records).sum();
        let bytes = found.iter().map(|chunk| chunk.bytes).sum();
        let logged = Logged { shared: Arc::clone(&self.shared), chunks: found };
        Ok(StoredBlock::elsewhere((id, framing), (records, bytes), chunks, Arc::new(logged)))
    }
}
