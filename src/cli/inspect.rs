//! `tidemill inspect DIR`: what a log or checkpoint directory holds, without changing it; and the cut at a place that a
//! person named. Main thread.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use indicatif::HumanBytes;

use super::progress::spinning;
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::journal;
use crate::wal::storage::{Directory, Storage};
use crate::wal::{self, SegmentReport};

const EXAMPLES: &str = "\
Examples:
  tidemill inspect /var/lib/tidemill
      what is there, and what is wrong with it
  tidemill inspect /var/lib/tidemill --cut 7:4096 --discard
      let the log end at byte 4096 of segment 7, and lose what comes after

Exit codes: 0 a start would succeed; 1 it would not, or the directory cannot be used; 2 usage.";

/// Show what a log or checkpoint directory holds, without changing it.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// The directory that `state_dir` names
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// End the log here: a place that the list shows; needs --discard
    #[arg(long, value_name = "SEGMENT:OFFSET", value_parser = place)]
    pub cut: Option<Place>,

    /// Really lose the records behind the cut
    #[arg(long, requires = "cut")]
    pub discard: bool,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    segment: u64,
    offset: u64,
}

fn place(text: &str) -> Result<Place, String> {
    let parts = text.split_once(':');
    let numbers = parts.and_then(|(segment, offset)| {
        Some(Place { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
    });
    numbers.ok_or_else(|| {
        "a segment's number, a colon and an offset in bytes, as in 7:4096".to_owned()
    })
}

/// Shows the directory on `out`, or cuts its log.
///
/// # Errors
/// [`Error::Failed`] if a start would stop at what is there, or another process uses the directory; [`Error::Usage`] if
/// the log cannot be cut there, or `--discard` is missing.
pub fn run(args: &InspectArgs, out: &mut dyn Write) -> Result<()> {
    match args.cut {
        None => show(&Directory::read_only(&args.dir)?, out),
        Some(Place { segment, offset }) if !args.discard => Err(Error::Usage(format!(
            "error: cutting the log at {segment}:{offset} loses every record behind that place for good\n  \
             = help: look at `tidemill inspect {}` first, then add `--discard`",
            args.dir.display()
        ))),
        Some(place) => cut(args, place, out),
    }
}

fn cut(args: &InspectArgs, Place { segment, offset }: Place, out: &mut dyn Write) -> Result<()> {
    // Looked at first, so that a wrong path is not made.
    Directory::read_only(&args.dir)?;
    let storage = Directory::open(&args.dir)?;
    let _lock = storage.lock()?;
    wal::cut(&storage, segment, offset)?;
    writeln!(out, "the log now ends at {segment}:{offset}").map_err(unwritable)?;
    show(&storage, out)
}

fn unwritable(err: io::Error) -> Error {
    Error::io("cannot write to standard output", err)
}

fn show(storage: &dyn Storage, out: &mut dyn Write) -> Result<()> {
    let (reports, words) = spinning(|step| {
        journal::words(storage, &mut |looked, of| step(&format!("{looked} of {of} segments")))
    })?;
    let checkpoints = checkpoint::survey(storage)?;
    let mut text = log_text(&reports);
    text.push_str(&words);
    text.push_str(&checkpoints_text(&checkpoints));
    out.write_all(text.as_bytes()).map_err(unwritable)?;
    let newest = reports.len().saturating_sub(1);
    let stops = |(at, report): (usize, &SegmentReport)| {
        report.problem.is_some() && (at < newest || !report.is_tail)
    };
    let damaged = reports.iter().enumerate().any(stops);
    match (damaged, checkpoints.last()) {
        (true, _) => Err(Error::Failed("the log is damaged: a start would stop there".to_owned())),
        (false, Some((number, Err(_)))) => {
            Err(Error::Failed(format!("the newest checkpoint, {number}, is damaged")))
        }
        _ => Ok(()),
    }
}

fn log_text(reports: &[SegmentReport]) -> String {
    let records: u64 = reports.iter().map(|report| report.records).sum();
    let bytes = HumanBytes(reports.iter().map(|report| report.bytes).sum());
    let mut text = format!("log: {} segments, {records} records, {bytes}\n", reports.len());
    for report in reports {
        let SegmentReport { segment, file, group_numbers, records, size, end, .. } = report;
        let bytes = HumanBytes(report.bytes);
        let groups = match group_numbers.is_empty() {
            true => "no whole group".to_owned(),
            false => format!("groups {} to {}", group_numbers.start, group_numbers.end - 1),
        };
        text.push_str(&format!(
            "  segment {segment} ({file}): {groups}, {records} records, {bytes}, ends at {segment}:{end} of {size}\n"
        ));
        if let Some(problem) = &report.problem {
            let kind = if report.is_tail { "torn tail, a start cuts it" } else { "damage" };
            text.push_str(&format!("    {kind}: at {segment}:{end}: {problem}\n"));
        }
    }
    text
}

fn checkpoints_text(checkpoints: &[(u64, Result<checkpoint::Checkpoint, String>)]) -> String {
    let mut text = format!("checkpoints: {}\n", checkpoints.len());
    for (number, found) in checkpoints {
        let what = match found {
            Ok(found) => {
                let section = |(name, length)| format!("{name} ({})", HumanBytes(length as u64));
                found.sections().map(section).collect::<Vec<_>>().join(", ")
            }
            Err(what) => format!("damaged: {what}"),
        };
        text.push_str(&format!("  checkpoint {number}: {what}\n"));
    }
    text
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::checkpoint::{Checkpoint, Checkpoints};
    use crate::sync::{Arc, Poison};
    use crate::wal::{LogOptions, Record, WriteAheadLog};

    #[derive(Debug, Parser)]
    struct Inspect {
        #[command(flatten)]
        args: InspectArgs,
    }

    /// What `inspect` prints and its exit code.
    fn inspect(dir: &Path, rest: &str) -> (String, u8) {
        let dir = dir.to_str().expect("UTF-8");
        let words = ["inspect", dir].into_iter().chain(rest.split_whitespace());
        let args = Inspect::try_parse_from(words).expect("good options").args;
        let mut out = Vec::new();
        let outcome = run(&args, &mut out);
        let mut text = String::from_utf8(out).expect("UTF-8");
        if let Err(err) = &outcome {
            text.push_str(&err.to_string());
        }
        (text, outcome.map_or_else(|err| err.exit_code(), |()| 0))
    }

    fn sample(dir: &Path) {
        let storage: Arc<dyn Storage> = Arc::new(Directory::open(dir).expect("made"));
        let options = LogOptions { segment_bytes: 512, ..LogOptions::with_fresh_salt() };
        let opened =
            WriteAheadLog::open(Arc::clone(&storage), options, 1, &Poison::new(), &mut |_, _| {
                Ok(())
            });
        let (log, _) = opened.expect("an empty log");
        for _ in 0..6 {
            log.append_and_wait(Record::new(vec![vec![7; 92].into()])).expect("durable");
        }
        let (mut checkpoints, _) = Checkpoints::open(storage, 2).expect("none yet");
        let mut checkpoint = Checkpoint::new();
        checkpoint.put_bytes("counts", vec![0; 2048]);
        checkpoints.write(&mut checkpoint).expect("durable");
    }

    const GOOD: &str = "log: 2 segments, 6 records, 552 B\n  \
        segment 1 (wal-000000000001.seg): groups 1 to 3, 3 records, 276 B, ends at 1:496 of 512\n  \
        segment 2 (wal-000000000002.seg): groups 4 to 6, 3 records, 276 B, ends at 2:496 of 512\n\
        checkpoints: 1\n  checkpoint 1: counts (2.00 KiB)\n";

    #[test]
    fn what_is_there_is_shown_and_not_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        sample(dir.path());
        let state = || {
            let storage = Directory::read_only(dir.path()).expect("opened");
            let names = storage.list().expect("listed");
            names
                .into_iter()
                .map(|name| std::fs::read(dir.path().join(name)).expect("read"))
                .collect::<Vec<_>>()
        };
        let before = state();
        assert_eq!(inspect(dir.path(), ""), (GOOD.to_owned(), 0));
        assert_eq!(state(), before);
        let (text, code) = inspect(&dir.path().join("missing"), "");
        assert!(text.starts_with("cannot open the directory ") && code == 1, "{text}");
        assert!(!dir.path().join("missing").exists());
    }

    #[test]
    fn damage_is_shown_and_a_cut_is_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        sample(dir.path());
        let path = dir.path().join("wal-000000000001.seg");
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[64 + 144 + 60] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        let (text, code) = inspect(dir.path(), "");
        let damage = "    damage: at 1:208: group 2 is missing, the next segment begins with group 4: \
            group 2: record 0 at offset 248 is damaged, and a later group lies at offset 352\n";
        assert!(text.contains(damage) && code == 1, "{text}");
        let (text, code) = inspect(dir.path(), "--cut 1:208");
        assert!(text.contains("then add `--discard`") && code == 2, "{text}");
        let (text, code) = inspect(dir.path(), "--cut 1:209 --discard");
        assert!(
            text.contains("no group begins there; the nearest place before it is 1:208")
                && code == 2,
            "{text}"
        );
        let (text, code) = inspect(dir.path(), "--cut 1:208 --discard");
        assert!(
            text.starts_with("the log now ends at 1:208\nlog: 1 segments, 1 records, 92 B\n"),
            "{text}"
        );
        assert_eq!(code, 0);
    }

    #[test]
    fn places_are_read() {
        assert_eq!(place("7:4096"), Ok(Place { segment: 7, offset: 4096 }));
        for wrong in ["", "7", "7:", ":1", "a:1", "-1:1", "1:2:3"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
