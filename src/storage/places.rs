//! Checks that a start may write to a place, before anything is made there. Changes nothing. Runs on the main thread.
//!
//! ```text
//! the place is there    ─▶ it is a directory, and takes a file without a name, which ends with the check
//! it is not there       ─▶ the nearest directory above it takes one, and has room for a new directory
//! a file of its own     ─▶ it can be opened for writing, or its directory takes one
//! ```
//! An error names the obstacle and the remedy. A start and a look both ask here, so they say the same.

use std::fs;
use std::io::{self, ErrorKind};
use std::iter;
use std::path::{Component, Path, PathBuf};

use indicatif::HumanBytes;
use rustix::fs::{Access, AtFlags, CWD, FallocateFlags, FsWord, Mode, OFlags, StatVfsMountFlags};
use rustix::fs::{accessat, fallocate, open, statfs, statvfs};
use rustix::io::Errno;

use super::is_full;
use crate::error::{Error, Result};
use crate::wording::count;

/// Room for a new directory and its first small files, in bytes.
const NEW_BYTES: u64 = 64 << 10;

/// Files that a new directory needs at least, itself among them.
const NEW_FILES: u64 = 8;

/// The longest path that the system takes, in bytes, with a zero at its end.
const PATH_BYTES: usize = 4096;

/// Room in a path after a new directory for the names of its files, in bytes.
const NAME_BYTES: usize = 256;

/// The end of the name of the longest-named file that SQLite makes beside a database.
#[cfg(any(test, feature = "sqlite"))]
const BESIDE: &str = "-journal";

/// The most links in a row.
#[cfg(any(test, feature = "sqlite"))]
const LINKS_MAX: usize = 40;

/// File systems that show what the kernel knows: proc, sysfs, cgroup 1 and 2, debugfs, tracefs, securityfs, devpts. Nobody
/// makes files there, whatever the mode of a directory says.
const OF_THE_KERNEL: [FsWord; 8] =
    [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0x7363_6673, 0x1cd1];

/// Checks that a directory can be written to, or made with those above it.
///
/// # Errors
/// The obstacle, and the remedy.
pub(crate) fn expect_directory(path: &Path) -> Result<()> {
    let is_there = path.symlink_metadata().is_ok();
    let what = if is_there { "open" } else { "make" };
    let asked = if is_there { writable(path, 0) } else { could_be_made(path) };
    asked.map_err(|err| Error::io(format!("cannot {what} the directory {}", path.display()), err))
}

/// Checks that a file can be written to, or made in a directory that exists, with others beside it.
///
/// # Errors
/// The obstacle, and the remedy.
#[cfg(any(test, feature = "sqlite"))]
pub(crate) fn expect_file(path: &Path) -> io::Result<()> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::metadata(&path) {
            Ok(found) if found.is_file() => {
                let opened = fs::OpenOptions::new().read(true).write(true).open(&path);
                opened.map_err(|err| with_remedy(err, &path))?;
                let real = fs::canonicalize(&path)?;
                return writable(above(&real), 0);
            }
            Ok(found) => {
                let what = if found.is_dir() { "a directory" } else { "no file that keeps bytes" };
                let text = format!("{} is {what}: give the path of a file", path.display());
                return Err(io::Error::new(ErrorKind::InvalidInput, text));
            }
            Err(_) => {}
        }
        // A link to a file that does not exist yet: the file is made at its target.
        match fs::read_link(&path) {
            Ok(target) => path = above(&path).join(target),
            Err(_) => {
                expect_names(&path, above(&path), BESIDE.len())?;
                return writable(above(&path), 0);
            }
        }
    }
    Err(with_remedy(Errno::LOOP.into(), &path))
}

/// The target of a path, also if its end does not exist yet. Links are followed as far as it exists; a `..` after that removes
/// the name before it, as it will once the path is made.
pub(crate) fn real_path(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut there = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = loop {
        if let Ok(found) = fs::canonicalize(&there) {
            break found;
        }
        let name = there.components().next_back();
        match name {
            Some(Component::Normal(name)) => missing.push(name.to_owned()),
            Some(Component::ParentDir) => missing.push("..".into()),
            _ => break there,
        }
        if !there.pop() {
            break there;
        }
    };
    missing.iter().rev().fold(found, |mut path, name| {
        if name == ".." {
            path.pop();
        } else {
            path.push(name);
        }
        // Links may follow a `..` again.
        fs::canonicalize(&path).unwrap_or(path)
    })
}

/// The nearest directory of a path that exists.
pub(crate) fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."))
}

