//! Examines the log of a directory: its content, and its faults. A start and `inspect` run this same code, on their thread.
//! Changes nothing.
//!
//! Three sources tell what must be there: the list of segments (`list`), the headers of later groups, and the newest
//! checkpoint. A closed segment ends where the list says; an open one holds at least what the list and the checkpoint say.
//! Bytes after that may be a torn tail, if the segment is the newest: nothing tells it from groups that were lost later.
//!
//! ```text
//!  list:      5 closed at 4096   6 closed at 4088   7 open, 512 at least      next: 8
//!  segments:  5 ends at 4096     6 is missing       7 ends at 900             8 with one group: begun, not listed yet
//!                                └ damage           └ good, 900 ≥ 512         └ good
//! ```

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::format::{Place, Unreadable, Version, segment_name};
use super::names::Names;
use super::segment_list::{LIST, SegmentList, Synced};
use super::segment_reader::{Scan, Segment, Visit, damaged, open_segment, shell_word};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::sync::planted::{Planted, planted};

/// The list in a sentence.
const THE_LIST: &str = "the list `segments`";

/// The knowledge of a log from outside of it: from its checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The oldest segment that is needed; 1 without a checkpoint.
    pub first: u64,
    /// The oldest segment that is kept, for the checkpoint before.
    pub kept: u64,
    /// The durable part of the newest segment when the checkpoint was written.
    pub synced: Option<Synced>,
    /// The number of the checkpoint; 0 if there is none that can be used.
    pub checkpoint: u64,
    /// The number of the newest file of a checkpoint, whatever it holds; 0 if there is none.
    pub newest_file: u64,
}

impl From<u64> for Known {
    /// Nothing but the oldest segment that is needed.
    fn from(first: u64) -> Self {
        Known { first, kept: first, ..Known::default() }
    }
}

/// A fault of a log, which stops a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Its place; `None` if it concerns the whole directory.
    pub(crate) at: Option<Place>,
    pub(crate) what: String,
    /// A later version of the program wrote it: nothing is lost.
    pub(crate) later: bool,
}

impl Finding {
    fn at(segment: u64, offset: u64, what: String) -> Self {
        Finding { at: Some(Place { segment, offset }), what, later: false }
    }

    fn whole(what: String) -> Self {
        Finding { at: None, what, later: false }
    }

    fn unreadable(segment: u64, why: &Unreadable) -> Self {
        let later = matches!(why, Unreadable::Later(_));
        Finding { later, ..Finding::at(segment, 0, why.text().to_owned()) }
    }

    /// The loud error: the place, the fault, and the command that gets out of it.
    pub(crate) fn error(&self, storage: &dyn Storage) -> Error {
        let dir = storage.name();
        if self.later {
            let at = self.at.map_or(String::new(), |at| format!("{}: ", segment_name(at.segment)));
            let what = &self.what;
            return Error::Failed(format!(
                "a later version of this program wrote the log in {dir}: {at}{what}; use that version"
            ));
        }
        let Some(at) = self.at else {
            let (what, word) = (&self.what, shell_word(&dir));
            return Error::Failed(format!(
                "the log in {dir} is damaged: {what}; `tidemill inspect {word}` says what is there, `tidemill inspect \
                 {word} --accept-loss` gives up what is lost"
            ));
        };
        damaged(storage, at.segment, at.offset, &self.what)
    }
}

/// A segment that must be there.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) id: u64,
    /// True if there is a file of its name.
    pub(crate) is_there: bool,
    /// `None` if it is missing, cannot be read, or belongs to another log.
    pub(crate) found: Option<(Segment, Scan)>,
    /// The part that follows without a gap on the segment before; closed at its end.
    pub(crate) good: Option<Synced>,
    /// Its fault.
    pub(crate) problem: Option<String>,
}

