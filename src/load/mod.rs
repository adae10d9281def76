//! The data server: sends lines over TCP, to peers that dial in or to peers that it dials, paced or as fast as they
//! take them. `tidemill load` and the `generate` source run it; it knows of neither.
//!
//! ```text
//! text or file ──▶ cut at line ends ──▶ [stamp] ──▶ piece ──▶ the next connection that can take it
//!   lines of Zipf    what is due by        intended     whole lines stay on one connection; what a
//!   words, or bytes  the schedule, at      send time    broken one did not get goes to another
//!   of a file        most 256 KiB
//! ```
//! With RELP the lines are frames, of which each connection has at most a window unanswered, and the answers are counted.
//!
//! One thread, `load-0`, serves all connections with non-blocking writes: one core's writes saturate loopback, limits
//! are exact without sharing counters, and a slow connection only keeps its own piece. `load-alarm` wakes it at
//! deadlines.

mod alarm;
mod cut;
mod peers;
mod piece;
mod relp;
mod room;
mod schedule;
mod server;
mod text;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mio::Waker;

use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicU64, Mailbox, Mutex, Ordering, Poison, Signal, StopToken};
use crate::time::Clock;
use crate::{Error, Result};

use server::Server;

pub(crate) use text::Random;

/// Mean bytes of a line if nothing else is said.
pub const LINE_LEN: usize = 100;

/// Different words if nothing else is said.
pub const WORDS: usize = 10_000;

/// Records of a RELP connection that wait for their answers at most, if nothing else is said; rsyslog's default.
pub const WINDOW: usize = 128;

/// The largest such window: what is unanswered is remembered.
const WINDOW_MAX: usize = 1 << 20;

/// Events that wait to be looked at; when more happen, the newest are dropped.
const EVENTS_MAX: usize = 1024;

/// Which side dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Peers dial in to this `ADDR:PORT`; port 0 lets the system choose.
    Listen(String),
    /// The load dials this `HOST:PORT`.
    Connect(String),
}

/// The form in which lines are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As they are.
    Lines,
    /// As frames of RELP, each without its line feed. Only a load that dials can be a client.
    Relp {
        /// The most records of a connection that may wait for their answers, at least 1.
        window: usize,
    },
}

/// When a load is done; whichever comes first, or never. Limits are of the whole load, not of each connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// The time for which to send, from the moment when all connections are there.
    pub duration: Option<Duration>,
    /// The exact number of lines to send.
    pub records: Option<u64>,
    /// The most bytes to send, in whole lines; the headers of RELP's frames do not count.
    pub bytes: Option<u64>,
}

/// The settings of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Which side dials, and where.
    pub target: Target,
    /// The form in which the lines are sent.
    pub framing: Framing,
    /// Lines per second, open loop: line i is due i ÷ rate after the start. None sends as fast as the peers take it.
    pub rate: Option<u64>,
    /// When it is done.
    pub limit: Limit,
    /// Mean bytes of a line with its line feed, and with its stamp if every line has one.
    pub line_len: usize,
    /// Number of different words in the text.
    pub words: usize,
    /// Connections that are sent to at once. When listening, sending starts when this many peers have dialled in; later
    /// ones wait in the listen queue until one of them leaves.
    pub connections: usize,
    /// Connections that are held open besides and never sent to.
    pub idle: usize,
    /// Send this file's lines once, byte for byte, instead of the text.
    pub file: Option<PathBuf>,
    /// The first line and every `stamp`th after it start with their *intended* send time, nanoseconds since the epoch in 19
    /// digits, and a space; at least 1.
    pub stamp: Option<u64>,
    /// Chooses the text: same seed, words and line length, same bytes.
    pub seed: u64,
}

/// An event, for whoever shows it.
#[derive(Debug)]
pub enum Event {
    /// A peer is connected.
    Connected(SocketAddr),
    /// All connections are there, and sending starts.
    Started {
        /// Connections that are sent to.
        connections: usize,
        /// Connections that are only held open.
        idle: usize,
    },
    /// A peer was lost before the end. When listening, the next one is waited for.
    PeerLost {
        /// Whose connection it was.
        peer: SocketAddr,
        /// The error of the operating system.
        error: Error,
    },
    /// A peer that dialled in could not be taken.
    NotAccepted(Error),
}

/// The reason why a load ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A limit was reached, or the file ran out.
    Done,
    /// It was told to stop.
    Stopped,
}

/// The answers of all peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Records that were taken.
    pub acknowledged: u64,
    /// Bytes of those, without line feeds and headers.
    pub acknowledged_bytes: u64,
    /// Records that were answered with an error.
    pub refused: u64,
    /// Records that were sent, and not answered before the connection or the load ended.
    pub unanswered: u64,
}

impl Answers {
    /// Records that were answered.
    fn records(&self) -> u64 {
        self.acknowledged + self.refused
    }

    fn count(&mut self, is_good: bool, bytes: u64) {
        if is_good {
            self.acknowledged += 1;
            self.acknowledged_bytes += bytes;
        } else {
            self.refused += 1;
        }
    }
}

