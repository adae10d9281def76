//! `Hidden`: a file that gathered batches when an earlier process ended, with its manifest, and what becomes of it.
//!
//! ```text
//! open file ── manifest: long enough, and its checksum ▶ cut behind its last entry, named, its keys go to the ledger
//!              shorter, changed, or gone ────────────▶ an error that says how many bytes are missing
//! named, manifest left: keys in the ledger, or not yet ▶ they are, and the manifest is removed
//! ```
//! A crash between the name and the removal of the manifest leaves the file under its name, or its keys in the ledger; where
//! neither is so, somebody removed the file, or moved the named one away right after a crash: only a person knows.

use std::io;

use super::ledger::{LedgerFile, Taken};
use super::manifest::Manifest;
use super::names::Label;
use crate::error::{Error, Result};
use crate::owner::StateId;
use crate::sink::book::Known;
use crate::sink::formatted::FileFormat;
use crate::sink::rolling::explain;
use crate::storage::{Storage, StoredFile, read_full, sync, write_all};
use crate::sync::Arc;
use crate::wording::{by_number, count};

/// The end of the name that a user gives a manifest to give its rows up.
const GIVEN_UP: &str = "manifest.lost";

/// See the module.
#[derive(Debug)]
pub(in crate::sink) struct Hidden {
    /// With the last batch of the manifest.
    label: Label,
    /// The length of the open file; none if there is none.
    open: Option<u64>,
    /// None: there is none, so no batch counts.
    manifest: Option<Manifest>,
    /// The end of the manifest's name.
    end: &'static str,
}

/// Its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// No batch counts.
    Nothing,
    /// The open file has what the manifest says.
    Open,
    /// The file had got its name.
    Named,
    /// A person gave the rows up.
    GivenUp,
    /// So many bytes are missing.
    Missing(u64),
}

impl Hidden {
    /// Those among these names.
    ///
    /// # Errors
    /// If one cannot be read, or a manifest is damaged.
    pub(in crate::sink) fn find(
        storage: &Arc<dyn Storage>,
        names: &[String],
    ) -> Result<Vec<Hidden>> {
        let mut found: Vec<Hidden> = Vec::new();
        for name in names {
            let fail = |err| Error::io(format!("cannot recover {}/{name}", storage.name()), err);
            let unread = |err: io::Error| match err.kind() {
                io::ErrorKind::InvalidData => damaged(&storage.name(), name, &err),
                _ => fail(err),
            };
            for end in ["manifest", GIVEN_UP] {
                if let Some(label) = Label::of_hidden(name, end) {
                    let file = storage.open(name).map_err(fail)?;
                    let manifest = Manifest::read(file.as_ref()).map_err(unread)?;
                    let last = manifest.entries.last().map_or(label.last, |entry| entry.key.time);
                    let open = storage.size_of(&label.hidden("open")).map_err(fail)?;
                    let (label, manifest) = (Label { last, ..label }, Some(manifest));
                    found.push(Hidden { label, open, manifest, end });
                }
            }
        }
        for name in names {
            let fail = |err| Error::io(format!("cannot recover {}/{name}", storage.name()), err);
            let label = Label::of_hidden(name, "open");
            let is_new = |label: &Label| {
                found.iter().all(|other| other.label.hidden("open") != label.hidden("open"))
            };
            if let Some(label) = label.filter(is_new) {
                let open = storage.size_of(name).map_err(fail)?;
                found.push(Hidden { label, open, manifest: None, end: "manifest" });
            }
        }
        Ok(found)
    }

    /// Whose it is; none: nobody's, or no batch counts.
    pub(in crate::sink) fn identity(&self) -> Option<StateId> {
        self.manifest.as_ref().and_then(|manifest| manifest.identity)
    }

    /// The job, the partition and the last batch that counts.
    pub(in crate::sink) fn label(&self) -> &Label {
        &self.label
    }

    pub(in crate::sink) fn name(&self) -> String {
        self.label.hidden("open")
    }

    fn manifest_name(&self) -> String {
        self.label.hidden(self.end)
    }

    /// The end of the rows that count, if there is a file of them.
    pub(in crate::sink) fn end_of_rows(&self) -> Option<u64> {
        self.open.and(self.entries().last()).map(|last| last.end)
    }

    /// Takes the open file out of the way: no start touches it from now on. Returns what it is called.
    ///
    /// # Errors
    /// What the storage says.
    pub(in crate::sink) fn keep(&self, storage: &dyn Storage) -> io::Result<String> {
        let kept = format!("{}.kept", self.name());
        storage.rename_new(&self.name(), &kept)?;
        storage.sync_dir()?;
        Ok(kept)
    }

