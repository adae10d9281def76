//! The io models: five ways to read sockets behind one seam, so that they can be compared exactly.
//!
//! ```text
//!            attach, stop                         handler(waker), open, ready, received, replies, turn, closed
//!  receiver ─────────────▶ IoDriver ─ io threads ─────────────────────────────────────────────▶ Handler ─▶ queue
//!            (listener)         ▲                                                                 │
//!                               └──────── Waker: «look again», Remote: «this one has replies» ◀───┘
//! ```
//! An io model owns sockets, threads and buffers. It knows nothing of framing, blocks or rates: those sit behind [`Handler`].
//! One model is one file and one row of [`IO_MODELS`]; command line, documentation, benches and the contract suite
//! (`tests/io_contract/`) read that table.
//!
//! # Obligations of every model
//! 1. Bytes of a connection are handed to [`Handler::received`] in order, each exactly once, on the io thread that owns the
//!    connection; a session is only ever used on that thread.
//! 2. [`Handler::ready`] is called before every read. While it is false the model reads nothing and waits for the handler's
//!    waker; it continues to send replies. Where the kernel reads ahead, at most [`Row::in_flight_max`] bytes still come.
//!    [`Handler::read_max`] is called after it and bounds the read. Where reads are requests that wait in the kernel, it
//!    bounds each request.
//! 3. [`Handler::end_of_turn`] is called after each group of reads and before the thread waits, so that no record stays gathered.
//! 4. [`Handler::closed`] is called once for each connection, after all of its bytes: a half-close delivers the tail.
//! 5. The bytes of [`Handler::replies`] are sent in order, without blocking other connections. It is called after each read,
//!    after [`Remote::ask`], which any thread may call, and again when all of its bytes were sent. Beyond
//!    [`Options::reply_bytes_max`] unsent bytes the connection is not read; they are still sent. A connection whose peer has
//!    closed is kept while its session is [`Disposition::RepliesDue`]; one that is [`Disposition::Closing`] is closed once
//!    everything was sent, also if there was nothing to send. One that is [`Disposition::Held`] is kept, too, and not read
//!    until a [`Remote::ask`] after which it is held no longer; other connections are read. Where the kernel reads ahead,
//!    bytes in flight still come. (`replies.rs` decides this for every model.)
//! 6. No connection starves another: at most [`TURN_BYTES`] are read from one before the others are looked at. Where the
//!    kernel reads, it is fair itself; where a thread serves one connection after the other, those without a thread wait.
//! 7. Lack of file descriptors never becomes a busy loop: the peer is turned away or accepting waits. Both are counted, and
//!    reported by [`Options::on_refusal`]. A peer that was reset before it was accepted is a connection like any other.
//! 8. After [`IoDriver::stop`] nothing more is read; the threads hand over what was read ([`Handler::finish`]) and end. The
//!    sockets of waiting peers are closed. A connection whose session is [`Disposition::RepliesDue`] stays for its
//!    replies until they are sent or [`IoDriver::close`] comes. Each is given its [`Handler::farewell`] before it is closed.

mod accept;
mod aio;
mod bio;
mod blocking;
mod event_loop;
mod inbox;
mod nio;
mod pool;
mod reactors;
mod replies;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::error::Result;
use crate::memory::buffer_pool::{BUFFER_BYTES, Buffer, Pool};
use crate::metrics::ReceiverCounters;
use crate::sync::thread::Thread;
use crate::sync::{Arc, Poison};
use crate::time::Clock;

/// Makes an io thread ask its handler again.
pub use crate::sync::Waker;

/// Buffers that one read may fill.
const READ_BUFFERS: usize = 4;

/// The most bytes that are read from one connection before the others have their turn.
#[doc(hidden)]
pub const TURN_BYTES: usize = READ_BUFFERS * crate::memory::buffer_pool::BUFFER_BYTES;

