//! Opens the log of a directory: checks it, hands its records out, cuts the torn tail, and makes a writer behind it.
//!
//! The same code runs for a new directory, after a clean stop and after a crash. Nothing is ever appended to a segment
//! of an earlier run. What is handed out may be acted on once [`recover`] has returned: only then is it durable for
//! sure, also where the process before ended with a sync that failed (its pages may be in memory and not on disk, so the
//! last group is written again).

use std::collections::BTreeMap;

use super::LogOptions;
use super::format::{SEGMENT_HEADER, segment_name, segment_of, spare_of};
use super::reader::{Scan, Segment, Visit, damaged, open_segment, unreadable};
use super::spares::Spares;
use super::storage::{Behind, Storage, StoredFile, read_full, sync, write_all};
use super::writer::{Files, TOLD_BYTES, Writer};
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex};

/// What was found in a log that was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments read.
    pub segments: u64,
    /// Whole groups in them.
    pub groups: u64,
    /// Records in those.
    pub records: u64,
    /// Bytes of the records, without headers.
    pub bytes: u64,
    /// The torn tail that was cut.
    pub torn: Option<Torn>,
}

/// The end of the log that a crash left unfinished; nothing in it was ever acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment that was cut.
    pub segment: u64,
    /// Where it ends now, in bytes.
    pub offset: u64,
    /// What was wrong there.
    pub what: String,
}

/// Opens the log as a start does, hands its records out, and lets it go again: for tools that look at a log.
///
/// # Errors
/// As [`WriteAheadLog::open`](super::WriteAheadLog::open), which runs the same code.
pub fn replay(
    storage: Arc<dyn Storage>,
    options: LogOptions,
    first: u64,
    visit: &mut Visit<'_>,
) -> Result<Recovered> {
    options.check();
    recover(storage, options, first, visit).map(|(_, recovered)| recovered)
}

/// What the directory holds, by its names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) segments: Vec<u64>,
    pub(crate) spares: Vec<u64>,
}

impl Names {
    pub(crate) fn list(storage: &dyn Storage) -> Result<Self> {
        let what = || format!("cannot list {}", storage.name());
        let names = storage.list().map_err(|err| Error::io(what(), err))?;
        let mut segments: Vec<u64> = names.iter().filter_map(|name| segment_of(name)).collect();
        segments.sort_unstable();
        Ok(Names { segments, spares: names.iter().filter_map(|name| spare_of(name)).collect() })
    }
}

/// Opens the log, of which the segments from `first` on are needed.
pub(crate) fn recover(
    storage: Arc<dyn Storage>,
    options: LogOptions,
    first: u64,
    visit: &mut Visit<'_>,
) -> Result<(Writer, Recovered)> {
    let names = Names::list(storage.as_ref())?;
    let (old, live): (Vec<u64>, Vec<u64>) = names.segments.iter().partition(|id| **id < first);
    expect_all(storage.as_ref(), first, &live)?;
    let mut recovered = Recovered::default();
    let mut files = BTreeMap::new();
    let mut before: Option<(u64, Scan)> = None;
    for id in &live {
        let segment = open_segment(storage.as_ref(), *id)?;
        expect_chain(storage.as_ref(), &segment, before.as_ref())?;
        let scan = segment.scan(visit)?;
        recovered.add(&scan);
        files.insert(*id, Arc::clone(&segment.file));
        if live.last() == Some(id) {
            recovered.torn = settle_tail(storage.as_ref(), &segment, &scan)?;
        }
        before = Some((*id, scan));
    }
    let spares = Spares::adopt(storage.as_ref(), &names.spares, options.segment_bytes);
    let spares = spares.map_err(|err| unreadable(storage.as_ref(), "a spare segment", err))?;
    let mut writer = Writer {
        options,
        files: Files::new(Mutex::new(files)),
        next_segment: before.as_ref().map_or(1, |(id, _)| id.saturating_add(1)),
        next_group: before.as_ref().map_or(1, |(_, scan)| scan.next_group),
        spares,
        reserve: options.reserve,
        current: None,
        prepared: None,
        behind: Behind::new(0, TOLD_BYTES),
        written: None,
        attempt: 0,
        storage,
    };
    tidy_names(&mut writer, &old)?;
    Ok((writer, recovered))
}

