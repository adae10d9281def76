//! The `tidemill` program: maps a result to an exit code.

use std::process::ExitCode;

use tidemill::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::typed();
    let log = cli.log();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            match log {
                Some(log) => log.error(&err),
                None => cli::complain(&err),
            }
            ExitCode::from(err.exit_code())
        }
    }
}
