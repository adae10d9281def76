//! The files of a directory that stay open from look to look, so that one which is moved away or removed is read to its end.
//!
//! ```text
//!  listed, among the newest ─▶ open ─▶ away: no name in the directory ─▶ read to its end and still for 60 s ─▶ closed
//! ```
//! Runs on the job loop. It does not know the read positions.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use super::listing::{FileId, FileTree, OpenFile, Stat};
use crate::sync::Arc;
use crate::time::Moment;

/// A file that is away is closed when it was read to its end and has not changed for this long.
pub(super) const STILL: Duration = Duration::from_secs(60);

/// A file with a name, as a look found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
}

/// An open file that has no name in the directory any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Away {
    /// The last name it had there.
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    /// It has not changed for [`STILL`].
    pub(super) is_still: bool,
}

/// See the module.
pub(super) struct OpenFiles {
    /// The most open files.
    max: usize,
    slots: HashMap<FileId, Slot>,
}

struct Slot {
    file: Arc<dyn OpenFile>,
    name: Vec<u8>,
    stat: Stat,
    /// Since when it is away and has not changed.
    away: Option<Moment>,
    is_removed: bool,
}

impl OpenFiles {
    pub(super) fn new(max: usize) -> Self {
        OpenFiles { max, slots: HashMap::new() }
    }

    pub(super) fn get(&self, id: FileId) -> Option<&Arc<dyn OpenFile>> {
        self.slots.get(&id).map(|slot| &slot.file)
    }

    pub(super) fn close(&mut self, id: FileId) {
        self.slots.remove(&id);
    }

    /// Updates the open files from a listing, where `listed` finds a file by its place, and returns those that are away.
    pub(super) fn refresh<'a>(
        &mut self,
        listed: impl Fn(FileId) -> Option<&'a Listed>,
        now: Moment,
    ) -> Vec<Away> {
        let mut all = Vec::new();
        self.slots.retain(|id, slot| {
            if let Some(listed) = listed(*id) {
                slot.name.clone_from(&listed.name);
                (slot.stat, slot.away, slot.is_removed) = (listed.stat, None, false);
                return true;
            }
            let (Ok(stat), Ok(is_removed)) = (slot.file.stat(), slot.file.is_removed()) else {
                return false;
            };
            let since = slot.away.filter(|_| slot.stat == stat).unwrap_or(now);
            (slot.stat, slot.away, slot.is_removed) = (stat, Some(since), is_removed);
            let is_still = now.since(since) >= STILL;
            all.push(Away { name: slot.name.clone(), stat, is_still });
            true
        });
        all.sort_by(|a, b| (a.stat.changed, &a.name).cmp(&(b.stat.changed, &b.name)));
        all
    }

    /// Leaves the newest of `wanted` open, and those that are away: the newest of them if they are too many, first of all
    /// those that were not read to their end. Opens what is not open.
    pub(super) fn keep(
        &mut self,
        wanted: &[&Listed],
        is_read: impl Fn(FileId, &Stat) -> bool,
        tree: &dyn FileTree,
    ) {
        let mut away: Vec<(FileId, (bool, u64))> = Vec::new();
        for (id, slot) in self.slots.iter().filter(|(_, slot)| slot.away.is_some()) {
            away.push((*id, (!is_read(*id, &slot.stat), slot.stat.changed)));
        }
        away.sort_by_key(|(id, newest)| (std::cmp::Reverse(*newest), *id));
        let room = self.max.saturating_sub(away.len());
        let newest = newest(wanted, room);
        let kept: HashSet<FileId> = away
            .iter()
            .take(self.max)
            .map(|(id, _)| *id)
            .chain(newest.iter().map(|listed| listed.stat.id))
            .collect();
        self.slots.retain(|id, _| kept.contains(id));
        for Listed { name, stat } in newest {
            if self.slots.contains_key(&stat.id) {
                continue;
            }
            // A failure to open is reported when the file is read.
            if let Ok(file) = open(tree, name, stat) {
                let (name, stat) = (name.clone(), *stat);
                let slot = Slot { file, name, stat, away: None, is_removed: false };
                self.slots.insert(stat.id, slot);
            }
        }
    }

    /// The files that nobody else could open any more, as they are now, with the last names they had; the oldest first.
    pub(super) fn removed(&self) -> Vec<(Vec<u8>, Stat)> {
        let is_removed = |slot: &&Slot| slot.file.is_removed().unwrap_or(false);
        let found = |slot: &Slot| Some((slot.name.clone(), slot.file.stat().ok()?));
        let mut all: Vec<_> = self.slots.values().filter(is_removed).filter_map(found).collect();
        all.sort_by(|a, b| (a.1.changed, &a.0).cmp(&(b.1.changed, &b.0)));
        all
    }

    /// Bytes of the files that nobody else could open any more.
    pub(super) fn removed_bytes(&self) -> u64 {
        self.slots.values().filter(|slot| slot.is_removed).map(|slot| slot.stat.size).sum()
    }

    #[cfg(test)]
    pub(super) fn ids(&self) -> impl Iterator<Item = FileId> {
        self.slots.keys().copied()
    }
}

/// The newest of these, as many as there is room for.
fn newest<'a>(wanted: &[&'a Listed], room: usize) -> Vec<&'a Listed> {
    let mut wanted = wanted.to_vec();
    let by_age = |listed: &&Listed| (std::cmp::Reverse(listed.stat.changed), listed.stat.id);
    if room == 0 {
        wanted.clear();
    } else if wanted.len() > room {
        wanted.select_nth_unstable_by_key(room - 1, by_age);
        wanted.truncate(room);
    }
    wanted
}

/// Opens a file by name, if it is still the one that was listed.
pub(super) fn open(tree: &dyn FileTree, name: &[u8], stat: &Stat) -> io::Result<Arc<dyn OpenFile>> {
    let file = tree.open(name)?;
    if !file.stat()?.may_be(stat) {
        let text = "another file took its name; it is read at the next tick";
        return Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, text));
    }
    Ok(file)
}

/// True if the open failed because the file was moved or removed since the listing: the next listing shows its place.
pub(super) fn went(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle)
}
