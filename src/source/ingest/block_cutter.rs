//! The block generator: cuts what the io threads queued into blocks, and pushes them to the store in order.
//!
//! ```text
//!  range queue ─cut─▶ Block ─▶ push queue ─(rxN-push)─▶ BlockTarget: store, then tracker
//!               ▲ rxN-cut every block interval, between ticks · job loop at each batch tick · io thread when the queue fills
//! ```
//! Whoever cuts holds the state lock while it drains what was queued when it began. A cut never waits: when the push
//! queue is full nothing is drained, the range queue fills and the sockets are paused. It knows nothing of batches but
//! their tick marks, which pass through the push queue behind the blocks they belong to.
//!
//! With a log the push thread is the chunk logger (`chunks`): it drains the range queue itself, and a cut only asks it to
//! close its block.

use std::time::Duration;

use crate::blocks::{Block, BlockId, Range};
use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::memory::budget::MemoryBudget;
use crate::metrics::Recorder;
use crate::source::ingest::chunk_log::{self, ChunkLogOptions, ChunkLogger, Look};
use crate::source::ingest::handover::{BlockTarget, Cut, NOTHING_READ, PUSH_RETRY, Push};
use crate::source::ingest::range_queue::{QUEUED_BLOCKS_MAX, RANGES_MAX, RangeQueue};
use crate::source::ingest::record_buffer::RecordBuffer;
use crate::source::pause::PausedBy;
use crate::sync::planted::{Planted, planted};
use crate::sync::thread::{self, Thread};
use crate::sync::{
    Arc, AtomicU64, AtomicUsize, Mailbox, Mutex, Ordering, Poison, SendError, Signal, StopToken,
};
use crate::time::{
    Clock, Interval, Moment, RecurringTimer, Schedule, Time, join_until, wait_until,
};
use crate::wording::by_number;

/// Blocks that may wait for the push thread. A few under the schedule explorer, so that it meets a full queue.
const PUSHES_MAX: usize = if cfg!(tidemill_model) { 3 } else { 256 };

/// How long beyond the deadline of a stop the push thread may take to give up what it holds.
const GIVE_UP: Duration = Duration::from_millis(100);

/// The generator's life, as in the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Made, not started: nothing moves.
    Initialized,
    /// Ranges come in, blocks are cut and pushed.
    Active,
    /// The io threads have ended: nothing comes in; what is queued is still cut and pushed.
    StoppedAddingData,
    /// The last block is cut; what is cut is still pushed.
    StoppedGeneratingBlocks,
    /// Nothing moves.
    StoppedAll,
}

/// What a generator is made with.
pub(crate) struct CutterOptions {
    /// The prefix of thread names, such as `rx0`.
    pub(crate) name: String,
    /// The number of the source, part of each block's name.
    pub(crate) source: u32,
    pub(crate) framing: Framing,
    pub(crate) block_interval: Interval,
    pub(crate) block_bytes_max: u64,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) poison: Poison,
    /// Where ranges become durable before they are stored, if they do.
    pub(crate) log: Option<ChunkLogOptions>,
}

/// See the module.
pub(crate) struct BlockCutter {
    options: CutterOptions,
    queue: Arc<RangeQueue>,
    /// Single records that a custom receiver stored since the last cut.
    gather: RecordBuffer,
    /// When the first range since the last cut was queued, in nanoseconds of the clock. Set before the range is
    /// queued, so a block may lack it but never has a later one.
    first_read: Arc<AtomicU64>,
    state: Mutex<State>,
    pushes: Mailbox<Push>,
    /// With a log: when the chunk logger wants to be woken.
    look: Option<Arc<Look>>,
    /// Blocks cut and not yet stored.
    in_flight: Arc<AtomicUsize>,
    stop_pushing: StopToken,
    /// Raised after each push, for a stop that waits for room.
    progress: Signal,
}

struct State {
    phase: Phase,
    next_block: u64,
    last_cut: Moment,
    target: Option<Arc<dyn BlockTarget>>,
    timer: Option<RecurringTimer>,
    push_thread: Option<Thread>,
}

