//! Batches and the plans that compute them: lazy partitions, the stages of a plan, and the workers that run them.
//!
//! ```text
//! Partition ─▶ folds ─▶ Stage: a task for each partition ─▶ Slots ─▶ later partitions ─▶ finish
//! ```
//! Wide operators put a stage of tasks into the plan; later partitions read what its tasks left in shared slots. Runs on the
//! workers. Knows nothing of time, streams or sinks.

mod failure;
mod fold;
mod inputs;
mod partition;
mod plan;
mod shared_pass;
pub mod shuffle;
mod stages;
pub mod worker_pool;

pub use failure::{Away, Failure, fail_task, failure_text};
pub(crate) use fold::Sharing;
pub use fold::{Fold, folding};
pub use inputs::Inputs;
pub(crate) use inputs::StageReads;
pub use partition::{Batch, Out, Partition};
pub use plan::{Finish, Needs, Plan, PlanName, Stages, Work};
pub(crate) use shared_pass::fold_tasks;
pub use stages::run;
