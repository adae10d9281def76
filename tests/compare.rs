//! `tidemill compare` and `tidemill doctor` as programs: real processes, real sockets, tiny sizes, and a watchdog.

#![cfg(not(tidemill_model))]

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal as KillSignal, kill_process};
use tidemill::internals::sync::{Arc, Mutex, Poison, Signal, thread};
use tidemill::time::{Clock, SystemClock, Wake};

/// Longer than any of these runs takes on a busy machine.
const WATCHDOG: Duration = Duration::from_secs(120);

/// Runs the program with these words; it is killed when the watchdog's time is over.
fn tidemill(words: &[&str], dir: &Path) -> Output {
    tidemill_until(words, dir, |_| ())
}

/// The same; `look` is called now and then while it runs.
fn tidemill_until(words: &[&str], dir: &Path, look: impl Fn(&Child)) -> Output {
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
    let status = wait(&child, look);
    over.raise();
    watchdog.join();
    let read = |name: &str| fs::read(dir.join(name)).expect("a file");
    Output { status, stdout: read("stdout"), stderr: read("stderr") }
}

/// Waits without holding the lock that the watchdog needs.
fn wait(child: &Mutex<Child>, look: impl Fn(&Child)) -> std::process::ExitStatus {
    let clock = SystemClock::new();
    loop {
        if let Some(status) = child.lock().try_wait().expect("it is our child") {
            return status;
        }
        look(&child.lock());
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
    let json = read("compare.json");
    assert!(json.starts_with("{\"format\":1,") && json.contains("\"latencies\":[["), "raw samples");
    assert!(table.contains("2 pairs cannot decide it; it takes at least 6 pairs"), "{table}");
    let hgrm = read("nio-1c-1busy-100B-batch20ms-block20ms.hgrm");
    assert!(hgrm.contains("Total count    =          600]"), "all lines of both repeats:\n{hgrm}");
    let page = read("compare.html");
    assert!(page.contains("<svg") && page.contains("<dt>commit</dt>"), "{page}");
    assert!(page.contains("<dt>compiler</dt><dd>rustc 1."), "{page}");
    // Counted if the kernel lets this process count them; otherwise a remark gives the reason.
    let counted = csv.lines().skip(1).all(|line| line.contains("system calls: "))
        || page.contains("system calls per MB</th>");
    assert!(counted, "{csv}");
}

#[test]
fn results_are_shown_again_and_beside_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let words = "compare --models nio,nio --only throughput,storm --connections 3 --record 100 --repeats 1 --seconds 0.1s \
        --batch 20ms --json a.json";
    let output = tidemill(&words.split_whitespace().collect::<Vec<_>>(), dir.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(
        table.contains("  nio (2) ") && table.contains("storm: 3 connections, 100 B"),
        "{table}"
    );
    let again = tidemill(&["compare", "--from", "a.json", "--out", "again"], dir.path());
    let shown = text(&again.stdout);
    assert!(again.status.success() && shown.contains(&table), "{table}\n{shown}");
    let both =
        tidemill(&["compare", "--from", "a.json", "compare-report/compare.json"], dir.path());
    let shown = text(&both.stdout);
    assert!(both.status.success(), "{}", text(&both.stderr));
    for words in
        ["  nio (2), a.json ", "  nio, compare.json ", "no pair of models that one file separates"]
    {
        assert!(shown.contains(words), "{words}:\n{shown}");
    }
}

#[test]
fn further_kinds_of_load_are_measured() {
    let dir = tempfile::tempdir().expect("a directory");
    let words = "compare --models nio,bio --only crowd,storm,slow --connections 5 --record 100 --repeats 1 --seconds 0.1s \
        --latency-seconds 0.5s --batch 20ms --rate 500";
    let output = tidemill(&words.split_whitespace().collect::<Vec<_>>(), dir.path());
    let (table, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{table}\n{said}");
    for title in
        ["crowd: 5 connections", "storm: 5 connections", "slow: 5 connections", "connections/s"]
    {
        assert!(table.contains(title), "{title}:\n{table}");
    }
    // Only the lines of the honest stream are timed.
    let path = dir.path().join("compare-report/crowd-nio-5c-5busy-100B-batch20ms-block20ms.hgrm");
    let hgrm = fs::read_to_string(path).expect("a latency");
    assert!(hgrm.contains("Total count    =          250]"), "{hgrm}");
}

#[test]
fn a_plan_and_a_list() {
    let dir = tempfile::tempdir().expect("a directory");
    let plan = "[shapes.a]\nmodels = [\"nio\"]\nmeasure = \"memory\"\nconnections = [7, 2000]\n[shapes.b]\nmodels = [\"bio\"]\n\
        measure = [\"throughput\"]\nconnections = 2000\n";
    fs::write(dir.path().join("plan.toml"), plan).expect("a file");
    let output =
        tidemill(&["compare", "--plan", "plan.toml", "--list", "--repeats", "2"], dir.path());
    let listed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for words in [
        "memory: 7 connections (1 busy)",
        "bio (not run: bio takes at most 1000 connections)",
        "at least 4 runs",
    ] {
        assert!(listed.contains(words), "{words}:\n{listed}");
    }
    assert!(!dir.path().join("compare-report").exists(), "nothing is run");
    fs::write(dir.path().join("plan.toml"), "[shapes.a]\nmodel = \"nio\"\n").expect("a file");
    let output = tidemill(&["compare", "--plan", "plan.toml"], dir.path());
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("did you mean `models`?"), "{}", text(&output.stderr));
}

#[test]
fn an_interrupted_comparison_writes_what_it_has() {
    let dir = tempfile::tempdir().expect("a directory");
    let words =
        "compare --models nio,bio --only latency --connections 1 --repeats 1 --latency-seconds 60s";
    let words: Vec<&str> = words.split_whitespace().collect();
    let sent = Cell::new(false);
    let output = tidemill_until(&words, dir.path(), |child| {
        // The signals are watched before the directory is made.
        if !sent.get() && dir.path().join("compare-report").is_dir() {
            sent.set(true);
            let _ = kill_process(Pid::from_child(child), KillSignal::INT);
        }
    });
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("the report holds what was measured until then"), "{said}");
    let json =
        fs::read_to_string(dir.path().join("compare-report/compare.json")).expect("it is written");
    assert!(json.contains("\"end\":\"interrupted\""), "{json}");
}

