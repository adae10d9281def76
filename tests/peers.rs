//! `tidemill compare --peers` as a program: the peers that are installed have figures, the others say how to install them.

#![cfg(not(tidemill_model))]

use std::fs;
use std::io::{self, Write};
use std::process::Command;

use serde_json::Value;

/// Peers that a machine of the continuous tests has.
const NEEDED: [&str; 4] = ["nc | wc -l", "nc | mawk", "socat | wc -l", "rsyslog"];

/// Peers without a test of their own: what they need is hundreds of megabytes, or takes the place of rsyslog.
const OTHERS: [&str; 3] = ["syslog-ng", "Spark Streaming", "Flink"];

#[test]
fn peers_count_every_line_or_say_how_to_install_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let words = "compare --only throughput --connections 1 --record 100 --models nio --peers --repeats 1 \
        --seconds 1s --out report";
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(words.split_whitespace()).current_dir(directory.path());
    // Virtual machines take too long for a test.
    ["PEERS_VENV", "SPARK_HOME", "FLINK_HOME"].iter().for_each(|name| {
        command.env_remove(name);
    });
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let text = fs::read_to_string(directory.path().join("report/compare.json"));
    let text = text.unwrap_or_else(|err| panic!("{err}: {said}"));
    let results: Value = serde_json::from_str(&text).expect("JSON");
    let cells = results["cells"].as_array().expect("cells");
    for name in NEEDED.iter().chain(&OTHERS) {
        let cell = cells.iter().find(|cell| cell["subject"]["name"] == *name);
        let cell = cell.unwrap_or_else(|| panic!("{name} has no cell: {said}"));
        match cell["not_run"].as_str() {
            Some(why) => {
                assert!(why.starts_with("not installed (apt install "), "{name}: {why}");
                let is_required = std::env::var_os("TIDEMILL_REQUIRE_PEERS").is_some();
                assert!(!is_required || !NEEDED.contains(name), "{name} is needed: {why}");
                let _ = writeln!(io::stdout(), "not run: {name} ({why})");
            }
            None => {
                let figures = &cell["runs"][0]["outcome"]["done"];
                assert!(figures["records"].as_u64() > Some(0), "{name}: {cell}");
                assert!(figures["late"]["peak_bytes"].as_u64() > Some(0), "{name}: {cell}");
                assert!(cell["subject"]["version"].is_string(), "{name}: {cell}");
            }
        }
    }
    assert!(output.status.success(), "{said}");
}
