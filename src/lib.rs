//! Tidemill: a micro-batch stream engine made of threads, without async.
//!
//! A receiver reads records from TCP peers, a recurring timer cuts them into blocks, a second one turns the blocks of each
//! batch interval into jobs, and a fixed pool of workers runs them, one block for each partition. Start with
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

pub mod batch;
pub mod block;
pub mod checkpoint;
pub mod cli;
mod compare;
pub mod config;
mod context;
pub mod dashboard;
pub mod direct;
pub mod dstream;
pub mod error;
pub mod framing;
mod journal;
pub mod load;
pub mod metrics;
mod net;
pub mod owner;
pub mod receiver;
mod scheduler;
pub mod shuffle;
pub mod sink;
pub mod slab;
pub mod store;
pub mod sync;
pub mod testing;
pub mod time;
pub mod tracker;
pub mod wal;
mod words;
pub mod workers;

pub use batch::Batch;
pub use config::Config;
pub use context::{
    Adjuster, Done, Inspector, Memory, ReceiverSource, ReceiverStatus, Report, RunLimits, Running,
    SocketSource, SourceReport, Stopper, StreamingContext,
};
pub use direct::files::FilesSource;
pub use dstream::DStream;
pub use error::{Error, Result};
pub use journal::LogFigures;
pub use metrics::{Event, Listener};
pub use receiver::io::IoModel;
pub use receiver::{Receiver, ReceiverHandle};
pub use sink::Sink;
pub use time::{Interval, Time};

/// The README's code is compiled with the documentation tests, and so is the guide's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/library.md")]
struct Guide;
