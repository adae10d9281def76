//! The contract of the io models: every obligation of `receiver::io`, for every row of its table, dialled and listening.
//!
//! A test handler stands where the receiver stands and publishes what it got only at the end of a turn. Real sockets on
//! the loopback device; no sleeps: every wait is for an event, with a watchdog. The tests run one at a time, because
//! they count this process's descriptors.

#![cfg(not(tidemill_model))]

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use tidemill::memory::budget::MemoryBudget;
use tidemill::memory::buffer_pool::{Buffer, Pool};
use tidemill::metrics::ReceiverCounters;
use tidemill::source::io::{
    Closed, Disposition, Flow, Handler, HandlerFactory, IO_MODELS, IoDriver, Options, Peer, Remote,
    Row, TURN_BYTES, Waker, probe, start,
};
use tidemill::sync::thread::Thread;
use tidemill::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering, Poison};
use tidemill::time::{Clock, SystemClock};

/// How long anything may take before the test gives up.
const WATCHDOG: Duration = Duration::from_secs(60);

/// What a test handler keeps of the frozen buffers, to see that nobody writes into them again.
const HELD: usize = 48;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How many bytes a peer's stream has before it repeats itself; a prime, so that no buffer size hides a mistake.
const PERIOD: usize = 65_521;

/// Two periods of a stream, so that one slice is any period.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random(0x5DEE_CE66);
    let one: Vec<u8> = (0..PERIOD).map(|_| random.below(256).to_le_bytes()[0]).collect();
    [one.clone(), one].concat()
});

/// The stream of peer `salt` from `offset` to `offset + len`, in pieces. Its first byte tells the salt.
fn pieces(salt: u8, offset: u64, len: usize) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let end = offset + len as u64;
    (offset..end).step_by(PERIOD).map(move |at| {
        let start = usize::try_from(at % PERIOD as u64).expect("small") + usize::from(salt) * 200;
        let start = start % PERIOD;
        let len = usize::try_from((end - at).min(PERIOD as u64)).expect("small");
        let mut piece = PATTERN[start..start + len].to_vec();
        if at == 0 {
            piece[0] = salt;
        }
        (at, piece)
    })
}

/// The first byte of `bytes` that is not the stream's, which `bytes` continues at `offset`.
fn first_wrong(bytes: &[u8], salt: u8, offset: u64) -> Option<u64> {
    pieces(salt, offset, bytes.len()).zip(bytes.chunks(PERIOD)).find_map(|((at, piece), got)| {
        let same = || piece.iter().zip(got).take_while(|(piece, got)| piece == got).count();
        (piece != got).then(|| at + same() as u64)
    })
}

/// What the handlers saw, and what the test tells them.
struct World {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    seen: HashMap<SocketAddr, Seen>,
    wakers: Vec<Waker>,
    paused: bool,
    /// Bytes that came although `ready` had said no, in this pause.
    unasked: usize,
    unasked_max: usize,
    /// Lanes that were told no, and not yes since.
    held_back: usize,
    turns: u64,
    refuse_beyond: Option<u64>,
    /// The session that is held once it was handed this many bytes.
    hold_at: Option<(SocketAddr, u64)>,
    farewell: &'static [u8],
    /// What a read may bring, and how often that was asked.
    read_max: Option<usize>,
    asked: u64,
    /// Peers that were turned away; none where accepting had to wait.
    refused: Vec<Option<SocketAddr>>,
}

/// One connection, as far as it was published.
struct Seen {
    len: u64,
    wrong: Option<u64>,
    closed: Vec<&'static str>,
    remote: Remote,
    outbox: Vec<u8>,
    standing: Disposition,
    /// How often the model fetched replies that were there.
    fetched: u32,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn tell<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `what` is so.
    fn until(&self, what: &str, mut so: impl FnMut(&State) -> bool) {
        let mut state = self.state.lock();
        while !so(&state) {
            let late = self.changed.wait_for(&mut state, WATCHDOG).timed_out();
            let lens: Vec<u64> = state.seen.values().map(|seen| seen.len).collect();
            assert!(!late || so(&state), "waited for {what} in vain; lengths {lens:?}");
        }
    }

    fn until_len(&self, peer: &TestPeer, len: u64) {
        let what = format!("{len} bytes of {}", peer.address);
        self.until(&what, |state| state.seen.get(&peer.address).is_some_and(|s| s.len >= len));
    }

    fn until_closed(&self, peer: &TestPeer) -> &'static str {
        let closed =
            |state: &State| state.seen.get(&peer.address).is_some_and(|s| !s.closed.is_empty());
        self.until("the end of a connection", closed);
        self.lock().seen[&peer.address].closed[0]
    }

    fn set_paused(&self, paused: bool) {
        let wakers = self.tell(|state| {
            state.paused = paused;
            state.unasked = 0;
            state.wakers.clone()
        });
        if !paused {
            wakers.iter().for_each(|wake| wake());
        }
    }

    fn set_standing(&self, peer: &TestPeer, standing: Disposition) {
        self.tell(|state| state.seen.get_mut(&peer.address).expect("open").standing = standing);
    }

    /// Gives a connection something to send, and asks for it from this thread.
    fn reply(&self, peer: &TestPeer, bytes: &[u8]) {
        let standing = self.lock().seen[&peer.address].standing;
        self.reply_as(peer, standing, bytes);
    }

    /// The same; from then on it stands like this.
    fn reply_as(&self, peer: &TestPeer, standing: Disposition, bytes: &[u8]) {
        let remote = self.tell(|state| {
            let seen = state.seen.get_mut(&peer.address).expect("the connection is open");
            seen.standing = standing;
            seen.outbox.extend_from_slice(bytes);
            seen.remote.clone()
        });
        remote.ask();
    }
}

struct TestHost(Arc<World>);

impl HandlerFactory for TestHost {
    type Handler = TestLane;

    fn handler(&self, waker: Waker) -> TestLane {
        self.0.tell(|state| state.wakers.push(waker));
        TestLane {
            world: Arc::clone(&self.0),
            gathered: Vec::new(),
            held: VecDeque::new(),
            may_read: true,
            reads: 0,
            allowed: usize::MAX,
        }
    }
}

