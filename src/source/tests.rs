//! Properties of the receive path behind the io seam: handlers, range queue, block cutter; on a manual clock, no sockets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use crate::blocks::{Block, Range};
use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::Pool;
use crate::metrics::{EventBus, Latency, ReceiverCounters};
use crate::source::ingest::block_cutter::{BlockCutter, CutterOptions};
use crate::source::ingest::handover::{BlockTarget, Cut};
use crate::source::ingest::range_queue::RangeQueue;
use crate::source::io::{Closed, Flow, Handler, HandlerFactory, Peer, Remote};
use crate::source::pause::Pause;
use crate::source::socket::oversized::OversizedStore;
use crate::source::socket::session::{
    AckAt, Handing, Intake, IntakeHandler, IntakeHandlers, Observer, Session,
};
use crate::source::socket::unfinished::{Sources, Unfinished};
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, Poison, Signal};
use crate::time::{Clock, Interval, ManualClock, Time};

/// The destination of a test's blocks.
#[derive(Default)]
struct Target {
    blocks: Mutex<Vec<Arc<Block>>>,
    /// The first pushes fail, this many.
    failures: AtomicUsize,
    reached: Mutex<Vec<Time>>,
    told: Signal,
}

impl BlockTarget for Target {
    fn push(&self, block: &Arc<Block>) -> Result<()> {
        if self.failures.load(Ordering::SeqCst) > 0 {
            self.failures.fetch_sub(1, Ordering::SeqCst);
            self.told.raise();
            return Err(Error::Failed("not now".to_owned()));
        }
        self.blocks.lock().push(Arc::clone(block));
        Ok(())
    }

    fn reached(&self, _source: u32, time: Time) {
        self.reached.lock().push(time);
        self.told.raise();
    }
}

struct Nobody;

impl Observer for Nobody {
    fn opened(&self, _peer: Peer) {}
    fn closed(&self, _peer: Peer, _how: &Closed) {}
}

/// A receive path without sockets.
pub(super) struct Path {
    clock: ManualClock,
    cutter: Arc<BlockCutter>,
    target: Arc<Target>,
    pub(super) account: Arc<MemoryBudget>,
    pool: Arc<Pool>,
    pub(super) counters: Arc<ReceiverCounters>,
    pub(super) handler: IntakeHandler,
}

/// The options of a path.
pub(super) struct Given {
    pub(super) framing: Framing,
    pub(super) record_bytes_max: usize,
    pub(super) block_bytes_max: u64,
    pub(super) store_bytes_max: usize,
    pub(super) connections_max: usize,
    pub(super) unfinished_bytes_max: usize,
    pub(super) asides: Option<Arc<OversizedStore>>,
}

fn path(record_bytes_max: usize, block_bytes_max: u64, store_bytes_max: usize) -> Path {
    path_of(Given {
        framing: Framing::Lines,
        record_bytes_max,
        block_bytes_max,
        store_bytes_max,
        connections_max: CONNECTIONS,
        unfinished_bytes_max: usize::MAX,
        asides: None,
    })
}

pub(super) fn path_of(given: Given) -> Path {
    let clock = ManualClock::new();
    let account = MemoryBudget::new(given.store_bytes_max);
    let cutter = BlockCutter::new(CutterOptions {
        name: "rx0".to_owned(),
        source: 0,
        framing: given.framing,
        block_interval: Interval::millis(200),
        block_bytes_max: given.block_bytes_max,
        clock: Arc::new(clock.clone()),
        account: Arc::clone(&account),
        poison: Poison::new(),
        log: None,
    });
    let target = Arc::new(Target::default());
    let late = Latency::default().recorder();
    cutter.start(Arc::clone(&target) as Arc<dyn BlockTarget>, late).expect("threads");
    let pool = Pool::new(Arc::clone(&account));
    let counters = Arc::new(ReceiverCounters::default());
    let events = EventBus::new();
    let sources = Sources {
        record_bytes_max: given.record_bytes_max,
        connections_max: given.connections_max,
    };
    let intake = Intake {
        source: "in".to_owned(),
        framing: given.framing,
        ack: AckAt::Queued,
        record_bytes_max: given.record_bytes_max,
        unfinished: Unfinished::new(given.unfinished_bytes_max, sources, &account, &events),
        pool: Arc::clone(&pool),
        cutter: Arc::clone(&cutter),
        account: Arc::clone(&account),
        counters: Arc::clone(&counters),
        events,
        observer: Arc::new(Nobody),
        pause: Pause::new("in", &account, &EventBus::new()),
        limiter: None,
        arrivals: None,
        asides: given.asides,
        handing: Handing::default(),
    };
    let handler = IntakeHandlers(Arc::new(intake)).handler(Arc::new(|| {}));
    Path { clock, cutter, target, account, pool, counters, handler }
}

