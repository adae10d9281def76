//! Which model to take for which load, as the verdicts on recorded results say it: the table of the page and, shorter, that of
//! README. Pure.

use super::{Recorded, line, plain};
use crate::lab::metrics::judged;
use crate::lab::results::{Results, SubjectKind};
use crate::lab::shape::Shape;
use crate::lab::verdict::{Decision, Verdict, ratio_words, verdicts};
use crate::wording::{count, either};

/// The table of the page; a sentence if nothing was decided.
pub(super) fn table(recorded: &[Recorded]) -> String {
    let verdicts: Vec<Verdict> = recorded.iter().flat_map(deciding).collect();
    if verdicts.is_empty() {
        return "The recorded runs decide nothing: there are too few pairs of them.\n".to_owned();
    }
    let heads = ["load", "take", "by", "what others cost"].map(str::to_owned);
    let mut text = line(&heads) + "|---|---|---|---|\n";
    for verdict in &verdicts {
        let by = verdict.judged.words.to_owned();
        text += &line(&[load(&verdict.shape), taken(verdict), by, others(verdict)]);
    }
    text
}

/// The verdicts on models by the figure that matters most, those that decide something.
fn deciding(recorded: &Recorded) -> Vec<Verdict> {
    let is_peer = |kind| kind == SubjectKind::Peer;
    let models = recorded.results.cells.iter().filter(|cell| !is_peer(cell.subject.kind));
    let results = Results { cells: models.cloned().collect(), ..recorded.results.clone() };
    let of_first = |verdict: &Verdict| {
        judged(verdict.shape.kind).first().is_some_and(|first| *first == verdict.judged)
    };
    let decided = |verdict: &Verdict| verdict.decision != Decision::Undecided;
    verdicts(&results).into_iter().filter(of_first).filter(decided).collect()
}

/// A shape in the words of a user.
fn load(shape: &Shape) -> String {
    let Shape { kind, connections, busy, record_bytes, batch_ms, .. } = shape;
    let busy = if busy < connections { format!(", {busy} of them busy") } else { String::new() };
    let connections = count(*connections, "connection");
    format!(
        "{}: {connections}{busy}, records of {record_bytes} B, batches of {batch_ms} ms",
        kind.name()
    )
}

fn taken(verdict: &Verdict) -> String {
    let names = |labels: &[String]| {
        let names: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        either(&names)
    };
    match &verdict.decision {
        Decision::Leads(label) => names(std::slice::from_ref(label)),
        Decision::Lead(labels) => names(labels),
        Decision::NoDifference => "any: no difference that these runs can show".to_owned(),
        Decision::Undecided => "undecided".to_owned(),
    }
}

/// The subjects that are separated from the best one, with their ratios to it.
fn others(verdict: &Verdict) -> String {
    let best = verdict.comparisons.first().map(|first| first.better.as_str());
    let behind =
        verdict.comparisons.iter().filter(|it| Some(it.better.as_str()) == best && it.separated);
    let words: Vec<String> =
        behind.map(|it| format!("{} {}", plain(&it.worse), ratio_words(&it.ratio))).collect();
    if words.is_empty() { "–".to_owned() } else { words.join("; ") }
}
