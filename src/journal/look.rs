//! Examines a directory as a start would, without a start; and the ways out of a refused start. Runs on the main thread.
//!
//! It runs the code of a start: the same checkpoint, the same examination of the log, the same replay, the same questions to
//! the program. So it comes to the same verdict. A look changes nothing.

use super::describe::Words;
use super::recovery::{Reach, Replayed};
use super::{
    Base, Found, JournalOptions, LogOf, NameKind, StateName, identity_of, missing_checkpoint,
    resume,
};
use crate::error::{Error, Result};
use crate::owner::StateId;
use crate::storage::Storage;
use crate::sync::Arc;
use crate::wal::checkpoint_file::{self, Checkpoint, Damaged};
use crate::wal::{self, GivenUp, Known, Place, Position, Survey, survey_with};

/// The content of a directory, as a start would find it.
pub(crate) struct Look {
    /// The content of the log.
    pub(crate) log: Survey,
    /// The meaning of its records, line by line.
    pub(crate) words: String,
    /// The checkpoints, oldest first, or the fault of each.
    pub(crate) checkpoints: Vec<(u64, Result<Checkpoint, String>)>,
    /// Checkpoints newer than the one that a start uses, which are damaged or missing.
    pub(crate) damaged: Vec<Damaged>,
    /// The owner of the state; `None` if no start is known.
    pub(crate) about: Option<About>,
    /// The error of a start, if it would be refused.
    pub(crate) refusal: Option<Error>,
    /// The recovery result for the given program; `None` if it is refused.
    pub(crate) found: Option<Found>,
    known: Known,
}

/// The owner of the state in a directory, as far as its newest checkpoint and its log tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) pipeline: String,
    pub(crate) identity: StateId,
    /// The number of the last start; 0 if starts were not counted yet.
    pub(crate) run: u64,
    /// The names that it knows, each with its kind; without those that were given up.
    pub(crate) names: Vec<(StateName, String)>,
}

impl About {
    fn of(replayed: &Replayed) -> Option<About> {
        let base = &replayed.base;
        let of_kind = |kind: NameKind| {
            let known = base.names.of(kind).iter().filter(|known| !known.retired);
            known.map(move |known| (StateName::new(kind, &known.name), known.what.clone()))
        };
        replayed.started.then(|| About {
            pipeline: base.pipeline.clone(),
            identity: identity_of(base),
            run: base.run,
            names: NameKind::ALL.into_iter().flat_map(of_kind).collect(),
        })
    }

    /// The names of the states.
    fn states(self) -> Vec<String> {
        let states = self.names.into_iter().filter(|(name, _)| name.kind == NameKind::State);
        states.map(|(name, _)| name.name).collect()
    }
}

impl Look {
    /// The loss if it is accepted; `None` if nothing is lost, or nothing can be given up.
    pub(crate) fn would_give_up(&self, storage: &dyn Storage) -> Option<GivenUp> {
        let refusal = self.refusal.as_ref().map(Error::to_string);
        let is_refused = refusal.is_some() && refusal.as_ref() == self.log.refusals.first();
        is_refused.then(|| wal::would_give_up(storage, self.known, None).ok()).flatten()
    }
}

/// Looks at a directory as a start of `program` does; without one, as a start of the program that wrote it. Calls `looked`
/// with the number of segments done, and of all.
///
/// # Errors
/// If the directory or a file cannot be read; damage is part of the look.
pub(crate) fn look(
    storage: &dyn Storage,
    program: Option<&JournalOptions>,
    looked: &mut dyn FnMut(usize, usize),
) -> Result<Look> {
    let loaded = checkpoint_file::load(storage)?;
    let mut refusal = None;
    let known = Known { newest_file: loaded.newest_file, ..Known::from(1) };
    let base = Base::of(loaded).unwrap_or_else(|err| {
        refusal = Some(err);
        Base { snapshot: None, operators: Vec::new(), known, damaged: Vec::new() }
    });
    let Base { snapshot, operators, known, mut damaged } = base;
    let (mut replayed, mut words) = (Replayed::new(snapshot), Words::default());
    let mut unknown = None;
    let mut visit = |at: Position, bytes: &[u8]| {
        words.take(at, bytes);
        if unknown.is_none() {
            unknown = replayed.take(at, bytes).err();
        }
        Ok(())
    };
    let log = survey_with(storage, known, &mut visit, looked)?;
    damaged.extend(missing_checkpoint(log.checkpoint, known));
    let about = About::of(&replayed);
    let of_log = || log.refusals.first().cloned().map(Error::Failed);
    refusal = refusal.or_else(of_log).or(unknown);
    let mut found = None;
    if refusal.is_none() {
        let resumed = match program {
            Some(program) => {
                let (read, directory) = (|at| wal::read(storage, at), storage.name());
                let log = LogOf { directory: &directory, read: &read };
                resume(&mut replayed, program, log, operators).map(|it| Some(it.found))
            }
            None => resume_own(&mut replayed).map(|()| None),
        };
        match resumed {
            Ok(resumed) => found = resumed,
            Err(err) => refusal = Some(err),
        }
    }
    let (words, checkpoints) = (words.text(), checkpoint_file::survey(storage)?);
    Ok(Look { log, words, checkpoints, damaged, about, refusal, found, known })
}

/// Resumes as the program that wrote the directory would, as far as its records tell.
fn resume_own(replayed: &mut Replayed) -> Result<()> {
    let names = &replayed.base.names;
    let reach = Reach { stateless: names.states.is_empty(), ..Reach::default() };
    let sources: Vec<u32> =
        (0..).zip(&names.sources).filter(|(_, known)| !known.retired).map(|(at, _)| at).collect();
    replayed.finish(reach);
    replayed.resume(reach, &sources).map(drop)
}

/// The loss that was accepted.
pub(crate) struct Accepted {
    pub(crate) given_up: GivenUp,
    /// The states of the program that may lack changes now.
    pub(crate) states: Vec<String>,
}

/// Gives up what a start would miss, or what lies after `at`; returns `None` if nothing is missing. The caller holds the lock
/// of the storage.
///
/// # Errors
/// If nothing can be given up there, something else is wrong, or the files cannot be changed.
pub(crate) fn give_up(storage: &Arc<dyn Storage>, at: Option<Place>) -> Result<Option<Accepted>> {
    // A checkpoint of a later version says what is needed, and this program cannot read it.
    Base::of(checkpoint_file::load(storage.as_ref())?)?;
    let Look { log, about, refusal, known, .. } = look(storage.as_ref(), None, &mut |_, _| ())?;
    match refusal {
        None if at.is_none() => return Ok(None),
        Some(other) if log.refusals.is_empty() && at.is_none() => return Err(other),
        _ => {}
    }
    if wal::would_give_up(storage.as_ref(), known, at)?.checkpoints {
        // First: a log without the records that they cover is refused until the list says otherwise.
        checkpoint_file::remove_all(storage.as_ref())?;
    }
    let given_up = wal::give_up(storage, known, at)?;
    let states = about.map(About::states).unwrap_or_default();
    Ok(Some(Accepted { given_up, states }))
}
