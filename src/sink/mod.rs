//! Sinks: where the rows of a job go. One sink is one file and one row of [`SINKS`].
//!
//! A sink's obligations: `committed` is asked first, and a committed key is not written again; `write` may be followed
//! by another `write` of the same key after a failure, so nothing counts before `commit`. Sinks are called by the
//! worker that finishes a job, one at a time, and do not know who calls them.

mod console;
mod dead_letter;
mod file;
mod formatted;
mod memory;
mod null;
mod pieces;
mod rolling;
mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(not(feature = "sqlite"))]
#[path = "sqlite_absent.rs"]
mod sqlite;

use std::collections::HashMap;
use std::fmt;

use crate::error::Result;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::time::Time;

pub use console::{Console, Format, ROWS_SHOWN, Writer};
pub use dead_letter::{DeadLetter, DeadLetterFiles, DeadLetters};
pub use file::{Existing, File};
pub use formatted::{FileFormat, LineFeeds};
pub use memory::{Memory, MemoryHandle, OwnedCell};
pub use null::Null;
pub use rolling::Roll;
pub use rows::{Cell, Cells, Row, RowRef, RowWriter, Rows};
pub use sqlite::{SQLITE_COMPILED, Sqlite};

/// A row of the table of sinks.
#[derive(Debug)]
pub struct SinkKind {
    /// The name in pipeline files.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
}

/// Every sink there is.
pub const SINKS: &[SinkKind] = &[
    SinkKind {
        name: "console",
        about: "prints each batch on standard output, as text or as JSON lines",
    },
    SinkKind { name: "file", about: "writes a file for each batch, whole or not at all" },
    SinkKind {
        name: "sqlite",
        about: "adds the rows to a table of an SQLite database (feature `sqlite`)",
    },
    SinkKind { name: "memory", about: "keeps the rows in memory, for tests" },
    SinkKind { name: "null", about: "drops the rows, for measurements" },
];

/// What is committed at once: the rows of one job and batch in one partition of the output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommitKey {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The job's name.
    pub job: Arc<str>,
    /// The batch.
    pub time: Time,
    /// The partition of the output.
    pub partition: u32,
}

/// What a batch took until its rows were handed to the sinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchMeta {
    /// Records of the batch's input.
    pub records: u64,
    /// Microseconds from the batch's nominal moment to the start of its first task.
    pub scheduling_delay_us: u64,
    /// Microseconds from there until the rows were handed over.
    pub processing_us: u64,
    /// Microseconds from the nominal moment until the rows were handed over.
    pub total_us: u64,
    /// The batch, or one that a window of the job reaches back to, went on without input that was lost.
    pub incomplete: bool,
}

/// Where rows go.
pub trait Sink: Send {
    /// How many rows of a batch, from the first on, make a difference to this sink. A job with ordered rows may leave the
    /// others out, and then need not sort them.
    fn rows_max(&self) -> usize {
        usize::MAX
    }

    /// Where it writes, as `KIND:PLACE`; the same place has the same text, also at the next start.
    fn place(&self) -> Option<String> {
        None
    }

    /// Called before the start if texts in the rows may hold line feeds, as far as the sources tell whose records lead here: any
    /// source but one of lines. Sinks whose rows are lines escape them.
    fn expect_line_feeds(&mut self) {}

    /// Whether this key was committed before, in this run or an earlier one.
    ///
    /// # Errors
    /// If the sink cannot tell.
    fn committed(&mut self, key: &CommitKey) -> Result<bool>;

