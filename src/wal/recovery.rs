//! Opens the log of a directory: checks it, hands its records out, cuts the torn tail, and makes a writer for what follows.
//!
//! The same code runs for a new directory, after a clean stop and after a crash. Nothing is ever appended to a segment
//! of an earlier run. The caller may act on the records once [`recover`] has returned: only then are they surely durable,
//! even if the process before ended with a failed sync (its pages may be in memory and not on disk, so the last group is
//! written again). Runs on the main thread.

use super::LogOptions;
use super::examine::{Extent, Known, examine};
use super::format::{SEGMENT_HEADER, segment_name};
use super::present::Present;
use super::segment_list::Listing;
use super::segment_reader::{Scan, Segment, Visit, unreadable};
use super::segment_writer::{Files, TOLD_BYTES, Writer};
use super::spares::Spares;
use crate::error::Result;
use crate::storage::{Storage, StoredFile, WriteBehind, read_full, sync, write_all};
use crate::sync::{Arc, Mutex};

/// Figures of a log that was opened.
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
    /// The newest checkpoint that the log knows; 0 if there is none.
    pub checkpoint: u64,
}

/// The end of the log that a crash left unfinished; nothing in it was ever acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment that was cut.
    pub segment: u64,
    /// The end of the segment now, in bytes.
    pub offset: u64,
    /// The fault there.
    pub what: String,
}

/// Opens the log as a start does, hands its records out, and closes it again: for tools.
///
/// # Errors
/// As [`WriteAheadLog::open`](super::WriteAheadLog::open), which runs the same code.
pub fn replay(
    storage: Arc<dyn Storage>,
    options: LogOptions,
    known: impl Into<Known>,
    visit: &mut Visit<'_>,
) -> Result<Recovered> {
    options.check();
    recover(storage, options, known.into(), visit).map(|(_, recovered)| recovered)
}

/// Opens the log; `known` is what others know of it.
pub(crate) fn recover(
    storage: Arc<dyn Storage>,
    options: LogOptions,
    known: Known,
    visit: &mut Visit<'_>,
) -> Result<(Writer, Recovered)> {
    let looked = &mut |_, _| ();
    let examined = examine(storage.as_ref(), known, Extent::ToTheFirst, visit, looked)?;
    if let Some(finding) = examined.findings.first() {
        return Err(finding.error(storage.as_ref()));
    }
    let mut recovered = Recovered { checkpoint: examined.checkpoint, ..Recovered::default() };
    let mut now = examined.list.clone().unwrap_or_default();
    now.freed = now.freed.max(known.kept);
    now.segments = examined.segments.iter().filter_map(|segment| segment.good).collect();
    if let Some(last) = now.segments.last() {
        now.next_segment = now.next_segment.max(last.segment.saturating_add(1));
        now.next_group = last.next_group;
    }
    now.checkpoint = examined.checkpoint;
    let found = examined.segments.into_iter().filter_map(|segment| segment.found);
    let found: Vec<(Segment, Scan)> = found.collect();
    found.iter().for_each(|(_, scan)| recovered.add(scan));
    if let Some((segment, scan)) = found.last() {
        recovered.torn = settle_tail(storage.as_ref(), segment, scan)?;
    }
    let files = found.into_iter().map(|(segment, _)| (segment.header.segment, segment.file));
    let spares = Spares::adopt(storage.as_ref(), &examined.spares, options.segment_bytes);
    let spares = spares.map_err(|err| unreadable(storage.as_ref(), "a spare segment", err))?;
    let files = files.collect();
    let present = Present::of(&files);
    let mut writer = Writer {
        options,
        present: present.map_err(|err| unreadable(storage.as_ref(), "the log", err))?,
        files: Files::new(Mutex::new(files)),
        listing: Listing::new(Arc::clone(&storage), now, examined.list),
        spares,
        reserve: options.reserve,
        current: None,
        prepared: None,
        behind: WriteBehind::new(0, TOLD_BYTES),
        written: None,
        mended: None,
        attempt: 0,
        syncs: 0,
        storage,
    };
    writer.save_list()?;
    tidy_names(&mut writer, &examined.old)?;
    Ok((writer, recovered))
}

impl Recovered {
    fn add(&mut self, scan: &Scan) {
        self.segments += 1;
        self.groups += scan.groups;
        self.records += scan.records;
        self.bytes += scan.bytes;
    }
}

/// Cuts the newest segment after its last whole group, and makes that group durable.
fn settle_tail(storage: &dyn Storage, segment: &Segment, scan: &Scan) -> Result<Option<Torn>> {
    let id = segment.header.segment;
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

/// Removes segments that were released and not removed before the crash, and spares beyond the bound.
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
