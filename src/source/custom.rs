//! A user's own receiver: code that hands over records, supervised like a socket source.
//!
//! ```text
//!  Receiver::receive ─store─▶ SharedRecordBuffer ─▶ range queue ─▶ block cutter       on the thread rxN-custom
//!         ▲ error: again, after a bounded back-off                  ▲ a cut takes what was gathered
//! ```
//! Records go into blocks with the framing `u32`, so that they may hold any bytes. `store` waits while the engine is full
//! or the rate is used up; the stop wakes it. It knows nothing of jobs and sinks.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::memory::budget::MemoryBudget;
use crate::metrics::{Event, EventBus, ReceiverCounters, TallyKind};
use crate::source::BacklogTrigger;
use crate::source::away::Away;
use crate::source::engine::{BlockOptions, Engine, OnEnd, RateOptions, When, join_all};
use crate::source::ingest::block_cutter::BlockCutter;
use crate::source::ingest::handover::BlockTarget;
use crate::source::ingest::rate_limit::RateLimiter;
use crate::source::pause::Pause;
use crate::source::running::{Cutter, RunningSource, Supervisor};
use crate::source::socket::dialer::{self, BackOff};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mutex, Signal, StopToken};
use crate::time::{Clock, Interval, Moment};

/// A source of records that is written by the program that uses the engine. A closure over [`ReceiverHandle`] is one.
///
/// [`receive`](Receiver::receive) runs on a thread of its own, `rxN-custom`, from the start to the stop, and may block there; it
/// must end at the stop. Back-pressure is a wait: [`store`](ReceiverHandle::store) returns once the record is taken, so a
/// receiver that reads from its peer only after that slows the peer down. Records become part of the batch that is cut next.
///
/// Without a state directory a record that was stored is lost if the process dies before its batch is done. With one it is lost
/// until it is in the log, a moment after `store` returned. A receiver is not told when that is, so a source that can be read
/// again should be a [`DirectSource`](crate::source::DirectSource).
///
/// ```
/// use tidemill::{Config, Interval, ReceiverHandle, Result, RunLimits, StreamingContext};
///
/// struct Countdown(u32);
///
/// impl tidemill::Receiver for Countdown {
///     fn receive(&mut self, handle: &ReceiverHandle) -> Result<()> {
///         while self.0 > 0 {
///             handle.store(self.0.to_string().as_bytes())?;
///             self.0 -= 1;
///         }
///         Ok(())
///     }
/// }
///
/// let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
/// ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
/// let records = ctx.receiver_stream("countdown", Countdown(3))?;
/// let all = records.map(|record| String::from_utf8_lossy(record).into_owned()).collect();
/// ctx.start()?.await_termination()?;
/// let all: Vec<String> = all.rows().into_iter().flat_map(|(_, rows)| rows).collect();
/// assert_eq!(all, ["3", "2", "1"]);
/// # Ok::<(), tidemill::Error>(())
/// ```
pub trait Receiver: Send {
    /// Hands over records until the source has ended or [`ReceiverHandle::is_stopped`]. Its waits must end at the stop: see
    /// [`ReceiverHandle::wait`] and [`ReceiverHandle::on_stop`]. It may start threads that store through clones of the handle,
    /// and must join them before it returns.
    ///
    /// # Errors
    /// The reason why it gave up. The receiver is called again, after 100 ms at first and up to 10 s, and the failure is
    /// counted; in a run to the end of the sources ([`until_eof`](crate::RunLimits::until_eof)) a receiver that fails after it
    /// has stored something ends the run with this error. A panic stops the stream.
    fn receive(&mut self, handle: &ReceiverHandle) -> Result<()>;
}

impl<F: FnMut(&ReceiverHandle) -> Result<()> + Send> Receiver for F {
    fn receive(&mut self, handle: &ReceiverHandle) -> Result<()> {
        self(handle)
    }
}

