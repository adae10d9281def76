//! The format of a spill file. Pure: bytes in, bytes out; any thread; knows no files.
//!
//! ```text
//! file  = header frame*
//! header = "TIDESPIL" version:u16 0:u16 number:u64 crc:u32                                       24 bytes
//! frame  = raw_len:u32 stored_len:u32 crc:u32 | stored bytes: LZ4, or raw where that is no longer  12 bytes + stored
//! ```
//! Integers are little endian. A frame holds whole ranges, gathered up to [`FRAME_BYTES`]. Its CRC-32C covers the file's
//! number and the frame's offset as well, so a frame that lies in the wrong place is damage like any other.

use crc32c::{crc32c, crc32c_append};
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

/// Bytes of a file's header.
pub(crate) const HEADER_BYTES: usize = 24;

/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER_BYTES: usize = 12;

/// Ranges are gathered to frames of this many bytes; a longer range is a frame by itself.
pub(crate) const FRAME_BYTES: usize = 64 * 1024;

const MAGIC: &[u8; 8] = b"TIDESPIL";
const VERSION: u16 = 1;

/// The header of the file `number`.
pub(crate) fn header(number: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c(&bytes[..20]);
    bytes[20..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks that these bytes are the header of the file `number`.
///
/// # Errors
/// The reason if they are not.
pub(crate) fn check_header(bytes: &[u8; HEADER_BYTES], number: u64) -> Result<(), String> {
    if *bytes == header(number) {
        return Ok(());
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    Err(if bytes.starts_with(MAGIC) && version != VERSION {
        format!("it has version {version}, this program reads version {VERSION}")
    } else {
        "its header is damaged".to_owned()
    })
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Bytes of the ranges.
    pub(crate) raw: usize,
    /// Bytes in the file, without the header.
    pub(crate) stored: usize,
    crc: u32,
}

/// The place of a frame, which its checksum covers.
#[derive(Clone, Copy)]
pub(crate) struct FramePlace {
    /// The file's number.
    pub(crate) file: u64,
    /// The offset of the frame's header in it.
    pub(crate) offset: u64,
}

/// Appends to `out` the frame of `raw` for this place; false if `raw` is too long for one.
pub(crate) fn encode(raw: &[u8], place: FramePlace, out: &mut Vec<u8>) -> bool {
    let Ok(raw_len) = u32::try_from(raw.len()) else { return false };
    let start = out.len();
    let body = start + FRAME_HEADER_BYTES;
    out.resize(body + get_maximum_output_size(raw.len()), 0);
    let compressed = compress_into(raw, &mut out[body..]).unwrap_or(raw.len());
    if compressed < raw.len() {
        out.truncate(body + compressed);
    } else {
        out.truncate(body);
        out.extend_from_slice(raw);
    }
    let Ok(stored_len) = u32::try_from(out.len() - body) else { return false };
    let crc = checksum(place, raw_len, &out[body..]);
    for (at, word) in [(0, raw_len), (4, stored_len), (8, crc)] {
        out[start + at..start + at + 4].copy_from_slice(&word.to_le_bytes());
    }
    true
}

/// Reads a frame's header: a frame of at most `raw_max` bytes of ranges, of which `left` bytes are in the file.
pub(crate) fn decode_header(
    bytes: [u8; FRAME_HEADER_BYTES],
    raw_max: u64,
    left: u64,
) -> Result<Frame, String> {
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]));
    let (raw, stored, crc) = (word(0), word(4), word(8));
    if raw == 0 || u64::from(raw) > raw_max || stored > raw || u64::from(stored) > left {
        return Err("a frame's header is damaged".to_owned());
    }
    let size = |len: u32| usize::try_from(len).map_err(|_| "a frame is too long".to_owned());
    Ok(Frame { raw: size(raw)?, stored: size(stored)?, crc })
}

