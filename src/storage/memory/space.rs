//! The room of a memory disk, counted in blocks as file systems do: a byte takes a block, and a file that has lost its name
//! holds its blocks until it is closed. Runs under the disk's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};

use super::{DataChange, Disk, Inode, MemoryFile, MemoryStorage};
use crate::storage::Volume;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    /// The disk's size; `None` if there is always room.
    limit: Option<Limit>,
    /// Blocks that somebody else has taken.
    outside: u64,
    /// A file that finds too little room keeps the part that it got, as after a kill in the middle.
    keeps_parts: bool,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    blocks: u64,
    block_bytes: u64,
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.disk.lock().closed(self.inode);
    }
}

#[doc(hidden)]
impl MemoryStorage {
    /// From now on the disk has this many bytes, in blocks of `block_bytes`.
    ///
    /// # Panics
    /// If a block has no bytes.
    pub fn set_capacity(&self, bytes: u64, block_bytes: u64) {
        assert!(block_bytes > 0, "a block has bytes");
        self.0.lock().space.limit = Some(Limit { blocks: bytes / block_bytes, block_bytes });
    }

    /// Decides if a file that asks for more room than there is keeps the part that it got.
    pub fn keep_parts(&self, keeps: bool) {
        self.0.lock().space.keeps_parts = keeps;
    }

    /// Lets somebody else take this many of the free bytes, or all of them if there are fewer.
    pub fn take_outside(&self, bytes: u64) {
        let mut disk = self.0.lock();
        let Some(limit) = disk.space.limit else { return };
        let free = disk.free_blocks();
        disk.space.outside += (bytes / limit.block_bytes).min(free);
    }

    /// Lets somebody else give back all that they took.
    pub fn give_back(&self) {
        self.0.lock().space.outside = 0;
    }

    /// Bytes of the blocks that files take.
    pub fn used(&self) -> u64 {
        let disk = self.0.lock();
        let block_bytes = disk.space.limit.map_or(1, |limit| limit.block_bytes);
        disk.used_blocks() * block_bytes
    }
}

impl Disk {
    fn block_bytes(&self) -> u64 {
        self.space.limit.map_or(1, |limit| limit.block_bytes)
    }

    fn used_blocks(&self) -> u64 {
        let named: BTreeSet<usize> = self.names.values().chain(self.open.keys()).copied().collect();
        named.into_iter().map(|inode| self.inodes[inode].blocks(self.block_bytes())).sum()
    }

    fn free_blocks(&self) -> u64 {
        let Some(limit) = self.space.limit else { return u64::MAX };
        limit.blocks.saturating_sub(self.used_blocks()).saturating_sub(self.space.outside)
    }

    pub(super) fn volume(&self) -> Volume {
        match self.space.limit {
            Some(limit) => Volume {
                bytes: limit.blocks * limit.block_bytes,
                free: if self.full { 0 } else { self.free_blocks() * limit.block_bytes },
            },
            None => Volume { bytes: u64::MAX, free: if self.full { 0 } else { u64::MAX } },
        }
    }

    /// The greatest length that a file may have.
    fn end_max(&self, inode: usize) -> u64 {
        let block_bytes = self.block_bytes();
        let blocks = self.inodes[inode].blocks(block_bytes).saturating_add(self.free_blocks());
        blocks.saturating_mul(block_bytes)
    }

    /// The number of bytes written at `offset` that find room.
    pub(super) fn fitting(&self, inode: usize, offset: u64, len: usize) -> io::Result<usize> {
        let room =
            usize::try_from(self.end_max(inode).saturating_sub(offset)).unwrap_or(usize::MAX);
        match room {
            0 if len > 0 => Err(ErrorKind::StorageFull.into()),
            room => Ok(room.min(len)),
        }
    }

    /// Makes a file `len` bytes long, or only takes the room for that.
    pub(super) fn extend(&mut self, inode: usize, len: u64, longer: bool) -> io::Result<()> {
        let most = self.end_max(inode);
        let got = if len <= most { len } else { most };
        if got == len || self.space.keeps_parts {
            let file = &mut self.inodes[inode];
            let got_bytes = usize::try_from(got).map_err(|_| ErrorKind::InvalidInput)?;
            if longer && file.seen.len() < got_bytes {
                file.change(DataChange::Length(got_bytes));
            }
            file.reserved = file.reserved.max(got);
        }
        if got == len { Ok(()) } else { Err(ErrorKind::StorageFull.into()) }
    }

    /// Counts a handle of a file that was made.
    pub(super) fn opened(&mut self, inode: usize) {
        *self.open.entry(inode).or_default() += 1;
    }

    pub(super) fn closed(&mut self, inode: usize) {
        if let Some(handles) = self.open.get_mut(&inode) {
            *handles -= 1;
            if *handles == 0 {
                self.open.remove(&inode);
            }
        }
    }
}

/// The handles of each file that is open.
pub(super) type Open = BTreeMap<usize, usize>;

impl Inode {
    fn blocks(&self, block_bytes: u64) -> u64 {
        (self.seen.len() as u64).max(self.reserved).div_ceil(block_bytes)
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use crate::storage::{Storage, write_all};

    use super::*;

    fn disk(bytes: u64) -> MemoryStorage {
        let disk = MemoryStorage::new(0);
        disk.set_capacity(bytes, 10);
        disk
    }

    #[test]
    fn bytes_take_blocks_and_give_them_back() {
        let disk = disk(100);
        let file = disk.create("a").expect("made");
        assert_eq!((disk.used(), disk.volume().expect("told").free), (0, 100));
        write_all(file.as_ref(), 0, &[&[1; 11]]).expect("room");
        assert_eq!((disk.used(), disk.volume().expect("told").free), (20, 80));
        file.truncate(10).expect("shorter");
        assert_eq!(disk.used(), 10);
        disk.remove("a").expect("there");
        assert_eq!(disk.used(), 10, "it is open");
        drop(file);
        assert_eq!(disk.used(), 0);
    }

    #[test]
    fn a_write_takes_what_there_is_and_then_nothing() {
        let disk = disk(30);
        let file = disk.create("a").expect("made");
        let part = [std::io::IoSlice::new(&[7; 40])];
        assert_eq!(file.write_at(0, &part).expect("some"), 30);
        assert_eq!(file.write_at(30, &part).expect_err("none").kind(), ErrorKind::StorageFull);
        assert_eq!(file.write_at(5, &part[..1]).expect("over what is there"), 25);
    }

    fn check_allocate(keeps_parts: bool, size: u64, used: u64) {
        let disk = disk(100);
        disk.keep_parts(keeps_parts);
        let file = disk.create("a").expect("made");
        let refused = file.allocate(101).expect_err("too much");
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
        assert_eq!((file.size().expect("told"), disk.used()), (size, used));
        file.truncate(0).expect("shorter");
        assert_eq!(disk.used(), 0);
        file.reserve(25).expect("room");
        assert_eq!((file.size().expect("told"), disk.used()), (0, 30));
    }

    #[test]
    fn room_is_had_whole_or_in_parts() {
        check_allocate(false, 0, 0);
        check_allocate(true, 100, 100);
    }

    #[test]
    fn others_take_room_and_give_it_back() {
        let disk = disk(100);
        disk.take_outside(40);
        assert_eq!(disk.volume().expect("told"), Volume { bytes: 100, free: 60 });
        disk.take_outside(u64::MAX);
        let file = disk.after_kill().create("a").expect("made");
        assert_eq!(file.allocate(1).expect_err("full").kind(), ErrorKind::StorageFull);
        disk.give_back();
        assert_eq!(disk.volume().expect("told").free, 100);
    }
}
