//! The bytes of the log: names, headers and checksums. Pure functions of bytes; any thread; opens nothing.
//!
//! ```text
//! segment  wal-000000000007.seg, all numbers little endian
//! ┌ 0: segment header, 64 bytes ────────────────────────────────────────────────────────────────┐
//! │ "TIDELOG\0" | version u32 | 64 u32 | segment u64 | first group u64 | salt u64 | size u64     │
//! │ zeros to 60 | CRC-32C u32 of the 60 bytes                                                   │
//! ├ 64: groups, each at a multiple of 8 ────────────────────────────────────────────────────────┤
//! │ CRC-32C u32 of the next 60 bytes and the salt | "GRP2" | segment u64 | number u64            │
//! │ body length u32 | records u32 | attempt u32 | 0 u32                                         │
//! │ durable before it: segment u64 | offset u64 | checkpoint u64          (64 bytes)             │
//! │   record: length u32 | CRC-32C u32 of bytes, length, seed, offset | bytes                    │
//! │   record: ...                                                                               │
//! ├ the slot after the last group:  64 zero bytes, as many as the segment has room for ─────────┤
//! │ stale bytes of the segment's last use, or zeros                                             │
//! └─────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Version 1, which is read and not written, has group headers of 40 bytes, "GRP1", without the third line of numbers.
//! The salt is drawn when the segment begins, and the seed of a record is its group's checksum. So bytes of an earlier use
//! of the file, or of a failed attempt, do not validate, and no peer can arrange bytes that do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sync::planted::{Planted, planted};
use crate::wording::count;

/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 64;
/// The same, as a field of the header.
const SEGMENT_HEADER_FIELD: u32 = 64;
/// Bytes of a group's header, and of the zero slot after the last group.
pub(crate) const GROUP_HEADER: usize = 64;
/// The same in version 1.
const GROUP_HEADER_1: usize = 40;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: usize = 8;
/// Groups begin at multiples of this.
pub(crate) const ALIGN: usize = 8;

const MAGIC: [u8; 8] = *b"TIDELOG\0";
const GROUP_MAGIC: [u8; 4] = *b"GRP2";
const GROUP_MAGIC_1: [u8; 4] = *b"GRP1";

/// The version of a segment's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Read, and no longer written: it had no list of segments.
    V1,
    /// Written.
    V2,
}

impl Version {
    fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Version::V1),
            2 => Some(Version::V2),
            _ => None,
        }
    }

    fn number(self) -> u32 {
        match self {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }

    /// Bytes of a group's header, and of the zero slot after the last group.
    pub(crate) fn group_header(self) -> usize {
        match self {
            Version::V1 => GROUP_HEADER_1,
            Version::V2 => GROUP_HEADER,
        }
    }

    /// Bytes that a group with a body of `length` bytes takes, with its header and the padding after it.
    pub(crate) fn group_bytes(self, length: usize) -> usize {
        (self.group_header() + length).next_multiple_of(ALIGN)
    }

    fn magic(self) -> [u8; 4] {
        match self {
            Version::V1 => GROUP_MAGIC_1,
            Version::V2 => GROUP_MAGIC,
        }
    }
}

/// A place in the log between two groups. It stands for everything before it in its segment, and all segments before that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The segment; 0 if there is none yet.
    pub segment: u64,
    /// The offset in it, in bytes.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// The place of a record in the log. Opaque but for the segment, which decides what may be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The segment.
    pub segment: u64,
    /// The offset of the record's header in it, in bytes.
    pub offset: u64,
    /// The record's bytes, without its header.
    pub length: u32,
    /// The seed of its checksum.
    pub seed: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// The reason why a file of the log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Its bytes differ from what was written.
    Damaged(String),
    /// A later version of the program wrote it.
    Later(String),
}

impl Unreadable {
    pub(crate) fn text(&self) -> &str {
        let (Unreadable::Damaged(text) | Unreadable::Later(text)) = self;
        text
    }
}

/// The file name of a segment.
pub(crate) fn segment_name(id: u64) -> String {
    format!("wal-{id:012}.seg")
}

/// The file name of a segment that waits for reuse.
pub(crate) fn spare_name(number: u64) -> String {
    format!("spare-{number:012}.seg")
}

/// The segment that a file name stands for.
pub(crate) fn segment_of(name: &str) -> Option<u64> {
    number_of(name, "wal-").filter(|id| segment_name(*id) == name)
}

/// The number of a spare segment's file name.
pub(crate) fn spare_of(name: &str) -> Option<u64> {
    number_of(name, "spare-").filter(|number| spare_name(*number) == name)
}

