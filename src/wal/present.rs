//! `Present`: checks that the files of an open log still have their names in its directory.
//!
//! A process does not notice that somebody removes, renames, cuts or replaces a file of its log, or the directory: it would
//! write and sync bytes that no start will find. So it looks up the names: when it begins a segment, at most once a second
//! otherwise, and at the close. Runs on the thread `wal-sync`, or on a test's. It does not read the segments.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::format::segment_name;
use super::segment_list::{LIST, Listing, SegmentList};
use super::segment_reader::{shell_word, unreadable};
use crate::error::{Error, Result};
use crate::storage::{FileMark, Storage, StoredFile};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Moment};

/// The shortest time between two checks of the names, except at the begin of a segment and the close.
const PAUSE: Duration = Duration::from_secs(1);

/// The clock that times the checks of the names; `None` until somebody sets one.
pub(crate) type LookClock = Arc<Mutex<Option<Arc<dyn Clock>>>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Present {
    /// The mark of each live segment when it was opened.
    marks: BTreeMap<u64, FileMark>,
    clock: LookClock,
    due: Option<Moment>,
}

impl Present {
    /// Marks the segments that a start found.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn of(segments: &BTreeMap<u64, Arc<dyn StoredFile>>) -> io::Result<Self> {
        let marks = segments.iter().map(|(id, file)| Ok((*id, file.mark()?)));
        let marks = marks.collect::<io::Result<BTreeMap<_, _>>>()?;
        Ok(Present { marks, ..Present::default() })
    }

    /// The place of the clock, for others to set it.
    pub(crate) fn clock(&self) -> LookClock {
        Arc::clone(&self.clock)
    }

    /// Marks a segment that was begun, which has `bytes` of room.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn begun(&mut self, id: u64, file: &dyn StoredFile, bytes: u64) -> io::Result<()> {
        self.marks.insert(id, FileMark { bytes, ..file.mark()? });
        Ok(())
    }

    /// Forgets the segments below `first`, which were released.
    pub(crate) fn freed(&mut self, first: u64) {
        self.marks = self.marks.split_off(&first);
    }

    /// Returns true if the names must be checked now; the next check is due after a pause then.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = match &*self.clock.lock() {
            Some(clock) => clock.now(),
            None => return false,
        };
        let is_due = self.due.is_none_or(|due| now >= due);
        if is_due {
            self.due = Some(now.plus(PAUSE));
        }
        is_due
    }

    /// Checks the names of the segments, and the content of the list.
    ///
    /// # Errors
    /// If a file is gone, replaced or cut; the text names it, what is missing and the remedy. And what the operating system
    /// says, unless that passes: the next check finds out then.
    pub(crate) fn look(&self, storage: &dyn Storage, listing: &Listing) -> Result<()> {
        let found =
            self.look_at_segments(storage, listing).and_then(|()| look_at_list(storage, listing));
        match found {
            Err(err) if err.passes() => Ok(()),
            found => found,
        }
    }

    fn look_at_segments(&self, storage: &dyn Storage, listing: &Listing) -> Result<()> {
        for (id, mark) in &self.marks {
            let name = segment_name(*id);
            let found = storage.mark_of(&name).map_err(|err| unreadable(storage, &name, err))?;
            if let Some(what) = mark.unlike(found) {
                let held = listing.now().get(*id).map_or(0, |synced| synced.end);
                return Err(lost(
                    storage,
                    &name,
                    &format!("{what} ({held} bytes of it were synced)"),
                ));
            }
        }
        Ok(())
    }
}

/// Checks that the list holds what was written last.
fn look_at_list(storage: &dyn Storage, listing: &Listing) -> Result<()> {
    match harm_of_list(storage, listing)? {
        Some(what) => Err(lost(storage, LIST, &what)),
        None => Ok(()),
    }
}

/// The fault of the list, in words.
fn harm_of_list(storage: &dyn Storage, listing: &Listing) -> Result<Option<String>> {
    let Some(written) = listing.on_disk() else { return Ok(None) };
    Ok(match SegmentList::read(storage)? {
        Some(Ok(found)) if found == *written => None,
        Some(Ok(_)) => Some("it is another one than was written".to_owned()),
        Some(Err(why)) => Some(format!("it is damaged ({})", why.text())),
        None => Some("it is not there any more".to_owned()),
    })
}

/// The report of a list that is written anew, if somebody touched the one that was written before. A list that cannot be read
/// now counts as untouched.
pub(crate) fn list_to_mend(storage: &dyn Storage, listing: &Listing) -> Option<String> {
    let what = harm_of_list(storage, listing).ok()??;
    let name = storage.name();
    Some(format!(
        "{LIST} in {name} was touched while the log was open: {what}; it was written anew"
    ))
}

