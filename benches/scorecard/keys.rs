//! P12 and P13: many keys, one hot key, growth, and windows, beside the engine's own ten thousand keys and its own batch.
//!
//! Nothing is received here: each partition makes its records from a number, so that keys alone are measured. The clock
//! is driven batch by batch, and a batch's time is what the main thread waits for it.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use tidemill::internals::lab::stats::{Summary, alternating};
use tidemill::internals::settings::units::as_f64;
use tidemill::internals::sync::{AtomicU64, Ordering};
use tidemill::stream::StateSpec;
use tidemill::testing::ManualClock;
use tidemill::{Config, DStream, Interval, StreamingContext};

use crate::kind::Kind;
use crate::measure::{Figures, Stopwatch};
use crate::process::run;
use crate::verdict::{Sheet, Target};
use crate::wait::{now, seconds_since};
use crate::{Options, Outcome};

const SECOND: Interval = Interval::secs(1);
const PARTITIONS: u64 = 4;
/// The baseline of P12.
const FEW: u64 = 10_000;

/// The operator under test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Operator {
    /// The count of each key.
    #[default]
    Count,
    /// The sum of each key's values.
    Reduce,
    /// The words of text, as the job `wordcount` counts them.
    Words,
    /// A sum for each key from batch to batch.
    State,
    /// The sum of each key over the last `length` seconds, with an inverse function.
    Sum,
    /// The largest value of each key over the last `length` seconds.
    Max,
}

/// The records of a run.
#[derive(Clone, Debug, Args)]
pub struct Keyed {
    #[arg(long, value_enum, default_value = "count")]
    pub operator: Operator,
    /// Number of different keys.
    #[arg(long, default_value_t = FEW)]
    pub keys: u64,
    /// Records of a batch.
    #[arg(long, default_value_t = 400_000)]
    pub records: u64,
    /// Percent of the records that have one and the same key.
    #[arg(long, default_value_t = 0)]
    pub hot: u64,
    /// No key comes twice: the number of keys grows by `records` in each batch.
    #[arg(long)]
    pub fresh: bool,
    /// Seconds of the window; none: each batch by itself.
    #[arg(long)]
    pub length: Option<u64>,
}

/// Runs batches of keyed records and returns the time of each.
pub fn keyed(args: &Keyed, batches: u64) -> Outcome<Figures> {
    let config = Config::new("keys").batch_interval(SECOND).workers(2);
    let ctx = StreamingContext::with_clock(config, ManualClock::new())?;
    let part = |batch| Some((0..PARTITIONS).map(|part| (batch, part)).collect());
    let seeds = ctx.queue_stream((0..batches).map(part).collect(), usize::try_from(PARTITIONS)?);
    let rows = Arc::new(AtomicU64::new(0));
    attach(args, &seeds, &rows);
    let watch = Stopwatch::start();
    let mut figures = Figures { records: batches * args.records, ..Figures::default() };
    for _ in 0..batches {
        let start = now();
        ctx.run_batches(1)?;
        figures.micros.push(seconds_since(start) * 1e6);
        figures.beside.push(as_f64(rows.load(Ordering::SeqCst)));
    }
    watch.stop(&mut figures);
    Ok(figures)
}

