//! Keyed state in hash partitions: what is committed, and the overlay of the batch that is being computed.
//!
//! ```text
//! shard r: base ─┬─▶ attempt(base, what came) = delta ─▶ ShardView { base, delta } ─▶ rows of the batch
//!                └◀─ apply(delta), by the next attempt, if the batch was committed
//! ```
//! An attempt only reads the base, so that a failed one leaves no trace. A commit hands the delta over; the worker that
//! comes next applies it, so the scheduler's thread does no work for each key. Runs on the workers.

use crate::exec::shuffle::{IncrementalTable, Slots};
use crate::exec::{Batch, Needs, Work};
use crate::stream::kept::NodeKept;
use crate::stream::plan::batch_scope::Commit;
use crate::stream::{DStream, Missing, Planner, StreamLineage};
use crate::sync::{Arc, Mutex};

/// The content of one hash partition, kept from batch to batch.
pub(crate) trait ShardState: Clone + Send + Sync + 'static {
    /// The changes of a batch.
    type Delta: Clone + Send + Sync + 'static;

    /// Applies the changes. Runs no user code but clones and drops.
    fn apply(&mut self, delta: Self::Delta);

    /// Its memory in bytes, about, without what its keys and values own; asked once a batch, so it must be known without
    /// going through it.
    fn bytes(&self) -> usize;

    /// The bytes that its keys and values own, about. Goes through all of them; asked once, when it is made.
    fn owned(&self) -> usize;

    /// The bytes that they own in addition once this is applied. The work follows the keys in it.
    fn growth(&self, delta: &Self::Delta) -> isize;

    /// The memory of what a batch changes, about, without going through it.
    fn delta_bytes(delta: &Self::Delta) -> usize;
}

/// A partition as one batch sees it.
pub(crate) struct ShardView<B: ShardState> {
    pub(crate) base: Arc<B>,
    pub(crate) delta: B::Delta,
}

impl<B: ShardState> Clone for ShardView<B> {
    fn clone(&self) -> Self {
        ShardView { base: Arc::clone(&self.base), delta: self.delta.clone() }
    }
}

/// The partitions of one node. Their number is fixed by the node's first batch.
pub(crate) struct Shards<B: ShardState>(Arc<All<B>>);

struct All<B: ShardState> {
    shards: Vec<Mutex<Shard<B>>>,
    /// Counts what they keep.
    kept: NodeKept,
}

/// Partitions of a first batch that was not committed keep nothing.
impl<B: ShardState> Drop for All<B> {
    fn drop(&mut self) {
        self.shards.iter().for_each(|shard| self.kept.change(shard.lock().counted, 0));
    }
}

impl<B: ShardState> Clone for Shards<B> {
    fn clone(&self) -> Self {
        Shards(Arc::clone(&self.0))
    }
}

struct Shard<B: ShardState> {
    base: Arc<B>,
    /// Committed and not applied yet.
    committed: Option<B::Delta>,
    /// The bytes that the keys and values of the base own.
    owned: usize,
    /// The counted bytes of all of it.
    counted: u64,
}

impl<B: ShardState> Shard<B> {
    fn new(base: B, kept: &NodeKept) -> Self {
        let owned = base.owned();
        let counted = (base.bytes() + owned) as u64;
        kept.change(0, counted);
        Shard { base: Arc::new(base), committed: None, owned, counted }
    }

    /// Takes in what was committed, and counts what there is now.
    fn settle(&mut self, kept: &NodeKept) {
        if let Some(delta) = self.committed.take() {
            self.owned = self.owned.saturating_add_signed(self.base.growth(&delta));
            // Copied only if somebody still holds the batch before.
            Arc::make_mut(&mut self.base).apply(delta);
        }
        let bytes = (self.base.bytes() + self.owned) as u64;
        kept.change(std::mem::replace(&mut self.counted, bytes), bytes);
    }
}

impl<B: ShardState> Shards<B> {
    pub(crate) fn new(bases: impl IntoIterator<Item = B>, kept: &NodeKept) -> Self {
        let shard = |base| Mutex::new(Shard::new(base, kept));
        let shards = bases.into_iter().map(shard).collect();
        Shards(Arc::new(All { shards, kept: kept.clone() }))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.shards.len()
    }

    /// The partition's content, with everything committed applied.
    pub(crate) fn base(&self, shard: usize) -> Arc<B> {
        let mut shard = self.0.shards[shard].lock();
        shard.settle(&self.0.kept);
        Arc::clone(&shard.base)
    }

    fn commit(&self, shard: usize, view: ShardView<B>) {
        let ShardView { base, delta } = view;
        drop(base);
        let kept = &self.0.kept;
        let mut shard = self.0.shards[shard].lock();
        // Every batch asks every partition, so that nothing waits here for long.
        shard.settle(kept);
        let bytes = B::delta_bytes(&delta) as u64;
        kept.change(0, bytes);
        shard.counted += bytes;
        shard.committed = Some(delta);
    }

