//! `BlockTracker`: which blocks were received and not yet given to a batch. Knows nothing of jobs.
//!
//! A block goes from `received` to exactly one batch; a batch's blocks are forgotten when it is committed.

use std::collections::{BTreeMap, VecDeque};

use crate::block::BlockId;
use crate::sync::Mutex;
use crate::time::Time;

/// What the tracker knows of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedBlock {
    /// Its name.
    pub id: BlockId,
    /// Its records.
    pub records: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// The blocks of one batch, by source.
pub type Allocation = Vec<Vec<ReceivedBlock>>;

/// See the module. Push threads add, the job loop allocates.
#[derive(Debug)]
pub struct BlockTracker {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    received: Vec<VecDeque<ReceivedBlock>>,
    allocated: BTreeMap<Time, Allocation>,
}

impl BlockTracker {
    /// A tracker for `sources` sources.
    pub fn new(sources: usize) -> Self {
        let received = vec![VecDeque::new(); sources];
        BlockTracker { state: Mutex::new(State { received, allocated: BTreeMap::new() }) }
    }

    /// A block was stored.
    ///
    /// # Panics
    /// If its source does not exist.
    pub fn add(&self, block: ReceivedBlock) {
        let source = usize::try_from(block.id.source).expect("sources are counted in u32");
        self.state.lock().received[source].push_back(block);
    }

    /// Gives all blocks received so far to the batch `time`.
    ///
    /// # Panics
    /// If that batch has been given blocks before: a batch time is used once.
    pub fn allocate(&self, time: Time) -> Allocation {
        let mut state = self.state.lock();
        let allocation: Allocation =
            state.received.iter_mut().map(|blocks| blocks.drain(..).collect()).collect();
        let replaced = state.allocated.insert(time, allocation.clone());
        assert!(replaced.is_none(), "batch {time} was allocated twice");
        allocation
    }

    /// The batch is done: forgets its blocks and returns their names.
    pub fn commit(&self, time: Time) -> Vec<BlockId> {
        let allocation = self.state.lock().allocated.remove(&time).unwrap_or_default();
        allocation.into_iter().flatten().map(|block| block.id).collect()
    }

    /// Blocks and records that no batch has been given.
    pub fn unallocated(&self) -> (usize, u64) {
        let state = self.state.lock();
        let blocks = state.received.iter().flatten();
        blocks.fold((0, 0), |(count, records), block| (count + 1, records + block.records))
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Over any order of adds and allocations: every block is in exactly one batch, in order per source.
        #[test]
        fn every_block_is_in_exactly_one_batch(steps in prop::collection::vec(prop::option::of(0u32..3), 0..60)) {
            let tracker = BlockTracker::new(3);
            let (mut added, mut batches) = (Vec::new(), Vec::new());
            for (number, step) in steps.iter().enumerate() {
                let number = number as u64;
                match step {
                    Some(source) => {
                        let id = BlockId { source: *source, number };
                        tracker.add(ReceivedBlock { id, records: 1, bytes: 1 });
                        added.push(id);
                    }
                    None => batches.push((Time::from_millis(number), tracker.allocate(Time::from_millis(number)))),
                }
            }
            batches.push((Time::from_millis(1_000), tracker.allocate(Time::from_millis(1_000))));
            prop_assert_eq!(tracker.unallocated(), (0, 0));
            for source in 0..3usize {
                let found: Vec<BlockId> = batches.iter().flat_map(|(_, blocks)| blocks[source].iter().map(|b| b.id)).collect();
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
