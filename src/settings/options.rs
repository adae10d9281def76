//! `SameOptions`: equality of options of which only a trait is known, as those of a job of any kind. Knows no options.

use std::any::Any;

/// Compares options of which only a trait is known; every type with `PartialEq` has it.
pub trait SameOptions: Any {
    /// True if `other` has the same type and is equal.
    fn is_same(&self, other: &dyn Any) -> bool;
}

impl<T: Any + PartialEq> SameOptions for T {
    fn is_same(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }
}
