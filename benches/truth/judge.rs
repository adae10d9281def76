//! What was said beside what was measured. Pure.

use tidemill::internals::lab::stats::median;

use crate::Outcome;
use crate::program::{Seen, Setting, WARM_UP};
use crate::reader::Batch;

/// The most by which a latency that is said may differ, in microseconds.
const LATENCY_US: f64 = 250.0;

/// The most by which a rate that is said may differ, in percent.
const RATE_PERCENT: f64 = 0.1;

/// The head of the lines.
pub const HEAD: &str = "model     batch ms  batches   p50 said      own differs   p95 said      own differs  ms  \
                        rate said      own  /s";

/// A latency in microseconds: medians of what was said and measured of each batch, and of the difference of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Latency {
    said: f64,
    own: f64,
    differs: f64,
}

/// The figures of one run.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    batches: usize,
    p50: Latency,
    p95: Latency,
    /// Records a second.
    rate_said: f64,
    rate_own: f64,
}

/// One quantile of one batch, in microseconds.
struct Two {
    said: f64,
    own: f64,
}

impl Latency {
    fn of(two: &[Two]) -> Latency {
        let middle = |of: fn(&Two) -> f64| median(&two.iter().map(of).collect::<Vec<_>>());
        Latency {
            said: middle(|two| two.said),
            own: middle(|two| two.own),
            differs: middle(|two| two.own - two.said),
        }
    }

    fn words(&self) -> String {
        let Latency { said, own, differs } = self;
        format!("{:9.2} {:8.2} {:7.3}", said / 1e3, own / 1e3, differs / 1e3)
    }
}

impl Found {
    /// The figures of everything that was seen.
    ///
    /// # Errors
    /// If records are missing, or no batch was whole.
    pub fn of(seen: &Seen) -> Outcome<Found> {
        let printed: u64 = seen.batches.iter().map(|batch| batch.records).sum();
        if printed != seen.lines {
            return Err(
                format!("{} lines were sent and {printed} were in batches", seen.lines).into()
            );
        }
        let (mut p50, mut p95, mut line) = (Vec::new(), Vec::new(), 0);
        for batch in &seen.batches {
            let waits = waits(batch, seen, line);
            let is_warm = line * seen.gap >= WARM_UP * 1_000_000_000;
            line += batch.records;
            // The last one is cut short by the end of the lines.
            let is_whole = is_warm && line < seen.lines;
            if let (Some(p50_us), Some(p95_us), true) = (batch.p50_us, batch.p95_us, is_whole) {
                p50.push(Two { said: float(p50_us), own: ranked(&waits, 0.5) });
                p95.push(Two { said: float(p95_us), own: ranked(&waits, 0.95) });
            }
        }
        if p50.is_empty() {
            return Err("no whole batch: send for longer".into());
        }
        let seconds = float(seen.late.at - seen.early.at) / 1e9;
        Ok(Found {
            batches: p50.len(),
            p50: Latency::of(&p50),
            p95: Latency::of(&p95),
            rate_said: float(seen.late.said - seen.early.said) / seconds,
            rate_own: float(seen.late.sent - seen.early.sent) / seconds,
        })
    }

    /// True if what was said differs by no more than it may.
    pub fn is_true(&self) -> bool {
        let rate = (self.rate_said / self.rate_own - 1.0).abs() * 100.0;
        let latencies = [self.p50, self.p95];
        latencies.iter().all(|it| it.differs.abs() <= LATENCY_US) && rate <= RATE_PERCENT
    }

    /// The line of this run.
    pub fn line(&self, setting: &Setting, is_short: bool) -> String {
        let verdict = match (is_short, self.is_true()) {
            (true, _) => "not judged: a short run",
            (false, true) => "true",
            (false, false) => "NOT TRUE",
        };
        let Found { batches, p50, p95, rate_said, rate_own } = self;
        format!(
            "{:9} {:8} {batches:8}  {}  {}  {rate_said:11.1} {rate_own:8.1}   {verdict}",
            setting.model,
            setting.batch_ms,
            p50.words(),
            p95.words(),
        )
    }
}

/// The value at this part by the nearest rank, as the job takes it.
fn ranked(waits: &[f64], part: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let rank = (part * float(waits.len() as u64)).ceil() as usize;
    waits.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The time that each line of a batch waited for its row, in microseconds, from the shortest: lines of one connection are in
/// batches in their order. `first` is the number of the batch's first line.
fn waits(batch: &Batch, seen: &Seen, first: u64) -> Vec<f64> {
    let due = |line: u64| seen.start + seen.gap * line;
    let lines = first..first + batch.records;
    // The last line waited shortest.
    lines.rev().map(|line| float(batch.came.saturating_sub(due(line))) / 1e3).collect()
}

#[expect(clippy::cast_precision_loss, reason = "figures far below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}
