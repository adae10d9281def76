//! `Journal`: the engine's use of the log and the checkpoints: chunks, plans and commits, and their recovery at a start.
//!
//! ```text
//!  rxN-push ─ chunk ─▶ ┐                                    ┌─▶ rxN-push: the chunk is durable
//!  job-loop ─ plan ──▶ WriteAheadLog ─(wal-sync)─ receipts ─┴─▶ job-loop: the batch may run
//!  job-loop ─ covered ─▶ thread `checkpoint` ─▶ checkpoint-N ─▶ segments released
//! ```
//! Whatever must survive is here before anyone acts on it; a start replays it with `recovery`. Block records are not written:
//! a plan names the chunks of each of its blocks, and a start makes blocks again of the chunks that no plan names. It does not
//! know sockets, streams or jobs.
//!
#![doc = include_str!("design.md")]

mod changes;
mod checkpointer;
mod commit;
mod describe;
mod log_blocks;
mod look;
mod names;
mod record;
mod recovery;
mod version1;
mod watch;

#[cfg(all(test, not(tidemill_model)))]
pub(crate) mod tests;

use std::collections::BTreeMap;

use crate::blocks::Range;
use crate::error::{Error, Result};
use crate::framing::Framing;
use crate::metrics::{ConditionKind, Conditions};
use crate::owner::{Lineage, Output, StartMark, StateId};
use crate::storage::{Lock, Storage};
use crate::sync::thread::Thread;
use crate::sync::{Arc, AtomicBool, Mailbox, Mutex, Poison};
use crate::time::{Clock, Joined, Moment, join_until};
use crate::wal::checkpoint_file::{Checkpoints, Damaged, Loaded, file_name};
use crate::wal::{
    self, Lane, LogOptions, NotLogged, Position, Recovered, SEGMENT_BYTES, WriteAheadLog, mebibytes,
};

pub(crate) use changes::read_changes;
pub(crate) use checkpointer::Covered;
pub(crate) use commit::{CommitOutcome, CommitReceipt, CommitRecords};
pub(crate) use look::{About, Accepted, Look, give_up, look};
pub(crate) use names::{
    Continued, EntryAt, Inventory, Known, Program, ReadRecord, SourcePosition, StateCount, Survey,
    Wanted,
};
pub use names::{NameChanges, NameKind, Renamed, StateName};
pub(crate) use record::{ChunkHead, ChunkRange, Committed, Entry, Parts, Plan, decode};
pub(crate) use recovery::{Commit as LoggedCommit, LoggedChunk, Reach, Replay, Resume, Run, base};
pub(crate) use watch::JournalWatch;
pub use watch::LogFigures;

use checkpointer::{Snapshot, Writer};
use record::{Started, VERSION};
use recovery::Replayed;
use watch::Written;

/// Checkpoints that are kept.
const CHECKPOINTS_KEPT: usize = 2;

/// Bytes of the log between two reports of the progress.
const PROGRESS_BYTES: u64 = 16 << 20;

/// Called once with a record's fate, on the thread `wal-sync`; it must only post.
pub(crate) type Receipt = Box<dyn FnOnce(Result<(), NotLogged>) + Send>;

/// Options of a journal.
pub(crate) struct JournalOptions {
    pub(crate) pipeline: String,
    /// The names of the program, and the user's entries for names that it no longer has.
    pub(crate) program: Program,
    /// The oldest batches that the program needs.
    pub(crate) reach: Reach,
    pub(crate) log: LogOptions,
    /// Receives reports that the log or the checkpoints cannot be written; `None` in tests.
    pub(crate) conditions: Option<Conditions>,
    /// For a first start: the seed of every hash.
    pub(crate) seed: u64,
    /// For a first start: the first tick, in milliseconds.
    pub(crate) anchor: u64,
    /// For a first start: the identity of the state.
    pub(crate) identity: StateId,
    /// Distinguishes this start from others.
    pub(crate) mark: u64,
    /// Measures the age of checkpoints.
    pub(crate) clock: Arc<dyn Clock>,
}

