//! `compare --latency`: how much longer than its batch interval makes it wait a line takes, stage by stage.
//!
//! ```text
//! for each interval and model: at a fixed rate ─┐
//!   search ─▶ highest rate that holds ─▶ a part of it ─┴▶ run: receiver ◀─ TCP ─ sender ─▶ Results ─▶ page, CSV, .hgrm
//! ```
//! Lines come evenly, so a batch interval alone makes half of them wait half of it, and one in a hundred 0.99 of it: the
//! floor. What comes on top is the excess, and that is judged. The models of an interval take turns, every other round
//! backwards. A bare timer on each core runs beside (`control`). Main thread.

mod control;
mod plan;
mod report;
mod timed;

use std::path::PathBuf;
use std::time::Duration;

use super::machine::{self, Watch};
use super::pair::{Pair, Start, unexpected};
use super::protocol::{self, ChildMessage, Role, Sending, Sent, Timed, Timing, Work};
use super::results::{End, FORMAT, Figures, Measurement, Results, Run, RunOutcome, Search, Stages};
use super::sample::Sample;
use super::verdict::said;
use super::{Outcome, page, report_files, stats};
use crate::error::{Error, Result};
use crate::load::LINE_LEN;
use crate::settings::units::as_f64;
use crate::source::io::{IoModel, probe};
use crate::sync::{Arc, StopToken};
use crate::time::Clock;

use plan::{cells, order, subject};

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
    /// Names of io models.
    pub(crate) models: Vec<String>,
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

/// A run: its model, its interval and its load.
struct Once<'a> {
    model: &'a str,
    batch_ms: u64,
    /// Lines per second; without it the sender is as fast as its lines are read.
    rate: Option<u64>,
    length: Duration,
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
    let watch = Watch::start(clock.wall());
    let mut failures = Vec::new();
    let searches = search_all(options, clock, &mut failures, &mut tell);
    let mut cells = cells(options, &searches);
    cells.iter_mut().for_each(|cell| cell.not_run = refused(&cell.subject.name));
    for (turn, at) in (0..).zip(order(&cells, options.repeats)) {
        let cell = &cells[at];
        let (model, batch_ms) = (cell.subject.name.clone(), cell.shape.batch_ms);
        let rate = cell.rate.unwrap_or(options.rate);
        tell(&format!("{model}: {rate} lines/s in batches of {batch_ms} ms"));
        let run = Once { model: &model, batch_ms, rate: Some(rate), length: options.length };
        let outcome = match once(options, &run, clock) {
            _ if options.stop.is_stopped() => break,
            Ok(figures) => RunOutcome::Done(Box::new(figures)),
            Err(err) => {
                failures.push(format!("{model}, {batch_ms} ms at {rate}: {err}"));
                RunOutcome::Failed(err.to_string())
            }
        };
        let pair = cell.runs.len() as u64;
        cells[at].runs.push(Run { pair, turn, outcome });
    }
    let results = Results {
        format: FORMAT,
        tool: machine::tool(),
        command_line: options.command_line.clone(),
        measurement: Measurement::Latency,
        machine: watch.machine(clock.wall()),
        end: if options.stop.is_stopped() { End::Interrupted } else { End::Complete },
        cells,
        searches,
        ..Results::default()
    };
    let files = write(options, &results)?;
    Ok(Outcome { table: report::table(&results), files, failures, end: results.end })
}

fn write(options: &Options, results: &Results) -> Result<Vec<PathBuf>> {
    let out = &options.out;
    let json = serde_json::to_string(results).expect("plain data");
    let mut written = vec![
        report_files::write(out, "latency.json", &json)?,
        report_files::write(out, "latency.csv", &report::csv(results))?,
        report_files::write(out, "latency.html", &page::html(results, &said(results)))?,
    ];
    for cell in results.cells.iter().filter(|cell| cell.done().next().is_some()) {
        let rate = || format!("{}ps", cell.rate.unwrap_or_default());
        let load = cell.shape.load_percent.map_or_else(rate, |load| format!("load{load}"));
        let name =
            format!("latency-{}-batch{}ms-{load}.hgrm", cell.subject.name, cell.shape.batch_ms);
        written.push(report_files::write(out, &name, &stats::hgrm(&report::histogram(cell)))?);
    }
    Ok(written)
}

