//! `Directory`: the real files. Only this file opens files for durable data. Runs on the caller's thread; does not know what
//! the files hold.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    Advice, CWD, FallocateFlags, FlockOperation, OFlags, RenameFlags, StatVfs, fadvise, fallocate,
    flock, fstatvfs, renameat_with, statvfs,
};
use rustix::io::{Errno, pwritev};

use super::{FileMark, Lock, Storage, StoredFile, Volume, expect_directory, is_full};
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex};

/// The lock file, which holds the process id of the process that locked it.
pub(crate) const LOCK: &str = ".lock";

/// The most bytes that are read of that file.
const HOLDER_BYTES_MAX: u64 = 64;

/// The most parts that one write takes: the kernel's `UIO_MAXIOV`.
const PARTS_MAX: usize = 1024;

/// A directory of the file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Kept open, because a sync of the directory is a sync of this handle. Replaced when the directory is made again.
    handle: Mutex<Arc<File>>,
    writable: bool,
    /// This storage made the directory.
    is_made: bool,
}

impl Directory {
    /// Opens a directory; makes it, and those above it, if they do not exist.
    ///
    /// # Errors
    /// If it cannot be made or opened, or takes no files: the obstacle, and the remedy.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        expect_directory(&path)?;
        let what = || format!("cannot make the directory {}", path.display());
        let is_made = !path.exists();
        make_durably(&path).map_err(|err| Error::io(what(), err))?;
        Ok(Directory { is_made, ..Directory::of(path, true)? })
    }

    /// Opens a directory that exists, to read it without a change.
    ///
    /// # Errors
    /// If it does not exist or cannot be read.
    pub fn read_only(path: impl Into<PathBuf>) -> Result<Self> {
        Directory::of(path.into(), false)
    }

    fn of(path: PathBuf, writable: bool) -> Result<Self> {
        let what = || format!("cannot open the directory {}", path.display());
        let handle = File::open(&path).map_err(|err| Error::io(what(), err))?;
        let is_dir = handle.metadata().map_err(|err| Error::io(what(), err))?.is_dir();
        if !is_dir {
            return Err(Error::io(what(), io::ErrorKind::NotADirectory.into()));
        }
        Ok(Directory { path, handle: Mutex::new(Arc::new(handle)), writable, is_made: false })
    }

    /// The process that uses the directory, if one does: `process N`. Changes nothing, and holds nothing on return.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn holder(&self) -> Result<Option<String>> {
        Ok(self.holding_pid()?.map(shown_holder))
    }

    /// The id of the process that uses the directory, if one does and if that is known. Changes nothing, and holds nothing
    /// on return.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn holding_pid(&self) -> Result<Option<Option<u32>>> {
        let lock = self.at(LOCK);
        let what = || format!("cannot lock {}", self.path.display());
        let file = match open_file(OpenOptions::new().read(true), &lock) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(Error::io(what(), err)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(Errno::WOULDBLOCK) => Ok(Some(holder(&lock))),
            Err(err) => Err(Error::io(what(), err.into())),
        }
    }

    /// Locks the directory by this file.
    fn lock_file(&self, name: &str) -> Result<Lock> {
        let what = || format!("cannot lock {}", self.path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file =
            open_file(&mut options, &self.at(name)).map_err(|err| Error::io(what(), err))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(&self.path, &self.at(name))),
            Err(err) => return Err(Error::io(what(), err.into())),
        }
        let write_pid = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        match write_pid {
            // The lock is held all the same; others do not learn by whom.
            Err(err) if !is_full(&err) => Err(Error::io(what(), err)),
            _ => Ok(Lock(Box::new(file))),
        }
    }

    /// Checks that a start could open the file of this lock, or make it.
    ///
    /// # Errors
    /// Names what is in its place, and the remedy, as the lock does.
    pub(super) fn expect_lock(&self, word: Option<&str>) -> Result<()> {
        let name = word.map_or_else(|| LOCK.to_owned(), lock_name);
        match open_file(OpenOptions::new().read(true).write(true), &self.at(&name)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("cannot lock {}", self.path.display()), err))
            }
            _ => Ok(()),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// The lock file for those who ask with this word.
fn lock_name(word: &str) -> String {
    format!(".{word}{LOCK}")
}

/// Opens a file that keeps bytes. An open of a pipe would wait for its other end, so the open does not wait, and the type of
/// the opened file is checked.
///
/// # Errors
/// What the operating system says; if something else has the file's name: that, and the remedy.
fn open_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag of the system");
    let opened = options.custom_flags(flags).open(path);
    let found = match &opened {
        Ok(file) => file.metadata(),
        Err(_) => fs::metadata(path),
    };
    match found.ok().and_then(|found| no_file(found.file_type())) {
        Some(what) => {
            let text = format!("{} is {what}, no regular file: move it away", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
        None => opened,
    }
}

/// The kind of a thing that is no regular file.
fn no_file(kind: fs::FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("a directory"),
        kind if kind.is_fifo() => Some("a pipe"),
        kind if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

/// Makes a directory and those above it, and syncs each directory that got a new name.
fn make_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_durably(parent)?;
    }
    match fs::create_dir(path) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
        _ => {}
    }
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

