//! `Restore`: brings the states of a program back from the parts that a log kept. Runs on the thread that starts the stream.

use super::changelog::{Changelog, StateInfo};
use super::compaction::Compactor;
use crate::error::{Error, Result};
use crate::stream::Graph;
use crate::sync::{Arc, Mutex};

/// Brings the states back; the first batch may run after [`finish`](Restore::finish).
pub struct Restore {
    states: Vec<(Arc<str>, Arc<dyn Changelog>)>,
    /// The place among `states` of each state of the log; none for one that the program does not continue.
    found: Vec<Option<usize>>,
    seed: u64,
    compactor: Arc<Mutex<Compactor>>,
}

impl std::fmt::Debug for Restore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restore").field("states", &self.states.len()).finish_non_exhaustive()
    }
}

impl Restore {
    /// `found` has the place of each state of the log among the program's states. The program's other states keep their
    /// initial states.
    fn begin(graph: &Graph, found: Vec<Option<usize>>, partitions: usize) -> Self {
        let states = graph.changelogs();
        for state in found.iter().flatten() {
            states[*state].1.begin_restore(partitions);
        }
        let states =
            states.into_iter().map(|(info, changelog)| (info.name.into(), changelog)).collect();
        Restore { states, found, seed: graph.seed(), compactor: Arc::clone(&graph.compactor) }
    }

    /// Takes a part in, of the state with this place among those of the log. One that the program does not continue
    /// is skipped.
    ///
    /// # Errors
    /// If the bytes are not what was written.
    pub fn apply(&self, state: u32, part: &[u8]) -> Result<()> {
        let found = usize::try_from(state).ok().and_then(|at| self.found.get(at));
        let Some(found) = found else {
            let what = format!("the saved states are damaged: there is no state number {state}");
            return Err(Error::Failed(what));
        };
        let Some((name, changelog)) = found.map(|at| &self.states[at]) else { return Ok(()) };
        changelog
            .apply(part, self.seed)
            .map_err(|what| Error::Failed(format!("state `{name}` cannot be restored: {what}")))
    }

    /// Ends the restore; returns the number of known keys.
    pub fn finish(self) -> u64 {
        for state in self.found.iter().flatten() {
            self.states[*state].1.end_restore();
        }
        let states: Vec<_> = self.states.into_iter().map(|(_, changelog)| changelog).collect();
        // However often the program is started anew, a compaction comes to its end.
        self.compactor.lock().begin(&states);
        states.iter().map(|state| state.len()).sum()
    }
}

impl Graph {
    /// Brings states back before the first batch. `found` are the [states](Graph::states) of the program that saved
    /// them, `partitions` those of the batches to come.
    ///
    /// # Errors
    /// If the program's states are not those; the text lists the found and the wanted ones.
    pub fn restore(&self, found: &[StateInfo], partitions: usize) -> Result<Restore> {
        self.check_states(found)?;
        let states = self.states();
        let place = |info: &StateInfo| states.iter().position(|other| other.name == info.name);
        Ok(self.restore_those(found.iter().map(place).collect(), partitions))
    }

    /// Brings back those states that a log has: `found` has the place of each among the program's [states](Graph::states),
    /// none for one that the program does not continue. The others begin with their initial states.
    pub(crate) fn restore_those(&self, found: Vec<Option<usize>>, partitions: usize) -> Restore {
        Restore::begin(self, found, partitions)
    }

    /// Sets the number of the first batch of each of the program's [states](Graph::states): earlier batches that run again
    /// are not for it.
    pub(crate) fn states_begin(&self, first: &[u64]) {
        for ((_, changelog), first) in self.changelogs().into_iter().zip(first) {
            changelog.begins_with(*first);
        }
    }

    /// Checks that the program's states are those that a program before it saved.
    ///
    /// # Errors
    /// As [`restore`](Graph::restore).
    pub fn check_states(&self, found: &[StateInfo]) -> Result<()> {
        expect_same(found, &self.states().iter().collect::<Vec<_>>()).map_err(Error::Failed)
    }
}

/// The names and types must be the same, in any order.
fn expect_same(found: &[StateInfo], wanted: &[&StateInfo]) -> std::result::Result<(), String> {
    let mut lines = Vec::new();
    for info in found {
        match wanted.iter().find(|other| other.name == info.name) {
            None => lines.push(format!(
                "state `{}` ({}) was found, the program has none of that name",
                info.name, info.holds
            )),
            Some(other) if other.holds != info.holds => lines.push(format!(
                "state `{}` was found with {}, the program wants {}",
                info.name, info.holds, other.holds
            )),
            Some(_) => {}
        }
    }
    for info in wanted.iter().filter(|info| found.iter().all(|other| other.name != info.name)) {
        lines.push(format!(
            "the program wants state `{}` ({}), which was not found",
            info.name, info.holds
        ));
    }
    if lines.is_empty() {
        return Ok(());
    }
    let names = |names: Vec<&str>| match names.is_empty() {
        true => "none".to_owned(),
        false => format!("`{}`", names.join("`, `")),
    };
    lines.push(format!(
        "found: {}; wanted: {}",
        names(found.iter().map(|info| info.name.as_str()).collect()),
        names(wanted.iter().map(|info| info.name.as_str()).collect())
    ));
    Err(format!("the program does not continue what was saved:\n{}", lines.join("\n")))
}
