//! `Snapshot`: the content of a checkpoint about the engine, and the thread that writes it.
//!
//! ```text
//! checkpoint: section `engine` (this, postcard) | `log` (the synced part of the log) | `outputs` (their places and progress)
//!             | a section `operator/NAME` for each operator that keeps bytes of its own
//! ```
//! A checkpoint covers the batches below `next_index`: their chunks and plans are no longer needed. The log keeps the
//! segments that the *oldest* kept checkpoint needs, so that a damaged newest one leaves something to start from. The thread
//! `checkpoint` writes one at a time; the job loop leaves one out rather than wait for it.

use serde::{Deserialize, Serialize};

use super::names::{Inventory, Known};
use super::record::{version_of, whole};
use super::{Journal, Shared, version1};
use crate::error::{Error, Result};
use crate::owner::{Output, OutputMark, StartMark, StateId};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, Mailbox, Ordering, Poison};
use crate::wal::checkpoint_file::{Checkpoint, Checkpoints};
use crate::wal::{NotLogged, Synced};

const ENGINE: &str = "engine";
const OPERATOR: &str = "operator/";
const LOG: &str = "log";
const OUTPUTS: &str = "outputs";

/// The version of the section, which stands first; a later one is refused.
const VERSION: u32 = 2;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) version: u32,
    pub(crate) pipeline: String,
    pub(crate) seed: u64,
    /// The first tick of the first start, in milliseconds.
    pub(crate) anchor: u64,
    /// The known names; before version 2 neither sinks nor jobs.
    pub(crate) names: Inventory<Known>,
    /// The batches below this one are covered.
    pub(crate) next_index: u64,
    /// The time of the last of them, in milliseconds.
    pub(crate) last_time: Option<u64>,
    /// For each source of the log: its chunks below this number are covered.
    pub(crate) covered: Vec<(u32, u64)>,
    /// The changes of states are needed from this batch on: states are made of them, in the log.
    pub(crate) state_from: u64,
    /// The position of each direct source after the covered batches, in the source's own bytes.
    pub(crate) ranges: Vec<(u32, Vec<u8>)>,
    /// The oldest segment that is needed after this checkpoint.
    pub(crate) first_segment: u64,
    /// The oldest segment that is kept: the checkpoint before this one needs it.
    pub(crate) kept_segment: u64,
    /// The identity of the state; `None` before version 2.
    pub(crate) identity: Option<StateId>,
    /// The number of the start that wrote it; 0 before version 2.
    pub(crate) run: u64,
    /// The starts up to that one, as far as they are remembered.
    pub(crate) starts: Vec<StartMark>,
    /// Number of commits of each output that it wrote to; all that older versions knew of them.
    pub(crate) marks: Vec<OutputMark>,
    /// The outputs: a section of its own.
    #[serde(skip)]
    pub(crate) outputs: Vec<Output>,
}

/// The bytes that each operator keeps, by its name.
pub(super) type Kept = Vec<(String, Vec<u8>)>;

impl Snapshot {
    /// Chunks of the source below this number are covered.
    pub(crate) fn covered(&self, source: u32) -> u64 {
        self.covered.iter().find(|(of, _)| *of == source).map_or(0, |(_, end)| *end)
    }

    /// The snapshot in a checkpoint, and the operators' bytes.
    ///
    /// # Errors
    /// If there is none, or this program does not write such a one.
    pub(super) fn read(checkpoint: &Checkpoint) -> Result<(Snapshot, Kept)> {
        let number = checkpoint.number;
        let unknown = |what: &str| {
            Error::Failed(format!(
                "checkpoint {number} is not one that this program writes: {what}"
            ))
        };
        let bytes = checkpoint.bytes(ENGINE);
        let bytes = bytes.ok_or_else(|| unknown("it has no section `engine`"))?;
        let text = |err: postcard::Error| unknown(&err.to_string());
        let mut snapshot: Snapshot = match version_of(bytes).map_err(text)? {
            1 => whole::<version1::Snapshot>(bytes).map_err(text)?.into(),
            VERSION => whole(bytes).map_err(text)?,
            other => return Err(unknown(&format!("it has version {other}"))),
        };
        match checkpoint.get(OUTPUTS)? {
            Some(outputs) => snapshot.outputs = outputs,
            None => Output::merge_marks(&mut snapshot.outputs, &snapshot.marks),
        }
        let operator = |(name, _): (&str, usize)| {
            let bytes = checkpoint.bytes(name).unwrap_or_default().to_vec();
            Some((name.strip_prefix(OPERATOR)?.to_owned(), bytes))
        };
        Ok((snapshot, checkpoint.sections().filter_map(operator).collect()))
    }
}

