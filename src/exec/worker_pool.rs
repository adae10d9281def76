//! `WorkerPool`: threads, `worker-N`, that run tasks in the order in which they were submitted. Their number changes only
//! on request; a batch is planned for the current number.
//!
//! Owns the threads and their queue. It does not know what a task computes: the submitter turns a panic of a task into a
//! failure of its batch. A panic that gets here anyway poisons the engine, and the worker continues.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};
use crate::sync::thread::{self, Thread, panic_text};
use crate::sync::{Arc, Mutex, Poison, TaskQueue};
use crate::time::{Clock, Joined, Moment, join_until};

/// A task; it gets the worker's number, from 0.
pub type Task = Box<dyn FnOnce(usize) + Send>;

/// Threads over one first-in-first-out queue. Dropping the pool runs what is queued and joins the threads.
#[derive(Debug)]
pub struct WorkerPool {
    tasks: Tasks,
    staff: Mutex<Staff>,
    poison: Poison,
}

/// The threads of a pool.
#[derive(Debug, Default)]
struct Staff {
    threads: Vec<Thread>,
    /// Number of threads that have not been let go.
    workers: usize,
    /// Number of threads ever started: the next one gets this number.
    started: usize,
}

/// The pool's queue. A running batch holds only this, so that the last task never joins its own thread.
#[derive(Clone)]
pub struct Tasks(Arc<TaskQueue<Task>>);

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tasks")
    }
}

impl Tasks {
    /// Queues tasks, in order; false, and the tasks are dropped, once the pool is stopped.
    pub fn submit(&self, tasks: impl IntoIterator<Item = Task>) -> bool {
        self.0.push_all(tasks)
    }
}

impl WorkerPool {
    /// Starts `workers` threads, at least one.
    ///
    /// # Errors
    /// If the operating system gives no more threads.
    pub fn start(workers: usize, poison: &Poison) -> Result<WorkerPool> {
        let tasks = Tasks(Arc::new(TaskQueue::new()));
        let pool = WorkerPool { tasks, staff: Mutex::default(), poison: poison.clone() };
        pool.resize(workers)?;
        Ok(pool)
    }

    /// Changes the number of threads to `workers`, at least one: starts some, or lets some go after their current task.
    ///
    /// # Errors
    /// If the operating system gives no more threads; those that were started stay.
    pub fn resize(&self, workers: usize) -> Result<()> {
        let workers = workers.max(1);
        let mut staff = self.staff.lock();
        staff.threads.retain(|thread| !thread.is_done());
        while staff.workers < workers {
            let worker = staff.started;
            let (queue, fault) = (Arc::clone(&self.tasks.0), self.poison.clone());
            let thread = thread::spawn(format!("worker-{worker}"), &self.poison, move || {
                work(worker, &queue, &fault)
            })
            .map_err(|err| Error::io(format!("cannot start thread `worker-{worker}`"), err))?;
            staff.threads.push(thread);
            (staff.workers, staff.started) = (staff.workers + 1, staff.started + 1);
        }
        self.tasks.0.let_go(staff.workers - workers);
        staff.workers = workers;
        Ok(())
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.staff.lock().workers
    }

    /// The queue, for a batch that submits its own next tasks.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Queues tasks, in order; false, and the tasks are dropped, once the pool is stopped.
    pub fn submit(&self, tasks: Vec<Task>) -> bool {
        self.tasks.submit(tasks)
    }

    /// Refuses new tasks, lets the workers finish what is queued and joins them; at the deadline the queue is emptied
    /// and workers that are still busy are let go. Returns their names.
    pub fn stop(&self, clock: &dyn Clock, deadline: Moment) -> Vec<String> {
        self.tasks.0.close();
        let threads = std::mem::take(&mut self.staff.lock().threads);
        let stuck = |thread| match join_until(clock, thread, deadline) {
            Joined::Ended => None,
            Joined::Stuck(name) => {
                self.tasks.0.clear();
                Some(name)
            }
        };
        threads.into_iter().filter_map(stuck).collect()
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.tasks.0.close();
    }
}

