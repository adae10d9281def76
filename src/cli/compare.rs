//! `tidemill compare`: what was typed to [`models::Options`], a progress bar while it runs, the tables at the end. The
//! comparison itself is `crate::lab::models`. Runs on the main thread; the thread `signals` stops it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::latency::{LatencyArgs, Shared};
use super::progress::print;
use super::say;
use super::signals::{Action, Decider, Hangup, SignalWatch};
use super::soak::{self, SoakArgs};
use crate::error::{Error, Result};
use crate::lab::beside::{self, Named};
use crate::lab::latency::this_program;
use crate::lab::markdown::{self, Recorded};
use crate::lab::models::plan::{Grid, names};
use crate::lab::models::plan_file::{self, millis};
use crate::lab::models::{self, Options, Pace, Report, Step};
use crate::lab::results::End;
use crate::lab::results_file;
use crate::lab::shape::Kind;
use crate::lab::{Outcome, child};
use crate::settings::units;
use crate::sync::{Arc, Poison, StopToken};
use crate::time::{Clock, SystemClock};
use crate::wording::{count, escaped_lines};

const EXAMPLES: &str = "\
Examples:
  tidemill compare --quick
      every io model with one connection, in less than a minute: what works, not who is fastest
  tidemill compare --connections 1,100 --record 100 --out report
      who leads, by how much, or that no difference can be shown
  tidemill compare --models nio,nio --connections 1 --record 100
      the control: a model against itself is no difference
  tidemill compare --only latency --batch 10ms,100ms --rate 10k --models nio,aio
      how long a line waits, to 99.99 %
  tidemill compare --only throughput --connections 10000 --busy 1,100
      few busy connections among many idle ones
  tidemill compare --only memory --connections 100,1000,10000 --models nio,reactors,aio
      what an idle connection costs
  tidemill compare --only crowd,storm --connections 1000 --models nio,reactors,aio
      one honest stream beside 999 thin ones; connections that come and go
  tidemill compare --soak 10m
      does batch time, memory, or the number of descriptors or threads grow?
  tidemill compare --from before/compare.json after/compare.json
      two versions or two machines on one page
  tidemill compare --only throughput --connections 1 --record 100 --models nio --peers
      beside nc, socat, rsyslog, Spark Streaming and others

