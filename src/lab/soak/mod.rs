//! `compare --soak`: does anything grow? A word count at a part of the rate that it sustains, for as long as is asked; and
//! the slopes of batch time, memory, descriptors and threads with their confidence intervals.
//!
//! ```text
//! as fast as it goes ×3 ─▶ 70 % of it ─▶ receiver ◀─ TCP ─ sender      sampled each second from outside (/proc)
//!                                           ╰─ batch times, by second, told at the end
//! samples ─▶ warm-up dropped ─▶ means of bins ─▶ least squares ─▶ slope per hour ± 95 %
//! ```
//! Neighbouring seconds resemble each other, which would make an interval look narrower than it is: so the line goes
//! through the means of at most [`BINS`] bins. Parent and child run on their main threads; batches are noted on `events`.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::process::Process;
use super::protocol::{self, ChildMessage, Pour, Role, Second, Soaked, Soaking};
use super::sample::Sample;
use super::stats::{Summary, float};
use super::{Outcome, machine, report_files};
use crate::config::Config;
use crate::context::{RunLimits, SocketSource, StreamingContext};
use crate::error::{Error, Result};
use crate::metrics::Event;
use crate::sink::{Null, SharedSink};
use crate::source::io::IoModel;
use crate::stream::jobs::{JobOptions, JobOutput, WordCount};
use crate::sync::{Arc, Mutex, Signal};
use crate::time::{Clock, Interval, Moment, SystemClock};

/// Runs without a limit that say what is sustained, and how long each sends.
const TRIES: usize = 3;
const TRY: Duration = Duration::from_secs(3);

/// How long a run may take beyond its own length.
const GRACE: Duration = Duration::from_secs(60);

/// The part of the run that is not looked at: caches fill, pools find their size.
const WARM_UP: f64 = 0.1;

/// Points that the line goes through.
const BINS: usize = 60;

/// The least points with which an interval says anything.
const BINS_MIN: usize = 5;

/// What is run, and where the samples go.
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
}

/// The receiver: a word count, until every peer has closed.
///
/// # Errors
/// If the stream fails or the parent is gone.
pub(super) fn receive(soaking: &Soaking, out: &mut dyn Write) -> Result<Soaked> {
    let model = IoModel::by_name(&soaking.model)
        .ok_or_else(|| Error::Usage(format!("no io model is called `{}`", soaking.model)))?;
    let batch = Interval::millis(soaking.batch_ms.max(1));
    let ctx = StreamingContext::new(Config::new("soak").batch_interval(batch))?;
    let stream = ctx.socket(SocketSource::listen("127.0.0.1:0").io_model(model))?;
    let sinks = vec![SharedSink::new(Null)];
    WordCount.attach(&stream, JobOutput::of_batches("words", sinks));
    ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    let clock = SystemClock::new();
    let seconds: Arc<Mutex<Vec<Second>>> = Arc::default();
    let (noted, started) = (Arc::clone(&seconds), clock.now());
    ctx.add_listener(move |event: &Event| {
        if let Event::BatchCompleted { scheduling_delay, processing, .. } = event {
            let second = clock.now().since(started).as_secs();
            note(&mut noted.lock(), second, *processing, *scheduling_delay);
        }
    });
    let running = ctx.start()?;
    let no_address = || Error::Failed("the receiver has no address".to_owned());
    let address = running.local_addrs().first().copied().ok_or_else(no_address)?;
    let stopper = running.stopper();
    protocol::listen_to_parent(|| (), move || stopper.stop())?;
    protocol::say(out, &ChildMessage::Ready { address: address.to_string() })?;
    let (report, outcome) = running.finish();
    outcome?;
    let seconds = std::mem::take(&mut *seconds.lock());
    Ok(Soaked { records: report.records, seconds })
}

fn note(seconds: &mut Vec<Second>, second: u64, processing: Duration, delay: Duration) {
    let Ok(at) = usize::try_from(second) else { return };
    if seconds.len() <= at {
        seconds.resize(at + 1, Second::default());
    }
    let noted = &mut seconds[at];
    noted.batches += 1;
    let share = 1.0 / float(noted.batches);
    noted.processing_us += (processing.as_secs_f64() * 1e6 - noted.processing_us) * share;
    noted.delay_us += (delay.as_secs_f64() * 1e6 - noted.delay_us) * share;
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
        let run = once(options, (None, TRY), clock, &mut tell)?;
        rates.push(float(run.lines) / run.seconds);
    }
    let sustained = Summary::of(rates).map_or(0.0, |summary| summary.median);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive"
    )]
    let rate = ((sustained * float(options.load) / 100.0) as u64).max(1);
    let run = once(options, (Some(rate), options.length), clock, &mut tell)?;
    let facts = machine::facts(clock.wall(), &options.command_line);
    let mut table = format!(
        "soak: {} s at {rate} lines/s, {} % of {sustained:.0}; word count, batches of {} ms, {}\n",
        options.length.as_secs(),
        options.load,
        options.batch_ms,
        options.model
    );
    table.push_str(&rows(&run, options.length));
    let written = report_files::write(&options.out, "soak.csv", &csv(&run, &facts))?;
    Ok(Outcome { table, files: vec![written], failures: Vec::new() })
}

