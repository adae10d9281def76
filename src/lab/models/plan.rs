//! The cells of a comparison: pure data. One cell is one combination of everything. Knows neither processes nor reports.

use crate::lab::results::{Cell, Subject, SubjectKind};
use crate::lab::shape::{BARE, Kind, Shape};
use crate::source::io::IO_MODELS;

/// The values that are combined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Names of io models, or [`BARE`]. One that comes twice is compared with itself.
    pub(crate) models: Vec<String>,
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

/// Names that a grid may give as models.
pub(crate) fn names() -> Vec<&'static str> {
    IO_MODELS.iter().map(|row| row.name).chain([BARE]).collect()
}

/// Every cell of the grids, shape by shape, the models of a shape beside each other. A shape that two grids have is that of the
/// first.
pub(crate) fn cells(grids: &[Grid], rate: u64) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    for grid in grids {
        for shape in shapes(grid) {
            if cells.iter().any(|cell| cell.shape == shape) {
                continue;
            }
            let rate = shape.kind.is_timed().then_some(rate);
            let of_shape = subjects(&grid.models).into_iter().filter(|it| fits(it, shape.kind));
            cells.extend(of_shape.map(|subject| {
                let not_run = refused(&subject, &shape);
                Cell { subject, shape, rate, not_run, runs: Vec::new() }
            }));
        }
    }
    cells
}

/// The subjects of these names, each one that came before as a further twin.
pub(crate) fn subjects(names: &[String]) -> Vec<Subject> {
    let mut subjects: Vec<Subject> = Vec::new();
    for name in names {
        let twin = subjects.iter().filter(|before| before.name == *name).count();
        let kind = if name == BARE { SubjectKind::Bare } else { SubjectKind::Model };
        let twin = u32::try_from(twin).unwrap_or(u32::MAX);
        subjects.push(Subject { kind, name: name.clone(), twin, ..Subject::default() });
    }
    subjects
}

/// The bare loop has no batches to time, and reads no connections that come and go.
fn fits(subject: &Subject, kind: Kind) -> bool {
    subject.kind != SubjectKind::Bare || matches!(kind, Kind::Throughput | Kind::Memory)
}

/// The reason why a cell cannot be run, if it cannot.
fn refused(subject: &Subject, shape: &Shape) -> Option<String> {
    let row = IO_MODELS.iter().find(|row| row.name == subject.name)?;
    let most = row.connections_max as u64;
    (shape.connections > most).then(|| format!("{} takes at most {most} connections", row.name))
}

fn shapes(grid: &Grid) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for &kind in &grid.kinds {
        for record_bytes in sizes(grid, kind) {
            for &connections in &grid.connections {
                for &percent in &grid.busy {
                    for (batch_ms, block_ms) in intervals(grid, kind) {
                        let shape = Shape {
                            kind,
                            connections,
                            busy: busy(kind, connections, percent),
                            record_bytes,
                            batch_ms,
                            block_ms,
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
    shapes
}

/// Lines that wait for each other in a queue say nothing of sizes: only throughput takes more than one.
fn sizes(grid: &Grid, kind: Kind) -> Vec<u64> {
    let taken = if kind == Kind::Throughput { grid.records.len() } else { 1 };
    let sizes = grid.records.iter().take(taken).copied();
    sizes.map(|size| if kind.is_timed() { size.max(STAMPED_BYTES_MIN) } else { size }).collect()
}

/// Batch and block intervals. What is idle, and what comes and goes, has no use for more than one.
fn intervals(grid: &Grid, kind: Kind) -> Vec<(u64, u64)> {
    let one = matches!(kind, Kind::Memory | Kind::Storm);
    let taken = |of: &[u64]| of.iter().copied().take(if one { 1 } else { of.len() }).collect();
    let (batches, blocks): (Vec<u64>, Vec<u64>) = (taken(&grid.batches), taken(&grid.blocks));
    let each = |batch: &u64| blocks.iter().map(|block| (*batch, *block.min(batch))).collect();
    batches.iter().flat_map(|batch| -> Vec<(u64, u64)> { each(batch) }).collect()
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn grid() -> Grid {
        Grid {
            models: vec!["bio".to_owned(), "nio".to_owned()],
            kinds: vec![Kind::Throughput],
            connections: vec![1, 100],
            busy: vec![100],
            records: vec![10],
            batches: vec![100],
            blocks: vec![200],
        }
    }

    /// Labels and shapes of the cells.
    fn words(grids: &[Grid]) -> Vec<String> {
        let cells = cells(grids, 1_000);
        cells.iter().map(|it| format!("{} {}", it.subject.label(), it.shape.slug())).collect()
    }

    #[test]
    fn shapes_are_what_makes_sense() {
        let check = |change: fn(&mut Grid), expected: &[&str]| {
            let mut grid = grid();
            change(&mut grid);
            assert_eq!(words(&[grid]), expected);
        };
        check(
            |grid| {
                grid.models = vec!["nio".to_owned(), BARE.to_owned()];
                grid.kinds = vec![Kind::Latency, Kind::Memory, Kind::Storm, Kind::Crowd];
                grid.connections = vec![200];
                grid.busy = vec![1, 50];
            },
            &[
                "nio 200c-2busy-32B-batch100ms-block100ms",
                "nio 200c-100busy-32B-batch100ms-block100ms",
                "nio 200c-1busy-10B-batch100ms-block100ms",
                "bare 200c-1busy-10B-batch100ms-block100ms",
                "nio 200c-200busy-10B-batch100ms-block100ms",
                "nio 200c-200busy-32B-batch100ms-block100ms",
            ],
        );
        check(
            |grid| {
                grid.models = vec!["nio".to_owned()];
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
    fn a_model_can_be_compared_with_itself() {
        let twins = Grid {
            models: ["nio", "aio", "nio"].map(str::to_owned).to_vec(),
            connections: vec![1],
            ..grid()
        };
        let end = "1c-1busy-10B-batch100ms-block100ms";
        assert_eq!(words(&[twins]), ["nio", "aio", "nio (2)"].map(|it| format!("{it} {end}")));
    }

    #[test]
    fn grids_follow_each_other_without_repeating_a_shape() {
        let other = Grid { models: vec!["aio".to_owned()], connections: vec![100, 7], ..grid() };
        let names: Vec<_> = words(&[grid(), other]);
        let names: Vec<_> =
            names.iter().map(|it| it.split_once("c-").expect("a shape").0).collect();
        assert_eq!(names, ["bio 1", "nio 1", "bio 100", "nio 100", "aio 7"]);
    }

    #[test]
    fn a_model_that_cannot_hold_the_connections_is_not_run() {
        let mut grid = grid();
        grid.connections = vec![1_000, 1_001];
        let refused: Vec<_> = cells(&[grid], 1).into_iter().map(|cell| cell.not_run).collect();
        let bio = Some("bio takes at most 1000 connections".to_owned());
        assert_eq!(refused, [None, None, bio, None]);
    }
}
