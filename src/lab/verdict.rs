//! The verdict on each shape, in a sentence: which model leads by how much, or that this run shows no difference. Made from
//! results alone; pure; any thread. Knows no page.
//!
//! ```text
//! runs of a shape ─▶ ratios of each two subjects over their common pairs ─▶ intervals ─▶ separated or not ─▶ sentence
//! ```
//! Two subjects are separated if the interval of their ratio lies beyond [`MARGIN`] on one side of 1. The doubt of a shape is
//! shared by all its comparisons, so that one model of six does not win by chance alone.

use super::interval::{Interval, outliers, paired, pairs_min};
use super::metrics::{Better, Judged, by_pair, judged};
use super::results::{Cell, Results, SubjectKind};
use super::shape::Shape;
use super::stats::median;
use crate::settings::units::as_f64;
use crate::wording::count;

/// The chance that one of the comparisons of a shape and figure separates what is equal.
const DOUBT: f64 = 0.05;

/// A difference below 1 % is none, whatever its interval: the layout of memory alone makes as much.
const MARGIN: f64 = 0.01;

/// An interval is narrow if it reaches at most this far to each side, or a quarter of the difference that it shows.
const NARROW: f64 = 0.05;
const NARROW_PART: f64 = 0.25;

/// The verdict on a shape by one figure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) shape: Shape,
    pub(crate) judged: Judged,
    pub(crate) decision: Decision,
    /// The whole verdict, in a sentence or two.
    pub(crate) sentence: String,
    /// Each two subjects, the better one first.
    pub(crate) comparisons: Vec<Comparison>,
    /// The most pairs that two subjects have.
    pub(crate) pairs: u64,
    /// Runs far from the other runs of their subject. They are part of every figure.
    pub(crate) outliers: u64,
    /// About how many pairs would make every interval narrow, or the fewest that can decide; `None`: they are narrow.
    pub(crate) needed: Option<u64>,
}

/// The sentences on a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) shape: Shape,
    pub(crate) sentences: Vec<String>,
}

/// The kinds of verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The subject of this label is separated from all others.
    Leads(String),
    /// These are not separated from the best one, but from every other subject: two or more.
    Lead(Vec<String>),
    /// No two subjects can be told apart, as far as this run shows.
    NoDifference,
    /// Too few pairs to decide anything, or single runs.
    Undecided,
}

/// Two subjects of a shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Comparison {
    /// The label of the one whose median is better.
    pub(crate) better: String,
    pub(crate) worse: String,
    /// The figure of the worse one over that of the better one.
    pub(crate) ratio: Interval,
    pub(crate) pairs: u64,
    pub(crate) separated: bool,
}

/// The verdicts on all shapes of which two subjects have figures, in their order.
pub(crate) fn verdicts(results: &Results) -> Vec<Verdict> {
    let groups = results.by_shape();
    let of_shape = |(shape, cells): &(Shape, Vec<&Cell>)| {
        let judged = judged(shape.kind).iter();
        judged.filter_map(|judged| verdict(shape, cells, judged, results.quick)).collect::<Vec<_>>()
    };
    groups.iter().flat_map(of_shape).collect()
}

/// The sentences of the verdicts on all shapes, in their order.
pub(crate) fn said(results: &Results) -> Vec<Said> {
    let verdicts = verdicts(results);
    let on = |shape: Shape| {
        let of_shape = verdicts.iter().filter(|verdict| verdict.shape == shape);
        Said { shape, sentences: of_shape.map(|verdict| verdict.sentence.clone()).collect() }
    };
    results.by_shape().into_iter().map(|(shape, _)| on(shape)).collect()
}

/// True if more pairs of these cells, which are of one shape, would tell nothing that matters.
pub(crate) fn is_narrow(cells: &[&Cell]) -> bool {
    let Some(first) = cells.first() else { return true };
    judged(first.shape.kind).iter().all(|judged| {
        let found = verdict(&first.shape, cells, judged, false);
        found.is_none_or(|found| found.decision != Decision::Undecided && found.needed.is_none())
    })
}

/// The fewest pairs with which this many subjects can be told apart.
pub(crate) fn pairs_for(subjects: usize) -> u64 {
    pairs_min(doubt(subjects))
}

