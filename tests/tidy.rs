//! House rules that no lint knows, checked by reading the sources: imports point downward and never in a circle, time, threads
//! and locks come through their seams, every file says what it is, functions and files stay short, and the default build has no
//! async runtime. It uses the standard library only: `rustc --test tests/tidy.rs` compiles it alone.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::LazyLock;

#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/words.rs"]
mod words;

use graph::{Edge, Graph, circles};
use source::{Source, blanked, root, sources};

/// Top-level modules, low to high: one imports only those before it.
const ORDER: &[&str] = &[
    "wording",
    "error",
    "sync",
    "time",
    "metrics",
    "settings",
    "page",
    "net",
    "framing",
    "memory",
    "storage",
    "wal",
    "owner",
    "blocks",
    "journal",
    "load",
    "source",
    "exec",
    "sink",
    "stream",
    "kafka",
    "scheduler",
    "config",
    "context",
    "testing",
    "lab",
    "dashboard",
    "cli",
    "internals",
];

/// What may be written only below these paths, and what to use elsewhere.
const SEAMS: &[(&str, &[&str], &str)] = &[
    ("Instant::now", &["src/time/clock.rs"], "`Clock::now`"),
    ("SystemTime::now", &["src/time/clock.rs"], "`Clock::wall`"),
    ("thread::sleep", &[], "`Clock::wait` on a `Signal`"),
    ("std::thread::spawn", &[], "`sync::thread::spawn`"),
    ("thread::Builder", &["src/sync/thread.rs"], "`sync::thread::spawn`"),
    ("std::sync::Mutex", &[], "`crate::sync::Mutex`"),
    ("std::sync::RwLock", &[], "`crate::sync`"),
    ("std::sync::Condvar", &[], "`crate::sync::Condvar`"),
    ("std::sync::mpsc", &[], "`crate::sync::Mailbox`"),
    ("std::sync::atomic", &["src/sync/"], "`crate::sync`"),
    ("parking_lot", &["src/sync/"], "`crate::sync`"),
    ("crossbeam", &["src/sync/"], "`crate::sync`"),
    (
        "OpenOptions",
        &["src/storage/"],
        "the `Storage` seam: nothing else opens files for durable data",
    ),
    (
        "File::create",
        &["src/storage/"],
        "the `Storage` seam: nothing else opens files for durable data",
    ),
    // `compare` writes reports, on which no recovery depends.
    (
        "fs::write",
        &["src/storage/", "src/lab/report_files.rs"],
        "the `Storage` seam: nothing else opens files for durable data",
    ),
    (
        "println!",
        &[],
        "a writer that was passed in; results go to standard output by the console sink only",
    ),
    ("todo!", &[], "working code"),
    ("unimplemented!", &[], "working code"),
    ("#[ignore", &[], "a test that runs"),
];

/// The longest function, in lines.
const FUNCTION_LINES_MAX: usize = 70;

/// The longest file, in lines.
const FILE_LINES_MAX: usize = 600;

/// Doc comments of the product that may pose a question, where that reads best.
const QUESTIONS_MAX: usize = 99;

/// Public items, types with all their methods, that lack something of what [`docs::lacks`] asks for, and why.
const UNDOCUMENTED: &[(&str, &str)] =
    &[("Clock", "users ask a clock, and the two that there are implement it")];

/// The longest line, in characters.
const LINE_MAX: usize = 130;

/// The library.
static LIBRARY: LazyLock<Graph> =
    LazyLock::new(|| Graph::read("src", "src/lib.rs", Some("tidemill")));

/// Every bench, by its root.
fn benches() -> Vec<Graph> {
    let benches = sources("benches").into_iter().map(|source| source.path);
    let roots = benches.filter(|path| path.matches('/').count() == 1 || path.ends_with("/main.rs"));
    roots.map(|root| Graph::read("benches", &root, None)).collect()
}

/// Fails with every finding, a line each.
fn expect_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// The rules below say nothing about what the reader cuts away, so count by another way what it must have kept: every line that
/// does not lie between `#[cfg(test)]` and the brace that closes the module after it.
#[test]
fn the_whole_product_is_read() {
    let graph = &*LIBRARY;
    let declared: BTreeSet<&str> = graph.files().map(|(_, source)| source.path.as_str()).collect();
    let (mut product, mut read) = (0, 0);
    for source in graph.sources.iter().filter(|source| !graph.tests.contains(&source.path)) {
        let known = declared.contains(source.path.as_str()) || source.path == "src/main.rs";
        assert!(known, "{}: no module declares it", source.path);
        product += product_lines(&source.text);
        read += source.lines().count();
    }
    assert!(product > 30_000, "{product} lines of the product");
    assert!(read * 100 >= product * 95, "{read} of {product} lines of the product were read");
}

