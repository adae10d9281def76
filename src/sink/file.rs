//! `File`: a file for each batch, job and partition, that holds all of its rows or does not exist.
//!
//! ```text
//! write:  rows ─ piece by piece ─▶ .JOB-TIME-PART.aside, which the disk begins to save
//! commit: sync ─ key to the ledger, synced ─ rename ─▶ JOB-TIME-PART.EXT ─ sync of the directory ─▶ committed
//! ```
//! With a [`Roll`](super::Roll) consecutive batches gather in one file (see `rolling`). An empty batch writes nothing. Text
//! is written as it is, byte for byte but for [`LineFeeds`], lines that a job passes on from where they were received (see
//! `formatted`); JSON replaces what is not UTF-8. A batch is committed if its key is in the ledger of its state directory
//! (`ledger`), whatever became of its file since; a file that has its name and is not in the ledger is in the way. Where a
//! start may write is decided before it writes (`survey`). A directory that goes away meanwhile is made again (`remade`).
//! Runs on the worker that finishes a job.

pub(super) mod hidden;
pub(super) mod ledger;
pub(super) mod manifest;
pub(super) mod names;
mod recover;
mod remade;
mod survey;
#[cfg(all(test, not(tidemill_model)))]
mod tests;

mod settings;

use std::collections::HashMap;
use std::io;

use super::book::Known;
use super::formatted::{Extent, Layout, LineFeeds, write_rows};
use super::options::Existing;
use super::rolling::{Batch, Rolling};
use super::{BatchMeta, CommitKey, Ledger, Rows, Sink};
use crate::error::{Error, Result};
use crate::owner::{OutputMark, Owner, StateId, Written};
use crate::storage::{Directory, Lock, PutFailure, Storage, StoredFile, discard, sync};
use crate::sync::Arc;
use crate::sync::planted::{Planted, planted};
use crate::time::Time;

use ledger::{LedgerFile, Place};
use names::{Label, safe};
pub use settings::FileOptions;
pub(super) use settings::ROW;
use survey::{Data, Survey};

/// A sink that writes a file for each batch, job and partition: it holds all rows of the batch, or it does not exist. Its name
/// is `JOB-TIME-PART.EXT`; an empty batch writes none. With [`Roll`](super::Roll) consecutive batches gather in one file,
/// `JOB-FIRST-LAST-PART.EXT`. A name that starts with `.` is never committed data.
///
/// With a [`state_dir`](crate::Config::state_dir) each batch is in the directory once, whatever crashes: the sink remembers the
/// keys that it committed. Files may be moved away once they have their names. Without a state directory a file that is there
/// already is an error that names it.
///
/// ```
/// use tidemill::sink::{File, FileOptions};
/// # use tidemill::{Config, StreamingContext, testing::ManualClock};
/// # let directory = tempfile::tempdir().expect("a directory");
/// let path = directory.path().join("out");
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let words = ctx.queue_stream(vec![Some(vec!["to be"])], 1).named("words");
/// words.save(File::in_directory(FileOptions { path: path.clone(), ..FileOptions::default() })?);
/// ctx.run_batches(1)?;
/// assert_eq!(std::fs::read(path.join("words-1000-0.txt")).expect("written"), b"to be\n");
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Debug)]
pub struct File {
    storage: Arc<dyn Storage>,
    options: FileOptions,
    /// Rows may hold line feeds, as far as their sources tell.
    gets_line_feeds: bool,
    /// Nothing is written here any more; what is open is finished.
    is_left: bool,
    /// Who writes, once that is known.
    begun: Option<Begun>,
    /// The commits of this process, empty batches too.
    committed: Ledger,
    /// The file aside with the rows that were written and not committed, and how long it is; none for an empty batch.
    aside: Option<(Arc<dyn StoredFile>, u64)>,
    /// The reason why nothing is written any more.
    failed: Option<String>,
    /// Notes for people.
    notes: Vec<String>,
    /// None: the directory was made again, and is not locked yet.
    lock: Option<Lock>,
}

