//! Saved states, restored: the same as those that continue.

use bytes::Bytes;
use proptest::prelude::*;

use super::buffer::ChangelogBuffer;
use super::changelog::Changes;
use super::compaction::{
    COMPACTION_AFTER_BATCHES, COMPACTION_AFTER_BYTES, COMPACTION_BATCHES, COMPACTION_BATCHES_MIN,
    COMPACTION_PART, Committed,
};
use super::store::short;
use super::*;
use crate::stream::tests::Rig;
use crate::stream::{Collected, DStream, Replay, State, StateSpec, Stateful, WhenFull};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::{Interval, Time};

/// A key and a value: 0 removes the key.
type Input = Vec<(String, i64)>;

/// The rows of a program.
struct Program {
    rig: Rig,
    mapped: Collected<(String, i64)>,
    updated: Collected<(String, i64)>,
    all: Collected<(String, (i64, u32))>,
    windowed: Collected<(String, i64)>,
    below: Collected<(String, i64)>,
}

type Shown = Vec<(Time, Vec<(String, i64)>)>;

#[derive(Clone, Copy, Debug)]
struct Options {
    timeout: u64,
    limit: Option<(u64, WhenFull)>,
    workers: usize,
    partitions: usize,
}

fn keep_sum(
    _: Time,
    key: &String,
    value: Option<&i64>,
    state: &mut State<'_, (i64, u32)>,
) -> Option<(String, i64)> {
    let (sum, calls) = state.get().copied().unwrap_or_default();
    match value {
        None => return Some((format!("{key} is gone"), sum)),
        Some(0) if state.exists() => state.remove(),
        Some(value) => state.update((sum + value, calls + 1)),
    }
    Some((key.clone(), sum))
}

fn map(
    stream: &DStream<(String, i64)>,
    options: Options,
) -> Stateful<String, (i64, u32), (String, i64)> {
    let spec = StateSpec::new().timeout(Interval::secs(options.timeout));
    let spec = spec.initial([("k1".to_owned(), (7, 0)), ("first".to_owned(), (1, 0))]);
    let spec = match options.limit {
        Some((keys, policy)) => spec.keys_max(keys, policy),
        None => spec,
    };
    stream.map_with_state(spec, keep_sum)
}

impl Program {
    fn new(input: &[Input], options: Options) -> Program {
        let mut rig = Rig::new(options.workers);
        rig.partitions = options.partitions;
        rig.graph.keep_changes();
        let stream = rig.queue(input);
        let mapped = map(&stream, options).named("mapped");
        let update = |time: Time, _: &String, values: &[i64], sum: Option<&i64>| {
            let second = (time.as_millis() / 1_000).cast_signed();
            let sum = sum.unwrap_or(&0) + values.iter().sum::<i64>() * second;
            (sum != 0).then_some(sum)
        };
        let initial = [("k2".to_owned(), 5), ("before".to_owned(), 1)];
        let updated = stream.update_state_by_key_with(initial, update);
        let (length, slide) = (Interval::secs(3), Interval::secs(1));
        let windowed = stream.reduce_by_key_and_window(length, slide, |a, b| a + b);
        let below = mapped.reduce_by_key_and_window(Interval::secs(2), slide, |a, b| a * 31 + b);
        Program {
            mapped: mapped.collect(),
            updated: updated.collect(),
            all: mapped.snapshots().collect(),
            windowed: windowed.collect(),
            below: below.collect(),
            rig,
        }
    }

    fn step(&self, index: u64) -> Changes {
        let input = self.rig.input(index, Vec::new());
        self.rig.run(&input).expect("the batch succeeds");
        self.rig.commit();
        self.rig.graph.changes(input.time, 0).expect("they are kept")
    }

    fn shown(&self) -> [Shown; 5] {
        let all = self.all.rows().into_iter().map(|(time, rows)| {
            let row =
                |(key, (sum, calls)): (String, (i64, u32))| (key, sum * 1_000 + i64::from(calls));
            (time, rows.into_iter().map(row).collect())
        });
        let shown = [self.updated.rows(), all.collect(), self.windowed.rows(), self.below.rows()];
        // The order of what a function made is part of it; that of the keys of a table is not.
        let [a, b, c, d] = shown.map(|mut batches| {
            batches.iter_mut().for_each(|(_, rows)| rows.sort());
            batches
        });
        [self.mapped.rows(), a, b, c, d]
    }

