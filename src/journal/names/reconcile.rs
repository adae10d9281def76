//! `reconcile`: compares the names in the log, those of the program, and the user's entries.
//!
//! ```text
//! in the log ─┬─ in the program ─────────────▶ carried: keeps its number
//!             ├─ renamed to one of those ────▶ carried, under the new name
//!             ├─ retired ────────────────────▶ dropped; its number is never used again
//!             ├─ holds nothing ──────────────▶ stays as it is
//!             └─ holds something ────────────▶ refused: what it holds, and the line to write
//! in the program only ───────────────────────▶ new: a number of its own, from the next batch on
//! ```
//! Pure. It does not know how the log finds the content of a thing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EntryAt, NameChanges, NameKind, Renamed, StateName, WrongEntry};
use crate::error::Error;

/// A thing that the log knows. Its place in its list is its number in the log, for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) name: String,
    /// The kind of a source, the types of a state, the place of a sink. Empty if nobody knows.
    pub(crate) what: String,
    /// Its name is its place in the program, because it has no name of its own.
    pub(crate) generated: bool,
    /// The first batch that it is part of.
    pub(crate) from: u64,
    /// It was given up.
    pub(crate) retired: bool,
    /// Its earlier names, the oldest first.
    pub(crate) earlier: Vec<Earlier>,
}

/// An earlier name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Earlier {
    pub(crate) name: String,
    /// The first batch that was planned under the name that followed.
    pub(crate) below: u64,
}

/// A thing of the program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// As [`Known::what`].
    pub(crate) what: String,
    /// It has no name of its own.
    pub(crate) generated: bool,
}

/// The things that the log knows, or the program has, of every kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inventory<T> {
    pub(crate) sources: Vec<T>,
    pub(crate) states: Vec<T>,
    pub(crate) sinks: Vec<T>,
    pub(crate) jobs: Vec<T>,
}

impl<T> Inventory<T> {
    pub(crate) fn of(&self, kind: NameKind) -> &[T] {
        match kind {
            NameKind::Source => &self.sources,
            NameKind::State => &self.states,
            NameKind::Sink => &self.sinks,
            NameKind::Job => &self.jobs,
        }
    }

    pub(crate) fn of_mut(&mut self, kind: NameKind) -> &mut Vec<T> {
        match kind {
            NameKind::Source => &mut self.sources,
            NameKind::State => &mut self.states,
            NameKind::Sink => &mut self.sinks,
            NameKind::Job => &mut self.jobs,
        }
    }
}

/// The names of a start, and the changes since the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reconciled {
    /// The things that the log knows from now on.
    pub(crate) known: Inventory<Known>,
    /// The number in the log of each thing of the program.
    pub(crate) numbers: Inventory<u32>,
    /// Things of the program that the log did not know.
    pub(crate) new: Vec<StateName>,
    /// Things that were given up now, with their numbers.
    pub(crate) retired: Vec<(StateName, u32)>,
    /// Things that have another name from now on.
    pub(crate) renamed: Vec<Renamed>,
}

/// The reasons why a program is not started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Entries of `retired` and `renamed` that are wrong.
    pub(crate) wrong: Vec<WrongEntry>,
    /// Things that the program does not name, and their content.
    pub(crate) missing: Vec<(StateName, String)>,
    /// Names that stand for another thing now.
    pub(crate) changed: Vec<String>,
    /// Things known by their places, when the places have changed.
    pub(crate) moved: Vec<String>,
    /// Things of the program that the log does not know.
    pub(crate) new: Vec<StateName>,
}

/// The first batch of new things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begins {
    /// Of a state: the first that this program runs; it may have been planned before.
    pub(crate) states: u64,
    /// Of anything else: the next that is planned.
    pub(crate) others: u64,
}

/// Sorts every name; see the module. `holds` returns the content of a thing of the log that would be lost with it; it is only
/// called for things that the program does not continue.
///
/// # Errors
/// The question that the user must decide first, or the entry to correct.
pub(crate) fn reconcile(
    known: &Inventory<Known>,
    program: &Inventory<Wanted>,
    changes: &NameChanges,
    begins: Begins,
    holds: &mut dyn FnMut(NameKind, u32) -> Option<String>,
) -> Result<Reconciled, Refusal> {
    let (mut result, mut refusal) = (Reconciled::default(), Refusal::default());
    result.known = known.clone();
    for kind in NameKind::ALL {
        let mut pass = Pass {
            kind,
            program: program.of(kind),
            changes,
            begins,
            holds,
            live: live(known.of(kind)),
            known: result.known.of_mut(kind),
            numbers: Vec::new(),
            new: Vec::new(),
            retired: Vec::new(),
            renamed: Vec::new(),
            refusal: &mut refusal,
        };
        pass.run();
        let Pass { numbers, new, retired, renamed, .. } = pass;
        *result.numbers.of_mut(kind) = numbers;
        result.new.extend(new);
        result.retired.extend(retired);
        result.renamed.extend(renamed);
    }
    refusal.new.clone_from(&result.new);
    if refusal.is_empty() { Ok(result) } else { Err(refusal) }
}

