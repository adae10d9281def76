//! Tidemill is a micro-batch stream engine: it reads records from sockets and files, cuts them into a batch each interval,
//! and hands the rows of each batch to sinks. It works like Spark Streaming's DStreams, in one process that is made of
//! threads, without async. With a [`state_dir`](Config::state_dir) states, windows and the sinks `file` and `sqlite` take
//! each logged record in once, also after a crash.
//!
//! A program makes a [`StreamingContext`], derives [`DStream`]s from its sources, registers outputs, and starts it:
//!
//! ```no_run
//! use tidemill::{Config, Interval, IoModel, StreamingContext};
//!
//! let ctx = StreamingContext::new(Config::new("words").batch_interval(Interval::secs(1)))?;
//! let lines = ctx.socket_lines("127.0.0.1:9999", IoModel::Nio)?;
//! lines.flat_map(|line, out| out.extend(line.split_whitespace())).count_by_value().print(10);
//! ctx.start()?.await_termination()?; // until somebody stops it
//! # Ok::<(), tidemill::Error>(())
//! ```
//!
//! # Operators
//! | | Tidemill | Spark Streaming | gives |
//! |---|---|---|---|
//! | sources | [`socket_lines`](StreamingContext::socket_lines) | `socketTextStream` | the lines of a TCP server |
//! | | [`socket`] | `socketStream` | records of peers that are dialled or dial in, in any framing |
//! | | [`files_lines`] | `textFileStream` | the lines of the files of a directory, also while they grow |
//! | | [`receiver_stream`] | `receiverStream` | records that a [`Receiver`] of your own stores |
//! | | [`direct_stream`] | `createDirectStream` | records of a source that can be read again |
//! | | [`queue_stream`](StreamingContext::queue_stream) | `queueStream` | a batch from each entry of a list, for tests |
//! | narrow | [`map`](DStream::map) | `map` | one element for each |
//! | | [`flat_map`](DStream::flat_map) | `flatMap` | any number of elements for each |
//! | | [`filter`](DStream::filter) | `filter` | the elements that pass |
//! | | [`map_partitions`](DStream::map_partitions) | `mapPartitions` | any number of elements for each partition |
//! | | [`glom`](DStream::glom) | `glom` | each partition as one vector |
//! | | [`union`](DStream::union) | `union` | the elements of two streams |
//! | | [`transform`](DStream::transform) | `transform` | each batch as a whole, with its time |
//! | | [`transform_with`](DStream::transform_with) | `transformWith` | the batches of two streams as a whole |
//! | whole batch | [`repartition`](DStream::repartition) | `repartition` | the elements dealt out to other partitions |
//! | | [`count`](DStream::count) | `count` | the number of elements |
//! | | [`count_by_value`](DStream::count_by_value) | `countByValue` | each element with its number of occurrences |
//! | | [`reduce`](DStream::reduce) | `reduce` | all elements joined to one |
//! | | [`wordcount`](DStream::wordcount) | | the words of byte records, counted and sorted |
//! | | [`topk`](DStream::topk) | | the most frequent values of a field |
//! | | [`distinct`](DStream::distinct) | `transform(_.distinct)` | each byte record once, sorted |
//! | | [`latency`](DStream::latency) | | quantiles of the age of stamped records |
//! | | [`persist`](DStream::persist) | `persist` | the elements, kept for the time of the batch |
//! | by key | [`map_values`](DStream::map_values) | `mapValues` | the value of each pair mapped |
//! | | [`flat_map_values`](DStream::flat_map_values) | `flatMapValues` | any number of values for each |
//! | | [`reduce_by_key`](DStream::reduce_by_key) | `reduceByKey` | the values of a key joined to one |
//! | | [`combine_by_key`](DStream::combine_by_key) | `combineByKey` | the values of a key aggregated |
//! | | [`group_by_key`](DStream::group_by_key) | `groupByKey` | all values of a key |
//! | joins | [`join`](DStream::join) | `join` | each pair of values of a key |
//! | | [`left_outer_join`](DStream::left_outer_join) | `leftOuterJoin` | the same, and values without a partner |
//! | | [`right_outer_join`](DStream::right_outer_join) | `rightOuterJoin` | the same, on the other side |
//! | | [`full_outer_join`](DStream::full_outer_join) | `fullOuterJoin` | the same, on both sides |
//! | | [`cogroup`](DStream::cogroup) | `cogroup` | all values of a key in both streams |
//! | windows | [`window`](DStream::window) | `window` | the elements of the last while |
//! | | [`count_by_window`](DStream::count_by_window) | `countByWindow` | their number |
//! | | [`reduce_by_window`](DStream::reduce_by_window) | `reduceByWindow` | all of them joined to one |
//! | | [`count_by_value_and_window`] | `countByValueAndWindow` | each of them with its number of occurrences |
//! | | [`reduce_by_key_and_window`] | `reduceByKeyAndWindow` | the values of a key joined to one |
//! | | [`reduce_by_key_and_window_with_inverse`] | the same, with `invReduceFunc` | the same, with an inverse |
//! | | [`group_by_key_and_window`](DStream::group_by_key_and_window) | `groupByKeyAndWindow` | all values of a key |
//! | | [`remember`](DStream::remember) | `remember` | the stream, with its last batches |
//! | | [`slice`](DStream::slice) | `slice` | those batches |
//! | state | [`map_with_state`] | `mapWithState` | each record mapped with the state of its key |
//! | | [`snapshots`](stream::Stateful::snapshots) | `stateSnapshots` | all keys with their states |
//! | | [`changes`](stream::Stateful::changes) | | the keys whose states a batch changed |
//! | | [`update_state_by_key`](DStream::update_state_by_key) | `updateStateByKey` | a new state of each key |
//! | | [`update_state_by_key_with`] | `updateStateByKey` | the same, with initial states and the time |
//! | outputs | [`print`](DStream::print) | `print` | the first elements on standard output |
//! | | [`save`](DStream::save) | `saveAsTextFiles` | the rows to a [`Sink`]: a file, SQLite, a socket, or your own |
//! | | [`foreach_batch`](DStream::foreach_batch) | `foreachRDD` | a closure for each batch |
//! | | [`collect`](DStream::collect) | | the rows in memory, for tests |
//!
//! [`socket`]: StreamingContext::socket
//! [`files_lines`]: StreamingContext::files_lines
//! [`receiver_stream`]: StreamingContext::receiver_stream
//! [`direct_stream`]: StreamingContext::direct_stream
//! [`count_by_value_and_window`]: DStream::count_by_value_and_window
//! [`reduce_by_key_and_window`]: DStream::reduce_by_key_and_window
//! [`reduce_by_key_and_window_with_inverse`]: DStream::reduce_by_key_and_window_with_inverse
//! [`map_with_state`]: DStream::map_with_state
//! [`update_state_by_key_with`]: DStream::update_state_by_key_with
//!
//! # Programs
//! A socket. [`RunLimits`] end this run when the server has closed its connection:
//!
//! ```
//! # let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); let address = server.local_addr().unwrap().to_string();
//! # std::thread::spawn(move || std::io::Write::write_all(&mut server.accept().unwrap().0, b"to be or\nnot to be\n").unwrap());
//! use tidemill::{Config, Interval, IoModel, RunLimits, StreamingContext};
//!
//! let ctx = StreamingContext::new(Config::new("words").batch_interval(Interval::millis(20)))?;
//! let lines = ctx.socket_lines(&address, IoModel::Nio)?;
//! let words = lines.flat_map(|line, out| out.extend(line.split_whitespace())).collect();
//! ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
//! ctx.start()?.await_termination()?;
//! let words: Vec<String> = words.rows().into_iter().flat_map(|(_, words)| words).collect();
//! assert_eq!(words, ["to", "be", "or", "not", "to", "be"]);
//! # Ok::<(), tidemill::Error>(())
//! ```
//!
//! Files. A batch reads the files of the directory as far as they go at its time:
//!
//! ```
//! # let directory = tempfile::tempdir().unwrap();
//! use tidemill::{Config, StreamingContext, testing::ManualClock};
//!
//! std::fs::write(directory.path().join("a.log"), "one\ntwo\n").unwrap();
//! let ctx = StreamingContext::with_clock(Config::new("logs"), ManualClock::new())?;
//! let lines = ctx.files_lines(directory.path())?;
//! let count = lines.count().collect();
//! ctx.run_batches(1)?;
//! assert_eq!(count.rows()[0].1, [2]);
//! # Ok::<(), tidemill::Error>(())
//! ```
//!
//! A receiver of your own: a closure, or a type with the trait [`Receiver`]. It runs on its own thread and ends when it
//! returns:
//!
//! ```
//! use tidemill::{Config, Interval, ReceiverHandle, RunLimits, StreamingContext};
//!
//! let ctx = StreamingContext::new(Config::new("bytes").batch_interval(Interval::millis(20)))?;
//! let three = |handle: &ReceiverHandle| (1..=3).try_for_each(|n: u8| handle.store(&[n]));
//! let records = ctx.receiver_stream("three", three)?;
//! let bytes = records.map(|record| record[0]).collect();
//! ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
//! ctx.start()?.await_termination()?;
//! assert_eq!(bytes.rows().into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<_>>(), [1, 2, 3]);
//! # Ok::<(), tidemill::Error>(())
//! ```
//!
//! A sink of your own. Rows count from `commit` on, and a batch that `committed` knows is not written again:
//!
//! ```
//! use std::sync::atomic::{AtomicUsize, Ordering};
//!
//! use tidemill::sink::{BatchMeta, CommitKey, Rows, Sink};
//! use tidemill::{Config, Result, StreamingContext, testing::ManualClock};
//!
//! static TOTAL: AtomicUsize = AtomicUsize::new(0);
//!
//! #[derive(Default)]
//! struct RowCounter {
//!     written: usize,
//!     last: Option<CommitKey>,
//! }
//!
//! impl Sink for RowCounter {
//!     fn committed(&mut self, key: &CommitKey) -> Result<bool> {
//!         Ok(self.last.as_ref() == Some(key))
//!     }
//!
//!     fn write(&mut self, _: &CommitKey, _: &BatchMeta, rows: &Rows) -> Result<()> {
//!         self.written = rows.len();
//!         Ok(())
//!     }
//!
//!     fn commit(&mut self, key: &CommitKey) -> Result<()> {
//!         TOTAL.fetch_add(self.written, Ordering::Relaxed);
//!         self.last = Some(key.clone());
//!         Ok(())
//!     }
//! }
//!
//! let ctx = StreamingContext::with_clock(Config::new("rows"), ManualClock::new())?;
//! let numbers = ctx.queue_stream(vec![Some(vec![1_u64, 2]), Some(vec![3])], 1);
//! numbers.save(RowCounter::default());
//! ctx.run_batches(2)?;
//! assert_eq!(TOTAL.load(Ordering::Relaxed), 3);
//! # Ok::<(), tidemill::Error>(())
//! ```
//!
//! State with a time-out. A user who is idle for more than two seconds is put out with the number of clicks:
//!
//! ```
//! use tidemill::{Config, Interval, StreamingContext, stream::StateSpec, testing::ManualClock};
//!
//! let ctx = StreamingContext::with_clock(Config::new("visits"), ManualClock::new())?;
//! let clicks = ctx.queue_stream(vec![Some(vec![("ann".to_owned(), ()), ("ann".to_owned(), ())])], 1);
//! let spec = StateSpec::new().timeout(Interval::secs(2));
//! let visits = clicks.map_with_state(spec, |_time, user, click, state| {
//!     let clicks = state.get().copied().unwrap_or(0_u32);
//!     if click.is_none() {
//!         return Some(format!("{user}: {clicks}"));
//!     }
//!     state.update(clicks + 1);
//!     None
//! });
//! let ended = visits.collect();
//! ctx.run_batches(4)?;
//! assert_eq!(ended.rows()[3].1, ["ann: 2"]);
//! # Ok::<(), tidemill::Error>(())
//! ```
//!
//! Windows. The last ten seconds, every two:
//!
//! ```
//! use tidemill::{Config, Interval, StreamingContext, testing::ManualClock};
//!
//! let ctx = StreamingContext::with_clock(Config::new("recent"), ManualClock::new())?;
//! let words = ctx.queue_stream(vec![Some(vec!["to", "be"]), Some(vec!["to"])], 1);
//! let counts = words.count_by_value_and_window(Interval::secs(10), Interval::secs(2));
//! let counts = counts.filter(|(_, count)| *count > 1).collect();
//! ctx.run_batches(2)?;
//! assert_eq!(counts.rows()[0].1, [("to", 2)]);
//! # Ok::<(), tidemill::Error>(())
//! ```
//!
//! A test. Batches come when [`run_batches`](StreamingContext::run_batches) moves the clock, so nothing sleeps:
//!
//! ```
//! use tidemill::{Config, DStream, StreamingContext, testing::ManualClock};
//!
//! fn longest(lines: &DStream<&'static str>) -> DStream<usize> {
//!     lines.map(|line| line.len()).reduce(|a, b| *a.max(b))
//! }
//!
//! let ctx = StreamingContext::with_clock(Config::new("test"), ManualClock::new())?;
//! let lines = ctx.queue_stream(vec![Some(vec!["to", "be or"]), Some(vec![])], 1);
//! let found = longest(&lines).collect();
//! ctx.run_batches(2)?;
//! let rows: Vec<_> = found.rows().into_iter().map(|(time, rows)| (time.as_millis(), rows)).collect();
//! assert_eq!(rows, [(1_000, vec![5]), (2_000, vec![])]);
//! # Ok::<(), tidemill::Error>(())
//! ```
//!
//! # Threads
//! | code of yours | runs on |
//! |---|---|
//! | closures of operators and of `foreach_batch` | the workers, [`workers`](Config::workers) of them |
//! | closures of `transform` and `transform_with` | the job loop, the only thread that takes ticks: keep them short |
//! | a [`Sink`] | the worker that finishes the job, one call at a time; at the stop a thread of the sink |
//! | a [`Receiver`] | a thread of its own |
//! | a [`Listener`] | one thread for all of them; a slow one loses events, and holds nothing up |
//!
//! [`StreamingContext::start`] returns once the sources have their addresses, and with a state directory once its log is
//! read. Its [`StreamHandle`] may be used from any thread, and stops the stream when it is dropped.
//!
//! # Where to go on
//! - The modules: [`config`], [`source`], [`stream`], [`sink`], [`metrics`], [`time`], [`error`], and [`testing`].
//! - The guide, `docs/guide` in the repository, has a page for each subject: `library.md` for programs like those above,
//!   `delivery.md` for what is promised, `from-spark-streaming.md` for those who come from there.
//! - `examples/` has a receiver of UDP datagrams, a sink in which each batch counts once, and a word count over TCP.
//! - `ARCHITECTURE.md` has the inside.
//! - The command `tidemill` runs a pipeline from a file, without a program: `tidemill --help`.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "Tidemill runs on Linux: it uses epoll, eventfd, fallocate and io_uring without a second way"
);