/// See the module. Any thread may call it.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    /// The number in the log of each source of the program.
    numbers: Vec<u32>,
    checkpoint_inbox: Mailbox<Covered>,
    checkpoint_thread: Mutex<Option<Thread>>,
    _lock: Arc<Lock>,
}

/// State shared by the journal and its thread.
struct Shared {
    log: WriteAheadLog,
    segment_bytes: u64,
    /// Receipts hold this and nothing else: the last of them must not drop the log on the log's thread, which cannot wait
    /// for itself and would outlive the journal.
    live: Arc<Mutex<Live>>,
    /// The record of this start.
    started: Started,
    /// The outputs, as they were at the newest commit.
    outputs: Mutex<Vec<Output>>,
    checkpointing: AtomicBool,
    /// Set if the thread `checkpoint` found at its end that the newest checkpoint is gone.
    lost: Mutex<Option<Error>>,
    /// The checkpoints of this run.
    written: Arc<Written>,
}

/// The places of the records that no durable checkpoint covers.
#[derive(Debug, Default)]
struct Live {
    chunks: BTreeMap<(u32, u64), LoggedChunk>,
    /// The segment of each plan, by the batch's number.
    plans: BTreeMap<u64, u64>,
    /// The oldest segment of each commit and its changes of states, by the batch's number.
    commits: BTreeMap<u64, u64>,
}

/// The findings of a start.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// True if a pipeline ran here before.
    pub(crate) started_before: bool,
    /// The seed of every hash.
    pub(crate) seed: u64,
    /// The first tick of the first start, in milliseconds.
    pub(crate) anchor: u64,
    /// The identity of the state.
    pub(crate) identity: StateId,
    /// True if the state was made before states had an identity, and no start has given it one yet.
    pub(crate) had_no_identity: bool,
    /// The starts up to this one, as far as they are remembered.
    pub(crate) starts: Vec<StartMark>,
    /// The outputs that the pipeline wrote to.
    pub(crate) outputs: Vec<Output>,
    /// The names that the log knew, and those of this start.
    pub(crate) names_before: Inventory<Known>,
    pub(crate) continued: Continued,
    /// The number of the next batch.
    pub(crate) next_index: u64,
    /// The greatest time that was planned, in milliseconds.
    pub(crate) last_time: Option<u64>,
    /// The way to resume: states, and the batches that run again.
    pub(crate) resume: Resume,
    /// The batches that were committed, by number, as far as they are still needed.
    pub(crate) commits: BTreeMap<u64, LoggedCommit>,
    /// The plans that are not covered.
    pub(crate) plans: BTreeMap<u64, Plan>,
    /// The chunks of each source of the program that no plan names, in order.
    pub(crate) unplanned: Vec<Vec<(u64, LoggedChunk)>>,
    /// The number of the next chunk of each source of the program.
    pub(crate) next_chunks: Vec<u64>,
    /// The part that the newest checkpoint covers, with the operators' bytes.
    pub(crate) covered: Covered,
    /// Figures of the log that was read.
    pub(crate) log: Recovered,
    /// Checkpoints newer than the one that was used, which are damaged.
    pub(crate) damaged: Vec<Damaged>,
}

impl Found {
    /// The number in the log of a source of the program.
    pub(crate) fn number_of(&self, source: u32) -> u32 {
        number_of(&self.continued.names.numbers.sources, source)
    }

    /// Returns true if this is the number in the log of that source of the program.
    pub(crate) fn is_of(&self, number: u32, source: u32) -> bool {
        number != u32::MAX && self.number_of(source) == number
    }
}

/// The number in the log of a source of the program; `numbers` has one for each.
fn number_of(numbers: &[u32], source: u32) -> u32 {
    let at = usize::try_from(source).unwrap_or(usize::MAX);
    numbers.get(at).copied().unwrap_or(u32::MAX)
}

