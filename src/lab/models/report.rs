//! The rows of a comparison, as tables for a terminal and as CSV. Pure.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::lab::metrics::{METRICS, histogram, value};
use crate::lab::protocol;
use crate::lab::report_files::{aligned, csv_line};
use crate::lab::results::{Cell, Results};
use crate::lab::shape::{Kind, Shape, by_shape};
use crate::lab::stats::Summary;
use crate::lab::verdict::Said;

/// The result of the runs of a cell.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The label of the subject.
    pub(crate) label: String,
    pub(crate) shape: Shape,
    /// The model that was really in use.
    pub(crate) used: String,
    /// The reason why it was not the one that was asked for.
    pub(crate) fallback: Option<String>,
    /// The reason why its system calls were not counted.
    pub(crate) uncounted: Option<String>,
    /// Runs that gave figures.
    pub(crate) runs: usize,
    /// The errors of the others.
    pub(crate) failures: Vec<String>,
    /// The reason why it was not run at all.
    pub(crate) not_run: Option<String>,
    /// The metrics that say something here.
    pub(crate) metrics: Vec<(&'static str, Summary)>,
    /// The latencies of all runs, in nanoseconds.
    pub(crate) histogram: Histogram<u64>,
    /// The name of the subject.
    name: String,
}

/// The rows of all cells, in their order.
pub(crate) fn rows(results: &Results) -> Vec<Row> {
    results.cells.iter().map(Row::of).collect()
}

impl Row {
    pub(crate) fn of(cell: &Cell) -> Row {
        let mut latencies = protocol::histogram();
        cell.done().for_each(|(_, it)| latencies.add(histogram(it)).expect("it grows"));
        let metrics = METRICS.iter().filter_map(|metric| {
            let values = cell.done().filter_map(|(_, it)| value(metric.name, &cell.shape, it));
            Some((metric.name, Summary::of(values)?))
        });
        let first = cell.done().next().map(|(_, figures)| figures);
        let used = first.map_or(String::new(), |figures| figures.used.clone());
        Row {
            label: cell.subject.label(),
            shape: cell.shape,
            name: cell.subject.name.clone(),
            used,
            fallback: first.and_then(|figures| figures.fallback.clone()),
            uncounted: first.and_then(|figures| figures.uncounted.clone()),
            runs: cell.done().count(),
            failures: cell.failures().map(str::to_owned).collect(),
            not_run: cell.not_run.clone(),
            metrics: metrics.collect(),
            histogram: latencies,
        }
    }

    /// A metric's summary, if the row has it.
    pub(crate) fn get(&self, name: &str) -> Option<Summary> {
        self.metrics.iter().find(|(metric, _)| *metric == name).map(|(_, summary)| *summary)
    }

    /// The model that was asked for, and the one in use if that is another.
    pub(crate) fn model(&self) -> String {
        if !self.used.is_empty() && self.used != self.name {
            format!("{} (ran {})", self.label, self.used)
        } else {
            self.label.clone()
        }
    }
}

/// A column: its head, its metric, how many of the metric's unit are one of the column's, and digits after the point.
type Column = (&'static str, &'static str, f64, usize);