fn number_of(name: &str, prefix: &str) -> Option<u64> {
    name.strip_prefix(prefix)?.strip_suffix(".seg")?.parse().ok()
}

/// Returns true if a stored checksum is the computed one.
pub(crate) fn matches(stored: u32, computed: u32) -> bool {
    stored == computed || planted(Planted::IgnoreCrc)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: Version,
    pub(crate) segment: u64,
    /// The number of its first group: proves that every group before it was synced.
    pub(crate) first_group: u64,
    pub(crate) salt: u64,
    /// The length of the file when it was made, in bytes.
    pub(crate) size: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.number().to_le_bytes());
        bytes[12..16].copy_from_slice(&SEGMENT_HEADER_FIELD.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_group.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.salt.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.size.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; the error names its fault.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let damaged = |what: String| Err(Unreadable::Damaged(what));
        if bytes.len() < SEGMENT_HEADER {
            return damaged(format!(
                "the file ends after {}, in the header",
                count(bytes.len(), "byte")
            ));
        }
        if bytes[..8] != MAGIC {
            return damaged("it does not begin as a segment of the log does".to_owned());
        }
        if !matches(u32_at(bytes, 60), crc32c::crc32c(&bytes[..60])) {
            return damaged("the checksum of the header does not match".to_owned());
        }
        let found = u32_at(bytes, 8);
        let later = || {
            let what = format!("format version {found}; this program reads versions 1 and 2");
            Unreadable::Later(what)
        };
        let version = Version::of(found).ok_or_else(later)?;
        Ok(SegmentHeader {
            version,
            segment: u64_at(bytes, 16),
            first_group: u64_at(bytes, 24),
            salt: u64_at(bytes, 32),
            size: u64_at(bytes, 40),
        })
    }
}

/// The header of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) segment: u64,
    /// Counts up by one over all segments.
    pub(crate) number: u64,
    /// Bytes of its records with their headers.
    pub(crate) length: u32,
    pub(crate) records: u32,
    /// Counts the times that this place was written, so that leftovers of a failed attempt do not validate.
    pub(crate) attempt: u32,
    /// The end of the durable log when this was written; the default in version 1.
    pub(crate) durable: Place,
    /// The number of the newest checkpoint that was durable then; 0 if there was none, and in version 1.
    pub(crate) checkpoint: u64,
}

/// The content of a place where a group may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing was written here.
    Empty,
    /// A group, and the seed of its records.
    Group(GroupHeader, u32),
    /// Something else.
    Damaged,
}

impl GroupHeader {
    /// The header's bytes, and the seed of the group's records.
    pub(crate) fn encode(&self, salt: u64) -> ([u8; GROUP_HEADER], u32) {
        let mut bytes = [0; GROUP_HEADER];
        bytes[4..8].copy_from_slice(&GROUP_MAGIC);
        bytes[8..16].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.records.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.attempt.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.durable.segment.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.durable.offset.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.checkpoint.to_le_bytes());
        let crc = group_crc(&bytes, salt);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// Reads the bytes where a group may begin; fewer than a header's are the end of the file.
    pub(crate) fn decode(bytes: &[u8], salt: u64, version: Version) -> Slot {
        let length = version.group_header();
        let bytes = &bytes[..bytes.len().min(length)];
        if bytes.iter().all(|byte| *byte == 0) {
            return Slot::Empty;
        }
        if bytes.len() < length || !GroupHeader::plausible(bytes, version) {
            return Slot::Damaged;
        }
        let seed = u32_at(bytes, 0);
        if !matches(seed, group_crc(bytes, salt)) {
            return Slot::Damaged;
        }
        let (durable, checkpoint) = match version {
            Version::V1 => (Place::default(), 0),
            Version::V2 => {
                let durable = Place { segment: u64_at(bytes, 40), offset: u64_at(bytes, 48) };
                (durable, u64_at(bytes, 56))
            }
        };
        let header = GroupHeader {
            segment: u64_at(bytes, 8),
            number: u64_at(bytes, 16),
            length: u32_at(bytes, 24),
            records: u32_at(bytes, 28),
            attempt: u32_at(bytes, 32),
            durable,
            checkpoint,
        };
        Slot::Group(header, seed)
    }

    /// Returns true if bytes can be a header, before a checksum is computed.
    pub(crate) fn plausible(bytes: &[u8], version: Version) -> bool {
        bytes.get(4..8) == Some(&version.magic())
    }
}

/// The checksum of the header's bytes after it, and of the salt.
fn group_crc(header: &[u8], salt: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[4..]), &salt.to_le_bytes())
}