impl Journal {
    /// Locks the storage, reads the newest checkpoint and the log, and opens the log for writing. Calls `progress` now and
    /// then with the number of bytes read.
    ///
    /// # Errors
    /// If another process uses the storage, another pipeline wrote it, or it is damaged; the text says where.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        options: JournalOptions,
        poison: &Poison,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Journal, Found)> {
        let lock = Arc::new(storage.lock()?);
        let place = storage.name();
        let handle = |kind| options.conditions.as_ref().map(|all| all.handle(kind, place.as_str()));
        let (mut checkpoints, loaded) = Checkpoints::open(Arc::clone(&storage), CHECKPOINTS_KEPT)?;
        let room = checkpoints.keep_room();
        let Base { snapshot, operators, known, mut damaged } = Base::of(loaded)?;
        let mut replayed = Replayed::new(snapshot);
        let mut bytes = 0;
        let mut visit = |at: Position, record: &[u8]| {
            let before = bytes / PROGRESS_BYTES;
            bytes += record.len() as u64;
            if bytes / PROGRESS_BYTES > before {
                progress(bytes);
            }
            replayed.take(at, record)
        };
        let directory = storage.name();
        let opened = WriteAheadLog::open(storage, options.log, known, poison, &mut visit);
        let (log, recovered) = opened?;
        log.hold(Arc::clone(&lock));
        log.look_for_loss(Arc::clone(&options.clock));
        if let Some(err) = room.err().filter(|_| !replayed.started) {
            return Err(no_room(&checkpoints, &log.name(), err));
        }
        handle(ConditionKind::LogRefuses).into_iter().for_each(|it| log.report_refusals(it));
        options.conditions.iter().for_each(|all| log.report_hangs(all));
        let failing = handle(ConditionKind::CheckpointFails).into_iter();
        failing.for_each(|it| checkpoints.report_failures(it));
        checkpoints.follow(recovered.checkpoint);
        damaged.extend(missing_checkpoint(recovered.checkpoint, known));
        let read = |at| log.read(at);
        let log_of = LogOf { directory: &directory, read: &read };
        let Resumed { started, numbers, found } =
            resume(&mut replayed, &options, log_of, operators)?;
        let found = Found { log: recovered, damaged, ..found };
        let (chunks, plans) = (replayed.chunks, replayed.plan_segments);
        let live = Live { chunks, plans, commits: replayed.commit_segments };
        let shared = Arc::new(Shared {
            log,
            segment_bytes: options.log.segment_bytes,
            live: Arc::new(Mutex::new(live)),
            started,
            outputs: Mutex::new(replayed.base.outputs),
            checkpointing: AtomicBool::new(false),
            lost: Mutex::default(),
            written: Written::new(&options.clock),
        });
        // One thread hands a checkpoint over and the other takes it: more than one never waits.
        let inbox = Mailbox::new(1);
        let writer = Writer {
            shared: Arc::clone(&shared),
            inbox: inbox.clone(),
            checkpoints,
            poison: poison.clone(),
            first_segment: known.first,
        };
        let checkpoint_thread = Mutex::new(Some(writer.start()?));
        Ok((
            Journal { shared, numbers, checkpoint_inbox: inbox, checkpoint_thread, _lock: lock },
            found,
        ))
    }

    /// A view of its figures that outlives it.
    pub(crate) fn watch(&self) -> JournalWatch {
        JournalWatch { log: self.shared.log.watch(), written: Arc::clone(&self.shared.written) }
    }

    /// The size of a segment of the log, in bytes.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.shared.segment_bytes
    }

    /// The number in the log of a source of the program.
    pub(crate) fn number_of(&self, source: u32) -> u32 {
        number_of(&self.numbers, source)
    }

    /// The source of the program that has this number in the log, if it still has it.
    pub(crate) fn source_of(&self, number: u32) -> Option<u32> {
        self.numbers.iter().position(|of| *of == number).and_then(|at| u32::try_from(at).ok())
    }

    /// Returns true if any source has or had this number in the log.
    pub(crate) fn knows_source(&self, number: u32) -> bool {
        usize::try_from(number).is_ok_and(|at| at < self.shared.started.names.sources.len())
    }

    /// The number of the first batch that a source of the program is part of.
    pub(crate) fn begins(&self, source: u32) -> u64 {
        let number = usize::try_from(self.number_of(source)).unwrap_or(usize::MAX);
        self.shared.started.names.sources.get(number).map_or(0, |known| known.from)
    }

    /// Appends a chunk of a source of the program; calls `receipt` when it is durable.
    ///
    /// # Errors
    /// If the log has ended; `receipt` is dropped then.
    pub(crate) fn append_chunk(
        &self,
        source: u32,
        number: u64,
        framing: Framing,
        ranges: &[Range],
        receipt: Receipt,
    ) -> Result<()> {
        let source = self.number_of(source);
        let records = ranges.iter().map(|range| range.records).sum();
        let bytes = ranges.iter().map(|range| range.bytes.len() as u64).sum();
        let head = ChunkHead { source, number, framing: framing.name().to_owned(), records };
        let record = record::chunk(&head, ranges.iter().map(|range| range.bytes.clone()));
        let live = Arc::clone(&self.shared.live);
        let lane = Lane { lane: source, number };
        self.shared.log.append_input(lane, record, move |outcome| {
            if let Ok(at) = outcome {
                let chunk = LoggedChunk { at, framing, records, bytes };
                live.lock().chunks.insert((source, number), chunk);
            }
            receipt(outcome.map(|_| ()));
        })
    }

    /// Appends the plans of batches: as many of the first ones as one record takes. All or none of those become durable, and
    /// `receipt` is called then. Returns their number.
    ///
    /// # Errors
    /// If no record takes even the first.
    pub(crate) fn plan(&self, plans: &[Plan], receipt: Receipt) -> Result<usize> {
        let most = self.shared.log.record_bytes_max();
        let mut count = plans.len();
        let mut record = record::planned(plans);
        while record.length() > most && count > 1 {
            count /= 2;
            record = record::planned(&plans[..count]);
        }
        if record.length() > most {
            return Err(Error::Failed(format!(
                "the plan of batch {} is too large for the log in {}: {} bytes, and a segment of the log takes {most}; let a \
                 batch read fewer files, or give a `state_dir` on a larger disk",
                plans[0].index,
                self.shared.log.name(),
                record.length(),
            )));
        }
        let indices: Vec<u64> = plans[..count].iter().map(|plan| plan.index).collect();
        let live = Arc::clone(&self.shared.live);
        // A log that has ended has poisoned the engine, and drops the receipt.
        let _ = self.shared.log.append(record, move |outcome| {
            if let Ok(at) = outcome {
                let mut live = live.lock();
                live.plans.extend(indices.iter().map(|index| (*index, at.segment)));
            }
            receipt(outcome.map(|_| ()));
        });
        Ok(count)
    }

    /// The number of this start, from 1.
    pub(crate) fn run(&self) -> u64 {
        self.shared.started.run
    }

    /// The identity of the state.
    pub(crate) fn identity(&self) -> StateId {
        self.shared.started.identity.unwrap_or_default()
    }

    /// Appends the progress of outputs. It becomes durable with the next commit; if it is lost, a later start merely knows
    /// less of them.
    pub(crate) fn reached(&self, outputs: &[Output]) {
        Output::merge(&mut self.shared.outputs.lock(), outputs);
        // A log that ended has poisoned the engine already.
        let _ = self.shared.log.append(record::outputs(outputs), |_| ());
    }

    /// Records that this program writes from here on; before anything else is appended.
    ///
    /// # Errors
    /// If that cannot be made durable.
    pub(crate) fn begin(&self) -> Result<()> {
        let shared = &self.shared;
        shared.log.append_and_wait(record::started(&shared.started))?;
        Ok(())
    }

    /// The reason why the log refuses input for want of room on the disk, if it does.
    pub(crate) fn shortage(&self) -> Option<Arc<str>> {
        self.shared.log.shortage()
    }

    /// From now on, on a small disk, input leaves room to write all states, of this many bytes, once more. At most a quarter
    /// of the disk; on a large one they are written long before it is full.
    pub(crate) fn keep_room_for_states(&self, bytes: u64) {
        let segment = self.segment_bytes();
        if segment < SEGMENT_BYTES {
            self.shared.log.keep_room((bytes + bytes / 4).min(4 * segment));
        }
    }

    /// Calls `listener` each time that input begins to be refused; it must only post.
    pub(crate) fn on_shortage(&self, listener: impl Fn() + Send + 'static) {
        self.shared.log.on_shortage(listener);
    }

    /// Checks again for room, soon, if there was none.
    pub(crate) fn look_for_room(&self) {
        self.shared.log.look_for_room();
    }

    /// Waits for the checkpoint in progress, syncs pending records, and ends both threads.
    ///
    /// # Errors
    /// If the log failed, or was not done at the deadline.
    pub(crate) fn close(&self, clock: &dyn Clock, deadline: Moment) -> Result<()> {
        self.checkpoint_inbox.close();
        let thread = self.checkpoint_thread.lock().take();
        let joined = thread.map_or(Joined::Ended, |it| join_until(clock, it, deadline));
        // Even if that one is stuck: nobody else ends the log's thread.
        let closed = self.shared.log.close(clock, deadline);
        if joined == Joined::Ended {
            return closed.and_then(|()| self.shared.lost.lock().take().map_or(Ok(()), Err));
        }
        let mut text = "the checkpoint was not written at the deadline".to_owned();
        if let Err(err) = closed {
            text = format!("{text}; {err}");
        }
        Err(Error::Undrained(text))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.checkpoint_inbox.close();
    }
}

