//! `BlockTracker`: the blocks that were received and not yet given to a batch. Any thread may call it. Knows nothing of jobs.
//!
//! A block goes from `received` to exactly one batch, in the order in which all blocks came. The tracker forgets a batch's
//! blocks when it is committed.

use std::collections::{BTreeMap, VecDeque};

use crate::blocks::BlockId;
use crate::blocks::manager::StoredBlock;
use crate::sync::{Arc, Mutex};
use crate::time::Time;

/// The blocks of one batch, by source.
pub type Allocation = Vec<Vec<Arc<StoredBlock>>>;

/// See the module. Push threads add, the job loop allocates.
#[derive(Debug)]
pub struct BlockTracker {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sources: usize,
    received: VecDeque<Arc<StoredBlock>>,
    /// Names only: a block's memory must not outlast its release.
    allocated: BTreeMap<Time, Vec<BlockId>>,
}

impl BlockTracker {
    /// A tracker for `sources` sources.
    pub fn new(sources: usize) -> Self {
        let (received, allocated) = Default::default();
        BlockTracker { state: Mutex::new(State { sources, received, allocated }) }
    }

    /// Adds a block that is stored.
    ///
    /// # Panics
    /// If its source does not exist.
    pub fn add(&self, block: Arc<StoredBlock>) {
        let mut state = self.state.lock();
        assert!(source_of(&block) < state.sources, "block {} is of no source", block.info.id);
        state.received.push_back(block);
    }

    /// Gives the blocks received so far to the batch `time`: the oldest ones of at most `bytes_max`, but at least one. The
    /// rest is for later batches.
    ///
    /// # Panics
    /// If that batch has been given blocks before: a batch time is used once.
    pub fn allocate(&self, time: Time, bytes_max: u64) -> Allocation {
        let mut state = self.state.lock();
        let mut allocation: Allocation = vec![Vec::new(); state.sources];
        let mut left = bytes_max;
        while let Some(block) = state.received.pop_front() {
            left = left.saturating_sub(block.info.bytes);
            allocation[source_of(&block)].push(block);
            if state.received.front().is_some_and(|next| next.info.bytes > left) {
                break;
            }
        }
        let names = allocation.iter().flatten().map(|block| block.info.id).collect();
        let replaced = state.allocated.insert(time, names);
        assert!(replaced.is_none(), "batch {time} was allocated twice");
        allocation
    }

    /// Ends a batch: forgets its blocks and returns their names.
    pub fn commit(&self, time: Time) -> Vec<BlockId> {
        self.state.lock().allocated.remove(&time).unwrap_or_default()
    }

    /// Number of blocks, and of records in them, that no batch has been given.
    pub fn unallocated(&self) -> (usize, u64) {
        let state = self.state.lock();
        let blocks = state.received.iter();
        blocks.fold((0, 0), |(count, records), block| (count + 1, records + block.info.records))
    }
}

fn source_of(block: &StoredBlock) -> usize {
    usize::try_from(block.info.id.source).expect("sources are counted in u32")
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::blocks::{Block, Range};
    use crate::framing::Framing;

    fn block(id: BlockId, bytes: u64) -> Arc<StoredBlock> {
        let mut block = Block::new(id, Framing::Lines, vec![Range::new(Bytes::new(), 1)]);
        block.info.bytes = bytes;
        StoredBlock::new(Arc::new(block))
    }

    /// Blocks of (source, bytes) are received; the batch may have `bytes_max`. The numbers of its blocks, by source.
    fn check(blocks: &[(u32, u64)], bytes_max: u64, expected: [&[u64]; 2]) {
        let tracker = BlockTracker::new(2);
        for (number, (source, bytes)) in (0..).zip(blocks) {
            let id = BlockId { source: *source, number };
            tracker.add(block(id, *bytes));
        }
        let allocation = tracker.allocate(Time::from_millis(1), bytes_max);
        let number = |block: &Arc<StoredBlock>| block.info.id.number;
        let numbers = |blocks: &Vec<_>| blocks.iter().map(number).collect();
        let found: Vec<Vec<u64>> = allocation.iter().map(numbers).collect();
        assert_eq!(found, expected, "{blocks:?} {bytes_max}");
        let left = blocks.len() - found.concat().len();
        assert_eq!(tracker.unallocated().0, left, "{blocks:?} {bytes_max}");
    }

    #[test]
    fn a_batch_takes_the_oldest_blocks_that_fit() {
        check(&[], 0, [&[], &[]]);
        check(&[(0, 5), (1, 5), (0, 5)], u64::MAX, [&[0, 2], &[1]]);
        check(&[(0, 5), (1, 5), (0, 5)], 15, [&[0, 2], &[1]]);
        check(&[(0, 5), (1, 5), (0, 5)], 14, [&[0], &[1]]);
        check(&[(0, 5), (1, 6), (0, 5)], 10, [&[0], &[]]);
        check(&[(1, 5), (1, 0), (0, 5)], 5, [&[], &[0, 1]]);
        check(&[(1, 99), (1, 1)], 10, [&[], &[0]]);
        check(&[(1, u64::MAX), (0, u64::MAX)], u64::MAX, [&[], &[0]]);
    }

    proptest! {
        /// Over any order of adds and allocations: every block is in exactly one batch, in order per source.
        #[test]
        fn every_block_is_in_exactly_one_batch(
            steps in prop::collection::vec(prop::option::of(0u32..3), 0..60), bytes_max in 0u64..9,
        ) {
            let tracker = BlockTracker::new(3);
            let (mut added, mut batches) = (Vec::new(), Vec::new());
            for (number, step) in steps.iter().enumerate() {
                let number = number as u64;
                match step {
                    Some(source) => {
                        let id = BlockId { source: *source, number };
                        tracker.add(block(id, 1));
                        added.push(id);
                    }
                    None => {
                        let time = Time::from_millis(number);
                        batches.push((time, tracker.allocate(time, bytes_max)));
                    }
                }
            }
            for number in 1_000.. {
                let time = Time::from_millis(number);
                batches.push((time, tracker.allocate(time, bytes_max)));
                if tracker.unallocated().0 == 0 {
                    break;
                }
            }
            prop_assert_eq!(tracker.unallocated(), (0, 0));
            for source in 0..3usize {
                let of_source = batches.iter().flat_map(|(_, blocks)| &blocks[source]);
                let found: Vec<BlockId> = of_source.map(|block| block.info.id).collect();
                let expected: Vec<BlockId> = added.iter().copied().filter(|id| id.source as usize == source).collect();
                prop_assert_eq!(found, expected);
            }
            for (time, blocks) in batches {
                prop_assert_eq!(tracker.commit(time).len(), blocks.iter().flatten().count());
                prop_assert!(tracker.commit(time).is_empty());
            }
        }
    }
}
