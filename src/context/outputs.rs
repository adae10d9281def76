//! The outputs that a start expects in the places of its sinks, from what the state remembers; and its records of the outputs
//! that it found. Runs on the thread that starts the stream; once.

use crate::journal::Found;
use crate::owner::{Expected, Output};
use crate::sink::{SharedSink, is_same_place};
use crate::stream::Graph;

use super::names::sinks;

/// The output that must be in each place; nothing is known of the other places.
pub(super) fn expected(graph: &Graph, found: &Found) -> Vec<Expected> {
    let names = &found.continued.names;
    let number_of = |number: &u32| usize::try_from(*number).unwrap_or(usize::MAX);
    let now: Vec<(SharedSink, usize)> =
        sinks(graph).into_iter().zip(names.numbers.sinks.iter().map(number_of)).collect();
    let place_of = |sink: &SharedSink| sink.place().filter(|place| !place.is_empty());
    // The places that the start before wrote to, each with the number of its sink.
    let before: Vec<(usize, &str)> = (0..)
        .zip(&found.names_before.sinks)
        .filter(|(_, known)| !known.retired && !known.what.is_empty())
        .map(|(number, known)| (number, known.what.as_str()))
        .collect();
    let expect = |(sink, number): &(SharedSink, usize)| {
        let place = place_of(sink)?;
        let last = last_at(&found.outputs, &place)?.mark;
        let has_moved = |of: usize| {
            let mut now = now.iter().filter(|(_, number)| *number == of);
            now.any(|(sink, _)| place_of(sink).is_some_and(|is| !is_same_place(&is, &place)))
        };
        let mut here = before.iter().filter(|(_, was)| is_same_place(was, &place));
        let is_due = here.any(|(of, _)| !has_moved(*of));
        let own = before.iter().find(|(of, was)| of == number && !is_same_place(was, &place));
        let moved = own.and_then(|(_, was)| last_at(&found.outputs, was));
        Some(Expected { place, last, moved: moved.map(|output| output.mark.output), is_due })
    };
    now.iter().filter_map(expect).collect()
}

/// The output that was written to last in a place.
fn last_at<'a>(outputs: &'a [Output], place: &str) -> Option<&'a Output> {
    outputs.iter().rev().find(|output| is_same_place(&output.place, place))
}

/// The outputs of this start that are not as the state remembers them: moved, found without a place, or continued although
/// something was missing.
pub(super) fn news(graph: &Graph, found: &Found) -> Vec<Output> {
    let news = |sink: SharedSink| {
        let (mut output, is_whole) = sink.found()?;
        let known = found.outputs.iter().find(|known| known.mark.output == output.mark.output);
        output.newest = known.filter(|_| is_whole).and_then(|known| known.newest.clone());
        // A new one is recorded where it takes the place of one that is gone.
        let is_due = output.mark.commits > 0
            || last_at(&found.outputs, &output.place).is_some_and(|last| last.mark.commits > 0);
        (is_due && known != Some(&output)).then_some(output)
    };
    graph.sinks().into_iter().filter_map(news).collect()
}
