//! Keyed state: a value for each key, batch after batch.
//!
//! ```text
//! batch ─▶ values by key ─▶ shard r: f for each record of the touched keys ─▶ overlay ─▶ commit
//! idle keys: oldest ◀─▶ ◀─▶ ◀─▶ youngest         a list through the keys; time-outs take from its front
//! ```
//! The work of `map_with_state` follows the touched keys and those that time out; `update_state_by_key` goes through all.
//! An attempt that fails leaves no trace, see [`shard`]; what a commit does, and what a log gets of it, is in [`commit`].
//! Runs on the workers.

pub(crate) mod capacity;
pub(crate) mod commit;
pub(crate) mod heap_size;
pub(crate) mod key_table;
pub(crate) mod shard;
pub(crate) mod spec;

use std::fmt;
use std::ops::Deref;

use super::ops::pairs::by_key;
use super::ops::value_list::ValueList;
use super::{DStream, Missing};
use crate::exec::shuffle::{Entry, Shuffle, ShuffleShape, Slots, Table};
use crate::exec::{Batch, Needs, Work};
use crate::stream::plan::wiring::Wiring;
use crate::stream::state::capacity::{LastCall, Trim, trim};
use crate::stream::state::commit::StateCommit;
use crate::stream::state::commit::store::Store;
use crate::stream::state::key_table::{KeyTable, KeyTableDelta};
use crate::stream::state::shard::{Change, NewNode, ShardView, stateful};
use crate::stream::state::spec::{
    Counters, Group, Held, Phase, State, StateCounts, StateKey, StateSpec, StateValue,
};
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::time::{Interval, Time};

/// The result of [`map_with_state`](DStream::map_with_state): by `Deref` the stream of the function's results, and beside it
/// the state of all keys. Clones are handles of the same state.
pub struct Stateful<K: StateKey, S: StateValue, U: Send + Sync + 'static> {
    stream: DStream<U>,
    views: DStream<ShardView<KeyTable<K, S, U>>>,
    counters: Arc<Counters>,
}

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

