//! Whose output a directory has: what a start says to each, and what it leaves alone.

use super::*;
use crate::owner::Adoption;

const ROLL: Option<Roll> = Some(Roll { bytes: Some(1 << 20), age: None });
fn meta() -> BatchMeta {
    BatchMeta::default()
}

fn row(text: &str) -> Rows {
    rows(&[text.to_owned()])
}

/// A run of a state that writes the batches of these times, and remembers what it committed.
fn run(disk: &MemoryStorage, roll: Option<Roll>, state: &mut State, times: &[u64]) -> Result<()> {
    run_with(disk, Way(roll, Existing::Refuse), state, times)
}

/// A roll, and the meaning of output of others.
#[derive(Clone, Copy)]
struct Way(Option<Roll>, Existing);

fn run_with(disk: &MemoryStorage, way: Way, state: &mut State, times: &[u64]) -> Result<()> {
    let Way(roll, existing) = way;
    let mark = 100 * u64::from(state.identity.0[0]) + state.starts.len() as u64;
    let sink = begun(disk, roll, existing, &state.start(mark))?;
    for time in times {
        sink.deliver(&state.plan("words", *time), &meta(), &row(&format!("row of {time}")))?;
        Output::merge(&mut state.outputs, sink.output().as_slice());
    }
    sink.close()
}

/// The same, but the process is killed: what it had open stays open. Returns the disk as the next one finds it.
fn killed(
    disk: &MemoryStorage,
    roll: Option<Roll>,
    state: &mut State,
    times: &[u64],
) -> MemoryStorage {
    let mark = 100 * u64::from(state.identity.0[0]) + state.starts.len() as u64;
    let sink = begun(disk, roll, Existing::Refuse, &state.start(mark)).expect("free");
    for time in times {
        let rows = row(&format!("row of {time}"));
        sink.deliver(&state.plan("words", *time), &meta(), &rows).expect("written");
        Output::merge(&mut state.outputs, sink.output().as_slice());
    }
    disk.after_kill()
}

fn text_of(outcome: Result<()>) -> String {
    outcome.map_or_else(|err| err.to_string(), |()| "accepted".to_owned())
}

fn names(disk: &MemoryStorage) -> Vec<String> {
    files(disk).into_iter().map(|(name, _)| name).collect()
}

fn hidden(disk: &MemoryStorage, end: &str) -> String {
    let all = disk.list().expect("listed");
    all.into_iter().find(|name| name.starts_with('.') && name.ends_with(end)).expect("there")
}

/// The answer to a start of `state` about a disk; it must leave the disk as it was if it is refused.
fn check(disk: &MemoryStorage, state: &State, words: &str) {
    let before = |disk: &MemoryStorage| {
        let names = disk.list().expect("listed");
        names.into_iter().map(|name| (name.clone(), disk.bytes(&name))).collect::<Vec<_>>()
    };
    for roll in [None, ROLL] {
        let disk = disk.after_kill();
        let found = before(&disk);
        let said = text_of(run(&disk, roll, &mut state.clone(), &[]));
        assert!(said.contains(words), "`{words}` is not in `{said}`");
        if said != "accepted" {
            assert_eq!(before(&disk), found, "{said}");
        }
    }
}

#[test]
fn output_of_another_state_is_refused_and_of_this_one_gone_on_with() {
    for roll in [None, ROLL] {
        let disk = MemoryStorage::new(0);
        let (mut one, two) = (State::new(1), State::new(2));
        run(&disk, roll, &mut one, &[10, 20]).expect("new");
        check(&disk, &one, "accepted");
        check(
            &disk,
            &two,
            "holds output of the pipeline `p` with the state directory state (identity 01010101)",
        );
        // Also while its rows are in a file that is open.
        let disk = killed(&disk, roll, &mut one, &[30]);
        check(&disk, &two, "(identity 01010101)");
        check(&disk, &one, "accepted");
        // A ledger in which nothing is committed is nobody's output.
        let disk = MemoryStorage::new(0);
        run(&disk, roll, &mut one.clone(), &[]).expect("new");
        check(&disk, &two, "accepted");
    }
}

#[test]
fn a_state_that_is_older_than_its_output_is_refused() {
    for roll in [None, ROLL] {
        let disk = MemoryStorage::new(0);
        let mut state = State::new(1);
        run(&disk, roll, &mut state, &[10]).expect("new");
        let mut copy = state.clone();
        let live = killed(&disk, roll, &mut state, &[20]);
        check(&live, &copy, "knows nothing of, such as batch 20 of job `words`, which start 2");
        run(&disk.after_kill(), roll, &mut state.clone(), &[]).expect("its own");
        // The copy counts on, with a start of the same number.
        copy.start(999);
        copy.plan("words", 40);
        check(&live, &copy, "knows nothing of");
        check(&live, &state, "accepted");
    }
}

