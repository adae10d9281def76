//! `WriteAheadLog`: group commit. Any thread appends; the thread `wal-sync` writes what waits as one group, syncs it
//! once, and gives every record its receipt.
//!
//! ```text
//!  append ─▶ pending (bounded in bytes) ─ all that waits ─▶ group ─▶ fdatasync ─▶ receipts ─▶ next group
//! ```
//! Nothing waits for a timer: a group is as large as the last sync was slow. Receipts run on `wal-sync` and only post.
//!
//! Input is taken while the reserve is there: spare segments that are left for what ends batches and so releases others.
//! When the disk has no room for that, the log is *short*: input is given back, all else goes on, and who asked is told.

mod worker;

use std::collections::VecDeque;
use std::{fmt, io};

use self::worker::{Worker, first_room};
use super::examine::Known;
use super::format::{Position, RECORD_HEADER};
use super::gate::{Gate, Lane};
use super::hangs::watch_over;
use super::present::LookClock;
use super::recovery::{self, Recovered};
use super::segment_list::Synced;
use super::segment_reader::{Segment, Visit};
use super::segment_writer::{Files, Record, body_max};
use super::shortage::Shortage;
use super::stats::{Counts, LogStats, LogWatch};
use super::{LogOptions, NotLogged};
use crate::error::{Error, Result};
use crate::metrics::{ConditionHandle, Conditions, Watch};
use crate::storage::{Lock, Storage, Volume};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering, Poison, Signal};
use crate::time::{Clock, Joined, Moment, join_until};

/// Called once with what became of a record, on the thread `wal-sync`; it must only post.
pub type Receipt = Box<dyn FnOnce(Result<Position, NotLogged>) + Send>;

/// See the module.
pub struct WriteAheadLog {
    shared: Arc<Shared>,
    storage: Arc<dyn Storage>,
    files: Files,
    options: LogOptions,
    thread: Mutex<Option<Thread>>,
    looks: LookClock,
}

impl fmt::Debug for WriteAheadLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteAheadLog").field("storage", &self.storage).finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    /// What the close mended, in words.
    mended: Mutex<Option<String>>,
    /// Appenders wait here for room; notified by every group taken, and by the end.
    room: Condvar,
    /// `wal-sync` waits here; raised by an append, a release and the close.
    work: Signal,
    counts: Arc<Counts>,
    /// How many spares input leaves alone.
    reserve: AtomicUsize,
    shortage: Shortage,
    /// The newest checkpoint that the caller said to be durable.
    checkpoint: AtomicU64,
    /// What is durable of the segment that is written; none before the first.
    synced: Mutex<Option<Synced>>,
    /// What keeps others out of the storage, for as long as `wal-sync` writes to it.
    lock: Mutex<Option<Arc<Lock>>>,
    /// Says that writes are refused, once there is somebody to be told.
    refusing: Mutex<Option<ConditionHandle>>,
    /// Says that a write does not return, once there is somebody to be told.
    hanging: Mutex<Option<Arc<Watch>>>,
}

#[derive(Default)]
struct State {
    pending: VecDeque<Pending>,
    /// Bytes of the pending records with their headers.
    bytes: usize,
    /// Segments below this may go.
    release: Option<u64>,
    /// Nothing more is taken; what is pending is still written.
    closed: bool,
    /// The log ended, and why.
    failed: Option<Arc<str>>,
}

struct Pending {
    record: Record,
    receipt: Receipt,
    /// For input, which is only taken while the reserve is there.
    input: Option<Lane>,
}

impl Pending {
    fn size(&self) -> usize {
        RECORD_HEADER + self.record.length()
    }
}

