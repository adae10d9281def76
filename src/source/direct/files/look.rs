//! One look at the directory: it finds files with more to read, files that went, and notes for the operator. Runs on the job
//! loop.
//!
//! ```text
//!  entries ─▶ listed: one name for each file ─▶ judge ─▶ new | the same, by its fingerprint | another one ─▶ readable
//!  open files without a name ───────────────────▲
//! ```
//! Bytes of a file are read only if it is new or has changed since the last look.

use std::collections::{HashMap, HashSet};
use std::io;

use super::catalog::{Catalog, Former, Known, Looked, Rest, Verdict, judge};
use super::fingerprint;
use super::listing::{Entry, FileId, FileTree, OpenFile, Stat, What, is_left_by_removal};
use super::notes::Notes;
use super::open::{Away, Listed, OpenFiles, open, went};
use super::select::{PassedOver, Select};
use super::shown;
use crate::sync::Arc;
use crate::sync::planted::{Planted, planted};
use crate::time::Moment;
use crate::wording::{by_number, count};

/// A file with bytes that were not read.
pub(super) struct Readable {
    pub(super) known: Known,
    /// The open file, if it was opened already.
    pub(super) file: Option<Arc<dyn OpenFile>>,
    /// It grows no more: its end completes its last record.
    pub(super) ends: bool,
}

/// The result of a look.
#[derive(Default)]
pub(super) struct Found {
    /// The oldest first.
    pub(super) readable: Vec<Readable>,
    pub(super) gone: Vec<FileId>,
    pub(super) back: Vec<FileId>,
    /// Bytes of files that went, or are others now, and were never taken.
    pub(super) lost_bytes: u64,
}

/// A look, and the parts that it uses.
pub(super) struct Look<'a> {
    pub(super) tree: &'a dyn FileTree,
    pub(super) select: &'a Select,
    pub(super) follow_links: bool,
    pub(super) seen: &'a Catalog,
    pub(super) looked: &'a mut HashMap<FileId, Looked>,
    pub(super) open: &'a mut OpenFiles,
    pub(super) notes: &'a mut Notes,
    /// In a run to the end of the files: those present at the start, and how long they were.
    pub(super) present: Option<&'a HashMap<FileId, u64>>,
    /// Files whose losses the start has reported.
    pub(super) told: &'a HashSet<FileId>,
    pub(super) now: Moment,
    pub(super) former: Option<Former<'a>>,
    pub(super) found: Found,
}

/// The result of a listing: one name for each file.
#[derive(Default)]
struct Listing {
    files: Vec<Name>,
    by_id: HashMap<FileId, usize>,
    /// Names that could not be looked at.
    unreadable: HashSet<Vec<u8>>,
}

struct Name {
    listed: Listed,
    is_link: bool,
    /// A new file of this name is read.
    is_selected: bool,
}

impl Name {
    /// The name that is shown is a selected one before others, and a file's before a link's.
    fn rank(&self) -> (bool, bool) {
        (!self.is_selected, self.is_link)
    }
}

/// A file that is looked at.
struct Candidate {
    name: Vec<u8>,
    stat: Stat,
    /// If it is new it is read.
    is_selected: bool,
    /// It is open, has no name any more and is still.
    ends: bool,
    /// It went before.
    is_back: bool,
}

impl<'a> Look<'a> {
    /// Looks at everything.
    pub(super) fn take(mut self, entries: &[Entry]) -> Found {
        let listing = self.list(entries);
        let listed = |id| listing.by_id.get(&id).map(|at| &listing.files[*at].listed);
        let away = self.open.refresh(listed, self.now);
        self.keep_open(&listing);
        for Name { listed, is_selected, .. } in &listing.files {
            let Listed { name, stat } = listed.clone();
            let (is_selected, ends, is_back) = (*is_selected, false, false);
            self.look_at(Candidate { name, stat, is_selected, ends, is_back });
        }
        for away in away {
            let Away { name, stat, is_still: ends } = away;
            if self.open.get(stat.id).is_none() {
                continue;
            }
            let (is_selected, is_back) = (true, false);
            self.look_at(Candidate { name, stat, is_selected, ends, is_back });
            if ends && self.is_read(&stat) {
                self.open.close(stat.id);
            }
        }
        self.find_gone(&listing);
        let Found { readable, gone, .. } = &mut self.found;
        gone.sort_unstable();
        let age = |one: &Readable| (one.known.stat.changed, one.known.name.clone());
        readable.sort_by_cached_key(age);
        self.found
    }

