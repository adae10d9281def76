//! `census`: the number of keys of a state and their bytes, from the parts that a log kept, without its types: for messages
//! about a state that the program does not have.

use std::collections::HashMap;

use super::part::{REMOVED, Reader, SET, TOUCHED};
use crate::exec::shuffle::hash_of;

/// The size of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) keys: u64,
    /// Bytes of the keys and their states, as they are written down.
    pub(crate) bytes: u64,
}

/// Counts while parts come in, in order.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    /// The bytes of each key with its state, by the key's hash: one key in 2^32 may be missed, nothing rests on it.
    sizes: HashMap<u64, usize>,
}

impl Counting {
    /// Takes the next part in.
    ///
    /// # Errors
    /// If the bytes are not what was written.
    pub(crate) fn take(&mut self, part: &[u8]) -> Result<(), String> {
        let mut reader = Reader::open(part)?;
        while let Some((tag, rest)) = reader.rest.split_first() {
            reader.rest = rest;
            let key = reader.bytes("key")?;
            let hash = hash_of(0, key);
            match *tag {
                REMOVED => drop(self.sizes.remove(&hash)),
                TOUCHED => drop(reader.touch()?),
                SET => {
                    reader.touch()?;
                    let state = reader.bytes("state")?;
                    self.sizes.insert(hash, key.len() + state.len());
                }
                tag => return Err(format!("{tag} is no kind of change")),
            }
        }
        Ok(())
    }

    pub(crate) fn census(&self) -> Census {
        let bytes = self.sizes.values().map(|size| *size as u64).sum();
        Census { keys: self.sizes.len() as u64, bytes }
    }
}