/// A way to read sockets. All models hand over the same records; they differ in threads and system calls.
///
/// ```
/// use tidemill::IoModel;
/// use tidemill::source::{IO_MODELS, probe};
///
/// assert_eq!(IoModel::by_name("pool"), Some(IoModel::Pool));
/// assert_eq!((IoModel::Nio.name(), IoModel::Nio.row().connections_max), ("nio", 10_000));
/// for row in IO_MODELS {
///     println!("{}: {} ({:?})", row.name, row.about, probe(row.model));
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoModel {
    /// One blocking thread for each connection, 1,000 by default.
    Bio,
    /// An acceptor and a bounded pool of blocking threads; connections beyond it wait unread.
    Pool,
    /// One event loop for all connections: the default.
    Nio,
    /// An acceptor and several event loops.
    Reactors,
    /// Completions of io_uring, where the kernel allows it.
    Aio,
}

/// A row of the table of io models.
#[derive(Debug)]
pub struct Row {
    /// The name in pipeline files and on the command line.
    pub name: &'static str,
    /// The model.
    pub model: IoModel,
    /// One line for the help.
    pub about: &'static str,
    /// The default of `connections_max`.
    pub connections_max: usize,
    /// The most bytes that a handler may still be handed after it was not ready: those that were in flight.
    pub in_flight_max: usize,
    /// File descriptors that a connection takes.
    pub descriptors: usize,
}

/// Every io model there is.
pub const IO_MODELS: &[Row] = &[
    Row {
        name: "bio",
        model: IoModel::Bio,
        about: "blocking: one thread per connection",
        connections_max: 1_000,
        in_flight_max: 0,
        // The socket, and the eventfd that wakes its thread.
        descriptors: 2,
    },
    Row {
        name: "pool",
        model: IoModel::Pool,
        about: "pseudo-async: a bounded pool of blocking threads; connections beyond it wait unread",
        connections_max: 10_000,
        in_flight_max: 0,
        descriptors: 1,
    },
    Row {
        name: "nio",
        model: IoModel::Nio,
        about: "readiness: one event loop for all connections",
        connections_max: 10_000,
        in_flight_max: 0,
        descriptors: 1,
    },
    Row {
        name: "reactors",
        model: IoModel::Reactors,
        about: "readiness: an acceptor and an event loop for each core",
        connections_max: 10_000,
        in_flight_max: 0,
        descriptors: 1,
    },
    Row {
        name: "aio",
        model: IoModel::Aio,
        about: "completions: io_uring, where the kernel allows it",
        connections_max: 10_000,
        in_flight_max: aio::IN_FLIGHT_MAX,
        descriptors: 1,
    },
];

impl IoModel {
    /// The row of the model in [`IO_MODELS`].
    pub fn row(self) -> &'static Row {
        IO_MODELS.iter().find(|row| row.model == self).expect("every model has its row")
    }

    /// The name in pipeline files and on the command line.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns the model of that name, if there is one.
    pub fn by_name(name: &str) -> Option<IoModel> {
        IO_MODELS.iter().find(|row| row.name == name).map(|row| row.model)
    }
}

impl fmt::Display for IoModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Called for each peer that is turned away, and without one each time that accepting waits, with the reason. Called on io
/// threads; it only posts.
#[doc(hidden)]
pub type OnRefusal = Arc<dyn Fn(Option<SocketAddr>, &str) + Send + Sync>;

/// The other end of a connection.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The index of the dialled address; `None` if the peer dialled us.
    pub dialled: Option<usize>,
}

/// Lets any thread ask the io model to fetch a session's replies; see [`Handler::replies`].
#[doc(hidden)]
#[derive(Clone)]
pub struct Remote(Arc<dyn Fn() + Send + Sync>);

impl Remote {
    fn new(ask: impl Fn() + Send + Sync + 'static) -> Self {
        Remote(Arc::new(ask))
    }

    /// A remote that reaches nobody, for handlers that are driven without sockets.
    pub fn nobody() -> Self {
        Remote::new(|| {})
    }

