//! The ownership of state and output: the identity of a state directory, its starts, and an output's memory of each batch.
//!
//! ```text
//! state directory: identity (128 random bits) │ starts: number, mark (64 random bits), the last time planned before it
//! commit key:      identity │ start that planned the batch │ job │ batch time │ partition │ digest of the plan
//! output:          the keys that are committed ─▶ a start looks whether its state knows them (`Lineage`), and whether all that
//!                  the state knows is there (`outputs`)
//! ```
//! A copy of a state directory has the identity of the original, and both continue the same numbers: the marks tell their
//! starts apart. A directory from before identities existed gets one that is derived from the seed and the first tick that
//! it drew then. So if a start ends before it has written the identity down, the next one finds the same. Pure except for
//! random numbers; knows no files.
//!
#![doc = include_str!("owner/design.md")]

mod outputs;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

pub(crate) use outputs::{Expected, Lack, Newest, Output, PlaceWords};

/// The identity of a state directory: 128 random bits, shown as 32 hexadecimal digits. A copy of a directory has the identity of
/// the original.
///
/// ```
/// use tidemill::sink::Owner;
///
/// let owner = Owner::without_state("orders")?;
/// assert!(!owner.has_state() && owner.to_string().contains("no `state_dir`"));
/// assert_eq!(owner.identity().short().len(), 8);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateId(pub(crate) [u8; 16]);

impl StateId {
    /// Draws a new identity.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub(crate) fn random() -> Result<Self> {
        random().map(StateId)
    }

    /// Derives the identity of a directory that was made before identities existed.
    pub(crate) fn of_seed(pipeline: &str, seed: u64, anchor: u64) -> Self {
        let mut hash = Sha256::new_with_prefix(b"tidemill state 1\0");
        hash.update(seed.to_le_bytes());
        hash.update(anchor.to_le_bytes());
        hash.update(pipeline);
        StateId(first_half(&hash.finalize()))
    }

    /// The first eight digits: enough for people to tell directories apart.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }

    /// Parses 32 hexadecimal digits, as they are shown.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = u128::from_str_radix(text, 16).ok()?.to_be_bytes();
        Some(StateId(bytes)).filter(|id| id.to_string() == text)
    }
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

/// 128 bits of the SHA-256 over a batch's content, shown as 32 hexadecimal digits. A replay has the same digest.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlanDigest(pub(crate) [u8; 16]);

impl PlanDigest {
    /// Computes the digest of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        PlanDigest(first_half(
            &Sha256::new_with_prefix(b"tidemill plan 1\0").chain_update(bytes).finalize(),
        ))
    }
}

impl fmt::Display for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// The first 128 bits of a SHA-256.
fn first_half(hash: &[u8]) -> [u8; 16] {
    hash[..16].try_into().expect("a hash has 32 bytes")
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|err| Error::Failed(format!("the system gives no random bytes: {err}")))?;
    Ok(bytes)
}

/// Draws a number that nobody else draws: the mark of a start, or of an output.
///
/// # Errors
/// If the operating system gives no random bytes.
pub(crate) fn random_mark() -> Result<u64> {
    random().map(u64::from_le_bytes)
}

/// The identity of a batch, beside its time: part of a [`CommitKey`](crate::sink::CommitKey).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BatchId {
    /// The state directory that the batch belongs to.
    pub state: StateId,
    /// The number of the start that planned it; 0 if it was planned before starts were counted.
    pub run: u64,
    /// The digest of its content.
    pub digest: PlanDigest,
}

/// The most starts that a state directory remembers.
const STARTS_MAX: usize = 1024;

/// A start of a state directory, as later starts remember it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartMark {
    /// Its number, from 1.
    pub(crate) run: u64,
    /// The mark that tells it from a start of the same number on a copy of the directory.
    pub(crate) mark: u64,
    /// The greatest time of a batch that was planned before it, in milliseconds.
    pub(crate) after: Option<u64>,
}

/// The memory that an output has of a committed batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// The batch's time, in milliseconds.
    pub(crate) time: u64,
    /// The start that planned it, and its mark.
    pub(crate) run: u64,
    pub(crate) mark: u64,
    pub(crate) digest: PlanDigest,
}

/// The starts of a state directory up to the current one, and the last batch that was planned before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// The starts in order; the last is the current one.
    starts: Vec<StartMark>,
    /// The greatest time of a batch that was planned before this start, in milliseconds.
    last: Option<u64>,
}

impl Lineage {
    /// Creates a lineage of `starts` with the current one at their end.
    pub(crate) fn new(starts: Vec<StartMark>) -> Self {
        Lineage { last: starts.last().and_then(|start| start.after), starts }
    }

