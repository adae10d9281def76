//! The job `latency`: quantiles of the time from each record's stamp to the end of its batch's processing.
//!
//! A stamped line starts with its intended send time in nanoseconds since the epoch and a space, as `load --stamp`
//! writes it. The end is the same for all records of a batch, so tasks record the age of each stamp at the beginning of
//! the first task, and the time from there to the end is added to the quantiles. Runs on the workers.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::{JobKind, JobOptions, JobOutput, JobRow, Window};
use crate::exec::shuffle::Slots;
use crate::exec::{Needs, Work};
use crate::settings::units::as_f64;
use crate::stream::window::Rule;
use crate::stream::{DStream, WindowSpan};
use crate::sync::{Arc, Mutex};
use crate::time::Interval;

/// The rows, and the quantile of each.
const QUANTILES: [(&str, f64); 5] =
    [("p50_us", 0.5), ("p95_us", 0.95), ("p99_us", 0.99), ("p99.9_us", 0.999), ("max_us", 1.0)];

/// An age that is recorded as itself, in microseconds: a day. What is older is no latency but a wrong stamp or clock.
const AGE_MAX: u64 = 24 * 3_600 * 1_000_000;

/// Significant digits of the recorded ages. With them a bucket at a second is half a millisecond wide, and the ages in it
/// are taken as evenly spread. A fourth digit takes longer to read than what is won.
const DIGITS: u8 = 3;

/// The most parts of a bucket that move by themselves when its ages grow.
const PARTS_MAX: u64 = 8;

pub(super) const ROW: JobRow = JobRow {
    name: "latency",
    about: "Quantiles of the time from a record's stamp (`tidemill load --stamp`) to the end of its batch.",
    keys: &[],
    example: "latency = {}",
    value: None,
    read: |_| Some(JobKind::from(Latency)),
};

/// The options of `latency`: it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency;

impl JobOptions for Latency {
    fn row(&self) -> &'static JobRow {
        &ROW
    }

    fn attach(&self, records: &DStream<[u8]>, output: JobOutput<'_>) {
        let rows = match output.window {
            None => records.latency(),
            Some(Window { length, slide }) => records.latency_by_window(length, slide),
        };
        output.save(&rows);
    }
}

impl DStream<[u8]> {
    /// The latency of the stamped records of each batch, in microseconds: rows `p50_us`, `p95_us`, `p99_us`, `p99.9_us` and
    /// `max_us`, none without a stamped record, and `unstamped` with the number of the other records if there are any. A
    /// stamp is the time at which the record was meant to be sent, in nanoseconds since the epoch, and a space, at the start
    /// of the record; `tidemill load --stamp` writes it. It is the job `latency` of a pipeline file.
    ///
    /// ```
    /// # let ctx = tidemill::StreamingContext::with_clock(tidemill::Config::new("doc"), tidemill::testing::ManualClock::new())?;
    /// let lines = ctx.queue_stream(vec![Some(vec!["900000000 stamped", "without a stamp"])], 1);
    /// let found = lines.flat_map(|line, out| out.push(line.as_bytes())).latency().collect();
    /// ctx.run_batches(1)?; // at 1 s on the manual clock: 100 ms after the stamp
    /// let rows = &found.rows()[0].1;
    /// let last = rows.len() - 1;
    /// assert_eq!((rows[0].0, rows[last]), ("p50_us", ("unstamped", 1)));
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn latency(&self) -> DStream<(&'static str, u64)> {
        self.ages(|ages, since_begun| ages.rows(since_begun))
    }

    /// The latency of the stamped records of the last `length` of time, every `slide`; each counts with the end of its own
    /// batch.
    fn latency_by_window(&self, length: Interval, slide: Interval) -> DStream<(&'static str, u64)> {
        let ages = self.ages(|ages, since_begun| vec![((), ages.later_by(since_begun))]);
        let join = |left: &Ages, right: &Ages| {
            let mut all = left.clone();
            all.add(right.clone());
            all
        };
        let pane = ages.pane(join);
        let rule = Rule { join: Box::new(join), inverse: None, keep: None };
        let window = ages.keyed_window("latency", WindowSpan { length, slide }, pane, rule);
        window.showing(window.flat_map(|((), ages), out| out.extend(&ages.rows(Duration::ZERO))))
    }

