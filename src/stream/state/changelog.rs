//! The changelog of keyed states: the changes of each batch in bytes, and the way back.
//!
//! ```text
//! batch ─▶ overlay ─┬─▶ commit
//!                   └─▶ parts: [a slice of the walk: keys as they were before the batch] [the keys that it touched]
//! walk: ▷────▷────▷──▷     through all keys, a slice with each batch, so that what lies before its start is needed no more
//! ```
//! A part holds the states of keys, not their changes: parts in order, from the first batch of all or from the start of a
//! walk to its end and on, give the states exactly. The work follows the touched
//! keys; no batch ever writes all keys at once. Encoding runs on the workers, commits on the scheduler's thread. It does
//! not know who keeps the bytes, and checks all of them.

mod census;
mod compaction;
pub(super) mod entry;
mod restore;

use std::any::type_name;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::census::{Census, Counting};
use self::compaction::WALK_BATCHES;
pub(crate) use self::compaction::{Committed, Compactor};
pub(crate) use self::entry::{Entry, Touch};
use super::key_table::{KeyTable, NewKey};
use super::left::Left;
use super::shard::{Change, ShardView, Shards};
use super::spec::{Counters, StateKey, StateValue};
use crate::exec::shuffle::{hash_of, shard_of};
use crate::stream::kept::NodeKept;
use crate::stream::{Planner, Replay};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::time::Time;
use crate::wording::count;

/// A part is closed beyond this many bytes; one key with its state may be larger.
const PART_BYTES: usize = 256 << 10;
/// The fewest keys of a partition that a batch walks over. Few in unit tests, so that a walk takes several batches there.
const WALK_MIN: u32 = if cfg!(test) { 3 } else { 64 };

/// An operator with keyed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct StateInfo {
    /// Its name, by which it is found again.
    pub name: String,
    /// The types of its keys and states, without their paths, for people and to be compared.
    pub holds: String,
}

/// The changes of a batch in the states. Earlier changes and these give the states after the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The batch.
    pub time: Time,
    /// The operator, as its place in [`Graph::states`](crate::stream::Graph::states), and bytes that
    /// [`Restore::apply`] takes. In order.
    pub parts: Vec<(u32, Bytes)>,
    /// True if a walk begins with this batch: once it has ended, nothing before this batch is needed.
    pub walk_begins: bool,
    /// True if the walk ends with this batch.
    pub walk_ends: bool,
}

/// The states of one operator, as the log saves and restores them.
pub(crate) trait Changelog: Send + Sync {
    /// The next batch begins to go through all keys.
    fn begin_walk(&self);

    /// Sets the most batches of a walk.
    fn walk_within(&self, batches: u64);

    /// True if the walk has visited all keys.
    fn is_walked(&self) -> bool;

    /// Number of known keys.
    fn len(&self) -> u64;

    /// The number of the first batch that it took in; 0 unless this is called.
    fn begins_with(&self, batch: u64);

    /// Forgets everything, the initial states too; `apply` follows.
    fn begin_restore(&self, partitions: usize);

    /// Takes a part in.
    fn apply(&self, part: &[u8], seed: u64) -> Result<(), String>;

    /// All parts were taken in.
    fn end_restore(&self);
}

/// The states of one operator.
pub(crate) struct Store<K: StateKey, S: StateValue, U: Send + Sync + 'static> {
    /// None before the first batch.
    pub(crate) shards: Mutex<Option<Shards<KeyTable<K, S, U>>>>,
    /// The states before the very first batch.
    pub(crate) initial: Mutex<Vec<(K, S)>>,
    pub(crate) counters: Arc<Counters>,
    /// The progress of the walk in each partition.
    walks: Mutex<Vec<Walk>>,
    /// Batches that a walk takes.
    walk_batches: AtomicU64,
    /// The partitions that are being restored.
    restoring: Mutex<Vec<KeyTable<K, S, U>>>,
    /// True if the keys are listed by their age.
    pub(crate) listed: bool,
    /// The number of the first batch that it took in.
    first: AtomicU64,
    /// Counts what they take.
    kept: NodeKept,
}

/// The progress of the walk in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Walk {
    #[default]
    Done,
    /// The next place.
    At(u32),
    /// Nothing was written so far: the next batch goes through all that was known before it.
    New,
}

