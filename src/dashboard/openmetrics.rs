//! `/metrics` in the OpenMetrics text format. Names and labels are an interface: scrapers rely on them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::pages::Starting;
use crate::context::Inspector;
use crate::metrics::{STAGES, Times};
use crate::receiver::io::IoModel;

/// Upper bounds of the buckets of every histogram, in microseconds.
const BUCKETS_US: [u64; 20] = [
    1, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 5_000_000, 30_000_000,
];

/// The counters of a receiver that go down as well.
const GAUGES: [&str; 2] = ["open", "removed_files_bytes"];

/// The metrics of a stream as text.
pub(super) fn encode(stream: &Inspector) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tidemill");
    registry.register_collector(Box::new(Stream(stream.clone())));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// The metrics of a stream that is still starting as text.
pub(super) fn early(starting: &Starting) -> String {
    let Starting { read_bytes, log_bytes } = starting;
    format!(
        "# HELP tidemill_ready Whether the stream works.\n# TYPE tidemill_ready gauge\ntidemill_ready 0.0\n\
         # HELP tidemill_recovery_read_bytes Bytes of an earlier run's log that the start has read.\n\
         # TYPE tidemill_recovery_read_bytes gauge\ntidemill_recovery_read_bytes {read_bytes}\n\
         # HELP tidemill_recovery_bytes Bytes of that log in all, at most.\n\
         # TYPE tidemill_recovery_bytes gauge\ntidemill_recovery_bytes {log_bytes}\n# EOF\n"
    )
}

#[derive(Debug)]
struct Stream(Inspector);

impl Collector for Stream {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.totals(&mut encoder)?;
        self.kept(&mut encoder)?;
        self.conditions(&mut encoder)?;
        self.receivers(&mut encoder)?;
        self.times(&mut encoder)
    }
}

