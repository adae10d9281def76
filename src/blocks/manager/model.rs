//! The store and its spill under the schedule explorer: blocks leave memory while they are read and released.

use bytes::Bytes;

use super::*;
use crate::blocks::Range;
use crate::blocks::spill::{SpillFiles, SpillOptions, SpillThread, Spilled};
use crate::framing::Framing;
use crate::metrics::EventBus;
use crate::storage::{MemoryStorage, Storage};
use crate::sync::explore::{check, thread};
use crate::sync::planted::Planted;
use crate::sync::thread::Thread;
use crate::sync::{Mailbox, Poison, Signal};
use crate::time::{Clock, ManualClock};

const BLOCK_BYTES: usize = 16;

const BLOCKS: u64 = 6;

/// The store with a spill, whose thread runs, over a disk in memory.
#[derive(Clone)]
struct Rig {
    store: Arc<BlockManager>,
    spill: Arc<Spill>,
    disk: MemoryStorage,
}

/// The last of this many blocks fills the store: it wakes the spill, and no more is read until one has left memory.
fn rig(blocks: usize) -> (Rig, Thread) {
    let (account, disk) = (MemoryBudget::new(blocks * BLOCK_BYTES), MemoryStorage::new(0));
    let storage = Arc::new(disk.clone());
    let files = SpillFiles { storage, directory: None, bytes_max: u64::MAX };
    let options = SpillOptions { files: Some(files), account: Arc::clone(&account) };
    let spill = Spill::open(options).expect("a fresh disk");
    let store = Arc::new(BlockManager::new(account, Some(Arc::clone(&spill))));
    let clock = Arc::new(ManualClock::new()) as Arc<dyn Clock>;
    let log = Arc::new(EveryThird) as Arc<dyn Durable>;
    let with = SpillThread { clock: &clock, events: &EventBus::new(), poison: &Poison::new() };
    let spilling = spill.start(&store, Some(log), with).expect("a thread");
    (Rig { store, spill, disk }, spilling)
}

/// A log that has every third block: those leave memory without being written.
#[derive(Debug)]
struct EveryThird;

#[derive(Debug)]
struct InLog(u64);

impl Durable for EveryThird {
    fn name(&self) -> String {
        "a log".to_owned()
    }

    fn has_room(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn find(&self, block: &Block) -> Option<(Arc<dyn EvictedBlock>, usize)> {
        let number = block.info.id.number;
        number
            .is_multiple_of(3)
            .then(|| (Arc::new(InLog(number)) as Arc<dyn EvictedBlock>, BLOCK_BYTES))
    }
}

impl EvictedBlock for InLog {
    fn for_each_range(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        each(&records(self.0));
        Ok(())
    }
}

fn records(number: u64) -> [u8; BLOCK_BYTES] {
    [b'a' + u8::try_from(number).expect("few blocks"); BLOCK_BYTES]
}

impl Rig {
    /// An io thread: puts all blocks, and waits for room as readers do.
    fn put_all(&self, mut put: impl FnMut(BlockId)) {
        let (account, woken) = (self.store.account(), Signal::new());
        let raise = woken.clone();
        account.on_room(move || raise.raise());
        for number in 0..BLOCKS {
            while !account.has_room() {
                woken.wait();
            }
            let id = BlockId { source: 0, number };
            let charge = Some(account.charge(BLOCK_BYTES));
            let bytes = Bytes::copy_from_slice(&records(number));
            let range = Range { charge, ..Range::new(bytes, 1) };
            self.store.put(Arc::new(Block::new(id, Framing::Lines, vec![range])));
            put(id);
        }
    }

    /// A task reads the block, wherever it is.
    fn read(&self, id: BlockId) {
        let (mut read, block) = (Vec::new(), self.store.get(id).expect("it is pinned"));
        let each = |range: &[u8]| {
            read.extend_from_slice(range);
            // A lock: others go on in the middle of the block.
            assert!(!self.store.blocks.lock().kept.is_empty(), "it is pinned");
        };
        block.for_each_range(each).expect("it can be read");
        assert_eq!(read, records(id.number), "block {id}");
    }

    /// Nothing is left of released blocks: no memory, no count, no file.
    fn end(self, spilling: Thread) {
        self.spill.stop();
        spilling.join();
        let Spilled { bytes, blocks, file_bytes, failures, .. } = self.spill.counts();
        assert_eq!((bytes, blocks, file_bytes, failures), (0, 0, 0, 0));
        assert_eq!(
            (self.store.blocks.lock().kept.len(), self.store.account().used()),
            (0, 0),
            "what is kept for ever"
        );
        assert_eq!(self.disk.list().expect("a disk"), Vec::<String>::new());
    }
}

#[test]
fn a_block_that_is_read_and_released_while_it_leaves_memory_is_whole_and_then_gone() {
    check(2_000, &[Planted::SpillPutsBackReleased], || {
        let (rig, spilling) = rig(2);
        let queues = [(); 2].map(|()| Mailbox::new(usize::try_from(BLOCKS).expect("few")));
        let tasks = queues.clone().map(|ids| {
            let rig = rig.clone();
            thread("worker", move || {
                while let Some(id) = ids.recv() {
                    rig.read(id);
                    rig.store.release([id]);
                }
            })
        });
        rig.put_all(|id| {
            let of_worker = &queues[usize::from(!id.number.is_multiple_of(2))];
            assert!(of_worker.send(id).is_ok(), "the task waits for it");
        });
        queues.iter().for_each(Mailbox::close);
        tasks.into_iter().for_each(Thread::join);
        rig.end(spilling);
    });
}

/// A batch that does not end holds no reader as long as blocks can leave memory.
#[test]
fn reading_goes_on_while_nothing_is_released() {
    check(1_000, &[Planted::PutLooksFirst], || {
        let (rig, spilling) = rig(1);
        rig.put_all(|_| ());
        let ids = (0..BLOCKS).map(|number| BlockId { source: 0, number });
        ids.clone().for_each(|id| rig.read(id));
        rig.store.release(ids);
        rig.end(spilling);
    });
}
