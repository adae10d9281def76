//! `Spill`: blocks of unfinished batches that leave memory for the log or for files, on the thread `spill`.
//!
//! ```text
//!  put, results ─account over 7/8─▶ wake ─▶ rxN-…, worker-N go on │ spill: newest idle blocks, down to 3/4
//!                                                        │   durable ─▶ where they are in the log: nothing is written
//!                                                        │   others ─LZ4─▶ spill-N.blocks
//!  release ─last block of a file─▶ gone ─▶ wake ─▶ spill removes the file
//! ```
//! The newest blocks go first: they are processed last. What a spill cannot write (a full or failing disk, the bound)
//! stays in memory, and reading stops as it would without a spill; the spill tries again. The files live as long as this
//! process uses them: they are never synced, and a new start removes the files of a killed process. The task that needs a
//! block reads it back. With a log everything is durable before it is stored, so nothing is left for files; the log's disk
//! bounds the backlog then, and enough of it stays free for plans, commits and checkpoints.
//! Nothing here knows batches.

pub(crate) mod format;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use crate::blocks::{Block, BlockId};
use crate::error::{Error, Result};
use crate::memory::budget::MemoryBudget;
use crate::metrics::{ConditionHandle, ConditionKind, Counter, Event, EventBus};
use crate::storage::{LOCK, Lock, Storage, StoredFile, needs, read_full, write_all};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, Poison, Signal, StopToken};
use crate::time::{Clock, Moment};

use super::manager::{BlockManager, Durable, EvictedBlock, Movable};
use crate::blocks::spill::format::{
    FRAME_BYTES, FRAME_HEADER_BYTES, FramePlace, HEADER_BYTES, check_header, decode, decode_header,
    encode, header,
};

/// Bytes of blocks that are gathered in one file, unless one block is larger.
const FILE_BYTES: u64 = 8 << 20;

/// Wait after a failure, before the next block is tried.
const RETRY: Duration = Duration::from_secs(1);

/// Options of a spill.
#[derive(Debug)]
pub struct SpillOptions {
    /// The files for blocks that are in no log; without them these blocks stay in memory.
    pub files: Option<SpillFiles>,
    /// Tells when memory runs short, and counts what is read back.
    pub account: Arc<MemoryBudget>,
}

/// The files of a spill.
#[derive(Debug)]
pub struct SpillFiles {
    /// The directory of the files. This spill owns it: a lock keeps other processes out.
    pub storage: Arc<dyn Storage>,
    /// Its path; the directory is removed at the end if it is empty.
    pub directory: Option<PathBuf>,
    /// The most bytes of files.
    pub bytes_max: u64,
}

/// The parts of the engine that the thread of a spill uses.
#[derive(Clone, Copy, Debug)]
pub struct SpillThread<'a> {
    /// Times the next attempt after a failure.
    pub clock: &'a Arc<dyn Clock>,
    /// Receives the news.
    pub events: &'a EventBus,
    /// Set if the thread panics.
    pub poison: &'a Poison,
}

/// See the module.
#[derive(Debug)]
pub struct Spill {
    options: SpillOptions,
    next: AtomicU64,
    /// Numbers and bytes of files that nobody needs any more.
    gone: Mutex<Vec<(u64, u64)>>,
    counters: Counters,
    wake: Signal,
    stop: StopToken,
    lock: Mutex<Option<Lock>>,
}

#[derive(Debug, Default)]
struct Counters {
    bytes: Counter,
    blocks: Counter,
    bytes_total: Counter,
    file_bytes: Counter,
    failures: Counter,
}

/// The figures of the blocks that left memory: what is out now, and what happened since the start.
/// [`Memory::spilled`](crate::Memory) has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spilled {
    /// The bytes of records that are out of memory now.
    pub bytes: u64,
    /// The number of their blocks.
    pub blocks: u64,
    /// The bytes of records that left memory since the start.
    pub bytes_total: u64,
    /// The bytes of the files now; blocks that are in the log need none.
    pub file_bytes: u64,
    /// The number of writes of blocks that failed.
    pub failures: u64,
}

