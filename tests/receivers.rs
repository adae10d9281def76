//! Custom receivers through the public interface: stored records are processed once and in order, and everything that holds
//! a receiver releases it again: a full store, a rate, a back-off, the stop.

use std::time::Duration;

use tidemill::internals::sync::{Arc, AtomicBool, AtomicU64, Mailbox, Ordering, Signal};
use tidemill::testing::{Collected, ManualClock};
use tidemill::{
    Config, Error, Event, Interval, Receiver, ReceiverHandle, ReceiverSource, Report, Result,
    RunLimits, StreamingContext,
};

fn context(config: Config) -> StreamingContext {
    let ctx = StreamingContext::new(config.batch_interval(Interval::millis(10)).workers(2))
        .expect("good options");
    ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    ctx
}

fn all(collected: &Collected<Vec<u8>>) -> Vec<Vec<u8>> {
    collected.rows().into_iter().flat_map(|(_, rows)| rows).collect()
}

/// Runs a receiver to its end: the records of all batches, the report, and the outcome.
fn run(
    config: Config,
    source: ReceiverSource,
    watch: impl Fn(&Event) + Send + 'static,
) -> (Vec<Vec<u8>>, Report, Result<()>) {
    let ctx = context(config);
    let collected = ctx.receiver(source).expect("a source").collect();
    ctx.add_listener(move |event: &Event| watch(event));
    let (report, outcome) = ctx.start().expect("started").finish();
    (all(&collected), report, outcome)
}

#[test]
fn any_bytes_are_records_in_order() {
    let records: Vec<Vec<u8>> =
        vec![vec![], b"a\nb".to_vec(), vec![0xFF; 300_000], vec![0, 0, 0, 9], vec![]];
    let stored = records.clone();
    let receiver = move |handle: &ReceiverHandle| {
        handle.store(&stored[0])?;
        handle.store(&stored[1])?;
        handle.store_all(&stored[2..])
    };
    let source = ReceiverSource::new(receiver).named("mine");
    let (found, report, outcome) = run(Config::new("test"), source, |_| {});
    outcome.expect("an orderly end");
    assert_eq!(found, records);
    let source = &report.sources[0];
    assert_eq!((source.name.as_str(), source.io_model), ("mine", None));
    assert_eq!((source.counter("records"), source.counter("bytes")), (5, 300_007));
}

#[test]
fn a_record_over_the_limit_is_dropped_and_counted() {
    let receiver = |handle: &ReceiverHandle| handle.store_all([&b"abc"[..], b"abcd", b"d"]);
    let source = ReceiverSource::new(receiver).record_bytes_max(3);
    let (found, report, outcome) = run(Config::new("test"), source, |_| {});
    outcome.expect("an orderly end");
    assert_eq!(found, [&b"abc"[..], b"d"]);
    assert_eq!(report.sources[0].counter("overlong"), 1);
}

/// Three threads of one receiver store through clones of its handle, more than the store holds at a time.
#[test]
fn a_full_store_holds_the_receiver_and_nothing_is_lost() {
    const EACH: u64 = 30_000;
    let receiver = |handle: &ReceiverHandle| {
        std::thread::scope(|scope| {
            for thread in 0..3 {
                scope.spawn(move || {
                    for number in 0..EACH {
                        let mut record = [thread; 100];
                        record[..8].copy_from_slice(&number.to_be_bytes());
                        handle.store(&record).expect("not stopped");
                    }
                });
            }
        });
        Ok(())
    };
    let config = Config::new("test").store_bytes_max(1 << 20);
    let (found, report, outcome) = run(config, ReceiverSource::new(receiver), |_| {});
    outcome.expect("an orderly end");
    assert_eq!((found.len() as u64, report.records), (3 * EACH, 3 * EACH));
    let mut next = [0; 3];
    for record in &found {
        let (number, thread) = record.split_at(8);
        let number = u64::from_be_bytes(number.try_into().expect("eight bytes"));
        let next = &mut next[usize::from(thread[0])];
        assert_eq!(number, *next, "thread {}", thread[0]);
        *next += 1;
    }
}

#[test]
fn a_failed_receiver_is_started_again_and_reports_are_told() {
    let attempts = AtomicU64::new(0);
    let receiver = move |handle: &ReceiverHandle| match attempts.fetch_add(1, Ordering::SeqCst) {
        0 => Err(Error::Failed("not yet".to_owned())),
        _ => {
            handle.report_error("odd");
            handle.store(b"x")
        }
    };
    let told = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&told);
    let watch = move |event: &Event| match event {
        Event::Retrying { attempt: 1, why, .. } if why == "not yet" => {
            count.fetch_add(1, Ordering::SeqCst);
        }
        Event::ReceiverError { source, error }
            if (source.as_str(), error.as_str()) == ("source0", "odd") =>
        {
            count.fetch_add(10, Ordering::SeqCst);
        }
        _ => {}
    };
    let (found, report, outcome) = run(Config::new("test"), ReceiverSource::new(receiver), watch);
    outcome.expect("an orderly end");
    let counter = |name| report.sources[0].counter(name);
    assert_eq!((found.len(), counter("retries"), counter("errors")), (1, 1, 1));
    assert_eq!(told.load(Ordering::SeqCst), 11);
}

