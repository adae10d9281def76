//! The contract between a job and its sink: the key and the figures of a batch, and the trait that every sink has. No sink is
//! named here; the worker that finishes a job calls them.

use crate::error::Result;
use crate::owner::{BatchId, OutputMark, Owner};
use crate::sync::{Arc, AtomicBool};
use crate::time::Time;

use super::Rows;

/// The unit of a commit: the rows of one job and batch in one partition of the output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CommitKey {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The job's name.
    pub job: Arc<str>,
    /// The batch.
    pub time: Time,
    /// The partition of the output.
    pub partition: u32,
    /// Whose batch it is, and what it is made of. A sink that outlives the process remembers all of the key: a batch of
    /// another state directory may have the same time.
    pub id: BatchId,
}

impl CommitKey {
    /// The key of a batch that nobody planned, for tests of sinks; see [`with_id`](CommitKey::with_id).
    pub fn new(
        pipeline: impl Into<Arc<str>>,
        job: impl Into<Arc<str>>,
        time: Time,
        partition: u32,
    ) -> Self {
        let (pipeline, job) = (pipeline.into(), job.into());
        CommitKey { pipeline, job, time, partition, id: BatchId::default() }
    }

    /// The key of that batch.
    pub fn with_id(self, id: BatchId) -> Self {
        CommitKey { id, ..self }
    }
}

/// The figures of a batch at the time when its rows were handed to the sinks.
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

/// The destination of rows.
///
/// # Errors
/// What `committed`, `write` and `commit` return as [`Error::Io`] is judged by its kind:
/// - no room ([`StorageFull`](std::io::ErrorKind::StorageFull), [`QuotaExceeded`](std::io::ErrorKind::QuotaExceeded)): the batch
///   waits for room as long as it takes, and is tried again;
/// - what can pass ([`awaited`](crate::error::awaited): a connection, something busy, a missing directory, a disk's error): the
///   batch is tried again after pauses that grow to 10 s, for [`sink_retry`](crate::Config::sink_retry) in all, and only then
///   this is one failure for [`on_failure`](crate::Config::on_failure). Meanwhile the condition `sink_away` names the sink;
/// - every other kind (a permission, a file system that is read only, data of the wrong form), and every other [`Error`], such
///   as [`Error::Failed`] for a schema, is a failure at once.
///
/// A batch that is tried again is made again from its input, and `committed`, `write` and `commit` are called as before. So a
/// sink keeps the kind of the error that it met, makes its connection anew in `write`, and returns [`Error::Failed`] for what
/// looks like a passing failure and is none. A panic is a failure at once.
///
/// ```
/// use std::io::Write;
/// use std::net::TcpStream;
///
/// use tidemill::sink::{BatchMeta, CommitKey, Rows, Sink};
/// use tidemill::{Error, Result};
///
/// /// Sends how many rows each batch has.
/// struct Counts {
///     peer: Option<TcpStream>,
/// }
///
/// impl Sink for Counts {
///     fn committed(&mut self, _: &CommitKey) -> Result<bool> {
///         Ok(false)
///     }
///
///     fn write(&mut self, _: &CommitKey, _: &BatchMeta, rows: &Rows) -> Result<()> {
///         // Refused, reset, timed out: tried again with a new connection.
///         let fail = |err| Error::io("cannot send to 127.0.0.1:9", err);
///         self.peer = None;
///         let mut peer = TcpStream::connect("127.0.0.1:9").map_err(fail)?;
///         writeln!(peer, "{}", rows.len()).map_err(fail)?;
///         self.peer = Some(peer);
///         Ok(())
///     }
///
///     fn commit(&mut self, _: &CommitKey) -> Result<()> {
///         Ok(())
///     }
/// }
/// ```
pub trait Sink: Send {
    /// The number of rows of a batch, from the first on, that make a difference to this sink. A job with ordered rows may
    /// leave the others out, and then need not sort them.
    fn rows_max(&self) -> usize {
        usize::MAX
    }

    /// The place that it writes to, as `KIND:PLACE`; the same place has the same text, also at the next start.
    fn place(&self) -> Option<String> {
        None
    }

    /// For a sink whose reader may go away for good, as that of a pipe may: set once it is gone, before `write` or `commit` say
    /// so. Then the rows are neither a failure of the batch nor tried again. The stream goes on without this sink, or
    /// ends if no other takes anything.
    fn closed(&self) -> Option<Arc<AtomicBool>> {
        None
    }

    /// The event that ends a call which has not returned for long. The condition `sink_hangs` says it.
    fn awaits(&self) -> &'static str {
        "its call must return"
    }

    /// Called before the start if texts in the rows may hold line feeds, as far as the sources tell whose records lead here: any
    /// source but one of lines. Sinks whose rows are lines escape them.
    fn expect_line_feeds(&mut self) {}

    /// Looks at what is there already, for a start that is about to write, and changes nothing. Asked once, before
    /// [`begin`](Sink::begin).
    ///
    /// # Errors
    /// If this owner must not write there: what is there is somebody else's, or of a later time than its state. The start
    /// is refused with this text.
    fn check(&mut self, _owner: &Owner) -> Result<()> {
        Ok(())
    }

    /// All sinks have agreed: finishes what an earlier run left. `note` takes what people should know of it.
    ///
    /// # Errors
    /// If that fails; the start is refused.
    fn begin(&mut self, _owner: &Owner, _note: &mut dyn FnMut(String)) -> Result<()> {
        Ok(())
    }

    /// Its progress, if it remembers that from run to run.
    fn reached(&self) -> Option<OutputMark> {
        None
    }

    /// True if its output had all that the state knows of when it [`began`](Sink::begin).
    fn is_whole(&self) -> bool {
        true
    }

    /// True if this key was committed before, in this run or an earlier one.
    ///
    /// # Errors
    /// If the sink cannot tell.
    fn committed(&mut self, key: &CommitKey) -> Result<bool>;

    /// Takes the rows. They do not count before [`commit`](Sink::commit).
    ///
    /// # Errors
    /// If the rows cannot be taken; the batch is tried again, see [`Sink`].
    fn write(&mut self, key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> Result<()>;

    /// Makes what was written count.
    ///
    /// # Errors
    /// If that fails; the batch is tried again, see [`Sink`].
    fn commit(&mut self, key: &CommitKey) -> Result<()>;

    /// When it has something to do though no batch comes, if it has: [`on_time`](Sink::on_time) is called then. Asked after
    /// each commit.
    fn due(&self) -> Option<Time> {
        None
    }

    /// Does what is due by the time `now`, between two batches.
    ///
    /// # Errors
    /// If that fails. What can pass, as for a batch, is told and tried again; anything else stops the stream.
    fn on_time(&mut self, _now: Time) -> Result<()> {
        Ok(())
    }

    /// Notes for people on what it met since this was asked last; asked after each attempt at a batch.
    fn take_notes(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// The stream stops: brings what is committed into its last shape. Called once, after the last batch.
    ///
    /// # Errors
    /// If that fails, and the run ends with this error. What is committed stays committed, and the next start sees to the rest,
    /// unless somebody removed it.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
