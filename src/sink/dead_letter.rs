//! Dead letters: the input of a batch that failed for good, kept where a `files` source can read it back.
//!
//! ```text
//! DIRECTORY/PIPELINE-TIME-SOURCE.records      the records as they were received, with their terminators or headers
//! ```
//! A file is written aside (its name starts with `.`), synced and renamed, and the directory synced, so a whole one is all
//! there, also after a power cut. Processes may share a directory: what is written aside has a name of its own in each, and a
//! file that has its name is never written over. The directory is made when it is first needed, and again if somebody removed
//! it. Runs on a worker; knows nothing of jobs.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::blocks::manager::StoredBlock;
use crate::error::{Error, Result};
use crate::owner::random_mark;
use crate::storage::{
    AtomicFile, Directory, Storage, StoredFile, create_again, discard, write_all,
};
use crate::sync::{Arc, Mutex};
use crate::time::Time;

/// The input of one batch from one source.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// The batch's time.
    pub time: Time,
    /// The source's name.
    pub source: &'a str,
    /// Its blocks, in the order in which they were received.
    pub blocks: &'a [Arc<StoredBlock>],
}

/// The destination of dead letters.
pub trait DeadLetters: Send + Sync {
    /// Keeps a letter for good and says where.
    ///
    /// # Errors
    /// If it cannot be kept. What [passes](Error::passes) is tried again, from the first byte on; otherwise the stream must
    /// stop, for going on would lose the records.
    fn keep(&self, letter: &DeadLetter<'_>) -> Result<String>;

    /// The unfinished letters of a run of this pipeline that was cut off: where each is, and its bytes.
    fn unfinished(&self, _pipeline: &str) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// The name of the place for people.
    fn place(&self) -> String {
        "dead letters".to_owned()
    }
}

/// Dead letters as files of a directory.
#[derive(Clone, Debug)]
pub struct DeadLetterFiles {
    /// The directory's path, for messages.
    place: String,
    /// Made when it is first needed, if it is a directory of the file system.
    directory: PathBuf,
    storage: Arc<Mutex<Option<Arc<dyn Storage>>>>,
    /// A mark in the names of files aside that no other process has. Drawn when it is first needed.
    mark: Arc<Mutex<Option<u64>>>,
}

impl DeadLetterFiles {
    /// Keeps letters in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        DeadLetterFiles {
            place: directory.display().to_string(),
            directory,
            storage: Arc::default(),
            mark: Arc::default(),
        }
    }

    /// Keeps letters in this storage.
    pub fn of(storage: Arc<dyn Storage>) -> Self {
        let (place, storage) = (storage.name(), Arc::new(Mutex::new(Some(storage))));
        DeadLetterFiles { place, directory: PathBuf::new(), storage, mark: Arc::default() }
    }

    fn storage(&self) -> Result<Arc<dyn Storage>> {
        let mut storage = self.storage.lock();
        match &*storage {
            Some(storage) => Ok(Arc::clone(storage)),
            None => {
                let made = Directory::open(&self.directory).map_err(|err| match err {
                    Error::Io { what, source } => {
                        Error::io(format!("cannot keep a dead letter: {what}"), source)
                    }
                    other => other,
                })?;
                let made: Arc<dyn Storage> = Arc::new(made);
                *storage = Some(Arc::clone(&made));
                Ok(made)
            }
        }
    }

    fn mark(&self) -> Result<u64> {
        let mut mark = self.mark.lock();
        match *mark {
            Some(mark) => Ok(mark),
            None => Ok(*mark.insert(random_mark()?)),
        }
    }

    /// The name of the letter's file.
    fn write(&self, letter: &DeadLetter<'_>, storage: &dyn Storage) -> Result<String> {
        let what = || format!("cannot write a dead letter to {}", self.place);
        let failed = |err| Error::io(what(), err);
        let time = letter.time.as_millis();
        let name = format!("{}-{time}-{}", plain(letter.pipeline), plain(letter.source));
        let aside = format!(".{name}.{:016x}.open", self.mark()?);
        let file = create_again(storage, &aside).map_err(failed)?;
        if let Err(failure) = write_blocks(file.as_ref(), letter.blocks) {
            discard(storage, file.as_ref(), &aside);
            return Err(match failure {
                Failure::Io(err) => failed(err),
                Failure::Input(err) => Error::Failed(format!("{}: {err}", what())),
            });
        }
        let placed = storage.list().and_then(|taken| {
            let names = names(&name).filter(|name| !taken.contains(name));
            let file = AtomicFile { storage, file: file.as_ref(), aside: &aside };
            file.put(|storage, aside| rename_to_free(storage, aside, names))
        });
        placed.map_err(|err| {
            // Another attempt writes a new file: after a failed sync nothing is known of this one. It may have its name.
            let _ = storage.remove(&aside);
            failed(err)
        })
    }
}

impl DeadLetters for DeadLetterFiles {
    fn keep(&self, letter: &DeadLetter<'_>) -> Result<String> {
        let storage = self.storage()?;
        let name = self.write(letter, storage.as_ref())?;
        Ok(format!("{}/{name}", self.place))
    }

