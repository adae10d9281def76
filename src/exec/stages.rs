//! `run`: takes the plan of one job of one batch through the workers.
//!
//! ```text
//! Plan: [task task task] ─▶ [task task] ─▶ finish        the last task of a stage starts the next one
//!                     │  ╲
//! chain:           a0 ─▶ b0 ─▶ c0     stages of one width whose tasks need only their own partition have no barrier
//! ```
//! Runs on the workers. Knows no partitions, time, streams or sinks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::failure::{Failure, failure_text, task_failure_text};
use super::plan::{Finish, Needs, Plan, Stage, Work};
use super::worker_pool::{Task, Tasks, WorkerPool};
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering};

/// Completion callback; called exactly once.
pub type Done = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// The payload of a panic.
type Unwound = dyn Any + Send;

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
        Next::Chains(chains) => chains.into_iter().map(|chain| running.task(chain)).collect(),
        Next::Finish(finish) => vec![running.last_task(finish)],
    };
    running.queue.submit(tasks);
}

/// A running plan. Its last task drops it, whether that ran or not; the drop answers if nothing else has.
struct StageRun {
    queue: Tasks,
    rest: Mutex<Rest>,
    /// Chains that have not ended. Released by each, acquired by the last: it sees their results.
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

impl Rest {
    /// Takes the next stage that has a task, if `takes` holds for it.
    fn pop_if(&mut self, takes: impl Fn(&Stage) -> bool) -> Option<Stage> {
        while self.stages.pop_if(|stage| stage.tasks.is_empty()).is_some() {}
        self.stages.pop_if(|stage| takes(stage))
    }
}

enum Next {
    Chains(Vec<Chain>),
    Finish(Option<Finish>),
}

/// The tasks of one partition in stages that need no other partition: one worker runs them one after the other.
struct Chain {
    partition: usize,
    first: Link,
    rest: Vec<Link>,
}

/// A task, and the kind of its stage.
struct Link {
    kind: &'static str,
    work: Work,
}

impl StageRun {
    /// Takes the next stage that has a task, with those that run on in its tasks, and sets the count of its tasks.
    fn next(&self) -> Next {
        let mut rest = self.rest.lock();
        let Some(Stage { kind, tasks, .. }) = rest.pop_if(|_| true) else {
            return Next::Finish(rest.finish.take());
        };
        let chain =
            |(partition, work)| Chain { partition, first: Link { kind, work }, rest: Vec::new() };
        let mut chains: Vec<Chain> = tasks.into_iter().enumerate().map(chain).collect();
        let width = chains.len();
        let joins =
            |stage: &Stage| stage.needs == Needs::SamePartition && stage.tasks.len() == width;
        while let Some(Stage { kind, tasks, .. }) = rest.pop_if(joins) {
            for (chain, work) in chains.iter_mut().zip(tasks) {
                chain.rest.push(Link { kind, work });
            }
        }
        self.left.store(width, Ordering::Release);
        Next::Chains(chains)
    }

    fn task(self: &Arc<Self>, chain: Chain) -> Task {
        let running = Arc::clone(self);
        Box::new(move |worker| {
            if running.attempt(chain, worker) {
                running.advance(worker);
            }
        })
    }

    fn last_task(self: &Arc<Self>, finish: Option<Finish>) -> Task {
        let running = Arc::clone(self);
        Box::new(move |worker| running.end(finish, worker))
    }

    /// Runs one chain; true if it was the last.
    fn attempt(&self, chain: Chain, worker: usize) -> bool {
        let Chain { partition, first, rest } = chain;
        for Link { kind, work } in std::iter::once(first).chain(rest) {
            let text = |unwound: &Unwound| task_failure_text(unwound, kind, partition);
            self.guarded(|| Ok(work(worker)?), text);
        }
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
            let chains = match self.next() {
                Next::Chains(chains) => chains,
                Next::Finish(finish) => return self.end(finish, worker),
            };
            let mut chains = chains.into_iter();
            let first = chains.next();
            self.queue.submit(chains.map(|chain| self.task(chain)));
            if first.is_some_and(|chain| !self.attempt(chain, worker)) {
                return;
            }
        }
    }

    fn end(&self, finish: Option<Finish>, worker: usize) {
        if let Some(finish) = finish {
            self.guarded(|| finish(worker), failure_text);
        }
        let error = self.error.lock().take();
        self.answer(error.map_or(Ok(()), Err));
    }