struct TestLane {
    world: Arc<World>,
    /// What was received since the last turn.
    gathered: Vec<(SocketAddr, u64, Option<u64>)>,
    held: VecDeque<(Bytes, u8, u64)>,
    may_read: bool,
    reads: usize,
    /// What the read under way may still bring.
    allowed: usize,
}

struct TestSession {
    address: SocketAddr,
    salt: Option<u8>,
    len: u64,
}

impl Handler for TestLane {
    type Session = TestSession;

    fn ready(&mut self) -> bool {
        let before = self.may_read;
        self.may_read = self.world.tell(|state| {
            let may_read = !state.paused;
            match (before, may_read) {
                (true, false) => state.held_back += 1,
                (false, true) => state.held_back -= 1,
                _ => {}
            }
            may_read
        });
        self.may_read
    }

    fn read_max(&mut self) -> usize {
        let most = self.world.tell(|state| {
            state.asked += 1;
            state.read_max
        });
        self.allowed = most.unwrap_or(usize::MAX);
        self.allowed
    }

    fn open(&mut self, peer: Peer, remote: Remote) -> TestSession {
        let seen = Seen {
            len: 0,
            wrong: None,
            closed: Vec::new(),
            remote,
            outbox: Vec::new(),
            standing: Disposition::Open,
            fetched: 0,
        };
        let before = self.world.tell(|state| state.seen.insert(peer.address, seen));
        assert!(before.is_none(), "a connection is opened once");
        TestSession { address: peer.address, salt: None, len: 0 }
    }

    fn received(&mut self, session: &mut TestSession, buffer: &mut Buffer, len: usize) -> Flow {
        assert!(len > 0, "a read brings something");
        assert!(len <= self.allowed, "{len} bytes, {} were allowed", self.allowed);
        self.allowed -= len;
        if !self.may_read {
            self.world.tell(|state| {
                state.unasked += len;
                state.unasked_max = state.unasked_max.max(state.unasked);
            });
        }
        let salt = *session.salt.get_or_insert(buffer.filled(len)[0]);
        let wrong = first_wrong(buffer.filled(len), salt, session.len);
        self.reads += 1;
        if self.reads.is_multiple_of(2) {
            self.hold(buffer.freeze(len), salt, session.len);
        }
        session.len += len as u64;
        self.gathered.push((session.address, session.len, wrong));
        self.world.tell(|state| {
            if state
                .hold_at
                .is_some_and(|(address, len)| address == session.address && session.len >= len)
            {
                state.hold_at = None;
                state.seen.get_mut(&session.address).expect("open").standing = Disposition::Held;
            }
        });
        match self.world.lock().refuse_beyond {
            Some(most) if session.len > most => Flow::Close("more than was agreed".to_owned()),
            _ => Flow::Continue,
        }
    }

    fn replies(&mut self, session: &mut TestSession, out: &mut Vec<u8>) {
        self.world.tell(|state| {
            let seen = state.seen.get_mut(&session.address).expect("it was opened");
            if !seen.outbox.is_empty() {
                seen.fetched += 1;
                out.append(&mut seen.outbox);
            }
        });
    }

    /// What was not fetched is owed: a change of standing comes with its reply, between any two calls of the model.
    fn standing(&self, session: &TestSession) -> Disposition {
        let seen = &self.world.lock().seen[&session.address];
        match seen.standing {
            Disposition::Held => Disposition::Held,
            standing if seen.outbox.is_empty() => standing,
            _ => Disposition::RepliesDue,
        }
    }

    fn farewell(&mut self, _session: &mut TestSession, out: &mut Vec<u8>) {
        out.extend_from_slice(self.world.lock().farewell);
    }

    fn closed(&mut self, session: TestSession, how: Closed) {
        self.publish();
        let how = match how {
            Closed::End => "end",
            Closed::Reset(_) => "reset",
            Closed::Refused(_) => "refused",
            Closed::Stopped => "stopped",
        };
        self.world.tell(|state| {
            state.seen.get_mut(&session.address).expect("it was opened").closed.push(how);
        });
    }

    fn end_of_turn(&mut self) {
        self.publish();
        self.world.tell(|state| state.turns += 1);
    }

    fn finish(&mut self) {
        self.publish();
        while let Some((bytes, salt, offset)) = self.held.pop_front() {
            assert_eq!(first_wrong(&bytes, salt, offset), None, "a frozen buffer was overwritten");
        }
    }
}

impl TestLane {
    fn publish(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        self.world.tell(|state| {
            for (address, len, wrong) in gathered {
                let seen = state.seen.get_mut(&address).expect("it was opened");
                seen.len = len;
                seen.wrong = seen.wrong.or(wrong);
            }
        });
    }

    fn hold(&mut self, bytes: Bytes, salt: u8, offset: u64) {
        self.held.push_back((bytes, salt, offset));
        if self.held.len() > HELD {
            let (bytes, salt, offset) = self.held.pop_front().expect("not empty");
            assert_eq!(first_wrong(&bytes, salt, offset), None, "a frozen buffer was overwritten");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Connect,
    Listen,
}

/// What a test wants of the options.
#[derive(Clone, Copy)]
struct Wants {
    connections_max: usize,
    pool_threads: usize,
    /// How many, where peers dial in.
    listeners: usize,
}

const PLENTY: Wants = Wants { connections_max: 200, pool_threads: 64, listeners: 1 };

/// One model, started, with the test's end of everything.
struct Rig {
    way: Way,
    row: &'static Row,
    world: Arc<World>,
    driver: Stops,
    addresses: Vec<SocketAddr>,
    counters: Arc<ReceiverCounters>,
    account: Arc<MemoryBudget>,
    poison: Poison,
    clock: Arc<SystemClock>,
}

/// A driver that stops also when the test fails, so that its threads can be joined.
struct Stops(Box<dyn IoDriver>);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.stop();
        self.0.close();
    }
}

