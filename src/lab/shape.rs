//! The load of a run of `compare`: the same for every model. Plain data, which goes to the children as JSON.

use serde::{Deserialize, Serialize};

use crate::wording::count;

/// The name of the baseline: one thread that reads and counts line feeds, without an engine.
pub(crate) const BARE: &str = "bare";

/// The subject of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// As fast as the receiver takes it.
    Throughput,
    /// An open loop; each line carries the time at which it should have been sent.
    Latency,
    /// A trickle of lines on one connection: what the others cost.
    Memory,
}

impl Kind {
    /// Every kind, with its name on the command line and in files.
    pub(crate) const ALL: [(Kind, &'static str); 3] =
        [(Kind::Throughput, "throughput"), (Kind::Latency, "latency"), (Kind::Memory, "memory")];

    pub(crate) fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// The same load for every model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    pub(crate) connections: u64,
    /// Number of connections that are sent to, at least one.
    pub(crate) busy: u64,
    pub(crate) record_bytes: u64,
    pub(crate) batch_ms: u64,
    pub(crate) block_ms: u64,
}

impl Shape {
    /// The shape in words, for titles.
    pub(crate) fn words(&self) -> String {
        let Shape { connections, busy, record_bytes, batch_ms, block_ms, .. } = self;
        let ends = count(*connections, "connection");
        let idle = if busy < connections { format!(" ({busy} busy)") } else { String::new() };
        format!("{ends}{idle}, {record_bytes} B, batch {batch_ms} ms, block {block_ms} ms")
    }

    /// The shape in letters that a file name may have.
    pub(crate) fn slug(&self) -> String {
        let Shape { connections, busy, record_bytes, batch_ms, block_ms, .. } = self;
        format!("{connections}c-{busy}busy-{record_bytes}B-batch{batch_ms}ms-block{block_ms}ms")
    }
}