/// A record's checksum: of its bytes (`payload`), and of its place.
pub(crate) fn record_crc(payload: u32, length: u32, seed: u32, offset: u64) -> u32 {
    let mut place = [0; 16];
    place[..4].copy_from_slice(&length.to_le_bytes());
    place[4..8].copy_from_slice(&seed.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(payload, &place)
}

/// A record's header.
pub(crate) fn record_header(length: u32, crc: u32) -> [u8; RECORD_HEADER] {
    let mut bytes = [0; RECORD_HEADER];
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The first record of `body`, which lies at `offset` of its segment; `None` if it is damaged.
pub(crate) fn decode_record(
    body: &[u8],
    segment: u64,
    offset: u64,
    seed: u32,
) -> Option<(Position, &[u8])> {
    let (header, rest) = body.split_at_checked(RECORD_HEADER)?;
    let length = u32_at(header, 0);
    let bytes = rest.get(..usize::try_from(length).ok()?)?;
    let crc = record_crc(crc32c::crc32c(bytes), length, seed, offset);
    matches(u32_at(header, 4), crc).then_some((Position { segment, offset, length, seed }, bytes))
}

#[cfg(test)]
impl GroupHeader {
    /// The header's bytes as the first version of the program wrote them, and the seed of the group's records.
    pub(crate) fn encode_1(&self, salt: u64) -> ([u8; GROUP_HEADER_1], u32) {
        let (bytes, _) = self.encode(salt);
        let mut bytes: [u8; GROUP_HEADER_1] = bytes[..GROUP_HEADER_1].try_into().expect("shorter");
        bytes[4..8].copy_from_slice(&GROUP_MAGIC_1);
        let crc = group_crc(&bytes, salt);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_no_others() {
        assert_eq!(segment_of(&segment_name(7)), Some(7));
        assert_eq!(segment_of(&segment_name(u64::MAX)), Some(u64::MAX));
        assert_eq!(spare_of(&spare_name(3)), Some(3));
        for name in
            ["wal-7.seg", "wal-00000000000x.seg", "wal-+00000000007.seg", "spare-1.seg", "lock", ""]
        {
            assert_eq!((segment_of(name), spare_of(name)), (None, None), "{name}");
        }
    }

    #[test]
    fn the_checksum_is_crc_32c() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    const GROUP: GroupHeader = GroupHeader {
        segment: 7,
        number: 9,
        length: 20,
        records: 2,
        attempt: 1,
        durable: Place { segment: 6, offset: 4096 },
        checkpoint: 3,
    };

    /// The bytes of a group's header of a version.
    fn encode(header: &GroupHeader, salt: u64, version: Version) -> Vec<u8> {
        match version {
            Version::V1 => header.encode_1(salt).0.to_vec(),
            Version::V2 => header.encode(salt).0.to_vec(),
        }
    }

    fn check_headers(version: Version, group: GroupHeader) {
        let header = SegmentHeader { version, segment: 7, first_group: 9, salt: 11, size: 4096 };
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        let bytes = encode(&group, 11, version);
        let seed = u32_at(&bytes, 0);
        assert_eq!(GroupHeader::decode(&bytes, 11, version), Slot::Group(group, seed));
        let other = GroupHeader::decode(&bytes, 12, version);
        assert_eq!(other, Slot::Damaged, "another salt is another use");
        for bit in 0..SEGMENT_HEADER * 8 {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GroupHeader::decode(&bytes, 11, version), Slot::Damaged, "bit {bit}");
        }
        assert_eq!(GroupHeader::decode(&[0; GROUP_HEADER], 11, version), Slot::Empty);
        assert_eq!(GroupHeader::decode(&[], 11, version), Slot::Empty);
        let short = GroupHeader::decode(&bytes[..bytes.len() - 1], 11, version);
        assert_eq!(short, Slot::Damaged);
    }

    #[test]
    fn headers_are_read_back_and_every_flip_is_found() {
        check_headers(Version::V2, GROUP);
        check_headers(
            Version::V1,
            GroupHeader { durable: Place::default(), checkpoint: 0, ..GROUP },
        );
    }

    #[test]
    fn a_later_version_is_named() {
        let header = SegmentHeader {
            version: Version::V2,
            segment: 7,
            first_group: 9,
            salt: 11,
            size: 4096,
        };
        let mut bytes = header.encode();
        bytes[8] = 3;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        let err = SegmentHeader::decode(&bytes).expect_err("unknown");
        let what = "format version 3; this program reads versions 1 and 2".to_owned();
        assert_eq!(err, Unreadable::Later(what));
    }
}
