//! The journal over many starts on a disk that loses unsynced bytes.

use bytes::Bytes;

mod names;

use super::*;
use crate::storage::{Fault, MemoryStorage};
use crate::time::{ManualClock, SystemClock};

const SEED: u64 = 99;
const ANCHOR: u64 = 1_000;

fn wanted(name: &str, what: &str) -> Wanted {
    Wanted { name: name.to_owned(), what: what.to_owned(), generated: false }
}

fn options(sources: &[&str]) -> JournalOptions {
    let log = LogOptions { segment_bytes: 1024, salt: 1, ..LogOptions::with_fresh_salt() };
    let names = Inventory {
        sources: sources.iter().map(|name| wanted(name, "")).collect(),
        states: Vec::new(),
        sinks: vec![wanted("out", "")],
        jobs: vec![wanted("lines", "")],
    };
    JournalOptions {
        pipeline: "p".to_owned(),
        program: Program { names, changes: NameChanges::default(), survey: Box::new(PartCount(0)) },
        reach: Reach { stateless: true, ..Reach::default() },
        log,
        conditions: None,
        seed: SEED,
        anchor: ANCHOR,
        identity: StateId([9; 16]),
        mark: 5,
        clock: Arc::new(ManualClock::new()),
    }
}

/// Counts the parts of a state.
#[derive(Clone, Copy)]
struct PartCount(u64);

impl Survey for PartCount {
    fn count(&self) -> Box<dyn StateCount> {
        Box::new(*self)
    }

    fn position(&self, _: &str, position: SourcePosition<'_>) -> Option<String> {
        let SourcePosition { snapshot, plans } = position;
        let words = snapshot.into_iter().chain(plans).map(String::from_utf8_lossy);
        Some(format!("a position {}", words.collect::<Vec<_>>().join(" ")))
    }

    fn open_in(&self, _: &str, _: StateId) -> Option<String> {
        None
    }

    fn state_of(&self, source: &str) -> String {
        format!("state of {source}")
    }
}

impl StateCount for PartCount {
    fn take(&mut self, _: &[u8]) -> std::result::Result<(), String> {
        self.0 += 1;
        Ok(())
    }

    fn held(&self) -> Option<String> {
        (self.0 > 0).then(|| format!("{} parts", self.0))
    }
}

fn open(disk: &MemoryStorage, sources: &[&str]) -> Result<(Journal, Found)> {
    let disk = Arc::new(disk.clone());
    let opened = Journal::open(disk, options(sources), &Poison::new(), &mut |_| ())?;
    opened.0.begin()?;
    Ok(opened)
}

fn close(journal: &Journal) -> Result<()> {
    let clock = SystemClock::new();
    let deadline = clock.now().plus(std::time::Duration::from_secs(60));
    journal.close(clock.as_ref(), deadline)
}

fn wait<T>(ask: impl FnOnce(Receipt) -> Result<T>) -> Result<(), NotLogged> {
    let told = Mailbox::new(1);
    let tell = told.clone();
    ask(Box::new(move |outcome| tell.send(outcome).expect("open"))).expect("taken");
    told.recv().expect("told")
}

fn chunk(journal: &Journal, source: u32, number: u64) {
    let text = Bytes::from(format!("{source} {number}\n"));
    let append = |receipt| {
        journal.append_chunk(source, number, Framing::Lines, &[Range::new(text, 1)], receipt)
    };
    wait(append).expect("durable");
}

fn plan(index: u64, blocks: &[(u32, std::ops::Range<u64>)]) -> Plan {
    let blocks = blocks.iter().map(|(source, chunks)| (*source, vec![chunks.clone()])).collect();
    Plan {
        index,
        time: ANCHOR + index * 100,
        partitions: 3,
        seed: SEED,
        blocks,
        ranges: vec![],
        run: 1,
    }
}

fn committed(journal: &Journal, index: u64) {
    let commit = Committed { index, time: ANCHOR + index * 100, ..Committed::default() };
    let records = journal.commit(commit, &Vec::new()).expect("small");
    journal.append_commit(records, Box::new(|_| ()));
}

/// Appends records of a commit. Returns those that were refused.
pub(super) fn append_commit(
    journal: &Journal,
    records: CommitRecords,
) -> Result<(), CommitRecords> {
    let told = Mailbox::new(1);
    let tell = told.clone();
    let receipt = move |outcome: Result<(), (CommitRecords, NotLogged)>| {
        tell.send(outcome.map_err(|(records, _)| records)).expect("open");
    };
    journal.append_commit(records, Box::new(receipt));
    told.recv().expect("told")
}