/// The things that are not retired, by name.
fn live(known: &[Known]) -> BTreeMap<String, u32> {
    let live = (0..).zip(known).filter(|(_, known)| !known.retired);
    live.map(|(number, known)| (known.name.clone(), number)).collect()
}

/// One kind's turn.
struct Pass<'a> {
    kind: NameKind,
    program: &'a [Wanted],
    changes: &'a NameChanges,
    begins: Begins,
    holds: &'a mut dyn FnMut(NameKind, u32) -> Option<String>,
    /// Things that the log knows and nothing has claimed yet, by name.
    live: BTreeMap<String, u32>,
    known: &'a mut Vec<Known>,
    numbers: Vec<u32>,
    new: Vec<StateName>,
    retired: Vec<(StateName, u32)>,
    renamed: Vec<Renamed>,
    refusal: &'a mut Refusal,
}

impl Pass<'_> {
    fn run(&mut self) {
        let used: Vec<&str> = self.program.iter().map(|wanted| wanted.name.as_str()).collect();
        let wrong = self.changes.check(self.kind, &used);
        if !wrong.is_empty() {
            return self.refusal.wrong.extend(wrong);
        }
        self.rename();
        self.retire();
        let places: Vec<String> = self.generated().map(|known| known.name.clone()).collect();
        self.check_places(&places);
        for wanted in self.program {
            let number = self.number_of(wanted);
            self.numbers.push(number);
        }
        let places_left = self.program.iter().any(|wanted| wanted.generated);
        for (name, number) in std::mem::take(&mut self.live) {
            let Some(held) = (self.holds)(self.kind, number) else {
                // Another one of that name starts afresh.
                self.at(number).retired = self.kind == NameKind::State;
                continue;
            };
            let known = self.at(number).clone();
            if known.generated && places_left {
                self.refusal.moved.push(format!(
                    "{} `{name}` has no name of its own, it is found by its place in the program: another one may be \
                     the one that was taken out",
                    self.kind.word()
                ));
            }
            let held = match known.what.is_empty() || self.kind != NameKind::State {
                true => held,
                false => format!("{held} ({})", known.what),
            };
            self.refusal.missing.push((StateName::new(self.kind, name), held));
        }
    }

    fn at(&mut self, number: u32) -> &mut Known {
        let at = usize::try_from(number).expect("a place in a list");
        &mut self.known[at]
    }

    /// Gives carried-over things their new names; skips a name that is gone already.
    fn rename(&mut self) {
        for (at, Renamed { new, old }) in self.changes.renamed.iter().enumerate() {
            if new.kind != self.kind {
                continue;
            }
            let Some(number) = self.live.get(&old.name).copied() else { continue };
            if let Some(other) = self.live.get(&new.name).copied() {
                if let Some(held) = (self.holds)(self.kind, other) {
                    let title = format!(
                        "`\"{new}\" = \"{old}\"`: the state directory knows `{new}` as well, with {held}"
                    );
                    let hint = format!(
                        "give up one of both: take the entry out and write `retired = [\"{old}\"]`, or give the {} \
                         another name and write `retired = [\"{new}\"]` too",
                        self.kind.word()
                    );
                    self.refusal.wrong.push(WrongEntry { at: EntryAt::Renamed(at), title, hint });
                    continue;
                }
                self.at(other).retired = true;
            }
            self.live.remove(&old.name);
            self.live.insert(new.name.clone(), number);
            let below = self.begins.others;
            let known = self.at(number);
            known.earlier.push(Earlier { name: old.name.clone(), below });
            known.name.clone_from(&new.name);
            known.generated = false;
            self.renamed.push(Renamed { new: new.clone(), old: old.clone() });
        }
    }

    fn retire(&mut self) {
        let (changes, kind) = (self.changes, self.kind);
        for entry in changes.retired.iter().filter(|entry| entry.kind == kind) {
            if let Some(number) = self.live.remove(&entry.name) {
                self.at(number).retired = true;
                self.retired.push((entry.clone(), number));
            }
        }
    }

    /// Things that the log knows by their places only.
    fn generated(&self) -> impl Iterator<Item = &Known> {
        self.known.iter().filter(|known| known.generated && !known.retired)
    }

    /// Things without names are found by their places: these must be the same.
    fn check_places(&mut self, places: &[String]) {
        let new = |wanted: &&Wanted| wanted.generated && !places.contains(&wanted.name);
        let Some(new) = self.program.iter().find(new) else { return };
        let held = places.iter().find(|name| {
            let number = self.live.get(*name);
            number.is_some_and(|number| (self.holds)(self.kind, *number).is_some())
        });
        if let Some(place) = held {
            let kind = self.kind.word();
            self.refusal.moved.push(format!(
                "{kind} `{}` is new, and the state directory knows `{place}`: a {kind} without a name of its own is \
                 found by its place in the program, and the places have changed",
                new.name
            ));
        }
    }

    /// The number of a thing of the program: the one it had, or a new one.
    fn number_of(&mut self, wanted: &Wanted) -> u32 {
        let Some(number) = self.live.remove(&wanted.name) else { return self.add(wanted) };
        let (kind, known) = (self.kind, self.at(number));
        let found = known.what.clone();
        let differs = !found.is_empty() && !wanted.what.is_empty() && found != wanted.what;
        // A sink may write to another place; the files in the old one are its own affair.
        if differs && kind != NameKind::Sink {
            let held = (self.holds)(kind, number);
            if let Some(held) = held {
                self.refusal.changed.push(changed(kind, wanted, &found, &held));
            }
        }
        let known = self.at(number);
        known.what.clone_from(&wanted.what);
        known.generated = wanted.generated;
        number
    }

    fn add(&mut self, wanted: &Wanted) -> u32 {
        let Wanted { name, what, generated } = wanted.clone();
        let from = match self.kind {
            NameKind::State => self.begins.states,
            _ => self.begins.others,
        };
        self.new.push(StateName::new(self.kind, name.clone()));
        self.known.push(Known { name, what, generated, from, ..Known::default() });
        u32::try_from(self.known.len() - 1).expect("fewer names than 2^32")
    }
}

