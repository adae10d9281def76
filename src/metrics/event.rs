//! `Event`: the closed set of facts that the engine reports. Plain data.

use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Time;

use super::condition::Condition;
use super::tally::Tally;

/// A fact that the engine reports to its listeners. Facts are added from version to version, so a `match` needs an arm for the
/// rest.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A problem begins to hold the engine up.
    ConditionBegan {
        /// The condition.
        condition: Condition,
    },
    /// The problem lasts; reported every ten seconds.
    ConditionLasts {
        /// The condition, with its newest cause.
        condition: Condition,
        /// Its duration so far.
        lasted: Duration,
    },
    /// The problem is over.
    ConditionEnded {
        /// The condition that ended.
        condition: Condition,
        /// Its duration.
        lasted: Duration,
    },
    /// Things of one kind that happened at a source since the last event; at most one event every ten seconds for each kind
    /// and source.
    Tallied {
        /// The kind, the source and the number.
        tally: Tally,
    },
    /// A source listens for peers.
    Listening {
        /// The source's name.
        source: String,
        /// The address.
        address: SocketAddr,
    },
    /// A source does not listen at one of the addresses of its name, because this machine does not have it.
    AddressLeftOut {
        /// The source's name.
        source: String,
        /// The address.
        address: SocketAddr,
        /// The system's error.
        why: String,
    },
    /// A source may have fewer connections than its `connections_max`, because of the limit of open files.
    ConnectionsLimited {
        /// The source's name.
        source: String,
        /// Its `connections_max`.
        wanted: usize,
        /// Its limit now.
        allowed: usize,
        /// The limit of open files.
        descriptors: u64,
    },
    /// A connection was made, by us or by the peer.
    Connected {
        /// The source's name.
        source: String,
        /// The other end.
        peer: SocketAddr,
    },
    /// A connection ended.
    Disconnected {
        /// The source's name.
        source: String,
        /// The other end.
        peer: SocketAddr,
        /// The reason of the end.
        why: String,
    },
    /// An address is dialled again after a wait, because the dial failed or the connection ended; one event per wait.
    Retrying {
        /// The source's name.
        source: String,
        /// The address as it was given.
        address: String,
        /// Number of failures in a row: dials that failed, and connections that ended before they were older than the wait
        /// before them.
        attempt: u32,
        /// The wait before the next attempt.
        wait: Duration,
        /// The error.
        why: String,
    },
    /// A file, or a part of it, is not read.
    FileSkipped {
        /// The source's name.
        source: String,
        /// The file's name.
        file: String,
        /// The reason.
        why: String,
    },
    /// A batch continued without input that its source no longer has; once for each source and batch, or start.
    InputLost {
        /// The source's name.
        source: String,
        /// Number of lost ranges.
        ranges: u64,
        /// Their bytes, if the source counts in bytes.
        bytes: u64,
        /// Their records, if the source counts in records.
        records: u64,
        /// The first of them, and the amount lost in all.
        what: String,
        /// True if it was processed before: only windows that reach back to it are incomplete.
        processed: bool,
    },
    /// A source could not be asked, or a receiver reported an error. The source continues.
    ReceiverError {
        /// The source's name.
        source: String,
        /// The error.
        error: String,
    },
    /// The system does not offer the requested io model, so another one is used.
    IoModelFallback {
        /// The source's name.
        source: String,
        /// The requested io model.
        wanted: &'static str,
        /// The one in use.
        used: &'static str,
        /// The reason, in one line.
        why: String,
    },
    /// Reading paused for the first time because the store is full.
    StoreFull {
        /// The source's name.
        source: String,
        /// The bound, in bytes.
        store_bytes_max: usize,
    },
    /// The log of an earlier run is being read; reported now and then.
    Recovering {
        /// Bytes read so far.
        bytes: u64,
    },
    /// The state of an earlier run was recovered.
    Recovered {
        /// Segments of the log that were read.
        segments: u64,
        /// Bytes of the records in them.
        bytes: u64,
        /// Batches that were planned and are not known to be finished: they run again.
        batches: u64,
        /// Records that belong to no batch yet: the first batch takes them.
        records: u64,
        /// The unfinished end of the log that was cut off: segment, offset, and its content.
        torn: Option<(u64, u64, String)>,
    },
    /// The state of an earlier run under a name that the pipeline no longer has was given up, as `retired` says.
    NameRetired {
        /// The name, as `KIND:NAME`.
        name: String,
        /// Its content, in words; `None` if it had none.
        held: Option<String>,
    },
    /// The state of an earlier run under one name continues under another, as `renamed` says.
    NameCarriedOver {
        /// The name from now on, as `KIND:NAME`.
        new: String,
        /// The name until now.
        old: String,
    },
    /// The pipeline has a name that no earlier run had.
    NameIsNew {
        /// The name, as `KIND:NAME`.
        name: String,
    },
    /// A checkpoint cannot be used; an older one is used instead.
    CheckpointDamaged {
        /// Its file.
        file: String,
        /// The defect.
        what: String,
    },
    /// A sink's note about its destination: what it found there, and what it made of it.
    SinkNote {
        /// The sink's name; empty if it has none.
        sink: String,
        /// The note, for people.
        text: String,
    },
    /// The reader of a sink is gone for good, as that of a pipe may be: it gets no more rows. Reported once.
    SinkClosed {
        /// The sink's name; empty if it has none.
        sink: String,
        /// The sink's reason.
        why: String,
        /// True if no output is left, so the run ends; the batch is not committed.
        ends_run: bool,
    },
    /// A sink's warning about something that it met while it was written to, and what it made of it.
    SinkWarning {
        /// The sink's name; empty if it has none.
        sink: String,
        /// The warning, for people.
        text: String,
    },
    /// The first block left memory for a file, because the store is nearly full.
    Spilling {
        /// The directory of the files.
        directory: String,
    },
    /// Blocks could not be written to a file. They stay in memory, and the write is tried again. Reported when it begins to
    /// fail.
    SpillFailed {
        /// The directory of the files.
        directory: String,
        /// The error.
        why: String,
    },
    /// A source has ended for good.
    SourceEnded {
        /// The source's name.
        source: String,
        /// The error, if the end was not an orderly one.
        error: Option<String>,
    },
    /// An attempt at a job of a batch failed and will be repeated.
    JobRetried {
        /// The batch.
        time: Time,
        /// The job.
        job: String,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// The reason.
        cause: String,
    },
    /// The disk of a job's sink is full. The job is tried again until there is room; meanwhile reading pauses as the store
    /// fills. Reported once for each batch that waits.
    JobWaitsForRoom {
        /// The batch.
        time: Time,
        /// The job.
        job: String,
        /// The reason.
        cause: String,
    },
    /// A job of a batch failed for good; the stream continues without its rows.
    JobGivenUp {
        /// The batch.
        time: Time,
        /// The job.
        job: String,
        /// Number of attempts.
        attempts: u32,
        /// The reason why the last attempt failed.
        cause: String,
    },
    /// The input of a batch with such a job went into dead letters.
    BatchPutAside {
        /// The batch.
        time: Time,
        /// Its records.
        records: u64,
        /// The dead letters; empty if the batch had no input.
        places: Vec<String>,
    },
    /// A run that was cut off left an unfinished dead letter.
    DeadLetterUnfinished {
        /// Its file.
        file: String,
        /// Its length in bytes.
        bytes: u64,
    },
    /// A run that was cut off left the beginning of an over-long record in a dead letter. The file was removed.
    OverlongUnfinished {
        /// The source of the record.
        source: String,
        /// Its file.
        file: String,
        /// Its length in bytes.
        bytes: u64,
    },
    /// Somebody changed a file of the state while it was in use, and the stop wrote it anew: nothing is lost.
    StateMended {
        /// A description of the change.
        text: String,
    },
    /// A batch is done: its jobs succeeded, or its input was put aside.
    BatchCompleted {
        /// The batch.
        time: Time,
        /// Records of its input.
        records: u64,
        /// The time from the tick to the start of the first job.
        scheduling_delay: Duration,
        /// The time from there to the end of the last job.
        processing: Duration,
    },
}

