//! `Room` and `Cut`: how much may be cut from lines, and what was cut. Plain data.

use std::ops::Range;

/// The room for a cut. Bytes that the sender puts before each line count too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// At most this many lines.
    pub(super) lines: u64,
    /// At most this many bytes, unless the first line alone is longer.
    pub(super) soft_bytes: u64,
    /// At most this many bytes in any case.
    pub(super) hard_bytes: u64,
}

impl Room {
    pub(super) fn bytes(&self) -> u64 {
        self.soft_bytes.min(self.hard_bytes)
    }
}

/// Whole lines; none if there was no room or no more lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Their place in the bytes of what was cut.
    pub(super) range: Range<usize>,
    /// Their number.
    pub(super) lines: u64,
}
