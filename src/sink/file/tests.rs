//! The sink `file` on disks that lose power, fill up and fail.

mod owners;
mod remade;

use super::*;
use crate::owner::Output;
use crate::sink::formatted::FileFormat;
use crate::sink::given::{State, key, lines, rows};
use crate::sink::{Roll, SharedSink};
use crate::storage::{Directory, Fault, MemoryStorage};
use crate::wal::tests::seeds;

fn open(disk: &MemoryStorage, format: FileFormat, existing: Existing) -> Result<SharedSink> {
    File::open(Arc::new(disk.clone()), FileOptions { format, existing, ..FileOptions::default() })
        .map(SharedSink::new)
}

/// A sink of this state's next start.
pub(super) fn begun(
    disk: &MemoryStorage,
    roll: Option<Roll>,
    existing: Existing,
    owner: &Owner,
) -> Result<SharedSink> {
    let file = File::open(
        Arc::new(disk.clone()),
        FileOptions { existing, roll, ..FileOptions::default() },
    )?;
    let sink = SharedSink::new(file);
    sink.check(owner)?;
    sink.begin(owner, &mut |_| ())?;
    Ok(sink)
}

/// The files of a disk that count, with their bytes.
fn files(disk: &MemoryStorage) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().expect("listed").into_iter().filter(|name| !name.starts_with('.'));
    names.map(|name| (name.clone(), disk.bytes(&name).expect("there"))).collect()
}

fn check(format: FileFormat, rows: &Rows, name: &str, expected: &[u8]) {
    let disk = MemoryStorage::new(0);
    let sink = open(&disk, format, Existing::Refuse).expect("free");
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
    check(FileFormat::Json, &lines, "words-1000-0.json", "[\"x\u{FFFD}y\"]\n[\"\"]\n".as_bytes());
    check(FileFormat::Csv, &lines, "words-1000-0.csv", b"x\xFFy\n\"\"\n");
}

#[test]
fn rows_of_json_have_the_time_of_their_batch() {
    let check = |roll: Option<Roll>, name: &str, expected: &str| {
        let disk = MemoryStorage::new(0);
        let storage = Arc::new(disk.clone());
        let options =
            FileOptions { format: FileFormat::Json, time: true, roll, ..FileOptions::default() };
        let sink = SharedSink::new(File::open(storage, options).expect("free"));
        for time in [1000, 2000] {
            let rows = match time {
                1000 => rows(&[("a", 2_u64), ("b", 1)]),
                _ => lines(&["c\n"]),
            };
            let key = key("words", time);
            sink.deliver(&key, &BatchMeta::default(), &rows).expect("written");
        }
        sink.close().expect("named");
        let files = files(&disk);
        let found = files.iter().find(|(found, _)| found == name);
        assert_eq!(found.map(|(_, text)| text.as_slice()), Some(expected.as_bytes()), "{files:?}");
    };
    let first =
        "{\"batch_time_ms\":1000,\"row\":[\"a\",2]}\n{\"batch_time_ms\":1000,\"row\":[\"b\",1]}\n";
    let second = "{\"batch_time_ms\":2000,\"row\":[\"c\"]}\n";
    check(None, "words-1000-0.json", first);
    check(None, "words-2000-0.json", second);
    let roll = Roll { bytes: Some(1 << 20), age: None };
    check(Some(roll), "words-1000-2000-0.json", &format!("{first}{second}"));
}