/// The error for a first start without room for its checkpoints.
fn no_room(checkpoints: &Checkpoints, name: &str, err: std::io::Error) -> Error {
    let needed = mebibytes(checkpoints.room());
    Error::io(
        format!("there is no room to start the log: {needed} more must be free in {name}"),
        err,
    )
}

/// The content of the checkpoints of a directory.
struct Base {
    /// The snapshot in the newest usable one.
    snapshot: Option<Snapshot>,
    /// The operators' bytes in it.
    operators: Vec<(String, Vec<u8>)>,
    /// Their knowledge of the log.
    known: wal::Known,
    /// Newer ones, which are damaged.
    damaged: Vec<Damaged>,
}

impl Base {
    fn of(loaded: Loaded) -> Result<Self> {
        let Loaded { newest, damaged, newest_file } = loaded;
        let mut known = wal::Known { newest_file, ..wal::Known::from(1) };
        let Some(newest) = newest else {
            return Ok(Base { snapshot: None, operators: Vec::new(), known, damaged });
        };
        let (snapshot, operators) = Snapshot::read(&newest)?;
        known.first = snapshot.first_segment;
        // Under a newer damaged one, only the segments that this one needs are surely there.
        let is_newest = damaged.is_empty();
        known.kept = if is_newest { snapshot.kept_segment } else { snapshot.first_segment };
        (known.checkpoint, known.synced) = (newest.number, checkpointer::synced(&newest)?);
        Ok(Base { snapshot: Some(snapshot), operators, known, damaged })
    }
}

