//! `tidemill inspect DIR`: what a log or checkpoint directory holds and whether a start would succeed, without changing it;
//! and the ways out where it would not. Main thread.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanBytes;

use super::args::RunArgs;
use super::judge;
use super::progress::spinning;
use super::standard;
use super::{say, unwritable};
use crate::config::Pipeline;
use crate::error::{Error, Result};
use crate::journal::{self, About, Accepted, Look};
use crate::settings::units::Env;
use crate::sink::Holds;
use crate::storage::{Access, Directory, Storage};
use crate::sync::Arc;
use crate::wal::checkpoint_file::{Checkpoint, Damaged};
use crate::wal::{GivenUp, Place, SegmentReport, Survey};
use crate::wording::{count, grouped};

const EXAMPLES: &str = "\
Examples:
  tidemill inspect /var/lib/tidemill
      what is there, and what is wrong with it
  tidemill inspect /var/lib/tidemill --pipeline words.toml
      whether `tidemill run words.toml` would start with it
  tidemill inspect /var/lib/tidemill --accept-loss
      give up what is lost, and let the log end where it is whole
  tidemill inspect /var/lib/tidemill --cut 7:4096 --discard
      let the log end at byte 4096 of segment 7, and lose what comes after

A directory that is in use is judged as if it were not, and said to be in use.
With a pipeline, one that is not there is judged as a first start's, which would make it.
Exit codes: 0 a start would succeed; 1 it would not, or the directory cannot be used; 2 usage; 78 the
pipeline file is wrong.";

/// The number of looks at a directory that is in use before what is said of it each time, and never twice, counts for nothing.
const LOOKS: usize = 5;

/// Show what a log or checkpoint directory holds, without changing it.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// The directory that `state_dir` names
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Judge `run FILE --state-dir DIR`: its places, its names, its outputs, the files that it still has to read, and what it may
    /// keep in memory; ports are not looked at. A directory that is not there is a first start's
    #[arg(long, value_name = "FILE")]
    pub pipeline: Option<PathBuf>,

    /// Set any key of the pipeline, as in `run`; may be given several times
    #[arg(long, value_name = "KEY=VALUE", requires = "pipeline")]
    pub set: Vec<String>,

    /// Judge a start with --give-up-lost
    #[arg(long, requires = "pipeline")]
    pub give_up_lost: bool,

    /// End the log here: a place that the list shows; needs --discard
    #[arg(long, value_name = "SEGMENT:OFFSET", value_parser = place)]
    pub cut: Option<Place>,

    /// Really lose the records behind the cut
    #[arg(long, requires = "cut")]
    pub discard: bool,

    /// Give up what a start misses, and everything behind it in the log
    #[arg(long, conflicts_with = "cut")]
    pub accept_loss: bool,
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

/// Shows the directory on `out`, or gives something of its log up.
///
/// # Errors
/// [`Error::Failed`] if a start would stop at what is there, or another process uses the directory; [`Error::Usage`] if
/// the log cannot be cut there, or `--discard` is missing.
pub fn run(args: &InspectArgs, out: &mut dyn Write) -> Result<()> {
    let env = |name: &str| std::env::var(name).ok();
    let changes = args.cut.is_some() || args.accept_loss;
    if args.pipeline.is_some() && !changes && !args.dir.is_dir() {
        // It is made by a first start, or is what refuses one.
        let start = Start::of(args, &env)?;
        return start.show(&Access::Look.open(&args.dir)?, None, out);
    }
    let dir: Arc<Directory> = Arc::new(open(&args.dir)?);
    let start = Start::of(args, &env)?;
    let holder = dir.holder()?;
    match args.cut {
        None if args.accept_loss => give_up(args, None, &start, out),
        None => start.show(&(dir as Arc<dyn Storage>), holder, out),
        Some(place) if !args.discard => Err(Error::Usage(format!(
            "error: cutting the log at {place} loses every record behind that place for good\n  \
             = help: look at `tidemill inspect {}` first, then add `--discard`",
            args.dir.display()
        ))),
        Some(place) => give_up(args, Some(place), &start, out),
    }
}

