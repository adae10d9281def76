//! Over-long records of a framing that acknowledges, kept whole in files where a `files` source can read them back.
//!
//! ```text
//!  io thread: parts ─▶ work ─(rxN-aside)─▶ write ─▶ DIRECTORY/.SOURCE-N.open ─whole─▶ sync, rename, sync ─▶ SOURCE-N.records
//!      ▲                                     │ written: the connection is read again                          │ kept: an answer
//!      └─────────────────────────────────────┴────────────────────────────────────────────────────────────────┘
//! ```
//! The io threads touch no disk. A connection is not read until the parts of its last read are written, so only those parts
//! and the bytes in flight are in memory for a record, and the account counts them. While the disk takes nothing, for lack of
//! room or for another reason, the record and its connection wait: the condition reports it, and the same write is repeated. A
//! failed sync stops the stream: the state of the disk is unknown, and the record, which was not answered, is sent again. A
//! file of a record that never became whole is removed. Knows no framing.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::framing::AsidePart;
use crate::memory::budget::MemoryBudget;
use crate::metrics::{ConditionHandle, ConditionKind, Conditions, ReceiverCounters};
use crate::storage::{
    AtomicFile, Lock, Storage, StoredFile, create_again, discard, needs, read_full, sync, write_all,
};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicU64, Mailbox, Ordering, Poison, Signal, StopToken};
use crate::time::Clock;

/// Wait after a write that failed, before it is made again.
const RETRY: Duration = Duration::from_millis(200);

/// Bytes that are copied at once of a file that lost its directory.
const COPY_BYTES: usize = 64 << 10;

/// The connection that a record came from; called on the thread `rxN-aside` unless said otherwise.
pub(crate) trait Owner: Send + Sync {
    /// Parts are handed over, and [`written`](Self::written) comes once for them. Called on the thread that hands them over.
    fn handed_on(&self);

    /// The parts of one read are written.
    fn written(&self);

    /// One more record is durable, the next in the order in which they came.
    fn kept(&self);
}

/// The destination of the over-long records of one source.
pub(crate) struct OversizedStore {
    storage: Arc<dyn Storage>,
    /// The source's name, with what could leave the directory replaced.
    source: String,
    /// The next file's number.
    next: AtomicU64,
    /// The next connection's number.
    next_connection: AtomicU64,
    /// At most one for each connection, and those in flight.
    work: Mailbox<Work>,
    options: OversizedOptions,
    failing: ConditionHandle,
    stop: StopToken,
    stopped: Signal,
    /// Unfinished files of an earlier run, which were removed, and their lengths in bytes.
    removed: Vec<(String, u64)>,
    /// Excludes processes that would take the same names.
    _lock: Lock,
}

/// The options of the store.
pub(crate) struct OversizedOptions {
    pub(crate) source: String,
    pub(crate) account: Arc<MemoryBudget>,
    pub(crate) counters: Arc<ReceiverCounters>,
    pub(crate) conditions: Conditions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) poison: Poison,
}

/// The running thread `rxN-aside`; dropped, it ends after what it was given.
pub(crate) struct OversizedThread {
    asides: Arc<OversizedStore>,
    thread: Option<Thread>,
}

/// The over-long records of one connection; when it is dropped, an unfinished record is removed.
pub(crate) struct Putting {
    asides: Arc<OversizedStore>,
    connection: u64,
    owner: Arc<dyn Owner>,
}

struct Work {
    connection: u64,
    what: What,
}

enum What {
    /// The parts of one read; their memory is counted as long as they are here.
    Parts { parts: Vec<AsidePart>, owner: Arc<dyn Owner>, _counted: Box<dyn Send> },
    /// The connection is over.
    Gone,
}

/// The state of a connection's record that has begun.
enum Record {
    Begun(OpenRecord),
    /// It was given up, and with it all that follows: answers go out in order.
    GivenUp,
}

/// A record that is being written.
struct OpenRecord {
    file: Arc<dyn StoredFile>,
    number: u64,
    len: u64,
}

/// The outcome of a step that may have to wait for the disk.
#[derive(Clone, Copy, PartialEq)]
enum Done {
    Yes,
    GivenUp,
}

/// The reason why a whole record has no name.
enum NotKept {
    /// The stop came first.
    GivenUp,
    /// A sync failed: the state of the disk is unknown.
    Unknown(io::Error),
}

impl From<io::Error> for NotKept {
    fn from(err: io::Error) -> Self {
        NotKept::Unknown(err)
    }
}

impl OversizedStore {
    /// Keeps the records of a source in this storage. Unfinished records of an earlier run are removed: their sender sends them
    /// again.
    ///
    /// # Errors
    /// If another process keeps those of a source of this name there, or the directory cannot be read.
    pub(crate) fn open(storage: Arc<dyn Storage>, options: OversizedOptions) -> Result<Arc<Self>> {
        let plain =
            |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
        let source: String = options.source.chars().map(plain).collect();
        let place = storage.name();
        let _lock = storage.lock_for(&source).map_err(|err| taken(&options.source, err))?;
        let (next, removed) = look(storage.as_ref(), &source)
            .map_err(|err| Error::io(format!("cannot read the directory {place}"), err))?;
        let failing = options.conditions.handle(ConditionKind::DeadLetterFails, place);
        let (stop, stopped) = (StopToken::new(), Signal::new());
        stop.wakes(&stopped);
        Ok(Arc::new(OversizedStore {
            storage,
            source,
            next: AtomicU64::new(next),
            next_connection: AtomicU64::new(0),
            work: Mailbox::new(usize::MAX),
            options,
            failing,
            stop,
            stopped,
            removed,
            _lock,
        }))
    }

