//! `KeyTable`: the states of one hash partition, and the changes of a batch.
//!
//! The keys lie in a table, and in a list by the time when they were last touched where any are forgotten by their age. Runs
//! on the workers; knows no operator.

use super::commit::entry::Touch;
use super::heap_size;
use super::shard::{Change, ShardState, ShardView, Slot, Table, WriteSet};
use super::spec::{Counters, Group, Held, Phase, State, StateKey, StateValue};
use crate::exec::shuffle::Entry;
use crate::stream::ops::value_list::ValueList;
use crate::sync::{Arc, Ordering};
use crate::time::Time;

/// The changes of a batch in the number of keys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) added: u64,
    pub(crate) removed: u64,
    pub(crate) timed_out: u64,
    pub(crate) dropped: u64,
    pub(crate) expired: u64,
}

impl Counters {
    pub(crate) fn add(&self, counts: &Counts) {
        self.keys.fetch_add(counts.added, Ordering::Relaxed);
        self.keys.fetch_sub(counts.removed, Ordering::Relaxed);
        self.timed_out.fetch_add(counts.timed_out, Ordering::Relaxed);
        self.dropped.fetch_add(counts.dropped, Ordering::Relaxed);
        self.expired.fetch_add(counts.expired, Ordering::Relaxed);
    }
}

/// A key that is new, with its hash and its state.
pub(crate) struct NewKey<K, S> {
    pub(crate) hash: u64,
    pub(crate) row: (K, S),
}

/// The states of one hash partition, with a list of its keys by the time when they were last touched.
pub(crate) struct KeyTable<K, S, U> {
    pub(crate) table: Table<K, S, Idle>,
    /// True if there is that list.
    pub(crate) listed: bool,
    /// The ends of the list: the longest idle, the last touched.
    pub(crate) ends: Option<(u32, u32)>,
    pub(crate) out: std::marker::PhantomData<fn() -> U>,
}

impl<K: Clone, S: Clone, U> Clone for KeyTable<K, S, U> {
    fn clone(&self) -> Self {
        KeyTable { table: self.table.clone(), listed: self.listed, ends: self.ends, out: self.out }
    }
}

/// The last touch of a key, and its neighbours in the list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) touch: Touch,
    pub(crate) older: u32,
    pub(crate) younger: u32,
}

/// No neighbour: a table holds fewer than 2^32 keys.
pub(crate) const NONE: u32 = u32::MAX;

/// The changes of a batch in a partition.
pub(crate) struct KeyTableDelta<K, S, U> {
    /// With the turn of each key that is touched.
    pub(crate) overlay: WriteSet<K, S, u32>,
    pub(crate) time: Time,
    pub(crate) turns: u32,
    pub(crate) out: Arc<Vec<U>>,
    /// The output of the new keys' records: ranges of `out`.
    pub(crate) out_of_added: Vec<std::ops::Range<usize>>,
    pub(crate) counts: Counts,
}

impl<K, S, U> KeyTableDelta<K, S, U> {
    pub(crate) fn new(time: Time) -> Self {
        let (overlay, out_of_added) = (WriteSet::default(), Vec::new());
        let (out, counts) = (Arc::default(), Counts::default());
        KeyTableDelta { overlay, time, turns: 0, out, out_of_added, counts }
    }

    /// The turn of the next key that is touched.
    pub(crate) fn turn(&mut self) -> u32 {
        self.turns += 1;
        self.turns - 1
    }

    /// True if the batch has changed the key; the changes are in order.
    pub(crate) fn touches(&self, place: u32) -> bool {
        self.overlay.changed.binary_search_by_key(&place, |(other, ..)| *other).is_ok()
    }

    pub(crate) fn sort(&mut self) {
        self.overlay.changed.sort_unstable_by_key(|(place, ..)| *place);
    }

    pub(crate) fn push(&mut self, out: Option<U>) {
        Arc::get_mut(&mut self.out).expect("nobody reads a delta that is being made").extend(out);
    }