/// The directory, which is there.
fn open(path: &Path) -> Result<Directory> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Directory::read_only(path),
        Ok(_) => Err(Error::Failed(format!(
            "{shown} is a file: give the directory that `state_dir` names"
        ))),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Err(Error::Failed(format!(
            "{shown} does not exist: give the directory that `state_dir` names"
        ))),
        Err(err) => Err(Error::io(format!("cannot look at {shown}"), err)),
    }
}

/// Gives up what is lost, or what lies behind a place.
fn give_up(
    args: &InspectArgs,
    at: Option<Place>,
    start: &Start,
    out: &mut dyn Write,
) -> Result<()> {
    let storage: Arc<dyn Storage> = Arc::new(Directory::open(&args.dir)?);
    let _lock = storage.lock()?;
    let text = match journal::give_up(&storage, at)? {
        Some(accepted) => accepted_text(&accepted),
        None => "nothing is lost, and nothing was changed\n".to_owned(),
    };
    let written = out.write_all(text.as_bytes());
    // It is made: who gave it up must learn how much it was.
    if written.is_err() || standard::takes_nothing(io::stdout()) {
        say(text.trim_end());
    }
    written.map_err(unwritable)?;
    start.show(&storage, None, out)
}

/// The records that are given up.
fn loss_text(given_up: &GivenUp) -> String {
    let GivenUp { end, records, bytes, groups_missing, checkpoints } = given_up;
    let bytes = HumanBytes(*bytes);
    let mut text = format!("{} that can still be read, {bytes}", grouped(*records, "record"));
    if *groups_missing > 0 {
        let groups = grouped(*groups_missing, "group");
        text.push_str(&format!(", and {groups} of records that can not"));
    }
    text.push_str(&match (checkpoints, end) {
        (true, _) => ", and the checkpoints: a start begins anew".to_owned(),
        (false, Some(end)) => format!("; the log ends at {end} then"),
        (false, None) => "; the log is empty then".to_owned(),
    });
    text
}

fn accepted_text(Accepted { given_up, states }: &Accepted) -> String {
    let mut text = format!("given up: {}\n", loss_text(given_up));
    text.push_str(
        "  outputs may hold batches that are given up: the next start names and refuses such an output until its sink has \
         `existing = \"append\"`, or another place\n",
    );
    if given_up.checkpoints {
        return text;
    }
    text.push_str(
        "  batches that were planned or finished behind that place run again or are not known: their rows may come twice\n",
    );
    if !states.is_empty() {
        let states = states.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        text.push_str(&format!(
            "  states become what the rest of the log says of them, and may lack keys: {states}\n"
        ));
    }
    text
}

/// The start that is judged.
struct Start {
    /// The pipeline and its file; none: the start of the program that wrote the directory.
    pipeline: Option<(Pipeline, String)>,
    give_up_lost: bool,
}

impl Start {
    /// # Errors
    /// What is wrong with the pipeline.
    fn of(args: &InspectArgs, env: &Env<'_>) -> Result<Start> {
        let read = |file: &PathBuf| -> Result<(Pipeline, String)> {
            let run = RunArgs {
                file: Some(file.clone()),
                state_dir: Some(args.dir.display().to_string()),
                set: args.set.clone(),
                ..RunArgs::default()
            };
            Ok((run.pipeline(env)?, file.display().to_string()))
        };
        let pipeline = args.pipeline.as_ref().map(read).transpose()?;
        Ok(Start { pipeline, give_up_lost: args.give_up_lost })
    }

    /// The word for a start in the text.
    fn name(&self) -> String {
        self.pipeline
            .as_ref()
            .map_or("a start".to_owned(), |(_, file)| format!("a start of {file}"))
    }

    /// `holder`: who uses the directory.
    fn show(
        &self,
        storage: &Arc<dyn Storage>,
        holder: Option<String>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let in_use = self.in_use(storage.name(), holder)?;
        let look = match in_use.is_empty() {
            true => self.look(storage)?,
            false => settled(&mut || self.look(storage))?,
        };
        let mut text = String::new();
        for (place, holder) in in_use {
            text.push_str(&format!(
                "{place} is in use by {holder}: this is what it was a moment ago\n"
            ));
        }
        text.push_str(&look_text(storage.as_ref(), &look, &self.name()));
        out.write_all(text.as_bytes()).map_err(unwritable)?;
        look.refusal.map_or(Ok(()), Err)
    }

