//! `BatchScope`: the part of a batch in progress that planning reads and workers add to.
//!
//! ```text
//! attempt ─▶ stages ─▶ publish(node, result, commit) ─▶ later jobs and attempts of the batch take the result
//!                                   └─ batch done: commit() runs what was left       abandoned: all of it is dropped
//! ```
//! So a node with state is computed once for each batch, and a failed attempt leaves no trace. A scope is made for one batch
//! and dropped with it. Planning and commits run on the scheduler's thread, publishing on the workers. Knows no operator.

use std::collections::BTreeMap;

use super::committed::CommittedBatches;
use super::memo::{Memo, NodeResult};
use super::wiring::Wiring;
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::Pool;
use crate::stream::state::commit::buffer::ChangelogBuffer;
use crate::sync::{Arc, Mutex};
use crate::time::{Interval, Time};

/// A node's work at the commit of its batch. It only hands values over: no user code, no long work.
pub(crate) type Commit = Box<dyn FnOnce() + Send>;

/// See the module.
pub(crate) struct BatchScope {
    wiring: Arc<Wiring>,
    /// What was committed when the batch began.
    committed: Arc<CommittedBatches>,
    work: Mutex<Work>,
}

/// What the stages of the batch have done.
#[derive(Default)]
struct Work {
    computed: Arc<Memo>,
    /// In the order of the nodes.
    commits: BTreeMap<u32, Commit>,
}

impl BatchScope {
    /// A batch begins.
    pub(crate) fn new(wiring: Arc<Wiring>, committed: Arc<CommittedBatches>) -> Arc<Self> {
        Arc::new(BatchScope { wiring, committed, work: Mutex::default() })
    }

    /// The facts of the graph.
    pub(crate) fn wiring(&self) -> &Wiring {
        &self.wiring
    }

    /// What was committed when the batch began.
    pub(crate) fn committed(&self) -> &Arc<CommittedBatches> {
        &self.committed
    }

    /// Slides are counted from here.
    pub(crate) fn zero(&self) -> Time {
        self.committed.zero()
    }

    /// True if a slide ends in the batch `time`: after the last committed batch, up to this one.
    pub(crate) fn is_due(&self, slide: Interval, time: Time) -> bool {
        self.committed.is_due(slide, time)
    }

    /// Counts what batches make.
    pub(crate) fn account(&self) -> Arc<MemoryBudget> {
        Arc::clone(self.wiring.pool.account())
    }

    /// Has the buffers of rows.
    pub(crate) fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.wiring.pool)
    }

    /// The changes in states that commits leave, if those are kept.
    pub(crate) fn changelog(&self) -> Option<Arc<Mutex<ChangelogBuffer>>> {
        self.wiring.changelog.clone()
    }

    /// The results that the batch has computed so far.
    pub(crate) fn computed(&self) -> Arc<Memo> {
        Arc::clone(&self.work.lock().computed)
    }

    /// Everything that `result` reads is computed: the rest of the batch takes it. The first attempt to get here wins.
    pub(crate) fn publish<T: ?Sized + 'static>(
        &self,
        node: u32,
        result: NodeResult<T>,
        commit: Option<Commit>,
    ) {
        let mut work = self.work.lock();
        if work.computed.has(node) {
            return;
        }
        Arc::make_mut(&mut work.computed).insert(node, result);
        work.commits.extend(commit.map(|commit| (node, commit)));
    }

    /// Adds results whose stages have not run: for a planted defect.
    pub(crate) fn keep_planned(&self, planned: &Memo) {
        Arc::make_mut(&mut self.work.lock().computed).extend(planned);
    }

    /// Runs the commits that the batch's nodes left, and drops their results.
    pub(crate) fn commit(&self) {
        let Work { computed, commits } = std::mem::take(&mut *self.work.lock());
        // The results go first: a commit that finds itself the only owner of a result need not copy it.
        drop(computed);
        commits.into_values().for_each(|commit| commit());
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::exec::Batch;
    use crate::stream::Missing;
    use crate::sync::{AtomicUsize, Ordering};

    #[test]
    fn the_first_result_of_a_batch_counts_and_its_commit_runs_once() {
        let commits = Arc::new(AtomicUsize::new(0));
        let begin = || BatchScope::new(Arc::new(Wiring::new(0)), Arc::default());
        let publish = |scope: &BatchScope, weight: usize| {
            let commits = Arc::clone(&commits);
            let commit: Commit = Box::new(move || {
                commits.fetch_add(weight, Ordering::SeqCst);
            });
            scope.publish(7, Err::<Batch<i32>, _>(Missing::NotDue), Some(commit));
        };
        let scope = begin();
        publish(&scope, 1);
        publish(&scope, 10);
        assert!(scope.computed().has(7));
        scope.commit();
        scope.commit();
        assert_eq!(commits.load(Ordering::SeqCst), 1);
        let scope = begin();
        assert!(!scope.computed().has(7), "another batch has nothing of this one");
        publish(&scope, 100);
        drop(scope);
        assert_eq!(commits.load(Ordering::SeqCst), 1, "an abandoned batch leaves no trace");
    }
}