impl BlockCutter {
    pub(crate) fn new(options: CutterOptions) -> Arc<Self> {
        let state = State {
            phase: Phase::Initialized,
            next_block: 0,
            last_cut: options.clock.now(),
            target: None,
            timer: None,
            push_thread: None,
        };
        let full = options.block_bytes_max.max(chunk_log::CHUNK_BYTES_MAX);
        let queue_bytes_max = full.saturating_mul(QUEUED_BLOCKS_MAX);
        Arc::new(BlockCutter {
            look: options.log.is_some().then(Look::new),
            options,
            queue: Arc::new(RangeQueue::new(RANGES_MAX, queue_bytes_max)),
            gather: RecordBuffer::default(),
            first_read: Arc::new(AtomicU64::new(NOTHING_READ)),
            state: Mutex::new(state),
            pushes: Mailbox::new(PUSHES_MAX),
            in_flight: Arc::default(),
            stop_pushing: StopToken::new(),
            progress: Signal::new(),
        })
    }

    /// Starts the push thread and the cut timer, which records in `late` how late its ticks are.
    pub(crate) fn start(
        self: &Arc<Self>,
        target: Arc<dyn BlockTarget>,
        late: Recorder,
    ) -> Result<()> {
        let options = &self.options;
        let mut state = self.state.lock();
        assert_eq!(state.phase, Phase::Initialized, "a generator starts once");
        let failed = |err| Error::io(format!("cannot start the threads of {}", options.name), err);
        state.target = Some(Arc::clone(&target));
        state.push_thread = Some(self.start_push_thread(target).map_err(failed)?);
        let schedule = between_ticks(options.clock.as_ref(), options.block_interval);
        let (generator, clock) = (Arc::downgrade(self), Arc::clone(&options.clock));
        let cut = move |time| {
            if let Some(generator) = generator.upgrade() {
                late.record(generator.options.clock.now().since(schedule.due_at_label(time)));
                generator.cut_if_due();
            }
        };
        let name = format!("{}-cut", options.name);
        state.timer = Some(
            RecurringTimer::start(&name, clock, schedule, &options.poison, cut).map_err(failed)?,
        );
        state.phase = Phase::Active;
        Ok(())
    }

    /// Starts the thread `rxN-push`: the pusher, or with a log the chunk logger.
    fn start_push_thread(&self, target: Arc<dyn BlockTarget>) -> std::io::Result<Thread> {
        let options = &self.options;
        let (pushes, in_flight) = (self.pushes.clone(), Arc::clone(&self.in_flight));
        let (stop, progress) = (self.stop_pushing.clone(), self.progress.clone());
        let (source, clock) = (options.source, Arc::clone(&options.clock));
        let name = format!("{}-push", options.name);
        let Some((look, log)) = self.look.clone().zip(options.log.clone()) else {
            let pusher = Pusher { source, pushes, in_flight, stop, progress, clock, target };
            return thread::spawn(name, &options.poison, move || pusher.run());
        };
        let shared = chunk_log::Shared {
            source,
            framing: options.framing,
            block_bytes_max: options.block_bytes_max,
            queue: Arc::clone(&self.queue),
            first_read: Arc::clone(&self.first_read),
            pushes,
            look,
            in_flight,
            stop,
            progress,
            clock,
            poison: options.poison.clone(),
            target,
        };
        thread::spawn(name, &options.poison, move || ChunkLogger::new(shared, log).run())
    }

    /// What is queued and not taken holds the readers.
    pub(crate) fn paused_by(&self) -> Option<PausedBy> {
        let by = if self.look.is_some() { PausedBy::Log } else { PausedBy::Blocks };
        self.queue.is_full().then_some(by)
    }

    pub(crate) fn queue(&self) -> &RangeQueue {
        &self.queue
    }

    /// Takes a range from an io thread, or gives it back when the queue is full. Cuts when the queue fills.
    pub(crate) fn offer(&self, range: Range) -> Result<(), Range> {
        self.note_read();
        let outcome = self.queue.push(range);
        self.was_queued();
        outcome
    }

