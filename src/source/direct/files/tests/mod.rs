//! The files source over a directory in memory that tests change and break.

mod identity;
mod properties;
mod reading;
mod stopping;

use std::collections::BTreeMap;
use std::time::Duration;

use super::listing::{OpenFile, Stat, What, is_left_by_removal};
use super::*;
use crate::metrics::{EventBus, ReceiverCounters};
use crate::sync::thread;
use crate::sync::{Mailbox, Poison};
use crate::time::ManualClock;

/// A directory in memory. An inode is used again as soon as no name and no open file has it, the last one first.
#[derive(Clone, Default)]
pub(super) struct Tree(Arc<Mutex<Files>>);

type Happening = Box<dyn FnOnce(&Tree) + Send>;

#[derive(Default)]
struct Files {
    names: BTreeMap<Vec<u8>, Name>,
    /// Names that were moved out of the directory.
    elsewhere: BTreeMap<Vec<u8>, Name>,
    serials: u64,
    inodes: Arc<Mutex<Inodes>>,
    now: u64,
    /// The file system knows no times of birth.
    unborn: bool,
    /// Everything fails with this.
    broken: Option<io::ErrorKind>,
    /// Files that were opened, and reads of them, from 0, and which of the reads fails.
    opens: u64,
    reads: u64,
    failing: Option<u64>,
    /// Happens between a listing and the next opening.
    meanwhile: Option<Happening>,
}

#[derive(Default)]
struct Inodes {
    /// Number of inodes so far, and the free ones among them.
    count: u64,
    free: Vec<u64>,
    /// By the serial number of their files.
    used: BTreeMap<u64, u64>,
}

#[derive(Clone)]
struct Name {
    node: Arc<Node>,
    is_link: bool,
}

/// A file, whatever it is called.
struct Node {
    /// Counts the files up, also those of one inode.
    serial: u64,
    inode: u64,
    born: Option<u64>,
    inner: Mutex<Inner>,
    inodes: Arc<Mutex<Inodes>>,
}

#[derive(Default)]
struct Inner {
    bytes: Vec<u8>,
    changed: u64,
    names: usize,
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut inodes = self.inodes.lock();
        inodes.free.push(self.inode);
        inodes.used.remove(&self.serial);
    }
}

impl Node {
    fn stat(&self) -> Stat {
        let (inner, id) = (self.inner.lock(), FileId { device: 1, inode: self.inode });
        let (size, changed) = (inner.bytes.len() as u64, inner.changed);
        Stat { id, born: self.born, size, changed }
    }
}

impl Inodes {
    fn take(&mut self, serial: u64) -> u64 {
        let inode = self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count
        });
        self.used.insert(serial, inode);
        inode
    }
}

impl Files {
    fn node(&self, name: &str) -> Arc<Node> {
        Arc::clone(&self.names.get(name.as_bytes()).expect("it is there").node)
    }

    fn add(&mut self, name: &str, node: Arc<Node>, is_link: bool) {
        node.inner.lock().names += usize::from(!is_link);
        self.names.insert(name.into(), Name { node, is_link });
    }
}

impl Tree {
    /// Makes a file, in the place of one of that name.
    fn put(&self, name: &str, bytes: &[u8]) {
        if self.has(name) {
            self.remove(name);
        }
        let mut files = self.0.lock();
        files.now += 1;
        files.serials += 1;
        let (serial, now, inodes) = (files.serials, files.now, Arc::clone(&files.inodes));
        let inode = inodes.lock().take(serial);
        let inner = Mutex::new(Inner { bytes: bytes.to_vec(), changed: now, names: 0 });
        let born = (!files.unborn).then_some(now);
        files.add(name, Arc::new(Node { serial, inode, born, inner, inodes }), false);
    }

    fn has(&self, name: &str) -> bool {
        self.0.lock().names.contains_key(name.as_bytes())
    }

    fn serial(&self, name: &str) -> u64 {
        self.0.lock().node(name).serial
    }

    /// All names, and the serial numbers of their files.
    fn serials(&self) -> Vec<(String, u64)> {
        let files = self.0.lock();
        let name = |(name, file): (&Vec<u8>, &Name)| (shown(name), file.node.serial);
        files.names.iter().map(name).collect()
    }