    /// Runs work of the plan unless something of it has failed; `text` makes the reason of what unwound.
    fn guarded(
        &self,
        work: impl FnOnce() -> Result<(), Failure>,
        text: impl FnOnce(&Unwound) -> String,
    ) {
        if self.failed.load(Ordering::Acquire) {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|unwound| Err(text(unwound.as_ref()).into()));
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
    use crate::exec::plan::PlanName;
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

    fn stage(needs: Needs, tasks: Vec<Work>) -> Stage {
        Stage { kind: "test", node: None, needs, tasks }
    }

    /// Runs a plan whose pieces leave their names and returns the answer and the names. One worker: the order is fixed.
    /// Stages after `chained` of them need all partitions.
    fn check_chained(
        chained: usize,
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
        let stage = |(number, tasks): (usize, &&[(&'static str, Then)])| {
            let needs = if number < chained { Needs::SamePartition } else { Needs::AllPartitions };
            stage(needs, tasks.iter().map(|task| piece(task.0, task.1)).collect())
        };
        let plan = Plan {
            name: PlanName::default(),
            stages: stages.iter().enumerate().map(stage).collect(),
            finish: last(piece("finish", finish)),
        };
        let pool = Arc::new(WorkerPool::start(1, &Poison::new()).expect("a thread"));
        let to = answers.clone();
        run(plan, &pool, Box::new(move |result| to.send(result).expect("the test listens")));
        assert_eq!(answers.recv(), Some(answer.map_err(|text| Failure::Failed(text.to_owned()))));
        drop(pool);
        assert_eq!((names.lock().as_slice(), answers.len()), (expected, 0), "one answer");
    }

    /// The same, of stages that all need all partitions.
    fn check(
        stages: &[&[(&'static str, Then)]],
        finish: Then,
        answer: Result<(), &str>,
        expected: &[&str],
    ) {
        check_chained(0, stages, finish, answer, expected);
    }

    #[test]
    fn stages_that_need_their_own_partition_run_on_in_the_same_task() {
        use Then::{Fail, Panic, Succeed};
        let (a, b) = ([("a0", Succeed), ("a1", Succeed)], [("b0", Succeed), ("b1", Succeed)]);
        let (c, one) = ([("c0", Succeed), ("c1", Succeed)], [("one", Succeed)]);
        let done = Ok(());
        check_chained(
            3,
            &[&a, &b, &c],
            Succeed,
            done,
            &["a0", "b0", "c0", "a1", "b1", "c1", "finish"],
        );
        check_chained(3, &[&a, &[], &c], Succeed, done, &["a0", "c0", "a1", "c1", "finish"]);
        // A barrier, or another width, ends the chain.
        check_chained(
            2,
            &[&a, &b, &c],
            Succeed,
            done,
            &["a0", "b0", "a1", "b1", "c0", "c1", "finish"],
        );
        check_chained(
            3,
            &[&a, &one, &b],
            Succeed,
            done,
            &["a0", "a1", "one", "b0", "b1", "finish"],
        );
        check_chained(
            2,
            &[&[("a0", Fail), ("a1", Succeed)], &b],
            Succeed,
            Err("a0 failed"),
            &["a0"],
        );
        let falls = [("b0", Succeed), ("b1", Panic)];
        let says = Err("panicked in `test` of partition 1: b1 fell");
        check_chained(2, &[&a, &falls], Succeed, says, &["a0", "b0", "a1", "b1"]);
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
            Err("panicked in `test` of partition 1: b fell"),
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
            stage(Needs::AllPartitions, vec![Box::new(|_| Ok(()))]),
            stage(Needs::AllPartitions, vec![meet(&left, &right), meet(&right, &left)]),
        ];
        let answers = Mailbox::new(1);
        let to = answers.clone();
        let plan = Plan { name: PlanName::default(), stages, finish: Box::new(|_| Ok(())) };
        run(plan, &pool, Box::new(move |result| to.send(result).expect("the test listens")));
        assert_eq!(answers.recv(), Some(Ok(())));
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::exec::plan::PlanName;
    use crate::sync::explore;
    use crate::sync::{Mailbox, Poison};

    fn last(work: Work) -> Finish {
        Box::new(|worker| Ok(work(worker)?))
    }

    /// Three stages of two tasks on two workers, the last two without a barrier between them; the piece `fails` fails. Every
    /// piece sees the pieces that it needs.
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
            let stage = |needs, tasks| Stage { kind: "test", node: None, needs, tasks };
            let stages = vec![
                stage(Needs::SamePartition, vec![piece(0, 0), piece(1, 0)]),
                stage(Needs::AllPartitions, vec![piece(2, 2), piece(3, 2)]),
                stage(Needs::SamePartition, vec![piece(4, 3), piece(5, 3)]),
            ];
            let to = answers.clone();
            let done = Box::new(move |result| to.send(result).expect("the test listens"));
            let (name, finish) = (PlanName::default(), last(piece(6, 6)));
            run(Plan { name, stages, finish }, &pool, done);
            assert_eq!(answers.recv(), Some(fails.map_or(Ok(()), |_| Err(String::new().into()))));
            drop(pool);
            assert!(answers.is_empty(), "one answer");
            assert!(fails.is_some() || ran.load(Ordering::SeqCst) == 7);
        });
    }

    #[test]
    fn every_schedule_runs_the_stages_in_order_and_answers_once() {
        check(None);
    }

    #[test]
    fn every_schedule_answers_once_after_a_failure() {
        (0..7).for_each(|piece| check(Some(piece)));
    }
}
