//! Lines: `\n` ends a record, one `\r` before it is dropped, an empty line is a record. Runs on the io threads.
//!
//! ```text
//! piece:  c\n | a\nbb\n.....\n | xxxxxxxxxxxx\n | d\n | e
//!         joined    range        over-long        range  carry
//! ```
//! The limit counts the bytes before `\n`, a `\r` included: only the next byte tells whether the `\r` belongs to the
//! terminator, and the carry must not depend on it. The splitter does not search for each line, only for the last
//! terminator of each stretch that is too short to hide an over-long line; with the default limit that is the whole piece.

use memchr::{memchr, memchr_iter, memrchr};

use super::carry::{Carry, Line};
use super::{Found, Malformed, Splitter};

/// The state of one connection.
pub(super) struct LineSplitter {
    /// The unfinished line, no longer than the longest record.
    carry: Carry,
    /// True inside an over-long line, already counted, whose end has not come.
    skipping: bool,
}

impl LineSplitter {
    pub(super) fn new(max: usize) -> Self {
        LineSplitter { carry: Carry::new(max), skipping: false }
    }

    /// Finishes the line that an earlier piece began, if there is one. Returns the start of the next line.
    fn finish_carried(&mut self, piece: &[u8], found: &mut Found) -> usize {
        if self.skipping {
            return self.skip(piece, 0);
        }
        if self.carry.is_empty() {
            return 0;
        }
        match self.carry.finish_line(piece, found) {
            Line::Joined(next) => next,
            Line::Overlong(inside) => self.skip(piece, inside),
            Line::Unfinished => piece.len(),
        }
    }

    /// Skips the rest of an over-long line. Returns the start of the next line.
    fn skip(&mut self, piece: &[u8], from: usize) -> usize {
        let end = memchr(b'\n', &piece[from..]);
        self.skipping = end.is_none();
        end.map_or(piece.len(), |end| from + end + 1)
    }
}

impl Splitter for LineSplitter {
    fn feed(&mut self, piece: &[u8], found: &mut Found) -> Result<(), Malformed> {
        let max = self.carry.max();
        let mut start = self.finish_carried(piece, found);
        let mut whole = start..start;
        while start < piece.len() {
            // Every line that ends in a window of `max + 1` bytes is at most `max` long, and a window without an end is the
            // beginning of a longer line. So there are two searches for each `max` bytes, not one for each line.
            let window =
                &piece[start..piece.len().min(start.saturating_add(max).saturating_add(1))];
            match memrchr(b'\n', window) {
                Some(last) => {
                    start += last + 1;
                    whole.end = start;
                }
                None if window.len() > max => {
                    let lines = count(&piece[whole.clone()]);
                    found.push_range(whole, lines);
                    found.overlong += 1;
                    start = self.skip(piece, start + window.len());
                    whole = start..start;
                }
                None => {
                    self.carry.push(window);
                    break;
                }
            }
        }
        let lines = count(&piece[whole.clone()]);
        found.push_range(whole, lines);
        Ok(())
    }

    fn end(&mut self, found: &mut Found) {
        if !self.carry.is_empty() {
            self.carry.join(b"\n", found);
        }
        self.skipping = false;
    }

    fn carry(&self) -> &Carry {
        &self.carry
    }

    fn carry_mut(&mut self) -> &mut Carry {
        &mut self.carry
    }

    fn give_up(&mut self, _begin: &[u8], _len: usize) -> Result<(), Malformed> {
        self.skipping = true;
        Ok(())
    }
}

