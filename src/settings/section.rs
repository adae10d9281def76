//! Reads one table of a pipeline key by key. A key that was never asked for is unknown, so the reader needs no list of keys.
//!
//! A getter returns `None` if the key is absent or wrong; by then a wrong one is a problem. Main thread; knows no key.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::time::Interval;
use crate::wording::plural;

use super::diagnostics::{At, Problem, Problems};
use super::pattern::Pattern;
use super::suggest;
use super::tree::{Entry, Node, Table, Value};
use super::units::{self, Address, BadQuantity};

/// The longest name of a pipeline, source, job or sink, in bytes: names become parts of file names.
pub const NAME_BYTES_MAX: usize = 64;
/// The most items of a list in a pipeline file.
const LIST_MAX: usize = 1_000;
/// The most sources, jobs or sinks of a pipeline, each.
const NAMED_MAX: usize = 1_000;

/// A family of units in the words of messages.
struct Units {
    /// The quantity that they measure.
    of: &'static str,
    names: &'static str,
    /// A small one and a large one, for hints.
    examples: [&'static str; 2],
}

const TIME_UNITS: Units = Units { of: "time", names: "ms, s, m, h and d", examples: ["ms", "s"] };
const SIZE_UNITS: Units =
    Units { of: "size", names: "B, KiB, MiB, GiB, TiB, kB, MB, GB and TB", examples: ["B", "MiB"] };

/// A value that was read, and its place.
#[derive(Clone, Debug)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) at: At,
}

/// An entry of a table of strings.
#[derive(Clone, Debug)]
pub(crate) struct TextEntry {
    pub(crate) key: Found<String>,
    pub(crate) value: Found<String>,
}

