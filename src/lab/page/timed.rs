//! The plots of latencies: percentiles over the floor of the batch interval with their spread, and the stages of batches.
//! Pure.

use super::excess::{BEYOND_MIN, Excess, ONE_IN_MAX};
use super::looks::{Plot, capital, look};
use crate::lab::protocol::{QUANTILES, Spread};
use crate::lab::results::{Cell, Figures, Stages};
use crate::lab::shape::{Kind, Shape};
use crate::lab::stats::median;
use crate::metrics::STAGES;
use crate::page::{Axis, Bar, Bars, Figure, Group, Line, Lines, Look, Note, Point, Spacing};
use crate::page::{Span, Table, Unit, Words, percentile};
use crate::settings::units::as_f64;

/// The percentiles of tables: 100 stands for the 99th, beyond which one sample in 100 lies.
const ROWS: [f64; 5] = [2.0, 10.0, 100.0, 1e3, ONE_IN_MAX];

/// Nanoseconds of a second.
const NANOS: f64 = 1e9;

/// A cell with its latencies.
pub(super) struct Curve<'a> {
    cell: &'a Cell,
    look: Look,
    excess: Excess,
}

/// The cells of a shape that have latencies.
pub(super) fn curves<'a>(shape: &Shape, cells: &[&'a Cell]) -> Vec<Curve<'a>> {
    let interval = floor(shape);
    let curve = |cell: &&'a Cell| {
        let excess = Excess::of(cell, interval)?;
        Some(Curve { cell, look: look(cells, cell), excess })
    };
    cells.iter().filter_map(curve).collect()
}

/// The interval that is taken off, in seconds. Where batches are slow on purpose there is no floor to speak of.
fn floor(shape: &Shape) -> f64 {
    if shape.kind == Kind::Slow { 0.0 } else { as_f64(shape.batch_ms) / 1e3 }
}

/// What latencies of this kind are called.
fn measured(shape: &Shape) -> &'static str {
    if shape.kind == Kind::Slow { "latency" } else { "latency over the floor" }
}

