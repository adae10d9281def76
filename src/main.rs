//! The `tidemill` program: maps a result to an exit code.

use std::process::ExitCode;

use tidemill::internals::cli::{self, Cli, Log};

fn main() -> ExitCode {
    let cli = Cli::typed();
    let log = cli.log();
    log.iter().for_each(Log::tell_panics);
    // Also where a panic of this thread ends the program.
    let _last = LastLines(&log);
    let ended = cli.run();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            match &log {
                Some(log) => log.error(&err),
                None => cli::complain(&err),
            }
            ExitCode::from(err.exit_code())
        }
    }
}

/// Waits for what is still to be written when it goes.
struct LastLines<'a>(&'a Option<Log>);

impl Drop for LastLines<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(Log::finish);
    }
}
