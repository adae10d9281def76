//! Pages of made-up results: every kind of shape, a busy machine, a run that failed, single runs.

use super::*;
use crate::lab::protocol::{Sent, Slow, Spread};
use crate::lab::results::{
    Cell, End, Fact, Figures, Load, Machine, Run, RunOutcome, Search, SoakSecond, Stages, Subject,
    SubjectKind, Tool,
};
use crate::lab::sample::Sample;
use crate::lab::shape::{Kind, Shape};
use crate::metrics::STAGES;

/// Pairs of every cell, and of those whose verdict is decided.
const PAIRS: u64 = 3;
const PAIRS_DECIDED: u64 = 10;

const MODELS: [&str; 6] = ["bio", "pool", "nio", "reactors", "aio", "bare"];

fn subject(name: &str) -> Subject {
    let kind = if name == "bare" { SubjectKind::Bare } else { SubjectKind::Model };
    Subject { kind, name: name.to_owned(), ..Subject::default() }
}

/// A cell whose runs differ by some percent. `place` makes models differ.
fn cell(name: &str, shape: Shape, place: u64) -> Cell {
    let run = |pair: u64| {
        let wobble = 98 + (pair * 7 + place * 3) % 5;
        let figures = figures(&shape, place, wobble);
        Run { pair, turn: pair * 6 + place, outcome: RunOutcome::Done(Box::new(figures)) }
    };
    let decided = shape.kind == Kind::Throughput && shape.connections == 1;
    let runs = (0..if decided { PAIRS_DECIDED } else { PAIRS }).map(run).collect();
    Cell { subject: subject(name), shape, rate: None, not_run: None, runs }
}

fn figures(shape: &Shape, place: u64, percent: u64) -> Figures {
    let of = |value: u64| value * percent / 100;
    let sample = |switches| Sample {
        anonymous_bytes: of(2_000_000) + shape.connections * (900 + place * 300),
        peak_bytes: 9 << 20,
        threads: 4,
        switches,
        files: 12,
    };
    let batch = shape.batch_ms.max(1) * 1_000;
    // Lines spread evenly over the batch, and each waits longer by a skewed time.
    let line = |n: u64| {
        let above = 100 + place * 40 + of(2_000 / (1 + n * 37 % 99));
        ((batch * (n + 1) / 100 + above) * 1_000, 300)
    };
    let spread = |micros: u64| Spread {
        count: 100,
        at: [1, 4, 9, 20].map(|times| of(micros) * times * 1_000),
        max: micros * 40_000,
    };
    let stages = Stages {
        times: (0..STAGES.len() as u64).map(|stage| spread(stage * 11 + place * 5)).collect(),
        ticks: spread(15),
        control: spread(9),
        batches: 1_000,
        ticks_lost: 0,
        slow: Slow { by_stage: [0, 1, 0, 0, 2, 0, 0], machine: 1, longest: 3_000_000 },
    };
    Figures {
        used: "nio".to_owned(),
        seconds: 2.0,
        records: of(4_000_000) + place * 100_000,
        bytes: of(400_000_000) + place * 60_000_000 - shape.connections.min(1_000) * 50_000,
        cpu: 0.3 + 0.02 * crate::settings::units::as_f64(of(10) + place),
        calls: Some(of(40_000)),
        before: Sample { anonymous_bytes: 1 << 20, threads: 3, ..Sample::default() },
        early: sample(1_000),
        late: sample(9_000),
        between: 1.2,
        sent: Sent {
            lines: of(4_000_000),
            seconds: 2.0,
            cpu: 0.9,
            behind_micros: 80,
            ..Sent::default()
        },
        closed: of(60_000),
        latencies: if shape.kind.is_timed() { (0..100).map(line).collect() } else { Vec::new() },
        stages: shape.kind.is_timed().then_some(stages),
        ..Figures::default()
    }
}

