//! `File`: a file for each batch, job and partition, that holds all of its rows or does not exist.
//!
//! ```text
//! write:  rows ─ piece by piece ─▶ .aside, which the disk begins to save
//! commit: sync ─ rename ─▶ JOB-TIME-PART.EXT ─ sync of the directory ─▶ committed
//! ```
//! With a [`Roll`] consecutive batches gather in one file (see `rolling`). An empty batch writes nothing. Text is written
//! as it is, byte for byte but for [`LineFeeds`], lines that a job passes on from where they were received (see `formatted`);
//! JSON replaces what is not UTF-8. Whether a file that exists means "done" or is in the way depends on whether the pipeline
//! remembers its batches. Runs on the worker that finishes a job.

use std::collections::HashMap;
use std::io;

use super::formatted::{FileFormat, Layout, LineFeeds, write_rows};
use super::rolling::{Roll, Rolling, split};
use super::{BatchMeta, CommitKey, Ledger, Rows, Sink};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::wal::storage::{Lock, PutFailure, Storage, StoredFile, discard, put_in_place};

/// Where a file is written before it has its name. Names that start with a dot are no data.
const ASIDE: &str = ".aside";

/// What a file that is there before its batch is written means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The batch was committed in an earlier run: the pipeline has a `state_dir`, and a batch time is used once.
    Committed,
    /// It is somebody else's: an error that names it.
    InTheWay,
}

/// See the module.
#[derive(Debug)]
pub struct File {
    storage: Arc<dyn Storage>,
    format: FileFormat,
    /// What was asked for; otherwise it follows from the sources.
    line_feeds: Option<LineFeeds>,
    /// Whether rows may hold line feeds, as far as their sources tell.
    gets_line_feeds: bool,
    existing: Existing,
    /// The files that were found at the start: of each job's name and partition the newest batch, and its file.
    found: HashMap<(String, u64), (u64, String)>,
    /// None: a file for each batch.
    rolling: Option<Rolling>,
    committed: Ledger,
    /// The file aside with the rows that were written and not committed; none for an empty batch.
    aside: Option<Arc<dyn StoredFile>>,
    /// Why nothing is written any more.
    failed: Option<String>,
    _lock: Lock,
}

impl File {
    /// A sink that writes to a directory, which it locks.
    ///
    /// # Errors
    /// If another process uses the directory, or it cannot be read.
    pub fn open(
        storage: Arc<dyn Storage>,
        format: FileFormat,
        existing: Existing,
        roll: Option<Roll>,
    ) -> Result<Self> {
        let lock = storage.lock()?;
        let what = || format!("cannot read the output directory {}", storage.name());
        // A name that an earlier process gave may not be on the disk yet, and "committed" will be said of it.
        storage.sync_dir().map_err(|err| Error::io(what(), err))?;
        let rolling = roll.map(|roll| Rolling::open(Arc::clone(&storage), roll, format.end()));
        let rolling = rolling.transpose()?;
        let names = storage.list().map_err(|err| Error::io(what(), err))?;
        let found = newest(names, format.end());
        Ok(File {
            storage,
            format,
            line_feeds: None,
            gets_line_feeds: false,
            existing,
            found,
            rolling,
            committed: Ledger::default(),
            aside: None,
            failed: None,
            _lock: lock,
        })
    }

    /// What becomes of line feeds inside the texts of a text file. By default they are escaped if a job that writes here has a
    /// source whose records may hold some: any but one of lines.
    pub fn line_feeds(mut self, line_feeds: LineFeeds) -> Self {
        self.line_feeds = Some(line_feeds);
        self
    }

    fn layout(&self) -> Layout {
        let by_sources = if self.gets_line_feeds { LineFeeds::Escape } else { LineFeeds::Keep };
        Layout { format: self.format, line_feeds: self.line_feeds.unwrap_or(by_sources) }
    }

