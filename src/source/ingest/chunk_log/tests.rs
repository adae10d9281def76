//! The chunk logger between a queue and a log that the tests play.

use bytes::Bytes;

use super::*;
use crate::memory::budget::MemoryBudget;
use crate::source::ingest::feed::FirstRead;
use crate::sync::{AtomicBool, AtomicUsize, Mailbox, StopToken, thread};
use crate::time::ManualClock;

/// The destination of a test's blocks.
#[derive(Default)]
struct Target(Mutex<Vec<Arc<Block>>>);

impl BlockTarget for Target {
    fn push(&self, block: &Arc<Block>) -> Result<()> {
        self.0.lock().push(Arc::clone(block));
        Ok(())
    }

    fn reached(&self, _source: u32, _time: Time) {}
}

fn feed(queue: RangeQueue, pushes_max: usize, clock: ManualClock) -> Arc<Feed> {
    Arc::new(Feed {
        source: 0,
        framing: Framing::Lines,
        block_bytes_max: 1,
        clock: Arc::new(clock),
        account: MemoryBudget::new(1 << 30),
        queue,
        first_read: FirstRead::default(),
        pushes: Mailbox::new(pushes_max),
        in_flight: AtomicUsize::new(0),
        stop: StopToken::new(),
        progress: Signal::new(),
    })
}

fn parts(feed: &Arc<Feed>, target: &Arc<Target>) -> LoggerParts {
    LoggerParts {
        feed: Arc::clone(feed),
        level: DrainLevel::new(),
        poison: Poison::new(),
        target: Arc::clone(target) as Arc<dyn BlockTarget>,
    }
}

/// A log that is no faster than what comes: with each chunk the one before is durable, and the next range and tick are there.
struct Pressed {
    feed: Arc<Feed>,
    target: Arc<Target>,
    before: Mutex<Option<journal::Receipt>>,
    /// Blocks that were stored when the last chunk came.
    stored: AtomicUsize,
}

const CHUNKS: u64 = 20;

impl ChunkLog for Pressed {
    fn append(
        &self,
        number: u64,
        _framing: Framing,
        _ranges: &[Range],
        receipt: journal::Receipt,
    ) -> Result<()> {
        if let Some(before) = self.before.lock().take() {
            before(Ok(()));
        }
        if number == CHUNKS {
            self.stored.store(self.target.0.lock().len(), Ordering::SeqCst);
            receipt(Ok(()));
            self.feed.pushes.close();
            return Ok(());
        }
        *self.before.lock() = Some(receipt);
        self.come(Time::from_millis(number + 1));
        Ok(())
    }
}

impl Pressed {
    fn come(&self, time: Time) {
        assert!(self.feed.queue.push(Range::new(Bytes::from_static(b"a\n"), 1)).is_ok());
        assert!(self.feed.pushes.try_send(Push::Tick(time)).is_ok());
    }
}

#[test]
fn what_is_durable_is_stored_although_the_next_tick_is_there_before_a_cut_is_made() {
    let target = Arc::new(Target::default());
    let feed = feed(RangeQueue::new(4, u64::MAX), 4, ManualClock::new());
    let log = Arc::new(Pressed {
        feed: Arc::clone(&feed),
        target: Arc::clone(&target),
        before: Mutex::default(),
        stored: AtomicUsize::new(0),
    });
    log.come(Time::from_millis(0));
    let options = ChunkLogOptions { log: Arc::clone(&log) as _, next_chunk: 0, chunk_bytes_max: 1 };
    ChunkLogger::new(parts(&feed, &target), options).run();
    assert_eq!(target.0.lock().len() as u64, CHUNKS + 1);
    assert_eq!(
        log.stored.load(Ordering::SeqCst) as u64,
        CHUNKS - 1,
        "all but two when the last came"
    );
}

/// A log that has no room: it gives back all that comes, until it has.
struct Full {
    refuses: AtomicBool,
    /// Number of chunks that came, counting those that came again.
    came: AtomicUsize,
}

impl ChunkLog for Full {
    fn append(
        &self,
        _number: u64,
        _framing: Framing,
        _ranges: &[Range],
        receipt: journal::Receipt,
    ) -> Result<()> {
        receipt(match self.refuses.load(Ordering::SeqCst) {
            true => Err(NotLogged::Retry("no room".into())),
            false => Ok(()),
        });
        self.came.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Lets the time for another attempt pass until something is so.
fn until(clock: &ManualClock, is_so: impl Fn() -> bool) {
    while !is_so() {
        clock.advance(LOG_RETRY);
        std::thread::yield_now();
    }
}

const KIB: usize = 1 << 10;

/// A log refuses what comes while ticks come and it is tried again: what was read by then is no more than the bound, and all
/// of it is stored, in order, once there is room.
fn check_bound(range_bytes: usize) {
    const BOUND: usize = 256 * KIB;
    let (target, clock) = (Arc::new(Target::default()), ManualClock::new());
    let log = Arc::new(Full { refuses: AtomicBool::new(true), came: AtomicUsize::new(0) });
    let chunk_bytes_max = 32 * KIB as u64;
    let options = ChunkLogOptions { log: Arc::clone(&log) as _, next_chunk: 0, chunk_bytes_max };
    let feed = feed(RangeQueue::new(4_096, BOUND as u64), 64, clock.clone());
    let (queue, pushes, parts) = (&feed.queue, &feed.pushes, parts(&feed, &target));
    let level = Arc::clone(&parts.level);
    let logger = ChunkLogger::new(parts, options);
    let logger = thread::spawn("rx0-push", &Poison::new(), move || logger.run()).expect("a thread");
    let mut read = 0_usize;
    for round in 0..20 {
        while queue.has_room() {
            let bytes = vec![u8::try_from(read / range_bytes % 251).expect("small"); range_bytes];
            assert!(queue.push(Range::new(bytes.into(), 1)).is_ok());
            level.queued(queue, pushes.signal());
            read += range_bytes;
        }
        assert!(pushes.try_send(Push::Tick(Time::from_millis(round))).is_ok());
        let before = log.came.load(Ordering::SeqCst);
        until(&clock, || log.came.load(Ordering::SeqCst) > before);
        assert!(read <= BOUND + range_bytes, "{read} bytes were read in round {round}");
    }
    log.refuses.store(false, Ordering::SeqCst);
    pushes.close();
    until(&clock, || logger.is_done());
    logger.join();
    let ranges = |block: &Arc<Block>| block.ranges().map(|range| range[0]).collect::<Vec<_>>();
    let stored: Vec<u8> = target.0.lock().iter().flat_map(ranges).collect();
    let expected = (0..read / range_bytes).map(|at| u8::try_from(at % 251).expect("small"));
    assert!(stored.into_iter().eq(expected), "all of it, in order");
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn while_the_log_refuses_reading_waits_at_the_bound() {
    check_bound(KIB);
    check_bound(40 * KIB);
    check_bound(300 * KIB);
}
