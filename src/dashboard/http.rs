//! The HTTP server: std sockets and httparse, with bounds on everything and a stop that reaches everyone.
//!
//! The thread `http` accepts; a thread `http-N` serves each connection. There are bounds on the connections
//! ([`CONNECTIONS_MAX`]), the length of a head (431), and the time for a head and for a write. A peer beyond the limit
//! takes the place of the one that has been without a new request for longest, so that slow peers cannot keep a health
//! check out. The stop shuts every socket down, so an idle connection ends at once. Nothing here knows the content of a
//! page.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::error::{Error, Result};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mutex, Poison};
use crate::time::{Clock, SystemClock, join_until};

use super::pages::{Page, answer};
use super::request::{Parsed, Request, parse};
use super::shown::Shown;

/// The most connections at once.
pub const CONNECTIONS_MAX: usize = 64;

/// The longest time that a connection may idle, and that a head may take from its first byte.
const READ_TIME: Duration = Duration::from_secs(10);

/// The longest time that a peer may leave an answer unread.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// The longest time that a rejected peer may take to read the answer.
const TURN_AWAY_TIME: Duration = Duration::from_millis(50);

/// The longest time that the threads may take to end once their sockets are shut down.
const CLOSING_TIME: Duration = Duration::from_millis(500);

/// Number of ports to try after one that is in use.
const NEXT_PORTS: u16 = 100;

/// The options of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// The address to listen at, `ADDR:PORT`.
    pub address: String,
    /// True to take the next free port if this one is in use.
    pub next_free: bool,
    /// Names that are accepted in the `Host` header besides the loopback ones.
    pub hosts: Vec<String>,
    /// True to accept any IP address in `Host`, for a server whose address was configured. A foreign page can make a
    /// browser send a name that resolves to this machine, but not an address.
    pub ip_hosts: bool,
}

impl Default for HttpOptions {
    /// 127.0.0.1:4040, or the next free port; loopback names only.
    fn default() -> Self {
        HttpOptions {
            address: "127.0.0.1:4040".to_owned(),
            next_free: true,
            hosts: Vec::new(),
            ip_hosts: false,
        }
    }
}

/// A running server; dropping it stops it at once.
pub struct HttpServer {
    shared: Arc<Shared>,
    accepting: Option<Thread>,
    address: SocketAddr,
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpServer").field("address", &self.address).finish_non_exhaustive()
    }
}

struct Shared {
    shown: Mutex<Shown>,
    clock: Arc<dyn Clock>,
    hosts: Vec<String>,
    ip_hosts: bool,
    bell: OwnedFd,
    /// Set when a thread of the server panics, which is no reason to stop the stream.
    poison: Poison,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stop: bool,
    next: u64,
    /// The open connections; first the one that has been without a new request for longest.
    open: Vec<Open>,
    threads: Vec<Thread>,
}

/// An open connection.
struct Open {
    number: u64,
    /// A handle of its socket, to shut it down.
    socket: TcpStream,
}

impl HttpServer {
    /// Starts to serve a stream, or a start in progress.
    ///
    /// # Errors
    /// If the address cannot be bound, or the operating system refuses a thread or a descriptor.
    pub fn start(shown: impl Into<Shown>, options: &HttpOptions) -> Result<HttpServer> {
        let failed = |err| Error::io(format!("cannot listen for HTTP on {}", options.address), err);
        let listener = bind(&options.address, options.next_free).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let shared = Arc::new(Shared {
            shown: Mutex::new(shown.into()),
            clock: SystemClock::new(),
            ip_hosts: options.ip_hosts,
            hosts: options.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            bell: bell.map_err(|err| failed(err.into()))?,
            poison: Poison::new(),
            state: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let run = move || accepting.accept(&listener);
        let thread = thread::spawn("http", &shared.poison, run).map_err(failed)?;
        Ok(HttpServer { shared, accepting: Some(thread), address })
    }

    /// Shows this from now on. Once there is a stream, the progress of its start is not shown any more.
    pub fn show(&self, shown: impl Into<Shown>) {
        let (mut now, next) = (self.shared.shown.lock(), shown.into());
        if !matches!((&*now, &next), (Shown::Stream(_), Shown::Starting(_))) {
            *now = next;
        }
    }

    /// The address that the server listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        let threads = {
            let mut state = self.shared.state.lock();
            state.stop = true;
            for open in &state.open {
                // A socket that is closed already needs no shutdown.
                let _ = open.socket.shutdown(Shutdown::Both);
            }
            std::mem::take(&mut state.threads)
        };
        // If the counter is full, the thread is being woken already.
        let _ = rustix::io::write(&self.shared.bell, &1_u64.to_ne_bytes());
        let clock = SystemClock::new();
        let by = clock.now().plus(CLOSING_TIME);
        for thread in self.accepting.take().into_iter().chain(threads) {
            // A stuck thread holds a socket that is shut down, and nothing else.
            let _ = join_until(clock.as_ref(), thread, by);
        }
    }
}

/// Binds the port, or one of the next ones if this one is in use and `next_free` allows it.
fn bind(address: &str, next_free: bool) -> io::Result<TcpListener> {
    let wanted = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let first = match TcpListener::bind(wanted) {
        Err(err) if next_free && err.kind() == io::ErrorKind::AddrInUse => err,
        bound => return bound,
    };
    let ports = (1..=NEXT_PORTS).filter_map(|step| wanted.port().checked_add(step));
    let mut bound =
        ports.filter_map(|port| TcpListener::bind(SocketAddr::new(wanted.ip(), port)).ok());
    bound.next().ok_or(first)
}