    /// Restores what was known after batch number `until`, and makes the windows what they were.
    fn restored(input: &[Input], options: Options, saved: &[Changes], until: u64) -> Program {
        let program = Program::new(input, options);
        let graph = &program.rig.graph;
        let time = |index: u64| Time::from_millis((index + 1) * 1_000);
        graph.begin(time(0));
        let back = graph.longest_window_below_state().as_secs();
        assert_eq!((graph.longest_window().as_secs(), back), (3, 2));
        // Windows below the state need it as it was before them.
        let Some(state) = until.checked_sub(back) else {
            (0..=until)
                .for_each(|index| program.rig.replay(index, Replay::States).expect("it succeeds"));
            return program;
        };
        let restore = graph.restore(&graph.states(), options.partitions).expect("the same names");
        for changes in saved.iter().filter(|changes| changes.time <= time(state)) {
            let apply = |(number, part): &(u32, Bytes)| restore.apply(*number, part);
            changes.parts.iter().try_for_each(apply).expect("whole parts");
        }
        restore.finish();
        for index in state.saturating_sub(3)..=until {
            let replay = if index > state { Replay::States } else { Replay::Windows };
            program.rig.replay(index, replay).expect("it succeeds");
            assert_eq!(graph.changes(time(index), 0), None, "they are kept already");
        }
        program
    }
}

/// The changes that are needed after the last complete compaction.
fn truncated(saved: &mut Vec<Changes>) -> bool {
    let Some(end) = saved.iter().rposition(|changes| changes.compaction_ends) else { return false };
    let begin = saved[..=end].iter().rposition(|changes| changes.compaction_begins);
    saved.drain(..begin.expect("a compaction that ends has begun"));
    true
}

fn check(input: &[Input], options: Options, cuts: &[usize]) -> bool {
    let live = Program::new(input, options);
    let mut expected: Vec<Changes> = Vec::new();
    let mut compacted = false;
    for index in 0..input.len() as u64 {
        expected.push(live.step(index));
    }
    let mut saved: Vec<Changes> = Vec::new();
    let (mut program, mut from) = (Program::new(input, options), 0);
    for cut in cuts.iter().map(|cut| cut % input.len()) {
        if cut < from {
            continue;
        }
        (from..=cut).for_each(|index| saved.push(program.step(index as u64)));
        let keep = saved.len().saturating_sub(3);
        // What windows below states need from before is kept longer.
        let mut old: Vec<Changes> = saved[..keep].to_vec();
        if truncated(&mut old) {
            saved = old.into_iter().chain(saved.split_off(keep)).collect();
            compacted = true;
        }
        program = Program::restored(input, options, &saved, cut as u64);
        from = cut + 1;
        let last = Time::from_millis(from as u64 * 1_000);
        let rest = |shown: [Shown; 5]| {
            shown.map(|rows| rows.into_iter().filter(|(time, _)| *time > last).collect::<Vec<_>>())
        };
        let twin = Program::restored(input, options, &saved, cut as u64);
        (from..input.len()).for_each(|index| drop(twin.step(index as u64)));
        assert_eq!(rest(twin.shown()), rest(live.shown()), "after batch {cut}");
    }
    compacted
}

fn batches() -> impl Strategy<Value = Vec<Input>> {
    let record = (0_u8..25, -2_i64..4).prop_map(|(key, value)| (format!("k{key}"), value));
    prop::collection::vec(prop::collection::vec(record, 0..12), 4..24)
}

