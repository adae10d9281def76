//! The read positions of a directory's files, and the verdicts on a look at one. Pure: stats and pieces in, decisions out; it
//! touches no file system.
//!
//! A file is the same one if device, inode and fingerprint agree (and its birth, where that is known), whatever its name:
//! then reading continues at the known offset. Where they do not agree it is another file that took the place, and it is read
//! from its start. A file under a new inode is the same one only if name, size, time of change and fingerprint are those of
//! one that was read, and that time was not set by writing it: a copy that was put in its place.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::listing::{FileId, Stat};
use super::shown;
use crate::source::direct::{Lost, Unit};
use crate::sync::planted::{Planted, planted};

/// Files that are remembered after they went.
const GONE_MAX: usize = 10_000;

/// The coarsest clock that a file system takes its times from, in nanoseconds.
const CLOCK_STEP: u64 = 10_000_000;

/// The known state of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) name: Vec<u8>,
    /// Its stat when the last piece was taken.
    pub(super) stat: Stat,
    /// Read so far, in bytes.
    pub(super) offset: u64,
    /// The fingerprint of the bytes that were read; `None` if an earlier version read them, which took none.
    pub(super) print: Option<Fingerprint>,
    /// The offset lies in an over-long line, whose end has not come.
    pub(super) inside: bool,
    /// Nothing of it is read any more: a frame was malformed.
    pub(super) broken: bool,
    /// There were whole records behind the offset, which the batch had no room for.
    pub(super) more: bool,
}

impl Known {
    /// A file of which nothing was read.
    pub(super) fn new(name: &[u8], stat: Stat) -> Known {
        let (name, print) = (name.to_vec(), Some(Fingerprint::default()));
        Known { name, stat, offset: 0, print, inside: false, broken: false, more: false }
    }

    /// The state after a piece was taken.
    fn after(piece: &Piece) -> Known {
        Known {
            name: piece.name.clone(),
            stat: piece.stat,
            offset: piece.to,
            print: piece.print,
            inside: piece.what == Content::Overlong { ended: false },
            broken: piece.what == Content::Malformed,
            more: piece.more,
        }
    }

    /// All that was read of it, as one piece.
    pub(super) fn as_piece(&self) -> Piece {
        let (name, stat, print) = (self.name.clone(), self.stat, self.print);
        let (from, to, what) = (0, self.offset, Content::Records);
        Piece { name, stat, from, to, what, print, more: self.more }
    }

    /// The unread bytes of the file when it was `size` bytes long.
    pub(super) fn unread(&self, size: u64) -> u64 {
        if self.broken { 0 } else { size.saturating_sub(self.offset) }
    }
}

/// A range of a file that a batch takes or passes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) what: Content,
    /// The fingerprint of the file up to the end of the piece; `None` if an earlier version made the plan.
    pub(super) print: Option<Fingerprint>,
    /// There are whole records behind the piece, and no more of them in this batch.
    pub(super) more: bool,
}

impl Piece {
    /// True if tasks read it.
    pub(super) fn has_records(&self) -> bool {
        matches!(self.what, Content::Records | Content::LastRecords) && self.from <= self.to
    }

    /// The piece, lost.
    pub(super) fn lost(&self, why: impl Into<String>) -> Lost {
        lost(&self.name, self.from, self.to, why)
    }

    /// The reason why a file of this stat lacks a part of the piece, if the stat alone shows it.
    pub(super) fn missing_from(&self, stat: &Stat) -> Option<String> {
        if !self.stat.may_be(stat) {
            return Some(IS_GONE.to_owned());
        }
        (stat.size < self.to).then(|| format!("it ends at byte {} now", stat.size))
    }
}

/// The reason for a lost piece whose file was not found.
pub(super) const IS_GONE: &str = "it is gone";

/// The reason for a lost piece whose file has other bytes now.
pub(super) const IS_CHANGED: &str = "it was changed since it was planned: its bytes are others";

/// A lost range of a file.
pub(super) fn lost(name: &[u8], from: u64, to: u64, why: impl Into<String>) -> Lost {
    let of = format!("file `{}`", shown(name));
    Lost { of, from, to, unit: Unit::Bytes, why: why.into() }
}

/// The content of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Content {
    /// Whole records.
    Records,
    /// Whole records; the end of the file completes the last one.
    LastRecords,
    /// A part of an over-long line; its end has come, or has not.
    Overlong { ended: bool },
    /// The bytes from a malformed frame on: nothing more is read of this file.
    Malformed,
}

/// The decisions of a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Files that are no longer there, or are others now: they go before the pieces are taken.
    pub(super) gone: Vec<FileId>,
    /// Files that went and are there again.
    pub(super) back: Vec<FileId>,
    pub(super) pieces: Vec<Piece>,
}

/// The read positions of all files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Catalog {
    pub(super) files: HashMap<FileId, Known>,
    /// Those that are not in the directory any more, in the order in which they went: one may come back, or a copy of it.
    pub(super) gone: VecDeque<Known>,
}

