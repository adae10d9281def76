//! Fills a batch from the files that have more to read: a piece of each, again and again, until the batch is full. Runs on the
//! job loop; reads as little as it takes to find whole records.

use std::collections::HashMap;
use std::io;

use super::PARTITION_BYTES;
use super::boundary::{self, Bounds};
use super::catalog::{Content, Known, Looked, Piece, Rest};
use super::fingerprint;
use super::listing::{FileId, OpenFile, read_full};
use super::look::Readable;
use super::notes::Notes;
use super::open::{OpenFiles, open, went};
use super::read::{Held, Reading};
use super::select::{MAGIC_BYTES, compressor};
use crate::sync::{Arc, Ordering};

/// The most pieces of a batch.
const PIECES_MAX: usize = 10_000;

/// See the module.
pub(super) struct Turns<'a> {
    pub(super) reading: &'a Reading,
    pub(super) looked: &'a mut HashMap<FileId, Looked>,
    pub(super) open: &'a OpenFiles,
    /// The files that the batch takes pieces of.
    pub(super) opened: &'a mut HashMap<FileId, Arc<Held>>,
    /// The most files that unfinished batches hold open.
    pub(super) held_max: usize,
    pub(super) notes: &'a mut Notes,
    /// Files grow no more: their ends complete their last records.
    pub(super) at_end: bool,
    pub(super) pieces: Vec<Piece>,
    /// Bytes that the batch may still take.
    pub(super) left: u64,
}

impl Turns<'_> {
    /// Takes pieces in turn; returns true if everything was taken.
    pub(super) fn take_all(&mut self, mut files: Vec<Readable>) -> bool {
        while !files.is_empty() {
            let mut more = Vec::new();
            let mut turn = files.into_iter();
            while let Some(readable) = turn.next() {
                if self.is_full(&readable.known) {
                    let rest = std::iter::once(readable).chain(turn).chain(more);
                    self.mark_more(rest);
                    return false;
                }
                more.extend(self.take(readable));
            }
            files = more;
        }
        true
    }

    /// True if the batch has no room for a piece of this file.
    fn is_full(&self, known: &Known) -> bool {
        let held = self.reading.held.load(Ordering::SeqCst);
        let may_open = held < self.held_max || self.opened.contains_key(&known.stat.id);
        self.left == 0 || self.pieces.len() >= PIECES_MAX || !may_open
    }

    /// Marks these files: the batch does not have all of their whole records.
    fn mark_more(&mut self, rest: impl Iterator<Item = Readable>) {
        let mut last: HashMap<FileId, usize> = HashMap::new();
        for (at, piece) in self.pieces.iter().enumerate() {
            last.insert(piece.stat.id, at);
        }
        for readable in rest {
            let Some(at) = last.get(&readable.known.stat.id) else { continue };
            let bounds = self.bounds(readable.ends);
            let file = self.opened.get(&readable.known.stat.id);
            let next = file.map(|held| boundary::next(held.file.as_ref(), &readable.known, bounds));
            self.pieces[*at].more = matches!(next, Some(Ok(Some(_))));
        }
    }

    fn bounds(&self, ends: bool) -> Bounds {
        Bounds {
            framing: self.reading.framing,
            record_bytes_max: self.reading.record_bytes_max as u64,
            piece_bytes: PARTITION_BYTES.min(self.left.max(1)),
            at_end: self.at_end || ends,
        }
    }

    /// Takes the file's next piece; the file comes back if there is more.
    fn take(&mut self, readable: Readable) -> Option<Readable> {
        let Readable { mut known, file, ends } = readable;
        match self.piece(&known, file, ends) {
            Ok(Some(piece)) => {
                self.note(&known, piece.to, piece.what);
                self.left = self.left.saturating_sub(piece.to - known.offset);
                (known.offset, known.print) = (piece.to, piece.print);
                known.inside = piece.what == Content::Overlong { ended: false };
                let ended = piece.to >= known.stat.size || piece.what == Content::Malformed;
                self.look(&known, Rest::Unknown);
                self.pieces.push(piece);
                (!ended).then_some(Readable { known, file: None, ends })
            }
            Ok(None) => None,
            Err(err) if went(&err) => None,
            Err(err) => {
                self.notes.once(&known.name, format!("it cannot be read: {err}"));
                None
            }
        }
    }

    fn piece(
        &mut self,
        known: &Known,
        file: Option<Arc<dyn OpenFile>>,
        ends: bool,
    ) -> io::Result<Option<Piece>> {
        let file = self.open(known, file)?;
        if known.offset == 0
            && let Some(compressor) = begin(file.as_ref()).map(|begin| compressor(&begin))?
        {
            let why = format!("it is compressed ({compressor}), and is not read");
            self.notes.once(&known.name, why);
            self.look(known, Rest::PassedOver);
            return Ok(None);
        }
        let Some((to, what)) = boundary::next(file.as_ref(), known, self.bounds(ends))? else {
            self.look(known, Rest::Unfinished);
            return Ok(None);
        };
        let cut = || io::Error::other("it was cut a moment ago; it is looked at again");
        let print = fingerprint::of(file.as_ref(), to)?.ok_or_else(cut)?;
        let (name, stat, from) = (known.name.clone(), known.stat, known.offset);
        Ok(Some(Piece { name, stat, from, to, what, print: Some(print), more: false }))
    }

    fn look(&mut self, known: &Known, rest: Rest) {
        let (name, stat) = (known.name.clone(), known.stat);
        self.looked.insert(stat.id, Looked { name, stat, is_same: true, rest });
    }

    /// The file, which stays open until the batch is done.
    fn open(
        &mut self,
        known: &Known,
        file: Option<Arc<dyn OpenFile>>,
    ) -> io::Result<Arc<dyn OpenFile>> {
        let id = known.stat.id;
        if let Some(held) = self.opened.get(&id) {
            return Ok(Arc::clone(&held.file));
        }
        let file = match file.or_else(|| self.open.get(id).cloned()) {
            Some(file) => file,
            None => open(self.reading.tree.as_ref(), &known.name, &known.stat)?,
        };
        self.opened.insert(id, Held::new(Arc::clone(&file), &self.reading.held));
        Ok(file)
    }

    fn note(&mut self, known: &Known, to: u64, what: Content) {
        let from = known.offset;
        let why = match what {
            Content::Records | Content::LastRecords => return,
            Content::Overlong { .. } if known.inside => return,
            Content::Overlong { .. } => {
                return self.reading.overlong(&known.name, 1, &format!("at byte {from}"));
            }
            Content::Malformed => {
                self.reading.counters.malformed.add(1);
                format!(
                    "the frame at byte {from} is malformed: the rest, up to byte {to}, is not read"
                )
            }
        };
        self.notes.event(&known.name, why);
    }
}

/// The first bytes of a file.
fn begin(file: &dyn OpenFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; MAGIC_BYTES];
    let length = read_full(file, 0, &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}