fn doubt(subjects: usize) -> f64 {
    let comparisons = subjects * subjects.saturating_sub(1) / 2;
    DOUBT / as_f64(comparisons.max(1) as u64)
}

/// A subject's figures.
struct Side {
    label: String,
    by_pair: Vec<(u64, f64)>,
}

impl Side {
    fn of(cell: &Cell, judged: &Judged) -> Option<Side> {
        let by_pair = by_pair(judged.metric, cell);
        (!by_pair.is_empty()).then(|| Side { label: cell.subject.label(), by_pair })
    }

    fn values(&self) -> Vec<f64> {
        self.by_pair.iter().map(|(_, value)| *value).collect()
    }

    /// This side's figures over those of another one, for each pair that both have.
    fn over(&self, other: &Side) -> Vec<f64> {
        let ratio = |(pair, value): &(u64, f64)| {
            let beside = other.by_pair.iter().find(|(beside, _)| beside == pair)?.1;
            Some(value / beside)
        };
        self.by_pair.iter().filter_map(ratio).collect()
    }
}

fn verdict(shape: &Shape, cells: &[&Cell], judged: &Judged, quick: bool) -> Option<Verdict> {
    let mut sides = sides(cells, judged);
    let better = |side: &Side| match judged.better {
        Better::More => -median(&side.values()),
        Better::Less => median(&side.values()),
    };
    sides.sort_by(|a, b| better(a).total_cmp(&better(b)));
    let (best, _) = sides.split_first().filter(|(_, others)| !others.is_empty())?;
    let doubt = doubt(sides.len());
    let each_two = sides.iter().enumerate().flat_map(|(at, better)| {
        sides[at + 1..].iter().map(move |worse| (better, worse, worse.over(better)))
    });
    let each_two: Vec<(&Side, &Side, Vec<f64>)> = each_two.collect();
    let pairs = each_two.iter().map(|(_, _, ratios)| ratios.len() as u64).max().unwrap_or(0);
    let fewest = each_two.iter().map(|(_, _, ratios)| ratios.len() as u64).min().unwrap_or(0);
    let decided = !quick && fewest >= pairs_min(doubt);
    let compared = each_two.iter().filter_map(|(better, worse, ratios)| {
        let ratio = paired(ratios, doubt)?;
        Some(Comparison {
            better: better.label.clone(),
            worse: worse.label.clone(),
            ratio,
            pairs: ratios.len() as u64,
            separated: decided && is_separated(&ratio),
        })
    });
    let comparisons: Vec<Comparison> = if quick { Vec::new() } else { compared.collect() };
    let decision =
        if decided { decide(&best.label, &sides, &comparisons) } else { Decision::Undecided };
    let needed = match decided {
        true => comparisons.iter().filter_map(needed).max(),
        false => Some(pairs_min(doubt)),
    };
    let outliers = sides.iter().map(|side| outliers(&side.values())).sum();
    let judged = *judged;
    let mut verdict = Verdict {
        shape: *shape,
        judged,
        decision,
        sentence: String::new(),
        comparisons,
        pairs,
        outliers,
        needed,
    };
    verdict.sentence = sentence(&verdict, quick);
    Some(verdict)
}

/// The subjects that are compared: models and peers; the bare loop only if there is no second one of those.
fn sides(cells: &[&Cell], judged: &Judged) -> Vec<Side> {
    let engines = cells.iter().filter(|cell| cell.subject.kind != SubjectKind::Bare);
    let engines: Vec<Side> = engines.filter_map(|cell| Side::of(cell, judged)).collect();
    let sides = match engines.len() {
        0 | 1 => cells.iter().filter_map(|cell| Side::of(cell, judged)).collect(),
        _ => engines,
    };
    without_the_few(sides)
}

/// Leaves out subjects with too few runs where two others have enough: one that mostly fails must not keep the others from a
/// verdict.
fn without_the_few(sides: Vec<Side>) -> Vec<Side> {
    let least = pairs_for(sides.len());
    let has_enough = |side: &Side| side.by_pair.len() as u64 >= least;
    if sides.iter().filter(|side| has_enough(side)).count() < 2 {
        return sides;
    }
    sides.into_iter().filter(has_enough).collect()
}

pub(super) fn is_separated(ratio: &Interval) -> bool {
    ratio.low.ln() > MARGIN || ratio.high.ln() < -MARGIN
}

