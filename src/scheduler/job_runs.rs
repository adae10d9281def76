//! The second third of the loop's work: the jobs of the batches that have their input, from their start to what their end
//! means for the batch. What is decided is in [`super::job_set`]. Runs on the thread `job-loop`.

use crate::error::Error;
use crate::exec::{self, Failure};
use crate::metrics::{BatchState, ConditionKind, Event, STAGES};
use crate::sync::Arc;
use crate::time::{Moment, Time};

use super::job_set::{JobRef, Verdict};
use super::{JobLoop, Message, ROOM_RETRY, SchedulerNotice, TRIM_PAUSE, direct_sources};

impl JobLoop {
    pub(super) fn start_jobs(&mut self) {
        if self.aging.holds_jobs() || self.room_at.is_some_and(|at| self.parts.clock.now() < at) {
            return;
        }
        self.room_at = None;
        self.put_aside_again();
        while let Some((job, input)) = self.jobs.next(self.parts.clock.now()) {
            let started = self.parts.clock.now();
            self.jobs.started(job, started);
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
            let plan = match rebuilds {
                Some(how) => self.parts.graph.replay(&input, &self.parts.clock, how),
                None => self.outputs[job.output].plan(&input, &self.parts.clock, started),
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
        let verdict = self.jobs.ended(job, outcome, self.parts.clock.now());
        self.tell_away(job, away);
        if matches!(verdict, Verdict::Retry { .. } | Verdict::Failed { .. }) {
            self.parts.history.update(job.time, |batch| batch.failures += 1);
        }
        if !matches!(verdict, Verdict::NoRoom { .. }) {
            let name = self.outputs.get(job.output).map_or("", |output| output.name());
            self.parts.events.conditions().end(ConditionKind::SinkFails, name);
        }
        match verdict {
            Verdict::BatchDone => self.jobs_over(job.time),
            Verdict::MoreJobs | Verdict::Pause => {}
            Verdict::Retry { attempt, cause } => {
                let name = self.outputs[job.output].name().to_owned();
                self.parts.events.post(Event::JobRetried {
                    time: job.time,
                    job: name,
                    attempt,
                    cause,
                });
            }
            Verdict::NoRoom { first, cause } => {
                self.room_at = Some(self.parts.clock.now().plus(ROOM_RETRY));
                let name = self.outputs[job.output].name().to_owned();
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
                    job: self.outputs[job.output].name().to_owned(),
                    attempts,
                    cause,
                });
                if self.jobs.give_up(job) == Verdict::BatchDone {
                    self.jobs_over(job.time);
                }
            }
            Verdict::Failed { attempts, cause } => {
                let job_name = self.outputs[job.output].name().to_owned();
                let time_ms = job.time.as_millis();
                self.fail(job.time, Error::Batch { time_ms, job: job_name, attempts, cause });
            }
        }
    }

    /// The stream stops for this batch.
    pub(super) fn fail(&mut self, time: Time, err: Error) {
        self.parts.graph.abandon(time);
        self.parts.history.update(time, |batch| batch.state = BatchState::Failed);
        self.stop_for(err);
    }

    /// The stream stops.
    pub(super) fn stop_for(&mut self, err: Error) {
        self.stop_with(SchedulerNotice::Fatal(err));
    }

    /// The stream stops, and this is why.
    pub(super) fn stop_with(&mut self, why: SchedulerNotice) {
        self.jobs.abort();
        self.draining = true;
        (self.parts.tell)(why);
    }

    pub(super) fn batch_done(&mut self, time: Time, state: BatchState) {
        let Some((input, first_start)) = self.jobs.finish(time) else { return };
        direct_sources::tell_losses(&self.parts.direct, &input, &self.parts.graph);
        let not_due = self.parts.graph.took_in(&input, state == BatchState::Done);
        self.parts.graph.commit(time);
        self.scheduler.progress.lock().not_due = not_due;
        if let Some(log) = self.log.as_mut().filter(|it| it.rebuilds(time).is_some()) {
            log.was_rebuilt();
            // The log has what it changed in states.
            let _ = self.parts.graph.changes(time, 0);
            self.look_at_kept();
            return self.tell_if_drained();
        }
        self.parts.store.release(self.parts.tracker.commit(time));
        self.aging.batch_done();
        let now = self.parts.clock.now();
        direct_sources::done(&mut self.parts.direct, &input, self.log.is_some());
        let committed = self.log.as_mut().map(|log| log.committed(&input, &self.parts.graph, now));
        if let Some(Err(err)) = committed {
            return self.stop_for(err);
        }
        let start = first_start.unwrap_or(now);
        // Only now is it known what the direct sources held.
        let (records, due) = (input.all_records(), input.due);
        let is_live = input.index >= self.first_index;
        let (delay, processing) = (start.since(due), now.since(start));
        self.steering.done(now);
        let blocks_records = input.records;
        let account = self.parts.store.account();
        self.fit.done(input.block_bytes(), account.take_results_peak());
        account.expect_results(self.fit.reserve());
        drop(input);
        if now >= self.trim_at {
            self.trim_at = now.plus(TRIM_PAUSE);
            self.parts.pool.trim();
        }
        let mut progress = self.scheduler.progress.lock();
        progress.batches += 1;
        progress.is_over(time, is_live);
        progress.records += records;
        progress.batches_waiting -= 1;
        progress.records_waiting -= blocks_records;
        if state == BatchState::DeadLetter {
            progress.dead_letters += 1;
            progress.dead_records += records;
        }
        drop(progress);
        self.record(time, (state, records), now);
        self.parts.events.post(Event::BatchCompleted {
            time,
            records,
            scheduling_delay: delay,
            processing,
        });
        if self.parts.tell_batches {
            (self.parts.tell)(SchedulerNotice::BatchDone);
        }
        self.live_batches += u64::from(is_live);
        if is_live && self.options.batches_max == Some(self.live_batches) {
            (self.parts.tell)(SchedulerNotice::BatchesReached);
        }
        self.look_at_kept();
        self.replay_deferred();
        self.tell_if_drained();
    }

    /// The stream stops if windows and states keep more than they may.
    fn look_at_kept(&mut self) {
        if let Err(err) = self.kept.look(&self.parts.graph) {
            self.stop_for(err);
        }
    }

    /// Records the stages of a batch that is done.
    fn record(&self, time: Time, (state, records): (BatchState, u64), now: Moment) {
        let moments = self.parts.history.update(time, |batch| {
            (batch.state, batch.records) = (state, records);
            batch.moments.committed = Some(now);
        });
        let Some(moments) = moments else { return };
        for ((stage, _), recorder) in STAGES.iter().zip(&self.stages) {
            if let Some(length) = moments.stage(*stage) {
                recorder.record(length);
            }
        }
    }
}
