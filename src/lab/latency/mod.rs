//! `compare --latency`: how much longer than its batch interval makes it wait a line takes, stage by stage.
//!
//! ```text
//! for each batch interval: at a fixed rate ─┐
//!   search ─▶ highest rate that holds ─▶ a part of it ─┴▶ run: receiver ◀─ TCP ─ sender ─▶ table, CSV, .hgrm
//! ```
//! Lines come evenly, so a batch interval alone makes half of them wait half of it, and one in a hundred 0.99 of it: the
//! floor. What comes on top is the excess, and that is judged. A bare timer on each core runs beside (`control`). Main
//! thread.

mod control;
mod report;
mod timed;

use std::path::PathBuf;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::pair::{Pair, Start, unexpected};
use super::protocol::{self, ChildMessage, Role, Sending, Sent, Timed, Timing, Work};
use super::results::End;
use super::{Outcome, machine, report_files, stats};
use crate::error::{Error, Result};
use crate::load::LINE_LEN;
use crate::settings::units::as_f64;
use crate::sync::{Arc, StopToken};
use crate::time::Clock;

pub(super) use timed::receive;

/// The longest time that a run may take beyond its own length.
const GRACE: Duration = Duration::from_secs(30);

/// Stamped lines a second at most: enough for quantiles; where they are counted as words, too few to be in the way.
const STAMPS_MAX: u64 = 10_000;
const STAMPED_WORDS_MAX: u64 = 1_000;

/// Lines that are due in the first part of a run are not looked at.
const WARM_UP: Duration = Duration::from_secs(1);

/// A step of the search lasts at least this long, and this many batches.
const STEP: Duration = Duration::from_secs(3);
const STEP_BATCHES: u32 = 6;

/// The rates that are tried, in percent of what is taken without a limit; the first one that holds is it.
const STEPS: [u64; 9] = [95, 90, 85, 80, 75, 70, 60, 50, 40];

/// The settings of a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) model: String,
    /// Batch intervals in milliseconds.
    pub(crate) batches: Vec<u64>,
    /// Lines per second.
    pub(crate) rate: u64,
    /// The other rates, in percent of the highest one that holds.
    pub(crate) loads: Vec<u64>,
    pub(crate) work: Work,
    pub(crate) workers: Option<usize>,
    /// A rate holds only if the 99th percentile is at most this, and at most two batch intervals.
    pub(crate) limit: Duration,
    /// The time for which a run sends, the warm-up included.
    pub(crate) length: Duration,
    pub(crate) repeats: usize,
    /// The period of the bare timers; `None`: there are none.
    pub(crate) control_ms: Option<u64>,
    pub(crate) out: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) command_line: String,
    /// Ends the measurement at once.
    pub(crate) stop: StopToken,
}

/// One setting and what its repeats gave.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) batch_ms: u64,
    /// In percent of the highest rate that holds; `None` for the fixed rate.
    pub(super) load: Option<u64>,
    pub(super) rate: u64,
    pub(super) runs: Vec<Figures>,
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) timed: Timed,
    pub(super) sent: Sent,
}

/// The search at one batch interval.
#[derive(Clone, Debug)]
pub(super) struct Sustained {
    pub(super) batch_ms: u64,
    /// Lines per second that are taken without a limit.
    pub(super) ceiling: u64,
    /// The highest rate that held.
    pub(super) rate: Option<u64>,
    /// Every rate that was tried, with its 99th percentile in nanoseconds.
    pub(super) tried: Vec<(u64, u64)>,
}

