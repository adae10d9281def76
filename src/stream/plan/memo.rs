//! `Memo`: the results of nodes, by node; and the two layers of them that a planning sees.
//!
//! ```text
//! the batch: Memo ── computed: stages have run ──┐
//!                                                ├─▶ PlanningMemo ─▶ dropped with the planning
//! the planning: Memo ── planned: stages to come ─┘
//! ```
//! A planning reads what the batch has computed and adds to its own layer alone, so that dropping it leaves no trace.
//! Knows no operator.

use std::any::Any;
use std::collections::HashMap;

use crate::exec::Batch;
use crate::stream::Missing;
use crate::sync::Arc;

/// The elements of a node, or why it has none.
pub(crate) type NodeResult<T> = Result<Batch<T>, Missing>;

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Memo(HashMap<u32, Arc<dyn Any + Send + Sync>>);

impl Memo {
    /// The result of a node.
    pub(crate) fn get<T: ?Sized + 'static>(&self, node: u32) -> Option<NodeResult<T>> {
        self.0.get(&node)?.downcast_ref::<NodeResult<T>>().cloned()
    }

    /// Adds the result of a node.
    pub(crate) fn insert<T: ?Sized + 'static>(&mut self, node: u32, result: NodeResult<T>) {
        self.0.insert(node, Arc::new(result));
    }

    /// True if the result of the node is here.
    pub(crate) fn has(&self, node: u32) -> bool {
        self.0.contains_key(&node)
    }

    /// Adds all results of another memo.
    pub(crate) fn extend(&mut self, other: &Memo) {
        self.0.extend(other.0.iter().map(|(node, result)| (*node, Arc::clone(result))));
    }
}

/// The results that a planning sees.
pub(crate) struct PlanningMemo {
    computed: Arc<Memo>,
    planned: Memo,
}

impl PlanningMemo {
    /// A planning begins with what the batch has computed.
    pub(crate) fn new(computed: Arc<Memo>) -> Self {
        PlanningMemo { computed, planned: Memo::default() }
    }

    /// The result of a node that is planned or computed.
    pub(crate) fn get<T: ?Sized + 'static>(&self, node: u32) -> Option<NodeResult<T>> {
        self.planned.get(node).or_else(|| self.computed.get(node))
    }

    /// Adds the result of a node whose stages are in the plan.
    pub(crate) fn insert<T: ?Sized + 'static>(&mut self, node: u32, result: NodeResult<T>) {
        self.planned.insert(node, result);
    }

    /// The results of this planning alone.
    pub(crate) fn planned(&self) -> &Memo {
        &self.planned
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_planning_adds_to_its_own_layer_alone() {
        let why = |text: &str| Err::<Batch<i32>, _>(Missing::Failed(text.to_owned()));
        let said = |found: Option<NodeResult<i32>>| found.map(|found| found.err());
        let mut batch = Memo::default();
        batch.insert(1, why("computed"));
        let batch = Arc::new(batch);
        let mut planning = PlanningMemo::new(Arc::clone(&batch));
        planning.insert(2, why("planned"));
        assert_eq!(said(planning.get(1)), Some(why("computed").err()));
        assert_eq!(said(planning.get(2)), Some(why("planned").err()));
        assert!(planning.get::<i32>(3).is_none());
        assert!(planning.get::<u8>(1).is_none(), "another type is another node's");
        drop(planning);
        assert!(batch.has(1) && !batch.has(2));
    }
}
