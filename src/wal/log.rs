//! `WriteAheadLog`: group commit. Any thread appends; the thread `wal-sync` writes the pending records as one group, syncs
//! it once, and calls each record's receipt.
//!
//! ```text
//!  append ─▶ pending (bounded in bytes) ─ all that waits ─▶ group ─▶ fdatasync ─▶ receipts ─▶ next group
//! ```
//! Nothing waits for a timer: a group is as large as the last sync was slow. Receipts run on `wal-sync` and only post.
//!
//! The log takes input while it has its reserve: spare segments for the records that end batches, which release other
//! segments. When the disk has no room for the reserve, the log is *short*: it refuses input, takes everything else, and
//! notifies its listeners.

mod worker;

use std::collections::VecDeque;
use std::{fmt, io};

use self::worker::{Worker, first_room};
use super::examine::Known;
use super::format::{Position, RECORD_HEADER};
use super::hangs::watch_over;
use super::lane_order::{Lane, LaneOrder};
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

/// Called once with the fate of a record, on the thread `wal-sync`; it must only post.
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
    /// The files that the close wrote anew, in words.
    mended: Mutex<Option<String>>,
    /// Appenders wait here for room; notified by every group taken, and by the end.
    room: Condvar,
    /// `wal-sync` waits here; raised by an append, a release and the close.
    work: Signal,
    counts: Arc<Counts>,
    /// Spares that input leaves for everything else.
    reserve: AtomicUsize,
    shortage: Shortage,
    /// The newest durable checkpoint, as the caller reported it.
    checkpoint: AtomicU64,
    /// The durable part of the segment that is written; `None` before the first.
    synced: Mutex<Option<Synced>>,
    /// Keeps others out of the storage as long as `wal-sync` writes to it.
    lock: Mutex<Option<Arc<Lock>>>,
    /// Reports refused writes, once somebody listens.
    refusing: Mutex<Option<ConditionHandle>>,
    /// Reports a write that does not return, once somebody listens.
    hanging: Mutex<Option<Arc<Watch>>>,
}

#[derive(Default)]
struct State {
    pending: VecDeque<Pending>,
    /// Bytes of the pending records with their headers.
    bytes: usize,
    /// Segments below this may be released.
    release: Option<u64>,
    /// The log takes nothing more; pending records are still written.
    closed: bool,
    /// The reason why the log ended, if it did.
    failed: Option<Arc<str>>,
}

struct Pending {
    record: Record,
    receipt: Receipt,
    /// The lane of input, which needs the reserve; `None` for everything else.
    input: Option<Lane>,
}

impl Pending {
    fn size(&self) -> usize {
        RECORD_HEADER + self.record.length()
    }
}

