//! `DStream` and the graph: sources, operators and outputs, and the plan that they make of each batch.
//!
//! ```text
//! source ─▶ operator ─▶ operator ─▶ output        one output is one job; the graph lists them in order
//!   compute() ◀── compute() ◀── compute() ◀── Output::plan(input)      stages gather in the planner on the way back
//! ```
//! Nodes are built once and compute each batch and attempt; their results are lazy. Planning runs on the scheduler's
//! thread and costs nothing per record; the plan runs on the workers. Nothing here knows receivers or the context.

mod dedup;
mod delivery;
mod dstream;
mod graph;
mod input;
pub mod jobs;
mod kept;
mod late;
mod missing;
mod node;
mod ops;
mod outputs;
mod plan;
mod sources;
mod state;

#[cfg(all(test, not(tidemill_model)))]
mod memory_tests;
#[cfg(all(test, not(tidemill_model)))]
mod tests;
mod window;

pub(crate) use dedup::identity_state;
pub use dedup::{INTERVALS_MAX, Identity, SENDERS_MAX};
pub use dstream::DStream;
pub use graph::{Graph, GraphOptions, SourceInfo};
pub use input::{BatchInput, Replay};
pub(crate) use jobs::latency::stamp;
pub(crate) use kept::KEEP_LESS;
pub use kept::KeptPart;
pub use late::{OnLate, RunLease};
pub use outputs::Collected;
pub(crate) use plan::JobPast;
pub use plan::Output;
pub use state::Stateful;
pub(crate) use state::changelog::{Census, Counting};
pub use state::changelog::{Changes, Restore, StateInfo};
pub use state::spec::{State, StateCounts, StateKey, StateSpec, StateValue, WhenFull};
pub use window::WindowSpan;
pub use window::persist::Remembered;

use dstream::StreamLineage;
use graph::Settings;
use missing::Missing;
use node::{Compute, Node};
use plan::{Job, Planner};