fn shape(kind: Kind, connections: u64, record_bytes: u64, batch_ms: u64) -> Shape {
    Shape {
        kind,
        connections,
        busy: connections,
        record_bytes,
        batch_ms,
        block_ms: batch_ms,
        load_percent: None,
    }
}

fn results(measurement: Measurement, cells: Vec<Cell>) -> Results {
    let load =
        Load { wall_seconds: 1_796_000_000, load_average: Some(0.2), steal_percent: Some(0.1) };
    Results {
        format: 1,
        command_line: "tidemill compare --out <b>report</b>".to_owned(),
        tool: Tool {
            version: "0.1.0".to_owned(),
            commit: "0123456789ab".to_owned(),
            build: "release".to_owned(),
            compiler: "rustc 1".to_owned(),
        },
        measurement,
        machine: Machine {
            facts: vec![
                Fact::new("processor", "Some Processor <img onerror=x>"),
                Fact::new("cores", "2"),
            ],
            cores: 2,
            start: load,
            end: load,
        },
        cells,
        ..Results::default()
    }
}

/// Every kind of shape, over numbers of connections, record sizes and intervals.
fn models() -> Results {
    let mut shapes = Vec::new();
    for record in [10, 1_024] {
        shapes.extend(
            [1, 10_000].map(|connections| shape(Kind::Throughput, connections, record, 100)),
        );
    }
    shapes.extend([10, 100].map(|batch| shape(Kind::Latency, 1, 100, batch)));
    shapes.extend([100, 10_000].map(|connections| shape(Kind::Memory, connections, 100, 100)));
    shapes.extend([Kind::Crowd, Kind::Storm, Kind::Slow].map(|kind| shape(kind, 10_001, 100, 100)));
    let mut cells = Vec::new();
    for shape in shapes {
        for (place, name) in (0..).zip(MODELS) {
            if name != "bare" || !shape.kind.is_timed() {
                cells.push(cell(name, shape, place));
            }
        }
    }
    results(Measurement::Models, cells)
}

fn latency() -> Results {
    let mut cells = Vec::new();
    for (batch, load) in [(10, None), (10, Some(70)), (1_000, None), (1_000, Some(70))] {
        let shape = Shape { load_percent: load, ..shape(Kind::Latency, 1, 100, batch) };
        for (place, name) in (0..).zip(&MODELS[..5]) {
            cells.push(Cell { rate: Some(10_000 + place), ..cell(name, shape, place) });
        }
    }
    let search = |name: &&str| Search {
        subject: subject(name),
        batch_ms: 10,
        ceiling: 2_000_000,
        rate: Some(1_800_000),
        tried: vec![(1_900_000, 90_000_000), (1_800_000, 9_000_000)],
    };
    Results {
        searches: MODELS[..5].iter().map(search).collect(),
        ..results(Measurement::Latency, cells)
    }
}

fn soak() -> Results {
    let second = |at: u32| SoakSecond {
        at: f64::from(at),
        sample: Sample { anonymous_bytes: 9 << 20, threads: 6, files: 14, ..Sample::default() },
        batches: 10,
        processing_us: 400.0 + f64::from(at * 13 % 17),
        delay_us: 30.0 + f64::from(at * 7 % 5),
    };
    let mut soaked = cell("nio", shape(Kind::Throughput, 1, 100, 100), 2);
    soaked.runs.truncate(1);
    if let RunOutcome::Done(figures) = &mut soaked.runs[0].outcome {
        (figures.seconds, figures.seconds_of_soak) = (900.0, (1..900).map(second).collect());
    }
    results(Measurement::Soak, vec![soaked])
}

/// The page; also as a file, where `TIDEMILL_PAGES` names a directory: a look at it says more than any test.
fn page(name: &str, results: &Results) -> String {
    let html = html(results, &said(results));
    if let Some(directory) = std::env::var_os("TIDEMILL_PAGES") {
        let json = serde_json::to_string(results).expect("plain data");
        let path = std::path::Path::new(&directory);
        crate::lab::report_files::write(path, &format!("{name}.html"), &html).expect("a page");
        crate::lab::report_files::write(path, &format!("{name}.json"), &json).expect("its results");
    }
    html
}

