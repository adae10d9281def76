//! Pool, or pseudo-async: an acceptor (`rxN-accept`) and a bounded pool of blocking readers (`rxN-pool-K`).
//!
//! A connection occupies a thread until it ends. When all are occupied, accepted connections wait unread, at most
//! [`WAITING_MAX`] of them; beyond that nothing is accepted. That is this model's weakness, so two counters show it: the
//! number that waits, and the longest wait. No accepted connection is closed for lack of a thread.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;

use crate::error::{Error, Result};
use crate::metrics::ReceiverCounters;
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Condvar, Mutex, Poison};
use crate::time::{Clock, Moment};

use super::accept::{Acceptor, Bell, Seats, accept_until, prepare, stopping};
use super::blocking::{self, Accepted, Reader};
use super::{HandlerFactory, IoDriver, Options, Peer};

/// Accepted connections that may wait for a thread.
pub(super) const WAITING_MAX: usize = 1_024;

/// Connections that wait for a thread, the oldest first.
struct Backlog<T = Accepted> {
    state: Mutex<State<T>>,
    /// Told when a connection comes, and at the stop.
    more: Condvar,
    /// Told when one was taken, and at the stop.
    room: Condvar,
    counters: Arc<ReceiverCounters>,
    clock: Arc<dyn Clock>,
}

struct State<T> {
    waiting: VecDeque<(T, Moment)>,
    stop: bool,
}

impl<T> Backlog<T> {
    fn new(counters: &Arc<ReceiverCounters>, clock: &Arc<dyn Clock>) -> Self {
        Backlog {
            state: Mutex::new(State { waiting: VecDeque::new(), stop: false }),
            more: Condvar::new(),
            room: Condvar::new(),
            counters: Arc::clone(counters),
            clock: Arc::clone(clock),
        }
    }

    /// Waits until another connection may be accepted; woken by a thread that takes one, or by the stop.
    fn wait_for_room(&self) {
        let mut state = self.state.lock();
        while state.waiting.len() >= WAITING_MAX && !state.stop {
            self.room.wait(&mut state);
        }
    }

    fn put(&self, accepted: T) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.stop {
            return Err(stopping());
        }
        if state.waiting.len() >= WAITING_MAX {
            return Err(io::Error::other(format!("{WAITING_MAX} connections wait for a thread")));
        }
        state.waiting.push_back((accepted, self.clock.now()));
        self.counters.waiting.add(1);
        self.count_longest(&state);
        drop(state);
        self.more.notify_one();
        Ok(())
    }

    /// The oldest, if one waits.
    fn try_take(&self) -> Option<T> {
        self.take_from(&mut self.state.lock())
    }

    /// Waits for a connection; none at the stop.
    fn take(&self) -> Option<T> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.stop {
            self.more.wait(&mut state);
        }
        self.take_from(&mut state)
    }

    fn take_from(&self, state: &mut State<T>) -> Option<T> {
        self.count_longest(state);
        let (accepted, _) = state.waiting.pop_front()?;
        self.counters.waiting.sub(1);
        self.room.notify_one();
        Some(accepted)
    }

    fn count_longest(&self, state: &State<T>) {
        if let Some((_, since)) = state.waiting.front() {
            let longest = self.clock.now().since(*since).as_micros();
            self.counters.waited_us_max.raise_to(u64::try_from(longest).unwrap_or(u64::MAX));
        }
    }

    /// The sockets of those that wait are closed.
    fn stop(&self) {
        let mut state = self.state.lock();
        state.stop = true;
        self.counters.waiting.sub(state.waiting.len() as u64);
        state.waiting.clear();
        drop(state);
        self.more.notify_all();
        self.room.notify_all();
    }
}

struct Shared<H> {
    reading: blocking::Shared<H>,
    backlog: Backlog,
    seats: Seats,
    bells: Mutex<Vec<Arc<Bell>>>,
    threads: Mutex<Vec<Thread>>,
}

struct Driver<H>(Arc<Shared<H>>);

pub(super) fn start<H: HandlerFactory>(host: H, mut options: Options) -> Result<Box<dyn IoDriver>> {
    let backlog = Backlog::new(&options.counters, &options.clock);
    let shared = Arc::new(Shared {
        reading: blocking::Shared::new(host, &options),
        backlog,
        seats: Seats::new(options.connections_max),
        bells: Mutex::default(),
        threads: Mutex::default(),
    });
    let acceptor = Acceptor::of(&mut options);
    let started = start_threads(&shared, acceptor, &options);
    if let Err(err) = started {
        // Those that were started end by themselves.
        shared.stop();
        return Err(err);
    }
    Ok(Box::new(Driver(shared)))
}

fn start_threads<H: HandlerFactory>(
    shared: &Arc<Shared<H>>,
    acceptor: Option<Acceptor>,
    options: &Options,
) -> Result<()> {
    for number in 0..options.pool_threads.max(1) {
        let reading = Arc::clone(shared);
        let name = format!("{}-pool-{number}", options.name);
        shared.spawn(name, &options.poison, move |bell| reading.read(&bell))?;
    }
    if let Some(acceptor) = acceptor {
        let accepting = Arc::clone(shared);
        let name = format!("{}-accept", options.name);
        shared.spawn(name, &options.poison, move |bell| accepting.accept(acceptor, &bell))?;
    }
    Ok(())
}

