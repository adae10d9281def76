//! Reads the pieces of a plan: a buffer at a time, whole records out. Runs on the workers.
//!
//! A file that was opened for the plan stays open until its batch is done, so that removing or renaming it meanwhile
//! changes nothing: the partitions hold it. Otherwise it is looked for by name, then by identity. A piece of which a
//! part is gone is lost, and the reader decides if the batch continues without it: a batch never silently holds less than its
//! plan.

use std::collections::HashMap;
use std::fmt;
use std::io;

use super::catalog::{Content, IS_CHANGED, IS_GONE, Piece};
use super::fingerprint;
use super::listing::{Entry, FileId, FileTree, OpenFile, Stat, read_full};
use super::open::open;
use super::{ENTRIES_MAX, shown};
use crate::error::{Error, Result};
use crate::framing::{Found, Framing};
use crate::metrics::{EventBus, ReceiverCounters, TallyKind};
use crate::source::direct::{DirectPartition, Lost};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering};

/// Bytes of a file that a task holds at a time.
const READ_BYTES: usize = 256 * 1024;

/// A file that stays open until the batch that takes a part of it is done.
pub(super) struct Held {
    pub(super) file: Arc<dyn OpenFile>,
    /// Number of files that the source's batches hold.
    all: Arc<AtomicUsize>,
}

impl Held {
    pub(super) fn new(file: Arc<dyn OpenFile>, all: &Arc<AtomicUsize>) -> Arc<Held> {
        all.fetch_add(1, Ordering::SeqCst);
        Arc::new(Held { file, all: Arc::clone(all) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::SeqCst);
    }
}

/// State that the partitions of a source share.
pub(super) struct Reading {
    pub(super) source: String,
    pub(super) tree: Arc<dyn FileTree>,
    /// Files that batches keep open.
    pub(super) held: Arc<AtomicUsize>,
    pub(super) framing: Framing,
    /// Line feeds inside lines are escaped.
    pub(super) unescape: bool,
    pub(super) record_bytes_max: usize,
    pub(super) counters: Arc<ReceiverCounters>,
    pub(super) events: EventBus,
}

/// Some pieces, one after the other.
pub(super) struct FilePartition {
    reading: Arc<Reading>,
    pieces: Vec<(Piece, Option<Arc<Held>>)>,
    /// The pieces that an attempt found changed in the middle, and how: the next one knows before it reads.
    changed: Mutex<HashMap<usize, String>>,
    /// Set once the dropped records are counted, however often they are read.
    counted: AtomicBool,
}

/// The reason why a piece is not read.
enum Unread {
    /// It is not all there.
    Lost(String),
    /// It is there, but reading fails.
    Failed(io::Error),
}

impl From<io::Error> for Unread {
    fn from(err: io::Error) -> Self {
        Unread::Failed(err)
    }
}

impl fmt::Debug for FilePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces: Vec<_> = self.pieces.iter().map(|(piece, _)| piece).collect();
        f.debug_struct("FilePartition").field("pieces", &pieces).finish_non_exhaustive()
    }
}

impl FilePartition {
    /// A partition of these pieces, each with its file, if that was opened for the plan.
    pub(super) fn new(reading: &Arc<Reading>, pieces: Vec<(Piece, Option<Arc<Held>>)>) -> Self {
        FilePartition {
            reading: Arc::clone(reading),
            pieces,
            changed: Mutex::default(),
            counted: AtomicBool::new(false),
        }
    }

    /// The file of a piece, if the piece is there.
    fn open(&self, number: usize) -> Result<Arc<dyn OpenFile>, Unread> {
        if let Some(how) = self.changed.lock().get(&number) {
            return Err(Unread::Lost(how.clone()));
        }
        let (piece, held) = &self.pieces[number];
        let file = match held {
            Some(held) => Some(Arc::clone(&held.file)),
            None => self.reading.open(piece)?,
        };
        let file = file.ok_or_else(|| Unread::Lost(IS_GONE.to_owned()))?;
        match lacks(file.as_ref(), piece)? {
            Some(why) => Err(Unread::Lost(why)),
            None => Ok(file),
        }
    }

    fn read(
        &self,
        file: &dyn OpenFile,
        piece: &Piece,
        each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<Dropped, Unread> {
        let (reading, before) = (&self.reading, file.stat()?);
        let mut splitter = reading.framing.splitter(reading.record_bytes_max);
        let (mut found, mut dropped) = (Found::default(), Dropped::default());
        let length = usize::try_from(piece.to - piece.from).unwrap_or(usize::MAX);
        let mut buffer = vec![0; READ_BYTES.min(length)];
        let mut at = piece.from;
        while at < piece.to {
            let left = usize::try_from(piece.to - at).unwrap_or(usize::MAX);
            let room = buffer.len().min(left);
            let len = read_full(file, at, &mut buffer[..room])?;
            if len < room {
                return Err(Unread::Lost(format!("it ends at byte {} now", file.stat()?.size)));
            }
            found.clear();
            let outcome = splitter.feed(&buffer[..len], &mut found);
            hand_out(&found, &buffer, &mut dropped, each);
            outcome.map_err(|malformed| changed(&malformed.0))?;
            at += len as u64;
        }
        if let Some(why) = lacks_since(file, piece, before)? {
            return Err(Unread::Lost(why));
        }
        match piece.what {
            Content::LastRecords => {
                found.clear();
                splitter.end(&mut found);
                hand_out(&found, &[], &mut dropped, each);
            }
            _ if splitter.pending() > 0 => return Err(changed("its last record is not whole")),
            _ => {}
        }
        Ok(dropped)
    }
}

/// The bytes are others than when the plan was made.
fn changed(how: &str) -> Unread {
    Unread::Lost(format!("it was changed since it was planned: {how}"))
}

/// Records that are not handed out.
#[derive(Default)]
struct Dropped {
    overlong: u64,
    truncated: u64,
}

fn hand_out(found: &Found, bytes: &[u8], dropped: &mut Dropped, each: &mut dyn FnMut(&[u8], u64)) {
    if !found.joined.is_empty() {
        each(&found.joined, 1);
    }
    for (range, records) in found.ranges.iter().zip(&found.range_records) {
        each(&bytes[range.clone()], *records);
    }
    dropped.overlong += found.overlong;
    dropped.truncated += found.truncated;
}

impl DirectPartition for FilePartition {
    fn framing(&self) -> Framing {
        self.reading.framing
    }