/// The result of an examination.
#[derive(Debug, Default)]
pub(crate) struct Examination {
    /// The list in the file, if it can be read.
    pub(crate) list: Option<SegmentList>,
    /// The segments that must be there, oldest first. After a finding some are left out, unless all were asked for.
    pub(crate) segments: Vec<Examined>,
    /// Segments that nothing needs: released, or given up.
    pub(crate) old: Vec<u64>,
    pub(crate) spares: Vec<u64>,
    /// Nothing was ever written here.
    pub(crate) fresh: bool,
    /// The newest checkpoint that list and groups know.
    pub(crate) checkpoint: u64,
    /// The faults that stop a start, the most telling first.
    pub(crate) findings: Vec<Finding>,
}

/// The extent of an examination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// To the first fault: a start.
    ToTheFirst,
    /// Over everything: a report.
    Everything,
}

/// Examines a log and hands out the records of its whole groups, in order, up to the first fault. `known` is the knowledge
/// from outside. Calls `looked` before each segment with the number of segments done, and of all.
///
/// # Errors
/// What the operating system says, and what `visit` returns.
pub(crate) fn examine(
    storage: &dyn Storage,
    known: Known,
    extent: Extent,
    visit: &mut Visit<'_>,
    looked: &mut dyn FnMut(usize, usize),
) -> Result<Examination> {
    let names = Names::list(storage)?;
    let there = &names.segments;
    let mut found = Examination { spares: names.spares, ..Examination::default() };
    match SegmentList::read(storage)? {
        Some(Ok(list)) if is_foreign(storage, &list, there)? => {
            let what = format!("the list `{LIST}` is that of another log");
            found.findings.push(Finding::whole(what));
        }
        Some(Ok(list)) => {
            found.checkpoint = list.checkpoint;
            found.findings.extend(check_checkpoint(&list, known));
            found.findings.extend(check_age(&list, there, known));
            found.list = Some(list);
        }
        Some(Err(why)) => {
            let later = matches!(why, Unreadable::Later(_));
            let what = format!("the list `{LIST}`: {}", why.text());
            found.findings.push(Finding { later, ..Finding::whole(what) });
        }
        None => {
            found.fresh = there.is_empty() && known.newest_file == 0;
            found.findings.extend(check_adoption(storage, there, known)?);
        }
    }
    let known = known.settled(found.list.as_ref());
    let ids = expected(there, found.list.as_ref(), known.kept);
    found.old = there.iter().filter(|id| !ids.contains(id)).copied().collect();
    let mut chain = Chain { known, visit, before: None, broken: false };
    for (at, id) in ids.iter().enumerate() {
        if extent == Extent::ToTheFirst && !found.findings.is_empty() {
            break;
        }
        looked(at, ids.len());
        let (is_there, is_newest) = (there.contains(id), ids.last() == Some(id));
        let examined = chain.examine(storage, &mut found, Link { id: *id, is_there, is_newest })?;
        found.segments.push(examined);
    }
    Ok(found)
}

impl Known {
    fn first(&self) -> u64 {
        self.first.max(1)
    }

    /// Only the newest checkpoint tells the oldest segment that is kept: under a later one more may have been released.
    fn settled(self, list: Option<&SegmentList>) -> Known {
        let (first, kept) = (self.first(), self.kept.clamp(1, self.first()));
        let is_freed = list.is_some_and(|list| kept < list.freed);
        Known { first, kept: if is_freed { first } else { kept }, ..self }
    }
}

/// The segments that must be there from `first` on, as far as list and names tell. Segments that are older than the list and
/// unknown to it are left out: they were released, or given up.
fn expected(there: &[u64], list: Option<&SegmentList>, first: u64) -> BTreeSet<u64> {
    let live = there.iter().copied().filter(|id| *id >= first);
    let Some(list) = list else { return live.collect() };
    let listed = list.segments.iter().map(|listed| listed.segment).filter(|id| *id >= first);
    let newest = there.last().copied().unwrap_or(0);
    let listed = listed.filter(|id| *id <= newest || !planted(Planted::AcceptsMissingNewest));
    let begun = live.filter(|id| *id >= list.next_segment);
    listed.chain(begun).collect()
}