fn changed(kind: NameKind, wanted: &Wanted, found: &str, held: &str) -> String {
    let (word, name, wants) = (kind.word(), &wanted.name, &wanted.what);
    format!(
        "{word} `{name}` was found with {found}, and the program wants {wants}; it holds {held}: give the {word} of this \
         program another name, and write `retired = [\"{word}:{name}\"]`"
    )
}

impl Refusal {
    fn is_empty(&self) -> bool {
        self.wrong.is_empty()
            && self.missing.is_empty()
            && self.changed.is_empty()
            && self.moved.is_empty()
    }

    /// The error of the start: an entry that is wrong is a mistake in the pipeline file, anything else is a question.
    /// `directory` holds the log.
    pub(crate) fn into_error(self, directory: &str) -> Error {
        if !self.wrong.is_empty() {
            let texts: Vec<String> = self.wrong.iter().map(ToString::to_string).collect();
            return Error::Config(texts.join("\n\n"));
        }
        let mut lines = Vec::new();
        if !self.missing.is_empty() {
            lines.push(format!("{directory} holds what this pipeline does not name:"));
            for (StateName { kind, name }, held) in &self.missing {
                lines.push(format!("  {} `{name}`: {held}", kind.word()));
            }
            lines.push(
                "say what becomes of it, in the pipeline file, by `--set`, or with `Config::retire` and \
                 `Config::rename`:"
                    .to_owned(),
            );
            let missing = self.missing.iter().map(|(name, _)| format!("\"{name}\""));
            let all = missing.collect::<Vec<_>>().join(", ");
            lines.push(format!("  retired = [{all}]    to give it up"));
            let pairs: Vec<String> = self.missing.iter().map(|(old, _)| self.pair(old)).collect();
            lines.push(format!("  renamed = {{ {} }}    to carry it over", pairs.join(", ")));
        }
        if !self.changed.is_empty() {
            lines.push(format!("{directory} holds something else under the same name:"));
            lines.extend(self.changed.iter().map(|line| format!("  {line}")));
        }
        if !self.moved.is_empty() {
            lines.extend(self.moved);
            lines.push(
                "give each of them a name (`.named(\"NAME\")`), and say with `renamed` which was which".to_owned(),
            );
        }
        Error::Failed(lines.join("\n"))
    }

    /// The entry that carries a name over: to the only new one of its kind, if there is only one.
    fn pair(&self, old: &StateName) -> String {
        let mut new = self.new.iter().filter(|new| new.kind == old.kind);
        match (new.next(), new.next()) {
            (Some(new), None) => format!("\"{new}\" = \"{old}\""),
            _ => format!("\"{}:NEW\" = \"{old}\"", old.kind.word()),
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests;