    /// The inode of a file that has a name or is open.
    fn inode(&self, serial: u64) -> Option<u64> {
        self.0.lock().inodes.lock().used.get(&serial).copied()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut files = self.0.lock();
        files.now += 1;
        let (node, now) = (files.node(name), files.now);
        let mut inner = node.inner.lock();
        inner.changed = now;
        change(&mut inner.bytes);
    }

    fn append(&self, name: &str, bytes: &[u8]) {
        self.change(name, |file| file.extend_from_slice(bytes));
    }

    fn cut(&self, name: &str, len: usize) {
        self.change(name, |file| file.truncate(len));
    }

    /// When a file was changed, and sets that.
    fn changed(&self, name: &str, time: Option<u64>) -> u64 {
        let node = self.0.lock().node(name);
        let mut inner = node.inner.lock();
        inner.changed = time.unwrap_or(inner.changed);
        inner.changed
    }

    fn rename(&self, from: &str, to: &str) {
        let name = self.0.lock().names.remove(from.as_bytes()).expect("it is there");
        if self.has(to) {
            self.remove(to);
        }
        self.0.lock().names.insert(to.into(), name);
    }

    /// Another name of a file; a symbolic link leads to it for good.
    fn link(&self, name: &str, to: &str, symbolic: bool) {
        let mut files = self.0.lock();
        let node = files.node(name);
        files.add(to, node, symbolic);
    }

    fn remove(&self, name: &str) {
        let removed = self.0.lock().names.remove(name.as_bytes()).expect("it is there");
        removed.node.inner.lock().names -= usize::from(!removed.is_link);
    }

    /// Moves a file out of the directory, or back.
    fn move_away(&self, name: &str) {
        let mut files = self.0.lock();
        let moved = files.names.remove(name.as_bytes()).expect("it is there");
        files.elsewhere.insert(name.into(), moved);
    }

    fn move_back(&self, name: &str) {
        let mut files = self.0.lock();
        let moved = files.elsewhere.remove(name.as_bytes()).expect("it was moved");
        files.names.insert(name.into(), moved);
    }

    fn reads(&self) -> u64 {
        self.0.lock().reads
    }

    fn opens(&self) -> u64 {
        self.0.lock().opens
    }

    /// This happens before the next file is opened.
    fn before_the_next_open(&self, happens: impl FnOnce(&Tree) + Send + 'static) {
        self.0.lock().meanwhile = Some(Box::new(happens));
    }

    /// The next read fails.
    fn fail_next(&self) {
        let mut files = self.0.lock();
        files.failing = Some(files.reads + 1);
    }
}

impl FileTree for Tree {
    fn list(&self, max: usize) -> io::Result<Vec<Entry>> {
        let files = self.0.lock();
        if let Some(kind) = files.broken {
            return Err(kind.into());
        }
        let entry = |(name, file): (&Vec<u8>, &Name)| Entry {
            name: name.clone(),
            is_link: file.is_link,
            what: What::File(file.node.stat()),
        };
        Ok(files.names.iter().take(max + 1).map(entry).collect())
    }

    fn open(&self, name: &[u8]) -> io::Result<Arc<dyn OpenFile>> {
        let meanwhile = self.0.lock().meanwhile.take();
        meanwhile.into_iter().for_each(|happens| happens(self));
        let mut files = self.0.lock();
        files.opens += 1;
        let node = files.names.get(name).map(|name| Arc::clone(&name.node));
        let tree = self.clone();
        let open = |node| Arc::new(Open { node, tree }) as _;
        node.map(open).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn name(&self) -> String {
        "in".to_owned()
    }
}

struct Open {
    node: Arc<Node>,
    tree: Tree,
}

impl OpenFile for Open {
    fn stat(&self) -> io::Result<Stat> {
        Ok(self.node.stat())
    }

