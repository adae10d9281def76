//! The twin of `sqlite` for a program that is built without it.

use std::convert::Infallible;
use std::path::Path;

use super::{BatchMeta, CommitKey, Existing, Rows, Sink};
use crate::error::{Error, Result};
use crate::storage::Access;

/// Whether the sink is there.
pub const SQLITE_COMPILED: bool = false;

/// The sink that is not there.
#[derive(Debug)]
pub struct Sqlite(Infallible);

impl Sqlite {
    /// Never succeeds.
    ///
    /// # Errors
    /// Always: the program was built without the sink.
    pub fn open(_path: &Path, _table: &str, _existing: Existing) -> Result<Self> {
        let what = "the sink `sqlite` is not in this program: build it with `--features sqlite`";
        Err(Error::Config(format!("error: {what}")))
    }

    /// Never succeeds.
    ///
    /// # Errors
    /// As [`open`](Sqlite::open).
    pub(crate) fn open_for(
        path: &Path,
        table: &str,
        existing: Existing,
        _access: Access,
    ) -> Result<Self> {
        Sqlite::open(path, table, existing)
    }

    /// Never succeeds.
    ///
    /// # Errors
    /// As [`open`](Sqlite::open).
    pub(super) fn left(path: &Path, table: &str, _access: Access) -> Result<Self> {
        Sqlite::open(path, table, Existing::Append)
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
