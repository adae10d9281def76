//! The store with a spill over a disk in memory: what leaves memory and when, what comes back, and what happens if the
//! disk is full, broken or tampered with. The thread is driven by its signal: each test waits for counts to change.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::blocks::Range;
use crate::blocks::spill::{SpillFiles, SpillOptions, SpillThread, Spilled, format};
use crate::framing::Framing;
use crate::memory::budget::MemoryBudget;
use crate::metrics::{Event, EventBus};
use crate::storage::{Fault, MemoryStorage, Storage};
use crate::sync::thread::Thread;
use crate::sync::{Mailbox, Poison};
use crate::time::{Clock, ManualClock};
use crate::wal::tests::{Random, env_seed, seeds};

const BOUND: usize = 1 << 20;

/// A store of 1 MiB that spills to a disk in memory.
struct Rig {
    store: Arc<BlockManager>,
    spill: Arc<Spill>,
    disk: MemoryStorage,
    clock: ManualClock,
    events: Mailbox<Event>,
    bus: EventBus,
    threads: Vec<Thread>,
    /// The log, if there is one: true if its disk has room.
    log: Option<bool>,
    next: u64,
}

impl Rig {
    fn new(disk: MemoryStorage, bytes_max: u64) -> Rig {
        let account = MemoryBudget::new(BOUND);
        let files = SpillFiles { storage: Arc::new(disk.clone()), directory: None, bytes_max };
        let options = SpillOptions { files: Some(files), account: Arc::clone(&account) };
        let spill = Spill::open(options).expect("a fresh disk");
        let store = Arc::new(BlockManager::new(account, Some(Arc::clone(&spill))));
        Rig {
            store,
            spill,
            disk,
            clock: ManualClock::new(),
            events: Mailbox::new(100),
            bus: EventBus::new(),
            threads: Vec::new(),
            log: None,
            next: 0,
        }
    }

    /// Starts the spill's thread: all earlier blocks are there when it looks for the first time.
    fn go(&mut self) {
        let told = self.events.clone();
        let listener = move |event: &Event| told.send(event.clone()).expect("the test listens");
        let (clock, poison) = (Arc::new(self.clock.clone()) as Arc<dyn Clock>, Poison::new());
        let log = self.log.map(|has_room| Arc::new(Even { has_room }) as Arc<dyn Durable>);
        let with = SpillThread { clock: &clock, events: &self.bus, poison: &poison };
        self.threads = vec![
            self.spill.start(&self.store, log, with).expect("a thread"),
            self.bus.start(vec![Box::new(listener)], &poison).expect("a thread"),
        ];
    }

    /// Puts a block with these ranges, each counted as it lies in memory.
    fn put(&mut self, ranges: Vec<Vec<u8>>) -> BlockId {
        let id = BlockId { source: 0, number: self.next };
        self.next += 1;
        let account = self.store.account();
        let range = |bytes: Vec<u8>| {
            let charge = Some(account.charge(bytes.len()));
            Range { charge, ..Range::new(Bytes::from(bytes), 1) }
        };
        let ranges = ranges.into_iter().map(range).collect();
        self.store.put(Arc::new(Block::new(id, Framing::Lines, ranges)));
        id
    }

    /// Ten blocks of 100 KiB: more than seven eighths.
    fn fill(&mut self) -> Vec<BlockId> {
        let ids = (0..10u8).map(|number| self.put(vec![vec![number; 50 << 10]; 2])).collect();
        self.go();
        ids
    }

    fn read(&self, id: BlockId) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let block = self.store.get(id).expect("kept");
        block.for_each_range(|range| bytes.extend_from_slice(range)).map(|()| bytes)
    }

    fn is_away(&self, id: BlockId) -> bool {
        matches!(*self.store.get(id).expect("kept").held.lock(), Location::Evicted(_))
    }

    /// Waits until `is_so`, which the spill's thread brings about.
    fn wait(&self, what: &str, is_so: impl Fn(Spilled) -> bool) {
        for _ in 0..100_000_000 {
            if is_so(self.spill.counts()) {
                return;
            }
            std::thread::yield_now();
        }
        panic!(
            "{what}: {:?}, {} bytes in memory",
            self.spill.counts(),
            self.store.account().used()
        );
    }

    /// Waits until memory is no longer short.
    fn relieved(&self) {
        self.wait("relieved", |_| self.store.account().used() <= BOUND / 4 * 3);
    }

    fn files(&self) -> Vec<String> {
        self.disk.list().expect("a disk")
    }

    /// Ends the thread. Returns the files left on the disk.
    fn end(mut self) -> Vec<String> {
        self.spill.stop();
        self.threads.remove(0).join();
        self.bus.close();
        self.threads.remove(0).join();
        self.files()
    }
}

