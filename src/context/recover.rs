//! The start with a log: what an earlier run left is found again before anything is received. Runs on the thread that
//! starts the stream; once.

use std::time::Duration;

use crate::config::Resolved;
use crate::config::units::show_bytes;
use crate::direct::{DirectSource, DirectStart};
use crate::dstream::Graph;
use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::journal::{
    ChunkRange, Found, Journal, JournalOptions, LoggedChunk, Replay, Run, Wanted,
};
use crate::metrics::{Event, EventBus};
use crate::owner::{Adoption, Lineage, Owner, StateId, random_mark};
use crate::scheduler::{Recovery, Stored, reach};
use crate::sink::Left;
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, Poison};
use crate::time::{Clock, Interval, Schedule, Time};
use crate::wal::storage::{Directory, Storage};
use crate::wal::{Disk, LogOptions, SEGMENT_BYTES};

use super::lost;
use super::names::{self, LeftPlace};
use super::sources::Start;

/// What is started.
pub(super) struct Streams<'a> {
    pub(super) graph: &'a Graph,
    pub(super) sources: &'a [Start],
    pub(super) source_names: Vec<Wanted>,
}

/// Opens the journal of a stream that has one, and tells what it found.
pub(super) fn open(
    config: &Resolved,
    storage: Option<(Arc<dyn Storage>, u64)>,
    streams: Streams<'_>,
    clock: &dyn Clock,
    (poison, events): (&Poison, &EventBus),
    policy: lost::Policy,
) -> Result<Option<Recovery>> {
    let Streams { graph, sources, source_names } = streams;
    let (storage, segment_bytes) = match (storage, &config.state_dir) {
        (Some(storage), _) => storage,
        (None, Some(dir)) => on_disk(Arc::new(Directory::open(dir)?), sources)?,
        (None, None) => return Ok(None),
    };
    let place = storage.name();
    check(sources, segment_bytes)?;
    let fresh = Schedule::aligned(clock, config.batch_interval).label(0);
    let options = JournalOptions {
        pipeline: config.name.clone(),
        program: names::program(graph, source_names, &config.names),
        reach: reach(graph),
        log: LogOptions { segment_bytes, ..LogOptions::with_fresh_salt() },
        conditions: Some(events.conditions().clone()),
        seed: graph.seed(),
        anchor: fresh.as_millis(),
        identity: StateId::random()?,
        mark: random_mark()?,
    };
    let mut progress = |bytes| events.post(Event::Recovering { bytes });
    let (journal, mut found) = Journal::open(storage, options, poison, &mut progress)?;
    graph.set_seed(found.seed);
    tell(&found, events);
    let lost = lost::find(&journal, &mut found, graph, sources, policy, events)?;
    restore_states(graph, &journal, &found, config.workers)?;
    if let Some(text) = graph.kept_beyond(config.kept_bytes_max) {
        return Err(Error::Failed(text));
    }
    // Only now: a program that does not continue what was saved leaves no trace. The sinks come first: what they take over
    // from before identities is theirs before the state says that it has one.
    let first_label = Time::from_millis(found.anchor).as_millis();
    let first = first_label.saturating_sub(config.batch_interval.as_millis());
    let owner = owner(&found, (&config.name, place), first);
    begin_sinks(graph, &owner, names::left_places(graph, &found), events)?;
    journal.begin()?;
    names::tell(&found, events);
    let anchor = Time::from_millis(found.anchor);
    Ok(Some(Recovery { journal: Arc::new(journal), found, anchor, lost }))
}

/// Tells the sinks that nothing is kept from run to run; returns the identity of this one.
pub(super) fn without_state(pipeline: &str, graph: &Graph, events: &EventBus) -> Result<StateId> {
    let owner = Owner::without_state(pipeline)?;
    begin_sinks(graph, &owner, Vec::new(), events)?;
    Ok(owner.identity())
}

/// What a start tells its sinks of the state that it goes on from. `first`: no label of it is older.
fn owner(found: &Found, (pipeline, place): (&str, String), first: u64) -> Owner {
    let covered = found.covered.last_time;
    let planned = found.plans.values().map(|plan| plan.time).collect();
    Owner {
        pipeline: pipeline.to_owned(),
        place: Some(place),
        identity: found.identity,
        lineage: Lineage::new(found.starts.clone()),
        adoption: found.had_no_identity.then_some(Adoption { first, covered, planned }),
        outputs: found.outputs.clone(),
    }
}

