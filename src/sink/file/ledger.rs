//! `LedgerFile`: what an output directory remembers of the batches of one state directory.
//!
//! ```text
//! .tidemill-IDENTITY.ledger
//!   "TIDELEDG" | length u32 | CRC-32C u32 | head (postcard): whose, the newest keys of each job and partition │ to 64 bytes
//!   slot (64 bytes): a batch is put in place: its key, and how long its file is    synced before the file gets its name
//!   slot: the batch before it is in place                                          not synced; the next one takes its place
//! ```
//! Only the last slot can be torn, and only of its batch the directory must be asked whether its file got its name: each
//! slot comes after the batch before it is done. Beyond [`SLOTS_MAX`] slots the file is put in place anew, with what is in
//! them in the head, which has the newest keys of each job (`book`): it is bounded, and so is the work for a batch. It does not
//! know what rows look like.

use std::io;

use serde::{Deserialize, Serialize};

use super::names;
use crate::error::{Error, Result};
use crate::owner::{OutputMark, Owner, PlanDigest, StateId, Written, random_mark};
use crate::sink::book::Book;
use crate::storage::{PutFailure, Storage, StoredFile, put_whole, read_full, sync, write_all};
use crate::sync::Arc;

const MAGIC: [u8; 8] = *b"TIDELEDG";
/// Bytes before the head.
const PREFIX: usize = 16;
const VERSION: u32 = 1;
const SLOT: usize = 64;
const COMMIT: u8 = 1;
const DONE: u8 = 2;

/// Slots after which the file is put in place anew.
const SLOTS_MAX: u64 = 1024;

/// The name under which the file is written before it has its own.
const ASIDE: &str = ".ledger.aside";

/// The beginning of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    identity: StateId,
    /// The number of the output, drawn when it was made.
    output: u64,
    /// The pipeline and the state directory that made it, for messages.
    pipeline: String,
    place: String,
    /// Number of commits in the books.
    commits: u64,
    books: Vec<Book>,
}

/// The last commit, as long as nothing says that its file got its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sink) struct Unproven {
    book: usize,
    key: Written,
    /// The length of its file.
    pub(in crate::sink) size: u64,
    /// The end of its file's name: the number of the format.
    pub(in crate::sink) end: u8,
    /// True if its name has the identity's first digits.
    pub(in crate::sink) is_tagged: bool,
}

impl Unproven {
    pub(in crate::sink) fn time(&self) -> u64 {
        self.key.time
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::sink) struct LedgerFile {
    storage: Arc<dyn Storage>,
    name: String,
    head: Head,
    /// None: not on the disk yet.
    file: Option<Arc<dyn StoredFile>>,
    /// The offset of the slots.
    slots_at: u64,
    slots: u64,
    unproven: Option<Unproven>,
}

/// The output whose keys a ledger takes over.
pub(in crate::sink) struct Taken<'a> {
    pub(in crate::sink) job: &'a str,
    pub(in crate::sink) part: u32,
    /// Number of commits that the keys stand for.
    pub(in crate::sink) commits: u64,
}

/// The facts that are written down of a batch, beside its key.
#[derive(Clone, Copy, Debug)]
pub(in crate::sink) struct Place<'a> {
    pub(in crate::sink) job: &'a str,
    pub(in crate::sink) part: u32,
    pub(in crate::sink) size: u64,
    pub(in crate::sink) end: u8,
    pub(in crate::sink) is_tagged: bool,
}

