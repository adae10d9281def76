//! Sinks: the destinations of the rows of a job. [`Sink`] is the trait of one, and [`DStream::save`](crate::DStream::save) takes
//! it. Here one sink is one file and one row of `SINKS`.
//!
//! A sink's obligations: `check` and `begin` come once, before anything is written, and say who writes; `committed` is
//! asked first, and a committed key is not written again; `write` may be followed by another `write` of the same key after a
//! failure, so nothing counts before `commit`; `close` comes last. The kind of an error says whether it can pass (see [`Sink`]).
//! A batch is the one that it is by its whole key: a time alone says nothing, for other state directories have batches of the
//! same time. Sinks are called by the worker that finishes a job, one at a time, and do not know who calls them.

mod book;
mod console;
mod contract;
mod dead_letter;
mod file;
mod formatted;
#[cfg(test)]
mod given;
mod hangs;
mod left;
mod memory;
mod null;
pub(crate) mod options;
mod pieces;
mod rolling;
mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(not(feature = "sqlite"))]
#[path = "sqlite_absent.rs"]
mod sqlite;
mod sqlite_options;
mod unix;
mod writer;

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::error::{Error, Result};
use crate::metrics::Conditions;
use crate::owner::{Newest, Output, Written};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering};
use crate::time::Time;

pub use console::{Console, ConsoleOptions, Format};
pub use contract::{BatchMeta, CommitKey, Sink};
#[doc(hidden)]
pub use dead_letter::{DeadLetter, DeadLetterFiles, DeadLetters};
pub use file::{File, FileOptions};
pub use formatted::{FileFormat, LineFeeds};
use hangs::Calls;
pub(crate) use left::{Left, is_same_place, open_in};
#[doc(hidden)]
pub use memory::MemoryOptions;
pub use memory::{Memory, MemoryHandle, OwnedCell};
pub use null::Null;
pub use options::Existing;
pub(crate) use options::Holds;
pub(crate) use options::{Destination, KeyText, Opening, ShortForm, SinkKind, SinkRow};
pub use rolling::Roll;
pub use rows::{Cell, Cells, Row, RowRef, RowWriter, Rows};
pub use sqlite::Sqlite;
pub use sqlite_options::SqliteOptions;
pub use unix::{Unix, UnixOptions};
pub use writer::Writer;

pub use crate::owner::{BatchId, OutputMark, Owner, PlanDigest, StateId};

/// Every kind of sink.
#[doc(hidden)]
pub const SINKS: &[SinkRow] =
    &[console::ROW, file::ROW, sqlite_options::ROW, unix::ROW, memory::ROW, null::ROW];

/// A sink that several jobs write to, one at a time. Clones are handles of the same sink. It is what
/// [`DStream::save_to`](crate::DStream::save_to) takes.
///
/// ```
/// use tidemill::sink::{Memory, SharedSink};
/// use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let numbers = ctx.queue_stream(vec![Some(vec![3_u64, 1])], 1);
/// let memory = Memory::new();
/// let rows = memory.handle();
/// let both = SharedSink::new(memory).named("both");
/// assert_eq!(both.name(), Some("both"));
/// numbers.count().save_to("count", vec![both.clone()]);
/// numbers.reduce(|a, b| a + b).save_to("sum", vec![both]);
/// ctx.run_batches(1)?;
/// assert_eq!(rows.rows().len(), 2);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone)]
pub struct SharedSink {
    sink: Arc<Mutex<Box<dyn Sink>>>,
    name: Option<Arc<str>>,
    /// See [`Sink::closed`].
    closed: Option<Arc<AtomicBool>>,
    /// Its output, as it was found, without a newest commit, or after the last commit of this run, which is the newest; told
    /// without waiting for the sink.
    reached: Arc<Mutex<Option<Output>>>,
    /// The place where it wrote before this run, if that is another one.
    earlier: Arc<Mutex<Option<Earlier>>>,
    /// The number of this start.
    run: Arc<AtomicU64>,
    /// Its notes, told without waiting for the sink.
    notes: Arc<Mutex<Vec<String>>>,
    /// The batches of earlier starts that were committed in this one, where another sink asks what was committed before it.
    since: Arc<Mutex<Option<HashSet<CommitKey>>>>,
    /// Those that look at what takes long.
    calls: Calls,
}

