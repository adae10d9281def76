//! `Inputs`: the tasks of a stage that goes through partitions, and what those read of the stages before.
//!
//! A lazy partition says which results of its plan it reads. Where task number `n` reads slot `n` alone, it may run on in
//! the task that fills the slot. Belongs to the thread that plans; knows no elements.

use super::plan::{Needs, Work};

/// The results of its plan's stages that a partition reads when it is iterated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StageReads {
    /// None: it reads the input of the batch, or what was kept before.
    Nothing,
    /// The slot of this number, which the task of this number fills.
    Slot(usize),
    /// Any of them.
    Anything,
}

/// See the module.
pub struct Inputs {
    tasks: Vec<Work>,
    needs: Needs,
    /// True if no task reads any slot: then the tasks may have other numbers.
    reads_nothing: bool,
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs")
            .field("tasks", &self.tasks.len())
            .field("needs", &self.needs)
            .finish()
    }
}

impl Inputs {
    /// Room for this many tasks.
    pub(crate) fn with_capacity(tasks: usize) -> Self {
        let (tasks, needs) = (Vec::with_capacity(tasks), Needs::SamePartition);
        Inputs { tasks, needs, reads_nothing: true }
    }

    /// Adds a task that goes through a partition with these reads.
    pub(crate) fn push(&mut self, reads: StageReads, work: Work) {
        match reads {
            StageReads::Nothing => {}
            StageReads::Slot(slot) if slot == self.tasks.len() => self.reads_nothing = false,
            StageReads::Slot(_) | StageReads::Anything => {
                (self.needs, self.reads_nothing) = (Needs::AllPartitions, false);
            }
        }
        self.tasks.push(work);
    }

    /// Adds the tasks of another list behind these.
    pub(crate) fn extend(&mut self, other: Inputs) {
        let keeps_numbers = self.tasks.is_empty() || other.reads_nothing;
        if other.needs == Needs::AllPartitions || !keeps_numbers {
            self.needs = Needs::AllPartitions;
        }
        self.reads_nothing &= other.reads_nothing;
        self.tasks.extend(other.tasks);
    }

    /// The tasks, and what they need.
    pub(crate) fn into_parts(self) -> (Needs, Vec<Work>) {
        (self.needs, self.tasks)
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    /// The needs of two lists of tasks with these reads, one behind the other.
    fn check(first: &[StageReads], second: &[StageReads], expected: Needs) {
        let list = |reads: &[StageReads]| {
            let mut inputs = Inputs::with_capacity(reads.len());
            reads.iter().for_each(|reads| inputs.push(*reads, Box::new(|_| Ok(()))));
            inputs
        };
        let mut inputs = list(first);
        inputs.extend(list(second));
        let (needs, tasks) = inputs.into_parts();
        assert_eq!((needs, tasks.len()), (expected, first.len() + second.len()));
    }

    #[test]
    fn a_task_runs_on_only_behind_the_one_that_fills_its_slot() {
        use Needs::{AllPartitions, SamePartition};
        use StageReads::{Anything, Nothing, Slot};
        check(&[], &[], SamePartition);
        check(&[Nothing, Nothing], &[Nothing], SamePartition);
        check(&[Slot(0), Slot(1), Nothing], &[], SamePartition);
        check(&[Slot(1), Slot(0)], &[], AllPartitions);
        check(&[Nothing, Slot(0)], &[], AllPartitions);
        check(&[Slot(0), Anything], &[], AllPartitions);
        check(&[Slot(0)], &[Nothing], SamePartition);
        check(&[Slot(0)], &[Slot(0)], AllPartitions);
        check(&[Nothing], &[Slot(0)], AllPartitions);
        check(&[], &[Slot(0), Slot(1)], SamePartition);
        check(&[], &[Anything], AllPartitions);
    }
}