    /// Something may have been queued: wakes the chunk logger if it waits for that, or cuts if the queue fills.
    fn was_queued(&self) {
        if let Some(look) = &self.look {
            look.queued(&self.queue, self.pushes.signal());
        } else if self.queue.is_filling(self.options.block_bytes_max) {
            self.cut_unless_busy();
        }
    }

    /// Takes a record of these parts, or says that the queue is full. `taken` is called before it can be cut.
    pub(crate) fn gather(
        &self,
        parts: [&[u8]; 2],
        account: &Arc<MemoryBudget>,
        taken: impl FnOnce(),
    ) -> bool {
        self.note_read();
        let outcome = self.gather.append(parts, (&self.queue, account), taken);
        self.was_queued();
        outcome
    }

    /// The next block's oldest record is read now, unless one is there already.
    fn note_read(&self) {
        if self.first_read.load(Ordering::SeqCst) == NOTHING_READ {
            let now = self.options.clock.now().as_nanos();
            // Another io thread that was first set an earlier moment.
            let _ = self.first_read.compare_exchange(
                NOTHING_READ,
                now,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
        }
    }

    /// Cuts what is queued now into blocks.
    #[cfg(test)]
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock();
        self.cut_locked(&mut state);
    }

    /// Cuts, unless a batch's tick did so less than half a block interval ago.
    fn cut_if_due(&self) {
        let mut state = self.state.lock();
        let since = self.options.clock.now().since(state.last_cut);
        if since >= self.options.block_interval.as_duration() / 2 {
            self.cut_locked(&mut state);
            let open = self.in_flight.load(Ordering::SeqCst) > 0 || self.queue.len() > 0;
            if self.look.is_some() && open {
                // Without room for it the logger has cuts enough to come to.
                let _ = self.pushes.try_send(Push::Cut);
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
        if self.look.is_some() && self.queue.len() > 0 {
            return self.mark(time);
        }
        // The tick mark follows its blocks through the push queue; without blocks on the way there is nothing to wait for.
        let settled = if planted(Planted::TickForgetsCurrentPush) {
            self.pushes.is_empty()
        } else {
            self.in_flight.load(Ordering::SeqCst) == 0
        };
        if settled { Cut::Settled } else { self.mark(time) }
    }

    /// Lets the mark of a tick follow what is on its way.
    fn mark(&self, time: Time) -> Cut {
        match self.pushes.try_send(Push::Tick(time)) {
            Ok(()) => Cut::Pending,
            Err(SendError::Full(_)) => Cut::Held,
            Err(SendError::Closed(_)) => Cut::Settled,
        }
    }

    /// Cuts the ranges that are gathered or queued when it begins; false if the push queue had no room for all of them.
    fn cut_locked(&self, state: &mut State) -> bool {
        if !matches!(state.phase, Phase::Active | Phase::StoppedAddingData) {
            return true;
        }
        state.last_cut = self.options.clock.now();
        let gathered = self.gather.flush(&self.queue);
        let drained = self.drain_locked(state);
        if gathered || !drained {
            return drained;
        }
        // The queue was full when it should have taken what was gathered; now it has room.
        self.gather.flush(&self.queue);
        self.drain_locked(state)
    }

    /// Cuts what is queued when it begins; false if the push queue had no room for all of it.
    fn drain_locked(&self, state: &mut State) -> bool {
        if self.look.is_some() {
            // The chunk logger takes what is queued; a tick's mark tells it to close its block.
            self.was_queued();
            return true;
        }
        let queued = self.queue.len();
        let mut left = queued;
        let first_read = match left {
            0 => None,
            _ => Some(self.first_read.swap(NOTHING_READ, Ordering::SeqCst)),
        };
        let first_read = first_read.filter(|nanos| *nanos != NOTHING_READ).map(Moment::from_nanos);
        while left > 0 {
            if self.pushes.len() + 1 >= self.pushes.capacity() {
                // Without room made nobody is woken: an io thread that cuts because it is full would wake itself.
                if left < queued || planted(Planted::HeldCutWakesAll) {
                    self.queue.drained();
                }
                return false;
            }
            left = self.build_block(state, left, first_read);
        }
        self.queue.drained();
        true
    }

    /// Builds one block of at most `left` ranges and `block_bytes_max` bytes (and one range more), and queues it for
    /// the push; returns how many ranges of `left` remain.
    fn build_block(&self, state: &mut State, mut left: usize, first_read: Option<Moment>) -> usize {
        let (mut ranges, mut bytes) = (Vec::new(), 0);
        while left > 0 && bytes < self.options.block_bytes_max {
            let Some(range) = self.queue.pop() else {
                left = 0;
                break;
            };
            bytes += range.bytes.len() as u64;
            ranges.push(range);
            left -= 1;
        }
        if !ranges.is_empty() {
            let id = BlockId { source: self.options.source, number: state.next_block };
            state.next_block += 1;
            let block = Block::new(id, self.options.framing, ranges);
            let block = Arc::new(block.first_read_at(first_read));
            // With nothing on the way, this is the next block in order, and the push thread need not be woken for it.
            let direct = self.in_flight.load(Ordering::SeqCst) == 0;
            if direct && state.target.as_ref().is_some_and(|target| target.push_now(&block)) {
                return left;
            }
            self.in_flight.fetch_add(1, Ordering::SeqCst);
            let sent = self.pushes.try_send(Push::Block(block));
            assert!(
                sent.is_ok(),
                "room was checked under the lock that every sender of blocks holds"
            );
        }
        left
    }

    /// The io threads have ended: cuts the last blocks, waiting for room, and pushes them. Returns once all are stored,
    /// or at `deadline` with what was left, in words.
    pub(crate) fn stop(&self, deadline: Moment) -> Vec<String> {
        let clock = self.options.clock.as_ref();
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
        self.pushes.close();
        let push_thread = {
            let mut state = self.state.lock();
            state.phase = Phase::StoppedGeneratingBlocks;
            state.push_thread.take()
        };
        if let Some(thread) = push_thread {
            wait_until(clock, &thread, deadline);
            self.stop_pushing.stop();
            // It is told to give up what it holds, and does so at once unless it is in a call that does not return.
            left.extend(join_until(clock, thread, deadline.plus(GIVE_UP)).left());
        }
        self.state.lock().phase = Phase::StoppedAll;
        let blocks = self.in_flight.load(Ordering::SeqCst) + self.queue.len();
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
                self.cut_locked(&mut state) && self.queue.len() == 0
            };
            if cut_all || planted(Planted::StopCutsOnce) || self.options.clock.now() >= deadline {
                return;
            }
            self.options.clock.wait(&self.progress, Some(deadline));
        }
    }
}

impl Drop for BlockCutter {
    /// A generator that was never stopped in order: its threads end, what they hold is dropped with it.
    fn drop(&mut self) {
        self.stop_pushing.stop();
        self.pushes.close();
    }
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

/// The push thread's body.
struct Pusher {
    source: u32,
    pushes: Mailbox<Push>,
    in_flight: Arc<AtomicUsize>,
    stop: StopToken,
    progress: Signal,
    clock: Arc<dyn Clock>,
    target: Arc<dyn BlockTarget>,
}

impl Pusher {
    fn run(self) {
        let stopped = Signal::new();
        self.stop.wakes(&stopped);
        while let Some(push) = self.pushes.recv() {
            match push {
                Push::Tick(time) => self.target.reached(self.source, time),
                // Only the chunk logger is sent these.
                Push::Cut => {}
                Push::Block(block) => {
                    while self.target.push(&block).is_err() {
                        if self.stop.is_stopped() {
                            return;
                        }
                        self.clock.wait(&stopped, Some(self.clock.now().plus(PUSH_RETRY)));
                    }
                    self.in_flight.fetch_sub(1, Ordering::SeqCst);
                }
            }
            self.progress.raise();
        }
    }
}
