//! Keyed state: what is known of each key, batch after batch.
//!
//! ```text
//! batch ─▶ values by key ─▶ shard r: f for each record of the touched keys ─▶ overlay ─▶ commit
//! idle keys: oldest ◀─▶ ◀─▶ ◀─▶ youngest         a list through the keys; time-outs take from its front
//! ```
//! The work of `map_with_state` follows the touched keys and those that time out; `update_state_by_key` goes through all.
//! An attempt that fails leaves no trace, see [`keyed`](super::keyed). Runs on the workers.

use std::fmt;
use std::hash::Hash;
use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keyed::{Change, Keeper, Overlay, Shards, Slot, Table, View, keeping};
use super::pairs::mappers;
use super::saved::{self, Store};
use super::{DStream, Missing, Planner, Replay};
use crate::batch::{Batch, Stage, Work};
use crate::shuffle::{Entry, Gather, Shuffle, Slots, hash_of, shard_of};
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::time::{Interval, Time};

/// The state of one key, as `map_with_state` hands it to the function.
pub struct State<'a, S> {
    held: Held<'a, S>,
    phase: Phase,
    misuse: Option<&'static str>,
}

enum Held<'a, S> {
    Nothing,
    Committed(&'a S),
    New(S),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
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
    fn new(held: Held<'a, S>, phase: Phase) -> Self {
        State { held, phase, misuse: None }
    }

    /// What is known of the key; nothing if it is new or was removed.
    pub fn get(&self) -> Option<&S> {
        match &self.held {
            Held::Nothing => None,
            Held::Committed(state) => Some(state),
            Held::New(state) => Some(state),
        }
    }

    /// Whether anything is known of the key.
    pub fn exists(&self) -> bool {
        self.get().is_some()
    }

    /// Sets what is known of the key. After [`remove`](State::remove), or while the key times out, the batch fails.
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

    /// Whether this is the last call for a key that was idle for longer than the time-out: it has no value, and the key is
    /// forgotten afterwards.
    pub fn is_timing_out(&self) -> bool {
        self.phase == Phase::TimingOut
    }

    fn used_well(&self) -> Result<(), String> {
        self.misuse.map_or(Ok(()), |how| Err(format!("map_with_state: {how}")))
    }

    fn misused(&mut self, how: &'static str) {
        self.misuse.get_or_insert(how);
    }
}

/// What happens when a new key comes and there is no room for it.
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

/// The options of [`map_with_state`](DStream::map_with_state).
#[derive(Clone, Debug)]
pub struct StateSpec<K, S> {
    timeout: Option<Interval>,
    initial: Vec<(K, S)>,
    limit: Option<(u64, WhenFull)>,
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

    /// What is known before the first batch; of a key that is given twice the last counts. A time-out counts from one batch
    /// interval before the first batch.
    pub fn initial(mut self, initial: impl IntoIterator<Item = (K, S)>) -> Self {
        self.initial = initial.into_iter().collect();
        self
    }

    /// At most so many keys after a batch, and what happens to further ones.
    pub fn keys_max(mut self, keys_max: u64, policy: WhenFull) -> Self {
        self.limit = Some((keys_max, policy));
        self
    }
}

/// What a keyed state has come to, as far as batches are committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// Keys that are known.
    pub keys: u64,
    /// Keys that were idle for longer than the time-out and were forgotten.
    pub timed_out: u64,
    /// New keys that found no room; counted once for each batch in which they came.
    pub dropped: u64,
    /// Keys that were forgotten early to make room.
    pub expired: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) keys: AtomicU64,
    timed_out: AtomicU64,
    dropped: AtomicU64,
    expired: AtomicU64,
}

/// What [`map_with_state`](DStream::map_with_state) returns: the stream of what the function made, and the state.
pub struct Stateful<K: StateKey, S: StateValue, U: Send + Sync + 'static> {
    stream: DStream<U>,
    views: DStream<View<Keys<K, S, U>>>,
    counters: Arc<Counters>,
}

