//! Programs whose names change from life to life, on disks that lose power: everything that is carried over is there once.

use tidemill::FilesSource;
use tidemill::internals::storage::Directory;
use tidemill::internals::{receivers, sync_log};

use super::*;

impl World {
    /// A name as it is by now.
    pub(super) fn named(&self, name: &str) -> String {
        of_renaming(name, self.renamed)
    }

    /// Says what every name was in the life before.
    pub(super) fn renaming(&self, config: Config) -> Config {
        let Some(before) = self.renamed.checked_sub(1) else { return config };
        let names =
            ["source:in", "job:lines", "job:counts", "job:totals", "job:window", "job:below"];
        let states = ["state:counts", "state:totals"];
        let kept = names
            .into_iter()
            .chain(states)
            .filter(|name| self.keeps || ["source:in", "job:lines"].contains(name));
        kept.fold(config, |config, name| config.rename(self.named(name), of_renaming(name, before)))
    }
}

fn of_renaming(name: &str, times: u64) -> String {
    if times == 0 { name.to_owned() } else { format!("{name}_{times}") }
}

#[test]
fn everything_is_renamed_through_power_cuts_and_nothing_is_there_twice() {
    for seed in seeds(40) {
        let mut world = World::new(seed);
        world.keeps = seed.is_multiple_of(2);
        for _ in 0..5 {
            let trouble = match world.below(4) {
                0 => Trouble::Output(world.below(100), Fault::PowerCut),
                1 => Trouble::None,
                _ => Trouble::State(world.below(160), Fault::PowerCut),
            };
            world.live(trouble);
            world.power_back();
            // People rename what they have seen running; a start that failed is tried again as it is.
            world.renamed += u64::from(world.refusal.is_none());
        }
        assert!(world.live(Trouble::None), "TIDEMILL_SEED={seed}: the last life stops in order");
        let mut problems = world.problems();
        if world.keeps {
            problems.extend(world.problems_of_what_is_kept());
        }
        assert!(problems.is_empty(), "TIDEMILL_SEED={seed}: {problems:#?}");
    }
}

/// A stream on the disks of a world: what `build` makes with the sink.
fn start(
    world: &World,
    say: impl FnOnce(Config) -> Config,
    build: impl FnOnce(&StreamingContext, &SharedSink),
) -> Result<Alive> {
    let config = say(Config::new("names").batch_interval(PERIOD).workers(1));
    let context = StreamingContext::with_clock(config, world.clock.clone())?;
    keep_state_in(&context, Arc::new(world.state.clone()), SEGMENT_BYTES);
    let storage: Arc<dyn Storage> = Arc::new(world.output.clone());
    let file = File::open(storage, FileOptions::default())?;
    build(&context, &SharedSink::new(file));
    Ok(Alive::new(context.start()?, &world.clock))
}

fn same(config: Config) -> Config {
    config
}

/// Hands records of `k` to every source, and lets a batch take them.
fn feed(world: &World, running: &Alive, numbers: std::ops::Range<u64>) {
    for source in 0..receivers(running) {
        let range = range("k", numbers.clone(), &Arc::default());
        assert!(offer(running, source, range).is_ok());
    }
    world.clock.advance(PERIOD.as_duration());
}

/// Waits until this many records are counted, and the log says that their batch is done: a kill makes it run again
/// otherwise, and forgets a record that is on its way.
fn until_counted(world: &World, running: &Alive, records: usize) {
    let done = || running.inspector().progress().batches_waiting == 0;
    until("it is done", || world.output("counts").len() == records && done());
    sync_log(running);
}

/// Kills it at once: both disks are gone.
fn kill(world: &mut World, running: Alive) {
    for disk in [&world.state, &world.output] {
        disk.fail(disk.calls() + 1, Fault::PowerCut);
    }
    running.stop(Trouble::StateFull);
    world.power_back();
}

/// The lines of these numbers.
fn lines(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| format!("k {number}")).collect()
}

fn source(context: &StreamingContext, name: &str) -> DStream<[u8]> {
    context.receiver(idle().named(name)).expect("a source")
}

/// At each record the number of records of `k` so far.
fn counted(records: &DStream<[u8]>, name: &str, file: &SharedSink) -> DStream<String> {
    let ones = records.map(|_| ("k".to_owned(), 1_u64));
    let counts = ones.map_with_state(StateSpec::new(), |_, name, one, state| {
        let count = state.get().unwrap_or(&0) + one?;
        state.update(count);
        Some(format!("{name} {count}"))
    });
    let counts = counts.named(name);
    counts.save_to("save", vec![file.clone()]);
    counts.map(String::clone)
}

