//! The chunk logger: with a log, what the io threads queued is durable before it is stored. The body of `rxN-push`.
//!
//! ```text
//!  range queue ─drain─▶ chunk ─▶ log ─(receipt on wal-sync: acknowledge, in order)─▶ durable ─▶ open block
//!                                                                  cut: tick, timer ─▶ block ─▶ BlockTarget
//! ```
//! A chunk holds the ranges that came since the logger last drained the queue. It drains when nothing is on its way to the
//! disk, so that ranges that come during a sync go with the next one and an acknowledgement waits for two syncs at most; a
//! full chunk goes at once. There is no timer and no lock for each range: an io thread that queued a range compares two
//! numbers. What is not durable counts as queued. A chunk that found no room on the disk is appended again, and until it is
//! durable no other is made: the queue fills and the sockets are paused. Nothing here knows what a batch is.

#[cfg(all(test, tidemill_model))]
mod model;
#[cfg(all(test, not(tidemill_model)))]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::blocks::{Block, BlockId, Range, Receipt};
use crate::error::Result;
use crate::framing::Framing;
use crate::journal::{self, Journal};
use crate::source::ingest::feed::Feed;
use crate::source::ingest::handover::{BlockTarget, PUSH_RETRY, Push};
use crate::source::ingest::range_queue::RangeQueue;
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, Poison, Signal};
use crate::time::{Moment, Time};
use crate::wal::NotLogged;

/// A chunk of this many bytes is full: it goes to the log although another is on its way. Less where segments are small.
pub(crate) const CHUNK_BYTES_MAX: u64 = if cfg!(tidemill_model) { 3 } else { 4 << 20 };

/// Chunks that are on their way to the log at once, unless a tick wants everything.
const CHUNKS_MAX: usize = 4;

/// Wait after a chunk that found no room on the disk, before it is appended again.
const LOG_RETRY: Duration = Duration::from_millis(200);

/// The logger need not be woken for queued ranges.
const NEVER: u64 = u64::MAX;

/// The log that makes chunks durable.
pub(crate) trait ChunkLog: Send + Sync {
    /// Appends a chunk; `receipt` is called once it is durable. It only posts.
    ///
    /// # Errors
    /// If the log has ended; `receipt` is dropped then.
    fn append(
        &self,
        number: u64,
        framing: Framing,
        ranges: &[Range],
        receipt: journal::Receipt,
    ) -> Result<()>;
}

/// The journal, as one source of the program uses it.
pub(crate) struct SourceLog {
    pub(crate) journal: Arc<Journal>,
    pub(crate) source: u32,
}

impl ChunkLog for SourceLog {
    fn append(
        &self,
        number: u64,
        framing: Framing,
        ranges: &[Range],
        receipt: journal::Receipt,
    ) -> Result<()> {
        self.journal.append_chunk(self.source, number, framing, ranges, receipt)
    }
}

/// The log, as the receivers of an engine are given it.
#[derive(Clone)]
pub(crate) struct EngineLog {
    pub(crate) journal: Arc<Journal>,
    /// Of each source the number of its first chunk.
    pub(crate) next_chunks: Arc<[u64]>,
    /// A full chunk, in bytes.
    pub(crate) chunk_bytes_max: u64,
}

impl EngineLog {
    /// The log options of a source's cutter.
    pub(crate) fn of(&self, source: u32) -> ChunkLogOptions {
        let at = usize::try_from(source).unwrap_or(usize::MAX);
        let next_chunk = self.next_chunks.get(at).copied().unwrap_or(0);
        let log = SourceLog { journal: Arc::clone(&self.journal), source };
        ChunkLogOptions { log: Arc::new(log), next_chunk, chunk_bytes_max: self.chunk_bytes_max }
    }
}

/// The options of a chunk logger.
#[derive(Clone)]
pub(crate) struct ChunkLogOptions {
    pub(crate) log: Arc<dyn ChunkLog>,
    /// The number of the first chunk.
    pub(crate) next_chunk: u64,
    /// A full chunk, in bytes.
    pub(crate) chunk_bytes_max: u64,
}

/// The queued bytes at which the logger wants to be woken. The io threads and the logger share it.
pub(crate) struct DrainLevel(AtomicU64);

impl DrainLevel {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(DrainLevel(AtomicU64::new(NEVER)))
    }

    /// A range was queued: wakes the logger if it waits for that. Any io thread.
    ///
    /// The logger sets the level, then looks at the queue again; an io thread queues, then looks at the level.
    pub(crate) fn queued(&self, queue: &RangeQueue, logger: &Signal) {
        let wanted = self.0.load(Ordering::SeqCst);
        if wanted != NEVER
            && (queue.bytes() >= wanted || is_crowded(queue))
            && self.0.swap(NEVER, Ordering::SeqCst) != NEVER
        {
            logger.raise();
        }
    }
}