fn work(worker: usize, queue: &TaskQueue<Task>, poison: &Poison) {
    while let Some(task) = queue.pop() {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(worker))) {
            poison.set(format!(
                "a task of `worker-{worker}` panicked: {}",
                panic_text(panic.as_ref())
            ));
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::sync::{Mailbox, Signal};
    use crate::time::{ManualClock, SystemClock};

    fn reply(to: &Mailbox<usize>) -> Task {
        let to = to.clone();
        Box::new(move |worker| to.send(worker).expect("the test listens"))
    }

    #[test]
    fn tasks_run_and_a_panic_poisons_without_killing_the_worker() {
        let (poison, replies) = (Poison::new(), Mailbox::new(10));
        let pool = WorkerPool::start(1, &poison).unwrap();
        assert!(pool.submit(vec![Box::new(|_| panic!("oh no")), reply(&replies)]));
        assert_eq!(replies.recv(), Some(0));
        assert_eq!(poison.reason().as_deref(), Some("a task of `worker-0` panicked: oh no"));
    }

    #[test]
    fn a_stop_runs_what_is_queued_and_refuses_more() {
        let replies = Mailbox::new(100);
        let pool = WorkerPool::start(2, &Poison::new()).unwrap();
        pool.submit((0..50).map(|_| reply(&replies)).collect());
        let clock = SystemClock::new();
        assert!(
            pool.stop(clock.as_ref(), clock.now().plus(std::time::Duration::from_secs(60)))
                .is_empty()
        );
        assert_eq!(replies.len(), 50);
        assert!(!pool.submit(vec![reply(&replies)]));
    }

    #[test]
    fn workers_are_started_and_let_go() {
        let replies = Mailbox::new(100);
        let pool = WorkerPool::start(1, &Poison::new()).unwrap();
        let meet = |workers: usize| {
            assert_eq!(pool.workers(), workers);
            // Each task waits until the others have begun, so there are at least as many workers.
            let (begun, all) = (Mailbox::new(10), Signal::new());
            let task = |_| -> Task {
                let (begun, all, replies) = (begun.clone(), all.clone(), replies.clone());
                Box::new(move |worker| {
                    begun.send(()).expect("the test listens");
                    all.wait();
                    all.raise();
                    replies.send(worker).expect("the test listens");
                })
            };
            pool.submit((0..workers).map(task).collect());
            (0..workers).for_each(|_| begun.recv().expect("begun"));
            all.raise();
            (0..workers).for_each(|_| assert!(replies.recv().is_some()));
        };
        meet(1);
        pool.resize(3).unwrap();
        meet(3);
        pool.resize(1).unwrap();
        meet(1);
        pool.resize(2).unwrap();
        meet(2);
        let (clock, by) = (SystemClock::new(), Moment::from_nanos(u64::MAX));
        assert!(pool.stop(clock.as_ref(), by).is_empty());
    }

    #[test]
    fn a_stuck_worker_is_named_and_let_go() {
        let (started, release) = (Signal::new(), Signal::new());
        let pool = WorkerPool::start(2, &Poison::new()).unwrap();
        let (enter, leave) = (started.clone(), release.clone());
        pool.submit(vec![Box::new(move |_| {
            enter.raise();
            leave.wait();
        })]);
        started.wait();
        let clock = ManualClock::new();
        let stuck = pool.stop(&clock, clock.now());
        assert!(stuck.iter().any(|name| name.starts_with("worker-")), "{stuck:?}");
        release.raise();
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::sync::explore::{check, thread};
    use crate::sync::planted::Planted;
    use crate::sync::{AtomicUsize, Ordering};
    use crate::time::ManualClock;

    #[test]
    fn a_stop_runs_what_was_accepted_and_ends_every_worker() {
        let defects = [Planted::ClosedQueueDropsTasks, Planted::TaskCloseWakesOne];
        check(2_000, &defects, || {
            let pool = Arc::new(WorkerPool::start(2, &Poison::new()).expect("threads"));
            let (accepted, ran) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let submit = |tasks: usize| {
                let (pool, accepted, ran) = (pool.clone(), accepted.clone(), ran.clone());
                move || {
                    let task = |_| -> Task {
                        let ran = Arc::clone(&ran);
                        Box::new(move |_| {
                            ran.fetch_add(1, Ordering::SeqCst);
                        })
                    };
                    if pool.submit((0..tasks).map(task).collect()) {
                        accepted.fetch_add(tasks, Ordering::SeqCst);
                    }
                }
            };
            let submitter = thread("submitter", submit(2));
            submit(1)();
            let clock = ManualClock::new();
            let stuck = pool.stop(&clock, Moment::from_nanos(1));
            assert!(stuck.is_empty(), "{stuck:?}");
            submitter.join();
            assert_eq!(ran.load(Ordering::SeqCst), accepted.load(Ordering::SeqCst));
        });
    }
}