/// One run at this rate, or as fast as it goes.
fn once(
    options: &Options,
    (rate, length): (Option<u64>, Duration),
    clock: &Arc<dyn Clock>,
    tell: &mut impl FnMut(&str),
) -> Result<Run> {
    let soaking = Soaking { model: options.model.clone(), batch_ms: options.batch_ms };
    let receiver = Process::start(&options.program, &Role::Soak(soaking), clock)?;
    let ChildMessage::Ready { address } = receiver.hear(clock.now().plus(GRACE))? else {
        return Err(unexpected("receiver"));
    };
    let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let pour = Pour { address, rate, millis, stamp_every: u64::MAX };
    let sender = Process::start(&options.program, &Role::Pour(pour), clock)?;
    let ChildMessage::Started { .. } = sender.hear(clock.now().plus(GRACE))? else {
        return Err(unexpected("sender"));
    };
    let started = clock.now();
    let samples = watch(&receiver, (started, length), clock, tell);
    let end = clock.now().plus(GRACE);
    let ChildMessage::Sent(sent) = sender.hear(end)? else { return Err(unexpected("sender")) };
    let ChildMessage::Soaked(soaked) = receiver.hear(end)? else {
        return Err(unexpected("receiver"));
    };
    let seconds = clock.now().since(started).as_secs_f64();
    if soaked.records != sent.lines {
        let text = format!("{} lines were sent and {} counted", sent.lines, soaked.records);
        return Err(Error::Failed(text));
    }
    Ok(Run { samples, soaked: *soaked, lines: sent.lines, seconds })
}

/// Looks at the receiver each second until `length` is over.
fn watch(
    receiver: &Process,
    (started, length): (Moment, Duration),
    clock: &Arc<dyn Clock>,
    tell: &mut impl FnMut(&str),
) -> Vec<(f64, Sample)> {
    let mut samples = Vec::new();
    for second in 1..length.as_secs() {
        clock.wait(&Signal::new(), Some(started.plus(Duration::from_secs(second))));
        samples.push((clock.now().since(started).as_secs_f64(), Sample::of(receiver.id())));
        tell(&format!("{second} of {} s", length.as_secs()));
    }
    samples
}

fn unexpected(who: &str) -> Error {
    Error::Failed(format!("the {who} answered something else"))
}

/// What is looked at: its name, its values by second, and how much of a slope per hour is let pass.
struct Series {
    name: &'static str,
    points: Vec<(f64, f64)>,
    allowed: Allowed,
}

enum Allowed {
    /// In percent of the mean.
    Percent(f64),
    /// In the unit of the values.
    Units(f64),
}

fn series(run: &Run) -> Vec<Series> {
    let seconds = run.soaked.seconds.iter().enumerate();
    let seconds: Vec<(f64, Second)> =
        seconds.filter(|(_, it)| it.batches > 0).map(|(at, it)| (float(at as u64), *it)).collect();
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
            of_process(|it| float(it.anonymous_bytes) / 1024.0),
            Allowed::Units(1024.0),
        ),
        series("descriptors", of_process(|it| float(it.files)), Allowed::Units(0.0)),
        series("threads", of_process(|it| float(it.threads)), Allowed::Units(0.0)),
    ]
}

fn rows(run: &Run, length: Duration) -> String {
    let mut text = format!(
        "{:<22} {:>12} {:>14} {:>14}   {}\n",
        "of the receiver", "mean", "slope per hour", "± 95 %", "judgement"
    );
    for Series { name, points, allowed } in series(run) {
        let (from, to) = (length.as_secs_f64() * WARM_UP, length.as_secs_f64());
        let kept: Vec<(f64, f64)> =
            points.into_iter().filter(|(at, _)| (from..to).contains(at)).collect();
        let Some(line) = Line::through(&bins(&kept)) else {
            let _ = writeln!(text, "{name:<22} too few samples");
            continue;
        };
        let Line { mean, slope, error } = line;
        let (slope, error) = (slope * 3_600.0, error * 3_600.0);
        let judged = judge(&allowed, mean, slope, error);
        let _ = writeln!(text, "{name:<22} {mean:>12.1} {slope:>+14.2} {error:>14.2}   {judged}");
    }
    text
}

