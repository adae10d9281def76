//! `Restore`: brings the states of a program back from the parts that a log kept. Runs on the thread that starts the stream.

use super::{Saved, StateInfo, Walker};
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex};

/// Brings the states back; the first batch may run after [`finish`](Restore::finish).
pub struct Restore {
    states: Vec<(Arc<str>, Arc<dyn Saved>)>,
    /// Which of them each found one is.
    found: Vec<usize>,
    seed: u64,
    walker: Arc<Mutex<Walker>>,
}

impl std::fmt::Debug for Restore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restore").field("states", &self.states.len()).finish_non_exhaustive()
    }
}

impl Restore {
    pub(in crate::dstream) fn begin(
        states: Vec<(StateInfo, Arc<dyn Saved>)>,
        found: &[StateInfo],
        (seed, partitions): (u64, usize),
        walker: &Arc<Mutex<Walker>>,
    ) -> std::result::Result<Self, String> {
        let wanted: Vec<&StateInfo> = states.iter().map(|(info, _)| info).collect();
        expect_same(found, &wanted)?;
        let place = |info: &StateInfo| wanted.iter().position(|other| other.name == info.name);
        let found = found.iter().filter_map(place).collect();
        states.iter().for_each(|(_, saved)| saved.begin_restore(partitions));
        let states = states.into_iter().map(|(info, saved)| (info.name.into(), saved)).collect();
        Ok(Restore { states, found, seed, walker: Arc::clone(walker) })
    }

    /// Takes a part in, of the state with this place among those that were found.
    ///
    /// # Errors
    /// If the bytes are not what was written.
    pub fn apply(&self, state: u32, part: &[u8]) -> Result<()> {
        let found = usize::try_from(state).ok().and_then(|at| self.found.get(at));
        let Some((name, saved)) = found.map(|at| &self.states[*at]) else {
            let what = format!("the saved states are damaged: there is no state number {state}");
            return Err(Error::Failed(what));
        };
        saved
            .apply(part, self.seed)
            .map_err(|what| Error::Failed(format!("state `{name}` cannot be restored: {what}")))
    }

    /// Everything was taken in; returns how many keys are known.
    pub fn finish(self) -> u64 {
        let states: Vec<_> = self.states.into_iter().map(|(_, saved)| saved).collect();
        states.iter().for_each(|saved| saved.end_restore());
        // However often the program is started anew, a walk comes to its end.
        self.walker.lock().begin(&states);
        states.iter().map(|saved| saved.len()).sum()
    }
}

/// The names and types must be the same, in any order.
pub(in crate::dstream) fn expect_same(
    found: &[StateInfo],
    wanted: &[&StateInfo],
) -> std::result::Result<(), String> {
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
