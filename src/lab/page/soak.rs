//! The page of `compare --soak`: each figure of the receiver second by second, with its slope and what it means. Pure.

use super::head;
use super::looks::{capital, look};
use crate::lab::results::{Cell, Results};
use crate::lab::soak::trend::{self, Series, Trend};
use crate::page::{
    Axis, Figure, Line, Lines, Page, Point, Spacing, Span, Stretch, Table, Unit, Words,
};
use crate::settings::units::as_f64;

/// Points of a plot, and rows of the table beside it.
const BINS: usize = 100;
const ROWS: usize = 10;

pub(super) fn sections(page: &mut Page, results: &Results) {
    let mark = head::mark(results);
    for cell in &results.cells {
        let name = cell.subject.label();
        page.section(&format!("The receiver, {name}"));
        page.paragraph(
            "A word count at a part of the rate that is sustained. Slopes are those of a line of least squares through the \
             means of bins, with the warm-up left out, and their intervals hold in 95 of 100 cases.",
        );
        let found = trend::trends(cell);
        page.list("verdicts", &found.iter().map(Trend::sentence).collect::<Vec<_>>());
        let figures = found.iter().filter(|it| it.series.points.len() > 1);
        let figures: Vec<Figure> = figures.map(|it| figure(it, cell, mark)).collect();
        page.figures(&figures);
        page.table(&table(&found, &name));
    }
}

/// Neighbouring seconds, with their mean.
struct Bin(Stretch, f64);

impl Bin {
    fn of(points: &[(f64, f64)]) -> Bin {
        let count = as_f64(points.len().max(1) as u64);
        let values = || points.iter().map(|point| point.1);
        let Span { low, high } = Span::of(values()).unwrap_or(Span { low: 0.0, high: 0.0 });
        let at = points.iter().map(|point| point.0).sum::<f64>() / count;
        Bin(Stretch { at, low, high }, values().sum::<f64>() / count)
    }
}

fn figure(trend: &Trend, cell: &Cell, mark: Option<&str>) -> Figure {
    let Series { name, unit, points, .. } = &trend.series;
    let label = cell.subject.label();
    let bins: Vec<Bin> = points.chunks(points.len().div_ceil(BINS).max(1)).map(Bin::of).collect();
    let line = Line {
        name: label.clone(),
        look: look(&[cell], cell),
        points: bins.iter().map(|bin| Point::new(bin.0.at, bin.1)).collect(),
        band: bins.iter().map(|bin| bin.0).collect(),
    };
    let rows = bins.iter().step_by(bins.len().div_ceil(ROWS).max(1)).map(|bin| bin.0.at);
    Lines {
        words: Words {
            title: format!("{}, {label}", capital(name)),
            description: format!("The {name} of the receiver, second by second. {}", trend.sentence()),
            mark: mark.map(str::to_owned),
        },
        caption: format!(
            "Look for a line that rises all the way; the band goes from the least to the greatest second. {}",
            trend.sentence()
        ),
        x: Axis::new("time from the start", Unit::plain("s"), Spacing::FromZero),
        y: Axis::new(name, *unit, Spacing::FromZero),
        lines: vec![line],
        notes: Vec::new(),
        rows: rows.collect(),
    }
    .figure()
}

fn table(found: &[Trend], name: &str) -> Table {
    let row = |trend: &Trend| {
        let Trend { series, line, judgement } = trend;
        let shown = |value: f64| series.unit.shown(value);
        let mut row = vec![series.name.to_owned()];
        match line {
            Some(line) => {
                row.extend([
                    shown(line.mean),
                    shown(line.per_hour()),
                    shown(line.error_per_hour()),
                ]);
            }
            None => row.extend(["–"; 3].map(str::to_owned)),
        }
        row.push(judgement.words().to_owned());
        row
    };
    Table {
        name: format!("Slopes, {name}"),
        head: ["figure", "mean", "slope per hour", "± 95 %", "judgement"]
            .map(str::to_owned)
            .to_vec(),
        rows: found.iter().map(row).collect(),
    }
}
