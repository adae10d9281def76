//! `Store`: the states of one operator, what the log gets of each batch of them, and the way back. Encoding runs on the
//! workers, commits on the scheduler's thread, the restore on the thread that starts the stream.

use std::any::type_name;

use bytes::Bytes;

use super::buffer::ChangelogBuffer;
use super::changelog::Changelog;
use super::compaction::COMPACTION_BATCHES;
use super::entry::Touch;
use super::part::{Reader, Rewrite, Writer};
use crate::exec::shuffle::{hash_of, shard_of};
use crate::stream::kept::NodeKept;
use crate::stream::state::key_table::{KeyTable, NewKey};
use crate::stream::state::shard::{Change, ShardView, Shards};
use crate::stream::state::spec::{Counters, StateKey, StateValue};
use crate::stream::{Planner, Replay};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

/// The fewest keys of a partition that a batch compacts. Few in unit tests, so that a compaction takes several batches there.
const COMPACTION_KEYS_MIN: u32 = if cfg!(test) { 3 } else { 64 };

/// The states of one operator.
pub(crate) struct Store<K: StateKey, S: StateValue, U: Send + Sync + 'static> {
    /// None before the first batch.
    pub(crate) shards: Mutex<Option<Shards<KeyTable<K, S, U>>>>,
    /// The states before the very first batch.
    pub(crate) initial: Mutex<Vec<(K, S)>>,
    pub(crate) counters: Arc<Counters>,
    /// The progress of the compaction in each partition.
    progress: Mutex<Vec<Progress>>,
    /// Batches that a compaction takes.
    compaction_batches: AtomicU64,
    /// The partitions that are being restored.
    restoring: Mutex<Vec<KeyTable<K, S, U>>>,
    /// True if the keys are listed by their age.
    pub(crate) listed: bool,
    /// The number of the first batch that it took in.
    first: AtomicU64,
    /// Counts what they take.
    kept: NodeKept,
}

/// What is known before a batch.
pub(crate) struct Known<K: StateKey, S: StateValue, U: Send + Sync + 'static> {
    pub(crate) shards: Shards<KeyTable<K, S, U>>,
    /// Number of keys in them.
    pub(crate) keys: u64,
}

/// The progress of the compaction in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Done,
    /// The next place.
    At(u32),
    /// Nothing was written so far: the next batch goes through all that was known before it.
    New,
}

