//! `Manifest`: which batches of an open file count, and how far the file is theirs.
//!
//! ```text
//! .JOB-FIRST-PART.manifest
//!   "TIDEMANI" | version u32 | format u8 | 3 bytes | identity (16) | CRC-32C u32 | to 64 bytes
//!   entry (64 bytes): a batch: its key, and where its rows end in the open file        synced before the batch counts
//!     byte 52: CRC-32C u32 of the open file up to there | CRC-32C u32 of the entry so far; zeros: of earlier releases
//! version 1: no head, entries of 24 bytes: time u64 | end u64 | CRC-32C u32 | 0 u32
//! ```
//! Only the last entry can be torn: each is synced before the next is written. A run without a `state_dir` has the identity
//! of zeros. It does not know what rows look like.

use std::io;

use crate::owner::{PlanDigest, StateId, Written};
use crate::sink::formatted::{Extent, FileFormat, sum_up};
use crate::storage::{PutFailure, StoredFile, read_full, sync, write_all};
use crate::sync::Arc;

const MAGIC: [u8; 8] = *b"TIDEMANI";
const VERSION: u32 = 2;
const SLOT: usize = 64;
const OLD_ENTRY: usize = 24;

/// A batch whose rows are in the open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sink) struct Entry {
    pub(in crate::sink) key: Written,
    /// The end of its rows.
    pub(in crate::sink) end: u64,
    /// The CRC-32C of the open file up to there, if it was written down.
    pub(in crate::sink) sum: Option<u32>,
}

/// The contents of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::sink) struct Manifest {
    /// Whose it is; none: written before identities existed, or by a run that had none.
    pub(in crate::sink) identity: Option<StateId>,
    /// The format of the rows; none if it does not say.
    pub(in crate::sink) format: Option<FileFormat>,
    /// In order.
    pub(in crate::sink) entries: Vec<Entry>,
}

impl Manifest {
    /// The end of the committed rows, and the beginning of those of the last batch.
    pub(in crate::sink) fn ends(&self) -> (u64, u64) {
        let mut ends = self.entries.iter().rev().map(|entry| entry.end);
        (ends.next().unwrap_or(0), ends.next().unwrap_or(0))
    }

    /// The part of the open file that is what was written.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(in crate::sink) fn good_end(&self, open: &dyn StoredFile) -> io::Result<u64> {
        let (mut read, mut good) = (Extent::summed(), 0);
        for entry in &self.entries {
            read = sum_up(open, read, entry.end)?;
            let is_same = entry.sum.is_none() || entry.sum == read.sum;
            if read.end < entry.end || !is_same {
                break;
            }
            good = entry.end;
        }
        Ok(good)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged before its end.
    pub(in crate::sink) fn read(file: &dyn StoredFile) -> io::Result<Manifest> {
        let mut bytes = vec![0; usize::try_from(file.size()?).unwrap_or(usize::MAX)];
        let got = read_full(file, 0, &mut bytes)?;
        bytes.truncate(got);
        let (head, rest) = bytes.split_at(bytes.len().min(SLOT));
        match read_head(head)? {
            Some((identity, format)) => {
                Ok(Manifest { identity, format, entries: entries(rest, SLOT, entry)? })
            }
            // The head is synced with the first entry: without it there is none, or it was damaged later.
            None if (0..)
                .zip(rest.chunks_exact(SLOT))
                .skip(1)
                .any(|(at, it)| entry(at, it).is_some()) =>
            {
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the head of its manifest is damaged",
                ))
            }
            None => Ok(Manifest {
                entries: entries(&bytes, OLD_ENTRY, old_entry)?,
                ..Manifest::default()
            }),
        }
    }
}

/// The entries up to the first that is not whole.
fn entries(
    bytes: &[u8],
    length: usize,
    read: fn(u64, &[u8]) -> Option<Entry>,
) -> io::Result<Vec<Entry>> {
    let all = (0..).zip(bytes.chunks_exact(length)).map(|(index, bytes)| read(index, bytes));
    let found: Vec<Option<Entry>> = all.collect();
    let good = found.iter().take_while(|entry| entry.is_some()).count();
    if found[good..].iter().any(|entry| entry.is_some()) {
        let text = format!("entry {good} of its manifest is damaged, and others follow it");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(found.into_iter().flatten().collect())
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn crc(bytes: &[u8], index: u64) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(bytes), &index.to_le_bytes()).to_le_bytes()
}

fn old_entry(index: u64, bytes: &[u8]) -> Option<Entry> {
    let is_whole = bytes[16..20] == crc(&bytes[..16], index) && bytes[20..] == [0; 4];
    let key = Written { time: number(bytes, 0), ..Written::default() };
    is_whole.then_some(Entry { key, end: number(bytes, 8), sum: None })
}

fn entry(index: u64, bytes: &[u8]) -> Option<Entry> {
    let digest = PlanDigest(bytes[32..48].try_into().expect("sixteen bytes"));
    let (time, end) = (number(bytes, 0), number(bytes, 8));
    let key = Written { time, run: number(bytes, 16), mark: number(bytes, 24), digest };
    let is_there = bytes[52..] != [0; SLOT - 52];
    let is_whole = bytes[48..52] == crc(&bytes[..48], index)
        && (!is_there || bytes[56..60] == crc(&bytes[..56], index));
    let sum = is_there.then(|| u32::from_le_bytes(bytes[52..56].try_into().expect("four bytes")));
    is_whole.then_some(Entry { key, end, sum })
}

