//! `Node`: computes a stream's batch. Knows no operator.

use super::Planner;
use super::missing::Missing;
use crate::blocks::manager::StoredBlock;
use crate::exec::Batch;
use crate::sync::Arc;

/// A node of the graph. Nodes never hold the graph, which holds them.
pub(super) trait Node<T: ?Sized>: Send + Sync {
    /// The node's elements of a batch; its stages go to the planner.
    fn compute(&self, cx: &mut Planner<'_>) -> Result<Batch<T>, Missing>;

    /// The blocks behind the node, if its elements are exactly their records, in order.
    fn blocks(&self, _cx: &Planner<'_>) -> Option<Vec<Arc<StoredBlock>>> {
        None
    }
}

/// A node made of a closure.
pub(super) struct Compute<F>(pub(super) F);

impl<T, F> Node<T> for Compute<F>
where
    T: ?Sized,
    F: Fn(&mut Planner<'_>) -> Result<Batch<T>, Missing> + Send + Sync,
{
    fn compute(&self, cx: &mut Planner<'_>) -> Result<Batch<T>, Missing> {
        (self.0)(cx)
    }
}
