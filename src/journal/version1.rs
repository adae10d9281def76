//! The records of version 1, from before a state directory had an identity: read only. The reader converts them.
//!
//! ```text
//! kind 1 with version 1 ─▶ Started       no identity, no run
//! kind 3 ────────────────▶ Plan          of run 0: planned before runs were counted
//! section `engine`, 1 ───▶ Snapshot      no identity, no run
//! ```
//! postcard does not describe itself, so each version has structs of its own. Pure.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::names::{Inventory, Known};

/// A start of the engine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) version: u32,
    pub(super) pipeline: String,
    pub(super) seed: u64,
    pub(super) anchor: u64,
    pub(super) sources: Vec<String>,
    pub(super) states: Vec<(String, String)>,
}

/// The known names: a name with `#` is the place of a state without a name.
pub(super) fn names(sources: Vec<String>, states: Vec<(String, String)>) -> Inventory<Known> {
    let source = |name| Known { name, ..Known::default() };
    let state = |(name, what): (String, String)| Known {
        generated: name.contains('#'),
        name,
        what,
        ..Known::default()
    };
    Inventory {
        sources: sources.into_iter().map(source).collect(),
        states: states.into_iter().map(state).collect(),
        ..Inventory::default()
    }
}

/// The input of a batch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) index: u64,
    pub(super) time: u64,
    pub(super) partitions: u64,
    pub(super) seed: u64,
    pub(super) blocks: Vec<(u32, Vec<Range<u64>>)>,
    pub(super) ranges: Vec<(u32, Vec<u8>)>,
}

/// The content of a checkpoint about the engine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) version: u32,
    pub(super) pipeline: String,
    pub(super) seed: u64,
    pub(super) anchor: u64,
    pub(super) sources: Vec<String>,
    pub(super) next_index: u64,
    pub(super) last_time: Option<u64>,
    pub(super) covered: Vec<(u32, u64)>,
    pub(super) states: Vec<(String, String)>,
    pub(super) state_from: u64,
    pub(super) ranges: Vec<(u32, Vec<u8>)>,
    pub(super) first_segment: u64,
    pub(super) kept_segment: u64,
}
