//! Measuring: one kit, and the three measurements of `tidemill compare` that are made with it.
//!
//! ```text
//! models/    io models, and a bare loop, side by side over real sockets in separate processes
//! latency/   how much longer a line takes than its batch interval makes it wait
//! soak/      does anything grow?
//!    ├─▶ pair, protocol, child: a receiver and a sender, each this program again
//!    ╰─▶ the kit: process, sample, stats, machine, baseline, which `benches/scorecard` uses too
//! ```
//! A run times the engine as users run it, from its sockets to its batches. Nothing here knows the command line. The main
//! thread measures; each child has a thread that reads its lines.

pub mod baseline;
pub(crate) mod beside;
pub(crate) mod child;
pub(crate) mod interval;
pub(crate) mod latency;
pub mod machine;
pub(crate) mod markdown;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod page;
mod pair;
pub(crate) mod peers;
pub mod process;
pub(crate) mod protocol;
mod report_files;
pub(crate) mod results;
pub(crate) mod results_file;
pub mod sample;
pub(crate) mod shape;
pub(crate) mod soak;
pub mod stats;
mod storm;
mod syscalls;
pub(crate) mod verdict;

use std::path::PathBuf;

pub(crate) use pair::SUBCOMMAND;

use results::End;

/// The result of a measurement.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Tables for a terminal.
    pub(crate) table: String,
    /// Files that were written.
    pub(crate) files: Vec<PathBuf>,
    /// Runs that failed, with why.
    pub(crate) failures: Vec<String>,
    pub(crate) end: End,
}