    /// Wakes the io thread of this session, which then calls [`Handler::replies`]. Harmless after the connection's end.
    pub fn ask(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}

/// The handler's decision on a connection after a read.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Continue reading.
    Continue,
    /// Close it, for this reason; nothing more is read from it.
    Close(String),
}

/// The reason for which a connection is kept.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// For whatever comes; nothing is owed.
    Open,
    /// Its peer waits for replies that are still to come.
    RepliesDue,
    /// The same, and it must not be read now. After [`Remote::ask`] it may be.
    Held,
    /// It is not kept: it is closed once everything was sent.
    Closing,
}

impl Disposition {
    /// True if its peer is owed something.
    pub fn owes(self) -> bool {
        matches!(self, Disposition::RepliesDue | Disposition::Held)
    }
}

/// The end of a connection.
#[doc(hidden)]
#[derive(Debug)]
pub enum Closed {
    /// The peer closed in order.
    End,
    /// The network or the peer broke it.
    Reset(io::Error),
    /// The session asked for it.
    Refused(String),
    /// The engine stops.
    Stopped,
}

/// The user of a model: makes a handler for each of its io threads.
#[doc(hidden)]
pub trait HandlerFactory: Send + Sync + 'static {
    /// The handler of an io thread.
    type Handler: Handler;

    /// A handler for a new io thread, which `waker` wakes.
    fn handler(&self, waker: Waker) -> Self::Handler;
}

/// Takes the bytes of an io thread. All methods are called on that thread.
#[doc(hidden)]
pub trait Handler: Send + 'static {
    /// The state of one connection.
    type Session: Send + 'static;

    /// Returns true if anything may be read now; if not, the handler's waker is called once that changes.
    fn ready(&mut self) -> bool;

    /// The most bytes that the next read may bring; as many as it can by default.
    fn read_max(&mut self) -> usize {
        usize::MAX
    }

    /// A new connection.
    fn open(&mut self, peer: Peer, remote: Remote) -> Self::Session;

    /// `len` bytes were read into `buffer`; the handler freezes the buffer or copies what it needs.
    fn received(&mut self, session: &mut Self::Session, buffer: &mut Buffer, len: usize) -> Flow;

    /// Appends bytes for the peer.
    fn replies(&mut self, session: &mut Self::Session, out: &mut Vec<u8>);

    /// The reason for which the connection is kept, after its replies were fetched.
    fn disposition(&self, _session: &Self::Session) -> Disposition {
        Disposition::Open
    }

    /// Appends the last bytes to a peer whose connection the stop closes.
    fn farewell(&mut self, _session: &mut Self::Session, _out: &mut Vec<u8>) {}

    /// The connection is over; nothing more comes from it.
    fn closed(&mut self, session: Self::Session, how: Closed);

    /// A group of reads is over: hands over the gathered records.
    fn end_of_turn(&mut self);

    /// A thread that serves one connection waits: gives back memory that it may not need for a while.
    fn idle(&mut self) {}

    /// Nothing more is read: hands over everything, and waits for room if necessary. May be called again.
    fn finish(&mut self);
}

/// Options of every model.
#[doc(hidden)]
pub struct Options {
    /// The prefix of thread names, such as `rx0`.
    pub name: String,
    /// The listeners at which peers dial in, if they do; already bound, and non-blocking.
    pub listeners: Vec<TcpListener>,
    /// The most connections at once; further peers are turned away.
    pub connections_max: usize,
    /// Number of reading threads in the model that has a pool of them.
    pub pool_threads: usize,
    /// Number of event loops in the model that has several.
    pub reactors: usize,
    /// Unsent reply bytes of one connection beyond which it is not read from.
    pub reply_bytes_max: usize,
    /// The pool of the read buffers.
    pub pool: Arc<Pool>,
    /// Counts connections, bytes and refusals.
    pub counters: Arc<ReceiverCounters>,
    /// Called for peers that are turned away.
    pub on_refusal: OnRefusal,
    /// For waits with a deadline.
    pub clock: Arc<dyn Clock>,
    /// Set when an io thread dies.
    pub poison: Poison,
}