    /// Calls `make` with all ages of a batch and the time from the beginning of its first task to its end.
    fn ages<U: Send + Sync + 'static>(
        &self,
        make: impl Fn(Ages, Duration) -> Vec<U> + Send + Sync + 'static,
    ) -> DStream<U> {
        let (node, make) = (Arc::clone(&self.node), Arc::new(make));
        self.wide(move |cx| {
            let batch = node.compute(cx)?;
            let (clock, begun) = (Arc::clone(cx.clock), Arc::<Mutex<Option<Duration>>>::default());
            // The same for all tasks, and set by the first of them: a plan may be older than the last records.
            let (wall, first) = (Arc::clone(&clock), Arc::clone(&begun));
            let begin =
                move || (Ages::default(), nanos(*first.lock().get_or_insert_with(|| wall.wall())));
            let push = |(ages, since): &mut (Ages, u64), record: &[u8]| ages.push(record, *since);
            let ages = cx.materialize("fold", &batch, begin, push, |(ages, _)| vec![ages]);
            let (result, make) = (Slots::new(1), Arc::clone(&make));
            let made = result.clone();
            let task: Work = Box::new(move |_| {
                let mut all = Ages::default();
                ages.take_all().into_iter().flatten().for_each(|part| all.add(part));
                let now = clock.wall();
                let begun = begun.lock().unwrap_or(now);
                made.put(0, make(all, now.saturating_sub(begun)));
                Ok(())
            });
            cx.stages.push("merge", Needs::AllPartitions, vec![task]);
            Ok(result.batch())
        })
    }
}

/// The ages of the stamps at the beginning of the batch's first task, in microseconds; none until there is a stamp.
#[derive(Clone, Default)]
struct Ages {
    stamped: Option<Histogram<u64>>,
    unstamped: u64,
}

impl Ages {
    /// Takes in a record; the first task began at `begun`, in nanoseconds since the epoch.
    fn push(&mut self, record: &[u8], begun: u64) {
        match stamp(record) {
            Some(stamp) => self.record(begun.saturating_sub(stamp) / 1_000),
            None => self.unstamped += 1,
        }
    }

    fn record(&mut self, age: u64) {
        self.record_many(age, 1);
    }

    fn record_many(&mut self, age: u64, count: u64) {
        let histogram = || Histogram::new(DIGITS).expect("three digits are allowed");
        let ages = self.stamped.get_or_insert_with(histogram);
        ages.record_n(age.min(AGE_MAX), count).expect("the histogram grows to any age");
    }

    fn add(&mut self, other: Ages) {
        self.unstamped += other.unstamped;
        match (&mut self.stamped, other.stamped) {
            (Some(all), Some(part)) => {
                all.add(part).expect("a histogram that grows takes any other")
            }
            (none, Some(part)) => *none = Some(part),
            (_, None) => {}
        }
    }

    /// The same records, all of them older by `more`.
    fn later_by(&self, more: Duration) -> Ages {
        let mut later = Ages { unstamped: self.unstamped, ..Ages::default() };
        for bucket in self.stamped.iter().flat_map(Bucket::all) {
            let parts = bucket.count.min(PARTS_MAX);
            for part in 0..parts {
                let age = bucket.at(2 * part + 1, 2 * parts).saturating_add(micros(more));
                let up_to = |part: u64| bucket.count * part / parts;
                later.record_many(age, up_to(part + 1) - up_to(part));
            }
        }
        later
    }

    fn rows(&self, since_begun: Duration) -> Vec<(&'static str, u64)> {
        let since_begun = micros(since_begun);
        let mut rows = Vec::new();
        if let Some(ages) = &self.stamped {
            let row = |(name, quantile): (&'static str, f64)| {
                (name, age_at(ages, quantile).saturating_add(since_begun))
            };
            rows.extend(QUANTILES.map(row));
        }
        if self.unstamped > 0 {
            rows.push(("unstamped", self.unstamped));
        }
        rows
    }
}

