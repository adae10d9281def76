//! Files of a directory as a direct source: new ones that are renamed into it, and growing ones.
//!
//! ```text
//!  tick ─▶ list ─▶ seen (what can be read on, what is passed over) ─▶ extent (whole records only) ─▶ plan: pieces
//!  workers: pieces ─▶ read ─▶ ranges of whole records
//! ```
//! A tick costs one listing of the directory with one look at each entry, and one or two reads for each file that has
//! grown; nothing is done between ticks. A batch takes at most `batch_bytes_max`, in turns of a piece from each file.
//! Planning runs on the job loop, reading on the workers. It does not know batches or streams.

mod disk;
mod extent;
mod read;
mod seen;

#[cfg(all(test, not(tidemill_model)))]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;

use rustix::process::{Resource, getrlimit};
use serde::de::DeserializeOwned;

use crate::direct::{DirectPartition, DirectSource, DirectStart, Lost, OnLost};
use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::metrics::{Event, EventBus};
use crate::sync::{Arc, Mutex, Ordering};
use crate::time::Time;

use disk::{Disk, Entry, FileId, FileTree, OpenFile, Stat, What};
use extent::Bounds;
use read::{FilePartition, Held, Reading};
use seen::{Content, Known, Look, Note, Piece, Plan, Seen};

/// Entries of a directory at most.
const ENTRIES_MAX: usize = 100_000;

/// A partition is made of pieces of about so many bytes together, and so is a turn of one file.
const PARTITION_BYTES: u64 = 4 << 20;

/// Bytes of a batch, by default.
pub const BATCH_BYTES_MAX: u64 = 256 << 20;

/// With no more bytes than this, and files than a batch may open, a run to their end does not wait for a tick.
const ENDING_BYTES_MAX: u64 = 16 << 20;

/// Files that the batches which are not done keep open, at most: a quarter of what the process may open, within these.
const HELD_MAX: (usize, usize) = (64, 1_000);

/// Pieces of a batch at most.
const PIECES_MAX: usize = 10_000;

/// The longest record by default, in bytes.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// The files of a directory. Names that start with `.` and names of temporary files (`.tmp`, `.part`, `.partial`, `.swp`,
/// `~`) are passed over, and so is what is no regular file; each is reported once. A file is read once, whatever it is
/// called; it is read on when it grows, up to its last whole record.
///
/// ```
/// use tidemill::{Config, FilesSource, Interval, RunLimits, StreamingContext};
///
/// let directory = tempfile::tempdir().expect("a directory");
/// std::fs::write(directory.path().join("a.log"), "to be\nor not\nto be").expect("written");
/// let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
/// ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
/// let counts = ctx.files_text(FilesSource::new(directory.path()))?.count_by_value().collect();
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
    /// Files that the batches which are not done keep open, at most.
    held_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Behind what was planned.
    planned: Seen,
    /// Behind what was committed.
    committed: Seen,
    started: Option<Started>,
    /// Files whose end holds no whole record, as they were when that was found.
    waiting: HashMap<FileId, Stat>,
    /// The files of the last plan.
    opened: HashMap<FileId, Arc<Held>>,
    ending: bool,
}

/// What a start sets up.
struct Started {
    reading: Arc<Reading>,
    events: EventBus,
    /// In a run to the end of the files: those present at the start, and how long they were.
    present: Option<HashMap<FileId, u64>>,
}

impl std::fmt::Debug for FilesSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilesSource").field("directory", &self.tree.name()).finish_non_exhaustive()
    }
}

