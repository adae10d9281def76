//! `LogStats`: the figures of a log. Its thread counts, any thread reads, also after its end.

use crate::metrics::Counter;
use crate::sync::Arc;

/// The figures of a log since the start; [`LogFigures::log`](crate::LogFigures) has them. Records, groups and syncs show how
/// many records one sync of the disk makes durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Groups made durable: one sync of a segment each.
    pub groups: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of the records, without headers.
    pub bytes: u64,
    /// Groups that were refused, at least in part.
    pub refused: u64,
    /// Segments released.
    pub released: u64,
    /// Syncs of files and of the directory: for groups, new and released segments, and the list of segments.
    pub syncs: u64,
    /// Live segments now.
    pub segments: u64,
}

/// The counts behind [`LogStats`].
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) groups: Counter,
    pub(super) records: Counter,
    pub(super) bytes: Counter,
    pub(super) refused: Counter,
    pub(super) released: Counter,
    syncs: Counter,
    segments: Counter,
}

impl Counts {
    /// Copies the writer's counts.
    pub(super) fn look(&self, syncs: u64, segments: usize) {
        self.syncs.set(syncs);
        self.segments.set(segments as u64);
    }
}

/// A view of a log's figures. It holds no file and no lock of the log, so it may outlive it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogWatch(Arc<Counts>);

impl LogWatch {
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        LogWatch(Arc::clone(counts))
    }

    /// Figures since the log was opened.
    pub(crate) fn stats(&self) -> LogStats {
        let Counts { groups, records, bytes, refused, released, syncs, segments } = &*self.0;
        LogStats {
            groups: groups.value(),
            records: records.value(),
            bytes: bytes.value(),
            refused: refused.value(),
            released: released.value(),
            syncs: syncs.value(),
            segments: segments.value(),
        }
    }
}
