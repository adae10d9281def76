//! `Checkpoints`: atomic, numbered, checksummed snapshots of named sections: data, never code.
//!
//! ```text
//! checkpoint-000000000042.ckpt, all numbers little endian
//! "TIDECKPT" | version u32 | table length u32 | number u64 | CRC-32C u32 of the table | CRC-32C u32 of these 28 bytes
//! table: postcard of [ (name, length, CRC-32C) ]
//! sections, one after the other, to the end of the file
//! ```
//! Each is an atomic file: a file with its name is whole, or was damaged later. The newest valid checkpoint wins, and the
//! last few are kept; the one before them is written over next, so that a full disk is no obstacle. The log keeps the
//! segments that the *oldest* kept checkpoint needs, or a damaged newest one would leave nothing to start from. It does not
//! know what a section means. Runs on the thread `checkpoint`; a start and tools read.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, Result, passes};
use crate::metrics::ConditionHandle;
use crate::storage::{FileMark, PreparedFiles, PutFailure, Storage, needs, read_full};
use crate::sync::Arc;
use crate::wal::NotLogged;
use crate::wal::format_matches as matches;
use crate::wal::shell_word;
use crate::wording::count;

const MAGIC: [u8; 8] = *b"TIDECKPT";
const VERSION: u32 = 1;
const HEADER: usize = 32;
/// The begin of the names of files aside.
const ASIDE: &str = "checkpoint";
/// Each file has room for this many bytes on the disk, or for twice the bytes of the newest one.
const ROOM_BYTES: u64 = 64 << 10;

/// Named sections of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its number; they count up. 0 until it is written.
    pub number: u64,
    sections: BTreeMap<String, Vec<u8>>,
}

/// A row of the table: name, length in bytes, checksum.
#[derive(Debug, Serialize, Deserialize)]
struct Row(String, u64, u32);

impl Checkpoint {
    /// A checkpoint without sections.
    pub fn new() -> Self {
        Checkpoint::default()
    }

    /// Sets a section to these bytes.
    pub fn put_bytes(&mut self, name: &str, bytes: Vec<u8>) {
        self.sections.insert(name.to_owned(), bytes);
    }

    /// Sets a section to a value.
    ///
    /// # Errors
    /// If the value cannot be serialised.
    pub fn put(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let bytes = postcard::to_stdvec(value).map_err(|err| {
            Error::Failed(format!("section `{name}` of a checkpoint cannot be written: {err}"))
        })?;
        self.put_bytes(name, bytes);
        Ok(())
    }

    /// The bytes of a section.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.sections.get(name).map(Vec::as_slice)
    }

    /// The value of a section; `None` if there is no such section.
    ///
    /// # Errors
    /// If its bytes are no `T`: the program has changed what it keeps there.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.bytes(name) else { return Ok(None) };
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(Some(value)),
            Ok((_, rest)) => {
                Err(self.unlike(name, &format!("{} left over", count(rest.len(), "byte"))))
            }
            Err(err) => Err(self.unlike(name, &err.to_string())),
        }
    }

    fn unlike(&self, name: &str, what: &str) -> Error {
        let number = self.number;
        Error::Failed(format!(
            "section `{name}` of checkpoint {number} is not what is expected: {what}"
        ))
    }

    /// The sections' names and lengths in bytes, sorted by name.
    pub fn sections(&self) -> impl Iterator<Item = (&str, usize)> {
        self.sections.iter().map(|(name, bytes)| (name.as_str(), bytes.len()))
    }

    /// The length of its file in bytes.
    fn file_bytes(&self) -> u64 {
        let sections: usize = self.sections.values().map(Vec::len).sum();
        (self.head().len() + sections) as u64
    }

    /// The header and the table; the sections follow them in the file.
    fn head(&self) -> Vec<u8> {
        let row = |(name, bytes): (&String, &Vec<u8>)| {
            Row(name.clone(), bytes.len() as u64, crc32c::crc32c(bytes))
        };
        let rows: Vec<Row> = self.sections.iter().map(row).collect();
        let table = postcard::to_stdvec(&rows).expect("names and numbers can be serialised");
        let length = u32::try_from(table.len()).expect("section names fill less than 4 GiB");
        let mut head = Vec::with_capacity(HEADER + table.len());
        head.extend(MAGIC);
        head.extend(VERSION.to_le_bytes());
        head.extend(length.to_le_bytes());
        head.extend(self.number.to_le_bytes());
        head.extend(crc32c::crc32c(&table).to_le_bytes());
        head.extend(crc32c::crc32c(&head).to_le_bytes());
        head.extend(table);
        head
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// The fault of the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (number, rows, mut rest) = decode_head(bytes)?;
        let mut sections = BTreeMap::new();
        for Row(name, length, crc) in rows {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let (body, behind) =
                rest.split_at_checked(length).ok_or(format!("section `{name}` is cut off"))?;
            if !matches(crc, crc32c::crc32c(body)) {
                return Err(format!("the checksum of section `{name}` does not match"));
            }
            sections.insert(name, body.to_vec());
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(format!("{} behind the last section", count(rest.len(), "byte")));
        }
        Ok(Checkpoint { number, sections })
    }
}