fn is_crowded(queue: &RangeQueue) -> bool {
    queue.len() >= queue.capacity() / 4 * 3
}

/// A chunk's fate, once its receipt was called.
type Outcome = Arc<Mutex<Option<Result<(), NotLogged>>>>;

enum Item {
    Chunk(Chunk),
    /// Everything before this is a block of its own; then the target is notified of the tick, if it is one.
    Cut(Option<Time>),
}

struct Chunk {
    number: u64,
    ranges: Vec<Range>,
    bytes: u64,
    first_read: Option<Moment>,
    state: State,
    /// There was no room for it at least once.
    was_refused: bool,
}

enum State {
    /// Appended; the receipt follows.
    Waiting(Outcome),
    Durable,
    /// There was no room: it will be appended again.
    Refused,
}

/// Calls the receipts of chunks once they and all before them are durable.
#[derive(Default)]
struct Acknowledger {
    next: u64,
    /// Durable before one in front of them was.
    early: BTreeMap<u64, Vec<Receipt>>,
}

impl Acknowledger {
    fn durable(&mut self, number: u64, receipts: Vec<Receipt>) {
        self.early.insert(number, receipts);
        while let Some(receipts) = self.early.remove(&self.next) {
            receipts.iter().for_each(|receipt| receipt.to.acknowledge(receipt.upto));
            self.next += 1;
        }
    }
}

/// The block that is being filled with durable chunks.
#[derive(Default)]
struct Open {
    ranges: Vec<Range>,
    bytes: u64,
    chunks: Option<(u64, u64)>,
    first_read: Option<Moment>,
}

/// The parts of a logger that others share.
pub(crate) struct LoggerParts {
    pub(crate) feed: Arc<Feed>,
    pub(crate) level: Arc<DrainLevel>,
    /// Set when the log ends.
    pub(crate) poison: Poison,
    pub(crate) target: Arc<dyn BlockTarget>,
}

/// See the module.
pub(crate) struct ChunkLogger {
    feed: Arc<Feed>,
    level: Arc<DrainLevel>,
    poison: Poison,
    target: Arc<dyn BlockTarget>,
    log: Arc<dyn ChunkLog>,
    next_chunk: u64,
    chunk_bytes_max: u64,
    items: VecDeque<Item>,
    open: Open,
    acknowledger: Arc<Mutex<Acknowledger>>,
    /// Bytes that were taken from the queue and are not durable.
    held: u64,
    /// Chunks among them that were refused.
    refused: usize,
    /// When refused chunks are appended again.
    retry_at: Option<Moment>,
    /// The log has ended: ranges that come are dropped, so that the io threads can end. The engine is poisoned.
    ended: bool,
    /// The last cut was made.
    closed: bool,
}

impl ChunkLogger {
    pub(crate) fn new(parts: LoggerParts, options: ChunkLogOptions) -> Self {
        let LoggerParts { feed, level, poison, target } = parts;
        let acknowledger = Acknowledger { next: options.next_chunk, ..Acknowledger::default() };
        ChunkLogger {
            feed,
            level,
            poison,
            target,
            log: options.log,
            next_chunk: options.next_chunk,
            chunk_bytes_max: options.chunk_bytes_max,
            items: VecDeque::new(),
            open: Open::default(),
            acknowledger: Arc::new(Mutex::new(acknowledger)),
            held: 0,
            refused: 0,
            retry_at: None,
            ended: false,
            closed: false,
        }
    }

    pub(crate) fn run(mut self) {
        self.feed.stop.wakes(self.feed.pushes.signal());
        while !self.feed.stop.is_stopped() {
            // First: the close can be taken only once no chunk is refused.
            self.settle();
            self.take_messages();
            self.append_refused();
            while self.may_drain() {
                self.drain();
            }
            if self.closed && self.items.is_empty() && self.is_idle() {
                return;
            }
            self.wait();
        }
    }

    /// Updates `in_flight` for the cutters; true if nothing is pending.
    fn is_idle(&self) -> bool {
        let open = usize::from(self.open.chunks.is_some());
        self.feed.in_flight.store(self.items.len() + open, Ordering::SeqCst);
        self.items.is_empty() && open == 0 && self.feed.queue.len() == 0
    }

