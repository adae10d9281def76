//! How a change gets into a `KeyTable`: one function for a commit, which has the changes of a batch by place, and for a
//! restore, which reads them by key. Runs on the workers, and on the thread that restores. Knows no bytes.

use super::entry::{Entry, Touch};
use crate::stream::state::key_table::{KeyTable, KeyTableDelta, NONE, NewKey};
use crate::stream::state::shard::Change;
use crate::stream::state::spec::{StateKey, StateValue};

/// The place of a changed key in its table.
#[derive(Clone, Copy)]
enum Found {
    At(u32),
    /// The table has no such key; this is its hash.
    New(u64),
}

/// The change of one key.
enum KeyChange<K, S> {
    Removed,
    /// The state is as it was.
    Touched(Touch),
    Set((K, S), Touch),
}

impl<K: StateKey, S: StateValue, U> KeyTable<K, S, U> {
    /// Applies the changes of a committed batch.
    pub(in crate::stream::state) fn commit(&mut self, delta: KeyTableDelta<K, S, U>) {
        let KeyTableDelta { overlay, time, turns, .. } = delta;
        // The list takes the keys in the order of their turns, whatever their places: places change at a restart.
        let mut by_turn = vec![NONE; if self.listed { turns as usize } else { 0 }];
        let mut list = |turn: u32, place: Option<u32>| {
            if let (Some(next), Some(place)) = (by_turn.get_mut(turn as usize), place) {
                *next = place;
            }
        };
        for (place, change, turn) in overlay.changed {
            let touch = Touch { last: time, turn };
            let change = match change {
                Change::Removed => KeyChange::Removed,
                Change::Same => KeyChange::Touched(touch),
                Change::Row(row) => KeyChange::Set(row, touch),
            };
            list(turn, self.apply_change(Found::At(place), change));
        }
        for (hash, row, turn) in overlay.added {
            let change = KeyChange::Set(row, Touch { last: time, turn });
            list(turn, self.apply_change(Found::New(hash), change));
        }
        let touched = by_turn.into_iter().filter(|place| *place != NONE);
        touched.for_each(|place| self.link(place));
    }

    /// Applies the change of a key that the log has. The table is not listed yet: the order by age is made of all keys, once
    /// they are there.
    pub(super) fn restore(&mut self, hash: u64, entry: Entry<K, S>) {
        let found = self.find(hash, entry.key()).map_or(Found::New(hash), Found::At);
        let change = match entry {
            Entry::Removed(_) => KeyChange::Removed,
            Entry::Touched(_, touch) => KeyChange::Touched(touch),
            Entry::Set(key, state, touch) => KeyChange::Set((key, state), touch),
        };
        self.apply_change(found, change);
    }

    /// Applies the change of one key and takes the key out of the list. Returns its place if it has a state afterwards.
    fn apply_change(&mut self, found: Found, change: KeyChange<K, S>) -> Option<u32> {
        match (found, change) {
            (Found::At(place), KeyChange::Removed) => {
                self.unlink(place);
                let hash = self.table.get(place).hash;
                self.table.remove(hash, place);
                None
            }
            (Found::At(place), KeyChange::Touched(touch)) => {
                self.unlink(place);
                self.table.get_mut(place).extra.touch = touch;
                Some(place)
            }
            (Found::At(place), KeyChange::Set(row, touch)) => {
                self.unlink(place);
                let slot = self.table.get_mut(place);
                (slot.row, slot.extra.touch) = (row, touch);
                Some(place)
            }
            (Found::New(hash), KeyChange::Set(row, touch)) => {
                Some(self.insert(NewKey { hash, row }, touch))
            }
            // Changes that are read from the beginning of a compaction on: a later slice has the key, if it is known by then.
            (Found::New(_), KeyChange::Removed | KeyChange::Touched(_)) => None,
        }
    }
}
