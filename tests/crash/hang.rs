//! Disks that hang: a call does not return, and the stop ends all the same, names the stuck thread, and leaves it alone.

use std::time::Duration;

use tidemill::internals::storage::{MemoryStorage, Storage};
use tidemill::internals::sync::Arc;
use tidemill::internals::{keep_state_in, offer};
use tidemill::metrics::{Condition, ConditionKind};
use tidemill::sink::{File, FileOptions, Roll};
use tidemill::{Config, StreamingContext};

use super::alive::Alive;
use super::{Acknowledged, PERIOD, Trouble, World, idle, range, until};

/// Calls that hang, and the words of the stop.
struct Hang {
    what: &'static str,
    /// The disk of the output hangs, not that of the state.
    output: bool,
    /// Calls hang on files with this in their names.
    part: &'static str,
    stuck: &'static str,
    roll: Option<Roll>,
    /// The stop is the first to meet it.
    at_the_stop: bool,
}

/// Feeds a stream, lets calls hang, continues until one does, and stops.
fn check(hang: &Hang) {
    let mut world = World::new(1);
    world.roll = hang.roll;
    let running = world.start(1).expect("started");
    let disk = if hang.output { &world.output } else { &world.state };
    let acknowledged = Arc::new(Acknowledged::default());
    let feed = |number: u64| {
        let range = range("c0", number..number + 1, &acknowledged);
        offer(&running, 0, range).expect("room");
    };
    feed(0);
    until("it is durable", || *acknowledged.0.lock() == 1);
    world.clock.advance(PERIOD.as_duration());
    until("it is done", || running.inspector().progress().records == 1);
    disk.hang(hang.part);
    if !hang.at_the_stop {
        feed(1);
    }
    until(hang.what, || {
        world.clock.advance(PERIOD.as_duration());
        hang.at_the_stop || disk.hung() > 0
    });
    let (report, outcome) = running.finish();
    let said = format!("{:?}, {outcome:?}", report.left);
    assert!(outcome.is_err() && said.contains(hang.stuck), "{}: {said}", hang.what);
    disk.release();
}

#[test]
fn a_stop_ends_although_a_disk_hangs() {
    let log = Hang {
        what: "the log",
        output: false,
        part: "wal-",
        stuck: "the log was not synced at the deadline",
        roll: None,
        at_the_stop: false,
    };
    let roll = Some(Roll { bytes: None, age: Some(std::time::Duration::from_secs(3_600)) });
    check(&log);
    check(&Hang { what: "everything in the state", part: "", ..log });
    let checkpoint = "the checkpoint was not written at the deadline";
    check(&Hang { what: "a checkpoint", part: "checkpoint", stuck: checkpoint, ..log });
    let sink = Hang { what: "a sink", output: true, part: "", stuck: "`worker-0` is stuck", ..log };
    check(&sink);
    check(&Hang { what: "a rolled file", roll, ..sink });
    let closing = Hang { at_the_stop: true, stuck: "`sink-output` did not stop", ..sink };
    check(&Hang { what: "the naming of a rolled file", part: "lines", roll, ..closing });
}

/// A sync that does not return is a condition, and so a reason why the stream is not ready, until it does.
#[test]
fn a_sync_that_hangs_is_said_while_it_does() {
    let world = World::new(1);
    let running = world.start(1).expect("started");
    let acknowledged = Arc::new(Acknowledged::default());
    let feed = |number: u64| {
        let range = range("c0", number..number + 1, &acknowledged);
        offer(&running, 0, range).expect("room");
    };
    let inspector = running.inspector();
    feed(0);
    until("it is durable", || *acknowledged.0.lock() == 1);
    world.state.hang("wal-");
    feed(1);
    until("it hangs", || world.state.hung() > 0);
    assert_eq!(inspector.conditions(), [], "nobody knows yet");
    world.clock.advance(Duration::from_secs(10));
    until("it is said", || !inspector.conditions().is_empty());
    let text = "log `memory`: a write or sync has not returned for 10 s, and nothing becomes durable meanwhile; its disk \
        must answer";
    let said: Vec<String> = inspector.conditions().iter().map(Condition::text).collect();
    assert_eq!(said, [text]);
    assert!(inspector.unready().iter().any(|why| why == text), "{:?}", inspector.unready());
    world.state.release();
    until("it is durable", || *acknowledged.0.lock() == 2);
    until("it is over", || {
        world.clock.advance(PERIOD.as_duration());
        inspector.conditions().is_empty()
    });
    let begun = inspector.conditions_begun();
    assert_eq!(begun[ConditionKind::LogHangs as usize], (ConditionKind::LogHangs, 1));
    assert!(running.stop(Trouble::None), "in order");
}

/// So is a sink whose disk does not answer.
#[test]
fn a_sink_that_hangs_is_said_while_it_does() {
    let world = World::new(1);
    let running = world.start(1).expect("started");
    let inspector = running.inspector();
    let acknowledged = Arc::new(Acknowledged::default());
    offer(&running, 0, range("c0", 0..1, &acknowledged)).expect("room");
    until("it is durable", || *acknowledged.0.lock() == 1);
    world.output.hang("");
    world.clock.advance(PERIOD.as_duration());
    until("it hangs", || world.output.hung() > 0);
    world.clock.advance(Duration::from_secs(10));
    let said = || inspector.conditions().iter().map(Condition::text).collect::<Vec<_>>();
    until("it is said", || {
        said().iter().any(|text| text.starts_with("sink `lines`: has not taken "))
    });
    assert!(
        said().iter().any(|text| text.ends_with(" for 10 s; its disk must answer")),
        "{:?}",
        said()
    );
    world.output.release();
    until("it is over", || {
        world.clock.advance(PERIOD.as_duration());
        inspector.conditions().iter().all(|it| it.kind != ConditionKind::SinkHangs)
    });
    assert!(running.stop(Trouble::None), "in order");
}

/// More than waits for the log: those that append wait too, the push thread and the job loop.
#[test]
fn a_stop_ends_although_those_that_append_to_the_log_are_held() {
    let world = World::new(1);
    let config = Config::new("held").batch_interval(PERIOD).workers(1);
    let context = StreamingContext::with_clock(config, world.clock.clone()).expect("good");
    keep_state_in(&context, Arc::new(world.state.clone()), 8 << 20);
    let lines = context.receiver(idle().record_bytes_max(1 << 20)).expect("one source");
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(2));
    let file = File::open(storage, FileOptions::default()).expect("free");
    lines.named("lines").save(file);
    let running = Alive::new(context.start().expect("started"), &world.clock);
    world.state.hang("");
    let acknowledged = Arc::new(Acknowledged::default());
    let text = "x".repeat(1 << 20);
    // 16 MiB wait for the log at most, and 32 MiB in the queue.
    let mut number = 0;
    until("everything is full", || {
        let take = |number| offer(&running, 0, range(&text, number..number + 1, &acknowledged));
        while number < 64 && take(number).is_ok() {
            number += 1;
        }
        world.clock.advance(PERIOD.as_duration());
        world.state.hung() > 0 && number > 40
    });
    let (report, outcome) = running.finish();
    let said = format!("{:?}, {outcome:?}", report.left);
    assert!(said.contains("`rx0-push` did not stop"), "{said}");
    world.state.release();
}