impl Stream {
    fn totals(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let (done, memory, reloaded) = (self.0.progress(), self.0.memory(), self.0.reloaded());
        let counters = [
            ("batches", "Batches that are done", done.batches),
            ("records", "Records of the batches that are done", done.records),
            ("dead_letter_batches", "Batches whose input was put aside", done.dead_letters),
            ("dead_letter_records", "Records of those batches", done.dead_records),
            ("spilled_bytes", "Bytes of records that left memory", memory.spilled.bytes_total),
            ("spill_failures", "Times that blocks could not leave it", memory.spilled.failures),
            ("events_dropped", "Facts that slow listeners missed", self.0.events_dropped()),
        ];
        for (name, help, count) in counters {
            let counter = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let gauges = [
            ("batches_waiting", "Batches that are planned and not done", done.batches_waiting),
            ("records_waiting", "Records of those batches", done.records_waiting),
            (
                "store_bytes",
                "Bytes held between the sockets and the end of a batch",
                memory.used as u64,
            ),
            ("results_bytes", "The part of it that sinks do not have yet", memory.results as u64),
            (
                "results_expected_bytes",
                "Results that reading leaves room for",
                memory.expected as u64,
            ),
            ("kept_bytes", "What windows and states keep, about", memory.kept),
            (
                "unfinished_bytes",
                "Memory of records that have begun and not ended",
                memory.unfinished as u64,
            ),
            (
                "unfinished_bytes_max",
                "The bound at which an unfinished record is given up",
                memory.unfinished_bound as u64,
            ),
            ("free_buffer_bytes", "Buffers that are kept to be used again", memory.free as u64),
            ("store_bytes_max", "The bound at which reading stops", memory.bound as u64),
            ("spilled_now_bytes", "Bytes of records out of memory", memory.spilled.bytes),
            ("spill_file_bytes", "Bytes of the files that they are in", memory.spilled.file_bytes),
            ("ready", "Whether the stream works", u64::from(self.0.is_ready())),
            (
                "reload_generation",
                "How often SIGHUP applied the pipeline file",
                reloaded.generation,
            ),
            ("reload_success", "Whether the last reload was good", u64::from(!reloaded.failed)),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(as_f64(value));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }

    fn conditions(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let (name, help) = ("condition", "What holds the stream up now");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for condition in self.0.conditions() {
            let labels = [("kind", condition.kind.name()), ("subject", &condition.subject)];
            ConstGauge::new(1.0).encode(family.encode_family(&labels)?)?;
        }
        let (name, help) = ("conditions_begun", "How often each kind of condition began");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (kind, count) in self.0.conditions_begun() {
            let labels = [("kind", kind.name())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn kept(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        if let Some(most) = self.0.config().kept_bytes_max {
            let help = "The bound of what windows and states keep, at which the stream stops";
            let family =
                encoder.encode_descriptor("kept_bytes_max", help, None, MetricType::Gauge)?;
            ConstGauge::new(as_f64(most)).encode(family)?;
        }
        let help = "What each window and state keeps, about";
        let mut family =
            encoder.encode_descriptor("kept_part_bytes", help, None, MetricType::Gauge)?;
        for part in self.0.kept() {
            let labels = [("kind", part.kind()), ("name", part.name.as_str())];
            ConstGauge::new(as_f64(part.bytes)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn receivers(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let receivers = self.0.receivers();
        let Some(first) = receivers.first() else { return Ok(()) };
        for (index, (counter, _)) in first.counters.iter().enumerate() {
            let kind =
                if GAUGES.contains(counter) { MetricType::Gauge } else { MetricType::Counter };
            let (name, help) =
                (format!("receiver_{counter}"), format!("Of each receiver: {counter}"));
            let mut family = encoder.encode_descriptor(&name, &help, None, kind)?;
            for receiver in &receivers {
                let io_model = receiver.io_model.map_or("none", IoModel::name);
                let labels = [("source", receiver.source.as_str()), ("io_model", io_model)];
                let count = receiver.counters[index].1;
                let metric = family.encode_family(&labels)?;
                match kind {
                    MetricType::Gauge => ConstGauge::new(as_f64(count)).encode(metric)?,
                    _ => ConstCounter::new(count).encode(metric)?,
                }
            }
        }
        let (name, help) =
            ("receiver_paused", "Whether a receiver is not read, and what it waits for");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for receiver in &receivers {
            if let Some(by) = receiver.paused_by {
                let labels = [("source", receiver.source.as_str()), ("by", by.name())];
                ConstGauge::new(1.0).encode(family.encode_family(&labels)?)?;
            }
        }
        let (name, help) = ("receiver_rate", "The rate in force, in records per second");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for receiver in &receivers {
            if let Some(rate) = receiver.rate {
                let labels = [("source", receiver.source.as_str())];
                ConstGauge::new(as_f64(rate)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn times(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let times = self.0.times();
        let ticks = [("job", times.job_ticks.merged()), ("cut", times.cut_ticks.merged())];
        let help = "How late the ticks of a timer were";
        let mut family = encoder.encode_descriptor(
            "tick_lateness",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (timer, times) in &ticks {
            histogram(family.encode_family(&[("timer", *timer)])?, times)?;
        }
        let help = "How long each stage of a batch took";
        let mut family = encoder.encode_descriptor(
            "batch_stage",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for ((_, stage), latency) in STAGES.iter().zip(&times.stages) {
            histogram(family.encode_family(&[("stage", *stage)])?, &latency.merged())?;
        }
        Ok(())
    }
}

fn histogram(mut encoder: MetricEncoder<'_>, times: &Times) -> fmt::Result {
    let mut below = 0;
    let mut buckets = Vec::with_capacity(BUCKETS_US.len() + 1);
    for bound in BUCKETS_US {
        let bound = std::time::Duration::from_micros(bound);
        let count = times.at_most(bound);
        buckets.push((bound.as_secs_f64(), count - below));
        below = count;
    }
    buckets.push((f64::INFINITY, times.count() - below));
    let none = None::<&std::collections::HashMap<usize, _>>;
    encoder.encode_histogram::<[(&str, &str); 0]>(
        times.total.as_secs_f64(),
        times.count(),
        &buckets,
        none,
    )
}

#[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