/// About how many pairs make an interval narrow; `None`: it is.
fn needed(comparison: &Comparison) -> Option<u64> {
    let Interval { middle, .. } = comparison.ratio;
    let wanted = NARROW.max(middle.ln().abs() * NARROW_PART);
    let times = (comparison.ratio.half_width() / wanted).powi(2);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let pairs = (as_f64(comparison.pairs) * times).ceil() as u64;
    (pairs > comparison.pairs).then_some(pairs)
}

fn decide(best: &str, sides: &[Side], comparisons: &[Comparison]) -> Decision {
    let with_best = |label: &str| {
        comparisons.iter().any(|it| it.better == best && it.worse == label && it.separated)
    };
    let labels = sides.iter().map(|side| side.label.clone());
    let (behind, beside): (Vec<String>, Vec<String>) = labels.partition(|label| with_best(label));
    match (&beside[..], behind.is_empty()) {
        ([only], _) => Decision::Leads(only.clone()),
        (_, false) => Decision::Lead(beside),
        (_, true) if comparisons.iter().any(|it| it.separated) => Decision::Lead(beside),
        (_, true) => Decision::NoDifference,
    }
}

fn sentence(verdict: &Verdict, quick: bool) -> String {
    let words = verdict.judged.words;
    let pairs = count(verdict.pairs, "pair");
    if quick {
        return format!("{words}: single short runs decide nothing");
    }
    let needed = verdict.needed;
    let would = |pairs: u64| format!("would need about {}", count(pairs, "pair"));
    let said = match &verdict.decision {
        Decision::Undecided => {
            let least = needed.map_or(String::new(), |least| {
                format!("; it takes at least {}", count(least, "pair"))
            });
            return format!("{words}: {pairs} cannot decide it{least}");
        }
        Decision::NoDifference => {
            let widest = widest(&verdict.comparisons);
            let widest = widest.map_or(String::new(), |it| format!("; {}", pair_words(it)));
            format!("no difference that this run can show{widest}")
        }
        Decision::Leads(label) => format!("{label} leads{}", behind(verdict, label)),
        Decision::Lead(labels) => {
            let best = labels.first().map_or("", String::as_str);
            let no = "no difference that this run can show";
            format!("{no} between {}{}", all_of(labels), behind(verdict, best))
        }
    };
    let outliers = match verdict.outliers {
        0 => String::new(),
        some => format!(", {}", count(some, "outlier")),
    };
    let more = needed.map_or(String::new(), |needed| {
        format!("; {:.0} % to each side {}", NARROW * 100.0, would(needed))
    });
    format!("{words}: {said} ({pairs}{outliers}{more})")
}

/// The subjects that are separated from the best one, with how much more or less they have.
fn behind(verdict: &Verdict, best: &str) -> String {
    let comparisons = verdict.comparisons.iter();
    let behind = comparisons.filter(|it| it.better == best && it.separated);
    let words = behind.map(|it| format!("; {} {}", it.worse, ratio_words(&it.ratio)));
    words.collect::<String>()
}

fn widest(comparisons: &[Comparison]) -> Option<&Comparison> {
    comparisons.iter().max_by(|a, b| a.ratio.half_width().total_cmp(&b.ratio.half_width()))
}

fn pair_words(comparison: &Comparison) -> String {
    let Comparison { better, worse, ratio, .. } = comparison;
    format!("least certain: {worse} {} of {better}", percent_range(ratio))
}

/// `97 % to 104 %`.
fn percent_range(ratio: &Interval) -> String {
    format!("{:.0} % to {:.0} %", ratio.low * 100.0, ratio.high * 100.0)
}

/// A ratio with its interval: `12 % more (8 % to 15 %)`, `2.10 times as much (1.95 to 2.31)`.
pub(super) fn ratio_words(ratio: &Interval) -> String {
    let Interval { low, middle, high } = *ratio;
    let (percent, word): (fn(f64) -> f64, &str) = match middle {
        ..0.5 | 2.0.. => {
            return format!("{middle:.2} times as much ({low:.2} to {high:.2})");
        }
        1.0.. => (|ratio| (ratio - 1.0) * 100.0, "more"),
        _ => (|ratio| (1.0 - ratio) * 100.0, "less"),
    };
    let (one, other) = (percent(low), percent(high));
    let (least, most) = (one.min(other), one.max(other));
    format!("{:.0} % {word} ({least:.0} % to {most:.0} %)", percent(middle))
}

