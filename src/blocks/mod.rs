//! `Block`: the records of one block interval, as ranges of whole records plus their framing.
//!
//! ```text
//! Block { info: { id, framing, records, bytes, ... }, ranges: [ "a\nbb\n" | "c\n" | ... ] }
//! ```
//! The block cutter builds a block, the block manager keeps it, and a task reads it and finds the single records. Ranges
//! hold whole records with their terminators or headers, so that they concatenate without changing a record. A block is
//! immutable. It does not know who filled it or who reads it. Any thread may read it.

pub mod manager;
pub(crate) mod spill;
pub mod tracker;

use std::fmt;

pub use bytes::Bytes;

use crate::framing::Framing;
use crate::memory::budget::Reservation;
use crate::sync::Arc;
use crate::time::Moment;

/// Names a block: the source that received it and a number that counts up from 0 for each source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// The source (an input stream of the context).
    pub source: u32,
    /// Its running number.
    pub number: u64,
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.source, self.number)
    }
}

/// Receives acknowledgements: a connection whose peer waits for them.
pub trait Acknowledge: Send + Sync + fmt::Debug {
    /// Everything up to the number `upto` of this connection is safe. Called by any thread, in any order; never waits.
    fn acknowledge(&self, upto: u64);
}

/// The acknowledgement that a connection is owed for a range; opaque to block, store and log.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The connection.
    pub to: Arc<dyn Acknowledge>,
    /// The number of its last frame in the range.
    pub upto: u64,
}

/// Whole records that lie next to each other in memory.
#[derive(Debug)]
pub struct Range {
    /// The records, with their terminators or headers.
    pub bytes: Bytes,
    /// Number of records.
    pub records: u64,
    /// Counts the bytes of a range outside the pool; a pooled buffer counts itself.
    pub charge: Option<Reservation>,
    /// Receipts due once the range is durable; empty where the framing acknowledges nothing.
    pub receipts: Vec<Receipt>,
    /// Receipts due once its batch is committed.
    pub receipts_at_commit: Vec<Receipt>,
}

impl Range {
    /// A range that is not counted and has no receipts.
    pub fn new(bytes: Bytes, records: u64) -> Self {
        Range { bytes, records, charge: None, receipts: Vec::new(), receipts_at_commit: Vec::new() }
    }
}

/// The facts of a block, which stay the same wherever its records are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// The block's name.
    pub id: BlockId,
    /// The layout of the records in the ranges.
    pub framing: Framing,
    /// Number of records.
    pub records: u64,
    /// Bytes of the ranges, terminators and headers included.
    pub bytes: u64,
    /// The moment at which its oldest record was read, if that is known.
    pub first_read: Option<Moment>,
    /// The numbers of the chunks of the log that it is made of; empty without a log.
    pub chunks: std::ops::Range<u64>,
}

/// The records that a source received between two cuts.
#[derive(Debug)]
pub struct Block {
    /// The facts; they match the ranges.
    pub info: BlockInfo,
    ranges: Vec<Range>,
}

impl Block {
    /// A block of these ranges.
    pub fn new(id: BlockId, framing: Framing, ranges: Vec<Range>) -> Self {
        let records = ranges.iter().map(|range| range.records).sum();
        let bytes = ranges.iter().map(|range| range.bytes.len() as u64).sum();
        let info = BlockInfo { id, framing, records, bytes, first_read: None, chunks: 0..0 };
        Block { info, ranges }
    }

    /// The same block, with the moment at which its oldest record was read.
    pub fn first_read_at(mut self, moment: Option<Moment>) -> Self {
        self.info.first_read = moment;
        self
    }

    /// The same block, made of these chunks of the log.
    pub fn of_chunks(mut self, chunks: std::ops::Range<u64>) -> Self {
        self.info.chunks = chunks;
        self
    }

    /// The ranges, in the order in which they were received.
    pub fn ranges(&self) -> impl Iterator<Item = &Bytes> {
        self.ranges.iter().map(|range| &range.bytes)
    }

    /// The receipts due once its batch is committed, in the order of the ranges.
    pub fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.ranges.iter().flat_map(|range| &range.receipts_at_commit)
    }
}
