//! Tidemill: a micro-batch stream engine made of threads.

pub mod error;
pub mod sync;
pub mod time;

pub use error::{Error, Result};
pub use time::{Interval, Time};

pub mod slab;
pub mod block;
pub mod framing;
pub mod receiver;

pub mod cli;
pub mod config;

pub use config::Config;