fn could_be_made(path: &Path) -> io::Result<()> {
    let mut there = above(path);
    loop {
        match there.symlink_metadata() {
            Ok(_) => break,
            Err(err) if is_not_there(&err) => there = above(there),
            Err(err) => return Err(in_the_way(err, there)),
        }
    }
    expect_names(path, there, 0)?;
    writable(there, NEW_BYTES)?;
    match free_files(there) {
        Some(free) if free < NEW_FILES => {
            Err(with_remedy(io::Error::from(ErrorKind::StorageFull), there))
        }
        _ => Ok(()),
    }
}

/// Number of files that can still be made on the file system of a directory; `None` if it has no limit of them.
fn free_files(directory: &Path) -> Option<u64> {
    let volume = statvfs(directory).ok()?;
    (volume.f_files > 0).then_some(volume.f_favail)
}

/// Returns true if nothing has the name; nothing can have one that is too long.
fn is_not_there(err: &io::Error) -> bool {
    err.kind() == ErrorKind::NotFound || Errno::from_io_error(err) == Some(Errno::NAMETOOLONG)
}

/// Checks that the file system of a directory takes the names after it in a path, the last one with `more` bytes added.
fn expect_names(path: &Path, there: &Path, more: usize) -> io::Result<()> {
    let length = path.as_os_str().len();
    if length + NAME_BYTES >= PATH_BYTES {
        let most = PATH_BYTES - NAME_BYTES - 1;
        return Err(too_long(&format!("the path has {length} bytes, and {most} are the most")));
    }
    let Ok(volume) = statvfs(there) else { return Ok(()) };
    let most = usize::try_from(volume.f_namemax).unwrap_or(usize::MAX);
    let missing = path.strip_prefix(there).unwrap_or(path).components();
    let lengths = missing.rev().zip([more].into_iter().chain(iter::repeat(0)));
    let mut lengths = lengths.map(|(name, more)| name.as_os_str().len() + more);
    lengths.find(|length| *length > most).map_or(Ok(()), |length| {
        Err(too_long(&format!("a name in it needs {length} bytes, and {most} are the most there")))
    })
}

fn too_long(why: &str) -> io::Error {
    let err = io::Error::from(Errno::NAMETOOLONG);
    io::Error::new(err.kind(), format!("{err}; {why}: give a shorter path"))
}

fn above(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The error for a path that leads nowhere: its nearest part that exists is the reason if that is a link or a file.
fn in_the_way(err: io::Error, path: &Path) -> io::Error {
    let there = path.ancestors().find(|path| path.symlink_metadata().is_ok());
    let at = there.filter(|there| err.kind() != ErrorKind::NotFound || there.is_symlink());
    with_remedy(err, at.unwrap_or(path))
}

/// Checks that a file could be made in a directory, and take this many bytes.
fn writable(directory: &Path, bytes: u64) -> io::Result<()> {
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => {
            return Err(with_remedy(ErrorKind::NotADirectory.into(), directory));
        }
        Ok(_) => {}
        Err(err) => return Err(in_the_way(err, directory)),
    }
    takes_a_file(directory, bytes).map_err(|err| with_remedy(err, directory))
}

fn takes_a_file(directory: &Path, bytes: u64) -> io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) if bytes > 0 => match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => Ok(()),
            Err(err) => Err(err.into()),
        },
        Ok(_) => Ok(()),
        // A system or a file system without nameless files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => may_write(directory),
        Err(err) => Err(err.into()),
    }
}

