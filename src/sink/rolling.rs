//! `Rolling`: gathers consecutive batches of a job and partition in one file, and names it once it is large or old enough.
//!
//! ```text
//! .JOB-FIRST-PART.open      rows of the batches, one behind the other; rows behind the last end are no data
//! .JOB-FIRST-PART.manifest  one entry per batch: time u64 | end offset u64 | CRC-32C u32 of both and the index | 0 u32
//! commit: sync of the rows ─ entry ─ sync (and the directory, the first time)
//! roll:   rename to JOB-FIRST-LAST-PART.EXT ─ sync of the directory ─ remove the manifest
//! ```
//! A start cuts what an earlier process left open behind its last entry, and names it. The age of a file is counted in
//! batch times. It does not know what rows look like.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use super::Rows;
use super::formatted::{Layout, write_rows};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::wal::storage::{PutFailure, Storage, StoredFile, discard, read_full, sync, write_all};

/// Bytes of a manifest's entry.
const ENTRY: usize = 24;

/// When a file is named and the next begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// Once it holds this many bytes.
    pub bytes: Option<u64>,
    /// Once its batches span this much time.
    pub age: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Rolling {
    storage: Arc<dyn Storage>,
    roll: Roll,
    /// How names end, without the dot.
    end: &'static str,
    open: HashMap<(String, u32), Open>,
}

/// A file that gathers batches.
#[derive(Debug)]
struct Open {
    file: Arc<dyn StoredFile>,
    manifest: Arc<dyn StoredFile>,
    first: u64,
    last: u64,
    /// Bytes of committed rows.
    bytes: u64,
    entries: u64,
    /// The end of the rows that were written last.
    written: u64,
}

fn hidden(job: &str, first: u64, part: u32, end: &str) -> String {
    format!(".{job}-{first}-{part}.{end}")
}

impl Rolling {
    /// Names what is open; the first failure is told after the rest was tried.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let named = |(key, open): (&(String, u32), &Open)| (open.entries > 0).then(|| key.clone());
        let keys: Vec<(String, u32)> = self.open.iter().filter_map(named).collect();
        let outcomes: Vec<io::Result<()>> = keys.iter().map(|key| self.finish(key)).collect();
        outcomes.into_iter().collect()
    }

    /// Names what an earlier process left open.
    pub(super) fn open(storage: Arc<dyn Storage>, roll: Roll, end: &'static str) -> Result<Self> {
        let what = || format!("cannot recover the output directory {}", storage.name());
        let names = storage.list().map_err(|err| Error::io(what(), err))?;
        let rolling = Rolling { storage: Arc::clone(&storage), roll, end, open: HashMap::new() };
        for name in &names {
            let Some(stem) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".open"))
            else {
                continue;
            };
            let Some((job, [first, part])) = split(stem) else { continue };
            let manifest = format!(".{stem}.manifest");
            let has_manifest = names.contains(&manifest);
            rolling.recover(name, has_manifest.then_some(&manifest), job, first, part)?;
        }
        // A manifest without its file: the crash came between the file's naming and the removal, or before any batch.
        for name in names.iter().filter(|name| name.starts_with('.') && name.ends_with(".manifest"))
        {
            let file = name.replace(".manifest", ".open");
            if !names.contains(&file) {
                storage.remove(name).map_err(|err| Error::io(what(), err))?;
            }
        }
        Ok(rolling)
    }

    fn recover(
        &self,
        name: &str,
        manifest: Option<&String>,
        job: &str,
        first: u64,
        part: u64,
    ) -> Result<()> {
        let fail = |err| Error::io(format!("cannot recover {}/{name}", self.storage.name()), err);
        let file = self.storage.open(name).map_err(fail)?;
        let entries = match manifest {
            Some(manifest) => {
                let manifest = self.storage.open(manifest).map_err(fail)?;
                read_entries(manifest.as_ref()).map_err(fail)?
            }
            // Both names are durable before the first batch is committed: there was none.
            None => Vec::new(),
        };
        let Some(&(last, end)) = entries.last() else {
            self.storage.remove(name).map_err(fail)?;
            return manifest.map_or(Ok(()), |name| self.storage.remove(name).map_err(fail));
        };
        let start = entries.len().checked_sub(2).map_or(0, |before| entries[before].1);
        if file.size().map_err(fail)? < end {
            let dir = self.storage.name();
            return Err(Error::Failed(format!(
                "{dir}/{name} is shorter than its {end} committed bytes"
            )));
        }
        rewrite(file.as_ref(), start, end).map_err(fail)?;
        file.truncate(end).map_err(fail)?;
        sync(file.as_ref()).map_err(fail)?;
        let named = format!("{job}-{first}-{last}-{part}.{}", self.end);
        self.storage.rename(name, &named).map_err(fail)?;
        self.storage.sync_dir().map_err(fail)?;
        manifest.map_or(Ok(()), |name| self.storage.remove(name).map_err(fail))
    }

    /// Writes the rows of a batch behind those that count.
    pub(super) fn write(
        &mut self,
        (job, part): (&str, u32),
        time: u64,
        layout: Layout,
        rows: &Rows,
    ) -> io::Result<()> {
        let key = (job.to_owned(), part);
        if let Some(open) = self.open.get_mut(&key) {
            // What was written for a batch that was given up does not count with this one.
            open.written = open.bytes;
        }
        if rows.is_empty() {
            return Ok(());
        }
        if !self.open.contains_key(&key) {
            let begun = self.begin(job, part, time)?;
            self.open.insert(key.clone(), begun);
        }
        let open = self.open.get_mut(&key).expect("begun above");
        let written = write_rows(open.file.as_ref(), open.bytes, layout, rows);
        open.written = written.inspect_err(|_| {
            // The room that they got may be what others on the same disk wait for.
            let _ = open.file.truncate(open.bytes);
        })?;
        Ok(())
    }

    /// Makes what was written for a batch count, if anything was; names the file if it is due.
    pub(super) fn commit(&mut self, job: &str, part: u32, time: u64) -> Result<(), PutFailure> {
        let key = (job.to_owned(), part);
        let Some(open) = self.open.get_mut(&key) else { return Ok(()) };
        if open.written > open.bytes {
            open.append(time)?;
            if open.entries == 0 {
                self.storage.sync_dir().map_err(PutFailure::Fatal)?;
            }
            open.entries += 1;
            open.bytes = open.written;
            open.last = time;
        }
        let due =
            self.open.get(&key).is_some_and(|open| open.entries > 0 && self.is_due(open, time));
        if due { self.finish(&key).map_err(PutFailure::Fatal) } else { Ok(()) }
    }

    fn begin(&self, job: &str, part: u32, first: u64) -> io::Result<Open> {
        let name = hidden(job, first, part, "manifest");
        let manifest = self.storage.create(&name)?;
        let file = self.storage.create(&hidden(job, first, part, "open"));
        let file =
            file.inspect_err(|_| discard(self.storage.as_ref(), manifest.as_ref(), &name))?;
        Ok(Open { file, manifest, first, last: first, bytes: 0, entries: 0, written: 0 })
    }

    fn is_due(&self, open: &Open, time: u64) -> bool {
        let age = Duration::from_millis(time.saturating_sub(open.first));
        self.roll.bytes.is_some_and(|bytes| open.bytes >= bytes)
            || self.roll.age.is_some_and(|most| age >= most)
    }

    /// Gives a file its name.
    fn finish(&mut self, key: &(String, u32)) -> io::Result<()> {
        let Some(open) = self.open.remove(key) else { return Ok(()) };
        let (job, part) = key;
        let (manifest, file) =
            (hidden(job, open.first, *part, "manifest"), hidden(job, open.first, *part, "open"));
        if open.file.size()? > open.bytes {
            // Rows of a batch that failed.
            open.file.truncate(open.bytes)?;
            sync(open.file.as_ref())?;
        }
        let named = format!("{job}-{}-{}-{part}.{}", open.first, open.last, self.end);
        self.storage.rename(&file, &named)?;
        self.storage.sync_dir()?;
        // Without its file it means nothing; the next start removes nothing else for it.
        let _ = self.storage.remove(&manifest);
        Ok(())
    }
}

