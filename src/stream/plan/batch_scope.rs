//! `BatchScope`: the results of the current batch that its jobs share, and the changes that its commit will make.
//!
//! ```text
//! attempt ─▶ stages ─▶ publish(node, result, commit) ─▶ later jobs and attempts of the batch take the result
//!                                   └─ batch done: commit() runs what was left       failed: abandon() drops it
//! ```
//! So a node with state is computed once for each batch, and a failed attempt leaves no trace. Planning and commits run
//! on the scheduler's thread, publishing on the workers. Knows no operator.

use std::any::Any;
use std::collections::HashMap;

use super::job_fusion::JobFusion;
use super::lacks::Lacks;
use crate::exec::Batch;
use crate::memory::budget::MemoryBudget;
use crate::memory::buffer_pool::Pool;
use crate::stream::Missing;
use crate::stream::kept::Kept;
use crate::stream::state::commit::buffer::ChangelogBuffer;
use crate::sync::{Arc, Mutex};
use crate::time::{Interval, Time};

/// A node's work at the commit of its batch. It only hands values over: no user code, no long work.
pub(crate) type Commit = Box<dyn FnOnce() + Send>;

/// See the module.
#[derive(Default)]
pub(crate) struct BatchScope {
    inner: Mutex<Inner>,
    /// The jobs that are planned together.
    pub(crate) fusion: JobFusion,
    /// The memory that nodes keep from batch to batch.
    kept: Kept,
}

#[derive(Default)]
struct Inner {
    /// One interval before the first batch: slides are counted from here.
    zero: Option<Time>,
    /// The last committed batch.
    last: Option<Time>,
    published: HashMap<u32, Published>,
    /// Number of outputs below a node.
    outputs_below: HashMap<u32, usize>,
    slides: Vec<Interval>,
    timeouts: bool,
    /// The seed of every hash.
    seed: u64,
    /// The buffers of batches' results, and their count; without a bound until a pool is set.
    pool: Option<Arc<Pool>>,
    /// The changes in states that commits leave, if those are kept.
    changelog: Option<Arc<Mutex<ChangelogBuffer>>>,
    /// The input that batches lacked.
    lacks: Lacks,
}

/// A node's result in a batch, and its work at the commit.
pub(crate) struct Published {
    time: Time,
    /// A `Result<Batch<T>, Missing>`.
    result: Box<dyn Any + Send>,
    commit: Option<Commit>,
}

impl Published {
    pub(crate) fn new<T: ?Sized + 'static>(
        time: Time,
        result: Result<Batch<T>, Missing>,
        commit: Option<Commit>,
    ) -> Self {
        Published { time, result: Box::new(result), commit }
    }
}

impl BatchScope {
    /// The first batch will be `first`, one `interval` after the zero that slides are counted from.
    pub(crate) fn begin(&self, first: Time, interval: Interval) {
        let zero = first.as_millis().saturating_sub(interval.as_millis());
        self.inner.lock().zero.get_or_insert(Time::from_millis(zero));
    }

    /// Slides are counted from here.
    pub(crate) fn zero(&self) -> Time {
        self.inner.lock().zero.unwrap_or_default()
    }

    /// The seed of every hash.
    pub(crate) fn seed(&self) -> u64 {
        self.inner.lock().seed
    }

    pub(crate) fn set_seed(&self, seed: u64) {
        self.inner.lock().seed = seed;
    }

    /// The memory that nodes keep from batch to batch.
    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Counts what batches make.
    pub(crate) fn account(&self) -> Arc<MemoryBudget> {
        Arc::clone(self.pool().account())
    }

    /// Has the buffers of rows.
    pub(crate) fn pool(&self) -> Arc<Pool> {
        let mut inner = self.inner.lock();
        Arc::clone(inner.pool.get_or_insert_with(|| Pool::new(MemoryBudget::new(usize::MAX))))
    }

