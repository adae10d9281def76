//! The second third of the loop's work: the jobs of the batches that have their input, from their start to the end of the
//! batch. [`super::job_set`] decides. Runs on the thread `job-loop`.

use std::time::Duration;

use crate::error::Error;
use crate::exec::{self, Failure};
use crate::metrics::{BatchState, ConditionKind, Event, Recorder, STAGES};
use crate::stream::{BatchInput, OpenBatch, Output};
use crate::sync::Arc;
use crate::time::{Moment, Time};

use super::dead_letters::Kept;
use super::job_set::{JobRef, JobSet, Verdict};
use super::kept_bound::KeptWatch;
use super::{JobLoop, Message, ROOM_RETRY, SchedulerNotice, direct_sources};

/// Time between two trims of the pool. Batches alone are too short: the next one would have buffers made anew, on other
/// threads, and what an allocator was given back on one thread stays resident and is of no use to others.
const TRIM_PAUSE: Duration = Duration::from_secs(1);

/// The jobs of the batches that may run.
pub(super) struct Jobs {
    pub(super) set: JobSet<Arc<BatchInput>>,
    pub(super) outputs: Vec<Arc<Output>>,
    /// The batch whose jobs run, from its first job to its end.
    pub(super) open: Option<OpenBatch>,
    /// The end of the pause after a job that found no room.
    pub(super) room_at: Option<Moment>,
    /// The batch whose input found no room among the dead letters, and the letters that were kept.
    pub(super) letters: Option<(Time, Kept)>,
}

/// The batches of this run that are done.
pub(super) struct DoneBatches {
    stages: [Recorder; STAGES.len()],
    kept: KeptWatch,
    /// The time of the next trim of the pool.
    trim_at: Moment,
    /// The number of the first batch of this run; those below it are of an earlier one.
    first_index: u64,
    /// The number of batches of this run that are done.
    live: u64,
}

/// A batch that is done, and its input released.
#[derive(Clone, Copy)]
struct DoneBatch {
    time: Time,
    state: BatchState,
    at: Moment,
    due: Moment,
    /// The start of its first job.
    started: Moment,
    records: u64,
    /// Those of its records that were in blocks.
    block_records: u64,
    /// It is of this run.
    is_live: bool,
}

impl DoneBatches {
    pub(super) fn new(
        stages: [Recorder; STAGES.len()],
        kept: KeptWatch,
        first_index: u64,
        now: Moment,
    ) -> Self {
        DoneBatches { stages, kept, trim_at: now.plus(TRIM_PAUSE), first_index, live: 0 }
    }
}

impl JobLoop {
    pub(super) fn start_jobs(&mut self) {
        if self.sinks.aging.holds_jobs()
            || self.jobs.room_at.is_some_and(|at| self.parts.clock.now() < at)
        {
            return;
        }
        self.jobs.room_at = None;
        self.put_aside_again();
        while let Some((job, input)) = self.jobs.set.next(self.parts.clock.now()) {
            let started = self.parts.clock.now();
            self.jobs.set.started(job, started);
            self.steering.started(started);
            self.parts.history.update(job.time, |batch| {
                batch.state = BatchState::Running;
                batch.moments.started.get_or_insert(started);
            });
            let (scheduler, clock) = (self.scheduler.clone(), Arc::clone(&self.parts.clock));
            let done = move |outcome| {
                scheduler.post(Message::JobDone { job, outcome, at: clock.now() });
            };
            let rebuilds = self.log.as_ref().and_then(|log| log.rebuilds(job.time));
            let (graph, clock) = (&self.parts.graph, &self.parts.clock);
            // Only the first batch has jobs that may start, so this is the one that is open.
            let batch = self.jobs.open.get_or_insert_with(|| graph.open_batch(&input));
            let plan = match rebuilds {
                Some(how) => batch.replay(clock, how),
                None => batch.plan(job.output, clock, started),
            };
            match plan {
                Ok(plan) => exec::run(plan, &self.parts.workers, Box::new(done)),
                Err(cause) => done(Err(cause.into())),
            }
        }
    }

    pub(super) fn job_done(&mut self, job: JobRef, outcome: Result<(), Failure>, at: Moment) {
        self.parts.history.update(job.time, |batch| {
            batch.moments.finished = Some(at);
            match &outcome {
                Ok(()) | Err(Failure::Closed(_)) => {}
                Err(failure) => batch.error = Some(failure.cause().to_owned()),
            }
        });
        let Some(outcome) = self.after_closed(job, outcome) else { return };
        let away = match &outcome {
            Err(Failure::Away(away)) => Some(away.clone()),
            _ => None,
        };
        let verdict = self.jobs.set.ended(job, outcome, self.parts.clock.now());
        self.tell_away(job, away);
        if matches!(verdict, Verdict::Retry { .. } | Verdict::Failed { .. }) {
            self.parts.history.update(job.time, |batch| batch.failures += 1);
        }
        if !matches!(verdict, Verdict::NoRoom { .. }) {
            let name = self.jobs.outputs.get(job.output).map_or("", |output| output.name());
            self.parts.events.conditions().end(ConditionKind::SinkFails, name);
        }
        match verdict {
            Verdict::BatchDone => self.jobs_over(job.time),
            Verdict::MoreJobs | Verdict::Pause => {}
            Verdict::Retry { attempt, cause } => {
                let name = self.jobs.outputs[job.output].name().to_owned();
                self.parts.events.post(Event::JobRetried {
                    time: job.time,
                    job: name,
                    attempt,
                    cause,
                });
            }
            Verdict::NoRoom { first, cause } => {
                self.jobs.room_at = Some(self.parts.clock.now().plus(ROOM_RETRY));
                let name = self.jobs.outputs[job.output].name().to_owned();
                let text = format!("batch {} waits for room: {cause}", job.time);
                let conditions = self.parts.events.conditions();
                conditions.begin(ConditionKind::SinkFails, &name, text, "room for its rows");
                if first {
                    self.parts.events.post(Event::JobWaitsForRoom {
                        time: job.time,
                        job: name,
                        cause,
                    });
                }
            }
            Verdict::Failed { attempts, cause } if self.parts.dead_letters.is_some() => {
                self.parts.events.post(Event::JobGivenUp {
                    time: job.time,
                    job: self.jobs.outputs[job.output].name().to_owned(),
                    attempts,
                    cause,
                });
                if self.jobs.set.give_up(job) == Verdict::BatchDone {
                    self.jobs_over(job.time);
                }
            }
            Verdict::Failed { attempts, cause } => {
                let job_name = self.jobs.outputs[job.output].name().to_owned();
                let time_ms = job.time.as_millis();
                self.fail(job.time, Error::Batch { time_ms, job: job_name, attempts, cause });
            }
        }
    }