/// A checkpoint that the log knows by this number, if it is newer than all that exist.
fn missing_checkpoint(number: u64, known: wal::Known) -> Option<Damaged> {
    let what = "the file is missing".to_owned();
    (number > known.newest_file).then(|| Damaged { number, file: file_name(number), what })
}

/// The way in which a program resumes.
struct Resumed {
    started: Started,
    /// The number in the log of each source of the program.
    numbers: Vec<u32>,
    found: Found,
}

/// A log whose records can be read back.
#[derive(Clone, Copy)]
struct LogOf<'a> {
    directory: &'a str,
    read: &'a ReadRecord<'a>,
}

/// Decides how the program resumes, once the log was read.
///
/// # Errors
/// If it cannot: another pipeline wrote the log, it holds things that the program does not name, or it lacks a needed record.
fn resume(
    replayed: &mut Replayed,
    options: &JournalOptions,
    log: LogOf<'_>,
    operators: Vec<(String, Vec<u8>)>,
) -> Result<Resumed> {
    replayed.finish(options.reach);
    expect_pipeline(replayed, &options.pipeline)?;
    let continued = names::continued(replayed, log.read, &options.program, log.directory)?;
    let numbers = continued.names.numbers.sources.clone();
    let started = begin(replayed, options, &continued.names.known);
    let resume = replayed.resume(options.reach, &numbers)?;
    let mut found = Found { resume, ..found(replayed, &started, continued) };
    found.covered.operators = operators;
    Ok(Resumed { started, numbers, found })
}