/// What a key of a state must be able to do.
pub trait StateKey:
    Clone + Hash + Eq + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<K: Clone + Hash + Eq + Serialize + DeserializeOwned + Send + Sync + 'static> StateKey for K {}

/// What a state must be able to do.
pub trait StateValue: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<S: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> StateValue for S {}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> Clone for Stateful<K, S, U> {
    fn clone(&self) -> Self {
        Stateful {
            stream: self.stream.clone(),
            views: self.views.clone(),
            counters: Arc::clone(&self.counters),
        }
    }
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> fmt::Debug for Stateful<K, S, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stateful").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> Deref for Stateful<K, S, U> {
    type Target = DStream<U>;

    fn deref(&self) -> &DStream<U> {
        &self.stream
    }
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> Stateful<K, S, U> {
    /// Names the state, and the stream: by this name the state is found again after a restart.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext, dstream::StateSpec};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// # let stream = ctx.queue_stream(vec![Some(vec![('a', 1), ('b', 2)]), Some(vec![('b', -2)])], 1);
    /// let sums = stream.map_with_state(StateSpec::new(), |_time, _key, value, state| {
    ///     state.update(state.get().unwrap_or(&0) + value?);
    ///     Some(())
    /// });
    /// let rows = sums.named("sums").collect();
    /// ctx.run_batches(1)?;
    /// assert_eq!(rows.rows()[0].1.len(), 2);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Stateful { stream: self.stream.named(name), ..self.clone() }
    }

    /// All keys with their states, after each batch. Its cost is linear in the known keys.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext, dstream::StateSpec};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// # let stream = ctx.queue_stream(vec![Some(vec![('a', 1), ('b', 2)]), Some(vec![('b', -2)])], 1);
    /// let sums = stream.map_with_state(StateSpec::new(), |_time, _key, value, state| {
    ///     state.update(state.get().unwrap_or(&0) + value?);
    ///     Some(())
    /// });
    /// let all = sums.snapshots().collect();
    /// ctx.run_batches(2)?;
    /// let mut last = all.rows()[1].1.clone();
    /// last.sort();
    /// assert_eq!(last, [('a', 1), ('b', 0)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn snapshots(&self) -> DStream<(K, S)> {
        self.views.flat_map(|view, out| view.rows().for_each(|row| out.push(row)))
    }

    /// How many keys are known, were forgotten and found no room.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext, dstream::StateSpec};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// # let stream = ctx.queue_stream(vec![Some(vec![('a', 1), ('b', 2)]), Some(vec![('b', -2)])], 1);
    /// let sums = stream.map_with_state(StateSpec::new(), |_time, _key, value, state| {
    ///     state.update(state.get().unwrap_or(&0) + value?);
    ///     Some(())
    /// });
    /// sums.collect();
    /// ctx.run_batches(2)?;
    /// assert_eq!(sums.counts().keys, 2);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn counts(&self) -> StateCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StateCounts {
            keys: of(&self.counters.keys),
            timed_out: of(&self.counters.timed_out),
            dropped: of(&self.counters.dropped),
            expired: of(&self.counters.expired),
        }
    }
}