/// Every segment from the first that is needed must be there.
fn expect_all(storage: &dyn Storage, first: u64, live: &[u64]) -> Result<()> {
    let missing = |id: u64| {
        let name = segment_name(id);
        let dir = storage.name();
        Err(Error::Failed(format!(
            "the log is damaged: segment {id} ({name}) at offset 0: the file is missing in {dir}"
        )))
    };
    let first = first.max(1);
    if live.is_empty() && first > 1 {
        return missing(first);
    }
    match live.iter().zip(first..).find(|(found, wanted)| **found != *wanted) {
        Some((_, wanted)) => missing(wanted),
        None => Ok(()),
    }
}

/// A segment continues the one before it: otherwise groups of that one are missing.
fn expect_chain(
    storage: &dyn Storage,
    segment: &Segment,
    before: Option<&(u64, Scan)>,
) -> Result<()> {
    let (id, first_group) = (segment.header.segment, segment.header.first_group);
    match before {
        Some((before, scan)) if scan.next_group != first_group => {
            let next = scan.next_group;
            let what = scan.damage.as_deref().unwrap_or("nothing is there");
            let what =
                format!("group {next} is missing, segment {id} begins with {first_group}: {what}");
            Err(damaged(storage, *before, scan.end, &what))
        }
        None if id == 1 && first_group != 1 => {
            let what = format!("the first segment begins with group {first_group}");
            Err(damaged(storage, id, 0, &what))
        }
        _ => Ok(()),
    }
}

impl Recovered {
    fn add(&mut self, scan: &Scan) {
        self.segments += 1;
        self.groups += scan.groups;
        self.records += scan.records;
        self.bytes += scan.bytes;
    }
}

/// Cuts the newest segment behind its last whole group, and makes that group durable.
fn settle_tail(storage: &dyn Storage, segment: &Segment, scan: &Scan) -> Result<Option<Torn>> {
    let id = segment.header.segment;
    if !scan.is_tail() {
        return Err(damaged(storage, id, scan.end, &scan.damage_text()));
    }
    let name = segment_name(id);
    let fail = |err| unreadable(storage, &name, err);
    rewrite(segment.file.as_ref(), scan).map_err(fail)?;
    segment.file.truncate(scan.end).map_err(fail)?;
    sync(segment.file.as_ref()).map_err(fail)?;
    Ok(scan.damage.clone().map(|what| Torn { segment: id, offset: scan.end, what }))
}

/// Writes the last group again, unchanged: a sync that failed may have left it in memory only, marked as saved.
fn rewrite(file: &dyn StoredFile, scan: &Scan) -> std::io::Result<()> {
    let start = if scan.groups == 0 { 0 } else { scan.last_group };
    let end = if scan.groups == 0 { SEGMENT_HEADER as u64 } else { scan.end };
    let len = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len];
    let got = read_full(file, start, &mut bytes)?;
    write_all(file, start, &[&bytes[..got]])
}

/// Removes what was released before the crash and could not be removed any more, and spares beyond the bound.
fn tidy_names(writer: &mut Writer, old: &[u64]) -> Result<()> {
    let storage = Arc::clone(&writer.storage);
    for id in old {
        let name = segment_name(*id);
        writer.let_go(*id).map_err(|err| unreadable(storage.as_ref(), &name, err))?;
    }
    let most = writer.spares_max();
    let trimmed = writer.spares.trim(storage.as_ref(), most);
    trimmed.map_err(|err| unreadable(storage.as_ref(), "a spare segment", err))?;
    storage.sync_dir().map_err(|err| unreadable(storage.as_ref(), "the directory", err))
}
