//! The block cutter: has the queued ranges made into blocks, and the blocks pushed to the store in order.
//!
//! ```text
//!  without a log:  range queue ─cut─▶ BlockBuilder ─▶ Block ─▶ push queue ─(rxN-push: Pusher)─▶ BlockTarget: store, then tracker
//!  with a log:     range queue ─(rxN-push: ChunkLogger)─▶ durable chunks ─cut─▶ Block ─▶ BlockTarget
//!
//!  who cuts: rxN-cut each block interval, between ticks · the job loop at each batch tick · an io thread if the queue fills
//! ```
//! The cutter holds the state lock while it drains the ranges that were queued when it began. A cut never waits: when the push
//! queue is full nothing is drained, the range queue fills and the sockets are paused. It knows nothing of batches but their
//! tick marks, which pass through the push queue behind the blocks they belong to.

use std::time::Duration;

use crate::blocks::Range;
use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::memory::budget::MemoryBudget;
use crate::metrics::Recorder;
use crate::source::ingest::block_builder::BlockBuilder;
use crate::source::ingest::chunk_log::{
    CHUNK_BYTES_MAX, ChunkLogOptions, ChunkLogger, DrainLevel, LoggerParts,
};
use crate::source::ingest::feed::{Feed, FirstRead};
use crate::source::ingest::handover::{BlockTarget, Cut, Push};
use crate::source::ingest::pusher::Pusher;
use crate::source::ingest::range_queue::{QUEUED_BLOCKS_MAX, RANGES_MAX, RangeQueue};
use crate::source::ingest::record_buffer::SharedRecordBuffer;
use crate::source::pause::PausedBy;
use crate::sync::planted::{Planted, planted};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicUsize, Mailbox, Mutex, Ordering, Poison, Signal, StopToken};
use crate::time::{
    Clock, Interval, Moment, RecurringTimer, Schedule, Time, join_until, wait_until,
};
use crate::wording::by_number;

/// Blocks that may wait for the push thread. A few under the schedule explorer, so that it meets a full queue.
const PUSHES_MAX: usize = if cfg!(tidemill_model) { 3 } else { 256 };

/// The most time beyond the deadline of a stop that the push thread may take to give up what it holds.
const GIVE_UP: Duration = Duration::from_millis(100);

/// The cutter's life, as in the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Made, not started: nothing moves.
    Initialized,
    /// Ranges come in, blocks are cut and pushed.
    Active,
    /// The io threads have ended: nothing comes in; queued ranges are still cut and pushed.
    StoppedAddingData,
    /// The last block is cut; blocks are still pushed.
    StoppedGeneratingBlocks,
    /// Nothing moves.
    StoppedAll,
}

/// The options of a cutter.
pub(crate) struct CutterOptions {
    /// The prefix of thread names, such as `rx0`.
    pub(crate) name: String,
    /// The number of the source, part of each block's name.
    pub(crate) source: u32,
    pub(crate) framing: Framing,
    pub(crate) block_interval: Interval,
    pub(crate) block_bytes_max: u64,
    pub(crate) clock: Arc<dyn Clock>,
    /// Counts the bytes of records that are copied; when it has room again, the handlers are woken.
    pub(crate) account: Arc<MemoryBudget>,
    pub(crate) poison: Poison,
    /// The log that makes ranges durable before they are stored, if there is one.
    pub(crate) log: Option<ChunkLogOptions>,
}

/// See the module.
pub(crate) struct BlockCutter {
    name: String,
    block_interval: Interval,
    poison: Poison,
    feed: Arc<Feed>,
    /// Single records that a custom receiver stored since the last cut.
    records: SharedRecordBuffer,
    machine: Machine,
    state: Mutex<State>,
}

/// The two machines that make blocks of the queued ranges.
enum Machine {
    /// Without a log: a cut builds blocks, and the pusher stores them.
    Builder,
    /// With a log: the chunk logger drains the range queue by itself, and a cut asks it to close its block.
    Logger { log: ChunkLogOptions, level: Arc<DrainLevel> },
}

struct State {
    phase: Phase,
    last_cut: Moment,
    /// Used by [`Machine::Builder`].
    builder: BlockBuilder,
    timer: Option<RecurringTimer>,
    push_thread: Option<Thread>,
}

impl BlockCutter {
    pub(crate) fn new(options: CutterOptions) -> Arc<Self> {
        let CutterOptions { name, block_interval, block_bytes_max, clock, account, .. } = options;
        let state = State {
            phase: Phase::Initialized,
            last_cut: clock.now(),
            builder: BlockBuilder::default(),
            timer: None,
            push_thread: None,
        };
        let machine = match options.log {
            None => Machine::Builder,
            Some(log) => Machine::Logger { log, level: DrainLevel::new() },
        };
        let full = block_bytes_max.max(CHUNK_BYTES_MAX);
        let feed = Arc::new(Feed {
            source: options.source,
            framing: options.framing,
            block_bytes_max,
            clock,
            account,
            queue: RangeQueue::new(RANGES_MAX, full.saturating_mul(QUEUED_BLOCKS_MAX)),
            first_read: FirstRead::default(),
            pushes: Mailbox::new(PUSHES_MAX),
            in_flight: AtomicUsize::new(0),
            stop: StopToken::new(),
            progress: Signal::new(),
        });
        wake_on_room(&feed);
        Arc::new(BlockCutter {
            name,
            block_interval,
            poison: options.poison,
            feed,
            records: SharedRecordBuffer::default(),
            machine,
            state: Mutex::new(state),
        })
    }