/// The number, the table and the bytes after it.
fn decode_head(bytes: &[u8]) -> Result<(u64, Vec<Row>, &[u8]), String> {
    let (header, rest) = bytes.split_at_checked(HEADER).ok_or("the header is cut off")?;
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if header[..8] != MAGIC {
        return Err("it does not begin as a checkpoint does".to_owned());
    }
    if !matches(u32_at(28), crc32c::crc32c(&header[..28])) {
        return Err("the checksum of the header does not match".to_owned());
    }
    if u32_at(8) != VERSION {
        let found = u32_at(8);
        return Err(format!("format version {found}; this program reads version {VERSION}"));
    }
    let length = usize::try_from(u32_at(12)).unwrap_or(usize::MAX);
    let (table, rest) = rest.split_at_checked(length).ok_or("the table is cut off")?;
    if !matches(u32_at(24), crc32c::crc32c(table)) {
        return Err("the checksum of the table does not match".to_owned());
    }
    let rows = postcard::from_bytes(table).map_err(|err| format!("the table: {err}"))?;
    Ok((u64::from_le_bytes(header[16..24].try_into().expect("eight bytes")), rows, rest))
}

/// A checkpoint file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub file: String,
    /// Its fault.
    pub what: String,
}

/// The checkpoints that were found in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The newest valid checkpoint.
    pub newest: Option<Checkpoint>,
    /// Newer ones that are damaged: they must be reported, because a crash leaves none.
    pub damaged: Vec<Damaged>,
    /// The number of the newest file, whatever it holds; 0 if there is none.
    pub newest_file: u64,
}

/// Reads the checkpoints of a directory. Changes nothing.
///
/// # Errors
/// If the directory or a file cannot be read. A damaged checkpoint is no error here.
pub fn load(storage: &dyn Storage) -> Result<Loaded> {
    let numbers = numbers(storage)?;
    let newest_file = numbers.last().copied().unwrap_or(0);
    let mut loaded = Loaded { newest_file, ..Loaded::default() };
    for number in numbers.into_iter().rev() {
        match read(storage, number)? {
            Ok(found) => {
                loaded.newest = Some(found);
                break;
            }
            Err(what) => loaded.damaged.push(Damaged { number, file: file_name(number), what }),
        }
    }
    Ok(loaded)
}

/// The checkpoints of a directory.
#[derive(Debug)]
pub struct Checkpoints {
    storage: Arc<dyn Storage>,
    asides: PreparedFiles,
    keep: usize,
    next: u64,
    /// The newest durable one, as it was found or put in place; `None` before the first.
    newest: Option<(String, FileMark)>,
    failed: Option<Arc<str>>,
    /// Reports that none can be written, once somebody listens.
    failing: Option<ConditionHandle>,
}

