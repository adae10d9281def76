//! The jobs of the batches that are not done: which may start, which are repeated, when a batch is done. Pure.
//!
//! Batches run one after the other, in the order of their times; the jobs of one batch start in registration order, at
//! most `concurrent_jobs` at once. A job that succeeded is not repeated when another one of its batch fails.

use std::collections::VecDeque;

use super::Retries;
use crate::batch::Failure;
use crate::time::{Moment, Time};

/// One output of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobRef {
    pub(crate) time: Time,
    /// The output's place in registration order.
    pub(crate) output: usize,
}

/// What follows from the end of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No job of the batch is left: each succeeded or was given up.
    BatchDone,
    /// Others of the batch are not done.
    MoreJobs,
    /// The job is tried again.
    Retry { attempt: u32, cause: String },
    /// The job is tried again once there may be room; `first` tells the first time in a row.
    NoRoom { first: bool, cause: String },
    /// The job has failed for good.
    Failed { attempts: u32, cause: String },
}

/// See the module. `I` is the batch's input.
#[derive(Debug)]
pub(super) struct JobSet<I> {
    outputs: usize,
    concurrent: usize,
    retries: Retries,
    batches: VecDeque<BatchJobs<I>>,
    aborted: bool,
}

#[derive(Debug)]
struct BatchJobs<I> {
    time: Time,
    input: I,
    jobs: Vec<Job>,
    first_start: Option<Moment>,
}

