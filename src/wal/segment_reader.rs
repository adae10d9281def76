//! Reads segments: the whole groups, their end, and if that end is a torn tail or damage.
//!
//! The rule: a group that is not whole, in the newest segment and with no group of a higher number after it, is the torn tail
//! of the write that a crash interrupted. Anything else is damage and stops the start. The rule holds because a group is only
//! written after the one before it was synced. Records are handed out only once their whole group is known to be good.
//! Changes nothing. Runs on the thread of the start or the tool; does not know what a record means.

use std::io;

use super::format::{
    ALIGN, GroupHeader, Place, Position, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader, Slot,
    Unreadable, Version, decode_record, segment_name,
};
use crate::error::{Error, Result};
use crate::storage::{Storage, StoredFile, read_full};
use crate::sync::Arc;

/// The fewest bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Takes the records of a replay, in order. An error ends the replay.
pub type Visit<'a> = dyn FnMut(Position, &[u8]) -> Result<()> + 'a;

/// A segment whose header is good.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Arc<dyn StoredFile>,
    pub(crate) header: SegmentHeader,
    /// The file's length, in bytes.
    pub(crate) size: u64,
}

/// A whole group.
struct Group {
    header: GroupHeader,
    /// The seed of its records.
    seed: u32,
}

/// The result of a scan of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The offset of the last whole group; 0 if there is none.
    pub(crate) last_group: u64,
    /// Its end.
    pub(crate) end: u64,
    /// The number that the next group has.
    pub(crate) next_group: u64,
    pub(crate) groups: u64,
    pub(crate) records: u64,
    /// Bytes of the records, without headers.
    pub(crate) bytes: u64,
    /// The end of the durable log when the first group was written; `None` without a group, and in version 1.
    pub(crate) before: Option<Place>,
    /// The newest checkpoint that a group knows; 0 if there is none.
    pub(crate) checkpoint: u64,
    /// The fault at `end`; `None` if nothing was written there.
    pub(crate) damage: Option<String>,
    /// The offset of a group of a higher number after `end`: the damage is no torn tail then.
    pub(crate) later_group: Option<u64>,
}

impl Scan {
    /// Returns true if a crash may leave this end, or if there is no damage.
    pub(crate) fn is_tail(&self) -> bool {
        self.later_group.is_none()
    }

    /// The text for an end that is no tail.
    pub(crate) fn damage_text(&self) -> String {
        let what = self.damage.as_deref().unwrap_or("a group is missing");
        match self.later_group {
            Some(later) => format!("{what}, and a later group lies at offset {later}"),
            None => what.to_owned(),
        }
    }
}

/// The loud error for damage, which names the segment and the offset.
pub(crate) fn damaged(storage: &dyn Storage, segment: u64, offset: u64, what: &str) -> Error {
    let (name, dir) = (segment_name(segment), shell_word(&storage.name()));
    Error::Failed(format!(
        "the log is damaged: segment {segment} ({name}) at offset {offset}: {what}; `tidemill inspect {dir}` says what \
         is lost, `tidemill inspect {dir} --accept-loss` gives it up"
    ))
}