impl Path {
    pub(super) fn open(&mut self) -> Session {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        self.handler.open(Peer { address, dialled: None }, Remote::nobody())
    }

    /// Hands the bytes over as reads would; returns the handler's decision on the connection.
    pub(super) fn feed(&mut self, session: &mut Session, bytes: &[u8]) -> Flow {
        for piece in bytes.chunks(crate::memory::buffer_pool::BUFFER_BYTES) {
            let mut buffer = self.pool.buffer();
            buffer.space()[..piece.len()].copy_from_slice(piece);
            let flow = self.handler.received(session, &mut buffer, piece.len());
            if flow != Flow::Continue {
                return flow;
            }
        }
        Flow::Continue
    }

    /// Stops in order and returns every record of every block.
    pub(super) fn finish(mut self) -> Vec<Vec<u8>> {
        self.handler.finish();
        let deadline = self.clock.now().plus(Duration::from_secs(60));
        assert_eq!(self.cutter.stop(deadline), Vec::<String>::new());
        let mut records = Vec::new();
        let blocks = self.target.blocks.lock();
        for (number, block) in blocks.iter().enumerate() {
            assert_eq!(block.info.id.number, number as u64, "blocks are pushed in order");
            assert!(block.info.records > 0, "no block for an empty interval");
            let before = records.len();
            for range in block.ranges() {
                block.info.framing.for_each(range, |record| records.push(record.to_vec()));
            }
            assert_eq!(block.info.records, (records.len() - before) as u64);
        }
        records
    }
}

/// A reference splitter: the records of one connection, one byte at a time.
#[derive(Default)]
struct Reference {
    line: Vec<u8>,
    overlong: u64,
}

impl Reference {
    fn feed(&mut self, bytes: &[u8], max: usize, records: &mut Vec<Vec<u8>>) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(max, records),
                other => self.line.push(*other),
            }
        }
    }

    fn end_line(&mut self, max: usize, records: &mut Vec<Vec<u8>>) {
        let line = std::mem::take(&mut self.line);
        if line.len() > max {
            self.overlong += 1;
        } else {
            records.push(line.strip_suffix(b"\r").unwrap_or(&line).to_vec());
        }
    }

    fn close(&mut self, max: usize, records: &mut Vec<Vec<u8>>) {
        if !self.line.is_empty() {
            self.end_line(max, records);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Feed(usize, Vec<u8>),
    Turn,
    Cut,
    Tick,
    Close(usize),
}

const CONNECTIONS: usize = 3;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::collection::vec(
        prop_oneof![4 => Just(b'a'), 2 => Just(b'\n'), 1 => Just(b'\r'), 1 => any::<u8>()],
        0..40,
    );
    // Long ones take the way without a copy.
    let long = (20_000usize..70_000, 1usize..300).prop_map(|(len, every)| {
        (0..len).map(|at| if at % every == 0 { b'\n' } else { b'x' }).collect()
    });
    prop_oneof![9 => text, 1 => long]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..CONNECTIONS, bytes()).prop_map(|(connection, bytes)| Step::Feed(connection, bytes)),
        2 => Just(Step::Turn),
        1 => Just(Step::Cut),
        1 => Just(Step::Tick),
        1 => (0..CONNECTIONS).prop_map(Step::Close),
    ]
}

fn check(steps: &[Step], max: usize, block_bytes_max: u64) {
    let mut path = path(max, block_bytes_max, 1 << 30);
    let mut sessions: Vec<Session> = (0..CONNECTIONS).map(|_| path.open()).collect();
    let mut references: Vec<Reference> = (0..CONNECTIONS).map(|_| Reference::default()).collect();
    let (mut expected, mut overlong) = (Vec::new(), 0);
    let mut close = |path: &mut Path,
                     session: Session,
                     reference: &mut Reference,
                     expected: &mut Vec<Vec<u8>>| {
        path.handler.closed(session, Closed::End);
        reference.close(max, expected);
        overlong += reference.overlong;
        *reference = Reference::default();
    };
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Feed(connection, bytes) => {
                path.feed(&mut sessions[*connection], bytes);
                references[*connection].feed(bytes, max, &mut expected);
            }
            Step::Turn => path.handler.end_of_turn(),
            Step::Cut => path.cutter.cut(),
            Step::Tick => {
                path.cutter.cut_for(Time::from_millis(number as u64));
            }
            Step::Close(connection) => {
                let fresh = path.open();
                let ended = std::mem::replace(&mut sessions[*connection], fresh);
                close(&mut path, ended, &mut references[*connection], &mut expected);
            }
        }
    }
    for (session, reference) in sessions.into_iter().zip(&mut references) {
        close(&mut path, session, reference, &mut expected);
    }
    assert_eq!(path.counters.overlong.value(), overlong);
    assert_eq!(path.counters.records.value(), expected.len() as u64);
    assert_eq!(path.account.unfinished(), 0, "nothing is unfinished any more");
    let account = Arc::clone(&path.account);
    let target = Arc::clone(&path.target);
    assert!(path.finish() == expected, "the records differ from those of the reference");
    target.blocks.lock().clear();
    assert_eq!(account.used(), 0, "every byte is given back with the last block");
}

