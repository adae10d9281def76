//! `File`: a file for each batch, job and partition, that holds all of its rows or does not exist.
//!
//! ```text
//! rows ─▶ bytes ─▶ .aside (written, synced) ─ rename ─▶ JOB-TIME-PART.EXT ─ sync of the directory ─▶ committed
//! ```
//! With a [`Roll`] consecutive batches gather in one file (see `rolling`). An empty batch writes nothing. Text is written
//! as it is, byte for byte; JSON replaces what is not UTF-8. Whether a file that exists means "done" or is in the way
//! depends on whether the pipeline remembers its batches. Runs on the worker that finishes a job.

use std::collections::HashMap;
use std::io::{self, Write};

use super::console::json_cell;
use super::pieces::Pieces;
use super::rolling::{Roll, Rolling, split};
use super::{BatchMeta, Cell, CommitKey, Ledger, RowRef, Rows, Sink};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::wal::storage::{Lock, PutFailure, Storage, StoredFile, put_whole, write_all};

/// Where a file is written before it has its name. Names that start with a dot are no data.
const ASIDE: &str = ".aside";

/// How rows look in a file, a line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// The bytes of a single cell; several as `(a,b)`.
    Text,
    /// A JSON array.
    Json,
    /// Comma-separated values, quoted where they must be.
    Csv,
}

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
    existing: Existing,
    /// The files that were found at the start: of each job's name and partition the newest batch, and its file.
    found: HashMap<(String, u64), (u64, String)>,
    /// None: a file for each batch.
    rolling: Option<Rolling>,
    committed: Ledger,
    /// The rows that were written and not committed.
    rows: Rows,
    /// Text that is not in the file yet, reused from batch to batch.
    text: Vec<u8>,
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
            existing,
            found,
            rolling,
            committed: Ledger::default(),
            rows: Rows::new(),
            text: Vec::new(),
            failed: None,
            _lock: lock,
        })
    }

    /// Makes the rows that were written count.
    fn place(&mut self, key: &CommitKey) -> Result<(), PutFailure> {
        let (job, time) = (safe(&key.job), key.time.as_millis());
        let (rows, format, text) = (std::mem::take(&mut self.rows), self.format, &mut self.text);
        let mut append =
            |file: &dyn StoredFile, start: u64| append(file, start, format, &rows, text);
        if let Some(rolling) = &mut self.rolling {
            let append = (!rows.is_empty()).then_some(append);
            return rolling.commit(&job, key.partition, time, append);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let name = format!("{job}-{time}-{}.{}", key.partition, format.end());
        put_whole(self.storage.as_ref(), ASIDE, &name, |file| append(file, 0).map(drop))
    }

    fn expect_well(&self) -> Result<()> {
        match &self.failed {
            Some(reason) => Err(Error::Failed(reason.clone())),
            None => Ok(()),
        }
    }
}

impl Sink for File {
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

    fn write(&mut self, _key: &CommitKey, _meta: &BatchMeta, rows: &Rows) -> Result<()> {
        self.expect_well()?;
        self.rows = rows.clone();
        Ok(())
    }

    fn commit(&mut self, key: &CommitKey) -> Result<()> {
        self.expect_well()?;
        let placed = self.place(key);
        let what = || format!("cannot write to the output directory {}", self.storage.name());
        match placed {
            Ok(()) => {}
            Err(PutFailure::Retry(err)) => return Err(Error::io(what(), err)),
            Err(PutFailure::Fatal(err)) => {
                let what = what();
                self.failed =
                    Some(format!("{what}: {err}; what is on the disk is known at the next start"));
                return Err(Error::io(what, err));
            }
        }
        self.committed.commit(key);
        Ok(())
    }
}

impl FileFormat {
    /// How the names of its files end.
    fn end(self) -> &'static str {
        match self {
            FileFormat::Text => "txt",
            FileFormat::Json => "json",
            FileFormat::Csv => "csv",
        }
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

/// Writes the text of the rows to a file from the offset `start` on, a piece at a time; returns where it ends.
fn append(
    file: &dyn StoredFile,
    start: u64,
    format: FileFormat,
    rows: &Rows,
    text: &mut Vec<u8>,
) -> io::Result<u64> {
    let mut end = start;
    let mut out = |piece: &[u8]| {
        write_all(file, end, &[piece])?;
        end += piece.len() as u64;
        Ok(())
    };
    let mut pieces = Pieces::new(text, &mut out);
    for row in rows.iter() {
        write_row(pieces.text, format, row)?;
        pieces.row_ends()?;
    }
    pieces.end()?;
    Ok(end)
}

fn write_row(out: &mut Vec<u8>, format: FileFormat, row: RowRef<'_>) -> io::Result<()> {
    let several = row.cells().nth(1).is_some();
    let (open, close): (&[u8], &[u8]) = match format {
        FileFormat::Text if several => (b"(", b")\n"),
        FileFormat::Text | FileFormat::Csv => (b"", b"\n"),
        FileFormat::Json => (b"[", b"]\n"),
    };
    out.extend_from_slice(open);
    for (column, cell) in row.cells().enumerate() {
        if column > 0 {
            out.push(b',');
        }
        match format {
            FileFormat::Json => json_cell(out, cell)?,
            FileFormat::Text => raw_cell(out, cell, "null")?,
            FileFormat::Csv => csv_cell(out, cell, several)?,
        }
    }
    out.extend_from_slice(close);
    Ok(())
}

fn raw_cell(out: &mut Vec<u8>, cell: Cell<'_>, null: &str) -> io::Result<()> {
    match cell {
        Cell::Text(text) => out.write_all(text),
        Cell::U64(value) => write!(out, "{value}"),
        Cell::I64(value) => write!(out, "{value}"),
        Cell::F64(value) => write!(out, "{value}"),
        Cell::Bool(value) => write!(out, "{value}"),
        Cell::Null => out.write_all(null.as_bytes()),
    }
}

/// As RFC 4180 says, but that a line ends with `\n`. A single empty text is quoted, so that it is no empty line.
fn csv_cell(out: &mut Vec<u8>, cell: Cell<'_>, several: bool) -> io::Result<()> {
    let Cell::Text(text) = cell else { return raw_cell(out, cell, "") };
    let special = |byte: &u8| matches!(byte, b',' | b'"' | b'\r' | b'\n');
    if !text.iter().any(special) && (several || !text.is_empty()) {
        return out.write_all(text);
    }
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
    Ok(())
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::sink::SharedSink;
    use crate::sink::given::{key, rows};
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

    /// The rows of a batch; the third is empty.
    fn batch(ms: u64) -> Rows {
        let count = usize::try_from(ms % 3).expect("small");
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
