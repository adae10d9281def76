//! The chunk logger on a schedule explorer: a log whose syncs come when they come.

use bytes::Bytes;

use super::*;
use crate::memory::budget::MemoryBudget;
use crate::source::ingest::feed::FirstRead;
use crate::sync::explore::{check, thread};
use crate::sync::{AtomicUsize, Mailbox, StopToken};
use crate::time::ManualClock;

const READERS: u8 = 2;
const EACH: u8 = 3;

/// A log whose disk is a thread of the scenario: chunks are durable when it comes by.
struct Disk(Mailbox<journal::Receipt>);

impl ChunkLog for Disk {
    fn append(
        &self,
        _number: u64,
        _framing: Framing,
        ranges: &[Range],
        receipt: journal::Receipt,
    ) -> Result<()> {
        assert!(!ranges.is_empty(), "a chunk holds something");
        let posted = self.0.send(receipt);
        assert!(posted.is_ok(), "the disk outlives the logger");
        Ok(())
    }
}

/// Keeps the records; the tick follows them.
#[derive(Default)]
struct Target(Mutex<Vec<u8>>);

impl BlockTarget for Target {
    fn push(&self, block: &Arc<Block>) -> Result<()> {
        let mut records = self.0.lock();
        block.ranges().for_each(|range| records.extend_from_slice(range));
        Ok(())
    }

    fn reached(&self, _source: u32, _time: Time) {}
}

/// Raised when all records are acknowledged.
#[derive(Debug)]
struct Told {
    acknowledged: AtomicU64,
    all: Signal,
}

impl crate::blocks::Acknowledge for Told {
    fn acknowledge(&self, _upto: u64) {
        let before = self.acknowledged.fetch_add(1, Ordering::SeqCst);
        if before + 1 == u64::from(READERS * EACH) {
            self.all.raise();
        }
    }
}

fn feed() -> Arc<Feed> {
    Arc::new(Feed {
        source: 0,
        framing: Framing::Lines,
        block_bytes_max: u64::MAX,
        clock: Arc::new(ManualClock::new()),
        account: MemoryBudget::new(1 << 20),
        queue: RangeQueue::new(4, u64::MAX),
        first_read: FirstRead::default(),
        pushes: Mailbox::new(4),
        in_flight: AtomicUsize::new(0),
        stop: StopToken::new(),
        progress: Signal::new(),
    })
}

/// An io thread: queues its ranges, and waits for its waker when the queue is full.
fn read(feed: &Feed, level: &DrainLevel, reader: u8, told: &Arc<Told>) {
    let queue = &feed.queue;
    let woken = Signal::new();
    let raise = woken.clone();
    let number = queue.register(Arc::new(move || raise.raise()));
    for at in 0..EACH {
        let to = Arc::clone(told) as Arc<dyn crate::blocks::Acknowledge>;
        let receipts = vec![Receipt { to, upto: 1 }];
        let bytes = Bytes::copy_from_slice(&[reader * EACH + at]);
        let mut left = Some(Range { receipts, ..Range::new(bytes, 1) });
        while let Some(range) = left.take() {
            left = queue.push(range).err();
            if left.is_some() && !queue.has_room() {
                woken.wait();
            }
        }
        level.queued(queue, feed.pushes.signal());
    }
    queue.forget(number);
}

/// Nothing but what was queued wakes the logger: no tick comes until all is acknowledged.
#[test]
fn what_is_queued_is_logged_acknowledged_and_stored_without_a_tick() {
    check(1_000, &[Planted::LoggerSkipsRecheck], || {
        let (feed, level) = (feed(), DrainLevel::new());
        let (target, disk) = (Arc::new(Target::default()), Mailbox::new(8));
        let told = Arc::new(Told { acknowledged: AtomicU64::new(0), all: Signal::new() });
        let parts = LoggerParts {
            feed: Arc::clone(&feed),
            level: Arc::clone(&level),
            poison: Poison::new(),
            target: Arc::clone(&target) as Arc<dyn BlockTarget>,
        };
        let log = Arc::new(Disk(disk.clone()));
        let options = ChunkLogOptions { log, next_chunk: 0, chunk_bytes_max: CHUNK_BYTES_MAX };
        let logger = ChunkLogger::new(parts, options);
        let logger = thread("rx0-push", move || logger.run());
        let durable = disk.clone();
        let syncs = thread("wal-sync", move || {
            while let Some(receipt) = durable.recv() {
                receipt(Ok(()));
            }
        });
        let readers = [0, 1].map(|reader| {
            let (feed, level, told) = (Arc::clone(&feed), Arc::clone(&level), Arc::clone(&told));
            thread("rx0-io", move || read(&feed, &level, reader, &told))
        });
        told.all.wait();
        readers.into_iter().for_each(|reader| reader.join());
        feed.pushes.close();
        logger.join();
        disk.close();
        syncs.join();
        let records = target.0.lock().clone();
        for reader in 0..READERS {
            let own: Vec<u8> =
                records.iter().copied().filter(|byte| byte / EACH == reader).collect();
            let expected: Vec<u8> = (reader * EACH..(reader + 1) * EACH).collect();
            assert_eq!(own, expected, "reader {reader}");
        }
    });
}
