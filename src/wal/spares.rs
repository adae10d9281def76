//! `Spares`: segments to be written later, each a file that has its room on the disk already.
//!
//! ```text
//!  release: wal-J ─▶ spare-M (a bound; beyond it removed)      roll: spare-N ─▶ wal-K, a new one only without any
//!  fill: a new file ─ allocate ─▶ whole: spare │ not whole: removed, and its room goes back to the disk
//! ```
//! Only whole files count. A file that is shorter than a segment, or has holes that cannot be filled, is removed: it holds
//! room, and a writer that retries it never gets to the whole one beside it. Input leaves some spares alone, so the log keeps
//! room for the records that end batches (see `segment_writer`). Runs on the thread `wal-sync`, or on a test's.

use std::io::{self, ErrorKind};

use super::format::{segment_name, spare_name};
use crate::storage::{Storage, StoredFile, discard, is_full};
use crate::sync::Arc;
use crate::sync::planted::{Planted, planted};

/// See the module.
#[derive(Debug)]
pub(crate) struct Spares {
    /// The numbers of the whole spares; the last is used first.
    whole: Vec<u64>,
    /// The number of the next spare.
    next: u64,
    /// The size of a spare, in bytes.
    segment_bytes: u64,
}

/// A spare that becomes the next segment.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn StoredFile>,
}

impl Spares {
    /// Takes over the spares of an earlier run. Cuts those that are too long, and removes those that are not whole.
    pub(crate) fn adopt(
        storage: &dyn Storage,
        found: &[u64],
        segment_bytes: u64,
    ) -> io::Result<Self> {
        let next = found.iter().max().map_or(1, |newest| newest.saturating_add(1));
        let mut spares = Spares { whole: Vec::new(), next, segment_bytes };
        let mut rest = Vec::new();
        for number in found {
            let file = storage.open(&spare_name(*number))?;
            match file.size()? >= segment_bytes && spares.is_whole(file.as_ref())? {
                true => spares.whole.push(*number),
                false => rest.push((*number, file)),
            }
        }
        for (number, file) in rest {
            if planted(Planted::SpareTriedForEver) {
                spares.whole.push(number);
            } else {
                discard(storage, file.as_ref(), &spare_name(number));
            }
        }
        Ok(spares)
    }

    /// Number of whole spares.
    pub(crate) fn len(&self) -> usize {
        self.whole.len()
    }

    /// Makes a file one segment long, with room for all of it; returns false if there is none.
    fn is_whole(&self, file: &dyn StoredFile) -> io::Result<bool> {
        file.truncate(self.segment_bytes)?;
        match file.allocate(self.segment_bytes) {
            Ok(()) => Ok(true),
            Err(err) if is_full(&err) => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Makes spares until there are this many.
    ///
    /// # Errors
    /// `StorageFull` if there is no room for one more; the others stay.
    pub(crate) fn fill(&mut self, storage: &dyn Storage, count: usize) -> io::Result<()> {
        while self.whole.len() < count {
            let made = self.make(storage)?;
            self.whole.insert(0, made.number);
        }
        Ok(())
    }

    /// Takes a spare to write; makes one if there is none.
    ///
    /// # Errors
    /// `StorageFull` if there is no room for a new one.
    pub(crate) fn take(&mut self, storage: &dyn Storage) -> io::Result<Prepared> {
        while let Some(number) = self.whole.last().copied() {
            let file = storage.open(&spare_name(number))?;
            // Somebody may have changed it since it was made.
            match self.is_whole(file.as_ref())? {
                true => {
                    self.whole.pop();
                    return Ok(Prepared { number, file });
                }
                false if planted(Planted::SpareTriedForEver) => {
                    return Err(ErrorKind::StorageFull.into());
                }
                false => {
                    self.whole.pop();
                    discard(storage, file.as_ref(), &spare_name(number));
                }
            }
        }
        self.make(storage)
    }

    /// Makes a spare, which is not counted.
    fn make(&mut self, storage: &dyn Storage) -> io::Result<Prepared> {
        // Only taking the room shows that it is there; but a disk that is plainly full is not written to for that.
        if storage.volume()?.free < self.segment_bytes {
            return Err(ErrorKind::StorageFull.into());
        }
        let (number, name) = (self.next, spare_name(self.next));
        self.next += 1;
        let file = storage.create(&name)?;
        if let Err(err) = file.allocate(self.segment_bytes) {
            discard(storage, file.as_ref(), &name);
            return Err(err);
        }
        Ok(Prepared { number, file })
    }

    /// Keeps a released segment as a spare if there are fewer than `most`, or removes it.
    pub(crate) fn keep(
        &mut self,
        storage: &dyn Storage,
        segment: u64,
        most: usize,
    ) -> io::Result<()> {
        let name = segment_name(segment);
        if self.whole.len() >= most {
            return storage.remove(&name);
        }
        let file = storage.open(&name)?;
        if !self.is_whole(file.as_ref())? {
            // An earlier run cut it at its end, and the rest of its room is gone.
            drop(file);
            return storage.remove(&name);
        }
        storage.rename(&name, &spare_name(self.next))?;
        // The newest spare goes to the front, so the oldest is used first.
        self.whole.insert(0, self.next);
        self.next += 1;
        Ok(())
    }

    /// Removes the spares beyond `most`.
    pub(crate) fn trim(&mut self, storage: &dyn Storage, most: usize) -> io::Result<()> {
        while self.whole.len() > most
            && let Some(number) = self.whole.pop()
        {
            storage.remove(&spare_name(number))?;
        }
        Ok(())
    }
}
