//! Files of a directory as a direct source: new ones that are renamed into it, and growing ones.
//!
//! ```text
//!  tick ─▶ list ─▶ look (which files continue, went, or are passed over) ─▶ turns (whole records only) ─▶ plan: pieces
//!  workers: pieces ─▶ read ─▶ ranges of whole records
//! ```
//! A tick costs one listing of the directory with one look at each entry, and a few small reads for each file that is new or
//! has changed; nothing is done between ticks. A batch takes at most `batch_bytes_max`, in turns of a piece from each file.
//! Planning runs on the job loop, reading on the workers. It does not know batches or streams.

mod boundary;
mod catalog;
mod fingerprint;
mod listing;
mod look;
mod notes;
mod open;
mod positions;
mod read;
pub mod select;
mod turns;

#[cfg(all(test, not(tidemill_model)))]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;

use rustix::process::{Resource, getrlimit};

use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::metrics::Event;
use crate::source::direct::{DirectPartition, DirectSource, DirectStart, Lost, OnLost};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Time};
use crate::wording::count;

use catalog::{Catalog, Looked, Piece, Plan};
use listing::{Disk, Entry, FileId, FileTree};
use look::{Found, Look};
use notes::{Note, Notes};
use open::OpenFiles;
use positions::{decode_plan, decode_position, encode_plan, encode_position};
use read::{FilePartition, Held, Reading, There};
use select::Select;
use turns::Turns;

/// The most entries of a directory.
const ENTRIES_MAX: usize = 100_000;

/// About the bytes of the pieces that make a partition, and of a turn of one file.
const PARTITION_BYTES: u64 = 4 << 20;

/// The most bytes of a batch by default: 256 MiB.
pub const BATCH_BYTES_MAX: u64 = 256 << 20;

/// With no more bytes than this, and files than a batch may open, a run to their end does not wait for a tick.
const ENDING_BYTES_MAX: u64 = 16 << 20;

/// The bounds of the most files that unfinished batches keep open; between them it is a quarter of the process's limit.
const HELD_MAX: (usize, usize) = (64, 1_000);

/// The number of files that stay open from batch to batch by default.
pub const OPEN_FILES_MAX: usize = 256;

/// The longest record by default, in bytes.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// The files of a directory, as a source that can be read again. Names that start with `.`, names of temporary and of compressed
/// files ([`select::EXCLUDED`]), files that begin as a compressed one does, and anything but a regular file are passed over;
/// each is reported once. A file is read once, whatever its name and however many names it has; when it grows, its new bytes are
/// read up to the last whole record.
///
/// A batch takes ranges of files, which are decided before it runs; with a state directory a replay reads exactly the same
/// ranges. The directory is listed at each tick; 100,000 entries are the most.
///
/// ```
/// use tidemill::source::{Framing, OnLost};
/// use tidemill::{Config, FilesSource, Interval, RunLimits, StreamingContext};
///
/// let directory = tempfile::tempdir().expect("a directory");
/// std::fs::write(directory.path().join("a.log"), "to be\nor not\nto be").expect("written");
/// let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
/// ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
/// let files = FilesSource::new(directory.path())
///     .named("logs")
///     .include(&["*.log"])?
///     .exclude(&["debug*"])?
///     .framing(Framing::Lines)
///     .unescape(false)
///     .follow_links(false)
///     .record_bytes_max(64 << 10)
///     .batch_bytes_max(64 << 20)
///     .open_files_max(32)
///     .on_lost(OnLost::Skip);
/// let counts = ctx.files_text(files)?.count_by_value().collect();
/// ctx.start()?.await_termination()?;
/// let mut rows: Vec<_> = counts.rows().into_iter().flat_map(|(_, rows)| rows).collect();
/// rows.sort();
/// assert_eq!(rows, [("or not".to_owned(), 1), ("to be".to_owned(), 2)]);
/// # Ok::<(), tidemill::Error>(())
/// ```
pub struct FilesSource {
    name: Option<String>,
    tree: Arc<dyn FileTree>,
    framing: Framing,
    record_bytes_max: usize,
    batch_bytes_max: u64,
    on_lost: OnLost,
    select: Select,
    follow_links: bool,
    unescape: bool,
    open_files_max: usize,
    /// The most files that unfinished batches keep open.
    held_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The position behind the planned input.
    planned: Catalog,
    /// The position behind the committed input.
    committed: Catalog,
    started: Option<Started>,
    ending: bool,
    /// The stop took all that perished with the run, or could take no more of it.
    closed: bool,
}

