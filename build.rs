//! Tells the program which compiler built it and from which commit: the reports of `tidemill compare` name both. Cargo runs
//! it before the build; it must not know anything of the engine.
//!
//! A commit is looked for where this package lies, and nowhere above it: first in `TIDEMILL_COMMIT`, then in its own git
//! repository, then in the file that `cargo package` leaves. A debug build does not look: it would be built anew after each
//! commit, and its figures mean nothing.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The files that the program is made of. A change of them is a change of what was committed.
const SOURCES: [&str; 4] = ["src", "build.rs", "Cargo.toml", "Cargo.lock"];

/// The digits of a commit that are shown.
const DIGITS: usize = 12;

/// A commit that nobody can tell.
const UNKNOWN: &str = "unknown";

fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TIDEMILL_COMMIT");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    println!("cargo::rustc-env=TIDEMILL_RUSTC={}", output(Command::new(rustc).arg("--version")));
    let profile = variable("PROFILE");
    let level = variable("OPT_LEVEL");
    println!("cargo::rustc-env=TIDEMILL_PROFILE={profile}, optimisation level {level}");
    let package = variable("CARGO_MANIFEST_DIR");
    let commit = match variable("TIDEMILL_COMMIT") {
        named if !named.is_empty() => named,
        _ if profile == "debug" => format!("{UNKNOWN}: a debug build does not look for it"),
        _ => {
            watch(Path::new(&package));
            commit(Path::new(&package))
        }
    };
    // One line, whatever the variable or the file holds: Cargo reads lines.
    let commit = commit.lines().next().unwrap_or(UNKNOWN);
    println!("cargo::rustc-env=TIDEMILL_COMMIT={commit}");
}

/// Has Cargo run this again once another commit is checked out or a source changes.
fn watch(package: &Path) {
    let is_repository = package.join(".git").exists();
    for name in ["HEAD", "logs/HEAD"].iter().filter(|_| is_repository) {
        let path = git(package, &["rev-parse", "--git-path", name]);
        // A file that is not there would have the package built every time.
        if !path.is_empty() && package.join(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    for source in SOURCES.iter().filter(|source| package.join(source).exists()) {
        println!("cargo::rerun-if-changed={source}");
    }
}

/// The commit of the package in this directory, and a word if its sources have changed since; `unknown` if neither git nor
/// the package says.
pub fn commit(package: &Path) -> String {
    let found = if package.join(".git").exists() {
        let changed = [&["status", "--porcelain", "--"][..], &SOURCES[..]].concat();
        let hash = git(package, &["rev-parse", "HEAD"]);
        (hash, !git(package, &changed).is_empty())
    } else {
        let packaged = fs::read_to_string(package.join(".cargo_vcs_info.json"));
        let packaged = packaged.unwrap_or_default();
        (quoted_after(&packaged, "\"sha1\":").to_owned(), packaged.contains("\"dirty\": true"))
    };
    let (hash, changed) = found;
    if hash.len() < DIGITS || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return UNKNOWN.to_owned();
    }
    format!("{}{}", &hash[..DIGITS], if changed { ", changed" } else { "" })
}

/// The text between the first two quotation marks behind `key`; empty if there is none. A build script has no JSON reader.
fn quoted_after<'a>(text: &'a str, key: &str) -> &'a str {
    let rest = text.split_once(key).map_or("", |(_, rest)| rest);
    rest.split('"').nth(1).unwrap_or_default()
}

/// The answer of git, which must write nothing: a look at the state of the tree would otherwise renew the index.
fn git(package: &Path, words: &[&str]) -> String {
    output(Command::new("git").arg("--no-optional-locks").arg("-C").arg(package).args(words))
}

/// The trimmed output of a command; empty if it cannot be run or fails.
fn output(command: &mut Command) -> String {
    let said = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let said = said.ok().filter(|said| said.status.success());
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}
