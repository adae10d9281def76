//! `Table`: keys and what was aggregated for them, in the order in which the keys were first seen.
//!
//! The entries lie in one vector and a hash table holds their positions, so that merging and reading go in a fixed
//! order, whatever the hash. Looked up by borrowed key; the key is copied on first insertion only. No threads.
//!
//! ```text
//! entries: [ k0 k1 k2 .. kn | k7 kn+1 k2 .. ]      behind the bar: loose, not looked up and not in the index yet
//! ```
//! In a large table whose keys hardly come twice, looking each up costs a wait for memory and finds nothing. There entries
//! are [appended](Table::append) loose, and settled when the table is merged, where each is looked up anyway.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;

/// The hash that decides a key's partition and its place.
pub fn hash_of<Q: Hash + ?Sized>(seed: u64, key: &Q) -> u64 {
    FixedState::with_seed(seed).hash_one(key)
}

/// The hash partition, of `shards`, that a hash belongs to.
///
/// It takes the middle bits: the table's index takes the low ones and its tags the topmost.
pub fn shard_of(hash: u64, shards: usize) -> usize {
    let middle = (hash >> 16) & 0xFFFF_FFFF;
    usize::try_from((middle * shards as u64) >> 32).expect("it is less than `shards`")
}

/// A table with this many keys is too large for a core's own caches.
const LARGE: usize = 16_384;

/// The most loose entries for each settled one; beyond that the share of new keys among them is measured again.
const LOOSE_MAX: usize = 4;

/// A key in its borrowed form, with its hash.
#[derive(Debug)]
pub struct Hashed<'a, Q: ?Sized> {
    /// The key's hash.
    pub hash: u64,
    /// The key.
    pub key: &'a Q,
}

/// A key with its aggregate.
#[derive(Debug)]
pub struct Entry<K, C> {
    /// The key's hash.
    pub hash: u64,
    /// The key.
    pub key: K,
    /// Its aggregate.
    pub value: C,
}

/// An insertion-ordered hash table.
#[derive(Debug)]
pub struct Table<K, C> {
    entries: Vec<Entry<K, C>>,
    /// The places of the settled entries.
    index: HashTable<u32>,
    /// Updates of known keys since the last clear, while entries are not loose.
    hits: usize,
    /// True while new entries are loose.
    loose: bool,
    /// The most keys there were since the last [`clear`](Table::clear).
    used: usize,
}

impl<K, C> Default for Table<K, C> {
    fn default() -> Self {
        Table { entries: Vec::new(), index: HashTable::new(), hits: 0, loose: false, used: 0 }
    }
}

impl<K, C> Table<K, C> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The table's memory, in bytes, without what keys and aggregates own beside it.
    pub fn bytes(&self) -> usize {
        size_of::<Entry<K, C>>() * self.entries.capacity() + self.index.allocation_size()
    }

    /// Forgets everything, keeping the memory unless less than an eighth of it was needed since the last time.
    pub fn clear(&mut self) {
        let used = std::mem::take(&mut self.used).max(self.entries.len());
        (self.hits, self.loose) = (0, false);
        if used < self.entries.capacity() / 8 {
            let half = self.entries.capacity() / 2;
            self.entries.clear();
            self.entries.shrink_to(half);
            self.index = HashTable::with_capacity(half);
        } else {
            self.entries.clear();
            self.index.clear();
        }
    }

    /// Takes all entries out, in the order of first insertion.
    pub fn drain(&mut self) -> impl Iterator<Item = Entry<K, C>> {
        self.used = self.used.max(self.entries.len());
        self.index.clear();
        (self.hits, self.loose) = (0, false);
        self.entries.drain(..)
    }

    /// Like [`upsert`](Table::upsert), but where keys hardly come twice the entry may stay loose until the table is
    /// merged; `merge` joins the aggregates of one key. Not to be mixed with [`upsert`](Table::upsert).
    #[inline]
    pub fn append<Q>(
        &mut self,
        found: Hashed<'_, Q>,
        own: impl FnOnce(&Q) -> K,
        create: impl FnOnce() -> C,
        update: impl FnOnce(&mut C),
        merge: &impl Fn(&mut C, C),
    ) where
        K: Borrow<Q> + Eq,
        Q: Eq + ?Sized,
    {
        if !self.loose {
            let known = self.entries.len();
            self.upsert(found, own, create, update);
            if self.entries.len() == known {
                self.hits += 1;
            } else if known >= LARGE && known.is_power_of_two() {
                // More than half of what came were new keys.
                self.loose = self.hits < known;
            }
            return;
        }
        self.entries.push(Entry { hash: found.hash, key: own(found.key), value: create() });
        if self.entries.len() > self.index.len() * (1 + LOOSE_MAX) {
            self.settle_and_see(merge);
        }
    }

    #[cold]
    #[inline(never)]
    fn settle_and_see(&mut self, merge: &impl Fn(&mut C, C))
    where
        K: Eq,
    {
        let (known, loose) = (self.index.len(), self.entries.len() - self.index.len());
        self.settle(merge);
        self.loose = (self.index.len() - known) * 2 > loose;
        self.hits = 0;
    }

    /// Looks up the loose entries: the aggregates of equal keys are merged.
    pub fn settle(&mut self, merge: &impl Fn(&mut C, C))
    where
        K: Eq,
    {
        self.used = self.used.max(self.entries.len());
        if self.entries.len() > self.index.len() {
            let loose = self.entries.split_off(self.index.len());
            loose.into_iter().for_each(|entry| self.take(entry, merge));
        }
    }

    /// The entries, in the order of first insertion.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<K, C>> {
        self.entries.iter()
    }

    /// Updates the aggregate of a key, or makes the first one.
    ///
    /// # Panics
    /// At 2^32 keys.
    pub fn upsert<Q>(
        &mut self,
        found: Hashed<'_, Q>,
        own: impl FnOnce(&Q) -> K,
        create: impl FnOnce() -> C,
        update: impl FnOnce(&mut C),
    ) where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let (Hashed { hash, key }, entries) = (found, &mut self.entries);
        let same = |&at: &u32| {
            entries[at as usize].hash == hash && entries[at as usize].key.borrow() == key
        };
        match self.index.find(hash, same) {
            Some(&at) => update(&mut entries[at as usize].value),
            None => {
                let at = next_position(entries);
                entries.push(Entry { hash, key: own(key), value: create() });
                self.index.insert_unique(hash, at, |&at| entries[at as usize].hash);
            }
        }
    }

    /// Moves every entry of `other` into this table, in order, merging the aggregates of equal keys.
    pub fn absorb(&mut self, other: &mut Table<K, C>, merge: &impl Fn(&mut C, C))
    where
        K: Eq,
    {
        self.settle(merge);
        other.drain().for_each(|entry| self.take(entry, merge));
    }

    #[inline]
    fn take(&mut self, entry: Entry<K, C>, merge: &impl Fn(&mut C, C))
    where
        K: Eq,
    {
        let entries = &mut self.entries;
        let same = |&at: &u32| {
            entries[at as usize].hash == entry.hash && entries[at as usize].key == entry.key
        };
        match self.index.entry(entry.hash, same, |&at| entries[at as usize].hash) {
            Place::Occupied(place) => merge(&mut entries[*place.get() as usize].value, entry.value),
            Place::Vacant(place) => {
                place.insert(next_position(entries));
                entries.push(entry);
            }
        }
    }
}

