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
    #[cfg(all(test, not(tidemill_model)))]
    pub(crate) fn plans(&self) -> impl Iterator<Item = &Planned> {
        self.plans.iter()
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::exec::PlanName;

    /// An event in the life of plans that were made together.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// The stages of the plan that was taken last have run.
        Ran,
        /// A fold of a job has failed in the pass of another.
        Broken,
        /// A job begins or is tried again; its plan is there or not.
        Take(usize, bool),
    }

    /// Jobs 0, 2 and 3 were planned together, and the plan of job 0 was taken.
    fn check(events: &[Event]) {
        let progress = Progress::default();
        let mut ahead = PlannedAhead::new(progress.clone());
        for job in [0, 2, 3] {
            let (name, stages) = (PlanName::default(), Vec::new());
            let plan = Plan { name, stages, finish: Box::new(|_| Ok(())) };
            ahead.add(job, plan, Arc::default());
        }
        let mut taken = ahead.take_first();
        for event in events {
            match event {
                Event::Ran => {
                    let planned = taken.take().expect("a plan was taken");
                    (planned.plan.finish)(0).expect("it succeeds");
                }
                Event::Broken => progress.broken.store(true, Ordering::Relaxed),
                Event::Take(job, expected) => {
                    let found = ahead.take(*job);
                    assert_eq!(found.is_some(), *expected, "{event:?} of {events:?}");
                    assert!(found.as_ref().is_none_or(|found| found.job == *job));
                    taken = found.or(taken);
                }
            }
        }
    }

    #[test]
    fn a_plan_made_ahead_is_used_only_if_those_before_it_have_run() {
        use Event::{Broken, Ran, Take};
        check(&[Ran, Take(2, true), Ran, Take(3, true), Ran, Take(3, false)]);
        // Nothing before it has run.
        check(&[Take(2, false), Ran, Take(2, false)]);
        check(&[Ran, Take(2, true), Take(3, false)]);
        // The first job is tried again, because its stages failed or because its sink did.
        check(&[Take(0, false), Take(2, false)]);
        check(&[Ran, Take(0, false), Take(2, true)]);
        check(&[Ran, Take(2, true), Ran, Take(2, false), Take(3, true)]);
        // Another job, or one that is out of its turn.
        check(&[Ran, Take(1, false), Take(3, false), Take(2, true)]);
        check(&[Ran, Broken, Take(2, false)]);
    }
}
