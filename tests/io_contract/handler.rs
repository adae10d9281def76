//! The handler in the receiver's place, and the world in which it publishes what it got.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tidemill::internals::io::{
    Closed, Disposition, Flow, Handler, HandlerFactory, Peer, Remote, Waker,
};
use tidemill::internals::memory::buffer_pool::Buffer;
use tidemill::internals::sync::{Condvar, Mutex, MutexGuard};

use crate::WATCHDOG;
use crate::peer::{TestPeer, first_wrong};

/// Number of frozen buffers that a test handler keeps, to check that nobody writes into them again.
const HELD: usize = 48;

/// The records of the handlers, and the instructions of the test.
pub struct World {
    pub state: Mutex<State>,
    pub changed: Condvar,
}

#[derive(Default)]
pub struct State {
    pub seen: HashMap<SocketAddr, Seen>,
    wakers: Vec<Waker>,
    paused: bool,
    /// Bytes that arrived in this pause although `ready` had returned false.
    unasked: usize,
    pub unasked_max: usize,
    /// Lanes that were held back and not released since.
    pub held_back: usize,
    pub turns: u64,
    pub refuse_beyond: Option<u64>,
    /// The session to hold once it has received this many bytes.
    pub hold_at: Option<(SocketAddr, u64)>,
    pub farewell: &'static [u8],
    /// The most bytes that a read may bring, and the number of calls that asked for it.
    pub read_max: Option<usize>,
    pub asked: u64,
    /// Peers that were turned away; `None` for each time that accepting had to wait.
    pub refused: Vec<Option<SocketAddr>>,
}

/// The published part of one connection.
pub struct Seen {
    pub len: u64,
    pub wrong: Option<u64>,
    pub closed: Vec<&'static str>,
    pub remote: Remote,
    pub outbox: Vec<u8>,
    disposition: Disposition,
    /// Number of times that the model fetched replies that were there.
    pub fetched: u32,
}

impl World {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn tell<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `so` returns true.
    pub fn until(&self, what: &str, mut so: impl FnMut(&State) -> bool) {
        let mut state = self.state.lock();
        while !so(&state) {
            let late = self.changed.wait_for(&mut state, WATCHDOG).timed_out();
            let lens: Vec<u64> = state.seen.values().map(|seen| seen.len).collect();
            assert!(!late || so(&state), "waited for {what} in vain; lengths {lens:?}");
        }
    }

    pub fn until_len(&self, peer: &TestPeer, len: u64) {
        let what = format!("{len} bytes of {}", peer.address);
        self.until(&what, |state| state.seen.get(&peer.address).is_some_and(|s| s.len >= len));
    }

    pub fn until_closed(&self, peer: &TestPeer) -> &'static str {
        let closed =
            |state: &State| state.seen.get(&peer.address).is_some_and(|s| !s.closed.is_empty());
        self.until("the end of a connection", closed);
        self.lock().seen[&peer.address].closed[0]
    }

    pub fn set_paused(&self, paused: bool) {
        let wakers = self.tell(|state| {
            state.paused = paused;
            state.unasked = 0;
            state.wakers.clone()
        });
        if !paused {
            wakers.iter().for_each(|wake| wake());
        }
    }

    pub fn set_disposition(&self, peer: &TestPeer, disposition: Disposition) {
        self.tell(|state| {
            state.seen.get_mut(&peer.address).expect("open").disposition = disposition
        });
    }

    /// Gives a connection a reply to send, and asks for it from this thread.
    pub fn reply(&self, peer: &TestPeer, bytes: &[u8]) {
        let disposition = self.lock().seen[&peer.address].disposition;
        self.reply_as(peer, disposition, bytes);
    }

    /// The same; from then on the connection has this disposition.
    pub fn reply_as(&self, peer: &TestPeer, disposition: Disposition, bytes: &[u8]) {
        let remote = self.tell(|state| {
            let seen = state.seen.get_mut(&peer.address).expect("the connection is open");
            seen.disposition = disposition;
            seen.outbox.extend_from_slice(bytes);
            seen.remote.clone()
        });
        remote.ask();
    }
}

pub struct TestHost(pub Arc<World>);

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

pub struct TestLane {
    pub world: Arc<World>,
    /// Bytes received since the last turn: the connection, its length, and its first wrong byte.
    gathered: Vec<(SocketAddr, u64, Option<u64>)>,
    pub held: VecDeque<(Bytes, u8, u64)>,
    may_read: bool,
    reads: usize,
    /// The bytes that the current read may still bring.
    allowed: usize,
}

pub struct TestSession {
    pub address: SocketAddr,
    pub salt: Option<u8>,
    pub len: u64,
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
            disposition: Disposition::Open,
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
                state.seen.get_mut(&session.address).expect("open").disposition = Disposition::Held;
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

    /// A reply that was not fetched is due: a change of disposition comes with its reply, between any two calls of the
    /// model.
    fn disposition(&self, session: &TestSession) -> Disposition {
        let seen = &self.world.lock().seen[&session.address];
        match seen.disposition {
            Disposition::Held => Disposition::Held,
            disposition if seen.outbox.is_empty() => disposition,
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
