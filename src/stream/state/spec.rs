//! A user's view of a keyed state: its types, `State`, `StateSpec`, and the counts of its keys. Knows no batch.

use std::fmt;
use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exec::shuffle::Entry;
use crate::stream::ops::value_list::ValueList;
use crate::sync::AtomicU64;
use crate::time::Interval;

/// The state of one key, as [`map_with_state`](crate::stream::DStream::map_with_state) hands it to the function. The methods
/// look at the state and change it; a change counts when the batch is committed.
///
/// ```
/// # use tidemill::{testing::ManualClock, stream::StateSpec, Config, StreamingContext};
/// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// // A session collects words until it says "end", or until nothing came for more than two seconds.
/// let words = vec![Some(vec![('a', "to"), ('b', "or")]), Some(vec![('a', "be"), ('a', "end")])];
/// let spec = StateSpec::new().timeout(tidemill::Interval::secs(2));
/// let sessions = ctx.queue_stream(words, 1).map_with_state(spec, |_time, key, word, state| {
///     let text: String = state.get().cloned().unwrap_or_default();
///     if state.is_timing_out() {
///         return Some(format!("{key} timed out: {text}"));
///     }
///     assert!(state.exists() || text.is_empty());
///     match *word? {
///         "end" => state.remove(),
///         word => state.update(text.clone() + word),
///     }
///     (!state.exists()).then(|| format!("{key} ended: {text}"))
/// });
/// let ends = sessions.collect();
/// ctx.run_batches(4)?;
/// let ends: Vec<String> = ends.rows().into_iter().flat_map(|(_, rows)| rows).collect();
/// assert_eq!(ends, ["a ended: tobe", "b timed out: or"]);
/// # Ok::<(), tidemill::Error>(())
/// ```
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
    /// Nothing was done to it in this call.
    Open,
    Updated,
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

    /// Sets the key's state. After [`remove`](State::remove), or while the key times out, this is misuse: the batch fails.
    pub fn update(&mut self, state: S) {
        match self.phase {
            Phase::Open | Phase::Updated => {
                (self.held, self.phase) = (Held::New(state), Phase::Updated);
            }
            Phase::Removed => self.misused("a state was updated after it was removed"),
            Phase::TimingOut => self.misused("a state was updated while it timed out"),
        }
    }

    /// Forgets the key. A second time, or while the key times out, this is misuse: the batch fails.
    pub fn remove(&mut self) {
        match self.phase {
            Phase::Open | Phase::Updated => {
                (self.held, self.phase) = (Held::Nothing, Phase::Removed);
            }
            Phase::Removed => self.misused("a state was removed twice"),
            Phase::TimingOut => self.misused("a state was removed while it timed out"),
        }
    }

    /// True if this call of the function has set the state, and not removed it since. The next call for the key begins anew.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, stream::{State, StateSpec}, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let stream = ctx.queue_stream(vec![Some(vec![('a', 1), ('a', 1), ('a', 5), ('a', 0)])], 1);
    /// /// Keeps the highest value; 0 forgets it.
    /// fn keep(state: &mut State<'_, i32>, value: i32) {
    ///     match value {
    ///         0 => state.remove(),
    ///         _ if state.get().is_none_or(|highest| *highest < value) => state.update(value),
    ///         _ => {}
    ///     }
    /// }
    /// let kept = stream.map_with_state(StateSpec::new(), |_time, _key, value, state| {
    ///     keep(state, *value?);
    ///     Some((state.updated(), state.removed()))
    /// });
    /// let kept = kept.collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(kept.rows()[0].1, [(true, false), (false, false), (true, false), (false, true)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn updated(&self) -> bool {
        self.phase == Phase::Updated
    }

    /// True if this call of the function has removed the state; an example is at [`updated`](State::updated).
    pub fn removed(&self) -> bool {
        self.phase == Phase::Removed
    }

    /// True in the last call for a key that was idle for longer than the time-out. That call has no value, and the key is
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

/// The policy for a new key that finds no room: see [`StateSpec::keys_max`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The batch fails.
    #[default]
    Fail,
    /// The records of the new key are left out, and the key is counted ([`StateCounts::dropped`]).
    DropNew,
    /// The keys that were idle for longest time out early, and are counted ([`StateCounts::expired`]).
    ExpireOldest,
}

