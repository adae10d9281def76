//! Streams: [`DStream`] with its operators, windows and states, and what closures see of a batch.
//!
//! A source of a [`StreamingContext`](crate::StreamingContext) is the first stream. The type [`DStream`] says what holds for
//! all operators: order, threads, failures, and when closures run again. [`Batch`], [`Partition`], [`Out`] and [`State`] are
//! handed to closures; [`Stateful`], [`Remembered`] and [`Collected`] are what some operators return.
//!
//! # Inside
//! The graph has sources, operators and outputs, and makes a plan of them for each batch:
//!
//! ```text
//! source ─▶ operator ─▶ operator ─▶ output        one output is one job; the graph lists them in order
//!   compute() ◀── compute() ◀── compute() ◀── OpenBatch::plan(job)      stages gather in the planner on the way back
//! ```
//! Nodes are built once and compute each batch and attempt; their results are lazy. Planning runs on the scheduler's
//! thread and costs nothing per record; the plan runs on the workers. Nothing here knows receivers or the context.

mod dedup;
mod delivery;
mod dstream;
mod graph;
mod input;
pub(crate) mod jobs;
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

use std::fmt;
use std::time::Duration;

pub use regex::bytes::Regex;

pub use crate::exec::{Batch, Out, Partition};
use crate::sink::{SharedSink, Writer};
use crate::sync::{Arc, AtomicU64, Mutex};
use crate::time::{Interval, Time};

pub use dedup::Identity;
pub(crate) use dedup::identity_state;
pub use dstream::DStream;
#[doc(hidden)]
pub use input::BatchInput;
pub(crate) use input::Replay;
pub(crate) use jobs::latency::stamp;
pub(crate) use kept::KEEP_LESS;
pub use kept::KeptPart;
pub(crate) use late::RunLease;
pub use outputs::Collected;
pub(crate) use plan::JobPast;
#[doc(hidden)]
pub use plan::Output;
#[doc(hidden)]
pub use plan::open_batch::OpenBatch;
pub use state::Stateful;
pub(crate) use state::commit::{Census, Counting};
pub use state::spec::{State, StateCounts, StateKey, StateSpec, StateValue, WhenFull};
pub(crate) use window::WindowSpan;
pub use window::persist::Remembered;

use dedup::Repeats;
use dstream::StreamLineage;
use kept::Kept;
use late::Late;
use missing::Missing;
use node::{Compute, Node};
use plan::Planner;
use plan::committed::CommittedBatches;
use plan::wiring::Wiring;
use state::commit::{Changelog, Compactor};
use window::persist::Memory;
use window::undue::Undue;

/// The options of a graph.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct GraphOptions {
    /// The pipeline's name.
    pub pipeline: String,
    /// Number of workers that run the plans.
    pub workers: usize,
    /// The seed of every hash.
    pub seed: u64,
    /// From one batch to the next; windows are multiples of it.
    pub batch_interval: Interval,
    /// The destination of `print`.
    pub console: Writer,
}

/// A source of blocks.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Its number: the index into [`BatchInput::blocks`].
    pub source: u32,
    /// Its name.
    pub name: Arc<str>,
}

/// The streams of one context: sources and outputs, and the nodes between them.
#[doc(hidden)]
pub struct Graph {
    pipeline: Arc<str>,
    console: Writer,
    settings: Settings,
    bad_utf8: Arc<AtomicU64>,
    repeats: Repeats,
    /// The facts that are fixed before the first batch; batches hold it as it was when they began.
    wiring: Mutex<Arc<Wiring>>,
    /// What is committed; the same.
    committed: Mutex<Arc<CommittedBatches>>,
    /// The memory that nodes keep from batch to batch.
    kept: Kept,
    compactor: Arc<Mutex<Compactor>>,
    /// The last batch that was run again: its changes are kept already.
    replayed: Mutex<Option<Time>>,
    late: Late,
    undue: Mutex<Undue>,
    registered: Mutex<Registered>,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    workers: usize,
    seed: u64,
    batch_interval: Interval,
}

#[derive(Default)]
struct Registered {
    sources: Vec<SourceInfo>,
    outputs: Vec<Arc<Output>>,
    /// The sinks of the outputs, each once.
    sinks: Vec<SharedSink>,
    nodes: u32,
    /// Operators with state: the node, and the name by which the state is found again.
    stateful: Vec<(u32, Arc<str>)>,
    /// Those of them with a changelog: the node, what it holds, and the changelog. Windows are not: they are recomputed.
    changelogs: Vec<(u32, String, Arc<dyn Changelog>)>,
    /// The nodes that keep something from batch to batch, with what plans them.
    keepers: Vec<(u32, NodePlanner)>,
    /// Each empties a window.
    emptiers: Vec<Box<dyn Fn() + Send + Sync>>,
    /// The reach of windows, and that of windows below a state.
    reach: (Duration, Duration),
    /// The batches that streams remember.
    memories: Vec<Memory>,
    /// The errors of the graph.
    problems: Vec<String>,
    /// The operators that slide over time.
    windows: Vec<String>,
    /// The first of them that a queue lies above, and that queue.
    queue_window: Option<(Arc<str>, String)>,
}

/// Plans a node.
type NodePlanner = Arc<dyn Fn(&mut Planner<'_>) -> Result<(), Missing> + Send + Sync>;

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}