/// Lines with code outside modules of tests, which rustfmt closes at the margin.
fn product_lines(text: &str) -> usize {
    let (mut lines, mut attribute, mut inside) = (0, false, false);
    let code = blanked(text);
    for line in code.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test") {
            attribute = true;
        } else if attribute && line.starts_with("mod ") {
            (attribute, inside) = (false, line.ends_with('{'));
        } else if inside {
            inside = line != "}";
        } else {
            lines += 1;
        }
    }
    lines
}

#[test]
fn imports_point_downward() {
    let place = |module: &str| ORDER.iter().position(|known| *known == module);
    let mut findings = Vec::new();
    for (module, source) in LIBRARY.files() {
        if module.first().is_some_and(|own| place(own).is_none()) {
            findings.push(format!("{}: `{}` has no place in the order", source.path, module[0]));
        }
    }
    for Edge { from, to, line, name } in &LIBRARY.edges {
        let room = |path: &str| path["src/".len()..].split(['/', '.']).next().and_then(place);
        if room(from) < room(to) {
            findings.push(format!("{from}:{line}: takes `{name}` from {to}, which lies above it"));
        }
    }
    expect_none(findings);
}

#[test]
fn no_files_need_each_other_in_a_circle() {
    let mut findings = Vec::new();
    let benches = benches();
    for graph in benches.iter().chain([&*LIBRARY]) {
        for circle in circles(&graph.edges) {
            findings.push(format!("a circle of {} files:", circle.len()));
            findings.extend(ties(graph, &circle));
        }
    }
    expect_none(findings);
}

/// What ties the files of a circle.
fn ties(graph: &Graph, circle: &BTreeSet<String>) -> Vec<String> {
    let inside = |edge: &&Edge| circle.contains(&edge.from) && circle.contains(&edge.to);
    let shown = |edge: &Edge| {
        format!("  {}:{} takes `{}` from {}", edge.from, edge.line, edge.name, edge.to)
    };
    graph.edges.iter().filter(inside).map(shown).collect()
}

#[test]
fn nothing_is_called_outside_its_seam() {
    expect_none(LIBRARY.files().flat_map(|(_, source)| outside_seams(source)).collect());
}

/// Calls of `source` that belong behind a seam.
fn outside_seams(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (at, line) in source.lines() {
        for (call, allowed, instead) in SEAMS {
            let seam = allowed.iter().any(|path| source.path.starts_with(path));
            let word = !line.contains(&format!("_{call}")) && !line.contains(&format!("e{call}"));
            if line.contains(call) && word && !seam {
                findings.push(format!(
                    "{}:{at}: `{call}` outside its seam; use {instead}",
                    source.path
                ));
            }
        }
    }
    findings
}

#[test]
fn every_file_opens_with_its_purpose() {
    let files = ["src", "tests", "benches", "examples"].iter().flat_map(|dir| sources(dir));
    expect_none(
        files
            .filter(|source| !source.text.starts_with("//! "))
            .map(|source| format!("{}: does not open with `//!`", source.path))
            .collect(),
    );
}

#[test]
fn lines_functions_and_files_are_short() {
    let mut findings = Vec::new();
    for source in ["src", "benches"].iter().flat_map(|dir| sources(dir)) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{}: {lines} lines", source.path));
        }
        for (at, line) in source.text.lines().enumerate() {
            let data = line.contains("https://") || line.trim_end().ends_with('\\');
            if line.chars().count() > LINE_MAX && !data {
                let at = at + 1;
                findings.push(format!("{}:{at}: more than {LINE_MAX} characters", source.path));
            }
        }
        findings.extend(long_functions(&source));
    }
    expect_none(findings);
}

/// Functions end at the closing brace with the indentation of their `fn`: rustfmt sees to that.
fn long_functions(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let lines: Vec<&str> = source.text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let starts = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn "];
        if !starts.iter().any(|prefix| trimmed.starts_with(prefix)) {
            continue;
        }
        let indent = &line[..line.len() - trimmed.len()];
        // A body ends with a brace at the indentation of the `fn`, a declaration in a trait with a semicolon there.
        let ends = |line: &&str| {
            let rest = line.strip_prefix(indent).filter(|rest| !rest.starts_with(' '));
            rest.is_some_and(|rest| rest == "}" || rest.ends_with(';') || rest.ends_with('}'))
        };
        let length = lines[start..].iter().position(ends).map_or(1, |length| length + 1);
        if length > FUNCTION_LINES_MAX {
            findings.push(format!("{}:{}: a function of {length} lines", source.path, start + 1));
        }
    }
    findings
}

