//! `join_until`: the one way to wait for a thread's end when that wait must end too. A thread may be in a call that does
//! not return, such as a sync of a disk that hangs. Such a thread is named and abandoned, and ends with the process.

use crate::sync::thread::Thread;

use super::{Clock, Moment};

/// The outcome of a wait for a thread's end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Joined {
    /// The thread has ended and is joined.
    Ended,
    /// The thread had not ended at the deadline and is abandoned. Holds its name.
    Stuck(String),
}

impl Joined {
    /// The remaining thread in the words of a report; `None` if it has ended.
    pub fn left(self) -> Option<String> {
        match self {
            Joined::Ended => None,
            Joined::Stuck(name) => Some(format!("thread `{name}` did not stop and was abandoned")),
        }
    }
}

/// Waits until a thread has ended, at most until the deadline.
pub fn join_until(clock: &dyn Clock, thread: Thread, deadline: Moment) -> Joined {
    if wait_until(clock, &thread, deadline) {
        thread.join();
        return Joined::Ended;
    }
    let name = thread.name().to_owned();
    thread.abandon();
    Joined::Stuck(name)
}

/// Waits until a thread has ended, at most until the deadline; true if it has ended.
pub fn wait_until(clock: &dyn Clock, thread: &Thread, deadline: Moment) -> bool {
    while !thread.is_done() && clock.now() < deadline {
        clock.wait(thread.done(), Some(deadline));
    }
    thread.is_done()
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sync::thread::spawn;
    use crate::sync::{Poison, Signal};
    use crate::time::ManualClock;

    #[test]
    fn a_thread_that_ends_is_joined_and_one_that_does_not_is_let_go_at_the_deadline() {
        let (clock, hang) = (ManualClock::new(), Signal::new());
        let deadline = clock.now().plus(Duration::from_secs(1));
        let quick = spawn("quick", &Poison::new(), || ()).expect("a thread");
        assert_eq!(join_until(&clock, quick, deadline), Joined::Ended);
        let hangs = hang.clone();
        let stuck = spawn("stuck", &Poison::new(), move || hangs.wait()).expect("a thread");
        let (own, done) = (clock.clone(), stuck.done().clone());
        let waits = spawn("waits", &Poison::new(), move || {
            let joined = join_until(&own, stuck, deadline);
            assert_eq!(joined, Joined::Stuck("stuck".to_owned()));
        });
        clock.wait_for_sleepers(1);
        clock.advance(Duration::from_secs(1));
        waits.expect("a thread").join();
        hang.raise();
        done.wait();
    }
}