fn judge(allowed: &Allowed, mean: f64, slope: f64, error: f64) -> &'static str {
    let bound = match allowed {
        Allowed::Percent(percent) => mean * percent / 100.0,
        Allowed::Units(units) => *units,
    };
    if slope.abs() + error <= bound {
        "flat: within the bound"
    } else if slope.abs() <= error {
        "not distinguishable from 0"
    } else if slope.abs() <= bound {
        "within the bound"
    } else if slope < 0.0 {
        "falls"
    } else {
        "GROWS"
    }
}

/// The means of neighbouring points.
fn bins(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(BINS).max(1);
    let mean = |bin: &[(f64, f64)]| {
        let count = float(bin.len() as u64);
        let sum = bin.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / count, sum.1 / count)
    };
    points.chunks(size).map(mean).collect()
}

/// A line of least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    mean: f64,
    slope: f64,
    /// Half of the slope's interval of 95 % confidence.
    error: f64,
}

impl Line {
    /// The line through these points; none if there are too few of them.
    fn through(points: &[(f64, f64)]) -> Option<Line> {
        if points.len() < BINS_MIN {
            return None;
        }
        let count = float(points.len() as u64);
        let middle = points.iter().map(|point| point.0).sum::<f64>() / count;
        let mean = points.iter().map(|point| point.1).sum::<f64>() / count;
        let spread: f64 = points.iter().map(|point| (point.0 - middle).powi(2)).sum();
        if spread <= 0.0 {
            return None;
        }
        let together = |point: &(f64, f64)| (point.0 - middle) * (point.1 - mean);
        let slope = points.iter().map(together).sum::<f64>() / spread;
        let rest = |point: &(f64, f64)| (point.1 - mean - slope * (point.0 - middle)).powi(2);
        let rests: f64 = points.iter().map(rest).sum();
        let error = (rests / (count - 2.0) / spread).sqrt() * student(points.len() - 2);
        Some(Line { mean, slope, error })
    }
}

/// The 97.5th percentile of Student's distribution; rounded up between the rows of the table.
fn student(freedom: usize) -> f64 {
    const TABLE: [(usize, f64); 10] = [
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (6, 2.447),
        (8, 2.306),
        (10, 2.228),
        (15, 2.131),
        (20, 2.086),
        (30, 2.042),
        (58, 2.002),
    ];
    let row = TABLE.iter().rev().find(|(least, _)| freedom >= *least);
    row.map_or(12.706, |(_, factor)| *factor)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(points: &[f64], slope: f64, flat: bool) {
        let points: Vec<(f64, f64)> =
            points.iter().enumerate().map(|(at, value)| (at as f64, *value)).collect();
        let line = Line::through(&points).expect("enough points");
        assert!((line.slope - slope).abs() < 1e-9, "{line:?}");
        assert_eq!(line.slope.abs() <= line.error, flat, "{line:?}");
    }

    #[test]
    fn slopes_and_their_intervals() {
        check(&[5.0; 20], 0.0, true);
        check(&[0.0, 2.0, 4.0, 6.0, 8.0, 10.0], 2.0, false);
        check(&[1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0], 0.0, true);
        assert_eq!(Line::through(&[(0.0, 1.0); 4]), None);
        assert_eq!(Line::through(&[(0.0, 1.0); 40]), None, "all at once");
    }

    #[test]
    fn judgements() {
        let check = |slope, error, expected| {
            assert_eq!(judge(&Allowed::Percent(1.0), 1_000.0, slope, error), expected);
        };
        check(1.0, 2.0, "flat: within the bound");
        check(50.0, 60.0, "not distinguishable from 0");
        check(9.0, 2.0, "within the bound");
        check(50.0, 2.0, "GROWS");
        check(-50.0, 2.0, "falls");
        assert_eq!(judge(&Allowed::Units(0.0), 9.0, 0.0, 0.0), "flat: within the bound");
    }

    #[test]
    fn seconds_gather_batches_and_bins_gather_seconds() {
        let mut seconds = Vec::new();
        for (second, micros) in [(0, 100), (0, 300), (2, 50)] {
            note(&mut seconds, second, Duration::from_micros(micros), Duration::ZERO);
        }
        assert_eq!(seconds.len(), 3);
        assert!((seconds[0].processing_us - 200.0).abs() < 1e-6 && seconds[1].batches == 0);
        let points: Vec<(f64, f64)> = (0..120).map(|at| (f64::from(at), 1.0)).collect();
        assert_eq!((bins(&points).len(), bins(&points)[0]), (60, (0.5, 1.0)));
        assert_eq!(bins(&points[..7]).len(), 7);
    }
}
