//! The scorecard's rows that this repository measures by itself: ratios in one run, engine and baseline in processes of
//! their own, fed by the same sender process, in alternating order. See `benches/README.md`.
//!
//! ```text
//!  this process ─spawns─▶ tidemill load (sender) ──TCP──▶ this program again, as `child KIND` ─JSON─▶ medians, verdicts
//! ```
//! Runs on the main thread; the children have the threads. It knows the engine only by its public interface.

mod baseline;
mod console_reader;
mod delay;
mod disk;
mod durable;
mod engine;
mod full;
mod hostile;
mod keys;
mod kind;
mod listening;
mod load;
mod many_connections;
mod measure;
mod overload;
mod process;
mod restart;
mod rows;
mod stalled_sink;
mod syslog;
mod verdict;
mod volumes;
mod wait;
mod words;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::rows::Row;
use crate::verdict::Sheet;

/// Whatever goes wrong ends the run with its text.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Parser)]
#[command(about = "Measures rows of the scorecard and judges them")]
struct Cli {
    #[command(subcommand)]
    child: Option<Hidden>,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// One process of a measurement.
    #[command(hide = true)]
    Child(engine::ChildArgs),
}

/// The rows to measure, and their length.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The rows; all of them, in short form, if none is named
    #[arg(value_enum)]
    rows: Vec<Row>,

    /// Pairs of engine and baseline; 11 where a row is close
    #[arg(long, default_value_t = 5)]
    pairs: usize,

    /// How long one side of a pair takes, about
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,

    /// Only these io models, in the rows that compare them
    #[arg(long, value_name = "MODEL,...", value_delimiter = ',')]
    models: Vec<String>,

    /// Only with this many connections, in the row that has several
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    connections: Vec<u64>,

    /// One short pair of each row: asserts the results, judges nothing
    #[arg(long)]
    smoke: bool,

    /// Also write every figure to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|wanted| wanted == model)
    }

    fn wants_connections(&self, connections: u64) -> bool {
        self.connections.is_empty() || self.connections.contains(&connections)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.child {
        Some(Hidden::Child(args)) => engine::child(&args),
        None => measure_rows(cli.options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "scorecard: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_rows(mut options: Options) -> Outcome<()> {
    if options.rows.is_empty() {
        options.rows = Row::value_variants().to_vec();
        options.smoke = true;
    }
    if options.smoke {
        (options.pairs, options.seconds) = (1, 0.15);
    }
    let mut sheet = Sheet::new(options.smoke);
    sheet.say(&process::machine())?;
    for row in options.rows.clone() {
        row.measure(&options, &mut sheet)?;
    }
    match &options.json {
        Some(file) => sheet.save(file),
        None => Ok(()),
    }
}
