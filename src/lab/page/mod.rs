//! The pages of `compare`, `compare --latency` and `compare --soak`: results in, HTML out. A page is made of what a run
//! wrote down and of nothing else. Pure.
//!
//! ```text
//! Results ─┬─ head     what ran, warnings, verdicts, the machine
//!          ├─ models   shape by shape: estimates, small multiples, percentiles
//!          ├─ latency  interval by interval: percentiles over the floor, stages
//!          ╰─ soak     second by second: does anything grow?
//! ```

mod excess;
mod head;
mod latency;
pub(super) mod looks;
mod models;
mod plots;
mod soak;
mod timed;

use super::results::{Measurement, Results};
use super::results_file;
use super::shape::Shape;
use super::verdict::{Said, Verdict, said, verdicts};
use crate::error::{Error, Result};
use crate::page::Page;

/// The page of results as they were written, for a test that looks at it.
///
/// # Errors
/// If the text is no results.
pub fn of_json(results: &str) -> Result<String> {
    let results = results_file::parse(results).map_err(Error::Failed)?;
    Ok(html(&results, &said(&results)))
}

/// The whole page of a measurement.
/// `said`: the sentences of its verdicts.
pub(crate) fn html(results: &Results, said: &[Said]) -> String {
    // Runs of different files are no pairs.
    let apart = results.cells.iter().any(|cell| cell.subject.origin.is_some());
    let verdicts = if results.quick || apart { Vec::new() } else { verdicts(results) };
    let verdicts = Verdicts { said: if results.quick { &[] } else { said }, found: &verdicts };
    let mut page = Page::new(&head::title(results), &head::lead(results));
    head::warnings(&mut page, results);
    head::verdicts(&mut page, verdicts.said);
    match results.measurement {
        Measurement::Models => models::sections(&mut page, results, verdicts),
        Measurement::Latency => latency::sections(&mut page, results, verdicts),
        Measurement::Soak => soak::sections(&mut page, results),
    }
    head::machine(&mut page, results);
    page.html()
}

/// The verdicts of a page.
#[derive(Clone, Copy)]
struct Verdicts<'a> {
    said: &'a [Said],
    /// Those with ratios.
    found: &'a [Verdict],
}

impl Verdicts<'_> {
    /// The sentences on a shape.
    fn sentences(&self, shape: &Shape) -> Vec<String> {
        let of_shape = self.said.iter().filter(|said| said.shape == *shape);
        of_shape.flat_map(|said| said.sentences.iter().cloned()).collect()
    }

    /// Those on a shape that have ratios.
    fn of(&self, shape: &Shape) -> impl Iterator<Item = &Verdict> {
        let shape = *shape;
        self.found.iter().filter(move |verdict| verdict.shape == shape)
    }
}

#[cfg(test)]
mod tests;
