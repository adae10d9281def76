//! Accepting, seats and bells: the parts with which every model takes connections in. Knows nothing of reading.
//!
//! [`accept_until`] is the body of the thread `rxN-accept` of the models that have one; a model with an event loop asks
//! its [`Acceptor`] by itself.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use socket2::{SockRef, TcpKeepalive};

use crate::metrics::ReceiverCounters;
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, AtomicUsize, Ordering};

use super::{OnRefusal, Options, Peer};

/// The wait before the next accept, after a failure that closing one peer does not cure.
pub(super) const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// The time of silence after which the kernel probes the peer.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// The time between two such probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The time for which a peer may leave probes and replies unanswered before the connection counts as broken.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Sets the options of every connection, dialled or accepted: reads never block, a peer that vanished is detected, replies leave
/// at once, and urgent bytes stay bytes of the stream.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_out_of_band_inline(true)?;
    stream.set_nodelay(true)
}

/// Limits the connections at once. Clones count together.
#[derive(Clone)]
pub(super) struct Seats {
    taken: Arc<AtomicUsize>,
    max: usize,
}

/// A connection's seat; free again once this is dropped.
pub(super) struct Seat(Arc<AtomicUsize>);

impl Seats {
    pub(super) fn new(max: usize) -> Self {
        Seats { taken: Arc::default(), max }
    }

    /// A seat, unless all are taken.
    pub(super) fn take(&self) -> Option<Seat> {
        let seat = Seat(Arc::clone(&self.taken));
        // If there was none, dropping the seat corrects the count.
        let free = self.taken.fetch_add(1, Ordering::SeqCst) < self.max;
        (free || planted(Planted::ConnectionLimitOff)).then_some(seat)
    }

