//! The built-in jobs over byte records: count, lines, grep, latency, wordcount and topk, with an optional filter before them.
//!
//! wordcount without a filter is one fused node: a line feed is white space, so it counts words over whole ranges and
//! never looks for records. Word tables belong to workers and are kept from batch to batch. Runs on the workers.

pub(crate) mod latency;

use regex::bytes::Regex;

use super::state::shard::ShardView;
use super::window::{KeyedWindow, counting};
use super::{DStream, Missing, Node, Planner};
use crate::blocks::manager::StoredBlock;
use crate::exec::shuffle::word_table::WordTable;
use crate::exec::shuffle::{Tally, WordPool, WordShuffle};
use crate::exec::{Batch, Partition, Stage, Work, folding};
use crate::sink::SharedSink;
use crate::sync::Arc;
use crate::time::Interval;

/// A job that a pipeline file can name.
#[derive(Clone, Debug)]
pub enum Builtin {
    /// One row with the number of records.
    Count,
    /// The records.
    Lines,
    /// The records that match.
    Grep(Regex),
    /// The words with their counts, highest first.
    Wordcount,
    /// How long the records took from their stamp to the end of their batch.
    Latency,
    /// The words, or the values of a field, that are most frequent.
    TopK {
        /// How many rows.
        n: usize,
        /// Which field of a record counts, from 1; all words of it if none.
        field: Option<usize>,
        /// What separates the fields; white space if none.
        separator: Option<Vec<u8>>,
    },
}

/// Which records a job looks at.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Those that match.
    pub filter: Option<Regex>,
    /// Those of the last length of time, every slide; those of the batch if none.
    pub window: Option<(Interval, Interval)>,
}

impl Builtin {
    /// Adds the job `name` to the stream's graph: over the records in `scope`, its rows to all of `sinks`.
    pub fn attach(&self, name: &str, stream: &DStream<[u8]>, scope: Scope, sinks: Vec<SharedSink>) {
        let filtered = || match scope.filter.clone() {
            Some(filter) => matching(stream, filter),
            None => stream.clone(),
        };
        if let Some(spans) = scope.window {
            return self.attach_window(name, &filtered(), spans, sinks);
        }
        match self {
            Builtin::Count => filtered().count().named(name).save_to(name, sinks),
            Builtin::Lines => filtered().named(name).save_to(name, sinks),
            Builtin::Grep(pattern) => {
                matching(&filtered(), pattern.clone()).named(name).save_to(name, sinks)
            }
            Builtin::Wordcount => {
                filtered().wordcount_top(rows_max(&sinks)).named(name).save_to(name, sinks);
            }
            Builtin::Latency => filtered().latency().named(name).save_to(name, sinks),
            Builtin::TopK { n, field, separator } => {
                let values = match field {
                    None => filtered().wordcount_top(*n),
                    Some(field) => filtered().topk(*n, *field, separator.clone()),
                };
                values.named(name).save_to(name, sinks);
            }
        }
    }
}

impl Builtin {
    fn attach_window(
        &self,
        name: &str,
        stream: &DStream<[u8]>,
        (length, slide): (Interval, Interval),
        sinks: Vec<SharedSink>,
    ) {
        match self {
            Builtin::Count => {
                stream.count_by_window(length, slide).named(name).save_to(name, sinks);
            }
            Builtin::Lines => stream.window(length, slide).named(name).save_to(name, sinks),
            Builtin::Grep(pattern) => {
                let matches = matching(stream, pattern.clone());
                matches.window(length, slide).named(name).save_to(name, sinks);
            }
            Builtin::Wordcount => {
                let counts = ranked(&stream.counted_words(), (length, slide), rows_max(&sinks));
                counts.named(name).save_to(name, sinks);
            }
            Builtin::Latency => {
                stream.latency_by_window(length, slide).named(name).save_to(name, sinks);
            }
            Builtin::TopK { n, field, separator } => {
                let values = match field {
                    None => stream.counted_words(),
                    Some(field) => stream.counted_fields(*field, separator.clone()),
                };
                ranked(&values, (length, slide), *n).named(name).save_to(name, sinks);
            }
        }
    }
}

