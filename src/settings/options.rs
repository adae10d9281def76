//! `AnyOptions`: the options of a part of any kind, as of a job or a sink, of which only a trait is known; `SameOptions`
//! compares them. Plain data, any thread. Knows no options.

use std::any::Any;
use std::fmt;
use std::ops::Deref;

use crate::sync::Arc;

/// Compares options of which only a trait is known; every type with `PartialEq` has it.
pub trait SameOptions: Any {
    /// True if `other` has the same type and is equal.
    fn is_same(&self, other: &dyn Any) -> bool;

    /// The options as a value of any type.
    fn as_any(&self) -> &dyn Any;
}

impl<T: Any + PartialEq> SameOptions for T {
    fn is_same(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The options of any kind; equal to others of the same kind and value. Clones share them. `T` is the trait of the options.
pub struct AnyOptions<T: ?Sized>(Arc<T>);

impl<T: SameOptions + ?Sized> AnyOptions<T> {
    /// Options of which from now on only the trait is known.
    pub(crate) fn new(options: Arc<T>) -> Self {
        AnyOptions(options)
    }

    /// The options as those of one kind; `None` if they are of another kind.
    pub fn options_of<U: Any>(&self) -> Option<&U> {
        T::as_any(&self.0).downcast_ref()
    }
}

impl<T: ?Sized> Clone for AnyOptions<T> {
    fn clone(&self) -> Self {
        AnyOptions(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for AnyOptions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: ?Sized> Deref for AnyOptions<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: SameOptions + ?Sized> PartialEq for AnyOptions<T> {
    fn eq(&self, other: &Self) -> bool {
        T::is_same(&self.0, T::as_any(&other.0))
    }
}

impl<T: SameOptions + ?Sized> Eq for AnyOptions<T> {}