/// The state once an owner may write.
#[derive(Debug)]
struct Begun {
    owner: Owner,
    /// The memory from run to run; none without a state directory.
    ledger: Option<LedgerFile>,
    /// None: a file for each batch.
    rolling: Option<Rolling>,
    /// True if the entries of the ledger came in the order in which this state planned its batches.
    is_in_order: bool,
    /// Without a state directory the files that were found: of each job and partition the newest batch, and its file.
    in_the_way: HashMap<(String, u32), (u64, String)>,
    tag: Option<String>,
    /// Number of files with output that were found, or got their names since.
    files: u64,
}

/// The reason why a batch is not in place.
enum Failure {
    Put(PutFailure),
    /// Something else is there.
    Taken(String),
}

impl From<PutFailure> for Failure {
    fn from(failure: PutFailure) -> Self {
        Failure::Put(failure)
    }
}

impl File {
    /// Opens the directory that the options name, makes it if it is not there, and locks it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be made, read or written to; [`Error::Failed`] if another process uses it.
    pub fn in_directory(options: FileOptions) -> Result<Self> {
        let directory = Directory::open(&options.path)?;
        File::open(Arc::new(directory), options)
    }

    /// A sink that writes to a directory, which it locks. The directory is this storage, whatever path the options have.
    ///
    /// # Errors
    /// If another process uses the directory, or it cannot be read.
    #[doc(hidden)]
    pub fn open(storage: Arc<dyn Storage>, options: FileOptions) -> Result<Self> {
        let lock = storage.lock()?;
        Ok(File {
            storage,
            options,
            gets_line_feeds: false,
            is_left: false,
            begun: None,
            committed: Ledger::default(),
            aside: None,
            failed: None,
            notes: Vec::new(),
            lock: Some(lock),
        })
    }

    /// A directory that is written to no more, which it locks: what is there of others is none of its business.
    ///
    /// # Errors
    /// If another process uses the directory.
    pub(super) fn left(storage: Arc<dyn Storage>) -> Result<Self> {
        let mut file = File::open(storage, FileOptions::default())?;
        file.is_left = true;
        Ok(file)
    }

    /// The layout of the rows of the batch of that time.
    fn layout(&self, time: Time) -> Layout {
        let by_sources = if self.gets_line_feeds { LineFeeds::Escape } else { LineFeeds::Keep };
        let FileOptions { format, line_feeds, .. } = self.options;
        let line_feeds = line_feeds.unwrap_or(by_sources);
        Layout { format, line_feeds, time: self.options.time.then_some(time) }
    }

    fn appends(&self) -> bool {
        self.options.existing == Existing::Append
    }

    /// True if output from before identities is taken over.
    fn takes_over(&self) -> bool {
        !self.appends() && !self.is_left
    }

    /// Who writes. A sink that no engine has begun is one of a run without a state directory.
    fn begun(&mut self) -> Result<&mut Begun> {
        if self.begun.is_none() {
            let owner = Owner::without_state("")?;
            self.check(&owner)?;
            self.begin(&owner, &mut |_| ())?;
        }
        Ok(self.begun.as_mut().expect("begun above"))
    }

    fn survey(&self, owner: &Owner) -> Result<Survey> {
        // A name that an earlier process gave may not be on the disk yet, and "committed" will be said of it.
        self.storage.sync_dir().map_err(|err| {
            Error::io(format!("cannot read the output directory {}", self.storage.name()), err)
        })?;
        Survey::at(&self.storage, owner, self.place())
    }

