//! `Report`: what a run did and what it left, source by source. Plain data; the thread that waits for the stream makes it.

use std::time::Duration;

use crate::source::io::IoModel;

/// The report on one source.
///
/// ```
/// use tidemill::{Config, Interval, StreamingContext};
///
/// let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
/// ctx.socket(tidemill::SocketSource::listen("127.0.0.1:0").named("in"))?.count().print(1);
/// let report = ctx.start()?.stop()?;
/// assert_eq!((report.sources[0].name.as_str(), report.sources[0].counter("records")), ("in", 0));
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// The name of the source.
    pub name: String,
    /// The io model that read it; `None` if it read no sockets.
    pub io_model: Option<IoModel>,
    /// The counters of the source at the end, by name: the fields of [`ReceiverCounters`](crate::metrics::ReceiverCounters).
    pub counters: Vec<(&'static str, u64)>,
}

impl SourceReport {
    /// The counter of that name; zero if there is none.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.iter().find(|(other, _)| *other == name).map_or(0, |(_, count)| *count)
    }
}

/// The report on a run: its work, and the work that it left. [`StreamHandle::stop`](super::StreamHandle::stop) and
/// [`StreamHandle::finish`](super::StreamHandle::finish) return it.
///
/// ```
/// use tidemill::{Config, Interval, ReceiverHandle, RunLimits, StreamingContext};
///
/// let ctx = StreamingContext::new(Config::new("doc").batch_interval(Interval::millis(20)))?;
/// ctx.limits(RunLimits { until_eof: true, ..RunLimits::default() });
/// let play = |handle: &ReceiverHandle| handle.store_all(["to be", "or not"]);
/// ctx.receiver_stream("play", play)?.count().print(1);
/// let (report, outcome) = ctx.start()?.finish();
/// outcome?;
/// assert_eq!((report.records, report.sources[0].counter("records")), (2, 2));
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Batches that are done: their jobs succeeded, or their input was put aside.
    pub batches: u64,
    /// Records of those batches.
    pub records: u64,
    /// Batches whose input was put aside as a dead letter.
    pub dead_letters: u64,
    /// The time from the start to the end of the stop.
    pub elapsed: Duration,
    /// The input that was received or planned and not processed, and the threads that hang, in words; empty after a clean stop.
    pub left: Vec<String>,
    /// The number of records that were read and not processed because of [`RunLimits::batches`](crate::RunLimits::batches).
    pub beyond_limit: u64,
    /// The number of records that were processed and that lie in no window that was due: the first window that has them ends
    /// later.
    pub not_due: u64,
    /// True if the next run continues those windows: there is a state directory.
    pub windows_kept: bool,
    /// The reports on the sources, in their order.
    pub sources: Vec<SourceReport>,
    /// The part of `stop_deadline` that the stop did not use.
    pub left_of_deadline: Duration,
}
