//! A stream that a test drives: the clock is moved to each batch, and the batch is waited for. Runs on the thread that drives
//! the stream. Knows no graph and no sources.

use std::time::Duration;

use super::{Control, End, Report, StreamHandle};
use crate::error::{Error, Result};
use crate::scheduler::{Progress, SchedulerNotice};
use crate::time::{Clock, ManualClock};

/// What a stream that a test drives has beside others.
pub(in crate::context) struct Driver {
    clock: ManualClock,
    /// From one batch to the next.
    interval: Duration,
    /// Somebody asked for the stop, or the run has reached its limits: no further batch comes.
    asked: bool,
    /// The end by a failure, if there was one.
    failed: Option<Failed>,
}

/// A run that ended by a failure: its report, and the failure in words.
struct Failed {
    report: Report,
    why: String,
}

impl Driver {
    pub(in crate::context) fn new(clock: ManualClock, interval: Duration) -> Self {
        Driver { clock, interval, asked: false, failed: None }
    }
}

impl StreamHandle {
    /// Runs `count` batches on the manual clock: for each it moves the clock by one batch interval and blocks until the batch is
    /// done. After a restart the batches that an earlier run planned run before the first, and do not count. The clock stands
    /// still while a batch runs, so a sink that is away counts as a failure at once.
    ///
    /// A batch that fails ends the stream; [`finish`](StreamHandle::finish) then has the report on what was done before.
    ///
    /// # Errors
    /// The first batch's failure, and [`Error::Usage`] if the stream was not started by
    /// [`start_driven`](crate::StreamingContext::start_driven).
    ///
    /// ```
    /// use tidemill::{Config, StreamingContext, testing::ManualClock};
    ///
    /// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let counts = ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().collect();
    /// let mut running = ctx.start_driven()?;
    /// running.run_batches(2)?;
    /// assert_eq!(counts.rows().len(), 2);
    /// assert_eq!(running.stop()?.batches, 2);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn run_batches(&mut self, count: u64) -> Result<()> {
        (0..count).try_for_each(|_| self.run_next())
    }

    /// Moves the clock to the next batch of this run, and waits until it is done. Batches that an earlier run planned run
    /// before it and do not count.
    fn run_next(&mut self) -> Result<()> {
        let (clock, interval) = self.driver()?;
        self.wait_until(|_| true)?;
        if self.was_asked() {
            return Err(no_more("the run was asked to stop, or reached its limits"));
        }
        let own = self.scheduler.progress().own + 1;
        let label = self.schedule.map(|schedule| {
            // After a restart the next tick may be more than one interval away.
            let next = schedule.due(schedule.due_at(clock.now()));
            clock.advance(interval.max(next.since(clock.now())));
            schedule.label(schedule.due_at(clock.now()).saturating_sub(1))
        });
        if label.is_none() {
            // With a trigger this is its time-out.
            clock.advance(interval);
        }
        self.wait_until(|progress| match label {
            Some(label) => progress.newest >= Some(label),
            None => progress.own >= own,
        })
    }

    /// True if a driven stream has taken the word that ends the run: nobody sends it again.
    pub(super) fn was_asked(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.asked)
    }

    /// The clock that the next batch needs, and the time to it.
    fn driver(&self) -> Result<(ManualClock, Duration)> {
        match &self.driver {
            None => {
                let why = "`run_batches` moves the clock of a stream that `start_driven` started";
                Err(Error::Usage(why.to_owned()))
            }
            Some(Driver { failed: Some(Failed { why, .. }), .. }) => Err(no_more(why)),
            Some(Driver { clock, interval, .. }) => Ok((clock.clone(), *interval)),
        }
    }

    /// Waits until `is_done`, unless the run ends before.
    fn wait_until(&mut self, is_done: impl Fn(&Progress) -> bool) -> Result<()> {
        loop {
            let told = match self.control.try_recv() {
                None if is_done(&self.scheduler.progress()) => return Ok(()),
                None => self.control.recv(),
                told => told,
            };
            // It follows the last batch: the one that is waited for does not come.
            let reached = matches!(told, Some(Control::Notice(SchedulerNotice::BatchesReached)));
            match told.and_then(|control| self.end_of(control)) {
                // The other batches wait for a clock that nobody moves any more: they are given up at once.
                Some(End::Failed(err) | End::Broken(err)) => {
                    let (why, end) = (err.to_string(), End::Failed(err));
                    self.give_up(&end, why);
                    return end.into_result();
                }
                // The batch that was asked for is not done.
                Some(End::OutputClosed(why)) => {
                    self.give_up(&End::OutputClosed(why.clone()), why.clone());
                    return Err(Error::Failed(why));
                }
                Some(End::Asked) => {
                    self.driver.iter_mut().for_each(|driver| driver.asked = true);
                    if reached && !is_done(&self.scheduler.progress()) {
                        return Err(no_more("the run has reached its limit of batches"));
                    }
                }
                Some(End::OfInput) | None => {}
            }
        }
    }

    /// Ends the run because the batch that is waited for does not come, and keeps the report.
    fn give_up(&mut self, end: &End, why: String) {
        let (report, _) = self.shut_down(end);
        if let Some(driver) = &mut self.driver {
            driver.failed = Some(Failed { report, why });
        }
    }

    /// The report on a run that ended by a failure, with the failure.
    pub(super) fn take_failed(&mut self) -> Option<(Report, Error)> {
        let failed = self.driver.as_mut()?.failed.take()?;
        Some((failed.report, Error::Failed(failed.why)))
    }
}

fn no_more(why: &str) -> Error {
    Error::Failed(format!("no batch comes any more: {why}"))
}
