//! `OpenBatch`: a batch in progress, from its opening to its commit. Dropped without a commit it is abandoned.
//!
//! ```text
//! graph.open_batch(input) ─▶ plan(job) ─▶ run ─▶ plan(job) ─▶ run … ─▶ commit()
//!                                              └─ a retry            └─ or dropped: no trace
//! ```
//! Everything that one batch knows and the next must not lies here and in its [`BatchScope`]. The plans of a group of jobs
//! are a function of graph, input, jobs and the nodes that the batch has computed; what is kept of a planning is only the
//! plans themselves. Belongs to whoever runs the batch: the scheduler's thread. Knows no operator.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Planner;
use super::batch_scope::BatchScope;
use super::job_fusion::{PlannedAhead, Progress};
use crate::exec::{Plan, PlanName, Sharing, failure_text};
use crate::stream::{BatchInput, Graph, Missing, Replay};
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Moment, Time};

/// See the module.
pub struct OpenBatch {
    graph: Arc<Graph>,
    input: Arc<BatchInput>,
    scope: Arc<BatchScope>,
    /// The jobs that have begun.
    begun: Vec<usize>,
    ahead: PlannedAhead,
    /// The batch runs again.
    is_replay: bool,
}

impl std::fmt::Debug for OpenBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenBatch").field("time", &self.time()).finish_non_exhaustive()
    }
}

impl Graph {
    /// Opens a batch. Batches are opened one after the other: each sees what those before it committed.
    pub fn open_batch(self: &Arc<Self>, input: &Arc<BatchInput>) -> OpenBatch {
        let mut committed = self.committed();
        if !committed.has_begun() {
            // A graph that nobody started begins with the first batch that is committed.
            Arc::make_mut(&mut committed).begin(input.time, self.settings.batch_interval);
        }
        OpenBatch {
            graph: Arc::clone(self),
            input: Arc::clone(input),
            scope: BatchScope::new(self.wiring(), committed),
            begun: Vec::new(),
            ahead: PlannedAhead::default(),
            is_replay: false,
        }
    }
}

impl OpenBatch {
    /// The batch's time.
    pub fn time(&self) -> Time {
        self.input.time
    }

    /// Plans an attempt at a job, which begins at `started`; `job` is the place of its output in registration order. The
    /// jobs that share a pass with it and have not begun are planned with its first attempt: the streams that they share
    /// are computed once for all of them, in this plan.
    ///
    /// # Errors
    /// If the batch cannot be computed, or a closure of `transform` panicked; the text says why.
    pub fn plan(
        &mut self,
        job: usize,
        clock: &Arc<dyn Clock>,
        started: Moment,
    ) -> Result<Plan, String> {
        if let Some(planned) = self.ahead.take(job) {
            self.begun.push(job);
            *planned.started.lock() = started;
            return Ok(planned.plan);
        }
        let mut jobs = vec![job];
        if !self.begun.contains(&job) {
            self.begun.push(job);
            if self.ahead.is_empty() {
                // Jobs begin in their order: one before this that has not begun is not for this batch.
                let waits = |other: &usize| *other > job && !self.begun.contains(other);
                let group = self.scope.wiring().group(job);
                jobs.extend(group.iter().copied().filter(waits));
            }
        }
        let mut planned = self.plan_jobs(&jobs, clock, started)?;
        let first = planned.take_first().expect("the plan of the first job is there");
        if !planned.is_empty() {
            self.ahead = planned;
        }
        Ok(first.plan)
    }

    /// The plans of these jobs, in which each stream that several of them use is computed once. A job that cannot be planned
    /// ends the list: it fails when it is its turn, and nothing after it relies on it.
    ///
    /// # Errors
    /// If the first job cannot be planned; the text says why.
    pub(crate) fn plan_jobs(
        &self,
        jobs: &[usize],
        clock: &Arc<dyn Clock>,
        started: Moment,
    ) -> Result<PlannedAhead, String> {
        let mut planner = Planner::new(&self.input, clock, &self.scope, self.graph.settings);
        let progress = Progress::default();
        let mut planned = PlannedAhead::new(progress.clone());
        for number in jobs {
            let Some(job) = self.graph.job(*number) else { break };
            let broken = Arc::clone(&progress.broken);
            planner.share = (jobs.len() > 1).then_some(Sharing { job: *number, broken });
            let began = Arc::new(Mutex::new(started));
            match job.plan(&mut planner, &began) {
                Ok(plan) => planned.add(*number, plan, began),
                Err(text) if planned.is_empty() => {
                    if planted(Planted::FailedPlanningIsKept) {
                        self.scope.keep_planned(planner.memo.planned());
                    }
                    return Err(text);
                }
                Err(_) => break,
            }
        }
        Ok(planned)
    }

    /// Plans an earlier batch again: windows and states take it in, at the commit.
    ///
    /// # Errors
    /// If the batch cannot be computed; the text says why.
    pub fn replay(&mut self, clock: &Arc<dyn Clock>, replay: Replay) -> Result<Plan, String> {
        self.is_replay = true;
        let keepers = self.graph.keepers();
        let mut planner = Planner::new(&self.input, clock, &self.scope, self.graph.settings);
        planner.replay = Some(replay);
        for (_, keeper) in keepers.iter().filter(|(node, _)| self.scope.wiring().is_used(*node)) {
            match catch_unwind(AssertUnwindSafe(|| keeper(&mut planner))) {
                Ok(Ok(()) | Err(Missing::NoBatch(_) | Missing::NotDue)) => {}
                Ok(Err(Missing::Failed(text))) => return Err(text),
                Err(unwound) => return Err(failure_text(unwound.as_ref())),
            }
        }
        let name = PlanName { batch: self.input.index, job: "replay".into() };
        Ok(Plan { name, stages: planner.stages.take(), finish: Box::new(|_| Ok(())) })
    }

    /// Commits the batch: its changes in windows and states count from now on.
    pub fn commit(self) {
        let OpenBatch { graph, input, scope, ahead, is_replay, .. } = self;
        // What was planned ahead and not used holds results of the batch.
        drop(ahead);
        scope.commit();
        graph.has_committed(&input, is_replay);
    }
}
