//! The list of segments, in a file beside them: the segments that exist, and the end up to which each is known to be synced.
//!
//! ```text
//! segments: "TIDESEGS" | version u32 | body length u32 | CRC-32C u32 of these 16 bytes and the body | postcard of the list
//! ```
//! It is written aside, synced and renamed, and the directory synced: when a segment begins, before its first group is
//! acknowledged; when segments are released; and at an orderly stop, which closes the last one. So it never says more than is
//! on the disk, and a start that finds less than it says has lost something. A new segment gets its name before the list
//! does: one segment, with one group, may exist that the list does not know. That order is why the list is no
//! [`AtomicFile`](crate::storage): its file aside is synced before the segment gets its name, and renamed after it. Runs on
//! the thread `wal-sync`, or on a test's. Does not know what a checkpoint is for.

use std::io;

use serde::{Deserialize, Serialize};

use super::format::{Place, Unreadable, matches};
use crate::error::{Error, Result};
use crate::storage::{PutFailure, Storage, StoredFile, discard, read_full, sync, write_all};
use crate::sync::Arc;

/// The file's name.
pub(crate) const LIST: &str = "segments";
/// The name of the file aside; the remains of a crash are overwritten.
pub(crate) const LIST_ASIDE: &str = "segments.aside";

const MAGIC: [u8; 8] = *b"TIDESEGS";
const VERSION: u32 = 1;
const HEADER: usize = 20;

/// The file aside has room for the current list, and for one more segment.
const ENTRY_BYTES_MAX: u64 = 64;

/// The durable part of a segment, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// Its number.
    pub segment: u64,
    /// Drawn when it began: another log's segment of the same number has another one.
    pub salt: u64,
    /// The number of its first group.
    pub first_group: u64,
    /// The end of the last known group, in bytes.
    pub end: u64,
    /// The number after that group.
    pub next_group: u64,
    /// True if it ends there for good; otherwise there may be more.
    pub closed: bool,
}

impl Synced {
    pub(crate) fn place(&self) -> Place {
        Place { segment: self.segment, offset: self.end }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentList {
    /// The segments, oldest first. Numbers that are left out were given up.
    pub(crate) segments: Vec<Synced>,
    /// No segment has had this number or a greater one.
    pub(crate) next_segment: u64,
    /// The number of the next group.
    pub(crate) next_group: u64,
    /// The segments below this one were released: a checkpoint covers them.
    pub(crate) freed: u64,
    /// The newest checkpoint that is known to be durable; 0 if there is none.
    pub(crate) checkpoint: u64,
}

impl Default for SegmentList {
    fn default() -> Self {
        SegmentList {
            segments: Vec::new(),
            next_segment: 1,
            next_group: 1,
            freed: 1,
            checkpoint: 0,
        }
    }
}

impl SegmentList {
    pub(crate) fn get(&self, segment: u64) -> Option<&Synced> {
        self.segments.iter().find(|listed| listed.segment == segment)
    }

    /// The end of the durable log.
    pub(crate) fn end(&self) -> Place {
        self.segments.last().map_or(Place::default(), Synced::place)
    }

    /// The list after the begin of `next`: the segment before it is closed.
    fn with(&self, next: Synced) -> SegmentList {
        let mut list = self.clone();
        list.close();
        list.next_segment = next.segment.saturating_add(1);
        list.next_group = next.next_group;
        list.segments.push(next);
        list
    }

    /// Closes the last segment: nothing is written after its last group any more.
    pub(crate) fn close(&mut self) {
        if let Some(last) = self.segments.last_mut() {
            last.closed = true;
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("numbers can be serialised");
        let length = u32::try_from(body.len()).expect("fewer segments than that");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &body);
        bytes.extend(crc.to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// Reads the bytes of the file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let damaged = |what: &str| Unreadable::Damaged(what.to_owned());
        let (header, body) =
            bytes.split_at_checked(HEADER).ok_or_else(|| damaged("the header is cut off"))?;
        if header[..8] != MAGIC {
            return Err(damaged("it does not begin as a list of segments does"));
        }
        let u32_at =
            |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        if usize::try_from(u32_at(12)) != Ok(body.len()) {
            return Err(damaged("it is not as long as it says"));
        }
        if !matches(u32_at(16), crc32c::crc32c_append(crc32c::crc32c(&header[..16]), body)) {
            return Err(damaged("the checksum does not match"));
        }
        if u32_at(8) != VERSION {
            let found = u32_at(8);
            let what = format!("format version {found}; this program reads version {VERSION}");
            return Err(Unreadable::Later(what));
        }
        match postcard::take_from_bytes(body) {
            Ok((list, [])) => Ok(list),
            Ok(_) => Err(damaged("something follows the list")),
            Err(err) => Err(damaged(&err.to_string())),
        }
    }

    /// The list of a storage, as far as it can be read; `None` if there is no file.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn read(storage: &dyn Storage) -> Result<Option<Result<Self, Unreadable>>> {
        let fail = |err| Error::io(format!("cannot read {LIST} in {}", storage.name()), err);
        let file = match storage.open(LIST) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(fail(err)),
        };
        let size = usize::try_from(file.size().map_err(fail)?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size];
        let got = read_full(file.as_ref(), 0, &mut bytes).map_err(fail)?;
        Ok(Some(SegmentList::decode(&bytes[..got])))
    }
}

/// The list of an open log, and the version of it on the disk.
#[derive(Debug)]
pub(crate) struct Listing {
    storage: Arc<dyn Storage>,
    /// The current list.
    now: SegmentList,
    /// The list in the file; `None` if there is no file, or its content is unknown.
    on_disk: Option<SegmentList>,
    /// The file aside, which takes its room before it is needed.
    aside: Option<Aside>,
    /// Syncs of the file and of the directory so far.
    syncs: u64,
}

/// The file that becomes the list next.
#[derive(Debug)]
struct Aside {
    file: Arc<dyn StoredFile>,
    /// Its content, which is synced.
    list: Option<SegmentList>,
}

impl Listing {
    /// The list of a log that was opened: `now` is the current one, `on_disk` the one in the file.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        now: SegmentList,
        on_disk: Option<SegmentList>,
    ) -> Self {
        Listing { storage, now, on_disk, aside: None, syncs: 0 }
    }