    /// [`take`](Seats::take), with an error if all are taken.
    pub(super) fn take_or_say(&self) -> io::Result<Seat> {
        self.take()
            .ok_or_else(|| io::Error::other(format!("connections_max = {} is reached", self.max)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !planted(Planted::SeatIsLost) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Closes the socket of a connection that ended, and only then gives its seat back.
pub(super) fn close<S>(socket: S, seat: Seat) {
    if planted(Planted::DescriptorLeak) {
        std::mem::forget(socket);
    } else {
        drop(socket);
    }
    drop(seat);
}

/// The error for a connection that comes after the stop.
pub(super) fn stopping() -> io::Error {
    io::Error::other("the receiver stops")
}

/// Wakes one thread out of poll(2).
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    pub(super) fn ring(&self) {
        // It fails only when the counter is full, and then the thread is already being woken.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn silence(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `fds` is ready, the bell rings, or the timeout.
pub(super) fn wait(fds: &[(BorrowedFd<'_>, PollFlags)], bell: &Bell, timeout: Option<Duration>) {
    let mut polled: Vec<PollFd<'_>> = Vec::with_capacity(2);
    polled.push(PollFd::new(bell, PollFlags::IN));
    polled.extend(fds.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    // An interrupted poll is a wake-up like any other: the caller looks at its state.
    let _ = poll(&mut polled, timeout.as_ref());
    if !polled[0].revents().is_empty() {
        bell.silence();
    }
}

/// Non-blocking listeners, which take turns.
pub(super) struct Acceptor {
    listeners: Vec<TcpListener>,
    /// The index of the listener whose turn it is.
    next: usize,
    /// Given up for a moment when descriptors run out, so that the waiting peer can be accepted and closed.
    spare: Option<File>,
    refusals: Refusals,
}

/// Counts peers that are turned away, and reports them.
#[derive(Clone)]
pub(super) struct Refusals {
    counters: Arc<ReceiverCounters>,
    tell: OnRefusal,
}

impl Refusals {
    /// Before the peer can see the close.
    pub(super) fn refuse(&self, peer: SocketAddr, why: &io::Error) {
        if !planted(Planted::RefusedUncounted) {
            self.counters.refused.add(1);
        }
        (self.tell)(Some(peer), &why.to_string());
    }

    fn accepting_waits(&self, why: &io::Error) {
        self.counters.accept_waits.add(1);
        (self.tell)(None, &why.to_string());
    }
}

/// The outcome of one attempt to accept.
pub(super) enum Accepted {
    /// A peer, prepared for reading.
    Peer(TcpStream, SocketAddr),
    /// Nobody waits.
    Nobody,
    /// A peer was turned away, and counted.
    TurnedAway,
    /// Nothing can be accepted for [`ACCEPT_BACK_OFF`].
    Exhausted,
}

impl Acceptor {
    /// Takes the listeners out of the options; `None` if peers do not dial in.
    pub(super) fn of(options: &mut Options) -> Option<Self> {
        let listeners = std::mem::take(&mut options.listeners);
        let (counters, tell) = (Arc::clone(&options.counters), Arc::clone(&options.on_refusal));
        let refusals = Refusals { counters, tell };
        let some = !listeners.is_empty();
        some.then(|| Acceptor { listeners, next: 0, spare: spare(), refusals })
    }

    /// The listeners, for polling.
    pub(super) fn listeners(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd)
    }

    /// Counts peers that are turned away.
    pub(super) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Accepts one peer, if one waits.
    pub(super) fn accept(&mut self) -> Accepted {
        let mut idle = 0;
        while idle < self.listeners.len() {
            match self.accept_next() {
                Ok((stream, peer)) => {
                    self.spare = self.spare.take().or_else(spare);
                    // An option cannot be set on a connection that is gone already.
                    return match prepare(&stream) {
                        Ok(()) => Accepted::Peer(stream, peer),
                        Err(err) => self.refused(peer, &err),
                    };
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => idle += 1,
                // The kernel looks for a descriptor before it looks for a peer.
                Err(err) if out_of_descriptors(&err) => match self.turn_away(&err) {
                    Accepted::Nobody => idle += 1,
                    outcome => return outcome,
                },
                Err(err) if is_peers_fault(&err) => {}
                Err(err) => return self.exhausted(&err),
            }
        }
        Accepted::Nobody
    }

    /// Accepts at the listener whose turn it is. It keeps its turn if descriptors ran out.
    fn accept_next(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let accepted = self.listeners[self.next].accept();
        if !accepted.as_ref().is_err_and(out_of_descriptors) {
            self.pass_the_turn();
        }
        accepted
    }

    fn pass_the_turn(&mut self) {
        self.next = (self.next + 1) % self.listeners.len();
    }

    /// Accepts the peer that waits at the listener whose turn it is, with the spare descriptor, and closes it.
    fn turn_away(&mut self, err: &io::Error) -> Accepted {
        let freed = self.spare.take().is_some();
        let accepted = freed.then(|| self.listeners[self.next].accept());
        // Counted while the socket is open: the close is what the peer sees.
        let outcome = match &accepted {
            Some(Ok((_, peer))) => self.refused(*peer, err),
            Some(Err(none)) if none.kind() == io::ErrorKind::WouldBlock => Accepted::Nobody,
            _ => self.exhausted(err),
        };
        drop(accepted);
        self.spare = spare();
        if matches!(outcome, Accepted::Nobody) {
            self.pass_the_turn();
        }
        outcome
    }

    fn refused(&self, peer: SocketAddr, why: &io::Error) -> Accepted {
        self.refusals.refuse(peer, why);
        Accepted::TurnedAway
    }

    fn exhausted(&self, why: &io::Error) -> Accepted {
        self.refusals.accepting_waits(why);
        Accepted::Exhausted
    }
}

/// Accepts until `stopped` returns true; it is called whenever the bell rang. Peers without a seat are turned away, and those
/// that `each` cannot take.
pub(super) fn accept_until(
    stopped: impl Fn() -> bool,
    mut acceptor: Acceptor,
    bell: &Bell,
    seats: &Seats,
    mut each: impl FnMut(TcpStream, Peer, Seat) -> io::Result<()>,
) {
    while !stopped() {
        match acceptor.accept() {
            Accepted::Peer(stream, address) => match seats.take_or_say() {
                Ok(seat) => {
                    if let Err(err) = each(stream, Peer { address, dialled: None }, seat) {
                        acceptor.refusals().refuse(address, &err);
                    }
                }
                // Before the socket is dropped: the close is what the peer sees.
                Err(err) => acceptor.refusals().refuse(address, &err),
            },
            Accepted::TurnedAway => {}
            Accepted::Nobody => {
                let fds: Vec<_> = acceptor.listeners().map(|fd| (fd, PollFlags::IN)).collect();
                wait(&fds, bell, None);
            }
            Accepted::Exhausted => wait(&[], bell, Some(ACCEPT_BACK_OFF)),
        }
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn out_of_descriptors(err: &io::Error) -> bool {
    let code = err.raw_os_error();
    code == Some(rustix::io::Errno::MFILE.raw_os_error())
        || code == Some(rustix::io::Errno::NFILE.raw_os_error())
}

/// Errors of one waiting connection, which is gone with them; the next one may be fine (accept(2), «Error handling»).
fn is_peers_fault(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    fn assert_prepared(stream: &TcpStream) {
        let socket = SockRef::from(stream);
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().expect("an option"), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(USER_TIMEOUT));
        assert!(socket.out_of_band_inline().expect("an option"));
        assert!(stream.nodelay().expect("an option"));
    }

    #[test]
    fn a_peer_that_is_gone_without_a_word_is_found_out_on_both_sides() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let dialled =
            TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (accepted, _) = listener.accept().expect("a peer waits");
        prepare(&accepted).expect("it is open");
        assert_prepared(&accepted);
        prepare(&dialled).expect("it is open");
        assert_prepared(&dialled);
    }
}
