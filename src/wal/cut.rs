//! Looks at the log of a directory without changing it, and cuts it at a place that a person named.

use super::format::{SEGMENT_HEADER, segment_name};
use super::reader::{Visit, damaged, open_segment, unreadable};
use super::recovery::Names;
use super::storage::Storage;
use crate::error::{Error, Result};

/// What one segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its number.
    pub segment: u64,
    /// Its file.
    pub file: String,
    /// Numbers of its whole groups: the first, and the one after the last.
    pub group_numbers: std::ops::Range<u64>,
    /// Records in the whole groups.
    pub records: u64,
    /// Bytes of those, without headers.
    pub bytes: u64,
    /// The file's length, in bytes.
    pub size: u64,
    /// Where the last whole group ends, in bytes.
    pub end: u64,
    /// What is wrong at `end`, if something is.
    pub problem: Option<String>,
    /// Whether a start would take the problem for a torn tail, and cut it.
    pub is_tail: bool,
}

/// Looks at every segment, oldest first. Changes nothing.
///
/// # Errors
/// If the directory or a file cannot be read; damage is part of the report.
pub fn survey(storage: &dyn Storage) -> Result<Vec<SegmentReport>> {
    survey_with(storage, &mut |_, _| Ok(()), &mut |_, _| ())
}

/// The same, and hands out the records of every whole group. Before each segment it says to `looked` how many of how many
/// it has looked at.
///
/// # Errors
/// If the directory or a file cannot be read, or what `each` returns; damage is part of the report.
pub fn survey_with(
    storage: &dyn Storage,
    each: &mut Visit<'_>,
    looked: &mut dyn FnMut(usize, usize),
) -> Result<Vec<SegmentReport>> {
    let ids = Names::list(storage)?.segments;
    let mut reports: Vec<SegmentReport> = Vec::new();
    for id in &ids {
        looked(reports.len(), ids.len());
        let mut report = look(storage, *id, each)?;
        if let Some(before) = reports.last_mut() {
            compare(before, &mut report);
        }
        reports.push(report);
    }
    Ok(reports)
}

fn look(storage: &dyn Storage, id: u64, each: &mut Visit<'_>) -> Result<SegmentReport> {
    let file = segment_name(id);
    let segment = match open_segment(storage, id) {
        Ok(segment) => segment,
        Err(Error::Failed(what)) => {
            let problem = Some(what);
            return Ok(SegmentReport {
                segment: id,
                file,
                group_numbers: 0..0,
                records: 0,
                bytes: 0,
                size: 0,
                end: 0,
                problem,
                is_tail: false,
            });
        }
        Err(err) => return Err(err),
    };
    let scan = segment.scan(each)?;
    let problem = (scan.damage.is_some() || !scan.is_tail()).then(|| scan.damage_text());
    Ok(SegmentReport {
        segment: id,
        file,
        group_numbers: segment.header.first_group..scan.next_group,
        records: scan.records,
        bytes: scan.bytes,
        size: segment.size,
        end: scan.end,
        problem,
        is_tail: scan.is_tail(),
    })
}

/// Damage in a segment is what its successor says: it knows how many groups came before.
fn compare(before: &mut SegmentReport, report: &mut SegmentReport) {
    if report.segment != before.segment.saturating_add(1) {
        let missing = segment_name(before.segment.saturating_add(1));
        report.problem.get_or_insert(format!("the segment before it ({missing}) is missing"));
        report.is_tail = false;
    } else if report.end > 0 && before.end > 0 {
        let (next, first) = (before.group_numbers.end, report.group_numbers.start);
        if next == first {
            // What lies behind is what an earlier start cut.
            before.problem = None;
        } else {
            let text =
                format!("group {next} is missing, the next segment begins with group {first}");
            let what = before.problem.take().unwrap_or_default();
            before.problem = Some(if what.is_empty() { text } else { format!("{text}: {what}") });
            before.is_tail = false;
        }
    }
}

/// Cuts the log: everything from `offset` of `segment` on is gone for good. The storage must be locked by the caller.
///
/// # Errors
/// If no group of that segment begins or ends at `offset`, or the files cannot be changed.
pub fn cut(storage: &dyn Storage, segment: u64, offset: u64) -> Result<()> {
    let opened = open_segment(storage, segment)?;
    let mut ends = vec![SEGMENT_HEADER as u64];
    let scan = opened.scan_groups(&mut |end| ends.push(end))?;
    if !ends.contains(&offset) {
        let near = ends.iter().rev().find(|end| **end <= offset).copied();
        let near = near.unwrap_or(SEGMENT_HEADER as u64);
        return Err(Error::Usage(format!(
            "segment {segment} cannot be cut at {offset}: no group begins there; the nearest place before it is \
             {segment}:{near}, the last is {segment}:{}",
            scan.end
        )));
    }
    let later = Names::list(storage)?.segments.into_iter().filter(|id| *id > segment);
    // The newest first, so that a crash in between leaves no hole that is larger than the one there was.
    for id in later.collect::<Vec<_>>().into_iter().rev() {
        let name = segment_name(id);
        let fail = |err| unreadable(storage, &name, err);
        storage.remove(&name).map_err(fail)?;
        storage.sync_dir().map_err(fail)?;
    }
    let name = segment_name(segment);
    let fail = |err| unreadable(storage, &name, err);
    opened.file.truncate(offset).map_err(fail)?;
    opened.file.sync_data().map_err(fail)?;
    match open_segment(storage, segment)?.scan(&mut |_, _| Ok(()))? {
        scan if scan.damage.is_none() && scan.end == offset => Ok(()),
        scan => Err(damaged(storage, segment, scan.end, &scan.damage_text())),
    }
}
