//! Windows: the elements, counts and aggregates of the batches in (t − length, t], whenever a slide ends: the operators. The
//! changes of a batch in a partition are in [`panes`]. Runs on the scheduler's thread, but for the closures of stages.

mod panes;
pub(crate) mod persist;
mod span;
pub(crate) mod undue;

use std::hash::Hash;

pub(super) use self::panes::{KeyedWindow, Rule};
use self::span::WindowAt;
pub use self::span::WindowSpan;
use super::ops::counter;
use super::ops::pairs::by_key;
use super::state::shard::{NewNode, ShardView, Shards, stateful};
use super::{DStream, Graph, Missing, Planner, StreamLineage};
use crate::exec::shuffle::{Entry, Shuffle, ShuffleShape, Slots};
use crate::sync::{Arc, Mutex};
use crate::time::Interval;

/// The part of a batch in a window: for each shard its keys with their aggregates. No slots without a batch.
pub(super) type Pane<K, V> = Slots<Entry<K, V>>;

impl Graph {
    /// Adds what empties a window.
    fn add_emptier(&self, empty: impl Fn() + Send + Sync + 'static) {
        self.registered.lock().emptiers.push(Box::new(empty));
    }

    /// Empties all windows: a start reads their batches from the log and runs them again, also for a program that has run
    /// before and still has them.
    pub(crate) fn empty_windows(&self) {
        self.registered.lock().emptiers.iter().for_each(|empty| empty());
        self.undue.lock().forget();
    }

    /// Records lengths that do not fit; the start reports them.
    pub(super) fn check_window(&self, operator: &str, lineage: &StreamLineage, span: WindowSpan) {
        let mut registered = self.registered.lock();
        registered.windows.push(operator.to_owned());
        if let Some(queue) = &lineage.queue {
            let pair = || (Arc::clone(queue), operator.to_owned());
            registered.queue_window.get_or_insert_with(pair);
        }
        drop(registered);
        let batch = self.settings.batch_interval;
        for (what, given) in [("length", span.length), ("slide", span.slide)] {
            if given.is_zero() {
                self.too_short(operator, what);
            } else if !given.is_multiple_of(batch) {
                self.problem(format!(
                    "{operator}: the {what} {given} is not a multiple of the batch interval {batch}"
                ));
            } else if !lineage.slide.is_zero() && !given.is_multiple_of(lineage.slide) {
                let above = lineage.slide;
                self.problem(format!(
                    "{operator}: the {what} {given} is not a multiple of {above}, by which the stream slides"
                ));
            }
        }
        self.wire(|wiring| wiring.add_slide(span.slide));
    }
}