    fn look(&self, storage: &Arc<dyn Storage>) -> Result<Look> {
        spinning(|step| {
            let looked = &mut |looked, of| step(&format!("{looked} of {}", count(of, "segment")));
            let Some((pipeline, _)) = &self.pipeline else {
                return journal::look(storage.as_ref(), None, looked);
            };
            // An output that cannot be opened does not hide what is in the directory.
            judge::look(pipeline, self.give_up_lost, storage, looked).or_else(|err| {
                let mut look = journal::look(storage.as_ref(), None, looked)?;
                look.refusal = Some(err);
                Ok(look)
            })
        })
    }

    /// The directory and the outputs that are in use, each with who uses it.
    fn in_use(&self, dir: String, holder: Option<String>) -> Result<Vec<(String, String)>> {
        let mut in_use: Vec<_> = holder.map(|holder| (dir, holder)).into_iter().collect();
        let sinks = self.pipeline.iter().flat_map(|(pipeline, _)| &pipeline.sinks);
        for (_, sink) in sinks {
            if let Some(destination) = sink.destination()
                && matches!(destination.holds, Holds::Files { .. })
                && destination.is_there()
                && let Some(holder) = Directory::read_only(destination.path)?.holder()?
            {
                in_use.push((destination.path.display().to_string(), holder));
            }
        }
        Ok(in_use)
    }
}

/// The result of looks at a directory that changes meanwhile. A look reads the state before the outputs: a batch that came
/// between the two is one that the state seems to know nothing of, and the next look finds it there. Segments that were there
/// disappear. So a refusal counts only if two looks in a row say it in the same words.
fn settled(look: &mut dyn FnMut() -> Result<Look>) -> Result<Look> {
    let said = |looked: &Result<Look>| match looked {
        Ok(look) => look.refusal.as_ref().map(Error::to_string),
        Err(err) => Some(err.to_string()),
    };
    let mut last = look();
    for _ in 1..LOOKS {
        if said(&last).is_none() {
            return last;
        }
        let next = look();
        if said(&next) == said(&last) {
            return next;
        }
        last = next;
    }
    last.map(|mut look| {
        look.refusal = None;
        look
    })
}

/// `start`: what the start is called that is judged.
fn look_text(storage: &dyn Storage, look: &Look, start: &str) -> String {
    if look.log.is_fresh && !Path::new(&storage.name()).exists() {
        let outcome = match look.refusal {
            None => "would make it",
            Some(_) => "would be refused",
        };
        return format!("{} does not exist: a first start {outcome}\n", storage.name());
    }
    if look.log.is_fresh {
        let outcome = match look.refusal {
            None => format!("{start} begins anew"),
            Some(_) => format!("{start} would be refused"),
        };
        return format!("nothing is here: {outcome}\n");
    }
    let mut text = log_text(&look.log);
    text.push_str(&look.about.as_ref().map_or(String::new(), about_text));
    text.push_str(&look.words);
    text.push_str(&checkpoints_text(&look.checkpoints));
    for Damaged { file, what, .. } in &look.damaged {
        text.push_str(&format!("  {file}: {what}; a start uses an older checkpoint\n"));
    }
    match (&look.refusal, look.would_give_up(storage)) {
        (None, _) => text.push_str(&format!("{start} would succeed\n")),
        (Some(_), Some(given_up)) => {
            let loss = loss_text(&given_up);
            text.push_str(&format!("{start} would be refused; --accept-loss gives up {loss}\n"));
        }
        (Some(_), None) => text.push_str(&format!("{start} would be refused\n")),
    }
    text
}

/// Whose state it is, and what it knows by name.
fn about_text(About { pipeline, identity, run, names }: &About) -> String {
    let mut text = format!("state: pipeline `{pipeline}`, identity {identity}, start {run}\n");
    for (name, what) in names {
        let what = if what.is_empty() { String::new() } else { format!(": {what}") };
        text.push_str(&format!("  {name}{what}\n"));
    }
    text
}