fn covered(next_index: u64, chunks: &[(u32, u64)]) -> Covered {
    let last_time = Some(ANCHOR + next_index * 100 - 100);
    Covered {
        state_from: next_index,
        next_index,
        last_time,
        chunks: chunks.to_vec(),
        ..Covered::default()
    }
}

/// The findings of a start in short: batches that are not covered (`+` if they were committed), and waiting chunks.
fn summary(found: &Found) -> (Vec<String>, Vec<Vec<u64>>) {
    let again = found.plans.keys().map(|index| {
        format!("{index}{}", if found.commits.contains_key(index) { "+" } else { "" })
    });
    let waiting = found.unplanned.iter();
    let waiting = waiting.map(|chunks| chunks.iter().map(|(number, _)| *number).collect());
    (again.collect(), waiting.collect())
}

/// Leaves the files of a pipeline with a state, stopped in order or not: chunks in two segments, and a checkpoint.
pub(crate) fn leave_sample(storage: Arc<dyn Storage>, in_order: bool) {
    let mut options = options(&["in"]);
    options.program.names.states = vec![wanted("counts", "u64")];
    let opened = Journal::open(storage, options, &Poison::new(), &mut |_| ());
    let (journal, _) = opened.expect("a new directory");
    journal.begin().expect("durable");
    for number in 0..4 {
        let range = Range::new(Bytes::from(vec![b'x'; 300]), 1);
        wait(|receipt| journal.append_chunk(0, number, Framing::Lines, &[range], receipt))
            .expect("durable");
    }
    journal.last_checkpoint(Covered::default());
    if in_order {
        close(&journal).expect("in order");
    }
}

#[test]
fn a_start_finds_what_was_planned_and_what_waits() {
    let disk = MemoryStorage::new(1);
    let (journal, found) = open(&disk, &["a", "b"]).expect("empty");
    assert_eq!((found.started_before, found.seed, found.next_index), (false, SEED, 0));
    for number in 0..4 {
        chunk(&journal, 0, number);
        chunk(&journal, 1, number);
    }
    let plans = [plan(0, &[(0, 0..1)]), plan(1, &[(0, 1..3), (1, 0..2)])];
    wait(|receipt| journal.plan(&plans, receipt)).expect("durable");
    committed(&journal, 0);
    chunk(&journal, 0, 4);
    // The power goes: everything above was synced, the commit with the chunk behind it.
    let disk = disk.after_power_cut(7);
    let (again, found) = open(&disk, &["b", "c", "a"]).expect("good");
    assert_eq!(
        summary(&found),
        (vec!["0+".into(), "1".into()], vec![vec![2, 3], vec![], vec![3, 4]])
    );
    assert_eq!((found.next_index, found.last_time), (2, Some(1_100)));
    assert_eq!(found.next_chunks, [4, 0, 5]);
    assert_eq!(found.resume.replays[0].plan, plans[1], "with its partitions, seed and blocks");
    let block = again.block(0, 2..4).expect("there");
    let info = &block.info;
    assert_eq!((info.records, info.bytes, info.chunks.clone()), (2, 8, 2..4));
    let mut read = Vec::new();
    block.for_each_range(|range| read.extend_from_slice(range)).expect("good");
    assert_eq!(read, b"1 2\n1 3\n");
    close(&again).expect("in order");
}

