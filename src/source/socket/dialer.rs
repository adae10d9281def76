//! Dialling a peer: connect without blocking, give up when interrupted, and wait before the next time. Runs on the threads that
//! dial.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::sync::Arc;
use crate::sync::planted::{Planted, planted};
use crate::time::Moment;

/// The first wait after a failure.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait between two attempts.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The most time for one attempt, in seconds.
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
fn wait_before(attempt: u32, random: u64) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1u32 << attempt.saturating_sub(1).min(16));
    let capped = doubled.min(LONGEST_WAIT);
    let quarter = u64::try_from((capped / 4).as_micros()).unwrap_or(u64::MAX);
    capped - Duration::from_micros(random % quarter.max(1))
}

/// The waits before a connection is made again, or anything else that may end as soon as it began.
///
/// ```text
/// dial ─▶ fails ─────────────────────────────▶ the next wait is longer
///   └───▶ connection ─▶ ends before it was older than the wait before it ─▶ the next wait is longer
///              └──────▶ is older than that: it has proved itself ─▶ ends ─▶ the first wait
/// ```
/// So there is a wait after every end. A peer that accepts and closes is dialled as seldom as one that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BackOff {
    /// Ends in a row without a connection that proved itself.
    attempt: u32,
    /// The wait before the last dial.
    wait: Duration,
    /// When the connection was made, while there is one.
    since: Option<Moment>,
}

/// The wait after an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Ends in a row without a connection that proved itself, and this one.
    pub(crate) attempt: u32,
    /// The time to wait.
    pub(crate) wait: Duration,
    /// True if the connection that ended had proved itself.
    pub(crate) had_proved: bool,
}

impl BackOff {
    /// A connection was made. It has proved itself if it is there at the moment that is returned.
    pub(crate) fn connected(&mut self, now: Moment) -> Moment {
        if planted(Planted::BackOffResetOnConnect) {
            self.attempt = 0;
        }
        self.since = Some(now);
        now.plus(self.wait + Duration::from_nanos(1))
    }

    /// The dial failed, or the connection is over. `random` is any number.
    pub(crate) fn over(&mut self, now: Moment, random: u64) -> Wait {
        let had_proved = self.since.take().is_some_and(|since| now.since(since) > self.wait);
        self.attempt = if had_proved { 1 } else { self.attempt.saturating_add(1) };
        self.wait = wait_before(self.attempt, random);
        Wait { attempt: self.attempt, wait: self.wait, had_proved }
    }
}

/// A number that differs from moment to moment, for jitter.
pub(crate) fn random_at(now: Moment) -> u64 {
    now.as_nanos().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

/// Connects to the first of the addresses that answers.
pub(crate) fn dial(
    addresses: &[SocketAddr],
    interrupt: &Interrupt,
) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last = io::ErrorKind::Interrupted.into();
    for &peer in addresses {
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
            assert_eq!(wait_before(attempt, 0), most, "attempt {attempt}");
            for random in [1, 12_345, u64::MAX] {
                let wait = wait_before(attempt, random);
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

    /// An event of an address, with its time in milliseconds.
    enum Step {
        Fails(u64),
        Connects(u64),
        Ends(u64),
    }
    use Step::{Connects, Ends, Fails};

    fn run(steps: &[Step]) -> Vec<u64> {
        let (mut back_off, mut waits) = (BackOff::default(), Vec::new());
        let at = |ms: u64| Moment::default().plus(Duration::from_millis(ms));
        for step in steps {
            match *step {
                Connects(ms) => {
                    back_off.connected(at(ms));
                }
                Fails(ms) | Ends(ms) => {
                    let wait = back_off.over(at(ms), 0).wait;
                    waits.push(u64::try_from(wait.as_millis()).expect("short"));
                }
            }
        }
        waits
    }

    #[test]
    fn there_is_a_wait_after_every_end() {
        let check = |steps: &[Step], expected: &[u64]| assert_eq!(run(steps), expected);
        check(&[], &[]);
        check(&[Fails(0), Fails(100), Fails(300)], &[100, 200, 400]);
        // What is accepted and closed is like what is refused.
        check(&[Connects(0), Ends(0), Connects(100), Ends(100)], &[100, 200]);
        check(&[Connects(0), Ends(0), Connects(100), Ends(200)], &[100, 200]);
        check(&[Fails(0), Connects(100), Ends(101), Fails(301), Connects(701)], &[100, 200, 400]);
        // One that was older than the wait before it has proved itself.
        check(&[Connects(0), Ends(0), Connects(100), Ends(201)], &[100, 100]);
        check(&[Fails(0), Fails(100), Connects(300), Ends(501)], &[100, 200, 100]);
        check(&[Fails(0), Fails(100), Connects(300), Ends(500)], &[100, 200, 400]);
        check(&[Connects(0), Ends(9_999), Connects(10_099), Ends(10_099)], &[100, 200]);
        // A failure after one that did not is not the first.
        check(&[Fails(0), Connects(100), Ends(100), Connects(300), Ends(900)], &[100, 200, 100]);
    }

    #[test]
    fn waits_grow_to_the_cap_however_ends_come() {
        let ends: Vec<Step> = (0..20).flat_map(|at| [Connects(at), Ends(at)]).collect();
        let waits = run(&ends);
        assert_eq!(waits[..8], [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000]);
        assert!(waits[8..].iter().all(|wait| *wait == 10_000));
    }

    #[test]
    fn a_connection_knows_when_it_has_proved_itself() {
        let (mut back_off, start) = (BackOff::default(), Moment::default());
        let instant = Duration::from_nanos(1);
        assert_eq!(back_off.connected(start), start.plus(instant));
        let first = Wait { attempt: 1, wait: FIRST_WAIT, had_proved: false };
        assert_eq!(back_off.over(start, 0), first);
        let later = start.plus(FIRST_WAIT);
        let proves = back_off.connected(later);
        assert_eq!(proves, later.plus(FIRST_WAIT + instant));
        assert_eq!(back_off.over(proves, 0), Wait { had_proved: true, ..first });
    }

    #[cfg(tidemill_planted)]
    #[test]
    fn planted_a_connection_that_counts_as_a_good_one_is_found_out() {
        let waits = || run(&[Connects(0), Ends(0), Connects(100), Ends(100)]);
        let found = crate::sync::planted::with(Planted::BackOffResetOnConnect, waits);
        assert_eq!((found, waits()), (vec![100, 100], vec![100, 200]));
    }
}
