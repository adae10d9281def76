//! `Planner` and `Output`: the plan of one job of one batch, made of the stages that its nodes add.
//!
//! ```text
//! wiring: facts of the graph ──┐
//! committed: zero, last batch ─┼─▶ Planner(input, jobs) ─▶ Plan: named stages ─▶ workers
//! memo: nodes of this batch ───┘
//! ```
//! A plan is a function of these and of the committed states and windows; planning changes none of them. It runs on the
//! scheduler's thread and costs nothing per record. Knows no operator.

pub(crate) mod batch_scope;
pub(crate) mod committed;
pub(crate) mod job_fusion;
pub(crate) mod lacks;
pub(crate) mod memo;
pub(crate) mod open_batch;
pub(crate) mod wiring;

use std::any::TypeId;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::delivery::Delivery;
use super::{BatchInput, Graph, Missing, Replay, Settings};
use crate::exec::shuffle::{ShardOwner, ShuffleShape, Slots};
use crate::exec::{
    Batch, Finish, Fold, Inputs, Needs, Plan, PlanName, Sharing, Stages, Work, failure_text,
    fold_tasks, folding,
};
use crate::sink::SharedSink;
use crate::stream::plan::batch_scope::{BatchScope, Commit};
use crate::stream::plan::lacks::Reads;
use crate::stream::plan::memo::{NodeResult, PlanningMemo};
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Moment};

