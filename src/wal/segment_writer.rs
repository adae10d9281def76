//! Writes groups: one at a time, each synced before the next begins; rolls to a new segment, reuses released ones.
//!
//! ```text
//!  roll:    list aside ─ spare-N (preallocated) ─ header and first group ─ sync ─ rename to wal-K ─ sync of the directory
//!           ─ rename of the list ─ sync of the directory
//!  release: wal-J ─ rename to spare-M (or remove) ─ sync of the directory ─ list
//!  input:   only while the reserve, some whole spares, is there ─ plans, commits, changes: as long as there is a spare
//! ```
//! So a segment that has its name always has a good header, and a later segment proves that every group before its first
//! was synced. After an error before anything depends on the bytes (a full disk) the write can be tried again; a failed sync
//! or rename ends the log. Runs on the thread `wal-sync`, or on a test's. Does not know what a record means.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::LogOptions;
use super::format::{
    ALIGN, GROUP_HEADER, GroupHeader, Position, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader,
    Version, record_crc, record_header, segment_name, spare_name,
};
use super::present::{Present, list_to_mend};
use super::segment_list::{LIST, Listing, SegmentList, Synced};
use super::segment_reader::unreadable;
use super::spares::{Prepared, Spares};
use crate::error::Error;
use crate::storage::{AtomicFile, PutFailure, Storage, StoredFile, WriteBehind, sync, write_all};
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, Mutex};

/// The storage is notified each time after this many bytes: the log is only read after a crash, or when memory is short.
pub(crate) const TOLD_BYTES: u64 = 1 << 20;

/// The unit of the page cache, in bytes.
const PAGE_BYTES: u64 = 4096;

/// A record on its way to the log: parts that follow one another, and their checksum.
#[derive(Clone, Debug)]
pub struct Record {
    parts: Vec<Bytes>,
    length: usize,
    crc: u32,
}

impl Record {
    /// A record of these parts. The checksum is computed here, on the caller's thread.
    pub fn new(parts: Vec<Bytes>) -> Self {
        let length = parts.iter().map(Bytes::len).sum();
        let crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        Record { parts, length, crc }
    }

    /// The record's length in bytes, without the header.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The parts as one piece, as the log hands them back.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

impl From<Bytes> for Record {
    fn from(bytes: Bytes) -> Self {
        Record::new(vec![bytes])
    }
}

/// The reason why a group is not durable.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing depends on the bytes written: the write can be tried again.
    Retry(Error),
    /// The state of the disk is unknown: the log ends here, and recovers at the next start.
    Fatal(Error),
}

/// The open files of the live segments. A reader may still hold one that was released.
pub(crate) type Files = Arc<Mutex<BTreeMap<u64, Arc<dyn StoredFile>>>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: LogOptions,
    pub(crate) files: Files,
    /// The existing segments, and the numbers of the next segment and group.
    pub(crate) listing: Listing,
    /// Checks that those files are still there.
    pub(crate) present: Present,
    /// The segments that wait to be written.
    pub(crate) spares: Spares,
    /// Spares that input leaves for everything else.
    pub(crate) reserve: usize,
    /// The segment that is written; `None` until the first group of this run.
    pub(crate) current: Option<Current>,
    /// A spare that is open and has its room.
    pub(crate) prepared: Option<Prepared>,
    /// Notifies the storage of the writes to that segment.
    pub(crate) behind: WriteBehind,
    /// The group that was written and not synced.
    pub(crate) written: Option<Written>,
    /// The files that the close wrote anew, in words.
    pub(crate) mended: Option<String>,
    /// Counts the failed attempts at the next group.
    pub(crate) attempt: u32,
    /// Syncs of segments, and of the directory for them, so far.
    pub(crate) syncs: u64,
}

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Current {
    id: u64,
    file: Arc<dyn StoredFile>,
    salt: u64,
    /// The offset of the next group.
    end: u64,
}

/// A group that was written and not synced.
#[derive(Debug)]
pub(crate) struct Written {
    /// Its end.
    end: u64,
    /// True if it is the first of the prepared segment.
    rolled: bool,
}

impl Writer {
    /// Writes a group, syncs it, and calls `durable` with the positions of its records.
    pub(crate) fn commit(
        &mut self,
        records: &[&Record],
        durable: &mut dyn FnMut(Vec<Position>),
    ) -> Result<(), Failure> {
        let positions = self.write(records).map_err(|failure| self.caused(failure))?;
        if planted(Planted::AckBeforeSync) {
            durable(positions);
            return self.sync();
        }
        let rolled = self.written.as_ref().is_some_and(|written| written.rolled);
        self.sync().map_err(|failure| self.caused(failure))?;
        if self.present.is_due() || rolled {
            self.look()?;
        }
        durable(positions);
        Ok(())
    }