/// The test's end of a connection; `address` is what the model knows it by.
struct TestPeer {
    stream: TcpStream,
    address: SocketAddr,
    salt: u8,
    sent: u64,
}

impl Rig {
    fn start(row: &'static Row, way: Way, wants: Wants) -> Rig {
        let world = Arc::new(World { state: Mutex::default(), changed: Condvar::new() });
        let account = MemoryBudget::new(1 << 30);
        let (counters, poison, clock) =
            (Arc::new(ReceiverCounters::default()), Poison::new(), SystemClock::new());
        let count = if way == Way::Listen { wants.listeners } else { 0 };
        let listeners: Vec<_> = (0..count).map(|_| listen().expect("a free port")).collect();
        let bound = listeners.iter().map(|listener| listener.local_addr().expect("bound"));
        let addresses: Vec<SocketAddr> = bound.collect();
        let refused = Arc::clone(&world);
        let options = Options {
            name: "rxt".to_owned(),
            listeners,
            connections_max: wants.connections_max,
            pool_threads: wants.pool_threads,
            reactors: 2,
            reply_bytes_max: 64 * 1024,
            pool: Pool::new(Arc::clone(&account)),
            counters: Arc::clone(&counters),
            on_refusal: Arc::new(move |peer, why| {
                assert!(!why.is_empty());
                refused.tell(|state| state.refused.push(peer));
            }),
            clock: clock.clone(),
            poison: poison.clone(),
        };
        let driver = start(row.model, TestHost(Arc::clone(&world)), options).expect("it starts");
        let driver = Stops(driver);
        Rig { way, row, world, driver, addresses, counters, account, poison, clock }
    }

    fn peer(&self, salt: u8) -> TestPeer {
        self.try_peer(salt).expect("a connection")
    }

    /// Connects, whichever way the case says.
    fn try_peer(&self, salt: u8) -> std::io::Result<TestPeer> {
        let (stream, address) = match self.addresses.first() {
            Some(address) => {
                let stream = TcpStream::connect(address)?;
                let address = stream.local_addr()?;
                (stream, address)
            }
            None => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let address = listener.local_addr()?;
                let dialled = TcpStream::connect(address)?;
                self.driver.0.attach(dialled, Peer { address, dialled: Some(0) })?;
                (listener.accept()?.0, address)
            }
        };
        TestPeer::new(stream, address, salt)
    }

    fn stop(&self) {
        self.driver.0.stop();
        self.driver.0.close();
        for thread in self.driver.0.threads() {
            self.join(thread);
        }
    }

    fn join(&self, thread: Thread) {
        let deadline = self.clock.now().plus(WATCHDOG);
        while !thread.is_done() {
            self.clock.wait(thread.done(), Some(deadline));
            assert!(self.clock.now() < deadline, "thread `{}` does not stop", thread.name());
        }
        thread.join();
    }

    /// Stops, and checks what must be so after every run.
    fn finish(self) {
        self.stop();
        drop(self.driver);
        assert_eq!(self.poison.reason(), None);
        let state = std::mem::take(&mut *self.world.lock());
        for (address, seen) in &state.seen {
            assert_eq!(seen.wrong, None, "wrong bytes of {address} from here");
            assert_eq!(seen.closed.len(), 1, "{address} ended once: {:?}", seen.closed);
        }
        assert!(
            state.unasked_max <= self.row.in_flight_max,
            "{} bytes came while the handler was not ready",
            state.unasked_max
        );
        drop(state);
        assert_eq!(Arc::strong_count(&self.world), 1, "a thread or a handler was left");
        assert_eq!(self.account.used(), 0, "a buffer was left");
    }
}

impl TestPeer {
    fn new(stream: TcpStream, address: SocketAddr, salt: u8) -> std::io::Result<TestPeer> {
        stream.set_write_timeout(Some(WATCHDOG))?;
        stream.set_read_timeout(Some(WATCHDOG))?;
        stream.set_nodelay(true)?;
        Ok(TestPeer { stream, address, salt, sent: 0 })
    }

    /// The next `len` bytes of its stream.
    fn next(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        pieces(self.salt, self.sent, len).for_each(|(_, piece)| bytes.extend_from_slice(&piece));
        self.sent += len as u64;
        bytes
    }

    fn send(&mut self, len: usize) {
        let bytes = self.next(len);
        self.stream.write_all(&bytes).expect("the peer reads");
    }

    /// Sends until the connection takes no more, at most `most` bytes.
    fn fill(&mut self, most: usize) {
        self.stream.set_nonblocking(true).expect("a socket");
        let start = self.sent;
        while self.sent < start + most as u64 {
            let before = self.sent;
            let bytes = self.next(64 * 1024);
            let written = match self.stream.write(&bytes) {
                Ok(written) => written,
                Err(err) if err.kind() == ErrorKind::WouldBlock => 0,
                Err(err) => panic!("cannot send: {err}"),
            };
            self.sent = before + written as u64;
            if written == 0 {
                break;
            }
        }
        self.stream.set_nonblocking(false).expect("a socket");
    }

    /// Whether the model closed the connection, in whatever way.
    fn sees_a_close(&mut self) -> bool {
        loop {
            match self.stream.read(&mut [0; 16]) {
                // A read with a time-out is not begun again by itself after a signal.
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => {
                    return !matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                }
                Ok(len) => return len == 0,
            }
        }
    }
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0))))?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Says which case failed.
struct Case(&'static str, Way);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the case {} × {:?}", self.0, self.1);
        }
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc is mounted").count()
}

/// Runs `body` over every model and both ways, and checks what must always be so.
fn each(wants: Wants, body: impl Fn(&Rig)) {
    let _alone = ONE_AT_A_TIME.lock();
    for row in IO_MODELS.iter().filter(|row| offered(row)) {
        for way in [Way::Connect, Way::Listen] {
            run(row, way, wants, &body);
        }
    }
}

/// Whether this system can run the model; says why if it cannot.
fn offered(row: &Row) -> bool {
    probe(row.model).inspect_err(|why| eprintln!("{} is not checked: {why}", row.name)).is_ok()
}

