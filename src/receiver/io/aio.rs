//! AIO: io_uring completions, on the thread `rxN-io-0`: multishot receive over provided buffers.
//!
//! ```text
//!  pool ─lease─▶ buffers[id] ─provide─▶ kernel ─completion(id, len)─▶ lane (freezes or copies) ─▶ provide again
//! ```
//! The kernel picks the buffer. A frozen one goes to the lane without a copy, and a fresh one takes its place. While
//! the lane is not ready, used buffers are held back: the kernel runs out of them, answers ENOBUFS, and the receive
//! requests that ended with it are armed again once the lane is ready. So what was in flight is at most all buffers.
//! Peers are accepted by hand when a multishot poll of a listener says so: a multishot accept does not tell who was accepted, and
//! a peer that is gone by then cannot be asked. It would save no system call, since asking is one.
//! The ring is made and used on one thread. `unsafe` is in [`Ring`] alone.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::error::{Error, Result};
use crate::metrics::ReceiverCounters;
use crate::slab::{BUFFER_BYTES, Buffer, Pool};
use crate::sync::kernel::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mailbox};

use super::accept::{ACCEPT_BACK_OFF, Accepted, Acceptor, Bell, Seat, Seats, close, prepare};
use super::inbox::{Asked, Handle, Inbox, Stage};
use super::{
    Closed, Flow, Host, IoDriver, Lane, Options, Peer, Standing, Waker, send_all, send_some,
};

/// Buffers that the kernel may fill; 64 KiB each was the one size ahead of plain reads. A power of two.
const BUFFERS: u16 = 128;

/// The most that can be in flight, in bytes.
pub(super) const IN_FLIGHT_MAX: usize = BUFFERS as usize * BUFFER_BYTES;

/// Submissions that may wait for the next system call.
const SUBMISSIONS: u32 = 256;

/// Completions that the kernel may queue before it has to keep them aside.
const COMPLETIONS: u32 = 4096;

/// Peers accepted by hand in one turn at most.
const ACCEPTS_PER_TURN: usize = 64;

/// The only group of buffers in a ring.
const GROUP: u16 = 0;

static BACK_OFF: Timespec = Timespec::new().nsec(ACCEPT_BACK_OFF.subsec_nanos());

static AT_ONCE: Timespec = Timespec::new();

/// What a completion is of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Wake,
    /// Peers may wait.
    Accept,
    /// Time to look whether peers wait.
    AcceptAgain,
    Receive,
    Writable,
    /// Nothing that anybody waits for.
    Ignored,
}

/// Names a request: its kind, and the connection with the generation of its place, so that what comes late is known.
///
/// Bits 0 to 31 the index, 32 to 55 the generation, 56 to 63 the kind.
#[derive(Clone, Copy)]
struct Key {
    kind: Kind,
    generation: u32,
    index: u32,
}

/// Generations are told apart in 24 bits.
const GENERATIONS: u32 = 1 << 24;

impl Key {
    fn plain(kind: Kind) -> u64 {
        Key { kind, generation: 0, index: 0 }.encode()
    }

    fn encode(self) -> u64 {
        let kind: u64 = match self.kind {
            Kind::Wake => 0,
            Kind::Accept => 1,
            Kind::AcceptAgain => 2,
            Kind::Receive => 3,
            Kind::Writable => 4,
            Kind::Ignored => 5,
        };
        kind << 56 | u64::from(self.generation % GENERATIONS) << 32 | u64::from(self.index)
    }

    fn decode(word: u64) -> Key {
        let bytes = word.to_le_bytes();
        let kind = match bytes[7] {
            0 => Kind::Wake,
            1 => Kind::Accept,
            2 => Kind::AcceptAgain,
            3 => Kind::Receive,
            4 => Kind::Writable,
            _ => Kind::Ignored,
        };
        let generation = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], 0]);
        Key {
            kind,
            generation,
            index: u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        }
    }
}

/// A buffer as the kernel reads it in the shared table: `struct io_uring_buf`.
#[derive(Default)]
#[repr(C)]
struct Provided {
    address: AtomicU64,
    len: AtomicU32,
    id: AtomicU16,
    /// In the first entry: how many buffers were ever provided, modulo 2^16. In the others it means nothing.
    tail: AtomicU16,
}

/// The table of provided buffers, shared with the kernel, which only reads it. It must lie at a page's start.
#[repr(C, align(4096))]
struct Table([Provided; BUFFERS as usize]);

