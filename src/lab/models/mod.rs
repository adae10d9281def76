//! `compare`: io models, and a bare loop, side by side over real sockets in separate processes.
//!
//! ```text
//! plan ─▶ rounds ─▶ measure: receiver process ◀── TCP ── sender process     round by round, in alternating order,
//!            ▲         ╰─▶ results                                          until each shape's intervals are narrow
//!            ╰─────────────╯  ╰─▶ verdicts, table, CSV, .hgrm, JSON, one HTML page
//! ```
//! A run times the engine as users run it: sockets, framing, blocks, batches, the job `count` or the stamps of each
//! batch. Knows nothing of the command line. Main thread.

#[cfg(test)]
mod controls;
mod measure;
pub(crate) mod plan;
pub(crate) mod plan_file;
pub(super) mod receiver;
mod report;
mod rounds;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::machine::{self, Watch};
use super::peers::{self, Peer};
use super::results::{Cell, End, FORMAT, Fact, Measurement, Results, Run, RunOutcome};
use super::shape::Kind;
use super::verdict::{self, Said};
use super::{Outcome, page, report_files, stats};
use crate::error::Result;
use crate::sync::{Arc, StopToken};
use crate::time::{Clock, Moment};

pub(crate) use measure::Pace;

use measure::{Lab, duration, measure};
use plan::Grid;

/// The longest part of a file's name that a label becomes.
const SLUG_MAX: usize = 100;

/// The settings of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) grids: Vec<Grid>,
    /// True if other programs are measured, too.
    pub(crate) peers: bool,
    pub(crate) pace: Pace,
    /// Runs of each cell; `None`: as many as the intervals need.
    pub(crate) repeats: Option<u64>,
    /// No run begins that would end later than this after the start.
    pub(crate) time_limit: Duration,
    /// Single short runs, which decide nothing.
    pub(crate) quick: bool,
    /// The directory of the report.
    pub(crate) out: PathBuf,
    /// A further file for the results.
    pub(crate) json: Option<PathBuf>,
    /// This program, which is both children.
    pub(crate) program: PathBuf,
    /// The command line as it was typed, for the page.
    pub(crate) command_line: String,
}

/// Progress, for whoever shows it.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// There will be at least this many runs.
    Runs(u64),
    /// This one begins.
    Begins(&'a Cell),
    /// It is over; the text of what went wrong, if anything did.
    Ended(&'a Cell, Option<&'a str>),
}

impl Options {
    /// What would be run, and about how long it takes at least.
    pub(crate) fn list(&self) -> List {
        let cells = self.cells(&self.peers());
        let runs = rounds::runs_min(&cells, self.repeats);
        let able: Vec<&Cell> = cells.iter().filter(|cell| cell.not_run.is_none()).collect();
        let round: Duration = able.iter().map(|cell| duration(cell, &self.pace)).sum();
        let rounds = runs.checked_div(able.len() as u64).unwrap_or(0);
        let least = round.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
        List { least: least.min(self.time_limit), cells, runs }
    }

    fn peers(&self) -> Vec<Peer> {
        if self.peers { peers::all() } else { Vec::new() }
    }

    /// Every cell, those of peers behind those of models of the same shape.
    fn cells(&self, peers: &[Peer]) -> Vec<Cell> {
        let models = plan::cells(&self.grids, self.pace.rate);
        let mut cells = Vec::new();
        for group in models.chunk_by(|a, b| a.shape == b.shape) {
            let is_first = !cells.iter().any(|cell: &Cell| cell.shape.kind == group[0].shape.kind);
            cells.extend_from_slice(group);
            cells.extend(peers.iter().filter_map(|peer| peer.cell(&group[0].shape, is_first)));
        }
        cells
    }

    fn facts(&self) -> Vec<Fact> {
        let repeats = self.repeats.map_or_else(
            || format!("as many as the intervals need, at most {}", rounds::PAIRS_MAX),
            |repeats| repeats.to_string(),
        );
        vec![
            Fact::new("runs of each model and shape", repeats),
            Fact::new("time limit", format!("{:?}", self.time_limit)),
            Fact::new("length of a throughput run", format!("{:?}", self.pace.throughput)),
            Fact::new("length of a latency run", format!("{:?}", self.pace.latency)),
            Fact::new("lines per second of a latency run", self.pace.rate.to_string()),
            Fact::new("threads of the model pool", self.pace.pool_threads.to_string()),
        ]
    }
}

/// A comparison that is not run.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) cells: Vec<Cell>,
    /// The fewest runs.
    pub(crate) runs: u64,
    /// The time that they take.
    pub(crate) least: Duration,
}

