//! The start with a log: recovers what an earlier run left, before anything is received. Runs on the thread that starts the
//! stream; once.

use std::time::Duration;

use crate::config::Resolved;
use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::journal::{
    self, ChunkRange, Found, Journal, JournalOptions, LoggedChunk, Look, ReadRecord, Replay, Run,
    Wanted, read_changes,
};
use crate::metrics::{Event, EventBus};
use crate::owner::{Adoption, Lineage, Owner, StateId, random_mark};
use crate::scheduler::{LostInput, Recovery, Stored, reach};
use crate::settings::units::show_bytes;
use crate::sink::Left;
use crate::source::direct::DirectStart;
use crate::storage::{Access, Directory, Storage};
use crate::stream::Graph;
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, Poison};
use crate::time::{Clock, Interval, Schedule, Time};
use crate::wal::{self, Disk, LogOptions, SEGMENT_BYTES};

use super::lost;
use super::names::{self, LeftPlace};
use super::outputs;
use super::sources::{DirectOptions, Start};
use super::stream_handle::Recovered;

/// The stream that is started.
pub(super) struct Streams<'a> {
    pub(super) graph: &'a Graph,
    pub(super) sources: &'a [Start],
    pub(super) source_names: Vec<Wanted>,
}

/// The facts of a start beside the stream.
#[derive(Clone, Copy)]
pub(super) struct StartFacts<'a> {
    pub(super) config: &'a Resolved,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) events: &'a EventBus,
    pub(super) policy: lost::Policy,
}

/// The place of a state.
#[derive(Clone, Copy)]
pub(super) struct StateAt<'a> {
    pub(super) storage: &'a Arc<dyn Storage>,
    /// The size of a segment of the log; `None`: it follows from the disk.
    pub(super) segment_bytes: Option<u64>,
}

/// Opens the journal of a stream that has one, and reports what it found.
pub(super) fn open(
    storage: Option<(Arc<dyn Storage>, u64)>,
    streams: Streams<'_>,
    told: StartFacts<'_>,
    poison: &Poison,
) -> Result<Option<Recovery>> {
    let StartFacts { config, events, .. } = told;
    let (storage, segment_bytes) = match (storage, &config.state_dir) {
        (Some(storage), _) => storage,
        (None, Some(dir)) => on_disk(Arc::new(Directory::open(dir)?), streams.sources)?,
        (None, None) => return Ok(None),
    };
    let place = storage.name();
    let options = JournalOptions {
        conditions: Some(events.conditions().clone()),
        ..options(&streams, segment_bytes, told)?
    };
    let mut progress = |bytes| events.post(Event::Recovering { bytes });
    let (journal, mut found) = Journal::open(storage, options, poison, &mut progress)?;
    tell(&found, events);
    let lost = judge(&mut found, &|at| journal.read(at), &streams, told)?;
    // Only now: a program that does not continue what was saved leaves no trace. The sinks come first: what they take over
    // from before identities is theirs before the state says that it has one.
    let (graph, owner) = (streams.graph, owner(streams.graph, &found, place, config));
    let agreed = agree(graph, &owner, names::left_places(graph, &found), Access::Write)?;
    begin_sinks(graph, &owner, agreed, events)?;
    journal.begin()?;
    let news = outputs::news(graph, &found);
    if !news.is_empty() {
        journal.reached(&news);
    }
    names::tell(&found, events);
    let anchor = Time::from_millis(found.anchor);
    Ok(Some(Recovery { journal: Arc::new(journal), found, anchor, lost }))
}

