//! Hostile peers against the real program: floods of connections with few descriptors (R7 of the scorecard), streams that
//! never end a record, bytes that drip, frames that lie (R8). The bounds hold, and an honest sender loses nothing.
//!
//! Each case is a process of its own, so that its descriptors, threads and memory can be read from the system, and its
//! limit of descriptors is its own. It runs over real sockets on the loopback device, waits for events, and reports the
//! defect that it found; nothing is asserted on elapsed time. Built with `--cfg tidemill_planted`, each case also runs with
//! defects in the program, and must find each.

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
use tidemill::internals::io::{IO_MODELS, Row, probe};
use tidemill::internals::sync::Mutex;

/// The longest time that anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(40);

/// The same for an event that a planted defect prevents: long enough for the events that do happen.
#[cfg(tidemill_planted)]
const SHORT: Duration = Duration::from_secs(4);

/// The cases open many descriptors, and check the resources of a process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The result of a case: the defect that it found, in words.
type Found = Result<(), String>;

/// Fails with `what` unless `so`.
fn expect(so: bool, what: impl FnOnce() -> String) -> Found {
    if so { Ok(()) } else { Err(what()) }
}

/// The conditions of a run of a case.
#[derive(Clone, Copy)]
struct Case {
    model: &'static str,
    /// The defect that is planted, if any.
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