#[test]
fn output_that_lacks_commits_is_refused() {
    for roll in [None, ROLL] {
        let disk = MemoryStorage::new(0);
        let mut state = State::new(1);
        run(&disk, roll, &mut state, &[10]).expect("new");
        let copy = disk.after_kill();
        run(&disk, roll, &mut state, &[20, 30]).expect("its own");
        check(
            &copy,
            &state,
            "holds 1 commit of the state directory state (identity 01010101), which made 3 there",
        );
        // Data that was taken away is not missed.
        names(&disk).iter().for_each(|name| disk.lose(name));
        check(&disk, &state, "accepted");
        // A directory without anything is a new one.
        check(&MemoryStorage::new(1), &state, "accepted");
    }
}

#[test]
fn files_that_nobody_has_written_down_are_refused() {
    let disk = MemoryStorage::new(0);
    disk.set_bytes("words-10-0.txt", b"x\n");
    check(&disk, &State::new(1), "did not write, such as words-10-0.txt");
    let disk = MemoryStorage::new(0);
    let mut state = State::new(1);
    run(&disk, None, &mut state, &[10]).expect("new");
    disk.lose(&hidden(&disk, ".ledger"));
    check(&disk, &state, "or its ledger (a file that begins with .tidemill-) was removed");
    // What no sink writes is in nobody's way.
    let disk = MemoryStorage::new(0);
    for name in ["notes.txt", "report-2026-01.txt", "words-10-0.log", ".hidden"] {
        disk.set_bytes(name, b"x\n");
    }
    check(&disk, &State::new(1), "accepted");
}

/// Files of version 1, and labels up to 300 that a state of then knows: up to 100 they are covered.
#[test]
fn what_is_from_before_identities_is_taken_over_once() {
    let planned = [200, 300].into();
    let adoption = Some(Adoption { first: 50, covered: Some(100), planned });
    let owner = |state: &mut State| Owner { adoption: adoption.clone(), ..state.start(1) };
    let state = || {
        let mut state = State::new(1);
        // Planned before starts were counted.
        state.planned.extend([60, 100, 200, 300].map(|time| (time, 0)));
        state
    };
    let disk = |files: &[&str]| {
        let disk = MemoryStorage::new(0);
        files.iter().for_each(|name| disk.set_bytes(name, b"old\n"));
        disk
    };
    let said = |files: &[&str]| {
        let outcome = begun(&disk(files), None, Existing::Refuse, &owner(&mut state()));
        text_of(outcome.map(drop))
    };
    assert_eq!(said(&["words-60-0.txt", "words-100-200-0.json", "more-300-0.csv"]), "accepted");
    let strange = "no batch of it has this time, so it was not taken over";
    for name in ["words-49-0.txt", "words-150-0.txt", "words-301-0.txt", "words-60-250-0.txt"] {
        assert!(said(&["words-60-0.txt", name]).contains(strange), "{name}");
    }
    // Batches up to the newest label are committed, those that no start had counted; all others are not.
    let (disk, mut state) = (disk(&["words-60-0.txt", "words-200-0.txt"]), state());
    let deliver = |sink: &SharedSink, state: &mut State, time: u64| {
        sink.deliver(&state.plan("words", time), &meta(), &row("new")).expect("written");
    };
    let sink = begun(&disk, None, Existing::Refuse, &owner(&mut state)).expect("taken over");
    [200, 300, 400].iter().for_each(|time| deliver(&sink, &mut state, *time));
    drop(sink);
    let expected = ["words-200-0.txt", "words-300-0.txt", "words-400-0.txt", "words-60-0.txt"];
    assert_eq!(names(&disk), expected);
    assert_eq!(disk.bytes("words-200-0.txt").expect("there"), b"old\n");
    // From now on it is this state's.
    check(&disk, &state, "accepted");
    check(&disk, &State::new(2), "(identity 01010101)");
}

#[test]
fn a_label_with_another_batch_is_neither_committed_nor_written_over() {
    for roll in [None, ROLL] {
        let disk = MemoryStorage::new(0);
        let mut state = State::new(1);
        run(&disk, roll, &mut state, &[10]).expect("new");
        let sink = begun(&disk, roll, Existing::Refuse, &state.start(7)).expect("its own");
        let key = state.plan("words", 10);
        let digest = crate::owner::PlanDigest([9; 16]);
        let other = key.clone().with_id(crate::owner::BatchId { digest, ..key.id });
        let said = text_of(sink.deliver(&other, &meta(), &row("other")));
        assert!(said.contains("0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a of start 1 is there"), "{said}");
        assert!(said.contains("09090909090909090909090909090909 of start 1 was to be written"));
        sink.deliver(&key, &meta(), &row("row of 10")).expect("it is committed");
    }
    // A file with the name of a batch, which somebody put there.
    let disk = MemoryStorage::new(0);
    let mut state = State::new(1);
    run(&disk, None, &mut state, &[10]).expect("new");
    disk.set_bytes("words-20-0.txt", b"mine\n");
    let said = text_of(run(&disk, None, &mut state, &[20]));
    assert!(said.contains("memory/words-20-0.txt exists already, and nothing says"), "{said}");
    assert_eq!(disk.bytes("words-20-0.txt").expect("there"), b"mine\n");
    disk.lose("words-20-0.txt");
    run(&disk, None, &mut state, &[20]).expect("its name is free");
    assert_eq!(names(&disk), ["words-10-0.txt", "words-20-0.txt"]);
}

