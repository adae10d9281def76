//! The load of a run of `compare`: the same for every model. Plain data, which goes to the children as JSON.

use serde::{Deserialize, Serialize};

use crate::wording::count;

/// The name of the baseline: one thread that reads and counts line feeds, without an engine.
pub(crate) const BARE: &str = "bare";

/// The subject of a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// As fast as the receiver takes it.
    #[default]
    Throughput,
    /// An open loop; each line carries the time at which it should have been sent.
    Latency,
    /// A trickle of lines on one connection: what the others cost.
    Memory,
    /// One honest stream in an open loop beside thin ones: what it suffers from them.
    Crowd,
    /// Connections that are made, send a line and close, as fast as they are taken.
    Storm,
    /// An open loop while now and then a batch takes much longer than its interval.
    Slow,
}

impl Kind {
    /// Every kind, with its name on the command line and in files.
    pub(crate) const ALL: [(Kind, &'static str); 6] = [
        (Kind::Throughput, "throughput"),
        (Kind::Latency, "latency"),
        (Kind::Memory, "memory"),
        (Kind::Crowd, "crowd"),
        (Kind::Storm, "storm"),
        (Kind::Slow, "slow"),
    ];

    /// The kinds that are measured if none is named.
    pub(crate) const USUAL: [Kind; 3] = [Kind::Throughput, Kind::Latency, Kind::Memory];

    pub(crate) fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// True if lines come in an open loop and carry the time at which they should have been sent.
    pub(crate) fn is_timed(self) -> bool {
        match self {
            Kind::Latency | Kind::Crowd | Kind::Slow => true,
            Kind::Throughput | Kind::Memory | Kind::Storm => false,
        }
    }
}

/// The same load for every model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    pub(crate) connections: u64,
    /// Number of connections that are sent to, at least one.
    pub(crate) busy: u64,
    pub(crate) record_bytes: u64,
    pub(crate) batch_ms: u64,
    pub(crate) block_ms: u64,
    /// The rate, in percent of the highest one that each model holds; `None`: the same rate for every model.
    pub(crate) load_percent: Option<u64>,
}

impl Shape {
    /// The shape in words, for titles.
    pub(crate) fn words(&self) -> String {
        let Shape { connections, busy, record_bytes, batch_ms, block_ms, load_percent, .. } = self;
        let load =
            load_percent.map_or(String::new(), |load| format!(", {load} % of the rate that holds"));
        let ends = count(*connections, "connection");
        let idle = if busy < connections { format!(" ({busy} busy)") } else { String::new() };
        format!("{ends}{idle}, {record_bytes} B, batch {batch_ms} ms, block {block_ms} ms{load}")
    }

    /// The shape in letters that a file name may have.
    pub(crate) fn slug(&self) -> String {
        let Shape { connections, busy, record_bytes, batch_ms, block_ms, .. } = self;
        format!("{connections}c-{busy}busy-{record_bytes}B-batch{batch_ms}ms-block{block_ms}ms")
    }
}

/// The items of each shape, the shapes in the order in which they come first.
pub(crate) fn by_shape<'a, T>(
    items: impl IntoIterator<Item = &'a T>,
    shape_of: impl Fn(&T) -> Shape,
) -> Vec<(Shape, Vec<&'a T>)> {
    let mut groups: Vec<(Shape, Vec<&T>)> = Vec::new();
    for item in items {
        let of = shape_of(item);
        match groups.iter_mut().find(|(shape, _)| *shape == of) {
            Some((_, group)) => group.push(item),
            None => groups.push((of, vec![item])),
        }
    }
    groups
}