    /// Writes the rows where they do not count yet.
    fn write_aside(&mut self, key: &CommitKey, rows: &Rows) -> io::Result<()> {
        self.aside = None;
        let layout = self.layout();
        if let Some(rolling) = &mut self.rolling {
            let time = key.time.as_millis();
            return rolling.write((&safe(&key.job), key.partition), time, layout, rows);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let file = self.storage.create(ASIDE)?;
        if let Err(err) = write_rows(file.as_ref(), 0, layout, rows) {
            // The room that it got may be what others on the same disk wait for.
            discard(self.storage.as_ref(), file.as_ref(), ASIDE);
            return Err(err);
        }
        self.aside = Some(file);
        Ok(())
    }

    /// Makes the rows that were written count.
    fn place(&mut self, key: &CommitKey) -> Result<(), PutFailure> {
        let (job, time) = (safe(&key.job), key.time.as_millis());
        if let Some(rolling) = &mut self.rolling {
            return rolling.commit(&job, key.partition, time);
        }
        let Some(file) = self.aside.take() else { return Ok(()) };
        let name = format!("{job}-{time}-{}.{}", key.partition, self.format.end());
        put_in_place(self.storage.as_ref(), file.as_ref(), ASIDE, &name).map_err(PutFailure::Fatal)
    }

    fn failed_write(&self, err: io::Error) -> Error {
        Error::io(format!("cannot write to the output directory {}", self.storage.name()), err)
    }

    fn expect_well(&self) -> Result<()> {
        match &self.failed {
            Some(reason) => Err(Error::Failed(reason.clone())),
            None => Ok(()),
        }
    }
}

impl Sink for File {
    fn place(&self) -> Option<String> {
        let name = self.storage.name();
        let path = std::path::absolute(&name).map_or(name, |path| path.display().to_string());
        Some(format!("file:{path}"))
    }

    fn expect_line_feeds(&mut self) {
        self.gets_line_feeds = true;
    }

    fn committed(&mut self, key: &CommitKey) -> Result<bool> {
        self.expect_well()?;
        if self.committed.committed(key) {
            return Ok(true);
        }
        let found = self.found.get(&(safe(&key.job), u64::from(key.partition)));
        match (found, self.existing) {
            // Outputs of a job come in batch order, so the newest one stands for all before it.
            (Some((newest, _)), Existing::Committed) => Ok(key.time.as_millis() <= *newest),
            (Some((newest, name)), Existing::InTheWay) if key.time.as_millis() <= *newest => {
                Err(Error::Failed(format!(
                    "the output file {}/{name} exists already: without `state_dir` nobody knows whose it is; move it \
                     away, or write to another directory",
                    self.storage.name()
                )))
            }
            _ => Ok(false),
        }
    }

    fn write(&mut self, key: &CommitKey, _meta: &BatchMeta, rows: &Rows) -> Result<()> {
        self.expect_well()?;
        self.write_aside(key, rows).map_err(|err| self.failed_write(err))
    }

    fn close(&mut self) -> Result<()> {
        let closed = self.rolling.as_mut().map_or(Ok(()), Rolling::close);
        let place = self.storage.name();
        closed.map_err(|err| Error::io(format!("cannot name an open file in {place}"), err))
    }

