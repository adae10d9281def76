//! The limit on the number of keys of a state; it is enforced once all partitions have made their views. Runs on one worker,
//! between two stages.

use super::key_table::KeyTable;
use super::shard::ShardView;
use super::spec::{KeyLimit, State, StateKey, StateValue, WhenFull};
use crate::exec::shuffle::Slots;
use crate::sync::Arc;
use crate::time::Time;

/// Keeps the number of keys within its limit, once all partitions have made their views; it gets the number before.
pub(crate) type Trim<K, S, U> =
    Box<dyn Fn(&Slots<ShardView<KeyTable<K, S, U>>>, u64) -> Result<(), String> + Send + Sync>;

/// The call for a key that is forgotten.
pub(crate) type LastCall<K, S, U> =
    Box<dyn Fn(Time, &K, &mut State<'_, S>) -> Option<U> + Send + Sync>;

pub(crate) fn trim<K: StateKey, S: StateValue, U: Send + Sync + 'static>(
    views: &Slots<ShardView<KeyTable<K, S, U>>>,
    before: u64,
    limit: KeyLimit,
    last_call: &LastCall<K, S, U>,
) -> Result<(), String> {
    let KeyLimit { keys_max, policy } = limit;
    let counts = |slot| {
        views
            .at(slot)
            .first()
            .map_or((0, 0), |view| (view.delta.counts.added, view.delta.counts.removed))
    };
    let (added, removed) =
        (0..views.len()).map(counts).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let over = (before + added).saturating_sub(removed.saturating_add(keys_max));
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

/// Forgets the keys of all partitions that were idle for longest; returns the number that could not be found.
pub(crate) fn expire_oldest<K: StateKey, S: StateValue, U: Send + Sync + 'static>(
    views: &mut [ShardView<KeyTable<K, S, U>>],
    over: u64,
    last_call: &LastCall<K, S, U>,
) -> Result<u64, String> {
    let over = usize::try_from(over).unwrap_or(usize::MAX);
    let mut oldest: Vec<(Time, usize, u32)> = Vec::new();
    for (number, view) in views.iter().enumerate() {
        let idle = view.base.by_age().filter(|place| !view.delta.touches(*place));
        let aged = |place| (view.base.table.get(place).extra.touch.last, number, place);
        oldest.extend(idle.map(aged).take(over));
    }
    // Stable: keys of one age go in the order of the partitions and of their lists.
    oldest.sort_by_key(|(last, ..)| *last);
    oldest.truncate(over);
    let found = oldest.len();
    for (_, number, place) in oldest {
        let ShardView { base, delta } = &mut views[number];
        delta.forget(&base.table.get(place).row, place, |time, key, state| {
            last_call(time, key, state)
        })?;
        delta.counts.expired += 1;
    }
    views.iter_mut().for_each(|view| view.delta.sort());
    Ok((over - found) as u64)
}
