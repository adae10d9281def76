//! `PreparedFiles`: files that have their room on the disk already, and are written and put in place whole later.
//!
//! ```text
//!  STEM.aside ─ write ─ sync ─┬─ rename ───▶ a new name;  an older file becomes an aside again (recycle)
//!                             └─ exchange ─▶ the same name, whose old file is the aside now
//! ```
//! A write that frees a full disk must not need room on it. So the blocks of these files go round and are not given back: a
//! file that is replaced is written over the next time. Each has room for twice the bytes of the last one. One thread uses
//! them. It does not know what they hold.

use std::io;

use super::{AtomicFile, FileMark, PutFailure, Storage, StoredFile, discard, write_all};
use crate::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(crate) struct PreparedFiles {
    storage: Arc<dyn Storage>,
    stem: &'static str,
    /// The numbers of the files that are ready.
    ready: Vec<u64>,
    /// The room of each, in bytes.
    room: u64,
    /// The room that each will have, in bytes: twice the bytes of the last one.
    wanted: u64,
}

impl PreparedFiles {
    /// The files that an earlier run left; each will have room for this many bytes.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        stem: &'static str,
        room: u64,
    ) -> io::Result<Self> {
        let ready = storage.list()?.iter().filter_map(|name| number_of(stem, name)).collect();
        Ok(PreparedFiles { storage, stem, ready, room, wanted: room })
    }

    /// The room that each will have, in bytes.
    pub(crate) fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Makes files until there are this many, each with its room.
    ///
    /// # Errors
    /// `StorageFull` if there is no room; those that are there stay.
    pub(crate) fn fill(&mut self, count: usize) -> io::Result<()> {
        self.room = self.wanted;
        for number in &self.ready {
            self.storage.open(&name_of(self.stem, *number))?.reserve(self.room)?;
        }
        while self.ready.len() < count {
            let (number, name) = self.unused();
            let file = self.storage.create(&name)?;
            if let Err(err) = file.reserve(self.room) {
                discard(self.storage.as_ref(), file.as_ref(), &name);
                return Err(err);
            }
            self.ready.push(number);
        }
        Ok(())
    }

    /// Puts a whole file in place under a new name: after a crash the name holds all of it, or does not exist. Returns the
    /// file's identity and length.
    pub(crate) fn put(&mut self, name: &str, parts: &[&[u8]]) -> Result<FileMark, PutFailure> {
        let (number, file) = self.write(parts)?;
        let (storage, aside) = (self.storage.as_ref(), name_of(self.stem, number));
        let placed = AtomicFile { storage, file: file.as_ref(), aside: &aside }.replace(name);
        placed.map_err(PutFailure::Fatal)?;
        self.ready.retain(|other| *other != number);
        file.mark().map_err(PutFailure::Fatal)
    }

    /// Writes parts aside; they are not durable.
    fn write(&mut self, parts: &[&[u8]]) -> Result<(u64, Arc<dyn StoredFile>), PutFailure> {
        let (number, file) = self.next().map_err(PutFailure::Retry)?;
        let len = parts.iter().map(|part| part.len() as u64).sum();
        if let Err(err) = write_all(file.as_ref(), 0, parts) {
            // Room beyond its own goes back.
            let _ = file.truncate(self.room);
            return Err(PutFailure::Retry(err));
        }
        file.truncate(len).map_err(PutFailure::Retry)?;
        self.wanted = self.wanted.max(2 * len);
        self.keep_room(file.as_ref());
        Ok((number, file))
    }

    /// Takes back the room that a cut has given up, and more if more is wanted and free. The next write of the file tries
    /// again what fails now.
    fn keep_room(&self, file: &dyn StoredFile) {
        let _ = file.reserve(self.room);
        let is_free = self.storage.volume().is_ok_and(|volume| volume.free >= self.wanted);
        if self.wanted > self.room && is_free && file.reserve(self.wanted).is_err() {
            let _ = file.reserve(self.room);
        }
    }

    /// The file to write next; a new one, without room of its own, if none is ready.
    fn next(&mut self) -> io::Result<(u64, Arc<dyn StoredFile>)> {
        if let Some(number) = self.ready.last() {
            return Ok((*number, self.storage.open(&name_of(self.stem, *number))?));
        }
        let (number, name) = self.unused();
        let file = self.storage.create(&name)?;
        self.ready.push(number);
        Ok((number, file))
    }

    /// Takes over a file that is not needed any more, unless it cannot be renamed. Its name is gone for good before it is
    /// written over.
    ///
    /// # Errors
    /// If the directory cannot be synced: the state of the disk is unknown then.
    pub(crate) fn recycle(&mut self, name: &str) -> io::Result<()> {
        let (number, aside) = self.unused();
        if self.storage.rename(name, &aside).is_err() {
            return Ok(());
        }
        self.storage.sync_dir()?;
        self.ready.push(number);
        if let Ok(file) = self.storage.open(&aside) {
            self.keep_room(file.as_ref());
        }
        Ok(())
    }

    fn unused(&self) -> (u64, String) {
        let number = (0..).find(|number| !self.ready.contains(number)).expect("fewer than that");
        (number, name_of(self.stem, number))
    }
}

