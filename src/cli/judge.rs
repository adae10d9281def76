//! The start of a pipeline, judged by its own code without a change: what `inspect --pipeline` shows, and what `run` asks before
//! it makes anything. Main thread.

use crate::config::{Pipeline, Source};
use crate::context::RunLimits;
use crate::error::Result;
use crate::journal::Look;
use crate::storage::{Access, Directory, Storage};
use crate::sync::{Arc, Poison};
use crate::wal;

use super::build::Built;

/// Looks at a state directory as a start of the pipeline does. `looked` hears how many of how many segments were looked at.
///
/// # Errors
/// Why the start would be refused before it looks there, or what cannot be read; any other refusal is part of the look.
pub(super) fn look(
    pipeline: &Pipeline,
    give_up_lost: bool,
    storage: &Arc<dyn Storage>,
    looked: &mut dyn FnMut(usize, usize),
) -> Result<Look> {
    // Made anew each time: it keeps what a look finds.
    let built = Built::new(pipeline, &Poison::new(), Access::Look)?;
    built.context.limits(RunLimits { give_up_lost, ..RunLimits::default() });
    built.context.look(storage, looked)
}

/// Refuses a start that would be refused once it has made something. One that has nothing to make says it by itself, without
/// reading its log twice. An address that is taken between this and the start refuses it all the same, and what it made stays.
///
/// # Errors
/// Why the start is refused.
pub(super) fn before_start(pipeline: &Pipeline, give_up_lost: bool) -> Result<()> {
    if !makes_something(pipeline)? {
        return Ok(());
    }
    let built = || Built::new(pipeline, &Poison::new(), Access::Look);
    let Some(state) = &pipeline.state_dir else {
        let context = built()?.context;
        return context.look_without_state().and_then(|()| context.expect_addresses());
    };
    if state.is_dir() && Directory::read_only(state)?.holder()?.is_some() {
        // The start says who uses it.
        return Ok(());
    }
    let storage = Access::Look.open(state)?;
    let look = look(pipeline, give_up_lost, &storage, &mut |_, _| ())?;
    look.refusal.map_or_else(|| built()?.context.expect_addresses(), Err)
}

/// True if something that a start makes is not there yet: its first log, or a place.
fn makes_something(pipeline: &Pipeline) -> Result<bool> {
    if let Some(state) = &pipeline.state_dir {
        let names = Access::Look.open(state)?.list();
        if !names.is_ok_and(|names| names.iter().any(|name| wal::is_segment(name))) {
            return Ok(true);
        }
    }
    let sinks = pipeline
        .sinks
        .iter()
        .map(|(_, sink)| sink.destination().is_some_and(|destination| !destination.is_there()));
    let overlong = pipeline.sources.iter().filter_map(|(_, source)| match source {
        Source::Socket(socket) => socket.dead_letter.as_ref(),
        Source::Files(_) | Source::Generate(_) => None,
    });
    let resolved = pipeline.resolved();
    let spill = resolved.spill.as_ref().map(|spill| &spill.directory);
    let directories = overlong.chain(spill).map(|path| !path.is_dir());
    Ok(sinks.chain(directories).any(|is_made| is_made))
}
