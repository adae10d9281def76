//! The twin of `sqlite` for a program that is built without it.

use std::convert::Infallible;
use std::path::Path;

use super::options::Existing;
use super::sqlite_options::SqliteOptions;
use super::{BatchMeta, CommitKey, Rows, Sink};
use crate::error::{Error, Result};
use crate::storage::Access;

/// The sink `sqlite`, which this program was built without: the feature `sqlite` has it.
#[derive(Debug)]
pub struct Sqlite(Infallible);

impl Sqlite {
    /// Fails: the program was built without the sink.
    ///
    /// # Errors
    /// [`Error::Config`], always, with the remedy.
    ///
    /// ```
    /// use std::path::Path;
    /// use tidemill::Error;
    /// use tidemill::sink::{Existing, Sqlite};
    ///
    /// let opened = Sqlite::open(Path::new("file-that-is-no-directory/words.db"), "words", Existing::Refuse);
    /// assert!(matches!(opened, Err(Error::Config(text)) if text.contains("--features sqlite")));
    /// ```
    pub fn open(_path: &Path, _table: &str, _existing: Existing) -> Result<Self> {
        let what = "the sink `sqlite` is not in this program: build it with `--features sqlite`";
        Err(Error::Config(format!("error: {what}")))
    }

    /// Never succeeds.
    ///
    /// # Errors
    /// As [`open`](Sqlite::open).
    pub(super) fn left(path: &Path, table: &str, _access: Access) -> Result<Self> {
        Sqlite::open(path, table, Existing::Append)
    }
}

impl SqliteOptions {
    /// Never succeeds.
    ///
    /// # Errors
    /// As [`Sqlite::open`].
    pub(super) fn open_for(&self, _access: Access) -> Result<Sqlite> {
        Sqlite::open(&self.path, &self.table, self.existing)
    }
}

impl Sink for Sqlite {
    fn committed(&mut self, _key: &CommitKey) -> Result<bool> {
        match self.0 {}
    }

    fn write(&mut self, _key: &CommitKey, _meta: &BatchMeta, _rows: &Rows) -> Result<()> {
        match self.0 {}
    }

    fn commit(&mut self, _key: &CommitKey) -> Result<()> {
        match self.0 {}
    }
}
