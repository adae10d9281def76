//! The log on small disks: a RELP load of many times the disk's size passes through it, and the engine is killed meanwhile,
//! again and again, also while the log is full.
//!
//! Each disk is a file system in memory, which only root may mount; elsewhere the row says that it was not run. What was
//! acknowledged must be in the batches.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use tidemill::time::SystemClock;

use crate::listening::{Load, pause};
use crate::measure::as_f64;
use crate::restart::{Batches, start, take_rest};
use crate::verdict::{Sheet, Target};
use crate::{Options, Outcome};

/// The sizes of the disks, in MiB.
const DISKS: &[u64] = &[24, 100, 150, 155, 400];

/// This much passes through a disk, in parts of its size.
const TIMES: u64 = 20;

/// What a record takes, about, in bytes.
const RECORD_BYTES: u64 = 1_000;

/// A disk in memory, taken away with this.
struct Disk(TempDir);

impl Disk {
    /// None if mounting is not allowed.
    fn mount(mebibytes: u64) -> Outcome<Option<Disk>> {
        let home = tempfile::tempdir()?;
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(home.path());
        let is_mounted = mount.output().is_ok_and(|output| output.status.success());
        Ok(is_mounted.then_some(Disk(home)))
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A disk that stays mounted keeps its directory, so the failure can be seen.
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

pub fn volumes(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    let (disks, times) = if options.smoke { (&DISKS[..1], 1) } else { (DISKS, TIMES) };
    sheet.say(&format!(
        "volumes: {times} times its size passes through the disk of a log, killed meanwhile; batches of 100 ms"
    ))?;
    for &mebibytes in disks {
        let Some(disk) = Disk::mount(mebibytes)? else {
            return sheet.say("  not run: mount (needs to be root)");
        };
        let (kills, acknowledged) = pass(options, &disk, times * (mebibytes << 20))?;
        let what = format!("  {mebibytes} MiB, {kills} kills: lines acknowledged, none lost");
        sheet.judge((&what, "M"), &[as_f64(acknowledged) / 1e6], Target::Shown)?;
    }
    Ok(())
}

/// Sends until `bytes` are acknowledged. Returns the number of kills, and of the lines that were acknowledged.
fn pass(options: &Options, disk: &Disk, bytes: u64) -> Outcome<(u64, u64)> {
    let (state, mut batches, clock) = (disk.state(), Batches::new(), SystemClock::new());
    let (mut kills, mut sent, mut acknowledged) = (0, 0, 0);
    while acknowledged * RECORD_BYTES < bytes {
        let (engine, output, _) = start(&state, &mut batches)?;
        let length = RECORD_BYTES.to_string();
        let load = Load::start(&engine, (1, 0), &["--framing", "relp", "--line-len", &length])?;
        // At moments that have nothing to do with the ticks.
        pause(&clock, options.seconds * as_f64(1 + kills * 7 % 16) / 16.0);
        drop(engine);
        let loaded = load.finish()?;
        (sent, acknowledged) = (sent + loaded.lines, acknowledged + loaded.acknowledged);
        take_rest(output, &mut batches)?;
        kills += 1;
    }
    let (engine, output, _) = start(&state, &mut batches)?;
    engine.stop()?;
    take_rest(output, &mut batches)?;
    let records: u64 = batches.values().sum();
    assert!(
        (acknowledged..=sent).contains(&records),
        "{acknowledged} of {sent} lines were acknowledged, and {records} processed"
    );
    Ok((kills, acknowledged))
}
