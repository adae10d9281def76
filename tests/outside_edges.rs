//! The edges of the program: sockets, files, signals and messages, with the real program and with real peers. Each
//! situation is what happens at one of them, and what `tidemill` must do and say. A module for each subject.

#![cfg(not(tidemill_model))]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

mod program;

#[path = "outside_edges/files.rs"]
mod files;
#[path = "outside_edges/framings.rs"]
mod framings;
#[path = "outside_edges/http.rs"]
mod http;
#[path = "outside_edges/pipes.rs"]
mod pipes;
#[path = "outside_edges/places.rs"]
mod places;
#[path = "outside_edges/signals.rs"]
mod signals;
#[path = "outside_edges/sinks.rs"]
mod sinks;
#[path = "outside_edges/sockets.rs"]
mod sockets;
#[path = "outside_edges/terminals.rs"]
mod terminals;