    /// The length of the open file, if it holds anything and no manifest says that a batch in it counts.
    pub(in crate::sink) fn unlisted(&self) -> Option<u64> {
        self.open.filter(|length| *length > 0 && self.entries().is_empty())
    }

    /// The remedy for a manifest that lists no batch beside an open file with rows, in words, where commits are missing: it
    /// was damaged then, and a crash did not do it.
    pub(in crate::sink) fn damage(&self, dir: &str) -> Option<String> {
        let (bytes, name, manifest) = (self.unlisted()?, self.name(), self.manifest_name());
        let is = match self.manifest {
            Some(_) => "lists no batch, so it is damaged",
            None => "is gone",
        };
        Some(format!(
            "The manifest {dir}/{manifest} {is}: it says which batches of the open file {dir}/{name} ({}) are committed. Put a good \
             copy of it back; that file is kept, as it is",
            count(bytes, "byte")
        ))
    }

    /// The batches that count.
    pub(in crate::sink) fn entries(&self) -> &[super::manifest::Entry] {
        self.manifest.as_ref().map_or(&[], |manifest| &manifest.entries)
    }

    fn case(
        &self,
        storage: &dyn Storage,
        ledger: Option<&LedgerFile>,
        format: FileFormat,
    ) -> io::Result<Case> {
        let Some(last) = self.entries().last() else { return Ok(Case::Nothing) };
        let Label { job, part, .. } = &self.label;
        let book = ledger.and_then(|ledger| ledger.book(job, *part));
        let is_known = book.is_some_and(|book| book.look(&last.key, false) == Known::Committed);
        let named = storage.size_of(&self.label.rolled(self.end_of_data(format)))?;
        Ok(match (self.open, named) {
            (_, _) if self.end == GIVEN_UP => Case::GivenUp,
            (Some(length), _) if length >= last.end => {
                let open = storage.open(&self.name())?;
                let good = self.manifest.as_ref().map_or(Ok(0), |it| it.good_end(open.as_ref()))?;
                if good < last.end { Case::Missing(last.end - good) } else { Case::Open }
            }
            (Some(length), _) => Case::Missing(last.end - length),
            (None, _) if is_known => Case::Named,
            (None, Some(length)) if length == last.end => Case::Named,
            (None, _) => Case::Missing(last.end),
        })
    }