impl Spill {
    /// Takes the storage over and removes the files of a process that was killed.
    ///
    /// # Errors
    /// If another process uses the storage, or it cannot be read or changed.
    pub fn open(options: SpillOptions) -> Result<Arc<Self>> {
        let lock = match &options.files {
            Some(files) => {
                let lock = files.storage.lock()?;
                remove_files(files.storage.as_ref()).map_err(|err| {
                    let name = files.storage.name();
                    Error::io(format!("cannot clear the spill directory {name}"), err)
                })?;
                Some(lock)
            }
            None => None,
        };
        Ok(Arc::new(Spill {
            options,
            next: AtomicU64::new(1),
            gone: Mutex::default(),
            counters: Counters::default(),
            wake: Signal::new(),
            stop: StopToken::new(),
            lock: Mutex::new(lock),
        }))
    }

    /// Starts the thread `spill`, which moves blocks of `store` until it is [stopped](Spill::stop). Blocks that are in the
    /// `log` leave memory without being written.
    ///
    /// # Errors
    /// If the operating system gives no more threads.
    pub fn start(
        self: &Arc<Self>,
        store: &Arc<BlockManager>,
        log: Option<Arc<dyn Durable>>,
        with: SpillThread<'_>,
    ) -> Result<Thread> {
        self.stop.wakes(&self.wake);
        // Results fill memory too, and a full store puts nothing that would wake the thread.
        let wake = self.wake.clone();
        self.options.account.on_pressure(move || wake.raise());
        let (spill, store) = (Arc::clone(self), Arc::clone(store));
        let SpillThread { clock, events, poison } = with;
        let (clock, events) = (Arc::clone(clock), events.clone());
        let body = move || spill.run(&store, log.as_deref(), clock.as_ref(), &events);
        thread::spawn("spill", poison, body)
            .map_err(|err| Error::io("cannot start the thread `spill`", err))
    }

    /// Ends the thread, which removes every file, whether or not its blocks were released.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// The figures up to now.
    pub fn counts(&self) -> Spilled {
        Spilled {
            bytes: self.counters.bytes.value(),
            blocks: self.counters.blocks.value(),
            bytes_total: self.counters.bytes_total.value(),
            file_bytes: self.counters.file_bytes.value(),
            failures: self.counters.failures.value(),
        }
    }

    /// Wakes the thread if memory runs short.
    pub(crate) fn look(&self) {
        if self.is_pressed() {
            self.wake.raise();
        }
    }

    fn is_pressed(&self) -> bool {
        self.options.account.is_pressed()
    }

    /// Bytes that must leave memory.
    fn excess(&self) -> u64 {
        self.options.account.excess() as u64
    }

    fn run(
        self: Arc<Self>,
        store: &BlockManager,
        log: Option<&dyn Durable>,
        clock: &dyn Clock,
        events: &EventBus,
    ) {
        let files = self.options.files.as_ref().map(|files| files.storage.name());
        let place = log.map(Durable::name).or(files).unwrap_or_default();
        let failing = events.conditions().handle(ConditionKind::SpillFails, place);
        let mut tell = Tell { events, spilling: false, failing };
        let mut retry: Option<Moment> = None;
        let mut scratch = Scratch::default();
        while !self.stop.is_stopped() {
            // The missing room on the disk may be there now.
            if self.remove_gone() || !self.is_pressed() {
                retry = None;
            }
            if !self.is_pressed() {
                tell.failing.end();
            }
            if self.is_pressed() && retry.is_none_or(|at| clock.now() >= at) {
                let outcome = self.relieve(store, log, &mut scratch);
                retry = outcome.is_err().then(|| clock.now().plus(RETRY));
                tell.of(&self, outcome);
            }
            clock.wait(&self.wake, retry);
        }
        self.close();
    }