    /// The paths of an earlier run's unfinished files, which were removed, and their lengths in bytes.
    pub(crate) fn removed(&self) -> impl Iterator<Item = (String, u64)> {
        let place = self.storage.name();
        self.removed.iter().map(move |(name, bytes)| (format!("{place}/{name}"), *bytes))
    }

    /// Starts the thread that writes them.
    pub(crate) fn start(self: Arc<Self>, name: &str) -> io::Result<OversizedThread> {
        let asides = Arc::clone(&self);
        let thread = thread::spawn(name, &self.options.poison, move || asides.run())?;
        Ok(OversizedThread { asides: self, thread: Some(thread) })
    }

    /// A connection that may have such records.
    pub(crate) fn connection(self: &Arc<Self>, owner: Arc<dyn Owner>) -> Putting {
        let connection = self.next_connection.fetch_add(1, Ordering::SeqCst);
        Putting { asides: Arc::clone(self), connection, owner }
    }

    /// The body of the thread.
    fn run(&self) {
        let mut records = HashMap::new();
        while let Some(Work { connection, what }) = self.work.recv() {
            match what {
                What::Parts { parts, owner, .. } => {
                    for part in parts {
                        self.put(&mut records, connection, &part, owner.as_ref());
                    }
                    owner.written();
                }
                What::Gone => {
                    if let Some(Record::Begun(aside)) = records.remove(&connection) {
                        self.discard(&aside);
                    }
                }
            }
        }
        for record in records.into_values() {
            if let Record::Begun(aside) = record {
                self.discard(&aside);
            }
        }
    }

    /// Writes a part, and keeps the record if it is the last.
    fn put(
        &self,
        records: &mut HashMap<u64, Record>,
        connection: u64,
        part: &AsidePart,
        owner: &dyn Owner,
    ) {
        let begun = match records.remove(&connection) {
            None => None,
            Some(Record::Begun(aside)) => Some(aside),
            Some(Record::GivenUp) => {
                records.insert(connection, Record::GivenUp);
                return;
            }
        };
        let written = self.write(begun, &part.bytes);
        let kept = match written {
            Some(aside) if !part.is_last => {
                records.insert(connection, Record::Begun(aside));
                return;
            }
            Some(aside) => self.keep(&aside),
            None => Done::GivenUp,
        };
        match kept {
            Done::Yes => {
                self.options.counters.put_aside.add(1);
                owner.kept();
            }
            Done::GivenUp => {
                records.insert(connection, Record::GivenUp);
            }
        }
    }

    /// Appends a part to a record, or begins one; `None` if it was given up.
    fn write(&self, begun: Option<OpenRecord>, bytes: &[u8]) -> Option<OpenRecord> {
        let mut aside = begun;
        let outcome = self.until_done(bytes.len(), || {
            let aside = match &mut aside {
                Some(aside) => aside,
                none => none.insert(self.begin()?),
            };
            write_all(aside.file.as_ref(), aside.len, &[bytes])
        });
        let mut aside = aside?;
        match outcome {
            Done::Yes => {
                aside.len += bytes.len() as u64;
                Some(aside)
            }
            Done::GivenUp => {
                self.discard(&aside);
                None
            }
        }
    }

    /// A new record's file.
    fn begin(&self) -> io::Result<OpenRecord> {
        let number = self.next.load(Ordering::SeqCst);
        let file = create_again(self.storage.as_ref(), &self.open_name(number))?;
        self.next.store(number + 1, Ordering::SeqCst);
        Ok(OpenRecord { file, number, len: 0 })
    }

    fn open_name(&self, number: u64) -> String {
        format!(".{}-{number}.open", self.source)
    }

    fn discard(&self, aside: &OpenRecord) {
        discard(self.storage.as_ref(), aside.file.as_ref(), &self.open_name(aside.number));
    }

    /// Makes a record durable under its name.
    fn keep(&self, aside: &OpenRecord) -> Done {
        let open = self.open_name(aside.number);
        let (storage, file) = (self.storage.as_ref(), aside.file.as_ref());
        let kept = AtomicFile { storage, file, aside: &open }.put(|_, open| self.name(aside, open));
        match kept {
            Ok(()) => Done::Yes,
            Err(NotKept::GivenUp) => {
                self.discard(aside);
                Done::GivenUp
            }
            Err(NotKept::Unknown(err)) => self.fail(&err),
        }
    }

