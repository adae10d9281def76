//! What is known of a directory's files, and what a look at it says: what can be read on, and what is passed over and
//! why. Pure: entries and pieces in, decisions out; touches no file system.
//!
//! A file is the same one if its identity is (inode, and when it was made): then it is read on from the known offset,
//! whatever it is called now. Under a new identity it is the same if name, size and time of change are those of a file
//! that was read: a copy that took another's place.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::disk::{Entry, FileId, Stat, What};
use super::shown;
use crate::direct::{Lost, Unit};

/// Removed files that are remembered by name, size and time of change.
const GONE_MAX: usize = 10_000;

/// Endings of names that programs give to files which they have not finished.
const TEMPORARY: [&[u8]; 5] = [b".tmp", b".part", b".partial", b".swp", b"~"];

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    /// Read so far, in bytes.
    pub(super) offset: u64,
    /// The offset lies in an over-long line, whose end has not come.
    pub(super) inside: bool,
    /// Nothing of it is read any more: a frame was malformed.
    pub(super) broken: bool,
}

/// What a batch takes of a file, or passes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) what: Content,
}

impl Piece {
    /// Whether tasks read it.
    pub(super) fn has_records(&self) -> bool {
        matches!(self.what, Content::Records | Content::LastRecords) && self.from <= self.to
    }

    /// The piece, lost.
    pub(super) fn lost(&self, why: impl Into<String>) -> Lost {
        let of = format!("file `{}`", shown(&self.name));
        Lost { of, from: self.from, to: self.to, unit: Unit::Bytes, why: why.into() }
    }

    /// The piece as a loss, if its file, of this size now, has not all of it any more.
    pub(super) fn lost_of(&self, size: Option<&u64>) -> Option<Lost> {
        match size {
            None => Some(self.lost("it is gone")),
            Some(size) if *size < self.to => Some(self.lost(format!("it ends at byte {size} now"))),
            Some(_) => None,
        }
    }
}

/// What a piece holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Content {
    /// Whole records.
    Records,
    /// Whole records; the end of the file completes the last one.
    LastRecords,
    /// A part of an over-long line; its end has come, or has not.
    Overlong { ended: bool },
    /// What follows a malformed frame: nothing more is read of this file.
    Malformed,
}

/// All that is decided at a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) pieces: Vec<Piece>,
    /// Files that are no longer there.
    pub(super) gone: Vec<FileId>,
}

/// Something that an operator should know of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) name: Vec<u8>,
    pub(super) why: String,
}

/// What a look at the directory says.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Files with bytes that were not read, the oldest first.
    pub(super) readable: Vec<Known>,
    pub(super) notes: Vec<Note>,
    pub(super) gone: Vec<FileId>,
}

/// Name, size and time of change.
type Print = (Vec<u8>, u64, u64);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    files: HashMap<FileId, Known>,
    /// Removed ones, the oldest first.
    gone: VecDeque<Print>,
    /// What was said of a name, so that it is said once.
    #[serde(skip)]
    noted: HashSet<(Vec<u8>, String)>,
}

impl Seen {
    /// Looks at all that is in the directory now.
    pub(super) fn look(&self, entries: &[Entry]) -> Look {
        let mut look = Look::default();
        let (mut notes, mut here) = (Vec::new(), HashSet::new());
        let is_new =
            |entry: &Entry| entry.stat().is_some_and(|stat| !self.files.contains_key(&stat.id));
        // Only a new file is compared with those that were read, so a look without one costs nothing for them.
        let read = if entries.iter().any(is_new) { self.prints() } else { HashSet::new() };
        for entry in entries {
            match (&entry.what, passed_over(&entry.name)) {
                (What::File(stat), None) => {
                    here.insert(stat.id);
                    look.readable.extend(self.readable(&entry.name, stat, &read, &mut notes));
                }
                (What::File(stat), Some(why)) => {
                    here.insert(stat.id);
                    notes.push(Note { name: entry.name.clone(), why: why.to_owned() });
                }
                (What::Other, _) => notes.push(note(&entry.name, "it is no regular file")),
                (What::Unreadable(why), _) => notes.push(note(&entry.name, why)),
            }
        }
        for (id, known) in self.files.iter().filter(|(id, _)| !here.contains(id)) {
            look.gone.push(*id);
            let unread = known.stat.size.saturating_sub(known.offset);
            if unread > 0 && !known.broken {
                notes.push(note(&known.name, format!("it is gone with {unread} bytes unread")));
            }
        }
        look.gone.sort_unstable();
        look.readable.sort_by(|a, b| (a.stat.changed, &a.name).cmp(&(b.stat.changed, &b.name)));
        look.notes = notes;
        look
    }