fn run(row: &'static Row, way: Way, wants: Wants, body: impl FnOnce(&Rig)) {
    let _case = Case(row.name, way);
    let before = descriptors();
    let rig = Rig::start(row, way, wants);
    body(&rig);
    rig.finish();
    assert_eq!(descriptors(), before, "descriptors were left open");
}

/// A small generator of numbers; the seed is the case.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most).expect("small")
    }
}

#[test]
fn each_model_has_one_row() {
    for row in IO_MODELS {
        assert_eq!(row.model.row().name, row.name);
        assert_eq!(tidemill::IoModel::by_name(row.name), Some(row.model));
    }
    assert_eq!(tidemill::IoModel::by_name("nil"), None);
}

#[test]
fn a_start_without_peers_stops() {
    each(PLENTY, |_| {});
}

#[test]
fn every_byte_arrives_once_and_in_order() {
    each(PLENTY, |rig| {
        for seed in [1, 2, 3] {
            let mut random = Random(seed * 0x9E37_79B9);
            let mut peers: Vec<TestPeer> =
                (1..=5).map(|n| rig.peer(n + 10 * seed.to_le_bytes()[0])).collect();
            for _ in 0..60 {
                let most = [3, 2_000, 70_000, 400_000][random.below(4)];
                let peer = random.below(5);
                let len = 1 + random.below(most);
                peers[peer].send(len);
            }
            for peer in &mut peers {
                peer.send(1);
                peer.stream.shutdown(Shutdown::Write).expect("connected");
                assert_eq!(rig.world.until_closed(peer), "end", "seed {seed}");
                assert_eq!(rig.world.lock().seen[&peer.address].len, peer.sent, "seed {seed}");
                assert!(peer.sees_a_close());
            }
        }
        let bytes: u64 = rig.world.lock().seen.values().map(|seen| seen.len).sum();
        assert_eq!(rig.counters.bytes.value(), bytes);
    });
}

#[test]
fn a_half_close_right_behind_the_last_bytes_is_not_missed() {
    each(PLENTY, |rig| {
        for round in 0..40 {
            let mut peer = rig.peer(round + 1);
            // Some ends come in one segment with the last bytes, some even before the connection is looked at.
            let len = [1, 10, 1_000, 65_536, TURN_BYTES, TURN_BYTES + 1][usize::from(round) % 6];
            peer.send(len);
            peer.stream.shutdown(Shutdown::Write).expect("connected");
            assert_eq!(rig.world.until_closed(&peer), "end");
            assert_eq!(rig.world.lock().seen[&peer.address].len, peer.sent);
        }
    });
}

#[test]
fn an_end_that_came_while_the_lane_was_paused_is_seen() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(1);
        peer.send(1);
        rig.world.until_len(&peer, 1);
        rig.world.set_paused(true);
        peer.send(5_000);
        peer.stream.shutdown(Shutdown::Write).expect("connected");
        rig.world.set_paused(false);
        assert_eq!(rig.world.until_closed(&peer), "end");
        assert_eq!(rig.world.lock().seen[&peer.address].len, peer.sent);
    });
}

#[test]
fn a_read_brings_no_more_than_the_lane_allows() {
    for most in [1, 4_096, 65_536, 100_000, 300_000] {
        each(PLENTY, |rig| {
            rig.world.tell(|state| state.read_max = Some(most));
            let len = if most == 1 { 1_000 } else { 1 << 20 };
            let mut peer = rig.peer(1);
            peer.send(len);
            rig.world.until_len(&peer, len as u64);
            let asked = rig.world.lock().asked;
            assert!(asked >= (len / most) as u64, "asked {asked} times for reads of {most}");
        });
    }
}

#[test]
fn a_paused_lane_brings_nothing_more_and_resumes() {
    each(PLENTY, |rig| {
        let mut peers: Vec<TestPeer> = (1..=3).map(|n| rig.peer(n)).collect();
        for peer in &mut peers {
            peer.send(100_000);
            rig.world.until_len(peer, 100_000);
        }
        for _ in 0..3 {
            rig.world.set_paused(true);
            for peer in &mut peers {
                peer.fill(32 << 20);
            }
            for peer in &mut peers {
                // A reply proves that the thread came round with bytes waiting; replies are sent while it is paused.
                rig.world.reply(peer, b"still here");
                let mut reply = [0; 10];
                peer.stream.read_exact(&mut reply).expect("a reply while paused");
                assert_eq!(&reply, b"still here");
            }
            rig.world.until("the model asks before it reads", |state| state.held_back > 0);
            rig.world.set_paused(false);
            for peer in &peers {
                rig.world.until_len(peer, peer.sent);
            }
        }
    });
}

#[test]
fn replies_are_flushed_in_order() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(7);
        peer.send(10);
        rig.world.until_len(&peer, 10);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..200u8 {
                    rig.world.reply(&peer, &[at; 1000]);
                }
            });
            let mut got = vec![0; 200_000];
            (&peer.stream).read_exact(&mut got).expect("replies");
            for (at, chunk) in (0..200u8).zip(got.chunks(1000)) {
                assert!(chunk.iter().all(|byte| *byte == at), "reply {at}");
            }
        });
    });
}

#[test]
fn a_peer_that_does_not_read_its_replies_is_not_read_from() {
    each(PLENTY, |rig| {
        let (mut deaf, mut other) = (rig.peer(1), rig.peer(2));
        deaf.send(1);
        other.send(1);
        rig.world.until_len(&deaf, 1);
        rig.world.until_len(&other, 1);
        let replies = 24 << 20;
        rig.world.reply(&deaf, &vec![b'r'; replies]);
        rig.world.until("the replies are fetched", |state| state.seen[&deaf.address].fetched == 1);
        deaf.fill(32 << 20);
        for _ in 0..10 {
            other.send(300_000);
            rig.world.until_len(&other, other.sent);
            rig.world.reply(&other, b"ok");
            other.stream.read_exact(&mut [0; 2]).expect("a reply");
        }
        let len = rig.world.lock().seen[&deaf.address].len;
        assert!(len <= 1 + rig.row.in_flight_max as u64, "{len} bytes, and replies unsent");
        let mut got = vec![0; replies];
        deaf.stream.read_exact(&mut got).expect("all replies");
        assert!(got.iter().all(|byte| *byte == b'r'));
        rig.world.until_len(&deaf, deaf.sent);
    });
}

