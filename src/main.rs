//! The `tidemill` program: maps a result to an exit code.

use std::process::ExitCode;

use clap::Parser;
use tidemill::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
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
