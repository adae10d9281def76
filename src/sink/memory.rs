//! `Memory`: keeps the rows of committed batches where a test can see them. Grows without bound: for tests only.

use super::options::{Opening, SinkKind, SinkOptions, SinkRow};
use super::{BatchMeta, Cell, CommitKey, Ledger, Rows, SharedSink, Sink};
use crate::error::Result;
use crate::settings::section::Section;
use crate::sync::{Arc, Mutex};
use crate::time::Time;

/// Its row.
pub(super) const ROW: SinkRow = SinkRow {
    name: "memory",
    about: "keeps the rows in memory, for tests",
    keys: &[],
    example: "[sink.NAME.memory]",
    short_forms: &[],
    read,
};

/// The options of the sink `memory`: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryOptions;

fn read(_section: &mut Section<'_>) -> Option<SinkKind> {
    Some(MemoryOptions.into())
}

impl SinkOptions for MemoryOptions {
    fn row(&self) -> &'static SinkRow {
        &ROW
    }

    fn open(&self, _opening: &Opening<'_>) -> Result<SharedSink> {
        Ok(SharedSink::new(Memory::new()))
    }

    fn summary(&self) -> String {
        "memory".to_owned()
    }
}

/// A cell that owns its text, in which bytes that are no UTF-8 are U+FFFD.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnedCell {
    /// Text.
    Text(String),
    /// A whole number without a sign.
    U64(u64),
    /// A whole number with a sign.
    I64(i64),
    /// A floating-point number.
    F64(f64),
    /// True or false.
    Bool(bool),
    /// No value: the unmatched side of an outer join.
    Null,
}

impl From<Cell<'_>> for OwnedCell {
    fn from(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Text(text) => OwnedCell::Text(String::from_utf8_lossy(text).into_owned()),
            Cell::U64(value) => OwnedCell::U64(value),
            Cell::I64(value) => OwnedCell::I64(value),
            Cell::F64(value) => OwnedCell::F64(value),
            Cell::Bool(value) => OwnedCell::Bool(value),
            Cell::Null => OwnedCell::Null,
        }
    }
}

type Batches = Vec<(Time, Vec<Vec<OwnedCell>>)>;

/// A sink that keeps its rows in memory, for tests: it grows without bound.
///
/// ```
/// use tidemill::sink::{Memory, OwnedCell};
/// use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let memory = Memory::new();
/// let saved = memory.handle();
/// ctx.queue_stream(vec![Some(vec!["to be"])], 1).count_by_value().save(memory);
/// ctx.run_batches(1)?;
/// let (time, rows) = &saved.rows()[0];
/// assert_eq!(time.as_millis(), 1_000);
/// assert_eq!(*rows, [[OwnedCell::Text("to be".to_owned()), OwnedCell::U64(1)]]);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Memory {
    committed: Ledger,
    written: Vec<Vec<OwnedCell>>,
    batches: MemoryHandle,
}

/// A view of the rows that a [`Memory`] sink has committed. Clones look at the same sink; any thread may.
///
/// ```
/// use tidemill::sink::{Memory, OwnedCell};
/// use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let memory = Memory::new();
/// let saved = memory.handle();
/// ctx.queue_stream(vec![Some(vec!["to be"])], 1).count_by_value().save(memory);
/// ctx.run_batches(1)?;
/// let (time, rows) = &saved.rows()[0];
/// assert_eq!(time.as_millis(), 1_000);
/// assert_eq!(*rows, [[OwnedCell::Text("to be".to_owned()), OwnedCell::U64(1)]]);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryHandle(Arc<Mutex<Batches>>);

impl MemoryHandle {
    /// The rows of each committed batch, in the order of the commits. Each call copies all of them.
    pub fn rows(&self) -> Vec<(Time, Vec<Vec<OwnedCell>>)> {
        self.0.lock().clone()
    }
}

impl Memory {
    /// Creates an empty sink.
    pub fn new() -> Self {
        Memory::default()
    }

    /// Returns a view of its rows, which stays with the test when the stream takes the sink.
    pub fn handle(&self) -> MemoryHandle {
        self.batches.clone()
    }
}

impl Sink for Memory {
    fn committed(&mut self, key: &CommitKey) -> Result<bool> {
        Ok(self.committed.committed(key))
    }

    fn write(&mut self, _key: &CommitKey, _meta: &BatchMeta, rows: &Rows) -> Result<()> {
        self.written = rows.iter().map(|row| row.cells().map(OwnedCell::from).collect()).collect();
        Ok(())
    }

    fn commit(&mut self, key: &CommitKey) -> Result<()> {
        self.batches.0.lock().push((key.time, std::mem::take(&mut self.written)));
        self.committed.commit(key);
        Ok(())
    }
}