    /// Forgets the last of the new keys, with what their records made: as many as there are, at most `over`.
    pub(crate) fn drop_new(&mut self, over: u64) -> u64 {
        let new = self.overlay.added.len();
        let gone = usize::try_from(over).unwrap_or(usize::MAX).min(new);
        self.overlay.added.truncate(new - gone);
        let out = Arc::get_mut(&mut self.out).expect("nobody reads a delta that is being made");
        // In one pass: the outputs of known keys lie between them.
        let (mut ranges, mut at) = (self.out_of_added.drain(new - gone..).peekable(), 0);
        out.retain(|_| {
            while ranges.next_if(|range| range.end <= at).is_some() {}
            let is_gone = ranges.peek().is_some_and(|range| range.start <= at);
            at += 1;
            !is_gone
        });
        self.counts.added -= gone as u64;
        self.counts.dropped += gone as u64;
        gone as u64
    }

    /// Forgets a key after its last call.
    pub(crate) fn forget(
        &mut self,
        (key, known): &(K, S),
        place: u32,
        last_call: impl FnOnce(Time, &K, &mut State<'_, S>) -> Option<U>,
    ) -> Result<(), String> {
        let mut state = State::new(Held::Committed(known), Phase::TimingOut);
        let out = last_call(self.time, key, &mut state);
        state.used_well()?;
        self.push(out);
        self.overlay.changed.push((place, Change::Removed, NONE));
        self.counts.removed += 1;
        Ok(())
    }
}

impl<K: Clone, S: Clone, U> Clone for KeyTableDelta<K, S, U> {
    fn clone(&self) -> Self {
        KeyTableDelta {
            overlay: self.overlay.clone(),
            time: self.time,
            turns: self.turns,
            out: Arc::clone(&self.out),
            out_of_added: self.out_of_added.clone(),
            counts: self.counts,
        }
    }
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> ShardView<KeyTable<K, S, U>> {
    pub(crate) fn rows(&self) -> impl Iterator<Item = &(K, S)> {
        self.delta.overlay.rows(&self.base.table, |_| true, |_| true)
    }

    /// The keys whose states the batch has set or forgotten.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (K, Option<S>)> {
        let set = |(key, state): &(K, S)| (key.clone(), Some(state.clone()));
        let changed =
            self.delta.overlay.changed.iter().filter_map(move |(place, change, _)| match change {
                Change::Same => None,
                Change::Row(row) => Some(set(row)),
                Change::Removed => Some((self.base.table.get(*place).row.0.clone(), None)),
            });
        changed.chain(self.delta.overlay.added.iter().map(move |(_, row, _)| set(row)))
    }
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> ShardState for KeyTable<K, S, U> {
    type Delta = KeyTableDelta<K, S, U>;

    fn bytes(&self) -> usize {
        self.table.bytes()
    }

    fn owned(&self) -> usize {
        match std::mem::needs_drop::<(K, S)>() {
            true => self.table.iter().map(|(_, slot)| owned(&slot.row)).sum(),
            false => 0,
        }
    }

    fn growth(&self, delta: &KeyTableDelta<K, S, U>) -> isize {
        delta.overlay.growth(&self.table, owned)
    }

    fn delta_bytes(delta: &KeyTableDelta<K, S, U>) -> usize {
        delta.overlay.bytes()
    }

    fn apply(&mut self, delta: KeyTableDelta<K, S, U>) {
        self.commit(delta);
    }
}

/// The bytes that a key and its state own.
fn owned<K: StateKey, S: StateValue>((key, state): &(K, S)) -> usize {
    heap_size::of_key(key) + heap_size::of_state(state)
}

impl<K: StateKey, S: StateValue, U> KeyTable<K, S, U> {
    /// This many partitions without a key.
    pub(crate) fn empty(shards: usize, listed: bool) -> Vec<Self> {
        let out = std::marker::PhantomData;
        let empty = |_| KeyTable { table: Table::default(), listed, ends: None, out };
        (0..shards).map(empty).collect()
    }

