//! The names of sources, states, sinks and jobs, and the user's entries for names that a program no longer has.
//!
//! ```text
//! retired = ["source:old"]                       given up
//! renamed = { "source:new" = "source:old" }      carried over to another name
//! ```
//! Pure: text to values, and their faults beside the program's own names. [`reconcile()`] adds the names in the log.

mod held;
mod reconcile;

use std::fmt;

pub(crate) use held::{
    Continued, Program, ReadRecord, SourcePosition, StateCount, Survey, continued,
};
pub(crate) use reconcile::{Inventory, Known, Reconciled, Wanted};

use reconcile::{Begins, reconcile};

/// The kind of a thing that a state directory knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameKind {
    /// A source, with its position and its records.
    Source,
    /// A keyed state.
    State,
    /// A sink.
    Sink,
    /// A job.
    Job,
}

impl NameKind {
    /// All of them.
    pub const ALL: [NameKind; 4] =
        [NameKind::Source, NameKind::State, NameKind::Sink, NameKind::Job];

    /// The word before the colon.
    pub fn word(self) -> &'static str {
        match self {
            NameKind::Source => "source",
            NameKind::State => "state",
            NameKind::Sink => "sink",
            NameKind::Job => "job",
        }
    }
}

/// A thing that a state directory knows, written as `KIND:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateName {
    /// Its kind.
    pub kind: NameKind,
    /// Its name.
    pub name: String,
}

impl StateName {
    pub(crate) fn new(kind: NameKind, name: impl Into<String>) -> Self {
        StateName { kind, name: name.into() }
    }

    /// Reads `KIND:NAME`. Everything after the first colon is the name.
    ///
    /// # Errors
    /// The fault of the text, for the end of a sentence.
    pub(crate) fn parse(text: &str) -> Result<StateName, String> {
        const HOW: &str = "write `source:NAME`, `state:NAME`, `sink:NAME` or `job:NAME`";
        let Some((word, name)) = text.split_once(':') else {
            return Err(format!("the kind is missing: {HOW}"));
        };
        let Some(kind) = NameKind::ALL.into_iter().find(|kind| kind.word() == word) else {
            return Err(format!("`{word}` is no kind of name: {HOW}"));
        };
        if name.is_empty() {
            return Err(format!("the name is missing: {HOW}"));
        }
        Ok(StateName::new(kind, name))
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), self.name)
    }
}

/// A name that another one takes over from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// The name in the program.
    pub new: StateName,
    /// The name that the state directory knows.
    pub old: StateName,
}

/// The user's entries for names that the program no longer has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameChanges {
    /// The names that are given up.
    pub retired: Vec<StateName>,
    /// The names that are carried over.
    pub renamed: Vec<Renamed>,
}

/// An entry of `retired` or `renamed`, by its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryAt {
    Retired(usize),
    Renamed(usize),
}

/// The fault of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrongEntry {
    pub(crate) at: EntryAt,
    pub(crate) title: String,
    pub(crate) hint: String,
}

impl fmt::Display for WrongEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  = help: {}", self.title, self.hint)
    }
}

impl NameChanges {
    /// The faults of the entries of this kind that do not depend on the state directory. `used` are the program's names of the
    /// kind.
    pub(crate) fn check(&self, kind: NameKind, used: &[&str]) -> Vec<WrongEntry> {
        let mut wrong = Vec::new();
        for (at, entry) in self.retired.iter().enumerate().filter(|(_, entry)| entry.kind == kind) {
            if used.contains(&entry.name.as_str()) {
                let title = format!("`{entry}` is in `retired`, and the pipeline still uses it");
                let hint = format!(
                    "take `\"{entry}\"` out of `retired`; a {} that starts afresh needs another name",
                    kind.word()
                );
                wrong.push(WrongEntry { at: EntryAt::Retired(at), title, hint });
            }
        }
        for (at, Renamed { new, .. }) in self.renamed.iter().enumerate() {
            if new.kind == kind {
                let found = self.check_renamed(at, used);
                wrong.extend(found.map(|(title, hint)| WrongEntry {
                    at: EntryAt::Renamed(at),
                    title,
                    hint,
                }));
            }
        }
        wrong
    }

