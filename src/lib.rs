//! Tidemill: a micro-batch stream engine made of threads, without async.
//!
//! A receiver reads records from TCP peers, a recurring timer cuts them into blocks, a second one turns the blocks of each
//! batch interval into jobs, and a fixed pool of workers runs these, one block for each partition. Start with
//! [`StreamingContext`]; [`testing`] drives a stream on a clock that a test moves.
//!
//! ```no_run
//! use tidemill::{Config, Interval, IoModel, StreamingContext};
//!
//! let ctx = StreamingContext::new(Config::new("words").batch_interval(Interval::secs(1)))?;
//! let lines = ctx.socket_lines("127.0.0.1:9999", IoModel::Nio)?;
//! lines.flat_map(|line, out| out.extend(line.split_whitespace())).count_by_value().print(10);
//! ctx.start()?.await_termination()?;
//! # Ok::<(), tidemill::Error>(())
//! ```

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

pub use config::Config;
/// The earlier name of [`StreamHandle`], for programs that were written with it.
#[doc(hidden)]
pub use context::StreamHandle as Running;
pub use context::{
    Adjuster, Done, Inspector, Memory, ReceiverSource, ReceiverStatus, Report, RunLimits,
    SocketSource, SourceReport, Stopper, StreamHandle, StreamingContext,
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

/// The README's code is compiled with the documentation tests, and so is the guide's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/library.md")]
struct Guide;
