//! One pass over a partition for the folds of several jobs.
//!
//! ```text
//!                       ┌─▶ fold of job 0
//! partition ─▶ f ─▶ fork┼─▶ fold of job 1                    one pass, each closure called once for each element
//!                       └─▶ g ─▶ fork ─▶ folds of jobs 1, 2
//! ```
//! A partition of a stream that several jobs use has a [`FanOut`], and folds are attached to it while the jobs are planned. The
//! task that goes through the partition belongs to the first of the jobs, the owner. A failing fold of
//! another job does not fail the owner: its result is dropped, and its job goes through the partition by itself. Runs on the
//! workers; knows no streams.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fold::{Begin, FanOut, Fold, Pass, Sharing};
use super::inputs::{Inputs, StageReads};
use super::partition::{Batch, Out, Partition};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

/// Returns the tasks that fold each partition of a batch; the first partition has the number `first`. `start` gets the
/// numbers of the partition and of the worker. Folds that join another pass need no task.
pub(crate) fn fold_tasks<T, F>(
    batch: &Batch<T>,
    first: usize,
    share: Option<&Sharing>,
    start: impl Fn(usize, usize) -> F + Send + Sync + 'static,
) -> Inputs
where
    T: ?Sized + 'static,
    F: Fold<T> + 'static,
{
    let (start, parts) = (Arc::new(start), batch.partitions());
    let mut inputs = Inputs::with_capacity(parts.len());
    for (number, partition) in (first..).zip(parts) {
        let start = Arc::clone(&start);
        match (&partition.tap, share) {
            (Some(tap), Some(share)) => {
                let begin: Begin<T> = Box::new(move |pass| Box::new(start(number, pass.worker)));
                tap.attach(share, begin, &mut inputs);
            }
            _ => {
                let (partition, reads) = (partition.clone(), partition.reads);
                let work = move |worker| {
                    let mut fold = start(number, worker);
                    partition.for_each(|element| fold.push(element));
                    Box::new(fold).end()
                };
                inputs.push(reads, Box::new(work));
            }
        }
    }
    inputs
}

impl<T: ?Sized + 'static> Partition<T> {
    /// Everything that `f` hands out for each element.
    pub(super) fn through<U, F>(&self, f: &Arc<F>) -> Partition<U>
    where
        U: ?Sized + 'static,
        F: Fn(&T, &mut Out<'_, U>) + Send + Sync + 'static,
    {
        let (above, one, other) = (self.elements.clone(), Arc::clone(f), Arc::clone(f));
        let tap = self
            .tap
            .clone()
            .map(|above| -> Arc<dyn FanOut<U>> { Arc::new(Through { above, f: other }) });
        let elements = move |each: &mut dyn FnMut(&U)| {
            above(&mut |element: &T| one(element, &mut Out::new(&mut *each)));
        };
        Partition { elements: Arc::new(elements), tap, reads: self.reads }
    }

    fn forked(&self) -> Partition<T> {
        let fork = Fork { partition: self.clone(), folds: Arc::default() };
        let (elements, reads) = (Arc::clone(&self.elements), self.reads);
        Partition { elements, tap: Some(Arc::new(fork)), reads }
    }
}

impl<T: ?Sized + 'static> Batch<T> {
    /// The same elements, for several jobs: their folds share one pass over each partition.
    pub(crate) fn forked(&self) -> Batch<T> {
        self.partitions.iter().map(Partition::forked).collect()
    }

    /// The same elements for a user's closure: it makes its own pass over the partitions.
    pub(crate) fn untapped(self) -> Batch<T> {
        let untapped = |part: Partition<T>| Partition { tap: None, ..part };
        self.partitions.into_iter().map(untapped).collect()
    }

    /// The same elements, made by a user's closure: they may read any batch that it was given.
    pub(crate) fn reading_anything(self) -> Batch<T> {
        let reading = |part: Partition<T>| part.reading(StageReads::Anything);
        self.partitions.into_iter().map(reading).collect()
    }
}

/// The tap of a partition that narrow operators lie between.
struct Through<T: ?Sized, F> {
    above: Arc<dyn FanOut<T>>,
    f: Arc<F>,
}