/// Everything that is done ends in one number for each batch, which must be what it must be.
fn attach(args: &Keyed, seeds: &DStream<(u64, u64)>, rows: &Arc<AtomicU64>) {
    let (length, own) = (args.length, args.clone());
    let pairs = seeds.flat_map(move |seed, out| own.make(seed, |key| out.emit((key, 1_u64))));
    let own = args.clone();
    let add = |a: &u64, b: &u64| a + b;
    match (args.operator, length.map(Interval::secs)) {
        (Operator::Count, _) => {
            let keys = seeds.flat_map(move |seed, out| own.make(seed, |key| out.emit(key)));
            check(args, &keys.count_by_value().map(|row| (1, row.1)), rows);
        }
        (Operator::Words, _) => {
            let lines = seeds.flat_map(move |seed, out| {
                let mut line = Vec::new();
                own.make(seed, |key| {
                    line.clear();
                    line.extend_from_slice(b"word");
                    line.extend(key.to_string().bytes());
                    out.push(&line[..]);
                });
            });
            check(args, &lines.wordcount().map(|row| (1, row.1)), rows);
        }
        (Operator::State, _) => {
            let sums = pairs.map_with_state(StateSpec::new(), |_, _, value, state| {
                state.update(state.get().unwrap_or(&0) + value?);
                Some((1, 1))
            });
            check(args, &sums, rows);
        }
        (Operator::Sum, Some(length)) => {
            let sums = pairs.reduce_by_key_and_window_with_inverse(
                length,
                SECOND,
                add,
                |a, b| a - b,
                |row| row.1 > 0,
            );
            check(args, &sums.map(|row| (1, row.1)), rows);
        }
        (Operator::Max, Some(length)) => {
            let highest = pairs.reduce_by_key_and_window(length, SECOND, |a, b| *a.max(b));
            check(args, &highest.map(|row| (1, row.1)), rows);
        }
        (Operator::Max, None) => {
            check(args, &pairs.reduce_by_key(|a, b| *a.max(b)).map(|row| (1, row.1)), rows);
        }
        (Operator::Reduce | Operator::Sum, _) => {
            check(args, &pairs.reduce_by_key(add).map(|row| (1, row.1)), rows);
        }
    }
}

/// Counts the rows; without a window their values add up to the records of the batch.
fn check(args: &Keyed, values: &DStream<(u64, u64)>, rows: &Arc<AtomicU64>) {
    let (rows, own) = (Arc::clone(rows), args.clone());
    values.reduce(|a, b| (a.0 + b.0, a.1 + b.1)).foreach_batch(move |time, sums| {
        sums.for_each(|(count, sum)| {
            rows.store(*count, Ordering::SeqCst);
            let panes = own.length.unwrap_or(1).min(time.as_millis() / 1_000);
            let expected = if own.operator == Operator::Max { *count } else { own.records * panes };
            assert_eq!(*sum, expected, "every record is counted once");
        });
        Ok(())
    });
}

impl Keyed {
    /// The keys of one partition of one batch.
    fn make(&self, seed: &(u64, u64), mut each: impl FnMut(u64)) {
        let (batch, part) = *seed;
        let count = self.records / PARTITIONS;
        let first = batch * self.records + part * count;
        for number in first..first + count {
            let random = mixed(number);
            each(match () {
                () if self.fresh => number,
                () if random % 100 < self.hot => 0,
                () => (random >> 8) % self.keys,
            });
        }
    }

    fn options(&self, batches: u64) -> Vec<String> {
        let operator = self.operator.to_possible_value().expect("every operator has a name");
        let mut options = vec![
            format!("--operator={}", operator.get_name()),
            format!("--keys={}", self.keys),
            format!("--records={}", self.records),
            format!("--hot={}", self.hot),
            format!("--rounds={batches}"),
        ];
        options.extend(self.fresh.then(|| "--fresh".to_owned()));
        options.extend(self.length.map(|length| format!("--length={length}")));
        options
    }

    /// Runs it in a process of its own; the mean time of the last `counted` batches, in microseconds.
    fn time(&self, batches: u64, counted: usize) -> Outcome<(f64, Figures)> {
        let figures = run(Kind::Keyed, &self.options(batches))?;
        let last = &figures.micros[figures.micros.len().saturating_sub(counted)..];
        Ok((last.iter().sum::<f64>() / as_f64(last.len() as u64), figures))
    }
}

