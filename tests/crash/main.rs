//! The whole engine on disks that lose power, fill up and fail, over several lives: every acknowledged record is in the output,
//! none is there twice, and each connection's records are in order (R2, R4, R5 and R6 of the scorecard).
//!
//! Time is a manual clock that the feeding moves; the threads are real, so a seed decides the faults and the steps but not
//! every interleaving. Defects are planted in a process of their own, for all its threads.

#![cfg(not(tidemill_model))]

mod alive;
mod answers;
mod backlog;
mod damage;
mod hang;
mod names;
mod orders;
#[path = "../../src/wal/tests/seeds.rs"]
mod seeds;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use tidemill::internals::blocks::{Acknowledge, Range, Receipt};
use tidemill::internals::storage::{Fault, MemoryStorage, Storage};
use tidemill::internals::sync::{Arc, Mutex};
use tidemill::internals::{Looked, keep_state_in, look, offer};
use tidemill::sink::{Existing, File, FileOptions, Roll, SharedSink};
use tidemill::stream::StateSpec;
use tidemill::testing::ManualClock;
use tidemill::{
    Config, DStream, Interval, ReceiverHandle, ReceiverSource, Result, RunLimits, StreamingContext,
    Time,
};

use alive::Alive;
use seeds::seeds;

/// Small segments, so that a life fills several.
const SEGMENT_BYTES: u64 = 2 << 10;

const PERIOD: Interval = Interval::millis(100);

/// The number of the first record that was not acknowledged.
#[derive(Debug, Default)]
struct Acknowledged(Mutex<u64>);

impl Acknowledge for Acknowledged {
    fn acknowledge(&self, upto: u64) {
        let mut known = self.0.lock();
        *known = (*known).max(upto);
    }
}

/// The facts about a connection after its life.
#[derive(Clone)]
struct Connection {
    name: String,
    offered: u64,
    acknowledged: u64,
}

/// The disks of the state and of the output, and the connections so far.
#[derive(Clone)]
struct World {
    state: MemoryStorage,
    output: MemoryStorage,
    clock: ManualClock,
    connections: Vec<Connection>,
    roll: Option<Roll>,
    /// The program has states and windows.
    keeps: bool,
    /// The number of times that everything in the program got another name.
    renamed: u64,
    /// The refusal of the last life; none if it began.
    refusal: Option<String>,
    /// The output is written beside existing files.
    appends: bool,
    random: u64,
}

/// The trouble of a life.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// The disk of the state fails this many calls from now.
    State(u64, Fault),
    /// The disk of the output does.
    Output(u64, Fault),
    /// The disk of the state is full for the middle of the life.
    StateFull,
}

