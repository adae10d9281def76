//! The start with a log: what an earlier run left is found again before anything is received. Runs on the thread that
//! starts the stream; once.

use crate::block::{Block, BlockId, Range};
use crate::config::Resolved;
use crate::dstream::Graph;
use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::journal::{Found, Journal, JournalOptions};
use crate::metrics::{Event, EventBus};
use crate::receiver::SocketOptions;
use crate::scheduler::{Recovery, Stored};
use crate::slab::Account;
use crate::sync::{Arc, Poison};
use crate::time::{Clock, Interval, Schedule, Time};
use crate::wal::LogOptions;
use crate::wal::storage::{Directory, Storage};

/// The longest record that fits the log, in bytes: a chunk is at most so much and a full chunk more, in one segment.
const RECORD_BYTES_MAX: usize = 32 << 20;

/// Opens the journal of a stream that has one, and tells what it found.
pub(super) fn open(
    config: &Resolved,
    storage: Option<Arc<dyn Storage>>,
    (graph, sources): (&Graph, &mut [SocketOptions]),
    clock: &dyn Clock,
    (poison, events): (&Poison, &EventBus),
) -> Result<Option<Recovery>> {
    let storage = match (storage, &config.state_dir) {
        (Some(storage), _) => storage,
        (None, Some(dir)) => Arc::new(Directory::open(dir)?) as Arc<dyn Storage>,
        (None, None) => return Ok(None),
    };
    check(sources)?;
    let fresh = Schedule::aligned(clock, config.batch_interval).label(0);
    let options = JournalOptions {
        pipeline: config.name.clone(),
        sources: sources.iter().map(|source| source.source.clone()).collect(),
        log: LogOptions::with_fresh_salt(),
        seed: graph.seed(),
        anchor: fresh.as_millis(),
    };
    let mut progress = |bytes| events.post(Event::Recovering { bytes });
    let (journal, found) = Journal::open(storage, options, poison, &mut progress)?;
    graph.set_seed(found.seed);
    for (source, next) in sources.iter_mut().zip(&found.next_chunks) {
        source.next_chunk = *next;
    }
    tell(&found, events);
    let anchor = Time::from_millis(found.anchor);
    Ok(Some(Recovery { journal: Arc::new(journal), found, anchor }))
}

/// What a log needs of the sources: names that tell them apart, records that fit.
fn check(sources: &[SocketOptions]) -> Result<()> {
    for (at, source) in sources.iter().enumerate() {
        let name = &source.source;
        if sources[..at].iter().any(|other| other.source == *name) {
            return Err(Error::Usage(format!(
                "two sources are called `{name}`: with a log their names tell them apart"
            )));
        }
        if source.record_bytes_max > RECORD_BYTES_MAX {
            return Err(Error::Config(format!(
                "error: source `{name}`: with a log `record_bytes_max` is at most {} MiB",
                RECORD_BYTES_MAX >> 20
            )));
        }
    }
    Ok(())
}

fn tell(found: &Found, events: &EventBus) {
    for damaged in &found.damaged {
        events.post(Event::CheckpointDamaged {
            file: damaged.file.clone(),
            what: damaged.what.clone(),
        });
    }
    if found.started_before {
        let waiting = found.unplanned.iter().flatten();
        events.post(Event::Recovered {
            segments: found.log.segments,
            bytes: found.log.bytes,
            batches: found.replays.iter().filter(|replay| !replay.committed).count() as u64,
            records: waiting.map(|(_, chunk)| chunk.records).sum(),
            torn: found
                .log
                .torn
                .as_ref()
                .map(|torn| (torn.segment, torn.offset, torn.what.clone())),
        });
    }
}

/// The schedule of the batches: in the phase of the first start, and after every batch that was planned, also when the
/// clock went back.
pub(super) fn schedule(
    clock: &dyn Clock,
    period: Interval,
    recovery: Option<&Recovery>,
) -> Schedule {
    let Some(recovery) = recovery else { return Schedule::aligned(clock, period) };
    let (now, wall) = (clock.now(), clock.wall());
    let length = period.as_millis();
    let phase = recovery.anchor.as_millis() % length;
    let millis = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
    let next = (millis.saturating_sub(phase) / length)
        .saturating_add(1)
        .saturating_mul(length)
        .saturating_add(phase);
    let used = recovery.found.last_time.map(|last| last.saturating_add(length));
    let first = used.map_or(next, |used| used.max(next));
    // The first tick is due when the clock shows the phase next, whatever its label has to be.
    let shift = std::time::Duration::from_millis(first - next);
    Schedule::starting(now, wall.saturating_add(shift), Time::from_millis(first), period)
}

