//! A program with other states and jobs than the one that wrote the log.

use super::*;
use crate::sink::{BatchMeta, CommitKey, Rows, SharedSink, Sink};
use crate::stream::plan::JobPast;

type Sums = Collected<(String, i64)>;

/// Sums under these names, each with 100 of `k` before its first batch.
fn program(input: &[Input], names: &[&str]) -> (Rig, Vec<Sums>) {
    let rig = Rig::new(1);
    rig.graph.keep_changes();
    let stream = rig.queue(input);
    let sums = names.iter().map(|name| {
        let spec = StateSpec::new().initial([("k".to_owned(), (100, 0))]);
        stream.map_with_state(spec, keep_sum).named(name).collect()
    });
    let sums = sums.collect();
    (rig, sums)
}

/// Runs a batch, and returns what of it is kept.
fn step(rig: &Rig, index: u64) -> Changes {
    let input = rig.input(index, Vec::new());
    rig.run(&input).expect("the batch succeeds");
    rig.commit();
    rig.graph.changes(input.time, 0).expect("they are kept")
}

fn ones(batches: usize) -> Vec<Input> {
    vec![vec![("k".to_owned(), 1)]; batches]
}

/// The state of `k` before each batch.
fn shown(sums: &Sums) -> Vec<i64> {
    sums.rows().into_iter().flat_map(|(_, rows)| rows).map(|(_, sum)| sum).collect()
}

fn restore(rig: &Rig, found: Vec<Option<usize>>, saved: &[Changes]) {
    rig.graph.begin(Time::from_millis(1_000));
    let restore = rig.graph.restore_those(found, 2);
    for (number, part) in saved.iter().flat_map(|changes| &changes.parts) {
        restore.apply(*number, part).expect("a whole part");
    }
    restore.finish();
}

#[test]
fn one_state_is_dropped_one_is_carried_and_one_is_new() {
    let input = ones(6);
    let (rig, _) = program(&input, &["old", "kept"]);
    let saved: Vec<Changes> = (0..3).map(|index| step(&rig, index)).collect();
    let (rig, sums) = program(&input, &["new", "kept"]);
    // Number 0 of the log is `old`, number 1 is `kept`.
    restore(&rig, vec![None, Some(1)], &saved);
    (3..6).for_each(|index| drop(step(&rig, index)));
    assert_eq!(shown(&sums[1]), [103, 104, 105]);
    assert_eq!(
        shown(&sums[0]),
        [100, 101, 102],
        "what is to be known before the first batch stays"
    );
}

#[test]
fn a_new_state_is_restored_from_what_its_first_batch_kept() {
    let input = ones(6);
    let (rig, _) = program(&input, &["new"]);
    // It begins with batch 2.
    let saved: Vec<Changes> = (2..4).map(|index| step(&rig, index)).collect();
    let (rig, sums) = program(&input, &["new"]);
    restore(&rig, vec![Some(0)], &saved);
    (4..6).for_each(|index| drop(step(&rig, index)));
    assert_eq!(shown(&sums[0]), [102, 103]);
}

#[test]
fn what_runs_again_of_batches_before_a_states_first_is_not_for_it() {
    let input = ones(6);
    let (rig, sums) = program(&input, &["new", "old"]);
    rig.graph.states_begin(&[2, 0]);
    rig.graph.begin(Time::from_millis(1_000));
    (0..4).for_each(|index| rig.replay(index, Replay::States).expect("it succeeds"));
    let changes = step(&rig, 4);
    assert_eq!((shown(&sums[0]), shown(&sums[1])), (vec![102], vec![104]));
    // Its initial states were kept with its first batch, which is not this one.
    let bytes = |state| {
        let parts = changes.parts.iter().filter(|(of, _)| *of == state);
        parts.map(|(_, part)| part.len()).sum::<usize>()
    };
    assert_eq!(bytes(0), bytes(1));
}

#[test]
fn a_census_counts_keys_and_bytes_without_their_types() {
    let input = vec![
        vec![("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 300)],
        vec![("b".to_owned(), 0)],
        vec![],
    ];
    let (rig, _) = program(&input, &["sums"]);
    let (mut counting, mut of_prefix) = (Counting::default(), Vec::new());
    for index in 0..3 {
        for (_, part) in step(&rig, index).parts {
            counting.take(&part).expect("a whole part");
            assert!(Counting::default().take(&part[..part.len() - 1]).is_err(), "it is cut off");
        }
        of_prefix.push(counting.census().keys);
    }
    // `k` was known before; `b` is forgotten.
    assert_eq!(of_prefix, [4, 3, 3]);
    // A letter with its length takes two bytes, a sum with its calls two, 300 one more, 100 too.
    let bytes = 3 * (2 + 2) + 2;
    assert_eq!(counting.census(), Census { keys: 3, bytes });
}

/// Remembers the names under which batches were committed.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<(String, u64)>>>);

impl Sink for Names {
    fn committed(&mut self, _: &CommitKey) -> crate::Result<bool> {
        Ok(false)
    }

    fn write(&mut self, _: &CommitKey, _: &BatchMeta, _: &Rows) -> crate::Result<()> {
        Ok(())
    }

    fn commit(&mut self, key: &CommitKey) -> crate::Result<()> {
        self.0.lock().push((key.job.to_string(), key.time.as_millis() / 1_000 - 1));
        Ok(())
    }
}

#[test]
fn a_job_is_none_of_earlier_batches_and_goes_by_the_name_of_each() {
    let rig = Rig::new(1);
    let (old, new) = (Names::default(), Names::default());
    let stream = rig.queue(&[vec![1_u64]]);
    stream.named("c").save_to("save", vec![SharedSink::new(old.clone())]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    stream.map(|n| *n).named("new").save_to("save", vec![SharedSink::new(new.clone())]);
    stream.foreach_batch(move |time, _| {
        all.lock().push(time.as_millis() / 1_000 - 1);
        Ok(())
    });
    let names = vec![(1, "a".into()), (2, "b".into())];
    let past = |first| JobPast { first, names: Vec::new() };
    rig.graph.outputs_begin(vec![JobPast { first: 0, names }, past(3), past(2)]);
    for index in 0..4 {
        rig.run(&rig.input(index, Vec::new())).expect("the batch succeeds");
    }
    let committed = |names: &Names| {
        let all = names.0.lock();
        all.iter().map(|(name, batch)| format!("{name}{batch}")).collect::<Vec<_>>()
    };
    assert_eq!(committed(&old), ["a0", "b1", "c2", "c3"]);
    assert_eq!(committed(&new), ["new3"]);
    assert_eq!(*seen.lock(), [2, 3]);
}