/// The result of a look at a file, before any of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing of it was read.
    New,
    /// It is as it was, and there is nothing to read.
    Idle,
    /// It was found to be the same one, and may have more to read.
    Same,
    /// It is the same one if its fingerprint is.
    Unsure,
    /// Another file has its place.
    Replaced,
    /// It is shorter than its read position.
    Cut,
}

/// The result of the last look at a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Looked {
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    /// Its fingerprint was that of the bytes that were read.
    pub(super) is_same: bool,
    pub(super) rest: Rest,
}

/// The bytes behind the read position, as long as the file does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// It was not looked at, or there is more than a batch had room for.
    Unknown,
    /// No whole record.
    Unfinished,
    /// Nothing that is read.
    PassedOver,
}

/// Judges a file by its read position and the result of the last look.
pub(super) fn judge(known: Option<&Known>, looked: Option<&Looked>, stat: &Stat) -> Verdict {
    let looked = looked.filter(|looked| looked.stat == *stat);
    let is_done = looked.is_some_and(|looked| looked.rest != Rest::Unknown);
    let Some(known) = known else { return if is_done { Verdict::Idle } else { Verdict::New } };
    if !known.stat.may_be(stat) && !planted(Planted::IdentityIsInode) {
        return Verdict::Replaced;
    }
    if stat.size < known.offset {
        return Verdict::Cut;
    }
    let nothing_to_read = known.unread(stat.size) == 0;
    match looked {
        Some(looked) if is_done || (looked.is_same && nothing_to_read) => Verdict::Idle,
        Some(looked) if looked.is_same => Verdict::Same,
        None if nothing_to_read && known.stat == *stat => Verdict::Idle,
        _ => Verdict::Unsure,
    }
}

impl Catalog {
    /// Numbers of known files and of the bytes that were read of them.
    pub(super) fn extent(&self) -> (usize, u64) {
        (self.files.len(), self.files.values().map(|known| known.offset).sum())
    }

    /// Applies a decided plan to the positions.
    pub(super) fn apply(&mut self, plan: &Plan) {
        for id in &plan.gone {
            self.gone.extend(self.files.remove(id));
        }
        for id in &plan.back {
            let at = self.gone.iter().rposition(|known| known.stat.id == *id);
            if let Some(known) = at.and_then(|at| self.gone.remove(at)) {
                self.files.insert(*id, known);
            }
        }
        while self.gone.len() > GONE_MAX {
            self.gone.pop_front();
        }
        for piece in &plan.pieces {
            self.files.insert(piece.stat.id, Known::after(piece));
        }
    }
}

/// The known files that new ones are compared with. Made when the first new one is found, so a look without one costs nothing.
pub(super) struct Former<'a> {
    /// The files that went, by their place.
    gone: HashMap<FileId, &'a Known>,
    /// Those that were read whole, by name.
    whole: HashMap<&'a [u8], Vec<&'a Known>>,
}

impl<'a> Former<'a> {
    pub(super) fn new(seen: &'a Catalog) -> Self {
        let mut whole: HashMap<&[u8], Vec<&Known>> = HashMap::new();
        let all = seen.files.values().chain(&seen.gone);
        for known in all.filter(|known| known.offset == known.stat.size && known.offset > 0) {
            whole.entry(&known.name).or_default().push(known);
        }
        // The last one that went is the one that may come back.
        let gone = seen.gone.iter().map(|known| (known.stat.id, known)).collect();
        Former { gone, whole }
    }