/// The report of a load.
#[derive(Debug)]
pub struct Report {
    /// Whole lines that the operating system took.
    pub lines: u64,
    /// Bytes that the operating system took.
    pub bytes: u64,
    /// The answers, if answers are expected.
    pub answers: Option<Answers>,
    /// The seconds for which it sent: from the moment when all connections were there to the last byte, or the last answer.
    pub seconds: f64,
    /// The furthest it fell behind its schedule; lines leave in ticks of a quarter of a millisecond, so less than one
    /// millisecond is ordinary. Zero without a rate.
    pub behind: Duration,
    /// Number of connections that were sent to, over the whole time.
    pub connections: u64,
    /// Number of them that were lost before the end.
    pub lost: u64,
    /// The reason for its end; an error if the peers it dialled were lost before a limit was reached, or did not acknowledge
    /// everything, or the file was unreadable.
    pub end: Result<End>,
}

/// The progress so far; any thread may look.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<(AtomicU64, AtomicU64)>);

impl Progress {
    /// Whole lines sent so far.
    pub fn lines(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Bytes sent so far.
    pub fn bytes(&self) -> u64 {
        self.0.1.load(Ordering::Relaxed)
    }

    fn add(&self, lines: u64, bytes: u64) {
        self.0.0.fetch_add(lines, Ordering::Relaxed);
        self.0.1.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Stops a load from any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: StopToken,
    waker: Arc<Waker>,
}

impl Stopper {
    /// Tells the load to stop: lines that were begun are finished if their peers take them, then it ends.
    pub fn stop(&self) {
        self.stop.stop();
        // It fails only when its poll is gone, and then there is nobody to wake.
        let _ = self.waker.wake();
    }
}

/// A running load; dropping it stops it and waits for its end.
#[derive(Debug)]
pub struct Load {
    stopper: Stopper,
    events: Mailbox<Event>,
    progress: Progress,
    local_addrs: Vec<SocketAddr>,
    report: Arc<Mutex<Option<Report>>>,
    thread: Option<Thread>,
}

/// Starts a load. When it returns, a listening one is bound; dialling and sending happen on its own thread.
///
/// # Errors
/// If the options make no sense, the address cannot be bound or found, the file cannot be opened, or the system gives
/// too few files or threads.
pub fn start(options: LoadOptions, clock: Arc<dyn Clock>, poison: &Poison) -> Result<Load> {
    check(&options)?;
    let stop = StopToken::new();
    let events = Mailbox::new(EVENTS_MAX);
    let progress = Progress::default();
    let server =
        Server::open(options, clock, poison, stop.clone(), events.clone(), progress.clone())?;
    let local_addrs = server.local_addrs().to_vec();
    let stopper = Stopper { stop, waker: server.waker() };
    let on_poison = stopper.clone();
    poison.on_set(move |_| on_poison.stop());
    let report = Arc::new(Mutex::new(None));
    let (slot, ended) = (Arc::clone(&report), events.clone());
    let body = move || {
        // Also a panic must not leave a reader of the events waiting.
        let _closing = Closing(ended);
        let done = server.run();
        *slot.lock() = Some(done);
    };
    let thread = thread::spawn("load-0", poison, body)
        .map_err(|err| Error::io("cannot start a thread", err))?;
    Ok(Load { stopper, events, progress, local_addrs, report, thread: Some(thread) })
}

/// Closes the mailbox when the thread's body ends, however it ends.
struct Closing(Mailbox<Event>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn check(options: &LoadOptions) -> Result<()> {
    let LoadOptions { rate, line_len, words, connections, .. } = options;
    let window = match options.framing {
        Framing::Lines => 1,
        Framing::Relp { window } => window,
    };
    let dials = matches!(options.target, Target::Connect(_));
    let rules = [
        (*rate != Some(0), "a rate is at least one line per second".to_owned()),
        (*line_len >= 2, "a line has at least 2 bytes: a letter and a line feed".to_owned()),
        (
            *line_len <= text::LINE_LEN_MAX,
            format!("a line has at most {} bytes", text::LINE_LEN_MAX),
        ),
        ((1..=text::WORDS_MAX).contains(words), format!("words are from 1 to {}", text::WORDS_MAX)),
        (*connections > 0, "a load has at least one connection".to_owned()),
        ((1..=WINDOW_MAX).contains(&window), format!("windows are from 1 to {WINDOW_MAX}")),
        (
            dials || options.framing == Framing::Lines,
            "a client of RELP dials its server: use a load that connects".to_owned(),
        ),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, text)) => Err(Error::Usage(text)),
        None => Ok(()),
    }
}

impl Load {
    /// The first address on which a listening load listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addrs.first().copied()
    }

    /// Every address at which a listening load listens.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// The events of the load. Closed when the load has ended.
    pub fn events(&self) -> &Mailbox<Event> {
        &self.events
    }

    /// Raised at each event and at the end.
    pub fn signal(&self) -> &Signal {
        self.events.signal()
    }

    /// The progress so far.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// A handle that stops this load.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Tells it to stop, without waiting.
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// True if its thread has ended.
    pub fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(Thread::is_done)
    }

    /// Waits for its end and says what it did.
    ///
    /// # Errors
    /// If its thread panicked; the poison has the text.
    pub fn join(mut self) -> Result<Report> {
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
        let report = self.report.lock().take();
        report.ok_or_else(|| Error::Failed("the load's thread panicked".to_owned()))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
