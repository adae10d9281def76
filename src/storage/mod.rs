//! `Storage`: the seam to durable files. One storage is one directory without subdirectories.
//!
//! What an implementation owes, and what callers may rely on after a crash:
//! - bytes written are durable after [`StoredFile::sync_data`] of that file returned `Ok`, and its length with them;
//! - a name that was created, renamed or removed is durable after [`Storage::sync_dir`] returned `Ok`;
//! - before that any change may be durable or not, in any order and in parts;
//! - after a *failed* sync the state of what was written before it is unknown for ever: callers stop and never retry.
//!
//! Any thread may call it; writes of one file come from one thread. Nothing here knows what the files hold.

mod atomic_file;
mod directory;
mod memory;
mod places;
mod prepared;
mod read_only;
mod write_behind;

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};

use indicatif::HumanBytes;

use crate::error::{Result, passes};
use crate::sync::Arc;

use crate::sync::planted::{Planted, planted};

pub(crate) use atomic_file::{AtomicFile, put_whole};
pub use directory::Directory;
pub(crate) use directory::LOCK;
pub use memory::{Fault, MemoryStorage};
#[cfg(feature = "sqlite")]
pub(crate) use places::expect_file;
pub(crate) use places::{expect_directory, real_path};
pub(crate) use prepared::PreparedFiles;
pub(crate) use read_only::Access;
pub(crate) use write_behind::WriteBehind;

/// The identity and length of a file: another file that gets the same name has another mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileMark {
    /// The device that it lies on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

impl FileMark {
    /// The fault of what was found under the file's name, in words: it is gone, another file, or a shorter one.
    pub(crate) fn unlike(&self, found: Option<FileMark>) -> Option<String> {
        let Some(found) = found else { return Some("it is not there any more".to_owned()) };
        if (found.device, found.inode) != (self.device, self.inode) {
            return Some("another file has its name".to_owned());
        }
        let (is, was) = (found.bytes, self.bytes);
        (is < was).then(|| format!("it is {is} bytes long and was {was}"))
    }
}

/// An open file of a [`Storage`].
pub trait StoredFile: fmt::Debug + Send + Sync {
    /// Writes the parts one after the other at `offset`; returns the number of bytes written, which may be fewer.
    ///
    /// # Errors
    /// What the operating system says; some of the bytes may have been written.
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Reads at `offset`; fewer bytes than asked for, and none at the end.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Hints that these bytes will hardly be read soon: the disk may begin to save those that are not saved, and memory that
    /// holds the rest may be freed. It promises nothing; the next sync reports what goes wrong.
    fn unneeded(&self, _offset: u64, _len: u64) {}

    /// Makes everything written so far durable, the file's length included.
    ///
    /// # Errors
    /// After an error the state of what was written is unknown: never try again.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the file at least `len` bytes long, with room on the disk for all of them; new bytes are zero.
    ///
    /// # Errors
    /// `StorageFull` if there is no room: the file is as long as before then, and holds no more room.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Takes room on the disk for the first `len` bytes of the file, whose length does not change. A file system that cannot
    /// promise room does nothing.
    ///
    /// # Errors
    /// `StorageFull` if there is no room: the file holds no more room than before then.
    fn reserve(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Cuts the file to `len` bytes, if it is longer.
    ///
    /// # Errors
    /// What the operating system says.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn size(&self) -> io::Result<u64>;

    /// The file's identity and length.
    ///
    /// # Errors
    /// What the operating system says.
    fn mark(&self) -> io::Result<FileMark> {
        Ok(FileMark { bytes: self.size()?, ..FileMark::default() })
    }
}

/// A directory of durable files. Names are plain file names.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Makes an empty file; empties the one that has the name already.
    ///
    /// # Errors
    /// What the operating system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>>;

    /// Opens a file that exists.
    ///
    /// # Errors
    /// `NotFound` if it does not.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>>;