impl Storage for Directory {
    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(open_file(&mut options, &self.at(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(self.writable);
        Ok(Arc::new(open_file(&mut options, &self.at(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.at(from), self.at(to));
        match renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            // A file system that cannot do both at once.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match fs::symlink_metadata(&to) {
                    Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    Err(_) => fs::rename(from, to),
                }
            }
            outcome => Ok(outcome?),
        }
    }

    fn size_of(&self, name: &str) -> io::Result<Option<u64>> {
        match fs::symlink_metadata(self.at(name)) {
            Ok(found) => Ok(Some(found.len())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    fn mark_of(&self, name: &str) -> io::Result<Option<FileMark>> {
        match fs::metadata(self.at(name)) {
            Ok(found) => Ok(Some(mark(&found))),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // We make no name that is not UTF-8.
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let handle = Arc::clone(&self.handle.lock());
        handle.sync_all()
    }

    fn is_in_place(&self) -> io::Result<bool> {
        let opened = self.handle.lock().metadata()?;
        match fs::metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(err),
        }
    }

    fn remake(&self) -> io::Result<()> {
        make_durably(&self.path)?;
        *self.handle.lock() = Arc::new(File::open(&self.path)?);
        Ok(())
    }

    fn abandon(&self) {
        if self.is_made && matches!(self.list().as_deref(), Ok([] | [_])) {
            // Another file in it keeps it.
            let _ = fs::remove_file(self.at(LOCK)).and_then(|()| fs::remove_dir(&self.path));
        }
    }

    fn lock(&self) -> Result<Lock> {
        self.lock_file(LOCK)
    }

    fn lock_for(&self, word: &str) -> Result<Lock> {
        self.lock_file(&lock_name(word))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn volume(&self) -> io::Result<Volume> {
        let handle = Arc::clone(&self.handle.lock());
        Ok(volume(&fstatvfs(handle.as_ref())?))
    }
}

/// The disk that a path lies on.
pub(super) fn volume_of(path: &Path) -> io::Result<Volume> {
    Ok(volume(&statvfs(path)?))
}

fn volume(disk: &StatVfs) -> Volume {
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Volume { bytes: bytes(disk.f_blocks), free: bytes(disk.f_bavail) }
}

/// The error for a directory that another process uses.
fn held(path: &Path, lock: &Path) -> Error {
    let (holder, path) = (shown_holder(holder(lock)), path.display());
    Error::Failed(format!("{path} is in use by {holder}: stop it first, or give another directory"))
}

fn mark(found: &fs::Metadata) -> FileMark {
    FileMark { device: found.dev(), inode: found.ino(), bytes: found.len() }
}

/// Takes room for `len` bytes of a file that is `before` bytes long.
fn take_room(file: &File, flags: FallocateFlags, before: u64, len: u64) -> io::Result<()> {
    match fallocate(file, flags, 0, len) {
        // A file system without the call promises room only for written bytes.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, before, len),
        outcome => Ok(outcome?),
    }
}

fn write_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < to {
        let left = usize::try_from(to - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        file.write_all_at(&ZEROS[..left], at)?;
        at += left as u64;
    }
    Ok(())
}

/// Gives back room that a file got only in part: ext4 keeps it, and makes the file longer.
fn taken_whole(file: &File, before: u64, outcome: io::Result<()>) -> io::Result<()> {
    outcome.inspect_err(|_| {
        // If this fails, the file is too short, and its owner removes it.
        let _ = file.set_len(before);
    })
}

/// The process id in a lock file.
fn holder(lock: &Path) -> Option<u32> {
    let mut text = String::new();
    let file = open_file(OpenOptions::new().read(true), lock).ok()?;
    file.take(HOLDER_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn shown_holder(pid: Option<u32>) -> String {
    pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
}

impl StoredFile for File {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(pwritev(self, &parts[..parts.len().min(PARTS_MAX)], offset)?)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }

    /// Linux begins to write dirty pages, and drops clean ones.
    fn unneeded(&self, offset: u64, len: u64) {
        let _ = fadvise(self, offset, NonZeroU64::new(len), Advice::DontNeed);
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        // Also if the file is long enough: it may have holes, as a copy has.
        let before = self.metadata()?.len();
        taken_whole(self, before, take_room(self, FallocateFlags::empty(), before, len))
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let before = self.metadata()?.len();
        match fallocate(self, FallocateFlags::KEEP_SIZE, 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            outcome => taken_whole(self, before, outcome.map_err(io::Error::from)),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if self.metadata()?.len() > len { self.set_len(len) } else { Ok(()) }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn mark(&self) -> io::Result<FileMark> {
        Ok(mark(&self.metadata()?))
    }
}