impl<K: StateKey, V: Clone + Send + Sync + 'static> DStream<(K, V)> {
    /// What `f` makes of each record and what is known of its key. `f` is called for each record, those of a key in order,
    /// with the batch's time; and once more, without a value, when the key times out.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext, dstream::StateSpec};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// # let stream = ctx.queue_stream(vec![Some(vec![('a', 1), ('a', 2)]), Some(vec![('a', 4)])], 1);
    /// let sums = stream.map_with_state(StateSpec::new(), |_time, key, value, state| {
    ///     let sum = state.get().unwrap_or(&0) + value?;
    ///     state.update(sum);
    ///     Some((*key, sum))
    /// });
    /// let (rows, all) = (sums.collect(), sums.snapshots().collect());
    /// ctx.run_batches(2)?;
    /// assert_eq!(rows.rows()[0].1, [('a', 1), ('a', 3)]);
    /// assert_eq!(all.rows()[1].1, [('a', 7)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn map_with_state<S: StateValue, U: Send + Sync + 'static>(
        &self,
        spec: StateSpec<K, S>,
        f: impl Fn(Time, &K, Option<&V>, &mut State<'_, S>) -> Option<U> + Send + Sync + 'static,
    ) -> Stateful<K, S, U> {
        if spec.timeout.is_some() {
            self.graph.epoch.add_timeout();
        }
        let (f, timeout, limit) = (Arc::new(f), spec.timeout, spec.limit);
        let last_call = Arc::clone(&f);
        let start = Start {
            kind: "map_with_state",
            initial: spec.initial,
            // Planned only if there is a limit: most batches do not come near it.
            trim: limit.map(|limit| -> Trim<K, S, U> {
                let call: LastCall<K, S, U> =
                    Box::new(move |time, key, state| last_call(time, key, None, state));
                Box::new(move |views, before| trim(views, before, limit, &call))
            }),
            skip_same: false,
        };
        let (views, counters) = self.keys(start, move |keys, groups, time| {
            Mapping { keys, f: &*f, time, timeout }.run(groups)
        });
        let stream = views.flat_map(|view, out| out.extend(view.delta.out.iter()));
        Stateful { stream: views.showing(stream), views, counters }
    }

    /// What `f` makes, in each batch, of the values that have come for a key and what was known of it: for every key that
    /// is known or has come. None forgets the key. Its cost is linear in the known keys, whatever comes; see
    /// [`map_with_state`](DStream::map_with_state) for one that follows the records.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// # let stream = ctx.queue_stream(vec![Some(vec![('a', 1), ('a', 2)]), Some(vec![])], 1);
    /// let sum = |_: &char, values: &[i32], sum: Option<&i32>| Some(sum.unwrap_or(&0) + values.iter().sum::<i32>());
    /// let sums = stream.update_state_by_key(sum).collect();
    /// ctx.run_batches(2)?;
    /// assert_eq!(sums.rows()[1].1, [('a', 3)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn update_state_by_key<S: StateValue>(
        &self,
        f: impl Fn(&K, &[V], Option<&S>) -> Option<S> + Send + Sync + 'static,
    ) -> DStream<(K, S)> {
        let start =
            Start { kind: "update_state_by_key", initial: Vec::new(), trim: None, skip_same: true };
        let (views, _) = self
            .keys::<S, ()>(start, move |keys, groups, time| Ok(keys.update_all(time, groups, &f)));
        views.showing(views.flat_map(|view, out| view.rows().for_each(|row| out.push(row))))
    }

    /// The node: the values of each key go to its partition, where `attempt` makes a delta of them.
    #[expect(clippy::type_complexity, reason = "a stream and its counters")]
    fn keys<S: StateValue, U: Send + Sync + 'static>(
        &self,
        start: Start<K, S, U>,
        attempt: impl Fn(&Keys<K, S, U>, Vec<Group<K, V>>, Time) -> Result<KeysDelta<K, S, U>, String>
        + Send
        + Sync
        + 'static,
    ) -> (DStream<View<Keys<K, S, U>>>, Arc<Counters>) {
        let id = self.graph.next_node();
        let Start { kind, initial, trim, skip_same } = start;
        let store = Arc::new(Store::<K, S, U>::new(initial));
        let counters = Arc::clone(&store.counters);
        self.graph.add_stateful(id, kind);
        let number = self.graph.add_saved(id, Store::<K, S, U>::holds(), Arc::clone(&store) as _);
        let (node, memory) = (Arc::clone(&self.node), Shuffle::<K, Vec<V>>::default());
        let group = Arc::new((
            |value: &V| vec![value.clone()],
            |all: &mut Vec<V>, value: &V| all.push(value.clone()),
        ));
        let attempt = Arc::new(attempt);
        let trim = trim.map(Arc::new);
        let line = self.line.below_state();
        let views = keeping(self, (line, id), move |cx| {
            if cx.replay == Some(Replay::Windows) {
                return Ok((Ok(Batch::from_iter([])), Box::new(|| {})));
            }
            let begin = || {
                let initial = std::mem::take(&mut *store.initial.lock());
                store.begin(Keys::begin(cx, initial, &store.counters))
            };
            let shards: Shards<Keys<K, S, U>> =
                store.shards.lock().get_or_insert_with(begin).clone();
            let groups = match node.compute(cx) {
                Ok(batch) => {
                    let (mappers, shape) =
                        (mappers(cx, &batch, &group), (Gather::ByPartition, shards.len()));
                    let rows =
                        |table: &mut crate::shuffle::Table<K, Vec<V>>| table.drain().collect();
                    memory.plan_slots(cx.shuffled(), mappers, shape, Vec::extend, rows)
                }
                Err(Missing::NoBatch(_)) => Slots::new(0),
                Err(missing) => return Err(missing),
            };
            let (attempt, time) = (Arc::clone(&attempt), cx.input.time);
            let (views, apply) = shards.plan(cx, move |shard, keys: &Keys<K, S, U>| {
                attempt(keys, groups.take(shard), time)
            });
            if let Some(trim) = &trim {
                let (trim, views) = (Arc::clone(trim), views.clone());
                let before = store.counters.keys.load(Ordering::Relaxed);
                let task: Work = Box::new(move |_| trim(&views, before));
                cx.stages.push(Stage { tasks: vec![task] });
            }
            let save = save(cx, (&store, number), &views, skip_same);
            let (deltas, store) = (views.clone(), Arc::clone(&store));
            let commit = move || {
                for shard in 0..deltas.len() {
                    deltas.at(shard).iter().for_each(|view| store.counters.add(&view.delta.counts));
                }
                drop(deltas);
                save();
                apply();
            };
            Ok((Ok(views.batch()), Box::new(commit)))
        });
        (views, counters)
    }
}

