//! NIO: one event loop (mio) for all connections, on the thread `rxN-io-0`.
//!
//! Readiness is edge-triggered. A connection that became readable waits in the `ready` queue for its turn; a turn is one
//! vectored read. A read that fills its buffers puts the connection back at the end of the queue, a shorter one has
//! emptied the socket and takes it out (epoll(7), question 9), so there is no failing read to learn that.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream as Stream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use std::os::fd::AsRawFd;

use crate::error::{Error, Result};
use crate::metrics::ReceiverCounters;
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Moment};

use super::accept::{ACCEPT_BACK_OFF, Accepted, Acceptor};
use super::{
    Closed, Flow, Host, IoDriver, Lane, Options, Peer, ReadBuffers, Remote, TURN_BYTES, send_some,
};

const WAKER: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

/// Peers accepted in one turn at most, so that a flood of them does not hold up reading.
const ACCEPTS_PER_TURN: usize = 64;

/// What other threads tell the loop.
struct Inbox {
    waker: mio::Waker,
    posted: Mutex<Posted>,
}

#[derive(Default)]
struct Posted {
    attach: Vec<(TcpStream, Peer)>,
    asked: Vec<usize>,
    /// Connections held and on their way, against the limit.
    connections: usize,
    stop: bool,
}

impl Inbox {
    fn wake(&self) {
        // A waker fails only when its counter is full, and then the loop is already being woken.
        let _ = self.waker.wake();
    }
}

struct Driver {
    inbox: Arc<Inbox>,
    connections_max: usize,
    thread: Mutex<Option<Thread>>,
}

pub(super) fn start<H: Host>(host: H, options: Options) -> Result<Box<dyn IoDriver>> {
    let failed = |what: &str, err| Error::io(format!("{}: {what}", options.name), err);
    let poll = Poll::new().map_err(|err| failed("cannot make a poller", err))?;
    let waker = mio::Waker::new(poll.registry(), WAKER)
        .map_err(|err| failed("cannot make a waker", err))?;
    let inbox = Arc::new(Inbox { waker, posted: Mutex::new(Posted::default()) });
    if let Some(listener) = &options.listener {
        let fd = listener.as_raw_fd();
        let registered = poll.registry().register(&mut SourceFd(&fd), LISTENER, Interest::READABLE);
        registered.map_err(|err| failed("cannot poll the listener", err))?;
    }
    let wakes = Arc::clone(&inbox);
    let lane = host.lane(Arc::new(move || wakes.wake()));
    let name = format!("{}-io-0", options.name);
    let (poison, connections_max) = (options.poison.clone(), options.connections_max);
    let event_loop = EventLoop::new(poll, lane, Arc::clone(&inbox), options);
    let thread = thread::spawn(&name, &poison, move || event_loop.run());
    let thread =
        thread.map_err(|err| Error::io(format!("cannot start the thread `{name}`"), err))?;
    Ok(Box::new(Driver { inbox, connections_max, thread: Mutex::new(Some(thread)) }))
}

impl IoDriver for Driver {
    fn attach(&self, stream: TcpStream, peer: Peer) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let mut posted = self.inbox.posted.lock();
        if posted.stop {
            return Err(io::Error::other("the receiver stops"));
        }
        if posted.connections >= self.connections_max {
            return Err(io::Error::other(format!(
                "connections_max = {} is reached",
                self.connections_max
            )));
        }
        posted.connections += 1;
        posted.attach.push((stream, peer));
        drop(posted);
        self.inbox.wake();
        Ok(())
    }

    fn stop(&self) {
        self.inbox.posted.lock().stop = true;
        self.inbox.wake();
    }

    fn threads(&self) -> Vec<Thread> {
        self.thread.lock().take().into_iter().collect()
    }
}

struct Connection<S> {
    stream: Stream,
    session: S,
    /// Reply bytes that the socket did not take yet.
    out: Vec<u8>,
    /// Whether it is in the `ready` queue.
    queued: bool,
}

