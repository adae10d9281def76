//! `StreamHandle`: a started stream, its end, and the stop in order; [`start`] has the way there. Runs on the thread
//! that waits for the stream.
//!
//! ```text
//!  stop: ticks ─▶ reading ─▶ cut ─▶ push ─▶ last batch ─▶ last answers, io threads ─▶ workers ─▶ job-loop
//!        ─▶ checkpoint, log ─▶ events
//! ```
//! One deadline covers all of it; the report says what was processed and what, if anything, was left.

mod driven;
mod report;
mod start;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub(super) use self::driven::Driver;
pub use self::report::{Report, SourceReport};
pub(super) use self::start::Setup;
use super::RunLimits;
use super::adjust::Adjuster;
use super::inspect::Inspector;
use crate::blocks::spill::Spill;
use crate::blocks::tracker::BlockTracker;
use crate::error::{Error, Result};
use crate::exec::worker_pool::WorkerPool;
use crate::journal::Journal;
use crate::metrics::{Event, EventBus, ReceiverCounters};
use crate::scheduler::{Ends, Message, Scheduler, SchedulerNotice};
use crate::sink::SharedSink;
use crate::source::{Cutter, RunningSource};
use crate::stream::RunLease;
use crate::sync::planted::{Planted, planted};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mailbox, Mutex, Ordering, Poison};
use crate::time::{Clock, Moment, Schedule, Wake, join_until};
use crate::wording::{by_number, count};

/// The most messages that wait for the thread that waits for the stream; further posts are dropped.
const CONTROL_MAX: usize = 1024;

/// The most that each step of the closing after a drain may take.
const CLOSING_MAX: Duration = Duration::from_millis(500);

/// The time that a thread is given to end beyond a deadline that others have used up.
const SOON: Duration = Duration::from_millis(50);

/// A notice to the thread that waits for the stream.
#[derive(Debug)]
enum Control {
    SourceEnded(Option<String>),
    Notice(SchedulerNotice),
    Poisoned(String),
    /// Something came after the start that the run had to know before.
    Late(String),
    Stop,
}

/// A stream that was started. Its methods wait for the end of the stream and stop it; what other threads need is a [`Stopper`],
/// an [`Inspector`] or an [`Adjuster`].
///
/// A stop is in order: the sources stop reading, what was read becomes a last batch, the batches that wait are run, their rows
/// are committed, checkpoint and log are closed, and the listeners hear the last event. It takes at most
/// [`stop_deadline`](crate::Config::stop_deadline) and about a second; what was not done by then is named in [`Report::left`].
///
/// Dropping the handle stops the stream in the same way, blocks as long, and forgets the report. A handle may be sent to another
/// thread. One thread has to hold it: nobody else waits for the stream.
///
/// ```
/// use tidemill::{Config, Interval, StreamingContext};
///
/// let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
/// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
/// let running = ctx.start()?;
/// let report = running.stop()?;
/// assert!(report.left.is_empty());
/// # Ok::<(), tidemill::Error>(())
/// ```
pub struct StreamHandle {
    clock: Arc<dyn Clock>,
    block_bytes_max: u64,
    /// The number of outputs.
    outputs: usize,
    started: Moment,
    stop_deadline: Duration,
    limits: RunLimits,
    control: Mailbox<Control>,
    scheduler: Scheduler,
    tracker: Arc<BlockTracker>,
    events: EventBus,
    workers: Arc<WorkerPool>,
    pub(super) receivers: Vec<RunningSource>,
    /// The direct sources: their numbers, names and counters.
    direct: Vec<(u32, String, Arc<ReceiverCounters>)>,
    job_loop: Option<Thread>,
    events_thread: Option<Thread>,
    spill: Option<Arc<Spill>>,
    spill_thread: Option<Thread>,
    sources_left: usize,
    ended: bool,
    /// Nobody takes the rows of any output any more: input is left on purpose.
    output_closed: bool,
    inspector: Option<Inspector>,
    /// The schedule of the batches; none with a trigger.
    schedule: Option<Schedule>,
    /// No other run of the same graph may begin while it is there.
    _lease: RunLease,
    pub(super) journal: Option<Arc<Journal>>,
    recovered: Option<Recovered>,
    /// The clock that moves batch by batch, if a test drives the stream.
    driver: Option<Driver>,
    /// There is a state directory, also once the journal is closed.
    keeps: bool,
    /// The sinks of the outputs, each once.
    sinks: Vec<SharedSink>,
}

