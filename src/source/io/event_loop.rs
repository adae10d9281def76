//! The event loop (mio) that `nio` has one of and `reactors` several. Each runs on its own thread, `rxN-io-K`.
//!
//! Readiness is edge-triggered. A connection that became readable waits in the `ready` queue for its turn; a turn is one
//! vectored read. A read of a whole buffer or more puts the connection back at the end of the queue: while a fat stream
//! is read, more of it arrives, and going to sleep in between costs more than one read in vain. A shorter one has emptied
//! the socket and takes it out (epoll(7), question 9), so thin connections need no failing read to learn that. That rule
//! has two exceptions, an end or an error that was already announced and urgent bytes, at which a read stops short: then
//! the connection is read until the kernel has nothing more.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream as Stream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

use crate::error::{Error, Result};
use crate::memory::buffer_pool::BUFFER_BYTES;
use crate::metrics::ReceiverCounters;
use crate::sync::Arc;
use crate::sync::thread;
use crate::time::{Clock, Moment};

use super::accept::{ACCEPT_BACK_OFF, Accepted, Acceptor, Seat, Seats, close};
use super::inbox::{Asked, Handle, Inbox, Stage};
use super::replies::{AfterSend, Replies};
use super::{Closed, Flow, Handler, HandlerFactory, Options, Peer, ReadBuffers, Waker};

const WAKER: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

/// Peers accepted in one turn at most, so that a flood of them does not hold up reading.
const ACCEPTS_PER_TURN: usize = 64;

/// Starts the loop number `number`. With an acceptor it accepts peers too, as long as there are seats.
pub(super) fn start<H: HandlerFactory>(
    host: &H,
    number: usize,
    acceptor: Option<Acceptor>,
    seats: &Seats,
    options: &Options,
) -> Result<Handle> {
    let failed = |what: &str, err| Error::io(format!("{}: {what}", options.name), err);
    let poll = Poll::new().map_err(|err| failed("cannot make a poller", err))?;
    let waker = mio::Waker::new(poll.registry(), WAKER)
        .map_err(|err| failed("cannot make a waker", err))?;
    let wake: Waker = Arc::new(move || {
        // A waker fails only when its counter is full, and then the loop is already being woken.
        let _ = waker.wake();
    });
    let inbox = Inbox::new(Arc::clone(&wake));
    if let Some(acceptor) = &acceptor {
        for fd in acceptor.listeners() {
            let mut source = SourceFd(&fd.as_raw_fd());
            let registered = poll.registry().register(&mut source, LISTENER, Interest::READABLE);
            registered.map_err(|err| failed("cannot poll the listener", err))?;
        }
    }
    let event_loop = EventLoop {
        poll,
        handler: host.handler(wake),
        inbox: Arc::clone(&inbox),
        connections: Vec::new(),
        free: Vec::new(),
        ready: VecDeque::new(),
        buffers: ReadBuffers::new(&options.pool),
        acceptor,
        accepting: Accepting::Idle,
        seats: seats.clone(),
        reply_bytes_max: options.reply_bytes_max,
        counters: Arc::clone(&options.counters),
        clock: Arc::clone(&options.clock),
    };
    let name = format!("{}-io-{number}", options.name);
    let thread = thread::spawn(&name, &options.poison, move || event_loop.run())
        .map_err(|err| Error::io(format!("cannot start the thread `{name}`"), err))?;
    Ok(Handle::new(inbox, thread))
}

struct Connection<S> {
    stream: Stream,
    session: S,
    replies: Replies,
    asked: Arc<Asked>,
    /// It is in the `ready` queue.
    queued: bool,
    /// It must be read until the kernel has nothing more: a short read does not mean that the socket is empty.
    until_dry: bool,
    seat: Seat,
}

