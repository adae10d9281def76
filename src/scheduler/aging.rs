//! `Aging`: sinks that must act at a certain time, batch or no batch, such as naming a file that is old enough. Runs on the
//! thread `job-loop`; the sinks act on a worker.
//!
//! While batches run the sinks see to it themselves: each commit looks at the age. Between batches the loop waits for the first
//! of these times. No job begins before the sinks are done, so a sink is never asked between a write and its commit.

use std::time::Duration;

use super::{JobLoop, Message};
use crate::error::{Error, awaited};
use crate::metrics::ConditionKind;
use crate::sink::SharedSink;
use crate::time::{Moment, Time};

/// Pause after a sink that failed, before it is asked again.
const RETRY: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Aging {
    /// The first time at which a sink must act, as far as that is known.
    due: Option<Moment>,
    /// That time may have changed since the sinks were asked.
    is_stale: bool,
    /// A worker lets the sinks act.
    runs: bool,
}

impl Aging {
    /// A batch is done.
    pub(super) fn batch_done(&mut self) {
        self.is_stale = true;
    }

    /// True while no job may begin.
    pub(super) fn holds_jobs(&self) -> bool {
        self.runs
    }
}

impl JobLoop {
    /// The next time to look at the sinks, if nothing else happens.
    pub(super) fn sinks_due(&self) -> Option<Moment> {
        self.sinks.aging.due.filter(|_| self.may_age())
    }

    fn may_age(&self) -> bool {
        !self.sinks.aging.runs && !self.stop.is_draining() && self.jobs.set.batches() == 0
    }

    /// Lets the sinks do what is due.
    pub(super) fn look_at_sinks(&mut self) {
        if !self.may_age() {
            return;
        }
        let now = self.parts.clock.now();
        if !std::mem::take(&mut self.sinks.aging.is_stale)
            && self.sinks.aging.due.is_none_or(|due| now < due)
        {
            return;
        }
        // The wall clock may have been set since they were asked.
        let wall = self.parts.clock.wall_time();
        let (sinks, wait) = (self.parts.graph.sinks(), |at: Time| {
            Duration::from_millis(at.as_millis().saturating_sub(wall.as_millis()))
        });
        self.sinks.aging.due =
            sinks.iter().filter_map(SharedSink::due).map(|at| now.plus(wait(at))).min();
        if self.sinks.aging.due.is_none_or(|due| now < due) {
            return;
        }
        self.sinks.aging.runs = true;
        let scheduler = self.scheduler.clone();
        self.parts.workers.submit(vec![Box::new(move |_| {
            let look = |sink: SharedSink| {
                let failed = sink.on_time(wall).err();
                (sink, failed)
            };
            let outcomes = sinks.into_iter().map(look).collect();
            scheduler.post(Message::SinksLooked(outcomes));
        })]);
    }

    /// The sinks have done what was due, or could not.
    pub(super) fn sinks_looked(&mut self, outcomes: Vec<(SharedSink, Option<Error>)>) {
        self.sinks.aging.runs = false;
        self.sinks.aging.is_stale = true;
        // Before anything is reported: a test that hears of it may move the clock.
        let again = self.parts.clock.now().plus(RETRY);
        for (sink, failed) in outcomes {
            let name = sink.name().unwrap_or("output").to_owned();
            let conditions = self.parts.events.conditions();
            match failed {
                None => {
                    conditions.end(ConditionKind::SinkUnfinished, &name);
                }
                Some(err) if !can_pass(&err) => self.stop_for(err),
                Some(err) => {
                    let (kind, needs) = (ConditionKind::SinkUnfinished, "tried again every 10 s");
                    conditions.begin(kind, &name, err.to_string(), needs);
                    self.sinks.aging.is_stale = false;
                    self.sinks.aging.due = Some(again);
                }
            }
        }
    }
}

/// Returns true if another attempt may succeed, as with a batch.
fn can_pass(err: &Error) -> bool {
    err.passes() || err.of_system().and_then(awaited).is_some()
}
