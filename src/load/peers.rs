//! The connections of a load: dialling or accepting them, which ones are served and which are idle, and which can take
//! bytes now. All sockets are non-blocking; the load's thread owns them. It does not know what is sent.
//!
//! ```text
//!  listen queue ──▶ slots (at most `connections`) ──▶ ready ──▶ written until the kernel refuses ──┐
//!       │                                                ▲                                         │
//!       └────────▶ idle (never written)                  └────────── the kernel has room again ◀───┘
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::piece::{Body, Piece};
use super::relp::Session;
use super::{Framing, LoadOptions, Target};
use crate::net::listen::{self as net, Bound};
use crate::net::lookup::Names;
use crate::sync::Arc;
use crate::wording::{by_number, count};
use crate::{Error, Result};

const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);

/// Kernel events taken per wake-up; the others come with the next.
const EVENTS_PER_WAKE: usize = 1024;

/// Peers that may wait in the listen queue; more of them dial again.
const LISTEN_QUEUE: i32 = 4096;

/// The longest time for one dial.
const DIAL_MAX: Duration = Duration::from_secs(10);

/// Descriptors that the process needs for other things than this load's connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// One served connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    pub(super) addr: SocketAddr,
    /// The piece that is being sent to it.
    pub(super) piece: Option<Piece>,
    /// The conversation, with a peer that answers.
    pub(super) session: Option<Session>,
    /// True if the writing half was closed.
    pub(super) half_closed: bool,
    /// True while it is in the queue of the ready ones.
    queued: bool,
}

/// Every connection of a load, and the poll that watches them.
#[derive(Debug)]
pub(super) struct Peers {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    /// The listeners where peers dial in; empty when dialling.
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    /// The addresses to dial; empty when listening.
    dial: Vec<SocketAddr>,
    framing: Framing,
    /// A served connection's slot is its token.
    slots: Vec<Option<Peer>>,
    idle: Vec<(TcpStream, SocketAddr)>,
    /// Slots that nobody uses.
    free: Vec<usize>,
    /// Slots that can take a new piece.
    ready: VecDeque<usize>,
    /// Slots in the middle of a piece that can go on.
    resumable: VecDeque<usize>,
    /// Slots whose peers may have answered something.
    answering: VecDeque<usize>,
    live: usize,
    idle_wanted: usize,
}