/// What other crates can name, a line each: the promise that a golden file shows when it changes.
#[test]
fn the_public_api_is_in_the_golden_file() {
    let update = std::env::var_os("TIDEMILL_UPDATE_GOLDEN").is_some();
    let path = root().join("tests/golden/api.txt");
    let found = public_items().into_iter().collect::<Vec<_>>().join("\n") + "\n";
    if update {
        fs::write(&path, &found).expect("written");
    }
    let golden = fs::read_to_string(&path).expect("the golden file is there");
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (golden, found) = (lines(&golden), lines(&found));
    let gone = golden.difference(&found).map(|item| format!("- {item}"));
    let new = found.difference(&golden).map(|item| format!("+ {item}"));
    let differ: Vec<String> = gone.chain(new).collect();
    assert!(
        differ.is_empty(),
        "the public API changed. If it is meant: TIDEMILL_UPDATE_GOLDEN=1 cargo test --test tidy, and a line in \
         CHANGELOG.md\n{}",
        differ.join("\n")
    );
}

/// `page: item: declaration` for each item that a user of the library can name, and for its members.
fn public_items() -> BTreeSet<String> {
    docs::items(&LIBRARY).iter().flat_map(docs::Item::promise).collect()
}

/// What a user reads is the root and these pages; the rest is behind `internals`.
#[test]
fn the_library_has_few_pages() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("the root is there");
    let lines: Vec<&str> = lib.lines().collect();
    let shown = |(at, line): (usize, &&str)| {
        let name = line.strip_prefix("pub mod ")?.strip_suffix(';')?;
        (lines[at - 1] != "#[doc(hidden)]").then(|| name.to_owned())
    };
    let pages: Vec<String> = lines.iter().enumerate().filter_map(shown).collect();
    assert_eq!(pages, docs::PAGES);
}

#[test]
fn public_items_are_documented() {
    let items = docs::items(&LIBRARY);
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    for (item, lack) in docs::lacks(&items) {
        let of = item.name.split("::").next();
        match UNDOCUMENTED.iter().find(|(name, _)| *name == item.name || of == Some(name)) {
            Some((name, _)) => drop(used.insert(name)),
            None => findings.push(format!("{}: `{}`: {lack}", item.place, item.name)),
        }
    }
    let idle = UNDOCUMENTED.iter().filter(|(name, _)| !used.contains(name));
    findings.extend(idle.map(|(name, _)| format!("`{name}` needs no exception any more")));
    expect_none(findings);
    let pages = docs::pages(&items);
    assert!(docs::PAGES.iter().all(|page| pages.contains(page)), "items of {pages:?} were found");
}

#[test]
fn unsafe_code_lives_in_one_file() {
    const HOME: &str = "src/source/io/aio.rs";
    let mut findings = Vec::new();
    for source in sources("src").iter().filter(|source| source.path != HOME) {
        for (at, line) in blanked(&source.text).lines().enumerate() {
            if line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
                findings.push(format!("{}:{}: `unsafe` outside {HOME}", source.path, at + 1));
            }
        }
    }
    expect_none(findings);
}

#[test]
fn the_default_build_has_no_async_runtime() {
    let listed = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let tree = String::from_utf8(listed.stdout).expect("UTF-8");
    assert!(tree.contains("mio "), "the tree was read:\n{tree}");
    let banned = |name: &str| name == "tokio" || name == "futures" || name.starts_with("async-");
    expect_none(
        tree.lines()
            .filter(|line| banned(line.split(' ').next().unwrap_or("")))
            .map(str::to_owned)
            .collect(),
    );
}

#[test]
fn comments_are_statements() {
    let all = sources("src");
    let asked = |source: &Source| {
        let found = words::questions(&source.text);
        found.iter().map(|(at, line)| format!("{}:{at}: {line}", source.path)).collect::<Vec<_>>()
    };
    let findings: Vec<_> = all.iter().flat_map(asked).collect();
    if findings.len() > QUESTIONS_MAX {
        expect_none(findings);
    }
}

#[test]
fn parameters_have_names() {
    let mut findings = Vec::new();
    for source in ["src", "benches"].iter().flat_map(|dir| sources(dir)) {
        for (at, found) in words::tuples(&source.code) {
            findings.push(format!("{}:{at}: {found} is an anonymous tuple", source.path));
        }
    }
    expect_none(findings);
}

/// The map of the house sends nobody to a file or a test that is not there.
#[test]
fn the_map_names_what_exists() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the map is there");
    // A package of cargo has no other packages, and nothing hidden.
    let packed = root().join(".cargo_vcs_info.json").exists();
    let left_out = |place: &str| packed && (place.starts_with("fuzz/") || place.starts_with("."));
    let places = words::places(&map).into_iter().filter(|place| !left_out(place));
    let gone = places.filter(|place| !root().join(place).exists());
    let mut findings: Vec<_> = gone.map(|place| format!("{place} is not there")).collect();
    let all: Vec<_> = ["src", "tests"].iter().flat_map(|dir| sources(dir)).collect();
    let tests = words::named_tests(&map);
    assert!(tests.len() > 10, "the map names {} tests", tests.len());
    for name in tests {
        let defined = format!("fn {name}(");
        if !all.iter().any(|source| source.text.contains(&defined)) {
            findings.push(format!("no test is called {name}"));
        }
    }
    let is_there = |room: &&&str| {
        let path = root().join("src").join(room);
        path.exists() || path.with_extension("rs").exists()
    };
    let rooms = ORDER.iter().filter(is_there);
    findings.extend(
        rooms
            .filter(|room| !map.contains(&format!("| `{room}` |")))
            .map(|room| format!("the map has no row for the room `{room}`")),
    );
    expect_none(findings);
}

