//! `Entry`: the record of one key in a part of a changelog. Plain data.

use crate::time::Time;

/// The last touch of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Touch {
    /// The batch that touched it.
    pub(crate) last: Time,
    /// Its turn among the keys that this batch touched: lists are in this order, also after a restart.
    pub(crate) turn: u32,
}

/// The record of one key in a part.
pub(crate) enum Entry<K, S> {
    Removed(K),
    /// Touched by this batch, in this turn; the state is as it was.
    Touched(K, Touch),
    /// The state, and when the key was last touched.
    Set(K, S, Touch),
}

impl<K, S> Entry<K, S> {
    pub(crate) fn key(&self) -> &K {
        let (Entry::Removed(key) | Entry::Touched(key, _) | Entry::Set(key, ..)) = self;
        key
    }
}