mod blocks;
mod cli;
pub mod config;
mod context;
mod dashboard;
pub mod error;
mod exec;
mod framing;
#[doc(hidden)]
pub mod internals;
mod journal;
mod lab;
mod load;
mod memory;
pub mod metrics;
mod net;
mod owner;
mod page;
mod scheduler;
mod settings;
pub mod sink;
pub mod source;
mod storage;
pub mod stream;
mod sync;
pub mod testing;
pub mod time;
mod wal;
mod wording;

pub use blocks::spill::Spilled;
pub use config::Config;
/// The earlier name of [`StreamHandle`], for programs that were written with it.
#[doc(hidden)]
pub use context::StreamHandle as Running;
pub use context::{
    Adjuster, Done, Inspector, Memory, ReceiverSource, ReceiverStatus, Recovered, Report,
    RunLimits, SocketSource, SourceReport, Stopper, StreamHandle, StreamingContext,
};
pub use error::{Error, Result};
pub use exec::Batch;
pub use journal::LogFigures;
pub use metrics::{Event, Listener};
pub use sink::Sink;
pub use source::direct::files::FilesSource;
pub use source::io::IoModel;
pub use source::{Receiver, ReceiverHandle};
/// The earlier name of [`stream`], for programs that were written with it.
#[doc(hidden)]
pub use stream as dstream;
pub use stream::DStream;
pub use time::{Interval, Time};
pub use wal::LogStats;

/// The crate `serde`, whose traits the keys and values of [states](stream::StateValue) have.
pub use serde;

/// The README's code is compiled with the documentation tests, and so is the guide's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/library.md")]
struct Guide;