    /// Checks that the log's files are unchanged.
    fn look(&self) -> Result<(), Failure> {
        self.present.look(self.storage.as_ref(), &self.listing).map_err(Failure::Fatal)
    }

    /// Replaces a fatal failure by its cause, if somebody took files away.
    fn caused(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Fatal(_) => self.look().err().unwrap_or(failure),
            retry => retry,
        }
    }

    /// Syncs of the log's files and of its directory since it was opened.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs + self.listing.syncs()
    }

    /// The longest body of a group that a segment has room for.
    pub(crate) fn body_max(&self) -> usize {
        body_max(&self.options)
    }

    /// The longest body of a group that the current segment has room for.
    pub(crate) fn body_left(&self) -> usize {
        let Some(now) = &self.current else { return 0 };
        let left = self.options.segment_bytes.saturating_sub(now.end);
        let left = usize::try_from(left).unwrap_or(usize::MAX).saturating_sub(GROUP_HEADER);
        left / ALIGN * ALIGN
    }

    /// Admits a group with input if the reserve is still there after it. Everything else needs no admission.
    pub(crate) fn admit(&mut self, body: usize) -> Result<(), Error> {
        let rolls = self.prepared.is_none() && body > self.body_left();
        self.fill(usize::from(rolls))
    }

    /// Bytes that the disk lacks for the next writes, in whole segments.
    pub(crate) fn missing_bytes(&self) -> u64 {
        let missing = (self.reserve + 1).saturating_sub(self.spares.len()).max(1);
        missing as u64 * self.options.segment_bytes
    }

    /// Fills up the reserve, and makes `more` spares beside it.
    pub(crate) fn fill(&mut self, more: usize) -> Result<(), Error> {
        let filled = self.spares.fill(self.storage.as_ref(), self.reserve + more);
        filled.map_err(|err| unreadable(self.storage.as_ref(), "a spare segment", err))
    }

    fn write(&mut self, records: &[&Record]) -> Result<Vec<Position>, Failure> {
        let body = records.iter().map(|record| RECORD_HEADER + record.length).sum();
        assert!(body <= self.body_max(), "the caller forms groups that fit a segment");
        let taken = Version::V2.group_bytes(body) as u64;
        let fits = self.current.is_some() && body <= self.body_left();
        if !fits {
            self.clear_failed_attempt()?;
            self.prepare().map_err(Failure::Retry)?;
            self.prepare_list(taken)?;
        }
        let (file, salt, segment, start) = self.place(fits);
        let list = self.listing.now();
        let header = GroupHeader {
            segment,
            number: list.next_group,
            length: u32::try_from(body).expect("segments are smaller than 4 GiB"),
            records: u32::try_from(records.len()).expect("fewer records than bytes"),
            attempt: self.attempt,
            durable: list.end(),
            checkpoint: list.checkpoint,
        };
        let (group, positions, headers) = encode(header, salt, start, records);
        let first = self.segment_header(segment, salt);
        let end = start + taken;
        let padding = self.padding(body, end);
        let mut parts: Vec<&[u8]> = vec![&group];
        if !fits {
            parts.insert(0, &first);
        }
        for (record, header) in records.iter().zip(&headers) {
            parts.push(header);
            parts.extend(record.parts.iter().map(|part| &part[..]));
        }
        parts.push(&padding);
        let at = if fits { start } else { 0 };
        if !fits {
            self.behind = WriteBehind::new(0, TOLD_BYTES);
        }
        if let Err(err) = self.behind.write_all(file.as_ref(), at, &parts) {
            self.attempt += 1;
            return Err(Failure::Retry(unreadable(self.storage.as_ref(), "the log", err)));
        }
        self.written = Some(Written { end, rolled: !fits });
        Ok(positions)
    }

    /// The place of the next group.
    fn place(&self, fits: bool) -> (Arc<dyn StoredFile>, u64, u64, u64) {
        if fits {
            let now = self.current.as_ref().expect("a group fits in a segment that there is");
            return (Arc::clone(&now.file), now.salt, now.id, now.end);
        }
        let next = self.prepared.as_ref().expect("prepared just now");
        let salt = self.salt(next);
        (Arc::clone(&next.file), salt, self.listing.now().next_segment, SEGMENT_HEADER as u64)
    }

    /// The salt of a segment that has not begun yet.
    fn salt(&self, next: &Prepared) -> u64 {
        mix(self.options.salt, next.number, self.listing.now().next_segment)
    }

    fn segment_header(&self, segment: u64, salt: u64) -> [u8; SEGMENT_HEADER] {
        let (first_group, size) = (self.listing.now().next_group, self.options.segment_bytes);
        SegmentHeader { version: Version::V2, segment, first_group, salt, size }.encode()
    }

    /// Zeros up to the next group, over the slot of its header, and up to the end of that page, as far as there is room: a
    /// partly written page would have to be read first, if it has left memory.
    fn padding(&self, body: usize, end: u64) -> Vec<u8> {
        let align = Version::V2.group_bytes(body) - GROUP_HEADER - body;
        let slot_end = (end + GROUP_HEADER as u64).next_multiple_of(PAGE_BYTES);
        let slot = slot_end.min(self.options.segment_bytes.max(end)) - end;
        vec![0; align + usize::try_from(slot).expect("a page and a header at most")]
    }

    /// Clears the bytes of a failed attempt at the end of a segment before the next begins: they must not look like a group.
    fn clear_failed_attempt(&mut self) -> Result<(), Failure> {
        let Some(now) = self.current.as_ref().filter(|_| self.attempt > 0) else { return Ok(()) };
        let fail = |err| unreadable(self.storage.as_ref(), &segment_name(now.id), err);
        let room = self.options.segment_bytes.saturating_sub(now.end);
        let slot = usize::try_from(room).map_or(GROUP_HEADER, |room| room.min(GROUP_HEADER));
        write_all(now.file.as_ref(), now.end, &[&vec![0; slot]])
            .map_err(|err| Failure::Retry(fail(err)))?;
        sync(now.file.as_ref()).map_err(|err| Failure::Fatal(fail(err)))?;
        self.syncs += 1;
        Ok(())
    }

    /// Takes a spare, or makes one. It may fail on a full disk; the caller tries again.
    fn prepare(&mut self) -> Result<(), Error> {
        if self.prepared.is_some() {
            return Ok(());
        }
        let taken = self.spares.take(self.storage.as_ref());
        self.prepared =
            Some(taken.map_err(|err| unreadable(self.storage.as_ref(), "a spare segment", err))?);
        Ok(())
    }

    /// Writes aside the list for the begin of the prepared segment, with a group that takes this many bytes.
    fn prepare_list(&mut self, taken: u64) -> Result<(), Failure> {
        let next = self.prepared.as_ref().expect("prepared just now");
        let SegmentList { next_segment, next_group, .. } = *self.listing.now();
        let outcome = self.listing.prepare(Synced {
            segment: next_segment,
            salt: self.salt(next),
            first_group: next_group,
            end: SEGMENT_HEADER as u64 + taken,
            next_group: next_group + 1,
            closed: false,
        });
        outcome.map_err(|failure| self.list_failure(failure))
    }

    fn list_failure(&self, failure: PutFailure) -> Failure {
        let fail = |err| unreadable(self.storage.as_ref(), LIST, err);
        match failure {
            PutFailure::Retry(err) => Failure::Retry(fail(err)),
            PutFailure::Fatal(err) => Failure::Fatal(fail(err)),
        }
    }

    /// Saves the list at a start. If there was no list, it must be written; otherwise it can wait for room.
    pub(crate) fn save_list(&mut self) -> Result<(), Error> {
        let is_new = self.listing.is_new();
        match self.listing.save().map_err(|failure| self.list_failure(failure)) {
            Ok(()) => Ok(()),
            Err(Failure::Retry(_)) if !is_new => Ok(()),
            Err(Failure::Retry(err) | Failure::Fatal(err)) => Err(err),
        }
    }

    /// Closes the list at an orderly stop: nothing is written any more. Without room for the list the next start does not
    /// know that nothing is missing at the end, and continues all the same. Files that somebody took away are found here at
    /// the latest.
    pub(crate) fn close(&mut self) -> Result<(), Failure> {
        let mended = list_to_mend(self.storage.as_ref(), &self.listing);
        self.listing.close();
        let closed = match self.listing.save().map_err(|failure| self.list_failure(failure)) {
            Err(failure @ Failure::Fatal(_)) => Err(self.caused(failure)),
            Ok(()) | Err(Failure::Retry(_)) => self.look(),
        };
        self.mended = mended.filter(|_| closed.is_ok());
        closed
    }

    /// Makes the written group durable.
    fn sync(&mut self) -> Result<(), Failure> {
        let written = self.written.take().expect("a group was written");
        let fail = |err| {
            Failure::Fatal(Error::io(
                format!("cannot sync the log in {}", self.storage.name()),
                err,
            ))
        };
        if written.rolled {
            let next = self.prepared.take().expect("a segment is prepared before it is written");
            let id = self.listing.now().next_segment;
            let salt = self.salt(&next);
            self.begin(&next, id).map_err(fail)?;
            self.syncs += 2;
            let room = self.options.segment_bytes;
            self.present.begun(id, next.file.as_ref(), room).map_err(fail)?;
            self.listing.begun().map_err(fail)?;
            self.files.lock().insert(id, Arc::clone(&next.file));
            self.current = Some(Current { id, file: next.file, salt, end: 0 });
        } else {
            let now = self.current.as_ref().expect("a group was written to it");
            sync(now.file.as_ref()).map_err(fail)?;
            self.syncs += 1;
            let behind = self.listing.now().next_group + 1;
            self.listing.synced(written.end, behind);
        }
        self.current.as_mut().expect("it holds the group").end = written.end;
        self.attempt = 0;
        Ok(())
    }

    /// Makes a prepared segment that holds its first group a segment of the log.
    fn begin(&self, next: &Prepared, id: u64) -> io::Result<()> {
        let (from, to) = (spare_name(next.number), segment_name(id));
        let (storage, file) = (self.storage.as_ref(), next.file.as_ref());
        AtomicFile { storage, file, aside: &from }.replace(&to)
    }

    /// Releases the segments below `first`; the newest one always stays. Returns the number released.
    pub(crate) fn release(&mut self, first: u64) -> Result<usize, Failure> {
        self.let_below_go(first).map_err(|failure| self.caused(failure))
    }

    fn let_below_go(&mut self, first: u64) -> Result<usize, Failure> {
        let mut files = self.files.lock();
        let newest = files.keys().next_back().copied().unwrap_or(0);
        let first = first.min(newest);
        let kept = files.split_off(&first);
        let released: Vec<u64> = std::mem::replace(&mut *files, kept).into_keys().collect();
        drop(files);
        for id in &released {
            self.let_go(*id).map_err(|err| {
                Failure::Fatal(unreadable(self.storage.as_ref(), &segment_name(*id), err))
            })?;
        }
        if !released.is_empty() {
            // A file is only reused once its old name is gone for good.
            self.storage
                .sync_dir()
                .map_err(|err| Failure::Fatal(unreadable(self.storage.as_ref(), "the log", err)))?;
            self.syncs += 1;
            self.listing.freed(first);
            self.present.freed(first);
            // Without room the list is saved later: a start needs none of these segments.
            if let Err(failure @ PutFailure::Fatal(_)) = self.listing.save() {
                return Err(self.list_failure(failure));
            }
        }
        Ok(released.len())
    }

    /// Keeps a released segment as a spare, or removes it.
    pub(crate) fn let_go(&mut self, id: u64) -> io::Result<()> {
        let most = self.spares_max();
        self.spares.keep(self.storage.as_ref(), id, most)
    }

    /// The most spares that are kept.
    pub(crate) fn spares_max(&self) -> usize {
        self.reserve + self.options.spares_max
    }
}