impl Checkpoints {
    /// Looks for checkpoints in a storage that the caller has locked. The last `keep` are kept, at least one.
    ///
    /// # Errors
    /// If the directory or a file cannot be read. A damaged checkpoint is no error here.
    pub fn open(storage: Arc<dyn Storage>, keep: usize) -> Result<(Self, Loaded)> {
        // A name that the last process saw may not be on the disk yet.
        storage
            .sync_dir()
            .map_err(|err| Error::io(format!("cannot sync {}", storage.name()), err))?;
        let loaded = load(storage.as_ref())?;
        let next = loaded.newest_file.saturating_add(1);
        let newest = loaded.newest.as_ref().map_or(0, Checkpoint::file_bytes);
        let room = ROOM_BYTES.max(2 * newest);
        let asides = PreparedFiles::open(Arc::clone(&storage), ASIDE, room);
        let asides =
            asides.map_err(|err| Error::io(format!("cannot list {}", storage.name()), err))?;
        let name = loaded.newest.as_ref().map(|newest| file_name(newest.number));
        let newest = name.and_then(|name| {
            // A file that cannot be asked now is not known to be lost.
            let mark = storage.mark_of(&name).ok()??;
            Some((name, mark))
        });
        let (keep, failed, failing) = (keep.max(1), None, None);
        Ok((Checkpoints { storage, asides, keep, next, newest, failed, failing }, loaded))
    }

    /// Takes the room on the disk that checkpoints need from now on, so that none has to wait for it.
    ///
    /// # Errors
    /// `StorageFull` if there is no room for it.
    pub fn keep_room(&mut self) -> io::Result<()> {
        let kept = numbers(self.storage.as_ref()).map_or(0, |numbers| numbers.len());
        self.asides.fill((self.keep + 1).saturating_sub(kept).max(1))
    }

    /// The most bytes that this takes.
    pub fn room(&self) -> u64 {
        (self.keep as u64 + 1) * self.asides.wanted()
    }

    /// Notes that there was a checkpoint of this number, even if its file is gone: no later one takes the number.
    pub fn follow(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(1));
    }

    /// Reports by this handle when none can be written, and when one was written again.
    pub(crate) fn report_failures(&mut self, handle: ConditionHandle) {
        self.failing = Some(handle);
    }

    /// Writes a checkpoint; once this returns it is durable. Returns its number.
    ///
    /// # Errors
    /// [`NotLogged::Retry`] if there was no room: the ones before it are untouched. After [`NotLogged::Failed`] (a failed
    /// sync or rename, or an error that does not [pass](crate::error::passes)) the engine must stop: nothing is written any
    /// more.
    pub fn write(&mut self, checkpoint: &mut Checkpoint) -> Result<u64, NotLogged> {
        if let Some(reason) = &self.failed {
            return Err(NotLogged::Failed(Arc::clone(reason)));
        }
        checkpoint.number = self.next;
        let head = checkpoint.head();
        let mut parts: Vec<&[u8]> = vec![&head];
        parts.extend(checkpoint.sections.values().map(Vec::as_slice));
        let name = file_name(self.next);
        let text = |err| format!("cannot write {name} in {}: {err}", self.storage.name()).into();
        self.tell_of_loss();
        match self.asides.put(&name, &parts) {
            Ok(mark) => self.newest = Some((name, mark)),
            Err(PutFailure::Retry(err)) if passes(&err) => {
                let needs = needs(&err, parts.iter().map(|part| part.len() as u64).sum());
                let reason: Arc<str> = text(err);
                if let Some(failing) = &self.failing {
                    failing.begin(reason.as_ref(), needs);
                }
                return Err(NotLogged::Retry(reason));
            }
            Err(PutFailure::Retry(err) | PutFailure::Fatal(err)) => {
                let reason = self.away().map_or_else(|| text(err), Arc::from);
                self.failed = Some(Arc::clone(&reason));
                return Err(NotLogged::Failed(reason));
            }
        }
        if let Some(failing) = &self.failing {
            failing.end();
        }
        self.next = self.next.saturating_add(1);
        if let Err(err) = self.remove_old() {
            // This one is durable; the state of the next one would be unknown.
            let name = self.storage.name();
            self.failed = Some(format!("cannot sync the checkpoints in {name}: {err}").into());
        }
        Ok(checkpoint.number)
    }

    /// The damage that somebody did to the newest checkpoint of this run: it is gone, replaced, or cut.
    fn loss(&self) -> Option<String> {
        let (name, mark) = self.newest.as_ref()?;
        // What cannot be asked now is not known to be lost.
        let found = self.storage.mark_of(name).ok()?;
        let (what, directory) = (mark.unlike(found)?, self.storage.name());
        Some(format!("{name} in {directory} was touched while it was in use: {what}"))
    }

    /// Reports that the newest checkpoint is lost: the next one takes its place.
    fn tell_of_loss(&self) {
        if let (Some(failing), Some(loss)) = (&self.failing, self.loss()) {
            failing.begin(format!("{loss}; a new one is written in its place"), "");
        }
    }

    /// The error text if the directory is gone.
    fn away(&self) -> Option<String> {
        // What cannot be asked now is not known to be gone.
        let is_gone = self.storage.is_in_place().is_ok_and(|is_in_place| !is_in_place);
        let directory = self.storage.name();
        let word = shell_word(&directory);
        is_gone.then(|| {
            format!(
                "{directory} was removed, moved or replaced while it was in use: put back what was there (the directory \
                 itself, if it was moved), or `tidemill inspect {word}` says what is left"
            )
        })
    }

    /// Ends the writing: checks that the newest checkpoint of this run is there.
    ///
    /// # Errors
    /// If it differs from what was written; the text names the fault and the remedy.
    pub fn close(&self) -> Result<()> {
        let Some(loss) = self.loss() else { return Ok(()) };
        let directory = shell_word(&self.storage.name());
        Err(Error::Failed(format!(
            "{loss}; put back what was there, or `tidemill inspect {directory}` says whether an older checkpoint is enough"
        )))
    }

    /// Keeps the newest. One of the others is written over next, and the rest are removed. A file that cannot be removed now
    /// does no harm; the next checkpoint tries again.
    ///
    /// # Errors
    /// If the directory cannot be synced.
    fn remove_old(&mut self) -> io::Result<()> {
        let Ok(numbers) = numbers(self.storage.as_ref()) else { return Ok(()) };
        let mut old = numbers.iter().rev().skip(self.keep).map(|number| file_name(*number));
        if let Some(first) = old.next() {
            self.asides.recycle(&first)?;
        }
        for name in old {
            let _ = self.storage.remove(&name);
        }
        Ok(())
    }
}

