//! The stages of a batch and the bounded history of batches, written by the job loop, read by any thread.
//!
//! ```text
//! first read ─read─▶ tick ─cut─▶ cut ─stored─▶ stored ─allocated─▶ ... ─started─▶ ─finished─▶ ─committed─▶
//! ```
//! A stage begins where the one before it ends, so the stages of a batch add up to the way of its oldest record.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sync::{Arc, Mutex};
use crate::time::{Moment, Time};

use super::latency::{Latency, Recorder};

/// The most batches in the history: waiting, running and done.
const HISTORY_MAX: usize = 2_048;

/// A step of a batch. A stage begins where the one before it ends, so the stages add up to the way of the oldest record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the read of the batch's oldest record to the tick.
    Read,
    /// From the tick to the cut of every receiver.
    Cut,
    /// From the cut until everything that was cut is in the store.
    Stored,
    /// From there until the batch has its blocks.
    Allocated,
    /// From there until the first job starts.
    Started,
    /// From there until the last task ends.
    Finished,
    /// From there until the batch's blocks are released.
    Committed,
}

/// Every stage with its name, in order.
pub const STAGES: [(Stage, &str); 7] = [
    (Stage::Read, "read"),
    (Stage::Cut, "cut"),
    (Stage::Stored, "stored"),
    (Stage::Allocated, "allocated"),
    (Stage::Started, "started"),
    (Stage::Finished, "finished"),
    (Stage::Committed, "committed"),
];

/// The moments of one batch, as far as it has come, on the clock of the stream.
///
/// ```
/// use tidemill::metrics::{BatchState, STAGES};
/// use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
/// ctx.run_batches(1)?;
/// let batch = &ctx.inspector().expect("it runs").batches(1)[0];
/// assert_eq!((batch.time.as_millis(), batch.state.name()), (1_000, BatchState::Done.name()));
/// for (stage, name) in STAGES {
///     println!("{name}: {:?}", batch.moments.stage(stage));
/// }
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// Its oldest record was read; `None` if it has no record.
    pub read: Option<Moment>,
    /// It was due.
    pub due: Moment,
    /// The receivers were cut.
    pub cut: Moment,
    /// All that was cut was in the store.
    pub stored: Moment,
    /// It got its blocks.
    pub allocated: Moment,
    /// Its first job started.
    pub started: Option<Moment>,
    /// Its last task ended.
    pub finished: Option<Moment>,
    /// It was committed.
    pub committed: Option<Moment>,
}

impl Moments {
    /// The duration of a stage. `None` if the batch has not come that far or, for the read, if it has no record.
    pub fn stage(&self, stage: Stage) -> Option<Duration> {
        let (from, to) = match stage {
            Stage::Read => (self.read?, self.due),
            Stage::Cut => (self.due, self.cut),
            Stage::Stored => (self.cut, self.stored),
            Stage::Allocated => (self.stored, self.allocated),
            Stage::Started => (self.allocated, self.started?),
            Stage::Finished => (self.started?, self.finished?),
            Stage::Committed => (self.finished?, self.committed?),
        };
        Some(to.since(from))
    }
}

/// The state of a batch.
///
/// ```
/// use tidemill::metrics::{BatchState, STAGES};
/// use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
/// ctx.run_batches(1)?;
/// let batch = &ctx.inspector().expect("it runs").batches(1)[0];
/// assert_eq!((batch.time.as_millis(), batch.state.name()), (1_000, BatchState::Done.name()));
/// for (stage, name) in STAGES {
///     println!("{name}: {:?}", batch.moments.stage(stage));
/// }
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchState {
    /// It has its blocks and waits for its turn.
    Waiting,
    /// A job of it has started.
    Running,
    /// All its jobs succeeded.
    Done,
    /// A job of it failed for good and the stream stops.
    Failed,
    /// A job of it failed for good; its input went into a dead letter and the stream continues.
    DeadLetter,
}

impl BatchState {
    /// The name of the state in status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            BatchState::Waiting => "waiting",
            BatchState::Running => "running",
            BatchState::Done => "done",
            BatchState::Failed => "failed",
            BatchState::DeadLetter => "dead_letter",
        }
    }
}

/// A batch as the history shows it.
///
/// ```
/// use tidemill::metrics::{BatchState, STAGES};
/// use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().print(1);
/// ctx.run_batches(1)?;
/// let batch = &ctx.inspector().expect("it runs").batches(1)[0];
/// assert_eq!((batch.time.as_millis(), batch.state.name()), (1_000, BatchState::Done.name()));
/// for (stage, name) in STAGES {
///     println!("{name}: {:?}", batch.moments.stage(stage));
/// }
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRecord {
    /// Its time.
    pub time: Time,
    /// Records of its input.
    pub records: u64,
    /// Bytes of its input.
    pub bytes: u64,
    /// Blocks of its input.
    pub blocks: usize,
    /// Its state.
    pub state: BatchState,
    /// Attempts of jobs that failed.
    pub failures: u32,
    /// The last failure of a job.
    pub error: Option<String>,
    /// The moments of its stages so far.
    pub moments: Moments,
}