impl Shared {
    /// The body of the accepting thread.
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while !self.state.lock().stop {
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [
                        PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
                        PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN),
                    ];
                    // An interrupted wait only checks again.
                    let _ = poll(&mut fds, None);
                }
                // Without descriptors, the next connection waits until one of ours has ended, or for the stop.
                Err(_) => {
                    let mut fds = [PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN)];
                    let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                    let _ = poll(&mut fds, Some(&wait));
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream) {
        let served = prepare(&stream).and_then(|()| {
            let mut state = self.state.lock();
            state.threads.retain(|thread| !thread.is_done());
            if state.stop {
                drop(state);
                return turn_away(stream);
            }
            if state.open.len() >= CONNECTIONS_MAX {
                // The connection's thread finds the socket shut down, and ends.
                let _ = state.open.remove(0).socket.shutdown(Shutdown::Both);
            }
            state.next += 1;
            let number = state.next;
            state.open.push(Open { number, socket: stream.try_clone()? });
            let shared = Arc::clone(self);
            let run = move || {
                let _closed = Closed(&shared, number);
                // The end of a connection concerns only its peer.
                let _ = shared.serve(stream, number);
            };
            let started = thread::spawn(format!("http-{number}"), &self.poison, run);
            match started {
                Ok(thread) => state.threads.push(thread),
                Err(_) => state.open.retain(|open| open.number != number),
            }
            Ok(())
        });
        // A peer that left before it was served does not concern us.
        drop(served);
    }

    /// The body of a connection's thread: request after request until either side closes.
    fn serve(&self, mut stream: TcpStream, number: u64) -> io::Result<()> {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        let mut since = self.clock.now();
        loop {
            match parse(&bytes) {
                Parsed::Request(request) => {
                    let page = self.page(&request);
                    let keep_alive = request.keep_alive && self.asked_again(number);
                    write_page(&mut stream, &page, keep_alive, request.head_only)?;
                    if !keep_alive {
                        return end(&stream);
                    }
                    bytes.drain(..request.len);
                    since = self.clock.now();
                    continue;
                }
                Parsed::Refused(refusal) => {
                    let page = Page::text(refusal.status, refusal.why);
                    write_page(&mut stream, &page, false, false)?;
                    return end(&stream);
                }
                Parsed::More => {}
            }
            let read = stream.read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            if bytes.is_empty() {
                since = self.clock.now();
            } else if self.clock.now().since(since) > READ_TIME {
                write_page(
                    &mut stream,
                    &Page::text(408, "the request took too long"),
                    false,
                    false,
                )?;
                return end(&stream);
            }
            bytes.extend_from_slice(&chunk[..read]);
        }
    }

    /// Moves a connection with a new request to the end of the line of those to give up. False if the server stops.
    fn asked_again(&self, number: u64) -> bool {
        let mut state = self.state.lock();
        if let Some(at) = state.open.iter().position(|open| open.number == number) {
            state.open[at..].rotate_left(1);
        }
        !state.stop
    }

    fn page(&self, request: &Request) -> Page {
        let host = request.host.as_str();
        let is_address = self.ip_hosts && host.parse::<IpAddr>().is_ok();
        if is_loopback(host) || is_address || self.hosts.iter().any(|other| other == host) {
            let shown = self.shown.lock().clone();
            answer(request, &shown)
        } else {
            let why = "this name is not served here: add it to `http_hosts`";
            Page::text(403, why)
        }
    }
}

/// Forgets a connection when its thread ends, even by a panic.
struct Closed<'a>(&'a Shared, u64);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.state.lock().open.retain(|open| open.number != self.1);
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_TIME))?;
    stream.set_write_timeout(Some(WRITE_TIME))
}

/// Answers 503 to a peer that connects during the stop, without a thread for it.
fn turn_away(mut stream: TcpStream) -> io::Result<()> {
    stream.set_write_timeout(Some(TURN_AWAY_TIME))?;
    stream.set_read_timeout(Some(TURN_AWAY_TIME))?;
    write_page(&mut stream, &Page::text(503, "the server is stopping"), false, false)?;
    end(&stream)
}

/// Closes in order: with unread bytes in the socket, a close would be a reset, and the peer would lose the answer.
fn end(mut stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(TURN_AWAY_TIME))?;
    let _ = stream.read(&mut [0; 4096])?;
    Ok(())
}

fn write_page(
    stream: &mut TcpStream,
    page: &Page,
    keep_alive: bool,
    head_only: bool,
) -> io::Result<()> {
    let (status, kind, len) = (page.status, page.kind, page.body.len());
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let vary =
        if page.vary.is_empty() { String::new() } else { format!("Vary: {}\r\n", page.vary) };
    let mut answer = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\
         Connection: {connection}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{vary}{allow}\r\n",
        reason(status)
    );
    if !head_only {
        answer.push_str(&page.body);
    }
    stream.write_all(answer.as_bytes())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        _ => "Service Unavailable",
    }
}

/// True if a `Host` is a loopback name: no foreign web page can make a browser send that.
fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host == "::1"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn loopback_names() {
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "localhost.example", "10.0.0.1", "127.0.0.1.example", "127.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_taken_port_is_an_error_unless_the_next_may_be_used() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = taken.local_addr().expect("an address").to_string();
        let kind = bind(&address, false).expect_err("taken").kind();
        assert_eq!(kind, io::ErrorKind::AddrInUse);
        let next = bind(&address, true).expect("the next one");
        assert_ne!(next.local_addr().expect("an address").to_string(), address);
    }
}
