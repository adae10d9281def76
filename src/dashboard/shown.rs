//! `Shown`: the content of a server, a stream or a start in progress. Plain data.

use crate::context::Inspector;

/// The content of a server.
#[derive(Clone, Debug)]
pub enum Shown {
    /// A stream that is still starting.
    Starting(Starting),
    /// A stream, also after its end.
    Stream(Box<Inspector>),
}

/// The progress of a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Starting {
    /// Bytes of an earlier run's log that were read.
    pub read_bytes: u64,
    /// Bytes of that log in all, at most; 0 if there is none.
    pub log_bytes: u64,
}

impl From<Starting> for Shown {
    fn from(starting: Starting) -> Self {
        Shown::Starting(starting)
    }
}

impl From<Inspector> for Shown {
    fn from(stream: Inspector) -> Self {
        Shown::Stream(Box::new(stream))
    }
}
