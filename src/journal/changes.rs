//! Changes of states, read back from the log: the journal at a start, a reader of the files at a look. Any thread.

use super::record::parts;
use super::{Entry, Journal, LoggedCommit, ReadRecord, decode};
use crate::error::{Error, Result};
use crate::wal::Position;

impl Journal {
    /// Reads a record back.
    ///
    /// # Errors
    /// If it cannot be read, or differs from what was written there.
    pub(crate) fn read(&self, at: Position) -> Result<Vec<u8>> {
        self.shared.log.read(at)
    }
}

/// Reads changes of states back: calls `each` with the number of the state in the log, and bytes.
///
/// # Errors
/// If they cannot be read, or what `each` returns.
pub(crate) fn read_changes(
    read: &ReadRecord<'_>,
    commit: &LoggedCommit,
    mut each: impl FnMut(u32, &[u8]) -> Result<()>,
) -> Result<()> {
    for at in &commit.changed {
        let record = read(*at)?;
        let Entry::Changed(_, bytes) = decode(*at, &record)? else {
            return Err(Error::Failed(format!("the record at {at} of the log has no changes")));
        };
        parts(bytes)?.into_iter().try_for_each(|(state, part)| each(state, part))?;
    }
    Ok(())
}