impl Drop for Rig {
    /// The threads end before they are joined.
    fn drop(&mut self) {
        self.spill.stop();
        self.bus.close();
    }
}

#[test]
fn the_newest_blocks_leave_memory_and_come_back_as_they_were() {
    let mut rig = Rig::new(MemoryStorage::new(0), u64::MAX);
    let ids = rig.fill();
    rig.relieved();
    assert!(!rig.is_away(ids[0]) && rig.is_away(ids[9]), "the oldest is processed first");
    let counts = rig.spill.counts();
    assert!(counts.bytes >= 200 << 10 && counts.file_bytes < 20 << 10, "{counts:?}");
    assert!(matches!(rig.events.recv(), Some(Event::Spilling { .. })));
    for (number, id) in (0..10u8).zip(&ids) {
        assert_eq!(rig.read(*id).expect("there"), vec![number; 100 << 10]);
    }
    assert!(rig.store.account().used() <= BOUND, "what was read back is given back");
    rig.store.release(ids);
    rig.wait("files are removed", |counts| counts.file_bytes == 0 && counts.bytes == 0);
    assert_eq!((rig.files(), rig.store.account().used()), (vec![], 0));
    assert_eq!(rig.end(), Vec::<String>::new());
}

#[test]
fn nothing_leaves_memory_before_it_runs_short() {
    let mut rig = Rig::new(MemoryStorage::new(0), u64::MAX);
    for number in 0..8u8 {
        rig.put(vec![vec![number; 100 << 10]]);
    }
    rig.go();
    assert_eq!(rig.spill.counts(), Spilled::default());
    assert_eq!(rig.end(), Vec::<String>::new());
}

#[test]
fn a_block_that_is_read_stays_and_one_that_is_released_meanwhile_is_gone() {
    let mut rig = Rig::new(MemoryStorage::new(0), u64::MAX);
    rig.go();
    let first = rig.put(vec![vec![0; 300 << 10]]);
    let block = rig.store.get(first).expect("kept");
    let mut seen = 0;
    block
        .for_each_range(|range| {
            rig.put(vec![vec![1; 650 << 10]]);
            rig.relieved();
            assert!(block.idle().is_none(), "it is being read");
            seen += range.len();
        })
        .expect("in memory");
    assert_eq!((seen, rig.is_away(first)), (300 << 10, false));
    let ids: Vec<BlockId> = (0..2).map(|number| BlockId { source: 0, number }).collect();
    rig.store.release(ids);
    drop(block);
    rig.wait("all is gone", |counts| {
        counts == Spilled { bytes_total: counts.bytes_total, ..Spilled::default() }
    });
    assert_eq!(rig.end(), Vec::<String>::new());
}

/// Fills the store over a disk on which `harm` was done: nothing may be lost, and nothing left over.
fn check_harmed(
    what: &str,
    bytes_max: u64,
    harm: impl Fn(&MemoryStorage),
    mend: impl Fn(&MemoryStorage),
) {
    let disk = MemoryStorage::new(0);
    let mut rig = Rig::new(disk.clone(), bytes_max);
    harm(&disk);
    let ids = rig.fill();
    rig.wait(what, |counts| counts.failures > 0);
    assert!(matches!(rig.events.recv(), Some(Event::SpillFailed { .. })), "{what}");
    for (number, id) in (0..10u8).zip(&ids) {
        assert_eq!(rig.read(*id).expect("there"), vec![number; 100 << 10], "{what}");
        assert!(!rig.is_away(*id), "{what}");
    }
    mend(&disk);
    if bytes_max > 100 {
        // Tried again after a while.
        while rig.store.account().used() > BOUND / 4 * 3 {
            rig.clock.advance(std::time::Duration::from_secs(1));
            std::thread::yield_now();
        }
        assert!(rig.is_away(ids[9]), "{what}");
    }
    for (number, id) in (0..10u8).zip(&ids) {
        assert_eq!(rig.read(*id).expect("there"), vec![number; 100 << 10], "{what}");
    }
    rig.store.release(ids);
    assert_eq!(rig.end(), Vec::<String>::new(), "{what}");
}

#[test]
fn what_cannot_be_written_stays_in_memory_and_is_tried_again() {
    check_harmed("a full disk", u64::MAX, |disk| disk.set_full(true), |disk| disk.set_full(false));
    check_harmed("the bound", 100, |_| (), |_| ());
    for call in 1..4 {
        for fault in [Fault::Broken, Fault::Full] {
            let harm = |disk: &MemoryStorage| disk.fail(disk.calls() + call, fault);
            check_harmed(&format!("{fault:?} at call {call}"), u64::MAX, harm, |_| ());
        }
    }
}