    /// Writes the rows where they do not count yet.
    fn write_aside(&mut self, key: &CommitKey, rows: &Rows) -> Result<(), PutFailure> {
        self.aside = None;
        let (layout, storage) = (self.layout(key.time), Arc::clone(&self.storage));
        let Some(begun) = &mut self.begun else { return Ok(()) };
        let label = begun.label(key);
        if let Some(rolling) = &mut begun.rolling {
            rolling.finish_named(&label, begun.ledger.as_mut())?;
            rolling.expect_whole(&label)?;
            return rolling.write(&label, layout, rows).map_err(PutFailure::Retry);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let name = label.hidden("aside");
        let file = storage.create(&name).map_err(PutFailure::Retry)?;
        match write_rows(file.as_ref(), Extent::default(), layout, rows) {
            Ok(written) => self.aside = Some((file, written.end)),
            Err(err) => {
                // The room that it got may be what others on the same disk wait for.
                discard(storage.as_ref(), file.as_ref(), &name);
                return Err(PutFailure::Retry(err));
            }
        }
        Ok(())
    }

    /// Makes the rows that were written count.
    fn place(&mut self, key: &CommitKey) -> Result<(), Failure> {
        let Some(begun) = &mut self.begun else { return Ok(()) };
        let (label, written) = (begun.label(key), begun.written(key));
        if let Some(rolling) = &mut begun.rolling {
            if let Some(ledger) = begun.ledger.as_mut().filter(|ledger| !ledger.is_there()) {
                // Before the first batch counts, so that a directory with batches that count always has one.
                ledger.put()?;
            }
            let batch = Batch { job: &label.job, part: label.part, key: written };
            return Ok(rolling.commit(batch, begun.ledger.as_mut())?);
        }
        let Some((file, size)) = self.aside.take() else { return Ok(()) };
        let (aside, name) = (label.hidden("aside"), label.single(self.options.format.end()));
        let taken = || Failure::Taken(format!("{}/{name}", self.storage.name()));
        if self.storage.size_of(&name).map_err(PutFailure::Retry)?.is_some() {
            return Err(taken());
        }
        let fatal = |err| Failure::Put(PutFailure::Fatal(err));
        if !planted(Planted::RenameBeforeSync) {
            sync(file.as_ref()).map_err(|err| {
                // Nobody knows what it holds. It does not count, and another attempt writes another one.
                discard(self.storage.as_ref(), file.as_ref(), &aside);
                PutFailure::Retry(err)
            })?;
        }
        if let Some(ledger) = &mut begun.ledger {
            let (end, is_tagged) = (self.options.format.number(), begun.tag.is_some());
            let place = Place { job: &label.job, part: label.part, size, end, is_tagged };
            ledger.commit(place, written)?;
        }
        match self.storage.rename_new(&aside, &name) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                begun.ledger.as_mut().map_or(Ok(()), LedgerFile::take_back).map_err(fatal)?;
                return Err(taken());
            }
            Err(err) if remade::is_nowhere(self.storage.as_ref(), &err, &name) => {
                begun.ledger.as_mut().map_or(Ok(()), LedgerFile::take_back).map_err(fatal)?;
                return Err(PutFailure::Retry(err).into());
            }
            outcome => outcome.and_then(|()| self.storage.sync_dir()).map_err(fatal)?,
        }
        if planted(Planted::RenameBeforeSync) {
            sync(file.as_ref()).map_err(fatal)?;
        }
        if let Some(ledger) = &mut begun.ledger {
            ledger.done();
        }
        begun.files += 1;
        Ok(())
    }

    fn failed_write(&self, err: io::Error) -> Error {
        Error::io(format!("cannot write to the output directory {}", self.storage.name()), err)
    }

    /// Takes a failure; after a fatal one nothing is written any more.
    fn fail(&mut self, failure: PutFailure) -> Error {
        match failure {
            PutFailure::Retry(err) => self.failed_write(err),
            PutFailure::Fatal(err) => self.fail_for_good(err),
        }
    }

    /// Nothing is written any more, for this reason: no attempt can succeed.
    fn give_up(&mut self, why: String) -> Error {
        self.failed = Some(why.clone());
        Error::Failed(why)
    }

    fn expect_well(&self) -> Result<()> {
        match &self.failed {
            Some(reason) => Err(Error::Failed(reason.clone())),
            None => Ok(()),
        }
    }
}

impl Begun {
    /// The name of the file of a batch.
    fn label(&self, key: &CommitKey) -> Label {
        let time = key.time.as_millis();
        let (job, part, tag) = (safe(&key.job), key.partition, self.tag.clone());
        Label { job, first: time, last: time, part, tag }
    }

    fn written(&self, key: &CommitKey) -> Written {
        self.owner.written(key.time.as_millis(), key.id)
    }

