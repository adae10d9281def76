//! `WorkerPool`: a fixed number of threads, `worker-N`, that run tasks in the order in which they were submitted.
//!
//! Owns the threads and their queue. It does not know what a task computes: whoever submits tasks turns a panic in one
//! into a failure of its batch; a panic that gets here anyway poisons the engine and the worker goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};
use crate::sync::thread::{self, Thread, panic_text};
use crate::sync::{Arc, Mutex, Poison, TaskQueue};
use crate::time::{Clock, Moment, Wake};

/// Something for a worker to do; it is told the worker's number, from 0.
pub type Task = Box<dyn FnOnce(usize) + Send>;

/// Fixed threads over one first-in-first-out queue. Dropping the pool runs what is queued and joins the threads.
#[derive(Debug)]
pub struct WorkerPool {
    tasks: Tasks,
    threads: Mutex<Vec<Thread>>,
    workers: usize,
}

/// The pool's queue: what a running batch holds, so that the last task never joins its own thread.
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
        let workers = workers.max(1);
        let tasks = Tasks(Arc::new(TaskQueue::new()));
        let pool = WorkerPool { tasks, threads: Mutex::new(Vec::with_capacity(workers)), workers };
        for worker in 0..workers {
            let (queue, fault) = (Arc::clone(&pool.tasks.0), poison.clone());
            let thread = thread::spawn(format!("worker-{worker}"), poison, move || {
                work(worker, &queue, &fault)
            })
            .map_err(|err| Error::io(format!("cannot start thread `worker-{worker}`"), err))?;
            pool.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
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
        let threads = std::mem::take(&mut *self.threads.lock());
        threads.into_iter().filter_map(|thread| self.join_by(thread, clock, deadline)).collect()
    }

    fn join_by(&self, thread: Thread, clock: &dyn Clock, deadline: Moment) -> Option<String> {
        while !thread.is_done() {
            if clock.wait(thread.done(), Some(deadline)) == Wake::Deadline && !thread.is_done() {
                self.tasks.0.clear();
                let name = thread.name().to_owned();
                thread.abandon();
                return Some(name);
            }
        }
        thread.join();
        None
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
