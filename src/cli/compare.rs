//! `tidemill compare`: what was typed to [`models::Options`], a progress bar while it runs, the tables at the end. The
//! comparison itself is `crate::lab::models`. Runs on the main thread.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::latency::{LatencyArgs, Shared};
use super::progress::print;
use super::say;
use super::soak::{self, SoakArgs};
use crate::error::{Error, Result};
use crate::lab::child;
use crate::lab::models::plan::Grid;
use crate::lab::models::{self, Options, Pace, Step};
use crate::lab::shape::{BARE, Kind};
use crate::settings::units;
use crate::source::io::IO_MODELS;
use crate::sync::Arc;
use crate::time::{Clock, SystemClock};

const EXAMPLES: &str = "\
Examples:
  tidemill compare --quick
      every io model with one connection, in less than a minute
  tidemill compare --connections 1,100,1000 --record 10,100,1KiB,64KiB --repeats 5 --out report
      what the figures of a paper take
  tidemill compare --only latency --batch 10ms,100ms --rate 10k --models nio,aio
      how long a line waits, to 99.99 %
  tidemill compare --soak 10m
      does batch time, memory, or the number of descriptors or threads grow?
  tidemill compare --only memory --connections 100,1000,10000 --models nio,reactors,aio
      what an idle connection costs
  tidemill compare --only throughput --connections 10000 --busy 1,100
      few busy connections among many idle ones

Receiver and sender are processes of their own on 127.0.0.1. Every other repeat goes through the models backwards.
Tables go to standard output; compare.csv, compare.html and a .hgrm file for each latency cell to --out.
Exit codes: 0 done; 1 a run failed, and the report says which; 2 usage.";

/// Run io models side by side over real sockets: throughput, latency, memory.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// What to compare: io models, and `bare`, a loop that only reads and counts [default: all]
    #[arg(long, value_name = "MODEL,...", value_delimiter = ',', value_parser = PossibleValuesParser::new(sides()))]
    models: Vec<String>,

    /// What to measure [default: all]
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    only: Vec<Measured>,

    /// Connections
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = units::typed_count, default_value = "1,100")]
    connections: Vec<u64>,

    /// Share of the connections that is sent to, in percent; the others are idle
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_value = "100",
        value_parser = clap::value_parser!(u64).range(0..=100))]
    busy: Vec<u64>,

    /// Bytes of a record with its line feed; latency and memory take the first, latency at least 32
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', value_parser = units::typed_bytes,
        default_value = "100,10,1KiB,64KiB")]
    record: Vec<u64>,

    /// Batch intervals [default: 100ms]
    #[arg(long, value_name = "TIME,...", value_delimiter = ',', value_parser = millis)]
    batch: Vec<u64>,

    /// Block intervals, at most the batch interval
    #[arg(long, value_name = "TIME,...", value_delimiter = ',', value_parser = millis, default_value = "200ms")]
    block: Vec<u64>,

    /// How often each combination is run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000), default_value_t = 3)]
    repeats: u16,

    /// How long a throughput run sends
    #[arg(long, value_name = "TIME", value_parser = units::typed_seconds, default_value = "2s")]
    seconds: Duration,

    /// How long a latency run sends [default: 5s, with --latency 10s]
    #[arg(long, value_name = "TIME", value_parser = units::typed_seconds)]
    latency_seconds: Option<Duration>,

    /// Lines per second of latency runs
    #[arg(long, value_name = "LINES", value_parser = units::typed_count, default_value = "10k")]
    rate: u64,

    /// Threads of the io model `pool`; connections beyond them wait
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000), default_value_t = 64)]
    pool_threads: u16,

    /// Records of 100 B over 1 and over 100 connections, one short run each
    #[arg(long, conflicts_with_all = ["connections", "record", "repeats", "seconds", "latency_seconds"])]
    quick: bool,

    /// The directory of the report; files of an older one are replaced
    #[arg(long, value_name = "DIR", default_value = "compare-report")]
    out: PathBuf,

    #[command(flatten)]
    latency: LatencyArgs,

    #[command(flatten)]
    soak: SoakArgs,
}

/// The batch interval in milliseconds, and how long a latency run sends, if nothing else was said.
const BATCH: u64 = 100;
const LATENCY_LENGTH: Duration = Duration::from_secs(5);

/// The subjects of a measurement.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Measured {
    Throughput,
    Latency,
    Memory,
}