impl World {
    fn new(seed: u64) -> World {
        let clock = ManualClock::new();
        clock.jump_wall_to(Time::from_millis(1_000_000));
        let roll = seed.is_multiple_of(3).then_some(Roll { bytes: Some(400), age: None });
        let (state, output) = (MemoryStorage::new(seed), MemoryStorage::new(seed ^ 1));
        World {
            state,
            output,
            clock,
            connections: Vec::new(),
            roll,
            keeps: false,
            renamed: 0,
            refusal: None,
            appends: false,
            random: seed | 1,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    /// Both disks as the next life finds them.
    fn power_back(&mut self) {
        let seed = self.below(u64::MAX);
        self.state = self.state.after_power_cut(seed);
        self.output = self.output.after_power_cut(seed ^ 3);
    }

    fn start(&self, workers: usize) -> Result<Alive> {
        Ok(Alive::new(self.build(workers)?.start()?, &self.clock))
    }

    fn build(&self, workers: usize) -> Result<StreamingContext> {
        let config = Config::new("crash").batch_interval(PERIOD).workers(workers);
        let context = StreamingContext::with_clock(self.renaming(config), self.clock.clone())?;
        keep_state_in(&context, Arc::new(self.state.clone()), SEGMENT_BYTES);
        let lines = context.receiver(idle().named(self.named("in")))?;
        let storage: Arc<dyn Storage> = Arc::new(self.output.clone());
        let existing = if self.appends { Existing::Append } else { Existing::Refuse };
        let file = File::open(
            storage,
            FileOptions { existing, roll: self.roll, ..FileOptions::default() },
        )?;
        let file = SharedSink::new(file);
        lines.named(&self.named("lines")).save_to("save", vec![file.clone()]);
        if self.keeps {
            keep(&lines, &file, |name| self.named(name));
        }
        context.limits(RunLimits::default());
        Ok(context)
    }

    /// A look at the state, as a start of the program that wrote it does.
    fn look(&self) -> Result<Looked> {
        let storage: Arc<dyn Storage> = Arc::new(self.state.clone());
        look(&storage, None)
    }

    /// One life: feeds a connection of its own, and stops or dies. True if it stopped in order.
    fn live(&mut self, trouble: Trouble) -> bool {
        match trouble {
            Trouble::State(calls, fault) => self.state.fail(self.state.calls() + calls, fault),
            Trouble::Output(calls, fault) => self.output.fail(self.output.calls() + calls, fault),
            Trouble::None | Trouble::StateFull => {}
        }
        let workers = usize::try_from(1 + self.below(3)).expect("three at most");
        let started = self.start(workers);
        self.refusal = started.as_ref().err().map(ToString::to_string);
        let Ok(running) = started else { return false };
        let steps = 5 + self.below(40);
        let acknowledged = Arc::new(Acknowledged::default());
        let name = format!("c{}", self.connections.len());
        let mut offered = 0;
        for step in 0..steps {
            if matches!(trouble, Trouble::StateFull) {
                self.state.set_full((steps / 4..steps / 2).contains(&step));
            }
            let records = self.below(4);
            if records > 0 {
                let range = range(&name, offered..offered + records, &acknowledged);
                // A full queue, under a full disk: these were not taken.
                if offer(&running, 0, range).is_ok() {
                    offered += records;
                }
            }
            let pause = [0, 0, 30, 100, 250][usize::try_from(self.below(5)).expect("small")];
            self.clock.advance(Duration::from_millis(pause));
            std::thread::yield_now();
        }
        self.state.set_full(false);
        let in_order = running.stop(trouble);
        // Before the disks are looked at: threads that the stop's deadline has abandoned may still run.
        let acknowledged = *acknowledged.0.lock();
        self.connections.push(Connection { name, offered, acknowledged });
        in_order
    }

    /// The contents of the files of a job, in the order of their batches, with the time of the first batch in each.
    fn files(&self, job: &str) -> Vec<(u64, String)> {
        let names = self.output.list().expect("listed");
        let time = |name: &String| {
            let mut parts = name.split('-');
            let of = parts.next()?.split('_').next();
            (of == Some(job)).then(|| parts.next()?.parse::<u64>().ok()).flatten()
        };
        let text = |name: &String| {
            String::from_utf8(self.output.bytes(name).expect("there")).expect("UTF-8")
        };
        let mut files: Vec<(u64, String)> =
            names.iter().filter_map(|name| Some((time(name)?, text(name)))).collect();
        files.sort();
        files
    }

    /// The rows of a job.
    fn output(&self, job: &str) -> Vec<String> {
        let rows = self.files(job).into_iter().map(|(_, text)| text).collect::<String>();
        rows.lines().map(str::to_owned).collect()
    }

    /// The problems of the output; none if all is well.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let output = self.output("lines");
        let mut seen = HashSet::new();
        problems.extend(
            output
                .iter()
                .filter(|line| !seen.insert(*line))
                .map(|line| format!("{line} is there twice")),
        );
        for Connection { name, offered, acknowledged } in &self.connections {
            let own = output.iter().filter_map(|line| {
                let (of, number) = line.split_once(' ')?;
                (of == name).then(|| number.parse::<u64>().expect("a number"))
            });
            let own: Vec<u64> = own.collect();
            if !own.is_sorted() {
                problems.push(format!("{name} is out of order: {own:?}"));
            }
            if let Some(beyond) = own.iter().find(|number| **number >= *offered) {
                problems.push(format!("{name} {beyond} was never offered"));
            }
            let missing = (0..*acknowledged).filter(|number| !own.contains(number));
            problems.extend(
                missing.map(|number| format!("{name} {number} was acknowledged and is lost")),
            );
        }
        problems
    }
}

/// The length of the windows.
const LENGTH: Interval = Interval::millis(300);

/// Jobs that keep something from batch to batch: a count at each record, the totals after each batch, and windows.
fn keep(lines: &DStream<[u8]>, file: &SharedSink, named: impl Fn(&str) -> String) {
    let names = lines.map(|record| {
        let text = String::from_utf8_lossy(record);
        (text.split(' ').next().unwrap_or_default().to_owned(), 1_u64)
    });
    let counts = names.map_with_state(StateSpec::new(), |_, name, one, state| {
        let count = state.get().unwrap_or(&0) + one?;
        state.update(count);
        Some(format!("{name} {count}"))
    });
    counts.named(&named("counts")).save_to("save", vec![file.clone()]);
    let totals = names
        .update_state_by_key(|_, ones, total| Some(total.unwrap_or(&0) + ones.iter().sum::<u64>()));
    totals.named(&named("totals")).save_to("save", vec![file.clone()]);
    let window = names.reduce_by_key_and_window(LENGTH, PERIOD, |a, b| a + b);
    window.named(&named("window")).save_to("save", vec![file.clone()]);
    // A window of what a state shows: each record counts once, whatever was restored.
    let shown = counts.map(|row| (row.split(' ').next().unwrap_or_default().to_owned(), 1_u64));
    let below = shown.reduce_by_key_and_window(LENGTH, PERIOD, |a, b| a + b);
    below.named(&named("below")).save_to("save", vec![file.clone()]);
}

impl World {
    /// The problems of the output of the jobs of `keep`: it must be what one life without trouble makes of the same batches,
    /// computed from the records in the files of the batches.
    fn problems_of_what_is_kept(&self) -> Vec<String> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut expected = Vec::new();
        let name_of = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        for line in self.output("lines") {
            let count = counts.entry(name_of(&line)).or_default();
            *count += 1;
            expected.push(format!("{} {count}", name_of(&line)));
        }
        let mut problems = Vec::new();
        let mut found = self.output("counts");
        // Within a batch the records of a key are together.
        found.sort();
        expected.sort();
        if found != expected {
            problems.push(format!("counts {found:?}, expected {expected:?}"));
        }
        let tally = |from: u64, to: u64| {
            let mut rows: BTreeMap<String, u64> = BTreeMap::new();
            for (time, text) in self.files("lines") {
                if from < time && time <= to {
                    text.lines().for_each(|line| *rows.entry(name_of(line)).or_default() += 1);
                }
            }
            rows.iter().map(|(name, count)| format!("({name},{count})")).collect::<Vec<_>>()
        };
        let sorted = |text: Option<&(u64, String)>| {
            let mut rows: Vec<String> =
                text.into_iter().flat_map(|(_, text)| text.lines().map(str::to_owned)).collect();
            rows.sort();
            rows
        };
        if self.roll.is_some() {
            return problems;
        }
        let (windows, below) = (self.files("window"), self.files("below"));
        for totals in self.files("totals") {
            let time = totals.0;
            let mut check = |what: &str, found: Option<&(u64, String)>, from: u64| {
                let (found, mut expected) = (sorted(found), tally(from, time));
                expected.sort();
                if found != expected {
                    problems.push(format!("{what} at {time}: {found:?}, expected {expected:?}"));
                }
            };
            check("totals", Some(&totals), 0);
            let from = time.saturating_sub(LENGTH.as_millis());
            check("window", windows.iter().find(|(at, _)| *at == time), from);
            check("below", below.iter().find(|(at, _)| *at == time), from);
        }
        problems
    }
}

