//! Streams that keep their elements: windows of elements, streams shared by several jobs, and batches to look back at.
//!
//! The elements of a batch are copied once, in the slots of its partitions; windows hand out the slots of many batches
//! again. Runs on the workers; the lists of batches belong to the scheduler's thread and their readers.

use std::any::Any;
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::ops::Deref;

use super::span::{WindowAt, WindowSpan};
use crate::exec::shuffle::Slots;
use crate::exec::{Batch, Partition};
use crate::stream::plan::batch_scope::Commit;
use crate::stream::{Compute, DStream, Missing, Planner, StreamLineage};
use crate::sync::{Arc, Mutex};
use crate::time::{Interval, Time};

/// The most partitions of a window; beyond that one task goes through several of its batches' partitions.
const PARTITIONS_MAX: usize = 64;

/// The elements of committed batches, the oldest first.
type Kept<E> = Arc<Mutex<VecDeque<(Time, Slots<E>)>>>;

/// The batches that a stream remembers, for [`slice`](DStream::slice).
pub(in crate::stream) struct Memory {
    /// The place of the stream's node, which the graph holds as long as this.
    node: usize,
    length: Interval,
    /// The `Kept` of its elements.
    kept: Box<dyn Any + Send + Sync>,
}

/// The bytes of the batches of a list, the oldest first.
type Sizes = Mutex<VecDeque<u64>>;