#[test]
fn latency_compares_models_and_writes_a_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let words = "compare --latency --models nio,bio --batch 20ms --rate 1000 --load 0 --repeats 2 \
        --latency-seconds 0.6s --control 0 --out report";
    let output = tidemill(&words.split_whitespace().collect::<Vec<_>>(), dir.path());
    let (table, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{table}\n{said}");
    for row in ["nio, 20 ms, 1000/s", "bio, 20 ms, 1000/s"] {
        assert!(table.contains(row), "{row}:\n{table}");
    }
    let read = |name: &str| {
        let path = dir.path().join("report").join(name);
        fs::read_to_string(&path).unwrap_or_else(|err| panic!("{name}: {err}\n{said}"))
    };
    assert_eq!(read("latency.csv").lines().count(), 3);
    assert!(read("latency-bio-batch20ms-1000ps.hgrm").contains("Total count"));
    let page = read("latency.html");
    for part in ["Latency over the floor", "Stages of a batch", "too few", "bio: longest"] {
        assert!(page.contains(part), "{part}:\n{page}");
    }
    let results = read("latency.json");
    assert_eq!(
        tidemill::internals::of_json(&results).expect("results"),
        page,
        "nothing else is in the page"
    );
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
    check(&["compare", "--from", "a.json", "--list"]);
    check(&["doctor", "--connections", "many"]);
    check(&["compare-child"]);
}
