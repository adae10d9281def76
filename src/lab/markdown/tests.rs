//! Tests of the page from recorded results. The test of a program, `tests/models_page.rs`, looks at the repository's own page.

use super::*;
use crate::lab::results::{Cell, End, Fact, Figures, Run, RunOutcome, Subject, SubjectKind};
use crate::lab::shape::{Kind, Shape};

/// Twelve runs that took these CPU seconds for a GB, with noise of 2 % that differs from side to side.
fn cell(name: &str, kind: SubjectKind, side: usize, cpu: f64) -> Cell {
    let shape =
        Shape { connections: 1, busy: 1, record_bytes: 100, batch_ms: 100, ..Shape::default() };
    let noise = |pair: usize| 1.0 + ((pair * 7 + side * 3) % 11) as f64 / 250.0 - 0.02;
    let run = |pair: usize| {
        let cpu = cpu * noise(pair);
        let figures = Figures { bytes: 1_000_000_000, seconds: 1.0, cpu, ..Figures::default() };
        let pair = pair as u64;
        Run { pair, turn: pair, outcome: RunOutcome::Done(Box::new(figures)) }
    };
    let subject = Subject { name: name.to_owned(), kind, ..Subject::default() };
    Cell { subject, shape, runs: (0..12).map(run).collect(), ..Cell::default() }
}

fn recorded() -> Recorded {
    let mut nc = cell("nc | wc -l", SubjectKind::Peer, 4, 9.0);
    nc.subject.version = Some("netcat <1>".to_owned());
    let absent = Cell {
        runs: Vec::new(),
        not_run: Some("not installed (apt install socat)".to_owned()),
        ..cell("socat | wc -l", SubjectKind::Peer, 0, 1.0)
    };
    let cells = vec![
        cell("bio", SubjectKind::Model, 0, 0.9),
        cell("nio", SubjectKind::Model, 1, 0.3),
        cell("aio", SubjectKind::Model, 2, 0.3),
        cell("bare", SubjectKind::Bare, 3, 0.1),
        nc,
        absent,
    ];
    let mut results =
        Results { cells, command_line: "tidemill compare".to_owned(), ..Results::default() };
    results.machine.facts = vec![Fact::new("processor", "A_B <script>"), Fact::new("cores", "2")];
    Recorded {
        name: "throughput".to_owned(),
        results,
        notes: "# One stream\n\nLook at `bare`.\n".to_owned(),
    }
}

#[test]
fn the_page_has_the_verdicts_the_tables_and_the_plots() {
    let Document { text, plots } =
        document(&[recorded()], "results").expect("notes without figures");
    for part in [
        "| load | take | by | what others cost |",
        "| throughput: 1 connection, records of 100 B, batches of 100 ms | `",
        "` or `",
        "` | processor time per GB | bio ",
        "\n## One stream\n\nLook at `bare`.\n\n```sh\ntidemill compare\n```\n",
        "A\\_B &lt;script&gt;, cores: 2. tidemill",
        "\n### throughput: 1 connection, 100 B, batch 100 ms, block 0 ms\n",
        "- processor time per GB: no difference",
        "](results/throughput-1.svg)",
        "| nc \\| wc -l | 8.98",
        "12; netcat &lt;1&gt; |",
        "not run: not installed (apt install socat) |",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(!text.contains("<script>"), "{text}");
    let names: Vec<&str> = plots.iter().map(|plot| plot.name.as_str()).collect();
    assert_eq!(names, ["throughput-1.svg"]);
    assert!(plots[0].svg.starts_with("<svg xmlns="), "{}", plots[0].svg);
}

#[test]
fn what_was_cut_short_or_was_quick_says_so_and_ranks_nothing() {
    let mut quick = recorded();
    quick.results.quick = true;
    quick.results.end = End::Interrupted;
    quick.results.machine.cores = 2;
    quick.results.machine.start.load_average = Some(1.5);
    let Document { text, plots } = document(&[quick], "results").expect("notes without figures");
    for part in [
        "The recorded runs decide nothing",
        "**single short runs decide nothing.**",
        "**a signal ended it before every run was made.**",
        "**busy machine: the load average was 1.50 on 2 cores at the start.**",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(plots[0].svg.contains("busy machine"), "{}", plots[0].svg);
}

#[test]
fn notes_hold_no_figures() {
    let check = |notes: &str, expected: Option<&str>| {
        let one = Recorded { notes: notes.to_owned(), ..recorded() };
        let found = document(&[one], "results").err().map(|err| err.to_string());
        match expected {
            None => assert_eq!(found, None, "{notes}"),
            Some(line) => assert!(found.is_some_and(|text| text.contains(line)), "{notes}"),
        }
    };
    check("", None);
    check("`--connections 10` shows it, `p99` as well", None);
    check("fine\nhalf as dear, 0.5", Some("throughput.md, line 2"));
    check("`code` then 5 and `code`", Some("line 1"));
}

#[test]
fn every_kind_of_shape_has_a_table() {
    for (kind, name) in Kind::ALL {
        let mut one = recorded();
        one.results.cells.iter_mut().for_each(|cell| cell.shape.kind = kind);
        let text = document(&[one], "results").expect("notes without figures").text;
        assert!(text.contains(&format!("### {name}: 1 connection")), "{text}");
        assert!(text.contains("\n| bio |"), "{text}");
    }
    assert!(document(&[], "results").expect("nothing").text.contains("decide nothing"));
}

#[test]
fn files_lie_beside_the_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("models.md");
    let written = write(&path, &[recorded()]).expect("a directory that takes files");
    assert_eq!(written, [path, directory.path().join("results/throughput-1.svg")]);
    assert!(written.iter().all(|path| path.is_file()));
}