    /// Adds a stage in which each partition makes its view, and returns the views with what commits them.
    pub(crate) fn plan(
        &self,
        cx: &mut Planner<'_>,
        attempt: impl Fn(usize, &B) -> Result<B::Delta, String> + Send + Sync + 'static,
    ) -> (Slots<ShardView<B>>, Commit) {
        let (views, attempt) = (Slots::new(self.len()), Arc::new(attempt));
        let task = |number: usize| -> Work {
            let (shards, views, attempt) = (self.clone(), views.clone(), Arc::clone(&attempt));
            Box::new(move |_| {
                let base = shards.base(number);
                let delta = attempt(number, &base)?;
                views.put(number, vec![ShardView { base, delta }]);
                Ok(())
            })
        };
        let tasks = (0..self.len()).map(task).collect();
        cx.stages.push("state", Needs::SamePartition, tasks);
        let (shards, done) = (self.clone(), views.clone());
        let commit = move || {
            for number in 0..shards.len() {
                let view = Arc::unwrap_or_clone(done.take_arc(number)).pop();
                view.into_iter().for_each(|view| shards.commit(number, view));
            }
        };
        (views, Box::new(commit))
    }
}

/// The number of a new node, and the lineage above it.
pub(crate) struct NewNode {
    pub(crate) id: u32,
    pub(crate) lineage: StreamLineage,
}

/// The node of a keyed operator with state: one element for each partition, its view.
pub(crate) fn stateful<T, B>(
    stream: &DStream<T>,
    new: NewNode,
    compute: impl Fn(
        &mut Planner<'_>,
    ) -> Result<(Result<Batch<ShardView<B>>, Missing>, Commit), Missing>
    + Send
    + Sync
    + 'static,
) -> DStream<ShardView<B>>
where
    T: ?Sized + 'static,
    B: ShardState,
{
    let NewNode { id, lineage } = new;
    let node = crate::stream::Compute(move |cx: &mut Planner<'_>| cx.stateful(id, &compute));
    let lineage = StreamLineage { state: Some(id), ..lineage.node(id) };
    stream.graph.keep(id, stream.graph.stream(lineage, node))
}

/// A key with what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Slot<K, V, X> {
    pub(crate) hash: u64,
    pub(crate) row: (K, V),
    pub(crate) extra: X,
}

/// All keys of a partition.
pub(crate) type Table<K, V, X> = IncrementalTable<Slot<K, V, X>>;

/// The change of a key in a batch.
#[derive(Clone, Debug)]
pub(crate) enum Change<K, V> {
    Same,
    Row((K, V)),
    Removed,
}

/// The changes of a batch in the keys of a partition; a `D` for each key that it touches.
#[derive(Clone, Debug)]
pub(crate) struct WriteSet<K, V, D> {
    /// By place in rising order, each once.
    pub(crate) changed: Vec<(u32, Change<K, V>, D)>,
    pub(crate) added: Vec<(u64, (K, V), D)>,
}

impl<K, V, D> Default for WriteSet<K, V, D> {
    fn default() -> Self {
        WriteSet { changed: Vec::new(), added: Vec::new() }
    }
}

impl<K, V, D> WriteSet<K, V, D> {
    /// Its memory, without what its keys and values own.
    pub(crate) fn bytes(&self) -> usize {
        self.changed.capacity() * size_of::<(u32, Change<K, V>, D)>()
            + self.added.capacity() * size_of::<(u64, (K, V), D)>()
    }

    /// The bytes that the rows of a table own in addition under this overlay; a row owns `owned` bytes.
    pub(crate) fn growth<X>(
        &self,
        table: &Table<K, V, X>,
        owned: impl Fn(&(K, V)) -> usize,
    ) -> isize {
        if !std::mem::needs_drop::<(K, V)>() {
            return 0;
        }
        let signed = |bytes: usize| isize::try_from(bytes).unwrap_or(isize::MAX);
        let known = |place: &u32| signed(owned(&table.get(*place).row));
        let changed = self.changed.iter().map(|(place, change, _)| match change {
            Change::Same => 0,
            Change::Removed => -known(place),
            Change::Row(row) => signed(owned(row)) - known(place),
        });
        let added = self.added.iter().map(|(_, row, _)| signed(owned(row)));
        changed.chain(added).sum()
    }
}

impl<K: 'static, V: 'static, D: 'static> WriteSet<K, V, D> {
    /// The rows of a table under this overlay; `old` and `new` select the visible ones.
    pub(crate) fn rows<'a, X: 'static>(
        &'a self,
        table: &'a Table<K, V, X>,
        old: impl Fn(&X) -> bool + 'a,
        new: impl Fn(&D) -> bool + 'a,
    ) -> impl Iterator<Item = &'a (K, V)> {
        let new = Arc::new(new);
        let also_new = Arc::clone(&new);
        let mut changed = self.changed.iter().peekable();
        let seen = move |(place, slot): (u32, &'a Slot<K, V, X>)| match changed
            .next_if(|(other, ..)| *other == place)
        {
            None => old(&slot.extra).then_some(&slot.row),
            Some((_, Change::Removed, _)) => None,
            Some((_, Change::Same, step)) => new(step).then_some(&slot.row),
            Some((_, Change::Row(row), step)) => new(step).then_some(row),
        };
        let added = self.added.iter().filter(move |(.., step)| also_new(step));
        table.iter().filter_map(seen).chain(added.map(|(_, row, _)| row))
    }
}