/// Number of lines that end in these bytes.
///
/// memchr's counting iterator picks the widest vectors at run time. A sum in `u8` lanes over chunks of 255 bytes, which the
/// compiler vectorises for the baseline, takes a tenth longer for 64 KiB (1.8 against 1.65 us, `benches/framing.rs`).
fn count(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

/// The length of the first line, with its terminator, if it has ended.
pub(super) fn first_end(bytes: &[u8]) -> Option<u64> {
    memchr(b'\n', bytes).map(|end| end as u64 + 1)
}

/// Every line of a range of whole lines, without its terminator.
pub fn lines_of(range: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr_iter(b'\n', range).map(move |end| {
        let line = strip(&range[start..end]);
        start = end + 1;
        line
    })
}

/// True if every line of a range ends with `\n` alone, so that its lines with a `\n` after each are the range again. May
/// return false although they do.
pub fn ends_are_plain(range: &[u8]) -> bool {
    memchr(b'\r', range).is_none()
}

/// The record of a line, from the bytes before `\n`.
pub(super) fn strip(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use crate::framing::Framing;
    use crate::framing::reference::{Outcome, run};

    /// Checks the records of the chops, and the number of over-long ones.
    fn check(chops: &[&str], max: usize, records: &[&str], overlong: u64) {
        let records = records.iter().map(|record| record.as_bytes().to_vec()).collect();
        let expected =
            Outcome { records, overlong, truncated: 0, malformed: false, owed: Vec::new() };
        assert_eq!(
            run(Framing::Lines, chops.iter().map(|chop| chop.as_bytes()), max),
            expected,
            "{chops:?} {max}"
        );
    }

    #[test]
    fn a_line_feed_ends_a_record() {
        check(&[], 9, &[], 0);
        check(&[""], 9, &[], 0);
        check(&["a\n"], 9, &["a"], 0);
        check(&["\n"], 9, &[""], 0);
        check(&["\n\n\n"], 9, &["", "", ""], 0);
        check(&["a\nbb\n\nc\n"], 9, &["a", "bb", "", "c"], 0);
    }

    #[test]
    fn one_carriage_return_before_it_is_dropped() {
        check(&["a\r\nb\n"], 9, &["a", "b"], 0);
        check(&["a\r\r\n"], 9, &["a\r"], 0);
        check(&["\r\n"], 9, &[""], 0);
        check(&["a\rb\n"], 9, &["a\rb"], 0);
        check(&["a\r", "\nb\n"], 9, &["a", "b"], 0);
        check(&["a\r"], 9, &["a"], 0);
    }

    #[test]
    fn a_line_may_come_in_many_pieces() {
        check(&["a", "b", "c\nd", "\n"], 9, &["abc", "d"], 0);
        check(&["ab", "", "\n"], 9, &["ab"], 0);
        check(&["ab", "\nc\nd", "e\n"], 9, &["ab", "c", "de"], 0);
    }

    #[test]
    fn the_close_completes_the_last_line() {
        check(&["a"], 9, &["a"], 0);
        check(&["a\nb", "c"], 9, &["a", "bc"], 0);
    }

    #[test]
    fn an_over_long_line_is_dropped_and_counted_once() {
        check(&["abc\n"], 3, &["abc"], 0);
        check(&["abcd\n"], 3, &[], 1);
        check(&["abcdefghijkl\nab\n"], 3, &["ab"], 1);
        check(&["ab\nabcdefgh\nc\n"], 3, &["ab", "c"], 1);
        check(&["abcd\nefgh\n"], 3, &[], 2);
        check(&["a\nabcd\nb\nabcd\nc"], 3, &["a", "b", "c"], 2);
    }

    #[test]
    fn an_over_long_line_may_come_in_many_pieces() {
        check(&["ab", "cd", "ef", "gh\nij\n"], 3, &["ij"], 1);
        check(&["abc", "\n"], 3, &["abc"], 0);
        check(&["abc", "d\n"], 3, &[], 1);
        check(&["abc", "d"], 3, &[], 1);
        check(&["abcd"], 3, &[], 1);
        check(&["abcd", "\na"], 3, &["a"], 1);
    }

    #[test]
    fn a_carriage_return_counts_towards_the_limit() {
        check(&["ab\r\n"], 3, &["ab"], 0);
        check(&["abc\r\n"], 3, &[], 1);
        check(&["abc", "\r\n"], 3, &[], 1);
    }

    #[test]
    fn any_limit_works() {
        check(&["\na\n\n"], 0, &["", ""], 1);
        check(&["a", "b\n"], usize::MAX, &["ab"], 0);
    }
}
