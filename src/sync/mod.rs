//! The only import point for locks, atomics, queues, signals and threads.
//!
//! A normal build uses parking_lot and crossbeam. `--cfg tidemill_model` replaces them by twins with the same interface on
//! a schedule explorer, which checks each hand-over between threads over thousands of schedules. Nothing here reads a
//! clock: a wait with a deadline goes through `time::Clock`, which waits on a [`Signal`].

/// Atomics in memory that the kernel reads. They are always the real ones: no explorer schedules the kernel.
pub mod kernel {
    pub use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
}
mod gate;
mod mailbox;
pub(crate) mod planted;
mod poison;
#[cfg(not(tidemill_model))]
mod real;
mod signal;
mod stop;
mod tasks;
pub mod thread;

#[cfg(tidemill_model)]
mod model;

pub use std::sync::Arc;

#[cfg(tidemill_model)]
use model as primitives;
#[cfg(not(tidemill_model))]
use real as primitives;

pub use gate::{Gate, Waker};
pub use mailbox::{Mailbox, SendError};
pub use poison::Poison;
pub use primitives::{
    AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, Queue,
};
pub use signal::Signal;
pub use stop::StopToken;
pub use tasks::TaskQueue;

#[cfg(all(test, tidemill_model))]
pub(crate) mod explore;