struct EventLoop<L: Lane> {
    poll: Poll,
    lane: L,
    inbox: Arc<Inbox>,
    connections: Vec<Option<Connection<L::Session>>>,
    free: Vec<usize>,
    ready: VecDeque<usize>,
    buffers: ReadBuffers,
    acceptor: Option<Acceptor>,
    /// Set while peers may be waiting, and while accepting waits for descriptors.
    accepting: Accepting,
    connections_max: usize,
    reply_bytes_max: usize,
    counters: Arc<ReceiverCounters>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone, Copy, PartialEq)]
enum Accepting {
    /// Until the listener becomes readable.
    Idle,
    /// Peers may be waiting.
    Busy,
    /// Not before this moment.
    Waiting(Moment),
}

impl<L: Lane> EventLoop<L> {
    fn new(poll: Poll, lane: L, inbox: Arc<Inbox>, options: Options) -> Self {
        EventLoop {
            poll,
            lane,
            inbox,
            connections: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            buffers: ReadBuffers::new(&options.pool),
            acceptor: options.listener.map(Acceptor::new),
            accepting: Accepting::Idle,
            connections_max: options.connections_max,
            reply_bytes_max: options.reply_bytes_max,
            counters: options.counters,
            clock: options.clock,
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let may_read = self.lane.ready();
            let timeout = self.timeout(may_read);
            if timeout != Some(Duration::ZERO) {
                self.buffers.release();
            }
            match self.poll.poll(&mut events, timeout) {
                Err(err) if err.kind() != io::ErrorKind::Interrupted => {
                    panic!("polling failed: {err}")
                }
                _ => {}
            }
            for event in &events {
                self.note(event);
            }
            if !self.take_posted() {
                break;
            }
            self.accept_some();
            self.read_some();
            self.lane.turn();
        }
        self.end();
    }

    /// How long the next poll may wait: not at all while a connection may be read.
    fn timeout(&self, may_read: bool) -> Option<Duration> {
        if (may_read && !self.ready.is_empty()) || self.accepting == Accepting::Busy {
            return Some(Duration::ZERO);
        }
        match self.accepting {
            Accepting::Waiting(until) => {
                Some(until.since(self.clock.now()).max(Duration::from_millis(1)))
            }
            _ => None,
        }
    }

