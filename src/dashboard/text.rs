//! Writes the [table](super::table) as text for scrapers: in OpenMetrics, or as Prometheus took it before that. Pure.
//!
//! ```text
//!              OpenMetrics                          classic
//! counter      # TYPE a counter, a_total 1          # TYPE a_total counter, a_total 1
//! info         # TYPE a info, a_info{..} 1          # TYPE a_info gauge, a_info{..} 1
//! earlier name # TYPE a_total unknown, a_total 1    (none)
//! end          # EOF                                (none)
//! ```

use std::fmt::Write;
use std::time::Duration;

pub(super) use super::accept::Format;
use super::look::Look;
use super::row::{Kind, Origin, Row, Value};
use super::table::rows;
use crate::metrics::Times;

/// Upper bounds of the buckets of every histogram, in microseconds.
const BUCKETS_US: [u64; 20] = [
    1, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 5_000_000, 30_000_000,
];

/// Writes everything that a look shows.
pub(super) fn encode(look: &Look, format: Format) -> String {
    let mut text = String::new();
    for row in rows() {
        family(&mut text, row, look, format);
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// Writes the samples of a row below its description; writes nothing if there are none.
fn family(text: &mut String, row: &Row, look: &Look, format: Format) {
    if row.name.is_empty() || (row.kind == Kind::Old && format == Format::Classic) {
        return;
    }
    let name = sample_name(row);
    let mut samples = String::new();
    row.each(look, &mut |values, value| {
        let pairs: Vec<(&str, &str)> =
            row.labels.iter().copied().zip(values.iter().copied()).collect();
        sample(&mut samples, &name, &pairs, &number(row.kind, value));
    });
    if let Origin::Times(times) = row.from {
        for (value, times) in look.stream.iter().flat_map(times) {
            histogram(&mut samples, &name, row.labels[0], value, &times);
        }
    }
    if samples.is_empty() {
        return;
    }
    let family = if format == Format::OpenMetrics { row.name } else { &name };
    let help = escaped(row.help, format == Format::OpenMetrics);
    let kind = type_name(row.kind, format);
    line(text, format_args!("# HELP {family} {help}"));
    line(text, format_args!("# TYPE {family} {kind}"));
    if let Some(unit) = row.unit().filter(|_| format == Format::OpenMetrics) {
        line(text, format_args!("# UNIT {family} {unit}"));
    }
    text.push_str(&samples);
}

/// The name of a row's samples.
pub(super) fn sample_name(row: &Row) -> String {
    match row.kind {
        Kind::Counter => format!("{}_total", row.name),
        Kind::Info => format!("{}_info", row.name),
        Kind::Gauge | Kind::Histogram | Kind::Old => row.name.to_owned(),
    }
}

/// The name of a kind in a format.
pub(super) fn type_name(kind: Kind, format: Format) -> &'static str {
    match (kind, format) {
        (Kind::Counter, _) => "counter",
        (Kind::Gauge, _) | (Kind::Info, Format::Classic) => "gauge",
        (Kind::Histogram, _) => "histogram",
        (Kind::Info, Format::OpenMetrics) => "info",
        (Kind::Old, Format::OpenMetrics) => "unknown",
        (Kind::Old, Format::Classic) => "untyped",
    }
}

/// Counters are whole numbers; gauges are numbers with a point.
fn number(kind: Kind, value: Value) -> String {
    match (value, kind) {
        (Value::Count(count), Kind::Gauge) => format!("{count}.0"),
        (Value::Count(count), _) => count.to_string(),
        (Value::Is(is_so), _) => format!("{}.0", u8::from(is_so)),
        (Value::Time(time), _) => seconds(time),
    }
}

/// Seconds without an exponent, and with a point.
fn seconds(time: Duration) -> String {
    let text = time.as_secs_f64().to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

fn histogram(text: &mut String, name: &str, label: &str, value: &str, times: &Times) {
    let label = (label, value);
    let mut bucket = |bound: &str, count: u64| {
        sample(text, &format!("{name}_bucket"), &[("le", bound), label], &count.to_string());
    };
    for bound in BUCKETS_US.map(Duration::from_micros) {
        bucket(&seconds(bound), times.at_most(bound));
    }
    bucket("+Inf", times.count());
    sample(text, &format!("{name}_sum"), &[label], &seconds(times.total));
    sample(text, &format!("{name}_count"), &[label], &times.count().to_string());
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: &str) {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(label, value)| format!("{label}=\"{}\"", escaped(value, true)))
        .collect();
    let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
    line(text, format_args!("{name}{labels} {value}"));
}

/// Escapes every character that would end the text or its line.
fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::super::Starting;
    use super::super::process::Process;
    use super::super::row::{counter, gauge, old};
    use super::*;
    use crate::metrics::Latency;

    /// Checks a row over a start that has read this many bytes, in both formats.
    fn check(row: Row, open_metrics: &str, classic: &str) {
        let starting = Some(Starting { read_bytes: 7, log_bytes: 9 });
        let look = Look { stream: None, starting, process: Process::default() };
        for (format, expected) in [(Format::OpenMetrics, open_metrics), (Format::Classic, classic)]
        {
            let mut text = String::new();
            family(&mut text, &row, &look, format);
            assert_eq!(text, expected, "{format:?}");
        }
    }

    #[test]
    fn kinds_are_written_as_each_format_has_them() {
        let from = Origin::Starting(|it| it.read_bytes.into());
        check(
            counter("a", "Of \\ \"a\".", from),
            "# HELP a Of \\\\ \\\"a\\\".\n# TYPE a counter\na_total 7\n",
            "# HELP a_total Of \\\\ \"a\".\n# TYPE a_total counter\na_total 7\n",
        );
        check(
            gauge("a_bytes", "A.", from),
            "# HELP a_bytes A.\n# TYPE a_bytes gauge\n# UNIT a_bytes bytes\na_bytes 7.0\n",
            "# HELP a_bytes A.\n# TYPE a_bytes gauge\na_bytes 7.0\n",
        );
        check(
            old("a_total", "A.", from),
            "# HELP a_total A.\n# TYPE a_total unknown\na_total 7\n",
            "",
        );
        check(
            Row::new(Kind::Info, "a", "A.", from),
            "# HELP a A.\n# TYPE a info\na_info 7\n",
            "# HELP a_info A.\n# TYPE a_info gauge\na_info 7\n",
        );
        let time = Origin::Starting(|it| Duration::from_millis(it.log_bytes).into());
        check(
            counter("a_seconds", "A.", time),
            "# HELP a_seconds A.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 0.009\n",
            "# HELP a_seconds_total A.\n# TYPE a_seconds_total counter\na_seconds_total 0.009\n",
        );
        check(old("", "A.", from), "", "");
        check(gauge("a", "A.", Origin::Stream(|_| None)), "", "");
        check(gauge("a", "A.", Origin::Process(|it| it.open_fds.map(Into::into))), "", "");
    }

    #[test]
    fn labels_are_escaped() {
        let check = |value: &str, expected: &str| {
            let mut text = String::new();
            sample(&mut text, "a", &[("b", value), ("c", "d")], "1");
            assert_eq!(text, expected);
        };
        check("x", "a{b=\"x\",c=\"d\"} 1\n");
        check("\"} 1\na 2", "a{b=\"\\\"} 1\\na 2\",c=\"d\"} 1\n");
        check("C:\\new", "a{b=\"C:\\\\new\",c=\"d\"} 1\n");
        check("Größe", "a{b=\"Größe\",c=\"d\"} 1\n");
    }

    #[test]
    fn buckets_add_up() {
        let latency = Latency::default();
        let recorder = latency.recorder();
        [1, 3, 400_000, 60_000_000]
            .into_iter()
            .for_each(|us| recorder.record(Duration::from_micros(us)));
        let mut text = String::new();
        histogram(&mut text, "a", "b", "c", &latency.merged());
        let check = |part: &str| assert!(text.contains(part), "no {part:?} in\n{text}");
        check("a_bucket{le=\"0.000001\",b=\"c\"} 1\n");
        check("a_bucket{le=\"0.000005\",b=\"c\"} 2\n");
        check("a_bucket{le=\"0.5\",b=\"c\"} 3\n");
        check("a_bucket{le=\"30.0\",b=\"c\"} 3\n");
        check("a_bucket{le=\"+Inf\",b=\"c\"} 4\n");
        check("a_sum{b=\"c\"} 60.400004\n");
        check("a_count{b=\"c\"} 4\n");
    }
}
