//! The edges of the program: sockets, files, signals and messages, with the real program and real peers. Each situation is
//! an event at one of them, and the required reaction of `tidemill`. A module for each subject.

#![cfg(not(tidemill_model))]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

#[path = "../program/mod.rs"]
mod program;

mod files;
mod framings;
mod http;
mod pipes;
mod places;
mod signals;
mod sinks;
mod sockets;
mod terminals;
