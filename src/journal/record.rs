//! The records of the engine's log: their kinds and bytes.
//!
//! ```text
//! kind u8 | postcard of the head | for a chunk: its ranges, one after the other
//! 1 started    the program that writes from here on, the numbers of its sources, the start that all schedules follow
//! 2 chunk      whole records of one source, under a number that counts up from 0
//! 3 planned    as version 1 wrote it: batches without the run that planned them
//! 4 committed  a batch is done; for operators with state: the number of records of the next kind that belong to it
//! 5 changed    the batch's changes of states, in the operators' own bytes; before its commit
//! 6 planned    batches: the input of each, and the start that planned it; written before they run
//! 7 reached    of an older version without places: the number of commits of outputs
//! 8 outputs    progress and places of outputs: at a start, and when a batch was committed, before its commit
//! ```
//! `started` has two versions; the number stands first. Records of version 1 are still read (`version1`).
//! Pure: bytes to values and back. Knows neither files nor threads.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::names::{Inventory, Known};
use super::version1;
use crate::error::{Error, Result};
use crate::framing::{self, Framing};
use crate::owner::{Output, OutputMark, PlanDigest, StartMark, StateId};
use crate::time::Time;
use crate::wal::{Position, Record};

/// The version of the records; a later one is refused.
pub(crate) const VERSION: u32 = 2;

const STARTED: u8 = 1;
const CHUNK: u8 = 2;
/// As version 1 wrote it.
const PLANNED: u8 = 3;
const COMMITTED: u8 = 4;
const CHANGED: u8 = 5;
const PLANNED_BY: u8 = 6;
/// Of an older version, without places.
const REACHED: u8 = 7;
const OUTPUTS: u8 = 8;

/// A record of changes is closed beyond this many bytes; one part may be larger.
const CHANGED_BYTES: usize = 4 << 20;

/// A start of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) version: u32,
    pub(crate) pipeline: String,
    /// The seed of every hash, drawn at the first start.
    pub(crate) seed: u64,
    /// The first tick of the first start, in milliseconds: schedules keep its phase.
    pub(crate) anchor: u64,
    /// The known names; before version 2 neither sinks nor jobs.
    pub(crate) names: Inventory<Known>,
    /// The identity of the state; `None` before version 2.
    pub(crate) identity: Option<StateId>,
    /// The number of this start, from 1; 0 before version 2, which began to count.
    pub(crate) run: u64,
    /// The starts up to this one, as far as they are remembered.
    pub(crate) starts: Vec<StartMark>,
}

/// The head before the bytes of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkHead {
    /// The source's number in the log.
    pub(crate) source: u32,
    /// Counts up from 0 for each source, over all starts.
    pub(crate) number: u64,
    /// The name of the framing.
    pub(crate) framing: String,
    /// Number of records in it.
    pub(crate) records: u64,
}

/// The numbers of the chunks of a block: the first, and the one after the last.
pub(crate) type ChunkRange = std::ops::Range<u64>;

/// The input of a batch. A replay uses it unchanged, whatever the program's options are by then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The batch's number, over all starts.
    pub(crate) index: u64,
    /// Its time, in milliseconds.
    pub(crate) time: u64,
    /// Number of hash partitions that keyed operators split into.
    pub(crate) partitions: u64,
    /// The seed of every hash.
    pub(crate) seed: u64,
    /// For each source of the log that has blocks in the batch, the chunks of each block.
    pub(crate) blocks: Vec<(u32, Vec<ChunkRange>)>,
    /// For each direct source the range that the batch reads, in the source's own bytes.
    pub(crate) ranges: Vec<(u32, Vec<u8>)>,
    /// The number of the start that planned it; a replay keeps it. 0 before version 2.
    pub(crate) run: u64,
}

impl Plan {
    /// The batch's time.
    pub(crate) fn time(&self) -> Time {
        Time::from_millis(self.time)
    }

    /// The digest of the batch's input. It must be the same in every later version: outputs remember it.
    pub(crate) fn digest(&self) -> PlanDigest {
        let Plan { index, time, partitions, seed, blocks, ranges, run: _ } = self;
        let fields = (index, time, partitions, seed, blocks, ranges);
        PlanDigest::of(&postcard::to_stdvec(&fields).expect("numbers can be serialised"))
    }

    /// The range that the batch reads of a direct source of the log, if there is one.
    pub(crate) fn range_of(&self, source: u32) -> Option<&[u8]> {
        let own = self.ranges.iter().find(|(of, range)| *of == source && !range.is_empty());
        own.map(|(_, range)| range.as_slice())
    }
}

