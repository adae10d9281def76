//! The receiver of a latency run, in a process of its own: the engine as users run it, and its own figures.
//!
//! A line's latency goes from its stamp, the time at which it should have been sent, to the moment at which the result of
//! its batch was handed over. Beside it: the stages of every batch from the engine's own histograms, batches that took
//! long with the stage that took it, ticks without a batch, and the [`Control`]. Main thread of the child; notes are
//! taken on the workers and on the thread `events`.

use std::io::Write;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::control::Control;
use crate::config::Config;
use crate::context::{Inspector, RunLimits, SocketSource, StreamHandle, StreamingContext};
use crate::error::Result;
use crate::lab::protocol::{self, LATENCY_MAX, Slow, Spread, Timed, Timing, Work};
use crate::lab::sample::{Sample, own_cpu};
use crate::metrics::{Event, STAGES, Times};
use crate::stream::{DStream, stamp};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Interval, SystemClock, Time};

/// Batches whose stages are kept to find the slow ones; later ones are only counted.
const BATCHES_MAX: usize = 100_000;

/// A batch that takes this much longer than the median one is an outlier.
const OUTLIER: Duration = Duration::from_millis(1);

/// A wake-up of the control that is this late, while an outlier ran, says that the machine stood still.
const MACHINE: Duration = Duration::from_micros(500);

/// Around a batch in which the control is looked at: its own wake-ups are a period apart.
const AROUND: Duration = Duration::from_millis(2);

/// A batch: from its tick to its commit, and its stages after the tick, in nanoseconds.
struct Passed {
    total: u64,
    stages: [u64; STAGES.len()],
    machine: bool,
}

/// Notes that are taken while the engine runs.
struct Noted {
    /// The stamps that are looked at: from the first one to before the second; known when the first line came.
    window: Option<(u64, u64)>,
    latencies: Histogram<u64>,
    end_nanos: u64,
    last: Option<Time>,
    batches: u64,
    ticks_lost: u64,
    passed: Vec<Passed>,
    /// The engine's histograms when the warm-up was over.
    warm: Option<Warm>,
}

/// Histograms of the stages, the ticks and the control.
type Warm = (Vec<Times>, Times, Option<Times>);

type Notes = Arc<Mutex<Noted>>;

/// Runs the receiver until its peer has closed.
///
/// # Errors
/// What the engine or the system refuses.
pub(crate) fn receive(timing: &Timing, out: &mut dyn Write) -> Result<Timed> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let control = timing.control_ms.map(|ms| Control::start(Interval::millis(ms.max(1)), cores));
    let control = control.transpose()?.map(Arc::new);
    let notes = Arc::new(Mutex::new(Noted::new()));
    let watcher = Arc::new(Mutex::new(None));
    let running = start(timing, &notes, &watcher, control.as_ref())?;
    let inspector = running.inspector();
    *watcher.lock() = Some(inspector.clone());
    let stopper = running.stopper();
    protocol::listen_to_parent(|| (), move || stopper.stop())?;
    let cpu = own_cpu();
    protocol::say_ready(out, &running)?;
    let (report, outcome) = running.finish();
    outcome?;
    let cpu = own_cpu().saturating_sub(cpu).as_secs_f64();
    let found = histograms(&inspector, control.as_deref());
    let noted = notes.lock();
    let peak_bytes = Sample::of(std::process::id()).peak_bytes;
    Ok(Timed { records: report.records, cpu, peak_bytes, ..noted.timed(found) })
}

fn start(
    timing: &Timing,
    notes: &Notes,
    watcher: &Arc<Mutex<Option<Inspector>>>,
    control: Option<&Arc<Control>>,
) -> Result<StreamHandle> {
    let interval = Interval::millis(timing.batch_ms.max(1));
    let mut config = Config::new("compare").batch_interval(interval);
    if let Some(workers) = timing.workers {
        config = config.workers(workers);
    }
    let ctx = StreamingContext::new(config)?;
    let model = protocol::io_model(&timing.model)?;
    let stream = ctx.socket(SocketSource::listen("127.0.0.1:0").io_model(model))?;
    match timing.work {
        Work::Stamps => time_stamps(&stream, notes, timing),
        Work::Words => time_words(&stream, notes, timing),
    }
    ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    let (clock, notes) = (SystemClock::new(), Arc::clone(notes));
    let (watcher, control) = (Arc::clone(watcher), control.cloned());
    ctx.add_listener(move |event: &Event| match event {
        Event::SourceEnded { .. } => notes.lock().end_nanos = protocol::nanos(clock.wall()),
        Event::BatchCompleted { time, scheduling_delay, processing, .. } => {
            let Some(inspector) = watcher.lock().clone() else { return };
            let took = *scheduling_delay + *processing;
            let late = control.as_ref().map(|it| it.worst_within(took.saturating_add(AROUND)));
            let mut noted = notes.lock();
            noted.ticked(*time, interval);
            if noted.warm.is_some() {
                noted.passed(&inspector, *time, late.unwrap_or_default() >= MACHINE);
            } else if noted.window.is_some_and(|(from, _)| protocol::nanos(clock.wall()) >= from) {
                noted.warm = Some(histograms(&inspector, control.as_deref()));
            }
        }
        _ => {}
    });
    ctx.start()
}