/// Ages that are recorded as one.
struct Bucket {
    low: u64,
    width: u64,
    count: u64,
}

impl Bucket {
    /// Every bucket with an age, from the lowest.
    fn all(ages: &Histogram<u64>) -> impl Iterator<Item = Bucket> {
        ages.iter_recorded().map(|step| {
            let value = step.value_iterated_to();
            let (low, width) = (ages.lowest_equivalent(value), ages.equivalent_range(value));
            Bucket { low, width, count: step.count_at_value() }
        })
    }

    /// The place `part ÷ of` of its width.
    fn at(&self, part: u64, of: u64) -> u64 {
        let within = u128::from(self.width) * u128::from(part) / u128::from(of.max(1));
        self.low.saturating_add(u64::try_from(within).unwrap_or(self.width))
    }
}

/// The age at this part of all ages, by its rank.
fn age_at(ages: &Histogram<u64>, part: f64) -> u64 {
    if part >= 1.0 {
        return ages.max();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let rank = ((part * as_f64(ages.len())).ceil() as u64).max(1);
    let mut below = 0;
    for bucket in Bucket::all(ages) {
        if below + bucket.count >= rank {
            return bucket.at(2 * (rank - below) - 1, 2 * bucket.count);
        }
        below += bucket.count;
    }
    ages.max()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The stamp of a record: digits, then a space.
pub(crate) fn stamp(record: &[u8]) -> Option<u64> {
    // The longest number of 64 bits has 20 digits; a longer run of digits is no stamp.
    let digits = record.iter().take(21).position(|byte| *byte == b' ')?;
    std::str::from_utf8(&record[..digits]).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        let check = |record: &[u8], expected| assert_eq!(stamp(record), expected);
        check(b"123 hello", Some(123));
        check(b"0 ", Some(0));
        check(b"18446744073709551615 x", Some(u64::MAX));
        check(b"18446744073709551616 x", None);
        check(b"000000000000000000001 x", None);
        check(b"123", None);
        check(b"", None);
        check(b" 123", None);
        check(b"+1 x", None);
        check(b"-1 x", None);
        check(b"12a x", None);
        check(b"\xFF x", None);
    }

    #[test]
    fn ages_are_shifted_by_the_time_that_the_batch_took() {
        let of = |records: &[&[u8]]| {
            let mut ages = Ages::default();
            records.iter().for_each(|record| ages.push(record, 100_000));
            ages
        };
        let mut ages = of(&[b"90000 a", b"b"]);
        ages.add(of(&[]));
        ages.add(of(&[b"80000 a", b"200000 from the future"]));
        let rows = ages.rows(Duration::from_micros(1_000));
        assert_eq!(
            rows,
            [
                ("p50_us", 1_010),
                ("p95_us", 1_020),
                ("p99_us", 1_020),
                ("p99.9_us", 1_020),
                ("max_us", 1_020),
                ("unstamped", 1)
            ]
        );
        assert_eq!(Ages::default().rows(Duration::ZERO), []);
    }

    /// A bucket at a second is half a millisecond wide: its end would be more off than what a batch adds to its interval.
    #[test]
    fn a_second_is_told_to_a_tenth_of_a_millisecond() {
        let mut ages = Ages::default();
        (1..=10_000).for_each(|line| ages.record(line * 100));
        let check = |ages: &Ages, more: u64, off_by: u64| {
            let rows = ages.rows(Duration::ZERO);
            for (name, age) in [("p50_us", 500_000), ("p95_us", 950_000), ("p99_us", 990_000)] {
                let found = rows.iter().find(|row| row.0 == name).map_or(0, |row| row.1);
                assert!(found.abs_diff(age + more) <= off_by, "{name}: {found}");
            }
        };
        check(&ages, 0, 100);
        check(&ages.later_by(Duration::from_micros(1_234)), 1_234, 200);
    }
}