    /// Looks at the removed files that are open, at a stop: nobody reads them later, so they grow no more.
    pub(super) fn take_removed(mut self) -> Found {
        for (name, stat) in self.open.removed() {
            let (is_selected, ends, is_back) = (true, true, false);
            self.look_at(Candidate { name, stat, is_selected, ends, is_back });
        }
        self.found
    }

    /// Bytes of open removed files that were not taken.
    pub(super) fn removed_unread(&self) -> u64 {
        let unread = |(_, mut stat): (Vec<u8>, Stat)| {
            self.limit(&mut stat);
            match self.seen.files.get(&stat.id) {
                Some(known) => known.unread(stat.size),
                None if self.rest(stat.id) == Rest::PassedOver => 0,
                None => stat.size,
            }
        };
        self.open.removed().into_iter().map(unread).sum()
    }

    /// Cuts a file to the part that the run reads.
    fn limit(&self, stat: &mut Stat) {
        if let Some(present) = self.present {
            stat.size = stat.size.min(present.get(&stat.id).copied().unwrap_or(0));
        }
    }

    fn list(&mut self, entries: &[Entry]) -> Listing {
        let mut listing = Listing::default();
        for entry in entries.iter().filter(|entry| !is_left_by_removal(&entry.name)) {
            let is_asked = || self.select.passes_over(&entry.name) == Some(PassedOver::Asked);
            match &entry.what {
                What::File(_) | What::Unreadable(_) if entry.is_link && !self.follow_links => {
                    self.notes.once(&entry.name, "it is a link (`follow_links = false`)");
                }
                What::Unreadable(why) => {
                    listing.unreadable.insert(entry.name.clone());
                    if !is_asked() {
                        self.notes.once(&entry.name, why);
                    }
                }
                What::Other if is_asked() => {}
                What::Other => self.notes.once(&entry.name, "it is no regular file"),
                What::File(stat) => {
                    let name = self.name(entry, *stat);
                    self.add(&mut listing, name);
                }
            }
        }
        listing
    }

    fn name(&mut self, entry: &Entry, stat: Stat) -> Name {
        let passed_over = self.select.passes_over(&entry.name);
        let is_known = self.seen.files.contains_key(&stat.id) || self.notes.knows(&entry.name);
        if let Some(PassedOver::Because(why)) = passed_over.as_ref().filter(|_| !is_known) {
            self.notes.once(&entry.name, why);
        }
        let listed = Listed { name: entry.name.clone(), stat };
        Name { listed, is_link: entry.is_link, is_selected: passed_over.is_none() }
    }

    /// Adds a name, unless its file has a better one.
    fn add(&mut self, listing: &mut Listing, mut name: Name) {
        let id = name.listed.stat.id;
        let at = listing.by_id.get(&id).filter(|_| !planted(Planted::LinkIsReadTwice));
        let Some(other) = at.and_then(|at| listing.files.get_mut(*at)) else {
            listing.by_id.insert(id, listing.files.len());
            listing.files.push(name);
            return;
        };
        if name.rank() < other.rank() {
            std::mem::swap(&mut name, other);
        }
        if name.is_selected {
            let why = format!("it is the file `{}`, which is read once", shown(&other.listed.name));
            self.notes.once(&name.listed.name, why);
        }
    }

    /// Keeps the newest files open that are or will be read.
    fn keep_open(&mut self, listing: &Listing) {
        let is_passed = |id| self.rest(id) == Rest::PassedOver;
        let wanted = listing.files.iter().filter(|name| {
            let id = name.listed.stat.id;
            let is_present = self.present.is_none_or(|present| present.contains_key(&id));
            let is_known = self.seen.files.contains_key(&id);
            is_present && (is_known || (name.is_selected && !is_passed(id)))
        });
        let wanted: Vec<&Listed> = wanted.map(|name| &name.listed).collect();
        let is_read = |id, stat: &Stat| {
            self.seen.files.get(&id).map_or(stat.size, |known| known.unread(stat.size)) == 0
        };
        self.open.keep(&wanted, is_read, self.tree);
    }

    /// True if nothing of a file is left to read.
    fn is_read(&self, stat: &Stat) -> bool {
        match self.seen.files.get(&stat.id) {
            Some(known) => known.unread(stat.size) == 0,
            None => stat.size == 0 || self.rest(stat.id) == Rest::PassedOver,
        }
    }