    /// Adds a start to the remembered ones; forgets the oldest if there are too many.
    pub(crate) fn push(starts: &mut Vec<StartMark>, start: StartMark) {
        starts.push(start);
        let excess = starts.len().saturating_sub(STARTS_MAX);
        starts.drain(..excess);
    }

    /// The mark of a start.
    fn mark(&self, run: u64) -> u64 {
        self.starts.iter().find(|start| start.run == run).map_or(0, |start| start.mark)
    }

    /// True if a start of this state directory planned that batch before the current one.
    fn knows(&self, written: &Written) -> bool {
        if self.last.is_none_or(|last| written.time > last) {
            return false;
        }
        match self.starts.iter().position(|start| start.run == written.run) {
            Some(at) => {
                let (start, next) = (self.starts[at], self.starts.get(at + 1));
                let until = next.map_or(self.last, |next| next.after);
                start.mark == written.mark
                    && start.after.is_none_or(|after| written.time > after)
                    && until.is_some_and(|until| written.time <= until)
            }
            // Of forgotten starts, only the time is known up to which they planned.
            None => self.starts.first().is_some_and(|oldest| {
                written.run < oldest.run && oldest.after.is_some_and(|after| written.time <= after)
            }),
        }
    }
}

/// The labels of batches that a state from before identities existed knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Adoption {
    /// The oldest label, in milliseconds.
    pub(crate) first: u64,
    /// Batches with labels up to here are covered by a checkpoint.
    pub(crate) covered: Option<u64>,
    /// The labels of the other batches.
    pub(crate) planned: BTreeSet<u64>,
}

impl Adoption {
    /// True if a batch with this label may belong to this state.
    pub(crate) fn knows(&self, time: u64) -> bool {
        let is_covered = self.covered.is_some_and(|covered| self.first <= time && time <= covered);
        is_covered || self.planned.contains(&time)
    }
}

/// The progress of an output when a batch was committed: the number that it drew when it was made, and its commits. The sinks of
/// the engine alone make one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputMark {
    /// The number that the output drew when it was made.
    pub(crate) output: u64,
    /// Number of its commits.
    pub(crate) commits: u64,
}

/// The writer's identity, which a start gives its sinks before anything is written; see
/// [`Sink::check`](crate::sink::Sink::check). As text it names the state directory.
///
/// ```
/// use tidemill::sink::Owner;
///
/// let owner = Owner::without_state("orders")?;
/// assert!(!owner.has_state() && owner.to_string().contains("no `state_dir`"));
/// assert_eq!(owner.identity().short().len(), 8);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Owner {
    /// The pipeline's name.
    pub(crate) pipeline: String,
    /// The state directory, as people know it; `None` if nothing is kept.
    pub(crate) place: Option<String>,
    pub(crate) identity: StateId,
    /// True if the identity was drawn for this start and is not written anywhere yet: a start that is refused discards it.
    pub(crate) is_new: bool,
    pub(crate) lineage: Lineage,
    /// For a state that was made before identities existed and has just got one.
    pub(crate) adoption: Option<Adoption>,
    /// The outputs that it has written to.
    pub(crate) outputs: Vec<Output>,
    /// The outputs that must be in the places that this start writes to.
    pub(crate) expected: Vec<Expected>,
}

impl Owner {
    /// Creates the owner of a run that keeps nothing, as in a test of a sink: its identity lives as long as the run.
    ///
    /// # Errors
    /// [`Error::Failed`] if the operating system gives no random bytes.
    pub fn without_state(pipeline: &str) -> Result<Self> {
        let identity = StateId::random()?;
        Ok(Owner { pipeline: pipeline.to_owned(), identity, ..Owner::default() })
    }

    /// An owner of whom only the identity is known: enough to find its output.
    pub(crate) fn of(identity: StateId) -> Self {
        Owner { identity, ..Owner::default() }
    }

    /// The identity of the state directory, or of this run alone if it keeps nothing.
    pub fn identity(&self) -> StateId {
        self.identity
    }

    /// The digits that tell its files from those of others; a word in their place while nobody can know the digits.
    pub(crate) fn digits(&self) -> String {
        match self.is_new {
            true => "IDENTITY".to_owned(),
            false => self.identity.short(),
        }
    }

    /// Returns true if it keeps anything from one run to the next: there is a state directory.
    pub fn has_state(&self) -> bool {
        self.place.is_some()
    }

    /// An output's memory of a batch that a start of this state planned.
    pub(crate) fn written(&self, time: u64, id: BatchId) -> Written {
        let BatchId { run, digest, .. } = id;
        Written { time, run, mark: self.lineage.mark(run), digest }
    }

