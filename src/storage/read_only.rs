//! `ReadOnly`: a directory for a reader, through code that would write. A call that would change something fails; a call that
//! only makes something durable does nothing. Runs on the main thread.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::directory::volume_of;
use super::places::{nearest, real_path};
use super::{Directory, Lock, Storage, StoredFile, Volume, expect_directory};
use crate::error::Result;
use crate::sync::Arc;

/// The use of a directory or a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It is written to, and made if it does not exist.
    Write,
    /// It is read, and nothing changes.
    Look,
}

impl Access {
    /// Opens the directory.
    ///
    /// # Errors
    /// If it cannot be opened, or made, or takes no files; a look reports that too.
    pub(crate) fn open(self, path: &Path) -> Result<Arc<dyn Storage>> {
        Ok(match self {
            Access::Write => Arc::new(Directory::open(path)?),
            Access::Look => Arc::new(ReadOnly::at(path)?),
        })
    }
}

/// See the module. Its lock keeps nobody out, and is always free.
#[derive(Debug)]
struct ReadOnly {
    path: PathBuf,
    /// `None` if it does not exist, and a start would make it.
    directory: Option<Directory>,
}

impl ReadOnly {
    /// # Errors
    /// If the path is no directory, cannot be read, or takes no files of a start.
    fn at(path: &Path) -> Result<ReadOnly> {
        expect_directory(path)?;
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        // Messages show the path as it was given. Directories before a `..` in it may not exist yet, and those after it may.
        let shown = if is_there(path) { path.to_owned() } else { real_path(path) };
        let directory = is_there(&shown).then(|| Directory::read_only(shown)).transpose()?;
        Ok(ReadOnly { path: path.to_owned(), directory })
    }

    /// A lock that keeps nobody out, if a start could take one.
    fn could_lock(&self, word: Option<&str>) -> Result<Lock> {
        self.directory.as_ref().map_or(Ok(()), |directory| directory.expect_lock(word))?;
        Ok(Lock(Box::new(())))
    }

    fn there(&self) -> io::Result<&Directory> {
        self.directory.as_ref().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

fn unchanged<T>() -> io::Result<T> {
    Err(io::Error::new(ErrorKind::ReadOnlyFilesystem, "it is only looked at"))
}

impl Storage for ReadOnly {
    fn create(&self, _name: &str) -> io::Result<Arc<dyn StoredFile>> {
        unchanged()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        self.there()?.open(name)
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        unchanged()
    }

    fn size_of(&self, name: &str) -> io::Result<Option<u64>> {
        self.directory.as_ref().map_or(Ok(None), |directory| directory.size_of(name))
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        unchanged()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.as_ref().map_or(Ok(Vec::new()), Storage::list)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> Result<Lock> {
        self.could_lock(None)
    }

    fn lock_for(&self, word: &str) -> Result<Lock> {
        self.could_lock(Some(word))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn volume(&self) -> io::Result<Volume> {
        match &self.directory {
            Some(directory) => directory.volume(),
            None => volume_of(nearest(&self.path)),
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_locked_or_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let looks = |path: &Path| Access::Look.open(path).expect("looked at");
        let missing = looks(&dir.path().join("missing"));
        assert_eq!(missing.list().expect("nothing"), Vec::<String>::new());
        assert_eq!(missing.size_of("a").expect("nothing"), None);
        assert!(!dir.path().join("missing").exists());
        std::fs::write(dir.path().join("a"), "text").expect("written");
        let there = looks(dir.path());
        let _locks = [there.lock().expect("free"), there.lock().expect("free")];
        there.sync_dir().expect("nothing to do");
        assert_eq!(there.size_of("a").expect("read"), Some(4));
        assert!(there.create("b").is_err() && there.create("a").is_err());
        assert!(there.rename("a", "b").is_err() && there.rename_new("a", "b").is_err());
        assert!(there.remove("a").is_err());
        assert!(there.open("a").expect("there").truncate(0).is_err());
        assert_eq!(there.list().expect("listed"), ["a"]);
        assert_eq!(std::fs::read(dir.path().join("a")).expect("read"), b"text");
        let file = Access::Look.open(&dir.path().join("a")).err().map(|err| err.to_string());
        assert!(file.is_some_and(|text| text.contains("cannot open the directory")));
    }
}
