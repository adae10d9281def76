//! The page of `compare`: kind by kind and shape by shape, with small multiples where shapes differ in one thing. Pure.

use super::looks::Plot;
use super::plots::{self, OfShape, Shown};
use super::timed;
use super::{Verdicts, head};
use crate::lab::results::{Cell, Results};
use crate::lab::shape::{Kind, Shape};
use crate::page::{Figure, Page, Span, Table, Unit};

const RATE: Shown = Shown {
    metric: "bytes_per_second",
    name: "rate",
    unit: Unit::large("B/s"),
    factor: 1.0,
    look_for: "More is better, but the sender takes its part of the machine.",
};
const CPU: Shown = Shown {
    metric: "cpu_seconds_per_gb",
    name: "processor time per GB",
    unit: Unit::plain("s/GB"),
    factor: 1.0,
    look_for: "Less is better: what a model costs, with any sender.",
};
const MEMORY: Shown = Shown {
    metric: "bytes_per_connection",
    name: "memory of a connection",
    unit: Unit::MEMORY,
    factor: 1.0,
    look_for: "Less is better; with few connections it is mostly buffers that all share.",
};
const OWN: Shown = Shown {
    metric: "anonymous_bytes",
    name: "own memory",
    unit: Unit::MEMORY,
    factor: 1.0,
    look_for: "A flat line holds any number of connections.",
};
const STORM: Shown = Shown {
    metric: "connections_per_second",
    name: "connections taken",
    unit: Unit::large("/s"),
    factor: 1.0,
    look_for: "More is better.",
};
const STORM_CPU: Shown = Shown {
    metric: "cpu_micros_per_connection",
    name: "processor time of a connection",
    unit: Unit::SECONDS,
    factor: 1e-6,
    look_for: "Less is better.",
};

/// Figures that only tables have.
const fn column(metric: &'static str, name: &'static str, unit: Unit) -> Shown {
    Shown { metric, name, unit, factor: 1.0, look_for: "" }
}
const SHARE: Shown = column("cpu_share_percent", "CPU", Unit::plain("%"));
const SENDER: Shown = column("sender_cpu_share_percent", "CPU of the sender", Unit::plain("%"));
const RECORDS: Shown = column("records_per_second", "records", Unit::large("/s"));
const SWITCHES: Shown = column("context_switches_per_mb", "switches per MB", Unit::plain(""));
const CALLS: Shown = column("system_calls_per_mb", "system calls per MB", Unit::plain(""));
const SWITCHES_S: Shown = column("context_switches_per_second", "switches", Unit::large("/s"));
const CALLS_S: Shown = column("system_calls_per_second", "system calls", Unit::large("/s"));
const PEAK: Shown = column("peak_bytes", "peak memory", Unit::MEMORY);
const THREADS: Shown = column("threads", "threads", Unit::plain(""));

/// The plots of a shape of this kind.
fn estimated(kind: Kind) -> &'static [Shown] {
    match kind {
        Kind::Throughput => &[CPU, RATE],
        Kind::Storm => &[STORM_CPU, STORM],
        Kind::Memory => &[MEMORY],
        Kind::Latency | Kind::Crowd | Kind::Slow => &[],
    }
}

/// The plots over the number of connections.
fn multiples(kind: Kind) -> &'static [Shown] {
    match kind {
        Kind::Throughput => &[CPU, RATE],
        Kind::Memory => &[OWN],
        Kind::Storm | Kind::Latency | Kind::Crowd | Kind::Slow => &[],
    }
}

/// The columns of a shape's table.
fn columns(kind: Kind) -> &'static [Shown] {
    match kind {
        Kind::Throughput => &[RATE, CPU, RECORDS, SHARE, SENDER, SWITCHES, CALLS, PEAK],
        Kind::Storm => &[STORM, STORM_CPU, SHARE, SENDER, SWITCHES_S, CALLS_S, PEAK],
        Kind::Memory => &[MEMORY, OWN, PEAK, THREADS, SHARE, SWITCHES_S, CALLS_S],
        Kind::Latency | Kind::Crowd | Kind::Slow => &[SHARE, SWITCHES_S, CALLS_S, PEAK],
    }
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Throughput => "Throughput",
        Kind::Latency => "Latency",
        Kind::Memory => "Memory of connections",
        Kind::Crowd => "One honest stream beside thin ones",
        Kind::Storm => "A storm of connections",
        Kind::Slow => "Slow batches",
    }
}

fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Throughput => {
            "The sender sends as fast as it is read. Rates go from the moment when all connections were made to the end of \
             the last one. On few cores the sender takes one of them, so processor time per GB says more than rates. \
             Processor time and system calls are counted from the same moment to the end of the process. The subject bare is one \
             thread that reads and counts line feeds, without an engine."
        }
        Kind::Latency => {
            "An open loop: each line carries the time at which it should have been sent; its latency ends when the whole \
             batch that holds it has been read. A batch interval alone makes half of the lines wait half of it and one in a \
             hundred 0.99 of it. That floor is taken off here."
        }
        Kind::Memory => {
            "All connections but one are idle. The memory of a connection is what the process has more than before the \
             first one, heap and stacks, divided by the connections; with few of them that is mostly buffers which all \
             share. What the kernel keeps for a socket is not in it."
        }
        Kind::Crowd => {
            "One stream sends in an open loop, and many connections beside it send a line now and then. The latency is that \
             of the one stream: what it suffers from the crowd."
        }
        Kind::Storm => "Connections are made, send a line and close, as fast as they are taken.",
        Kind::Slow => {
            "An open loop while now and then a batch takes much longer than its interval. There is no floor to take off: \
             these are whole latencies."
        }
    }
}

