//! The jobs that a child process of the scorecard can have: their names on its command line.

use clap::ValueEnum;

/// The jobs of children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Reads and discards in the kernel.
    Discard,
    /// The bare loop that counts line feeds.
    Lines,
    /// The same loop, which keeps what came for an interval.
    Kept,
    /// The engine up to sealed blocks; the batch does nothing with them.
    Sealed,
    /// The engine with the job `count` into the null sink.
    Count,
    /// The tuned single thread that counts words.
    Words,
    /// The engine with the job `wordcount`.
    Wordcount,
    /// Two threads that wake each other.
    HandOver,
    /// The engine's batches, one after the other, by its own events.
    Batches,
    /// The number of blocks in each batch of `Batches`.
    Blocks,
    /// Batches of keyed records, one after the other.
    Keyed,
    /// Writes this many bytes and syncs them, nothing else.
    RawSync,
    /// Reads a log and checks it, nothing else.
    ReadLog,
    /// The engine started over a log, up to the end of the first batch.
    Recover,
    /// A bare poller that accepts and discards, until it is killed.
    Poller,
    /// Listens, and writes what comes to files, until it is killed.
    ToFiles,
}