    /// Evicts the newest blocks until memory is no longer short, or no block can be evicted.
    fn relieve(
        self: &Arc<Self>,
        store: &BlockManager,
        log: Option<&dyn Durable>,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let mut busy = Vec::new();
        // Evicted blocks make room for more input, which is logged first: up to another full store.
        let mut outcome = log.map_or(Ok(()), |log| log.has_room(self.options.account.max() as u64));
        while outcome.is_ok() && !self.stop.is_stopped() && self.excess() > 0 {
            let taken = store.take_movable(self.excess().min(FILE_BYTES));
            if taken.is_empty() {
                break;
            }
            // Evicting a block that a task reads would not free its memory, and the task ends soon.
            let (idle, read): (Vec<_>, Vec<_>) = taken
                .into_iter()
                .map(|movable| (movable.block.idle(), movable))
                .partition(|it| it.0.is_some());
            busy.extend(read.into_iter().map(|(_, movable)| movable));
            let mut idle: Vec<(Arc<Block>, Movable)> =
                idle.into_iter().filter_map(|(block, movable)| Some((block?, movable))).collect();
            idle.retain(|(block, movable)| !self.leave_to(log, block, movable));
            if let Some(files) = &self.options.files {
                outcome = self.write_file(files, &idle, scratch);
            }
            if outcome.is_err() || self.options.files.is_none() {
                busy.extend(idle.into_iter().map(|(_, movable)| movable));
            }
        }
        store.put_back(busy);
        outcome
    }

    /// Lets the memory of a block go if all of it is in the log. Returns true if it is.
    fn leave_to(
        self: &Arc<Self>,
        log: Option<&dyn Durable>,
        block: &Block,
        movable: &Movable,
    ) -> bool {
        let Some((stowed, piece_bytes_max)) = log.and_then(|log| log.find(block)) else {
            return false;
        };
        self.count(block);
        let (bytes, spill) = (block.info.bytes, Arc::clone(self));
        movable.block.evict(Arc::new(LoggedBlock { stowed, bytes, piece_bytes_max, spill }));
        true
    }

    /// Counts a block that leaves memory.
    fn count(&self, block: &Block) {
        self.counters.bytes.add(block.info.bytes);
        self.counters.bytes_total.add(block.info.bytes);
        self.counters.blocks.add(1);
    }

    /// Writes a file with these blocks and lets their memory go. Changes nothing on an error.
    fn write_file(
        self: &Arc<Self>,
        files: &SpillFiles,
        blocks: &[(Arc<Block>, Movable)],
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let storage = files.storage.as_ref();
        let name = file_name(number);
        let written = self.create(files, &name).and_then(|file| {
            let mut writer = Writer {
                file: file.as_ref(),
                number,
                offset: 0,
                file_bytes: &self.counters.file_bytes,
                bytes_max: files.bytes_max,
            };
            writer.append(&header(number))?;
            let places: io::Result<Vec<_>> =
                blocks.iter().map(|(block, _)| writer.block(block, scratch)).collect();
            Ok((places?, writer.offset))
        });
        let (places, bytes) = written.inspect_err(|_| {
            // The next start removes what cannot be removed now.
            let _ = storage.remove(&name);
        })?;
        self.counters.file_bytes.add(bytes);
        let (storage, spill) = (Arc::clone(&files.storage), Arc::clone(self));
        let file = Arc::new(SpillFile { number, bytes, storage, spill });
        for ((block, movable), place) in blocks.iter().zip(places) {
            self.count(block);
            let (id, bytes) = (block.info.id, block.info.bytes);
            let file = Arc::clone(&file);
            movable.block.evict(Arc::new(SpilledBlock { id, bytes, place, file }));
        }
        Ok(())
    }

    /// Makes a file. Makes the directory again if somebody removed it, and takes the lock in it again.
    fn create(&self, files: &SpillFiles, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        match files.storage.create(name) {
            Err(err) if err.kind() == ErrorKind::NotFound => {
                files.storage.remake()?;
                let mut lock = self.lock.lock();
                *lock = None;
                *lock = Some(files.storage.lock().map_err(io::Error::other)?);
                files.storage.create(name)
            }
            made => made,
        }
    }

