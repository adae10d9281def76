//! Results of several files together: one set for one page, what differs between their machines, and how each model changed.
//! Pure; any thread. Knows no file.
//!
//! Runs of different files were not made side by side, so they have no pairs: intervals between files are those of two samples.

use super::interval::{Interval, unpaired};
use super::metrics::{Judged, by_pair, judged};
use super::results::{Cell, Fact, Machine, Results};
use super::shape::Shape;
use super::verdict::{Comparison, Said, is_separated, ratio_words, verdicts};
use crate::settings::units::as_f64;

/// The chance that a shape and figure shows one change between two files where there is none.
const DOUBT: f64 = 0.05;

/// The fewest runs of each file that can show a change.
const RUNS_MIN: usize = 5;

/// Results with the name of their file.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) results: Results,
}

/// One set of results: every cell with the name of its file, those of a shape beside each other. A fact that is not the same in
/// every file has all of its values.
pub(crate) fn together(files: &[Named]) -> Results {
    let Some(first) = files.first() else { return Results::default() };
    let mut results = first.results.clone();
    let named =
        files.iter().flat_map(|file| file.results.cells.iter().map(move |cell| named(file, cell)));
    let cells: Vec<Cell> = named.collect();
    let mut shapes: Vec<Shape> = Vec::new();
    cells.iter().for_each(|cell| {
        if !shapes.contains(&cell.shape) {
            shapes.push(cell.shape);
        }
    });
    let of_shape =
        |shape: &Shape| cells.iter().filter(|cell| cell.shape == *shape).cloned().collect();
    results.cells = shapes.iter().flat_map(|shape| -> Vec<Cell> { of_shape(shape) }).collect();
    results.quick = files.iter().any(|file| file.results.quick);
    results.options = facts(files, |results| results.options.clone());
    results.machine = Machine { facts: facts(files, machine), ..first.results.machine.clone() };
    for file in &files[1..] {
        let machine = &file.results.machine;
        let worst = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        let all = &mut results.machine;
        all.start.load_average = worst(all.start.load_average, machine.start.load_average);
        all.end.steal_percent = worst(all.end.steal_percent, machine.end.steal_percent);
        results.searches.extend(file.results.searches.iter().cloned());
    }
    results
}

fn named(file: &Named, cell: &Cell) -> Cell {
    let mut cell = cell.clone();
    cell.subject.origin = Some(file.name.clone());
    cell
}

/// The facts that are not the same in all files, each with the values of all.
pub(crate) fn differences(files: &[Named]) -> Vec<Fact> {
    let all = facts(files, machine);
    let first = files.first().map(|file| machine(&file.results)).unwrap_or_default();
    all.into_iter().filter(|fact| !first.contains(fact)).collect()
}

/// The facts of the machine and of the program.
fn machine(results: &Results) -> Vec<Fact> {
    let tool = &results.tool;
    let mut facts = results.machine.facts.clone();
    facts.extend([
        Fact::new("tidemill", tool.version.clone()),
        Fact::new("commit", tool.commit.clone()),
        Fact::new("build", tool.build.clone()),
        Fact::new("compiler", tool.compiler.clone()),
    ]);
    facts
}

fn facts(files: &[Named], of: impl Fn(&Results) -> Vec<Fact>) -> Vec<Fact> {
    let each: Vec<Vec<Fact>> = files.iter().map(|file| of(&file.results)).collect();
    let mut names: Vec<&str> = Vec::new();
    each.iter().flatten().for_each(|fact| {
        if !names.contains(&fact.name.as_str()) {
            names.push(&fact.name);
        }
    });
    let value = |facts: &[Fact], name: &str| {
        facts
            .iter()
            .find(|fact| fact.name == name)
            .map_or("unknown".to_owned(), |it| it.value.clone())
    };
    let fact = |name: &str| {
        let values: Vec<String> = each.iter().map(|facts| value(facts, name)).collect();
        if values.iter().all(|value| *value == values[0]) {
            return Fact::new(name, values[0].clone());
        }
        let named = values.iter().zip(files).map(|(value, file)| format!("{}: {value}", file.name));
        Fact::new(name, named.collect::<Vec<_>>().join("; "))
    };
    names.into_iter().map(fact).collect()
}

/// The sentences on each shape: the verdict of each file, and the change from the first file to each other.
pub(crate) fn said(files: &[Named]) -> Vec<Said> {
    let shapes: Vec<Shape> = together(files).by_shape().iter().map(|(shape, _)| *shape).collect();
    let all: Vec<(&Named, _)> = files.iter().map(|file| (file, verdicts(&file.results))).collect();
    let on = |shape: Shape| {
        let verdicts = all.iter().flat_map(|(file, verdicts)| {
            let of_shape = verdicts.iter().filter(move |verdict| verdict.shape == shape);
            of_shape.map(|verdict| format!("{}: {}", file.name, verdict.sentence))
        });
        let changes = files[1..].iter().flat_map(|after| changes(&files[0], after, &shape));
        Said { shape, sentences: verdicts.chain(changes).collect() }
    };
    shapes.into_iter().map(on).collect()
}

/// A sentence for each figure of a shape that both files have: which model changed by how much.
fn changes(before: &Named, after: &Named, shape: &Shape) -> Vec<String> {
    if before.results.quick || after.results.quick {
        return Vec::new();
    }
    judged(shape.kind).iter().filter_map(|judged| change(before, after, shape, judged)).collect()
}