/// The stream alone, for a function that takes `impl Into<DStream<U>>` or a [`DStream`] itself. One that takes `&DStream<U>`
/// takes a `&Stateful` as it is.
///
/// ```
/// # use tidemill::{testing::ManualClock, Config, DStream, StreamingContext, stream::StateSpec};
/// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let stream = ctx.queue_stream(vec![Some(vec![('a', 1), ('b', 2)])], 1);
/// let keys: DStream<char> = stream.map_with_state(StateSpec::<_, i32>::new(), |_, key, _, _| Some(*key)).into();
/// let found = keys.count().collect();
/// ctx.run_batches(1)?;
/// assert_eq!(found.rows()[0].1, [2]);
/// # Ok::<(), tidemill::Error>(())
/// ```
impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> From<Stateful<K, S, U>> for DStream<U> {
    fn from(stateful: Stateful<K, S, U>) -> Self {
        stateful.stream
    }
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> From<&Stateful<K, S, U>> for DStream<U> {
    fn from(stateful: &Stateful<K, S, U>) -> Self {
        stateful.stream.clone()
    }
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> Stateful<K, S, U> {
    /// Names the state and the stream. A restart finds the state by this name; without one it is called `map_with_state#n`,
    /// by its place in the program.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, stream::StateSpec, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![('a', 1), ('b', 2)]), Some(vec![('b', -2)])], 1);
    /// let sums = pairs.map_with_state(StateSpec::new(), |_time, _key, value, state| {
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

    /// All keys with their states, after each batch, in no order. Its cost is linear in the known keys. In Spark Streaming
    /// this is `stateSnapshots`.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, stream::StateSpec, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![('a', 1), ('b', 2)]), Some(vec![('b', -2)])], 1);
    /// let sums = pairs.map_with_state(StateSpec::new(), |_time, _key, value, state| {
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

    /// The keys whose states a batch has set, with the states, and those that it has forgotten, with none: removed, timed
    /// out or expired. Each key comes once, as it is after the batch. Its cost follows those keys.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext, stream::StateSpec};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let stream = ctx.queue_stream(vec![Some(vec![('a', 1), ('b', 2)]), Some(vec![('b', 0)])], 1);
    /// let highest = stream.map_with_state(StateSpec::new(), |_time, _key, value, state| {
    ///     match value? {
    ///         0 => state.remove(),
    ///         value => state.update(*value.max(state.get().unwrap_or(value))),
    ///     }
    ///     Some(())
    /// });
    /// let changes = highest.changes().collect();
    /// ctx.run_batches(2)?;
    /// let mut first = changes.rows()[0].1.clone();
    /// first.sort();
    /// assert_eq!(first, [('a', Some(1)), ('b', Some(2))]);
    /// assert_eq!(changes.rows()[1].1, [('b', None)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn changes(&self) -> DStream<(K, Option<S>)> {
        self.views.flat_map(|view, out| view.changes().for_each(|change| out.push(&change)))
    }

    /// The numbers of keys that are known, were forgotten and found no room, as of the last committed batch. May be called at
    /// any time, on any thread.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, stream::StateSpec, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![('a', 1), ('b', 2)]), Some(vec![('b', -2)])], 1);
    /// let sums = pairs.map_with_state(StateSpec::new(), |_time, _key, value, state| {
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
    /// Maps each record, and the state of its key, by `f`: once for each record, those of a key in order, and once more,
    /// without a value, when the key times out. The `Some` results are the elements of the stream. `f` gets the time of the
    /// batch, the key, the value and the [`State`]. The [`StateSpec`] has the time-out, the initial states, and the limit on
    /// keys.
    ///
    /// The work of a batch follows its records and the keys that time out, not the known keys. The state changes when the
    /// batch is committed: a failed attempt leaves no trace. With a [`state_dir`](crate::Config::state_dir) it is after a
    /// restart what it was, found by its [name](Stateful::named); keys and states are written with serde. Misuse of the
    /// `State` fails the batch.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, stream::StateSpec, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![('a', 1), ('a', 2)]), Some(vec![('a', 4)])], 1);
    /// let sums = pairs.map_with_state(StateSpec::new(), |_time, key, value, state| {
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
        if let Some(timeout) = spec.timeout {
            self.graph.wire(Wiring::add_timeout);
            if timeout.is_zero() {
                self.graph.too_short("map_with_state", "time-out");
            }
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
            listed: timeout.is_some() || limit.is_some(),
        };
        let (views, counters) = self.keys(start, move |keys, groups, time| {
            Mapping { keys, f: &*f, time, timeout }.run(groups)
        });
        let stream = views.flat_map(|view, out| out.extend(view.delta.out.iter()));
        Stateful { stream: views.showing(stream), views, counters }
    }

    /// Gives each key a new state in each batch: `f` makes it of the key, the key's new values and its state, for every key
    /// that is known or has come. `None` forgets the key. The elements are all keys with their states, in no order. Its cost
    /// is linear in the known keys, whatever comes; that of [`map_with_state`](DStream::map_with_state) follows the records.
    /// Commits and restarts are as there; the state's name is that of the [stream](DStream::named).
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![('a', 1), ('a', 2)]), Some(vec![])], 1);
    /// let sum = |_: &char, values: &[i32], sum: Option<&i32>| Some(sum.unwrap_or(&0) + values.iter().sum::<i32>());
    /// let sums = pairs.update_state_by_key(sum).collect();
    /// ctx.run_batches(2)?;
    /// assert_eq!(sums.rows()[1].1, [('a', 3)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn update_state_by_key<S: StateValue>(
        &self,
        f: impl Fn(&K, &[V], Option<&S>) -> Option<S> + Send + Sync + 'static,
    ) -> DStream<(K, S)> {
        self.update_state_by_key_with([], move |_, key, values, state| f(key, values, state))
    }

    /// [`update_state_by_key`](DStream::update_state_by_key) with the states before the first batch, and with the batch's
    /// time for `f`. Of a key that is given twice the last state counts; states that a start restores count instead of all
    /// these.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext, Time};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let stream = ctx.queue_stream(vec![Some(vec![('a', 1), ('a', 2)]), Some(vec![])], 1);
    /// // A sum, and the second in which it last changed.
    /// let sum = |time: Time, _: &char, values: &[u64], state: Option<&(u64, u64)>| {
    ///     let (sum, since) = *state.unwrap_or(&(0, 0));
    ///     let since = if values.is_empty() { since } else { time.as_millis() / 1_000 };
    ///     Some((sum + values.iter().sum::<u64>(), since))
    /// };
    /// let sums = stream.update_state_by_key_with([('a', (10, 0))], sum).collect();
    /// ctx.run_batches(2)?;
    /// assert_eq!(sums.rows()[1].1, [('a', (13, 1))]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn update_state_by_key_with<S: StateValue>(
        &self,
        initial: impl IntoIterator<Item = (K, S)>,
        f: impl Fn(Time, &K, &[V], Option<&S>) -> Option<S> + Send + Sync + 'static,
    ) -> DStream<(K, S)> {
        let start = Start {
            kind: "update_state_by_key",
            initial: initial.into_iter().collect(),
            trim: None,
            skip_same: true,
            listed: false,
        };
        let (views, _) = self.keys::<S, (), _>(start, move |keys, groups, time| {
            Ok(keys.update_all(time, groups, &f))
        });
        views.showing(views.flat_map(|view, out| view.rows().for_each(|row| out.push(row))))
    }

    /// The node: the values of each key go to its partition, where `attempt` makes a delta of them.
    #[expect(clippy::type_complexity, reason = "a stream and its counters")]
    fn keys<S: StateValue, U: Send + Sync + 'static, F>(
        &self,
        start: Start<K, S, U>,
        attempt: F,
    ) -> (DStream<ShardView<KeyTable<K, S, U>>>, Arc<Counters>)
    where
        F: Fn(&KeyTable<K, S, U>, Vec<Group<K, V>>, Time) -> Result<KeyTableDelta<K, S, U>, String>
            + Send
            + Sync
            + 'static,
    {
        let id = self.graph.next_node();
        let Start { kind, initial, trim, skip_same, listed } = start;
        let kept = self.graph.kept.of(id);
        let store = Arc::new(Store::<K, S, U>::new(initial, listed, kept));
        let counters = Arc::clone(&store.counters);
        self.graph.add_stateful(id, kind);
        let number =
            self.graph.add_changelog(id, Store::<K, S, U>::holds(), Arc::clone(&store) as _);
        let (node, memory) = (Arc::clone(&self.node), Shuffle::<K, ValueList<V>>::default());
        let group = Arc::new((
            |value: &V| ValueList::One(value.clone()),
            |all: &mut ValueList<V>, value: &V| all.push(value.clone()),
        ));
        let attempt = Arc::new(attempt);
        let trim = trim.map(Arc::new);
        let lineage = self.lineage.below_state();
        let views = stateful(self, NewNode { id, lineage }, move |cx| {
            if store.passes_over(cx.replay, cx.input.index) {
                return Ok((Ok(Batch::from_iter([])), Box::new(|| {})));
            }
            let known = store.before(cx);
            let (shards, before) = (known.shards.clone(), known.keys);
            let groups = match node.compute(cx) {
                Ok(batch) => {
                    let inputs = batch.partitions().len();
                    let shape = ShuffleShape { shards: shards.len(), ..cx.shape(inputs) };
                    let tables = memory.begin(&cx.scope.account(), shape, ValueList::extend);
                    let inputs = cx.folds(&batch, 0, by_key(&tables, cx.settings.seed, &group));
                    let rows = |groups: &mut Table<K, ValueList<V>>| groups.drain().collect();
                    tables.plan_slots(&mut cx.stages, inputs, rows)
                }
                Err(Missing::NoBatch(_)) => Slots::new(0),
                Err(missing) => return Err(missing),
            };
            let (attempt, time) = (Arc::clone(&attempt), cx.input.time);
            let (views, apply) = shards.plan(cx, move |shard, keys: &KeyTable<K, S, U>| {
                attempt(keys, groups.take(shard), time)
            });
            if let Some(trim) = &trim {
                let (trim, views) = (Arc::clone(trim), views.clone());
                let task: Work = Box::new(move |_| trim(&views, before));
                cx.stages.push("trim", Needs::AllPartitions, vec![task]);
            }
            let commit = StateCommit { store: Arc::clone(&store), number, skip_same };
            let commit = commit.plan(cx, &views, known, apply);
            Ok((Ok(views.batch()), commit))
        });
        (views, counters)
    }
}