/// The side of the engine that a [`Receiver`] talks to: it takes records, says when to stop, and waits. Clones are handles of
/// the same receiver; any thread may use one.
///
/// ```
/// use std::time::Duration;
/// use tidemill::{ReceiverHandle, Result};
///
/// /// Asks a peer for a list of records every second.
/// fn poll(handle: &ReceiverHandle, ask: impl Fn() -> Result<Vec<String>>) -> Result<()> {
///     handle.on_stop(|| { /* shut down the connection that `ask` may wait for */ });
///     while handle.wait(Duration::from_secs(1)) {
///         match ask() {
///             Ok(records) => handle.store_all(records)?,
///             Err(err) => handle.report_error(err),
///         }
///     }
///     assert!(handle.is_stopped());
///     handle.store(b"the last one").or(Ok(()))
/// }
/// ```
#[derive(Clone)]
pub struct ReceiverHandle(Arc<Shared>);

struct Shared {
    options: CustomOptions,
    cutter: Arc<BlockCutter>,
    account: Arc<MemoryBudget>,
    limiter: Option<Arc<RateLimiter>>,
    arrivals: Option<Arc<BacklogTrigger>>,
    counters: Arc<ReceiverCounters>,
    events: EventBus,
    /// Says when the full store stops the receiver.
    pause: Arc<Pause>,
    clock: Arc<dyn Clock>,
    stop: StopToken,
    hooks: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

/// The options of a custom source; no defaults here.
#[derive(Clone)]
pub(crate) struct CustomOptions {
    /// The source's name in messages.
    pub(crate) source: String,
    /// Its number.
    pub(crate) number: u32,
    pub(crate) receiver: ReceiverSlot,
    pub(crate) record_bytes_max: usize,
    pub(crate) block_interval: Interval,
    pub(crate) block_bytes_max: u64,
    pub(crate) ends: When,
    pub(crate) rate: Option<RateOptions>,
}

/// Holds a receiver while it does not run. A started one comes back at the stop, so that it can be started again.
pub(crate) type ReceiverSlot = Arc<Mutex<Option<Box<dyn Receiver>>>>;

impl fmt::Debug for ReceiverHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverHandle").field("source", &self.0.options.source).finish()
    }
}

impl ReceiverHandle {
    /// Hands over one record of any bytes, which are copied. It blocks while the memory is full, the queue to the log is full,
    /// or the rate is used up; a batch that is done, or the stop, ends the wait. A record that is longer than
    /// [`record_bytes_max`](crate::ReceiverSource::record_bytes_max) is dropped and counted, as from any source.
    ///
    /// # Errors
    /// [`Error::Failed`] if the receiver is stopped: the record was not taken. The receiver should return.
    pub fn store(&self, record: &[u8]) -> Result<()> {
        let shared = &self.0;
        let Some(length) = shared.length(record) else {
            shared.counters.overlong.add(1);
            let (max, len) = (shared.options.record_bytes_max, record.len());
            let newest = format!("of {len} bytes (record_bytes_max = {max}), dropped");
            let (source, tallies) = (&shared.options.source, shared.events.tallies());
            tallies.add(TallyKind::RecordOverlong, source, 1, newest);
            return Ok(());
        };
        let parts: [&[u8]; 2] = [&length, record];
        let taken = || {
            shared.counters.records.add(1);
            shared.counters.bytes.add(record.len() as u64);
            if let Some(limiter) = &shared.limiter {
                limiter.take(1, record.len() as u64);
            }
            if let Some(arrivals) = &shared.arrivals {
                arrivals.add(1);
            }
        };
        loop {
            if self.is_stopped() {
                return Err(Error::Failed(format!(
                    "source `{}` is stopped",
                    shared.options.source
                )));
            }
            if shared.may_store() && shared.cutter.gather(&parts, taken) {
                return Ok(());
            }
            shared.counters.pauses.add(1);
            if !shared.account.has_room() {
                shared.pause.store_is_full(&shared.account);
            }
            self.wait_until(None, || shared.has_room());
        }
    }

