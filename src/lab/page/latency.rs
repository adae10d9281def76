//! The page of `compare --latency`: for each batch interval and rate the percentiles over the floor and the stages of
//! batches; and the highest rate that each model held. Pure.

use super::looks::Plot;
use super::plots;
use super::timed;
use super::{Verdicts, head};
use crate::lab::results::{Cell, Results, Search};
use crate::lab::shape::Shape;
use crate::page::{Page, Span, Table, Unit};
use crate::settings::units::as_f64;

pub(super) fn sections(page: &mut Page, results: &Results, verdicts: Verdicts<'_>) {
    let mark = head::mark(results);
    page.section("Percentiles and stages");
    page.paragraph(
        "An open loop: each line carries the time at which it should have been sent, and its latency ends when the result \
         of its batch was handed over. A batch interval alone makes half of the lines wait half of it, and one in a hundred \
         0.99 of it. That floor is taken off: what is left is the engine's, the machine's and the sender's part.",
    );
    let shapes = results.by_shape();
    let fixed = shapes.iter().filter(|(shape, _)| shape.load_percent.is_none());
    let spans = fixed.filter_map(|(shape, cells)| timed::span(&timed::curves(shape, cells)));
    let with = Span::of(spans.flat_map(|span| [span.low, span.high]));
    let mut missing = None;
    for (shape, cells) in &shapes {
        let title = title(shape, cells);
        page.part(&title);
        page.list("verdicts", &verdicts.sentences(shape));
        let curves = timed::curves(shape, cells);
        let with = with.filter(|_| shape.load_percent.is_none());
        let plot = Plot { title: &title, mark, with };
        let mut figures = Vec::new();
        if !curves.is_empty() {
            figures.push(timed::percentiles(shape, &curves, &plot));
        }
        let plot = Plot { with: None, ..plot };
        figures.extend(timed::stages(cells, &plot));
        figures
            .extend(verdicts.of(shape).filter_map(|verdict| plots::ratios(verdict, cells, &plot)));
        page.figures(&figures);
        page.table(&timed::table(shape, &curves));
        missing = missing.or_else(|| timed::too_few(&curves));
    }
    missing.iter().for_each(|text| page.paragraph(text));
    searches(page, &results.searches);
}

/// The interval and the rate of a shape.
fn title(shape: &Shape, cells: &[&Cell]) -> String {
    let batch = shape.batch_ms;
    match (shape.load_percent, cells.iter().find_map(|cell| cell.rate)) {
        (Some(load), _) => format!("batch {batch} ms, {load} % of the highest rate that holds"),
        (None, Some(rate)) => {
            format!("batch {batch} ms, {}", Unit::counted("lines/s").shown(as_f64(rate)))
        }
        (None, None) => format!("batch {batch} ms"),
    }
}

fn searches(page: &mut Page, searches: &[Search]) {
    if searches.is_empty() {
        return;
    }
    page.section("The highest rate that holds");
    page.paragraph(
        "Each model was sent to as fast as it reads, then at parts of that rate from above, until the 99th percentile stayed \
         within the limit. The first rate that did is the highest one that holds.",
    );
    let rate = |rate: u64| Unit::counted("lines/s").shown(as_f64(rate));
    let row = |search: &Search| {
        let tried = search.tried.iter().map(|(tried, p99)| {
            format!("{}: p99 {}", rate(*tried), Unit::SECONDS.shown(as_f64(*p99) / 1e9))
        });
        vec![
            format!("{}, batch {} ms", search.subject.label(), search.batch_ms),
            search.rate.map_or("none".to_owned(), rate),
            rate(search.ceiling),
            tried.collect::<Vec<_>>().join("; "),
        ]
    };
    page.table(&Table {
        name: "The highest rate that holds".to_owned(),
        head: ["model", "holds", "without a limit", "tried"].map(str::to_owned).to_vec(),
        rows: searches.iter().map(row).collect(),
    });
}
