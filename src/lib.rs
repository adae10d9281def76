//! Tidemill: a micro-batch stream engine made of threads.

pub mod error;
pub mod sync;
pub mod time;

pub use batch::Batch;
pub use dstream::DStream;
pub use error::{Error, Result};
pub use sink::Sink;
pub use time::{Interval, Time};

pub mod slab;
pub mod block;
pub mod framing;
pub mod workers;
pub mod batch;
pub mod shuffle;
pub mod sink;
pub mod dstream;
