//! R9: a sink that stands still while the input goes on as fast as it is taken. The sink is the console of `tidemill run`,
//! whose reader, this process, stops reading for a while.
//!
//! ```text
//!  tidemill load ─TCP─▶ tidemill run, 32 MiB and a spill_dir ─pipe─▶ reads ─ stands still ─ reads ─▶ all records?
//! ```

use std::time::Duration;

use tidemill::internals::settings::units::as_f64;

use crate::console_reader::Printing;
use crate::listening::Listening;
use crate::load::{Load, Peers};
use crate::verdict::{Sheet, Target};
use crate::wait::{now, pause, pause_until, seconds_since, until};
use crate::{Options, Outcome};

const BOUND: &str = "32MiB";

/// The most bytes in files: then nothing is left but to hold the sender.
const FILES: &str = "64MiB";

/// The time between two questions to the engine.
const LOOK: Duration = Duration::from_millis(20);

/// A figure of a run that is shown: its name, its unit, and the field.
type Line = (&'static str, &'static str, fn(&Found) -> f64);

/// The figures of one run.
struct Found {
    /// The most that the engine counted and the most that became resident, beside the bound.
    counted: f64,
    resident: f64,
    /// Of the seconds that the sink stood still, those in which nothing was read.
    held: f64,
    still: f64,
    /// Seconds from the sink's return until every record that was sent is done.
    drained: f64,
    /// Millions of records, none lost.
    records: f64,
}

pub fn stalled_sink(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say(&format!(
        "R9: a sink that stands still at full input; store_bytes_max {BOUND}, files of {FILES} at most"
    ))?;
    for job in ["count", "lines"] {
        let found =
            (0..options.pairs).map(|_| once(job, options)).collect::<Outcome<Vec<Found>>>()?;
        let each = |of: fn(&Found) -> f64| found.iter().map(of).collect::<Vec<f64>>();
        let memory = Target::AtMost { pass: 1.1, goal: 1.0 };
        let name = |text: &str| format!("{job}: {text}");
        sheet
            .line(&name("most memory by the engine's count"), "x bound")
            .judge(&each(|it| it.counted), memory)?;
        let resident = name("most resident beyond the idle process");
        sheet.line(&resident, "x bound").judge(&each(|it| it.resident), memory)?;
        let lines: [Line; 4] = [
            ("the sink stood still for", "s", |it| it.still),
            ("of which nothing was read for", "s", |it| it.held),
            ("from its return to the last record", "s", |it| it.drained),
            ("records, none lost or repeated", "M", |it| it.records),
        ];
        for (text, unit, of) in lines {
            sheet.line(&format!("    {}", name(text)), unit).show(&each(of))?;
        }
    }
    Ok(())
}

fn once(job: &str, options: &Options) -> Outcome<Found> {
    let seconds = (10.0 * options.seconds).max(4.0);
    let home = tempfile::tempdir()?;
    let set = |name: &str, value: &str| ["--set".to_owned(), format!("{name}={value}")];
    let spill = home.path().display().to_string();
    let set =
        [set("store_bytes_max", BOUND), set("spill_dir", &spill), set("spill_bytes_max", FILES)];
    let mut run = vec!["--job", job, "--every", "50ms"];
    run.extend(set.iter().flatten().map(String::as_str));
    let (engine, output) = Listening::printing(&run)?;
    let printing = Printing::start(output)?;
    let (idle, bound) = (engine.kib("VmRSS:"), as_f64(32 << 10));
    let load =
        Load::connect(&engine.address, Peers::ONE, &["--seconds", &(seconds + 2.0).to_string()])?;
    pause(1.0);
    printing.stand_still(true);
    let (still, mut counted) = (now(), 0.0_f64);
    let (mut read, mut held_since) = (0, still);
    while seconds_since(still) < seconds {
        pause_until(now().plus(LOOK));
        let status = engine.page("/api/v1/status")?;
        counted = counted.max(status["store_bytes"].as_f64().ok_or("no store_bytes")? / 1024.0);
        let bytes = engine.page("/api/v1/receivers")?[0]["bytes"].as_u64().ok_or("no bytes")?;
        if bytes != read {
            (read, held_since) = (bytes, now());
        }
    }
    let returned = now();
    printing.stand_still(false);
    let sent = load.finish()?.lines;
    until("every record that was sent is done", LOOK, || {
        Ok(engine.page("/api/v1/status")?["records"].as_u64() == Some(sent))
    })?;
    let drained = seconds_since(returned);
    let resident = (engine.kib("VmHWM:") - idle) / bound;
    engine.stop()?;
    let records: u64 = printing.finish().iter().map(|batch| batch.records).sum();
    assert_eq!(records, sent, "what was sent is in one batch that was printed");
    Ok(Found {
        counted: counted / bound,
        resident,
        held: returned.since(held_since).as_secs_f64(),
        still: returned.since(still).as_secs_f64(),
        drained,
        records: as_f64(records) / 1e6,
    })
}
