//! `JobFusion`: the jobs of a batch that use one stream are planned together, so that it is computed in one pass.
//!
//! ```text
//! job 0 begins: plan 0, plan 1, plan 2 ─▶ stages of 0 ─▶ reached 1          job 1 begins: takes plan 1 ─▶ reached 2
//!               folds of 1 and 2 join the passes of 0
//! ```
//! A plan that was made ahead relies on all plans before it: their stages have run, and with them its own folds. If one
//! of them failed, or a fold of a later job, the plans made ahead are dropped, and the job is planned when it begins, like
//! every further attempt. So a job fails only by its own doing, and is repeated by itself. Belongs to the scheduler's
//! thread; the workers only mark what was reached. Knows no operator.

use std::collections::{HashSet, VecDeque};

use crate::exec::{Finish, Plan};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering};
use crate::time::{Moment, Time};

/// See the module.
#[derive(Default)]
pub(crate) struct JobFusion(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Jobs of one batch may run at the same time: then none can count on another one.
    off: bool,
    /// Of every output the streams above it that are computed element by element.
    jobs: Vec<HashSet<u32>>,
    /// Those streams.
    forks: HashSet<u32>,
    /// The current batch.
    time: Time,
    /// Its jobs that have begun.
    begun: HashSet<usize>,
    ahead: Option<Ahead>,
}

/// The plans made ahead, in the order of the jobs.
struct Ahead {
    progress: Progress,
    plans: VecDeque<Planned>,
}

/// The plan of a job that has not begun.
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
    /// Makes plan number `number` report when its stages have run.
    pub(crate) fn told_by(&self, number: usize, plan: Plan) -> Plan {
        let (reached, Plan { stages, finish }) = (Arc::clone(&self.reached), plan);
        let finish: Finish = Box::new(move |worker| {
            reached.store(number + 1, Ordering::Release);
            finish(worker)
        });
        Plan { stages, finish }
    }

    fn is_after(&self, plans: usize) -> bool {
        self.reached.load(Ordering::Acquire) == plans && !self.broken.load(Ordering::Relaxed)
    }
}

impl JobFusion {
    /// Every job computes its stream by itself.
    pub(crate) fn never(&self) {
        self.0.lock().off = true;
    }

    /// A stream that is computed element by element.
    pub(crate) fn add_fork(&self, node: u32) {
        self.0.lock().forks.insert(node);
    }

    /// The next output; these nodes lie above it.
    pub(crate) fn add_job(&self, above: &[u32]) {
        let mut inner = self.0.lock();
        let forks = above.iter().copied().filter(|node| inner.forks.contains(node)).collect();
        inner.jobs.push(forks);
    }

    /// Begins a job. Returns its plan if that was made ahead and is usable.
    pub(crate) fn begin(&self, job: usize, time: Time) -> Option<Planned> {
        let mut inner = self.0.lock();
        if inner.time != time {
            (inner.time, inner.ahead) = (time, None);
            inner.begun.clear();
        }
        inner.begun.insert(job);
        let ahead = inner.ahead.as_mut()?;
        let usable = |planned: &Planned| ahead.progress.is_after(planned.after);
        if !ahead.plans.front().is_some_and(usable) {
            // Also when the job that all others wait for is tried again.
            inner.ahead = None;
            return None;
        }
        ahead.plans.pop_front_if(|planned| planned.job == job)
    }

    /// The jobs to plan ahead with a job that has no plan: those that have not begun and use a stream that it uses, or that
    /// one of them uses.
    pub(crate) fn with(&self, job: usize) -> Vec<usize> {
        let inner = self.0.lock();
        let Some(forks) = inner.jobs.get(job) else { return Vec::new() };
        if inner.off || inner.ahead.is_some() || forks.is_empty() {
            return Vec::new();
        }
        let (mut forks, mut found) = (forks.clone(), HashSet::new());
        loop {
            let waits = |number: &usize| !inner.begun.contains(number) && !found.contains(number);
            let shares = |number: &usize| !forks.is_disjoint(&inner.jobs[*number]);
            let Some(next) = (0..inner.jobs.len()).filter(waits).find(shares) else { break };
            found.insert(next);
            forks.extend(&inner.jobs[next]);
        }
        let mut found = Vec::from_iter(found);
        found.sort_unstable();
        found
    }

    /// Keeps the plans that were made with a job that has begun.
    pub(crate) fn keep(
        &self,
        progress: Progress,
        plans: impl IntoIterator<Item = (usize, Plan, Arc<Mutex<Moment>>)>,
    ) {
        let planned = |(after, (job, plan, started))| Planned { job, plan, started, after };
        let plans: VecDeque<Planned> = (1..).zip(plans).map(planned).collect();
        self.0.lock().ahead = (!plans.is_empty()).then_some(Ahead { progress, plans });
    }

    /// The batch is done or given up.
    pub(crate) fn end(&self, time: Time) {
        let mut inner = self.0.lock();
        if inner.time == time {
            inner.ahead = None;
        }
    }
}