/// The options of a node of keys.
struct Start<K: StateKey, S: StateValue, U: Send + Sync + 'static> {
    kind: &'static str,
    initial: Vec<(K, S)>,
    trim: Option<Trim<K, S, U>>,
    /// As in [`StateCommit`].
    skip_same: bool,
    /// True if keys are forgotten by their age. Otherwise the list would only cost memory accesses.
    listed: bool,
}

/// This many keys are looked up before the first of them is used: with a table that is in no cache the look-ups wait for
/// memory, and so they wait at the same time.
const AHEAD: usize = 32;

/// One attempt of `map_with_state` at a partition.
struct Mapping<'a, K, S, U, F> {
    keys: &'a KeyTable<K, S, U>,
    f: &'a F,
    time: Time,
    timeout: Option<Interval>,
}

impl<K: StateKey, S: StateValue, U, F> Mapping<'_, K, S, U, F> {
    fn run<V>(&self, groups: Vec<Group<K, V>>) -> Result<KeyTableDelta<K, S, U>, String>
    where
        F: Fn(Time, &K, Option<&V>, &mut State<'_, S>) -> Option<U>,
    {
        let mut delta = KeyTableDelta::new(self.time);
        delta.overlay.changed.reserve(groups.len());
        let (mut groups, mut places) = (groups.into_iter(), Vec::with_capacity(AHEAD));
        while !groups.as_slice().is_empty() {
            let ahead = groups.as_slice().iter().take(AHEAD);
            places.extend(ahead.map(|group| self.keys.find(group.hash, &group.key)));
            for (place, group) in places.drain(..).zip(&mut groups) {
                self.group(group, place, &mut delta)?;
            }
        }
        delta.sort();
        self.expire(&mut delta)?;
        Ok(delta)
    }

    /// The records of one key.
    fn group<V>(
        &self,
        group: Group<K, V>,
        place: Option<u32>,
        delta: &mut KeyTableDelta<K, S, U>,
    ) -> Result<(), String>
    where
        F: Fn(Time, &K, Option<&V>, &mut State<'_, S>) -> Option<U>,
    {
        let Entry { hash, key, value } = group;
        let turn = delta.turn();
        let out_from = delta.out.len();
        let known = place.map(|place| &self.keys.table.get(place).row.1);
        let held = self.records(&key, value.as_slice(), known, delta)?;
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

    /// Calls the function for each record of a key and returns the key's state after them.
    fn records<'s, V>(
        &self,
        key: &K,
        values: &[V],
        known: Option<&'s S>,
        delta: &mut KeyTableDelta<K, S, U>,
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
    fn expire<V>(&self, delta: &mut KeyTableDelta<K, S, U>) -> Result<(), String>
    where
        F: Fn(Time, &K, Option<&V>, &mut State<'_, S>) -> Option<U>,
    {
        let Some(timeout) = self.timeout else { return Ok(()) };
        let mut old: Vec<u32> = Vec::new();
        for place in self.keys.by_age() {
            let last = self.keys.table.get(place).extra.touch.last;
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
