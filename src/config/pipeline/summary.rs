//! The summary of a pipeline for people, a line for each part, as `validate` and a start print it. Main thread; it
//! knows what was read, not how it was written.

use crate::config::{Pipeline, Resolved, Trigger};
use crate::settings::units::show_bytes;
use crate::source::{Direction, Source};
use crate::wording::count;

impl Pipeline {
    /// A summary for people, a line for each part; the last is the highest input rate that the memory bound allows.
    pub fn summary(&self) -> String {
        let Resolved { name, batch_interval, block_interval, workers, store_bytes_max, .. } =
            self.resolved();
        let (batches, interval) = match self.resolved().trigger {
            Some(Trigger { records, timeout }) => {
                let records = count(records, "record");
                (format!("a batch at {records} or after {timeout}"), "trigger time-out")
            }
            None => (format!("a batch every {batch_interval}"), "batch_interval"),
        };
        let mut lines = vec![format!(
            "pipeline {name}: {batches}, blocks every {block_interval}, workers {workers}"
        )];
        lines.extend(
            self.sources.iter().map(|(name, source)| format!("source {name}: {}", about(source))),
        );
        for (name, job) in &self.jobs {
            let (from, to) = (job.from.join(", "), job.to.join(", "));
            let filter = if job.filter.is_some() { " where it matches" } else { "" };
            lines.push(format!("job {name}: {} of {from}{filter}, to {to}", job.kind.row().name));
        }
        lines.extend(
            self.sinks.iter().map(|(name, sink)| format!("sink {name}: {}", sink.summary())),
        );
        let rate = rough_bytes(self.resolved().highest_input_rate());
        let store = rough_bytes(store_bytes_max);
        lines.push(format!(
            "highest input rate: {rate}/s (store_bytes_max {store} ÷ {interval} {batch_interval})"
        ));
        lines.join("\n")
    }
}

fn about(source: &Source) -> String {
    match source {
        Source::Socket(socket) => {
            let peers = match &socket.direction {
                Direction::Connect(peers) => format!("connects to {}", peers.join(", ")),
                Direction::Listen(address) => format!("listens on {address}"),
            };
            format!("{peers}, io model {}", socket.io_model.name())
        }
        Source::Generate(source) => {
            let rate = source
                .rate
                .map_or("as fast as it can".to_owned(), |rate| format!("{rate} lines/s"));
            format!("generates {rate}, io model {}", source.io_model.name())
        }
        Source::Files(source) => {
            let (directory, batch) = (source.directory.display(), source.batch_bytes_max);
            format!("files of {directory}, up to {} a batch", show_bytes(batch))
        }
    }
}

/// A size to about three digits, rounded down: people compare it, nobody computes with it.
fn rough_bytes(bytes: u64) -> String {
    let shift = bytes.checked_ilog2().unwrap_or(0).saturating_sub(7) / 10 * 10;
    show_bytes(bytes >> shift << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_for_people() {
        let check = |bytes, expected| assert_eq!(rough_bytes(bytes), expected);
        check(0, "0B");
        check(1_023, "1023B");
        check(1 << 30, "1GiB");
        check(6_318_717_000, "6025MiB");
        check(u64::MAX, "16776192TiB");
    }
}
