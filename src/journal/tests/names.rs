//! Names over many starts: refusals and their texts, names that are carried over, and names that are given up for good.

use super::*;

/// The program of a start, in words: `KIND:NAME` for each thing.
fn program(words: &str, said: &str) -> JournalOptions {
    let mut options = options(&[]);
    options.reach = Reach::default();
    options.program.names = Inventory::default();
    for word in words.split_whitespace() {
        let StateName { kind, name } = StateName::parse(word).expect("a name");
        let what = if kind == NameKind::Sink { "file:there" } else { "" };
        options.program.names.of_mut(kind).push(wanted(&name, what));
    }
    for word in said.split_whitespace() {
        let name = |text| StateName::parse(text).expect("a name");
        match word.split_once('=') {
            None => options.program.changes.retired.push(name(word)),
            Some((new, old)) => {
                let renamed = Renamed { new: name(new), old: name(old) };
                options.program.changes.renamed.push(renamed);
            }
        }
    }
    options
}

fn start(disk: &MemoryStorage, words: &str, said: &str) -> Result<(Journal, Found)> {
    let disk = Arc::new(disk.clone());
    let opened = Journal::open(disk, program(words, said), &Poison::new(), &mut |_| ())?;
    opened.0.begin()?;
    Ok(opened)
}

fn commit(journal: &Journal, index: u64, parts: &[u32]) {
    let commit = Committed { index, time: ANCHOR + index * 100, ..Committed::default() };
    let parts = parts.iter().map(|state| (*state, Bytes::from_static(b"part"))).collect();
    let records = journal.commit(commit, &parts).expect("small");
    append_commit(journal, records).expect("durable");
}

/// A log with two received sources, a state, a direct source with a position, and one batch that is not committed.
fn lived() -> MemoryStorage {
    let disk = MemoryStorage::new(1);
    let all = "source:a source:b source:f state:s sink:o job:j";
    let (journal, _) = start(&disk, all, "").expect("empty");
    (0..3).for_each(|number| chunk(&journal, 0, number));
    (0..2).for_each(|number| chunk(&journal, 1, number));
    let mut plans = [plan(0, &[(0, 0..1), (1, 0..1)]), plan(1, &[(0, 1..2)])];
    plans[0].ranges = vec![(2, b"here".to_vec())];
    wait(|receipt| journal.plan(&plans, receipt)).expect("durable");
    commit(&journal, 0, &[0, 0]);
    disk.after_power_cut(7)
}

/// The lines of a refused start that name the content of things, or `opened`.
fn check(words: &str, said: &str, expected: &[&str]) {
    let text = match start(&lived(), words, said) {
        Ok(_) => "  opened".to_owned(),
        Err(err) => err.to_string(),
    };
    let held = text.lines().filter(|line| line.starts_with("  "));
    let held: Vec<&str> = held.map(str::trim).filter(|line| !line.contains(" = ")).collect();
    assert_eq!(held, expected, "{words} | {said}:\n{text}");
}

#[test]
fn what_is_held_is_said() {
    check("source:a source:b source:f state:s sink:o job:j", "", &["opened"]);
    check(
        "source:b source:f state:s sink:o job:j",
        "",
        &[
            "source `a`: 1 record that no batch was given, 1 record of 1 batch planned and not committed",
        ],
    );
    check(
        "source:a source:f state:s sink:o job:j",
        "",
        &["source `b`: 1 record that no batch was given"],
    );
    check("source:a source:b state:s sink:o job:j", "", &["source `f`: a position here"]);
    check("source:a source:b source:f sink:o job:j", "", &["state `s`: 2 parts"]);
    check(
        "source:a source:b source:f state:s job:j",
        "",
        &["sink `o`: 1 batch planned and not committed, with 1 record"],
    );
    check(
        "source:a source:b source:f state:s sink:o",
        "",
        &["job `j`: 1 batch planned and not committed, with 1 record"],
    );
    check(
        "",
        "source:a source:f job:j sink:o",
        &["source `b`: 1 record that no batch was given", "state `s`: 2 parts"],
    );
    check("", "source:a source:b source:f job:j sink:o state:s", &["opened"]);
}

#[test]
fn a_refused_start_leaves_no_trace() {
    let disk = lived();
    assert!(start(&disk, "source:new", "source:a").is_err());
    let all = "source:a source:b source:f state:s sink:o job:j";
    let (_journal, found) = start(&disk, all, "").expect("good");
    assert_eq!((found.starts.len(), found.continued.names.new.len()), (2, 0));
    assert_eq!(summary(&found), (vec!["0+".into(), "1".into()], vec![vec![2], vec![1], vec![]]));
}

#[test]
fn records_under_a_new_name_are_the_same_records() {
    let disk = lived();
    let words = "source:b source:new source:f state:s sink:o job:j";
    let (journal, found) = start(&disk, words, "source:new=source:a").expect("good");
    assert_eq!(summary(&found), (vec!["0+".into(), "1".into()], vec![vec![1], vec![2], vec![]]));
    assert_eq!(found.next_chunks, [2, 3, 0]);
    chunk(&journal, 1, 3);
    // The power goes: the name stays, and the entry may stay too.
    let disk = disk.after_power_cut(1);
    let (_journal, found) = start(&disk, words, "source:new=source:a").expect("good");
    assert_eq!(found.continued.names.renamed, []);
    assert_eq!(summary(&found).1, [vec![1], vec![2, 3], vec![]]);
}

