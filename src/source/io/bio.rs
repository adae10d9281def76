//! BIO: one thread per connection (`rxN-conn-K`) that blocks, and one that accepts (`rxN-accept`). See `blocking`.

use std::io;
use std::net::TcpStream;

use crate::error::{Error, Result};
use crate::sync::planted::{Planted, planted};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mutex, Poison};

use super::accept::{Acceptor, Bell, Seat, Seats, accept_until, prepare, stopping, wait};
use super::blocking::{self, Accepted, Reader};
use super::{HandlerFactory, IoDriver, Options, Peer};

/// State that the threads of one receiver share.
struct Shared<H> {
    reading: blocking::Shared<H>,
    name: String,
    poison: Poison,
    seats: Seats,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The bells of the threads that run, by their number; the acceptor's is 0.
    bells: Vec<(u64, Arc<Bell>)>,
    /// Threads to join; ended ones are reaped when a new one starts.
    threads: Vec<Thread>,
    next: u64,
}

struct Driver<H>(Arc<Shared<H>>);

pub(super) fn start<H: HandlerFactory>(host: H, mut options: Options) -> Result<Box<dyn IoDriver>> {
    let acceptor = Acceptor::of(&mut options);
    let shared = Arc::new(Shared {
        reading: blocking::Shared::new(host, &options),
        name: options.name,
        poison: options.poison,
        seats: Seats::new(options.connections_max),
        state: Mutex::new(State::default()),
    });
    if let Some(acceptor) = acceptor {
        let name = format!("{}-accept", shared.name);
        let accepting = Arc::clone(&shared);
        let started = Bell::new().and_then(|bell| {
            let mut state = shared.state.lock();
            state.bells.push((0, Arc::clone(&bell)));
            let run = move || accepting.accept(acceptor, &bell);
            state.threads.push(thread::spawn(&name, &shared.poison, run)?);
            Ok(())
        });
        started.map_err(|err| Error::io(format!("cannot start the thread `{name}`"), err))?;
    }
    Ok(Box::new(Driver(shared)))
}

impl<H: HandlerFactory> IoDriver for Driver<H> {
    fn attach(&self, stream: TcpStream, peer: Peer) -> io::Result<()> {
        prepare(&stream)?;
        self.0.serve(stream, peer, self.0.seats.take_or_say()?)
    }

    fn stop(&self) {
        let state = self.0.state.lock();
        self.0.reading.stop();
        for (_, bell) in &state.bells {
            bell.ring();
        }
    }

    fn close(&self) {
        let state = self.0.state.lock();
        self.0.reading.close();
        for (_, bell) in &state.bells {
            bell.ring();
        }
    }

    fn threads(&self) -> Vec<Thread> {
        std::mem::take(&mut self.0.state.lock().threads)
    }
}

impl<H: HandlerFactory> Shared<H> {
    /// The acceptor's thread.
    fn accept(self: &Arc<Self>, acceptor: Acceptor, bell: &Bell) {
        let stopped = || self.reading.is_stopped();
        accept_until(stopped, acceptor, bell, &self.seats, |stream, peer, seat| {
            self.serve(stream, peer, seat)
        });
    }

    /// Starts the thread of a connection.
    fn serve(self: &Arc<Self>, stream: TcpStream, peer: Peer, seat: Seat) -> io::Result<()> {
        let mut state = self.state.lock();
        if self.reading.is_stopped() {
            return Err(stopping());
        }
        state.threads.retain(|thread| !thread.is_done());
        let bell = Bell::new()?;
        state.next += 1;
        let number = state.next;
        let (shared, own) = (Arc::clone(self), Arc::clone(&bell));
        let name = format!("{}-conn-{number}", self.name);
        let run = move || {
            let mut reader = Reader::new(&shared.reading, &own);
            let opened = reader.open(Accepted { stream, peer, seat });
            let (session, how) = reader.read(opened);
            reader.closed(session, how);
            reader.finish();
            if planted(Planted::ThreadLingers) {
                wait(&[], &own, None);
            }
            shared.state.lock().bells.retain(|(other, _)| *other != number);
        };
        state.threads.push(thread::spawn(name, &self.poison, run)?);
        state.bells.push((number, bell));
        Ok(())
    }
}