impl FilesSource {
    /// The files of this directory. Files directly in it: directories in it are passed over.
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
            held_max: held_max(),
            state: Mutex::default(),
        }
    }

    /// The source's name in messages and reports; `sourceN` by default.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How bytes are cut into records; lines by default.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// Longer records are dropped and counted; 1 MiB by default.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes.max(1);
        self
    }

    /// A batch takes so many bytes at most, and one piece more; [`BATCH_BYTES_MAX`] by default.
    pub fn batch_bytes_max(mut self, bytes: u64) -> Self {
        self.batch_bytes_max = bytes.max(1);
        self
    }

    /// What happens when a file is removed or cut before a batch that takes a part of it was processed; the stream stops by
    /// default.
    pub fn on_lost(mut self, on_lost: OnLost) -> Self {
        self.on_lost = on_lost;
        self
    }

    /// Whether a record may hold a line feed.
    pub(crate) fn may_hold_line_feeds(&self) -> bool {
        self.framing.holds_line_feeds()
    }

    /// The name it was given.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What the directory holds, or why it cannot be read and what to do.
    fn list(&self) -> Result<Vec<Entry>> {
        let directory = self.tree.name();
        let entries = self.tree.list(ENTRIES_MAX).map_err(|err| {
            let hint = match err.kind() {
                io::ErrorKind::NotFound => " (make it first, or mend `directory`)",
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

    /// Looks at the directory and takes what fits into a batch.
    fn decide(&self, state: &mut State) -> Result<Plan> {
        let entries = self.list()?;
        let State { planned, started, waiting, opened, ending, .. } = state;
        opened.clear();
        let started = started.as_ref().expect("a source is started before it is asked");
        let entries = as_present(entries, started.present.as_ref());
        let Look { readable, mut notes, gone } = planned.look(&entries);
        let mut turns = Turns {
            source: self,
            reading: &started.reading,
            at_end: started.present.is_some(),
            waiting: &mut *waiting,
            opened,
            notes: &mut notes,
            pieces: Vec::new(),
            left: self.batch_bytes_max,
        };
        let whole = turns.take_all(readable);
        let pieces = turns.pieces;
        let here = entries.iter().filter_map(|entry| Some(entry.stat()?.id));
        let here: HashSet<FileId> = here.collect();
        waiting.retain(|id, _| here.contains(id));
        *ending = started.present.is_some() && whole;
        started.report(planned.new_notes(notes, &entries));
        Ok(Plan { pieces, gone })
    }
}

/// The entries as far as they were there at the start; all of them in a run without an end.
fn as_present(entries: Vec<Entry>, present: Option<&HashMap<FileId, u64>>) -> Vec<Entry> {
    let Some(present) = present else { return entries };
    let known = |mut entry: Entry| {
        if let What::File(stat) = &mut entry.what {
            stat.size = stat.size.min(*present.get(&stat.id)?);
        }
        Some(entry)
    };
    entries.into_iter().filter_map(known).collect()
}

/// Takes a piece of each file, again and again, until the batch is full.
struct Turns<'a> {
    source: &'a FilesSource,
    reading: &'a Reading,
    at_end: bool,
    waiting: &'a mut HashMap<FileId, Stat>,
    opened: &'a mut HashMap<FileId, Arc<Held>>,
    notes: &'a mut Vec<Note>,
    pieces: Vec<Piece>,
    /// Bytes that the batch may still take.
    left: u64,
}

impl Turns<'_> {
    /// Whether everything was taken.
    fn take_all(&mut self, mut files: Vec<Known>) -> bool {
        files.retain(|known| self.waiting.get(&known.stat.id) != Some(&known.stat));
        while !files.is_empty() {
            let mut left = Vec::new();
            for known in files {
                if self.left == 0 || self.pieces.len() >= PIECES_MAX || !self.may_open(&known) {
                    return false;
                }
                left.extend(self.take(known));
            }
            files = left;
        }
        true
    }

    /// Takes the file's next piece; the file comes back if there is more.
    fn take(&mut self, mut known: Known) -> Option<Known> {
        let bounds = Bounds {
            framing: self.source.framing,
            record_bytes_max: self.source.record_bytes_max as u64,
            piece_bytes: PARTITION_BYTES.min(self.left),
            at_end: self.at_end,
        };
        let extent = self.open(&known).and_then(|file| extent::next(file.as_ref(), &known, bounds));
        let (to, what) = match extent {
            Ok(Some(extent)) => extent,
            Ok(None) => {
                self.waiting.insert(known.stat.id, known.stat);
                return None;
            }
            Err(err) => {
                self.notes
                    .push(Note { name: known.name, why: format!("it cannot be read: {err}") });
                return None;
            }
        };
        self.note(&known, to, what);
        let (name, stat) = (known.name.clone(), known.stat);
        self.left = self.left.saturating_sub(to - known.offset);
        self.pieces.push(Piece { name, stat, from: known.offset, to, what });
        known.offset = to;
        known.inside = what == Content::Overlong { ended: false };
        (to < known.stat.size && what != Content::Malformed).then_some(known)
    }

    /// Whether the batches that are not done leave room for one more open file.
    fn may_open(&self, known: &Known) -> bool {
        let held = self.reading.held.load(Ordering::SeqCst);
        held < self.source.held_max || self.opened.contains_key(&known.stat.id)
    }

    fn open(&mut self, known: &Known) -> io::Result<Arc<dyn OpenFile>> {
        let id = known.stat.id;
        if let Some(held) = self.opened.get(&id) {
            return Ok(Arc::clone(&held.file));
        }
        let file = self.reading.tree.open(&known.name)?;
        if file.stat()?.id != id {
            return Err(io::Error::other(
                "another file took its name; it is read at the next tick",
            ));
        }
        self.opened.insert(id, Held::new(Arc::clone(&file), &self.reading.held));
        Ok(file)
    }

    fn note(&mut self, known: &Known, to: u64, what: Content) {
        let (from, name) = (known.offset, &known.name);
        let why = match what {
            Content::Records | Content::LastRecords => return,
            Content::Overlong { .. } if known.inside => return,
            Content::Overlong { .. } => {
                self.reading.counters.overlong.add(1);
                format!(
                    "the record at byte {from} is longer than `record_bytes_max` and is dropped"
                )
            }
            Content::Malformed => {
                self.reading.counters.malformed.add(1);
                format!(
                    "the frame at byte {from} is malformed: the rest, up to byte {to}, is not read"
                )
            }
        };
        self.notes.push(Note { name: name.clone(), why });
    }
}

impl Started {
    fn report(&self, notes: Vec<Note>) {
        for Note { name, why } in notes {
            self.reading.counters.skipped.add(1);
            let (source, file) = (self.reading.source.clone(), shown(&name));
            self.events.post(Event::FileSkipped { source, file, why });
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
        let entries = self.list()?;
        let size = |entry: &Entry| entry.stat().map(|stat| (stat.id, stat.size));
        let reading = Reading {
            source: start.source.clone(),
            tree: Arc::clone(&self.tree),
            held: Arc::default(),
            framing: self.framing,
            record_bytes_max: self.record_bytes_max,
            counters: Arc::clone(&start.counters),
        };
        let mut state = self.state.lock();
        state.planned = state.committed.clone();
        state.waiting.clear();
        let present: Option<HashMap<FileId, u64>> =
            start.until_eof.then(|| entries.iter().filter_map(size).collect());
        // What makes a small batch is the last one: it needs no tick.
        let bytes: u64 = present.iter().flat_map(HashMap::values).sum();
        let few = present.as_ref().is_some_and(|present| present.len() <= self.held_max);
        state.ending = few && bytes <= self.batch_bytes_max.min(ENDING_BYTES_MAX);
        state.started =
            Some(Started { reading: Arc::new(reading), events: start.events.clone(), present });
        Ok(())
    }

    fn plan(&self, _time: Time) -> Result<Option<Vec<u8>>> {
        let mut state = self.state.lock();
        let plan = self.decide(&mut state)?;
        if plan == Plan::default() {
            return Ok(None);
        }
        state.planned.apply(&plan);
        Ok(Some(encode(&plan)))
    }

    fn read(&self, plan: &[u8]) -> Result<Vec<Arc<dyn DirectPartition>>> {
        let plan: Plan = decode("a plan", plan)?;
        let state = self.state.lock();
        let started = state.started.as_ref().expect("a source is started before it is read");
        let groups = grouped(plan.pieces.into_iter().filter(Piece::has_records));
        let partition = |pieces: Vec<Piece>| {
            let held = |piece: Piece| (state.opened.get(&piece.stat.id).cloned(), piece);
            let pieces = pieces.into_iter().map(held).map(|(held, piece)| (piece, held)).collect();
            Arc::new(FilePartition::new(&started.reading, pieces)) as _
        };
        Ok(groups.into_iter().map(partition).collect())
    }

    fn planned(&self, plan: &[u8]) -> Result<()> {
        let plan: Plan = decode("a plan", plan)?;
        self.state.lock().planned.apply(&plan);
        Ok(())
    }

    fn committed(&self, plan: &[u8]) {
        let mut state = self.state.lock();
        // It was planned or read before, so it can be decoded.
        let Ok(plan) = decode::<Plan>("a plan", plan) else { return };
        state.committed.apply(&plan);
    }

    fn snapshot(&self) -> Vec<u8> {
        encode(&self.state.lock().committed)
    }

    fn restore(&self, snapshot: &[u8]) -> Result<()> {
        let committed: Seen = decode("a snapshot", snapshot)?;
        let mut state = self.state.lock();
        (state.planned, state.committed) = (committed.clone(), committed);
        Ok(())
    }

    fn lost(&self, plans: &[&[u8]]) -> Result<Vec<Vec<Lost>>> {
        let entries = self.list()?;
        let sizes: HashMap<FileId, u64> =
            entries.iter().filter_map(Entry::stat).map(|stat| (stat.id, stat.size)).collect();
        let of_plan = |plan: &&[u8]| {
            let plan: Plan = decode("a plan", plan)?;
            let pieces = plan.pieces.iter().filter(|piece| piece.has_records());
            Ok(pieces.filter_map(|piece| piece.lost_of(sizes.get(&piece.stat.id))).collect())
        };
        plans.iter().map(of_plan).collect()
    }

    fn on_lost(&self) -> OnLost {
        self.on_lost
    }

    fn is_ending(&self) -> bool {
        self.state.lock().ending
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

/// What a position holds, in words, from a snapshot and the plans behind it; none if no file was read.
pub(crate) fn position(snapshot: Option<&[u8]>, plans: &[&[u8]]) -> Result<Option<String>> {
    let seen = snapshot.map(|bytes| decode::<Seen>("a snapshot", bytes));
    let mut seen = seen.transpose()?.unwrap_or_default();
    for plan in plans {
        seen.apply(&decode("a plan", plan)?);
    }
    let (files, bytes) = seen.extent();
    let word = if files == 1 { "file" } else { "files" };
    Ok((files > 0).then(|| format!("a position in {files} {word}, {bytes} bytes read")))
}

/// What the log calls this kind of source.
pub(crate) const KIND: &str = "files";

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data is always encoded")
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|err| {
        Error::Failed(format!("these bytes are not {what} of a files source: {err}"))
    })
}

/// A name as people read it.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