impl<I> BatchJobs<I> {
    fn verdict(&self) -> Verdict {
        let over = |job: &Job| matches!(job.state, State::Done | State::GivenUp);
        if self.jobs.iter().all(over) { Verdict::BatchDone } else { Verdict::MoreJobs }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Job {
    state: State,
    failures: u32,
    /// The last attempt found no room.
    no_room: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
    /// Failed for good; the batch goes on without it and its input is put aside.
    GivenUp,
}

impl<I: Clone> JobSet<I> {
    pub(super) fn new(outputs: usize, concurrent: usize, retries: Retries) -> Self {
        JobSet { outputs, concurrent, retries, batches: VecDeque::new(), aborted: false }
    }

    /// A batch with a job for each of these outputs waits for its turn.
    pub(super) fn admit(&mut self, time: Time, input: I, runs: impl Fn(usize) -> bool) {
        self.admit_jobs(time, input, (0..self.outputs).map(runs));
    }

    /// A batch that is not for the outputs waits for its turn: a single job.
    pub(super) fn admit_one(&mut self, time: Time, input: I) {
        self.admit_jobs(time, input, [true]);
    }

    fn admit_jobs(&mut self, time: Time, input: I, runs: impl IntoIterator<Item = bool>) {
        let job = |runs| Job {
            state: if runs { State::Waiting } else { State::Done },
            failures: 0,
            no_room: false,
        };
        let jobs = runs.into_iter().map(job).collect();
        self.batches.push_back(BatchJobs { time, input, jobs, first_start: None });
    }

    /// Batches that are not done.
    pub(super) fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Whether a batch has nothing to run.
    pub(super) fn is_without_jobs(&self) -> bool {
        self.outputs == 0
    }

    /// The next job that may start: of the first batch, the first that waits.
    pub(super) fn next(&self) -> Option<(JobRef, I)> {
        let batch = self.batches.front()?;
        let running = batch.jobs.iter().filter(|job| job.state == State::Running).count();
        if self.aborted || running >= self.concurrent {
            return None;
        }
        let output = batch.jobs.iter().position(|job| job.state == State::Waiting)?;
        Some((JobRef { time: batch.time, output }, batch.input.clone()))
    }

    /// A job was started.
    pub(super) fn started(&mut self, job: JobRef, now: Moment) {
        if let Some(batch) = self.batch(job.time) {
            batch.jobs[job.output].state = State::Running;
            batch.first_start.get_or_insert(now);
        }
    }

    /// An attempt has ended.
    pub(super) fn ended(&mut self, job: JobRef, outcome: Result<(), Failure>) -> Verdict {
        let Retries(retries) = self.retries;
        let Some(batch) = self.batch(job.time) else { return Verdict::MoreJobs };
        let state = &mut batch.jobs[job.output];
        match outcome {
            // A closed sink takes no more: nothing is left to do.
            Ok(()) | Err(Failure::Closed(_)) => {
                state.state = State::Done;
                batch.verdict()
            }
            Err(Failure::NoRoom(cause)) => {
                state.state = State::Waiting;
                Verdict::NoRoom { first: !std::mem::replace(&mut state.no_room, true), cause }
            }
            Err(Failure::Failed(cause)) => {
                state.state = State::Waiting;
                state.no_room = false;
                state.failures += 1;
                let attempt = state.failures;
                if attempt > retries {
                    Verdict::Failed { attempts: attempt, cause }
                } else {
                    Verdict::Retry { attempt, cause }
                }
            }
        }
    }

    /// Goes on without a job that has failed for good.
    pub(super) fn give_up(&mut self, job: JobRef) -> Verdict {
        let Some(batch) = self.batch(job.time) else { return Verdict::MoreJobs };
        batch.jobs[job.output].state = State::GivenUp;
        batch.verdict()
    }

    /// The batch's input, if a job of it was given up, and which ones were.
    pub(super) fn given_up(&self, time: Time) -> Option<(I, Vec<usize>)> {
        let batch = self.batches.iter().find(|batch| batch.time == time)?;
        let given_up = batch.jobs.iter().enumerate();
        let given_up = given_up.filter(|(_, job)| job.state == State::GivenUp);
        let outputs: Vec<usize> = given_up.map(|(output, _)| output).collect();
        (!outputs.is_empty()).then(|| (batch.input.clone(), outputs))
    }

    /// Takes a finished batch out, with the moment its first job started.
    pub(super) fn finish(&mut self, time: Time) -> Option<(I, Option<Moment>)> {
        let at = self.batches.iter().position(|batch| batch.time == time)?;
        let batch = self.batches.remove(at)?;
        Some((batch.input, batch.first_start))
    }

    /// Starts nothing more.
    pub(super) fn abort(&mut self) {
        self.aborted = true;
    }

    /// Whether nothing more is started.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted
    }

    fn batch(&mut self, time: Time) -> Option<&mut BatchJobs<I>> {
        self.batches.iter_mut().find(|batch| batch.time == time)
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    fn job(time: u64, output: usize) -> JobRef {
        JobRef { time: Time::from_millis(time), output }
    }

    fn next(set: &mut JobSet<()>) -> Option<JobRef> {
        let (job, ()) = set.next()?;
        set.started(job, Moment::default());
        Some(job)
    }

    fn failure() -> Result<(), Failure> {
        Err("no".to_owned().into())
    }

    #[test]
    fn batches_run_in_order_and_jobs_in_registration_order() {
        let mut set = JobSet::new(2, 1, Retries(3));
        set.admit(Time::from_millis(1), (), |_| true);
        set.admit(Time::from_millis(2), (), |_| true);
        assert_eq!(next(&mut set), Some(job(1, 0)));
        assert_eq!(next(&mut set), None);
        assert_eq!(set.ended(job(1, 0), Ok(())), Verdict::MoreJobs);
        assert_eq!(next(&mut set), Some(job(1, 1)));
        assert_eq!(set.ended(job(1, 1), Ok(())), Verdict::BatchDone);
        assert!(set.finish(Time::from_millis(1)).is_some());
        assert_eq!(next(&mut set), Some(job(2, 0)));
    }

    #[test]
    fn concurrent_jobs_are_those_of_one_batch() {
        let mut set = JobSet::new(2, 3, Retries(0));
        set.admit(Time::from_millis(1), (), |_| true);
        set.admit(Time::from_millis(2), (), |_| true);
        assert_eq!((next(&mut set), next(&mut set)), (Some(job(1, 0)), Some(job(1, 1))));
        assert_eq!(next(&mut set), None);
    }

    #[test]
    fn only_the_failed_job_is_repeated_until_its_retries_are_used_up() {
        let mut set = JobSet::new(2, 2, Retries(1));
        set.admit(Time::from_millis(1), (), |_| true);
        while next(&mut set).is_some() {}
        assert_eq!(set.ended(job(1, 0), Ok(())), Verdict::MoreJobs);
        assert_eq!(
            set.ended(job(1, 1), failure()),
            Verdict::Retry { attempt: 1, cause: "no".to_owned() }
        );
        assert_eq!(next(&mut set), Some(job(1, 1)));
        assert_eq!(
            set.ended(job(1, 1), failure()),
            Verdict::Failed { attempts: 2, cause: "no".to_owned() }
        );
        set.abort();
        assert_eq!(next(&mut set), None);
    }

    #[test]
    fn a_batch_may_be_for_some_outputs_alone() {
        let mut set = JobSet::new(3, 3, Retries(0));
        set.admit(Time::from_millis(1), (), |output| output == 1);
        assert_eq!((next(&mut set), next(&mut set)), (Some(job(1, 1)), None));
        assert_eq!(set.ended(job(1, 1), Ok(())), Verdict::BatchDone);
        assert_eq!(set.given_up(Time::from_millis(1)), None);
    }

    #[test]
    fn a_job_waits_for_room_as_long_as_it_takes() {
        let mut set = JobSet::new(1, 1, Retries(0));
        set.admit(Time::from_millis(1), (), |_| true);
        set.admit(Time::from_millis(2), (), |_| true);
        for attempt in 0..5 {
            assert_eq!(next(&mut set), Some(job(1, 0)));
            let full = Err(Failure::NoRoom("full".to_owned()));
            let verdict = Verdict::NoRoom { first: attempt == 0, cause: "full".to_owned() };
            assert_eq!(set.ended(job(1, 0), full), verdict);
        }
        assert_eq!(next(&mut set), Some(job(1, 0)));
        assert!(matches!(set.ended(job(1, 0), failure()), Verdict::Failed { attempts: 1, .. }));
    }

    #[test]
    fn a_batch_goes_on_without_a_job_that_was_given_up() {
        let mut set = JobSet::new(3, 3, Retries(0));
        set.admit(Time::from_millis(1), (), |_| true);
        while next(&mut set).is_some() {}
        assert_eq!(set.ended(job(1, 2), Ok(())), Verdict::MoreJobs);
        assert!(matches!(set.ended(job(1, 1), failure()), Verdict::Failed { .. }));
        assert_eq!(set.give_up(job(1, 1)), Verdict::MoreJobs);
        assert_eq!(set.ended(job(1, 0), Ok(())), Verdict::BatchDone);
        assert_eq!(set.given_up(Time::from_millis(1)), Some(((), vec![1])));
        assert_eq!(next(&mut set), None);
    }
}
