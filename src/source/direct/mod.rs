//! Direct sources: replayable ones, whose batches are ranges that the job itself reads. No receiver, no blocks, no log.
//!
//! ```text
//!  job-loop, at a tick: plan(time) ─▶ bytes ─▶ [log] ─▶ read(bytes) ─▶ partitions ─▶ workers read them
//!            batch done: committed(bytes)        start: restore(snapshot), planned(bytes) of batches that run again
//! ```
//! The input of a batch is decided once, as the bytes of a complete plan: an attempt, a retry and a replay after a restart read
//! the same. A direct source keeps two positions: behind the planned input, and behind the committed input. It does not know
//! batches, streams or the log. [`files`] is the one that comes with the engine.

pub mod files;
mod lost;

use std::fmt;

use crate::error::Result;
use crate::framing::{Framing, escape};
use crate::metrics::{EventBus, ReceiverCounters};
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::time::{Clock, Time};

#[doc(hidden)]
pub use lost::{Losses, LostSum, Purpose, REMEDY};
pub use lost::{Lost, OnLost, Unit};

/// The surroundings that a start gives a direct source.
#[derive(Clone, Debug)]
pub struct DirectStart {
    /// The name of the source, for messages.
    pub source: String,
    /// The way of its reports to the listeners.
    pub events: EventBus,
    /// The counters of the source, which status and metrics show. The engine counts records and bytes.
    pub counters: Arc<ReceiverCounters>,
    /// True if the run ends with the present content of the source.
    pub until_eof: bool,
    /// The clock of the stream, for its waits and times.
    pub clock: Arc<dyn Clock>,
}

