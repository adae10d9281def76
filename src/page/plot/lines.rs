//! Lines: a series for each subject, with its spread as a band, markers along it, and notes on single points. Pure; any
//! thread.

use super::{
    ABOVE, AXIS_BELOW, Entry, Figure, Frame, LINE, WIDTH, draw_legend, draw_mark, fitting,
};
use super::{legend_height, widest};
use crate::page::axis::{Axis, Scale, Spacing, percentile};
use crate::page::look::Look;
use crate::page::markup::Table;
use crate::page::svg::{Anchor, Point, Svg, Words, area};
use crate::settings::units::as_f64;

/// The height of the frame.
const HEIGHT: f64 = 190.0;

/// A band is drawn up to this many times the greatest middle value, so that one disturbed run does not flatten the rest.
const BAND_MAX: f64 = 3.0;

/// Markers along a line.
const MARKERS: usize = 6;

/// The room of a note, whose letters are smaller than others.
const NOTE_ROOM: f64 = (WIDTH - 20.0) * 1.09;

/// The values between which runs lie at one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stretch {
    pub(crate) at: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// A series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) look: Look,
    pub(crate) points: Vec<Point>,
    pub(crate) band: Vec<Stretch>,
}

/// A remark on a value; where it lies beyond the axis, a mark at the edge stands for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    pub(crate) look: Look,
    pub(crate) at: Point,
    pub(crate) text: String,
}

/// A plot of lines.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub(crate) words: Words,
    pub(crate) caption: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    pub(crate) notes: Vec<Note>,
    /// The places along the horizontal axis that the table has.
    pub(crate) rows: Vec<f64>,
}

impl Lines {
    pub(crate) fn figure(self) -> Figure {
        let (svg, table) = (self.draw(), self.table());
        Figure { words: self.words, caption: self.caption, svg, table }
    }

    fn draw(&self) -> Svg {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let bands = || self.lines.iter().flat_map(|line| &line.band);
        let x = self.x.scale(points().map(|point| point.x).chain(bands().map(|band| band.at)));
        let heights = points().map(|point| point.y);
        let most = heights.clone().fold(0.0, f64::max) * BAND_MAX;
        let ends = bands().flat_map(|band| [band.low, band.high.min(most)]);
        let y = self.y.scale(heights.chain(ends));
        let left = widest(y.ticks.iter().map(|tick| tick.text.as_str())) + 9.0;
        let last = x.ticks.last().map_or("", |tick| tick.text.as_str());
        let right = WIDTH - (widest([last]) / 2.0).max(8.0) - 2.0;
        let frame = Frame { left, right, top: ABOVE, bottom: ABOVE + HEIGHT };
        let entries: Vec<Entry<'_>> = self.entries().collect();
        let below = frame.bottom + AXIS_BELOW;
        let notes = LINE * as_f64(self.notes.len() as u64);
        let mut svg = Svg::new(WIDTH, below + legend_height(true, &entries) + notes + 4.0);
        draw_mark(&mut svg, &self.words);
        frame.draw_x(&mut svg, &x);
        frame.draw_y(&mut svg, &y);
        let place = Place { frame, x: &x, y: &y };
        self.lines.iter().for_each(|line| place.band(&mut svg, line));
        self.lines.iter().for_each(|line| place.line(&mut svg, line));
        self.notes.iter().for_each(|note| place.note(&mut svg, note));
        let mut under = below + draw_legend(&mut svg, below, true, &entries);
        for Note { look, text, .. } in &self.notes {
            under += LINE;
            let at = Point::new(8.0, under - LINE / 2.0);
            svg.path(&format!("dot {}", look.class()), &look.marker(at, 3.5));
            svg.text(
                "note",
                Anchor::Start,
                Point::new(18.0, under - 4.0),
                &fitting(text, NOTE_ROOM),
            );
        }
        svg
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.lines.iter().map(|line| Entry { name: &line.name, look: line.look })
    }

    fn table(&self) -> Table {
        let names = self.lines.iter().map(|line| line.name.clone());
        let head = std::iter::once(self.x.name.clone()).chain(names).collect();
        let place = |at: f64| match self.x.spacing {
            Spacing::Percentiles => percentile(at),
            Spacing::Log => self.x.unit.shown_round(at),
            Spacing::FromZero | Spacing::Even => self.x.unit.shown(at),
        };
        let row = |at: &f64| {
            let values = self.lines.iter().map(|line| line.text_at(*at, &self.y));
            std::iter::once(place(*at)).chain(values).collect()
        };
        let mut rows: Vec<Vec<String>> = self.rows.iter().map(row).collect();
        for note in &self.notes {
            let mut row = vec!["note".to_owned(), note.text.clone()];
            row.resize(self.lines.len().max(1) + 1, String::new());
            rows.push(row);
        }
        Table { name: self.words.title.clone(), head, rows }
    }
}

