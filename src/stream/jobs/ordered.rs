//! The rows of a keyed window in one partition and in order, for jobs whose result has an order. It is made on the worker that
//! reads it, out of rows that stay where they lie. Knows no job.

use std::cmp::Ordering;
use std::hash::Hash;

use crate::exec::{Batch, Partition};
use crate::stream::DStream;
use crate::stream::state::shard::ShardView;
use crate::stream::window::KeyedWindow;
use crate::sync::Arc;

type View<K, V> = ShardView<KeyedWindow<K, V>>;

/// A reader of rows that are borrowed for one call.
type RowReader<'a, K, V> = dyn FnMut(&mut Vec<&(K, V)>) + 'a;

/// The first `n` rows of a window in this order.
pub(super) fn ordered<K, V>(
    views: &DStream<View<K, V>>,
    n: usize,
    order: impl Fn(&(K, V), &(K, V)) -> Ordering + Send + Sync + 'static,
) -> DStream<(K, V)>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let (node, order) = (Arc::clone(&views.node), Arc::new(order));
    let ordered = views.derive(move |cx| {
        let (parts, order) = (node.compute(cx)?.partitions().to_vec(), Arc::clone(&order));
        let rank = move |each: &mut dyn FnMut(&(K, V))| {
            all_rows(&parts, &[], &mut |rows| {
                let order = |left: &&(K, V), right: &&(K, V)| order(left, right);
                if n < rows.len() {
                    rows.select_nth_unstable_by(n, order);
                    rows.truncate(n);
                }
                rows.sort_unstable_by(order);
                rows.iter().for_each(|row| each(row));
            });
        };
        Ok(Batch::from_iter([Partition::new(rank)]))
    });
    views.showing(ordered)
}

/// Calls `then` with the rows of all partitions; they are borrowed from the views, so one call lies within the other.
fn all_rows<K, V>(parts: &[Partition<View<K, V>>], rows: &[&(K, V)], then: &mut RowReader<'_, K, V>)
where
    K: Clone + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    match parts.split_first() {
        None => then(&mut rows.to_vec()),
        Some((part, rest)) => part.for_each(|view| {
            let rows: Vec<&(K, V)> = rows.iter().copied().chain(view.rows()).collect();
            all_rows(rest, &rows, then);
        }),
    }
}
