//! Words for people: text that a terminal may show. Pure; any thread. Knows nothing of what the words are about.

use std::fmt::Write;

/// The text without characters that a terminal obeys or that change the direction of what follows.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() || is_invisible(char) {
            // Writing to a string cannot fail.
            let _ = write!(safe, "{}", char.escape_default());
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
}
