//! Bars: groups of subjects beside each other, each bar with its end at the subject's marker, a thin line on to a second
//! value, and both as text. Pure; any thread.

use super::{
    ABOVE, AXIS_BELOW, Entry, Figure, Frame, LINE, WIDTH, draw_legend, draw_mark, fitting,
};
use super::{legend_height, widest};
use crate::page::axis::Axis;
use crate::page::look::Look;
use crate::page::markup::Table;
use crate::page::svg::{Anchor, Point, Svg, Words};
use crate::settings::units::as_f64;

/// The height of a bar with its distance to the next one, and the height above each group.
const BAR: f64 = 14.0;
const GAP: f64 = 6.0;

/// A subject's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) look: Look,
    pub(crate) length: f64,
    /// The value at the end of the thin line.
    pub(crate) reach: f64,
}

/// Bars under a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

/// A plot of bars.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    pub(crate) words: Words,
    pub(crate) caption: String,
    pub(crate) axis: Axis,
    /// The meanings of a bar's length and of its thin line's end, such as `p50` and `p99`.
    pub(crate) length: &'static str,
    pub(crate) reach: &'static str,
    pub(crate) groups: Vec<Group>,
}

impl Bars {
    pub(crate) fn figure(self) -> Figure {
        let (svg, table) = (self.draw(), self.table());
        Figure { words: self.words, caption: self.caption, svg, table }
    }

    fn draw(&self) -> Svg {
        let bars = || self.groups.iter().flat_map(|group| &group.bars);
        let scale = self.axis.scale(bars().flat_map(|bar| [bar.length, bar.reach]));
        let texts =
            widest(bars().map(|bar| self.text(bar)).collect::<Vec<_>>().iter().map(String::as_str));
        let top = if self.words.mark.is_some() { ABOVE } else { 4.0 };
        let height: f64 = self.groups.iter().map(Group::height).sum();
        let frame =
            Frame { left: 10.0, right: WIDTH - texts.min(150.0) - 10.0, top, bottom: top + height };
        let entries = self.entries();
        let below = frame.bottom + AXIS_BELOW;
        let mut svg = Svg::new(WIDTH, below + legend_height(false, &entries) + 4.0);
        draw_mark(&mut svg, &self.words);
        frame.draw_x(&mut svg, &scale);
        let mut y = top;
        for group in &self.groups {
            let name = fitting(&group.name, WIDTH - 10.0);
            svg.text("group", Anchor::Start, Point::new(2.0, y + GAP + 9.0), &name);
            y += LINE + GAP;
            for bar in &group.bars {
                let (start, end) = (frame.x(&scale, 0.0), frame.x(&scale, bar.length));
                let (middle, class) = (y + BAR / 2.0, bar.look.class());
                svg.bar(
                    &format!("fill {class}"),
                    Point::new(start, y + 2.0),
                    end - start,
                    BAR - 4.0,
                );
                let reach = Point::new(frame.x(&scale, bar.reach), middle);
                svg.line(&format!("reach {class}"), Point::new(end, middle), reach);
                svg.path(&format!("dot {class}"), &bar.look.marker(Point::new(end, middle), 4.0));
                let text = fitting(&self.text(bar), 150.0);
                svg.text("figure", Anchor::End, Point::new(WIDTH - 2.0, middle + 4.0), &text);
                y += BAR;
            }
        }
        draw_legend(&mut svg, below, false, &entries);
        svg
    }

    fn text(&self, bar: &Bar) -> String {
        let shown = |value| self.axis.unit.shown(value);
        format!("{} / {}", shown(bar.length), shown(bar.reach))
    }

    /// The subjects, each once.
    fn entries(&self) -> Vec<Entry<'_>> {
        let mut entries: Vec<Entry<'_>> = Vec::new();
        for bar in self.groups.iter().flat_map(|group| &group.bars) {
            if !entries.iter().any(|entry| entry.name == bar.name) {
                entries.push(Entry { name: &bar.name, look: bar.look });
            }
        }
        entries
    }

    fn table(&self) -> Table {
        let names: Vec<String> = self.entries().iter().map(|entry| entry.name.to_owned()).collect();
        let row = |group: &Group| {
            let value = |name: &String| {
                let bar = group.bars.iter().find(|bar| bar.name == *name);
                bar.map_or("–".to_owned(), |bar| self.text(bar))
            };
            std::iter::once(group.name.clone()).chain(names.iter().map(value)).collect()
        };
        let first = format!("{}, {} / {}", self.axis.name, self.length, self.reach);
        Table {
            name: self.words.title.clone(),
            head: std::iter::once(first).chain(names.iter().cloned()).collect(),
            rows: self.groups.iter().map(row).collect(),
        }
    }
}

impl Group {
    fn height(&self) -> f64 {
        BAR.mul_add(as_f64(self.bars.len() as u64), LINE + GAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::axis::Spacing;
    use crate::page::unit::Unit;

    #[test]
    fn every_bar_is_in_the_table() {
        let bar = |name: &str, place| Bar {
            name: name.to_owned(),
            look: Look::new(place),
            length: 0.001,
            reach: 0.003,
        };
        let plot = Bars {
            words: Words::default(),
            caption: String::new(),
            axis: Axis::new("time", Unit::SECONDS, Spacing::FromZero),
            length: "p50",
            reach: "p99",
            groups: vec![
                Group { name: "plan".to_owned(), bars: vec![bar("nio", 3), bar("aio", 5)] },
                Group { name: "run".to_owned(), bars: vec![bar("aio", 5)] },
            ],
        };
        let figure = plot.figure();
        assert_eq!(figure.table.head, ["time, p50 / p99", "nio", "aio"]);
        let rows: Vec<String> =
            figure.table.rows.iter().map(|row| row.join("; ").replace('\u{a0}', " ")).collect();
        assert_eq!(
            rows,
            ["plan; 1.00 ms / 3.00 ms; 1.00 ms / 3.00 ms", "run; –; 1.00 ms / 3.00 ms"]
        );
        assert!(figure.html("p1").contains("fill c5"));
    }
}
