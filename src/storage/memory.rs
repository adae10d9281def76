//! `MemoryStorage`: files in memory that behave as badly as a disk may. For tests, ours and users'.
//!
//! ```text
//!  process sees: names ─▶ inode.seen         every call counts; a plan makes the n-th one fail
//!                          │ pending writes, lengths, names: in any part and order at a power cut
//!  disk has:     names ─▶ inode.durable      filled by sync_data and sync_dir
//! ```
//! A failed sync of data loses some of the bytes for good, although the process still sees them, as on Linux: a caller that
//! syncs again and believes the answer loses data, and a test finds it. Any thread may call it.

mod faults;
mod space;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};

use self::space::{Open, Space};
use super::{FileMark, Lock, Storage, StoredFile, Volume};
use crate::error::{Error, Result};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};

/// A failure of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with EIO.
    Broken,
    /// It fails with ENOSPC.
    Full,
    /// It fails with EINTR.
    Interrupted,
    /// It takes or gives half of the bytes; calls that move no bytes succeed.
    Short,
    /// The power goes off in the middle of it: this and every later call fails.
    PowerCut,
}

/// A disk in memory that loses power when a test says so; for
/// [`StreamingContext::state_storage`](crate::StreamingContext::state_storage). Clones are handles of the same disk; any thread
/// may use one. A process is ended by dropping its context and going on with [`after_kill`](MemoryStorage::after_kill) or
/// [`after_power_cut`](MemoryStorage::after_power_cut).
///
/// ```
/// use tidemill::testing::{ManualClock, MemoryStorage};
/// use tidemill::{Config, StreamingContext};
/// use std::sync::Arc;
///
/// let disk = MemoryStorage::new(7);
/// disk.set_full(false);
/// let start = |disk: &MemoryStorage| {
///     let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
///     ctx.state_storage(Arc::new(disk.clone()));
///     ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
///     ctx.run_batches(1)
/// };
/// start(&disk)?;
/// start(&disk.after_kill())?;
/// start(&disk.after_power_cut(42))?;
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStorage(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    inodes: Vec<Inode>,
    calls: u64,
    plan: BTreeMap<u64, Fault>,
    full: bool,
    space: Space,
    open: Open,
    off: bool,
    /// There is no directory.
    gone: bool,
    /// Calls that change files with this in their names do not return.
    hanging: Option<String>,
    /// Number of calls that hang now.
    hung: usize,
    /// Notified when hanging calls may return.
    released: Arc<Condvar>,
    random: u64,
    /// The lock's other end: shared as long as someone holds the lock.
    lock: Arc<()>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
    Rename(String, String, usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<DataChange>,
    /// The bytes that it has room for, if they exceed the bytes seen.
    reserved: u64,
}

#[derive(Clone, Debug)]
enum DataChange {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Default for MemoryStorage {
    fn default() -> Self {
        MemoryStorage::new(0)
    }
}

impl MemoryStorage {
    /// Creates an empty disk. `seed` decides which bytes a failed sync loses, so that a test that fails can be repeated.
    pub fn new(seed: u64) -> Self {
        MemoryStorage(Arc::new(Mutex::new(Disk { random: seed, ..Disk::default() })))
    }

    /// Decides whether calls find room on the disk from now on; a full one fails them with ENOSPC.
    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// Returns the disk as it is after the process was killed: every written byte is there, and no failure is planned.
    pub fn after_kill(&self) -> MemoryStorage {
        let disk = self.0.lock();
        MemoryStorage(Arc::new(Mutex::new(Disk {
            names: disk.names.clone(),
            durable_names: disk.durable_names.clone(),
            pending_names: disk.pending_names.clone(),
            inodes: disk.inodes.clone(),
            space: disk.space.clone(),
            random: disk.random,
            ..Disk::default()
        })))
    }

    /// Returns the disk as it is after a power cut: all that was synced, and a part of the rest that `seed` decides, torn and in
    /// any order.
    pub fn after_power_cut(&self, seed: u64) -> MemoryStorage {
        let disk = self.0.lock();
        let mut random = seed;
        let mut names = disk.durable_names.clone();
        let keep = Keep::draw(&mut random);
        for change in &disk.pending_names {
            if keep.whole(&mut random) {
                change.apply(&mut names);
            }
        }
        let inodes = disk.inodes.iter().map(|inode| inode.after_power_cut(&mut random)).collect();
        MemoryStorage(Arc::new(Mutex::new(Disk {
            durable_names: names.clone(),
            names,
            inodes,
            space: disk.space.clone(),
            random: next(&mut random),
            ..Disk::default()
        })))
    }
}

/// The next number of a sequence that `state` determines (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The part of unsynced changes that survives a power cut.
#[derive(Clone, Copy)]
enum Keep {
    Nothing,
    Everything,
    /// In pieces of this many bytes, each by chance.
    Pieces(usize),
}

impl Keep {
    fn draw(random: &mut u64) -> Self {
        match next(random) % 8 {
            0 => Keep::Nothing,
            1 => Keep::Everything,
            2 | 3 => Keep::Pieces(512),
            4 | 5 => Keep::Pieces(64),
            6 => Keep::Pieces(8),
            _ => Keep::Pieces(1),
        }
    }

    /// Returns true if a change that cannot be torn is kept.
    fn whole(self, random: &mut u64) -> bool {
        match self {
            Keep::Nothing => false,
            Keep::Everything => true,
            Keep::Pieces(_) => next(random).is_multiple_of(2),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Unlink(name) => {
                names.remove(name);
            }
            NameChange::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl DataChange {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            DataChange::Write(offset, data) => put(bytes, *offset, data),
            DataChange::Length(len) => bytes.resize(*len, 0),
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl Inode {
    fn change(&mut self, change: DataChange) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    /// Cuts it; it holds no more room than that.
    fn cut(&mut self, len: usize) {
        self.change(DataChange::Length(len));
        self.reserved = 0;
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }

    /// A failed sync: some of the changes are saved by chance, and the rest never will be.
    fn fail_sync(&mut self, random: &mut u64) {
        for change in std::mem::take(&mut self.pending) {
            if next(random).is_multiple_of(2) {
                change.apply(&mut self.durable);
            }
        }
    }

    fn after_power_cut(&self, random: &mut u64) -> Inode {
        let keep = Keep::draw(random);
        let mut bytes = self.durable.clone();
        for change in &self.pending {
            match (change, keep) {
                (DataChange::Write(offset, data), Keep::Pieces(size)) => {
                    for (index, piece) in data.chunks(size).enumerate() {
                        if keep.whole(random) {
                            put(&mut bytes, offset + index * size, piece);
                        }
                    }
                }
                (change, keep) => {
                    if keep.whole(random) {
                        change.apply(&mut bytes);
                    }
                }
            }
        }
        Inode { seen: bytes.clone(), durable: bytes, reserved: self.reserved, pending: Vec::new() }
    }
}

/// The instruction for a call that begins.
enum Go {
    On,
    Half,
    /// Do it, then say that the power is off.
    ThenOff,
}

impl Disk {
    /// Counts a call and decides if it fails.
    fn enter(&mut self, needs_room: bool) -> io::Result<Go> {
        self.calls += 1;
        if self.off {
            return Err(off());
        }
        if needs_room && self.full {
            return Err(ErrorKind::StorageFull.into());
        }
        match self.plan.get(&self.calls) {
            None => Ok(Go::On),
            Some(Fault::Broken) => Err(io::Error::from_raw_os_error(5)),
            Some(Fault::Full) => Err(ErrorKind::StorageFull.into()),
            Some(Fault::Interrupted) => Err(ErrorKind::Interrupted.into()),
            Some(Fault::Short) => Ok(Go::Half),
            Some(Fault::PowerCut) => {
                self.off = true;
                // The call may have reached the disk, or not.
                if next(&mut self.random).is_multiple_of(2) { Ok(Go::ThenOff) } else { Err(off()) }
            }
        }
    }

    fn expect_directory(&self) -> io::Result<()> {
        if self.gone { Err(missing()) } else { Ok(()) }
    }

    fn leave(&self) -> io::Result<()> {
        if self.off { Err(off()) } else { Ok(()) }
    }

    fn rename_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

/// Locks the disk for a call that changes the file of that name, or the names if none is given. Returns once it does not hang.
fn change<'a>(
    disk: &'a Mutex<Disk>,
    name: impl Fn(&Disk) -> Option<String>,
) -> MutexGuard<'a, Disk> {
    let mut disk = disk.lock();
    while let Some(part) = &disk.hanging
        && (part.is_empty() || name(&disk).is_some_and(|name| name.contains(part)))
    {
        let released = Arc::clone(&disk.released);
        disk.hung += 1;
        released.wait(&mut disk);
        disk.hung -= 1;
    }
    disk
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

fn missing() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Storage for MemoryStorage {
    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let mut disk = change(&self.0, |_| Some(name.to_owned()));
        disk.enter(true)?;
        disk.expect_directory()?;
        let inode = if let Some(&inode) = disk.names.get(name) {
            disk.inodes[inode].cut(0);
            inode
        } else {
            disk.inodes.push(Inode::default());
            let inode = disk.inodes.len() - 1;
            disk.rename_names(NameChange::Link(name.to_owned(), inode));
            inode
        };
        disk.leave()?;
        disk.opened(inode);
        Ok(Arc::new(MemoryFile { disk: Arc::clone(&self.0), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let mut disk = self.0.lock();
        disk.enter(false)?;
        let inode = *disk.names.get(name).ok_or_else(missing)?;
        disk.leave()?;
        disk.opened(inode);
        Ok(Arc::new(MemoryFile { disk: Arc::clone(&self.0), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = change(&self.0, |_| Some(from.to_owned()));
        disk.enter(false)?;
        let inode = *disk.names.get(from).ok_or_else(missing)?;
        disk.rename_names(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        disk.leave()
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.enter(false)?;
        let inode = *disk.names.get(from).ok_or_else(missing)?;
        if disk.names.contains_key(to) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        disk.rename_names(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        disk.leave()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = change(&self.0, |_| Some(name.to_owned()));
        disk.enter(false)?;
        if !disk.names.contains_key(name) {
            return Err(missing());
        }
        disk.rename_names(NameChange::Unlink(name.to_owned()));
        disk.leave()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.0.lock();
        disk.enter(false)?;
        disk.leave()?;
        disk.expect_directory()?;
        Ok(disk.names.keys().cloned().collect())
    }

    fn is_in_place(&self) -> io::Result<bool> {
        Ok(!self.0.lock().gone)
    }

    fn remake(&self) -> io::Result<()> {
        let mut disk = change(&self.0, |_| None);
        disk.enter(true)?;
        disk.gone = false;
        disk.leave()
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = change(&self.0, |_| None);
        disk.enter(false)?;
        let changes = std::mem::take(&mut disk.pending_names);
        changes.iter().for_each(|change| change.apply(&mut disk.durable_names));
        disk.leave()
    }

    fn lock(&self) -> Result<Lock> {
        let disk = self.0.lock();
        if Arc::strong_count(&disk.lock) > 1 {
            return Err(Error::Failed(format!("{} is in use", self.name())));
        }
        Ok(Lock(Box::new(Arc::clone(&disk.lock))))
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn volume(&self) -> io::Result<Volume> {
        Ok(self.0.lock().volume())
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
}

impl MemoryFile {
    /// Locks the disk for a call that changes this file.
    fn change(&self) -> MutexGuard<'_, Disk> {
        let named = |disk: &Disk| {
            let name = disk.names.iter().find(|(_, inode)| **inode == self.inode);
            name.map(|(name, _)| name.clone())
        };
        change(&self.disk, named)
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| ErrorKind::InvalidInput.into())
}

impl StoredFile for MemoryFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut disk = self.change();
        let half = matches!(disk.enter(true)?, Go::Half);
        let mut data: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if half {
            data.truncate(data.len().div_ceil(2));
        }
        data.truncate(disk.fitting(self.inode, offset, data.len())?);
        let taken = data.len();
        disk.inodes[self.inode].change(DataChange::Write(index(offset)?, data));
        disk.leave()?;
        Ok(taken)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        let half = matches!(disk.enter(false)?, Go::Half);
        disk.leave()?;
        let bytes = &disk.inodes[self.inode].seen;
        let rest = bytes.get(index(offset)?..).unwrap_or_default();
        let wanted = if half { into.len().div_ceil(2) } else { into.len() };
        let taken = rest.len().min(wanted);
        into[..taken].copy_from_slice(&rest[..taken]);
        Ok(taken)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.change();
        let entered = disk.enter(false);
        if let Err(err) = entered {
            if !disk.off {
                let mut random = disk.random;
                disk.inodes[self.inode].fail_sync(&mut random);
                disk.random = random;
            }
            return Err(err);
        }
        disk.inodes[self.inode].sync();
        disk.leave()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.change();
        disk.enter(true)?;
        disk.extend(self.inode, len, true)?;
        disk.leave()
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let mut disk = self.change();
        disk.enter(true)?;
        disk.extend(self.inode, len, false)?;
        disk.leave()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.change();
        disk.enter(false)?;
        let len = index(len)?;
        if disk.inodes[self.inode].seen.len() > len {
            disk.inodes[self.inode].cut(len);
        }
        disk.leave()
    }

    fn size(&self) -> io::Result<u64> {
        let mut disk = self.disk.lock();
        disk.enter(false)?;
        disk.leave()?;
        Ok(disk.inodes[self.inode].seen.len() as u64)
    }

    fn mark(&self) -> io::Result<FileMark> {
        Ok(FileMark { device: 0, inode: self.inode as u64, bytes: self.size()? })
    }
}
