//! `JobSet`: the jobs of the batches that are not done. Decides which may start, which are repeated, and when a batch is done.
//! Pure.
//!
//! Batches run one after the other, in the order of their times; the jobs of one batch start in registration order, at
//! most `concurrent_jobs` at once. A job that succeeded is not repeated when another one of its batch fails.
//!
//! ```text
//! sink away ─▶ pause 100 ms ─▶ again ─▶ 200 ms ─▶ again ─▶ … 10 s …      the batch's other jobs go on meanwhile
//!        └─▶ for `sink_retry` in all, once for each batch ─▶ one failure; any other error is a failure at once
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use super::Retries;
use crate::exec::{Away, Failure};
use crate::source::BackOff;
use crate::time::{Moment, Time};

/// One output of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobRef {
    pub(crate) time: Time,
    /// The output's place in registration order.
    pub(crate) output: usize,
}

/// The consequence of the end of an attempt.
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
    /// The job is tried again after a pause, for its sink is away.
    Pause,
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
    /// The time since which sinks of it are away, without a break.
    away_since: Option<Moment>,
    /// The time that sinks of it were away before that.
    away_before: Duration,
}

impl<I> BatchJobs<I> {
    /// The time that the batch has waited for sinks that were away.
    fn away(&self, now: Moment) -> Duration {
        self.away_before + self.away_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// The sink of a job is there.
    fn is_back(&mut self, output: usize, now: Moment) {
        self.jobs[output].back_off = None;
        if self.jobs.iter().all(|job| job.back_off.is_none()) {
            self.away_before = self.away(now);
            self.away_since = None;
        }
    }

    /// The sink of a job is away: pauses the job if the batch has any of its waiting time left.
    fn pause(&mut self, output: usize, now: Moment, most: Duration) -> bool {
        self.away_since.get_or_insert(now);
        let left = most.saturating_sub(self.away(now));
        let job = &mut self.jobs[output];
        let wait = job.back_off.get_or_insert_default().over(now, 0).wait;
        if !left.is_zero() {
            job.state = State::Paused(now.plus(wait.min(left)));
        }
        !left.is_zero()
    }

    fn running(&self) -> usize {
        self.jobs.iter().filter(|job| job.state == State::Running).count()
    }

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
    /// The pauses, if the last attempt found its sink away.
    back_off: Option<BackOff>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Its sink is away: it is tried again at this moment.
    Paused(Moment),
    Running,
    Done,
    /// Failed for good; the batch continues without it and its input is put aside.
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
            back_off: None,
        };
        self.batches.push_back(BatchJobs {
            time,
            input,
            jobs: runs.into_iter().map(job).collect(),
            first_start: None,
            away_since: None,
            away_before: Duration::ZERO,
        });
    }

    /// Batches that are not done.
    pub(super) fn batches(&self) -> usize {
        self.batches.len()
    }

    /// True if a batch has no jobs.
    pub(super) fn is_without_jobs(&self) -> bool {
        self.outputs == 0
    }

    /// The next job that may start: of the first batch, the first that waits and does not pause.
    pub(super) fn next(&self, now: Moment) -> Option<(JobRef, I)> {
        let batch = self.front()?;
        let may_start = |job: &Job| match job.state {
            State::Waiting => true,
            State::Paused(until) => until <= now,
            State::Running | State::Done | State::GivenUp => false,
        };
        let output = batch.jobs.iter().position(may_start)?;
        Some((JobRef { time: batch.time, output }, batch.input.clone()))
    }

    /// The end of the next pause of a job that may start then.
    pub(super) fn pauses_until(&self) -> Option<Moment> {
        let paused = |job: &Job| match job.state {
            State::Paused(until) => Some(until),
            _ => None,
        };
        self.front()?.jobs.iter().filter_map(paused).min()
    }

    /// Ends the pauses now; later pauses begin with the shortest one.
    pub(super) fn end_pauses(&mut self, now: Moment) {
        let jobs = self.batches.iter_mut().flat_map(|batch| &mut batch.jobs);
        for job in jobs.filter(|job| matches!(job.state, State::Paused(_))) {
            job.state = State::Paused(now);
            job.back_off = Some(BackOff::default());
        }
    }

    /// The first batch, if a job of it may start.
    fn front(&self) -> Option<&BatchJobs<I>> {
        let batch = self.batches.front()?;
        (!self.aborted && batch.running() < self.concurrent).then_some(batch)
    }

    /// The time that a batch may still wait for sinks that are away.
    pub(super) fn patience(&self, time: Time, now: Moment) -> Duration {
        let batch = self.batches.iter().find(|batch| batch.time == time);
        let waited = batch.map_or(Duration::ZERO, |batch| batch.away(now));
        self.retries.away.saturating_sub(waited)
    }

    /// A job was started.
    pub(super) fn started(&mut self, job: JobRef, now: Moment) {
        if let Some(batch) = self.batch(job.time) {
            batch.jobs[job.output].state = State::Running;
            batch.first_start.get_or_insert(now);
        }
    }

    /// An attempt has ended.
    pub(super) fn ended(
        &mut self,
        job: JobRef,
        outcome: Result<(), Failure>,
        now: Moment,
    ) -> Verdict {
        let Retries { failures, away } = self.retries;
        let Some(batch) = self.batch(job.time) else { return Verdict::MoreJobs };
        if !matches!(outcome, Err(Failure::Away(_))) {
            batch.is_back(job.output, now);
        }
        match outcome {
            // A closed sink takes no more: nothing is left to do.
            Ok(()) | Err(Failure::Closed(_)) => {
                batch.jobs[job.output].state = State::Done;
                batch.verdict()
            }
            Err(Failure::NoRoom(cause)) => batch.jobs[job.output].finds_no_room(cause),
            Err(Failure::Away(_)) if batch.pause(job.output, now, away) => Verdict::Pause,
            Err(Failure::Away(Away { cause, .. }) | Failure::Failed(cause)) => {
                batch.jobs[job.output].fails(cause, failures)
            }
        }
    }

    /// Continues without a job that has failed for good.
    pub(super) fn give_up(&mut self, job: JobRef) -> Verdict {
        let Some(batch) = self.batch(job.time) else { return Verdict::MoreJobs };
        batch.jobs[job.output].state = State::GivenUp;
        batch.verdict()
    }

    /// The batch's input and the jobs that were given up, if any were.
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

    /// True if nothing more is started.
    pub(super) fn is_aborted(&self) -> bool {
        self.aborted
    }

    fn batch(&mut self, time: Time) -> Option<&mut BatchJobs<I>> {
        self.batches.iter_mut().find(|batch| batch.time == time)
    }
}

