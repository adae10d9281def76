//! `Batch`: the elements of one batch of a stream, in lazy partitions that are iterated from inside.
//!
//! A partition calls back with each element by reference, so nothing is copied until an operator keeps a key. Runs on the
//! workers. Knows no plans, time, streams or sinks.

use std::fmt;

use super::fold::FanOut;
use crate::sync::Arc;

/// The elements that one task goes through, computed anew each time.
pub struct Partition<T: ?Sized> {
    pub(super) elements: Elements<T>,
    /// The point where folds join a pass that several jobs share over these elements, if there is one.
    pub(super) tap: Option<Arc<dyn FanOut<T>>>,
}

type Elements<T> = Arc<dyn Fn(&mut dyn FnMut(&T)) + Send + Sync>;

impl<T: ?Sized> Clone for Partition<T> {
    fn clone(&self) -> Self {
        Partition { elements: Arc::clone(&self.elements), tap: self.tap.clone() }
    }
}

impl<T: ?Sized> fmt::Debug for Partition<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Partition")
    }
}

impl<T: ?Sized> Partition<T> {
    /// A partition that `elements` calls back with.
    pub fn new(elements: impl Fn(&mut dyn FnMut(&T)) + Send + Sync + 'static) -> Self {
        Partition { elements: Arc::new(elements), tap: None }
    }

    /// Calls `each` with every element, in order.
    pub fn for_each(&self, mut each: impl FnMut(&T)) {
        (self.elements)(&mut each);
    }
}

/// The elements of one batch of a stream, in partitions. Nothing is computed before it is iterated.
pub struct Batch<T: ?Sized> {
    pub(super) partitions: Vec<Partition<T>>,
}

impl<T: ?Sized> Clone for Batch<T> {
    fn clone(&self) -> Self {
        Batch { partitions: self.partitions.clone() }
    }
}

impl<T: ?Sized> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("partitions", &self.partitions.len()).finish()
    }
}

impl<T: ?Sized> FromIterator<Partition<T>> for Batch<T> {
    fn from_iter<I: IntoIterator<Item = Partition<T>>>(partitions: I) -> Self {
        Batch { partitions: partitions.into_iter().collect() }
    }
}

impl<T: ?Sized + 'static> Batch<T> {
    /// The partitions, in order.
    pub fn partitions(&self) -> &[Partition<T>] {
        &self.partitions
    }

    /// Calls `each` with every element, in partition order, on the calling thread.
    pub fn for_each(&self, mut each: impl FnMut(&T)) {
        for partition in &self.partitions {
            (partition.elements)(&mut each);
        }
    }

    /// Copies every element, in partition order, on the calling thread.
    pub fn collect(&self) -> Vec<T::Owned>
    where
        T: ToOwned,
    {
        let mut all = Vec::new();
        self.for_each(|element| all.push(element.to_owned()));
        all
    }

    /// Maps each element with `f`.
    pub fn map<U: 'static>(&self, f: impl Fn(&T) -> U + Send + Sync + 'static) -> Batch<U> {
        self.flat_map(move |element, out| out.push(&f(element)))
    }

    /// The elements for which `keep` holds.
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Batch<T> {
        self.flat_map(move |element, out| {
            if keep(element) {
                out.push(element);
            }
        })
    }

    /// Everything that `f` hands out for each element.
    pub fn flat_map<U: ?Sized + 'static>(
        &self,
        f: impl Fn(&T, &mut Out<'_, U>) + Send + Sync + 'static,
    ) -> Batch<U> {
        let f = Arc::new(f);
        self.partitions.iter().map(|partition| partition.through(&f)).collect()
    }

    /// Everything that `f` hands out for each partition.
    pub fn map_partitions<U: ?Sized + 'static>(
        &self,
        f: impl Fn(&Partition<T>, &mut Out<'_, U>) + Send + Sync + 'static,
    ) -> Batch<U> {
        let f = Arc::new(f);
        let narrow = |partition: &Partition<T>| {
            let (partition, f) = (partition.clone(), Arc::clone(&f));
            Partition::new(move |each| f(&partition, &mut Out::new(each)))
        };
        self.partitions.iter().map(narrow).collect()
    }

    /// The partitions of this batch, then those of the other.
    pub fn union(&self, other: &Batch<T>) -> Batch<T> {
        self.partitions.iter().chain(&other.partitions).cloned().collect()
    }
}

/// The output of a `flat_map`; its elements may borrow from the record.
pub struct Out<'a, U: ?Sized> {
    each: &'a mut dyn FnMut(&U),
}

impl<U: ?Sized> fmt::Debug for Out<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Out")
    }
}

impl<'a, U: ?Sized> Out<'a, U> {
    /// Hands everything to `each`.
    pub fn new(each: &'a mut dyn FnMut(&U)) -> Self {
        Out { each }
    }

    /// Hands out one element.
    pub fn push(&mut self, element: &U) {
        (self.each)(element);
    }

    /// Hands out every element of an iterator of references.
    pub fn extend<'i, I>(&mut self, elements: I)
    where
        I: IntoIterator<Item = &'i U>,
        U: 'i,
    {
        for element in elements {
            (self.each)(element);
        }
    }
}
