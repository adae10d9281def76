//! The command line: one file per subcommand, each with its clap arguments and a `run` that returns a result. What was
//! typed is resolved to typed options once, here; nothing below knows that there is a command line.

mod load;
mod units;

use std::io::{self, Write};

use clap::{Parser, Subcommand};

use crate::Result;

pub use load::LoadArgs;

/// A micro-batch stream engine made of threads.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A data server: sends lines over TCP, paced or as fast as they are taken.
    Load(LoadArgs),
}

impl Cli {
    /// Runs what was typed; results go to `out`, everything else to standard error.
    ///
    /// # Errors
    /// As the subcommand says.
    pub fn run(self, out: &mut dyn Write) -> Result<()> {
        match self.command {
            Command::Load(args) => load::run(args, out),
        }
    }
}

/// Writes a line to standard error; a closed one is no reason to stop.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
