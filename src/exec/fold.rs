//! Folds: they take in a partition's elements one by one, so that several can share one pass over it.
//!
//! A fold is pushed to, where a loop over a partition pulls: a loop cannot be run together with another one, folds can.
//! `FanOut` is the seam at which folds join a pass. Runs on the workers; knows no partitions and no streams.

use super::inputs::Inputs;
use crate::sync::{Arc, AtomicBool};

/// Takes in the elements of one partition.
pub trait Fold<T: ?Sized> {
    /// The next element.
    fn push(&mut self, element: &T);

    /// Called after the last element: stores the result.
    ///
    /// # Errors
    /// Fails the attempt at the batch.
    fn end(self: Box<Self>) -> Result<(), String>;
}

/// A fold made of closures.
pub struct Folding<S, P, E> {
    state: S,
    push: P,
    end: E,
}

/// A fold that begins with `state`.
pub fn folding<T, S, P, E>(state: S, push: P, end: E) -> Folding<S, P, E>
where
    T: ?Sized,
    P: FnMut(&mut S, &T),
    E: FnOnce(S) -> Result<(), String>,
{
    Folding { state, push, end }
}

impl<T, S, P, E> Fold<T> for Folding<S, P, E>
where
    T: ?Sized,
    P: FnMut(&mut S, &T),
    E: FnOnce(S) -> Result<(), String>,
{
    #[inline(always)]
    fn push(&mut self, element: &T) {
        (self.push)(&mut self.state, element);
    }

    fn end(self: Box<Self>) -> Result<(), String> {
        (self.end)(self.state)
    }
}

/// One pass over a partition, on a worker.
pub(crate) struct Pass {
    pub(super) worker: usize,
    pub(super) owner: usize,
    pub(super) broken: Arc<AtomicBool>,
}

/// Makes a fold on the worker that runs it.
pub(crate) type Begin<T> = Box<dyn FnOnce(&Pass) -> Box<dyn Fold<T>> + Send>;

/// The job whose folds are attached, and the flag that says if a fold failed.
#[derive(Clone)]
pub(crate) struct Sharing {
    /// The job that is being planned.
    pub(crate) job: usize,
    /// Set when a fold of a job other than a pass's owner fails.
    pub(crate) broken: Arc<AtomicBool>,
}

/// The point where folds join the pass over a partition.
pub(crate) trait FanOut<T: ?Sized>: Send + Sync {
    /// Adds a fold to the pass. Adds the task that makes the pass to `inputs`, unless a plan has it already.
    fn attach(&self, share: &Sharing, begin: Begin<T>, inputs: &mut Inputs);
}
