//! Tidemill: a micro-batch stream engine made of threads.

pub mod block;
pub mod error;
pub mod framing;
pub mod metrics;
pub mod receiver;
pub mod slab;
pub mod store;
pub mod sync;
pub mod time;
pub mod tracker;

pub use error::{Error, Result};
pub use metrics::{Event, Listener};
pub use receiver::io::IoModel;
pub use time::{Interval, Time};