#[test]
fn a_failure_after_the_first_record_ends_a_run_to_the_end_of_file() {
    let receiver = |handle: &ReceiverHandle| {
        handle.store(b"x")?;
        Err(Error::Failed("gone".to_owned()))
    };
    let (found, _, outcome) = run(Config::new("test"), ReceiverSource::new(receiver), |_| {});
    assert_eq!(found, [b"x"], "what was stored is processed");
    assert_eq!(outcome.expect_err("the source broke off").to_string(), "gone");
}

#[test]
fn a_panic_stops_the_stream() {
    let receiver = |_: &ReceiverHandle| panic!("a bug");
    let (_, _, outcome) = run(Config::new("test"), ReceiverSource::new(receiver), |_| {});
    let text = outcome.expect_err("it stopped").to_string();
    assert!(text.contains("rx0-custom") && text.contains("a bug"), "{text}");
}

/// Receivers that wait for something when the stop comes, and report their wake-up.
fn check_stop(
    wait: impl Fn(&ReceiverHandle, &dyn Fn()) -> Result<()> + Send + 'static,
    limit: impl FnOnce(ReceiverSource) -> ReceiverSource,
) {
    let ctx = StreamingContext::with_clock(Config::new("test"), ManualClock::new()).expect("good");
    let (waiting, left) = (Signal::new(), Arc::new(AtomicBool::new(false)));
    let (told, out) = (waiting.clone(), Arc::clone(&left));
    let receiver = move |handle: &ReceiverHandle| {
        let outcome = wait(handle, &|| told.raise());
        assert!(handle.is_stopped());
        out.store(true, Ordering::SeqCst);
        outcome
    };
    let stream = ctx.receiver(limit(ReceiverSource::new(receiver))).expect("a source");
    stream.count().collect();
    for _ in 0..2 {
        let running = ctx.start().expect("started, and again");
        waiting.wait();
        running.stop().expect("nothing is left");
        assert!(left.swap(false, Ordering::SeqCst));
    }
}

#[test]
fn the_stop_ends_every_wait() {
    let forever = Duration::from_secs(1_000_000);
    let same = |source| source;
    check_stop(
        move |handle, waiting| {
            waiting();
            assert!(!handle.wait(forever));
            Ok(())
        },
        same,
    );
    check_stop(
        |handle, waiting| {
            let woken = Signal::new();
            let wake = woken.clone();
            handle.on_stop(move || wake.raise());
            waiting();
            woken.wait();
            Ok(())
        },
        same,
    );
    // Held by its rate: the manual clock brings no token.
    check_stop(
        |handle, waiting| {
            handle.store(b"one")?;
            waiting();
            handle.store(b"two")
        },
        |source| source.rate_max(1),
    );
    // Held by a back-off.
    check_stop(
        move |handle, waiting| {
            waiting();
            handle.wait(forever);
            Err(Error::Failed("an error at the stop is of no interest".to_owned()))
        },
        same,
    );
}

#[test]
fn a_batch_holds_what_was_stored_before_its_tick() {
    let clock = ManualClock::new();
    let ctx = StreamingContext::with_clock(Config::new("test"), clock).expect("good");
    let (orders, stored) = (Mailbox::new(10), Mailbox::new(10));
    let (from, to) = (orders.clone(), stored.clone());
    let receiver = move |handle: &ReceiverHandle| {
        while let Some(records) = from.recv() {
            handle.store_all(vec![b"x"; records])?;
            to.send(()).expect("the test listens");
        }
        Ok(())
    };
    let counts = ctx.receiver_stream("mine", receiver).expect("a source").count().collect();
    ctx.run_batches(1).expect("a batch");
    for records in [3, 0, 2] {
        orders.send(records).expect("it listens");
        stored.recv().expect("it stores");
        ctx.run_batches(1).expect("a batch");
    }
    orders.close();
    let counts: Vec<u64> = counts.rows().into_iter().map(|(_, rows)| rows[0]).collect();
    assert_eq!(counts, [0, 3, 0, 2]);
}

/// A struct as receiver: the trait can be implemented from outside.
struct Twice(&'static [u8]);

impl Receiver for Twice {
    fn receive(&mut self, handle: &ReceiverHandle) -> Result<()> {
        handle.store_all([self.0, self.0])
    }
}

#[test]
fn a_type_of_ones_own_is_a_receiver() {
    let (found, ..) = run(Config::new("test"), ReceiverSource::new(Twice(b"a")), |_| {});
    assert_eq!(found, [b"a", b"a"]);
}