/// A fixed permutation of the numbers: splitmix64.
fn mixed(number: u64) -> u64 {
    let one = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let two = (one ^ (one >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let three = (two ^ (two >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    three ^ (three >> 31)
}

const BASE: Keyed = Keyed {
    operator: Operator::Count,
    keys: FEW,
    records: 400_000,
    hot: 0,
    fresh: false,
    length: None,
};

/// The first is the baseline; `counted` batches at the end of each run count.
struct Pairing {
    name: String,
    sides: [(Keyed, u64); 2],
    counted: usize,
    target: Target,
}

impl Pairing {
    /// Judges the records per second of the second side beside those of the first.
    fn judge(&self, pairs: usize, sheet: &mut Sheet) -> Outcome<()> {
        let (mut ratios, mut rates, mut last) = (Vec::new(), [Vec::new(), Vec::new()], None);
        for pair in 0..pairs {
            let mut means = [0.0; 2];
            for side in alternating(pair, 2) {
                let (keyed, batches) = &self.sides[side];
                let (mean, figures) = keyed.time(*batches, self.counted)?;
                means[side] = mean / as_f64(keyed.records);
                rates[side].push(1.0 / means[side]);
                if side == 1 {
                    last = Some(figures);
                }
            }
            ratios.push(means[0] / means[1]);
        }
        sheet.line(&self.name, "x").judge(&ratios, self.target)?;
        for (name, rates) in ["    baseline", "    this"].iter().zip(&rates) {
            sheet.line(name, "M rec/s").show(rates)?;
        }
        let Some(figures) = last else { return Ok(()) };
        let rows = &figures.beside[figures.beside.len().saturating_sub(1)..];
        sheet.line("    rows of its last batch", "").show(rows)?;
        let peak = [as_f64(figures.peak_kib) / 1024.0];
        sheet.line("    its most memory", "MiB").show(&peak)
    }
}

/// P12.
pub fn keys(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say(
        "P12: keys, 2 workers, records of 16 bytes made on the spot, beside own uniform 10 thousand keys",
    )?;
    let small = if options.smoke { 20 } else { 1 };
    let records = BASE.records / small;
    let many = Target::AtLeast { pass: 0.4, goal: 0.6 };
    for operator in [Operator::Count, Operator::Reduce, Operator::Words, Operator::State] {
        let base = Keyed { operator, records, ..BASE };
        for (what, side, batches, target) in [
            ("1 M keys", Keyed { keys: 1_000_000, ..base.clone() }, 24, many),
            (
                "one hot key, 9 of 10 records",
                Keyed { hot: 90, ..base.clone() },
                24,
                Target::AtLeast { pass: 0.9, goal: 1.1 },
            ),
            ("10 M keys", Keyed { keys: 10_000_000, ..base.clone() }, 48, Target::Shown),
        ] {
            let batches = if options.smoke { 3 } else { batches };
            let pairs = if batches > 24 { options.pairs.min(2) } else { options.pairs };
            let name = format!("{operator:?}, {what}");
            let sides = [(base.clone(), batches), (side, batches)];
            Pairing { name, sides, counted: 12, target }.judge(pairs, sheet)?;
        }
    }
    growth(options, sheet)
}

/// A state that takes a hundred thousand new keys in each batch.
fn growth(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    let (records, batches) = if options.smoke { (5_000, 4) } else { (100_000, 100) };
    let fresh = Keyed { operator: Operator::State, records, fresh: true, ..BASE };
    let (mut slowest, mut last, mut medians) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.pairs {
        let (_, figures) = fresh.time(batches, 1)?;
        let times = Summary::of(figures.micros.iter().copied()).ok_or("batches were run")?;
        slowest.push(times.max / times.median);
        medians.push(times.median / 1e3);
        last.push(as_f64(figures.peak_kib) / 1024.0);
    }
    let name = format!("state grows to {} keys: slowest batch", records * batches);
    sheet.line(&name, "x median").judge(&slowest, Target::AtMost { pass: 2.0, goal: 1.2 })?;
    sheet.line("    median batch", "ms").show(&medians)?;
    sheet.line("    its most memory", "MiB").show(&last)
}

/// P13.
pub fn windows(options: &Options, sheet: &mut Sheet) -> Outcome<()> {
    sheet.say(
        "P13: window 60 s, slide 1 s, 2 workers, beside the same aggregate of each 1 s batch; the mean of 60 batches",
    )?;
    let (length, counted) = if options.smoke { (3, 3) } else { (60, 60) };
    let target = Target::AtLeast { pass: 0.85, goal: 0.97 };
    for (records, keys, judged) in
        [(1_000_000, FEW, target), (100_000, FEW, Target::Shown), (100_000, 50_000, Target::Shown)]
    {
        let records = if options.smoke { records / 20 } else { records };
        for operator in [Operator::Sum, Operator::Max] {
            let tumbling = Keyed { operator, keys, records, ..BASE };
            let window = Keyed { length: Some(length), ..tumbling.clone() };
            let name = format!("{operator:?}, {records} records of {keys} keys a second");
            let batches = length + counted;
            let sides = [(tumbling, batches), (window, batches)];
            let counted = usize::try_from(counted)?;
            Pairing { name, sides, counted, target: judged }.judge(options.pairs, sheet)?;
        }
    }
    Ok(())
}