/// The most recent batches in the order of their times, at most `HISTORY_MAX`.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<BatchRecord>>);

impl History {
    /// Adds a planned batch, and forgets the oldest one if there are too many. The new batch is usually the newest. After a
    /// restart, batches of earlier runs come after the one for the ticks that were missed meanwhile.
    pub fn add(&self, batch: BatchRecord) {
        let mut batches = self.0.lock();
        let at = batches.partition_point(|other| other.time < batch.time);
        batches.insert(at, batch);
        if batches.len() > HISTORY_MAX {
            batches.pop_front();
        }
    }

    /// Changes the record of a batch, if the history still holds it, and returns its moments.
    pub fn update(&self, time: Time, change: impl FnOnce(&mut BatchRecord)) -> Option<Moments> {
        let mut batches = self.0.lock();
        let at = batches.binary_search_by_key(&time, |batch| batch.time).ok()?;
        change(&mut batches[at]);
        Some(batches[at].moments)
    }

    /// The batch of that time, if the history still holds it.
    pub fn get(&self, time: Time) -> Option<BatchRecord> {
        let batches = self.0.lock();
        let at = batches.binary_search_by_key(&time, |batch| batch.time).ok()?;
        Some(batches[at].clone())
    }

    /// The last batches, the newest first.
    pub fn last(&self, limit: usize) -> Vec<BatchRecord> {
        self.0.lock().iter().rev().take(limit).cloned().collect()
    }
}

/// The engine's measurements of itself, since the start; [`Inspector::times`](crate::Inspector::times) has them.
#[derive(Debug, Default)]
pub struct EngineTimes {
    /// The lateness of the job loop's ticks.
    pub job_ticks: Latency,
    /// The lateness of the cut timers' ticks.
    pub cut_ticks: Latency,
    /// The stages of batches, in the order of [`STAGES`].
    pub stages: [Latency; STAGES.len()],
}

impl EngineTimes {
    /// Creates empty measurements.
    #[doc(hidden)]
    pub fn new() -> Arc<Self> {
        Arc::new(EngineTimes::default())
    }

    /// Recorders of all stages, for the thread that sees batches through.
    #[doc(hidden)]
    pub fn stage_recorders(&self) -> [Recorder; STAGES.len()] {
        std::array::from_fn(|stage| self.stages[stage].recorder())
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    fn batch(millis: u64) -> BatchRecord {
        BatchRecord {
            time: Time::from_millis(millis),
            records: 0,
            bytes: 0,
            blocks: 0,
            state: BatchState::Waiting,
            failures: 0,
            error: None,
            moments: Moments::default(),
        }
    }

    #[test]
    fn the_history_is_bounded_and_finds_batches_by_time() {
        let history = History::default();
        let count = HISTORY_MAX as u64 + 5;
        (1..=count).for_each(|time| history.add(batch(time)));
        assert_eq!(history.get(Time::from_millis(5)), None, "forgotten");
        history.update(Time::from_millis(count), |batch| batch.records = 7);
        assert_eq!(history.last(1)[0].records, 7);
        assert_eq!(history.last(usize::MAX).len(), HISTORY_MAX);
    }

    #[test]
    fn batches_that_come_out_of_order_are_found() {
        let history = History::default();
        [5, 1, 2, 6, 3].into_iter().for_each(|time| history.add(batch(time)));
        for time in [1, 2, 3, 5, 6] {
            let found =
                history.update(Time::from_millis(time), |batch| batch.state = BatchState::Done);
            assert!(found.is_some(), "{time}");
        }
        let times: Vec<u64> = history.last(9).iter().map(|batch| batch.time.as_millis()).collect();
        assert_eq!(times, [6, 5, 3, 2, 1]);
        assert!(history.last(9).iter().all(|batch| batch.state == BatchState::Done));
    }

    #[test]
    fn stages_add_up() {
        let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
        let moments = Moments {
            read: Some(at(0)),
            due: at(10),
            cut: at(11),
            stored: at(13),
            allocated: at(14),
            started: Some(at(20)),
            finished: Some(at(29)),
            committed: None,
        };
        let lengths = STAGES.map(|(stage, _)| moments.stage(stage).map(|time| time.as_millis()));
        assert_eq!(lengths, [Some(10), Some(1), Some(2), Some(1), Some(6), Some(9), None]);
    }
}