#[test]
fn line_feeds_are_escaped_where_sources_may_have_sent_them() {
    let check = |given: Option<LineFeeds>, expected: bool, rows: &Rows, text: &str| {
        let disk = MemoryStorage::new(0);
        let options = FileOptions { line_feeds: given, ..FileOptions::default() };
        let file = File::open(Arc::new(disk.clone()), options);
        let sink = SharedSink::new(file.expect("free"));
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
    check(FileFormat::Csv, &received(&["a,b\n"]), "words-1000-0.csv", b"before\n\"a,b\"\nafter\n");
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
    let sink = File::open(Arc::new(disk.clone()), FileOptions { roll, ..FileOptions::default() });
    let sink = SharedSink::new(sink.expect("free"));
    let deliver = |ms, rows: &Rows| sink.deliver(&key("words", ms), &BatchMeta::default(), rows);
    deliver(1, &rows(&["one"])).expect("written");
    // Its rows are written and synced; its entry finds no room.
    disk.fail(disk.calls() + 6, Fault::Full);
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
        disk.set_capacity(300, 10);
        let sink =
            File::open(Arc::new(disk.clone()), FileOptions { roll, ..FileOptions::default() });
        let sink = SharedSink::new(sink.expect("free"));
        let deliver =
            |ms, rows: &Rows| sink.deliver(&key("words", ms), &BatchMeta::default(), rows);
        deliver(1, &rows(&["one"])).expect("written");
        let used = disk.used();
        deliver(2, &rows(&["x".repeat(400)])).expect_err("no room");
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
fn an_empty_batch_writes_nothing_and_a_key_is_written_once() {
    let disk = MemoryStorage::new(0);
    let sink = open(&disk, FileFormat::Text, Existing::Refuse).expect("free");
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
    let sink = open(&disk, FileFormat::Text, Existing::Refuse).expect("free");
    let deliver =
        |sink: &SharedSink| sink.deliver(&key("words", 1000), &BatchMeta::default(), &rows(&["a"]));
    let err = deliver(&sink).expect_err("in the way").to_string();
    assert!(
        err.starts_with("the output file memory/words-1000-0.txt exists already: without"),
        "{err}"
    );
    let second = open(&disk, FileFormat::Text, Existing::Refuse).expect_err("locked");
    assert_eq!(second.to_string(), "memory is in use");
    drop(sink);
    let err = deliver(&open(&disk, FileFormat::Text, Existing::Refuse).expect("free"));
    err.expect_err("in the way as well: nothing says that it is committed");
    assert_eq!(files(&disk), [("words-1000-0.txt".to_owned(), b"mine\n".to_vec())]);
}

#[test]
fn a_second_process_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || {
        let storage = Directory::open(dir.path()).expect("made");
        File::open(Arc::new(storage), FileOptions::default())
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
        live(&disk, roll, &mut State::new(1), 1);
        let names = disk.list().expect("listed").into_iter();
        names.filter(|name| names::of_ledger(name).is_none()).collect::<Vec<_>>()
    };
    assert_eq!(names(ROLLS[1]), ["words-1-2-0.txt", "words-4-5-0.txt", "words-7-8-0.txt"]);
    assert_eq!(names(ROLLS[2]), ["words-1-4-0.txt", "words-5-8-0.txt"]);
}

#[test]
fn an_idle_file_is_named_when_it_is_old_enough() {
    let roll = Some(Roll { bytes: None, age: Some(std::time::Duration::from_millis(9)) });
    let disk = MemoryStorage::new(0);
    let sink = File::open(Arc::new(disk.clone()), FileOptions { roll, ..FileOptions::default() });
    let sink = SharedSink::new(sink.expect("free"));
    let deliver = |job: &str, ms| {
        sink.deliver(&key(job, ms), &BatchMeta::default(), &rows(&["a"])).expect("written");
    };
    let (names, time) = (|| files(&disk).into_iter().map(|(name, _)| name), Time::from_millis);
    let named = || names().filter(|name| name.ends_with(".txt")).collect::<Vec<_>>();
    assert_eq!(sink.due(), None, "nothing is open");
    deliver("one", 1);
    deliver("two", 5);
    assert_eq!(sink.due(), Some(time(10)));
    sink.on_time(time(9)).expect("nothing is due");
    assert_eq!(named(), [""; 0]);
    sink.on_time(time(10)).expect("one is due");
    assert_eq!((named(), sink.due()), (vec!["one-1-1-0.txt".to_owned()], Some(time(14))));
    sink.on_time(time(99)).expect("the other is due");
    assert_eq!((named().len(), sink.due()), (2, None));
    deliver("one", 100);
    assert_eq!(sink.due(), Some(time(109)));
}

#[test]
fn a_manifest_that_is_damaged_in_the_middle_is_loud() {
    let disk = MemoryStorage::new(0);
    let roll = Some(Roll { bytes: Some(1 << 20), age: None });
    // The power is cut before the stop names the file.
    let mut state = State::new(1);
    let sink = begun(&disk, roll, Existing::Refuse, &state.start(1)).expect("free");
    for ms in 1..=3 {
        let meta = BatchMeta::default();
        sink.deliver(&state.plan("words", ms), &meta, &rows(&["row"])).expect("written");
    }
    let disk = disk.after_kill();
    let mut bytes = disk.bytes(".words-1-0.manifest").expect("there");
    bytes[64 + 3] ^= 1;
    disk.set_bytes(".words-1-0.manifest", &bytes);
    let err = begun(&disk, roll, Existing::Refuse, &state.start(2)).expect_err("damaged");
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
        let label = Label::of_data(&name).ok_or(format!("{name} is no output"))?;
        let (first, last) = (label.first, label.last);
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
fn live(disk: &MemoryStorage, roll: Option<Roll>, state: &mut State, mut next: u64) -> u64 {
    let owner = state.start(next * 7);
    let Ok(sink) = begun(disk, roll, Existing::Refuse, &owner) else { return next };
    let mut reached = None;
    while next <= BATCHES
        && sink.deliver(&state.plan("words", next), &BatchMeta::default(), &batch(next)).is_ok()
    {
        // The record of the last commit may be lost: what the state knows is that of the one before.
        Output::merge(&mut state.outputs, reached.as_slice());
        reached = sink.output();
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
                let mut state = State::new(1);
                let next = live(&disk, roll, &mut state, 1);
                let clean = disk.calls() < call;
                let context = |what: String| {
                    format!("TIDEMILL_SEED={seed}: {roll:?} {fault:?} at call {call}: {what}")
                };
                let killed = (seed + call) % 4 == 0;
                let disk = if killed { disk.after_kill() } else { disk.after_power_cut(seed) };
                rows_of(&disk).map_err(context)?;
                live(&disk, roll, &mut state, next.saturating_sub(1).max(1));
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
