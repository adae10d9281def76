//! What the records of the engine's log mean: their kinds and bytes.
//!
//! ```text
//! kind u8 | postcard of the head | for a chunk: its ranges, one behind the other
//! 1 started    who writes from here on, the numbers of its sources, the start that all schedules follow
//! 2 chunk      whole records of one source, under a number that counts up from 0
//! 3 planned    batches: what each of them is made of; written before they run
//! 4 committed  a batch is done
//! ```
//! Pure: bytes to values and back. Knows neither files nor threads.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};
use crate::framing::{self, FRAMINGS, Framing};
use crate::time::Time;
use crate::wal::{Position, Record};

/// The version of the records; another one is refused.
pub(crate) const VERSION: u32 = 1;

const STARTED: u8 = 1;
const CHUNK: u8 = 2;
const PLANNED: u8 = 3;
const COMMITTED: u8 = 4;

/// A start of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) version: u32,
    pub(crate) pipeline: String,
    /// The seed of every hash, drawn at the first start.
    pub(crate) seed: u64,
    /// The first tick of the first start, in milliseconds: schedules keep its phase.
    pub(crate) anchor: u64,
    /// The sources by name; a source's place is its number in the log, for good.
    pub(crate) sources: Vec<String>,
}

/// What stands before the bytes of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkHead {
    /// The source's number in the log.
    pub(crate) source: u32,
    /// Counts up from 0 for each source, over all starts.
    pub(crate) number: u64,
    /// The name of the framing.
    pub(crate) framing: String,
    /// How many records it holds.
    pub(crate) records: u64,
}

/// The numbers of the chunks of a block: the first, and the one behind the last.
pub(crate) type ChunkRange = std::ops::Range<u64>;

/// What a batch is made of. A replay uses it as it is, whatever the program's options are by then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The batch's number, over all starts.
    pub(crate) index: u64,
    /// Its time, in milliseconds.
    pub(crate) time: u64,
    /// Into how many hash partitions keyed operators split.
    pub(crate) partitions: u64,
    /// The seed of every hash.
    pub(crate) seed: u64,
    /// For each source of the log that has blocks in the batch, the chunks of each block.
    pub(crate) blocks: Vec<(u32, Vec<ChunkRange>)>,
    /// For each direct source what the batch reads of it, in the source's own words.
    pub(crate) ranges: Vec<(u32, Vec<u8>)>,
}

impl Plan {
    /// The batch's time.
    pub(crate) fn time(&self) -> Time {
        Time::from_millis(self.time)
    }
}

/// A batch that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    pub(crate) index: u64,
    pub(crate) time: u64,
}

/// A record, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    Started(Started),
    /// Its head, and its bytes.
    Chunk(ChunkHead, &'a [u8]),
    Planned(Vec<Plan>),
    Committed(Committed),
}

/// The record of a chunk: its ranges are written from where they lie.
pub(crate) fn chunk(head: &ChunkHead, ranges: impl Iterator<Item = Bytes>) -> Record {
    let mut parts = vec![head_bytes(CHUNK, head)];
    parts.extend(ranges);
    Record::new(parts)
}

pub(crate) fn started(started: &Started) -> Record {
    head_bytes(STARTED, started).into()
}

pub(crate) fn planned(plans: &[Plan]) -> Record {
    head_bytes(PLANNED, &plans).into()
}

pub(crate) fn committed(committed: Committed) -> Record {
    head_bytes(COMMITTED, &committed).into()
}

fn head_bytes(kind: u8, head: &impl Serialize) -> Bytes {
    postcard::to_extend(head, vec![kind]).expect("names and numbers can be serialised").into()
}

/// The framing of that name.
pub(crate) fn framing_name(framing: Framing) -> &'static str {
    let row = FRAMINGS.iter().find(|row| row.framing == framing);
    row.expect("every framing has its row").name
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
        STARTED => {
            let started: Started = whole(rest).map_err(text)?;
            if started.version != VERSION {
                return Err(unknown(&format!("it has version {}", started.version)));
            }
            Entry::Started(started)
        }
        CHUNK => {
            let (head, bytes) = postcard::take_from_bytes(rest).map_err(text)?;
            Entry::Chunk(head, bytes)
        }
        PLANNED => Entry::Planned(whole(rest).map_err(text)?),
        COMMITTED => Entry::Committed(whole(rest).map_err(text)?),
        kind => return Err(unknown(&format!("kind {kind}"))),
    })
}

/// A value that takes all of the bytes.
fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::DeserializeBadEncoding),
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
        };
        let record = planned(&[plan.clone(), Plan::default()]);
        let expected = Entry::Planned(vec![plan, Plan::default()]);
        assert_eq!(decode(AT, &bytes(&record)).expect("good"), expected);
        let done = Committed { index: 4, time: 1_000 };
        assert_eq!(decode(AT, &bytes(&committed(done))).expect("good"), Entry::Committed(done));
    }

    #[test]
    fn what_another_program_wrote_is_refused_and_nothing_panics() {
        let start = Started {
            version: 2,
            pipeline: "p".to_owned(),
            seed: 1,
            anchor: 2,
            sources: vec!["in".to_owned()],
        };
        let text = |bytes: &[u8]| decode(AT, bytes).expect_err("refused").to_string();
        assert!(
            text(&bytes(&started(&start))).ends_with(
                "at 7:64 of the log is not one that this program writes: it has version 2"
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