/// The synced part of the log when a checkpoint was written; one of the first version does not tell.
///
/// # Errors
/// If this program does not write such a section.
pub(super) fn synced(checkpoint: &Checkpoint) -> Result<Option<Synced>> {
    checkpoint.get(LOG)
}

/// The part of a run that is done, as the job loop hands it over at the end of a batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Covered {
    /// The number of the next batch.
    pub(crate) next_index: u64,
    /// The time of the last one, in milliseconds.
    pub(crate) last_time: Option<u64>,
    /// The number after the last chunk of each source of the log in these batches.
    pub(crate) chunks: Vec<(u32, u64)>,
    /// The position of each direct source after these batches, in the source's own bytes.
    pub(crate) ranges: Vec<(u32, Vec<u8>)>,
    /// The changes of states are needed from this batch on.
    pub(crate) state_from: u64,
    /// Name and bytes of each operator that keeps bytes of its own.
    pub(crate) operators: Vec<(String, Vec<u8>)>,
}

/// The body of the thread `checkpoint`.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Mailbox<Covered>,
    pub(super) checkpoints: Checkpoints,
    pub(super) poison: Poison,
    /// The oldest segment that the newest checkpoint needs.
    pub(super) first_segment: u64,
}

impl Writer {
    /// Starts the thread `checkpoint`.
    pub(super) fn start(self) -> Result<Thread> {
        let poison = self.poison.clone();
        thread::spawn("checkpoint", &poison, move || self.run())
            .map_err(|err| Error::io("cannot start the thread `checkpoint`", err))
    }

    pub(super) fn run(mut self) {
        while let Some(covered) = self.inbox.recv() {
            let written = self.write(covered);
            self.shared.checkpointing.store(false, Ordering::SeqCst);
            if let Err(NotLogged::Failed(reason)) = written {
                self.poison.set(reason.as_ref());
                // Nobody must wait for a thread that has ended.
                self.inbox.close();
                return;
            }
        }
        if let Err(lost) = self.checkpoints.close() {
            *self.shared.lost.lock() = Some(lost);
        }
    }

    /// Writes a checkpoint and releases the segments that neither it nor the one before it needs. Without room for it the
    /// ones before it stay, and the next one is tried at its time.
    fn write(&mut self, covered: Covered) -> Result<(), NotLogged> {
        let snapshot = self.shared.snapshot(&covered, self.first_segment);
        let mut checkpoint = Checkpoint::new();
        let unwritten = |err: Error| NotLogged::Failed(err.to_string().into());
        checkpoint.put(ENGINE, &snapshot).map_err(unwritten)?;
        checkpoint.put(OUTPUTS, &snapshot.outputs).map_err(unwritten)?;
        if let Some(synced) = self.shared.log.synced() {
            checkpoint.put(LOG, &synced).map_err(unwritten)?;
        }
        for (name, bytes) in covered.operators {
            checkpoint.put_bytes(&format!("{OPERATOR}{name}"), bytes);
        }
        let number = self.checkpoints.write(&mut checkpoint)?;
        self.shared.log.checkpointed(number);
        self.shared.written.add();
        self.shared.covered(&snapshot);
        self.first_segment = snapshot.first_segment;
        self.shared.log.release(snapshot.kept_segment);
        Ok(())
    }
}

impl Shared {
    /// The snapshot of a checkpoint that covers this much. `kept`: the oldest segment that the one before it needs.
    fn snapshot(&self, covered: &Covered, kept: u64) -> Snapshot {
        // Asked first: a record that is not among the live ones then lies in this segment or a later one.
        let newest = self.log.newest_segment();
        let live = self.live.lock();
        let end = |source: u32| {
            covered.chunks.iter().find(|(of, _)| *of == source).map_or(0, |(_, end)| *end)
        };
        let needed = |(source, number): (u32, u64)| number >= end(source);
        let chunks = live
            .chunks
            .iter()
            .filter(|(name, _)| needed(**name))
            .map(|(_, chunk)| chunk.at.segment);
        let plans = live.plans.range(covered.next_index..).map(|(_, segment)| *segment);
        let commits = live.commits.range(covered.state_from..).map(|(_, segment)| *segment);
        let first_segment =
            chunks.chain(plans).chain(commits).min().map_or(newest, |oldest| oldest.min(newest));
        let (started, outputs) = (self.started.clone(), self.outputs.lock().clone());
        Snapshot {
            version: VERSION,
            pipeline: started.pipeline,
            seed: started.seed,
            anchor: started.anchor,
            names: started.names,
            next_index: covered.next_index,
            last_time: covered.last_time,
            covered: covered.chunks.clone(),
            state_from: covered.state_from,
            ranges: covered.ranges.clone(),
            first_segment,
            kept_segment: kept.min(first_segment),
            identity: started.identity,
            run: started.run,
            starts: started.starts,
            marks: outputs.iter().map(|output| output.mark).collect(),
            outputs,
        }
    }