    fn end_of_data(&self, otherwise: FileFormat) -> &'static str {
        let format = self.manifest.as_ref().and_then(|manifest| manifest.format);
        format.unwrap_or(otherwise).end()
    }

    /// Number of its commits that no ledger has.
    pub(in crate::sink) fn commits(&self, ledger: Option<&LedgerFile>) -> u64 {
        let Label { job, part, .. } = &self.label;
        let is_known = |entry: &super::manifest::Entry| {
            let book = ledger.and_then(|ledger| ledger.book(job, *part));
            book.is_some_and(|book| book.look(&entry.key, false) == Known::Committed)
        };
        match self.entries().last().is_some_and(is_known) {
            true => 0,
            false => self.entries().len() as u64,
        }
    }

    /// The rows of it that are not under a name of their own, in words; none if all are.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub(in crate::sink) fn held(
        &self,
        storage: &dyn Storage,
        ledger: Option<&LedgerFile>,
    ) -> Result<Option<String>> {
        let name = format!("{}/{}", storage.name(), self.name());
        let case = self.case(storage, ledger, FileFormat::Text);
        let case = case.map_err(|err| Error::io(format!("cannot look at {name}"), err))?;
        let batches = count(self.entries().len(), "batch");
        let bytes = count(self.entries().last().map_or(0, |last| last.end), "byte");
        Ok(match case {
            Case::Nothing | Case::Named | Case::GivenUp => None,
            Case::Open => Some(format!("the open file {name} ({bytes} of {batches})")),
            Case::Missing(missing) => Some(format!(
                "the open file {name} ({bytes} of {batches}, of which {missing} {} missing)",
                by_number(missing, "is", "are")
            )),
        })
    }

    /// Looks whether what counts is there; changes nothing. `format`: that of the rows if the manifest does not say.
    ///
    /// # Errors
    /// If rows are missing: which file, how many bytes, and what to do.
    pub(in crate::sink) fn check(
        &self,
        storage: &dyn Storage,
        ledger: Option<&LedgerFile>,
        format: FileFormat,
    ) -> Result<()> {
        let dir = storage.name();
        let (name, manifest) = (self.name(), self.manifest_name());
        let case = self.case(storage, ledger, format);
        let case = case.map_err(|err| Error::io(format!("cannot recover {dir}/{name}"), err))?;
        let Case::Missing(bytes) = case else { return Ok(()) };
        let end = self.entries().last().map_or(0, |last| last.end);
        let what = match self.open {
            Some(length) if length < end => "too short",
            Some(_) => "not what was written",
            None => "gone",
        };
        let (batches, are) = (count(self.entries().len(), "batch"), by_number(bytes, "is", "are"));
        let bytes = count(bytes, "byte");
        let Label { first, last, .. } = self.label;
        let named = self.label.rolled(self.end_of_data(format));
        Err(Error::Failed(format!(
            "{dir}/{name} is {what}: {bytes} {are} missing of the rows of {batches} ({first} to {last} ms), which \
             {manifest} lists as committed and which are not in {named} either. Put the file back. To give these rows up, or \
             if you moved {named} away: mv {dir}/{manifest} {dir}/{}",
            self.label.hidden(GIVEN_UP)
        )))
    }

    /// Names what counts, gives its keys to the ledger, removes the rest.
    ///
    /// # Errors
    /// If that fails; the next start does the rest.
    pub(in crate::sink) fn finish(
        &self,
        storage: &dyn Storage,
        ledger: Option<&mut LedgerFile>,
        format: FileFormat,
        note: &mut dyn FnMut(String),
    ) -> Result<()> {
        let (dir, name) = (storage.name(), self.name());
        let fail = |err| Error::io(format!("cannot recover {dir}/{name}"), err);
        let case = self.case(storage, ledger.as_deref(), format).map_err(fail)?;
        let named = self.label.rolled(self.end_of_data(format));
        let batches = count(self.entries().len(), "batch");
        match case {
            Case::Missing(_) => return self.check(storage, ledger.as_deref(), format),
            Case::Nothing => {
                if let Some(length) = self.open.filter(|length| *length > 0) {
                    note(format!(
                        "{dir}/{name}: removed with {}, no batch in it is committed",
                        count(length, "byte")
                    ));
                }
            }
            Case::Open => {
                self.give_name(storage, &named).map_err(fail)?;
                note(format!("{dir}/{name}: now {named}, with {batches}"));
            }
            Case::Named => note(format!(
                "{dir}/{}: removed; its {batches} {} in {named}, or {} when it was moved away",
                self.manifest_name(),
                by_number(self.entries().len(), "is", "are"),
                by_number(self.entries().len(), "was", "were")
            )),
            Case::GivenUp => note(format!(
                "{dir}/{}: removed; the rows of its {batches} were given up",
                self.manifest_name()
            )),
        }
        if let Some(ledger) = ledger {
            let commits = self.commits(Some(ledger));
            let keys = self.entries().iter().map(|entry| entry.key);
            let Label { job, part, .. } = &self.label;
            if commits > 0 {
                let taken = ledger.take_over(Taken { job, part: *part, commits }, keys);
                taken.map_err(|failure| fail(failure.into()))?;
            }
        }
        self.remove(storage, case).map_err(fail)
    }

    fn remove(&self, storage: &dyn Storage, case: Case) -> io::Result<()> {
        if matches!(case, Case::Nothing | Case::GivenUp) && self.open.is_some() {
            storage.remove(&self.name())?;
        }
        match self.manifest {
            Some(_) => storage.remove(&self.manifest_name()),
            None => Ok(()),
        }
    }

    fn give_name(&self, storage: &dyn Storage, named: &str) -> io::Result<()> {
        let file = storage.open(&self.name())?;
        let manifest = self.manifest.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let (end, start) = manifest.ends();
        rewrite(file.as_ref(), start, end)?;
        file.truncate(end)?;
        sync(file.as_ref())?;
        storage.rename_new(&self.name(), named).map_err(|err| explain(err, &self.name(), named))?;
        storage.sync_dir()
    }
}

/// The error for a manifest that cannot be read.
fn damaged(dir: &str, name: &str, err: &io::Error) -> Error {
    Error::Failed(format!(
        "cannot recover {dir}/{name}: {err}. It says which batches of the open file beside it are committed. Put a good copy of it \
         back. To go on without it: mv {dir}/{name} {dir}/{name}.damaged, and give the sink another directory, or set \
         `existing = \"append\"`; the open file is kept, as it is, for you to look at"
    ))
}

/// Writes bytes again, unchanged: a sync that failed may have left them in memory only, marked as saved.
fn rewrite(file: &dyn StoredFile, start: u64, end: u64) -> io::Result<()> {
    let len = end.checked_sub(start).and_then(|len| usize::try_from(len).ok());
    let mut bytes = vec![0; len.ok_or(io::ErrorKind::InvalidData)?];
    let got = read_full(file, start, &mut bytes)?;
    write_all(file, start, &[&bytes[..got]])
}
