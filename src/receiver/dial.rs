//! Dialling a peer: resolve, connect without blocking, give up when told to. Runs on the threads that dial.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::sync::Arc;

/// The first wait after a failure.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait between two attempts.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long one attempt may take.
const DIAL_SECONDS: i64 = 10;

/// Interrupts dials that are under way. Clones are handles of the same one.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<OwnedFd>);

impl Interrupt {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Interrupt(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Ends every dial, now and later.
    pub(crate) fn set(&self) {
        // It fails only when the counter is full, and then it is set.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// The wait before attempt number `attempt` (from 1): doubling from 100 ms to 10 s, less up to a quarter of jitter, so
/// that many receivers do not knock at once. `random` is any number.
pub(crate) fn back_off(attempt: u32, random: u64) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1u32 << attempt.saturating_sub(1).min(16));
    let capped = doubled.min(LONGEST_WAIT);
    let quarter = u64::try_from((capped / 4).as_micros()).unwrap_or(u64::MAX);
    capped - Duration::from_micros(random % quarter.max(1))
}

/// Connects to the first address of `address` (`HOST:PORT`) that answers.
pub(crate) fn dial(address: &str, interrupt: &Interrupt) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for peer in address.to_socket_addrs()? {
        match dial_one(peer, interrupt) {
            Ok(stream) => return Ok((stream, peer)),
            Err(err) => last = err,
        }
    }
    Err(last)
}

fn dial_one(peer: SocketAddr, interrupt: &Interrupt) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(peer)) {
        Ok(()) => {}
        Err(err) if err.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            wait_connected(&socket, interrupt)?;
        }
        Err(err) => return Err(err),
    }
    let stream = TcpStream::from(socket);
    // A port of our own range can answer itself (simultaneous open); such a connection leads nowhere.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

fn wait_connected(socket: &Socket, interrupt: &Interrupt) -> io::Result<()> {
    let mut fds = [
        PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT),
        PollFd::from_borrowed_fd(interrupt.0.as_fd(), PollFlags::IN),
    ];
    let timeout = Timespec { tv_sec: DIAL_SECONDS, tv_nsec: 0 };
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
            Ok(_) if !fds[1].revents().is_empty() => return Err(io::ErrorKind::Interrupted.into()),
            Ok(_) => return socket.take_error()?.map_or(Ok(()), Err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_cap_less_some_jitter() {
        let check = |attempt, most: u64| {
            let most = Duration::from_millis(most);
            assert_eq!(back_off(attempt, 0), most, "attempt {attempt}");
            for random in [1, 12_345, u64::MAX] {
                let wait = back_off(attempt, random);
                assert!(wait <= most && wait >= most / 4 * 3, "attempt {attempt}: {wait:?}");
            }
        };
        check(1, 100);
        check(2, 200);
        check(3, 400);
        check(7, 6_400);
        check(8, 10_000);
        check(u32::MAX, 10_000);
    }
}
