//! `KeyedWindow`: one hash partition of a keyed window, and the changes of a batch.
//!
//! ```text
//! batch ─▶ aggregate by key ─▶ shard r: enters ─▶ [pane pane pane pane] ─▶ leaves       touched keys only
//! ```
//! With an inverse function a key's aggregate takes in what enters and gives up what leaves. Without one the panes are two
//! stacks:
//!
//! ```text
//! panes: [ f0 f1 f2 | b3 b4 ]    front: each key with what f1 .. f2 hold of it, for when f0 has left; back: what came
//! ```
//! A key's aggregate joins its front and its back, two calls whatever the length. When the front is used up the back is
//! turned, newest pane first: one call for each key of each pane, in one pass through memory, once in a window's length.
//! Either way the work of a batch follows the keys that enter and leave. Runs on the workers.

use std::collections::VecDeque;
use std::hash::Hash;

use super::span::WindowAt;
use crate::exec::shuffle::Entry;
use crate::stream::state::heap_size;
use crate::stream::state::shard::{Change, ShardState, ShardView, Slot, Table, WriteSet};
use crate::time::Time;

/// The functions that join two panes and take one back.
pub(in crate::stream) struct Rule<K, V> {
    pub(in crate::stream) join: Join<V>,
    pub(in crate::stream) inverse: Option<Join<V>>,
    pub(in crate::stream) keep: Option<Keep<K, V>>,
}

type Join<V> = Box<dyn Fn(&V, &V) -> V + Send + Sync>;
type Keep<K, V> = Box<dyn Fn(&(K, V)) -> bool + Send + Sync>;

/// One hash partition of a keyed window.
#[derive(Clone)]
pub(in crate::stream) struct KeyedWindow<K, V> {
    table: Table<K, V, Live<V>>,
    /// The batches of the window, the oldest first.
    panes: VecDeque<KeyedPane<V>>,
    /// Without an inverse function: number of panes in the front.
    front: usize,
    /// Bytes of the panes.
    pane_bytes: usize,
}

impl<K, V> Default for KeyedWindow<K, V> {
    fn default() -> Self {
        KeyedWindow { table: Table::default(), panes: VecDeque::new(), front: 0, pane_bytes: 0 }
    }
}

#[derive(Clone)]
struct KeyedPane<V> {
    time: Time,
    /// The places of its keys, in rising order, with what the pane brought; in the front, what the panes behind it that
    /// are in the front as well hold of the key.
    keys: Vec<(u32, Option<V>)>,
}

impl<V> KeyedPane<V> {
    fn bytes(&self) -> usize {
        size_of::<(u32, Option<V>)>() * self.keys.len()
    }
}

/// The data of a key beside its aggregate.
#[derive(Clone)]
struct Live<V> {
    /// Number of panes of the window that have the key.
    panes: u32,
    shown: bool,
    stacks: Stacks<V>,
}

/// The joined values of a key in the two stacks; none where there is an inverse function.
#[derive(Clone)]
struct Stacks<V> {
    front: Option<V>,
    back: Option<V>,
}

/// The change of a key in a batch.
#[derive(Clone)]
pub(in crate::stream) struct Step<V> {
    panes: u32,
    shown: bool,
    /// The batch's value of the key.
    entered: Option<V>,
    stacks: Stacks<V>,
}

/// All panes that stay, as the new front.
#[derive(Clone)]
struct Turned<V> {
    /// For each of these panes and each of its keys: what the panes behind it hold of the key.
    behind: Vec<Vec<Option<V>>>,
    /// By place: what all of them hold of the key.
    fronts: Vec<Option<V>>,
}

/// The changes of a batch in a partition.
#[derive(Clone)]
pub(in crate::stream) struct WindowDelta<K, V> {
    overlay: WriteSet<K, V, Step<V>>,
    time: Time,
    /// Number of panes that leave.
    leaving: usize,
    turned: Option<Turned<V>>,
}

impl<K, V> ShardView<KeyedWindow<K, V>>
where
    K: Clone + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(in crate::stream) fn rows(&self) -> impl Iterator<Item = &(K, V)> {
        self.delta.overlay.rows(&self.base.table, |live| live.shown, |step| step.shown)
    }
}

