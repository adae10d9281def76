//! Estimates with intervals: a row for each subject, its single runs as small ticks, the interval as a bar, the middle as
//! the subject's marker and as text. Pure; any thread.

use super::{ABOVE, AXIS_BELOW, Figure, Frame, WIDTH, draw_mark, fitting, widest};
use crate::page::axis::{Axis, Scale};
use crate::page::look::Look;
use crate::page::markup::Table;
use crate::page::svg::{Anchor, Point, Svg, Words};
use crate::settings::units::as_f64;

/// The height of a row.
const ROW: f64 = 26.0;

/// The most room for names, and for the figures at the right.
const NAMES_MAX: f64 = 120.0;
const FIGURES_MAX: f64 = 105.0;

/// A subject's figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) name: String,
    pub(crate) look: Look,
    pub(crate) middle: f64,
    /// The ends of the interval; both are the middle if there is none.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Single runs.
    pub(crate) runs: Vec<f64>,
}

/// A plot of estimates.
#[derive(Clone, Debug)]
pub(crate) struct Estimates {
    pub(crate) words: Words,
    pub(crate) caption: String,
    pub(crate) axis: Axis,
    /// The interval's name in the table, such as `95 % interval`.
    pub(crate) interval: &'static str,
    /// A value that all are compared with.
    pub(crate) reference: Option<f64>,
    pub(crate) rows: Vec<Estimate>,
}

impl Estimates {
    pub(crate) fn figure(self) -> Figure {
        let (svg, table) = (self.draw(), self.table());
        Figure { words: self.words, caption: self.caption, svg, table }
    }

    fn draw(&self) -> Svg {
        let values = self.rows.iter().flat_map(|row| row.runs.iter().chain([&row.low, &row.high]));
        let scale = self.axis.scale(values.chain(&self.reference).copied());
        let texts: Vec<String> =
            self.rows.iter().map(|row| self.axis.unit.shown(row.middle)).collect();
        let names = widest(self.rows.iter().map(|row| row.name.as_str())).min(NAMES_MAX);
        let figures = widest(texts.iter().map(String::as_str)).min(FIGURES_MAX);
        let top = if self.words.mark.is_some() { ABOVE } else { 6.0 };
        let bottom = ROW.mul_add(count(self.rows.len()), top);
        let frame = Frame { left: names + 14.0, right: WIDTH - figures - 12.0, top, bottom };
        let mut svg = Svg::new(WIDTH, bottom + AXIS_BELOW);
        draw_mark(&mut svg, &self.words);
        frame.draw_x(&mut svg, &scale);
        if let Some(reference) = self.reference {
            let x = frame.x(&scale, reference);
            svg.line("reference", Point::new(x, top), Point::new(x, bottom));
        }
        for (at, (row, text)) in self.rows.iter().zip(&texts).enumerate() {
            let y = ROW.mul_add(count(at) + 0.5, top);
            row.draw(&mut svg, &Place { frame, scale: &scale, y });
            let name = fitting(&row.name, NAMES_MAX);
            svg.text("name", Anchor::End, Point::new(frame.left - 10.0, y + 4.0), &name);
            let figure = fitting(text, FIGURES_MAX);
            svg.text("figure", Anchor::End, Point::new(WIDTH - 2.0, y + 4.0), &figure);
        }
        svg
    }

    fn table(&self) -> Table {
        let shown = |value| self.axis.unit.shown(value);
        let row = |row: &Estimate| {
            let runs: Vec<String> = row.runs.iter().map(|value| shown(*value)).collect();
            let interval = format!("{} to {}", shown(row.low), shown(row.high));
            vec![row.name.clone(), shown(row.middle), interval, runs.join(", ")]
        };
        let mut head = vec!["", self.axis.name.as_str(), self.interval, "single runs"];
        let mut rows: Vec<Vec<String>> = self.rows.iter().map(row).collect();
        if self.rows.iter().all(|row| row.runs.is_empty()) {
            head.pop();
            rows.iter_mut().for_each(|row| row.truncate(head.len()));
        }
        let head = head.into_iter().map(str::to_owned).collect();
        Table { name: self.words.title.clone(), head, rows }
    }
}

/// The place of a row in its plot.
struct Place<'a> {
    frame: Frame,
    scale: &'a Scale,
    y: f64,
}

impl Estimate {
    fn draw(&self, svg: &mut Svg, place: &Place<'_>) {
        let Place { frame, scale, y } = *place;
        let class = self.look.class();
        for run in &self.runs {
            let x = frame.x(scale, *run);
            svg.line(&format!("run {class}"), Point::new(x, y - 8.0), Point::new(x, y + 8.0));
        }
        let (low, high) = (frame.x(scale, self.low), frame.x(scale, self.high));
        svg.bar(&format!("interval {class}"), Point::new(low, y - 2.5), high - low, 5.0);
        let middle = Point::new(frame.x(scale, self.middle), y);
        svg.path(&format!("dot {class}"), &self.look.marker(middle, 5.0));
    }
}

fn count(rows: usize) -> f64 {
    as_f64(rows as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::axis::Spacing;
    use crate::page::unit::Unit;

    #[test]
    fn the_drawing_and_the_table_have_every_row() {
        let row = |name: &str, place, middle: f64| Estimate {
            name: name.to_owned(),
            look: Look::new(place),
            middle,
            low: middle * 0.9,
            high: middle * 1.1,
            runs: vec![middle * 0.95, middle],
        };
        let plot = Estimates {
            words: Words { mark: Some("busy machine".to_owned()), ..Words::default() },
            caption: String::new(),
            axis: Axis::new("rate", Unit::large("B/s"), Spacing::FromZero),
            interval: "95 % interval",
            reference: Some(1e8),
            rows: vec![row("nio", 3, 4e8), row("a name that has no room in the plot", 1, 2e8)],
        };
        let figure = plot.figure();
        assert_eq!(figure.table.rows.len(), 2);
        assert_eq!(
            figure.table.rows[0][1..3].join("; ").replace('\u{a0}', " "),
            "400 MB/s; 360 MB/s to 440 MB/s"
        );
        let html = figure.html("p1");
        for expected in ["dot c3", "run c1", "reference", "busy machine", "rate (MB/s)", "…</text>"]
        {
            assert!(html.contains(expected), "{expected}:\n{html}");
        }
    }
}