    /// Syncs of the file and of the directory so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs
    }

    /// Returns true if there was no list.
    pub(crate) fn is_new(&self) -> bool {
        self.on_disk.is_none()
    }

    pub(crate) fn now(&self) -> &SegmentList {
        &self.now
    }

    /// The list in the file that was written last; `None` if there is none, or its content is unknown.
    pub(crate) fn on_disk(&self) -> Option<&SegmentList> {
        self.on_disk.as_ref()
    }

    /// Notes a durable checkpoint. The next write of the file includes it.
    pub(crate) fn checkpointed(&mut self, number: u64) {
        self.now.checkpoint = self.now.checkpoint.max(number);
    }

    /// Notes a durable group of the last segment. The next write of the file includes it.
    pub(crate) fn synced(&mut self, end: u64, next_group: u64) {
        if let Some(last) = self.now.segments.last_mut() {
            (last.end, last.next_group) = (end, next_group);
        }
        self.now.next_group = next_group;
    }

    /// Writes aside the list for the begin of `next`. Nothing depends on it yet: it can be tried again.
    pub(crate) fn prepare(&mut self, next: Synced) -> Result<(), PutFailure> {
        // The file may lack at most one segment, or a start would not know what else it lacks.
        if self.on_disk.as_ref().is_none_or(|list| list.next_segment != self.now.next_segment) {
            self.save()?;
        }
        self.write_aside(self.now.with(next))
    }

    /// Puts the prepared list in place: the segment has its name and its first group.
    pub(crate) fn begun(&mut self) -> io::Result<()> {
        let aside = self.aside.as_ref().and_then(|aside| aside.list.clone());
        self.now = aside.expect("a segment is prepared before it is begun");
        self.put_in_place()
    }

    /// Writes a list aside and syncs it, if it is not there.
    fn write_aside(&mut self, list: SegmentList) -> Result<(), PutFailure> {
        if self.aside.as_ref().is_some_and(|aside| aside.list.as_ref() == Some(&list)) {
            return Ok(());
        }
        let file = match self.aside.take() {
            Some(aside) => aside.file,
            None => self.storage.create(LIST_ASIDE).map_err(PutFailure::Retry)?,
        };
        let bytes = list.encode();
        let written = write_all(file.as_ref(), 0, &[&bytes]);
        if let Err(err) = written.and_then(|()| file.truncate(bytes.len() as u64)) {
            discard(self.storage.as_ref(), file.as_ref(), LIST_ASIDE);
            return Err(PutFailure::Retry(err));
        }
        sync(file.as_ref()).map_err(PutFailure::Fatal)?;
        self.syncs += 1;
        self.aside = Some(Aside { file, list: Some(list) });
        Ok(())
    }

    /// Makes the file aside the list. The next file aside takes its room at once: a list must be written even if nothing else
    /// finds room, and the replaced one has just freed as much.
    fn put_in_place(&mut self) -> io::Result<()> {
        let aside = self.aside.take().and_then(|aside| aside.list);
        self.storage.rename(LIST_ASIDE, LIST)?;
        self.storage.sync_dir()?;
        self.syncs += 1;
        self.on_disk = aside;
        self.reserve();
        Ok(())
    }

    /// Makes the file aside and takes its room. Without room it is made when it is needed.
    fn reserve(&mut self) {
        let Ok(file) = self.storage.create(LIST_ASIDE) else { return };
        let bytes = self.now.encode().len() as u64;
        if file.reserve(bytes + ENTRY_BYTES_MAX).is_err() {
            discard(self.storage.as_ref(), file.as_ref(), LIST_ASIDE);
            return;
        }
        self.aside = Some(Aside { file, list: None });
    }

    /// Notes that the segments below `first` were released.
    pub(crate) fn freed(&mut self, first: u64) {
        self.now.freed = self.now.freed.max(first);
        self.now.segments.retain(|listed| listed.segment >= first);
    }

    /// Notes that nothing is written any more.
    pub(crate) fn close(&mut self) {
        self.now.close();
    }

    /// Writes the current list to the file.
    pub(crate) fn save(&mut self) -> Result<(), PutFailure> {
        if self.on_disk.as_ref() == Some(&self.now) {
            if self.aside.is_none() {
                self.reserve();
            }
            return Ok(());
        }
        self.write_aside(self.now.clone())?;
        self.put_in_place().map_err(PutFailure::Fatal)
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::storage::{Fault, MemoryStorage};

    fn sample() -> SegmentList {
        let closed =
            Synced { segment: 7, salt: 1, first_group: 3, end: 400, next_group: 5, closed: true };
        let open = Synced { segment: 9, salt: u64::MAX, first_group: 5, closed: false, ..closed };
        SegmentList {
            segments: vec![closed, open],
            next_segment: 10,
            next_group: 6,
            freed: 7,
            checkpoint: 4,
        }
    }

    #[test]
    fn a_list_is_read_back_and_every_flip_and_cut_is_found() {
        let list = sample();
        let good = list.encode();
        assert_eq!(SegmentList::decode(&good), Ok(list));
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentList::decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(SegmentList::decode(&good[..len]).is_err(), "{len} bytes");
        }
        let longer = [&good[..], &[0]].concat();
        assert!(SegmentList::decode(&longer).is_err());
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = sample().encode();
        bytes[8] = 2;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[HEADER..]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        let what = "format version 2; this program reads version 1".to_owned();
        assert_eq!(SegmentList::decode(&bytes), Err(Unreadable::Later(what)));
    }

    fn listing(disk: &MemoryStorage) -> Listing {
        Listing::new(Arc::new(disk.clone()), SegmentList::default(), None)
    }

    fn segment(number: u64) -> Synced {
        let (first_group, next_group) = (number, number + 1);
        Synced { segment: number, salt: number, first_group, end: 100, next_group, closed: false }
    }

    fn on_disk(disk: &MemoryStorage) -> SegmentList {
        let found = SegmentList::read(disk).expect("read");
        found.expect("there").expect("good")
    }

    #[test]
    fn a_segment_is_listed_once_it_is_begun_and_the_one_before_it_is_closed() {
        let disk = MemoryStorage::new(0);
        let mut listing = listing(&disk);
        listing.save().expect("saved");
        for number in 1..4 {
            listing.prepare(segment(number)).expect("written aside");
            assert_eq!(on_disk(&disk).next_segment, number, "not before it is begun");
            listing.begun().expect("renamed");
            let list = on_disk(&disk.after_power_cut(number));
            assert_eq!((list.next_segment, list.next_group), (number + 1, number + 1));
            let open: Vec<u64> =
                list.segments.iter().filter(|one| !one.closed).map(|one| one.segment).collect();
            assert_eq!(open, [number]);
        }
        listing.synced(300, 7);
        listing.freed(3);
        listing.checkpointed(5);
        listing.close();
        listing.save().expect("saved");
        let list = on_disk(&disk.after_power_cut(9));
        let last = Synced { end: 300, next_group: 7, closed: true, ..segment(3) };
        assert_eq!((list.segments, list.freed, list.checkpoint), (vec![last], 3, 5));
    }

    /// A list that found no room is written before the next segment is begun: the file lacks one segment at most.
    #[test]
    fn what_could_not_be_saved_is_saved_before_the_next_segment() {
        let disk = MemoryStorage::new(0);
        let mut listing = listing(&disk);
        disk.set_full(true);
        assert!(matches!(listing.save(), Err(PutFailure::Retry(_))));
        assert!(matches!(listing.prepare(segment(1)), Err(PutFailure::Retry(_))));
        disk.set_full(false);
        listing.prepare(segment(1)).expect("written aside");
        assert_eq!(on_disk(&disk), SegmentList::default());
        // The file aside is not written twice.
        let calls = disk.calls();
        listing.prepare(segment(1)).expect("it is there");
        assert_eq!(disk.calls(), calls);
        listing.begun().expect("renamed");
        disk.fail(disk.calls() + 3, Fault::Broken);
        assert!(matches!(listing.prepare(segment(2)), Err(PutFailure::Fatal(_))), "its sync");
    }
}