/// The searches of every model at every interval, the models of an interval one after the other.
fn search_all(
    options: &Options,
    clock: &Arc<dyn Clock>,
    failures: &mut Vec<String>,
    tell: &mut impl FnMut(&str),
) -> Vec<Search> {
    let mut searches = Vec::new();
    if options.loads.is_empty() {
        return searches;
    }
    for &batch_ms in &options.batches {
        for model in options.models.iter().filter(|model| refused(model).is_none()) {
            match search(options, &Searched { model, batch_ms }, clock, tell) {
                Ok(found) => searches.push(found),
                Err(_) if options.stop.is_stopped() => return searches,
                Err(err) => failures.push(format!("search of {model} at {batch_ms} ms: {err}")),
            }
        }
    }
    searches
}

/// The reason why this machine does not run a model. The engine would take another one, whose figures these are not.
fn refused(model: &str) -> Option<String> {
    IoModel::by_name(model).and_then(|model| probe(model).err())
}

/// The subject of a search.
struct Searched<'a> {
    model: &'a str,
    batch_ms: u64,
}

/// The highest rate that a model holds at one batch interval.
fn search(
    options: &Options,
    searched: &Searched<'_>,
    clock: &Arc<dyn Clock>,
    tell: &mut impl FnMut(&str),
) -> Result<Search> {
    let Searched { model, batch_ms } = *searched;
    let length = STEP.max(Duration::from_millis(batch_ms).saturating_mul(STEP_BATCHES));
    tell(&format!("{model}: as fast as it goes in batches of {batch_ms} ms"));
    let open = once(options, &Once { model, batch_ms, rate: None, length: STEP }, clock)?;
    let ceiling = per_second(open.sent.lines, open.sent.seconds);
    let mut found =
        Search { subject: subject(model), batch_ms, ceiling, rate: None, tried: Vec::new() };
    let limit = Duration::from_millis(batch_ms).saturating_mul(2).min(options.limit);
    for percent in STEPS {
        let rate = (ceiling.saturating_mul(percent) / 100).max(1);
        tell(&format!("{model}: does {rate} lines/s hold in batches of {batch_ms} ms?"));
        let figures = once(options, &Once { model, batch_ms, rate: Some(rate), length }, clock)?;
        let p99 = protocol::histogram_of(&figures.latencies).value_at_quantile(0.99);
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

/// One run.
fn once(options: &Options, run: &Once<'_>, clock: &Arc<dyn Clock>) -> Result<Figures> {
    let Once { model, batch_ms, rate, length } = *run;
    let warm_up = WARM_UP.min(length / 3);
    let timing = Timing {
        model: model.to_owned(),
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
    Ok(figures(model, *timed, sent))
}

/// As many whole batches as begin and end in `length`, but one.
fn window(length: Duration, batch_ms: u64) -> Duration {
    let batches = length.as_millis() / u128::from(batch_ms.max(1));
    let batches = u32::try_from(batches).unwrap_or(u32::MAX).saturating_sub(1).max(1);
    Duration::from_millis(batch_ms).saturating_mul(batches)
}

/// The reports of both processes as the figures of a run.
fn figures(model: &str, timed: Timed, sent: Sent) -> Figures {
    let Timed { records, cpu, peak_bytes, latencies, stages, ticks, control, .. } = timed;
    let Timed { batches, ticks_lost, slow, .. } = timed;
    Figures {
        used: model.to_owned(),
        seconds: sent.seconds,
        records,
        cpu,
        late: Sample { peak_bytes, ..Sample::default() },
        sent,
        latencies,
        stages: Some(Stages { times: stages, ticks, control, batches, ticks_lost, slow }),
        ..Figures::default()
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
