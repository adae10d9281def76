//! The file of `compare --plan`: tables of what is combined, each as the options of the command line name it. Main thread. Knows
//! no run.
//!
//! ```toml
//! [shapes.fat]
//! measure = ["throughput"]
//! models = ["nio", "aio", "bare"]
//! connections = [1, 100]
//! record = ["100", "64KiB"]
//! ```

use std::path::Path;
use std::time::Duration;

use super::plan::{Grid, names};
use crate::error::{Error, Result};
use crate::lab::report_files;
use crate::lab::shape::Kind;
use crate::settings::diagnostics::{Problem, Problems, Texts};
use crate::settings::section::Section;
use crate::settings::tree::parse;
use crate::settings::{suggest, units};

/// A plan that is longer is another file.
const BYTES_MAX: u64 = 1 << 20;

/// Reads a plan: a grid for each table of `shapes`, in the order of the file. What a table does not name is that of `usual`.
///
/// # Errors
/// If the file cannot be read, and every mistake in it with line and remedy.
pub(crate) fn read(path: &Path, usual: &Grid) -> Result<Vec<Grid>> {
    let name = path.display().to_string();
    let text = report_files::read(path, BYTES_MAX)?;
    let problems = Problems::default();
    let grids = grids(&text, usual, &problems);
    problems.finish(&Texts { origin: Some(&name), text: &text, flags: Vec::new() })?;
    if grids.is_empty() {
        let text =
            format!("error: {name} has no table `[shapes.NAME]`: there is nothing to compare");
        return Err(Error::Config(text));
    }
    Ok(grids)
}

fn grids(text: &str, usual: &Grid, problems: &Problems) -> Vec<Grid> {
    let table = parse(text, &|name| std::env::var(name).ok(), problems);
    let mut root = Section::root_of("a plan", &table, problems);
    let tables = root.named("shapes");
    let grids = tables.into_iter().filter_map(|(_, section)| Some(grid(section?, usual))).collect();
    root.finish();
    grids
}

fn grid(mut section: Section<'_>, usual: &Grid) -> Grid {
    let at_least = |least: u64, read: fn(&str) -> Result<u64, String>| {
        move |text: &str| read(text).and_then(|number| checked(number, least))
    };
    let read = Grid {
        models: section.typed("models", model).unwrap_or_else(|| usual.models.clone()),
        kinds: section.typed("measure", kind).unwrap_or_else(|| usual.kinds.clone()),
        connections: section
            .typed("connections", at_least(1, units::typed_count))
            .unwrap_or_else(|| usual.connections.clone()),
        busy: section.typed("busy", percent).unwrap_or_else(|| usual.busy.clone()),
        records: section
            .typed("record", at_least(2, units::typed_bytes))
            .unwrap_or_else(|| usual.records.clone()),
        batches: section.typed("batch", millis).unwrap_or_else(|| usual.batches.clone()),
        blocks: section.typed("block", millis).unwrap_or_else(|| usual.blocks.clone()),
    };
    if section.is_empty() {
        let problem = Problem::new(&section.at, format!("{} is empty", section.what()));
        section.problems.add(problem.hint("name at least one of its keys, such as `measure`"));
    }
    section.finish();
    read
}

/// The name of a model, or `bare`.
///
/// # Errors
/// If there is none of that name.
pub(crate) fn model(text: &str) -> Result<String, String> {
    let names = names();
    match names.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("unknown model `{text}`: {}", suggest::hint(text, "models", &names))),
    }
}

fn kind(text: &str) -> Result<Kind, String> {
    let names = Kind::ALL.map(|(_, name)| name);
    let found = Kind::ALL.iter().find(|(_, name)| *name == text);
    found.map(|(kind, _)| *kind).ok_or_else(|| {
        format!("unknown measurement `{text}`: {}", suggest::hint(text, "measurements", &names))
    })
}

fn checked(number: u64, least: u64) -> Result<u64, String> {
    if number < least { Err(format!("{number} is less than {least}")) } else { Ok(number) }
}

fn percent(text: &str) -> Result<u64, String> {
    let number = units::typed_count(text)?;
    if number > 100 { Err(format!("{number} is more than 100 percent")) } else { Ok(number) }
}

/// Whole milliseconds, at least one.
///
/// # Errors
/// If it is no such time.
pub(crate) fn millis(text: &str) -> Result<u64, String> {
    let time = units::typed_seconds(text)?;
    let millis = u64::try_from(time.as_millis()).unwrap_or(0);
    let whole = millis > 0 && Duration::from_millis(millis) == time;
    whole.then_some(millis).ok_or_else(|| "an interval is in whole milliseconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::grid as usual;
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Grid>> {
        let problems = Problems::default();
        let grids = grids(text, &usual(), &problems);
        problems.finish(&Texts { origin: Some("plan.toml"), text, flags: Vec::new() })?;
        Ok(grids)
    }

    #[test]
    fn tables_are_grids_and_the_rest_is_usual() {
        let text = "[shapes.a]\nmodels = [\"nio\", \"nio\"]\nmeasure = \"storm\"\nbatch = [\"10ms\"]\n\
            [shapes.b]\nconnections = [1, \"10k\"]\nrecord = [\"64KiB\"]\nbusy = 5\nblock = \"5ms\"\n";
        let first = Grid {
            models: vec!["nio".to_owned(), "nio".to_owned()],
            kinds: vec![Kind::Storm],
            batches: vec![10],
            ..usual()
        };
        let second = Grid {
            connections: vec![1, 10_000],
            records: vec![65_536],
            busy: vec![5],
            blocks: vec![5],
            ..usual()
        };
        assert_eq!(read_text(text).expect("a plan"), [first, second]);
    }

    #[test]
    fn mistakes_have_their_line_and_remedy() {
        let check = |line: &str, expected: &str| {
            let text = format!("[shapes.a]\n{line}\n");
            let said = read_text(&text).expect_err("a mistake").to_string();
            assert!(said.contains(expected) && said.contains("plan.toml:2"), "{line}: {said}");
        };
        check("models = [\"noi\"]", "did you mean `nio`?");
        check("measure = [\"throughputs\"]", "did you mean `throughput`?");
        check("connections = [0]", "0 is less than 1");
        check("connections = []", "must have 1 to");
        check("connections = [true]", "a list of numbers or strings");
        check("record = 1", "1 is less than 2");
        check("busy = [101]", "101 is more than 100 percent");
        check("batch = \"0.5ms\"", "whole milliseconds");
        check("conections = 1", "did you mean `connections`?");
        let said = read_text("shape = 1").expect_err("a mistake").to_string();
        assert!(said.contains("of a plan"), "{said}");
    }

    #[test]
    fn a_table_without_keys_is_a_mistake() {
        let said = read_text("[shapes.a]\n").expect_err("it is empty").to_string();
        assert!(said.contains("shapes `a` is empty"), "{said}");
    }
}