    /// Starts the push thread and the cut timer, which records in `late` how late its ticks are.
    pub(crate) fn start(
        self: &Arc<Self>,
        target: Arc<dyn BlockTarget>,
        late: Recorder,
    ) -> Result<()> {
        let mut state = self.state.lock();
        assert_eq!(state.phase, Phase::Initialized, "a cutter starts once");
        let failed = |err| Error::io(format!("cannot start the threads of {}", self.name), err);
        state.builder.target = Some(Arc::clone(&target));
        state.push_thread = Some(self.start_push_thread(target).map_err(failed)?);
        let schedule = between_ticks(self.feed.clock.as_ref(), self.block_interval);
        let (cutter, clock) = (Arc::downgrade(self), Arc::clone(&self.feed.clock));
        let cut = move |time| {
            if let Some(cutter) = cutter.upgrade() {
                late.record(cutter.feed.clock.now().since(schedule.due_at_label(time)));
                cutter.cut_if_due();
            }
        };
        let name = format!("{}-cut", self.name);
        state.timer =
            Some(RecurringTimer::start(&name, clock, schedule, &self.poison, cut).map_err(failed)?);
        state.phase = Phase::Active;
        Ok(())
    }

    /// Starts the thread `rxN-push`: the pusher, or with a log the chunk logger.
    fn start_push_thread(&self, target: Arc<dyn BlockTarget>) -> std::io::Result<Thread> {
        let (name, feed) = (format!("{}-push", self.name), Arc::clone(&self.feed));
        match &self.machine {
            Machine::Builder => {
                let pusher = Pusher { feed, target };
                thread::spawn(name, &self.poison, move || pusher.run())
            }
            Machine::Logger { log, level } => {
                let (level, poison) = (Arc::clone(level), self.poison.clone());
                let parts = LoggerParts { feed, level, poison, target };
                let log = log.clone();
                let run = move || ChunkLogger::new(parts, log).run();
                thread::spawn(name, &self.poison, run)
            }
        }
    }

    /// The prefix of thread names.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The reason why the readers wait, if the full range queue holds them.
    pub(crate) fn paused_by(&self) -> Option<PausedBy> {
        let by = match self.machine {
            Machine::Builder => PausedBy::Blocks,
            Machine::Logger { .. } => PausedBy::Log,
        };
        self.feed.queue.is_full().then_some(by)
    }

    pub(crate) fn queue(&self) -> &RangeQueue {
        &self.feed.queue
    }

    /// Takes a range from an io thread, or gives it back when the queue is full. Cuts when the queue fills.
    pub(crate) fn offer(&self, range: Range) -> Result<(), Range> {
        self.feed.first_read.note(self.feed.clock.as_ref());
        let outcome = self.feed.queue.push(range);
        self.was_queued();
        outcome
    }

    /// Something may have been queued: wakes the chunk logger if it waits for that, or cuts if the queue fills.
    fn was_queued(&self) {
        let feed = &self.feed;
        match &self.machine {
            Machine::Logger { level, .. } => level.queued(&feed.queue, feed.pushes.signal()),
            Machine::Builder if feed.queue.is_filling(feed.block_bytes_max) => {
                self.cut_unless_busy();
            }
            Machine::Builder => {}
        }
    }

    /// Takes a record of these parts, or returns false if the queue is full. `taken` is called before it can be cut.
    pub(crate) fn gather(&self, parts: &[&[u8]], taken: impl FnOnce()) -> bool {
        self.feed.first_read.note(self.feed.clock.as_ref());
        let outcome = self.records.append(parts, &self.feed, taken);
        self.was_queued();
        outcome
    }