    /// Removes files that nobody needs. Returns true if there were any.
    fn remove_gone(&self) -> bool {
        let gone = std::mem::take(&mut *self.gone.lock());
        let Some(files) = &self.options.files else { return false };
        for (number, bytes) in &gone {
            // A file that cannot be removed stays until the next start, and no longer counts for the bound.
            let _ = files.storage.remove(&file_name(*number));
            self.counters.file_bytes.sub(*bytes);
        }
        !gone.is_empty()
    }

    /// Removes all files, the lock and the directory. The next start fixes what fails here.
    fn close(&self) {
        let Some(files) = &self.options.files else { return };
        let storage = files.storage.as_ref();
        self.remove_gone();
        let _ = remove_files(storage);
        let _ = storage.remove(LOCK);
        drop(self.lock.lock().take());
        if let Some(directory) = &files.directory {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Reports the first block that leaves memory, and each time that this begins to fail.
struct Tell<'a> {
    events: &'a EventBus,
    spilling: bool,
    /// Its subject is the place of the blocks.
    failing: ConditionHandle,
}

impl Tell<'_> {
    fn of(&mut self, spill: &Spill, outcome: io::Result<()>) {
        let directory = || self.failing.subject().to_owned();
        if !self.spilling && spill.counters.bytes_total.value() > 0 {
            self.spilling = true;
            self.events.post(Event::Spilling { directory: directory() });
        }
        let Err(err) = outcome else {
            self.failing.end();
            return;
        };
        spill.counters.failures.add(1);
        let why = err.to_string();
        if !self.failing.lasts() {
            self.events.post(Event::SpillFailed { directory: directory(), why: why.clone() });
        }
        let cause =
            format!("blocks cannot leave memory: {why}; reading pauses while the store is full");
        // An error that is no answer of the system says itself what it needs.
        let needs = if err.get_ref().is_none() { needs(&err, FILE_BYTES) } else { String::new() };
        self.failing.begin(cause, needs);
    }
}

fn file_name(number: u64) -> String {
    format!("spill-{number:016}.blocks")
}

/// Removes the files that have names of ours, and no others.
fn remove_files(storage: &dyn Storage) -> io::Result<()> {
    let ours = |name: &&String| {
        let digits = name.strip_prefix("spill-").and_then(|rest| rest.strip_suffix(".blocks"));
        digits
            .is_some_and(|text| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    storage.list()?.iter().filter(ours).try_for_each(|name| storage.remove(name))
}

/// Buffers that are used again: the ranges of a frame, and the frame.
#[derive(Default)]
struct Scratch {
    raw: Vec<u8>,
    frame: Vec<u8>,
}

/// A file that is being written.
struct Writer<'a> {
    file: &'a dyn StoredFile,
    number: u64,
    offset: u64,
    /// Bytes of all other files.
    file_bytes: &'a Counter,
    bytes_max: u64,
}

impl Writer<'_> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (end, len) = (self.offset.checked_add(bytes.len() as u64), self.file_bytes.value());
        if end.is_none_or(|end| len.saturating_add(end) > self.bytes_max) {
            return Err(io::Error::new(ErrorKind::QuotaExceeded, "`spill_bytes_max` is reached"));
        }
        write_all(self.file, self.offset, &[bytes])?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn block(&mut self, block: &Block, scratch: &mut Scratch) -> io::Result<Place> {
        let start = self.offset;
        let mut frame_bytes_max = 0;
        scratch.raw.clear();
        for range in block.ranges() {
            if !scratch.raw.is_empty() && scratch.raw.len() + range.len() > FRAME_BYTES {
                frame_bytes_max = frame_bytes_max.max(self.frame(scratch)?);
            }
            scratch.raw.extend_from_slice(range);
        }
        if !scratch.raw.is_empty() {
            frame_bytes_max = frame_bytes_max.max(self.frame(scratch)?);
        }
        Ok(Place { start, end: self.offset, frame_bytes_max })
    }

    /// Appends the gathered ranges as one frame; returns the bytes of ranges in it.
    fn frame(&mut self, scratch: &mut Scratch) -> io::Result<usize> {
        scratch.frame.clear();
        let place = FramePlace { file: self.number, offset: self.offset };
        if !encode(&scratch.raw, place, &mut scratch.frame) {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "a record is too long to spill"));
        }
        self.append(&scratch.frame)?;
        let len = scratch.raw.len();
        scratch.raw.clear();
        Ok(len)
    }
}

