//! One recorded run as a section of the page: command, machine, and for each shape its verdicts, a plot and a table. Pure.

use std::fmt::Write as _;

use super::columns::{Column, columns};
use super::{Document, PlotFile, Recorded, line, plain};
use crate::lab::machine;
use crate::lab::metrics::by_pair;
use crate::lab::page::looks::look;
use crate::lab::results::{Cell, End, Results};
use crate::lab::shape::Shape;
use crate::lab::stats::Summary;
use crate::lab::verdict::{Verdict, verdicts};
use crate::page::{Axis, Estimate, Estimates, Spacing, Words};

/// Adds a section, and its plots.
pub(super) fn add(document: &mut Document, recorded: &Recorded, plots: &str) {
    let Recorded { name, results, notes } = recorded;
    let (title, notes) = titled(name, notes);
    let command = results.command_line.replace(['\n', '\r', '`'], " ");
    let text = &mut document.text;
    let _ = write!(text, "\n## {}\n\n{notes}```sh\n{}\n```\n\n", plain(title), command.trim());
    let _ = writeln!(text, "{}\n", machine_words(results));
    for warning in warnings(results) {
        let _ = writeln!(text, "**{}.**\n", plain(&warning));
    }
    let verdicts = verdicts(results);
    for (number, (shape, cells)) in results.by_shape().into_iter().enumerate() {
        let _ = write!(document.text, "### {}: {}\n\n", shape.kind.name(), plain(&shape.words()));
        let of_shape = verdicts.iter().filter(|verdict| verdict.shape == shape);
        let said: Vec<&Verdict> = of_shape.collect();
        said.iter().for_each(|verdict| {
            let _ = writeln!(document.text, "- {}", plain(&verdict.sentence));
        });
        let drawn =
            columns(shape.kind).first().and_then(|column| plot(results, &shape, &cells, column));
        if let Some((words, svg)) = drawn {
            let file = format!("{name}-{}.svg", number + 1);
            let _ = write!(document.text, "\n![{}]({plots}/{file})\n", plain(&words.title));
            document.plots.push(PlotFile { name: file, svg });
        }
        let _ = writeln!(document.text, "\n{}", table(&shape, &cells));
    }
}

/// The title, and the notes without it.
fn titled<'a>(name: &'a str, notes: &'a str) -> (&'a str, String) {
    let (title, rest) = match notes.trim().strip_prefix("# ") {
        Some(titled) => titled.split_once('\n').unwrap_or((titled, "")),
        None => (name, notes.trim()),
    };
    let rest = rest.trim();
    (title.trim(), if rest.is_empty() { String::new() } else { format!("{rest}\n\n") })
}

/// Machine and program in a sentence.
fn machine_words(results: &Results) -> String {
    let facts = &results.machine.facts;
    let of =
        |name: &str| facts.iter().find(|fact| fact.name == name).map(|fact| fact.value.as_str());
    let named = |name: &str| of(name).map(|value| format!("{name} {value}"));
    let memory = named("memory");
    let words = [
        of("processor").map(str::to_owned),
        of("cores").map(|cores| format!("cores: {cores}")),
        memory,
        of("kernel").map(str::to_owned),
        of("virtualised").map(|value| format!("virtualised: {value}")),
        of("io_uring").map(|value| format!("io_uring: {value}")),
        of("C library").map(str::to_owned),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    let tool = &results.tool;
    let date = machine::date(results.machine.start.wall_seconds);
    let program = format!(
        "tidemill {}, commit {}, {}, {}",
        tool.version, tool.commit, tool.build, tool.compiler
    );
    plain(&format!("{}. {program}. {date}.", words.join(", ")))
}

/// What a reader must know before the figures.
fn warnings(results: &Results) -> Vec<String> {
    let quick = results.quick.then(|| "single short runs decide nothing".to_owned());
    let cut = match results.end {
        End::Complete => None,
        End::TimeLimit => {
            Some("the time limit was over before every interval was narrow".to_owned())
        }
        End::Interrupted => Some("a signal ended it before every run was made".to_owned()),
    };
    [machine::busy(&results.machine), quick, cut].into_iter().flatten().collect()
}

/// The drawing of the figure that is judged; `None` if there is none.
fn plot(
    results: &Results,
    shape: &Shape,
    cells: &[&Cell],
    column: &Column,
) -> Option<(Words, String)> {
    let row = |cell: &&Cell| {
        let runs = values(cell, column);
        let Summary { median, min, max, .. } = Summary::of(runs.iter().copied())?;
        let (name, look) = (cell.subject.label(), look(cells, cell));
        Some(Estimate { name, look, middle: median, low: min, high: max, runs })
    };
    let rows: Vec<Estimate> = cells.iter().filter_map(row).collect();
    if rows.is_empty() {
        return None;
    }
    let mark = warnings(results).into_iter().next();
    let title = format!("{}, {}", column.head, shape.words());
    let description = format!(
        "{} of {} subjects: the middle of all runs, and each run.",
        column.head,
        rows.len()
    );
    let figure = Estimates {
        words: Words { title, description, mark },
        caption: String::new(),
        axis: Axis::new(column.head, column.unit, Spacing::FromZero),
        interval: "lowest to highest",
        reference: None,
        rows,
    };
    let figure = figure.figure();
    let svg = figure.svg.standalone(&figure.words);
    Some((figure.words, svg))
}

/// The figure of every run.
fn values(cell: &Cell, column: &Column) -> Vec<f64> {
    by_pair(column.metric, cell).into_iter().map(|(_, value)| value * column.scale).collect()
}

fn table(shape: &Shape, cells: &[&Cell]) -> String {
    let has = |column: &&Column| cells.iter().any(|cell| !values(cell, column).is_empty());
    let columns: Vec<&Column> = columns(shape.kind).iter().filter(has).collect();
    let heads = columns.iter().map(|column| column.head.to_owned());
    let heads: Vec<String> =
        ["".to_owned()].into_iter().chain(heads).chain(["runs".to_owned()]).collect();
    let mut text = line(&heads) + &format!("|---{}|\n", "|---".repeat(heads.len() - 1));
    for cell in cells {
        let first = plain(&cell.subject.label());
        let figures = columns.iter().enumerate().map(|(at, column)| figure(cell, column, at == 0));
        let runs = remarks(cell);
        text += &line(&[first].into_iter().chain(figures).chain([runs]).collect::<Vec<_>>());
    }
    text
}

/// The median, and the lowest and the highest run where `with_ends`.
fn figure(cell: &Cell, column: &Column, with_ends: bool) -> String {
    let Some(found) = Summary::of(values(cell, column)) else { return "–".to_owned() };
    let shown = |value| plain(&column.unit.shown(value));
    if with_ends && found.min < found.max {
        format!("{} ({} to {})", shown(found.median), shown(found.min), shown(found.max))
    } else {
        shown(found.median)
    }
}

/// The number of runs, and why there are not more; of a peer also its version.
fn remarks(cell: &Cell) -> String {
    let done = cell.done().count();
    let runs = (cell.not_run.is_none() || done > 0).then(|| done.to_string());
    let not_run = cell.not_run.as_ref().map(|why| format!("not run: {why}"));
    let fallback = cell.done().find_map(|(_, it)| it.fallback.as_ref().map(|why| (it, why)));
    let fallback = fallback.map(|(it, why)| format!("ran {}: {why}", it.used));
    let failed = cell.failures().next().map(|why| format!("failed: {why}"));
    let all = [runs, not_run, fallback, failed, cell.subject.version.clone()];
    plain(&all.into_iter().flatten().collect::<Vec<_>>().join("; "))
}
