//! Text as HTML, and tables. Pure; any thread.

use std::fmt::Write as _;

/// The text without a sign that means anything in HTML or SVG.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // A control character is no text of a page.
            other if other.is_control() && other != '\n' && other != '\t' => {
                escaped.push('\u{fffd}')
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// A table whose first column names its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// The name of the table, for those who do not see the page.
    pub(crate) name: String,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// The table in a box of its own, which scrolls where the page is narrow.
    pub(crate) fn html(&self) -> String {
        let mut text = format!(
            "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{}\"><table><thead><tr>",
            escape(&self.name)
        );
        for head in &self.head {
            let _ = write!(text, "<th scope=\"col\">{}</th>", escape(head));
        }
        text.push_str("</tr></thead><tbody>\n");
        for row in &self.rows {
            text.push_str("<tr>");
            for (at, cell) in row.iter().enumerate() {
                let cell = escape(cell);
                let _ = match at {
                    0 => write!(text, "<th scope=\"row\">{cell}</th>"),
                    _ => write!(text, "<td>{cell}</td>"),
                };
            }
            text.push_str("</tr>\n");
        }
        text.push_str("</tbody></table></div>\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_as_markup() {
        assert_eq!(escape("<a b='\"&'>"), "&lt;a b=&#39;&quot;&amp;&#39;&gt;");
        assert_eq!(escape("a\u{0}b\u{1b}[31m\tc"), "a\u{fffd}b\u{fffd}[31m\tc");
        let text = |text: &str| vec![text.to_owned(), text.to_owned()];
        let table = Table { name: "<n>".to_owned(), head: text("<h>"), rows: vec![text("<td>")] };
        let html = table.html();
        for bad in ["<n>", "<h>", "<td><"] {
            assert!(!html.contains(bad), "{html}");
        }
        assert!(html.contains("<th scope=\"row\">&lt;td&gt;</th><td>&lt;td&gt;</td>"), "{html}");
    }
}