/// Returns true if all the existing segments differ from those that the list names: the list is wrong then.
fn is_foreign(storage: &dyn Storage, list: &SegmentList, there: &[u64]) -> Result<bool> {
    let mut is_foreign = false;
    for listed in list.segments.iter().filter(|listed| there.contains(&listed.segment)) {
        if let Ok(segment) = open_segment(storage, listed.segment)? {
            if segment.header.salt == listed.salt {
                return Ok(false);
            }
            is_foreign = true;
        }
    }
    Ok(is_foreign)
}

/// The fault of a checkpoint: the segments that it needs were released under a later one.
fn check_checkpoint(list: &SegmentList, known: Known) -> Option<Finding> {
    let (first, newest) = (known.first(), list.checkpoint);
    let freed = list.freed.checked_sub(1).filter(|_| first < list.freed)?;
    let what = match known.checkpoint {
        0 => format!(
            "no checkpoint can be read, and there was number {newest}; the segments up to {freed} were let go because \
             it covers them"
        ),
        number => format!(
            "checkpoint {number} needs segment {first}, and the segments up to {freed} were let go because a later one \
             covers them, number {newest}"
        ),
    };
    Some(Finding::whole(what))
}

/// The fault of the list itself: segments and checkpoint are newer.
fn check_age(list: &SegmentList, there: &[u64], known: Known) -> Option<Finding> {
    let next = list.next_segment;
    let newest = there.last().copied().unwrap_or(0);
    let needed = known.synced.map_or(0, |synced| synced.segment).max(known.first());
    let is_older = newest > next || (needed > 1 && needed >= next);
    is_older.then(|| {
        let last = newest.max(needed);
        Finding::whole(format!(
            "the list `{LIST}` ends before segment {next}, and there was segment {last}: it is an older list"
        ))
    })
}

/// The fault of a directory without a list, if it has one: the first version of the program kept no list.
fn check_adoption(storage: &dyn Storage, there: &[u64], known: Known) -> Result<Option<Finding>> {
    let missing =
        |what: String| Ok(Some(Finding::whole(format!("the list `{LIST}` is missing{what}"))));
    let first = known.first();
    let Some(newest) = there.last().filter(|id| **id >= first) else {
        let name = segment_name(first);
        return match (first, known.newest_file) {
            (1, 0) => Ok(None),
            (_, 0) => missing(format!(", and so is segment {first} ({name})")),
            (_, file) => {
                missing(format!(", and so is segment {first} ({name}); checkpoint {file} needs it"))
            }
        };
    };
    for id in there.iter().filter(|id| **id >= first) {
        let version = open_segment(storage, *id)?.map(|segment| segment.header.version);
        if version == Ok(Version::V2) {
            return missing(format!(
                ": the newest segment that is there is {newest}, and nobody knows what came after it"
            ));
        }
    }
    Ok(None)
}

/// A segment in the chain.
#[derive(Clone, Copy, Debug)]
struct Link {
    id: u64,
    is_there: bool,
    is_newest: bool,
}

/// Goes from segment to segment.
struct Chain<'a, 'v> {
    known: Known,
    visit: &'a mut Visit<'v>,
    /// The segment before.
    before: Option<Before>,
    /// An earlier segment has a fault: no more records are handed out.
    broken: bool,
}

/// The end of a segment.
#[derive(Clone, Debug)]
struct Before {
    end: Synced,
    damage: Option<String>,
}

impl Chain<'_, '_> {
    fn examine(
        &mut self,
        storage: &dyn Storage,
        found: &mut Examination,
        link: Link,
    ) -> Result<Examined> {
        let Link { id, is_there, .. } = link;
        let listed = found.list.as_ref().and_then(|list| list.get(id)).copied();
        let none = Examined { id, is_there, found: None, good: None, problem: None };
        let (segment, scan) = match self.scan(storage, link, listed)? {
            Ok(scanned) => scanned,
            Err(finding) => {
                self.broken = true;
                let problem = Some(finding.what.clone());
                found.findings.push(finding);
                return Ok(Examined { problem, ..none });
            }
        };
        found.checkpoint = found.checkpoint.max(scan.checkpoint);
        let at = Linked { link, segment: &segment, scan: &scan, listed };
        let Judged { good, finding } = self.judge(found.list.as_ref(), at);
        let problem = finding.as_ref().map(|finding| finding.what.clone());
        found.findings.extend(finding);
        Ok(Examined { found: Some((segment, scan)), good, problem, ..none })
    }