impl WriteAheadLog {
    /// Opens the log of a storage that the caller has locked, hands out what it holds, and starts its thread.
    ///
    /// `known` is what the caller knows of the log: the oldest segment that it still needs, as a checkpoint says; 1 without
    /// one. What `visit` was given may be acted on once this has returned.
    ///
    /// # Errors
    /// If the log is damaged (the text names segment and offset) or cannot be read, what `visit` returns, or if the
    /// thread cannot start.
    pub fn open(
        storage: Arc<dyn Storage>,
        options: LogOptions,
        known: impl Into<Known>,
        poison: &Poison,
        visit: &mut Visit<'_>,
    ) -> Result<(Self, Recovered)> {
        options.check();
        let (mut writer, recovered) =
            recovery::recover(Arc::clone(&storage), options, known.into(), visit)?;
        let shortage = Shortage::default();
        if let Some(reason) = first_room(&mut writer)? {
            shortage.begin(reason);
        }
        let (files, looks) = (Arc::clone(&writer.files), writer.present.clock());
        let counts = Arc::new(Counts::default());
        let segments = files.lock().len();
        counts.look(writer.syncs(), segments);
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            room: Condvar::new(),
            work: Signal::new(),
            counts,
            reserve: AtomicUsize::new(options.reserve),
            shortage,
            checkpoint: AtomicU64::new(writer.listing.now().checkpoint),
            lock: Mutex::default(),
            synced: Mutex::new(writer.listing.now().segments.last().copied()),
            refusing: Mutex::default(),
            hanging: Mutex::default(),
            mended: Mutex::default(),
        });
        let (worker, owner) = (Arc::clone(&shared), poison.clone());
        let (gate, in_order) = (Gate::default(), false);
        let body = move || Worker { shared: worker, writer, gate, poison: owner, in_order }.run();
        let thread = thread::spawn("wal-sync", poison, body)
            .map_err(|err| Error::io("cannot start the thread wal-sync", err))?;
        let thread = Mutex::new(Some(thread));
        Ok((WriteAheadLog { shared, storage, files, options, thread, looks }, recovered))
    }

    /// Queues a record; waits while `pending_bytes_max` bytes wait already, until a group is taken or the log ends.
    ///
    /// # Errors
    /// If the log is closed or has failed, or the record is too large for a segment; its receipt is dropped then.
    pub fn append(
        &self,
        record: impl Into<Record>,
        receipt: impl FnOnce(Result<Position, NotLogged>) + Send + 'static,
    ) -> Result<()> {
        self.push(record.into(), Box::new(receipt), None)
    }

    /// The same for what others wait with until there is room: while the log is [short](WriteAheadLog::shortage) it is
    /// given back, and what is appended otherwise is not. So is what follows a record of its lane that was given back, until
    /// that one is appended again and taken.
    ///
    /// # Errors
    /// As [`append`](WriteAheadLog::append).
    pub fn append_input(
        &self,
        lane: Lane,
        record: impl Into<Record>,
        receipt: impl FnOnce(Result<Position, NotLogged>) + Send + 'static,
    ) -> Result<()> {
        self.push(record.into(), Box::new(receipt), Some(lane))
    }

    fn push(&self, record: Record, receipt: Receipt, input: Option<Lane>) -> Result<()> {
        let size = self.size_of(&record)?;
        let mut state = self.shared.state.lock();
        while state.is_open()
            && state.bytes > 0
            && state.bytes + size > self.options.pending_bytes_max
        {
            self.shared.room.wait(&mut state);
        }
        state.expect_open()?;
        state.bytes += size;
        state.pending.push_back(Pending { record, receipt, input });
        drop(state);
        self.shared.work.raise();
        Ok(())
    }

    /// Appends a record and waits until it is durable.
    ///
    /// # Errors
    /// If it is not durable: [`NotLogged`] says whether it may be tried again.
    pub fn append_and_wait(&self, record: impl Into<Record>) -> Result<Position, NotLogged> {
        let slot = Arc::new(Mutex::new(None));
        let done = Signal::new();
        // Raised also when the receipt is dropped uncalled, so that this never waits for a log that ended.
        let ticket = Ticket { slot: Arc::clone(&slot), done: done.clone() };
        self.append(record, move |outcome| *ticket.slot.lock() = Some(outcome))
            .map_err(|err| NotLogged::Failed(err.to_string().into()))?;
        done.wait();
        let outcome = slot.lock().take();
        outcome.unwrap_or_else(|| Err(NotLogged::Failed("the log ended".into())))
    }

    fn size_of(&self, record: &Record) -> Result<usize> {
        let (length, max) = (record.length(), self.record_bytes_max());
        if length > max {
            return Err(Error::Failed(format!(
                "a record of {length} bytes is larger than a segment of the log takes, {max} bytes"
            )));
        }
        Ok(RECORD_HEADER + length)
    }

    /// The longest record that the log takes, in bytes.
    pub fn record_bytes_max(&self) -> usize {
        body_max(&self.options) - RECORD_HEADER
    }

    /// From now on looks once a second by this clock, when a group is synced, whether the log's files are still there.
    pub(crate) fn look_for_loss(&self, clock: Arc<dyn Clock>) {
        *self.looks.lock() = Some(clock);
    }

    /// Says there when a write does not return.
    pub(crate) fn report_hangs(&self, conditions: &Conditions) {
        *self.shared.hanging.lock() = Some(Arc::new(watch_over(conditions, self.name())));
    }

    /// Why input is given back; none while the log takes it.
    pub fn shortage(&self) -> Option<Arc<str>> {
        self.shared.shortage.reason()
    }

    /// Says by this handle when the log takes no writes, and when it does again.
    pub(crate) fn report_refusals(&self, handle: ConditionHandle) {
        if let Some(reason) = self.shortage() {
            handle.begin(reason.as_ref(), "");
        }
        *self.shared.refusing.lock() = Some(handle);
    }

    /// Calls `listener` each time that the log begins to give input back, on the thread `wal-sync`, and now if it does so
    /// already. It must only post.
    pub fn on_shortage(&self, listener: impl Fn() + Send + 'static) {
        self.shared.shortage.on_begin(Box::new(listener));
    }

    /// From now on input leaves so many bytes of spares to all else, beside what it leaves anyway.
    pub fn keep_room(&self, bytes: u64) {
        let more =
            usize::try_from(bytes.div_ceil(self.options.segment_bytes)).unwrap_or(usize::MAX);
        let count = self.options.reserve.saturating_add(more);
        self.shared.reserve.store(count, Ordering::SeqCst);
    }

    /// Reads a record back. Any thread.
    ///
    /// # Errors
    /// If its segment was released, it cannot be read, or it is damaged.
    pub fn read(&self, at: Position) -> Result<Vec<u8>> {
        let file = self.files.lock().get(&at.segment).cloned();
        let Some(file) = file else {
            return Err(Error::Failed(format!("segment {} of the log was released", at.segment)));
        };
        Segment::read(file.as_ref(), self.storage.as_ref(), at)
    }

    /// What the close found touched and wrote anew, in words; once.
    pub(crate) fn take_mended(&self) -> Option<String> {
        self.shared.mended.lock().take()
    }

    /// What people call the place where the segments are.
    pub fn name(&self) -> String {
        self.storage.name()
    }

    /// The disk that the segments lie on.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn volume(&self) -> io::Result<Volume> {
        self.storage.volume()
    }

    /// Keeps others out of the storage until the thread of the log has ended, also where it outlives the log.
    pub(crate) fn hold(&self, lock: Arc<Lock>) {
        *self.shared.lock.lock() = Some(lock);
    }

    /// A checkpoint of this number is durable: from now on the log knows it.
    pub fn checkpointed(&self, number: u64) {
        self.shared.checkpoint.fetch_max(number, Ordering::SeqCst);
    }

    /// What is durable of the newest segment; what a checkpoint says of the log, so that a start finds out what is missing.
    pub fn synced(&self) -> Option<Synced> {
        *self.shared.synced.lock()
    }

    /// Lets the segments below `first` go, soon. The newest one stays.
    pub fn release(&self, first: u64) {
        let mut state = self.shared.state.lock();
        state.release = state.release.max(Some(first));
        drop(state);
        self.shared.work.raise();
    }

    /// Looks again whether there is room for the reserve, soon, if the log is short of it.
    pub fn look_for_room(&self) {
        self.release(0);
    }

    /// The newest segment that holds durable records; 1 if there is none. What a checkpoint names as the first that is
    /// needed when nothing older is.
    pub fn newest_segment(&self) -> u64 {
        self.files.lock().keys().next_back().copied().unwrap_or(1)
    }

    /// The live segments, oldest first.
    pub fn segments(&self) -> Vec<u64> {
        self.files.lock().keys().copied().collect()
    }

    /// What was done since the log was opened.
    pub fn stats(&self) -> LogStats {
        self.watch().stats()
    }

    /// A look at that which outlives the log.
    pub(crate) fn watch(&self) -> LogWatch {
        LogWatch::new(&self.shared.counts)
    }

    /// Takes nothing more, writes what is pending, and ends the thread. If that takes beyond `deadline`, the thread is
    /// left to end with the process.
    ///
    /// # Errors
    /// If the log failed, or was not done at the deadline.
    pub fn close(&self, clock: &dyn Clock, deadline: Moment) -> Result<()> {
        self.shared.close();
        let Some(thread) = self.thread.lock().take() else { return Ok(()) };
        if join_until(clock, thread, deadline) != Joined::Ended {
            return Err(Error::Undrained("the log was not synced at the deadline".to_owned()));
        }
        match &self.shared.state.lock().failed {
            Some(reason) => Err(Error::Failed(reason.to_string())),
            None => Ok(()),
        }
    }
}

