//! The table of all figures as JSON and CSV show it. Names and labels are an interface: scrapers rely on them. A golden file,
//! `tests/golden/metrics.txt`, lists them.

use serde_json::{Map, Value as Json};

use super::look::Look;
use super::row::{Origin, Row, Value};
use super::rows::{RECEIVER, STREAM};
use crate::context::ReceiverStatus;

/// Every row, in the order in which they are shown.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    STREAM.iter().chain(RECEIVER)
}

/// The figures of a status, by name.
pub(super) fn status(look: &Look) -> Map<String, Json> {
    let mut status = Map::new();
    for row in STREAM {
        let Some(name) = row.json() else { continue };
        let shown = match row.from {
            Origin::Starting(_) => look.starting.is_some(),
            Origin::Stream(_) => look.stream.is_some(),
            Origin::Always(_) | Origin::Process(_) => true,
            _ => false,
        };
        if shown {
            // An unknown figure is null, so that a table has all its columns.
            status.insert(name.to_owned(), Json::Null);
            row.each(look, &mut |_, value| drop(status.insert(name.to_owned(), value.json())));
        }
    }
    status
}

/// The figures of a source, by name.
pub(super) fn receiver(receiver: &ReceiverStatus) -> Map<String, Json> {
    let named = RECEIVER.iter().filter_map(|row| Some((row, row.json()?)));
    let value = |row: &Row| row.of_source(receiver).map_or(Json::Null, Value::json);
    named.map(|(row, name)| (name.to_owned(), value(row))).collect()
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write;
    use std::fs;

    use super::*;
    use crate::dashboard::row::{Kind, gauge};
    use crate::dashboard::text::{Format, sample_name, type_name};
    use crate::metrics::ReceiverCounters;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/metrics.txt");

    /// The explanation at the head of the golden file.
    const HEAD: &str = "\
# Every figure: NAME{LABELS} TYPE UNIT, then its name in JSON and CSV, then its help. An interface: a name may come, and may not
# go. After a change: TIDEMILL_UPDATE_GOLDEN=1 cargo test --lib golden, and a line in CHANGELOG.md.\n";

    fn golden() -> String {
        let mut text = HEAD.to_owned();
        for row in rows() {
            let name = if row.name.is_empty() { "-" } else { &sample_name(row) };
            let labels = row.labels.join(",");
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let (kind, unit) =
                (type_name(row.kind, Format::OpenMetrics), row.unit().unwrap_or("-"));
            let (json, help) = (row.json().unwrap_or("-"), row.help);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n{name}{labels} {kind} {unit}\n  json {json}\n  {help}");
        }
        text
    }

    #[test]
    fn golden_file_lists_every_figure() {
        let found = golden();
        if std::env::var_os("TIDEMILL_UPDATE_GOLDEN").is_some() {
            fs::write(GOLDEN, &found).expect("written");
        }
        let known = fs::read_to_string(GOLDEN).unwrap_or_default();
        let differs = known.lines().zip(found.lines()).find(|(known, found)| known != found);
        assert!(
            known == found,
            "the table of figures is not what {GOLDEN} lists, first at {differs:?}; if that is meant: \
             TIDEMILL_UPDATE_GOLDEN=1 cargo test --lib golden, and say it in CHANGELOG.md"
        );
    }

    #[test]
    fn every_counter_of_a_receiver_has_its_row() {
        let known: BTreeSet<&str> =
            ReceiverCounters::default().all().into_iter().map(|(name, _)| name).collect();
        let name = |row: &Row| match row.from {
            Origin::Counter(name) => Some(name),
            _ => None,
        };
        let shown: BTreeSet<&str> = RECEIVER.iter().filter_map(name).collect();
        assert_eq!(shown, known);
    }

    #[test]
    fn names_are_told_apart_and_say_what_they_are() {
        let mut seen = BTreeSet::new();
        for row in rows().filter(|row| !row.name.is_empty()) {
            let name = sample_name(row);
            assert!(seen.insert(name.clone()), "{name} is there twice");
            let letters =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            assert!(name.bytes().all(letters), "{name}");
            let mut words = row.name.split('_');
            let abbreviated =
                |word: &str| ["us", "ms", "ns", "ratio", "counter", "gauge"].contains(&word);
            assert!(row.kind == Kind::Old || !words.any(abbreviated), "{name}");
            assert!(row.kind == Kind::Old || !row.name.ends_with("_total"), "{name}");
            assert!(row.help.ends_with('.') && !row.help.contains('\n'), "{name}: {}", row.help);
        }
        for table in [STREAM, RECEIVER] {
            let mut seen = BTreeSet::new();
            let twice = table.iter().filter_map(Row::json).find(|name| !seen.insert(*name));
            assert_eq!(twice, None);
        }
    }

    #[test]
    fn the_unit_is_what_the_name_ends_with() {
        let check = |name: &'static str, expected| {
            assert_eq!(gauge(name, "", Origin::Counter("")).unit(), expected, "{name}");
        };
        check("tidemill_store_bytes", Some("bytes"));
        check("tidemill_store_bytes_max", None);
        check("tidemill_checkpoint_age_seconds", Some("seconds"));
        check("tidemill_megabytes", None);
        check("bytes", None);
    }
}
