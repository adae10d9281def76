//! Plots: plain data in, a drawing and a table of the same figures out. Every plot has a title, a description, a caption
//! that says what to look for, and is as wide as a narrow page, so that it is read without scaling. Pure; any thread.

mod bars;
mod estimates;
mod lines;

use super::axis::Scale;
use super::look::Look;
use super::markup::{Table, escape};
use super::svg::{Anchor, LETTER, Point, Svg, Words, width_of};

pub(crate) use bars::{Bar, Bars, Group};
pub(crate) use estimates::{Estimate, Estimates};
pub(crate) use lines::{Line, Lines, Note, Stretch};

/// The width of every plot, in pixels: that of a narrow page.
const WIDTH: f64 = 360.0;

/// The distance of two lines of text.
const LINE: f64 = 16.0;

/// The distance from a line of text's top to its base line.
const BASE: f64 = 12.0;

/// A plot that is ready to be shown.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) words: Words,
    /// What to look for.
    pub(crate) caption: String,
    pub(crate) svg: Svg,
    pub(crate) table: Table,
}

impl Figure {
    /// The figure as part of a page. `id` is unique on the page.
    pub(super) fn html(&self, id: &str) -> String {
        let Figure { words, caption, svg, table } = self;
        format!(
            "<figure id=\"{id}\"><figcaption><strong>{}</strong> {}</figcaption>\n{}\n<details><summary>The figures as a \
             table</summary>\n{}</details></figure>\n",
            escape(&words.title),
            escape(caption),
            svg.inline(id, words),
            table.html()
        )
    }
}

/// The rectangle that values are drawn in.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Frame {
    fn x(&self, scale: &Scale, value: f64) -> f64 {
        (self.right - self.left).mul_add(scale.place(value), self.left)
    }

    fn y(&self, scale: &Scale, value: f64) -> f64 {
        (self.top - self.bottom).mul_add(scale.place(value), self.bottom)
    }

    /// Vertical lines at the ticks, their texts below, and the title below these.
    fn draw_x(&self, svg: &mut Svg, scale: &Scale) {
        let mut free = f64::MIN;
        for tick in &scale.ticks {
            let x = (self.right - self.left).mul_add(tick.at, self.left);
            svg.line("grid", Point::new(x, self.top), Point::new(x, self.bottom));
            let half = width_of(&tick.text) / 2.0;
            // A text that would touch its neighbour is left out.
            let x = x.min(WIDTH - half);
            if x - half > free {
                svg.text(
                    "tick",
                    Anchor::Middle,
                    Point::new(x, self.bottom + BASE + 4.0),
                    &tick.text,
                );
                free = x + half + 2.0;
            }
        }
        let middle = f64::midpoint(self.left, self.right);
        let half = width_of(&scale.title) / 2.0;
        let middle = middle.min(WIDTH - half).max(half);
        svg.text(
            "axis",
            Anchor::Middle,
            Point::new(middle, self.bottom + BASE + 20.0),
            &scale.title,
        );
    }

    /// Horizontal lines at the ticks, their texts at the left, and the title above.
    fn draw_y(&self, svg: &mut Svg, scale: &Scale) {
        for tick in &scale.ticks {
            let y = (self.top - self.bottom).mul_add(tick.at, self.bottom);
            svg.line("grid", Point::new(self.left, y), Point::new(self.right, y));
            svg.text("tick", Anchor::End, Point::new(self.left - 5.0, y + 4.0), &tick.text);
        }
        svg.text("axis", Anchor::Start, Point::new(2.0, self.top - 8.0), &scale.title);
    }
}

/// The height that an axis below a frame needs.
const AXIS_BELOW: f64 = 38.0;

/// The height that the title of a vertical axis, or a mark, needs above a frame.
const ABOVE: f64 = 24.0;

/// The widest of these texts, in pixels.
fn widest<'a>(texts: impl IntoIterator<Item = &'a str>) -> f64 {
    texts.into_iter().map(width_of).fold(0.0, f64::max)
}

/// Text that has room in this many pixels; a longer one ends with dots.
fn fitting(text: &str, room: f64) -> String {
    if width_of(text) <= room {
        return text.to_owned();
    }
    let mut short = String::new();
    for char in text.chars() {
        if width_of(&short) + 2.0 * LETTER > room {
            break;
        }
        short.push(char);
    }
    short + "…"
}

/// A warning in the right upper corner.
fn draw_mark(svg: &mut Svg, words: &Words) {
    if let Some(mark) = &words.mark {
        let text = fitting(&format!("⚠ {mark}"), WIDTH / 2.0);
        svg.text("mark", Anchor::End, Point::new(WIDTH - 2.0, BASE), &text);
    }
}

/// An entry of a legend.
struct Entry<'a> {
    name: &'a str,
    look: Look,
}

/// Draws a legend from `top` on, as many entries beside each other as there is room for. Returns its height.
fn draw_legend(svg: &mut Svg, top: f64, with_lines: bool, entries: &[Entry<'_>]) -> f64 {
    let sample = if with_lines { 34.0 } else { 16.0 };
    let (mut x, mut y) = (4.0, top);
    for Entry { name, look } in entries {
        let name = fitting(name, WIDTH - sample - 8.0);
        let width = sample + width_of(&name) + 14.0;
        if x > 4.0 && x + width > WIDTH {
            (x, y) = (4.0, y + LINE);
        }
        let middle = Point::new(x + (sample - 6.0) / 2.0, y + LINE / 2.0);
        let class = look.class();
        if with_lines {
            let end = Point::new(x + sample - 6.0, middle.y);
            svg.line(&format!("line {class}"), Point::new(x, middle.y), end);
        }
        svg.path(&format!("dot {class}"), &look.marker(middle, 4.0));
        svg.text("name", Anchor::Start, Point::new(x + sample, y + BASE), &name);
        x += width;
    }
    if entries.is_empty() { 0.0 } else { y + LINE - top }
}

/// The height of a legend with these entries.
fn legend_height(with_lines: bool, entries: &[Entry<'_>]) -> f64 {
    draw_legend(&mut Svg::new(WIDTH, 0.0), 0.0, with_lines, entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_end_with_dots() {
        assert_eq!(fitting("nio", 100.0), "nio");
        assert_eq!(fitting("a rather long name", 5.0 * LETTER), "a ra…");
    }

    #[test]
    fn legends_take_as_many_lines_as_they_need() {
        let names: Vec<String> = (0..9).map(|n| format!("model number {n}")).collect();
        let entries = |count| {
            let names = names.iter().take(count);
            let entry = |name| Entry { name, look: Look::new(0) };
            names.map(|name| entry(name.as_str())).collect::<Vec<_>>()
        };
        let check = |count, lines: f64| {
            assert!((legend_height(true, &entries(count)) - lines * LINE).abs() < 0.1, "{count}");
        };
        check(0, 0.0);
        check(1, 1.0);
        check(2, 1.0);
        check(9, 5.0);
    }
}