fn log_text(log: &Survey) -> String {
    let reports = &log.segments;
    let records: u64 = reports.iter().map(|report| report.records).sum();
    let bytes = HumanBytes(reports.iter().map(|report| report.bytes).sum());
    let (segments, records) = (count(reports.len(), "segment"), count(records, "record"));
    let mut text = format!("log: {segments}, {records}, {bytes}\n");
    for report in reports {
        let SegmentReport { segment, file, group_numbers, records, size, end, .. } = report;
        let bytes = HumanBytes(report.bytes);
        let groups = match group_numbers.is_empty() {
            true => "no whole group".to_owned(),
            false if group_numbers.start + 1 == group_numbers.end => {
                format!("group {}", group_numbers.start)
            }
            false => format!("groups {} to {}", group_numbers.start, group_numbers.end - 1),
        };
        text.push_str(&format!(
            "  segment {segment} ({file}): {groups}, {}, {bytes}, ends at {segment}:{end} of {size}\n",
            count(*records, "record")
        ));
        if let Some(problem) = &report.problem {
            let kind = if report.is_tail { "torn tail, a start cuts it" } else { "damage" };
            text.push_str(&format!("    {kind}: at {segment}:{end}: {problem}\n"));
        }
    }
    if !log.old.is_empty() {
        let (old, needs) = (log.old.len(), "that nothing needs any more");
        text.push_str(&format!("  {} {needs}\n", count(old, "segment")));
    }
    text.push_str(&match log.known_end {
        Some(end) if log.is_closed => format!("  closed at {end}: nothing is missing at the end\n"),
        Some(end) => format!(
            "  not stopped in order: what came behind {end}, and is not there, would not be missed\n"
        ),
        None => String::new(),
    });
    text
}

