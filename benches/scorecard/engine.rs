//! The engine's side of each pair, in a process of its own; the bare loops are children too, so that both are measured
//! in the same way. A child prints its figures as one line of JSON.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tidemill::internals::io::IoModel;
use tidemill::internals::lab::stats::median;
use tidemill::internals::sync::Mutex;
use tidemill::sink::{BatchMeta, Cell, CommitKey, Null, Rows, Sink};
use tidemill::{Config, Event, Interval, RunLimits, SocketSource, StreamingContext};

use crate::Outcome;
use crate::baseline;
use crate::durable;
use crate::keys::{Keyed, keyed};
use crate::kind::Kind;
use crate::measure::{Figures, Stopwatch, Sum};

#[derive(Clone, Debug, Args)]
pub struct ChildArgs {
    #[arg(value_enum)]
    pub kind: Kind,
    /// The sender; without it nothing is received.
    #[arg(long)]
    pub address: Option<String>,
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// Milliseconds between batches.
    #[arg(long, default_value_t = 100)]
    pub every: u64,
    /// Milliseconds between blocks.
    #[arg(long, default_value_t = 200)]
    pub block: u64,
    /// The directory of the log.
    #[arg(long)]
    pub state: Option<String>,
    /// Number of batches or hand-overs, or of bytes.
    #[arg(long, default_value_t = 1)]
    pub rounds: u64,
    #[command(flatten)]
    pub keyed: Keyed,
}

/// Runs a child and prints what it measured.
pub fn child(args: &ChildArgs) -> Outcome<()> {
    let address = args.address.clone().unwrap_or_default();
    let state = args.state.clone().unwrap_or_default();
    let figures = match args.kind {
        Kind::Discard => baseline::discard(&address)?,
        Kind::Lines => baseline::lines(&address)?,
        Kind::Kept => baseline::kept(&address, Interval::millis(args.every))?,
        Kind::Words => baseline::words(&address, Interval::millis(args.every))?,
        Kind::HandOver => baseline::hand_over(args.rounds)?,
        Kind::Sealed | Kind::Count | Kind::Wordcount => to_the_end(args, &address)?,
        Kind::Batches => batches(args)?,
        Kind::Blocks => blocks(args)?,
        Kind::Keyed => keyed(&args.keyed, args.rounds)?,
        Kind::RawSync => durable::raw_sync(&state, args.rounds)?,
        Kind::ReadLog => durable::read_log(&state)?,
        Kind::Recover => recover(args)?,
        Kind::Poller => return baseline::poller(),
        Kind::ToFiles => return baseline::to_files(&address, &state, Interval::millis(args.every)),
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&figures)?)?;
    Ok(())
}

fn context(args: &ChildArgs) -> Outcome<StreamingContext> {
    // A log belongs to a pipeline: the name that `tidemill run` gives.
    let config = Config::new("tidemill")
        .workers(args.workers)
        .batch_interval(Interval::millis(args.every))
        .block_interval(Interval::millis(args.block));
    let config = args.state.iter().fold(config, Config::state_dir);
    Ok(StreamingContext::new(config)?)
}

/// Everything that the sender sends, until it closes and the last batch is committed.
fn to_the_end(args: &ChildArgs, address: &str) -> Outcome<Figures> {
    let (watch, mut figures) = (Stopwatch::start(), Figures::default());
    let context = context(args)?;
    context.limits(RunLimits { until_eof: true, ..RunLimits::default() });
    let stream = context.socket(SocketSource::connect([address]).io_model(IoModel::Nio))?;
    let sum = Arc::new(Mutex::new(Sum::default()));
    match args.kind {
        Kind::Sealed => stream.foreach_batch(|_, _| Ok(())),
        Kind::Count => stream.count().save(Null),
        _ => stream.wordcount().save(Checked(Arc::clone(&sum))),
    }
    let (report, outcome) = context.start()?.finish();
    outcome?;
    watch.stop(&mut figures);
    figures.sum = *sum.lock();
    figures.records = report.records;
    figures.bytes = report.sources.iter().map(|source| source.counter("bytes")).sum();
    Ok(figures)
}

