//! `AtomicFile`: a file that is written aside and gets its name whole.
//!
//! ```text
//!  write aside ─▶ sync of the file ─▶ rename (over the old file, or only to a new name) ─▶ sync of the directory
//! ```
//! After a crash the name holds all of the new bytes, or what it held before. The one writer with its own order is the
//! list of segments (`wal/segment_list.rs`), which is synced before a segment gets its name and renamed after it. Runs on
//! the caller's thread; does not know what a file holds, nor who writes it.

use std::io;

use super::{PutFailure, Storage, StoredFile, discard, sync, write_all};
use crate::sync::planted::{Planted, planted};

/// A file that was written under a name that nobody reads; the bytes are not synced yet.
pub(crate) struct AtomicFile<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) file: &'a dyn StoredFile,
    /// The name under which it was written.
    pub(crate) aside: &'a str,
}

impl AtomicFile<'_> {
    /// Gives the file this name; a file that has the name is replaced.
    ///
    /// # Errors
    /// The state of the disk is unknown then.
    pub(crate) fn replace(&self, name: &str) -> io::Result<()> {
        self.put(|storage, aside| storage.rename(aside, name))
    }

    /// Lets `rename` give the file its name, between the two syncs.
    ///
    /// # Errors
    /// What `rename` says; of a sync: the state of the disk is unknown then.
    pub(crate) fn put<T, E: From<io::Error>>(
        &self,
        rename: impl FnOnce(&dyn Storage, &str) -> Result<T, E>,
    ) -> Result<T, E> {
        let syncs_late = planted(Planted::RenameBeforeSync);
        if !syncs_late {
            sync(self.file)?;
        }
        let renamed = rename(self.storage, self.aside)?;
        self.storage.sync_dir()?;
        if syncs_late {
            sync(self.file)?;
        }
        Ok(renamed)
    }
}

/// Writes a whole file aside and puts it in place; a file that has the name is replaced.
///
/// # Errors
/// What the storage says, and whether it can be tried again.
pub(crate) fn put_whole(
    storage: &dyn Storage,
    aside: &str,
    name: &str,
    parts: &[&[u8]],
) -> Result<(), PutFailure> {
    let file = storage.create(aside).map_err(PutFailure::Retry)?;
    let file = file.as_ref();
    if let Err(err) = write_all(file, 0, parts) {
        discard(storage, file, aside);
        return Err(PutFailure::Retry(err));
    }
    AtomicFile { storage, file, aside }.replace(name).map_err(PutFailure::Fatal)
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::storage::{Fault, MemoryStorage};

    const OLD: &[u8] = b"old bytes";
    const NEW: &[u8] = b"new bytes, which are more";

    /// Lets each call of a put go wrong: after a power cut the name holds the old bytes or the new ones, and the new ones
    /// once the put has said so.
    fn crashes() -> Result<(), String> {
        for fault in [Fault::Broken, Fault::Full, Fault::Interrupted, Fault::Short, Fault::PowerCut]
        {
            for call in 1..=6 {
                let disk = MemoryStorage::new(call);
                disk.set_bytes("name", OLD);
                disk.fail(call, fault);
                let put = put_whole(&disk, "aside", "name", &[&NEW[..9], &NEW[9..]]);
                for seed in 0..20 {
                    let found = disk.after_power_cut(seed).bytes("name").unwrap_or_default();
                    if found != NEW && (put.is_ok() || found != OLD) {
                        return Err(format!("{fault:?} at call {call}: {put:?}, {found:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_name_holds_the_old_bytes_or_the_new_ones() {
        assert_eq!(crashes(), Ok(()));
    }

    #[cfg(tidemill_planted)]
    #[test]
    fn missing_syncs_are_found() {
        for defect in [Planted::SkipSync, Planted::RenameBeforeSync] {
            let found = crate::sync::planted::with(defect, crashes);
            assert!(found.is_err(), "{defect:?}");
        }
    }
}