#[test]
fn states_and_windows_are_after_any_power_cut_what_they_are_without() {
    for seed in seeds(30) {
        let mut world = World::new(seed);
        world.keeps = true;
        for life in 0..4 {
            let trouble = match world.below(4) {
                0 => Trouble::Output(world.below(200), Fault::PowerCut),
                1 => Trouble::None,
                _ => Trouble::State(world.below(300), Fault::PowerCut),
            };
            world.live(trouble);
            if life < 3 {
                world.power_back();
            }
        }
        world.power_back();
        assert!(world.live(Trouble::None), "seed {seed}: the last life stops in order");
        let problems: Vec<String> =
            world.problems().into_iter().chain(world.problems_of_what_is_kept()).collect();
        assert!(problems.is_empty(), "TIDEMILL_SEED={seed}: {problems:#?}");
    }
}

/// Records with the framing `u32`, and a receipt for them.
fn range(name: &str, numbers: std::ops::Range<u64>, to: &Arc<Acknowledged>) -> Range {
    let mut bytes = Vec::new();
    for number in numbers.clone() {
        let text = format!("{name} {number}");
        bytes.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    let receipt = Receipt { to: Arc::clone(to) as Arc<dyn Acknowledge>, upto: numbers.end };
    let records = numbers.end - numbers.start;
    Range { receipts: vec![receipt], ..Range::new(Bytes::from(bytes), records) }
}

/// A source whose own receiver brings nothing: the test does.
fn idle() -> ReceiverSource {
    let wait = |handle: &ReceiverHandle| {
        while handle.wait(Duration::from_secs(3_600)) {}
        Ok(())
    };
    ReceiverSource::new(wait).named("in").record_bytes_max(200)
}

/// Waits until `is_so`, which the engine's threads bring about.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..100_000_000 {
        if is_so() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("never: {what}");
}

