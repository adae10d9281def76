//! The closed set of facts that the engine reports, and the bounded bus that carries them to listeners.
//!
//! Any thread posts without waiting; the `events` thread calls the listeners. When they are too slow, facts are dropped
//! and counted, for the stream must not wait for those who watch it. Conditions and tallies are not dropped: the
//! thread asks their registries for what is due.

use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicU64, Mailbox, Ordering, Poison};
use crate::time::{Clock, SystemClock, Time};

use super::conditions::{Condition, Conditions};
use super::tallies::{Tallies, Tally};

/// Facts in flight at most, then new ones are dropped and counted.
const EVENTS_MAX: usize = 4096;

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

/// The way from those who know to those who want to know. Clones are handles of the same bus.
#[derive(Clone, Debug)]
pub struct EventBus {
    mailbox: Mailbox<Event>,
    dropped: Arc<AtomicU64>,
    conditions: Conditions,
    tallies: Tallies,
    clock: Arc<dyn Clock>,
}

impl Default for EventBus {
    fn default() -> Self {
        EventBus::with_clock(SystemClock::new())
    }
}

impl EventBus {
    /// A bus without listeners; nothing is delivered until [`start`](EventBus::start).
    pub fn new() -> Self {
        EventBus::default()
    }

    /// The same; conditions last by this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let mailbox = Mailbox::new(EVENTS_MAX);
        let conditions = Conditions::new(Arc::clone(&clock), mailbox.signal().clone());
        let tallies = Tallies::new(Arc::clone(&clock), mailbox.signal().clone());
        EventBus { mailbox, dropped: Arc::default(), conditions, tallies, clock }
    }

    /// What holds the engine up.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// What happens often.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Posts a fact without waiting.
    pub fn post(&self, event: Event) {
        if self.mailbox.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many facts were dropped because the listeners were too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Starts the `events` thread, which calls every listener with every fact until the bus is closed.
    ///
    /// # Errors
    /// If the operating system gives no more threads.
    pub fn start(&self, mut listeners: Vec<Box<dyn Listener>>, poison: &Poison) -> Result<Thread> {
        let bus = self.clone();
        let tell = move |event: &Event| listeners.iter_mut().for_each(|it| it.on_event(event));
        thread::spawn("events", poison, move || bus.run(tell))
            .map_err(|err| Error::io("cannot start the thread `events`", err))
    }

    /// The body of the thread: what was posted, and what is due of conditions and tallies, until the bus is closed.
    fn run(&self, mut tell: impl FnMut(&Event)) {
        loop {
            let posted = self.mailbox.try_recv();
            let is_over = posted.is_none() && self.mailbox.is_closed_and_empty();
            let is_idle = posted.is_none() && !is_over;
            posted.iter().for_each(&mut tell);
            self.conditions.take_due(is_over).iter().for_each(&mut tell);
            self.tallies.take_due(is_over).iter().for_each(&mut tell);
            if is_over {
                return;
            }
            if is_idle {
                let due = self.conditions.due().into_iter().chain(self.tallies.due()).min();
                self.clock.wait(self.mailbox.signal(), due);
            }
        }
    }

    /// Closes the bus: what was posted is delivered, then the thread ends.
    pub fn close(&self) {
        self.mailbox.close();
    }
}