/// The error for a file that somebody has taken away or changed.
fn lost(storage: &dyn Storage, file: &str, what: &str) -> Error {
    let directory = storage.name();
    let word = shell_word(&directory);
    Error::Failed(format!(
        "{file} in {directory} was touched while the log was open: {what}, so the next start may not find what was \
         acknowledged; put back what was there (the directory itself, if it was moved), or \
         `tidemill inspect {word}` says what is left, and with --accept-loss gives up the rest"
    ))
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::super::tests::open;
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::time::ManualClock;
    use crate::wal::segment_writer::{Failure, Record, Writer};

    /// Writes until this segment is begun.
    fn write_until_segment(writer: &mut Writer, last: u64) {
        let record = Record::from(bytes::Bytes::from_static(&[7; 100]));
        while !writer.files.lock().contains_key(&last) {
            writer.commit(&[&record], &mut |_| ()).expect("written");
        }
    }

    /// Harms a log with three segments that was closed in order, and expects this fault; `None`: it closes.
    fn check(harm: impl Fn(&MemoryStorage), expected: Option<&str>) {
        let disk = MemoryStorage::new(0);
        let (mut writer, ..) = open(&disk, 1, 1).expect("new");
        write_until_segment(&mut writer, 3);
        harm(&disk);
        let found = match writer.close() {
            Ok(()) => None,
            Err(Failure::Retry(err) | Failure::Fatal(err)) => Some(err.to_string()),
        };
        match (&found, expected) {
            (None, None) => {}
            (Some(text), Some(words)) => {
                assert!(
                    text.contains(words) && text.contains("`tidemill inspect memory`"),
                    "{text}"
                );
            }
            other => panic!("{other:?}"),
        }
    }

    const FIRST: &str = "wal-000000000001.seg";
    const NEWEST: &str = "wal-000000000003.seg";

    #[test]
    fn a_close_finds_what_was_removed_cut_or_replaced() {
        check(|_| (), None);
        // The list cannot be written.
        let disk = MemoryStorage::new(0);
        let (mut writer, ..) = open(&disk, 1, 1).expect("new");
        write_until_segment(&mut writer, 3);
        disk.lose_directory();
        assert!(matches!(writer.close(), Err(Failure::Fatal(_))));
        for name in [FIRST, NEWEST] {
            let told =
                |what: &str| format!("{name} in memory was touched while the log was open: {what}");
            check(|disk| disk.lose(name), Some(&told("it is not there any more")));
            check(
                |disk| disk.rename(name, "aside").expect("there"),
                Some(&told("it is not there")),
            );
            let cut = |disk: &MemoryStorage| {
                disk.open(name).and_then(|file| file.truncate(40)).expect("cut");
            };
            check(cut, Some(&told("it is 40 bytes long and was 512")));
            let copy = |disk: &MemoryStorage| {
                let bytes = disk.bytes(name).expect("there");
                disk.set_bytes(name, &bytes);
            };
            check(copy, Some(&told("another file has its name")));
        }
    }

    #[test]
    fn a_list_that_is_gone_or_another_one_is_found_where_it_is_not_written_anew() {
        let check = |harm: &dyn Fn(&MemoryStorage), words: &str| {
            let disk = MemoryStorage::new(0);
            let (mut writer, ..) = open(&disk, 1, 1).expect("new");
            write_until_segment(&mut writer, 2);
            harm(&disk);
            let found = writer.present.look(&disk, &writer.listing);
            let text = found.expect_err("found").to_string();
            assert!(text.contains(words), "{text}");
        };
        check(&|disk| disk.lose(LIST), "segments in memory was touched");
        check(&|disk| disk.set_bytes(LIST, b""), "it is damaged (the header is cut off)");
        let other = SegmentList::default().encode();
        check(&|disk| disk.set_bytes(LIST, &other), "it is another one than was written");
    }

    #[test]
    fn a_group_is_not_acknowledged_once_its_segment_is_known_to_be_gone() {
        let (disk, clock) = (MemoryStorage::new(0), ManualClock::new());
        let (mut writer, ..) = open(&disk, 1, 1).expect("new");
        *writer.present.clock().lock() = Some(Arc::new(clock.clone()));
        let record = Record::from(bytes::Bytes::from_static(b"record"));
        let mut durable = 0;
        let mut commit = || writer.commit(&[&record], &mut |at| durable += at.len());
        commit().expect("there");
        disk.lose(FIRST);
        commit().expect("not asked again within a second");
        clock.advance(PAUSE);
        assert!(matches!(commit(), Err(Failure::Fatal(_))));
        assert_eq!(durable, 2);
    }
}
