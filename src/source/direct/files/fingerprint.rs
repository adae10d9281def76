//! Fingerprints: they show that the bytes which were read of a file are still there. Runs on the job loop and on workers.
//!
//! ```text
//!  0 ──────── 256 ─────────────── offset − 256 ──────── offset
//!  [   head     ]                 [        tail         ]           both together of less than 256 bytes
//! ```
//! The head distinguishes files that share an inode one after the other; it grows with the read position, up to 256 bytes. The
//! tail finds a file that was cut and has grown again behind the same head, as one whose every copy begins with a title.

use std::io;

use serde::{Deserialize, Serialize};

use super::listing::{OpenFile, read_full};

/// Bytes of the head and of the tail.
const PRINT_BYTES: usize = 256;

/// The fingerprint of the first bytes of a file, up to an offset; that of no bytes fits every file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    head: u32,
    tail: u32,
}

/// The fingerprint of the file's bytes up to `offset`; `None` if it ends before.
pub(super) fn of(file: &dyn OpenFile, offset: u64) -> io::Result<Option<Fingerprint>> {
    let length = usize::try_from(offset).unwrap_or(PRINT_BYTES).min(PRINT_BYTES);
    let Some(head) = checksum(file, 0, length)? else { return Ok(None) };
    let tail = match offset - length as u64 {
        0 => Some(head),
        from => checksum(file, from, length)?,
    };
    Ok(tail.map(|tail| Fingerprint { head, tail }))
}

fn checksum(file: &dyn OpenFile, from: u64, length: usize) -> io::Result<Option<u32>> {
    let mut bytes = [0; PRINT_BYTES];
    let bytes = &mut bytes[..length];
    let whole = read_full(file, from, bytes)? == bytes.len();
    Ok(whole.then(|| crc32c::crc32c(bytes)))
}