/// A running io model.
#[doc(hidden)]
pub trait IoDriver: Send + Sync {
    /// Takes over a connection that was dialled.
    ///
    /// # Errors
    /// Gives the connection's error back when it cannot be taken: at the limit, without threads, or after the stop.
    fn attach(&self, stream: TcpStream, peer: Peer) -> io::Result<()>;

    /// Stops accepting and reading, and wakes every thread; returns at once. Connections that owe replies stay.
    fn stop(&self);

    /// After the stop: closes the connections that stayed, after one last attempt to send their replies.
    fn close(&self);

    /// The threads, for their owner to join after the stop.
    fn threads(&self) -> Vec<Thread>;
}

/// Checks that this system can run a model.
///
/// # Errors
/// The reason why it cannot, in one line: a kernel that is too old, a sysctl, a seccomp filter. A source that asks for the model
/// then uses `nio`.
///
/// ```
/// use tidemill::IoModel;
/// use tidemill::source::probe;
///
/// assert_eq!(probe(IoModel::Nio), Ok(()));
/// ```
pub fn probe(model: IoModel) -> Result<(), String> {
    match model {
        IoModel::Aio => aio::probe(),
        IoModel::Bio | IoModel::Pool | IoModel::Nio | IoModel::Reactors => Ok(()),
    }
}

/// The model to use for the wanted one: itself, or `nio` and the reason.
#[doc(hidden)]
pub fn choose(wanted: IoModel) -> (IoModel, Option<String>) {
    match probe(wanted) {
        Ok(()) => (wanted, None),
        Err(why) => (IoModel::Nio, Some(why)),
    }
}

/// Starts a model.
///
/// # Errors
/// If the operating system refuses a thread, a poller or a descriptor.
#[doc(hidden)]
pub fn start<H: HandlerFactory>(
    model: IoModel,
    host: H,
    options: Options,
) -> Result<Box<dyn IoDriver>> {
    match model {
        IoModel::Bio => bio::start(host, options),
        IoModel::Pool => pool::start(host, options),
        IoModel::Nio => nio::start(host, options),
        IoModel::Reactors => reactors::start(host, options),
        IoModel::Aio => aio::start(host, options),
    }
}

/// The buffers of one io thread; a read fills several at once.
struct ReadBuffers([Buffer; READ_BUFFERS]);

impl ReadBuffers {
    fn new(pool: &Arc<Pool>) -> Self {
        ReadBuffers(std::array::from_fn(|_| pool.buffer()))
    }

    /// One vectored read of at most `most` bytes.
    fn read(&mut self, stream: &mut impl io::Read, most: usize) -> io::Result<usize> {
        let most = if self.0[0].may_be_many() { most } else { most.min(BUFFER_BYTES) };
        let (mut left, mut used) = (most.max(1), 0);
        let mut slices = self.0.each_mut().map(|buffer| {
            if left == 0 {
                return io::IoSliceMut::new(&mut []);
            }
            let space = buffer.space();
            let len = left.min(space.len());
            (left, used) = (left - len, used + 1);
            io::IoSliceMut::new(&mut space[..len])
        });
        stream.read_vectored(&mut slices[..used])
    }

    /// Hands the `len` bytes of a read to the handler, buffer by buffer.
    fn hand_over<L: Handler>(
        &mut self,
        handler: &mut L,
        session: &mut L::Session,
        len: usize,
    ) -> Flow {
        let mut left = len;
        for buffer in &mut self.0 {
            if left == 0 {
                break;
            }
            let part = left.min(buffer.space().len());
            if let Flow::Close(why) = handler.received(session, buffer, part) {
                return Flow::Close(why);
            }
            left -= part;
        }
        Flow::Continue
    }

    fn release(&mut self) {
        self.0.iter_mut().for_each(Buffer::release);
    }
}
