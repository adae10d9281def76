//! `compare --soak`: does anything grow? A word count at a part of the rate that it sustains, for as long as is asked; and
//! the slopes of batch time, memory, descriptors and threads with their confidence intervals.
//!
//! ```text
//! as fast as it goes ×3 ─▶ 70 % of it ─▶ receiver ◀─ TCP ─ sender      sampled each second from outside (/proc)
//!                                           ╰─ batch times, by second, told at the end      both ─▶ Results ─▶ `trend`
//! ```
//! Main thread of the parent.

mod receiver;
pub(in crate::lab) mod trend;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::machine::{self, Watch, date};
use super::pair::{Pair, Start, unexpected};
use super::protocol::{ChildMessage, Role, Second, Sending, Sent, Soaked, Soaking};
use super::results::{
    Cell, End, FORMAT, Figures, Measurement, Results, Run, RunOutcome, SoakSecond, Subject,
};
use super::sample::Sample;
use super::shape::{Kind, Shape};
use super::stats::median;
use super::{Outcome, page, report_files};
use crate::error::Result;
use crate::load::LINE_LEN;
use crate::settings::units::as_f64;
use crate::sync::{Arc, Signal, StopToken};
use crate::time::Clock;

pub(super) use receiver::receive;

/// Runs without a limit that find the sustained rate, and the time for which each sends.
const TRIES: usize = 3;
const TRY: Duration = Duration::from_secs(3);

/// The longest time that a run may take beyond its own length.
const GRACE: Duration = Duration::from_secs(60);

/// The settings of a soak.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Names of io models, which are soaked one after the other.
    pub(crate) models: Vec<String>,
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

/// Finds the rate of each model, soaks it and writes the page and the samples; `tell` gets a line now and then.
///
/// # Errors
/// If the report cannot be written. A run that fails is in the outcome.
pub(crate) fn run(
    options: &Options,
    clock: &Arc<dyn Clock>,
    mut tell: impl FnMut(&str),
) -> Result<Outcome> {
    report_files::directory(&options.out)?;
    let watch = Watch::start(clock.wall());
    let (mut cells, mut failures) = (Vec::new(), Vec::new());
    for (turn, model) in (0..).zip(&options.models) {
        let mut cell = Cell { subject: subject(model), shape: shape(options), ..Cell::default() };
        let outcome = match soak(options, model, clock, &mut tell) {
            Err(_) if options.stop.is_stopped() => break,
            Ok((rate, figures)) => {
                cell.rate = Some(rate);
                RunOutcome::Done(Box::new(figures))
            }
            Err(err) => {
                failures.push(format!("{model}: {err}"));
                RunOutcome::Failed(err.to_string())
            }
        };
        cell.runs.push(Run { pair: 0, turn, outcome });
        cells.push(cell);
    }
    let results = Results {
        format: FORMAT,
        tool: machine::tool(),
        command_line: options.command_line.clone(),
        measurement: Measurement::Soak,
        machine: watch.machine(clock.wall()),
        end: if options.stop.is_stopped() { End::Interrupted } else { End::Complete },
        cells,
        ..Results::default()
    };
    let table = results.cells.iter().map(|cell| table(options, cell)).collect();
    let json = serde_json::to_string(&results).expect("plain data");
    let files = vec![
        report_files::write(&options.out, "soak.json", &json)?,
        report_files::write(&options.out, "soak.csv", &csv(&results))?,
        report_files::write(&options.out, "soak.html", &page::html(&results, &[]))?,
    ];
    Ok(Outcome { table, files, failures, end: results.end })
}

fn subject(model: &str) -> Subject {
    Subject { name: model.to_owned(), ..Subject::default() }
}

fn shape(options: &Options) -> Shape {
    Shape {
        kind: Kind::Throughput,
        connections: 1,
        busy: 1,
        record_bytes: LINE_LEN as u64,
        batch_ms: options.batch_ms,
        block_ms: options.batch_ms,
        load_percent: Some(options.load),
    }
}