/// How many rows of a batch make a difference to any of the sinks.
fn rows_max(sinks: &[SharedSink]) -> usize {
    sinks.iter().map(SharedSink::rows_max).max().unwrap_or(0)
}

/// The first `n` rows of the counts of a window: highest count first, then by bytes.
fn ranked(counts: &DStream<Tally>, spans: (Interval, Interval), n: usize) -> DStream<Tally> {
    let pane = counts.pane(|sum, more| sum + more);
    let views = counts.window_views("wordcount", spans, pane, counting());
    let node = Arc::clone(&views.node);
    let ranked = views.derive(move |cx| {
        let parts = node.compute(cx)?.partitions().to_vec();
        let rank = move |each: &mut dyn FnMut(&Tally)| {
            all_rows(&parts, &[], &mut |rows| {
                let order = |left: &&Tally, right: &&Tally| {
                    right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0))
                };
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
    views.showing(ranked)
}

type WordView = ShardView<KeyedWindow<Vec<u8>, u64>>;

/// Calls `then` with the rows of all partitions; they are borrowed from the views, so one call lies within the other.
fn all_rows(
    parts: &[Partition<WordView>],
    rows: &[&Tally],
    then: &mut dyn FnMut(&mut Vec<&Tally>),
) {
    match parts.split_first() {
        None => then(&mut rows.to_vec()),
        Some((part, rest)) => part.for_each(|view| {
            let rows: Vec<&Tally> = rows.iter().copied().chain(view.rows()).collect();
            all_rows(rest, &rows, then);
        }),
    }
}

fn matching(stream: &DStream<[u8]>, pattern: Regex) -> DStream<[u8]> {
    stream.filter(move |record| pattern.is_match(record))
}

impl DStream<[u8]> {
    /// The words of the records, at ASCII white space, with their counts: highest count first, then by bytes.
    pub fn wordcount(&self) -> DStream<(Vec<u8>, u64)> {
        self.wordcount_top(usize::MAX)
    }

    /// The first `n` rows of [`wordcount`](DStream::wordcount).
    pub fn wordcount_top(&self, n: usize) -> DStream<(Vec<u8>, u64)> {
        self.words(Some(n), |table, record| table.count_words(record), Fused::Yes)
    }

    /// The rows of [`wordcount`](DStream::wordcount) in no order that means anything, for an operator that does not need
    /// one.
    fn counted_words(&self) -> DStream<Tally> {
        self.words(None, |table, record| table.count_words(record), Fused::Yes)
    }

    /// The `n` most frequent values of field number `field`, from 1. Fields end at `separator`, or at white space if
    /// there is none; records without such a field are left out, and so are empty values.
    pub fn topk(
        &self,
        n: usize,
        field: usize,
        separator: Option<Vec<u8>>,
    ) -> DStream<(Vec<u8>, u64)> {
        self.words(Some(n), field_counter(field, separator), Fused::No)
    }

    /// All values of a field with their counts, in no order that means anything.
    fn counted_fields(&self, field: usize, separator: Option<Vec<u8>>) -> DStream<Tally> {
        self.words(None, field_counter(field, separator), Fused::No)
    }

    /// The first `n` in the order of the result, in one partition; all of them, in no order, if there is no `n`.
    fn words(
        &self,
        n: Option<usize>,
        count: impl Fn(&mut WordTable, &[u8]) + Send + Sync + 'static,
        fused: Fused,
    ) -> DStream<(Vec<u8>, u64)> {
        let (node, count, pool) = (Arc::clone(&self.node), Arc::new(count), WordPool::default());
        self.wide(move |cx| {
            let (account, shards) = (cx.epoch.account(), cx.shards());
            let tables =
                WordShuffle::begin(&pool, &account, cx.shape_by_worker(0), cx.settings.seed);
            let Some(tasks) = feeds(cx, &*node, (&tables, &count), fused)? else {
                return Ok(Batch::from_iter([]));
            };
            cx.stages.push(Stage { tasks });
            cx.stages.push(Stage {
                tasks: (0..shards).map(|shard| merge_task(&tables, shard, n)).collect(),
            });
            let unordered = |shard| {
                let tables = Arc::clone(&tables);
                Partition::new(move |each: &mut dyn FnMut(&Tally)| tables.rows_of(shard, each))
            };
            Ok(match n {
                None => (0..shards).map(unordered).collect(),
                Some(n) => Batch::from_iter([Partition::new(move |each| tables.rows(n, each))]),
            })
        })
    }
}

/// Counts the values of a field; see [`DStream::topk`].
fn field_counter(
    field: usize,
    separator: Option<Vec<u8>>,
) -> impl Fn(&mut WordTable, &[u8]) + Send + Sync + 'static {
    let finder = separator.map(|text| memchr::memmem::Finder::new(&text).into_owned());
    let skip = field.saturating_sub(1);
    move |table, record| {
        let value = match &finder {
            Some(finder) => separated(record, finder, skip),
            None => words_of(record).nth(skip),
        };
        value.into_iter().for_each(|value| table.count_word(value));
    }
}

/// Whether whole ranges may be counted at once where white space ends a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fused {
    Yes,
    No,
}

/// The tasks of the first stage, which feed a block or a partition of records to their worker's table; none if there is
/// nothing to count.
fn feeds(
    cx: &mut Planner<'_>,
    node: &dyn Node<[u8]>,
    (tables, count): (
        &Arc<WordShuffle>,
        &Arc<impl Fn(&mut WordTable, &[u8]) + Send + Sync + 'static>,
    ),
    fused: Fused,
) -> Result<Option<Vec<Work>>, Missing> {
    let whole = |block: &Arc<StoredBlock>| fused == Fused::Yes && block.info.framing.is_lines();
    if let Some(blocks) = node.blocks(cx).filter(|blocks| blocks.iter().all(whole)) {
        let feed = |block: Arc<StoredBlock>| -> Work {
            let tables = Arc::clone(tables);
            Box::new(move |worker| {
                let mut table = tables.lend(worker);
                let fed = block.for_each_range(|range| table.count_words(range));
                tables.give_back(worker, table);
                fed.map_err(|err| err.to_string())
            })
        };
        return Ok((!blocks.is_empty()).then(|| blocks.into_iter().map(feed).collect()));
    }
    let (batch, tables, count) = (node.compute(cx)?, Arc::clone(tables), Arc::clone(count));
    let start = move |_, worker| {
        let (tables, count) = (Arc::clone(&tables), Arc::clone(&count));
        let push = move |table: &mut WordTable, record: &[u8]| count(table, record);
        folding(tables.lend(worker), push, move |table| {
            tables.give_back(worker, table);
            Ok(())
        })
    };
    let any = !batch.partitions().is_empty();
    Ok(any.then(|| cx.folds(&batch, 0, start)))
}

fn merge_task(tables: &Arc<WordShuffle>, shard: usize, n: Option<usize>) -> Work {
    let tables = Arc::clone(tables);
    Box::new(move |_| {
        tables.merge(shard, n);
        Ok(())
    })
}

fn words_of(record: &[u8]) -> impl Iterator<Item = &[u8]> {
    record.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn separated<'a>(
    record: &'a [u8],
    finder: &memchr::memmem::Finder<'_>,
    skip: usize,
) -> Option<&'a [u8]> {
    let mut ends = finder.find_iter(record);
    let mut start = 0;
    for _ in 0..skip {
        start = ends.next()? + finder.needle().len();
    }
    Some(&record[start..ends.next().unwrap_or(record.len())])
}
