//! What the log has of a state, restored: the table that commits made.

use super::super::entry::Touch;
use super::*;
use crate::exec::shuffle::{hash_of, shard_of};
use crate::stream::kept::Kept;
use crate::stream::state::key_table::{Idle, KeyTableDelta};
use crate::stream::state::shard::{Change, ShardState, Shards, Slot};

const SEED: u64 = 7;

type Keys = KeyTable<u8, String, ()>;

/// A change of a key by a batch.
#[derive(Clone, Copy, Debug)]
enum Op {
    Set(u8),
    Touch,
    Remove,
}

/// The changes of a batch, and true if a compaction begins with it.
type Step = (bool, Vec<(u8, Op)>);

/// A state that commits batches.
struct Live {
    store: Store<u8, String, ()>,
    tables: Vec<Arc<Keys>>,
    /// The parts of each batch.
    log: Vec<Vec<Bytes>>,
    /// The first batch of the compaction that runs, and of the last one that has ended.
    begins: Option<usize>,
    complete: Option<usize>,
}

fn store(listed: bool) -> Store<u8, String, ()> {
    Store::new(Vec::new(), listed, Kept::default().of(0))
}

impl Live {
    fn new(shards: usize, listed: bool) -> Live {
        let store = store(listed);
        let known = Shards::new(KeyTable::empty(shards, listed), &Kept::default().of(0));
        store.install(Known { shards: known, keys: 0 });
        let tables = KeyTable::empty(shards, listed).into_iter().map(Arc::new).collect();
        Live { store, tables, log: Vec::new(), begins: None, complete: None }
    }

    fn delta(&self, shard: usize, ops: &[(u8, Op)]) -> KeyTableDelta<u8, String, ()> {
        let mut delta = KeyTableDelta::new(Time::from_millis(self.log.len() as u64 * 1_000));
        let mut seen = Vec::new();
        for (key, op) in ops {
            let hash = hash_of(SEED, key);
            if shard_of(hash, self.tables.len()) != shard || seen.contains(key) {
                continue;
            }
            seen.push(*key);
            let turn = delta.turn();
            let row = |n: u8| (*key, "x".repeat(n.into()));
            match (self.tables[shard].find(hash, key), *op) {
                (Some(place), Op::Set(n)) => {
                    delta.overlay.changed.push((place, Change::Row(row(n)), turn))
                }
                (Some(place), Op::Touch) => delta.overlay.changed.push((place, Change::Same, turn)),
                (Some(place), Op::Remove) => {
                    delta.overlay.changed.push((place, Change::Removed, turn));
                    delta.counts.removed += 1;
                }
                (None, Op::Set(n)) => {
                    delta.overlay.added.push((hash, row(n), turn));
                    delta.counts.added += 1;
                }
                (None, Op::Touch | Op::Remove) => {}
            }
        }
        delta.sort();
        delta
    }

    /// Commits a batch, in the order in which the engine does it.
    fn step(&mut self, (compacts, ops): &Step) {
        // The first batch has all that was known before it: a compaction begins later.
        if *compacts && !self.log.is_empty() {
            self.store.begin_compaction();
            self.begins = Some(self.log.len());
        }
        let view = |shard: usize| ShardView {
            base: Arc::clone(&self.tables[shard]),
            delta: self.delta(shard, ops),
        };
        let views: Vec<_> = (0..self.tables.len()).map(view).collect();
        let encode = |(shard, view)| self.store.encode(shard, view, false).expect("it is plain");
        let encoded = views.iter().enumerate().map(encode).collect();
        views.iter().for_each(|view| self.store.counters.add(&view.delta.counts));
        let mut buffer = ChangelogBuffer::default();
        self.store.committed(encoded, 0, &mut buffer);
        for (table, view) in self.tables.iter_mut().zip(views) {
            drop(view.base);
            Arc::get_mut(table).expect("nobody else has it").apply(view.delta);
        }
        self.log.push(buffer.parts.into_iter().map(|(_, part)| part).collect());
        if self.begins.is_some() && self.store.is_compacted() {
            self.complete = self.begins.take();
        }
    }

    /// What the parts from this batch on give must be what there is.
    fn check(&self, from: usize) {
        let restored = store(self.store.listed);
        restored.begin_restore(self.tables.len());
        for part in self.log[from..].iter().flatten() {
            restored.apply(part, SEED).expect("whole parts");
        }
        restored.end_restore();
        let shards = restored.shards.lock().take().expect("it is restored");
        let tables: Vec<_> = (0..shards.len()).map(|shard| shards.base(shard)).collect();
        assert_eq!(shown(&tables), shown(&self.tables), "{from} of {}", self.log.len());
        assert_eq!(restored.len(), self.store.len());
    }
}

/// A key with its state and its last touch.
type Row = (u8, String, Touch);

/// The rows of each partition in the order of their keys, and its keys by age.
fn shown(tables: &[Arc<Keys>]) -> Vec<(Vec<Row>, Vec<u8>)> {
    let one = |table: &Arc<Keys>| {
        let row = |(_, slot): (u32, &Slot<u8, String, Idle>)| {
            (slot.row.0, slot.row.1.clone(), slot.extra.touch)
        };
        let mut rows: Vec<Row> = table.table.iter().map(row).collect();
        rows.sort();
        (rows, table.by_age().map(|place| table.table.get(place).row.0).collect())
    };
    tables.iter().map(one).collect()
}

fn check_restores(steps: &[Step], shards: usize, listed: bool) {
    let mut live = Live::new(shards, listed);
    for step in steps {
        live.step(step);
        live.check(0);
        live.complete.into_iter().for_each(|from| live.check(from));
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let op =
        prop_oneof![3 => (0_u8..9).prop_map(Op::Set), 1 => Just(Op::Touch), 1 => Just(Op::Remove)];
    let step = (prop::bool::weighted(0.2), prop::collection::vec((0_u8..40, op), 0..12));
    prop::collection::vec(step, 1..24)
}

proptest! {
    #[test]
    fn the_log_gives_the_table_that_commits_made(
        steps in steps(),
        shards in 1_usize..4,
        listed in any::<bool>(),
    ) {
        check_restores(&steps, shards, listed);
    }
}

#[test]
fn a_key_that_goes_and_comes_while_a_compaction_runs_is_restored() {
    let set = |keys: std::ops::Range<u8>| keys.map(|key| (key, Op::Set(key))).collect::<Vec<_>>();
    let steps = [
        (false, set(0..20)),
        (true, vec![(19, Op::Remove), (0, Op::Touch)]),
        (false, vec![(19, Op::Set(1)), (1, Op::Remove)]),
        (false, vec![]),
        (false, vec![]),
        (false, vec![(18, Op::Touch)]),
        (false, vec![]),
        (false, vec![]),
    ];
    let mut live = Live::new(1, true);
    steps.iter().for_each(|step| live.step(step));
    assert_eq!(live.complete, Some(1), "the compaction has ended");
    check_restores(&steps, 1, true);
}
