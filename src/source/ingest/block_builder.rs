//! The block builder: without a log, a cut makes blocks of the queued ranges and hands them to the pusher. Runs on the thread
//! that cuts, under the cutter's lock. It never waits, and it knows no phases and no ticks.

use crate::blocks::{Block, BlockId};
use crate::source::ingest::feed::Feed;
use crate::source::ingest::handover::BlockTarget;
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, Ordering};
use crate::time::Moment;

/// See the module.
#[derive(Default)]
pub(crate) struct BlockBuilder {
    next_block: u64,
    /// Set by the start; stores a block at once where that needs no waiting.
    pub(crate) target: Option<Arc<dyn BlockTarget>>,
}

impl BlockBuilder {
    /// Makes blocks of the ranges that are queued when it begins; false if the push queue had no room for all of it.
    pub(crate) fn drain(&mut self, feed: &Feed) -> bool {
        let queued = feed.queue.len();
        let mut left = queued;
        let first_read = if left == 0 { None } else { feed.first_read.take() };
        while left > 0 {
            if !feed.has_room_for_a_block() {
                // Without room made nobody is woken: an io thread that cuts because it is full would wake itself.
                if left < queued || planted(Planted::HeldCutWakesAll) {
                    feed.queue.drained();
                }
                return false;
            }
            left = self.build(feed, left, first_read);
        }
        feed.queue.drained();
        true
    }

    /// Builds one block of at most `left` ranges and `block_bytes_max` bytes (and one range more), and hands it over; returns
    /// how many ranges of `left` remain.
    fn build(&mut self, feed: &Feed, mut left: usize, first_read: Option<Moment>) -> usize {
        let (mut ranges, mut bytes) = (Vec::new(), 0);
        while left > 0 && bytes < feed.block_bytes_max {
            let Some(range) = feed.queue.pop() else {
                left = 0;
                break;
            };
            bytes += range.bytes.len() as u64;
            ranges.push(range);
            left -= 1;
        }
        if !ranges.is_empty() {
            let id = BlockId { source: feed.source, number: self.next_block };
            self.next_block += 1;
            let block = Block::new(id, feed.framing, ranges);
            let block = Arc::new(block.first_read_at(first_read));
            // With nothing on the way, this is the next block in order, and the push thread need not be woken for it.
            let direct = feed.in_flight.load(Ordering::SeqCst) == 0;
            if !direct || !self.target.as_ref().is_some_and(|target| target.push_now(&block)) {
                feed.send(block);
            }
        }
        left
    }
}