#[test]
fn short_and_interrupted_calls_are_made_again() {
    let disk = MemoryStorage::new(0);
    let mut rig = Rig::new(disk.clone(), u64::MAX);
    let next = disk.calls();
    for call in 2..40 {
        disk.fail(next + call, if call % 2 == 0 { Fault::Short } else { Fault::Interrupted });
    }
    let ids = rig.fill();
    rig.relieved();
    for (number, id) in (0..10u8).zip(&ids) {
        assert_eq!(rig.read(*id).expect("there"), vec![number; 100 << 10]);
    }
    assert_eq!(rig.spill.counts().failures, 0);
}

#[test]
fn a_damaged_file_is_a_loud_error_of_its_block() {
    let check = |what: &str, damage: &dyn Fn(&MemoryStorage, &str), expected: &str| {
        let mut rig = Rig::new(MemoryStorage::new(0), u64::MAX);
        let ids = rig.fill();
        rig.relieved();
        for file in rig.files().iter().filter(|name| name.ends_with(".blocks")) {
            damage(&rig.disk, file);
        }
        let err = rig.read(ids[9]).expect_err(what).to_string();
        assert!(
            err.contains("block 0-9 cannot be read back") && err.contains(expected),
            "{what}: {err}"
        );
        assert_eq!(rig.read(ids[0]).expect("in memory").len(), 100 << 10);
    };
    let changed = |at: usize| {
        move |disk: &MemoryStorage, file: &str| {
            let mut bytes = disk.bytes(file).expect("there");
            bytes[at] ^= 1;
            disk.set_bytes(file, &bytes);
        }
    };
    check("a flipped header", &changed(3), "its header is damaged");
    check("a flipped length", &changed(format::HEADER_BYTES + 3), "a frame's header is damaged");
    check(
        "a flipped byte",
        &changed(format::HEADER_BYTES + 20),
        "a frame's checksum does not match",
    );
    check("a lost file", &|disk, file| disk.lose(file), "");
    let cut = |disk: &MemoryStorage, file: &str| {
        let bytes = disk.bytes(file).expect("there");
        disk.set_bytes(file, &bytes[..40]);
    };
    check("a file that was cut", &cut, "the file ends early");
}

/// Damage to a spill file, and its name.
fn harm(disk: &MemoryStorage, name: &str, random: &mut Random) -> String {
    let mut bytes = disk.bytes(name).expect("there");
    let (at, other) = (random.size(bytes.len()), random.size(bytes.len()));
    let length = 1 + random.size((bytes.len() - at.max(other)).min(5_000));
    let what = match random.below(5) {
        0 => {
            bytes.truncate(at);
            format!("cut to {at}")
        }
        1 => {
            bytes[at] ^= 1 << random.below(8);
            format!("a bit of byte {at}")
        }
        2 => {
            bytes[at..at + length].fill(0);
            format!("{length} bytes from {at} are zero")
        }
        3 => {
            bytes.copy_within(other..other + length, at);
            format!("{length} bytes from {other} are at {at}, too")
        }
        _ => {
            disk.lose(name);
            return "lost".to_owned();
        }
    };
    disk.set_bytes(name, &bytes);
    what
}

/// `TIDEMILL_SEEDS` damages more files, `TIDEMILL_SEED` one.
#[test]
fn files_that_are_damaged_at_random_give_blocks_as_they_were_or_errors() {
    let mut found = [0, 0];
    for seed in seeds(12) {
        let mut random = Random(seed);
        let mut rig = Rig::new(MemoryStorage::new(seed), u64::MAX);
        let mut blocks = Vec::new();
        for _ in 0..10 {
            let range = |random: &mut Random| {
                let mut byte = || u8::try_from(random.below(256)).expect("a byte");
                // Half of it can be compressed.
                let mut range = vec![byte(); 50 << 10];
                range[..25 << 10].fill_with(byte);
                range
            };
            let ranges = vec![range(&mut random), range(&mut random)];
            blocks.push((rig.put(ranges.clone()), ranges.concat()));
        }
        rig.go();
        rig.relieved();
        let files = rig.files();
        let files: Vec<&String> = files.iter().filter(|it| it.ends_with(".blocks")).collect();
        let mut story = Vec::new();
        for _ in 0..1 + random.below(2) {
            let name = files[random.size(files.len())];
            if rig.disk.bytes(name).is_some_and(|bytes| !bytes.is_empty()) {
                story.push(format!("{name}: {}", harm(&rig.disk, name, &mut random)));
            }
        }
        for (id, bytes) in blocks {
            let read = rig.read(id);
            found[usize::from(read.is_err())] += usize::from(rig.is_away(id));
            match read {
                Ok(read) => assert!(read == bytes, "TIDEMILL_SEED={seed} {id:?}: {story:?}"),
                Err(err) => {
                    let text = err.to_string();
                    let names_it = text.contains(&format!("block {}-{} ", id.source, id.number));
                    assert!(names_it && rig.is_away(id), "TIDEMILL_SEED={seed}: {text}");
                }
            }
        }
    }
    assert!(found.iter().all(|many| *many > 0) || env_seed().is_some(), "{found:?}");
}

