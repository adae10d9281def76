//! Over-long records of a framing that acknowledges, kept whole in files where a `files` source can read them back.
//!
//! ```text
//!  io thread: parts ─write─▶ DIRECTORY/.SOURCE-N.open ─whole─▶ (rxN-aside) sync, rename, sync ─▶ SOURCE-N.records, answer
//! ```
//! The io thread writes a frame as its parts come, so no memory is held for it; the thread `rxN-aside` makes it durable and
//! then says so to the connection. A file of a frame that never became whole is removed. Knows no framing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::block::Acknowledge;
use crate::metrics::ReceiverCounters;
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicU64, Mailbox, Ordering, Poison, SendError};

/// Whole frames that may wait to be made durable; an io thread with one more does it by itself.
const WHOLE_MAX: usize = 64;

/// Where the over-long records of one source go.
pub(crate) struct Asides {
    directory: PathBuf,
    source: String,
    /// The next file's number.
    next: AtomicU64,
    whole: Mailbox<Whole>,
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
    file: File,
    path: PathBuf,
    /// Whether the file is kept.
    whole: bool,
}

/// A frame that is written and not durable yet.
struct Whole {
    aside: Aside,
    name: String,
    to: Arc<dyn Acknowledge>,
    number: u64,
}

impl Asides {
    /// Keeps the records of a source in this directory, which is made when it is first needed.
    pub(crate) fn new(
        directory: PathBuf,
        source: &str,
        counters: &Arc<ReceiverCounters>,
        poison: &Poison,
    ) -> Arc<Self> {
        let plain =
            |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
        Arc::new(Asides {
            directory,
            source: source.chars().map(plain).collect(),
            next: AtomicU64::new(0),
            whole: Mailbox::new(WHOLE_MAX),
            counters: Arc::clone(counters),
            poison: poison.clone(),
        })
    }

    /// Starts the thread that makes whole frames durable.
    pub(crate) fn start(self: Arc<Self>, name: &str) -> io::Result<Keeper> {
        let asides = Arc::clone(&self);
        let thread = thread::spawn(name, &self.poison, move || {
            while let Some(whole) = asides.whole.recv() {
                asides.keep(whole);
            }
        })?;
        Ok(Keeper { asides: self, thread: Some(thread) })
    }

    /// A new frame's file.
    pub(crate) fn open(&self) -> io::Result<Aside> {
        fs::create_dir_all(&self.directory)?;
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let path = self.directory.join(format!(".{}-{number}.open", self.source));
            if self.directory.join(format!("{}-{number}.records", self.source)).exists() {
                continue;
            }
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Aside { file, path, whole: false }),
                // Left by an earlier run, or another one's: never written over.
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                Err(err) => return Err(err),
            }
        }
    }

    /// The frame is whole: once it is durable, `to` is told that the connection's first `number` such frames are.
    pub(crate) fn hand_on(&self, mut aside: Aside, to: Arc<dyn Acknowledge>, number: u64) {
        aside.whole = true;
        let name = aside.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.trim_start_matches('.').trim_end_matches(".open").to_owned();
        match self.whole.try_send(Whole { aside, name, to, number }) {
            Ok(()) => {}
            Err(SendError::Full(whole) | SendError::Closed(whole)) => self.keep(whole),
        }
    }

    /// Makes a frame durable and says so. After a failed sync nothing is known of the disk: the stream stops, and the
    /// record, which was not answered, is sent again.
    fn keep(&self, whole: Whole) {
        let Whole { aside, name, to, number } = whole;
        let path = self.directory.join(format!("{name}.records"));
        match aside.become_durable(&path, &self.directory) {
            Ok(()) => {
                self.counters.put_aside.add(1);
                to.acknowledge(number);
            }
            Err(err) => {
                self.poison
                    .set(format!("cannot keep an over-long record in {}: {err}", path.display()));
            }
        }
    }
}

impl Keeper {
    /// Where it keeps them.
    pub(crate) fn asides(&self) -> Arc<Asides> {
        Arc::clone(&self.asides)
    }

    /// No frame comes any more: gives the thread, for its owner to join.
    pub(crate) fn stop(mut self) -> Option<Thread> {
        self.asides.whole.close();
        self.thread.take()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.asides.whole.close();
    }
}

impl Aside {
    /// Appends a part.
    pub(crate) fn write(&mut self, part: &[u8]) -> io::Result<()> {
        self.file.write_all(part)
    }

    fn become_durable(&self, path: &Path, directory: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        File::open(directory)?.sync_all()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.whole {
            // What is left of a frame that will be sent again; a name that starts with a dot is nobody's record.
            let _ = fs::remove_file(&self.path);
        }
    }
}
