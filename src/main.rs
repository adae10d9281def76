//! The `tidemill` program: maps a result to an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use tidemill::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // A closed standard error is no reason for another exit code.
            let _ = writeln!(io::stderr().lock(), "tidemill: {err}");
            ExitCode::from(err.exit_code())
        }
    }
}