    fn unfinished(&self, pipeline: &str) -> Vec<(String, u64)> {
        let known = self.storage.lock().clone();
        // It is not made for a look, and what cannot be read is told by the first letter.
        let storage = known.or_else(|| {
            let directory = Directory::read_only(&self.directory).ok()?;
            Some(Arc::new(directory))
        });
        let names = storage.iter().filter_map(|storage| Some((storage, storage.list().ok()?)));
        let open = names.flat_map(|(storage, names)| {
            let is_open = |name: &String| is_unfinished(name, pipeline);
            let of = |name: String| {
                let bytes = storage.size_of(&name).ok()??;
                Some((format!("{}/{name}", self.place), bytes))
            };
            names.into_iter().filter(is_open).filter_map(of).collect::<Vec<_>>()
        });
        open.collect()
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}

/// True if a file is a letter of this pipeline that was not finished: `.PIPELINE-TIME-SOURCE.MARK.open`.
fn is_unfinished(name: &str, pipeline: &str) -> bool {
    let rest = name.strip_prefix('.').and_then(|rest| rest.strip_prefix(&plain(pipeline)));
    let rest = rest.and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".open"));
    let time = rest.and_then(|rest| rest.split('-').next());
    let is_number = |time: &str| time.parse::<u64>().is_ok();
    time.is_some_and(is_number)
}

/// The reason why the records of a letter are not written.
enum Failure {
    /// They cannot be written.
    Io(io::Error),
    /// They are not in memory and cannot be read back.
    Input(Error),
}

fn write_blocks(file: &dyn StoredFile, blocks: &[Arc<StoredBlock>]) -> Result<(), Failure> {
    let (mut at, mut written) = (0, Ok(()));
    for block in blocks {
        let read = block.for_each_range(|range| {
            if written.is_ok() {
                written = write_all(file, at, &[range]);
                at += range.len() as u64;
            }
        });
        read.map_err(Failure::Input)?;
        std::mem::replace(&mut written, Ok(())).map_err(Failure::Io)?;
    }
    Ok(())
}

/// Names come from programs too: what could leave the directory is replaced.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    name.chars().map(plain).collect()
}

/// The names that a letter may have: it never replaces another one, also when a batch time comes again after a restart.
fn names(name: &str) -> impl Iterator<Item = String> {
    let again = move |again: u64| format!("{name}-again{again}.records");
    std::iter::once(format!("{name}.records")).chain((1..).map(again))
}

