//! `Rolling`: gathers consecutive batches of a job and partition in one file, and names it once it is large or old enough.
//!
//! ```text
//! .JOB-FIRST-PART.open      rows of the batches, one behind the other; rows behind the last end are no data
//! .JOB-FIRST-PART.manifest  an entry for each batch: its key, and where its rows end (see `file/manifest`)
//! commit: (the first time: sync of the directory) sync of the rows ─ entry ─ sync
//! roll:   rename to JOB-FIRST-LAST-PART.EXT ─ sync of the directory ─ keys to the ledger ─ remove the manifest
//! ```
//! So a key is in the manifest or in the ledger at every moment, and a manifest without its file and without its keys in the
//! ledger means that somebody removed the file. The age of a file is counted from the time of its first batch; a commit
//! looks at it, and the engine when no batch comes. Before each batch and before the name, the name must lead to the file that
//! is written, and that must be as long as its committed rows. It does not know what rows look like.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::time::Duration;

use super::Rows;
use super::book::KEYS_MAX;
use super::file::ledger::{LedgerFile, Taken};
use super::file::manifest::{Entry, ManifestWriter};
use super::file::names::Label;
use super::formatted::{Extent, Layout, sum_up, write_rows};
use crate::owner::{StateId, Written};
use crate::storage::{PutFailure, Storage, StoredFile, discard, sync};
use crate::sync::Arc;
use crate::wording::{by_number, count};

/// The size and the age at which a file is named and the next begun; the first that is reached counts. Both `None`: at the stop
/// alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// A file is full once it holds this many bytes; it may hold one batch more. `None`: whatever its size.
    pub bytes: Option<u64>,
    /// A file is full once its batches span this much time. `None`: whatever its age.
    pub age: Option<Duration>,
}

/// The finish reads this much of the first rows again, or the first batch: who empties a file and lets it grow leaves a
/// hole there.
const READ_AGAIN_MAX: u64 = 64 << 20;

/// The word for a file that is not there any more.
const REMOVED: &str = "removed";

/// See the module.
#[derive(Debug)]
pub(super) struct Rolling {
    storage: Arc<dyn Storage>,
    roll: Roll,
    /// Whose files they are; zeros: nobody's.
    identity: StateId,
    open: HashMap<(String, u32), Open>,
    /// Number of files that got their names.
    named: u64,
}

/// A file that gathers batches.
#[derive(Debug)]
struct Open {
    /// With the last batch that counts.
    label: Label,
    file: Arc<dyn StoredFile>,
    manifest: ManifestWriter,
    /// The newest of the batches that count.
    keys: VecDeque<Written>,
    /// Committed rows.
    rows: Extent,
    /// Those up to the rows that were written last.
    written: Extent,
    /// Those of the first batches, as far as the finish reads them again.
    first: Extent,
    /// It has its name; its keys are on their way to the ledger.
    is_named: bool,
}

/// The facts that are written down of a batch that is committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    pub(super) job: &'a str,
    pub(super) part: u32,
    pub(super) key: Written,
}

impl Rolling {
    pub(super) fn new(storage: &Arc<dyn Storage>, roll: Roll, identity: StateId) -> Self {
        Rolling { storage: Arc::clone(storage), roll, identity, open: HashMap::new(), named: 0 }
    }

