//! `benches/models.md` is what the recorded runs in `benches/results` give, and README shows its table of models. With
//! `TIDEMILL_UPDATE_GOLDEN=1` all of it is written anew. The program makes the page; this must not know how.

#![cfg(not(tidemill_model))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The plots of README: what many busy connections cost, and latency.
const PLOTS: [&str; 2] = ["1-connections-3.svg", "4-latency-1.svg"];

/// The lines of README around its table and plots.
const BEGIN: &str = "<!-- which model: from benches/models.md -->";
const END: &str = "<!-- which model: end -->";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// The files of a directory whose names end like this, sorted.
fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let listed = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(end));
    files.sort();
    files
}

fn is_update() -> bool {
    std::env::var_os("TIDEMILL_UPDATE_GOLDEN").is_some()
}

/// The page of these results, made in `directory`.
fn generate(results: &[PathBuf], directory: &Path) -> PathBuf {
    let page = directory.join("models.md");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("compare").arg("--from").args(results).arg("--markdown").arg(&page);
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    page
}

/// Compares a page and its plots with those of a directory, or writes them there.
fn check(results: &Path, page: &Path) {
    let directory = tempfile::tempdir().expect("a directory");
    let made = generate(&files(results, ".json"), directory.path());
    let plots = files(&directory.path().join("results"), ".svg");
    if is_update() {
        for old in files(results, ".svg") {
            fs::remove_file(old).expect("it was listed");
        }
        fs::copy(&made, page).expect("a file");
        for plot in &plots {
            fs::copy(plot, results.join(plot.file_name().expect("a name"))).expect("a file");
        }
    }
    let help = "cargo test --test models_page with TIDEMILL_UPDATE_GOLDEN=1 writes it anew";
    assert_eq!(read(page), read(&made), "{}: {help}", page.display());
    let names = |files: &[PathBuf]| -> Vec<String> {
        let name =
            |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
        files.iter().map(name).collect()
    };
    assert_eq!(names(&files(results, ".svg")), names(&plots), "{help}");
    for plot in &plots {
        let kept = results.join(plot.file_name().expect("a name"));
        assert_eq!(read(&kept), read(plot), "{}: {help}", kept.display());
    }
}

#[test]
fn recorded_runs_give_a_page() {
    let fixture = root().join("tests/fixtures/models");
    check(&fixture.join("results"), &fixture.join("models.md"));
}

#[test]
fn the_page_of_models_is_that_of_the_recorded_runs() {
    let results = root().join("benches/results");
    if files(&results, ".json").is_empty() {
        return;
    }
    let page = root().join("benches/models.md");
    check(&results, &page);
    let plots = PLOTS.map(|name| picture(&results, name));
    let expected = short_table(&read(&page)) + &plots.concat();
    let readme = root().join("README.md");
    let text = read(&readme);
    let (before, rest) = text.split_once(BEGIN).expect("README has a place for the table");
    let (table, after) = rest.split_once(END).expect("the table of README ends");
    if is_update() {
        fs::write(&readme, format!("{before}{BEGIN}\n{expected}{END}{after}")).expect("a file");
    } else {
        assert_eq!(table.trim_start(), expected, "TIDEMILL_UPDATE_GOLDEN=1 writes it anew");
    }
}

/// A plot as README shows it; nothing if it is not among the recorded ones.
fn picture(results: &Path, name: &str) -> String {
    let Ok(svg) = fs::read_to_string(results.join(name)) else { return String::new() };
    let title = svg.split_once("<title id=\"title\">").and_then(|(_, rest)| rest.split_once('<'));
    let title = title.map_or("", |(title, _)| title);
    format!("\n![{title}](benches/results/{name})\n")
}

/// The load and the model of each line of the page's first table.
fn short_table(page: &str) -> String {
    let lines = page.lines().skip_while(|line| !line.starts_with('|'));
    let cells = lines.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        format!("| {} | {} |\n", cells[1], cells[2])
    });
    cells.collect()
}