#[test]
fn a_page_of_models_has_every_kind_and_takes_nothing_as_markup() {
    let html = page("models", &models());
    for title in [
        "Throughput",
        "Latency",
        "Memory of connections",
        "thin ones",
        "A storm",
        "Slow batches",
        "Machine",
    ] {
        assert!(html.contains(title), "{title}");
    }
    for bad in ["<script", "<img", "<b>report", "&amp;lt;"] {
        assert!(!html.contains(bad), "{bad}");
    }
    assert!(html.contains("<a href=\"#s1\">Verdicts</a>") && html.contains("pairs"), "verdicts");
    let plots = html.matches("<svg").count();
    assert!(plots > 15, "{plots}");
    for each in ["<title id=", "<desc id=", "<figcaption>", "<summary>"] {
        assert_eq!(html.matches(each).count(), plots, "{each}");
    }
}

#[test]
fn a_page_of_latencies_compares_models_and_says_where_lines_are_too_few() {
    let html = page("latency", &latency());
    assert!(html.contains("batch 10 ms, 70 % of the highest rate that holds"), "small multiples");
    assert!(html.contains("reactors: longest"), "outliers have notes");
    assert!(html.contains("<td>too few</td>"), "99.99 % needs 100 lines beyond it");
    assert!(html.contains("1.80\u{a0}M\u{a0}lines/s"), "searches");
    assert!(html.contains("a bare timer is late by"), "the machine's part");
}

#[test]
fn a_page_of_a_soak_has_slopes_with_their_meaning() {
    let html = page("soak", &soak());
    assert!(html.contains("The threads:") && html.contains("flat: within the bound"), "{html}");
    assert_eq!(html.matches("<svg").count(), 5);
}

#[test]
fn warnings_come_once_and_a_busy_machine_is_on_every_plot() {
    let mut busy = models();
    busy.machine.start.load_average = Some(4.0);
    busy.quick = true;
    busy.end = End::Interrupted;
    for cell in busy.cells.iter_mut().take(4) {
        cell.runs.push(Run {
            pair: 9,
            turn: 99,
            outcome: RunOutcome::Failed("no answer".to_owned()),
        });
    }
    let html = page("busy", &busy);
    assert!(!html.contains("Verdicts"), "single runs have none");
    let plots = html.matches("<svg").count();
    assert_eq!(html.matches("⚠ busy machine").count(), plots);
    assert_eq!(html.matches("Single runs decide nothing").count(), 1);
    assert_eq!(html.matches("It was interrupted").count(), 1);
    assert_eq!(html.matches("A run of bio failed: no answer").count(), 1);
}

#[test]
fn peers_are_named_with_version_and_command() {
    let mut results = models();
    results.cells.truncate(2);
    for cell in &mut results.cells {
        let (version, command) = (Some("4.9".to_owned()), Some("nc -l <port>".to_owned()));
        cell.subject = Subject {
            kind: SubjectKind::Peer,
            name: "nc".to_owned(),
            version,
            command,
            ..Subject::default()
        };
    }
    let html = html(&results, &[]);
    assert_eq!(html.matches("<dt>nc (4.9)</dt><dd>nc -l &lt;port&gt;</dd>").count(), 1, "{html}");
}

#[test]
fn results_without_figures_make_a_page() {
    for measurement in [Measurement::Models, Measurement::Latency, Measurement::Soak] {
        let mut cell = cell("nio", shape(Kind::Throughput, 1, 100, 100), 0);
        cell.runs.clear();
        let results = results(measurement, vec![cell]);
        assert!(html(&results, &[]).contains("</html>"));
    }
}
