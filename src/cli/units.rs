//! Numbers as people type them: counts (`10M`), sizes (`64MiB`), durations (`1.5s`). Pure; used as clap value parsers.

use std::time::Duration;

use crate::settings::units::SIZE;

/// A unit's name and how many of the smallest unit it is.
type Unit = (&'static str, u64);

const COUNTS: &[Unit] =
    &[("", 1), ("k", 1_000), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];

/// Sizes that only a command line takes, beside those of a pipeline file.
const SIZES: &[Unit] = &[("", 1), ("KB", 1_000)];

const SECONDS: &[Unit] = &[
    ("", 1_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A count: `5000`, `10_000_000`, `10k`, `2.5M`.
pub(super) fn count(text: &str) -> Result<u64, String> {
    number(text, COUNTS, "a number, or one with k, M or G, such as 10M")
}

/// A size in bytes: `4096`, `10MiB`, `1.5GB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    number(text, &[SIZES, &SIZE].concat(), "bytes, or a size such as 64MiB")
}

/// A length of time; a bare number is seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    number(text, SECONDS, "seconds, or a time such as 500ms or 2m").map(Duration::from_nanos)
}

/// Digits with `_` between them, at most one point, then a unit; exact, without floating point.
fn number(text: &str, units: &[Unit], wanted: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not {wanted}");
    let split =
        text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '_' | '.')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let scale = units
        .iter()
        .find(|(name, _)| *name == unit.trim_start())
        .map(|(_, scale)| *scale)
        .ok_or_else(wrong)?;
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, part) = (whole.replace('_', ""), part.replace('_', ""));
    let mut value =
        whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(scale)).ok_or_else(wrong)?;
    let mut worth = scale;
    for digit in part.bytes() {
        worth /= 10;
        value = value.checked_add(u64::from(digit.wrapping_sub(b'0')) * worth).ok_or_else(wrong)?;
    }
    if part.contains('.') { Err(wrong()) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parse: impl Fn(&str) -> Result<u64, String>, text: &str, expected: Option<u64>) {
        assert_eq!(parse(text).ok(), expected, "{text:?}");
    }

    #[test]
    fn counts() {
        for (text, expected) in [
            ("0", Some(0)),
            ("10_000_000", Some(10_000_000)),
            ("10M", Some(10_000_000)),
            ("2.5k", Some(2_500)),
            ("1 G", Some(1_000_000_000)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999G", None),
            ("", None),
            ("M", None),
            ("-1", None),
            ("1.2.3", None),
            ("10MiB", None),
            ("ten", None),
        ] {
            check(count, text, expected);
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("4096", Some(4096)),
            ("10MiB", Some(10 << 20)),
            ("1.5GB", Some(1_500_000_000)),
            ("1 KiB", Some(1024)),
            ("1M", None),
        ] {
            check(bytes, text, expected);
        }
    }

    #[test]
    fn durations() {
        let nanos =
            |text: &str| seconds(text).map(|time| u64::try_from(time.as_nanos()).expect("small"));
        for (text, expected) in [
            ("10", Some(10_000_000_000)),
            ("0.5", Some(500_000_000)),
            ("30s", Some(30_000_000_000)),
            ("250ms", Some(250_000_000)),
            ("2m", Some(120_000_000_000)),
            ("1 h", Some(3_600_000_000_000)),
            ("1d", None),
            ("s", None),
        ] {
            check(nanos, text, expected);
        }
    }

    #[test]
    fn the_error_says_what_is_wanted() {
        assert_eq!(
            seconds("soon").expect_err("no time"),
            "`soon` is not seconds, or a time such as 500ms or 2m"
        );
    }
}