/// The longest body of a group that a segment has room for.
pub(crate) fn body_max(options: &LogOptions) -> usize {
    let room = options.segment_bytes - SEGMENT_HEADER as u64 - GROUP_HEADER as u64;
    usize::try_from(room).unwrap_or(usize::MAX) / ALIGN * ALIGN
}

/// The header of a group with the positions and headers of its records.
fn encode(
    header: GroupHeader,
    salt: u64,
    start: u64,
    records: &[&Record],
) -> ([u8; GROUP_HEADER], Vec<Position>, Vec<[u8; RECORD_HEADER]>) {
    let (group, seed) = header.encode(salt);
    let mut offset = start + GROUP_HEADER as u64;
    let (mut positions, mut headers) = (Vec::new(), Vec::new());
    for record in records {
        let length = u32::try_from(record.length).expect("a record fits a segment");
        let crc = record_crc(record.crc, length, seed, offset);
        headers.push(record_header(length, crc));
        positions.push(Position { segment: header.segment, offset, length, seed });
        offset += (RECORD_HEADER + record.length) as u64;
    }
    (group, positions, headers)
}

/// A number that differs for every use of every file (splitmix64 of all three).
fn mix(salt: u64, spare: u64, segment: u64) -> u64 {
    let mut mixed = salt
        .wrapping_add(spare.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(segment.wrapping_mul(0xd1b5_4a32_d192_ed03));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