impl<T, U, F> FanOut<U> for Through<T, F>
where
    T: ?Sized + 'static,
    U: ?Sized + 'static,
    F: Fn(&T, &mut Out<'_, U>) + Send + Sync + 'static,
{
    fn attach(&self, share: &Sharing, begin: Begin<U>, inputs: &mut Inputs) {
        let f = Arc::clone(&self.f);
        let begin: Begin<T> = Box::new(move |pass| Box::new(Mapped { f, fold: begin(pass) }));
        self.above.attach(share, begin, inputs);
    }
}

struct Mapped<U: ?Sized, F> {
    f: Arc<F>,
    fold: Box<dyn Fold<U>>,
}

impl<T, U, F> Fold<T> for Mapped<U, F>
where
    T: ?Sized,
    U: ?Sized,
    F: Fn(&T, &mut Out<'_, U>),
{
    fn push(&mut self, element: &T) {
        let fold = &mut self.fold;
        (self.f)(element, &mut Out::new(&mut |made| fold.push(made)));
    }

    fn end(self: Box<Self>) -> Result<(), String> {
        self.fold.end()
    }
}

/// A partition of a stream that several jobs use.
struct Fork<T: ?Sized> {
    partition: Partition<T>,
    /// Apart from the partition, which may hold the fork above, which holds this: a circle would never be freed.
    folds: Arc<Mutex<Folds<T>>>,
}

struct Folds<T: ?Sized> {
    /// A pass that feeds them is in a plan.
    planned: bool,
    /// Each with its job, in the order of the jobs.
    waiting: Vec<(usize, Begin<T>)>,
}

impl<T: ?Sized> Default for Folds<T> {
    fn default() -> Self {
        Folds { planned: false, waiting: Vec::new() }
    }
}

impl<T: ?Sized + 'static> FanOut<T> for Fork<T> {
    fn attach(&self, share: &Sharing, begin: Begin<T>, inputs: &mut Inputs) {
        {
            let mut folds = self.folds.lock();
            folds.waiting.push((share.job, begin));
            if std::mem::replace(&mut folds.planned, true) {
                return;
            }
        }
        let folds = Arc::clone(&self.folds);
        if let Some(above) = &self.partition.tap {
            let begin: Begin<T> = Box::new(move |pass| Box::new(Fan::begin(&folds, pass)));
            return above.attach(share, begin, inputs);
        }
        let (partition, share) = (self.partition.clone(), share.clone());
        let work = move |worker| {
            let pass = Pass { worker, owner: share.job, broken: share.broken };
            let mut fan = Fan::begin(&folds, &pass);
            partition.for_each(|element| fan.push(element));
            Box::new(fan).end()
        };
        inputs.push(self.partition.reads, Box::new(work));
    }
}

/// Hands each element to several folds.
struct Fan<T: ?Sized> {
    /// Those of the pass's owner.
    own: Vec<Box<dyn Fold<T>>>,
    others: Vec<Box<dyn Fold<T>>>,
    broken: Arc<AtomicBool>,
}

impl<T: ?Sized> Fan<T> {
    fn begin(folds: &Mutex<Folds<T>>, pass: &Pass) -> Self {
        let waiting = std::mem::take(&mut folds.lock().waiting);
        let broken = Arc::clone(&pass.broken);
        let mut fan = Fan { own: Vec::new(), others: Vec::new(), broken };
        for (job, begin) in waiting {
            if job == pass.owner {
                fan.own.push(begin(pass));
            } else {
                let fold = guarded(&fan.broken, || Ok(begin(pass)));
                fan.others.extend(fold);
            }
        }
        fan
    }
}

impl<T: ?Sized> Fold<T> for Fan<T> {
    fn push(&mut self, element: &T) {
        self.own.iter_mut().for_each(|fold| fold.push(element));
        for fold in &mut self.others {
            guarded(&self.broken, || {
                fold.push(element);
                Ok(())
            });
        }
    }

    fn end(self: Box<Self>) -> Result<(), String> {
        for fold in self.own {
            fold.end()?;
        }
        for fold in self.others {
            guarded(&self.broken, || fold.end());
        }
        Ok(())
    }
}

/// Runs `work` for a job that does not own the pass. After a failure nothing more runs: the job will repeat it by itself.
fn guarded<R>(broken: &AtomicBool, work: impl FnOnce() -> Result<R, String>) -> Option<R> {
    if broken.load(Ordering::Relaxed) {
        return None;
    }
    let done = catch_unwind(AssertUnwindSafe(work)).ok().and_then(Result::ok);
    if done.is_none() {
        // The flag is read only after the tasks of the pass have ended, which orders this.
        broken.store(true, Ordering::Relaxed);
    }
    done
}