/// Looks at a directory as [`open`] does: asks all that a start asks before it changes anything, and changes nothing. It does
/// not take the directory's lock. The size of a segment follows from the disk unless it is given. `looked` receives the number
/// of segments that were looked at, and of all segments.
///
/// # Errors
/// If something cannot be read; a refusal is part of the look.
pub(super) fn look(
    at: StateAt<'_>,
    streams: &Streams<'_>,
    told: StartFacts<'_>,
    looked: &mut dyn FnMut(usize, usize),
) -> Result<Look> {
    let StateAt { storage, segment_bytes } = at;
    let of_disk = || on_disk(Arc::clone(storage), streams.sources).map(|(_, bytes)| bytes);
    let segment_bytes = segment_bytes.map_or_else(of_disk, Ok);
    let options = segment_bytes.and_then(|bytes| options(streams, bytes, told));
    let mut look = journal::look(storage.as_ref(), options.as_ref().ok(), looked)?;
    // Damage is found first.
    let is_whole = look.log.refusals.is_empty();
    let room = |options: JournalOptions| match is_whole {
        true => wal::expect_room(storage.as_ref(), &look.log, options.log.segment_bytes),
        false => Ok(()),
    };
    if let Err(err) = options.and_then(room) {
        look.refusal = Some(err);
    } else if let Some(found) = &mut look.found {
        look.refusal = ask(found, storage, streams, told).err();
    }
    Ok(look)
}

/// Asks all that a start asks once the log was read.
fn ask(
    found: &mut Found,
    storage: &Arc<dyn Storage>,
    streams: &Streams<'_>,
    told: StartFacts<'_>,
) -> Result<()> {
    judge(found, &|at| wal::read(storage.as_ref(), at), streams, told)?;
    let graph = streams.graph;
    let owner = owner(graph, found, storage.name(), told.config);
    agree(graph, &owner, names::left_places(graph, found), Access::Look)?;
    let mut direct = streams.sources.iter().filter_map(Start::direct);
    direct.try_for_each(|options| {
        let start = options.direct_start(told.events, told.clock);
        start_direct(options, &start, Some((found, told.policy.given_up)))
    })
}

/// The options that the journal of a stream is opened with.
fn options(
    streams: &Streams<'_>,
    segment_bytes: u64,
    told: StartFacts<'_>,
) -> Result<JournalOptions> {
    let StartFacts { config, clock, .. } = told;
    let Streams { graph, sources, source_names } = streams;
    check(sources, segment_bytes)?;
    let fresh = Schedule::aligned(clock.as_ref(), config.batch_interval).label(0);
    Ok(JournalOptions {
        pipeline: config.name.clone(),
        program: names::program(graph, source_names.clone(), &config.names),
        reach: reach(graph),
        log: LogOptions { segment_bytes, ..LogOptions::with_fresh_salt() },
        conditions: None,
        seed: graph.seed(),
        anchor: fresh.as_millis(),
        identity: StateId::random()?,
        mark: random_mark()?,
        clock: Arc::clone(clock),
    })
}

/// Checks that the program can continue what was found: asks the direct sources and restores the states from records that `read`
/// reads. Returns the input that is lost.
fn judge(
    found: &mut Found,
    read: &ReadRecord<'_>,
    streams: &Streams<'_>,
    StartFacts { config, events, policy, .. }: StartFacts<'_>,
) -> Result<LostInput> {
    let Streams { graph, sources, .. } = streams;
    graph.set_seed(found.seed);
    let lost = lost::find(found, graph, sources, policy, events)?;
    restore_states(graph, read, found, config.workers)?;
    match graph.kept_beyond(config.kept_bytes_max) {
        Some(text) => Err(Error::Failed(text)),
        None => Ok(lost),
    }
}

/// Tells the sinks that nothing is kept from run to run; returns the identity of this one.
pub(super) fn without_state(pipeline: &str, graph: &Graph, events: &EventBus) -> Result<StateId> {
    let owner = agree_without_state(pipeline, graph, Access::Write)?;
    begin_sinks(graph, &owner, Vec::new(), events)?;
    Ok(owner.identity())
}

/// Asks the sinks whether a run that keeps nothing may write.
pub(super) fn agree_without_state(pipeline: &str, graph: &Graph, access: Access) -> Result<Owner> {
    let owner = Owner::without_state(pipeline)?;
    agree(graph, &owner, Vec::new(), access).map(|_| owner)
}

