//! Units of figures with their prefixes, for people: three digits, and the prefix that makes them short. Pure; any thread.

/// A unit: its symbol, and the prefixes that it may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unit {
    symbol: &'static str,
    prefixes: &'static [Prefix],
}

/// A prefix's size in units, and its sign.
type Prefix = (f64, &'static str);

const NONE: &[Prefix] = &[(1.0, "")];
const SMALL: &[Prefix] = &[(1e-9, "n"), (1e-6, "µ"), (1e-3, "m"), (1.0, "")];
const LARGE: &[Prefix] = &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")];
const COUNTED: &[Prefix] = &[(1.0, ""), (1e3, "k "), (1e6, "M "), (1e9, "G "), (1e12, "T ")];
const BINARY: &[Prefix] = &[
    (1.0, ""),
    (1_024.0, "Ki"),
    (1_048_576.0, "Mi"),
    (1_073_741_824.0, "Gi"),
    (1_099_511_627_776.0, "Ti"),
];

impl Unit {
    /// A time in seconds.
    pub(crate) const SECONDS: Unit = Unit { symbol: "s", prefixes: SMALL };

    /// Memory.
    pub(crate) const MEMORY: Unit = Unit { symbol: "B", prefixes: BINARY };

    /// A unit with the prefixes of the SI for large values: `B/s`.
    pub(crate) const fn large(symbol: &'static str) -> Unit {
        Unit { symbol, prefixes: LARGE }
    }

    /// A word with the prefixes of the SI apart from it: `1.2 M records/s`.
    pub(crate) const fn counted(symbol: &'static str) -> Unit {
        Unit { symbol, prefixes: COUNTED }
    }

    /// A unit without prefixes: `%`.
    pub(crate) const fn plain(symbol: &'static str) -> Unit {
        Unit { symbol, prefixes: NONE }
    }

    /// The size and the name of the prefixed unit that makes a value of this size short.
    pub(super) fn prefixed(self, value: f64) -> Prefixed {
        // A value such as 999.6 is shown as the next prefix's 1.00.
        let reached = |prefix: &&Prefix| value.abs() * 1.000_51 >= prefix.0;
        let prefix = self.prefixes.iter().rev().find(reached).unwrap_or(&self.prefixes[0]);
        let whole = self.prefixes.iter().find(|prefix| (prefix.0 - 1.0).abs() < 1e-9);
        let (size, sign) = if value == 0.0 { whole.unwrap_or(prefix) } else { prefix };
        Prefixed { size: *size, name: format!("{sign}{}", self.symbol).trim_end().to_owned() }
    }

    /// A value with three digits, prefix and unit; a dash if it is no number.
    pub(crate) fn shown(self, value: f64) -> String {
        if !value.is_finite() {
            return "–".to_owned();
        }
        let Prefixed { size, name } = self.prefixed(value);
        if number(value / size) == "0" && size < 1.0 {
            return self.shown(0.0);
        }
        let space = if name.is_empty() { "" } else { "\u{a0}" };
        format!("{}{space}{}", number(value / size), name.replace(' ', "\u{a0}"))
    }
}

impl Unit {
    /// The same without zeros after the point: for values that are round, such as a number of connections.
    pub(super) fn shown_round(self, value: f64) -> String {
        let text = self.shown(value).replace(".00", "").replace(".0\u{a0}", "\u{a0}");
        text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
    }
}

/// A unit with its prefix.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prefixed {
    pub(super) size: f64,
    pub(super) name: String,
}

/// A number with three digits that count.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size == 0.0 || size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.995 => 2,
        _ if size >= 0.099_5 => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    let is_zero = text.trim_matches(['-', '0', '.']).is_empty();
    if is_zero { "0".to_owned() } else { text.replacen('-', "−", 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits_and_a_prefix() {
        let check = |unit: Unit, value, expected: &str| {
            assert_eq!(unit.shown(value).replace('\u{a0}', " "), expected, "{value}");
        };
        check(Unit::SECONDS, 0.0, "0 s");
        check(Unit::SECONDS, 0.000_25, "250 µs");
        check(Unit::SECONDS, 0.999_6, "1.00 s");
        check(Unit::SECONDS, -0.001_5, "−1.50 ms");
        check(Unit::SECONDS, 4e-10, "0.400 ns");
        check(Unit::SECONDS, 1_500.0, "1500 s");
        check(Unit::large("B/s"), 412e6, "412 MB/s");
        check(Unit::large("B/s"), 9.5, "9.50 B/s");
        check(Unit::counted("records/s"), 1_234_567.0, "1.23 M records/s");
        check(Unit::counted("records/s"), 12.0, "12.0 records/s");
        check(Unit::MEMORY, 3.0 * 1_048_576.0, "3.00 MiB");
        check(Unit::plain("%"), 0.000_01, "0 %");
        check(Unit::plain(""), 7.0, "7.00");
        let round = |value| Unit::counted("").shown_round(value).replace('\u{a0}', " ");
        assert_eq!([1.0, 10.0, 100.0, 10_000.0].map(round), ["1", "10", "100", "10 k"]);
        check(Unit::SECONDS, f64::NAN, "–");
    }
}
