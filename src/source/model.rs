//! The receive path behind the io seam under the schedule explorer: handlers, range queue, block cutter, push thread.
//!
//! The clock is driven by a thread that gives way after each step, so that waits for room end as they do in real time.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::blocks::{Block, Range};
use crate::error::Result;
use crate::framing::Framing;
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::Pool;
use crate::metrics::{EventBus, Latency, ReceiverCounters};
use crate::source::ingest::block_cutter::{BlockCutter, CutterOptions};
use crate::source::ingest::handover::{BlockTarget, Cut};
use crate::source::io::{Closed, Handler, HandlerFactory, Peer, Remote};
use crate::source::pause::Pause;
use crate::source::socket::session::{
    AckAt, Handing, Intake, IntakeHandler, IntakeHandlers, Observer,
};
use crate::source::socket::unfinished::{Sources, Unfinished};
use crate::sync::explore::{check, thread};
use crate::sync::planted::Planted;
use crate::sync::thread::Thread;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, Poison, Signal};
use crate::time::{Interval, ManualClock, Moment, Time};

const BLOCK_INTERVAL: Interval = Interval::millis(200);

/// Keeps the records and lets the blocks go.
#[derive(Default)]
struct Target {
    records: Mutex<Vec<Vec<u8>>>,
    blocks: AtomicUsize,
    /// The tick marks, each with the number of records that were stored by then.
    reached: Mutex<Vec<(Time, usize)>>,
    told: Signal,
}

impl BlockTarget for Target {
    fn push(&self, block: &Arc<Block>) -> Result<()> {
        let number = self.blocks.fetch_add(1, Ordering::SeqCst) as u64;
        assert_eq!(block.info.id.number, number, "blocks are pushed in order");
        let mut records = self.records.lock();
        for range in block.ranges() {
            block.info.framing.for_each(range, |record| records.push(record.to_vec()));
        }
        Ok(())
    }

    fn reached(&self, _source: u32, time: Time) {
        let stored = self.records.lock().len();
        self.reached.lock().push((time, stored));
        self.told.raise();
    }
}

impl Target {
    /// Number of records that were stored when the mark of `time` came through; waits for it.
    fn stored_at(&self, time: Time) -> usize {
        loop {
            let reached = self.reached.lock().iter().find(|mark| mark.0 == time).copied();
            match reached {
                Some((_, stored)) => return stored,
                None => self.told.wait(),
            }
        }
    }
}

struct Nobody;

impl Observer for Nobody {
    fn opened(&self, _peer: Peer) {}
    fn closed(&self, _peer: Peer, _how: &Closed) {}
}

/// A receive path without sockets.
struct Path {
    clock: ManualClock,
    cutter: Arc<BlockCutter>,
    target: Arc<Target>,
    account: Arc<MemoryBudget>,
    host: IntakeHandlers,
}

fn path(block_bytes_max: u64, store_bytes_max: usize) -> Path {
    let clock = ManualClock::new();
    let account = MemoryBudget::new(store_bytes_max);
    let cutter = BlockCutter::new(CutterOptions {
        name: "rx0".to_owned(),
        source: 0,
        framing: Framing::Lines,
        block_interval: BLOCK_INTERVAL,
        block_bytes_max,
        clock: Arc::new(clock.clone()),
        account: Arc::clone(&account),
        poison: Poison::new(),
        log: None,
    });
    let target = Arc::new(Target::default());
    let late = Latency::default().recorder();
    cutter.start(Arc::clone(&target) as Arc<dyn BlockTarget>, late).expect("threads");
    let (sources, events) =
        (Sources { record_bytes_max: 100, connections_max: 2 }, EventBus::new());
    let intake = Intake {
        source: "in".to_owned(),
        framing: Framing::Lines,
        ack: AckAt::Queued,
        record_bytes_max: 100,
        cutter: Arc::clone(&cutter),
        account: Arc::clone(&account),
        counters: Arc::new(ReceiverCounters::default()),
        events: events.clone(),
        observer: Arc::new(Nobody),
        pause: Pause::new("in", &account, &EventBus::new()),
        limiter: None,
        arrivals: None,
        asides: None,
        unfinished: Unfinished::new(usize::MAX, sources, &account, &events),
        pool: Pool::new(Arc::clone(&account)),
        handing: Handing::default(),
    };
    Path { clock, cutter, target, account, host: IntakeHandlers(Arc::new(intake)) }
}

