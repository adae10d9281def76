//! `IncrementalTable`: a hash table that never stops to rehash everything.
//!
//! ```text
//! hash ─▶ segment s of n (linear hashing) ─▶ small hash table of (hash, place) ─▶ chunks[place]
//! ```
//! One insertion splits at most one segment of a few thousand places, and entries never move: a place stays good until
//! its entry is removed. Iterated in the order of places. No threads; knows nothing of keys.

use hashbrown::HashTable;

/// Places in a chunk.
const CHUNK: usize = 4096;
/// Places for each segment, on average, beyond which one is split.
const SEGMENT: usize = 2048;

/// See the module.
#[derive(Clone, Debug)]
pub struct IncrementalTable<E> {
    chunks: Vec<Vec<Option<E>>>,
    /// Places that were given up.
    free: Vec<u32>,
    segments: Vec<HashTable<(u64, u32)>>,
    len: usize,
}

impl<E> Default for IncrementalTable<E> {
    fn default() -> Self {
        IncrementalTable {
            chunks: Vec::new(),
            free: Vec::new(),
            segments: vec![HashTable::new()],
            len: 0,
        }
    }
}

impl<E> IncrementalTable<E> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The table's memory, in bytes, without what entries own beside it: an estimate, at no cost.
    pub fn bytes(&self) -> usize {
        let indexed = 2 * size_of::<(u64, u32)>();
        self.places() as usize * (size_of::<Option<E>>() + indexed)
    }

    /// The place of the entry with this hash for which `same` holds.
    pub fn find(&self, hash: u64, same: impl Fn(&E) -> bool) -> Option<u32> {
        let found = self.segments[self.segment(hash)]
            .find(hash, |(other, place)| *other == hash && same(self.get(*place)));
        found.map(|(_, place)| *place)
    }

    /// The entry at a place.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, place: u32) -> &E {
        let (chunk, at) = split(place);
        self.chunks[chunk][at].as_ref().expect("a place is good until its entry is removed")
    }

    /// The entry at a place.
    ///
    /// # Panics
    /// If there is none.
    pub fn get_mut(&mut self, place: u32) -> &mut E {
        let (chunk, at) = split(place);
        self.chunks[chunk][at].as_mut().expect("a place is good until its entry is removed")
    }

    /// Adds an entry that is not there yet and returns its place.
    ///
    /// # Panics
    /// At 2^32 entries.
    pub fn insert(&mut self, hash: u64, entry: E) -> u32 {
        let place = match self.free.pop() {
            Some(place) => {
                let (chunk, at) = split(place);
                self.chunks[chunk][at] = Some(entry);
                place
            }
            None => self.push(entry),
        };
        self.len += 1;
        if self.len > self.segments.len() * SEGMENT {
            self.split_one();
        }
        let segment = self.segment(hash);
        self.segments[segment].insert_unique(hash, (hash, place), |(hash, _)| *hash);
        place
    }

    /// Takes the entry at a place out.
    ///
    /// # Panics
    /// If there is none with that hash.
    pub fn remove(&mut self, hash: u64, place: u32) -> E {
        let segment = self.segment(hash);
        let found = self.segments[segment].find_entry(hash, |(_, other)| *other == place);
        found.expect("an entry is removed by its own hash").remove();
        let (chunk, at) = split(place);
        self.free.push(place);
        self.len -= 1;
        self.chunks[chunk][at].take().expect("an indexed place has an entry")
    }

    /// The entries in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &E)> {
        let all = self.chunks.iter().flatten().zip(0..);
        all.filter_map(|(entry, place)| entry.as_ref().map(|entry| (place, entry)))
    }

    /// The entries in a range of places, in their order; its cost follows the range.
    pub fn between(&self, places: std::ops::Range<u32>) -> impl Iterator<Item = (u32, &E)> {
        let end = places.end.min(self.places());
        let at = |place: u32| {
            let (chunk, at) = split(place);
            self.chunks[chunk][at].as_ref().map(|entry| (place, entry))
        };
        (places.start..end).filter_map(at)
    }

    /// One more than the highest place that an entry ever had.
    pub fn places(&self) -> u32 {
        let Some(last) = self.chunks.last() else { return 0 };
        let places = (self.chunks.len() - 1) * CHUNK + last.len();
        u32::try_from(places).expect("a table holds fewer than 2^32 entries")
    }

    fn push(&mut self, entry: E) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first chunk grows as it is filled: most tables are small.
            let capacity = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let last = self.chunks.last_mut().expect("there is a chunk");
        last.push(Some(entry));
        u32::try_from(full + last.len() - 1).expect("a table holds fewer than 2^32 entries")
    }

    /// Bits that neither the hash partition (the middle) nor a segment's table (the lowest, the topmost) depends on much.
    fn segment(&self, hash: u64) -> usize {
        let bits = usize::try_from((hash >> 20) & 0xFF_FFFF).expect("24 bits");
        let mask = self.segments.len().next_power_of_two() - 1;
        let segment = bits & mask;
        if segment < self.segments.len() { segment } else { segment & (mask >> 1) }
    }

    /// Adds a segment and moves to it what belongs there; all of it was in one other segment.
    fn split_one(&mut self) {
        let new = self.segments.len();
        let old = new - (1 << new.ilog2());
        self.segments.push(HashTable::new());
        let places = std::mem::take(&mut self.segments[old]);
        for (hash, place) in places {
            let segment = self.segment(hash);
            self.segments[segment].insert_unique(hash, (hash, place), |(hash, _)| *hash);
        }
    }
}

fn split(place: u32) -> (usize, usize) {
    (place as usize / CHUNK, place as usize % CHUNK)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::exec::shuffle::hash_of;

    fn check(growing: &IncrementalTable<u32>, model: &BTreeMap<u32, u32>) {
        assert_eq!(growing.len(), model.len());
        let mut all: Vec<u32> = growing.iter().map(|(_, key)| *key).collect();
        all.sort_unstable();
        assert!(all.iter().eq(model.keys()));
        let places = growing.places();
        for cut in [0, places / 2, places] {
            let parts = growing.between(0..cut).chain(growing.between(cut..u32::MAX));
            assert!(parts.map(|(place, _)| place).eq(growing.iter().map(|(place, _)| place)));
        }
    }

    #[test]
    fn places_stay_while_the_table_grows() {
        let (mut growing, mut model) = (IncrementalTable::default(), BTreeMap::new());
        for key in 0..50_000_u32 {
            model.insert(key, growing.insert(hash_of(1, &key), key));
        }
        check(&growing, &model);
        assert!(growing.segments.len() > 20, "it was split many times");
        let longest = growing.segments.iter().map(HashTable::len).max().unwrap();
        assert!(longest < 3 * SEGMENT, "{longest}");
        for (key, place) in &model {
            assert_eq!(growing.find(hash_of(1, key), |other| other == key), Some(*place));
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..60), 0..300), clash: bool) {
            let (mut growing, mut model) = (IncrementalTable::default(), BTreeMap::new());
            let hash = |key: &u32| if clash { u64::from(key % 3) } else { hash_of(3, key) };
            for (add, key) in steps {
                let found = growing.find(hash(&key), |other| *other == key);
                prop_assert_eq!(found, model.get(&key).copied());
                match found {
                    None if add => drop(model.insert(key, growing.insert(hash(&key), key))),
                    Some(place) if !add => {
                        prop_assert_eq!(growing.remove(hash(&key), place), key);
                        model.remove(&key);
                    }
                    _ => {}
                }
                check(&growing, &model);
            }
        }
    }
}