/// A place where a sink wrote before: batches that were planned then may be committed there.
enum Earlier {
    /// Nothing writes there any more.
    Left(Left),
    /// Another sink of this run does.
    Other(SharedSink),
}

impl fmt::Debug for SharedSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSink")
    }
}

impl SharedSink {
    /// Creates a sink that can be shared.
    pub fn new(sink: impl Sink + 'static) -> Self {
        let closed = sink.closed();
        let sink: Box<dyn Sink> = Box::new(sink);
        SharedSink {
            closed,
            sink: Arc::new(Mutex::new(sink)),
            name: None,
            reached: Arc::default(),
            earlier: Arc::default(),
            run: Arc::default(),
            notes: Arc::default(),
            since: Arc::default(),
            calls: Calls::default(),
        }
    }

    /// Gives the sink a name: in events and conditions, and for the state directory, by which a later start finds it again.
    pub fn named(self, name: &str) -> Self {
        SharedSink { name: Some(name.into()), ..self }
    }

    /// The name of the sink, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// True if its reader is gone, see [`Sink::closed`]. Does not wait for the sink.
    #[doc(hidden)]
    pub fn is_closed(&self) -> bool {
        self.closed.as_ref().is_some_and(|closed| closed.load(Ordering::SeqCst))
    }

    /// The place that it writes to, see [`Sink::place`].
    #[doc(hidden)]
    pub fn place(&self) -> Option<String> {
        self.sink.lock().place()
    }

    /// From now on a call that does not return is a condition; of this subject, if the sink has no name.
    pub(crate) fn watch_calls(&self, conditions: &Conditions, otherwise: &str) {
        let needs = self.sink.lock().awaits();
        self.calls.watch(conditions, self.name().unwrap_or(otherwise), needs);
    }

    /// True if both are handles of the same sink.
    pub(crate) fn is_same(&self, other: &SharedSink) -> bool {
        Arc::ptr_eq(&self.sink, &other.sink)
    }

    /// From now on what is committed in that place is committed.
    pub(crate) fn remember_left(&self, left: Left) {
        *self.earlier.lock() = Some(Earlier::Left(left));
    }

    /// From now on what is committed in that sink is committed: it writes where this one wrote.
    pub(crate) fn remember_other(&self, other: SharedSink) {
        *other.since.lock() = Some(HashSet::new());
        *self.earlier.lock() = Some(Earlier::Other(other));
    }

    /// True if the batch was committed where the sink wrote before, and before this start.
    fn committed_earlier(&self, key: &CommitKey) -> Result<bool> {
        match &mut *self.earlier.lock() {
            Some(_) if !self.is_of_earlier(key) => Ok(false),
            None => Ok(false),
            Some(Earlier::Left(left)) => left.committed(key),
            Some(Earlier::Other(other)) => {
                let mut sink = other.sink.lock();
                let is_new = other.since.lock().as_ref().is_some_and(|since| since.contains(key));
                Ok(!is_new && sink.committed(key)?)
            }
        }
    }

    /// True if an earlier start planned the batch.
    fn is_of_earlier(&self, key: &CommitKey) -> bool {
        key.id.run < self.run.load(Ordering::SeqCst)
    }

    /// The number of rows that make a difference, see [`Sink::rows_max`].
    #[doc(hidden)]
    pub fn rows_max(&self) -> usize {
        self.sink.lock().rows_max()
    }

    /// Looks at what is there already, see [`Sink::check`].
    ///
    /// # Errors
    /// If this owner must not write there.
    #[doc(hidden)]
    pub fn check(&self, owner: &Owner) -> Result<()> {
        self.sink.lock().check(owner)
    }

    /// Finishes what an earlier run left, see [`Sink::begin`].
    ///
    /// # Errors
    /// If that fails.
    #[doc(hidden)]
    pub fn begin(&self, owner: &Owner, note: &mut dyn FnMut(String)) -> Result<()> {
        self.run.store(owner.run(), Ordering::SeqCst);
        let mut sink = self.sink.lock();
        sink.begin(owner, note)?;
        if let (Some(mark), Some(place)) = (sink.reached(), sink.place()) {
            *self.reached.lock() = Some(Output { mark, place, newest: None });
        }
        Ok(())
    }

    /// Its output after the last commit of this run; nothing before one.
    pub(crate) fn output(&self) -> Option<Output> {
        self.reached.lock().clone().filter(|output| output.newest.is_some())
    }

