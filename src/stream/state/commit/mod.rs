//! The changelog of keyed states: the changes of each batch in bytes, and the way back.
//!
//! ```text
//! batch ─▶ overlay ─┬─▶ commit
//!                   └─▶ parts: [a slice of compaction: keys as they were before the batch] [the keys that it touched]
//! compaction: ▷────▷────▷──▷    through all keys, a slice with each batch: what lies before its start is needed no more
//! ```
//! A part holds the states of keys, not their changes: parts in order, from the first batch of all or from the start of a
//! compaction to its end and on, give the states exactly. The work follows the touched
//! keys; no batch ever writes all keys at once. Encoding runs on the workers, commits on the scheduler's thread. It does
//! not know who keeps the bytes, and checks all of them.

mod apply;
pub(in crate::stream) mod buffer;
mod census;
mod changelog;
mod compaction;
pub(super) mod entry;
mod log;
mod part;
mod restore;
pub(super) mod store;

pub(crate) use self::census::{Census, Counting};
pub(in crate::stream) use self::changelog::Changelog;
pub use self::changelog::{Changes, StateInfo};
pub(in crate::stream) use self::compaction::Compactor;
pub use self::restore::Restore;
use super::key_table::KeyTable;
use super::shard::ShardView;
use super::spec::{StateKey, StateValue};
use crate::exec::Stage;
use crate::exec::Work;
use crate::exec::shuffle::Slots;
use crate::stream::Planner;
use crate::stream::state::commit::store::Store;
use crate::sync::Arc;

/// Writes the changes of one state for the log.
pub(super) struct Saving<K: StateKey, S: StateValue, U: Send + Sync + 'static> {
    pub(super) store: Arc<Store<K, S, U>>,
    /// The number of the state.
    pub(super) number: u32,
    pub(super) skip_same: bool,
}

impl<K: StateKey, S: StateValue, U: Send + Sync + 'static> Saving<K, S, U> {
    /// Adds the stage that encodes the batch's changes, if those are kept; returns its part of the commit.
    pub(super) fn plan(
        self,
        cx: &mut Planner<'_>,
        views: &Slots<ShardView<KeyTable<K, S, U>>>,
    ) -> Box<dyn FnOnce() + Send> {
        let Saving { store, number, skip_same } = self;
        let Some(buffer) = cx.scope.changelog() else { return Box::new(|| {}) };
        if cx.replay.is_some() {
            // Its changes are kept already; the compaction continues with the first batch whose changes are written.
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
        cx.stages.push(Stage { tasks: (0..views.len()).map(task).collect() });
        Box::new(move || {
            let parts = encoded.take_all().into_iter().flatten().collect();
            store.committed(parts, number, &mut buffer.lock());
        })
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests;
