//! Pages: one HTML text that needs nothing else, no script and no network, with plots as SVG and every plot also as a
//! table. One style sheet for all of them, for light and dark, narrow and wide, screen and paper. Pure; any thread. Knows
//! nothing of what it shows.
//!
//! ```text
//! plot/{estimates, lines, bars}: plain data ─▶ Figure (drawing, table, caption) ─▶ Page ─▶ HTML
//!       ╰─▶ axis (scales, ticks) · unit (prefixes) · look (colour, marker, dash) · svg (elements) · markup (escaping)
//! ```

mod axis;
mod look;
mod markup;
mod plot;
mod svg;
mod unit;

use std::fmt::Write as _;

pub(crate) use axis::{Axis, Spacing, Span, percentile};
pub(crate) use look::Look;
pub(crate) use markup::{Table, escape};
pub(crate) use plot::{Bar, Bars, Estimate, Estimates, Figure, Group, Line, Lines, Note, Stretch};
pub(crate) use svg::{Point, Words};
pub(crate) use unit::Unit;

/// The style of pages, after that of plots.
const STYLE: &str = include_str!("page.css");

/// A page that is put together from top to bottom.
#[derive(Debug)]
pub(crate) struct Page {
    title: String,
    lead: String,
    warnings: Vec<String>,
    contents: Vec<String>,
    body: String,
    figures: usize,
}

impl Page {
    pub(crate) fn new(title: &str, lead: &str) -> Page {
        Page {
            title: title.to_owned(),
            lead: lead.to_owned(),
            warnings: Vec::new(),
            contents: Vec::new(),
            body: String::new(),
            figures: 0,
        }
    }

    /// Puts a warning above everything; the same one only once.
    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// Begins a section, which the contents have.
    pub(crate) fn section(&mut self, title: &str) {
        self.contents.push(title.to_owned());
        let number = self.contents.len();
        let _ = writeln!(self.body, "<h2 id=\"s{number}\">{}</h2>", escape(title));
    }

    /// Begins a part of a section.
    pub(crate) fn part(&mut self, title: &str) {
        let _ = writeln!(self.body, "<h3>{}</h3>", escape(title));
    }

    pub(crate) fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.body, "<p>{}</p>", escape(text));
    }

    /// Sentences, each in a line of its own; nothing of none.
    pub(crate) fn list(&mut self, class: &str, texts: &[String]) {
        if texts.is_empty() {
            return;
        }
        let _ = write!(self.body, "<ul class=\"{class}\">");
        texts.iter().for_each(|text| {
            let _ = write!(self.body, "<li>{}</li>", escape(text));
        });
        self.body.push_str("</ul>\n");
    }

    /// Names with their values.
    pub(crate) fn facts<'a>(&mut self, facts: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.body.push_str("<dl>");
        for (name, value) in facts {
            let _ = write!(self.body, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
        }
        self.body.push_str("</dl>\n");
    }

    pub(crate) fn table(&mut self, table: &Table) {
        self.body.push_str(&table.html());
    }

    /// Plots beside each other, as many as there is room for; nothing of none.
    pub(crate) fn figures(&mut self, figures: &[Figure]) {
        if figures.is_empty() {
            return;
        }
        self.body.push_str("<div class=\"plots\">\n");
        for figure in figures {
            self.figures += 1;
            self.body.push_str(&figure.html(&format!("figure-{}", self.figures)));
        }
        self.body.push_str("</div>\n");
    }

    /// The whole page.
    pub(crate) fn html(&self) -> String {
        let Page { title, lead, body, .. } = self;
        let title = escape(title);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
             <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{}{STYLE}</style></head>\n<body>\n\
             <a class=\"skip\" href=\"#main\">To the figures</a>\n<header><h1>{title}</h1><p class=\"lead\">{}</p></header>\n\
             {}{}<main id=\"main\">\n{body}</main>\n</body></html>\n",
            svg::STYLE,
            escape(lead),
            self.warnings(),
            self.contents(),
        )
    }

    fn warnings(&self) -> String {
        if self.warnings.is_empty() {
            return String::new();
        }
        let items = self.warnings.iter().map(|text| format!("<li>{}</li>", escape(text)));
        let items: String = items.collect();
        format!("<aside class=\"warnings\"><h2>Read with care</h2><ul>{items}</ul></aside>\n")
    }

    fn contents(&self) -> String {
        let entries = self.contents.iter().enumerate();
        let entry = |(at, title): (usize, &String)| {
            format!("<li><a href=\"#s{}\">{}</a></li>", at + 1, escape(title))
        };
        let entries: String = entries.map(entry).collect();
        format!(
            "<nav aria-labelledby=\"contents\"><h2 id=\"contents\">Contents</h2><ol>{entries}</ol></nav>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let mut page = Page::new("<t>", "<l>");
        page.warn("<w>");
        page.warn("<w>");
        page.section("<s>");
        page.part("<p>");
        page.paragraph("<q>");
        page.list("verdicts", &["<v>".to_owned()]);
        page.facts([("<n>", "<f>")]);
        page
    }

    #[test]
    fn nothing_is_taken_as_markup_and_each_warning_comes_once() {
        let html = page().html();
        for bad in ["<t>", "<l>", "<w>", "<s>", "<q>", "<v>", "<n>", "<f>", "<script"] {
            assert!(!html.contains(bad), "{bad}:\n{html}");
        }
        assert_eq!(html.matches("&lt;w&gt;").count(), 1);
        assert_eq!(html.matches("&lt;s&gt;").count(), 2, "a heading and an entry of the contents");
    }

    #[test]
    fn a_page_needs_nothing_else() {
        let html = page().html().replace("href=\"#", "").replace("href=\"data:,\"", "");
        for reference in ["http:", "https:", "src=", "href", "url(", "@import", "//", "<script"] {
            assert!(!html.contains(reference), "{reference}:\n{html}");
        }
    }
}
