//! `Entry`: what a part of saved states says of one key. Plain data.

use crate::time::Time;

/// What a part says of a key.
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