impl Drop for WriteAheadLog {
    /// What is pending is still written; the thread is joined by its own drop.
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Wakes the one who waits, called or not.
struct Ticket {
    slot: Arc<Mutex<Option<Result<Position, NotLogged>>>>,
    done: Signal,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.done.raise();
    }
}

impl State {
    fn is_open(&self) -> bool {
        !self.closed && self.failed.is_none()
    }

    fn expect_open(&self) -> Result<()> {
        match &self.failed {
            Some(reason) => Err(Error::Failed(reason.to_string())),
            None if self.closed => Err(Error::Failed("the log is closed".to_owned())),
            None => Ok(()),
        }
    }

    /// The records that are written next, in order: as many as one group takes, and one at least. If the first of them
    /// fits into the `left` bytes of the segment, they all do.
    fn take_group(&mut self, bytes_max: usize, left: usize) -> Vec<Pending> {
        let (mut group, mut bytes) = (Vec::new(), 0);
        let fits = self.pending.front().is_some_and(|first| first.size() <= left);
        let bytes_max = if fits { bytes_max.min(left) } else { bytes_max };
        while let Some(next) = self.pending.front() {
            let size = next.size();
            if !group.is_empty() && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            group.extend(self.pending.pop_front());
        }
        self.bytes -= bytes;
        group
    }
}

impl Shared {
    fn close(&self) {
        self.state.lock().closed = true;
        self.room.notify_all();
        self.work.raise();
    }

    /// Ends the log: what is pending is refused, and everyone who waits is woken.
    fn fail(&self, reason: &Arc<str>) {
        let mut state = self.state.lock();
        state.failed.get_or_insert_with(|| Arc::clone(reason));
        state.bytes = 0;
        let pending = std::mem::take(&mut state.pending);
        drop(state);
        self.room.notify_all();
        for Pending { receipt, .. } in pending {
            receipt(Err(NotLogged::Failed(Arc::clone(reason))));
        }
    }
}
