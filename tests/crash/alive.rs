//! `Alive`: an engine of a test that stops in any case. A failed assertion must be reported; without this the test would wait
//! for threads that wait for the test, or for a deadline of a clock that nobody moves any more.

use std::ops::Deref;

use tidemill::internals::sync::{Mailbox, Poison, StopToken, thread};
use tidemill::testing::ManualClock;
use tidemill::{Report, Result, StreamHandle};

use super::{PERIOD, Trouble};

/// See the module.
#[derive(Debug)]
pub(super) struct Alive {
    /// Until it was stopped.
    running: Option<StreamHandle>,
    clock: ManualClock,
    /// The tokens that its sink waits for, closed at the end.
    tokens: Option<Mailbox<()>>,
}

impl Alive {
    pub(super) fn new(running: StreamHandle, clock: &ManualClock) -> Self {
        Alive { running: Some(running), clock: clock.clone(), tokens: None }
    }

    /// One whose sink waits for tokens of the test.
    pub(super) fn with_tokens(mut self, tokens: &Mailbox<()>) -> Self {
        self.tokens = Some(tokens.clone());
        self
    }

    /// Stops it while the clock moves: with a disk that is gone the stop has to reach its deadline, without trouble it must
    /// not. Returns true if it stopped in order.
    pub(super) fn stop(mut self, trouble: Trouble) -> bool {
        let ended = self.end(!matches!(trouble, Trouble::None));
        ended.is_some_and(|(_, outcome)| outcome.is_ok())
    }

    /// Stops it while the clock moves, up to the deadline if need be; returns the report and the outcome.
    pub(super) fn finish(mut self) -> (Report, Result<()>) {
        self.end(true).expect("it runs until it is stopped")
    }

    fn end(&mut self, to_the_deadline: bool) -> Option<(Report, Result<()>)> {
        let running = self.running.take()?;
        self.tokens.iter().for_each(Mailbox::close);
        let clock = self.clock.clone();
        let done = StopToken::new();
        let over = done.clone();
        let steps = if to_the_deadline { u64::MAX } else { 0 };
        let driver = thread::spawn("driver", &Poison::new(), move || {
            for _ in 0..steps {
                clock.advance(PERIOD.as_duration());
                (0..50).for_each(|_| std::thread::yield_now());
                if over.is_stopped() {
                    return;
                }
            }
        });
        running.stopper().stop();
        let ended = running.finish();
        done.stop();
        driver.expect("a thread").join();
        Some(ended)
    }
}

impl Deref for Alive {
    type Target = StreamHandle;

    fn deref(&self) -> &StreamHandle {
        self.running.as_ref().expect("it is taken by the stop, which takes this, too")
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.end(true);
    }
}
