//! The loop of AIO: applies each completion to its connection, and pushes the next request. Runs on the thread `rxN-io-0`, which
//! makes the ring and is the only one to touch it; other threads post to the inbox. It knows nothing of the memory that the
//! kernel writes to: that is [`Ring`]'s.

mod stopping;

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::types::{Fd, Timespec};
use io_uring::{cqueue, opcode, squeue};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::error::{Error, Result};
use crate::memory::buffer_pool::BUFFER_BYTES;
use crate::metrics::ReceiverCounters;
use crate::source::io::accept::{
    ACCEPT_BACK_OFF, Accepted, Acceptor, Bell, Seat, Seats, close, prepare,
};
use crate::source::io::inbox::{Asked, Handle, Inbox, Stage};
use crate::source::io::replies::{AfterSend, Replies};
use crate::source::io::{Closed, Flow, Handler, HandlerFactory, IoDriver, Options, Peer, Waker};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mailbox};

use super::key::{GENERATIONS, Key, Kind};
use super::{COMPLETIONS, GROUP, Ring};

/// The most peers that are accepted in one turn.
const ACCEPTS_PER_TURN: usize = 64;

static BACK_OFF: Timespec = Timespec::new().nsec(ACCEPT_BACK_OFF.subsec_nanos());

static AT_ONCE: Timespec = Timespec::new();

struct Driver {
    seats: Seats,
    io_thread: Handle,
}

pub(in crate::source::io) fn start<H: HandlerFactory>(
    host: H,
    mut options: Options,
) -> Result<Box<dyn IoDriver>> {
    let seats = Seats::new(options.connections_max);
    let bell = Bell::new().map_err(|err| Error::io("cannot make an eventfd", err))?;
    let ringing = Arc::clone(&bell);
    let wake: Waker = Arc::new(move || ringing.ring());
    let inbox = Inbox::new(Arc::clone(&wake));
    let acceptor = Acceptor::of(&mut options);
    let name = format!("{}-io-0", options.name);
    let (taken, places) = (Arc::clone(&inbox), seats.clone());
    let poison = options.poison.clone();
    // The ring belongs to the thread that makes it, so that thread reports if it could be made.
    let made = Mailbox::new(1);
    let tell = made.clone();
    let run = move || match Ring::new(&options.pool) {
        Ok(ring) => {
            let mut io_loop = Loop {
                ring,
                handler: host.handler(wake),
                inbox: taken,
                bell,
                places: Vec::new(),
                free: Vec::new(),
                stalled: Vec::new(),
                acceptor,
                accepts_later: false,
                seats: places,
                reply_bytes_max: options.reply_bytes_max,
                counters: options.counters,
                stopped: false,
            };
            io_loop.begin();
            // The starter waits for exactly one answer.
            let _ = tell.try_send(Ok(()));
            io_loop.run();
        }
        Err(err) => {
            let _ = tell.try_send(Err(err));
        }
    };
    let thread: Thread = thread::spawn(&name, &poison, run)
        .map_err(|err| Error::io(format!("cannot start the thread `{name}`"), err))?;
    match made.recv() {
        Some(Err(err)) => Err(Error::io("cannot make an io_uring", err)),
        Some(Ok(())) | None => {
            Ok(Box::new(Driver { seats, io_thread: Handle::new(inbox, thread) }))
        }
    }
}

impl IoDriver for Driver {
    fn attach(&self, stream: TcpStream, peer: Peer) -> io::Result<()> {
        make_ready(&stream)?;
        self.io_thread.attach(stream, peer, self.seats.take_or_say()?)
    }

    fn stop(&self) {
        self.io_thread.stop();
    }

    fn close(&self) {
        self.io_thread.close();
    }

    fn threads(&self) -> Vec<Thread> {
        self.io_thread.thread().into_iter().collect()
    }
}

/// Makes the socket a blocking one: a receive on a non-blocking one would fail instead of waiting in the kernel.
fn make_ready(stream: &TcpStream) -> io::Result<()> {
    prepare(stream)?;
    stream.set_nonblocking(false)
}

/// Sends without waiting, although the socket is a blocking one.
struct Sender<'a>(&'a TcpStream);