fn entry_bytes(index: u64, Entry { key, end, sum }: Entry) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    for (at, number) in [(0, key.time), (8, end), (16, key.run), (24, key.mark)] {
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    bytes[32..48].copy_from_slice(&key.digest.0);
    let crc = crc(&bytes[..48], index);
    bytes[48..52].copy_from_slice(&crc);
    if let Some(sum) = sum {
        bytes[52..56].copy_from_slice(&sum.to_le_bytes());
        let crc = self::crc(&bytes[..56], index);
        bytes[56..60].copy_from_slice(&crc);
    }
    bytes
}

fn head_bytes(identity: StateId, format: FileFormat) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12] = format.number();
    bytes[16..32].copy_from_slice(&identity.0);
    let crc = crc32c::crc32c(&bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whose it is, and the format of its rows; nothing if this is no whole head.
fn read_head(bytes: &[u8]) -> io::Result<Option<(Option<StateId>, Option<FileFormat>)>> {
    let small = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    if bytes.len() < SLOT || bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..32]) != small(32) {
        return Ok(None);
    }
    if small(8) != VERSION {
        let text =
            format!("its manifest has version {}; this program reads version {VERSION}", small(8));
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let identity = StateId(bytes[16..32].try_into().expect("sixteen bytes"));
    let identity = Some(identity).filter(|identity| *identity != StateId::default());
    Ok(Some((identity, FileFormat::of_number(bytes[12]))))
}

/// A manifest that is being written.
#[derive(Debug)]
pub(in crate::sink) struct ManifestWriter {
    pub(in crate::sink) file: Arc<dyn StoredFile>,
    /// Whose it is; zeros: nobody's.
    pub(in crate::sink) identity: StateId,
    pub(in crate::sink) format: FileFormat,
    pub(in crate::sink) entries: u64,
}

impl ManifestWriter {
    /// Appends the entry of a batch whose rows are durable.
    ///
    /// # Errors
    /// If it cannot be made durable, and whether it can be tried again.
    pub(in crate::sink) fn append(&mut self, entry: Entry) -> Result<(), PutFailure> {
        let bytes = entry_bytes(self.entries, entry);
        let head = head_bytes(self.identity, self.format);
        let at = (self.entries + 1) * SLOT as u64;
        let written = match self.entries {
            0 => write_all(self.file.as_ref(), 0, &[&head, &bytes]),
            _ => write_all(self.file.as_ref(), at, &[&bytes]),
        };
        written.map_err(PutFailure::Retry)?;
        sync(self.file.as_ref()).map_err(PutFailure::Fatal)?;
        self.entries += 1;
        Ok(())
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, Storage};

    #[test]
    fn entries_are_read_back_and_damage_is_loud() {
        let disk = MemoryStorage::new(0);
        let identity = StateId([7; 16]);
        let file = disk.create("m").expect("made");
        let read = |bytes: &[u8]| {
            disk.set_bytes("m", bytes);
            Manifest::read(disk.open("m").expect("there").as_ref())
        };
        let entry = |time| Entry {
            key: Written { time, run: 2, mark: 3, digest: PlanDigest([4; 16]) },
            end: time * 10,
            sum: (time > 1).then_some(7),
        };
        let mut writer = ManifestWriter { file, identity, format: FileFormat::Csv, entries: 0 };
        (1..=3).for_each(|time| writer.append(entry(time)).expect("durable"));
        let bytes = disk.bytes("m").expect("there");
        let found = read(&bytes).expect("good");
        let entries = (1..=3).map(entry).collect();
        let format = Some(FileFormat::Csv);
        assert_eq!(found, Manifest { identity: Some(identity), format, entries });
        assert_eq!(found.ends(), (30, 20));
        assert_eq!(read(&bytes[..bytes.len() - 1]).expect("torn").entries.len(), 2);
        for cut in [0, 8, 63] {
            assert_eq!(read(&bytes[..cut]).expect("nothing counts"), Manifest::default());
        }
        let mut damaged = bytes.clone();
        damaged[SLOT + 3] ^= 1;
        let text = read(&damaged).expect_err("damaged").to_string();
        assert!(
            text.contains("entry 0 of its manifest is damaged, and others follow it"),
            "{text}"
        );
        let mut damaged = bytes.clone();
        damaged[3] ^= 1;
        let text = read(&damaged).expect_err("damaged").to_string();
        assert!(text.contains("the head of its manifest is damaged"), "{text}");
        let mut later = head_bytes(identity, FileFormat::Text);
        later[8] = 3;
        let crc = crc32c::crc32c(&later[..32]).to_le_bytes();
        later[32..36].copy_from_slice(&crc);
        let text = read(&later).expect_err("a later version").to_string();
        assert!(text.contains("version 3"), "{text}");
    }

    #[test]
    fn a_manifest_of_version_1_is_read() {
        let mut bytes = Vec::new();
        for (index, (time, end)) in (0_u64..).zip([(5_u64, 10_u64), (6, 30)]) {
            let mut entry = [0; OLD_ENTRY];
            entry[..8].copy_from_slice(&time.to_le_bytes());
            entry[8..16].copy_from_slice(&end.to_le_bytes());
            let crc = crc(&entry[..16], index);
            entry[16..20].copy_from_slice(&crc);
            bytes.extend(entry);
        }
        let disk = MemoryStorage::new(0);
        disk.set_bytes("m", &bytes);
        let found = Manifest::read(disk.open("m").expect("there").as_ref()).expect("good");
        let times: Vec<u64> = found.entries.iter().map(|entry| entry.key.time).collect();
        assert_eq!((times, found.ends(), found.identity), (vec![5, 6], (30, 10), None));
    }
}
