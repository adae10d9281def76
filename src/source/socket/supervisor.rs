//! `SocketReceiver`: the supervisor of one socket source. Dials on the threads `rxN-dial-K`, one for each address.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::metrics::{Event, EventBus, ReceiverCounters, TallyKind};
use crate::net::listen::{Bound, NotBound, expect_free, listen};
use crate::net::lookup::Names;
use crate::source::away::Away;
use crate::source::engine::{BlockOptions, Engine, OnEnd, RateOptions, When, join_all};
use crate::source::ingest::handover::BlockTarget;
use crate::source::io::{self as models, Closed, IoDriver, IoModel, OnRefusal, Options, Peer};
use crate::source::pause::Pause;
use crate::source::running::{Cutter, RunningSource, Supervisor};
use crate::source::socket::dialer::{self, BackOff, Interrupt};
use crate::source::socket::oversized::{OversizedOptions, OversizedStore, OversizedThread};
use crate::source::socket::session::{AckAt, Handing, Intake, IntakeHandlers, Observer};
use crate::storage::Directory;
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicBool, Mutex, Signal, StopToken};
use crate::time::{Clock, Interval, Moment};

/// Peers that the kernel may hold for us until they are accepted.
const BACKLOG: i32 = 4096;

/// Unsent reply bytes beyond which a connection is not read from.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// The side that begins a connection, and the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The engine dials these `HOST:PORT`s, each again after every end, with bounded back-off.
    Connect(Vec<String>),
    /// Peers dial the engine here, at `ADDR:PORT`; port 0 takes a free one.
    Listen(String),
}

/// The options of a socket source; no defaults here, `config` has them.
#[derive(Clone, Debug)]
pub(crate) struct SocketOptions {
    /// The source's name in messages.
    pub(crate) source: String,
    /// Its number.
    pub(crate) number: u32,
    pub(crate) direction: Direction,
    /// Resolves names to addresses.
    pub(crate) names: Names,
    pub(crate) io_model: IoModel,
    pub(crate) framing: Framing,
    pub(crate) ack: AckAt,
    /// The directory for whole over-long records, if the framing acknowledges.
    pub(crate) dead_letter: Option<PathBuf>,
    pub(crate) record_bytes_max: usize,
    pub(crate) connections_max: usize,
    pub(crate) pool_threads: usize,
    pub(crate) reactors: usize,
    pub(crate) block_interval: Interval,
    pub(crate) block_bytes_max: u64,
    pub(crate) ends: When,
    pub(crate) rate: Option<RateOptions>,
}

/// The threads of a socket source.
pub(crate) struct SocketReceiver {
    driver: Arc<dyn IoDriver>,
    handing: Handing,
    /// Makes over-long records durable, if they are put aside.
    asides: Option<OversizedThread>,
    dialling: Arc<Dialling>,
    /// The dial threads, and the one of the rate limit.
    own_threads: Vec<Thread>,
}

/// State that the dial threads, the io threads and the stop share.
struct Dialling {
    options: SocketOptions,
    engine: Engine,
    counters: Arc<ReceiverCounters>,
    interrupt: Interrupt,
    stop: StopToken,
    /// For each dialled address: notified when its connection is over.
    lines: Vec<Line>,
    /// Peers that dialled us and are here now.
    here: Mutex<u64>,
    on_end: OnEnd,
    over: Mutex<Over>,
    ended: AtomicBool,
}

#[derive(Default)]
struct Line {
    over: Signal,
    how: Mutex<Option<Result<(), String>>>,
}

/// Dialled addresses that have ended for good, and the first error.
#[derive(Default)]
struct Over {
    lines: usize,
    error: Option<String>,
}