/// The rate of a soak, and its figures.
fn soak(
    options: &Options,
    model: &str,
    clock: &Arc<dyn Clock>,
    tell: &mut impl FnMut(&str),
) -> Result<(u64, Figures)> {
    let mut rates = Vec::new();
    for _ in 0..TRIES {
        tell(&format!("{model}: as fast as it goes"));
        let run = once(options, &Pace { model, rate: None, length: TRY }, clock, tell)?;
        rates.push(as_f64(run.records) / run.seconds);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive"
    )]
    let rate = ((median(&rates) * as_f64(options.load) / 100.0) as u64).max(1);
    let pace = Pace { model, rate: Some(rate), length: options.length };
    Ok((rate, once(options, &pace, clock, tell)?))
}

fn table(options: &Options, cell: &Cell) -> String {
    let mut text = format!(
        "soak: {} s at {} lines/s, {} % of what is sustained; word count, batches of {} ms, {}\n",
        options.length.as_secs(),
        cell.rate.unwrap_or_default(),
        options.load,
        options.batch_ms,
        cell.subject.name
    );
    for trend in trend::trends(cell) {
        let _ = writeln!(text, "  {}", trend.sentence());
    }
    text
}

/// The load of a run.
struct Pace<'a> {
    model: &'a str,
    /// Lines per second; without it the sender is as fast as its lines are read.
    rate: Option<u64>,
    length: Duration,
}

/// One run.
fn once(
    options: &Options,
    pace: &Pace<'_>,
    clock: &Arc<dyn Clock>,
    tell: &mut impl FnMut(&str),
) -> Result<Figures> {
    let soaking = Soaking { model: pace.model.to_owned(), batch_ms: options.batch_ms };
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
    Ok(figures(pace.model, seconds, sent, &Seen { samples, soaked: *soaked }))
}

/// A run's samples from outside, with their seconds from its start, and what its receiver told.
struct Seen {
    samples: Vec<(f64, Sample)>,
    soaked: Soaked,
}

fn figures(model: &str, seconds: f64, sent: Sent, seen: &Seen) -> Figures {
    let second = |(at, sample): &(f64, Sample)| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds of a run"
        )]
        let told = seen.soaked.seconds.get(*at as usize).copied().unwrap_or_default();
        let Second { batches, processing_us, delay_us } = told;
        SoakSecond { at: *at, sample: *sample, batches, processing_us, delay_us }
    };
    Figures {
        used: model.to_owned(),
        seconds,
        records: seen.soaked.records,
        sent,
        seconds_of_soak: seen.samples.iter().map(second).collect(),
        ..Figures::default()
    }
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

/// Every second of every model, with the facts of the machine above.
fn csv(results: &Results) -> String {
    let mut text = String::new();
    let Results { machine, tool, command_line, .. } = results;
    for fact in &machine.facts {
        let _ = writeln!(text, "# {}: {}", fact.name, fact.value);
    }
    let date = date(machine.start.wall_seconds);
    for (name, value) in [("date", &date), ("commit", &tool.commit), ("command", command_line)] {
        let _ = writeln!(text, "# {name}: {value}");
    }
    text.push_str(
        "model,second,batches,processing_us,delay_us,anonymous_bytes,threads,descriptors\n",
    );
    for cell in &results.cells {
        let model = &cell.subject.name;
        for second in cell.done().flat_map(|(_, figures)| &figures.seconds_of_soak) {
            let SoakSecond { at, sample, batches, processing_us, delay_us } = second;
            let Sample { anonymous_bytes, threads, files, .. } = sample;
            let _ = writeln!(
                text,
                "{model},{at:.0},{batches},{processing_us:.1},{delay_us:.1},{anonymous_bytes},{threads},{files}"
            );
        }
    }
    text
}
