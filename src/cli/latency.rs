//! `tidemill compare --latency`: what was typed to [`latency::Options`], a line of progress, the tables at the end. The
//! runs themselves are `crate::lab::latency`. Runs on the main thread.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::progress::{print, spinning};
use super::say;
use crate::error::{Error, Result};
use crate::lab::latency::{self, Options};
use crate::lab::protocol::Work;
use crate::lab::shape::BARE;
use crate::settings::units;
use crate::source::io::IO_MODELS;
use crate::sync::{Arc, StopToken};
use crate::time::{Clock, SystemClock};

/// Batch intervals in milliseconds, if none were given.
const BATCHES: [u64; 4] = [10, 50, 200, 1_000];

/// The time for which a run sends by default: ten batches of the longest interval.
const LENGTH: Duration = Duration::from_secs(10);

/// The options that only `--latency` has.
#[derive(Debug, Args)]
pub(super) struct LatencyArgs {
    /// How much longer than its batch interval makes it wait a line takes: excess over that floor to 99.99 %, stage by
    /// stage, at --rate and at --load; with --batch (10ms,50ms,200ms,1s here), --models (io models), --latency-seconds
    #[arg(long, conflicts_with_all = ["only", "connections", "busy", "record", "block", "seconds", "quick"])]
    pub(super) latency: bool,

    /// With --latency: further rates, in percent of the highest one that holds, which is searched for; 0: no search
    #[arg(
        long,
        value_name = "PERCENT,...",
        value_delimiter = ',',
        default_value = "70",
        requires = "latency"
    )]
    load: Vec<u64>,

    /// With --latency: what is done with a batch
    #[arg(long, value_name = "JOB", value_enum, default_value = "stamps", requires = "latency")]
    job: Job,

    /// With --latency: worker threads [default: as many as there are cores]
    #[arg(long, value_name = "N", requires = "latency", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,

    /// With --latency: a rate holds if the 99th percentile is at most this and two batch intervals
    #[arg(long, value_name = "TIME", requires = "latency", value_parser = units::typed_seconds, default_value = "10s")]
    limit: Duration,

    /// With --latency: period in milliseconds of a bare timer on each core, which shows how late the machine itself wakes a
    /// thread; 0: none
    #[arg(long, value_name = "MS", requires = "latency", default_value_t = 1)]
    control: u64,
}

/// The work on a batch.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Job {
    /// Only the stamps are read
    Stamps,
    /// The words are counted and ranked; stamps are words, too
    Wordcount,
}

/// The other options of `compare`.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) models: &'a [String],
    /// Milliseconds; none were given if it is empty.
    pub(super) batches: &'a [u64],
    pub(super) rate: u64,
    pub(super) length: Option<Duration>,
    pub(super) repeats: usize,
    pub(super) out: &'a Path,
    pub(super) stop: &'a StopToken,
}

impl LatencyArgs {
    fn options(&self, shared: &Shared<'_>) -> Result<Options> {
        let all = || IO_MODELS.iter().map(|row| row.name.to_owned()).collect();
        let models: Vec<String> =
            if shared.models.is_empty() { all() } else { shared.models.to_vec() };
        if models.iter().any(|model| model == BARE) {
            return Err(usage("--latency takes io models; bare has no batches to wait for"));
        }
        if shared.rate == 0 {
            return Err(usage("a rate is at least 1"));
        }
        let batches = if shared.batches.is_empty() { &BATCHES[..] } else { shared.batches };
        let length = shared.length.unwrap_or(LENGTH);
        if batches.iter().any(|batch| Duration::from_millis(*batch).saturating_mul(2) > length) {
            return Err(usage("--latency-seconds is at least two batch intervals"));
        }
        let typed: Vec<String> = std::env::args().skip(1).collect();
        Ok(Options {
            models,
            batches: batches.to_vec(),
            rate: shared.rate,
            loads: self.load.iter().copied().filter(|load| *load > 0).collect(),
            work: match self.job {
                Job::Stamps => Work::Stamps,
                Job::Wordcount => Work::Words,
            },
            workers: self.workers.map(usize::from),
            limit: self.limit,
            length,
            repeats: shared.repeats,
            control_ms: Some(self.control).filter(|period| *period > 0),
            out: shared.out.to_path_buf(),
            program: latency::this_program()?,
            command_line: format!("tidemill {}", typed.join(" ")),
            stop: shared.stop.clone(),
        })
    }

    /// Measures and prints the tables on `out`.
    ///
    /// # Errors
    /// Usage, a report that cannot be written, and [`Error::Failed`] if a run failed.
    pub(super) fn run(&self, shared: &Shared<'_>, out: &mut dyn Write) -> Result<()> {
        let options = self.options(shared)?;
        let clock = SystemClock::new() as Arc<dyn Clock>;
        let outcome = spinning(|tell| latency::run(&options, &clock, tell))?;
        outcome.failures.iter().for_each(|why| say(&format!("compare: {why}")));
        print(&outcome, out)
    }
}

fn usage(text: &str) -> Error {
    Error::Usage(format!("error: {text}"))
}