impl<T> DStream<T>
where
    T: ?Sized + ToOwned + 'static,
    T::Owned: Send + Sync + 'static,
{
    /// Hands on the elements of the last `length` of time, the oldest first, every `slide`. In the batches between two slides
    /// the stream has nothing, and its outputs do not run. The first windows are partial. Both lengths are multiples of the
    /// batch interval and of the slide of a window above; otherwise the start fails.
    ///
    /// Each element is copied once and kept for `length`, outside of `store_bytes_max`; after a restart the window reads its
    /// input again from the log.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![0]), Some(vec![1]), Some(vec![2])], 1);
    /// let window = numbers.window(Interval::secs(2), Interval::secs(1)).collect();
    /// ctx.run_batches(3)?;
    /// let rows: Vec<_> = window.rows().into_iter().map(|(_, rows)| rows).collect();
    /// assert_eq!(rows, [vec![0], vec![0, 1], vec![1, 2]]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn window(&self, length: Interval, slide: Interval) -> DStream<T> {
        self.window_as("window", WindowSpan { length, slide })
    }

    pub(crate) fn window_as(&self, kind: &str, span: WindowSpan) -> DStream<T> {
        self.graph.check_window(kind, &self.lineage, span);
        let WindowSpan { length, slide } = span;
        let lineage = StreamLineage { slide, ..self.lineage.clone() };
        let (stream, _) =
            self.stateful(kind, lineage, length, move |cx| cx.scope.is_due(slide, cx.input.time));
        stream
    }

    /// Copies the elements and keeps them as long as the batch lasts, so that everything below reads the copies. Streams that
    /// several jobs use are [computed once](DStream#streams-with-several-outputs) without it; it is for operators that
    /// compute their input again: `map_partitions`, `glom`, `transform`, `foreach_batch`, a job that is repeated, and jobs
    /// that run at the same time.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![1, 2])], 1);
    /// let costly = numbers.map(|n| n * n).persist();
    /// let (all, count) = (costly.glom().collect(), costly.count().collect());
    /// ctx.run_batches(1)?;
    /// assert_eq!((&all.rows()[0].1, &count.rows()[0].1), (&vec![vec![1, 4]], &vec![2]));
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn persist(&self) -> DStream<T> {
        let node = Arc::clone(&self.node);
        self.wide(move |cx| {
            let batch = node.compute(cx)?;
            let slots = cx.owned(&batch);
            Ok((0..slots.len()).map(|slot| part(vec![(slots.clone(), slot)])).collect())
        })
    }

    /// Keeps the batches of the last `length` of time, so that the program can look back at them with [`Remembered::slice`].
    /// A job that computes the stream for every batch. `length` is not bound to the batch interval.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, Interval, StreamingContext, Time};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![1]), Some(vec![2]), Some(vec![3])], 1);
    /// let kept = numbers.remember(Interval::secs(2));
    /// ctx.run_batches(3)?;
    /// let (second, third) = (Time::from_millis(2_000), Time::from_millis(3_000));
    /// assert_eq!(kept.slice(Time::from_millis(0), third), [(second, vec![2]), (third, vec![3])]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    /// [`slice`](DStream::slice) is a method of the stream itself, too.
    pub fn remember(&self, length: Interval) -> Remembered<T> {
        if length.is_zero() {
            self.graph.too_short("remember", "length");
        }
        let (stream, kept) = self.stateful("remember", self.lineage.clone(), length, |_| false);
        // Between two slides: the elements go into the list of batches and nowhere else.
        stream.foreach_batch(|_, _| Ok(()));
        let memory = Memory { node: self.place(), length, kept: Box::new(Arc::clone(&kept)) };
        self.graph.registered.lock().memories.push(memory);
        Remembered { stream: self.clone(), kept }
    }

    /// The elements of the committed batches from `from` to `to`, both included, as far as the stream still
    /// [remembers](DStream::remember) them. It may be called at any time, from any thread.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, Interval, StreamingContext, Time};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let stream = ctx.queue_stream(vec![Some(vec![1]), Some(vec![2]), Some(vec![3])], 1);
    /// stream.remember(Interval::secs(2));
    /// ctx.run_batches(3)?;
    /// let (second, third) = (Time::from_millis(2_000), Time::from_millis(3_000));
    /// assert_eq!(stream.slice(Time::from_millis(0), third), [(second, vec![2]), (third, vec![3])]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    ///
    /// # Panics
    /// If the stream remembers nothing, because nobody has called `remember` on it.
    pub fn slice(&self, from: Time, to: Time) -> Vec<(Time, Vec<T::Owned>)>
    where
        T::Owned: Clone,
    {
        let kept = {
            let registered = self.graph.registered.lock();
            let own = registered.memories.iter().filter(|memory| memory.node == self.place());
            let longest = own.max_by_key(|memory| memory.length);
            longest.and_then(|memory| memory.kept.downcast_ref::<Kept<T::Owned>>()).cloned()
        };
        let kept =
            kept.expect("`slice` is of a stream that remembers: call `remember` on it first");
        batches_within(&kept, from, to)
    }

    /// Where the stream's node lies: clones of a stream, under whatever name, share it.
    fn place(&self) -> usize {
        Arc::as_ptr(&self.node).cast::<()>().addr()
    }

    /// A stream of the elements of the last `length`, in the batches for which `due` holds.
    fn stateful(
        &self,
        kind: &str,
        lineage: StreamLineage,
        length: Interval,
        due: impl Fn(&Planner<'_>) -> bool + Send + Sync + 'static,
    ) -> (DStream<T>, Kept<T::Owned>) {
        let (id, node) = (self.graph.next_node(), Arc::clone(&self.node));
        self.graph.add_stateful(id, kind);
        let counted = self.graph.kept.of(id);
        let lineage = StreamLineage { reach: self.graph.reach(&self.lineage, length), ..lineage };
        let kept: Kept<T::Owned> = Arc::default();
        let (handle, sizes) = (Arc::clone(&kept), Arc::new(Sizes::default()));
        let (old, old_sizes, counts) = (Arc::clone(&kept), Arc::clone(&sizes), counted.clone());
        self.graph.add_emptier(move || {
            old.lock().clear();
            old_sizes.lock().drain(..).for_each(|bytes| counts.change(bytes, 0));
        });
        let compute = move |cx: &mut Planner<'_>| {
            let slots = match node.compute(cx) {
                Ok(batch) => Some(cx.owned(&batch)),
                Err(Missing::Failed(text)) => return Err(Missing::Failed(text)),
                Err(Missing::NoBatch(_) | Missing::NotDue) => None,
            };
            let window = WindowAt { time: cx.input.time, length };
            let result = if due(cx) {
                Ok(joined(&kept.lock(), slots.as_ref(), window))
            } else {
                Err(Missing::NotDue)
            };
            let (kept, sizes) = (Arc::clone(&kept), Arc::clone(&sizes));
            let counted = counted.clone();
            let commit = move || {
                let (mut kept, mut sizes) = (kept.lock(), sizes.lock());
                if let Some(slots) = slots {
                    // A window may be longer than the store is large: it must not hold the reading for ever.
                    let bytes = slots.keep() as u64;
                    counted.change(0, bytes);
                    sizes.push_back(bytes);
                    kept.push_back((window.time, slots));
                }
                while kept.front().is_some_and(|(at, _)| window.is_past(*at)) {
                    kept.pop_front();
                    counted.change(sizes.pop_front().unwrap_or(0), 0);
                }
            };
            Ok((result, Box::new(commit) as Commit))
        };
        let node = Compute(move |cx: &mut Planner<'_>| cx.stateful(id, &compute));
        let lineage = StreamLineage { state: Some(id), ..lineage.node(id) };
        (self.graph.keep(id, self.graph.stream(lineage, node)), handle)
    }
}