/// An io thread with one connection: reads `reads`, each as far as its handler is ready, and hands over all of it.
struct IoThread {
    handler: IntakeHandler,
    woken: Signal,
    pool: Arc<Pool>,
}

impl IoThread {
    fn new(path: &Path) -> Self {
        let woken = Signal::new();
        let raise = woken.clone();
        let handler = path.host.handler(Arc::new(move || raise.raise()));
        IoThread { handler, woken, pool: Pool::new(Arc::clone(&path.account)) }
    }

    fn read(&mut self, reads: &[Vec<u8>], after: impl Fn()) {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut session = self.handler.open(Peer { address, dialled: None }, Remote::nobody());
        let mut buffer = self.pool.buffer();
        for read in reads {
            while !self.handler.ready() {
                self.woken.wait();
            }
            buffer.space()[..read.len()].copy_from_slice(read);
            self.handler.received(&mut session, &mut buffer, read.len());
            self.handler.end_of_turn();
            after();
        }
        self.handler.closed(session, Closed::End);
    }
}

/// Moves the clock by block intervals until all `threads` have ended.
fn drive(clock: &ManualClock, threads: Vec<Thread>) {
    while !threads.iter().all(Thread::is_done) {
        clock.advance(BLOCK_INTERVAL.as_duration() * 2);
        shuttle::thread::yield_now();
    }
}

fn line(reader: usize, number: usize) -> Vec<u8> {
    format!("{reader}{number}\n").into_bytes()
}

/// Two io threads with `reads` reads each meet full queues; the threads end, then the cutter stops. Every record is
/// in one block, in order per connection, and nothing is left.
fn check_stop(
    schedules: usize,
    defects: &[Planted],
    reads: usize,
    block_bytes_max: u64,
    store_bytes_max: usize,
) {
    check(schedules, defects, move || {
        let path = path(block_bytes_max, store_bytes_max);
        let io = |reader| {
            let mut io = IoThread::new(&path);
            thread("rx0-io", move || {
                let lines: Vec<_> = (0..reads).map(|number| line(reader, number)).collect();
                io.read(&lines, || {});
                io.handler.finish();
            })
        };
        drive(&path.clock, vec![io(0), io(1)]);
        assert_eq!(
            path.cutter.stop(Moment::from_nanos(u64::MAX)),
            [String::new(); 0],
            "nothing is left"
        );
        for reader in 0..2 {
            let expected: Vec<Vec<u8>> =
                (0..reads).map(|n| line(reader, n)[..2].to_vec()).collect();
            let records = path.target.records.lock();
            let own: Vec<Vec<u8>> =
                records.iter().filter(|r| r[0] == expected[0][0]).cloned().collect();
            assert_eq!(own, expected);
        }
        assert_eq!(path.account.used(), 0);
    });
}

#[test]
fn io_threads_end_with_a_backlog_and_the_cutter_stops_with_full_queues() {
    check_stop(400, &[Planted::StopCutsOnce, Planted::GateSkipsRecheck], 5, 1, 1 << 20);
}

#[test]
fn a_full_store_holds_the_io_threads_until_blocks_are_released() {
    check_stop(4_000, &[Planted::GateSkipsRecheck], 3, 1 << 20, 1);
}

