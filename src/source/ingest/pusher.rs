//! The pusher: the body of `rxN-push` without a log. It stores blocks in the order in which they were cut, and repeats a push
//! that fails. It does not know where blocks are stored.

use crate::source::ingest::feed::Feed;
use crate::source::ingest::handover::{BlockTarget, PUSH_RETRY, Push};
use crate::sync::{Arc, Ordering, Signal};

/// See the module.
pub(crate) struct Pusher {
    pub(crate) feed: Arc<Feed>,
    pub(crate) target: Arc<dyn BlockTarget>,
}

impl Pusher {
    /// Pushes until the push queue is closed and empty, or the stop makes it give up.
    pub(crate) fn run(self) {
        let (feed, stopped) = (&self.feed, Signal::new());
        feed.stop.wakes(&stopped);
        while let Some(push) = feed.pushes.recv() {
            match push {
                Push::Tick(time) => self.target.reached(feed.source, time),
                // Only the chunk logger is sent these.
                Push::Cut => {}
                Push::Block(block) => {
                    while self.target.push(&block).is_err() {
                        if feed.stop.is_stopped() {
                            return;
                        }
                        feed.clock.wait(&stopped, Some(feed.clock.now().plus(PUSH_RETRY)));
                    }
                    feed.in_flight.fetch_sub(1, Ordering::SeqCst);
                }
            }
            feed.progress.raise();
        }
    }
}