    /// The notes that were not made before; notes of names that are gone are forgotten.
    pub(super) fn new_notes(&mut self, notes: Vec<Note>, entries: &[Entry]) -> Vec<Note> {
        let names: HashSet<&[u8]> = entries.iter().map(|entry| entry.name.as_slice()).collect();
        self.noted.retain(|(name, _)| names.contains(name.as_slice()));
        let noted = &mut self.noted;
        notes.into_iter().filter(|n| noted.insert((n.name.clone(), n.why.clone()))).collect()
    }

    /// The file as it is to be read on, if there is anything to read.
    fn readable(
        &self,
        name: &[u8],
        stat: &Stat,
        read: &HashSet<(&[u8], u64, u64)>,
        notes: &mut Vec<Note>,
    ) -> Option<Known> {
        let new =
            Known { name: name.to_vec(), stat: *stat, offset: 0, inside: false, broken: false };
        let known = match self.files.get(&stat.id) {
            None if read.contains(&(name, stat.size, stat.changed)) => {
                notes.push(note(name, "one of this name, size and time was read before"));
                return None;
            }
            None => new,
            Some(known) if stat.size < known.offset => {
                let (was, is) = (known.offset, stat.size);
                notes.push(note(
                    name,
                    format!("it was cut to {is} bytes after {was} were read: read from its start"),
                ));
                new
            }
            Some(known) if stat.size == known.offset => {
                if stat.changed != known.stat.changed && stat.size == known.stat.size {
                    notes.push(note(name, "it was changed and did not grow: not read again"));
                }
                return None;
            }
            Some(known) => Known { name: name.to_vec(), stat: *stat, ..known.clone() },
        };
        (known.offset < stat.size && !known.broken).then_some(known)
    }

    /// Name, size and time of change of the files that were read whole, also of removed ones.
    fn prints(&self) -> HashSet<(&[u8], u64, u64)> {
        let whole = self.files.values().filter(|known| known.offset == known.stat.size);
        let here = whole.map(|known| (known.name.as_slice(), known.stat.size, known.stat.changed));
        let gone = self.gone.iter().map(|(name, size, changed)| (name.as_slice(), *size, *changed));
        here.chain(gone).collect()
    }

    /// How many files are known, and how many of their bytes were read.
    pub(super) fn extent(&self) -> (usize, u64) {
        (self.files.len(), self.files.values().map(|known| known.offset).sum())
    }

    /// What was decided counts from now on.
    pub(super) fn apply(&mut self, plan: &Plan) {
        for piece in &plan.pieces {
            self.files.insert(
                piece.stat.id,
                Known {
                    name: piece.name.clone(),
                    stat: piece.stat,
                    offset: piece.to,
                    inside: piece.what == Content::Overlong { ended: false },
                    broken: piece.what == Content::Malformed,
                },
            );
        }
        for id in &plan.gone {
            let Some(Known { name, stat, offset, .. }) = self.files.remove(id) else { continue };
            if offset == stat.size {
                self.gone.push_back((name, stat.size, stat.changed));
            }
        }
        while self.gone.len() > GONE_MAX {
            self.gone.pop_front();
        }
    }
}

fn note(name: &[u8], why: impl Into<String>) -> Note {
    Note { name: name.to_vec(), why: why.into() }
}

/// Why a file of this name is not read.
fn passed_over(name: &[u8]) -> Option<&'static str> {
    if name.first() == Some(&b'.') {
        return Some("its name starts with `.`");
    }
    let temporary = TEMPORARY.iter().any(|end| name.ends_with(end));
    temporary.then_some("its name is one of a temporary file")
}
