//! `Mailbox`: a bounded queue that one thread empties and any thread fills.
//!
//! Full and closed are different answers, and refused values come back. The owner waits on the mailbox's signal, with a
//! deadline if it has one.

use std::collections::VecDeque;

use super::planted::{Planted, planted};
use super::{Arc, Condvar, Mutex, Signal};

/// A bounded queue with one reader. Clones are handles of the same mailbox.
#[derive(Debug)]
pub struct Mailbox<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    state: Mutex<State<T>>,
    room: Condvar,
    signal: Signal,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// The reason why a value was refused; the value comes back inside.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// There is no room now.
    Full(T),
    /// The reader is gone for good.
    Closed(T),
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Mailbox(Arc::clone(&self.0))
    }
}

impl<T> Mailbox<T> {
    /// Creates a mailbox that holds at most `capacity` values.
    pub fn new(capacity: usize) -> Self {
        let state = Mutex::new(State { items: VecDeque::new(), closed: false });
        Mailbox(Arc::new(Inner { state, room: Condvar::new(), signal: Signal::new(), capacity }))
    }

    /// Appends without waiting.
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Err(SendError::Closed(value));
        }
        if state.items.len() >= self.0.capacity {
            return Err(SendError::Full(value));
        }
        state.items.push_back(value);
        drop(state);
        self.0.signal.raise();
        Ok(())
    }

    /// Appends, waiting for room. A receive or [`close`](Mailbox::close) wakes it; after a close the value comes back.
    pub fn send(&self, value: T) -> Result<(), T> {
        let mut state = self.0.state.lock();
        while !state.closed && state.items.len() >= self.0.capacity {
            self.0.room.wait(&mut state);
        }
        if state.closed {
            return Err(value);
        }
        state.items.push_back(value);
        drop(state);
        self.0.signal.raise();
        Ok(())
    }

    /// Takes the oldest value without waiting.
    pub fn try_recv(&self) -> Option<T> {
        let mut state = self.0.state.lock();
        let value = state.items.pop_front();
        drop(state);
        if value.is_some() && !planted(Planted::RecvWakesNobody) {
            self.0.room.notify_one();
        }
        value
    }

    /// Takes the oldest value, waiting for one. Returns `None` once the mailbox is closed and empty.
    pub fn recv(&self) -> Option<T> {
        loop {
            if let Some(value) = self.try_recv() {
                return Some(value);
            }
            if self.is_closed_and_empty() {
                return None;
            }
            self.0.signal.wait();
        }
    }

    /// Refuses new values and wakes everyone; what is queued can still be received.
    pub fn close(&self) {
        self.0.state.lock().closed = true;
        if planted(Planted::MailboxCloseWakesOne) {
            self.0.room.notify_one();
        } else {
            self.0.room.notify_all();
        }
        self.0.signal.raise();
    }

    /// True if the mailbox is closed and every value in it was received.
    pub fn is_closed_and_empty(&self) -> bool {
        let state = self.0.state.lock();
        state.closed && state.items.is_empty()
    }

    /// Number of values that wait.
    pub fn len(&self) -> usize {
        self.0.state.lock().items.len()
    }

    /// True if no value waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most values that may wait.
    pub fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// The signal for a reader that waits with a deadline: raised after each send and at the close.
    pub fn signal(&self) -> &Signal {
        &self.0.signal
    }
}

#[cfg(all(test, tidemill_model))]
mod model {
    use super::*;
    use crate::sync::explore::{check, thread};

    #[test]
    fn values_arrive_once_in_the_order_of_each_sender() {
        check(4_000, &[Planted::RecvWakesNobody, Planted::SignalForgetsRaise], || {
            let mailbox = Mailbox::new(1);
            let senders = [0, 1].map(|sender| {
                let mailbox = mailbox.clone();
                thread("sender", move || {
                    (0..2).for_each(|value| mailbox.send((sender, value)).expect("open"));
                })
            });
            let mut next = [0; 2];
            for _ in 0..4 {
                let (sender, value) = mailbox.recv().expect("open");
                assert_eq!(value, next[sender], "sender {sender}");
                next[sender] += 1;
            }
            drop(senders);
            assert!(mailbox.is_empty());
        });
    }

    #[test]
    fn a_close_lets_every_waiting_sender_go_and_loses_nothing_accepted() {
        check(4_000, &[Planted::MailboxCloseWakesOne], || {
            let (mailbox, accepted) = (Mailbox::new(1), Arc::new(Mutex::new(0)));
            let senders = [1, 2, 4].map(|value| {
                let (mailbox, accepted) = (mailbox.clone(), Arc::clone(&accepted));
                thread("sender", move || match mailbox.send(value) {
                    Ok(()) => *accepted.lock() += value,
                    Err(back) => assert_eq!(back, value),
                })
            });
            mailbox.close();
            senders.into_iter().for_each(crate::sync::thread::Thread::join);
            let received: i32 = std::iter::from_fn(|| mailbox.recv()).sum();
            assert_eq!((received, mailbox.is_closed_and_empty()), (*accepted.lock(), true));
        });
    }
}
