//! Output directories that go away while they are written to.

use super::*;
use crate::error::awaited;

const ROLL: Option<Roll> = Some(Roll { bytes: Some(1 << 20), age: None });

fn row(ms: u64) -> Rows {
    rows(&[format!("row of {ms}")])
}

fn deliver(sink: &SharedSink, key: &CommitKey) -> Result<()> {
    sink.deliver(key, &BatchMeta::default(), &row(key.time.as_millis()))
}

fn names(disk: &MemoryStorage) -> Vec<String> {
    files(disk).into_iter().map(|(name, _)| name).collect()
}

fn has_ledger(disk: &MemoryStorage) -> bool {
    disk.list().expect("listed").iter().any(|name| names::of_ledger(name).is_some())
}

#[test]
fn a_directory_is_made_again_with_what_it_remembered() {
    let disk = MemoryStorage::new(0);
    let mut state = State::new(1);
    let sink = begun(&disk, None, Existing::Refuse, &state.start(1)).expect("free");
    let keys = [1, 2, 3, 4].map(|ms| state.plan("words", ms));
    keys[..2].iter().for_each(|key| deliver(&sink, key).expect("written"));
    assert_eq!(sink.take_notes(), Vec::<String>::new());
    disk.lose_directory();
    deliver(&sink, &keys[2]).expect("the directory is made again");
    let note = "memory was removed or moved away while it was written to, and is made again; 2 committed files are not there \
                any more";
    assert_eq!(sink.take_notes(), [note]);
    // What was committed is not written again, in this run and in the next one.
    keys.iter().for_each(|key| deliver(&sink, key).expect("written, or committed"));
    assert_eq!(
        (names(&disk), has_ledger(&disk)),
        (vec!["words-3-0.txt".into(), "words-4-0.txt".into()], true)
    );
    assert_eq!(sink.take_notes(), Vec::<String>::new(), "it is told once");
    Output::merge(&mut state.outputs, sink.output().as_slice());
    let disk = disk.after_power_cut(1);
    let sink = begun(&disk, None, Existing::Refuse, &state.start(2)).expect("its own");
    keys.iter().for_each(|key| deliver(&sink, key).expect("committed"));
    deliver(&sink, &state.plan("words", 5)).expect("written");
    assert_eq!(names(&disk), ["words-3-0.txt", "words-4-0.txt", "words-5-0.txt"]);
}

#[test]
fn a_directory_that_goes_away_before_the_name_is_given_is_no_commit() {
    let disk = MemoryStorage::new(0);
    let mut state = State::new(1);
    let storage = Arc::new(disk.clone());
    let mut sink = File::open(storage, FileOptions::default()).expect("free");
    sink.begin(&state.start(1), &mut |_| ()).expect("new");
    let key = state.plan("words", 1);
    sink.write(&key, &BatchMeta::default(), &row(1)).expect("written");
    disk.lose_directory();
    let err = sink.commit(&key).expect_err("it is gone");
    assert_eq!(err.of_system().and_then(awaited), Some("its directory must be there"), "{err}");
    assert!(!sink.committed(&key).expect("told"), "its file has no name");
    let sink = SharedSink::new(sink);
    deliver(&sink, &key).expect("written again");
    Output::merge(&mut state.outputs, sink.output().as_slice());
    assert_eq!(state.outputs[0].mark.commits, 1);
    let disk = disk.after_kill();
    let sink = begun(&disk, None, Existing::Refuse, &state.start(2)).expect("its own");
    deliver(&sink, &key).expect("committed");
    assert_eq!(names(&disk), ["words-1-0.txt"]);
}

#[test]
fn a_ledger_that_is_removed_is_written_again() {
    let disk = MemoryStorage::new(0);
    let mut state = State::new(1);
    let sink = begun(&disk, None, Existing::Refuse, &state.start(1)).expect("free");
    deliver(&sink, &state.plan("words", 1)).expect("written");
    disk.lose(&names::ledger(state.identity));
    deliver(&sink, &state.plan("words", 2)).expect("written");
    assert_eq!(
        sink.take_notes(),
        ["the ledger of memory was removed while it was written to, and is written again"]
    );
    Output::merge(&mut state.outputs, sink.output().as_slice());
    drop(sink);
    begun(&disk, None, Existing::Refuse, &state.start(2)).expect("its own");
}

#[test]
fn rows_that_go_with_an_open_file_are_an_error_and_the_next_start_goes_on() {
    let disk = MemoryStorage::new(0);
    let mut state = State::new(1);
    let sink = begun(&disk, ROLL, Existing::Refuse, &state.start(1)).expect("free");
    for ms in [10, 20] {
        deliver(&sink, &state.plan("words", ms)).expect("written");
    }
    disk.lose_directory();
    for _ in 0..2 {
        let err = deliver(&sink, &state.plan("words", 30)).expect_err("rows are gone");
        assert_eq!(
            err.to_string(),
            "memory/.words-10-0.open was removed while it was written to: 20 bytes are missing of the rows of 2 batches (10 to \
             20 ms), which are committed. They are in no output: put back what was there; the next start looks for it, and names the \
             ways out"
        );
        assert!(err.of_system().is_none(), "it does not pass");
    }
    drop(sink);
    disk.remake().expect("made by the next start");
    let sink = begun(&disk, ROLL, Existing::Refuse, &state.start(2)).expect("new");
    deliver(&sink, &state.plan("words", 30)).expect("written");
    sink.close().expect("named");
    assert_eq!(names(&disk), ["words-30-30-0.txt"]);
}

