//! Reads results from files, which may come from anybody: bounded in size, and every figure checked before it is used. Main
//! thread. Knows nothing of what is made of them.
//!
//! A field that this version does not know is ignored. A newer format is refused, for its known fields may mean something else.

use std::path::Path;

use super::protocol::LATENCY_MAX;
use super::report_files;
use super::results::{Cell, FORMAT, Figures, Results};
use crate::error::{Error, Result};
use crate::metrics::STAGES;

/// The largest file that is read: 40 pairs of a hundred latency cells fit.
const BYTES_MAX: u64 = 256 << 20;

/// The longest name of a subject, and the longest other text that is shown in a line.
const NAME_CHARS_MAX: usize = 100;
const TEXT_BYTES_MAX: usize = 16 << 10;

/// The most subjects of a shape: each two of them are compared.
const SUBJECTS_MAX: usize = 32;

/// The largest figure of a shape: a year in milliseconds, and more connections than a machine has.
const SHAPE_MAX: u64 = 366 * 24 * 3_600 * 1_000;

/// The most values of one run: sums of them stay far from overflow.
const COUNT_MAX: u64 = 1 << 50;

/// The results in a file that `compare` wrote.
///
/// # Errors
/// If it cannot be read, holds no results, or results that no measurement gives; with the place and the remedy.
pub(crate) fn read(path: &Path) -> Result<Results> {
    let text = report_files::read(path, BYTES_MAX)?;
    parse(&text).map_err(|why| {
        Error::Failed(format!(
            "{}: {why}; it takes a file that `tidemill compare` wrote (compare.json, or --json)",
            path.display()
        ))
    })
}

/// The results in a text.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn parse(text: &str) -> Result<Results, String> {
    let results: Results = serde_json::from_str(text).map_err(|err| err.to_string())?;
    match results.format {
        0 => return Err("it names no `format`".to_owned()),
        1..=FORMAT => {}
        newer => {
            let version = &results.tool.version;
            return Err(format!(
                "it has format {newer}, which tidemill {version} wrote, and this program reads up to {FORMAT}: use that version"
            ));
        }
    }
    check(&results)?;
    Ok(results)
}

fn check(results: &Results) -> Result<(), String> {
    let facts = results.options.iter().chain(&results.machine.facts);
    facts.flat_map(|fact| [&fact.name, &fact.value]).try_for_each(|text| short("a fact", text))?;
    short("command_line", &results.command_line)?;
    for (at, cell) in results.cells.iter().enumerate() {
        check_cell(cell).map_err(|why| format!("cells[{at}]: {why}"))?;
        for (run, figures) in cell.done() {
            check_figures(figures)
                .map_err(|why| format!("cells[{at}], the run of pair {}: {why}", run.pair))?;
        }
    }
    match results.by_shape().iter().find(|(_, cells)| cells.len() > SUBJECTS_MAX) {
        Some((shape, _)) => {
            Err(format!("more than {SUBJECTS_MAX} cells have one shape: {}", shape.words()))
        }
        None => Ok(()),
    }
}

fn check_cell(cell: &Cell) -> Result<(), String> {
    let name = &cell.subject.name;
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        return Err(format!("a name of 1 to {NAME_CHARS_MAX} characters is expected"));
    }
    let shape = cell.shape;
    let figures = [
        shape.connections,
        shape.busy,
        shape.record_bytes,
        shape.batch_ms,
        shape.block_ms,
        shape.load_percent.unwrap_or(0),
    ];
    if figures.iter().any(|figure| *figure > SHAPE_MAX) {
        return Err("a figure of its shape is too large".to_owned());
    }
    cell.not_run.iter().try_for_each(|why| short("not_run", why))?;
    cell.failures().try_for_each(|why| short("a failure", why))
}

fn check_figures(figures: &Figures) -> Result<(), String> {
    let times = [
        ("seconds", figures.seconds),
        ("cpu", figures.cpu),
        ("between", figures.between),
        ("sent.seconds", figures.sent.seconds),
        ("sent.cpu", figures.sent.cpu),
    ];
    let wrong = times.iter().find(|(_, time)| !time.is_finite() || *time < 0.0);
    if let Some((name, time)) = wrong {
        return Err(format!("{name} is {time}, which is no time"));
    }
    let mut all = 0_u64;
    for (nanos, count) in &figures.latencies {
        all = all.saturating_add(*count);
        if *nanos > LATENCY_MAX || all > COUNT_MAX {
            return Err(format!("a latency of {nanos} ns, {count} times, is too much"));
        }
    }
    if figures.stages.as_ref().is_some_and(|stages| stages.times.len() > STAGES.len()) {
        return Err(format!("there are at most {} stages", STAGES.len()));
    }
    short("used", &figures.used)
}