#[test]
fn a_checkpoint_covers_and_lets_segments_go() {
    let disk = MemoryStorage::new(1);
    let (journal, _) = open(&disk, &["a"]).expect("empty");
    for index in 0..60 {
        chunk(&journal, 0, index);
        wait(|receipt| journal.plan(&[plan(index, &[(0, index..index + 1)])], receipt))
            .expect("durable");
        committed(&journal, index);
        if index % 20 == 19 {
            journal.last_checkpoint(covered(index, &[(0, index)]));
        }
    }
    close(&journal).expect("in order");
    drop(journal);
    let segments = |disk: &MemoryStorage| {
        let names = disk.list().expect("listed");
        names.into_iter().filter(|name| name.starts_with("wal-")).collect::<Vec<_>>()
    };
    let kept = segments(&disk);
    assert!(!kept.contains(&"wal-000000000001.seg".to_owned()), "{kept:?}");
    let (again, found) = open(&disk.after_power_cut(3), &["a"]).expect("good");
    assert_eq!(summary(&found), (vec!["59+".into()], vec![vec![]]));
    assert_eq!((found.covered.next_index, found.next_index, found.next_chunks[0]), (59, 60, 60));
    drop(again);
    // The newest checkpoint is damaged: the one before it finds everything that it needs.
    let newest = disk.list().expect("listed").into_iter().rfind(|name| name.ends_with(".ckpt"));
    disk.set_bytes(&newest.expect("three were written"), b"TIDECKPT");
    let (_journal, found) = open(&disk, &["a"]).expect("good");
    assert_eq!((found.damaged.len(), found.covered.next_index, found.next_index), (1, 39, 60));
    assert_eq!((found.plans.len(), found.resume.replays.len()), (21, 0));
}

#[test]
fn what_does_not_belong_here_is_refused() {
    let disk = MemoryStorage::new(1);
    let (journal, _) = open(&disk, &["a", "b"]).expect("empty");
    let text = |sources: &[&str], pipeline: &str| {
        let options = JournalOptions { pipeline: pipeline.to_owned(), ..options(sources) };
        let disk = Arc::new(disk.after_kill());
        let opened = Journal::open(disk, options, &Poison::new(), &mut |_| ());
        opened.map_or_else(|err| err.to_string(), |_| "opened".to_owned())
    };
    assert!(
        open(&disk, &["a"])
            .map_or_else(|err| err.to_string(), |_| String::new())
            .contains("in use")
    );
    chunk(&journal, 1, 0);
    assert!(text(&["a"], "p").contains("source `b`: 1 record"), "{}", text(&["a"], "p"));
    assert_eq!(text(&["b"], "p"), "opened");
    assert!(text(&["b"], "q").contains("belongs to the pipeline `p`, not to `q`"));
    wait(|receipt| journal.plan(&[plan(0, &[(1, 0..3)])], receipt)).expect("durable");
    assert!(text(&["b"], "p").contains("chunk 1 of source 1"));
}

#[test]
fn a_chunk_that_found_no_room_is_appended_again() {
    let disk = MemoryStorage::new(1);
    let (journal, _) = open(&disk, &["a"]).expect("empty");
    chunk(&journal, 0, 0);
    disk.set_full(true);
    let big = || Range::new(Bytes::from(vec![b'x'; 700]), 1);
    let append =
        |number| wait(|receipt| journal.append_chunk(0, number, Framing::Lines, &[big()], receipt));
    assert!((1..4).map(append).any(|outcome| matches!(outcome, Err(NotLogged::Retry(_)))));
    disk.set_full(false);
    (1..4).for_each(|number| append(number).expect("durable"));
    let (_journal, found) = open(&disk.after_power_cut(5), &["a"]).expect("good");
    assert_eq!(summary(&found), (vec![], vec![vec![0, 1, 2, 3]]));
}

#[test]
fn plans_are_as_many_as_a_record_takes() {
    let disk = MemoryStorage::new(1);
    let (journal, _) = open(&disk, &["a"]).expect("empty");
    let plans: Vec<Plan> = (0..300).map(|index| plan(index, &[])).collect();
    let mut done = 0;
    while done < plans.len() {
        let mut count = 0;
        let some = |receipt| {
            count = journal.plan(&plans[done..], receipt)?;
            Ok(())
        };
        wait(some).expect("durable");
        assert!((1..200).contains(&count), "{count} of 300 in a segment of 1 KiB");
        done += count;
    }
    let long = Plan { ranges: vec![(0, vec![1; 2_000])], ..plan(300, &[]) };
    let err = journal.plan(&[long], Box::new(|_| ())).expect_err("too long");
    assert!(
        err.to_string().starts_with("the plan of batch 300 is too large for the log in"),
        "{err}"
    );
    drop(journal);
    let (_journal, found) =
        open(&disk.after_power_cut(3), &["a"]).unwrap_or_else(|err| panic!("{err}"));
    assert_eq!((found.plans.len(), found.next_index), (300, 300));
}

