//! A stream whose batches run one by one: the clock is moved to each, and it is waited for. Runs on the thread that drives the
//! stream, a test's. Knows no graph and no sources.

use std::time::Duration;

use super::{End, StreamHandle};
use crate::error::{Error, Result};
use crate::scheduler::Progress;
use crate::time::{Clock, ManualClock};

impl StreamHandle {
    /// Moves the clock to the next batch of this run, and waits until it is done; for runs that report each batch. Batches that
    /// an earlier run planned run before it and do not count.
    pub(in crate::context) fn run_next(
        &mut self,
        clock: &ManualClock,
        interval: Duration,
    ) -> Result<()> {
        self.wait_until(|_| true)?;
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

    /// Waits until `is_done`, unless the run ends before.
    fn wait_until(&mut self, is_done: impl Fn(&Progress) -> bool) -> Result<()> {
        loop {
            let told = match self.control.try_recv() {
                None if is_done(&self.scheduler.progress()) => return Ok(()),
                None => self.control.recv(),
                told => told,
            };
            match told.and_then(|control| self.end_of(control)) {
                // The other batches wait for a clock that nobody moves any more: they are given up at once.
                Some(End::Failed(err) | End::Broken(err)) => {
                    let end = End::Failed(err);
                    self.shut_down(&end);
                    return end.into_result();
                }
                // The batch that was asked for is not done.
                Some(End::OutputClosed(why)) => {
                    self.shut_down(&End::OutputClosed(why.clone()));
                    return Err(Error::Failed(why));
                }
                Some(End::Asked | End::OfInput) | None => {}
            }
        }
    }
}
