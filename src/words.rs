//! Words for people: text that a terminal may show. Pure; any thread. Knows nothing of what the words are about.

use std::fmt::{self, Write};

/// The text without characters that a terminal obeys or that change the direction of what follows.
pub(crate) fn escaped(text: &str) -> String {
    with_escapes(text, |char, safe| write!(safe, "{}", char.escape_default()))
}

/// The same of bytes that are meant as text: what is no UTF-8 is shown as `\xHH`.
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

/// JSON without such characters, which stays the same JSON: they are inside of its strings.
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

/// Line separators, and marks that change the direction of text.
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected);
        check("source `in`: ü – 5 µs", "source `in`: ü – 5 µs");
        check("a\x1b[2Jb", "a\\u{1b}[2Jb");
        check("a\rb\tc\0", "a\\rb\\tc\\u{0}");
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
            let [before, after] =
                [json, expected].map(|it| serde_json::from_str::<serde_json::Value>(it).expect("JSON"));
            assert_eq!(before, after);
        };
        check("[\"ü\",1]", "[\"ü\",1]");
        check("[\"\u{9b}2J\u{7f}\"]", "[\"\\u009b2J\\u007f\"]");
        check("[\"\\u001b\u{202e}\"]", "[\"\\u001b\\u202e\"]");
    }
}
