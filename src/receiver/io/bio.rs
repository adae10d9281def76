//! BIO: one thread per connection (`rxN-conn-K`) that blocks, and one that accepts (`rxN-accept`).
//!
//! A thread blocks in poll(2) on its socket and an eventfd, not in recv(2): so the stop, a resume and replies asked for
//! by another thread reach it, and it holds no buffer while it waits.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

use rustix::event::PollFlags;

use crate::error::{Error, Result};
use crate::metrics::ReceiverCounters;
use crate::slab::Pool;
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mutex, Poison};

use super::accept::{Acceptor, Bell, Seat, Seats, accept_until, prepare, stopping, wait};
use super::{Closed, Flow, Host, IoDriver, Lane, Options, Peer, ReadBuffers, Remote, send_some};

/// What the threads of one receiver share.
struct Shared<H> {
    host: H,
    name: String,
    pool: Arc<Pool>,
    counters: Arc<ReceiverCounters>,
    poison: Poison,
    seats: Seats,
    reply_bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The bells of the threads that run, by their number; the acceptor's is 0.
    bells: Vec<(u64, Arc<Bell>)>,
    /// Threads to join; ended ones are reaped when a new one starts.
    threads: Vec<Thread>,
    next: u64,
    stop: bool,
}

struct Driver<H>(Arc<Shared<H>>);

pub(super) fn start<H: Host>(host: H, options: Options) -> Result<Box<dyn IoDriver>> {
    let shared = Arc::new(Shared {
        host,
        name: options.name,
        pool: options.pool,
        counters: options.counters,
        poison: options.poison,
        seats: Seats::new(options.connections_max),
        reply_bytes_max: options.reply_bytes_max,
        state: Mutex::new(State::default()),
    });
    if let Some(listener) = options.listener {
        let name = format!("{}-accept", shared.name);
        let accepting = Arc::clone(&shared);
        let started = Bell::new().and_then(|bell| {
            let mut state = shared.state.lock();
            state.bells.push((0, Arc::clone(&bell)));
            let acceptor = Acceptor::new(listener, &shared.counters);
            let run = move || accepting.accept(acceptor, &bell);
            state.threads.push(thread::spawn(&name, &shared.poison, run)?);
            Ok(())
        });
        started.map_err(|err| Error::io(format!("cannot start the thread `{name}`"), err))?;
    }
    Ok(Box::new(Driver(shared)))
}

impl<H: Host> IoDriver for Driver<H> {
    fn attach(&self, stream: TcpStream, peer: Peer) -> io::Result<()> {
        prepare(&stream)?;
        self.0.serve(stream, peer, self.0.seats.take_or_say()?)
    }

    fn stop(&self) {
        let mut state = self.0.state.lock();
        state.stop = true;
        for (_, bell) in &state.bells {
            bell.ring();
        }
    }

    fn threads(&self) -> Vec<Thread> {
        std::mem::take(&mut self.0.state.lock().threads)
    }
}

impl<H: Host> Shared<H> {
    fn is_stopped(&self) -> bool {
        self.state.lock().stop
    }

    /// The acceptor's thread.
    fn accept(self: &Arc<Self>, acceptor: Acceptor, bell: &Bell) {
        accept_until(
            || self.is_stopped(),
            acceptor,
            bell,
            &self.seats,
            |stream, peer, seat| self.serve(stream, peer, seat),
        );
    }

    /// Starts the thread of a connection.
    fn serve(self: &Arc<Self>, stream: TcpStream, peer: Peer, seat: Seat) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.stop {
            return Err(stopping());
        }
        state.threads.retain(|thread| !thread.is_done());
        let bell = Bell::new()?;
        state.next += 1;
        let number = state.next;
        let (shared, own) = (Arc::clone(self), Arc::clone(&bell));
        let name = format!("{}-conn-{number}", self.name);
        let run = move || {
            Reader::new(&shared, stream, peer, &own).run(seat);
            shared.state.lock().bells.retain(|(other, _)| *other != number);
        };
        state.threads.push(thread::spawn(name, &self.poison, run)?);
        state.bells.push((number, bell));
        Ok(())
    }
}

/// One connection on its own thread.
struct Reader<'a, H: Host> {
    shared: &'a Shared<H>,
    stream: TcpStream,
    lane: H::Lane,
    session: <H::Lane as Lane>::Session,
    bell: &'a Bell,
    out: Vec<u8>,
    buffers: ReadBuffers,
}

impl<'a, H: Host> Reader<'a, H> {
    fn new(shared: &'a Shared<H>, stream: TcpStream, peer: Peer, bell: &'a Arc<Bell>) -> Self {
        let (waking, asking) = (Arc::clone(bell), Arc::clone(bell));
        let mut lane = shared.host.lane(Arc::new(move || waking.ring()));
        let session = lane.open(peer, Remote::new(move || asking.ring()));
        let buffers = ReadBuffers::new(&shared.pool);
        Reader { shared, stream, lane, session, bell, out: Vec::new(), buffers }
    }

    fn run(mut self, seat: Seat) {
        let how = self.read_until_closed();
        self.buffers.release();
        drop(self.stream);
        drop(seat);
        self.lane.closed(self.session, how);
        self.lane.finish();
    }

    fn read_until_closed(&mut self) -> Closed {
        loop {
            if self.shared.is_stopped() {
                return Closed::Stopped;
            }
            self.lane.replies(&mut self.session, &mut self.out);
            if let Err(err) = send_some(&mut self.stream, &mut self.out) {
                return Closed::Reset(err);
            }
            if self.out.len() > self.shared.reply_bytes_max || !self.lane.ready() {
                self.block(PollFlags::empty());
                continue;
            }
            match self.buffers.read(&mut self.stream) {
                Ok(0) => return self.send_the_rest(),
                Ok(len) => {
                    self.shared.counters.bytes.add(len as u64);
                    if let Flow::Close(why) =
                        self.buffers.hand_over(&mut self.lane, &mut self.session, len)
                    {
                        self.lane.replies(&mut self.session, &mut self.out);
                        // The connection is closed whether or not the peer takes the last replies.
                        let _ = send_some(&mut self.stream, &mut self.out);
                        return Closed::Refused(why);
                    }
                    self.lane.turn();
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => self.block(PollFlags::IN),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Closed::Reset(err),
            }
        }
    }

    /// The peer closed; it is still sent what it was promised.
    fn send_the_rest(&mut self) -> Closed {
        self.lane.replies(&mut self.session, &mut self.out);
        loop {
            if let Err(err) = send_some(&mut self.stream, &mut self.out) {
                return Closed::Reset(err);
            }
            if self.out.is_empty() {
                return Closed::End;
            }
            if self.shared.is_stopped() {
                return Closed::Stopped;
            }
            self.block(PollFlags::empty());
            self.lane.replies(&mut self.session, &mut self.out);
        }
    }

    /// Waits for the socket, as far as `flags` says, for room to send if something is unsent, or for the bell.
    fn block(&mut self, mut flags: PollFlags) {
        self.buffers.release();
        if !self.out.is_empty() {
            flags |= PollFlags::OUT;
        }
        if flags.is_empty() {
            wait(&[], self.bell, None);
        } else {
            wait(&[(self.stream.as_fd(), flags)], self.bell, None);
        }
    }
}