/// A file, until its last block is released.
#[derive(Debug)]
struct SpillFile {
    number: u64,
    bytes: u64,
    storage: Arc<dyn Storage>,
    spill: Arc<Spill>,
}

impl Drop for SpillFile {
    /// Any thread may get here, the job loop too, so the thread `spill` removes the file.
    fn drop(&mut self) {
        self.spill.gone.lock().push((self.number, self.bytes));
        self.spill.wake.raise();
    }
}

/// The place of a block in its file.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    end: u64,
    /// The longest of its frames, in bytes of ranges.
    frame_bytes_max: usize,
}

#[derive(Debug)]
struct SpilledBlock {
    id: BlockId,
    bytes: u64,
    place: Place,
    file: Arc<SpillFile>,
}

impl EvictedBlock for SpilledBlock {
    fn for_each_range(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        // Counted, and never waited for: a full store waits for this task's batch.
        let _charge = self.file.spill.options.account.charge(2 * self.place.frame_bytes_max);
        self.read_frames(each).map_err(|why| {
            let (id, name) = (self.id, file_name(self.file.number));
            let directory = self.file.storage.name();
            Error::Failed(format!("block {id} cannot be read back from {directory}/{name}: {why}"))
        })
    }
}

impl SpilledBlock {
    fn read_frames(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        let number = self.file.number;
        let storage = &self.file.storage;
        let file = storage.open(&file_name(number)).map_err(|err| err.to_string())?;
        let mut head = [0; HEADER_BYTES];
        read_whole(file.as_ref(), 0, &mut head)?;
        check_header(&head, number)?;
        let (mut offset, mut left) = (self.place.start, self.bytes);
        let (mut stored, mut raw) = (Vec::new(), Vec::new());
        while left > 0 {
            let mut head = [0; FRAME_HEADER_BYTES];
            read_whole(file.as_ref(), offset, &mut head)?;
            let body = offset + FRAME_HEADER_BYTES as u64;
            let raw_max = left.min(self.place.frame_bytes_max as u64);
            let frame = decode_header(head, raw_max, self.place.end.saturating_sub(body))?;
            stored.resize(frame.stored, 0);
            read_whole(file.as_ref(), body, &mut stored)?;
            decode(frame, FramePlace { file: number, offset }, &stored, &mut raw)?;
            each(&raw);
            left -= raw.len() as u64;
            offset = body + frame.stored as u64;
        }
        let whole = offset == self.place.end;
        if whole { Ok(()) } else { Err("it holds more than was written".to_owned()) }
    }
}

/// A block that is read from the log, and counted as long as it is kept.
#[derive(Debug)]
struct LoggedBlock {
    stowed: Arc<dyn EvictedBlock>,
    bytes: u64,
    piece_bytes_max: usize,
    spill: Arc<Spill>,
}

impl EvictedBlock for LoggedBlock {
    fn for_each_range(&self, each: &mut dyn FnMut(&[u8])) -> Result<()> {
        let _charge = self.spill.options.account.charge(self.piece_bytes_max);
        self.stowed.for_each_range(each)
    }
}

impl Drop for LoggedBlock {
    fn drop(&mut self) {
        self.spill.counters.bytes.sub(self.bytes);
        self.spill.counters.blocks.sub(1);
    }
}

impl Drop for SpilledBlock {
    fn drop(&mut self) {
        self.file.spill.counters.bytes.sub(self.bytes);
        self.file.spill.counters.blocks.sub(1);
    }
}

fn read_whole(file: &dyn StoredFile, offset: u64, into: &mut [u8]) -> Result<(), String> {
    let read = read_full(file, offset, into).map_err(|err| err.to_string())?;
    if read == into.len() { Ok(()) } else { Err("the file ends early".to_owned()) }
}