impl Drop for Rolling {
    /// What cannot be named now is named by the next start.
    fn drop(&mut self) {
        let _ = self.close();
    }
}

impl Open {
    /// Makes what was written durable, and then its entry.
    fn append(&self, time: u64) -> Result<(), PutFailure> {
        sync(self.file.as_ref()).map_err(PutFailure::Fatal)?;
        let entry = entry(self.entries, time, self.written);
        let at = self.entries * ENTRY as u64;
        write_all(self.manifest.as_ref(), at, &[&entry]).map_err(PutFailure::Retry)?;
        sync(self.manifest.as_ref()).map_err(PutFailure::Fatal)
    }
}

fn entry(index: u64, time: u64, end: u64) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[..8].copy_from_slice(&time.to_le_bytes());
    bytes[8..16].copy_from_slice(&end.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &index.to_le_bytes());
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The entries up to the first that is not whole. Only the last can be torn: each is synced before the next is written.
fn read_entries(manifest: &dyn StoredFile) -> io::Result<Vec<(u64, u64)>> {
    let size = usize::try_from(manifest.size()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size];
    let got = read_full(manifest, 0, &mut bytes)?;
    let whole = |(index, bytes): (u64, &[u8])| {
        let number =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let (time, end) = (number(0), number(8));
        (bytes == entry(index, time, end)).then_some((time, end))
    };
    let found: Vec<Option<(u64, u64)>> =
        (0..).zip(bytes[..got].chunks_exact(ENTRY)).map(whole).collect();
    let good = found.iter().take_while(|entry| entry.is_some()).count();
    if found.len() > good + 1 {
        let text = format!("entry {good} of its manifest is damaged, and others follow it");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(found.into_iter().map_while(|entry| entry).collect())
}

/// Writes bytes again, unchanged: a sync that failed may have left them in memory only, marked as saved.
fn rewrite(file: &dyn StoredFile, start: u64, end: u64) -> io::Result<()> {
    let len = end.checked_sub(start).and_then(|len| usize::try_from(len).ok());
    let mut bytes = vec![0; len.ok_or(io::ErrorKind::InvalidData)?];
    let got = read_full(file, start, &mut bytes)?;
    write_all(file, start, &[&bytes[..got]])
}

/// The job and the numbers behind it, if there are `N`. A job's part of a name has no digit behind a dash.
pub(super) fn split<const N: usize>(stem: &str) -> Option<(&str, [u64; N])> {
    let dash =
        stem.as_bytes().windows(2).position(|pair| pair[0] == b'-' && pair[1].is_ascii_digit())?;
    let numbers: Option<Vec<u64>> =
        stem[dash + 1..].split('-').map(|number| number.parse().ok()).collect();
    Some((&stem[..dash], numbers?.try_into().ok()?))
}
