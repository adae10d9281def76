//! A line of progress, and how `compare` ends: the tables, the files. Runs on the main thread.

use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};

use super::say;
use crate::error::{Error, Result};
use crate::lab::Outcome;
use crate::lab::results::End;
use crate::wording::count;

/// Runs something whose steps are lines of text, and shows the one it is at.
pub(super) fn spinning<T>(run: impl FnOnce(&mut dyn FnMut(&str)) -> T) -> T {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let result = run(&mut |step| {
        bar.set_message(step.to_owned());
        bar.tick();
    });
    bar.finish_and_clear();
    result
}

/// Prints the tables on `out` and says which files there are.
///
/// # Errors
/// If the tables cannot be written, [`Error::Failed`] if a run failed, and [`Error::Interrupted`] if a signal stopped it.
pub(super) fn print(outcome: &Outcome, out: &mut dyn Write) -> Result<()> {
    out.write_all(outcome.table.as_bytes())
        .and_then(|()| out.flush())
        .map_err(super::unwritable)?;
    outcome.files.iter().for_each(|file| say(&format!("compare: wrote {}", file.display())));
    if outcome.end == End::Interrupted {
        let text = "stopped by a signal; the report holds what was measured until then";
        return Err(Error::Interrupted(text.to_owned()));
    }
    match outcome.failures.len() {
        0 => Ok(()),
        failures => Err(Error::Failed(format!("{} failed", count(failures, "run")))),
    }
}