/// One partition's part of a batch in bytes, the keys in it, and the progress of the walk.
#[derive(Debug)]
pub(crate) struct Encoded {
    parts: Vec<Bytes>,
    keys: u64,
    /// Bytes of the walk among them.
    walked: u64,
    walk: Walk,
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> Store<K, S, U> {
    pub(crate) fn new(initial: Vec<(K, S)>, listed: bool, kept: NodeKept) -> Self {
        Store {
            shards: Mutex::new(None),
            initial: Mutex::new(initial),
            counters: Arc::default(),
            walks: Mutex::default(),
            walk_batches: AtomicU64::new(WALK_BATCHES),
            restoring: Mutex::default(),
            listed,
            first: AtomicU64::new(0),
            kept,
        }
    }

    /// The types, for [`StateInfo::holds`].
    pub(crate) fn holds() -> String {
        format!("{} to {}", short(type_name::<K>()), short(type_name::<S>()))
    }

    /// True if a batch that runs again is not for these states: it is only for windows, or older than their first batch.
    pub(crate) fn passes_over(&self, replay: Option<Replay>, batch: u64) -> bool {
        match replay {
            None => false,
            Some(Replay::Windows) => true,
            Some(Replay::States) => batch < self.first.load(Ordering::Relaxed),
        }
    }

    /// Partitions with what is known before the first batch.
    pub(crate) fn first_keys(
        &self,
        cx: &Planner<'_>,
        initial: Vec<(K, S)>,
    ) -> Vec<KeyTable<K, S, U>> {
        let mut shards = KeyTable::empty(cx.shards(), self.listed);
        let (seed, zero) = (cx.settings.seed, cx.scope.zero());
        for (turn, row) in (0..).zip(initial) {
            let touch = Touch { last: zero, turn };
            let hash = hash_of(seed, &row.0);
            let shard: &mut KeyTable<K, S, U> = &mut shards[shard_of(hash, cx.shards())];
            match shard.find(hash, &row.0) {
                Some(place) => shard.table.get_mut(place).row = row,
                None => {
                    let place = shard.insert(NewKey { hash, row }, touch);
                    shard.link(place, touch);
                    self.counters.keys.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        shards
    }

    /// The partitions before the first batch.
    pub(crate) fn begin(&self, bases: Vec<KeyTable<K, S, U>>) -> Shards<KeyTable<K, S, U>> {
        *self.walks.lock() = vec![Walk::New; bases.len()];
        Shards::new(bases, &self.kept)
    }

    /// The part of a batch that one partition changes. `skip_same`: states that were written anew and are the same are
    /// left out, where nobody asks when a key was last touched.
    pub(crate) fn encode(
        &self,
        shard: usize,
        view: &ShardView<KeyTable<K, S, U>>,
        skip_same: bool,
    ) -> Result<Encoded, String> {
        let mut writer = Writer::new(view.delta.time);
        let touch = |turn: &u32| Touch { last: view.delta.time, turn: *turn };
        for (place, change, turn) in &view.delta.overlay.changed {
            let (key, known) = &view.base.table.get(*place).row;
            match change {
                Change::Removed => writer.removed(key)?,
                Change::Same => writer.touched(key, *turn)?,
                Change::Row((key, state)) if skip_same => {
                    writer.set_if_new(key, Rewrite { known, state }, *turn)?
                }
                Change::Row((key, state)) => writer.set(key, state, touch(turn))?,
            }
        }
        for (_, (key, state), turn) in &view.delta.overlay.added {
            writer.set(key, state, touch(turn))?;
        }
        // What is read later counts: the walk shows keys as they were before the batch.
        let (walker, walk) = self.walk(shard, view, writer.keys)?;
        let keys = walker.keys + writer.keys;
        let mut parts = walker.finish();
        let walked = parts.iter().map(|part| part.len() as u64).sum();
        parts.extend(writer.finish());
        Ok(Encoded { keys, parts, walked, walk })
    }

    /// Writes the next keys as they were before the batch, which has written `written` keys itself.
    fn walk(
        &self,
        shard: usize,
        view: &ShardView<KeyTable<K, S, U>>,
        written: u64,
    ) -> Result<(Writer, Walk), String> {
        let mut writer = Writer::new(view.delta.time);
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        let batches = self.walk_batches.load(Ordering::Relaxed);
        let share = u64::from(view.base.table.places()).div_ceil(batches.max(1));
        let pace = written.max(WALK_MIN).max(u32::try_from(share).unwrap_or(u32::MAX));
        let walk = self.walks.lock().get(shard).copied().unwrap_or_default();
        let (from, to) = match walk {
            Walk::Done => return Ok((writer, Walk::Done)),
            Walk::New => (0, u32::MAX),
            Walk::At(place) => (place, place.saturating_add(pace)),
        };
        for (_, slot) in view.base.table.between(from..to) {
            let (key, state) = &slot.row;
            writer.set(key, state, slot.extra.touch)?;
        }
        let walk = if to < view.base.table.places() { Walk::At(to) } else { Walk::Done };
        Ok((writer, walk))
    }

    /// Notes that the initial states are kept, with the first batch.
    pub(crate) fn is_known(&self) {
        let mut walks = self.walks.lock();
        walks.iter_mut().filter(|walk| **walk == Walk::New).for_each(|walk| *walk = Walk::Done);
    }

    /// The batch of these parts, of one for each partition, is committed.
    pub(crate) fn committed(&self, encoded: Vec<Encoded>, state: u32, left: &mut Left) {
        let mut walks = self.walks.lock();
        for (walk, encoded) in walks.iter_mut().zip(encoded) {
            *walk = encoded.walk;
            left.keys += encoded.keys;
            left.walked += encoded.walked;
            left.parts.extend(encoded.parts.into_iter().map(|part| (state, part)));
        }
    }
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> Changelog for Store<K, S, U> {
    fn begin_walk(&self) {
        self.walks.lock().iter_mut().for_each(|walk| *walk = Walk::At(0));
    }

    fn walk_within(&self, batches: u64) {
        self.walk_batches.store(batches, Ordering::Relaxed);
    }

    fn is_walked(&self) -> bool {
        self.walks.lock().iter().all(|walk| *walk == Walk::Done)
    }

    fn len(&self) -> u64 {
        self.counters.keys.load(Ordering::Relaxed)
    }

    fn begins_with(&self, batch: u64) {
        self.first.store(batch, Ordering::Relaxed);
    }

    fn begin_restore(&self, partitions: usize) {
        self.initial.lock().clear();
        *self.restoring.lock() = KeyTable::empty(partitions.max(1), self.listed);
    }

    fn apply(&self, part: &[u8], seed: u64) -> Result<(), String> {
        let mut shards = self.restoring.lock();
        let mut reader = Reader::open(part)?;
        while let Some(entry) = reader.next::<K, S>()? {
            let hash = hash_of(seed, entry.key());
            let shard = shard_of(hash, shards.len());
            let keys = shards.get_mut(shard).ok_or("the restore has not begun")?;
            keys.take(hash, entry);
        }
        Ok(())
    }

    fn end_restore(&self) {
        let mut bases = std::mem::take(&mut *self.restoring.lock());
        bases.iter_mut().for_each(KeyTable::link_all);
        let keys: usize = bases.iter().map(|keys| keys.table.len()).sum();
        self.counters.keys.store(keys as u64, Ordering::Relaxed);
        *self.walks.lock() = vec![Walk::Done; bases.len()];
        *self.shards.lock() = Some(Shards::new(bases, &self.kept));
    }
}

const REMOVED: u8 = 0;
const TOUCHED: u8 = 1;
const SET: u8 = 2;

/// ```text
/// part: batch time | entries to the end          all numbers are varints
/// entry: tag | length, key | [TOUCHED, SET: milliseconds since the last touch, its turn] | [SET: length, state]
/// ```
struct Writer {
    time: Time,
    parts: Vec<Bytes>,
    part: Vec<u8>,
    /// The current key or state: its length is written first.
    scratch: Vec<u8>,
    keys: u64,
}

/// A state that a batch has written anew, and the one before.
struct Rewrite<'a, S> {
    known: &'a S,
    state: &'a S,
}

impl Writer {
    fn new(time: Time) -> Self {
        Writer { time, parts: Vec::new(), part: Vec::new(), scratch: Vec::new(), keys: 0 }
    }

    fn removed<K: Serialize>(&mut self, key: &K) -> Result<(), String> {
        self.begin(REMOVED, key)
    }

    fn touched<K: Serialize>(&mut self, key: &K, turn: u32) -> Result<(), String> {
        self.begin(TOUCHED, key)?;
        self.touch(Touch { last: self.time, turn });
        Ok(())
    }

    fn set<K: Serialize, S: Serialize>(
        &mut self,
        key: &K,
        state: &S,
        touch: Touch,
    ) -> Result<(), String> {
        self.begin(SET, key)?;
        self.touch(touch);
        self.value(state)
    }

    /// Writes nothing if the state is what it was, byte for byte.
    fn set_if_new<K: Serialize, S: Serialize>(
        &mut self,
        key: &K,
        rewrite: Rewrite<'_, S>,
        turn: u32,
    ) -> Result<(), String> {
        let known = postcard::to_stdvec(rewrite.known).map_err(unwritable)?;
        let state = postcard::to_stdvec(rewrite.state).map_err(unwritable)?;
        if known == state {
            return Ok(());
        }
        self.begin(SET, key)?;
        self.touch(Touch { last: self.time, turn });
        varint(&mut self.part, state.len() as u64);
        self.part.extend_from_slice(&state);
        Ok(())
    }

    fn begin<K: Serialize>(&mut self, tag: u8, key: &K) -> Result<(), String> {
        if self.part.len() >= PART_BYTES {
            self.close();
        }
        if self.part.is_empty() {
            varint(&mut self.part, self.time.as_millis());
        }
        self.keys += 1;
        self.part.push(tag);
        self.value(key)
    }

    fn touch(&mut self, touch: Touch) {
        varint(&mut self.part, self.time.as_millis().saturating_sub(touch.last.as_millis()));
        varint(&mut self.part, u64::from(touch.turn));
    }

    fn value<V: Serialize>(&mut self, value: &V) -> Result<(), String> {
        self.scratch.clear();
        let scratch = std::mem::take(&mut self.scratch);
        self.scratch = postcard::to_extend(value, scratch).map_err(unwritable)?;
        varint(&mut self.part, self.scratch.len() as u64);
        self.part.extend_from_slice(&self.scratch);
        Ok(())
    }

    fn close(&mut self) {
        if !self.part.is_empty() {
            self.parts.push(std::mem::take(&mut self.part).into());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.close();
        self.parts
    }
}

fn unwritable(err: postcard::Error) -> String {
    format!("a key or a state cannot be written down: {err}")
}

fn varint(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; 10];
    out.extend_from_slice(
        postcard::to_slice(&value, &mut bytes).expect("it takes ten bytes at most"),
    );
}

/// Reads a part, entry by entry.
struct Reader<'a> {
    time: Time,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn open(part: &'a [u8]) -> Result<Self, String> {
        let mut reader = Reader { time: Time::default(), rest: part };
        reader.time = Time::from_millis(reader.number()?);
        Ok(reader)
    }

    fn next<K: DeserializeOwned, S: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<Entry<K, S>>, String> {
        let Some((tag, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        let key = self.value("key")?;
        Ok(Some(match *tag {
            REMOVED => Entry::Removed(key),
            TOUCHED => Entry::Touched(key, self.touch()?),
            SET => {
                let touch = self.touch()?;
                Entry::Set(key, self.value("state")?, touch)
            }
            tag => return Err(format!("{tag} is no kind of change")),
        }))
    }

    fn touch(&mut self) -> Result<Touch, String> {
        let (age, turn) = (self.number()?, self.number()?);
        let last = self.time.as_millis().checked_sub(age);
        let last = last.ok_or("a key was last touched before there was time")?;
        let turn = u32::try_from(turn).map_err(|_| "a turn is out of range")?;
        Ok(Touch { last: Time::from_millis(last), turn })
    }

    /// The bytes of a value.
    fn bytes(&mut self, what: &str) -> Result<&'a [u8], String> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (bytes, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| format!("a {what} is cut off"))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A value fills its bytes exactly.
    fn value<V: DeserializeOwned>(&mut self, what: &str) -> Result<V, String> {
        let bytes = self.bytes(what)?;
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, left)) => Err(format!("{} left behind a {what}", count(left.len(), "byte"))),
            Err(err) => Err(format!("a {what} cannot be read: {err}")),
        }
    }

    fn number(&mut self) -> Result<u64, String> {
        let (value, rest) =
            postcard::take_from_bytes(self.rest).map_err(|err| format!("a number: {err}"))?;
        self.rest = rest;
        Ok(value)
    }
}

/// The name of a type without the paths of its parts.
fn short(name: &str) -> String {
    let mut text = String::new();
    for part in name.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
        text.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    text
}

#[cfg(all(test, not(tidemill_model)))]
mod tests;