/// The values of curves that beside each other have the same axis; the furthest percentiles of one are not all there is.
pub(super) fn span(curves: &[Curve<'_>]) -> Option<Span> {
    Span::of(curves.iter().flat_map(|it| it.excess.points()).map(|point| point.y))
}

/// The percentiles of a shape.
pub(super) fn percentiles(shape: &Shape, curves: &[Curve<'_>], plot: &Plot<'_>) -> Figure {
    let line = |it: &Curve<'_>| Line {
        name: it.cell.subject.label(),
        look: it.look,
        points: it.excess.points(),
        band: it.excess.band(),
    };
    let mut y = Axis::new(measured(shape), Unit::SECONDS, Spacing::FromZero);
    y.with = plot.with;
    let lines: Vec<Line> = curves.iter().map(line).collect();
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let title = format!("{}: {}", capital(measured(shape)), plot.title);
    Lines {
        words: Words {
            description: format!(
                "Curves of {} by percentile, from the median to at most 99.99 %, for {}.",
                measured(shape),
                names.join(", ")
            ),
            title,
            mark: plot.mark.map(str::to_owned),
        },
        caption: "A lower curve waits less; a curve that bends up at the right has rare long waits. The band goes from the \
                  least to the greatest run, at its lower edge less the time by which the sender itself was late. Where \
                  bands overlap, the runs do not tell the curves apart. A slow batch took 1 ms more than the median one; it was \
                  the machine if a bare timer was late, too."
            .to_owned(),
        x: Axis::new("percentile of lines", Unit::plain(""), Spacing::Percentiles),
        y,
        lines,
        notes: curves.iter().map(note).collect(),
        rows: ROWS.to_vec(),
    }
    .figure()
}

/// The longest wait, with what is known of its cause.
fn note(curve: &Curve<'_>) -> Note {
    let longest = curve.excess.longest();
    let stages = || curve.cell.done().filter_map(|(_, figures)| figures.stages.as_ref());
    let slow: u64 = stages().map(|it| it.slow.by_stage.iter().sum::<u64>()).sum();
    let machine: u64 = stages().map(|it| it.slow.machine).sum();
    let batches: u64 = stages().map(|it| it.batches).sum();
    let mut text =
        format!("{}: longest {}", curve.cell.subject.label(), Unit::SECONDS.shown(longest));
    if batches > 0 {
        text += &format!("; {slow} slow batches ({machine}: machine)");
    }
    Note { look: curve.look, at: Point::new(ONE_IN_MAX, longest), text }
}

/// The table of a shape's percentiles: the same figures as text.
pub(super) fn table(shape: &Shape, curves: &[Curve<'_>]) -> Table {
    let percentiles = ROWS.map(percentile);
    let ends = ["longest", "lines timed", "sender late", "ticks lost"].map(str::to_owned);
    let head = std::iter::once("model".to_owned()).chain(percentiles).chain(ends);
    Table {
        name: format!("{}, {}", capital(measured(shape)), shape.words()),
        head: head.collect(),
        rows: curves.iter().map(row).collect(),
    }
}

fn row(curve: &Curve<'_>) -> Vec<String> {
    let Curve { cell, excess, .. } = curve;
    let shown = |value| Unit::SECONDS.shown(value);
    let at = |one_in: &f64| {
        if excess.reaches(*one_in) { shown(excess.at(*one_in)) } else { "too few".to_owned() }
    };
    let lost: u64 =
        cell.done().filter_map(|(_, it)| it.stages.as_ref()).map(|it| it.ticks_lost).sum();
    let mut row = vec![cell.subject.label()];
    row.extend(ROWS.iter().map(at));
    row.extend([shown(excess.longest()), excess.lines().to_string()]);
    row.extend([shown(excess.sender_late()), lost.to_string()]);
    row
}

/// The sentence that explains an empty place of the tables, if there is one.
pub(super) fn too_few(curves: &[Curve<'_>]) -> Option<String> {
    let missing = curves.iter().any(|it| ROWS.iter().any(|one_in| !it.excess.reaches(*one_in)));
    missing.then(|| {
        format!(
            "\"Too few\": fewer than {BEYOND_MIN:.0} lines lie beyond that percentile, so it is not shown. Longer runs \
             (--latency-seconds), more of them (--repeats) or a higher rate (--rate) give more."
        )
    })
}

/// The stages of batches after the tick, and the lateness of timers; `None` if they were not timed.
pub(super) fn stages(cells: &[&Cell], plot: &Plot<'_>) -> Option<Figure> {
    let names = STAGES.iter().skip(1).map(|(_, name)| *name);
    let of_stages = names.enumerate().map(|(at, name)| {
        let of = move |it: &Stages| it.times.get(at + 1).copied().unwrap_or_default();
        group(name, cells, &of)
    });
    let mut groups: Vec<Group> = of_stages.collect();
    groups.push(group("the tick is late by", cells, &|it| it.ticks));
    groups.push(group("a bare timer is late by", cells, &|it| it.control));
    groups.retain(|group| group.bars.iter().any(|bar| bar.reach > 0.0));
    let bars = Bars {
        words: Words {
            title: format!("Stages of a batch: {}", plot.title),
            description: "Bars of the time that each stage of a batch takes after its tick, model by model.".to_owned(),
            mark: plot.mark.map(str::to_owned),
        },
        caption: "The bar is the median batch, the thin line goes to the 99th percentile. The longest bars are where the \
                  time over the floor goes; a late bare timer, which does nothing, is the machine's part."
            .to_owned(),
        axis: Axis::new("time", Unit::SECONDS, Spacing::FromZero),
        length: "p50",
        reach: "p99",
        groups,
    };
    (!bars.groups.is_empty()).then(|| bars.figure())
}

fn group(name: &str, cells: &[&Cell], of: &dyn Fn(&Stages) -> Spread) -> Group {
    let bar = |cell: &&Cell| {
        let run = |figures: &Figures| figures.stages.as_ref().map(of);
        let runs: Vec<Spread> = cell.done().filter_map(|(_, figures)| run(figures)).collect();
        let seconds = |quantile: usize| {
            let values: Vec<f64> = runs.iter().map(|it| as_f64(it.at[quantile]) / NANOS).collect();
            median(&values)
        };
        (!runs.is_empty()).then(|| Bar {
            name: cell.subject.label(),
            look: look(cells, cell),
            length: seconds(P50),
            reach: seconds(P99),
        })
    };
    Group { name: name.to_owned(), bars: cells.iter().filter_map(bar).collect() }
}

/// Places in [`QUANTILES`].
const P50: usize = 0;
const P99: usize = 1;
const _: () = assert!(QUANTILES[P50].1 == 0.5 && QUANTILES[P99].1 == 0.99);
