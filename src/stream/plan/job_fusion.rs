//! `PlannedAhead`: the plans of jobs that were planned together, so that the streams they share are computed in one pass.
//!
//! ```text
//! job 0 begins: plan 0, plan 1, plan 2 ─▶ stages of 0 ─▶ reached 1          job 1 begins: takes plan 1 ─▶ reached 2
//!               folds of 1 and 2 join the passes of 0
//! ```
//! A plan that was made ahead relies on all plans before it: their stages have run, and with them its own folds. If one
//! of them failed, or a fold of a later job, the plans made ahead are dropped, and the job is planned when it begins. Every
//! further attempt at a job is planned alone. So a job fails only by its own doing, and is repeated by itself. Belongs to
//! the scheduler's thread; the workers only mark what was reached. Knows no operator.

use std::collections::VecDeque;

use crate::exec::{Finish, Plan};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering};
use crate::time::Moment;

/// The plans of jobs that have not begun, in the order of the jobs.
#[derive(Default)]
pub(crate) struct PlannedAhead {
    progress: Progress,
    plans: VecDeque<Planned>,
}

/// The plan of a job that was planned with others.
pub(crate) struct Planned {
    pub(crate) job: usize,
    pub(crate) plan: Plan,
    /// The moment at which it began, for its output.
    pub(crate) started: Arc<Mutex<Moment>>,
    /// Number of plans before it.
    after: usize,
}

/// The progress of plans that were made together.
#[derive(Clone, Default)]
pub(crate) struct Progress {
    /// Number of plans that have run their stages, one after the other.
    reached: Arc<AtomicUsize>,
    /// A fold of a job failed in the pass of another.
    pub(crate) broken: Arc<AtomicBool>,
}

impl Progress {
    /// Makes a plan report when its stages have run.
    fn told_by(&self, planned: Planned) -> Planned {
        let Planned { plan: Plan { name, stages, finish }, after, .. } = planned;
        let reached = Arc::clone(&self.reached);
        let finish: Finish = Box::new(move |worker| {
            reached.store(after + 1, Ordering::Release);
            finish(worker)
        });
        Planned { plan: Plan { name, stages, finish }, ..planned }
    }

    fn is_after(&self, plans: usize) -> bool {
        self.reached.load(Ordering::Acquire) == plans && !self.broken.load(Ordering::Relaxed)
    }
}

impl PlannedAhead {
    /// No plans yet.
    pub(crate) fn new(progress: Progress) -> Self {
        PlannedAhead { progress, plans: VecDeque::new() }
    }

    /// Adds the plan of the next job.
    pub(crate) fn add(&mut self, job: usize, plan: Plan, started: Arc<Mutex<Moment>>) {
        let planned = Planned { job, plan, started, after: self.plans.len() };
        self.plans.push_back(self.progress.told_by(planned));
    }

    /// Takes the first of all plans, which relies on no other.
    pub(crate) fn take_first(&mut self) -> Option<Planned> {
        self.plans.pop_front()
    }

    /// Takes the plan of a job that begins, if it is the next one and usable. Drops all plans that are not.
    pub(crate) fn take(&mut self, job: usize) -> Option<Planned> {
        let usable = |planned: &Planned| self.progress.is_after(planned.after);
        if !self.plans.front().is_some_and(usable) {
            // Also when the job that all others wait for is tried again.
            self.plans.clear();
        }
        self.plans.pop_front_if(|planned| planned.job == job)
    }

    /// True if no job is planned ahead.
    pub(crate) fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// The plans, in the order of the jobs.
    #[cfg(test)]
    pub(crate) fn plans(&self) -> impl Iterator<Item = &Planned> {
        self.plans.iter()
    }
}
