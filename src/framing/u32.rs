//! A length as four bytes, the highest first, then that many bytes of record. No header is malformed; 0 is an empty record.

use super::Malformed;
use super::frames::{Format, HEADER_BYTES_MAX, Head};

const HEADER_BYTES: usize = size_of::<u32>();
const _: () = assert!(HEADER_BYTES <= HEADER_BYTES_MAX);

pub(super) struct U32;

impl Format for U32 {
    fn head(bytes: &[u8]) -> Result<Head, Malformed> {
        Ok(match bytes.first_chunk() {
            Some(length) => {
                Head::Counted { header: HEADER_BYTES, body: u32::from_be_bytes(*length) }
            }
            None => Head::Incomplete,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::framing::Framing;
    use crate::framing::reference::{Outcome, run};

    /// Checks the records of the chops, and the numbers of over-long and truncated ones.
    fn check(chops: &[&[u8]], max: usize, records: &[&str], overlong: u64, truncated: u64) {
        let records = records.iter().map(|record| record.as_bytes().to_vec()).collect();
        let expected = Outcome { records, overlong, truncated, malformed: false, owed: Vec::new() };
        assert_eq!(run(Framing::U32, chops.iter().copied(), max), expected, "{chops:?} {max}");
    }

    #[test]
    fn a_length_counts_the_record() {
        check(&[b""], 9, &[], 0, 0);
        check(&[b"\0\0\0\x02ab"], 9, &["ab"], 0, 0);
        check(&[b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01\n"], 9, &["ab", "", "\n"], 0, 0);
    }

    #[test]
    fn a_frame_may_come_in_many_pieces() {
        check(&[b"\0", b"\0", b"\0", b"\x02", b"a", b"b"], 9, &["ab"], 0, 0);
        check(
            &[b"\0\0\0\x01a\0\0", b"\0\x01b\0\0\0\x01c\0\0\0\x02", b"de"],
            9,
            &["a", "b", "c", "de"],
            0,
            0,
        );
        check(&[b"\0\0\0", b"\0\0\0\0\x01a"], 9, &["", "a"], 0, 0);
    }

    #[test]
    fn an_over_long_frame_is_passed_over() {
        check(&[b"\0\0\0\x04abcd\0\0\0\x01e"], 3, &["e"], 1, 0);
        check(&[b"\0\0\0", b"\x04ab", b"cd\0\0\0\x01e"], 3, &["e"], 1, 0);
        check(&[b"\xff\xff\xff\xffabc", b"d"], 3, &[], 1, 0);
        check(&[b"\0\0\0\0\0\0\0\x01a"], 0, &[""], 1, 0);
    }

    #[test]
    fn the_close_drops_what_is_not_whole() {
        check(&[b"\0\0\0\x01a\0\0"], 9, &["a"], 0, 1);
        check(&[b"\0\0\0\x01a\0\0\0\x02b"], 9, &["a"], 0, 1);
        check(&[b"\xff\xff\xff\xff"], usize::MAX, &[], 0, 1);
    }
}
