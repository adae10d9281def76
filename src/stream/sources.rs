//! Sources: the blocks that a receiver stored, as bytes or text, and queues for tests. Partitions run on the workers.

use super::{DStream, Graph, Missing, Node, Planner, SourceInfo};
use crate::blocks::manager::StoredBlock;
use crate::exec::{Batch, Partition, StageReads, fail_task};
use crate::source::direct::Portion;
use crate::sync::{Arc, AtomicU64, Ordering};

impl Graph {
    /// The records of a source, one partition for each block.
    pub fn blocks(self: &Arc<Self>, source: u32, name: &str) -> DStream<[u8]> {
        self.add_source(source, name);
        self.source(Some(source), BlockSource { source, bad_utf8: Arc::clone(&self.bad_utf8) })
    }

    /// The records of a source as text, one partition for each block. What is not UTF-8 becomes U+FFFD and is counted.
    pub fn text_blocks(self: &Arc<Self>, source: u32, name: &str) -> DStream<str> {
        self.add_source(source, name);
        self.source(Some(source), BlockSource { source, bad_utf8: Arc::clone(&self.bad_utf8) })
    }

    /// The records of a direct source, one partition for each portion.
    pub fn direct(self: &Arc<Self>, source: u32, name: &str) -> DStream<[u8]> {
        self.add_source(source, name);
        let name = name.into();
        self.source(Some(source), Portions { source, name, bad_utf8: Arc::clone(&self.bad_utf8) })
    }

    /// The records of a direct source as text. What is not UTF-8 becomes U+FFFD and is counted.
    pub fn text_direct(self: &Arc<Self>, source: u32, name: &str) -> DStream<str> {
        self.add_source(source, name);
        let name = name.into();
        self.source(Some(source), Portions { source, name, bad_utf8: Arc::clone(&self.bad_utf8) })
    }

    /// One entry for each batch, in this many partitions; past the end every batch is empty. Without an entry the source
    /// has no batch.
    pub fn queue_stream<T: Send + Sync + 'static>(
        self: &Arc<Self>,
        batches: Vec<Option<Vec<T>>>,
        partitions: usize,
    ) -> DStream<T> {
        let batches = batches.into_iter().map(|batch| batch.map(Arc::new)).collect();
        let name: Arc<str> = format!("queue#{}", self.next_node()).into();
        let node = QueueSource { name: Arc::clone(&name), batches, partitions: partitions.max(1) };
        let mut stream = self.source(None, node);
        stream.lineage.queue = Some(name);
        stream
    }

    fn add_source(&self, source: u32, name: &str) {
        let mut registered = self.registered.lock();
        if registered.sources.iter().all(|known| known.source != source) {
            registered.sources.push(SourceInfo { source, name: name.into() });
        }
    }
}

impl<T: ?Sized> DStream<T> {
    /// Sets if the records of this source may hold line feeds; by default they may.
    pub(crate) fn may_hold_line_feeds(mut self, line_feeds: bool) -> Self {
        self.lineage.line_feeds = line_feeds;
        self
    }
}

struct BlockSource {
    source: u32,
    bad_utf8: Arc<AtomicU64>,
}

impl BlockSource {
    fn of<'a>(&self, cx: &Planner<'a>) -> &'a [Arc<StoredBlock>] {
        cx.input.blocks.get(self.source as usize).map_or(&[], Vec::as_slice)
    }
}

impl Node<[u8]> for BlockSource {
    fn compute(&self, cx: &mut Planner<'_>) -> Result<Batch<[u8]>, Missing> {
        let partition = |block: &Arc<StoredBlock>| {
            let block = Arc::clone(block);
            of_input(move |each: &mut dyn FnMut(&[u8])| {
                ranges(&block, |range| block.info.framing.for_each(range, &mut *each));
            })
        };
        Ok(self.of(cx).iter().map(partition).collect())
    }

    fn blocks(&self, cx: &Planner<'_>) -> Option<Vec<Arc<StoredBlock>>> {
        Some(self.of(cx).to_vec())
    }
}

impl Node<str> for BlockSource {
    fn compute(&self, cx: &mut Planner<'_>) -> Result<Batch<str>, Missing> {
        let partition = |block: &Arc<StoredBlock>| {
            let (block, bad) = (Arc::clone(block), Arc::clone(&self.bad_utf8));
            of_input(move |each: &mut dyn FnMut(&str)| {
                let framing = block.info.framing;
                ranges(&block, |range| {
                    each_text(range, &bad, each, |each| framing.for_each(range, each));
                });
            })
        };
        Ok(self.of(cx).iter().map(partition).collect())
    }