#[test]
fn replies_that_wait_at_a_half_close_are_sent() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(1);
        peer.send(1);
        rig.world.until_len(&peer, 1);
        let replies = 24 << 20;
        rig.world.reply(&peer, &vec![b'r'; replies]);
        rig.world.until("the replies are fetched", |state| state.seen[&peer.address].fetched == 1);
        peer.send(1_000);
        peer.stream.shutdown(Shutdown::Write).expect("connected");
        let mut got = Vec::new();
        peer.stream.read_to_end(&mut got).expect("all replies, then an orderly end");
        assert_eq!(got.len(), replies);
        assert_eq!(rig.world.until_closed(&peer), "end");
        assert_eq!(rig.world.lock().seen[&peer.address].len, peer.sent);
    });
}

#[test]
fn a_session_that_owes_is_kept_behind_the_half_close_of_its_peer() {
    each(PLENTY, |rig| {
        let (mut peer, mut other) = (rig.peer(1), rig.peer(2));
        peer.send(10);
        rig.world.until_len(&peer, 10);
        rig.world.set_standing(&peer, Disposition::RepliesDue);
        peer.stream.shutdown(Shutdown::Write).expect("connected");
        rig.world.reply(&peer, b"a");
        peer.stream.read_exact(&mut [0]).expect("the first reply");
        // Bytes of another peer may be looked at after that end.
        if rig.row.name != "bio" && rig.row.name != "pool" {
            other.send(100);
            rig.world.until_len(&other, 100);
        }
        assert!(rig.world.lock().seen[&peer.address].closed.is_empty());
        rig.world.reply_as(&peer, Disposition::Open, b"b");
        let mut got = Vec::new();
        peer.stream.read_to_end(&mut got).expect("the second reply and the end");
        assert_eq!(got, b"b");
        assert_eq!(rig.world.until_closed(&peer), "end");
    });
}

/// A session becomes held with what it was handed; its peer goes on sending, and closes.
#[test]
fn a_session_that_is_held_is_not_read_until_it_is_asked_for_and_others_are() {
    each(PLENTY, |rig| {
        let (mut held, mut other) = (rig.peer(1), rig.peer(2));
        rig.world.tell(|state| state.hold_at = Some((held.address, 10)));
        held.send(10);
        rig.world.until_len(&held, 10);
        held.send(64 << 10);
        held.stream.shutdown(Shutdown::Write).expect("connected");
        for _ in 0..3 {
            let before = other.sent;
            other.send(1_000);
            rig.world.until_len(&other, before + 1_000);
        }
        // What was in flight may have come.
        let most = 10 + rig.row.in_flight_max as u64;
        let len = rig.world.lock().seen[&held.address].len;
        assert!(len <= most, "{len} bytes were read, {most} at most were in flight");
        assert!(rig.world.lock().seen[&held.address].closed.is_empty());
        rig.world.reply_as(&held, Disposition::Open, b"r");
        rig.world.until_len(&held, held.sent);
        let mut got = Vec::new();
        held.stream.read_to_end(&mut got).expect("the reply and the end");
        assert_eq!(got, b"r");
        assert_eq!(rig.world.until_closed(&held), "end");
    });
}

#[test]
fn a_session_that_is_over_is_closed_behind_its_replies() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(1);
        peer.send(10);
        rig.world.until_len(&peer, 10);
        rig.world.reply_as(&peer, Disposition::Closing, &vec![b'r'; 1 << 20]);
        let mut got = Vec::new();
        peer.stream.read_to_end(&mut got).expect("the reply and the end");
        assert_eq!(got.len(), 1 << 20);
        assert_eq!(rig.world.until_closed(&peer), "end");
    });
}

#[test]
fn a_session_that_is_over_with_nothing_to_send_is_closed() {
    each(PLENTY, |rig| {
        let (mut peer, mut unread) = (rig.peer(1), rig.peer(2));
        for peer in [&mut peer, &mut unread] {
            peer.send(10);
            rig.world.until_len(peer, 10);
        }
        rig.world.reply_as(&peer, Disposition::Closing, b"");
        assert!(peer.sees_a_close());
        assert_eq!(rig.world.until_closed(&peer), "end");
        // Also one that is not read from now, and has sent more.
        rig.world.set_paused(true);
        unread.send(10);
        rig.world.reply_as(&unread, Disposition::Closing, b"");
        assert_eq!(rig.world.until_closed(&unread), "end");
        assert!(unread.sees_a_close());
        rig.world.set_paused(false);
    });
}

#[test]
fn a_stop_keeps_who_is_owed_something_and_says_farewell() {
    each(PLENTY, |rig| {
        let (mut owed, mut idle, mut deaf) = (rig.peer(1), rig.peer(2), rig.peer(3));
        for peer in [&mut owed, &mut idle, &mut deaf] {
            peer.send(10);
            rig.world.until_len(peer, 10);
        }
        rig.world.tell(|state| state.farewell = b"bye");
        rig.world.set_standing(&owed, Disposition::RepliesDue);
        rig.world.set_standing(&deaf, Disposition::RepliesDue);
        rig.driver.0.stop();
        let mut got = Vec::new();
        idle.stream.read_to_end(&mut got).expect("the farewell and the end");
        assert_eq!(got, b"bye");
        rig.world.reply(&owed, b"one");
        owed.stream.read_exact(&mut [0; 3]).expect("a reply behind the stop");
        rig.world.reply_as(&owed, Disposition::Open, b"two");
        got.clear();
        owed.stream.read_to_end(&mut got).expect("the last reply, the farewell, the end");
        assert_eq!(got, b"twobye");
        assert_eq!(rig.world.until_closed(&owed), "stopped");
        // The last one is owed something for ever.
        assert!(rig.world.lock().seen[&deaf.address].closed.is_empty());
        rig.driver.0.close();
        assert_eq!(rig.world.until_closed(&deaf), "stopped");
    });
}