/// The facts for the sinks about the state in `place` that the start continues.
fn owner(graph: &Graph, found: &Found, place: String, config: &Resolved) -> Owner {
    let covered = found.covered.last_time;
    let planned = found.plans.values().map(|plan| plan.time).collect();
    let first_label = Time::from_millis(found.anchor).as_millis();
    // No label of it is older.
    let first = first_label.saturating_sub(config.batch_interval.as_millis());
    Owner {
        pipeline: config.name.clone(),
        place: Some(place),
        identity: found.identity,
        is_new: !found.started_before,
        lineage: Lineage::new(found.starts.clone()),
        adoption: found.had_no_identity.then_some(Adoption { first, covered, planned }),
        outputs: found.outputs.clone(),
        expected: outputs::expected(graph, found),
    }
}

/// A place that was left, opened if no sink of this run writes there.
pub(super) type Leaving = (Option<Left>, LeftPlace);

/// Asks the sinks whether they let this owner write, and opens the places that were left. Changes nothing.
///
/// # Errors
/// If the start is refused; the text says why.
fn agree(
    graph: &Graph,
    owner: &Owner,
    left: Vec<LeftPlace>,
    access: Access,
) -> Result<Vec<Leaving>> {
    graph.sinks().iter().try_for_each(|sink| sink.check(owner))?;
    let open = |place: LeftPlace| {
        let is_free = place.taken.is_none();
        let left = is_free.then(|| Left::open(&place.place, owner, access)).transpose();
        let what = |err| {
            let LeftPlace { name, place, .. } = &place;
            Error::Failed(format!("sink `{name}` wrote to {} before: {err}", shown(place)))
        };
        Ok((left.map_err(what)?, place))
    };
    left.into_iter().map(open).collect()
}