/// The refused records of a commit are appended again, and no others.
#[test]
fn a_commit_that_found_no_room_is_finished_later() {
    let disk = MemoryStorage::new(1);
    disk.set_capacity(4 * 1024 + 3 * (64 << 10), 64);
    let (journal, _) = open(&disk, &["a"]).expect("room");
    let commit = Committed { index: 0, time: ANCHOR, ..Committed::default() };
    let parts = (0..20).map(|part| (0, Bytes::from(vec![part; 400]))).collect();
    let mut records = journal.commit(commit, &parts).expect("they fit");
    let mut left = Vec::new();
    while let Err(refused) = append_commit(&journal, records) {
        left.push(refused.len());
        // A segment, and the growth of the list of segments.
        disk.set_capacity(disk.used() + 1024 + 256, 64);
        records = refused;
    }
    assert!(left.len() > 2 && left.is_sorted_by(|before, next| before > next), "{left:?}");
    let big = vec![(0, Bytes::from(vec![1; 2_000]))];
    let err = journal.commit(commit, &big).expect_err("too long").to_string();
    assert!(err.starts_with("the state of a key is too large for the log in memory"), "{err}");
}

#[test]
fn a_failed_sync_poisons() {
    let disk = MemoryStorage::new(1);
    let poison = Poison::new();
    let opened = Journal::open(Arc::new(disk.clone()), options(&["a"]), &poison, &mut |_| ());
    let (journal, _) = opened.expect("empty");
    (1..6).for_each(|call| disk.fail(disk.calls() + call, Fault::Broken));
    let range = Range::new(Bytes::from("x\n"), 1);
    let append = |receipt| journal.append_chunk(0, 0, Framing::Lines, &[range], receipt);
    let outcome = wait(append);
    assert!(outcome.is_err(), "{outcome:?}");
    assert!(close(&journal).is_err() || poison.reason().is_none());
}

/// Expects a program with states and windows to restore this state and run these batches again after `commits` of 30 batches.
fn check_resume(commits: u64, reach: Reach, state: Option<u64>, runs: &str) {
    let disk = MemoryStorage::new(1);
    let options = || {
        let mut options = JournalOptions { reach, ..options(&["a"]) };
        options.program.names.states = vec![wanted("sums", "text to number")];
        options
    };
    let open = |disk: &MemoryStorage| {
        Journal::open(Arc::new(disk.clone()), options(), &Poison::new(), &mut |_| ())
    };
    let (journal, _) = open(&disk).expect("empty");
    journal.begin().expect("durable");
    for index in 0..30 {
        chunk(&journal, 0, index);
        wait(|receipt| journal.plan(&[plan(index, &[(0, index..index + 1)])], receipt))
            .expect("durable");
        if index < commits {
            let commit = Committed { index, time: ANCHOR + index * 100, ..Committed::default() };
            let parts = vec![(0, Bytes::from(format!("change {index}")))];
            let records = journal.commit(commit, &parts).expect("small");
            append_commit(&journal, records).expect("durable");
        }
    }
    let (journal, found) = open(&disk.after_power_cut(1)).expect("good");
    assert_eq!((found.resume.state, &found.continued.names.numbers.states), (state, &vec![0]));
    let run = |replay: &Replay| match replay.run {
        Run::ForWindows => 'w',
        Run::ForStates => 's',
        Run::Again => 'a',
    };
    assert_eq!(found.resume.replays.iter().map(run).collect::<String>(), runs);
    for (index, commit) in &found.commits {
        let mut read = Vec::new();
        let take = |state, part: &[u8]| {
            read.push((state, String::from_utf8_lossy(part).into_owned()));
            Ok(())
        };
        read_changes(&|at| journal.read(at), commit, take).expect("good");
        assert_eq!(read, [(0, format!("change {index}"))]);
    }
}

#[test]
fn states_are_made_of_their_changes_and_windows_of_their_batches() {
    let reach = |windows, below_states| Reach { stateless: false, windows, below_states };
    check_resume(30, reach(0, 0), Some(29), "");
    check_resume(28, reach(0, 0), Some(27), "aa");
    check_resume(28, reach(300, 0), Some(27), "wwwwaa");
    check_resume(28, reach(300, 200), Some(25), "wwwwssaa");
    check_resume(2, reach(300, 1_200), None, &format!("ss{}", "a".repeat(28)));
    check_resume(0, reach(300, 0), None, &"a".repeat(30));
}