    fn take_messages(&mut self) {
        while let Some(push) = self.feed.pushes.try_recv() {
            match push {
                Push::Cut => self.cut(None),
                Push::Tick(time) => self.cut(Some(time)),
                Push::Block(block) => self.push(&block),
            }
            self.feed.progress.raise();
        }
        if !self.closed && self.feed.pushes.is_closed_and_empty() && self.refused == 0 {
            self.closed = true;
            self.cut(None);
        }
    }

    /// Takes everything that is queued, and closes the block behind it.
    fn cut(&mut self, time: Option<Time>) {
        let mut left = self.feed.queue.len();
        while left > 0 && self.refused == 0 {
            left = left.saturating_sub(self.drain());
            // The log may take until the next tick for this: the chunks that are durable by then belong to that tick's batch.
            self.settle();
        }
        match self.items.back_mut() {
            // Nothing came between: the later tick stands for both, as it does for the job loop.
            Some(Item::Cut(before)) => *before = time.or(*before),
            _ => self.items.push_back(Item::Cut(time)),
        }
        self.settle();
    }

    fn waiting(&self) -> usize {
        let waits = |item: &&Item| matches!(item, Item::Chunk(chunk) if matches!(chunk.state, State::Waiting(_)));
        self.items.iter().filter(waits).count()
    }

    /// True if a chunk must be made of the queued ranges now.
    fn may_drain(&self) -> bool {
        let queue = &self.feed.queue;
        if queue.len() == 0 || self.refused > 0 {
            return false;
        }
        let waiting = self.waiting();
        waiting == 0
            || (waiting < CHUNKS_MAX
                && (queue.bytes() >= self.held + self.chunk_bytes_max || is_crowded(queue)))
    }

    /// Makes a chunk of the queued ranges, at most a full one, and appends it; returns the number of ranges that it took.
    fn drain(&mut self) -> usize {
        // Before the first range is taken: until it is stored, a tick has something to wait for.
        self.feed.in_flight.fetch_add(1, Ordering::SeqCst);
        let first_read = self.feed.first_read.take();
        let (mut ranges, mut bytes) = (Vec::new(), 0);
        let queued = self.feed.queue.len();
        while ranges.len() < queued && bytes < self.chunk_bytes_max {
            let Some(range) = self.feed.queue.take() else { break };
            bytes += range.bytes.len() as u64;
            ranges.push(range);
        }
        self.held += bytes;
        let taken = ranges.len();
        if taken > 0 && !self.ended {
            let number = self.next_chunk;
            self.next_chunk += 1;
            let state = self.append(number, &ranges);
            let was_refused = false;
            let chunk = Chunk { number, ranges, bytes, first_read, state, was_refused };
            self.items.push_back(Item::Chunk(chunk));
        } else {
            self.let_go(bytes);
        }
        self.feed.queue.drained();
        self.feed.progress.raise();
        // From here on `is_idle` counts the chunk.
        self.is_idle();
        taken
    }

    /// Appends a chunk, for the first time or again.
    fn append(&mut self, number: u64, ranges: &[Range]) -> State {
        let outcome = Outcome::default();
        let (told, acknowledger) = (Arc::clone(&outcome), Arc::clone(&self.acknowledger));
        let receipts: Vec<Receipt> =
            ranges.iter().flat_map(|range| range.receipts.clone()).collect();
        let logger = self.feed.pushes.signal().clone();
        let early = planted(Planted::AcknowledgesBeforeLog);
        if early {
            self.acknowledger.lock().durable(number, receipts.clone());
        }
        let receipt = move |result: Result<(), NotLogged>| {
            let result = match result {
                Err(NotLogged::Retry(_)) if planted(Planted::RefusedIsDurable) => Ok(()),
                result => result,
            };
            if result.is_ok() && !early {
                acknowledger.lock().durable(number, receipts);
            }
            *told.lock() = Some(result);
            logger.raise();
        };
        let appended = self.log.append(number, self.feed.framing, ranges, Box::new(receipt));
        if let Err(err) = appended {
            self.poison.set(err.to_string());
            self.end();
        }
        State::Waiting(outcome)
    }

    /// Stops counting this many bytes, which are durable or given up.
    fn let_go(&mut self, bytes: u64) {
        self.held -= bytes;
        self.feed.queue.gone(bytes);
    }

