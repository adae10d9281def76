//! The commit that the build script compiles in: of a repository, of a packaged crate, of neither. Runs `git` in directories
//! of its own; must not know the repository that it lies in.

#![cfg(not(tidemill_model))]

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

#[path = "../build.rs"]
#[expect(
    dead_code,
    clippy::print_stdout,
    reason = "Cargo calls its `main`, and reads what it prints"
)]
mod build_script;

use build_script::commit;

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

/// The commit of a directory with these files.
fn of(files: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("a file");
    }
    commit(dir.path())
}

#[test]
fn a_packaged_crate_names_the_commit_that_it_was_made_of() {
    let check = |text: &str, expected: &str| {
        assert_eq!(of(&[(".cargo_vcs_info.json", text)]), expected, "{text}");
    };
    let info = |git: &str| format!("{{\n  \"git\": {{\n{git}\n  }},\n  \"path_in_vcs\": \"\"\n}}");
    check(&info(&format!("    \"sha1\": \"{HASH}\"")), "0123456789ab");
    let dirty = format!("    \"sha1\": \"{HASH}\",\n    \"dirty\": true");
    check(&info(&dirty), "0123456789ab, changed");
    check(&info("    \"sha1\": \"0123\""), "unknown");
    check(&info("    \"sha1\": \"not a commit at all\""), "unknown");
    check("\"sha1\":", "unknown");
    check("", "unknown");
}

/// Runs `git` in the directory; false if it is not there or fails.
fn git(dir: &Path, words: &[&str]) -> bool {
    let name = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"];
    let status = Command::new("git").arg("-C").arg(dir).args(name).args(words).output();
    status.is_ok_and(|output| output.status.success())
}

#[test]
fn a_repository_names_its_commit_and_says_if_a_source_has_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path();
    if !git(path, &["init", "-q"]) {
        assert!(std::env::var_os("TIDEMILL_REQUIRE_PEERS").is_none(), "git is needed");
        let _ = writeln!(io::stdout(), "not run: git (apt install git)");
        return;
    }
    assert_eq!(commit(path), "unknown", "no commit yet");
    fs::write(path.join("Cargo.toml"), "a").expect("a file");
    fs::write(path.join("notes"), "a").expect("a file");
    assert!(git(path, &["add", "."]) && git(path, &["commit", "-q", "-m", "first"]));
    let first = commit(path);
    assert!(first.len() == 12 && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
    fs::write(path.join("notes"), "b").expect("a file");
    assert_eq!(commit(path), first, "the program is not made of it");
    fs::write(path.join("Cargo.toml"), "b").expect("a file");
    assert_eq!(commit(path), format!("{first}, changed"));
    // What lies inside a repository is not of it: a package below `target`, a vendored copy.
    let inside = path.join("inside");
    fs::create_dir(&inside).expect("a directory");
    assert_eq!(commit(&inside), "unknown");
}

#[test]
fn a_directory_that_says_nothing_has_an_unknown_commit() {
    assert_eq!(of(&[]), "unknown");
    assert_eq!(of(&[("Cargo.toml", HASH)]), "unknown");
}
