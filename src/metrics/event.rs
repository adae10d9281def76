//! `Event`: the closed set of facts that the engine reports. Plain data.

use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Time;

use super::condition::Condition;
use super::tally::Tally;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Something begins to hold the engine up.
    ConditionBegan {
        /// What it is.
        condition: Condition,
    },
    /// It still does; every ten seconds.
    ConditionLasts {
        /// What it is, with its newest cause.
        condition: Condition,
        /// How long it has lasted.
        lasted: Duration,
    },
    /// It does no more.
    ConditionEnded {
        /// What it was.
        condition: Condition,
        /// How long it lasted.
        lasted: Duration,
    },
    /// What happened often since the last event of this kind and source: at most one every ten seconds.
    Tallied {
        /// What it was, and how often.
        tally: Tally,
    },
    /// A source listens for peers.
    Listening {
        /// The source's name.
        source: String,
        /// Where.
        address: SocketAddr,
    },
    /// A source does not listen at one of the addresses of the name that it was given, because this machine does not have it.
    AddressLeftOut {
        /// The source's name.
        source: String,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        why: String,
    },
    /// A source may have fewer connections than its `connections_max`, because of the limit of open files.
    ConnectionsLimited {
        /// The source's name.
        source: String,
        /// Its `connections_max`.
        wanted: usize,
        /// How many it may have.
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
        /// How it ended.
        why: String,
    },
    /// An address is dialled again after a wait, because the dial failed or the connection ended; one event per wait.
    Retrying {
        /// The source's name.
        source: String,
        /// The address as it was given.
        address: String,
        /// How many ended in a row before they were older than the wait before them, a dial that failed among them.
        attempt: u32,
        /// How long until the next.
        wait: Duration,
        /// What went wrong.
        why: String,
    },
    /// A file, or a part of it, is not read.
    FileSkipped {
        /// The source's name.
        source: String,
        /// The file's name.
        file: String,
        /// Why.
        why: String,
    },
    /// A batch went on without input that its source no longer has; once for each source and batch, or start.
    InputLost {
        /// The source's name.
        source: String,
        /// How many ranges of it.
        ranges: u64,
        /// Their bytes, if the source counts in bytes.
        bytes: u64,
        /// Their records, if the source counts in records.
        records: u64,
        /// The first of them, and how much is lost in all.
        what: String,
        /// It was processed before: only windows that reach back to it are incomplete.
        processed: bool,
    },
    /// A source could not be asked, or a receiver reported an error; it goes on.
    ReceiverError {
        /// The source's name.
        source: String,
        /// What went wrong.
        error: String,
    },
    /// The system does not offer the io model that was asked for, so another is used.
    IoModelFallback {
        /// The source's name.
        source: String,
        /// The io model that was asked for.
        wanted: &'static str,
        /// The one in use.
        used: &'static str,
        /// Why, in one line.
        why: String,
    },
    /// Reading paused for the first time because the store is full.
    StoreFull {
        /// The source's name.
        source: String,
        /// The bound, in bytes.
        store_bytes_max: usize,
    },
    /// The log of an earlier run is being read; now and then.
    Recovering {
        /// How many bytes so far.
        bytes: u64,
    },
    /// What an earlier run left was found.
    Recovered {
        /// Segments of the log that were read.
        segments: u64,
        /// Bytes of the records in them.
        bytes: u64,
        /// Batches that were planned and are not known to be finished: they run again.
        batches: u64,
        /// Records that no batch was given: the first batch takes them.
        records: u64,
        /// The unfinished end of the log that was cut off: segment, offset, what was there.
        torn: Option<(u64, u64, String)>,
    },
    /// What an earlier run left under a name that the pipeline no longer has was given up, as `retired` says.
    NameRetired {
        /// The name, as `KIND:NAME`.
        name: String,
        /// What it held, in words; none if it held nothing.
        held: Option<String>,
    },
    /// What an earlier run left under one name goes on under another, as `renamed` says.
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
    /// A checkpoint cannot be used; an older one is.
    CheckpointDamaged {
        /// Its file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// What a sink found where it writes, and what it made of it.
    SinkNote {
        /// The sink's name; empty if it has none.
        sink: String,
        /// What people should know.
        text: String,
    },
    /// The reader of a sink is gone for good, as that of a pipe may be: it gets no more rows. Told once.
    SinkClosed {
        /// The sink's name; empty if it has none.
        sink: String,
        /// What the sink says.
        why: String,
        /// No output is left, so the run ends; the batch is not committed.
        ends_run: bool,
    },
    /// What a sink met while it was written to, and what it made of it.
    SinkWarning {
        /// The sink's name; empty if it has none.
        sink: String,
        /// What people should look at.
        text: String,
    },
    /// The first block left memory for a file, because the store is nearly full.
    Spilling {
        /// Where the files are.
        directory: String,
    },
    /// Blocks could not be written to a file; they stay in memory, and it is tried again. Told when it begins to fail.
    SpillFailed {
        /// Where the files are.
        directory: String,
        /// What went wrong.
        why: String,
    },
    /// A source has ended for good.
    SourceEnded {
        /// The source's name.
        source: String,
        /// What went wrong, if the end was not an orderly one.
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
        /// Why.
        cause: String,
    },
    /// The disk of a job's sink is full. The job is tried again until there is room; meanwhile reading pauses as the store
    /// fills. Told once for each batch that waits.
    JobWaitsForRoom {
        /// The batch.
        time: Time,
        /// The job.
        job: String,
        /// Why.
        cause: String,
    },
    /// A job of a batch failed for good; the stream goes on without its rows.
    JobGivenUp {
        /// The batch.
        time: Time,
        /// The job.
        job: String,
        /// How often it was tried.
        attempts: u32,
        /// Why the last attempt failed.
        cause: String,
    },
    /// The input of a batch with such a job was put aside.
    BatchPutAside {
        /// The batch.
        time: Time,
        /// Its records.
        records: u64,
        /// Where they are now; empty if it had none.
        places: Vec<String>,
    },
    /// A run that was cut off left a dead letter that it was writing.
    DeadLetterUnfinished {
        /// Its file.
        file: String,
        /// How many bytes are in it.
        bytes: u64,
    },
    /// A run that was cut off left the beginning of an over-long record that it put aside. The file was removed.
    OverlongUnfinished {
        /// Whose record it was.
        source: String,
        /// Its file.
        file: String,
        /// How many bytes were in it.
        bytes: u64,
    },
    /// Somebody touched a file of the state while it was in use, and the stop wrote it anew: nothing is lost.
    StateMended {
        /// What was found.
        text: String,
    },
    /// A batch is done: its jobs succeeded, or its input was put aside.
    BatchCompleted {
        /// The batch.
        time: Time,
        /// Records it was given.
        records: u64,
        /// From the tick to the start of the first job.
        scheduling_delay: Duration,
        /// From there to the end of the last job.
        processing: Duration,
    },
}

/// Someone who wants to know; called on the `events` thread.
pub trait Listener: Send {
    /// Something happened.
    fn on_event(&mut self, event: &Event);
}

impl<F: FnMut(&Event) + Send> Listener for F {
    fn on_event(&mut self, event: &Event) {
        self(event);
    }
}
