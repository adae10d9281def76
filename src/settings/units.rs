//! Counts, sizes and durations with their units, addresses, and `${VAR}`: text in, values out, and back. A pipeline file
//! takes whole numbers with a unit; a command line also takes bare numbers and fractions. Pure; any thread.

use std::fmt;
use std::time::Duration;

/// The longest duration that is accepted: longer ones are slips, and schedules stay far from overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A unit's name and its size in the smallest unit.
type Unit = (&'static str, u64);

/// Units of time, in milliseconds.
const TIME: &[Unit] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Units of size, in bytes.
const SIZE: [Unit; 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Units of a count.
const COUNTS: &[Unit] =
    &[("", 1), ("k", 1_000), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];

/// Sizes that only a command line takes, beside those of a pipeline file.
const TYPED_SIZES: &[Unit] = &[("", 1), ("KB", 1_000)];

/// Units of time on a command line, in nanoseconds.
const TYPED_TIMES: &[Unit] = &[
    ("", 1_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The source of variables: the value of one, if it is set. The process's own, or a test's.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The reason why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadQuantity {
    /// It does not begin with a whole number.
    NoNumber,
    /// A number without a unit.
    NoUnit,
    /// The unit is not known.
    UnknownUnit(String),
    /// More than the largest that is accepted.
    TooLarge,
}

/// A duration such as `200ms`, `1s`, `5m`, `2h` or `1d`, at most [`DURATION_MAX`].
///
/// # Errors
/// If it is no whole number with a unit of time.
pub fn duration(text: &str) -> Result<Duration, BadQuantity> {
    let duration = Duration::from_millis(quantity(text, TIME)?);
    if duration > DURATION_MAX { Err(BadQuantity::TooLarge) } else { Ok(duration) }
}

/// A size such as `64KiB`, `8MiB` or `1GB`, in bytes.
///
/// # Errors
/// If it is no whole number with a unit of size.
pub fn bytes(text: &str) -> Result<u64, BadQuantity> {
    quantity(text, &SIZE)
}

fn quantity(text: &str, units: &[Unit]) -> Result<u64, BadQuantity> {
    scaled(text.trim(), units, Fractions::Refused)
}

/// A count on the command line: `5000`, `10_000_000`, `10k`, `2.5M`.
pub(crate) fn typed_count(text: &str) -> Result<u64, String> {
    typed(text, COUNTS, "a number, or one with k, M or G, such as 10M")
}

/// A size in bytes on the command line: `4096`, `10MiB`, `1.5GB`.
pub(crate) fn typed_bytes(text: &str) -> Result<u64, String> {
    typed(text, &[TYPED_SIZES, &SIZE].concat(), "bytes, or a size such as 64MiB")
}

/// A length of time on the command line; a bare number is seconds.
pub(crate) fn typed_seconds(text: &str) -> Result<Duration, String> {
    typed(text, TYPED_TIMES, "seconds, or a time such as 500ms or 2m").map(Duration::from_nanos)
}

fn typed(text: &str, units: &[Unit], wanted: &str) -> Result<u64, String> {
    scaled(text, units, Fractions::Exact).map_err(|_| format!("`{text}` is not {wanted}"))
}

/// The use of a decimal point: a pipeline file has none.
#[derive(Clone, Copy, PartialEq)]
enum Fractions {
    Refused,
    /// Digits below the smallest unit are cut off.
    Exact,
}

/// Digits with `_` between them, at most one point where one is allowed, then a unit; exact, without floating point.
fn scaled(text: &str, units: &[Unit], fractions: Fractions) -> Result<u64, BadQuantity> {
    let digit =
        |c: char| c.is_ascii_digit() || c == '_' || (c == '.' && fractions == Fractions::Exact);
    let end = text.find(|c| !digit(c)).unwrap_or(text.len());
    let (digits, unit) = (text[..end].replace('_', ""), text[end..].trim_start());
    let (whole, part) = digits.split_once('.').unwrap_or((&digits, ""));
    if whole.is_empty() || part.contains('.') {
        return Err(BadQuantity::NoNumber);
    }
    let known = units.iter().find(|(name, _)| *name == unit).ok_or_else(|| match unit {
        "" => BadQuantity::NoUnit,
        unknown => BadQuantity::UnknownUnit(unknown.to_owned()),
    });
    let scale = known?.1;
    let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(scale));
    let (mut value, mut worth) = (whole.ok_or(BadQuantity::TooLarge)?, scale);
    for digit in part.bytes() {
        worth /= 10;
        let more = u64::from(digit.wrapping_sub(b'0')) * worth;
        value = value.checked_add(more).ok_or(BadQuantity::TooLarge)?;
    }
    Ok(value)
}

/// A number for arithmetic with rates, or one that is shown with a few digits.
#[expect(clippy::cast_precision_loss, reason = "a rate or a count far below 2^52")]
pub fn as_f64(value: u64) -> f64 {
    value as f64
}

/// A size in the largest unit that keeps it whole, `64MiB`.
pub fn show_bytes(bytes: u64) -> String {
    let binary = SIZE[..5].iter().rev();
    let whole = binary.into_iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size));
    let (unit, size) = whole.unwrap_or(&SIZE[0]);
    format!("{}{unit}", bytes / size)
}

/// An address to dial or to listen on: a host name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A host name or an IP address; an IPv6 address without its brackets.
    pub host: String,
    /// The port; 0 only to listen on one that the operating system picks.
    pub port: u16,
}