/// Builds the recovery result, but for the way to resume and the operators' bytes.
fn found(replayed: &mut Replayed, started: &Started, continued: Continued) -> Found {
    let numbers = &continued.names.numbers.sources;
    let mut chunks = replayed.base.covered.clone();
    // A source that was given up needs no room any more.
    let given_up = continued.names.retired.iter().filter(|(name, _)| name.kind == NameKind::Source);
    for (_, number) in given_up {
        chunks.retain(|(of, _)| of != number);
        chunks.push((*number, replayed.next_chunk(*number)));
    }
    Found {
        started_before: replayed.started,
        seed: started.seed,
        anchor: started.anchor,
        identity: started.identity.unwrap_or_default(),
        had_no_identity: replayed.started && replayed.base.identity.is_none(),
        starts: started.starts.clone(),
        outputs: replayed.base.outputs.clone(),
        names_before: replayed.base.names.clone(),
        next_index: replayed.next_index(),
        last_time: replayed.last_time(),
        commits: std::mem::take(&mut replayed.commits),
        plans: replayed.plans.clone(),
        unplanned: numbers.iter().map(|number| replayed.unplanned(*number)).collect(),
        next_chunks: numbers.iter().map(|number| replayed.next_chunk(*number)).collect(),
        covered: Covered {
            next_index: replayed.base.next_index,
            last_time: replayed.base.last_time,
            chunks,
            ranges: replayed.base.ranges.clone(),
            state_from: replayed.base.state_from,
            ..Covered::default()
        },
        continued,
        ..Found::default()
    }
}

/// Refuses the log of another pipeline.
fn expect_pipeline(replayed: &Replayed, pipeline: &str) -> Result<()> {
    let known = &replayed.base.pipeline;
    if replayed.started && known != pipeline {
        return Err(Error::Failed(format!(
            "the state directory belongs to the pipeline `{known}`, not to `{pipeline}`: give another `state_dir`"
        )));
    }
    Ok(())
}

/// The record of this start.
fn begin(replayed: &Replayed, options: &JournalOptions, names: &Inventory<Known>) -> Started {
    let base = &replayed.base;
    let (seed, anchor) = match replayed.started {
        true => (base.seed, base.anchor),
        false => (options.seed, options.anchor),
    };
    let run = base.run.saturating_add(1);
    let mut starts = base.starts.clone();
    let after = replayed.last_time();
    Lineage::push(&mut starts, StartMark { run, mark: options.mark, after });
    let identity = if replayed.started { identity_of(base) } else { options.identity };
    Started {
        version: VERSION,
        pipeline: options.pipeline.clone(),
        seed,
        anchor,
        names: names.clone(),
        identity: Some(identity),
        run,
        starts,
    }
}

/// The identity of the state. A state from before identities gets one at the next start, derived from its random seed.
fn identity_of(base: &Snapshot) -> StateId {
    let drawn = || StateId::of_seed(&base.pipeline, base.seed, base.anchor);
    base.identity.unwrap_or_else(drawn)
}