#[test]
fn a_session_that_refuses_is_closed_once_after_its_replies() {
    each(PLENTY, |rig| {
        let (mut good, mut bad) = (rig.peer(1), rig.peer(2));
        good.send(10);
        bad.send(10);
        rig.world.until_len(&good, 10);
        rig.world.until_len(&bad, 10);
        rig.world.tell(|state| {
            state.refuse_beyond = Some(10);
            let seen = state.seen.get_mut(&bad.address).expect("open");
            seen.outbox = b"no".to_vec();
        });
        bad.send(5);
        assert_eq!(rig.world.until_closed(&bad), "refused");
        let mut got = Vec::new();
        bad.stream.read_to_end(&mut got).expect("the reply and the end");
        assert_eq!(got, b"no");
        rig.world.tell(|state| state.refuse_beyond = None);
        good.send(10);
        rig.world.until_len(&good, 20);
    });
}

#[test]
fn a_reset_by_the_peer_ends_only_its_connection() {
    each(PLENTY, |rig| {
        let (mut broken, mut other) = (rig.peer(1), rig.peer(2));
        broken.send(10);
        rig.world.until_len(&broken, 10);
        let socket = Socket::from(broken.stream.try_clone().expect("a descriptor"));
        socket.set_linger(Some(Duration::ZERO)).expect("a socket");
        drop(socket);
        let TestPeer { stream, address, salt, sent } = broken;
        drop(stream);
        rig.world.until("the reset", |state| !state.seen[&address].closed.is_empty());
        let seen = rig.world.lock().seen[&address].closed.clone();
        assert_eq!((seen, salt, sent), (vec!["reset"], 1, 10));
        other.send(1_000);
        rig.world.until_len(&other, 1_000);
        // A remote of a connection that is over is harmless.
        let remote = rig.world.lock().seen[&address].remote.clone();
        remote.ask();
        other.send(1);
        rig.world.until_len(&other, 1_001);
    });
}

#[test]
fn peers_that_are_reset_at_once_are_connections() {
    let _alone = ONE_AT_A_TIME.lock();
    for row in IO_MODELS.iter().filter(|row| offered(row)) {
        // None is turned away, however late the others are closed.
        let wants = Wants { connections_max: 2_000, ..PLENTY };
        run(row, Way::Listen, wants, |rig| {
            for _ in 0..1_000 {
                let peer = rig.peer(1);
                let socket = Socket::from(peer.stream);
                socket.set_linger(Some(Duration::ZERO)).expect("a socket");
            }
            let over = |state: &State| state.seen.values().filter(|s| !s.closed.is_empty()).count();
            rig.world.until("1,000 connections", |state| over(state) == 1_000);
            let resets = |seen: &Seen| seen.closed == ["reset"];
            assert!(rig.world.lock().seen.values().all(resets), "all were reset");
            assert_eq!(rig.counters.refused.value(), 0);
            let mut honest = rig.peer(2);
            honest.send(10);
            rig.world.until_len(&honest, 10);
        });
    }
}

#[test]
fn several_listeners_are_listened_at() {
    let _alone = ONE_AT_A_TIME.lock();
    for row in IO_MODELS.iter().filter(|row| offered(row)) {
        run(row, Way::Listen, Wants { listeners: 3, ..PLENTY }, |rig| {
            let mut peers = Vec::new();
            for salt in 0..30 {
                let address = rig.addresses[usize::from(salt) % 3];
                let stream = TcpStream::connect(address).expect("it listens");
                let local = stream.local_addr().expect("connected");
                peers.push(TestPeer::new(stream, local, salt).expect("a socket"));
            }
            for peer in &mut peers {
                peer.send(100);
                rig.world.until_len(peer, 100);
            }
        });
    }
}

#[test]
fn peers_beyond_the_limit_are_turned_away_and_counted() {
    each(Wants { connections_max: 4, ..PLENTY }, |rig| {
        let mut peers: Vec<TestPeer> = (1..=4).map(|n| rig.peer(n)).collect();
        for peer in &mut peers {
            peer.send(3);
            rig.world.until_len(peer, 3);
        }
        for round in 1..=3 {
            match rig.way {
                Way::Connect => assert!(rig.try_peer(9).is_err(), "the limit is told"),
                Way::Listen => {
                    let mut peer = rig.peer(9);
                    assert!(peer.sees_a_close());
                    assert_eq!(rig.counters.refused.value(), round);
                    let told = rig.world.lock().refused.last().copied();
                    assert_eq!(told, Some(Some(peer.address)));
                }
            }
        }
        let gone = peers.pop().expect("four");
        gone.stream.shutdown(Shutdown::Write).expect("connected");
        rig.world.until_closed(&gone);
        let mut late = rig.peer(77);
        late.send(6);
        rig.world.until_len(&late, 6);
        for peer in &mut peers {
            peer.send(3);
            rig.world.until_len(peer, 6);
        }
    });
}

#[test]
fn a_stop_while_peers_send_joins_everything() {
    each(PLENTY, |rig| {
        let mut peers: Vec<TestPeer> = (1..=6).map(|n| rig.peer(n)).collect();
        std::thread::scope(|scope| {
            for peer in &mut peers {
                scope.spawn(move || {
                    // Until the stop closes the connection.
                    loop {
                        let bytes = peer.next(100_000);
                        if peer.stream.write_all(&bytes).is_err() {
                            break;
                        }
                    }
                });
            }
            rig.world.until("some of each", |state| {
                state.seen.len() == 6 && state.seen.values().all(|seen| seen.len > 500_000)
            });
            rig.stop();
        });
        for peer in &peers {
            assert_eq!(rig.world.until_closed(peer), "stopped");
            assert!(rig.world.lock().seen[&peer.address].len <= peer.sent);
        }
        assert!(rig.way == Way::Listen || rig.try_peer(9).is_err(), "nothing after the stop");
    });
}