    fn commit(&mut self, key: &CommitKey) -> Result<()> {
        self.expect_well()?;
        match self.place(key) {
            Ok(()) => {}
            Err(PutFailure::Retry(err)) => return Err(self.failed_write(err)),
            Err(PutFailure::Fatal(err)) => {
                let what = "what is on the disk is known at the next start";
                let err = self.failed_write(err);
                self.failed = Some(format!("{err}; {what}"));
                return Err(err);
            }
        }
        self.committed.commit(key);
        Ok(())
    }
}

/// Of each job and partition the newest batch that is in a file, and that file.
fn newest(names: Vec<String>, end: &str) -> HashMap<(String, u64), (u64, String)> {
    let mut found: HashMap<(String, u64), (u64, String)> = HashMap::new();
    for name in names {
        let Some(stem) = name.strip_suffix(end).and_then(|stem| stem.strip_suffix('.')) else {
            continue;
        };
        let single = split(stem).map(|(job, [time, part])| (job, time, part));
        let rolled = || split(stem).map(|(job, [_first, last, part])| (job, last, part));
        let Some((job, time, part)) = single.or_else(rolled).filter(|_| !name.starts_with('.'))
        else {
            continue;
        };
        let newest = found.entry((job.to_owned(), part)).or_default();
        if newest.1.is_empty() || newest.0 < time {
            *newest = (time, name);
        }
    }
    found
}

/// A job's name as part of a file's: other bytes than letters, digits, `_`, `-` and inner dots as `%XX`, and a dash
/// before a digit too, so that the numbers behind the job can be told from it.
fn safe(job: &str) -> String {
    let mut name = String::new();
    for (at, byte) in job.bytes().enumerate() {
        let digit_follows = job.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit);
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => name.push(char::from(byte)),
            b'-' if !digit_follows => name.push('-'),
            b'.' if !name.is_empty() => name.push('.'),
            byte => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::sink::SharedSink;
    use crate::sink::given::{key, lines, rows};
    use crate::wal::storage::{Directory, Fault, MemoryStorage};
    use crate::wal::tests::seeds;

    fn open(disk: &MemoryStorage, format: FileFormat, existing: Existing) -> Result<SharedSink> {
        File::open(Arc::new(disk.clone()), format, existing, None).map(SharedSink::new)
    }

    /// The files of a disk that count, with their bytes.
    fn files(disk: &MemoryStorage) -> Vec<(String, Vec<u8>)> {
        let names = disk.list().expect("listed").into_iter().filter(|name| !name.starts_with('.'));
        names.map(|name| (name.clone(), disk.bytes(&name).expect("there"))).collect()
    }

    fn check(format: FileFormat, rows: &Rows, name: &str, expected: &[u8]) {
        let disk = MemoryStorage::new(0);
        let sink = open(&disk, format, Existing::InTheWay).expect("free");
        sink.deliver(&key("words", 1000), &BatchMeta::default(), rows).expect("written");
        assert_eq!(files(&disk), [(name.to_owned(), expected.to_vec())]);
    }

    #[test]
    fn formats() {
        let pairs = rows(&[("a", 2_u64), ("b,\"c\"", 1)]);
        check(FileFormat::Text, &pairs, "words-1000-0.txt", b"(a,2)\n(b,\"c\",1)\n");
        check(FileFormat::Json, &pairs, "words-1000-0.json", b"[\"a\",2]\n[\"b,\\\"c\\\"\",1]\n");
        check(FileFormat::Csv, &pairs, "words-1000-0.csv", b"a,2\n\"b,\"\"c\"\"\",1\n");
        let lines: Rows = rows(&[&b"x\xFFy"[..], b""]);
        check(FileFormat::Text, &lines, "words-1000-0.txt", b"x\xFFy\n\n");
        check(
            FileFormat::Json,
            &lines,
            "words-1000-0.json",
            "[\"x\u{FFFD}y\"]\n[\"\"]\n".as_bytes(),
        );
        check(FileFormat::Csv, &lines, "words-1000-0.csv", b"x\xFFy\n\"\"\n");
    }

    #[test]
    fn line_feeds_are_escaped_where_sources_may_have_sent_them() {
        let check = |given: Option<LineFeeds>, expected: bool, rows: &Rows, text: &str| {
            let disk = MemoryStorage::new(0);
            let file =
                File::open(Arc::new(disk.clone()), FileFormat::Text, Existing::InTheWay, None);
            let file = given.into_iter().fold(file.expect("free"), File::line_feeds);
            let sink = SharedSink::new(file);
            if expected {
                sink.expect_line_feeds();
            }
            sink.deliver(&key("words", 1000), &BatchMeta::default(), rows).expect("written");
            let found = disk.bytes("words-1000-0.txt").expect("there");
            assert_eq!(String::from_utf8(found).expect("text"), text, "{given:?} {expected}");
        };
        let rows = rows(&[("one\ntwo", r"C:\temp\new")]);
        let (kept, escaped) = ("(one\ntwo,C:\\temp\\new)\n", "(one\\ntwo,C:\\temp\\\\new)\n");
        check(None, false, &rows, kept);
        check(None, true, &rows, escaped);
        check(Some(LineFeeds::Keep), true, &rows, kept);
        check(Some(LineFeeds::Escape), false, &rows, escaped);
        let received = lines(&["a\nb\r\n", "C:\\new\n", "c\n"]);
        check(None, false, &received, "a\nb\nC:\\new\nc\n");
        check(None, true, &received, "a\nb\nC:\\\\new\nc\n");
    }

    #[test]
    fn lines_that_were_received_look_like_rows_that_were_made() {
        let received = |ranges: &[&str]| {
            let mut all = rows(&["before"]);
            all.append(lines(ranges));
            all.push("after");
            all
        };
        let text = |ranges: &[&str], expected: &str| {
            check(FileFormat::Text, &received(ranges), "words-1000-0.txt", expected.as_bytes());
        };
        text(&["a\nb\n", "\n", "c\n"], "before\na\nb\n\nc\nafter\n");
        text(&["a\r\nb\n", "c\rd\n", "e\n"], "before\na\nb\nc\rd\ne\nafter\n");
        text(&[], "before\nafter\n");
        let json = "[\"before\"]\n[\"a\"]\n[\"\"]\n[\"after\"]\n";
        check(FileFormat::Json, &received(&["a\n\r\n"]), "words-1000-0.json", json.as_bytes());
        check(
            FileFormat::Csv,
            &received(&["a,b\n"]),
            "words-1000-0.csv",
            b"before\n\"a,b\"\nafter\n",
        );
    }

    #[test]
    fn batches_of_many_pieces_are_whole() {
        let line = "x".repeat(99) + "\n";
        let range = line.repeat(655);
        let made = rows(&vec!["y".repeat(299); 10_000]);
        let mut all = lines(&vec![range.as_str(); 40]);
        all.append(made);
        all.append(lines(&["a\r\n", &range]));
        let expected = range.repeat(40) + &("y".repeat(299) + "\n").repeat(10_000) + "a\n" + &range;
        check(FileFormat::Text, &all, "words-1000-0.txt", expected.as_bytes());
    }

    #[test]
    fn what_was_written_for_a_batch_that_was_given_up_does_not_count_with_the_next() {
        let roll = Some(Roll { bytes: None, age: Some(std::time::Duration::from_millis(9)) });
        let disk = MemoryStorage::new(0);
        let sink = File::open(Arc::new(disk.clone()), FileFormat::Text, Existing::Committed, roll);
        let sink = SharedSink::new(sink.expect("free"));
        let deliver =
            |ms, rows: &Rows| sink.deliver(&key("words", ms), &BatchMeta::default(), rows);
        deliver(1, &rows(&["one"])).expect("written");
        // Its rows are written and synced; its entry finds no room.
        disk.fail(disk.calls() + 3, Fault::Full);
        deliver(2, &rows(&["given up"])).expect_err("no room");
        deliver(3, &Rows::new()).expect("nothing to write");
        deliver(4, &rows(&["four"])).expect("written");
        drop(sink);
        assert_eq!(files(&disk), [("words-1-4-0.txt".to_owned(), b"one\nfour\n".to_vec())]);
    }

    #[test]
    fn rows_that_find_no_room_leave_nothing_behind() {
        for roll in [None, Some(Roll { bytes: Some(1 << 20), age: None })] {
            let disk = MemoryStorage::new(0);
            disk.set_capacity(100, 10);
            let sink =
                File::open(Arc::new(disk.clone()), FileFormat::Text, Existing::Committed, roll);
            let sink = SharedSink::new(sink.expect("free"));
            let deliver =
                |ms, rows: &Rows| sink.deliver(&key("words", ms), &BatchMeta::default(), rows);
            deliver(1, &rows(&["one"])).expect("written");
            let used = disk.used();
            deliver(2, &rows(&["x".repeat(200)])).expect_err("no room");
            assert_eq!(disk.used(), used, "{roll:?}");
            deliver(2, &rows(&["two"])).expect("there is room for this");
            drop(sink);
            assert_eq!(
                files(&disk).into_iter().map(|(_, text)| text).collect::<Vec<_>>().concat(),
                b"one\ntwo\n"
            );
        }
    }

    #[test]
    fn names_of_jobs() {
        for (job, expected) in [
            ("words", "words"),
            ("a/b", "a%2Fb"),
            (".x.y", "%2Ex.y"),
            ("50%", "50%25"),
            ("ü-1", "%C3%BC%2D1"),
            ("", ""),
        ] {
            assert_eq!(safe(job), expected);
        }
    }

    #[test]
    fn an_empty_batch_writes_nothing_and_a_key_is_written_once() {
        let disk = MemoryStorage::new(0);
        let sink = open(&disk, FileFormat::Text, Existing::InTheWay).expect("free");
        let deliver = |ms, rows: &Rows| {
            sink.deliver(&key("words", ms), &BatchMeta::default(), rows).expect("written")
        };
        deliver(1000, &Rows::new());
        assert!(files(&disk).is_empty());
        deliver(2000, &rows(&["a"]));
        deliver(2000, &rows(&["b"]));
        assert_eq!(files(&disk), [("words-2000-0.txt".to_owned(), b"a\n".to_vec())]);
    }

    #[test]
    fn a_file_in_the_way_is_named_without_a_state_dir() {
        let disk = MemoryStorage::new(0);
        disk.set_bytes("words-1000-0.txt", b"mine\n");
        let sink = open(&disk, FileFormat::Text, Existing::InTheWay).expect("free");
        let deliver = |sink: &SharedSink| {
            sink.deliver(&key("words", 1000), &BatchMeta::default(), &rows(&["a"]))
        };
        let err = deliver(&sink).expect_err("in the way").to_string();
        assert!(
            err.starts_with("the output file memory/words-1000-0.txt exists already: without"),
            "{err}"
        );
        let second = open(&disk, FileFormat::Text, Existing::Committed).expect_err("locked");
        assert_eq!(second.to_string(), "memory is in use");
        drop(sink);
        deliver(&open(&disk, FileFormat::Text, Existing::Committed).expect("free"))
            .expect("done already");
        assert_eq!(files(&disk), [("words-1000-0.txt".to_owned(), b"mine\n".to_vec())]);
    }

    #[test]
    fn a_second_process_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || {
            let storage = Directory::open(dir.path()).expect("made");
            File::open(Arc::new(storage), FileFormat::Text, Existing::InTheWay, None)
        };
        let first = open().expect("free");
        let err = open().expect_err("locked").to_string();
        assert!(err.contains(&format!("is in use by process {}", std::process::id())), "{err}");
        drop(first);
        open().expect("free again");
    }