    fn unescapes(&self) -> bool {
        self.reading.unescape
    }

    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(piece, _)| piece.to - piece.from).sum()
    }

    fn for_each_range(
        &self,
        each: &mut dyn FnMut(&[u8], u64),
        lost: &mut dyn FnMut(Lost) -> Result<()>,
    ) -> Result<()> {
        let (mut dropped, mut newest) = (Dropped::default(), None);
        for (number, (piece, _)) in self.pieces.iter().enumerate() {
            let file = match self.open(number) {
                Ok(file) => file,
                Err(Unread::Lost(why)) => {
                    lost(piece.lost(why))?;
                    continue;
                }
                Err(Unread::Failed(err)) => return Err(self.failed(piece, &err.to_string())),
            };
            let read = match self.read(file.as_ref(), piece, each) {
                Ok(read) => read,
                // Records of it may have been handed out: this attempt is of no use.
                Err(Unread::Lost(why)) => {
                    self.changed.lock().insert(number, why.clone());
                    return Err(self.failed(piece, &why));
                }
                Err(Unread::Failed(err)) => return Err(self.failed(piece, &err.to_string())),
            };
            if read.overlong > 0 {
                newest = Some(piece);
            }
            dropped.overlong += read.overlong;
            dropped.truncated += read.truncated;
        }
        if !self.counted.swap(true, Ordering::SeqCst) {
            if let Some(Piece { name, from, to, .. }) = newest {
                self.reading.overlong(name, dropped.overlong, &format!("in bytes {from} to {to}"));
            }
            self.reading.counters.malformed.add(dropped.truncated);
        }
        Ok(())
    }
}

impl FilePartition {
    fn failed(&self, piece: &Piece, why: &str) -> Error {
        Error::Failed(format!("source `{}`: {}", self.reading.source, piece.lost(why)))
    }
}

impl Reading {
    /// Counts and reports over-long records; the last of them is in this file, at this offset.
    pub(super) fn overlong(&self, name: &[u8], count: u64, place: &str) {
        self.counters.overlong.add(count);
        let (file, max) = (shown(name), self.record_bytes_max);
        let newest = format!("{place} of file `{file}` (record_bytes_max = {max}), dropped");
        self.events.tallies().add(TallyKind::RecordOverlong, &self.source, count, newest);
    }

    /// The file of a piece, wherever it is now; `None` if it is gone.
    fn open(&self, piece: &Piece) -> io::Result<Option<Arc<dyn OpenFile>>> {
        if let Ok(file) = open(self.tree.as_ref(), &piece.name, &piece.stat) {
            return Ok(Some(file));
        }
        There::new(self.tree.as_ref(), self.tree.list(ENTRIES_MAX)?).open(piece)
    }
}

/// The reason why the file lacks the piece as it was planned; `None` if it has it.
fn lacks(file: &dyn OpenFile, piece: &Piece) -> io::Result<Option<String>> {
    if let Some(why) = piece.missing_from(&file.stat()?) {
        return Ok(Some(why));
    }
    let Some(print) = piece.print else { return Ok(None) };
    let is_same = fingerprint::of(file, piece.to)? == Some(print);
    Ok((!is_same).then(|| IS_CHANGED.to_owned()))
}

/// The same of a file that was `before` when it had the piece.
fn lacks_since(file: &dyn OpenFile, piece: &Piece, before: Stat) -> io::Result<Option<String>> {
    if file.stat()? == before { Ok(None) } else { lacks(file, piece) }
}

/// The files of the directory by place, for finding the pieces of an earlier run again.
pub(super) struct There<'a> {
    tree: &'a dyn FileTree,
    /// The names of each file.
    names: HashMap<FileId, (Vec<u8>, Stat)>,
}

impl<'a> There<'a> {
    pub(super) fn new(tree: &'a dyn FileTree, entries: Vec<Entry>) -> Self {
        let name = |entry: Entry| entry.stat().copied().map(|stat| (stat.id, (entry.name, stat)));
        There { tree, names: entries.into_iter().filter_map(name).collect() }
    }

    /// The file of a piece; `None` if it is not there.
    fn open(&self, piece: &Piece) -> io::Result<Option<Arc<dyn OpenFile>>> {
        let found = self.names.get(&piece.stat.id);
        let Some((name, stat)) = found.filter(|(_, stat)| piece.stat.may_be(stat)) else {
            return Ok(None);
        };
        match open(self.tree, name, stat) {
            Ok(file) => Ok(Some(file)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// The reason why the directory lacks the piece; `None` if it has it, or if only a read can tell.
    pub(super) fn lacks(&self, piece: &Piece) -> Option<String> {
        match self.open(piece) {
            Ok(Some(file)) => lacks(file.as_ref(), piece).ok().flatten(),
            Ok(None) => Some(IS_GONE.to_owned()),
            Err(_) => None,
        }
    }
}
