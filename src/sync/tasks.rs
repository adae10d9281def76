//! `TaskQueue`: a first-in-first-out queue that several worker threads empty.
//!
//! The sender keeps it bounded: a job submits as many tasks as it has partitions, and jobs are admitted one at a time.

use std::collections::VecDeque;

use super::planted::{Planted, planted};
use super::{Mutex, Signal};

/// A queue with many readers, which a push or the close wakes.
#[derive(Debug)]
pub struct TaskQueue<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    /// The readers that wait, each with its signal. The thread that removes a signal raises it, so each is raised once.
    ///
    /// The last reader to go idle is woken first: its core is the likeliest to be awake and to have the tables of the last
    /// batch in its cache. Waking readers in turn cost an empty batch 35 us on two cores (`benches/scorecard`, P5).
    idle: Vec<Signal>,
    /// Signals that nobody waits on, kept for reuse.
    spare: Vec<Signal>,
    closed: bool,
    /// Number of readers that must end although the queue is open.
    leaving: usize,
}

impl<T> Default for TaskQueue<T> {
    fn default() -> Self {
        let (idle, spare) = (Vec::new(), Vec::new());
        let state = State { items: VecDeque::new(), idle, spare, closed: false, leaving: 0 };
        TaskQueue { state: Mutex::new(state) }
    }
}

impl<T> TaskQueue<T> {
    /// Creates an empty, open queue.
    pub fn new() -> Self {
        TaskQueue::default()
    }

    /// Appends all values and wakes as many idle readers as they need. False if the queue is closed.
    pub fn push_all(&self, values: impl IntoIterator<Item = T>) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        let before = state.items.len();
        state.items.extend(values);
        let wake = (state.items.len() - before).min(state.idle.len());
        let wake = if planted(Planted::PushWakesOne) { wake.min(1) } else { wake };
        let asleep = state.idle.len() - wake;
        let woken = state.idle.split_off(asleep);
        drop(state);
        woken.iter().rev().for_each(Signal::raise);
        true
    }

    /// Lets `count` readers leave: that many calls of [`pop`](TaskQueue::pop) return `None`, each before it takes a value.
    pub fn let_go(&self, count: usize) {
        let mut state = self.state.lock();
        state.leaving += count;
        let asleep = state.idle.len().saturating_sub(count);
        let woken = state.idle.split_off(asleep);
        drop(state);
        woken.iter().for_each(Signal::raise);
    }

    /// Takes the oldest value, waiting for one. Returns `None` once the queue is closed and empty, or to a reader that must
    /// leave.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if state.closed && planted(Planted::ClosedQueueDropsTasks) {
                return None;
            }
            if state.leaving > 0 && !state.closed {
                state.leaving -= 1;
                return None;
            }
            if let Some(value) = state.items.pop_front() {
                return Some(value);
            }
            if state.closed {
                return None;
            }
            let signal = state.spare.pop().unwrap_or_default();
            state.idle.push(signal.clone());
            drop(state);
            signal.wait();
            state = self.state.lock();
            state.spare.push(signal);
        }
    }

    /// Refuses new values and wakes every reader; what is queued is still handed out.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let mut woken = std::mem::take(&mut state.idle);
        drop(state);
        if planted(Planted::TaskCloseWakesOne) {
            woken.truncate(1);
        }
        woken.iter().for_each(Signal::raise);
    }

    /// Removes all queued tasks, so that a stop does not run them.
    pub fn clear(&self) -> usize {
        let mut state = self.state.lock();
        let dropped = std::mem::take(&mut state.items);
        drop(state);
        dropped.len()
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::sync::explore::{check, thread};
    use crate::sync::{Arc, Mailbox};

    #[test]
    fn every_task_is_taken_once_and_the_close_ends_every_reader() {
        check(4_000, &[Planted::TaskCloseWakesOne, Planted::ClosedQueueDropsTasks], || {
            let (queue, taken) = (Arc::new(TaskQueue::new()), Arc::new(Mutex::new(Vec::new())));
            let readers = [0, 1, 2].map(|_| {
                let (queue, taken) = (Arc::clone(&queue), Arc::clone(&taken));
                thread("reader", move || {
                    while let Some(task) = queue.pop() {
                        taken.lock().push(task);
                    }
                })
            });
            assert!(queue.push_all([0, 1]) && queue.push_all([2]));
            queue.close();
            assert!(!queue.push_all([3]), "closed");
            drop(readers);
            taken.lock().sort_unstable();
            assert_eq!(*taken.lock(), [0, 1, 2]);
        });
    }

    #[test]
    fn readers_that_are_let_go_leave_the_values_to_the_others() {
        check(4_000, &[], || {
            let (queue, taken) = (Arc::new(TaskQueue::new()), Arc::new(Mutex::new(Vec::new())));
            let readers = [0, 1, 2].map(|_| {
                let (queue, taken) = (Arc::clone(&queue), Arc::clone(&taken));
                thread("reader", move || {
                    while let Some(task) = queue.pop() {
                        taken.lock().push(task);
                    }
                })
            });
            assert!(queue.push_all([0, 1]));
            queue.let_go(2);
            assert!(queue.push_all([2]));
            // Two have left, or will; the third takes the queued value.
            queue.close();
            drop(readers);
            taken.lock().sort_unstable();
            assert_eq!(*taken.lock(), [0, 1, 2]);
        });
    }

    /// Each task waits for the other one, so both readers must be awake whatever they did before.
    #[test]
    fn a_push_wakes_as_many_readers_as_it_brings_tasks() {
        check(4_000, &[Planted::PushWakesOne], || {
            let (queue, met) = (Arc::new(TaskQueue::new()), Mailbox::new(2));
            let meet = [Signal::new(), Signal::new()];
            let readers = [0, 1].map(|_| {
                let (queue, met, meet) = (Arc::clone(&queue), met.clone(), meet.clone());
                thread("reader", move || {
                    while let Some(task) = queue.pop() {
                        if let 0 | 1 = task {
                            meet[task].raise();
                            meet[1 - task].wait();
                            met.send(task).expect("open");
                        }
                    }
                })
            });
            queue.push_all([2]);
            queue.push_all([0, 1]);
            // The close wakes everyone, so it comes after the meeting.
            assert!(met.recv().is_some() && met.recv().is_some());
            queue.close();
            drop(readers);
        });
    }
}
