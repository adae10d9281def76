//! `Batch`: the elements of one batch of a stream, in lazy partitions that are iterated from inside.
//!
//! A partition calls back with each element by reference, so nothing is copied until an operator keeps a key. Runs on the
//! workers. Knows no plans, time, streams or sinks.

use std::fmt;

use super::fold::FanOut;
use super::inputs::StageReads;
use crate::sync::Arc;

/// A part of a batch that one task goes through. Its elements are computed anew each time; clones are the same part.
///
/// ```
/// use tidemill::Batch;
///
/// let batch: Batch<u8> = [1, 2].map(|n| tidemill::stream::Partition::new(move |each| each(&n))).into_iter().collect();
/// batch.partitions()[1].for_each(|n| assert_eq!(*n, 2));
/// ```
pub struct Partition<T: ?Sized> {
    pub(super) elements: Elements<T>,
    /// The point where folds join a pass that several jobs share over these elements, if there is one.
    pub(super) tap: Option<Arc<dyn FanOut<T>>>,
    /// What iterating it reads of the plan's stages.
    pub(super) reads: StageReads,
}

type Elements<T> = Arc<dyn Fn(&mut dyn FnMut(&T)) + Send + Sync>;

impl<T: ?Sized> Clone for Partition<T> {
    fn clone(&self) -> Self {
        let (elements, tap) = (Arc::clone(&self.elements), self.tap.clone());
        Partition { elements, tap, reads: self.reads }
    }
}

impl<T: ?Sized> fmt::Debug for Partition<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Partition")
    }
}

impl<T: ?Sized> Partition<T> {
    /// A partition that `elements` calls back with. It may read any result of the plan's stages.
    pub fn new(elements: impl Fn(&mut dyn FnMut(&T)) + Send + Sync + 'static) -> Self {
        Partition { elements: Arc::new(elements), tap: None, reads: StageReads::Anything }
    }

    /// The same partition, which reads only this.
    pub(crate) fn reading(self, reads: StageReads) -> Self {
        Partition { reads, ..self }
    }

    /// Calls `each` with every element, in order.
    pub fn for_each(&self, mut each: impl FnMut(&T)) {
        (self.elements)(&mut each);
    }
}

/// The elements of one batch of a stream, in partitions, as [`transform`](crate::DStream::transform) and
/// [`foreach_batch`](crate::DStream::foreach_batch) hand it over. It is a description: its operators compute nothing, and
/// [`for_each`](Batch::for_each) and [`collect`](Batch::collect) compute all elements, each time they are called, on the
/// thread that calls them. Clones are the same batch. Spark's counterpart is the RDD.
///
/// ```
/// # use tidemill::{testing::ManualClock, Config, StreamingContext};
/// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// let numbers = ctx.queue_stream(vec![Some(vec![1, 2, 3, 4])], 2);
/// let made = numbers.transform(|_time, batch| {
///     let even = batch.filter(|n| n % 2 == 0).map(|n| n * 10);
///     let twice = batch.flat_map(|n, out| out.extend(&[*n, *n]));
///     let lengths = twice.map_partitions(|partition, out| {
///         let mut length = 0;
///         partition.for_each(|_| length += 1);
///         out.push(&length);
///     });
///     even.union(&lengths)
/// });
/// let found = made.collect();
/// numbers.foreach_batch(|_time, batch| {
///     assert_eq!((batch.partitions().len(), batch.collect().len()), (2, 4));
///     batch.for_each(|n| assert!(*n < 5));
///     Ok(())
/// });
/// ctx.run_batches(1)?;
/// assert_eq!(found.rows()[0].1, [20, 40, 4, 4]);
/// # Ok::<(), tidemill::Error>(())
/// ```
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

    /// Maps each element to one other, by `f`, on the workers.
    pub fn map<U: 'static>(&self, f: impl Fn(&T) -> U + Send + Sync + 'static) -> Batch<U> {
        self.flat_map(move |element, out| out.emit(f(element)))
    }

    /// Keeps the elements for which `keep` holds.
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Batch<T> {
        self.flat_map(move |element, out| {
            if keep(element) {
                out.push(element);
            }
        })
    }

    /// Maps each element to those that `f` pushes into its [`Out`].
    pub fn flat_map<U: ?Sized + 'static>(
        &self,
        f: impl Fn(&T, &mut Out<'_, U>) + Send + Sync + 'static,
    ) -> Batch<U> {
        let f = Arc::new(f);
        self.partitions.iter().map(|partition| partition.through(&f)).collect()
    }

    /// Maps each partition to the elements that `f` pushes into its [`Out`].
    pub fn map_partitions<U: ?Sized + 'static>(
        &self,
        f: impl Fn(&Partition<T>, &mut Out<'_, U>) + Send + Sync + 'static,
    ) -> Batch<U> {
        let f = Arc::new(f);
        let narrow = |partition: &Partition<T>| {
            let (partition, f, reads) = (partition.clone(), Arc::clone(&f), partition.reads);
            Partition::new(move |each| f(&partition, &mut Out::new(each))).reading(reads)
        };
        self.partitions.iter().map(narrow).collect()
    }

    /// Puts the partitions of `other` behind those of this batch.
    pub fn union(&self, other: &Batch<T>) -> Batch<T> {
        self.partitions.iter().chain(&other.partitions).cloned().collect()
    }
}