impl<H: HandlerFactory> Shared<H> {
    fn spawn(
        &self,
        name: String,
        poison: &Poison,
        body: impl FnOnce(Arc<Bell>) + Send + 'static,
    ) -> Result<()> {
        let started = Bell::new().and_then(|bell| {
            self.bells.lock().push(Arc::clone(&bell));
            thread::spawn(&name, poison, move || body(bell))
        });
        let thread =
            started.map_err(|err| Error::io(format!("cannot start the thread `{name}`"), err))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// The acceptor's thread.
    fn accept(&self, acceptor: Acceptor, bell: &Bell) {
        let stopped = || {
            self.backlog.wait_for_room();
            self.reading.is_stopped()
        };
        accept_until(stopped, acceptor, bell, &self.seats, |stream, peer, seat| {
            self.backlog.put(Accepted { stream, peer, seat })
        });
    }

    /// A reader's thread: one connection after the other.
    fn read(&self, bell: &Arc<Bell>) {
        let mut reader = Reader::new(&self.reading, bell);
        let mut next = None;
        while let Some(opened) =
            next.take().or_else(|| self.backlog.take().map(|waiting| reader.open(waiting)))
        {
            let (session, how) = reader.read(opened);
            // The next is opened before the end of this one is reported: an observer that counts connections to find the
            // end of all must not find it while some still wait.
            next = self.backlog.try_take().map(|waiting| reader.open(waiting));
            reader.closed(session, how);
        }
        reader.finish();
    }

    fn stop(&self) {
        self.reading.stop();
        self.backlog.stop();
        self.bells.lock().iter().for_each(|bell| bell.ring());
    }
}

impl<H: HandlerFactory> IoDriver for Driver<H> {
    fn attach(&self, stream: TcpStream, peer: Peer) -> io::Result<()> {
        prepare(&stream)?;
        let seat = self.0.seats.take_or_say()?;
        self.0.backlog.put(Accepted { stream, peer, seat })
    }

    fn stop(&self) {
        self.0.stop();
    }

    fn close(&self) {
        self.0.reading.close();
        self.0.bells.lock().iter().for_each(|bell| bell.ring());
    }

    fn threads(&self) -> Vec<Thread> {
        std::mem::take(&mut self.0.threads.lock())
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::sync::{Mailbox, Poison, Signal};
    use crate::time::{Interval, ManualClock};

    fn backlog(clock: &ManualClock) -> Arc<Backlog<usize>> {
        Arc::new(Backlog::new(&Arc::default(), &(Arc::new(clock.clone()) as Arc<dyn Clock>)))
    }

    /// Fills it, beginning with 0.
    fn fill(backlog: &Backlog<usize>) {
        for number in 0..WAITING_MAX {
            backlog.wait_for_room();
            backlog.put(number).expect("there is room");
        }
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let clock = ManualClock::new();
        let backlog = backlog(&clock);
        fill(&backlog);
        assert_eq!(backlog.counters.waiting.value(), WAITING_MAX as u64);
        let full = backlog.put(WAITING_MAX).expect_err("one more than may wait");
        assert_eq!(full.to_string(), "1024 connections wait for a thread");
        clock.advance(Interval::millis(5).as_duration());
        assert_eq!(backlog.take(), Some(0), "the oldest");
        assert_eq!(backlog.counters.waited_us_max.value(), 5_000);
        backlog.put(WAITING_MAX).expect("a place was given back");
        let order: Vec<_> = std::iter::from_fn(|| backlog.try_take()).collect();
        assert_eq!(order, (1..=WAITING_MAX).collect::<Vec<_>>());
        assert_eq!(backlog.counters.waiting.value(), 0);
    }

    #[test]
    fn who_accepts_waits_for_room_until_there_is_some_or_the_stop() {
        let check = |change: fn(&Backlog<usize>)| {
            let backlog = backlog(&ManualClock::new());
            fill(&backlog);
            let (waits, order) = (Signal::new(), Mailbox::new(2));
            let (acceptor, told, came) = (Arc::clone(&backlog), waits.clone(), order.clone());
            let body = move || {
                told.raise();
                acceptor.wait_for_room();
                came.send("accepts").expect("open");
            };
            let thread = thread::spawn("acceptor", &Poison::new(), body).expect("a thread");
            waits.wait();
            order.send("changes").expect("open");
            change(&backlog);
            thread.join();
            let seen: Vec<_> = std::iter::from_fn(|| order.try_recv()).collect();
            assert_eq!(seen, ["changes", "accepts"]);
        };
        check(|backlog| assert_eq!(backlog.take(), Some(0)));
        check(Backlog::stop);
    }

    #[test]
    fn after_the_stop_nobody_waits() {
        let backlog = backlog(&ManualClock::new());
        fill(&backlog);
        backlog.stop();
        assert_eq!((backlog.take(), backlog.counters.waiting.value()), (None, 0));
        assert!(backlog.put(1).is_err());
    }
}