    /// Opens and scans a segment; or returns the reason why it does not belong to this log.
    fn scan(
        &mut self,
        storage: &dyn Storage,
        link: Link,
        listed: Option<Synced>,
    ) -> Result<Result<(Segment, Scan), Finding>> {
        let id = link.id;
        if !link.is_there {
            return Ok(Err(Finding::at(id, 0, missing_text(listed))));
        }
        let segment = match open_segment(storage, id)? {
            Ok(segment) => segment,
            Err(why) => return Ok(Err(Finding::unreadable(id, &why))),
        };
        if let Some(what) = self.foreign(&segment, listed) {
            return Ok(Err(Finding::at(id, 0, what)));
        }
        let scan = match self.broken {
            false => segment.scan(self.visit)?,
            true => segment.scan(&mut |_, _| Ok(()))?,
        };
        Ok(Ok((segment, scan)))
    }

    /// The good part of a segment that was scanned, and its fault.
    fn judge(&mut self, list: Option<&SegmentList>, at: Linked<'_>) -> Judged {
        let id = at.link.id;
        let end = at.synced();
        let before = self.before.replace(Before { end, damage: at.scan.damage.clone() });
        if self.broken {
            return Judged::default();
        }
        let gap = match before {
            Some(before) => at.gap_behind(&before),
            None => at.gap_at_first(list, self.known.kept),
        };
        if gap.is_some() {
            self.broken = true;
            return Judged { good: None, finding: gap };
        }
        let good = Some(end);
        if let Some(what) = at.shorter(self.known) {
            self.broken = true;
            return Judged { good, finding: Some(Finding::at(id, end.end, what)) };
        }
        // A new segment that is not listed yet: its second group is only written once it is.
        let groups = at.scan.groups;
        let unknown = list.is_some() && at.listed.is_none() && groups != 1;
        let older = || {
            format!(
                "it has {groups} groups, and the list `{LIST}` does not know it: it is an older list"
            )
        };
        Judged { good, finding: unknown.then(|| Finding::at(id, 0, older())) }
    }

    /// The evidence that a segment is not the one that list and checkpoint know.
    fn foreign(&self, segment: &Segment, listed: Option<Synced>) -> Option<String> {
        let header = &segment.header;
        let known = self.known.synced.filter(|known| known.segment == header.segment);
        let differs =
            |known: &Synced| (known.salt, known.first_group) != (header.salt, header.first_group);
        let who = match (listed.as_ref().is_some_and(differs), known.as_ref().is_some_and(differs))
        {
            (true, _) => THE_LIST,
            (_, true) => "the newest checkpoint",
            _ => return None,
        };
        Some(format!("the file is a segment of another log, not the one that {who} names"))
    }
}

/// The good part of a segment, and its fault.
#[derive(Debug, Default)]
struct Judged {
    good: Option<Synced>,
    finding: Option<Finding>,
}

/// A segment that was scanned, with the knowledge of it.
#[derive(Clone, Copy, Debug)]
struct Linked<'a> {
    link: Link,
    segment: &'a Segment,
    scan: &'a Scan,
    listed: Option<Synced>,
}