impl<T: ?Sized + 'static> DStream<T> {
    /// Counts the elements of the last `length` of time, every `slide`; 0 if there are none. Keeps one number for each batch.
    /// Lengths are as for [`window`](DStream::window).
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let letters = ctx.queue_stream(vec![Some(vec!['a']), Some(vec!['b', 'c']), None], 1);
    /// let counts = letters.count_by_window(Interval::secs(2), Interval::secs(1)).collect();
    /// ctx.run_batches(4)?;
    /// let counts: Vec<u64> = counts.rows().into_iter().flat_map(|(_, rows)| rows).collect();
    /// assert_eq!(counts, [1, 3, 2, 0]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn count_by_window(&self, length: Interval, slide: Interval) -> DStream<u64> {
        let one = self.count().map(|count| ((), *count));
        let rule = Rule {
            join: Box::new(|sum, more| sum + more),
            inverse: Some(Box::new(|sum, less| sum - less)),
            keep: None,
        };
        let sums = one.keyed_window(
            "count_by_window",
            WindowSpan { length, slide },
            one.pane(|sum, more| sum + more),
            rule,
        );
        sums.showing(sums.map(|((), sum)| *sum))
    }

    /// Counts the occurrences of each element in the last `length` of time, every `slide`. An element that has left is not
    /// shown. The work of a batch follows the elements that enter and leave. Lengths are as for [`window`](DStream::window).
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let letters = ctx.queue_stream(vec![Some(vec!['a']), Some(vec!['a', 'a'])], 1);
    /// let counts = letters.count_by_value_and_window(Interval::secs(2), Interval::secs(1)).collect();
    /// ctx.run_batches(3)?;
    /// assert_eq!(counts.rows()[1].1, [('a', 3)]);
    /// assert_eq!(counts.rows()[2].1, [('a', 2)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn count_by_value_and_window(
        &self,
        length: Interval,
        slide: Interval,
    ) -> DStream<(T::Owned, u64)>
    where
        T: ToOwned + Hash + Eq,
        T::Owned: Clone + Hash + Eq + Send + Sync + 'static,
    {
        let (node, memory) = (Arc::clone(&self.node), Shuffle::default());
        let pane = move |cx: &mut Planner<'_>, shards| {
            let (batch, seed) = (node.compute(cx)?, cx.settings.seed);
            let shape = ShuffleShape { shards, ..cx.shape_by_worker(batch.partitions().len()) };
            let tables = memory.begin(&cx.scope.account(), shape, super::ops::Counted::merge);
            let inputs = cx.folds(&batch, 0, counter(&tables, seed));
            let rows = |table: &mut crate::exec::shuffle::Table<T::Owned, super::ops::Counted>| {
                let entry = |entry: Entry<_, super::ops::Counted>| Entry {
                    hash: entry.hash,
                    key: entry.key,
                    value: entry.value.count,
                };
                table.drain().map(entry).collect()
            };
            Ok(tables.plan_slots(&mut cx.stages, inputs, rows))
        };
        let span = WindowSpan { length, slide };
        self.keyed_window("count_by_value_and_window", span, pane, counting())
    }

    /// Joins all elements of the last `length` of time by `f`, every `slide`; nothing if there are none. `f` must be
    /// associative; elements are joined in order. Keeps one element for each batch, and the work does not grow with the
    /// length. Lengths are as for [`window`](DStream::window).
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let numbers = ctx.queue_stream(vec![Some(vec![4]), Some(vec![1, 7]), Some(vec![2])], 1);
    /// let highest = numbers.reduce_by_window(Interval::secs(2), Interval::secs(1), |a, b| *a.max(b)).collect();
    /// ctx.run_batches(5)?;
    /// let highest: Vec<_> = highest.rows().into_iter().map(|(_, rows)| rows).collect();
    /// assert_eq!(highest, [vec![4], vec![7], vec![7], vec![2], vec![]]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn reduce_by_window(
        &self,
        length: Interval,
        slide: Interval,
        f: impl Fn(&T, &T) -> T + Send + Sync + 'static,
    ) -> DStream<T>
    where
        T: Clone + Send + Sync,
    {
        let f = Arc::new(f);
        let (g, h) = (Arc::clone(&f), Arc::clone(&f));
        let one = self.reduce(move |a, b| f(a, b)).map(|sum| ((), sum.clone()));
        let rule = Rule { join: Box::new(move |a, b| g(a, b)), inverse: None, keep: None };
        let pane = one.pane(move |a, b| h(a, b));
        let sums = one.keyed_window("reduce_by_window", WindowSpan { length, slide }, pane, rule);
        sums.showing(sums.map(|((), sum)| sum.clone()))
    }

    /// Another stream that shows the state of this one: its name is the state's.
    pub(super) fn showing<U: ?Sized>(&self, stream: DStream<U>) -> DStream<U> {
        DStream { lineage: StreamLineage { state: self.lineage.state, ..stream.lineage }, ..stream }
    }
}

/// Counts, where what has left is gone.
pub(super) fn counting<K>() -> Rule<K, u64> {
    Rule {
        join: Box::new(|sum, more| sum + more),
        inverse: Some(Box::new(|sum, less| sum - less)),
        keep: Some(Box::new(|(_, count)| *count > 0)),
    }
}