/// A window below a state: a start has to make the states of before it again.
fn window_below(counts: &DStream<String>, file: &SharedSink) {
    let window = counts.map(|row| (row.clone(), 1_u64));
    let window = window.reduce_by_key_and_window(LENGTH, PERIOD, |a, b| a + b);
    window.named("window").save_to("save", vec![file.clone()]);
}

/// A life whose first batch with records is planned and not committed; some without may follow.
fn uncommitted(build: impl FnOnce(&StreamingContext, &SharedSink)) -> World {
    let mut world = World::new(1);
    let running = start(&world, same, build).expect("started");
    let calls = world.output.calls();
    world.output.fail(calls + 1, Fault::PowerCut);
    feed(&world, &running, 0..3);
    until("its plan is durable and its rows are written", || world.output.calls() > calls);
    assert!(!running.stop(Trouble::StateFull), "its output's disk is gone");
    world.power_back();
    world
}

#[test]
fn a_new_job_begins_with_the_first_new_batch_also_after_another_crash() {
    let old = |context: &StreamingContext, file: &SharedSink| {
        source(context, "in").named("lines").save_to("save", vec![file.clone()]);
    };
    let new = |context: &StreamingContext, file: &SharedSink| {
        let lines = source(context, "in");
        lines.named("more").save_to("save", vec![file.clone()]);
        lines.named("lines").save_to("save", vec![file.clone()]);
    };
    let mut world = uncommitted(old);
    // It dies before the batch of the life before is written.
    world.output.fail(world.output.calls() + 6, Fault::PowerCut);
    let running = start(&world, same, new);
    let _ = running.map(|running| running.stop(Trouble::StateFull));
    world.power_back();
    let running = start(&world, same, new).expect("started");
    feed(&world, &running, 3..5);
    assert!(running.stop(Trouble::None));
    assert_eq!((world.output("lines"), world.output("more")), (lines(0..5), lines(3..5)));
}

#[test]
fn a_job_that_is_given_up_leaves_its_states_whole() {
    let build = |name: &'static str| {
        move |context: &StreamingContext, file: &SharedSink| {
            let counts = counted(&source(context, "in"), "counts", file);
            counts.named(name).save_to("save", vec![file.clone()]);
        }
    };
    let world = uncommitted(build("old"));
    let refused = start(&world, same, build("new")).map(drop).expect_err("refused").to_string();
    let held = refused.lines().find(|line| line.starts_with("  job `old`: "));
    let held = held.unwrap_or_else(|| panic!("{refused}"));
    assert!(held.ends_with(" planned and not committed, with 3 records"), "{refused}");
    let say = |config: Config| config.retire("job:old");
    let running = start(&world, say, build("new")).expect("started");
    feed(&world, &running, 3..5);
    assert!(running.stop(Trouble::None));
    let counts =
        |numbers: std::ops::RangeInclusive<u64>| lines(*numbers.start()..numbers.end() + 1);
    assert_eq!((world.output("counts"), world.output("old")), (counts(1..=5), vec![]));
    assert_eq!(world.output("new"), counts(4..=5), "of what came before it was no job");
}

#[test]
fn states_keep_what_they_made_of_a_source_that_is_given_up() {
    let mut world = World::new(1);
    let both = |context: &StreamingContext, file: &SharedSink| {
        let all = source(context, "in").union(&source(context, "extra"));
        window_below(&counted(&all, "counts", file), file);
    };
    let running = start(&world, same, both).expect("started");
    feed(&world, &running, 0..3);
    until_counted(&world, &running, 6);
    kill(&mut world, running);
    let one = |context: &StreamingContext, file: &SharedSink| {
        window_below(&counted(&source(context, "in"), "counts", file), file);
    };
    let say = |config: Config| config.retire("source:extra");
    let running = start(&world, say, one).expect("started");
    feed(&world, &running, 3..4);
    assert!(running.stop(Trouble::None));
    assert_eq!(world.output("counts"), lines(1..8));
}

