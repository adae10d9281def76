//! Lost input: ranges that a plan takes and its source no longer has. The same for every direct source.
//!
//! ```text
//!  start: source.lost(plans) ─▶ refused | given up | only windows read it again
//!  task:  partition.for_each_range ─▶ Lost ─▶ Losses::take ─▶ the attempt fails | the partition continues without it
//!  batch done: Losses ─▶ counters, one event, rows marked incomplete
//! ```
//! Plain data and one decision. It does not know batches, windows or how a source finds out.

use std::fmt;

use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::wording::count;

/// The unit of a source's ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of a file.
    Bytes,
    /// Records of a log with offsets.
    Records,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Records => "records",
        }
    }
}

/// A range of input that a plan takes and the source no longer has.
///
/// ```
/// use tidemill::source::{Lost, Unit};
///
/// let (of, why) = ("file `a.log`".to_owned(), "it was removed".to_owned());
/// let lost = Lost { of, from: 100, to: 250, unit: Unit::Bytes, why };
/// assert_eq!(lost.amount(), 150);
/// assert_eq!(lost.to_string(), "bytes 100 to 250 of file `a.log` cannot be read: it was removed");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The file or log, for messages: "file `a.log`".
    pub of: String,
    /// The begin of the range.
    pub from: u64,
    /// The end of the range, exclusive.
    pub to: u64,
    /// The unit of both.
    pub unit: Unit,
    /// The cause, in words.
    pub why: String,
}

impl Lost {
    /// The number of lost units.
    pub fn amount(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lost { of, from, to, unit, why } = self;
        write!(f, "{} {from} to {to} of {of} cannot be read: {why}", unit.name())
    }
}

/// The reaction to lost input that was never processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLost {
    /// The stream stops with [`Error::Failed`], and a start is refused.
    #[default]
    Stop,
    /// The batch continues without it; the loss is counted and reported.
    Skip,
}

/// Ranges of one source that were lost, together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostSum {
    /// Number of ranges.
    pub ranges: u64,
    /// Bytes of the ranges that are counted in bytes.
    pub bytes: u64,
    /// Records of those that are counted in records.
    pub records: u64,
    /// The first of them.
    pub first: Option<Lost>,
}

impl LostSum {
    /// Adds a range.
    pub fn add(&mut self, lost: &Lost) {
        self.ranges += 1;
        match lost.unit {
            Unit::Bytes => self.bytes += lost.amount(),
            Unit::Records => self.records += lost.amount(),
        }
        self.first.get_or_insert_with(|| lost.clone());
    }

    /// The sum of these.
    pub fn of<'a>(all: impl IntoIterator<Item = &'a Lost>) -> LostSum {
        let mut sum = LostSum::default();
        all.into_iter().for_each(|lost| sum.add(lost));
        sum
    }
}

impl fmt::Display for LostSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = &self.first else { return f.write_str("nothing") };
        write!(f, "{first}")?;
        let (unit, all) = match first.unit {
            Unit::Bytes => ("byte", self.bytes),
            Unit::Records => ("record", self.records),
        };
        let all = count(all, unit);
        match self.ranges - 1 {
            0 => Ok(()),
            1 => write!(f, "; and one more range, {all} in all"),
            more => write!(f, "; and {more} more ranges, {all} in all"),
        }
    }
}

/// The purpose for which a batch reads its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To process it.
    #[default]
    Process,
    /// It was processed before: operators take it in again, for windows.
    Rebuild,
}

/// Losses of one source that one batch found. The portions of the batch share it.
#[derive(Debug, Default)]
pub struct Losses {
    source: String,
    on_lost: OnLost,
    purpose: Purpose,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    all: Vec<Lost>,
    /// Number of those that were reported.
    reported: usize,
}

impl Losses {
    /// Losses of a batch that reads `source` for `purpose`. `known` were found, and reported, by the start.
    pub fn new(source: &str, purpose: Purpose, on_lost: OnLost, known: Vec<Lost>) -> Self {
        let reported = known.len();
        let found = Mutex::new(Found { all: known, reported });
        Losses { source: source.to_owned(), on_lost, purpose, found }
    }