/// `a, b and c`.
fn all_of(labels: &[String]) -> String {
    match labels {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::results::{Figures, Run, RunOutcome, Subject};
    use crate::lab::shape::Kind;

    /// A cell whose runs took these CPU seconds for a GB, at the same rate.
    fn cell(name: &str, kind: SubjectKind, cpu: &[f64]) -> Cell {
        let subject = Subject { name: name.to_owned(), kind, ..Subject::default() };
        let shape = Shape { kind: Kind::Throughput, connections: 1, ..Shape::default() };
        let runs = cpu.iter().zip(0..).map(|(cpu, pair)| {
            let (bytes, seconds) = (1_000_000_000, 1.0);
            let figures = Figures { bytes, seconds, cpu: *cpu, ..Figures::default() };
            Run { pair, turn: pair, outcome: RunOutcome::Done(Box::new(figures)) }
        });
        Cell { subject, shape, runs: runs.collect(), ..Cell::default() }
    }

    /// Noise of 2 %, which is not the same for any two sides.
    fn runs(side: usize, pairs: usize, cpu: f64) -> Vec<f64> {
        let noise = |pair: usize| ((pair * 7 + side * 3) % 11) as f64 / 250.0 - 0.02;
        (0..pairs).map(|pair| cpu * (1.0 + noise(pair))).collect()
    }

    /// The first verdict, on processor time, of models with these CPU seconds for a GB.
    fn first(pairs: usize, models: &[(&str, f64)]) -> Verdict {
        let cells = models
            .iter()
            .enumerate()
            .map(|(side, (name, cpu))| cell(name, SubjectKind::Model, &runs(side, pairs, *cpu)));
        let results = Results { cells: cells.collect(), ..Results::default() };
        verdicts(&results).swap_remove(0)
    }

    /// Two models with the interval of the second one's figures over the first one's.
    fn compared(better: &str, worse: &str, [low, middle, high]: [f64; 3]) -> Comparison {
        let ratio = Interval { low, middle, high };
        let (better, worse) = (better.to_owned(), worse.to_owned());
        Comparison { better, worse, ratio, pairs: 12, separated: is_separated(&ratio) }
    }

    #[test]
    fn sentences() {
        let words = |labels: &[&str]| labels.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let check = |decision: Decision, comparisons: &[Comparison], needed, expected: &str| {
            let verdict = Verdict {
                shape: Shape::default(),
                judged: judged(Kind::Throughput)[0],
                decision,
                sentence: String::new(),
                comparisons: comparisons.to_vec(),
                pairs: 12,
                outliers: u64::from(needed == Some(30)),
                needed,
            };
            let said = sentence(&verdict, false);
            assert_eq!(said, format!("processor time per GB: {expected}"));
        };
        let far = compared("nio", "bio", [2.9, 3.0, 3.11]);
        let near = compared("nio", "aio", [0.98, 1.005, 1.02]);
        check(
            Decision::Leads("nio".to_owned()),
            &[compared("nio", "bio", [1.31, 1.33, 1.36]), far.clone()],
            None,
            "nio leads; bio 33 % more (31 % to 36 %); bio 3.00 times as much (2.90 to 3.11) (12 pairs)",
        );
        check(
            Decision::Lead(words(&["nio", "aio"])),
            &[near.clone(), far],
            None,
            "no difference that this run can show between nio and aio; bio 3.00 times as much (2.90 to 3.11) (12 pairs)",
        );
        check(
            Decision::NoDifference,
            std::slice::from_ref(&near),
            Some(30),
            "no difference that this run can show; least certain: aio 98 % to 102 % of nio (12 pairs, 1 outlier; 5 % to each side \
             would need about 30 pairs)",
        );
        check(
            Decision::Undecided,
            &[near],
            Some(15),
            "12 pairs cannot decide it; it takes at least 15 pairs",
        );
    }

    #[test]
    fn decisions() {
        let check = |pairs, models: &[(&str, f64)], expected| {
            assert_eq!(first(pairs, models).decision, expected, "{models:?}");
        };
        check(12, &[("bio", 0.4), ("nio", 0.3)], Decision::Leads("nio".to_owned()));
        check(12, &[("nio", 0.3), ("aio", 0.3)], Decision::NoDifference);
        check(
            9,
            &[("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0), ("e", 5.0), ("f", 6.0)],
            Decision::Undecided,
        );
        let both = ["nio", "aio"].map(str::to_owned).to_vec();
        check(12, &[("bio", 0.9), ("nio", 0.3), ("aio", 0.3)], Decision::Lead(both));
    }

    #[test]
    fn the_bare_loop_is_compared_only_with_a_single_model() {
        let bare = cell("bare", SubjectKind::Bare, &runs(0, 12, 0.1));
        let nio = cell("nio", SubjectKind::Model, &runs(1, 12, 0.3));
        let aio = cell("aio", SubjectKind::Model, &runs(2, 12, 0.6));
        let check = |cells: &[&Cell], expected: &str| {
            let cells = cells.iter().map(|cell| (*cell).clone()).collect();
            let verdict = verdicts(&Results { cells, ..Results::default() }).swap_remove(0);
            assert_eq!(verdict.decision, Decision::Leads(expected.to_owned()));
        };
        check(&[&bare, &nio, &aio], "nio");
        check(&[&bare, &nio], "bare");
        assert!(verdicts(&Results { cells: vec![nio], ..Results::default() }).is_empty());
    }

    #[test]
    fn a_model_that_mostly_fails_keeps_no_other_from_a_verdict() {
        let verdict = |pool: usize| {
            let cells = [("nio", 12, 0.3), ("bio", 12, 0.4), ("pool", pool, 0.9)];
            let cells = cells.iter().enumerate().map(|(side, (name, pairs, cpu))| {
                cell(name, SubjectKind::Model, &runs(side, *pairs, *cpu))
            });
            verdicts(&Results { cells: cells.collect(), ..Results::default() }).swap_remove(0)
        };
        assert_eq!((verdict(12).comparisons.len(), verdict(2).comparisons.len()), (3, 1));
        assert_eq!(verdict(2).decision, Decision::Leads("nio".to_owned()));
    }

    #[test]
    fn single_runs_are_no_ranking() {
        let cells = ["nio", "aio"].map(|name| cell(name, SubjectKind::Model, &runs(0, 20, 1.0)));
        let results = Results { quick: true, cells: cells.to_vec(), ..Results::default() };
        for verdict in verdicts(&results) {
            assert_eq!((verdict.decision, verdict.comparisons), (Decision::Undecided, Vec::new()));
            assert!(verdict.sentence.ends_with("single short runs decide nothing"));
        }
    }

    #[test]
    fn only_common_pairs_are_compared() {
        let mut nio = cell("nio", SubjectKind::Model, &runs(0, 14, 0.3));
        let aio = cell("aio", SubjectKind::Model, &runs(1, 12, 0.4));
        for run in &mut nio.runs[..2] {
            run.outcome = RunOutcome::Failed("gone".to_owned());
        }
        let found = verdicts(&Results { cells: vec![nio, aio], ..Results::default() });
        assert_eq!((found[0].pairs, found[0].comparisons[0].pairs), (10, 10));
    }

    #[test]
    fn a_wide_interval_asks_for_more_pairs() {
        let mut wild = runs(0, 10, 1.0);
        wild.iter_mut().enumerate().for_each(|(at, cpu)| *cpu *= 1.0 + 0.1 * (at % 4) as f64);
        let cells = [
            cell("nio", SubjectKind::Model, &wild),
            cell("aio", SubjectKind::Model, &runs(1, 10, 1.0)),
        ];
        assert!(!is_narrow(&cells.iter().collect::<Vec<_>>()));
        let results = Results { cells: cells.to_vec(), ..Results::default() };
        let verdict = verdicts(&results).swap_remove(0);
        assert!(verdict.needed.is_some_and(|needed| (11..200).contains(&needed)), "{verdict:?}");
        assert!(verdict.sentence.contains("5 % to each side would need about"), "{verdict:?}");
        let calm = [1, 2].map(|side| cell("nio", SubjectKind::Model, &runs(side, 20, 1.0)));
        assert!(is_narrow(&calm.iter().collect::<Vec<_>>()));
    }
}
