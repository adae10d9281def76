//! One started model with the test's peers, and the run of a test over all models and both ways to connect.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};
use tidemill::internals::io::{IO_MODELS, IoDriver, Options, Peer, Row, probe, start};
use tidemill::internals::memory::budget::MemoryBudget;
use tidemill::internals::memory::buffer_pool::Pool;
use tidemill::internals::sync::thread::Thread;
use tidemill::internals::sync::{Condvar, Mutex, Poison};
use tidemill::metrics::ReceiverCounters;
use tidemill::time::{Clock, SystemClock};

use crate::WATCHDOG;
use crate::handler::{TestHost, World};
use crate::peer::TestPeer;

pub static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    Connect,
    Listen,
}

/// The options that differ between tests.
#[derive(Clone, Copy)]
pub struct Wants {
    pub connections_max: usize,
    pub pool_threads: usize,
    /// Number of listeners if peers dial in.
    pub listeners: usize,
}

pub const PLENTY: Wants = Wants { connections_max: 200, pool_threads: 64, listeners: 1 };

/// One started model, and everything that the test holds of it.
pub struct Rig {
    pub way: Way,
    pub row: &'static Row,
    pub world: Arc<World>,
    pub driver: Stops,
    pub addresses: Vec<SocketAddr>,
    pub counters: Arc<ReceiverCounters>,
    account: Arc<MemoryBudget>,
    poison: Poison,
    clock: Arc<SystemClock>,
}

/// A driver that also stops if the test fails, so that its threads can be joined.
pub struct Stops(pub Box<dyn IoDriver>);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.stop();
        self.0.close();
    }
}

impl Rig {
    pub fn start(row: &'static Row, way: Way, wants: Wants) -> Rig {
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

    pub fn peer(&self, salt: u8) -> TestPeer {
        self.try_peer(salt).expect("a connection")
    }

    /// Connects in the way of the case.
    pub fn try_peer(&self, salt: u8) -> std::io::Result<TestPeer> {
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

    pub fn stop(&self) {
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

    /// Stops, and checks the conditions that hold after every run.
    pub fn finish(self) {
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

fn listen() -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0))))?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Prints the case if it fails.
pub struct Case(pub &'static str, pub Way);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the case {} × {:?}", self.0, self.1);
        }
    }
}

pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc is mounted").count()
}

/// Runs `body` over every model and both ways, and checks the conditions that always hold.
pub fn each(wants: Wants, body: impl Fn(&Rig)) {
    let _alone = ONE_AT_A_TIME.lock();
    for row in IO_MODELS.iter().filter(|row| offered(row)) {
        for way in [Way::Connect, Way::Listen] {
            run(row, way, wants, &body);
        }
    }
}

/// True if this system can run the model; prints the reason if not.
pub fn offered(row: &Row) -> bool {
    probe(row.model).inspect_err(|why| eprintln!("{} is not checked: {why}", row.name)).is_ok()
}

pub fn run(row: &'static Row, way: Way, wants: Wants, body: impl FnOnce(&Rig)) {
    let _case = Case(row.name, way);
    let before = descriptors();
    let rig = Rig::start(row, way, wants);
    body(&rig);
    rig.finish();
    assert_eq!(descriptors(), before, "descriptors were left open");
}

/// Waits for a condition of which nobody is notified, such as a counter.
pub fn wait_for(rig: &Rig, what: &str, so: impl Fn() -> bool) {
    let deadline = rig.clock.now().plus(WATCHDOG);
    while !so() {
        assert!(rig.clock.now() < deadline, "waited for {what} in vain");
        std::thread::yield_now();
    }
}
