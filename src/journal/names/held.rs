//! The content of the things of a log, in words; and the names of a start. Runs on the thread that starts the engine; changes
//! nothing.

use super::{Begins, reconcile};
use super::{Inventory, Known, NameChanges, NameKind, Reconciled, Renamed, StateName, Wanted};
use crate::error::Result;
use crate::journal::record::{self, Entry, Plan, decode};
use crate::journal::recovery::{Replayed, sources_of};
use crate::owner::StateId;
use crate::wal::Position;
use crate::wording::count;

/// The questions of the journal to the code that knows states and sinks.
pub(crate) trait Survey {
    /// Counts the content of a state.
    fn count(&self) -> Box<dyn StateCount>;

    /// The content of a direct source's position, in words: its snapshot, and the plans after it, in order. `what` is the kind
    /// of the source, as in [`Known::what`]. `None` if it holds nothing.
    fn position(&self, what: &str, position: SourcePosition<'_>) -> Option<String>;

    /// The files of this state directory that are open in the place of a sink, in words; `None` if there are none.
    fn open_in(&self, place: &str, identity: StateId) -> Option<String>;

    /// The state that a source has for itself, by name: it goes with the source.
    fn state_of(&self, source: &str) -> String;
}

/// The position of a direct source, in its own bytes.
pub(crate) struct SourcePosition<'a> {
    pub(crate) snapshot: Option<&'a [u8]>,
    /// In the order of their batches; none is empty.
    pub(crate) plans: Vec<&'a [u8]>,
}

/// Counts the content of a state while its parts come in, in order.
pub(crate) trait StateCount {
    /// Takes the next part.
    ///
    /// # Errors
    /// If the bytes differ from what was written.
    fn take(&mut self, part: &[u8]) -> std::result::Result<(), String>;

    /// The content in words; `None` if there is nothing.
    fn held(&self) -> Option<String>;
}

/// A program, as a log sees it.
pub(crate) struct Program {
    /// The names that it has.
    pub(crate) names: Inventory<Wanted>,
    /// The user's entries for names that it does not have.
    pub(crate) changes: NameChanges,
    pub(crate) survey: Box<dyn Survey>,
}

/// The names of a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Continued {
    pub(crate) names: Reconciled,
    /// The content of each name that was given up.
    pub(crate) given_up: Vec<Option<String>>,
}

/// Reads a record of the log back.
pub(crate) type ReadRecord<'a> = dyn Fn(Position) -> Result<Vec<u8>> + 'a;

/// Sorts the names of the log, in `directory`, and those of the program.
///
/// # Errors
/// The question that the user must decide first, or the entry to correct.
pub(crate) fn continued(
    replayed: &Replayed,
    read: &ReadRecord<'_>,
    program: &Program,
    directory: &str,
) -> Result<Continued> {
    let mut known = replayed.base.names.clone();
    if replayed.started && replayed.base.run == 0 {
        // Version 1 wrote down neither.
        known.sinks = program.names.sinks.iter().map(adopted).collect();
        known.jobs = program.names.jobs.iter().map(adopted).collect();
    }
    let changes = with_states_of_sources(program);
    let begins = Begins { states: replayed.first_open(), others: replayed.next_index() };
    let held = Held { replayed, read, program, known: &known };
    let mut failed = None;
    let mut holds = |kind, number| match held.of(kind, number) {
        Ok(held) => held,
        Err(err) => {
            failed.get_or_insert(err);
            None
        }
    };
    let sorted = reconcile(&known, &program.names, &changes, begins, &mut holds);
    let mut names = sorted.map_err(|refusal| refusal.into_error(directory))?;
    let retired = names.retired.iter();
    let given_up = retired.map(|(name, number)| match name.kind {
        // The files open in its place are finished, not given up.
        NameKind::Sink => held.batches(held.known_at(name.kind, *number).from),
        kind => holds(kind, *number),
    });
    let given_up = given_up.collect();
    if let Some(err) = failed {
        return Err(err);
    }
    for kind in NameKind::ALL {
        let covered = replayed.base.next_index;
        let known = names.known.of_mut(kind).iter_mut();
        known.for_each(|known| known.earlier.retain(|earlier| earlier.below > covered));
    }
    Ok(Continued { names, given_up })
}

fn adopted(wanted: &Wanted) -> Known {
    let Wanted { name, what, generated } = wanted.clone();
    Known { name, what, generated, ..Known::default() }
}

/// The state that a source has for itself goes the way of the source, unless the user says something else.
fn with_states_of_sources(program: &Program) -> NameChanges {
    let mut changes = program.changes.clone();
    let state =
        |source: &StateName| StateName::new(NameKind::State, program.survey.state_of(&source.name));
    let said = |name: &StateName| {
        let Inventory { states, .. } = &program.names;
        program.changes.retired.contains(name)
            || program.changes.renamed.iter().any(|entry| entry.old == *name || entry.new == *name)
            || states.iter().any(|wanted| wanted.name == name.name)
    };
    for Renamed { new, old } in &program.changes.renamed {
        let both = (state(new), state(old));
        let wanted = program.names.states.iter().any(|wanted| wanted.name == both.0.name);
        if new.kind == NameKind::Source && wanted && !said(&both.1) {
            changes.renamed.push(Renamed { new: both.0, old: both.1 });
        }
    }
    for source in program.changes.retired.iter().filter(|name| name.kind == NameKind::Source) {
        let state = state(source);
        if !said(&state) {
            changes.retired.push(state);
        }
    }
    changes
}

