//! Backpressure: a job that can do so much is sent three times as much, and then less again. The job, its rate and the
//! batches are real: `tidemill run` and `tidemill load`; what a batch held and how late it began is what the engine prints.
//!
//! ```text
//!  what can it do? ─▶ half of it, 2 s ─▶ three times as much ─▶ the old connection has ended ─▶ 0.7 of it
//! ```

use std::time::Duration;

use tidemill::internals::lab::stats::{median, quantile};
use tidemill::internals::settings::units::as_f64;

use crate::console_reader::{Printed, Printing};
use crate::listening::Listening;
use crate::load::{Load, Peers};
use crate::verdict::{Sheet, Target};
use crate::wait::until;
use crate::{Options, Outcome};

/// Costs a worker some microseconds for each line, and finds none: no line holds a `#`.
const JOB: &str = r"grep=(?:\w{3,9}\W+){9,12}\w*[aeiou]\w*#";

/// Seconds and microseconds of a batch.
const BATCH: f64 = 0.1;
const BATCH_US: u64 = 100_000;

/// The batches that it may take to settle and to recover.
const WITHIN: usize = 10;

/// The time between two questions to the engine.
const LOOK: Duration = Duration::from_millis(5);

/// The figures of one run.
struct Found {
    /// Lines a second that the job can do.
    capacity: f64,
    /// Batches until the scheduling delay stays below one batch, and the most delay after the tenth, in batches.
    settled: f64,
    delay: f64,
    /// Of the batches after the tenth: the 95th percentile of the records beside the 5th, and all beside the capacity.
    spread: f64,
    taken: f64,
    /// Batches until all that comes is taken at once again.
    recovered: f64,
}

pub fn overload(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say("overload: backpressure, three times what the job can do, and then 0.7 of it; batches of 100 ms")?;
    let found = (0..options.pairs).map(|_| once(options)).collect::<Outcome<Vec<Found>>>()?;
    let each = |of: fn(&Found) -> f64| found.iter().map(of).collect::<Vec<f64>>();
    let within = Target::AtMost { pass: 10.0, goal: 5.0 };
    let one = Target::AtMost { pass: 1.0, goal: 0.5 };
    sheet.line("what the job can do", "lines/s").show(&each(|it| it.capacity))?;
    sheet
        .line("batches until the delay stays below one", "batches")
        .judge(&each(|it| it.settled), within)?;
    sheet
        .line("most scheduling delay after the tenth", "batches")
        .judge(&each(|it| it.delay), one)?;
    sheet.line("records of those batches, p95 / p5", "x").show(&each(|it| it.spread))?;
    sheet.line("    taken meanwhile, of what it can do", "x").show(&each(|it| it.taken))?;
    sheet.line("batches until it has recovered", "batches").judge(&each(|it| it.recovered), within)
}

fn once(options: &Options) -> Outcome<Found> {
    let capacity = capacity()?;
    let run = ["--job", JOB, "--every", "100ms", "--set", "workers=1"];
    let run = [&run[..], &["--set", "source.in.backpressure=true"]].concat();
    let (engine, output) = Listening::printing(&run)?;
    let printing = Printing::start(output)?;
    send(&engine, 0.5 * capacity, 2.0)?;
    let before = printing.batches().len();
    send(&engine, 3.0 * capacity, (5.0 * options.seconds).max(3.0))?;
    let during = printing.batches().split_off(before);
    until_read(&engine)?;
    let before = printing.batches().len();
    send(&engine, 0.7 * capacity, 3.0)?;
    let after = printing.batches().split_off(before);
    engine.stop()?;
    printing.finish();
    let settling = busy(&during);
    let settled = &settling[WITHIN.min(settling.len())..];
    assert!(settled.len() > WITHIN, "there was enough to see: {} batches", settling.len());
    let delays = settled.iter().map(|batch| batch.scheduling_delay_us).max().unwrap_or(0);
    let records: Vec<f64> = settled.iter().map(|batch| as_f64(batch.records)).collect();
    Ok(Found {
        capacity,
        settled: as_f64(before_all(&settling, is_prompt) as u64),
        delay: as_f64(delays) / as_f64(BATCH_US),
        spread: quantile(&records, 0.95) / quantile(&records, 0.05).max(1.0),
        taken: median(&records) / BATCH / capacity,
        recovered: as_f64(recovered(&busy(&after), 0.7 * capacity) as u64),
    })
}

/// Lines a second that the job can do: what its batches held by what they took, with nothing to steer them.
fn capacity() -> Outcome<f64> {
    let run =
        ["--job", JOB, "--every", "100ms", "--set", "workers=1", "--set", "store_bytes_max=4MiB"];
    let (engine, output) = Listening::printing(&run)?;
    let printing = Printing::start(output)?;
    Load::connect(&engine.address, Peers::ONE, &["--seconds", "2"])?.finish()?;
    until_read(&engine)?;
    engine.stop()?;
    let batches = printing.finish();
    let full = || batches.iter().filter(|batch| batch.records > 1_000);
    let records: u64 = full().map(|batch| batch.records).sum();
    let micros: u64 = full().map(|batch| batch.processing_us).sum();
    if micros == 0 {
        Err("the job did nothing".into())
    } else {
        Ok(as_f64(records) * 1e6 / as_f64(micros))
    }
}

fn send(engine: &Listening, rate: f64, seconds: f64) -> Outcome<()> {
    let (rate, seconds) = (format!("{rate:.0}"), format!("{seconds}"));
    let limits = ["--rate", &rate, "--seconds", &seconds];
    Load::connect(&engine.address, Peers::ONE, &limits)?.finish()?;
    Ok(())
}

/// Waits until everything that lies in the sockets is read and done: the sender has ended, and with it its overload.
fn until_read(engine: &Listening) -> Outcome<()> {
    until("the engine has read what was sent", LOOK, || {
        let receiver = &engine.page("/api/v1/receivers")?[0];
        let (open, records) = (receiver["open"].as_u64(), receiver["records"].as_u64());
        Ok(open == Some(0) && engine.page("/api/v1/status")?["records"].as_u64() == records)
    })
}

/// The batches from the first one that has a record to the last.
fn busy(batches: &[Printed]) -> Vec<Printed> {
    let has = |batch: &Printed| batch.records > 0;
    let first = batches.iter().position(has).unwrap_or(batches.len());
    let end = batches.iter().rposition(has).map_or(first, |last| last + 1);
    batches[first..end].to_vec()
}

fn is_prompt(batch: &Printed) -> bool {
    batch.scheduling_delay_us < BATCH_US
}

/// The number of batches before the first one from which on all are `so`.
fn before_all(batches: &[Printed], so: impl Fn(&Printed) -> bool) -> usize {
    batches.iter().rposition(|batch| !so(batch)).map_or(0, |last| last + 1)
}

/// The batches before all that comes, `rate` lines a second, is taken at once: any five together hold nearly as much. The
/// last batch is the rest.
fn recovered(batches: &[Printed], rate: f64) -> usize {
    let fives = batches.windows(5).map(|five| {
        let records: u64 = five.iter().map(|batch| batch.records).sum();
        as_f64(records) >= 0.9 * rate * 5.0 * BATCH && five.iter().all(is_prompt)
    });
    let fives: Vec<bool> = fives.collect();
    let whole = &fives[..fives.len().saturating_sub(1)];
    whole.iter().position(|good| *good).unwrap_or(batches.len())
}
