//! The carry: the bytes of one connection's unfinished record. Every splitter has one. Runs on the io threads.
//!
//! It grows with the bytes that really arrived, never with the length that a header announces, and its memory is never
//! larger than the longest record may be. Between two pieces it can be lent out, so that another owner may drop it. It does
//! not know what a record is.

use memchr::memchr;

use super::{BEGIN_BYTES, Found};

/// Capacity in bytes that an empty carry may keep. Most records are shorter, so a busy connection does not allocate at
/// every read; ten thousand idle ones hold at most 10 MiB.
const KEPT_MAX: usize = 1024;

/// The least capacity of a carry that holds anything, in bytes.
const LEAST: usize = 64;

/// The progress in this piece of the line that an earlier piece began.
pub(super) enum Line {
    /// It ended and was joined; the next record starts at this offset.
    Joined(usize),
    /// It is over-long, and was counted and dropped; its end lies at this offset or after it.
    Overlong(usize),
    /// All of the piece belongs to it.
    Unfinished,
}

/// The unfinished record. It holds nothing between records.
#[derive(Debug)]
pub struct Carry {
    bytes: Vec<u8>,
    /// The longest record, in bytes.
    max: usize,
}

impl Carry {
    /// Creates an empty carry for records of at most this many bytes, without header and terminator.
    pub(super) fn new(max: usize) -> Self {
        Carry { bytes: Vec::new(), max }
    }

    /// The longest record, without header and terminator.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Moves the carry out of its place and leaves an empty one there.
    pub(super) fn replace(&mut self) -> Carry {
        std::mem::replace(self, Carry::new(self.max))
    }

    /// The memory that it owns, in bytes.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends more bytes of the record.
    pub(super) fn push(&mut self, more: &[u8]) {
        let (len, capacity) = (self.bytes.len(), self.bytes.capacity());
        let needed = len + more.len();
        if needed > capacity {
            // Doubles, so that a long record is not copied again and again, but only up to the most that a record can need.
            let longest = self.max.saturating_add(BEGIN_BYTES);
            let target = capacity.saturating_mul(2).max(LEAST).min(longest).max(needed);
            self.bytes.reserve_exact(target - len);
        }
        self.bytes.extend_from_slice(more);
    }

    /// Takes a lent record back.
    pub(super) fn put_back(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.bytes.is_empty(), "nothing is read while the record is lent");
        self.bytes = bytes;
    }

    /// Completes the record with these last bytes and hands it over as the joined one.
    pub(super) fn join(&mut self, last: &[u8], found: &mut Found) {
        debug_assert!(
            found.joined.is_empty(),
            "`found` is cleared before each call, and a call joins one record"
        );
        found.records += 1;
        if self.bytes.capacity() > KEPT_MAX && found.joined.capacity() < self.bytes.len() {
            // A long record is handed over in place, not copied.
            found.joined = self.take();
            found.joined.reserve_exact(last.len());
        } else {
            found.joined.extend_from_slice(&self.bytes);
        }
        found.joined.extend_from_slice(last);
        self.clear();
    }

    /// Hands over the held bytes, without taking them for a joined record.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Looks for the end of the line whose beginning is held and is no longer than the longest record.
    pub(super) fn finish_line(&mut self, piece: &[u8], found: &mut Found) -> Line {
        let room = self.max - self.bytes.len();
        let window = &piece[..piece.len().min(room.saturating_add(1))];
        match memchr(b'\n', window) {
            Some(end) => {
                self.join(&piece[..=end], found);
                Line::Joined(end + 1)
            }
            None if window.len() > room => {
                self.clear();
                found.overlong += 1;
                Line::Overlong(window.len())
            }
            None => {
                self.push(piece);
                Line::Unfinished
            }
        }
    }

    /// Forgets the record, and frees a large buffer.
    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_MAX {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the memory that an emptied carry still owns after a record of `len` bytes.
    fn check(len: usize, kept_max: usize) {
        let (mut carry, mut found) = (Carry::new(1 << 20), Found::default());
        carry.push(&vec![b'x'; len]);
        carry.join(b"\n", &mut found);
        assert_eq!((found.joined.len(), found.records, carry.len()), (len + 1, 1, 0));
        assert!(carry.held() <= kept_max);
    }

    #[test]
    fn an_empty_carry_gives_back_a_big_buffer() {
        check(0, 0);
        check(100, KEPT_MAX);
        check(KEPT_MAX, KEPT_MAX);
        check(KEPT_MAX + 1, 0);
        check(1 << 20, 0);
    }

    /// The most memory beyond its bytes that a carry owns while `pieces` arrive, for records of at most `max` bytes.
    fn overhead(pieces: &[usize], max: usize) -> usize {
        let mut carry = Carry::new(max);
        let more = |piece: &usize| {
            carry.push(&vec![b'x'; *piece]);
            carry.held() - carry.len()
        };
        pieces.iter().map(more).max().unwrap_or(0)
    }

    #[test]
    fn memory_never_exceeds_the_longest_record_and_is_at_most_doubled() {
        assert_eq!(overhead(&[1], 1 << 20), LEAST - 1);
        assert_eq!(overhead(&[65_536, 1], 1 << 20), 65_535);
        assert_eq!(overhead(&[65_536; 16], 1 << 20), 458_752);
        assert_eq!(overhead(&[600_000, 1], 1 << 20), (1 << 20) + BEGIN_BYTES - 600_001);
        assert_eq!(overhead(&[65_536; 3], 1), 0, "a limit never cuts what came");
    }
}
