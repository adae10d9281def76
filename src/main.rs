//! The `tidemill` program: maps a result to an exit code.

use std::process::ExitCode;

use tidemill::cli::{self, Cli, Log};

fn main() -> ExitCode {
    let cli = Cli::typed();
    let log = cli.log();
    let ended = cli.run();
    let code = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            match &log {
                Some(log) => log.error(&err),
                None => cli::complain(&err),
            }
            ExitCode::from(err.exit_code())
        }
    };
    log.iter().for_each(Log::finish);
    code
}