/// Gathers the stages of one plan.
pub(super) struct Planner<'a> {
    pub(super) input: &'a Arc<BatchInput>,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) scope: &'a Arc<BatchScope>,
    pub(super) settings: Settings,
    pub(super) stages: Stages,
    /// The results of nodes: a stream that is used twice is shuffled once.
    memo: PlanningMemo,
    /// The kind of replay, if the batch runs again.
    pub(super) replay: Option<Replay>,
    /// The job whose folds are attached, if several jobs are planned together.
    share: Option<Sharing>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        input: &'a Arc<BatchInput>,
        clock: &'a Arc<dyn Clock>,
        scope: &'a Arc<BatchScope>,
        settings: Settings,
    ) -> Self {
        Planner {
            input,
            clock,
            scope,
            settings: Settings { seed: scope.wiring().seed, ..settings },
            stages: Stages::default(),
            memo: PlanningMemo::new(scope.computed()),
            replay: None,
            share: None,
        }
    }

    pub(super) fn shards(&self) -> usize {
        self.input.partitions.max(1)
    }

    /// The dimensions of a shuffle of this batch, where each input fills shards of its own.
    pub(super) fn shape(&self, inputs: usize) -> ShuffleShape {
        ShuffleShape { inputs, owner: ShardOwner::ByPartition, shards: self.shards() }
    }

    /// The same, where the inputs of one worker share shards.
    pub(super) fn shape_by_worker(&self, inputs: usize) -> ShuffleShape {
        let owner = ShardOwner::ByWorker(self.settings.workers);
        ShuffleShape { owner, ..self.shape(inputs) }
    }

    /// The tasks that fold each partition; see [`fold_tasks`].
    pub(super) fn folds<T, F>(
        &self,
        batch: &Batch<T>,
        first: usize,
        start: impl Fn(usize, usize) -> F + Send + Sync + 'static,
    ) -> Inputs
    where
        T: ?Sized + 'static,
        F: Fold<T> + 'static,
    {
        fold_tasks(batch, first, self.share.as_ref(), start)
    }

    /// Adds a stage that folds each partition and leaves what `end` makes of the fold in a slot.
    pub(super) fn materialize<T: ?Sized + 'static, S: 'static, U: Send + Sync + 'static>(
        &mut self,
        kind: &'static str,
        batch: &Batch<T>,
        begin: impl Fn() -> S + Send + Sync + 'static,
        push: impl Fn(&mut S, &T) + Send + Sync + 'static,
        end: impl Fn(S) -> Vec<U> + Send + Sync + 'static,
    ) -> Slots<U> {
        self.materialize_owning(kind, batch, begin, push, move |state| (end(state), 0))
    }

    /// The same; `end` also returns the bytes that its elements own beside themselves.
    pub(super) fn materialize_owning<T: ?Sized + 'static, S: 'static, U: Send + Sync + 'static>(
        &mut self,
        kind: &'static str,
        batch: &Batch<T>,
        begin: impl Fn() -> S + Send + Sync + 'static,
        push: impl Fn(&mut S, &T) + Send + Sync + 'static,
        end: impl Fn(S) -> (Vec<U>, usize) + Send + Sync + 'static,
    ) -> Slots<U> {
        let slots = Slots::counted(batch.partitions().len(), &self.scope.account());
        let (results, work) = (slots.clone(), Arc::new((begin, push, end)));
        let start = move |slot, _| {
            let (results, push, end) = (results.clone(), Arc::clone(&work), Arc::clone(&work));
            let push = move |state: &mut S, element: &T| push.1(state, element);
            folding(work.0(), push, move |state| {
                let (made, bytes) = end.2(state);
                results.put_owning(slot, made, bytes);
                Ok(())
            })
        };
        let (needs, tasks) = self.folds(batch, 0, start).into_parts();
        self.stages.push(kind, needs, tasks);
        slots
    }

    /// Adds a stage that copies the elements of each partition to a slot.
    pub(super) fn owned<T>(&mut self, batch: &Batch<T>) -> Slots<T::Owned>
    where
        T: ?Sized + ToOwned + 'static,
        T::Owned: Send + Sync + 'static,
    {
        // Where `T` is the borrowed form of what is kept, a text or a slice, its size is what lies on the heap.
        let is_borrowed = TypeId::of::<T>() != TypeId::of::<T::Owned>();
        let push = move |(all, bytes): &mut (Vec<T::Owned>, usize), element: &T| {
            *bytes += if is_borrowed { size_of_val(element) } else { 0 };
            all.push(element.to_owned());
        };
        self.materialize_owning("copy", batch, Default::default, push, |owned| owned)
    }

    /// A node that adds stages: it is planned once for each plan, and computed once for each batch if several jobs use it.
    pub(super) fn memoize<T: ?Sized + 'static>(
        &mut self,
        node: u32,
        compute: impl FnOnce(&mut Self) -> NodeResult<T>,
    ) -> NodeResult<T> {
        if let Some(known) = self.memo.get(node) {
            return known;
        }
        let result = self.at_node(node, |cx| {
            let result = compute(cx);
            if cx.scope.wiring().is_shared(node) && result.is_ok() {
                cx.publish(node, &result, None);
            }
            result
        });
        self.memo.insert(node, result.clone());
        result
    }

    /// A node that keeps something from batch to batch: it is computed once for each batch, and what it has learned
    /// counts when the batch is committed.
    pub(super) fn stateful<T: ?Sized + 'static>(
        &mut self,
        node: u32,
        compute: impl FnOnce(&mut Self) -> Result<(NodeResult<T>, Commit), Missing>,
    ) -> NodeResult<T> {
        if let Some(known) = self.memo.get(node) {
            return known;
        }
        let result = self.at_node(node, |cx| {
            let (result, commit) = compute(cx)?;
            cx.publish(node, &result, Some(commit));
            Ok(result)
        })?;
        self.memo.insert(node, result.clone());
        result
    }

    /// A node that is computed element by element: in one pass for all jobs that are planned together.
    pub(super) fn fuse<T: ?Sized + 'static>(
        &mut self,
        node: u32,
        compute: impl FnOnce(&mut Self) -> NodeResult<T>,
    ) -> NodeResult<T> {
        if self.share.is_none() || !self.scope.wiring().is_shared(node) {
            return compute(self);
        }
        if let Some(known) = self.memo.get(node) {
            return known;
        }
        let batch = compute(self)?.forked();
        self.memo.insert(node, Ok(batch.clone()));
        Ok(batch)
    }

    /// The stages that `plan` adds belong to the node.
    fn at_node<R>(&mut self, node: u32, plan: impl FnOnce(&mut Self) -> R) -> R {
        let below = self.stages.set_node(Some(node));
        let result = plan(self);
        self.stages.set_node(below);
        result
    }

    /// The stages so far compute all that `result` reads: the next one tells the rest of the batch.
    fn publish<T: ?Sized + 'static>(
        &mut self,
        node: u32,
        result: &NodeResult<T>,
        commit: Option<Commit>,
    ) {
        let (scope, result) = (Arc::clone(self.scope), result.clone());
        let task: Work = Box::new(move |_| {
            scope.publish(node, result, commit);
            Ok(())
        });
        self.stages.push("publish", Needs::AllPartitions, vec![task]);
    }
}