fn change(before: &Named, after: &Named, shape: &Shape, judged: &Judged) -> Option<String> {
    let cells = |file: &'_ Named| {
        let of_shape = file.results.cells.iter().filter(|cell| cell.shape == *shape);
        of_shape.map(|cell| (cell.subject.label(), values(cell, judged))).collect::<Vec<_>>()
    };
    let (old, new) = (cells(before), cells(after));
    let both = new.iter().filter_map(|(label, after)| {
        let (_, before) = old.iter().find(|(other, _)| other == label)?;
        let enough = before.len().min(after.len()) >= RUNS_MIN;
        enough.then_some((label, before, after))
    });
    let both: Vec<_> = both.collect();
    let doubt = DOUBT / as_f64(both.len().max(1) as u64);
    let ratios = both
        .iter()
        .filter_map(|(label, before, after)| Some((*label, unpaired(after, before, doubt)?)));
    let ratios: Vec<(&String, Interval)> = ratios.collect();
    if ratios.is_empty() {
        return None;
    }
    let changed = ratios.iter().filter(|(_, ratio)| is_separated(ratio));
    let changed: Vec<String> =
        changed.map(|(label, ratio)| format!("{label} {}", ratio_words(ratio))).collect();
    let changed = match changed.is_empty() {
        true => "no change that these runs can show".to_owned(),
        false => changed.join("; "),
    };
    Some(format!("{} in {} beside {}: {changed}", judged.words, after.name, before.name))
}

fn values(cell: &Cell, judged: &Judged) -> Vec<f64> {
    by_pair(judged.metric, cell).into_iter().map(|(_, value)| value).collect()
}

/// Each two subjects that one file separates one way and another file the other way: on one machine there should be none.
pub(crate) fn contradictions(files: &[Named]) -> Vec<String> {
    let mut found = Vec::new();
    let all: Vec<(&Named, _)> = files.iter().map(|file| (file, verdicts(&file.results))).collect();
    for (at, (first, verdicts)) in all.iter().enumerate() {
        for (second, others) in &all[at + 1..] {
            for verdict in verdicts {
                let same = |other: &&super::verdict::Verdict| {
                    other.shape == verdict.shape && other.judged == verdict.judged
                };
                let Some(other) = others.iter().find(same) else { continue };
                let turned = |it: &&Comparison| {
                    let against = |o: &Comparison| {
                        o.separated && o.better == it.worse && o.worse == it.better
                    };
                    it.separated && other.comparisons.iter().any(against)
                };
                found.extend(verdict.comparisons.iter().filter(turned).map(|it| {
                    format!(
                        "{} ({}): {} is better than {} in {}, and worse in {}",
                        verdict.judged.words,
                        verdict.shape.words(),
                        it.better,
                        it.worse,
                        first.name,
                        second.name
                    )
                }));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::results::{Figures, Run, RunOutcome, Subject, Tool};

    /// A file whose models took these CPU seconds for a GB, with a little noise.
    fn file(name: &str, models: &[(&str, f64)]) -> Named {
        let cell = |(at, (name, cpu)): (usize, &(&str, f64))| {
            let runs = (0..12_u64).map(|pair| {
                let noise = as_f64((pair * 7 + at as u64 * 3) % 11) / 250.0;
                let (bytes, seconds, cpu) = (1_000_000_000, 1.0, cpu * (1.0 + noise));
                let figures = Figures { bytes, seconds, cpu, ..Figures::default() };
                Run { pair, turn: 0, outcome: RunOutcome::Done(Box::new(figures)) }
            });
            let subject = Subject { name: (*name).to_owned(), ..Subject::default() };
            Cell { subject, runs: runs.collect(), ..Cell::default() }
        };
        let cells = models.iter().enumerate().map(cell).collect();
        let facts = vec![Fact::new("processor", "same"), Fact::new("kernel", format!("of {name}"))];
        let machine = Machine { facts, ..Machine::default() };
        let tool = Tool { commit: "c".to_owned(), ..Tool::default() };
        Named {
            name: name.to_owned(),
            results: Results { cells, machine, tool, ..Results::default() },
        }
    }

    #[test]
    fn files_are_one_set_of_results() {
        let files = [file("a", &[("nio", 1.0)]), file("b", &[("nio", 1.0), ("aio", 2.0)])];
        let all = together(&files);
        let labels: Vec<String> = all.cells.iter().map(|cell| cell.subject.label()).collect();
        assert_eq!(labels, ["nio, a", "nio, b", "aio, b"]);
        let differs = differences(&files);
        assert_eq!(differs, [Fact::new("kernel", "a: of a; b: of b")]);
        assert!(together(&[]).cells.is_empty());
    }

    #[test]
    fn changes_are_told_in_sentences() {
        let check = |after: &[(&str, f64)], expected: &str| {
            let files = [file("a", &[("nio", 1.0), ("aio", 1.0)]), file("b", after)];
            let said = said(&files);
            let sentences = &said[0].sentences;
            let change = sentences.iter().find(|it| it.starts_with("processor time per GB in b"));
            let change = change.expect("both have the figure");
            assert!(change.contains(expected), "{change}");
        };
        check(&[("nio", 1.0), ("aio", 1.0)], "beside a: no change that these runs can show");
        check(&[("nio", 1.5), ("aio", 1.0)], "beside a: nio 50 % more (");
        check(&[("aio", 0.25)], "beside a: aio 0.25 times as much (");
    }

    #[test]
    fn a_pair_that_is_separated_the_other_way_is_named() {
        let ahead = |name| file(name, &[("nio", 1.0), ("aio", 2.0)]);
        let behind = file("c", &[("nio", 2.0), ("aio", 1.0)]);
        let equal = file("d", &[("nio", 1.0), ("aio", 1.0)]);
        assert!(contradictions(&[ahead("a"), ahead("b"), equal]).is_empty());
        let found = contradictions(&[ahead("a"), behind]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with("nio is better than aio in a, and worse in c"), "{found:?}");
    }
}
