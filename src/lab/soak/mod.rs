//! `compare --soak`: does anything grow? A word count at a part of the rate that it sustains, for as long as is asked; and
//! the slopes of batch time, memory, descriptors and threads with their confidence intervals.
//!
//! ```text
//! as fast as it goes ×3 ─▶ 70 % of it ─▶ receiver ◀─ TCP ─ sender      sampled each second from outside (/proc)
//!                                           ╰─ batch times, by second, told at the end      both ─▶ `trend`
//! ```
//! Main thread of the parent.

mod receiver;
mod trend;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::pair::{Pair, Start, unexpected};
use super::protocol::{ChildMessage, Role, Second, Sending, Soaked, Soaking};
use super::results::End;
use super::sample::Sample;
use super::stats::median;
use super::{Outcome, machine, report_files};
use crate::error::Result;
use crate::load::LINE_LEN;
use crate::settings::units::as_f64;
use crate::sync::{Arc, Signal, StopToken};
use crate::time::Clock;

pub(super) use receiver::receive;

use trend::{Allowed, Series};

/// Runs without a limit that find the sustained rate, and the time for which each sends.
const TRIES: usize = 3;
const TRY: Duration = Duration::from_secs(3);

/// The longest time that a run may take beyond its own length.
const GRACE: Duration = Duration::from_secs(60);

/// The settings of a soak.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) model: String,
    pub(crate) batch_ms: u64,
    pub(crate) length: Duration,
    /// In percent of the rate that is sustained.
    pub(crate) load: u64,
    pub(crate) out: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) command_line: String,
    /// Ends the measurement at once.
    pub(crate) stop: StopToken,
}

/// A run's samples from outside, with their seconds from its start, and what its receiver told.
struct Run {
    samples: Vec<(f64, Sample)>,
    soaked: Soaked,
    lines: u64,
    seconds: f64,
}

/// Finds the rate, soaks and writes the samples; `tell` gets a line now and then.
///
/// # Errors
/// If a run fails or the samples cannot be written.
pub(crate) fn run(
    options: &Options,
    clock: &Arc<dyn Clock>,
    mut tell: impl FnMut(&str),
) -> Result<Outcome> {
    report_files::directory(&options.out)?;
    let mut rates = Vec::new();
    for _ in 0..TRIES {
        tell("as fast as it goes");
        let run = once(options, &Pace { rate: None, length: TRY }, clock, &mut tell)?;
        rates.push(as_f64(run.lines) / run.seconds);
    }
    let sustained = median(&rates);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive"
    )]
    let rate = ((sustained * as_f64(options.load) / 100.0) as u64).max(1);
    let run = once(options, &Pace { rate: Some(rate), length: options.length }, clock, &mut tell)?;
    let facts = machine::facts(clock.wall(), &options.command_line);
    let mut table = format!(
        "soak: {} s at {rate} lines/s, {} % of {sustained:.0}; word count, batches of {} ms, {}\n",
        options.length.as_secs(),
        options.load,
        options.batch_ms,
        options.model
    );
    table.push_str(&trend::table(series(&run), options.length));
    let written = report_files::write(&options.out, "soak.csv", &csv(&run, &facts))?;
    Ok(Outcome { table, files: vec![written], failures: Vec::new(), end: End::Complete })
}

/// The load of a run.
struct Pace {
    /// Lines per second; without it the sender is as fast as its lines are read.
    rate: Option<u64>,
    length: Duration,
}

/// One run.
fn once(
    options: &Options,
    pace: &Pace,
    clock: &Arc<dyn Clock>,
    tell: &mut impl FnMut(&str),
) -> Result<Run> {
    let soaking = Soaking { model: options.model.clone(), batch_ms: options.batch_ms };
    let start = Start { program: &options.program, grace: GRACE, clock, stop: &options.stop };
    let pair = Pair::start(&start, &Role::Soak(soaking), |address, _| {
        Role::Send(Sending {
            address,
            listens: false,
            rate: pace.rate,
            millis: u64::try_from(pace.length.as_millis()).unwrap_or(u64::MAX),
            line_bytes: LINE_LEN as u64,
            busy: 1,
            idle: 0,
            thin: 0,
            storm: false,
            stamp_every: Some(u64::MAX),
        })
    })?;
    let started = pair.started;
    let samples = watch(&pair, pace.length, clock, tell);
    let (sent, ChildMessage::Soaked(soaked)) = pair.finish(clock.now().plus(GRACE))? else {
        return Err(unexpected("receiver"));
    };
    let seconds = clock.now().since(started).as_secs_f64();
    Ok(Run { samples, soaked: *soaked, lines: sent.lines, seconds })
}

/// Samples the receiver each second until `length` is over.
fn watch(
    pair: &Pair,
    length: Duration,
    clock: &Arc<dyn Clock>,
    tell: &mut impl FnMut(&str),
) -> Vec<(f64, Sample)> {
    let mut samples = Vec::new();
    for second in 1..length.as_secs() {
        clock.wait(&Signal::new(), Some(pair.started.plus(Duration::from_secs(second))));
        let elapsed = clock.now().since(pair.started).as_secs_f64();
        samples.push((elapsed, Sample::of(pair.receiver())));
        tell(&format!("{second} of {} s", length.as_secs()));
    }
    samples
}

fn series(run: &Run) -> Vec<Series> {
    let seconds = run.soaked.seconds.iter().enumerate();
    let seconds: Vec<(f64, Second)> =
        seconds.filter(|(_, it)| it.batches > 0).map(|(at, it)| (as_f64(at as u64), *it)).collect();
    let of_batches =
        |of: fn(&Second) -> f64| seconds.iter().map(|(at, it)| (*at, of(it))).collect();
    let of_process =
        |of: fn(&Sample) -> f64| run.samples.iter().map(|(at, it)| (*at, of(it))).collect();
    let series = |name, points, allowed| Series { name, points, allowed };
    vec![
        series("processing time, us", of_batches(|it| it.processing_us), Allowed::Percent(1.0)),
        series("scheduling delay, us", of_batches(|it| it.delay_us), Allowed::Percent(1.0)),
        series(
            "memory, KiB",
            of_process(|it| as_f64(it.anonymous_bytes) / 1024.0),
            Allowed::Units(1024.0),
        ),
        series("descriptors", of_process(|it| as_f64(it.files)), Allowed::Units(0.0)),
        series("threads", of_process(|it| as_f64(it.threads)), Allowed::Units(0.0)),
    ]
}

fn csv(run: &Run, facts: &machine::Facts) -> String {
    let mut text = String::new();
    for (name, value) in facts {
        let _ = writeln!(text, "# {name}: {value}");
    }
    text.push_str("second,batches,processing_us,delay_us,anonymous_bytes,threads,descriptors\n");
    for (at, sample) in &run.samples {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds of a run"
        )]
        let second = run.soaked.seconds.get(*at as usize).copied().unwrap_or_default();
        let Second { batches, processing_us, delay_us } = second;
        let Sample { anonymous_bytes, threads, files, .. } = sample;
        let _ = writeln!(
            text,
            "{at:.0},{batches},{processing_us:.1},{delay_us:.1},{anonymous_bytes},{threads},{files}"
        );
    }
    text
}
