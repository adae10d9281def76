//! Over any order of what happens to files, with looks and restarts in between: each line of a file that was never cut is
//! read once, in order, and what is lost is what was told.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

/// A step of a case. A number chooses among the files that are there.
#[derive(Clone, Debug)]
enum Step {
    /// Appends lines to a file that programs write to, which is made if it is not there; the last one may not end.
    Append {
        file: u8,
        lines: u8,
        ends: bool,
    },
    /// A file that programs write to gets a name that no other had.
    Rotate(u8),
    /// A name is taken away.
    Remove(u8),
    /// A file gets one more name.
    Link {
        file: u8,
        symbolic: bool,
    },
    /// A file is cut to nothing.
    Cut(u8),
    /// A file is copied, and then cut to nothing.
    CopyAndCut(u8),
    /// A compressed file takes a file's place.
    Compress {
        file: u8,
        named: bool,
    },
    /// A file is moved to another directory, and back.
    MoveAway(u8),
    MoveBack,
    /// A batch is planned and read.
    Batch,
    /// The oldest batch that was not committed is committed.
    Commit,
    /// This many seconds pass.
    Wait(u8),
    /// The process dies and starts again: the last snapshot, then the batches that were planned since.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let lines = (0..3u8, 0..5u8, prop::bool::weighted(0.8));
    prop_oneof![
        6 => lines.prop_map(|(file, lines, ends)| Step::Append { file, lines, ends }),
        2 => (0..3u8).prop_map(Step::Rotate),
        1 => any::<u8>().prop_map(Step::Remove),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(file, symbolic)| Step::Link { file, symbolic }),
        1 => any::<u8>().prop_map(Step::Cut),
        1 => any::<u8>().prop_map(Step::CopyAndCut),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(file, named)| Step::Compress { file, named }),
        1 => any::<u8>().prop_map(Step::MoveAway),
        1 => Just(Step::MoveBack),
        6 => Just(Step::Batch),
        4 => Just(Step::Commit),
        1 => (1..70u8).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// The content of a file between two cuts: a text of its own, whose tokens name it.
#[derive(Debug, Default)]
struct Text {
    written: String,
    /// Bytes that batches have read.
    read: usize,
    /// Its length at the last look, and when its last piece was taken.
    seen: usize,
    planned: usize,
    /// Its file went, and its losses were reported.
    is_gone: bool,
}

/// A file: its texts, of which the last one is what it holds, and the first one that looks know.
#[derive(Debug, Default)]
struct File {
    texts: Vec<usize>,
    known: usize,
    /// The last look found it in the directory, or open.
    was_there: bool,
}

/// The plan of a batch, and the records that it must find.
type Planned = (Vec<u8>, Vec<String>);

/// The directory, what was written to it, and the source.
struct World {
    tree: Tree,
    rig: Rig,
    texts: Vec<Text>,
    /// By the serial number.
    files: BTreeMap<u64, File>,
    names: usize,
    away: Vec<String>,
    snapshot: Vec<u8>,
    open: VecDeque<Planned>,
    expected_lost: usize,
    told_lost: usize,
}

fn limits(source: FilesSource) -> FilesSource {
    source.record_bytes_max(120).batch_bytes_max(100)
}

impl World {
    fn new(unborn: bool) -> World {
        let tree = Tree::default();
        tree.0.lock().unborn = unborn;
        let rig = Rig::new(&tree, limits, false);
        let snapshot = rig.source.snapshot();
        World {
            tree,
            rig,
            texts: Vec::new(),
            files: BTreeMap::new(),
            names: 0,
            away: Vec::new(),
            snapshot,
            open: VecDeque::new(),
            expected_lost: 0,
            told_lost: 0,
        }
    }