/// The checkpoints of a directory, oldest first, or the fault of each. Changes nothing.
///
/// # Errors
/// If the directory or a file cannot be read.
pub fn survey(storage: &dyn Storage) -> Result<Vec<(u64, Result<Checkpoint, String>)>> {
    numbers(storage)?.into_iter().map(|number| Ok((number, read(storage, number)?))).collect()
}

/// Removes every checkpoint for good: they are of no use any more.
///
/// # Errors
/// What the operating system says.
pub fn remove_all(storage: &dyn Storage) -> Result<()> {
    for number in numbers(storage)? {
        let name = file_name(number);
        let fail = |err| Error::io(format!("cannot remove {name} in {}", storage.name()), err);
        storage.remove(&name).map_err(fail)?;
    }
    storage.sync_dir().map_err(|err| Error::io(format!("cannot sync {}", storage.name()), err))
}

/// The file name of a checkpoint.
pub fn file_name(number: u64) -> String {
    format!("checkpoint-{number:012}.ckpt")
}

fn numbers(storage: &dyn Storage) -> Result<Vec<u64>> {
    let names =
        storage.list().map_err(|err| Error::io(format!("cannot list {}", storage.name()), err))?;
    let number = |name: &String| {
        let number = name.strip_prefix("checkpoint-")?.strip_suffix(".ckpt")?.parse().ok()?;
        (file_name(number) == *name).then_some(number)
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn read(storage: &dyn Storage, number: u64) -> Result<Result<Checkpoint, String>> {
    let name = file_name(number);
    let fail = |err| Error::io(format!("cannot read {name} in {}", storage.name()), err);
    let file = storage.open(&name).map_err(fail)?;
    let size = usize::try_from(file.size().map_err(fail)?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size];
    let got = read_full(file.as_ref(), 0, &mut bytes).map_err(fail)?;
    let found = Checkpoint::decode(&bytes[..got]);
    Ok(found.and_then(|found| match found.number {
        held if held == number => Ok(found),
        held => Err(format!("the file is checkpoint {held}")),
    }))
}

#[cfg(all(test, not(tidemill_model)))]
mod tests;