impl Line {
    /// The value at the point nearest to a place, with the ends of its spread; a dash beyond the line's ends.
    fn text_at(&self, at: f64, axis: &Axis) -> String {
        let reach = |point: &&Point| (point.x - at).abs() <= at.abs() * 0.06 + 1e-9;
        let near = self.points.iter().filter(reach);
        let near = near.min_by(|a, b| (a.x - at).abs().total_cmp(&(b.x - at).abs()));
        let Some(point) = near else { return "–".to_owned() };
        let band = self.band.iter().find(|band| (band.at - point.x).abs() < 1e-9);
        let text = axis.unit.shown(point.y);
        match band {
            Some(Stretch { low, high, .. }) if high > low => {
                format!("{text} ({} to {})", axis.unit.shown(*low), axis.unit.shown(*high))
            }
            _ => text,
        }
    }
}

/// The frame of a plot with its two scales.
struct Place<'a> {
    frame: Frame,
    x: &'a Scale,
    y: &'a Scale,
}

impl Place<'_> {
    /// The place of a value, within the frame.
    fn of(&self, point: Point) -> Point {
        let Frame { left, right, top, bottom } = self.frame;
        let x = self.frame.x(self.x, point.x).clamp(left, right);
        Point { x, y: self.frame.y(self.y, point.y).clamp(top, bottom) }
    }

    fn band(&self, svg: &mut Svg, line: &Line) {
        let edge = |of: fn(&Stretch) -> f64| {
            let point = |it: &Stretch| self.of(Point::new(it.at, of(it)));
            line.band.iter().map(point).collect::<Vec<_>>()
        };
        let (upper, lower) = (edge(|it| it.high), edge(|it| it.low));
        if upper.len() > 1 {
            svg.path(&format!("band {}", line.look.class()), &area(&upper, &lower));
        }
    }

    fn line(&self, svg: &mut Svg, line: &Line) {
        let class = line.look.class();
        let points: Vec<Point> = line.points.iter().map(|point| self.of(*point)).collect();
        svg.polyline(&format!("line {class}"), &points);
        let step = points.len().div_ceil(MARKERS).max(1);
        for point in points.iter().step_by(step) {
            svg.path(&format!("dot {class}"), &line.look.marker(*point, 3.5));
        }
    }

    fn note(&self, svg: &mut Svg, note: &Note) {
        let at = self.of(note.at);
        let class = note.look.class();
        if self.y.place(note.at.y) > 1.0 {
            let Point { x, y } = at;
            let arrow = format!(
                "M{:.1} {:.1}L{x:.1} {:.1}L{:.1} {:.1}z",
                x - 5.0,
                y + 2.0,
                y - 7.0,
                x + 5.0,
                y + 2.0
            );
            svg.path(&format!("dot {class}"), &arrow);
        } else {
            svg.path(&format!("dot {class}"), &note.look.marker(at, 3.5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::unit::Unit;

    fn plot() -> Lines {
        let points = [(1.0, 0.001), (10.0, 0.002), (100.0, 0.004)];
        let band = |(at, value): (f64, f64)| Stretch { at, low: value * 0.5, high: value * 2.0 };
        let line = Line {
            name: "nio".to_owned(),
            look: Look::new(3),
            points: points.map(|(x, y)| Point::new(x, y)).to_vec(),
            band: points.map(band).to_vec(),
        };
        Lines {
            words: Words::default(),
            caption: String::new(),
            x: Axis::new("percentile", Unit::plain(""), Spacing::Percentiles),
            y: Axis::new("latency", Unit::SECONDS, Spacing::FromZero),
            lines: vec![line],
            notes: vec![Note {
                look: Look::new(3),
                at: Point::new(100.0, 0.5),
                text: "nio: 500 ms at most".to_owned(),
            }],
            rows: vec![10.0, 1e4],
        }
    }

    #[test]
    fn the_table_has_what_the_drawing_has() {
        let figure = plot().figure();
        let rows: Vec<String> =
            figure.table.rows.iter().map(|row| row.join("; ").replace('\u{a0}', " ")).collect();
        assert_eq!(
            rows,
            ["90 %; 2.00 ms (1.00 ms to 4.00 ms)", "99.99 %; –", "note; nio: 500 ms at most"]
        );
        let html = figure.html("p1");
        for expected in ["band c3", "line c3", "latency (ms)", "500 ms at most", "percentile"] {
            assert!(html.contains(expected), "{expected}:\n{html}");
        }
    }

    #[test]
    fn nothing_makes_an_empty_frame() {
        let plot = Lines { lines: Vec::new(), notes: Vec::new(), ..plot() };
        assert!(plot.figure().html("p1").contains("<svg"));
    }
}