/// The state that a start sets up.
struct Started {
    reading: Arc<Reading>,
    clock: Arc<dyn Clock>,
    /// In a run to the end of the files: those present at the start, and how long they were.
    present: Option<HashMap<FileId, u64>>,
    /// Results of the looks of this run.
    looked: HashMap<FileId, Looked>,
    open: OpenFiles,
    /// The files of the last plan.
    opened: HashMap<FileId, Arc<Held>>,
    notes: Notes,
    /// Files whose losses the start reported.
    told: HashSet<FileId>,
}

impl std::fmt::Debug for FilesSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilesSource").field("directory", &self.tree.name()).finish_non_exhaustive()
    }
}

impl FilesSource {
    /// Creates a source of the files directly in this directory, which must be there at the start: directories in it are passed
    /// over.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        FilesSource::of(Arc::new(Disk(directory.into())))
    }

    fn of(tree: Arc<dyn FileTree>) -> Self {
        FilesSource {
            name: None,
            tree,
            framing: Framing::Lines,
            record_bytes_max: RECORD_BYTES_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            on_lost: OnLost::default(),
            select: Select::default(),
            follow_links: true,
            unescape: false,
            open_files_max: OPEN_FILES_MAX,
            held_max: held_max(),
            state: Mutex::default(),
        }
    }

    /// Sets the source's name in messages, reports and the state directory; `sourceN` by default, where N is its number, from 0.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the framing that cuts bytes into records; lines by default. One that acknowledges is an error of the start: files
    /// have no peer.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// Sets the most bytes of a record, 1 MiB by default; zero counts as one. A longer one is dropped and counted.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes.max(1);
        self
    }

    /// Sets the most bytes of a batch, which takes one piece of up to 4 MiB more; [`BATCH_BYTES_MAX`] by default, and zero
    /// counts as one. What a batch does not take the next one does.
    pub fn batch_bytes_max(mut self, bytes: u64) -> Self {
        self.batch_bytes_max = bytes.max(1);
        self
    }

    /// Sets the reaction to a file that is removed or cut before a batch that takes a part of it was processed; by default the
    /// stream stops.
    pub fn on_lost(mut self, on_lost: OnLost) -> Self {
        self.on_lost = on_lost;
        self
    }

    /// True if a new file of this name is read.
    pub(crate) fn reads(&self, name: &str) -> bool {
        self.select.passes_over(name.as_bytes()).is_none()
    }

    /// True if a record may hold a line feed.
    pub(crate) fn may_hold_line_feeds(&self) -> bool {
        self.framing.holds_line_feeds() || self.unescape
    }

    /// Reads only files whose names one of these globs matches, in place of all; [`select::EXCLUDED`] is not for these.
    ///
    /// # Errors
    /// [`Error::Usage`] if one of them is no glob, or has a `/`: globs are for names in the directory.
    pub fn include<S: AsRef<str>>(mut self, globs: &[S]) -> Result<Self> {
        self.select.include(globs)?;
        Ok(self)
    }

    /// Passes over files whose names one of these globs matches, in place of [`select::EXCLUDED`].
    ///
    /// # Errors
    /// As [`include`](FilesSource::include).
    pub fn exclude<S: AsRef<str>>(mut self, globs: &[S]) -> Result<Self> {
        self.select.exclude(globs)?;
        Ok(self)
    }

    /// Decides whether symbolic links are followed; true by default.
    pub fn follow_links(mut self, follow: bool) -> Self {
        self.follow_links = follow;
        self
    }

    /// Unescapes the lines of a text file whose line feeds are escaped, as the sink `file` writes it: each record is the text
    /// that the line stands for. False by default. Any framing but lines is an error of the start then.
    pub fn unescape(mut self, unescape: bool) -> Self {
        self.unescape = unescape;
        self
    }

    /// Sets the number of files, the newest, that stay open from batch to batch, so that one which is moved away or removed is
    /// read to its end; [`OPEN_FILES_MAX`] by default. With zero a removed file is lost from its last batch on.
    pub fn open_files_max(mut self, files: usize) -> Self {
        self.open_files_max = files;
        self
    }

    /// The name that the source was given.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The entries of the directory; the error has the remedy.
    fn list(&self) -> Result<Vec<Entry>> {
        let directory = self.tree.name();
        let entries = self.tree.list(ENTRIES_MAX).map_err(|err| {
            let hint = match err.kind() {
                io::ErrorKind::NotFound => " (make it, or correct `directory`)",
                io::ErrorKind::PermissionDenied => {
                    " (let this user read and enter it: `chmod u+rx`)"
                }
                io::ErrorKind::NotADirectory => " (`directory` must name a directory, not a file)",
                _ => "",
            };
            Error::io(format!("cannot list the directory {directory}{hint}"), err)
        })?;
        if entries.len() > ENTRIES_MAX {
            return Err(Error::Failed(format!(
                "the directory {directory} has more than {ENTRIES_MAX} entries: move files away that were read"
            )));
        }
        Ok(entries)
    }

    /// Looks at the directory and takes the pieces that fit into a batch.
    fn decide(&self, state: &mut State) -> Result<Plan> {
        let entries = self.list()?;
        let State { planned, started, ending, .. } = state;
        let started = started.as_mut().expect("a source is started before it is asked");
        let found = self.look(planned, started).take(&entries);
        let (plan, whole) = self.take(started, found);
        *ending = started.present.is_some() && whole;
        started.reading.counters.removed_files_bytes.set(started.open.removed_bytes());
        started.report(&entries);
        Ok(plan)
    }

    /// Takes pieces of the open removed files that fit into a batch: nobody can read them after this run.
    fn decide_perishing(&self, state: &mut State) -> Plan {
        let State { planned, started, closed, .. } = state;
        let Some(started) = started.as_mut().filter(|_| !*closed) else { return Plan::default() };
        let found = self.look(planned, started).take_removed();
        let (plan, whole) = self.take(started, found);
        *closed = whole || plan.pieces.is_empty();
        started.report(&[]);
        plan
    }

    /// Takes the pieces that fit into a batch; true if nothing is left.
    fn take(&self, started: &mut Started, found: Found) -> (Plan, bool) {
        let Found { readable, gone, back, lost_bytes } = found;
        started.opened.clear();
        let mut turns = Turns {
            reading: &started.reading,
            looked: &mut started.looked,
            open: &started.open,
            opened: &mut started.opened,
            held_max: self.held_max,
            notes: &mut started.notes,
            at_end: started.present.is_some(),
            pieces: Vec::new(),
            left: self.batch_bytes_max,
        };
        let whole = turns.take_all(readable);
        let pieces = turns.pieces;
        started.reading.counters.lost_bytes.add(lost_bytes);
        (Plan { gone, back, pieces }, whole)
    }

    fn look<'a>(&'a self, planned: &'a Catalog, started: &'a mut Started) -> Look<'a> {
        Look {
            tree: self.tree.as_ref(),
            select: &self.select,
            follow_links: self.follow_links,
            seen: planned,
            looked: &mut started.looked,
            open: &mut started.open,
            notes: &mut started.notes,
            present: started.present.as_ref(),
            told: &started.told,
            now: started.clock.now(),
            former: None,
            found: Found::default(),
        }
    }
}

