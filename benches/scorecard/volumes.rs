//! The log on small disks: a RELP load of many times the disk's size passes through it, and the engine is killed meanwhile,
//! again and again, also while the log is full.
//!
//! Each disk is a file system in memory, which only root may mount; elsewhere the row says that it was not run. What was
//! acknowledged must be in the batches.

use tidemill::internals::settings::units::as_f64;

use crate::disk::Disk;
use crate::load::{Load, Peers};
use crate::restart::{Batches, Restarted, start, take_rest};
use crate::verdict::Sheet;
use crate::wait::pause;
use crate::{Options, Outcome};

/// The sizes of the disks, in MiB.
const DISKS: &[u64] = &[24, 100, 150, 155, 400];

/// This much passes through a disk, in parts of its size.
const TIMES: u64 = 20;

/// The length of a record, about, in bytes.
const RECORD_BYTES: u64 = 1_000;

pub fn volumes(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    let (disks, times) = if options.smoke { (&DISKS[..1], 1) } else { (DISKS, TIMES) };
    sheet.say(&format!(
        "volumes: {times} times its size passes through the disk of a log, killed meanwhile; batches of 100 ms"
    ))?;
    for &mebibytes in disks {
        let Ok(disk) = Disk::mount(mebibytes << 20) else {
            return sheet.say("  not run: mount (needs to be root)");
        };
        let (kills, acknowledged) = pass(options, &disk, times * (mebibytes << 20))?;
        let what = format!("  {mebibytes} MiB, {kills} kills: lines acknowledged, none lost");
        sheet.line(&what, "M").show(&[as_f64(acknowledged) / 1e6])?;
    }
    Ok(())
}

/// Sends until `bytes` are acknowledged. Returns the number of kills, and of the lines that were acknowledged.
fn pass(options: &Options, disk: &Disk, bytes: u64) -> Outcome<(u64, u64)> {
    let (state, mut batches) = (disk.path().join("state"), Batches::new());
    let (mut kills, mut sent, mut acknowledged) = (0, 0, 0);
    while acknowledged * RECORD_BYTES < bytes {
        let Restarted { engine, output, .. } = start(&state, &mut batches)?;
        let length = RECORD_BYTES.to_string();
        let limits = ["--framing", "relp", "--line-len", &length];
        let load = Load::connect(&engine.address, Peers::ONE, &limits)?;
        // At moments that have nothing to do with the ticks.
        pause(options.seconds * as_f64(1 + kills * 7 % 16) / 16.0);
        drop(engine);
        let loaded = load.finish()?;
        (sent, acknowledged) = (sent + loaded.lines, acknowledged + loaded.acknowledged);
        take_rest(output, &mut batches)?;
        kills += 1;
    }
    let Restarted { engine, output, .. } = start(&state, &mut batches)?;
    engine.stop()?;
    take_rest(output, &mut batches)?;
    let records: u64 = batches.values().sum();
    assert!(
        (acknowledged..=sent).contains(&records),
        "{acknowledged} of {sent} lines were acknowledged, and {records} processed"
    );
    Ok((kills, acknowledged))
}
