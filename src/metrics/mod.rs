//! The engine's reports about itself: counters, times, batches, conditions that last, tallies of frequent things, and facts
//! as values on a bounded bus. No HTTP, no text formats.

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

pub use batches::{BatchRecord, BatchState, EngineTimes, History, Moments, STAGES, Stage};
pub use bus::EventBus;
pub use condition::{CONDITIONS, Condition, ConditionKind, ConditionRow};
pub use conditions::{ConditionHandle, Conditions, Slow, Watch};
pub use counters::{Counter, ReceiverCounters};
pub use event::{Event, Listener};
pub use latency::{Latency, Recorder, Times};
pub use reloads::{Reloaded, Reloads};
pub use tallies::Tallies;
pub use tally::{Tally, TallyKind};
