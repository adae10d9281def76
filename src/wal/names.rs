//! The log's files in a directory, by their names. Opens none of them.

use super::format::{segment_of, spare_of};
use crate::error::{Error, Result};
use crate::storage::Storage;

/// The names of the log's files in a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Sorted.
    pub(crate) segments: Vec<u64>,
    pub(crate) spares: Vec<u64>,
}

impl Names {
    pub(crate) fn list(storage: &dyn Storage) -> Result<Self> {
        let what = || format!("cannot list {}", storage.name());
        let names = storage.list().map_err(|err| Error::io(what(), err))?;
        let mut segments: Vec<u64> = names.iter().filter_map(|name| segment_of(name)).collect();
        segments.sort_unstable();
        Ok(Names { segments, spares: names.iter().filter_map(|name| spare_of(name)).collect() })
    }
}