/// The ring with its buffers: everything that the kernel may touch, and the order in which it is taken back.
struct Ring {
    uring: IoUring,
    table: Box<Table>,
    /// By id. One that the kernel holds is not touched here.
    buffers: Vec<Buffer>,
    /// Ids that wait to be provided again.
    held: Vec<u16>,
    tail: u16,
}

impl Ring {
    fn new(pool: &Arc<Pool>) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let mut ring = Ring {
            uring,
            table: Box::new(Table(std::array::from_fn(|_| Provided::default()))),
            buffers: (0..BUFFERS).map(|_| pool.buffer()).collect(),
            held: (0..BUFFERS).collect(),
            tail: 0,
        };
        ring.register()?;
        ring.provide_held();
        Ok(ring)
    }

    #[expect(unsafe_code, reason = "the kernel is given an address to read")]
    fn register(&mut self) -> io::Result<()> {
        let address = self.table.0.as_ptr().addr() as u64;
        // SAFETY: the table is page-aligned, has `BUFFERS` entries laid out as `io_uring_buf`, and lives on the heap
        // until `drop` has ended every request; the kernel only reads it, and we write it through atomics.
        unsafe { self.uring.submitter().register_buf_ring_with_flags(address, BUFFERS, GROUP, 0) }
    }

    /// Gives the kernel every buffer that was held back.
    fn provide_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.held) {
            let entry = &self.table.0[usize::from(self.tail % BUFFERS)];
            let space = self.buffers[usize::from(id)].space();
            let len = u32::try_from(space.len()).expect("a buffer is 64 KiB");
            entry.address.store(space.as_mut_ptr().expose_provenance() as u64, Ordering::Relaxed);
            entry.len.store(len, Ordering::Relaxed);
            entry.id.store(id, Ordering::Relaxed);
            self.tail = self.tail.wrapping_add(1);
        }
        // The kernel reads the tail first and then the entries below it.
        self.table.0[0].tail.store(self.tail, Ordering::Release);
    }

    /// Queues a request. No request here names memory of ours: the kernel picks buffers from the table.
    #[expect(unsafe_code, reason = "a request names descriptors and memory")]
    fn push(&mut self, entry: squeue::Entry, key: u64) {
        let entry = entry.user_data(key);
        loop {
            // SAFETY: the descriptors in it are open, and closed only after a `submit` (see `Loop::close`); the only
            // addresses, of times to wait, are static; receives write only into provided buffers, which outlive them.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.submit();
        }
    }

    /// Hands queued requests to the kernel, without waiting.
    fn submit(&mut self) {
        if !self.uring.submission().is_empty() {
            check(self.uring.submit());
        }
    }

    /// Submits, and waits for a completion.
    fn wait(&mut self) {
        check(self.uring.submit_and_wait(1));
    }

    /// The completions that are there.
    fn completions(&mut self, into: &mut Vec<cqueue::Entry>) {
        into.clear();
        into.extend(self.uring.completion());
    }

    /// Ends every request. After that the kernel touches no buffer any more.
    fn cancel_all(&mut self) -> io::Result<()> {
        self.submit();
        match self.uring.submitter().register_sync_cancel(None, CancelBuilder::any()) {
            // Nothing was under way.
            Err(err) if err.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
            ended => ended,
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let ended =
            self.cancel_all().and_then(|()| self.uring.submitter().unregister_buf_ring(GROUP));
        if ended.is_err() {
            // Memory that the kernel may still write to is never given back.
            std::mem::forget(std::mem::take(&mut self.buffers));
        }
    }
}

/// A wait that was interrupted, or that first wants completions to be taken, is a wake-up like any other.
fn check(entered: io::Result<usize>) {
    if let Err(err) = entered {
        let expected = [Errno::INTR, Errno::BUSY, Errno::AGAIN].map(Errno::raw_os_error);
        assert!(
            err.raw_os_error().is_some_and(|code| expected.contains(&code)),
            "io_uring_enter failed: {err}"
        );
    }
}

/// Whether this system offers what the model needs; if not, why.
pub(super) fn probe() -> Result<(), String> {
    let pool = Pool::new(crate::slab::Account::new(0));
    Ring::new(&pool).map(drop).map_err(|err| refusal(&err))
}