/// The limit on the number of keys of a state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyLimit {
    pub(crate) keys_max: u64,
    pub(crate) policy: WhenFull,
}

/// The options of [`map_with_state`](crate::stream::DStream::map_with_state): a time-out, initial states, and a limit on the
/// keys. None of them by default.
///
/// ```
/// # use tidemill::{testing::ManualClock, stream::{StateSpec, WhenFull}, Config, StreamingContext};
/// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let spec = StateSpec::new()
///     .timeout(tidemill::Interval::secs(30))
///     .initial([('a', 10)])
///     .keys_max(1_000_000, WhenFull::ExpireOldest);
/// let pairs = ctx.queue_stream(vec![Some(vec![('a', 1), ('b', 2)])], 1);
/// let sums = pairs.map_with_state(spec, |_time, key, value, state| {
///     let sum = state.get().unwrap_or(&0) + value?;
///     state.update(sum);
///     Some((*key, sum))
/// });
/// let rows = sums.collect();
/// ctx.run_batches(1)?;
/// let mut rows = rows.rows().remove(0).1;
/// rows.sort();
/// assert_eq!(rows, [('a', 11), ('b', 2)]);
/// # Ok::<(), tidemill::Error>(())
/// ```
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
    /// The options of a state without time-out, initial states and limit.
    pub fn new() -> Self {
        StateSpec::default()
    }

    /// Forgets a key that was idle for longer than `timeout`, in the first batch where that is true, after a last call of the
    /// function. Idle is the time from the last batch with a record of the key.
    pub fn timeout(mut self, timeout: Interval) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Gives keys a state before the first batch; of a key that is given twice the last counts. Their time-outs count from
    /// one batch interval before the first batch. A restart that finds the state takes none of them.
    pub fn initial(mut self, initial: impl IntoIterator<Item = (K, S)>) -> Self {
        self.initial = initial.into_iter().collect();
        self
    }

    /// Limits the keys that are known after a batch to `keys_max`; `policy` says what becomes of further ones. A batch with more
    /// different keys than that fails with `ExpireOldest`, and fails again in each attempt: choose a limit far above the keys of
    /// one batch.
    pub fn keys_max(mut self, keys_max: u64, policy: WhenFull) -> Self {
        self.limit = Some(KeyLimit { keys_max, policy });
        self
    }
}

/// The counts of a keyed state, as of the last committed batch: see [`Stateful::counts`](crate::stream::Stateful::counts).
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

/// The requirements on the key of a state: it is compared, kept, and written with serde. Every type that meets them has the
/// trait.
pub trait StateKey:
    Clone + Hash + Eq + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<K: Clone + Hash + Eq + Serialize + DeserializeOwned + Send + Sync + 'static> StateKey for K {}

/// The requirements on a state: it is kept, and written with serde. Every type that meets them has the trait. A type of your
/// own derives what serde needs, from your own crate `serde` or from the one that Tidemill hands on:
///
/// ```
/// use tidemill::serde::{Deserialize, Serialize};
/// use tidemill::{Config, StreamingContext, stream::StateSpec, testing::ManualClock};
///
/// #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
/// #[serde(crate = "tidemill::serde")]
/// struct Total {
///     count: u64,
///     sum: i64,
/// }
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let stream = ctx.queue_stream(vec![Some(vec![('a', 2), ('a', 3)])], 1);
/// let totals = stream.map_with_state(StateSpec::new(), |_time, _key, value, state| {
///     let mut total: Total = state.get().cloned().unwrap_or_default();
///     total.count += 1;
///     total.sum += value?;
///     state.update(total.clone());
///     Some(total)
/// });
/// let totals = totals.collect();
/// ctx.run_batches(1)?;
/// assert_eq!(totals.rows()[0].1[1], Total { count: 2, sum: 5 });
/// # Ok::<(), tidemill::Error>(())
/// ```
pub trait StateValue: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<S: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> StateValue for S {}

/// The values of a key that a batch has brought.
pub(crate) type Group<K, V> = Entry<K, ValueList<V>>;