    /// Forgets the places of the records that a durable checkpoint covers.
    fn covered(&self, snapshot: &Snapshot) {
        let mut live = self.live.lock();
        live.chunks.retain(|(source, number), _| *number >= snapshot.covered(*source));
        live.plans = live.plans.split_off(&snapshot.next_index);
        live.commits = live.commits.split_off(&snapshot.state_from);
    }
}

impl Journal {
    /// Asks for a checkpoint. Returns false if one is being written; this one is left out then.
    pub(crate) fn checkpoint(&self, covered: Covered) -> bool {
        if self.shared.checkpointing.swap(true, Ordering::SeqCst) {
            return false;
        }
        // Closed only by the stop, which waits for the checkpoint that was asked for.
        self.checkpoint_inbox.try_send(covered).is_ok()
    }

    /// Hands over the last checkpoint of a run; waits until the thread has taken the one before.
    pub(crate) fn last_checkpoint(&self, covered: Covered) {
        // Closed: the thread has ended with the engine's poison.
        let _ = self.checkpoint_inbox.send(covered);
    }

    /// Returns true while a checkpoint is being written.
    pub(crate) fn is_checkpointing(&self) -> bool {
        self.shared.checkpointing.load(Ordering::SeqCst)
    }
}

impl From<version1::Snapshot> for Snapshot {
    fn from(old: version1::Snapshot) -> Self {
        Snapshot {
            version: old.version,
            pipeline: old.pipeline,
            seed: old.seed,
            anchor: old.anchor,
            names: version1::names(old.sources, old.states),
            next_index: old.next_index,
            last_time: old.last_time,
            covered: old.covered,
            state_from: old.state_from,
            ranges: old.ranges,
            first_segment: old.first_segment,
            kept_segment: old.kept_segment,
            ..Snapshot::default()
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_version_1_is_read_and_a_later_one_refused() {
        let mut checkpoint = Checkpoint::new();
        let old = version1::Snapshot {
            version: 1,
            pipeline: "p".to_owned(),
            seed: 7,
            anchor: 1_000,
            sources: vec!["in".to_owned()],
            next_index: 9,
            last_time: Some(1_800),
            covered: vec![(0, 40)],
            states: vec![("counts".to_owned(), "u64".to_owned())],
            state_from: 3,
            ranges: vec![(1, b"here".to_vec())],
            first_segment: 2,
            kept_segment: 1,
        };
        checkpoint.put(ENGINE, &old).expect("put");
        let (found, _) = Snapshot::read(&checkpoint).expect("good");
        assert_eq!(found, Snapshot::from(old));
        assert_eq!((found.identity, found.run, found.next_index), (None, 0, 9));
        let new = Snapshot { version: VERSION, identity: Some(StateId([3; 16])), run: 5, ..found };
        checkpoint.put(ENGINE, &new).expect("put");
        assert_eq!(Snapshot::read(&checkpoint).expect("good").0, new);
        // An older version recorded only the number of commits of an output.
        let marks = vec![OutputMark { output: 7, commits: 2 }];
        checkpoint.put(ENGINE, &Snapshot { marks: marks.clone(), ..new.clone() }).expect("put");
        let found = Snapshot::read(&checkpoint).expect("good").0.outputs;
        assert_eq!(found, [Output { mark: marks[0], ..Output::default() }]);
        let placed = vec![Output { place: "file:/out".to_owned(), ..found[0].clone() }];
        checkpoint.put(OUTPUTS, &placed).expect("put");
        assert_eq!(Snapshot::read(&checkpoint).expect("good").0.outputs, placed);
        checkpoint.put(ENGINE, &Snapshot { version: 3, ..new }).expect("put");
        let err = Snapshot::read(&checkpoint).expect_err("later").to_string();
        assert!(err.ends_with("is not one that this program writes: it has version 3"), "{err}");
    }
}