/// Tells the sinks the owner that is about to write, once all of them have agreed. Places that were left are finished, and the
/// sinks that left them remember them.
fn begin_sinks(graph: &Graph, owner: &Owner, left: Vec<Leaving>, events: &EventBus) -> Result<()> {
    let note = |sink: &str, text| {
        events.post(Event::SinkNote { sink: sink.to_owned(), text });
    };
    for (_, LeftPlace { name, place, moved, .. }) in &left {
        if let Some(moved) = moved {
            let (was, is) = (shown(place), moved.place().unwrap_or_default());
            note(name, format!("it wrote to {was} before, and writes to {} now", shown(&is)));
        }
    }
    for sink in &graph.sinks() {
        // A file that is open there may belong to another sink, which has given up the place or left it to this one.
        let mut others = left.iter().map(|(_, place)| place);
        let other = others.find(|it| it.taken.as_ref().is_some_and(|taken| taken.is_same(sink)));
        let whose = other.map(|it| format!("; sink `{}` wrote there before", it.name));
        let whose = whose.unwrap_or_default();
        sink.begin(owner, &mut |text| {
            note(sink.name().unwrap_or_default(), format!("{text}{whose}"));
        })?;
    }
    for (left, LeftPlace { name, moved, taken, .. }) in left {
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

/// Restores the states from the changes of every batch since the beginning of a walk through all keys.
fn restore_states(
    graph: &Graph,
    read: &ReadRecord<'_>,
    found: &Found,
    partitions: usize,
) -> Result<()> {
    graph.empty_windows();
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
        read_changes(read, commit, |state, part| restore.apply(state, part))?;
        graph.was_committed(Time::from_millis(commit.record.time));
    }
    restore.finish();
    Ok(())
}

/// The directory of a log, and the size of segments on its disk.
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

/// Checks what a log needs of the sources: names that tell them apart, records that fit.
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

/// The part of earlier runs that the start continues; `None` if there was no run.
pub(super) fn recovered(found: &Found) -> Option<Recovered> {
    let waiting = found.unplanned.iter().flatten();
    let again = |replay: &&Replay| replay.run == Run::Again;
    found.started_before.then(|| Recovered {
        batches: found.resume.replays.iter().filter(again).count() as u64,
        records: waiting.map(|(_, chunk)| chunk.records).sum(),
    })
}

fn tell(found: &Found, events: &EventBus) {
    for damaged in &found.damaged {
        events.post(Event::CheckpointDamaged {
            file: damaged.file.clone(),
            what: damaged.what.clone(),
        });
    }
    if let Some(Recovered { batches, records }) = recovered(found) {
        events.post(Event::Recovered {
            segments: found.log.segments,
            bytes: found.log.bytes,
            batches,
            records,
            torn: found
                .log
                .torn
                .as_ref()
                .map(|torn| (torn.segment, torn.offset, torn.what.clone())),
        });
    }
}

/// The schedule of the batches: in the phase of the first start, and after every batch that was planned, even if the clock
/// went back.
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

/// Stores the input that no batch was given before: the first blocks of the first batch. Their records stay in the log until a
/// task reads them. Returns the number of records.
pub(super) fn restore(recovery: &Recovery, block_bytes_max: u64, stored: &Stored) -> Result<u64> {
    let mut records = 0;
    if planted(Planted::ForgetsUnplanned) {
        return Ok(0);
    }
    for (source, chunks) in (0..).zip(&recovery.found.unplanned) {
        for block in blocks(chunks, block_bytes_max) {
            let block = recovery.journal.block(source, block)?;
            records += block.info.records;
            stored.store_elsewhere(block);
        }
    }
    Ok(records)
}

/// Starts a direct source behind all that was planned of it before. `found`: the result of reading the log, and true if lost
/// input is given up.
pub(super) fn start_direct(
    DirectOptions { number, source, .. }: &DirectOptions,
    start: &DirectStart,
    found: Option<(&Found, bool)>,
) -> Result<()> {
    let Some((found, given_up)) = found else { return source.start(start) };
    let is_own = |other: u32| found.is_of(other, *number);
    if let Some((_, position)) = found.covered.ranges.iter().find(|(other, _)| is_own(*other)) {
        source.restore(position)?;
    }
    source.start(start)?;
    let plans = found.plans.values().flat_map(|plan| &plan.ranges);
    plans
        .filter(|(other, plan)| is_own(*other) && !plan.is_empty())
        .try_for_each(|(_, plan)| source.planned(plan))?;
    lost::find_unplanned(&**source, start, given_up)
}

/// Makes blocks of consecutive chunks. A full disk refused a number that is missing, so it was never logged.
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
    use crate::storage::MemoryStorage;
    use crate::time::ManualClock;

    /// The label of the first tick and its due time in milliseconds, for a pipeline that began at `anchor` and planned up to
    /// `last`, restarted when the clock shows `now`.
    fn check(anchor: u64, last: Option<u64>, now: u64, expected: [u64; 2]) {
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
            clock: Arc::new(clock.clone()),
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
        let [label, due_ms] = expected;
        assert_eq!((schedule.label(0).as_millis(), due), (label, Duration::from_millis(due_ms)));
    }

    #[test]
    fn the_first_tick_after_a_restart() {
        check(500, None, 420, [500, 80]);
        check(500, Some(700), 710, [800, 90]);
        check(500, Some(700), 799, [800, 1]);
        check(500, Some(700), 800, [900, 100]);
        check(530, Some(730), 800, [830, 30]);
        // A day later: the phase is kept, the missed ticks are the job generator's.
        check(530, Some(730), 86_400_000, [86_400_030, 30]);
        // The clock went back: the label follows the last one, the tick does not wait for the clock to catch up.
        check(500, Some(9_000), 420, [9_100, 80]);
        check(530, Some(9_030), 440, [9_130, 90]);
        // A last batch under the next tick's time.
        check(500, Some(800), 710, [900, 90]);
    }
}