/// The columns of each kind's table; the first one is shown with its spread.
pub(crate) fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Throughput => &[
            ("MB/s", "bytes_per_second", 1e6, 0),
            ("records/s", "records_per_second", 1.0, 0),
            ("CPU-s/GB", "cpu_seconds_per_gb", 1.0, 3),
            ("CPU %", "cpu_share_percent", 1.0, 0),
            ("sender CPU %", "sender_cpu_share_percent", 1.0, 0),
            ("switches/MB", "context_switches_per_mb", 1.0, 1),
            ("syscalls/MB", "system_calls_per_mb", 1.0, 1),
            ("peak MiB", "peak_bytes", 1_048_576.0, 1),
        ],
        Kind::Storm => &[
            ("connections/s", "connections_per_second", 1.0, 0),
            ("CPU us each", "cpu_micros_per_connection", 1.0, 1),
            ("CPU %", "cpu_share_percent", 1.0, 0),
            ("sender CPU %", "sender_cpu_share_percent", 1.0, 0),
            ("switches/s", "context_switches_per_second", 1.0, 0),
            ("syscalls/s", "system_calls_per_second", 1.0, 0),
            ("peak MiB", "peak_bytes", 1_048_576.0, 1),
        ],
        Kind::Latency | Kind::Crowd | Kind::Slow => &[
            ("p50 ms", "p50_ms", 1.0, 2),
            ("p99 ms", "p99_ms", 1.0, 2),
            ("p99.9 ms", "p99.9_ms", 1.0, 2),
            ("p99.99 ms", "p99.99_ms", 1.0, 2),
            ("max ms", "max_ms", 1.0, 2),
            ("CPU %", "cpu_share_percent", 1.0, 1),
            ("switches/s", "context_switches_per_second", 1.0, 0),
            ("syscalls/s", "system_calls_per_second", 1.0, 0),
            ("sender late ms", "sender_behind_ms", 1.0, 2),
        ],
        Kind::Memory => &[
            ("B/connection", "bytes_per_connection", 1.0, 0),
            ("own MiB", "anonymous_bytes", 1_048_576.0, 2),
            ("peak MiB", "peak_bytes", 1_048_576.0, 1),
            ("threads", "threads", 1.0, 0),
            ("CPU %", "cpu_share_percent", 1.0, 1),
            ("switches/s", "context_switches_per_second", 1.0, 0),
            ("syscalls/s", "system_calls_per_second", 1.0, 0),
        ],
    }
}

/// The cells of a row in the order of the columns: medians, and the first with lowest and highest in brackets.
pub(crate) fn texts(row: &Row) -> Vec<String> {
    let column = |(at, (_, metric, unit, digits)): (usize, &Column)| match row.get(metric) {
        None => "-".to_owned(),
        Some(summary) if at == 0 && row.runs > 1 => format!(
            "{:.digits$} ({:.digits$}-{:.digits$})",
            summary.median / unit,
            summary.min / unit,
            summary.max / unit
        ),
        Some(summary) => format!("{:.digits$}", summary.median / unit),
    };
    columns(row.shape.kind).iter().enumerate().map(column).collect()
}

/// The remarks on a row, beside its figures.
pub(crate) fn remarks(row: &Row) -> Vec<String> {
    let not_run = row.not_run.iter().map(|why| format!("not run: {why}"));
    let fallback = row.fallback.iter().map(|why| format!("ran {}: {why}", row.used));
    let uncounted = row.uncounted.iter().cloned();
    let failed = row.failures.iter().map(|why| format!("failed: {why}"));
    let sender = row
        .get("sender_cpu_share_percent")
        .filter(|share| row.shape.kind == Kind::Throughput && share.median > 90.0);
    let limit = sender.map(|_| "the sender was busy all the time and may be the limit".to_owned());
    let wide = row.get("bytes_per_second").filter(|rate| rate.spread_percent() > 20.0);
    let wide =
        wide.map(|rate| format!("wide spread: {:.0} % of the median", rate.spread_percent()));
    not_run.chain(fallback).chain(failed).chain(uncounted).chain(limit).chain(wide).collect()
}

