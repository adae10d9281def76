//! Results of batches are counted until their sinks have them; the memory of windows and states is counted beside them.

use super::tests::Rig;
use super::*;
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::Pool;
use crate::sink::{BatchMeta, CommitKey, Rows, Sink};
use crate::sync::{Arc, Mutex};
use crate::time::Interval;

const ROWS: usize = 5_000;
const KEYS: u64 = ROWS as u64;

/// Remembers how many bytes of results there were while it was called.
struct Watching(Arc<MemoryBudget>, Arc<Mutex<Vec<usize>>>);

impl Sink for Watching {
    fn committed(&mut self, _key: &CommitKey) -> crate::Result<bool> {
        Ok(false)
    }

    fn write(&mut self, _key: &CommitKey, _meta: &BatchMeta, _rows: &Rows) -> crate::Result<()> {
        self.1.lock().push(self.0.results());
        Ok(())
    }

    fn commit(&mut self, _key: &CommitKey) -> crate::Result<()> {
        Ok(())
    }
}

/// Runs a batch of numbers and one of nothing; the bytes of results that the sink has seen, and those that were kept
/// after each batch.
fn check(
    operate: impl FnOnce(DStream<u64>, Arc<MemoryBudget>) -> DStream<(u64, u64)>,
    results: std::ops::Range<usize>,
    kept: [std::ops::Range<u64>; 4],
) {
    let (rig, account) = (Rig::new(2), MemoryBudget::new(1 << 30));
    rig.graph.make_results_in(&Pool::new(Arc::clone(&account)));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let stream = operate(rig.queue(&[(0..KEYS).collect()]), Arc::clone(&account));
    stream.save(Watching(Arc::clone(&account), Arc::clone(&seen)));
    for (index, kept) in (0..).zip(kept) {
        let input = rig.input(index, Vec::new());
        rig.run(&input).expect("it succeeds");
        rig.commit();
        assert_eq!((account.results(), account.used()), (0, 0), "everything was given back");
        let bytes = rig.graph.kept_bytes().value();
        assert!(kept.contains(&bytes), "batch {index} keeps {bytes} bytes, not {kept:?}");
    }
    let seen = seen.lock()[0];
    assert!(results.contains(&seen), "{seen} bytes of results, not {results:?}");
}

#[test]
fn rows_and_shuffled_tables_are_counted_until_the_sink_has_them() {
    // Two cells of nine bytes and the end of a row, at most twice as much for buffers that have grown.
    let row = 26;
    let rows = ROWS * row..ROWS * row * 2;
    let nothing = || std::array::from_fn(|_| 0..1);
    check(|numbers, _| numbers.map(|n| (*n, 1)), rows.clone(), nothing());
    // The rows of the shuffle are there while they are encoded, and gone when the sink is called.
    let shuffled = |numbers: DStream<u64>, account: Arc<MemoryBudget>| {
        numbers.map(|n| (*n, 1)).reduce_by_key(|a, b| a + b).map(move |row| {
            assert!(account.results() >= ROWS * size_of::<(u64, u64)>(), "{account:?}");
            *row
        })
    };
    check(shuffled, rows, nothing());
}

#[test]
fn windows_and_states_are_counted_as_kept_for_as_long_as_they_keep() {
    let second = Interval::secs(1);
    let elements = KEYS * 16..KEYS * 64;
    let pairs = |numbers: DStream<u64>| numbers.map(|n| (*n, 1));
    // A window of two batches: the elements of the first are gone with the third.
    let kept = [elements.clone(), elements, 0..1, 0..1];
    check(|it, _| pairs(it).window(Interval::secs(2), second), 1..usize::MAX, kept);
    // A commit leaves what the next batch takes in: both are counted. The table keeps its places.
    let some = KEYS * 16..KEYS * 400;
    let kept = || [some.clone(), some.clone(), some.clone(), some.clone()];
    let sums = |it, _| {
        pairs(it).reduce_by_key_and_window(Interval::secs(2), second, |a: &u64, b: &u64| a + b)
    };
    check(sums, 1..usize::MAX, kept());
    let states = |it, _| {
        pairs(it).update_state_by_key(|_, new: &[u64], old: Option<&u64>| {
            Some(old.unwrap_or(&0) + new.iter().sum::<u64>())
        })
    };
    check(states, 1..usize::MAX, kept());
}

#[test]
fn each_window_and_state_is_counted_by_its_name() {
    let (rig, second) = (Rig::new(2), Interval::secs(1));
    rig.graph.make_results_in(&Pool::new(MemoryBudget::new(1 << 30)));
    let pairs = rig.queue(&[(0..KEYS).collect()]).map(|n| (format!("key number {n}"), *n));
    let sum =
        |_: &String, new: &[u64], old: Option<&u64>| Some(new.len() as u64 + old.unwrap_or(&0));
    pairs.update_state_by_key(sum).named("sums").foreach_batch(|_, _| Ok(()));
    let highest =
        pairs.reduce_by_key_and_window(Interval::secs(9), second, |a: &u64, b: &u64| *a.max(b));
    highest.named("highest").foreach_batch(|_, _| Ok(()));
    pairs
        .map(|(_, n)| *n)
        .window(Interval::secs(9), second)
        .named("all")
        .foreach_batch(|_, _| Ok(()));
    for index in 0..2 {
        let input = rig.input(index, Vec::new());
        rig.run(&input).expect("it succeeds");
        rig.commit();
    }
    let parts = rig.graph.kept_parts();
    let named: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.kind())).collect();
    assert_eq!(named, [("sums", "state"), ("highest", "window"), ("all", "window")]);
    let all: u64 = parts.iter().map(|part| part.bytes).sum();
    assert_eq!(all, rig.graph.kept_bytes().value());
    let says = |most: Option<u64>| rig.graph.kept_beyond(most).unwrap_or_default();
    assert_eq!((says(None), says(Some(all))), (String::new(), String::new()));
    let beyond = says(Some(1 << 20));
    assert!(beyond.contains("the state `sums`"), "{beyond}");
    assert!(beyond.contains("more than kept_bytes_max = 1.00 MiB; let keys time out"), "{beyond}");
}