    /// Cuts the queued ranges into blocks.
    #[cfg(test)]
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock();
        self.cut_locked(&mut state);
    }

    /// Cuts, unless a batch's tick did so less than half a block interval ago.
    fn cut_if_due(&self) {
        let mut state = self.state.lock();
        let since = self.feed.clock.now().since(state.last_cut);
        if since < self.block_interval.as_duration() / 2 {
            return;
        }
        self.cut_locked(&mut state);
        match self.machine {
            Machine::Builder => {}
            Machine::Logger { .. } => {
                if self.feed.in_flight.load(Ordering::SeqCst) > 0 || self.feed.queue.len() > 0 {
                    // Without room for it the logger has cuts enough to come to.
                    let _ = self.feed.pushes.try_send(Push::Cut);
                }
            }
        }
    }

    /// Cuts, unless another thread is cutting right now.
    fn cut_unless_busy(&self) {
        if let Some(mut state) = self.state.try_lock() {
            self.cut_locked(&mut state);
        }
    }

    /// Cuts for the batch of the tick `time`.
    pub(crate) fn cut_for(&self, time: Time) -> Cut {
        let mut state = self.state.lock();
        if !self.cut_locked(&mut state) {
            return Cut::Held;
        }
        // With a log, queued ranges are still to be drained by the logger, before the mark; without one they came after the cut.
        let is_queued = match self.machine {
            Machine::Builder => false,
            Machine::Logger { .. } => self.feed.queue.len() > 0,
        };
        if is_queued {
            return self.feed.mark(time);
        }
        // The tick mark follows its blocks through the push queue; without blocks on the way there is nothing to wait for.
        let settled = if planted(Planted::TickForgetsCurrentPush) {
            self.feed.pushes.is_empty()
        } else {
            self.feed.in_flight.load(Ordering::SeqCst) == 0
        };
        if settled { Cut::Settled } else { self.feed.mark(time) }
    }

    /// Cuts the ranges that are buffered or queued when it begins; false if the push queue had no room for all of them.
    fn cut_locked(&self, state: &mut State) -> bool {
        if !matches!(state.phase, Phase::Active | Phase::StoppedAddingData) {
            return true;
        }
        state.last_cut = self.feed.clock.now();
        let flushed = self.records.flush(&self.feed);
        let drained = self.drain_locked(state);
        if flushed || !drained {
            return drained;
        }
        // The queue had no room for the buffered records; now it has.
        self.records.flush(&self.feed);
        self.drain_locked(state)
    }

    /// Cuts the ranges that are queued when it begins; false if the push queue had no room for all of it.
    fn drain_locked(&self, state: &mut State) -> bool {
        match self.machine {
            Machine::Builder => state.builder.drain(&self.feed),
            Machine::Logger { .. } => {
                // The chunk logger takes the queued ranges; a tick's mark makes it close its block.
                self.was_queued();
                true
            }
        }
    }

    /// The io threads have ended: cuts the last blocks, waiting for room, and pushes them. Returns once all are stored,
    /// or at `deadline` with a description of what is left.
    pub(crate) fn stop(&self, deadline: Moment) -> Vec<String> {
        let clock = self.feed.clock.as_ref();
        let timer = {
            let mut state = self.state.lock();
            if state.phase == Phase::Active {
                state.phase = Phase::StoppedAddingData;
            }
            state.timer.take()
        };
        // Joined without the lock, which its callback takes.
        let timer = timer.and_then(RecurringTimer::halt);
        let mut left: Vec<String> = timer
            .and_then(|thread| join_until(clock, thread, deadline).left())
            .into_iter()
            .collect();
        self.cut_rest(deadline);
        self.feed.pushes.close();
        let push_thread = {
            let mut state = self.state.lock();
            state.phase = Phase::StoppedGeneratingBlocks;
            state.push_thread.take()
        };
        if let Some(thread) = push_thread {
            wait_until(clock, &thread, deadline);
            self.feed.stop.stop();
            // The stop makes it give up what it holds, at once unless it is in a call that does not return.
            left.extend(join_until(clock, thread, deadline.plus(GIVE_UP)).left());
        }
        self.state.lock().phase = Phase::StoppedAll;
        let blocks = self.feed.in_flight.load(Ordering::SeqCst) + self.feed.queue.len();
        if blocks > 0 {
            let many = format!("{blocks} blocks or ranges were");
            left.push(by_number(blocks, "a block or range was", &many) + " not stored");
        }
        left
    }

    fn cut_rest(&self, deadline: Moment) {
        loop {
            let cut_all = {
                let mut state = self.state.lock();
                self.cut_locked(&mut state) && self.feed.queue.len() == 0
            };
            if cut_all || planted(Planted::StopCutsOnce) || self.feed.clock.now() >= deadline {
                return;
            }
            self.feed.clock.wait(&self.feed.progress, Some(deadline));
        }
    }
}

impl Drop for BlockCutter {
    /// A cutter that was never stopped in order: its threads end, what they hold is dropped with it.
    fn drop(&mut self) {
        self.feed.stop.stop();
        self.feed.pushes.close();
    }
}

/// Wakes the handlers when a full store has room again.
fn wake_on_room(feed: &Arc<Feed>) {
    let waking = Arc::downgrade(feed);
    feed.account.on_room(move || {
        if let Some(feed) = waking.upgrade() {
            feed.queue.wake();
        }
    });
}

/// Ticks a quarter of an interval after its multiples. The job loop cuts at each batch's tick, a multiple, so a timer
/// that fires there too has nothing to do but to take a core away from the batch: 20 us of it, measured.
fn between_ticks(clock: &dyn Clock, interval: Interval) -> Schedule {
    let quarter = interval.as_millis() / 4;
    let (now, wall, aligned) =
        (clock.now(), clock.wall(), clock.wall_time().next_multiple(interval));
    let first = Time::from_millis(aligned.as_millis().saturating_add(quarter));
    Schedule::starting(now, wall, first, interval)
}