fn histograms(inspector: &Inspector, control: Option<&Control>) -> Warm {
    let times = inspector.times();
    let stages = times.stages.iter().map(|stage| stage.merged()).collect();
    (stages, times.job_ticks.merged(), control.map(Control::lateness))
}

/// The stamps of a block are found by the task of that block.
fn time_stamps(stream: &DStream<[u8]>, notes: &Notes, timing: &Timing) {
    let (clock, notes, spans) = (SystemClock::new(), Arc::clone(notes), Spans::of(timing));
    let found = stream.map_partitions(|partition, out| {
        let mut stamps: Vec<(u64, u64)> = Vec::new();
        partition.for_each(|record| stamps.extend(stamp(record).map(|stamp| (stamp, 1))));
        out.emit(stamps);
    });
    let all = found.reduce(|left, right| [left.as_slice(), right.as_slice()].concat());
    all.foreach_batch(move |_, batch| {
        batch.for_each(|stamps| {
            notes.lock().handed_over(stamps, protocol::nanos(clock.wall()), spans);
        });
        Ok(())
    });
}

fn time_words(stream: &DStream<[u8]>, notes: &Notes, timing: &Timing) {
    let (clock, notes, spans) = (SystemClock::new(), Arc::clone(notes), Spans::of(timing));
    stream.wordcount().foreach_batch(move |_, batch| {
        let mut stamps = Vec::new();
        batch.for_each(|(word, count)| {
            if word.len() == STAMP_DIGITS && word.first().is_some_and(u8::is_ascii_digit) {
                let stamp = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
                stamps.extend(stamp.map(|stamp: u64| (stamp, *count)));
            }
        });
        notes.lock().handed_over(&stamps, protocol::nanos(clock.wall()), spans);
        Ok(())
    });
}

/// Digits of a stamp; no word of the text has a digit.
const STAMP_DIGITS: usize = 19;

/// The part of the lines that is looked at, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Spans {
    /// From the stamp of the first line to the first one that counts.
    warm_up: u64,
    /// From there on.
    window: u64,
}

impl Spans {
    fn of(timing: &Timing) -> Spans {
        let [warm_up, window] = [timing.warm_up, timing.window].map(protocol::nanos);
        Spans { warm_up, window }
    }
}

impl Noted {
    fn new() -> Self {
        Noted {
            window: None,
            latencies: protocol::histogram(),
            end_nanos: 0,
            last: None,
            batches: 0,
            ticks_lost: 0,
            passed: Vec::new(),
            warm: None,
        }
    }

    /// The result of a batch with these stamps, and how many lines had each, was handed over.
    fn handed_over(&mut self, stamps: &[(u64, u64)], completed: u64, spans: Spans) {
        let Spans { warm_up, window } = spans;
        let first = || stamps.iter().map(|(stamp, _)| stamp.saturating_add(warm_up)).min();
        let first = || first().map(|from| (from, from.saturating_add(window)));
        self.window = self.window.or_else(first);
        let (from, to) = self.window.unwrap_or_default();
        for (stamp, lines) in stamps.iter().filter(|(stamp, _)| (from..to).contains(stamp)) {
            let latency = completed.saturating_sub(*stamp).min(LATENCY_MAX);
            self.latencies.record_n(latency, *lines).expect("the histogram grows to any latency");
        }
    }

    /// A batch is done: the ticks between it and the one before had none.
    fn ticked(&mut self, time: Time, interval: Interval) {
        let elapsed = self.last.map_or(0, |last| time.as_millis().saturating_sub(last.as_millis()));
        self.ticks_lost += (elapsed / interval.as_millis()).saturating_sub(1);
        self.last = Some(time);
        self.batches += 1;
    }