    /// Hands over many records, in order; see [`store`](ReceiverHandle::store).
    ///
    /// # Errors
    /// [`Error::Failed`] if the receiver is stopped: the records from there on were not taken.
    pub fn store_all<R: AsRef<[u8]>>(&self, records: impl IntoIterator<Item = R>) -> Result<()> {
        records.into_iter().try_for_each(|record| self.store(record.as_ref()))
    }

    /// Reports an error to the listeners and the operator, as [`Event::ReceiverError`], and counts it; the receiver continues.
    pub fn report_error(&self, error: impl fmt::Display) {
        self.0.counters.errors.add(1);
        let (source, error) = (self.0.options.source.clone(), error.to_string());
        self.0.events.post(Event::ReceiverError { source, error });
    }

    /// Returns true if the receiver must return: the stream stops.
    pub fn is_stopped(&self) -> bool {
        self.0.stop.is_stopped()
    }

    /// Waits this long, by the clock of the stream, or until the stop; returns false if the receiver must return.
    pub fn wait(&self, length: Duration) -> bool {
        let until = self.0.clock.now().plus(length);
        self.wait_until(Some(until), || false);
        !self.is_stopped()
    }

    /// Calls `f` once at the stop, on the thread that stops, to end the receiver's wait, such as by shutting a socket down; at
    /// once if the stop has come. `f` must not block. It is forgotten when [`Receiver::receive`] returns.
    pub fn on_stop(&self, f: impl FnOnce() + Send + 'static) {
        self.0.hooks.lock().push(Box::new(f));
        if self.is_stopped() {
            self.0.run_hooks();
        }
    }

    /// Waits until there may be room, the deadline has come, or the stop. Whatever holds a receiver wakes its queue when it ends.
    fn wait_until(&self, deadline: Option<Moment>, over: impl Fn() -> bool) {
        let (signal, clock) = (Signal::new(), &self.0.clock);
        let raise = signal.clone();
        let queue = self.0.cutter.queue();
        let number = queue.register(Arc::new(move || raise.raise()));
        while !self.is_stopped() && !over() && deadline.is_none_or(|at| clock.now() < at) {
            clock.wait(&signal, deadline);
        }
        queue.forget(number);
    }
}

impl Shared {
    /// The record's header; `None` if the record is longer than the limit.
    fn length(&self, record: &[u8]) -> Option<[u8; 4]> {
        let length = u32::try_from(record.len()).ok()?;
        (record.len() <= self.options.record_bytes_max).then(|| length.to_be_bytes())
    }

    /// Returns true if a record may be stored now; if not, the queue's readers are woken once that changes.
    fn may_store(&self) -> bool {
        self.account.has_room() && self.limiter.as_ref().is_none_or(|limiter| limiter.is_ready())
    }

    fn has_room(&self) -> bool {
        self.cutter.queue().has_room() && self.may_store()
    }

    fn run_hooks(&self) {
        let hooks = std::mem::take(&mut *self.hooks.lock());
        hooks.into_iter().for_each(|hook| hook());
    }
}

/// The threads of a custom source.
pub(crate) struct CustomReceiver {
    shared: Arc<Shared>,
    /// The receiver's own thread, and the one of the rate limit.
    threads: Vec<Thread>,
}