/// Finds the content of things.
struct Held<'a> {
    replayed: &'a Replayed,
    read: &'a ReadRecord<'a>,
    program: &'a Program,
    known: &'a Inventory<Known>,
}

impl Held<'_> {
    fn of(&self, kind: NameKind, number: u32) -> Result<Option<String>> {
        match kind {
            NameKind::Source => Ok(self.source(number)),
            NameKind::State => self.state(number),
            NameKind::Sink => Ok(self.sink(number)),
            NameKind::Job => Ok(self.batches(self.known_at(kind, number).from)),
        }
    }

    fn known_at(&self, kind: NameKind, number: u32) -> &Known {
        &self.known.of(kind)[usize::try_from(number).expect("a place in a list")]
    }

    /// A position, records that were received and given to no batch, and batches that are not committed.
    fn source(&self, number: u32) -> Option<String> {
        let replayed = self.replayed;
        let mut held = Vec::new();
        held.extend(self.position(number));
        let waiting = replayed.unplanned(number);
        if !waiting.is_empty() {
            let records: u64 = waiting.iter().map(|(_, chunk)| chunk.records).sum();
            let records = count(records, "record");
            held.push(format!("{records} that no batch was given"));
        }
        let open: Vec<&Plan> =
            replayed.open().filter(|plan| sources_of(plan).any(|of| of == number)).collect();
        if !open.is_empty() {
            let records: u64 = open.iter().map(|plan| self.records(plan, Some(number))).sum();
            let input = match records {
                0 => "input".to_owned(),
                records => count(records, "record"),
            };
            held.push(format!("{input} of {}", uncommitted(open.len() as u64)));
        }
        (!held.is_empty()).then(|| held.join(", "))
    }

    fn position(&self, number: u32) -> Option<String> {
        let base = &self.replayed.base;
        let plans = self.replayed.plans.range(base.next_index..);
        let position = SourcePosition {
            snapshot: base.ranges.iter().find(|(of, _)| *of == number).map(|(_, it)| it.as_slice()),
            plans: plans.filter_map(|(_, plan)| plan.range_of(number)).collect(),
        };
        if position.snapshot.is_none() && position.plans.is_empty() {
            return None;
        }
        self.program.survey.position(&self.known_at(NameKind::Source, number).what, position)
    }

    /// Records of a plan in the log, of one source or all.
    fn records(&self, plan: &Plan, source: Option<u32>) -> u64 {
        let of = |(number, _): &&(u32, _)| source.is_none_or(|source| source == *number);
        let chunks = plan.blocks.iter().filter(of).flat_map(|(source, blocks)| {
            blocks.iter().flat_map(|block| block.clone()).map(|number| (*source, number))
        });
        chunks.filter_map(|name| self.replayed.chunks.get(&name)).map(|chunk| chunk.records).sum()
    }

    fn state(&self, number: u32) -> Result<Option<String>> {
        let mut count = self.program.survey.count();
        let changed = self.replayed.commits.values().flat_map(|commit| &commit.changed);
        for at in changed {
            let record = (self.read)(*at)?;
            let Entry::Changed(_, bytes) = decode(*at, &record)? else { continue };
            for (_, part) in record::parts(bytes)?.into_iter().filter(|(of, _)| *of == number) {
                if let Err(what) = count.take(part) {
                    // Such a state cannot be restored; it may still be given up.
                    return Ok(Some(format!("keys that cannot be counted ({what})")));
                }
            }
        }
        Ok(count.held())
    }

    fn sink(&self, number: u32) -> Option<String> {
        let known = self.known_at(NameKind::Sink, number);
        if known.what.is_empty() {
            return None;
        }
        let identity = self.replayed.base.identity.unwrap_or_default();
        let open = self.program.survey.open_in(&known.what, identity);
        let held = [open, self.batches(known.from)];
        let held: Vec<String> = held.into_iter().flatten().collect();
        (!held.is_empty()).then(|| held.join(", "))
    }

    /// The batches from this one on that are not committed.
    fn batches(&self, from: u64) -> Option<String> {
        let open: Vec<&Plan> = self.replayed.open().filter(|plan| plan.index >= from).collect();
        let records: u64 = open.iter().map(|plan| self.records(plan, None)).sum();
        let batches = uncommitted(open.len() as u64);
        match (open.is_empty(), records) {
            (true, _) => None,
            (false, 0) => Some(batches),
            (false, records) => Some(format!("{batches}, with {}", count(records, "record"))),
        }
    }
}

fn uncommitted(batches: u64) -> String {
    format!("{} planned and not committed", count(batches, "batch"))
}
