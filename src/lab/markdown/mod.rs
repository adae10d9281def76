//! `benches/models.md`: recorded results as one page of Markdown, with its plots as SVG files. Made from results and notes
//! alone, so that text and figures cannot drift apart. Pure but for [`write()`]; main thread. Knows no run.
//!
//! ```text
//! results/NAME.json (figures) ─┬─▶ verdicts ─▶ which model ─┬─▶ models.md
//! results/NAME.md (notes)     ─┴─▶ tables, plots ───────────┴─▶ results/NAME-K.svg
//! ```
//! Notes say what to look for. They hold no figure: a figure in them would stay when the results change.

mod columns;
mod section;
mod which;

use std::path::{Path, PathBuf};

use super::report_files;
use super::results::Results;
use crate::error::{Error, Result};

/// Results with the name of their file and the notes beside it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded {
    /// The name of the file without its end.
    pub(crate) name: String,
    pub(crate) results: Results,
    /// Markdown; a first line `# TITLE` is the title of the section.
    pub(crate) notes: String,
}

/// A page and its plots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) text: String,
    pub(crate) plots: Vec<PlotFile>,
}

/// A plot as a file of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlotFile {
    pub(crate) name: String,
    pub(crate) svg: String,
}

/// The page of these results. `plots` is the path from the page to the directory of its plots.
///
/// # Errors
/// If notes hold a figure.
pub(crate) fn document(recorded: &[Recorded], plots: &str) -> Result<Document> {
    let mut document = Document { text: head(recorded), plots: Vec::new() };
    for one in recorded {
        no_figures(one)?;
        section::add(&mut document, one, plots);
    }
    Ok(document)
}

fn head(recorded: &[Recorded]) -> String {
    let table = which::table(recorded);
    format!(
        "# Which io model for which load\n\nThis page is made of [recorded runs](results/README.md) by a command. Run the \
         commands below on your own machine before you believe any of it.\n\n## Which model\n\n{table}"
    )
}

/// Writes the page to `path` and its plots to the directory `results` beside it.
///
/// # Errors
/// If notes hold a figure, or a file cannot be written.
pub(crate) fn write(path: &Path, recorded: &[Recorded]) -> Result<Vec<PathBuf>> {
    let Document { text, plots } = document(recorded, PLOTS)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name
        .ok_or_else(|| Error::Usage(format!("error: {} is no name of a file", path.display())))?;
    let below = directory.join(PLOTS);
    report_files::directory(&below)?;
    let mut written = vec![report_files::write(directory, &name, &text)?];
    for plot in plots {
        written.push(report_files::write(&below, &plot.name, &plot.svg)?);
    }
    Ok(written)
}

/// The notes in a file; none if there is no such file.
///
/// # Errors
/// If it cannot be read, or is too large for notes.
pub(crate) fn notes(path: &Path) -> Result<String> {
    if path.exists() { report_files::read(path, NOTES_BYTES_MAX) } else { Ok(String::new()) }
}

/// The largest file of notes.
const NOTES_BYTES_MAX: u64 = 64 << 10;

/// The directory of plots, from the page.
const PLOTS: &str = "results";

/// Refuses notes with a digit outside of code.
fn no_figures(recorded: &Recorded) -> Result<()> {
    for (number, line) in recorded.notes.lines().enumerate() {
        let outside = line.split('`').step_by(2);
        if outside.flat_map(str::chars).any(|char| char.is_ascii_digit()) {
            let name = &recorded.name;
            let text = format!(
                "error: {name}.md, line {}: notes hold no figures, for results change\n  = help: name the plot or the \
                 table instead, or write a number of the command as `code`",
                number + 1
            );
            return Err(Error::Config(text));
        }
    }
    Ok(())
}

/// Text in which nothing means anything to a reader of Markdown.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\\' | '`' | '*' | '_' | '|' | '[' | ']' | '#' | '~' | '!' => {
                plain.extend(['\\', char])
            }
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '&' => plain.push_str("&amp;"),
            other if other.is_control() => plain.push(' '),
            other => plain.push(other),
        }
    }
    plain
}

/// A line of a table.
fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests;