#[test]
fn a_stop_while_paused_and_with_unsent_replies_joins_everything() {
    each(PLENTY, |rig| {
        let mut peers: Vec<TestPeer> = (1..=3).map(|n| rig.peer(n)).collect();
        for peer in &mut peers {
            peer.send(10);
            rig.world.until_len(peer, 10);
        }
        rig.world.set_paused(true);
        peers[0].fill(8 << 20);
        rig.world.reply(&peers[1], &vec![b'r'; 24 << 20]);
        rig.stop();
        assert!(peers[2].sees_a_close());
    });
}

#[test]
fn a_dripping_peer_does_not_hold_others_up() {
    each(PLENTY, |rig| {
        let mut drip = rig.peer(1);
        let mut others: Vec<TestPeer> = (2..=5).map(|n| rig.peer(n)).collect();
        for round in 1..=20 {
            drip.send(1);
            for other in &mut others {
                other.send(20_000);
            }
            for other in &others {
                rig.world.until_len(other, other.sent);
            }
            rig.world.until_len(&drip, round);
        }
    });
}

#[test]
fn a_fat_stream_does_not_starve_thin_ones() {
    each(PLENTY, |rig| {
        let mut fat = rig.peer(1);
        let mut thin: Vec<TestPeer> = (2..=5).map(|n| rig.peer(n)).collect();
        let enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (fat, enough) = (&mut fat, &enough);
            let chunk = fat.next(1 << 20);
            let flood = scope.spawn(move || {
                // The pattern goes on over the chunks, so it is made anew; the kernel's buffers stay full all the same.
                let mut bytes = chunk;
                while !enough.load(Ordering::SeqCst) {
                    fat.stream.write_all(&bytes).expect("the fat one is read");
                    bytes = fat.next(1 << 20);
                }
                fat.sent -= bytes.len() as u64;
            });
            for _ in 0..50 {
                for peer in &mut thin {
                    peer.send(10);
                }
                for peer in &thin {
                    rig.world.until_len(peer, peer.sent);
                }
            }
            assert!(!flood.is_finished(), "the fat one never stopped");
            enough.store(true, Ordering::SeqCst);
        });
        rig.world.until_len(&fat, fat.sent);
    });
}

#[test]
fn an_idle_model_does_not_turn() {
    each(PLENTY, |rig| {
        let mut peers: Vec<TestPeer> = (1..=20).map(|n| rig.peer(n)).collect();
        for peer in &mut peers {
            peer.send(1);
        }
        for peer in &peers {
            rig.world.until_len(peer, 1);
        }
        let before = rig.world.lock().turns;
        for round in 0..50 {
            peers[round % 20].send(1);
            let sent = peers[round % 20].sent;
            rig.world.until_len(&peers[round % 20], sent);
        }
        let turns = rig.world.lock().turns - before;
        assert!(turns <= 500, "{turns} turns for 50 reads");
    });
}

#[test]
fn urgent_bytes_are_bytes_of_the_stream() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(1);
        peer.send(10);
        rig.world.until_len(&peer, 10);
        for _ in 0..10 {
            let urgent = peer.next(1);
            let socket = Socket::from(peer.stream.try_clone().expect("a descriptor"));
            socket.send_out_of_band(&urgent).expect("the peer reads");
            peer.send(1_000);
        }
        rig.world.until_len(&peer, peer.sent);
    });
}

#[test]
fn in_the_pool_a_connection_without_a_thread_waits_unread_and_is_counted() {
    let _alone = ONE_AT_A_TIME.lock();
    let row = tidemill::IoModel::Pool.row();
    for way in [Way::Connect, Way::Listen] {
        run(row, way, Wants { pool_threads: 2, ..PLENTY }, |rig| {
            let mut peers: Vec<TestPeer> = (1..=2).map(|n| rig.peer(n)).collect();
            for peer in &mut peers {
                peer.send(10);
                rig.world.until_len(peer, 10);
            }
            let mut late: Vec<TestPeer> = (3..=9).map(|n| rig.peer(n)).collect();
            for peer in &mut late {
                peer.send(30_000);
            }
            for round in 0..20 {
                let peer = &mut peers[round % 2];
                peer.send(10);
                rig.world.until_len(peer, peer.sent);
            }
            assert_eq!(rig.world.lock().seen.len(), 2, "the others are not looked at");
            peers.truncate(1);
            for peer in late {
                // Each gives its place to the next.
                rig.world.until_len(&peer, 30_000);
                let dead = peer.address;
                drop(peer);
                rig.world.until("its end", |state| state.seen[&dead].closed == ["end"]);
            }
            assert_eq!(rig.counters.waiting.value(), 0);
            assert!(rig.counters.waited_us_max.value() > 0);
            assert_eq!(rig.counters.refused.value(), 0);
        });
    }
}

/// The timer that the kernel runs for the engine's end of a connection, and when it ends, in seconds; see proc(5),
/// `/proc/net/tcp`: 2 is keepalive.
#[cfg(target_os = "linux")]
fn timer_of(ours: SocketAddr, peer: SocketAddr) -> Option<(u8, f64)> {
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(address) => {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
        }
        SocketAddr::V6(_) => panic!("the tests use 127.0.0.1"),
    };
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc is mounted");
    let (ours, peer) = (hex(ours), hex(peer));
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (kind, ticks) = words.get(5)?.split_once(':')?;
        let same = words.get(1..3) == Some(&[&*ours, &*peer][..]);
        let ticks = f64::from(u32::from_str_radix(ticks, 16).ok()?);
        same.then_some((kind.parse().ok()?, ticks / 100.0))
    })
}

