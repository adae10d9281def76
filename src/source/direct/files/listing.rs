//! The seam to the file system: the entries of a directory, and the bytes of its files. Called by the job loop, which plans,
//! and by workers, which read. It does not know records.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::shown;
use crate::sync::Arc;

/// The place of a file, whatever its name. Inodes are reused, so equal places alone do not make it the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// The stat of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stat {
    pub(super) id: FileId,
    /// When it was made, in nanoseconds since the epoch, where the file system knows.
    pub(super) born: Option<u64>,
    /// In bytes.
    pub(super) size: u64,
    /// When it was changed last, in nanoseconds since the epoch.
    pub(super) changed: u64,
}

impl Stat {
    /// True if both may be the same file: a reused inode has another time of birth.
    pub(super) fn may_be(&self, other: &Stat) -> bool {
        let born = self.born.zip(other.born);
        self.id == other.id && born.is_none_or(|(one, other)| one == other)
    }
}

/// The kind of a directory entry.
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
    /// The name is a symbolic link to `what`.
    pub(super) is_link: bool,
    pub(super) what: What,
}

impl Entry {
    /// Its stat, if it is a file.
    pub(super) fn stat(&self) -> Option<&Stat> {
        match &self.what {
            What::File(stat) => Some(stat),
            What::Other | What::Unreadable(_) => None,
        }
    }
}

/// An open file.
pub(super) trait OpenFile: Send + Sync {
    fn stat(&self) -> io::Result<Stat>;

    /// True if it has no name any more, in any directory, but one that is [left by a removal](is_left_by_removal).
    fn is_removed(&self) -> io::Result<bool>;

    /// Reads at an offset; 0 bytes at the end.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

/// A directory with files.
pub(super) trait FileTree: Send + Sync {
    /// Everything in it, at most `max` entries and one.
    fn list(&self, max: usize) -> io::Result<Vec<Entry>>;

    fn open(&self, name: &[u8]) -> io::Result<Arc<dyn OpenFile>>;

    /// Its path, for messages.
    fn name(&self) -> String;
}

/// A directory of the operating system.
#[derive(Debug)]
pub(super) struct Disk(pub(super) PathBuf);

impl FileTree for Disk {
    fn list(&self, max: usize) -> io::Result<Vec<Entry>> {
        let look = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            let (name, is_link) = (entry.file_name().as_bytes().to_vec(), is_link(&entry));
            let what = match fs::metadata(entry.path()) {
                Ok(found) if found.is_file() => What::File(stat(&found)),
                Ok(_) => What::Other,
                // Gone since the listing, unless it is a link that leads nowhere.
                Err(err) if err.kind() == io::ErrorKind::NotFound && !is_link => return Ok(None),
                Err(err) if is_link => What::Unreadable(broken_link(&entry.path(), &err)),
                Err(err) => What::Unreadable(err.to_string()),
            };
            Ok(Some(Entry { name, is_link, what }))
        };
        fs::read_dir(&self.0)?.take(max + 1).map(look).filter_map(io::Result::transpose).collect()
    }

    fn open(&self, name: &[u8]) -> io::Result<Arc<dyn OpenFile>> {
        let path = self.0.join(Path::new(OsStr::from_bytes(name)));
        // A file that was listed may be a pipe now, and opening that would wait for a writer.
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

    fn is_removed(&self) -> io::Result<bool> {
        // The kernel knows the name, wherever the file was when it was removed.
        let name = || fs::read_link(format!("/proc/self/fd/{}", self.as_raw_fd()));
        let is_left = |path: PathBuf| {
            path.file_name().is_some_and(|name| is_left_by_removal(name.as_bytes()))
        };
        Ok(self.metadata()?.nlink() == 0 || name().is_ok_and(is_left))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }
}

/// Network file systems and FUSE give a removed file such a name as long as somebody has it open.
pub(super) fn is_left_by_removal(name: &[u8]) -> bool {
    name.starts_with(b".nfs") || name.starts_with(b".fuse_hidden")
}

fn is_link(entry: &fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_symlink())
}

/// Describes a broken link, with the remedy.
fn broken_link(link: &Path, err: &io::Error) -> String {
    let to = fs::read_link(link).map(|to| format!(" to `{}`", shown(to.as_os_str().as_bytes())));
    let to = to.unwrap_or_default();
    format!("it is a link{to}: {err} (name it in `exclude`, or set `follow_links = false`)")
}

fn stat(found: &Metadata) -> Stat {
    let id = FileId { device: found.dev(), inode: found.ino() };
    let born = found.created().ok().and_then(nanos);
    let changed = found.modified().ok().and_then(nanos).unwrap_or(0);
    Stat { id, born, size: found.len(), changed }
}

fn nanos(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// Fills `into` as far as the file goes; returns the number of bytes.
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

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_is_only_kept_for_its_readers_counts_as_removed() {
        let check = |to: Option<&str>, expected: bool| {
            let directory = tempfile::tempdir().expect("a directory");
            let path = |name: &str| directory.path().join(name);
            fs::write(path("log"), "1\n").expect("written");
            let file = Disk(directory.path().to_owned()).open(b"log").expect("there");
            assert!(!file.is_removed().expect("asked"));
            match to {
                Some(to) => fs::rename(path("log"), path(to)).expect("renamed"),
                None => fs::remove_file(path("log")).expect("removed"),
            }
            assert_eq!(file.is_removed().expect("asked"), expected, "{to:?}");
        };
        check(None, true);
        check(Some(".nfs000000000000000100000001"), true);
        check(Some(".fuse_hidden0000000100000001"), true);
        check(Some("log.1"), false);
        check(Some("a.nfs1"), false);
    }

    #[test]
    fn a_broken_link_is_said_to_be_one_with_a_remedy() {
        let check = |to: &str, expected: &str| {
            let directory = tempfile::tempdir().expect("a directory");
            symlink(to, directory.path().join("l")).expect("made");
            let entries = Disk(directory.path().to_owned()).list(10).expect("it is there");
            let [Entry { is_link: true, what: What::Unreadable(why), .. }] = &entries[..] else {
                panic!("{entries:?}")
            };
            let begins = why.starts_with(&format!("it is a link to `{to}`: {expected}"));
            let remedy = "(name it in `exclude`, or set `follow_links = false`)";
            assert!(begins && why.ends_with(remedy), "{why}");
        };
        check("nowhere", "No such file or directory");
        check("l", "Too many levels of symbolic links");
        check("../no/where", "No such file or directory");
    }
}
