//! The contract between a job and its sink: the key and the figures of a batch, and the trait that every sink has. No sink is
//! named here; the worker that finishes a job calls them.

use crate::error::Result;
use crate::owner::{BatchId, OutputMark, Owner};
use crate::sync::{Arc, AtomicBool};
use crate::time::Time;

use super::Rows;

/// The unit of a commit: the rows of one job and batch in one partition of the output. Two deliveries are the same exactly if
/// their whole keys are equal; a time alone says nothing, for another state directory has batches of the same time.
///
/// ```
/// use tidemill::sink::{BatchId, CommitKey};
/// use tidemill::Time;
///
/// let key = CommitKey::new("orders", "totals", Time::from_millis(1_000), 0);
/// let replanned = key.clone().with_id(BatchId { run: 2, ..key.id });
/// assert_ne!(key, replanned);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CommitKey {
    /// The name of the stream, as [`Config::new`](crate::Config::new) was given it.
    pub pipeline: Arc<str>,
    /// The name of the job: that of the stream that is saved ([`DStream::named`](crate::DStream::named)), or its kind and
    /// number.
    pub job: Arc<str>,
    /// The time of the batch.
    pub time: Time,
    /// The partition of the output, from 0. The sinks here have one.
    pub partition: u32,
    /// The state directory and the start that planned the batch, and the digest of its content. A sink that outlives the process
    /// remembers all of the key.
    pub id: BatchId,
}

impl CommitKey {
    /// Creates the key of a batch that nobody planned, for tests of sinks; see [`with_id`](CommitKey::with_id).
    pub fn new(
        pipeline: impl Into<Arc<str>>,
        job: impl Into<Arc<str>>,
        time: Time,
        partition: u32,
    ) -> Self {
        let (pipeline, job) = (pipeline.into(), job.into());
        CommitKey { pipeline, job, time, partition, id: BatchId::default() }
    }

    /// Returns the same key with this identity of the batch.
    pub fn with_id(self, id: BatchId) -> Self {
        CommitKey { id, ..self }
    }
}

/// The figures of a batch at the time when its rows were handed to the sinks.
///
/// ```
/// use tidemill::sink::BatchMeta;
///
/// let meta = BatchMeta { records: 3, scheduling_delay_us: 12, processing_us: 340, total_us: 352, incomplete: false };
/// assert_eq!(meta.total_us, meta.scheduling_delay_us + meta.processing_us);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchMeta {
    /// The number of records of the input of this batch, not of its window.
    pub records: u64,
    /// The time from the batch's nominal moment to the start of its first task, in microseconds.
    pub scheduling_delay_us: u64,
    /// The time from there until the rows were handed over, in microseconds.
    pub processing_us: u64,
    /// The time from the nominal moment until the rows were handed over, in microseconds.
    pub total_us: u64,
    /// True if the batch, or one that a window of the job reaches back to, went on without input that was lost.
    pub incomplete: bool,
}

/// A destination of rows. A sink takes part in a commit in four calls: [`committed`](Sink::committed) asks whether it has the
/// batch already, [`write`](Sink::write) hands the rows over, [`commit`](Sink::commit) makes them count, and
/// [`close`](Sink::close) comes once, at the end.
///
/// # Order and threads
/// `check` and `begin` come once, before any batch, on the thread that starts the stream. The other calls come on worker
/// threads, one at a time, batch after batch in the order of their times. `close` comes on a thread of its own. A call may
/// block: the batch waits, batches behind it wait, and once the memory is full reading stops. A call that does not return for
/// ten seconds is the condition [`SinkHangs`](crate::metrics::ConditionKind::SinkHangs).
///
/// # Crashes
/// A batch is delivered again, from `committed` on, if the process died before the engine knew that its commit was done, and
/// after a failure of any sink of its job. The replay has the same [`CommitKey`] and the same rows. So a sink delivers each row
/// once if it keeps the rows and the key in one transaction, or makes the key durable first; a sink that answers `false` always
/// may deliver a batch twice. Without a [`state_dir`](crate::Config::state_dir) nothing is replayed after a crash.
///
/// # Errors
/// What `committed`, `write` and `commit` return as [`Error::Io`](crate::Error::Io) is judged by its kind:
/// - no room ([`StorageFull`](std::io::ErrorKind::StorageFull), [`QuotaExceeded`](std::io::ErrorKind::QuotaExceeded)): the batch
///   waits for room as long as it takes, and is tried again;
/// - what can pass ([`awaited`](crate::error::awaited): a connection, something busy, a missing directory, a disk's error): the
///   batch is tried again after pauses that grow to 10 s, for [`sink_retry`](crate::Config::sink_retry) in all, and only then
///   this is one failure for [`on_failure`](crate::Config::on_failure). Meanwhile the condition `sink_away` names the sink;
/// - every other kind (a permission, a file system that is read only, data of the wrong form), and every other
///   [`Error`](crate::Error), such as [`Error::Failed`](crate::Error::Failed) for a schema, is a failure at once.
///
/// A batch that is tried again is made again from its input, and `committed`, `write` and `commit` are called as before. So a
/// sink keeps the kind of the error that it met, makes its connection anew in `write`, and returns
/// [`Error::Failed`](crate::Error::Failed) for what looks like a passing failure and is none. A panic is a failure at once.
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
///     /// The last batch that counts; a real sink keeps it with the output.
///     last: Option<CommitKey>,
/// }
///
/// impl Sink for Counts {
///     fn committed(&mut self, key: &CommitKey) -> Result<bool> {
///         Ok(self.last.as_ref() == Some(key))
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
///     fn commit(&mut self, key: &CommitKey) -> Result<()> {
///         self.last = Some(key.clone());
///         Ok(())
///     }
/// }
/// ```
pub trait Sink: Send {
    /// The number of rows of a batch, from the first on, that make a difference to this sink; all by default. A job with ordered
    /// rows may leave the others out, and then need not sort them.
    fn rows_max(&self) -> usize {
        usize::MAX
    }

