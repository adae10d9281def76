//! Octet counting (RFC 6587, 3.4.1): the length in decimal digits, a space, then that many bytes of record, as they are.

use super::Malformed;
use super::frames::{Format, HEADER_BYTES_MAX, Head};

/// The most digits of a length: nine fit a `u32`, and are far more than anyone sends.
const DIGITS_MAX: usize = 9;
const _: () = assert!(DIGITS_MAX < HEADER_BYTES_MAX);

pub(super) struct OctetCounted;

impl Format for OctetCounted {
    fn head(bytes: &[u8]) -> Result<Head, Malformed> {
        head(bytes)
    }
}

/// Reads a header that ends with a space. The RFC forbids a leading zero, so a length of 0 is malformed too.
pub(super) fn head(bytes: &[u8]) -> Result<Head, Malformed> {
    let mut body = 0;
    for (digits, &byte) in bytes.iter().enumerate() {
        let digit = match byte {
            b'0' if digits == 0 => return Err(unexpected("a length from 1 on", &[], byte)),
            b'0'..=b'9' => u32::from(byte - b'0'),
            b' ' if digits > 0 => return Ok(Head::Counted { header: digits + 1, body }),
            _ if digits == 0 => return Err(unexpected("a length", &[], byte)),
            _ => return Err(unexpected("a space after the length", &bytes[..digits], byte)),
        };
        if digits == DIGITS_MAX {
            let start = bytes[..=digits].escape_ascii();
            return Err(Malformed(format!("a length of more than {DIGITS_MAX} digits: {start}")));
        }
        body = body * 10 + digit;
    }
    Ok(Head::Incomplete)
}

fn unexpected(wanted: &str, digits: &[u8], byte: u8) -> Malformed {
    let (space, digits, byte) =
        (if digits.is_empty() { "" } else { " " }, digits.escape_ascii(), byte.escape_ascii());
    Malformed(format!("expected {wanted}{space}{digits}, found `{byte}`"))
}

#[cfg(test)]
mod tests {
    use crate::framing::Framing;
    use crate::framing::reference::{Outcome, malformed, run};

    /// Checks the records of the chops, and the numbers of over-long and truncated ones.
    fn check(chops: &[&str], max: usize, records: &[&str], overlong: u64, truncated: u64) {
        let records = records.iter().map(|record| record.as_bytes().to_vec()).collect();
        let expected = Outcome { records, overlong, truncated, malformed: false, owed: Vec::new() };
        let found = run(Framing::OctetCounted, chops.iter().map(|chop| chop.as_bytes()), max);
        assert_eq!(found, expected, "{chops:?} {max}");
    }

    /// Checks the error of the stream, in one piece and byte by byte.
    fn check_malformed(stream: &str, why: &str) {
        assert_eq!(malformed(Framing::OctetCounted, stream.as_bytes()), why, "{stream:?}");
    }

    #[test]
    fn a_length_counts_the_record() {
        check(&[], 99, &[], 0, 0);
        check(&["5 hello"], 99, &["hello"], 0, 0);
        check(&["5 hello5 world1 \n"], 99, &["hello", "world", "\n"], 0, 0);
        check(&["10 0123456789"], 99, &["0123456789"], 0, 0);
        check(&["3 a\r\n"], 99, &["a\r\n"], 0, 0);
    }

    #[test]
    fn a_frame_may_come_in_many_pieces() {
        check(&["1", "0", " ", "01234", "56789", "1 a"], 99, &["0123456789", "a"], 0, 0);
        check(&["1 a2 ", "bc1 d"], 99, &["a", "bc", "d"], 0, 0);
        check(&["1 a2", "", " bc1 d3 e", "fg"], 99, &["a", "bc", "d", "efg"], 0, 0);
    }

    #[test]
    fn an_over_long_frame_is_passed_over() {
        check(&["3 abc4 defg2 hi"], 3, &["abc", "hi"], 1, 0);
        check(&["4 ", "de", "fg2 hi"], 3, &["hi"], 1, 0);
        check(&["1", "0 0123", "4567", "891 a"], 3, &["a"], 1, 0);
        check(&["4 1 a\n1 b"], 3, &["b"], 1, 0);
        check(&["999999999 abc"], 3, &[], 1, 0);
        check(&["1 a"], 0, &[], 1, 0);
    }

    #[test]
    fn the_close_drops_what_is_not_whole() {
        check(&["1 a5 hell"], 99, &["a"], 0, 1);
        check(&["1 a5"], 99, &["a"], 0, 1);
        check(&["1 a5 "], 99, &["a"], 0, 1);
    }

    #[test]
    fn a_header_alone_holds_no_memory() {
        let (mut splitter, mut found) =
            (Framing::OctetCounted.splitter(usize::MAX), Default::default());
        assert_eq!(splitter.feed(b"999999999 ab", &mut found), Ok(()));
        assert_eq!(splitter.pending(), 12);
    }

    #[test]
    fn a_malformed_frame_says_what_is_wrong() {
        check_malformed("<13>hello", "expected a length, found `<`");
        check_malformed(" 1 a", "expected a length, found ` `");
        check_malformed("1 a\n1 b", "expected a length, found `\\n`");
        check_malformed("0 ", "expected a length from 1 on, found `0`");
        check_malformed("01 a", "expected a length from 1 on, found `0`");
        check_malformed("12a", "expected a space after the length 12, found `a`");
        check_malformed("1234567890", "a length of more than 9 digits: 1234567890");
        check_malformed("12345678901234567890 ", "a length of more than 9 digits: 1234567890");
        check_malformed("123456789x", "expected a space after the length 123456789, found `x`");
    }
}