    pub(crate) fn find(&self, hash: u64, key: &K) -> Option<u32> {
        self.table.find(hash, |slot| slot.row.0 == *key)
    }

    /// Adds a key that is not there yet, and not in the list yet.
    pub(crate) fn insert(&mut self, found: NewKey<K, S>, touch: Touch) -> u32 {
        let NewKey { hash, row } = found;
        let extra = Idle { touch, older: NONE, younger: NONE };
        self.table.insert(hash, Slot { hash, row, extra })
    }

    /// Puts a key at the young end of the list, if there is one.
    pub(crate) fn link(&mut self, place: u32) {
        if !self.listed {
            return;
        }
        let older = self.ends.map_or(NONE, |(_, youngest)| youngest);
        let slot = &mut self.table.get_mut(place).extra;
        (slot.older, slot.younger) = (older, NONE);
        if older != NONE {
            self.table.get_mut(older).extra.younger = place;
        }
        self.ends = Some((self.ends.map_or(place, |(oldest, _)| oldest), place));
    }

    /// Lists all keys of a table that had no list: by the time and the turn of their last touch.
    pub(crate) fn list_by_age(&mut self) {
        self.listed = true;
        let aged = |(place, slot): (u32, &Slot<K, S, Idle>)| (slot.extra.touch, place);
        let mut all: Vec<_> = self.table.iter().map(aged).collect();
        all.sort_unstable();
        all.into_iter().for_each(|(_, place)| self.link(place));
    }

    pub(crate) fn unlink(&mut self, place: u32) {
        if !self.listed {
            return;
        }
        let Idle { older, younger, .. } = self.table.get(place).extra;
        if older != NONE {
            self.table.get_mut(older).extra.younger = younger;
        }
        if younger != NONE {
            self.table.get_mut(younger).extra.older = older;
        }
        let (oldest, youngest) = self.ends.expect("a linked key is in the list");
        let oldest = if older == NONE { younger } else { oldest };
        let youngest = if younger == NONE { older } else { youngest };
        self.ends = (oldest != NONE).then_some((oldest, youngest));
    }

    /// The keys from the one that was idle for longest on.
    pub(crate) fn by_age(&self) -> impl Iterator<Item = u32> {
        let younger = |place: &u32| {
            Some(self.table.get(*place).extra.younger).filter(|younger| *younger != NONE)
        };
        std::iter::successors(self.ends.map(|(oldest, _)| oldest), younger)
    }

    /// Every known key and every new one goes through `f`.
    pub(crate) fn update_all<V>(
        &self,
        time: Time,
        groups: Vec<Group<K, V>>,
        f: &impl Fn(Time, &K, &[V], Option<&S>) -> Option<S>,
    ) -> KeyTableDelta<K, S, U> {
        let mut delta = KeyTableDelta::new(time);
        let KeyTableDelta { overlay, counts, turns, .. } = &mut delta;
        let mut turn = move || {
            *turns += 1;
            *turns - 1
        };
        let mut touched: Vec<(u32, ValueList<V>)> = Vec::new();
        for Entry { hash, key, value } in groups {
            match self.find(hash, &key) {
                Some(place) => touched.push((place, value)),
                None => {
                    if let Some(state) = f(time, &key, value.as_slice(), None) {
                        overlay.added.push((hash, (key, state), turn()));
                        counts.added += 1;
                    }
                }
            }
        }
        touched.sort_unstable_by_key(|(place, _)| *place);
        let mut touched = touched.into_iter().peekable();
        for (place, slot) in self.table.iter() {
            let values = touched.next_if(|(other, _)| *other == place).map(|(_, values)| values);
            let (key, state) = &slot.row;
            let values = values.as_ref().map(ValueList::as_slice).unwrap_or_default();
            let change = match f(time, key, values, Some(state)) {
                Some(state) => Change::Row((key.clone(), state)),
                None => {
                    counts.removed += 1;
                    Change::Removed
                }
            };
            overlay.changed.push((place, change, turn()));
        }
        delta
    }
}
