//! The policies that are options of a stream: what becomes of a batch that failed, and of blocks that have no room in memory.
//! Plain data; read by the thread that builds the stream. Carries nothing out.

use std::path::PathBuf;

/// The policy for a batch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnFailure {
    /// The number of times that a failed batch is tried again.
    pub retries: u32,
    /// The last resort, when no try is left.
    pub then: Then,
}

/// The last resort for a batch that has no try left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The stream stops with the batch's error.
    Stop,
    /// The batch's input goes to a file, is counted, and the stream goes on.
    DeadLetter,
}

impl Default for OnFailure {
    /// Three retries, then stop.
    fn default() -> Self {
        OnFailure { retries: 3, then: Then::Stop }
    }
}

/// The files of blocks that do not fit into memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spill {
    /// The directory; the files are in a subdirectory named for the stream.
    pub directory: PathBuf,
    /// The most bytes of files in it.
    pub bytes_max: u64,
}