fn refusal(err: &io::Error) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let kernel = read("/proc/sys/kernel/osrelease");
    let why = match err.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => match &*read("/proc/sys/kernel/io_uring_disabled") {
            "2" => "it is switched off by the sysctl kernel.io_uring_disabled = 2".to_owned(),
            "1" => "the sysctl kernel.io_uring_disabled = 1 allows it only to privileged \
                    processes and the group in kernel.io_uring_group"
                .to_owned(),
            _ => "a seccomp filter or security module forbids it, as default containers do; \
                  allow the io_uring system calls"
                .to_owned(),
        },
        Some(Errno::NOSYS) => {
            format!("the kernel ({kernel}) was built without it, or a seccomp filter hides it")
        }
        Some(Errno::INVAL) => format!("the kernel ({kernel}) is older than 6.1"),
        Some(Errno::NOMEM) => "the limit of locked memory (RLIMIT_MEMLOCK) is too low".to_owned(),
        _ => "the system refused it".to_owned(),
    };
    format!("io_uring cannot be used: {why} ({err})")
}

struct Driver {
    seats: Seats,
    io_thread: Handle,
}

pub(super) fn start<H: Host>(host: H, mut options: Options) -> Result<Box<dyn IoDriver>> {
    let seats = Seats::new(options.connections_max);
    let bell = Bell::new().map_err(|err| Error::io("cannot make an eventfd", err))?;
    let ringing = Arc::clone(&bell);
    let wake: Waker = Arc::new(move || ringing.ring());
    let inbox = Inbox::new(Arc::clone(&wake));
    let acceptor = Acceptor::of(&mut options);
    let name = format!("{}-io-0", options.name);
    let (taken, places) = (Arc::clone(&inbox), seats.clone());
    let poison = options.poison.clone();
    // The ring belongs to the thread that makes it, so that thread tells whether it came to be.
    let made = Mailbox::new(1);
    let tell = made.clone();
    let run = move || match Ring::new(&options.pool) {
        Ok(ring) => {
            let mut io_loop = Loop {
                ring,
                lane: host.lane(wake),
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

/// A receive on a non-blocking socket would answer that nothing is there instead of waiting for it in the kernel.
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
    /// Reply bytes that the socket did not take yet.
    out: Vec<u8>,
    asked: Arc<Asked>,
    receiving: Receiving,
    /// Whether a request waits for room to send.
    awaits_room: bool,
    /// Whether the peer has closed and only replies are left to be sent.
    ended: bool,
    seat: Seat,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Receiving {
    /// No request is under way.
    No,
    /// One is.
    Armed,
    /// One is, and was asked to end.
    Ending,
    /// None is, until there are buffers again.
    Stalled,
}

/// A place for a connection; the generation changes when one leaves it.
struct Place<S> {
    generation: u32,
    connection: Option<Connection<S>>,
}

struct Loop<L: Lane> {
    ring: Ring,
    lane: L,
    inbox: Arc<Inbox>,
    bell: Arc<Bell>,
    places: Vec<Place<L::Session>>,
    free: Vec<u32>,
    stalled: Vec<Key>,
    acceptor: Option<Acceptor>,
    /// Whether a request will make it look again whether peers wait.
    accepts_later: bool,
    seats: Seats,
    reply_bytes_max: usize,
    counters: Arc<ReceiverCounters>,
    /// Whether nothing more is read.
    stopped: bool,
}

impl<L: Lane> Loop<L> {
    fn begin(&mut self) {
        self.await_wake();
        let listeners = self.acceptor.iter().flat_map(Acceptor::listeners).count();
        (0..listeners).for_each(|listener| self.await_peers(listener));
        self.ring.submit();
    }

    fn run(mut self) {
        let mut completions = Vec::with_capacity(COMPLETIONS as usize);
        while self.take_posted() == Stage::Reading {
            if self.lane.ready() {
                self.go_on();
            }
            self.ring.wait();
            self.ring.completions(&mut completions);
            for completion in &completions {
                self.complete(completion);
            }
            self.lane.turn();
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
                // Where accepting waits for descriptors it goes on waiting.
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
                    self.flush(key);
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

    /// The lane is ready: buffers go back to the kernel, and requests that ended for want of them are armed again.
    fn go_on(&mut self) {
        self.ring.provide_held();
        for key in std::mem::take(&mut self.stalled) {
            if let Some(connection) = self.connection(key) {
                connection.receiving = Receiving::No;
                self.receive(key);
            }
        }
    }

    /// Has the kernel say when peers wait at this listener.
    fn await_peers(&mut self, listener: usize) {
        let listeners = self.acceptor.iter().flat_map(Acceptor::listeners);
        let Some(fd) = listeners.map(|fd| fd.as_raw_fd()).nth(listener) else { return };
        let entry = opcode::PollAdd::new(Fd(fd), u32::from(PollFlags::IN.bits())).multi(true);
        let index = u32::try_from(listener).expect("a few");
        self.ring.push(entry.build(), Key { kind: Kind::Accept, generation: 0, index }.encode());
    }

    /// Accepts until nobody waits: the kernel says only once that somebody does. After many, others have their turn.
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

    /// A place for a connection whose receives wait in the kernel.
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
        let session = self.lane.open(peer, asked.remote(&self.inbox));
        let place = &mut self.places[index as usize];
        let key = Key { kind: Kind::Receive, generation: place.generation, index };
        place.connection = Some(Connection {
            stream,
            session,
            out: Vec::new(),
            asked,
            receiving: Receiving::No,
            awaits_room: false,
            ended: false,
            seat,
        });
        self.reply(key);
        self.receive(key);
    }

    /// Whether a connection is not to be read: it has unsent replies, or its session is held.
    fn is_held(&self, connection: &Connection<L::Session>) -> bool {
        connection.out.len() > self.reply_bytes_max
            || self.lane.standing(&connection.session) == Standing::Held
    }

    /// Arms the receive request of a connection that should have one, and ends that of one that should not.
    fn receive(&mut self, key: Key) {
        let Some(place) = self.places.get(key.index as usize) else { return };
        let known = place.generation == key.generation;
        let Some(connection) = place.connection.as_ref().filter(|_| known) else { return };
        let (held, receiving) = (self.is_held(connection), connection.receiving);
        if held && receiving == Receiving::Armed {
            return self.end_receive(key);
        }
        if held || self.stopped || connection.ended || receiving != Receiving::No {
            return;
        }
        let fd = Fd(connection.stream.as_raw_fd());
        let most = self.lane.read_max();
        // A limited read is a request for itself, armed when its turn comes; otherwise one request brings all there is.
        let limited = u32::try_from(most.clamp(1, BUFFER_BYTES)).ok().filter(|_| most < usize::MAX);
        let waits = limited.is_some() && !self.lane.ready();
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
            if self.lane.ready() {
                self.ring.provide_held();
            }
        }
        match (flow, outcome) {
            (Flow::Close(why), _) => {
                self.reply(key);
                self.close(key, Closed::Refused(why));
            }
            (Flow::Continue, Ok(0)) => self.ended(key),
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
        self.lane.received(&mut connection.session, buffer, len)
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
    fn ended(&mut self, key: Key) {
        if let Some(connection) = self.connection(key) {
            connection.ended = true;
            self.flush(key);
        }
    }

    fn reply(&mut self, key: Key) {
        let Some(place) = self.places.get_mut(key.index as usize) else { return };
        let known = place.generation == key.generation;
        if let Some(connection) = place.connection.as_mut().filter(|_| known) {
            self.lane.replies(&mut connection.session, &mut connection.out);
            let over = self.lane.standing(&connection.session) == Standing::Over;
            if !connection.out.is_empty() || connection.ended || over {
                self.flush(key);
            }
        }
    }

    /// Sends what it can, and sees to what follows from what is left.
    fn flush(&mut self, key: Key) {
        let Some(place) = self.places.get_mut(key.index as usize) else { return };
        let known = place.generation == key.generation;
        let Some(connection) = place.connection.as_mut().filter(|_| known) else { return };
        let fd = connection.stream.as_raw_fd();
        let Connection { stream, session, out, ended, .. } = &mut *connection;
        if let Err(err) = send_all(&mut self.lane, session, &mut Sender(stream), out) {
            return self.close(key, Closed::Reset(err));
        }
        let over = match self.lane.standing(session) {
            Standing::Open => *ended,
            Standing::Owing | Standing::Held => false,
            Standing::Over => true,
        };
        if over && connection.out.is_empty() {
            return self.close(key, Closed::End);
        }
        let waits = !connection.out.is_empty() && !connection.awaits_room;
        connection.awaits_room |= waits;
        if waits {
            let entry = opcode::PollAdd::new(Fd(fd), u32::from(PollFlags::OUT.bits())).build();
            self.ring.push(entry, Key { kind: Kind::Writable, ..key }.encode());
        }
        self.receive(key);
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
        self.lane.closed(connection.session, how);
        self.free.push(key.index);
    }

    /// The stop: what was read is handed over, everything else ends.
    fn end(mut self, mut completions: Vec<cqueue::Entry>) {
        self.acceptor = None;
        // If it fails, dropping the ring sees to the buffers.
        let _ = self.ring.cancel_all();
        // Two rounds: the first may find the queue full.
        for _ in 0..2 {
            self.ring.push(opcode::Nop::new().build(), Key::plain(Kind::Ignored));
            self.ring.wait();
            self.ring.completions(&mut completions);
            for completion in &completions {
                self.complete_last(completion);
            }
        }
        self.lane.finish();
        self.stopped = true;
        self.await_wake();
        for place in &mut self.places {
            if let Some(connection) = &mut place.connection {
                // Every request was ended.
                (connection.receiving, connection.awaits_room) = (Receiving::No, false);
            }
        }
        loop {
            // First: the word that ended the reading may have been the last one.
            let stage = self.take_posted();
            self.leave_all(stage);
            if self.places.iter().all(|place| place.connection.is_none()) {
                break;
            }
            self.ring.wait();
            self.ring.completions(&mut completions);
            for completion in &completions {
                self.complete(completion);
            }
        }
        self.lane.finish();
    }

    /// Closes for the stop every connection that may not stay because it is owed something.
    fn leave_all(&mut self, stage: Stage) {
        for index in 0..self.places.len() {
            let generation = self.places[index].generation;
            let index = u32::try_from(index).expect("indices are made from such");
            self.leave(Key { kind: Kind::Receive, generation, index }, stage);
        }
    }

    fn leave(&mut self, key: Key, stage: Stage) {
        self.reply(key);
        let Some(place) = self.places.get_mut(key.index as usize) else { return };
        let known = place.generation == key.generation;
        let Some(connection) = place.connection.as_mut().filter(|_| known) else { return };
        let owed = self.lane.standing(&connection.session).owes();
        if (owed || !connection.out.is_empty()) && stage < Stage::Closing {
            return;
        }
        self.lane.farewell(&mut connection.session, &mut connection.out);
        // Whether or not the peer takes it: the connection is closed.
        let _ = send_some(&mut Sender(&connection.stream), &mut connection.out);
        self.close(key, Closed::Stopped);
    }

    fn complete_last(&mut self, completion: &cqueue::Entry) {
        let key = Key::decode(completion.user_data());
        let id = cqueue::buffer_select(completion.flags()).filter(|_| key.kind == Kind::Receive);
        let len = usize::try_from(completion.result()).unwrap_or(0);
        if let Some(id) = id.filter(|_| len > 0)
            && let Flow::Close(why) = self.hand_over(key, id, len)
        {
            self.close(key, Closed::Refused(why));
        }
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
    fn a_key_is_what_it_was_made_from() {
        let check = |kind, generation, index| {
            let word = Key { kind, generation, index }.encode();
            let key = Key::decode(word);
            assert_eq!((key.kind, key.generation, key.index), (kind, generation, index));
        };
        check(Kind::Wake, 0, 0);
        check(Kind::Accept, 1, 2);
        check(Kind::AcceptAgain, 0, u32::MAX);
        check(Kind::Receive, GENERATIONS - 1, 0x1234_5678);
        check(Kind::Writable, 0xAB_CDEF, u32::MAX);
        check(Kind::Ignored, GENERATIONS - 1, 0);
    }

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        assert_eq!(size_of::<Provided>(), size_of::<io_uring::types::BufRingEntry>());
        assert_eq!(size_of::<Provided>(), 16);
        assert_eq!(std::mem::offset_of!(Provided, tail), 14);
        assert_eq!(align_of::<Table>(), 4096);
    }

    #[test]
    fn a_refusal_says_what_to_change() {
        let check = |errno: Errno, expected: &str| {
            let why = refusal(&io::Error::from(errno));
            assert!(why.contains(expected) && !why.contains('\n'), "{why}");
        };
        check(Errno::NOSYS, "seccomp filter hides it");
        check(Errno::INVAL, "older than 6.1");
        check(Errno::NOMEM, "RLIMIT_MEMLOCK");
        check(Errno::MFILE, "the system refused it");
        check(Errno::PERM, "io_uring");
    }

    #[test]
    fn user_memory_of_an_idle_connection_is_small() {
        assert!(size_of::<Place<()>>() + size_of::<Asked>() <= 256);
    }
}
