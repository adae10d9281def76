//! What a test does to a [`MemoryStorage`] beside ending a process: calls that fail or hang, files that are damaged or lost. Any
//! thread may call it.

use super::{Fault, Inode, MemoryStorage};
use crate::sync::Arc;

#[doc(hidden)]
impl MemoryStorage {
    /// Makes the `call`-th call from the start fail, counted from 1.
    pub fn fail(&self, call: u64, fault: Fault) {
        self.0.lock().plan.insert(call, fault);
    }

    /// Removes the directory with all of its files, durably; files that are open keep their bytes.
    pub fn lose_directory(&self) {
        let mut disk = self.0.lock();
        disk.names.clear();
        disk.durable_names.clear();
        disk.pending_names.clear();
        disk.lock = Arc::default();
        disk.gone = true;
    }

    /// From now on calls that change or sync a file with `part` in its name do not return until the [release]; an empty
    /// `part` holds every call that changes or syncs something.
    ///
    /// [release]: MemoryStorage::release
    pub fn hang(&self, part: &str) {
        self.0.lock().hanging = Some(part.to_owned());
    }

    /// Lets hanging calls continue.
    pub fn release(&self) {
        let mut disk = self.0.lock();
        disk.hanging = None;
        disk.released.notify_all();
    }

    /// Number of calls that hang now.
    pub fn hung(&self) -> usize {
        self.0.lock().hung
    }

    /// Number of calls up to now.
    pub fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    /// The bytes of a file, as a process sees them.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.0.lock();
        disk.names.get(name).map(|inode| disk.inodes[*inode].seen.clone())
    }

    /// Replaces the bytes of a file durably, as damage or a user might.
    pub fn set_bytes(&self, name: &str, bytes: &[u8]) {
        let mut disk = self.0.lock();
        let (seen, durable) = (bytes.to_vec(), bytes.to_vec());
        disk.inodes.push(Inode { seen, durable, ..Inode::default() });
        let number = disk.inodes.len() - 1;
        disk.names.insert(name.to_owned(), number);
        disk.durable_names.insert(name.to_owned(), number);
    }

    /// Removes a file, durably; nothing happens if there is none.
    pub fn lose(&self, name: &str) {
        let mut disk = self.0.lock();
        disk.names.remove(name);
        disk.durable_names.remove(name);
    }
}
