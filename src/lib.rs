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

pub mod blocks;
pub mod cli;
pub mod config;
mod context;
pub mod dashboard;
pub mod error;
pub mod exec;
pub mod framing;
mod journal;
#[doc(hidden)]
pub mod lab;
pub mod load;
pub mod memory;
pub mod metrics;
mod net;
pub mod owner;
mod scheduler;
pub mod settings;
pub mod sink;
pub mod source;
pub mod storage;
pub mod stream;
pub mod sync;
pub mod testing;
pub mod time;
pub mod wal;
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

/// What tests and benches of this crate need of the inside; no part of the interface.
#[doc(hidden)]
pub mod internals {
    /// The crash tests fill small segments, and look at what a life leaves in them.
    pub use crate::context::internals::{Looked, chunk_records, keep_state_in, look};
    /// They feed sources without sockets, and know when the log has what they fed.
    pub use crate::context::internals::{memory_budget, offer, receivers, sync_log};
}

/// The README's code is compiled with the documentation tests, and so is the guide's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/guide/library.md")]
struct Guide;
