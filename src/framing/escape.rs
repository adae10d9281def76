//! Line feeds inside records, for text whose records are lines: an escape that changes as little as possible, and its
//! inverse.
//!
//! ```text
//! record            line              why
//! one⏎two           one\ntwo          a line feed becomes `\n`
//! C:\temp           C:\temp           backslashes elsewhere stay
//! C:\new            C:\\new           a run of backslashes directly before an `n` is doubled,
//! end\⏎             end\\\n           and so is one before a line feed
//! ```
//! So an odd run of backslashes before an `n` stands for a line feed, an even one for half as many backslashes and the `n`.
//! [`unescape`] inverts [`escape`] byte for byte. Runs on the workers. It knows no files.

use std::borrow::Cow;

use memchr::{memchr_iter, memchr2, memmem};

/// Appends the record to `out` as a line, without a terminator.
pub fn escape(record: &[u8], out: &mut Vec<u8>) {
    let mut rest = record;
    while let Some(at) = memchr2(b'\\', b'\n', rest) {
        let backslashes = rest[at..].iter().take_while(|byte| **byte == b'\\').count();
        let end = at + backslashes;
        out.extend_from_slice(&rest[..end]);
        rest = match rest.get(end) {
            Some(b'n') => {
                out.extend_from_slice(&rest[at..end]);
                &rest[end..]
            }
            Some(b'\n') => {
                out.extend_from_slice(&rest[at..end]);
                out.extend_from_slice(br"\n");
                &rest[end + 1..]
            }
            _ => &rest[end..],
        };
    }
    out.extend_from_slice(rest);
}

/// The record that a line stands for; the line comes without its terminator.
pub fn unescape(line: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memmem::find(line, br"\n") else { return Cow::Borrowed(line) };
    let (mut record, mut rest, mut found) = (Vec::with_capacity(line.len()), line, Some(first));
    while let Some(at) = found.map(|backslash| backslash + 1) {
        let backslashes = backslashes_before(rest, at);
        record.extend_from_slice(&rest[..at - backslashes + backslashes / 2]);
        record.push(if backslashes % 2 == 1 { b'\n' } else { b'n' });
        rest = &rest[at + 1..];
        found = memmem::find(rest, br"\n");
    }
    record.extend_from_slice(rest);
    Cow::Owned(record)
}

/// Calls `each` with the record of every line of a range of whole lines. A `\r` before a terminator is part of its record:
/// escaped lines end with `\n` alone.
pub fn records_of(lines: &[u8], mut each: impl FnMut(&[u8])) {
    let mut start = 0;
    for end in memchr_iter(b'\n', lines) {
        each(&unescape(&lines[start..end]));
        start = end + 1;
    }
}

/// True if escaping changes none of the lines of this text, terminators included.
pub fn lines_are_plain(lines: &[u8]) -> bool {
    memmem::find(lines, br"\n").is_none()
}

/// Number of backslashes directly before this offset.
fn backslashes_before(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count()
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(record: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        escape(record, &mut line);
        line
    }

    fn check(record: &str, line: &str) {
        assert_eq!(
            String::from_utf8(escaped(record.as_bytes())).expect("text"),
            line,
            "{record:?}"
        );
        assert_eq!(unescape(line.as_bytes()), record.as_bytes(), "{line:?}");
    }

    #[test]
    fn a_line_feed_is_escaped_and_little_else() {
        check("", "");
        check("plain", "plain");
        check("\n", r"\n");
        check("one\ntwo\n", r"one\ntwo\n");
        check("\n\n", r"\n\n");
        check(r"C:\temp", r"C:\temp");
        check(r"C:\new", r"C:\\new");
        check(r"\\n", r"\\\\n");
        check("a\\\nb", r"a\\\nb");
        check("a\\\\\n", r"a\\\\\n");
        check(r"ends with \", r"ends with \");
        check("\\\\\\t \\r", r"\\\t \r");
        check("n\\n\nn", r"n\\n\nn");
        check("carriage\r\nreturn\r", "carriage\r\\nreturn\r");
    }

    #[test]
    fn the_time_grows_with_the_length_alone() {
        // A search that started anew at each match would take hours.
        for record in [r"\n".repeat(1 << 20), "\\".repeat(1 << 20), "\n".repeat(1 << 20)] {
            assert_eq!(unescape(&escaped(record.as_bytes())), record.as_bytes());
        }
    }

    #[test]
    fn lines_without_the_two_characters_are_written_as_they_are() {
        let check = |lines: &[u8], plain| assert_eq!(lines_are_plain(lines), plain, "{lines:?}");
        check(b"one\ntwo\n", true);
        check(b"a\\\nn\n", true);
        check(b"C:\\temp\n", true);
        check(b"a\\nb\n", false);
    }

    /// Bytes that the escape looks at are frequent in these records.
    fn record() -> impl Strategy<Value = Vec<u8>> {
        let byte =
            prop_oneof![4 => Just(b'\\'), 3 => Just(b'n'), 3 => Just(b'\n'), 1 => any::<u8>()];
        prop::collection::vec(byte, 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]
        #[test]
        fn every_record_comes_back(record in record()) {
            let line = escaped(&record);
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(unescape(&line).into_owned(), record);
        }

        #[test]
        fn lines_that_were_written_are_read_as_the_records(
            records in prop::collection::vec(record(), 0..6),
            returns in any::<bool>(),
        ) {
            let end = if returns { &b"\r"[..] } else { b"" };
            let records: Vec<Vec<u8>> = records.iter().map(|record| [record, end].concat()).collect();
            let mut text = Vec::new();
            for record in &records {
                escape(record, &mut text);
                text.push(b'\n');
            }
            let mut found = Vec::new();
            records_of(&text, |record| found.push(record.to_vec()));
            prop_assert_eq!(found, records);
        }

        #[test]
        fn plain_lines_are_those_that_escaping_leaves(records in prop::collection::vec(record(), 0..4)) {
            let lines: Vec<Vec<u8>> = records.iter().map(|record| {
                record.iter().copied().filter(|byte| *byte != b'\n').collect()
            }).collect();
            let text: Vec<u8> = lines.iter().flat_map(|line| [&line[..], b"\n"].concat()).collect();
            let changed = lines.iter().any(|line| escaped(line) != *line);
            prop_assert_eq!(lines_are_plain(&text), !changed);
        }
    }
}