/// A batch that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    pub(crate) index: u64,
    pub(crate) time: u64,
    /// Number of its records of changes.
    pub(crate) changed: u32,
    /// A compaction begins with this batch, or ends with it: once it has ended, no changes from before its
    /// begin are needed.
    pub(crate) compaction_begins: bool,
    pub(crate) compaction_ends: bool,
}

/// The head before the parts of a record of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangedHead {
    /// The batch.
    pub(crate) index: u64,
    /// Its place among the records of the batch.
    pub(crate) place: u32,
}

/// Changes of states: the number of the state in the log, and bytes that the state takes.
pub(crate) type Parts = Vec<(u32, Bytes)>;

/// A record, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    Started(Started),
    /// Its head, and its bytes.
    Chunk(ChunkHead, &'a [u8]),
    Planned(Vec<Plan>),
    Committed(Committed),
    /// Its head, and its parts as they were written.
    Changed(ChangedHead, &'a [u8]),
    Reached(Vec<OutputMark>),
    Outputs(Vec<Output>),
}

/// The record of a chunk: its ranges are written without a copy.
pub(crate) fn chunk(head: &ChunkHead, ranges: impl Iterator<Item = Bytes>) -> Record {
    let mut parts = vec![head_bytes(CHUNK, head)];
    parts.extend(ranges);
    Record::new(parts)
}

pub(crate) fn started(started: &Started) -> Record {
    head_bytes(STARTED, started).into()
}

pub(crate) fn planned(plans: &[Plan]) -> Record {
    head_bytes(PLANNED_BY, &plans).into()
}

pub(crate) fn committed(committed: Committed) -> Record {
    head_bytes(COMMITTED, &committed).into()
}

pub(crate) fn outputs(outputs: &[Output]) -> Record {
    head_bytes(OUTPUTS, &outputs).into()
}

/// The records of a batch's changes: as few as hold the parts, each of at most `bytes_max` unless a part is longer.
pub(crate) fn changed(index: u64, parts: &Parts, bytes_max: usize) -> Vec<Record> {
    let bytes_max = CHANGED_BYTES.min(bytes_max / 2);
    let mut records = Vec::new();
    let mut rest = parts.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|(_, part)| {
            bytes += part.len();
            bytes <= bytes_max
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        let place = u32::try_from(records.len()).expect("a batch has fewer records than that");
        let mut pieces = vec![head_bytes(CHANGED, &ChangedHead { index, place })];
        for (state, part) in now {
            let length = part.len() as u64;
            pieces.push(postcard::to_stdvec(&(*state, length)).expect("numbers").into());
            pieces.push(part.clone());
        }
        records.push(Record::new(pieces));
        rest = later;
    }
    records
}

/// The parts of a record of changes.
///
/// # Errors
/// If the bytes differ from what was written.
pub(crate) fn parts(mut bytes: &[u8]) -> Result<Vec<(u32, &[u8])>> {
    let damaged = || Error::Failed("a record of changes is not what was written".to_owned());
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let ((state, length), rest): ((u32, u64), _) =
            postcard::take_from_bytes(bytes).map_err(|_| damaged())?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (part, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
        parts.push((state, part));
        bytes = rest;
    }
    Ok(parts)
}

/// A start and plans as version 1 wrote them.
#[cfg(test)]
pub(super) fn of_version_1(started: &version1::Started, plans: &[version1::Plan]) -> [Record; 2] {
    [head_bytes(STARTED, started).into(), head_bytes(PLANNED, &plans).into()]
}

fn head_bytes(kind: u8, head: &impl Serialize) -> Bytes {
    postcard::to_extend(head, vec![kind]).expect("names and numbers can be serialised").into()
}

impl ChunkHead {
    /// # Errors
    /// If this program knows no framing of that name.
    pub(crate) fn framing(&self) -> Result<Framing> {
        let name = &self.framing;
        framing::by_name(name).ok_or_else(|| {
            Error::Failed(format!(
                "the log has records with the framing `{name}`, which this program does not know"
            ))
        })
    }
}

/// Reads a record.
///
/// # Errors
/// If it is none of these: a later program wrote it.
pub(crate) fn decode(at: Position, bytes: &[u8]) -> Result<Entry<'_>> {
    let unknown = |what: &str| {
        Error::Failed(format!(
            "the record at {at} of the log is not one that this program writes: {what}"
        ))
    };
    let (kind, rest) = bytes.split_first().ok_or_else(|| unknown("it is empty"))?;
    let text = |err: postcard::Error| unknown(&err.to_string());
    Ok(match *kind {
        STARTED => Entry::Started(match version_of(rest).map_err(text)? {
            1 => whole::<version1::Started>(rest).map_err(text)?.into(),
            VERSION => whole(rest).map_err(text)?,
            other => return Err(unknown(&format!("it has version {other}"))),
        }),
        CHUNK => {
            let (head, bytes) = postcard::take_from_bytes(rest).map_err(text)?;
            Entry::Chunk(head, bytes)
        }
        PLANNED => {
            let plans: Vec<version1::Plan> = whole(rest).map_err(text)?;
            Entry::Planned(plans.into_iter().map(Plan::from).collect())
        }
        PLANNED_BY => Entry::Planned(whole(rest).map_err(text)?),
        CHANGED => {
            let (head, bytes) = postcard::take_from_bytes(rest).map_err(text)?;
            Entry::Changed(head, bytes)
        }
        REACHED => Entry::Reached(whole(rest).map_err(text)?),
        OUTPUTS => Entry::Outputs(whole(rest).map_err(text)?),
        COMMITTED => Entry::Committed(whole(rest).map_err(text)?),
        kind => return Err(unknown(&format!("kind {kind}"))),
    })
}