/// A table being read.
pub(crate) struct Section<'a> {
    pub(crate) problems: &'a Problems,
    table: &'a Table,
    /// The place where the table begins.
    pub(crate) at: At,
    /// The table in the words of messages: "a `socket` source".
    what: String,
    /// Its keys in the words of messages: "keys" or "kinds".
    keys: &'static str,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(crate) fn root(table: &'a Table, problems: &'a Problems) -> Self {
        Section::root_of("a pipeline", table, problems)
    }

    /// The root of another kind of file, in the words of messages: "a plan".
    pub(crate) fn root_of(what: &str, table: &'a Table, problems: &'a Problems) -> Self {
        let what = what.to_owned();
        Section { problems, table, at: At::Whole, what, keys: "keys", asked: Vec::new() }
    }

    /// The table of an entry; `what` describes it. A problem if it is none.
    pub(crate) fn of(entry: &'a Entry, what: String, problems: &'a Problems) -> Option<Self> {
        let Value::Table(table) = &entry.node.value else {
            let title = format!("`{}` must be a table, not {}", entry.key, entry.node.value.kind());
            problems.add(Problem::new(&entry.node.at, title));
            return None;
        };
        let at = entry.key_at.clone();
        Some(Section { problems, table, at, what, keys: "keys", asked: Vec::new() })
    }

    /// Its keys are kinds, in the words of messages.
    pub(crate) fn of_kinds(mut self) -> Self {
        self.keys = "kinds";
        self
    }

    /// The table under `key`; `what` describes it.
    pub(crate) fn table(&mut self, key: &'static str, what: &str) -> Option<Section<'a>> {
        let entry = self.ask(key)?;
        Section::of(entry, what.to_owned(), self.problems)
    }

    /// The tables under `key`, by name, in order: sources, jobs or sinks. An entry that is no table has a name all the same.
    pub(crate) fn named(&mut self, key: &'static str) -> Vec<(&'a Entry, Option<Section<'a>>)> {
        let Some(entry) = self.ask(key) else { return Vec::new() };
        let Some(holder) = Section::of(entry, String::new(), self.problems) else {
            return Vec::new();
        };
        if holder.table.0.len() > NAMED_MAX {
            let title = format!("{} has at most {NAMED_MAX} of `{key}`", self.what);
            self.problems.add(Problem::new(&entry.key_at, title));
            return Vec::new();
        }
        let read = |entry: &'a Entry| {
            if let Err(why) = check_name(&entry.key) {
                let title = format!("{:?} is no name for a {key}: {why}", entry.key);
                self.problems.add(Problem::new(&entry.key_at, title));
            }
            let what = format!("{key} `{}`", entry.key);
            (entry, Section::of(entry, what, self.problems))
        };
        holder.table.0.iter().map(read).collect()
    }

    /// The table in the words of messages: "a `socket` source".
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// True if no entry is in the table.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.0.is_empty()
    }

    /// The place of the value of `key`, or else the place where the table begins.
    pub(crate) fn at_of(&self, key: &str) -> At {
        self.table.get(key).map_or_else(|| self.at.clone(), |entry| entry.node.at.clone())
    }

    /// True if the key is given at all, good or not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// The place of the key itself, or else the place where the table begins.
    pub(crate) fn key_at(&self, key: &str) -> At {
        self.table.get(key).map_or_else(|| self.at.clone(), |entry| entry.key_at.clone())
    }

    /// Makes every key that was not asked for a problem; true if there is one.
    pub(crate) fn finish(self) -> bool {
        let mut any = false;
        let unknown = self.table.0.iter().filter(|entry| !self.asked.contains(&entry.key.as_str()));
        for entry in unknown.take_while(|_| !self.problems.is_full()) {
            let one = self.keys.trim_end_matches('s');
            let title = format!("unknown {one} `{}` of {}", entry.key, self.what);
            let hint = suggest::hint(&entry.key, self.keys, &self.asked);
            self.problems.add(Problem::new(&entry.key_at, title).hint(hint));
            any = true;
        }
        any
    }

    fn ask(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.asked.push(key);
        let entry = self.table.get(key)?;
        if matches!(entry.node.value, Value::Bad) {
            return None;
        }
        Some(entry)
    }

    fn wrong(&self, key: &str, node: &Node, wanted: &str) -> Problem {
        let title = format!("`{key}` must be {wanted}, not {}", node.value.kind());
        Problem::new(&node.at, title)
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Option<Found<String>> {
        let node = &self.ask(key)?.node;
        match &node.value {
            Value::Text(text) => Some(Found { value: text.clone(), at: node.at.clone() }),
            _ => {
                self.problems.add(self.wrong(key, node, "a string"));
                None
            }
        }
    }

    /// A path; an empty one is a problem.
    pub(crate) fn path(&mut self, key: &'static str) -> Option<std::path::PathBuf> {
        let found = self.text(key)?;
        if found.value.is_empty() {
            self.problems.add(Problem::new(&found.at, format!("`{key}` is empty")));
            return None;
        }
        Some(found.value.into())
    }

    pub(crate) fn truth(&mut self, key: &'static str) -> Option<bool> {
        let node = &self.ask(key)?.node;
        match &node.value {
            Value::Boolean(truth) => Some(*truth),
            _ => {
                let problem = self.wrong(key, node, "`true` or `false`");
                self.problems.add(problem);
                None
            }
        }
    }

    /// A whole number in a range.
    pub(crate) fn number<T>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<Found<T>>
    where
        T: TryFrom<i128> + PartialOrd + std::fmt::Display,
    {
        let node = &self.ask(key)?.node;
        let Value::Integer(number) = &node.value else {
            self.problems.add(self.wrong(key, node, "a whole number"));
            return None;
        };
        match T::try_from(*number).ok().filter(|number| range.contains(number)) {
            Some(value) => Some(Found { value, at: node.at.clone() }),
            None => {
                let title = format!("`{key}` must be {} to {}", range.start(), range.end());
                self.problems.add(Problem::new(&node.at, title).label("out of range"));
                None
            }
        }
    }

    /// A duration; zero is fine.
    pub(crate) fn duration(&mut self, key: &'static str) -> Option<Found<Duration>> {
        self.quantity(key, units::duration, &TIME_UNITS)
    }

    /// A duration of at least a millisecond.
    pub(crate) fn interval(&mut self, key: &'static str) -> Option<Found<Interval>> {
        let found = self.duration(key)?;
        let millis = u64::try_from(found.value.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            let problem = Problem::new(&found.at, format!("`{key}` must be at least 1ms"));
            self.problems.add(problem);
            return None;
        }
        Some(Found { value: Interval::millis(millis), at: found.at })
    }

    /// A size in bytes.
    pub(crate) fn bytes(&mut self, key: &'static str) -> Option<Found<u64>> {
        self.quantity(key, units::bytes, &SIZE_UNITS)
    }

    fn quantity<T>(
        &mut self,
        key: &'static str,
        read: fn(&str) -> Result<T, BadQuantity>,
        units: &Units,
    ) -> Option<Found<T>> {
        let node = &self.ask(key)?.node;
        let Units { of, names: units, examples: [small, large] } = units;
        let hint = |number: &str| {
            format!(
                "units of {of} are {units}: write `\"{number}{small}\"` or `\"{number}{large}\"`"
            )
        };
        let problem = match &node.value {
            Value::Text(text) => match read(text) {
                Ok(value) => return Some(Found { value, at: node.at.clone() }),
                Err(BadQuantity::NoUnit) => {
                    let title = format!("`{key}` needs a unit of {of}");
                    Problem::new(&node.at, title).label("no unit").hint(hint(text.trim()))
                }
                Err(BadQuantity::NoNumber) => {
                    let title = format!("`{key}` must be a whole number with a unit of {of}");
                    Problem::new(&node.at, title).label("no number").hint(hint("1"))
                }
                Err(BadQuantity::UnknownUnit(unit)) => {
                    let title = format!("unknown unit of {of} `{unit}`");
                    Problem::new(&node.at, title).hint(format!("units of {of} are {units}"))
                }
                Err(BadQuantity::TooLarge) => {
                    Problem::new(&node.at, format!("`{key}` is too large"))
                }
            },
            Value::Integer(number) => {
                let title = format!("`{key}` needs a unit of {of}");
                let number = number.unsigned_abs().to_string();
                Problem::new(&node.at, title).label("a bare number").hint(hint(&number))
            }
            _ => self.wrong(key, node, &format!("a string with a unit of {of}")).hint(hint("1")),
        };
        self.problems.add(problem);
        None
    }

    /// One of a list of names; `kind` says of what.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        kind: &str,
        choices: &[(&'static str, T)],
    ) -> Option<Found<T>> {
        let found = self.text(key)?;
        let chosen = choices.iter().find(|(name, _)| *name == found.value);
        if chosen.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let hint = suggest::hint(&found.value, &plural(kind), &names);
            let title = format!("unknown {kind} `{}`", found.value);
            self.problems.add(Problem::new(&found.at, title).hint(hint));
        }
        chosen.map(|(_, value)| Found { value: *value, at: found.at })
    }

    /// A list of numbers or strings, not empty, each of which `read` takes as the command line takes it. One of them alone
    /// is a list, too.
    pub(crate) fn typed<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let node = &self.ask(key)?.node;
        let items = match &node.value {
            Value::Array(items) => &items[..],
            _ => std::slice::from_ref(node),
        };
        if items.is_empty() || items.len() > LIST_MAX {
            let title = format!("`{key}` must have 1 to {LIST_MAX} items, not {}", items.len());
            self.problems.add(Problem::new(&node.at, title));
            return None;
        }
        let one = |item: &Node| {
            let taken = match &item.value {
                Value::Text(text) => read(text),
                Value::Integer(number) => read(&number.to_string()),
                Value::Bad => return None,
                _ => {
                    self.problems.add(self.wrong(key, item, "a list of numbers or strings"));
                    return None;
                }
            };
            taken.map_err(|why| self.problems.add(Problem::new(&item.at, why))).ok()
        };
        let taken: Vec<T> = items.iter().filter_map(one).collect();
        (taken.len() == items.len()).then_some(taken)
    }

    /// A list of strings, not empty, none twice.
    pub(crate) fn texts(&mut self, key: &'static str) -> Option<Vec<Found<String>>> {
        let texts = self.texts_or_none(key)?;
        if let Some(entry) = self.table.get(key)
            && matches!(&entry.node.value, Value::Array(items) if items.is_empty())
        {
            self.problems.add(Problem::new(&entry.node.at, format!("`{key}` is empty")));
            return None;
        }
        Some(texts)
    }

    /// A list of strings, none twice.
    pub(crate) fn texts_or_none(&mut self, key: &'static str) -> Option<Vec<Found<String>>> {
        let node = &self.ask(key)?.node;
        let Value::Array(items) = &node.value else {
            let problem = self.wrong(key, node, "a list of strings");
            self.problems.add(match &node.value {
                Value::Text(text) => problem.hint(format!("write `[{text:?}]`")),
                _ => problem,
            });
            return None;
        };
        if items.len() > LIST_MAX {
            let title = format!("`{key}` has more than {LIST_MAX} items");
            self.problems.add(Problem::new(&node.at, title));
            return None;
        }
        let mut texts: Vec<Found<String>> = Vec::new();
        for item in items {
            match &item.value {
                Value::Text(text) if texts.iter().any(|found| found.value == *text) => {
                    self.problems
                        .add(Problem::new(&item.at, format!("`{text}` is in `{key}` twice")));
                }
                Value::Text(text) => texts.push(Found { value: text.clone(), at: item.at.clone() }),
                Value::Bad => {}
                _ => self.problems.add(self.wrong(key, item, "a list of strings")),
            }
        }
        Some(texts)
    }

    /// A table of strings, each with its key, in order.
    pub(crate) fn text_table(&mut self, key: &'static str) -> Vec<TextEntry> {
        let Some(entry) = self.ask(key) else { return Vec::new() };
        let Value::Table(table) = &entry.node.value else {
            self.problems.add(self.wrong(key, &entry.node, "a table of strings"));
            return Vec::new();
        };
        if table.0.len() > LIST_MAX {
            let title = format!("`{key}` has more than {LIST_MAX} entries");
            self.problems.add(Problem::new(&entry.node.at, title));
            return Vec::new();
        }
        let mut texts = Vec::new();
        for entry in &table.0 {
            let at = entry.node.at.clone();
            match &entry.node.value {
                Value::Text(text) => texts.push(TextEntry {
                    key: Found { value: entry.key.clone(), at: entry.key_at.clone() },
                    value: Found { value: text.clone(), at },
                }),
                Value::Bad => {}
                other => {
                    let title = format!(
                        "`{}` of `{key}` must be a string, not {}",
                        entry.key,
                        other.kind()
                    );
                    self.problems.add(Problem::new(&at, title));
                }
            }
        }
        texts
    }

    /// A regular expression over bytes.
    pub(crate) fn pattern(&mut self, key: &'static str) -> Option<Found<Pattern>> {
        let found = self.text(key)?;
        match Pattern::new(&found.value) {
            Ok(value) => Some(Found { value, at: found.at }),
            Err(why) => {
                let title = format!("`{key}` is not a regular expression");
                self.problems.add(Problem::new(&found.at, title).label(why));
                None
            }
        }
    }

    /// An address to dial or listen on, `HOST:PORT`.
    pub(crate) fn address(&mut self, key: &'static str) -> Option<Found<Address>> {
        let found = self.text(key)?;
        let value = address(key, &found, self.problems)?;
        Some(Found { value, at: found.at })
    }
}

/// The address in a string that was read.
pub(crate) fn address(key: &str, found: &Found<String>, problems: &Problems) -> Option<Address> {
    match Address::parse(&found.value) {
        Ok(address) => Some(address),
        Err(why) => {
            let problem = Problem::new(&found.at, format!("`{key}` takes HOST:PORT")).label(why);
            problems.add(problem);
            None
        }
    }
}

/// Returns the reason if no pipeline, source, job or sink can have this name.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("it is empty".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("it is longer than {NAME_BYTES_MAX} bytes"));
    }
    match name.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
        Some(odd) => Err(format!("{odd:?} is not a letter, a digit, `-` or `_`")),
        None => Ok(()),
    }
}