    /// One of the names that have a text, if there is one.
    fn name(&self, number: u8) -> Option<String> {
        let names: Vec<String> = self
            .tree
            .serials()
            .into_iter()
            .filter(|(_, serial)| self.files.contains_key(serial))
            .map(|(name, _)| name)
            .collect();
        (!names.is_empty()).then(|| names[usize::from(number) % names.len()].clone())
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}{}", self.names)
    }

    /// The file of this name holds a new text.
    fn new_text(&mut self, name: &str) -> usize {
        self.texts.push(Text::default());
        let (serial, text) = (self.tree.serial(name), self.texts.len() - 1);
        self.files.entry(serial).or_default().texts.push(text);
        text
    }

    fn append(&mut self, name: &str, lines: u8, ends: bool) {
        if !self.tree.has(name) {
            self.tree.put(name, b"");
            self.new_text(name);
        }
        let number = *self.files[&self.tree.serial(name)].texts.last().expect("a text");
        let text = &mut self.texts[number].written;
        let before = text.len();
        for _ in 0..lines {
            *text += &format!("{number}.{}\n", text.len());
        }
        let unfinished = text.len() - text.rfind('\n').map_or(0, |at| at + 1);
        match (ends, unfinished > 60) {
            (true, false) => {}
            (false, false) => *text += &format!("{number}.{} and ", text.len()),
            (_, true) => text.push('\n'),
        }
        self.tree.append(name, &text.as_bytes()[before..]);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Append { file, lines, ends } => self.append(&format!("log{file}"), lines, ends),
            Step::Rotate(file) => {
                let (name, to) = (format!("log{file}"), self.fresh("rotated"));
                if self.tree.has(&name) {
                    self.tree.rename(&name, &to);
                }
            }
            Step::Remove(number) => {
                let name = self.name(number);
                name.into_iter().for_each(|name| self.tree.remove(&name));
            }
            Step::Link { file, symbolic } => {
                let to = self.fresh("link");
                let name = self.name(file);
                name.into_iter().for_each(|name| self.tree.link(&name, &to, symbolic));
            }
            Step::Cut(number) => {
                if let Some(name) = self.name(number) {
                    self.tree.cut(&name, 0);
                    self.new_text(&name);
                }
            }
            Step::CopyAndCut(number) => self.copy_and_cut(number),
            Step::Compress { file, named } => {
                let to = self.fresh("c") + if named { ".gz" } else { "" };
                if let Some(name) = self.name(file) {
                    self.tree.put(&to, b"\x1F\x8B\x08junk\njunk\n");
                    self.tree.remove(&name);
                }
            }
            Step::MoveAway(number) => {
                if let Some(name) = self.name(number).filter(|name| !self.away.contains(name)) {
                    self.tree.move_away(&name);
                    self.away.push(name);
                }
            }
            Step::MoveBack => {
                if let Some(name) = self.away.pop() {
                    if self.tree.has(&name) {
                        self.tree.remove(&name);
                    }
                    self.tree.move_back(&name);
                }
            }
            Step::Batch => self.batch(),
            Step::Commit => {
                if let Some((plan, _)) = self.open.pop_front() {
                    self.rig.source.committed(&plan);
                    self.snapshot = self.rig.source.snapshot();
                }
            }
            Step::Wait(seconds) => self.rig.wait(seconds.into()),
            Step::Restart => self.restart(),
        }
    }

    /// The copy is another file: its lines are other records of the same text.
    fn copy_and_cut(&mut self, number: u8) {
        let to = self.fresh("copy");
        let Some(name) = self.name(number) else { return };
        let text = *self.files[&self.tree.serial(&name)].texts.last().expect("a text");
        let copied = self.texts[text].written.clone();
        let own = self.texts.len();
        let renamed = copied.replace(&format!("{text}."), &format!("{own}."));
        self.tree.put(&to, renamed.as_bytes());
        assert_eq!(self.new_text(&to), own);
        self.texts[own].written = renamed;
        self.tree.cut(&name, 0);
        self.new_text(&name);
    }

    fn batch(&mut self) {
        self.expect_losses();
        let plan = self.rig.plan();
        self.told_lost += usize::try_from(self.rig.lost()).expect("small");
        if let Some(plan) = plan {
            let records = self.rig.read(&plan).expect("readable").0;
            for record in &records {
                self.read(record);
            }
            self.open.push_back((plan, records));
        }
        let (listed, open) = (self.tree.serials(), self.rig.open_inodes());
        for (serial, file) in &mut self.files {
            let is_open = self.tree.inode(*serial).is_some_and(|inode| open.contains(&inode));
            let is_there = is_open || listed.iter().any(|(_, other)| other == serial);
            let text = &self.texts[*file.texts.last().expect("a text")];
            if file.was_there && !is_there {
                assert_eq!(
                    text.read,
                    text.written.len(),
                    "closed before its end: {file:?} {text:?}"
                );
            }
            file.was_there = is_there;
        }
    }

    /// Expects the losses that the next look must find.
    fn expect_losses(&mut self) {
        let (listed, open) = (self.tree.serials(), self.rig.open_inodes());
        for (serial, file) in &mut self.files {
            let is_open = self.tree.inode(*serial).is_some_and(|inode| open.contains(&inode));
            let is_there = is_open || listed.iter().any(|(_, other)| other == serial);
            let (known, last) = (file.known, file.texts.len() - 1);
            let size = self.texts[file.texts[last]].written.len();
            let text = &mut self.texts[file.texts[known]];
            if !is_there {
                if !text.is_gone {
                    self.expected_lost += text.seen - text.read;
                }
                file.known = last;
                self.texts[file.texts[last]].is_gone = true;
                continue;
            }
            if last > known && !text.is_gone {
                self.expected_lost += match text.read {
                    0 => text.seen.saturating_sub(size),
                    read => text.seen - read,
                };
            }
            file.known = last;
            let text = &mut self.texts[file.texts[last]];
            (text.seen, text.is_gone) = (size, false);
        }
    }

    /// The record is the next line of the text that it names.
    fn read(&mut self, record: &str) {
        let number: usize =
            record.split('.').next().and_then(|it| it.parse().ok()).expect("a text");
        let text = &mut self.texts[number];
        let rest = &text.written[text.read..];
        let line = rest.split_inclusive('\n').next().unwrap_or_default();
        assert_eq!(line.strip_suffix('\n').unwrap_or(line), record, "of {text:?}");
        text.read += line.len();
        text.planned = text.seen;
    }

    fn restart(&mut self) {
        let next = Rig::new(&self.tree, limits, false);
        next.source.restore(&self.snapshot).expect("a snapshot");
        next.source.start(&next.start).expect("there");
        for (plan, records) in &self.open {
            next.source.planned(plan).expect("a plan");
            // Its files may be gone by now.
            if let Ok((again, _)) = next.read(plan) {
                assert_eq!(&again, records);
            }
        }
        let lost = next.source.lost_unplanned().expect("asked");
        self.told_lost +=
            lost.iter().map(|lost| usize::try_from(lost.amount()).expect("small")).sum::<usize>();
        self.rig = next;
        // A new process knows a file from its last piece on.
        for text in &mut self.texts {
            text.seen = if text.read == 0 { 0 } else { text.planned };
        }
        self.files.values_mut().for_each(|file| file.was_there = false);
        // What the start told is behind the source once a batch is planned.
        self.batch();
    }

    /// Everything that is there was read, and everything that was lost was told.
    fn check(&self) {
        assert_eq!(self.told_lost, self.expected_lost);
        let listed = self.tree.serials();
        for (serial, file) in &self.files {
            let text = &self.texts[*file.texts.last().expect("a text")];
            let whole = text.written.rfind('\n').map_or(0, |at| at + 1);
            if listed.iter().any(|(_, other)| other == serial) {
                assert!(text.read >= whole, "{text:?}");
            } else if !text.is_gone {
                assert_eq!(text.read, text.written.len(), "{text:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_read_once_and_losses_are_told(steps in prop::collection::vec(step(), 1..80), unborn in any::<bool>()) {
        let mut world = World::new(unborn);
        steps.into_iter().for_each(|step| world.take(step));
        let rest = || std::iter::repeat_n([Step::Batch, Step::Commit], 60).flatten();
        rest().chain([Step::Wait(61)]).chain(rest()).for_each(|step| world.take(step));
        world.check();
    }
}
