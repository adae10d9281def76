//! What was said beside what was measured. Pure.

use crate::Outcome;
use crate::program::{Seen, Setting, WARM_UP};
use crate::reader::Said;

/// The most by which a latency that is said may differ, in microseconds.
const LATENCY_US: f64 = 250.0;

/// The most by which a rate that is said may differ, in percent.
const RATE_PERCENT: f64 = 0.1;

/// The head of the lines.
pub const HEAD: &str = "model     batch ms  windows     p50 said   own     p95 said   own  ms    rate said     own  /s";

/// A figure that is said and the same one as it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Two {
    said: f64,
    own: f64,
}

/// The figures of one run; of several windows those that differ most.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    windows: usize,
    /// In microseconds.
    p50: Two,
    p95: Two,
    /// Records a second.
    rate: Two,
}

impl Two {
    fn difference(self) -> f64 {
        (self.said - self.own).abs()
    }

    fn percent(self) -> f64 {
        self.difference() / self.own * 100.0
    }
}

impl Found {
    /// # Errors
    /// If records are missing, or no whole window was measured.
    pub fn of(seen: &Seen) -> Outcome<Found> {
        let printed: u64 = seen.printed.batches.iter().map(|batch| batch.records).sum();
        if printed != seen.lines {
            return Err(
                format!("{} lines were sent and {printed} were in batches", seen.lines).into()
            );
        }
        let own = own_latencies(&seen.printed.batches, seen);
        let length = seen.window * 1_000;
        let first = seen.start / 1_000_000 + WARM_UP * 1_000 + length;
        let last = (seen.start + seen.gap * seen.lines) / 1_000_000;
        let mut found: Vec<(Two, Two)> = Vec::new();
        let whole =
            seen.printed.windows.iter().filter(|row| (first..=last).contains(&row.batch_ms));
        for window in whole {
            let inside = window.batch_ms - length + 1..=window.batch_ms;
            let mut waits: Vec<u64> = own
                .iter()
                .filter(|wait| inside.contains(&wait.batch_ms))
                .map(|wait| wait.micros)
                .collect();
            waits.sort_unstable();
            let (Some(p50), Some(p95)) = (window.p50_us, window.p95_us) else {
                return Err("a window has no quantiles".into());
            };
            found.push((two(p50, &waits, 0.5)?, two(p95, &waits, 0.95)?));
        }
        let worst = |of: fn(&(Two, Two)) -> Two| {
            found
                .iter()
                .map(of)
                .max_by(|one, other| one.difference().total_cmp(&other.difference()))
        };
        let (Some(p50), Some(p95)) = (worst(|two| two.0), worst(|two| two.1)) else {
            return Err("no whole window: send for longer".into());
        };
        let seconds = float(seen.late.at - seen.early.at) / 1e9;
        let rate = Two {
            said: float(seen.late.said - seen.early.said) / seconds,
            own: float(seen.late.sent - seen.early.sent) / seconds,
        };
        Ok(Found { windows: found.len(), p50, p95, rate })
    }

    /// True if what was said differs by no more than it may.
    pub fn is_true(&self) -> bool {
        self.p50.difference() <= LATENCY_US
            && self.p95.difference() <= LATENCY_US
            && self.rate.percent() <= RATE_PERCENT
    }

    /// The line of this run.
    pub fn line(&self, setting: &Setting, is_short: bool) -> String {
        let Found { windows, p50, p95, rate } = self;
        let verdict = match (is_short, self.is_true()) {
            (true, _) => "not judged: a short run",
            (false, true) => "true",
            (false, false) => "NOT TRUE",
        };
        format!(
            "{:9} {:8} {windows:8}   {:8.2} {:8.2}   {:8.2} {:8.2}   {:10.1} {:10.1}   {verdict}",
            setting.model,
            setting.batch_ms,
            p50.said / 1e3,
            p50.own / 1e3,
            p95.said / 1e3,
            p95.own / 1e3,
            rate.said,
            rate.own
        )
    }
}

/// The time that one line waited for the row of its batch.
struct Wait {
    batch_ms: u64,
    micros: u64,
}

/// The wait of each line: lines of one connection are in batches in their order.
fn own_latencies(batches: &[Said], seen: &Seen) -> Vec<Wait> {
    let (mut waits, mut line) = (Vec::new(), 0);
    for batch in batches {
        for _ in 0..batch.records {
            let due = seen.start + seen.gap * line;
            waits.push(Wait {
                batch_ms: batch.batch_ms,
                micros: batch.came.saturating_sub(due) / 1_000,
            });
            line += 1;
        }
    }
    waits
}

/// A quantile that was said beside that of the sorted waits, by the nearest rank.
fn two(said: u64, waits: &[u64], part: f64) -> Outcome<Two> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let rank = (part * float(waits.len() as u64)).ceil() as usize;
    let own = waits.get(rank.saturating_sub(1)).ok_or("a window without lines")?;
    Ok(Two { said: float(said), own: float(*own) })
}

#[expect(clippy::cast_precision_loss, reason = "figures far below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}