    /// Gives a file another name; replaces the file that had that name.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives a file a name that no file has.
    ///
    /// # Errors
    /// `AlreadyExists` if one has it; both files are unchanged.
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        match self.size_of(to)? {
            Some(_) => Err(ErrorKind::AlreadyExists.into()),
            None => self.rename(from, to),
        }
    }

    /// The length of a file in bytes; `None` if no file has that name.
    ///
    /// # Errors
    /// What the operating system says.
    fn size_of(&self, name: &str) -> io::Result<Option<u64>> {
        match self.open(name) {
            Ok(file) => file.size().map(Some),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// The identity and length of the file that has a name; `None` if no file has it.
    ///
    /// # Errors
    /// What the operating system says.
    fn mark_of(&self, name: &str) -> io::Result<Option<FileMark>> {
        match self.open(name) {
            Ok(file) => file.mark().map(Some),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Removes a name.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of the files, sorted.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// After an error their state is unknown: never try again.
    fn sync_dir(&self) -> io::Result<()>;

    /// Returns true if its name still leads to the directory that was opened, or made again: somebody may remove, move or
    /// replace it.
    ///
    /// # Errors
    /// What the operating system says.
    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Makes the directory again if it is gone, for a writer that begins anew there; its files stay lost, and the lock.
    ///
    /// # Errors
    /// What the operating system says.
    fn remake(&self) -> io::Result<()> {
        Ok(())
    }

    /// Removes the directory if this storage made it and it is empty: nothing was written.
    fn abandon(&self) {}

    /// Keeps every other process out until the lock is dropped or this process ends.
    ///
    /// # Errors
    /// If another process holds it; the text names that process.
    fn lock(&self) -> Result<Lock>;

    /// The same, but keeps out only those who ask with this word, a part of a file's name. A storage that has one lock keeps
    /// everybody out.
    ///
    /// # Errors
    /// If another process holds it; the text names that process.
    fn lock_for(&self, _word: &str) -> Result<Lock> {
        self.lock()
    }

    /// Its name in messages: the path of the directory.
    fn name(&self) -> String;

    /// The size of its disk, and the free part of it.
    ///
    /// # Errors
    /// What the operating system says.
    fn volume(&self) -> io::Result<Volume>;
}

/// The disk that a storage lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Bytes of the disk, free or not.
    pub bytes: u64,
    /// Bytes that are free for this process.
    pub free: u64,
}

/// Held by the only process that may use a storage; its drop lets the next one in.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "it is held, never looked at")] Box<dyn Held>);

/// Anything that a lock keeps until it is dropped.
trait Held: fmt::Debug + Send + Sync {}

impl<T: fmt::Debug + Send + Sync> Held for T {}

/// Returns true if the disk has no room: the same call may succeed later.
pub(crate) fn is_full(err: &io::Error) -> bool {
    matches!(err.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The remedy for a failed write of this many bytes, in words; empty if nobody needs to do anything.
pub(crate) fn needs(err: &io::Error, bytes: u64) -> String {
    let size = HumanBytes(bytes);
    match err.kind() {
        ErrorKind::StorageFull => format!("{size} must become free on its disk"),
        ErrorKind::QuotaExceeded => format!("the quota must leave {size}"),
        ErrorKind::OutOfMemory => "memory must become free".to_owned(),
        ErrorKind::Interrupted | ErrorKind::WouldBlock => String::new(),
        _ if passes(err) => "more open files must be allowed".to_owned(),
        ErrorKind::NotFound => "its directory must be there".to_owned(),
        ErrorKind::PermissionDenied => "it must be allowed to write there".to_owned(),
        ErrorKind::ReadOnlyFilesystem => "its file system must be writable".to_owned(),
        _ => "its disk must work".to_owned(),
    }
}

/// Makes a file; makes the directory again if it is gone.
///
/// # Errors
/// What the storage says.
pub(crate) fn create_again(storage: &dyn Storage, name: &str) -> io::Result<Arc<dyn StoredFile>> {
    match storage.create(name) {
        Err(err) if err.kind() == ErrorKind::NotFound => {
            storage.remake()?;
            storage.create(name)
        }
        made => made,
    }
}

/// Writes all of the parts, in as many calls as that takes.
///
/// # Errors
/// What the storage says; an interrupted call is made again.
pub(crate) fn write_all(file: &dyn StoredFile, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let (mut left, mut offset) = (slices.as_mut_slice(), offset);
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_at(offset, left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(taken) => {
                offset += taken as u64;
                IoSlice::advance_slices(&mut left, taken);
            }
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// Fills `into` as far as the file goes; returns the number of bytes read.
///
/// # Errors
/// What the storage says; an interrupted call is made again.
pub(crate) fn read_full(file: &dyn StoredFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(offset + done as u64, &mut into[done..]) {
            Ok(0) => break,
            Ok(taken) => done += taken,
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(done)
}

/// Makes the file's bytes durable.
///
/// # Errors
/// Never try again, not even after an interruption: the state of the file is unknown.
pub(crate) fn sync(file: &dyn StoredFile) -> io::Result<()> {
    if planted(Planted::SkipSync) {
        return Ok(());
    }
    file.sync_data()
}

/// The reason why a file was not put in place.
#[derive(Debug)]
pub(crate) enum PutFailure {
    /// Nothing has changed: the caller may try again.
    Retry(io::Error),
    /// A sync or a rename failed: the state of the disk is unknown.
    Fatal(io::Error),
}

impl From<PutFailure> for io::Error {
    fn from(failure: PutFailure) -> Self {
        let (PutFailure::Retry(err) | PutFailure::Fatal(err)) = failure;
        err
    }
}

/// Removes a file that could not be written: others wait for its room.
pub(crate) fn discard(storage: &dyn Storage, file: &dyn StoredFile, name: &str) {
    // Empty it first: a name that cannot be removed then takes no room. A failure here leaves no more than there was.
    let _ = file.truncate(0);
    let _ = storage.remove(name);
}