/// Adds the stage that writes down what the batch changes, if that is kept; returns what its commit does about it.
fn save<K: StateKey, S: StateValue, U: Send + Sync + 'static>(
    cx: &mut Planner<'_>,
    (store, number): (&Arc<Store<K, S, U>>, u32),
    views: &Slots<View<Keys<K, S, U>>>,
    skip_same: bool,
) -> Box<dyn FnOnce() + Send> {
    let Some(left) = cx.epoch.left() else { return Box::new(|| {}) };
    if cx.replay.is_some() {
        // What it changes is kept already; the walk goes on with the first batch whose changes are.
        let store = Arc::clone(store);
        return Box::new(move || store.is_known());
    }
    let encoded = Slots::new(views.len());
    let task = |shard: usize| -> Work {
        let (store, views, encoded) = (Arc::clone(store), views.clone(), encoded.clone());
        Box::new(move |_| {
            let part: Result<Vec<_>, String> =
                views.at(shard).iter().map(|view| store.encode(shard, view, skip_same)).collect();
            encoded.put(shard, part?);
            Ok(())
        })
    };
    cx.stages.push(Stage { tasks: (0..views.len()).map(task).collect() });
    let store = Arc::clone(store);
    Box::new(move || {
        let parts = encoded.take_all().into_iter().flatten().collect();
        store.committed(parts, number, &mut left.lock());
    })
}

/// The values of a key that a batch has brought.
type Group<K, V> = Entry<K, Vec<V>>;

/// What a node of keys is made from.
struct Start<K: StateKey, S: StateValue, U: Send + Sync + 'static> {
    kind: &'static str,
    initial: Vec<(K, S)>,
    trim: Option<Trim<K, S, U>>,
    /// States that a batch leaves as they are need not be saved again, although the batch touches the key.
    skip_same: bool,
}

/// Keeps the number of keys within its limit, once all partitions have made their views; it is told the number before.
type Trim<K, S, U> =
    Box<dyn Fn(&Slots<View<Keys<K, S, U>>>, u64) -> Result<(), String> + Send + Sync>;

