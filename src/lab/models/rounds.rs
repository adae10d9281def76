//! The order of a comparison's runs, and when a shape has enough of them: pure deciders. Main thread. Knows no process.
//!
//! A round runs every subject of every shape once. Every other round goes through the subjects of a shape backwards, so that
//! none has always the warmer or the cooler machine. The runs of a shape in one round are a pair.

use crate::lab::results::Cell;
use crate::lab::stats::alternating;
use crate::lab::verdict::{is_narrow, pairs_for};

/// The most pairs of a shape if none were asked for: an interval that is wide after that is a property of the machine.
pub(crate) const PAIRS_MAX: u64 = 40;

/// The numbers of pairs after which the intervals are looked at. Looking after every pair would stop at the luckiest one.
const LOOKS: [u64; 8] = [6, 8, 10, 13, 17, 22, 30, PAIRS_MAX];

/// A subject that failed this often in a shape, and never succeeded, is not run there again.
const FAILURES_MAX: usize = 2;

/// The runs of a round, as indices of cells. `repeats`: as many rounds as that; otherwise as many as each shape needs.
pub(super) fn round(cells: &[Cell], round: u64, repeats: Option<u64>) -> Vec<usize> {
    let mut runs = Vec::new();
    let mut start = 0;
    for group in cells.chunk_by(|a, b| a.shape == b.shape) {
        let able: Vec<usize> = (0..group.len()).filter(|at| is_able(&group[*at])).collect();
        if wants(group, &able, round, repeats) {
            let turns = alternating(usize::try_from(round).unwrap_or(0), able.len());
            runs.extend(turns.map(|turn| start + able[turn]));
        }
        start += group.len();
    }
    runs
}

/// The fewest runs that there will be.
pub(crate) fn runs_min(cells: &[Cell], repeats: Option<u64>) -> u64 {
    let of_shape = |group: &[Cell]| {
        let able = group.iter().filter(|cell| is_able(cell)).count();
        repeats.unwrap_or_else(|| pairs_for(able)).saturating_mul(able as u64)
    };
    cells.chunk_by(|a, b| a.shape == b.shape).map(of_shape).sum()
}

fn is_able(cell: &Cell) -> bool {
    let hopeless = cell.done().next().is_none() && cell.failures().count() >= FAILURES_MAX;
    cell.not_run.is_none() && !hopeless
}

fn wants(group: &[Cell], able: &[usize], round: u64, repeats: Option<u64>) -> bool {
    if let Some(repeats) = repeats {
        return round < repeats;
    }
    let least = pairs_for(able.len());
    if round < least || round >= PAIRS_MAX {
        return round < least;
    }
    // A shape that was left out of the round before had enough.
    let had_enough = !group.iter().flat_map(|cell| &cell.runs).any(|run| run.pair + 1 == round);
    let cells: Vec<&Cell> = able.iter().map(|at| &group[*at]).collect();
    let is_look = round == least || LOOKS.contains(&round);
    !(had_enough || is_look && is_narrow(&cells))
}

#[cfg(test)]
mod tests {
    use super::super::plan::{cells, tests::grid};
    use super::*;
    use crate::lab::results::{Figures, Run, RunOutcome};

    /// Two shapes of two models; each run of the first shape takes these CPU seconds, and those of the second always the same.
    fn measured(rounds: u64, cpu: fn(u64) -> f64) -> Vec<Cell> {
        let mut cells = cells(&[grid()], 1);
        for (at, cell) in cells.iter_mut().enumerate() {
            let runs = (0..rounds).map(|pair| {
                let cpu = if at < 2 { cpu(pair * 3 + at as u64) } else { 1.0 };
                let bytes = 1_000_000_000;
                let figures = Figures { bytes, seconds: 1.0, cpu, ..Figures::default() };
                Run { pair, turn: 0, outcome: RunOutcome::Done(Box::new(figures)) }
            });
            cell.runs = runs.collect();
        }
        cells
    }

    #[test]
    fn the_order_alternates() {
        let check = |at, repeats, expected: &[usize]| {
            assert_eq!(round(&cells(&[grid()], 1), at, repeats), expected, "{at}");
        };
        check(0, None, &[0, 1, 2, 3]);
        check(1, None, &[1, 0, 3, 2]);
        check(2, Some(3), &[0, 1, 2, 3]);
        check(3, Some(3), &[]);
        assert!(round(&[], 0, None).is_empty());
    }

    #[test]
    fn a_shape_is_run_until_its_intervals_are_narrow() {
        let wild = |at: u64| 1.0 + ((at * 7) % 5) as f64 / 4.0;
        let check = |rounds, cpu: fn(u64) -> f64, expected: usize| {
            assert_eq!(round(&measured(rounds, cpu), rounds, None).len(), expected, "{rounds}");
        };
        check(5, |_| 1.0, 4);
        check(6, |_| 1.0, 0);
        check(6, wild, 2);
        check(7, wild, 4);
        check(8, wild, 2);
        check(40, wild, 0);
        let mut cells = measured(7, wild);
        cells[2..].iter_mut().for_each(|cell| cell.runs.truncate(6));
        assert_eq!(round(&cells, 7, None), [1, 0], "what had enough at a look stays so");
        assert_eq!(runs_min(&measured(0, wild), None), 4 * 6);
        assert_eq!(runs_min(&measured(0, wild), Some(3)), 4 * 3);
    }

    #[test]
    fn a_model_that_only_fails_is_given_up() {
        let mut cells = cells(&[grid()], 1);
        let failed = |pair| Run { pair, turn: 0, outcome: RunOutcome::Failed("no".to_owned()) };
        cells[0].runs = vec![failed(0), failed(1)];
        cells[1].runs = vec![failed(0)];
        assert_eq!(round(&cells, 2, Some(9)), [1, 2, 3]);
    }
}