    pub(crate) fn set_pool(&self, pool: &Arc<Pool>) {
        self.inner.lock().pool = Some(Arc::clone(pool));
    }

    /// From now on commits leave what they changed in states.
    pub(crate) fn keep_changes(&self) {
        self.inner.lock().changelog.get_or_insert_default();
    }

    /// The changes in states that commits leave, if those are kept.
    pub(crate) fn changelog(&self) -> Option<Arc<Mutex<ChangelogBuffer>>> {
        self.inner.lock().changelog.clone()
    }

    /// True if an output lies below the node.
    pub(crate) fn is_used(&self, node: u32) -> bool {
        self.inner.lock().outputs_below.contains_key(&node)
    }

    /// A stream that is computed element by element.
    pub(crate) fn add_fork(&self, node: u32) {
        self.fusion.add_fork(node);
    }

    /// The next output, which lies below these nodes.
    pub(crate) fn add_output(&self, nodes: &[u32]) {
        self.fusion.add_job(nodes);
        let mut inner = self.inner.lock();
        for node in nodes {
            *inner.outputs_below.entry(*node).or_default() += 1;
        }
    }

    /// Some window slides by this.
    pub(crate) fn add_slide(&self, slide: Interval) {
        self.inner.lock().slides.push(slide);
    }

    /// Some state has a time-out.
    pub(crate) fn add_timeout(&self) {
        self.inner.lock().timeouts = true;
    }

    /// True if several jobs of a batch use the node.
    pub(crate) fn is_shared(&self, node: u32) -> bool {
        self.inner.lock().outputs_below.get(&node).is_some_and(|outputs| *outputs > 1)
    }

    /// The input that batches lacked.
    pub(crate) fn lacks<T>(&self, look: impl FnOnce(&mut Lacks) -> T) -> T {
        look(&mut self.inner.lock().lacks)
    }

    /// True if a slide ends in the batch `time`: after the last committed batch, up to this one.
    pub(crate) fn is_due(&self, slide: Interval, time: Time) -> bool {
        let inner = self.inner.lock();
        let zero = inner.zero.unwrap_or_default();
        end_after(slide, zero, inner.last.unwrap_or(zero)) <= time
    }

    /// True if a window or a time-out may fall due after `last` and up to `time`, so that the batch must run even if it
    /// is empty.
    pub(crate) fn must_run(&self, last: Option<Time>, time: Time) -> bool {
        let inner = self.inner.lock();
        let zero = inner.zero.unwrap_or_default();
        let from = last.unwrap_or(zero);
        inner.timeouts || inner.slides.iter().any(|slide| end_after(*slide, zero, from) <= time)
    }

    /// The next end of a slide after the batch `time`.
    pub(crate) fn next_end(&self, slide: Interval, time: Time) -> Time {
        end_after(slide, self.zero(), time)
    }

    /// The first end of any window's slide after the batch `time`.
    pub(crate) fn next_end_of_any(&self, time: Time) -> Option<Time> {
        let inner = self.inner.lock();
        let zero = inner.zero.unwrap_or_default();
        inner.slides.iter().map(|slide| end_after(*slide, zero, time)).min()
    }

