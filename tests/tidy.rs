//! House rules that no lint knows, checked by reading the sources: imports point downward, time, threads and locks come
//! through their seams, every file says what it is, functions stay short, and the default build has no async runtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Top-level modules, low to high: one imports only those before it.
const ORDER: &[&str] = &[
    "words",
    "error",
    "sync",
    "time",
    "metrics",
    "net",
    "framing",
    "slab",
    "block",
    "wal",
    "checkpoint",
    "owner",
    "store",
    "tracker",
    "journal",
    "load",
    "receiver",
    "direct",
    "workers",
    "batch",
    "shuffle",
    "sink",
    "dstream",
    "kafka",
    "scheduler",
    "config",
    "context",
    "testing",
    "compare",
    "dashboard",
    "cli",
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
    ("OpenOptions", &["src/wal/"], "the `Storage` seam: nothing else opens files for durable data"),
    (
        "File::create",
        &["src/wal/"],
        "the `Storage` seam: nothing else opens files for durable data",
    ),
    // `compare` writes reports for people, which nothing reads back.
    (
        "fs::write",
        &["src/wal/", "src/compare/files.rs"],
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

/// The longest line, in characters.
const LINE_MAX: usize = 130;

/// One source file.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The code without its unit tests, which start at the first `#[cfg(... test ...)]` module at the left margin.
    fn code(&self) -> &str {
        let tests = ["\n#[cfg(test)]\nmod ", "\n#[cfg(all(test", "\n#[cfg(any(test"];
        let end = tests.iter().filter_map(|start| self.text.find(start)).min();
        &self.text[..end.unwrap_or(self.text.len())]
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs")
            || self.path.contains("/tests/")
            || self.path.ends_with("model.rs")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `dir`, with its path from the root.
fn sources(dir: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("the directory is there") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                let path = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Fails with every finding, a line each.
fn expect_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// Code lines with their numbers, without comments.
fn lines(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn imports_point_downward() {
    let place = |module: &str| ORDER.iter().position(|known| *known == module);
    let mut findings = Vec::new();
    for source in sources("src").iter().filter(|source| !source.is_test()) {
        let module = source.path["src/".len()..].split(['/', '.']).next().expect("a name");
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(own) = place(module) else {
            findings.push(format!("{}: `{module}` has no place in the order", source.path));
            continue;
        };
        for (at, line) in lines(source.code()) {
            for used in line.split("crate::").skip(1) {
                let used = used
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap_or_default();
                if place(used).is_some_and(|used| used > own) {
                    findings.push(format!(
                        "{}:{at}: `{module}` imports `{used}`, which lies above it",
                        source.path
                    ));
                }
            }
        }
    }
    expect_none(findings);
}

#[test]
fn nothing_is_called_outside_its_seam() {
    let mut findings = Vec::new();
    for source in sources("src").iter().filter(|source| !source.is_test()) {
        for (at, line) in lines(source.code()) {
            for (call, allowed, instead) in SEAMS {
                let seam = allowed.iter().any(|path| source.path.starts_with(path));
                let word =
                    !line.contains(&format!("_{call}")) && !line.contains(&format!("e{call}"));
                if line.contains(call) && word && !seam {
                    findings.push(format!(
                        "{}:{at}: `{call}` outside its seam; use {instead}",
                        source.path
                    ));
                }
            }
        }
    }
    expect_none(findings);
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
fn lines_and_functions_are_short() {
    let mut findings = Vec::new();
    for source in sources("src") {
        for (at, line) in source.text.lines().enumerate() {
            if line.chars().count() > LINE_MAX && !line.contains("https://") && !source.is_test() {
                findings.push(format!(
                    "{}:{}: more than {LINE_MAX} characters",
                    source.path,
                    at + 1
                ));
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

#[test]
fn unsafe_code_lives_in_one_file() {
    expect_none(
        sources("src")
            .iter()
            .filter(|source| source.path != "src/receiver/io/aio.rs")
            .flat_map(|source| lines(&source.text).map(move |(at, line)| (source, at, line)))
            .filter(|(_, _, line)| line.contains("unsafe ") && !line.contains('"'))
            .map(|(source, at, _)| {
                format!("{}:{at}: `unsafe` outside src/receiver/io/aio.rs", source.path)
            })
            .collect(),
    );
}

#[test]
fn the_default_build_has_no_async_runtime() {
    let listed = Command::new(env!("CARGO"))
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
fn the_rules_find_what_they_forbid() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let long = format!("fn long() {{\n{}}}\n", "    x();\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(long_functions(&source("src/a.rs", &long)).len(), 1);
    assert!(long_functions(&source("src/a.rs", "fn short() {\n    x();\n}\n")).is_empty());
    let tested = source("src/a.rs", "fn code() {}\n\n#[cfg(test)]\nmod tests {}\n");
    assert_eq!(tested.code(), "fn code() {}\n");
}
