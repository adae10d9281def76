//! Over-long records of a framing that acknowledges, kept whole in files where a `files` source can read them back.
//!
//! ```text
//!  io thread: parts ─write─▶ DIRECTORY/.SOURCE-N.open ─whole─▶ (rxN-aside) sync, rename, sync ─▶ SOURCE-N.records, answer
//! ```
//! The io thread writes a frame as its parts come, so no memory is held for it; the thread `rxN-aside` makes it durable and
//! then says so to the connection. Where another source's thread gives a frame up for want of memory, `rxN-aside` writes what has
//! come of it, so that nobody waits for the disk of another source. A file of a frame that never became whole is removed. Knows no
//! framing.

use std::io;
use std::path::Path;

use crate::block::Acknowledge;
use crate::error::{Error, Result};
use crate::metrics::ReceiverCounters;
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicU64, Mailbox, Ordering, Poison, SendError};
use crate::wal::storage::{Directory, Storage, StoredFile, sync, write_all};

/// Whole frames that may wait to be made durable; an io thread with one more does it by itself.
const WHOLE_MAX: usize = 64;

/// Where the over-long records of one source go.
pub(crate) struct Asides {
    storage: Arc<dyn Storage>,
    /// The source's name, with what could leave the directory replaced.
    source: String,
    /// The next file's number.
    next: AtomicU64,
    jobs: Mailbox<Job>,
    counters: Arc<ReceiverCounters>,
    poison: Poison,
}

/// The running thread `rxN-aside`; dropped, it ends after all whole frames.
pub(crate) struct Keeper {
    asides: Arc<Asides>,
    thread: Option<Thread>,
}

/// A frame that is being written; its file is removed unless it is handed on whole.
pub(crate) struct Aside {
    storage: Arc<dyn Storage>,
    file: Arc<dyn StoredFile>,
    number: u64,
    /// What its file is called until it is durable.
    name: String,
    len: u64,
    /// Whether the file is kept.
    whole: bool,
}

/// What the thread `rxN-aside` does.
enum Job {
    Keep(Whole),
    /// Writes the begin of a frame.
    Begin(Vec<u8>, Begun),
}

/// Called once with a frame whose begin was to be written.
pub(crate) type Begun = Box<dyn FnOnce(io::Result<Aside>) + Send>;

/// A frame that is written and not durable yet.
struct Whole {
    aside: Aside,
    to: Arc<dyn Acknowledge>,
    upto: u64,
}

impl Asides {
    /// Keeps the records of a source in this directory, which is made if need be. What an earlier run did not finish there
    /// is removed: its sender sends it again.
    ///
    /// # Errors
    /// If the directory cannot be made, opened or read.
    pub(crate) fn open(
        directory: &Path,
        source: &str,
        counters: &Arc<ReceiverCounters>,
        poison: &Poison,
    ) -> Result<Arc<Self>> {
        let plain =
            |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
        let source: String = source.chars().map(plain).collect();
        let storage: Arc<dyn Storage> = Arc::new(Directory::open(directory)?);
        let next = look(storage.as_ref(), &source).map_err(|err| {
            Error::io(format!("cannot read the directory {}", directory.display()), err)
        })?;
        Ok(Arc::new(Asides {
            storage,
            source,
            next: AtomicU64::new(next),
            jobs: Mailbox::new(WHOLE_MAX),
            counters: Arc::clone(counters),
            poison: poison.clone(),
        }))
    }

    /// Starts the thread that makes whole frames durable.
    pub(crate) fn start(self: Arc<Self>, name: &str) -> io::Result<Keeper> {
        let asides = Arc::clone(&self);
        let thread = thread::spawn(name, &self.poison, move || {
            while let Some(job) = asides.jobs.recv() {
                match job {
                    Job::Keep(whole) => asides.keep(&whole),
                    Job::Begin(bytes, begun) => begun(asides.write_begin(&bytes)),
                }
            }
        })?;
        Ok(Keeper { asides: self, thread: Some(thread) })
    }

