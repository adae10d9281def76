//! The life of a `state_dir` and an output directory, with the real program. Each situation is an operation of people on
//! files and processes, and the required messages and results of `tidemill`. A module for each subject.

#![cfg(not(tidemill_model))]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

#[path = "../program/mod.rs"]
mod program;

mod conditions;
mod damage;
mod gone;
mod in_the_way;
mod lost;
mod memory;
mod names;
mod owners;
mod room;
mod starts;
mod touched;
mod verdicts;