impl SocketReceiver {
    /// Binds if it listens, starts the io model, the block cutter and the dialling.
    pub(crate) fn start(
        options: SocketOptions,
        engine: &Engine,
        target: Arc<dyn BlockTarget>,
        on_end: OnEnd,
    ) -> Result<RunningSource> {
        let name = format!("rx{}", options.number);
        let counters = Arc::new(ReceiverCounters::default());
        let blocks = BlockOptions {
            framing: options.framing,
            interval: options.block_interval,
            bytes_max: options.block_bytes_max,
        };
        let cutter = engine.cutter(options.number, blocks);
        let mut bound = bind(&options)?;
        let dialling =
            Dialling::new(options.clone(), engine.clone(), Arc::clone(&counters), on_end)?;
        let limiter = engine.limiter(options.rate);
        let handing = Handing::default();
        let asides = start_asides(&options, &counters, engine)?;
        let intake = Intake {
            source: options.source.clone(),
            framing: options.framing,
            ack: options.ack,
            record_bytes_max: options.record_bytes_max,
            cutter: Arc::clone(&cutter),
            account: Arc::clone(&engine.account),
            counters: Arc::clone(&counters),
            events: engine.events.clone(),
            observer: Arc::clone(&dialling) as Arc<dyn Observer>,
            pause: Pause::new(&options.source, &engine.account, &engine.events),
            limiter: limiter.clone(),
            arrivals: engine.arrivals.clone(),
            asides: asides.as_ref().map(OversizedThread::asides),
            unfinished: Arc::clone(&engine.unfinished),
            pool: Arc::clone(&engine.pool),
            handing: handing.clone(),
        };
        cutter.start(target, engine.times.cut_ticks.recorder())?;
        let io = io_options(&options, engine, &counters, std::mem::take(&mut bound.listeners));
        let io_model = choose(&options, engine);
        let driver: Arc<dyn IoDriver> =
            Arc::from(models::start(io_model, IntakeHandlers(Arc::new(intake)), io)?);
        let mut own_threads = Dialling::start(&dialling, &name, &driver)?;
        if let Some(limiter) = &limiter {
            own_threads.push(engine.start_limiter(limiter, &cutter, &dialling.stop)?);
        }
        say_where_it_listens(&options.source, &bound, &engine.events);
        let receiver = SocketReceiver { driver, handing, asides, dialling, own_threads };
        Ok(RunningSource {
            source: options.source,
            number: options.number,
            io_model: Some(io_model),
            local_addrs: bound.addresses,
            counters,
            cutter: Cutter(cutter),
            limiter,
            rate: options.rate,
            supervisor: Box::new(receiver),
        })
    }
}

impl Supervisor for SocketReceiver {
    fn stop(&mut self, clock: &dyn Clock, deadline: Moment) -> Vec<String> {
        self.dialling.stop.stop();
        self.dialling.interrupt.set();
        self.driver.stop();
        let mut left = join_all(std::mem::take(&mut self.own_threads), clock, deadline);
        // Threads that did not hand everything over are named when they are joined.
        self.handing.wait(clock, deadline);
        let keeping = self.asides.take().and_then(OversizedThread::stop);
        left.extend(join_all(keeping.into_iter().collect(), clock, deadline));
        left
    }

    fn close(self: Box<Self>, clock: &dyn Clock, deadline: Moment) -> Vec<String> {
        self.driver.close();
        join_all(self.driver.threads(), clock, deadline)
    }
}

/// Starts the thread `rxN-aside`, if over-long records are put aside.
fn start_asides(
    options: &SocketOptions,
    counters: &Arc<ReceiverCounters>,
    engine: &Engine,
) -> Result<Option<OversizedThread>> {
    let Some(directory) = &options.dead_letter else { return Ok(None) };
    let storage = Arc::new(Directory::open(directory)?);
    let put_aside = OversizedOptions {
        source: options.source.clone(),
        account: Arc::clone(&engine.account),
        counters: Arc::clone(counters),
        conditions: engine.events.conditions().clone(),
        clock: Arc::clone(&engine.clock),
        poison: engine.poison.clone(),
    };
    let asides = OversizedStore::open(storage, put_aside)?;
    for (file, bytes) in asides.removed() {
        let source = options.source.clone();
        engine.events.post(Event::OverlongUnfinished { source, file, bytes });
    }
    let name = format!("rx{}-aside", options.number);
    let started = asides.start(&name);
    started.map(Some).map_err(|err| Error::io(format!("cannot start the thread `{name}`"), err))
}

/// Tallies peers that are turned away.
fn tell_of_refusals(source: &str, events: &EventBus) -> OnRefusal {
    let (source, tallies) = (source.to_owned(), events.tallies().clone());
    Arc::new(move |peer, why| match peer {
        Some(peer) => {
            let newest = format!("{peer} ({why})");
            tallies.add(TallyKind::PeerTurnedAway, &source, 1, newest);
        }
        None => tallies.add(TallyKind::AcceptingWaits, &source, 1, why),
    })
}