struct EventLoop<L: Handler> {
    poll: Poll,
    handler: L,
    inbox: Arc<Inbox>,
    connections: Vec<Option<Connection<L::Session>>>,
    free: Vec<usize>,
    ready: VecDeque<usize>,
    buffers: ReadBuffers,
    acceptor: Option<Acceptor>,
    /// Set while peers may be waiting, and while accepting waits for descriptors.
    accepting: Accepting,
    seats: Seats,
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

impl<L: Handler> EventLoop<L> {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let may_read = self.handler.ready();
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
            if self.take_posted() > Stage::Reading {
                break;
            }
            self.accept_some();
            self.read_some();
            self.handler.end_of_turn();
        }
        self.end(events);
    }

    /// The longest wait of the next poll: zero while a connection may be read.
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
                let ends = event.is_read_closed() || event.is_error() || event.is_priority();
                if ends && let Some(Some(connection)) = self.connections.get_mut(index) {
                    connection.until_dry = true;
                }
                if event.is_readable() || ends {
                    self.queue(index);
                }
                if event.is_writable() {
                    self.reply(index);
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

    /// Takes what other threads posted.
    fn take_posted(&mut self) -> Stage {
        let posted = self.inbox.take();
        for (stream, peer, seat) in posted.attach {
            self.open(stream, peer, seat);
        }
        for asked in posted.asked {
            if let Some(Some(connection)) = self.connections.get(asked.index)
                && Arc::ptr_eq(&connection.asked, &asked)
            {
                self.reply(asked.index);
            }
        }
        posted.stage
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
                Accepted::Peer(stream, address) => match self.seats.take_or_say() {
                    Ok(seat) => self.open(stream, Peer { address, dialled: None }, seat),
                    Err(err) => acceptor.refusals().refuse(address, &err),
                },
                Accepted::TurnedAway => {}
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

    fn open(&mut self, stream: TcpStream, peer: Peer, seat: Seat) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let asked = Asked::new(index);
        let session = self.handler.open(peer, asked.remote(&self.inbox));
        let mut stream = Stream::from_std(stream);
        let registered = register(self.poll.registry(), &mut stream, index);
        self.connections[index] = Some(Connection {
            stream,
            session,
            replies: Replies::new(self.reply_bytes_max),
            asked,
            queued: false,
            until_dry: false,
            seat,
        });
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
            if !self.handler.ready() {
                return;
            }
            let Some(index) = self.ready.pop_front() else { return };
            self.read(index);
        }
    }

    fn read(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        connection.queued = false;
        if !connection.replies.may_read(self.handler.disposition(&connection.session)) {
            // `reply` queues it once it may be read.
            return;
        }
        let most = self.handler.read_max();
        match self.buffers.read(&mut connection.stream, most) {
            Ok(0) => {
                connection.replies.peer_closed();
                self.reply(index);
            }
            Ok(len) => {
                let more = len >= BUFFER_BYTES.min(most) || connection.until_dry;
                self.counters.bytes.add(len as u64);
                match self.buffers.hand_over(&mut self.handler, &mut connection.session, len) {
                    Flow::Continue if more => self.queue(index),
                    Flow::Continue => {}
                    Flow::Close(why) => return self.refuse(index, why),
                }
                self.reply(index);
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => connection.until_dry = false,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => self.queue(index),
            Err(err) => self.close(index, Closed::Reset(err)),
        }
    }

    /// Closes at the session's wish, after the replies that it still has.
    fn refuse(&mut self, index: usize, why: String) {
        self.reply(index);
        self.close(index, Closed::Refused(why));
    }

    /// Sends what the session has to say, and does what follows from it.
    fn reply(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let Connection { replies, session, stream, .. } = connection;
        match replies.send(&mut self.handler, session, stream) {
            Err(err) => self.close(index, Closed::Reset(err)),
            Ok(AfterSend::Ends) => self.close(index, Closed::End),
            Ok(AfterSend::Resumes) => self.queue(index),
            Ok(AfterSend::Unchanged) => {}
        }
    }

    fn close(&mut self, index: usize, how: Closed) {
        if let Some(mut connection) = self.connections[index].take() {
            // Closing the socket takes it out of the poller as well; an error here changes nothing.
            let _ = self.poll.registry().deregister(&mut connection.stream);
            close(connection.stream, connection.seat);
            self.handler.closed(connection.session, how);
            self.free.push(index);
        }
    }

    /// Stops: hands over what was read, and closes every connection whose peer is owed nothing; the others stay until their
    /// replies are sent, or until nobody may stay.
    fn end(mut self, mut events: Events) {
        self.acceptor = None;
        self.buffers.release();
        self.handler.finish();
        loop {
            // Drain the inbox first: the message that stopped reading may be the last one we are sent.
            let stage = self.take_posted();
            (0..self.connections.len()).for_each(|index| self.leave(index, stage));
            if self.connections.iter().all(Option::is_none) {
                break;
            }
            match self.poll.poll(&mut events, None) {
                Err(err) if err.kind() != io::ErrorKind::Interrupted => {
                    panic!("polling failed: {err}")
                }
                _ => {}
            }
            events.iter().for_each(|event| self.note(event));
        }
        self.handler.finish();
    }

    /// Closes a connection for the stop, unless it may stay because it is owed something.
    fn leave(&mut self, index: usize, stage: Stage) {
        self.reply(index);
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let Connection { replies, session, stream, .. } = connection;
        if !replies.are_settled(self.handler.disposition(session)) && stage < Stage::Closing {
            return;
        }
        replies.farewell(&mut self.handler, session, stream);
        self.close(index, Closed::Stopped);
    }
}

/// Polls for everything at once: edges come only on a change, so the unused part costs nothing.
fn register(registry: &Registry, stream: &mut Stream, index: usize) -> io::Result<()> {
    let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
    registry.register(stream, Token(index), interest)
}