    /// True if a start of this state planned that batch before this one.
    pub(crate) fn knows(&self, written: &Written) -> bool {
        self.lineage.knows(written)
    }

    /// The number of this start.
    pub(crate) fn run(&self) -> u64 {
        self.lineage.starts.last().map_or(0, |start| start.run)
    }

    /// Number of commits of an output, as far as this state knows.
    pub(crate) fn commits_of(&self, output: u64) -> u64 {
        let mut marks = self.outputs.iter().map(|known| known.mark);
        marks.find(|mark| mark.output == output).map_or(0, |mark| mark.commits)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) if self.is_new => write!(f, "the new state directory {place}"),
            Some(place) => {
                write!(f, "the state directory {place} (identity {})", self.identity.short())
            }
            None => write!(f, "this run, which has no `state_dir`"),
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn identities_differ_and_are_shown() {
        let id = StateId([0xAB; 16]);
        assert_eq!((id.to_string(), id.short()), ("ab".repeat(16), "abababab".to_owned()));
        assert_ne!(StateId::random().expect("drawn"), StateId::random().expect("drawn"));
        assert_eq!(StateId::parse(&"0b".repeat(16)), Some(StateId([0x0B; 16])));
        for wrong in ["", "ab", &"AB".repeat(16), &"+b".repeat(16)] {
            assert_eq!(StateId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_identity_of_an_old_directory_follows_from_what_it_drew() {
        let of = StateId::of_seed;
        assert_eq!(of("p", 7, 1_000), of("p", 7, 1_000));
        let others = [of("p", 8, 1_000), of("p", 7, 1_001), of("q", 7, 1_000)];
        assert!(others.iter().all(|other| *other != of("p", 7, 1_000)));
        // Directories are found again by this identity: it must never change.
        assert_eq!(of("p", 7, 1_000).to_string(), "6ba19faf43ebcb5d8a74aeddbd1b8678");
    }

    /// Start 1 planned up to 300, start 2 up to 500, start 3 has planned nothing yet.
    fn lineage() -> Lineage {
        let start = |run, after| StartMark { run, mark: run * 10, after };
        Lineage::new(vec![start(1, None), start(2, Some(300)), start(3, Some(500))])
    }

    /// Checks if a batch is known that a start with this mark planned for this time.
    fn check(run: u64, mark: u64, time: u64, expected: bool) {
        let written = Written { time, run, mark, digest: PlanDigest::default() };
        assert_eq!(lineage().knows(&written), expected, "start {run}, mark {mark}, at {time}");
    }

    #[test]
    fn a_state_knows_what_its_starts_planned() {
        check(1, 10, 100, true);
        check(1, 10, 300, true);
        // A copy of the directory was made while start 1 ran, which then continued.
        check(1, 10, 301, false);
        check(2, 20, 301, true);
        check(2, 20, 300, false);
        check(2, 20, 500, true);
        check(2, 20, 501, false);
        // A start of the same number on a copy of the directory.
        check(2, 21, 400, false);
        // No batch of this start is written when it asks, and none of a later one.
        check(3, 30, 501, false);
        check(3, 30, 500, false);
        check(4, 40, 100, false);
        check(0, 0, 100, false);
        let forgetful = Lineage::new(lineage().starts.split_off(1));
        let of = |run, time| Written { time, run, mark: 77, digest: PlanDigest::default() };
        assert!(forgetful.knows(&of(1, 300)), "of a start that is forgotten");
        assert!(!forgetful.knows(&of(1, 301)));
        assert!(!Lineage::new(vec![StartMark { run: 1, mark: 1, after: None }]).knows(&of(1, 5)));
    }

    #[test]
    fn few_starts_are_remembered() {
        let mut starts = Vec::new();
        for run in 1..2_000 {
            Lineage::push(&mut starts, StartMark { run, ..StartMark::default() });
        }
        assert_eq!((starts.len(), starts[0].run), (STARTS_MAX, 2_000 - STARTS_MAX as u64));
    }

    #[test]
    fn labels_of_an_old_state() {
        let planned = BTreeSet::from([1_300, 1_400]);
        let adoption = Adoption { first: 1_000, covered: Some(1_200), planned };
        for (time, expected) in [
            (999, false),
            (1_000, true),
            (1_150, true),
            (1_250, false),
            (1_300, true),
            (1_500, false),
        ] {
            assert_eq!(adoption.knows(time), expected, "{time}");
        }
        assert!(!Adoption::default().knows(0), "nothing was planned");
    }
}
