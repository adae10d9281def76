//! `run`: takes the plan of one job of one batch through the workers.
//!
//! ```text
//! Plan: [task task task] ─▶ [task task] ─▶ finish        the last task of a stage starts the next one
//! ```
//! Runs on the workers. Knows no partitions, time, streams or sinks.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::failure::{Failure, failure_text};
use super::worker_pool::{Task, Tasks, WorkerPool};
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering};

/// A piece of a plan; it gets the worker's number. An error fails the batch.
pub type Work = Box<dyn FnOnce(usize) -> Result<(), String> + Send>;

/// The last piece of a plan, which hands the rows to the sinks; it gets the worker's number.
pub type Finish = Box<dyn FnOnce(usize) -> Result<(), Failure> + Send>;

/// Completion callback; called exactly once.
pub type Done = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// Tasks that may run at the same time. They are started in order.
#[derive(Default)]
pub struct Stage {
    /// The tasks, one for each partition.
    pub tasks: Vec<Work>,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("tasks", &self.tasks.len()).finish()
    }
}

/// The work of one job of one batch: the stages one after the other, then `finish`.
pub struct Plan {
    /// The stages; those without a task are left out.
    pub stages: Vec<Stage>,
    /// Runs once, after the last stage: it hands the rows to the sinks.
    pub finish: Finish,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("stages", &self.stages).finish_non_exhaustive()
    }
}

/// Runs a plan on the pool and calls `done` exactly once: with an error as soon as nothing of the plan runs any more
/// after a panic or an error in one of its parts, or when the pool was stopped before the end.
pub fn run(plan: Plan, pool: &Arc<WorkerPool>, done: Done) {
    let mut stages = plan.stages;
    stages.reverse();
    let running = Arc::new(StageRun {
        queue: pool.tasks().clone(),
        rest: Mutex::new(Rest { stages, finish: Some(plan.finish) }),
        left: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        error: Mutex::new(None),
        done: Mutex::new(Some(done)),
    });
    let tasks = match running.next() {
        Next::Stage(stage) => stage.into_iter().map(|work| running.task(work)).collect(),
        Next::Finish(finish) => vec![running.last_task(finish)],
    };
    running.queue.submit(tasks);
}

/// A running plan. Its last task drops it, whether that ran or not; the drop answers if nothing else has.
struct StageRun {
    queue: Tasks,
    rest: Mutex<Rest>,
    /// Tasks of the current stage that have not ended. Released by each, acquired by the last: it sees their results.
    left: AtomicUsize,
    /// Set by the first failure; the tasks that have not begun are skipped.
    failed: AtomicBool,
    error: Mutex<Option<Failure>>,
    done: Mutex<Option<Done>>,
}

struct Rest {
    /// The stages to come, the next one last.
    stages: Vec<Stage>,
    finish: Option<Finish>,
}

enum Next {
    Stage(Vec<Work>),
    Finish(Option<Finish>),
}

impl StageRun {
    /// Takes the next stage that has a task and sets the count of its tasks.
    fn next(&self) -> Next {
        let mut rest = self.rest.lock();
        while let Some(stage) = rest.stages.pop() {
            if !stage.tasks.is_empty() {
                self.left.store(stage.tasks.len(), Ordering::Release);
                return Next::Stage(stage.tasks);
            }
        }
        Next::Finish(rest.finish.take())
    }

    fn task(self: &Arc<Self>, work: Work) -> Task {
        let running = Arc::clone(self);
        Box::new(move |worker| {
            if running.attempt(work, worker) {
                running.advance(worker);
            }
        })
    }

    fn last_task(self: &Arc<Self>, finish: Option<Finish>) -> Task {
        let running = Arc::clone(self);
        Box::new(move |worker| running.end(finish, worker))
    }

