//! Whose state and output it is: the identity of a state directory.
//!
//! An identity is 128 random bits, drawn when the directory is made and kept in it for good. A directory that was made
//! before identities existed gets one that follows from the seed and the first tick that it drew then, so that a start
//! which ends before it has written the identity down is followed by one that finds the same. Pure but for the draw.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// The identity of a state directory, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateId(pub(crate) [u8; 16]);

impl StateId {
    /// A new one.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub(crate) fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|err| {
            Error::Failed(format!("cannot draw the identity of a state directory: {err}"))
        })?;
        Ok(StateId(bytes))
    }

    /// The identity of a directory that was made before identities existed.
    pub(crate) fn of_seed(pipeline: &str, seed: u64, anchor: u64) -> Self {
        let mut hash = Sha256::new_with_prefix(b"tidemill state 1\0");
        hash.update(seed.to_le_bytes());
        hash.update(anchor.to_le_bytes());
        hash.update(pipeline);
        StateId(first_half(&hash.finalize()))
    }

    /// The first eight digits: enough for people to tell directories apart.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 128 of the bits of a SHA-256.
fn first_half(hash: &[u8]) -> [u8; 16] {
    hash[..16].try_into().expect("a hash has 32 bytes")
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn identities_differ_and_are_shown() {
        let id = StateId([0xAB; 16]);
        assert_eq!((id.to_string(), id.short()), ("ab".repeat(16), "abababab".to_owned()));
        assert_ne!(StateId::random().expect("drawn"), StateId::random().expect("drawn"));
    }

    #[test]
    fn the_identity_of_an_old_directory_follows_from_what_it_drew() {
        let of = StateId::of_seed;
        assert_eq!(of("p", 7, 1_000), of("p", 7, 1_000));
        let others = [of("p", 8, 1_000), of("p", 7, 1_001), of("q", 7, 1_000)];
        assert!(others.iter().all(|other| *other != of("p", 7, 1_000)));
        // It is what directories are found again by: never to change.
        assert_eq!(of("p", 7, 1_000).to_string(), "6ba19faf43ebcb5d8a74aeddbd1b8678");
    }
}
