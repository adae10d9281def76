//! The engine's reports about itself: counters, times, batches, conditions that last, tallies of frequent things, and facts
//! as values on a bounded bus. A program sees them through a [`Listener`] and an [`Inspector`](crate::Inspector). No HTTP, no
//! text formats.

mod batches;
mod bus;
mod condition;
mod conditions;
mod counters;
mod event;
mod latency;
mod reloads;
mod tallies;
mod tally;

pub(crate) use batches::History;
pub use batches::{BatchRecord, BatchState, EngineTimes, Moments, STAGES, Stage};
pub use bus::EventBus;
pub use condition::{CONDITIONS, Condition, ConditionKind, ConditionRow};
pub(crate) use conditions::{ConditionHandle, Conditions, Slow, Watch};
pub use counters::{Counter, ReceiverCounters};
pub use event::{Event, Listener};
pub(crate) use latency::Recorder;
pub use latency::{Latency, Times};
#[doc(hidden)]
pub use reloads::Reloaded;
pub(crate) use reloads::Reloads;
pub(crate) use tallies::Tallies;
pub use tally::{Tally, TallyKind};