/// A receiver of events, which [`StreamingContext::add_listener`](crate::StreamingContext::add_listener) takes. Every closure
/// over `&Event` is one.
///
/// All listeners of a stream are called on its one thread `events`, in the order in which they were added, one event at a time.
/// A call may block, and the stream goes on meanwhile; events beyond 4096 that wait are dropped and counted
/// ([`Inspector::events_dropped`](crate::Inspector::events_dropped)). The stop waits for the listeners, within its deadline. A
/// panic in a listener stops the stream. A listener must not wait for the stream itself.
///
/// ```
/// use tidemill::testing::ManualClock;
/// use tidemill::{Config, Event, Listener, StreamingContext};
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
///
/// /// Counts the batches that are done.
/// struct Batches(Arc<AtomicU64>);
///
/// impl Listener for Batches {
///     fn on_event(&mut self, event: &Event) {
///         if let Event::BatchCompleted { .. } = event {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let batches = Arc::default();
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// ctx.add_listener(Batches(Arc::clone(&batches)));
/// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
/// ctx.run_batches(2)?;
/// drop(ctx); // the stop delivers what waits
/// assert_eq!(batches.load(Ordering::Relaxed), 2);
/// # Ok::<(), tidemill::Error>(())
/// ```
pub trait Listener: Send {
    /// Takes an event.
    fn on_event(&mut self, event: &Event);
}

impl<F: FnMut(&Event) + Send> Listener for F {
    fn on_event(&mut self, event: &Event) {
        self(event);
    }
}