impl Job {
    fn finds_no_room(&mut self, cause: String) -> Verdict {
        self.state = State::Waiting;
        Verdict::NoRoom { first: !std::mem::replace(&mut self.no_room, true), cause }
    }

    /// An attempt that counts has failed.
    fn fails(&mut self, cause: String, retries: u32) -> Verdict {
        self.state = State::Waiting;
        self.no_room = false;
        self.failures += 1;
        let attempt = self.failures;
        match attempt > retries {
            true => Verdict::Failed { attempts: attempt, cause },
            false => Verdict::Retry { attempt, cause },
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    fn job(time: u64, output: usize) -> JobRef {
        JobRef { time: Time::from_millis(time), output }
    }

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn next(set: &mut JobSet<()>) -> Option<JobRef> {
        next_at(set, 0)
    }

    fn next_at(set: &mut JobSet<()>, millis: u64) -> Option<JobRef> {
        let (job, ()) = set.next(at(millis))?;
        set.started(job, at(millis));
        Some(job)
    }

    /// Retries after failures; a batch waits a second for sinks that are away.
    fn retries(failures: u32) -> Retries {
        Retries { failures, away: Duration::from_secs(1) }
    }

    fn failure() -> Result<(), Failure> {
        Err("no".to_owned().into())
    }

    #[test]
    fn batches_run_in_order_and_jobs_in_registration_order() {
        let mut set = JobSet::new(2, 1, retries(3));
        set.admit(Time::from_millis(1), (), |_| true);
        set.admit(Time::from_millis(2), (), |_| true);
        assert_eq!(next(&mut set), Some(job(1, 0)));
        assert_eq!(next(&mut set), None);
        assert_eq!(set.ended(job(1, 0), Ok(()), at(0)), Verdict::MoreJobs);
        assert_eq!(next(&mut set), Some(job(1, 1)));
        assert_eq!(set.ended(job(1, 1), Ok(()), at(0)), Verdict::BatchDone);
        assert!(set.finish(Time::from_millis(1)).is_some());
        assert_eq!(next(&mut set), Some(job(2, 0)));
    }

    #[test]
    fn concurrent_jobs_are_those_of_one_batch() {
        let mut set = JobSet::new(2, 3, retries(0));
        set.admit(Time::from_millis(1), (), |_| true);
        set.admit(Time::from_millis(2), (), |_| true);
        assert_eq!((next(&mut set), next(&mut set)), (Some(job(1, 0)), Some(job(1, 1))));
        assert_eq!(next(&mut set), None);
    }

    #[test]
    fn only_the_failed_job_is_repeated_until_its_retries_are_used_up() {
        let mut set = JobSet::new(2, 2, retries(1));
        set.admit(Time::from_millis(1), (), |_| true);
        while next(&mut set).is_some() {}
        assert_eq!(set.ended(job(1, 0), Ok(()), at(0)), Verdict::MoreJobs);
        assert_eq!(
            set.ended(job(1, 1), failure(), at(0)),
            Verdict::Retry { attempt: 1, cause: "no".to_owned() }
        );
        assert_eq!(next(&mut set), Some(job(1, 1)));
        assert_eq!(
            set.ended(job(1, 1), failure(), at(0)),
            Verdict::Failed { attempts: 2, cause: "no".to_owned() }
        );
        set.abort();
        assert_eq!(next(&mut set), None);
    }

    #[test]
    fn a_batch_may_be_for_some_outputs_alone() {
        let mut set = JobSet::new(3, 3, retries(0));
        set.admit(Time::from_millis(1), (), |output| output == 1);
        assert_eq!((next(&mut set), next(&mut set)), (Some(job(1, 1)), None));
        assert_eq!(set.ended(job(1, 1), Ok(()), at(0)), Verdict::BatchDone);
        assert_eq!(set.given_up(Time::from_millis(1)), None);
    }

    #[test]
    fn a_job_waits_for_room_as_long_as_it_takes() {
        let mut set = JobSet::new(1, 1, retries(0));
        set.admit(Time::from_millis(1), (), |_| true);
        set.admit(Time::from_millis(2), (), |_| true);
        for attempt in 0..5 {
            assert_eq!(next(&mut set), Some(job(1, 0)));
            let full = Err(Failure::NoRoom("full".to_owned()));
            let verdict = Verdict::NoRoom { first: attempt == 0, cause: "full".to_owned() };
            assert_eq!(set.ended(job(1, 0), full, at(0)), verdict);
        }
        assert_eq!(next(&mut set), Some(job(1, 0)));
        assert!(matches!(
            set.ended(job(1, 0), failure(), at(0)),
            Verdict::Failed { attempts: 1, .. }
        ));
    }

    #[test]
    fn a_batch_goes_on_without_a_job_that_was_given_up() {
        let mut set = JobSet::new(3, 3, retries(0));
        set.admit(Time::from_millis(1), (), |_| true);
        while next(&mut set).is_some() {}
        assert_eq!(set.ended(job(1, 2), Ok(()), at(0)), Verdict::MoreJobs);
        assert!(matches!(set.ended(job(1, 1), failure(), at(0)), Verdict::Failed { .. }));
        assert_eq!(set.give_up(job(1, 1)), Verdict::MoreJobs);
        assert_eq!(set.ended(job(1, 0), Ok(()), at(0)), Verdict::BatchDone);
        assert_eq!(set.given_up(Time::from_millis(1)), Some(((), vec![1])));
        assert_eq!(next(&mut set), None);
    }

    /// Outcomes of attempts at one job with one retry, and the milliseconds that each takes; the verdict on each, with its
    /// time, and for a failure that counts, its number. An attempt is made each time that a pause is over.
    fn check_attempts(outcomes: &[(&str, u64)], expected: &[&str]) {
        let mut set = JobSet::new(1, 1, retries(1));
        set.admit(Time::from_millis(1), (), |_| true);
        let (mut now, mut found) = (0, Vec::new());
        for (outcome, takes) in outcomes {
            assert_eq!(next_at(&mut set, now), Some(job(1, 0)), "{outcomes:?} at {now}");
            now += takes;
            let away = || Away { sink: "s".to_owned(), cause: "away".to_owned(), needs: "it" };
            let outcome = match *outcome {
                "done" => Ok(()),
                "away" => Err(Failure::Away(away())),
                "full" => Err(Failure::NoRoom("full".to_owned())),
                _ => failure(),
            };
            found.push(match set.ended(job(1, 0), outcome, at(now)) {
                Verdict::Pause => {
                    let until = set.pauses_until().expect("it pauses").as_nanos() / 1_000_000;
                    assert!(set.next(at(until - 1)).is_none(), "it pauses");
                    let wait = until - now;
                    now = until;
                    format!("pause {wait}")
                }
                Verdict::Retry { attempt, .. } => format!("failure {attempt} at {now}"),
                Verdict::Failed { attempts, .. } => format!("end {attempts} at {now}"),
                Verdict::NoRoom { .. } => "room".to_owned(),
                verdict => format!("{verdict:?} at {now}"),
            });
        }
        assert_eq!(found, expected, "{outcomes:?}");
    }

    #[test]
    fn a_sink_that_is_away_is_waited_for_and_then_counts_once() {
        let (away, done, no, full) = (("away", 0), ("done", 0), ("no", 0), ("full", 0));
        check_attempts(&[away, away, done], &["pause 100", "pause 200", "BatchDone at 300"]);
        let pauses = ["pause 100", "pause 200", "pause 400", "pause 300"];
        let ends = [&pauses[..], &["failure 1 at 1000", "BatchDone at 1000"]].concat();
        check_attempts(&[away, away, away, away, away, done], &ends);
        // It was waited for once: the attempts that follow count at once.
        let ends = [&pauses[..], &["failure 1 at 1000", "end 2 at 1000"]].concat();
        check_attempts(&[away; 6], &ends);
        // What the attempts take is part of it.
        check_attempts(&[("away", 30_000), ("away", 900)], &["pause 100", "failure 1 at 31000"]);
        // Other failures count at once, before and behind it, and the pauses begin anew.
        check_attempts(&[no, no], &["failure 1 at 0", "end 2 at 0"]);
        let ends = ["pause 100", "failure 1 at 100", "pause 100", "end 2 at 200"];
        check_attempts(&[away, no, away, no], &ends);
        // Room is waited for as long as it takes, and that is no time of a sink that is away.
        let ends = ["pause 100", "room", "room", "pause 100", "BatchDone at 60100"];
        check_attempts(&[away, full, ("full", 59_900), away, done], &ends);
    }

    #[test]
    fn the_other_jobs_of_a_batch_go_on_while_a_sink_is_away() {
        let away =
            || Err(Failure::Away(Away { sink: String::new(), cause: String::new(), needs: "" }));
        let mut set = JobSet::new(2, 1, retries(0));
        set.admit(Time::from_millis(1), (), |_| true);
        set.admit(Time::from_millis(2), (), |_| true);
        assert_eq!(next(&mut set), Some(job(1, 0)));
        assert_eq!(set.ended(job(1, 0), away(), at(0)), Verdict::Pause);
        assert_eq!(next(&mut set), Some(job(1, 1)));
        assert_eq!(set.pauses_until(), None, "nothing may start while the other one runs");
        assert_eq!(set.ended(job(1, 1), Ok(()), at(50)), Verdict::MoreJobs);
        assert_eq!(next_at(&mut set, 50), None, "batches run in order");
        assert_eq!(
            (set.pauses_until(), set.patience(Time::from_millis(1), at(100))),
            (Some(at(100)), Duration::from_millis(900))
        );
        assert_eq!(next_at(&mut set, 100), Some(job(1, 0)));
        assert_eq!(set.ended(job(1, 0), away(), at(100)), Verdict::Pause);
        // A stop does not wait for the end of a pause, and the next one is short.
        set.end_pauses(at(120));
        assert_eq!(next_at(&mut set, 120), Some(job(1, 0)));
        assert_eq!(set.ended(job(1, 0), away(), at(120)), Verdict::Pause);
        assert_eq!(set.pauses_until(), Some(at(220)));
        set.abort();
        assert_eq!((set.pauses_until(), next_at(&mut set, 500)), (None, None));
    }
}