impl io::Write for Sender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::send(self.0, bytes, flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Connection<S> {
    stream: TcpStream,
    session: S,
    replies: Replies,
    asked: Arc<Asked>,
    receiving: Receiving,
    /// A request waits for room to send.
    awaits_room: bool,
    seat: Seat,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Receiving {
    /// No request is under way.
    No,
    /// One is.
    Armed,
    /// One is, and its cancellation was requested.
    Ending,
    /// None is, until there are buffers or tokens again.
    Stalled,
}

/// A slot for a connection; the generation changes when one leaves it.
struct Place<S> {
    generation: u32,
    connection: Option<Connection<S>>,
}

struct Loop<L: Handler> {
    ring: Ring,
    handler: L,
    inbox: Arc<Inbox>,
    bell: Arc<Bell>,
    places: Vec<Place<L::Session>>,
    free: Vec<u32>,
    stalled: Vec<Key>,
    acceptor: Option<Acceptor>,
    /// A timeout is under way after which it accepts again.
    accepts_later: bool,
    seats: Seats,
    reply_bytes_max: usize,
    counters: Arc<ReceiverCounters>,
    /// Nothing more is read.
    stopped: bool,
}

impl<L: Handler> Loop<L> {
    fn begin(&mut self) {
        self.await_wake();
        let listeners = self.acceptor.iter().flat_map(Acceptor::listeners).count();
        (0..listeners).for_each(|listener| self.await_peers(listener));
        self.ring.submit();
    }

    fn run(mut self) {
        let mut completions = Vec::with_capacity(COMPLETIONS as usize);
        while self.take_posted() == Stage::Reading {
            if self.handler.ready() {
                self.go_on();
            }
            self.ring.wait();
            self.ring.completions(&mut completions);
            for completion in &completions {
                self.complete(completion);
            }
            self.handler.end_of_turn();
        }
        self.end(completions);
    }

    fn complete(&mut self, completion: &cqueue::Entry) {
        let key = Key::decode(completion.user_data());
        let more = cqueue::more(completion.flags());
        match key.kind {
            Kind::Wake => {
                self.bell.silence();
                if !more {
                    self.await_wake();
                }
            }
            Kind::Accept => {
                if !more {
                    self.await_peers(key.index as usize);
                }
                // If accepting waits for descriptors, it continues to wait.
                if !self.accepts_later {
                    self.accept();
                }
            }
            Kind::AcceptAgain => {
                self.accepts_later = false;
                self.accept();
            }
            Kind::Receive => self.received(key, completion),
            Kind::Writable => {
                if let Some(connection) = self.connection(key) {
                    connection.awaits_room = false;
                    self.reply(key);
                    self.receive(key);
                }
            }
            Kind::Ignored => {}
        }
    }

    fn connection(&mut self, key: Key) -> Option<&mut Connection<L::Session>> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation == key.generation { place.connection.as_mut() } else { None }
    }

    fn await_wake(&mut self) {
        let fd = Fd(self.bell.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, u32::from(PollFlags::IN.bits())).multi(true).build();
        self.ring.push(entry, Key::plain(Kind::Wake));
    }

    /// Takes what other threads posted.
    fn take_posted(&mut self) -> Stage {
        let posted = self.inbox.take();
        for (stream, peer, seat) in posted.attach {
            self.open(stream, peer, seat);
        }
        for asked in posted.asked {
            let index = u32::try_from(asked.index).expect("it was made from one");
            let generation = self.places[asked.index].generation;
            let key = Key { kind: Kind::Receive, generation, index };
            if self.connection(key).is_some_and(|found| Arc::ptr_eq(&found.asked, &asked)) {
                self.reply(key);
                // Its session may have been held.
                self.receive(key);
            }
        }
        posted.stage
    }

    /// The handler is ready: buffers go back to the kernel, and requests that ended for lack of them are armed again.
    fn go_on(&mut self) {
        self.ring.provide_held();
        for key in std::mem::take(&mut self.stalled) {
            if let Some(connection) = self.connection(key) {
                connection.receiving = Receiving::No;
                self.receive(key);
            }
        }
    }

    /// Makes the kernel report peers that wait at this listener.
    fn await_peers(&mut self, listener: usize) {
        let listeners = self.acceptor.iter().flat_map(Acceptor::listeners);
        let Some(fd) = listeners.map(|fd| fd.as_raw_fd()).nth(listener) else { return };
        let entry = opcode::PollAdd::new(Fd(fd), u32::from(PollFlags::IN.bits())).multi(true);
        let index = u32::try_from(listener).expect("a few");
        self.ring.push(entry.build(), Key { kind: Kind::Accept, generation: 0, index }.encode());
    }

    /// Accepts until nobody waits: the kernel reports waiting peers only once. After many, others have their turn.
    fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(acceptor) = &mut self.acceptor else { return };
            match acceptor.accept() {
                Accepted::Peer(stream, address) => match self.seat(&stream) {
                    Ok(seat) => self.open(stream, Peer { address, dialled: None }, seat),
                    Err(err) => self.refuse(address, &err),
                },
                Accepted::TurnedAway => {}
                Accepted::Nobody => return,
                Accepted::Exhausted => return self.accept_later(&BACK_OFF),
            }
        }
        self.accept_later(&AT_ONCE);
    }

    fn accept_later(&mut self, after: &'static Timespec) {
        self.accepts_later = true;
        self.ring.push(opcode::Timeout::new(after).build(), Key::plain(Kind::AcceptAgain));
    }

    /// Takes a seat for a connection whose receives wait in the kernel.
    fn seat(&self, stream: &TcpStream) -> io::Result<Seat> {
        stream.set_nonblocking(false)?;
        self.seats.take_or_say()
    }

    fn refuse(&self, peer: std::net::SocketAddr, why: &io::Error) {
        self.acceptor.iter().for_each(|acceptor| acceptor.refusals().refuse(peer, why));
    }

    fn open(&mut self, stream: TcpStream, peer: Peer, seat: Seat) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, connection: None });
            u32::try_from(self.places.len() - 1).expect("descriptors are fewer than that")
        });
        let asked = Asked::new(index as usize);
        let session = self.handler.open(peer, asked.remote(&self.inbox));
        let place = &mut self.places[index as usize];
        let key = Key { kind: Kind::Receive, generation: place.generation, index };
        place.connection = Some(Connection {
            stream,
            session,
            replies: Replies::new(self.reply_bytes_max),
            asked,
            receiving: Receiving::No,
            awaits_room: false,
            seat,
        });
        self.reply(key);
        self.receive(key);
    }

    /// Arms the receive request of a connection that should have one, and ends that of one that should not.
    fn receive(&mut self, key: Key) {
        let Some(place) = self.places.get_mut(key.index as usize) else { return };
        let known = place.generation == key.generation;
        let Some(connection) = place.connection.as_mut().filter(|_| known) else { return };
        let may_read = connection.replies.may_read(self.handler.disposition(&connection.session));
        let receiving = connection.receiving;
        if !may_read && receiving == Receiving::Armed {
            return self.end_receive(key);
        }
        if !may_read || self.stopped || receiving != Receiving::No {
            return;
        }
        let fd = Fd(connection.stream.as_raw_fd());
        let most = self.handler.read_max();
        // A limited read is a request for itself, armed when its turn comes; otherwise one request brings all there is.
        let limited = u32::try_from(most.clamp(1, BUFFER_BYTES)).ok().filter(|_| most < usize::MAX);
        let waits = limited.is_some() && !self.handler.ready();
        let Some(connection) = self.connection(key) else { return };
        connection.receiving = if waits { Receiving::Stalled } else { Receiving::Armed };
        if waits {
            return self.stalled.push(key);
        }
        let entry = match limited {
            Some(most) => limited_receive(fd, most),
            None => opcode::RecvMulti::new(fd, GROUP).build(),
        };
        self.ring.push(entry, Key { kind: Kind::Receive, ..key }.encode());
    }

    fn end_receive(&mut self, key: Key) {
        if let Some(connection) = self.connection(key) {
            connection.receiving = Receiving::Ending;
            let receive = Key { kind: Kind::Receive, ..key }.encode();
            self.ring.push(opcode::AsyncCancel::new(receive).build(), Key::plain(Kind::Ignored));
        }
    }

    fn received(&mut self, key: Key, completion: &cqueue::Entry) {
        let id = cqueue::buffer_select(completion.flags());
        if !cqueue::more(completion.flags())
            && let Some(connection) = self.connection(key)
        {
            connection.receiving = Receiving::No;
        }
        let outcome = usize::try_from(completion.result());
        let flow = match (outcome, id) {
            (Ok(len), Some(id)) if len > 0 => self.hand_over(key, id, len),
            _ => Flow::Continue,
        };
        if let Some(id) = id {
            self.ring.held.push(id);
            if self.handler.ready() {
                self.ring.provide_held();
            }
        }
        match (flow, outcome) {
            (Flow::Close(why), _) => {
                self.reply(key);
                self.close(key, Closed::Refused(why));
            }
            (Flow::Continue, Ok(0)) => self.peer_closed(key),
            (Flow::Continue, Ok(_)) => {
                self.reply(key);
                self.receive(key);
            }
            (Flow::Continue, Err(_)) => self.failed(key, completion.result().saturating_neg()),
        }
    }

    fn hand_over(&mut self, key: Key, id: u16, len: usize) -> Flow {
        let Some(place) = self.places.get_mut(key.index as usize) else { return Flow::Continue };
        let known = place.generation == key.generation;
        let Some(connection) = place.connection.as_mut().filter(|_| known) else {
            return Flow::Continue;
        };
        self.counters.bytes.add(len as u64);
        let buffer = &mut self.ring.buffers[usize::from(id)];
        self.handler.received(&mut connection.session, buffer, len)
    }

    fn failed(&mut self, key: Key, code: i32) {
        let Some(connection) = self.connection(key) else { return };
        match Errno::from_raw_os_error(code) {
            Errno::NOBUFS => {
                connection.receiving = Receiving::Stalled;
                self.stalled.push(key);
            }
            Errno::CANCELED | Errno::INTR | Errno::AGAIN => self.receive(key),
            _ => self.close(key, Closed::Reset(io::Error::from_raw_os_error(code))),
        }
    }

    /// The peer closed; it is still sent what it was promised.
    fn peer_closed(&mut self, key: Key) {
        if let Some(connection) = self.connection(key) {
            connection.replies.peer_closed();
            self.reply(key);
        }
    }

    /// Sends what the session has to say; what is left waits for room in the socket.
    fn reply(&mut self, key: Key) {
        let Some(place) = self.places.get_mut(key.index as usize) else { return };
        let known = place.generation == key.generation;
        let Some(connection) = place.connection.as_mut().filter(|_| known) else { return };
        let fd = connection.stream.as_raw_fd();
        let Connection { replies, session, stream, .. } = &mut *connection;
        match replies.send(&mut self.handler, session, &mut Sender(stream)) {
            Err(err) => return self.close(key, Closed::Reset(err)),
            Ok(AfterSend::Ends) => return self.close(key, Closed::End),
            // After each reply `receive` looks at it.
            Ok(AfterSend::Unchanged | AfterSend::Resumes) => {}
        }
        if connection.replies.are_unsent() && !connection.awaits_room {
            connection.awaits_room = true;
            let entry = opcode::PollAdd::new(Fd(fd), u32::from(PollFlags::OUT.bits())).build();
            self.ring.push(entry, Key { kind: Kind::Writable, ..key }.encode());
        }
    }

    fn close(&mut self, key: Key, how: Closed) {
        let Some(place) = self.places.get_mut(key.index as usize) else { return };
        if place.generation != key.generation {
            return;
        }
        let Some(connection) = place.connection.take() else { return };
        place.generation = (place.generation + 1) % GENERATIONS;
        // Requests name descriptors by number: none may be queued when a number becomes free for another connection.
        self.ring.submit();
        if connection.receiving != Receiving::No || connection.awaits_room {
            // A request under way keeps the socket open behind its descriptor; this ends both.
            let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        }
        close(connection.stream, connection.seat);
        self.handler.closed(connection.session, how);
        self.free.push(key.index);
    }
}

/// A request for at most `most` bytes, in a buffer that the kernel picks.
fn limited_receive(fd: Fd, most: u32) -> squeue::Entry {
    let receive = opcode::Recv::new(fd, std::ptr::null_mut(), most).buf_group(GROUP);
    receive.build().flags(squeue::Flags::BUFFER_SELECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_memory_of_an_idle_connection_is_small() {
        assert!(size_of::<Place<()>>() + size_of::<Asked>() <= 256);
    }
}
