//! `Planner` and `Output`: the plan of one job of one batch, made of the stages that its nodes add.
//!
//! Planning runs on the scheduler's thread and costs nothing per record. Knows no operator.

pub(crate) mod batch_scope;
pub(crate) mod job_fusion;
pub(crate) mod lacks;

use std::any::{Any, TypeId};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::delivery::Delivery;
use super::{BatchInput, Graph, Missing, Replay, Settings};
use crate::exec::shuffle::{ShardOwner, ShuffleShape, Slots};
use crate::exec::{
    Batch, Finish, Fold, Plan, Sharing, Stage, Work, failure_text, fold_tasks, folding,
};
use crate::sink::SharedSink;
use crate::stream::plan::batch_scope::{BatchScope, Commit, Published};
use crate::stream::plan::job_fusion::Progress;
use crate::stream::plan::lacks::Reads;
use crate::sync::planted::{Planted, planted};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Moment};

/// Gathers the stages of one plan.
pub(super) struct Planner<'a> {
    pub(super) input: &'a Arc<BatchInput>,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) scope: &'a Arc<BatchScope>,
    pub(super) settings: Settings,
    pub(super) stages: Vec<Stage>,
    /// The results of nodes with stages: a stream that is used twice is shuffled once.
    shared: Vec<(u32, Box<dyn Any>)>,
    /// The kind of replay, if the batch runs again.
    pub(super) replay: Option<Replay>,
    /// The job whose folds are attached, if several jobs are planned together.
    share: Option<Sharing>,
    /// The batches of streams that those use.
    forks: Vec<(u32, Box<dyn Any>)>,
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
            settings: Settings { seed: scope.seed(), ..settings },
            stages: Vec::new(),
            shared: Vec::new(),
            replay: None,
            share: None,
            forks: Vec::new(),
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
    ) -> Vec<Work>
    where
        T: ?Sized + 'static,
        F: Fold<T> + 'static,
    {
        fold_tasks(batch, first, self.share.as_ref(), start)
    }

    /// Adds a stage that folds each partition and leaves what `end` makes of the fold in a slot.
    pub(super) fn materialize<T: ?Sized + 'static, S: 'static, U: Send + Sync + 'static>(
        &mut self,
        batch: &Batch<T>,
        begin: impl Fn() -> S + Send + Sync + 'static,
        push: impl Fn(&mut S, &T) + Send + Sync + 'static,
        end: impl Fn(S) -> Vec<U> + Send + Sync + 'static,
    ) -> Slots<U> {
        self.materialize_owning(batch, begin, push, move |state| (end(state), 0))
    }

    /// The same; `end` also returns the bytes that its elements own beside themselves.
    pub(super) fn materialize_owning<T: ?Sized + 'static, S: 'static, U: Send + Sync + 'static>(
        &mut self,
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
        let tasks = self.folds(batch, 0, start);
        self.stages.push(Stage { tasks });
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
        self.materialize_owning(batch, Default::default, push, |owned| owned)
    }

    /// A node that adds stages: it is planned once for each plan, and computed once for each batch if several jobs use it.
    pub(super) fn memoize<T: ?Sized + 'static>(
        &mut self,
        node: u32,
        compute: impl FnOnce(&mut Self) -> Result<Batch<T>, Missing>,
    ) -> Result<Batch<T>, Missing> {
        if let Some(known) = self.known(node) {
            return known;
        }
        let result = compute(self);
        if self.scope.is_shared(node) && result.is_ok() {
            self.publish(node, &result, None);
        }
        self.shared.push((node, Box::new(result.clone())));
        result
    }

    /// A node that keeps something from batch to batch: it is computed once for each batch, and what it has learned
    /// counts when the batch is committed.
    pub(super) fn stateful<T: ?Sized + 'static>(
        &mut self,
        node: u32,
        compute: impl FnOnce(&mut Self) -> Result<(Result<Batch<T>, Missing>, Commit), Missing>,
    ) -> Result<Batch<T>, Missing> {
        if let Some(known) = self.known(node) {
            return known;
        }
        let (result, commit) = compute(self)?;
        self.publish(node, &result, Some(commit));
        self.shared.push((node, Box::new(result.clone())));
        result
    }

    /// A node that is computed element by element: in one pass for all jobs that are planned together.
    pub(super) fn fuse<T: ?Sized + 'static>(
        &mut self,
        node: u32,
        compute: impl FnOnce(&mut Self) -> Result<Batch<T>, Missing>,
    ) -> Result<Batch<T>, Missing> {
        if self.share.is_none() || !self.scope.is_shared(node) {
            return compute(self);
        }
        let known = self.forks.iter().find(|(known, _)| *known == node);
        if let Some(known) = known.and_then(|(_, batch)| batch.downcast_ref::<Batch<T>>()) {
            return Ok(known.clone());
        }
        let batch = compute(self)?.forked();
        self.forks.push((node, Box::new(batch.clone())));
        Ok(batch)
    }

    fn known<T: ?Sized + 'static>(&self, node: u32) -> Option<Result<Batch<T>, Missing>> {
        let planned = self.shared.iter().find(|(known, _)| *known == node);
        let planned = planned.and_then(|(_, result)| result.downcast_ref().cloned());
        planned.or_else(|| self.scope.known(node, self.input.time))
    }

    /// The stages so far compute all that `result` reads: the next one tells the rest of the batch.
    fn publish<T: ?Sized + 'static>(
        &mut self,
        node: u32,
        result: &Result<Batch<T>, Missing>,
        commit: Option<Commit>,
    ) {
        let (scope, result) = (Arc::clone(self.scope), result.clone());
        let time = self.input.time;
        let task: Work = Box::new(move |_| {
            scope.publish(node, Published::new(time, result, commit));
            Ok(())
        });
        self.stages.push(Stage { tasks: vec![task] });
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
            job: name,
            input: Arc::clone(planner.input),
            clock: Arc::clone(planner.clock),
            scope: Arc::clone(planner.scope),
            reads: self.reads.clone(),
            started: Arc::clone(started),
        };
        let built = catch_unwind(AssertUnwindSafe(|| (self.build)(planner, delivery)));
        let stages = std::mem::take(&mut planner.stages);
        match built {
            Ok(Ok(finish)) if is_own => Ok(Plan { stages, finish }),
            Ok(Ok(_)) => Ok(Plan { stages, finish: Box::new(|_| Ok(())) }),
            // A source without a batch, alone, or a window between two slides: there is nothing to hand over.
            Ok(Err(Missing::NoBatch(_) | Missing::NotDue)) => {
                Ok(Plan { stages, finish: Box::new(|_| Ok(())) })
            }
            Ok(Err(Missing::Failed(text))) => Err(text),
            Err(unwound) => Err(failure_text(unwound.as_ref())),
        }
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
    pub(super) number: usize,
    /// The destinations of its rows; none if a closure takes them.
    pub(super) sinks: Arc<[SharedSink]>,
    pub(super) job: Arc<Job>,
    /// The jobs of all outputs, by their numbers.
    pub(super) jobs: Arc<Mutex<Vec<Arc<Job>>>>,
    pub(super) settings: Settings,
    pub(super) scope: Arc<BatchScope>,
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

    /// Plans an attempt at this batch; the batch's first attempt or this one started at `started`. Called when the attempt
    /// begins. Later jobs that use a stream of this one are planned with it: the stream is computed once for all of them,
    /// in this plan.
    ///
    /// # Errors
    /// If the batch cannot be computed, or a closure of `transform` panicked; the text says why.
    pub fn plan(
        &self,
        input: &Arc<BatchInput>,
        clock: &Arc<dyn Clock>,
        started: Moment,
    ) -> Result<Plan, String> {
        // A graph that nobody started begins with the first planned batch.
        self.scope.begin(input.time, self.settings.batch_interval);
        if let Some(ahead) = self.scope.fusion.begin(self.number, input.time) {
            *ahead.started.lock() = started;
            return Ok(ahead.plan);
        }
        let mut planner = Planner::new(input, clock, &self.scope, self.settings);
        let others = self.scope.fusion.with(self.number);
        let progress = Progress::default();
        let share = |job| Sharing { job, broken: Arc::clone(&progress.broken) };
        planner.share = (!others.is_empty()).then(|| share(self.number));
        let plan = self.job.plan(&mut planner, &Arc::new(Mutex::new(started)))?;
        if others.is_empty() {
            return Ok(plan);
        }
        let mut ahead = Vec::with_capacity(others.len());
        for (number, job) in (1..).zip(others) {
            let other = Arc::clone(&self.jobs.lock()[job]);
            let began = Arc::new(Mutex::new(started));
            planner.share = Some(share(job));
            // A job that cannot be planned fails when it is its turn; nothing after it relies on it.
            let Ok(plan) = other.plan(&mut planner, &began) else { break };
            ahead.push((job, progress.told_by(number, plan), began));
        }
        let plan = progress.told_by(0, plan);
        self.scope.fusion.keep(progress, ahead);
        Ok(plan)
    }
}