/// The output of a `flat_map`. [`push`](Out::push) and [`extend`](Out::extend) lend elements, which may borrow from the record;
/// [`emit`](Out::emit) and [`emit_all`](Out::emit_all) take elements that were made for it. Nothing is copied or allocated.
///
/// ```
/// use tidemill::{Config, StreamingContext, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc").workers(1), ManualClock::new())?;
/// let lines = ctx.queue_stream(vec![Some(vec!["to be", "or"])], 1);
/// let words = lines.flat_map(|line, out| out.extend(line.split(' '))).collect();
/// let first = lines.flat_map(|line, out| out.push(&line[..1])).collect();
/// let sizes = lines.flat_map(|line, out| out.emit((line.len(), line.to_uppercase()))).collect();
/// let places = lines.flat_map(|line, out| out.emit_all(line.match_indices('o').map(|(at, _)| at))).collect();
/// ctx.run_batches(1)?;
/// assert_eq!(words.rows()[0].1, ["to", "be", "or"]);
/// assert_eq!(first.rows()[0].1, ["t", "o"]);
/// assert_eq!(sizes.rows()[0].1, [(5, "TO BE".to_owned()), (2, "OR".to_owned())]);
/// assert_eq!(places.rows()[0].1, [1, 0]);
/// # Ok::<(), tidemill::Error>(())
/// ```
pub struct Out<'a, U: ?Sized> {
    each: &'a mut dyn FnMut(&U),
}

impl<U: ?Sized> fmt::Debug for Out<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Out")
    }
}

impl<'a, U: ?Sized> Out<'a, U> {
    /// An output that calls `each` with every element, for tests of a closure by itself.
    pub fn new(each: &'a mut dyn FnMut(&U)) -> Self {
        Out { each }
    }

    /// Hands out one element by reference.
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

    /// Hands out one element by value.
    // A method of its own: what `push` is given decides `U` where nothing else does, and a reference may be coerced to it. A
    // `push` that took both would leave `U` open in programs that compile today.
    #[inline]
    pub fn emit(&mut self, element: U)
    where
        U: Sized,
    {
        (self.each)(&element);
    }

    /// Hands out every element of an iterator by value.
    #[inline]
    pub fn emit_all(&mut self, elements: impl IntoIterator<Item = U>)
    where
        U: Sized,
    {
        for element in elements {
            (self.each)(&element);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements that `f` hands out, each as text.
    fn check<U: ?Sized + fmt::Debug>(f: impl Fn(&mut Out<'_, U>), expected: &[&str]) {
        let mut found = Vec::new();
        f(&mut Out::new(&mut |element| found.push(format!("{element:?}"))));
        assert_eq!(found, expected);
    }

    #[derive(Debug)]
    struct Own(#[expect(dead_code, reason = "shown")] u8);

    #[test]
    fn elements_are_lent_and_given() {
        let line = "a b".to_owned();
        // The type of the elements follows from the call.
        check(|out| out.push(&line), &["\"a b\""]);
        check(|out| out.push(&line[1..]), &["\" b\""]);
        check(|out| out.push(&(1, 'x')), &["(1, 'x')"]);
        check(|out| out.extend(line.split(' ')), &["\"a\"", "\"b\""]);
        check(|out| out.extend(&[2, 3]), &["2", "3"]);
        check(|out| out.emit(line.clone()), &["\"a b\""]);
        check(|out| out.emit((1, Own(2))), &["(1, Own(2))"]);
        check(|out| out.emit_all(0..2), &["0", "1"]);
        check(|out| out.emit_all([Own(1), Own(2)]), &["Own(1)", "Own(2)"]);
        // The type is known, and references follow it.
        check::<str>(|out| out.push(&line), &["\"a b\""]);
        let bytes = line.clone().into_bytes();
        check::<[u8]>(|out| out.push(&bytes), &["[97, 32, 98]"]);
        check::<String>(|out| out.emit("a".into()), &["\"a\""]);
        check::<Vec<u8>>(|out| out.emit_all(line.split(' ').map(Into::into)), &["[97]", "[98]"]);
    }
}