    fn take_outcomes(&mut self) {
        let (mut ended, mut durable) = (false, 0);
        for item in &mut self.items {
            let Item::Chunk(chunk) = item else { continue };
            let State::Waiting(outcome) = &chunk.state else { continue };
            let outcome = outcome.lock().take();
            match outcome {
                None => {}
                Some(Ok(())) => {
                    chunk.state = State::Durable;
                    durable += chunk.bytes;
                    self.refused -= usize::from(chunk.was_refused);
                }
                Some(Err(NotLogged::Retry(_))) => {
                    chunk.state = State::Refused;
                    self.refused += usize::from(!chunk.was_refused);
                    chunk.was_refused = true;
                    let again = self.feed.clock.now().plus(LOG_RETRY);
                    self.retry_at.get_or_insert(again);
                }
                Some(Err(NotLogged::Failed(_))) => ended = true,
            }
        }
        if durable > 0 {
            self.let_go(durable);
            self.feed.queue.drained();
        }
        if ended {
            self.end();
        }
    }

    /// Appends the refused chunks, in order, once it is time.
    fn append_refused(&mut self) {
        if self.retry_at.is_none_or(|at| self.feed.clock.now() < at) {
            return;
        }
        self.retry_at = None;
        for at in 0..self.items.len() {
            let Item::Chunk(chunk) = &mut self.items[at] else { continue };
            if !matches!(chunk.state, State::Refused) {
                continue;
            }
            let (number, ranges) = (chunk.number, std::mem::take(&mut chunk.ranges));
            let state = self.append(number, &ranges);
            if let Some(Item::Chunk(chunk)) = self.items.get_mut(at) {
                (chunk.ranges, chunk.state) = (ranges, state);
            }
        }
    }

    /// The log has ended: nothing that waits for it will be durable in this run.
    fn end(&mut self) {
        self.ended = true;
        self.retry_at = None;
    }

    /// Moves durable chunks into the open block, in order, and stores the blocks that were cut.
    fn settle(&mut self) {
        self.take_outcomes();
        loop {
            match self.items.pop_front() {
                Some(Item::Chunk(chunk)) if matches!(chunk.state, State::Durable) => {
                    self.open.add(chunk);
                    if self.open.bytes >= self.feed.block_bytes_max {
                        self.store();
                    }
                }
                Some(Item::Cut(time)) => {
                    self.store();
                    if let Some(time) = time {
                        self.target.reached(self.feed.source, time);
                    }
                }
                Some(waiting) => {
                    self.items.push_front(waiting);
                    break;
                }
                None => break,
            }
        }
        if self.ended {
            // The next start finds the durable part of this.
            self.items.clear();
            self.open = Open::default();
            self.refused = 0;
            self.let_go(self.held);
            self.feed.queue.drained();
        }
        self.is_idle();
    }

    /// Stores the open block.
    fn store(&mut self) {
        let Open { ranges, chunks, first_read, .. } = std::mem::take(&mut self.open);
        let Some((first, last)) = chunks else { return };
        let feed = &self.feed;
        // The first chunk's number is the block's: it names the same block after a restart.
        let id = BlockId { source: feed.source, number: first };
        let block = Block::new(id, feed.framing, ranges).first_read_at(first_read);
        self.push(&Arc::new(block.of_chunks(first..last + 1)));
        self.feed.progress.raise();
    }

    /// Pushes a block until it is stored, or the stop's deadline.
    fn push(&self, block: &Arc<Block>) {
        let feed = &self.feed;
        while self.target.push(block).is_err() && !feed.stop.is_stopped() {
            let again = feed.clock.now().plus(PUSH_RETRY);
            feed.clock.wait(feed.pushes.signal(), Some(again));
            // What raised it is looked at once the block is stored.
            feed.pushes.signal().raise();
        }
    }

    fn wait(&mut self) {
        if self.ended && self.closed {
            return;
        }
        let wanted = match self.waiting() {
            _ if self.refused > 0 => NEVER,
            0 => 1,
            waiting if waiting < CHUNKS_MAX => self.held + self.chunk_bytes_max,
            _ => NEVER,
        };
        self.level.0.store(wanted, Ordering::SeqCst);
        if !self.may_drain() || planted(Planted::LoggerSkipsRecheck) {
            self.feed.clock.wait(self.feed.pushes.signal(), self.retry_at);
        }
        self.level.0.store(NEVER, Ordering::SeqCst);
    }
}

impl Open {
    fn add(&mut self, chunk: Chunk) {
        let first = self.chunks.map_or(chunk.number, |(first, _)| first);
        self.chunks = Some((first, chunk.number));
        self.bytes += chunk.ranges.iter().map(|range| range.bytes.len() as u64).sum::<u64>();
        self.first_read = self.first_read.or(chunk.first_read);
        self.ranges.extend(chunk.ranges);
    }
}
