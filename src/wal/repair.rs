//! The tools for a log: a survey of its content and faults, and the way to give up what is lost or lies after a named place.
//! Runs on the main thread. The survey changes nothing.

use super::examine::{Examination, Examined, Extent, Known, examine};
use super::format::{Place, Position, SEGMENT_HEADER, segment_name};
use super::segment_list::{LIST, Listing, SegmentList, Synced};
use super::segment_reader::{Scan, Segment, Visit, unreadable};
use crate::error::{Error, Result};
use crate::storage::{PutFailure, Storage, sync};
use crate::sync::Arc;

/// The content of one segment.
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
    /// The end of the last whole group, in bytes.
    pub end: u64,
    /// The fault at `end`, if there is one.
    pub problem: Option<String>,
    /// True if a start would take the problem for a torn tail, and cut it.
    pub is_tail: bool,
}

/// The content of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The segments that must be there, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Segments that nothing needs any more; a start removes them.
    pub old: Vec<u64>,
    /// Nothing was ever written here.
    pub is_fresh: bool,
    /// True if the list says that the log was closed: nothing can be missing at its end.
    pub is_closed: bool,
    /// The end up to which all must be there; `None` if there is nothing.
    pub known_end: Option<Place>,
    /// The newest checkpoint that the log knows; 0 if there is none.
    pub checkpoint: u64,
    /// The errors that would stop a start, in its words, the most telling first; empty if it would continue.
    pub refusals: Vec<String>,
}

/// Looks at every segment, oldest first. Changes nothing.
///
/// # Errors
/// If the directory or a file cannot be read; damage is part of the report.
pub fn survey(storage: &dyn Storage, known: impl Into<Known>) -> Result<Survey> {
    survey_with(storage, known.into(), &mut |_, _| Ok(()), &mut |_, _| ())
}

/// The same, and hands out the records of the whole groups up to the first fault. Calls `looked` before each segment with the
/// number of segments done, and of all.
///
/// # Errors
/// If the directory or a file cannot be read, or what `each` returns; damage is part of the report.
pub fn survey_with(
    storage: &dyn Storage,
    known: Known,
    each: &mut Visit<'_>,
    looked: &mut dyn FnMut(usize, usize),
) -> Result<Survey> {
    let found = examine(storage, known, Extent::Everything, each, looked)?;
    let newest = found.segments.len().saturating_sub(1);
    let segments = found.segments.iter().enumerate();
    let list = found.list.as_ref();
    Ok(Survey {
        segments: segments.map(|(at, segment)| report(segment, at == newest)).collect(),
        known_end: known_end(list, known),
        is_closed: list.is_some_and(|list| list.segments.iter().all(|segment| segment.closed)),
        refusals: found.findings.iter().map(|it| it.error(storage).to_string()).collect(),
        old: found.old,
        is_fresh: found.fresh,
        checkpoint: found.checkpoint,
    })
}

/// The end up to which list and checkpoint know the log.
fn known_end(list: Option<&SegmentList>, known: Known) -> Option<Place> {
    let listed = list.and_then(|list| list.segments.last()).map(Synced::place);
    listed.max(known.synced.as_ref().map(Synced::place).filter(|_| list.is_some()))
}

fn report(segment: &Examined, is_newest: bool) -> SegmentReport {
    let Examined { id, found, problem, .. } = segment;
    let none = SegmentReport {
        segment: *id,
        file: segment_name(*id),
        group_numbers: 0..0,
        records: 0,
        bytes: 0,
        size: 0,
        end: 0,
        problem: problem.clone(),
        is_tail: false,
    };
    let Some((segment, scan)) = found else { return none };
    // An earlier start cut the bytes after the end of an older segment.
    let torn = scan.damage.as_ref().filter(|_| is_newest && problem.is_none());
    SegmentReport {
        group_numbers: segment.header.first_group..scan.next_group,
        records: scan.records,
        bytes: scan.bytes,
        size: segment.size,
        end: scan.end,
        is_tail: torn.is_some(),
        problem: problem.as_ref().or(torn).cloned(),
        ..none
    }
}

