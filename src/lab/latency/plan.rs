//! The cells of `compare --latency` and the order of its runs. Pure.

use super::Options;
use crate::lab::results::{Cell, Search, Subject};
use crate::lab::shape::{Kind, Shape};
use crate::lab::stats::alternating;
use crate::load::LINE_LEN;

/// An io model.
pub(super) fn subject(model: &str) -> Subject {
    Subject { name: model.to_owned(), ..Subject::default() }
}

/// Every cell, interval by interval and load by load, the models of both beside each other. A model that held no rate has
/// no cell at a part of it.
pub(super) fn cells(options: &Options, searches: &[Search]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &batch_ms in &options.batches {
        let loads = std::iter::once(None).chain(options.loads.iter().copied().map(Some));
        for load_percent in loads {
            let shape = shape(batch_ms, load_percent);
            cells.extend(options.models.iter().filter_map(|model| {
                let rate = match load_percent {
                    None => options.rate,
                    Some(load) => {
                        let held = searches.iter().find(|search| {
                            search.subject.name == *model && search.batch_ms == batch_ms
                        });
                        (held?.rate?.saturating_mul(load) / 100).max(1)
                    }
                };
                Some(Cell { subject: subject(model), shape, rate: Some(rate), ..Cell::default() })
            }));
        }
    }
    cells
}

fn shape(batch_ms: u64, load_percent: Option<u64>) -> Shape {
    Shape {
        kind: Kind::Latency,
        connections: 1,
        busy: 1,
        record_bytes: LINE_LEN as u64,
        batch_ms,
        block_ms: BLOCK_MS.min(batch_ms),
        load_percent,
    }
}

/// The block interval of an engine that is not told another one, in milliseconds.
const BLOCK_MS: u64 = 200;

/// The order of the runs, as indices of cells that can be run: every repeat goes through all shapes, and every other one
/// through the models of a shape from the last to the first.
pub(super) fn order(cells: &[Cell], repeats: usize) -> Vec<usize> {
    let mut runs = Vec::new();
    for repeat in 0..repeats {
        let mut start = 0;
        for group in cells.chunk_by(|a, b| a.shape == b.shape) {
            let turns = alternating(repeat, group.len()).map(|turn| start + turn);
            runs.extend(turns.filter(|at| cells[*at].not_run.is_none()));
            start += group.len();
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::lab::protocol::Work;
    use crate::sync::StopToken;

    fn options() -> Options {
        Options {
            models: ["nio", "aio"].map(str::to_owned).to_vec(),
            batches: vec![10, 1_000],
            rate: 5_000,
            loads: vec![70],
            work: Work::Stamps,
            workers: None,
            limit: Duration::from_secs(1),
            length: Duration::from_secs(1),
            repeats: 2,
            control_ms: None,
            out: PathBuf::new(),
            program: PathBuf::new(),
            command_line: String::new(),
            stop: StopToken::new(),
        }
    }

    fn search(model: &str, batch_ms: u64, rate: Option<u64>) -> Search {
        Search { subject: subject(model), batch_ms, rate, ..Search::default() }
    }

    #[test]
    fn models_stand_beside_each_other_and_each_has_a_part_of_its_own_rate() {
        let searches = [
            search("nio", 10, Some(1_000)),
            search("aio", 10, None),
            search("aio", 1_000, Some(1)),
        ];
        let mut cells = cells(&options(), &searches);
        let found: Vec<_> = cells
            .iter()
            .map(|cell| {
                let Shape { batch_ms, load_percent, .. } = cell.shape;
                (cell.subject.name.as_str(), batch_ms, load_percent, cell.rate)
            })
            .collect();
        let expected = [
            ("nio", 10, None, Some(5_000)),
            ("aio", 10, None, Some(5_000)),
            ("nio", 10, Some(70), Some(700)),
            ("nio", 1_000, None, Some(5_000)),
            ("aio", 1_000, None, Some(5_000)),
            ("aio", 1_000, Some(70), Some(1)),
        ];
        assert_eq!(found, expected);
        assert_eq!(order(&cells, 2), [0, 1, 2, 3, 4, 5, 1, 0, 2, 4, 3, 5]);
        cells[1].not_run = Some("not here".to_owned());
        assert_eq!(order(&cells, 2), [0, 2, 3, 4, 5, 0, 2, 4, 3, 5]);
    }
}