    /// The title and the hint of the fault of an entry of `renamed`.
    fn check_renamed(&self, at: usize, used: &[&str]) -> Option<(String, String)> {
        let Renamed { new, old } = &self.renamed[at];
        let entry = format!("`\"{new}\" = \"{old}\"`");
        if new.kind != old.kind {
            let title =
                format!("{entry}: a {} cannot become a {}", old.kind.word(), new.kind.word());
            return Some((title, "both names are of one kind".to_owned()));
        }
        if !used.contains(&new.name.as_str()) {
            let title = format!("{entry}: the pipeline has no {} `{}`", new.kind.word(), new.name);
            let hint = "the name in the pipeline comes first: write `\"KIND:NEW\" = \"KIND:OLD\"`";
            return Some((title, hint.to_owned()));
        }
        if used.contains(&old.name.as_str()) {
            let title = format!("{entry}: the pipeline still uses `{old}`");
            let hint = "a name can only be taken over once nothing else has it; swap two names in two starts";
            return Some((title, hint.to_owned()));
        }
        if self.retired.contains(old) {
            let title = format!("{entry}: `{old}` is in `retired` as well");
            return Some((title, "a name is given up or carried over, not both".to_owned()));
        }
        let before = &self.renamed[..at];
        if let Some(other) = before.iter().find(|other| other.old == *old || other.new == *new) {
            let title = format!("{entry}: `\"{}\" = \"{}\"` is there too", other.new, other.old);
            return Some((title, "one name becomes one other name".to_owned()));
        }
        None
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    /// `retired` and `renamed` as in a pipeline file: words, `new=old` for the second.
    pub(super) fn changes(words: &str) -> NameChanges {
        let mut changes = NameChanges::default();
        let name = |text: &str| StateName::parse(text).expect("a good name");
        for word in words.split_whitespace() {
            match word.split_once('=') {
                None => changes.retired.push(name(word)),
                Some((new, old)) => {
                    changes.renamed.push(Renamed { new: name(new), old: name(old) });
                }
            }
        }
        changes
    }

    #[test]
    fn names_are_read_and_written() {
        for text in ["source:old", "state:identity of in", "sink:a:b", "job:save#0"] {
            assert_eq!(StateName::parse(text).expect("good").to_string(), text);
        }
        let wrong = |text: &str| {
            let why = StateName::parse(text).expect_err("refused");
            why.split(": write").next().unwrap_or_default().to_owned()
        };
        assert_eq!(wrong("old"), "the kind is missing");
        assert_eq!(wrong("sources:old"), "`sources` is no kind of name");
        assert_eq!(wrong("source:"), "the name is missing");
        assert_eq!(wrong(":old"), "`` is no kind of name");
    }

    /// The first words of the faults, in a program with the sources `a`, `b` and `c`.
    fn check(words: &str, expected: &[&str]) {
        let changes = changes(words);
        let wrong = NameKind::ALL.into_iter().flat_map(|kind| {
            let used: &[&str] = if kind == NameKind::Source { &["a", "b", "c"] } else { &[] };
            changes.check(kind, used)
        });
        let titles: Vec<String> = wrong.map(|wrong| wrong.title).collect();
        assert_eq!(titles, expected, "{words}");
    }

    #[test]
    fn entries_are_checked_against_the_names_of_the_program() {
        check("", &[]);
        check("source:old state:a sink:x job:y", &[]);
        check("source:a", &["`source:a` is in `retired`, and the pipeline still uses it"]);
        check("source:a=source:old source:b=source:older", &[]);
        check(
            "source:a=state:old",
            &["`\"source:a\" = \"state:old\"`: a state cannot become a source"],
        );
        check(
            "source:d=source:old",
            &["`\"source:d\" = \"source:old\"`: the pipeline has no source `d`"],
        );
        // A name onto itself, two that cross, and a chain.
        check(
            "source:a=source:a",
            &["`\"source:a\" = \"source:a\"`: the pipeline still uses `source:a`"],
        );
        check(
            "source:a=source:b source:b=source:a",
            &[
                "`\"source:a\" = \"source:b\"`: the pipeline still uses `source:b`",
                "`\"source:b\" = \"source:a\"`: the pipeline still uses `source:a`",
            ],
        );
        check(
            "source:a=source:b source:b=source:old",
            &["`\"source:a\" = \"source:b\"`: the pipeline still uses `source:b`"],
        );
        check(
            "source:a=source:d source:d=source:old",
            &["`\"source:d\" = \"source:old\"`: the pipeline has no source `d`"],
        );
        check(
            "source:old source:a=source:old",
            &["`\"source:a\" = \"source:old\"`: `source:old` is in `retired` as well"],
        );
        let twice = "`\"source:b\" = \"source:old\"`: `\"source:a\" = \"source:old\"` is there too";
        check("source:a=source:old source:b=source:old", &[twice]);
        let twice =
            "`\"source:a\" = \"source:older\"`: `\"source:a\" = \"source:old\"` is there too";
        check("source:a=source:old source:a=source:older", &[twice]);
    }
}