    fn blocks(&self, cx: &Planner<'_>) -> Option<Vec<Arc<StoredBlock>>> {
        Some(self.of(cx).to_vec())
    }
}

/// A partition of the batch's input: it reads nothing that a task has made.
fn of_input<T: ?Sized>(
    elements: impl Fn(&mut dyn FnMut(&T)) + Send + Sync + 'static,
) -> Partition<T> {
    Partition::new(elements).reading(StageReads::Nothing)
}

/// Calls `each` with the ranges of a block; ends the task if it is not in memory and cannot be read back.
fn ranges(block: &StoredBlock, each: impl FnMut(&[u8])) {
    if let Err(err) = block.for_each_range(each) {
        fail_task(err.to_string());
    }
}

/// Calls `each` with the `records` of a range as text. A range is checked once, unless something in it is not UTF-8.
fn each_text(
    range: &[u8],
    bad: &AtomicU64,
    each: &mut dyn FnMut(&str),
    records: impl FnOnce(&mut dyn FnMut(&[u8])),
) {
    let whole = std::str::from_utf8(range).unwrap_or("");
    records(&mut |record| {
        // A record lies in its range; where it does not, or the range is not text, the record is checked by itself.
        let start = record.as_ptr().addr().wrapping_sub(range.as_ptr().addr());
        let checked = start.checked_add(record.len()).and_then(|end| whole.get(start..end));
        match checked.map_or_else(|| std::str::from_utf8(record), Ok) {
            Ok(text) => each(text),
            Err(_) => {
                bad.fetch_add(1, Ordering::Relaxed);
                each(&String::from_utf8_lossy(record));
            }
        }
    });
}

/// A direct source: the tasks read its records where they lie.
struct Portions {
    source: u32,
    name: Arc<str>,
    bad_utf8: Arc<AtomicU64>,
}

impl Portions {
    fn of<'a>(&self, cx: &Planner<'a>) -> Result<&'a [Arc<Portion>], Missing> {
        let planned = cx.input.direct.get(&self.source);
        let planned = planned.ok_or_else(|| Missing::NoBatch(Arc::clone(&self.name)))?;
        Ok(&planned.portions)
    }
}

impl Node<[u8]> for Portions {
    fn compute(&self, cx: &mut Planner<'_>) -> Result<Batch<[u8]>, Missing> {
        let partition = |portion: &Arc<Portion>| {
            let portion = Arc::clone(portion);
            of_input(move |each: &mut dyn FnMut(&[u8])| {
                let each = |range: &[u8]| portion.for_each_record(range, &mut *each);
                or_fail(portion.for_each_range(each));
            })
        };
        Ok(self.of(cx)?.iter().map(partition).collect())
    }
}

impl Node<str> for Portions {
    fn compute(&self, cx: &mut Planner<'_>) -> Result<Batch<str>, Missing> {
        let partition = |portion: &Arc<Portion>| {
            let (portion, bad) = (Arc::clone(portion), Arc::clone(&self.bad_utf8));
            of_input(move |each: &mut dyn FnMut(&str)| {
                or_fail(portion.for_each_range(|range| {
                    each_text(range, &bad, each, |each| portion.for_each_record(range, each));
                }));
            })
        };
        Ok(self.of(cx)?.iter().map(partition).collect())
    }
}

/// Ends the task if what it reads cannot be read.
fn or_fail(read: crate::error::Result<()>) {
    if let Err(err) = read {
        fail_task(err.to_string());
    }
}

struct QueueSource<T> {
    name: Arc<str>,
    batches: Vec<Option<Arc<Vec<T>>>>,
    partitions: usize,
}

impl<T: Send + Sync + 'static> Node<T> for QueueSource<T> {
    fn compute(&self, cx: &mut Planner<'_>) -> Result<Batch<T>, Missing> {
        let entry = usize::try_from(cx.input.index).ok().and_then(|index| self.batches.get(index));
        let elements = match entry {
            None => return Ok(Batch::from_iter([])),
            Some(None) => return Err(Missing::NoBatch(Arc::clone(&self.name))),
            Some(Some(elements)) => elements,
        };
        let part = |number: usize| {
            let cut = |number: usize| elements.len() * number / self.partitions;
            let (elements, range) = (Arc::clone(elements), cut(number)..cut(number + 1));
            of_input(move |each: &mut dyn FnMut(&T)| {
                elements[range.clone()].iter().for_each(&mut *each)
            })
        };
        Ok((0..self.partitions).map(part).collect())
    }
}
