//! The documents say what is so: every pipeline of README and guide is good, every link leads somewhere, every key, condition
//! and metric has the name that the program gives it. Rust blocks are documentation tests (`src/lib.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidemill::internals::sink::SINKS;
use tidemill::internals::source::SOURCES;
use tidemill::internals::stream::jobs::JOBS;
use tidemill::metrics::CONDITIONS;

/// What stands behind a fragment that has no job or no sink, so that it is a whole pipeline.
const SOURCE: &str = "[source.in.generate]\nrate = 1\n";
const SINK: &str = "[sink.out.null]\n";

/// A file with text for people.
struct Page {
    /// From the root of the repository.
    path: PathBuf,
    text: String,
}

/// A fenced block of a page.
struct Block<'a> {
    /// The line of its first fence, from 1.
    line: usize,
    language: &'a str,
    /// What stands behind the language, after a comma.
    tags: Vec<&'a str>,
    text: String,
}

impl Page {
    fn read(path: &str) -> Page {
        let text = fs::read_to_string(root().join(path)).expect("a page of UTF-8");
        Page { path: path.into(), text }
    }

    fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            let Some(info) = line.strip_prefix("```") else { continue };
            let mut words = info.split(',');
            let language = words.next().unwrap_or_default();
            let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let text = inside.map(|line| format!("{line}\n")).collect();
            blocks.push(Block { line: at + 1, language, tags: words.collect(), text });
        }
        blocks
    }

    /// Lines that are no part of a block.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut inside = false;
        self.text.lines().filter(move |line| {
            let fence = line.starts_with("```");
            inside ^= fence;
            !inside && !fence
        })
    }

    /// The addresses of headings, as GitHub and mdBook make them.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose().filter(|line| line.starts_with('#'));
        let titles = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
        let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        titles.map(|title| title.replace(|c| !kept(c), "").replace(' ', "-")).collect()
    }

    /// Where its links lead, those to other machines left out.
    fn links(&self) -> Vec<&str> {
        let ends = self.prose().flat_map(|line| line.split("](").skip(1));
        let targets = ends.filter_map(|rest| rest.split(')').next());
        targets.filter(|target| !target.contains("://")).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages of the guide.
fn guide() -> Vec<Page> {
    let listed = fs::read_dir(root().join("docs/guide")).expect("the guide");
    let names = listed.map(|entry| entry.expect("listed").file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    names.retain(|name| name.ends_with(".md"));
    names.sort();
    names.iter().map(|name| Page::read(&format!("docs/guide/{name}"))).collect()
}

/// README and the guide: what users read.
fn user_pages() -> Vec<Page> {
    let mut pages = guide();
    pages.push(Page::read("README.md"));
    pages
}

/// A fragment as a whole pipeline: what it lacks of source, job and sink stands behind it.
fn whole(fragment: &str) -> String {
    let name = fragment.split_once("[source.").map(|(_, rest)| rest.split('.').next());
    let name = name.flatten().unwrap_or("in");
    let source = if fragment.contains("[source.") { "" } else { SOURCE };
    format!("{fragment}{source}[job.j]\nfrom = ['{name}']\ncount = {{}}\nto = ['out']\n{SINK}")
}

/// Exit code and standard error of `tidemill validate` for this text.
fn validate(text: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("p.toml"), text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let done = command.args(["validate", "p.toml"]).current_dir(directory.path()).output();
    let done = done.expect("it runs");
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

/// What is wrong with a block of TOML, if anything is.
fn wrong(block: &Block<'_>) -> Option<String> {
    match block.tags.as_slice() {
        ["feature-sqlite"] if !cfg!(feature = "sqlite") => {
            let (code, said) = validate(&block.text);
            let lacks = said.contains("this program has no sink `sqlite`");
            (code != Some(78) || !lacks || said.matches("error:").count() != 1).then_some(said)
        }
        [] | ["feature-sqlite"] => {
            Some(validate(&block.text)).filter(|(code, _)| *code != Some(0)).map(|(_, said)| said)
        }
        ["fragment"] => {
            let (code, said) = validate(&whole(&block.text));
            (code != Some(0)).then_some(said)
        }
        tags => Some(format!("the tags {tags:?} are unknown: `fragment` and `feature-sqlite` are")),
    }
}

#[test]
fn every_pipeline_of_the_documents_is_good() {
    let mut seen = 0;
    for page in user_pages() {
        for block in page.blocks().iter().filter(|block| block.language == "toml") {
            let wrong = wrong(block);
            assert!(wrong.is_none(), "{}:{}: {wrong:?}", page.path.display(), block.line);
            seen += 1;
        }
    }
    assert!(seen >= 8, "only {seen} blocks of TOML were found");
}

#[test]
fn a_wrong_block_is_found() {
    let check = |info: &str, text: &str, good: bool| {
        let page = Page { path: "p.md".into(), text: format!("```{info}\n{text}\n```\n") };
        let blocks = page.blocks();
        assert_eq!(wrong(&blocks[0]).is_none(), good, "{info} {text}: {:?}", wrong(&blocks[0]));
    };
    check("toml", "workers = 1", false);
    check("toml,fragment", "workers = 1", true);
    check("toml,fragment", "wrokers = 1", false);
    check("toml,fragment", "[source.a.socket]\nlisten = '127.0.0.1:0'", true);
    check("toml,fragment", "[source.a.socket]\nlissten = '127.0.0.1:0'", false);
    check("toml,nonsense", "workers = 1", false);
    check("toml,feature-sqlite", "wrokers = 1", false);
}

#[test]
fn every_link_leads_somewhere() {
    let mut pages = user_pages();
    pages.extend(["ARCHITECTURE.md", "CHANGELOG.md", "benches/README.md"].map(Page::read));
    let mut findings = Vec::new();
    for page in &pages {
        for link in page.links() {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let from = page.path.parent().expect("a directory");
            let target = if file.is_empty() { page.path.clone() } else { from.join(file) };
            let shown = page.path.display();
            if !root().join(&target).exists() {
                findings.push(format!("{shown}: {link}: there is no such file"));
            } else if !anchor.is_empty() {
                let target = Page::read(target.to_str().expect("UTF-8"));
                if !target.anchors().contains(anchor) {
                    findings.push(format!("{shown}: {link}: there is no such heading"));
                }
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn every_page_of_the_guide_is_in_its_summary() {
    let summary = Page::read("docs/guide/SUMMARY.md");
    let listed: BTreeSet<_> = summary.links().into_iter().map(PathBuf::from).collect();
    let pages = guide();
    let pages = pages.iter().filter_map(|page| page.path.file_name()).map(PathBuf::from);
    let pages: BTreeSet<_> = pages.filter(|name| name != Path::new("SUMMARY.md")).collect();
    assert_eq!(listed, pages);
}

#[test]
fn rust_blocks_of_every_page_are_documentation_tests() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("UTF-8");
    for page in user_pages() {
        if page.blocks().iter().any(|block| block.language == "rust") {
            let included = format!("include_str!(\"../{}\")", page.path.display());
            assert!(lib.contains(&included), "src/lib.rs lacks {included}");
        }
    }
}

/// The keys that the reader of pipeline files asks for: `section.number("workers", …)` and its like.
fn known_keys() -> BTreeSet<String> {
    let readers = [
        "text",
        "texts",
        "texts_or_none",
        "path",
        "number",
        "bytes",
        "truth",
        "interval",
        "duration",
        "choice",
        "pattern",
        "address",
        "table",
    ];
    let mut keys = BTreeSet::new();
    let mut texts = sources_below(&root().join("src/config"));
    // Of sources, sinks and jobs those that read their own options, without their tests.
    let rooms = ["src/source", "src/sink", "src/stream/jobs"];
    let parts = rooms.map(|room| sources_below(&root().join(room))).concat();
    let parts = parts.iter().filter(|text| text.contains("settings::section::"));
    texts.extend(parts.filter_map(|text| Some(text.split("#[cfg(").next()?.to_owned())));
    for text in texts {
        for reader in readers {
            let call = format!(".{reader}(");
            let calls = text.split(&call).skip(1).map(str::trim_start);
            let first = calls.filter_map(|rest| rest.strip_prefix('"')?.split('"').next());
            keys.extend(first.map(str::to_owned));
        }
    }
    keys
}

/// What every Rust file below a directory holds.
fn sources_below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("read"));
    let of = |path: PathBuf| match path.is_dir() {
        true => sources_below(&path),
        false => vec![fs::read_to_string(path).expect("UTF-8")],
    };
    entries.flat_map(|entry| of(entry.path())).collect()
}

#[test]
fn every_key_of_a_pipeline_file_is_documented() {
    let keys = known_keys();
    assert!(keys.len() > 60 && keys.contains("batch_interval"), "{keys:?}");
    let page = Page::read("docs/guide/pipeline-file.md");
    let words = page.text.split(|c: char| !c.is_alphanumeric() && c != '_');
    let words: BTreeSet<_> = words.collect();
    let missing: Vec<_> = keys.iter().filter(|key| !words.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "docs/guide/pipeline-file.md lacks {missing:?}");
}

/// Every kind of job has its line in the guide, each of its keys another one, and the first examples name it.
#[test]
fn every_job_and_its_keys_are_in_the_guide() {
    let page = Page::read("docs/guide/pipeline-file.md");
    let check = |line: String| {
        assert!(
            page.text.lines().any(|found| found == line),
            "{} lacks\n{line}",
            page.path.display()
        );
    };
    for row in JOBS {
        check(format!("| `{}` | {} |", row.example, row.about));
        for key in row.keys {
            let default =
                if key.default.is_empty() { String::new() } else { format!("{} ", key.default) };
            check(format!(
                "| `{}` | `{}` | {} | {default}| {} |",
                row.name, key.name, key.takes, key.about
            ));
        }
    }
    for page in [&page, &Page::read("README.md")] {
        let mut lines = page.text.lines().filter(|line| line.starts_with("wordcount = {}  "));
        let line = lines.next().expect("an example with the other kinds behind it");
        let words: BTreeSet<_> = line.split([' ', ',']).collect();
        let missing: Vec<_> = JOBS.iter().filter(|row| !words.contains(row.name)).collect();
        assert!(missing.is_empty(), "{}: {line} lacks {missing:?}", page.path.display());
    }
}

/// A chapter of the guide's page on pipeline files.
fn chapter(page: &Page, heading: &str) -> String {
    let (_, rest) = page.text.split_once(&format!("\n## {heading}\n")).expect("the chapter");
    rest.split("\n## ").next().unwrap_or(rest).to_owned()
}

/// Every kind of sink has a line of the guide's table, with its keys.
#[test]
fn every_sink_and_its_keys_are_in_the_guide() {
    let page = Page::read("docs/guide/pipeline-file.md");
    let chapter = chapter(&page, "Sinks");
    for row in SINKS {
        let name = format!("`{}`", row.name);
        let mut lines = chapter.lines().map(|line| line.split(" | ").collect::<Vec<_>>());
        let line = lines.find(|cells| cells.len() > 1 && cells[0].contains(&name));
        let line = line.unwrap_or_else(|| panic!("the guide has no sink {name}"));
        for key in row.keys {
            assert!(line[1].contains(&format!("`{}`", key.name)), "{name}: {}: {line:?}", key.name);
        }
        let (code, said) = validate(&whole(&format!("{}\n", row.example.replace("NAME", "other"))));
        assert!(code == Some(0) || said.contains("this program has no sink"), "{name}: {said}");
    }
}

/// Every kind of source is named in the guide, and each of its keys has a line of a table there.
#[test]
fn every_source_and_its_keys_are_in_the_guide() {
    let page = Page::read("docs/guide/pipeline-file.md");
    let chapter = chapter(&page, "Sources");
    let cells = chapter.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let cells: Vec<&str> = cells.collect();
    for row in SOURCES {
        assert!(chapter.contains(&format!("`{}`", row.name)), "the guide has no {}", row.name);
        for key in row.keys {
            let name = format!("`{}`", key.name);
            assert!(cells.iter().any(|cell| cell.contains(&name)), "{}: {name}", row.name);
        }
        let (code, said) = validate(&whole(&format!("{}\n", row.example)));
        assert_eq!(code, Some(0), "{}: {said}", row.name);
    }
}

#[test]
fn the_plot_shows_the_figures_of_the_models() {
    let plot = fs::read_to_string(root().join("docs/guide/io-models.svg")).expect("UTF-8");
    let models = Page::read("benches/models.md");
    let titles = plot.split("</title></rect>").filter_map(|bar| bar.rsplit(": ").next());
    let figures: Vec<_> = titles.filter(|title| title.parse::<f64>().is_ok()).collect();
    assert_eq!(figures.len(), 21);
    let missing: Vec<_> = figures.iter().filter(|one| !models.text.contains(**one)).collect();
    assert!(missing.is_empty(), "benches/models.md has no {missing:?}");
}

#[test]
fn conditions_and_metrics_have_their_names() {
    let page = Page::read("docs/guide/metrics-and-http.md");
    for row in CONDITIONS {
        let code = if row.unready { 503 } else { 200 };
        let line = format!("| `{}` | {} | {code} |", row.name, row.help);
        assert!(page.text.lines().any(|found| found == line), "it lacks\n{line}");
    }
    let golden = include_str!("golden/metrics.txt");
    let known: BTreeSet<&str> =
        golden.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    for page in user_pages() {
        let names = page.prose().flat_map(|line| line.split('`').skip(1).step_by(2));
        // What ends with `_` is the beginning of names.
        let whole = |name: &&str| name.starts_with("tidemill_") && !name.ends_with('_');
        for name in names.filter(whole) {
            let is_metric = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let known = known.contains(name) || !is_metric;
            assert!(known, "{}: no metric is called {name}", page.path.display());
        }
    }
}