fn checkpoints_text(checkpoints: &[(u64, Result<Checkpoint, String>)]) -> String {
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
    use clap::Parser;

    use super::*;
    use crate::journal::tests::leave_sample;
    use crate::storage::MemoryStorage;

    #[derive(Debug, Parser)]
    struct Inspect {
        #[command(flatten)]
        args: InspectArgs,
    }

    /// The text that `inspect` prints, and its exit code.
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

    /// A directory that a pipeline left, in order or not: chunks in two segments, and a checkpoint.
    fn sample(dir: &Path, in_order: bool) {
        leave_sample(Arc::new(Directory::open(dir).expect("made")), in_order);
    }

    /// All that a directory holds, with the times of its files.
    fn state(dir: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
        let entries = std::fs::read_dir(dir).expect("listed");
        let mut files: Vec<_> = entries
            .map(|entry| {
                let path = entry.expect("listed").path();
                let modified = path.metadata().and_then(|found| found.modified()).expect("a time");
                let bytes = std::fs::read(&path).expect("read");
                (path, bytes, modified)
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn what_is_there_is_shown_and_not_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        sample(dir.path(), true);
        let before = state(dir.path());
        let (text, code) = inspect(dir.path(), "");
        let expected = "log: 2 segments, 5 records, ";
        assert!(text.starts_with(expected) && code == 0, "{text}");
        assert!(text.ends_with("a start would succeed\n"), "{text}");
        assert!(text.contains(": nothing is missing at the end\n"), "{text}");
        assert!(text.contains("checkpoints: 1\n  checkpoint 1: engine ("), "{text}");
        let (about, names) =
            ("state: pipeline `p`, identity ", "  state:counts: u64\n  sink:out\n");
        assert!(text.contains(about) && text.contains(names), "{text}");
        assert_eq!(state(dir.path()), before);
    }

    #[test]
    fn what_is_no_state_directory_is_a_plain_sentence() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().display().to_string();
        let check = |name: &str, expected: &str, code: u8| {
            let found = inspect(&dir.path().join(name), "");
            assert_eq!(found, (expected.replace("DIR", &path), code));
        };
        std::fs::write(dir.path().join("file"), "text").expect("written");
        check("", "nothing is here: a start begins anew\n", 0);
        check(
            "missing",
            "DIR/missing does not exist: give the directory that `state_dir` names",
            1,
        );
        check("file", "DIR/file is a file: give the directory that `state_dir` names", 1);
        assert!(!dir.path().join("missing").exists());
        let (text, code) = inspect(&dir.path().join("missing"), "--accept-loss");
        assert!(text.ends_with("does not exist: give the directory that `state_dir` names"));
        assert_eq!((code, dir.path().join("missing").exists()), (1, false));
    }

    #[test]
    fn a_directory_in_use_is_judged_and_said_to_be_in_use() {
        let dir = tempfile::tempdir().expect("a directory");
        sample(dir.path(), false);
        let storage = Directory::open(dir.path()).expect("opened");
        let lock = storage.lock().expect("free");
        let before = state(dir.path());
        let (text, code) = inspect(dir.path(), "");
        let in_use = format!("is in use by process {}: this is what it was", std::process::id());
        assert!(text.contains(&in_use) && code == 0, "{text}");
        assert_eq!(state(dir.path()), before);
        let (text, code) = inspect(dir.path(), "--accept-loss");
        assert!(text.contains("is in use by process") && code == 1, "{text}");
        drop(lock);
        let (text, code) = inspect(dir.path(), "--accept-loss");
        assert!(text.starts_with("nothing is lost, and nothing was changed\n"), "{text}");
        assert_eq!(code, 0);
    }

    #[test]
    fn damage_is_shown_and_a_cut_is_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        sample(dir.path(), true);
        let path = dir.path().join("wal-000000000001.seg");
        let mut bytes = std::fs::read(&path).expect("read");
        *bytes.iter_mut().rfind(|byte| **byte == b'x').expect("a chunk") = b'y';
        std::fs::write(&path, bytes).expect("written");
        let before = state(dir.path());
        let (text, code) = inspect(dir.path(), "");
        assert!(text.contains("    damage: at 1:") && code == 1, "{text}");
        assert!(
            text.contains("a start would be refused; --accept-loss gives up 2 records"),
            "{text}"
        );
        let place = text.split_once("damage: at 1:").map(|(_, rest)| rest).expect("said");
        let offset = place.split_once(':').map(|(offset, _)| offset).expect("an offset");
        let (text, code) = inspect(dir.path(), &format!("--cut 1:{offset}"));
        assert!(text.contains("then add `--discard`") && code == 2, "{text}");
        let (text, code) = inspect(dir.path(), "--cut 1:65 --discard");
        assert!(
            text.contains("no group begins there; the nearest place before it is 1:64"),
            "{text}"
        );
        assert_eq!((code, state(dir.path()).len()), (2, before.len()));
        let (text, code) = inspect(dir.path(), &format!("--cut 1:{offset} --discard"));
        let given_up =
            "given up: 2 records that can still be read, 620 B, and 1 group of records that";
        assert!(text.starts_with(given_up), "{text}");
        assert!(text.contains(&format!("; the log ends at 1:{offset} then\n")), "{text}");
        assert!(
            text.contains("and may lack keys: `counts`\nlog: 1 segment, 2 records, "),
            "{text}"
        );
        assert_eq!(code, 0, "{text}");
    }

    /// The result of looks that find these refusals, one after the other; "" is none, and behind the last it stays so.
    fn check_settled(refusals: &[&str], expected: &str, looks: usize) {
        let (mut at, storage) = (0, MemoryStorage::new(0));
        let mut look = || {
            let mut look = journal::look(&storage, None, &mut |_, _| ())?;
            let says = refusals.get(at).or(refusals.last()).copied().unwrap_or_default();
            at += 1;
            match says.strip_prefix("! ") {
                Some(unread) => Err(Error::Failed(unread.to_owned())),
                None => {
                    look.refusal = (!says.is_empty()).then(|| Error::Failed(says.to_owned()));
                    Ok(look)
                }
            }
        };
        let settled = settled(&mut look).map(|look| look.refusal);
        let said = settled.unwrap_or_else(Some).map_or(String::new(), |err| err.to_string());
        assert_eq!((said.as_str(), at), (expected, looks), "{refusals:?}");
    }

    #[test]
    fn of_what_is_in_use_only_counts_what_two_looks_say() {
        check_settled(&[""], "", 1);
        check_settled(&["of another"], "of another", 2);
        check_settled(&["knows nothing of batch 1", ""], "", 2);
        check_settled(&["knows nothing of batch 1", "damaged"], "damaged", 3);
        let always: Vec<String> = (1..9).map(|at| format!("knows nothing of batch {at}")).collect();
        check_settled(&always.iter().map(String::as_str).collect::<Vec<_>>(), "", LOOKS);
        check_settled(&["! gone", "damaged", "! gone", "! gone"], "gone", 4);
        check_settled(&["! gone", ""], "", 2);
    }

    #[test]
    fn places_are_read() {
        assert_eq!(place("7:4096"), Ok(Place { segment: 7, offset: 4096 }));
        for wrong in ["", "7", "7:", ":1", "a:1", "-1:1", "1:2:3"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
