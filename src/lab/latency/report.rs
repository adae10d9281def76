//! The rows of `compare --latency`, as tables for a terminal and as CSV, with verdicts. Pure.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::lab::machine::date;
use crate::lab::protocol::{self, QUANTILES, Spread};
use crate::lab::report_files::{aligned, csv_line};
use crate::lab::results::{Cell, Figures, Results, Search, Stages};
use crate::lab::stats::Summary;
use crate::metrics::STAGES;
use crate::settings::units::as_f64;

/// The most excess, in milliseconds: at the 99th percentile, and at the 99.9th.
const PASS: (f64, f64) = (2.0, 5.0);
const GOAL: (f64, f64) = (0.5, 1.0);

/// Nanoseconds of a millisecond and of a microsecond.
const MILLI: f64 = 1e6;
const MICRO: f64 = 1e3;

/// The excess of a row over its floor, in milliseconds.
struct Excess {
    /// At [`QUANTILES`].
    at: [f64; QUANTILES.len()],
    max: f64,
    lines: u64,
}

impl Excess {
    /// The lines beyond a quantile.
    fn beyond(&self, part: f64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of a count"
        )]
        let beyond = (as_f64(self.lines) * (1.0 - part)).round() as u64;
        beyond
    }
}

/// The lines that must lie beyond a quantile for it to be shown.
const BEYOND_MIN: u64 = 100;

/// A cell with its runs that were timed.
struct Row<'a> {
    cell: &'a Cell,
    runs: Vec<Timed<'a>>,
}

/// A run.
#[derive(Clone, Copy)]
struct Timed<'a> {
    figures: &'a Figures,
    stages: &'a Stages,
}

/// The latencies of all runs of a cell, in nanoseconds.
pub(super) fn histogram(cell: &Cell) -> Histogram<u64> {
    let mut all = protocol::histogram();
    for (_, figures) in cell.done() {
        all.add(protocol::histogram_of(&figures.latencies)).expect("it grows");
    }
    all
}

/// The rows of a measurement, in the order of its cells.
fn rows(results: &Results) -> Vec<Row<'_>> {
    results.cells.iter().map(Row::of).collect()
}