/// Tells the sinks who is about to write; none of them changes anything unless all of them agree. Places that were left are
/// finished, and remembered by the sinks that left them.
pub(super) fn begin_sinks(
    graph: &Graph,
    owner: &Owner,
    left: Vec<LeftPlace>,
    events: &EventBus,
) -> Result<()> {
    let sinks = graph.sinks();
    sinks.iter().try_for_each(|sink| sink.check(owner))?;
    let open = |place: LeftPlace| {
        let left = place.taken.is_none().then(|| Left::open(&place.place, owner)).transpose();
        let what = |err| {
            let LeftPlace { name, place, .. } = &place;
            Error::Failed(format!("sink `{name}` wrote to {} before: {err}", shown(place)))
        };
        Ok((left.map_err(what)?, place))
    };
    let left = left.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    let note = |sink: &str, text| {
        events.post(Event::SinkNote { sink: sink.to_owned(), text });
    };
    for sink in &sinks {
        sink.begin(owner, &mut |text| note(sink.name().unwrap_or_default(), text))?;
    }
    for (left, LeftPlace { name, place, moved, taken }) in left {
        if let Some(moved) = &moved {
            let (was, is) = (shown(&place), moved.place().unwrap_or_default());
            note(&name, format!("it wrote to {was} before, and writes to {} now", shown(&is)));
        }
        let left =
            left.map(|mut left| left.finish(owner, &mut |text| note(&name, text)).map(|()| left));
        match (left.transpose()?, moved, taken) {
            (Some(left), Some(moved), _) => moved.remember_left(left),
            (None, Some(moved), Some(taken)) => moved.remember_other(taken),
            _ => {}
        }
    }
    Ok(())
}

/// A place without its kind.
fn shown(place: &str) -> &str {
    place.split_once(':').map_or(place, |(_, place)| place)
}

/// Makes states what they were: the changes of every batch from where a walk through all keys began.
fn restore_states(
    graph: &Graph,
    journal: &Journal,
    found: &Found,
    partitions: usize,
) -> Result<()> {
    if !graph.is_stateless() {
        graph.keep_changes();
    }
    let of_log = names::begin(graph, found, found.resume.state);
    let Some(last) = found.resume.state else { return Ok(()) };
    let from = found.covered.state_from;
    if from > last {
        return Err(Error::Failed(format!(
            "states cannot be restored: they are known from batch {from} on, and the last that is done is {last}"
        )));
    }
    let restore = graph.restore_those(of_log, partitions);
    for (_, commit) in found.commits.range(from..=last) {
        journal.read_changes(commit, |state, part| restore.apply(state, part))?;
        graph.commit(Time::from_millis(commit.record.time));
    }
    restore.finish();
    Ok(())
}

/// The directory of a log, and how large segments are on its disk.
fn on_disk(storage: Arc<dyn Storage>, sources: &[Start]) -> Result<(Arc<dyn Storage>, u64)> {
    check(sources, SEGMENT_BYTES)?;
    let disk = Disk::of(storage.as_ref())?;
    let longest = sources.iter().max_by_key(|source| source.record_bytes_max());
    let longest = longest.map(|source| (source.name(), source.record_bytes_max() as u64));
    let record_bytes_max = longest.map_or(0, |(_, bytes)| bytes);
    match disk.segment_bytes_for(record_bytes_max) {
        Ok(segment_bytes) => Ok((storage, segment_bytes)),
        Err(why) => Err(disk.refuse(why, &storage.name(), longest)),
    }
}