impl LedgerFile {
    /// The ledger of an owner in a directory that has none of it yet. It is made with the first commit.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub(in crate::sink) fn new(storage: &Arc<dyn Storage>, owner: &Owner) -> Result<Self> {
        let head = Head {
            version: VERSION,
            identity: owner.identity,
            output: random_mark()?,
            pipeline: owner.pipeline.clone(),
            place: owner.place.clone().unwrap_or_default(),
            commits: 0,
            books: Vec::new(),
        };
        Ok(LedgerFile {
            storage: Arc::clone(storage),
            name: names::ledger(owner.identity),
            head,
            file: None,
            slots_at: 0,
            slots: 0,
            unproven: None,
        })
    }

    /// Reads a ledger; it changes nothing.
    ///
    /// # Errors
    /// If it cannot be read, or is not what this program writes; the text says what to do.
    pub(in crate::sink) fn read(storage: &Arc<dyn Storage>, name: &str) -> Result<Self> {
        let place = format!("{}/{name}", storage.name());
        let fail = |err| Error::io(format!("cannot read {place}"), err);
        let file = storage.open(name).map_err(fail)?;
        let mut bytes = vec![0; usize::try_from(file.size().map_err(fail)?).unwrap_or(usize::MAX)];
        let got = read_full(file.as_ref(), 0, &mut bytes).map_err(fail)?;
        bytes.truncate(got);
        let damaged = |what: String| {
            Error::Failed(format!(
                "{place} is damaged: {what}. It says which batches are committed there. Put a good copy of it back. To go on \
                 without it: mv {place} {place}.damaged, and give the sink another directory, or set `existing = \"append\"`; \
                 the files that are there stay, and rows of batches that run again may be there twice"
            ))
        };
        let (head, slots_at) = read_head(&bytes).map_err(damaged)?;
        let mut ledger = LedgerFile {
            storage: Arc::clone(storage),
            name: name.to_owned(),
            head,
            file: Some(file),
            slots_at: slots_at as u64,
            slots: 0,
            unproven: None,
        };
        ledger.read_slots(bytes.get(slots_at..).unwrap_or_default()).map_err(damaged)?;
        Ok(ledger)
    }

    fn read_slots(&mut self, bytes: &[u8]) -> Result<(), String> {
        let output = self.head.output;
        let mut slots = (0..).zip(bytes.chunks_exact(SLOT));
        let mut end = None;
        for (index, bytes) in &mut slots {
            match Slot::read(bytes, index, output) {
                Some(Slot { kind: COMMIT, book, key, size, end, is_tagged }) => {
                    let of = self.head.books.get_mut(book);
                    let of = of.ok_or(format!("slot {index} names no job that it knows"))?;
                    of.push(key);
                    self.head.commits += 1;
                    self.slots = index + 1;
                    self.unproven = Some(Unproven { book, key, size, end, is_tagged });
                }
                other => {
                    if other.is_some() {
                        self.unproven = None;
                    }
                    end = Some(index);
                    break;
                }
            }
        }
        // Only the last can be torn: each is synced before the next is written.
        match slots.find(|(index, bytes)| Slot::read(bytes, *index, output).is_some()) {
            Some(_) => Err(format!("slot {} is not whole, and others follow it", end.unwrap_or(0))),
            None => Ok(()),
        }
    }

    /// The name of its file.
    pub(in crate::sink) fn name(&self) -> &str {
        &self.name
    }

    /// Whose it is.
    pub(in crate::sink) fn identity(&self) -> StateId {
        self.head.identity
    }

    /// True if anything was committed, or adopted.
    pub(in crate::sink) fn has_something(&self) -> bool {
        self.head.books.iter().any(Book::has_something)
    }

    /// True if it is on the disk.
    pub(in crate::sink) fn is_there(&self) -> bool {
        self.file.is_some()
    }

    /// Who made it, for messages.
    pub(in crate::sink) fn title(&self) -> String {
        let Head { identity, pipeline, place, .. } = &self.head;
        format!(
            "the pipeline `{pipeline}` with the state directory {place} (identity {})",
            identity.short()
        )
    }

    /// The progress of the output.
    pub(in crate::sink) fn mark(&self) -> OutputMark {
        OutputMark { output: self.head.output, commits: self.head.commits }
    }

    /// The memory of a job and partition.
    pub(in crate::sink) fn book(&self, job: &str, part: u32) -> Option<&Book> {
        self.head.books.iter().find(|book| book.part == part && book.job == job)
    }

    /// Every key that is remembered, with its job.
    pub(in crate::sink) fn keys(&self) -> impl Iterator<Item = (&Book, &Written)> {
        self.head.books.iter().flat_map(|book| book.keys().map(move |key| (book, key)))
    }

    /// The last commit, with its job and partition, if nothing says that its file got its name.
    pub(in crate::sink) fn unproven(&self) -> Option<(&Book, Unproven)> {
        let unproven = self.unproven?;
        Some((self.head.books.get(unproven.book)?, unproven))
    }

    /// Writes down that a batch is put in place from now on; after this the file gets its name.
    ///
    /// # Errors
    /// If that cannot be made durable, and whether it can be tried again.
    pub(in crate::sink) fn commit(
        &mut self,
        place: Place<'_>,
        key: Written,
    ) -> Result<(), PutFailure> {
        let at = self.position(place.job, place.part);
        let book = match at {
            Some(book) if self.file.is_some() && self.slots < SLOTS_MAX => book,
            _ => {
                let before = self.head.clone();
                let book = at.unwrap_or_else(|| self.add(place.job, place.part));
                self.put().inspect_err(|_| self.head = before)?;
                book
            }
        };
        let Place { size, end, is_tagged, .. } = place;
        let slot = Slot { kind: COMMIT, book, key, size, end, is_tagged };
        let file = self.write(slot).map_err(PutFailure::Retry)?;
        sync(file.as_ref()).map_err(PutFailure::Fatal)?;
        self.slots += 1;
        self.head.commits += 1;
        self.head.books[book].push(key);
        self.unproven = Some(Unproven { book, key, size, end, is_tagged });
        Ok(())
    }

    /// The last batch is in place.
    pub(in crate::sink) fn done(&mut self) {
        if let Some(Unproven { book, key, size, end, is_tagged }) = self.unproven.take() {
            // A hint for the next start; without it that looks for the file.
            let _ = self.write(Slot { kind: DONE, book, key, size, end, is_tagged });
        }
    }

    /// The last batch did not get its name: forgets it.
    ///
    /// # Errors
    /// If that cannot be made durable.
    pub(in crate::sink) fn take_back(&mut self) -> io::Result<()> {
        let Some(unproven) = self.unproven else { return Ok(()) };
        let Some(file) = &self.file else { return Ok(()) };
        let at = self.slots_at + (self.slots - 1) * SLOT as u64;
        write_all(file.as_ref(), at, &[&[0; SLOT]])?;
        sync(file.as_ref())?;
        self.unproven = None;
        self.slots -= 1;
        self.head.commits -= 1;
        self.head.books[unproven.book].take_back();
        Ok(())
    }

    /// Takes over keys that are durable elsewhere.
    ///
    /// # Errors
    /// If they cannot be made durable here, and whether it can be tried again.
    pub(in crate::sink) fn take_over(
        &mut self,
        taken: Taken<'_>,
        keys: impl Iterator<Item = Written>,
    ) -> Result<(), PutFailure> {
        let Taken { job, part, commits } = taken;
        let mut after = self.head.clone();
        let at = self.position(job, part).unwrap_or_else(|| after.add(job, part));
        after.books[at].take_over(keys, commits);
        after.commits += commits;
        let before = std::mem::replace(&mut self.head, after);
        self.put().inspect_err(|_| self.head = before)
    }

    /// Remembers the newest label of a job and partition that was there before there was a ledger.
    pub(in crate::sink) fn adopt(&mut self, job: &str, part: u32, newest: u64) {
        let at = self.position(job, part).unwrap_or_else(|| self.add(job, part));
        self.head.books[at].adopt(newest);
    }

    /// Puts the file in place anew, without slots.
    ///
    /// # Errors
    /// What the storage says, and whether it can be tried again.
    pub(in crate::sink) fn put(&mut self) -> Result<(), PutFailure> {
        let head = postcard::to_stdvec(&self.head).expect("names and numbers can be serialised");
        let length = u32::try_from(head.len()).expect("a bounded number of keys");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(head_crc(length, &head).to_le_bytes());
        bytes.extend(head);
        bytes.resize(bytes.len().next_multiple_of(SLOT), 0);
        let storage = self.storage.as_ref();
        put_whole(storage, ASIDE, &self.name, &[&bytes])?;
        self.file = Some(storage.open(&self.name).map_err(PutFailure::Fatal)?);
        self.slots_at = bytes.len() as u64;
        self.slots = 0;
        self.unproven = None;
        Ok(())
    }

    fn position(&self, job: &str, part: u32) -> Option<usize> {
        self.head.books.iter().position(|book| book.part == part && book.job == job)
    }

    fn add(&mut self, job: &str, part: u32) -> usize {
        self.head.add(job, part)
    }

    /// Writes the next slot; whatever is in its place does not count.
    fn write(&self, slot: Slot) -> io::Result<&Arc<dyn StoredFile>> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let at = self.slots_at + self.slots * SLOT as u64;
        write_all(file.as_ref(), at, &[&slot.bytes(self.slots, self.head.output)])?;
        Ok(file)
    }
}

