//! Receiving: sockets, or a user's own receiver, to blocks. A program names [`SocketSource`], [`FilesSource`], or a
//! [`Receiver`] or [`DirectSource`] of its own; [`IO_MODELS`] has the ways to read sockets.
//!
//! ```text
//!  dial / accept ─▶ io model ─▶ session (framing) ─▶ range queue ─▶ block cutter ─▶ BlockTarget
//!                                                                 └─ with a log: chunks ─┘
//! ```
//! A `RunningSource` is what the context holds of a source. A `SocketReceiver` supervises its threads: it dials with bounded
//! back-off or listens, runs the io model, and stops in order: no more reading, then the last cut, then the last push, and, once
//! all is answered, the close of the last connections. A `CustomReceiver` does so for a user's [`Receiver`], whose records are
//! gathered to ranges and take the same way. It knows nothing of jobs and sinks.

mod away;
mod custom;
pub(crate) mod direct;
mod engine;
pub(crate) mod ingest;
pub(crate) mod io;
#[cfg(all(test, tidemill_model))]
mod model;
pub(crate) mod options;
mod pause;
mod running;
pub(crate) mod socket;
#[cfg(all(test, not(tidemill_model)))]
mod tests;

pub use crate::framing::Framing;
pub(crate) use custom::{CustomOptions, CustomReceiver, ReceiverSlot};
pub use custom::{Receiver, ReceiverHandle};
pub use direct::files::select::EXCLUDED;
pub use direct::files::{BATCH_BYTES_MAX, FilesSource, OPEN_FILES_MAX};
pub use direct::{DirectPartition, DirectSource, DirectStart, Lost, OnLost, Unit};
pub(crate) use engine::When;
pub(crate) use engine::{Engine, RateOptions};
pub(crate) use ingest::backlog_trigger::BacklogTrigger;
pub(crate) use ingest::rate_limit::{RateLimiter, Usage};
pub use io::{IO_MODELS, IoModel, Row as IoModelRow, probe};
pub(crate) use options::RECORD_BYTES_MAX;
#[doc(hidden)]
pub use options::SOURCES;
pub use options::{Ack, RateLimits, SocketSource};
pub(crate) use options::{GenerateSource, Source};
pub use pause::PausedBy;
pub(crate) use running::{Cutter, RunningSource, Steered};
pub(crate) use socket::dialer::BackOff;
pub(crate) use socket::session::AckAt;
pub use socket::supervisor::Direction;
pub(crate) use socket::supervisor::{SocketOptions, SocketReceiver, expect_address};
pub(crate) use socket::unfinished::{Sources as UnfinishedOf, Unfinished};
