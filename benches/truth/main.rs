//! The truth of what `tidemill run` reports: rate and latency of one run as its job `latency` and its `/metrics` say, beside
//! what this program measures with a sender, a clock and a reader of standard output of its own.
//!
//! ```text
//! sender ──TCP──▶ tidemill run ── standard output ──▶ reader     own: when each batch's row came, less when its lines were due
//!    ╰─ lines sent        ╰────── GET /metrics ─────▶ scrape     said: quantiles of the job, records of the source
//! ```
//! Each io model runs with batches of 10 ms, 100 ms and 1 s. The main thread judges. It uses nothing of the engine but the
//! program.

mod clock;
mod judge;
mod metrics;
mod program;
mod reader;
mod sender;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tidemill::internals::io::{IO_MODELS, probe};
use tidemill::internals::lab::machine::facts;

use crate::judge::Found;
use crate::program::Setting;

/// Whatever goes wrong ends the run with its text.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Parser)]
#[command(
    about = "Compares what `tidemill run` says of its rate and latency with what can be measured from outside"
)]
struct Cli {
    /// The io models, or `all`; without one a short run that judges nothing
    models: Vec<String>,

    /// How long each run sends, in seconds
    #[arg(long, default_value_t = 12)]
    seconds: u64,

    /// Lines a second
    #[arg(long, default_value_t = 10_000)]
    rate: u64,

    /// Batch intervals, in milliseconds
    #[arg(long, value_name = "MS,...", value_delimiter = ',', default_value = "10,100,1000")]
    batch: Vec<u64>,

    // Cargo says these to every bench and test.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    test: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse(), &mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            let _ = writeln!(std::io::stderr(), "truth: {err}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints; true if everything that was said is true.
fn run(cli: &Cli, out: &mut dyn Write) -> Outcome<bool> {
    for (name, value) in facts(clock::wall(), "") {
        if ["processor", "cores", "kernel", "build", "commit", "load average"].contains(&name) {
            writeln!(out, "{name}: {value}")?;
        }
    }
    let is_short = cli.models.is_empty();
    let (seconds, batches) =
        if is_short { (3, vec![100]) } else { (cli.seconds, cli.batch.clone()) };
    let wanted = |name: &str| {
        let named = cli.models.iter().any(|model| model == name || model == "all");
        if is_short { name == "nio" } else { named }
    };
    writeln!(out, "{}", judge::HEAD)?;
    let mut all_true = true;
    for row in IO_MODELS.iter().filter(|row| wanted(row.name)) {
        if let Err(why) = probe(row.model) {
            writeln!(out, "not run: {} ({why})", row.name)?;
            continue;
        }
        for batch_ms in &batches {
            let setting = Setting { model: row.name, batch_ms: *batch_ms, seconds, rate: cli.rate };
            let found = Found::of(&program::run(&setting)?)?;
            let is_true = is_short || found.is_true();
            writeln!(out, "{}", found.line(&setting, is_short))?;
            out.flush()?;
            all_true &= is_true;
        }
    }
    Ok(all_true)
}
