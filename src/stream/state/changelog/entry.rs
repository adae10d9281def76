//! `Entry`: the record of one key in a part of saved states. Plain data.

use crate::time::Time;

/// The record of one key in a part.
pub(crate) enum Entry<K, S> {
    Removed(K),
    /// Touched by this batch, in this turn; the state is as it was.
    Touched(K, (Time, u32)),
    /// The state, and when the key was last touched.
    Set(K, S, (Time, u32)),
}

impl<K, S> Entry<K, S> {
    pub(crate) fn key(&self) -> &K {
        let (Entry::Removed(key) | Entry::Touched(key, _) | Entry::Set(key, ..)) = self;
        key
    }
}