impl CustomReceiver {
    /// Starts the cutter and the receiver's thread.
    pub(crate) fn start(
        options: CustomOptions,
        engine: &Engine,
        target: Arc<dyn BlockTarget>,
        on_end: OnEnd,
    ) -> Result<RunningSource> {
        let receiver = options.receiver.lock().take();
        let Some(receiver) = receiver else {
            let text = format!("the receiver of source `{}` still runs", options.source);
            return Err(Error::Usage(text));
        };
        let blocks = BlockOptions {
            framing: Framing::U32,
            interval: options.block_interval,
            bytes_max: options.block_bytes_max,
        };
        let cutter = engine.cutter(options.number, blocks);
        let limiter = engine.limiter(options.rate);
        cutter.start(target, engine.times.cut_ticks.recorder())?;
        let pause = Pause::new(&options.source, &engine.account, &engine.events);
        let shared = Arc::new(Shared {
            options,
            cutter,
            account: Arc::clone(&engine.account),
            limiter,
            arrivals: engine.arrivals.clone(),
            counters: Arc::default(),
            events: engine.events.clone(),
            pause,
            clock: Arc::clone(&engine.clock),
            stop: StopToken::new(),
            hooks: Mutex::default(),
        });
        let mut threads = Vec::new();
        if let Some(limiter) = &shared.limiter {
            threads.push(engine.start_limiter(limiter, &shared.cutter, &shared.stop)?);
        }
        let runner = Runner { handle: ReceiverHandle(Arc::clone(&shared)), on_end };
        let name = format!("rx{}-custom", shared.options.number);
        let started = thread::spawn(&name, &engine.poison, move || runner.run(receiver));
        threads.push(
            started.map_err(|err| Error::io(format!("cannot start the thread `{name}`"), err))?,
        );
        let options = &shared.options;
        Ok(RunningSource {
            source: options.source.clone(),
            number: options.number,
            io_model: None,
            local_addrs: Vec::new(),
            counters: Arc::clone(&shared.counters),
            cutter: Cutter(Arc::clone(&shared.cutter)),
            limiter: shared.limiter.clone(),
            rate: options.rate,
            supervisor: Box::new(CustomReceiver { shared, threads }),
        })
    }
}

impl Supervisor for CustomReceiver {
    fn stop(&mut self, clock: &dyn Clock, deadline: Moment) -> Vec<String> {
        self.shared.stop.stop();
        self.shared.cutter.queue().wake();
        self.shared.run_hooks();
        join_all(std::mem::take(&mut self.threads), clock, deadline)
    }
}

/// The body of the receiver's thread.
struct Runner {
    handle: ReceiverHandle,
    on_end: OnEnd,
}

impl Runner {
    /// Runs the receiver, again after each failure; at the end puts it back where a second start finds it.
    fn run(&self, mut receiver: Box<dyn Receiver>) {
        let (shared, mut back_off) = (&self.handle.0, BackOff::default());
        let mut away = Away::new(&shared.options.source, None, &shared.events);
        while !self.handle.is_stopped() {
            back_off.connected(shared.clock.now());
            shared.counters.opened.add(1);
            shared.counters.open.add(1);
            let outcome = receiver.receive(&self.handle);
            shared.counters.open.sub(1);
            shared.hooks.lock().clear();
            let stored = shared.counters.records.value() > 0;
            match outcome {
                _ if self.handle.is_stopped() => {}
                Ok(()) => {
                    self.end(None);
                    break;
                }
                Err(err) if stored && shared.options.ends == When::Eof => {
                    self.end(Some(err.to_string()));
                    break;
                }
                Err(err) => {
                    let now = shared.clock.now();
                    let wait = back_off.over(now, dialer::random_at(now));
                    away.again(wait, &err.to_string());
                    self.wait_before(wait, &err);
                    // Unless it fails again at once.
                    away.is_tried();
                }
            }
        }
        *shared.options.receiver.lock() = Some(receiver);
    }

    fn wait_before(&self, wait: dialer::Wait, err: &Error) {
        let shared = &self.handle.0;
        let dialer::Wait { attempt, wait, .. } = wait;
        let until = shared.clock.now().plus(wait);
        shared.counters.retries.add(1);
        shared.events.post(Event::Retrying {
            source: shared.options.source.clone(),
            address: "its receiver".to_owned(),
            attempt,
            wait,
            why: err.to_string(),
        });
        self.handle.wait_until(Some(until), || false);
    }

    fn end(&self, error: Option<String>) {
        let (source, number) = (self.handle.0.options.source.clone(), self.handle.0.options.number);
        self.handle.0.events.post(Event::SourceEnded { source, error: error.clone() });
        (self.on_end)(number, error);
    }
}