/// A path as one word of a shell.
pub(crate) fn shell_word(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    match !path.is_empty() && path.bytes().all(plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

/// The error for a file that the operating system does not let us read or write.
pub(crate) fn unreadable(storage: &dyn Storage, name: &str, err: io::Error) -> Error {
    Error::io(format!("cannot use {name} in {}", storage.name()), err)
}

/// Opens a segment and reads its header. Returns its fault if it is not what its name says: a segment gets its name only once
/// its header is durable.
///
/// # Errors
/// What the operating system says.
pub(crate) fn open_segment(storage: &dyn Storage, id: u64) -> Result<Result<Segment, Unreadable>> {
    let name = segment_name(id);
    let fail = |err| unreadable(storage, &name, err);
    let file = storage.open(&name).map_err(fail)?;
    let size = file.size().map_err(fail)?;
    let mut bytes = [0; SEGMENT_HEADER];
    let got = read_full(file.as_ref(), 0, &mut bytes).map_err(fail)?;
    let header = match SegmentHeader::decode(&bytes[..got]) {
        Ok(header) => header,
        Err(what) => return Ok(Err(what)),
    };
    if header.segment != id {
        let what = format!("the file is segment {}", header.segment);
        return Ok(Err(Unreadable::Damaged(what)));
    }
    Ok(Ok(Segment { file, header, size }))
}

impl Segment {
    /// Hands out the records of every whole group, from the first until one that is not whole, or the end.
    ///
    /// # Errors
    /// If the file cannot be read, or what `visit` returns.
    pub(crate) fn scan(&self, visit: &mut Visit<'_>) -> Result<Scan> {
        self.scan_with(visit, &mut |_| ())
    }

    /// Reads the whole groups, and calls `group_ends` with the end of each.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn scan_groups(&self, group_ends: &mut dyn FnMut(u64)) -> Result<Scan> {
        self.scan_with(&mut |_, _| Ok(()), group_ends)
    }

    fn scan_with(&self, visit: &mut Visit<'_>, group_ends: &mut dyn FnMut(u64)) -> Result<Scan> {
        let mut window = Window::new(self);
        let mut scan = Scan {
            end: SEGMENT_HEADER as u64,
            next_group: self.header.first_group,
            ..Scan::default()
        };
        loop {
            while let Some(group) = self.next_group(&mut window, &mut scan)? {
                self.visit_group(&mut window, &mut scan, group, visit)?;
                group_ends(scan.end);
            }
            let later = match scan.end < self.size {
                true => self.later_group(&mut window, &scan)?,
                false => None,
            };
            if later.is_none() {
                return Ok(scan);
            }
            // A writer of the log meanwhile wrote the missing group before later ones: it is there now.
            window = Window::new(self);
            scan.damage = None;
            let Some(group) = self.next_group(&mut window, &mut scan)? else {
                scan.later_group = later;
                return Ok(scan);
            };
            self.visit_group(&mut window, &mut scan, group, visit)?;
            group_ends(scan.end);
        }
    }

    /// The group at the end of the scan, if it is whole.
    fn next_group(&self, window: &mut Window<'_>, scan: &mut Scan) -> Result<Option<Group>> {
        let SegmentHeader { salt, version, .. } = self.header;
        let slot =
            GroupHeader::decode(window.bytes(scan.end, version.group_header())?, salt, version);
        let (header, seed) = match slot {
            Slot::Empty => return Ok(None),
            Slot::Damaged => {
                scan.damage = Some("there is no whole group header".to_owned());
                return Ok(None);
            }
            Slot::Group(header, seed) => (header, seed),
        };
        if header.segment != self.header.segment || header.number != scan.next_group {
            let (segment, number) = (header.segment, header.number);
            scan.damage = Some(format!(
                "group {number} of segment {segment} is where group {} must be",
                scan.next_group
            ));
            return Ok(None);
        }
        let before = Place { segment: header.segment, offset: scan.end };
        let is_first = scan.groups == 0;
        if version == Version::V2 && !is_first && header.durable != before {
            let (number, durable) = (header.number, header.durable);
            scan.damage = Some(format!("group {number} says that it lies behind {durable}"));
            return Ok(None);
        }
        if let Some(what) = self.group_damage(window, scan.end, header, seed)? {
            scan.damage = Some(format!("group {}: {what}", header.number));
            return Ok(None);
        }
        Ok(Some(Group { header, seed }))
    }

    /// The fault of the records of a group; `None` if all are good.
    fn group_damage(
        &self,
        window: &mut Window<'_>,
        start: u64,
        header: GroupHeader,
        seed: u32,
    ) -> Result<Option<String>> {
        let length = as_usize(header.length);
        let body_at = start + self.group_header();
        if self.size.saturating_sub(body_at) < u64::from(header.length) {
            return Ok(Some("it is longer than the file".to_owned()));
        }
        let mut body = window.bytes(body_at, length)?;
        if body.len() < length {
            return Ok(Some("the file ends in it".to_owned()));
        }
        let mut offset = body_at;
        for index in 0..header.records {
            let Some((position, _)) = decode_record(body, header.segment, offset, seed) else {
                return Ok(Some(format!("record {index} at offset {offset} is damaged")));
            };
            let taken = RECORD_HEADER + as_usize(position.length);
            body = &body[taken..];
            offset += taken as u64;
        }
        Ok((!body.is_empty()).then(|| "it is longer than its records".to_owned()))
    }

    /// Hands out the records of a group that is known to be whole.
    fn visit_group(
        &self,
        window: &mut Window<'_>,
        scan: &mut Scan,
        group: Group,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        let Group { header, seed } = group;
        let mut offset = scan.end + self.group_header();
        let mut body = window.bytes(offset, as_usize(header.length))?;
        while let Some((position, bytes)) = decode_record(body, header.segment, offset, seed) {
            visit(position, bytes)?;
            scan.records += 1;
            scan.bytes += bytes.len() as u64;
            let taken = RECORD_HEADER + bytes.len();
            body = &body[taken..];
            offset += taken as u64;
        }
        if scan.groups == 0 && self.header.version == Version::V2 {
            scan.before = Some(header.durable);
        }
        scan.checkpoint = scan.checkpoint.max(header.checkpoint);
        scan.groups += 1;
        scan.next_group = scan.next_group.saturating_add(1);
        scan.last_group = scan.end;
        scan.end += self.header.version.group_bytes(as_usize(header.length)) as u64;
        Ok(())
    }

    /// Bytes of a group's header.
    fn group_header(&self) -> u64 {
        self.header.version.group_header() as u64
    }

    /// The offset of a group after the end of the scan whose number is higher than the missing one.
    fn later_group(&self, window: &mut Window<'_>, scan: &Scan) -> Result<Option<u64>> {
        let mut at = scan.end + ALIGN as u64;
        let header = self.header.version.group_header();
        while at + header as u64 <= self.size {
            let left = usize::try_from(self.size - at).unwrap_or(usize::MAX);
            let bytes = window.bytes(at, left.min(READ_BYTES))?;
            if bytes.len() < header {
                return Ok(None);
            }
            let places = (bytes.len() - header) / ALIGN + 1;
            let later = |place: &usize| self.is_later(&bytes[place * ALIGN..], scan);
            if let Some(place) = written(bytes, places).find(later) {
                return Ok(Some(at + (place * ALIGN) as u64));
            }
            at += (places * ALIGN) as u64;
        }
        Ok(None)
    }

    /// Returns true if a group of this segment begins here that has a higher number than the missing one.
    fn is_later(&self, slot: &[u8], scan: &Scan) -> bool {
        let SegmentHeader { salt, version, .. } = self.header;
        if !GroupHeader::plausible(slot, version) {
            return false;
        }
        match GroupHeader::decode(slot, salt, version) {
            Slot::Group(header, _) => {
                header.segment == self.header.segment && header.number > scan.next_group
            }
            Slot::Empty | Slot::Damaged => false,
        }
    }

    /// Reads one record back.
    ///
    /// # Errors
    /// If it cannot be read, or differs from what was written there.
    pub(crate) fn read(
        file: &dyn StoredFile,
        storage: &dyn Storage,
        at: Position,
    ) -> Result<Vec<u8>> {
        let name = segment_name(at.segment);
        let mut bytes = vec![0; RECORD_HEADER + as_usize(at.length)];
        let got = read_full(file, at.offset, &mut bytes)
            .map_err(|err| unreadable(storage, &name, err))?;
        match decode_record(&bytes[..got], at.segment, at.offset, at.seed) {
            Some((found, _)) if found == at => Ok(bytes.split_off(RECORD_HEADER)),
            _ => Err(damaged(storage, at.segment, at.offset, "the record is damaged")),
        }
    }
}

/// The places for a group, of this many, that lie in no long run of zeros: most of a new segment was never written.
fn written(bytes: &[u8], places: usize) -> impl Iterator<Item = usize> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let step = ZEROS.len() / ALIGN;
    let is_written = move |from: &usize| {
        // The magic number of a header lies in the first `ALIGN` bytes, so no header begins in zeros.
        let run = &bytes[from * ALIGN..bytes.len().min((from + step) * ALIGN)];
        run != &ZEROS[..run.len()]
    };
    (0..places).step_by(step).filter(is_written).flat_map(move |from| from..places.min(from + step))
}