fn io_options(
    options: &SocketOptions,
    engine: &Engine,
    counters: &Arc<ReceiverCounters>,
    listeners: Vec<TcpListener>,
) -> Options {
    Options {
        name: format!("rx{}", options.number),
        listeners,
        connections_max: options.connections_max,
        pool_threads: options.pool_threads,
        reactors: options.reactors,
        reply_bytes_max: REPLY_BYTES_MAX,
        pool: Arc::clone(&engine.pool),
        counters: Arc::clone(counters),
        on_refusal: tell_of_refusals(&options.source, &engine.events),
        clock: Arc::clone(&engine.clock),
        poison: engine.poison.clone(),
    }
}

/// The io model that this system can run, with an event if it is not the one that was asked for.
fn choose(options: &SocketOptions, engine: &Engine) -> IoModel {
    let (used, why) = models::choose(options.io_model);
    if let Some(why) = why {
        engine.events.post(Event::IoModelFallback {
            source: options.source.clone(),
            wanted: options.io_model.name(),
            used: used.name(),
            why,
        });
    }
    used
}

/// Binds where a source listens: at every address of the name that this machine has.
fn bind(options: &SocketOptions) -> Result<Bound> {
    let Direction::Listen(address) = &options.direction else { return Ok(Bound::default()) };
    listen(&options.names, address, BACKLOG).map_err(|not| cannot_listen(options, address, not))
}

/// Checks that a source could listen at its address; takes nothing.
///
/// # Errors
/// The error that its start would have.
pub(crate) fn expect_address(options: &SocketOptions) -> Result<()> {
    let Direction::Listen(address) = &options.direction else { return Ok(()) };
    expect_free(&options.names, address).map_err(|not| cannot_listen(options, address, not))
}

fn cannot_listen(options: &SocketOptions, address: &str, not: NotBound) -> Error {
    let source = &options.source;
    let hint = match not.err.kind() {
        io::ErrorKind::AddrInUse => {
            " (another program listens there: stop it or choose another port)"
        }
        io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
        _ => "",
    };
    let found = not.address.map(|found| found.to_string()).filter(|found| found != address);
    let found = found.map_or(String::new(), |found| format!(", which is {found}"));
    Error::io(format!("source `{source}` cannot listen on {address}{found}{hint}"), not.err)
}

fn say_where_it_listens(source: &str, bound: &Bound, events: &EventBus) {
    for (address, err) in &bound.left_out {
        let (source, why) = (source.to_owned(), err.to_string());
        events.post(Event::AddressLeftOut { source, address: *address, why });
    }
    for &address in &bound.addresses {
        events.post(Event::Listening { source: source.to_owned(), address });
    }
}

impl Dialling {
    fn new(
        options: SocketOptions,
        engine: Engine,
        counters: Arc<ReceiverCounters>,
        on_end: OnEnd,
    ) -> Result<Arc<Self>> {
        let interrupt = Interrupt::new().map_err(|err| Error::io("cannot make an eventfd", err))?;
        let lines = match &options.direction {
            Direction::Connect(addresses) => addresses.iter().map(|_| Line::default()).collect(),
            Direction::Listen(_) => Vec::new(),
        };
        Ok(Arc::new(Dialling {
            options,
            engine,
            counters,
            interrupt,
            stop: StopToken::new(),
            lines,
            here: Mutex::default(),
            on_end,
            over: Mutex::default(),
            ended: AtomicBool::new(false),
        }))
    }

    fn start(
        dialling: &Arc<Dialling>,
        name: &str,
        driver: &Arc<dyn IoDriver>,
    ) -> Result<Vec<Thread>> {
        let Direction::Connect(addresses) = &dialling.options.direction else {
            return Ok(Vec::new());
        };
        let start = |(index, address): (usize, &String)| {
            let name = format!("{name}-dial-{index}");
            let (shared, driver, address) =
                (Arc::clone(dialling), Arc::clone(driver), address.clone());
            let started = thread::spawn(&name, &dialling.engine.poison, move || {
                shared.keep_connected(index, &address, driver.as_ref());
            });
            started.map_err(|err| Error::io(format!("cannot start the thread `{name}`"), err))
        };
        addresses.iter().enumerate().map(start).collect()
    }

