//! The contract of the io models: every obligation of `source::io`, for every row of its table, dialled and listening.
//!
//! A test handler takes the receiver's place and publishes its results only at the end of a turn. The sockets are real, on
//! the loopback device. There are no sleeps: every wait is for an event, with a watchdog. The tests run one at a time,
//! because they count this process's descriptors.

#![cfg(not(tidemill_model))]

mod connections;
mod few_descriptors;
mod handler;
mod peer;
mod reading;
mod replies;
mod rig;
mod stops;

use std::time::Duration;

use tidemill::internals::io::IO_MODELS;

/// The longest time that anything may take before the test gives up.
const WATCHDOG: Duration = Duration::from_secs(60);

#[test]
fn each_model_has_one_row() {
    for row in IO_MODELS {
        assert_eq!(row.model.row().name, row.name);
        assert_eq!(tidemill::IoModel::by_name(row.name), Some(row.model));
    }
    assert_eq!(tidemill::IoModel::by_name("nil"), None);
}