#[test]
fn what_is_appended_lies_beside() {
    for roll in [None, ROLL] {
        let disk = MemoryStorage::new(0);
        let (mut one, mut two) = (State::new(1), State::new(2));
        run(&disk, roll, &mut one, &[10, 20]).expect("new");
        let beside = Way(roll, Existing::Append);
        run_with(&disk, beside, &mut two, &[10, 20]).expect("beside");
        // What it has is known, also after a crash.
        run_with(&disk, beside, &mut two, &[20, 30]).expect("beside");
        let tagged = names(&disk).into_iter().filter(|name| name.contains(".02020202.txt")).count();
        let text: Vec<u8> = files(&disk).into_iter().flat_map(|(_, bytes)| bytes).collect();
        let lines = String::from_utf8(text).expect("text").lines().count();
        assert_eq!((tagged, lines), (if roll.is_some() { 2 } else { 3 }, 5), "{:?}", names(&disk));
        check(&disk, &one, "(identity 02020202)");
        check(&disk, &two, "(identity 01010101)");
        // The copy of a state goes on beside what the original wrote after it.
        let mut copy = one.clone();
        copy.start(999);
        run_with(&disk, beside, &mut one, &[40]).expect("beside");
        run_with(&disk, beside, &mut copy, &[50]).expect("beside");
    }
}

#[test]
fn an_open_file_that_is_gone_is_missed() {
    let disk = MemoryStorage::new(0);
    let mut state = State::new(1);
    run(&disk, ROLL, &mut state, &[10]).expect("new");
    let disk = killed(&disk, ROLL, &mut state, &[20, 30]);
    let said = "memory/.words-20-0.open is gone: 20 bytes are missing of the rows of 2 batches (20 to 30 ms)";
    let with = |change: &dyn Fn(&MemoryStorage)| {
        let disk = disk.after_kill();
        change(&disk);
        disk
    };
    check(&with(&|disk| disk.lose(".words-20-0.open")), &state, said);
    let short = with(&|disk| disk.set_bytes(".words-20-0.open", b"row of 20\n"));
    check(&short, &state, ".open is too short: 10 bytes are missing");
    // Of the file and of what tells of it nothing is left but the number of commits.
    let both = with(&|disk| {
        disk.lose(".words-20-0.open");
        disk.lose(".words-20-0.manifest");
    });
    check(&both, &state, "holds 1 commit of the state directory state");
    let manifest = with(&|disk| disk.lose(".words-20-0.manifest"));
    check(&manifest, &state, "holds 1 commit of the state directory state");
    // A person gives the rows up, as the message says.
    let given_up = with(&|disk| {
        let bytes = disk.bytes(".words-20-0.manifest").expect("there");
        disk.lose(".words-20-0.open");
        disk.lose(".words-20-0.manifest");
        disk.set_bytes(".words-20-0.manifest.lost", &bytes);
    });
    run(&given_up, ROLL, &mut state, &[30, 40]).expect("given up");
    assert_eq!(names(&given_up), ["words-10-10-0.txt", "words-40-40-0.txt"]);
    check(&given_up, &state, "accepted");
}

/// The notes of a start on what it finds, and the names that are there after it.
fn notes(disk: &MemoryStorage, state: &State) -> (Vec<String>, Vec<String>) {
    let mut notes = Vec::new();
    let mut state = state.clone();
    let file = File::open(Arc::new(disk.clone()), FileOptions::default());
    let sink = SharedSink::new(file.expect("free"));
    let owner = state.start(999);
    sink.check(&owner).expect("accepted");
    sink.begin(&owner, &mut |text| notes.push(text)).expect("accepted");
    (
        notes,
        disk.list().expect("listed").into_iter().filter(|name| !name.contains(".ledger")).collect(),
    )
}