    /// A dial thread: connects, waits for the end, connects again; until the stop, or the end of file.
    fn keep_connected(&self, index: usize, address: &str, driver: &dyn IoDriver) {
        let (line, clock) = (&self.lines[index], &self.engine.clock);
        let (mut back_off, mut ever) = (BackOff::default(), false);
        let mut away = Away::new(&self.options.source, Some(address), &self.engine.events);
        let ends = self.options.ends == When::Eof;
        self.stop.wakes(&line.over);
        loop {
            let dialled = self.connect(index, address, driver);
            if self.stop.is_stopped() {
                return;
            }
            let why = match dialled {
                Ok(since) => {
                    ever = true;
                    let how = self.wait_over(line, back_off.connected(since), &mut away);
                    match how {
                        _ if self.stop.is_stopped() => return,
                        how if ends => return self.line_over(how.err()),
                        how => {
                            how.err().unwrap_or_else(|| "the peer closed the connection".to_owned())
                        }
                    }
                }
                Err(err) if ever && ends => return self.line_over(Some(err.to_string())),
                Err(err) => {
                    self.counters.retries.add(1);
                    err.to_string()
                }
            };
            let now = clock.now();
            let wait = back_off.over(now, dialer::random_at(now));
            away.again(wait, &why);
            self.wait_before(wait, address, why, line);
            if self.stop.is_stopped() {
                return;
            }
        }
    }

    /// Returns when the connection was made.
    fn connect(&self, index: usize, address: &str, driver: &dyn IoDriver) -> io::Result<Moment> {
        let line = &self.lines[index];
        let name = format!("rx{}-lookup-{index}", self.options.number);
        let is_stopped = || self.stop.is_stopped();
        let names = &self.options.names;
        let found = names.on_thread(address, &name, &line.over, is_stopped)?.unwrap_or_default();
        let (stream, peer): (TcpStream, SocketAddr) = dialer::dial(&found, &self.interrupt)?;
        *line.how.lock() = None;
        let now = self.engine.clock.now();
        driver.attach(stream, Peer { address: peer, dialled: Some(index) })?;
        Ok(now)
    }

    /// Waits for the end of a connection, which has proved itself if it is there at the time `proves`.
    fn wait_over(&self, line: &Line, proves: Moment, away: &mut Away) -> Result<(), String> {
        let clock = &self.engine.clock;
        loop {
            if let Some(how) = line.how.lock().take() {
                return how;
            }
            if self.stop.is_stopped() {
                return Ok(());
            }
            let has_proved = clock.now() >= proves;
            if has_proved {
                away.is_there();
            }
            clock.wait(&line.over, (!has_proved).then_some(proves));
        }
    }

    fn wait_before(&self, wait: dialer::Wait, address: &str, why: String, line: &Line) {
        let clock = &self.engine.clock;
        let dialer::Wait { attempt, wait, .. } = wait;
        let until = clock.now().plus(wait);
        self.engine.events.post(Event::Retrying {
            source: self.options.source.clone(),
            address: address.to_owned(),
            attempt,
            wait,
            why,
        });
        while !self.stop.is_stopped() && clock.now() < until {
            clock.wait(&line.over, Some(until));
        }
    }

    /// A dialled address has ended for good.
    fn line_over(&self, error: Option<String>) {
        let mut over = self.over.lock();
        over.lines += 1;
        if over.error.is_none() {
            over.error = error;
        }
        if over.lines == self.lines.len() {
            self.end(over.error.take());
        }
    }

    fn end(&self, error: Option<String>) {
        if !self.ended.swap(true, crate::sync::Ordering::SeqCst) {
            let source = self.options.source.clone();
            self.engine.events.post(Event::SourceEnded { source, error: error.clone() });
            (self.on_end)(self.options.number, error);
        }
    }
}

impl Observer for Dialling {
    fn opened(&self, peer: Peer) {
        if peer.dialled.is_none() {
            *self.here.lock() += 1;
        }
    }

    fn closed(&self, peer: Peer, how: &Closed) {
        match peer.dialled {
            Some(index) => {
                *self.lines[index].how.lock() = Some(match how {
                    Closed::End | Closed::Stopped => Ok(()),
                    Closed::Reset(err) => {
                        Err(format!("connection to {} was broken: {err}", peer.address))
                    }
                    Closed::Refused(why) => {
                        Err(format!("connection to {} was closed: {why}", peer.address))
                    }
                });
                self.lines[index].over.raise();
            }
            None => {
                let mut here = self.here.lock();
                *here -= 1;
                if *here == 0 && self.options.ends == When::Eof && !self.stop.is_stopped() {
                    self.end(None);
                }
            }
        }
    }
}
