//! The names of the files of an output directory, and their meaning. Pure.
//!
//! ```text
//! JOB-TIME-PART.EXT           a batch               .JOB-FIRST-PART.open      gathers batches
//! JOB-FIRST-LAST-PART.EXT     consecutive batches   .JOB-FIRST-PART.manifest  what of it counts
//! JOB-TIME-PART.ID8.EXT       ID8: the first digits of an identity, where files lie beside those of others
//! .tidemill-IDENTITY.ledger   what of one state directory is committed
//! ```
//! A name alone says what a file claims to be, never whether a batch is committed.

use crate::owner::StateId;

/// The ends of the names of data.
const ENDS: [&str; 3] = ["txt", "json", "csv"];

/// The contents of a file, as its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sink) struct Label {
    /// The job, as it stands in names.
    pub(in crate::sink) job: String,
    /// The times of the first and of the last batch in it, in milliseconds.
    pub(in crate::sink) first: u64,
    pub(in crate::sink) last: u64,
    pub(in crate::sink) part: u32,
    /// The first digits of an identity, if it lies beside files of others.
    pub(in crate::sink) tag: Option<String>,
}

impl Label {
    /// Reads the name of a data file; none if it is no such name.
    pub(in crate::sink) fn of_data(name: &str) -> Option<Label> {
        let stem = ENDS.iter().find_map(|end| name.strip_suffix(end)?.strip_suffix('.'))?;
        if name.starts_with('.') {
            return None;
        }
        let (stem, tag) = without_tag(stem);
        let single = split(stem).map(|(job, [time, part])| (job, time, time, part));
        let rolled = || split(stem).map(|(job, [first, last, part])| (job, first, last, part));
        let (job, first, last, part) = single.or_else(rolled)?;
        let part = u32::try_from(part).ok()?;
        Some(Label { job: job.to_owned(), first, last, part, tag })
    }

    /// Reads the name of a hidden file that ends in this; its last batch is not known from it.
    pub(in crate::sink) fn of_hidden(name: &str, end: &str) -> Option<Label> {
        let stem = name.strip_prefix('.')?.strip_suffix(end)?.strip_suffix('.')?;
        let (stem, tag) = without_tag(stem);
        let (job, [first, part]) = split(stem)?;
        let part = u32::try_from(part).ok()?;
        Some(Label { job: job.to_owned(), first, last: first, part, tag })
    }

    /// The name of a hidden file with this first batch.
    pub(in crate::sink) fn hidden(&self, end: &str) -> String {
        let Label { job, first, part, .. } = self;
        format!(".{job}-{first}-{part}{}.{end}", self.dotted_tag())
    }

    /// The name of the data of one batch.
    pub(in crate::sink) fn single(&self, end: &str) -> String {
        let Label { job, first, part, .. } = self;
        format!("{job}-{first}-{part}{}.{end}", self.dotted_tag())
    }

    /// The name of the data of consecutive batches.
    pub(in crate::sink) fn rolled(&self, end: &str) -> String {
        let Label { job, first, last, part, .. } = self;
        format!("{job}-{first}-{last}-{part}{}.{end}", self.dotted_tag())
    }

    fn dotted_tag(&self) -> String {
        self.tag.as_ref().map_or_else(String::new, |tag| format!(".{tag}"))
    }
}

/// The tag at the end of a stem, eight hexadecimal digits behind a dot, and what stands before it.
fn without_tag(stem: &str) -> (&str, Option<String>) {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    match stem.rsplit_once('.') {
        Some((before, tag)) if tag.len() == 8 && tag.chars().all(is_hex) => {
            (before, Some(tag.to_owned()))
        }
        _ => (stem, None),
    }
}

