//! Gathers single records to ranges: where a receiver hands over one record at a time, one range holds many of them.
//!
//! The receiver's threads append; whoever cuts takes what is there, so that no record waits for the next one. Nothing
//! here knows blocks, rates or the store.

use bytes::BytesMut;

use crate::blocks::Range;
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::BUFFER_BYTES;
use crate::source::ingest::range_queue::RangeQueue;
use crate::sync::{Arc, Mutex};

/// What is gathered in one range at most, in bytes, unless a single record is longer.
const GATHER_BYTES: usize = BUFFER_BYTES;

/// See the module.
#[derive(Default)]
pub(crate) struct RecordBuffer(Mutex<Buffered>);

#[derive(Default)]
struct Buffered {
    bytes: BytesMut,
    records: u64,
    /// Counts the bytes; set with the first record.
    account: Option<Arc<MemoryBudget>>,
}

impl RecordBuffer {
    /// Appends a record of these parts and calls `taken` before anybody can cut it. False if there is no room: then the
    /// range queue is full.
    pub(crate) fn append(
        &self,
        parts: [&[u8]; 2],
        (queue, account): (&RangeQueue, &Arc<MemoryBudget>),
        taken: impl FnOnce(),
    ) -> bool {
        let mut gathered = self.0.lock();
        let len = parts[0].len() + parts[1].len();
        if gathered.bytes.len() + len > GATHER_BYTES && !gathered.flush(queue) {
            return false;
        }
        if gathered.bytes.capacity() - gathered.bytes.len() < len {
            gathered.bytes.reserve(len.max(GATHER_BYTES));
        }
        parts.iter().for_each(|part| gathered.bytes.extend_from_slice(part));
        gathered.records += 1;
        gathered.account.get_or_insert_with(|| Arc::clone(account));
        taken();
        true
    }

    /// Queues what was gathered; false if the queue has no room for it.
    pub(crate) fn flush(&self, queue: &RangeQueue) -> bool {
        self.0.lock().flush(queue)
    }
}

impl Buffered {
    fn flush(&mut self, queue: &RangeQueue) -> bool {
        if self.bytes.is_empty() {
            return true;
        }
        if queue.len() >= queue.capacity() {
            return false;
        }
        let bytes = self.bytes.split();
        let charge = self.account.as_ref().map(|account| account.charge(bytes.len()));
        let records = std::mem::take(&mut self.records);
        match queue.push(Range { charge, ..Range::new(bytes.freeze(), records) }) {
            Ok(()) => true,
            // Another thread took the room: back to where it was.
            Err(range) => {
                (self.bytes, self.records) = (BytesMut::from(range.bytes), range.records);
                false
            }
        }
    }
}
