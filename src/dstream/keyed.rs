//! Keyed state in hash partitions: what is committed, and the overlay of the batch that is being computed.
//!
//! ```text
//! shard r: base ─┬─▶ attempt(base, what came) = delta ─▶ View { base, delta } ─▶ rows of the batch
//!                └◀─ apply(delta), by the next attempt, if the batch was committed
//! ```
//! An attempt only reads the base, so that a failed one leaves no trace. A commit hands the delta over; the worker that
//! comes next applies it, so the scheduler's thread does no work for each key. Runs on the workers.

use super::epoch::Commit;
use super::{DStream, Line, Missing, Planner};
use crate::batch::{Batch, Stage, Work};
use crate::metrics::Counter;
use crate::shuffle::{Growing, Slots};
use crate::sync::{Arc, Mutex};

/// What one hash partition keeps from batch to batch.
pub(super) trait Keeper: Clone + Send + Sync + 'static {
    /// What a batch changes.
    type Delta: Clone + Send + Sync + 'static;

    /// Changes what is kept. Runs no user code but clones and drops.
    fn apply(&mut self, delta: Self::Delta);

    /// How much memory it takes, about; asked once a batch, so it must be known without going through it.
    fn bytes(&self) -> usize;
}

/// A partition as one batch sees it.
pub(super) struct View<B: Keeper> {
    pub(super) base: Arc<B>,
    pub(super) delta: B::Delta,
}

impl<B: Keeper> Clone for View<B> {
    fn clone(&self) -> Self {
        View { base: Arc::clone(&self.base), delta: self.delta.clone() }
    }
}

/// The partitions of one node. Their number is fixed by the node's first batch.
pub(super) struct Shards<B: Keeper>(Arc<Vec<Mutex<Shard<B>>>>);

impl<B: Keeper> Clone for Shards<B> {
    fn clone(&self) -> Self {
        Shards(Arc::clone(&self.0))
    }
}

struct Shard<B: Keeper> {
    base: Arc<B>,
    /// Committed and not applied yet.
    committed: Option<B::Delta>,
    /// What is counted of it.
    bytes: u64,
}

impl<B: Keeper> Shards<B> {
    pub(super) fn new(bases: impl IntoIterator<Item = B>) -> Self {
        let shard = |base| Mutex::new(Shard { base: Arc::new(base), committed: None, bytes: 0 });
        Shards(Arc::new(bases.into_iter().map(shard).collect()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What the partition keeps, with everything committed applied; `kept` counts it.
    pub(super) fn base(&self, shard: usize, kept: &Counter) -> Arc<B> {
        let mut shard = self.0[shard].lock();
        if let Some(delta) = shard.committed.take() {
            // Copied only if somebody still holds the batch before.
            Arc::make_mut(&mut shard.base).apply(delta);
        }
        let bytes = shard.base.bytes() as u64;
        kept.add(bytes);
        kept.sub(std::mem::replace(&mut shard.bytes, bytes));
        Arc::clone(&shard.base)
    }

    fn commit(&self, shard: usize, view: View<B>) {
        let View { base, delta } = view;
        drop(base);
        let mut shard = self.0[shard].lock();
        if let Some(earlier) = shard.committed.replace(delta) {
            // Every batch asks every partition, so that nothing waits here for long.
            Arc::make_mut(&mut shard.base).apply(earlier);
        }
    }

    /// Adds a stage in which each partition makes its view, and returns the views with what commits them.
    pub(super) fn plan(
        &self,
        cx: &mut Planner<'_>,
        attempt: impl Fn(usize, &B) -> Result<B::Delta, String> + Send + Sync + 'static,
    ) -> (Slots<View<B>>, Commit) {
        let (views, attempt) = (Slots::new(self.len()), Arc::new(attempt));
        let task = |number: usize| -> Work {
            let (shards, views, attempt) = (self.clone(), views.clone(), Arc::clone(&attempt));
            let kept = Arc::clone(cx.epoch.kept());
            Box::new(move |_| {
                let base = shards.base(number, &kept);
                let delta = attempt(number, &base)?;
                views.put(number, vec![View { base, delta }]);
                Ok(())
            })
        };
        let tasks = (0..self.len()).map(task).collect();
        cx.stages.push(Stage { tasks });
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

/// The node of a keyed operator with state: one element for each partition, its view.
pub(super) fn keeping<T, B>(
    stream: &DStream<T>,
    (line, id): (Line, u32),
    compute: impl Fn(&mut Planner<'_>) -> Result<(Result<Batch<View<B>>, Missing>, Commit), Missing>
    + Send
    + Sync
    + 'static,
) -> DStream<View<B>>
where
    T: ?Sized + 'static,
    B: Keeper,
{
    let node = super::Compute(move |cx: &mut Planner<'_>| cx.keeping(id, &compute));
    let line = Line { state: Some(id), ..line.node(id) };
    stream.graph.keep(id, stream.graph.stream(line, node))
}

/// A key with what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Slot<K, V, X> {
    pub(super) hash: u64,
    pub(super) row: (K, V),
    pub(super) extra: X,
}

/// All keys of a partition.
pub(super) type Table<K, V, X> = Growing<Slot<K, V, X>>;

/// What a batch does to a key.
#[derive(Clone, Debug)]
pub(super) enum Change<K, V> {
    Same,
    Row((K, V)),
    Removed,
}

/// What a batch does to the keys of a partition; a `D` for each key that it touches.
#[derive(Clone, Debug)]
pub(super) struct Overlay<K, V, D> {
    /// By place in rising order, each once.
    pub(super) changed: Vec<(u32, Change<K, V>, D)>,
    pub(super) added: Vec<(u64, (K, V), D)>,
}

impl<K, V, D> Default for Overlay<K, V, D> {
    fn default() -> Self {
        Overlay { changed: Vec::new(), added: Vec::new() }
    }
}

impl<K: 'static, V: 'static, D: 'static> Overlay<K, V, D> {
    /// The rows of a table under this overlay; `old` and `new` say which of them are to be seen.
    pub(super) fn rows<'a, X: 'static>(
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
