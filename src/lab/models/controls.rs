//! Controls of the verdicts on recorded runs: a model against itself, and against itself with a slow-down that was planted.
//!
//! The runs were recorded on a busy machine, whose figures are noisy, by `tidemill compare --models nio,nio --only throughput
//! --connections 1 --record 64KiB --repeats 60`. Each experiment draws pairs of them in an order of its own, as many as a real
//! comparison would make, so it needs no machine and gives the same every time.

use crate::lab::results::{Cell, Results, Run, RunOutcome};
use crate::lab::results_file::parse;
use crate::lab::verdict::{Decision, Verdict, verdicts};
use crate::load::Random;

use super::rounds::round;

const RECORDED: &str = include_str!("controls/same-model.json");

const EXPERIMENTS: u64 = 100;

/// The verdicts of a comparison that gets the pairs of recorded cells in the order of this seed. The second model takes
/// `slower` times as long, and as much processor time.
fn experiment(recorded: &[Cell], seed: u64, slower: f64) -> Vec<Verdict> {
    let order = shuffled(recorded[0].runs.len(), seed);
    let mut cells: Vec<Cell> =
        recorded.iter().map(|cell| Cell { runs: Vec::new(), ..cell.clone() }).collect();
    for (pair, at) in (0..).zip(order) {
        if round(&cells, pair, None).is_empty() {
            break;
        }
        for (cell, recorded) in cells.iter_mut().zip(recorded) {
            let mut run = Run { pair, ..recorded.runs[at].clone() };
            if let RunOutcome::Done(figures) = &mut run.outcome
                && cell.subject.twin > 0
            {
                figures.seconds *= slower;
                figures.cpu *= slower;
            }
            cell.runs.push(run);
        }
    }
    verdicts(&Results { cells, ..Results::default() })
}

fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        let other = usize::try_from(random.below(at as u64 + 1)).expect("a position");
        order.swap(at, other);
    }
    order
}

/// Number of experiments with a verdict for which `is` holds.
fn experiments(slower: f64, is: fn(&Verdict) -> bool) -> u64 {
    let recorded = parse(RECORDED).expect("it was recorded");
    let any = |seed: &u64| experiment(&recorded.cells, *seed, slower).iter().any(is);
    (0..EXPERIMENTS).filter(any).count() as u64
}

#[test]
fn a_model_against_itself_is_no_difference() {
    let separated = |verdict: &Verdict| verdict.decision != Decision::NoDifference;
    let wrong = experiments(1.0, separated);
    assert!(wrong <= 5, "{wrong} of {EXPERIMENTS} are separated");
}

#[test]
fn a_planted_slow_down_of_10_percent_is_found() {
    let found = |verdict: &Verdict| verdict.decision == Decision::Leads("nio".to_owned());
    let found = experiments(1.1, found);
    assert!(found >= 80, "found in {found} of {EXPERIMENTS}");
}