impl Address {
    /// Reads `HOST:PORT`; an IPv6 host stands in brackets.
    ///
    /// # Errors
    /// The mistake, in a few words.
    pub fn parse(text: &str) -> Result<Address, &'static str> {
        let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
        let port = port.parse().map_err(|_| "the port is not a number up to 65535")?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err("an IPv6 address stands in brackets");
        }
        let host = bare.unwrap_or(host);
        let odd =
            |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '[' | ']' | '@');
        if host.is_empty() {
            return Err("the host is missing");
        }
        if host.contains(odd) {
            return Err("this is no host name");
        }
        Ok(Address { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The reason why the variables of a text cannot be put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadVariable {
    /// It is not set and has no default.
    Missing(String),
    /// `${` without its `}`, or a name that no variable can have.
    Malformed,
}

/// Puts in `${VAR}` and `${VAR:-default}` (also taken when the variable is empty, as in a shell). `$${` is `${` itself.
pub(crate) fn expand(text: &str, env: &Env<'_>) -> Result<String, BadVariable> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let (inside, after) = from[2..].split_once('}').ok_or(BadVariable::Malformed)?;
        out.push_str(&variable(inside, env)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(inside: &str, env: &Env<'_>) -> Result<String, BadVariable> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let good = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if name.is_empty() || !good || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(BadVariable::Malformed);
    }
    match (env(name), default) {
        (Some(value), _) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (Some(empty), None) => Ok(empty),
        (None, None) => Err(BadVariable::Missing(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_duration(text: &str, millis: Result<u64, BadQuantity>) {
        assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn durations() {
        check_duration("200ms", Ok(200));
        check_duration("1s", Ok(1_000));
        check_duration(" 5 m ", Ok(300_000));
        check_duration("2h", Ok(7_200_000));
        check_duration("1d", Ok(86_400_000));
        check_duration("0ms", Ok(0));
        check_duration("1_000ms", Ok(1_000));
        check_duration("", Err(BadQuantity::NoNumber));
        check_duration("s", Err(BadQuantity::NoNumber));
        check_duration("-1s", Err(BadQuantity::NoNumber));
        check_duration("200", Err(BadQuantity::NoUnit));
        check_duration("1.5s", Err(BadQuantity::UnknownUnit(".5s".to_owned())));
        check_duration("1sec", Err(BadQuantity::UnknownUnit("sec".to_owned())));
        check_duration("367d", Err(BadQuantity::TooLarge));
        check_duration("99999999999999999999s", Err(BadQuantity::TooLarge));
        check_duration("18446744073709551615d", Err(BadQuantity::TooLarge));
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("0B"), Ok(0));
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("1MB"), Ok(1_000_000));
        assert_eq!(bytes("64"), Err(BadQuantity::NoUnit));
        assert_eq!(bytes("64mb"), Err(BadQuantity::UnknownUnit("mb".to_owned())));
        assert_eq!(bytes("99999999TiB"), Err(BadQuantity::TooLarge));
    }

    fn check_typed(parse: impl Fn(&str) -> Result<u64, String>, text: &str, expected: Option<u64>) {
        assert_eq!(parse(text).ok(), expected, "{text:?}");
    }

    #[test]
    fn typed_counts() {
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
            (".5", None),
            ("5.", Some(5)),
            ("10MiB", None),
            ("ten", None),
        ] {
            check_typed(typed_count, text, expected);
        }
    }

    #[test]
    fn typed_sizes() {
        for (text, expected) in [
            ("4096", Some(4096)),
            ("10MiB", Some(10 << 20)),
            ("1.5GB", Some(1_500_000_000)),
            ("1 KiB", Some(1024)),
            ("1M", None),
        ] {
            check_typed(typed_bytes, text, expected);
        }
    }

    #[test]
    fn typed_durations() {
        let nanos = |text: &str| {
            typed_seconds(text).map(|time| u64::try_from(time.as_nanos()).expect("small"))
        };
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
            check_typed(nanos, text, expected);
        }
    }

    #[test]
    fn the_error_says_what_is_wanted() {
        assert_eq!(
            typed_seconds("soon").expect_err("no time"),
            "`soon` is not seconds, or a time such as 500ms or 2m"
        );
    }

    fn check_address(text: &str, expected: Result<(&str, u16), &str>) {
        let found = Address::parse(text);
        let found = found.as_ref().map(|a| (a.host.as_str(), a.port)).map_err(|why| *why);
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn addresses() {
        check_address("127.0.0.1:9999", Ok(("127.0.0.1", 9999)));
        check_address("data.example:0", Ok(("data.example", 0)));
        check_address("[::1]:80", Ok(("::1", 80)));
        check_address("::1:80", Err("an IPv6 address stands in brackets"));
        check_address("host", Err("the port is missing"));
        check_address(":80", Err("the host is missing"));
        check_address("host:70000", Err("the port is not a number up to 65535"));
        check_address("tcp://host:1", Err("an IPv6 address stands in brackets"));
        check_address("a b:1", Err("this is no host name"));
    }

    fn check_expand(text: &str, expected: Result<&str, BadVariable>) {
        let env = |name: &str| match name {
            "PORT" => Some("9999".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        assert_eq!(expand(text, &env), expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn variables() {
        check_expand("", Ok(""));
        check_expand("a$b$", Ok("a$b$"));
        check_expand("h:${PORT}", Ok("h:9999"));
        check_expand("${PORT}${PORT}", Ok("99999999"));
        check_expand("${NONE:-x:-y}z", Ok("x:-yz"));
        check_expand("${PORT:-1}", Ok("9999"));
        check_expand("${EMPTY:-1}", Ok("1"));
        check_expand("[${EMPTY}]", Ok("[]"));
        check_expand("$${PORT}", Ok("${PORT}"));
        check_expand("${NONE}", Err(BadVariable::Missing("NONE".to_owned())));
        check_expand("${PORT", Err(BadVariable::Malformed));
        check_expand("${}", Err(BadVariable::Malformed));
        check_expand("${1A}", Err(BadVariable::Malformed));
        check_expand("${a b}", Err(BadVariable::Malformed));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*|[0-9$:{}a-z.\\[\\]-]*") {
            let _ = (duration(&text), bytes(&text), Address::parse(&text).is_ok());
            let _ = (typed_count(&text), typed_bytes(&text), typed_seconds(&text));
            let _ = expand(&text, &|_| Some("v".to_owned()));
        }

        #[test]
        fn what_is_shown_is_read_again(size in 0u64..) {
            prop_assert_eq!(bytes(&show_bytes(size)), Ok(size));
        }
    }
}