impl Started {
    fn report(&mut self, entries: &[Entry]) {
        for Note { name, why, others } in self.notes.take(entries) {
            self.reading.counters.skipped.add(1 + others as u64);
            let why = match others {
                0 => why,
                others => format!("{why} (and so it is with {})", count(others, "more file")),
            };
            let (source, file) = (self.reading.source.clone(), shown(&name));
            self.reading.events.post(Event::FileSkipped { source, file, why });
        }
    }
}

impl DirectSource for FilesSource {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn start(&self, start: &DirectStart) -> Result<()> {
        if self.framing.acknowledges() {
            let text = format!("source `{}`: files cannot be framed as a dialogue", start.source);
            return Err(Error::Usage(text));
        }
        if self.unescape && !self.framing.is_lines() {
            let text = format!("source `{}`: only lines can be unescaped", start.source);
            return Err(Error::Usage(text));
        }
        let entries = self.list()?;
        let size = |entry: &Entry| entry.stat().map(|stat| (stat.id, stat.size));
        let reading = Reading {
            source: start.source.clone(),
            tree: Arc::clone(&self.tree),
            held: Arc::default(),
            framing: self.framing,
            unescape: self.unescape,
            record_bytes_max: self.record_bytes_max,
            counters: Arc::clone(&start.counters),
            events: start.events.clone(),
        };
        let mut state = self.state.lock();
        (state.planned, state.closed) = (state.committed.clone(), false);
        let present: Option<HashMap<FileId, u64>> =
            start.until_eof.then(|| entries.iter().filter_map(size).collect());
        // A small rest is the last batch: it needs no tick.
        let bytes: u64 = present.iter().flat_map(HashMap::values).sum();
        let few = present.as_ref().is_some_and(|present| present.len() <= self.held_max);
        state.ending = few && bytes <= self.batch_bytes_max.min(ENDING_BYTES_MAX);
        state.started = Some(Started {
            reading: Arc::new(reading),
            clock: Arc::clone(&start.clock),
            present,
            looked: HashMap::new(),
            open: OpenFiles::new(self.open_files_max),
            opened: HashMap::new(),
            notes: Notes::default(),
            told: HashSet::new(),
        });
        Ok(())
    }

    fn plan(&self, _time: Time) -> Result<Option<Vec<u8>>> {
        let mut state = self.state.lock();
        let plan = self.decide(&mut state)?;
        if plan == Plan::default() {
            return Ok(None);
        }
        state.planned.apply(&plan);
        Ok(Some(encode_plan(&plan)))
    }