    /// Its output, as a start finds it once it has [`begun`](SharedSink::begin); none if it remembers nothing from run to run.
    /// And whether all is there that the state knows of.
    pub(crate) fn found(&self) -> Option<(Output, bool)> {
        let found = self.reached.lock().clone()?;
        Some((found, self.sink.lock().is_whole()))
    }

    /// See [`Sink::expect_line_feeds`].
    #[doc(hidden)]
    pub fn expect_line_feeds(&self) {
        self.sink.lock().expect_line_feeds();
    }

    /// Writes and commits the rows unless their key is committed already.
    ///
    /// # Errors
    /// What the sink says.
    #[doc(hidden)]
    pub fn deliver(&self, key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> Result<()> {
        let delivered = self.deliver_once(key, meta, rows);
        // Not after a panic: what is behind it is asked the next time.
        let noted = self.sink.lock().take_notes();
        if !noted.is_empty() {
            self.notes.lock().extend(noted);
        }
        delivered
    }

    /// Its notes since this was asked last, see [`Sink::take_notes`]. It does not wait for the sink.
    #[doc(hidden)]
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock())
    }

    fn deliver_once(&self, key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> Result<()> {
        // Asked without this sink's own lock: two sinks may have changed places.
        if self.committed_earlier(key)? {
            return Ok(());
        }
        let lacks = || format!("has not taken the rows of batch {}", key.time);
        let mut sink = self.calls.begin(self.sink.lock(), lacks);
        if sink.committed(key)? {
            return Ok(());
        }
        sink.write(key, meta, rows)?;
        sink.commit(key)?;
        if let Some(since) = self.since.lock().as_mut().filter(|_| self.is_of_earlier(key)) {
            since.insert(key.clone());
        }
        self.reach(&*sink, key);
        Ok(())
    }

    /// Takes how far the output has come with a batch. One without rows may have left it as it was.
    fn reach(&self, sink: &dyn Sink, key: &CommitKey) {
        let Some(mark) = sink.reached() else { return };
        let mut reached = self.reached.lock();
        if reached.as_ref().is_some_and(|output| output.mark == mark) {
            return;
        }
        // A sink stays where it was found.
        let known = reached.take().map(|output| output.place);
        let Some(place) = known.or_else(|| sink.place()) else { return };
        let CommitKey { job, time, partition, id: BatchId { run, digest, .. }, .. } = key;
        let (job, part, time) = (job.to_string(), *partition, time.as_millis());
        let newest = Some(Newest { job, part, time, run: *run, digest: *digest });
        *reached = Some(Output { mark, place, newest });
    }

    /// See [`Sink::due`].
    #[doc(hidden)]
    pub fn due(&self) -> Option<Time> {
        self.sink.lock().due()
    }

    /// See [`Sink::on_time`].
    ///
    /// # Errors
    /// What the sink says.
    #[doc(hidden)]
    pub fn on_time(&self, now: Time) -> Result<()> {
        let lacks = || "has not finished what is due".to_owned();
        self.calls.begin(self.sink.lock(), lacks).on_time(now)
    }

    /// See [`Sink::close`].
    ///
    /// # Errors
    /// What the sink says.
    #[doc(hidden)]
    pub fn close(&self) -> Result<()> {
        self.calls.begin(self.sink.lock(), || "has not closed".to_owned()).close()
    }
}

/// The last batch of each job that a sink without a memory of its own committed in this run.
///
/// Outputs of a job come in batch order, so one key for each job is enough.
#[derive(Debug, Default)]
struct Ledger(HashMap<(Arc<str>, u32), CommitKey>);

impl Ledger {
    fn committed(&self, key: &CommitKey) -> bool {
        self.0.get(&(Arc::clone(&key.job), key.partition)) == Some(key)
    }

    fn commit(&mut self, key: &CommitKey) {
        self.0.insert((Arc::clone(&key.job), key.partition), key.clone());
    }
}

/// The error for a batch of which another one is committed.
fn other_batch(place: &str, key: &CommitKey, wanted: &Written, found: &Written) -> Error {
    let CommitKey { job, time, .. } = key;
    Error::Failed(format!(
        "batch {time} of job `{job}` is in {place} with another plan: {} of start {} is there, {} of start {} was to be \
         written. It is neither taken for committed nor written over; give the sink another directory",
        found.digest, found.run, wanted.digest, wanted.run
    ))
}
