//! Tidemill: a micro-batch stream engine made of threads.

pub mod batch;
pub mod block;
pub mod cli;
pub mod config;
mod context;
pub mod dstream;
pub mod error;
pub mod framing;
pub mod metrics;
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
pub mod workers;

pub use batch::Batch;
pub use config::Config;
pub use context::{
    Report, RunLimits, Running, SocketSource, SourceReport, Stopper, StreamingContext,
};
pub use dstream::DStream;
pub use error::{Error, Result};
pub use metrics::{Event, Listener};
pub use receiver::io::IoModel;
pub use sink::Sink;
pub use time::{Interval, Time};