    /// The memory of a batch from run to run.
    fn known(&self, key: &CommitKey) -> Known {
        let (job, written) = (safe(&key.job), self.written(key));
        let rolling = self.rolling.as_ref();
        match rolling.and_then(|rolling| rolling.known(&job, key.partition, written.time)) {
            Some(known) if known == written => return Known::Committed,
            Some(other) => return Known::Other(other),
            None => {}
        }
        let book = self.ledger.as_ref().and_then(|ledger| ledger.book(&job, key.partition));
        book.map_or(Known::No, |book| book.look(&written, self.is_in_order))
    }
}

impl Sink for File {
    fn awaits(&self) -> &'static str {
        "its disk must answer"
    }

    fn place(&self) -> Option<String> {
        let name = self.storage.name();
        let path = std::path::absolute(&name).map_or(name, |path| path.display().to_string());
        Some(format!("file:{path}"))
    }

    fn expect_line_feeds(&mut self) {
        self.gets_line_feeds = true;
    }

    fn check(&mut self, owner: &Owner) -> Result<()> {
        if planted(Planted::CommitByLabel) {
            return Ok(());
        }
        let survey = self.survey(owner)?;
        survey.judge(owner, self.appends() || self.is_left)?;
        let (ledger, end) = (survey.own.as_ref(), self.options.format);
        let nobodys = survey.nobodys_hidden.iter().filter(|_| self.takes_over());
        let mut hidden = survey.own_hidden.iter().chain(nobodys);
        hidden.try_for_each(|hidden| hidden.check(self.storage.as_ref(), ledger, end))
    }

    fn begin(&mut self, owner: &Owner, note: &mut dyn FnMut(String)) -> Result<()> {
        let survey = self.survey(owner)?;
        let beside = survey.beside().filter(|_| self.appends());
        if let Some(others) = beside {
            note(format!("{}: files are written beside those of {others}", self.storage.name()));
            survey.others_open.iter().for_each(|open| note(open.clone()));
        }
        survey.gone_text(owner).filter(|_| !self.is_left).into_iter().for_each(&mut *note);
        let in_the_way = if owner.has_state() { HashMap::new() } else { newest(&survey.data) };
        let is_in_order = survey.judge(owner, false).is_ok();
        let ledger = self.recover(survey, owner, note)?;
        let identity = if owner.has_state() { owner.identity() } else { StateId::default() };
        self.begun = Some(Begun {
            owner: owner.clone(),
            ledger,
            rolling: self.options.roll.map(|roll| Rolling::new(&self.storage, roll, identity)),
            is_in_order,
            in_the_way,
            tag: self.appends().then(|| owner.identity().short()),
            files: 0,
        });
        let files = self.count_files().map_err(|err| self.failed_write(err))?;
        self.begun.iter_mut().for_each(|begun| begun.files = files);
        Ok(())
    }

    fn reached(&self) -> Option<OutputMark> {
        let begun = self.begun.as_ref()?;
        let mark = begun.ledger.as_ref()?.mark();
        let open = begun.rolling.as_ref().map_or(0, Rolling::commits);
        Some(OutputMark { commits: mark.commits + open, ..mark })
    }

    fn is_whole(&self) -> bool {
        self.begun.as_ref().is_none_or(|begun| begun.is_in_order)
    }

    fn committed(&mut self, key: &CommitKey) -> Result<bool> {
        self.expect_well()?;
        if self.committed.committed(key) {
            return Ok(true);
        }
        if planted(Planted::CommitByLabel) {
            return self.is_label_there(key);
        }
        let dir = self.storage.name();
        let (appends, is_left) = (self.appends(), self.is_left);
        let begun = self.begun()?;
        if !begun.owner.has_state() && !appends {
            let found = begun.in_the_way.get(&(safe(&key.job), key.partition));
            let newer = found.filter(|(newest, _)| key.time.as_millis() <= *newest);
            return newer.map_or(Ok(false), |(_, name)| {
                Err(Error::Failed(format!(
                    "the output file {dir}/{name} exists already: without `state_dir` nobody knows whose it is; move it \
                     away, or write to another directory"
                )))
            });
        }
        match begun.known(key) {
            Known::Committed => Ok(true),
            Known::No => Ok(false),
            // A start of another copy of the state wrote it, and nothing is written over here.
            Known::Other(_) if is_left => Ok(false),
            // What the state does not know was given up, and new files lie beside.
            Known::Other(other) if appends && !begun.owner.knows(&other) => Ok(false),
            Known::Other(other) => Err(super::other_batch(&dir, key, &begun.written(key), &other)),
        }
    }

    fn write(&mut self, key: &CommitKey, _meta: &BatchMeta, rows: &Rows) -> Result<()> {
        self.expect_well()?;
        self.begun()?;
        self.keep_place()?;
        self.write_aside(key, rows).map_err(|failure| self.fail(failure))
    }

    fn commit(&mut self, key: &CommitKey) -> Result<()> {
        self.expect_well()?;
        match self.place(key) {
            Ok(()) => {}
            Err(Failure::Put(failure)) => return Err(self.fail(failure)),
            Err(Failure::Taken(file)) => return Err(taken(&file, key)),
        }
        self.committed.commit(key);
        Ok(())
    }

    fn due(&self) -> Option<Time> {
        let begun = self.begun.as_ref().filter(|_| self.failed.is_none())?;
        begun.rolling.as_ref()?.due().map(Time::from_millis)
    }

    fn on_time(&mut self, now: Time) -> Result<()> {
        self.expect_well()?;
        let Some(begun) = &mut self.begun else { return Ok(()) };
        let Some(rolling) = &mut begun.rolling else { return Ok(()) };
        let finished = rolling.finish_due(now.as_millis(), begun.ledger.as_mut());
        finished.map_err(|failure| self.fail(failure))
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn close(&mut self) -> Result<()> {
        if self.failed.is_some() {
            return Ok(());
        }
        let Some(begun) = &mut self.begun else { return Ok(()) };
        let Some(rolling) = &mut begun.rolling else { return Ok(()) };
        let finished = rolling.finish_all(begun.ledger.as_mut());
        finished.map_err(|failure| self.fail(failure))
    }
}

