//! The page: one HTML file that needs nothing else, no script and no network. Everything that is not fixed text here is
//! escaped. Pure.

use std::fmt::Write as _;

use super::plots;
use super::report::{Row, by_shape, columns, remarks, texts};
use crate::lab::results::Fact;
use crate::lab::shape::Kind;

const STYLE: &str = "body{font:15px/1.45 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:.6em 0}td,th{padding:.15em .7em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}.facts td{text-align:left}figure{margin:1em 0}\
li{color:#844}svg{max-width:100%;height:auto}";

/// The meaning of the figures of each kind.
fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Throughput | Kind::Storm => {
            "The sender sends as fast as it is read. Rates go from the moment when all connections were made to the end of \
             the last one. On few cores the sender takes one of them, so CPU seconds per GB say more than rates. Processor \
             time and system calls are counted from the same moment to the end of the process. `bare` is one thread that \
             reads and counts line feeds, without an engine."
        }
        Kind::Latency | Kind::Crowd | Kind::Slow => {
            "An open loop: each line carries the time at which it should have been sent; its latency ends when the whole \
             batch that holds it has been read. So half a batch interval is the least median there is, and nearly a whole \
             one the least 99th percentile."
        }
        Kind::Memory => {
            "All connections but one are idle. The memory of a connection is what the process has more than before the \
             first one, heap and stacks, divided by the connections; with few of them that is mostly buffers which all \
             share. What the kernel keeps for a socket is not in it."
        }
    }
}

/// The whole page.
pub(super) fn page(rows: &[Row], facts: &[Fact]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tidemill compare</title>\
         <style>{STYLE}</style></head><body>\n<h1>tidemill compare</h1>\n<table class=\"facts\">\n"
    );
    for Fact { name, value } in facts {
        let _ = writeln!(page, "<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value));
    }
    page.push_str("</table>\n");
    for (kind, name) in Kind::ALL {
        let groups = by_shape(rows, kind);
        if groups.is_empty() {
            continue;
        }
        let _ = writeln!(page, "<h2>{name}</h2>\n<p>{}</p>", escape(meaning(kind)));
        if kind == Kind::Memory {
            let all: Vec<&Row> = groups.iter().flat_map(|(_, group)| group).copied().collect();
            figure(&mut page, &plots::memory(&all));
        }
        for (shape, group) in groups {
            let _ = writeln!(page, "<h3>{}</h3>", escape(&shape.words()));
            table(&mut page, kind, &group);
            match kind {
                Kind::Throughput | Kind::Storm => {
                    figure(&mut page, &plots::throughput(&shape, &group))
                }
                Kind::Latency | Kind::Crowd | Kind::Slow => {
                    figure(&mut page, &plots::percentiles(&shape, &group));
                }
                Kind::Memory => {}
            }
        }
    }
    page.push_str("</body></html>\n");
    page
}

fn figure(page: &mut String, svg: &str) {
    if !svg.is_empty() {
        let _ = writeln!(page, "<figure>{svg}</figure>");
    }
}

fn table(page: &mut String, kind: Kind, rows: &[&Row]) {
    page.push_str("<table><tr><th>model</th>");
    for (head, ..) in columns(kind) {
        let _ = write!(page, "<th>{}</th>", escape(head));
    }
    page.push_str("</tr>\n");
    for row in rows {
        let _ = write!(page, "<tr><td>{}</td>", escape(&row.model()));
        for text in texts(row) {
            let _ = write!(page, "<td>{}</td>", escape(&text));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
    let remarks = |row: &&Row| {
        remarks(row).into_iter().map(move |remark| (row.label.clone(), remark)).collect::<Vec<_>>()
    };
    let said: Vec<(String, String)> = rows.iter().flat_map(remarks).collect();
    if !said.is_empty() {
        page.push_str("<ul>");
        for (model, remark) in said {
            let _ = write!(page, "<li>{}: {}</li>", escape(&model), escape(&remark));
        }
        page.push_str("</ul>\n");
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::report::{rows, tests::results};
    use super::*;

    #[test]
    fn nothing_is_taken_as_markup() {
        assert_eq!(escape("<a b='\"&'>"), "&lt;a b=&#39;&quot;&amp;&#39;&gt;");
        let facts = [Fact::new("processor", "</td><img onerror=x>")];
        let mut rows = rows(&results());
        rows[1].used = "<b>model</b>".to_owned();
        rows[2].used = "<b>model</b>".to_owned();
        let page = page(&rows, &facts);
        for bad in ["<script", "<img", "<b>"] {
            assert!(!page.contains(bad), "{bad}:\n{page}");
        }
        assert!(page.contains("&lt;script&gt;") && page.contains("&lt;/td&gt;&lt;img"), "{page}");
        assert!(
            page.contains("nio (ran &lt;b&gt;model&lt;/b&gt;)"),
            "the model really in use:\n{page}"
        );
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let page = page(&rows(&results()), &[Fact::new("kernel", "1")]);
        // The name of the SVG name space is a name and not fetched.
        let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for reference in ["http:", "https:", "src=", "href", "url(", "@import", "//"] {
            assert!(!page.contains(reference), "{reference}:\n{page}");
        }
        assert_eq!(page.matches("<svg").count(), 2, "bars and curves:\n{page}");
        assert!(page.contains("99.99 %") && page.contains("sans-serif"), "{page}");
        assert!(page.contains("not run: too many"), "{page}");
    }
}