    /// A new frame's file.
    pub(crate) fn begin(&self) -> io::Result<Aside> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let name = format!(".{}-{number}.open", self.source);
        let file = self.storage.create(&name)?;
        let storage = Arc::clone(&self.storage);
        Ok(Aside { storage, file, number, name, len: 0, whole: false })
    }

    /// Has the thread `rxN-aside` write the begin of a frame, and then call `begun`; at once with an error if too many wait.
    pub(crate) fn begin_later(&self, bytes: Vec<u8>, begun: Begun) {
        if let Err(SendError::Full(job) | SendError::Closed(job)) =
            self.jobs.try_send(Job::Begin(bytes, begun))
            && let Job::Begin(_, begun) = job
        {
            begun(Err(io::Error::other(format!("{WHOLE_MAX} records wait to be written"))));
        }
    }

    /// Writes the begin of a frame.
    pub(crate) fn write_begin(&self, bytes: &[u8]) -> io::Result<Aside> {
        let mut aside = self.begin()?;
        aside.write(bytes)?;
        Ok(aside)
    }

    /// The frame is whole: once it is durable, `to` is told that the connection's first `upto` such frames are.
    pub(crate) fn hand_on(&self, mut aside: Aside, to: Arc<dyn Acknowledge>, upto: u64) {
        aside.whole = true;
        if let Err(SendError::Full(job) | SendError::Closed(job)) =
            self.jobs.try_send(Job::Keep(Whole { aside, to, upto }))
            && let Job::Keep(whole) = job
        {
            self.keep(&whole);
        }
    }

    /// Makes a frame durable and says so. After a failed sync nothing is known of the disk: the stream stops, and the
    /// record, which was not answered, is sent again.
    fn keep(&self, whole: &Whole) {
        let Whole { aside, to, upto } = whole;
        let name = format!("{}-{}.records", self.source, aside.number);
        let placed = sync(aside.file.as_ref())
            .and_then(|()| self.storage.rename(&aside.name, &name))
            .and_then(|()| self.storage.sync_dir());
        match placed {
            Ok(()) => {
                self.counters.put_aside.add(1);
                to.acknowledge(*upto);
            }
            Err(err) => {
                let place = self.storage.name();
                self.poison.set(format!("cannot keep an over-long record in {place}: {err}"));
            }
        }
    }
}

/// Removes what was not finished, and returns the number behind the last that was used.
fn look(storage: &dyn Storage, source: &str) -> io::Result<u64> {
    let mut next = 0;
    for name in storage.list()? {
        let of = |before: &str, behind: &str| {
            let number = name.strip_prefix(before)?.strip_prefix(source)?.strip_prefix('-')?;
            number.strip_suffix(behind)?.parse::<u64>().ok()
        };
        if of(".", ".open").is_some() {
            storage.remove(&name)?;
        }
        next = next.max(of("", ".records").map_or(0, |number| number.saturating_add(1)));
    }
    Ok(next)
}

impl Keeper {
    /// Where it keeps them.
    pub(crate) fn asides(&self) -> Arc<Asides> {
        Arc::clone(&self.asides)
    }

    /// No frame comes any more: gives the thread, for its owner to join.
    pub(crate) fn stop(mut self) -> Option<Thread> {
        self.asides.jobs.close();
        self.thread.take()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.asides.jobs.close();
    }
}

impl Aside {
    /// Appends a part.
    pub(crate) fn write(&mut self, part: &[u8]) -> io::Result<()> {
        write_all(self.file.as_ref(), self.len, &[part])?;
        self.len += part.len() as u64;
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.whole {
            // What is left of a frame that will be sent again; the next start removes it if this fails.
            let _ = self.storage.remove(&self.name);
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Told(AtomicU64);

    impl Acknowledge for Told {
        fn acknowledge(&self, upto: u64) {
            self.0.store(upto, Ordering::SeqCst);
        }
    }

    #[test]
    fn whole_frames_are_kept_and_others_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (counters, poison) = (Arc::default(), Poison::new());
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file(".a_b-7.open"), "left by a crash").expect("written");
        std::fs::write(file("a_b-4.records"), "kept before").expect("written");
        let open = || Asides::open(dir.path(), "a/b", &counters, &poison).expect("a directory");
        let told = Arc::new(Told::default());
        let keeper = open().start("rx0-aside").expect("a thread");
        let mut aside = keeper.asides().begin().expect("a file");
        aside.write(b"2 syslog 3 a").expect("written");
        aside.write(b"bc\n").expect("written");
        keeper.asides().hand_on(aside, Arc::clone(&told) as Arc<dyn Acknowledge>, 1);
        drop(keeper.asides().begin().expect("a file"));
        keeper.stop().expect("the thread").join();
        assert_eq!((told.0.load(Ordering::SeqCst), counters.put_aside.value()), (1, 1));
        assert_eq!(std::fs::read(file("a_b-5.records")).expect("kept"), b"2 syslog 3 abc\n");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 2, "nothing else");
        assert_eq!(poison.reason(), None);
    }
}