#[test]
fn the_rules_find_what_they_forbid() {
    let long = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(long_functions(&Source::new("src/a.rs", &long)).len(), 1);
    assert!(long_functions(&Source::new("src/a.rs", "fn short() {\n    x();\n}\n")).is_empty());
    let check = |text: &str, found: usize| {
        assert_eq!(outside_seams(&Source::new("src/a.rs", text)).len(), found, "{text}");
    };
    check("fn f() { Instant::now(); }", 1);
    check("#[cfg(test)]\nfn test_only() {}\n\nfn f() { Instant::now(); }", 1);
    check("#[cfg(all(test, not(model)))]\nuse a::{b, c};\nfn f() { Instant::now(); }", 1);
    check("#[cfg(test)]\nmod tests {\n    fn f() { Instant::now(); }\n}\n", 0);
    check("// Instant::now\nfn f() { \"Instant::now\"; r#\"Instant::now\"#; '\"'; }", 0);
    check("/* \" */ fn f() { Instant::now(); } /* \" */", 1);
    check("struct A {\n    #[cfg(test)]\n    a: u8,\n    b: Instant::now,\n}\n", 1);
    let check =
        |text: &str, found: usize| assert_eq!(words::questions(text).len(), found, "{text}");
    check("/// What it is.\nfn f() {}", 1);
    check("    /// Whether, and\n    /// How many.\n    n: u8,", 1);
    check("//! Why.\n\n/// The number of them.\n/// What is more: none.", 1);
    check("// What this is.\n/// Whatever.\nlet s = \"/// What\";", 0);
    let check = |code: &str, found: usize| assert_eq!(words::tuples(code).len(), found, "{code}");
    check("fn f(place: (u64, u64), n: u8) {}", 1);
    check("pub fn f<T: Fn((u8, u8)) -> u8>((a, b): (T, T), c: &mut (u8, u8)) {}", 2);
    check("fn f(pair: &(K, V), unit: (), task: (dyn Fn())) -> (u8, u8) {}", 0);
    check("fn f(with: impl Fn((u8, u8)), all: &[(u8, u8)], Place { at, .. }: Place) {}", 0);
    check("fn f(self: &Self, a: std::io::Error) where T: Into<(u8, u8)> {}", 0);
}

#[test]
fn missing_documentation_is_found() {
    docs::the_rule_finds_what_lacks();
}

#[test]
fn names_are_followed_to_the_file_that_defines_them() {
    let check = |files: &[(&str, &str)], expected: &[(&str, &str)], in_circle: usize| {
        let declared: String = files.iter().map(|(name, _)| format!("mod {name};\n")).collect();
        let own = files.iter().map(|(name, text)| Source::new(&format!("src/{name}/mod.rs"), text));
        let all = std::iter::once(Source::new("src/lib.rs", &declared)).chain(own).collect();
        let edges = Graph::of(all, "src/lib.rs", Some("me")).edges;
        let short = |path: &str| path["src/".len()..path.len() - "/mod.rs".len()].to_owned();
        let found: BTreeSet<_> =
            edges.iter().map(|edge| (short(&edge.from), short(&edge.to))).collect();
        let expected: BTreeSet<_> =
            expected.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        assert_eq!(found, expected, "{files:?}");
        assert_eq!(circles(&edges).first().map_or(0, BTreeSet::len), in_circle, "{files:?}");
    };
    let c = ("c", "pub struct C;");
    check(
        &[("a", "use crate::{b::B, c};\nc::C;"), ("b", "pub use crate::c::C as B;"), c],
        &[("a", "c")],
        0,
    );
    check(
        &[("a", "fn f() { super::b::f() }"), ("b", "fn f() { me::a::f() }"), c],
        &[("a", "b"), ("b", "a")],
        2,
    );
    check(
        &[("a", "#[cfg(test)]\nuse crate::b;\n"), ("b", "use crate::a::A;"), c],
        &[("b", "a")],
        0,
    );
    check(&[("a", "use std::c::C;"), ("b", "pub use crate::c::*;"), c], &[], 0);
    check(&[("a", "use crate::b::C;"), ("b", "pub use crate::c::*;"), c], &[("a", "c")], 0);
}