A plan has a table for each group of shapes, with the options of the command line as keys (--only is `measure`):
  [shapes.thin]
  measure = [\"throughput\", \"crowd\"]
  models = [\"nio\", \"aio\"]
  connections = [1000, 10000]

Receiver and sender are processes of their own on 127.0.0.1. Every other round goes through the models backwards.
Tables go to standard output; compare.json, .csv and .html and a .hgrm file for each latency cell to --out.
Ctrl-C ends the run at once and writes what was measured; a second one writes nothing.
Exit codes: 0 done; 1 a run failed, and the report says which; 2 usage; 78 a mistake in the plan; 130 stopped by Ctrl-C.";

/// Run io models side by side over real sockets: throughput, latency, memory.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// What to compare: io models, and `bare`, a loop that only reads and counts; a model twice is compared with itself
    /// [default: all]
    #[arg(long, value_name = "MODEL,...", value_delimiter = ',', value_parser = PossibleValuesParser::new(names()))]
    models: Vec<String>,

    /// Measure what a user would take instead, too, where it is installed: `nc | wc -l`, `nc | mawk`, `socat | wc -l`, rsyslog
    /// and syslog-ng to a file, Spark Streaming, Flink; throughput only. With --list: how to install what is missing
    #[arg(long, conflicts_with_all = ["latency", "soak", "from"])]
    peers: bool,

    /// What to measure [default: throughput,latency,memory]
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    only: Vec<Measured>,

    /// Connections
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = units::typed_count, default_value = "1,100")]
    connections: Vec<u64>,

    /// Share of the connections that is sent to, in percent; the others are idle
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_value = "100",
        value_parser = clap::value_parser!(u64).range(0..=100))]
    busy: Vec<u64>,

    /// Bytes of a record with its line feed; only throughput takes more than the first, latencies at least 32
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', value_parser = units::typed_bytes,
        default_value = "100,10,1KiB,64KiB")]
    record: Vec<u64>,

    /// Batch intervals [default: 100ms]
    #[arg(long, value_name = "TIME,...", value_delimiter = ',', value_parser = millis)]
    batch: Vec<u64>,

    /// Block intervals, at most the batch interval
    #[arg(long, value_name = "TIME,...", value_delimiter = ',', value_parser = millis, default_value = "200ms")]
    block: Vec<u64>,

    /// How often each combination is run [default: until the intervals are narrow, at most 40; with --latency 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: Option<u16>,

    /// Begin no run that would end later than this
    #[arg(long, value_name = "TIME", value_parser = units::typed_seconds, default_value = "1h", conflicts_with_all = ["latency",
        "soak"])]
    time_limit: Duration,

    /// How long a throughput run sends [default: 2s, with --quick 0.7s]
    #[arg(long, value_name = "TIME", value_parser = units::typed_seconds)]
    seconds: Option<Duration>,

    /// How long a latency run sends [default: 5s, with --latency 10s]
    #[arg(long, value_name = "TIME", value_parser = units::typed_seconds)]
    latency_seconds: Option<Duration>,

    /// Lines per second of latency runs
    #[arg(long, value_name = "LINES", value_parser = units::typed_count, default_value = "10k")]
    rate: u64,

    /// Threads of the io model `pool`; connections beyond them wait
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000), default_value_t = 64)]
    pool_threads: u16,

    /// Records of 100 B over 1 and over 100 connections, one short run each: it shows what works and decides nothing
    #[arg(long, conflicts_with_all = ["connections", "record", "repeats", "latency_seconds"])]
    quick: bool,

    /// Read what to measure from a plan, see below
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "latency", "soak"])]
    plan: Option<PathBuf>,

    /// Show what would be run and how long it takes at least, and run nothing
    #[arg(long, conflicts_with_all = ["latency", "soak"])]
    list: bool,

    /// The directory of the report; files of an older one are replaced
    #[arg(long, value_name = "DIR", default_value = "compare-report")]
    out: PathBuf,

    /// Write the results, with every raw sample, also to this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["latency", "soak"])]
    json: Option<PathBuf>,

    /// Run nothing: make the report of results in files; several of them are put beside each other
    #[arg(long, value_name = "FILE", num_args = 1..=8, conflicts_with_all = ["models", "only", "quick", "plan", "list", "latency",
        "soak"])]
    from: Vec<PathBuf>,

    /// With --from: write the results as a page of Markdown with plots in `results` beside it; notes in NAME.md beside NAME.json
    /// are part of it
    #[arg(long, value_name = "FILE", requires = "from")]
    markdown: Option<PathBuf>,

    #[command(flatten)]
    latency: LatencyArgs,

    #[command(flatten)]
    soak: SoakArgs,
}

/// What is used if nothing else was said: the batch interval in milliseconds, how long runs send, and how often they are
/// repeated with --latency.
const BATCH: u64 = 100;
const LENGTH: Duration = Duration::from_secs(2);
const QUICK_LENGTH: Duration = Duration::from_millis(700);
const LATENCY_LENGTH: Duration = Duration::from_secs(5);
const LATENCY_REPEATS: u16 = 3;

/// The subjects of a measurement.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Measured {
    /// As fast as it is read
    Throughput,
    /// An open loop: how long a line waits
    Latency,
    /// What an idle connection costs
    Memory,
    /// One honest stream beside thin ones, a line a second each: how long its lines wait
    Crowd,
    /// Connections that come, send a line and go
    Storm,
    /// How long a line waits while every tenth batch takes three intervals longer
    Slow,
}

impl Measured {
    fn kind(self) -> Kind {
        match self {
            Measured::Throughput => Kind::Throughput,
            Measured::Latency => Kind::Latency,
            Measured::Memory => Kind::Memory,
            Measured::Crowd => Kind::Crowd,
            Measured::Storm => Kind::Storm,
            Measured::Slow => Kind::Slow,
        }
    }
}