pub(super) fn sections(page: &mut Page, results: &Results, verdicts: Verdicts<'_>) {
    let mark = head::mark(results);
    for (kind, _) in Kind::ALL {
        let shapes: Vec<OfShape<'_>> =
            results.by_shape().into_iter().filter(|(shape, _)| shape.kind == kind).collect();
        if shapes.is_empty() {
            continue;
        }
        page.section(title(kind));
        page.paragraph(meaning(kind));
        small_multiples(page, &Part { kind, mark, shapes: &shapes });
        for (shape, cells) in &shapes {
            page.part(&shape.words());
            page.list("verdicts", &verdicts.sentences(shape));
            let mut figures = figures(shape, cells, mark);
            figures.extend(ratios(verdicts, shape, cells, mark));
            page.figures(&figures);
            page.table(&table(shape, cells));
        }
        if kind.is_timed() {
            let curves = shapes.iter().flat_map(|(shape, cells)| timed::curves(shape, cells));
            let missing = timed::too_few(&curves.collect::<Vec<_>>());
            missing.iter().for_each(|text| page.paragraph(text));
        }
    }
}

/// The shapes of a kind.
struct Part<'a> {
    kind: Kind,
    mark: Option<&'static str>,
    shapes: &'a [OfShape<'a>],
}

/// A plot over the connections for each record size, busy share and batch interval, all of a figure with one axis.
fn small_multiples(page: &mut Page, part: &Part<'_>) {
    for shown in multiples(part.kind) {
        let mut panels: Vec<(String, Vec<OfShape<'_>>)> = Vec::new();
        for (shape, cells) in part.shapes {
            let title = panel(shape);
            match panels.iter_mut().find(|(panel, _)| *panel == title) {
                Some((_, shapes)) => shapes.push((*shape, cells.clone())),
                None => panels.push((title, vec![(*shape, cells.clone())])),
            }
        }
        let medians = part.shapes.iter().flat_map(|(_, cells)| cells.iter());
        let medians = medians.filter_map(|cell| shown.summary(cell)).map(|found| found.median);
        let with = Span::of(medians);
        let figures: Vec<Figure> = panels
            .iter()
            .filter_map(|(title, shapes)| {
                shown.over_connections(shapes, &Plot { title, mark: part.mark, with })
            })
            .collect();
        page.figures(&figures);
    }
}

/// Everything of a shape but the connections, as the title of a panel.
fn panel(shape: &Shape) -> String {
    let Shape { connections, busy, record_bytes, batch_ms, .. } = *shape;
    let share = match (busy.saturating_mul(100)).checked_div(connections) {
        Some(share @ 0..100) if shape.kind != Kind::Memory => format!(", {share} % busy"),
        _ => String::new(),
    };
    format!("{record_bytes} B, batch {batch_ms} ms{share}")
}

/// A plot of ratios for each verdict on a shape.
fn ratios(verdicts: Verdicts<'_>, of: &Shape, cells: &[&Cell], mark: Option<&str>) -> Vec<Figure> {
    let title = of.words();
    let plot = Plot { title: &title, mark, with: None };
    verdicts.of(of).filter_map(|verdict| plots::ratios(verdict, cells, &plot)).collect()
}

fn figures(shape: &Shape, cells: &[&Cell], mark: Option<&'static str>) -> Vec<Figure> {
    let title = shape.words();
    let plot = Plot { title: &title, mark, with: None };
    let mut figures: Vec<Figure> =
        estimated(shape.kind).iter().filter_map(|shown| shown.estimates(cells, &plot)).collect();
    if shape.kind.is_timed() {
        let curves = timed::curves(shape, cells);
        if !curves.is_empty() {
            figures.push(timed::percentiles(shape, &curves, &plot));
        }
        figures.extend(timed::stages(cells, &plot));
    }
    figures
}

/// The medians of a shape.
fn table(shape: &Shape, cells: &[&Cell]) -> Table {
    let shown: Vec<&Shown> = columns(shape.kind)
        .iter()
        .filter(|shown| cells.iter().any(|cell| shown.summary(cell).is_some()))
        .collect();
    let row = |cell: &&Cell| {
        let value = |shown: &&Shown| {
            shown.summary(cell).map_or("–".to_owned(), |found| shown.unit.shown(found.median))
        };
        let runs = cell.done().count().to_string();
        let first = [cell.subject.label(), runs].into_iter();
        first.chain(shown.iter().map(value)).collect()
    };
    let heads = shown.iter().map(|shown| shown.name.to_owned());
    Table {
        name: format!("Medians, {}", shape.words()),
        head: ["model", "runs"].map(str::to_owned).into_iter().chain(heads).collect(),
        rows: cells.iter().map(row).collect(),
    }
}