    /// The stream stops for this batch.
    pub(super) fn fail(&mut self, time: Time, err: Error) {
        self.abandon_batch();
        self.parts.history.update(time, |batch| batch.state = BatchState::Failed);
        self.stop_for(err);
    }

    /// Abandons the open batch: it leaves no trace in windows and states.
    pub(super) fn abandon_batch(&mut self) {
        self.jobs.open = None;
    }

    /// The stream stops.
    pub(super) fn stop_for(&mut self, err: Error) {
        self.stop_with(SchedulerNotice::Fatal(err));
    }

    /// The stream stops, and this is why.
    pub(super) fn stop_with(&mut self, why: SchedulerNotice) {
        self.jobs.set.abort();
        self.stop.drain();
        (self.parts.tell)(why);
    }

    pub(super) fn batch_done(&mut self, time: Time, state: BatchState) {
        let Some((input, first_start)) = self.jobs.set.finish(time) else { return };
        direct_sources::tell_losses(&self.parts.direct, &input, &self.parts.graph);
        let not_due = self.parts.graph.took_in(&input, state == BatchState::Done);
        let graph = &self.parts.graph;
        // A batch without a job that runs was never opened.
        self.jobs.open.take().unwrap_or_else(|| graph.open_batch(&input)).commit();
        self.scheduler.progress.lock().not_due = not_due;
        if let Some(log) = self.log.as_mut().filter(|it| it.rebuilds(time).is_some()) {
            log.was_rebuilt();
            // The log has what it changed in states.
            let _ = self.parts.graph.changes(time, 0);
            self.look_at_kept();
            return self.tell_if_drained();
        }
        self.parts.store.release(self.parts.tracker.commit(time));
        self.sinks.aging.batch_done();
        let now = self.parts.clock.now();
        direct_sources::done(&mut self.parts.direct, &input, self.log.is_some());
        let committed = self.log.as_mut().map(|log| log.committed(&input, &self.parts.graph, now));
        if let Some(Err(err)) = committed {
            return self.stop_for(err);
        }
        let done = DoneBatch {
            time,
            state,
            at: now,
            due: input.due,
            started: first_start.unwrap_or(now),
            // Only now is it known what the direct sources held.
            records: input.all_records(),
            block_records: input.records,
            is_live: input.index >= self.done.first_index,
        };
        self.steering.done(now);
        let (account, admission) = (self.parts.store.account(), &mut self.allocator.admission);
        admission.done(input.block_bytes(), account.take_results_peak());
        account.expect_results(admission.reserve());
        drop(input);
        if now >= self.done.trim_at {
            self.done.trim_at = now.plus(TRIM_PAUSE);
            self.parts.pool.trim();
        }
        self.count_done(done);
        self.tell_done(done);
        self.look_at_kept();
        self.replay_deferred();
        self.tell_if_drained();
    }

    fn count_done(&self, done: DoneBatch) {
        let mut progress = self.scheduler.progress.lock();
        progress.batches += 1;
        progress.is_over(done.time, done.is_live);
        progress.records += done.records;
        progress.batches_waiting -= 1;
        progress.records_waiting -= done.block_records;
        if done.state == BatchState::DeadLetter {
            progress.dead_letters += 1;
            progress.dead_records += done.records;
        }
    }

    fn tell_done(&mut self, done: DoneBatch) {
        self.record(done);
        self.parts.events.post(Event::BatchCompleted {
            time: done.time,
            records: done.records,
            scheduling_delay: done.started.since(done.due),
            processing: done.at.since(done.started),
        });
        if self.parts.tell_batches {
            (self.parts.tell)(SchedulerNotice::BatchDone);
        }
        self.done.live += u64::from(done.is_live);
        if done.is_live && self.options.batches_max == Some(self.done.live) {
            (self.parts.tell)(SchedulerNotice::BatchesReached);
        }
    }

    /// The stream stops if windows and states keep more than they may.
    fn look_at_kept(&mut self) {
        if let Err(err) = self.done.kept.look(&self.parts.graph) {
            self.stop_for(err);
        }
    }

    /// Records the stages of the batch.
    fn record(&self, done: DoneBatch) {
        let moments = self.parts.history.update(done.time, |batch| {
            (batch.state, batch.records) = (done.state, done.records);
            batch.moments.committed = Some(done.at);
        });
        let Some(moments) = moments else { return };
        for ((stage, _), recorder) in STAGES.iter().zip(&self.done.stages) {
            if let Some(length) = moments.stage(*stage) {
                recorder.record(length);
            }
        }
    }
}