impl std::fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamHandle")
            .field("progress", &self.scheduler.progress())
            .finish_non_exhaustive()
    }
}

/// Asks a running stream to stop; for other threads, such as one that waits for signals. Clones ask the same stream.
///
/// The request does not wait for the stop: the thread that holds the [`StreamHandle`] carries it out. A stopper takes a lock for
/// a moment, so it must not be used inside a signal handler; a thread that reads signals, as crate `signal-hook` has one, may
/// use it.
///
/// ```
/// use tidemill::{Config, Interval, StreamingContext};
///
/// let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
/// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
/// let running = ctx.start()?;
/// let stopper = running.stopper();
/// std::thread::spawn(move || stopper.stop());
/// running.await_termination()?;
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stopper(Mailbox<Control>);

impl Stopper {
    /// Asks for the stop and returns at once. A second request has no effect, unless the stream ends by itself because its input
    /// has ended ([`until_eof`](super::RunLimits::until_eof)): then it bounds the wait for the last batches.
    pub fn stop(&self) {
        // A full mailbox holds a reason to stop already.
        let _ = self.0.try_send(Control::Stop);
    }
}

/// The part of earlier runs with the same state directory that a start continues; see [`StreamHandle::recovered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The number of batches that were planned and not finished. They run again with the same input.
    pub batches: u64,
    /// The number of records that no batch was given. They are the first input of the first new batch.
    pub records: u64,
}

/// The reason for which a run ends.
enum End {
    /// Somebody asked, or the limits of the run are reached.
    Asked,
    /// Every source has ended: all that was read is processed, however long that takes.
    OfInput,
    /// A source broke off: all that was read is still processed.
    Broken(Error),
    /// The engine cannot continue: waiting batches are left.
    Failed(Error),
    /// Nobody takes the rows any more: waiting batches are left on purpose.
    OutputClosed(String),
}

impl End {
    fn into_result(self) -> Result<()> {
        match self {
            End::Asked | End::OfInput | End::OutputClosed(_) => Ok(()),
            End::Broken(err) | End::Failed(err) => Err(err),
        }
    }
}

impl StreamHandle {
    fn cutters(&self) -> Vec<(u32, Cutter)> {
        self.receivers.iter().map(|receiver| (receiver.number, receiver.cutter.clone())).collect()
    }