impl CompareArgs {
    fn options(&self) -> Result<Options> {
        if self.connections.contains(&0)
            || self.rate == 0
            || self.record.iter().any(|size| *size < 2)
        {
            let text = "error: connections and rates are at least 1, records at least 2 bytes";
            return Err(Error::Usage(text.to_owned()));
        }
        let grid = self.grid();
        let grids = match &self.plan {
            Some(path) => plan_file::read(path, &grid)?,
            None => vec![grid],
        };
        let (length, latency, repeats) = match self.quick {
            true => (QUICK_LENGTH, Duration::from_secs(1), Some(1)),
            false => (LENGTH, LATENCY_LENGTH, self.repeats.map(u64::from)),
        };
        let typed: Vec<String> = std::env::args().skip(1).collect();
        Ok(Options {
            grids,
            peers: self.peers,
            pace: Pace {
                throughput: self.seconds.unwrap_or(length),
                latency: self.latency_seconds.unwrap_or(latency),
                rate: self.rate,
                pool_threads: self.pool_threads.into(),
            },
            repeats,
            time_limit: self.time_limit,
            quick: self.quick,
            out: self.out.clone(),
            json: self.json.clone(),
            program: this_program()?,
            command_line: format!("tidemill {}", typed.join(" ")),
        })
    }

    fn grid(&self) -> Grid {
        let all = || names().into_iter().map(str::to_owned).collect();
        let (connections, records) = match self.quick {
            true => (vec![1, 100], vec![100]),
            false => (self.connections.clone(), self.record.clone()),
        };
        let kinds: Vec<Kind> = self.only.iter().map(|measured| measured.kind()).collect();
        Grid {
            models: if self.models.is_empty() { all() } else { self.models.clone() },
            kinds: if kinds.is_empty() { Kind::USUAL.to_vec() } else { kinds },
            connections,
            busy: self.busy.clone(),
            records,
            batches: if self.batch.is_empty() { vec![BATCH] } else { self.batch.clone() },
            blocks: self.block.clone(),
        }
    }
}

/// Compares and prints the tables on `out`.
///
/// # Errors
/// Usage, a report that cannot be written, [`Error::Failed`] if a run failed, and [`Error::Interrupted`] if a signal ended it.
pub(super) fn run(args: &CompareArgs, out: &mut dyn Write) -> Result<()> {
    if !args.from.is_empty() {
        return from_files(&args.from, args, out);
    }
    if args.list {
        return list(&args.options()?, out);
    }
    if cfg!(debug_assertions) {
        say("compare: this is a debug build; its figures mean nothing");
    }
    let stop = StopToken::new();
    let _signals = watch(&stop)?;
    if let Some(length) = args.soak.soak {
        let (models, batches, out_dir) = (&args.models, &args.batch, &args.out);
        let shared = soak::Shared { models, batches, out: out_dir, stop: &stop };
        return args.soak.run(length, &shared, out);
    }
    if args.latency.latency {
        let shared = Shared {
            models: &args.models,
            batches: &args.batch,
            rate: args.rate,
            length: args.latency_seconds,
            repeats: usize::from(args.repeats.unwrap_or(LATENCY_REPEATS)),
            out: &args.out,
            stop: &stop,
        };
        return args.latency.run(&shared, out);
    }
    compare(&args.options()?, &stop, out)
}

/// Stops at the first signal; the second one ends the process.
fn watch(stop: &StopToken) -> Result<SignalWatch> {
    let stop = stop.clone();
    let act = move |action| match action {
        Action::Stop | Action::Reload => stop.stop(),
        Action::EndAtOnce => say("compare: ended at once by a second signal; no report is written"),
        Action::Nothing => {}
    };
    SignalWatch::start(Decider::new(Hangup::of_this_process()), act, &Poison::new())
}

fn compare(options: &Options, stop: &StopToken, out: &mut dyn Write) -> Result<()> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:30} {pos} of at least {len} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let clock = SystemClock::new() as Arc<dyn Clock>;
    let outcome = models::run(options, &clock, stop, |step| match step {
        Step::Runs(runs) => bar.set_length(*runs),
        Step::Begins(cell) => {
            let (label, shape) = (cell.subject.label(), cell.shape);
            bar.set_message(format!("{label} {}: {}", shape.kind.name(), shape.words()));
        }
        Step::Ended(cell, failure) => {
            if let Some(why) = failure {
                let (label, shape) = (cell.subject.label(), cell.shape.words());
                bar.suspend(|| say(&format!("compare: {label} {shape}: {why}")));
            }
            bar.inc(1);
        }
    });
    bar.finish_and_clear();
    print(&outcome?, out)
}