/// Reads a record back. Changes nothing.
///
/// # Errors
/// If it cannot be read, or differs from what was written there.
pub fn read(storage: &dyn Storage, at: Position) -> Result<Vec<u8>> {
    let name = segment_name(at.segment);
    let file = storage.open(&name).map_err(|err| unreadable(storage, &name, err))?;
    Segment::read(file.as_ref(), storage, at)
}

/// The loss when a log is given up in part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// The end of the log then; `None` if nothing is left of it.
    pub end: Option<Place>,
    /// Records after that place that could still be read.
    pub records: u64,
    /// Bytes of those, without headers.
    pub bytes: u64,
    /// Number of missing groups that were synced, as far as that is known.
    pub groups_missing: u64,
    /// True if the checkpoints go as well: the log does not reach back to any of them.
    pub checkpoints: bool,
}

/// The new form of the log.
struct Plan {
    given_up: GivenUp,
    list: SegmentList,
    /// The segment that is cut, if one is.
    cut: Option<Place>,
    /// Segments that are removed, newest first.
    removed: Vec<u64>,
}

/// The loss of a [`give_up`]. Changes nothing.
///
/// # Errors
/// As [`give_up`].
pub fn would_give_up(storage: &dyn Storage, known: Known, at: Option<Place>) -> Result<GivenUp> {
    Ok(plan(storage, known, at)?.given_up)
}

/// Gives up what is lost and everything after it, so that a start continues with what is before. The log ends at the last
/// place up to which it is whole, or at `at`, which lies before that. The caller holds the lock of the storage, and has
/// removed the checkpoints if [`GivenUp::checkpoints`] says so.
///
/// # Errors
/// If no group begins or ends at `at`, a later version of the program wrote the log, or the files cannot be changed.
pub fn give_up(storage: &Arc<dyn Storage>, known: Known, at: Option<Place>) -> Result<GivenUp> {
    let Plan { given_up, list, cut, removed } = plan(storage.as_ref(), known, at)?;
    if let Some(Place { segment, offset }) = cut {
        let name = segment_name(segment);
        let fail = |err| unreadable(storage.as_ref(), &name, err);
        let file = storage.open(&name).map_err(fail)?;
        file.truncate(offset).map_err(fail)?;
        sync(file.as_ref()).map_err(fail)?;
    }
    // From here on a start finds all that the list names, even if the other files are still there.
    if let Err(PutFailure::Retry(err) | PutFailure::Fatal(err)) =
        Listing::new(Arc::clone(storage), list, None).save()
    {
        return Err(unreadable(storage.as_ref(), LIST, err));
    }
    for id in removed {
        let name = segment_name(id);
        let fail = |err| unreadable(storage.as_ref(), &name, err);
        storage.remove(&name).map_err(fail)?;
        storage.sync_dir().map_err(fail)?;
    }
    Ok(given_up)
}

fn plan(storage: &dyn Storage, known: Known, at: Option<Place>) -> Result<Plan> {
    let found = examine(storage, known, Extent::Everything, &mut |_, _| Ok(()), &mut |_, _| ())?;
    if let Some(later) = found.findings.iter().find(|finding| finding.later) {
        return Err(later.error(storage));
    }
    let checkpoints = found.list.as_ref().is_some_and(|list| known.first.max(1) < list.freed);
    let mut kept: Vec<Synced> = Vec::new();
    if !checkpoints {
        kept.extend(found.segments.iter().map_while(|segment| segment.good));
    }
    if let Some(at) = at {
        end_at(&found, &mut kept, at)?;
    }
    let cut = kept.last().map(Synced::place).filter(|end| {
        let is_longer = |(segment, _): &(Segment, Scan)| {
            segment.header.segment == end.segment && segment.size > end.offset
        };
        found.segments.iter().filter_map(|segment| segment.found.as_ref()).any(is_longer)
    });
    let list = list_of(&found, known, kept, checkpoints);
    let gone = found.segments.iter().filter(|segment| list.get(segment.id).is_none());
    let removed = gone.rev().filter(|segment| segment.is_there).map(|segment| segment.id).collect();
    let given_up = lost(&found, known, &list, checkpoints);
    Ok(Plan { given_up, list, cut, removed })
}