impl<K, V> KeyedWindow<K, V>
where
    K: Clone + Eq,
    V: Clone,
{
    /// The changes of the batch at `time` in the window: `entries` enter, panes that are `length` old leave.
    pub(super) fn next(
        &self,
        rule: &Rule<K, V>,
        entries: Vec<Entry<K, V>>,
        window: WindowAt,
    ) -> WindowDelta<K, V> {
        let leaving = self.panes.iter().take_while(|pane| window.is_past(pane.time)).count();
        let mut left: Vec<(u32, Option<&V>)> = Vec::new();
        for pane in self.panes.iter().take(leaving) {
            left.extend(pane.keys.iter().map(|(place, value)| (*place, value.as_ref())));
        }
        if leaving > 1 {
            // Stable: the values of a key stay in the order of their panes.
            left.sort_by_key(|(place, _)| *place);
        }
        let turned =
            (rule.inverse.is_none() && leaving > self.front).then(|| self.turn(rule, leaving));
        let mut overlay = WriteSet::default();
        let mut entered = Vec::with_capacity(entries.len());
        for Entry { hash, key, value } in entries {
            match self.table.find(hash, |slot| slot.row.0 == key) {
                Some(place) => entered.push((place, key, value)),
                None => {
                    let row = (key, value.clone());
                    let step = rule.first(&row, value);
                    overlay.added.push((hash, row, step));
                }
            }
        }
        entered.sort_unstable_by_key(|(place, ..)| *place);
        overlay.changed = self.changes(rule, turned.as_ref(), Moves { left: &left, entered });
        WindowDelta { overlay, time: window.time, leaving, turned }
    }

    /// Makes a new front of the panes that stay; all of them are in the back.
    fn turn(&self, rule: &Rule<K, V>, leaving: usize) -> Turned<V> {
        let mut fronts: Vec<Option<V>> = Vec::new();
        fronts.resize_with(self.table.places() as usize, || None);
        let mut behind: Vec<Vec<Option<V>>> = Vec::with_capacity(self.panes.len() - leaving);
        for pane in self.panes.range(leaving..).rev() {
            let mut turn = |(place, value): &(u32, Option<V>)| {
                let front = &mut fronts[*place as usize];
                let joined = joined(&rule.join, value.as_ref(), front.as_ref());
                std::mem::replace(front, joined)
            };
            behind.push(pane.keys.iter().map(&mut turn).collect());
        }
        behind.reverse();
        Turned { behind, fronts }
    }

    /// Merges what leaves with what enters; both are in the order of the places.
    fn changes(
        &self,
        rule: &Rule<K, V>,
        turned: Option<&Turned<V>>,
        moves: Moves<'_, K, V>,
    ) -> Vec<(u32, Change<K, V>, Step<V>)> {
        let mut changed = Vec::with_capacity(moves.left.len() + moves.entered.len());
        let (mut left, mut entered) = (moves.left, moves.entered.into_iter().peekable());
        loop {
            let place = match (left.first(), entered.peek()) {
                (None, None) => return changed,
                (Some((place, _)), None) | (None, Some((place, ..))) => *place,
                (Some((one, _)), Some((other, ..))) => *one.min(other),
            };
            let run = left.iter().take_while(|(other, _)| *other == place).count();
            let (gone, rest) = left.split_at(run);
            left = rest;
            let come = entered.next_if(|(other, ..)| *other == place);
            let slot = self.table.get(place);
            let live = &slot.extra.stacks;
            let (front, back) = match turned {
                Some(turned) => (turned.fronts[place as usize].as_ref(), None),
                None => (
                    gone.last().map_or(live.front.as_ref(), |(_, behind)| *behind),
                    live.back.as_ref(),
                ),
            };
            let (change, step) = rule.step(Known { slot, front, back }, gone, come);
            changed.push((place, change, step));
        }
    }
}

/// The keys that leave and enter a window with a batch, both in the order of their places.
struct Moves<'a, K, V> {
    left: &'a [(u32, Option<&'a V>)],
    entered: Vec<(u32, K, V)>,
}

/// A key that is known: its slot, and its values at the front and at the back.
struct Known<'a, K, V> {
    slot: &'a Slot<K, V, Live<V>>,
    front: Option<&'a V>,
    back: Option<&'a V>,
}

/// The panes that take a key with them, and the function that takes their values back.
struct Inversion<'a, V> {
    inverse: &'a Join<V>,
    /// Number of panes that stay.
    stay: u32,
    gone: &'a [(u32, Option<&'a V>)],
}

impl<K: Clone, V: Clone> Rule<K, V> {
    fn shows(&self, row: &(K, V)) -> bool {
        self.keep.as_ref().is_none_or(|keep| keep(row))
    }

    /// A key that was not known.
    fn first(&self, row: &(K, V), value: V) -> Step<V> {
        let back = self.inverse.is_none().then(|| value.clone());
        let stacks = Stacks { front: None, back };
        Step { panes: 1, shown: self.shows(row), entered: Some(value), stacks }
    }