/// Prints what would be run.
fn list(options: &Options, out: &mut dyn Write) -> Result<()> {
    let list = options.list();
    let mut text = String::new();
    for group in list.cells.chunk_by(|a, b| a.shape == b.shape) {
        let shape = group[0].shape;
        text.push_str(&format!("{}: {}\n", shape.kind.name(), shape.words()));
        for cell in group {
            let not =
                cell.not_run.as_ref().map_or(String::new(), |why| format!(" (not run: {why})"));
            text.push_str(&format!("  {}{not}\n", cell.subject.label()));
        }
    }
    let (runs, least) = (count(list.runs, "run"), list.least.as_secs());
    text.push_str(&format!("at least {runs}, about {least} s, in {}\n", options.out.display()));
    out.write_all(text.as_bytes()).map_err(super::unwritable)
}

/// Makes the report of results in files.
fn from_files(paths: &[PathBuf], args: &CompareArgs, out: &mut dyn Write) -> Result<()> {
    let mut files = Vec::new();
    for (path, name) in paths.iter().zip(short_names(paths)) {
        files.push(Named { name, results: results_file::read(path)? });
    }
    if let Some(page) = &args.markdown {
        return wrote(&markdown::write(page, &recorded(paths, files)?)?);
    }
    let (json, out_dir) = (args.json.as_deref(), &args.out);
    let (results, said) = match &files[..] {
        [one] => (one.results.clone(), crate::lab::verdict::said(&one.results)),
        several => (beside::together(several), beside::said(several)),
    };
    let outcome = models::report(&Report { results: &results, said: &said, out: out_dir, json })?;
    // What failed or ended a measurement then is no failure of this report.
    // Names in a file may hold what a terminal obeys.
    let table = escaped_lines(&outcome.table);
    let outcome = Outcome { table, failures: Vec::new(), end: End::Complete, ..outcome };
    let mut words = String::new();
    for fact in beside::differences(&files) {
        words.push_str(&format!("differs: {}: {}\n", fact.name, fact.value));
    }
    let contradictions = beside::contradictions(&files);
    contradictions.iter().for_each(|it| words.push_str(&format!("contradiction: {it}\n")));
    if files.len() > 1 && contradictions.is_empty() {
        words.push_str(
            "no pair of models that one file separates is separated the other way by another\n",
        );
    }
    print(&outcome, out)?;
    out.write_all(escaped_lines(&words).as_bytes()).map_err(super::unwritable)
}

/// Says which files were written.
fn wrote(files: &[PathBuf]) -> Result<()> {
    files.iter().for_each(|file| say(&format!("compare: wrote {}", file.display())));
    Ok(())
}

/// Results with the notes beside their files.
fn recorded(paths: &[PathBuf], files: Vec<Named>) -> Result<Vec<Recorded>> {
    let with_notes = |(path, file): (&PathBuf, Named)| {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let notes = markdown::notes(&path.with_extension("md"))?;
        Ok(Recorded { name: name.unwrap_or(file.name), results: file.results, notes })
    };
    paths.iter().zip(files).map(with_notes).collect()
}

/// The names of files, as short as they differ: the last parts of their paths.
fn short_names(paths: &[PathBuf]) -> Vec<String> {
    let ends = |path: &Path, parts: usize| {
        let all: Vec<_> =
            path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        all[all.len().saturating_sub(parts)..].join("/")
    };
    let most = paths.iter().map(|path| path.components().count()).max().unwrap_or(1);
    for parts in 1..=most {
        let names: Vec<String> = paths.iter().map(|path| ends(path, parts)).collect();
        if names.iter().enumerate().all(|(at, name)| !names[..at].contains(name)) {
            return names;
        }
    }
    paths.iter().enumerate().map(|(at, path)| format!("{} ({})", path.display(), at + 1)).collect()
}

/// A child of a comparison; see `crate::lab::child`.
///
/// # Errors
/// If the parent is gone.
pub(super) fn run_child() -> Result<()> {
    child::run(&mut io::stdout().lock())
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_shortest_names_that_differ() {
        let check = |paths: &[&str], expected: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            assert_eq!(short_names(&paths), expected);
        };
        check(&["x/a.json"], &["a.json"]);
        check(&["x/a.json", "y/b.json"], &["a.json", "b.json"]);
        check(&["x/a.json", "y/a.json"], &["x/a.json", "y/a.json"]);
        check(&["a.json", "a.json"], &["a.json (1)", "a.json (2)"]);
    }
}