#[test]
fn two_connections_share_a_block_and_one_ends_without_a_newline() {
    let steps = [
        Step::Feed(0, b"one\ntw".to_vec()),
        Step::Feed(1, b"eins\nzwei".to_vec()),
        Step::Feed(0, b"o\n".to_vec()),
        Step::Close(1),
        Step::Feed(0, b"three".to_vec()),
    ];
    check(&steps, 100, 1 << 20);
}

#[test]
fn an_over_long_line_does_not_become_a_record() {
    check(
        &[Step::Feed(0, b"ab\n123456\ncd\n1234".to_vec()), Step::Feed(0, b"56\nef".to_vec())],
        4,
        1 << 20,
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any bytes, any way of chopping them into reads, any cuts, several connections: every record is in exactly one
    /// block, in order per connection, less the over-long ones, which are counted.
    #[test]
    fn blocks_hold_the_records_of_the_reference(
        steps in prop::collection::vec(step(), 1..60),
        max in prop_oneof![1usize..20, Just(1 << 20)],
        block_bytes_max in prop_oneof![Just(1024u64), Just(8 << 20)],
    ) {
        check(&steps, max, block_bytes_max);
    }
}

#[test]
fn a_full_account_holds_the_handler_until_blocks_are_released() {
    let mut path = path(1 << 20, 8 << 20, 1 << 20);
    let mut session = path.open();
    let mut fed = 0;
    while path.handler.ready() {
        path.feed(&mut session, &[b'\n'; 65_536]);
        fed += 65_536;
    }
    assert!(
        (1 << 20..=(1 << 20) + 65_536).contains(&fed),
        "one read beyond the bound at most: {fed}"
    );
    path.cutter.cut();
    assert!(!path.handler.ready(), "a cut block still counts");
    if path.cutter.cut_for(Time::from_millis(1)) == Cut::Pending {
        path.target.told.wait();
    }
    path.target.blocks.lock().clear();
    assert!(path.handler.ready());
}

#[test]
fn a_failed_push_is_repeated_with_the_same_block() {
    let mut path = path(100, 8 << 20, 1 << 20);
    path.target.failures.store(2, Ordering::SeqCst);
    let mut session = path.open();
    path.feed(&mut session, b"a\nb\n");
    path.handler.end_of_turn();
    assert_eq!(path.cutter.cut_for(Time::from_millis(1)), Cut::Pending);
    path.feed(&mut session, b"c\n");
    for _ in 0..2 {
        // The cut timer sleeps, and the push thread between two attempts.
        path.clock.wait_for_sleepers(2);
        path.clock.advance(Duration::from_millis(50));
    }
    while path.target.reached.lock().is_empty() {
        path.target.told.wait();
    }
    assert_eq!(path.finish(), [b"a", b"b", b"c"]);
}

#[test]
fn an_empty_tick_is_settled_at_once() {
    let path = path(100, 8 << 20, 1 << 20);
    assert_eq!(path.cutter.cut_for(Time::from_millis(1)), Cut::Settled);
    assert!(path.finish().is_empty());
}

#[test]
fn readers_wait_at_the_bytes_that_may_be_queued_and_are_woken_by_a_drain() {
    let (queue, woken) = (RangeQueue::new(8, 10), Signal::new());
    let raise = woken.clone();
    queue.register(Arc::new(move || raise.raise()));
    let push = |bytes: &'static [u8]| queue.push(Range::new(Bytes::from_static(bytes), 1)).is_ok();
    assert!(push(b"1234\n") && queue.has_room());
    // What one read brought is taken whole, however much that is.
    assert!(push(b"6789\n") && !queue.has_room() && push(b"more\n"));
    for has_room in [false, true] {
        queue.pop();
        queue.drained();
        woken.wait();
        assert_eq!(queue.has_room(), has_room);
    }
}