impl Drop for File {
    /// A stop that did not come as far as the sinks leaves files open: they are finished here, or by the next start.
    fn drop(&mut self) {
        let _ = self.close();
        if self.begun.is_none() {
            // A start that was refused leaves no trace.
            self.storage.abandon();
        }
    }
}

impl File {
    /// The planted defect: a batch is taken for committed because a file of its time, or of a later one, is there.
    fn is_label_there(&mut self, key: &CommitKey) -> Result<bool> {
        let owner = Owner::default();
        let found = newest(&self.survey(&owner)?.data);
        let newest = found.get(&(safe(&key.job), key.partition));
        Ok(newest.is_some_and(|(newest, _)| key.time.as_millis() <= *newest))
    }
}

/// The files of this state directory that gather batches in an output directory, and what counts of them, in words. Changes
/// nothing.
///
/// # Errors
/// If one cannot be read, or is damaged.
pub(super) fn open_files(storage: &Arc<dyn Storage>, identity: StateId) -> Result<Vec<String>> {
    let survey = Survey::of(storage, &Owner::of(identity))?;
    let held =
        survey.own_hidden.iter().map(|hidden| hidden.held(storage.as_ref(), survey.own.as_ref()));
    let held: Vec<Option<String>> = held.collect::<Result<_>>()?;
    Ok(held.into_iter().flatten().collect())
}

/// The error for a file that has the name of a batch and is not in the ledger.
fn taken(file: &str, key: &CommitKey) -> Error {
    Error::Failed(format!(
        "{file} exists already, and nothing says that batch {} of job `{}` with the plan {} is what it holds. It is neither \
         taken for committed nor written over; move it away",
        key.time, key.job, key.id.digest
    ))
}

/// Of each job and partition the newest batch that is in a file, and that file.
fn newest(data: &[Data]) -> HashMap<(String, u32), (u64, String)> {
    let mut found: HashMap<(String, u32), (u64, String)> = HashMap::new();
    for Data { name, label } in data.iter().filter(|data| data.label.tag.is_none()) {
        let newest = found.entry((label.job.clone(), label.part)).or_default();
        if newest.1.is_empty() || newest.0 < label.last {
            *newest = (label.last, name.clone());
        }
    }
    found
}