/// The version that a value begins with.
pub(super) fn version_of(bytes: &[u8]) -> Result<u32, postcard::Error> {
    postcard::take_from_bytes(bytes).map(|(version, _)| version)
}

/// A value that takes all of the bytes.
pub(super) fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

impl From<version1::Started> for Started {
    fn from(old: version1::Started) -> Self {
        Started {
            version: old.version,
            pipeline: old.pipeline,
            seed: old.seed,
            anchor: old.anchor,
            names: version1::names(old.sources, old.states),
            ..Started::default()
        }
    }
}

impl From<version1::Plan> for Plan {
    fn from(old: version1::Plan) -> Self {
        Plan {
            index: old.index,
            time: old.time,
            partitions: old.partitions,
            seed: old.seed,
            blocks: old.blocks,
            ranges: old.ranges,
            run: 0,
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    const AT: Position = Position { segment: 7, offset: 64, length: 0, seed: 0 };

    /// The bytes of a record as the log hands them back.
    fn bytes(record: &Record) -> Vec<u8> {
        record.bytes()
    }

    #[test]
    fn records_are_read_back() {
        let head = ChunkHead { source: 1, number: 300, framing: "lines".to_owned(), records: 2 };
        let record = chunk(&head, [Bytes::from("a\n"), Bytes::from("b\n")].into_iter());
        assert_eq!(decode(AT, &bytes(&record)).expect("good"), Entry::Chunk(head, b"a\nb\n"));
        let plan = Plan {
            index: 4,
            time: 1_000,
            partitions: 3,
            seed: u64::MAX,
            blocks: vec![(0, vec![1..4, 4..9]), (2, vec![])],
            ranges: vec![(1, b"file:7".to_vec())],
            run: 3,
        };
        let record = planned(&[plan.clone(), Plan::default()]);
        let expected = Entry::Planned(vec![plan, Plan::default()]);
        assert_eq!(decode(AT, &bytes(&record)).expect("good"), expected);
        let done = Committed {
            index: 4,
            time: 1_000,
            changed: 2,
            compaction_begins: true,
            ..Committed::default()
        };
        assert_eq!(decode(AT, &bytes(&committed(done))).expect("good"), Entry::Committed(done));
    }

    #[test]
    fn changes_take_as_many_records_as_they_need() {
        let big = Bytes::from(vec![7; CHANGED_BYTES - 2]);
        let all: Parts = vec![(0, "a".into()), (3, big.clone()), (1, "bc".into()), (0, "d".into())];
        let records = changed(9, &all, usize::MAX);
        assert_eq!(records.len(), 2);
        let mut found = Vec::new();
        for (place, record) in (0..).zip(&records) {
            let bytes = bytes(record);
            let Entry::Changed(head, rest) = decode(AT, &bytes).expect("good") else { panic!() };
            assert_eq!(head, ChangedHead { index: 9, place });
            let own = |(state, part): (u32, &[u8])| (state, Bytes::copy_from_slice(part));
            found.extend(parts(rest).expect("good").into_iter().map(own));
            assert!(parts(&rest[..rest.len() - 1]).is_err());
        }
        assert_eq!(found, all);
        assert!(changed(9, &Vec::new(), usize::MAX).is_empty());
    }

    fn known(name: &str, what: &str) -> Known {
        Known { name: name.to_owned(), what: what.to_owned(), ..Known::default() }
    }

    /// A start as this version writes it.
    fn start() -> Started {
        Started {
            version: VERSION,
            pipeline: "p".to_owned(),
            seed: 1,
            anchor: 2,
            names: Inventory {
                sources: vec![known("in", "")],
                states: vec![known("counts", "u64")],
                sinks: vec![known("out", "file:/out")],
                jobs: vec![known("lines", "")],
            },
            identity: Some(StateId([7; 16])),
            run: 4,
            starts: vec![StartMark { run: 4, mark: 9, after: Some(900) }],
        }
    }

    #[test]
    fn the_digest_of_a_plan_is_that_of_what_it_is_made_of() {
        let plan = || Plan {
            index: 4,
            time: 1_000,
            partitions: 3,
            seed: 9,
            blocks: vec![(0, vec![1..4, 4..9])],
            ranges: vec![(1, b"x".to_vec())],
            run: 3,
        };
        let others = [
            Plan { index: 5, ..plan() },
            Plan { time: 1_001, ..plan() },
            Plan { partitions: 4, ..plan() },
            Plan { seed: 8, ..plan() },
            Plan { blocks: vec![(0, vec![1..9, 9..9])], ..plan() },
            Plan { ranges: vec![(1, b"y".to_vec())], ..plan() },
        ];
        assert!(others.iter().all(|other| other.digest() != plan().digest()));
        assert_eq!(Plan { run: 0, ..plan() }.digest(), plan().digest());
        // Outputs remember it: it must never change.
        assert_eq!(plan().digest().to_string(), "7769db8412c67b34fa3047d23d17db2e");
    }

    #[test]
    fn starts_and_plans_of_version_1_are_read() {
        let new = start();
        let read = decode(AT, &bytes(&started(&new))).map(|entry| entry == Entry::Started(new));
        assert!(read.expect("good"));
        let Started { pipeline, seed, anchor, .. } = start();
        let old = version1::Started {
            version: 1,
            pipeline,
            seed,
            anchor,
            sources: vec!["in".to_owned()],
            states: vec![("counts".to_owned(), "u64".to_owned())],
        };
        let expected = Started {
            version: 1,
            pipeline: "p".to_owned(),
            seed,
            anchor,
            names: Inventory {
                sources: vec![known("in", "")],
                states: vec![known("counts", "u64")],
                ..Inventory::default()
            },
            ..Started::default()
        };
        let plan = version1::Plan {
            index: 4,
            time: 1_000,
            partitions: 3,
            seed: 9,
            blocks: vec![(0, vec![1..4, 4..9])],
            ranges: vec![(1, b"x".to_vec())],
        };
        let marks = vec![OutputMark { output: 7, commits: 2 }];
        let reached = head_bytes(REACHED, &marks);
        assert_eq!(decode(AT, &reached).expect("good"), Entry::Reached(marks));
        let [start, plans] = of_version_1(&old, &[plan]);
        assert_eq!(decode(AT, &bytes(&start)).expect("good"), Entry::Started(expected));
        let plans = bytes(&plans);
        let Entry::Planned(plans) = decode(AT, &plans).expect("good") else { panic!() };
        assert_eq!((plans.len(), plans[0].run, plans[0].time), (1, 0, 1_000));
        assert_eq!(plans[0].ranges, [(1, b"x".to_vec())]);
    }

    #[test]
    fn what_another_program_wrote_is_refused_and_nothing_panics() {
        let start = Started { version: 3, ..start() };
        let text = |bytes: &[u8]| decode(AT, bytes).expect_err("refused").to_string();
        assert!(
            text(&bytes(&started(&start))).ends_with(
                "at 7:64 of the log is not one that this program writes: it has version 3"
            )
        );
        assert!(text(&[]).contains("it is empty"));
        assert!(text(&[9, 1, 2]).contains("kind 9"));
        let good = bytes(&planned(&[Plan { ranges: vec![(1, vec![7; 40])], ..Plan::default() }]));
        for length in 0..good.len() {
            assert!(decode(AT, &good[..length]).is_err(), "{length} bytes");
        }
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] = 0xFF;
            let _ = decode(AT, &bytes);
        }
    }
}