#[test]
fn a_log_in_words() {
    let disk = MemoryStorage::new(1);
    let (journal, _) = open(&disk, &["a", "b"]).expect("empty");
    (0..3).for_each(|number| chunk(&journal, 1, number));
    let plans = [plan(0, &[(1, 0..2)]), plan(1, &[])];
    wait(|receipt| journal.plan(&plans, receipt)).expect("durable");
    committed(&journal, 0);
    close(&journal).expect("in order");
    let expected = "journal: pipeline `p`, 1 start in these segments\n  \
        source `b`: chunks 0 to 2, 3 records, 12 bytes\n  \
        batches: 2 planned, 1 committed\n  \
        batch 0 at 1000 ms: 1 block of `b` (chunks 0 to 1), 3 partitions, committed\n  \
        batch 1 at 1100 ms: nothing, 3 partitions, not committed\n";
    let looked = look(&disk, None, &mut |_, _| ()).expect("good");
    assert_eq!(looked.words, expected);
    assert!(looked.refusal.is_none());
}

/// A log that version 1 wrote: a start, and a batch that was planned.
fn disk_of_version_1() -> MemoryStorage {
    let disk = MemoryStorage::new(1);
    let started = version1::Started {
        version: 1,
        pipeline: "p".to_owned(),
        seed: SEED,
        anchor: ANCHOR,
        sources: vec!["a".to_owned()],
        states: Vec::new(),
    };
    let plan = version1::Plan {
        index: 0,
        time: ANCHOR,
        partitions: 3,
        seed: SEED,
        blocks: Vec::new(),
        ranges: Vec::new(),
    };
    let storage = Arc::new(disk.clone());
    let options = options(&["a"]).log;
    let opened = WriteAheadLog::open(storage, options, 1, &Poison::new(), &mut |_, _| Ok(()));
    let (log, _) = opened.expect("empty");
    for record in record::of_version_1(&started, &[plan]) {
        log.append_and_wait(record).expect("durable");
    }
    disk
}

#[test]
fn starts_are_counted_and_know_whose_state_it_is() {
    let disk = MemoryStorage::new(1);
    for run in 1..4 {
        let (journal, found) = open(&disk, &["a"]).expect("good");
        assert_eq!((found.identity, found.had_no_identity), (StateId([9; 16]), false));
        let starts: Vec<u64> = found.starts.iter().map(|start| start.run).collect();
        assert_eq!(starts, (1..=run).collect::<Vec<_>>());
        let before = &found.names_before;
        let named =
            |known: &[Known]| known.iter().map(|known| known.name.clone()).collect::<Vec<_>>();
        let (sinks, jobs) = (named(&before.sinks), named(&before.jobs));
        assert!(run == 1 || sinks == ["out"] && jobs == ["lines"], "of the start before");
        if run == 2 {
            // The log records of it are gone; the checkpoint is not.
            journal.last_checkpoint(Covered::default());
        }
        close(&journal).expect("in order");
    }
}

#[test]
fn a_state_of_version_1_gets_the_same_identity_until_it_is_written_down() {
    let disk = disk_of_version_1();
    let identity = StateId::of_seed("p", SEED, ANCHOR);
    for _ in 0..2 {
        // Its start ends before it has recorded anything.
        let disk = Arc::new(disk.after_kill());
        let opened = Journal::open(disk, options(&["a"]), &Poison::new(), &mut |_| ());
        let found = opened.expect("read").1;
        assert_eq!((found.identity, found.had_no_identity), (identity, true));
        assert_eq!(found.starts, [StartMark { run: 1, mark: 5, after: Some(ANCHOR) }]);
        let plans: Vec<u64> = found.plans.values().map(|plan| plan.run).collect();
        assert_eq!(plans, [0], "it was planned before runs were counted");
    }
    let (journal, _) = open(&disk, &["a"]).expect("good");
    wait(|receipt| journal.plan(&[plan(1, &[])], receipt)).expect("durable");
    close(&journal).expect("in order");
    drop(journal);
    let (_journal, found) = open(&disk, &["a"]).expect("good");
    assert_eq!((found.identity, found.had_no_identity), (identity, false));
    let start = |run, after| StartMark { run, mark: 5, after: Some(after) };
    assert_eq!(found.starts, [start(1, ANCHOR), start(2, ANCHOR + 100)]);
    assert_eq!(found.plans.values().map(|plan| plan.run).collect::<Vec<_>>(), [0, 1]);
}
