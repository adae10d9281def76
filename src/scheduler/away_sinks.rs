//! Sinks that are away: the condition of each, from the first attempt that finds it away to the first that does not, and the
//! warnings of sinks. [`super::job_set`] decides how often a job is tried again meanwhile. Runs on the thread `job-loop`.

use std::collections::BTreeMap;

use super::JobLoop;
use super::job_set::JobRef;
use crate::exec::Away;
use crate::metrics::{ConditionKind, Conditions, Event};
use crate::sink::SharedSink;
use crate::stream::Output;
use crate::sync::Arc;
use crate::time::Moment;

/// See the module.
pub(super) struct AwaySinks {
    all: Vec<SharedSink>,
    /// The name of the sink, for each output whose last attempt found one away.
    away: BTreeMap<usize, String>,
}

impl AwaySinks {
    /// Watches these sinks from here on; one without a name is reported under the name of its job.
    pub(super) fn new(
        all: Vec<SharedSink>,
        outputs: &[Arc<Output>],
        conditions: &Conditions,
    ) -> Self {
        for sink in &all {
            let is_to = |output: &&Arc<Output>| output.sinks().iter().any(|it| it.is_same(sink));
            let job = outputs.iter().find(is_to).map_or("output", |output| output.name());
            sink.watch_calls(conditions, job);
        }
        AwaySinks { all, away: BTreeMap::new() }
    }
}

impl JobLoop {
    /// The time at which jobs may start that wait for room or for a sink.
    pub(super) fn jobs_at(&self) -> Option<Moment> {
        self.jobs.room_at.or_else(|| self.jobs.set.pauses_until())
    }

    /// An attempt found a sink away, or found none away.
    pub(super) fn tell_away(&mut self, job: JobRef, away: Option<Away>) {
        let (events, now) = (&self.parts.events, self.parts.clock.now());
        let conditions = events.conditions();
        let before = self.sinks.away.away.remove(&job.output);
        if let Some(Away { sink, cause, needs }) = away {
            let name = || self.jobs.outputs.get(job.output).map_or("", |output| output.name());
            let subject = if sink.is_empty() { name().to_owned() } else { sink };
            let left = self.jobs.set.patience(job.time, now);
            let waits = match left.is_zero() {
                true => String::new(),
                false => format!(" waits for it, {left:.0?} more at most"),
            };
            let text = format!("batch {}{waits}: {cause}", job.time);
            conditions.begin(ConditionKind::SinkAway, &subject, text, needs);
            self.sinks.away.away.insert(job.output, subject);
        }
        if let Some(before) = before
            && self.sinks.away.away.values().all(|subject| *subject != before)
        {
            conditions.end(ConditionKind::SinkAway, &before);
        }
        for sink in &self.sinks.away.all {
            let name = sink.name().unwrap_or_default();
            for text in sink.take_notes() {
                events.post(Event::SinkWarning { sink: name.to_owned(), text });
            }
        }
    }
}