impl WriteAheadLog {
    /// Opens the log of a storage that the caller has locked, hands out its records, and starts its thread.
    ///
    /// `known` is the caller's knowledge of the log: the oldest segment that it still needs, as a checkpoint says; 1 without
    /// one. The caller may act on the records that `visit` was given once this has returned.
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
        let (order, in_order) = (LaneOrder::default(), false);
        let body = move || Worker { shared: worker, writer, order, poison: owner, in_order }.run();
        let thread = thread::spawn("wal-sync", poison, body)
            .map_err(|err| Error::io("cannot start the thread wal-sync", err))?;
        let thread = Mutex::new(Some(thread));
        Ok((WriteAheadLog { shared, storage, files, options, thread, looks }, recovered))
    }

    /// Queues a record. Waits while `pending_bytes_max` bytes are pending, until a group is taken or the log ends.
    ///
    /// # Errors
    /// If the log is closed or has failed, or the record is too large for a segment; the receipt is dropped then.
    pub fn append(
        &self,
        record: impl Into<Record>,
        receipt: impl FnOnce(Result<Position, NotLogged>) + Send + 'static,
    ) -> Result<()> {
        self.push(record.into(), Box::new(receipt), None)
    }

    /// The same for input, whose senders can wait for room: while the log is [short](WriteAheadLog::shortage) it refuses
    /// input, and takes records of [`append`](WriteAheadLog::append). It also refuses the records that follow a refused one
    /// in their lane, until that one is appended again and taken.
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
    /// If it is not durable: `NotLogged` tells if the caller may try again.
    pub fn append_and_wait(&self, record: impl Into<Record>) -> Result<Position, NotLogged> {
        let slot = Arc::new(Mutex::new(None));
        let done = Signal::new();
        // A receipt that is dropped uncalled raises it too, so that this never waits for a log that ended.
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

    /// From now on checks once a second by this clock, when a group is synced, that the log's files are still there.
    pub(crate) fn look_for_loss(&self, clock: Arc<dyn Clock>) {
        *self.looks.lock() = Some(clock);
    }

    /// Reports there when a write does not return.
    pub(crate) fn report_hangs(&self, conditions: &Conditions) {
        *self.shared.hanging.lock() = Some(Arc::new(watch_over(conditions, self.name())));
    }

    /// The reason why the log refuses input; `None` while it takes it.
    pub fn shortage(&self) -> Option<Arc<str>> {
        self.shared.shortage.reason()
    }

    /// Reports by this handle when the log takes no writes, and when it does again.
    pub(crate) fn report_refusals(&self, handle: ConditionHandle) {
        if let Some(reason) = self.shortage() {
            handle.begin(reason.as_ref(), "");
        }
        *self.shared.refusing.lock() = Some(handle);
    }

    /// Calls `listener` each time that the log begins to refuse input, on the thread `wal-sync`, and now if it refuses it
    /// already. It must only post.
    pub fn on_shortage(&self, listener: impl Fn() + Send + 'static) {
        self.shared.shortage.on_begin(Box::new(listener));
    }

    /// From now on input leaves this many bytes of spares more for everything else.
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

    /// The files that the close found touched and wrote anew, in words. Returned once.
    pub(crate) fn take_mended(&self) -> Option<String> {
        self.shared.mended.lock().take()
    }

    /// The name of the segments' place, for messages.
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

    /// Keeps others out of the storage until the thread of the log has ended, which may outlive the log.
    pub(crate) fn hold(&self, lock: Arc<Lock>) {
        *self.shared.lock.lock() = Some(lock);
    }

    /// Notes that the checkpoint of this number is durable.
    pub fn checkpointed(&self, number: u64) {
        self.shared.checkpoint.fetch_max(number, Ordering::SeqCst);
    }

    /// The durable part of the newest segment. A checkpoint records it, so that a start finds what is missing.
    pub fn synced(&self) -> Option<Synced> {
        *self.shared.synced.lock()
    }

    /// Releases the segments below `first`, soon. The newest one stays.
    pub fn release(&self, first: u64) {
        let mut state = self.shared.state.lock();
        state.release = state.release.max(Some(first));
        drop(state);
        self.shared.work.raise();
    }

    /// If the log is short, checks again soon for room for the reserve.
    pub fn look_for_room(&self) {
        self.release(0);
    }

    /// The newest segment that holds durable records; 1 if there is none. A checkpoint names it as the first that is needed,
    /// unless an older one is.
    pub fn newest_segment(&self) -> u64 {
        self.files.lock().keys().next_back().copied().unwrap_or(1)
    }

    /// The live segments, oldest first.
    pub fn segments(&self) -> Vec<u64> {
        self.files.lock().keys().copied().collect()
    }

    /// Figures since the log was opened.
    pub fn stats(&self) -> LogStats {
        self.watch().stats()
    }

    /// A view of these figures that outlives the log.
    pub(crate) fn watch(&self) -> LogWatch {
        LogWatch::new(&self.shared.counts)
    }

    /// Takes nothing more, writes the pending records, and ends the thread. If that takes beyond `deadline`, the thread ends
    /// with the process.
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
    /// Pending records are still written; the thread's own drop joins it.
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Wakes the waiting thread when it is called or dropped.
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

    /// Takes the records to write next, in order: as many as fit in one group, and at least one. If the first of them fits
    /// into the `left` bytes of the segment, they all do.
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

    /// Ends the log: refuses the pending records, and wakes every waiting thread.
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
