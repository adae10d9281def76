//! What a `state_dir` and an output directory live through, with the real program: each situation is what people do with
//! files and processes, and what `tidemill` must say and keep. A module for each subject.

#![cfg(not(tidemill_model))]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers and readers are threads of the test, not of the engine"
)]

mod program;

#[path = "outside_state/conditions.rs"]
mod conditions;
#[path = "outside_state/gone.rs"]
mod gone;
#[path = "outside_state/in_the_way.rs"]
mod in_the_way;
#[path = "outside_state/lost.rs"]
mod lost;

#[path = "outside_state/names.rs"]
mod names;

#[path = "outside_state/room.rs"]
mod room;

#[path = "outside_state/memory.rs"]
mod memory;
#[path = "outside_state/owners.rs"]
mod owners;

#[path = "outside_state/touched.rs"]
mod touched;

#[path = "outside_state/damage.rs"]
mod damage;

#[path = "outside_state/starts.rs"]
mod starts;
#[path = "outside_state/verdicts.rs"]
mod verdicts;
