//! What the engine tells about itself: counters, times, batches, conditions that last, tallies of what happens often, and
//! facts as values on a bounded bus. No HTTP, no text formats.

mod batches;
mod conditions;
mod counters;
mod event;
mod latency;
mod reloads;
mod tallies;
mod watch;

pub use batches::{BatchRecord, BatchState, EngineTimes, History, Moments, STAGES, Stage};
pub use conditions::{
    CONDITIONS, Condition, ConditionHandle, ConditionKind, ConditionRow, Conditions,
};
pub use counters::{Counter, ReceiverCounters};
pub use event::{Event, EventBus, Listener};
pub use latency::{Latency, Recorder, Times};
pub use reloads::{Reloaded, Reloads};
pub use tallies::{Tallies, Tally, TallyKind};
pub use watch::{Slow, Watch};
