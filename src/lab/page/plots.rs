//! The plots of single figures: a row for each subject, and lines over the number of connections, small and beside each
//! other. Pure.

use super::looks::{Plot, capital, look};
use crate::lab::interval::Interval;
use crate::lab::metrics::by_pair;
use crate::lab::results::Cell;
use crate::lab::shape::Shape;
use crate::lab::stats::Summary;
use crate::lab::verdict::{Comparison, Decision, Verdict};
use crate::page::{
    Axis, Estimate, Estimates, Figure, Line, Lines, Point, Spacing, Stretch, Unit, Words,
};
use crate::settings::units::as_f64;

/// A figure as it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    /// Its name among the metrics.
    pub(super) metric: &'static str,
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    /// The metric's unit in that of the plot.
    pub(super) factor: f64,
    /// The sentence that says what to look for.
    pub(super) look_for: &'static str,
}

impl Shown {
    /// The values of the runs of a cell.
    pub(super) fn values(&self, cell: &Cell) -> Vec<f64> {
        by_pair(self.metric, cell).into_iter().map(|(_, value)| value * self.factor).collect()
    }

    pub(super) fn summary(&self, cell: &Cell) -> Option<Summary> {
        Summary::of(self.values(cell))
    }

    /// A row for each cell of a shape; `None` if no cell has the figure.
    pub(super) fn estimates(&self, cells: &[&Cell], plot: &Plot<'_>) -> Option<Figure> {
        let row = |cell: &&Cell| {
            let Summary { median, min, max, .. } = self.summary(cell)?;
            let (name, look) = (cell.subject.label(), look(cells, cell));
            Some(Estimate {
                name,
                look,
                middle: median,
                low: min,
                high: max,
                runs: self.values(cell),
            })
        };
        let rows: Vec<Estimate> = cells.iter().filter_map(row).collect();
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        let mut axis = Axis::new(self.name, self.unit, Spacing::FromZero);
        axis.with = plot.with;
        let estimates = Estimates {
            words: Words {
                title: format!("{}: {}", capital(self.name), plot.title),
                description: format!(
                    "The {} of {}, the median of runs with every run.",
                    self.name,
                    names.join(", ")
                ),
                mark: plot.mark.map(str::to_owned),
            },
            caption: format!(
                "{} Markers are medians, thin strokes single runs, and the bar goes from the least to the greatest.",
                self.look_for
            ),
            axis,
            interval: "least to greatest run",
            reference: None,
            rows,
        };
        (!estimates.rows.is_empty()).then(|| estimates.figure())
    }

    /// A line for each subject over the connections of these shapes; `None` with fewer than two numbers of them.
    pub(super) fn over_connections(
        &self,
        shapes: &[OfShape<'_>],
        plot: &Plot<'_>,
    ) -> Option<Figure> {
        let mut lines: Vec<Line> = Vec::new();
        for (shape, cells) in shapes {
            for cell in cells {
                let Some(found) = self.summary(cell) else { continue };
                let name = cell.subject.label();
                let look = look(cells, cell);
                let place = lines.iter().position(|line| line.name == name).unwrap_or(lines.len());
                if place == lines.len() {
                    lines.push(Line { name, look, points: Vec::new(), band: Vec::new() });
                }
                let at = as_f64(shape.connections);
                lines[place].points.push(Point::new(at, found.median));
                lines[place].band.push(Stretch { at, low: found.min, high: found.max });
            }
        }
        for line in &mut lines {
            line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
            line.band.sort_by(|a, b| a.at.total_cmp(&b.at));
        }
        let mut rows: Vec<f64> =
            shapes.iter().map(|(shape, _)| as_f64(shape.connections)).collect();
        rows.sort_by(f64::total_cmp);
        rows.dedup();
        let mut y = Axis::new(self.name, self.unit, Spacing::FromZero);
        y.with = plot.with;
        let lines = Lines {
            words: Words {
                title: format!("{}: {}", capital(self.name), plot.title),
                description: format!(
                    "The {} of each subject against the number of connections.",
                    self.name
                ),
                mark: plot.mark.map(str::to_owned),
            },
            caption: format!(
                "{} A line that bends shows where connections begin to cost; the band goes from the least to the greatest run.",
                self.look_for
            ),
            x: Axis::new("connections", Unit::counted(""), Spacing::Log),
            y,
            lines,
            notes: Vec::new(),
            rows,
        };
        (lines.rows.len() > 1 && !lines.lines.is_empty()).then(|| lines.figure())
    }
}

/// The ratios of a verdict: every other subject over the best one, with intervals. `None` if nothing was decided.
pub(super) fn ratios(verdict: &Verdict, cells: &[&Cell], plot: &Plot<'_>) -> Option<Figure> {
    let best = verdict.comparisons.first()?.better.clone();
    let row = |it: &Comparison| {
        let cell = cells.iter().find(|cell| cell.subject.label() == it.worse)?;
        let Interval { low, middle, high } = it.ratio;
        let look = look(cells, cell);
        Some(Estimate { name: it.worse.clone(), look, middle, low, high, runs: Vec::new() })
    };
    let with_best = verdict.comparisons.iter().filter(|it| it.better == best);
    let estimates = Estimates {
        words: Words {
            title: format!("{} over that of {best}: {}", capital(verdict.judged.words), plot.title),
            description: format!("Ratios to {best} with their intervals. {}", verdict.sentence),
            mark: plot.mark.map(str::to_owned),
        },
        caption: format!(
            "Each interval is that of the ratio of a subject to {best} over pairs of runs. One that does not reach the dashed \
             line at 1 is a difference that this run shows."
        ),
        axis: Axis::new("ratio", Unit::plain("×"), Spacing::Even),
        interval: "interval of the ratio",
        reference: Some(1.0),
        rows: with_best.filter_map(row).collect(),
    };
    let decided = verdict.decision != Decision::Undecided && !estimates.rows.is_empty();
    decided.then(|| estimates.figure())
}

/// A shape with its cells.
pub(super) type OfShape<'a> = (Shape, Vec<&'a Cell>);