    #[test]
    fn files_are_rolled_by_size_and_by_age_and_named_at_the_stop() {
        let names = |roll| {
            let disk = MemoryStorage::new(0);
            live(&disk, roll, 1);
            disk.list().expect("listed")
        };
        assert_eq!(names(ROLLS[1]), ["words-1-2-0.txt", "words-4-5-0.txt", "words-7-8-0.txt"]);
        assert_eq!(names(ROLLS[2]), ["words-1-4-0.txt", "words-5-8-0.txt"]);
    }

    #[test]
    fn a_manifest_that_is_damaged_in_the_middle_is_loud() {
        let disk = MemoryStorage::new(0);
        let roll = Some(Roll { bytes: Some(1 << 20), age: None });
        // The power is cut before the stop names the file.
        let whole = disk.after_kill();
        live(&whole, roll, 1);
        disk.fail(whole.calls() - 3, Fault::PowerCut);
        live(&disk, roll, 1);
        let disk = disk.after_kill();
        let mut bytes = disk.bytes(".words-1-0.manifest").expect("there");
        bytes[3] ^= 1;
        disk.set_bytes(".words-1-0.manifest", &bytes);
        let err = File::open(Arc::new(disk), FileFormat::Text, Existing::Committed, roll)
            .expect_err("damaged");
        assert!(
            err.to_string().contains("entry 0 of its manifest is damaged, and others follow it"),
            "{err}"
        );
    }

