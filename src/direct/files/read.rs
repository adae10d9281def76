//! Reads the pieces of a plan: a buffer at a time, whole records out. Runs on the workers.
//!
//! A file that was opened for the plan stays open until its batch is done, so that removing or renaming it meanwhile
//! changes nothing. Otherwise it is looked for by name, then by identity. What was planned and cannot be read fails the
//! attempt: a batch never quietly holds less than its plan.

use std::collections::HashMap;
use std::fmt;
use std::io;

use super::disk::{FileId, FileTree, OpenFile, read_full};
use super::seen::{Content, Piece};
use super::{ENTRIES_MAX, shown};
use crate::direct::DirectPartition;
use crate::error::{Error, Result};
use crate::framing::{Found, Framing};
use crate::metrics::ReceiverCounters;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

/// What a task holds of a file at a time, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Files that stay open between a plan and the end of its batch.
const OPEN_MAX: usize = 128;

/// Open files, by identity.
#[derive(Default)]
pub(super) struct Handles(Mutex<HashMap<FileId, Arc<dyn OpenFile>>>);

impl Handles {
    /// Keeps a file open, if there is room for it.
    pub(super) fn keep(&self, id: FileId, file: &Arc<dyn OpenFile>) {
        let mut open = self.0.lock();
        if open.len() < OPEN_MAX {
            open.insert(id, Arc::clone(file));
        }
    }

    pub(super) fn get(&self, id: FileId) -> Option<Arc<dyn OpenFile>> {
        self.0.lock().get(&id).cloned()
    }

    pub(super) fn close(&self, id: FileId) {
        self.0.lock().remove(&id);
    }
}

/// What the partitions of a source share.
pub(super) struct Reading {
    pub(super) source: String,
    pub(super) tree: Arc<dyn FileTree>,
    pub(super) handles: Handles,
    pub(super) framing: Framing,
    pub(super) record_bytes_max: usize,
    pub(super) counters: Arc<ReceiverCounters>,
}

/// Some pieces, one after the other.
pub(super) struct FilePartition {
    reading: Arc<Reading>,
    pieces: Vec<Piece>,
    /// What was dropped is counted once, however often it is read.
    counted: AtomicBool,
}

impl fmt::Debug for FilePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilePartition").field("pieces", &self.pieces).finish_non_exhaustive()
    }
}

impl FilePartition {
    pub(super) fn new(reading: &Arc<Reading>, pieces: Vec<Piece>) -> Self {
        FilePartition { reading: Arc::clone(reading), pieces, counted: AtomicBool::new(false) }
    }

    fn read(&self, piece: &Piece, each: &mut dyn FnMut(&[u8], u64)) -> io::Result<Dropped> {
        let reading = &self.reading;
        let file = reading.open(piece)?;
        let mut splitter = reading.framing.splitter(reading.record_bytes_max);
        let (mut found, mut dropped) = (Found::default(), Dropped::default());
        let length = usize::try_from(piece.to - piece.from).unwrap_or(usize::MAX);
        let mut buffer = vec![0; READ_BYTES.min(length)];
        let mut at = piece.from;
        while at < piece.to {
            let left = usize::try_from(piece.to - at).unwrap_or(usize::MAX);
            let room = buffer.len().min(left);
            let len = read_full(file.as_ref(), at, &mut buffer[..room])?;
            if len < room {
                let text = format!("it ends at byte {} now", at + len as u64);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            found.clear();
            let outcome = splitter.feed(&buffer[..len], &mut found);
            hand_out(&found, &buffer, &mut dropped, each);
            outcome.map_err(|malformed| changed(&malformed.0))?;
            at += len as u64;
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
fn changed(how: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("it was changed since it was planned: {how}"),
    )
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

    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.to - piece.from).sum()
    }

    fn for_each_range(&self, each: &mut dyn FnMut(&[u8], u64)) -> Result<()> {
        let mut dropped = Dropped::default();
        for piece in &self.pieces {
            let read = self.read(piece, each).map_err(|err| {
                let (source, name) = (&self.reading.source, shown(&piece.name));
                let (from, to) = (piece.from, piece.to);
                Error::Failed(format!(
                    "source `{source}`: bytes {from} to {to} of file `{name}` cannot be read: {err}; \
                     a file must stay as it is until it was read"
                ))
            })?;
            dropped.overlong += read.overlong;
            dropped.truncated += read.truncated;
        }
        if !self.counted.swap(true, Ordering::SeqCst) {
            self.reading.counters.overlong.add(dropped.overlong);
            self.reading.counters.malformed.add(dropped.truncated);
        }
        Ok(())
    }
}

impl Reading {
    /// The file of a piece, wherever it is now.
    fn open(&self, piece: &Piece) -> io::Result<Arc<dyn OpenFile>> {
        if let Some(file) = self.handles.get(piece.stat.id) {
            return Ok(file);
        }
        let same = |file: Arc<dyn OpenFile>| {
            let id = file.stat().map(|stat| stat.id);
            (id.ok() == Some(piece.stat.id)).then_some(file)
        };
        if let Some(file) = self.tree.open(&piece.name).ok().and_then(same) {
            return Ok(file);
        }
        let mut entries = self.tree.list(ENTRIES_MAX)?.into_iter();
        let renamed =
            entries.find(|entry| entry.stat().is_some_and(|stat| stat.id == piece.stat.id));
        let file = renamed.map(|entry| self.tree.open(&entry.name)).transpose()?.and_then(same);
        file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is gone"))
    }
}
