//! `tidemill compare --soak`: what was typed to [`soak::Options`], a line of progress, the table at the end. The runs
//! themselves are `crate::lab::soak`. Runs on the main thread.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::progress::{print, spinning};
use crate::error::{Error, Result};
use crate::lab::latency::this_program;
use crate::lab::shape::BARE;
use crate::lab::soak::{self, Options};
use crate::settings::units;
use crate::sync::{Arc, StopToken};
use crate::time::{Clock, SystemClock};

/// The shortest soak: a few samples after the warm-up.
const LENGTH_MIN: Duration = Duration::from_secs(10);

/// The options that only `--soak` has.
#[derive(Debug, Args)]
pub(super) struct SoakArgs {
    /// Does anything grow? A word count for this long at --soak-load; slopes of batch time, memory, descriptors and threads
    /// with their confidence intervals; slopes are judged from ten minutes on; with --batch (one, 100ms here) and --models (io
    /// models, one after the other, nio here)
    #[arg(long, value_name = "TIME", value_parser = units::typed_seconds,
        conflicts_with_all = ["latency", "only", "connections", "busy", "record", "block", "seconds", "quick", "repeats"])]
    pub(super) soak: Option<Duration>,

    /// With --soak: the rate, in percent of what is sustained, which three short runs find out
    #[arg(long, value_name = "PERCENT", default_value_t = 70, requires = "soak",
        value_parser = clap::value_parser!(u64).range(1..=100))]
    soak_load: u64,
}

impl SoakArgs {
    fn options(&self, length: Duration, shared: &Shared<'_>) -> Result<Options> {
        let models = match shared.models {
            [] => vec!["nio".to_owned()],
            models if models.iter().any(|model| model == BARE) => {
                return Err(usage("--soak takes io models; bare counts no words"));
            }
            models => models.to_vec(),
        };
        let batch_ms = match shared.batches {
            [] => 100,
            [batch] => *batch,
            _ => return Err(usage("--soak takes one batch interval")),
        };
        if length < LENGTH_MIN {
            return Err(usage("--soak is at least 10 s"));
        }
        let typed: Vec<String> = std::env::args().skip(1).collect();
        Ok(Options {
            models,
            batch_ms,
            length,
            load: self.soak_load,
            out: shared.out.to_path_buf(),
            program: this_program()?,
            command_line: format!("tidemill {}", typed.join(" ")),
            stop: shared.stop.clone(),
        })
    }

    /// Soaks for `length` and prints the table on `out`.
    ///
    /// # Errors
    /// Usage, a run that failed, samples that cannot be written.
    pub(super) fn run(
        &self,
        length: Duration,
        shared: &Shared<'_>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let options = self.options(length, shared)?;
        let clock = SystemClock::new() as Arc<dyn Clock>;
        let outcome = spinning(|tell| soak::run(&options, &clock, tell))?;
        print(&outcome, out)
    }
}

/// The other options of `compare`.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) models: &'a [String],
    /// Milliseconds; none were given if it is empty.
    pub(super) batches: &'a [u64],
    pub(super) out: &'a Path,
    pub(super) stop: &'a StopToken,
}

fn usage(text: &str) -> Error {
    Error::Usage(format!("error: {text}"))
}