/// Three lives with trouble, then one in peace.
fn check(seed: u64, trouble: impl Fn(&mut World) -> Trouble) {
    let (mut world, mut story) = (World::new(seed), Vec::new());
    for _ in 0..3 {
        let trouble = trouble(&mut world);
        world.live(trouble);
        world.power_back();
        story.push(format!(
            "{trouble:?}:\n{}{:?}",
            world.look().map_or(String::new(), |look| look.words),
            world.output.list()
        ));
    }
    assert!(world.live(Trouble::None), "seed {seed}: the last life stops in order");
    let problems = world.problems();
    let story = story.join("\n");
    assert!(problems.is_empty(), "seed {seed}: {problems:?}\n{story}");
}

#[test]
fn power_cuts_lose_nothing_acknowledged_and_repeat_nothing() {
    for seed in seeds(40) {
        check(seed, |world| match world.below(3) {
            0 => Trouble::Output(world.below(60), Fault::PowerCut),
            _ => Trouble::State(world.below(160), Fault::PowerCut),
        });
    }
}

#[test]
fn a_full_disk_pauses_and_loses_nothing() {
    for seed in seeds(25) {
        check(seed, |world| match world.below(3) {
            0 => Trouble::Output(world.below(60), Fault::Full),
            1 => Trouble::State(world.below(160), Fault::Full),
            _ => Trouble::StateFull,
        });
    }
}

#[test]
fn a_failed_sync_stops_the_engine_and_the_next_life_goes_on() {
    for seed in seeds(25) {
        check(seed, |world| match world.below(2) {
            0 => Trouble::Output(world.below(60), Fault::Broken),
            _ => Trouble::State(world.below(160), Fault::Broken),
        });
    }
}

/// A crash at every call of the output's disk while one batch is committed.
#[test]
fn a_crash_at_each_step_of_a_commit_repeats_nothing() {
    for call in 1..30 {
        check(call, |_| Trouble::Output(call, Fault::PowerCut));
    }
}

#[test]
fn a_second_engine_is_kept_out() {
    let world = World::new(1);
    let running = world.start(1).expect("free");
    let err = world.start(1).expect_err("in use").to_string();
    assert!(err.contains("in use"), "{err}");
    assert!(running.stop(Trouble::None));
    let again = world.start(1).expect("free again");
    assert!(again.stop(Trouble::None));
}