    /// Runs one task of the stage; true if it was the stage's last.
    fn attempt(&self, work: Work, worker: usize) -> bool {
        self.guarded(|worker| Ok(work(worker)?), worker);
        if planted(Planted::StageCountsOnce) {
            let left = self.left.load(Ordering::Acquire);
            self.left.store(left - 1, Ordering::Release);
            return left == 1;
        }
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Starts the stages that follow. This worker takes the first task of each itself: one wake-up less.
    fn advance(self: &Arc<Self>, worker: usize) {
        loop {
            if self.failed.load(Ordering::Acquire) {
                return self.end(None, worker);
            }
            let stage = match self.next() {
                Next::Stage(stage) => stage,
                Next::Finish(finish) => return self.end(finish, worker),
            };
            let mut stage = stage.into_iter();
            let first = stage.next();
            self.queue.submit(stage.map(|work| self.task(work)));
            if first.is_some_and(|work| !self.attempt(work, worker)) {
                return;
            }
        }
    }

    fn end(&self, finish: Option<Finish>, worker: usize) {
        if let Some(finish) = finish {
            self.guarded(finish, worker);
        }
        let error = self.error.lock().take();
        self.answer(error.map_or(Ok(()), Err));
    }

    fn guarded(&self, work: impl FnOnce(usize) -> Result<(), Failure>, worker: usize) {
        if self.failed.load(Ordering::Acquire) {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| work(worker)))
            .unwrap_or_else(|panic| Err(failure_text(panic.as_ref()).into()));
        if let Err(failure) = outcome {
            self.error.lock().get_or_insert(failure);
            self.failed.store(true, Ordering::Release);
        }
    }

    fn answer(&self, result: Result<(), Failure>) {
        let done = self.done.lock().take();
        if let Some(done) = done {
            done(result);
        }
    }
}

