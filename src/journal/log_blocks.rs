//! Blocks whose records are in the log: the log is the store of durable blocks. The workers read them back, chunk by chunk.

use std::fmt;
use std::io::{self, ErrorKind};

use super::{ChunkRange, Entry, Journal, LoggedChunk, Shared, decode};
use crate::blocks::manager::{Durable, EvictedBlock, StoredBlock};
use crate::blocks::{Block, BlockId, BlockInfo};
use crate::error::{Error, Result};
use crate::sync::Arc;

/// Segments that a backlog leaves free for plans, commits and checkpoints: without those nothing would be released.
const FREE_SEGMENTS: u64 = 4;

/// The records of a block, in the log.
struct Logged {
    shared: Arc<Shared>,
    /// The places of its chunks, in order.
    chunks: Vec<LoggedChunk>,
}

impl fmt::Debug for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logged").field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

impl EvictedBlock for Logged {
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

/// Finds the blocks of this run in the log. It does not hold the journal, whose lock ends with the engine.
struct LoggedBlocks {
    shared: Arc<Shared>,
    /// The number in the log of each source of the program.
    numbers: Vec<u32>,
}

impl fmt::Debug for LoggedBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedBlocks").finish_non_exhaustive()
    }
}

impl Durable for LoggedBlocks {
    fn name(&self) -> String {
        format!("the log in {}", self.shared.log.name())
    }

    fn has_room(&self, bytes: u64) -> io::Result<()> {
        let needed = bytes.saturating_add(FREE_SEGMENTS * self.shared.segment_bytes);
        match self.shared.log.volume()?.free {
            room if room >= needed => Ok(()),
            room => Err(io::Error::new(
                ErrorKind::StorageFull,
                format!("{room} bytes are free, {needed} are left for what ends the batches"),
            )),
        }
    }

    fn find(&self, block: &Block) -> Option<(Arc<dyn EvictedBlock>, usize)> {
        let number = *self.numbers.get(usize::try_from(block.info.id.source).ok()?)?;
        let live = self.shared.live.lock();
        let found =
            block.info.chunks.clone().map(|chunk| live.chunks.get(&(number, chunk)).copied());
        // Returns `None` if a checkpoint already covers the block.
        let chunks: Vec<LoggedChunk> = found.collect::<Option<_>>()?;
        drop(live);
        let longest = chunks.iter().map(|chunk| chunk.bytes).max()?;
        let logged = Logged { shared: Arc::clone(&self.shared), chunks };
        Some((Arc::new(logged), usize::try_from(longest).ok()?))
    }
}

impl Journal {
    /// The log as the place of this run's blocks while their batches are not committed.
    pub(crate) fn blocks(&self) -> Arc<dyn Durable> {
        Arc::new(LoggedBlocks { shared: Arc::clone(&self.shared), numbers: self.numbers.clone() })
    }

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
        let info = BlockInfo { id, framing, records, bytes, first_read: None, chunks };
        let logged = Logged { shared: Arc::clone(&self.shared), chunks: found };
        Ok(StoredBlock::elsewhere(info, Arc::new(logged)))
    }

    /// The files that the close found touched and wrote anew, in words. Returned once.
    pub(crate) fn take_mended(&self) -> Option<String> {
        self.shared.log.take_mended()
    }
}