    /// The node's result, if a job or an attempt of this batch has computed it.
    pub(crate) fn known<T: ?Sized + 'static>(
        &self,
        node: u32,
        time: Time,
    ) -> Option<Result<Batch<T>, Missing>> {
        let inner = self.inner.lock();
        let published = inner.published.get(&node).filter(|published| published.time == time)?;
        published.result.downcast_ref::<Result<Batch<T>, Missing>>().cloned()
    }

    /// Everything that `result` reads is computed: the rest of the batch takes it. The first attempt to get here wins.
    pub(crate) fn publish(&self, node: u32, published: Published) {
        let mut inner = self.inner.lock();
        if inner.published.get(&node).is_none_or(|earlier| earlier.time != published.time) {
            inner.published.insert(node, published);
        }
    }

    /// Runs the commits that the batch's nodes left, and drops their results.
    pub(crate) fn commit(&self, time: Time) {
        // What was planned ahead and not used holds results of the batch.
        self.fusion.end(time);
        let published = {
            let mut inner = self.inner.lock();
            inner.last = Some(time);
            std::mem::take(&mut inner.published)
        };
        let of_batch = published.into_values().filter(|published| published.time == time);
        // The results go first: a commit that finds itself the only owner of a result need not copy it.
        let commits: Vec<Commit> = of_batch.filter_map(|published| published.commit).collect();
        commits.into_iter().for_each(|commit| commit());
    }

    /// Abandons the batch: it leaves no trace.
    pub(crate) fn abandon(&self, time: Time) {
        self.fusion.end(time);
        let mut inner = self.inner.lock();
        let published = std::mem::take(&mut inner.published);
        inner.published = published.into_iter().filter(|(_, left)| left.time != time).collect();
    }
}

/// The first multiple of `slide`, counted from `zero`, after `time`.
fn end_after(slide: Interval, zero: Time, time: Time) -> Time {
    let since = time.as_millis().saturating_sub(zero.as_millis());
    let slides = since.checked_div(slide.as_millis()).unwrap_or_default();
    zero.plus(slide, slides.saturating_add(1))
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_slide_is_due_once_also_after_missed_ticks() {
        let scope = BatchScope::default();
        let (time, slide) = (Time::from_millis, Interval::secs(2));
        scope.begin(time(1_000), Interval::secs(1));
        let check = |at: u64, due: bool| {
            assert_eq!(scope.is_due(slide, time(at)), due, "{at}");
            scope.commit(time(at));
        };
        check(1_000, false);
        check(2_000, true);
        check(3_000, false);
        // The tick at 4 s was missed: its window falls due at 5 s, and the next one at 6 s as usual.
        check(5_000, true);
        check(6_000, true);
        check(11_000, true);
        check(11_500, false);
    }

    #[test]
    fn an_empty_batch_runs_if_a_slide_ends_in_it_or_a_key_may_time_out() {
        let scope = BatchScope::default();
        let time = Time::from_millis;
        scope.begin(time(1_000), Interval::secs(1));
        assert!(!scope.must_run(None, time(9_000)), "nothing waits for a time");
        scope.add_slide(Interval::secs(3));
        let runs = |last: Option<u64>, at: u64| scope.must_run(last.map(time), time(at));
        assert_eq!(
            [runs(None, 2_000), runs(None, 3_000), runs(Some(3_000), 5_000)],
            [false, true, false]
        );
        assert!(runs(Some(5_000), 7_000), "the slide ended while no batch ran");
        scope.add_timeout();
        assert!(runs(Some(3_000), 4_000));
    }

    #[test]
    fn the_first_result_of_a_batch_counts_and_its_commit_runs_once() {
        use crate::sync::{AtomicUsize, Ordering};
        let (scope, commits) = (BatchScope::default(), Arc::new(AtomicUsize::new(0)));
        let time = Time::from_millis;
        let publish = |at: u64, weight: usize| {
            let commits = Arc::clone(&commits);
            let commit: Commit = Box::new(move || {
                commits.fetch_add(weight, Ordering::SeqCst);
            });
            let result = Err::<Batch<i32>, _>(Missing::NotDue);
            scope.publish(7, Published::new(time(at), result, Some(commit)));
        };
        publish(1, 1);
        publish(1, 10);
        assert!(
            scope.known::<i32>(7, time(1)).is_some() && scope.known::<i32>(7, time(2)).is_none()
        );
        scope.commit(time(1));
        scope.commit(time(1));
        assert_eq!(commits.load(Ordering::SeqCst), 1);
        publish(2, 100);
        scope.abandon(time(2));
        scope.commit(time(2));
        assert_eq!(commits.load(Ordering::SeqCst), 1, "a batch that is given up leaves no trace");
    }
}