    fn passed(&mut self, inspector: &Inspector, time: Time, machine: bool) {
        let Some(batch) = inspector.batch(time).filter(|_| self.passed.len() < BATCHES_MAX) else {
            return;
        };
        let length = |stage| batch.moments.stage(stage).map_or(0, protocol::nanos);
        let mut stages = STAGES.map(|(stage, _)| length(stage));
        // The way to the tick is no delay.
        stages[0] = 0;
        self.passed.push(Passed { total: stages.iter().sum(), stages, machine });
    }

    fn timed(&self, found: Warm) -> Timed {
        let (stages, ticks, control) = found;
        let warm = self.warm.as_ref();
        let since = |times: &Times, warm: Option<&Times>| {
            Spread::of(&warm.map_or_else(|| times.clone(), |warm| times.since(warm)))
        };
        let stage = |(at, times): (usize, &Times)| since(times, warm.and_then(|it| it.0.get(at)));
        Timed {
            end_nanos: self.end_nanos,
            latencies: protocol::latencies(&self.latencies),
            stages: stages.iter().enumerate().map(stage).collect(),
            ticks: since(&ticks, warm.map(|it| &it.1)),
            control: control.map_or(Spread::default(), |times| {
                since(&times, warm.and_then(|it| it.2.as_ref()))
            }),
            batches: self.batches,
            ticks_lost: self.ticks_lost,
            slow: slow(&self.passed),
            ..Timed::default()
        }
    }
}

/// The batches that took too long, by the stage that is furthest above its own median.
fn slow(passed: &[Passed]) -> Slow {
    let median = |of: &dyn Fn(&Passed) -> u64| {
        let mut values: Vec<u64> = passed.iter().map(of).collect();
        let middle = values.len() / 2;
        if values.is_empty() { 0 } else { *values.select_nth_unstable(middle).1 }
    };
    let usual: [u64; STAGES.len()] = std::array::from_fn(|at| median(&|batch| batch.stages[at]));
    let limit = median(&|batch| batch.total).saturating_add(protocol::nanos(OUTLIER));
    let mut slow = Slow::default();
    for batch in passed {
        slow.longest = slow.longest.max(batch.total);
        if batch.total <= limit {
            continue;
        }
        let above = |at: &usize| batch.stages[*at].saturating_sub(usual[*at]);
        let worst = (0..STAGES.len()).max_by_key(above).expect("there are stages");
        slow.by_stage[worst] += 1;
        slow.machine += u64::from(batch.machine);
    }
    slow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_and_the_end_are_left_out() {
        let mut noted = Noted::new();
        let spans = Spans { warm_up: 100, window: 1_000 };
        noted.handed_over(&[], 900, spans);
        noted.handed_over(&[(1_000, 1), (1_099, 1)], 1_200, spans);
        assert_eq!(noted.latencies.len(), 0);
        noted.handed_over(&[(1_099, 1), (1_100, 3), (2_100, 1)], 1_600, spans);
        assert_eq!((noted.latencies.len(), noted.latencies.max()), (3, 500));
    }

    #[test]
    fn ticks_without_a_batch_are_counted() {
        let check = |times: &[u64], lost| {
            let mut noted = Noted::new();
            let interval = Interval::millis(10);
            times.iter().for_each(|time| noted.ticked(Time::from_millis(*time), interval));
            assert_eq!((noted.ticks_lost, noted.batches), (lost, times.len() as u64), "{times:?}");
        };
        check(&[], 0);
        check(&[100], 0);
        check(&[100, 110, 120], 0);
        check(&[100, 130, 140, 160], 3);
    }

    #[test]
    fn slow_batches_are_laid_to_the_stage_that_took_the_time() {
        let batch = |stages: [u64; STAGES.len()], machine| {
            let stages = stages.map(|micros| micros * 1_000);
            Passed { total: stages.iter().sum(), stages, machine }
        };
        let usual = || batch([0, 100, 0, 10, 10, 5_000, 10], false);
        let mut passed = vec![usual(), usual(), usual(), usual(), usual()];
        passed.push(batch([0, 1_050, 0, 10, 10, 5_000, 10], true));
        assert_eq!(slow(&passed).by_stage, [0; STAGES.len()], "950 us are not enough");
        passed.push(batch([0, 2_100, 0, 10, 10, 5_000, 10], true));
        passed.push(batch([0, 100, 0, 10, 2_000, 5_500, 10], false));
        let found = slow(&passed);
        assert_eq!((found.by_stage, found.machine), ([0, 1, 0, 0, 1, 0, 0], 1));
        assert_eq!(found.longest, 7_620_000);
        assert_eq!(slow(&[]), Slow::default());
    }
}
