//! SVG text, element by element. A drawing has a title and a description, and its colours come from `plot.css`: those of
//! the page around it, or its own where it stands alone. Pure; any thread.

use std::fmt::Write as _;

use super::markup::escape;

/// The style of what is drawn; the page has it, too.
pub(super) const STYLE: &str = include_str!("plot.css");

/// The advance of a letter at the size of the text of plots, rather too much than too little.
pub(super) const LETTER: f64 = 6.8;

/// A place in a drawing: pixels from its left upper corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

impl Point {
    pub(crate) fn new(x: f64, y: f64) -> Point {
        Point { x, y }
    }
}

/// The part of a text that lies at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// The names of a drawing, for those who do not see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) title: String,
    /// The content in a sentence or two.
    pub(crate) description: String,
    /// A warning that stands in the drawing itself.
    pub(crate) mark: Option<String>,
}

/// A drawing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Svg {
        Svg { width, height, body: String::new() }
    }

    pub(super) fn line(&mut self, class: &str, from: Point, to: Point) {
        let _ = write!(
            self.body,
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from.x, from.y, to.x, to.y
        );
    }

    /// A rectangle from its left upper corner.
    pub(super) fn bar(&mut self, class: &str, at: Point, width: f64, height: f64) {
        let _ = write!(
            self.body,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
            at.x,
            at.y,
            width.max(0.0)
        );
    }

    pub(super) fn path(&mut self, class: &str, data: &str) {
        let _ = write!(self.body, "<path class=\"{class}\" d=\"{data}\"/>");
    }

    /// A line through all these points; nothing of none.
    pub(super) fn polyline(&mut self, class: &str, points: &[Point]) {
        if !points.is_empty() {
            self.path(class, &format!("M{}", joined(points.iter())));
        }
    }

    pub(super) fn text(&mut self, class: &str, anchor: Anchor, at: Point, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let _ = write!(
            self.body,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\"{anchor}>{}</text>",
            at.x,
            at.y,
            escape(text)
        );
    }

    /// The drawing inside a page that has its style. `id` is unique on the page.
    pub(super) fn inline(&self, id: &str, words: &Words) -> String {
        let Svg { width, height, body } = self;
        format!(
            "<svg class=\"plot\" role=\"img\" viewBox=\"0 0 {width} {height}\" aria-labelledby=\"{id}-title {id}-desc\">\
             <title id=\"{id}-title\">{}</title><desc id=\"{id}-desc\">{}</desc>{body}</svg>",
            escape(&words.title),
            escape(&words.description)
        )
    }

    /// The drawing as a file of its own, with its style and its title above.
    pub(crate) fn standalone(&self, words: &Words) -> String {
        let head = 26.0;
        let Svg { width, height, body } = self;
        let whole = height + head;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" role=\"img\" width=\"{width}\" height=\"{whole}\" \
             viewBox=\"0 -{head} {width} {whole}\" aria-labelledby=\"title desc\">\n<title id=\"title\">{}</title>\n\
             <desc id=\"desc\">{}</desc>\n<style>{STYLE}</style>\n<rect class=\"paper\" y=\"-{head}\" width=\"100%\" \
             height=\"100%\"/>\n<text class=\"head\" x=\"8\" y=\"-9\">{}</text>\n{}\n</svg>\n",
            escape(&words.title),
            escape(&words.description),
            escape(&words.title),
            body.replace("/><", "/>\n<").replace("</text><", "</text>\n<")
        )
    }
}

/// The area between two lines over the same places; nothing of none.
pub(super) fn area(upper: &[Point], lower: &[Point]) -> String {
    if upper.is_empty() {
        return String::new();
    }
    format!("M{}z", joined(upper.iter().chain(lower.iter().rev())))
}

fn joined<'a>(points: impl Iterator<Item = &'a Point>) -> String {
    let points: Vec<String> =
        points.map(|point| format!("{:.1} {:.1}", point.x, point.y)).collect();
    points.join("L")
}

/// The room of a text, in pixels.
pub(super) fn width_of(text: &str) -> f64 {
    text.chars().fold(0.0, |width, _| width + LETTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_never_markup() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text("t", Anchor::Start, Point::new(1.0, 2.0), "<script>");
        let words = Words { title: "<a>".to_owned(), description: "\"&".to_owned(), mark: None };
        for text in [svg.inline("p1", &words), svg.standalone(&words)] {
            assert!(!text.contains("<script") && !text.contains("<a>"), "{text}");
            assert!(text.contains("&lt;script&gt;") && text.contains("&quot;&amp;"), "{text}");
            assert!(text.contains("<title id=") && text.contains("<desc id="), "{text}");
        }
    }

    #[test]
    fn areas_go_there_and_back() {
        let points = |y| [Point::new(0.0, y), Point::new(1.0, y)];
        assert_eq!(area(&points(0.0), &points(5.0)), "M0.0 0.0L1.0 0.0L1.0 5.0L0.0 5.0z");
        assert_eq!(area(&[], &[]), "");
    }
}