/// The call for a key that is forgotten.
type LastCall<K, S, U> = Box<dyn Fn(Time, &K, &mut State<'_, S>) -> Option<U> + Send + Sync>;

fn trim<K: StateKey, S: StateValue, U: Send + Sync + 'static>(
    views: &Slots<View<Keys<K, S, U>>>,
    before: u64,
    (keys_max, policy): (u64, WhenFull),
    last_call: &LastCall<K, S, U>,
) -> Result<(), String> {
    let counts = |slot| {
        views
            .at(slot)
            .first()
            .map_or((0, 0), |view| (view.delta.counts.added, view.delta.counts.removed))
    };
    let (added, removed) =
        (0..views.len()).map(counts).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let over = (before + added).saturating_sub(removed + keys_max);
    if over == 0 {
        return Ok(());
    }
    let full =
        |text: &str| Err(format!("map_with_state: {text} than keys_max = {keys_max} allows"));
    let take = |slot| Arc::unwrap_or_clone(views.take_arc(slot)).pop();
    let mut all: Vec<_> = (0..views.len()).filter_map(take).collect();
    let left = match policy {
        WhenFull::Fail => return full("more keys"),
        WhenFull::DropNew => {
            // The last partitions lose theirs first: any fixed order will do.
            all.iter_mut().rev().fold(over, |over, view| over - view.delta.drop_new(over))
        }
        WhenFull::ExpireOldest => expire_oldest(&mut all, over, last_call)?,
    };
    for (slot, view) in all.into_iter().enumerate() {
        views.put(slot, vec![view]);
    }
    if left > 0 { full("more keys in one batch") } else { Ok(()) }
}

/// Forgets the keys of all partitions that were idle for longest; returns how many too few there were.
fn expire_oldest<K: StateKey, S: StateValue, U: Send + Sync + 'static>(
    views: &mut [View<Keys<K, S, U>>],
    over: u64,
    last_call: &LastCall<K, S, U>,
) -> Result<u64, String> {
    let over = usize::try_from(over).unwrap_or(usize::MAX);
    let mut oldest: Vec<(Time, usize, u32)> = Vec::new();
    for (number, view) in views.iter().enumerate() {
        let idle = view.base.by_age().filter(|place| !view.delta.touches(*place));
        let aged = |place| (view.base.table.get(place).extra.last, number, place);
        oldest.extend(idle.map(aged).take(over));
    }
    // Stable: keys of one age go in the order of the partitions and of their lists.
    oldest.sort_by_key(|(last, ..)| *last);
    oldest.truncate(over);
    let found = oldest.len();
    for (_, number, place) in oldest {
        let View { base, delta } = &mut views[number];
        delta.forget(&base.table.get(place).row, place, |time, key, state| {
            last_call(time, key, state)
        })?;
        delta.counts.expired += 1;
    }
    views.iter_mut().for_each(|view| view.delta.sort());
    Ok((over - found) as u64)
}

/// What a batch does to the number of keys.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    added: u64,
    removed: u64,
    timed_out: u64,
    dropped: u64,
    expired: u64,
}

impl Counters {
    fn add(&self, counts: &Counts) {
        self.keys.fetch_add(counts.added, Ordering::Relaxed);
        self.keys.fetch_sub(counts.removed, Ordering::Relaxed);
        self.timed_out.fetch_add(counts.timed_out, Ordering::Relaxed);
        self.dropped.fetch_add(counts.dropped, Ordering::Relaxed);
        self.expired.fetch_add(counts.expired, Ordering::Relaxed);
    }
}

/// The states of one hash partition, with a list of its keys by the time when they were last touched.
pub(super) struct Keys<K, S, U> {
    pub(super) table: Table<K, S, Idle>,
    /// The ends of the list: the longest idle, the last touched.
    ends: Option<(u32, u32)>,
    out: std::marker::PhantomData<fn() -> U>,
}

impl<K: Clone, S: Clone, U> Clone for Keys<K, S, U> {
    fn clone(&self) -> Self {
        Keys { table: self.table.clone(), ends: self.ends, out: self.out }
    }
}