#[test]
fn an_open_file_without_its_manifest_is_kept_while_commits_are_missing() {
    let mut state = State::new(1);
    let disk = killed(&MemoryStorage::new(0), ROLL, &mut state, &[20, 30]);
    let changes: [fn(&MemoryStorage); 2] = [
        |disk| disk.lose(".words-20-0.manifest"),
        |disk| disk.set_bytes(".words-20-0.manifest", b""),
    ];
    for change in changes {
        let disk = disk.after_kill();
        change(&disk);
        check(&disk, &state, "were removed from it or are damaged");
        // The ways out that the refusal names, and a sink that is retired.
        let appended = disk.after_kill();
        run_with(&appended, Way(ROLL, Existing::Append), &mut state.clone(), &[40])
            .expect("beside");
        let retired = disk.after_kill();
        let sink = File::left(Arc::new(retired.clone())).expect("free");
        let (owner, mut notes) = (state.clone().start(999), Vec::new());
        let sink = SharedSink::new(sink);
        sink.check(&owner).expect("not asked whether it is whole");
        sink.begin(&owner, &mut |text| notes.push(text)).expect("finished");
        assert!(
            notes[0].starts_with(
                "memory/.words-20-0.open is kept as .words-20-0.open.kept, with 20 bytes"
            ),
            "{notes:?}"
        );
        for disk in [appended, retired] {
            assert_eq!(
                disk.bytes(".words-20-0.open.kept").as_deref(),
                Some(&b"row of 20\nrow of 30\n"[..])
            );
        }
    }
}

#[test]
fn open_files_of_others_are_named_where_files_are_written_beside_them() {
    let disk = killed(&MemoryStorage::new(0), ROLL, &mut State::new(1), &[20, 30]);
    let sink = File::open(
        Arc::new(disk),
        FileOptions { existing: Existing::Append, roll: ROLL, ..FileOptions::default() },
    )
    .expect("free");
    let (owner, mut notes) = (State::new(2).start(1), Vec::new());
    let sink = SharedSink::new(sink);
    sink.check(&owner).expect("beside");
    sink.begin(&owner, &mut |text| notes.push(text)).expect("beside");
    let expected = "memory/.words-20-0.open stays hidden, with 20 bytes of 2 batches: only a run of a state directory with the \
                    identity 01010101 gives it a name";
    assert_eq!(notes.get(1).map(String::as_str), Some(expected), "{notes:?}");
}

#[test]
fn what_a_crash_left_open_is_finished_and_said_also_where_roll_was_taken_out() {
    let disk = MemoryStorage::new(0);
    let mut state = State::new(1);
    let disk = killed(&disk, ROLL, &mut state, &[20, 30]);
    let (said, left) = notes(&disk.after_kill(), &state);
    assert_eq!(said, ["memory/.words-20-0.open: now words-20-30-0.txt, with 2 batches"]);
    assert_eq!(left, ["words-20-30-0.txt"]);
    // A crash between the name and the ledger, and one between the ledger and the removal of the manifest.
    let manifest = disk.bytes(".words-20-0.manifest").expect("there");
    let named = disk.after_kill();
    named.set_bytes("words-20-30-0.txt", &disk.bytes(".words-20-0.open").expect("there"));
    named.lose(".words-20-0.open");
    let orphan = "memory/.words-20-0.manifest: removed; its 2 batches are in words-20-30-0.txt, or were when it was moved away";
    assert_eq!(
        notes(&named, &state),
        (vec![orphan.to_owned()], vec!["words-20-30-0.txt".to_owned()])
    );
    named.set_bytes(".words-20-0.manifest", &manifest);
    named.lose("words-20-30-0.txt");
    assert_eq!(notes(&named, &state), (vec![orphan.to_owned()], vec![]));
    // A file whose first batch was not committed, and one that may be somebody's.
    let (disk, mut state) = (MemoryStorage::new(0), State::new(1));
    disk.set_bytes(".words-5-0.open", b"row");
    assert_eq!(notes(&disk, &state), (vec![], vec![".words-5-0.open".to_owned()]));
    disk.lose(".words-5-0.open");
    run(&disk, ROLL, &mut state, &[10]).expect("new");
    disk.set_bytes(".words-20-0.open", b"row");
    let (said, left) = notes(&disk, &state);
    assert_eq!(
        said,
        ["memory/.words-20-0.open: removed with 3 bytes, no batch in it is committed"]
    );
    assert_eq!(left, ["words-10-10-0.txt"]);
}

#[test]
fn an_open_file_that_is_removed_while_it_is_written_to_is_missed_at_the_stop() {
    let disk = MemoryStorage::new(0);
    let mut state = State::new(1);
    let sink = begun(&disk, ROLL, Existing::Refuse, &state.start(1)).expect("new");
    sink.deliver(&state.plan("words", 10), &meta(), &row("row of 10")).expect("written");
    disk.lose(".words-10-0.open");
    let said = text_of(sink.close());
    assert!(said.contains(".words-10-0.open was removed while it was written to"), "{said}");
    drop(sink);
    check(&disk.after_kill(), &state, ".words-10-0.open is gone: 10 bytes are missing");
}
