//! Syslog over TCP (RFC 6587) as rsyslog receives it: a frame that starts with a digit from 1 to 9 is octet-counted, any
//! other is a line. Both mix in one stream, since relays forward what their peers sent.
//!
//! Some senders (syslog-ng, where it counts; OpenBSD) end a counted message with a line feed all the same. As in rsyslog,
//! one such line feed does not belong to the record: a record is the same however its relay framed it. For the bytes as
//! they were counted, use `octet_counted`. An empty line is no record: it is left over where a sender puts a line feed
//! after a counted frame without counting it (`6 <1>one\n6 <1>two\n`), and no message is empty.
//!
//! A message starts with `<`, so the digit decides. A line that starts with a digit but is not counted is malformed: a
//! guess would misread the rest of the stream.

use super::Malformed;
use super::frames::{Format, Head};
use super::{lines, octet_counted};

pub(super) struct Syslog;

impl Format for Syslog {
    fn head(bytes: &[u8]) -> Result<Head, Malformed> {
        match bytes.first() {
            None => Ok(Head::Incomplete),
            Some(b'1'..=b'9') => octet_counted::head(bytes),
            Some(_) => Ok(Head::Line),
        }
    }

    fn record(bytes: &[u8]) -> &[u8] {
        bytes.strip_suffix(b"\n").map_or(bytes, lines::strip)
    }
}

#[cfg(test)]
mod tests {
    use crate::framing::Framing;
    use crate::framing::reference::{Outcome, malformed, run};

    /// Checks the records of the chops, and the numbers of over-long and truncated ones.
    fn check(chops: &[&str], max: usize, records: &[&str], overlong: u64, truncated: u64) {
        let records = records.iter().map(|record| record.as_bytes().to_vec()).collect();
        let expected = Outcome { records, overlong, truncated, malformed: false, owed: Vec::new() };
        let found = run(Framing::Syslog, chops.iter().map(|chop| chop.as_bytes()), max);
        assert_eq!(found, expected, "{chops:?} {max}");
    }

    #[test]
    fn counted_frames_and_lines_mix() {
        check(&["<1>a\n"], 99, &["<1>a"], 0, 0);
        check(&["4 <1>a"], 99, &["<1>a"], 0, 0);
        check(&["<1>a\n5 <2>bb<3>c\r\n4 <4>d"], 99, &["<1>a", "<2>bb", "<3>c", "<4>d"], 0, 0);
        check(&["5 <1>\na<2>b\n"], 99, &["<1>\na", "<2>b"], 0, 0);
        check(&["0 a\n"], 99, &["0 a"], 0, 0);
    }

    #[test]
    fn an_empty_line_is_no_record() {
        let both = &["<1>one", "<1>two"];
        check(&["6 <1>one\n6 <1>two\n"], 99, both, 0, 0);
        check(&["6 <1>one\r\n6 <1>two\r\n"], 99, both, 0, 0);
        check(&["6 <1>one", "\n", "6 <1>two", "\n"], 99, both, 0, 0);
        check(&["6 <1>one", "\r", "\n6 <1>two\r"], 99, both, 0, 0);
        check(&["\n\n<1>one\n\n\r\n<1>two\n\n"], 99, both, 0, 0);
        check(&["\n"], 99, &[], 0, 0);
        check(&["\r", "\n", "\r"], 99, &[], 0, 0);
        check(&["<1>one\n\n\n6 <1>tw", "o"], 99, both, 0, 0);
        check(&["\nabcde\n"], 3, &[], 1, 0);
        // A counted record is one, even if it is empty.
        check(&["1 \n2 \r\n"], 99, &["", ""], 0, 0);
    }

    #[test]
    fn one_line_feed_at_the_end_of_a_counted_frame_is_no_part_of_it() {
        check(&["5 <1>a\n<1>a\n"], 99, &["<1>a", "<1>a"], 0, 0);
        check(&["6 <1>a\r\n6 <1>a\n\n"], 99, &["<1>a", "<1>a\n"], 0, 0);
        check(&["1 \n1 \r2 \r\n"], 99, &["", "\r", ""], 0, 0);
        // The limit counts the bytes as they were sent.
        check(&["5 <1>a\n"], 4, &[], 1, 0);
    }

    #[test]
    fn either_may_come_in_many_pieces() {
        check(
            &["<1", ">a", "\n5", " ", "<2>bb", "<3>c\n4 <4>", "d"],
            99,
            &["<1>a", "<2>bb", "<3>c", "<4>d"],
            0,
            0,
        );
        check(&["<1>a\r", "\n"], 99, &["<1>a"], 0, 0);
    }

    #[test]
    fn an_over_long_one_is_dropped_whichever_it_is() {
        check(&["abc\nabcd\n3 abc4 abcd\n"], 3, &["abc", "abc"], 2, 0);
        check(&["a", "bcd", "ef", "gh\n1 a"], 3, &["a"], 1, 0);
        check(&["abcd1 x", "3 y\nz\n"], 3, &["z"], 1, 0);
        check(&["4 ", "ab", "cdz\n"], 3, &["z"], 1, 0);
    }

    #[test]
    fn the_close_completes_a_line_and_drops_the_rest() {
        check(&["a\nb"], 9, &["a", "b"], 0, 0);
        check(&["a\n2 b"], 9, &["a"], 0, 1);
        check(&["a\n2"], 9, &["a"], 0, 1);
        check(&["abcd"], 3, &[], 1, 0);
    }

    #[test]
    fn a_digit_promises_a_length() {
        assert_eq!(
            malformed(Framing::Syslog, b"a\n2026-01-01 b\n"),
            "expected a space after the length 2026, found `-`"
        );
    }
}
