//! Tidemill: a micro-batch stream engine made of threads.

pub mod error;
pub mod sync;
pub mod time;

pub use error::{Error, Result};
pub use time::{Interval, Time};

pub mod block;
pub mod cli;
pub mod framing;
pub mod load;
pub mod slab;
