//! The content of a log in words, for `tidemill inspect`. Runs on the main thread; changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{ChunkRange, Entry, Plan, Started, decode};
use crate::wal::Position;
use crate::wording::count;

/// Batches that are shown one by one: the newest.
const SHOWN: usize = 10;

/// The records up to now: its memory follows the number of batches, not their content.
#[derive(Default)]
pub(super) struct Words {
    started: Option<Started>,
    starts: u64,
    /// The chunks' numbers, records and bytes of each source.
    chunks: BTreeMap<u32, (u64, u64, u64, u64)>,
    planned: BTreeSet<u64>,
    /// The newest.
    plans: BTreeMap<u64, Plan>,
    committed: BTreeSet<u64>,
    changes: u64,
    unknown: u64,
}

impl Words {
    pub(super) fn take(&mut self, at: Position, bytes: &[u8]) {
        match decode(at, bytes) {
            Ok(Entry::Started(started)) => {
                self.starts += 1;
                self.started = Some(started);
            }
            Ok(Entry::Chunk(head, bytes)) => {
                let new = (head.number, head.number, 0, 0);
                let (first, last, records, sum) = self.chunks.entry(head.source).or_insert(new);
                (*first, *last) = ((*first).min(head.number), (*last).max(head.number));
                *records = records.saturating_add(head.records);
                *sum += bytes.len() as u64;
            }
            Ok(Entry::Planned(plans)) => {
                self.planned.extend(plans.iter().map(|plan| plan.index));
                self.plans.extend(plans.into_iter().map(|plan| (plan.index, plan)));
                while self.plans.len() > SHOWN {
                    self.plans.pop_first();
                }
            }
            Ok(Entry::Committed(done)) => drop(self.committed.insert(done.index)),
            Ok(Entry::Changed(..)) => self.changes += 1,
            Ok(Entry::Reached(_) | Entry::Outputs(_)) => {}
            Err(_) => self.unknown += 1,
        }
    }

    pub(super) fn text(&self) -> String {
        if self.starts == 0 && self.chunks.is_empty() && self.plans.is_empty() {
            return String::new();
        }
        let mut lines = Vec::new();
        if let Some(started) = &self.started {
            let (name, starts) = (&started.pipeline, self.starts);
            let starts = count(starts, "start");
            lines.push(format!("journal: pipeline `{name}`, {starts} in these segments"));
        }
        for (source, (first, last, records, bytes)) in &self.chunks {
            let name = self.source(*source);
            lines.push(format!(
                "  source {name}: {}, {}, {}",
                chunks(&(*first..last + 1)),
                count(*records, "record"),
                count(*bytes, "byte")
            ));
        }
        let (planned, done) = (self.planned.len(), self.committed.len());
        let changes = match self.changes {
            0 => String::new(),
            changes => format!(", {} of what they changed in states", count(changes, "record")),
        };
        lines.push(format!("  batches: {planned} planned, {done} committed{changes}"));
        if planned > SHOWN {
            lines.push(format!("  ... {}", count(planned - SHOWN, "earlier one")));
        }
        lines.extend(self.plans.values().map(|plan| self.plan(plan)));
        if self.unknown > 0 {
            let unknown = count(self.unknown, "record");
            lines.push(format!("  {unknown} that this program does not know"));
        }
        lines.join("\n") + "\n"
    }

    fn plan(&self, plan: &Plan) -> String {
        let Plan { index, time, partitions, .. } = plan;
        let of = |(source, blocks): &(u32, Vec<ChunkRange>)| {
            let chunks: Vec<String> = blocks.iter().map(chunks).collect();
            let blocks = count(blocks.len(), "block");
            format!("{blocks} of {} ({})", self.source(*source), chunks.join(", "))
        };
        let mut blocks: Vec<String> = plan.blocks.iter().map(of).collect();
        let ranges = plan.ranges.iter();
        blocks.extend(ranges.map(|(source, _)| format!("a range of {}", self.source(*source))));
        let input = if blocks.is_empty() { "nothing".to_owned() } else { blocks.join(", ") };
        let done = if self.committed.contains(index) { "committed" } else { "not committed" };
        let partitions = count(*partitions, "partition");
        format!("  batch {index} at {time} ms: {input}, {partitions}, {done}")
    }

    fn source(&self, source: u32) -> String {
        let names = self.started.iter().flat_map(|started| &started.names.sources);
        let at = usize::try_from(source).unwrap_or(usize::MAX);
        names
            .into_iter()
            .nth(at)
            .map_or_else(|| format!("number {source}"), |known| format!("`{}`", known.name))
    }
}

/// The chunks of a block.
fn chunks(chunks: &ChunkRange) -> String {
    match chunks.end.saturating_sub(chunks.start) {
        0 | 1 => format!("chunk {}", chunks.start),
        _ => format!("chunks {} to {}", chunks.start, chunks.end - 1),
    }
}