    /// Looks whether what counts is still there before a batch is written behind it. One `stat`, one `fstat`.
    ///
    /// # Errors
    /// Fatal: which file, and how many bytes are missing.
    pub(super) fn expect_whole(&mut self, label: &Label) -> Result<(), PutFailure> {
        let key = (label.job.clone(), label.part);
        let Some(open) = self.open.get(&key).filter(|open| !open.is_named) else { return Ok(()) };
        match open.lack(self.storage.as_ref()).map_err(PutFailure::Retry)? {
            Some(lack) if open.has_rows() => Err(PutFailure::Fatal(lack)),
            Some(_) => {
                // Nothing in it counts: another one is begun.
                self.open.remove(&key);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Writes the rows of a batch behind those that count. `label` says what the file is called that begins with it.
    pub(super) fn write(&mut self, label: &Label, layout: Layout, rows: &Rows) -> io::Result<()> {
        let key = (label.job.clone(), label.part);
        if let Some(open) = self.open.get_mut(&key) {
            // What was written for a batch that was given up does not count with this one.
            open.written = open.rows;
        }
        if rows.is_empty() {
            return Ok(());
        }
        if !self.open.contains_key(&key) {
            let begun = self.begin(label, layout)?;
            self.open.insert(key.clone(), begun);
        }
        let open = self.open.get_mut(&key).expect("begun above");
        let written = write_rows(open.file.as_ref(), open.rows, layout, rows);
        open.written = written.inspect_err(|_| {
            // The room that they got may be what others on the same disk wait for.
            let _ = open.file.truncate(open.rows.end);
        })?;
        Ok(())
    }

    /// Makes what was written for a batch count, if anything was; names the file if it is due.
    pub(super) fn commit(
        &mut self,
        batch: Batch<'_>,
        ledger: Option<&mut LedgerFile>,
    ) -> Result<(), PutFailure> {
        let key = (batch.job.to_owned(), batch.part);
        let Some(open) = self.open.get_mut(&key) else { return Ok(()) };
        if open.written.end > open.rows.end {
            if !open.has_rows() {
                // Before the first entry: what a manifest lists has a file.
                self.storage.sync_dir().map_err(PutFailure::Fatal)?;
            }
            open.append(batch.key)?;
        }
        let time = batch.key.time;
        let is_due =
            self.open.get(&key).is_some_and(|open| open.has_rows() && self.is_due(open, time));
        if is_due { self.finish(&key, ledger) } else { Ok(()) }
    }

    /// Gives a file its name that could not be given it before, so that the next batch begins another one.
    pub(super) fn finish_named(
        &mut self,
        label: &Label,
        ledger: Option<&mut LedgerFile>,
    ) -> Result<(), PutFailure> {
        let key = (label.job.clone(), label.part);
        match self.open.get(&key) {
            Some(open) if open.is_named => self.finish(&key, ledger),
            _ => Ok(()),
        }
    }

    fn begin(&self, label: &Label, layout: Layout) -> io::Result<Open> {
        let name = label.hidden("manifest");
        let manifest = self.storage.create(&name)?;
        let file = self.storage.create(&label.hidden("open"));
        let file =
            file.inspect_err(|_| discard(self.storage.as_ref(), manifest.as_ref(), &name))?;
        let (identity, format) = (self.identity, layout.format);
        Ok(Open {
            label: label.clone(),
            file,
            manifest: ManifestWriter { file: manifest, identity, format, entries: 0 },
            keys: VecDeque::new(),
            rows: Extent::summed(),
            written: Extent::summed(),
            first: Extent::summed(),
            is_named: false,
        })
    }

    fn is_due(&self, open: &Open, time: u64) -> bool {
        let age = Duration::from_millis(time.saturating_sub(open.label.first));
        self.roll.bytes.is_some_and(|bytes| open.rows.end >= bytes)
            || self.roll.age.is_some_and(|most| age >= most)
    }

    /// Gives a file its name, and its keys to the ledger.
    fn finish(
        &mut self,
        key: &(String, u32),
        ledger: Option<&mut LedgerFile>,
    ) -> Result<(), PutFailure> {
        let Some(open) = self.open.get_mut(key) else { return Ok(()) };
        if !open.is_named {
            open.give_name(self.storage.as_ref()).map_err(PutFailure::Fatal)?;
            open.is_named = true;
            self.named += 1;
        }
        if let Some(ledger) = ledger {
            let keys = open.keys.iter().copied();
            ledger.take_over(
                Taken { job: &key.0, part: key.1, commits: open.manifest.entries },
                keys,
            )?;
        }
        // The ledger has what it says; the next start removes it if this fails.
        let _ = self.storage.remove(&open.label.hidden("manifest"));
        self.open.remove(key);
        Ok(())
    }

    /// When the first of the open files is old enough.
    pub(super) fn due(&self) -> Option<u64> {
        let most = u64::try_from(self.roll.age?.as_millis()).unwrap_or(u64::MAX);
        let with_rows = self.open.values().filter(|open| open.has_rows());
        with_rows.map(|open| open.label.first.saturating_add(most)).min()
    }

    /// Names what is old enough at this time, between two batches.
    pub(super) fn finish_due(
        &mut self,
        time: u64,
        ledger: Option<&mut LedgerFile>,
    ) -> Result<(), PutFailure> {
        self.finish_those(|it, open| it.is_due(open, time), ledger)
    }

    /// Names all that is open.
    pub(super) fn finish_all(&mut self, ledger: Option<&mut LedgerFile>) -> Result<(), PutFailure> {
        self.finish_those(|_, _| true, ledger)
    }

    fn finish_those(
        &mut self,
        which: impl Fn(&Self, &Open) -> bool,
        mut ledger: Option<&mut LedgerFile>,
    ) -> Result<(), PutFailure> {
        let with_rows = self.open.iter().filter(|(_, open)| open.has_rows() && which(self, open));
        let keys: Vec<(String, u32)> = with_rows.map(|(key, _)| key.clone()).collect();
        // The first failure is told after the rest was tried.
        let finish = |key: &(String, u32)| self.finish(key, ledger.as_deref_mut());
        let outcomes: Vec<Result<(), PutFailure>> = keys.iter().map(finish).collect();
        outcomes.into_iter().collect()
    }

    /// The batch of this time in an open file.
    pub(super) fn known(&self, job: &str, part: u32, time: u64) -> Option<Written> {
        let open = self.open.get(&(job.to_owned(), part))?;
        open.keys.iter().rev().find(|key| key.time == time).copied()
    }

    /// The number of files that got their names since this was asked last.
    pub(super) fn take_named(&mut self) -> u64 {
        std::mem::take(&mut self.named)
    }

    /// The rows that count and are missing in open files, in words; empty if there are none.
    pub(super) fn missing(&self) -> io::Result<String> {
        let mut all = Vec::new();
        for open in self.open.values().filter(|open| open.has_rows() && !open.is_named) {
            // Without a manifest nothing says that they count.
            let lack = match self.storage.size_of(&open.label.hidden("manifest"))? {
                Some(_) => open.loss(self.storage.as_ref())?,
                None => Some(open.missing(ErrorKind::NotFound, REMOVED, open.rows.end)),
            };
            lack.iter().for_each(|lack| all.push(format!("{}/{lack}", self.storage.name())));
        }
        all.sort_unstable();
        Ok(all.join("; "))
    }

    /// After the directory was made again: forgets the files that hold nothing, and gives the keys of named ones to the ledger.
    pub(super) fn begin_again(
        &mut self,
        mut ledger: Option<&mut LedgerFile>,
    ) -> Result<(), PutFailure> {
        self.open.retain(|_, open| open.has_rows());
        let named = self.open.iter().filter(|(_, open)| open.is_named);
        let named: Vec<(String, u32)> = named.map(|(key, _)| key.clone()).collect();
        named.iter().try_for_each(|key| self.finish(key, ledger.as_deref_mut()))
    }

    /// The number of batches in open files.
    pub(super) fn commits(&self) -> u64 {
        self.open.values().map(|open| open.manifest.entries).sum()
    }
}

impl Open {
    fn has_rows(&self) -> bool {
        self.manifest.entries > 0
    }

    /// Makes what was written durable, and then its entry.
    fn append(&mut self, key: Written) -> Result<(), PutFailure> {
        sync(self.file.as_ref()).map_err(PutFailure::Fatal)?;
        let Extent { end, sum } = self.written;
        self.manifest.append(Entry { key, end, sum })?;
        self.rows = self.written;
        if self.first.end == 0 || end <= READ_AGAIN_MAX {
            self.first = self.rows;
        }
        self.label.last = key.time;
        self.keys.push_back(key);
        if self.keys.len() > KEYS_MAX {
            self.keys.pop_front();
        }
        Ok(())
    }

    fn give_name(&self, storage: &dyn Storage) -> io::Result<()> {
        if let Some(loss) = self.loss(storage)? {
            return Err(loss);
        }
        if self.file.size()? > self.rows.end {
            // Rows of a batch that failed.
            self.file.truncate(self.rows.end)?;
            sync(self.file.as_ref())?;
        }
        let (hidden, named) = (self.label.hidden("open"), self.label.rolled(self.end()));
        storage.rename_new(&hidden, &named).map_err(|err| match err.kind() {
            kind @ ErrorKind::NotFound => self.missing(kind, REMOVED, self.rows.end),
            _ => explain(err, &hidden, &named),
        })?;
        storage.sync_dir()
    }

    /// The damage to the file, if not all that counts is under its name.
    fn lack(&self, storage: &dyn Storage) -> io::Result<Option<io::Error>> {
        let Some(found) = storage.mark_of(&self.label.hidden("open"))? else {
            return Ok(Some(self.missing(ErrorKind::NotFound, REMOVED, self.rows.end)));
        };
        let own = self.file.mark()?;
        let missing = self.rows.end.saturating_sub(found.bytes);
        let what = match (found.device, found.inode) == (own.device, own.inode) {
            false => "replaced by another file",
            true if missing > 0 => "cut",
            true => return Ok(None),
        };
        Ok(Some(self.missing(ErrorKind::InvalidData, what, missing)))
    }

    /// The same, and whether the first rows are those that were written.
    fn loss(&self, storage: &dyn Storage) -> io::Result<Option<io::Error>> {
        let lack = self.lack(storage)?;
        if lack.is_some()
            || sum_up(self.file.as_ref(), Extent::summed(), self.first.end)? == self.first
        {
            return Ok(lack);
        }
        let what = "overwritten, or emptied,";
        Ok(Some(self.missing(ErrorKind::InvalidData, what, self.first.end)))
    }

    /// The error for a file that somebody did this to.
    fn missing(&self, kind: ErrorKind, what: &str, bytes: u64) -> io::Error {
        let Label { first, last, .. } = self.label;
        let (hidden, are) = (self.label.hidden("open"), by_number(bytes, "is", "are"));
        let (bytes, batches) = (count(bytes, "byte"), count(self.manifest.entries, "batch"));
        let text = format!(
            "{hidden} was {what} while it was written to: {bytes} {are} missing of the rows of {batches} ({first} to {last} \
             ms), which are committed"
        );
        io::Error::new(kind, text)
    }

    fn end(&self) -> &'static str {
        self.manifest.format.end()
    }
}

/// The reason why an open file did not get its name.
pub(super) fn explain(err: io::Error, hidden: &str, named: &str) -> io::Error {
    let kind = err.kind();
    let text = match kind {
        ErrorKind::NotFound => format!("{hidden} was removed while it was written to"),
        ErrorKind::AlreadyExists => {
            format!(
                "{hidden} is to be called {named}, and a file of that name exists: move that one away"
            )
        }
        _ => return err,
    };
    io::Error::new(kind, text)
}