    fn note(&mut self, event: &Event) {
        match event.token() {
            WAKER => {}
            LISTENER if self.accepting == Accepting::Idle => self.accepting = Accepting::Busy,
            LISTENER => {}
            Token(index) => {
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.queue(index);
                }
                if event.is_writable() {
                    self.flush(index);
                }
            }
        }
    }

    fn queue(&mut self, index: usize) {
        if let Some(Some(connection)) = self.connections.get_mut(index)
            && !connection.queued
        {
            connection.queued = true;
            self.ready.push_back(index);
        }
    }

    /// Takes what other threads posted; false at the stop.
    fn take_posted(&mut self) -> bool {
        let mut posted = self.inbox.posted.lock();
        let (attach, asked) =
            (std::mem::take(&mut posted.attach), std::mem::take(&mut posted.asked));
        let stop = posted.stop;
        drop(posted);
        for (stream, peer) in attach {
            self.open(stream, peer);
        }
        for index in asked {
            self.reply(index);
        }
        !stop
    }

    fn accept_some(&mut self) {
        if let Accepting::Waiting(until) = self.accepting
            && self.clock.now() >= until
        {
            self.accepting = Accepting::Busy;
        }
        if self.accepting != Accepting::Busy {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(acceptor) = &mut self.acceptor else { return };
            match acceptor.accept() {
                Accepted::Peer(stream, address) => self.accepted(stream, address),
                Accepted::TurnedAway => self.counters.refused.add(1),
                Accepted::Nobody => {
                    self.accepting = Accepting::Idle;
                    return;
                }
                Accepted::Exhausted => {
                    self.accepting = Accepting::Waiting(self.clock.now().plus(ACCEPT_BACK_OFF));
                    return;
                }
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream, address: SocketAddr) {
        let mut posted = self.inbox.posted.lock();
        let full = posted.connections >= self.connections_max;
        if !full {
            posted.connections += 1;
        }
        drop(posted);
        if full || stream.set_nonblocking(true).is_err() {
            self.counters.refused.add(1);
            return;
        }
        self.open(stream, Peer { address, dialled: None });
    }

    fn open(&mut self, stream: TcpStream, peer: Peer) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let inbox = Arc::clone(&self.inbox);
        let remote = Remote::new(move || {
            inbox.posted.lock().asked.push(index);
            inbox.wake();
        });
        let session = self.lane.open(peer, remote);
        let mut stream = Stream::from_std(stream);
        let registered = register(self.poll.registry(), &mut stream, index);
        self.connections[index] =
            Some(Connection { stream, session, out: Vec::new(), queued: false });
        match registered {
            // What the peer sent before the registration gives no edge of its own on every kernel; one read finds out.
            Ok(()) => self.queue(index),
            Err(err) => self.close(index, Closed::Reset(err)),
        }
        self.reply(index);
    }

    /// One turn for each connection that is ready now.
    fn read_some(&mut self) {
        for _ in 0..self.ready.len() {
            if !self.lane.ready() {
                return;
            }
            let Some(index) = self.ready.pop_front() else { return };
            self.read(index);
        }
    }

    fn read(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        connection.queued = false;
        if connection.out.len() > self.reply_bytes_max {
            // Read again once the peer has taken its replies: `flush` queues it.
            return;
        }
        match self.buffers.read(&mut connection.stream) {
            Ok(0) => self.close(index, Closed::End),
            Ok(len) => {
                self.counters.bytes.add(len as u64);
                match self.buffers.hand_over(&mut self.lane, &mut connection.session, len) {
                    Flow::Continue if len == TURN_BYTES => self.queue(index),
                    Flow::Continue => {}
                    Flow::Close(why) => return self.refuse(index, why),
                }
                self.reply(index);
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Err(err) if err.kind() == io::ErrorKind::Interrupted => self.queue(index),
            Err(err) => self.close(index, Closed::Reset(err)),
        }
    }

    /// Closes at the session's wish, after the replies that it still has.
    fn refuse(&mut self, index: usize, why: String) {
        self.reply(index);
        self.close(index, Closed::Refused(why));
    }

    fn reply(&mut self, index: usize) {
        if let Some(Some(connection)) = self.connections.get_mut(index) {
            self.lane.replies(&mut connection.session, &mut connection.out);
            if !connection.out.is_empty() {
                self.flush(index);
            }
        }
    }

    fn flush(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let held = connection.out.len() > self.reply_bytes_max;
        match send_some(&mut connection.stream, &mut connection.out) {
            Err(err) => self.close(index, Closed::Reset(err)),
            Ok(()) if held && connection.out.len() <= self.reply_bytes_max => self.queue(index),
            Ok(()) => {}
        }
    }

    fn close(&mut self, index: usize, how: Closed) {
        if let Some(mut connection) = self.connections[index].take() {
            // Closing the socket takes it out of the poller as well; an error here changes nothing.
            let _ = self.poll.registry().deregister(&mut connection.stream);
            drop(connection.stream);
            self.lane.closed(connection.session, how);
            self.free.push(index);
            self.inbox.posted.lock().connections -= 1;
        }
    }

    /// The stop: everything read is handed over, every connection closed.
    fn end(mut self) {
        self.acceptor = None;
        for index in 0..self.connections.len() {
            self.close(index, Closed::Stopped);
        }
        self.buffers.release();
        self.lane.finish();
    }
}

/// Polls for reading and writing at once: edges come only on a change, so the unused half costs nothing.
fn register(registry: &Registry, stream: &mut Stream, index: usize) -> io::Result<()> {
    registry.register(stream, Token(index), Interest::READABLE | Interest::WRITABLE)
}