/// Turns the stored bytes of a frame, read from this place, into its ranges, in `raw`.
pub(crate) fn decode(
    frame: Frame,
    place: FramePlace,
    stored: &[u8],
    raw: &mut Vec<u8>,
) -> Result<(), String> {
    let lens = (u32::try_from(frame.raw), u32::try_from(stored.len()));
    let (Ok(raw_len), Ok(_)) = lens else { return Err("a frame is too long".to_owned()) };
    if checksum(place, raw_len, stored) != frame.crc {
        return Err("a frame's checksum does not match".to_owned());
    }
    raw.clear();
    if stored.len() == frame.raw {
        raw.extend_from_slice(stored);
        return Ok(());
    }
    raw.resize(frame.raw, 0);
    match decompress_into(stored, raw) {
        Ok(len) if len == frame.raw => Ok(()),
        Ok(_) => Err("a frame is shorter than it says".to_owned()),
        Err(err) => Err(format!("a frame cannot be decompressed: {err}")),
    }
}

/// The checksum of a frame of `raw` bytes of ranges, stored in `body`.
fn checksum(place: FramePlace, raw: u32, body: &[u8]) -> u32 {
    let stored = u32::try_from(body.len()).expect("the caller has checked it");
    let place = crc32c_append(crc32c(&place.file.to_le_bytes()), &place.offset.to_le_bytes());
    let lens = crc32c_append(crc32c_append(place, &raw.to_le_bytes()), &stored.to_le_bytes());
    crc32c_append(lens, body)
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(raw: &[u8], file: u64, offset: u64) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(encode(raw, FramePlace { file, offset }, &mut out));
        out
    }

    const PLACE: FramePlace = FramePlace { file: 1, offset: 24 };

    fn decoded(bytes: &[u8], place: FramePlace, raw_max: u64) -> Result<Vec<u8>, String> {
        let (head, body) = bytes.split_at_checked(FRAME_HEADER_BYTES).ok_or("short")?;
        let frame = decode_header(head.try_into().expect("12 bytes"), raw_max, body.len() as u64)?;
        let mut raw = Vec::new();
        decode(frame, place, &body[..frame.stored], &mut raw)?;
        Ok(raw)
    }

    #[test]
    fn headers_name_their_file_and_their_version() {
        assert_eq!(check_header(&header(7), 7), Ok(()));
        assert_eq!(check_header(&header(7), 8), Err("its header is damaged".to_owned()));
        let mut other = header(7);
        other[8] = 9;
        let why = "it has version 9, this program reads version 1";
        assert_eq!(check_header(&other, 7), Err(why.to_owned()));
        assert_eq!(check_header(&[0; HEADER_BYTES], 0), Err("its header is damaged".to_owned()));
    }

    #[test]
    fn what_shrinks_is_compressed_and_what_does_not_is_kept() {
        let text = b"hello world\n".repeat(1_000);
        assert!(encoded(&text, 1, 24).len() < text.len() / 10);
        assert_eq!(encoded(b"abc\n", 1, 24).len(), FRAME_HEADER_BYTES + 4);
    }

    proptest! {
        /// Frames come back as they were, and only from their place.
        #[test]
        fn frames_come_back_from_their_place_only(
            raw in prop::collection::vec(0u8..4, 1..2_000), number in 0u64..9, offset in 0u64..99,
        ) {
            let bytes = encoded(&raw, number, offset);
            let place = FramePlace { file: number, offset };
            let elsewhere = FramePlace { offset: offset + 1, ..place };
            let in_other_file = FramePlace { file: number + 1, offset };
            let max = raw.len() as u64;
            prop_assert_eq!(decoded(&bytes, place, max), Ok(raw));
            prop_assert!(decoded(&bytes, in_other_file, max).is_err());
            prop_assert!(decoded(&bytes, elsewhere, max).is_err());
            prop_assert!(decoded(&bytes, place, max - 1).is_err());
        }

        /// Any change of one byte is noticed.
        #[test]
        fn a_changed_byte_is_noticed(
            raw in prop::collection::vec(0u8..4, 1..300), at in 0usize..400, flip in 1u8..,
        ) {
            let mut bytes = encoded(&raw, 1, 24);
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(decoded(&bytes, PLACE, raw.len() as u64).is_err());
        }

        /// Any bytes at all: an error or records, never a panic.
        #[test]
        fn junk_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded(&bytes, PLACE, 1 << 20);
        }
    }
}
