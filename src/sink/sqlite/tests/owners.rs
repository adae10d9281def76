//! Whose rows they are: other identities, other moments of the same one, and sinks that have moved, were retired or have
//! changed places.

use super::*;
use crate::sink::Left;

/// A sink of a start, on this table of `a.db`.
fn open(path: &Path, table: &str, owner: &Owner) -> Result<SharedSink> {
    let sink = SharedSink::new(Sqlite::open(path, table, Existing::Refuse)?);
    sink.check(owner)?;
    sink.begin(owner, &mut |_| ())?;
    Ok(sink)
}

/// Commits the batches of these times, which are planned if they are not yet; the state knows how far the table has come.
fn write(sink: &SharedSink, state: &mut State, times: &[u64]) {
    write_of("j", sink, state, times);
}

/// The same, of this job.
fn write_of(job: &str, sink: &SharedSink, state: &mut State, times: &[u64]) {
    for time in times {
        deliver(sink, &state.plan(job, *time), &[*time]).expect("written");
    }
    let newest: Vec<Output> = sink.output().into_iter().collect();
    Output::merge(&mut state.outputs, &newest);
}

/// The times of the batches in a table.
fn times(path: &Path, table: &str) -> Vec<u64> {
    let number = |row: &String| row.split(' ').next_back()?.parse().ok();
    shown(path, table).iter().map(|row| number(row).expect("a time")).collect()
}

/// A start of `state` is refused with all of this, or is not where there is nothing.
fn check(path: &Path, state: &State, words: &[&str]) {
    let refusal = open(path, "t", &state.clone().start(7)).err().map(|err| err.to_string());
    let said = refusal.clone().unwrap_or_default();
    assert_eq!(refusal.is_some(), !words.is_empty(), "{said}");
    words.iter().for_each(|words| assert!(said.contains(words), "no `{words}` in {said}"));
}

#[test]
fn another_identity_and_another_moment_are_refused() {
    let dir = dir();
    let (path, copy) = (dir.path().join("a.db"), dir.path().join("copy.db"));
    let mut state = State::new(1);
    let sink = open(&path, "t", &state.start(1)).expect("free");
    write(&sink, &mut state, &[1_000]);
    drop(sink);
    std::fs::copy(&path, &copy).expect("copied");
    let older = state.clone();
    let sink = open(&path, "t", &state.start(2)).expect("its own");
    write(&sink, &mut state, &[2_000, 3_000]);
    drop(sink);
    let remedies = ["Give the sink another table or database", "existing = \"append\""];
    let refused = |words: &[&'static str]| [words, &remedies].concat();
    check(&path, &state, &[]);
    check(&path, &State::new(2), &refused(&["holds output of the pipeline `p`", "another one"]));
    // The state of before, and of a run that went on from it elsewhere; the table of before.
    check(&path, &older, &refused(&["knows nothing of, such as batch 2000", "start 2 of it"]));
    let mut other = older.clone();
    drop(other.start(3));
    drop(other.plan("j", 2_000));
    check(&path, &other, &refused(&["knows nothing of", "the state directory was restored"]));
    check(&copy, &state, &refused(&["holds 1 commit of", "which made 3 there"]));
    check(&copy, &older, &[]);
}

#[test]
fn a_sink_that_moved_repeats_nothing_of_its_old_table() {
    let dir = dir();
    let path = dir.path().join("a.db");
    let place = format!("sqlite:{}:old", path.display());
    let mut state = State::new(1);
    let sink = open(&path, "old", &state.start(1)).expect("free");
    write(&sink, &mut state, &[1_000, 2_000]);
    assert!(sink.place().is_some_and(|of_sink| crate::sink::is_same_place(&of_sink, &place)));
    drop(sink);
    let planned = state.plan("j", 3_000);
    let owner = state.start(2);
    let sink = open(&path, "new", &owner).expect("free");
    let mut left = Left::open(&place, &owner, Access::Write).expect("its own");
    left.finish(&owner, &mut |note| panic!("nothing is open in a table: {note}")).expect("done");
    sink.remember_left(left);
    write(&sink, &mut state, &[1_000, 2_000]);
    deliver(&sink, &planned, &[3_000_u64]).expect("it was not committed anywhere");
    write(&sink, &mut state, &[4_000]);
    assert_eq!(
        (times(&path, "old"), times(&path, "new")),
        (vec![1_000, 2_000], vec![3_000, 4_000])
    );
    // It is left alone although somebody else has begun to write there, or it is gone.
    let owner = state.start(3);
    drop(open(&path, "old", &State::new(2).start(1)).expect_err("the rows are another's"));
    assert!(Left::open(&place, &owner, Access::Write).is_ok());
    let gone = format!("sqlite:{}:old", dir.path().join("gone.db").display());
    for access in [Access::Write, Access::Look] {
        let mut left = Left::open(&gone, &owner, access).expect("nothing is there");
        assert!(!left.committed(&planned).expect("told"));
    }
    assert!(!dir.path().join("gone.db").exists());
}

#[test]
fn sinks_that_change_places_repeat_nothing() {
    let dir = dir();
    let path = dir.path().join("a.db");
    let mut state = State::new(1);
    let owner = state.start(1);
    let [one, two] = ["a", "b"].map(|table| open(&path, table, &owner).expect("free"));
    // The second did not get to the last batch.
    write_of("j", &one, &mut state, &[1_000, 2_000]);
    write_of("k", &two, &mut state, &[1_000]);
    drop((one, two));
    let owner = state.start(2);
    let [two, one] = ["a", "b"].map(|table| open(&path, table, &owner).expect("their own"));
    one.remember_other(two.clone());
    two.remember_other(one.clone());
    for time in [1_000, 2_000, 3_000] {
        write_of("j", &one, &mut state, &[time]);
        write_of("k", &two, &mut state, &[time]);
    }
    let of_first = ["'j' 1000 1000", "'j' 2000 2000"];
    assert_eq!(shown(&path, "a"), [&of_first[..], &["'k' 2000 2000", "'k' 3000 3000"]].concat());
    assert_eq!(shown(&path, "b"), ["'k' 1000 1000", "'j' 3000 3000"]);
}