impl<K, V> DStream<(K, V)>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the values of each key in the last `length` of time by `f`, every `slide`. `f` must be associative. The work of
    /// a batch follows the keys that enter and leave the window, not its length. Lengths are as for
    /// [`window`](DStream::window).
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![('a', 3)]), Some(vec![('a', 1)])], 1);
    /// let (length, slide) = (Interval::secs(2), Interval::secs(1));
    /// let highest = pairs.reduce_by_key_and_window(length, slide, |a, b| *a.max(b)).collect();
    /// ctx.run_batches(4)?;
    /// let highest: Vec<_> = highest.rows().into_iter().map(|(_, rows)| rows).collect();
    /// assert_eq!(highest, [vec![('a', 3)], vec![('a', 3)], vec![('a', 1)], vec![]]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn reduce_by_key_and_window(
        &self,
        length: Interval,
        slide: Interval,
        f: impl Fn(&V, &V) -> V + Send + Sync + 'static,
    ) -> DStream<(K, V)> {
        let f = Arc::new(f);
        let g = Arc::clone(&f);
        let rule = Rule { join: Box::new(move |a, b| f(a, b)), inverse: None, keep: None };
        let pane = self.pane(move |a, b| g(a, b));
        self.keyed_window("reduce_by_key_and_window", WindowSpan { length, slide }, pane, rule)
    }

    /// [`reduce_by_key_and_window`](DStream::reduce_by_key_and_window) for an `f` that `inverse` takes back: `inverse(&f(a,
    /// b), b)` is `a`. It keeps of a batch only the values that the batch brought. A key whose values have all left stays
    /// with the result of `inverse`, until `keep` does not hold for it; keys for which it does not hold are not shown. Spark
    /// Streaming has this as `reduceByKeyAndWindow` with `invReduceFunc` and `filterFunc`.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![('a', 3)]), Some(vec![('a', 1)])], 1);
    /// let (length, slide) = (Interval::secs(2), Interval::secs(1));
    /// let add = |a: &i32, b: &i32| a + b;
    /// let sums = pairs.reduce_by_key_and_window_with_inverse(length, slide, add, |a, b| a - b, |_| true).collect();
    /// ctx.run_batches(4)?;
    /// let sums: Vec<_> = sums.rows().into_iter().flat_map(|(_, rows)| rows).collect();
    /// assert_eq!(sums, [('a', 3), ('a', 4), ('a', 1), ('a', 0)]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn reduce_by_key_and_window_with_inverse(
        &self,
        length: Interval,
        slide: Interval,
        f: impl Fn(&V, &V) -> V + Send + Sync + 'static,
        inverse: impl Fn(&V, &V) -> V + Send + Sync + 'static,
        keep: impl Fn(&(K, V)) -> bool + Send + Sync + 'static,
    ) -> DStream<(K, V)> {
        let f = Arc::new(f);
        let g = Arc::clone(&f);
        let rule = Rule {
            join: Box::new(move |a, b| f(a, b)),
            inverse: Some(Box::new(inverse)),
            keep: Some(Box::new(keep)),
        };
        let pane = self.pane(move |a, b| g(a, b));
        let span = WindowSpan { length, slide };
        self.keyed_window("reduce_by_key_and_window_with_inverse", span, pane, rule)
    }

    /// Gathers all values of each key in the last `length` of time, in order, every `slide`. It keeps and copies every
    /// element, as [`window`](DStream::window) does.
    ///
    /// ```
    /// # use tidemill::{testing::ManualClock, Config, Interval, StreamingContext};
    /// # let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
    /// let pairs = ctx.queue_stream(vec![Some(vec![('a', 3)]), Some(vec![('a', 1)])], 1);
    /// let all = pairs.group_by_key_and_window(Interval::secs(2), Interval::secs(1)).collect();
    /// ctx.run_batches(3)?;
    /// let all: Vec<_> = all.rows().into_iter().map(|(_, rows)| rows).collect();
    /// assert_eq!(all, [vec![('a', vec![3])], vec![('a', vec![3, 1])], vec![('a', vec![1])]]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn group_by_key_and_window(
        &self,
        length: Interval,
        slide: Interval,
    ) -> DStream<(K, Vec<V>)> {
        let window = self.window_as("group_by_key_and_window", WindowSpan { length, slide });
        window.showing(window.group_by_key())
    }

    /// The pane of each batch: its keys, with their values joined by `f`.
    pub(super) fn pane<F>(
        &self,
        f: F,
    ) -> impl Fn(&mut Planner<'_>, usize) -> Result<Pane<K, V>, Missing> + Send + Sync + use<K, V, F>
    where
        F: Fn(&V, &V) -> V + Send + Sync + 'static,
    {
        let (node, memory, f) = (Arc::clone(&self.node), Shuffle::<K, V>::default(), Arc::new(f));
        let add = Arc::clone(&f);
        let aggregate = Arc::new((V::clone, move |sum: &mut V, value: &V| *sum = add(sum, value)));
        move |cx, shards| {
            let batch = node.compute(cx)?;
            let f = Arc::clone(&f);
            let shape = ShuffleShape { shards, ..cx.shape(batch.partitions().len()) };
            let merge = move |sum: &mut V, part: V| *sum = f(sum, &part);
            let tables = memory.begin(&cx.scope.account(), shape, merge);
            let inputs = cx.folds(&batch, 0, by_key(&tables, cx.settings.seed, &aggregate));
            let entries = |table: &mut crate::exec::shuffle::Table<K, V>| table.drain().collect();
            Ok(tables.plan_slots(&mut cx.stages, inputs, entries))
        }
    }
}

