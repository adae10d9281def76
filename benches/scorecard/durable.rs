//! Rows of the log: what it costs (P10), and how long a start takes that finds one (P11). Each side is a process of its
//! own; the directories lie beside the program: a disk like that of a user, where temporary files may lie in memory.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use tidemill::internals::settings::units::as_f64;
use tidemill::internals::storage::Directory;
use tidemill::internals::wal;

use crate::kind::Kind;
use crate::load::Load;
use crate::measure::{Figures, Stopwatch};
use crate::process::{TIDEMILL, directory, run, start};
use crate::verdict::{Sheet, Target};
use crate::wait::until;
use crate::{Options, Outcome};

/// Bytes that the raw program writes between two syncs: a full chunk of the engine.
const PIECE_BYTES: usize = 4 << 20;

/// Bytes of a line that the sender sends, its end included.
const LINE_BYTES: f64 = 100.0;

/// The time between two looks at a growing log.
const LOOK: Duration = Duration::from_millis(300);

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A raw program: writes this many bytes in pieces, and syncs each. Like the engine it has the disk begin while it writes, and
/// lets the page cache forget what is saved.
pub fn raw_sync(directory: &str, bytes: u64) -> Outcome<Figures> {
    let mut file = fs::File::create(Path::new(directory).join("raw"))?;
    let part = vec![b'x'; PIECE_BYTES / 4];
    let (watch, mut figures) = (Stopwatch::start(), Figures::default());
    while figures.bytes < bytes {
        for _ in 0..4 {
            file.write_all(&part)?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        file.sync_data()?;
        figures.bytes += PIECE_BYTES as u64;
    }
    watch.stop(&mut figures);
    Ok(figures)
}

/// Only reads a log and checks every checksum in it.
pub fn read_log(directory: &str) -> Outcome<Figures> {
    let (watch, mut figures) = (Stopwatch::start(), Figures::default());
    let survey = wal::survey(&Directory::read_only(directory)?, 1)?;
    watch.stop(&mut figures);
    figures.bytes = survey.segments.iter().map(|report| report.bytes).sum();
    Ok(figures)
}

/// The engine with the job `count`, with a log or without, on this many lines.
fn ingest(lines: u64, state: Option<&Path>) -> Outcome<Figures> {
    let load = Load::listen(&["--records", &lines.to_string()])?;
    let mut args = load.reader().to_vec();
    args.extend(state.into_iter().flat_map(|state| ["--state".to_owned(), text(state)]));
    let figures = run(Kind::Count, &args)?;
    let sent = load.finish()?;
    assert_eq!((figures.records, figures.bytes), (lines, sent.bytes), "every line was received");
    Ok(figures)
}

fn bytes_per_second(figures: &Figures) -> f64 {
    as_f64(figures.bytes) / figures.seconds
}

pub fn cost(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say(
        "P10: ingest with the log beside the lesser of without it and a raw write + fdatasync",
    )?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive count")]
    let lines = if options.smoke { 200_000 } else { (options.seconds * 4e6) as u64 };
    let (mut ratios, mut on_off) = (Vec::new(), Vec::new());
    let mut sides = [const { Vec::new() }; 3];
    for pair in 0..options.pairs {
        let home = directory()?;
        let mut found = [0.0; 3];
        // Alternating, so that none is always the one that finds the disk busy.
        for turn in 0..3 {
            let side = (turn + pair) % 3;
            found[side] = bytes_per_second(&match side {
                0 => ingest(lines, None)?,
                1 => ingest(lines, Some(&home.path().join("state")))?,
                _ => {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "a size"
                    )]
                    let bytes = (as_f64(lines) * LINE_BYTES) as u64;
                    let args = ["--state".to_owned(), text(home.path())];
                    run(
                        Kind::RawSync,
                        &[&args[..], &["--rounds".to_owned(), bytes.to_string()]].concat(),
                    )?
                }
            });
        }
        let [off, on, raw] = found;
        ratios.push(on / off.min(raw));
        on_off.push(on / off);
        sides.iter_mut().zip(found).for_each(|(side, rate)| side.push(rate / 1e6));
    }
    let target = Target::AtLeast { pass: 0.90, goal: 0.98 };
    sheet.line("log on, beside the lesser of off and raw", "x").judge(&ratios, target)?;
    sheet.line("    log on beside log off", "x").show(&on_off)?;
    for (name, side) in
        ["    log off", "    log on", "    raw write + fdatasync"].iter().zip(&sides)
    {
        sheet.line(name, "MB/s").show(side)?;
    }
    Ok(())
}

/// Makes a log of this many lines that no batch was given: a process that only receives, killed.
fn abandoned_log(home: &Path, lines: u64) -> Outcome<u64> {
    let load = Load::listen(&["--records", &lines.to_string()])?;
    let mut command = Command::new(TIDEMILL);
    let from = format!("tcp://{}", load.address);
    command.args(["run", "--from", &from, "--job", "count", "--every", "1h", "--to", "null"]);
    command.args(["--http", "off", "--quiet", "--state-dir", &text(home)]);
    let engine = start(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let sent = load.finish()?;
    until("everything is in the log", LOOK, || Ok(read_log(&text(home))?.bytes >= sent.bytes))?;
    drop(engine);
    Ok(sent.bytes)
}

pub fn recovery(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say("P11: from the start to the end of the first batch, beside a program that reads the log and checks it")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive count")]
    let lines = if options.smoke { 100_000 } else { (options.seconds * 3e6) as u64 };
    let (mut ratios, mut ours, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.pairs {
        let home = directory()?;
        let bytes = abandoned_log(home.path(), lines)?;
        let args = ["--state".to_owned(), text(home.path())];
        let read = run(Kind::ReadLog, &args)?.seconds;
        let recovered = run(Kind::Recover, &args)?;
        assert_eq!(recovered.records, lines, "the first batch has every line");
        ratios.push(read / recovered.seconds);
        ours.push(recovered.seconds / as_f64(bytes) * 1e9);
        bare.push(read / as_f64(bytes) * 1e9);
    }
    let target = Target::AtLeast { pass: 0.7, goal: 0.9 };
    sheet.line("reading and checking beside recovery", "x").judge(&ratios, target)?;
    sheet.line("    recovery to the end of the first batch", "s/GB").show(&ours)?;
    sheet.line("    reading and checking", "s/GB").show(&bare)
}
