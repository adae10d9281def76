//! Reads a peer's `Accept` header: which text format it asks for. Pure.

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The format of Prometheus before OpenMetrics, version 0.0.4.
    Classic,
}

impl Format {
    /// The `Content-Type` of an answer in this format.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Its media type, in two parts, and the versions by which a peer may ask for it.
    fn names(self) -> (&'static str, &'static str, &'static [&'static str]) {
        match self {
            // Our text is also valid under the draft of OpenMetrics, which older scrapers ask for.
            Format::OpenMetrics => ("application", "openmetrics-text", &["1.0.0", "0.0.1"]),
            Format::Classic => ("text", "plain", &["0.0.4"]),
        }
    }

    /// The format for a peer with this `Accept` header: the one that it prefers. If it prefers neither, the one that it
    /// names, then OpenMetrics. A peer that accepts neither gets OpenMetrics too.
    pub(super) fn wanted(accept: &str) -> Format {
        match Liked::of(Format::Classic, accept) > Liked::of(Format::OpenMetrics, accept) {
            true => Format::Classic,
            false => Format::OpenMetrics,
        }
    }
}

/// A peer's preference for a format: its quality in thousandths, then how exactly the peer named it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Liked {
    quality: u16,
    named: u8,
}

impl Liked {
    /// The most exact range that covers the format decides; of several equally exact ones, the one with the highest
    /// quality.
    fn of(format: Format, accept: &str) -> Liked {
        let ranges = accept.split(',').filter_map(|range| liked(format, range));
        let best = ranges.max_by_key(|liked| (liked.named, liked.quality));
        best.filter(|liked| liked.quality > 0).unwrap_or_default()
    }
}

/// The preference that a media range gives a format; `None` if the range does not cover it or is malformed.
fn liked(format: Format, range: &str) -> Option<Liked> {
    let (kind, name, versions) = format.names();
    let mut parts = range.split(';').map(str::trim);
    let (range_kind, range_name) = parts.next()?.split_once('/')?;
    let is = |given: &str, name: &str| given.trim().eq_ignore_ascii_case(name);
    let named = match (range_kind, range_name) {
        ("*", "*") => 0,
        (given, "*") if is(given, kind) => 1,
        (given, other) if is(given, kind) && is(other, name) => 2,
        _ => return None,
    };
    let mut quality = 1_000;
    for parameter in parts {
        let Some((key, value)) = parameter.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        if is(key, "q") {
            quality = thousandths(value)?;
        } else if is(key, "version") && !versions.contains(&value) {
            return None;
        }
    }
    Some(Liked { quality, named })
}

/// A quality of `Accept`: 0 to 1 with at most three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    let part: u16 = format!("{decimals:0<3}").parse().ok().filter(|_| digits)?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_format_follows_the_header() {
        let check = |accept: &str, expected: Format| {
            assert_eq!(Format::wanted(accept), expected, "{accept:?}");
        };
        use Format::{Classic, OpenMetrics};
        check("", OpenMetrics);
        check("*/*", OpenMetrics);
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", OpenMetrics);
        check("application/json", OpenMetrics);
        check("text/plain", Classic);
        check("TEXT/Plain; charset=utf-8", Classic);
        check("text/*", Classic);
        check("text/plain;version=0.0.4", Classic);
        check("text/plain;version=1.0.0", OpenMetrics);
        check("text/plain;version=\"0.0.4\"", Classic);
        check("application/openmetrics-text", OpenMetrics);
        check("text/plain, application/openmetrics-text", OpenMetrics);
        check("text/plain, */*", Classic);
        check("text/plain;q=0.5, */*", OpenMetrics);
        check("text/plain;q=0", OpenMetrics);
        check("*/*, text/plain;q=0", OpenMetrics);
        check("*/*, application/openmetrics-text;q=0", Classic);
        check("application/openmetrics-text;q=0.3, text/plain;q=0.7", Classic);
        check("application/openmetrics-text;q=0.7, text/plain;q=0.300", OpenMetrics);
        check("text/plain;q=2", OpenMetrics);
        check("text/plain;q=0.1234", OpenMetrics);
        check("text/plain;q=", OpenMetrics);
        check("text/plain , application/openmetrics-text ; q = 0.9", Classic);
        // The headers of Prometheus 2 and 3, and of vmagent.
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        check(prometheus_2, OpenMetrics);
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            application/openmetrics-text;version=0.0.1;q=0.4,\
                            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        check(prometheus_3, OpenMetrics);
        check("text/plain;version=0.0.4;q=1,*/*;q=0.1", Classic);
    }

    #[test]
    fn qualities() {
        let check = |text: &str, expected| assert_eq!(thousandths(text), expected, "{text:?}");
        check("0", Some(0));
        check("1", Some(1_000));
        check("1.000", Some(1_000));
        check("0.", Some(0));
        check("0.5", Some(500));
        check("0.05", Some(50));
        check("0.001", Some(1));
        for bad in ["", ".5", "1.001", "2", "-0", "0.0001", "0.5.5", "0.x", "+1"] {
            check(bad, None);
        }
    }

    proptest! {
        /// No header causes a panic.
        #[test]
        fn any_header(accept in "\\PC{0,60}|[a-z*/;=,.q0-9 \"]{0,60}") {
            let _ = Format::wanted(&accept);
        }
    }
}