impl Peers {
    /// Binds the listening socket, or finds where to dial. Nobody is connected yet.
    pub(super) fn open(options: &LoadOptions) -> Result<Self> {
        let LoadOptions { ref target, framing, connections, idle, .. } = *options;
        allow_descriptors(connections.saturating_add(idle))?;
        let system = |err| Error::io("cannot watch sockets", err);
        let poll = Poll::new().map_err(system)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(system)?);
        let (bound, dial) = match target {
            Target::Listen(addr) => (listen(addr)?, Vec::new()),
            Target::Connect(addr) => (Bound::default(), resolve(addr)?),
        };
        let listeners = bound.listeners.into_iter().map(TcpListener::from_std);
        let mut listeners: Vec<TcpListener> = listeners.collect();
        for listener in &mut listeners {
            let watched = poll.registry().register(listener, LISTENER, Interest::READABLE);
            watched.map_err(system)?;
        }
        let slots = std::iter::repeat_with(|| None).take(connections).collect();
        Ok(Peers {
            poll,
            events: Events::with_capacity(EVENTS_PER_WAKE),
            waker,
            listeners,
            addresses: bound.addresses,
            dial,
            framing,
            slots,
            idle: Vec::new(),
            free: (0..connections).rev().collect(),
            ready: VecDeque::new(),
            resumable: VecDeque::new(),
            answering: VecDeque::new(),
            live: 0,
            idle_wanted: idle,
        })
    }

    /// Wakes a wait, from any thread.
    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// The addresses on which it listens.
    pub(super) fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// True if peers dial in.
    pub(super) fn is_listening(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// True if the load has all the connections it was told to have.
    pub(super) fn is_complete(&self) -> bool {
        self.live == self.slots.len() && self.idle.len() == self.idle_wanted
    }

    /// Number of connections that are served now.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Number of connections that are held open and never written to.
    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Dials one more connection, a served one if any is missing.
    pub(super) fn dial_one(&mut self) -> Result<SocketAddr> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for addr in &self.dial {
            match std::net::TcpStream::connect_timeout(addr, DIAL_MAX) {
                Ok(stream) => {
                    let addr = *addr;
                    stream
                        .set_nonblocking(true)
                        .map_err(|err| Error::io(format!("cannot use {addr}"), err))?;
                    self.admit(TcpStream::from_std(stream), addr)?;
                    return Ok(addr);
                }
                Err(err) => last = err,
            }
        }
        let names: Vec<String> = self.dial.iter().map(ToString::to_string).collect();
        Err(Error::io(format!("cannot connect to {}", names.join(", ")), last))
    }

    /// Accepts those who wait while there is room for them; the others stay in the listen queue.
    pub(super) fn accept_waiting(&mut self, mut accepted: impl FnMut(Result<SocketAddr>)) {
        let mut at = 0;
        while !self.is_complete() {
            let Some(listener) = self.listeners.get(at) else { return };
            match listener.accept() {
                Ok((stream, addr)) => accepted(self.admit(stream, addr).map(|()| addr)),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => at += 1,
                Err(err) if is_passing(&err) => {}
                Err(err) => return accepted(Err(Error::io("cannot accept a peer", err))),
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, addr: SocketAddr) -> Result<()> {
        // Small paced writes must leave at once; a kernel that cannot do it sends them all the same.
        let _ = stream.set_nodelay(true);
        match self.free.pop() {
            Some(slot) => self.serve(slot, stream, addr, self.framing),
            None => {
                self.idle.push((stream, addr));
                Ok(())
            }
        }
    }

    fn serve(
        &mut self,
        slot: usize,
        mut stream: TcpStream,
        addr: SocketAddr,
        framing: Framing,
    ) -> Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let watched = self.poll.registry().register(&mut stream, Token(slot), both);
        watched.map_err(|err| Error::io(format!("cannot watch the connection to {addr}"), err))?;
        let (piece, session) = match framing {
            Framing::Lines => (None, None),
            Framing::Relp { window } => {
                let (session, offers) = Session::begin(window);
                (Some(Piece::new(Body::Own(offers), 0, 0)), Some(session))
            }
        };
        let (half_closed, queued) = (false, false);
        self.slots[slot] = Some(Peer { stream, addr, piece, session, half_closed, queued });
        self.live += 1;
        self.requeue(slot);
        Ok(())
    }

    /// From now on the idle connections are watched like the others, so that their ends are seen.
    pub(super) fn watch_idle(&mut self) -> Result<()> {
        self.listeners.clear();
        for (stream, addr) in std::mem::take(&mut self.idle) {
            self.slots.push(None);
            self.serve(self.slots.len() - 1, stream, addr, Framing::Lines)?;
        }
        Ok(())
    }

    /// The next connection that can take a new piece, in turn.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        take_next(&mut self.ready, &mut self.slots)
    }

    /// The next connection that can go on with its piece.
    pub(super) fn next_resumable(&mut self) -> Option<usize> {
        take_next(&mut self.resumable, &mut self.slots)
    }

    /// The next connection with something to be read, where answers are expected.
    pub(super) fn next_answering(&mut self) -> Option<usize> {
        self.answering.pop_front()
    }

    /// True if some connection can take a new piece.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Puts a connection at the end of its queue.
    pub(super) fn requeue(&mut self, slot: usize) {
        if let Some(queue) = self.queue_of(slot) {
            queue.push_back(slot);
        }
    }

    /// Puts a connection at the head of its queue: it was its turn, and there was nothing to do.
    pub(super) fn keep_turn(&mut self, slot: usize) {
        if let Some(queue) = self.queue_of(slot) {
            queue.push_front(slot);
        }
    }

    /// The queue that a connection belongs into, unless it is queued already or has no room for a piece.
    fn queue_of(&mut self, slot: usize) -> Option<&mut VecDeque<usize>> {
        let peer = self.slots.get_mut(slot)?.as_mut().filter(|peer| !peer.queued)?;
        if peer.piece.is_none() && peer.room() == 0 {
            return None;
        }
        peer.queued = true;
        Some(if peer.piece.is_some() { &mut self.resumable } else { &mut self.ready })
    }

    /// Puts every connection in its queue.
    pub(super) fn requeue_all(&mut self) {
        (0..self.slots.len()).for_each(|slot| self.requeue(slot));
    }

    /// The connection in a slot that [`next_ready`](Peers::next_ready) gave.
    pub(super) fn peer(&mut self, slot: usize) -> Option<&mut Peer> {
        self.slots[slot].as_mut()
    }

    /// Every served connection.
    pub(super) fn all(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter().flatten()
    }

    /// Every served connection, to change it.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.slots.iter_mut().flatten()
    }

    /// Closes a connection and gives back what was left of it.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Peer> {
        let peer = self.slots[slot].take()?;
        self.free.push(slot);
        self.live -= 1;
        Some(peer)
    }

    /// Waits until a socket is ready, a peer dials in, the waker is called, or `timeout` has passed: none waits for
    /// ever, zero only looks.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => return Ok(()),
            done => done.map_err(|err| Error::io("cannot wait for sockets", err))?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            // The listener and the waker have no slot.
            let slot = event.token().0;
            self.requeue(slot);
            let peer = self.slots.get(slot).and_then(Option::as_ref);
            if peer.is_some_and(|peer| peer.session.is_some()) {
                self.answering.push_back(slot);
            }
        }
        self.events = events;
        Ok(())
    }
}