/// The stream that [`remember`](DStream::remember) returns: the same stream, by `Deref`, with a look at its last batches from
/// any thread.
pub struct Remembered<T: ?Sized + ToOwned> {
    stream: DStream<T>,
    kept: Kept<T::Owned>,
}

impl<T: ?Sized + ToOwned> std::fmt::Debug for Remembered<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<T: ?Sized + ToOwned> Deref for Remembered<T> {
    type Target = DStream<T>;

    fn deref(&self) -> &DStream<T> {
        &self.stream
    }
}

impl<T: ?Sized + ToOwned> Clone for Remembered<T> {
    fn clone(&self) -> Self {
        Remembered { stream: self.stream.clone(), kept: Arc::clone(&self.kept) }
    }
}

/// The stream alone. A function that takes `&DStream<T>` takes a `&Remembered` as it is.
impl<T: ?Sized + ToOwned> From<Remembered<T>> for DStream<T> {
    fn from(remembered: Remembered<T>) -> Self {
        remembered.stream
    }
}

impl<T: ?Sized + ToOwned> From<&Remembered<T>> for DStream<T> {
    fn from(remembered: &Remembered<T>) -> Self {
        remembered.stream.clone()
    }
}

impl<T> Remembered<T>
where
    T: ?Sized + ToOwned,
    T::Owned: Clone,
{
    /// Copies the elements of the committed batches from `from` to `to`, both included, as far as they are still kept.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![3, 1, 2])], 1);
    /// let kept = numbers.remember(Interval::secs(9));
    /// ctx.run_batches(2)?;
    /// let first = tidemill::Time::from_millis(1_000);
    /// assert_eq!(kept.slice(first, first), [(first, vec![3, 1, 2])]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn slice(&self, from: Time, to: Time) -> Vec<(Time, Vec<T::Owned>)> {
        batches_within(&self.kept, from, to)
    }
}

/// Copies the elements of the batches from `from` to `to`.
fn batches_within<E: Clone>(kept: &Kept<E>, from: Time, to: Time) -> Vec<(Time, Vec<E>)> {
    let kept: Vec<_> = kept.lock().iter().cloned().collect();
    let within = kept.into_iter().filter(|(time, _)| (from..=to).contains(time));
    let elements =
        |slots: Slots<E>| (0..slots.len()).flat_map(|slot| slots.at(slot).to_vec()).collect();
    within.map(|(time, slots)| (time, elements(slots))).collect()
}

/// The batches of the window at `time`, and the batch itself, in order.
fn joined<T>(
    kept: &VecDeque<(Time, Slots<T::Owned>)>,
    batch: Option<&Slots<T::Owned>>,
    window: WindowAt,
) -> Batch<T>
where
    T: ?Sized + ToOwned + 'static,
    T::Owned: Send + Sync + 'static,
{
    let young = kept.iter().filter(|(at, _)| !window.is_past(*at)).map(|(_, slots)| slots);
    let mut parts: Vec<(Slots<T::Owned>, usize)> = Vec::new();
    for slots in young.chain(batch) {
        parts.extend((0..slots.len()).map(|slot| (slots.clone(), slot)));
    }
    let tasks = parts.len().div_ceil(parts.len().div_ceil(PARTITIONS_MAX).max(1));
    let cut = |number: usize| parts.len() * number / tasks;
    (0..tasks).map(|number| part(parts[cut(number)..cut(number + 1)].to_vec())).collect()
}

fn part<T>(slots: Vec<(Slots<T::Owned>, usize)>) -> Partition<T>
where
    T: ?Sized + ToOwned + 'static,
    T::Owned: Send + Sync + 'static,
{
    Partition::new(move |each: &mut dyn FnMut(&T)| {
        for (slots, slot) in &slots {
            slots.at(*slot).iter().for_each(|element| each(element.borrow()));
        }
    })
}