#[test]
fn a_start_removes_what_a_killed_process_left_and_nothing_else() {
    let disk = MemoryStorage::new(0);
    let others = ["notes.txt", "spill-1.blocks", "spill-000000000000000x.blocks", "wal-1.seg"];
    for name in others.iter().chain(&["spill-0000000000000001.blocks"]) {
        disk.set_bytes(name, b"x");
    }
    let mut rig = Rig::new(disk, u64::MAX);
    rig.fill();
    rig.relieved();
    let mut left = rig.end();
    left.sort_unstable();
    let mut others = others.map(str::to_owned);
    others.sort_unstable();
    assert_eq!(left, others);
}

/// A log that has the blocks with an even number.
#[derive(Debug)]
struct Even {
    has_room: bool,
}

impl EvictedBlock for Even {
    fn for_each_range(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        each(b"from the log");
        Ok(())
    }
}

impl Durable for Even {
    fn name(&self) -> String {
        "a log".to_owned()
    }

    fn has_room(&self, bytes: u64) -> io::Result<()> {
        assert_eq!(bytes, BOUND as u64);
        if self.has_room { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn find(&self, block: &Block) -> Option<(Arc<dyn EvictedBlock>, usize)> {
        let found = block.info.id.number.is_multiple_of(2);
        found.then(|| (Arc::new(Even { has_room: true }) as Arc<dyn EvictedBlock>, 100))
    }
}

#[test]
fn what_is_in_the_log_leaves_memory_unwritten_and_the_rest_for_files() {
    for has_files in [true, false] {
        let mut rig = Rig::new(MemoryStorage::new(0), u64::MAX);
        if !has_files {
            let options = SpillOptions { files: None, account: Arc::clone(rig.store.account()) };
            rig.spill = Spill::open(options).expect("nothing to open");
            let spill = Some(Arc::clone(&rig.spill));
            rig.store = Arc::new(BlockManager::new(Arc::clone(rig.store.account()), spill));
        }
        rig.log = Some(true);
        let ids = rig.fill();
        rig.relieved();
        let text = |id| rig.read(id).expect("there");
        assert!(rig.is_away(ids[8]) && text(ids[8]) == b"from the log");
        assert_eq!((rig.is_away(ids[9]), text(ids[9])), (has_files, vec![9; 100 << 10]));
        assert_eq!(rig.spill.counts().file_bytes > 0, has_files);
        rig.store.release(ids);
        rig.wait("all is counted", |counts| counts.file_bytes == 0 && counts.bytes == 0);
    }
}

#[test]
fn a_backlog_leaves_the_disk_of_the_log_some_room() {
    let mut rig = Rig::new(MemoryStorage::new(0), u64::MAX);
    rig.log = Some(false);
    let ids = rig.fill();
    rig.wait("it says so", |counts| counts.failures > 0);
    assert!(matches!(rig.events.recv(), Some(Event::SpillFailed { .. })));
    assert!(ids.into_iter().all(|id| !rig.is_away(id)));
}

#[test]
fn two_processes_do_not_share_a_directory() {
    let rig = Rig::new(MemoryStorage::new(0), u64::MAX);
    let files = SpillFiles { storage: Arc::new(rig.disk.clone()), directory: None, bytes_max: 1 };
    let options = SpillOptions { files: Some(files), account: MemoryBudget::new(1) };
    assert!(Spill::open(options).is_err());
}

/// Some byte that depends on a number.
fn byte(number: usize) -> u8 {
    u8::try_from(number % 251).expect("less than 251")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Blocks of any shape come back byte for byte, whatever was released before.
    #[test]
    fn any_blocks_come_back(
        shapes in prop::collection::vec(prop::collection::vec(1usize..90_000, 1..6), 5..40),
        release in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut rig = Rig::new(MemoryStorage::new(0), u64::MAX);
        rig.go();
        let mut kept = Vec::new();
        for (number, shape) in shapes.iter().enumerate() {
            let ranges: Vec<Vec<u8>> =
                shape.iter().map(|len| (0..*len).map(|at| byte(at * (number + 1))).collect()).collect();
            let id = rig.put(ranges.clone());
            if release[number] {
                rig.store.release([id]);
            } else {
                kept.push((id, ranges.concat()));
            }
        }
        for (id, bytes) in &kept {
            prop_assert!(rig.read(*id).expect("there") == *bytes, "{id}");
        }
        rig.store.release(kept.into_iter().map(|(id, _)| id));
        prop_assert_eq!(rig.end(), Vec::<String>::new());
    }
}
