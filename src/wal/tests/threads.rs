//! The thread `wal-sync`: group commit, receipts, the bound, the end; and the real directory.

use std::io::{self, IoSlice};
use std::sync::mpsc;

use super::super::{LogOptions, NotLogged, Position, WriteAheadLog};
use super::options;
use crate::error::Result;
use crate::storage::{Directory, Fault, Lock, MemoryStorage, Storage, StoredFile, Volume};
use crate::sync::{Arc, Mutex, Poison, Signal};
use crate::time::{Clock, SystemClock};

/// A storage whose syncs of data wait until they are let through, each announced.
#[derive(Debug)]
struct Gate {
    inner: MemoryStorage,
    arrived: mpsc::Sender<()>,
    open: Signal,
}

#[derive(Debug)]
struct GateFile {
    inner: Arc<dyn StoredFile>,
    arrived: mpsc::Sender<()>,
    open: Signal,
}

impl Gate {
    fn file(&self, inner: Arc<dyn StoredFile>) -> Arc<dyn StoredFile> {
        Arc::new(GateFile { inner, arrived: self.arrived.clone(), open: self.open.clone() })
    }
}

impl Storage for Gate {
    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        Ok(self.file(self.inner.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        Ok(self.file(self.inner.open(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }
    fn lock(&self) -> Result<Lock> {
        self.inner.lock()
    }
    fn name(&self) -> String {
        self.inner.name()
    }
    fn volume(&self) -> io::Result<Volume> {
        self.inner.volume()
    }
}

impl StoredFile for GateFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.inner.write_at(offset, parts)
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, into)
    }
    fn sync_data(&self) -> io::Result<()> {
        // The test may have seen enough and be gone.
        let _ = self.arrived.send(());
        self.open.wait();
        self.open.raise();
        self.inner.sync_data()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }
}

fn start(storage: impl Storage + 'static, options: LogOptions) -> (WriteAheadLog, Poison) {
    let poison = Poison::new();
    let (log, _) = WriteAheadLog::open(Arc::new(storage), options, 1, &poison, &mut |_, _| Ok(()))
        .expect("an empty log");
    (log, poison)
}

fn bytes(text: &'static str) -> bytes::Bytes {
    bytes::Bytes::from_static(text.as_bytes())
}

fn close(log: &WriteAheadLog) -> Result<()> {
    let clock = SystemClock::new();
    log.close(clock.as_ref(), clock.now().plus(std::time::Duration::from_secs(60)))
}

#[test]
fn one_sync_covers_all_that_wait() {
    let (arrived, arrivals) = mpsc::channel();
    let open = Signal::new();
    let disk = MemoryStorage::new(0);
    // An earlier start: its list needs no sync that is not let through.
    drop(start(disk.clone(), options(1)));
    let (log, _) = start(
        Gate { inner: disk.clone(), arrived, open: open.clone() },
        LogOptions { segment_bytes: 4096, group_bytes_max: 4096, ..options(1) },
    );
    let order = Arc::new(Mutex::new(Vec::new()));
    for index in 0..11 {
        let order = Arc::clone(&order);
        log.append(bytes("hello"), move |outcome| order.lock().push((index, outcome.is_ok())))
            .expect("taken");
        if index == 0 {
            // The first group is written and waits for its sync, before the rest is appended.
            arrivals.recv().expect("a sync");
        }
    }
    assert!(order.lock().is_empty(), "nothing is acknowledged before its sync");
    open.raise();
    close(&log).expect("closed");
    assert_eq!(*order.lock(), (0..11).map(|index| (index, true)).collect::<Vec<_>>());
    let stats = log.stats();
    assert_eq!((stats.groups, stats.records, stats.bytes), (2, 11, 55));
    // A new segment: the list aside, the segment, its name, the list's name; the second group; the list of the stop, its name.
    assert_eq!((stats.syncs, stats.segments), (4 + 1 + 2, 1));
}

#[test]
fn records_are_read_back_until_their_segment_is_released() {
    let (log, _) = start(MemoryStorage::new(0), options(1));
    let first = log.append_and_wait(bytes("first")).expect("durable");
    assert_eq!(log.read(first).expect("there"), b"first");
    let mut last = first;
    while last.segment < 3 {
        last = log.append_and_wait(bytes::Bytes::from(vec![1; 100])).expect("durable");
    }
    assert_eq!((log.segments(), log.newest_segment()), (vec![1, 2, 3], 3));
    log.release(99);
    let again = log.append_and_wait(bytes("again")).expect("durable");
    close(&log).expect("closed");
    assert_eq!((log.segments(), log.stats().released), (vec![3], 2), "the newest stays");
    assert_eq!(log.read(again).expect("there"), b"again");
    assert_eq!(log.read(first).expect_err("gone").to_string(), "segment 1 of the log was released");
    let wrong = Position { offset: again.offset + 8, ..again };
    assert!(log.read(wrong).expect_err("wrong").to_string().contains("the record is damaged"));
}

#[test]
fn a_failed_sync_ends_the_log_and_poisons_the_engine() {
    let disk = MemoryStorage::new(0);
    let (log, poison) = start(disk.clone(), options(1));
    log.append_and_wait(bytes("good")).expect("durable");
    // A write, then its sync.
    disk.fail(disk.calls() + 2, Fault::Broken);
    let failed = log.append_and_wait(bytes("bad")).expect_err("not durable");
    assert!(matches!(failed, NotLogged::Failed(_)), "{failed:?}");
    let reason = poison.reason().expect("poisoned");
    assert!(
        reason.starts_with("the log ends here and recovers at the next start: cannot sync"),
        "{reason}"
    );
    assert!(log.append(bytes("more"), |_| ()).is_err());
    assert!(close(&log).is_err());
    let disk = disk.after_power_cut(1);
    let mut found = Vec::new();
    let mut visit = |_: Position, bytes: &[u8]| {
        found.push(bytes.to_vec());
        Ok(())
    };
    let opened = WriteAheadLog::open(Arc::new(disk), options(2), 1, &Poison::new(), &mut visit);
    opened.expect("starts");
    assert_eq!(found[0], b"good");
}

#[test]
fn a_full_disk_gives_the_record_back() {
    let disk = MemoryStorage::new(0);
    let (log, poison) = start(disk.clone(), options(1));
    disk.set_full(true);
    let refused = log.append_and_wait(bytes("x")).expect_err("full");
    assert!(matches!(refused, NotLogged::Retry(_)), "{refused:?}");
    disk.set_full(false);
    log.append_and_wait(bytes("x")).expect("durable");
    assert_eq!((poison.reason(), log.stats().refused), (None, 1));
    close(&log).expect("closed");
}

#[test]
fn a_record_that_no_segment_takes_is_refused() {
    let (log, _) = start(MemoryStorage::new(0), options(1));
    log.append_and_wait(bytes::Bytes::from(vec![0; 512 - 64 - 64 - 8])).expect("the largest");
    let err =
        log.append(bytes::Bytes::from(vec![0; 512 - 64 - 64 - 7]), |_| ()).expect_err("too large");
    assert!(err.to_string().contains("larger than a segment of the log takes, 376 bytes"), "{err}");
    close(&log).expect("closed");
}

#[test]
fn a_receipt_that_panics_leaves_nobody_waiting() {
    let (log, poison) = start(MemoryStorage::new(0), options(1));
    log.append(bytes("x"), |_| panic!("a receipt's fault")).expect("taken");
    while log.append_and_wait(bytes("y")).is_ok() {}
    assert!(close(&log).is_err());
    assert!(poison.reason().expect("poisoned").contains("a receipt's fault"));
}

#[test]
fn appends_beyond_the_bound_wait_and_lose_nothing() {
    let (log, _) = start(MemoryStorage::new(0), options(1));
    let count = Arc::new(Mutex::new(0));
    for _ in 0..200 {
        let count = Arc::clone(&count);
        log.append(bytes::Bytes::from(vec![1; 90]), move |outcome| {
            assert!(outcome.is_ok());
            *count.lock() += 1;
        })
        .expect("taken");
    }
    close(&log).expect("closed");
    assert_eq!(*count.lock(), 200);
}

#[test]
fn the_real_directory_holds_a_log_and_one_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("state/deep");
    let storage = Arc::new(Directory::open(&path).expect("made"));
    let lock = storage.lock().expect("free");
    let err = Directory::open(&path).expect("opened").lock().expect_err("held").to_string();
    let holder = format!("state/deep is in use by process {}: stop it first", std::process::id());
    assert!(err.contains(&holder), "{err}");
    let mut wanted = Vec::new();
    for life in 0_u64..3 {
        let mut found = Vec::new();
        let mut visit = |_: Position, bytes: &[u8]| {
            found.push(bytes.to_vec());
            Ok(())
        };
        let shared: Arc<dyn Storage> = Arc::clone(&storage) as Arc<dyn Storage>;
        let (log, _) = WriteAheadLog::open(shared, options(life), 1, &Poison::new(), &mut visit)
            .expect("opened");
        assert_eq!(found, wanted);
        for index in 0..20_u8 {
            let record = vec![index; 50];
            let at = log.append_and_wait(bytes::Bytes::from(record.clone())).expect("durable");
            assert_eq!(log.read(at).expect("there"), record);
            wanted.push(record);
        }
    }
    drop(lock);
    storage.lock().expect("free again");
    let names = storage.list().expect("listed");
    assert_eq!(names[0], ".lock");
    let looked = Directory::read_only(&path).expect("opened");
    let records: u64 = super::super::survey(&looked, 1)
        .expect("read")
        .segments
        .iter()
        .map(|report| report.records)
        .sum();
    assert_eq!(records, 60);
}