/// The job and the numbers behind it, if there are `N` and they are as they are written here. A job's part of a name has no
/// digit behind a dash.
fn split<const N: usize>(stem: &str) -> Option<(&str, [u64; N])> {
    let dash =
        stem.as_bytes().windows(2).position(|pair| pair[0] == b'-' && pair[1].is_ascii_digit())?;
    let number = |text: &str| {
        let number: u64 = text.parse().ok()?;
        (number.to_string() == text).then_some(number)
    };
    let numbers: Option<Vec<u64>> = stem[dash + 1..].split('-').map(number).collect();
    Some((&stem[..dash], numbers?.try_into().ok()?))
}

/// A job's name as part of a file's: other bytes than letters, digits, `_`, `-` and inner dots as `%XX`, and a dash
/// before a digit too, so that the numbers behind the job can be told from it.
pub(in crate::sink) fn safe(job: &str) -> String {
    let mut name = String::new();
    for (at, byte) in job.bytes().enumerate() {
        let digit_follows = job.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit);
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => name.push(char::from(byte)),
            b'-' if !digit_follows => name.push('-'),
            b'.' if !name.is_empty() => name.push('.'),
            byte => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

/// The name of the ledger of a state directory.
pub(in crate::sink) fn ledger(identity: StateId) -> String {
    format!(".tidemill-{identity}.ledger")
}

/// Whose ledger has this name.
pub(in crate::sink) fn of_ledger(name: &str) -> Option<StateId> {
    StateId::parse(name.strip_prefix(".tidemill-")?.strip_suffix(".ledger")?)
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn names_of_jobs() {
        for (job, expected) in [
            ("words", "words"),
            ("a/b", "a%2Fb"),
            (".x.y", "%2Ex.y"),
            ("50%", "50%25"),
            ("ü-1", "%C3%BC%2D1"),
            ("", ""),
        ] {
            assert_eq!(safe(job), expected);
        }
    }

    type Said<'a> = (&'a str, u64, u64, u32, Option<&'a str>);

    /// The parts of a name: job, first, last, partition, tag.
    fn check(name: &str, expected: Option<Said<'_>>) {
        let label = |(job, first, last, part, tag): Said<'_>| Label {
            job: job.to_owned(),
            first,
            last,
            part,
            tag: tag.map(str::to_owned),
        };
        let found = Label::of_data(name).or_else(|| Label::of_hidden(name, "open"));
        assert_eq!(found, expected.map(label), "{name}");
        if let Some(label) = found {
            let end = name.rsplit('.').next().expect("an end");
            let names = [label.single(end), label.rolled(end), label.hidden(end)];
            assert!(names.contains(&name.to_owned()), "{names:?} {name}");
        }
    }

    #[test]
    fn names_of_files() {
        check("words-1000-0.txt", Some(("words", 1_000, 1_000, 0, None)));
        check("words-1000-2000-3.json", Some(("words", 1_000, 2_000, 3, None)));
        check("a.b-c-7-0.01abcdef.csv", Some(("a.b-c", 7, 7, 0, Some("01abcdef"))));
        check("w-1-4-0.01abcdef.txt", Some(("w", 1, 4, 0, Some("01abcdef"))));
        check(".w-1-0.open", Some(("w", 1, 1, 0, None)));
        check(".w-1-0.00000000.open", Some(("w", 1, 1, 0, Some("00000000"))));
        for other in [
            "words.txt",
            "words-1000.txt",
            "words-1000-0.log",
            "report-2026-01.txt",
            "words-1000-0.0123456.txt",
            "words-1000-0.ABCDEF01.txt",
            ".words-1000-0.txt",
            ".aside",
            "w-1-0.open",
            "w-1-2-3-4.txt",
            "w-1-99999999999.txt",
        ] {
            check(other, None);
        }
    }

    #[test]
    fn names_of_ledgers() {
        let id = StateId([0x1F; 16]);
        assert_eq!(ledger(id), format!(".tidemill-{}.ledger", "1f".repeat(16)));
        assert_eq!(of_ledger(&ledger(id)), Some(id));
        assert_eq!(of_ledger(".tidemill-12.ledger"), None);
    }
}
