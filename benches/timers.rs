//! The lateness of the job loop at its ticks with each `batch_timer`, and the cost of an empty batch, beside a bare timer: a
//! loop on a thread of its own that waits on the same clock for the same moments. The main thread measures.
//!
//! ```text
//! timers-late/SIDE         from the moment a tick was due until it was taken
//! timers-batch/SIDE        from the moment a batch was due to its end; the bare timer has none
//! timers-processor/SIDE    processor time of the process for each tick
//! ```
//! A group compares the sides in one plot below `target/criterion`; a sample is the median of a short run. A table of longer
//! runs follows, with percentiles and the longest.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, SamplingMode};
use rustix::time::{ClockId, clock_gettime};

use tidemill::config::{BatchTimer, CatchUp};
use tidemill::internals::sync::Signal;
use tidemill::internals::time::{Schedule, Ticks, tighten_timer_slack};
use tidemill::metrics::{Latency, Times};
use tidemill::time::{Clock, SystemClock};
use tidemill::{Config, Event, Interval, RunLimits, StreamingContext};

const PERIOD: Interval = Interval::millis(5);

/// Ticks of a run that is a sample of criterion.
const SAMPLE_TICKS: u32 = 20;

/// Time that criterion believes it has, in the times that it is given: a run takes a thousand times as long as its
/// lateness, so nothing here may be repeated for long.
const SAMPLES_LAST: Duration = Duration::from_micros(500);

/// The figures of one run.
struct Found {
    late: Times,
    /// From the moment a batch was due to its end; nothing for the bare timer.
    batch: Option<Times>,
    /// Processor time of the process for each tick.
    processor: Duration,
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("not negative")
}

/// The same ticks, taken by a loop that does nothing else.
fn bare(ticks: u32) -> Found {
    tighten_timer_slack();
    let (clock, signal, late) = (SystemClock::new(), Signal::new(), Latency::default());
    let (mut due, recorder) =
        (Ticks::new(Schedule::aligned(clock.as_ref(), PERIOD)), late.recorder());
    let began = processor_time();
    let mut taken = 0;
    while taken < ticks {
        let (at, now) = (due.due(), clock.now());
        match due.take(now) {
            Some(label) => {
                black_box(label);
                recorder.record(now.since(at));
                taken += 1;
            }
            None => {
                clock.wait(&signal, Some(at));
            }
        }
    }
    let processor = (processor_time() - began) / ticks;
    Found { late: late.merged(), batch: None, processor }
}

/// A stream whose batches are all empty, one for each tick.
fn stream(timer: BatchTimer, ticks: u32) -> Found {
    let config = Config::new("timers").batch_interval(PERIOD).batch_timer(timer).workers(1);
    let config = config.catch_up(CatchUp::Replay);
    let ctx = StreamingContext::new(config).expect("good options");
    ctx.queue_stream::<u64>(Vec::new(), 1).foreach_batch(|_, _| Ok(()));
    ctx.limits(RunLimits { batches: Some(u64::from(ticks)), ..RunLimits::default() });
    let took = Arc::new(Latency::default());
    let recorder = took.recorder();
    ctx.add_listener(move |event: &Event| {
        if let Event::BatchCompleted { scheduling_delay, processing, .. } = event {
            recorder.record(*scheduling_delay + *processing);
        }
    });
    let began = processor_time();
    let running = ctx.start().expect("started");
    let inspector = running.inspector();
    running.await_termination().expect("in order");
    let processor = (processor_time() - began) / ticks;
    let (late, batch) = (inspector.times().job_ticks.merged(), took.merged());
    assert_eq!(batch.count(), u64::from(ticks), "a batch for each tick");
    assert!(late.count() >= u64::from(ticks), "a lateness for each tick");
    Found { late, batch: Some(batch), processor }
}

#[expect(clippy::print_stdout, reason = "a bench prints its figures")]
fn show(name: &str, found: &Found) {
    let micros = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6);
    let three = |times: &Times| {
        [times.quantile(0.5), times.quantile(0.99), times.longest()].map(micros).join(" / ")
    };
    let batch = found.batch.as_ref().map_or_else(|| "-".to_owned(), three);
    let (late, processor) = (three(&found.late), micros(found.processor));
    println!("{name:8}{late:>26}{batch:>28}{processor:>12}");
}

/// A side: its name, and a run of this many ticks.
type Side = (&'static str, fn(u32) -> Found);

const SIDES: [Side; 3] = [
    ("bare", bare),
    ("thread", |ticks| stream(BatchTimer::Thread, ticks)),
    ("loop", |ticks| stream(BatchTimer::Loop, ticks)),
];

/// A figure of a run; nothing where a side does not have it.
type Figure = fn(&Found) -> Option<Duration>;

const FIGURES: [(&str, Figure); 3] = [
    ("timers-late", |found| Some(found.late.quantile(0.5))),
    ("timers-batch", |found| found.batch.as_ref().map(|batch| batch.quantile(0.5))),
    ("timers-processor", |found| Some(found.processor)),
];

fn groups(criterion: &mut Criterion) {
    for (name, figure) in FIGURES {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_nanos(1)).measurement_time(SAMPLES_LAST);
        // Only the bare timer has no batches.
        for (side, run) in
            SIDES.iter().filter(|(side, _)| name != "timers-batch" || *side != "bare")
        {
            let of_run = || figure(&run(SAMPLE_TICKS)).expect("the side has this figure");
            group.bench_function(*side, |bencher| {
                bencher.iter_custom(|times| (0..times).map(|_| of_run()).sum());
            });
        }
        group.finish();
    }
}

#[expect(clippy::print_stdout, reason = "a bench prints its figures")]
fn main() {
    // `cargo test --benches` does not say this.
    let is_bench = std::env::args().any(|word| word == "--bench");
    let (rounds, ticks) = if is_bench { (3, 2_000) } else { (1, 20) };
    let mut criterion = Criterion::default().configure_from_args();
    groups(&mut criterion);
    criterion.final_summary();
    println!("us, p50 / p99 / max      late            due to end of batch     CPU a tick");
    for _ in 0..rounds {
        for (side, run) in SIDES {
            show(side, &run(ticks));
        }
    }
}