fn short(name: &str, text: &str) -> Result<(), String> {
    match text.len() {
        0..=TEXT_BYTES_MAX => Ok(()),
        long => Err(format!("{name} has {long} bytes, of at most {TEXT_BYTES_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lab::models;
    use crate::lab::results::{Run, RunOutcome, Subject};
    use crate::lab::shape::{Kind, Shape};

    /// Results of two models, and of every kind of load.
    fn results() -> Results {
        let cells = Kind::ALL.iter().flat_map(|(kind, _)| {
            ["nio", "aio"].map(|name| {
                let runs = (0..8).map(|pair| {
                    let figures = Figures {
                        seconds: 1.0,
                        bytes: 1_000 + pair,
                        cpu: 0.5,
                        latencies: vec![(1_000_000 + pair * 50_000, 100), (9_000_000, 2)],
                        ..Figures::default()
                    };
                    Run { pair, turn: pair, outcome: RunOutcome::Done(Box::new(figures)) }
                });
                Cell {
                    subject: Subject { name: name.to_owned(), ..Subject::default() },
                    shape: Shape { kind: *kind, connections: 3, batch_ms: 1, ..Shape::default() },
                    runs: runs.collect(),
                    ..Cell::default()
                }
            })
        });
        Results { format: FORMAT, cells: cells.collect(), ..Results::default() }
    }

    #[test]
    fn what_was_written_is_read() {
        let text = serde_json::to_string(&results()).expect("plain data");
        assert_eq!(parse(&text), Ok(results()));
    }

    #[test]
    fn what_is_no_results_is_refused_with_the_reason() {
        let check = |text: &str, expected: &str| {
            let why = parse(text).expect_err(expected);
            assert!(why.contains(expected), "{text}: {why}");
        };
        let cell =
            |rest: &str| format!(r#"{{"format":1,"cells":[{{"subject":{{"name":"x"}},{rest}}}]}}"#);
        let run = |figures: &str| {
            cell(&format!(r#""runs":[{{"pair":3,"turn":0,"outcome":{{"done":{{{figures}}}}}}}]"#))
        };
        check("", "EOF");
        check("[]", "no `format`");
        check("{}", "no `format`");
        check(r#"{"format":2,"tool":{"version":"9.0"}}"#, "tidemill 9.0 wrote");
        check(r#"{"format":-1}"#, "line 1");
        check(r#"{"format":1,"cells":[{}]}"#, "cells[0]: a name");
        check(&cell(r#""shape":{"connections":18446744073709551615}"#), "too large");
        check(&run(r#""seconds":-1.0"#), "cells[0], the run of pair 3: seconds is -1");
        check(&run(r#""seconds":1e999"#), "out of range");
        check(&run(r#""latencies":[[1,18446744073709551615]]"#), "too much");
        check(&run(r#""latencies":[[18446744073709551615,1]]"#), "too much");
        check(
            &format!(r#"{{"format":1,"cells":[{}]}}"#, ["{}"; 4_001].join(",")),
            "more than 4000",
        );
        let cells = [r#"{"subject":{"name":"x"}}"#; 33].join(",");
        check(&format!(r#"{{"format":1,"cells":[{cells}]}}"#), "more than 32 cells");
        check(&format!(r#"{{"later":{}"#, "[".repeat(100_000)), "EOF");
        check(&"[".repeat(100_000), "line 1");
        assert!(parse(&run(r#""later":{"x":[1,2]},"seconds":1.0"#)).is_ok(), "unknown fields");
    }

    proptest! {
        #[test]
        fn damaged_results_are_refused_or_shown(at in 0_usize..20_000, byte in any::<u8>()) {
            let mut text = serde_json::to_vec(&results()).expect("plain data");
            let at = at % text.len();
            text[at] = byte;
            if let Some(read) = std::str::from_utf8(&text).ok().and_then(|text| parse(text).ok()) {
                prop_assert!(models::shown(&read).contains("nio"), "all but one of its names are whole");
            }
        }
    }
}