/// Makes the last piece of a job's plan, after the stages that go to the planner.
pub(super) type Build =
    Box<dyn Fn(&mut Planner<'_>, Delivery) -> Result<Finish, Missing> + Send + Sync>;

/// The job of an output.
pub(super) struct Job {
    pub(super) name: Arc<str>,
    pub(super) pipeline: Arc<str>,
    pub(super) reads: Reads,
    pub(super) build: Build,
    pub(super) past: Mutex<JobPast>,
}

impl Job {
    /// True if this batch is one of its own, and the job's name when the batch was planned: under that name the sinks know
    /// the batch.
    fn at(&self, batch: u64) -> (bool, Arc<str>) {
        let past = self.past.lock();
        let earlier = past.names.iter().find(|(below, _)| batch < *below);
        let earlier = earlier.filter(|_| !planted(Planted::ReplayTakesNewNames));
        let name = earlier.map_or(&self.name, |(_, name)| name);
        (batch >= past.first, Arc::clone(name))
    }

    fn plan(
        &self,
        planner: &mut Planner<'_>,
        started: &Arc<Mutex<Moment>>,
    ) -> Result<Plan, String> {
        let (is_own, name) = self.at(planner.input.index);
        let delivery = Delivery {
            pipeline: Arc::clone(&self.pipeline),
            job: Arc::clone(&name),
            input: Arc::clone(planner.input),
            clock: Arc::clone(planner.clock),
            committed: Arc::clone(planner.scope.committed()),
            reads: self.reads.clone(),
            started: Arc::clone(started),
        };
        let built = catch_unwind(AssertUnwindSafe(|| (self.build)(planner, delivery)));
        let stages = planner.stages.take();
        let finish: Finish = match built {
            Ok(Ok(finish)) if is_own => finish,
            // Also a source without a batch, alone, or a window between two slides: there is nothing to hand over.
            Ok(Ok(_) | Err(Missing::NoBatch(_) | Missing::NotDue)) => Box::new(|_| Ok(())),
            Ok(Err(Missing::Failed(text))) => return Err(text),
            Err(unwound) => return Err(failure_text(unwound.as_ref())),
        };
        let name = PlanName { batch: planner.input.index, job: name };
        Ok(Plan { name, stages, finish })
    }
}

/// A job's past, as the log knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobPast {
    /// The number of its first batch. Earlier batches that run again it only computes and hands nothing over: states and
    /// windows take in what they would have.
    pub(crate) first: u64,
    /// The names that it had before, each with the number of the first batch that was planned under the next one.
    pub(crate) names: Vec<(u64, Arc<str>)>,
}

impl Graph {
    /// Sets the past of each output's job.
    pub(crate) fn outputs_begin(&self, past: Vec<JobPast>) {
        for (output, past) in self.outputs().into_iter().zip(past) {
            output.begins_with(past);
        }
    }
}

/// An output operation: one job of every batch.
pub struct Output {
    /// The destinations of its rows; none if a closure takes them.
    pub(super) sinks: Arc<[SharedSink]>,
    pub(super) job: Arc<Job>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("name", &self.job.name).finish_non_exhaustive()
    }
}

impl Output {
    fn begins_with(&self, past: JobPast) {
        *self.job.past.lock() = past;
    }

    /// The job's name.
    pub fn name(&self) -> &str {
        &self.job.name
    }

    /// The destinations of its rows; none if a closure takes them.
    pub fn sinks(&self) -> &[SharedSink] {
        &self.sinks
    }

    /// True if the readers of all its sinks are gone.
    pub fn is_closed(&self) -> bool {
        !self.sinks.is_empty() && self.sinks.iter().all(SharedSink::is_closed)
    }
}
