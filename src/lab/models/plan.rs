//! The cells of a comparison and the order of its runs: pure data. One cell is one combination of everything; a run is a
//! cell and a repeat. Knows neither processes nor reports.

use crate::lab::shape::{BARE, Kind, Shape};
use crate::lab::stats::alternating;
use crate::source::io::{IO_MODELS, IoModel};

/// The values that are combined.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    /// Names of io models, or [`BARE`].
    pub(crate) models: Vec<&'static str>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) connections: Vec<u64>,
    /// Shares of the connections that are sent to, in percent; the others are idle.
    pub(crate) busy: Vec<u64>,
    /// Bytes of a record with its line feed.
    pub(crate) records: Vec<u64>,
    /// Batch intervals in milliseconds.
    pub(crate) batches: Vec<u64>,
    /// Block intervals in milliseconds.
    pub(crate) blocks: Vec<u64>,
}

/// The least length of a line with a stamp.
pub(crate) const STAMPED_BYTES_MIN: u64 = 32;

/// A shape and the model that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) model: &'static str,
    pub(crate) shape: Shape,
}

impl Cell {
    /// The reason why this cell cannot be run, if it cannot.
    pub(crate) fn refused(&self) -> Option<String> {
        let row = IO_MODELS.iter().find(|row| row.name == self.model)?;
        let most = row.connections_max as u64;
        (self.shape.connections > most)
            .then(|| format!("{} takes at most {most} connections", row.name))
    }

    /// The io model of the cell; none for the baseline.
    pub(crate) fn io_model(&self) -> Option<IoModel> {
        IoModel::by_name(self.model)
    }
}

/// Every cell, shape by shape, the models of a shape beside each other.
pub(crate) fn cells(grid: &Grid) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    for shape in shapes(grid) {
        let models = grid.models.iter().copied();
        let fits = models.filter(|model| *model != BARE || !shape.kind.is_timed());
        cells.extend(fits.map(|model| Cell { model, shape }));
    }
    cells
}

fn shapes(grid: &Grid) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for &kind in &grid.kinds {
        // Lines that wait for each other in a queue say nothing of sizes: latency and memory take one size,
        // and what is idle has no use for intervals.
        let sizes = if kind == Kind::Throughput { &grid.records[..] } else { &grid.records[..1] };
        let one = kind == Kind::Memory;
        let batches = if one { &grid.batches[..1] } else { &grid.batches[..] };
        let blocks = if one { &grid.blocks[..1] } else { &grid.blocks[..] };
        for &record_bytes in sizes {
            for &connections in &grid.connections {
                for &percent in &grid.busy {
                    for &batch_ms in batches {
                        for &block in blocks {
                            let shape = Shape {
                                kind,
                                connections,
                                busy: busy(kind, connections, percent),
                                record_bytes: least(kind, record_bytes),
                                batch_ms,
                                block_ms: block.min(batch_ms),
                                load_percent: None,
                            };
                            if !shapes.contains(&shape) {
                                shapes.push(shape);
                            }
                        }
                    }
                }
            }
        }
    }
    shapes
}

fn busy(kind: Kind, connections: u64, percent: u64) -> u64 {
    match kind {
        Kind::Memory => 1,
        Kind::Crowd | Kind::Storm => connections,
        Kind::Throughput | Kind::Latency | Kind::Slow => {
            (connections.saturating_mul(percent) / 100).clamp(1, connections.max(1))
        }
    }
}

fn least(kind: Kind, record_bytes: u64) -> u64 {
    if kind.is_timed() { record_bytes.max(STAMPED_BYTES_MIN) } else { record_bytes }
}

/// The order of the runs, as indices of cells: every repeat goes through all shapes, and every other one through the
/// models of a shape from the last to the first, so that none has always the warmer or the cooler machine.
pub(crate) fn order(cells: &[Cell], repeats: usize) -> Vec<usize> {
    let mut runs = Vec::new();
    for repeat in 0..repeats {
        let mut start = 0;
        for group in cells.chunk_by(|a, b| a.shape == b.shape) {
            runs.extend(alternating(repeat, group.len()).map(|turn| start + turn));
            start += group.len();
        }
    }
    runs
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn grid() -> Grid {
        Grid {
            models: vec!["bio", "nio"],
            kinds: vec![Kind::Throughput],
            connections: vec![1, 100],
            busy: vec![100],
            records: vec![10],
            batches: vec![100],
            blocks: vec![200],
        }
    }

    #[test]
    fn the_order_alternates() {
        let cells = cells(&grid());
        let names: Vec<_> = cells.iter().map(|cell| (cell.model, cell.shape.connections)).collect();
        assert_eq!(names, [("bio", 1), ("nio", 1), ("bio", 100), ("nio", 100)]);
        assert_eq!(order(&cells, 1), [0, 1, 2, 3]);
        assert_eq!(order(&cells, 3), [0, 1, 2, 3, 1, 0, 3, 2, 0, 1, 2, 3]);
        assert!(order(&[], 3).is_empty());
    }

    #[test]
    fn shapes_are_what_makes_sense() {
        let check = |change: fn(&mut Grid), expected: &[&str]| {
            let mut grid = grid();
            change(&mut grid);
            let words: Vec<_> =
                cells(&grid).iter().map(|c| format!("{} {}", c.model, c.shape.slug())).collect();
            assert_eq!(words, expected);
        };
        check(
            |grid| {
                grid.models = vec!["nio", BARE];
                grid.kinds = vec![Kind::Latency, Kind::Memory];
                grid.connections = vec![200];
                grid.busy = vec![1, 50];
            },
            &[
                "nio 200c-2busy-32B-batch100ms-block100ms",
                "nio 200c-100busy-32B-batch100ms-block100ms",
                "nio 200c-1busy-10B-batch100ms-block100ms",
                "bare 200c-1busy-10B-batch100ms-block100ms",
            ],
        );
        check(
            |grid| {
                grid.models = vec!["nio"];
                grid.connections = vec![1];
                grid.batches = vec![10, 100];
                grid.blocks = vec![5, 50];
                grid.busy = vec![1];
            },
            &[
                "nio 1c-1busy-10B-batch10ms-block5ms",
                "nio 1c-1busy-10B-batch10ms-block10ms",
                "nio 1c-1busy-10B-batch100ms-block5ms",
                "nio 1c-1busy-10B-batch100ms-block50ms",
            ],
        );
    }

    #[test]
    fn a_model_that_cannot_hold_the_connections_is_not_run() {
        let mut grid = grid();
        grid.connections = vec![1_000, 1_001];
        let refused: Vec<_> = cells(&grid).iter().map(Cell::refused).collect();
        let bio = Some("bio takes at most 1000 connections".to_owned());
        assert_eq!(refused, [None, None, bio, None]);
    }
}