/// One partition's part of a batch in bytes, the keys in it, and the progress of the compaction.
#[derive(Debug)]
pub(crate) struct Encoded {
    parts: Vec<Bytes>,
    keys: u64,
    /// Bytes of the compaction among them.
    compacted: u64,
    progress: Progress,
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> Store<K, S, U> {
    pub(crate) fn new(initial: Vec<(K, S)>, listed: bool, kept: NodeKept) -> Self {
        Store {
            shards: Mutex::new(None),
            initial: Mutex::new(initial),
            counters: Arc::default(),
            progress: Mutex::default(),
            compaction_batches: AtomicU64::new(COMPACTION_BATCHES),
            restoring: Mutex::default(),
            listed,
            first: AtomicU64::new(0),
            kept,
        }
    }

    /// The types, for `StateInfo::holds`.
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

    /// The partitions of a batch, and the number of keys in them before it: those that are committed, or those before the
    /// first batch, which its commit [installs](Store::install).
    pub(crate) fn before(&self, cx: &Planner<'_>) -> Known<K, S, U> {
        let committed = self.shards.lock().clone();
        if let Some(shards) = committed {
            return Known { shards, keys: self.counters.keys.load(Ordering::Relaxed) };
        }
        let bases = self.first_keys(cx);
        let keys = bases.iter().map(|keys| keys.table.len() as u64).sum();
        Known { shards: Shards::new(bases, &self.kept), keys }
    }

    /// The keys before the first batch: a function of the initial states, the number of partitions, the seed and the zero.
    fn first_keys(&self, cx: &Planner<'_>) -> Vec<KeyTable<K, S, U>> {
        let mut shards = KeyTable::empty(cx.shards(), self.listed);
        let (seed, zero) = (cx.settings.seed, cx.scope.zero());
        for (turn, row) in (0..).zip(self.initial.lock().iter().cloned()) {
            let touch = Touch { last: zero, turn };
            let hash = hash_of(seed, &row.0);
            let shard: &mut KeyTable<K, S, U> = &mut shards[shard_of(hash, cx.shards())];
            match shard.find(hash, &row.0) {
                Some(place) => shard.table.get_mut(place).row = row,
                None => {
                    let place = shard.insert(NewKey { hash, row }, touch);
                    shard.link(place);
                }
            }
        }
        shards
    }

    /// The first batch is committed: its partitions are those of all later ones, and the initial states are in them.
    pub(crate) fn install(&self, known: Known<K, S, U>) {
        let mut shards = self.shards.lock();
        if shards.is_none() {
            *self.progress.lock() = vec![Progress::New; known.shards.len()];
            self.counters.keys.store(known.keys, Ordering::Relaxed);
            *self.initial.lock() = Vec::new();
            *shards = Some(known.shards);
        }
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
        // What is read later counts: the compaction shows keys as they were before the batch.
        let (slice, progress) = self.compact(shard, view, writer.keys)?;
        let keys = slice.keys + writer.keys;
        let mut parts = slice.finish();
        let compacted = parts.iter().map(|part| part.len() as u64).sum();
        parts.extend(writer.finish());
        Ok(Encoded { keys, parts, compacted, progress })
    }

    /// Writes the next keys as they were before the batch, which has written `written` keys itself.
    fn compact(
        &self,
        shard: usize,
        view: &ShardView<KeyTable<K, S, U>>,
        written: u64,
    ) -> Result<(Writer, Progress), String> {
        let mut writer = Writer::new(view.delta.time);
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        let batches = self.compaction_batches.load(Ordering::Relaxed);
        let share = u64::from(view.base.table.places()).div_ceil(batches.max(1));
        let pace = written.max(COMPACTION_KEYS_MIN).max(u32::try_from(share).unwrap_or(u32::MAX));
        // Until the first commit there is no compaction: nothing was written.
        let progress = self.progress.lock().get(shard).copied().unwrap_or(Progress::New);
        let (from, to) = match progress {
            Progress::Done => return Ok((writer, Progress::Done)),
            Progress::New => (0, u32::MAX),
            Progress::At(place) => (place, place.saturating_add(pace)),
        };
        for (_, slot) in view.base.table.between(from..to) {
            let (key, state) = &slot.row;
            writer.set(key, state, slot.extra.touch)?;
        }
        let progress =
            if to < view.base.table.places() { Progress::At(to) } else { Progress::Done };
        Ok((writer, progress))
    }

    /// Notes that the initial states are kept, with the first batch.
    pub(crate) fn is_known(&self) {
        let mut progress = self.progress.lock();
        progress.iter_mut().filter(|at| **at == Progress::New).for_each(|at| *at = Progress::Done);
    }

    /// The batch of these parts, of one for each partition, is committed.
    pub(crate) fn committed(
        &self,
        encoded: Vec<Encoded>,
        state: u32,
        buffer: &mut ChangelogBuffer,
    ) {
        let mut progress = self.progress.lock();
        for (at, encoded) in progress.iter_mut().zip(encoded) {
            *at = encoded.progress;
            buffer.keys += encoded.keys;
            buffer.compacted += encoded.compacted;
            buffer.parts.extend(encoded.parts.into_iter().map(|part| (state, part)));
        }
    }
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> Changelog for Store<K, S, U> {
    fn begin_compaction(&self) {
        self.progress.lock().iter_mut().for_each(|at| *at = Progress::At(0));
    }

    fn compact_within(&self, batches: u64) {
        self.compaction_batches.store(batches, Ordering::Relaxed);
    }

    fn is_compacted(&self) -> bool {
        self.progress.lock().iter().all(|at| *at == Progress::Done)
    }

    fn len(&self) -> u64 {
        self.counters.keys.load(Ordering::Relaxed)
    }

    fn begins_with(&self, batch: u64) {
        self.first.store(batch, Ordering::Relaxed);
    }

    fn begin_restore(&self, partitions: usize) {
        self.initial.lock().clear();
        *self.restoring.lock() = KeyTable::empty(partitions.max(1), false);
    }

    fn apply(&self, part: &[u8], seed: u64) -> Result<(), String> {
        let mut shards = self.restoring.lock();
        let mut reader = Reader::open(part)?;
        while let Some(entry) = reader.next::<K, S>()? {
            let hash = hash_of(seed, entry.key());
            let shard = shard_of(hash, shards.len());
            let keys = shards.get_mut(shard).ok_or("the restore has not begun")?;
            keys.restore(hash, entry);
        }
        Ok(())
    }

    fn end_restore(&self) {
        let mut bases = std::mem::take(&mut *self.restoring.lock());
        if self.listed {
            bases.iter_mut().for_each(KeyTable::list_by_age);
        }
        let keys: usize = bases.iter().map(|keys| keys.table.len()).sum();
        self.counters.keys.store(keys as u64, Ordering::Relaxed);
        *self.progress.lock() = vec![Progress::Done; bases.len()];
        *self.shards.lock() = Some(Shards::new(bases, &self.kept));
    }
}

/// The name of a type without the paths of its parts.
pub(super) fn short(name: &str) -> String {
    let mut text = String::new();
    for part in name.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
        text.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    text
}
