//! The seam to the file system: what a directory holds, and the bytes of its files. Called by the job loop, which plans,
//! and by workers, which read. It does not know records.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::sync::Arc;

/// What makes a file the same one under another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// When it was made, in nanoseconds since the epoch, where the file system knows: an inode is used again.
    pub(super) born: Option<u64>,
}

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stat {
    pub(super) id: FileId,
    /// In bytes.
    pub(super) size: u64,
    /// When it was changed last, in nanoseconds since the epoch.
    pub(super) changed: u64,
}

/// What a name in the directory stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    File(Stat),
    /// A directory, a pipe, a device.
    Other,
    /// It could not be looked at.
    Unreadable(String),
}

/// A name in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) what: What,
}

impl Entry {
    /// What is said of it, if it is a file.
    pub(super) fn stat(&self) -> Option<&Stat> {
        match &self.what {
            What::File(stat) => Some(stat),
            What::Other | What::Unreadable(_) => None,
        }
    }
}

/// A file to be read from.
pub(super) trait OpenFile: Send + Sync {
    fn stat(&self) -> io::Result<Stat>;

    /// Reads at an offset; 0 bytes at the end.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

/// A directory with files.
pub(super) trait FileTree: Send + Sync {
    /// Everything in it, at most `max` entries and one.
    fn list(&self, max: usize) -> io::Result<Vec<Entry>>;

    fn open(&self, name: &[u8]) -> io::Result<Arc<dyn OpenFile>>;

    /// What people call it: its path.
    fn name(&self) -> String;
}

/// A directory of the operating system.
#[derive(Debug)]
pub(super) struct Disk(pub(super) PathBuf);

impl FileTree for Disk {
    fn list(&self, max: usize) -> io::Result<Vec<Entry>> {
        let look = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            let name = entry.file_name().as_bytes().to_vec();
            // Links are followed: what they lead to is read.
            let what = match fs::metadata(entry.path()) {
                Ok(found) if found.is_file() => What::File(stat(&found)),
                Ok(_) => What::Other,
                // Gone since the listing, unless it is a link that leads nowhere.
                Err(err) if err.kind() == io::ErrorKind::NotFound && !is_link(&entry) => {
                    return Ok(None);
                }
                Err(err) => What::Unreadable(err.to_string()),
            };
            Ok(Some(Entry { name, what }))
        };
        fs::read_dir(&self.0)?.take(max + 1).map(look).filter_map(io::Result::transpose).collect()
    }

    fn open(&self, name: &[u8]) -> io::Result<Arc<dyn OpenFile>> {
        let path = self.0.join(Path::new(OsStr::from_bytes(name)));
        // What was a file when it was listed may be a pipe now, and opening that would wait for a writer.
        if !fs::metadata(&path)?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Arc::new(File::open(path)?))
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}

impl OpenFile for File {
    fn stat(&self) -> io::Result<Stat> {
        Ok(stat(&self.metadata()?))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }
}

fn is_link(entry: &fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_symlink())
}

fn stat(found: &Metadata) -> Stat {
    let born = found.created().ok().and_then(nanos);
    let id = FileId { device: found.dev(), inode: found.ino(), born };
    let changed = found.modified().ok().and_then(nanos).unwrap_or(0);
    Stat { id, size: found.len(), changed }
}

fn nanos(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// Fills `into` as far as the file goes; returns how many bytes there were.
pub(super) fn read_full(file: &dyn OpenFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(offset + done as u64, &mut into[done..]) {
            Ok(0) => break,
            Ok(taken) => done += taken,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(done)
}
