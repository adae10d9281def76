//! Reactors: an acceptor (`rxN-accept`) and several event loops (`rxN-io-K`). A connection is handed to the next loop
//! in turn, once, and stays there. See `event_loop`.

use std::io;
use std::net::TcpStream;

use crate::error::{Error, Result};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering};

use super::accept::{Acceptor, Bell, Seat, Seats, accept_until, prepare};
use super::event_loop;
use super::inbox::Handle;
use super::{HandlerFactory, IoDriver, Options, Peer};

/// State that the acceptor, the dialling threads and the stop share.
struct Shared {
    loops: Vec<Handle>,
    /// Number of connections that were handed out.
    next: AtomicUsize,
    seats: Seats,
    bell: Arc<Bell>,
    stopped: AtomicBool,
}

struct Driver {
    shared: Arc<Shared>,
    acceptor: Mutex<Option<Thread>>,
}

pub(super) fn start<H: HandlerFactory>(host: H, mut options: Options) -> Result<Box<dyn IoDriver>> {
    let acceptor = Acceptor::of(&mut options);
    let seats = Seats::new(options.connections_max);
    let bell = Bell::new().map_err(|err| Error::io("cannot make an eventfd", err))?;
    // From here on dropping the driver stops the threads that were started: a later step may fail.
    let mut shared = Shared {
        loops: Vec::new(),
        next: AtomicUsize::new(0),
        seats,
        bell,
        stopped: AtomicBool::new(false),
    };
    for number in 0..options.reactors.max(1) {
        let started = event_loop::start(&host, number, None, &shared.seats, &options);
        shared.loops.push(started.inspect_err(|_| shared.stop())?);
    }
    let shared = Arc::new(shared);
    let acceptor = acceptor.map(|acceptor| accept(&shared, acceptor, &options));
    let acceptor = acceptor.transpose().inspect_err(|_| shared.stop())?;
    Ok(Box::new(Driver { shared, acceptor: Mutex::new(acceptor) }))
}

fn accept(shared: &Arc<Shared>, acceptor: Acceptor, options: &Options) -> Result<Thread> {
    let name = format!("{}-accept", options.name);
    let shared = Arc::clone(shared);
    let run = move || {
        let stopped = || shared.stopped.load(Ordering::SeqCst);
        accept_until(stopped, acceptor, &shared.bell, &shared.seats, |stream, peer, seat| {
            shared.hand_over(stream, peer, seat)
        });
    };
    thread::spawn(&name, &options.poison, run)
        .map_err(|err| Error::io(format!("cannot start the thread `{name}`"), err))
}

impl Shared {
    fn hand_over(&self, stream: TcpStream, peer: Peer, seat: Seat) -> io::Result<()> {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.loops.len();
        self.loops[next].attach(stream, peer, seat)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.bell.ring();
        self.loops.iter().for_each(Handle::stop);
    }
}

impl IoDriver for Driver {
    fn attach(&self, stream: TcpStream, peer: Peer) -> io::Result<()> {
        prepare(&stream)?;
        self.shared.hand_over(stream, peer, self.shared.seats.take_or_say()?)
    }

    fn stop(&self) {
        self.shared.stop();
    }

    fn close(&self) {
        self.shared.loops.iter().for_each(Handle::close);
    }

    fn threads(&self) -> Vec<Thread> {
        let acceptor = self.acceptor.lock().take();
        acceptor.into_iter().chain(self.shared.loops.iter().filter_map(Handle::thread)).collect()
    }
}