#[test]
fn files_that_are_rolled_go_on_in_the_directory_that_is_made_again() {
    let disk = MemoryStorage::new(0);
    let mut state = State::new(1);
    let roll = Some(Roll { bytes: Some(1), age: None });
    let sink = begun(&disk, roll, Existing::Refuse, &state.start(1)).expect("free");
    let keys = [1, 2, 3].map(|ms| state.plan("words", ms));
    deliver(&sink, &keys[0]).expect("written");
    disk.lose_directory();
    keys.iter().for_each(|key| deliver(&sink, key).expect("written, or committed"));
    let notes = sink.take_notes();
    assert!(
        notes.len() == 1 && notes[0].ends_with("; 1 committed file is not there any more"),
        "{notes:?}"
    );
    Output::merge(&mut state.outputs, sink.output().as_slice());
    drop(sink);
    let sink = begun(&disk, roll, Existing::Refuse, &state.start(2)).expect("its own");
    keys.iter().for_each(|key| deliver(&sink, key).expect("committed"));
    assert_eq!(names(&disk), ["words-2-2-0.txt", "words-3-3-0.txt"]);
}

/// A sink in a directory of the file system, which `replace` then does something to.
fn check_replaced(replace: impl Fn(&std::path::Path), expected: &str) {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("out");
    let open = || {
        let storage = Arc::new(Directory::open(&path).expect("made"));
        File::open(storage, FileOptions::default())
    };
    let mut state = State::new(1);
    let mut sink = open().expect("free");
    sink.begin(&state.start(1), &mut |_| ()).expect("new");
    let sink = SharedSink::new(sink);
    deliver(&sink, &state.plan("words", 1)).expect("written");
    replace(&path);
    let delivered = deliver(&sink, &state.plan("words", 2));
    let said = match &delivered {
        Ok(()) => sink.take_notes().concat(),
        Err(err) => err.to_string(),
    };
    let said = said.replace(&path.display().to_string(), "OUT");
    assert!(said.contains(expected), "`{expected}` is not in `{said}`");
    if delivered.is_ok() {
        let err = open().expect_err("it is locked").to_string();
        assert!(err.contains("is in use by process"), "{err}");
    }
}

#[test]
fn a_directory_that_is_replaced_is_told_from_the_one_that_was_opened() {
    use std::fs;
    let away =
        |path: &std::path::Path| fs::rename(path, path.with_extension("old")).expect("moved");
    let again = "OUT was removed or moved away while it was written to, and is made again; 1 committed file is not there";
    check_replaced(|path| fs::remove_dir_all(path).expect("removed"), again);
    check_replaced(away, again);
    let empty = |path: &std::path::Path| {
        away(path);
        fs::create_dir(path).expect("made");
    };
    check_replaced(empty, again);
    let full = |path: &std::path::Path| {
        empty(path);
        fs::copy(path.with_extension("old").join("words-1-0.txt"), path.join("words-1-0.txt"))
            .expect("copied");
    };
    check_replaced(
        full,
        "OUT was replaced by another directory while it was written to, and words-1-0.txt is in that one",
    );
}

/// The power is cut, or a call fails, at each step after the directory was lost: what was committed before that is not there
/// twice, and what comes after it is there once.
#[test]
fn r6_a_directory_that_is_lost_and_a_fault_at_each_step_neither_lose_nor_repeat() {
    let rolls = [None, Some(Roll { bytes: Some(1), age: None })];
    let faults = [Fault::PowerCut, Fault::Broken, Fault::Full, Fault::Interrupted];
    for (seed, (roll, fault)) in (0..8).flat_map(|seed| {
        rolls.iter().flat_map(move |roll| faults.map(|fault| (seed, (*roll, fault))))
    }) {
        for step in 1.. {
            let disk = MemoryStorage::new(seed);
            let mut state = State::new(1);
            let sink = begun(&disk, roll, Existing::Refuse, &state.start(1)).expect("free");
            (1..=2).for_each(|ms| deliver(&sink, &state.plan("words", ms)).expect("written"));
            disk.lose_directory();
            let call = disk.calls() + step;
            disk.fail(call, fault);
            let mut next = 3;
            while next <= 5 && deliver(&sink, &state.plan("words", next)).is_ok() {
                Output::merge(&mut state.outputs, sink.output().as_slice());
                next += 1;
            }
            let clean = disk.calls() < call;
            let disk = if step % 2 == 0 { disk.after_kill() } else { disk.after_power_cut(seed) };
            // The first batch that is not done, and the one before it: the record of its commit may be lost.
            let sink = begun(&disk, roll, Existing::Refuse, &state.start(2)).expect("its own");
            let again = (next - 1).max(3);
            (again..=5).for_each(|ms| deliver(&sink, &state.plan("words", ms)).expect("written"));
            let found: Vec<String> = files(&disk)
                .into_iter()
                .map(|(_, text)| String::from_utf8(text).expect("text"))
                .collect();
            let wanted = [3, 4, 5].map(|ms| format!("row of {ms}\n"));
            assert_eq!(found, wanted, "seed {seed}, {roll:?}, {fault:?} at step {step}");
            if clean {
                break;
            }
        }
    }
}
