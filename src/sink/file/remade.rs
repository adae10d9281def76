//! An output directory that goes away while it is written to: it is made again, with what it remembered.
//!
//! ```text
//! each batch: the directory is where it was, and its ledger in it ─▶ the batch is written
//!   not so ─ rows that count were in an open file ──▶ an error: which file, how many bytes; nothing more is written
//!          ─ another directory, with output in it ──▶ an error; the next start looks at what it holds
//!          ─▶ made, locked ─▶ the ledger with all its keys, synced ─▶ a note: how many files are gone ─▶ the batch is written
//! ```
//! A directory that was moved away, and one that somebody made in its place, are the same case. Keys stay in memory meanwhile:
//! what was committed is not written again, whoever removed its file. Runs on the worker that finishes a job.

use std::io::{self, ErrorKind};

use super::hidden::Hidden;
use super::ledger::LedgerFile;
use super::names::{self, Label};
use super::{File, Rolling};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::sync::Arc;
use crate::wording::{by_number, count};

impl File {
    /// Makes the directory again if it is gone, and its ledger if that is.
    ///
    /// # Errors
    /// If that fails, rows that count are gone with it, or another directory with output is there.
    pub(super) fn keep_place(&mut self) -> Result<()> {
        let is_here = self.storage.is_in_place().map_err(|err| self.failed_write(err))?;
        // One that was made again and not locked is not the own one yet.
        let is_here = is_here && self.lock.is_some();
        if is_here && self.has_ledger().map_err(|err| self.failed_write(err))? {
            return Ok(());
        }
        self.expect_rows()?;
        self.remake(is_here)
    }

    /// Looks whether the ledger is there, if it was.
    fn has_ledger(&self) -> io::Result<bool> {
        let ledger = self.begun.as_ref().and_then(|begun| begun.ledger.as_ref());
        match ledger.filter(|ledger| ledger.is_there()) {
            Some(ledger) => Ok(self.storage.size_of(ledger.name())?.is_some()),
            None => Ok(true),
        }
    }

    /// Rows that count must not be gone.
    fn expect_rows(&mut self) -> Result<()> {
        match self.missing().map_err(|err| self.failed_write(err))? {
            missing if missing.is_empty() => Ok(()),
            missing => Err(self.give_up_rows(&missing)),
        }
    }

    fn missing(&self) -> io::Result<String> {
        let rolling = self.begun.as_ref().and_then(|begun| begun.rolling.as_ref());
        rolling.map_or(Ok(String::new()), Rolling::missing)
    }

    fn give_up_rows(&mut self, missing: &str) -> Error {
        let what = "put back what was there; the next start looks for it, and names the ways out";
        self.give_up(format!("{missing}. They are in no output: {what}"))
    }

    fn remake(&mut self, is_here: bool) -> Result<()> {
        let storage = Arc::clone(&self.storage);
        let dir = storage.name();
        let fail = |err| Error::io(format!("cannot make the output directory {dir} again"), err);
        storage.remake().map_err(fail)?;
        // Whoever has locked the one that is there now must not be written beside. The own lock would keep itself out.
        self.lock = None;
        let lock = storage.lock()?;
        if !is_here && let Some(name) = self.output_in()? {
            return Err(self.give_up(format!(
                "{dir} was replaced by another directory while it was written to, and {name} is in that one: put the first one \
                 back, or start again, which looks at what this one holds"
            )));
        }
        let left = self.count_files().map_err(fail)?;
        let Some(begun) = &mut self.begun else { return Ok(()) };
        let again = begun.rolling.as_mut().map_or(Ok(()), |rolling| {
            begun.files += rolling.take_named();
            rolling.begin_again(begun.ledger.as_mut())
        });
        let ledger = begun.ledger.as_mut().filter(|ledger| ledger.is_there());
        let put = again.and_then(|()| ledger.map_or(Ok(()), LedgerFile::put));
        let gone = begun.files.saturating_sub(left);
        put.map_err(|failure| self.fail(failure))?;
        self.begun.iter_mut().for_each(|begun| begun.files = left);
        self.lock = Some(lock);
        self.notes.push(told(&dir, is_here, gone));
        Ok(())
    }

    /// The first name in the directory that is one of output, but for the own ledger, which is written anew.
    fn output_in(&self) -> Result<Option<String>> {
        let dir = self.storage.name();
        let fail = |err| Error::io(format!("cannot read the output directory {dir}"), err);
        let found = self.storage.list().map_err(fail)?;
        let begun = self.begun.as_ref().and_then(|begun| begun.ledger.as_ref());
        let is_own = |name: &str| begun.is_some_and(|ledger| ledger.name() == name);
        let is_output = |name: &&String| {
            let is_ledger = names::of_ledger(name).is_some() && !is_own(name);
            is_ledger || Label::of_data(name).is_some()
        };
        match found.iter().find(is_output) {
            Some(name) => Ok(Some(name.clone())),
            None => Ok(Hidden::find(&self.storage, &found)?.first().map(Hidden::name)),
        }
    }

    /// Counts the files of output that are there.
    pub(super) fn count_files(&self) -> io::Result<u64> {
        let found = self.storage.list()?;
        let tag = self.begun.as_ref().and_then(|begun| begun.tag.as_ref());
        let is_own =
            |name: &&String| Label::of_data(name).is_some_and(|label| label.tag.as_ref() == tag);
        Ok(found.iter().filter(is_own).count() as u64)
    }

    /// A failure after which nobody knows what is on the disk, unless the directory is gone: then nothing is, and all of it is
    /// written again once that is made again.
    pub(super) fn fail_for_good(&mut self, err: io::Error) -> Error {
        let is_gone =
            err.kind() == ErrorKind::NotFound && matches!(self.storage.is_in_place(), Ok(false));
        if is_gone {
            return self.expect_rows().err().unwrap_or_else(|| self.failed_write(err));
        }
        if let Some(missing) = self.missing().ok().filter(|missing| !missing.is_empty()) {
            return self.give_up_rows(&missing);
        }
        let what = "what is on the disk is known at the next start";
        self.give_up(format!("{}; {what}", self.failed_write(err)))
    }
}

/// True if a file could not be given its name because somebody removed it, or its directory.
pub(super) fn is_nowhere(storage: &dyn Storage, err: &io::Error, name: &str) -> bool {
    err.kind() == ErrorKind::NotFound && matches!(storage.size_of(name), Ok(None))
}

/// The event, in words.
fn told(dir: &str, is_here: bool, gone: u64) -> String {
    let what = match is_here {
        true => {
            format!("the ledger of {dir} was removed while it was written to, and is written again")
        }
        false => {
            format!("{dir} was removed or moved away while it was written to, and is made again")
        }
    };
    let are = by_number(gone, "is", "are");
    match gone {
        0 => what,
        _ => format!("{what}; {} {are} not there any more", count(gone, "committed file")),
    }
}
