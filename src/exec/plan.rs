//! `Plan`: the work of one job of one batch, as stages of named tasks. Plain data; runs nothing.
//!
//! ```text
//! 0 fold of node 3: 4 tasks, each needs its own partition
//! 1 merge of node 3: 2 tasks, each needs all partitions          a barrier lies before it
//! 2 write: 2 tasks, each needs its own partition                 runs on in the tasks of stage 1
//! ```
//! A task's name is its batch, job, stage and partition; a retry and a second machine give it the same one. Knows no time,
//! streams or sinks.

use std::fmt;

use super::failure::Failure;
use crate::sync::Arc;
use crate::wording::count;

/// A piece of a plan; it gets the worker's number. An error fails the batch.
pub type Work = Box<dyn FnOnce(usize) -> Result<(), String> + Send>;

/// The last piece of a plan, which hands the rows to the sinks; it gets the worker's number.
pub type Finish = Box<dyn FnOnce(usize) -> Result<(), Failure> + Send>;

/// The results of other tasks of the plan that a task reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing beyond those of the same partition in the stages before.
    SamePartition,
    /// Those of all partitions of the stages before: a barrier.
    AllPartitions,
}

/// Tasks that may run at the same time. They are started in order.
pub struct Stage {
    /// The kind of its work in a word, such as `fold` or `merge`.
    pub kind: &'static str,
    /// The node of the graph that it computes; `None` if it is part of the output.
    pub node: Option<u32>,
    /// What each task reads of the stages before.
    pub needs: Needs,
    /// The tasks, one for each partition.
    pub tasks: Vec<Work>,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        if let Some(node) = self.node {
            write!(f, " of node {node}")?;
        }
        let needs = match self.needs {
            Needs::SamePartition => "its own partition",
            Needs::AllPartitions => "all partitions",
        };
        write!(f, ": {}, each needs {needs}", count(self.tasks.len() as u64, "task"))
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The stages of a plan while it is made.
#[derive(Debug, Default)]
pub struct Stages {
    node: Option<u32>,
    all: Vec<Stage>,
}

impl Stages {
    /// Adds a stage of the node that is being planned.
    pub fn push(&mut self, kind: &'static str, needs: Needs, tasks: Vec<Work>) {
        self.all.push(Stage { kind, node: self.node, needs, tasks });
    }

    /// Sets the node that is being planned; returns the one before.
    pub(crate) fn set_node(&mut self, node: Option<u32>) -> Option<u32> {
        std::mem::replace(&mut self.node, node)
    }

    /// Takes the stages out; the next ones belong to no node.
    pub(crate) fn take(&mut self) -> Vec<Stage> {
        std::mem::take(self).all
    }
}

/// The name of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PlanName {
    /// The number of the batch.
    pub batch: u64,
    /// The job.
    pub job: Arc<str>,
}

/// The name of a task: no other task of a pipeline has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskName {
    /// The batch and the job.
    pub plan: PlanName,
    /// The stage's place in the plan.
    pub stage: usize,
    /// The task's place in the stage.
    pub partition: usize,
}

/// The work of one job of one batch: the stages, then `finish`.
pub struct Plan {
    /// The batch and the job.
    pub name: PlanName,
    /// The stages; those without a task are left out.
    pub stages: Vec<Stage>,
    /// Runs once, after the last stage: it hands the rows to the sinks.
    pub finish: Finish,
}

impl Plan {
    /// The names of the tasks, in the order in which they are started.
    pub fn tasks(&self) -> impl Iterator<Item = TaskName> {
        self.stages.iter().enumerate().flat_map(move |(stage, of)| {
            let name = move |partition| TaskName { plan: self.name.clone(), stage, partition };
            (0..of.tasks.len()).map(name)
        })
    }
}

/// A line for each stage.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stages
            .iter()
            .enumerate()
            .try_for_each(|(number, stage)| writeln!(f, "{number} {stage}"))
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {}, job `{}`\n{self}", self.name.batch, self.name.job)
    }
}