/// Runs everything and writes the report, also of what was measured when `stop` came.
///
/// # Errors
/// If the report cannot be written. A run that fails is a row of the report and counted.
pub(crate) fn run(
    options: &Options,
    clock: &Arc<dyn Clock>,
    stop: &StopToken,
    mut tell: impl FnMut(&Step<'_>),
) -> Result<Outcome> {
    // Before an hour of runs, not after it.
    report_files::directory(&options.out)?;
    let watch = Watch::start(clock.wall());
    let peers = options.peers();
    let mut cells = options.cells(&peers);
    tell(&Step::Runs(rounds::runs_min(&cells, options.repeats)));
    let Options { program, pace, .. } = options;
    let lab = Lab { program, pace, peers: &peers, clock, stop };
    let until = clock.now().plus(options.time_limit);
    let end = rounds(&mut cells, &lab, &Bounds { until, repeats: options.repeats }, &mut tell);
    let results = Results {
        format: FORMAT,
        tool: machine::tool(),
        command_line: options.command_line.clone(),
        measurement: Measurement::Models,
        quick: options.quick,
        options: options.facts(),
        machine: watch.machine(clock.wall()),
        end,
        cells,
        searches: Vec::new(),
    };
    let said = verdict::said(&results);
    report(&Report {
        results: &results,
        said: &said,
        out: &options.out,
        json: options.json.as_deref(),
    })
}

/// The bounds of a comparison.
struct Bounds {
    until: Moment,
    repeats: Option<u64>,
}

/// Makes round after round.
fn rounds(
    cells: &mut [Cell],
    lab: &Lab<'_>,
    bounds: &Bounds,
    tell: &mut impl FnMut(&Step<'_>),
) -> End {
    let mut turn = 0;
    for pair in 0.. {
        let round = rounds::round(cells, pair, bounds.repeats);
        if round.is_empty() {
            break;
        }
        for at in round {
            let cell = &cells[at];
            if lab.clock.now().plus(duration(cell, lab.pace)) > bounds.until {
                return End::TimeLimit;
            }
            tell(&Step::Begins(cell));
            let measured = measure(cell, lab);
            if lab.stop.is_stopped() {
                return End::Interrupted;
            }
            let failure = measured.as_ref().err().map(ToString::to_string);
            tell(&Step::Ended(cell, failure.as_deref()));
            let outcome = match measured {
                Ok(figures) => RunOutcome::Done(Box::new(figures)),
                Err(err) => RunOutcome::Failed(err.to_string()),
            };
            cells[at].runs.push(Run { pair, turn, outcome });
            turn += 1;
        }
    }
    End::Complete
}

/// A report to be written.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) results: &'a Results,
    pub(crate) said: &'a [Said],
    pub(crate) out: &'a Path,
    /// A further file for the results.
    pub(crate) json: Option<&'a Path>,
}

/// Writes every file of a report.
///
/// # Errors
/// If one cannot be written.
pub(crate) fn report(report: &Report<'_>) -> Result<Outcome> {
    let Report { results, said, out, json } = *report;
    report_files::directory(out)?;
    let rows = report::rows(results);
    let text = serde_json::to_string(results).expect("plain data");
    let mut files = vec![
        report_files::write(out, "compare.json", &text)?,
        report_files::write(out, "compare.csv", &report::csv(&rows))?,
        report_files::write(out, "compare.html", &page::html(results, said))?,
    ];
    if let Some(path) = json {
        files.push(report_files::write_to(path, &text)?);
    }
    for row in rows.iter().filter(|row| !row.histogram.is_empty()) {
        let kind = row.shape.kind;
        let kind = if kind == Kind::Latency { String::new() } else { format!("{}-", kind.name()) };
        let name = format!("{kind}{}-{}.hgrm", slug(&row.label), row.shape.slug());
        files.push(report_files::write(out, &name, &stats::hgrm(&row.histogram))?);
    }
    let failures = rows.iter().flat_map(|row| row.failures.iter().cloned()).collect();
    let busy = machine::busy(&results.machine).map_or(String::new(), |why| format!("{why}\n\n"));
    let table = busy + &report::table(&rows, said);
    Ok(Outcome { table, files, failures, end: results.end })
}

/// The table and the CSV file of results.
#[cfg(test)]
pub(super) fn shown(results: &Results) -> String {
    let rows = report::rows(results);
    report::table(&rows, &verdict::said(results)) + &report::csv(&rows)
}

/// A label in letters that a file name may have: `nio (2)` is `nio-2`.
fn slug(label: &str) -> String {
    let words = label.split(|char: char| !char.is_ascii_alphanumeric());
    let slug = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    slug.chars().take(SLUG_MAX).collect()
}