    fn rest(&self, id: FileId) -> Rest {
        self.looked.get(&id).map_or(Rest::Unknown, |looked| looked.rest)
    }

    fn look_at(&mut self, mut candidate: Candidate) {
        let id = candidate.stat.id;
        if let Some(present) = self.present {
            let Some(size) = present.get(&id) else { return };
            candidate.stat.size = candidate.stat.size.min(*size);
        }
        let mut known = self.seen.files.get(&id);
        if known.is_none() && self.verdict(None, &candidate) == Verdict::New {
            known = self.former().back(&candidate.stat);
            candidate.is_back = known.is_some();
        }
        match (self.verdict(known, &candidate), known) {
            (Verdict::New, _) | (_, None) if !candidate.is_selected => {}
            (Verdict::New, _) => self.take_new(candidate),
            (Verdict::Idle, None) if candidate.ends && self.rest(id) == Rest::Unfinished => {
                self.take_new(candidate);
            }
            (Verdict::Idle, Some(known))
                if candidate.ends && known.unread(candidate.stat.size) > 0 =>
            {
                self.read_on(known, candidate, None);
            }
            (Verdict::Idle, _) | (_, None) => {}
            (Verdict::Same, Some(known)) => self.read_on(known, candidate, None),
            (Verdict::Unsure, Some(known)) => self.compare(known, candidate),
            (Verdict::Replaced | Verdict::Cut, Some(known)) => self.replaced(known, candidate),
        }
    }

    fn verdict(&self, known: Option<&Known>, candidate: &Candidate) -> Verdict {
        judge(known, self.looked.get(&candidate.stat.id), &candidate.stat)
    }

