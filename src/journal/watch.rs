//! The figures of the log and the checkpoints of a run, for observers, also after its end. Any thread reads them.

use std::time::Duration;

use crate::metrics::Counter;
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Moment};
use crate::wal::{LogStats, LogWatch};

/// The checkpoints that a run has written.
#[derive(Debug)]
pub(super) struct Written {
    clock: Arc<dyn Clock>,
    count: Counter,
    /// The time at which the newest became durable; before the first, the start of the run.
    newest: Mutex<Moment>,
}

impl Written {
    /// None yet.
    pub(super) fn new(clock: &Arc<dyn Clock>) -> Arc<Self> {
        let newest = Mutex::new(clock.now());
        Arc::new(Written { clock: Arc::clone(clock), count: Counter::default(), newest })
    }

    /// One more is durable.
    pub(super) fn add(&self) {
        *self.newest.lock() = self.clock.now();
        self.count.add(1);
    }
}

/// A view of a journal's figures. It holds no file and no lock of it: those end with the stream.
#[derive(Clone, Debug)]
pub(crate) struct JournalWatch {
    pub(super) log: LogWatch,
    pub(super) written: Arc<Written>,
}

/// The figures of the log and the checkpoints of a run; [`Inspector::log`](crate::Inspector::log) has them. An age of a
/// checkpoint that grows without end says that none can be written: then the log grows, too.
///
/// ```
/// use std::sync::Arc;
/// use tidemill::testing::{ManualClock, MemoryStorage};
/// use tidemill::{Config, StreamingContext};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// ctx.state_storage(Arc::new(MemoryStorage::new(7)));
/// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
/// ctx.run_batches(1)?;
/// let figures = ctx.inspector().expect("it runs").log().expect("there is a log");
/// assert!(figures.log.segments > 0 && figures.log.refused == 0);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogFigures {
    /// The log, since the start.
    pub log: LogStats,
    /// Checkpoints written since the start.
    pub checkpoints: u64,
    /// Time since the newest of them was written; before the first, since the begin of the run.
    pub checkpoint_age: Duration,
}

impl JournalWatch {
    /// The figures up to now.
    pub(crate) fn figures(&self) -> LogFigures {
        let checkpoints = self.written.count.value();
        let newest = *self.written.newest.lock();
        let checkpoint_age = self.written.clock.now().since(newest);
        LogFigures { log: self.log.stats(), checkpoints, checkpoint_age }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    #[test]
    fn the_age_of_a_checkpoint_counts_from_the_newest_or_the_start() {
        let manual = ManualClock::new();
        let clock: Arc<dyn Clock> = Arc::new(manual.clone());
        let watch = JournalWatch { log: LogWatch::default(), written: Written::new(&clock) };
        let check = |seconds: u64, checkpoints: u64, age: u64| {
            manual.advance(Duration::from_secs(seconds));
            let found = watch.figures();
            let expected = (checkpoints, Duration::from_secs(age));
            assert_eq!((found.checkpoints, found.checkpoint_age), expected);
        };
        check(3, 0, 3);
        watch.written.add();
        check(2, 1, 2);
        watch.written.add();
        check(0, 2, 0);
    }
}