#[cfg(target_os = "linux")]
#[test]
fn the_kernel_asks_after_a_peer_that_is_silent() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(1);
        peer.send(10);
        rig.world.until_len(&peer, 10);
        let far = peer.stream.peer_addr().expect("connected");
        let near = peer.stream.local_addr().expect("connected");
        let timer = || timer_of(far, near).filter(|(kind, _)| *kind == 2);
        wait_for(rig, "the keepalive timer", || timer().is_some());
        let (_, seconds) = timer().expect("it runs as long as the peer is silent");
        assert!(seconds > 0.0 && seconds <= 60.0, "{seconds}");
    });
}

/// Sockets that only need to be connected, which takes no descriptor of this process any more.
fn unconnected(count: usize) -> Vec<Socket> {
    (0..count).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).expect("plenty")).collect()
}

fn connect(rig: &Rig, sockets: Vec<Socket>) -> Vec<TestPeer> {
    let address = SockAddr::from(rig.addresses[0]);
    let connect = |(socket, salt): (Socket, u8)| {
        socket.connect(&address).expect("the kernel takes it");
        let stream = TcpStream::from(socket);
        let local = stream.local_addr().expect("connected");
        TestPeer::new(stream, local, salt).expect("a socket")
    };
    sockets.into_iter().zip(1..).map(connect).collect()
}

/// Waits for what nobody tells, such as a counter.
fn wait_for(rig: &Rig, what: &str, so: impl Fn() -> bool) {
    let deadline = rig.clock.now().plus(WATCHDOG);
    while !so() {
        assert!(rig.clock.now() < deadline, "waited for {what} in vain");
        std::thread::yield_now();
    }
}

/// Runs `body` with so many descriptors allowed.
fn with_limit<T>(descriptors: u64, body: impl FnOnce() -> T) -> T {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), ..before })
        .expect("lowering is allowed");
    let result = body();
    setrlimit(Resource::Nofile, before).expect("raising to the maximum is allowed");
    result
}

/// The limit below which so many numbers are free.
fn limit_that_leaves(free: usize) -> u64 {
    let open: Vec<u64> = std::fs::read_dir("/proc/self/fd")
        .expect("proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    (0..).filter(|number| !open.contains(number)).nth(free).expect("numbers do not end")
}

#[test]
fn lack_of_descriptors_is_survived() {
    // The limit is of a process, so the cases run in one of their own: this test again, in a child.
    if std::env::var_os(CHILD).is_some() {
        return few_descriptors();
    }
    let _alone = ONE_AT_A_TIME.lock();
    let this = std::env::current_exe().expect("this program");
    let arguments = ["--exact", "lack_of_descriptors_is_survived", "--nocapture"];
    let mut child = std::process::Command::new(this);
    let output = child.args(arguments).env(CHILD, "1").output().expect("a child");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let erred = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}{erred}");
}

/// Set in the child process that has few descriptors.
const CHILD: &str = "TIDEMILL_TEST_FEW_DESCRIPTORS";

fn few_descriptors() {
    let _alone = ONE_AT_A_TIME.lock();
    for row in IO_MODELS.iter().filter(|row| offered(row)) {
        let _case = Case(row.name, Way::Listen);
        let before = descriptors();
        let rig = Rig::start(row, Way::Listen, PLENTY);
        let needed = descriptors() - before;
        rig.finish();
        turns_peers_away(row, needed);
        waits_and_recovers(row, needed);
        assert_eq!(descriptors(), before, "descriptors were left open");
    }
}

/// Starts with so many descriptors left after the start: io_uring remembers the limit of the time when it was asked.
fn start_within(row: &'static Row, needed: usize, left: usize) -> Rig {
    with_limit(limit_that_leaves(needed + left), || Rig::start(row, Way::Listen, PLENTY))
}

/// With the spare descriptor a peer is told by a close that there is no place.
fn turns_peers_away(row: &'static Row, needed: usize) {
    let sockets = unconnected(30);
    let rig = start_within(row, needed, 6);
    let peers = with_limit(limit_that_leaves(6), || {
        let peers = connect(&rig, sockets);
        // A counter counts a moment before the world is told, so both must have come.
        wait_for(&rig, "an answer to each", || {
            let world = rig.world.lock();
            let told = world.refused.iter().flatten().count() as u64;
            let waits = world.refused.len() as u64 - told;
            world.seen.len() as u64 + told == 30 && rig.counters.accept_waits.value() == waits
        });
        peers
    });
    assert!(rig.counters.refused.value() > 10, "{} refused", rig.counters.refused.value());
    assert!(rig.counters.accept_waits.value() < 5);
    let told = rig.world.lock().refused.clone();
    let peers_told = told.iter().flatten().count() as u64;
    assert_eq!(peers_told, rig.counters.refused.value(), "each is told with its address");
    assert_eq!(told.len() as u64 - peers_told, rig.counters.accept_waits.value());
    let turns = rig.world.lock().turns;
    assert!(turns < 300, "{turns} turns for 30 peers");
    drop(peers);
    let mut late = rig.peer(99);
    late.send(100);
    rig.world.until_len(&late, 100);
    drop(late);
    rig.finish();
}

/// Without even that, accepting waits, and nobody is lost once there are descriptors again.
fn waits_and_recovers(row: &'static Row, needed: usize) {
    let (first, sockets) = (unconnected(1), unconnected(20));
    let rig = start_within(row, needed, 2);
    let mut old = connect(&rig, first).remove(0);
    old.send(10);
    rig.world.until_len(&old, 10);
    let turns = rig.world.lock().turns;
    let mut peers = with_limit(3, || {
        let peers = connect(&rig, sockets);
        wait_for(&rig, "accepting to wait", || rig.counters.accept_waits.value() >= 3);
        old.send(10);
        rig.world.until_len(&old, 20);
        peers
    });
    for peer in &mut peers {
        peer.send(1_000);
    }
    for peer in &peers {
        rig.world.until_len(peer, 1_000);
    }
    let (waits, turns) = (rig.counters.accept_waits.value(), rig.world.lock().turns - turns);
    assert!(waits < 30 && turns < 300, "{waits} waits and {turns} turns are a busy loop");
    assert_eq!(rig.counters.refused.value(), 0);
    drop((old, peers));
    rig.finish();
}