    /// The place that the sink writes to, as `KIND:PLACE`; `None` by default. The same place has the same text, also at the next
    /// start, so that a start can tell that the output moved, or that two sinks write to one place.
    fn place(&self) -> Option<String> {
        None
    }

    /// Brings what is committed into its last shape: the stream stops. Called once, after the last batch, and given what is left
    /// of [`stop_deadline`](crate::Config::stop_deadline).
    ///
    /// # Errors
    /// If that fails, and the run ends with this error. What is committed stays committed, and the next start sees to the rest,
    /// unless somebody removed it.
    fn closed(&self) -> Option<Arc<AtomicBool>> {
        None
    }

    /// The event that ends a call which has not returned for long, as the end of a sentence. The condition `sink_hangs` says it.
    fn awaits(&self) -> &'static str {
        "its call must return"
    }

    /// Called before the start if texts in the rows may hold line feeds, as far as the sources tell whose records lead here: any
    /// source but one of lines. Sinks whose rows are lines escape them.
    fn expect_line_feeds(&mut self) {}

    /// Looks at what is there already, for a start that is about to write, and changes nothing. Called once, before
    /// [`begin`](Sink::begin); by default it allows every start.
    ///
    /// # Errors
    /// If this owner must not write there: what is there is somebody else's, or of a later time than its state. The start is
    /// refused with this text, which has the remedy.
    fn check(&mut self, _owner: &Owner) -> Result<()> {
        Ok(())
    }

    /// Finishes what an earlier run left, once all sinks have agreed; by default it does nothing. `note` takes what people
    /// should know of it: it becomes an event [`SinkNote`](crate::Event::SinkNote).
    ///
    /// # Errors
    /// If that fails; the start is refused.
    fn begin(&mut self, _owner: &Owner, _note: &mut dyn FnMut(String)) -> Result<()> {
        Ok(())
    }

    /// The progress of the output, if the sink remembers it from run to run; `None` by default.
    fn reached(&self) -> Option<OutputMark> {
        None
    }

    /// Returns true if the output had all that the state knows of when the sink [`began`](Sink::begin).
    fn is_whole(&self) -> bool {
        true
    }

    /// Returns true if this key was committed before, in this run or an earlier one; then its rows are not written again. Called
    /// before every delivery.
    ///
    /// # Errors
    /// If the sink cannot tell; the batch is tried again, see [`Sink`].
    fn committed(&mut self, key: &CommitKey) -> Result<bool>;

    /// Takes the rows of a batch. They must not count before [`commit`](Sink::commit): after a failure the same key is written
    /// again, and what an earlier attempt wrote is void.
    ///
    /// # Errors
    /// If the rows cannot be taken; the batch is tried again, see [`Sink`].
    fn write(&mut self, key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> Result<()>;

    /// Makes what was written count, together with its key. Once it returns `Ok` the engine may forget the batch.
    ///
    /// # Errors
    /// If that fails; the batch is tried again, see [`Sink`].
    fn commit(&mut self, key: &CommitKey) -> Result<()>;

    /// The time at which the sink has something to do though no batch comes, such as closing a file that is old enough; `None`
    /// by default. Asked after each commit; [`on_time`](Sink::on_time) is called then.
    fn due(&self) -> Option<Time> {
        None
    }

    /// Does what is due by the time `now`, between two batches.
    ///
    /// # Errors
    /// If that fails. What can pass, as for a batch, is reported and tried again; anything else stops the stream.
    fn on_time(&mut self, _now: Time) -> Result<()> {
        Ok(())
    }

    /// Returns the notes for people on what the sink met since it was asked last; asked after each attempt at a batch. Each
    /// becomes an event [`SinkWarning`](crate::Event::SinkWarning).
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