/// What a log needs of the sources: names that tell them apart, records that fit.
fn check(sources: &[Start], segment_bytes: u64) -> Result<()> {
    // A chunk is at most a record and a quarter of a segment.
    let longest = usize::try_from(segment_bytes / 2).unwrap_or(usize::MAX);
    for (at, source) in sources.iter().enumerate() {
        let name = source.name();
        if sources[..at].iter().any(|other| other.name() == name) {
            return Err(Error::Usage(format!(
                "two sources are called `{name}`: with a log their names tell them apart"
            )));
        }
        if source.record_bytes_max() > longest {
            return Err(Error::Config(format!(
                "error: source `{name}`: with a log `record_bytes_max` is at most {}",
                show_bytes(longest as u64)
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
        let again = |replay: &&Replay| replay.run == Run::Again;
        events.post(Event::Recovered {
            segments: found.log.segments,
            bytes: found.log.bytes,
            batches: found.resume.replays.iter().filter(again).count() as u64,
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
    let shift = Duration::from_millis(first - next);
    Schedule::starting(now, wall.saturating_add(shift), Time::from_millis(first), period)
}

/// Keeps what no batch was given before: the first blocks of the first batch. Their records stay in the log until a task
/// reads them. Returns how many records that is.
pub(super) fn restore(recovery: &Recovery, block_bytes_max: u64, stored: &Stored) -> Result<u64> {
    let mut records = 0;
    if planted(Planted::ForgetsUnplanned) {
        return Ok(0);
    }
    for (source, chunks) in (0..).zip(&recovery.found.unplanned) {
        for block in blocks(chunks, block_bytes_max) {
            let block = recovery.journal.block(source, block)?;
            records += block.records();
            stored.store_elsewhere(block);
        }
    }
    Ok(records)
}

/// Starts a direct source behind all that was planned of it before.
pub(super) fn start_direct(
    (number, source): (u32, &dyn DirectSource),
    start: &DirectStart,
    recovery: Option<&Recovery>,
) -> Result<()> {
    let Some(recovery) = recovery else { return source.start(start) };
    let found = &recovery.found;
    let is_own = |other: u32| recovery.journal.source_of(other) == Some(number);
    if let Some((_, position)) = found.covered.ranges.iter().find(|(other, _)| is_own(*other)) {
        source.restore(position)?;
    }
    source.start(start)?;
    let plans = found.plans.values().flat_map(|plan| &plan.ranges);
    plans
        .filter(|(other, plan)| is_own(*other) && !plan.is_empty())
        .try_for_each(|(_, plan)| source.planned(plan))?;
    lost::find_unplanned(source, start, recovery.lost.given_up)
}

/// Makes blocks of chunks that follow one another. A number that is missing was refused by a full disk and never logged.
fn blocks(chunks: &[(u64, LoggedChunk)], bytes_max: u64) -> Vec<ChunkRange> {
    let mut blocks: Vec<(ChunkRange, Framing, u64)> = Vec::new();
    for (number, chunk) in chunks {
        match blocks.last_mut() {
            Some((open, framing, bytes))
                if open.end == *number && *framing == chunk.framing && *bytes < bytes_max =>
            {
                open.end += 1;
                *bytes += chunk.bytes;
            }
            _ => blocks.push((*number..number + 1, chunk.framing, chunk.bytes)),
        }
    }
    blocks.into_iter().map(|(chunks, ..)| chunks).collect()
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::context::StreamingContext;
    use crate::time::ManualClock;
    use crate::wal::storage::MemoryStorage;

    /// The first tick and when it is due, of a pipeline that began at `anchor` and planned up to `last`, restarted when
    /// the clock shows `now`.
    fn check(anchor: u64, last: Option<u64>, now: u64, expected: (u64, u64)) {
        let clock = ManualClock::new();
        clock.jump_wall_to(Time::from_millis(now));
        let context = StreamingContext::new(Config::new("p")).expect("good");
        let options = JournalOptions {
            pipeline: "p".to_owned(),
            program: names::program(context.graph(), Vec::new(), &context.config().names),
            reach: crate::journal::Reach::default(),
            log: LogOptions::with_fresh_salt(),
            conditions: None,
            seed: 1,
            anchor,
            identity: StateId([1; 16]),
            mark: 1,
        };
        let storage = Arc::new(MemoryStorage::new(0));
        let opened = Journal::open(storage, options, &Poison::new(), &mut |_| ());
        let (journal, mut found) = opened.expect("an empty journal");
        found.last_time = last;
        let anchor = Time::from_millis(anchor);
        let lost = crate::scheduler::LostInput::default();
        let recovery = Recovery { journal: Arc::new(journal), found, anchor, lost };
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
