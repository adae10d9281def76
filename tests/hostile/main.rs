//! Hostile peers against the real program: floods of connections with few descriptors (R7 of the scorecard), streams that
//! never end a record, bytes that drip, frames that lie (R8). The bounds hold, and an honest sender loses nothing.
//!
//! A case is a process of its own, so that its descriptors, threads and memory can be read from the system, and its limit
//! of descriptors is its own. It runs over real sockets on the loopback device, waits for events, and says what it found
//! broken; nothing is asserted on elapsed time. Built with `--cfg tidemill_planted` each row also runs with defects in
//! the program, and must find each.

#![cfg(not(tidemill_model))]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

mod bytes;
mod engine;
mod floods;
#[cfg(tidemill_planted)]
mod planted;
#[path = "../program/mod.rs"]
mod program;

use std::time::Duration;

use serde_json::Value;
use tidemill::source::io::{IO_MODELS, Row, probe};
use tidemill::sync::Mutex;

/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(40);

/// The same where a planted defect makes something never happen: long enough for what does happen.
#[cfg(tidemill_planted)]
const SHORT: Duration = Duration::from_secs(4);

/// The cases open many descriptors, and look at what a process holds.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a case found broken, in the words of its row.
type Found = Result<(), String>;

/// Fails with `what` unless it is so.
fn expect(so: bool, what: impl FnOnce() -> String) -> Found {
    if so { Ok(()) } else { Err(what()) }
}

/// How a case runs.
#[derive(Clone, Copy)]
struct Case {
    model: &'static str,
    /// The defect that is planted.
    planted: Option<&'static str>,
    patience: Duration,
}

fn is_count(value: &Value, expected: u64, what: &str) -> Found {
    expect(value.as_u64() == Some(expected), || format!("{what}: {value} instead of {expected}"))
}

/// A case of each model that this machine has.
fn cases() -> impl Iterator<Item = Case> {
    let offered = |row: &&Row| {
        probe(row.model).inspect_err(|why| eprintln!("{} is not checked: {why}", row.name)).is_ok()
    };
    let case = |row: &'static Row| Case { model: row.name, planted: None, patience: PATIENCE };
    IO_MODELS.iter().filter(offered).map(case)
}
