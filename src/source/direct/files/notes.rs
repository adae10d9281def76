//! Notes on single files for the operator: each is reported once, and many of one kind together. Pure.

use std::collections::{HashMap, HashSet};

use super::listing::Entry;

/// Files of one kind that are named; of more, one is named and the others counted.
const NAMED_MAX: usize = 3;

/// A note on a file for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) name: Vec<u8>,
    pub(super) why: String,
    /// Number of other files to which it applies.
    pub(super) others: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Notes that were reported, by name.
    said: HashMap<Vec<u8>, Vec<String>>,
    fresh: Vec<Note>,
}

impl Notes {
    /// True if a note on the name was reported: then its passing over need not be explained again.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        self.said.contains_key(name)
    }

    /// Notes a fact that lasts, once.
    pub(super) fn once(&mut self, name: &[u8], why: impl Into<String>) {
        let (why, said) = (why.into(), self.said.entry(name.to_vec()).or_default());
        if !said.contains(&why) {
            said.push(why.clone());
            self.fresh.push(Note { name: name.to_vec(), why, others: 0 });
        }
    }

    /// Notes an event.
    pub(super) fn event(&mut self, name: &[u8], why: impl Into<String>) {
        self.fresh.push(Note { name: name.to_vec(), why: why.into(), others: 0 });
    }

    /// Takes the notes that are new since the last time, and forgets those on names that are gone.
    pub(super) fn take(&mut self, entries: &[Entry]) -> Vec<Note> {
        if !self.said.is_empty() {
            let names: HashSet<&[u8]> = entries.iter().map(|entry| entry.name.as_slice()).collect();
            self.said.retain(|name, _| names.contains(name.as_slice()));
        }
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for note in &self.fresh {
            *counts.entry(&note.why).or_default() += 1;
        }
        let many: HashMap<String, usize> = counts
            .into_iter()
            .filter(|(_, count)| *count > NAMED_MAX)
            .map(|(why, count)| (why.to_owned(), count))
            .collect();
        let mut told = HashSet::new();
        let mut notes = std::mem::take(&mut self.fresh);
        notes.retain_mut(|note| match many.get(&note.why) {
            None => true,
            Some(count) => {
                note.others = count - 1;
                told.insert(note.why.clone())
            }
        });
        notes
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::source::direct::files::listing::What;

    fn entries(names: &[&str]) -> Vec<Entry> {
        let entry = |name: &&str| Entry {
            name: name.as_bytes().to_vec(),
            is_link: false,
            what: What::Other,
        };
        names.iter().map(entry).collect()
    }

    #[test]
    fn what_stays_is_said_once_and_what_happens_each_time() {
        let mut notes = Notes::default();
        let mut round = |names: &[&str]| {
            notes.once(b"a", "x");
            notes.once(b"a", "y");
            notes.event(b"a", "z");
            let fresh = notes.take(&entries(names));
            fresh.into_iter().map(|note| note.why).collect::<String>()
        };
        assert_eq!(round(&["a"]), "xyz");
        assert_eq!(round(&["a", "b"]), "z");
        assert_eq!(round(&["b"]), "z");
        assert_eq!(round(&["a"]), "xyz", "it came back");
    }

    #[test]
    fn many_of_a_kind_are_said_together() {
        let mut notes = Notes::default();
        for name in ["a", "b", "c"] {
            notes.once(name.as_bytes(), "few");
        }
        for number in 0..40 {
            notes.once(format!("{number:02}").as_bytes(), "many");
        }
        let fresh = notes.take(&entries(&[]));
        let found: Vec<_> = fresh.iter().map(|note| (&note.name[..], note.others)).collect();
        assert_eq!(found, [(&b"a"[..], 0), (&b"b"[..], 0), (&b"c"[..], 0), (&b"00"[..], 39)]);
    }
}