/// Ends the kept part at a place that the user named.
fn end_at(found: &Examination, kept: &mut Vec<Synced>, at: Place) -> Result<()> {
    let Place { segment, offset } = at;
    let known = kept.iter().position(|kept| kept.segment == segment);
    let opened = found.segments.iter().find(|examined| examined.id == segment);
    let opened = opened.and_then(|examined| examined.found.as_ref());
    let (Some(known), Some((opened, _))) = (known, opened) else {
        let end = kept.last().map_or("its beginning".to_owned(), |last| last.place().to_string());
        return Err(Error::Usage(format!(
            "the log cannot be cut at {at}: it is whole up to {end}, and segment {segment} is no part of that"
        )));
    };
    let mut ends = vec![SEGMENT_HEADER as u64];
    opened.scan_groups(&mut |end| ends.push(end))?;
    let Some(groups) = ends.iter().position(|end| *end == offset) else {
        let near = ends.iter().rev().find(|end| **end <= offset).copied();
        let near = near.unwrap_or(SEGMENT_HEADER as u64);
        return Err(Error::Usage(format!(
            "segment {segment} cannot be cut at {offset}: no group begins there; the nearest place before it is \
             {segment}:{near}, the last is {segment}:{}",
            kept[known].end
        )));
    };
    kept.truncate(known + 1);
    let last = &mut kept[known];
    (last.end, last.next_group) = (offset, last.first_group + groups as u64);
    Ok(())
}

/// The list of the kept segments. No number is used again: a checkpoint may name a segment that is given up.
fn list_of(found: &Examination, known: Known, kept: Vec<Synced>, checkpoints: bool) -> SegmentList {
    let before = found.list.clone().unwrap_or_default();
    let seen = found.segments.iter().map(|segment| segment.id).chain(found.old.iter().copied());
    let newest = seen.chain(known.synced.map(|synced| synced.segment)).max().unwrap_or(0);
    let newest = newest.max(known.first);
    let next_group = kept.last().map_or(before.next_group, |last| last.next_group);
    SegmentList {
        segments: kept,
        next_segment: before.next_segment.max(newest.saturating_add(1)),
        next_group,
        // Without a checkpoint nothing is covered.
        freed: if checkpoints { 1 } else { before.freed.max(known.kept) },
        checkpoint: if checkpoints { 0 } else { found.checkpoint },
    }
}

/// The part that the new list lacks.
fn lost(found: &Examination, known: Known, list: &SegmentList, checkpoints: bool) -> GivenUp {
    let end = list.segments.last().map(Synced::place);
    let mut given_up = GivenUp { end, checkpoints, ..GivenUp::default() };
    let (mut behind, mut readable) = (list.next_group, 0);
    for (segment, scan) in found.segments.iter().filter_map(|segment| segment.found.as_ref()) {
        behind = behind.max(scan.next_group);
        let kept = list.get(segment.header.segment);
        let (kept, groups) =
            kept.map_or((0, segment.header.first_group), |kept| (kept.end, kept.next_group));
        if kept >= scan.end {
            continue;
        }
        readable += scan.next_group.saturating_sub(groups);
        let mut count = |at: Position, bytes: &[u8]| {
            if at.offset >= kept {
                given_up.records += 1;
                given_up.bytes += bytes.len() as u64;
            }
            Ok(())
        };
        // It was read a moment ago; records that cannot be read now are not counted.
        let _ = segment.scan(&mut count);
    }
    let listed = found.list.iter().flat_map(|list| &list.segments).chain(&known.synced);
    let behind = listed.map(|listed| listed.next_group).max().unwrap_or(0).max(behind);
    given_up.groups_missing = behind.saturating_sub(list.next_group).saturating_sub(readable);
    given_up
}
