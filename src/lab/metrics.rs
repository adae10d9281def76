//! The figures that a run's samples give, by name: those of tables and files, and those that are judged. Pure; any thread. Knows
//! nothing of how they are shown.

use hdrhistogram::Histogram;

use super::protocol::histogram_of;
use super::results::{Cell, Figures};
use super::shape::{Kind, Shape};
use super::stats::millis_at;
use crate::settings::units::as_f64;

/// Milliseconds below which differences of latencies are noise of the sender's pace: an excess counts as at least this much.
const EXCESS_MIN: f64 = 0.1;

/// A figure of a run: its name in files, and its value; `None` where it says nothing.
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&Shape, &Figures) -> Option<f64>,
}

/// The better side of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// A figure that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    /// The name of its [`Metric`].
    pub(crate) metric: &'static str,
    /// Its name in a sentence.
    pub(crate) words: &'static str,
    pub(crate) better: Better,
}

/// Every figure, in the order of the columns of the CSV file.
pub(crate) const METRICS: &[Metric] = &[
    Metric {
        name: "bytes_per_second",
        of: |shape, f| full_speed(shape, as_f64(f.bytes) / f.seconds),
    },
    Metric {
        name: "records_per_second",
        of: |shape, f| full_speed(shape, as_f64(f.records) / f.seconds),
    },
    Metric {
        name: "connections_per_second",
        of: |shape, f| storm(shape, as_f64(f.closed) / f.seconds),
    },
    Metric { name: "cpu_seconds_per_gb", of: |shape, f| full_speed(shape, f.cpu / gigabytes(f)) },
    Metric {
        name: "cpu_micros_per_connection",
        of: |shape, f| storm(shape, f.cpu * 1e6 / as_f64(f.closed)),
    },
    Metric { name: "cpu_share_percent", of: |_, f| Some(f.cpu / f.seconds * 100.0) },
    Metric {
        name: "sender_cpu_share_percent",
        of: |_, f| Some(f.sent.cpu / f.sent.seconds * 100.0),
    },
    Metric { name: "context_switches_per_second", of: |_, f| switches_per_second(f) },
    Metric {
        name: "context_switches_per_mb",
        of: |shape, f| full_speed(shape, switches_per_second(f)? * f.seconds / megabytes(f)),
    },
    Metric {
        name: "system_calls_per_second",
        of: |_, f| f.calls.map(|calls| as_f64(calls) / f.seconds),
    },
    Metric {
        name: "system_calls_per_mb",
        of: |shape, f| full_speed(shape, as_f64(f.calls?) / megabytes(f)),
    },
    Metric {
        name: "bytes_per_connection",
        of: |shape, f| {
            let grown = f.late.anonymous_bytes.saturating_sub(f.before.anonymous_bytes);
            let many = shape.kind == Kind::Memory && shape.connections > 1;
            (many && f.late.threads > 0).then(|| as_f64(grown) / as_f64(shape.connections))
        },
    },
    Metric { name: "anonymous_bytes", of: |_, f| Some(as_f64(f.late.anonymous_bytes)) },
    Metric { name: "peak_bytes", of: |_, f| Some(as_f64(f.late.peak_bytes)) },
    Metric { name: "threads", of: |_, f| Some(as_f64(f.late.threads)) },
    Metric { name: "p50_ms", of: |_, f| latency(f, 0.5) },
    Metric { name: "p99_ms", of: |_, f| latency(f, 0.99) },
    Metric { name: "p99.9_ms", of: |_, f| latency(f, 0.999) },
    Metric { name: "p99.99_ms", of: |_, f| latency(f, 0.999_9) },
    Metric { name: "max_ms", of: |_, f| latency(f, 1.0) },
    Metric {
        name: "excess_p99_ms",
        of: |shape, f| {
            let floor = 0.99 * as_f64(shape.batch_ms);
            Some((latency(f, 0.99)? - floor).max(EXCESS_MIN))
        },
    },
    Metric {
        name: "sender_behind_ms",
        of: |shape, f| shape.kind.is_timed().then(|| as_f64(f.sent.behind_micros) / 1e3),
    },
];