/// Writes the number of partitions of a keyed operator in each batch, with another number of workers in each life; the first
/// life dies when its first batch is about to be written.
#[test]
fn a_replay_has_the_partitions_of_its_plan() {
    let mut world = World::new(2);
    let start = |world: &World, workers: usize| {
        let config = Config::new("replay").batch_interval(PERIOD).workers(workers);
        let context = StreamingContext::with_clock(config, world.clock.clone()).expect("good");
        keep_state_in(&context, Arc::new(world.state.clone()), SEGMENT_BYTES);
        let records = context.receiver(idle()).expect("one source");
        let keys = records.map(|record| String::from_utf8_lossy(record).into_owned());
        let partitions = keys.count_by_value().map_partitions(|_, out| out.emit(1_u64));
        let storage: Arc<dyn Storage> = Arc::new(world.output.clone());
        let file = File::open(storage, FileOptions::default());
        partitions.named("partitions").save(file.expect("free"));
        Alive::new(context.start().expect("started"), &world.clock)
    };
    let feed = |world: &World, running: &Alive, numbers| {
        let offered = offer(running, 0, range("c0", numbers, &Arc::default()));
        assert!(offered.is_ok());
        world.clock.advance(PERIOD.as_duration());
    };
    let running = start(&world, 5);
    let calls = world.output.calls();
    world.output.fail(calls + 1, Fault::PowerCut);
    feed(&world, &running, 0..9);
    until("it is to be written", || world.output.calls() > calls);
    assert!(!running.stop(Trouble::StateFull), "its output's disk is gone");
    world.power_back();
    let running = start(&world, 2);
    feed(&world, &running, 9..12);
    assert!(running.stop(Trouble::None));
    let lines = |name: &String| world.output.bytes(name).map_or(0, |bytes| bytes.len() / 2);
    let names = world.output.list().expect("listed");
    let counts: Vec<usize> =
        names.iter().filter(|name| !name.starts_with('.')).map(lines).collect();
    assert_eq!(counts.first(), Some(&5), "{counts:?}");
    assert!(counts[1..].iter().all(|count| *count == 2), "{counts:?}");
}

/// The tests above, each in a process with a defect that it must find.
#[cfg(tidemill_planted)]
#[test]
fn planted_defects_are_found() {
    let cases = [
        ("AcknowledgesBeforeLog", "power_cuts_lose_nothing_acknowledged_and_repeat_nothing"),
        ("RunsBeforePlan", "power_cuts_lose_nothing_acknowledged_and_repeat_nothing"),
        ("ForgetsUnplanned", "power_cuts_lose_nothing_acknowledged_and_repeat_nothing"),
        ("CoversTooMuch", "power_cuts_lose_nothing_acknowledged_and_repeat_nothing"),
        ("RefusedIsDurable", "answers::what_the_log_refused_is_not_acknowledged"),
        ("ReplayTakesWorkers", "a_replay_has_the_partitions_of_its_plan"),
        ("CommitByLabel", "orders::no_order_of_steps_loses_what_was_acknowledged"),
        (
            "ReplayTakesNewNames",
            "names::everything_is_renamed_through_power_cuts_and_nothing_is_there_twice",
        ),
    ];
    // A seed fixes the faults and not how threads interleave, so a defect may take several runs to show.
    for (defect, test) in cases {
        assert!((0..20).any(|_| fails_with(defect, test)), "{test} does not find {defect}");
    }
}

/// The longest time of a test; after that it waits for something that never comes.
#[cfg(tidemill_planted)]
const LIFE_MAX: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 20, tv_nsec: 0 };

/// Returns true if a test of this program fails, in a process of its own, with a defect. One that waits for ever counts as
/// failed.
#[cfg(tidemill_planted)]
fn fails_with(defect: &str, test: &str) -> bool {
    use std::io::{Read, Seek};
    use std::process::{Command, Stdio};

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    let mut said = tempfile::tempfile().expect("a file");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test])
        .env("TIDEMILL_PLANTED", defect)
        .stdout(Stdio::from(said.try_clone().expect("a descriptor")))
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let end = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("it can be watched");
    poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&LIFE_MAX)).expect("watched");
    // It has ended, or waits for ever; killed, it counts as failed.
    let _ = child.kill();
    let status = child.wait().expect("it has ended");
    let mut text = String::new();
    said.rewind().expect("a file");
    said.read_to_string(&mut text).expect("text");
    assert!(text.contains("running 1 test"), "{text}");
    !status.success()
}