    fn read(&self, plan: &[u8]) -> Result<Vec<Arc<dyn DirectPartition>>> {
        let plan = decode_plan(plan)?;
        let state = self.state.lock();
        let started = state.started.as_ref().expect("a source is started before it is read");
        let groups = grouped(plan.pieces.into_iter().filter(Piece::has_records));
        let partition = |pieces: Vec<Piece>| {
            let held = |piece: Piece| {
                let held = started.opened.get(&piece.stat.id).cloned();
                (piece, held)
            };
            let pieces = pieces.into_iter().map(held).collect();
            Arc::new(FilePartition::new(&started.reading, pieces)) as _
        };
        Ok(groups.into_iter().map(partition).collect())
    }

    fn planned(&self, plan: &[u8]) -> Result<()> {
        let plan = decode_plan(plan)?;
        self.state.lock().planned.apply(&plan);
        Ok(())
    }

    fn committed(&self, plan: &[u8]) {
        let mut state = self.state.lock();
        // It was planned or read before, so it can be decoded.
        let Ok(plan) = decode_plan(plan) else { return };
        state.committed.apply(&plan);
    }

    fn snapshot(&self) -> Vec<u8> {
        encode_position(&self.state.lock().committed)
    }

    fn restore(&self, snapshot: &[u8]) -> Result<()> {
        let committed = decode_position(snapshot)?;
        let mut state = self.state.lock();
        (state.planned, state.committed) = (committed.clone(), committed);
        Ok(())
    }

    fn lost(&self, plans: &[&[u8]]) -> Result<Vec<Vec<Lost>>> {
        let there = There::new(self.tree.as_ref(), self.list()?);
        let of_plan = |plan: &&[u8]| {
            let plan = decode_plan(plan)?;
            let pieces = plan.pieces.iter().filter(|piece| piece.has_records());
            Ok(pieces.filter_map(|piece| Some(piece.lost(there.lacks(piece)?))).collect())
        };
        plans.iter().map(of_plan).collect()
    }

    fn lost_unplanned(&self) -> Result<Vec<Lost>> {
        let there = There::new(self.tree.as_ref(), self.list()?);
        let mut state = self.state.lock();
        let State { planned, started, .. } = &mut *state;
        let (mut lost, mut told) = (Vec::new(), HashSet::new());
        for (id, known) in planned.files.iter().filter(|(_, known)| known.more) {
            if let Some(why) = there.lacks(&known.as_piece()) {
                lost.push(catalog::lost(&known.name, known.offset, known.stat.size, why));
                told.insert(*id);
            }
        }
        started.iter_mut().for_each(|started| started.told.extend(&told));
        lost.sort_by(|a, b| a.of.cmp(&b.of));
        Ok(lost)
    }

    fn on_lost(&self) -> OnLost {
        self.on_lost
    }

    fn is_ending(&self) -> bool {
        self.state.lock().ending
    }

    fn plan_perishing(&self, _time: Time) -> Result<Option<Vec<u8>>> {
        let mut state = self.state.lock();
        let plan = self.decide_perishing(&mut state);
        if plan == Plan::default() {
            return Ok(None);
        }
        state.planned.apply(&plan);
        Ok(Some(encode_plan(&plan)))
    }

    fn perishes(&self) -> u64 {
        let mut state = self.state.lock();
        let State { planned, started, .. } = &mut *state;
        started.as_mut().map_or(0, |started| self.look(planned, started).removed_unread())
    }
}

fn held_max() -> usize {
    let open = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 4;
    let (least, most) = HELD_MAX;
    usize::try_from(open).unwrap_or(most).clamp(least, most)
}

/// Pieces in order, about [`PARTITION_BYTES`] together.
fn grouped(pieces: impl Iterator<Item = Piece>) -> Vec<Vec<Piece>> {
    let (mut groups, mut bytes): (Vec<Vec<Piece>>, u64) = (Vec::new(), u64::MAX);
    for piece in pieces {
        let length = piece.to - piece.from;
        if bytes.saturating_add(length) > PARTITION_BYTES {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        groups.last_mut().expect("the first piece opens a group").push(piece);
    }
    groups
}

/// Describes a position, from a snapshot and the plans behind it; `None` if no file was read.
pub(crate) fn position(snapshot: Option<&[u8]>, plans: &[&[u8]]) -> Result<Option<String>> {
    let mut seen = snapshot.map(decode_position).transpose()?.unwrap_or_default();
    for plan in plans {
        seen.apply(&decode_plan(plan)?);
    }
    let (files, bytes) = seen.extent();
    let held = || format!("a position in {}, {} read", count(files, "file"), count(bytes, "byte"));
    Ok((files > 0).then(held))
}

/// The name of this kind of source in the log.
pub(crate) const KIND: &str = "files";

/// A name as people read it.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