impl Row<'_> {
    fn of(cell: &Cell) -> Row<'_> {
        let timed = |figures| Some(Timed { figures, stages: figures.stages.as_ref()? });
        Row {
            cell,
            runs: cell.done().filter_map(|(_, figures): (_, &Figures)| timed(figures)).collect(),
        }
    }

    fn batch_ms(&self) -> u64 {
        self.cell.shape.batch_ms
    }

    fn excess(&self) -> Excess {
        let histogram = histogram(self.cell);
        let batch = as_f64(self.batch_ms());
        let above = |part: f64| as_f64(histogram.value_at_quantile(part)) / MILLI - part * batch;
        Excess {
            at: QUANTILES.map(|(_, part)| above(part)),
            max: above(1.0),
            lines: histogram.len(),
        }
    }

    /// The median run's excess at a quantile, with the least and the most.
    fn runs_at(&self, part: f64) -> Option<Summary> {
        let batch = as_f64(self.batch_ms());
        let of = |run: &Timed<'_>| {
            let latencies = protocol::histogram_of(&run.figures.latencies);
            as_f64(latencies.value_at_quantile(part)) / MILLI - part * batch
        };
        Summary::of(self.runs.iter().map(of))
    }

    fn sum(&self, of: impl Fn(&Timed<'_>) -> u64) -> u64 {
        self.runs.iter().map(of).sum()
    }

    /// The median run's figure.
    fn median(&self, of: impl Fn(&Timed<'_>) -> f64) -> f64 {
        Summary::of(self.runs.iter().map(of)).map_or(0.0, |summary| summary.median)
    }

    fn most(&self, of: impl Fn(&Timed<'_>) -> f64) -> f64 {
        self.runs.iter().map(of).fold(0.0, f64::max)
    }

    /// Judged by the median run, so that one pause of the machine does not decide.
    fn verdict(&self) -> &'static str {
        if self.runs.is_empty() {
            return "FAILED";
        }
        if self.cell.shape.load_percent.is_some() {
            return if self.sum(|run| run.stages.ticks_lost) == 0 { "shown" } else { "TICKS LOST" };
        }
        let median = |part| self.runs_at(part).map_or(f64::MAX, |summary| summary.median);
        let (p99, p999) = (median(0.99), median(0.999));
        let within = |(at_99, at_999): (f64, f64)| p99 <= at_99 && p999 <= at_999;
        match self.sum(|run| run.stages.ticks_lost) {
            0 if within(GOAL) => "goal",
            0 if within(PASS) => "pass",
            0 => "MISSED",
            _ => "TICKS LOST",
        }
    }

    fn label(&self) -> String {
        let Cell { subject, shape, rate, .. } = self.cell;
        let load = shape.load_percent.map_or(String::new(), |load| format!(" ({load} %)"));
        format!("{}, {} ms, {}/s{load}", subject.label(), shape.batch_ms, rate.unwrap_or_default())
    }
}

/// Everything as aligned text.
pub(super) fn table(results: &Results) -> String {
    let (mut text, rows) = (String::new(), rows(results));
    searches(&mut text, &results.searches);
    text.push_str(
        "excess over the floor (half a batch at p50, 0.99 of it at p99, ...), ms; all runs together, p99 also as the median \
         run [least .. most]\n",
    );
    let head =
        ["model, batch, rate", "p50", "p99", "p99.9", "p99.99", "max", "p99 by run", "lost", ""];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for row in rows.iter().filter(|row| !row.runs.is_empty()) {
        let excess = row.excess();
        let mut line = vec![row.label()];
        let at = QUANTILES.iter().zip(excess.at);
        line.extend(at.map(|((_, part), ms)| match excess.beyond(*part) {
            BEYOND_MIN.. => format!("{ms:.3}"),
            _ => "too few".to_owned(),
        }));
        line.push(format!("{:.3}", excess.max));
        line.push(
            row.runs_at(0.99).map_or(String::new(), |Summary { median, min, max, .. }| {
                format!("{median:.3} [{min:.3} .. {max:.3}]")
            }),
        );
        line.push(row.sum(|run| run.stages.ticks_lost).to_string());
        line.push(row.verdict().to_owned());
        lines.push(line);
    }
    text.push_str(&aligned(&lines));
    stages(&mut text, &rows);
    slow(&mut text, &rows);
    text
}

fn searches(text: &mut String, searches: &[Search]) {
    for found in searches {
        let tried = found.tried.iter().map(|(rate, p99)| {
            format!("{:.2} M/s: p99 {:.0} ms", as_f64(*rate) / 1e6, as_f64(*p99) / MILLI)
        });
        let (batch, ceiling) = (found.batch_ms, as_f64(found.ceiling) / 1e6);
        let holds = found.rate.map_or("none held".to_owned(), |rate| {
            format!("{:.2} M lines/s hold", as_f64(rate) / 1e6)
        });
        let tried: Vec<String> = tried.collect();
        let _ = writeln!(
            text,
            "{}, batch {batch} ms: {holds} (without a limit {ceiling:.2} M; {})",
            found.subject.label(),
            tried.join(", ")
        );
    }
    if !searches.is_empty() {
        text.push('\n');
    }
}

/// The time of each stage after the tick, the lateness of ticks, and that of the bare timers.
fn stages(text: &mut String, rows: &[Row<'_>]) {
    text.push_str(
        "\nstages of a batch after its tick, us: p50 / p99 / p99.9 / max of the worst run\n",
    );
    let names = STAGES.iter().skip(1).map(|(_, name)| (*name).to_owned());
    let ends = ["tick late", "bare timer late"].map(str::to_owned);
    let head = std::iter::once("model, batch, rate".to_owned()).chain(names).chain(ends);
    let mut lines = vec![head.collect::<Vec<_>>()];
    for row in rows.iter().filter(|row| !row.runs.is_empty()) {
        let mut line = vec![row.label()];
        for at in 1..STAGES.len() {
            line.push(spread(row, |run| run.stages.times.get(at).copied().unwrap_or_default()));
        }
        line.push(spread(row, |run| run.stages.ticks));
        line.push(spread(row, |run| run.stages.control));
        lines.push(line);
    }
    text.push_str(&aligned(&lines));
}

fn spread(row: &Row<'_>, of: impl Fn(&Timed<'_>) -> Spread) -> String {
    let at = |number: usize| row.most(|run| as_f64(of(run).at[number])) / MICRO;
    let max = row.most(|run| as_f64(of(run).max)) / MICRO;
    format!("{:.0} / {:.0} / {:.0} / {max:.0}", at(0), at(1), at(2))
}

/// The causes of slow batches.
fn slow(text: &mut String, rows: &[Row<'_>]) {
    text.push_str("\nbatches over 1 ms above the median one, by the stage that took it\n");
    for row in rows.iter().filter(|row| !row.runs.is_empty()) {
        let by_stage = STAGES.iter().enumerate().filter_map(|(at, (_, name))| {
            let count = row.sum(|run| run.stages.slow.by_stage[at]);
            (count > 0).then(|| format!("{name} {count}"))
        });
        let by_stage: Vec<String> = by_stage.collect();
        let by_stage = if by_stage.is_empty() { "none".to_owned() } else { by_stage.join(", ") };
        let _ = writeln!(
            text,
            "  {}: {by_stage}; {} of them while a bare timer was 0.5 ms late or more; of {} batches; longest {:.2} ms; \
             sender late by at most {:.2} ms; {:.1} MiB",
            row.label(),
            row.sum(|run| run.stages.slow.machine),
            row.sum(|run| run.stages.batches),
            row.most(|run| as_f64(run.stages.slow.longest)) / MILLI,
            row.most(|run| as_f64(run.figures.sent.behind_micros)) / MICRO,
            row.most(|run| as_f64(run.figures.late.peak_bytes)) / 1_048_576.0,
        );
    }
}

/// Everything as CSV (RFC 4180): a line for each setting; times in milliseconds, those of stages and timers in microseconds.
pub(super) fn csv(results: &Results) -> String {
    let first = |model: &str, batch_ms: u64| {
        let date = date(results.machine.start.wall_seconds);
        vec![date, results.tool.commit.clone(), model.to_owned(), batch_ms.to_string()]
    };
    let mut head: Vec<String> =
        ["date", "commit", "model", "batch_ms", "load_percent", "rate", "runs", "verdict"]
            .map(str::to_owned)
            .to_vec();
    let names = || QUANTILES.iter().map(|(name, _)| *name).chain(["max"]);
    head.extend(names().map(|name| format!("{name}_ms")));
    head.extend(names().map(|name| format!("excess_{name}_ms")));
    for ends in ["median", "least", "most"] {
        head.extend(["p99", "p99.9"].map(|name| format!("excess_{name}_{ends}_run_ms")));
    }
    let timers =
        STAGES.iter().skip(1).map(|(_, name)| *name).chain(["tick_late", "bare_timer_late"]);
    for stage in timers {
        head.extend(names().map(|name| format!("{stage}_{name}_us")));
    }
    head.extend(
        [
            "batches",
            "ticks_lost",
            "slow_batches",
            "slow_with_machine",
            "sender_late_ms",
            "cpu_percent",
            "peak_bytes",
        ]
        .map(str::to_owned),
    );
    let mut text = csv_line(&head);
    for row in rows(results) {
        let Cell { subject, shape, rate, .. } = row.cell;
        let mut line = first(&subject.name, shape.batch_ms);
        line.push(shape.load_percent.map_or(String::new(), |load| load.to_string()));
        let rate = rate.unwrap_or_default().to_string();
        line.extend([rate, row.runs.len().to_string(), row.verdict().to_owned()]);
        line.extend(figures(&row));
        text.push_str(&csv_line(&line));
    }
    for found in &results.searches {
        let mut line = first(&found.subject.name, found.batch_ms);
        line.push("100".to_owned());
        line.push(found.rate.unwrap_or(0).to_string());
        line.extend(["0".to_owned(), "highest rate that held".to_owned()]);
        line.resize(head.len(), String::new());
        text.push_str(&csv_line(&line));
    }
    text
}

/// The figures of a row in the order of the CSV file's columns.
fn figures(row: &Row<'_>) -> Vec<String> {
    let (histogram, excess) = (histogram(row.cell), row.excess());
    let at = |part| as_f64(histogram.value_at_quantile(part)) / MILLI;
    let mut figures: Vec<f64> = QUANTILES.iter().map(|(_, part)| at(*part)).collect();
    figures.push(at(1.0));
    figures.extend(excess.at);
    figures.push(excess.max);
    let (p99, p999) = (row.runs_at(0.99), row.runs_at(0.999));
    for of in [|s: Summary| s.median, |s: Summary| s.min, |s: Summary| s.max] {
        figures.extend([p99, p999].map(|summary| summary.map_or(0.0, of)));
    }
    let spreads = |of: &dyn Fn(&Timed<'_>) -> Spread| {
        let at =
            (0..QUANTILES.len()).map(|number| row.most(|run| as_f64(of(run).at[number])) / MICRO);
        at.chain([row.most(|run| as_f64(of(run).max)) / MICRO]).collect::<Vec<_>>()
    };
    for stage in 1..STAGES.len() {
        figures.extend(spreads(&|run| run.stages.times.get(stage).copied().unwrap_or_default()));
    }
    figures.extend(spreads(&|run| run.stages.ticks));
    figures.extend(spreads(&|run| run.stages.control));
    let counts = [
        row.sum(|run| run.stages.batches),
        row.sum(|run| run.stages.ticks_lost),
        row.sum(|run| run.stages.slow.by_stage.iter().sum()),
        row.sum(|run| run.stages.slow.machine),
    ];
    figures.extend(counts.map(as_f64));
    figures.push(row.most(|run| as_f64(run.figures.sent.behind_micros)) / MICRO);
    figures.push(row.median(|run| run.figures.cpu / run.figures.sent.seconds * 100.0));
    figures.push(row.most(|run| as_f64(run.figures.late.peak_bytes)));
    figures.iter().map(f64::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::protocol::{Sent, Slow};
    use crate::lab::results::{Run, RunOutcome};
    use crate::lab::shape::Shape;

    /// A run whose lines waited evenly up to `batch_ms` and `late_us` on top.
    fn run(batch_ms: u64, late_us: u64, ticks_lost: u64) -> Run {
        let latencies = (0..10_000).map(|line| (line * batch_ms * 100 + late_us * 1_000, 1));
        let times =
            vec![Spread { count: 1, at: [1_000; QUANTILES.len()], max: 2_000 }; STAGES.len()];
        let slow = Slow { by_stage: [0, 2, 0, 0, 0, 0, 0], machine: 1, longest: 3_000_000 };
        let stages = Stages { times, batches: 100, ticks_lost, slow, ..Stages::default() };
        let sent =
            Sent { lines: 10_000, seconds: 1.0, cpu: 0.1, behind_micros: 250, ..Sent::default() };
        let figures = Figures {
            records: 10_000,
            latencies: latencies.collect(),
            stages: Some(stages),
            sent,
            ..Figures::default()
        };
        Run { pair: 0, turn: 0, outcome: RunOutcome::Done(Box::new(figures)) }
    }

    fn cell(runs: Vec<Run>) -> Cell {
        let shape = Shape { batch_ms: 10, ..Shape::default() };
        Cell { shape, rate: Some(10_000), runs, ..Cell::default() }
    }

    #[test]
    fn verdicts() {
        let check = |late: &[u64], lost, expected| {
            let cell = cell(late.iter().map(|late| run(10, *late, lost)).collect());
            assert_eq!(Row::of(&cell).verdict(), expected, "{late:?}");
        };
        check(&[300], 0, "goal");
        check(&[700], 0, "pass");
        check(&[2_100], 0, "MISSED");
        check(&[300], 1, "TICKS LOST");
        check(&[300, 9_000, 300], 0, "goal");
        check(&[300, 9_000, 9_000], 0, "MISSED");
        check(&[], 0, "FAILED");
    }

    #[test]
    fn the_floor_is_taken_off() {
        let excess = Row::of(&cell(vec![run(10, 400, 0)])).excess();
        for above in excess.at.iter().chain([&excess.max]) {
            assert!((above - 0.4).abs() < 0.02, "{above}");
        }
    }

    #[test]
    fn tables_and_csv_hold_every_row() {
        let search = Search {
            batch_ms: 10,
            ceiling: 2_000_000,
            rate: Some(1_800_000),
            tried: vec![(1_800_000, 9_000_000)],
            ..Search::default()
        };
        let mut results = Results {
            cells: vec![cell(vec![run(10, 400, 0)]), cell(vec![])],
            searches: vec![search],
            ..Results::default()
        };
        results.cells[0].subject.name = "nio".to_owned();
        results.searches[0].subject.name = "nio".to_owned();
        let text = table(&results);
        assert!(
            text.starts_with(
                "nio, batch 10 ms: 1.80 M lines/s hold (without a limit 2.00 M; 1.80 M/s: p99 9 ms)\n"
            ),
            "{text}"
        );
        assert!(text.contains("too few  too few"), "10,000 lines:\n{text}");
        assert!(text.contains("nio, 10 ms, 10000/s: cut 2; 1 of them while"), "{text}");
        let csv = csv(&results);
        let lines: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|columns| *columns == lines[0]), "{csv}");
    }
}