#[test]
fn records_that_were_given_up_stay_away_and_need_no_room() {
    let disk = lived();
    let words = "source:b source:f state:s sink:o job:j";
    let (journal, found) = start(&disk, words, "source:a").expect("good");
    let held = "1 record that no batch was given, 1 record of 1 batch planned and not committed";
    // The state that goes with the source never was.
    assert_eq!(found.continued.given_up, [Some(held.to_owned())]);
    assert_eq!(summary(&found), (vec!["0+".into(), "1".into()], vec![vec![1], vec![]]));
    assert_eq!(found.covered.chunks, [(0, 3)]);
    assert_eq!(found.resume.replays.len(), 1, "its batch runs all the same");
    commit(&journal, 1, &[]);
    drop(journal);
    // The name comes back: it is another source.
    let words = "source:a source:b source:f state:s sink:o job:j";
    let (journal, found) = start(&disk, words, "").expect("good");
    assert_eq!(found.continued.names.numbers.sources, [3, 1, 2]);
    assert_eq!(summary(&found).1, [vec![], vec![1], vec![]]);
    assert_eq!((journal.begins(0), journal.begins(1)), (2, 0));
    assert!(journal.knows_source(0) && journal.source_of(0).is_none() && !journal.knows_source(4));
}

#[test]
fn the_state_that_a_source_has_for_itself_goes_with_it() {
    let names = |source: &str| {
        let mut options = program(&format!("source:{source}"), "");
        let state = PartCount(0).state_of(source);
        options.program.names.states = vec![wanted(&state, "")];
        options
    };
    let disk = MemoryStorage::new(1);
    let open = |options| {
        let opened = Journal::open(Arc::new(disk.clone()), options, &Poison::new(), &mut |_| ());
        let (journal, found) = opened.expect("good");
        journal.begin().expect("durable");
        (journal, found)
    };
    let (journal, _) = open(names("a"));
    wait(|receipt| journal.plan(&[plan(0, &[])], receipt)).expect("durable");
    commit(&journal, 0, &[0]);
    drop(journal);
    let mut options = names("b");
    options.program.changes = program("", "source:b=source:a").program.changes;
    let (journal, found) = open(options);
    assert_eq!(found.continued.names.numbers.states, [0], "carried over");
    drop(journal);
    let (_journal, found) = open(program("", "source:b"));
    let held = [None, Some("1 parts".to_owned())];
    assert_eq!(found.continued.given_up, held, "given up");
}

#[test]
fn a_checkpoint_knows_the_names() {
    let disk = lived();
    let words = "source:b source:new source:f state:s sink:p job:k";
    let said = "source:new=source:a sink:p=sink:o job:k=job:j";
    let (journal, _) = start(&disk, words, said).expect("good");
    commit(&journal, 1, &[]);
    journal.last_checkpoint(covered(2, &[(0, 2), (1, 1)]));
    close(&journal).expect("in order");
    drop(journal);
    let (_journal, found) = start(&disk, words, said).expect("good");
    assert_eq!(
        (found.continued.names.numbers.sources, found.covered.next_index),
        (vec![1, 0, 2], 2)
    );
    // Its earlier name is of no use once every batch of that time is done.
    assert_eq!(found.continued.names.known.jobs[0].earlier, []);
    let earlier = &found.names_before.jobs[0].earlier;
    assert_eq!((earlier[0].name.as_str(), earlier[0].below), ("j", 2));
}

/// Expects a new thing to be part of these batches, when `commits` of two batches are done.
fn check_new(commits: u64, state: u64) {
    let disk = MemoryStorage::new(1);
    let (journal, _) = start(&disk, "job:j", "").expect("empty");
    wait(|receipt| journal.plan(&[plan(0, &[]), plan(1, &[])], receipt)).expect("durable");
    (0..commits).for_each(|index| commit(&journal, index, &[]));
    drop(journal);
    let (_journal, found) = start(&disk, "source:a state:s sink:o job:j job:k", "").expect("good");
    let known = &found.continued.names.known;
    let from = |known: &[Known]| known.last().expect("there").from;
    let [source, sink] = [from(&known.sources), from(&known.sinks)];
    assert_eq!((source, from(&known.states), sink, from(&known.jobs)), (2, state, 2, 2));
    assert_eq!(known.jobs[0].from, 0);
}

#[test]
fn a_new_job_begins_with_the_first_new_batch_and_a_state_with_the_first_that_runs() {
    check_new(0, 0);
    check_new(1, 1);
    check_new(2, 2);
}

#[test]
fn sinks_and_jobs_of_version_1_are_those_of_the_program() {
    let (_journal, found) = open(&disk_of_version_1(), &["a"]).expect("good");
    let names = &found.continued.names;
    assert_eq!((names.new.len(), names.known.jobs[0].from, names.known.sinks[0].from), (0, 0, 0));
}