/// Checks the directory's mode and its file system.
fn may_write(directory: &Path) -> io::Result<()> {
    if OF_THE_KERNEL.contains(&statfs(directory)?.f_type) {
        return Err(Errno::PERM.into());
    }
    if statvfs(directory)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(Errno::ROFS.into());
    }
    Ok(accessat(CWD, directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

/// The same error, with the obstacle and the remedy.
fn with_remedy(err: io::Error, at: &Path) -> io::Error {
    let shown = at.display();
    let remedy = match err.kind() {
        ErrorKind::NotADirectory => {
            format!("{shown} is no directory: move it away, or give another place")
        }
        ErrorKind::NotFound => match fs::read_link(at) {
            Ok(to) => {
                let to = to.display();
                format!(
                    "{shown} is a link to {to}, which is not there: make that, or remove the link"
                )
            }
            Err(_) => format!("{shown} is not there: make it, or give another place"),
        },
        ErrorKind::PermissionDenied => format!(
            "{shown} takes no files of this user: let the user write there, or give another place"
        ),
        ErrorKind::ReadOnlyFilesystem => format!(
            "{shown} is on a file system that is mounted for reading only: mount it for writing, or give another place"
        ),
        _ if is_full(&err) && free_files(at).is_some_and(|free| free < NEW_FILES) => {
            let free = free_files(at).unwrap_or_default();
            format!(
                "the file system of {shown} has room for {} (inodes), and {NEW_FILES} are needed: remove files there, or give \
                 another place",
                count(free, "more file")
            )
        }
        _ if is_full(&err) => {
            let room = HumanBytes(NEW_BYTES);
            format!("{room} must be free on the disk of {shown}: make room, or give another place")
        }
        _ => return err,
    };
    io::Error::new(err.kind(), format!("{err}; {remedy}"))
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Checks the answer for a place below a directory with a file, a directory, and links with and without a target.
    fn check(ask: fn(&Path) -> Option<String>, place: &str, expected: &str) {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "text").expect("written");
        fs::create_dir(at("dir")).expect("made");
        for (link, to) in
            [("to-dir", "dir"), ("to-file", "file"), ("to-new", "dir/new"), ("to-no", "no/new")]
        {
            symlink(to, at(link)).expect("linked");
        }
        let before = fs::read_dir(dir.path()).expect("listed").count();
        let said = ask(&dir.path().join(place)).unwrap_or_default();
        let said = said.replace(&format!("{}/", dir.path().display()), "");
        assert!(
            said.ends_with(expected) && said.is_empty() == expected.is_empty(),
            "{place}: {said}"
        );
        let after = fs::read_dir(dir.path()).expect("listed").count();
        assert_eq!((after, fs::read_dir(at("dir")).expect("listed").count()), (before, 0));
        assert_eq!(fs::read(at("file")).expect("read"), b"text");
    }

    #[test]
    fn what_is_in_the_way_is_named_with_the_remedy() {
        let directory = |path: &Path| expect_directory(path).err().map(|err| err.to_string());
        check(directory, "dir", "");
        check(directory, "to-dir", "");
        check(directory, "new", "");
        check(directory, "dir/new/deep", "");
        let is_file = "file is no directory: move it away, or give another place";
        check(directory, "file", is_file);
        check(directory, "file/new", is_file);
        check(directory, "file/new/deep", is_file);
        check(directory, "to-file", "to-file is no directory: move it away, or give another place");
        let to_new =
            "to-new is a link to dir/new, which is not there: make that, or remove the link";
        check(directory, "to-new", to_new);
        check(directory, "to-new/deep", to_new);
        check(
            directory,
            "/proc/new",
            "/proc takes no files of this user: let the user write there, or give another place",
        );
        check(
            directory,
            "/dev/full",
            "/dev/full is no directory: move it away, or give another place",
        );
        let file = |path: &Path| expect_file(path).err().map(|err| err.to_string());
        check(file, "file", "");
        check(file, "new", "");
        check(file, "to-file", "");
        check(file, "to-new", "");
        check(file, "dir", "dir is a directory: give the path of a file");
        check(file, "/dev/full", "/dev/full is no file that keeps bytes: give the path of a file");
        check(file, "no/new", "no is not there: make it, or give another place");
        check(file, "to-no", "no is not there: make it, or give another place");
        check(file, "file/new", is_file);
    }

    #[test]
    fn names_that_are_too_long_are_counted() {
        let directory = |path: &Path| expect_directory(path).err().map(|err| err.to_string());
        let file = |path: &Path| expect_file(path).err().map(|err| err.to_string());
        let name = |length: usize| "n".repeat(length);
        let too_long =
            "a name in it needs 256 bytes, and 255 are the most there: give a shorter path";
        check(directory, &name(255), "");
        check(directory, &name(256), too_long);
        check(directory, &format!("new/{}", name(256)), too_long);
        check(directory, &format!("{}/new", name(256)), too_long);
        check(directory, &format!("to-dir/../new/{}/new", name(256)), too_long);
        check(directory, &"n/".repeat(2000), "and 3839 are the most: give a shorter path");
        check(directory, &"n/".repeat(3000), "and 3839 are the most: give a shorter path");
        check(file, &name(247), "");
        check(file, &name(248), too_long);
        check(file, &"n/".repeat(3000), "and 3839 are the most: give a shorter path");
    }

    #[test]
    fn the_nearest_directory_has_the_disk() {
        let check =
            |path: &str, expected: &str| assert_eq!(nearest(Path::new(path)), Path::new(expected));
        check("/proc/no/deep", "/proc");
        check("src/no", "src");
        check("no", ".");
        check("/", "/");
    }
}
