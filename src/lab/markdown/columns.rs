//! The columns of the tables of each kind of shape: figures by name, with their units. Plain data.

use crate::lab::shape::Kind;
use crate::page::Unit;

/// A column of a table.
pub(super) struct Column {
    pub(super) head: &'static str,
    /// The name of the figure.
    pub(super) metric: &'static str,
    /// How many of the unit one of the figure is.
    pub(super) scale: f64,
    pub(super) unit: Unit,
}

const fn column(head: &'static str, metric: &'static str, scale: f64, unit: Unit) -> Column {
    Column { head, metric, scale, unit }
}

const PERCENT: Unit = Unit::plain("%");

const THROUGHPUT: &[Column] = &[
    column("CPU per GB", "cpu_seconds_per_gb", 1.0, Unit::plain("s")),
    column("rate", "bytes_per_second", 1.0, Unit::large("B/s")),
    column("records", "records_per_second", 1.0, Unit::counted("records/s")),
    column("switches per MB", "context_switches_per_mb", 1.0, Unit::plain("")),
    column("system calls per MB", "system_calls_per_mb", 1.0, Unit::plain("")),
    column("most memory", "peak_bytes", 1.0, Unit::MEMORY),
    column("sender's CPU", "sender_cpu_share_percent", 1.0, PERCENT),
];

const TIMED: &[Column] = &[
    column("99 % over the floor", "excess_p99_ms", 1e-3, Unit::SECONDS),
    column("50 %", "p50_ms", 1e-3, Unit::SECONDS),
    column("99 %", "p99_ms", 1e-3, Unit::SECONDS),
    column("99.9 %", "p99.9_ms", 1e-3, Unit::SECONDS),
    column("longest", "max_ms", 1e-3, Unit::SECONDS),
    column("sender late", "sender_behind_ms", 1e-3, Unit::SECONDS),
    column("CPU", "cpu_share_percent", 1.0, PERCENT),
];

const SLOW: &[Column] = &[
    column("99 %", "p99_ms", 1e-3, Unit::SECONDS),
    column("50 %", "p50_ms", 1e-3, Unit::SECONDS),
    column("99.9 %", "p99.9_ms", 1e-3, Unit::SECONDS),
    column("longest", "max_ms", 1e-3, Unit::SECONDS),
    column("sender late", "sender_behind_ms", 1e-3, Unit::SECONDS),
];

const MEMORY: &[Column] = &[
    column("for a connection", "bytes_per_connection", 1.0, Unit::MEMORY),
    column("own memory", "anonymous_bytes", 1.0, Unit::MEMORY),
    column("threads", "threads", 1.0, Unit::plain("")),
    column("CPU", "cpu_share_percent", 1.0, PERCENT),
];

const STORM: &[Column] = &[
    column("CPU for a connection", "cpu_micros_per_connection", 1e-6, Unit::SECONDS),
    column("connections", "connections_per_second", 1.0, Unit::counted("connections/s")),
    column("most memory", "peak_bytes", 1.0, Unit::MEMORY),
];

/// The columns of this kind; the first one is judged and drawn.
pub(super) fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Throughput => THROUGHPUT,
        Kind::Latency | Kind::Crowd => TIMED,
        Kind::Slow => SLOW,
        Kind::Memory => MEMORY,
        Kind::Storm => STORM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::metrics::{METRICS, judged};

    #[test]
    fn every_column_is_a_figure_and_the_first_one_is_judged() {
        for (kind, name) in Kind::ALL {
            for column in columns(kind) {
                let known = METRICS.iter().any(|metric| metric.name == column.metric);
                assert!(known, "{name}: {}", column.metric);
            }
            assert_eq!(columns(kind)[0].metric, judged(kind)[0].metric, "{name}");
        }
    }
}