    /// The addresses that the listening sources are bound to, in the order of the sources: the way to learn the port where port
    /// 0 was asked for. Sources that dial, files and receivers of your own have none.
    ///
    /// ```
    /// # use tidemill::{Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
    /// let records = ctx.socket(tidemill::SocketSource::listen("127.0.0.1:0"))?;
    /// records.count().print(1);
    /// let running = ctx.start()?;
    /// assert_ne!(running.local_addrs()[0].port(), 0);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.receivers.iter().flat_map(|receiver| &receiver.local_addrs).copied().collect()
    }

    /// Returns the part of earlier runs that this start continues: `None` for the first start of a state directory, and without
    /// one.
    ///
    /// ```
    /// # use tidemill::{Config, StreamingContext};
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// let config = Config::new("doc").state_dir(directory.path().join("state"));
    /// let ctx = StreamingContext::new(config)?;
    /// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
    /// let running = ctx.start()?;
    /// assert_eq!(running.recovered(), None);
    /// running.stop()?;
    /// let running = ctx.start()?;
    /// assert_eq!(running.recovered().map(|found| found.batches), Some(0));
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn recovered(&self) -> Option<Recovered> {
        self.recovered
    }

    /// Returns a view of the stream for other threads, which works also after its end.
    ///
    /// # Panics
    /// Never: a stream that was started has an inspector.
    ///
    /// ```
    /// # use tidemill::{Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
    /// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
    /// let running = ctx.start()?;
    /// let inspector = running.inspector();
    /// let report = running.stop()?;
    /// assert_eq!(inspector.progress().batches, report.batches);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn inspector(&self) -> Inspector {
        self.inspector.clone().expect("set when the stream was started")
    }

    /// Returns a handle with which other threads change rates and workers; see [`Adjuster`].
    pub fn adjuster(&self) -> Adjuster {
        Adjuster { stream: self.inspector(), workers: Arc::clone(&self.workers) }
    }

    /// Returns a handle with which other threads ask for the stop; see [`Stopper`].
    pub fn stopper(&self) -> Stopper {
        Stopper(self.control.clone())
    }

    /// Blocks until the stream ends, then stops it in order. The stream ends when a [`Stopper`] asks, when a limit of the run is
    /// reached, when it fails, or when nobody takes the rows of any output any more, as of a closed pipe.
    ///
    /// # Errors
    /// - [`Error::Batch`] if a batch failed for good and [`on_failure`](crate::Config::on_failure) says to stop.
    /// - [`Error::Failed`] if the engine cannot go on: a thread panicked, the log is damaged, the input of a source is lost, or
    ///   a source broke off in a run to the end of its sources.
    /// - [`Error::Io`] if the operating system refused something that nothing works without.
    /// - [`Error::Undrained`] if the stop left input behind that was read or planned; the text says how much.
    /// - [`Error::Usage`] if something was registered after the start.
    ///
    /// With a state directory the same program may be started again after each of them, and continues where this run ended.
    ///
    /// ```
    /// # use tidemill::{Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
    /// ctx.limits(tidemill::RunLimits { batches: Some(1), ..Default::default() });
    /// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
    /// ctx.start()?.await_termination()?;
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn await_termination(self) -> Result<()> {
        self.finish().1
    }

    /// Stops the stream in order and returns the report. It blocks for at most [`stop_deadline`](crate::Config::stop_deadline)
    /// and about a second.
    ///
    /// # Errors
    /// As [`await_termination`](StreamHandle::await_termination). The report is lost then: [`finish`](StreamHandle::finish)
    /// returns both.
    pub fn stop(self) -> Result<Report> {
        self.stopper().stop();
        let (report, outcome) = self.finish();
        outcome.map(|()| report)
    }

    /// Blocks until the stream ends, as [`await_termination`](StreamHandle::await_termination), and returns the report also
    /// after a failure.
    ///
    /// ```
    /// # use tidemill::{Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
    /// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
    /// let running = ctx.start()?;
    /// running.stopper().stop();
    /// let (report, outcome) = running.finish();
    /// assert!(outcome.is_ok() && report.left.is_empty());
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn finish(mut self) -> (Report, Result<()>) {
        if let Some((report, failure)) = self.take_failed() {
            return (report, Err(failure));
        }
        let end = self.wait_for_end();
        let (report, failure) = self.shut_down(&end);
        let outcome = match (end, failure) {
            (End::Failed(err) | End::Broken(err), _) | (_, Some(err)) => Err(err),
            (_, None) if self.output_closed => Ok(()),
            (_, None) if !report.left.is_empty() => Err(Error::Undrained(report.left.join("; "))),
            (_, None) => Ok(()),
        };
        (report, outcome)
    }

    fn wait_for_end(&mut self) -> End {
        if self.was_asked() {
            return End::Asked;
        }
        let until = self.limits.duration.map(|duration| self.started.plus(duration));
        loop {
            if let Some(control) = self.control.try_recv() {
                match self.end_of(control) {
                    Some(end) => return end,
                    None => continue,
                }
            }
            let signal = self.control.signal();
            if self.clock.wait(signal, until) == Wake::Deadline
                && until.is_some_and(|at| self.clock.now() >= at)
            {
                return End::Asked;
            }
        }
    }

    /// The end of the run that a message means, if it means one.
    fn end_of(&mut self, control: Control) -> Option<End> {
        match control {
            Control::Stop | Control::Notice(SchedulerNotice::BatchesReached) => Some(End::Asked),
            Control::Notice(SchedulerNotice::Fatal(err)) => Some(End::Failed(err)),
            Control::Notice(SchedulerNotice::OutputClosed(why)) => {
                self.output_closed = true;
                Some(End::OutputClosed(why))
            }
            Control::Poisoned(reason) => Some(End::Failed(Error::Failed(reason))),
            Control::Late(what) => Some(End::Failed(Error::Usage(what))),
            Control::Notice(SchedulerNotice::Drained | SchedulerNotice::BatchDone) => None,
            Control::SourceEnded(Some(error)) if self.limits.until_eof => {
                Some(End::Broken(Error::Failed(error)))
            }
            Control::SourceEnded(_) => {
                self.sources_left = self.sources_left.saturating_sub(1);
                (self.limits.until_eof && self.sources_left == 0).then_some(End::OfInput)
            }
        }
    }

    /// Stops in order; returns the report, and the first error on the way.
    fn shut_down(&mut self, end: &End) -> (Report, Option<Error>) {
        self.ended = true;
        if let Some(inspector) = &self.inspector {
            inspector.0.stopping.store(true, Ordering::SeqCst);
        }
        let mut deadline = self.drained_by();
        self.scheduler.post(Message::EndTicks);
        let mut left = Vec::new();
        let mut reports = Vec::new();
        let mut receivers = std::mem::take(&mut self.receivers);
        for receiver in &mut receivers {
            left.extend(receiver.stop(self.clock.as_ref(), deadline));
        }
        let mut failure = match end {
            _ if planted(Planted::StopSkipsDrain) => None,
            // A start that failed before there was anybody to drain.
            _ if self.job_loop.is_none() => None,
            End::Asked | End::Broken(_) => self.drain(Ends::Asked, &mut Some(deadline)),
            End::OfInput => {
                let mut until = None;
                let failure = self.drain(Ends::Input, &mut until);
                deadline = until.unwrap_or_else(|| self.drained_by());
                failure
            }
            End::Failed(_) | End::OutputClosed(_) => {
                self.scheduler.post(Message::Abort);
                None
            }
        };
        let [receivers_by, workers_by, threads_by] =
            [1, 2, 3].map(|step| deadline.plus(self.closing() * step));
        for receiver in receivers {
            let (number, name) = (receiver.number, receiver.source.clone());
            let (io_model, counts) = (receiver.io_model, Arc::clone(&receiver.counters));
            left.extend(receiver.close(self.clock.as_ref(), receivers_by));
            reports.push((number, SourceReport { name, io_model, counters: counts.all() }));
        }
        for worker in self.workers.stop(self.clock.as_ref(), workers_by) {
            left.push(format!("thread `{worker}` is stuck in a task and was abandoned"));
        }
        let failed = self.end_threads(threads_by, &mut left);
        failure = failure.or(failed);
        // What direct sources count is counted by the batches, up to the last one.
        for (number, name, counts) in &self.direct {
            let (name, counters) = (name.clone(), counts.all());
            reports.push((*number, SourceReport { name, io_model: None, counters }));
        }
        reports.sort_by_key(|(number, _)| *number);
        let reports = reports.into_iter().map(|(_, report)| report).collect();
        let left_of_deadline = threads_by.since(self.clock.now());
        (Report { left_of_deadline, ..self.report(left, reports) }, failure)
    }

    /// Ends the threads that are left once nothing is received and no task runs: the job loop first, the events last.
    fn end_threads(&mut self, deadline: Moment, left: &mut Vec<String>) -> Option<Error> {
        self.scheduler.close();
        let job_loop = self.job_loop.take();
        left.extend(self.join(job_loop, deadline));
        // After the last batch: nothing reads the files any more. Before the events end: it posts to them.
        if let Some(spill) = &self.spill {
            spill.stop();
        }
        let spill = self.spill_thread.take();
        left.extend(self.join(spill, deadline));
        left.extend(self.close_sinks(deadline));
        let journal = self.journal.take();
        let closed =
            journal.as_ref().map(|it| it.close(self.clock.as_ref(), self.or_soon(deadline)));
        if let Some(text) = journal.and_then(|it| it.take_mended()) {
            self.events.post(Event::StateMended { text });
        }
        self.events.close();
        let events = self.events_thread.take();
        left.extend(self.join(events, deadline));
        closed.and_then(Result::err)
    }

    fn join(&self, thread: Option<Thread>, deadline: Moment) -> Option<String> {
        let deadline = self.or_soon(deadline);
        thread.and_then(|thread| join_until(self.clock.as_ref(), thread, deadline).left())
    }

    /// The deadline, or a moment from now: a thread that only has to end must not look stuck because another one is.
    fn or_soon(&self, deadline: Moment) -> Moment {
        deadline.max(self.clock.now().plus(SOON))
    }

    /// Lets the sinks finish their open files, each on a thread of its own, for a disk may hang. Returns what is left, in words.
    fn close_sinks(&mut self, deadline: Moment) -> Vec<String> {
        let failed = Arc::new(Mutex::new(Vec::new()));
        let panicked = Poison::new();
        let close = |sink: SharedSink| {
            let (name, failed) = (sink.name().unwrap_or("output").to_owned(), Arc::clone(&failed));
            thread::spawn(format!("sink-{name}"), &panicked, move || {
                if let Err(err) = sink.close() {
                    failed.lock().push(format!("sink `{name}`: {err}"));
                }
            })
        };
        let sinks = std::mem::take(&mut self.sinks).into_iter();
        let started: Vec<io::Result<Thread>> = sinks.map(close).collect();
        let (mut left, deadline) = (Vec::new(), self.or_soon(deadline));
        for thread in started {
            left.extend(match thread {
                Ok(thread) => join_until(self.clock.as_ref(), thread, deadline).left(),
                Err(err) => Some(format!("a sink was not closed: {err}")),
            });
        }
        left.append(&mut failed.lock());
        left.extend(panicked.reason());
        left
    }

    /// The time by which a stop that begins now must have drained. The rest of the stop deadline is for the closing of
    /// receivers, workers and the other threads, so that a stuck thread does not make the others look stuck.
    fn drained_by(&self) -> Moment {
        self.clock.now().plus(self.stop_deadline.saturating_sub(self.closing() * 3))
    }

    /// The time that each of the three steps of the closing may take.
    fn closing(&self) -> Duration {
        CLOSING_MAX.min(self.stop_deadline / 8)
    }

    /// Runs the last batch and waits for all waiting batches; returns the failure of one. Without a deadline it waits without
    /// limit, until somebody asks for the stop.
    fn drain(&mut self, ends: Ends, deadline: &mut Option<Moment>) -> Option<Error> {
        self.scheduler.post(Message::Final(ends));
        loop {
            match self.control.try_recv() {
                Some(Control::Notice(SchedulerNotice::Drained)) => return None,
                Some(Control::Notice(SchedulerNotice::Fatal(err))) => return Some(err),
                Some(Control::Notice(SchedulerNotice::OutputClosed(_))) => {
                    self.output_closed = true;
                    return None;
                }
                Some(Control::Poisoned(reason)) => return Some(Error::Failed(reason)),
                Some(Control::Stop) => {
                    deadline.get_or_insert(self.drained_by());
                }
                Some(_) => {}
                None if deadline.is_some_and(|at| self.clock.now() >= at) => {
                    self.scheduler.post(Message::Abort);
                    return None;
                }
                None => {
                    self.clock.wait(self.control.signal(), *deadline);
                }
            }
        }
    }

    fn report(&self, mut left: Vec<String>, sources: Vec<SourceReport>) -> Report {
        let progress = self.scheduler.progress();
        if progress.batches_waiting > 0 {
            let (batches, records) = (progress.batches_waiting, progress.records_waiting);
            // What a batch takes of a direct source is counted when it is read.
            let records = (records > 0).then(|| format!(" with {}", count(records, "record")));
            left.push(format!(
                "{}{} {} not processed",
                count(batches, "planned batch"),
                records.unwrap_or_default(),
                by_number(batches, "was", "were")
            ));
        }
        let (blocks, unplanned) = self.tracker.unallocated();
        let beyond_limit = if self.limits.batches.is_some() { unplanned } else { 0 };
        if blocks > 0 && self.limits.batches.is_none() {
            left.push(format!(
                "{} with {} {} not given to a batch",
                count(blocks, "block"),
                count(unplanned, "record"),
                by_number(blocks, "was", "were")
            ));
        }
        let perished = progress.perished_bytes;
        if perished > 0 && self.limits.batches.is_none() {
            let were = by_number(perished, "was", "were");
            left.push(format!("{} of removed files {were} not read", count(perished, "byte")));
        }
        Report {
            batches: progress.batches,
            records: progress.records,
            dead_letters: progress.dead_letters,
            elapsed: self.clock.now().since(self.started),
            left,
            beyond_limit,
            not_due: progress.not_due,
            windows_kept: self.keeps,
            sources,
            left_of_deadline: Duration::ZERO,
        }
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        if !self.ended {
            self.shut_down(&End::Asked);
        }
    }
}