/// Stores what no batch was given before: the first blocks of the first batch. Returns how many records that is.
pub(super) fn restore(
    recovery: &Recovery,
    block_bytes_max: u64,
    account: &Arc<Account>,
    stored: &Stored,
) -> Result<u64> {
    let mut records = 0;
    for (source, chunks) in (0..).zip(&recovery.found.unplanned) {
        let mut open = Open::default();
        for (number, _) in chunks {
            let (framing, range) = recovery.journal.read_chunk(source, *number, account)?;
            if !open.takes(*number, framing, block_bytes_max) {
                records += std::mem::take(&mut open).close(source, stored);
            }
            open.add(*number, framing, range);
        }
        records += open.close(source, stored);
    }
    Ok(records)
}

/// A block that is being put together from chunks that follow one another.
#[derive(Default)]
struct Open {
    framing: Option<Framing>,
    chunks: std::ops::Range<u64>,
    ranges: Vec<Range>,
    bytes: u64,
}

impl Open {
    /// Whether the chunk belongs to this block. A number that is missing was refused by a full disk and never logged.
    fn takes(&self, number: u64, framing: Framing, bytes_max: u64) -> bool {
        self.framing
            .is_none_or(|own| own == framing && self.chunks.end == number && self.bytes < bytes_max)
    }

    fn add(&mut self, number: u64, framing: Framing, range: Range) {
        let first = if self.framing.is_none() { number } else { self.chunks.start };
        self.framing = Some(framing);
        self.chunks = first..number + 1;
        self.bytes += range.bytes.len() as u64;
        self.ranges.push(range);
    }

    fn close(self, source: u32, stored: &Stored) -> u64 {
        let Some(framing) = self.framing else { return 0 };
        let id = BlockId { source, number: self.chunks.start };
        let block = Arc::new(Block::new(id, framing, self.ranges).of_chunks(self.chunks));
        stored.store(&block);
        block.records()
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::ManualClock;
    use crate::wal::storage::MemoryStorage;

    /// The first tick and when it is due, of a pipeline that began at `anchor` and planned up to `last`, restarted when
    /// the clock shows `now`.
    fn check(anchor: u64, last: Option<u64>, now: u64, expected: (u64, u64)) {
        let clock = ManualClock::new();
        clock.jump_wall_to(Time::from_millis(now));
        let options = JournalOptions {
            pipeline: "p".to_owned(),
            sources: Vec::new(),
            log: LogOptions::with_fresh_salt(),
            seed: 1,
            anchor,
        };
        let storage = Arc::new(MemoryStorage::new(0));
        let opened = Journal::open(storage, options, &Poison::new(), &mut |_| ());
        let (journal, mut found) = opened.expect("an empty journal");
        found.last_time = last;
        let anchor = Time::from_millis(anchor);
        let recovery = Recovery { journal: Arc::new(journal), found, anchor };
        let schedule = schedule(&clock, Interval::millis(100), Some(&recovery));
        let due = schedule.due(0).since(crate::time::Moment::default());
        let (label, due_ms) = expected;
        assert_eq!((schedule.label(0).as_millis(), due), (label, Duration::from_millis(due_ms)));
    }

    #[test]
    fn the_first_tick_after_a_restart() {
        check(500, None, 420, (500, 80));
        check(500, Some(700), 710, (800, 90));
        check(500, Some(700), 799, (800, 1));
        check(500, Some(700), 800, (900, 100));
        check(530, Some(730), 800, (830, 30));
        // A day later: the phase is kept, the missed ticks are the job generator's.
        check(530, Some(730), 86_400_000, (86_400_030, 30));
        // The clock went back: the label follows the last one, the tick does not wait for the clock to catch up.
        check(500, Some(9_000), 420, (9_100, 80));
        check(530, Some(9_030), 440, (9_130, 90));
        // A last batch under the next tick's time.
        check(500, Some(800), 710, (900, 90));
    }
}