/// When a key was last touched, and its neighbours in the list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    pub(super) last: Time,
    /// Its turn among the keys that the batch `last` touched: the list is in this order, also after a restart.
    pub(super) turn: u32,
    older: u32,
    younger: u32,
}

/// No neighbour: a table holds fewer than 2^32 keys.
const NONE: u32 = u32::MAX;

/// What a batch does to a partition.
pub(super) struct KeysDelta<K, S, U> {
    /// With the turn of each key that is touched.
    pub(super) overlay: Overlay<K, S, u32>,
    pub(super) time: Time,
    turns: u32,
    out: Arc<Vec<U>>,
    /// What the records of the new keys made: ranges of `out`.
    out_of_added: Vec<std::ops::Range<usize>>,
    counts: Counts,
}

impl<K, S, U> KeysDelta<K, S, U> {
    fn new(time: Time) -> Self {
        let (overlay, out_of_added) = (Overlay::default(), Vec::new());
        let (out, counts) = (Arc::default(), Counts::default());
        KeysDelta { overlay, time, turns: 0, out, out_of_added, counts }
    }

    /// The turn of the next key that is touched.
    fn turn(&mut self) -> u32 {
        self.turns += 1;
        self.turns - 1
    }

    /// Whether the batch has changed the key; the changes are in order.
    fn touches(&self, place: u32) -> bool {
        self.overlay.changed.binary_search_by_key(&place, |(other, ..)| *other).is_ok()
    }

    fn sort(&mut self) {
        self.overlay.changed.sort_unstable_by_key(|(place, ..)| *place);
    }

    fn push(&mut self, out: Option<U>) {
        Arc::get_mut(&mut self.out).expect("nobody reads a delta that is being made").extend(out);
    }

    /// Forgets the last of the new keys, with what their records made: as many as there are, at most `over`.
    fn drop_new(&mut self, over: u64) -> u64 {
        let new = self.overlay.added.len();
        let gone = usize::try_from(over).unwrap_or(usize::MAX).min(new);
        self.overlay.added.truncate(new - gone);
        let out = Arc::get_mut(&mut self.out).expect("nobody reads a delta that is being made");
        for range in self.out_of_added.drain(new - gone..).rev() {
            out.drain(range);
        }
        self.counts.added -= gone as u64;
        self.counts.dropped += gone as u64;
        gone as u64
    }

