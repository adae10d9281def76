//! A state's commit: what becomes of the changes that a batch makes in the states of an operator.
//!
//! ```text
//! batch, on the workers     attempt ─▶ delta ─▶ 1 touched keys in bytes, behind a slice of compaction   part, store
//! commit, on the scheduler  2 counters   3 parts ─▶ changelog buffer   4 delta ─▶ shard                 mod
//! then, on the scheduler    5 the buffer ─▶ Changes, which may begin or end a compaction ─▶ log         log, compaction
//! next batch, on a worker   6 delta ─▶ base, change by change ──┐                                       shard
//! restart                   log ─▶ parts, key by key ───────────┴─▶ KeyTable::apply_change              restore, apply
//! ```
//! On the right, the files. Steps 1, 3 and 5 are left out without a log, and where a batch runs again: its changes are in the
//! log. An attempt that fails gets no further than step 1, which changes nothing.
//!
//! ```text
//! part:        [a slice of compaction: keys as they were before the batch] [the keys that the batch touched]
//! compaction:  ▷────▷────▷──▷    through all keys, a slice with each batch: what lies before its start is needed no more
//! ```
//! A part holds the states of keys, not their changes: parts in order, from the first batch of all or from the start of a
//! complete compaction on, give the states exactly. The work follows the touched keys; no batch ever writes all keys at once.

mod apply;
pub(in crate::stream) mod buffer;
mod census;
pub(in crate::stream) mod changelog;
mod compaction;
pub(super) mod entry;
mod log;
mod part;
mod restore;
pub(super) mod store;

pub(crate) use self::census::{Census, Counting};
pub(in crate::stream) use self::changelog::Changelog;
pub use self::changelog::StateInfo;
pub(in crate::stream) use self::compaction::Compactor;
use super::key_table::KeyTable;
use super::shard::ShardView;
use super::spec::{StateKey, StateValue};
use crate::exec::shuffle::Slots;
use crate::exec::{Needs, Work};
use crate::stream::Planner;
use crate::stream::plan::batch_scope::Commit;
use crate::stream::state::commit::store::{Known, Store};
use crate::sync::Arc;

/// The commit of one state, as its operator plans it.
pub(super) struct StateCommit<K: StateKey, S: StateValue, U: Send + Sync + 'static> {
    pub(super) store: Arc<Store<K, S, U>>,
    /// The number of the state.
    pub(super) number: u32,
    /// True if a state that the batch leaves as it is need not go to the log, although the batch touches its key.
    pub(super) skip_same: bool,
}

/// The partitions of a state, as a batch leaves them.
type Views<K, S, U> = Slots<ShardView<KeyTable<K, S, U>>>;

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> StateCommit<K, S, U> {
    /// Adds the stage that encodes the batch's changes, if there is a log, and returns the commit. `known` is what the batch
    /// found; `apply` hands the changes to the shards.
    pub(super) fn plan(
        self,
        cx: &mut Planner<'_>,
        views: &Views<K, S, U>,
        known: Known<K, S, U>,
        apply: Commit,
    ) -> Commit {
        let (deltas, store) = (views.clone(), Arc::clone(&self.store));
        let log = self.plan_log(cx, views);
        Box::new(move || {
            store.install(known);
            for shard in 0..deltas.len() {
                deltas.at(shard).iter().for_each(|view| store.counters.add(&view.delta.counts));
            }
            // The shards need not copy what nobody else holds.
            drop(deltas);
            log();
            apply();
        })
    }

    /// The part of the log.
    fn plan_log(self, cx: &mut Planner<'_>, views: &Views<K, S, U>) -> Commit {
        let StateCommit { store, number, skip_same } = self;
        let Some(buffer) = cx.scope.changelog() else { return Box::new(|| {}) };
        if cx.replay.is_some() {
            // Its changes are in the log; compaction continues with the first batch whose changes are written.
            return Box::new(move || store.is_known());
        }
        let encoded = Slots::new(views.len());
        let task = |shard: usize| -> Work {
            let (store, views, encoded) = (Arc::clone(&store), views.clone(), encoded.clone());
            Box::new(move |_| {
                let encode = |view| store.encode(shard, view, skip_same);
                let part: Result<Vec<_>, String> = views.at(shard).iter().map(encode).collect();
                encoded.put(shard, part?);
                Ok(())
            })
        };
        let tasks = (0..views.len()).map(task).collect();
        cx.stages.push("save", Needs::SamePartition, tasks);
        Box::new(move || {
            let parts = encoded.take_all().into_iter().flatten().collect();
            store.committed(parts, number, &mut buffer.lock());
        })
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests;