fn name_of(stem: &str, number: u64) -> String {
    match number {
        0 => format!("{stem}.aside"),
        number => format!("{stem}-{number}.aside"),
    }
}

fn number_of(stem: &str, name: &str) -> Option<u64> {
    let middle = name.strip_prefix(stem)?.strip_suffix(".aside")?;
    let number = match middle.strip_prefix('-') {
        Some(digits) => digits.parse().ok()?,
        None => 0,
    };
    (name_of(stem, number) == name).then_some(number)
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn names_are_read_back_and_no_others() {
        for number in [0, 1, 17] {
            assert_eq!(number_of("list", &name_of("list", number)), Some(number));
        }
        for name in
            ["list", "list-.aside", "list-0.aside", "list-01.aside", "lists.aside", "list-x.aside"]
        {
            assert_eq!(number_of("list", name), None, "{name}");
        }
    }

    /// Puts files of these lengths on a disk that others fill once there are two asides; keeps two files.
    fn check(lengths: &[usize], expected: &[bool]) {
        let disk = MemoryStorage::new(0);
        disk.set_capacity(1_000, 10);
        let mut asides = PreparedFiles::open(Arc::new(disk.clone()), "whole", 100).expect("read");
        asides.fill(3).expect("room");
        disk.take_outside(u64::MAX);
        let put = |(number, length): (usize, &usize)| {
            let name = format!("whole-{number}");
            let put = asides.put(&name, &[&vec![1; *length]]).is_ok();
            if put && number >= 2 {
                asides.recycle(&format!("whole-{}", number - 2)).expect("there");
            }
            assert_eq!(disk.used(), 300, "nothing is given back, nothing more is taken");
            put
        };
        let found: Vec<bool> = lengths.iter().enumerate().map(put).collect();
        assert_eq!(found, expected, "{lengths:?}");
    }

    #[test]
    fn a_full_disk_does_not_matter() {
        check(&[50; 9], &[true; 9]);
        check(&[100, 1, 100, 1, 100], &[true; 5]);
        check(&[1, 101], &[true, false]);
    }

    #[test]
    fn there_is_room_for_what_grows() {
        let disk = MemoryStorage::new(0);
        let mut asides = PreparedFiles::open(Arc::new(disk.clone()), "whole", 10).expect("read");
        asides.put("a", &[&[1; 70]]).expect("room");
        assert_eq!(asides.wanted(), 140);
        disk.set_capacity(1_000, 10);
        asides.fill(2).expect("room");
        assert_eq!(disk.used(), 140 * 3);
    }

    #[test]
    fn what_a_crash_left_aside_is_written_over() {
        let disk = MemoryStorage::new(0);
        disk.set_bytes("whole.aside", &[7; 300]);
        let mut asides = PreparedFiles::open(Arc::new(disk.clone()), "whole", 10).expect("read");
        asides.put("a", &[b"new"]).expect("room");
        assert_eq!(
            (disk.bytes("a").expect("there"), disk.list().expect("listed")),
            (b"new".to_vec(), vec!["a".to_owned()])
        );
    }
}
