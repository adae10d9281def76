//! Copies whole records together: many small ones become one range. `RecordBuffer` belongs to one io thread;
//! `SharedRecordBuffer` is filled by the threads of a user's receiver and flushed by the cutter, so that no record waits for the
//! next one. Nothing here knows blocks, rates or the store.

use bytes::BytesMut;

use crate::blocks::{Range, Receipt};
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::BUFFER_BYTES;
use crate::source::ingest::feed::Feed;
use crate::sync::{Arc, Mutex};

/// The most bytes in one range, unless a single record is longer. Also the unit of allocation.
const RANGE_BYTES: usize = BUFFER_BYTES;

/// See the module.
#[derive(Default)]
pub(crate) struct RecordBuffer {
    bytes: BytesMut,
    records: u64,
    /// Receipts for the buffered records.
    pub(crate) receipts: Vec<Receipt>,
}

impl RecordBuffer {
    /// Returns true if `bytes` more fit into the same range.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.bytes.len() + bytes <= RANGE_BYTES
    }

    /// Appends the bytes of this many records.
    pub(crate) fn append(&mut self, parts: &[&[u8]], records: u64) {
        let len = parts.iter().map(|part| part.len()).sum();
        if self.bytes.capacity() - self.bytes.len() < len {
            self.bytes.reserve(len.max(RANGE_BYTES));
        }
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.records += records;
    }

    /// Takes the buffered records as one range, which `account` counts.
    pub(crate) fn take(&mut self, account: &Arc<MemoryBudget>) -> Option<Range> {
        if self.bytes.is_empty() {
            return None;
        }
        let bytes = self.bytes.split().freeze();
        let charge = Some(account.charge(bytes.len()));
        let records = std::mem::take(&mut self.records);
        let receipts = std::mem::take(&mut self.receipts);
        Some(Range { charge, receipts, ..Range::new(bytes, records) })
    }

    /// Queues the buffered records; false if the queue has no room for them.
    fn flush(&mut self, feed: &Feed) -> bool {
        if self.bytes.is_empty() {
            return true;
        }
        if feed.queue.len() >= feed.queue.capacity() {
            return false;
        }
        let Some(range) = self.take(&feed.account) else { return true };
        match feed.queue.push(range) {
            Ok(()) => true,
            // Another thread took the room: back to where it was.
            Err(range) => {
                (self.bytes, self.records) = (BytesMut::from(range.bytes), range.records);
                self.receipts = range.receipts;
                false
            }
        }
    }

    /// Gives its memory back if less than this is left of it. It must be empty.
    pub(crate) fn release_below(&mut self, bytes: usize) {
        if self.bytes.capacity() < bytes {
            self.bytes = BytesMut::new();
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct SharedRecordBuffer(Mutex<RecordBuffer>);

impl SharedRecordBuffer {
    /// Appends a record of these parts and calls `taken` before anybody can cut it. False if there is no room: then the
    /// range queue is full.
    pub(crate) fn append(&self, parts: &[&[u8]], feed: &Feed, taken: impl FnOnce()) -> bool {
        let mut buffer = self.0.lock();
        let len = parts.iter().map(|part| part.len()).sum();
        if !buffer.has_room_for(len) && !buffer.flush(feed) {
            return false;
        }
        buffer.append(parts, 1);
        taken();
        true
    }

    /// Queues the buffered records; false if the queue has no room for them.
    pub(crate) fn flush(&self, feed: &Feed) -> bool {
        self.0.lock().flush(feed)
    }
}
