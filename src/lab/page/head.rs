//! The parts that every page has: its title, a first sentence, warnings that each come once, the machine. Pure.

use crate::lab::machine::{busy, date};
use crate::lab::results::{End, Fact, Measurement, Results};
use crate::lab::verdict::Said;
use crate::page::Page;
use crate::wording::count;

pub(super) fn title(results: &Results) -> String {
    let title = match results.measurement {
        Measurement::Models => "Io models side by side",
        Measurement::Latency => "Latency over the floor of the batch interval",
        Measurement::Soak => "A soak: does anything grow?",
    };
    title.to_owned()
}

/// What was measured, when and by which program, in a sentence or two.
pub(super) fn lead(results: &Results) -> String {
    let mut subjects: Vec<String> = Vec::new();
    for cell in &results.cells {
        let label = cell.subject.label();
        if !subjects.contains(&label) {
            subjects.push(label);
        }
    }
    let runs: usize = results.cells.iter().map(|cell| cell.runs.len()).sum();
    let tool = &results.tool;
    format!(
        "{} of {} on {}, made by tidemill {}, commit {}.",
        count(runs, "run"),
        subjects.join(", "),
        date(results.machine.start.wall_seconds),
        tool.version,
        tool.commit
    )
}

/// The mark of every plot of a machine that did other things, too.
pub(super) fn mark(results: &Results) -> Option<&'static str> {
    busy(&results.machine).map(|_| "busy machine")
}

/// Everything that a reader must know before the figures.
pub(super) fn warnings(page: &mut Page, results: &Results) {
    if results.quick {
        page.warn(
            "This is a quick look: one short run each. Single runs decide nothing, so there is no verdict and no ranking \
             here; without --quick there are both.",
        );
    }
    if let Some(why) = busy(&results.machine) {
        page.warn(format!(
            "{why}. Every plot is marked. Figures of a busy machine are not fit to be compared."
        ));
    }
    if results.tool.build.contains("debug") {
        page.warn("This was a debug build, whose figures mean nothing.");
    }
    match results.end {
        End::Complete => {}
        End::TimeLimit => {
            page.warn("The time limit was over before all intervals were narrow enough.")
        }
        End::Interrupted => {
            page.warn("It was interrupted: this is what had been measured until then.")
        }
    }
    for cell in &results.cells {
        for (_, figures) in cell.done() {
            if let Some(why) = &figures.fallback {
                page.warn(format!("{} ran as {}: {why}", cell.subject.label(), figures.used));
            }
            if let Some(why) = &figures.uncounted {
                page.warn(why.clone());
            }
        }
        if let Some(why) = &cell.not_run {
            page.warn(format!("{} was not run: {why}", cell.subject.label()));
        }
        for why in cell.failures() {
            page.warn(format!("A run of {} failed: {why}", cell.subject.label()));
        }
    }
}

/// Every verdict with its shape; nothing of none.
pub(super) fn verdicts(page: &mut Page, said: &[Said]) {
    let lines = said.iter().flat_map(|Said { shape, sentences }| {
        sentences.iter().map(|sentence| format!("{}: {sentence}", shape.words()))
    });
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        page.section("Verdicts");
        page.list("verdicts", &lines);
    }
}

/// The machine, the build and what was asked for.
pub(super) fn machine(page: &mut Page, results: &Results) {
    let Results { tool, machine, options, .. } = results;
    page.section("Machine and build");
    let load = |load: Option<f64>| load.map_or("unknown".to_owned(), |load| format!("{load:.2}"));
    let steal = machine.end.steal_percent;
    let moments = [
        (
            "load average at start and end",
            [machine.start, machine.end].map(|it| load(it.load_average)).join(" and "),
        ),
        ("steal time", steal.map_or("unknown".to_owned(), |steal| format!("{steal:.1} %"))),
        ("from", date(machine.start.wall_seconds)),
        ("to", date(machine.end.wall_seconds)),
    ];
    let tool = [
        ("tidemill", &tool.version),
        ("commit", &tool.commit),
        ("build", &tool.build),
        ("compiler", &tool.compiler),
        ("command", &results.command_line),
    ];
    let facts = machine.facts.iter().map(|fact| (fact.name.as_str(), fact.value.as_str()));
    let moments = moments.iter().map(|(name, value)| (*name, value.as_str()));
    let tool = tool.iter().map(|(name, value)| (*name, value.as_str()));
    page.facts(facts.chain(moments).chain(tool));
    let peers = peers(results);
    if !peers.is_empty() {
        page.section("Other programs");
        page.facts(peers.iter().map(|fact| (fact.name.as_str(), fact.value.as_str())));
    }
    if !options.is_empty() {
        page.section("Options");
        page.facts(options.iter().map(|fact| (fact.name.as_str(), fact.value.as_str())));
    }
}

/// The peers, each once, with their versions and command lines.
fn peers(results: &Results) -> Vec<Fact> {
    let mut peers: Vec<Fact> = Vec::new();
    for subject in results.cells.iter().map(|cell| &cell.subject) {
        let Some(command) = &subject.command else { continue };
        let version = subject.version.as_deref().unwrap_or("unknown version");
        let fact = Fact::new(&format!("{} ({version})", subject.label()), command.as_str());
        if !peers.contains(&fact) {
            peers.push(fact);
        }
    }
    peers
}