fn sides() -> Vec<&'static str> {
    IO_MODELS.iter().map(|row| row.name).chain([BARE]).collect()
}

/// Whole milliseconds, at least one.
fn millis(text: &str) -> Result<u64, String> {
    let time = units::typed_seconds(text)?;
    let millis = u64::try_from(time.as_millis()).unwrap_or(0);
    let whole = millis > 0 && Duration::from_millis(millis) == time;
    whole.then_some(millis).ok_or_else(|| "an interval is in whole milliseconds".to_owned())
}

impl CompareArgs {
    fn options(&self) -> Result<Options> {
        let program = std::env::current_exe()
            .map_err(|err| Error::io("cannot find this program to start it again", err))?;
        if self.connections.contains(&0)
            || self.rate == 0
            || self.record.iter().any(|size| *size < 2)
        {
            let text = "error: connections and rates are at least 1, records at least 2 bytes";
            return Err(Error::Usage(text.to_owned()));
        }
        let chosen =
            |name: &&str| self.models.is_empty() || self.models.iter().any(|one| one == name);
        let kinds = self.only.iter().map(|measured| match measured {
            Measured::Throughput => Kind::Throughput,
            Measured::Latency => Kind::Latency,
            Measured::Memory => Kind::Memory,
        });
        let mut grid = Grid {
            models: sides().into_iter().filter(chosen).collect(),
            kinds: kinds.collect(),
            connections: self.connections.clone(),
            busy: self.busy.clone(),
            records: self.record.clone(),
            batches: if self.batch.is_empty() { vec![BATCH] } else { self.batch.clone() },
            blocks: self.block.clone(),
        };
        if grid.kinds.is_empty() {
            grid.kinds = Kind::USUAL.to_vec();
        }
        let mut pace = Pace {
            throughput: self.seconds,
            latency: self.latency_seconds.unwrap_or(LATENCY_LENGTH),
            rate: self.rate,
            pool_threads: self.pool_threads.into(),
        };
        let mut repeats = self.repeats;
        if self.quick {
            (grid.connections, grid.records, repeats) = (vec![1, 100], vec![100], 1);
            (pace.throughput, pace.latency) = (Duration::from_millis(700), Duration::from_secs(1));
        }
        let typed: Vec<String> = std::env::args().skip(1).collect();
        Ok(Options {
            grid,
            pace,
            repeats: usize::from(repeats),
            out: self.out.clone(),
            program,
            command_line: format!("tidemill {}", typed.join(" ")),
        })
    }
}

/// Compares and prints the tables on `out`.
///
/// # Errors
/// Usage, a report that cannot be written, and [`Error::Failed`] if a run failed.
pub(super) fn run(args: &CompareArgs, out: &mut dyn Write) -> Result<()> {
    if cfg!(debug_assertions) {
        say("compare: this is a debug build; its figures mean nothing");
    }
    if let Some(length) = args.soak.soak {
        let (models, batches, out_dir) = (&args.models, &args.batch, &args.out);
        let shared = soak::Shared { models, batches, out: out_dir };
        return args.soak.run(length, &shared, out);
    }
    if args.latency.latency {
        let shared = Shared {
            models: &args.models,
            batches: &args.batch,
            rate: args.rate,
            length: args.latency_seconds,
            repeats: usize::from(args.repeats),
            out: &args.out,
        };
        return args.latency.run(&shared, out);
    }
    let options = args.options()?;
    let bar = ProgressBar::new(0);
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (about {eta} left) {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let clock = SystemClock::new() as Arc<dyn Clock>;
    let outcome = models::run(&options, &clock, |step| match step {
        Step::Runs(runs) => bar.set_length(*runs as u64),
        Step::Begins(cell) => {
            let (model, shape) = (cell.model, cell.shape);
            bar.set_message(format!("{model} {}: {}", shape.kind.name(), shape.words()));
        }
        Step::Ended(cell, failure) => {
            if let Some(why) = failure {
                bar.suspend(|| {
                    say(&format!("compare: {} {}: {why}", cell.model, cell.shape.words()))
                });
            }
            bar.inc(1);
        }
    });
    bar.finish_and_clear();
    print(&outcome?, out)
}

/// A child of a comparison; see `crate::lab::child`.
///
/// # Errors
/// If the parent is gone.
pub(super) fn run_child() -> Result<()> {
    child::run(&mut io::stdout().lock())
}