/// Runs everything and writes the report; `tell` gets a line before each run.
///
/// # Errors
/// If the report cannot be written. Runs that fail are in the outcome.
pub(crate) fn run(
    options: &Options,
    clock: &Arc<dyn Clock>,
    mut tell: impl FnMut(&str),
) -> Result<Outcome> {
    report_files::directory(&options.out)?;
    let (mut rows, mut sustained, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for &batch_ms in &options.batches {
        rows.push(Row { batch_ms, load: None, rate: options.rate, runs: Vec::new() });
        if options.loads.is_empty() {
            continue;
        }
        match search(options, batch_ms, clock, &mut tell) {
            Ok(found) => {
                rows.extend(options.loads.iter().filter_map(|&load| {
                    let rate = found.rate?.saturating_mul(load) / 100;
                    Some(Row { batch_ms, load: Some(load), rate: rate.max(1), runs: Vec::new() })
                }));
                sustained.push(found);
            }
            Err(_) if options.stop.is_stopped() => break,
            Err(err) => failures.push(format!("search at {batch_ms} ms: {err}")),
        }
    }
    for repeat in 0..options.repeats {
        for at in stats::alternating(repeat, rows.len()) {
            let row = &mut rows[at];
            tell(&format!("{} lines/s in batches of {} ms", row.rate, row.batch_ms));
            match once(options, row.batch_ms, Some(row.rate), options.length, clock) {
                _ if options.stop.is_stopped() => break,
                Ok(figures) => row.runs.push(figures),
                Err(err) => failures.push(format!("{} ms at {}: {err}", row.batch_ms, row.rate)),
            }
        }
    }
    let written = write(options, &rows, &sustained, clock)?;
    let end = if options.stop.is_stopped() { End::Interrupted } else { End::Complete };
    Ok(Outcome { table: report::table(&rows, &sustained), files: written, failures, end })
}

fn write(
    options: &Options,
    rows: &[Row],
    sustained: &[Sustained],
    clock: &Arc<dyn Clock>,
) -> Result<Vec<PathBuf>> {
    let facts = machine::facts(clock.wall(), &options.command_line);
    let mut written = vec![report_files::write(
        &options.out,
        "latency.csv",
        &report::csv(rows, sustained, &facts),
    )?];
    for row in rows.iter().filter(|row| !row.runs.is_empty()) {
        let load = row.load.map_or(format!("{}ps", row.rate), |load| format!("load{load}"));
        let name = format!("latency-batch{}ms-{load}.hgrm", row.batch_ms);
        written.push(report_files::write(&options.out, &name, &stats::hgrm(&row.histogram()))?);
    }
    Ok(written)
}

/// The highest rate that holds at one batch interval.
fn search(
    options: &Options,
    batch_ms: u64,
    clock: &Arc<dyn Clock>,
    tell: &mut impl FnMut(&str),
) -> Result<Sustained> {
    let length = STEP.max(Duration::from_millis(batch_ms).saturating_mul(STEP_BATCHES));
    tell(&format!("as fast as it goes in batches of {batch_ms} ms"));
    let open = once(options, batch_ms, None, STEP, clock)?;
    let ceiling = per_second(open.sent.lines, open.sent.seconds);
    let mut found = Sustained { batch_ms, ceiling, rate: None, tried: Vec::new() };
    let limit = Duration::from_millis(batch_ms).saturating_mul(2).min(options.limit);
    for percent in STEPS {
        let rate = (ceiling.saturating_mul(percent) / 100).max(1);
        tell(&format!("does {rate} lines/s hold in batches of {batch_ms} ms?"));
        let figures = once(options, batch_ms, Some(rate), length, clock)?;
        let p99 = figures.histogram().value_at_quantile(0.99);
        found.tried.push((rate, p99));
        if Duration::from_nanos(p99) <= limit {
            found.rate = Some(rate);
            break;
        }
    }
    Ok(found)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive")]
fn per_second(lines: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (as_f64(lines) / seconds) as u64 } else { 0 }
}

/// One run at this rate; without one as fast as it goes.
fn once(
    options: &Options,
    batch_ms: u64,
    rate: Option<u64>,
    length: Duration,
    clock: &Arc<dyn Clock>,
) -> Result<Figures> {
    let warm_up = WARM_UP.min(length / 3);
    let timing = Timing {
        model: options.model.clone(),
        batch_ms,
        workers: options.workers,
        work: options.work,
        warm_up,
        window: window(length.saturating_sub(warm_up), batch_ms),
        control_ms: options.control_ms,
    };
    let stamps_max = match options.work {
        Work::Stamps => STAMPS_MAX,
        Work::Words => STAMPED_WORDS_MAX,
    };
    let start = Start { program: &options.program, grace: GRACE, clock, stop: &options.stop };
    let pair = Pair::start(&start, &Role::Time(timing), |address, _| {
        Role::Send(Sending {
            address,
            listens: false,
            rate,
            millis: u64::try_from(length.as_millis()).unwrap_or(u64::MAX),
            line_bytes: LINE_LEN as u64,
            busy: 1,
            idle: 0,
            thin: 0,
            storm: false,
            stamp_every: Some(rate.map_or(STAMPS_MAX, |rate| rate.div_ceil(stamps_max).max(1))),
        })
    })?;
    let end = clock.now().plus(length.saturating_add(GRACE));
    let (sent, ChildMessage::Timed(timed)) = pair.finish(end)? else {
        return Err(unexpected("receiver"));
    };
    if timed.latencies.is_empty() {
        return Err(Error::Failed("the run was too short: no line after the warm-up".to_owned()));
    }
    Ok(Figures { timed: *timed, sent })
}

/// As many whole batches as begin and end in `length`, but one.
fn window(length: Duration, batch_ms: u64) -> Duration {
    let batches = length.as_millis() / u128::from(batch_ms.max(1));
    let batches = u32::try_from(batches).unwrap_or(u32::MAX).saturating_sub(1).max(1);
    Duration::from_millis(batch_ms).saturating_mul(batches)
}

impl Figures {
    /// Latencies in nanoseconds.
    fn histogram(&self) -> Histogram<u64> {
        protocol::histogram_of(&self.timed.latencies)
    }
}

impl Row {
    /// The latencies of all runs, in nanoseconds.
    pub(super) fn histogram(&self) -> Histogram<u64> {
        let mut all = protocol::histogram();
        self.runs.iter().for_each(|run| all.add(run.histogram()).expect("it grows"));
        all
    }
}

/// This program, to be started again as both children.
pub(crate) fn this_program() -> Result<PathBuf> {
    std::env::current_exe()
        .map_err(|err| Error::io("cannot find this program to start it again", err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_whole_batches() {
        let check = |length, batch_ms, expected| {
            let found = window(Duration::from_millis(length), batch_ms);
            assert_eq!(
                found,
                Duration::from_millis(expected),
                "{length} ms, batches of {batch_ms} ms"
            );
        };
        check(9_000, 1_000, 8_000);
        check(9_100, 200, 8_800);
        check(1_500, 1_000, 1_000);
        check(100, 1_000, 1_000);
    }
}
