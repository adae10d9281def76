//! `WriteBehind`: large writes that go through a file from front to back and are hardly read again.
//!
//! ```text
//!  saved, memory freed │ being saved │ written just now │
//!  start               ┴─────────────┴── told ── end ───┘
//! ```
//! The disk saves early writes during later ones, so the sync at the end finds little left. Memory that holds saved bytes is
//! freed, so that the same few pages carry the whole stream: they are warm, and push nothing else out of the page cache.
//! Below a threshold the storage gets no hint, and small files stay in memory. It makes nothing durable. Runs on the thread
//! of the file's writer.

use std::io;

use super::{StoredFile, write_all};

/// The end of the writes to one file that the storage was notified of.
#[derive(Debug)]
pub(crate) struct WriteBehind {
    start: u64,
    told: u64,
    step: u64,
}

impl WriteBehind {
    /// Writes begin at `start`; the storage is notified after each `step` bytes.
    pub(crate) fn new(start: u64, step: u64) -> Self {
        WriteBehind { start, told: start, step }
    }

    /// Notes that the bytes before `end` are written.
    pub(crate) fn wrote(&mut self, file: &dyn StoredFile, end: u64) {
        if end.saturating_sub(self.told) >= self.step {
            file.unneeded(self.start, end - self.start);
            self.told = end;
        }
    }

    /// Writes all of the parts at `offset`, a step at a time.
    ///
    /// # Errors
    /// What the storage says; an interrupted call is made again.
    pub(crate) fn write_all(
        &mut self,
        file: &dyn StoredFile,
        mut offset: u64,
        mut parts: &[&[u8]],
    ) -> io::Result<()> {
        while !parts.is_empty() {
            let mut bytes = 0;
            let full = parts.iter().position(|part| {
                bytes += part.len() as u64;
                bytes >= self.step
            });
            let (piece, rest) = parts.split_at(full.map_or(parts.len(), |last| last + 1));
            write_all(file, offset, piece)?;
            offset += bytes;
            self.wrote(file, offset);
            parts = rest;
        }
        Ok(())
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::sync::Mutex;

    /// Takes at most seven bytes at once, and notes its hints.
    #[derive(Debug, Default)]
    struct Noting {
        bytes: Mutex<Vec<u8>>,
        told: Mutex<Vec<(u64, u64)>>,
    }

    impl StoredFile for Noting {
        fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            let part = &parts[0][..parts[0].len().min(7)];
            let mut bytes = self.bytes.lock();
            assert_eq!(bytes.len() as u64, offset, "from the front to the back");
            bytes.extend_from_slice(part);
            Ok(part.len())
        }

        fn read_at(&self, _offset: u64, _into: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn unneeded(&self, offset: u64, len: u64) {
            self.told.lock().push((offset, len));
        }

        fn sync_data(&self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn allocate(&self, _len: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn truncate(&self, _len: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn size(&self) -> io::Result<u64> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn check(writes: &[&[&str]], told: &[(u64, u64)]) {
        let (file, mut behind) = (Noting::default(), WriteBehind::new(0, 10));
        let mut text = String::new();
        for parts in writes {
            let at = text.len() as u64;
            parts.iter().for_each(|part| text.push_str(part));
            let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            behind.write_all(&file, at, &parts).expect("written");
        }
        assert_eq!(String::from_utf8_lossy(&file.bytes.lock()), text);
        assert_eq!(*file.told.lock(), told, "{writes:?}");
    }

    #[test]
    fn the_storage_is_told_after_each_step_and_not_before() {
        check(&[], &[]);
        check(&[&[]], &[]);
        check(&[&["", "123456789"]], &[]);
        check(&[&["1234567890"]], &[(0, 10)]);
        check(&[&["12345678", "90ab", "c"], &["d"]], &[(0, 12)]);
        check(&[&["12345"], &["6789"], &["0"]], &[(0, 10)]);
        check(&[&["0123456789abcdefghijklmnopqrst", "0123456789", "x"]], &[(0, 30), (0, 40)]);
    }
}
