//! `compare`: io models, and a bare loop, side by side over real sockets in separate processes.
//!
//! ```text
//! plan ─▶ measure: receiver process ◀── TCP ── sender process      for each run, in alternating order
//!            ╰──▶ figures ─▶ rows: medians and spreads ─▶ table, CSV, .hgrm, one HTML page
//! ```
//! A run times the engine as users run it: sockets, framing, blocks, batches, the job `count` or the stamps of each
//! batch. Knows nothing of the command line. Main thread.

mod html;
mod measure;
pub(crate) mod plan;
mod plots;
pub(super) mod receiver;
mod report;

use std::path::{Path, PathBuf};

use super::{Outcome, machine, report_files, stats};
use crate::error::Result;
use crate::sync::Arc;
use crate::time::Clock;

pub(crate) use measure::Pace;

use measure::{Figures, measure};
use plan::{Cell, Grid, cells, order};
use report::Row;

/// The settings of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) grid: Grid,
    pub(crate) pace: Pace,
    pub(crate) repeats: usize,
    /// The directory of the report.
    pub(crate) out: PathBuf,
    /// This program, which is both children.
    pub(crate) program: PathBuf,
    /// The command line as it was typed, for the page.
    pub(crate) command_line: String,
}

/// Progress, for whoever shows it.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// The number of runs that there will be.
    Runs(usize),
    /// This one begins.
    Begins(&'a Cell),
    /// It is over; the text of what went wrong, if anything did.
    Ended(&'a Cell, Option<String>),
}

/// Runs everything and writes the report.
///
/// # Errors
/// If the report cannot be written. A run that fails is a row of the report and counted.
pub(crate) fn run(
    options: &Options,
    clock: &Arc<dyn Clock>,
    mut tell: impl FnMut(&Step<'_>),
) -> Result<Outcome> {
    // Before an hour of runs, not after it.
    report_files::directory(&options.out)?;
    let facts = machine::facts(clock.wall(), &options.command_line);
    let cells = cells(&options.grid);
    let runnable: Vec<Cell> =
        cells.iter().filter(|cell| cell.refused().is_none()).copied().collect();
    let order = order(&runnable, options.repeats);
    tell(&Step::Runs(order.len()));
    let mut figures: Vec<Vec<Result<Figures, String>>> = vec![Vec::new(); runnable.len()];
    for run in order {
        let cell = &runnable[run];
        tell(&Step::Begins(cell));
        let measured = measure(&options.program, cell, &options.pace, clock);
        let measured = measured.map_err(|err| err.to_string());
        tell(&Step::Ended(cell, measured.as_ref().err().cloned()));
        figures[run].push(measured);
    }
    let mut figures = figures.into_iter();
    let rows = cells.iter().map(|cell| match cell.refused() {
        Some(why) => Row::not_run(cell, why),
        None => Row::new(cell, figures.next().unwrap_or_default()),
    });
    let rows: Vec<Row> = rows.collect();
    let files = write(&options.out, &rows, &facts)?;
    let failures = rows.iter().flat_map(|row| row.failures.iter().cloned()).collect();
    Ok(Outcome { table: report::table(&rows), files, failures })
}

fn write(out: &Path, rows: &[Row], facts: &machine::Facts) -> Result<Vec<PathBuf>> {
    let mut written = vec![
        report_files::write(out, "compare.csv", &report::csv(rows))?,
        report_files::write(out, "compare.html", &html::page(rows, facts))?,
    ];
    for row in rows.iter().filter(|row| !row.histogram.is_empty()) {
        let name = format!("{}-{}.hgrm", row.cell.model, row.cell.shape.slug());
        written.push(report_files::write(out, &name, &stats::hgrm(&row.histogram))?);
    }
    Ok(written)
}