    /// Gives a record its name, which no file has; waits for that until the stop.
    fn name(&self, aside: &OpenRecord, open: &str) -> Result<(), NotKept> {
        let mut number = aside.number;
        let named = self.until_done(0, || {
            let name = format!("{}-{number}.records", self.source);
            match self.storage.rename_new(open, &name) {
                Err(err) if err.kind() == ErrorKind::NotFound => {
                    self.copy(aside)?;
                    self.storage.rename_new(open, &name)
                }
                // Somebody has put a file there; an existing file is never overwritten.
                Err(err) if err.kind() == ErrorKind::AlreadyExists => {
                    number = self.next.fetch_add(1, Ordering::SeqCst);
                    let name = format!("{}-{number}.records", self.source);
                    self.storage.rename_new(open, &name)
                }
                named => named,
            }
        });
        match named {
            Done::Yes => Ok(()),
            Done::GivenUp => Err(NotKept::GivenUp),
        }
    }

    /// Somebody removed the directory with the open file in it: its bytes still exist, and are copied to a new one.
    fn copy(&self, aside: &OpenRecord) -> io::Result<()> {
        let file = create_again(self.storage.as_ref(), &self.open_name(aside.number))?;
        let (mut at, mut bytes) = (0, vec![0; COPY_BYTES]);
        while at < aside.len {
            let read = read_full(aside.file.as_ref(), at, &mut bytes)?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            write_all(file.as_ref(), at, &[&bytes[..read]])?;
            at += read as u64;
        }
        sync(file.as_ref())
    }

    /// The state of the disk is unknown: stops the stream.
    fn fail(&self, err: &io::Error) -> Done {
        let place = self.storage.name();
        self.options.poison.set(format!("cannot keep an over-long record in {place}: {err}"));
        Done::GivenUp
    }

    /// Repeats a step that needs room for this many bytes until it succeeds or the stop comes.
    fn until_done(&self, bytes: usize, mut attempt: impl FnMut() -> io::Result<()>) -> Done {
        loop {
            let Err(err) = attempt() else {
                self.failing.end();
                return Done::Yes;
            };
            let cause = format!(
                "an over-long record of source `{}` cannot be put aside and waits, with its connection: {err}",
                self.options.source
            );
            self.failing.begin(cause, needs(&err, bytes as u64));
            if self.stop.is_stopped() {
                return Done::GivenUp;
            }
            let clock = &self.options.clock;
            clock.wait(&self.stopped, Some(clock.now().plus(RETRY)));
        }
    }
}

/// The error for a directory where another process keeps records of a source of this name.
fn taken(source: &str, err: Error) -> Error {
    match err {
        Error::Failed(text) => Error::Failed(format!(
            "source `{source}` keeps over-long records where a source of the same name keeps them: {text} (`dead_letter`), \
             or the source another name"
        )),
        other => other,
    }
}

/// Removes unfinished files. Returns the number behind the last used one, and the removed files with their lengths.
fn look(storage: &dyn Storage, source: &str) -> io::Result<(u64, Vec<(String, u64)>)> {
    let (mut next, mut removed) = (0, Vec::new());
    for name in storage.list()? {
        let of = |before: &str, behind: &str| {
            let number = name.strip_prefix(before)?.strip_prefix(source)?.strip_prefix('-')?;
            number.strip_suffix(behind)?.parse::<u64>().ok()
        };
        if of(".", ".open").is_some() {
            let bytes = storage.size_of(&name)?.unwrap_or(0);
            storage.remove(&name)?;
            removed.push((name.clone(), bytes));
        }
        next = next.max(of("", ".records").map_or(0, |number| number.saturating_add(1)));
    }
    Ok((next, removed))
}

impl OversizedThread {
    /// The store that it writes to.
    pub(crate) fn asides(&self) -> Arc<OversizedStore> {
        Arc::clone(&self.asides)
    }

    /// No record comes any more, and those that wait for the disk are given up: returns the thread, for its owner to join.
    pub(crate) fn stop(mut self) -> Option<Thread> {
        self.asides.close();
        self.thread.take()
    }
}

impl Drop for OversizedThread {
    fn drop(&mut self) {
        self.asides.close();
    }
}

impl OversizedStore {
    fn close(&self) {
        self.work.close();
        self.stop.stop();
    }
}

impl Putting {
    /// Hands over the parts of one read; `written` is called once, unless the stop came first.
    pub(crate) fn put(&self, parts: Vec<AsidePart>) {
        let bytes = parts.iter().map(|part| part.bytes.len()).sum();
        let charge = self.asides.options.account.charge(bytes);
        self.put_counted(parts, Box::new(charge));
    }

    /// The same from any thread, of parts whose memory is counted until `counted` is dropped, when they are written.
    pub(crate) fn put_counted(&self, parts: Vec<AsidePart>, _counted: Box<dyn Send>) {
        self.owner.handed_on();
        let what = What::Parts { parts, owner: Arc::clone(&self.owner), _counted };
        // Closed by the stop: the record is not answered, and its sender sends it again.
        let _ = self.asides.work.try_send(Work { connection: self.connection, what });
    }
}

impl Drop for Putting {
    fn drop(&mut self) {
        // After the stop only the next start can remove it.
        let _ = self.asides.work.try_send(Work { connection: self.connection, what: What::Gone });
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests;
