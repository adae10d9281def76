//! The policies that are options of a stream: what becomes of a batch that failed, and of blocks that have no room in memory.
//! Plain data; read by the thread that builds the stream. Carries nothing out.

use std::path::PathBuf;

/// The policy for a batch that failed: a task that panicked or returned an error, or a sink whose failure does not pass. A
/// failed batch is made again from its input; state changes of the failed attempt leave no trace.
///
/// ```
/// use tidemill::Config;
/// use tidemill::config::{OnFailure, Then};
///
/// let policy = OnFailure { retries: 0, then: Then::DeadLetter };
/// let config = Config::new("orders").on_failure(policy).dead_letter_directory("/var/lib/orders");
/// assert_eq!(OnFailure::default(), OnFailure { retries: 3, then: Then::Stop });
/// # assert!(config.resolve().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnFailure {
    /// The number of times that a failed job of a batch is tried again; 3 by default. With zero its first failure counts.
    pub retries: u32,
    /// The last resort, when no try is left; to stop by default.
    pub then: Then,
}

/// The last resort for a batch that has no try left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The stream stops with [`Error::Batch`](crate::Error::Batch). With a state directory the next start runs the batch again.
    Stop,
    /// The batch's input goes to a file that a `files` source can read back, is counted, and the stream goes on. The batch's
    /// rows are missing in the outputs of the job that failed.
    DeadLetter,
}

impl Default for OnFailure {
    /// Three retries, then stop.
    fn default() -> Self {
        OnFailure { retries: 3, then: Then::Stop }
    }
}

/// The files of blocks that do not fit into memory, as decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spill {
    /// The directory; the files are in a subdirectory named for the stream.
    pub directory: PathBuf,
    /// The most bytes of files in it.
    pub bytes_max: u64,
}