    const BATCHES: u64 = 8;

    /// The rows of a batch, made or received; the third is empty.
    fn batch(ms: u64) -> Rows {
        let count = usize::try_from(ms % 3).expect("small");
        if ms.is_multiple_of(2) {
            return lines(&vec![format!("row of {ms}\n").as_str(); count]);
        }
        rows(&vec![format!("row of {ms}"); count])
    }

    /// The bytes of all files in the order of their batches; each must hold exactly the batches that its name says.
    fn rows_of(disk: &MemoryStorage) -> std::result::Result<String, String> {
        let mut found = Vec::new();
        for (name, bytes) in files(disk) {
            let stem = name.strip_suffix(".txt").ok_or(format!("{name} is no output"))?;
            let single = split(stem).map(|(_, [time, _])| (time, time));
            let rolled = || split(stem).map(|(_, [first, last, _])| (first, last));
            let (first, last) = single.or_else(rolled).ok_or(format!("{name} is no output"))?;
            let wanted: String = (first..=last).map(text).collect();
            if bytes != wanted.as_bytes() {
                return Err(format!("{name} is not whole: {:?}", String::from_utf8_lossy(&bytes)));
            }
            found.push((first, wanted));
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, text)| text).collect())
    }

    fn text(ms: u64) -> String {
        format!("row of {ms}\n").repeat(usize::try_from(ms % 3).expect("small"))
    }

    /// A process: delivers the batches from `next` on until a call fails; returns the first that is not done.
    fn live(disk: &MemoryStorage, roll: Option<Roll>, mut next: u64) -> u64 {
        let storage = Arc::new(disk.clone());
        let Ok(sink) = File::open(storage, FileFormat::Text, Existing::Committed, roll) else {
            return next;
        };
        let sink = SharedSink::new(sink);
        while next <= BATCHES
            && sink.deliver(&key("words", next), &BatchMeta::default(), &batch(next)).is_ok()
        {
            next += 1;
        }
        next
    }

    const ROLLS: [Option<Roll>; 3] = [
        None,
        Some(Roll { bytes: Some(20), age: None }),
        Some(Roll { bytes: None, age: Some(std::time::Duration::from_millis(3)) }),
    ];

    /// A crash at each call, on each seed, and then a process that repeats what was not said to be done, and one batch
    /// that was: the record of its commit may be lost.
    fn crashes(
        seeds: impl Iterator<Item = u64>,
        faults: &[Fault],
        rolls: &[Option<Roll>],
    ) -> std::result::Result<(), String> {
        let wanted: String = (1..=BATCHES).map(text).collect();
        for seed in seeds {
            for (roll, fault) in
                rolls.iter().flat_map(|roll| faults.iter().map(move |fault| (*roll, *fault)))
            {
                for call in 1.. {
                    let disk = MemoryStorage::new(seed);
                    disk.fail(call, fault);
                    let next = live(&disk, roll, 1);
                    let clean = disk.calls() < call;
                    let context = |what: String| {
                        format!("TIDEMILL_SEED={seed}: {roll:?} {fault:?} at call {call}: {what}")
                    };
                    let killed = (seed + call) % 4 == 0;
                    let disk = if killed { disk.after_kill() } else { disk.after_power_cut(seed) };
                    rows_of(&disk).map_err(context)?;
                    live(&disk, roll, next.saturating_sub(1).max(1));
                    let found = rows_of(&disk.after_power_cut(seed + 1)).map_err(context)?;
                    if found != wanted {
                        return Err(context(format!("{:?} {found:?}", files(&disk))));
                    }
                    if clean {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn r6_a_power_cut_at_each_step_neither_loses_nor_repeats() {
        crashes(seeds(30), &[Fault::PowerCut], &ROLLS).unwrap_or_else(|what| panic!("{what}"));
    }

    #[test]
    fn r6_a_fault_at_each_step_neither_loses_nor_repeats() {
        let faults = [Fault::Broken, Fault::Full, Fault::Interrupted, Fault::Short];
        crashes(seeds(5), &faults, &ROLLS).unwrap_or_else(|what| panic!("{what}"));
    }

    #[cfg(tidemill_planted)]
    #[test]
    fn r6_finds_what_is_planted() {
        use crate::sync::planted::{Planted, with};
        let cuts = [Fault::PowerCut];
        let run = |defect, rolls: &[Option<Roll>]| with(defect, || crashes(0..30, &cuts, rolls));
        run(Planted::SkipSync, &ROLLS[..1]).expect_err("SkipSync is found");
        run(Planted::SkipSync, &ROLLS[1..]).expect_err("SkipSync is found");
        run(Planted::RenameBeforeSync, &ROLLS).expect_err("RenameBeforeSync is found");
    }
}