fn next_position<K, C>(entries: &[Entry<K, C>]) -> u32 {
    u32::try_from(entries.len()).expect("a table holds fewer than 2^32 keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(table: &mut Table<String, u64>, key: &str, hash: u64) {
        table.upsert(Hashed { hash, key }, str::to_owned, || 1, |count| *count += 1);
    }

    fn rows(table: &mut Table<String, u64>) -> Vec<(String, u64)> {
        table.drain().map(|entry| (entry.key, entry.value)).collect()
    }

    #[test]
    fn keys_stay_in_order_whatever_their_hash() {
        for hash in [|_: &str| 0, |key: &str| hash_of(1, key)] {
            let (mut left, mut right) = (Table::default(), Table::default());
            for key in ["b", "a", "b"] {
                count(&mut left, key, hash(key));
            }
            for key in ["c", "b", "d"] {
                count(&mut right, key, hash(key));
            }
            left.absorb(&mut right, &|sum, more| *sum += more);
            let expected = [("b", 3), ("a", 1), ("c", 1), ("d", 1)]
                .map(|(key, count)| (key.to_owned(), count));
            assert_eq!(
                (rows(&mut left).as_slice(), right.len(), left.len()),
                (&expected[..], 0, 0)
            );
        }
    }

    #[test]
    fn loose_entries_give_what_settled_ones_do() {
        // (records, different keys): hardly any key twice; then many; and a few keys after very many.
        for (records, keys) in
            [(10_u64, 3_u64), (60_000, u64::MAX), (200_000, 50_000), (400_000, 20_000)]
        {
            let mut all = Table::default();
            let mut expected: Vec<(u64, Vec<u64>)> = Vec::new();
            let mut places = std::collections::HashMap::new();
            for n in 0..records {
                let key = hash_of(3, &n) % keys;
                let push = |values: &mut Vec<u64>| values.push(n);
                let found = Hashed { hash: hash_of(1, &key), key: &key };
                all.append(found, |k| *k, || vec![n], push, &|one, other| one.extend(other));
                let place = *places.entry(key).or_insert(expected.len());
                if place == expected.len() {
                    expected.push((key, Vec::new()));
                }
                expected[place].1.push(n);
            }
            let most = expected.len() * (2 + LOOSE_MAX);
            assert!(all.entries.len() <= most && all.entries.capacity() < 4 * most + 1_000);
            let mut merged = Table::default();
            merged.absorb(&mut all, &|one: &mut Vec<u64>, other| one.extend(other));
            assert_eq!(
                merged.drain().map(|entry| (entry.key, entry.value)).collect::<Vec<_>>(),
                expected
            );
        }
    }

    #[test]
    fn memory_that_is_not_needed_goes_back() {
        let mut table = Table::default();
        (0..10_000).for_each(|n| count(&mut table, &n.to_string(), hash_of(1, &n)));
        table.clear();
        assert!(table.entries.capacity() >= 10_000, "it was needed");
        (0..10_000).for_each(|n| count(&mut table, &n.to_string(), hash_of(1, &n)));
        assert_eq!(rows(&mut table).len(), 10_000);
        table.clear();
        assert!(
            table.entries.capacity() >= 10_000,
            "it was needed, though its rows were taken out"
        );
        (0..20).for_each(|_| {
            count(&mut table, "few", hash_of(1, "few"));
            table.clear();
        });
        assert!(table.entries.capacity() < 20 && table.index.capacity() < 40);
    }

    #[test]
    fn shards_are_even_and_in_range() {
        for shards in [1, 2, 3, 7] {
            let mut sizes = vec![0_usize; shards];
            (0..7_000_u64).for_each(|n| sizes[shard_of(hash_of(1, &n), shards)] += 1);
            let even = 7_000 / shards;
            assert!(sizes.iter().all(|size| size.abs_diff(even) < even / 5), "{sizes:?}");
        }
    }
}