/// The figures that decide a shape of this kind. The first is the one that matters most.
pub(crate) fn judged(kind: Kind) -> &'static [Judged] {
    const fn less(metric: &'static str, words: &'static str) -> Judged {
        Judged { metric, words, better: Better::Less }
    }
    const fn more(metric: &'static str, words: &'static str) -> Judged {
        Judged { metric, words, better: Better::More }
    }
    const THROUGHPUT: &[Judged] =
        &[less("cpu_seconds_per_gb", "processor time per GB"), more("bytes_per_second", "rate")];
    const LATENCY: &[Judged] =
        &[less("excess_p99_ms", "99th percentile of latency over the interval's floor")];
    const SLOW: &[Judged] = &[less("p99_ms", "99th percentile of latency")];
    const MEMORY: &[Judged] = &[less("bytes_per_connection", "memory per connection")];
    const STORM: &[Judged] = &[
        less("cpu_micros_per_connection", "processor time per connection"),
        more("connections_per_second", "connections per second"),
    ];
    match kind {
        Kind::Throughput => THROUGHPUT,
        Kind::Latency | Kind::Crowd => LATENCY,
        Kind::Slow => SLOW,
        Kind::Memory => MEMORY,
        Kind::Storm => STORM,
    }
}

/// The figure of this name of a run; `None` if it has none that is a number.
pub(crate) fn value(name: &str, shape: &Shape, figures: &Figures) -> Option<f64> {
    let metric = METRICS.iter().find(|metric| metric.name == name)?;
    (metric.of)(shape, figures).filter(|value| value.is_finite())
}

/// The figure of this name of every run of a cell, with the run's pair.
pub(crate) fn by_pair(name: &str, cell: &Cell) -> Vec<(u64, f64)> {
    let values = cell.done().map(|(run, it)| Some((run.pair, value(name, &cell.shape, it)?)));
    values.flatten().collect()
}

/// The latencies of a run, in nanoseconds.
pub(crate) fn histogram(figures: &Figures) -> Histogram<u64> {
    histogram_of(&figures.latencies)
}

fn full_speed(shape: &Shape, value: f64) -> Option<f64> {
    (shape.kind == Kind::Throughput).then_some(value)
}

fn storm(shape: &Shape, value: f64) -> Option<f64> {
    (shape.kind == Kind::Storm).then_some(value)
}

fn gigabytes(figures: &Figures) -> f64 {
    as_f64(figures.bytes) / 1e9
}

fn megabytes(figures: &Figures) -> f64 {
    as_f64(figures.bytes) / 1e6
}

fn switches_per_second(figures: &Figures) -> Option<f64> {
    let switches = figures.late.switches.saturating_sub(figures.early.switches);
    (figures.late.threads > 0).then(|| as_f64(switches) / figures.between)
}

fn latency(figures: &Figures, quantile: f64) -> Option<f64> {
    (!figures.latencies.is_empty()).then(|| millis_at(&histogram(figures), quantile))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_judged_figure_is_a_metric_and_says_something_of_its_kind() {
        let figures = Figures {
            seconds: 1.0,
            bytes: 1_000,
            records: 10,
            cpu: 0.1,
            closed: 5,
            late: crate::lab::sample::Sample { threads: 1, ..Default::default() },
            latencies: vec![(1_000_000, 1)],
            ..Figures::default()
        };
        for (kind, name) in Kind::ALL {
            let shape = Shape { kind, connections: 2, ..Shape::default() };
            for judged in judged(kind) {
                let found = value(judged.metric, &shape, &figures);
                assert!(found.is_some(), "{name}: {}", judged.metric);
            }
        }
    }

    #[test]
    fn a_latency_below_its_floor_is_none_to_speak_of() {
        let check = |batch_ms, nanos, expected: f64| {
            let figures = Figures { latencies: vec![(nanos, 1)], ..Figures::default() };
            let shape = Shape { kind: Kind::Latency, batch_ms, ..Shape::default() };
            let found = value("excess_p99_ms", &shape, &figures).expect("a latency");
            assert!((found - expected).abs() < 0.02, "{found}");
        };
        check(10, 11_900_000, 2.0);
        check(10, 1_000_000, 0.1);
        check(100, 99_050_000, 0.1);
    }
}