/// Gives a file the first of the names that nobody has. Another process may take names meanwhile.
fn rename_to_free(
    storage: &dyn Storage,
    aside: &str,
    mut names: impl Iterator<Item = String>,
) -> io::Result<String> {
    loop {
        let name = names.next().expect("there are more numbers than files");
        match storage.rename_new(aside, &name) {
            Err(err) if err.kind() == ErrorKind::AlreadyExists => {}
            outcome => return outcome.map(|()| name),
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::fs;

    use bytes::Bytes;

    use super::*;
    use crate::blocks::{Block, BlockId, Range};
    use crate::framing::Framing;
    use crate::storage::{Fault, MemoryStorage};

    fn block(number: u64, bytes: &'static [u8]) -> Arc<StoredBlock> {
        let range = Range::new(Bytes::from_static(bytes), 1);
        let block = Block::new(BlockId { source: 0, number }, Framing::Lines, vec![range]);
        StoredBlock::new(Arc::new(block))
    }

    /// The input of a batch from a source, of two blocks.
    fn keep(letters: &DeadLetterFiles, source: &str) -> Result<String> {
        let blocks = [block(0, b"a\nb\r\n"), block(1, b"\xff\n")];
        let time = Time::from_millis(5_000);
        letters.keep(&DeadLetter { pipeline: "p", time, source, blocks: &blocks })
    }

    const RECORDS: &[u8] = b"a\nb\r\n\xff\n";

    #[test]
    fn records_are_kept_as_they_came_and_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let letters = DeadLetterFiles::new(dir.path().join("dead/letters"));
        let first = keep(&letters, "../in").expect("written");
        let second = keep(&letters, "../in").expect("written");
        assert!(first.ends_with("dead/letters/p-5000-___in.records"), "{first}");
        assert!(second.ends_with("p-5000-___in-again1.records"), "{second}");
        for path in [first, second] {
            assert_eq!(fs::read(path).expect("there"), RECORDS);
        }
        let files = fs::read_dir(dir.path().join("dead/letters")).expect("there").count();
        assert_eq!(files, 2, "nothing is left aside");
    }

    #[test]
    fn what_a_crash_leaves_of_a_letter_is_found_and_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("dead");
        let letters = || DeadLetterFiles::new(&path);
        assert_eq!(letters().unfinished("p"), []);
        assert!(!path.exists(), "a look makes nothing");
        keep(&letters(), "in").expect("written");
        let disk = MemoryStorage::new(0);
        let check = |call: u64, expected: &[(&str, u64)]| {
            let disk = disk.after_kill();
            disk.fail(call, Fault::PowerCut);
            let crashed = DeadLetterFiles::of(Arc::new(disk.clone()));
            *crashed.mark.lock() = Some(7);
            keep(&crashed, "in").expect_err("the power is off");
            let next = DeadLetterFiles::of(Arc::new(disk.after_kill()));
            let expected: Vec<_> = expected.iter().map(|(n, b)| ((*n).to_owned(), *b)).collect();
            for pipeline in ["q", "p-5000"] {
                assert_eq!(next.unfinished(pipeline), []);
            }
            assert_eq!(next.unfinished("p"), expected, "call {call}");
            keep(&next, "in").expect("written");
            assert_eq!(next.unfinished("p"), expected, "it is not touched");
        };
        let open = "memory/.p-5000-in.0000000000000007.open";
        // The calls: create, two writes, list or sync.
        check(4, &[(open, RECORDS.len() as u64)]);
        std::fs::write(path.join(".p-9-in.0123456789abcdef.open"), "half").expect("written");
        let found = letters().unfinished("p");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0.ends_with("dead/.p-9-in.0123456789abcdef.open") && found[0].1 == 4);
    }

    /// Two processes in one directory, each with a letter of the same name, at every step of the other.
    #[test]
    fn two_processes_write_nothing_of_each_other_over() {
        let disk = MemoryStorage::new(0);
        let [one, other] = [0, 1].map(|_| DeadLetterFiles::of(Arc::new(disk.clone())));
        assert_ne!(one.mark().expect("drawn"), other.mark().expect("drawn"));
        // What the other one is in the middle of.
        let aside = format!(".p-5000-s.{:016x}.open", other.mark().expect("drawn"));
        disk.set_bytes(&aside, b"a half");
        keep(&one, "s").expect("written");
        assert_eq!(disk.bytes(&aside).as_deref(), Some(&b"a half"[..]));
        // A name that is taken between the look and the rename.
        disk.create(".mine").expect("made");
        let all = ["p-5000-s.records", "b"].map(str::to_owned).into_iter();
        assert_eq!(rename_to_free(&disk, ".mine", all).expect("put"), "b");
        keep(&other, "s").expect("written");
        let names = disk.list().expect("listed");
        assert_eq!(names, ["b", "p-5000-s-again1.records", "p-5000-s.records"]);
        assert!(names[1..].iter().all(|name| disk.bytes(name).as_deref() == Some(RECORDS)));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let taken = dir.path().join("taken");
        fs::write(&taken, "").expect("written");
        let err = keep(&DeadLetterFiles::new(&taken), "s").expect_err("no directory");
        assert!(err.to_string().contains("taken"), "{err}");
    }

    #[test]
    fn a_directory_that_was_removed_is_made_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let letters = DeadLetterFiles::new(dir.path().join("dead"));
        keep(&letters, "s").expect("written");
        fs::remove_dir_all(dir.path().join("dead")).expect("removed");
        let again = keep(&letters, "s").expect("written");
        assert_eq!(fs::read(again).expect("there"), RECORDS);
    }

    #[test]
    fn a_full_disk_passes_and_holds_no_room_of_a_letter_that_did_not_fit() {
        let disk = MemoryStorage::new(0);
        let letters = DeadLetterFiles::of(Arc::new(disk.clone()));
        disk.set_capacity(4, 1);
        let err = keep(&letters, "s").expect_err("there is no room");
        assert!(err.passes() && err.to_string().contains("memory"), "{err}");
        assert_eq!((disk.used(), disk.list().expect("listed")), (0, Vec::new()));
        disk.set_capacity(1 << 10, 1);
        keep(&letters, "s").expect("there is room");
        assert_eq!(disk.bytes("p-5000-s.records").expect("there"), RECORDS);
    }

    /// Lets each call in turn go wrong: what was kept is there after a power cut, and what has its name is whole.
    fn crashes() -> Result<(), String> {
        for fault in [Fault::Broken, Fault::Full, Fault::Interrupted, Fault::Short, Fault::PowerCut]
        {
            for call in 1..=16 {
                let disk = MemoryStorage::new(call);
                disk.fail(call, fault);
                let letters = DeadLetterFiles::of(Arc::new(disk.clone()));
                let kept = [keep(&letters, "s"), keep(&letters, "s")];
                let kept = kept.iter().filter(|kept| kept.is_ok()).count();
                for seed in 0..20 {
                    let after = disk.after_power_cut(seed);
                    let names = after.list().expect("listed");
                    let whole = |name: &&String| after.bytes(name).as_deref() == Some(RECORDS);
                    let named = || names.iter().filter(|name| !name.starts_with('.'));
                    if named().count() < kept || !named().all(|name| whole(&name)) {
                        return Err(format!("{fault:?} at call {call}: {kept} kept, {names:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_kept_survives_a_power_cut_and_any_failure() {
        assert_eq!(crashes(), Ok(()));
    }

    #[cfg(tidemill_planted)]
    #[test]
    fn missing_syncs_are_found() {
        use crate::sync::planted::Planted;
        for defect in [Planted::SkipSync, Planted::RenameBeforeSync] {
            let found = crate::sync::planted::with(defect, crashes);
            assert!(found.is_err(), "{defect:?}");
        }
    }
}