impl Head {
    fn add(&mut self, job: &str, part: u32) -> usize {
        self.books.push(Book::new(job, part));
        self.books.len() - 1
    }
}

fn head_crc(length: u32, head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), head)
}

/// The head, and where the slots begin.
fn read_head(bytes: &[u8]) -> Result<(Head, usize), String> {
    let (prefix, rest) = bytes.split_at_checked(PREFIX).ok_or("it is cut off")?;
    let number = |at: usize| u32::from_le_bytes(prefix[at..at + 4].try_into().expect("four bytes"));
    if prefix[..8] != MAGIC {
        return Err("it does not begin as a ledger does".to_owned());
    }
    let length = number(8);
    let head = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let head = head.ok_or("its head is cut off")?;
    if head_crc(length, head) != number(12) {
        return Err("the checksum of its head does not match".to_owned());
    }
    let version: (u32, &[u8]) = postcard::take_from_bytes(head).map_err(|err| err.to_string())?;
    if version.0 != VERSION {
        return Err(format!("its version is {}; this program reads version {VERSION}", version.0));
    }
    let found: Head = postcard::from_bytes(head).map_err(|err| err.to_string())?;
    Ok((found, (PREFIX + head.len()).next_multiple_of(SLOT)))
}

/// The entry of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    kind: u8,
    book: usize,
    key: Written,
    size: u64,
    end: u8,
    is_tagged: bool,
}

