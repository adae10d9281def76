//! What a start would find in a directory, without a start; and the ways out where a start is refused.
//!
//! It runs the code of a start: the same checkpoint, the same examination of the log, the same replay, the same questions to
//! the program. So it comes to the same verdict. A look changes nothing.

use super::recovery::{Reach, Replayed};
use super::words::Words;
use super::{Base, JournalOptions, LogOf, missing_checkpoint, resume};
use crate::checkpoint::{self, Checkpoint, Damaged};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::wal::storage::Storage;
use crate::wal::{self, GivenUp, Known, Place, Position, Survey, survey_with};

/// What a directory holds, as a start would find it.
pub(crate) struct Look {
    /// What the log holds.
    pub(crate) log: Survey,
    /// What its records mean, line by line.
    pub(crate) words: String,
    /// The checkpoints, oldest first, each with what is wrong with it.
    pub(crate) checkpoints: Vec<(u64, Result<Checkpoint, String>)>,
    /// Checkpoints newer than the one that a start uses, which are damaged or missing.
    pub(crate) damaged: Vec<Damaged>,
    /// The states that the log or a checkpoint names.
    pub(crate) states: Vec<String>,
    /// Why a start would be refused, as it would say it.
    pub(crate) refusal: Option<String>,
    known: Known,
}

impl Look {
    /// What accepting the loss would give up; none if nothing is lost, or nothing can be given up.
    pub(crate) fn would_give_up(&self, storage: &dyn Storage) -> Option<GivenUp> {
        let is_refused =
            self.refusal.is_some() && self.refusal == self.log.refusals.first().cloned();
        is_refused.then(|| wal::would_give_up(storage, self.known, None).ok()).flatten()
    }
}

/// Looks at a directory as a start of `program` does; without one, as a start of the program that wrote it. `looked` hears
/// how many of how many segments were looked at.
///
/// # Errors
/// If the directory or a file cannot be read; damage is part of the look.
pub(crate) fn look(
    storage: &dyn Storage,
    program: Option<&JournalOptions>,
    looked: &mut dyn FnMut(usize, usize),
) -> Result<Look> {
    let loaded = checkpoint::load(storage)?;
    let mut refusal = None;
    let known = Known { newest_file: loaded.newest_file, ..Known::from(1) };
    let base = Base::of(loaded).unwrap_or_else(|err| {
        refusal = Some(err.to_string());
        Base { snapshot: None, operators: Vec::new(), known, damaged: Vec::new() }
    });
    let Base { snapshot, operators, known, mut damaged } = base;
    let (mut replayed, mut words) = (Replayed::new(snapshot), Words::default());
    let mut unknown = None;
    let mut visit = |at: Position, bytes: &[u8]| {
        words.take(at, bytes);
        if unknown.is_none() {
            unknown = replayed.take(at, bytes).err().map(|err| err.to_string());
        }
        Ok(())
    };
    let log = survey_with(storage, known, &mut visit, looked)?;
    damaged.extend(missing_checkpoint(log.checkpoint, known));
    let states = &replayed.base.names.states;
    let states = states.iter().filter(|state| !state.retired).map(|state| state.name.clone());
    let states = states.collect();
    refusal = refusal.or_else(|| log.refusals.first().cloned()).or(unknown);
    if refusal.is_none() {
        let resumed = match program {
            Some(program) => {
                let (read, directory) = (|at| wal::read(storage, at), storage.name());
                let log = LogOf { directory: &directory, read: &read };
                resume(&mut replayed, program, log, operators).map(drop)
            }
            None => resume_own(&mut replayed),
        };
        refusal = resumed.err().map(|err| err.to_string());
    }
    let (words, checkpoints) = (words.text(), checkpoint::survey(storage)?);
    Ok(Look { log, words, checkpoints, damaged, states, refusal, known })
}

/// Goes on as the program that wrote the directory would, as far as it can be told from what it wrote.
fn resume_own(replayed: &mut Replayed) -> Result<()> {
    let names = &replayed.base.names;
    let reach = Reach { stateless: names.states.is_empty(), ..Reach::default() };
    let sources: Vec<u32> =
        (0..).zip(&names.sources).filter(|(_, known)| !known.retired).map(|(at, _)| at).collect();
    replayed.finish(reach);
    replayed.resume(reach, &sources).map(drop)
}

/// What was given up.
pub(crate) struct Accepted {
    pub(crate) given_up: GivenUp,
    /// The states that the program keeps, and that may lack something now.
    pub(crate) states: Vec<String>,
}

/// Gives up what a start would miss, or what lies behind `at`; none if nothing is missing. The storage must be locked by the
/// caller.
///
/// # Errors
/// If nothing can be given up there, something else is wrong, or the files cannot be changed.
pub(crate) fn give_up(storage: &Arc<dyn Storage>, at: Option<Place>) -> Result<Option<Accepted>> {
    // A checkpoint that this program does not know says what is needed, and nobody here can read it.
    Base::of(checkpoint::load(storage.as_ref())?)?;
    let Look { log, states, refusal, known, .. } = look(storage.as_ref(), None, &mut |_, _| ())?;
    match refusal {
        None if at.is_none() => return Ok(None),
        Some(other) if log.refusals.is_empty() && at.is_none() => return Err(Error::Failed(other)),
        _ => {}
    }
    if wal::would_give_up(storage.as_ref(), known, at)?.checkpoints {
        // First: a log without what they cover is refused until the list says otherwise.
        checkpoint::remove_all(storage.as_ref())?;
    }
    let given_up = wal::give_up(storage, known, at)?;
    Ok(Some(Accepted { given_up, states }))
}
