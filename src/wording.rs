//! Words for people: counts with their nouns, and text that a terminal may show. Pure; any thread. Knows nothing of the
//! subjects of the words.

use std::fmt::{self, Display, Write};

use indicatif::HumanCount;

/// A count with its noun: `1 batch`, `2 batches`. In a noun of several words the last one gets the plural: `planned batch`.
pub(crate) fn count<N: Display + TryInto<u64> + Copy>(number: N, noun: &str) -> String {
    format!("{number} {}", by_number(number, noun, &plural(noun)))
}

/// The same with separated thousands, for counts that may be large: `1,000 records`.
pub(crate) fn grouped(number: u64, noun: &str) -> String {
    format!("{} {}", HumanCount(number), by_number(number, noun, &plural(noun)))
}

/// The word that fits the number, as `was` or `were`.
pub(crate) fn by_number<N: TryInto<u64>>(number: N, one: &str, many: &str) -> String {
    let is_one = number.try_into().is_ok_and(|number| number == 1);
    if is_one { one.to_owned() } else { many.to_owned() }
}

/// The plural of a noun. In a noun of several words the last one gets it, but `time to acknowledge` gives `times to
/// acknowledge`.
pub(crate) fn plural(noun: &str) -> String {
    let mut ends = [" to ", " with ", " of "].iter().filter_map(|word| noun.find(word));
    if let Some(end) = ends.next() {
        return plural(&noun[..end]) + &noun[end..];
    }
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if ["ch", "s", "x"].iter().any(|end| noun.ends_with(end)) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

/// Alternatives in a sentence: `a, b or c`.
pub(crate) fn either(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The text without characters that a terminal obeys or that change the direction of the text after them.
pub(crate) fn escaped(text: &str) -> String {
    with_escapes(text, |char, safe| write!(safe, "{}", char.escape_default()))
}

/// The same for a text of several lines, which remain lines.
pub(crate) fn escaped_lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

/// The same for bytes that are meant as text: bytes that are not UTF-8 are shown as `\xHH`.
pub(crate) fn escaped_bytes(text: &[u8]) -> String {
    let mut safe = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        safe.push_str(&escaped(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(safe, "\\x{byte:02x}");
        }
    }
    safe
}

/// JSON without such characters. It stays the same JSON: they occur only inside its strings.
pub(crate) fn escaped_json(json: &str) -> String {
    with_escapes(json, |char, safe| write!(safe, "\\u{:04x}", u32::from(char)))
}

fn with_escapes(text: &str, escape: impl Fn(char, &mut String) -> fmt::Result) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() || is_invisible(char) {
            // Writing to a string cannot fail.
            let _ = escape(char, &mut safe);
        } else {
            safe.push(char);
        }
    }
    safe
}

/// True for line separators, and for marks that change the direction of text.
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_the_noun_that_fits() {
        let check = |number: u64, noun: &str, expected: &str| {
            assert_eq!(count(number, noun), expected);
        };
        check(1, "batch", "1 batch");
        check(0, "batch", "0 batches");
        check(2, "planned batch", "2 planned batches");
        check(1, "record", "1 record");
        check(1_000, "record", "1000 records");
        check(2, "entry", "2 entries");
        check(2, "key", "2 keys");
        check(3, "address", "3 addresses");
        assert_eq!((count(1_i8, "byte"), count(-1, "byte")), ("1 byte".into(), "-1 bytes".into()));
        check(2, "time to acknowledge", "2 times to acknowledge");
        check(2, "way with line feeds", "2 ways with line feeds");
        check(2, "match of a word", "2 matches of a word");
        assert_eq!([1, 1_000].map(|it| grouped(it, "record")), ["1 record", "1,000 records"]);
        assert_eq!([0, 1, 2].map(|it| by_number(it, "was", "were")), ["were", "was", "were"]);
    }

    #[test]
    fn control_characters_are_escaped() {
        let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected);
        check("source `in`: ü – 5 µs", "source `in`: ü – 5 µs");
        check("a\x1b[2Jb", "a\\u{1b}[2Jb");
        check("a\rb\tc\0", "a\\rb\\tc\\u{0}");
        check("a\nb", "a\\nb");
        assert_eq!(escaped_lines("a\n\x1b\nb\r\n"), "a\n\\u{1b}\nb\\r\n");
        check("abc\u{202E}txt.exe", "abc\\u{202e}txt.exe");
    }

    #[test]
    fn what_is_no_text_is_escaped() {
        let check = |text: &[u8], expected: &str| assert_eq!(escaped_bytes(text), expected);
        check("ü\u{9b}2J".as_bytes(), "ü\\u{9b}2J");
        check(b"\x9b2J\xff\xc3", "\\x9b2J\\xff\\xc3");
        check(b"a\xe2\x80b\x1b", "a\\xe2\\x80b\\u{1b}");
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let check = |json: &str, expected: &str| {
            assert_eq!(escaped_json(json), expected);
            let [before, after] = [json, expected]
                .map(|it| serde_json::from_str::<serde_json::Value>(it).expect("JSON"));
            assert_eq!(before, after);
        };
        check("[\"ü\",1]", "[\"ü\",1]");
        check("[\"\u{9b}2J\u{7f}\"]", "[\"\\u009b2J\\u007f\"]");
        check("[\"\\u001b\u{202e}\"]", "[\"\\u001b\\u202e\"]");
    }
}
