//! What the engine tells about itself: counters, and facts as values on a bounded bus. No HTTP, no text formats.

mod counters;
mod event;

pub use counters::ReceiverCounters;
pub use event::{Event, EventBus, Listener};