    fn is_removed(&self) -> io::Result<bool> {
        let files = self.tree.0.lock();
        let mut names = files.names.iter().filter(|(_, name)| Arc::ptr_eq(&name.node, &self.node));
        let is_left = names.any(|(name, _)| is_left_by_removal(name));
        Ok(is_left || self.node.inner.lock().names == 0)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut files = self.tree.0.lock();
        files.reads += 1;
        if files.failing == Some(files.reads) {
            return Err(io::Error::other("a bad sector"));
        }
        drop(files);
        let bytes = &self.node.inner.lock().bytes;
        let offset = usize::try_from(offset).expect("small").min(bytes.len());
        let len = into.len().min(bytes.len() - offset);
        into[..len].copy_from_slice(&bytes[offset..offset + len]);
        Ok(len)
    }
}

/// A started source over a directory in memory.
pub(super) struct Rig {
    tree: Tree,
    source: FilesSource,
    start: DirectStart,
    clock: ManualClock,
    notes: Mailbox<(String, String)>,
    /// The newest of what was told together.
    tallies: Mailbox<String>,
    _events: thread::Thread,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.start.events.close();
    }
}

impl Rig {
    fn new(tree: &Tree, adjust: impl FnOnce(FilesSource) -> FilesSource, until_eof: bool) -> Rig {
        let source = adjust(FilesSource::of(Arc::new(tree.clone())));
        let (events, notes) = (EventBus::new(), Mailbox::new(1_000));
        let told = notes.clone();
        let tallies = Mailbox::new(1_000);
        let tally = tallies.clone();
        // Whether anybody listens is the test's matter.
        let listener = move |event: &Event| match event {
            Event::FileSkipped { file, why, .. } => {
                let _ = told.try_send((file.clone(), why.clone()));
            }
            Event::Tallied { tally: what } => {
                let _ = tally.try_send(what.newest.clone());
            }
            _ => {}
        };
        let thread = events.start(vec![Box::new(listener)], &Poison::new()).expect("a thread");
        let (counters, clock) = (Arc::new(ReceiverCounters::default()), ManualClock::new());
        let start = DirectStart {
            source: "f".to_owned(),
            events,
            counters,
            until_eof,
            clock: Arc::new(clock.clone()),
        };
        source.start(&start).expect("the directory is there");
        Rig { tree: tree.clone(), source, start, clock, notes, tallies, _events: thread }
    }

    fn plan(&self) -> Option<Vec<u8>> {
        self.source.plan(Time::from_millis(0)).expect("the directory is there")
    }

    /// The records of a plan, and how many partitions it has.
    fn read(&self, plan: &[u8]) -> Result<(Vec<String>, usize)> {
        let (mut records, partitions) = (Vec::new(), self.source.read(plan)?);
        let framing = self.source.framing;
        for partition in &partitions {
            let mut counted = 0;
            let before = records.len();
            let mut each = |range: &[u8], count: u64| {
                counted += count;
                framing.for_each(range, |record| {
                    records.push(String::from_utf8_lossy(record).into_owned());
                });
            };
            let name = &self.start.source;
            let mut strict = |lost: Lost| Err(Error::Failed(format!("source `{name}`: {lost}")));
            partition.for_each_range(&mut each, &mut strict)?;
            assert_eq!(counted, (records.len() - before) as u64);
        }
        Ok((records, partitions.len()))
    }

    /// A batch that is planned, read and committed.
    fn batch(&self) -> Vec<String> {
        let Some(plan) = self.plan() else { return Vec::new() };
        let (records, _) = self.read(&plan).expect("readable");
        self.source.committed(&plan);
        records
    }

    /// The notes on files since the last time.
    fn notes(&self) -> Vec<String> {
        let count = self.start.counters.skipped.value();
        let (mut notes, mut said) = (Vec::new(), 0);
        while said < count {
            let (file, why) = self.notes.recv().expect("the thread of events runs");
            let others =
                why.split_once("so it is with ").and_then(|(_, rest)| rest.split(' ').next());
            said += 1 + others.map_or(0, |others| others.parse().expect("a count"));
            notes.push(format!("{file}: {why}"));
        }
        self.start.counters.skipped.sub(count);
        notes
    }

    /// Bytes that were lost since the last time, without ever having been planned.
    fn lost(&self) -> u64 {
        let lost = self.start.counters.lost_bytes.value();
        self.start.counters.lost_bytes.sub(lost);
        lost
    }

    fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn open(&self) -> usize {
        self.open_inodes().len()
    }

    fn open_inodes(&self) -> Vec<u64> {
        let state = self.source.state.lock();
        state.started.as_ref().expect("started").open.ids().map(|id| id.inode).collect()
    }
}

fn same(source: FilesSource) -> FilesSource {
    source
}
