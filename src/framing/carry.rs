//! The carry: the bytes of one connection's unfinished record. Every splitter has one. Runs on the io threads.
//!
//! It grows with what really arrived, never with what a header announces, and it does not know what a record is.

use memchr::memchr;

use super::Found;

/// Capacity in bytes that an empty carry may keep. Most records are shorter, so a busy connection does not allocate at
/// every read; ten thousand idle ones hold at most 10 MiB.
const KEPT_MAX: usize = 1024;

/// How far the line that an earlier piece began got in this one.
pub(super) enum Line {
    /// It ended, and was joined; the next record starts at this offset.
    Joined(usize),
    /// It is over-long, and was counted and dropped; its end lies at this offset or behind it.
    Overlong(usize),
    /// All of the piece belongs to it.
    Unfinished,
}

/// The unfinished record. It holds nothing between records.
#[derive(Default)]
pub(super) struct Carry {
    bytes: Vec<u8>,
}

impl Carry {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Holds more bytes of the record.
    pub(super) fn push(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }

    /// The record is complete with these last bytes: hands it over as the joined one.
    pub(super) fn join(&mut self, last: &[u8], found: &mut Found) {
        debug_assert!(
            found.joined.is_empty(),
            "`found` is cleared before each call, and a call joins one record"
        );
        found.joined.extend_from_slice(&self.bytes);
        found.joined.extend_from_slice(last);
        found.records += 1;
        self.clear();
    }

    /// Hands over what is held, without taking it for a joined record.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// What is held is the begin of a line of at most `max` bytes before its `\n`: looks for its end.
    pub(super) fn finish_line(&mut self, piece: &[u8], max: usize, found: &mut Found) -> Line {
        let room = max - self.bytes.len();
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

    /// Forgets the record, and gives back a big buffer.
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

    /// What an emptied carry still owns after a record of `len` bytes.
    fn check(len: usize, kept_max: usize) {
        let (mut carry, mut found) = (Carry::default(), Found::default());
        carry.push(&vec![b'x'; len]);
        carry.join(b"\n", &mut found);
        assert_eq!((found.joined.len(), found.records, carry.len()), (len + 1, 1, 0));
        assert!(carry.bytes.capacity() <= kept_max);
    }

    #[test]
    fn an_empty_carry_gives_back_a_big_buffer() {
        check(0, 0);
        check(100, KEPT_MAX);
        check(KEPT_MAX, KEPT_MAX);
        check(KEPT_MAX + 1, 0);
        check(1 << 20, 0);
    }
}