    fn former(&mut self) -> &Former<'a> {
        let seen = self.seen;
        self.former.get_or_insert_with(|| Former::new(seen))
    }

    fn look(&mut self, candidate: &Candidate, is_same: bool, rest: Rest) {
        let (name, stat) = (candidate.name.clone(), candidate.stat);
        self.looked.insert(stat.id, Looked { name, stat, is_same, rest });
    }

    /// A file of which nothing was read.
    fn take_new(&mut self, candidate: Candidate) {
        let had = self.looked.get(&candidate.stat.id).filter(|had| had.rest != Rest::PassedOver);
        self.shrunk(&candidate, had.map_or(0, |had| had.stat.size));
        if candidate.stat.size == 0 {
            self.looked.remove(&candidate.stat.id);
            return;
        }
        match self.is_copy(&candidate) {
            Ok(false) => {
                if self.verdict(None, &candidate) == Verdict::New {
                    self.look(&candidate, false, Rest::Unknown);
                }
                let Candidate { name, stat, ends, .. } = candidate;
                let known = Known::new(&name, stat);
                self.found.readable.push(Readable { known, file: None, ends });
            }
            Ok(true) => {
                let why = "one of this name, size and time was read before";
                self.notes.once(&candidate.name, why);
                self.look(&candidate, false, Rest::PassedOver);
            }
            Err(err) => self.cannot_read(&candidate.name, &err),
        }
    }

    fn is_copy(&mut self, candidate: &Candidate) -> io::Result<bool> {
        let originals = self.former().originals(&candidate.name, &candidate.stat);
        if originals.is_empty() {
            return Ok(false);
        }
        let file = self.file(candidate)?;
        let own = fingerprint::of(file.as_ref(), candidate.stat.size)?;
        Ok(originals.iter().any(|original| original.is_none() || *original == own))
    }

    fn file(&self, candidate: &Candidate) -> io::Result<Arc<dyn OpenFile>> {
        match self.open.get(candidate.stat.id) {
            Some(file) => Ok(Arc::clone(file)),
            None => open(self.tree, &candidate.name, &candidate.stat),
        }
    }

    fn cannot_read(&mut self, name: &[u8], err: &io::Error) {
        if !went(err) {
            self.notes.once(name, format!("it cannot be read: {err}"));
        }
    }

    /// A file that was read, may have more, and may be another one.
    fn compare(&mut self, known: &Known, candidate: Candidate) {
        let compared = self.file(&candidate).and_then(|file| {
            let is_same = is_same(known, file.as_ref())?;
            Ok((file, is_same))
        });
        let (file, is_same) = match compared {
            Ok(compared) => compared,
            Err(err) => return self.cannot_read(&candidate.name, &err),
        };
        if !is_same {
            return self.replaced(known, candidate);
        }
        let (stat, had) = (candidate.stat, self.seen_size(known));
        if known.unread(had) > 0 && !candidate.is_back {
            self.shrunk(&candidate, had);
        }
        self.look(&candidate, true, Rest::Unknown);
        if candidate.is_back {
            self.found.back.push(stat.id);
        }
        if known.unread(stat.size) > 0 {
            self.read_on(known, candidate, Some(file));
        } else if stat.changed != known.stat.changed && stat.size == known.stat.size {
            self.notes.once(&candidate.name, "it was changed and did not grow: not read again");
        }
    }

    /// Reports the lost end of a file that was longer, and whose end was never read.
    fn shrunk(&mut self, candidate: &Candidate, had: u64) {
        let size = candidate.stat.size;
        if let Some(lost) = had.checked_sub(size).filter(|lost| *lost > 0) {
            let why = format!("it was cut to {}: {}", count(size, "byte"), lost_text(lost));
            self.lose(&candidate.name, lost, why);
        }
    }

    /// The size of a file at the last look.
    fn seen_size(&self, known: &Known) -> u64 {
        let looked = self.looked.get(&known.stat.id).map(|looked| looked.stat.size);
        looked.unwrap_or(known.stat.size)
    }

    fn lose(&mut self, name: &[u8], bytes: u64, why: String) {
        self.found.lost_bytes += bytes;
        self.notes.event(name, why);
    }

    fn read_on(&mut self, known: &Known, candidate: Candidate, file: Option<Arc<dyn OpenFile>>) {
        let Candidate { name, stat, ends, .. } = candidate;
        let known = Known { name, stat, ..known.clone() };
        self.found.readable.push(Readable { known, file, ends });
    }

    /// Another file has the place of one that was read.
    fn replaced(&mut self, known: &Known, candidate: Candidate) {
        let (id, size, offset) = (candidate.stat.id, candidate.stat.size, known.offset);
        if !candidate.is_back {
            let had = self.seen_size(known);
            let lost = if self.told.contains(&id) { 0 } else { known.unread(had) };
            let how = match size < offset {
                true => {
                    let were = by_number(offset, "was", "were");
                    format!("it was cut to {} after {offset} {were} read", count(size, "byte"))
                }
                false => format!(
                    "it is another file, or was cut and has grown again, since {} {} read",
                    count(offset, "byte"),
                    by_number(offset, "was", "were")
                ),
            };
            let and = match lost {
                0 => String::new(),
                lost => format!("; {}", lost_text(lost)),
            };
            self.lose(&candidate.name, lost, format!("{how}: read from its start{and}"));
            self.found.gone.push(id);
        }
        self.looked.remove(&id);
        if candidate.is_selected {
            self.take_new(candidate);
        }
    }

    /// Files that are neither listed nor open any more.
    fn find_gone(&mut self, listing: &Listing) {
        let is_here = |id: &FileId, name: &[u8], open: &OpenFiles| {
            let listed = listing.by_id.contains_key(id) || listing.unreadable.contains(name);
            listed || open.get(*id).is_some()
        };
        let mut lost: Vec<(Vec<u8>, u64)> = Vec::new();
        for (id, known) in &self.seen.files {
            if !is_here(id, &known.name, self.open) {
                self.found.gone.push(*id);
                if !self.told.contains(id) {
                    lost.push((known.name.clone(), known.unread(self.seen_size(known))));
                }
            }
        }
        self.looked.retain(|id, looked| {
            let stays = is_here(id, &looked.name, self.open);
            let is_new = !self.seen.files.contains_key(id) && looked.rest != Rest::PassedOver;
            if !stays && is_new {
                lost.push((looked.name.clone(), looked.stat.size));
            }
            stays
        });
        for (name, bytes) in lost.into_iter().filter(|(_, bytes)| *bytes > 0) {
            self.lose(&name, bytes, format!("it is gone with {} unread", count(bytes, "byte")));
        }
    }
}

/// True if a file is the one that was read.
fn is_same(known: &Known, file: &dyn OpenFile) -> io::Result<bool> {
    let Some(print) = known.print.filter(|_| !planted(Planted::IdentityIsInode)) else {
        return Ok(true);
    };
    Ok(fingerprint::of(file, known.offset)? == Some(print))
}

/// The note on bytes that went before they were read.
fn lost_text(bytes: u64) -> String {
    let are = by_number(bytes, "was not read is", "were not read are");
    format!("{} that {are} lost", count(bytes, "byte"))
}