/// Everything as aligned text, with the verdict on each shape below its rows.
pub(crate) fn table(rows: &[Row], said: &[Said]) -> String {
    let mut text = String::new();
    for (kind, name) in Kind::ALL {
        let of_kind = rows.iter().filter(|row| row.shape.kind == kind);
        for (shape, group) in by_shape(of_kind, |row| row.shape) {
            let _ = writeln!(text, "{name}: {}", shape.words());
            let heads = columns(kind).iter().map(|column| column.0.to_owned());
            let head: Vec<String> = std::iter::once("model".to_owned()).chain(heads).collect();
            let line = |row: &&Row| std::iter::once(row.model()).chain(texts(row)).collect();
            let lines: Vec<Vec<String>> =
                std::iter::once(head).chain(group.iter().map(line)).collect();
            text.push_str(&aligned(&lines));
            for row in &group {
                for remark in remarks(row) {
                    let _ = writeln!(text, "  {}: {remark}", row.label);
                }
            }
            let said = said.iter().filter(|said| said.shape == shape);
            for sentence in said.flat_map(|said| &said.sentences) {
                let _ = writeln!(text, "  {sentence}");
            }
            text.push('\n');
        }
    }
    text
}

/// Everything as CSV (RFC 4180): one line for each cell, each metric as median, lowest and highest.
pub(crate) fn csv(rows: &[Row]) -> String {
    let fixed = [
        "kind",
        "model",
        "used",
        "connections",
        "busy",
        "record_bytes",
        "batch_ms",
        "block_ms",
        "runs",
        "remarks",
    ];
    let mut head: Vec<String> = fixed.iter().map(|&name| name.to_owned()).collect();
    for metric in METRICS {
        head.extend(["", "_min", "_max"].map(|end| format!("{}{end}", metric.name)));
    }
    let mut text = csv_line(&head);
    for row in rows {
        let Shape { kind, connections, busy, record_bytes, batch_ms, block_ms, .. } = row.shape;
        let mut line = vec![kind.name().to_owned(), row.label.to_owned(), row.used.clone()];
        line.extend(
            [connections, busy, record_bytes, batch_ms, block_ms, row.runs as u64]
                .map(|number| number.to_string()),
        );
        line.push(remarks(row).join("; "));
        for metric in METRICS {
            line.extend(match row.get(metric.name) {
                Some(Summary { median, min, max, .. }) => [median, min, max].map(|v| v.to_string()),
                None => [String::new(), String::new(), String::new()],
            });
        }
        text.push_str(&csv_line(&line));
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::plan::{cells, tests::grid};
    use super::*;
    use crate::lab::protocol::Sent;
    use crate::lab::results::{Figures, Run, RunOutcome};
    use crate::lab::sample::Sample;
    use crate::lab::verdict::said;

    /// A run of a second with these bytes.
    fn figures(bytes: u64, latencies: &[(u64, u64)]) -> Figures {
        let sample = |switches| Sample {
            anonymous_bytes: 1 << 20,
            peak_bytes: 4 << 20,
            threads: 3,
            switches,
            files: 9,
        };
        Figures {
            used: "nio".to_owned(),
            records: bytes / 10,
            bytes,
            cpu: 0.5,
            calls: Some(4_000),
            latencies: latencies.to_vec(),
            sent: Sent {
                lines: bytes / 10,
                seconds: 1.0,
                cpu: 0.25,
                behind_micros: 250,
                ..Sent::default()
            },
            seconds: 1.0,
            early: sample(10),
            late: sample(60),
            between: 0.5,
            ..Figures::default()
        }
    }

    /// Throughput of two models, a latency and a cell that was not run.
    pub(crate) fn results() -> Results {
        let mut grid = grid();
        grid.connections = vec![1];
        grid.kinds = vec![Kind::Throughput, Kind::Latency, Kind::Memory];
        let mut cells = cells(&[grid], 1_000);
        cells.remove(5);
        cells.remove(2);
        let done = |figures: Figures| RunOutcome::Done(Box::new(figures));
        let runs = |outcomes: Vec<RunOutcome>| {
            let runs = outcomes.into_iter().zip(0..);
            runs.map(|(outcome, pair)| Run { pair, turn: 0, outcome }).collect()
        };
        let failed = RunOutcome::Failed("<script>alert(1)</script>, \"no\"".to_owned());
        cells[0].runs = runs(vec![failed]);
        let bytes = [100_000_000, 300_000_000, 200_000_000];
        cells[1].runs = runs(bytes.map(|bytes| done(figures(bytes, &[]))).to_vec());
        cells[2].runs = runs(vec![done(figures(100, &[(1_000_000, 98), (9_000_000, 2)]))]);
        cells[3].not_run = Some("too many".to_owned());
        Results { cells, ..Results::default() }
    }

    #[test]
    fn rows_hold_medians_and_spreads() {
        let rows = rows(&results());
        let rate = rows[1].get("bytes_per_second").expect("a rate");
        assert_eq!((rate.median, rate.min, rate.max), (2e8, 1e8, 3e8));
        assert_eq!(rows[1].get("cpu_seconds_per_gb").map(|cpu| cpu.median), Some(2.5));
        assert_eq!(rows[1].get("context_switches_per_second").map(|s| s.median), Some(100.0));
        assert_eq!(rows[1].get("system_calls_per_mb").map(|s| s.median), Some(20.0));
        assert_eq!(rows[1].get("p50_ms"), None);
        assert_eq!(rows[2].get("bytes_per_second"), None);
        assert_eq!(rows[2].histogram.len(), 100);
        assert_eq!(rows[0].failures.len(), 1);
    }

    #[test]
    fn the_table_shows_every_row() {
        let results = results();
        let text = table(&rows(&results), &said(&results));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "throughput: 1 connection, 10 B, batch 100 ms, block 100 ms");
        assert_eq!(
            lines[1],
            "  model           MB/s  records/s  CPU-s/GB  CPU %  sender CPU %  switches/MB  syscalls/MB  peak MiB"
        );
        assert_eq!(
            lines[3],
            "  nio    200 (100-300)   20000000     2.500     50            25          0.5         20.0       4.0"
        );
        assert_eq!(lines[4], "  bio: failed: <script>alert(1)</script>, \"no\"");
        assert_eq!(lines[5], "  nio: wide spread: 100 % of the median");
        assert!(text.contains("not run: too many"), "{text}");
    }

    #[test]
    fn the_table_says_the_verdict() {
        let mut results = results();
        results.cells[0].runs = results.cells[1].runs.clone();
        let text = table(&rows(&results), &said(&results));
        let verdict = "\n  rate: 3 pairs cannot decide it; it takes at least 6 pairs\n";
        assert!(text.contains(verdict), "{text}");
    }

    /// A reader of CSV with quotes, for what the writer may have got wrong.
    fn parse(text: &str) -> Vec<Vec<String>> {
        let (mut rows, mut row, mut cell, mut quoted) = (vec![], vec![], String::new(), false);
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '"' if quoted && chars.peek() == Some(&'"') => cell.push(chars.next().expect("it")),
                '"' => quoted = !quoted,
                ',' if !quoted => row.push(std::mem::take(&mut cell)),
                '\r' if !quoted => {}
                '\n' if !quoted => {
                    row.push(std::mem::take(&mut cell));
                    rows.push(std::mem::take(&mut row));
                }
                other => cell.push(other),
            }
        }
        rows
    }

    #[test]
    fn csv_reads_back() {
        let lines = parse(&csv(&rows(&results())));
        assert_eq!(lines.len(), 5);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()));
        let at = |line: usize, name: &str| {
            let column = lines[0].iter().position(|head| head == name).expect("a column");
            lines[line][column].as_str()
        };
        assert_eq!(at(1, "remarks"), "failed: <script>alert(1)</script>, \"no\"");
        assert_eq!(at(2, "bytes_per_second"), "200000000");
        assert_eq!(at(2, "bytes_per_second_max"), "300000000");
        assert_eq!(at(2, "p50_ms"), "");
        assert_eq!((at(3, "kind"), at(3, "runs")), ("latency", "1"));
        assert!(at(3, "p99_ms").starts_with("9.0"), "{}", at(3, "p99_ms"));
    }
}