    /// Forgets a key after its last call.
    fn forget(
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

impl<K: Clone, S: Clone, U> Clone for KeysDelta<K, S, U> {
    fn clone(&self) -> Self {
        KeysDelta {
            overlay: self.overlay.clone(),
            time: self.time,
            turns: self.turns,
            out: Arc::clone(&self.out),
            out_of_added: self.out_of_added.clone(),
            counts: self.counts,
        }
    }
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> View<Keys<K, S, U>> {
    fn rows(&self) -> impl Iterator<Item = &(K, S)> {
        self.delta.overlay.rows(&self.base.table, |_| true, |_| true)
    }
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> Keeper for Keys<K, S, U> {
    type Delta = KeysDelta<K, S, U>;

    fn bytes(&self) -> usize {
        self.table.bytes()
    }

    fn apply(&mut self, delta: KeysDelta<K, S, U>) {
        let KeysDelta { overlay, time, turns, .. } = delta;
        // The list takes the keys in the order of their turns, whatever their places: places change at a restart.
        let mut by_turn = vec![NONE; turns as usize];
        for (place, change, turn) in overlay.changed {
            self.unlink(place);
            match change {
                Change::Removed => {
                    let hash = self.table.get(place).hash;
                    self.table.remove(hash, place);
                    continue;
                }
                Change::Row(row) => self.table.get_mut(place).row = row,
                Change::Same => {}
            }
            by_turn[turn as usize] = place;
        }
        for (hash, row, turn) in overlay.added {
            by_turn[turn as usize] = self.insert(hash, row, (time, turn));
        }
        for (turn, place) in (0..).zip(by_turn).filter(|(_, place)| *place != NONE) {
            self.link(place, (time, turn));
        }
    }
}

impl<K: StateKey, S: StateValue, U> Keys<K, S, U> {
    /// So many partitions without a key.
    pub(super) fn empty(shards: usize) -> Vec<Self> {
        let empty = |_| Keys { table: Table::default(), ends: None, out: std::marker::PhantomData };
        (0..shards).map(empty).collect()
    }

    /// Partitions with what is known before the first batch.
    fn begin(cx: &Planner<'_>, initial: Vec<(K, S)>, counters: &Counters) -> Vec<Self> {
        let mut shards = Self::empty(cx.shards());
        let (seed, zero) = (cx.settings.seed, cx.epoch.zero());
        for (turn, row) in (0..).zip(initial) {
            let hash = hash_of(seed, &row.0);
            let shard = &mut shards[shard_of(hash, cx.shards())];
            match shard.find(hash, &row.0) {
                Some(place) => shard.table.get_mut(place).row = row,
                None => {
                    let place = shard.insert(hash, row, (zero, turn));
                    shard.link(place, (zero, turn));
                    counters.keys.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        shards
    }

    pub(super) fn find(&self, hash: u64, key: &K) -> Option<u32> {
        self.table.find(hash, |slot| slot.row.0 == *key)
    }

    /// Takes in what was saved of a key. The list is made at the end. A key that is not there may have been touched: it
    /// comes with a later slice of the walk.
    pub(super) fn take(&mut self, hash: u64, entry: saved::Entry<K, S>) {
        match entry {
            saved::Entry::Removed(key) => {
                if let Some(place) = self.find(hash, &key) {
                    self.table.remove(hash, place);
                }
            }
            saved::Entry::Touched(key, touch) => {
                if let Some(place) = self.find(hash, &key) {
                    let extra = &mut self.table.get_mut(place).extra;
                    (extra.last, extra.turn) = touch;
                }
            }
            saved::Entry::Set(key, state, touch) => match self.find(hash, &key) {
                Some(place) => {
                    let slot = self.table.get_mut(place);
                    slot.row.1 = state;
                    (slot.extra.last, slot.extra.turn) = touch;
                }
                None => drop(self.insert(hash, (key, state), touch)),
            },
        }
    }

    /// Adds a key that is not there yet, and not in the list yet.
    fn insert(&mut self, hash: u64, row: (K, S), (last, turn): (Time, u32)) -> u32 {
        let extra = Idle { last, turn, older: NONE, younger: NONE };
        self.table.insert(hash, Slot { hash, row, extra })
    }

    /// Puts a key at the young end of the list.
    fn link(&mut self, place: u32, (last, turn): (Time, u32)) {
        let older = self.ends.map_or(NONE, |(_, youngest)| youngest);
        self.table.get_mut(place).extra = Idle { last, turn, older, younger: NONE };
        if older != NONE {
            self.table.get_mut(older).extra.younger = place;
        }
        self.ends = Some((self.ends.map_or(place, |(oldest, _)| oldest), place));
    }

    /// Puts all keys into the list, which is empty: by the time and the turn of their last touch.
    pub(super) fn link_all(&mut self) {
        let aged =
            |(place, slot): (u32, &Slot<K, S, Idle>)| (slot.extra.last, slot.extra.turn, place);
        let mut all: Vec<_> = self.table.iter().map(aged).collect();
        all.sort_unstable();
        all.into_iter().for_each(|(last, turn, place)| self.link(place, (last, turn)));
    }

    fn unlink(&mut self, place: u32) {
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
    fn by_age(&self) -> impl Iterator<Item = u32> {
        let younger = |place: &u32| {
            Some(self.table.get(*place).extra.younger).filter(|younger| *younger != NONE)
        };
        std::iter::successors(self.ends.map(|(oldest, _)| oldest), younger)
    }

    /// Every known key and every new one goes through `f`.
    fn update_all<V>(
        &self,
        time: Time,
        groups: Vec<Group<K, V>>,
        f: &impl Fn(&K, &[V], Option<&S>) -> Option<S>,
    ) -> KeysDelta<K, S, U> {
        let mut delta = KeysDelta::new(time);
        let KeysDelta { overlay, counts, turns, .. } = &mut delta;
        let mut turn = move || {
            *turns += 1;
            *turns - 1
        };
        let mut touched: Vec<(u32, Vec<V>)> = Vec::new();
        for Entry { hash, key, value } in groups {
            match self.find(hash, &key) {
                Some(place) => touched.push((place, value)),
                None => {
                    if let Some(state) = f(&key, &value, None) {
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
            let change = match f(key, values.as_deref().unwrap_or_default(), Some(state)) {
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

/// One attempt of `map_with_state` at a partition.
struct Mapping<'a, K, S, U, F> {
    keys: &'a Keys<K, S, U>,
    f: &'a F,
    time: Time,
    timeout: Option<Interval>,
}

impl<K: StateKey, S: StateValue, U, F> Mapping<'_, K, S, U, F> {
    fn run<V>(&self, groups: Vec<Group<K, V>>) -> Result<KeysDelta<K, S, U>, String>
    where
        F: Fn(Time, &K, Option<&V>, &mut State<'_, S>) -> Option<U>,
    {
        let mut delta = KeysDelta::new(self.time);
        for group in groups {
            self.group(group, &mut delta)?;
        }
        delta.sort();
        self.expire(&mut delta)?;
        Ok(delta)
    }

    /// The records of one key.
    fn group<V>(&self, group: Group<K, V>, delta: &mut KeysDelta<K, S, U>) -> Result<(), String>
    where
        F: Fn(Time, &K, Option<&V>, &mut State<'_, S>) -> Option<U>,
    {
        let Entry { hash, key, value } = group;
        let turn = delta.turn();
        let (place, out_from) = (self.keys.find(hash, &key), delta.out.len());
        let known = place.map(|place| &self.keys.table.get(place).row.1);
        let held = self.records(&key, &value, known, delta)?;
        let Some(place) = place else {
            if let Held::New(state) = held {
                delta.overlay.added.push((hash, (key, state), turn));
                delta.out_of_added.push(out_from..delta.out.len());
                delta.counts.added += 1;
            }
            return Ok(());
        };
        let change = match held {
            Held::Committed(_) => Change::Same,
            Held::New(state) => Change::Row((key, state)),
            Held::Nothing => {
                delta.counts.removed += 1;
                Change::Removed
            }
        };
        delta.overlay.changed.push((place, change, turn));
        Ok(())
    }

    /// Calls the function for each record of a key and returns what is known of the key then.
    fn records<'s, V>(
        &self,
        key: &K,
        values: &[V],
        known: Option<&'s S>,
        delta: &mut KeysDelta<K, S, U>,
    ) -> Result<Held<'s, S>, String>
    where
        F: Fn(Time, &K, Option<&V>, &mut State<'_, S>) -> Option<U>,
    {
        let mut held = known.map_or(Held::Nothing, Held::Committed);
        for value in values {
            let mut state = State::new(held, Phase::Open);
            delta.push((self.f)(self.time, key, Some(value), &mut state));
            state.used_well()?;
            held = state.held;
        }
        Ok(held)
    }

    /// The keys that are idle for too long and were not touched now get their last call.
    fn expire<V>(&self, delta: &mut KeysDelta<K, S, U>) -> Result<(), String>
    where
        F: Fn(Time, &K, Option<&V>, &mut State<'_, S>) -> Option<U>,
    {
        let Some(timeout) = self.timeout else { return Ok(()) };
        let mut old: Vec<u32> = Vec::new();
        for place in self.keys.by_age() {
            let last = self.keys.table.get(place).extra.last;
            if self.time.as_millis().saturating_sub(last.as_millis()) <= timeout.as_millis() {
                break;
            }
            if !delta.touches(place) {
                old.push(place);
            }
        }
        for place in old {
            let row = &self.keys.table.get(place).row;
            delta.forget(row, place, |time, key, state| (self.f)(time, key, None, state))?;
            delta.counts.timed_out += 1;
        }
        delta.sort();
        Ok(())
    }
}
