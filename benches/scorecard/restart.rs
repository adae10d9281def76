//! R1's time: `tidemill run` with a log is killed under a RELP load, again and again, and started on the same directory.
//!
//! ```text
//!  tidemill load, RELP, as fast as it is acknowledged ─▶ tidemill run with a log ─pipe─▶ the first line: a batch is done
//! ```
//! What was acknowledged must be in the batches. Kills at every kind of moment, and lines one by one, are tests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ChildStdout;

use serde_json::Value;
use tidemill::internals::settings::units::as_f64;

use crate::listening::Listening;
use crate::load::{Load, Peers};
use crate::process::directory;
use crate::verdict::{Sheet, Target};
use crate::wait::{now, pause, seconds_since};
use crate::{Options, Outcome};

/// Kills for each pair that is asked for.
const KILLS: usize = 20;

/// The records of each batch. One that was printed and not known to be done when the engine died is printed again.
pub type Batches = BTreeMap<u64, u64>;

/// An engine over a log, after its first batch.
pub struct Restarted {
    pub engine: Listening,
    pub output: BufReader<ChildStdout>,
    /// Seconds from the start to the end of the first batch.
    pub seconds: f64,
}

/// Starts an engine over the log in `state`.
pub fn start(state: &Path, batches: &mut Batches) -> Outcome<Restarted> {
    let state = state.display().to_string();
    let begin = now();
    let run = ["--framing", "relp", "--state-dir", &state, "--job", "count", "--every", "100ms"];
    let (engine, output) = Listening::printing(&run)?;
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let seconds = seconds_since(begin);
    take(&line, batches)?;
    Ok(Restarted { engine, output, seconds })
}

fn take(line: &str, batches: &mut Batches) -> Outcome<()> {
    let batch: Value = serde_json::from_str(line)?;
    let number = |name: &str| batch[name].as_u64().ok_or(format!("no {name} in {line}"));
    batches.insert(number("batch_time_ms")?, number("records")?);
    Ok(())
}

/// Takes the rest of the output of an engine that has ended; a kill may have cut the last line.
pub fn take_rest(output: BufReader<ChildStdout>, batches: &mut Batches) -> Outcome<()> {
    for line in output.lines().map_while(Result::ok).filter(|line| line.ends_with('}')) {
        take(&line, batches)?;
    }
    Ok(())
}

pub fn restart(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    let kills = options.pairs * KILLS;
    sheet.say(&format!(
        "R1: killed {kills} times under a RELP load with a log, batches of 100 ms"
    ))?;
    let home = directory()?;
    let (state, mut batches) = (home.path().join("state"), Batches::new());
    let (mut seconds, mut sent, mut acknowledged) = (Vec::new(), 0, 0);
    for kill in 0..kills {
        let Restarted { engine, output, seconds: until_batch } = start(&state, &mut batches)?;
        seconds.extend((kill > 0).then_some(until_batch));
        let load = Load::connect(&engine.address, Peers::ONE, &["--framing", "relp"])?;
        // Up to half of the asked time, at moments that have nothing to do with the ticks.
        pause(options.seconds / 2.0 * as_f64(1 + kill as u64 * 7 % 16) / 16.0);
        drop(engine);
        let loaded = load.finish()?;
        (sent, acknowledged) = (sent + loaded.lines, acknowledged + loaded.acknowledged);
        take_rest(output, &mut batches)?;
    }
    let Restarted { engine, output, seconds: until_batch } = start(&state, &mut batches)?;
    seconds.push(until_batch);
    engine.stop()?;
    take_rest(output, &mut batches)?;
    let records: u64 = batches.values().sum();
    assert!(acknowledged > 0, "something was acknowledged");
    assert!(
        (acknowledged..=sent).contains(&records),
        "{acknowledged} of {sent} lines were acknowledged, and {records} processed"
    );
    seconds.sort_by(f64::total_cmp);
    let ninety_ninth = seconds[(seconds.len() * 99).div_ceil(100) - 1];
    let longest = Target::AtMost { pass: 2.0, goal: 2.0 };
    sheet
        .line("from the start to the end of the first batch, p99", "s")
        .judge(&[ninety_ninth], longest)?;
    sheet.line("    each of them", "s").show(&seconds)?;
    sheet.line("    lines acknowledged, none lost", "M").show(&[as_f64(acknowledged) / 1e6])
}
