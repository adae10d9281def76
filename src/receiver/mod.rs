//! Receiving: sockets, or a user's own receiver, to blocks.
//!
//! ```text
//!  dial / accept ─▶ io model ─▶ connection (framing) ─▶ range queue ─▶ generator ─▶ BlockTarget
//!                                                                    └─ with a log: chunks ─┘
//! ```
//! A `SocketReceiver` supervises one source: it dials with bounded back-off or listens, runs the io model, and stops
//! in order: no more reading, then the last cut, then the last push, and, once all is answered, the close of the last
//! connections. A `CustomReceiver` does so for a user's [`Receiver`],
//! whose records are gathered to ranges and take the same way. It knows nothing of jobs and sinks.

mod active;
mod answers;
mod arrivals;
mod aside;
mod away;
pub(crate) mod chunks;
mod connection;
mod custom;
mod dial;
mod engine;
mod gather;
pub(crate) mod generator;
pub(crate) mod handover;
pub mod io;
#[cfg(all(test, tidemill_model))]
mod model;
mod pause;
pub(crate) mod queue;
mod rate;
mod socket;
#[cfg(all(test, not(tidemill_model)))]
mod tests;
mod unfinished;

pub(crate) use active::{ActiveReceiver, Cutter, Steered};
pub(crate) use arrivals::Arrivals;
pub(crate) use connection::AckAt;
pub(crate) use custom::{CustomOptions, CustomReceiver, ReceiverSlot};
pub use custom::{Receiver, ReceiverHandle};
pub(crate) use dial::BackOff;
pub use engine::When;
pub(crate) use engine::{Engine, RateOptions};
pub use pause::PausedBy;
pub(crate) use rate::{RateLimiter, Usage};
pub use socket::Direction;
pub(crate) use socket::{SocketOptions, SocketReceiver, expect_address};
pub(crate) use unfinished::{Sources as UnfinishedOf, Unfinished};