fn options() -> impl Strategy<Value = Options> {
    let policy = prop_oneof![Just(WhenFull::DropNew), Just(WhenFull::ExpireOldest)];
    let limit = prop::option::of((12_u64..20, policy));
    (1_u64..6, limit, 1_usize..3, 1_usize..4).prop_map(|(timeout, limit, workers, partitions)| {
        Options { timeout, limit, workers, partitions }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_restored_state_goes_on_as_if_nothing_had_happened(
        input in batches(),
        options in options(),
        cuts in prop::collection::vec(0_usize..24, 1..4),
    ) {
        check(&input, options, &cuts);
    }

    #[test]
    fn damaged_parts_are_errors_or_other_values_and_never_panic(
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        cut in any::<prop::sample::Index>(),
        junk in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let input = vec![vec![("a".to_owned(), 1), ("b".to_owned(), 300)]];
        let options = Options { timeout: 5, limit: None, workers: 1, partitions: 1 };
        let program = Program::new(&input, options);
        let changes = program.step(0);
        let fresh = Program::new(&input, options);
        let restore = fresh.rig.graph.restore(&fresh.rig.graph.states(), 1).expect("the same names");
        for (number, part) in &changes.parts {
            let mut flipped = part.to_vec();
            let at = at.index(flipped.len());
            flipped[at] ^= 1 << bit;
            let _ = restore.apply(*number, &flipped);
            let cut = cut.index(part.len());
            let _ = restore.apply(*number, &part[..cut]);
            let _ = restore.apply(*number, &junk);
            prop_assert!(restore.apply(9, part).is_err());
        }
        restore.finish();
    }
}

#[test]
fn a_compaction_goes_through_all_keys_a_slice_at_a_time() {
    let many: Input = (0..60).map(|n| (format!("k{n}"), 1)).collect();
    let few = |n: usize| -> Input { vec![(format!("k{}", n % 5), 1)] };
    let mut input = vec![many];
    input.extend((0..150).map(few));
    let options = Options { timeout: 1_000, limit: None, workers: 1, partitions: 2 };
    assert!(check(&input, options, &[100, 149]), "a compaction has ended");
    let program = Program::new(&input, options);
    let changes: Vec<Changes> = (0..150).map(|index| program.step(index)).collect();
    let begin =
        changes.iter().position(|changes| changes.compaction_begins).expect("a compaction began");
    let sizes = |range: &[Changes]| {
        range.iter().map(|c| c.parts.iter().map(|(_, part)| part.len()).sum::<usize>()).max()
    };
    assert!(
        sizes(&changes[begin..])
            < Some(changes[0].parts.iter().map(|(_, part)| part.len()).sum::<usize>() / 2)
    );
}

#[test]
fn names_and_types_must_be_the_same() {
    let rig = Rig::new(1);
    let stream = rig.queue(&[vec![("a".to_owned(), 1_i64)]]);
    let _words = stream.update_state_by_key(|_, _, _: Option<&u64>| None).named("words");
    let users = stream.map_with_state(StateSpec::<_, Vec<u8>>::new(), |_, _, _, _| None::<()>);
    let _users = users.named("users");
    let info =
        |name: &str, holds: &str| StateInfo { name: name.to_owned(), holds: holds.to_owned() };
    let check = |found: &[StateInfo], expected: &str| {
        let shown =
            rig.graph.restore(found, 1).err().map(|err| err.to_string()).unwrap_or_default();
        assert_eq!(shown, expected);
    };
    let words = info("words", "String to u64");
    let users = info("users", "String to Vec<u8>");
    check(&[words.clone(), users.clone()], "");
    check(&[users.clone(), words], "");
    check(
        &[info("counts", "String to u64"), info("users", "String to u32")],
        "the program does not continue what was saved:\n\
         state `counts` (String to u64) was found, the program has none of that name\n\
         state `users` was found with String to u32, the program wants String to Vec<u8>\n\
         the program wants state `words` (String to u64), which was not found\n\
         found: `counts`, `users`; wanted: `words`, `users`",
    );
    check(
        &[],
        "the program does not continue what was saved:\n\
         the program wants state `words` (String to u64), which was not found\n\
         the program wants state `users` (String to Vec<u8>), which was not found\n\
         found: none; wanted: `words`, `users`",
    );
}

#[test]
fn type_names_lose_their_paths() {
    let check = |name: &str, expected: &str| assert_eq!(short(name), expected);
    check("alloc::string::String", "String");
    check("(alloc::vec::Vec<u8>, core::option::Option<a::b::C>)", "(Vec<u8>, Option<C>)");
    check("[u8; 4]", "[u8; 4]");
    check("u64", "u64");
}

mod carried;
mod restored;

/// States of a given size in bytes, of which each batch compacts its share.
struct Compacted {
    bytes: u64,
    left: AtomicU64,
    within: AtomicU64,
}

impl Changelog for Compacted {
    fn begin_compaction(&self) {
        self.left.store(self.bytes, Ordering::Relaxed);
    }

    fn compact_within(&self, batches: u64) {
        self.within.store(batches, Ordering::Relaxed);
    }

    fn is_compacted(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    fn len(&self) -> u64 {
        1
    }

    fn begins_with(&self, _: u64) {}

    fn begin_restore(&self, _: usize) {}

    fn apply(&self, _: &[u8], _: u64) -> Result<(), String> {
        Ok(())
    }

    fn end_restore(&self) {}
}

fn committed(input_bytes: u64, buffer: ChangelogBuffer) -> Committed {
    Committed { time: Time::default(), input_bytes, buffer }
}

/// Batches of `batch` bytes, over states of `state` bytes: the most bytes, and batches, that are kept behind the first
/// compaction, and the part of all bytes that compactions took.
fn kept(batch: u64, state: u64) -> (u64, usize, f64) {
    let (left, within) = (AtomicU64::new(0), AtomicU64::new(COMPACTION_BATCHES));
    let states = Arc::new(Compacted { bytes: state, left, within });
    let all: Vec<Arc<dyn Changelog>> = vec![Arc::clone(&states) as Arc<dyn Changelog>];
    let (mut compactor, mut begins, mut from) = (Compactor::default(), 0, None);
    let (mut log, mut most, mut batches, mut compacted) = (Vec::new(), 0, 0, 0);
    for index in 0..1_000 {
        let left = states.left.load(Ordering::Relaxed);
        let slice = left.min(state.div_ceil(states.within.load(Ordering::Relaxed)));
        states.left.store(left - slice, Ordering::Relaxed);
        compacted += slice;
        log.push(batch + slice);
        let changed = ChangelogBuffer { compacted: slice, ..ChangelogBuffer::default() };
        let changes = compactor.changes(committed(batch + slice, changed), &all);
        if changes.compaction_begins {
            begins = index;
        }
        if changes.compaction_ends {
            from = Some(begins);
        }
        if let Some(from) = from {
            most = most.max(log[from..].iter().sum());
            batches = batches.max(log.len() - from);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a part of a whole")]
    let part = compacted as f64 / log.iter().sum::<u64>() as f64;
    (most, batches, part)
}

#[test]
fn what_is_kept_for_states_is_bounded_in_bytes_and_in_batches() {
    const MB: u64 = 1 << 20;
    for state in [0, 1, 100 * MB, 1_000 * MB] {
        for batch in [0, 1_000, MB, 10 * MB, 100 * MB] {
            let (bytes, batches, part) = kept(batch, state);
            let bound = 2 * (COMPACTION_PART * state).max(COMPACTION_AFTER_BYTES);
            let last = 2 * COMPACTION_BATCHES_MIN * batch;
            assert!(bytes <= bound + last, "{state} {batch}: {bytes} bytes");
            assert!(batches <= 2 * 50, "{state} {batch}: {batches} batches");
            // Where changes are next to nothing, compactions are what there is: one in this many batches.
            assert!(
                part <= 0.21 || batch * COMPACTION_AFTER_BATCHES <= state * COMPACTION_PART,
                "{state} {batch}: {part}"
            );
        }
    }
}

/// While the log has no room a compaction begins with the next batch and ends with it, if it is less than what it frees.
#[test]
fn a_compaction_hurries_while_the_log_has_no_room() {
    let states =
        Arc::new(Compacted { bytes: 100, left: AtomicU64::new(0), within: AtomicU64::new(0) });
    let all: Vec<Arc<dyn Changelog>> = vec![Arc::clone(&states) as Arc<dyn Changelog>];
    let mut compactor = Compactor::default();
    let mut check = |hurries: bool, input: u64, expected: (bool, bool)| {
        let left = states.left.load(Ordering::Relaxed);
        let slice = left.min(100_u64.div_ceil(states.within.load(Ordering::Relaxed).max(1)));
        states.left.store(left - slice, Ordering::Relaxed);
        compactor.hurry(hurries);
        let changed = ChangelogBuffer { compacted: slice, ..ChangelogBuffer::default() };
        let changes = compactor.changes(committed(input, changed), &all);
        assert_eq!(
            (changes.compaction_begins, changes.compaction_ends),
            expected,
            "{hurries} {input}"
        );
    };
    check(false, 1_000, (false, false));
    check(true, 0, (false, false));
    check(true, 0, (true, true));
    check(true, 0, (false, false));
    check(true, 50, (false, false));
    check(true, 40, (false, false));
    check(true, 20, (false, false));
    check(true, 0, (true, true));
    check(false, 1_000, (false, false));
    check(false, 1_000, (false, false));
}