fn as_usize(length: u32) -> usize {
    usize::try_from(length).expect("an address space of at least 32 bits")
}

/// A part of the file in memory.
struct Window<'a> {
    segment: &'a Segment,
    buffer: Vec<u8>,
    /// The offset of the buffer's first byte in the file.
    start: u64,
}

impl<'a> Window<'a> {
    fn new(segment: &'a Segment) -> Self {
        Window { segment, buffer: Vec::new(), start: 0 }
    }

    /// `len` bytes at `offset`; fewer at the end of the file. Never takes more memory than the file is long.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let skip = offset.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let inside = skip.filter(|skip| skip.saturating_add(len) <= self.buffer.len());
        let skip = match inside {
            Some(skip) => skip,
            None => {
                self.fill(offset, len)?;
                0
            }
        };
        let end = skip.saturating_add(len).min(self.buffer.len());
        Ok(&self.buffer[skip..end])
    }

    fn fill(&mut self, offset: u64, len: usize) -> Result<()> {
        let left = usize::try_from(self.segment.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.buffer.resize(len.max(READ_BYTES).min(left), 0);
        let name = segment_name(self.segment.header.segment);
        let got = read_full(self.segment.file.as_ref(), offset, &mut self.buffer)
            .map_err(|err| Error::io(format!("cannot read {name}"), err))?;
        self.buffer.truncate(got);
        self.start = offset;
        Ok(())
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::super::format::GROUP_HEADER;
    use super::*;

    #[test]
    fn no_header_is_passed_over_in_zeros() {
        let mut bytes = vec![0; 3 * 4096 + GROUP_HEADER + 3];
        let places = (bytes.len() - GROUP_HEADER) / ALIGN + 1;
        assert_eq!(written(&bytes, places).count(), 0);
        for place in 0..places {
            let header = GroupHeader {
                segment: 1,
                number: 2,
                length: 3,
                records: 4,
                attempt: 5,
                durable: Place::default(),
                checkpoint: 7,
            };
            let (header, _) = header.encode(6);
            let at = place * ALIGN;
            let before = bytes[at..at + GROUP_HEADER].to_vec();
            bytes[at..at + GROUP_HEADER].copy_from_slice(&header);
            let found =
                |place: &usize| GroupHeader::plausible(&bytes[place * ALIGN..], Version::V2);
            assert_eq!(written(&bytes, places).find(found), Some(place));
            bytes[at..at + GROUP_HEADER].copy_from_slice(&before);
        }
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, word) in [
            ("/var/lib/tidemill", "/var/lib/tidemill"),
            ("", "''"),
            ("/my logs", "'/my logs'"),
            ("/it's", r"'/it'\''s'"),
            ("/$HOME", "'/$HOME'"),
        ] {
            assert_eq!(shell_word(path), word);
        }
    }
}