/// Found by these scenarios: a handler whose range came back from a full queue said that it was not ready without asking
/// for room, so the drain that made room woke nobody and the connection was never read from again.
#[test]
fn a_handler_with_a_backlog_asks_for_its_wake_up() {
    check_stop(400, &[Planted::BacklogAsksForNothing], 6, 1, 1 << 20);
}

/// Found by these scenarios: an io thread with a backlog cuts because the queue is full; the cut was held by a full push
/// queue, took nothing and woke the starved, that thread among them, which then span until the push thread came by.
#[test]
fn a_handler_does_not_wake_itself_while_the_push_queue_is_full() {
    check(100, &[Planted::HeldCutWakesAll], || {
        let path = path(1, 1 << 20);
        let mut io = IoThread::new(&path);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut session = io.handler.open(Peer { address, dialled: None }, Remote::nobody());
        let mut buffer = io.pool.buffer();
        // The push thread waits for this lock, so blocks and then ranges pile up.
        let stuck = path.target.records.lock();
        loop {
            let ready = io.handler.ready();
            buffer.space()[..2].copy_from_slice(b"a\n");
            io.handler.received(&mut session, &mut buffer, 2);
            io.handler.end_of_turn();
            // Until it is stuck with the first block, the push thread makes room.
            while path.target.blocks.load(Ordering::SeqCst) == 0 {
                shuttle::thread::yield_now();
            }
            // What was in flight when the queue was full is the handler's backlog.
            if !ready {
                break;
            }
        }
        assert!(!io.handler.ready(), "the queue is full");
        io.woken.take();
        // An attempt that changes nothing: it would go on for ever if it woke the one who makes it.
        assert!(!io.handler.ready(), "nothing was pushed meanwhile");
        io.handler.end_of_turn();
        assert!(!io.woken.take(), "woken although no room was made");
        drop(stuck);
        io.handler.closed(session, Closed::End);
        drive(&path.clock, vec![thread("rx0-io", move || io.handler.finish())]);
        assert_eq!(path.cutter.stop(Moment::from_nanos(u64::MAX)), Vec::<String>::new());
    });
}

#[test]
fn a_tick_is_settled_or_reached_only_after_its_blocks() {
    check(1_200, &[Planted::TickForgetsCurrentPush], || {
        let path = path(1 << 20, 1 << 20);
        let (queued, mut io) = (Arc::new(AtomicUsize::new(0)), IoThread::new(&path));
        let count = Arc::clone(&queued);
        let reader = thread("rx0-io", move || {
            let lines: Vec<_> = (0..2).map(|number| line(0, number)).collect();
            io.read(&lines, || {
                count.fetch_add(1, Ordering::SeqCst);
            });
        });
        for tick in 1..=3 {
            let (time, read) = (Time::from_millis(tick), queued.load(Ordering::SeqCst));
            let stored = match path.cutter.cut_for(time) {
                Cut::Settled => path.target.records.lock().len(),
                Cut::Pending => path.target.stored_at(time),
                // What is queued joins a later batch.
                Cut::Held => usize::MAX,
            };
            assert!(stored >= read, "tick {tick}: {stored} of {read} records are stored");
        }
        reader.join();
        assert_eq!(path.cutter.stop(Moment::from_nanos(u64::MAX)), Vec::<String>::new());
        assert_eq!(path.target.records.lock().len(), 2);
    });
}

/// Found by this scenario: the cut timer may hold the last handle; it then dropped the cutter, and joined itself.
#[test]
fn a_cutter_that_is_dropped_ends_its_threads_in_the_middle_of_a_cut() {
    check(600, &[Planted::ThreadJoinsItself, Planted::TimerSleepsThroughStop], || {
        let Path { clock, cutter, target, .. } = path(1 << 20, 1 << 20);
        clock.advance(BLOCK_INTERVAL.as_duration() * 2);
        let range = Range::new(Bytes::from_static(b"a\n"), 1);
        assert!(cutter.offer(range).is_ok(), "there is room");
        drop(cutter);
        assert!(target.records.lock().len() <= 1);
    });
}
