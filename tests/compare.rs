//! `tidemill compare` and `tidemill doctor` as programs: real processes, real sockets, tiny sizes, and a watchdog.

#![cfg(not(tidemill_model))]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tidemill::internals::sync::{Arc, Mutex, Poison, Signal, thread};
use tidemill::time::{Clock, SystemClock, Wake};

/// Longer than any of these runs takes on a busy machine.
const WATCHDOG: Duration = Duration::from_secs(120);

/// Runs the program with these words; it is killed when the watchdog's time is over.
fn tidemill(words: &[&str], dir: &Path) -> Output {
    let child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(words)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::from(fs::File::create(dir.join("stdout")).expect("a file")))
        .stderr(Stdio::from(fs::File::create(dir.join("stderr")).expect("a file")))
        .spawn()
        .expect("it starts");
    let (child, over) = (Arc::new(Mutex::new(child)), Signal::new());
    let (watched, told) = (Arc::clone(&child), over.clone());
    let watchdog = move || {
        let clock = SystemClock::new();
        if clock.wait(&told, Some(clock.now().plus(WATCHDOG))) == Wake::Deadline {
            let _ = watched.lock().kill();
        }
    };
    let watchdog = thread::spawn("watchdog", &Poison::new(), watchdog).expect("a thread");
    let status = wait(&child);
    over.raise();
    watchdog.join();
    let read = |name: &str| fs::read(dir.join(name)).expect("a file");
    Output { status, stdout: read("stdout"), stderr: read("stderr") }
}

/// Waits without holding the lock that the watchdog needs.
fn wait(child: &Mutex<Child>) -> std::process::ExitStatus {
    let clock = SystemClock::new();
    loop {
        if let Some(status) = child.lock().try_wait().expect("it is our child") {
            return status;
        }
        clock.wait(&Signal::new(), Some(clock.now().plus(Duration::from_millis(10))));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_small_comparison_gives_every_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let words = "compare --models nio,bare --connections 1,3 --busy 50 --record 100 --repeats 2 \
        --seconds 0.1s --latency-seconds 0.3s --batch 20ms --rate 1000 --out report";
    let output = tidemill(&words.split_whitespace().collect::<Vec<_>>(), dir.path());
    let (table, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{table}\n{said}");
    for title in
        ["throughput: 1 connection, 100 B", "latency: 3 connections (1 busy)", "memory: 3 "]
    {
        assert!(table.contains(title), "{title}:\n{table}");
    }
    let read = |name: &str| {
        let path = dir.path().join("report").join(name);
        fs::read_to_string(&path).unwrap_or_else(|err| panic!("{name}: {err}\n{said}"))
    };
    // Two shapes of each kind; the bare loop has no latency.
    let csv = read("compare.csv");
    assert_eq!(csv.lines().count(), 1 + 2 * 2 + 2 + 2 * 2, "{csv}");
    assert!(!csv.contains("failed"), "{csv}");
    let hgrm = read("nio-1c-1busy-100B-batch20ms-block20ms.hgrm");
    assert!(hgrm.contains("Total count    =          600]"), "all lines of both repeats:\n{hgrm}");
    let page = read("compare.html");
    assert!(page.contains("<svg") && page.contains("<td>commit</td>"), "{page}");
    assert!(page.contains("<td>compiler</td><td>rustc 1."), "{page}");
    // Counted if the kernel lets this process count them; otherwise a remark gives the reason.
    let counted = csv.lines().skip(1).all(|line| line.contains("system calls: "))
        || page.contains("<th>syscalls/s</th>");
    assert!(counted, "{csv}");
}

#[test]
fn doctor_finds_what_is_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = tidemill(&["doctor", "--json"], dir.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("\"io model nio\""), "{}", text(&output.stdout));
    let output = tidemill(&["doctor", "--connections", "100G"], dir.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("ulimit -Hn"), "{}", text(&output.stdout));
}

#[test]
fn wrong_words_are_usage_errors() {
    let dir = tempfile::tempdir().expect("a directory");
    let check = |words: &[&str]| {
        let output = tidemill(words, dir.path());
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", text(&output.stderr));
    };
    check(&["compare", "--models", "noi"]);
    check(&["compare", "--connections", "0"]);
    check(&["compare", "--batch", "0.5ms"]);
    check(&["compare", "--quick", "--repeats", "3"]);
    check(&["doctor", "--connections", "many"]);
    check(&["compare-child"]);
}