    /// A key that some panes have taken with them, or that the batch brings.
    fn step(
        &self,
        known: Known<'_, K, V>,
        gone: &[(u32, Option<&V>)],
        come: Option<(u32, K, V)>,
    ) -> (Change<K, V>, Step<V>) {
        let Known { slot, front, back } = known;
        let (key, entered) = come.map_or((None, None), |(_, key, value)| (Some(key), Some(value)));
        let left = u32::try_from(gone.len()).expect("a key is in each pane once");
        let stay = slot.extra.panes - left;
        let panes = stay + u32::from(entered.is_some());
        let (value, stacks) = match &self.inverse {
            Some(inverse) => {
                let by = Inversion { inverse, stay, gone };
                let value = self.invert(&slot.row.1, by, entered.as_ref());
                (Some(value), Stacks::default())
            }
            None => {
                let back = joined(&self.join, back, entered.as_ref());
                let value = joined(&self.join, front, back.as_ref());
                (value, Stacks { front: front.cloned(), back })
            }
        };
        let key = key.unwrap_or_else(|| slot.row.0.clone());
        let row = value.map(|value| (key, value));
        let shown = row.as_ref().is_some_and(|row| self.shows(row));
        let step = Step { panes, shown, entered, stacks };
        match row {
            Some(row) if shown || panes > 0 => (Change::Row(row), step),
            _ => (Change::Removed, step),
        }
    }

    fn invert(&self, value: &V, by: Inversion<'_, V>, entered: Option<&V>) -> V {
        match entered {
            // Nothing else is in the window: rounding errors of what left do not stay.
            Some(entered) if by.stay == 0 => entered.clone(),
            entered => {
                let values = by.gone.iter().filter_map(|(_, value)| *value);
                let mut rest: Option<V> = None;
                for value_gone in values {
                    rest = Some((by.inverse)(rest.as_ref().unwrap_or(value), value_gone));
                }
                match entered {
                    Some(entered) => (self.join)(rest.as_ref().unwrap_or(value), entered),
                    None => rest.unwrap_or_else(|| value.clone()),
                }
            }
        }
    }
}

/// The bytes that a key and its aggregate own.
fn owned<K: Hash, V: 'static>((key, value): &(K, V)) -> usize {
    heap_size::of_key(key) + heap_size::of_any(value)
}

impl<K, V> ShardState for KeyedWindow<K, V>
where
    K: Clone + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    type Delta = WindowDelta<K, V>;

    fn bytes(&self) -> usize {
        self.table.bytes() + self.pane_bytes
    }

    fn owned(&self) -> usize {
        self.table.iter().map(|(_, slot)| owned(&slot.row)).sum()
    }

    fn growth(&self, delta: &WindowDelta<K, V>) -> isize {
        delta.overlay.growth(&self.table, owned)
    }

    fn delta_bytes(delta: &WindowDelta<K, V>) -> usize {
        delta.overlay.bytes()
    }

    fn apply(&mut self, delta: WindowDelta<K, V>) {
        let WindowDelta { overlay, time, leaving, turned } = delta;
        self.pane_bytes -= self.panes.drain(..leaving).map(|pane| pane.bytes()).sum::<usize>();
        self.front = self.front.saturating_sub(leaving);
        turned.into_iter().for_each(|turned| self.take_front(turned));
        let mut keys = Vec::with_capacity(overlay.changed.len() + overlay.added.len());
        for (place, change, step) in overlay.changed {
            let slot = self.table.get_mut(place);
            match change {
                Change::Removed => {
                    let hash = slot.hash;
                    self.table.remove(hash, place);
                    continue;
                }
                Change::Row(row) => slot.row = row,
                Change::Same => {}
            }
            slot.extra.take(step, place, &mut keys);
        }
        for (hash, row, step) in overlay.added {
            let extra = Live { panes: 0, shown: false, stacks: Stacks::default() };
            let place = self.table.insert(hash, Slot { hash, row, extra });
            self.table.get_mut(place).extra.take(step, place, &mut keys);
        }
        keys.sort_unstable_by_key(|(place, _)| *place);
        keys.shrink_to_fit();
        let pane = KeyedPane { time, keys };
        self.pane_bytes += pane.bytes();
        self.panes.push_back(pane);
    }
}

impl<K, V> KeyedWindow<K, V> {
    fn take_front(&mut self, turned: Turned<V>) {
        for (pane, behind) in self.panes.iter_mut().zip(turned.behind) {
            pane.keys.iter_mut().zip(behind).for_each(|(key, behind)| key.1 = behind);
        }
        self.front = self.panes.len();
        for (place, front) in (0..).zip(turned.fronts) {
            if front.is_some() {
                self.table.get_mut(place).extra.stacks = Stacks { front, back: None };
            }
        }
    }
}

impl<V> Live<V> {
    fn take(&mut self, step: Step<V>, place: u32, keys: &mut Vec<(u32, Option<V>)>) {
        let Step { panes, shown, entered, stacks } = step;
        (self.panes, self.shown, self.stacks) = (panes, shown, stacks);
        keys.extend(entered.map(|value| (place, Some(value))));
    }
}

impl<V> Default for Stacks<V> {
    fn default() -> Self {
        Stacks { front: None, back: None }
    }
}

/// Joins two aggregates, the older one first, as far as they exist.
fn joined<V: Clone>(join: &Join<V>, older: Option<&V>, newer: Option<&V>) -> Option<V> {
    match (older, newer) {
        (Some(older), Some(newer)) => Some(join(older, newer)),
        (one, other) => one.or(other).cloned(),
    }
}