/// A source that can be read again from a position, such as a file or a log with offsets; for
/// [`StreamingContext::direct_stream`](crate::StreamingContext::direct_stream). It has no receiver and nothing of it is in the
/// log of the state directory but plans and positions.
///
/// A batch's input is decided once, as the bytes of a plan: an attempt, a retry and a replay after a crash read the same. The
/// source keeps two positions, one behind the planned input and one behind the committed input, and checkpoints hold the latter.
///
/// Everything but the partitions' own methods is called by the thread `job-loop` or by the one that starts the stream, one call
/// at a time. A call that blocks delays the batches, so it has a bound. The partitions are read by worker threads.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
/// use tidemill::source::{DirectPartition, DirectSource, DirectStart, Framing, Lost, OnLost};
/// use tidemill::testing::ManualClock;
/// use tidemill::{Config, Error, Result, StreamingContext, Time};
///
/// /// Numbers from 0, ten in each batch, as lines.
/// #[derive(Default)]
/// struct Numbers {
///     planned: AtomicU64,
///     committed: AtomicU64,
/// }
///
/// #[derive(Debug)]
/// struct Ten(u64);
///
/// /// A position, as a plan and a snapshot hold it.
/// fn number(bytes: &[u8]) -> Result<u64> {
///     let bytes = bytes.try_into().map_err(|_| Error::Failed("no position of `numbers`".to_owned()))?;
///     Ok(u64::from_be_bytes(bytes))
/// }
///
/// impl DirectSource for Numbers {
///     fn start(&self, _: &DirectStart) -> Result<()> {
///         self.planned.store(self.committed.load(SeqCst), SeqCst);
///         Ok(())
///     }
///     fn plan(&self, _: Time) -> Result<Option<Vec<u8>>> {
///         Ok(Some(self.planned.fetch_add(10, SeqCst).to_be_bytes().to_vec()))
///     }
///     fn read(&self, plan: &[u8]) -> Result<Vec<Arc<dyn DirectPartition>>> {
///         Ok(vec![Arc::new(Ten(number(plan)?))])
///     }
///     fn planned(&self, plan: &[u8]) -> Result<()> {
///         self.planned.store(number(plan)? + 10, SeqCst);
///         Ok(())
///     }
///     fn committed(&self, plan: &[u8]) {
///         let from = number(plan).expect("a plan of this source");
///         self.committed.store(from + 10, SeqCst);
///     }
///     fn snapshot(&self) -> Vec<u8> {
///         self.committed.load(SeqCst).to_be_bytes().to_vec()
///     }
///     fn restore(&self, snapshot: &[u8]) -> Result<()> {
///         self.committed.store(number(snapshot)?, SeqCst);
///         Ok(())
///     }
///     fn lost(&self, plans: &[&[u8]]) -> Result<Vec<Vec<Lost>>> {
///         Ok(vec![Vec::new(); plans.len()])
///     }
///     fn lost_unplanned(&self) -> Result<Vec<Lost>> {
///         Ok(Vec::new())
///     }
///     fn on_lost(&self) -> OnLost {
///         OnLost::Stop
///     }
///     fn is_ending(&self) -> bool {
///         false
///     }
/// }
///
/// impl DirectPartition for Ten {
///     fn framing(&self) -> Framing {
///         Framing::Lines
///     }
///     fn bytes(&self) -> u64 {
///         80
///     }
///     fn for_each_range(
///         &self,
///         each: &mut dyn FnMut(&[u8], u64),
///         _: &mut dyn FnMut(Lost) -> Result<()>,
///     ) -> Result<()> {
///         (self.0..self.0 + 10).for_each(|n| each(format!("{n:07}\n").as_bytes(), 1));
///         Ok(())
///     }
/// }
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let first = ctx.direct_stream("numbers", Numbers::default())?.map(|line| line[6]).collect();
/// ctx.run_batches(2)?;
/// assert_eq!(first.rows()[1].1, b"0123456789");
/// # Ok::<(), Error>(())
/// ```
pub trait DirectSource: Send + Sync {
    /// The kind of source. A position of one kind means nothing to another, so a start that finds another kind under the name is
    /// refused.
    fn kind(&self) -> &'static str {
        "direct"
    }

    /// Starts behind the committed position: that of [`restore`](DirectSource::restore), or the beginning.
    ///
    /// # Errors
    /// If the source cannot be read at all, with the remedy; the start of the stream fails.
    fn start(&self, start: &DirectStart) -> Result<()>;

    /// Decides what the batch `time` takes, moves the planned position behind it and returns it as bytes; `None` if there is
    /// nothing new. It must be bounded, and should not read the records.
    ///
    /// # Errors
    /// If the source cannot be asked now: then it has no batch at `time`, which is not the same as an empty one. It is counted,
    /// the condition [`SourceAway`](crate::metrics::ConditionKind::SourceAway) begins, and the source is asked again at the next
    /// tick.
    fn plan(&self, time: Time) -> Result<Option<Vec<u8>>>;

    /// The partitions of a plan, of this run or an earlier one. Nothing is read yet.
    ///
    /// # Errors
    /// If the bytes are not a plan of this source.
    fn read(&self, plan: &[u8]) -> Result<Vec<Arc<dyn DirectPartition>>>;

    /// Moves the planned position behind a plan of an earlier run, which will be read again.
    ///
    /// # Errors
    /// If the bytes are not a plan of this source.
    fn planned(&self, plan: &[u8]) -> Result<()>;

    /// Moves the committed position behind the plan of a batch that is done and is not read again, also not after a restart.
    /// Plans are committed in order.
    fn committed(&self, plan: &[u8]);

    /// Returns the committed position as bytes, for a checkpoint.
    fn snapshot(&self) -> Vec<u8>;

    /// Goes to a position that [`snapshot`](DirectSource::snapshot) returned, before the start.
    ///
    /// # Errors
    /// If the bytes are not a snapshot of this source.
    fn restore(&self, snapshot: &[u8]) -> Result<()>;

    /// Returns the losses of each of these plans, as far as the source can tell without reading the records. Also called before
    /// the start.
    ///
    /// # Errors
    /// If the source cannot be asked, or the bytes are not plans of it.
    fn lost(&self, plans: &[&[u8]]) -> Result<Vec<Vec<Lost>>>;

    /// Returns the losses among the input that the source knew of and no plan took. Called once, after the start and after every
    /// plan of an earlier run was [planned](DirectSource::planned); the source continues behind them.
    ///
    /// # Errors
    /// If the source cannot be asked.
    fn lost_unplanned(&self) -> Result<Vec<Lost>>;

    /// The reaction to lost input that was never processed.
    fn on_lost(&self) -> OnLost;

    /// Returns true if this is a run to the end of the sources and the next plan takes all that is left.
    fn is_ending(&self) -> bool;

    /// As [`plan`](DirectSource::plan), at a stop in order: takes only what [`perishes`](DirectSource::perishes) with this
    /// run. Called until it returns `None`.
    ///
    /// # Errors
    /// If the source cannot be asked now.
    fn plan_perishing(&self, _time: Time) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// The number of bytes that no plan took and nobody can read after this run, such as those of a removed file that is still
    /// open.
    fn perishes(&self) -> u64 {
        0
    }
}