#[test]
fn a_new_state_starts_empty_and_old_ones_are_whole() {
    let mut world = World::new(1);
    let old = |context: &StreamingContext, file: &SharedSink| {
        window_below(&counted(&source(context, "in"), "counts", file), file);
    };
    let new = |context: &StreamingContext, file: &SharedSink| {
        let records = source(context, "in");
        counted(&records, "later", file);
        window_below(&counted(&records, "counts", file), file);
    };
    let running = start(&world, same, old).expect("started");
    feed(&world, &running, 0..3);
    until_counted(&world, &running, 3);
    kill(&mut world, running);
    for life in 0..3 {
        let running = start(&world, same, new).expect("started");
        feed(&world, &running, 3 + life..4 + life);
        let counted = usize::try_from(4 + life).expect("few");
        until_counted(&world, &running, counted);
        kill(&mut world, running);
    }
    assert!(start(&world, same, new).expect("started").stop(Trouble::None));
    assert_eq!((world.output("counts"), world.output("later")), (lines(1..7), lines(1..4)));
    // It is taken out again, and what it holds is asked for.
    let refused = start(&world, same, old).map(drop).expect_err("refused").to_string();
    assert!(refused.contains("  state `later`: 1 key, "), "{refused}");
    let say = |config: Config| config.retire("state:later");
    assert!(start(&world, say, old).expect("started").stop(Trouble::None));
}

#[test]
fn a_source_that_is_new_had_nothing_in_the_batches_of_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let build = |with_files: bool| {
        let files = FilesSource::new(directory.path()).named("files");
        move |context: &StreamingContext, file: &SharedSink| {
            let records = source(context, "in");
            let all = match with_files {
                true => records.union(&context.files(files).expect("a source")),
                false => records,
            };
            all.named("lines").save_to("save", vec![file.clone()]);
        }
    };
    let world = uncommitted(build(false));
    let running = start(&world, same, build(true)).expect("started");
    feed(&world, &running, 3..5);
    assert!(running.stop(Trouble::None));
    assert_eq!(world.output("lines"), lines(0..5));
}

#[test]
fn library_streams_without_names_are_found_by_their_places() {
    let build = |jobs: usize| {
        move |context: &StreamingContext, file: &SharedSink| {
            let records = context.receiver(idle()).expect("a source");
            (0..jobs).for_each(|_| records.save_to("save", vec![file.clone()]));
        }
    };
    let world = uncommitted(build(1));
    let refused = start(&world, same, build(2)).map(drop).expect_err("refused").to_string();
    assert!(
        refused.contains("job `save#1` is new, and the state directory knows `save#0`"),
        "{refused}"
    );
    assert!(start(&world, same, build(1)).expect("started").stop(Trouble::None));
    assert!(start(&world, same, build(2)).expect("nothing is held").stop(Trouble::None));
}

/// A job that writes to a directory of the file system.
fn to(
    directory: std::path::PathBuf,
    roll: Option<Roll>,
) -> impl FnOnce(&StreamingContext, &SharedSink) {
    move |context, _| {
        let storage = Arc::new(Directory::open(directory).expect("made")) as Arc<dyn Storage>;
        let file = File::open(storage, FileOptions { roll, ..FileOptions::default() });
        let file = SharedSink::new(file.expect("free")).named("files");
        source(context, "in").named("lines").save_to("save", vec![file]);
    }
}

/// The lines of the files that count in these directories.
fn lines_in(directories: &[std::path::PathBuf]) -> Vec<String> {
    let mut lines = Vec::new();
    for directory in directories {
        let storage = Directory::read_only(directory).expect("there");
        for name in storage.list().expect("listed") {
            if !name.starts_with('.') {
                let text = std::fs::read_to_string(directory.join(name)).expect("text");
                lines.extend(text.lines().map(str::to_owned));
            }
        }
    }
    lines.sort();
    lines
}

/// A crash at each call of the state's disk while a batch is planned and committed; then its sink writes elsewhere. What is
/// committed where it wrote before is not written again.
#[test]
fn a_sink_that_writes_elsewhere_repeats_nothing_after_any_crash() {
    let rolls = [None, Some(Roll { bytes: Some(1 << 20), age: None })];
    for (call, roll) in (1..16).flat_map(|call| rolls.map(|roll| (call, roll))) {
        let directory = tempfile::tempdir().expect("a directory");
        let both = ["one", "two"].map(|name| directory.path().join(name));
        let mut world = World::new(call);
        let running = start(&world, same, to(both[0].clone(), roll)).expect("started");
        world.state.fail(world.state.calls() + call, Fault::PowerCut);
        feed(&world, &running, 0..3);
        running.stop(Trouble::StateFull);
        world.power_back();
        // Its threads may still be there, and with them its lock; those of a process are not.
        let is_free = || Directory::open(&both[0]).is_ok_and(|one| one.lock().is_ok());
        until("nothing of it is left", is_free);
        let running = start(&world, same, to(both[1].clone(), roll)).expect("started");
        feed(&world, &running, 3..5);
        assert!(running.stop(Trouble::None));
        let found = lines_in(&both);
        // Before the log has them they are nobody's promise.
        let kept = found == lines(0..5) || found == lines(3..5);
        assert!(kept, "call {call}, {roll:?}: {found:?}");
    }
}
