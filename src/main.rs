//! The `tidemill` program: maps a result to an exit code.

use std::process::ExitCode;

use clap::Parser;
use tidemill::cli::{self, Cli};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            cli::complain(&err);
            ExitCode::from(err.exit_code())
        }
    }
}