/// From the start to the end of the first batch, which is made of what the log holds. Nobody sends.
fn recover(args: &ChildArgs) -> Outcome<Figures> {
    let context = context(&ChildArgs { every: 10, ..args.clone() })?;
    let source = SocketSource::listen("127.0.0.1:0").named("in");
    context.socket(source)?.count().save(Null);
    context.limits(RunLimits { batches: Some(1), ..RunLimits::default() });
    let (watch, mut figures) = (Stopwatch::start(), Figures::default());
    let (report, outcome) = context.start()?.finish();
    outcome?;
    watch.stop(&mut figures);
    figures.records = report.records;
    Ok(figures)
}

/// Adds up the rows that it is given, as the bare loop does.
struct Checked(Arc<Mutex<Sum>>);

impl Sink for Checked {
    fn committed(&mut self, _key: &CommitKey) -> tidemill::Result<bool> {
        Ok(false)
    }

    fn write(&mut self, _key: &CommitKey, _meta: &BatchMeta, rows: &Rows) -> tidemill::Result<()> {
        let mut sum = self.0.lock();
        for row in rows.iter() {
            let mut cells = row.cells();
            if let (Some(Cell::Text(word)), Some(Cell::U64(count))) = (cells.next(), cells.next()) {
                sum.add(word, count);
            }
        }
        Ok(())
    }

    fn commit(&mut self, _key: &CommitKey) -> tidemill::Result<()> {
        Ok(())
    }
}

/// The time from tick to commit of each batch, by the engine's events; beside it how late a bare timer is. How late the
/// operating system wakes a thread differs more from tick to tick than what is measured: until its first job starts, each
/// batch counts with the median of all.
fn batches(args: &ChildArgs) -> Outcome<Figures> {
    let context = context(args)?;
    let times: Arc<Mutex<Vec<(u64, Duration, Duration)>>> = Arc::default();
    let seen = Arc::clone(&times);
    context.add_listener(move |event: &Event| {
        if let Event::BatchCompleted { records, scheduling_delay, processing, .. } = event {
            seen.lock().push((*records, *scheduling_delay, *processing));
        }
    });
    source(args, &context)?.wordcount().save(Null);
    context.limits(RunLimits { batches: Some(args.rounds), ..RunLimits::default() });
    let (report, outcome) = context.start()?.finish();
    outcome?;
    let ticks = usize::try_from(args.rounds)?;
    let beside = baseline::timer(Interval::millis(args.every), ticks)?;
    // The first batches meet the connection and empty memory; the last ones may be cut by the end.
    let all = times.lock().clone();
    let settled = || all.iter().skip(ticks / 10 + 1);
    let of_kind = || settled().filter(|(records, ..)| (*records > 0) == args.address.is_some());
    let micros = |time: &Duration| time.as_secs_f64() * 1e6;
    let until_start: Vec<f64> = of_kind().map(|(_, delay, _)| micros(delay)).collect();
    let until_start = median(&until_start);
    let micros = of_kind().map(|(.., processing)| until_start + micros(processing)).collect();
    Ok(Figures { records: report.records, micros, beside, ..Figures::default() })
}

/// The number of blocks in each batch, instead of microseconds.
fn blocks(args: &ChildArgs) -> Outcome<Figures> {
    let context = context(args)?;
    let counts: Arc<Mutex<Vec<f64>>> = Arc::default();
    let seen = Arc::clone(&counts);
    source(args, &context)?.foreach_batch(move |_, batch| {
        let blocks = u32::try_from(batch.partitions().len()).unwrap_or(u32::MAX);
        seen.lock().push(f64::from(blocks));
        Ok(())
    });
    context.limits(RunLimits { batches: Some(args.rounds), ..RunLimits::default() });
    context.start()?.finish().1?;
    let micros = counts.lock().clone();
    Ok(Figures { micros, ..Figures::default() })
}

fn source(args: &ChildArgs, context: &StreamingContext) -> Outcome<tidemill::DStream<[u8]>> {
    let source = match &args.address {
        Some(address) => SocketSource::connect([address.as_str()]),
        None => SocketSource::listen("127.0.0.1:0"),
    };
    Ok(context.socket(source)?)
}