impl Peer {
    /// Number of lines that it can take.
    pub(super) fn room(&self) -> u64 {
        self.session.as_ref().map_or(u64::MAX, |session| session.room() as u64)
    }
}

/// A slot may have been freed while it was queued, and even filled again: only one that is queued now counts.
fn take_next(queue: &mut VecDeque<usize>, slots: &mut [Option<Peer>]) -> Option<usize> {
    loop {
        let slot = queue.pop_front()?;
        if let Some(peer) = slots[slot].as_mut().filter(|peer| peer.queued) {
            peer.queued = false;
            return Some(slot);
        }
    }
}

/// Errors of an accept that concern only the peer that was to be accepted.
fn is_passing(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

fn resolve(addr: &str) -> Result<Vec<SocketAddr>> {
    let found = addr
        .to_socket_addrs()
        .map_err(|err| Error::io(format!("cannot find `{addr}` (HOST:PORT)"), err))?;
    Ok(found.collect())
}

fn listen(addr: &str) -> Result<Bound> {
    net::listen(&Names::of_system(), addr, LISTEN_QUEUE).map_err(|not| {
        let at = not.address.map_or_else(|| addr.to_owned(), |at| at.to_string());
        Error::io(format!("cannot listen on {at}"), not.err)
    })
}

/// Raises the soft limit of open files to the hard one if the connections need it.
fn allow_descriptors(connections: usize) -> Result<()> {
    let needed = (connections as u64).saturating_add(OTHER_DESCRIPTORS);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|now| now >= needed) {
        return Ok(());
    }
    if let Some(hard) = limit.maximum.filter(|&hard| hard < needed) {
        let remedy = "raise it with `ulimit -Hn` or in limits.conf";
        return Err(Error::Failed(format!(
            "{} {} {needed} files, the limit is {hard}: {remedy}",
            count(connections, "connection"),
            by_number(connections, "needs", "need")
        )));
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).map_err(
        |err| Error::io(format!("cannot raise the limit of open files to {needed}"), err.into()),
    )
}
