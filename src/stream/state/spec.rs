//! A user's view of a keyed state: its types, `State`, `StateSpec`, and the counts of its keys. Knows no batch.

use std::fmt;
use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exec::shuffle::Entry;
use crate::stream::ops::value_list::ValueList;
use crate::sync::AtomicU64;
use crate::time::Interval;

/// The state of one key, as `map_with_state` hands it to the function.
pub struct State<'a, S> {
    pub(crate) held: Held<'a, S>,
    phase: Phase,
    misuse: Option<&'static str>,
}

pub(crate) enum Held<'a, S> {
    Nothing,
    Committed(&'a S),
    New(S),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    Removed,
    TimingOut,
}

impl<S> fmt::Debug for State<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("exists", &self.exists()).finish_non_exhaustive()
    }
}

impl<'a, S> State<'a, S> {
    pub(crate) fn new(held: Held<'a, S>, phase: Phase) -> Self {
        State { held, phase, misuse: None }
    }

    /// The key's state; `None` if the key is new or was removed.
    pub fn get(&self) -> Option<&S> {
        match &self.held {
            Held::Nothing => None,
            Held::Committed(state) => Some(state),
            Held::New(state) => Some(state),
        }
    }

    /// True if the key has a state.
    pub fn exists(&self) -> bool {
        self.get().is_some()
    }

    /// Sets the key's state. After [`remove`](State::remove), or while the key times out, the batch fails.
    pub fn update(&mut self, state: S) {
        match self.phase {
            Phase::Open => self.held = Held::New(state),
            Phase::Removed => self.misused("a state was updated after it was removed"),
            Phase::TimingOut => self.misused("a state was updated while it timed out"),
        }
    }

    /// Forgets the key. A second time, or while the key times out, the batch fails.
    pub fn remove(&mut self) {
        match self.phase {
            Phase::Open => (self.held, self.phase) = (Held::Nothing, Phase::Removed),
            Phase::Removed => self.misused("a state was removed twice"),
            Phase::TimingOut => self.misused("a state was removed while it timed out"),
        }
    }

    /// True in the last call for a key that was idle for longer than the time-out: it has no value, and the key is
    /// forgotten afterwards.
    pub fn is_timing_out(&self) -> bool {
        self.phase == Phase::TimingOut
    }

    pub(crate) fn used_well(&self) -> Result<(), String> {
        self.misuse.map_or(Ok(()), |how| Err(format!("map_with_state: {how}")))
    }

    fn misused(&mut self, how: &'static str) {
        self.misuse.get_or_insert(how);
    }
}

/// The policy for a new key that finds no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The batch fails.
    #[default]
    Fail,
    /// The records of the new key are left out, and counted.
    DropNew,
    /// The keys that were idle for longest time out early, and are counted.
    ExpireOldest,
}

/// The limit on the number of keys of a state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyLimit {
    pub(crate) keys_max: u64,
    pub(crate) policy: WhenFull,
}

/// The options of [`map_with_state`](crate::stream::DStream::map_with_state).
#[derive(Clone, Debug)]
pub struct StateSpec<K, S> {
    pub(crate) timeout: Option<Interval>,
    pub(crate) initial: Vec<(K, S)>,
    pub(crate) limit: Option<KeyLimit>,
}

impl<K, S> Default for StateSpec<K, S> {
    fn default() -> Self {
        StateSpec { timeout: None, initial: Vec::new(), limit: None }
    }
}

impl<K, S> StateSpec<K, S> {
    /// No time-out, no initial state, no limit.
    pub fn new() -> Self {
        StateSpec::default()
    }

    /// A key that is idle for longer than this is forgotten, in the first batch where that is true.
    pub fn timeout(mut self, timeout: Interval) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The states before the first batch; of a key that is given twice the last counts. A time-out counts from one batch
    /// interval before the first batch.
    pub fn initial(mut self, initial: impl IntoIterator<Item = (K, S)>) -> Self {
        self.initial = initial.into_iter().collect();
        self
    }

    /// The most keys after a batch, and the policy for further ones.
    pub fn keys_max(mut self, keys_max: u64, policy: WhenFull) -> Self {
        self.limit = Some(KeyLimit { keys_max, policy });
        self
    }
}

/// The counts of a keyed state, as far as batches are committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// Known keys.
    pub keys: u64,
    /// Keys that were idle for longer than the time-out and were forgotten.
    pub timed_out: u64,
    /// New keys that found no room; counted once for each batch in which they came.
    pub dropped: u64,
    /// Keys that were forgotten early to make room.
    pub expired: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) keys: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) expired: AtomicU64,
}

/// The requirements on a key of a state.
pub trait StateKey:
    Clone + Hash + Eq + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<K: Clone + Hash + Eq + Serialize + DeserializeOwned + Send + Sync + 'static> StateKey for K {}

/// The requirements on a state.
pub trait StateValue: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<S: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> StateValue for S {}

/// The values of a key that a batch has brought.
pub(crate) type Group<K, V> = Entry<K, ValueList<V>>;