impl<T: ?Sized + 'static> DStream<T> {
    /// The window's rows, from the panes of its batches.
    pub(super) fn keyed_window<K, V>(
        &self,
        kind: &str,
        span: WindowSpan,
        pane: impl Fn(&mut Planner<'_>, usize) -> Result<Pane<K, V>, Missing> + Send + Sync + 'static,
        rule: Rule<K, V>,
    ) -> DStream<(K, V)>
    where
        K: Clone + Hash + Eq + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        let views = self.window_views(kind, span, pane, rule);
        views.showing(views.flat_map(|view, out| view.rows().for_each(|row| out.push(row))))
    }

    /// The window's partitions as each batch sees them.
    pub(super) fn window_views<K, V>(
        &self,
        kind: &str,
        span: WindowSpan,
        pane: impl Fn(&mut Planner<'_>, usize) -> Result<Pane<K, V>, Missing> + Send + Sync + 'static,
        rule: Rule<K, V>,
    ) -> DStream<ShardView<KeyedWindow<K, V>>>
    where
        K: Clone + Hash + Eq + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        self.graph.check_window(kind, &self.lineage, span);
        let WindowSpan { length, slide } = span;
        let id = self.graph.next_node();
        self.graph.add_stateful(id, kind);
        let (rule, kept) = (Arc::new(rule), Arc::new(Mutex::new(None)));
        let counted = self.graph.kept.of(id);
        let old = Arc::clone(&kept);
        self.graph.add_emptier(move || *old.lock() = None);
        let reach = self.graph.reach(&self.lineage, length);
        let lineage = StreamLineage { slide, reach, ..self.lineage.clone() };
        stateful(self, NewNode { id, lineage }, move |cx| {
            let new = || Shards::new((0..cx.shards()).map(|_| KeyedWindow::default()), &counted);
            let known = kept.lock().clone();
            let shards = known.unwrap_or_else(new);
            let pane = match pane(cx, shards.len()) {
                Ok(pane) => pane,
                Err(Missing::Failed(text)) => return Err(Missing::Failed(text)),
                Err(Missing::NoBatch(_) | Missing::NotDue) => Slots::new(0),
            };
            let (rule, window) = (Arc::clone(&rule), WindowAt { time: cx.input.time, length });
            let (views, apply) = shards.plan(cx, move |shard, base: &KeyedWindow<K, V>| {
                Ok(base.next(&rule, pane.take(shard), window))
            });
            let kept = Arc::clone(&kept);
            let commit = move || {
                // The partitions of the first batch that is committed are those of all later ones.
                kept.lock().get_or_insert(shards);
                apply();
            };
            let due = cx.scope.is_due(slide, window.time);
            Ok((if due { Ok(views.batch()) } else { Err(Missing::NotDue) }, Box::new(commit)))
        })
    }
}