impl Slot {
    fn bytes(&self, index: u64, output: u64) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        let book = u32::try_from(self.book).expect("few jobs");
        bytes[..3].copy_from_slice(&[self.kind, self.end, u8::from(self.is_tagged)]);
        bytes[4..8].copy_from_slice(&book.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.key.time.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.key.run.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.key.mark.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.key.digest.0);
        bytes[48..56].copy_from_slice(&self.size.to_le_bytes());
        let crc = slot_crc(&bytes[..56], index, output);
        bytes[56..60].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The slot, if these are the bytes of one in this place of this ledger.
    fn read(bytes: &[u8], index: u64, output: u64) -> Option<Slot> {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let small = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let is_kind = matches!(bytes[0], COMMIT | DONE);
        if !is_kind || small(56) != slot_crc(&bytes[..56], index, output) {
            return None;
        }
        let digest = PlanDigest(bytes[32..48].try_into().expect("sixteen"));
        Some(Slot {
            kind: bytes[0],
            book: usize::try_from(small(4)).ok()?,
            key: Written { time: number(8), run: number(16), mark: number(24), digest },
            size: number(48),
            end: bytes[1],
            is_tagged: bytes[2] == 1,
        })
    }
}

fn slot_crc(bytes: &[u8], index: u64, output: u64) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(bytes), &index.to_le_bytes());
    crc32c::crc32c_append(crc, &output.to_le_bytes())
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::sink::book::{KEYS_MAX, Known};
    use crate::storage::MemoryStorage;

    fn key(time: u64) -> Written {
        Written {
            time,
            run: 1,
            mark: 7,
            digest: PlanDigest([u8::try_from(time % 251).expect("small"); 16]),
        }
    }

    fn place(job: &str) -> Place<'_> {
        Place { job, part: 0, size: 5, end: 0, is_tagged: false }
    }

    fn new(disk: &MemoryStorage) -> LedgerFile {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let owner = Owner { identity: StateId([1; 16]), ..Owner::default() };
        LedgerFile::new(&storage, &owner).expect("drawn")
    }

    fn read(disk: &MemoryStorage) -> Result<LedgerFile> {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        LedgerFile::read(&storage, &names::ledger(StateId([1; 16])))
    }

    #[test]
    fn keys_are_remembered_and_the_file_is_bounded() {
        let disk = MemoryStorage::new(0);
        let mut ledger = new(&disk);
        assert!(!ledger.has_something() && !ledger.is_there());
        let batches = 3 * SLOTS_MAX;
        let mut longest = 0;
        for time in 1..=batches {
            for job in ["a", "b"] {
                ledger.commit(place(job), key(time)).expect("durable");
                ledger.done();
            }
            longest = longest.max(disk.used());
        }
        assert!(longest < 200_000, "{longest} bytes");
        let read = read(&disk.after_power_cut(3)).expect("good");
        assert_eq!((read.mark(), read.identity()), (ledger.mark(), StateId([1; 16])));
        assert_eq!(read.mark().commits, 2 * batches);
        for found in [&ledger, &read] {
            let book = found.book("b", 0).expect("there");
            assert_eq!(book.look(&key(batches), true), Known::Committed);
            let other = Written { run: 2, ..key(batches) };
            assert_eq!(book.look(&other, true), Known::Other(key(batches)));
            assert_eq!(book.look(&key(batches + 1), true), Known::No);
            let oldest = batches - KEYS_MAX as u64;
            assert_eq!(book.look(&key(oldest + 1), false), Known::Committed);
            assert_eq!(
                book.look(&key(oldest), true),
                Known::Committed,
                "it came before the others"
            );
            assert_eq!(book.look(&key(oldest), false), Known::No);
            assert!(found.book("c", 0).is_none() && found.book("a", 1).is_none());
        }
    }

    #[test]
    fn labels_that_were_adopted_are_those_of_batches_before_starts_were_counted() {
        let disk = MemoryStorage::new(0);
        let mut ledger = new(&disk);
        ledger.adopt("a", 0, 50);
        ledger.adopt("a", 0, 40);
        ledger.put().expect("durable");
        let read = read(&disk).expect("good");
        let book = read.book("a", 0).expect("there");
        let old = |time| Written { run: 0, ..key(time) };
        assert!(read.has_something());
        assert_eq!(book.look(&old(50), true), Known::Committed);
        assert_eq!(book.look(&old(51), true), Known::No);
        assert_eq!(book.look(&key(50), true), Known::No);
    }

    #[test]
    fn the_last_commit_is_proven_or_taken_back() {
        let disk = MemoryStorage::new(0);
        let mut ledger = new(&disk);
        ledger.commit(place("a"), key(5)).expect("durable");
        ledger.done();
        assert_eq!(read(&disk).expect("good").unproven(), None);
        ledger.commit(Place { end: 2, is_tagged: true, ..place("a") }, key(6)).expect("durable");
        let mut again = read(&disk).expect("good");
        let (book, unproven) = again.unproven().expect("nothing says so");
        let found = (book.job.as_str(), unproven.time(), unproven.size, unproven.end);
        assert_eq!((found, unproven.is_tagged), (("a", 6, 5, 2), true));
        again.take_back().expect("durable");
        let last = read(&disk.after_power_cut(1)).expect("good");
        assert_eq!((last.mark().commits, last.keys().count()), (1, 1));
        again.commit(place("a"), key(6)).expect("durable");
        assert_eq!(read(&disk).expect("good").mark().commits, 2);
    }

    #[test]
    fn keys_of_a_manifest_are_taken_over() {
        let disk = MemoryStorage::new(0);
        let mut ledger = new(&disk);
        ledger
            .take_over(Taken { job: "a", part: 0, commits: 9 }, (1..=9).map(key))
            .expect("durable");
        ledger.commit(place("a"), key(10)).expect("durable");
        ledger
            .take_over(Taken { job: "a", part: 0, commits: 390 }, (11..=400).map(key))
            .expect("durable");
        let read = read(&disk.after_power_cut(1)).expect("good");
        assert_eq!(read.mark().commits, 400);
        let book = read.book("a", 0).expect("there");
        assert_eq!(book.look(&key(400), true), Known::Committed);
        assert_eq!(
            (book.look(&key(9), true), book.look(&key(9), false)),
            (Known::Committed, Known::No)
        );
    }

    #[test]
    fn damage_is_loud_and_a_torn_end_is_not() {
        let disk = MemoryStorage::new(0);
        let mut ledger = new(&disk);
        (1..=3).for_each(|time| ledger.commit(place("a"), key(time)).expect("durable"));
        let name = names::ledger(StateId([1; 16]));
        let good = disk.bytes(&name).expect("there");
        let text = |bytes: &[u8]| {
            disk.set_bytes(&name, bytes);
            read(&disk)
                .map_or_else(|err| err.to_string(), |ledger| ledger.mark().commits.to_string())
        };
        let torn = good.len() - 3 * SLOT;
        for cut in [0, 8, 20] {
            assert!(text(&good[..cut]).contains("is damaged"), "{cut}");
        }
        assert_eq!(text(&good[..good.len() - 1]), "2");
        let mut bytes = good.clone();
        bytes[torn + 10] ^= 1;
        assert!(
            text(&bytes).contains("slot 0 is not whole, and others follow it"),
            "{}",
            text(&bytes)
        );
        let mut bytes = good.clone();
        bytes[20] ^= 1;
        assert!(text(&bytes).contains("the checksum of its head does not match"));
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] = 0xFF;
            text(&bytes);
        }
        assert_eq!(text(&good), "3");
    }
}