    /// The purpose for which the batch reads its input.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// A task found that a range is lost: notes it once, however often the batch is tried.
    ///
    /// # Errors
    /// If the batch must not continue without it.
    pub fn take(&self, lost: Lost) -> Result<()> {
        if self.purpose == Purpose::Process && self.on_lost == OnLost::Stop {
            return Err(Error::Failed(format!("source `{}`: {lost}; {REMEDY}", self.source)));
        }
        self.note(lost);
        Ok(())
    }

    /// Notes a range that the batch goes without.
    pub fn note(&self, lost: Lost) {
        let mut found = self.found.lock();
        if !found.all.contains(&lost) {
            found.all.push(lost);
        }
    }

    /// True if no loss is known.
    pub fn is_empty(&self) -> bool {
        self.found.lock().all.is_empty()
    }

    /// Takes the sum of the losses that were not reported yet; they count as reported from now on.
    pub fn report(&self) -> LostSum {
        let mut found = self.found.lock();
        let sum = LostSum::of(&found.all[found.reported..]);
        found.reported = found.all.len();
        sum
    }
}

/// The remedy for a batch whose input is lost.
pub const REMEDY: &str = "it was never processed: start once with `--give-up-lost` to go on without it, or set \
    `on_lost = \"skip\"` for the source";

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    fn lost(from: u64, to: u64) -> Lost {
        let (of, why) = ("file `a`".to_owned(), "it is gone".to_owned());
        Lost { of, from, to, unit: Unit::Bytes, why }
    }

    #[test]
    fn a_batch_goes_on_without_lost_input_only_where_that_is_allowed() {
        let check = |purpose, on_lost, expected: bool| {
            let losses = Losses::new("s", purpose, on_lost, Vec::new());
            assert_eq!(losses.take(lost(0, 4)).is_ok(), expected, "{purpose:?} {on_lost:?}");
            assert_eq!(losses.is_empty(), !expected);
        };
        check(Purpose::Process, OnLost::Stop, false);
        check(Purpose::Process, OnLost::Skip, true);
        check(Purpose::Rebuild, OnLost::Stop, true);
        check(Purpose::Rebuild, OnLost::Skip, true);
        let strict = Losses::new("s", Purpose::Process, OnLost::Stop, Vec::new());
        let text = strict.take(lost(0, 4)).expect_err("refused").to_string();
        let start = "source `s`: bytes 0 to 4 of file `a` cannot be read: it is gone; it was never processed: ";
        assert!(text.starts_with(start) && text.contains("--give-up-lost"), "{text}");
    }

    #[test]
    fn a_range_is_reported_once() {
        let losses = Losses::new("s", Purpose::Process, OnLost::Skip, vec![lost(0, 1)]);
        assert_eq!(losses.report(), LostSum::default(), "the start reported it");
        for _ in 0..2 {
            [lost(0, 1), lost(1, 9), lost(20, 30)]
                .into_iter()
                .for_each(|lost| losses.take(lost).expect("allowed"));
        }
        let sum = losses.report();
        assert_eq!((sum.ranges, sum.bytes, sum.records), (2, 18, 0));
        let text = "bytes 1 to 9 of file `a` cannot be read: it is gone; and one more range, 18 bytes in all";
        assert_eq!(sum.to_string(), text);
        assert_eq!(losses.report(), LostSum::default());
        assert!(!losses.is_empty());
    }

    #[test]
    fn sums_are_in_the_unit_of_their_ranges() {
        let record =
            |from, to| Lost { of: "partition 3".to_owned(), unit: Unit::Records, ..lost(from, to) };
        let sum = LostSum::of(&[record(5, 9), record(9, 10), record(20, 30)]);
        assert_eq!((sum.ranges, sum.bytes, sum.records), (3, 0, 15));
        let text = "records 5 to 9 of partition 3 cannot be read: it is gone; and 2 more ranges, 15 records in all";
        assert_eq!(sum.to_string(), text);
        assert_eq!(LostSum::default().to_string(), "nothing");
    }
}