    /// Takes the rows. They do not count before [`commit`](Sink::commit).
    ///
    /// # Errors
    /// If the rows cannot be taken; the batch is tried again.
    fn write(&mut self, key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> Result<()>;

    /// Makes what was written count.
    ///
    /// # Errors
    /// If that fails; the batch is tried again.
    fn commit(&mut self, key: &CommitKey) -> Result<()>;

    /// The stream stops: brings what is committed into its last shape. Called once, after the last batch.
    ///
    /// # Errors
    /// If that fails. What is committed stays committed, and the next start sees to the rest.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A sink that several jobs write to, one at a time. Clones are handles of the same sink.
#[derive(Clone)]
pub struct SharedSink(Arc<Mutex<Box<dyn Sink>>>, Option<Arc<str>>);

impl fmt::Debug for SharedSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSink")
    }
}

impl SharedSink {
    /// A sink to be shared.
    pub fn new(sink: impl Sink + 'static) -> Self {
        SharedSink(Arc::new(Mutex::new(Box::new(sink))), None)
    }

    /// The same sink with a name, by which a later start finds it again.
    pub fn named(self, name: &str) -> Self {
        SharedSink(self.0, Some(name.into()))
    }

    /// Its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.1.as_deref()
    }

    /// Where it writes, see [`Sink::place`].
    pub fn place(&self) -> Option<String> {
        self.0.lock().place()
    }

    /// Whether both are handles of the same sink.
    pub(crate) fn is_same(&self, other: &SharedSink) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many rows make a difference, see [`Sink::rows_max`].
    pub fn rows_max(&self) -> usize {
        self.0.lock().rows_max()
    }

    /// See [`Sink::expect_line_feeds`].
    pub fn expect_line_feeds(&self) {
        self.0.lock().expect_line_feeds();
    }

    /// Writes and commits the rows unless their key is committed already.
    ///
    /// # Errors
    /// What the sink says.
    pub fn deliver(&self, key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> Result<()> {
        let mut sink: MutexGuard<'_, Box<dyn Sink>> = self.0.lock();
        if sink.committed(key)? {
            return Ok(());
        }
        sink.write(key, meta, rows)?;
        sink.commit(key)
    }

    /// See [`Sink::close`].
    ///
    /// # Errors
    /// What the sink says.
    pub fn close(&self) -> Result<()> {
        self.0.lock().close()
    }
}

/// The last batch of each job that a sink without a memory of its own committed in this run.
///
/// Outputs of a job come in batch order, so one time for each job is enough.
#[derive(Debug, Default)]
struct Ledger(HashMap<(Arc<str>, Arc<str>, u32), Time>);

impl Ledger {
    fn committed(&self, key: &CommitKey) -> bool {
        let name = (Arc::clone(&key.pipeline), Arc::clone(&key.job), key.partition);
        self.0.get(&name).is_some_and(|last| key.time <= *last)
    }

    fn commit(&mut self, key: &CommitKey) {
        self.0.insert((Arc::clone(&key.pipeline), Arc::clone(&key.job), key.partition), key.time);
    }
}

/// What the tests of the sinks hand to them.
#[cfg(test)]
mod given {
    use bytes::Bytes;

    use super::{CommitKey, Row, Rows};
    use crate::block::{Block, BlockId, Range};
    use crate::framing::Framing;
    use crate::sync::Arc;
    use crate::time::Time;

    pub(super) fn key(job: &str, ms: u64) -> CommitKey {
        let time = Time::from_millis(ms);
        CommitKey { pipeline: "p".into(), job: job.into(), time, partition: 0 }
    }

    pub(super) fn rows<R: Row>(elements: &[R]) -> Rows {
        let mut rows = Rows::new();
        elements.iter().for_each(|element| rows.push(element));
        rows
    }
    /// Lines as they were received, with their terminators.
    pub(super) fn lines(ranges: &[&str]) -> Rows {
        let range = |text: &&str| {
            let records = text.bytes().filter(|byte| *byte == b'\n').count() as u64;
            Range::new(Bytes::copy_from_slice(text.as_bytes()), records)
        };
        let id = BlockId { source: 0, number: 0 };
        let block = Block::new(id, Framing::Lines, ranges.iter().map(range).collect());
        Rows::of_lines(Arc::new(block)).expect("lines")
    }
}
