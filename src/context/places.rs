//! The places that a start writes to beside its outputs, and the addresses that its sources listen on. Before anything is made,
//! each place must take files, and each address must be free. Changes nothing.

use crate::config::{Resolved, Then};
use crate::error::{Error, Result};
use crate::source::expect_address;
use crate::storage::expect_directory;

use super::StreamingContext;
use super::sources::Start;

/// Asks the places of the state, of spilled blocks, of dead letters and of over-long records.
///
/// # Errors
/// If one of them takes no files: the text names it, its owner, the obstacle and the remedy.
pub(super) fn expect(config: &Resolved, sources: &[Start]) -> Result<()> {
    config.state_dir.iter().try_for_each(|state| expect_directory(state))?;
    if let Some(spill) = &config.spill {
        expect_directory(&spill.directory.join(spill_name(config)))
            .map_err(|err| of("`spill_dir`", err))?;
    }
    if config.on_failure.then == Then::DeadLetter {
        // They are written when a batch fails; a disk that is full now may have room then.
        match expect_directory(&config.dead_letter_directory) {
            Err(err) if !err.passes() => return Err(of("dead letters (`on_failure`)", err)),
            _ => {}
        }
    }
    for socket in sources.iter().filter_map(Start::socket) {
        let whose = || format!("`dead_letter` of the source `{}`", socket.source);
        let asked = socket.dead_letter.iter().try_for_each(|place| expect_directory(place));
        asked.map_err(|err| of(&whose(), err))?;
    }
    Ok(())
}

impl StreamingContext {
    /// Checks that the sources can listen on their addresses now. Nothing keeps the addresses free until they do.
    ///
    /// # Errors
    /// If one of them cannot: the text names it and the reason.
    pub(crate) fn expect_addresses(&self) -> Result<()> {
        self.starts().0.iter().filter_map(Start::socket).try_for_each(expect_address)
    }
}

/// The directory below `spill_dir` that the blocks of a pipeline go to.
pub(super) fn spill_name(config: &Resolved) -> String {
    format!("tidemill-{}", config.name)
}

fn of(whose: &str, err: Error) -> Error {
    match err {
        Error::Io { what, source } => Error::io(format!("{whose}: {what}"), source),
        other => other,
    }
}