impl Drop for StageRun {
    fn drop(&mut self) {
        self.answer(Err("the workers were stopped before the batch was done".to_owned().into()));
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::sync::{Mailbox, Poison};

    /// The outcome of a piece of a plan, which also leaves its name.
    #[derive(Clone, Copy)]
    enum Then {
        Succeed,
        Fail,
        Panic,
    }

    fn last(work: Work) -> Finish {
        Box::new(|worker| Ok(work(worker)?))
    }

    /// Runs a plan whose pieces leave their names and returns the answer and the names. One worker: the order is fixed.
    fn check(
        stages: &[&[(&'static str, Then)]],
        finish: Then,
        answer: Result<(), &str>,
        expected: &[&str],
    ) {
        let (names, answers) = (Arc::new(Mutex::new(Vec::new())), Mailbox::new(8));
        let piece = |name: &'static str, then: Then| -> Work {
            let names = Arc::clone(&names);
            Box::new(move |_| {
                names.lock().push(name);
                match then {
                    Then::Succeed => Ok(()),
                    Then::Fail => Err(format!("{name} failed")),
                    Then::Panic => panic!("{name} fell"),
                }
            })
        };
        let stage = |tasks: &&[(&'static str, Then)]| Stage {
            tasks: tasks.iter().map(|task| piece(task.0, task.1)).collect(),
        };
        let plan = Plan {
            stages: stages.iter().map(stage).collect(),
            finish: last(piece("finish", finish)),
        };
        let pool = Arc::new(WorkerPool::start(1, &Poison::new()).expect("a thread"));
        let to = answers.clone();
        run(plan, &pool, Box::new(move |result| to.send(result).expect("the test listens")));
        assert_eq!(answers.recv(), Some(answer.map_err(|text| Failure::Failed(text.to_owned()))));
        drop(pool);
        assert_eq!((names.lock().as_slice(), answers.len()), (expected, 0), "one answer");
    }

    #[test]
    fn stages_run_in_order_and_a_failure_skips_the_rest() {
        use Then::{Fail, Panic, Succeed};
        check(&[], Succeed, Ok(()), &["finish"]);
        check(&[&[], &[("a", Succeed)], &[]], Succeed, Ok(()), &["a", "finish"]);
        check(
            &[&[("a", Succeed), ("b", Succeed)], &[("c", Succeed)]],
            Succeed,
            Ok(()),
            &["a", "b", "c", "finish"],
        );
        check(
            &[&[("a", Fail), ("b", Succeed)], &[("c", Succeed)]],
            Succeed,
            Err("a failed"),
            &["a"],
        );
        check(
            &[&[("a", Succeed), ("b", Panic)], &[("c", Succeed)]],
            Succeed,
            Err("panicked: b fell"),
            &["a", "b"],
        );
        check(
            &[&[("a", Succeed)], &[("b", Fail), ("c", Fail)]],
            Succeed,
            Err("b failed"),
            &["a", "b"],
        );
        check(&[&[("a", Succeed)]], Fail, Err("finish failed"), &["a", "finish"]);
        check(&[], Panic, Err("panicked: finish fell"), &["finish"]);
    }

    #[test]
    fn a_second_stage_spreads_over_the_workers() {
        let pool = Arc::new(WorkerPool::start(2, &Poison::new()).unwrap());
        // Each task of the stage waits for the other: one worker alone would never get through.
        let (left, right) = (Mailbox::new(1), Mailbox::new(1));
        let meet = |mine: &Mailbox<()>, other: &Mailbox<()>| -> Work {
            let (mine, other) = (mine.clone(), other.clone());
            Box::new(move |_| {
                mine.send(()).map_err(|()| "closed".to_owned())?;
                other.recv().ok_or_else(|| "closed".to_owned())
            })
        };
        let stages = vec![
            Stage { tasks: vec![Box::new(|_| Ok(()))] },
            Stage { tasks: vec![meet(&left, &right), meet(&right, &left)] },
        ];
        let answers = Mailbox::new(1);
        let to = answers.clone();
        let plan = Plan { stages, finish: Box::new(|_| Ok(())) };
        run(plan, &pool, Box::new(move |result| to.send(result).expect("the test listens")));
        assert_eq!(answers.recv(), Some(Ok(())));
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::sync::explore;
    use crate::sync::{Mailbox, Poison};

    fn last(work: Work) -> Finish {
        Box::new(|worker| Ok(work(worker)?))
    }

    /// Two stages of two tasks on two workers; the piece `fails` fails. Every piece sees all pieces before it.
    fn check(fails: Option<usize>) {
        explore::check(800, &[Planted::StageCountsOnce], move || {
            let pool = Arc::new(WorkerPool::start(2, &Poison::new()).expect("threads"));
            let (ran, answers) = (Arc::new(AtomicUsize::new(0)), Mailbox::new(4));
            let piece = |number: usize, before: usize| -> Work {
                let ran = Arc::clone(&ran);
                Box::new(move |_| {
                    assert!(ran.load(Ordering::SeqCst) >= before, "a stage began too early");
                    ran.fetch_add(1, Ordering::SeqCst);
                    if fails == Some(number) { Err(String::new()) } else { Ok(()) }
                })
            };
            let stages = vec![
                Stage { tasks: vec![piece(0, 0), piece(1, 0)] },
                Stage { tasks: vec![piece(2, 2), piece(3, 2)] },
            ];
            let to = answers.clone();
            let done = Box::new(move |result| to.send(result).expect("the test listens"));
            run(Plan { stages, finish: last(piece(4, 4)) }, &pool, done);
            assert_eq!(answers.recv(), Some(fails.map_or(Ok(()), |_| Err(String::new().into()))));
            drop(pool);
            assert!(answers.is_empty(), "one answer");
            assert!(fails.is_some() || ran.load(Ordering::SeqCst) == 5);
        });
    }

    #[test]
    fn every_schedule_runs_the_stages_in_order_and_answers_once() {
        check(None);
    }

    #[test]
    fn every_schedule_answers_once_after_a_failure() {
        (0..5).for_each(|piece| check(Some(piece)));
    }
}
