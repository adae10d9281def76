//! `Missing`: the reason why a node has no elements. Plain data.

use crate::sync::Arc;

/// The reason why a node has no elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    /// This source has no batch at this time, which is not the same as an empty one.
    NoBatch(Arc<str>),
    /// The stream slides by more than one interval and does not fall due in this batch. What its windows take in is in
    /// the plan.
    NotDue,
    /// The batch fails.
    Failed(String),
}