    /// The known state of a file that left this place, if this may be that file.
    pub(super) fn back(&self, stat: &Stat) -> Option<&'a Known> {
        let known = self.gone.get(&stat.id)?;
        (known.stat.may_be(stat) && known.offset <= stat.size).then_some(*known)
    }

    /// The fingerprints of the files that this one may be a copy of: they have its name, size and time of change, and were
    /// read whole. `None` if its time of change is that of its last write.
    pub(super) fn originals(&self, name: &[u8], stat: &Stat) -> Vec<Option<Fingerprint>> {
        // A file that was written after it was made: its time can be that of another one only by chance.
        let written =
            |born: u64| stat.changed.checked_sub(born).is_some_and(|age| age < CLOCK_STEP);
        if stat.born.is_some_and(written) {
            return Vec::new();
        }
        let is_like =
            |known: &&&Known| (known.stat.size, known.stat.changed) == (stat.size, stat.changed);
        let of_name = self.whole.get(name).into_iter().flatten();
        of_name.filter(is_like).map(|known| known.print).collect()
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    const ID: FileId = FileId { device: 1, inode: 2 };

    fn stat(size: u64, changed: u64, born: u64) -> Stat {
        Stat { id: ID, born: Some(born), size, changed }
    }

    /// 8 of 10 bytes were read when the file was changed at 5; it was made at 1.
    fn known() -> Known {
        Known { offset: 8, ..Known::new(b"a", stat(10, 5, 1)) }
    }

    #[test]
    fn a_look_judges_without_reading() {
        let looked =
            |stat: Stat, is_same, rest| Looked { name: b"a".to_vec(), stat, is_same, rest };
        let check = |known: &Known, looked: Option<Looked>, stat: Stat, expected| {
            assert_eq!(judge(Some(known), looked.as_ref(), &stat), expected, "{stat:?} {looked:?}");
        };
        let now = stat(10, 5, 1);
        let same = Some(looked(now, true, Rest::Unknown));
        let unfinished = Some(looked(now, true, Rest::Unfinished));
        check(&known(), None, now, Verdict::Unsure);
        check(&known(), same.clone(), now, Verdict::Same);
        check(&known(), unfinished.clone(), now, Verdict::Idle);
        check(&known(), unfinished, stat(11, 6, 1), Verdict::Unsure);
        check(&known(), same.clone(), stat(9, 6, 1), Verdict::Unsure);
        check(&known(), same.clone(), stat(7, 6, 1), Verdict::Cut);
        check(&known(), same, stat(10, 5, 4), Verdict::Replaced);
        check(&known(), None, Stat { born: None, ..now }, Verdict::Unsure);
        let whole = Known { offset: 10, ..known() };
        let touched = stat(10, 6, 1);
        check(&whole, None, now, Verdict::Idle);
        check(&whole, None, touched, Verdict::Unsure);
        check(&whole, Some(looked(touched, true, Rest::Unknown)), touched, Verdict::Idle);
        check(&whole, None, stat(11, 6, 1), Verdict::Unsure);
        check(&Known { broken: true, ..known() }, None, now, Verdict::Idle);
        check(&Known { broken: true, ..known() }, None, stat(3, 6, 1), Verdict::Cut);
        let new = |looked: Option<Looked>, stat: Stat| judge(None, looked.as_ref(), &stat);
        let passed = Some(looked(now, false, Rest::PassedOver));
        assert_eq!(new(None, now), Verdict::New);
        assert_eq!(new(Some(looked(now, false, Rest::Unknown)), now), Verdict::New);
        assert_eq!(new(passed.clone(), now), Verdict::Idle);
        assert_eq!(new(passed, stat(11, 6, 1)), Verdict::New);
    }

    #[test]
    fn a_copy_has_a_time_that_was_set() {
        let whole = Known { offset: 10, ..Known::new(b"a", stat(10, 50_000_000, 40_000_000)) };
        let seen = Catalog { files: HashMap::from([(ID, whole)]), ..Catalog::default() };
        let former = Former::new(&seen);
        let check = |name: &str, size, changed, born, expected: usize| {
            let id = FileId { inode: 9, ..ID };
            let stat = Stat { id, born, size, changed };
            assert_eq!(former.originals(name.as_bytes(), &stat).len(), expected, "{name} {stat:?}");
        };
        check("a", 10, 50_000_000, Some(70_000_000), 1);
        check("a", 10, 50_000_000, Some(7_000_000), 1);
        check("a", 10, 50_000_000, None, 1);
        // Made and written within one step of the clock.
        check("a", 10, 50_000_000, Some(50_000_000), 0);
        check("a", 10, 50_000_000, Some(49_000_000), 0);
        check("b", 10, 50_000_000, None, 0);
        check("a", 11, 50_000_000, None, 0);
        check("a", 10, 50_000_001, None, 0);
    }

    #[test]
    fn a_place_that_another_file_took_is_forgotten_first() {
        let mut seen = Catalog { files: HashMap::from([(ID, known())]), ..Catalog::default() };
        let piece = Piece {
            name: b"b".to_vec(),
            stat: stat(4, 9, 7),
            from: 0,
            to: 4,
            what: Content::Records,
            print: None,
            more: false,
        };
        seen.apply(&Plan { gone: vec![ID], pieces: vec![piece], ..Plan::default() });
        assert_eq!((seen.files[&ID].offset, &seen.files[&ID].name[..]), (4, &b"b"[..]));
        seen.apply(&Plan { gone: vec![ID], ..Plan::default() });
        assert_eq!((seen.files.len(), seen.gone.len()), (0, 2));
    }

    #[test]
    fn a_file_that_comes_back_is_known() {
        let mut seen = Catalog { files: HashMap::from([(ID, known())]), ..Catalog::default() };
        seen.apply(&Plan { gone: vec![ID], ..Plan::default() });
        let former = Former::new(&seen);
        assert_eq!(former.back(&stat(12, 9, 1)), Some(&known()));
        assert_eq!(former.back(&stat(12, 9, 2)), None, "another birth");
        assert_eq!(former.back(&stat(7, 9, 1)), None, "it is shorter");
        seen.apply(&Plan { back: vec![ID], ..Plan::default() });
        assert_eq!((seen.files.get(&ID), seen.gone.len()), (Some(&known()), 0));
    }
}