impl Linked<'_> {
    /// The durable part of it, once its end is settled.
    fn synced(self) -> Synced {
        let header = &self.segment.header;
        Synced {
            segment: header.segment,
            salt: header.salt,
            first_group: header.first_group,
            end: self.scan.end,
            next_group: self.scan.next_group,
            closed: true,
        }
    }

    /// Groups that are missing between the segment before and this one.
    fn gap_behind(self, before: &Before) -> Option<Finding> {
        let (id, header) = (self.link.id, &self.segment.header);
        let (next, first_group) = (before.end.next_group, header.first_group);
        let continues = match (header.version, self.scan.before) {
            (_, Some(place)) => place == before.end.place(),
            // It was cut after its header.
            (Version::V2, None) => true,
            // The first version left no number out.
            (Version::V1, None) => before.end.segment.saturating_add(1) == id,
        };
        if continues && first_group == next {
            return None;
        }
        let behind = self.scan.before.map_or(String::new(), |place| format!(" behind {place}"));
        let damage = before.damage.as_ref().map_or(String::new(), |what| format!(": {what}"));
        let what = format!(
            "group {next} is missing; segment {id} begins with group {first_group}{behind}{damage}"
        );
        Some(Finding::at(before.end.segment, before.end.end, what))
    }

    /// Groups that are missing before the first segment that is needed.
    fn gap_at_first(self, list: Option<&SegmentList>, first: u64) -> Option<Finding> {
        let (id, begins) = (self.link.id, self.segment.header.first_group);
        if id == 1 && begins != 1 {
            let what = format!("the first segment begins with group {begins}");
            return Some(Finding::at(id, 0, what));
        }
        // Numbers that are left out were given up: the list knows that, and so does the segment after them.
        let follows = list.is_some_and(|list| first < list.next_segment)
            || self.scan.before.is_some_and(|place| place.segment < first);
        (id != first && !follows)
            .then(|| Finding::at(first, 0, "the file is missing, and it is needed".to_owned()))
    }

    /// The evidence that the segment ends too early, or is damaged.
    fn shorter(self, known: Known) -> Option<String> {
        let (scan, end) = (self.scan, self.scan.end);
        let planted = planted(Planted::AcceptsMissingNewest) && self.link.is_newest;
        let listed = self.listed.filter(|_| !planted);
        if let Some(listed) = listed.filter(|listed| listed.closed) {
            return match end.cmp(&listed.end) {
                Ordering::Equal => None,
                Ordering::Less => Some(self.lost(&listed, THE_LIST)),
                Ordering::Greater => Some(format!(
                    "it goes on to {end}, and {THE_LIST} says that it is closed at {}",
                    listed.end
                )),
            };
        }
        let checkpoint = known.synced.filter(|known| known.segment == self.link.id && !planted);
        if let Some(listed) = listed.filter(|listed| end < listed.end) {
            return Some(self.lost(&listed, THE_LIST));
        }
        if let Some(known) = checkpoint.filter(|known| end < known.end) {
            return Some(self.lost(&known, "the newest checkpoint"));
        }
        // In an older segment the successor decides if this is damage.
        (self.link.is_newest && !scan.is_tail()).then(|| scan.damage_text())
    }

    /// The text for a segment that was synced beyond its end.
    fn lost(self, known: &Synced, who: &str) -> String {
        let Synced { end, next_group, closed, .. } = *known;
        let groups = groups_text(self.scan.next_group, next_group);
        let damage = self.scan.damage.as_ref().map_or(String::new(), |what| format!(" ({what})"));
        let least = if closed { "" } else { " at least" };
        format!(
            "{groups} missing{damage}: {who} says that it is synced up to {end}{least}, so {} bytes that may have been \
             acknowledged are lost",
            end - self.scan.end
        )
    }
}

/// The text for a segment whose file is missing.
fn missing_text(listed: Option<Synced>) -> String {
    let Some(listed) = listed else { return "the file is missing".to_owned() };
    let Synced { first_group, next_group, end, closed, .. } = listed;
    let least = if closed { "" } else { " at least" };
    format!(
        "the file is missing: {} lost{least}, {end} bytes that may have been acknowledged",
        groups_text(first_group, next_group)
    )
}

/// The groups from `first` to the one before `next`, with their verb.
fn groups_text(first: u64, next: u64) -> String {
    match next.saturating_sub(1) {
        last if last <= first => format!("group {first} is"),
        last => format!("groups {first} to {last} are"),
    }
}