/// A part of a batch that one task reads, piece by piece, on a worker thread; see [`DirectSource`], which has an example.
/// Several jobs of a batch may each read it.
///
///
/// ```
/// use tidemill::source::{DirectPartition, Framing, Lost};
/// use tidemill::Result;
///
/// /// Lines that are in memory.
/// #[derive(Debug)]
/// struct Lines(String);
///
/// impl DirectPartition for Lines {
///     fn framing(&self) -> Framing {
///         Framing::Lines
///     }
///     fn bytes(&self) -> u64 {
///         self.0.len() as u64
///     }
///     fn for_each_range(
///         &self,
///         each: &mut dyn FnMut(&[u8], u64),
///         _: &mut dyn FnMut(Lost) -> Result<()>,
///     ) -> Result<()> {
///         each(self.0.as_bytes(), self.0.lines().count() as u64);
///         Ok(())
///     }
/// }
/// ```
pub trait DirectPartition: Send + Sync + fmt::Debug {
    /// The framing of the records in the ranges.
    fn framing(&self) -> Framing;

    /// True if the records are lines in which line feeds are escaped.
    fn unescapes(&self) -> bool {
        false
    }

    /// The number of bytes that it takes of the source.
    fn bytes(&self) -> u64;

    /// Calls `each` with ranges of whole records and the number of records in each, in order. A range that the source no
    /// longer has goes to `lost`, before any record of it goes to `each`; if `lost` allows it, the rest is read.
    ///
    /// # Errors
    /// If it cannot be read, or what `lost` says: `each` may have seen a part of it.
    fn for_each_range(
        &self,
        each: &mut dyn FnMut(&[u8], u64),
        lost: &mut dyn FnMut(Lost) -> Result<()>,
    ) -> Result<()>;
}

/// The input that a batch takes from one direct source.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// The plan; empty if there is nothing new.
    pub plan: Vec<u8>,
    /// Its partitions.
    pub portions: Vec<Arc<Portion>>,
    /// The losses among it.
    pub losses: Arc<Losses>,
}

/// A partition of a batch, and the number of its records when it was first read.
#[doc(hidden)]
#[derive(Debug)]
pub struct Portion {
    partition: Arc<dyn DirectPartition>,
    counters: Arc<ReceiverCounters>,
    losses: Arc<Losses>,
    /// [`UNREAD`] until a task has read all of it.
    records: AtomicU64,
}

/// The number of records is not known yet.
const UNREAD: u64 = u64::MAX;

impl Portion {
    /// A portion that counts its records and bytes in `counters` when it was first read, and notes lost ranges in `losses`.
    pub fn new(
        partition: Arc<dyn DirectPartition>,
        counters: Arc<ReceiverCounters>,
        losses: Arc<Losses>,
    ) -> Self {
        Portion { partition, counters, losses, records: AtomicU64::new(UNREAD) }
    }

    /// The framing of the records in the ranges.
    pub fn framing(&self) -> Framing {
        self.partition.framing()
    }

    /// Calls `each` with the records of a range.
    pub fn for_each_record(&self, range: &[u8], each: impl FnMut(&[u8])) {
        match self.partition.unescapes() {
            true => escape::records_of(range, each),
            false => self.framing().for_each(range, each),
        }
    }

    /// Number of bytes that it takes of the source.
    pub fn bytes(&self) -> u64 {
        self.partition.bytes()
    }

    /// Number of its records; 0 until it was read.
    pub fn records(&self) -> u64 {
        let records = self.records.load(Ordering::SeqCst);
        if records == UNREAD { 0 } else { records }
    }

    /// Calls `each` with ranges of whole records, in order. Each job of a batch that needs them reads them itself.
    ///
    /// # Errors
    /// If it cannot be read, or a part of it is lost that the batch must not go without.
    pub fn for_each_range(&self, each: impl FnMut(&[u8])) -> Result<()> {
        self.read(each, &mut |lost| self.losses.take(lost))
    }

    /// As [`for_each_range`](Portion::for_each_range), but whatever is lost: calls `each` with what there is.
    ///
    /// # Errors
    /// If what there is cannot be read.
    pub fn for_each_range_left(&self, each: impl FnMut(&[u8])) -> Result<()> {
        self.read(each, &mut |lost| {
            self.losses.note(lost);
            Ok(())
        })
    }

    fn read(
        &self,
        mut each: impl FnMut(&[u8]),
        lost: &mut dyn FnMut(Lost) -> Result<()>,
    ) -> Result<()> {
        let (mut records, mut missing) = (0, 0);
        let mut gone = |range: Lost| {
            missing += range.amount();
            lost(range)
        };
        let mut own = |range: &[u8], count: u64| {
            records += count;
            each(range);
        };
        self.partition.for_each_range(&mut own, &mut gone)?;
        if self.records.swap(records, Ordering::SeqCst) == UNREAD {
            self.counters.records.add(records);
            self.counters.bytes.add(self.bytes().saturating_sub(missing));
        }
        Ok(())
    }
}
